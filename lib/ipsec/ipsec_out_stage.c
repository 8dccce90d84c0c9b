/*
 * Stage `ipsec_out`: what a policy protects is encrypted (RFC 4301 section 5.1). It stands behind
 * firewall and NAT, which so see packets as the inside knows them, and before `output`, which takes
 * what comes out for any packet that is to be forwarded.
 *
 * The outer packet is routed here, since its length has to fit where it goes, there and all along
 * the path as far as that is known (esp_path.h): a packet that would be too long is fragmented
 * before it is encrypted, or its sender is told (section 8.2).
 *
 * What was routed into a tunnel interface is looked up among the policies of that interface, and
 * never leaves without protection, whatever they say.
 */
#include <rte_prefetch.h>

#include "ipsec/esp_packet.h"
#include "ipsec/ipsec_audit.h"
#include "ipsec/ipsec_internal.h"
#include "l3/flow_hash.h"
#include "l3/fragment.h"
#include "l3/header.h"
#include "l3/next_hop.h"
#include "l3/output.h"
#include "l3/route_lookup.h"

enum out_drop {
    OUT_NO_SA = ESP_SEAL_REASONS,
    OUT_NO_POLICY,
    OUT_DISCARDED,
    OUT_NO_ROUTE,
    OUT_TOO_LONG,
};

static void ipsec_out_run(struct worker *worker, struct burst *burst);

static struct stage ipsec_out_stage = {
    .name = "ipsec_out",
    .drops = {.reasons =
                  (const char *const[]){
                      [ESP_SEAL_SEQUENCE] = "sequence_exhausted",
                      [ESP_SEAL_NO_ROOM] = "no_buffer",
                      [ESP_SEAL_MODE] = "not_for_transport_mode",
                      [OUT_NO_SA] = "no_sa",
                      [OUT_NO_POLICY] = "no_policy",
                      [OUT_DISCARDED] = "discarded",
                      [OUT_NO_ROUTE] = "no_route",
                      [OUT_TOO_LONG] = "too_long",
                      NULL,
                  }},
    .run = ipsec_out_run,
    .wanted = ipsec_wanted,
};
STAGE(ipsec_out_stage)

static void drop(struct worker *worker, struct burst *burst, unsigned i, unsigned reason) {
    burst_drop(worker, burst, i, &ipsec_out_stage.drops, reason);
}

static void audit(const struct worker *worker, const struct esp_sealing *packet) {
    ipsec_audit_clear(worker, &ipsec_out_stage.drops, packet->reason, packet->mbuf, packet->sa, 0);
}

/* --- policies --- */

/* Those that were routed into tunnel interfaces; names everybody's set of policies. */
static uint64_t into_tunnels(const struct burst *burst, uint64_t mask, uint16_t *sets) {
    uint64_t tunnels = 0;
    unsigned i;

    BURST_FOREACH (i, mask) {
        const struct packet_meta *meta = packet_meta(burst->packets[i]);
        const struct next_hop *hop = next_hop_get(meta->next_hop);
        bool tunnel = hop->type == NEXT_HOP_TUNNEL;

        sets[i] = tunnel ? spd_set_of_tunnel(hop->out_interface) : meta->vrf;
        tunnels |= (uint64_t)tunnel << i;
    }
    return tunnels;
}

/* Packets that leave, and are not protected yet. */
static uint64_t leaving(const struct burst *burst) {
    uint64_t mask = 0;
    unsigned i;

    BURST_FOREACH (i, burst->mask) {
        struct rte_mbuf *mbuf = burst->packets[i];
        const struct packet_meta *meta = packet_meta(mbuf);

        mask |= (uint64_t)(!(mbuf->ol_flags & esp_sealed_flag) && !(meta->flags & PACKET_LOCAL))
                << i;
    }
    return mask;
}

static bool is_for_router(const struct packet_meta *meta) {
    uint8_t type = next_hop_get(meta->next_hop)->type;

    return type == NEXT_HOP_LOCAL || type == NEXT_HOP_BROADCAST;
}

static bool is_exempt(struct rte_mbuf *mbuf) {
    return spd_is_exempt(mbuf) ||
           (packet_meta(mbuf)->flags & PACKET_OF_OURS && spd_is_of_ipsec(mbuf));
}

/* With many associations everything that belongs to one is far away in memory: it is asked for
 * before it is needed, one pointer after the other for the whole burst. The lookup has asked for
 * the policies. */
static void fetch(struct worker *worker, struct ipsec_policy *const *policy, uint64_t mask) {
    unsigned i;

    BURST_FOREACH (i, mask) {
        struct ipsec_sa *sa =
            policy[i] ? atomic_load_explicit(&policy[i]->sa, memory_order_relaxed) : NULL;

        if (!sa)
            continue;
        rte_prefetch0(sa);
        rte_prefetch0(&sa->alone);
        if (unlikely(ipsec_shared)) {
            rte_prefetch0(policy_tally(policy[i], worker->index));
            rte_prefetch0(sa_use(sa, worker->index));
        }
    }
}

/* What remains to be protected, with its associations. */
static uint64_t decide(struct worker *worker, struct burst *burst, uint64_t mask, uint64_t tunnels,
                       struct ipsec_policy *const *policy, struct ipsec_sa **sa) {
    uint64_t protect = 0;
    unsigned i;

    BURST_FOREACH (i, mask) {
        struct rte_mbuf *mbuf = burst->packets[i];
        struct policy_tally *tally;

        if (unlikely(tunnels >> i & 1)) {
            if (!policy[i] || policy[i]->action == IPSEC_BYPASS) {
                ipsec_audit_clear(worker, &ipsec_out_stage.drops, OUT_NO_POLICY, mbuf, NULL, 0);
                drop(worker, burst, i, OUT_NO_POLICY);
                continue;
            }
        } else if (!policy[i] || unlikely(is_for_router(packet_meta(mbuf)) || is_exempt(mbuf))) {
            continue;
        }
        tally = policy_tally(policy[i], worker->index);
        tally->packets++;
        if (unlikely(policy[i]->action == IPSEC_DISCARD)) {
            drop(worker, burst, i, OUT_DISCARDED);
        } else if (policy[i]->action == IPSEC_PROTECT) {
            sa[i] = atomic_load_explicit(&policy[i]->sa, memory_order_acquire);
            if (likely(sa[i] != NULL)) {
                protect |= UINT64_C(1) << i;
                continue;
            }
            tally->without_sa++;
            spd_note_unmet(policy[i], mbuf);
            drop(worker, burst, i, OUT_NO_SA);
        }
    }
    return protect;
}

/* --- routes --- */

static uint32_t member_for(const struct ipsec_sa *sa, uint32_t id) {
    const struct next_hop *hop = next_hop_get(id);

    /* One path for all packets, which should come in the order of their numbers. */
    return hop->type == NEXT_HOP_GROUP
               ? hop->buckets[flow_hash_mix(sa->spi ^ (uint64_t)flow_hash_seed << 32) &
                              hop->bucket_mask]
               : id;
}

static void route_ipv4(struct esp_sealing *packets, const uint8_t *index, unsigned count,
                       uint16_t vrf) {
    uint32_t destination[BURST_MAX], next_hop[BURST_MAX];

    for (unsigned n = 0; n < count; n++)
        destination[n] = packets[index[n]].sa->destination;
    route_lookup_ipv4(vrf, destination, next_hop, count);
    for (unsigned n = 0; n < count; n++)
        packets[index[n]].next_hop = member_for(packets[index[n]].sa, next_hop[n]);
}

static void route_ipv6(struct esp_sealing *packets, const uint8_t *index, unsigned count,
                       uint16_t vrf) {
    struct prefix_key destination[BURST_MAX];
    uint32_t next_hop[BURST_MAX];

    for (unsigned n = 0; n < count; n++)
        destination[n] = prefix_key_from_ipv6(packets[index[n]].sa->destination6);
    route_lookup_ipv6(vrf, destination, next_hop, count);
    for (unsigned n = 0; n < count; n++)
        packets[index[n]].next_hop = member_for(packets[index[n]].sa, next_hop[n]);
}

/* Those of one VRF and family at a time. In transport mode the packet's own route is the one. */
static void route(struct esp_sealing *packets, unsigned count) {
    uint64_t left = count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
    unsigned i;

    while (left) {
        const struct ipsec_sa *first = packets[__builtin_ctzll(left)].sa;
        uint8_t index[BURST_MAX];
        unsigned n = 0;

        BURST_FOREACH (i, left) {
            const struct ipsec_sa *sa = packets[i].sa;

            if (sa->vrf == first->vrf && !((sa->flags ^ first->flags) & (SA_IPV6 | SA_TRANSPORT))) {
                index[n++] = (uint8_t)i;
                packets[i].next_hop = packet_meta(packets[i].mbuf)->next_hop;
            }
        }
        for (unsigned k = 0; k < n; k++)
            left &= ~(UINT64_C(1) << index[k]);
        if (first->flags & SA_TRANSPORT)
            continue;
        if (first->flags & SA_IPV6)
            route_ipv6(packets, index, n, first->vrf);
        else
            route_ipv4(packets, index, n, first->vrf);
    }
}

static bool leads_somewhere(const struct next_hop *hop) {
    return likely(hop->type == NEXT_HOP_FORWARD) || hop->type == NEXT_HOP_STALE ||
           hop->type == NEXT_HOP_RESOLVE || hop->type == NEXT_HOP_GLEAN;
}

/* --- tunnel interfaces --- */

/* Room for the inner packet: what the interface says, or less if the way of the outer one asks for
 * it. */
static unsigned room_in_tunnel(const struct packet_meta *meta, unsigned room) {
    const struct next_hop *hop = next_hop_get(meta->next_hop);

    return hop->type == NEXT_HOP_TUNNEL ? RTE_MIN(room, hop->mtu) : room;
}

static void note_tunnel(struct esp_sealing *packet) {
    const struct packet_meta *meta = packet_meta(packet->mbuf);
    const struct next_hop *hop = next_hop_get(meta->next_hop);

    packet->tunnel = hop->type == NEXT_HOP_TUNNEL ? hop->out_interface : 0;
    packet->length = (uint16_t)(packet->mbuf->pkt_len - meta->l3_offset);
}

static void count_tunnel(struct worker *worker, uint16_t tunnel, unsigned packets, uint64_t bytes) {
    struct interface_counters *counters = &worker->counters->interface[tunnel];

    counters->tx_packets += packets;
    counters->tx_bytes += bytes;
}

/* --- lengths --- */

/* The pieces of one packet, to be protected each. */
struct pieces {
    struct ipsec_sa *sa;
    uint32_t next_hop;
    unsigned count;
    struct esp_sealing packets[ESP_SEAL_MAX];
};

/* At once, since their numbers are lower than those of what the burst still sends. Where the next
 * hop has yet to be found there is no hurry. */
static void leave_now(struct worker *worker, struct rte_mbuf *mbuf) {
    if (likely(output_now(worker, mbuf)))
        return;
    packet_meta(mbuf)->flags |= PACKET_INSPECTED | PACKET_NEXT_HOP;
    worker_route(worker, mbuf);
}

static void send_pieces(struct worker *worker, struct pieces *pieces) {
    esp_seal(worker, pieces->packets, pieces->count);
    for (unsigned i = 0; i < pieces->count; i++) {
        struct rte_mbuf *mbuf = pieces->packets[i].mbuf;

        if (pieces->packets[i].reason != ESP_SEAL_REASONS) {
            audit(worker, &pieces->packets[i]);
            counters_drop(worker->counters, &ipsec_out_stage.drops, pieces->packets[i].reason);
            rte_pktmbuf_free(mbuf);
            continue;
        }
        if (pieces->packets[i].tunnel != 0)
            count_tunnel(worker, pieces->packets[i].tunnel, 1, pieces->packets[i].length);
        leave_now(worker, mbuf);
    }
    pieces->count = 0;
}

static void add_piece(struct worker *worker, struct rte_mbuf *piece, void *context) {
    struct pieces *pieces = context;

    struct esp_sealing *packet = &pieces->packets[pieces->count++];

    *packet = (struct esp_sealing){.mbuf = piece, .sa = pieces->sa, .next_hop = pieces->next_hop};
    note_tunnel(packet);
    if (pieces->count == ESP_SEAL_MAX)
        send_pieces(worker, pieces);
}

/* The packet's own IP header, which transport mode leaves outside. */
static unsigned header_outside(struct rte_mbuf *mbuf, const struct ipsec_sa *sa) {
    const struct packet_meta *meta = packet_meta(mbuf);

    return sa->flags & SA_TRANSPORT ? (unsigned)(meta->l4_offset - meta->l3_offset) : 0u;
}

static bool may_fragment(struct rte_mbuf *mbuf, const struct ipsec_sa *sa) {
    const struct packet_meta *meta = packet_meta(mbuf);

    return !(meta->flags & PACKET_IPV6) && !(sa->flags & SA_TRANSPORT) &&
           !(packet_l3(mbuf, const struct rte_ipv4_hdr *)->fragment_offset &
             RTE_BE16(RTE_IPV4_HDR_DF_FLAG));
}

enum { IPV6_LEAST_MTU = 1280, IPV4_LEAST_MTU = 68 };

static bool is_to_be_cut(const struct esp_sealing *packet, unsigned room) {
    return may_fragment(packet->mbuf, packet->sa) && room >= IPV4_LEAST_MTU;
}

static void too_long(struct worker *worker, struct burst *burst, unsigned i,
                     const struct esp_sealing *packet, unsigned room) {
    struct rte_mbuf *mbuf = packet->mbuf;
    struct packet_meta *meta = packet_meta(mbuf);
    struct pieces pieces = {.sa = packet->sa, .next_hop = packet->next_hop};
    unsigned header = header_outside(mbuf, packet->sa);

    if (is_to_be_cut(packet, room)) {
        rte_pktmbuf_refcnt_update(mbuf, 1); /* ipv4_fragment() frees it, and so does the burst */
        if (ipv4_fragment(worker, mbuf, (uint16_t)room, add_piece, &pieces) < 0) {
            rte_pktmbuf_refcnt_update(mbuf, -1);
            drop(worker, burst, i, ESP_SEAL_NO_ROOM);
            return;
        }
        send_pieces(worker, &pieces);
        burst->dropped |= UINT64_C(1) << i;
    } else if (room + header >=
               (unsigned)(meta->flags & PACKET_IPV6 ? IPV6_LEAST_MTU : IPV4_LEAST_MTU)) {
        meta->pointer = (uint16_t)(room + header); /* what the sender is told */
        meta->flags |= PACKET_INSPECTED;
        burst_divert(burst, i, CAUSE_TOO_BIG);
    } else {
        drop(worker, burst, i, OUT_TOO_LONG);
    }
}

/* From the IP header on, in tunnel mode all of it; in transport mode all but the header. */
static unsigned payload_length(struct rte_mbuf *mbuf, const struct ipsec_sa *sa) {
    return mbuf->pkt_len - packet_meta(mbuf)->l3_offset - header_outside(mbuf, sa);
}

static unsigned room_for(struct rte_mbuf *mbuf, const struct ipsec_sa *sa, unsigned mtu) {
    unsigned header = header_outside(mbuf, sa);

    return mtu > header ? sa_room(sa, mtu - header) : 0;
}

/* Transport mode protects whole packets, which `output` cuts afterwards if their senders let it
 * (RFC 4303 section 3.3.4). */
static bool is_cut_afterwards(struct rte_mbuf *mbuf, const struct ipsec_sa *sa) {
    return sa->flags & SA_TRANSPORT && !(sa->flags & SA_IPV6) &&
           !(packet_l3(mbuf, const struct rte_ipv4_hdr *)->fragment_offset &
             RTE_BE16(RTE_IPV4_HDR_DF_FLAG)) &&
           payload_length(mbuf, sa) <= room_for(mbuf, sa, UINT16_MAX);
}

/* --- the burst --- */

/* What became of it. */
struct sealed {
    uint64_t all;
    uint64_t ipv6;     /* of those: with an outer header of IPv6 */
    bool in_transport; /* not plain: the header may be longer, the frame tagged */
};

static void set_kind(struct worker *worker, const struct burst *burst,
                     const struct sealed *sealed) {
    uint64_t left = burst->mask & ~burst->dropped & ~burst->diverted;

    if (worker->burst_kind == BURST_MIXED || sealed->all == 0)
        return;
    if (sealed->in_transport || left & ~sealed->all ||
        (sealed->ipv6 && sealed->ipv6 != sealed->all))
        worker->burst_kind = BURST_MIXED;
    else
        worker->burst_kind = sealed->ipv6 ? BURST_PLAIN_IPV6 : BURST_PLAIN_IPV4;
}

/* Those before a packet that is cut leave before its pieces. */
static void send_sealed(struct worker *worker, struct burst *burst, struct sealed *sealed) {
    unsigned i;

    BURST_FOREACH (i, sealed->all) {
        struct rte_mbuf *mbuf = burst->packets[i];

        burst_take(burst, i);
        leave_now(worker, mbuf);
    }
    *sealed = (struct sealed){0};
}

static void seal_packets(struct worker *worker, struct burst *burst, struct esp_sealing *packets,
                         const uint8_t *index, unsigned count, struct sealed *sealed) {
    esp_seal(worker, packets, count);
    for (unsigned n = 0; n < count; n++) {
        if (unlikely(packets[n].reason != ESP_SEAL_REASONS)) {
            audit(worker, &packets[n]);
            drop(worker, burst, index[n], packets[n].reason);
            continue;
        }
        if (unlikely(packets[n].tunnel != 0))
            count_tunnel(worker, packets[n].tunnel, 1, packets[n].length);
        sealed->all |= UINT64_C(1) << index[n];
        sealed->ipv6 |= (uint64_t)((packets[n].sa->flags & SA_IPV6) != 0) << index[n];
        sealed->in_transport |= packets[n].sa->flags & SA_TRANSPORT;
    }
}

static void seal(struct worker *worker, struct burst *burst, uint64_t protect,
                 struct ipsec_sa *const *sa, struct sealed *sealed) {
    struct esp_sealing packets[BURST_MAX];
    uint8_t index[BURST_MAX];
    unsigned count = 0, kept = 0, i;

    BURST_FOREACH (i, protect) {
        index[count] = (uint8_t)i;
        packets[count].mbuf = burst->packets[i];
        note_tunnel(&packets[count]);
        packets[count++].sa = sa[i];
    }
    route(packets, count);
    for (unsigned n = 0; n < count; n++) {
        const struct esp_sealing *packet = &packets[n];
        const struct next_hop *hop = next_hop_get(packet->next_hop);
        unsigned room;

        if (unlikely(!leads_somewhere(hop))) {
            drop(worker, burst, index[n], OUT_NO_ROUTE);
            continue;
        }
        room =
            room_in_tunnel(packet_meta(packet->mbuf),
                           room_for(packet->mbuf, packet->sa, sa_path_mtu(packet->sa, hop->mtu)));
        if (unlikely(payload_length(packet->mbuf, packet->sa) > room) &&
            !is_cut_afterwards(packet->mbuf, packet->sa)) {
            if (is_to_be_cut(packet, room)) {
                seal_packets(worker, burst, packets, index, kept, sealed);
                send_sealed(worker, burst, sealed);
                kept = 0;
            }
            too_long(worker, burst, index[n], packet, room);
            continue;
        }
        index[kept] = index[n];
        packets[kept++] = *packet;
    }
    seal_packets(worker, burst, packets, index, kept, sealed);
}

/* --- usual packets --- */

static inline bool is_usual(const struct ipsec_sa *sa, struct rte_mbuf *mbuf) {
    return esp_seal_is_usual(sa, mbuf) && likely(!spd_is_exempt(mbuf)) &&
           likely(!is_for_router(packet_meta(mbuf)));
}

static unsigned room_on_way(struct rte_mbuf *mbuf, const struct ipsec_sa *sa,
                            const struct next_hop *hop) {
    return room_in_tunnel(packet_meta(mbuf), sa_room(sa, sa_path_mtu(sa, hop->mtu)));
}

/* What most bursts are: all packets usual, and for one policy. False: it is not, and nothing has
 * been done. */
static bool seal_one(struct worker *worker, struct burst *burst,
                     struct ipsec_policy *const *policy) {
    const unsigned count = (unsigned)__builtin_popcountll(burst->mask);
    const struct next_hop *hop, *inner_hop = next_hop_get(packet_meta(burst->packets[0])->next_hop);
    struct ipsec_sa *sa;
    uint64_t bytes = 0;
    uint32_t hop_id;
    unsigned room;

    if (!policy[0] || policy[0] != policy[count - 1] || policy[0]->action != IPSEC_PROTECT)
        return false;
    sa = atomic_load_explicit(&policy[0]->sa, memory_order_acquire);
    if (!sa || !esp_seal_is_usual_sa(sa))
        return false;
    route_lookup_ipv4(sa->vrf, &sa->destination, &hop_id, 1);
    hop_id = member_for(sa, hop_id);
    hop = next_hop_get(hop_id);
    if (!leads_somewhere(hop))
        return false;
    /* A policy is of one tunnel interface, or of none. */
    room = room_on_way(burst->packets[0], sa, hop) + ETHER_HEADER;
    for (unsigned i = 0; i < count; i++) {
        struct rte_mbuf *mbuf = burst->packets[i];

        if (unlikely(policy[i] != policy[0] || mbuf->pkt_len > room || !is_usual(sa, mbuf)))
            return false;
        bytes += mbuf->pkt_len - ETHER_HEADER;
    }
    policy_tally(policy[0], worker->index)->packets += count;
    if (unlikely(inner_hop->type == NEXT_HOP_TUNNEL))
        count_tunnel(worker, inner_hop->out_interface, count, bytes);
    esp_seal_run(worker, burst->packets, count, sa, hop_id);
    return true;
}

/* Usual packets of a burst, with what has been found out about each. */
struct usual {
    unsigned count;
    uint8_t index[BURST_MAX];
    struct rte_mbuf *mbufs[BURST_MAX];
    struct ipsec_sa *sas[BURST_MAX];
    uint32_t destination[BURST_MAX], hop_ids[BURST_MAX];
};

/* False: a packet of such an association is not usual. It would get its number behind those of
 * packets that follow it, and receivers refuse numbers that are behind their window. */
static bool find_usual(const struct burst *burst, uint64_t mask, struct ipsec_policy *const *policy,
                       struct usual *usual) {
    unsigned count = 0, i;

    BURST_FOREACH (i, mask) {
        struct rte_mbuf *mbuf = burst->packets[i];
        struct ipsec_sa *sa;

        if (unlikely(!policy[i] || policy[i]->action != IPSEC_PROTECT))
            continue;
        sa = atomic_load_explicit(&policy[i]->sa, memory_order_acquire);
        if (unlikely(!sa || !esp_seal_is_usual_sa(sa)))
            continue;
        if (unlikely(!is_usual(sa, mbuf)))
            return false;
        usual->index[count] = (uint8_t)i;
        usual->mbufs[count] = mbuf;
        usual->sas[count] = sa;
        usual->destination[count++] = sa->destination;
    }
    usual->count = count;
    return true;
}

/* The ways to the other ends, each in the VRF of its association. */
static void look_up_usual(struct usual *usual) {
    for (unsigned first = 0, end; first < usual->count; first = end) {
        const uint16_t vrf = usual->sas[first]->vrf;

        for (end = first + 1; end < usual->count && usual->sas[end]->vrf == vrf;)
            end++;
        route_lookup_ipv4(vrf, &usual->destination[first], &usual->hop_ids[first], end - first);
    }
}

/* Leaves out what has no route. False: some packet is too long, and its pieces would have to leave
 * before packets with lower numbers. */
static bool route_usual(struct usual *usual) {
    unsigned kept = 0;

    look_up_usual(usual);
    for (unsigned n = 0; n < usual->count; n++) {
        struct ipsec_sa *sa = usual->sas[n];
        struct rte_mbuf *mbuf = usual->mbufs[n];
        const uint32_t id = member_for(sa, usual->hop_ids[n]);
        const struct next_hop *hop = next_hop_get(id);

        if (unlikely(!leads_somewhere(hop)))
            continue;
        if (unlikely(mbuf->pkt_len - packet_meta(mbuf)->l3_offset > room_on_way(mbuf, sa, hop)))
            return false;
        usual->index[kept] = usual->index[n];
        usual->mbufs[kept] = mbuf;
        usual->sas[kept] = sa;
        usual->hop_ids[kept++] = id;
    }
    usual->count = kept;
    return true;
}

static void seal_slice(struct worker *worker, uint64_t tunnels, struct ipsec_policy *const *policy,
                       const struct usual *usual) {
    for (unsigned n = 0; n < usual->count; n++) {
        const unsigned i = usual->index[n];

        policy_tally(policy[i], worker->index)->packets++;
        if (unlikely(tunnels >> i & 1)) {
            const struct packet_meta *meta = packet_meta(usual->mbufs[n]);

            count_tunnel(worker, next_hop_get(meta->next_hop)->out_interface, 1,
                         usual->mbufs[n]->pkt_len - meta->l3_offset);
        }
    }
    esp_seal_usual(worker, usual->mbufs, usual->sas, usual->hop_ids, usual->count);
}

/* The usual ones among packets of many associations, up to a slice with one that is not. Returns
 * which they were. What belongs to the associations comes from memory while the packets before are
 * encrypted, so the burst is done in slices. */
static uint64_t seal_many(struct worker *worker, const struct burst *burst, uint64_t mask,
                          uint64_t tunnels, struct ipsec_policy *const *policy) {
    uint64_t left = mask, slice, ahead = burst_slice(&left), done = 0;
    struct usual usual;

    fetch(worker, policy, ahead);
    while ((slice = ahead) != 0) {
        ahead = burst_slice(&left);
        fetch(worker, policy, ahead);
        if (!find_usual(burst, slice, policy, &usual) || !route_usual(&usual))
            break;
        seal_slice(worker, tunnels, policy, &usual);
        for (unsigned n = 0; n < usual.count; n++)
            done |= UINT64_C(1) << usual.index[n];
    }
    return done;
}

static void ipsec_out_run(struct worker *worker, struct burst *burst) {
    struct ipsec_policy *policy[BURST_MAX];
    struct ipsec_sa *sa[BURST_MAX];
    uint64_t mask = leaving(burst), tunnels = 0, protect;
    struct sealed sealed = {0};
    uint16_t sets[BURST_MAX];

    if (unlikely(atomic_load_explicit(&ipsec_has_tunnels, memory_order_relaxed)))
        tunnels = into_tunnels(burst, mask, sets);
    if (mask == 0 ||
        (!spd_look_up(worker, IPSEC_OUT, burst, mask, tunnels ? sets : NULL, policy) && !tunnels))
        return;
    if (likely(worker->burst_kind == BURST_PLAIN_IPV4 && burst_is_dense(burst) &&
               mask == burst->mask) &&
        seal_one(worker, burst, policy))
        return;
    sealed.all = seal_many(worker, burst, mask, tunnels, policy);
    mask &= ~sealed.all;
    if (mask) {
        protect = decide(worker, burst, mask, tunnels, policy, sa);
        if (protect)
            seal(worker, burst, protect, sa, &sealed);
    }
    set_kind(worker, burst, &sealed);
}
