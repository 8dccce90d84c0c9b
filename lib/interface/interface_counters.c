/*
 * What users see of the counters. Those of workers are never reset, because only their owners write
 * them: stats.clear and a new owner of an interface id remember baselines, and what is shown is the
 * difference.
 *
 * A worker takes frames that the device refused back from its counters, so a difference can be
 * negative for a moment; it is shown as zero then.
 */
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/worker.h"
#include "interface/interface_internal.h"

enum { WINDOW_MSEC = 1000 };

struct cycles {
    uint64_t busy, all;
};

static struct counters baseline;                 /* interfaces and drops, of all threads */
static uint64_t missed_baseline[INTERFACES_MAX]; /* of the ports below them */
static struct worker_totals worker_baseline[WORKERS_MAX];

/* Cycles at the starts of the last two windows: the difference to the older one covers the last one
 * to two seconds. */
static struct cycles windows[2][WORKERS_MAX];
static struct event_timer window_timer;

static uint64_t load(const uint64_t *counter) {
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static uint64_t difference(uint64_t now, uint64_t before) {
    return (int64_t)(now - before) > 0 ? now - before : 0;
}

/* --- interfaces --- */

struct interface_sum {
    uint16_t id;
    struct interface_counters sum;
};

static void add_interface(const struct counters *from, void *context) {
    struct interface_sum *to = context;
    const struct interface_counters *counters = &from->interface[to->id];

    to->sum.rx_packets += load(&counters->rx_packets);
    to->sum.rx_bytes += load(&counters->rx_bytes);
    to->sum.tx_packets += load(&counters->tx_packets);
    to->sum.tx_bytes += load(&counters->tx_bytes);
    to->sum.tx_dropped += load(&counters->tx_dropped);
}

/* The sum of an interface id over all threads. */
static struct interface_counters sum_interface(uint16_t id) {
    struct interface_sum sum = {.id = id};

    counters_each(add_interface, &sum);
    return sum.sum;
}

static uint64_t port_missed(const struct port *port) {
    struct rte_eth_stats stats;

    if (!port->started)
        return 0;
    port_stats(port, &stats);
    return stats.imissed;
}

void interface_counters_begin(uint16_t id, const struct port *port) {
    baseline.interface[id] = sum_interface(id);
    missed_baseline[id] = port_missed(port);
}

void interface_counters_move(uint16_t id, const struct port *from, const struct port *to) {
    /* May pass below zero: the difference is what counts. */
    missed_baseline[id] = port_missed(to) - difference(port_missed(from), missed_baseline[id]);
}

void interface_totals(const struct interface *interface, struct interface_totals *out) {
    struct interface_counters now = sum_interface(interface->id);
    const struct interface_counters *before = &baseline.interface[interface->id];

    *out = (struct interface_totals){
        .rx_packets = difference(now.rx_packets, before->rx_packets),
        .rx_bytes = difference(now.rx_bytes, before->rx_bytes),
        .tx_packets = difference(now.tx_packets, before->tx_packets),
        .tx_bytes = difference(now.tx_bytes, before->tx_bytes),
        .tx_dropped = difference(now.tx_dropped, before->tx_dropped),
    };
    if (!interface->parent)
        out->rx_missed = difference(port_missed(interface->port), missed_baseline[interface->id]);
}

/* --- drops --- */

static void add_drops(const struct counters *from, void *context) {
    uint64_t *sum = context;

    for (unsigned i = 0; i < DROPS_MAX; i++)
        sum[i] += load(&from->drops[i]);
}

void interface_counters_drops(uint64_t drops[DROPS_MAX]) {
    memset(drops, 0, DROPS_MAX * sizeof(drops[0]));
    counters_each(add_drops, drops);
    for (unsigned i = 0; i < DROPS_MAX; i++)
        drops[i] = difference(drops[i], baseline.drops[i]);
}

/* --- workers --- */

static void read_worker(const struct worker *worker, struct worker_totals *out) {
    const struct counters *counters = worker->counters;

    *out = (struct worker_totals){
        .loops = load(&counters->loops),
        .empty_loops = load(&counters->empty_loops),
        .busy_cycles = load(&counters->busy_cycles),
        .all_cycles = load(&counters->all_cycles),
        .rx_packets = load(&counters->rx_packets),
    };
    for (unsigned i = 0; i < STAGES_MAX; i++) {
        out->stage[i].packets = load(&counters->stage[i].packets);
        out->stage[i].bursts = load(&counters->stage[i].bursts);
        out->stage[i].cycles = load(&counters->stage[i].cycles);
        out->stage[i].sampled_packets = load(&counters->stage[i].sampled_packets);
    }
}

void interface_counters_worker(const struct worker *worker, struct worker_totals *out) {
    const struct worker_totals *before = &worker_baseline[worker->index];
    const struct cycles *window = &windows[0][worker->index];

    read_worker(worker, out);

    uint64_t busy = difference(out->busy_cycles, window->busy);
    uint64_t all = difference(out->all_cycles, window->all);

    /* The worker adds to the two one after the other. */
    out->busy_percent = all == 0 ? 0 : busy >= all ? 100 : 100.0 * (double)busy / (double)all;
    out->loops = difference(out->loops, before->loops);
    out->empty_loops = difference(out->empty_loops, before->empty_loops);
    out->busy_cycles = difference(out->busy_cycles, before->busy_cycles);
    out->all_cycles = difference(out->all_cycles, before->all_cycles);
    out->rx_packets = difference(out->rx_packets, before->rx_packets);
    for (unsigned i = 0; i < STAGES_MAX; i++) {
        struct stage_counters *stage = &out->stage[i];
        const struct stage_counters *old = &before->stage[i];

        stage->packets = difference(stage->packets, old->packets);
        stage->bursts = difference(stage->bursts, old->bursts);
        stage->cycles = difference(stage->cycles, old->cycles);
        stage->sampled_packets = difference(stage->sampled_packets, old->sampled_packets);
    }
}

static void window_ends(struct event_timer *timer) {
    for (unsigned i = 0; i < workers_count(); i++) {
        const struct counters *counters = worker_get(i)->counters;

        windows[0][i] = windows[1][i];
        windows[1][i] = (struct cycles){load(&counters->busy_cycles), load(&counters->all_cycles)};
    }
    event_timer_start(timer, WINDOW_MSEC);
}

/* --- all of them --- */

void interface_counters_clear(void) {
    for (const struct interface *i = NULL; (i = interface_next(i));)
        interface_counters_begin(i->id, i->port);
    memset(baseline.drops, 0, sizeof(baseline.drops));
    counters_each(add_drops, baseline.drops);
    for (unsigned i = 0; i < workers_count(); i++)
        read_worker(worker_get(i), &worker_baseline[i]);
}

void interface_counters_init(void) {
    window_timer.expired = window_ends;
    event_timer_start(&window_timer, WINDOW_MSEC);
}

void interface_counters_stop(void) {
    event_timer_stop(&window_timer);
}
