/* Deferred release on top of rte_rcu_qsbr. The queue is a ring buffer that grows; entries become due
 * in the order they came, because tokens only grow. */
#include "core/rcu.h"

#include <errno.h>
#include <rte_rcu_qsbr.h>
#include <stdlib.h>

#include "core/event.h"

struct retired {
    uint64_t token;
    void (*free_fn)(void *owner, void *memory, size_t size);
    void *owner, *memory;
    size_t size;
};

static struct rte_rcu_qsbr *qsbr;
static struct retired *queue;
static size_t queue_head, queue_count, queue_capacity;
static int shared_worker = -1;
static struct event_timer reclaim_timer;

enum { RECLAIM_INTERVAL_MSEC = 10, RECLAIM_AT_COUNT = 4096 };

static void reclaim_expired(struct event_timer *timer) {
    if (rcu_reclaim() > 0)
        event_timer_start(timer, RECLAIM_INTERVAL_MSEC);
}

int rcu_init(unsigned workers) {
    size_t size = rte_rcu_qsbr_get_memsize(workers);

    qsbr = aligned_alloc(RTE_CACHE_LINE_SIZE, RTE_ALIGN_CEIL(size, RTE_CACHE_LINE_SIZE));
    if (!qsbr || rte_rcu_qsbr_init(qsbr, workers) != 0)
        return -ENOMEM;
    for (unsigned worker = 0; worker < workers; worker++)
        rte_rcu_qsbr_thread_register(qsbr, worker);
    reclaim_timer.expired = reclaim_expired;
    return 0;
}

void rcu_free(void) {
    shared_worker = -1;
    for (; queue_count > 0; queue_count--, queue_head++) {
        struct retired *entry = &queue[queue_head % queue_capacity];

        entry->free_fn(entry->owner, entry->memory, entry->size);
    }
    event_timer_stop(&reclaim_timer);
    free(queue);
    free(qsbr);
    queue = NULL;
    qsbr = NULL;
    queue_head = queue_capacity = 0;
}

void rcu_online(unsigned worker) { rte_rcu_qsbr_thread_online(qsbr, worker); }

void rcu_offline(unsigned worker) { rte_rcu_qsbr_thread_offline(qsbr, worker); }

void rcu_quiescent(unsigned worker) { rte_rcu_qsbr_quiescent(qsbr, worker); }

void rcu_set_shared_thread(unsigned worker) { shared_worker = (int)worker; }

void rcu_shared_quiescent(void) {
    if (shared_worker >= 0)
        rte_rcu_qsbr_quiescent(qsbr, (unsigned)shared_worker);
}

static int queue_grow(void) {
    size_t capacity = queue_capacity ? queue_capacity * 2 : 256;
    struct retired *larger = malloc(capacity * sizeof(*larger));

    if (!larger)
        return -ENOMEM;
    for (size_t i = 0; i < queue_count; i++)
        larger[i] = queue[(queue_head + i) % queue_capacity];
    free(queue);
    queue = larger;
    queue_head = 0;
    queue_capacity = capacity;
    return 0;
}

void rcu_retire(void *context, void (*free_fn)(void *owner, void *memory, size_t size), void *owner,
                void *memory, size_t size) {
    (void)context;
    if (queue_count == queue_capacity && queue_grow() < 0) {
        /* No memory to remember it by: wait for the workers instead. */
        rcu_synchronize();
        free_fn(owner, memory, size);
        return;
    }
    queue[(queue_head + queue_count++) % queue_capacity] = (struct retired){
        .token = rte_rcu_qsbr_start(qsbr),
        .free_fn = free_fn,
        .owner = owner,
        .memory = memory,
        .size = size,
    };
    if (queue_count % RECLAIM_AT_COUNT == 0)
        rcu_reclaim();
    if (!event_timer_armed(&reclaim_timer))
        event_timer_start(&reclaim_timer, RECLAIM_INTERVAL_MSEC);
}

size_t rcu_reclaim(void) {
    rcu_shared_quiescent();
    while (queue_count > 0) {
        struct retired entry = queue[queue_head % queue_capacity];

        if (rte_rcu_qsbr_check(qsbr, entry.token, false) != 1)
            break;
        queue_head = (queue_head + 1) % queue_capacity;
        queue_count--;
        entry.free_fn(entry.owner, entry.memory, entry.size);
    }
    return queue_count;
}

uint64_t rcu_token(void) {
    return rte_rcu_qsbr_start(qsbr);
}

bool rcu_passed(uint64_t token) {
    return rte_rcu_qsbr_check(qsbr, token, false) == 1;
}

void rcu_synchronize(void) {
    uint64_t token = rte_rcu_qsbr_start(qsbr);

    rcu_shared_quiescent();
    rte_rcu_qsbr_check(qsbr, token, true);
}
