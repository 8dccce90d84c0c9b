/*
 * The RIB with connected routes, next hops and both FIBs, against a model that is a plain list of
 * routes and interfaces and works everything out from scratch for each question.
 *
 * Interfaces and neighbours are fakes: the interfaces here only change state and tell the
 * listeners, the neighbour table only counts references and makes next hops, but adds and deletes
 * host routes from inside the calls, as the real one may.
 *
 * Every random history is reproducible: a failure prints the seed and the step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/log.h"
#include "core/rcu.h"
#include "l3/connected.h"
#include "l3/l3.h"
#include "l3/neighbour.h"
#include "l3/next_hop.h"
#include "l3/rib_internal.h"

struct fib4 *_Atomic fib4_of_vrf[VRFS_MAX];
struct prefix_trie *_Atomic fib6_of_vrf[VRFS_MAX];

#define EXPECT(condition)                                                                        \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            print_error("%s fails, seed %#llx, step %u\n", #condition, (unsigned long long)seed, \
                        step);                                                                   \
            fail();                                                                              \
        }                                                                                        \
    } while (0)

static uint64_t seed, random_state;
static unsigned step;

static uint32_t random_below(uint32_t limit) { /* xorshift64* */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1d >> 32) * limit >> 32);
}

static bool chance(unsigned percent) {
    return random_below(100) < percent;
}

/* ---- fake interfaces ---- */

enum { INTERFACES = 4, FAKE_VRFS = 2 };

static struct port port = {.id = 5};
static struct interface fakes[INTERFACES]; /* id 0 = does not exist at present */
static uint16_t next_id = 1;
static bool vrf_exists[FAKE_VRFS];
static struct interface_listener *listeners[4];
static unsigned listener_count;

#define TELL(event, ...)                                                        \
    do {                                                                        \
        for (unsigned listener_ = 0; listener_ < listener_count; listener_++) { \
            if (listeners[listener_]->event)                                    \
                listeners[listener_]->event(__VA_ARGS__);                       \
        }                                                                       \
    } while (0)

void interface_listen(struct interface_listener *listener) {
    listeners[listener_count++] = listener;
}

struct interface *interface_by_id(uint16_t id) {
    for (unsigned i = 0; i < INTERFACES; i++) {
        if (id != 0 && fakes[i].id == id)
            return &fakes[i];
    }
    return NULL;
}

struct interface *interface_next(const struct interface *previous) {
    for (unsigned i = previous ? (unsigned)(previous - fakes) + 1 : 0; i < INTERFACES; i++) {
        if (fakes[i].id != 0)
            return &fakes[i];
    }
    return NULL;
}

const char *vrf_name(uint16_t vrf) {
    return vrf == 0 ? "default" : "other";
}

static void make_vrf(uint16_t vrf) {
    vrf_exists[vrf] = true;
    TELL(vrf_added, vrf);
}

static void make_interface(unsigned i, uint16_t vrf) {
    memset(&fakes[i], 0, sizeof(fakes[i]));
    fakes[i].id = next_id++ % 200 + 1;
    fakes[i].port = &port;
    fakes[i].vrf = vrf;
    fakes[i].mtu = (uint16_t)(1500 + i);
    TELL(added, &fakes[i]);
}

static void set_up_down(unsigned i, bool up) {
    if (fakes[i].up == up)
        return;
    fakes[i].up = up;
    if (up)
        TELL(up, &fakes[i]);
    else
        TELL(down, &fakes[i]);
}

static void add_address(unsigned i, const char *text, enum address_state state) {
    struct interface_address *address = &fakes[i].addresses[fakes[i].address_count];

    *address = (struct interface_address){.state = state};
    assert_int_equal(ip_interface_parse(text, &address->prefix), 0);
    for (unsigned j = 0; j < fakes[i].address_count; j++) {
        if (ip_prefix_compare(&fakes[i].addresses[j].prefix, &address->prefix) == 0)
            return;
    }
    fakes[i].address_count++;
    TELL(address_added, &fakes[i], address);
}

static void remove_address(unsigned i, unsigned index) {
    const struct interface_address gone = fakes[i].addresses[index];

    fakes[i].addresses[index] = fakes[i].addresses[--fakes[i].address_count];
    TELL(address_removed, &fakes[i], &gone);
}

static void set_address_state(unsigned i, unsigned index, enum address_state state) {
    fakes[i].addresses[index].state = state;
    TELL(address_changed, &fakes[i], &fakes[i].addresses[index]);
}

static void remove_interface(unsigned i) {
    set_up_down(i, false);
    while (fakes[i].address_count > 0)
        remove_address(i, fakes[i].address_count - 1);
    struct interface gone = fakes[i];
    fakes[i].id = 0;
    TELL(removed, &gone);
}

static void remove_vrf(uint16_t vrf) {
    for (unsigned i = 0; i < INTERFACES; i++) {
        if (fakes[i].id != 0 && fakes[i].vrf == vrf)
            remove_interface(i);
    }
    vrf_exists[vrf] = false;
    TELL(vrf_removed, vrf);
}

/* ---- fake neighbours ---- */

enum { NEIGHBOURS = 256 };

static struct fake_neighbour {
    uint16_t interface, vrf;
    struct ip_address address;
    uint32_t next_hop;
    unsigned references; /* 0 = free */
    bool host_route;
} neighbours[NEIGHBOURS];
static bool neighbours_full;

static struct fake_neighbour *find_neighbour(uint16_t interface, const struct ip_address *address) {
    for (unsigned i = 0; i < NEIGHBOURS; i++) {
        if (neighbours[i].references > 0 && neighbours[i].interface == interface &&
            ip_address_compare(&neighbours[i].address, address) == 0)
            return &neighbours[i];
    }
    return NULL;
}

static struct ip_prefix host(const struct ip_address *address) {
    return (struct ip_prefix){*address, ip_family_bits(address->family)};
}

static unsigned references(void) {
    unsigned count = 0;

    for (unsigned i = 0; i < NEIGHBOURS; i++)
        count += neighbours[i].references;
    return count;
}

uint32_t neighbour_reference(uint16_t interface, const struct ip_address *address) {
    struct fake_neighbour *n = find_neighbour(interface, address);

    assert_non_null(interface_by_id(interface));
    assert_true(interface_by_id(interface)->up);
    if (n != NULL) {
        n->references++;
        return n->next_hop;
    }
    if (neighbours_full)
        return 0;
    for (n = neighbours; n->references > 0; n++)
        assert_true(n < neighbours + NEIGHBOURS - 1);
    *n = (struct fake_neighbour){.interface = interface,
                                 .vrf = interface_by_id(interface)->vrf,
                                 .address = *address,
                                 .next_hop = next_hop_alloc(),
                                 .references = 1};
    next_hop_set_interface(n->next_hop, interface, 5, 1500);
    next_hop_set_type(n->next_hop, NEXT_HOP_RESOLVE);
    /* Some neighbours are known already. */
    if (address->bytes[3] % 2 == 0 && !ip_address_is_link_local(address)) {
        const struct ip_prefix prefix = host(address);

        n->host_route = rib_add_direct(n->vrf, &prefix, ROUTE_NEIGHBOUR, n->next_hop) == 0;
    }
    return n->next_hop;
}

void neighbour_unreference(uint16_t interface, const struct ip_address *address) {
    struct fake_neighbour *n = find_neighbour(interface, address);

    assert_non_null(n);
    if (--n->references > 0)
        return;
    if (n->host_route) {
        const struct ip_prefix prefix = host(address);
        struct route_view view;

        /* The same address may be a neighbour on two interfaces; the later one has the route. */
        if (rib_find(n->vrf, &prefix, ROUTE_NEIGHBOUR, &view) && view.next_hop == n->next_hop)
            rib_delete(n->vrf, &prefix, ROUTE_NEIGHBOUR);
    }
    next_hop_release(n->next_hop);
}

/* ---- the model ---- */

enum { ROUTES = 300 };

static struct model_route {
    bool used;
    struct route route;
    struct route_path paths[4];
} model[ROUTES];

static struct model_route *model_find(uint16_t vrf, const struct ip_prefix *prefix,
                                      enum route_origin origin) {
    for (unsigned i = 0; i < ROUTES; i++) {
        if (model[i].used && model[i].route.vrf == vrf && model[i].route.origin == origin &&
            ip_prefix_compare(&model[i].route.prefix, prefix) == 0)
            return &model[i];
    }
    return NULL;
}

static void model_add(const struct route *route) {
    struct model_route *entry = model_find(route->vrf, &route->prefix, route->origin);

    for (unsigned i = 0; entry == NULL; i++) {
        assert_true(i < ROUTES);
        entry = model[i].used ? NULL : &model[i];
    }
    entry->used = true;
    entry->route = *route;
    entry->route.paths = entry->paths;
    for (unsigned i = 0; i < route->path_count; i++)
        entry->paths[i] = route->paths[i];
}

static bool is_link_local6(const struct ip_address *address) {
    return address->family == AF_INET6 && ip_address_is_link_local(address);
}

/* What an interface's address says about a destination: kinds in order of importance. */
enum kind { LOCAL, BROADCAST, CONNECTED, OTHER };

static bool last_bits_are(const struct ip_prefix *prefix, const struct ip_address *address,
                          bool ones) {
    for (unsigned bit = prefix->length; bit < ip_family_bits(address->family); bit++) {
        if ((address->bytes[bit / 8] >> (7 - bit % 8) & 1) != ones)
            return false;
    }
    return true;
}

static enum kind kind_of(const struct interface_address *own, const struct ip_address *address) {
    const unsigned bits = ip_family_bits(address->family);
    const struct ip_prefix network = ip_prefix_network(&own->prefix);
    const bool valid = own->state == ADDRESS_VALID;

    if (own->prefix.address.family != address->family || is_link_local6(&own->prefix.address) ||
        !ip_prefix_contains(&network, address))
        return OTHER;
    if (valid && ip_address_compare(&own->prefix.address, address) == 0)
        return LOCAL;
    if (own->prefix.length == bits)
        return OTHER;
    if (valid && own->prefix.length + 1u < bits) {
        if (last_bits_are(&own->prefix, address, false))
            return bits == 128 ? LOCAL : BROADCAST;
        if (bits == 32 && last_bits_are(&own->prefix, address, true))
            return BROADCAST;
    }
    return CONNECTED;
}

/* The interfaces (a mask of places in fakes[]) whose addresses say `kind` of the address. For
 * connected ones only those with the longest prefix, whose length is returned as well. */
static unsigned interfaces_with(uint16_t vrf, const struct ip_address *address, enum kind kind,
                                unsigned *length) {
    unsigned mask = 0, longest = 0;

    for (unsigned i = 0; i < INTERFACES; i++) {
        for (unsigned j = 0;
             fakes[i].id != 0 && fakes[i].up && fakes[i].vrf == vrf && j < fakes[i].address_count;
             j++) {
            const struct interface_address *own = &fakes[i].addresses[j];
            const struct ip_prefix network = ip_prefix_network(&own->prefix);
            const enum kind is = kind_of(own, address);

            if (kind != CONNECTED) {
                mask |= is == kind ? 1u << i : 0;
                continue;
            }
            if (!ip_prefix_contains(&network, address) || is_link_local6(&own->prefix.address) ||
                own->prefix.length == ip_family_bits(address->family))
                continue;
            if (own->prefix.length > longest) {
                longest = own->prefix.length;
                mask = 0;
            }
            mask |= own->prefix.length == longest ? 1u << i : 0;
        }
    }
    if (length != NULL)
        *length = longest;
    return mask;
}

static bool is_own(uint16_t vrf, const struct ip_address *address) {
    return interfaces_with(vrf, address, LOCAL, NULL) != 0 ||
           interfaces_with(vrf, address, BROADCAST, NULL) != 0;
}

/* Through which interfaces the path may lead; 0 = it is not usable. */
static unsigned path_interfaces(uint16_t vrf, const struct route_path *path) {
    if (path->interface == 0)
        return is_own(vrf, &path->gateway) ? 0
                                           : interfaces_with(vrf, &path->gateway, CONNECTED, NULL);
    const struct interface *interface = interface_by_id(path->interface);
    if (interface == NULL || !interface->up ||
        (path->gateway.family != 0 && is_own(interface->vrf, &path->gateway)))
        return 0;
    return 1u << (interface - fakes);
}

static unsigned usable_paths(const struct route *route) {
    unsigned count = 0;

    for (unsigned i = 0; i < route->path_count; i++)
        count += path_interfaces(route->vrf, &route->paths[i]) != 0;
    return count;
}

static bool is_usable(const struct route *route) {
    return route->type != ROUTE_UNICAST || usable_paths(route) > 0;
}

static bool next_hop_is_path(uint32_t id, uint16_t vrf, const struct route_path *path) {
    const unsigned interfaces = path_interfaces(vrf, path);

    for (unsigned i = 0; i < INTERFACES; i++) {
        if ((interfaces >> i & 1) == 0)
            continue;
        if (path->gateway.family == 0 && id == connected_glean(fakes[i].id))
            return true;
        const struct fake_neighbour *n =
            path->gateway.family != 0 ? find_neighbour(fakes[i].id, &path->gateway) : NULL;
        if (n != NULL && n->next_hop == id)
            return true;
    }
    return false;
}

static bool next_hop_is_route(uint32_t id, const struct route *route) {
    unsigned seen = 0;

    switch (route->type) {
    case ROUTE_BLACKHOLE:
        return id == NEXT_HOP_ID_BLACKHOLE;
    case ROUTE_UNREACHABLE:
        return id == NEXT_HOP_ID_UNREACHABLE;
    case ROUTE_PROHIBIT:
        return id == NEXT_HOP_ID_PROHIBIT;
    case ROUTE_UNICAST:
        break;
    }
    if (route->path_count == 1)
        return next_hop_is_path(id, route->vrf, &route->paths[0]);
    if ((id & NEXT_HOP_GROUP_FLAG) == 0)
        return false;
    /* Every bucket is one of the usable paths, and every usable path has a bucket. */
    const struct next_hop *group = next_hop_get(id);
    for (uint32_t b = 0; b <= group->bucket_mask; b++) {
        bool found = false;

        for (unsigned i = 0; i < route->path_count; i++) {
            if (next_hop_is_path(group->buckets[b], route->vrf, &route->paths[i])) {
                seen |= 1u << i;
                found = true;
            }
        }
        if (!found)
            return false;
    }
    return (unsigned)__builtin_popcount(seen) == usable_paths(route);
}

static bool next_hop_is_on(uint32_t id, enum next_hop_type type, unsigned interfaces) {
    for (unsigned i = 0; i < INTERFACES; i++) {
        if ((interfaces >> i & 1) != 0 && next_hop_get(id)->out_interface == fakes[i].id &&
            next_hop_get(id)->type == type)
            return true;
    }
    return false;
}

static bool is_martian(const struct ip_address *address) {
    return address->family == AF_INET &&
           (address->bytes[0] == 0 || address->bytes[0] == 127 || address->bytes[0] >= 240);
}

/* The best usable route of the model to one host, NULL if there is none. */
static const struct route *model_host_route(uint16_t vrf, const struct ip_prefix *prefix) {
    const struct model_route *config = model_find(vrf, prefix, ROUTE_CONFIG);
    const struct model_route *rpc = model_find(vrf, prefix, ROUTE_RPC);

    if (config != NULL && is_usable(&config->route))
        return &config->route;
    return rpc != NULL && is_usable(&rpc->route) ? &rpc->route : NULL;
}

static bool is_on_link_route(const struct route *route, uint16_t interface) {
    return route->type == ROUTE_UNICAST && route->path_count == 1 &&
           route->paths[0].gateway.family == 0 && route->paths[0].interface == interface;
}

/* Is this what a lookup of the address should give? */
static bool is_expected(uint16_t vrf, const struct ip_address *address, uint32_t id) {
    const unsigned bits = ip_family_bits(address->family);
    unsigned mask, connected_length = 0;
    const struct route *best = NULL;

    mask = interfaces_with(vrf, address, LOCAL, NULL);
    if (mask != 0)
        return next_hop_is_on(id, NEXT_HOP_LOCAL, mask);
    mask = interfaces_with(vrf, address, BROADCAST, NULL);
    if (mask != 0)
        return next_hop_is_on(id, NEXT_HOP_BROADCAST, mask);
    for (unsigned i = 0; i < NEIGHBOURS; i++) {
        if (neighbours[i].references > 0 && neighbours[i].host_route && neighbours[i].vrf == vrf &&
            ip_address_compare(&neighbours[i].address, address) == 0) {
            /* The fake keeps the later one of several. */
            struct route_view view;
            const struct ip_prefix prefix = host(address);

            if (rib_find(vrf, &prefix, ROUTE_NEIGHBOUR, &view)) {
                const struct route *other = model_host_route(vrf, &prefix);

                return other == NULL ||
                               is_on_link_route(other, next_hop_get(view.next_hop)->out_interface)
                           ? id == view.next_hop
                           : next_hop_is_route(id, other);
            }
        }
    }
    for (unsigned i = 0; i < ROUTES; i++) {
        const struct route *route = &model[i].route;

        if (!model[i].used || route->vrf != vrf || !ip_prefix_contains(&route->prefix, address) ||
            !is_usable(route))
            continue;
        if (best == NULL || route->prefix.length > best->prefix.length ||
            (route->prefix.length == best->prefix.length && route->origin < best->origin))
            best = route;
    }
    mask = interfaces_with(vrf, address, CONNECTED, &connected_length);
    if (mask != 0 && (best == NULL || connected_length >= best->prefix.length))
        return next_hop_is_on(id, NEXT_HOP_GLEAN, mask);
    if (is_martian(address) && (best == NULL || best->prefix.length <= 4))
        return next_hop_get(id)->type == NEXT_HOP_MARTIAN || (id == 0 && fib4_of_vrf[vrf] == NULL);
    (void)bits;
    return best != NULL ? next_hop_is_route(id, best) : id == NEXT_HOP_ID_NONE;
}

static uint32_t fib_lookup(uint16_t vrf, const struct ip_address *address) {
    const struct fib4 *fib4 = fib4_of_vrf[vrf];
    const struct prefix_trie *fib6 = fib6_of_vrf[vrf];

    if (address->family == AF_INET)
        return fib4 != NULL ? fib4_lookup(fib4, ip4_host_order(address)) : 0;
    return fib6 != NULL ? prefix_trie_lookup(fib6, prefix_key_from_ipv6(address->bytes)) : 0;
}

/* ---- random input: few bits vary, so that prefixes nest and collide ---- */

static struct ip_address random_address(uint8_t family) {
    static const uint8_t lasts[] = {0, 1, 2, 3, 4, 127, 128, 254, 255};
    struct ip_address address = {.family = family};
    uint8_t *b = address.bytes;

    if (family == AF_INET) {
        b[0] = chance(95) ? 10 : chance(50) ? (uint8_t)random_below(256) : 11;
        b[1] = (uint8_t)random_below(4);
        b[2] = chance(70) ? 0 : lasts[random_below(9)];
        b[3] = lasts[random_below(9)];
    } else {
        b[0] = 0x20;
        b[1] = chance(90) ? 0x01 : 0x02;
        b[3] = (uint8_t)random_below(4);
        b[7] = chance(70) ? 0 : (uint8_t)random_below(2);
        b[15] = lasts[random_below(9)];
    }
    return address;
}

static struct ip_prefix random_prefix(void) {
    static const uint8_t lengths4[] = {0, 5, 7, 8, 9, 14, 16, 17, 23, 24, 25, 30, 31, 32};
    static const uint8_t lengths6[] = {0, 8, 15, 16, 17, 30, 32, 48, 63, 64, 65, 120, 127, 128};
    const bool ipv6 = chance(40);
    struct ip_prefix prefix = {random_address(ipv6 ? AF_INET6 : AF_INET), 0};

    prefix.length = ipv6 ? lengths6[random_below(14)] : lengths4[random_below(14)];
    return ip_prefix_network(&prefix);
}

static void random_path(uint8_t family, struct route_path *path) {
    unsigned named = random_below(INTERFACES + 3);

    *path = (struct route_path){.weight = (uint8_t)(1 + random_below(3))};
    if (named < INTERFACES)
        path->interface = fakes[named].id;
    if (path->interface != 0 && chance(15))
        return; /* on-link */
    if (path->interface != 0 && chance(20)) {
        static const uint8_t link_local[16] = {0xfe, 0x80, [15] = 9};

        if (family == AF_INET6 || chance(50)) {
            path->gateway = ip6_address(link_local);
            return;
        }
    }
    path->gateway = random_address(family == AF_INET && chance(20) ? AF_INET6 : family);
}

static void random_route_change(void) {
    struct route_path paths[4];
    struct route route = {.vrf = (uint16_t)random_below(FAKE_VRFS),
                          .prefix = random_prefix(),
                          .origin = chance(50) ? ROUTE_CONFIG : ROUTE_RPC,
                          .paths = paths};
    struct model_route *old = NULL;
    unsigned used = 0;

    for (unsigned i = 0; i < ROUTES; i++)
        used += model[i].used;
    if (used > 0 && (chance(45) || used > ROUTES - 2)) {
        /* Delete one of those there, or replace it. */
        do
            old = &model[random_below(ROUTES)];
        while (!old->used);
        route.vrf = old->route.vrf;
        route.prefix = old->route.prefix;
        route.origin = old->route.origin;
        if (chance(60) || used > ROUTES - 2) {
            EXPECT(rib_delete(route.vrf, &route.prefix, route.origin) == 0);
            EXPECT(rib_delete(route.vrf, &route.prefix, route.origin) == -ENOENT);
            old->used = false;
            return;
        }
    }
    route.type = chance(80) ? ROUTE_UNICAST : (enum route_type)random_below(4);
    if (route.type == ROUTE_UNICAST) {
        route.path_count = (uint8_t)(chance(60) ? 1 : 1 + random_below(4));
        for (unsigned i = 0; i < route.path_count; i++)
            random_path(route.prefix.address.family, &paths[i]);
    }
    if (!vrf_exists[route.vrf]) {
        EXPECT(rib_add(&route) == -ENOENT);
        return;
    }
    EXPECT(rib_add(&route) == 0);
    model_add(&route);
}

static void random_address_change(unsigned i) {
    static const uint8_t lengths4[] = {14, 16, 24, 30, 31, 32};
    static const uint8_t lengths6[] = {32, 64, 126, 127, 128};
    struct ip_prefix prefix;
    char text[IP_PREFIX_TEXT];

    if (fakes[i].address_count > 0 && chance(50)) {
        const unsigned index = random_below(fakes[i].address_count);

        if (fakes[i].addresses[index].prefix.address.family == AF_INET6 && chance(60))
            set_address_state(i, index, random_below(3));
        else
            remove_address(i, index);
        return;
    }
    if (fakes[i].address_count == 6)
        return;
    if (chance(10)) {
        add_address(i, "fe80::1/64", ADDRESS_VALID);
        return;
    }
    prefix.address = random_address(chance(50) ? AF_INET : AF_INET6);
    if (is_martian(&prefix.address))
        return;
    prefix.length =
        prefix.address.family == AF_INET ? lengths4[random_below(6)] : lengths6[random_below(5)];
    add_address(i, ip_prefix_text(&prefix, text),
                prefix.address.family == AF_INET6 && chance(40) ? ADDRESS_TENTATIVE
                                                                : ADDRESS_VALID);
}

/* Paths that name a removed interface go, and routes without any other path. */
static void model_forget_interface(uint16_t id) {
    for (unsigned i = 0; i < ROUTES; i++) {
        struct route *route = &model[i].route;
        unsigned kept = 0;

        if (!model[i].used || route->type != ROUTE_UNICAST)
            continue;
        for (unsigned j = 0; j < route->path_count; j++) {
            if (model[i].paths[j].interface != id)
                model[i].paths[kept++] = model[i].paths[j];
        }
        route->path_count = (uint8_t)kept;
        model[i].used = kept > 0;
    }
}

static void random_interface_change(void) {
    const unsigned i = random_below(INTERFACES);

    if (fakes[i].id == 0) {
        const uint16_t vrf = (uint16_t)random_below(FAKE_VRFS);

        if (!vrf_exists[vrf])
            make_vrf(vrf);
        make_interface(i, vrf);
    } else if (chance(5)) {
        const uint16_t id = fakes[i].id;

        remove_interface(i);
        model_forget_interface(id);
    } else if (chance(40)) {
        set_up_down(i, !fakes[i].up);
    } else {
        random_address_change(i);
    }
}

static void random_vrf_change(void) {
    const uint16_t vrf = (uint16_t)random_below(FAKE_VRFS);

    if (!vrf_exists[vrf]) {
        make_vrf(vrf);
        return;
    }
    for (unsigned i = 0; i < INTERFACES; i++) {
        const uint16_t id = fakes[i].id;

        if (id != 0 && fakes[i].vrf == vrf) {
            remove_interface(i);
            model_forget_interface(id);
        }
    }
    remove_vrf(vrf);
    for (unsigned i = 0; i < ROUTES; i++)
        model[i].used &= model[i].route.vrf != vrf;
}

/* ---- checks ---- */

static void check_lookups(void) {
    for (unsigned i = 0; i < 24; i++) {
        const struct ip_address address = random_address(i % 2 ? AF_INET : AF_INET6);

        for (uint16_t vrf = 0; vrf < FAKE_VRFS; vrf++) {
            const uint32_t id = fib_lookup(vrf, &address);
            struct route_view view;
            char text[IP_ADDRESS_TEXT];

            if (!is_expected(vrf, &address, id))
                print_error("VRF %u, %s: next hop %u of type %u\n", vrf,
                            ip_address_text(&address, text), id, next_hop_get(id)->type);
            EXPECT(is_expected(vrf, &address, id));
            if (id == 0 && is_martian(&address))
                continue;
            EXPECT(rib_lookup(vrf, &address, &view) == (id != 0));
            EXPECT(id == 0 || (view.next_hop == id && view.active &&
                               ip_prefix_contains(&view.prefix, &address)));
        }
    }
}

struct listing {
    unsigned count, own; /* all; those that the model has */
    bool any;
    struct route_view last;
};

static bool check_one(const struct route_view *view, void *context) {
    struct listing *listing = context;
    const struct model_route *route = model_find(view->vrf, &view->prefix, view->origin);

    if (listing->any) {
        const int order = ip_prefix_compare(&listing->last.prefix, &view->prefix);

        EXPECT(order < 0 || (order == 0 && listing->last.origin < view->origin));
        EXPECT(order < 0 || !listing->last.active || !view->active);
    }
    listing->any = true;
    listing->last = *view;
    listing->count++;
    if (view->origin != ROUTE_CONFIG && view->origin != ROUTE_RPC)
        return true;
    listing->own++;
    EXPECT(route != NULL);
    EXPECT(view->type == route->route.type && view->path_count == route->route.path_count);
    EXPECT((view->next_hop != 0) == is_usable(&route->route));
    for (unsigned i = 0; i < view->path_count; i++) {
        const unsigned interfaces = path_interfaces(view->vrf, &route->paths[i]);

        EXPECT(ip_address_compare(&view->paths[i].path.gateway, &route->paths[i].gateway) == 0);
        EXPECT(view->paths[i].path.weight == route->paths[i].weight);
        EXPECT((view->paths[i].state == PATH_RESOLVED) == (interfaces != 0));
        if (interfaces != 0)
            EXPECT(interfaces >> (interface_by_id(view->paths[i].out_interface) - fakes) & 1);
    }
    return true;
}

static void check_listing(void) {
    unsigned expected = 0, found = 0;

    for (unsigned i = 0; i < ROUTES; i++)
        expected += model[i].used;
    for (uint16_t vrf = 0; vrf < FAKE_VRFS; vrf++) {
        struct listing listing = {.any = false};

        rib_each(vrf, AF_INET, NULL, check_one, &listing);
        EXPECT(listing.count == rib_count(vrf, AF_INET));
        found += listing.own;
        listing = (struct listing){.any = false};
        rib_each(vrf, AF_INET6, NULL, check_one, &listing);
        EXPECT(listing.count == rib_count(vrf, AF_INET6));
        found += listing.own;
    }
    EXPECT(found == expected);
}

/* ---- set-up ---- */

static int set_up(void **state) {
    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    memset(model, 0, sizeof(model));
    memset(fakes, 0, sizeof(fakes));
    memset(neighbours, 0, sizeof(neighbours));
    neighbours_full = false;
    assert_int_equal(event_init(), 0);
    assert_int_equal(rcu_init(1), 0);
    assert_int_equal(next_hop_init(), 0);
    assert_int_equal(rib_init(), 0);
    assert_int_equal(connected_init(), 0);
    make_vrf(0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (uint16_t vrf = 0; vrf < FAKE_VRFS; vrf++)
        remove_vrf(vrf);
    assert_int_equal(path_set_count(), 0);
    assert_int_equal(references(), 0);
    rib_free_all();
    connected_free_all();
    rcu_free();
    next_hop_free_all();
    event_free();
    return 0;
}

/* ---- by hand ---- */

static struct ip_prefix prefix_of(const char *text) {
    struct ip_prefix prefix;

    assert_int_equal(ip_prefix_parse(text, &prefix), 0);
    return prefix;
}

static struct ip_address address_of(const char *text) {
    struct ip_address address;

    assert_int_equal(ip_address_parse(text, &address), 0);
    return address;
}

static int add(enum route_origin origin, const char *prefix, const char *gateway) {
    const struct route_path path = {.gateway = address_of(gateway), .weight = 1};
    const struct route route = {
        .prefix = prefix_of(prefix), .origin = origin, .path_count = 1, .paths = &path};

    return rib_add(&route);
}

static uint32_t lookup(const char *text) {
    const struct ip_address address = address_of(text);

    return fib_lookup(0, &address);
}

static enum next_hop_type type_of(const char *text) {
    return next_hop_get(lookup(text))->type;
}

static void a_fib_is_made_when_something_can_be_forwarded(void **state) {
    (void)state;
    assert_null(fib4_of_vrf[0]);
    assert_null(fib6_of_vrf[0]);
    make_interface(0, 0);
    set_up_down(0, true);
    add_address(0, "10.0.0.1/24", ADDRESS_VALID);
    assert_non_null(fib4_of_vrf[0]);
    assert_null(fib6_of_vrf[0]);
    assert_int_equal(type_of("127.0.0.1"), NEXT_HOP_MARTIAN);
    assert_int_equal(type_of("0.1.2.3"), NEXT_HOP_MARTIAN);
    assert_int_equal(type_of("250.0.0.1"), NEXT_HOP_MARTIAN);
    assert_int_equal(type_of("255.255.255.255"), NEXT_HOP_BROADCAST);
    assert_int_equal(type_of("10.0.0.1"), NEXT_HOP_LOCAL);
    assert_int_equal(type_of("10.0.0.0"), NEXT_HOP_BROADCAST);
    assert_int_equal(type_of("10.0.0.255"), NEXT_HOP_BROADCAST);
    assert_int_equal(type_of("10.0.0.77"), NEXT_HOP_GLEAN);
    assert_int_equal(lookup("10.0.1.0"), 0);

    add_address(0, "2001:db8::1/64", ADDRESS_TENTATIVE);
    assert_int_equal(type_of("2001:db8::1"), NEXT_HOP_GLEAN);
    set_address_state(0, 1, ADDRESS_VALID);
    assert_int_equal(type_of("2001:db8::1"), NEXT_HOP_LOCAL);
    assert_int_equal(type_of("2001:db8::"), NEXT_HOP_LOCAL);
    assert_int_equal(type_of("2001:db8::2"), NEXT_HOP_GLEAN);
    assert_int_equal(type_of("::1"), NEXT_HOP_MARTIAN);
    assert_int_equal(type_of("::ffff:1.2.3.4"), NEXT_HOP_MARTIAN);
    set_address_state(0, 1, ADDRESS_DUPLICATE);
    assert_int_equal(type_of("2001:db8::1"), NEXT_HOP_GLEAN);
    assert_int_equal(type_of("10.0.0.1"), NEXT_HOP_LOCAL);
    add_address(0, "fe80::1/64", ADDRESS_VALID);
    assert_int_equal(lookup("fe80::1"), 0);
    assert_int_equal(lookup("fe80::2"), 0);
}

static void the_same_prefix_on_two_interfaces_survives_one(void **state) {
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        make_interface(i, 0);
        set_up_down(i, true);
        add_address(i, i == 0 ? "10.0.0.1/24" : "10.0.0.2/24", ADDRESS_VALID);
    }
    assert_int_equal(next_hop_get(lookup("10.0.0.9"))->out_interface, fakes[0].id);
    assert_int_equal(add(ROUTE_CONFIG, "0.0.0.0/0", "10.0.0.9"), 0);
    assert_int_equal(next_hop_get(lookup("8.8.8.8"))->out_interface, fakes[0].id);
    set_up_down(0, false);
    assert_int_equal(next_hop_get(lookup("10.0.0.9"))->out_interface, fakes[1].id);
    assert_int_equal(next_hop_get(lookup("8.8.8.8"))->out_interface, fakes[1].id);
    assert_int_equal(type_of("10.0.0.1"), NEXT_HOP_GLEAN);
    assert_int_equal(type_of("10.0.0.255"), NEXT_HOP_BROADCAST);
    assert_int_equal(next_hop_get(lookup("10.0.0.255"))->out_interface, fakes[1].id);
    assert_int_equal(references(), 1);
}

static void equal_paths_are_resolved_once(void **state) {
    char text[32];

    (void)state;
    make_interface(0, 0);
    set_up_down(0, true);
    add_address(0, "10.0.0.1/24", ADDRESS_VALID);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(text, sizeof(text), "20.%u.%u.0/24", i / 256, i % 256);
        assert_int_equal(add(ROUTE_CONFIG, text, i % 2 ? "10.0.0.3" : "10.0.0.5"), 0);
    }
    assert_int_equal(path_set_count(), 2);
    assert_int_equal(references(), 2);
    const uint32_t id = lookup("20.0.0.1");
    set_up_down(0, false);
    assert_int_equal(lookup("20.0.0.1"), 0);
    assert_int_equal(references(), 0);
    set_up_down(0, true);
    assert_int_not_equal(lookup("20.0.0.1"), 0);
    assert_int_not_equal(lookup("20.0.0.1"), id); /* which rests */
    assert_int_equal(references(), 2);
}

static void better_origins_win_and_worse_ones_take_over(void **state) {
    const struct ip_prefix prefix = prefix_of("20.0.0.0/8");

    (void)state;
    make_interface(0, 0);
    set_up_down(0, true);
    add_address(0, "10.0.0.1/24", ADDRESS_VALID);
    assert_int_equal(add(ROUTE_RPC, "20.0.0.0/8", "10.0.0.3"), 0);
    const uint32_t rpc = lookup("20.0.0.1");
    assert_int_equal(add(ROUTE_CONFIG, "20.0.0.0/8", "10.0.0.5"), 0);
    const uint32_t config = lookup("20.0.0.1");
    assert_int_not_equal(rpc, config);
    /* The gateway of the better one is nowhere: the worse one is used. */
    assert_int_equal(add(ROUTE_CONFIG, "20.0.0.0/8", "10.9.0.5"), 0);
    assert_int_equal(lookup("20.0.0.1"), rpc);
    assert_int_equal(add(ROUTE_CONFIG, "20.0.0.0/8", "10.0.0.5"), 0);
    assert_int_not_equal(lookup("20.0.0.1"), rpc);
    assert_int_equal(rib_delete(0, &prefix, ROUTE_CONFIG), 0);
    assert_int_equal(lookup("20.0.0.1"), rpc);
    assert_int_equal(rib_delete(0, &prefix, ROUTE_RPC), 0);
    assert_int_equal(lookup("20.0.0.1"), 0);
}

static void a_full_neighbour_table_refuses_the_route(void **state) {
    (void)state;
    make_interface(0, 0);
    set_up_down(0, true);
    add_address(0, "10.0.0.1/24", ADDRESS_VALID);
    assert_int_equal(add(ROUTE_CONFIG, "20.0.0.0/8", "10.0.0.3"), 0);
    const uint32_t before = lookup("20.0.0.1");
    neighbours_full = true;
    assert_int_equal(add(ROUTE_CONFIG, "21.0.0.0/8", "10.0.0.5"), -ENOSPC);
    assert_int_equal(add(ROUTE_CONFIG, "20.0.0.0/8", "10.0.0.5"), -ENOSPC);
    assert_int_equal(lookup("21.0.0.1"), 0);
    assert_int_equal(lookup("20.0.0.1"), before);
    /* Off-link it is no problem yet. */
    assert_int_equal(add(ROUTE_CONFIG, "21.0.0.0/8", "10.7.0.5"), 0);
    assert_int_equal(path_set_count(), 2);
}

static void the_routers_own_address_is_no_gateway(void **state) {
    (void)state;
    make_interface(0, 0);
    set_up_down(0, true);
    add_address(0, "10.0.0.1/24", ADDRESS_VALID);
    assert_int_equal(add(ROUTE_CONFIG, "20.0.0.0/8", "10.0.0.1"), 0);
    assert_int_equal(add(ROUTE_CONFIG, "21.0.0.0/8", "10.0.0.255"), 0);
    assert_int_equal(lookup("20.0.0.1"), 0);
    assert_int_equal(lookup("21.0.0.1"), 0);
    add_address(0, "10.0.0.2/24", ADDRESS_VALID);
    remove_address(0, 0);
    assert_int_not_equal(lookup("20.0.0.1"), 0);
}

static void a_group_stays_while_gateways_come_and_go(void **state) {
    const struct route_path paths[] = {{.gateway = address_of("10.0.0.3"), .weight = 1},
                                       {.gateway = address_of("10.0.1.3"), .weight = 3}};
    const struct route route = {
        .prefix = prefix_of("20.0.0.0/8"), .origin = ROUTE_CONFIG, .path_count = 2, .paths = paths};

    (void)state;
    make_interface(0, 0);
    make_interface(1, 0);
    add_address(0, "10.0.0.1/24", ADDRESS_VALID);
    add_address(1, "10.0.1.1/24", ADDRESS_VALID);
    set_up_down(0, true);
    assert_int_equal(rib_add(&route), 0);
    const uint32_t group = lookup("20.0.0.1");
    assert_true(group & NEXT_HOP_GROUP_FLAG);
    set_up_down(1, true);
    assert_int_equal(lookup("20.0.0.1"), group);
    assert_int_equal(references(), 2);
    set_up_down(0, false);
    assert_int_equal(lookup("20.0.0.1"), group);
    for (uint32_t i = 0; i <= next_hop_get(group)->bucket_mask; i++)
        assert_int_equal(next_hop_get(next_hop_get(group)->buckets[i])->out_interface, fakes[1].id);
    set_up_down(1, false);
    assert_int_equal(lookup("20.0.0.1"), 0);

    struct route_view view;
    assert_true(rib_find(0, &route.prefix, ROUTE_CONFIG, &view));
    assert_false(view.active);
    assert_int_equal(view.paths[0].state, PATH_DOWN);
}

static void wrong_arguments_are_refused(void **state) {
    const struct route_path path = {.gateway = address_of("10.0.0.3"), .weight = 1};
    struct route route = {.prefix = prefix_of("20.0.0.0/8"), .origin = ROUTE_CONFIG};
    struct route_view view;

    (void)state;
    assert_int_equal(rib_add(&route), -EINVAL); /* no path */
    route.paths = &path;
    route.path_count = 1;
    route.type = ROUTE_BLACKHOLE;
    assert_int_equal(rib_add(&route), -EINVAL);
    route.type = ROUTE_UNICAST;
    route.vrf = 1;
    assert_int_equal(rib_add(&route), -ENOENT);
    route.vrf = VRFS_MAX;
    assert_int_equal(rib_add(&route), -ENOENT);
    assert_int_equal(rib_delete(VRFS_MAX, &route.prefix, ROUTE_CONFIG), -ENOENT);
    assert_int_equal(rib_delete(0, &route.prefix, ROUTE_CONFIG), -ENOENT);
    assert_int_equal(rib_add_direct(0, &route.prefix, ROUTE_CONNECTED, 0), -EINVAL);
    assert_false(rib_find(0, &route.prefix, ROUTE_CONFIG, &view));
    assert_false(rib_lookup(1, &path.gateway, &view));
    assert_int_equal(rib_count(1, AF_INET), 0);
}

static bool take_two(const struct route_view *view, void *context) {
    struct listing *listing = context;

    listing->last = *view;
    return ++listing->count < 2;
}

static void a_list_goes_on_where_it_stopped(void **state) {
    struct listing listing = {.any = false};

    (void)state;
    add(ROUTE_CONFIG, "20.0.0.0/8", "10.0.0.3");
    add(ROUTE_RPC, "20.0.0.0/8", "10.0.0.3");
    add(ROUTE_RPC, "20.0.0.0/16", "10.0.0.3");
    add(ROUTE_RPC, "21.0.0.0/16", "10.0.0.3");
    const struct ip_prefix martian = prefix_of("0.0.0.0/8"), middle = prefix_of("20.0.0.0/8");

    rib_each(0, AF_INET, &martian, take_two, &listing);
    assert_int_equal(listing.last.prefix.length, 8);
    assert_int_equal(listing.last.origin, ROUTE_RPC);
    listing.count = 0;
    rib_each_behind(0, AF_INET, &middle, ROUTE_CONFIG, take_two, &listing);
    assert_int_equal(listing.last.prefix.length, 16);
    assert_int_equal(rib_delete(0, &middle, ROUTE_CONFIG), 0);
    assert_int_equal(rib_delete(0, &middle, ROUTE_RPC), 0);
    listing.count = 0;
    rib_each(0, AF_INET, &middle, take_two, &listing); /* which is gone */
    assert_int_equal(listing.last.prefix.address.bytes[0], 21);
}

/* ---- random histories ---- */

static void history(uint64_t of, unsigned steps) {
    seed = of;
    random_state = of;
    for (step = 0; step < steps; step++) {
        const unsigned what = random_below(1000);

        if (what < 3)
            random_vrf_change();
        else if (what < 300)
            random_interface_change();
        else
            random_route_change();
        check_lookups();
        if (step % 16 == 0)
            check_listing();
        if (step % 8 == 0) {
            rcu_reclaim();
        }
    }
    check_listing();
}

static void random_histories_agree_with_the_model(void **state) {
    (void)state;
    for (uint64_t i = 1; i <= 8; i++) {
        history(i * 0x9e3779b97f4a7c15, 600);
        for (uint16_t vrf = 0; vrf < FAKE_VRFS; vrf++)
            remove_vrf(vrf);
        memset(model, 0, sizeof(model));
        EXPECT(path_set_count() == 0);
        EXPECT(references() == 0);
        make_vrf(0);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_fib_is_made_when_something_can_be_forwarded),
        TEST(the_same_prefix_on_two_interfaces_survives_one),
        TEST(equal_paths_are_resolved_once),
        TEST(better_origins_win_and_worse_ones_take_over),
        TEST(a_full_neighbour_table_refuses_the_route),
        TEST(the_routers_own_address_is_no_gateway),
        TEST(a_group_stays_while_gateways_come_and_go),
        TEST(wrong_arguments_are_refused),
        TEST(a_list_goes_on_where_it_stopped),
        TEST(random_histories_agree_with_the_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
