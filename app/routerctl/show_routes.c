/*
 * show routes. A full table has a million routes: they come in pages, and each page is printed and
 * forgotten before the next one is asked for.
 */
#include "commands.h"
#include "field.h"
#include "interrupt.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <string.h>

enum { PAGE = 1000 };

struct output {
    struct session *session;
    struct table *table;
    size_t count;
};

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

/* Routes one by one as JSON, so that the whole list looks like one reply of the router. */
static void json_route(const struct output *output, const json_t *route) {
    bool terminal = output->session->terminal;

    if (output->count > 0)
        putchar(',');
    if (terminal)
        fputs("\n  ", stdout);
    json_dumpf(route, stdout, terminal ? 0 : JSON_COMPACT);
}

static void print_page(struct output *output, const json_t *routes) {
    json_t *route;
    size_t i;

    json_array_foreach (routes, i, route) {
        if (output->session->json)
            json_route(output, route);
        else
            table_route(output->table, route);
        output->count++;
    }
    if (!output->session->json)
        table_flush(output->table, stdout, output->session->colour);
}

int run_show_routes(struct session *session, const struct match *match) {
    static const struct table_column columns[] = {{"PREFIX", TABLE_LEFT},    {"VIA", TABLE_LEFT},
                                                  {"INTERFACE", TABLE_LEFT}, {"VRF", TABLE_LEFT},
                                                  {"ORIGIN", TABLE_LEFT},    {"STATE", TABLE_LEFT}};
    struct output output = {.session = session, .table = TABLE_NEW(columns)};
    json_t *after = NULL;
    int status;

    do {
        json_t *params = match_params(match);
        if (params == NULL)
            params = json_object();
        json_object_set_new(params, "limit", json_integer(PAGE));
        if (after != NULL)
            json_object_set_new(params, "after", after);
        json_t *page =
            session_call(session, match->command->method, params, CLIENT_TIMEOUT, &status);
        after = NULL;
        if (page == NULL)
            break;
        if (session->json && output.count == 0)
            fputs(session->terminal ? "{\"routes\": [" : "{\"routes\":[", stdout);
        after = json_incref(json_object_get(page, "next"));
        if (after != NULL && !json_is_null(after)) { /* more will come: IPv4 shall stay aligned */
            table_widen(output.table, 0, strlen("255.255.255.255/32"));
            table_widen(output.table, 1, strlen("255.255.255.255"));
        }
        print_page(&output, json_object_get(page, "routes"));
        json_decref(page);
    } while (after != NULL && !json_is_null(after) && !ferror(stdout) && !interrupt_pending());

    json_decref(after);
    if (status == STATUS_OK && session->json)
        puts(session->terminal ? "\n], \"next\": null}" : "],\"next\":null}");
    else if (status == STATUS_OK && output.count == 0)
        puts("no routes");
    table_end(output.table, stdout, session->colour);
    return status;
}
