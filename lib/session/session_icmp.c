/*
 * ICMP errors (RFC 792, 4443) about packets of sessions. The quoted packet is one that the router
 * sent, so its addresses turned round are the key of the flow in the direction of the error. Both
 * the error and the packet in it are translated as that flow's packets are, RFC 5508 sections 4
 * and 5.
 */
#include "l3/icmp.h"
#include "session/session_internal.h"

enum { ICMP_HEADER = 8, QUOTE_LEAST = 8, IPV6_FRAGMENT = 8 };

/* The packet in the error: its header and where its transport header is. */
struct quote {
    uint8_t *packet, *transport;
    unsigned left; /* bytes of the transport header and behind it, in the first buffer */
    uint8_t protocol;
    bool ipv6;
};

static bool read_quote4(struct quote *quote, uint8_t *packet, unsigned length) {
    unsigned header = (packet[0] & 15u) * 4;

    if (packet[0] >> 4 != 4 || header < IPV4_HEADER || length < header + QUOTE_LEAST)
        return false;
    if (load16(packet + 6) & RTE_BE16(RTE_IPV4_HDR_OFFSET_MASK))
        return false; /* of a later fragment: no ports */
    *quote = (struct quote){.packet = packet,
                            .transport = packet + header,
                            .left = length - header,
                            .protocol = packet[9]};
    return true;
}

/* Of extension headers only a fragment header is passed, that of a first fragment: hosts send
 * hardly any other, and what cannot be told has no ports. */
static bool read_quote6(struct quote *quote, uint8_t *packet, unsigned length) {
    unsigned header = IPV6_HEADER;
    uint8_t protocol;

    if (packet[0] >> 4 != 6 || length < IPV6_HEADER + QUOTE_LEAST)
        return false;
    protocol = packet[6];
    if (protocol == IPPROTO_FRAGMENT) {
        protocol = packet[IPV6_HEADER];
        header += IPV6_FRAGMENT;
        if (load16(packet + IPV6_HEADER + 2) & RTE_BE16(0xfff8) || length < header + QUOTE_LEAST)
            return false; /* of a later fragment: no ports */
    }
    *quote = (struct quote){.packet = packet,
                            .transport = packet + header,
                            .left = length - header,
                            .protocol = protocol,
                            .ipv6 = true};
    return true;
}

/* The quoted packet's ports as a key has them; false when it is no packet that sessions are made
 * of. */
static bool quoted_ports(const struct quote *quote, uint16_t ports[2]) {
    const uint8_t *transport = quote->transport;

    ports[0] = ports[1] = 0;
    if (session_transports[quote->protocol].ports) {
        ports[0] = load16(transport);
        ports[1] = load16(transport + 2);
    } else if (quote->protocol == (quote->ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
        uint16_t identifier = load16(transport + ICMP_IDENTIFIER);
        bool echo = quote->ipv6 || transport[0] == ICMP4_ECHO || transport[0] == ICMP4_ECHO_REPLY;
        uint16_t port = echo ? RTE_BE16(ICMP4_ECHO) : RTE_BE16(ICMP4_TIMESTAMP);

        switch (transport[0]) {
        case ICMP4_ECHO:
        case ICMP4_TIMESTAMP:
        case ICMP6_ECHO:
            ports[0] = identifier;
            ports[1] = port;
            break;
        case ICMP4_ECHO_REPLY:
        case ICMP4_TIMESTAMP_REPLY:
        case ICMP6_ECHO_REPLY:
            ports[0] = port;
            ports[1] = identifier;
            break;
        default:
            return false;
        }
    }
    return true;
}

/* The flow whose packets go where the error goes. */
static uint32_t find_flow(const struct quote *quote, uint16_t vrf) {
    uint32_t protocol_vrf = flow_protocol_vrf(quote->protocol, vrf);
    union flow_key key = {0};
    uint16_t ports[2];

    if (!quoted_ports(quote, ports))
        return SESSION_NONE;
    if (quote->ipv6) {
        memcpy(key.v6.source, quote->packet + 24, 16);
        memcpy(key.v6.destination, quote->packet + 8, 16);
        key.v6.source_port = ports[1];
        key.v6.destination_port = ports[0];
        key.v6.protocol_vrf = protocol_vrf;
    } else {
        key.v4 = (struct flow_key4){.source = load32(quote->packet + 16),
                                    .destination = load32(quote->packet + 12),
                                    .source_port = ports[1],
                                    .destination_port = ports[0],
                                    .protocol_vrf = protocol_vrf};
    }
    return session_table_find(&key, quote->ipv6, flow_key_hash(&key, quote->ipv6));
}

/* Is there a checksum in the quote that would have to follow the translation, but behind the first
 * buffer? */
static bool checksum_out_of_reach(const struct quote *quote, const struct rte_mbuf *mbuf) {
    unsigned checksum = session_transports[quote->protocol].checksum;
    unsigned behind = mbuf->pkt_len - mbuf->data_len;

    return checksum != 0 && checksum + 2 > quote->left && checksum + 2 <= quote->left + behind;
}

static void set16(uint8_t *at, uint16_t value) {
    memcpy(at, &value, sizeof(value));
}

/* Puts other addresses and ports into the quoted packet, all of whose checksums follow as far as
 * they are quoted. The error's own checksum is made anew afterwards. */
static void translate_quote(const struct quote *quote, const struct rewrite *to) {
    const struct transport *transport = &session_transports[quote->protocol];
    uint8_t *packet = quote->packet;
    /* What the flow makes of source and destination belongs to the other end of the quoted packet.
     */
    uint32_t addresses = checksum_difference32(load32(packet + 12), to->destination) +
                         checksum_difference32(load32(packet + 16), to->source);
    uint32_t difference = quote->protocol == IPPROTO_ICMP ? 0 : addresses;
    uint8_t *source = NULL, *destination = NULL;

    set16(packet + 10, checksum_plus(load16(packet + 10), checksum_fold(checksum_fold(addresses))));
    memcpy(packet + 12, &to->destination, 4);
    memcpy(packet + 16, &to->source, 4);
    if (transport->ports && transport->checksum) {
        source = quote->transport;
        destination = quote->transport + 2;
    } else if (quote->protocol == IPPROTO_ICMP) {
        bool query = quote->transport[0] == ICMP4_ECHO || quote->transport[0] == ICMP4_TIMESTAMP;

        *(query ? &source : &destination) = quote->transport + ICMP_IDENTIFIER;
    }
    if (source) {
        difference += checksum_difference16(load16(source), to->destination_port);
        set16(source, to->destination_port);
    }
    if (destination) {
        difference += checksum_difference16(load16(destination), to->source_port);
        set16(destination, to->source_port);
    }
    if (transport->checksum && transport->checksum + 2u <= quote->left)
        session_add_to_checksum(transport, quote->transport,
                                checksum_fold(checksum_fold(difference)));
}

static void sum_error6_anew(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    uint8_t *icmp = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset);
    uint32_t length = mbuf->pkt_len - meta->l4_offset;
    uint32_t pseudo = (uint32_t)session_address_sum(packet_l3(mbuf, const uint8_t *), true) +
                      rte_cpu_to_be_16((uint16_t)length) + RTE_BE16(IPPROTO_ICMPV6);

    set16(icmp + ICMP_CHECKSUM, 0);
    set16(icmp + ICMP_CHECKSUM, (uint16_t)~icmp_sum_from(mbuf, meta->l4_offset, pseudo));
}

/* Ports and checksum of the quoted packet, whose addresses are still the old ones. */
static void translate_quote6(const struct quote *quote, const union flow_key *sent) {
    uint16_t old = session_address_sum(quote->packet, true),
             new = session_key_address_sum(sent, true), identifier;
    uint8_t *icmp = quote->transport;
    uint32_t difference;

    if (quote->protocol != IPPROTO_ICMPV6) {
        session_family_transport(quote->transport, quote->left, quote->protocol, 0, old, new, sent,
                                 true);
        return;
    }
    identifier = icmp[0] == ICMP6_ECHO ? sent->v6.source_port : sent->v6.destination_port;
    difference = (uint32_t)(uint16_t)~old + new +
                 checksum_difference16(load16(icmp + ICMP_IDENTIFIER), identifier);
    set16(icmp + ICMP_IDENTIFIER, identifier);
    set16(icmp + ICMP_CHECKSUM,
          checksum_plus(load16(icmp + ICMP_CHECKSUM), checksum_fold(difference)));
}

/* The same for IPv6. Without FLOW_PORTS the addresses that take each other's place leave checksums
 * as they are (RFC 6296), the error's own included. */
static void translate_error6(struct rte_mbuf *mbuf, const struct quote *quote, uint32_t number) {
    union flow_key sent = flow_key_of(&session_flows[flow_other(number)]);
    bool ports = session_flows[number].flags & FLOW_PORTS;

    if (ports)
        translate_quote6(quote, &sent);
    memcpy(quote->packet + 8, sent.v6.source, 16);
    memcpy(quote->packet + 24, sent.v6.destination, 16);
    session_replace6(mbuf, false, sent.v6.source, 0);
    if (ports)
        sum_error6_anew(mbuf);
}

/* The error goes to where the flow's packets go. Its source comes later: see
 * session_rewrite_source(). */
static void translate_error(struct rte_mbuf *mbuf, const struct flow *flow) {
    const struct packet_meta *meta = packet_meta(mbuf);
    uint8_t *packet = packet_l3(mbuf, uint8_t *);
    uint8_t *icmp = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset);
    uint32_t difference = checksum_difference32(load32(packet + 16), flow->rewrite.destination);

    set16(packet + 10, checksum_plus(load16(packet + 10), checksum_fold(difference)));
    memcpy(packet + 16, &flow->rewrite.destination, 4);
    set16(icmp + ICMP_CHECKSUM, 0);
    set16(icmp + ICMP_CHECKSUM, (uint16_t)~icmp_sum_from(mbuf, meta->l4_offset, 0));
}

enum session_drop session_icmp_error(struct rte_mbuf *mbuf) {
    struct packet_meta *meta = packet_meta(mbuf);
    bool ipv6 = meta->flags & PACKET_IPV6;
    uint8_t *packet = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset + ICMP_HEADER);
    unsigned length = mbuf->data_len - meta->l4_offset - ICMP_HEADER;
    struct quote quote;
    uint32_t number;
    struct flow *flow;

    if (length < (ipv6 ? IPV6_HEADER : IPV4_HEADER) ||
        !(ipv6 ? read_quote6(&quote, packet, length) : read_quote4(&quote, packet, length)))
        return SESSION_DROP_ICMP_QUOTE;
    if (!icmp_checksum_is_right(mbuf))
        return SESSION_DROP_ICMP_CHECKSUM;
    number = find_flow(&quote, meta->vrf);
    if (number == SESSION_NONE || session_flows[number].flags & FLOW_DEAD)
        return SESSION_MISS;
    flow = &session_flows[number];
    /* It has to go to who sent what it quotes. */
    if (ipv6 ? memcmp(packet_l3(mbuf, const uint8_t *) + 24, flow->key6.destination, 16) != 0
             : load32(packet_l3(mbuf, const uint8_t *) + 16) != flow->key4.destination)
        return SESSION_DROP_ICMP_QUOTE;
    if (flow->flags & (FLOW_SOURCE | FLOW_DESTINATION | FLOW_OTHER_FAMILY)) {
        if (meta->flags & PACKET_FRAGMENT)
            return SESSION_DROP_ICMP_QUOTE; /* its checksum could not be put right */
        if ((flow->flags & FLOW_PORTS || !(flow->flags & (FLOW_IPV6 | FLOW_OTHER_FAMILY))) &&
            checksum_out_of_reach(&quote, mbuf))
            return SESSION_DROP_SPLIT_HEADER;
        meta->session = number;
    }
    if (flow->flags & FLOW_OTHER_VRF)
        meta->vrf = session_vrf_of(number);
    if (flow->flags & FLOW_OTHER_FAMILY)
        return session_family_icmp_error(mbuf, number, (unsigned)(quote.transport - quote.packet));
    if (flow->flags & (FLOW_SOURCE | FLOW_DESTINATION)) {
        if (ipv6) {
            translate_error6(mbuf, &quote, number);
        } else {
            translate_quote(&quote, &flow->rewrite);
            translate_error(mbuf, flow);
        }
    }
    return SESSION_PASS;
}
