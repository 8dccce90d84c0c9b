/*
 * ICMP (RFC 792, 1122, 1812) and ICMPv6 (RFC 4443) in the worker: errors about packets that cannot
 * be forwarded, and answers to echo requests for the router's own addresses.
 */
#pragma once

#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

struct worker;

/* Why an error is sent; the family of the packet decides which type and code that is. */
enum icmp_error {
    ICMP_ERROR_TIME_EXCEEDED,
    ICMP_ERROR_NET_UNREACHABLE,
    ICMP_ERROR_HOST_UNREACHABLE,
    ICMP_ERROR_PROHIBITED,
    ICMP_ERROR_PORT_UNREACHABLE,
    ICMP_ERROR_PROTOCOL_UNREACHABLE, /* ICMPv6: parameter problem, unrecognised next header */
    ICMP_ERROR_TOO_BIG,              /* argument: the MTU */
    ICMP_ERROR_PARAMETER,            /* argument: offset of the faulty octet; IPv6 option */
};

/* Sends an error about the packet to its source if the RFCs allow one (never about errors, later
 * fragments, broadcasts, multicasts, impossible sources) and the rate limit has room. Does not
 * consume the packet, which may be chained; its header is in the first segment. */
void icmp_send_error(struct worker *worker, struct rte_mbuf *about, enum icmp_error error,
                     uint32_t argument);

/* Whoever translates packets sets this before the workers start: it puts the packet that an error
 * is about back to how it came in, so that its sender gets the error and knows what it quotes. */
extern void (*icmp_restore)(struct worker *worker, struct rte_mbuf *about);

/* If the packet is an echo request to one of the router's addresses, turns it into the answer,
 * sends that, and returns true; the packet then is no longer the caller's. */
bool icmp_answer_echo(struct worker *worker, struct rte_mbuf *mbuf);

/* For other answers to packets that are not wanted (a TCP RST): has the rate limit of errors room
 * for one more? Then it is taken. */
bool icmp_rate_allows(struct worker *worker);

/* Sends a packet that answers one which came in by `interface`; takes ownership. Its metadata is
 * that of a packet made by the router; a link-local destination, for which there is no route, is
 * looked for on that interface. */
void icmp_send_reply(struct worker *worker, struct rte_mbuf *reply, uint16_t interface);

/* Limits: errors per second and worker, and how many at once after silence. Any thread. */
void icmp_set_rate(uint32_t errors_per_second, uint32_t burst);

/* One's complement sum (RFC 1071) of the packet from `offset` on, added to `sum`; in network order.
 * Buffers may be of odd length, where rte_raw_cksum_mbuf() of DPDK 22.11 loses carries. */
uint16_t icmp_sum_from(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t sum);

/* Is the checksum of an ICMP or ICMPv6 packet right? Of a fragment that cannot be told: yes. */
bool icmp_checksum_is_right(struct rte_mbuf *mbuf);
