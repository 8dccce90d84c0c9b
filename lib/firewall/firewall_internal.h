/* Between the files of this folder that apply a ruleset. */
#pragma once

#include <rte_mbuf.h>
#include <stdint.h>

#include "firewall/firewall.h"
#include "firewall/firewall_rules.h"

struct worker;

/* The ruleset in force, NULL without a firewall. Workers may use it until their next quiescent
 * state. */
extern const struct firewall_ruleset *_Atomic firewall_ruleset_published;

static inline const struct firewall_ruleset *firewall_ruleset(void) {
    return __atomic_load_n((const struct firewall_ruleset **)(uintptr_t)&firewall_ruleset_published,
                           __ATOMIC_ACQUIRE);
}

static inline const struct firewall_interfaces *
firewall_interfaces_of(const struct firewall_ruleset *set) {
    return __atomic_load_n(&set->interfaces, __ATOMIC_ACQUIRE);
}

/* --- firewall_reset.c --- */

/* Answers a TCP segment with an RST (RFC 9293 section 3.10.7.1), as if the destination had sent it,
 * if the rules for errors allow an answer. Does not consume the segment. */
void firewall_reset(struct worker *worker, struct rte_mbuf *about);

/* --- firewall_reevaluate.c --- */

/* Begins to look at all live sessions with the ruleset in force: those that it does not accept end.
 * In slices on the control thread; a run that is under way begins anew. Stops it when there is no
 * ruleset. */
void firewall_reevaluate(void);
