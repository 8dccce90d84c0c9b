/*
 * The rules for IPv6: network prefix translation (RFC 6296) and the choice of NAT64 rules (RFC
 * 6146). Addresses are 16 bytes in network order.
 */
#pragma once

#include "nat/nat_rules.h"

bool nat_in_prefix6(const struct nat_prefix6 *prefix, const uint8_t address[16]);

/* --- NPTv6 --- */

/* Works out the adjustment of a rule whose prefixes are set. */
void nptv6_prepare(struct nptv6_rule *rule);
/* The address with the other prefix, and with one word changed so that no checksum changes; outward
 * it has the inside prefix. False when it has no counterpart: the word, or all that it could be,
 * has only ones, or the interface identifier is zero (the routers' anycast address, RFC 4291
 * section 2.6.1) and would have to be changed. What is translated outward comes back the same. */
bool nptv6_translate(const struct nptv6_rule *rule, bool outward, const uint8_t from[16],
                     uint8_t to[16]);
/* The first rule whose packets leave by the interface and whose inside (outside) holds the address.
 */
const struct nptv6_rule *nptv6_of_inside(const struct nat_rules *rules, uint16_t out,
                                         const uint8_t address[16]);
const struct nptv6_rule *nptv6_of_outside(const struct nat_rules *rules, uint16_t vrf,
                                          const uint8_t address[16]);

/* --- NAT64 --- */

/* The first rule whose prefix holds the address, for packets that came in by the interface and the
 * VRF: a rule without an incoming interface is for the VRF of the outgoing one. */
const struct nat64_rule *nat64_of_destination(const struct nat_rules *rules, uint16_t in,
                                              uint16_t vrf, const uint8_t address[16]);
bool nat_in_pool(const struct nat_source_rule *rule, uint32_t outside);
/* Does a rule of the VRF give the inside address this outside one? */
bool nat64_gives(const struct nat_rules *rules, uint16_t vrf, uint32_t outside,
                 const uint8_t inside[16]);
/* The interface whose rules or static bindings have the outside address; 0: none. */
uint16_t nat64_outside_interface(const struct nat_rules *rules, uint16_t vrf, uint32_t outside);
/* The IPv4 address that the destination stands for; network order. */
uint32_t nat64_ipv4(const struct nat64_rule *rule, const uint8_t destination[16]);
/* May the address be reached by the rule's prefix? Behind 64:ff9b::/96 only global ones may (RFC
 * 6052 section 3.1); no group, no broadcast, none of this host or network anywhere. */
bool nat64_may_reach(const struct nat64_rule *rule, uint32_t ipv4);
/* The first rule for a packet of these IPv6 addresses that leaves by packet->out; packet has
 * interfaces, protocol (as IPv4 has it) and IPv4 destination. NULL if there is none. */
const struct nat64_rule *nat64_match(const struct nat_rules *rules, const struct nat_packet *packet,
                                     const uint8_t source[16], const uint8_t destination[16]);
/* The first rule by which the inside address, with this outside one (network order), would send
 * such a packet, and with which anybody may send to it. */
const struct nat64_rule *nat64_open_to(const struct nat_rules *rules,
                                       const struct nat_packet *packet, uint32_t outside,
                                       const uint8_t inside[16]);

/* --- static bindings of NAT64 --- */

/* Sorts both lists, once they are filled in. */
void nat64_statics_prepare(struct nat_rules *rules);
/* The one that this outside port leads to, and the one that all of the address does. Address and
 * port in network order, protocol as IPv4 has it. */
const struct nat64_static *nat64_static_port(const struct nat_rules *rules, uint16_t vrf,
                                             uint32_t outside, uint8_t protocol, uint16_t port);
const struct nat64_static *nat64_static_address(const struct nat_rules *rules, uint16_t vrf,
                                                uint32_t outside);
/* The first, or else the second. */
const struct nat64_static *nat64_static_outside(const struct nat_rules *rules, uint16_t vrf,
                                                uint32_t outside, uint8_t protocol, uint16_t port);
/* The one by which the inside address and port appear on the outgoing interface. */
const struct nat64_static *nat64_static_inside(const struct nat_rules *rules, uint16_t out,
                                               const uint8_t inside[16], uint8_t protocol,
                                               uint16_t port);
/* What an outside port becomes, and an inside one; network order. */
uint16_t nat64_static_inward(const struct nat64_static *fixed, uint16_t port);
uint16_t nat64_static_outward(const struct nat64_static *fixed, uint16_t port);

/* A number that is the same for all packets of an inside address, for nat_share_of(). */
uint32_t nat64_inside_number(const uint8_t address[16]);
