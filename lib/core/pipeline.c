/* Stages chained into an rte_pipeline. */
#include "core/pipeline.h"

#include <rte_cycles.h>
#include <rte_pipeline.h>
#include <rte_port.h>
#include <rte_table.h>
#include <stdlib.h>

#include "core/log.h"

enum {
    INPUTS_MAX = RTE_PIPELINE_PORT_IN_MAX,
    RINGS = 2,
    SAMPLE_EVERY = 16, /* bursts; reading the TSC around each stage costs about 25 cycles a time */
    RX_COUNTERS = STAGES_MAX - 2,
    TX_COUNTERS = STAGES_MAX - 1,
};

/* An input: a receive queue, or a ring. */
struct input {
    struct worker *worker;
    struct rte_ring *ring; /* NULL for a receive queue */
    struct rx_queue rx;
};

struct stage_table {
    struct worker *worker;
    const struct stage *stage;
    struct stage_counters *counters;
    void (*run)(struct worker *worker, struct burst *burst);
};

struct pipeline {
    struct rte_pipeline *engine;
    unsigned input_count, queue_count, turn_count;
    struct input inputs[INPUTS_MAX];
    struct stage_table tables[STAGES_MAX];
    void (*turns[STAGES_MAX])(struct worker *worker);
    struct tx_route tx[PORTS_MAX];
    struct worker *worker;
    uint32_t bursts;
};

static struct rte_pipeline_table_entry drop_entry = {.action = RTE_PIPELINE_ACTION_DROP};
/* The slow path is the second output port of every pipeline. */
static struct rte_pipeline_table_entry divert_entry = {.action = RTE_PIPELINE_ACTION_PORT,
                                                       .port_id = 1};

/* DPDK's objects are created around memory that we own. */
static void *adopt(void *object, int numa_node) {
    (void)numa_node;
    return object;
}

static void *adopt_table(void *object, int numa_node, uint32_t entry_size) {
    (void)entry_size;
    return adopt(object, numa_node);
}

static int disown(void *object) {
    (void)object;
    return 0;
}

/* --- inputs --- */

/* One burst in SAMPLE_EVERY is timed; burst_number counts those that had packets. */
static inline void sample_begin(struct worker *worker) {
    worker->sampling = worker->burst_number % SAMPLE_EVERY == 0;
    if (unlikely(worker->sampling))
        worker->sample_start = rte_rdtsc();
}

static inline void sample_end(struct worker *worker, struct stage_counters *counters,
                              unsigned packets) {
    counters->packets += packets;
    counters->bursts++;
    if (unlikely(worker->sampling)) {
        uint64_t now = rte_rdtsc();

        counters->cycles += now - worker->sample_start;
        counters->sampled_packets += packets;
        worker->sample_start = now;
    }
}

static int queue_rx(void *object, struct rte_mbuf **packets, uint32_t max) {
    struct input *input = object;
    struct worker *worker = input->worker;

    /* A burst of long packets makes some hundred fragments, which come back by this ring, a burst
     * in each turn. What is not fetched yet can wait better than they. */
    if (unlikely(rte_ring_count(worker->router_ring) > ROUTER_RING_BUSY))
        return 0;
    sample_begin(worker);

    unsigned count = rte_eth_rx_burst(input->rx.port, input->rx.queue, packets, (uint16_t)max);

    if (count > 0) {
        worker->burst_number++;
        worker->rx_port = input->rx.port;
        worker->counters->rx_packets += count;
        sample_end(worker, &worker->counters->stage[RX_COUNTERS], count);
    }
    return (int)count;
}

static int ring_rx(void *object, struct rte_mbuf **packets, uint32_t max) {
    struct input *input = object;

    unsigned count = rte_ring_sc_dequeue_burst(input->ring, (void **)packets, max, NULL);

    if (count > 0) {
        sample_begin(input->worker);
        input->worker->burst_number++;
        input->worker->rx_port = PORT_NONE;
        input->worker->burst_kind = BURST_MIXED;
    }
    return (int)count;
}

static struct rte_port_in_ops queue_ops = {
    .f_create = adopt, .f_free = disown, .f_rx = queue_rx};
static struct rte_port_in_ops ring_ops = {.f_create = adopt, .f_free = disown, .f_rx = ring_rx};

/* --- stages --- */

static int stage_lookup(void *object, struct rte_mbuf **packets, uint64_t mask, uint64_t *hits,
                        void **entries) {
    struct stage_table *table = object;
    struct burst burst = {.packets = packets, .mask = mask};

    table->run(table->worker, &burst);
    *hits = burst.dropped | burst.diverted;
    if (unlikely(*hits)) {
        unsigned i;

        BURST_FOREACH(i, *hits)
            entries[i] = burst.dropped >> i & 1 ? &drop_entry : &divert_entry;
    }
    sample_end(table->worker, table->counters, (unsigned)__builtin_popcountll(mask));
    return 0;
}

static struct rte_table_ops stage_ops = {
    .f_create = adopt_table, .f_free = disown, .f_lookup = stage_lookup};

/* --- outputs --- */

/* The transmit side: `output` has set mbuf->port to the port each packet leaves by. */
static int transmit_burst(void *object, struct rte_mbuf **packets, uint64_t mask) {
    struct worker *worker = object;
    unsigned count = (unsigned)__builtin_popcountll(mask);
    unsigned i;

    /* The usual burst leaves by one port whose buffer is empty: no need to copy the pointers. */
    if (worker->one_port && (mask & (mask + 1)) == 0 &&
        worker->tx[packets[0]->port].count == 0) {
        worker_send(worker, packets[0]->port, packets, count);
    } else {
        BURST_FOREACH(i, mask)
            worker_buffer(worker, packets[i]);
    }
    sample_end(worker, &worker->counters->stage[TX_COUNTERS], count);
    return 0;
}

static int transmit_one(void *object, struct rte_mbuf *packet) {
    worker_buffer(object, packet);
    return 0;
}

static int divert_one(void *object, struct rte_mbuf *packet) {
    struct worker *worker = object;

    worker->diverted[worker->diverted_count++] = packet;
    return 0;
}

static int divert_burst(void *object, struct rte_mbuf **packets, uint64_t mask) {
    unsigned i;

    BURST_FOREACH(i, mask)
        divert_one(object, packets[i]);
    return 0;
}

static struct rte_port_out_ops transmit_ops = {
    .f_create = adopt, .f_free = disown, .f_tx = transmit_one, .f_tx_bulk = transmit_burst};
static struct rte_port_out_ops divert_ops = {
    .f_create = adopt, .f_free = disown, .f_tx = divert_one, .f_tx_bulk = divert_burst};

/* --- assembly --- */

static int add_output(struct pipeline *pipeline, struct rte_port_out_ops *ops, uint32_t *id) {
    struct rte_pipeline_port_out_params params = {.ops = ops, .arg_create = pipeline->worker};

    return rte_pipeline_port_out_create(pipeline->engine, &params, id);
}

static int add_input(struct pipeline *pipeline, struct rte_port_in_ops *ops, uint32_t table,
                     const struct input *input) {
    struct input *own = &pipeline->inputs[pipeline->input_count++];
    struct rte_pipeline_port_in_params params = {
        .ops = ops, .arg_create = own, .burst_size = BURST_MAX};
    uint32_t id;
    int error;

    *own = *input;
    error = rte_pipeline_port_in_create(pipeline->engine, &params, &id);
    if (error == 0)
        error = rte_pipeline_port_in_connect_to_table(pipeline->engine, id, table);
    if (error == 0)
        error = rte_pipeline_port_in_enable(pipeline->engine, id);
    return error;
}

/* Names of the stages that inputs lead to. */
#define STAGE_IN_ORDER(name)
#define STAGE_ROLE(role, name) static const char role[] = #name;
#include "core/stages.def"
#undef STAGE_IN_ORDER
#undef STAGE_ROLE

static bool stage_in_chain(const struct stage *stage) {
    return stage->run && (!stage->wanted || stage->wanted());
}

/* Makes the chain of tables; ids of those at which inputs enter are returned. */
static int add_stages(struct pipeline *pipeline, uint32_t *first, uint32_t *router_entry,
                      uint32_t *frame_entry) {
    uint32_t previous = 0;
    unsigned count = 0;
    int error = 0;

    *first = *router_entry = *frame_entry = UINT32_MAX;
    for (const struct stage *stage = stage_first(); stage && error == 0; stage = stage->next) {
        if (!stage_in_chain(stage))
            continue;

        struct stage_table *own = &pipeline->tables[count];
        struct rte_pipeline_table_params params = {.ops = &stage_ops, .arg_create = own};
        struct rte_pipeline_table_entry to_next = {.action = RTE_PIPELINE_ACTION_TABLE}, *added;
        uint32_t id;

        *own = (struct stage_table){
            .worker = pipeline->worker,
            .stage = stage,
            .counters = &pipeline->worker->counters->stage[stage->position],
            .run = stage->run,
        };
        error = rte_pipeline_table_create(pipeline->engine, &params, &id);
        if (error)
            break;
        if (stage->turn)
            pipeline->turns[pipeline->turn_count++] = stage->turn;
        if (count++ == 0)
            *first = id;
        else {
            to_next.table_id = id;
            error = rte_pipeline_table_default_entry_add(pipeline->engine, previous, &to_next,
                                                         &added);
        }
        previous = id;
        if (strcmp(stage->name, ROUTER_ENTRY) == 0)
            *router_entry = id;
        if (strcmp(stage->name, FRAME_ENTRY) == 0)
            *frame_entry = id;
    }
    if (error == 0 && (*first == UINT32_MAX || *router_entry == UINT32_MAX ||
                       *frame_entry == UINT32_MAX)) {
        log_error("core", "the stages that packets enter at are missing");
        return -ENOENT;
    }
    if (error == 0) {
        struct rte_pipeline_table_entry to_port = {.action = RTE_PIPELINE_ACTION_PORT}, *added;

        error = rte_pipeline_table_default_entry_add(pipeline->engine, previous, &to_port, &added);
    }
    return error;
}

static int assemble(struct pipeline *pipeline, const struct rx_queue *queues) {
    struct worker *worker = pipeline->worker;
    uint32_t first, router_entry, frame_entry, tx, divert;
    int error = add_output(pipeline, &transmit_ops, &tx);

    if (error == 0)
        error = add_output(pipeline, &divert_ops, &divert);
    if (error == 0 && (tx != 0 || divert != divert_entry.port_id))
        error = -EINVAL;
    if (error == 0)
        error = add_stages(pipeline, &first, &router_entry, &frame_entry);
    for (unsigned i = 0; error == 0 && i < pipeline->queue_count; i++)
        error = add_input(pipeline, &queue_ops, first,
                          &(struct input){.worker = worker, .rx = queues[i]});
    if (error == 0)
        error = add_input(pipeline, &ring_ops, router_entry,
                          &(struct input){.worker = worker, .ring = worker->router_ring});
    if (error == 0)
        error = add_input(pipeline, &ring_ops, frame_entry,
                          &(struct input){.worker = worker, .ring = worker->frame_ring});
    return error ? error : rte_pipeline_check(pipeline->engine);
}

struct pipeline *pipeline_create(struct worker *worker, const struct rx_queue *queues,
                                 unsigned queue_count, const struct tx_route tx[PORTS_MAX]) {
    struct rte_pipeline_params params = {
        .name = "worker", .socket_id = worker->numa_node < 0 ? 0 : worker->numa_node};

    if (queue_count + RINGS > INPUTS_MAX) {
        log_error("core", "lcore %u would have to poll %u queues; at most %d are possible",
                  worker->lcore, queue_count, INPUTS_MAX - RINGS);
        return NULL;
    }

    struct pipeline *pipeline = calloc(1, sizeof(*pipeline));

    if (!pipeline)
        return NULL;
    pipeline->worker = worker;
    pipeline->queue_count = queue_count;
    for (unsigned port = 0; port < PORTS_MAX; port++)
        pipeline->tx[port] = tx[port];
    pipeline->engine = rte_pipeline_create(&params);
    if (!pipeline->engine || assemble(pipeline, queues) != 0) {
        log_error("core", "cannot build the pipeline of lcore %u", worker->lcore);
        pipeline_free(pipeline);
        return NULL;
    }
    return pipeline;
}

void pipeline_free(struct pipeline *pipeline) {
    if (!pipeline)
        return;
    rte_pipeline_free(pipeline->engine);
    free(pipeline);
}

unsigned pipeline_turn(struct pipeline *pipeline) {
    unsigned packets = 0;

    for (unsigned i = 0; i < pipeline->input_count; i++) {
        packets += (unsigned)rte_pipeline_run(pipeline->engine);
        worker_run_slow_path(pipeline->worker);
    }
    for (unsigned i = 0; i < pipeline->turn_count; i++)
        pipeline->turns[i](pipeline->worker);
    return packets;
}

const struct tx_route *pipeline_tx(const struct pipeline *pipeline, uint16_t port) {
    return &pipeline->tx[port];
}

bool pipeline_rx(const struct pipeline *pipeline, unsigned i, struct rx_queue *out) {
    if (i >= pipeline->queue_count)
        return false;
    *out = pipeline->inputs[i].rx;
    return true;
}

unsigned pipeline_stages(const char *names[STAGES_MAX], unsigned index[STAGES_MAX]) {
    unsigned count = 0;

    names[count] = "rx";
    index[count++] = RX_COUNTERS;
    for (const struct stage *stage = stage_first(); stage; stage = stage->next) {
        if (!stage_in_chain(stage))
            continue;
        names[count] = stage->name;
        index[count++] = stage->position;
    }
    names[count] = "tx";
    index[count++] = TX_COUNTERS;
    return count;
}
