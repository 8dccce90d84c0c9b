/*
 * Lines that a worker may have to write for every packet: text for more than a few of them in a
 * second is not even put together. One static instance per kind of line; zero-initialised is right.
 */
#pragma once

#include <rte_common.h>
#include <rte_cycles.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/log.h"
#include "core/worker.h"

enum { WORKER_LOG_PER_SECOND = 5 };

struct worker_log {
    struct log_limit limit; /* for log_limited(), over all workers */
    struct {
        uint64_t second_end;
        unsigned lines;
    } __rte_cache_aligned budget[WORKERS_MAX];
};

/* May this worker write a line now? If not, it is counted as held back. */
static inline bool worker_may_log(struct worker_log *log, const struct worker *worker) {
    if (worker->now >= log->budget[worker->index].second_end) {
        log->budget[worker->index].second_end = worker->now + rte_get_tsc_hz();
        log->budget[worker->index].lines = 0;
    }
    if (log->budget[worker->index].lines++ < WORKER_LOG_PER_SECOND)
        return true;
    atomic_fetch_add_explicit(&log->limit.suppressed, 1, memory_order_relaxed);
    return false;
}
