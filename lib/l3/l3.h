/*
 * Layer 3: the route tables that workers look up, and the control-side faces of routes, neighbours
 * and ICMP. The parts:
 *
 *   fib4, prefix_trie   what workers look up (longest prefix match)
 *   next_hop            what they find
 *   rib                 all routes of all origins; picks the best, resolves, fills the FIBs
 *   neighbour           link-layer addresses: ARP (RFC 826, 5227) and ND (RFC 4861), holds packets
 *   arp, nd             the two protocols' messages; router advertisements, duplicate detection
 *   parse, route, output, local   the stages
 *   icmp                errors and echo, in the worker
 */
#pragma once

#include "core/ip.h"
#include "interface/interface.h"
#include "l3/fib4.h"
#include "l3/prefix_trie.h"

/* Tables by VRF id, written by the control thread; NULL for a VRF that does not exist. Prefix 0/0
 * has no special place: id 0 as result means there is no route. */
extern struct fib4 *_Atomic fib4_of_vrf[VRFS_MAX];
extern struct prefix_trie *_Atomic fib6_of_vrf[VRFS_MAX];

/* Brings up everything in this folder; once, after punt_init() and interface_init(), before the first
 * configuration. 0 or negative errno. Called by the section "icmp". */
int l3_init(void);

/* Takes leave of the hosts on the links (a last router advertisement, RFC 4861 section 6.2.5). To be
 * called while the workers still run, before the interfaces go. */
void l3_farewell(void);
