/* The workers' loop, their transmit buffers and rings, and the plan that gives each its queues. */
#include "core/worker.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/log.h"
#include "core/mbuf_pool.h"
#include "core/numa_node.h"
#include "core/pipeline.h"
#include "core/punt.h"
#include "core/rcu.h"

_Static_assert(PORTS_MAX <= 64, "tx_pending has one bit per port");

enum {
    FRAME_RING_SIZE = 4096,
};

enum tx_drop { TX_PORT_FULL, TX_NO_PORT, TX_RING_FULL, TX_ROUTER_RING_FULL, TX_CHAINED };

static struct drop_group tx_drops = {
    .name = "tx",
    .reasons =
        (const char *const[]){
            [TX_PORT_FULL] = "port_full",
            [TX_NO_PORT] = "no_port",
            [TX_RING_FULL] = "ring_full",
            [TX_ROUTER_RING_FULL] = "router_ring_full",
            [TX_CHAINED] = "chained",
            NULL,
        },
};
DROP_GROUP(tx_drops)

static struct worker *workers[WORKERS_MAX];
static unsigned worker_count;
static struct counters *control_block;
static atomic_bool stopping;
static const struct stage *slow_path_stage;
/* Workers that have let go of their queues since the start, and how many it must be at the end of the
 * plan that is being carried out. */
static atomic_uint_fast64_t meeting_arrived, meeting_all;

#define STAGE_IN_ORDER(name)
#define STAGE_ROLE(role, name) static const char role[] __rte_unused = #name;
#include "core/stages.def"
#undef STAGE_IN_ORDER
#undef STAGE_ROLE

/* --- creation --- */

static struct rte_ring *make_ring(const char *kind, unsigned index, unsigned size, int numa_node) {
    char name[RTE_RING_NAMESIZE];

    snprintf(name, sizeof(name), "%s-%u", kind, index);
    return rte_ring_create(name, size, numa_node, RING_F_SC_DEQ);
}

static struct worker *worker_create(unsigned index, unsigned lcore) {
    int numa_node = numa_node_of_cpu_id(rte_lcore_to_cpu_id((int)lcore));
    struct worker *worker = numa_node_alloc(sizeof(*worker), numa_node);

    if (!worker)
        return NULL;
    worker->index = index;
    worker->lcore = lcore;
    worker->numa_node = numa_node;
    worker->rx_port = PORT_NONE;
    worker->counters = counters_create(numa_node);
    worker->router_ring = make_ring("router", index, ROUTER_RING_SIZE, numa_node);
    worker->frame_ring = make_ring("frame", index, FRAME_RING_SIZE, numa_node);
    if (!worker->counters || !worker->router_ring || !worker->frame_ring)
        return NULL;
    return worker;
}

int workers_create(const unsigned *lcores, unsigned count) {
    if (count == 0 || count > WORKERS_MAX)
        return -EINVAL;
    slow_path_stage = stage_find(SLOW_PATH);
    if (!control_block)
        control_block = counters_create(SOCKET_ID_ANY);
    if (!control_block)
        return -ENOMEM;
    for (; worker_count < count; worker_count++) {
        workers[worker_count] = worker_create(worker_count, lcores[worker_count]);
        if (!workers[worker_count])
            return -ENOMEM;
        log_info("core", "worker %u on lcore %u, NUMA node %d", worker_count, lcores[worker_count],
                 workers[worker_count]->numa_node);
    }
    return 0;
}

static void free_ring(struct rte_ring *ring) {
    struct rte_mbuf *mbuf;

    while (rte_ring_dequeue(ring, (void **)&mbuf) == 0)
        rte_pktmbuf_free(mbuf);
    rte_ring_free(ring);
}

void workers_free(void) {
    for (unsigned i = 0; i < worker_count; i++) {
        for (unsigned port = 0; port < PORTS_MAX; port++)
            rte_pktmbuf_free_bulk(workers[i]->tx[port].packets, workers[i]->tx[port].count);
        pipeline_free(workers[i]->pipeline);
        free_ring(workers[i]->router_ring);
        free_ring(workers[i]->frame_ring);
        numa_node_free(workers[i], sizeof(*workers[i]));
    }
    worker_count = 0;
}

unsigned workers_count(void) {
    return worker_count;
}

struct worker *worker_get(unsigned index) {
    return workers[index];
}

struct counters *control_counters(void) {
    return control_block;
}

/* --- transmission --- */

static void drop_unsent(struct worker *worker, struct rte_mbuf **packets, unsigned count,
                        enum tx_drop reason) {
    for (unsigned i = 0; i < count; i++) {
        struct interface_counters *interface =
            &worker->counters->interface[packet_meta(packets[i])->out_interface];

        interface->tx_packets--;
        interface->tx_bytes -= packets[i]->pkt_len;
        interface->tx_dropped++;
    }
    worker->counters->drops[tx_drops.base + reason] += count;
    rte_pktmbuf_free_bulk(packets, count);
}

/* To the worker that owns a transmit queue on the port. */
static unsigned hand_over(struct worker *owner, struct rte_mbuf **packets, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        packet_meta(packets[i])->cause = CAUSE_FRAME;
        packet_meta(packets[i])->flags |= PACKET_HANDED_OVER;
    }
    return rte_ring_enqueue_burst(owner->frame_ring, (void **)packets, count, NULL);
}

/* Copies chained frames into one buffer each, for a port that takes no chains. Those that are too
 * long for one buffer are dropped; returns how many are left. */
static unsigned linearise(struct worker *worker, struct rte_mbuf **packets, unsigned count) {
    unsigned kept = 0;

    for (unsigned i = 0; i < count; i++) {
        struct rte_mbuf *mbuf = packets[i], *copy;

        if (mbuf->nb_segs == 1) {
            packets[kept++] = mbuf;
            continue;
        }
        copy = mbuf->pkt_len <= MBUF_DATA_ROOM - RTE_PKTMBUF_HEADROOM
                   ? rte_pktmbuf_copy(mbuf, worker->pool, 0, UINT32_MAX)
                   : NULL;
        if (!copy) {
            drop_unsent(worker, &mbuf, 1, TX_CHAINED);
            continue;
        }
        *packet_meta(copy) = *packet_meta(mbuf);
        copy->port = mbuf->port;
        rte_pktmbuf_free(mbuf);
        packets[kept++] = copy;
    }
    return kept;
}

void worker_send(struct worker *worker, uint16_t port, struct rte_mbuf **packets, unsigned count) {
    const struct tx_buffer *buffer = &worker->tx[port];
    enum tx_drop reason = TX_PORT_FULL;
    unsigned sent = 0;

    if (unlikely(buffer->linear))
        count = linearise(worker, packets, count);
    if (likely(buffer->usable && !buffer->by_ring)) {
        sent = rte_eth_tx_burst(port, buffer->queue, packets, (uint16_t)count);
    } else if (buffer->usable) {
        sent = hand_over(buffer->owner, packets, count);
        reason = TX_RING_FULL;
    } else {
        reason = TX_NO_PORT;
    }
    if (unlikely(sent < count))
        drop_unsent(worker, packets + sent, count - sent, reason);
}

void worker_flush_port(struct worker *worker, uint16_t port) {
    struct tx_buffer *buffer = &worker->tx[port];
    unsigned count = buffer->count;

    buffer->count = 0;
    worker->tx_pending &= ~(UINT64_C(1) << port);
    worker_send(worker, port, buffer->packets, count);
}

static void flush_all(struct worker *worker) {
    unsigned port;

    BURST_FOREACH (port, worker->tx_pending)
        worker_flush_port(worker, (uint16_t)port);
}

void worker_slow_path(struct worker *worker) {
    unsigned count = worker->diverted_count;

    worker->diverted_count = 0;
    slow_path_stage->slow_path(worker, worker->diverted, count);
}

void worker_route(struct worker *worker, struct rte_mbuf *mbuf) {
    if (unlikely(rte_ring_enqueue(worker->router_ring, mbuf) != 0)) {
        counters_drop(worker->counters, &tx_drops, TX_ROUTER_RING_FULL);
        rte_pktmbuf_free(mbuf);
    }
}

/* --- the loop --- */

/* A queue may move from one worker to another, and no two may use it at once: each worker lets go of all
 * its queues, and goes on when all have. That takes one turn of the slowest. The count of arrivals only
 * grows, so that nobody waits for a meeting that is over. */
static void meet_other_workers(void) {
    uint64_t all = atomic_load_explicit(&meeting_all, memory_order_acquire);

    atomic_fetch_add_explicit(&meeting_arrived, 1, memory_order_acq_rel);
    while (atomic_load_explicit(&meeting_arrived, memory_order_acquire) < all)
        rte_pause();
}

static void take_pipeline(struct worker *worker) {
    struct pipeline *pipeline = atomic_load_explicit(&worker->next_pipeline, memory_order_acquire);

    flush_all(worker);
    if (worker->running)
        meet_other_workers();
    for (uint16_t port = 0; port < PORTS_MAX; port++) {
        const struct tx_route *route = pipeline_tx(pipeline, port);

        worker->tx[port].usable = route->usable;
        worker->tx[port].linear = route->linear;
        worker->tx[port].by_ring = route->by_ring;
        worker->tx[port].queue = route->queue;
        worker->tx[port].owner = route->owner;
    }
    worker->pipeline = pipeline;
}

unsigned worker_turn(struct worker *worker) {
    uint64_t start = rte_rdtsc();

    /* First, that is, after the quiescent report of the turn before: a worker that has reported
     * since a new pipeline was published must not run the old one again. */
    if (unlikely(atomic_load_explicit(&worker->next_pipeline, memory_order_acquire) !=
                 worker->pipeline))
        take_pipeline(worker);

    worker->now = start;

    unsigned packets = pipeline_turn(worker->pipeline);

    flush_all(worker);
    worker->counters->loops++;

    uint64_t spent = rte_rdtsc() - start;

    worker->counters->all_cycles += spent;
    if (packets > 0)
        worker->counters->busy_cycles += spent;
    else
        worker->counters->empty_loops++;
    return packets;
}

int worker_main(void *context) {
    struct worker *worker = context;

    rcu_online(worker->index);
    while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
        worker_turn(worker);
        rcu_quiescent(worker->index);
    }
    rcu_offline(worker->index);
    return 0;
}

int workers_start(void) {
    atomic_store(&stopping, false);
    for (unsigned i = 0; i < worker_count; i++) {
        if (workers[i]->lcore == rte_lcore_id())
            continue;

        workers[i]->running = true;

        int error = rte_eal_remote_launch(worker_main, workers[i], workers[i]->lcore);

        if (error) {
            workers[i]->running = false;
            return error;
        }
    }
    return 0;
}

void workers_stop(void) {
    atomic_store(&stopping, true);
    for (unsigned i = 0; i < worker_count; i++) {
        if (workers[i]->running)
            rte_eal_wait_lcore(workers[i]->lcore);
        workers[i]->running = false;
        flush_all(workers[i]);
    }
}

/* --- the plan --- */

struct plan {
    unsigned queue_count[WORKERS_MAX];
    struct rx_queue queues[WORKERS_MAX][PORTS_MAX * 2];
    struct tx_route tx[WORKERS_MAX][PORTS_MAX];
};

static int plan_rx(struct plan *plan, unsigned worker, uint16_t port, uint16_t queue) {
    unsigned *count = &plan->queue_count[worker];

    if (*count == RTE_DIM(plan->queues[worker]))
        return -ENOSPC;
    plan->queues[worker][(*count)++] = (struct rx_queue){.port = port, .queue = queue};
    return 0;
}

/* A port with a queue per worker gives queue i to worker i. A port with fewer is polled by as many
 * workers, starting at another worker for each such port, so that single-queue ports are spread. */
static int plan_port(struct plan *plan, const struct port *port, unsigned *spread) {
    unsigned base = 0;

    if (port->rx_queues < worker_count) {
        base = *spread % worker_count;
        *spread += port->rx_queues;
    }
    for (uint16_t queue = 0; queue < port->rx_queues; queue++) {
        int error = plan_rx(plan, (base + queue) % worker_count, port->id, queue);

        if (error)
            return error;
    }
    for (unsigned i = 0; i < worker_count; i++) {
        unsigned place = (i + worker_count - base) % worker_count;
        bool own = place < port->tx_queues;
        unsigned queue = own ? place : place % port->tx_queues;

        plan->tx[i][port->id] = (struct tx_route){
            .usable = true,
            .linear = !port->tx_multi_segment,
            .by_ring = !own,
            .queue = (uint16_t)queue,
            .owner = workers[(queue + base) % worker_count],
        };
    }
    return 0;
}

static void log_plan(const struct plan *plan) {
    for (unsigned i = 0; i < worker_count; i++) {
        for (unsigned q = 0; q < plan->queue_count[i]; q++)
            log_info("core", "worker %u (lcore %u, NUMA node %d) polls port %u queue %u", i,
                     workers[i]->lcore, workers[i]->numa_node, plan->queues[i][q].port,
                     plan->queues[i][q].queue);
    }
}

static unsigned running_workers(void) {
    unsigned count = 0;

    for (unsigned i = 0; i < worker_count; i++)
        count += workers[i]->running;
    return count;
}

int workers_plan(struct port *const *ports, unsigned count) {
    struct plan *plan = calloc(1, sizeof(*plan));
    struct pipeline *pipelines[WORKERS_MAX] = {0}, *old[WORKERS_MAX];
    unsigned spread = 0;
    int error = plan ? 0 : -ENOMEM;

    for (unsigned i = 0; error == 0 && i < count; i++)
        error = plan_port(plan, ports[i], &spread);
    for (unsigned i = 0; error == 0 && i < worker_count; i++) {
        workers[i]->pool = mbuf_pool(workers[i]->numa_node);
        pipelines[i] =
            pipeline_create(workers[i], plan->queues[i], plan->queue_count[i], plan->tx[i]);
        if (!pipelines[i])
            error = -ENOMEM;
    }
    if (error) {
        for (unsigned i = 0; i < worker_count; i++)
            pipeline_free(pipelines[i]);
        free(plan);
        return error;
    }
    log_plan(plan);
    free(plan);
    atomic_store(&meeting_all, atomic_load(&meeting_arrived) + running_workers());
    for (unsigned i = 0; i < worker_count; i++) {
        old[i] = workers[i]->pipeline;
        atomic_store_explicit(&workers[i]->next_pipeline, pipelines[i], memory_order_release);
        if (!workers[i]->running)
            take_pipeline(workers[i]);
    }
    /* The next plan must not begin before each worker has this one. */
    while (atomic_load(&meeting_arrived) < atomic_load(&meeting_all))
        sched_yield(); /* a worker may share the CPU */
    rcu_synchronize();
    for (unsigned i = 0; i < worker_count; i++)
        pipeline_free(old[i]);
    return 0;
}

bool worker_queue(const struct worker *worker, unsigned i, uint16_t *port, uint16_t *queue) {
    struct pipeline *pipeline =
        atomic_load((struct pipeline * _Atomic *)(uintptr_t)&worker->next_pipeline);
    struct rx_queue rx;

    if (!pipeline || !pipeline_rx(pipeline, i, &rx))
        return false;
    *port = rx.port;
    *queue = rx.queue;
    return true;
}

/* --- from the control thread --- */

static void control_enqueue(struct rte_ring *ring, struct rte_mbuf *mbuf, enum tx_drop reason) {
    if (rte_ring_enqueue(ring, mbuf) != 0) {
        counters_drop(control_block, &tx_drops, reason);
        rte_pktmbuf_free(mbuf);
    }
}

void control_route(struct rte_mbuf *mbuf) {
    control_enqueue(workers[0]->router_ring, mbuf, TX_ROUTER_RING_FULL);
}

void control_transmit(struct rte_mbuf *mbuf, uint16_t out_interface, uint16_t port) {
    struct packet_meta *meta = packet_meta(mbuf);
    struct worker *worker = workers[0];

    meta->cause = CAUSE_FRAME;
    meta->out_interface = out_interface;
    meta->flags |= PACKET_FROM_ROUTER;
    if (worker->tx[port].by_ring)
        worker = worker->tx[port].owner;
    control_enqueue(worker->frame_ring, mbuf, TX_RING_FULL);
}

struct rte_mbuf *control_mbuf(void) {
    struct rte_mempool *pool = mbuf_pool(SOCKET_ID_ANY);
    struct rte_mbuf *mbuf = pool ? rte_pktmbuf_alloc(pool) : NULL;

    if (mbuf)
        memset(packet_meta(mbuf), 0, sizeof(struct packet_meta));
    return mbuf;
}
