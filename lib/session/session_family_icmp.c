/*
 * ICMP errors about packets of sessions that go on as the other version of IP: RFC 7915 sections
 * 4.2 and 4.3, 5.2 and 5.3. The error and the packet it quotes both get headers of the other
 * version, so the whole packet is made anew in its buffer.
 *
 * An error may have extensions behind the packet that it quotes (RFC 4884), for instance the labels
 * of a router of MPLS. They stay as they are; the length of what is quoted, which tells where they
 * begin, follows.
 */
#include "l3/icmp.h"
#include "session/embedded.h"
#include "session/session_internal.h"

enum {
    ICMP_HEADER = 8,
    QUOTE_LEAST = 8, /* of the transport header: RFC 792 */
    ICMPV4_ERROR_MAX = 576,
    ICMPV6_ERROR_MAX = 1280,
    QUOTE_MAX = ICMPV6_ERROR_MAX - 2 * IPV6_HEADER - ICMP_HEADER,
    MTU_DIFFERENCE = IPV6_HEADER - IPV4_HEADER,
    IPV6_LEAST_MTU = 1280,
    NOWHERE = 0xff,
    EXTENDED_QUOTE_LEAST = 128, /* RFC 4884 section 4: bytes in front of an extension */
    EXTENSION_LEAST = 4,
    EXTENSION_MAX = ICMPV6_ERROR_MAX - IPV6_HEADER - ICMP_HEADER - EXTENDED_QUOTE_LEAST,
};

/* RFC 792, 1191 and 1812. */
enum {
    V4_UNREACHABLE = 3,
    V4_TIME_EXCEEDED = 11,
    V4_PARAMETER_PROBLEM = 12,
    V4_HOST_UNREACHABLE = 1, /* codes of the first */
    V4_PROTOCOL_UNREACHABLE = 2,
    V4_PORT_UNREACHABLE = 3,
    V4_TOO_BIG = 4,
    V4_NET_PROHIBITED = 9,
    V4_HOST_PROHIBITED = 10,
    V4_PROHIBITED = 13,
    V4_PRECEDENCE_VIOLATION = 14,
    V4_PRECEDENCE_CUTOFF = 15,
};

/* RFC 4443. */
enum {
    V6_UNREACHABLE = 1,
    V6_TOO_BIG = 2,
    V6_TIME_EXCEEDED = 3,
    V6_PARAMETER_PROBLEM = 4,
    V6_NO_ROUTE = 0, /* codes of the first */
    V6_PROHIBITED = 1,
    V6_PORT_UNREACHABLE = 4,
    V6_HEADER_FIELD = 0, /* codes of the last */
    V6_NEXT_HEADER = 1,
    V6_NEXT_HEADER_AT = 6,
};

/* Type, code, and the second word, host order. */
struct icmp_head {
    uint8_t type, code;
    uint32_t rest;
};

/* --- types and codes --- */

/* Where a field of one header stands in the other: figures 3 and 6. */
static uint8_t pointer_to_ipv6(uint8_t pointer) {
    static const uint8_t table[IPV4_HEADER] = {0,       1, 4,  4,       NOWHERE, NOWHERE, NOWHERE,
                                               NOWHERE, 7, 6,  NOWHERE, NOWHERE, 8,       8,
                                               8,       8, 24, 24,      24,      24};

    return pointer < IPV4_HEADER ? table[pointer] : NOWHERE;
}

static uint8_t pointer_to_ipv4(uint32_t pointer) {
    if (pointer >= IPV6_HEADER)
        return NOWHERE;
    if (pointer >= 24)
        return 16;
    if (pointer >= 8)
        return 12;
    return (const uint8_t[]){0, 1, NOWHERE, NOWHERE, 2, 2, 9, 8}[pointer];
}

/* A router of before RFC 1191 names no MTU: the next smaller of the plateaus of its section 7. */
static uint32_t plateau_below(uint32_t length) {
    static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296};

    for (unsigned i = 0; i < RTE_DIM(plateaus); i++) {
        if (plateaus[i] < length)
            return plateaus[i];
    }
    return 68;
}

static bool unreachable_to_ipv6(const struct icmp_head *old, uint32_t length,
                                struct icmp_head *new) {
    uint32_t mtu = old->rest & 0xffff;

    new->type = V6_UNREACHABLE;
    switch (old->code) {
    case V4_PROTOCOL_UNREACHABLE:
        *new = (struct icmp_head){V6_PARAMETER_PROBLEM, V6_NEXT_HEADER, V6_NEXT_HEADER_AT};
        return true;
    case V4_PORT_UNREACHABLE:
        new->code = V6_PORT_UNREACHABLE;
        return true;
    case V4_TOO_BIG:
        mtu = (mtu ? mtu : plateau_below(length)) + MTU_DIFFERENCE;
        *new = (struct icmp_head){V6_TOO_BIG, 0, RTE_MAX(mtu, (uint32_t)IPV6_LEAST_MTU)};
        return true;
    case V4_NET_PROHIBITED:
    case V4_HOST_PROHIBITED:
    case V4_PROHIBITED:
    case V4_PRECEDENCE_CUTOFF:
        new->code = V6_PROHIBITED;
        return true;
    case V4_PRECEDENCE_VIOLATION:
        return false;
    default:
        new->code = V6_NO_ROUTE;
        return old->code <= V4_PRECEDENCE_CUTOFF;
    }
}

static bool head_to_ipv6(const struct icmp_head *old, uint32_t length, struct icmp_head *new) {
    *new = (struct icmp_head){0};
    switch (old->type) {
    case V4_UNREACHABLE:
        return unreachable_to_ipv6(old, length, new);
    case V4_TIME_EXCEEDED:
        *new = (struct icmp_head){V6_TIME_EXCEEDED, old->code, 0};
        return true;
    case V4_PARAMETER_PROBLEM:
        *new = (struct icmp_head){V6_PARAMETER_PROBLEM, V6_HEADER_FIELD,
                                  pointer_to_ipv6((uint8_t)(old->rest >> 24))};
        return (old->code == 0 || old->code == 2) && new->rest != NOWHERE;
    default:
        return false;
    }
}

static bool head_to_ipv4(const struct icmp_head *old, struct icmp_head *new) {
    *new = (struct icmp_head){0};
    switch (old->type) {
    case V6_UNREACHABLE:
        new->type = V4_UNREACHABLE;
        if (old->code > V6_PORT_UNREACHABLE)
            return false;
        new->code = old->code == V6_PROHIBITED         ? V4_HOST_PROHIBITED
                    : old->code == V6_PORT_UNREACHABLE ? V4_PORT_UNREACHABLE
                                                       : V4_HOST_UNREACHABLE;
        return true;
    case V6_TOO_BIG:
        *new = (struct icmp_head){
            V4_UNREACHABLE, V4_TOO_BIG,
            RTE_MIN(RTE_MAX(old->rest, (uint32_t)IPV6_LEAST_MTU) - MTU_DIFFERENCE,
                    (uint32_t)UINT16_MAX)};
        return true;
    case V6_TIME_EXCEEDED:
        *new = (struct icmp_head){V4_TIME_EXCEEDED, old->code, 0};
        return true;
    case V6_PARAMETER_PROBLEM:
        if (old->code == V6_NEXT_HEADER) {
            *new = (struct icmp_head){V4_UNREACHABLE, V4_PROTOCOL_UNREACHABLE, 0};
            return true;
        }
        *new =
            (struct icmp_head){V4_PARAMETER_PROBLEM, 0, (uint32_t)pointer_to_ipv4(old->rest) << 24};
        return old->code == V6_HEADER_FIELD && new->rest >> 24 != NOWHERE;
    default:
        return false;
    }
}

/* --- extensions: RFC 4884 --- */

struct extension {
    unsigned quote;  /* bytes in front of it: the packet that is quoted, and zeroes */
    unsigned length; /* 0: there is none */
    uint8_t bytes[EXTENSION_MAX];
};

/* Its sections 4.1 to 4.5. The length of the quote is in units of this many bytes, and stands in
 * the second word, shifted by so many bits. */
static bool may_have_extension(uint8_t type, bool ipv6) {
    return ipv6
               ? type == V6_UNREACHABLE || type == V6_TIME_EXCEEDED
               : type == V4_UNREACHABLE || type == V4_TIME_EXCEEDED || type == V4_PARAMETER_PROBLEM;
}

static unsigned length_unit(bool ipv6) {
    return ipv6 ? 8 : 4;
}

static unsigned length_shift(bool ipv6) {
    return ipv6 ? 24 : 16;
}

/* A length that is none, or leaves nothing behind it, does not count: all of the error is the
 * quote then. An extension for which there will be no room is left out. */
static void read_extension(struct rte_mbuf *mbuf, const struct icmp_head *head, bool ipv6,
                           struct extension *out) {
    uint32_t begin = packet_meta(mbuf)->l4_offset + (uint32_t)ICMP_HEADER;
    uint32_t there = mbuf->pkt_len - begin;
    uint32_t quote = (head->rest >> length_shift(ipv6) & 0xff) * length_unit(ipv6);
    const uint8_t *bytes;

    *out = (struct extension){.quote = there};
    if (!may_have_extension(head->type, ipv6) || quote < EXTENDED_QUOTE_LEAST ||
        quote + EXTENSION_LEAST > there)
        return;
    out->quote = quote;
    if (there - quote > EXTENSION_MAX)
        return;
    bytes = rte_pktmbuf_read(mbuf, begin + quote, there - quote, out->bytes);
    if (!bytes)
        return;
    out->length = there - quote;
    if (bytes != out->bytes)
        memcpy(out->bytes, bytes, out->length);
}

/* How long the quote becomes, of which `header` and `left` bytes are something, and the second word
 * that says so. *left may shrink to make room; an extension that does not fit even so, or that the
 * new type cannot have, is left out: half of one would be of no use to anybody. */
static unsigned place_extension(struct extension *extension, bool ipv6, unsigned header,
                                unsigned *left, struct icmp_head *head) {
    unsigned unit = length_unit(ipv6), taken = header + ICMP_HEADER + extension->length, quote;
    unsigned most = ipv6 ? ICMPV6_ERROR_MAX : ICMPV4_ERROR_MAX;

    if (!may_have_extension(head->type, ipv6) || taken + EXTENDED_QUOTE_LEAST > most)
        extension->length = 0;
    if (extension->length == 0)
        return header + *left;
    *left = RTE_MIN(*left, (most - taken) / unit * unit - header);
    quote = RTE_MAX(RTE_ALIGN_CEIL(header + *left, unit), (unsigned)EXTENDED_QUOTE_LEAST);
    head->rest |= quote / unit << length_shift(ipv6);
    return quote;
}

/* --- packets --- */

static void write_header(uint8_t *at, const union flow_key *key, bool ipv6, uint8_t traffic_class,
                         uint8_t hops, uint8_t protocol, uint32_t payload) {
    if (ipv6) {
        struct rte_ipv6_hdr header = {
            .vtc_flow = rte_cpu_to_be_32(UINT32_C(6) << 28 | (uint32_t)traffic_class << 20),
            .payload_len = rte_cpu_to_be_16((uint16_t)payload),
            .proto = protocol,
            .hop_limits = hops,
        };

        memcpy(header.src_addr, key->v6.source, 16);
        memcpy(header.dst_addr, key->v6.destination, 16);
        memcpy(at, &header, sizeof(header));
    } else {
        struct rte_ipv4_hdr header = {
            .version_ihl = RTE_IPV4_VHL_DEF,
            .type_of_service = traffic_class,
            .total_length = rte_cpu_to_be_16((uint16_t)(payload + IPV4_HEADER)),
            .time_to_live = hops,
            .next_proto_id = protocol,
            .src_addr = key->v4.source,
            .dst_addr = key->v4.destination,
        };

        header.hdr_checksum = rte_ipv4_cksum(&header);
        memcpy(at, &header, sizeof(header));
    }
}

static uint8_t traffic_class_of(const uint8_t *packet, bool ipv6) {
    return ipv6 ? (uint8_t)(rte_be_to_cpu_16(load16(packet)) >> 4) : packet[1];
}

/* The IPv6 address that a router on the IPv4 side appears with: behind the same prefix as the host
 * that the session is with. */
static void embed_like(const uint8_t host6[16], uint32_t host, uint32_t router, uint8_t out[16]) {
    static const uint8_t lengths[] = {96, 64, 56, 48, 40, 32};

    for (unsigned i = 0; i < RTE_DIM(lengths); i++) {
        if (embedded_ipv4(host6, lengths[i]) == host) {
            embedded_make(host6, lengths[i], router, out);
            return;
        }
    }
    memcpy(out, host6, 16);
}

/* The quoted packet: as much of it as goes on, and what its header says. */
struct quoted {
    uint8_t bytes[QUOTE_MAX];
    unsigned left;
    uint32_t length; /* of the whole transport packet */
    uint8_t protocol, hops, traffic_class;
};

/* With the quote's transport header as the other side knows it. `behind`: where an extension
 * begins; `sent`: the quoted packet's key there. */
static bool read_quoted(struct rte_mbuf *mbuf, bool was_ipv6, unsigned header, unsigned behind,
                        const union flow_key *sent, struct quoted *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet =
        rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, meta->l4_offset + ICMP_HEADER);
    unsigned there = RTE_MIN((unsigned)mbuf->data_len - meta->l4_offset - ICMP_HEADER, behind);
    unsigned most = was_ipv6 ? ICMPV4_ERROR_MAX - 2 * IPV4_HEADER - ICMP_HEADER : QUOTE_MAX;
    uint32_t whole = was_ipv6 ? IPV6_HEADER + rte_be_to_cpu_16(load16(packet + 4))
                              : rte_be_to_cpu_16(load16(packet + 2));

    if (there < header + QUOTE_LEAST || whole < header)
        return false;
    out->left = RTE_MIN(there - header, most);
    out->length = whole - header;
    out->left = RTE_MIN(out->left, RTE_MAX(out->length, (uint32_t)QUOTE_LEAST));
    out->protocol = !was_ipv6 ? packet[9] : header > IPV6_HEADER ? packet[IPV6_HEADER] : packet[6];
    out->hops = packet[was_ipv6 ? 7 : 8];
    out->traffic_class = traffic_class_of(packet, was_ipv6);
    memcpy(out->bytes, packet + header, out->left);
    if (!session_family_transport(out->bytes, out->left, out->protocol, out->length,
                                  session_address_sum(packet, was_ipv6),
                                  session_key_address_sum(sent, !was_ipv6), sent, !was_ipv6))
        return false;
    out->protocol = protocol_of_family(out->protocol, !was_ipv6);
    return true;
}

/* The ICMP checksum of a packet that lies in one buffer. */
static uint16_t icmp_checksum(const uint8_t *packet, bool ipv6, uint32_t length) {
    const uint8_t *icmp = packet + (ipv6 ? IPV6_HEADER : IPV4_HEADER);
    uint32_t sum = rte_raw_cksum(icmp, length);

    if (ipv6)
        sum += (uint32_t)session_address_sum(packet, true) + rte_cpu_to_be_16((uint16_t)length) +
               RTE_BE16(IPPROTO_ICMPV6);
    return (uint16_t)~checksum_fold(sum);
}

/* Empties the packet up to its link-layer header, and makes room for `length` bytes. */
static uint8_t *renew(struct rte_mbuf *mbuf, unsigned length) {
    rte_pktmbuf_free(mbuf->next);
    mbuf->next = NULL;
    mbuf->nb_segs = 1;
    mbuf->pkt_len = mbuf->data_len = packet_meta(mbuf)->l3_offset;
    return (uint8_t *)rte_pktmbuf_append(mbuf, (uint16_t)length);
}

enum session_drop session_family_icmp_error(struct rte_mbuf *mbuf, uint32_t number,
                                            unsigned quoted_header) {
    struct packet_meta *meta = packet_meta(mbuf);
    const struct flow *flow = &session_flows[number], *other = &session_flows[flow_other(number)];
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    const uint8_t *icmp = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, meta->l4_offset);
    bool was_ipv6 = meta->flags & PACKET_IPV6, ipv6 = !was_ipv6;
    union flow_key sent = flow_key_of(other), to = session_key_sent_on(number);
    struct icmp_head old = {icmp[0], icmp[1], rte_be_to_cpu_32(load32(icmp + 4))}, new;
    uint8_t hops = packet[was_ipv6 ? 7 : 8], traffic_class = traffic_class_of(packet, was_ipv6);
    unsigned header = ipv6 ? IPV6_HEADER : IPV4_HEADER, length, quote;
    struct extension extension;
    struct quoted quoted;
    uint32_t rest;
    uint16_t checksum;
    uint8_t *at, *quoted_at;

    read_extension(mbuf, &old, was_ipv6, &extension);
    if (!read_quoted(mbuf, was_ipv6, quoted_header, extension.quote, &sent, &quoted))
        return SESSION_DROP_ICMP_QUOTE;
    if (was_ipv6 ? !head_to_ipv4(&old, &new)
                 : !head_to_ipv6(&old, quoted.length + IPV4_HEADER, &new))
        return SESSION_DROP_FAMILY_ICMP;
    if (ipv6)
        embed_like(sent.v6.destination, flow->key4.source, load32(packet + 12), to.v6.source);
    quote = place_extension(&extension, ipv6, header, &quoted.left, &new);
    length = ICMP_HEADER + quote + extension.length;
    at = renew(mbuf, header + length);
    if (!at)
        return SESSION_DROP_NO_HEADROOM;
    write_header(at, &to, ipv6, traffic_class, hops, ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, length);
    rest = rte_cpu_to_be_32(new.rest);
    at[header] = new.type;
    at[header + 1] = new.code;
    memset(at + header + ICMP_CHECKSUM, 0, 2);
    memcpy(at + header + 4, &rest, sizeof(rest));
    write_header(at + header + ICMP_HEADER, &sent, ipv6, quoted.traffic_class, quoted.hops,
                 quoted.protocol, quoted.length);
    quoted_at = at + header + ICMP_HEADER;
    memcpy(quoted_at + header, quoted.bytes, quoted.left);
    memset(quoted_at + header + quoted.left, 0, quote - header - quoted.left);
    memcpy(quoted_at + quote, extension.bytes, extension.length);
    checksum = icmp_checksum(at, ipv6, length);
    memcpy(at + header + ICMP_CHECKSUM, &checksum, sizeof(checksum));
    meta->flags = (uint16_t)((meta->flags & ~(PACKET_IPV6 | PACKET_OPTIONS)) | PACKET_REWRITE |
                             PACKET_INSPECTED | PACKET_OTHER_FAMILY | (ipv6 ? PACKET_IPV6 : 0));
    meta->l4_protocol = ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
    meta->l4_offset = (uint16_t)(meta->l3_offset + header);
    return SESSION_PASS;
}
