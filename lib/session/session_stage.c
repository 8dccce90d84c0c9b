/*
 * Stage `session`: finds each packet's flow, follows TCP's state, counts, and rewrites
 * destinations.
 *
 * A burst of plain packets goes in three passes, each of which leaves the memory that the next one
 * needs on its way into the cache: keys and hashes (buckets), signatures (flows), flows. The key is
 * read with one load of 16 bytes from source address to ports; put together field by field it would
 * wait for the stores before the load could see them, which costs more than everything else here.
 * What is not an ordinary packet of a session whose state it cannot change goes through
 * one_packet().
 */
#include <rte_prefetch.h>

#include "core/stage.h"
#include "interface/interface.h"
#include "l3/reverse_path.h"
#include "session/session_internal.h"

static void session_run(struct worker *worker, struct burst *burst);
static void session_turn(struct worker *worker);

static struct stage session_stage = {
    .name = "session",
    .run = session_run,
    .turn = session_turn,
    .wanted = session_wanted,
};
STAGE(session_stage)

struct session_worker *session_workers;

const struct session_burst *session_burst_of(const struct worker *worker) {
    const struct session_burst *burst = &session_workers[worker->index].burst;

    return burst->number == worker->burst_number ? burst : NULL;
}

static void session_turn(struct worker *worker) {
    session_table_turn(worker->index);
    session_sweep(worker);
    session_fragment_turn(worker);
}

/* --- one packet --- */

static inline void count(struct flow *flow, const struct rte_mbuf *mbuf, unsigned l3_offset,
                         uint32_t now) {
    flow_count(flow, mbuf, l3_offset);
    flow->last = now;
}

static bool is_closed(uint32_t number) {
    return __atomic_load_n(&sessions[flow_session(number)].state, __ATOMIC_RELAXED) ==
           SESSION_TCP_CLOSED;
}

/* The packet belongs to the flow, whose session lets it pass: all that remains to be done with it.
 * After an RST nothing keeps a session alive, but what has just opened it again. SESSION_PASS;
 * SESSION_TAKEN when it is to be dropped and has been counted, or, with *gone, has gone on another
 * way. */
static enum session_drop take_flow(struct worker *worker, struct session_burst *own, unsigned i,
                                   struct rte_mbuf *mbuf, uint32_t number, bool *gone) {
    struct packet_meta *meta = packet_meta(mbuf);
    struct flow *flow = &session_flows[number];
    uint32_t now = atomic_load_explicit(&session_clock, memory_order_relaxed);

    count(flow, mbuf, meta->l3_offset, is_closed(number) ? flow->last : now);
    meta->session = number;
    if (flow->flags & FLOW_OTHER_FAMILY) {
        enum session_family_result result = session_change_family(worker, mbuf, number);

        *gone = result == SESSION_FAMILY_IN_PIECES;
        return result == SESSION_FAMILY_CHANGED ? SESSION_PASS : SESSION_TAKEN;
    }
    if (flow->flags & FLOW_DESTINATION)
        session_rewrite_destination(mbuf, number);
    if (flow->flags & FLOW_OTHER_VRF)
        meta->vrf = session_vrf_of(number);
    if (flow->flags & FLOW_SOURCE)
        own->sources |= UINT64_C(1) << i;
    return SESSION_PASS;
}

static enum session_drop one_fragment(struct worker *worker, struct session_burst *own, unsigned i,
                                      struct rte_mbuf *mbuf, bool *kept, bool *gone) {
    uint32_t flow;
    enum session_drop result = session_fragment_later(worker, mbuf, &flow);

    *kept = result == SESSION_TAKEN;
    return result == SESSION_PASS && flow != SESSION_NONE
               ? take_flow(worker, own, i, mbuf, flow, gone)
               : result;
}

/* A packet whose key no flow has. */
static enum session_drop miss_packet(struct worker *worker, unsigned i, struct rte_mbuf *mbuf,
                                     struct session_miss *miss) {
    const struct session_translator *translator = session_translator_in_use;

    if (packet_meta(mbuf)->l4_protocol == IPPROTO_TCP &&
        session_may_begin(miss->tcp_flags) == SESSION_DROP_TCP_FLAGS)
        return SESSION_DROP_TCP_FLAGS;
    /* An answer that nobody has asked for opens nothing. */
    if (miss->is_answer)
        miss->stateless = true;
    if (translator && miss->stateless) {
        if (miss->flags & FLOW_IPV6 && !translator->stateless6(worker, mbuf, 0))
            return SESSION_TAKEN;
    } else if (translator) {
        if (!translator->destination(worker, mbuf, miss))
            return SESSION_TAKEN; /* counted by the translator; to be dropped */
        if (miss->flags & FLOW_DESTINATION) {
            if (miss->flags & FLOW_IPV6)
                session_replace6(mbuf, false, miss->destination6, miss->destination_port);
            else
                session_replace(mbuf, false, miss->destination, miss->destination_port);
            packet_meta(mbuf)->session = SESSION_MISS_MARK | i;
        }
    }
    return SESSION_MISS;
}

/* SESSION_PASS, SESSION_MISS, SESSION_TAKEN (*kept: somebody else holds it now; *gone: what is in
 * it has been sent on) or why not. */
static enum session_drop one_packet(struct worker *worker, struct session_burst *own, unsigned i,
                                    struct rte_mbuf *mbuf, bool *kept, bool *gone) {
    const struct packet_meta *meta = packet_meta(mbuf);
    struct session_miss *miss = &own->miss[i];
    enum session_drop result;
    uint32_t number;
    uint64_t hash;

    *kept = *gone = false;
    if (meta->flags & PACKET_LATER_FRAGMENT &&
        !(meta->flags & (PACKET_LINK_MULTICAST | PACKET_IP_MULTICAST))) {
        return one_fragment(worker, own, i, mbuf, kept, gone);
    }
    result = session_key_of(mbuf, miss);
    if (result == SESSION_MISS) {
        result = session_icmp_error(mbuf);
        if (result == SESSION_PASS && meta->flags & PACKET_FRAGMENT)
            session_fragment_first(worker, mbuf, &miss->key, FRAGMENT_PASSES);
        miss->stateless = true;
        if (result == SESSION_MISS)
            return miss_packet(worker, i, mbuf, miss);
        /* Its source is translated behind the route, like any other's. */
        if (result == SESSION_PASS && session_flows[meta->session].flags & FLOW_SOURCE)
            own->sources |= UINT64_C(1) << i;
        return result;
    }
    if (result != SESSION_PASS)
        return result;
    if (meta->flags & (PACKET_LINK_MULTICAST | PACKET_IP_MULTICAST)) {
        miss->stateless = true;
        return SESSION_MISS;
    }
    if (miss->stateless)
        return miss_packet(worker, i, mbuf, miss);
    hash = flow_key_hash(&miss->key, miss->flags & FLOW_IPV6);
    number = session_table_find(&miss->key, miss->flags & FLOW_IPV6, hash);
    if (number != SESSION_NONE && session_flows[number].flags & FLOW_DEAD) {
        session_close(worker, flow_session(number), "ended");
        number = SESSION_NONE;
    }
    if (number == SESSION_NONE)
        return miss_packet(worker, i, mbuf, miss);
    result = session_follow(number, miss->tcp_flags);
    if (result != SESSION_PASS)
        return result;
    if (meta->flags & PACKET_FRAGMENT) /* before its header is another one */
        session_fragment_first(worker, mbuf, &miss->key, number);
    return take_flow(worker, own, i, mbuf, number, gone);
}

/* The packets of the mask, one after the other. */
static void some_packets(struct worker *worker, struct burst *burst, struct session_burst *own,
                         uint64_t mask) {
    unsigned i;

    BURST_FOREACH (i, mask) {
        const struct packet_meta before = *packet_meta(burst->packets[i]);
        bool kept, gone;
        enum session_drop result = one_packet(worker, own, i, burst->packets[i], &kept, &gone);

        if (result == SESSION_MISS) {
            own->misses |= UINT64_C(1) << i;
        } else if (result == SESSION_TAKEN) {
            if (kept) /* the pipeline frees what is dropped: the waiting one has a reference more */
                rte_pktmbuf_refcnt_update(burst->packets[i], 1);
            else if (!gone && !(packet_meta(burst->packets[i])->flags & PACKET_LATER_FRAGMENT))
                session_refuse(worker, burst, i);
            burst->dropped |= UINT64_C(1) << i;
        } else if (result != SESSION_PASS) {
            burst_drop(worker, burst, i, &session_drops, result);
            if (!(packet_meta(burst->packets[i])->flags & PACKET_LATER_FRAGMENT))
                session_refuse(worker, burst, i);
        }
        /* Another VRF, another family, a next hop of its own: not like the others any more. */
        if (packet_meta(burst->packets[i])->vrf != before.vrf ||
            packet_meta(burst->packets[i])->flags != before.flags)
            worker->burst_kind = BURST_MIXED;
    }
}

/* --- bursts of plain packets --- */

/* The flow whose signature fits, most likely the right one, is on its way into the cache. */
static inline void match_flows(const uint64_t *hashes, uint32_t *flows, unsigned count_of) {
    for (unsigned i = 0; i < count_of; i++) {
        const struct bucket *bucket = &session_table.buckets[hash_bucket(hashes[i])];
        uint32_t match = bucket_match(bucket, hash_signature(hashes[i]));

        flows[i] = match ? bucket->flow[(unsigned)__builtin_ctz(match) / 2] : SESSION_NONE;
        rte_prefetch0(&session_flows[flows[i]]);
    }
}

/* --- IPv4 --- */

/* Room for what the straight line reads of the transport header: ports, and TCP's flags. */
enum { TCP_LEAST = ETHER_HEADER + IPV4_HEADER + 20, UDP_LEAST = ETHER_HEADER + IPV4_HEADER + 8 };

/* Is it TCP or UDP, of at least a whole header, and does no flag of it change a state? */
static inline bool is_ordinary(const uint8_t *ip, uint32_t length) {
    if (likely(ip[9] == IPPROTO_UDP))
        return length >= UDP_LEAST;
    return ip[9] == IPPROTO_TCP && length >= TCP_LEAST &&
           (ip[IPV4_HEADER + TCP_FLAGS] & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_ACK;
}

/* Handles what is ordinary; the mask of the others is returned. */
static uint64_t plain_ipv4(struct rte_mbuf **packets, unsigned count_of, struct session_burst *own,
                           uint32_t vrf) {
    __m128i keys[BURST_MAX];
    uint32_t flows[BURST_MAX];
    uint64_t hashes[BURST_MAX];
    uint64_t rest = 0, sources = 0, families = 0;
    uint32_t now = atomic_load_explicit(&session_clock, memory_order_relaxed);

    for (unsigned i = 0; i < count_of; i++) {
        const uint8_t *ip = rte_pktmbuf_mtod_offset(packets[i], const uint8_t *, ETHER_HEADER);

        keys[i] = _mm_insert_epi32(_mm_loadu_si128((const __m128i *)(ip + 12)),
                                   (int)(ip[9] | vrf << 16), 3);
        hashes[i] = flow_hash4(keys[i]);
        rte_prefetch0(&session_table.buckets[hash_bucket(hashes[i])]);
    }
    match_flows(hashes, flows, count_of);
    for (unsigned i = 0; i < count_of; i++) {
        struct flow *flow = &session_flows[flows[i]];
        uint8_t *ip = rte_pktmbuf_mtod_offset(packets[i], uint8_t *, ETHER_HEADER);
        unsigned flags = flow->flags;
        __m128i same = _mm_cmpeq_epi8(_mm_load_si128((const __m128i *)flow), keys[i]);

        if (unlikely(_mm_movemask_epi8(same) != 0xffff ||
                     (flags & (FLOW_QUICK | FLOW_IPV6 | FLOW_DEAD | FLOW_OTHER_VRF)) !=
                         FLOW_QUICK ||
                     !is_ordinary(ip, packets[i]->pkt_len))) {
            rest |= UINT64_C(1) << i;
            continue;
        }
        count(flow, packets[i], ETHER_HEADER, now);
        packet_meta(packets[i])->session = flows[i];
        sources |= (uint64_t)((flags & FLOW_SOURCE) != 0) << i;
        families |= (uint64_t)((flags & FLOW_OTHER_FAMILY) != 0) << i;
        if (flags & FLOW_DESTINATION)
            session_rewrite_destination_plain(ip, &flow->rewrite);
    }
    own->sources = sources;
    own->families = families;
    return rest;
}

/* --- IPv6 --- */

struct key6 {
    __m128i source, destination;
    uint64_t tail; /* ports, protocol and VRF */
};

static inline bool flow_has_key6(const struct flow *flow, const struct key6 *key) {
    __m128i source = _mm_load_si128((const __m128i *)flow->key6.source);
    __m128i destination = _mm_load_si128((const __m128i *)flow->key6.destination);
    __m128i differs = _mm_or_si128(_mm_xor_si128(source, key->source),
                                   _mm_xor_si128(destination, key->destination));

    return _mm_testz_si128(differs, differs) && load64(&flow->key6.source_port) == key->tail;
}

static inline bool is_ordinary6(const uint8_t *ip, uint32_t length) {
    const uint8_t *transport = ip + IPV6_HEADER;

    if (likely(ip[6] == IPPROTO_UDP))
        return length >= ETHER_HEADER + IPV6_HEADER + 8;
    return ip[6] == IPPROTO_TCP && length >= ETHER_HEADER + IPV6_HEADER + 20 &&
           (transport[TCP_FLAGS] & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_ACK;
}

static uint64_t plain_ipv6(struct rte_mbuf **packets, unsigned count_of, struct session_burst *own,
                           uint32_t vrf) {
    struct key6 keys[BURST_MAX];
    uint32_t flows[BURST_MAX];
    uint64_t hashes[BURST_MAX];
    uint64_t rest = 0, sources = 0, families = 0;
    uint32_t now = atomic_load_explicit(&session_clock, memory_order_relaxed);

    for (unsigned i = 0; i < count_of; i++) {
        const uint8_t *ip = rte_pktmbuf_mtod_offset(packets[i], const uint8_t *, ETHER_HEADER);
        __m128i source = _mm_loadu_si128((const __m128i *)(ip + 8));
        __m128i destination = _mm_loadu_si128((const __m128i *)(ip + 24));
        uint64_t tail = load32(ip + IPV6_HEADER) | (uint64_t)(ip[6] | vrf << 16) << 32;

        keys[i] = (struct key6){source, destination, tail};
        hashes[i] = flow_hash6_of(source, destination, tail);
        rte_prefetch0(&session_table.buckets[hash_bucket(hashes[i])]);
    }
    match_flows(hashes, flows, count_of);
    for (unsigned i = 0; i < count_of; i++) {
        struct flow *flow = &session_flows[flows[i]];
        uint8_t *ip = rte_pktmbuf_mtod_offset(packets[i], uint8_t *, ETHER_HEADER);
        const unsigned wanted = FLOW_QUICK | FLOW_IPV6;
        unsigned flags = flow->flags;

        if (unlikely(!flow_has_key6(flow, &keys[i]) ||
                     (flags & (wanted | FLOW_DEAD | FLOW_OTHER_VRF | FLOW_PORTS)) != wanted ||
                     !is_ordinary6(ip, packets[i]->pkt_len))) {
            rest |= UINT64_C(1) << i;
            continue;
        }
        count(flow, packets[i], ETHER_HEADER, now);
        packet_meta(packets[i])->session = flows[i];
        sources |= (uint64_t)((flags & FLOW_SOURCE) != 0) << i;
        families |= (uint64_t)((flags & FLOW_OTHER_FAMILY) != 0) << i;
        if (flags & FLOW_DESTINATION)
            session_rewrite_destination_plain6(ip, flows[i]);
    }
    own->sources = sources;
    own->families = families;
    return rest;
}

/* Established packets of sessions between the two versions of IP. */
static void change_families(struct worker *worker, struct burst *burst, uint64_t mask) {
    unsigned i;

    BURST_FOREACH (i, mask) {
        struct rte_mbuf *mbuf = burst->packets[i];

        worker->burst_kind = BURST_MIXED;
        if (session_change_family(worker, mbuf, packet_meta(mbuf)->session) !=
            SESSION_FAMILY_CHANGED)
            burst->dropped |= UINT64_C(1) << i;
    }
}

/* Those of the mask whose source is not forged. The others are dropped here already: `route` would
 * do so after they have changed their session, or have lost the source that it has to look at. */
static uint64_t not_forged(struct worker *worker, struct burst *burst, uint64_t mask) {
    const struct burst some = {.packets = burst->packets, .mask = mask};
    uint64_t forged = reverse_path_failed(&some, worker->burst_kind);

    if (unlikely(forged))
        reverse_path_drop(worker, burst, forged);
    return mask & ~forged;
}

static void session_run(struct worker *worker, struct burst *burst) {
    struct session_burst *own = &session_workers[worker->index].burst;
    uint64_t rest = burst->mask;

    own->number = worker->burst_number;
    own->misses = own->sources = own->families = 0;
    if (likely(worker->burst_kind == BURST_PLAIN_IPV4 && burst_is_dense(burst)))
        rest = plain_ipv4(burst->packets, (unsigned)__builtin_popcountll(burst->mask), own,
                          packet_meta(burst->packets[0])->vrf);
    else if (worker->burst_kind == BURST_PLAIN_IPV6 && burst_is_dense(burst))
        rest = plain_ipv6(burst->packets, (unsigned)__builtin_popcountll(burst->mask), own,
                          packet_meta(burst->packets[0])->vrf);
    if (unlikely(rest | own->families)) {
        uint64_t honest = not_forged(worker, burst, rest | own->families);

        some_packets(worker, burst, own, rest & honest);
        change_families(worker, burst, own->families & honest);
    }
}
