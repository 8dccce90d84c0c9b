/*
 * show stats and show drops: counters since the start or the last "clear stats", and rates.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "live.h"
#include "rates.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct drop {
    const char *name; /* "stage.reason" */
    double value;
};

static int most_first(const void *a, const void *b) {
    const struct drop *left = a, *right = b;
    if (left->value != right->value)
        return left->value < right->value ? 1 : -1;
    return strcmp(left->name, right->name);
}

static void drop_cells(struct table *table, const char *name) {
    size_t stage = strcspn(name, ".");

    table_cell(table, "%.*s", (int)stage, name);
    table_cell(table, "%s", name[stage] ? name + stage + 1 : "-");
}

/* Prints the drops, the most frequent first, or in the router's order. */
static void show_drops(struct session *session, const json_t *drops, bool sorted) {
    static const struct table_column columns[] = {
        {"STAGE", TABLE_LEFT}, {"REASON", TABLE_LEFT}, {"PACKETS", TABLE_RIGHT}};
    size_t count = 0;
    struct drop *list = calloc(json_object_size(drops) + 1, sizeof(*list));
    struct table *table = TABLE_NEW(columns);
    const char *name;
    json_t *value;

    if (list == NULL)
        abort();
    json_object_foreach ((json_t *)(uintptr_t)drops, name, value) {
        list[count++] = (struct drop){name, json_number_value(value)};
    }
    if (sorted)
        qsort(list, count, sizeof(*list), most_first);
    if (count == 0)
        puts("no drops");
    for (size_t i = 0; i < count; i++) {
        drop_cells(table, list[i].name);
        table_cell(table, "%s", format_count(field_count(drops, list[i].name)).text);
    }
    free(list);
    table_end(table, stdout, session->colour);
}

static uint64_t sum_drops(const json_t *drops) {
    uint64_t sum = 0;
    const char *name;
    json_t *value;

    json_object_foreach ((json_t *)(uintptr_t)drops, name, value) {
        sum += field_count(drops, name);
    }
    return sum;
}

static void show_interface_counters(struct session *session, const json_t *interfaces) {
    static const struct table_column columns[] = {
        {"INTERFACE", TABLE_LEFT}, {"RX PACKETS", TABLE_RIGHT}, {"RX BYTES", TABLE_RIGHT},
        {"MISSED", TABLE_RIGHT},   {"TX PACKETS", TABLE_RIGHT}, {"TX BYTES", TABLE_RIGHT},
        {"DROPPED", TABLE_RIGHT}};
    struct table *table = TABLE_NEW(columns);
    const char *name;
    json_t *counters;

    json_object_foreach ((json_t *)(uintptr_t)interfaces, name, counters) {
        table_cell(table, "%s", name);
        table_cell(table, "%s", format_count(field_count(counters, "rx_packets")).text);
        table_cell(table, "%s", format_unit(field_real(counters, "rx_bytes"), "B").text);
        table_cell(table, "%s", format_count(field_count(counters, "rx_missed")).text);
        table_cell(table, "%s", format_count(field_count(counters, "tx_packets")).text);
        table_cell(table, "%s", format_unit(field_real(counters, "tx_bytes"), "B").text);
        table_cell(table, "%s", format_count(field_count(counters, "tx_dropped")).text);
    }
    table_end(table, stdout, session->colour);
}

static void show_buffers(FILE *out, const json_t *mbufs) {
    double total = field_real(mbufs, "total");

    fprintf(out, "packet buffers: %s of %s in use (%s)\n",
            format_count(field_count(mbufs, "in_use")).text,
            format_count(field_count(mbufs, "total")).text,
            format_percent(100 * field_real(mbufs, "in_use") / total).text);
}

static void show_counters(struct session *session, const json_t *stats) {
    static const struct table_column columns[] = {
        {"WORKER", TABLE_RIGHT}, {"RX PACKETS", TABLE_RIGHT}, {"BUSY", TABLE_RIGHT}};
    struct table *table = TABLE_NEW(columns);
    json_t *worker;
    size_t i;

    show_interface_counters(session, json_object_get(stats, "interfaces"));
    json_array_foreach (json_object_get(stats, "workers"), i, worker) {
        table_cell(table, "%.0f", field_real(worker, "lcore"));
        table_cell(table, "%s", format_count(field_count(worker, "rx_packets")).text);
        table_cell(table, "%s", format_percent(field_real(worker, "busy_percent")).text);
    }
    if (table_rows(table) > 0)
        putchar('\n');
    table_end(table, stdout, session->colour);
    putchar('\n');
    show_buffers(stdout, json_object_get(stats, "mbufs"));
    uint64_t drops = sum_drops(json_object_get(stats, "drops"));
    printf("dropped packets: %s%s\n", format_count(drops).text,
           drops > 0 ? " (see \"show drops\")" : "");
}

static const json_t *find_worker(const json_t *workers, double lcore) {
    json_t *worker;
    size_t i;

    json_array_foreach (workers, i, worker) {
        if (field_real(worker, "lcore") == lcore)
            return worker;
    }
    return NULL;
}

static void draw_workers(struct session *session, FILE *out, const json_t *now,
                         const json_t *before, double seconds) {
    static const struct table_column columns[] = {
        {"WORKER", TABLE_RIGHT}, {"RX PPS", TABLE_RIGHT}, {"BUSY", TABLE_RIGHT}};
    struct table *table = TABLE_NEW(columns);
    json_t *worker;
    size_t i;

    json_array_foreach (now, i, worker) {
        double lcore = field_real(worker, "lcore");
        double rate = live_rate(worker, find_worker(before, lcore), "rx_packets", seconds);
        table_cell(table, "%.0f", lcore);
        table_cell(table, "%s", format_scaled(rate).text);
        table_cell(table, "%s", format_percent(field_real(worker, "busy_percent")).text);
    }
    if (table_rows(table) > 0)
        fputc('\n', out);
    table_end(table, out, session->colour);
}

/* Only what was dropped in this interval; a reason that is new since then started at zero. */
static void draw_drops(struct session *session, FILE *out, const json_t *now, const json_t *before,
                       double seconds) {
    static const struct table_column columns[] = {
        {"STAGE", TABLE_LEFT}, {"REASON", TABLE_LEFT}, {"DROPS/S", TABLE_RIGHT}};
    struct table *table = TABLE_NEW(columns);
    const char *name;
    json_t *value;

    json_object_foreach ((json_t *)(uintptr_t)now, name, value) {
        if (before == NULL)
            break;
        double new_value = json_number_value(value), old_value = field_real(before, name);
        if (isnan(old_value) || old_value > new_value)
            old_value = 0;
        if (new_value > old_value) {
            drop_cells(table, name);
            table_cell(table, "%s", format_scaled((new_value - old_value) / seconds).text);
        }
    }
    if (table_rows(table) > 0 || before == NULL)
        fputc('\n', out);
    table_end(table, out, session->colour);
}

static void draw(struct session *session, const struct match *match, FILE *out, const json_t *now,
                 const json_t *before, double seconds) {
    const json_t *old_interfaces = json_object_get(before, "interfaces");
    struct table *table = rates_table();
    const char *name;
    json_t *counters;

    (void)match;
    json_object_foreach (json_object_get(now, "interfaces"), name, counters) {
        rates_row(table, name, -1, counters, json_object_get(old_interfaces, name), seconds);
    }
    table_end(table, out, session->colour);
    draw_workers(session, out, json_object_get(now, "workers"), json_object_get(before, "workers"),
                 seconds);
    fputc('\n', out);
    show_buffers(out, json_object_get(now, "mbufs"));
    draw_drops(session, out, json_object_get(now, "drops"), json_object_get(before, "drops"),
               seconds);
}

int run_show_stats(struct session *session, const struct match *match) {
    const char *interval = match_value(match, "interval"), *count = match_value(match, "count");
    int status;

    if (interval != NULL || count != NULL)
        return live_run(session, match, interval ? atoi(interval) : 1,
                        count ? (unsigned)atoi(count) : 0, NULL, draw);
    json_t *stats = session_call(session, match->command->method, NULL, CLIENT_TIMEOUT, &status);
    if (stats == NULL)
        return status;
    if (session->json)
        session_print_json(session, stats);
    else
        show_counters(session, stats);
    json_decref(stats);
    return status;
}

int run_show_drops(struct session *session, const struct match *match) {
    bool all = match_has(match, "all");
    int status;
    json_t *params = all ? json_pack("{s:b}", "all", 1) : NULL;
    json_t *stats = session_call(session, match->command->method, params, CLIENT_TIMEOUT, &status);

    if (stats == NULL)
        return status;
    if (session->json)
        session_print_json(session, stats);
    else
        show_drops(session, json_object_get(stats, "drops"), !all);
    json_decref(stats);
    return status;
}
