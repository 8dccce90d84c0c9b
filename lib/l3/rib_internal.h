/*
 * What rib.c (prefixes, their routes, the FIBs) and rib_paths.c (sets of paths, what they resolve
 * to) have to say to each other, and a few things for the sections and methods that manage routes.
 * Control thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "l3/rib.h"

/* --- path sets (rib_paths.c) --- */

struct set_path {
    struct route_path path;
    uint16_t out_interface; /* when RESOLVED */
    uint8_t state;          /* PATH_RESOLVED or not; PATH_DOWN is told apart when listed */
    uint32_t next_hop;      /* 0 = the path is not used */
};

/* The paths of all routes that have the same ones, in the same VRF. They are resolved once. */
struct path_set {
    uint32_t id;
    uint32_t hash, hash_next;
    uint32_t first_route; /* records that use the set; 0 = none, managed by rib.c */
    uint32_t next_hop;    /* what they install; 0 = no path is usable */
    uint32_t group;       /* the ECMP group, 0 = none */
    uint16_t vrf;
    uint8_t count;
    struct set_path paths[];
};

/* Finds or makes the set of these paths. NULL with *error: -ENOMEM, or -ENOSPC when there are
 * usable paths but no next hop could be had for any. May call the neighbour table, which may call
 * the RIB. */
struct path_set *path_set_acquire(uint16_t vrf, const struct route_path *paths, unsigned count,
                                  int *error);

/* To be called after a record has let go of the set: frees it when it was the last. */
void path_set_release(struct path_set *set);

struct path_set *path_set_by_id(uint32_t id);
size_t path_set_count(void);

/* Looks again at the sets that an event concerns. */
void path_sets_interface_changed(uint16_t interface);
void path_sets_prefix_changed(uint16_t vrf, const struct ip_prefix *prefix);
/* The interface is gone and its id will be another's: the paths that name it go, and the routes
 * that have no other. */
void path_sets_interface_removed(uint16_t interface);

void path_sets_free_all(void);

/* --- prefixes (rib.c) --- */

/* The interface in whose connected prefix the address is, 0 if there is none. */
uint16_t rib_on_link(uint16_t vrf, const struct ip_address *address);
/* Is it one of the router's own addresses, or a connected prefix's broadcast address? */
bool rib_is_local(uint16_t vrf, const struct ip_address *address);

/* The set's next_hop is another one now: installs or withdraws the routes that use it. */
void rib_set_changed(const struct path_set *set);
/* Gives all routes of `set` to `other` (deletes them if NULL). */
void rib_set_replace(struct path_set *set, struct path_set *other);

/* --- for sections and methods --- */

/* Like rib_each(), starting behind the route of this prefix and origin. `prefix` NULL: from the
 * start. The callback must not change routes. */
void rib_each_behind(uint16_t vrf, uint8_t family, const struct ip_prefix *prefix,
                     enum route_origin origin,
                     bool (*visit)(const struct route_view *view, void *context), void *context);

/* The route of this prefix and origin, whether or not it is installed. False if there is none. */
bool rib_find(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin,
              struct route_view *out);

/* A number that no other VRF had under this id before; 0 if there is none. */
uint64_t rib_vrf_generation(uint16_t vrf);

/* Frees everything (tests, the end of the program). No worker may run any more. */
void rib_free_all(void);
