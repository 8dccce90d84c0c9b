/* Fragmentation of IPv4 (RFC 791 section 2.3, RFC 1812 section 4.2.2.7), by DPDK's library. */
#pragma once

#include <rte_mbuf.h>
#include <stdint.h>

struct worker;

/* Cuts the packet, which may be a fragment itself and whose DF is clear, into pieces of at most
 * `mtu` bytes from the IP header on, and gives each to `send`, which takes ownership: a buffer with
 * room for a link-layer header in front, the packet's metadata with the flags of a fragment, and a
 * right header checksum. Consumes the packet unless it fails. Returns the number of pieces, or a
 * negative errno. */
int ipv4_fragment(struct worker *worker, struct rte_mbuf *mbuf, uint16_t mtu,
                  void (*send)(struct worker *worker, struct rte_mbuf *fragment, void *context),
                  void *context);

/* Flags of mbuf->ol_flags that each piece gets from the whole. Changed before the first of those
 * packets. */
extern uint64_t ipv4_fragments_keep;
