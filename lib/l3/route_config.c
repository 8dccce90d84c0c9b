/*
 * Section "routes" of router.json: the routes of origin `config`.
 *
 * There may be a million of them, so the decoded form is compact: names and lists of paths are
 * stored once each, a route is 32 bytes. Routes are sorted by VRF and prefix; that finds
 * duplicates, and lets commit walk old and new side by side and tell the RIB of nothing but the
 * difference.
 *
 * A gateway must be in a connected prefix of the VRF, or an interface be named; that may be one of
 * another VRF. Gateways behind other routes (recursive next hops) are not supported.
 *
 * A route is also told anew when what it names has become something else under the same name: an
 * interface that was removed and added again has another id, a VRF another generation.
 *
 * What can go wrong in commit, which must not fail: the RIB runs out of memory or next hops. The
 * route is then missing, with a message in the log.
 */
#define _GNU_SOURCE
#include "l3/route_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rcu.h"
#include "interface/interface.h"
#include "l3/rib_internal.h"

static const char default_vrf[] = "default";

/* ---- one route ---- */

void route_interface_place(enum via_shape shape, unsigned path, bool in_via,
                           char text[ROUTE_PLACE_TEXT]) {
    if (!in_via)
        snprintf(text, ROUTE_PLACE_TEXT, ".interface");
    else if (shape == VIA_ARRAY)
        snprintf(text, ROUTE_PLACE_TEXT, ".via[%u].interface", path);
    else
        snprintf(text, ROUTE_PLACE_TEXT, ".via.interface");
}

void route_gateway_place(enum via_shape shape, unsigned path, char text[ROUTE_PLACE_TEXT]) {
    if (shape == VIA_ARRAY)
        snprintf(text, ROUTE_PLACE_TEXT, ".via[%u]", path);
    else
        snprintf(text, ROUTE_PLACE_TEXT, ".via");
}

const char *route_error_text(int error) {
    return error == -ENOSPC ? "no room in the forwarding tables" : strerror(-error);
}

/* A member that names something. Absent: *out keeps its default, true. */
static bool decode_member_name(const struct decode *d, const char *key, const char **out) {
    struct decode member;

    return !decode_member(d, key, &member) ||
           (decode_string(&member, out) && decode_name(&member, *out));
}

bool route_decode_vrf(const struct decode *d, const char **out) {
    *out = default_vrf;
    return decode_member_name(d, "vrf", out);
}

/* Destinations that no route can make forwardable (RFC 1812 section 5.3.7, RFC 6890). A shorter
 * prefix that covers one, such as 0.0.0.0/0, is right: the router's own entry is longer. */
static bool check_destination(const struct decode *d, const struct ip_prefix *prefix) {
    static const struct {
        uint8_t family, length;
        uint8_t bytes[12];
        const char *what;
    } blocks[] = {
        {AF_INET, 8, {0}, "addresses of \"this network\""},
        {AF_INET, 8, {127}, "loopback addresses"},
        {AF_INET, 4, {224}, "multicast groups"},
        {AF_INET, 3, {224}, "multicast groups and reserved addresses"},
        {AF_INET, 4, {240}, "reserved addresses"},
        {AF_INET6, 8, {0xff}, "multicast groups"},
        {AF_INET6, 10, {0xfe, 0x80}, "link-local addresses, which each interface has its own of"},
        {AF_INET6, 96, {[10] = 0xff, [11] = 0xff}, "IPv4-mapped addresses"},
        {AF_INET6, 127, {0}, "the unspecified and the loopback address"},
    };

    for (unsigned i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        struct ip_prefix block = {.address.family = blocks[i].family, .length = blocks[i].length};

        memcpy(block.address.bytes, blocks[i].bytes, sizeof(blocks[i].bytes));
        if (prefix->length < block.length || !ip_prefix_contains(&block, &prefix->address))
            continue;
        decode_problem(d, "a route cannot lead to %s", blocks[i].what);
        return false;
    }
    return true;
}

static bool decode_gateway(const struct decode *d, struct ip_address *out) {
    char text[IP_ADDRESS_TEXT];

    if (!decode_address(d, out))
        return false;
    if (ip_address_is_host(out))
        return true;
    decode_problem(d, "expected the unicast address of a router, found %s",
                   ip_address_text(out, text));
    return false;
}

/* One next hop: an address, or an object. Where the interface is not named here it is that of the
 * whole route, if there is one. */
static bool decode_next_hop(const struct decode *d, const char *route_interface,
                            struct decoded_path *path) {
    static const char *const keys[] = {"address", "interface", "weight", NULL};
    struct decode member;
    uint16_t weight = 1;
    bool good = true;

    *path = (struct decoded_path){.interface = route_interface, .weight = 1};
    if (!json_is_object(d->value)) {
        if (json_is_string(d->value))
            return decode_gateway(d, &path->gateway);
        decode_problem(d, "expected an address, or an object with `address`, `interface` and "
                          "`weight`");
        return false;
    }
    const size_t problems = d->problems ? d->problems->count + d->problems->omitted : 0;
    decode_only_keys(d, keys);
    good = d->problems == NULL || d->problems->count + d->problems->omitted == problems;
    if (decode_member(d, "interface", &member)) {
        if (route_interface != NULL) {
            decode_problem(&member, "the interface is given twice: name it here or beside `via`, "
                                    "not both");
            good = false;
        } else {
            good &= decode_member_name(d, "interface", &path->interface);
            path->interface_in_via = true;
        }
    }
    good &= decode_member_u16(d, "weight", 1, 255, &weight);
    path->weight = (uint8_t)weight;
    if (decode_member(d, "address", &member)) {
        good &= decode_gateway(&member, &path->gateway);
    } else if (good && path->interface == NULL) {
        decode_problem(d, "`address` or `interface` is required");
        good = false;
    }
    return good;
}

/* What a next hop may not be in this route. */
static bool check_path(const struct decode *d, const struct decoded_route *route, unsigned index) {
    const struct decoded_path *path = &route->paths[index];
    const uint8_t family = path->gateway.family;
    char text[IP_ADDRESS_TEXT];

    if (route->prefix.address.family == AF_INET6 && family == AF_INET) {
        decode_problem(d, "an IPv6 prefix cannot be reached through the IPv4 gateway %s",
                       ip_address_text(&path->gateway, text));
        return false;
    }
    if (family == AF_INET6 && ip_address_is_link_local(&path->gateway) && path->interface == NULL) {
        decode_problem(d, "the link-local gateway %s needs an `interface`",
                       ip_address_text(&path->gateway, text));
        return false;
    }
    for (unsigned i = 0; i < index; i++) {
        const struct decoded_path *other = &route->paths[i];

        if (other->weight != 0 && ip_address_compare(&other->gateway, &path->gateway) == 0 &&
            (other->interface == NULL) == (path->interface == NULL) &&
            (path->interface == NULL || strcmp(other->interface, path->interface) == 0)) {
            decode_problem(d, "the same next hop as number %u; use `weight` to prefer one", i + 1);
            return false;
        }
    }
    return true;
}

static bool decode_via(const struct decode *d, const char *interface, struct decoded_route *route) {
    bool good = true;

    if (!json_is_array(d->value)) {
        route->shape = VIA_SINGLE;
        route->path_count = 1;
        return decode_next_hop(d, interface, &route->paths[0]) && check_path(d, route, 0);
    }
    const size_t count = json_array_size(d->value);
    if (count == 0 || count > ROUTE_PATHS_MAX) {
        decode_problem(d, "expected 1 to %d next hops, found %zu", ROUTE_PATHS_MAX, count);
        return false;
    }
    route->shape = VIA_ARRAY;
    for (size_t i = 0; i < count; i++) {
        const struct decode element = decode_element(d, i);

        if (decode_next_hop(&element, interface, &route->paths[i])) {
            good &= check_path(&element, route, (unsigned)i);
        } else {
            route->paths[i].weight = 0; /* may hold anything: not to be compared with */
            good = false;
        }
    }
    route->path_count = (unsigned)count;
    return good;
}

/* The member is there and not false. */
static bool decode_flag(const struct decode *d, const char *key, bool *good) {
    bool value = false;

    *good &= decode_member_bool(d, key, &value);
    return value;
}

bool route_decode(const struct decode *d, struct decoded_route *out) {
    static const char *const keys[] = {"prefix",      "via",      "interface", "blackhole",
                                       "unreachable", "prohibit", "vrf",       NULL};
    static const struct {
        const char *key;
        enum route_type type;
    } verdicts[] = {{"blackhole", ROUTE_BLACKHOLE},
                    {"unreachable", ROUTE_UNREACHABLE},
                    {"prohibit", ROUTE_PROHIBIT}};
    struct decode member, via;
    const char *interface = NULL, *verdict = NULL;
    bool good = true;

    /* Not the array: most routes have one path, and there may be a million of them. */
    out->type = ROUTE_UNICAST;
    out->shape = VIA_NONE;
    out->path_count = 0;
    out->prefix = (struct ip_prefix){.length = 0};
    if (!decode_is_object(d))
        return false;
    const size_t problems = d->problems ? d->problems->count + d->problems->omitted : 0;
    decode_only_keys(d, keys);
    good = d->problems == NULL || d->problems->count + d->problems->omitted == problems;

    if (decode_required(d, "prefix", &member))
        good &= decode_prefix(&member, &out->prefix) && check_destination(&member, &out->prefix);
    else
        good = false;
    good &= route_decode_vrf(d, &out->vrf);
    good &= decode_member_name(d, "interface", &interface);

    const bool has_interface = json_object_get(d->value, "interface") != NULL;
    const bool has_via = decode_member(d, "via", &via);
    for (unsigned i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
        if (!decode_flag(d, verdicts[i].key, &good))
            continue;
        decode_member(d, verdicts[i].key, &member);
        const char *other = verdict != NULL ? verdict
                            : has_via       ? "via"
                            : has_interface ? "interface"
                                            : NULL;
        if (other != NULL) {
            decode_problem(&member, "`%s` and `%s` exclude each other", other, verdicts[i].key);
            good = false;
        }
        verdict = verdicts[i].key;
        out->type = verdicts[i].type;
    }
    if (has_via) {
        good &= decode_via(&via, interface, out);
    } else if (has_interface) {
        out->paths[0] = (struct decoded_path){.interface = interface, .weight = 1};
        out->path_count = 1;
    } else if (verdict == NULL) {
        decode_problem(d, "one of `via`, `interface`, `blackhole`, `unreachable` and `prohibit` "
                          "is required");
        good = false;
    }
    return good;
}

/* ---- the section's value ---- */

struct stored_path {
    struct ip_address gateway;
    uint32_t name; /* of the interface, index into names; 0 = none */
    uint16_t id;   /* the interface's, since commit */
    uint8_t weight;
    bool interface_in_via;
};

/* What check() found wrong with a path. */
enum fault { FAULT_NONE, FAULT_NO_INTERFACE, FAULT_NOT_ON_LINK };

/* The paths of all routes of a VRF that are written alike. */
struct path_list {
    uint32_t hash;
    uint32_t next; /* of the same hash bucket */
    uint32_t vrf;  /* index into names */
    uint8_t shape;
    uint8_t count;
    bool faulty;
    const struct path_list *same; /* during commit: the old list found equal to this one */
    uint8_t faults[ROUTE_PATHS_MAX];
    struct stored_path paths[];
};

struct stored_route {
    struct ip_prefix prefix;
    uint8_t type : 7;
    uint8_t missing : 1; /* the RIB did not take it: to be tried again by the next commit */
    uint32_t vrf;        /* index into names; after sorting, in order of the names */
    uint32_t list;       /* index into lists, 0 = none */
    uint32_t index;      /* in the JSON array */
};

struct name {
    char *text;
    uint32_t hash;
    uint32_t next;
    bool is_vrf, missing;
    int vrf; /* id since commit, or negative */
    uint64_t generation;
};

struct index {
    uint32_t *buckets;
    uint32_t size; /* a power of two, or 0 */
};

struct routes {
    struct stored_route *routes;
    size_t count;
    struct path_list **lists; /* [0] is not used */
    uint32_t list_count, list_capacity;
    struct name *names; /* [0] is not used */
    uint32_t name_count, name_capacity;
    struct index list_index, name_index;
};

/* Control-side memory for the configuration; there is no sensible way to go on without. */
static void *must(void *memory) {
    if (memory == NULL) {
        log_error("l3", "out of memory for the routes of the configuration");
        abort();
    }
    return memory;
}

static uint32_t hash_bytes(uint32_t hash, const void *bytes, size_t length) {
    const uint8_t *at = bytes;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ at[i]) * 16777619u; /* FNV-1a */
    return hash;
}

static uint32_t *hash_at(const struct index *index, uint32_t hash) {
    return &index->buckets[hash & (index->size - 1)];
}

/* Makes room for one more; true if everything is to be put in again. */
static bool index_grow(struct index *index, uint32_t count) {
    if (count < index->size)
        return false;
    free(index->buckets);
    index->size = index->size == 0 ? 64 : index->size * 2;
    index->buckets = must(calloc(index->size, sizeof(*index->buckets)));
    return true;
}

static void name_link(struct routes *value, uint32_t i) {
    uint32_t *bucket = hash_at(&value->name_index, value->names[i].hash);

    value->names[i].next = *bucket;
    *bucket = i;
}

static uint32_t intern_name(struct routes *value, const char *text) {
    const uint32_t hash = hash_bytes(2166136261u, text, strlen(text));

    if (value->name_index.size != 0) {
        for (uint32_t i = *hash_at(&value->name_index, hash); i != 0; i = value->names[i].next) {
            if (value->names[i].hash == hash && strcmp(value->names[i].text, text) == 0)
                return i;
        }
    }
    if (value->name_count + 1 >= value->name_capacity) {
        value->name_capacity = value->name_capacity == 0 ? 16 : value->name_capacity * 2;
        value->names =
            must(reallocarray(value->names, value->name_capacity, sizeof(*value->names)));
    }
    const uint32_t i = ++value->name_count;
    value->names[i] = (struct name){.text = must(strdup(text)), .hash = hash, .vrf = -ENOENT};
    if (index_grow(&value->name_index, i)) {
        for (uint32_t each = 1; each < i; each++)
            name_link(value, each);
    }
    name_link(value, i);
    return i;
}

static void list_link(struct routes *value, uint32_t i) {
    uint32_t *bucket = hash_at(&value->list_index, value->lists[i]->hash);

    value->lists[i]->next = *bucket;
    *bucket = i;
}

static bool same_stored(const struct stored_path *a, const struct stored_path *b) {
    return a->name == b->name && a->weight == b->weight &&
           a->interface_in_via == b->interface_in_via &&
           ip_address_compare(&a->gateway, &b->gateway) == 0;
}

static bool list_is(const struct path_list *list, uint32_t vrf, uint8_t shape,
                    const struct stored_path *paths, unsigned count) {
    if (list->vrf != vrf || list->shape != shape || list->count != count)
        return false;
    for (unsigned i = 0; i < count; i++) {
        if (!same_stored(&list->paths[i], &paths[i]))
            return false;
    }
    return true;
}

static uint32_t intern_list(struct routes *value, uint32_t vrf, const struct decoded_route *route) {
    struct stored_path paths[ROUTE_PATHS_MAX];
    uint32_t hash = hash_bytes(2166136261u, &vrf, sizeof(vrf));

    if (route->path_count == 0)
        return 0;
    for (unsigned i = 0; i < route->path_count; i++) {
        const struct decoded_path *from = &route->paths[i];

        paths[i] = (struct stored_path){
            .gateway = from->gateway,
            .name = from->interface != NULL ? intern_name(value, from->interface) : 0,
            .weight = from->weight,
            .interface_in_via = from->interface_in_via};
        hash = hash_bytes(hash, from->gateway.bytes, sizeof(from->gateway.bytes));
        hash = hash_bytes(hash, &paths[i].name, sizeof(paths[i].name));
        hash = hash_bytes(hash, &paths[i].weight, sizeof(paths[i].weight));
    }
    if (value->list_index.size != 0) {
        for (uint32_t i = *hash_at(&value->list_index, hash); i != 0; i = value->lists[i]->next) {
            if (value->lists[i]->hash == hash &&
                list_is(value->lists[i], vrf, (uint8_t)route->shape, paths, route->path_count))
                return i;
        }
    }
    if (value->list_count + 1 >= value->list_capacity) {
        value->list_capacity = value->list_capacity == 0 ? 16 : value->list_capacity * 2;
        value->lists =
            must(reallocarray(value->lists, value->list_capacity, sizeof(*value->lists)));
    }
    const uint32_t i = ++value->list_count;
    struct path_list *list =
        must(calloc(1, sizeof(*list) + route->path_count * sizeof(list->paths[0])));
    list->hash = hash;
    list->vrf = vrf;
    list->shape = (uint8_t)route->shape;
    list->count = (uint8_t)route->path_count;
    memcpy(list->paths, paths, route->path_count * sizeof(paths[0]));
    value->lists[i] = list;
    if (index_grow(&value->list_index, i)) {
        for (uint32_t each = 1; each < i; each++)
            list_link(value, each);
    }
    list_link(value, i);
    return i;
}

static void routes_free(void *memory) {
    struct routes *value = memory;

    if (value == NULL)
        return;
    for (uint32_t i = 1; i <= value->name_count; i++)
        free(value->names[i].text);
    for (uint32_t i = 1; i <= value->list_count; i++)
        free(value->lists[i]);
    free(value->names);
    free(value->lists);
    free(value->name_index.buckets);
    free(value->list_index.buckets);
    free(value->routes);
    free(value);
}

/* ---- order ---- */

/* Routes compare by the name of the VRF, which is the same in two configurations; indices are not.
 */
static int compare_vrfs(const struct routes *a_value, uint32_t a, const struct routes *b_value,
                        uint32_t b) {
    return a_value == b_value && a == b ? 0
                                        : strcmp(a_value->names[a].text, b_value->names[b].text);
}

static int compare_routes(const void *a_route, const void *b_route, void *context) {
    const struct stored_route *a = a_route, *b = b_route;
    const struct routes *value = context;
    int order = compare_vrfs(value, a->vrf, value, b->vrf);

    if (order == 0)
        order = ip_prefix_compare(&a->prefix, &b->prefix);
    if (order == 0)
        order = a->index < b->index ? -1 : a->index > b->index;
    return order;
}

static bool same_destination(const struct stored_route *a, const struct stored_route *b) {
    return a->vrf == b->vrf && ip_prefix_compare(&a->prefix, &b->prefix) == 0;
}

static void sort(struct routes *value) {
    bool sorted = true;

    for (size_t i = 1; i < value->count && sorted; i++)
        sorted = compare_routes(&value->routes[i - 1], &value->routes[i], value) < 0;
    if (!sorted)
        qsort_r(value->routes, value->count, sizeof(value->routes[0]), compare_routes, value);
}

static void find_duplicates(const struct decode *d, const struct routes *value) {
    size_t first = 0;

    for (size_t i = 1; i < value->count; i++) {
        const struct stored_route *route = &value->routes[i];
        char text[IP_PREFIX_TEXT];

        if (!same_destination(&value->routes[first], route)) {
            first = i;
            continue;
        }
        const struct decode element = decode_element(d, route->index);
        struct decode prefix;
        if (decode_member(&element, "prefix", &prefix))
            decode_problem(&prefix,
                           "VRF %s has a route to %s already, at index %u; a route with several "
                           "next hops lists them in `via`",
                           value->names[route->vrf].text, ip_prefix_text(&route->prefix, text),
                           value->routes[first].index);
    }
}

/* ---- the section ---- */

static void *decode(struct decode *d) {
    struct routes *value = must(calloc(1, sizeof(*value)));
    struct decoded_route *route;
    size_t count;

    if (d == NULL || !decode_is_array(d))
        return value;
    count = json_array_size(d->value);
    if (count > UINT32_MAX) {
        decode_problem(d, "expected at most %u routes, found %zu", UINT32_MAX, count);
        return value;
    }
    value->routes = must(calloc(count != 0 ? count : 1, sizeof(value->routes[0])));
    route = must(malloc(sizeof(*route)));
    for (size_t i = 0; i < count; i++) {
        const struct decode element = decode_element(d, i);

        if (!route_decode(&element, route))
            continue;
        struct stored_route *stored = &value->routes[value->count++];
        stored->prefix = route->prefix;
        stored->type = (uint8_t)route->type;
        stored->vrf = intern_name(value, route->vrf);
        value->names[stored->vrf].is_vrf = true;
        stored->list = intern_list(value, stored->vrf, route);
        stored->index = (uint32_t)i;
    }
    free(route);
    sort(value);
    find_duplicates(d, value);
    return value;
}

static int compare_index(const void *a_route, const void *b_route) {
    const struct stored_route *const *a = a_route, *const *b = b_route;

    return (*a)->index < (*b)->index ? -1 : (*a)->index > (*b)->index;
}

static void report(const struct routes *value, const struct stored_route *route,
                   struct problems *problems) {
    const char *vrf = value->names[route->vrf].text;
    const struct path_list *list = route->list != 0 ? value->lists[route->list] : NULL;
    char path[96], place[ROUTE_PLACE_TEXT], text[IP_ADDRESS_TEXT];

    if (value->names[route->vrf].missing) {
        snprintf(path, sizeof(path), "$.routes[%u].vrf", route->index);
        problems_add(problems, path, "there is no VRF %s", vrf);
    }
    for (unsigned i = 0; list != NULL && i < list->count; i++) {
        const struct stored_path *at = &list->paths[i];

        if (list->faults[i] == FAULT_NO_INTERFACE) {
            route_interface_place(list->shape, i, at->interface_in_via, place);
            snprintf(path, sizeof(path), "$.routes[%u]%s", route->index, place);
            problems_add(problems, path, "there is no interface %s", value->names[at->name].text);
            if (!at->interface_in_via)
                break; /* the same one for all paths */
        } else if (list->faults[i] == FAULT_NOT_ON_LINK) {
            route_gateway_place(list->shape, i, place);
            snprintf(path, sizeof(path), "$.routes[%u]%s", route->index, place);
            problems_add(problems, path,
                         "gateway %s is in no connected prefix of VRF %s; name an interface",
                         ip_address_text(&at->gateway, text), vrf);
        }
    }
}

static void check(const struct config *config, struct problems *problems) {
    struct routes *value = config_value(config, &route_section);
    bool any = false;

    if (value == NULL)
        return;
    for (uint32_t i = 1; i <= value->name_count; i++) {
        struct name *name = &value->names[i];

        name->missing = name->is_vrf && strcmp(name->text, default_vrf) != 0 &&
                        !vrf_configured(config, name->text);
        any |= name->missing;
    }
    for (uint32_t i = 1; i <= value->list_count; i++) {
        struct path_list *list = value->lists[i];

        for (unsigned j = 0; j < list->count; j++) {
            const struct stored_path *path = &list->paths[j];
            uint8_t fault = FAULT_NONE;

            if (path->name != 0) {
                if (!interface_configured(config, value->names[path->name].text))
                    fault = FAULT_NO_INTERFACE;
            } else if (!value->names[list->vrf].missing &&
                       !interface_configured_on_link(config, value->names[list->vrf].text, NULL,
                                                     &path->gateway)) {
                fault = FAULT_NOT_ON_LINK;
            }
            list->faults[j] = fault;
            list->faulty |= fault != FAULT_NONE;
        }
        any |= list->faulty;
    }
    if (!any)
        return;

    /* In the order in which the user wrote them. */
    const struct stored_route **order = must(calloc(value->count, sizeof(struct stored_route *)));
    for (size_t i = 0; i < value->count; i++)
        order[i] = &value->routes[i];
    qsort(order, value->count, sizeof(order[0]), compare_index);
    for (size_t i = 0; i < value->count; i++)
        report(value, order[i], problems);
    free(order);
}

/* ---- commit ---- */

/* Turns names into ids, now that the interfaces and VRFs of this configuration are there. */
static void resolve_names(struct routes *value) {
    for (uint32_t i = 1; i <= value->name_count; i++) {
        struct name *name = &value->names[i];

        if (!name->is_vrf)
            continue;
        name->vrf = vrf_by_name(name->text);
        name->generation = name->vrf >= 0 ? rib_vrf_generation((uint16_t)name->vrf) : 0;
    }
    for (uint32_t i = 1; i <= value->list_count; i++) {
        struct path_list *list = value->lists[i];

        for (unsigned j = 0; j < list->count; j++) {
            const uint32_t name = list->paths[j].name;
            const struct interface *interface =
                name != 0 ? interface_by_name(value->names[name].text) : NULL;

            list->paths[j].id = interface != NULL ? interface->id : 0;
        }
        list->same = NULL;
    }
}

static bool same_lists(const struct routes *old, const struct path_list *a,
                       const struct routes *new, struct path_list *b) {
    if (b->same == a)
        return true;
    if (a->count != b->count)
        return false;
    for (unsigned i = 0; i < a->count; i++) {
        const struct stored_path *x = &a->paths[i], *y = &b->paths[i];

        if (x->id != y->id || x->weight != y->weight || (x->name == 0) != (y->name == 0) ||
            (x->name != 0 && strcmp(old->names[x->name].text, new->names[y->name].text) != 0) ||
            ip_address_compare(&x->gateway, &y->gateway) != 0)
            return false;
    }
    b->same = a;
    return true;
}

static bool same_route(const struct routes *old, const struct stored_route *a,
                       const struct routes *new, const struct stored_route *b) {
    const struct name *a_vrf = &old->names[a->vrf], *b_vrf = &new->names[b->vrf];

    return !a->missing && a->type == b->type && a_vrf->vrf == b_vrf->vrf &&
           a_vrf->generation == b_vrf->generation && (a->list == 0) == (b->list == 0) &&
           (a->list == 0 || same_lists(old, old->lists[a->list], new, new->lists[b->list]));
}

static void add(const struct routes *value, struct stored_route *stored) {
    static struct log_limit limit;
    const struct path_list *list = stored->list != 0 ? value->lists[stored->list] : NULL;
    const int vrf = value->names[stored->vrf].vrf;
    struct route_path paths[ROUTE_PATHS_MAX];
    struct route route = {.vrf = (uint16_t)vrf,
                          .prefix = stored->prefix,
                          .origin = ROUTE_CONFIG,
                          .type = stored->type,
                          .paths = paths};
    bool resolved = vrf >= 0;

    for (unsigned i = 0; list != NULL && i < list->count; i++) {
        const struct stored_path *path = &list->paths[i];

        resolved &= path->name == 0 || path->id != 0;
        paths[route.path_count++] = (struct route_path){
            .gateway = path->gateway, .interface = path->id, .weight = path->weight};
    }
    /* Without its id a named interface would read as "any". */
    const int error = resolved ? rib_add(&route) : -ENODEV;
    char text[IP_PREFIX_TEXT];
    stored->missing = error != 0;
    if (error != 0)
        log_limited(&limit, LOG_LEVEL_ERROR, "l3", "the configured route to %s is missing: %s",
                    ip_prefix_text(&stored->prefix, text), route_error_text(error));
    if (error != 0 && vrf >= 0) /* an older one must not stay in its place */
        rib_delete((uint16_t)vrf, &stored->prefix, ROUTE_CONFIG);
}

/* Calls back for each destination of either value: with the old route, the new one, or both. */
static void walk(const struct routes *old, const struct routes *new,
                 void (*visit)(const struct routes *old, const struct stored_route *was,
                               const struct routes *new, struct stored_route *is)) {
    size_t i = 0, j = 0;
    const size_t old_count = old != NULL ? old->count : 0, new_count = new != NULL ? new->count : 0;

    while (i < old_count || j < new_count) {
        const struct stored_route *was = i < old_count ? &old->routes[i] : NULL;
        struct stored_route *is = j < new_count ? &new->routes[j] : NULL;
        int order = was == NULL ? 1 : is == NULL ? -1 : compare_vrfs(old, was->vrf, new, is->vrf);

        if (order == 0)
            order = ip_prefix_compare(&was->prefix, &is->prefix);
        visit(old, order <= 0 ? was : NULL, new, order >= 0 ? is : NULL);
        i += order <= 0;
        j += order >= 0;
    }
}

static bool something_removed;

static void add_difference(const struct routes *old, const struct stored_route *was,
                           const struct routes *new, struct stored_route *is) {
    if (is == NULL)
        something_removed = true;
    else if (was == NULL || !same_route(old, was, new, is))
        add(new, is);
}

static void remove_difference(const struct routes *old, const struct stored_route *was,
                              const struct routes *new, struct stored_route *is) {
    (void)new;
    if (is != NULL)
        return;
    const struct name *vrf = &old->names[was->vrf];
    /* Another VRF may have the id by now. */
    if (vrf->vrf >= 0 && rib_vrf_generation((uint16_t)vrf->vrf) == vrf->generation)
        rib_delete((uint16_t)vrf->vrf, &was->prefix, ROUTE_CONFIG);
}

static void commit(const struct config *old, const struct config *new) {
    const struct routes *before = config_value(old, &route_section);
    struct routes *now = config_value(new, &route_section);

    if (now != NULL)
        resolve_names(now);
    if (before == now)
        return;
    something_removed = false;
    walk(before, now, add_difference);
    if (!something_removed)
        return;
    /* A lookup that started before the additions could miss both a new and a removed route. */
    rcu_synchronize();
    walk(before, now, remove_difference);
}

struct config_section route_section = {
    .name = "routes",
    .after = (const char *const[]){"interfaces", "vrfs", "neighbours", NULL},
    .decode = decode,
    .check = check,
    .commit = commit,
    .free = routes_free,
};
CONFIG_SECTION(route_section)
