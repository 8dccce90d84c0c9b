/*
 * Reverse path check (RFC 3704, BCP 84): a packet whose source the router would not reach, or not
 * by the interface it came in by, has a forged source. Interfaces ask for it with "reverse_path".
 */
#pragma once

#include <rte_branch_prediction.h>

#include "core/worker.h"
#include "interface/interface.h"

/* Does the work of reverse_path_failed() when some interface asks for it. */
uint64_t reverse_path_check(const struct burst *burst, enum burst_kind kind);

/* The packets of the burst's mask, as bits, that the check of their interface refuses; for the
 * stage `route`, which drops them, and for stages before it. Their addresses may have been
 * translated, but for the source.
 *
 * A route that forwards counts, whichever neighbour it needs and whether that answers; a default
 * route does, one to the router itself, to nowhere or to a broadcast address does not. With several
 * next hops (ECMP) each of their interfaces is right. The VRF is that of the incoming interface.
 *
 * Not checked: what the router or its host sends, what was checked before (PACKET_INSPECTED), and
 * sources without a route by nature: 0.0.0.0, ::, IPv6 link-local ones, which are not forwarded;
 * and DHCP answers to an interface that has no address yet. */
static inline uint64_t reverse_path_failed(const struct burst *burst, enum burst_kind kind) {
    return likely(!interface_table()->reverse_path) ? 0 : reverse_path_check(burst, kind);
}

/* For stages before `route`, whose work a packet with a forged source is not to have done: drops
 * these packets as `route` would, and counts them there. */
void reverse_path_drop(struct worker *worker, struct burst *burst, uint64_t failed);
