/*
 * neighbour.list, neighbour.add, neighbour.delete and neighbour.flush. What they add lasts until it
 * is deleted or the interface goes; it is not saved.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "interface/interface.h"
#include "l3/neighbour.h"
#include "json/decode.h"
#include "json/rpc.h"

static const char *const state_names[] = {
    [NEIGHBOUR_INCOMPLETE] = "incomplete", [NEIGHBOUR_REACHABLE] = "reachable",
    [NEIGHBOUR_STALE] = "stale",           [NEIGHBOUR_DELAY] = "delay",
    [NEIGHBOUR_PROBE] = "probe",           [NEIGHBOUR_FAILED] = "failed",
    [NEIGHBOUR_STATIC] = "static",
};

/* ---- parameters ---- */

/* The interface that the member names. */
static struct interface *interface_at(struct rpc_request *request, const struct decode *at) {
    struct interface *interface;
    const char *name;

    if (!decode_string(at, &name))
        return NULL;
    interface = interface_by_name(name);
    if (!interface) {
        request->code = RPC_NOT_FOUND;
        decode_problem(at, "interface `%.31s` does not exist", name);
    }
    return interface;
}

/* "interface" where it only narrows down: *id stays 0 when it is absent. */
static bool optional_interface(struct rpc_request *request, uint16_t *id) {
    static const char *const keys[] = {"interface", NULL};
    struct decode params, at;
    struct interface *interface;

    if (!rpc_params(request, keys, &params))
        return false;
    if (!decode_member(&params, "interface", &at))
        return true;
    interface = interface_at(request, &at);
    if (!interface)
        return false;
    *id = interface->id;
    return true;
}

/* ---- neighbour.list ---- */

struct listing {
    struct neighbour_view *list;
    size_t count, room;
    bool out_of_memory;
};

static bool collect(const struct neighbour_view *view, void *context) {
    struct listing *listing = context;

    if (listing->count == listing->room) {
        size_t room = listing->room ? listing->room * 2 : 64;
        struct neighbour_view *list = reallocarray(listing->list, room, sizeof(*list));

        if (!list) {
            listing->out_of_memory = true;
            return false;
        }
        listing->list = list;
        listing->room = room;
    }
    listing->list[listing->count++] = *view;
    return true;
}

static int compare(const void *a, const void *b) {
    const struct neighbour_view *left = a, *right = b;

    if (left->interface != right->interface)
        return left->interface < right->interface ? -1 : 1;
    return ip_address_compare(&left->address, &right->address);
}

static json_t *json_of(const struct neighbour_view *view) {
    const struct interface *interface = interface_by_id(view->interface);
    char address[IP_ADDRESS_TEXT], mac[MAC_ADDRESS_TEXT];
    json_t *age = view->confirmed_msec == 0
                      ? json_null()
                      : json_real((double)(event_now() - view->confirmed_msec) / 1000);

    /* An interface without a name is gone; routes have yet to let go of the gateway. */
    return json_pack("{s:s, s:s, s:s?, s:s, s:o, s:b}", "interface",
                     interface ? interface->name : "", "address",
                     ip_address_text(&view->address, address), "mac",
                     view->has_mac ? mac_address_text(view->mac, mac) : NULL, "state",
                     state_names[view->state], "age_seconds", age, "router", view->is_router);
}

static json_t *neighbour_list(struct rpc_request *request) {
    struct listing listing = {0};
    json_t *result = NULL;
    uint16_t interface = 0;

    if (!optional_interface(request, &interface))
        return NULL;
    neighbour_each(interface, collect, &listing);
    if (!listing.out_of_memory)
        result = json_array();
    if (listing.count > 0)
        qsort(listing.list, listing.count, sizeof(*listing.list), compare);
    for (size_t i = 0; result && i < listing.count; i++) {
        if (json_array_append_new(result, json_of(&listing.list[i])) != 0) {
            json_decref(result);
            result = NULL;
        }
    }
    free(listing.list);
    return rpc_result(request, result);
}
RPC_METHOD(neighbour_list, "neighbour.list",
           "Lists the neighbours of all interfaces, or of one, with their link-layer addresses.")

/* ---- neighbour.add, neighbour.delete, neighbour.flush ---- */

static json_t *neighbour_add(struct rpc_request *request) {
    static const char *const keys[] = {"interface", "address", "mac", NULL};
    struct decode params, interface_at_, address_at, mac_at;
    struct interface *interface = NULL;
    struct ip_address address;
    char text[IP_ADDRESS_TEXT];
    uint8_t mac[6];
    bool right;

    if (!rpc_params(request, keys, &params))
        return NULL;
    right = decode_required(&params, "interface", &interface_at_) &&
            (interface = interface_at(request, &interface_at_)) != NULL;
    right &=
        decode_required(&params, "address", &address_at) && decode_address(&address_at, &address);
    right &= decode_required(&params, "mac", &mac_at) && decode_mac(&mac_at, mac);
    if (!right)
        return NULL;
    if (interface->if_id != 0) {
        decode_problem(&interface_at_, "`%s` is a tunnel, which has no link-layer addresses",
                       interface->name);
        return NULL;
    }
    switch (neighbour_add_static(interface->id, &address, mac)) {
    case 0:
        return rpc_result(request, json_object());
    case -ENOSPC:
        request->code = RPC_CONFLICT;
        decode_problem(&params, "the table of neighbours is full");
        return NULL;
    default:
        decode_problem(&address_at,
                       "%s is not the address of another host in a prefix of interface `%s`",
                       ip_address_text(&address, text), interface->name);
        return NULL;
    }
}
RPC_METHOD(neighbour_add, "neighbour.add", "Adds a static neighbour, or replaces one; not saved.")

static json_t *neighbour_delete_(struct rpc_request *request) {
    static const char *const keys[] = {"interface", "address", NULL};
    struct decode params, interface_at_, address_at;
    struct interface *interface = NULL;
    struct ip_address address;
    char text[IP_ADDRESS_TEXT];
    bool right;

    if (!rpc_params(request, keys, &params))
        return NULL;
    right = decode_required(&params, "interface", &interface_at_) &&
            (interface = interface_at(request, &interface_at_)) != NULL;
    right &=
        decode_required(&params, "address", &address_at) && decode_address(&address_at, &address);
    if (!right)
        return NULL;
    if (neighbour_delete(interface->id, &address) != 0) {
        request->code = RPC_NOT_FOUND;
        decode_problem(&address_at, "interface `%s` has no neighbour %s", interface->name,
                       ip_address_text(&address, text));
        return NULL;
    }
    return rpc_result(request, json_object());
}
RPC_METHOD(neighbour_delete_, "neighbour.delete",
           "Deletes a neighbour, static or learnt; a route's gateway is asked for again.")

static json_t *neighbour_flush_(struct rpc_request *request) {
    uint16_t interface = 0;

    if (!optional_interface(request, &interface))
        return NULL;
    return rpc_result(request,
                      json_pack("{s:I}", "flushed", (json_int_t)neighbour_flush(interface)));
}
RPC_METHOD(neighbour_flush_, "neighbour.flush",
           "Forgets the learnt neighbours of all interfaces, or of one.")
