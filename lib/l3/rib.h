/*
 * Routes of all VRFs, families and origins: the routing information base.
 *
 * Per prefix each origin may have one route with up to ROUTE_PATHS_MAX next hops. The best usable
 * origin's route is installed in the FIB: the order is the order of `enum route_origin`, but for a
 * neighbour's route, which only counts where others lead to its link anyway. A route is
 * usable when at least one of its paths is: the outgoing interface is up, and the gateway is
 * on-link (in a connected prefix of the VRF, or on the named interface). When interfaces and
 * addresses come and go the routes that depend on them are looked at again.
 *
 * Control thread only. The FIBs change by single entries, so packets with a route throughout are
 * never lost while others come and go.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/ip.h"
#include "interface/interface.h"

/* Better origins first. */
enum route_origin {
    ROUTE_LOCAL,
    ROUTE_CONNECTED,
    ROUTE_NEIGHBOUR,
    ROUTE_CONFIG,
    ROUTE_RPC,
    ROUTE_ORIGINS
};

enum route_type { ROUTE_UNICAST, ROUTE_BLACKHOLE, ROUTE_UNREACHABLE, ROUTE_PROHIBIT };

enum { ROUTE_PATHS_MAX = 32 };

struct route_path {
    struct ip_address gateway; /* family 0 = on-link through `interface`; may be IPv6 for an IPv4
                                  route (RFC 8950) */
    uint16_t interface;        /* interface id; 0 = found through the gateway */
    uint8_t weight;            /* 1..255 */
};

struct route {
    uint16_t vrf;
    struct ip_prefix prefix; /* host bits zero */
    enum route_origin origin;
    enum route_type type;
    uint8_t path_count; /* 0 unless ROUTE_UNICAST */
    const struct route_path *paths;
};

int rib_init(void);

/* Adds the route, or replaces the one of the same VRF, prefix and origin. An unresolvable gateway
 * is no error: the route waits until it becomes usable. 0, -ENOENT (VRF), -ENOMEM, -ENOSPC (next
 * hops). */
int rib_add(const struct route *route);

/* Removes it. 0 or -ENOENT. */
int rib_delete(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin);

/* Installs a fixed next hop for a prefix: local addresses, connected prefixes (glean), resolved
 * neighbours. `next_hop` stays owned by the caller. Same errors as rib_add. */
int rib_add_direct(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin,
                   uint32_t next_hop);

enum path_state { PATH_RESOLVED, PATH_UNRESOLVED, PATH_DOWN };

/* A route as listed. Valid during the callback. */
struct route_view {
    uint16_t vrf;
    struct ip_prefix prefix;
    enum route_origin origin;
    enum route_type type;
    bool active;       /* installed in the FIB */
    uint32_t next_hop; /* id in the FIB when active */
    unsigned path_count;
    struct {
        struct route_path path;
        enum path_state
            state; /* RESOLVED: interface known and up; UNRESOLVED: gateway not on-link */
        uint16_t out_interface;
    } paths[ROUTE_PATHS_MAX];
};

/* Visits routes in order of (VRF, family, prefix, length, origin), starting behind `after` (NULL:
 * from the start; it need not exist any more). Stops when the callback returns false. */
void rib_each(uint16_t vrf, uint8_t family, const struct ip_prefix *after,
              bool (*visit)(const struct route_view *view, void *context), void *context);

/* The best route for an address, as workers would find it; false if there is none. */
bool rib_lookup(uint16_t vrf, const struct ip_address *address, struct route_view *out);

/* Number of routes by VRF and family; all origins. */
size_t rib_count(uint16_t vrf, uint8_t family);
