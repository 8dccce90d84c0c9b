/*
 * Workers: lcores that poll their receive queues, run the pipeline and transmit, to completion.
 *
 * A worker never blocks, locks or allocates from the heap. What it reads is published by the control
 * thread (core/rcu.h); what it writes is its own, or goes through a ring:
 *
 *   router ring   L3 packets made by the router (ICMP errors, answers, released hold queues) that
 *                 still need a route; they enter at ROUTER_ENTRY
 *   frame ring    finished frames for a transmit queue that this worker owns, from the control
 *                 thread or from workers without a queue on that port; they enter at FRAME_ENTRY
 *   punt ring     one for the whole router, read by the control thread (core/punt.h)
 */
#pragma once

#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/counters.h"
#include "core/port.h"
#include "core/stage.h"

enum { WORKERS_MAX = 64 };

/* What is true of every packet of the running burst, so that stages need not look at each one. The
 * stage that a burst enters by sets it; a stage that changes it for any packet sets BURST_MIXED. */
enum burst_kind {
    BURST_MIXED,      /* nothing is known */
    BURST_PLAIN_IPV4, /* one interface, l3_offset ETHER_HEADER, 20 bytes of IPv4 header, flags 0 */
    BURST_PLAIN_IPV6, /* one interface, l3_offset ETHER_HEADER, flags PACKET_IPV6 alone */
};

/* Frames waiting for one port. */
struct tx_buffer {
    uint16_t count;
    uint16_t queue;     /* this worker's transmit queue on the port */
    bool usable;        /* the port exists in the current plan */
    bool linear;        /* the port takes no chained mbufs */
    bool by_ring;       /* no queue of its own: hand to `owner` */
    struct worker *owner;
    struct rte_mbuf *packets[BURST_MAX];
} __rte_cache_aligned;

struct pipeline;

struct worker {
    unsigned index;    /* 0.. */
    unsigned lcore;
    int numa_node;
    struct counters *counters;
    uint64_t now;      /* TSC at the start of this turn */
    uint16_t rx_port;  /* the ethdev port that the running burst came from; PORT_NONE: from a ring */
    enum burst_kind burst_kind;
    bool one_port;     /* `output` found that all its packets leave by the same port */
    bool sampling;     /* the running burst's stages are being timed */
    bool running;      /* its thread is in worker_main() */
    uint32_t burst_number;
    uint64_t sample_start;

    struct pipeline *pipeline;                  /* in use */
    struct pipeline *_Atomic next_pipeline;     /* set by the control thread, taken between turns */
    struct rte_ring *router_ring, *frame_ring;
    struct rte_mempool *pool;                   /* for packets the worker makes: replies, fragments */

    unsigned diverted_count;
    struct rte_mbuf *diverted[BURST_MAX];
    uint64_t tx_pending; /* ports with a non-empty buffer, by bit (PORTS_MAX <= 64) */
    struct tx_buffer tx[PORTS_MAX];
} __rte_cache_aligned;

enum { PORT_NONE = UINT16_MAX };
/* Packets for a worker's own stages (fragments, answers, what has waited). When more than BUSY are in
 * the ring, the worker receives nothing until some are done. */
enum { ROUTER_RING_SIZE = 2048, ROUTER_RING_BUSY = ROUTER_RING_SIZE / 2 };

/* Makes the worker structures: one per given lcore. With a single lcore that is also the control
 * thread's, the caller runs worker_turn() itself. 0 or negative errno. */
int workers_create(const unsigned *lcores, unsigned count);
void workers_free(void);
unsigned workers_count(void);
struct worker *worker_get(unsigned index);

/* The loop of one worker; returns after workers_stop(). Suits rte_eal_remote_launch(). */
int worker_main(void *worker);
/* Launches every worker that has an lcore of its own. 0 or negative errno. */
int workers_start(void);
/* Stops the workers and waits for them. */
void workers_stop(void);

/* One turn: each receive queue and ring once, slow path, transmit. Returns packets received. */
unsigned worker_turn(struct worker *worker);

/* Control side: distributes the ports' queues over the workers, builds each worker's pipeline with the
 * stages that are wanted now, has the workers take them and waits until they did. Ports that are not
 * in the list are no longer touched by any worker afterwards. 0 or negative errno (nothing changed). */
int workers_plan(struct port *const *ports, unsigned count);

/* What a worker polls, for runtime.get: queue i of the worker; false past the last. */
bool worker_queue(const struct worker *worker, unsigned i, uint16_t *port, uint16_t *queue);
/* The names of the stages of the current pipeline, "rx" first and "tx" last, with the index of each
 * in counters.stage; returns their number. */
unsigned pipeline_stages(const char *names[STAGES_MAX], unsigned index[STAGES_MAX]);

/* Sends frames by one port, past its buffer; those that the port does not take are counted and freed. */
void worker_send(struct worker *worker, uint16_t port, struct rte_mbuf **packets, unsigned count);

/* Sends what a transmit buffer holds; frames that the port does not take are counted and freed. */
void worker_flush_port(struct worker *worker, uint16_t port);

/* Worker side: puts a finished frame into the transmit buffer of mbuf->port. meta->out_interface says
 * where it is counted if the port does not take it. */
static inline void worker_buffer(struct worker *worker, struct rte_mbuf *mbuf) {
    struct tx_buffer *buffer = &worker->tx[mbuf->port];

    buffer->packets[buffer->count++] = mbuf;
    worker->tx_pending |= UINT64_C(1) << mbuf->port;
    if (buffer->count == BURST_MAX)
        worker_flush_port(worker, mbuf->port);
}

/* Worker side: hands what was diverted during the last pipeline run to the slow path. */
void worker_slow_path(struct worker *worker);
static inline void worker_run_slow_path(struct worker *worker) {
    if (unlikely(worker->diverted_count > 0))
        worker_slow_path(worker);
}

/* Worker side: the slow path made an L3 packet that needs a route (meta: vrf, l3_offset, flags). */
void worker_route(struct worker *worker, struct rte_mbuf *mbuf);

/* Control side: the same from the control thread. The frame variant sends a finished frame out of an
 * interface (meta->out_interface set, cause = CAUSE_FRAME; untagged: the VLAN tag is added). Both
 * consume the packet, and count it as dropped when the ring is full. */
void control_route(struct rte_mbuf *mbuf);
void control_transmit(struct rte_mbuf *mbuf, uint16_t out_interface, uint16_t port);

/* Buffers for packets that the control thread makes. NULL when there is none left. */
struct rte_mbuf *control_mbuf(void);
/* The counters of the control thread. */
struct counters *control_counters(void);
