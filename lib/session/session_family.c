/*
 * Packets of sessions that go on as the other version of IP: RFC 7915 sections 4.1 and 5.1. What
 * their addresses and ports become, the keys of the two flows say; here one header takes the place
 * of the other, in front of the same payload.
 *
 * IPv4 packets that may be fragmented and would not fit into 1280 bytes go on in pieces: in IPv6
 * nobody behind the router can cut them any more. Fragmented ICMP has no counterpart, because the
 * checksum of one of the two covers addresses and length. Options and extension headers are left
 * out, but for those whose loss would change what the packet means.
 */
#include "l3/fragment.h"
#include "l3/icmp.h"
#include "session/session_internal.h"

enum {
    IPV6_LEAST_MTU = 1280,
    IPV6_FRAGMENT = 8,    /* bytes of the fragment header */
    IPV4_DF_ABOVE = 1260, /* packets up to here may be fragmented again: RFC 7915 section 5.1 */
    IPV4_LENGTH_MAX = 65535,
    TRAFFIC_CLASS_SHIFT = 20,
};

/* --- transport headers --- */

static uint16_t sum_of(const uint8_t *addresses, unsigned length) {
    uint64_t sum = 0;

    for (unsigned i = 0; i < length; i += 4)
        sum += load32(addresses + i);
    return checksum_fold((uint32_t)(sum >> 32) + checksum_fold((uint32_t)sum));
}

uint16_t session_address_sum(const uint8_t *packet, bool ipv6) {
    return ipv6 ? sum_of(packet + 8, 32) : sum_of(packet + 12, 8);
}

uint16_t session_key_address_sum(const union flow_key *key, bool ipv6) {
    return ipv6 ? sum_of(key->v6.source, sizeof(key->v6.source) + sizeof(key->v6.destination))
                : sum_of((const uint8_t *)&key->v4.source, 8);
}

/* The query's or answer's type in the other family; 0xff: it has none there. */
static uint8_t query_type(uint8_t type, bool ipv6) {
    if (type == (ipv6 ? ICMP4_ECHO : ICMP6_ECHO))
        return ipv6 ? ICMP6_ECHO : ICMP4_ECHO;
    if (type == (ipv6 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY))
        return ipv6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY;
    return 0xff;
}

/* ICMPv6's checksum covers the addresses, the length and the protocol, ICMP's does not. */
static bool change_query(uint8_t *icmp, uint32_t length, uint16_t old_addresses,
                         uint16_t new_addresses, const uint16_t ports[2], bool ipv6) {
    uint32_t pseudo = (uint32_t)rte_cpu_to_be_16((uint16_t)length) + RTE_BE16(IPPROTO_ICMPV6);
    uint8_t type = query_type(icmp[0], ipv6);
    uint16_t identifier = type == ICMP4_ECHO || type == ICMP6_ECHO ? ports[0] : ports[1];
    uint16_t old_type = load16(icmp), checksum;
    uint32_t difference =
        ipv6 ? new_addresses + pseudo
             : (uint32_t)(uint16_t)~old_addresses + (uint16_t)~checksum_fold(pseudo);

    if (type == 0xff)
        return false;
    icmp[0] = type;
    difference += checksum_difference16(old_type, load16(icmp)) +
                  checksum_difference16(load16(icmp + ICMP_IDENTIFIER), identifier);
    memcpy(icmp + ICMP_IDENTIFIER, &identifier, sizeof(identifier));
    checksum = checksum_plus(load16(icmp + ICMP_CHECKSUM), checksum_fold(difference));
    memcpy(icmp + ICMP_CHECKSUM, &checksum, sizeof(checksum));
    return true;
}

bool session_family_transport(uint8_t *header, unsigned left, uint8_t protocol, uint32_t length,
                              uint16_t old_addresses, uint16_t new_addresses,
                              const union flow_key *to, bool ipv6) {
    const struct transport *transport = &session_transports[protocol];
    uint16_t ports[2] = {ipv6 ? to->v6.source_port : to->v4.source_port,
                         ipv6 ? to->v6.destination_port : to->v4.destination_port};
    uint32_t difference = (uint32_t)(uint16_t)~old_addresses + new_addresses;
    uint16_t checksum;

    if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
        return change_query(header, length, old_addresses, new_addresses, ports, ipv6);
    difference += checksum_difference16(load16(header), ports[0]) +
                  checksum_difference16(load16(header + 2), ports[1]);
    memcpy(header, ports, sizeof(ports));
    if (transport->checksum + 2u > left)
        return true; /* of a quoted packet no more is there */
    checksum = load16(header + transport->checksum);
    if (transport->zero_is_none && checksum == 0)
        return true;
    checksum = checksum_plus(checksum, checksum_fold(difference));
    if (transport->zero_is_none && checksum == 0)
        checksum = UINT16_MAX; /* RFC 768 */
    memcpy(header + transport->checksum, &checksum, sizeof(checksum));
    return true;
}

/* A UDP packet over IPv4 without a checksum gets the one it could have had. False: its length is
 * not that of the packet, so that it is not clear what would be covered. */
static bool add_udp_checksum(struct rte_mbuf *mbuf, uint8_t *udp, uint16_t addresses) {
    uint32_t length = mbuf->pkt_len - packet_meta(mbuf)->l4_offset;
    uint16_t checksum;

    if (rte_be_to_cpu_16(load16(udp + 4)) != length)
        return false;
    checksum = (uint16_t)~icmp_sum_from(mbuf, packet_meta(mbuf)->l4_offset,
                                        (uint32_t)addresses + rte_cpu_to_be_16((uint16_t)length) +
                                            RTE_BE16(IPPROTO_UDP));
    checksum = checksum ? checksum : UINT16_MAX;
    memcpy(udp + session_transports[IPPROTO_UDP].checksum, &checksum, sizeof(checksum));
    return true;
}

/* The transport header of a packet whose IP header is still the old one. */
static enum session_drop change_transport(struct rte_mbuf *mbuf, const union flow_key *to,
                                          bool ipv6) {
    const struct packet_meta *meta = packet_meta(mbuf);
    uint8_t *header = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset);
    uint32_t length = mbuf->pkt_len - meta->l4_offset;
    uint16_t addresses = session_address_sum(packet_l3(mbuf, const uint8_t *), !ipv6);
    bool icmp = meta->l4_protocol == IPPROTO_ICMP || meta->l4_protocol == IPPROTO_ICMPV6;

    if (meta->flags & PACKET_LATER_FRAGMENT)
        return icmp ? SESSION_DROP_FAMILY_ICMP : SESSION_PASS;
    if (icmp && meta->flags & PACKET_FRAGMENT)
        return SESSION_DROP_FAMILY_ICMP;
    if (meta->l4_protocol == IPPROTO_UDP &&
        load16(header + session_transports[IPPROTO_UDP].checksum) == 0) {
        /* RFC 7915 section 4.5; and RFC 8200 section 8.1: in IPv6 it has to be there */
        if (!ipv6 || meta->flags & PACKET_FRAGMENT || !add_udp_checksum(mbuf, header, addresses))
            return SESSION_DROP_FAMILY_NO_CHECKSUM;
    }
    if (!session_family_transport(header, UINT16_MAX, meta->l4_protocol, length, addresses,
                                  session_key_address_sum(to, ipv6), to, ipv6))
        return SESSION_DROP_FAMILY_ICMP;
    /* Nothing but zeroes has ones for a checksum: RFC 1624 section 3. */
    if (icmp && !ipv6 && load64(header) == 0)
        memset(header + ICMP_CHECKSUM, 0xff, 2);
    return SESSION_PASS;
}

/* --- IP headers --- */

/* Makes the frame begin so that its IP header, of this length, ends where the old one did. NULL:
 * there is no room. */
static uint8_t *new_header(struct rte_mbuf *mbuf, unsigned length) {
    struct packet_meta *meta = packet_meta(mbuf);
    int less = (int)meta->l4_offset - (int)(meta->l3_offset + length);

    if (less > 0)
        rte_pktmbuf_adj(mbuf, (uint16_t)less);
    else if (less < 0 && !rte_pktmbuf_prepend(mbuf, (uint16_t)-less))
        return NULL;
    meta->l4_offset = (uint16_t)(meta->l3_offset + length);
    return packet_l3(mbuf, uint8_t *);
}

/* Session and firewall have seen it as what it was; the link-layer header is somewhere else. */
static void set_family(struct packet_meta *meta, bool ipv6) {
    meta->flags &= (uint16_t) ~(PACKET_IPV6 | PACKET_OPTIONS | PACKET_NEXT_HOP);
    meta->flags ^= PACKET_OTHER_FAMILY;
    meta->flags |= PACKET_REWRITE | PACKET_INSPECTED | (ipv6 ? PACKET_IPV6 : 0);
    meta->l4_protocol = protocol_of_family(meta->l4_protocol, ipv6);
}

/* In words that are put together in registers: a header that is built octet by octet and then
 * copied waits for its stores, for longer than all the rest takes. Identification and fragment
 * field are in network order. */
static void write_ipv4(uint8_t *at, uint8_t tos, uint16_t length, uint16_t identification,
                       uint16_t fragment, uint8_t ttl, uint8_t protocol,
                       const struct flow_key4 *key) {
    uint32_t words[] = {
        RTE_IPV4_VHL_DEF | (uint32_t)tos << 8 | (uint32_t)rte_cpu_to_be_16(length) << 16,
        identification | (uint32_t)fragment << 16,
        ttl | (uint32_t)protocol << 8,
        key->source,
        key->destination,
    };
    uint64_t sum = (uint64_t)words[0] + words[1] + words[2] + words[3] + words[4];
    uint16_t checksum =
        (uint16_t)~checksum_fold(checksum_fold((uint32_t)sum) + (uint32_t)(sum >> 32));

    words[2] |= (uint32_t)checksum << 16;
    memcpy(at, &words[0], 4);
    memcpy(at + 4, &words[1], 4);
    memcpy(at + 8, &words[2], 4);
    memcpy(at + 12, &words[3], 4);
    memcpy(at + 16, &words[4], 4);
}

static void write_ipv6(uint8_t *at, uint8_t traffic_class, uint32_t payload, uint8_t next,
                       uint8_t hop_limit, const struct flow_key6 *key) {
    uint32_t first =
        rte_cpu_to_be_32(UINT32_C(6) << 28 | (uint32_t)traffic_class << TRAFFIC_CLASS_SHIFT);
    uint32_t second =
        rte_cpu_to_be_16((uint16_t)payload) | (uint32_t)next << 16 | (uint32_t)hop_limit << 24;

    memcpy(at, &first, sizeof(first));
    memcpy(at + 4, &second, sizeof(second));
    memcpy(at + 8, key->source, sizeof(key->source));
    memcpy(at + 24, key->destination, sizeof(key->destination));
}

/* The IP header, in front of a transport header that is the new one already. */
static enum session_drop header_to_ipv6(struct rte_mbuf *mbuf, const union flow_key *to) {
    struct packet_meta *meta = packet_meta(mbuf);
    const struct rte_ipv4_hdr old = *packet_l3(mbuf, const struct rte_ipv4_hdr *);
    uint16_t fragment = rte_be_to_cpu_16(old.fragment_offset);
    bool fragmented = meta->flags & PACKET_FRAGMENT;
    uint8_t *new = new_header(mbuf, IPV6_HEADER + (fragmented ? IPV6_FRAGMENT : 0));

    if (!new)
        return SESSION_DROP_NO_HEADROOM;
    set_family(meta, true);

    write_ipv6(new, old.type_of_service, mbuf->pkt_len - meta->l3_offset - IPV6_HEADER,
               fragmented ? IPPROTO_FRAGMENT : meta->l4_protocol, old.time_to_live, &to->v6);
    if (fragmented) {
        uint16_t offset = rte_cpu_to_be_16((uint16_t)((fragment & RTE_IPV4_HDR_OFFSET_MASK) << 3 |
                                                      (fragment & RTE_IPV4_HDR_MF_FLAG ? 1 : 0)));
        uint32_t identification = rte_cpu_to_be_32(rte_be_to_cpu_16(old.packet_id));

        new[IPV6_HEADER] = meta->l4_protocol;
        new[IPV6_HEADER + 1] = 0;
        memcpy(new + IPV6_HEADER + 2, &offset, sizeof(offset));
        memcpy(new + IPV6_HEADER + 4, &identification, sizeof(identification));
    }
    return SESSION_PASS;
}

static enum session_drop to_ipv6(struct rte_mbuf *mbuf, const union flow_key *to) {
    enum session_drop result = change_transport(mbuf, to, true);

    return result == SESSION_PASS ? header_to_ipv6(mbuf, to) : result;
}

/* What of the IPv6 headers has a meaning in IPv4. */
struct headers {
    bool fragment; /* a fragment header, be it that of a whole packet (RFC 6946) */
    uint16_t offset;
    uint16_t identification;
};

/* False when one of them cannot be left out: an unfinished source route, an authentication header,
 * anything between the fragment header and the payload. */
static bool read_headers(const uint8_t *packet, unsigned end, struct headers *out) {
    uint8_t next = packet[6];
    unsigned at = IPV6_HEADER;

    memset(out, 0, sizeof(*out));
    while (at < end) {
        if (next == IPPROTO_FRAGMENT) {
            uint16_t field = rte_be_to_cpu_16(load16(packet + at + 2));

            out->fragment = true;
            out->offset = (uint16_t)(field >> 3 | (field & 1 ? RTE_IPV4_HDR_MF_FLAG : 0));
            out->identification = load16(packet + at + 6);
            return at + IPV6_FRAGMENT == end;
        }
        if (next == IPPROTO_AH || (next == IPPROTO_ROUTING && packet[at + 3] != 0))
            return false;
        next = packet[at];
        at += (packet[at + 1] + 1u) * 8;
    }
    return at == end;
}

/* Of packets that may be fragmented, unique for a while (RFC 6864 section 4). */
static uint16_t next_identification(const struct worker *worker) {
    static struct { uint16_t next; } __rte_cache_aligned counters[WORKERS_MAX];

    return rte_cpu_to_be_16(
        (uint16_t)(counters[worker->index].next++ * workers_count() + worker->index));
}

static enum session_drop to_ipv4(struct worker *worker, struct rte_mbuf *mbuf,
                                 const union flow_key *to) {
    struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    uint32_t total = IPV4_HEADER + mbuf->pkt_len - meta->l4_offset;
    uint8_t traffic_class = (uint8_t)(rte_be_to_cpu_16(load16(packet)) >> 4);
    uint8_t hop_limit = packet[7], *new;
    uint16_t fragment = 0;
    struct headers headers;
    enum session_drop result;

    if (!read_headers(packet, (unsigned)meta->l4_offset - meta->l3_offset, &headers))
        return SESSION_DROP_FAMILY_HEADER;
    if (total > IPV4_LENGTH_MAX)
        return SESSION_DROP_FAMILY_LENGTH;
    result = change_transport(mbuf, to, false);
    if (result != SESSION_PASS)
        return result;
    new = new_header(mbuf, IPV4_HEADER);
    if (!new)
        return SESSION_DROP_NO_HEADROOM;
    set_family(meta, false);

    if (headers.fragment)
        fragment = rte_cpu_to_be_16(headers.offset);
    else if (total > IPV4_DF_ABOVE)
        fragment = RTE_BE16(RTE_IPV4_HDR_DF_FLAG);
    else
        headers.identification = next_identification(worker);
    write_ipv4(new, traffic_class, (uint16_t)total, headers.identification, fragment, hop_limit,
               meta->l4_protocol, &to->v4);
    return SESSION_PASS;
}

/* --- pieces --- */

static bool needs_pieces(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const struct rte_ipv4_hdr *ip = packet_l3(mbuf, const struct rte_ipv4_hdr *);
    uint32_t length = IPV6_HEADER + mbuf->pkt_len - meta->l4_offset;

    if (meta->flags & PACKET_FRAGMENT)
        length += IPV6_FRAGMENT;
    return length > IPV6_LEAST_MTU && !(ip->fragment_offset & RTE_BE16(RTE_IPV4_HDR_DF_FLAG));
}

static void send_piece(struct worker *worker, struct rte_mbuf *piece, void *context) {
    enum session_drop result = header_to_ipv6(piece, context);

    if (result == SESSION_PASS) {
        worker_route(worker, piece);
        return;
    }
    session_drop_count(worker, result);
    rte_pktmbuf_free(piece);
}

/* Through the router ring: the burst has no place for more packets. The transport header is changed
 * before: its checksum may cover all of the packet, and it may come to lie in a buffer of its own.
 */
static enum session_drop in_pieces(struct worker *worker, struct rte_mbuf *mbuf,
                                   const union flow_key *to) {
    const uint16_t mtu = IPV4_HEADER + IPV6_LEAST_MTU - IPV6_HEADER - IPV6_FRAGMENT;
    union flow_key key = *to;
    enum session_drop result = change_transport(mbuf, to, true);

    if (result != SESSION_PASS)
        return result;
    rte_pktmbuf_refcnt_update(mbuf, 1); /* the burst lets go of it as well */
    if (ipv4_fragment(worker, mbuf, mtu, send_piece, &key) > 0)
        return SESSION_TAKEN;
    rte_pktmbuf_refcnt_update(mbuf, -1);
    return SESSION_DROP_FAMILY_LENGTH;
}

enum session_drop session_family_change(struct worker *worker, struct rte_mbuf *mbuf,
                                        const union flow_key *to) {
    if (packet_meta(mbuf)->flags & PACKET_IPV6)
        return to_ipv4(worker, mbuf, to);
    if (needs_pieces(mbuf))
        return in_pieces(worker, mbuf, to);
    return to_ipv6(mbuf, to);
}

bool session_family_restore(struct worker *worker, struct rte_mbuf *mbuf,
                            const union flow_key *came) {
    return (packet_meta(mbuf)->flags & PACKET_IPV6 ? to_ipv4(worker, mbuf, came)
                                                   : to_ipv6(mbuf, came)) == SESSION_PASS;
}
