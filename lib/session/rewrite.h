/*
 * Rewriting addresses and ports as a flow says. Checksums follow by their differences (RFC 1624),
 * which the flow holds ready.
 */
#pragma once

#include <netinet/in.h>

#include "l3/header.h"
#include "session/session.h"

/* One's complement arithmetic (RFC 1071, 1624) on words as they stand in memory. */
static inline uint16_t checksum_fold(uint32_t sum) {
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)(sum + (sum >> 16));
}

static inline uint16_t checksum_plus(uint16_t checksum, uint16_t difference) {
    return (uint16_t)~checksum_fold((uint32_t)(uint16_t)~checksum + difference);
}

/* Rewrites a packet's destination, or source, as the flow with this number says, whatever the
 * packet is; ICMP identifiers are ports. The transport header, if there is one, lies in the first
 * buffer. */
void session_rewrite_destination(struct rte_mbuf *mbuf, uint32_t number);
void session_rewrite_source(struct rte_mbuf *mbuf, uint32_t number);

/* The same for a TCP or UDP packet with 20 bytes of IPv4 header: the usual one. */
static inline void rewrite_plain(uint8_t *ip, bool source, uint32_t address, uint16_t port,
                                 uint16_t header_difference, uint16_t transport_difference) {
    bool udp = ip[9] == IPPROTO_UDP;
    uint8_t *at = ip + IPV4_HEADER + (udp ? 6 : 16);
    uint16_t header = checksum_plus(load16(ip + 10), header_difference);
    uint16_t old = load16(at), new = checksum_plus(old, transport_difference);

    memcpy(ip + 10, &header, sizeof(header));
    memcpy(ip + (source ? 12 : 16), &address, sizeof(address));
    memcpy(ip + IPV4_HEADER + (source ? 0 : 2), &port, sizeof(port));
    if (udp) /* RFC 768: 0 means that there is none, which stays so; one that is 0 is sent as ones
              */
        new = old == 0 ? 0 : new == 0 ? UINT16_MAX : new;
    memcpy(at, &new, sizeof(new));
}

static inline void session_rewrite_destination_plain(uint8_t *ip, const struct rewrite *to) {
    rewrite_plain(ip, false, to->destination, to->destination_port, to->destination_header,
                  to->destination_transport);
}

/* The same for a plain IPv6 packet, whose checksums stay as they are (RFC 6296). */
static inline void session_rewrite_destination_plain6(uint8_t *ip, uint32_t number) {
    memcpy(ip + 24, session_flows[flow_other(number)].key6.source, 16);
}

static inline void session_rewrite_source_plain6(uint8_t *ip, uint32_t number) {
    memcpy(ip + 8, session_flows[flow_other(number)].key6.destination, 16);
}

static inline void session_rewrite_source_plain(uint8_t *ip, const struct rewrite *to) {
    rewrite_plain(ip, true, to->source, to->source_port, to->source_header, to->source_transport);
}
