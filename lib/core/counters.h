/*
 * Counters of one thread. Each worker and the control thread write their own block and nobody
 * else's; readers add the blocks up. Nothing is ever reset: `stats.clear` remembers a baseline.
 */
#pragma once

#include <rte_common.h>
#include <stdint.h>

#include "core/drops.h"

enum {
    INTERFACES_MAX = 1024, /* interface ids are 1..INTERFACES_MAX-1 */
    STAGES_MAX = 16,
};

struct interface_counters {
    uint64_t rx_packets, rx_bytes; /* bytes of frames without FCS, as the driver counts */
    uint64_t tx_packets, tx_bytes;
    uint64_t tx_dropped;
    uint64_t reserved[3];
} __rte_cache_aligned;

/* What one stage did on one worker. Cycles are sampled: cycles/sampled_packets is the cost. */
struct stage_counters {
    uint64_t packets, bursts;
    uint64_t cycles, sampled_packets;
} __rte_aligned(32);

struct counters {
    struct interface_counters interface[INTERFACES_MAX];
    uint64_t drops[DROPS_MAX] __rte_cache_aligned;
    struct stage_counters stage[STAGES_MAX] __rte_cache_aligned;
    uint64_t loops, empty_loops;       /* turns of the worker loop; those that found nothing */
    uint64_t busy_cycles, all_cycles;  /* TSC cycles in turns with packets; in all turns */
    uint64_t rx_packets;               /* packets from receive queues */
} __rte_cache_aligned;

/* Allocates a zeroed block on the NUMA node (SOCKET_ID_ANY: anywhere) and makes it one of those that
 * counters_each() visits. Never freed. NULL when memory is out. */
struct counters *counters_create(int numa_node);

/* Visits all blocks. */
void counters_each(void (*visit)(const struct counters *counters, void *context), void *context);

/* Adds all blocks into *sum (which the caller zeroed). */
void counters_sum(struct counters *sum);

static inline void counters_drop(struct counters *counters, const struct drop_group *group,
                                 unsigned reason) {
    counters->drops[group->base + reason]++;
}
