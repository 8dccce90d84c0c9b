/*
 * The longest prefix match as stages ask for it: many addresses of one VRF and family at once, so
 * that the memory latency of one lookup is hidden behind the others'.
 */
#pragma once

#include <rte_branch_prediction.h>
#include <string.h>

#include "l3/l3.h"

/* Finds the ids of next hops (l3/next_hop.h) for `count` (1 to BURST_MAX) addresses, in host byte
 * order. Without a route, or a VRF, the id is 0. Worker side. */
static inline void route_lookup_ipv4(uint16_t vrf, const uint32_t *addresses, uint32_t *next_hop,
                                     unsigned count) {
    const struct fib4 *fib =
        __atomic_load_n((struct fib4 **)(uintptr_t)&fib4_of_vrf[vrf], __ATOMIC_ACQUIRE);

    if (likely(fib != NULL))
        fib4_lookup_bulk(fib, addresses, next_hop, count);
    else
        memset(next_hop, 0, count * sizeof(*next_hop));
}

/* The same for IPv6. */
static inline void route_lookup_ipv6(uint16_t vrf, const struct prefix_key *addresses,
                                     uint32_t *next_hop, unsigned count) {
    const struct prefix_trie *fib =
        __atomic_load_n((struct prefix_trie **)(uintptr_t)&fib6_of_vrf[vrf], __ATOMIC_ACQUIRE);

    if (likely(fib != NULL))
        prefix_trie_lookup_bulk(fib, addresses, next_hop, count);
    else
        memset(next_hop, 0, count * sizeof(*next_hop));
}
