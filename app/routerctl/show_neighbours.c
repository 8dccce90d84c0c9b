/*
 * show neighbours.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <string.h>

void show_neighbours(struct session *session, const struct match *match, const void *result) {
    static const struct table_column columns[] = {{"ADDRESS", TABLE_LEFT},   {"MAC", TABLE_LEFT},
                                                  {"INTERFACE", TABLE_LEFT}, {"STATE", TABLE_LEFT},
                                                  {"AGE", TABLE_RIGHT},      {"", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *neighbour;
    size_t i;

    (void)match;
    if (json_array_size(result) == 0)
        puts("no neighbours");
    json_array_foreach (result, i, neighbour) {
        const char *state = field_text(neighbour, "state");
        double age = field_real(neighbour, "age_seconds"); /* whole seconds are enough */
        bool bad = strcmp(state, "failed") == 0, good = strcmp(state, "reachable") == 0;
        table_cell(table, "%s", field_text(neighbour, "address"));
        table_cell(table, "%s", field_text(neighbour, "mac"));
        table_cell(table, "%s", field_text(neighbour, "interface"));
        table_coloured(table, bad ? TABLE_RED : good ? TABLE_GREEN : TABLE_PLAIN, "%s", state);
        table_cell(table, "%s", format_duration(age >= 0 ? (double)(uint64_t)age : age).text);
        table_cell(table, "%s", json_is_true(json_object_get(neighbour, "router")) ? "router" : "");
    }
    table_end(table, stdout, session->colour);
}
