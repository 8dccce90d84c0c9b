/*
 * The reverse path check of RFC 3704: strict (section 2.2, extended to several paths by 2.3) and
 * loose (section 2.4).
 *
 * Sources are looked up like destinations, a whole burst at once. What a source's route says then
 * stays true for the next packet with the same next hop, so that long groups of paths are walked
 * once per burst and not once per packet.
 */
#include "l3/reverse_path.h"

#include "l3/header.h"
#include "l3/next_hop.h"
#include "l3/route_lookup.h"

enum { IPV4_SOURCE = 12, IPV6_SOURCE = 8 };

/* Packets that are checked alike: one incoming interface, one family. */
struct run {
    const struct interface_entry *interface;
    bool ipv6;
    unsigned count;
    uint8_t index[BURST_MAX]; /* bit numbers */
};

static bool carries(const struct next_hop *hop, const struct interface_entry *interface) {
    switch (hop->type) {
    case NEXT_HOP_FORWARD:
    case NEXT_HOP_STALE:
    case NEXT_HOP_RESOLVE:
    case NEXT_HOP_GLEAN:
    case NEXT_HOP_TUNNEL:
    case NEXT_HOP_UNREACHABLE: /* a neighbour that does not answer; the route without an interface
                                  is not one */
        break;
    default:
        return false;
    }
    return hop->out_interface != 0 &&
           (interface->reverse_path != REVERSE_PATH_STRICT || hop->out_interface == interface->id);
}

static bool leads_back(uint32_t id, const struct interface_entry *interface) {
    const struct next_hop *hop = next_hop_get(id);

    if (hop->type != NEXT_HOP_GROUP)
        return carries(hop, interface);
    for (uint32_t bucket = 0; bucket <= hop->bucket_mask; bucket++) {
        if (carries(next_hop_get(hop->buckets[bucket]), interface))
            return true;
    }
    return false;
}

static void find_sources(const struct burst *burst, const struct run *run, uint32_t *next_hop) {
    struct prefix_key source6[BURST_MAX];
    uint32_t source4[BURST_MAX];

    for (unsigned i = 0; i < run->count; i++) {
        const uint8_t *packet = packet_l3(burst->packets[run->index[i]], const uint8_t *);

        if (run->ipv6)
            source6[i] = prefix_key_from_ipv6(packet + IPV6_SOURCE);
        else
            source4[i] = rte_be_to_cpu_32(load32(packet + IPV4_SOURCE));
    }
    if (run->ipv6)
        route_lookup_ipv6(run->interface->vrf, source6, next_hop, run->count);
    else
        route_lookup_ipv4(run->interface->vrf, source4, next_hop, run->count);
}

static uint64_t check_run(const struct burst *burst, const struct run *run) {
    uint32_t next_hop[BURST_MAX], known = NEXT_HOP_ID_NONE;
    bool known_leads_back = false;
    uint64_t failed = 0;

    find_sources(burst, run, next_hop);
    for (unsigned i = 0; i < run->count; i++) {
        if (next_hop[i] != known) {
            known = next_hop[i];
            known_leads_back = leads_back(known, run->interface);
        }
        failed |= (uint64_t)!known_leads_back << run->index[i];
    }
    return failed;
}

/* What has no way back, and needs none. */
static bool is_exempt(const uint8_t *packet, const struct packet_meta *meta) {
    if (meta->flags & PACKET_IPV6)
        return meta->flags & PACKET_LINK_LOCAL_SOURCE ||
               (load64(packet + IPV6_SOURCE) | load64(packet + IPV6_SOURCE + 8)) == 0;
    if (load32(packet + IPV4_SOURCE) == 0)
        return true;
    /* Of unicast `parse` knows only DHCP answers to be for the router without a route. */
    return (meta->flags & (PACKET_LOCAL | PACKET_IP_MULTICAST)) == PACKET_LOCAL;
}

static bool is_to_be_checked(struct rte_mbuf *mbuf, const struct interface_table *table) {
    const struct packet_meta *meta = packet_meta(mbuf);

    return !(meta->flags & (PACKET_OF_OURS | PACKET_INSPECTED)) &&
           table->entry[meta->in_interface].reverse_path != REVERSE_PATH_OFF &&
           !is_exempt(packet_l3(mbuf, const uint8_t *), meta);
}

/* Takes the packets that are like the first one of `left` out of it. */
static void take_run(const struct burst *burst, const struct interface_table *table, uint64_t *left,
                     struct run *run) {
    const struct packet_meta *first = packet_meta(burst->packets[__builtin_ctzll(*left)]);
    unsigned i;

    *run = (struct run){.interface = &table->entry[first->in_interface],
                        .ipv6 = first->flags & PACKET_IPV6};
    BURST_FOREACH (i, *left) {
        const struct packet_meta *meta = packet_meta(burst->packets[i]);

        if (meta->in_interface == first->in_interface &&
            !((meta->flags ^ first->flags) & PACKET_IPV6))
            run->index[run->count++] = (uint8_t)i;
    }
    for (i = 0; i < run->count; i++)
        *left &= ~(UINT64_C(1) << run->index[i]);
}

uint64_t reverse_path_check(const struct burst *burst, enum burst_kind kind) {
    const struct interface_table *table = interface_table();
    uint64_t left = burst->mask, failed = 0;
    struct run run;
    unsigned i;

    if (kind != BURST_MIXED) { /* one interface, and sources that are not exempt */
        const struct packet_meta *first = packet_meta(burst->packets[__builtin_ctzll(left)]);

        if (table->entry[first->in_interface].reverse_path == REVERSE_PATH_OFF)
            return 0;
    } else {
        BURST_FOREACH (i, burst->mask) {
            if (!is_to_be_checked(burst->packets[i], table))
                left &= ~(UINT64_C(1) << i);
        }
    }
    while (left) {
        take_run(burst, table, &left, &run);
        failed |= check_run(burst, &run);
    }
    return failed;
}
