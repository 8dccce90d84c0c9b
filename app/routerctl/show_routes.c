/*
 * show routes. A full table has a million routes: they come in pages.
 */
#include "commands.h"
#include "field.h"
#include "pages.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <string.h>

/* What stands for the next hop when there is no address. */
static const char *hop_text(const json_t *route, const json_t *hop) {
    const char *address = json_string_value(json_object_get(hop, "address"));
    return address ? address : field_text(route, "type");
}

/* "active", or what is the matter: with the route, with this next hop, or both. */
static void state_cell(struct table *table, const json_t *route, const json_t *hop) {
    const char *state = hop ? field_text(hop, "state") : "-";
    bool down = strcmp(state, "down") == 0;
    bool inactive = json_is_false(json_object_get(route, "active"));
    bool resolved = strcmp(state, "resolved") == 0 || strcmp(state, "-") == 0;
    json_int_t weight = json_integer_value(json_object_get(hop, "weight"));
    char share[32] = "";

    if (weight > 1)
        snprintf(share, sizeof(share), ", weight %" JSON_INTEGER_FORMAT, weight);
    if (resolved)
        state = inactive ? "inactive" : "active";
    table_coloured(table, down ? TABLE_RED : TABLE_PLAIN, "%s%s%s",
                   inactive && !resolved ? "inactive, " : "", state, share);
}

static void table_route(struct table *table, const json_t *route) {
    const json_t *hops = json_object_get(route, "next_hops");
    size_t count = json_array_size(hops);

    for (size_t i = 0; i < count || i == 0; i++) {
        const json_t *hop = json_array_get(hops, i);
        table_cell(table, "%s", i == 0 ? field_text(route, "prefix") : "");
        table_cell(table, "%s", hop_text(route, hop));
        table_cell(table, "%s", hop ? field_text(hop, "interface") : "-");
        table_cell(table, "%s", i == 0 ? field_text(route, "vrf") : "");
        table_cell(table, "%s", i == 0 ? field_text(route, "origin") : "");
        state_cell(table, route, hop);
    }
}

static void show_page(struct session *session, const json_t *routes, bool more, void *context) {
    struct table *table = context;
    json_t *route;
    size_t i;

    if (more) { /* IPv4 shall stay aligned */
        table_widen(table, 0, strlen("255.255.255.255/32"));
        table_widen(table, 1, strlen("255.255.255.255"));
    }
    json_array_foreach (routes, i, route) {
        table_route(table, route);
    }
    table_flush(table, stdout, session->colour);
}

int run_show_routes(struct session *session, const struct match *match) {
    static const struct table_column columns[] = {{"PREFIX", TABLE_LEFT},    {"VIA", TABLE_LEFT},
                                                  {"INTERFACE", TABLE_LEFT}, {"VRF", TABLE_LEFT},
                                                  {"ORIGIN", TABLE_LEFT},    {"STATE", TABLE_LEFT}};
    static const struct pages pages = {"routes", "next", "after", show_page};
    struct table *table = TABLE_NEW(columns);
    size_t count;
    int status = pages_run(session, match, &pages, table, &count);

    if (status == STATUS_OK && !session->json && count == 0)
        puts("no routes");
    table_end(table, stdout, session->colour);
    return status;
}
