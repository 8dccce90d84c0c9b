/*
 * show firewall.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <string.h>

static bool is_set(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}

static void counter_cells(struct table *table, const json_t *counters) {
    table_cell(table, "%s", format_count(field_count(counters, "packets")).text);
    table_cell(table, "%s", format_unit(field_real(counters, "bytes"), "B").text);
    table_cell(table, "%s", format_count(field_count(counters, "sessions")).text);
}

static void rule_row(struct table *table, const json_t *rule) {
    table_cell(table, "%s", field_text(rule, "name"));
    table_cell(table, "%s", field_text(rule, "action"));
    counter_cells(table, rule);
    if (json_is_false(json_object_get(rule, "enabled")))
        table_coloured(table, TABLE_RED, "disabled");
    else
        table_cell(table, "%s%s%s", is_set(rule, "stateless") ? "stateless" : "",
                   is_set(rule, "stateless") && is_set(rule, "log") ? ", " : "",
                   is_set(rule, "log") ? "log" : "");
}

static void default_row(struct table *table, const json_t *result, const char *key,
                        const json_t *counters, const char *what) {
    table_cell(table, "%s", key);
    table_cell(table, "%s", field_text(result, key));
    counter_cells(table, counters);
    table_cell(table, "%s", what);
}

void show_firewall(struct session *session, const struct match *match, const void *result) {
    static const struct table_column columns[] = {{"RULE", TABLE_LEFT},      {"ACTION", TABLE_LEFT},
                                                  {"PACKETS", TABLE_RIGHT},  {"BYTES", TABLE_RIGHT},
                                                  {"SESSIONS", TABLE_RIGHT}, {"", TABLE_LEFT}};
    json_t *rule;
    size_t i;

    (void)match;
    if (json_is_false(json_object_get(result, "configured"))) {
        puts("no firewall: everything passes");
        return;
    }
    struct table *table = TABLE_NEW(columns);
    json_array_foreach (json_object_get(result, "rules"), i, rule) {
        rule_row(table, rule);
    }
    default_row(table, result, "default", json_object_get(result, "default_counters"),
                "no rule matched");
    default_row(table, result, "router_default", json_object_get(result, "router_default_counters"),
                "the same, to the router");
    table_end(table, stdout, session->colour);
}
