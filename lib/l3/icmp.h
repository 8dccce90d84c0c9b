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

/* If the packet is an echo request to one of the router's addresses, turns it into the answer,
 * sends that, and returns true; the packet then is no longer the caller's. */
bool icmp_answer_echo(struct worker *worker, struct rte_mbuf *mbuf);

/* Limits: errors per second and worker, and how many at once after silence. Any thread. */
void icmp_set_rate(uint32_t errors_per_second, uint32_t burst);
