/*
 * Stages: what a worker does to a burst of packets, one after the other.
 *
 * A feature registers its stages; the order in which they stand is written once, in stages.def. A
 * stage that the configuration does not use (`wanted` says no) is not part of the pipelines at all.
 *
 * A stage sees a burst of up to 64 packets, as an array and a mask of those that are still on the
 * usual path. It works on them in place. For the few that must leave the path it sets their bits:
 * burst_drop() when the packet ends here under a named reason, burst_divert() when the slow path in
 * the worker (the stage listed as SLOW_PATH) has to look at it, burst_take() when the stage keeps
 * it. All others go on to the next stage.
 */
#pragma once

#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/counters.h"
#include "core/drops.h"
#include "core/packet.h"

struct worker;

enum { BURST_MAX = 64 };

struct burst {
    struct rte_mbuf **packets; /* indexed by bit number */
    uint64_t mask;             /* packets on the usual path; never 0 */
    uint64_t dropped;          /* set by the stage: freed afterwards */
    uint64_t diverted;         /* set by the stage: handed to the slow path; meta->cause says why */
};

struct stage {
    const char *name;
    struct drop_group drops; /* .reasons set by the feature; registered under the stage's name */

    void (*run)(struct worker *worker, struct burst *burst);
    /* Only for the slow path: takes ownership of the packets. */
    void (*slow_path)(struct worker *worker, struct rte_mbuf **packets, unsigned count);
    /* Once per turn of the worker, packets or not, while the stage is in the pipeline: a bounded
     * piece of work that is not about a packet. May be NULL. */
    void (*turn)(struct worker *worker);
    /* Asked by the control thread whenever pipelines are built. NULL: always wanted. */
    bool (*wanted)(void);

    unsigned position;  /* in stages.def; managed by the registry */
    struct stage *next; /* managed by the registry; sorted by position */
};

/* Adds the stage; the structure must live for the whole process. A name that stages.def does not
 * list aborts the program. */
void stage_register(struct stage *stage);

/* The stages in order; iterate with ->next. */
struct stage *stage_first(void);
/* The registered stage of this name, or NULL. */
struct stage *stage_find(const char *name);

#define STAGE(stage)                                                             \
    __attribute__((constructor(202))) static void stage_register_##stage(void) { \
        stage_register(&(stage));                                                \
    }

/* Is the burst's mask a run of ones from bit 0? Then the loop can count instead of scan. */
static inline bool burst_is_dense(const struct burst *burst) {
    return (burst->mask & (burst->mask + 1)) == 0;
}

/* Runs the body for each packet index `i` of the mask. */
#define BURST_FOREACH(i, bits)                                                             \
    for (uint64_t _left = (bits); _left && ((i) = (unsigned)__builtin_ctzll(_left), true); \
         _left &= _left - 1)

/* Takes the first few packets off the mask. A stage whose packets need far more memory than the
 * CPU's first cache holds does a burst in such slices, and asks for what the next one needs before
 * it works on one. */
static inline uint64_t burst_slice(uint64_t *left) {
    enum { SLICE = 8 };
    const uint64_t ones = (UINT64_C(1) << SLICE) - 1;
    const uint64_t slice = *left ? *left & ones << __builtin_ctzll(*left) : 0;

    *left &= ~slice;
    return slice;
}

/* The packet ends here, under a name. */
#define burst_drop(worker, burst, i, group, reason)           \
    do {                                                      \
        (burst)->dropped |= UINT64_C(1) << (i);               \
        counters_drop((worker)->counters, (group), (reason)); \
    } while (0)

/* The packet is the stage's from now on, and its place in the burst is empty: it goes no further,
 * and is not freed. A packet that the stage owns may be put in the place of one instead. */
static inline void burst_take(struct burst *burst, unsigned i) {
    burst->dropped |= UINT64_C(1) << i;
    burst->packets[i] = NULL;
}

/* The packet leaves the usual path; the slow path finds the cause in its metadata. */
static inline void burst_divert(struct burst *burst, unsigned i, enum packet_cause cause) {
    burst->diverted |= UINT64_C(1) << i;
    packet_meta(burst->packets[i])->cause = (uint8_t)cause;
}
