/* Punting: policers, the ring and the wake-up. */
#include "core/punt.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_ring.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/event.h"
#include "core/log.h"
#include "core/worker.h"

const char *const punt_class_names[PUNT_CLASSES] = {
    [PUNT_ARP] = "arp",         [PUNT_RESOLVE] = "resolve", [PUNT_IKE] = "ike",
    [PUNT_ROUTING] = "routing", [PUNT_OTHER] = "other",
};

/* Reasons 0..PUNT_CLASSES-1 are "the class's policer". */
enum { PUNT_RING_FULL = PUNT_CLASSES, PUNT_NO_HANDLER };

static struct drop_group punt_drops = {
    .name = "punt",
    .reasons =
        (const char *const[]){
            [PUNT_ARP] = "arp_policed",
            [PUNT_RESOLVE] = "resolve_policed",
            [PUNT_IKE] = "ike_policed",
            [PUNT_ROUTING] = "routing_policed",
            [PUNT_OTHER] = "other_policed",
            [PUNT_RING_FULL] = "ring_full",
            [PUNT_NO_HANDLER] = "no_handler",
            NULL,
        },
};
DROP_GROUP(punt_drops)

enum { RING_SIZE = 4096, DRAIN_MAX = 256, DRAIN_BURST = 32 };

/* A token bucket per class and worker would let N workers pass N times the rate, and the tokens of
 * an idle worker would be lost to the others; so each class has one, shared. It is touched only by
 * punted packets, which are few. Tokens are TSC cycles: a packet costs hz / rate of them. */
struct policer {
    atomic_uint_fast64_t paid_until; /* TSC time up to which tokens are used */
    _Atomic uint64_t cycles_per_packet;
    uint32_t rate;
} __rte_cache_aligned;

static struct policer policers[PUNT_CLASSES];
static punt_handler handlers[PUNT_CLASSES];
static struct rte_ring *ring;
static atomic_bool asleep; /* the control thread waits for the eventfd */
static struct event_fd wakeup = {.fd = -1};

void punt_set_handler(enum punt_class punt_class, punt_handler handler) {
    handlers[punt_class] = handler;
}

void punt_set_rate(enum punt_class punt_class, uint32_t packets_per_second) {
    policers[punt_class].rate = packets_per_second;
    atomic_store(&policers[punt_class].cycles_per_packet,
                 packets_per_second ? rte_get_tsc_hz() / packets_per_second : UINT64_MAX);
}

uint32_t punt_get_rate(enum punt_class punt_class) {
    return policers[punt_class].rate;
}

/* Allows a burst of a tenth of a second's packets. */
static bool policer_pass(struct policer *policer, uint64_t now) {
    uint64_t cost = atomic_load_explicit(&policer->cycles_per_packet, memory_order_relaxed);
    uint64_t depth = RTE_MAX(rte_get_tsc_hz() / 10, cost); /* one packet always, if any at all */
    uint64_t paid = atomic_load_explicit(&policer->paid_until, memory_order_relaxed);

    if (cost == UINT64_MAX)
        return false;
    for (;;) {
        uint64_t from = paid + depth < now ? now - depth : paid;

        if (from + cost > now)
            return false;
        if (atomic_compare_exchange_weak_explicit(&policer->paid_until, &paid, from + cost,
                                                  memory_order_relaxed, memory_order_relaxed))
            return true;
    }
}

static void wake_control(void) {
    /* The ring's new tail must be seen before `asleep` is read, or both sides could miss each
     * other. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&asleep, memory_order_acquire) && atomic_exchange(&asleep, false)) {
        uint64_t one = 1;

        if (write(wakeup.fd, &one, sizeof(one)) < 0)
            atomic_store(&asleep, true); /* cannot happen: the counter is far from full */
    }
}

void punt(struct worker *worker, struct rte_mbuf *mbuf, enum punt_class punt_class) {
    unsigned reason = punt_class;

    packet_meta(mbuf)->punt_class = (uint8_t)punt_class;
    if (policer_pass(&policers[punt_class], worker->now)) {
        if (rte_ring_enqueue(ring, mbuf) == 0) {
            wake_control();
            return;
        }
        reason = PUNT_RING_FULL;
    }
    counters_drop(worker->counters, &punt_drops, reason);
    rte_pktmbuf_free(mbuf);
}

static void handle(struct rte_mbuf *mbuf) {
    punt_handler handler = handlers[packet_meta(mbuf)->punt_class];

    if (handler) {
        handler(mbuf);
    } else {
        counters_drop(control_counters(), &punt_drops, PUNT_NO_HANDLER);
        rte_pktmbuf_free(mbuf);
    }
}

bool punt_drain(void) {
    struct rte_mbuf *packets[DRAIN_BURST];

    for (unsigned handled = 0; handled < DRAIN_MAX;) {
        unsigned count = rte_ring_dequeue_burst(ring, (void **)packets, DRAIN_BURST, NULL);

        if (count == 0)
            return false;
        for (unsigned i = 0; i < count; i++)
            handle(packets[i]);
        handled += count;
    }
    return true;
}

/* Level-triggered: the eventfd stays readable until the ring was seen empty after `asleep` was set,
 * so that no packet is left behind between the last look and the sleep. */
static void woken(struct event_fd *self, uint32_t events) {
    uint64_t count;

    (void)events;
    if (punt_drain())
        return;
    if (read(self->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_warning("core", "cannot read the punt eventfd: errno %d", errno);
    atomic_store(&asleep, true);
    if (!rte_ring_empty(ring))
        wake_control();
}

int punt_init(void) {
    int error;

    ring = rte_ring_create("punt", RING_SIZE, SOCKET_ID_ANY, RING_F_SC_DEQ);
    wakeup.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!ring || wakeup.fd < 0)
        return -ENOMEM;
    wakeup.ready = woken;
    error = event_fd_add(&wakeup, EPOLLIN);
    if (error)
        return error;
    punt_set_rate(PUNT_ARP, 1000);
    punt_set_rate(PUNT_RESOLVE, 5000);
    punt_set_rate(PUNT_IKE, 1000);
    punt_set_rate(PUNT_ROUTING, 2000);
    punt_set_rate(PUNT_OTHER, 1000);
    atomic_store(&asleep, true);
    return 0;
}

void punt_free(void) {
    if (wakeup.fd >= 0) {
        event_fd_remove(&wakeup);
        close(wakeup.fd);
        wakeup.fd = -1;
    }
    if (ring) {
        struct rte_mbuf *mbuf;

        while (rte_ring_dequeue(ring, (void **)&mbuf) == 0)
            rte_pktmbuf_free(mbuf);
        rte_ring_free(ring);
        ring = NULL;
    }
}
