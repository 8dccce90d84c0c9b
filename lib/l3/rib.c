/*
 * The routing information base: prefixes, their routes, and the FIBs that follow from them.
 *
 * Per VRF and family a prefix_trie holds all prefixes; the value is the prefix's best route, a
 * record from a pool, and worse origins' routes hang behind it in order. At most one record of a
 * prefix is `active`: the one whose next hop stands in the FIB. Unicast routes share their next
 * hops through path sets (rib_paths.c), and each set knows its records.
 *
 * A record is 24 bytes, IPv6 keys stand in a pool of their own: a million routes are mostly IPv4.
 *
 * The FIB of a VRF and family is made when the first route needs it. The martian destinations that
 * every VRF has do not: without any other route nothing can be forwarded anyway, and an IPv4 FIB
 * takes 64 MiB.
 *
 * What can go wrong: memory, in every update. Adding a route then fails and changes nothing; where
 * a removal fails the FIB's entry becomes "unreachable", and the RIB keeps an empty record. FIB
 * groups for long IPv4 prefixes can run out as well; the route is then refused, or (when it became
 * usable later) stays inactive, with a message in the log.
 *
 * Neither the neighbour table nor anybody else is called while a trie is being changed, except from
 * path_set_release() and path_set_acquire(); see there.
 */
#include "l3/rib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rcu.h"
#include "l3/l3.h"
#include "l3/next_hop.h"
#include "l3/rib_internal.h"

enum family { FAMILY4, FAMILY6, FAMILIES };

enum {
    POOL_CHUNK = 1 << 14, /* elements that are allocated at a time */
    BITS_LARGE = 16,      /* prefix_trie_create(): root of a large table */
    NO_MATCH_LIMIT = 129, /* prefix_trie_covering(): the longest match of the full key */
};

/* One route. */
struct record {
    uint32_t key;    /* IPv4: the address in host order. IPv6: index in the pool of keys */
    uint32_t next;   /* the same prefix's route of the next origin; 0 = none */
    uint32_t target; /* `direct`: next hop id. ROUTE_UNICAST: path set id */
    uint32_t set_previous, set_next; /* the path set's list */
    uint8_t length;
    uint8_t vrf;
    uint8_t origin; /* ROUTE_ORIGINS: empty, only holds the prefix's place */
    uint8_t type : 2;
    uint8_t direct : 1;
    uint8_t ipv6 : 1;
    uint8_t active : 1; /* in the FIB */
};
_Static_assert(sizeof(struct record) == 24, "a million of them");
_Static_assert(VRFS_MAX <= 256, "a VRF id fits a byte");

struct vrf_tables {
    uint64_t generation;
    struct prefix_trie *rib[FAMILIES];
    size_t count[FAMILIES];
    bool has_fib[FAMILIES];
};

static struct vrf_tables *tables[VRFS_MAX];
static uint64_t generations;

/* ---- pools: growable, elements stay where they are, index 0 is never given out ---- */

struct pool {
    size_t element;
    uint8_t **chunks;
    uint32_t chunk_count;
    uint32_t top;
    uint32_t free; /* a list through the first 4 bytes of free elements */
};

static struct pool records = {.element = sizeof(struct record), .top = 1};
static struct pool keys6 = {.element = sizeof(struct prefix_key), .top = 1};

static void *pool_at(const struct pool *pool, uint32_t index) {
    return pool->chunks[index / POOL_CHUNK] + index % POOL_CHUNK * pool->element;
}

/* Zeroed; 0 when memory is out. */
static uint32_t pool_take(struct pool *pool) {
    uint32_t index = pool->free;

    if (index != 0) {
        memcpy(&pool->free, pool_at(pool, index), sizeof(pool->free));
    } else {
        if (pool->top / POOL_CHUNK == pool->chunk_count) {
            uint8_t **chunks =
                reallocarray(pool->chunks, pool->chunk_count + 1, sizeof(*pool->chunks));
            if (chunks == NULL)
                return 0;
            pool->chunks = chunks;
            chunks[pool->chunk_count] = malloc(POOL_CHUNK * pool->element);
            if (chunks[pool->chunk_count] == NULL)
                return 0;
            pool->chunk_count++;
        }
        index = pool->top++;
    }
    memset(pool_at(pool, index), 0, pool->element);
    return index;
}

static void pool_give(struct pool *pool, uint32_t index) {
    memcpy(pool_at(pool, index), &pool->free, sizeof(pool->free));
    pool->free = index;
}

static void pool_free_all(struct pool *pool) {
    for (uint32_t i = 0; i < pool->chunk_count; i++)
        free(pool->chunks[i]);
    free(pool->chunks);
    *pool = (struct pool){.element = pool->element, .top = 1};
}

/* ---- keys and records ---- */

static enum family family_of(uint8_t address_family) {
    return address_family == AF_INET6 ? FAMILY6 : FAMILY4;
}

static struct prefix_key key_of(const struct ip_address *address) {
    return address->family == AF_INET6 ? prefix_key_from_ipv6(address->bytes)
                                       : prefix_key_from_ipv4(ip4_host_order(address));
}

static struct ip_address address_of(enum family family, struct prefix_key key) {
    struct ip_address address = {.family = family == FAMILY6 ? AF_INET6 : AF_INET};

    if (family == FAMILY6) {
        prefix_key_to_ipv6(key, address.bytes);
    } else {
        const uint32_t bits = prefix_key_to_ipv4(key);

        for (unsigned i = 0; i < 4; i++)
            address.bytes[i] = (uint8_t)(bits >> (24 - 8 * i));
    }
    return address;
}

static struct record *record_at(uint32_t index) {
    return pool_at(&records, index);
}

static struct prefix_key record_key(const struct record *record) {
    return record->ipv6 ? *(struct prefix_key *)pool_at(&keys6, record->key)
                        : prefix_key_from_ipv4(record->key);
}

static uint32_t record_new(uint16_t vrf, enum family family, struct prefix_key key,
                           uint8_t length) {
    const uint32_t index = pool_take(&records);

    if (index == 0)
        return 0;
    struct record *record = record_at(index);
    record->vrf = (uint8_t)vrf;
    record->length = length;
    record->ipv6 = family == FAMILY6;
    if (family == FAMILY4) {
        record->key = prefix_key_to_ipv4(key);
        return index;
    }
    record->key = pool_take(&keys6);
    if (record->key == 0) {
        pool_give(&records, index);
        return 0;
    }
    *(struct prefix_key *)pool_at(&keys6, record->key) = key;
    return index;
}

static void record_free(uint32_t index) {
    struct record *record = record_at(index);

    if (record->ipv6)
        pool_give(&keys6, record->key);
    pool_give(&records, index);
}

static bool uses_set(const struct record *record) {
    return !record->direct && record->type == ROUTE_UNICAST && record->origin != ROUTE_ORIGINS;
}

/* What the route installs; 0 while it is not usable. */
static uint32_t record_next_hop(const struct record *record) {
    if (record->origin == ROUTE_ORIGINS)
        return NEXT_HOP_ID_NONE;
    if (record->direct)
        return record->target;
    switch ((enum route_type)record->type) {
    case ROUTE_BLACKHOLE:
        return NEXT_HOP_ID_BLACKHOLE;
    case ROUTE_UNREACHABLE:
        return NEXT_HOP_ID_UNREACHABLE;
    case ROUTE_PROHIBIT:
        return NEXT_HOP_ID_PROHIBIT;
    case ROUTE_UNICAST:
        break;
    }
    return path_set_by_id(record->target)->next_hop;
}

static void set_link(uint32_t index) {
    struct record *record = record_at(index);

    if (!uses_set(record))
        return;
    struct path_set *set = path_set_by_id(record->target);
    record->set_previous = 0;
    record->set_next = set->first_route;
    if (set->first_route != 0)
        record_at(set->first_route)->set_previous = index;
    set->first_route = index;
}

/* Returns the set, for path_set_release() when the time has come. */
static struct path_set *set_unlink(uint32_t index) {
    struct record *record = record_at(index);

    if (!uses_set(record))
        return NULL;
    struct path_set *set = path_set_by_id(record->target);
    if (record->set_previous != 0)
        record_at(record->set_previous)->set_next = record->set_next;
    else
        set->first_route = record->set_next;
    if (record->set_next != 0)
        record_at(record->set_next)->set_previous = record->set_previous;
    record->set_previous = record->set_next = 0;
    return set;
}

/* ---- the FIBs ---- */

/* A prefix in its tables; `head` is its best route's record, 0 when it has none. */
struct place {
    struct vrf_tables *tables;
    uint16_t vrf;
    enum family family;
    struct prefix_key key;
    uint8_t length;
    uint32_t head;
};

static struct place place_of_record(const struct record *record) {
    struct place place = {.tables = tables[record->vrf],
                          .vrf = record->vrf,
                          .family = record->ipv6 ? FAMILY6 : FAMILY4,
                          .key = record_key(record),
                          .length = record->length};

    place.head = prefix_trie_get(place.tables->rib[place.family], place.key, place.length);
    return place;
}

static bool place_find(uint16_t vrf, const struct ip_prefix *prefix, struct place *place) {
    if (vrf >= VRFS_MAX || tables[vrf] == NULL)
        return false;
    *place = (struct place){.tables = tables[vrf],
                            .vrf = vrf,
                            .family = family_of(prefix->address.family),
                            .key = key_of(&prefix->address),
                            .length = prefix->length};
    place->head = prefix_trie_get(place->tables->rib[place->family], place->key, place->length);
    return true;
}

/* Puts one entry into the FIB, or changes it by a single store. */
static int fib_store(const struct place *place, uint32_t next_hop) {
    if (place->family == FAMILY6)
        return prefix_trie_insert(fib6_of_vrf[place->vrf], place->key, place->length, next_hop,
                                  NULL);
    return fib4_add(fib4_of_vrf[place->vrf], prefix_key_to_ipv4(place->key), place->length,
                    next_hop);
}

static uint32_t active_of(uint32_t head) {
    while (head != 0 && !record_at(head)->active)
        head = record_at(head)->next;
    return head;
}

/* The installed route of the longest prefix that covers the place's and is shorter than `limit`. */
static uint32_t covering_active(const struct place *place, unsigned limit) {
    struct prefix_entry entry = {.len = 0};

    while (prefix_trie_covering(place->tables->rib[place->family], place->key, limit, &entry)) {
        const uint32_t active = active_of(entry.value);

        if (active != 0)
            return active;
        limit = entry.len;
    }
    return 0;
}

static void fib_clear(const struct place *place) {
    static struct log_limit limit;
    int error;

    if (!place->tables->has_fib[place->family])
        return;
    if (place->family == FAMILY6) {
        error = prefix_trie_delete(fib6_of_vrf[place->vrf], place->key, place->length, NULL);
    } else {
        const uint32_t covering = covering_active(place, place->length);

        error = fib4_delete(fib4_of_vrf[place->vrf], prefix_key_to_ipv4(place->key), place->length,
                            covering != 0 ? record_next_hop(record_at(covering)) : 0,
                            covering != 0 ? record_at(covering)->length : 0);
    }
    if (error == 0)
        return;
    /* The next hop may be given to somebody else soon, so nothing may lead to it any more. Changing
     * what an entry says takes no memory. */
    log_limited(&limit, LOG_LEVEL_ERROR, "l3",
                "a route cannot be taken out of the forwarding table: %s; its destinations are "
                "unreachable now",
                strerror(-error));
    if (error == -ENOMEM)
        fib_store(place, NEXT_HOP_ID_UNREACHABLE);
}

/* Does the route lead anywhere, so that the VRF needs a FIB? Martian destinations alone do not. */
static bool needs_fib(const struct record *record) {
    return !(record->direct && record->origin == ROUTE_LOCAL &&
             next_hop_get(record->target)->out_interface == 0);
}

static void fib4_retired(void *owner, void *memory, size_t size) {
    (void)memory;
    (void)size;
    fib4_destroy(owner);
}

static void fib6_retired(void *owner, void *memory, size_t size) {
    (void)memory;
    (void)size;
    prefix_trie_destroy(owner);
}

/* Makes the FIB with all that is active so far and shows it to the workers. */
static int fib_make(const struct place *of) {
    struct prefix_entry entry;
    void *table;
    int error = 0;

    if (of->family == FAMILY6)
        table = prefix_trie_create(BITS_LARGE, rcu_retire, NULL);
    else
        table = fib4_create(0, rcu_retire, NULL);
    if (table == NULL)
        return -ENOMEM;

    const struct prefix_trie *rib = of->tables->rib[of->family];
    for (bool more = prefix_trie_first(rib, &entry); more && error == 0;
         more = prefix_trie_next(rib, entry.key, entry.len, &entry)) {
        const uint32_t active = active_of(entry.value);

        if (active == 0)
            continue;
        if (of->family == FAMILY6)
            error = prefix_trie_insert(table, entry.key, entry.len,
                                       record_next_hop(record_at(active)), NULL);
        else
            error = fib4_add(table, prefix_key_to_ipv4(entry.key), entry.len,
                             record_next_hop(record_at(active)));
    }
    if (error != 0) {
        if (of->family == FAMILY6)
            prefix_trie_destroy(table);
        else
            fib4_destroy(table);
        return error;
    }
    if (of->family == FAMILY6)
        fib6_of_vrf[of->vrf] = table;
    else
        fib4_of_vrf[of->vrf] = table;
    of->tables->has_fib[of->family] = true;
    return 0;
}

static int fib_install(const struct place *place, const struct record *record) {
    if (!place->tables->has_fib[place->family]) {
        if (!needs_fib(record))
            return 0; /* it comes in when the FIB is made */
        const int error = fib_make(place);
        if (error != 0)
            return error;
    }
    return fib_store(place, record_next_hop(record));
}

static uint32_t first_usable(uint32_t head) {
    while (head != 0 && record_next_hop(record_at(head)) == 0)
        head = record_at(head)->next;
    return head;
}

/* Does the route only say that its destination is on the link of the known neighbour? */
static bool leads_to_neighbour(const struct record *record, const struct record *neighbour) {
    const struct next_hop *next_hop = next_hop_get(record_next_hop(record));

    return next_hop->type == NEXT_HOP_GLEAN &&
           next_hop->out_interface == next_hop_get(neighbour->target)->out_interface;
}

/* A neighbour's route fills in what a connected prefix or an on-link route leaves open. Where
 * somebody wants something else with a host of the link, a blackhole for instance, that counts, no
 * matter whether the host has been seen. */
static uint32_t best_of(uint32_t head) {
    const uint32_t best = first_usable(head);

    if (best != 0 && record_at(best)->origin == ROUTE_NEIGHBOUR) {
        const uint32_t wanted = first_usable(record_at(best)->next);
        if (wanted != 0 && !leads_to_neighbour(record_at(wanted), record_at(best)))
            return wanted;
    }
    return best;
}

/* Brings the FIB in line with the prefix's routes. `changed`: the active one has another next hop
 * than the FIB. On failure the FIB is as before. */
static int refresh(const struct place *place, bool changed) {
    const uint32_t active = active_of(place->head), best = best_of(place->head);

    if (best == active && !changed)
        return 0;
    if (best != 0) {
        const int error = fib_install(place, record_at(best));
        if (error != 0)
            return error;
    } else if (active != 0) {
        /* Not active while the covering prefix is looked for. */
        fib_clear(place);
    }
    if (active != 0)
        record_at(active)->active = false;
    if (best != 0)
        record_at(best)->active = true;
    return 0;
}

/* refresh() where failing is no option: what cannot be installed is not. */
static void refresh_or_log(const struct place *place, bool changed) {
    static struct log_limit limit;
    const int error = refresh(place, changed);

    if (error == 0)
        return;
    const uint32_t active = active_of(place->head);
    struct ip_prefix prefix = {address_of(place->family, place->key), place->length};
    char text[IP_PREFIX_TEXT];

    log_limited(&limit, LOG_LEVEL_ERROR, "l3",
                "the route to %s cannot be put into the forwarding table: %s",
                ip_prefix_text(&prefix, text), strerror(-error));
    if (active != 0) {
        fib_clear(place);
        record_at(active)->active = false;
    }
}

/* ---- adding and removing records ---- */

static uint32_t chain_find(uint32_t head, uint8_t origin) {
    while (head != 0 && record_at(head)->origin != origin)
        head = record_at(head)->next;
    return head;
}

/* Puts the record in its place in the prefix's chain. 0, or -ENOMEM for a new prefix. */
static int chain_insert(struct place *place, uint32_t index) {
    struct record *record = record_at(index);
    uint32_t before = 0, at = place->head;

    while (at != 0 && record_at(at)->origin < record->origin) {
        before = at;
        at = record_at(at)->next;
    }
    record->next = at;
    if (before != 0) {
        record_at(before)->next = index;
        return 0;
    }
    const int error = prefix_trie_insert(place->tables->rib[place->family], place->key,
                                         place->length, index, NULL);
    if (error == 0)
        place->head = index;
    return error;
}

/* Takes the record out of the chain and frees it. The FIB does not know it any more. */
static void chain_remove(struct place *place, uint32_t index) {
    struct prefix_trie *rib = place->tables->rib[place->family];
    struct record *record = record_at(index);
    const uint32_t next = record->next;

    if (place->head != index) {
        uint32_t before = place->head;

        while (record_at(before)->next != index)
            before = record_at(before)->next;
        record_at(before)->next = next;
        record_free(index);
    } else if (next != 0 && record_at(next)->origin != ROUTE_ORIGINS) {
        place->head = next;
        prefix_trie_insert(rib, place->key, place->length, next, NULL); /* one store */
        record_free(index);
    } else if (prefix_trie_delete(rib, place->key, place->length, NULL) == 0) {
        place->head = 0;
        for (uint32_t after; index != 0; index = after) {
            after = record_at(index)->next;
            record_free(index);
        }
    } else {
        /* No memory to take the prefix out of the trie: an empty record keeps its place. */
        record->origin = ROUTE_ORIGINS;
    }
}

static int add_new(struct place *place, const struct record *content) {
    const uint32_t index = record_new(place->vrf, place->family, place->key, place->length);
    int error;

    if (index == 0)
        return -ENOMEM;
    struct record *record = record_at(index);
    record->origin = content->origin;
    record->type = content->type;
    record->direct = content->direct;
    record->target = content->target;
    error = chain_insert(place, index);
    if (error != 0) {
        record_free(index);
        return error;
    }
    /* Before refresh(), which may make the FIB out of all that is there; it finds no active one. */
    set_link(index);
    error = refresh(place, false);
    if (error != 0) {
        set_unlink(index);
        chain_remove(place, index);
        return error;
    }
    place->tables->count[place->family]++;
    return 0;
}

/* Changes an existing record to the new content, in the FIB by a single store. */
static int replace(struct place *place, uint32_t index, const struct record *content) {
    struct record *record = record_at(index);

    if (record->type == content->type && record->direct == content->direct &&
        record->target == content->target)
        return 0;

    const struct record before = *record;
    struct path_set *set_before = set_unlink(index);
    record->type = content->type;
    record->direct = content->direct;
    record->target = content->target;
    set_link(index);
    const int error = refresh(place, record->active);
    if (error != 0) {
        set_unlink(index);
        record->type = before.type;
        record->direct = before.direct;
        record->target = before.target;
        set_link(index);
        return error;
    }
    if (set_before != NULL)
        path_set_release(set_before);
    return 0;
}

static int put(uint16_t vrf, const struct ip_prefix *prefix, const struct record *content) {
    struct place place;

    if (!place_find(vrf, prefix, &place))
        return -ENOENT;
    const uint32_t index = chain_find(place.head, content->origin);
    return index != 0 ? replace(&place, index, content) : add_new(&place, content);
}

/* Removes a route that has let go of its path set. The FIB first: what takes over there does so by
 * a single store. */
static void remove_unlinked(struct place *place, uint32_t index) {
    struct record *record = record_at(index);
    const uint8_t origin = record->origin;

    record->origin = ROUTE_ORIGINS; /* not usable any more */
    refresh_or_log(place, false);
    record->origin = origin;
    chain_remove(place, index);
    place->tables->count[place->family]--;
}

static bool prefix_is_valid(const struct ip_prefix *prefix) {
    return (prefix->address.family == AF_INET || prefix->address.family == AF_INET6) &&
           prefix->length <= ip_family_bits(prefix->address.family);
}

/* Do gateways depend on routes of this origin? */
static bool concerns_gateways(enum route_origin origin) {
    return origin == ROUTE_CONNECTED || origin == ROUTE_LOCAL;
}

int rib_add(const struct route *route) {
    struct record content = {.origin = (uint8_t)route->origin, .type = route->type & 3};
    struct path_set *set = NULL;
    int error;

    if (route->vrf >= VRFS_MAX || tables[route->vrf] == NULL)
        return -ENOENT;
    if (!prefix_is_valid(&route->prefix) || route->path_count > ROUTE_PATHS_MAX ||
        (route->type == ROUTE_UNICAST) != (route->path_count > 0))
        return -EINVAL;
    if (route->type == ROUTE_UNICAST) {
        set = path_set_acquire(route->vrf, route->paths, route->path_count, &error);
        if (set == NULL)
            return error;
        content.target = set->id;
    }
    error = put(route->vrf, &route->prefix, &content);
    if (error != 0 && set != NULL)
        path_set_release(set);
    if (error == 0 && concerns_gateways(route->origin))
        path_sets_prefix_changed(route->vrf, &route->prefix);
    return error;
}

int rib_add_direct(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin,
                   uint32_t next_hop) {
    const struct record content = {.origin = (uint8_t)origin, .direct = true, .target = next_hop};
    int error;

    if (!prefix_is_valid(prefix) || next_hop == NEXT_HOP_ID_NONE)
        return -EINVAL;
    error = put(vrf, prefix, &content);
    if (error == 0 && concerns_gateways(origin))
        path_sets_prefix_changed(vrf, prefix);
    return error;
}

int rib_delete(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin) {
    struct place place;

    if (!prefix_is_valid(prefix) || origin >= ROUTE_ORIGINS || !place_find(vrf, prefix, &place))
        return -ENOENT;
    const uint32_t index = chain_find(place.head, (uint8_t)origin);
    if (index == 0)
        return -ENOENT;
    struct path_set *set = set_unlink(index);
    remove_unlinked(&place, index);
    if (set != NULL)
        path_set_release(set);
    if (concerns_gateways(origin))
        path_sets_prefix_changed(vrf, prefix);
    return 0;
}

/* ---- for path sets ---- */

void rib_set_changed(const struct path_set *set) {
    for (uint32_t index = set->first_route; index != 0; index = record_at(index)->set_next) {
        const struct place place = place_of_record(record_at(index));

        refresh_or_log(&place, record_at(index)->active);
    }
}

void rib_set_replace(struct path_set *set, struct path_set *other) {
    for (uint32_t index = set->first_route, next; index != 0; index = next) {
        struct record *record = record_at(index);
        struct place place = place_of_record(record);

        next = record->set_next;
        if (other == NULL) {
            set_unlink(index);
            remove_unlinked(&place, index);
            continue;
        }
        set_unlink(index);
        record->target = other->id;
        set_link(index);
        refresh_or_log(&place, record->active);
    }
}

/* The best active or inactive record of `origin` in a prefix that covers the address. */
static uint32_t find_covering(uint16_t vrf, const struct ip_address *address, uint8_t origin) {
    struct prefix_entry entry = {.len = 0};
    unsigned limit = NO_MATCH_LIMIT;

    if (vrf >= VRFS_MAX || tables[vrf] == NULL || address->family == 0)
        return 0;
    const struct prefix_trie *rib = tables[vrf]->rib[family_of(address->family)];
    const struct prefix_key key = key_of(address);
    while (prefix_trie_covering(rib, key, limit, &entry)) {
        const uint32_t index = chain_find(entry.value, origin);

        if (index != 0)
            return index;
        limit = entry.len;
    }
    return 0;
}

uint16_t rib_on_link(uint16_t vrf, const struct ip_address *address) {
    const uint32_t index = find_covering(vrf, address, ROUTE_CONNECTED);

    if (index == 0 || !record_at(index)->direct)
        return 0;
    return next_hop_get(record_at(index)->target)->out_interface;
}

bool rib_is_local(uint16_t vrf, const struct ip_address *address) {
    const struct ip_prefix host = {*address, ip_family_bits(address->family)};
    struct place place;

    return place_find(vrf, &host, &place) && chain_find(place.head, ROUTE_LOCAL) != 0;
}

/* ---- looking ---- */

/* The gateway is nowhere on-link: is that because an interface is down? */
static bool is_behind_down(uint16_t vrf, const struct route_path *path) {
    const struct interface *interface;

    if (path->interface != 0) {
        interface = interface_by_id(path->interface);
        return interface == NULL || !interface->up;
    }
    for (interface = interface_next(NULL); interface != NULL;
         interface = interface_next(interface)) {
        if (interface->up || interface->vrf != vrf)
            continue;
        for (unsigned i = 0; i < interface->address_count; i++) {
            const struct ip_prefix network = ip_prefix_network(&interface->addresses[i].prefix);

            if (ip_prefix_contains(&network, &path->gateway))
                return true;
        }
    }
    return false;
}

static void fill_view(const struct record *record, struct route_view *view) {
    view->vrf = record->vrf;
    view->prefix.address = address_of(record->ipv6 ? FAMILY6 : FAMILY4, record_key(record));
    view->prefix.length = record->length;
    view->origin = record->origin;
    view->type = record->type;
    view->active = record->active;
    view->next_hop = record_next_hop(record);
    view->path_count = 0;
    if (record->direct) {
        const uint16_t out = next_hop_get(record->target)->out_interface;

        if (out == 0)
            return;
        view->paths[0].path = (struct route_path){.interface = out, .weight = 1};
        if (record->origin == ROUTE_NEIGHBOUR)
            view->paths[0].path.gateway = view->prefix.address;
        view->paths[0].state = PATH_RESOLVED;
        view->paths[0].out_interface = out;
        view->path_count = 1;
    } else if (record->type == ROUTE_UNICAST) {
        const struct path_set *set = path_set_by_id(record->target);

        view->path_count = set->count;
        for (unsigned i = 0; i < set->count; i++) {
            view->paths[i].path = set->paths[i].path;
            view->paths[i].state = set->paths[i].state;
            view->paths[i].out_interface = set->paths[i].out_interface;
            if (set->paths[i].state != PATH_RESOLVED &&
                is_behind_down(set->vrf, &view->paths[i].path))
                view->paths[i].state = PATH_DOWN;
        }
    }
}

void rib_each_behind(uint16_t vrf, uint8_t family, const struct ip_prefix *prefix,
                     enum route_origin origin,
                     bool (*visit)(const struct route_view *view, void *context), void *context) {
    struct prefix_entry entry = {.len = 0};
    struct route_view view;
    bool more;

    if (vrf >= VRFS_MAX || tables[vrf] == NULL)
        return;
    const struct prefix_trie *rib = tables[vrf]->rib[family_of(family)];
    if (prefix == NULL) {
        more = prefix_trie_first(rib, &entry);
    } else {
        entry.key = key_of(&prefix->address);
        entry.len = prefix->length;
        entry.value = prefix_trie_get(rib, entry.key, entry.len);
        more = true;
    }
    for (; more; more = prefix_trie_next(rib, entry.key, entry.len, &entry)) {
        for (uint32_t index = entry.value; index != 0; index = record_at(index)->next) {
            const struct record *record = record_at(index);

            if (record->origin == ROUTE_ORIGINS || (prefix != NULL && record->origin <= origin))
                continue;
            fill_view(record, &view);
            if (!visit(&view, context))
                return;
        }
        prefix = NULL;
    }
}

void rib_each(uint16_t vrf, uint8_t family, const struct ip_prefix *after,
              bool (*visit)(const struct route_view *view, void *context), void *context) {
    rib_each_behind(vrf, family, after, ROUTE_ORIGINS, visit, context);
}

bool rib_find(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin,
              struct route_view *out) {
    struct place place;

    if (!prefix_is_valid(prefix) || origin >= ROUTE_ORIGINS || !place_find(vrf, prefix, &place))
        return false;
    const uint32_t index = chain_find(place.head, (uint8_t)origin);
    if (index != 0)
        fill_view(record_at(index), out);
    return index != 0;
}

bool rib_lookup(uint16_t vrf, const struct ip_address *address, struct route_view *out) {
    if (vrf >= VRFS_MAX || tables[vrf] == NULL || address->family == 0)
        return false;
    const struct place place = {.tables = tables[vrf],
                                .vrf = vrf,
                                .family = family_of(address->family),
                                .key = key_of(address)};
    const uint32_t index = covering_active(&place, NO_MATCH_LIMIT);
    if (index != 0)
        fill_view(record_at(index), out);
    return index != 0;
}

size_t rib_count(uint16_t vrf, uint8_t family) {
    return vrf < VRFS_MAX && tables[vrf] != NULL ? tables[vrf]->count[family_of(family)] : 0;
}

uint64_t rib_vrf_generation(uint16_t vrf) {
    return vrf < VRFS_MAX && tables[vrf] != NULL ? tables[vrf]->generation : 0;
}

/* ---- interfaces and VRFs ---- */

static void tables_free(struct vrf_tables *gone) {
    prefix_trie_destroy(gone->rib[FAMILY4]);
    prefix_trie_destroy(gone->rib[FAMILY6]);
    free(gone);
}

static void vrf_added(uint16_t vrf) {
    if (vrf >= VRFS_MAX || tables[vrf] != NULL)
        return;
    struct vrf_tables *new = calloc(1, sizeof(*new));
    if (new != NULL) {
        /* The default VRF is the one that may see the whole Internet. */
        const unsigned root_bits = vrf == VRF_DEFAULT ? BITS_LARGE : 0;

        for (unsigned family = 0; family < FAMILIES; family++)
            new->rib[family] = prefix_trie_create(root_bits, NULL, NULL);
    }
    if (new == NULL || new->rib[FAMILY4] == NULL || new->rib[FAMILY6] == NULL) {
        log_error("l3", "no memory for the routes of VRF %s", vrf_name(vrf));
        if (new != NULL)
            tables_free(new);
        return;
    }
    new->generation = ++generations;
    tables[vrf] = new;
}

static void vrf_removed(uint16_t vrf) {
    if (vrf >= VRFS_MAX || tables[vrf] == NULL)
        return;
    /* Unknown from here on, also to the neighbour table when sets let go of their gateways. */
    struct vrf_tables *gone = tables[vrf];
    tables[vrf] = NULL;
    if (gone->has_fib[FAMILY4]) {
        struct fib4 *fib = fib4_of_vrf[vrf];

        fib4_of_vrf[vrf] = NULL;
        rcu_retire(NULL, fib4_retired, fib, NULL, 0);
    }
    if (gone->has_fib[FAMILY6]) {
        struct prefix_trie *fib = fib6_of_vrf[vrf];

        fib6_of_vrf[vrf] = NULL;
        rcu_retire(NULL, fib6_retired, fib, NULL, 0);
    }
    for (unsigned family = 0; family < FAMILIES; family++) {
        const struct prefix_trie *rib = gone->rib[family];
        struct prefix_entry entry;

        for (bool more = prefix_trie_first(rib, &entry); more;
             more = prefix_trie_next(rib, entry.key, entry.len, &entry)) {
            for (uint32_t index = entry.value, next; index != 0; index = next) {
                struct path_set *set = set_unlink(index);

                next = record_at(index)->next;
                record_free(index);
                if (set != NULL)
                    path_set_release(set);
            }
        }
    }
    tables_free(gone);
}

static void interface_changed(struct interface *interface) {
    path_sets_interface_changed(interface->id);
}

static void interface_removed(struct interface *interface) {
    path_sets_interface_removed(interface->id);
}

static struct interface_listener listener = {
    .up = interface_changed,
    .down = interface_changed,
    .removed = interface_removed,
    .vrf_added = vrf_added,
    .vrf_removed = vrf_removed,
};

int rib_init(void) {
    static bool listening;

    if (!listening)
        interface_listen(&listener);
    listening = true;
    return 0;
}

void rib_free_all(void) {
    for (unsigned vrf = 0; vrf < VRFS_MAX; vrf++)
        vrf_removed((uint16_t)vrf);
    path_sets_free_all();
    pool_free_all(&records);
    pool_free_all(&keys6);
}
