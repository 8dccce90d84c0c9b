/*
 * Next hops: what a route lookup returns an id of. One cache line each, in one fixed array that
 * workers read and the control thread changes in place:
 *
 *   - the link-layer header is 16 aligned bytes, written with one store, so that a worker sees the
 * old or the new one;
 *   - an id that is no longer used is given out again only after a grace period;
 *   - a group's bucket array is replaced whole and the old one freed after a grace period.
 */
#pragma once

#include <emmintrin.h>
#include <rte_common.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/ip.h"

enum next_hop_type {
    NEXT_HOP_NONE,        /* id 0: no route */
    NEXT_HOP_FORWARD,     /* l2 is right: rewrite and send. The only type of the fast path */
    NEXT_HOP_STALE,       /* as FORWARD, but tell by `used` that it was needed */
    NEXT_HOP_RESOLVE,     /* link-layer address wanted: divert with CAUSE_RESOLVE */
    NEXT_HOP_GLEAN,       /* connected prefix, no neighbour entry yet: divert with CAUSE_RESOLVE */
    NEXT_HOP_UNREACHABLE, /* neighbour does not answer, or an unreachable route: ICMP host
                             unreachable */
    NEXT_HOP_PROHIBIT,    /* ICMP administratively prohibited */
    NEXT_HOP_BLACKHOLE,   /* dropped in silence */
    NEXT_HOP_LOCAL,       /* one of the router's own addresses */
    NEXT_HOP_BROADCAST, /* a connected prefix's broadcast address: local when it came as link-layer
                           broadcast, otherwise dropped (RFC 2644) */
    NEXT_HOP_MARTIAN,   /* a destination that must not be forwarded (RFC 1812 5.3.7, RFC 6890) */
    NEXT_HOP_GROUP,     /* ECMP: one of `buckets` by flow hash */
    NEXT_HOP_TUNNEL,    /* into a tunnel interface: a stage gives the packet another next hop */
};

enum {
    NEXT_HOPS_MAX = 1 << 17,
    NEXT_HOP_GROUP_FLAG = 1 << 23, /* set in the ids of groups, so that a lookup's result tells */
    NEXT_HOP_ID_MASK = NEXT_HOP_GROUP_FLAG - 1,
};

struct next_hop {
    /* Destination MAC, source MAC, then the EtherType of 802.1Q and the TCI when tagged. */
    __m128i l2;
    uint8_t type;
    uint8_t tagged; /* l2 holds a VLAN tag: 18 bytes of header instead of 14 */
    uint16_t out_interface;
    uint16_t port;
    uint16_t mtu;
    uint32_t bucket_mask; /* groups: number of buckets - 1 */
    uint8_t used;         /* set to 1 by workers while STALE; cleared by the control thread */
    uint8_t anycast;      /* LOCAL: an address that others have as well, and that is no source */
    uint8_t reserved[2];
    const uint32_t *buckets; /* groups: ids of plain next hops */
    uint8_t reserved2[24];
} __rte_cache_aligned;
_Static_assert(sizeof(struct next_hop) == 64, "one cache line");

extern struct next_hop *next_hops; /* NEXT_HOPS_MAX entries; set by next_hop_init() */

static inline const struct next_hop *next_hop_get(uint32_t id) {
    return &next_hops[id & NEXT_HOP_ID_MASK];
}

/* Well-known ids that always exist. */
enum {
    NEXT_HOP_ID_NONE = 0,
    NEXT_HOP_ID_BLACKHOLE = 1,
    NEXT_HOP_ID_UNREACHABLE = 2,
    NEXT_HOP_ID_PROHIBIT = 3,
    NEXT_HOP_ID_MARTIAN = 4,
    NEXT_HOP_ID_LOCAL =
        5, /* type LOCAL without an interface: what parse already knows to be for us */
    NEXT_HOP_ID_FIRST_FREE = 8,
};

/* Makes the array (huge pages where there are any). Once. 0 or negative errno. */
int next_hop_init(void);
void next_hop_free_all(void);

/* Allocates an id whose entry is of type NONE; 0 when all are in use. */
uint32_t next_hop_alloc(void);
/* Gives the id back; it is reused after a grace period. The caller has removed every route to it.
 */
void next_hop_release(uint32_t id);

/* Sets type and link-layer header of a neighbour's next hop; `vlan` 0 = untagged. */
void next_hop_set_forward(uint32_t id, enum next_hop_type type, const uint8_t destination[6],
                          const uint8_t source[6], uint16_t vlan);
/* Sets only the type. */
void next_hop_set_type(uint32_t id, enum next_hop_type type);
/* Makes it LOCAL, for subnet-router anycast addresses (RFC 4291 section 2.6.1). */
void next_hop_set_anycast(uint32_t id);
/* Sets where it leads (before it is first used, or for the same interface with another MTU). */
void next_hop_set_interface(uint32_t id, uint16_t out_interface, uint16_t port, uint16_t mtu);

/* Makes (id 0) or changes a group: members are plain ids with weights 1..255, at most 64. The
 * buckets number a power of two that fits the weights (at most 1024). Members that stay keep the
 * buckets they had as far as the weights allow, so few flows move (RFC 2992 calls this disruption).
 * Returns the id with NEXT_HOP_GROUP_FLAG, or 0 when memory is out. */
uint32_t next_hop_group_set(uint32_t id, const uint32_t *members, const uint8_t *weights,
                            unsigned count);
/* Drops the group and its buckets. */
void next_hop_group_release(uint32_t id);
