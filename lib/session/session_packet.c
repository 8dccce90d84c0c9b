/* What sessions read from packets, and write into them. */
#include "l3/icmp.h"
#include "session/session_internal.h"

/* DCCP, SCTP and UDP-Lite begin with the ports, too; SCTP's checksum is a CRC of the whole packet
 * without addresses (RFC 9260 appendix A), so that its ports are left as they are. */
const struct transport session_transports[256] = {
    [IPPROTO_TCP] = {.ports = 1, .checksum = 16, .length = 20},
    [IPPROTO_UDP] = {.ports = 1, .checksum = 6, .zero_is_none = 1, .zero_is_ones = 1, .length = 8},
    [IPPROTO_UDPLITE] = {.ports = 1, .checksum = 6, .zero_is_ones = 1, .length = 8},
    [IPPROTO_DCCP] = {.ports = 1, .checksum = 6, .length = 12},
    [IPPROTO_SCTP] = {.ports = 1, .length = 12},
    [IPPROTO_ICMP] = {.checksum = ICMP_CHECKSUM, .length = 8},
    [IPPROTO_ICMPV6] = {.checksum = ICMP_CHECKSUM, .length = 4},
};

/* --- keys --- */

enum icmp_kind { ICMP_KIND_OTHER, ICMP_KIND_QUERY, ICMP_KIND_ANSWER, ICMP_KIND_ERROR };

/* RFC 792 and 950, and RFC 4443. */
static enum icmp_kind icmp4_kind(uint8_t type) {
    switch (type) {
    case ICMP4_ECHO:
    case ICMP4_TIMESTAMP:
        return ICMP_KIND_QUERY;
    case ICMP4_ECHO_REPLY:
    case ICMP4_TIMESTAMP_REPLY:
        return ICMP_KIND_ANSWER;
    case 3:  /* destination unreachable */
    case 11: /* time exceeded */
    case 12: /* parameter problem */
        return ICMP_KIND_ERROR;
    default:
        return ICMP_KIND_OTHER;
    }
}

static enum icmp_kind icmp6_kind(uint8_t type) {
    switch (type) {
    case ICMP6_ECHO:
        return ICMP_KIND_QUERY;
    case ICMP6_ECHO_REPLY:
        return ICMP_KIND_ANSWER;
    default:
        return type < 128 ? ICMP_KIND_ERROR : ICMP_KIND_OTHER;
    }
}

/* The port of the side that does not have the identifier: the query's type, so that an echo and a
 * timestamp with the same identifier are two sessions. */
static uint16_t query_port(uint8_t type) {
    switch (type) {
    case ICMP4_ECHO:
    case ICMP4_ECHO_REPLY:
    case ICMP6_ECHO:
    case ICMP6_ECHO_REPLY:
        return RTE_BE16(ICMP4_ECHO);
    default:
        return RTE_BE16(ICMP4_TIMESTAMP);
    }
}

static enum session_drop icmp_ports(const uint8_t *icmp, bool ipv6, uint16_t ports[2],
                                    struct session_miss *miss) {
    enum icmp_kind kind = ipv6 ? icmp6_kind(icmp[0]) : icmp4_kind(icmp[0]);

    miss->icmp_type = icmp[0];
    miss->icmp_code = icmp[1];
    switch (kind) {
    case ICMP_KIND_QUERY:
        ports[0] = load16(icmp + ICMP_IDENTIFIER);
        ports[1] = query_port(icmp[0]);
        return SESSION_PASS;
    case ICMP_KIND_ANSWER:
        ports[0] = query_port(icmp[0]);
        ports[1] = load16(icmp + ICMP_IDENTIFIER);
        miss->is_answer = true;
        return SESSION_PASS;
    case ICMP_KIND_ERROR:
        return SESSION_MISS;
    default:
        miss->stateless = true;
        return SESSION_PASS;
    }
}

/* Ports of whatever the transport protocol is; the header has to lie in the first buffer. */
static enum session_drop read_ports(struct rte_mbuf *mbuf, uint16_t ports[2],
                                    struct session_miss *miss) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const struct transport *transport = &session_transports[meta->l4_protocol];
    bool ipv6 = meta->flags & PACKET_IPV6;
    const uint8_t *header = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, meta->l4_offset);
    unsigned length = transport->length;

    ports[0] = ports[1] = 0;
    if (meta->flags & PACKET_LATER_FRAGMENT)
        return SESSION_PASS;
    if (meta->l4_protocol == IPPROTO_ICMPV6 && meta->l4_offset < mbuf->data_len &&
        (header[0] == ICMP6_ECHO || header[0] == ICMP6_ECHO_REPLY || header[0] < 128))
        length = 8;
    if ((uint32_t)meta->l4_offset + length > mbuf->pkt_len)
        return meta->flags & PACKET_FRAGMENT ? SESSION_DROP_FRAGMENT_TINY : SESSION_DROP_TRUNCATED;
    if ((uint32_t)meta->l4_offset + length > mbuf->data_len)
        return SESSION_DROP_SPLIT_HEADER;
    if (meta->l4_protocol == (ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
        return icmp_ports(header, ipv6, ports, miss);
    if (meta->l4_protocol == IPPROTO_TCP)
        miss->tcp_flags = header[TCP_FLAGS];
    if (transport->ports) {
        ports[0] = load16(header);
        ports[1] = load16(header + 2);
    }
    return SESSION_PASS;
}

enum session_drop session_key_of(struct rte_mbuf *mbuf, struct session_miss *miss) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    uint32_t protocol_vrf = flow_protocol_vrf(meta->l4_protocol, meta->vrf);
    uint16_t ports[2];
    enum session_drop result;

    memset(miss, 0, sizeof(*miss));
    result = read_ports(mbuf, ports, miss);
    if (meta->flags & PACKET_IPV6) {
        miss->flags = FLOW_IPV6;
        memcpy(miss->key.v6.source, packet + 8, 32);
        miss->key.v6.source_port = ports[0];
        miss->key.v6.destination_port = ports[1];
        miss->key.v6.protocol_vrf = protocol_vrf;
        memcpy(miss->destination6, packet + 24, 16);
    } else {
        miss->key.v4 = (struct flow_key4){.source = load32(packet + 12),
                                          .destination = load32(packet + 16),
                                          .source_port = ports[0],
                                          .destination_port = ports[1],
                                          .protocol_vrf = protocol_vrf};
        miss->destination = miss->key.v4.destination;
    }
    miss->destination_port = ports[1];
    return result;
}

union flow_key session_key_reversed(const union flow_key *key, bool ipv6) {
    union flow_key out = *key;

    if (ipv6) {
        memcpy(out.v6.source, key->v6.destination, 16);
        memcpy(out.v6.destination, key->v6.source, 16);
        out.v6.source_port = key->v6.destination_port;
        out.v6.destination_port = key->v6.source_port;
    } else {
        out.v4.source = key->v4.destination;
        out.v4.destination = key->v4.source;
        out.v4.source_port = key->v4.destination_port;
        out.v4.destination_port = key->v4.source_port;
    }
    return out;
}

/* --- rewriting --- */

void session_set_rewrite(struct flow *flow, uint32_t source, uint16_t source_port,
                         uint32_t destination, uint16_t destination_port) {
    const struct flow_key4 *key = &flow->key4;
    struct rewrite *rewrite = &flow->rewrite;
    /* ICMP's checksum does not cover addresses. */
    bool pseudo = (uint8_t)key->protocol_vrf != IPPROTO_ICMP;
    uint32_t from = checksum_difference32(key->source, source);
    uint32_t to = checksum_difference32(key->destination, destination);

    rewrite->source = source;
    rewrite->destination = destination;
    rewrite->source_port = source_port;
    rewrite->destination_port = destination_port;
    rewrite->source_header = checksum_fold(from);
    rewrite->destination_header = checksum_fold(to);
    rewrite->source_transport =
        checksum_fold((pseudo ? from : 0) + checksum_difference16(key->source_port, source_port));
    rewrite->destination_transport = checksum_fold(
        (pseudo ? to : 0) + checksum_difference16(key->destination_port, destination_port));
}

static uint16_t checksum_difference6(const uint8_t *old, const uint8_t *new) {
    uint64_t difference = 0;

    for (unsigned i = 0; i < 16; i += 4)
        difference += checksum_difference32(load32(old + i), load32(new + i));
    return checksum_fold((uint32_t)difference);
}

static void add_to_header(uint8_t *at, uint16_t difference) {
    uint16_t checksum = checksum_plus(load16(at), difference);

    memcpy(at, &checksum, sizeof(checksum));
}

void session_add_to_checksum(const struct transport *transport, uint8_t *header,
                             uint16_t difference) {
    uint8_t *at = header + transport->checksum;
    uint16_t checksum = load16(at);

    if (transport->zero_is_none && checksum == 0)
        return;
    checksum = checksum_plus(checksum, difference);
    if (transport->zero_is_ones && checksum == 0)
        checksum = UINT16_MAX; /* RFC 768, RFC 3828 section 3.1 */
    memcpy(at, &checksum, sizeof(checksum));
}

/* Where the port stands that goes with the address: for ICMP queries the identifier, which is the
 * asking side's. NULL: nowhere. */
static uint8_t *port_at(uint8_t *header, uint8_t protocol, bool source) {
    enum icmp_kind wanted = source ? ICMP_KIND_QUERY : ICMP_KIND_ANSWER;

    if (protocol == IPPROTO_ICMP)
        return icmp4_kind(header[0]) == wanted ? header + ICMP_IDENTIFIER : NULL;
    if (protocol == IPPROTO_ICMPV6)
        return icmp6_kind(header[0]) == wanted ? header + ICMP_IDENTIFIER : NULL;
    if (!session_transports[protocol].ports || !session_transports[protocol].checksum)
        return NULL;
    return header + (source ? 0 : 2);
}

/* An answer of nothing but zeroes has ones for a checksum, where a difference gives zeroes: RFC
 * 1624 section 3. */
static bool is_zero_answer(const uint8_t *icmp) {
    return load64(icmp) == 0;
}

static void sum_anew(struct rte_mbuf *mbuf, uint8_t *icmp) {
    uint16_t checksum = (uint16_t)~icmp_sum_from(mbuf, packet_meta(mbuf)->l4_offset, 0);

    memcpy(icmp + ICMP_CHECKSUM, &checksum, sizeof(checksum));
}

static void rewrite_part(struct rte_mbuf *mbuf, bool source, uint32_t address, uint16_t port,
                         uint16_t header_difference, uint16_t transport_difference) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const struct transport *transport = &session_transports[meta->l4_protocol];
    uint8_t *packet = packet_l3(mbuf, uint8_t *);
    uint8_t *header = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset), *at;

    memcpy(packet + (source ? 12 : 16), &address, sizeof(address));
    add_to_header(packet + 10, header_difference);
    if (meta->flags & PACKET_LATER_FRAGMENT)
        return;
    at = port_at(header, meta->l4_protocol, source);
    if (at)
        memcpy(at, &port, sizeof(port));
    if (transport->checksum && (at || meta->l4_protocol != IPPROTO_ICMP))
        session_add_to_checksum(transport, header, transport_difference);
    if (meta->l4_protocol == IPPROTO_ICMP && is_zero_answer(header))
        sum_anew(mbuf, header);
}

static bool is_error4(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *type = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, meta->l4_offset);

    return !(meta->flags & PACKET_LATER_FRAGMENT) && meta->l4_protocol == IPPROTO_ICMP &&
           icmp4_kind(*type) == ICMP_KIND_ERROR;
}

void session_rewrite_destination(struct rte_mbuf *mbuf, uint32_t number) {
    const struct flow *flow = &session_flows[number];
    const struct rewrite *rewrite = &flow->rewrite;

    if (flow->flags & FLOW_IPV6)
        session_replace6(mbuf, false, session_flows[flow_other(number)].key6.source,
                         session_flows[flow_other(number)].key6.source_port);
    else
        rewrite_part(mbuf, false, rewrite->destination, rewrite->destination_port,
                     rewrite->destination_header, rewrite->destination_transport);
}

/* An error may come from a router on the way: whoever it is must not show where the flow's source
 * is hidden. */
void session_rewrite_source(struct rte_mbuf *mbuf, uint32_t number) {
    const struct flow *flow = &session_flows[number];
    const struct rewrite *rewrite = &flow->rewrite;

    if (flow->flags & FLOW_IPV6) {
        const struct flow_key6 *answers = &session_flows[flow_other(number)].key6;

        session_replace6(mbuf, true, answers->destination, answers->destination_port);
    } else if (is_error4(mbuf)) { /* ICMP's checksum does not cover addresses */
        session_replace(mbuf, true, rewrite->source, 0);
    } else {
        rewrite_part(mbuf, true, rewrite->source, rewrite->source_port, rewrite->source_header,
                     rewrite->source_transport);
    }
}

/* With a prefix instead of another (RFC 6296) the difference is nothing, and a checksum stays to
 * the bit what it was. */
void session_replace6(struct rte_mbuf *mbuf, bool source, const uint8_t address[16],
                      uint16_t port) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const struct transport *transport = &session_transports[meta->l4_protocol];
    uint8_t *at = packet_l3(mbuf, uint8_t *) + (source ? 8 : 24);
    uint8_t *header = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset), *port_field;
    uint32_t difference = checksum_difference6(at, address);

    memcpy(at, address, 16);
    if (meta->flags & PACKET_LATER_FRAGMENT)
        return;
    port_field = port_at(header, meta->l4_protocol, source);
    if (port_field && load16(port_field) != port) {
        difference += checksum_difference16(load16(port_field), port);
        memcpy(port_field, &port, sizeof(port));
    }
    difference = checksum_fold(difference);
    if (transport->checksum && difference != 0 && difference != UINT16_MAX)
        session_add_to_checksum(transport, header, (uint16_t)difference);
}

uint16_t session_vrf_of(uint32_t number) {
    const struct flow *flow = &session_flows[number];

    return flow->flags & FLOW_IPV6 ? flow_vrf(&session_flows[flow_other(number)])
                                   : flow->rewrite.vrf;
}

void session_replace(struct rte_mbuf *mbuf, bool source, uint32_t address, uint16_t port) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    uint8_t *header = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset);
    uint32_t old = load32(packet + (source ? 12 : 16));
    const uint8_t *at =
        meta->flags & PACKET_LATER_FRAGMENT ? NULL : port_at(header, meta->l4_protocol, source);
    uint16_t old_port = at ? load16(at) : port;
    uint32_t difference = checksum_difference32(old, address);
    bool pseudo = meta->l4_protocol != IPPROTO_ICMP;

    if (old == address && old_port == port)
        return;
    rewrite_part(mbuf, source, address, port, checksum_fold(difference),
                 checksum_fold((pseudo ? difference : 0) + checksum_difference16(old_port, port)));
}
