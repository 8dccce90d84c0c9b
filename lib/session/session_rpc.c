/* session.list, session.count and session.flush. They read what workers write at the same time: a
 * session may be a packet older than another in the same answer. */
#include <stdlib.h>

#include "interface/interface.h"
#include "session/session_event.h"
#include "session/session_internal.h"
#include "json/decode.h"
#include "json/rpc.h"

enum {
    LIST_DEFAULT = 100,
    LIST_MAX = 1000,
    LOOKED_AT_MAX = 1 << 18, /* per request: a few milliseconds */
};

/* --- filters --- */

struct filter {
    struct ip_prefix address; /* of any of the ends, translated or not; family 0 = any */
    bool has_port, has_protocol, has_state, has_interface, has_vrf;
    uint16_t port; /* host order */
    uint8_t protocol, state;
    uint16_t interface, vrf;
};

/* An address, or a prefix. */
static bool decode_place(const struct decode *d, struct ip_prefix *out) {
    const char *text;

    if (!decode_string(d, &text))
        return false;
    if (strchr(text, '/'))
        return decode_prefix(d, out);
    if (!decode_address(d, &out->address))
        return false;
    out->length = ip_family_bits(out->address.family);
    return true;
}

static bool decode_state(const struct decode *d, uint8_t *out) {
    unsigned word;

    if (!decode_word(d,
                     (const char *const[]){session_state_names[2], session_state_names[3],
                                           session_state_names[4], session_state_names[5],
                                           session_state_names[6], session_state_names[7],
                                           session_state_names[8], session_state_names[9],
                                           session_state_names[10], NULL},
                     &word))
        return false;
    *out = (uint8_t)(word + SESSION_TCP_OPENING);
    return true;
}
_Static_assert(SESSION_STATES == 11, "decode_state() lists them all");

static bool decode_filter(struct rpc_request *request, const struct decode *params,
                          struct filter *filter) {
    struct decode at;
    const char *name;
    bool right = true;

    if (decode_member(params, "address", &at))
        right &= decode_place(&at, &filter->address);
    if (decode_member(params, "port", &at))
        right &= filter->has_port = decode_u16(&at, 0, UINT16_MAX, &filter->port);
    if (decode_member(params, "protocol", &at))
        right &= filter->has_protocol = decode_protocol(&at, &filter->protocol);
    if (decode_member(params, "state", &at))
        right &= filter->has_state = decode_state(&at, &filter->state);
    if (decode_member(params, "interface", &at)) {
        const struct interface *interface =
            decode_string(&at, &name) ? interface_by_name(name) : NULL;

        if (!interface && request->problems.count == 0) {
            request->code = RPC_NOT_FOUND;
            decode_problem(&at, "interface `%.31s` does not exist", name);
        }
        right &= filter->has_interface = interface != NULL;
        filter->interface = interface ? interface->id : 0;
    }
    if (decode_member(params, "vrf", &at)) {
        int vrf = decode_string(&at, &name) ? vrf_by_name(name) : -1;

        if (vrf < 0 && request->problems.count == 0) {
            request->code = RPC_NOT_FOUND;
            decode_problem(&at, "VRF `%.31s` does not exist", name);
        }
        right &= filter->has_vrf = vrf >= 0;
        filter->vrf = (uint16_t)vrf;
    }
    return right;
}

/* --- a session's ends --- */

struct endpoint {
    struct ip_address address;
    uint16_t port; /* host order */
};

struct view {
    struct endpoint source, destination;           /* as its first packet came in with */
    struct endpoint real_source, real_destination; /* as it was sent on with */
    uint16_t vrf;
};

static void read_key(const struct flow *flow, struct endpoint *source,
                     struct endpoint *destination) {
    if (flow->flags & FLOW_IPV6) {
        source->address = ip6_address(flow->key6.source);
        destination->address = ip6_address(flow->key6.destination);
        source->port = rte_be_to_cpu_16(flow->key6.source_port);
        destination->port = rte_be_to_cpu_16(flow->key6.destination_port);
    } else {
        source->address = ip4_address(&flow->key4.source);
        destination->address = ip4_address(&flow->key4.destination);
        source->port = rte_be_to_cpu_16(flow->key4.source_port);
        destination->port = rte_be_to_cpu_16(flow->key4.destination_port);
    }
}

/* The key of the answers tells what the packets are sent on with. */
static void read_view(uint32_t number, struct view *view) {
    const struct flow *forward = &session_flows[number * 2];

    read_key(forward, &view->source, &view->destination);
    read_key(forward + 1, &view->real_destination, &view->real_source);
    view->vrf = (uint16_t)((forward->flags & FLOW_IPV6 ? forward->key6.protocol_vrf
                                                       : forward->key4.protocol_vrf) >>
                           16);
}

static bool passes(const struct filter *filter, const struct session *session,
                   const struct view *view) {
    const struct endpoint *ends[] = {&view->source, &view->destination, &view->real_source,
                                     &view->real_destination};
    bool address = filter->address.address.family == 0, port = !filter->has_port;

    if ((filter->has_protocol && session->protocol != filter->protocol) ||
        (filter->has_state && session->state != filter->state) ||
        (filter->has_vrf && view->vrf != filter->vrf) ||
        (filter->has_interface && session->in_interface != filter->interface &&
         session->out_interface != filter->interface))
        return false;
    for (unsigned i = 0; i < RTE_DIM(ends); i++) {
        address |= filter->address.address.family != 0 &&
                   ip_prefix_contains(&filter->address, &ends[i]->address);
        port |= filter->has_port && ends[i]->port == filter->port;
    }
    return address && port;
}

/* --- session.list --- */

static json_t *json_of_end(const struct endpoint *end) {
    char text[IP_ADDRESS_TEXT];

    return json_pack("{s:s, s:i}", "address", ip_address_text(&end->address, text), "port",
                     end->port);
}

static bool same_end(const struct endpoint *a, const struct endpoint *b) {
    return ip_address_compare(&a->address, &b->address) == 0 && a->port == b->port;
}

static const char *interface_text(const struct session *session, uint16_t id, bool local) {
    const struct interface *interface = id ? interface_by_id(id) : NULL;

    (void)session;
    return interface ? interface->name : local ? "router" : "";
}

static json_t *json_of_flow(const struct flow *flow) {
    return json_pack("{s:I, s:I}", "packets", (json_int_t)flow->packets, "bytes",
                     (json_int_t)flow->bytes);
}

static json_t *json_of(uint32_t number, const struct session *session, const struct view *view) {
    const struct flow *forward = &session_flows[number * 2];
    uint32_t now = atomic_load(&session_clock);
    uint32_t idle = session_idle(number, now);
    uint32_t timeout = atomic_load(&session_limits.timeout[session->state % SESSION_STATES]);
    char protocol[IP_PROTOCOL_TEXT];
    json_t *object = json_pack(
        "{s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:f, s:f, s:f, s:o, s:o}", "id",
        (json_int_t)number, "family", forward->flags & FLOW_IPV6 ? "ipv6" : "ipv4", "protocol",
        ip_protocol_text(session->protocol, protocol), "state",
        session_state_names[session->state % SESSION_STATES], "vrf",
        vrf_name(view->vrf) ? vrf_name(view->vrf) : "", "in",
        interface_text(session, session->in_interface, session->flags & SESSION_FROM_ROUTER), "out",
        interface_text(session, session->out_interface, session->flags & SESSION_LOCAL), "source",
        json_of_end(&view->source), "destination", json_of_end(&view->destination), "age_seconds",
        (double)session_ticks_since(now, session->created) / SESSION_TICKS, "idle_seconds",
        (double)idle / SESSION_TICKS, "timeout_seconds",
        timeout > idle ? (double)(timeout - idle) / SESSION_TICKS : 0.0, "forward",
        json_of_flow(forward), "backward", json_of_flow(forward + 1));

    if (object && !same_end(&view->source, &view->real_source))
        json_object_set_new(object, "translated_source", json_of_end(&view->real_source));
    if (object && !same_end(&view->destination, &view->real_destination))
        json_object_set_new(object, "translated_destination", json_of_end(&view->real_destination));
    return object;
}

struct listing {
    struct filter filter;
    json_t *list;
    uint32_t room;
};

static bool collect(uint32_t number, const struct session *session, void *context) {
    struct listing *listing = context;
    struct view view;

    if (listing->room == 0)
        return false;
    read_view(number, &view);
    if (!passes(&listing->filter, session, &view))
        return true;
    listing->room--;
    return json_array_append_new(listing->list, json_of(number, session, &view)) == 0;
}

static json_t *session_list(struct rpc_request *request) {
    static const char *const keys[] = {"cursor",    "limit", "address", "port", "protocol",
                                       "interface", "state", "vrf",     NULL};
    struct listing listing = {.room = LIST_DEFAULT};
    uint32_t cursor = 0;
    struct decode params;

    if (!rpc_params(request, keys, &params) || !decode_filter(request, &params, &listing.filter) ||
        !decode_member_u32(&params, "cursor", 0, UINT32_MAX, &cursor) ||
        !decode_member_u32(&params, "limit", 1, LIST_MAX, &listing.room))
        return NULL;
    listing.list = json_array();
    if (listing.list)
        session_walk(&cursor, LOOKED_AT_MAX, collect, &listing);
    return rpc_result(request, listing.list
                                   ? json_pack("{s:o, s:o}", "sessions", listing.list, "cursor",
                                               cursor ? json_integer(cursor) : json_null())
                                   : NULL);
}
RPC_METHOD(
    session_list, "session.list",
    "Lists sessions, a page at a time: pass the answer's `cursor` to go on until it is null.")

/* --- session.count --- */

static bool count_states(uint32_t number, const struct session *session, void *context) {
    uint32_t *counts = context;

    (void)number;
    counts[session->state % SESSION_STATES]++;
    return true;
}

static json_t *session_count(struct rpc_request *request) {
    uint32_t counts[SESSION_STATES] = {0}, cursor = 0;
    struct session_event_stats events;
    struct session_totals totals;
    struct decode params;
    json_t *states = json_object();

    if (!rpc_params(request, (const char *const[]){NULL}, &params)) {
        json_decref(states);
        return NULL;
    }
    session_walk(&cursor, UINT32_MAX, count_states, counts);
    session_totals(&totals);
    session_event_stats(&events);
    for (unsigned state = SESSION_TCP_OPENING; states && state < SESSION_STATES; state++)
        json_object_set_new(states, session_state_names[state], json_integer(counts[state]));
    return rpc_result(
        request,
        states ? json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "sessions",
                           (json_int_t)totals.alive, "size", (json_int_t)totals.most, "opened",
                           (json_int_t)totals.opened, "ended", (json_int_t)totals.ended, "evicted",
                           (json_int_t)totals.evicted, "events_written", (json_int_t)events.written,
                           "events_lost", (json_int_t)events.lost, "states", states)
               : NULL);
}
RPC_METHOD(session_count, "session.count",
           "Counts sessions by state, and how many were opened, ended and evicted.")

/* --- session.flush --- */

struct flushing {
    struct filter filter;
    uint32_t ended;
};

static bool flush_one(uint32_t number, const struct session *session, void *context) {
    struct flushing *flushing = context;
    struct view view;

    read_view(number, &view);
    if (passes(&flushing->filter, session, &view)) {
        session_end(number);
        flushing->ended++;
    }
    return true;
}

static json_t *session_flush(struct rpc_request *request) {
    static const char *const keys[] = {"address", "port", "protocol", "interface",
                                       "state",   "vrf",  NULL};
    struct flushing flushing = {0};
    uint32_t cursor = 0;
    struct decode params;

    if (!rpc_params(request, keys, &params) || !decode_filter(request, &params, &flushing.filter))
        return NULL;
    session_walk(&cursor, UINT32_MAX, flush_one, &flushing);
    return rpc_result(request, json_pack("{s:I}", "ended", (json_int_t)flushing.ended));
}
RPC_METHOD(session_flush, "session.flush",
           "Ends the sessions that the filters name; all of them without any filter.")
