/*
 * What the neighbour protocols ask about an interface: which addresses are its own, which are
 * on-link, and when an address that somebody else claims may be defended. Control thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/ip.h"
#include "interface/interface.h"

/* The interface's own address that equals `address`, tentative or valid; NULL if there is none. A
 * duplicate one is not the router's: another host has it, and is a neighbour like any other. */
const struct interface_address *link_own(const struct interface *interface,
                                         const struct ip_address *address);

/* Is the address in a connected prefix of the interface? IPv6 link-local addresses always are
 * (RFC 4861 section 2.1). Prefixes of duplicate addresses do not count. */
bool link_connected(const struct interface *interface, const struct ip_address *address);

/* Can a host on this link have the address? Unicast, connected, not the router's own, and for IPv4
 * neither the prefix's network nor its broadcast address. */
bool link_neighbour_possible(const struct interface *interface, const struct ip_address *address);

/* The address to ask from: own and usable, in the target's prefix if there is one; NULL if the
 * interface has no usable address of the family. */
const struct ip_address *link_source(const struct interface *interface,
                                     const struct ip_address *target);

/* A link-layer address that one host can have: neither zero nor a group. */
bool link_mac_is_host(const uint8_t mac[6]);

/* May the router's address be defended by an announcement now? At most once per 10 s for one
 * address (RFC 5227 section 2.4, DEFEND_INTERVAL), so that two stubborn hosts do not flood the
 * link. True also notes the defence. */
bool link_may_defend(uint16_t interface, const struct ip_address *address);

/* Set before the first configuration by who receives packets for addresses that no interface has (pools of
 * NAT addresses): are ARP requests for this address to be answered on the interface? */
extern bool (*arp_answers_for)(const struct interface *interface, const struct ip_address *address);
