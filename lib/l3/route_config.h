/*
 * A route as router.json and route.add write it. Only for route_config.c and route_rpc.c.
 */
#pragma once

#include <stdbool.h>

#include "core/section.h"
#include "l3/rib.h"
#include "json/decode.h"

/* How "via" was written, so that a problem can name the right place. */
enum via_shape {
    VIA_NONE,   /* no "via", only "interface" (or a blackhole...) */
    VIA_SINGLE, /* an address or an object */
    VIA_ARRAY,
};

struct decoded_path {
    struct ip_address gateway; /* family 0 = on-link */
    const char *interface;     /* name, NULL = none; owned by the JSON document */
    uint8_t weight;
    bool interface_in_via; /* the name stands in the "via" object, not beside it */
};

struct decoded_route {
    struct ip_prefix prefix;
    const char *vrf; /* name; owned by the JSON document or static */
    enum route_type type;
    enum via_shape shape;
    unsigned path_count;
    struct decoded_path paths[ROUTE_PATHS_MAX];
};

/* Decodes one route with all its problems; false if there are any. */
bool route_decode(const struct decode *d, struct decoded_route *out);

/* Decodes "vrf" of the object: its name, "default" when absent. */
bool route_decode_vrf(const struct decode *d, const char **out);

/* Where the interface's name of a path stands, relative to the route: ".interface",
 * ".via.interface",
 * ".via[1].interface"; and where its gateway stands: ".via", ".via[1]". */
enum { ROUTE_PLACE_TEXT = 32 };
void route_interface_place(enum via_shape shape, unsigned path, bool in_via,
                           char text[ROUTE_PLACE_TEXT]);
void route_gateway_place(enum via_shape shape, unsigned path, char text[ROUTE_PLACE_TEXT]);

/* What an error of rib_add() means to a user. */
const char *route_error_text(int error);

extern struct config_section route_section; /* "routes" */
