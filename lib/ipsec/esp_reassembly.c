/*
 * Reassembly (RFC 791 section 3.2, RFC 815, RFC 8200 section 4.5, RFC 5722). The fragments of a
 * datagram stand in a list by their offsets, so that one that overlaps another is seen at once, and
 * then the datagram ends: nobody sends such fragments but to fool somebody. One that comes twice is
 * the network's doing, and does no harm.
 *
 * DPDK's rte_ip_frag is not used here, though the router fragments with it: to it a fragment that
 * comes twice is an error that ends the datagram, its key has neither the protocol (RFC 791) nor
 * the VRF, it takes eight fragments, and it does not say why it drops.
 */
#include "ipsec/esp_reassembly.h"

#include <netinet/in.h>

#include "core/huge_memory.h"
#include "core/mbuf_pool.h"
#include "ipsec/esp_path.h"
#include "l3/header.h"

enum {
    ECN_BITS = 3,
    ECN_CE = 3,
    IPV6_FRAGMENT_HEADER = 8,
    IKE_MARKER = 4, /* four zero octets: RFC 3948 section 2.2 */
    UDP_PORTS = 4,  /* bytes */
    UDP_PORT = 4500,
    SWEEP_AT_ONCE = 16,
    POOL_PART = 16, /* one in so many buffers may be held, by all workers together */
};

enum datagram_state {
    DATAGRAM_WAITS,
    DATAGRAM_PASSES,  /* no ESP: the rest goes on as it comes */
    DATAGRAM_REFUSED, /* the rest is dropped as it comes: RFC 5722 section 4 */
};

struct piece {
    struct rte_mbuf *mbuf;
    uint16_t from, to; /* of the datagram's payload, bytes */
    uint16_t at;       /* of the fragment's payload, from the start of the frame */
};

struct datagram {
    uint64_t since; /* ipsec_clock */
    uint32_t have;  /* bytes of the payload */
    uint32_t end;   /* all bytes of it; 0: the last fragment has not come */
    uint8_t state, count;
    uint8_t ecn;                        /* bit n: there was a fragment with the code point n */
    struct piece pieces[ESP_FRAGMENTS]; /* by their offsets */
};

struct esp_reassembly {
    uint64_t identity[ESP_DATAGRAMS]; /* 0: the place is free */
    uint64_t rank[ESP_DATAGRAMS];     /* in the order they came, behind those that do not wait */
    uint64_t next_rank;
    unsigned used, held, sweep;
    struct datagram datagrams[ESP_DATAGRAMS];
};

#define RANK_WAITS (UINT64_C(1) << 63)

static _Atomic unsigned held_max = ESP_FRAGMENTS_HELD;

struct esp_reassembly *esp_reassembly_create(void) {
    return huge_memory_map(sizeof(struct esp_reassembly));
}

void esp_reassembly_set_limit(void) {
    uint32_t total, in_use;

    mbuf_pool_usage(&total, &in_use);
    atomic_store_explicit(
        &held_max, RTE_MIN(total / POOL_PART / workers_count(), (uint32_t)ESP_FRAGMENTS_HELD),
        memory_order_relaxed);
}

/* --- what a fragment says --- */

struct fragment {
    uint64_t identity;
    unsigned from, to; /* of the datagram's payload */
    unsigned at;       /* of its payload, from the start of the frame */
    uint8_t protocol, ecn;
    bool more; /* it is not the last */
};

/* Where the fragment header is that the transport header stands behind, from the IP header on, and
 * where it is named; 0: it is none of those that `parse` has walked, or not the last of them. */
static unsigned fragment_header6(const uint8_t *packet, unsigned transport, unsigned *named) {
    uint8_t next = packet[6];
    unsigned at = IPV6_HEADER;

    *named = 6;
    while (at < transport && next != IPPROTO_FRAGMENT) {
        unsigned length =
            next == IPPROTO_AH ? (packet[at + 1] + 2u) * 4 : (packet[at + 1] + 1u) * 8;

        *named = at;
        next = packet[at];
        at += length;
    }
    return at + IPV6_FRAGMENT_HEADER == transport ? at : 0;
}

static bool read4(struct rte_mbuf *mbuf, struct esp_path_key *key, struct fragment *out,
                  uint32_t *id) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    uint16_t field = rte_be_to_cpu_16(load16(packet + 6));

    memcpy(key->source, packet + 12, 4);
    memcpy(key->destination, packet + 16, 4);
    *id = load16(packet + 4);
    out->from = (field & RTE_IPV4_HDR_OFFSET_MASK) * 8u;
    out->more = field & RTE_IPV4_HDR_MF_FLAG;
    out->ecn = packet[1] & ECN_BITS;
    out->protocol = meta->l4_protocol;
    return true;
}

static bool read6(struct rte_mbuf *mbuf, struct esp_path_key *key, struct fragment *out,
                  uint32_t *id) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    unsigned named, at = fragment_header6(packet, meta->l4_offset - meta->l3_offset, &named);
    uint16_t field;

    if (at == 0)
        return false;
    field = rte_be_to_cpu_16(load16(packet + at + 2));
    memcpy(key->source, packet + 8, 16);
    memcpy(key->destination, packet + 24, 16);
    *id = load32(packet + at + 4);
    out->from = field & 0xfff8;
    out->more = field & 1;
    out->ecn = (uint8_t)(packet[1] >> 4) & ECN_BITS;
    out->protocol = packet[at];
    return true;
}

/* False: it is nothing to be put together here. */
static bool read_fragment(struct rte_mbuf *mbuf, struct fragment *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    struct esp_path_key key = {
        .vrf = meta->vrf,
        .direction = IPSEC_IN,
        .ipv6 = (meta->flags & PACKET_IPV6) != 0,
    };
    const struct esp_path *path;
    bool udp = meta->l4_protocol == IPPROTO_UDP;
    uint32_t id;

    if (!(udp || meta->l4_protocol == IPPROTO_ESP) || meta->l4_offset > mbuf->data_len ||
        !(key.ipv6 ? read6(mbuf, &key, out, &id) : read4(mbuf, &key, out, &id)) ||
        out->protocol != meta->l4_protocol)
        return false;
    path = esp_path_find(&key);
    if (!path ||
        atomic_load_explicit(udp ? &path->in_udp : &path->plain, memory_order_relaxed) == 0)
        return false;
    out->at = meta->l4_offset;
    out->to = out->from + (mbuf->pkt_len - out->at);
    /* A number of its own for each path makes this exact, addresses and all. */
    out->identity = (uint64_t)path->serial << 33 | (uint64_t)udp << 32 | id;
    return true;
}

/* The longest payload behind headers of this length. */
static unsigned payload_max(const struct rte_mbuf *mbuf, unsigned at) {
    const struct packet_meta *meta = packet_meta((struct rte_mbuf *)(uintptr_t)mbuf);
    unsigned header = at - meta->l3_offset;

    return meta->flags & PACKET_IPV6 ? UINT16_MAX - (header - IPV6_HEADER - IPV6_FRAGMENT_HEADER)
                                     : UINT16_MAX - header;
}

/* ESP_REASSEMBLY_REASONS: it may be part of a datagram. */
static unsigned check(const struct rte_mbuf *mbuf, const struct fragment *fragment) {
    if (fragment->to == fragment->from || (fragment->more && fragment->to % 8 != 0))
        return ESP_FRAGMENT_MALFORMED;
    return fragment->to > payload_max(mbuf, fragment->at) ? (unsigned)ESP_FRAGMENT_TOO_LONG
                                                          : (unsigned)ESP_REASSEMBLY_REASONS;
}

/* The first fragment of UDP: ESP goes to the port of RFC 3948, and does not begin with zeroes. One
 * that is too short to tell is taken for ESP. */
static bool may_be_esp(const struct rte_mbuf *mbuf, const struct fragment *fragment) {
    const uint8_t *udp = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, fragment->at);
    const unsigned there = mbuf->data_len - fragment->at;

    return there >= UDP_PORTS && load16(udp + 2) == RTE_BE16(UDP_PORT) &&
           (there < UDP_HEADER + IKE_MARKER || load32(udp + UDP_HEADER) != 0);
}

/* --- the table --- */

static void let_go(struct esp_reassembly *table, const struct datagram *datagram) {
    for (unsigned i = 0; i < datagram->count; i++)
        table->held -= datagram->pieces[i].mbuf->nb_segs;
}

static void free_pieces(struct esp_reassembly *table, struct datagram *datagram) {
    let_go(table, datagram);
    for (unsigned i = 0; i < datagram->count; i++)
        rte_pktmbuf_free(datagram->pieces[i].mbuf);
    datagram->count = 0;
}

static void leave(struct esp_reassembly *table, struct datagram *datagram) {
    table->identity[datagram - table->datagrams] = 0;
    table->used--;
}

void esp_reassembly_clear(struct esp_reassembly *table) {
    for (unsigned i = 0; table && i < ESP_DATAGRAMS; i++) {
        if (table->identity[i] == 0)
            continue;
        free_pieces(table, &table->datagrams[i]);
        leave(table, &table->datagrams[i]);
    }
}

void esp_reassembly_free(struct esp_reassembly *table) {
    esp_reassembly_clear(table);
    huge_memory_unmap(table, sizeof(*table));
}

static struct datagram *find(struct esp_reassembly *table, uint64_t identity) {
    if (table->used == 0)
        return NULL;
    for (unsigned i = 0; i < ESP_DATAGRAMS; i++) {
        if (table->identity[i] == identity)
            return &table->datagrams[i];
    }
    return NULL;
}

/* All that has come of it ends under the reason, and what is still to come as well. */
static void refuse(struct worker *worker, struct datagram *datagram, const struct drop_group *drops,
                   unsigned reason) {
    struct esp_reassembly *table = ipsec_workers[worker->index].reassembly;

    worker->counters->drops[drops->base + reason] += datagram->count;
    free_pieces(table, datagram);
    datagram->state = DATAGRAM_REFUSED;
    table->rank[datagram - table->datagrams] &= ~RANK_WAITS;
}

/* The one to throw out for another: the oldest of those with at least this rank. Fragments mostly
 * come close together, so what has waited for long has lost one, or is part of a flood; to refuse
 * the new ones instead would let a flood, or some lost packets, stop all for seconds. NULL: there
 * is none but `except`. */
static struct datagram *oldest(struct esp_reassembly *table, uint64_t least,
                               const struct datagram *except) {
    struct datagram *found = NULL;
    uint64_t lowest = UINT64_MAX;

    for (unsigned i = 0; i < ESP_DATAGRAMS; i++) {
        if (table->identity[i] != 0 && table->rank[i] >= least && table->rank[i] < lowest &&
            &table->datagrams[i] != except) {
            found = &table->datagrams[i];
            lowest = table->rank[i];
        }
    }
    return found;
}

static struct datagram *enter(struct worker *worker, uint64_t identity, enum datagram_state state,
                              const struct drop_group *drops) {
    struct esp_reassembly *table = ipsec_workers[worker->index].reassembly;
    struct datagram *datagram;
    unsigned place = 0;

    if (table->used == ESP_DATAGRAMS) {
        datagram = oldest(table, 0, NULL);
        refuse(worker, datagram, drops, ESP_FRAGMENT_TABLE_FULL);
        leave(table, datagram);
    }
    while (table->identity[place] != 0)
        place++;
    datagram = &table->datagrams[place];
    table->used++;
    table->identity[place] = identity;
    table->rank[place] = ++table->next_rank | (state == DATAGRAM_WAITS ? RANK_WAITS : 0);
    datagram->since = atomic_load_explicit(&ipsec_clock, memory_order_relaxed);
    datagram->have = datagram->end = 0;
    datagram->state = (uint8_t)state;
    datagram->count = datagram->ecn = 0;
    return datagram;
}

/* Makes room for more buffers of this datagram. */
static bool has_room(struct worker *worker, const struct datagram *datagram, unsigned buffers,
                     const struct drop_group *drops) {
    struct esp_reassembly *table = ipsec_workers[worker->index].reassembly;
    const unsigned most = atomic_load_explicit(&held_max, memory_order_relaxed);

    while (table->held + buffers > most) {
        struct datagram *other = oldest(table, RANK_WAITS, datagram);

        if (!other)
            return false;
        refuse(worker, other, drops, ESP_FRAGMENT_TABLE_FULL);
        leave(table, other);
    }
    return true;
}

/* --- fragments of a datagram --- */

/* Does what it says about the end fit what the others say? */
static bool end_is_possible(const struct datagram *datagram, const struct fragment *fragment) {
    if (fragment->more)
        return datagram->end == 0 || fragment->to < datagram->end;
    return (datagram->end == 0 || datagram->end == fragment->to) &&
           (datagram->count == 0 || datagram->pieces[datagram->count - 1].to <= fragment->to);
}

/* ESP_REASSEMBLY_REASONS: the datagram has the fragment now. */
static unsigned add(struct worker *worker, struct datagram *datagram,
                    const struct fragment *fragment, struct rte_mbuf *mbuf,
                    const struct drop_group *drops) {
    struct esp_reassembly *table = ipsec_workers[worker->index].reassembly;
    unsigned place = datagram->count;
    struct piece *piece;

    while (place > 0 && datagram->pieces[place - 1].from > fragment->from)
        place--;
    piece = &datagram->pieces[place];
    if (place > 0 && piece[-1].from == fragment->from && piece[-1].to == fragment->to)
        return ESP_FRAGMENT_DUPLICATE;
    if ((place > 0 && piece[-1].to > fragment->from) ||
        (place < datagram->count && piece->from < fragment->to))
        return ESP_FRAGMENT_OVERLAP;
    if (!end_is_possible(datagram, fragment))
        return ESP_FRAGMENT_MALFORMED;
    if (datagram->count == ESP_FRAGMENTS)
        return ESP_FRAGMENT_TOO_LONG;
    if (!has_room(worker, datagram, mbuf->nb_segs, drops))
        return ESP_FRAGMENT_TABLE_FULL;
    memmove(piece + 1, piece, (datagram->count - place) * sizeof(*piece));
    *piece = (struct piece){.mbuf = mbuf,
                            .from = (uint16_t)fragment->from,
                            .to = (uint16_t)fragment->to,
                            .at = (uint16_t)fragment->at};
    datagram->count++;
    table->held += mbuf->nb_segs;
    datagram->have += fragment->to - fragment->from;
    if (!fragment->more)
        datagram->end = fragment->to;
    datagram->ecn |= (uint8_t)(1 << fragment->ecn);
    return ESP_REASSEMBLY_REASONS;
}

/* --- the whole --- */

/* Its first buffer is given back. */
static struct rte_mbuf *without_first(struct rte_mbuf *mbuf) {
    struct rte_mbuf *next = mbuf->next;

    if (next) {
        next->nb_segs = (uint16_t)(mbuf->nb_segs - 1);
        next->pkt_len = mbuf->pkt_len - mbuf->data_len;
    }
    mbuf->next = NULL;
    mbuf->nb_segs = 1;
    rte_pktmbuf_free(mbuf);
    return next;
}

/* Copies what there is room for behind the first buffer: usually all, since what did not fit the
 * narrow link is short, and a packet in one buffer is the quick case from here on. Returns what is
 * left of it. */
static struct rte_mbuf *copy_behind(struct rte_mbuf *head, struct rte_mbuf *more) {
    while (more) {
        unsigned length = RTE_MIN(rte_pktmbuf_tailroom(head), more->data_len);

        memcpy(rte_pktmbuf_mtod_offset(head, uint8_t *, head->data_len),
               rte_pktmbuf_mtod(more, const uint8_t *), length);
        head->data_len = (uint16_t)(head->data_len + length);
        head->pkt_len += length;
        if (length < more->data_len) {
            rte_pktmbuf_adj(more, (uint16_t)length);
            return more;
        }
        more = without_first(more);
    }
    return NULL;
}

static void append(struct rte_mbuf *head, struct rte_mbuf *more) {
    if (head->nb_segs == 1 && RTE_MBUF_DIRECT(head) && rte_mbuf_refcnt_read(head) == 1)
        more = copy_behind(head, more);
    while (more && more->data_len == 0) /* its headers filled the buffer */
        more = without_first(more);
    if (!more)
        return;
    rte_pktmbuf_lastseg(head)->next = more;
    head->nb_segs = (uint16_t)(head->nb_segs + more->nb_segs);
    head->pkt_len += more->pkt_len;
}

static void finish4(struct rte_mbuf *head, bool congestion) {
    const struct packet_meta *meta = packet_meta(head);
    struct rte_ipv4_hdr *ip = packet_l3(head, struct rte_ipv4_hdr *);

    ip->total_length = rte_cpu_to_be_16((uint16_t)(head->pkt_len - meta->l3_offset));
    ip->fragment_offset = 0;
    if (congestion)
        ip->type_of_service |= ECN_CE;
    ip->hdr_checksum = 0;
    ip->hdr_checksum = (uint16_t)~rte_raw_cksum(ip, (size_t)(meta->l4_offset - meta->l3_offset));
}

/* The fragment header goes: what is before it moves up. */
static void finish6(struct rte_mbuf *head, bool congestion) {
    struct packet_meta *meta = packet_meta(head);
    uint8_t *packet = packet_l3(head, uint8_t *);
    unsigned named, at = fragment_header6(packet, meta->l4_offset - meta->l3_offset, &named);
    uint8_t *frame = rte_pktmbuf_mtod(head, uint8_t *);
    uint16_t length;

    packet[named] = packet[at];
    if (congestion)
        packet[1] |= ECN_CE << 4;
    memmove(frame + IPV6_FRAGMENT_HEADER, frame, meta->l3_offset + at);
    rte_pktmbuf_adj(head, IPV6_FRAGMENT_HEADER);
    meta->l4_offset = (uint16_t)(meta->l4_offset - IPV6_FRAGMENT_HEADER);
    length = rte_cpu_to_be_16((uint16_t)(head->pkt_len - meta->l3_offset - IPV6_HEADER));
    memcpy(packet_l3(head, uint8_t *) + 4, &length, sizeof(length));
}

/* Of the first fragment it has the headers, and so the metadata. */
static struct rte_mbuf *put_together(const struct datagram *datagram) {
    struct rte_mbuf *head = datagram->pieces[0].mbuf;
    struct packet_meta *meta = packet_meta(head);
    bool congestion = datagram->ecn & 1 << ECN_CE;

    for (unsigned i = 1; i < datagram->count; i++) {
        rte_pktmbuf_adj(datagram->pieces[i].mbuf, datagram->pieces[i].at);
        append(head, datagram->pieces[i].mbuf);
    }
    meta->flags &= (uint16_t) ~(PACKET_FRAGMENT | PACKET_LATER_FRAGMENT);
    if (meta->flags & PACKET_IPV6)
        finish6(head, congestion);
    else
        finish4(head, congestion);
    return head;
}

/* All of it is there. ESP_REASSEMBLY_REASONS: it is a packet. */
static unsigned check_whole(const struct datagram *datagram) {
    const struct piece *first = &datagram->pieces[0];

    if (datagram->end > payload_max(first->mbuf, first->at))
        return ESP_FRAGMENT_TOO_LONG;
    /* RFC 3168 section 5.3: congestion that cannot be told to who does not know of it. */
    return (datagram->ecn & (1 << ECN_CE | 1)) == (1 << ECN_CE | 1)
               ? (unsigned)ESP_FRAGMENT_MALFORMED
               : (unsigned)ESP_REASSEMBLY_REASONS;
}

/* --- the burst --- */

/* One that passes is remembered until its last byte has come by. */
static void pass(struct esp_reassembly *table, struct datagram *datagram,
                 const struct fragment *fragment) {
    datagram->have += fragment->to - fragment->from;
    if (!fragment->more)
        datagram->end = fragment->to;
    if (datagram->end != 0 && datagram->have >= datagram->end)
        leave(table, datagram);
}

/* The datagram that the fragment belongs to, a new one if need be. */
static struct datagram *datagram_of(struct worker *worker, const struct fragment *fragment,
                                    const struct rte_mbuf *mbuf, const struct drop_group *drops) {
    struct esp_reassembly *table = ipsec_workers[worker->index].reassembly;
    struct datagram *datagram = find(table, fragment->identity);
    const bool first_of_udp = fragment->protocol == IPPROTO_UDP && fragment->from == 0;

    /* Some of one that passes was lost, and its number has come round. */
    if (datagram && datagram->state == DATAGRAM_PASSES && first_of_udp) {
        leave(table, datagram);
        datagram = NULL;
    }
    if (datagram)
        return datagram;
    return enter(worker, fragment->identity,
                 first_of_udp && !may_be_esp(mbuf, fragment) ? DATAGRAM_PASSES : DATAGRAM_WAITS,
                 drops);
}

/* The last of its fragments to come has the place i in the burst. */
static void end_if_whole(struct worker *worker, struct burst *burst, unsigned i,
                         struct datagram *datagram, const struct drop_group *drops) {
    struct esp_reassembly *table = ipsec_workers[worker->index].reassembly;
    unsigned reason;

    if (datagram->end == 0 || datagram->have < datagram->end)
        return;
    reason = check_whole(datagram);
    if (reason != ESP_REASSEMBLY_REASONS) {
        refuse(worker, datagram, drops, reason);
        return;
    }
    let_go(table, datagram);
    burst->packets[i] = put_together(datagram);
    burst->dropped &= ~(UINT64_C(1) << i);
    leave(table, datagram);
}

static void one_fragment(struct worker *worker, struct burst *burst, unsigned i,
                         const struct drop_group *drops) {
    struct rte_mbuf *mbuf = burst->packets[i];
    struct datagram *datagram;
    struct fragment fragment;
    unsigned reason;

    if (!read_fragment(mbuf, &fragment))
        return;
    datagram = datagram_of(worker, &fragment, mbuf, drops);
    if (datagram->state == DATAGRAM_PASSES) {
        pass(ipsec_workers[worker->index].reassembly, datagram, &fragment);
        return;
    }
    if (datagram->state == DATAGRAM_REFUSED) {
        burst_drop(worker, burst, i, drops, ESP_FRAGMENT_REFUSED);
        return;
    }
    reason = check(mbuf, &fragment);
    if (reason == ESP_REASSEMBLY_REASONS)
        reason = add(worker, datagram, &fragment, mbuf, drops);
    if (likely(reason == ESP_REASSEMBLY_REASONS)) {
        burst_take(burst, i);
        end_if_whole(worker, burst, i, datagram, drops);
        return;
    }
    if (reason != ESP_FRAGMENT_DUPLICATE)
        refuse(worker, datagram, drops, reason);
    burst_drop(worker, burst, i, drops, reason);
}

void esp_reassemble(struct worker *worker, struct burst *burst, const struct drop_group *drops) {
    unsigned i;

    BURST_FOREACH (i, burst->mask) {
        if (unlikely(packet_meta(burst->packets[i])->flags & PACKET_FRAGMENT))
            one_fragment(worker, burst, i, drops);
    }
}

void esp_reassembly_turn(struct worker *worker, const struct drop_group *drops) {
    /* The clock stands still for up to a second. */
    const uint64_t longest = (ESP_FRAGMENT_SECONDS + 1) * UINT64_C(1000);
    struct esp_reassembly *table = ipsec_workers[worker->index].reassembly;
    const uint64_t now = atomic_load_explicit(&ipsec_clock, memory_order_relaxed);

    for (unsigned i = 0; i < SWEEP_AT_ONCE && table->used > 0; i++) {
        struct datagram *datagram = &table->datagrams[table->sweep];
        const bool there = table->identity[table->sweep] != 0;

        table->sweep = (table->sweep + 1) % ESP_DATAGRAMS;
        if (!there || now - datagram->since < longest)
            continue;
        refuse(worker, datagram, drops, ESP_FRAGMENT_TIMEOUT);
        leave(table, datagram);
    }
}
