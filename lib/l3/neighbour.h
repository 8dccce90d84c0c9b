/*
 * Neighbours: who on the link has which link-layer address. One table for ARP and ND, with the
 * states of RFC 4861 section 7.3.2 for both.
 *
 * Each neighbour owns a next hop (l3/next_hop.h): gateways of routes refer to it, and a resolved
 * host in a connected prefix gets a host route to it, so that workers never look at this table.
 * While a link-layer address is wanted, packets wait in a bounded queue and leave in order when it
 * is known.
 *
 * Control thread only.
 */
#pragma once

#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/ip.h"
#include "interface/interface.h"

enum neighbour_state {
    NEIGHBOUR_INCOMPLETE,
    NEIGHBOUR_REACHABLE,
    NEIGHBOUR_STALE,
    NEIGHBOUR_DELAY,
    NEIGHBOUR_PROBE,
    NEIGHBOUR_FAILED, /* no answer; asked again when a packet needs it, at most once a second */
    NEIGHBOUR_STATIC,
};

enum {
    NEIGHBOURS_MAX = 65536,
    NEIGHBOURS_INCOMPLETE_MAX = 1024, /* so that a scan of a large prefix cannot fill the table */
    NEIGHBOUR_HOLD_MAX = 16,          /* packets per neighbour; the oldest goes first */
    NEIGHBOUR_HOLD_TOTAL_MAX = 1024,
};

int neighbour_init(void);

/* A route's gateway: finds or makes the neighbour and counts the reference. Returns the id of its
 * next hop, 0 when the table is full. The entry is resolved at once so that the first packet need
 * not wait. */
uint32_t neighbour_reference(uint16_t interface, const struct ip_address *address);
void neighbour_unreference(uint16_t interface, const struct ip_address *address);

/* A packet that needs the link-layer address: its meta->next_hop is a neighbour's next hop, or a
 * glean next hop (then the packet's destination is the neighbour), or 0 with meta->out_interface
 * set (then the destination, a link-local address, is a neighbour on that interface). Takes
 * ownership.
 *
 * Packets are released through control_route(). Link-local neighbours have no route: for them
 * meta->next_hop is set to the neighbour's next hop and PACKET_NEXT_HOP in meta->flags, which tells
 * the route stage not to look one up. */
void neighbour_resolve(struct rte_mbuf *mbuf);

/* What ARP and ND tell. `solicited`: an answer to our question; `override`: may replace a known
 * address (ARP: always true except for gratuitous ones with another MAC while REACHABLE);
 * `create`: make an entry when there is none (a request from a host in a connected prefix). */
void neighbour_learn(uint16_t interface, const struct ip_address *address, const uint8_t mac[6],
                     bool solicited, bool override, bool is_router, bool create);

/* Static entries (configuration, neighbour.add). 0, -ENOSPC, -EINVAL (address not on-link). */
int neighbour_add_static(uint16_t interface, const struct ip_address *address,
                         const uint8_t mac[6]);
int neighbour_delete(uint16_t interface, const struct ip_address *address); /* 0 or -ENOENT */
/* Forgets all that were learnt (interface 0: everywhere); returns how many. */
unsigned neighbour_flush(uint16_t interface);

struct neighbour_view {
    uint16_t interface;
    struct ip_address address;
    bool has_mac;
    uint8_t mac[6];
    enum neighbour_state state;
    uint64_t confirmed_msec; /* event_now() of the last confirmation; 0 = never */
    bool is_router;
    uint32_t next_hop;
    unsigned references, held;
};

/* Visits all (interface 0) or one interface's; stops when the callback returns false. */
void neighbour_each(uint16_t interface,
                    bool (*visit)(const struct neighbour_view *view, void *context), void *context);
bool neighbour_find(uint16_t interface, const struct ip_address *address,
                    struct neighbour_view *out);
