/* Into ESP: RFC 4303 section 3.3, RFC 3948 section 2, RFC 4301 section 5.1.2 and RFC 6040. */
#include <errno.h>
#include <netinet/in.h>
#include <rte_mbuf_dyn.h>

#include "ipsec/esp_packet.h"
#include "l3/fragment.h"
#include "l3/header.h"
#include "l3/icmp.h"
#include "l3/next_hop.h"

enum { IPV4_DF = 0x4000 };

uint8_t esp_padding[255];
uint64_t esp_sealed_flag;

int esp_packet_init(void) {
    static const struct rte_mbuf_dynflag flag = {.name = "dpdk_router_esp_sealed"};
    int bit = rte_mbuf_dynflag_register(&flag);

    if (bit < 0)
        return -ENOSPC;
    esp_sealed_flag = UINT64_C(1) << bit;
    ipv4_fragments_keep |= esp_sealed_flag;
    for (unsigned i = 0; i < sizeof(esp_padding); i++)
        esp_padding[i] = (uint8_t)(i + 1);
    return 0;
}

void esp_gather(const struct rte_mbuf *mbuf, unsigned from, unsigned length, uint8_t *out) {
    const void *bytes = rte_pktmbuf_read(mbuf, from, length, out);

    if (bytes != out)
        memcpy(out, bytes, length);
}

void esp_scatter(struct rte_mbuf *mbuf, unsigned from, const uint8_t *bytes) {
    for (struct rte_mbuf *segment = mbuf; segment; segment = segment->next) {
        if (from < segment->data_len) {
            unsigned here = segment->data_len - from;

            memcpy(rte_pktmbuf_mtod_offset(segment, uint8_t *, from), bytes, here);
            bytes += here;
            from = 0;
        } else {
            from -= segment->data_len;
        }
    }
}

/* A packet and what is added to it. */
struct wrapping {
    unsigned payload; /* where it begins, from the start of the frame as it was */
    unsigned length;  /* of the payload */
    unsigned head;    /* UDP header, ESP header and initialization vector; outer IP header */
    unsigned pad, tail;
    uint8_t next_header;
    uint8_t traffic_class;
    bool df;
    bool chained;
};

/* --- what is added --- */

static void look_at_inner(struct rte_mbuf *mbuf, const struct ipsec_sa *sa, struct wrapping *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    uint8_t *packet = packet_l3(mbuf, uint8_t *);

    out->payload = meta->l3_offset;
    if (meta->flags & PACKET_IPV6) {
        out->traffic_class = (uint8_t)(rte_be_to_cpu_16(load16(packet)) >> 4);
        out->next_header = IPPROTO_IPV6;
        out->df = sa->df != IPSEC_DF_CLEAR;
        packet[7] = (uint8_t)(packet[7] - !(meta->flags & PACKET_OF_OURS));
    } else {
        out->traffic_class = packet[1];
        out->next_header = IPPROTO_IPIP;
        out->df = sa->df == IPSEC_DF_SET ||
                  (sa->df == IPSEC_DF_COPY && load16(packet + 6) & RTE_BE16(IPV4_DF));
        if (!(meta->flags & PACKET_OF_OURS))
            ipv4_decrement_ttl((struct rte_ipv4_hdr *)packet);
    }
}

/* Only what is between the association's ends, and whole (RFC 4303 section 3.3.4). */
static bool look_at_transport(struct rte_mbuf *mbuf, const struct ipsec_sa *sa,
                              struct wrapping *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    bool ipv6 = meta->flags & PACKET_IPV6;

    if (ipv6 != (bool)(sa->flags & SA_IPV6) || meta->flags & PACKET_FRAGMENT ||
        (ipv6 && meta->l4_offset != meta->l3_offset + IPV6_HEADER))
        return false;
    if (ipv6 ? memcmp(packet + 8, sa->source, 16) != 0 ||
                   memcmp(packet + 24, sa->destination6, 16) != 0
             : load32(packet + 12) != load32(sa->source) ||
                   rte_be_to_cpu_32(load32(packet + 16)) != sa->destination)
        return false;
    out->payload = meta->l4_offset;
    out->next_header = meta->l4_protocol;
    return true;
}

/* Room before and behind the payload. */
static bool make_room(struct worker *worker, struct rte_mbuf *mbuf, struct wrapping *wrapping) {
    unsigned header = wrapping->payload - packet_meta(mbuf)->l3_offset; /* transport mode: IP's */
    unsigned front = wrapping->head + header + ETHER_HEADER;
    struct rte_mbuf *last = rte_pktmbuf_lastseg(mbuf);
    int more = (int)front - (int)wrapping->payload;

    if (more > (int)rte_pktmbuf_headroom(mbuf))
        return false;
    wrapping->chained = mbuf->nb_segs > 1;
    if (unlikely(!RTE_MBUF_DIRECT(last) || rte_pktmbuf_tailroom(last) < wrapping->tail)) {
        struct rte_mbuf *added = rte_pktmbuf_alloc(worker->pool);

        if (!added)
            return false;
        last->next = added;
        mbuf->nb_segs++;
        last = added;
        wrapping->chained = true;
    }
    if (mbuf != last)
        last->data_len = (uint16_t)(last->data_len + wrapping->tail);
    else
        mbuf->data_len = (uint16_t)(mbuf->data_len + wrapping->tail);
    mbuf->data_off = (uint16_t)(mbuf->data_off - more);
    mbuf->data_len = (uint16_t)(mbuf->data_len + more);
    mbuf->pkt_len += (unsigned)more + wrapping->tail;
    return true;
}

static inline void write_ipv4(uint8_t *ip, const struct ipsec_sa *sa, uint8_t traffic_class,
                              uint16_t df, uint64_t sequence, unsigned length) {
    uint16_t total = rte_cpu_to_be_16((uint16_t)length), id = rte_cpu_to_be_16((uint16_t)sequence);
    uint32_t sum = load16(sa->header + 10), word;

    sum += (uint32_t)traffic_class << 8; /* as it is loaded, the second octet is high */
    sum += (uint32_t)total + id + df;
    sum = (sum & 0xffff) + (sum >> 16);
    sum += sum >> 16;
    word = (uint32_t)RTE_IPV4_VHL_DEF | (uint32_t)traffic_class << 8 | (uint32_t)total << 16;
    memcpy(ip, &word, sizeof(word));
    word = (uint32_t)id | (uint32_t)df << 16;
    memcpy(ip + 4, &word, sizeof(word));
    word = load16(sa->header + 8) | (uint32_t)(uint16_t)~sum << 16;
    memcpy(ip + 8, &word, sizeof(word));
    memcpy(ip + 12, sa->header + 12, 8);
}

static void write_ipv6(uint8_t *ip, const struct ipsec_sa *sa, const struct wrapping *wrapping,
                       unsigned length) {
    uint16_t payload = rte_cpu_to_be_16((uint16_t)(length - IPV6_HEADER));
    uint16_t first = rte_cpu_to_be_16((uint16_t)(0x6000 | wrapping->traffic_class << 4));

    memcpy(ip, sa->header, IPV6_HEADER);
    memcpy(ip, &first, sizeof(first));
    memcpy(ip + 4, &payload, sizeof(payload));
}

/* The packet's own header, which has moved to the front. */
static void change_ip(uint8_t *ip, bool ipv6, unsigned header, unsigned length, uint8_t protocol) {
    uint16_t whole = rte_cpu_to_be_16((uint16_t)(ipv6 ? length - IPV6_HEADER : length));
    struct rte_ipv4_hdr *ip4 = (struct rte_ipv4_hdr *)ip;

    if (ipv6) {
        memcpy(ip + 4, &whole, sizeof(whole));
        ip[6] = protocol;
        return;
    }
    ip4->total_length = whole;
    ip4->next_proto_id = protocol;
    ip4->hdr_checksum = 0;
    ip4->hdr_checksum = (uint16_t)~rte_raw_cksum(ip, header);
}

static void write_udp(uint8_t *udp, const struct ipsec_sa *sa, unsigned length) {
    uint16_t size = rte_cpu_to_be_16((uint16_t)length);
    uint32_t ports = load32(sa->header + sa->outer - UDP_HEADER), rest = size;

    memcpy(udp, &ports, sizeof(ports));
    memcpy(udp + 4, &rest, sizeof(rest)); /* no checksum (RFC 3948 section 2.1) */
}

static void write_esp(uint8_t *esp, const struct ipsec_sa *sa, uint64_t sequence) {
    uint64_t header = sa->spi | (uint64_t)rte_cpu_to_be_32((uint32_t)sequence) << 32;

    memcpy(esp, &header, sizeof(header));
}

static void write_trailer(uint8_t *at, const struct wrapping *wrapping) {
    memcpy(at, esp_padding, wrapping->pad);
    at[wrapping->pad] = (uint8_t)wrapping->pad;
    at[wrapping->pad + 1] = wrapping->next_header;
}

/* In IPv6 a checksum has to be there (RFC 8200 section 8.1). */
static void sum_udp6(struct rte_mbuf *mbuf, unsigned udp) {
    const uint8_t *ip = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, ETHER_HEADER);
    uint32_t sum = rte_raw_cksum(ip + 8, 32);
    uint16_t checksum;

    sum += RTE_BE16(IPPROTO_UDP) + rte_cpu_to_be_16((uint16_t)(mbuf->pkt_len - udp));
    checksum = (uint16_t)~icmp_sum_from(mbuf, udp, sum);
    if (checksum == 0)
        checksum = UINT16_MAX;
    memcpy(rte_pktmbuf_mtod_offset(mbuf, uint8_t *, udp + 6), &checksum, sizeof(checksum));
}

/* --- one packet --- */

static bool measure(struct rte_mbuf *mbuf, const struct ipsec_sa *sa, struct wrapping *out) {
    if (likely(!(sa->flags & SA_TRANSPORT)))
        look_at_inner(mbuf, sa, out);
    else if (!look_at_transport(mbuf, sa, out))
        return false;
    out->length = mbuf->pkt_len - out->payload;
    out->head = sa->outer + ESP_HEADER + sa->sizes.iv;
    out->pad = (unsigned)(-(int)(out->length + ESP_TRAILER)) & (sa->sizes.align - 1u);
    out->tail = out->pad + ESP_TRAILER + sa->sizes.icv;
    return true;
}

static enum esp_seal_reason wrap(struct worker *worker, struct esp_sealing *packet,
                                 uint64_t sequence, struct wrapping *wrapping,
                                 struct esp_packet *crypto) {
    struct rte_mbuf *mbuf = packet->mbuf;
    struct ipsec_sa *sa = packet->sa;
    struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *old_ip;
    unsigned header, udp, length;
    bool ipv6 = sa->flags & SA_IPV6;
    uint16_t type = ipv6 ? RTE_BE16(RTE_ETHER_TYPE_IPV6) : RTE_BE16(RTE_ETHER_TYPE_IPV4);
    uint8_t *frame, *esp;

    if (unlikely(sequence > sa->sequence_last))
        return ESP_SEAL_SEQUENCE;
    if (unlikely(!measure(mbuf, sa, wrapping)))
        return ESP_SEAL_MODE;
    old_ip = packet_l3(mbuf, const uint8_t *);
    header = wrapping->payload - meta->l3_offset; /* 0 in tunnel mode */
    if (unlikely(!make_room(worker, mbuf, wrapping)))
        return ESP_SEAL_NO_ROOM;
    udp = sa->flags & SA_UDP ? UDP_HEADER : 0;
    frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
    esp = frame + ETHER_HEADER + header + sa->outer;
    length = mbuf->pkt_len - ETHER_HEADER;
    if (header > 0) {
        memmove(frame + ETHER_HEADER, old_ip, header);
        change_ip(frame + ETHER_HEADER, ipv6, header, length, udp ? IPPROTO_UDP : IPPROTO_ESP);
    } else if (ipv6) {
        write_ipv6(frame + ETHER_HEADER, sa, wrapping, length);
    } else {
        write_ipv4(frame + ETHER_HEADER, sa, wrapping->traffic_class,
                   wrapping->df ? RTE_BE16(IPV4_DF) : 0, sequence, length);
    }
    memcpy(frame + ETHER_HEADER - 2, &type, sizeof(type));
    if (udp)
        write_udp(esp - UDP_HEADER, sa, (unsigned)(frame + mbuf->pkt_len - (esp - UDP_HEADER)));
    write_esp(esp, sa, sequence);

    *crypto = (struct esp_packet){
        .key = sa->key,
        .esp = esp,
        .length = wrapping->length + wrapping->pad + ESP_TRAILER,
        .sequence = sequence,
    };
    if (likely(!wrapping->chained))
        write_trailer(esp + ESP_HEADER + sa->sizes.iv + wrapping->length, wrapping);
    meta->l3_offset = ETHER_HEADER;
    meta->l4_protocol = udp ? IPPROTO_UDP : IPPROTO_ESP;
    meta->l4_offset = (uint16_t)(esp - udp - frame);
    if (header == 0)
        meta->flags = ipv6 ? PACKET_IPV6 : 0;
    meta->next_hop = packet->next_hop;
    meta->out_interface = next_hop_get(packet->next_hop)->out_interface;
    meta->session = 0;
    mbuf->ol_flags |= esp_sealed_flag;
    return ESP_SEAL_REASONS;
}

/* Through a buffer of the worker's. */
static void encrypt_chained(struct worker *worker, struct rte_mbuf *mbuf,
                            const struct wrapping *wrapping, struct esp_packet *crypto) {
    struct ipsec_worker *own = &ipsec_workers[worker->index];
    unsigned at = (unsigned)(crypto->esp - rte_pktmbuf_mtod(mbuf, uint8_t *));
    unsigned front = esp_key_sizes(crypto->key).iv + ESP_HEADER;

    esp_gather(mbuf, at, mbuf->pkt_len - at, own->scratch);
    write_trailer(own->scratch + front + wrapping->length, wrapping);
    crypto->esp = own->scratch;
    esp_encrypt(own->engine, crypto, 1);
    esp_scatter(mbuf, at, own->scratch);
}

/* --- the usual packet --- */

/* What is the same for all packets of a run. */
struct run {
    struct ipsec_sa *sa;
    const struct esp_key *key;
    unsigned head, align, tail; /* tail: check value and trailer */
    unsigned esp;               /* where its header is, from the outer IP header on */
    uint32_t next_hop;
    uint16_t out_interface;
    uint8_t protocol; /* behind the outer IP header */
};

/* See esp_seal_is_usual(). */
static inline void wrap_usual(const struct run *run, struct rte_mbuf *mbuf, uint64_t sequence,
                              struct esp_packet *crypto) {
    const struct ipsec_sa *sa = run->sa;
    struct packet_meta *meta = packet_meta(mbuf);
    uint8_t *inner = packet_l3(mbuf, uint8_t *), *frame = inner - run->head - ETHER_HEADER;
    unsigned length = mbuf->pkt_len - meta->l3_offset;
    unsigned pad = -(length + ESP_TRAILER) & (run->align - 1);
    unsigned behind = run->tail + pad, l3_offset = meta->l3_offset;
    const uint16_t type = RTE_BE16(RTE_ETHER_TYPE_IPV4);
    uint16_t df = load16(inner + 6) & RTE_BE16(IPV4_DF);

    if (unlikely(sa->df != IPSEC_DF_COPY))
        df = sa->df == IPSEC_DF_SET ? RTE_BE16(IPV4_DF) : 0;
    ipv4_decrement_ttl((struct rte_ipv4_hdr *)inner);
    mbuf->data_off = (uint16_t)(mbuf->data_off + l3_offset - run->head - ETHER_HEADER);
    mbuf->pkt_len = ETHER_HEADER + run->head + length + behind;
    mbuf->data_len = (uint16_t)mbuf->pkt_len;
    mbuf->ol_flags |= esp_sealed_flag;
    memcpy(frame + ETHER_HEADER - 2, &type, sizeof(type));
    write_ipv4(frame + ETHER_HEADER, sa, inner[1], df, sequence, run->head + length + behind);
    if (run->protocol == IPPROTO_UDP)
        write_udp(frame + ETHER_HEADER + IPV4_HEADER, sa,
                  run->head + length + behind - IPV4_HEADER);
    write_esp(frame + ETHER_HEADER + run->esp, sa, sequence);
    /* What is written too much is room for the check value, or behind all of it. */
    if (likely(pad + ESP_TRAILER <= ESP_PADDED_AT_ONCE)) {
        _mm_storeu_si128((__m128i *)(inner + length), _mm_loadu_si128((const void *)esp_padding));
        inner[length + pad] = (uint8_t)pad;
        inner[length + pad + 1] = IPPROTO_IPIP;
    } else {
        write_trailer(inner + length, &(struct wrapping){.pad = pad, .next_header = IPPROTO_IPIP});
    }
    *crypto = (struct esp_packet){
        .key = run->key,
        .esp = frame + ETHER_HEADER + run->esp,
        .length = length + pad + ESP_TRAILER,
        .sequence = sequence,
    };
    meta->next_hop = run->next_hop;
    meta->out_interface = run->out_interface;
    meta->flags = 0;
    meta->l3_offset = ETHER_HEADER;
    meta->l4_protocol = run->protocol;
    meta->l4_offset = ETHER_HEADER + IPV4_HEADER;
    meta->session = 0;
}

/* --- the burst --- */

static void begin_run(struct run *run, struct ipsec_sa *sa, uint32_t next_hop) {
    *run = (struct run){
        .sa = sa,
        .key = sa->key,
        .head = sa->outer + ESP_HEADER + sa->sizes.iv,
        .align = sa->sizes.align,
        .tail = ESP_TRAILER + sa->sizes.icv,
        .esp = sa->outer,
        .protocol = sa->flags & SA_UDP ? IPPROTO_UDP : IPPROTO_ESP,
        .next_hop = next_hop,
        .out_interface = next_hop_get(next_hop)->out_interface,
    };
}

static void count_packets(struct worker *worker, struct ipsec_sa *sa, unsigned packets,
                          uint64_t bytes) {
    struct sa_use *use = sa_use(sa, worker->index);

    use->packets += packets;
    use->bytes += bytes;
    use->last_used = atomic_load_explicit(&ipsec_clock, memory_order_relaxed);
}

/* The number before the first of `packets`. Nothing is taken any more when they are used up, so
 * that the counter itself never comes to its end. */
static uint64_t take_numbers(struct ipsec_sa *sa, unsigned packets) {
    const uint64_t last = atomic_load_explicit(&sa->sequence, memory_order_relaxed);

    if (unlikely(last >= sa->sequence_last))
        return sa->sequence_last;
    if (unlikely(ipsec_shared))
        return atomic_fetch_add_explicit(&sa->sequence, packets, memory_order_relaxed);
    /* A worker alone needs no locked instruction, which would wait for all memory before it. */
    atomic_store_explicit(&sa->sequence, last + packets, memory_order_relaxed);
    return last;
}

static inline void wrap_run(struct worker *worker, struct rte_mbuf *const *mbufs, unsigned count,
                            struct ipsec_sa *sa, uint32_t hop_id, struct esp_packet *crypto) {
    uint64_t bytes = 0, sequence = take_numbers(sa, count);
    struct run run;

    begin_run(&run, sa, hop_id);
    for (unsigned i = 0; i < count; i++) {
        bytes += mbufs[i]->pkt_len - packet_meta(mbufs[i])->l3_offset;
        wrap_usual(&run, mbufs[i], ++sequence, &crypto[i]);
    }
    count_packets(worker, sa, count, bytes);
}

void esp_seal_run(struct worker *worker, struct rte_mbuf *const *mbufs, unsigned count,
                  struct ipsec_sa *sa, uint32_t hop_id) {
    struct esp_packet crypto[ESP_SEAL_MAX];

    wrap_run(worker, mbufs, count, sa, hop_id, crypto);
    esp_encrypt(ipsec_workers[worker->index].engine, crypto, count);
}

void esp_seal_usual(struct worker *worker, struct rte_mbuf *const *mbufs,
                    struct ipsec_sa *const *sas, const uint32_t *hop_ids, unsigned count) {
    struct esp_packet crypto[ESP_SEAL_MAX];
    unsigned first, end;

    for (first = 0; first < count; first = end) {
        for (end = first + 1; end < count && sas[end] == sas[first];)
            end++;
        esp_key_prefetch(sas[first]->key); /* needed when all are wrapped */
        wrap_run(worker, &mbufs[first], end - first, sas[first], hop_ids[first], &crypto[first]);
    }
    esp_encrypt(ipsec_workers[worker->index].engine, crypto, count);
}

/* The packets from `first` on that have its association, up to `end`. Returns where they end. */
static unsigned seal_run(struct worker *worker, struct esp_sealing *packets, unsigned first,
                         unsigned end, struct esp_packet *crypto, unsigned *ready) {
    struct ipsec_sa *sa = packets[first].sa;
    unsigned last = first + 1, sealed = 0, i;
    uint64_t sequence, bytes = 0;
    struct run run;
    bool usual;

    while (last < end && packets[last].sa == sa)
        last++;
    esp_key_prefetch(sa->key); /* needed when all are wrapped */
    begin_run(&run, sa, packets[first].next_hop);
    sequence = take_numbers(sa, last - first);
    usual =
        !(sa->flags & (SA_IPV6 | SA_TRANSPORT)) && sequence < sa->sequence_last - (last - first);
    for (i = first; i < last; i++) {
        struct esp_sealing *packet = &packets[i];
        struct wrapping wrapping = {0};

        sequence++;
        if (likely(usual && esp_seal_is_usual(sa, packet->mbuf))) {
            bytes += packet->mbuf->pkt_len - packet_meta(packet->mbuf)->l3_offset;
            wrap_usual(&run, packet->mbuf, sequence, &crypto[*ready]);
            packet->reason = ESP_SEAL_REASONS;
            sealed++;
            (*ready)++;
            continue;
        }
        packet->reason = wrap(worker, packet, sequence, &wrapping, &crypto[*ready]);
        if (unlikely(packet->reason != ESP_SEAL_REASONS))
            continue;
        bytes += wrapping.length;
        sealed++;
        if (unlikely(wrapping.chained))
            encrypt_chained(worker, packet->mbuf, &wrapping, &crypto[*ready]);
        else
            (*ready)++;
    }
    count_packets(worker, sa, sealed, bytes);
    return last;
}

void esp_seal(struct worker *worker, struct esp_sealing *packets, unsigned packet_count) {
    struct esp_packet crypto[ESP_SEAL_MAX];
    unsigned ready = 0;

    for (unsigned i = 0; i < packet_count;)
        i = seal_run(worker, packets, i, packet_count, crypto, &ready);
    esp_encrypt(ipsec_workers[worker->index].engine, crypto, ready);
    for (unsigned i = 0; i < packet_count; i++) {
        const struct ipsec_sa *sa = packets[i].sa;

        if (unlikely((sa->flags & (SA_UDP | SA_IPV6)) == (SA_UDP | SA_IPV6) &&
                     packets[i].reason == ESP_SEAL_REASONS))
            sum_udp6(packets[i].mbuf, packet_meta(packets[i].mbuf)->l4_offset);
    }
}
