/*
 * show runtime: one block per worker, so that one sees which stage eats the cycles.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

static void worker_line(const json_t *worker) {
    double polls = field_real(worker, "loops");
    json_t *queue;
    size_t i;

    printf("worker %.0f: %s busy, %s packets", field_real(worker, "lcore"),
           format_percent(field_real(worker, "busy_percent")).text,
           format_count(field_count(worker, "packets")).text);
    if (field_real(worker, "cycles_per_packet") > 0)
        printf(", %.0f cycles per packet", field_real(worker, "cycles_per_packet"));
    putchar('\n');
    json_array_foreach (json_object_get(worker, "queues"), i, queue) {
        char *name = text_clean(field_text(queue, "interface"));
        printf("%s%s/%.0f", i == 0 ? "queues " : " ", name, field_real(queue, "queue"));
        free(name);
    }
    if (polls > 0)
        printf("%s%s of the polls found nothing", i > 0 ? "; " : "",
               format_percent(100 * field_real(worker, "empty_polls") / polls).text);
    if (i > 0 || polls > 0)
        putchar('\n');
}

/* A number with one decimal, or "-" where nothing was measured. */
static void ratio_cell(struct table *table, double value) {
    if (isnan(value))
        table_cell(table, "-");
    else
        table_cell(table, "%.1f", value);
}

void show_runtime(struct session *session, const struct match *match, const void *result) {
    static const struct table_column columns[] = {{"STAGE", TABLE_LEFT},
                                                  {"PACKETS", TABLE_RIGHT},
                                                  {"BURSTS", TABLE_RIGHT},
                                                  {"PACKETS/BURST", TABLE_RIGHT},
                                                  {"CYCLES/PACKET", TABLE_RIGHT}};
    const json_t *workers = json_object_get(result, "workers");
    json_t *worker, *stage;
    size_t i, k;

    (void)match;
    if (json_array_size(workers) == 0)
        puts("no workers");
    json_array_foreach (workers, i, worker) {
        struct table *table = TABLE_NEW(columns);
        if (i > 0)
            putchar('\n');
        worker_line(worker);
        json_array_foreach (json_object_get(worker, "stages"), k, stage) {
            table_cell(table, "%s", field_text(stage, "name"));
            table_cell(table, "%s", format_count(field_count(stage, "packets")).text);
            table_cell(table, "%s", format_count(field_count(stage, "bursts")).text);
            ratio_cell(table, field_real(stage, "packets_per_burst"));
            ratio_cell(table, field_real(stage, "cycles_per_packet"));
        }
        table_end(table, stdout, session->colour);
    }
}
