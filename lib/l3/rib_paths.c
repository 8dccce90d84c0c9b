/*
 * Sets of paths: what a unicast route's next hops resolve to.
 *
 * A million routes go through a handful of gateways, so routes with the same paths share one set,
 * and an event (an interface, an address) is worked off once per set, not once per route. A set of
 * one path installs the path's own next hop. A set of several always installs a group, even while
 * only one path is usable, so that a lost gateway changes one bucket array and no FIB entry.
 *
 * A gateway is looked for in connected prefixes only. Next hops that would have to be resolved
 * through another route (recursive ones) are not supported: such a path stays unresolved.
 *
 * The neighbour table may call back: a neighbour that is made or let go can add or delete the host
 * route to it. So nothing found in a table is kept across neighbour_reference() and
 * neighbour_unreference(); sets themselves stay where they are and are not changed by such calls.
 *
 * What can go wrong: no next hop to be had (the neighbour table is full). The path then counts as
 * unresolved and is tried again with the next event that concerns it.
 */
#include "l3/rib_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "l3/connected.h"
#include "l3/neighbour.h"
#include "l3/next_hop.h"

static struct path_set **sets; /* by id; id 0 is never used */
static uint32_t set_top;       /* ids below have been given out at least once */
static uint32_t set_capacity;
static uint32_t *free_set_ids;
static uint32_t free_set_count;
static size_t set_count;

static uint32_t *buckets; /* of the hash table: set ids */
static uint32_t bucket_count;

static struct path_set *latest; /* found last: bulk loads ask for the same again and again */

/* ---- finding ---- */

static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 32;
}

static uint32_t hash_of(uint16_t vrf, const struct route_path *paths, unsigned count) {
    uint64_t hash = mix(vrf, count);

    for (unsigned i = 0; i < count; i++) {
        uint64_t half[2];

        memcpy(half, paths[i].gateway.bytes, sizeof(half));
        hash = mix(mix(hash, half[0]), half[1]);
        hash = mix(hash, (uint64_t)paths[i].gateway.family << 24 | (uint64_t)paths[i].weight << 16 |
                             paths[i].interface);
    }
    return (uint32_t)hash;
}

static bool same_path(const struct route_path *a, const struct route_path *b) {
    return a->interface == b->interface && a->weight == b->weight &&
           ip_address_compare(&a->gateway, &b->gateway) == 0;
}

static bool set_is(const struct path_set *set, uint16_t vrf, const struct route_path *paths,
                   unsigned count) {
    if (set->vrf != vrf || set->count != count)
        return false;
    for (unsigned i = 0; i < count; i++) {
        if (!same_path(&set->paths[i].path, &paths[i]))
            return false;
    }
    return true;
}

struct path_set *path_set_by_id(uint32_t id) {
    return sets[id];
}

size_t path_set_count(void) {
    return set_count;
}

static struct path_set *find(uint16_t vrf, const struct route_path *paths, unsigned count,
                             uint32_t hash) {
    if (bucket_count == 0)
        return NULL;
    for (uint32_t id = buckets[hash & (bucket_count - 1)]; id != 0; id = sets[id]->hash_next) {
        if (sets[id]->hash == hash && set_is(sets[id], vrf, paths, count))
            return sets[id];
    }
    return NULL;
}

/* ---- making and freeing ---- */

static void hash_insert(struct path_set *set) {
    uint32_t *bucket = &buckets[set->hash & (bucket_count - 1)];

    set->hash_next = *bucket;
    *bucket = set->id;
}

static void hash_remove(const struct path_set *set) {
    uint32_t *link = &buckets[set->hash & (bucket_count - 1)];

    while (*link != set->id)
        link = &sets[*link]->hash_next;
    *link = set->hash_next;
}

static int hash_grow(void) {
    const uint32_t larger = bucket_count == 0 ? 256 : bucket_count * 2;
    uint32_t *memory = calloc(larger, sizeof(*memory));

    if (memory == NULL)
        return bucket_count == 0 ? -ENOMEM : 0; /* a crowded table still works */
    free(buckets);
    buckets = memory;
    bucket_count = larger;
    for (uint32_t id = 1; id < set_top; id++) {
        if (sets[id] != NULL)
            hash_insert(sets[id]);
    }
    return 0;
}

static int take_id(uint32_t *id) {
    if (free_set_count > 0) {
        *id = free_set_ids[--free_set_count];
        return 0;
    }
    if (set_top == set_capacity) {
        const uint32_t capacity = set_capacity == 0 ? 64 : set_capacity * 2;
        struct path_set **larger = reallocarray(sets, capacity, sizeof(*sets));

        if (larger == NULL)
            return -ENOMEM;
        sets = larger;
        uint32_t *ids = reallocarray(free_set_ids, capacity, sizeof(*ids));
        if (ids == NULL)
            return -ENOMEM;
        free_set_ids = ids;
        set_capacity = capacity;
        if (set_top == 0)
            sets[set_top++] = NULL;
    }
    *id = set_top++;
    sets[*id] = NULL;
    return 0;
}

static struct path_set *make(uint16_t vrf, const struct route_path *paths, unsigned count,
                             uint32_t hash) {
    uint32_t id;

    if (set_count >= bucket_count && hash_grow() < 0)
        return NULL;
    struct path_set *set = calloc(1, sizeof(*set) + count * sizeof(set->paths[0]));
    if (set == NULL)
        return NULL;
    if (take_id(&id) < 0) {
        free(set);
        return NULL;
    }
    set->id = id;
    set->hash = hash;
    set->vrf = vrf;
    set->count = (uint8_t)count;
    for (unsigned i = 0; i < count; i++) {
        set->paths[i].path = paths[i];
        set->paths[i].state = PATH_UNRESOLVED;
    }
    sets[id] = set;
    set_count++;
    hash_insert(set);
    return set;
}

/* ---- resolving ---- */

/* Where the path leads out at present; 0 if nowhere. */
static uint16_t path_interface(const struct path_set *set, const struct route_path *path) {
    const struct interface *interface;

    interface = interface_by_id(
        path->interface != 0 ? path->interface : rib_on_link(set->vrf, &path->gateway));
    /* The connected routes of one that went down may still be there for a moment. */
    if (interface == NULL || !interface->up)
        return 0;
    /* The router is not its own gateway: such packets would never leave it. */
    if (path->gateway.family != 0 && rib_is_local(interface->vrf, &path->gateway))
        return 0;
    return interface->id;
}

static uint32_t take_next_hop(uint16_t interface, const struct ip_address *gateway) {
    static struct log_limit limit;
    char text[IP_ADDRESS_TEXT];

    /* A tunnel has one other end, whatever address a gateway has there. */
    if (gateway->family == 0 || interface_by_id(interface)->if_id != 0)
        return connected_glean(interface);
    const uint32_t id = neighbour_reference(interface, gateway);
    if (id == 0)
        log_limited(&limit, LOG_LEVEL_ERROR, "l3",
                    "no room for gateway %s in the table of neighbours: routes through it wait",
                    ip_address_text(gateway, text));
    return id;
}

static void drop_next_hop(uint16_t interface, const struct ip_address *gateway) {
    if (gateway->family != 0)
        neighbour_unreference(interface, gateway);
}

/* What the set installs. Changes its group, or makes one, when it has several paths. */
static uint32_t set_next_hop(struct path_set *set) {
    static struct log_limit limit;
    uint32_t members[ROUTE_PATHS_MAX];
    uint8_t weights[ROUTE_PATHS_MAX];
    unsigned usable = 0;

    for (unsigned i = 0; i < set->count; i++) {
        if (set->paths[i].next_hop == 0)
            continue;
        members[usable] = set->paths[i].next_hop;
        weights[usable++] = set->paths[i].path.weight;
    }
    if (usable == 0)
        return 0;
    if (set->count == 1)
        return members[0];

    const uint32_t group = next_hop_group_set(set->group, members, weights, usable);
    if (group != 0) {
        set->group = group;
        return group;
    }
    /* One usable path for all is better than a group with one that is gone. */
    log_limited(&limit, LOG_LEVEL_ERROR, "l3",
                "no memory or next hop for a group of gateways: only one of %u is used", usable);
    return members[0];
}

/* Takes what has become usable, tells the routes, and then lets go of what has not. */
static void set_resolve(struct path_set *set) {
    struct {
        uint16_t interface;
        uint8_t path;
    } dropped[ROUTE_PATHS_MAX];
    unsigned dropped_count = 0;
    bool changed = false;

    for (unsigned i = 0; i < set->count; i++) {
        struct set_path *path = &set->paths[i];
        const uint16_t out = path_interface(set, &path->path);

        if (out == path->out_interface)
            continue;
        changed = true;
        if (path->next_hop != 0) {
            dropped[dropped_count].interface = path->out_interface;
            dropped[dropped_count++].path = (uint8_t)i;
        }
        path->next_hop = out != 0 ? take_next_hop(out, &path->path.gateway) : 0;
        path->out_interface = path->next_hop != 0 ? out : 0;
        path->state = path->next_hop != 0 ? PATH_RESOLVED : PATH_UNRESOLVED;
    }
    if (!changed)
        return;

    const uint32_t before = set->next_hop, group_before = set->group;
    set->next_hop = set_next_hop(set);
    if (set->next_hop != before)
        rib_set_changed(set);
    if (group_before != 0 && set->next_hop != group_before) {
        next_hop_group_release(group_before);
        set->group = 0;
    }
    for (unsigned i = 0; i < dropped_count; i++)
        drop_next_hop(dropped[i].interface, &set->paths[dropped[i].path].path.gateway);
}

static void set_free(struct path_set *set) {
    hash_remove(set);
    sets[set->id] = NULL;
    free_set_ids[free_set_count++] = set->id;
    set_count--;
    if (latest == set)
        latest = NULL;
    if (set->group != 0)
        next_hop_group_release(set->group);
    for (unsigned i = 0; i < set->count; i++) {
        if (set->paths[i].next_hop != 0)
            drop_next_hop(set->paths[i].out_interface, &set->paths[i].path.gateway);
    }
    free(set);
}

void path_set_release(struct path_set *set) {
    if (set->first_route == 0)
        set_free(set);
}

/* Is there a path that lacks nothing but a next hop? */
static bool lacks_next_hop(const struct path_set *set) {
    for (unsigned i = 0; i < set->count; i++) {
        if (path_interface(set, &set->paths[i].path) != 0)
            return true;
    }
    return false;
}

struct path_set *path_set_acquire(uint16_t vrf, const struct route_path *paths, unsigned count,
                                  int *error) {
    if (latest != NULL && set_is(latest, vrf, paths, count))
        return latest;

    const uint32_t hash = hash_of(vrf, paths, count);
    struct path_set *set = find(vrf, paths, count, hash);
    if (set == NULL) {
        set = make(vrf, paths, count, hash);
        if (set == NULL) {
            *error = -ENOMEM;
            return NULL;
        }
        set_resolve(set);
        if (set->next_hop == 0 && lacks_next_hop(set)) {
            set_free(set);
            *error = -ENOSPC;
            return NULL;
        }
    }
    latest = set;
    return set;
}

/* ---- events ---- */

void path_sets_interface_changed(uint16_t interface) {
    for (uint32_t id = 1; id < set_top; id++) {
        struct path_set *set = sets[id];
        bool concerned = false;

        for (unsigned i = 0; set != NULL && i < set->count && !concerned; i++)
            concerned = set->paths[i].path.interface == interface ||
                        set->paths[i].out_interface == interface;
        if (concerned)
            set_resolve(set);
    }
}

void path_sets_prefix_changed(uint16_t vrf, const struct ip_prefix *prefix) {
    for (uint32_t id = 1; id < set_top; id++) {
        struct path_set *set = sets[id];
        bool concerned = false;

        /* Not by the set's VRF where an interface is named: it may be in another. */
        for (unsigned i = 0; set != NULL && i < set->count && !concerned; i++)
            concerned = (set->vrf == vrf || set->paths[i].path.interface != 0) &&
                        ip_prefix_contains(prefix, &set->paths[i].path.gateway);
        if (concerned)
            set_resolve(set);
    }
}

void path_sets_interface_removed(uint16_t interface) {
    const uint32_t top = set_top; /* sets that are made here do not name the interface */

    for (uint32_t id = 1; id < top; id++) {
        struct path_set *set = sets[id], *other = NULL;
        struct route_path paths[ROUTE_PATHS_MAX];
        unsigned count = 0;
        int error = 0;

        if (set == NULL)
            continue;
        for (unsigned i = 0; i < set->count; i++) {
            if (set->paths[i].path.interface != interface)
                paths[count++] = set->paths[i].path;
        }
        if (count == set->count)
            continue;
        if (count > 0) {
            other = path_set_acquire(set->vrf, paths, count, &error);
            if (other == NULL)
                log_error("l3", "routes are lost with interface %u: %s", interface,
                          strerror(-error));
        }
        rib_set_replace(set, other);
        path_set_release(set);
        if (other != NULL)
            path_set_release(other);
    }
}

void path_sets_free_all(void) {
    for (uint32_t id = 1; id < set_top; id++) {
        if (sets[id] != NULL)
            set_free(sets[id]);
    }
    free(sets);
    free(free_set_ids);
    free(buckets);
    sets = NULL;
    free_set_ids = buckets = NULL;
    set_top = set_capacity = free_set_count = bucket_count = 0;
}
