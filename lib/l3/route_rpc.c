/*
 * route.list, route.add and route.delete.
 *
 * A request is all or nothing: every route is decoded and checked before the first is touched, and
 * when the RIB then refuses one (memory, next hops) those before it are put back as they were.
 *
 * A reply of route.list is bounded in length and in the routes looked at, whatever the filters are,
 * so that listing a million routes does not hold up the control thread. So a page may hold fewer
 * routes than asked for, or none; the list ends where "next" is null.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "interface/interface.h"
#include "l3/next_hop.h"
#include "l3/rib_internal.h"
#include "l3/route_config.h"
#include "json/rpc.h"

enum {
    LIST_DEFAULT = 1000,
    LIST_MAX = 10000,
    LIST_LOOK_MAX = 100000, /* routes that one reply looks at */
    REQUEST_MAX = 100000,   /* routes in one request */
    CURSOR_TEXT = INTERFACE_NAME_TEXT + IP_PREFIX_TEXT + 16,
};
_Static_assert(CURSOR_TEXT == 98, "the widths in parse_cursor()");

static const char *const origin_names[] = {[ROUTE_LOCAL] = "local",
                                           [ROUTE_CONNECTED] = "connected",
                                           [ROUTE_NEIGHBOUR] = "neighbour",
                                           [ROUTE_CONFIG] = "config",
                                           [ROUTE_RPC] = "rpc",
                                           [ROUTE_ORIGINS] = NULL};

static const char *const family_names[] = {"ipv4", "ipv6", NULL};
static const uint8_t families[] = {AF_INET, AF_INET6};

/* ---- route.list ---- */

struct listing {
    json_t *routes;
    int origin; /* -1 = all */
    size_t limit, looked;
    bool out_of_memory, more;
    uint16_t vrf; /* the last route that was looked at */
    struct ip_prefix prefix;
    enum route_origin last_origin;
};

static const char *type_name(const struct route_view *view) {
    static const char *const names[] = {[ROUTE_UNICAST] = "unicast",
                                        [ROUTE_BLACKHOLE] = "blackhole",
                                        [ROUTE_UNREACHABLE] = "unreachable",
                                        [ROUTE_PROHIBIT] = "prohibit"};

    if (view->origin == ROUTE_CONNECTED)
        return "connected";
    if (view->origin != ROUTE_LOCAL)
        return names[view->type];
    return view->next_hop == NEXT_HOP_ID_MARTIAN ? "blackhole" : "local";
}

static json_t *json_of_paths(const struct route_view *view) {
    static const char *const states[] = {
        [PATH_RESOLVED] = "resolved", [PATH_UNRESOLVED] = "unresolved", [PATH_DOWN] = "down"};
    json_t *list = json_array();

    for (unsigned i = 0; i < view->path_count; i++) {
        const struct route_path *path = &view->paths[i].path;
        const uint16_t id = path->interface != 0 ? path->interface : view->paths[i].out_interface;
        const struct interface *interface = id != 0 ? interface_by_id(id) : NULL;
        char text[IP_ADDRESS_TEXT];

        json_array_append_new(
            list,
            json_pack("{s:s?, s:s?, s:i, s:s}", "address",
                      path->gateway.family != 0 ? ip_address_text(&path->gateway, text) : NULL,
                      "interface", interface != NULL ? interface->name : NULL, "weight",
                      path->weight, "state", states[view->paths[i].state]));
    }
    return list;
}

static json_t *json_of_route(const struct route_view *view) {
    char text[IP_PREFIX_TEXT];

    return json_pack("{s:s, s:s?, s:s, s:s, s:b, s:o}", "prefix",
                     ip_prefix_text(&view->prefix, text), "vrf", vrf_name(view->vrf), "origin",
                     origin_names[view->origin], "type", type_name(view), "active", view->active,
                     "next_hops", json_of_paths(view));
}

static bool append(struct listing *listing, const struct route_view *view) {
    if (listing->origin >= 0 && (int)view->origin != listing->origin)
        return true;
    if (json_array_append_new(listing->routes, json_of_route(view)) == 0)
        return true;
    listing->out_of_memory = true;
    return false;
}

/* For rib_each_behind(): stops one route after the page is full, so that "next" is null when there
 * is no other. */
static bool list_one(const struct route_view *view, void *context) {
    struct listing *listing = context;

    if (json_array_size(listing->routes) >= listing->limit || listing->looked >= LIST_LOOK_MAX) {
        listing->more = true;
        return false;
    }
    listing->looked++;
    listing->vrf = view->vrf;
    listing->prefix = view->prefix;
    listing->last_origin = view->origin;
    return append(listing, view);
}

/* A cursor names the last route looked at: "default 10.0.0.0/8 config". It stays valid when that
 * route goes. */
static json_t *make_cursor(const struct listing *listing) {
    char text[IP_PREFIX_TEXT];

    return json_sprintf("%s %s %s", vrf_name(listing->vrf), ip_prefix_text(&listing->prefix, text),
                        origin_names[listing->last_origin]);
}

static bool parse_cursor(const struct decode *d, struct listing *listing) {
    char vrf[CURSOR_TEXT], prefix[CURSOR_TEXT], origin[CURSOR_TEXT];
    const char *text;
    int id;

    if (!decode_string(d, &text))
        return false;
    if (strlen(text) >= CURSOR_TEXT || sscanf(text, "%97s %97s %97s", vrf, prefix, origin) != 3 ||
        ip_prefix_parse(prefix, &listing->prefix) != 0) {
        decode_problem(d, "expected the value of `next` from an earlier reply");
        return false;
    }
    listing->last_origin = 0;
    while (listing->last_origin < ROUTE_ORIGINS - 1 &&
           strcmp(origin, origin_names[listing->last_origin]) != 0)
        listing->last_origin++;
    id = vrf_by_name(vrf);
    if (id < 0) {
        decode_problem(d, "the VRF of this cursor is gone; start again without `after`");
        return false;
    }
    listing->vrf = (uint16_t)id;
    return true;
}

/* The parameters as an object: none at all is an empty one. */
static bool params_object(struct rpc_request *request, struct decode *root, json_t **empty) {
    *empty = request->params == NULL ? json_object() : NULL;
    *root = decode_root(request->params != NULL ? request->params : *empty, &request->problems);
    return decode_is_object(root);
}

static int find_vrf(const struct decode *d, const char *name) {
    const int vrf = vrf_by_name(name);
    struct decode member;

    if (vrf < 0 && decode_member(d, "vrf", &member))
        decode_problem(&member, "there is no VRF %s", name);
    else if (vrf < 0)
        decode_problem(d, "there is no VRF %s", name);
    return vrf;
}

static void list_all(struct listing *listing, int only_vrf, int only_family, bool has_cursor) {
    const unsigned first_vrf = has_cursor ? listing->vrf : 0;
    unsigned first_family = has_cursor && listing->prefix.address.family == AF_INET6 ? 1 : 0;

    for (unsigned vrf = first_vrf; vrf < VRFS_MAX; vrf++) {
        for (unsigned family = first_family; family < 2; family++) {
            struct ip_prefix behind = listing->prefix;
            const bool from_cursor = has_cursor && vrf == first_vrf && family == first_family;

            if ((only_vrf >= 0 && vrf != (unsigned)only_vrf) ||
                (only_family >= 0 && family != (unsigned)only_family))
                continue;
            rib_each_behind((uint16_t)vrf, families[family], from_cursor ? &behind : NULL,
                            listing->last_origin, list_one, listing);
            if (listing->more || listing->out_of_memory)
                return;
        }
        first_family = 0;
    }
}

static json_t *route_list(struct rpc_request *request) {
    static const char *const keys[] = {"vrf",      "family", "origin", "prefix",
                                       "covering", "limit",  "after",  NULL};
    struct listing listing = {.origin = -1};
    uint32_t limit = LIST_DEFAULT;
    struct decode root, member, single;
    struct ip_prefix prefix;
    struct ip_address address;
    const char *vrf = NULL;
    unsigned word;
    int only_vrf = -1, only_family = -1;
    bool has_prefix = false, has_covering = false, has_cursor = false;
    json_t *empty, *next = NULL;

    if (!params_object(request, &root, &empty)) {
        json_decref(empty);
        return NULL;
    }
    decode_only_keys(&root, keys);
    if (decode_member_string(&root, "vrf", &vrf) && vrf != NULL)
        only_vrf = find_vrf(&root, vrf);
    if (decode_member(&root, "family", &member) && decode_word(&member, family_names, &word))
        only_family = (int)word;
    if (decode_member(&root, "origin", &member) && decode_word(&member, origin_names, &word))
        listing.origin = (int)word;
    decode_member_u32(&root, "limit", 1, LIST_MAX, &limit);
    if (decode_member(&root, "prefix", &single))
        has_prefix = decode_prefix(&single, &prefix);
    if (decode_member(&root, "covering", &member)) {
        if (json_object_get(root.value, "prefix") != NULL)
            decode_problem(&member, "`prefix` and `covering` exclude each other");
        has_covering = decode_address(&member, &address);
    }
    if (decode_member(&root, "after", &member))
        has_cursor = parse_cursor(&member, &listing);
    if (problems_any(&request->problems)) {
        json_decref(empty);
        return NULL;
    }

    listing.limit = limit;
    listing.routes = json_array();
    if (has_prefix || has_covering) {
        /* In one VRF: the default one unless another is named. */
        const uint16_t of = only_vrf >= 0 ? (uint16_t)only_vrf : VRF_DEFAULT;
        struct route_view view;

        if (has_covering && rib_lookup(of, &address, &view))
            append(&listing, &view);
        for (unsigned i = 0; has_prefix && i < ROUTE_ORIGINS; i++) {
            if (rib_find(of, &prefix, i, &view))
                append(&listing, &view);
        }
    } else {
        list_all(&listing, only_vrf, only_family, has_cursor);
        if (listing.more)
            next = make_cursor(&listing);
    }
    json_decref(empty);
    json_t *result = listing.out_of_memory ? NULL
                                           : json_pack("{s:O, s:o}", "routes", listing.routes,
                                                       "next", next != NULL ? next : json_null());
    json_decref(listing.routes);
    if (result == NULL) {
        request->code = RPC_INTERNAL_ERROR;
        problems_add(&request->problems, "$", "out of memory for the reply");
    }
    return result;
}
RPC_METHOD(route_list, "route.list", "Lists routes, filtered and page by page.")

/* ---- requests about many routes ---- */

/* One route of a request. */
struct item {
    struct route route;
    size_t index; /* in "routes" */
    struct route_path *paths;
    struct route *before; /* what it replaces, to be put back when the request fails */
    bool done;
};

struct batch {
    struct rpc_request *request;
    struct decode root, array;
    bool is_array;
    json_t *empty;
    struct item *items;
    size_t count;
};

/* Opens the request: "routes" with an array, or the parameters are themselves the only route. */
static bool batch_open(struct batch *batch, struct rpc_request *request) {
    static const char *const keys[] = {"routes", NULL};

    *batch = (struct batch){.request = request};
    if (!params_object(request, &batch->root, &batch->empty))
        return false;
    batch->is_array = decode_member(&batch->root, "routes", &batch->array);
    batch->count = 1;
    if (batch->is_array) {
        decode_only_keys(&batch->root, keys);
        if (!decode_is_array(&batch->array))
            return false;
        batch->count = json_array_size(batch->array.value);
        if (batch->count > REQUEST_MAX) {
            request->code = RPC_TOO_LARGE;
            decode_problem(&batch->array, "expected at most %d routes, found %zu", REQUEST_MAX,
                           batch->count);
            return false;
        }
    }
    batch->items = calloc(batch->count != 0 ? batch->count : 1, sizeof(*batch->items));
    if (batch->items == NULL) {
        request->code = RPC_INTERNAL_ERROR;
        problems_add(&request->problems, "$", "out of memory");
    }
    return batch->items != NULL;
}

static void batch_close(struct batch *batch) {
    for (size_t i = 0; batch->items != NULL && i < batch->count; i++) {
        free(batch->items[i].paths);
        free(batch->items[i].before);
    }
    free(batch->items);
    json_decref(batch->empty);
}

static struct decode batch_element(const struct batch *batch, size_t index) {
    return batch->is_array ? decode_element(&batch->array, index) : batch->root;
}

static int compare_items(const void *a_item, const void *b_item) {
    const struct item *a = a_item, *b = b_item;

    if (a->route.vrf != b->route.vrf)
        return a->route.vrf < b->route.vrf ? -1 : 1;
    const int order = ip_prefix_compare(&a->route.prefix, &b->route.prefix);
    return order != 0 ? order : a->index < b->index ? -1 : a->index > b->index;
}

/* Sorts the items, too: memory that lies together is visited together. */
static void find_duplicates(struct batch *batch) {
    qsort(batch->items, batch->count, sizeof(batch->items[0]), compare_items);
    for (size_t i = 1; i < batch->count; i++) {
        const struct item *before = &batch->items[i - 1], *item = &batch->items[i];
        const struct decode element = batch_element(batch, item->index);
        struct decode prefix;

        if (before->route.vrf == item->route.vrf &&
            ip_prefix_compare(&before->route.prefix, &item->route.prefix) == 0 &&
            decode_member(&element, "prefix", &prefix))
            decode_problem(&prefix, "the same VRF and prefix as at index %zu", before->index);
    }
}

/* ---- route.add ---- */

/* Turns names into ids; with a problem at the name's place where there is no such thing. */
static bool resolve(const struct batch *batch, const struct decode *d,
                    const struct decoded_route *decoded, struct item *item) {
    const int vrf = find_vrf(d, decoded->vrf);
    bool good = vrf >= 0;

    item->route = (struct route){.vrf = (uint16_t)(vrf >= 0 ? vrf : 0),
                                 .prefix = decoded->prefix,
                                 .origin = ROUTE_RPC,
                                 .type = decoded->type,
                                 .path_count = (uint8_t)decoded->path_count};
    if (decoded->path_count == 0)
        return good;
    item->paths = calloc(decoded->path_count, sizeof(item->paths[0]));
    if (item->paths == NULL) {
        batch->request->code = RPC_INTERNAL_ERROR;
        problems_add(&batch->request->problems, "$", "out of memory");
        return false;
    }
    item->route.paths = item->paths;
    for (unsigned i = 0; i < decoded->path_count; i++) {
        const struct decoded_path *path = &decoded->paths[i];
        const struct interface *interface =
            path->interface != NULL ? interface_by_name(path->interface) : NULL;

        item->paths[i] = (struct route_path){.gateway = path->gateway,
                                             .interface = interface != NULL ? interface->id : 0,
                                             .weight = path->weight};
        if (path->interface == NULL || interface != NULL)
            continue;
        good = false;
        char place[ROUTE_PLACE_TEXT], text[64 + ROUTE_PLACE_TEXT];
        route_interface_place(decoded->shape, i, path->interface_in_via, place);
        if (batch->is_array)
            snprintf(text, sizeof(text), "$.routes[%zu]%s", item->index, place);
        else
            snprintf(text, sizeof(text), "$%s", place);
        problems_add(&batch->request->problems, text, "there is no interface %s", path->interface);
        if (!path->interface_in_via)
            break; /* the same one for all paths */
    }
    return good;
}

/* Puts the routes that were added back to what was there. That needs no more than was there. */
static void undo(struct batch *batch) {
    for (size_t i = batch->count; i > 0; i--) {
        const struct item *item = &batch->items[i - 1];
        char text[IP_PREFIX_TEXT];

        if (!item->done)
            continue;
        const int error = item->before != NULL
                              ? rib_add(item->before)
                              : rib_delete(item->route.vrf, &item->route.prefix, ROUTE_RPC);
        if (error != 0)
            log_error("l3", "the route to %s cannot be put back: %s",
                      ip_prefix_text(&item->route.prefix, text), strerror(-error));
    }
}

/* Remembers the route that this one replaces, together with its paths. */
static int remember(struct item *item) {
    struct route_view view;

    if (!rib_find(item->route.vrf, &item->route.prefix, ROUTE_RPC, &view))
        return 0;
    item->before = malloc(sizeof(*item->before) + view.path_count * sizeof(struct route_path));
    if (item->before == NULL)
        return -ENOMEM;
    struct route_path *paths = (struct route_path *)(item->before + 1);
    for (unsigned i = 0; i < view.path_count; i++)
        paths[i] = view.paths[i].path;
    *item->before = (struct route){.vrf = view.vrf,
                                   .prefix = view.prefix,
                                   .origin = ROUTE_RPC,
                                   .type = view.type,
                                   .path_count = (uint8_t)view.path_count,
                                   .paths = paths};
    return 0;
}

static bool add_all(struct batch *batch) {
    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->items[i];
        int error = remember(item);

        if (error == 0)
            error = rib_add(&item->route);
        if (error == 0) {
            item->done = true;
            continue;
        }
        const struct decode element = batch_element(batch, item->index);
        batch->request->code = RPC_INTERNAL_ERROR;
        decode_problem(&element, "the route cannot be installed: %s; nothing has been changed",
                       route_error_text(error));
        undo(batch);
        return false;
    }
    return true;
}

static json_t *route_add(struct rpc_request *request) {
    struct batch batch;
    json_t *result = NULL;
    struct decoded_route *decoded = malloc(sizeof(*decoded));
    bool good = batch_open(&batch, request) && decoded != NULL;

    for (size_t i = 0; good && i < batch.count; i++) {
        const struct decode element = batch_element(&batch, i);

        batch.items[i].index = i;
        if (route_decode(&element, decoded))
            resolve(&batch, &element, decoded, &batch.items[i]);
    }
    good = good && !problems_any(&request->problems);
    if (good)
        find_duplicates(&batch);
    good = good && !problems_any(&request->problems);
    if (good && add_all(&batch))
        result = json_pack("{s:I}", "added", (json_int_t)batch.count);
    batch_close(&batch);
    free(decoded);
    if (result == NULL && !problems_any(&request->problems)) {
        request->code = RPC_INTERNAL_ERROR;
        problems_add(&request->problems, "$", "out of memory");
    }
    return result;
}
RPC_METHOD(route_add, "route.add",
           "Adds routes, or replaces those that were added before: all of the request or none.")

/* ---- route.delete ---- */

static bool decode_target(const struct decode *d, struct route *route) {
    static const char *const keys[] = {"prefix", "vrf", NULL};
    struct decode member;
    const char *name;
    bool good;

    if (!decode_is_object(d))
        return false;
    decode_only_keys(d, keys);
    good = decode_required(d, "prefix", &member) && decode_prefix(&member, &route->prefix);
    if (!route_decode_vrf(d, &name))
        return false;
    const int vrf = find_vrf(d, name);
    route->vrf = (uint16_t)(vrf >= 0 ? vrf : 0);
    return good && vrf >= 0;
}

/* Says why there is nothing to delete. */
static void report_absent(struct batch *batch, const struct decode *d, const struct route *route) {
    struct route_view view;
    struct decode member;
    char text[IP_PREFIX_TEXT];

    batch->request->code = RPC_NOT_FOUND;
    if (!decode_member(d, "prefix", &member))
        return;
    ip_prefix_text(&route->prefix, text);
    for (unsigned i = 0; i < ROUTE_ORIGINS; i++) {
        if (!rib_find(route->vrf, &route->prefix, i, &view))
            continue;
        decode_problem(&member,
                       "the route to %s in VRF %s is of origin %s; only routes that route.add made "
                       "can be deleted",
                       text, vrf_name(route->vrf), origin_names[i]);
        return;
    }
    decode_problem(&member, "there is no route to %s in VRF %s", text, vrf_name(route->vrf));
}

static json_t *route_delete(struct rpc_request *request) {
    struct batch batch;
    json_t *result = NULL;
    bool good = batch_open(&batch, request);

    for (size_t i = 0; good && i < batch.count; i++) {
        const struct decode element = batch_element(&batch, i);

        batch.items[i].index = i;
        decode_target(&element, &batch.items[i].route);
    }
    good = good && !problems_any(&request->problems);
    if (good)
        find_duplicates(&batch);
    good = good && !problems_any(&request->problems);
    for (size_t i = 0; good && i < batch.count; i++) {
        const struct item *item = &batch.items[i];
        const struct decode element = batch_element(&batch, item->index);
        struct route_view view;

        if (!rib_find(item->route.vrf, &item->route.prefix, ROUTE_RPC, &view))
            report_absent(&batch, &element, &item->route);
    }
    if (good && !problems_any(&request->problems)) {
        for (size_t i = 0; i < batch.count; i++)
            rib_delete(batch.items[i].route.vrf, &batch.items[i].route.prefix, ROUTE_RPC);
        result = json_pack("{s:I}", "deleted", (json_int_t)batch.count);
    }
    batch_close(&batch);
    return result;
}
RPC_METHOD(route_delete, "route.delete",
           "Deletes routes that route.add made: all of the request or none.")
