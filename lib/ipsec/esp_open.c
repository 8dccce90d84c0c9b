/* Out of ESP: RFC 4303 section 3.4, RFC 3948 section 3, RFC 4301 section 5.2.1 and RFC 6040. */
#include <netinet/in.h>

#include "ipsec/esp_packet.h"
#include "ipsec/ipsec_audit.h"
#include "l3/header.h"
#include "l3/icmp.h"
#include "l3/parse.h"

enum {
    LOCK_TRIES = 1 << 14, /* some hundred times what the longest holder needs */
    NEXT_HEADER_NONE = 59,
    ECN_BITS = 3,
    ECN_CE = 3,
    ECN_ECT1 = 1,
};

/* One packet between decryption and the next stage. */
struct unwrapping {
    struct rte_mbuf *mbuf;
    struct ipsec_sa *sa;
    unsigned at;                /* of the ESP header, from the start of the frame */
    unsigned payload;           /* of what was encrypted */
    unsigned length;            /* of the payload without padding and trailer */
    uint8_t next_header, index; /* in the burst */
    bool chained;
    unsigned reason; /* ESP_OPEN_REASONS: none */
};

/* --- the window --- */

/* A worker alone needs no lock. */
static inline bool lock(struct ipsec_sa *sa) {
    if (likely(!ipsec_shared))
        return true;
    for (unsigned i = 0; i < LOCK_TRIES; i++) {
        if (likely(rte_spinlock_trylock(&sa->lock)))
            return true;
        rte_pause();
    }
    return false;
}

static inline void unlock(struct ipsec_sa *sa) {
    if (unlikely(ipsec_shared))
        rte_spinlock_unlock(&sa->lock);
}

/* ESP_OPEN_REASONS: none. */
static __rte_cold __rte_noinline unsigned refuse(struct worker *worker, struct ipsec_sa *sa,
                                                 enum esp_replay_result result) {
    struct sa_tally *tally = &sa->tallies[worker->index];

    switch (result) {
    case ESP_REPLAY_NEW:
        return ESP_OPEN_REASONS;
    case ESP_REPLAY_SEEN:
        tally->replayed++;
        return ESP_OPEN_REPLAYED;
    case ESP_REPLAY_TOO_OLD:
        tally->too_old++;
        return ESP_OPEN_TOO_OLD;
    default:
        return ESP_OPEN_SEQUENCE;
    }
}

/* --- before the cryptography --- */

static inline bool is_from(const struct ipsec_sa *sa, const uint8_t *outer) {
    return sa->flags & SA_IPV6 ? memcmp(outer + 8, sa->source, 16) == 0
                               : load32(outer + 12) == load32(sa->source);
}

/* ESP_OPEN_REASONS, or what is wrong with lengths and addresses. */
static inline unsigned measure(struct unwrapping *packet, struct esp_packet *out) {
    struct rte_mbuf *mbuf = packet->mbuf;
    const struct ipsec_sa *sa = packet->sa;
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *outer = packet_l3(mbuf, const uint8_t *);
    const unsigned around = ESP_HEADER + sa->sizes.iv + sa->sizes.icv;
    const unsigned length = mbuf->pkt_len - packet->at;

    if (unlikely(meta->flags & PACKET_FRAGMENT))
        return ESP_OPEN_FRAGMENT;
    if (unlikely(length < around + ESP_TRAILER))
        return ESP_OPEN_TRUNCATED;
    if (unlikely((length - around) & (sa->sizes.align - 1u)))
        return ESP_OPEN_LENGTH;
    if (unlikely(!is_from(sa, outer)) && !(sa->flags & SA_ANY_SOURCE))
        return ESP_OPEN_ADDRESS;
    *out = (struct esp_packet){
        .key = sa->key,
        .esp = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, packet->at),
        .length = length - around,
    };
    return ESP_OPEN_REASONS;
}

/* Packets on their way through esp_open(), those of one association side by side where they came
 * so; the crypto's places are theirs. */
struct batch {
    unsigned count;
    struct unwrapping packet[BURST_MAX];
    struct esp_packet crypto[BURST_MAX];
};

static inline unsigned end_of_run(const struct batch *batch, unsigned first) {
    unsigned end = first + 1;

    while (end < batch->count && batch->packet[end].sa == batch->packet[first].sa)
        end++;
    return end;
}

/* Sets the numbers, and the reason of those that the window refuses. */
static void check_window(struct worker *worker, struct batch *batch) {
    for (unsigned first = 0, end; first < batch->count; first = end) {
        struct ipsec_sa *sa = batch->packet[first].sa;
        const bool locked = lock(sa);

        end = end_of_run(batch, first);
        for (unsigned i = first; i < end; i++) {
            struct esp_packet *crypto = &batch->crypto[i];
            enum esp_replay_result result;

            if (unlikely(!locked)) {
                batch->packet[i].reason = ESP_OPEN_BUSY;
                continue;
            }
            crypto->sequence =
                esp_replay_sequence(&sa->replay, rte_be_to_cpu_32(load32(crypto->esp + 4)));
            result = esp_replay_check(&sa->replay, crypto->sequence);
            if (unlikely(result != ESP_REPLAY_NEW))
                batch->packet[i].reason = refuse(worker, sa, result);
        }
        if (likely(locked))
            unlock(sa);
    }
}

/* --- behind it --- */

/* The check value is right: the number counts. */
static void accept_window(struct worker *worker, struct batch *batch) {
    for (unsigned first = 0, end; first < batch->count; first = end) {
        struct ipsec_sa *sa = batch->packet[first].sa;
        const bool locked = lock(sa);

        end = end_of_run(batch, first);
        for (unsigned i = first; i < end; i++) {
            struct unwrapping *packet = &batch->packet[i];
            enum esp_replay_result result;

            if (unlikely(batch->crypto[i].failed)) {
                sa->tallies[worker->index].failed++;
                packet->reason = ESP_OPEN_INTEGRITY;
            } else if (unlikely(!locked)) {
                packet->reason = ESP_OPEN_BUSY;
            } else {
                result = esp_replay_accept(&sa->replay, batch->crypto[i].sequence);
                if (unlikely(result != ESP_REPLAY_NEW))
                    packet->reason = refuse(worker, sa, result);
            }
        }
        if (likely(locked))
            unlock(sa);
    }
}

/* The packet is authentic and new, so it tells where the peer is now (RFC 3947 section 7): the IKE
 * daemon is to hear of it. One that is not read yet stays. */
static void note_source(const struct unwrapping *packet) {
    struct ipsec_sa *sa = packet->sa;
    struct sa_new_source *new = &sa->new_source;
    const uint8_t *outer = packet_l3(packet->mbuf, const uint8_t *);
    uint16_t port =
        load16(rte_pktmbuf_mtod_offset(packet->mbuf, const uint8_t *, packet->at - UDP_HEADER));
    uint8_t expected = SOURCE_EMPTY;

    if (likely(is_from(sa, outer) && port == rte_cpu_to_be_16(sa->settings.source_port)))
        return;
    if (!atomic_compare_exchange_strong_explicit(&new->state, &expected, SOURCE_TAKEN,
                                                 memory_order_acquire, memory_order_relaxed))
        return;
    if (sa->flags & SA_IPV6)
        memcpy(new->address, outer + 8, 16);
    else
        memcpy(new->address, outer + 12, 4);
    new->port = port;
    atomic_store_explicit(&new->state, SOURCE_FULL, memory_order_release);
}

/* The trailer is what the sender wrote. */
static inline unsigned read_trailer(struct worker *worker, const struct esp_packet *crypto,
                                    struct unwrapping *out) {
    struct ipsec_sa *sa = out->sa;
    struct sa_use *use = sa_use(sa, worker->index);
    const uint8_t *payload = crypto->esp + ESP_HEADER + sa->sizes.iv;
    const uint8_t *trailer = payload + crypto->length - ESP_TRAILER;
    unsigned pad = trailer[0];

    if (unlikely(pad + ESP_TRAILER > crypto->length ||
                 (pad > 0 && memcmp(trailer - pad, esp_padding, pad) != 0))) {
        sa->tallies[worker->index].malformed++;
        return ESP_OPEN_PADDING;
    }
    out->payload = out->at + ESP_HEADER + sa->sizes.iv;
    out->length = crypto->length - ESP_TRAILER - pad;
    out->next_header = trailer[1];
    use->packets++;
    use->bytes += out->length;
    return ESP_OPEN_REASONS;
}

/* Tunnel mode: RFC 6040 section 4.2. False: the packet has to go. */
static bool combine_ecn(uint8_t *inner, bool ipv6, uint8_t outer) {
    uint8_t old = ipv6 ? (uint8_t)(rte_be_to_cpu_16(load16(inner)) >> 4) : inner[1];
    uint8_t ecn = old & ECN_BITS, new = ecn;

    outer &= ECN_BITS;
    if (likely(outer == 0 || outer == ecn))
        return true;
    if (ecn == 0)
        return outer != ECN_CE;
    if (outer == ECN_CE || (outer == ECN_ECT1 && ecn != ECN_CE))
        new = outer;
    if (new == ecn)
        return true;
    if (ipv6) {
        inner[1] = (uint8_t)((inner[1] & ~(ECN_BITS << 4)) | new << 4);
    } else { /* RFC 1624 */
        struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)inner;
        uint32_t sum = (uint16_t)~ip->hdr_checksum;

        sum += (uint16_t)~load16(inner);
        inner[1] = (uint8_t)((old & ~ECN_BITS) | new);
        sum += load16(inner);
        sum = (sum & 0xffff) + (sum >> 16);
        sum += sum >> 16;
        ip->hdr_checksum = (uint16_t)~sum;
    }
    return true;
}

static uint8_t traffic_class(const struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta((struct rte_mbuf *)(uintptr_t)mbuf);
    const uint8_t *packet = packet_l3((struct rte_mbuf *)(uintptr_t)mbuf, const uint8_t *);

    return meta->flags & PACKET_IPV6 ? (uint8_t)(rte_be_to_cpu_16(load16(packet)) >> 4) : packet[1];
}

/* The frame begins ETHER_HEADER before `start` from now on. What is behind the payload is cut
 * off. */
static void cut(struct unwrapping *packet, unsigned start, bool ipv6) {
    struct rte_mbuf *mbuf = packet->mbuf;
    uint16_t type = ipv6 ? RTE_BE16(RTE_ETHER_TYPE_IPV6) : RTE_BE16(RTE_ETHER_TYPE_IPV4);
    unsigned front = start - ETHER_HEADER;

    mbuf->data_off = (uint16_t)(mbuf->data_off + front);
    mbuf->data_len = (uint16_t)(mbuf->data_len - front);
    mbuf->pkt_len -= front;
    if (likely(!packet->chained))
        mbuf->pkt_len = mbuf->data_len = (uint16_t)(packet->payload - front + packet->length);
    else
        parse_trim(mbuf, packet->payload - front + packet->length);
    memcpy(rte_pktmbuf_mtod_offset(mbuf, uint8_t *, ETHER_HEADER - 2), &type, sizeof(type));
}

static unsigned out_of_tunnel(struct unwrapping *packet, bool *ipv6) {
    uint8_t outer = traffic_class(packet->mbuf);
    uint8_t *inner = rte_pktmbuf_mtod_offset(packet->mbuf, uint8_t *, packet->payload);
    unsigned header;

    *ipv6 = packet->next_header == IPPROTO_IPV6;
    if (unlikely(packet->next_header != IPPROTO_IPIP && !*ipv6))
        return ESP_OPEN_NEXT_HEADER;
    header = *ipv6 ? IPV6_HEADER : IPV4_HEADER;
    /* In a chain the first buffer may end before the inner header does. */
    if (unlikely(packet->length < header || packet->payload + header > packet->mbuf->data_len))
        return ESP_OPEN_TRUNCATED;
    if (unlikely(!combine_ecn(inner, *ipv6, outer)))
        return ESP_OPEN_ECN;
    cut(packet, packet->payload, *ipv6);
    return ESP_OPEN_REASONS;
}

/* A NAT on the way has changed addresses that the checksum covers (RFC 3948 section 3.1.2). */
static void renew_checksum(struct rte_mbuf *mbuf, unsigned l3, unsigned transport, uint8_t protocol,
                           bool ipv6) {
    const uint8_t *ip = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, l3);
    unsigned length = mbuf->pkt_len - transport;
    unsigned field = transport + (protocol == IPPROTO_TCP ? 16 : 6);
    uint16_t sum = 0, *at = rte_pktmbuf_mtod_offset(mbuf, uint16_t *, field);
    uint32_t pseudo;

    if (field + 2 > mbuf->data_len || (protocol == IPPROTO_UDP && load16(at) == 0))
        return;
    memcpy(at, &sum, sizeof(sum));
    pseudo = rte_cpu_to_be_16(protocol) + rte_cpu_to_be_16((uint16_t)length);
    pseudo += ipv6 ? rte_raw_cksum(ip + 8, 32) : rte_raw_cksum(ip + 12, 8);
    sum = (uint16_t)~icmp_sum_from(mbuf, transport, pseudo);
    if (sum == 0)
        sum = UINT16_MAX;
    memcpy(at, &sum, sizeof(sum));
}

/* The IP header moves to where the payload begins, and says so. Extension headers of IPv6 stay in
 * front of the payload only if there are none. */
static unsigned out_of_transport(struct unwrapping *packet, bool *ipv6) {
    struct rte_mbuf *mbuf = packet->mbuf;
    const struct packet_meta *meta = packet_meta(mbuf);
    uint8_t *ip = packet_l3(mbuf, uint8_t *);
    unsigned udp = packet->sa->flags & SA_UDP ? UDP_HEADER : 0;
    unsigned header = packet->at - udp - meta->l3_offset, start = packet->payload - header;
    uint8_t *moved = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, start);
    uint16_t length;

    *ipv6 = meta->flags & PACKET_IPV6;
    if (unlikely(packet->next_header == IPPROTO_IPIP || packet->next_header == IPPROTO_IPV6 ||
                 (*ipv6 && header != IPV6_HEADER)))
        return ESP_OPEN_NEXT_HEADER;
    memmove(moved, ip, header);
    if (*ipv6) {
        length = rte_cpu_to_be_16((uint16_t)packet->length);
        memcpy(moved + 4, &length, sizeof(length));
        moved[6] = packet->next_header;
    } else {
        struct rte_ipv4_hdr *moved4 = (struct rte_ipv4_hdr *)moved;

        moved4->total_length = rte_cpu_to_be_16((uint16_t)(header + packet->length));
        moved4->next_proto_id = packet->next_header;
        moved4->hdr_checksum = 0;
        moved4->hdr_checksum = (uint16_t)~rte_raw_cksum(moved4, header);
    }
    cut(packet, start, *ipv6);
    if (udp && (packet->next_header == IPPROTO_TCP || packet->next_header == IPPROTO_UDP))
        renew_checksum(mbuf, ETHER_HEADER, ETHER_HEADER + header, packet->next_header, *ipv6);
    return ESP_OPEN_REASONS;
}

static bool is_up(uint16_t tunnel) {
    return tunnel != SA_NO_INTERFACE && interface_table()->entry[tunnel].flags & INTERFACE_UP;
}

static void count_tunnel(struct worker *worker, const struct unwrapping *packet,
                         struct esp_opening *opening, uint16_t tunnel) {
    struct interface_counters *counters = &worker->counters->interface[tunnel];

    counters->rx_packets++;
    counters->rx_bytes += packet->mbuf->pkt_len - ETHER_HEADER;
    opening->tunnels |= UINT64_C(1) << packet->index;
}

static inline void note_inner(enum parse_inner result, struct sa_tally *tally,
                              struct esp_opening *opening, unsigned i, bool ipv6) {
    if (unlikely(result == PARSE_INNER_GONE)) {
        tally->malformed++;
        opening->mask &= ~(UINT64_C(1) << i);
    } else {
        opening->ipv4 |= (uint64_t)(result == PARSE_INNER_PLAIN && !ipv6) << i;
        opening->ipv6 |= (uint64_t)(result == PARSE_INNER_PLAIN && ipv6) << i;
        opening->other |= (uint64_t)(result == PARSE_INNER_OTHER) << i;
    }
}

static unsigned unwrap(struct worker *worker, struct burst *burst, unsigned i,
                       struct unwrapping *packet, struct esp_opening *opening) {
    const uint16_t tunnel = atomic_load_explicit(&packet->sa->interface, memory_order_relaxed);
    const uint16_t interface = tunnel != 0 ? tunnel : packet_meta(packet->mbuf)->in_interface;
    struct sa_tally *tally = &packet->sa->tallies[worker->index];
    unsigned reason;
    bool ipv6;

    if (unlikely(packet->next_header == NEXT_HEADER_NONE))
        return ESP_OPEN_DUMMY;
    if (unlikely(tunnel != 0 && !is_up(tunnel)))
        return ESP_OPEN_INTERFACE;
    reason = packet->sa->flags & SA_TRANSPORT ? out_of_transport(packet, &ipv6)
                                              : out_of_tunnel(packet, &ipv6);
    if (unlikely(reason != ESP_OPEN_REASONS)) {
        tally->malformed += reason != ESP_OPEN_ECN;
        return reason;
    }
    if (unlikely(tunnel != 0))
        count_tunnel(worker, packet, opening, tunnel);
    note_inner(parse_inner(worker, burst, i, ipv6, interface), tally, opening, i, ipv6);
    return ESP_OPEN_REASONS;
}

/* --- chained packets: through a buffer of the worker's, one at a time --- */

static void open_chained(struct worker *worker, struct unwrapping *packet,
                         struct esp_packet *crypto) {
    struct ipsec_worker *own = &ipsec_workers[worker->index];
    struct rte_mbuf *mbuf = packet->mbuf;
    unsigned length = mbuf->pkt_len - packet->at;

    packet->chained = true;
    crypto->failed = true;
    if (length > IPSEC_SCRATCH || packet->at + ESP_HEADER + packet->sa->sizes.iv > mbuf->data_len)
        return;
    esp_gather(mbuf, packet->at, length, own->scratch);
    crypto->esp = own->scratch;
    esp_decrypt(own->engine, crypto, 1);
    esp_scatter(mbuf, packet->at, own->scratch);
}

/* --- the burst --- */

static void take_in(struct worker *worker, struct burst *burst, struct esp_opening *opening,
                    struct batch *batch, const struct drop_group *drops) {
    unsigned i;

    batch->count = 0;
    BURST_FOREACH (i, opening->mask) {
        struct unwrapping *packet = &batch->packet[batch->count];
        unsigned reason;

        *packet = (struct unwrapping){
            .mbuf = burst->packets[i],
            .sa = opening->sa[i],
            .at = opening->at[i],
            .index = (uint8_t)i,
            .reason = ESP_OPEN_REASONS,
        };
        reason = measure(packet, &batch->crypto[batch->count]);
        if (likely(reason == ESP_OPEN_REASONS)) {
            batch->count++;
            continue;
        }
        opening->mask &= ~(UINT64_C(1) << i);
        ipsec_audit_esp(worker, drops, reason, packet->mbuf, packet->at);
        burst_drop(worker, burst, i, drops, reason);
    }
}

/* Those with a reason end here; the others close up. */
static void drop_refused(struct worker *worker, struct burst *burst, struct esp_opening *opening,
                         struct batch *batch, const struct drop_group *drops) {
    unsigned kept = 0;

    for (unsigned i = 0; i < batch->count; i++) {
        const struct unwrapping *packet = &batch->packet[i];

        if (unlikely(packet->reason != ESP_OPEN_REASONS)) {
            opening->mask &= ~(UINT64_C(1) << packet->index);
            ipsec_audit_esp(worker, drops, packet->reason, packet->mbuf, packet->at);
            burst_drop(worker, burst, packet->index, drops, packet->reason);
            continue;
        }
        if (unlikely(kept != i)) {
            batch->packet[kept] = *packet;
            batch->crypto[kept] = batch->crypto[i];
        }
        kept++;
    }
    batch->count = kept;
}

static inline uint64_t chained_of(const struct batch *batch) {
    uint64_t chained = 0;

    for (unsigned i = 0; i < batch->count; i++)
        chained |= (uint64_t)(batch->packet[i].mbuf->nb_segs > 1) << i;
    return chained;
}

static void decrypt(struct worker *worker, struct batch *batch) {
    struct ipsec_worker *own = &ipsec_workers[worker->index];
    const uint64_t chained = chained_of(batch);

    if (likely(chained == 0)) {
        esp_decrypt(own->engine, batch->crypto, batch->count);
        return;
    }
    for (unsigned i = 0; i < batch->count; i++) {
        struct unwrapping *packet = &batch->packet[i];

        if (!(chained >> i & 1)) {
            esp_decrypt(own->engine, &batch->crypto[i], 1);
            continue;
        }
        open_chained(worker, packet, &batch->crypto[i]);
        /* The buffer is the next one's; what is needed of it is the trailer. */
        if (!batch->crypto[i].failed)
            packet->reason = read_trailer(worker, &batch->crypto[i], packet);
    }
}

void esp_open(struct worker *worker, struct burst *burst, struct esp_opening *opening,
              const struct drop_group *drops) {
    const uint64_t clock = atomic_load_explicit(&ipsec_clock, memory_order_relaxed);
    struct batch batch;

    take_in(worker, burst, opening, &batch, drops);
    check_window(worker, &batch);
    drop_refused(worker, burst, opening, &batch, drops);
    decrypt(worker, &batch);
    accept_window(worker, &batch);
    for (unsigned i = 0; i < batch.count; i++) {
        struct unwrapping *packet = &batch.packet[i];

        if (likely(packet->reason == ESP_OPEN_REASONS && !packet->chained))
            packet->reason = read_trailer(worker, &batch.crypto[i], packet);
        if (likely(packet->reason == ESP_OPEN_REASONS)) {
            sa_use(packet->sa, worker->index)->last_used = clock;
            opening->sequence[packet->index] = batch.crypto[i].sequence;
            if (unlikely(packet->sa->flags & SA_ANY_SOURCE))
                note_source(packet);
            packet->reason = unwrap(worker, burst, packet->index, packet, opening);
        }
    }
    drop_refused(worker, burst, opening, &batch, drops);
}

/* --- usual packets --- */

/* What is left of them, at the places they have in the burst. */
struct usual {
    unsigned count;
    uint8_t index[BURST_MAX];
    struct esp_packet crypto[BURST_MAX];
};

/* In what follows `one` is the association of all of them, or NULL. */
#define INLINE static inline __attribute__((always_inline))

INLINE struct ipsec_sa *sa_of(struct ipsec_sa *one, const struct esp_opening *opening, unsigned i) {
    return one ? one : opening->sa[i];
}

static __rte_cold __rte_noinline void drop_usual(struct worker *worker, struct burst *burst,
                                                 unsigned i, unsigned at,
                                                 const struct drop_group *drops, unsigned reason) {
    ipsec_audit_esp(worker, drops, reason, burst->packets[i], at);
    burst_drop(worker, burst, i, drops, reason);
}

/* Those that the window lets through are left, ready to be decrypted. All of one association are
 * the first ones of the burst. */
INLINE void check_usual(struct worker *worker, struct burst *burst, struct ipsec_sa *one,
                        struct esp_shape shape, const struct esp_opening *opening,
                        const struct drop_group *drops, struct usual *usual) {
    bool locked = one && lock(one);
    unsigned kept = 0;

    for (unsigned n = 0; n < usual->count; n++) {
        const unsigned i = one ? n : usual->index[n];
        struct ipsec_sa *sa = sa_of(one, opening, i);
        const struct rte_mbuf *mbuf = burst->packets[i];
        enum esp_replay_result result;
        uint64_t sequence;
        uint8_t *esp;

        if (!one) {
            shape = esp_shape_of(sa);
            locked = lock(sa);
        }
        esp = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, shape.at);
        sequence = esp_replay_sequence(&sa->replay, rte_be_to_cpu_32(load32(esp + 4)));
        result = esp_replay_check(&sa->replay, sequence);
        if (!one && likely(locked))
            unlock(sa);
        if (unlikely(!locked || result != ESP_REPLAY_NEW)) {
            drop_usual(worker, burst, i, shape.at, drops,
                       locked ? refuse(worker, sa, result) : (unsigned)ESP_OPEN_BUSY);
            continue;
        }
        usual->crypto[kept] = (struct esp_packet){.key = sa->key,
                                                  .esp = esp,
                                                  .length = mbuf->data_len - shape.around,
                                                  .sequence = sequence};
        usual->index[kept++] = (uint8_t)i;
    }
    if (one && likely(locked))
        unlock(one);
    usual->count = kept;
}

/* ESP_OPEN_REASONS: the number counts. */
INLINE unsigned accept_one(struct worker *worker, struct ipsec_sa *sa, bool locked,
                           const struct esp_packet *crypto) {
    enum esp_replay_result result;

    if (unlikely(crypto->failed)) {
        sa->tallies[worker->index].failed++;
        return ESP_OPEN_INTEGRITY;
    }
    if (unlikely(!locked))
        return ESP_OPEN_BUSY;
    result = esp_replay_accept(&sa->replay, crypto->sequence);
    return likely(result == ESP_REPLAY_NEW) ? (unsigned)ESP_OPEN_REASONS
                                            : refuse(worker, sa, result);
}

/* Those whose check value is right are left. */
INLINE void accept_usual(struct worker *worker, struct burst *burst, struct ipsec_sa *one,
                         const struct esp_opening *opening, const struct drop_group *drops,
                         struct usual *usual) {
    bool locked = one && lock(one);
    unsigned kept = 0;

    for (unsigned n = 0; n < usual->count; n++) {
        const unsigned i = usual->index[n];
        struct ipsec_sa *sa = sa_of(one, opening, i);
        unsigned reason;

        if (!one)
            locked = lock(sa);
        reason = accept_one(worker, sa, locked, &usual->crypto[n]);
        if (!one && likely(locked))
            unlock(sa);
        if (unlikely(reason != ESP_OPEN_REASONS)) {
            drop_usual(worker, burst, i, esp_shape_of(sa).at, drops, reason);
            continue;
        }
        if (unlikely(kept != n)) {
            usual->crypto[kept] = usual->crypto[n];
            usual->index[kept] = (uint8_t)i;
        }
        kept++;
    }
    if (one && likely(locked))
        unlock(one);
    usual->count = kept;
}

/* 1, 2, 3, ... for so many octets, at most four, before the trailer. */
static inline bool padding_is_right(const uint8_t *trailer, unsigned pad) {
    const uint64_t before = load32(trailer - 4);

    return before >> (4 - pad) * 8 == (UINT64_C(0x04030201) & ((UINT64_C(1) << pad * 8) - 1));
}

/* Little padding, a packet of IPv4 inside, no congestion outside: the frame is cut to it. Returns
 * its length; 0 for all others, to which nothing is done. */
static inline unsigned cut_usual(struct rte_mbuf *mbuf, const struct esp_packet *crypto,
                                 struct esp_shape shape) {
    enum { PADDING = 4 };
    const uint16_t type = RTE_BE16(RTE_ETHER_TYPE_IPV4);
    const uint8_t *payload = crypto->esp + (shape.payload - shape.at);
    const uint8_t *trailer = payload + crypto->length - ESP_TRAILER;
    const uint8_t *frame = rte_pktmbuf_mtod(mbuf, const uint8_t *);
    const unsigned pad = trailer[0], front = shape.payload - ETHER_HEADER;
    unsigned length = crypto->length - ESP_TRAILER - pad;

    if (unlikely(trailer[1] != IPPROTO_IPIP || pad > PADDING ||
                 crypto->length < IPV4_HEADER + ESP_TRAILER + pad ||
                 !padding_is_right(trailer, pad) || frame[ETHER_HEADER + 1] & ECN_BITS))
        return 0;
    mbuf->data_off = (uint16_t)(mbuf->data_off + front);
    mbuf->pkt_len = mbuf->data_len = (uint16_t)(ETHER_HEADER + length);
    memcpy(rte_pktmbuf_mtod_offset(mbuf, uint8_t *, ETHER_HEADER - 2), &type, sizeof(type));
    return length;
}

/* The others. Their length is counted here. False: it ends. */
static __rte_cold __rte_noinline bool unwrap_unusual(struct worker *worker, struct burst *burst,
                                                     unsigned i, struct ipsec_sa *sa,
                                                     const struct esp_packet *crypto,
                                                     struct esp_opening *opening,
                                                     const struct drop_group *drops) {
    struct unwrapping packet = {
        .mbuf = burst->packets[i], .sa = sa, .at = esp_shape_of(sa).at, .index = (uint8_t)i};

    packet.reason = read_trailer(worker, crypto, &packet);
    if (packet.reason == ESP_OPEN_REASONS)
        packet.reason = unwrap(worker, burst, i, &packet, opening);
    if (packet.reason != ESP_OPEN_REASONS)
        drop_usual(worker, burst, i, packet.at, drops, packet.reason);
    return packet.reason == ESP_OPEN_REASONS;
}

/* In numbers of packets and octets. */
struct opened {
    uint64_t packets, bytes;
};

static inline void count_opened(struct worker *worker, struct ipsec_sa *sa, struct opened opened) {
    struct sa_use *use = sa_use(sa, worker->index);

    use->packets += opened.packets;
    use->bytes += opened.bytes;
    use->last_used = atomic_load_explicit(&ipsec_clock, memory_order_relaxed);
}

/* Cut to what was inside, which is looked at in turn. Returns its length; 0: it was not usual, is
 * counted, and may have ended. */
INLINE unsigned unwrap_usual(struct worker *worker, struct burst *burst, unsigned i,
                             struct ipsec_sa *sa, struct esp_shape shape,
                             const struct esp_packet *crypto, struct esp_opening *opening,
                             const struct drop_group *drops) {
    unsigned length = 0;

    opening->mask |= UINT64_C(1) << i;
    opening->sa[i] = sa;
    opening->sequence[i] = crypto->sequence;
    if (likely(atomic_load_explicit(&sa->interface, memory_order_relaxed) == 0))
        length = cut_usual(burst->packets[i], crypto, shape);
    if (likely(length > 0))
        note_inner(
            parse_inner(worker, burst, i, false, packet_meta(burst->packets[i])->in_interface),
            &sa->tallies[worker->index], opening, i, false);
    else if (!unwrap_unusual(worker, burst, i, sa, crypto, opening, drops))
        opening->mask &= ~(UINT64_C(1) << i);
    return length;
}

INLINE void open_usual(struct worker *worker, struct burst *burst, struct ipsec_sa *one,
                       struct usual *usual, struct esp_opening *opening,
                       const struct drop_group *drops) {
    const struct esp_shape of_one = one ? esp_shape_of(one) : (struct esp_shape){0};
    struct opened all = {0};

    check_usual(worker, burst, one, of_one, opening, drops, usual);
    esp_decrypt(ipsec_workers[worker->index].engine, usual->crypto, usual->count);
    accept_usual(worker, burst, one, opening, drops, usual);
    for (unsigned n = 0; n < usual->count; n++) {
        const unsigned i = usual->index[n];
        struct ipsec_sa *sa = sa_of(one, opening, i);
        const unsigned length = unwrap_usual(worker, burst, i, sa, one ? of_one : esp_shape_of(sa),
                                             &usual->crypto[n], opening, drops);

        all.packets += length > 0;
        all.bytes += length;
        if (!one)
            count_opened(worker, sa, (struct opened){length > 0, length});
    }
    if (one && usual->count > 0)
        count_opened(worker, one, all);
}

void esp_open_usual(struct worker *worker, struct burst *burst, uint64_t mask,
                    struct esp_opening *opening, const struct drop_group *drops) {
    struct usual usual;
    unsigned i;

    usual.count = 0;
    BURST_FOREACH (i, mask)
        usual.index[usual.count++] = (uint8_t)i;
    open_usual(worker, burst, NULL, &usual, opening, drops);
}

void esp_open_run(struct worker *worker, struct burst *burst, unsigned packets, struct ipsec_sa *sa,
                  struct esp_opening *opening, const struct drop_group *drops) {
    struct usual usual;

    usual.count = packets;
    open_usual(worker, burst, sa, &usual, opening, drops);
}
