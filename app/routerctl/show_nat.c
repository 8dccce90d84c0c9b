/*
 * show nat: the kinds of rules, a table each.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <string.h>

struct text {
    char text[128];
};

/* "203.0.113.9", "203.0.113.16-203.0.113.31" */
static struct text range_text(const json_t *range) {
    const char *first = field_text(range, "first"), *last = field_text(range, "last");
    struct text out;

    if (strcmp(first, last) == 0)
        snprintf(out.text, sizeof(out.text), "%s", first);
    else
        snprintf(out.text, sizeof(out.text), "%s-%s", first, last);
    return out;
}

/* "80", "6000-6099", "any" */
static struct text ports_text(const json_t *rule) {
    struct text out = {"any"};

    if (!json_is_integer(json_object_get(rule, "port_first")))
        return out;
    double first = field_real(rule, "port_first"), last = field_real(rule, "port_last");
    if (first == last)
        snprintf(out.text, sizeof(out.text), "%.0f", first);
    else
        snprintf(out.text, sizeof(out.text), "%.0f-%.0f", first, last);
    return out;
}

/* A rule without an interface waits for one. */
static void interface_cell(struct table *table, const json_t *rule, const char *key) {
    const char *name = field_text(rule, key);

    if (name[0] == '\0')
        table_coloured(table, TABLE_RED, "missing");
    else
        table_cell(table, "%s", name);
}

/* The cells from OUT on; `before` of them stand to its left. */
static void pool_cells(struct table *table, const json_t *rule, unsigned before) {
    const json_t *addresses = json_object_get(rule, "addresses");
    double block = field_real(rule, "port_block");
    size_t count = json_array_size(addresses);

    interface_cell(table, rule, "out");
    if (strcmp(field_text(rule, "to"), "none") == 0) {
        table_cell(table, "not translated");
        table_row_end(table);
        return;
    }
    if (count == 0)
        table_coloured(table, TABLE_RED, "no address");
    else
        table_cell(table, "%s", range_text(json_array_get(addresses, 0)).text);
    if (block > 0)
        table_cell(table, "%s, %.0f each", ports_text(rule).text, block);
    else
        table_cell(table, "%s", ports_text(rule).text);
    table_cell(table, "%s", field_text(rule, "mapping"));
    table_cell(table, "%s", field_text(rule, "filtering"));
    for (size_t i = 1; i < count; i++) { /* further ranges stand below the first */
        for (unsigned empty = 0; empty <= before; empty++)
            table_cell(table, "%s", "");
        table_cell(table, "%s", range_text(json_array_get(addresses, i)).text);
        table_row_end(table);
    }
}

static void show_sources(struct session *session, const json_t *rules) {
    static const struct table_column columns[] = {
        {"SOURCE RULE", TABLE_LEFT}, {"OUT", TABLE_LEFT},     {"TO", TABLE_LEFT},
        {"PORTS", TABLE_LEFT},       {"MAPPING", TABLE_LEFT}, {"FILTERING", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *rule;
    size_t i;

    json_array_foreach (rules, i, rule) {
        table_cell(table, "%s", field_text(rule, "name"));
        pool_cells(table, rule, 1);
    }
    table_end(table, stdout, session->colour);
}

static void show_destinations(struct session *session, const json_t *rules) {
    static const struct table_column columns[] = {{"DESTINATION RULE", TABLE_LEFT},
                                                  {"IN", TABLE_LEFT},
                                                  {"PROTOCOL", TABLE_LEFT},
                                                  {"PORTS", TABLE_LEFT},
                                                  {"TO", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *rule;
    size_t i;

    json_array_foreach (rules, i, rule) {
        struct text to = range_text(json_object_get(rule, "to"));
        table_cell(table, "%s", field_text(rule, "name"));
        interface_cell(table, rule, "in");
        table_cell(table, "%s", field_text(rule, "protocol"));
        table_cell(table, "%s", ports_text(rule).text);
        if (json_is_integer(json_object_get(rule, "to_port")))
            table_cell(table, "%s:%.0f", to.text, field_real(rule, "to_port"));
        else
            table_cell(table, "%s", to.text);
    }
    table_end(table, stdout, session->colour);
}

static void show_statics(struct session *session, const json_t *rules) {
    static const struct table_column columns[] = {
        {"OUTSIDE", TABLE_LEFT}, {"INSIDE", TABLE_LEFT}, {"INTERFACE", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *rule;
    size_t i;

    json_array_foreach (rules, i, rule) {
        table_cell(table, "%s", field_text(rule, "outside"));
        table_cell(table, "%s", field_text(rule, "inside"));
        interface_cell(table, rule, "interface");
    }
    table_end(table, stdout, session->colour);
}

static void show_nptv6(struct session *session, const json_t *rules) {
    static const struct table_column columns[] = {{"NPTV6 RULE", TABLE_LEFT},
                                                  {"OUT", TABLE_LEFT},
                                                  {"INSIDE", TABLE_LEFT},
                                                  {"OUTSIDE", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *rule;
    size_t i;

    json_array_foreach (rules, i, rule) {
        table_cell(table, "%s", field_text(rule, "name"));
        interface_cell(table, rule, "out");
        table_cell(table, "%s", field_text(rule, "inside"));
        table_cell(table, "%s", field_text(rule, "outside"));
    }
    table_end(table, stdout, session->colour);
}

/* "203.0.113.2:8080 tcp", "203.0.113.2:6000-6099 udp", "203.0.113.9" */
static void outside_cell(struct table *table, const json_t *fixed) {
    const char *outside = field_text(fixed, "outside");

    if (!json_is_string(json_object_get(fixed, "outside")))
        table_coloured(table, TABLE_RED, "no address");
    else if (json_is_integer(json_object_get(fixed, "port_first")))
        table_cell(table, "%s:%s %s", outside, ports_text(fixed).text,
                   field_text(fixed, "protocol"));
    else
        table_cell(table, "%s", outside);
}

static void show_bindings(struct session *session, const json_t *rules) {
    static const struct table_column columns[] = {
        {"NAT64 RULE", TABLE_LEFT}, {"OUTSIDE", TABLE_LEFT}, {"INSIDE", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *rule, *fixed;
    size_t i, n;

    json_array_foreach (rules, i, rule) {
        json_array_foreach (json_object_get(rule, "static"), n, fixed) {
            table_cell(table, "%s", field_text(rule, "name"));
            outside_cell(table, fixed);
            if (json_is_integer(json_object_get(fixed, "inside_port")))
                table_cell(table, "[%s]:%.0f", field_text(fixed, "inside"),
                           field_real(fixed, "inside_port"));
            else
                table_cell(table, "%s", field_text(fixed, "inside"));
        }
    }
    table_end(table, stdout, session->colour);
}

static bool any_binding(const json_t *rules) {
    json_t *rule;
    size_t i;

    json_array_foreach (rules, i, rule) {
        if (json_array_size(json_object_get(rule, "static")) > 0)
            return true;
    }
    return false;
}

static void show_nat64(struct session *session, const json_t *rules) {
    static const struct table_column columns[] = {
        {"NAT64 RULE", TABLE_LEFT}, {"PREFIX", TABLE_LEFT}, {"OUT", TABLE_LEFT},
        {"TO", TABLE_LEFT},         {"PORTS", TABLE_LEFT},  {"MAPPING", TABLE_LEFT},
        {"FILTERING", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *rule;
    size_t i;

    json_array_foreach (rules, i, rule) {
        table_cell(table, "%s", field_text(rule, "name"));
        table_cell(table, "%s", field_text(rule, "prefix"));
        pool_cells(table, rule, 2);
    }
    table_end(table, stdout, session->colour);
    if (any_binding(rules)) {
        putchar('\n');
        show_bindings(session, rules);
    }
}

void show_nat(struct session *session, const struct match *match, const void *result) {
    static const struct {
        const char *key;
        void (*show)(struct session *session, const json_t *rules);
    } kinds[] = {{"source", show_sources},
                 {"destination", show_destinations},
                 {"static", show_statics},
                 {"nptv6", show_nptv6},
                 {"nat64", show_nat64}};
    bool any = false;

    (void)match;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const json_t *rules = json_object_get(result, kinds[i].key);
        if (json_array_size(rules) == 0)
            continue;
        kinds[i].show(session, rules);
        putchar('\n');
        any = true;
    }
    if (!any)
        puts("no NAT rules");
    if (any || field_count(result, "mappings") > 0)
        printf("mappings: %s\n", format_count(field_count(result, "mappings")).text);
}
