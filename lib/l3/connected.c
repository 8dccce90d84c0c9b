/*
 * Routes from interfaces and their addresses.
 *
 * Several addresses may ask for the same route: two addresses in one prefix, the same prefix on two
 * interfaces, one prefix's broadcast address that is another's host. So each address makes claims,
 * and the best claim on a prefix (by kind, then the oldest) is the route; when it goes the next one
 * takes over by a single store.
 *
 * What can go wrong: memory and next hops. The route is then missing, with a message in the log.
 */
#include "l3/connected.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "interface/interface.h"
#include "l3/next_hop.h"
#include "l3/rib.h"

/* What an address wants of a prefix, more important kinds first. */
enum claim_kind {
    CLAIM_CONNECTED, /* the only kind of origin ROUTE_CONNECTED */
    CLAIM_ADDRESS,
    CLAIM_ANYCAST,   /* subnet-router anycast, RFC 4291 section 2.6.1 */
    CLAIM_BROADCAST, /* a connected prefix's first and last address */
    CLAIM_MARTIAN,   /* of the VRF itself */
};

struct claim {
    struct claim *next;
    enum claim_kind kind;
    uint16_t vrf;
    uint16_t interface; /* 0 = none */
    uint32_t next_hop;
    struct ip_prefix prefix;
    struct ip_prefix address; /* the interface's address that makes the claim */
};

enum { BUCKETS = 4096 };

static struct claim *claims[BUCKETS]; /* by VRF and prefix, oldest first */

/* Each interface's own next hops, 0 = none. */
struct own_next_hops {
    uint32_t glean, local, anycast, broadcast;
};

static struct own_next_hops own[INTERFACES_MAX];
static uint32_t limited_broadcast; /* 255.255.255.255, on any interface */

/* ---- claims ---- */

static enum route_origin origin_of(enum claim_kind kind) {
    return kind == CLAIM_CONNECTED ? ROUTE_CONNECTED : ROUTE_LOCAL;
}

static struct claim **bucket_of(uint16_t vrf, const struct ip_prefix *prefix) {
    uint32_t hash = vrf * 31u + prefix->length;

    for (unsigned i = 0; i < sizeof(prefix->address.bytes); i++)
        hash = hash * 31 + prefix->address.bytes[i];
    return &claims[(hash ^ hash >> 12) % BUCKETS];
}

/* Makes the best claim on the prefix its route. */
static void settle(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin) {
    const struct claim *best = NULL;
    char text[IP_PREFIX_TEXT];
    int error;

    for (const struct claim *claim = *bucket_of(vrf, prefix); claim != NULL; claim = claim->next) {
        if (claim->vrf == vrf && origin_of(claim->kind) == origin &&
            ip_prefix_compare(&claim->prefix, prefix) == 0 &&
            (best == NULL || claim->kind < best->kind))
            best = claim;
    }
    if (best == NULL) {
        rib_delete(vrf, prefix, origin); /* -ENOENT if the VRF is gone already */
        return;
    }
    error = rib_add_direct(vrf, prefix, origin, best->next_hop);
    if (error != 0)
        log_error("l3", "the %s route to %s is missing: %s",
                  origin == ROUTE_LOCAL ? "local" : "connected", ip_prefix_text(prefix, text),
                  strerror(-error));
}

static bool claim_is(const struct claim *claim, enum claim_kind kind, uint16_t vrf,
                     uint16_t interface, const struct ip_prefix *prefix,
                     const struct ip_prefix *address) {
    return claim->kind == kind && claim->vrf == vrf && claim->interface == interface &&
           ip_prefix_compare(&claim->prefix, prefix) == 0 &&
           ip_prefix_compare(&claim->address, address) == 0;
}

/* Does nothing for a claim that exists already. */
static void claim_add(enum claim_kind kind, uint16_t vrf, uint16_t interface, uint32_t next_hop,
                      const struct ip_prefix *prefix, const struct ip_prefix *address) {
    struct claim **link = bucket_of(vrf, prefix), *claim;

    for (; *link != NULL; link = &(*link)->next) {
        if (claim_is(*link, kind, vrf, interface, prefix, address))
            return;
    }
    claim = next_hop != NEXT_HOP_ID_NONE ? malloc(sizeof(*claim)) : NULL;
    if (claim == NULL) {
        char text[IP_PREFIX_TEXT];

        log_error("l3", "the route to %s is missing: no memory or next hop for it",
                  ip_prefix_text(prefix, text));
        return;
    }
    *claim = (struct claim){.kind = kind,
                            .vrf = vrf,
                            .interface = interface,
                            .next_hop = next_hop,
                            .prefix = *prefix,
                            .address = *address};
    *link = claim;
    settle(vrf, prefix, origin_of(kind));
}

/* Does nothing for a claim that does not exist. */
static void claim_remove(enum claim_kind kind, uint16_t vrf, uint16_t interface,
                         const struct ip_prefix *prefix, const struct ip_prefix *address) {
    for (struct claim **link = bucket_of(vrf, prefix); *link != NULL; link = &(*link)->next) {
        struct claim *claim = *link;

        if (!claim_is(claim, kind, vrf, interface, prefix, address))
            continue;
        *link = claim->next;
        free(claim);
        settle(vrf, prefix, origin_of(kind));
        return;
    }
}

/* ---- addresses ---- */

/* What an address asks for: at most its prefix, itself, and the first and last of the prefix. */
enum { WANTED_MAX = 4 };

struct wanted {
    enum claim_kind kind;
    struct ip_prefix prefix;
    uint32_t next_hop;
    bool only_valid; /* not while duplicate address detection runs, or has failed (RFC 4862 5.4) */
};

static struct ip_prefix last_of(const struct ip_prefix *network) {
    struct ip_prefix last = {network->address, IP4_MAX_LENGTH};

    for (unsigned bit = network->length; bit < IP4_MAX_LENGTH; bit++)
        last.address.bytes[bit / 8] |= (uint8_t)(0x80u >> bit % 8);
    return last;
}

static unsigned list_wanted(const struct interface *interface, const struct ip_prefix *address,
                            struct wanted wanted[WANTED_MAX]) {
    const struct own_next_hops *hops = &own[interface->id];
    const uint8_t bits = ip_family_bits(address->address.family);
    const struct ip_prefix network = ip_prefix_network(address);
    const struct ip_prefix first = {network.address, bits};
    const bool is_ipv6 = address->address.family == AF_INET6;
    unsigned n = 0;

    if (is_ipv6 && ip_address_is_link_local(&address->address))
        return 0;
    /* A prefix of one address connects to nobody. The prefix is on the link whatever may be wrong
     * with our address in it. */
    if (address->length < bits)
        wanted[n++] = (struct wanted){CLAIM_CONNECTED, network, hops->glean, false};
    wanted[n++] = (struct wanted){CLAIM_ADDRESS, {address->address, bits}, hops->local, true};
    /* Both addresses of an IPv4 /31 are hosts (RFC 3021), and so they are of a /127, where routers
     * must not use the anycast address (RFC 6164 section 5.1). */
    if (address->length + 1 >= bits)
        return n;
    if (is_ipv6) {
        wanted[n++] = (struct wanted){CLAIM_ANYCAST, first, hops->anycast, true};
    } else {
        wanted[n++] = (struct wanted){CLAIM_BROADCAST, first, hops->broadcast, true};
        wanted[n++] = (struct wanted){CLAIM_BROADCAST, last_of(&network), hops->broadcast, true};
    }
    return n;
}

static void unclaim(const struct interface *interface, const struct ip_prefix *address,
                    const struct wanted *wanted) {
    claim_remove(wanted->kind, interface->vrf, interface->id, &wanted->prefix, address);
}

static void address_claim(const struct interface *interface,
                          const struct interface_address *address) {
    struct wanted wanted[WANTED_MAX];
    const unsigned count = list_wanted(interface, &address->prefix, wanted);

    for (unsigned i = 0; i < count; i++) {
        if (wanted[i].only_valid && address->state != ADDRESS_VALID)
            unclaim(interface, &address->prefix, &wanted[i]);
        else
            claim_add(wanted[i].kind, interface->vrf, interface->id, wanted[i].next_hop,
                      &wanted[i].prefix, &address->prefix);
    }
}

static void address_unclaim(const struct interface *interface,
                            const struct interface_address *address) {
    struct wanted wanted[WANTED_MAX];
    const unsigned count = list_wanted(interface, &address->prefix, wanted);

    for (unsigned i = count; i > 0; i--)
        unclaim(interface, &address->prefix, &wanted[i - 1]);
}

/* ---- what interfaces tell ---- */

static uint32_t make_next_hop(const struct interface *interface, enum next_hop_type type) {
    const uint32_t id = next_hop_alloc();

    if (id == NEXT_HOP_ID_NONE) {
        log_error("l3", "no next hop left for interface %s: it has no connected routes",
                  interface->name);
        return id;
    }
    next_hop_set_interface(id, interface->id, interface->port->id, interface->mtu);
    next_hop_set_type(id, type);
    return id;
}

static void drop_next_hop(uint32_t *id) {
    if (*id != NEXT_HOP_ID_NONE)
        next_hop_release(*id);
    *id = NEXT_HOP_ID_NONE;
}

static void interface_added(struct interface *interface) {
    struct own_next_hops *hops = &own[interface->id];

    if (hops->glean == NEXT_HOP_ID_NONE)
        hops->glean =
            make_next_hop(interface, interface->if_id != 0 ? NEXT_HOP_TUNNEL : NEXT_HOP_GLEAN);
    if (hops->local == NEXT_HOP_ID_NONE)
        hops->local = make_next_hop(interface, NEXT_HOP_LOCAL);
    if (hops->anycast == NEXT_HOP_ID_NONE) {
        hops->anycast = make_next_hop(interface, NEXT_HOP_LOCAL);
        if (hops->anycast != NEXT_HOP_ID_NONE)
            next_hop_set_anycast(hops->anycast);
    }
    if (hops->broadcast == NEXT_HOP_ID_NONE)
        hops->broadcast = make_next_hop(interface, NEXT_HOP_BROADCAST);
}

/* Removes all claims of an interface (0: any) in a VRF (VRFS_MAX: any). */
static void claims_remove_of(uint16_t interface, uint16_t vrf, bool tell_rib) {
    for (unsigned i = 0; i < BUCKETS; i++) {
        struct claim **link = &claims[i];

        while (*link != NULL) {
            struct claim *claim = *link;
            const struct ip_prefix prefix = claim->prefix;
            const enum route_origin origin = origin_of(claim->kind);
            const uint16_t claim_vrf = claim->vrf;

            if ((interface != 0 && claim->interface != interface) ||
                (vrf != VRFS_MAX && claim_vrf != vrf)) {
                link = &claim->next;
                continue;
            }
            *link = claim->next;
            free(claim);
            if (tell_rib)
                settle(claim_vrf, &prefix, origin);
        }
    }
}

static void interface_removed(struct interface *interface) {
    struct own_next_hops *hops = &own[interface->id];

    claims_remove_of(interface->id, VRFS_MAX, true); /* none are left, normally */
    drop_next_hop(&hops->glean);
    drop_next_hop(&hops->local);
    drop_next_hop(&hops->anycast);
    drop_next_hop(&hops->broadcast);
}

static void interface_up(struct interface *interface) {
    for (unsigned i = 0; i < interface->address_count; i++)
        address_claim(interface, &interface->addresses[i]);
}

static void interface_down(struct interface *interface) {
    for (unsigned i = 0; i < interface->address_count; i++)
        address_unclaim(interface, &interface->addresses[i]);
}

static void address_added(struct interface *interface, const struct interface_address *address) {
    if (interface->up)
        address_claim(interface, address);
}

static void address_removed(struct interface *interface, const struct interface_address *address) {
    address_unclaim(interface, address);
}

static void interface_changed(struct interface *interface) {
    const struct own_next_hops *hops = &own[interface->id];
    const uint32_t ids[] = {hops->glean, hops->local, hops->anycast, hops->broadcast};

    for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        if (ids[i] != NEXT_HOP_ID_NONE)
            next_hop_set_interface(ids[i], interface->id, interface->port->id, interface->mtu);
    }
}

/* Destinations that a router must not forward to: RFC 1812 section 5.3.7, RFC 6890. Multicast
 * groups never get as far as a table. */
static void vrf_added(uint16_t vrf) {
    static const char *const martians[] = {
        "0.0.0.0/8", "127.0.0.0/8", "240.0.0.0/4", "::/128", "::1/128", "::ffff:0:0/96",
    };
    struct ip_prefix prefix;

    for (unsigned i = 0; i < sizeof(martians) / sizeof(martians[0]); i++) {
        if (ip_prefix_parse(martians[i], &prefix) == 0)
            claim_add(CLAIM_MARTIAN, vrf, 0, NEXT_HOP_ID_MARTIAN, &prefix, &prefix);
    }
    if (ip_prefix_parse("255.255.255.255/32", &prefix) == 0)
        claim_add(CLAIM_BROADCAST, vrf, 0, limited_broadcast, &prefix, &prefix);
}

static void vrf_removed(uint16_t vrf) {
    claims_remove_of(0, vrf, false); /* the routes went with the VRF */
}

uint32_t connected_glean(uint16_t interface) {
    return interface < INTERFACES_MAX ? own[interface].glean : NEXT_HOP_ID_NONE;
}

static struct interface_listener listener = {
    .added = interface_added,
    .removed = interface_removed,
    .up = interface_up,
    .down = interface_down,
    .address_added = address_added,
    .address_removed = address_removed,
    .address_changed = address_added,
    .changed = interface_changed,
    .vrf_added = vrf_added,
    .vrf_removed = vrf_removed,
};

int connected_init(void) {
    static bool listening;

    limited_broadcast = next_hop_alloc();
    if (limited_broadcast == NEXT_HOP_ID_NONE)
        return -ENOSPC;
    next_hop_set_type(limited_broadcast, NEXT_HOP_BROADCAST);
    if (!listening)
        interface_listen(&listener);
    listening = true;
    return 0;
}

void connected_free_all(void) {
    claims_remove_of(0, VRFS_MAX, false);
    memset(own, 0, sizeof(own));
}
