/*
 * Stage `route`: longest prefix match on the destination, choice among equal-cost paths, and what a
 * route can say besides "forward": time exceeded, unreachable, prohibited, for the router itself.
 * Before that the sources are looked at where an interface asks for it (reverse_path.h).
 *
 * Lookups run over the whole burst, so that the memory latency of one packet's lookup is hidden
 * behind the others'. Packets of one burst usually share VRF and family; only when they do not is
 * the burst split into runs.
 */
#include "core/stage.h"
#include "core/worker.h"
#include "l3/flow_hash.h"
#include "l3/header.h"
#include "l3/next_hop.h"
#include "l3/reverse_path.h"
#include "l3/route_lookup.h"

enum route_drop {
    ROUTE_BLACKHOLE_DROP,
    ROUTE_MARTIAN_DESTINATION,
    ROUTE_DIRECTED_BROADCAST,
    ROUTE_LINK_BROADCAST,
    ROUTE_LINK_LOCAL_SOURCE,
    ROUTE_REVERSE_PATH,
};

static void route_run(struct worker *worker, struct burst *burst);

static struct stage route_stage = {
    .name = "route",
    .run = route_run,
    .drops = {.reasons =
                  (const char *const[]){
                      [ROUTE_BLACKHOLE_DROP] = "blackhole",
                      [ROUTE_MARTIAN_DESTINATION] = "martian_destination",
                      [ROUTE_DIRECTED_BROADCAST] = "directed_broadcast",
                      [ROUTE_LINK_BROADCAST] = "link_broadcast_unicast",
                      [ROUTE_LINK_LOCAL_SOURCE] = "link_local_source",
                      [ROUTE_REVERSE_PATH] = "reverse_path",
                      NULL,
                  }},
};

STAGE(route_stage)

/* Bursts whose kind is known: the header is at a constant place, the VRF is the first packet's. */
static void lookup_plain_ipv4(struct burst *burst, unsigned count, uint32_t *next_hop) {
    uint32_t destination[BURST_MAX] = {0};

    for (unsigned i = 0; i < count; i++) {
        const uint8_t *frame = rte_pktmbuf_mtod(burst->packets[i], const uint8_t *);

        destination[i] = rte_be_to_cpu_32(load32(frame + ETHER_HEADER + 16));
    }
    route_lookup_ipv4(packet_meta(burst->packets[0])->vrf, destination, next_hop, count);
}

static void lookup_plain_ipv6(struct burst *burst, unsigned count, uint32_t *next_hop) {
    struct prefix_key destination[BURST_MAX];

    for (unsigned i = 0; i < count; i++) {
        const uint8_t *frame = rte_pktmbuf_mtod(burst->packets[i], const uint8_t *);

        destination[i] = prefix_key_from_ipv6(frame + ETHER_HEADER + 24);
    }
    route_lookup_ipv6(packet_meta(burst->packets[0])->vrf, destination, next_hop, count);
}

/* The packets at `index`, all of one family and VRF. */
static void lookup_some(struct burst *burst, const uint8_t *index, unsigned count,
                        const struct packet_meta *like, uint32_t *next_hop) {
    struct prefix_key destination6[BURST_MAX];
    uint32_t destination4[BURST_MAX], result[BURST_MAX];

    for (unsigned i = 0; i < count; i++) {
        const uint8_t *packet = packet_l3(burst->packets[index[i]], const uint8_t *);

        if (like->flags & PACKET_IPV6)
            destination6[i] = prefix_key_from_ipv6(packet + 24);
        else
            destination4[i] = rte_be_to_cpu_32(load32(packet + 16));
    }
    if (like->flags & PACKET_IPV6)
        route_lookup_ipv6(like->vrf, destination6, result, count);
    else
        route_lookup_ipv4(like->vrf, destination4, result, count);
    for (unsigned i = 0; i < count; i++)
        next_hop[index[i]] = result[i];
}

/* Bursts that mix families or VRFs, or hold packets that need no lookup. */
static void lookup_mixed(struct burst *burst, uint64_t mask, uint32_t *next_hop) {
    uint64_t left = 0;
    unsigned i;

    BURST_FOREACH (i, mask) {
        const struct packet_meta *meta = packet_meta(burst->packets[i]);

        next_hop[i] = meta->next_hop;
        if (!(meta->flags & (PACKET_LOCAL | PACKET_NEXT_HOP)))
            left |= UINT64_C(1) << i;
    }
    while (left) {
        const struct packet_meta *first = packet_meta(burst->packets[__builtin_ctzll(left)]);
        uint8_t index[BURST_MAX];
        unsigned count = 0;

        BURST_FOREACH (i, left) {
            const struct packet_meta *meta = packet_meta(burst->packets[i]);

            if (meta->vrf != first->vrf || ((meta->flags ^ first->flags) & PACKET_IPV6))
                continue;
            index[count++] = (uint8_t)i;
        }
        lookup_some(burst, index, count, first, next_hop);
        for (unsigned done = 0; done < count; done++)
            left &= ~(UINT64_C(1) << index[done]);
    }
}

/* What is not plain forwarding. */
static void route_special(struct worker *worker, struct burst *burst, unsigned i,
                          const struct next_hop *hop) {
    struct rte_mbuf *mbuf = burst->packets[i];
    struct packet_meta *meta = packet_meta(mbuf);

    switch (hop->type) {
    case NEXT_HOP_FORWARD:
    case NEXT_HOP_STALE:
    case NEXT_HOP_RESOLVE:
    case NEXT_HOP_GLEAN:
    case NEXT_HOP_TUNNEL:
        break;
    case NEXT_HOP_LOCAL:
        return;
    case NEXT_HOP_BROADCAST:
        if (meta->flags & PACKET_LINK_MULTICAST) {
            meta->next_hop = NEXT_HOP_ID_LOCAL;
            meta->flags |= PACKET_LOCAL;
            return;
        }
        burst_drop(worker, burst, i, &route_stage.drops, ROUTE_DIRECTED_BROADCAST);
        return;
    case NEXT_HOP_BLACKHOLE:
        burst_drop(worker, burst, i, &route_stage.drops, ROUTE_BLACKHOLE_DROP);
        return;
    case NEXT_HOP_MARTIAN:
        burst_drop(worker, burst, i, &route_stage.drops, ROUTE_MARTIAN_DESTINATION);
        return;
    case NEXT_HOP_UNREACHABLE:
        burst_divert(burst, i, CAUSE_HOST_UNREACHABLE);
        return;
    case NEXT_HOP_PROHIBIT:
        burst_divert(burst, i, CAUSE_PROHIBITED);
        return;
    default:
        burst_divert(burst, i, CAUSE_NET_UNREACHABLE);
        return;
    }

    /* To be forwarded, then. */
    if (meta->flags & PACKET_OF_OURS)
        return;
    if (meta->flags & PACKET_LINK_MULTICAST) { /* RFC 1122 section 3.3.6 */
        burst_drop(worker, burst, i, &route_stage.drops, ROUTE_LINK_BROADCAST);
        return;
    }

    if (meta->flags & PACKET_LINK_LOCAL_SOURCE) { /* RFC 4291 section 2.5.6 */
        burst_drop(worker, burst, i, &route_stage.drops, ROUTE_LINK_LOCAL_SOURCE);
        return;
    }
    if (meta->flags & PACKET_LAST_HOP) {
        burst_divert(burst, i, CAUSE_TIME_EXCEEDED);
    }
}

/* Equal-cost paths: the flow decides which. */
static uint32_t choose_member(struct rte_mbuf *mbuf, const struct next_hop *group) {
    return group->buckets[flow_hash(mbuf) & group->bucket_mask];
}

static inline void route_one(struct worker *worker, struct burst *burst, unsigned i, uint32_t id,
                             bool plain) {
    enum { SPECIAL = PACKET_LINK_MULTICAST | PACKET_LAST_HOP | PACKET_LINK_LOCAL_SOURCE };
    struct rte_mbuf *mbuf = burst->packets[i];
    struct packet_meta *meta = packet_meta(mbuf);
    const struct next_hop *hop = next_hop_get(id);

    if (unlikely(hop->type != NEXT_HOP_FORWARD)) {
        if (hop->type == NEXT_HOP_GROUP) {
            id = choose_member(mbuf, hop);
            hop = next_hop_get(id);
        }
        plain = false;
    }
    meta->next_hop = id;
    meta->out_interface = hop->out_interface;
    if (unlikely(!plain && (hop->type != NEXT_HOP_FORWARD || meta->flags & SPECIAL)))
        route_special(worker, burst, i, hop);
}

void reverse_path_drop(struct worker *worker, struct burst *burst, uint64_t failed) {
    unsigned i;

    BURST_FOREACH (i, failed)
        burst_drop(worker, burst, i, &route_stage.drops, ROUTE_REVERSE_PATH);
}

static void route_run(struct worker *worker, struct burst *burst) {
    uint64_t failed = reverse_path_failed(burst, worker->burst_kind);
    uint32_t next_hop[BURST_MAX];
    unsigned i;

    if (likely(worker->burst_kind != BURST_MIXED && burst_is_dense(burst) && !failed)) {
        unsigned count = (unsigned)__builtin_popcountll(burst->mask);

        if (worker->burst_kind == BURST_PLAIN_IPV4)
            lookup_plain_ipv4(burst, count, next_hop);
        else
            lookup_plain_ipv6(burst, count, next_hop);
        for (i = 0; i < count; i++)
            route_one(worker, burst, i, next_hop[i], true);
        return;
    }
    reverse_path_drop(worker, burst, failed);
    lookup_mixed(burst, burst->mask & ~failed, next_hop);
    BURST_FOREACH (i, burst->mask & ~failed)
        route_one(worker, burst, i, next_hop[i], false);
}
