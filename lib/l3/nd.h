/*
 * What the files of Neighbour Discovery share:
 *
 *   nd.c          what comes in; solicitations, advertisements of neighbours and what they tell
 *   nd_packet.c   reading and building packets
 *   dad.c         duplicate address detection (RFC 4862 section 5.4)
 *   mld.c         joining the solicited-node groups (RFC 3810)
 *   ra.c          router advertisements (RFC 4861 section 6.2)
 *
 * Control thread only.
 */
#pragma once

#include <rte_mbuf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/drops.h"
#include "core/ip.h"
#include "interface/interface.h"

/* ICMPv6 types of RFC 4861 and RFC 3810. */
enum {
    MLD_QUERY = 130,
    ND_ROUTER_SOLICITATION = 133,
    ND_ROUTER_ADVERTISEMENT = 134,
    ND_NEIGHBOUR_SOLICITATION = 135,
    ND_NEIGHBOUR_ADVERTISEMENT = 136,
    ND_REDIRECT = 137,
    MLD_REPORT = 143,
};

/* Options of RFC 4861 section 4.6 and RFC 3971 section 5.3.2. */
enum {
    ND_OPTION_SOURCE_LINK = 1,
    ND_OPTION_TARGET_LINK = 2,
    ND_OPTION_PREFIX = 3,
    ND_OPTION_MTU = 5,
    ND_OPTION_NONCE = 14,
};

enum {
    ND_HOP_LIMIT = 255,
    ND_NONCE_LENGTH = 6,
    ND_MESSAGE_MAX = 1280 - 40, /* of those that are built: fits into any link */
    ND_RECEIVE_MAX = 2048,      /* an IPv6 packet that comes in */
};

/* Why something is not done. The text stands in nd.c. */
enum nd_drop {
    ND_SHORT,
    ND_TOO_LONG,
    ND_NO_INTERFACE,
    ND_NOT_ICMPV6,
    ND_FRAGMENTED,
    ND_HOP_LIMIT_BAD,
    ND_CHECKSUM,
    ND_CODE,
    ND_TYPE,
    ND_OPTION_LENGTH,
    ND_SOURCE,
    ND_DESTINATION,
    ND_TARGET,
    ND_LINK_OPTION,
    ND_SOLICITED_FLAG,
    ND_OWN_PACKET,
    ND_CONFLICT,
    ND_NOT_ON_LINK,
    ND_IGNORED_ADVERTISEMENT,
    ND_IGNORED_REDIRECT,
    ND_NO_BUFFER,
};

void nd_count(enum nd_drop reason);

/* --- nd_packet.c --- */

/* A packet that has passed the checks common to all types. Pointers lead into `bytes`. */
struct nd_packet {
    struct interface *interface;
    bool to_group; /* came as link-layer multicast */
    uint8_t link_source[6];
    uint8_t hop_limit;
    struct ip_address source, destination;
    const uint8_t *message; /* ICMPv6, from the type on */
    size_t length;
    uint8_t bytes[ND_RECEIVE_MAX];
};

/* Reads a received packet; false with the reason counted. */
bool nd_read(struct rte_mbuf *mbuf, struct nd_packet *out);

/* The options of a message, each NULL when absent. */
struct nd_options {
    const uint8_t *source_link, *target_link; /* six bytes */
    const uint8_t *nonce;                     /* ND_NONCE_LENGTH bytes */
};

/* Reads the options, which start `offset` bytes into the message. False with the reason counted
 * when one has length zero, is cut short, or is no Ethernet host's address. */
bool nd_read_options(const struct nd_packet *packet, size_t offset, struct nd_options *out);

/* A message being built. */
struct nd_message {
    size_t length;
    uint8_t bytes[ND_MESSAGE_MAX];
};

/* Starts a message of this type with code 0; `length` bytes (at least 4), zero behind the type. */
void nd_start(struct nd_message *message, uint8_t type, size_t length);
/* Adds an option of `length` bytes (a multiple of 8), zero but for type and length; returns its
 * place. The caller sees to it that there is room. */
uint8_t *nd_add_option(struct nd_message *message, uint8_t type, size_t length);
void nd_add_link_option(struct nd_message *message, uint8_t type, const uint8_t mac[6]);

/* Sends the message, whose checksum is filled in. `link_destination` NULL: that of the group that
 * is the destination. `router_alert` puts the hop-by-hop option of RFC 2711 in front. */
void nd_transmit(const struct interface *interface, const uint8_t *link_destination,
                 const struct ip_address *source, const struct ip_address *destination,
                 uint8_t hop_limit, bool router_alert, struct nd_message *message);

extern const struct ip_address nd_unspecified, nd_all_nodes, nd_all_routers;

/* ff02::1:ffXX:XXXX, RFC 4291 section 2.7.1. */
struct ip_address nd_solicited_node(const struct ip_address *address);

/* --- dad.c --- */

/* Starts (again) to ask whether the address is free; stops doing so. */
void dad_start(const struct interface *interface, const struct ip_address *address);
void dad_stop(const struct interface *interface, const struct ip_address *address);
void dad_stop_all(const struct interface *interface);

/* Was the probe with this nonce the router's own, come back (RFC 7527)? */
bool dad_is_own(const struct interface *interface, const struct ip_address *address,
                const uint8_t *nonce);

/* Somebody else has the tentative address, or asks for it as well. */
void dad_conflict(struct interface *interface, const struct ip_address *address,
                  const uint8_t mac[6]);

/* --- mld.c --- */

/* Tells that the interface listens to the group of this address (left: no longer). */
void mld_join(const struct interface *interface, const struct ip_address *address);
void mld_leave(const struct interface *interface, const struct ip_address *address);
/* The same for all groups of the interface. */
void mld_join_all(const struct interface *interface);
/* A querier asks. */
void mld_query(const struct nd_packet *packet);
void mld_stop(const struct interface *interface);

/* --- ra.c --- */

/* Looks at what the interface is and what it should advertise, and starts, goes on or ends.
 * `prefixes_changed`: the interface has other addresses than before. */
void ra_update(const struct interface *interface, bool prefixes_changed);
/* The interface went down. */
void ra_stop(const struct interface *interface);
/* Somebody wants an advertisement. */
void ra_solicited(const struct interface *interface);

/* Tells all hosts that the router goes away (RFC 4861 section 6.2.5), to be called before the
 * workers are stopped. */
void ra_shutdown(void);
