/*
 * show system, show methods, show config.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "session.h"
#include "table.h"

#include <stdio.h>

void show_system(struct session *session, const struct match *match, const void *result) {
    static const struct table_column columns[] = {{"", TABLE_LEFT}, {"", TABLE_LEFT}};
    const json_t *info = result, *confirm = json_object_get(info, "confirm_remaining_seconds");
    struct table *table = TABLE_NEW(columns);
    json_t *worker;
    size_t i;

    (void)match;
    table_cell(table, "Version");
    table_cell(table, "%s %s, %s", field_text(info, "name"), field_text(info, "version"),
               field_text(info, "dpdk"));
    table_cell(table, "Process");
    table_cell(table, "%.0f, up %s", field_real(info, "pid"),
               format_duration(field_real(info, "uptime_seconds")).text);
    table_cell(table, "Configuration");
    table_cell(table, "%s", field_text(info, "config_file"));
    table_cell(table, "Control lcore");
    table_cell(table, "%.0f", field_real(info, "control_lcore"));
    table_cell(table, "Worker lcores");

    char lcores[512] = "";
    size_t used = 0;
    json_array_foreach (json_object_get(info, "workers"), i, worker) {
        int length = snprintf(lcores + used, sizeof(lcores) - used, "%s%" JSON_INTEGER_FORMAT,
                              i > 0 ? " " : "", json_integer_value(worker));
        if (length < 0 || (size_t)length >= sizeof(lcores) - used)
            break;
        used += (size_t)length;
    }
    table_cell(table, "%s", lcores[0] ? lcores : "none");
    if (json_is_number(confirm)) {
        table_cell(table, "Not confirmed");
        table_coloured(table, TABLE_RED, "rolls back in %s without \"config confirm\"",
                       format_duration(json_number_value(confirm)).text);
    }
    table_end(table, stdout, session->colour);
}

void show_methods(struct session *session, const struct match *match, const void *result) {
    static const struct table_column columns[] = {{"METHOD", TABLE_LEFT}, {"SUMMARY", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *method;
    size_t i;

    (void)match;
    json_array_foreach (result, i, method) {
        table_cell(table, "%s", field_text(method, "name"));
        table_cell(table, "%s", field_text(method, "summary"));
    }
    table_end(table, stdout, session->colour);
}

void show_config(struct session *session, const struct match *match, const void *result) {
    (void)session;
    (void)match;
    json_dumpf(result, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    putchar('\n');
}
