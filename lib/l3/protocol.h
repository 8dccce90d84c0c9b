/*
 * Sending and receiving the frames of ARP (RFC 826, 5227) and Neighbour Discovery (RFC 4861, 4862).
 * neighbour.c decides when; these build and read frames. Control thread only.
 */
#pragma once

#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/ip.h"
#include "interface/interface.h"

/* Asks who has `target`: to `unicast_mac`, or to everybody (broadcast, solicited-node group) if
 * NULL. */
void arp_send_request(const struct interface *interface, const struct ip_address *target,
                      const uint8_t *unicast_mac);
void nd_send_solicitation(const struct interface *interface, const struct ip_address *target,
                          const uint8_t *unicast_mac);

/* Announces the router's own address: gratuitous ARP (RFC 5227 2.3), unsolicited NA. */
void arp_send_announcement(const struct interface *interface, const struct ip_address *address);
void nd_send_announcement(const struct interface *interface, const struct ip_address *address);

/* A punted ARP frame / ICMPv6 ND packet (types 133-137). Take ownership. */
void arp_input(struct rte_mbuf *mbuf);
void nd_input(struct rte_mbuf *mbuf);

int arp_init(void); /* listens to interfaces: announces addresses */
int nd_init(void);  /* listens to interfaces: DAD, link-local, router advertisements */
