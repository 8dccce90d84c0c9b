/*
 * How long an association may be used: limits of time by a timer, limits of use by a look at the
 * counters every half a second, for associations by hand and those of IKE alike. Control thread
 * only.
 */
#pragma once

#include <sys/queue.h>

#include "core/event.h"
#include "ipsec/ipsec.h"

struct sa_life {
    /* Set by the owner before sa_life_begin(). */
    struct ipsec_sa_limits soft, hard;
    struct ipsec_sa_use before; /* `added` is set */
    /* What has come by since. */
    void (*count)(const struct sa_life *life, struct ipsec_sa_counters *out);
    /* A limit was reached; each kind is told of once. After the hard one the owner has to end the
     * life, and may do so before it returns. */
    void (*reached)(struct sa_life *life, bool hard);

    /* Managed by the functions. */
    TAILQ_ENTRY(sa_life) polled;
    struct event_timer timer;
    uint64_t first_used;
    bool begun, is_polled, soft_told, hard_told;
};

void sa_life_begin(struct sa_life *life);
/* Also for one that has not begun. */
void sa_life_end(struct sa_life *life);

/* All that it has been used for, with what came before. */
void sa_life_use(struct sa_life *life, struct ipsec_sa_use *out);
