/*
 * The routes that follow from interfaces and their addresses: own addresses, connected prefixes,
 * broadcast addresses, and per VRF the destinations that must never be forwarded. Control thread
 * only.
 *
 * Link-local IPv6 addresses (fe80::/10) have no route: every interface has that prefix, so a table
 * of the VRF cannot tell them apart. A packet to one is for the router when it is the address of
 * the interface that it came in on (interface_link_local()).
 */
#pragma once

#include <stdint.h>

/* Listens to interfaces; after next_hop_init() and rib_init(). 0 or negative errno. */
int connected_init(void);

/* The next hop of type NEXT_HOP_GLEAN that leads out of the interface; 0 if there is none. It lives
 * as long as the interface. */
uint32_t connected_glean(uint16_t interface);

/* Forgets all (tests). */
void connected_free_all(void);
