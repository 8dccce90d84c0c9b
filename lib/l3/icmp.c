/*
 * ICMP in the worker. What it makes goes through the router ring and is routed like any packet;
 * only answers to link-local addresses, for which there is no route, leave through the neighbour
 * table.
 */
#include "l3/icmp.h"

#include <netinet/in.h>
#include <rte_cycles.h>
#include <rte_icmp.h>
#include <stdatomic.h>

#include "core/punt.h"
#include "core/worker.h"
#include "interface/interface.h"
#include "l3/header.h"
#include "l3/next_hop.h"

enum {
    ICMP_HEADER = 8,
    ICMPV4_ERROR_MAX = 576,  /* RFC 1812 section 4.3.2.3: the whole error, IP header included */
    ICMPV6_ERROR_MAX = 1280, /* RFC 4443 section 2.4 (c) */
    REPLY_TTL = 64,

    V4_ECHO_REPLY = 0,
    V4_UNREACHABLE = 3,
    V4_SOURCE_QUENCH = 4,
    V4_REDIRECT = 5,
    V4_ECHO = 8,
    V4_TIME_EXCEEDED = 11,
    V4_PARAMETER_PROBLEM = 12,

    V6_UNREACHABLE = 1,
    V6_TOO_BIG = 2,
    V6_TIME_EXCEEDED = 3,
    V6_PARAMETER_PROBLEM = 4,
    V6_ECHO = 128,
    V6_ECHO_REPLY = 129,
    V6_REDIRECT = 137,
};

enum icmp_drop { ICMP_RATE_LIMITED, ICMP_NOT_ALLOWED, ICMP_NO_BUFFER, ICMP_BAD_CHECKSUM };

static struct drop_group icmp_drops = {
    .name = "icmp",
    .reasons =
        (const char *const[]){
            [ICMP_RATE_LIMITED] = "error_rate_limited",
            [ICMP_NOT_ALLOWED] = "error_not_allowed",
            [ICMP_NO_BUFFER] = "no_buffer",
            [ICMP_BAD_CHECKSUM] = "echo_checksum",
            NULL,
        },
};
DROP_GROUP(icmp_drops)

static const struct {
    uint8_t type, code;
} v4_errors[] =
    {
        [ICMP_ERROR_TIME_EXCEEDED] = {V4_TIME_EXCEEDED, 0},
        [ICMP_ERROR_NET_UNREACHABLE] = {V4_UNREACHABLE, 0},
        [ICMP_ERROR_HOST_UNREACHABLE] = {V4_UNREACHABLE, 1},
        [ICMP_ERROR_PROHIBITED] = {V4_UNREACHABLE, 13},
        [ICMP_ERROR_PORT_UNREACHABLE] = {V4_UNREACHABLE, 3},
        [ICMP_ERROR_PROTOCOL_UNREACHABLE] = {V4_UNREACHABLE, 2},
        [ICMP_ERROR_TOO_BIG] = {V4_UNREACHABLE, 4},
        [ICMP_ERROR_PARAMETER] = {V4_PARAMETER_PROBLEM, 0},
},
  v6_errors[] = {
      [ICMP_ERROR_TIME_EXCEEDED] = {V6_TIME_EXCEEDED, 0},
      [ICMP_ERROR_NET_UNREACHABLE] = {V6_UNREACHABLE, 0},
      [ICMP_ERROR_HOST_UNREACHABLE] = {V6_UNREACHABLE, 3},
      [ICMP_ERROR_PROHIBITED] = {V6_UNREACHABLE, 1},
      [ICMP_ERROR_PORT_UNREACHABLE] = {V6_UNREACHABLE, 4},
      [ICMP_ERROR_PROTOCOL_UNREACHABLE] = {V6_PARAMETER_PROBLEM, 1},
      [ICMP_ERROR_TOO_BIG] = {V6_TOO_BIG, 0},
      [ICMP_ERROR_PARAMETER] = {V6_PARAMETER_PROBLEM, 2},
};

void (*icmp_restore)(struct worker *worker, struct rte_mbuf *about);

/* --- rate limit --- */

static atomic_uint rate_per_second = 1000;
static atomic_uint rate_burst = 100;

/* Token buckets, one per worker: `paid_until` is the TSC time up to which tokens are used. */
static struct { uint64_t paid_until; } __rte_cache_aligned buckets[WORKERS_MAX];

void icmp_set_rate(uint32_t errors_per_second, uint32_t burst) {
    atomic_store(&rate_per_second, errors_per_second);
    atomic_store(&rate_burst, burst);
}

bool icmp_rate_allows(struct worker *worker) {
    uint32_t rate = atomic_load_explicit(&rate_per_second, memory_order_relaxed);

    if (rate == 0)
        return false;

    uint64_t cost = rte_get_tsc_hz() / rate;
    uint64_t depth = cost * atomic_load_explicit(&rate_burst, memory_order_relaxed);
    uint64_t *paid_until = &buckets[worker->index].paid_until;

    if (*paid_until + depth < worker->now)
        *paid_until = worker->now - depth;
    if (*paid_until + cost > worker->now)
        return false;
    *paid_until += cost;
    return true;
}

/* --- may an error be sent about this packet? --- */

/* RFC 1812 section 4.3.2.7, RFC 1122 section 3.2.2. */
static bool v4_error_allowed(struct rte_mbuf *about) {
    const struct packet_meta *meta = packet_meta(about);
    const uint8_t *packet = packet_l3(about, const uint8_t *);
    uint8_t source = packet[12];

    if (meta->flags &
        (PACKET_LATER_FRAGMENT | PACKET_LINK_MULTICAST | PACKET_IP_MULTICAST | PACKET_FROM_ROUTER))
        return false;
    if (source == 0 || source == 127 || source >= 224)
        return false;
    if (packet[9] != IPPROTO_ICMP)
        return true;
    if (meta->l4_offset >= about->data_len)
        return false;
    switch (*rte_pktmbuf_mtod_offset(about, const uint8_t *, meta->l4_offset)) {
    case V4_UNREACHABLE:
    case V4_SOURCE_QUENCH:
    case V4_REDIRECT:
    case V4_TIME_EXCEEDED:
    case V4_PARAMETER_PROBLEM:
        return false;
    default:
        return true;
    }
}

/* RFC 4443 section 2.4 (e). Too big, and an option that asks for it, are answered for groups too.
 */
static bool v6_error_allowed(struct rte_mbuf *about, enum icmp_error error) {
    const struct packet_meta *meta = packet_meta(about);
    const uint8_t *packet = packet_l3(about, const uint8_t *);
    static const uint8_t unspecified[16];

    if (meta->flags & PACKET_FROM_ROUTER)
        return false;
    if (meta->flags & (PACKET_LINK_MULTICAST | PACKET_IP_MULTICAST) &&
        error != ICMP_ERROR_TOO_BIG && error != ICMP_ERROR_PARAMETER)
        return false;
    if (packet[8] == 0xff || memcmp(packet + 8, unspecified, 16) == 0)
        return false;
    if (meta->flags & PACKET_LATER_FRAGMENT) /* what it is part of cannot be told */
        return error == ICMP_ERROR_TOO_BIG;
    if (meta->l4_protocol != IPPROTO_ICMPV6)
        return true;
    if (meta->l4_offset >= about->data_len)
        return false;

    uint8_t type = *rte_pktmbuf_mtod_offset(about, const uint8_t *, meta->l4_offset);

    return type >= 128 && type != V6_REDIRECT; /* errors have the high bit clear */
}

/* --- building --- */

/* Hands a reply to the router's own path. Link-local destinations have no route. */
void icmp_send_reply(struct worker *worker, struct rte_mbuf *reply, uint16_t interface) {
    struct packet_meta *meta = packet_meta(reply);
    const uint8_t *destination = packet_l3(reply, const uint8_t *) + 24;

    if (meta->flags & PACKET_IPV6 && destination[0] == 0xfe && (destination[1] & 0xc0) == 0x80) {
        meta->out_interface = interface;
        meta->next_hop = 0;
        punt(worker, reply, PUNT_RESOLVE);
        return;
    }
    worker_route(worker, reply);
}

static void init_meta(struct rte_mbuf *reply, uint16_t vrf, uint16_t flags, uint8_t protocol,
                      uint16_t l4_offset) {
    *packet_meta(reply) = (struct packet_meta){
        .vrf = vrf,
        .flags = flags | PACKET_FROM_ROUTER,
        .l3_offset = ETHER_HEADER,
        .l4_protocol = protocol,
        .l4_offset = l4_offset,
    };
}

/* The address errors come from: the interface the packet came in by, as traceroute users expect;
 * 192.0.0.8 (RFC 7600) where there is no IPv4 address at all, as between RFC 8950 next hops. */
static uint32_t v4_error_source(const struct packet_meta *meta) {
    const struct interface_table *table = interface_table();
    uint32_t source = table->entry[meta->in_interface].ipv4_source;

    for (unsigned id = 1; id < INTERFACES_MAX && source == 0; id++) {
        if (table->entry[id].id != 0 && table->entry[id].vrf == meta->vrf)
            source = table->entry[id].ipv4_source;
    }
    return source ? source : RTE_BE32(RTE_IPV4(192u, 0, 0, 8));
}

static bool is_zero16(const uint8_t *address) {
    static const uint8_t zero[16];

    return memcmp(address, zero, 16) == 0;
}

/* The packet's own destination when that is ours (RFC 4443 section 2.2 (a)), else an address of the
 * incoming interface. */
static const uint8_t *v6_error_source(const struct packet_meta *meta, const uint8_t *packet) {
    const struct interface_table *table = interface_table();
    const struct interface_entry *in = &table->entry[meta->in_interface];
    const struct next_hop *hop = next_hop_get(meta->next_hop);
    const uint8_t *source = in->ipv6_source;

    if (!(meta->flags & PACKET_IP_MULTICAST) && hop->type == NEXT_HOP_LOCAL && !hop->anycast)
        return packet + 24;
    if (packet[8] == 0xfe && !is_zero16(in->ipv6_link_local))
        return in->ipv6_link_local; /* a link-local sender must hear from a link-local address */
    for (unsigned id = 1; id < INTERFACES_MAX && is_zero16(source); id++) {
        if (table->entry[id].id != 0 && table->entry[id].vrf == meta->vrf)
            source = table->entry[id].ipv6_source;
    }
    return source;
}

/* Copies the first `length` bytes from the IP header of `about` behind the ICMP header. */
static bool append_quote(struct rte_mbuf *reply, struct rte_mbuf *about, unsigned length) {
    uint8_t *quote = (uint8_t *)rte_pktmbuf_append(reply, (uint16_t)length);

    if (!quote)
        return false;

    const uint8_t *from = rte_pktmbuf_read(about, packet_meta(about)->l3_offset, length, quote);

    if (from && from != quote)
        memcpy(quote, from, length);
    return from != NULL;
}

static void send_v4(struct worker *worker, struct rte_mbuf *about, uint8_t type, uint8_t code,
                    uint32_t rest) {
    const struct packet_meta *meta = packet_meta(about);
    const uint8_t *packet = packet_l3(about, const uint8_t *);
    unsigned quoted = RTE_MIN(about->pkt_len - meta->l3_offset,
                              (uint32_t)(ICMPV4_ERROR_MAX - IPV4_HEADER - ICMP_HEADER));
    struct rte_mbuf *reply = rte_pktmbuf_alloc(worker->pool);

    if (!reply) {
        counters_drop(worker->counters, &icmp_drops, ICMP_NO_BUFFER);
        return;
    }

    uint8_t *frame = (uint8_t *)rte_pktmbuf_append(reply, ETHER_HEADER + IPV4_HEADER + ICMP_HEADER);

    if (!frame || !append_quote(reply, about, quoted)) {
        rte_pktmbuf_free(reply);
        return;
    }

    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(frame + ETHER_HEADER);
    uint8_t *icmp = frame + ETHER_HEADER + IPV4_HEADER;
    uint16_t checksum;

    /* RFC 1812 section 4.3.2.5: precedence 6 (internetwork control). */
    *ip = (struct rte_ipv4_hdr){
        .version_ihl = RTE_IPV4_VHL_DEF,
        .type_of_service = 0xc0,
        .total_length = rte_cpu_to_be_16((uint16_t)(IPV4_HEADER + ICMP_HEADER + quoted)),
        .time_to_live = REPLY_TTL,
        .next_proto_id = IPPROTO_ICMP,
        .src_addr = v4_error_source(meta),
        .dst_addr = load32(packet + 12),
    };
    ip->hdr_checksum = rte_ipv4_cksum(ip);
    memset(icmp, 0, ICMP_HEADER);
    icmp[0] = type;
    icmp[1] = code;
    memcpy(icmp + 4, &rest, sizeof(rest));
    checksum = (uint16_t)~rte_raw_cksum(icmp, ICMP_HEADER + quoted);
    memcpy(icmp + 2, &checksum, sizeof(checksum));
    init_meta(reply, meta->vrf, 0, IPPROTO_ICMP, ETHER_HEADER + IPV4_HEADER);
    icmp_send_reply(worker, reply, meta->in_interface);
}

static void send_v6(struct worker *worker, struct rte_mbuf *about, uint8_t type, uint8_t code,
                    uint32_t rest) {
    const struct packet_meta *meta = packet_meta(about);
    const uint8_t *packet = packet_l3(about, const uint8_t *);
    const uint8_t *source = v6_error_source(meta, packet);
    unsigned quoted = RTE_MIN(about->pkt_len - meta->l3_offset,
                              (uint32_t)(ICMPV6_ERROR_MAX - IPV6_HEADER - ICMP_HEADER));
    struct rte_mbuf *reply = is_zero16(source) ? NULL : rte_pktmbuf_alloc(worker->pool);

    if (!reply) {
        counters_drop(worker->counters, &icmp_drops,
                      is_zero16(source) ? ICMP_NOT_ALLOWED : ICMP_NO_BUFFER);
        return;
    }

    uint8_t *frame = (uint8_t *)rte_pktmbuf_append(reply, ETHER_HEADER + IPV6_HEADER + ICMP_HEADER);

    if (!frame || !append_quote(reply, about, quoted)) {
        rte_pktmbuf_free(reply);
        return;
    }

    struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(frame + ETHER_HEADER);
    uint8_t *icmp = frame + ETHER_HEADER + IPV6_HEADER;
    uint16_t checksum;

    *ip = (struct rte_ipv6_hdr){
        .vtc_flow = RTE_BE32(UINT32_C(6) << 28),
        .payload_len = rte_cpu_to_be_16((uint16_t)(ICMP_HEADER + quoted)),
        .proto = IPPROTO_ICMPV6,
        .hop_limits = REPLY_TTL,
    };
    memcpy(ip->src_addr, source, 16);
    memcpy(ip->dst_addr, packet + 8, 16);
    memset(icmp, 0, ICMP_HEADER);
    icmp[0] = type;
    icmp[1] = code;
    memcpy(icmp + 4, &rest, sizeof(rest));
    checksum = rte_ipv6_udptcp_cksum(ip, icmp);
    memcpy(icmp + 2, &checksum, sizeof(checksum));
    init_meta(reply, meta->vrf, PACKET_IPV6, IPPROTO_ICMPV6, ETHER_HEADER + IPV6_HEADER);
    icmp_send_reply(worker, reply, meta->in_interface);
}

void icmp_send_error(struct worker *worker, struct rte_mbuf *about, enum icmp_error error,
                     uint32_t argument) {
    bool ipv6 = packet_meta(about)->flags & PACKET_IPV6, went_as_ipv6 = ipv6;

    if (icmp_restore) {
        icmp_restore(worker, about);
        ipv6 = packet_meta(about)->flags & PACKET_IPV6;
    }
    /* As long as its sender's packets may be: RFC 7915 sections 4.2 and 5.2. */
    if (error == ICMP_ERROR_TOO_BIG && ipv6 != went_as_ipv6)
        argument = ipv6 ? RTE_MAX(argument + (IPV6_HEADER - IPV4_HEADER), UINT32_C(1280))
                        : argument - (IPV6_HEADER - IPV4_HEADER);
    if (!(ipv6 ? v6_error_allowed(about, error) : v4_error_allowed(about))) {
        counters_drop(worker->counters, &icmp_drops, ICMP_NOT_ALLOWED);
        return;
    }
    if (!icmp_rate_allows(worker)) {
        counters_drop(worker->counters, &icmp_drops, ICMP_RATE_LIMITED);
        return;
    }
    /* The MTU is in the low 16 bits for ICMP (RFC 1191), in all 32 for ICMPv6: the same big-endian
     * word. A pointer is a whole word in ICMPv6 and the top octet in ICMP. */
    if (!ipv6 && error == ICMP_ERROR_PARAMETER)
        argument <<= 24;
    if (ipv6 && error == ICMP_ERROR_PROTOCOL_UNREACHABLE)
        argument = 6; /* the next header field; extension headers are walked by hosts, not here */
    if (ipv6)
        send_v6(worker, about, v6_errors[error].type, v6_errors[error].code,
                rte_cpu_to_be_32(argument));
    else
        send_v4(worker, about, v4_errors[error].type, v4_errors[error].code,
                rte_cpu_to_be_32(argument));
}

/* --- echo --- */

uint16_t icmp_sum_from(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t sum) {
    bool odd = false;

    for (; mbuf; mbuf = mbuf->next) {
        if (offset >= mbuf->data_len) {
            offset -= mbuf->data_len;
            continue;
        }

        unsigned length = mbuf->data_len - offset;
        uint16_t part = rte_raw_cksum(rte_pktmbuf_mtod_offset(mbuf, const void *, offset), length);

        sum += odd ? rte_bswap16(part) : part;
        odd ^= length & 1;
        offset = 0;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

bool icmp_checksum_is_right(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    uint32_t pseudo = 0;

    if (meta->flags & PACKET_FRAGMENT)
        return true;
    if (meta->flags & PACKET_IPV6) {
        struct rte_ipv6_hdr header = *packet_l3(mbuf, const struct rte_ipv6_hdr *);

        header.proto = IPPROTO_ICMPV6;
        header.payload_len = rte_cpu_to_be_16((uint16_t)(mbuf->pkt_len - meta->l4_offset));
        pseudo = rte_ipv6_phdr_cksum(&header, 0);
    }
    return icmp_sum_from(mbuf, meta->l4_offset, pseudo) == 0xffff;
}

/* Sets the type and a checksum made anew: one that follows from the old one would be wrong for an
 * answer of nothing but zeroes (RFC 1624 section 3). */
static void finish_reply(struct rte_mbuf *mbuf, uint8_t *icmp, uint8_t type, uint32_t pseudo_sum) {
    uint16_t checksum;

    icmp[0] = type;
    memset(icmp + 2, 0, 2);
    checksum = (uint16_t)~icmp_sum_from(mbuf, packet_meta(mbuf)->l4_offset, pseudo_sum);
    memcpy(icmp + 2, &checksum, sizeof(checksum));
}

static bool echo_request_is_whole(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);

    return !(meta->flags & PACKET_FRAGMENT) && meta->l4_offset + ICMP_HEADER <= mbuf->data_len;
}

static bool answer_v4(struct worker *worker, struct rte_mbuf *mbuf, uint8_t *icmp) {
    struct packet_meta *meta = packet_meta(mbuf);
    struct rte_ipv4_hdr *ip = packet_l3(mbuf, struct rte_ipv4_hdr *);
    uint32_t source = ip->src_addr;

    /* RFC 1122 3.2.2.6: broadcast and multicast echoes may be ignored, and are (smurf). */
    if (icmp[0] != V4_ECHO || meta->flags & (PACKET_LINK_MULTICAST | PACKET_IP_MULTICAST))
        return false;
    if (icmp_sum_from(mbuf, meta->l4_offset, 0) != 0xffff) {
        counters_drop(worker->counters, &icmp_drops, ICMP_BAD_CHECKSUM);
        rte_pktmbuf_free(mbuf);
        return true;
    }
    finish_reply(mbuf, icmp, V4_ECHO_REPLY, 0);
    ip->src_addr = ip->dst_addr;
    ip->dst_addr = source;
    ip->time_to_live = REPLY_TTL;
    ip->fragment_offset = 0;
    ip->hdr_checksum = 0;
    ip->hdr_checksum = (uint16_t)~rte_raw_cksum(ip, rte_ipv4_hdr_len(ip));
    meta->flags = PACKET_FROM_ROUTER;
    worker_route(worker, mbuf);
    return true;
}

static bool answer_v6(struct worker *worker, struct rte_mbuf *mbuf, uint8_t *icmp) {
    struct packet_meta *meta = packet_meta(mbuf);
    struct rte_ipv6_hdr *ip = packet_l3(mbuf, struct rte_ipv6_hdr *);
    const struct interface_entry *in = &interface_table()->entry[meta->in_interface];
    uint16_t interface = meta->in_interface;
    uint8_t ours[16];

    if (icmp[0] != V6_ECHO || meta->l4_offset != meta->l3_offset + IPV6_HEADER)
        return false;
    if (icmp_sum_from(mbuf, meta->l4_offset, rte_ipv6_phdr_cksum(ip, 0)) != 0xffff) {
        counters_drop(worker->counters, &icmp_drops, ICMP_BAD_CHECKSUM);
        rte_pktmbuf_free(mbuf);
        return true;
    }
    memcpy(ours, ip->dst_addr, 16);
    if (meta->flags & PACKET_IP_MULTICAST || next_hop_get(meta->next_hop)->anycast) {
        const uint8_t *answer_from =
            ip->src_addr[0] == 0xfe ? in->ipv6_link_local : in->ipv6_source;

        if (!icmp_rate_allows(worker) || is_zero16(answer_from))
            return false;
        memcpy(ours, answer_from, 16);
    }
    memcpy(ip->dst_addr, ip->src_addr, 16);
    memcpy(ip->src_addr, ours, 16);
    ip->hop_limits = REPLY_TTL;
    finish_reply(mbuf, icmp, V6_ECHO_REPLY, rte_ipv6_phdr_cksum(ip, 0));
    meta->flags = PACKET_FROM_ROUTER | PACKET_IPV6;
    icmp_send_reply(worker, mbuf, interface);
    return true;
}

bool icmp_answer_echo(struct worker *worker, struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);

    if (!echo_request_is_whole(mbuf))
        return false;

    uint8_t *icmp = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset);

    if (meta->flags & PACKET_IPV6)
        return meta->l4_protocol == IPPROTO_ICMPV6 && answer_v6(worker, mbuf, icmp);
    return meta->l4_protocol == IPPROTO_ICMP && answer_v4(worker, mbuf, icmp);
}
