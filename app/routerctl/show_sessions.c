/*
 * show sessions: the list, how many there are, and the live view.
 *
 * A router may have millions of sessions. The list comes in pages. The live view has to compare two
 * looks at the same sessions, so it watches a bounded number of them; filters choose which.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "live.h"
#include "pages.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WATCHED = 20000, /* sessions that the live view compares: half a second's work for both sides */
    BUSIEST = 100,   /* and shows, as far as the window has room */
};

/* --- one session --- */

struct text {
    char text[160];
};

/* "192.168.1.10:443", "[2001:db8::1]:443"; without a port where the protocol has none. */
static struct text end_text(const json_t *end, bool port) {
    const char *address = field_text(end, "address");
    bool ipv6 = strchr(address, ':') != NULL;
    struct text out;

    if (port)
        snprintf(out.text, sizeof(out.text), "%s%s%s:%.0f", ipv6 ? "[" : "", address,
                 ipv6 ? "]" : "", field_real(end, "port"));
    else
        snprintf(out.text, sizeof(out.text), "%s", address);
    return out;
}

struct ends {
    bool source_port, destination_port;
};

/* An ICMP query has an identifier on one side and its type on the other, which says nothing. */
static struct ends ends_of(const json_t *session) {
    bool icmp = strncmp(field_text(session, "protocol"), "icmp", 4) == 0;
    bool ports = field_count(json_object_get(session, "source"), "port") > 0 ||
                 field_count(json_object_get(session, "destination"), "port") > 0;

    return (struct ends){ports, ports && !icmp};
}

static void place_cells(struct table *table, const json_t *session) {
    const json_t *source = json_object_get(session, "translated_source");
    const json_t *destination = json_object_get(session, "translated_destination");
    struct ends ends = ends_of(session);

    table_cell(table, "%s", field_text(session, "protocol"));
    table_cell(table, "%s", end_text(json_object_get(session, "source"), ends.source_port).text);
    table_cell(table, "%s",
               end_text(json_object_get(session, "destination"), ends.destination_port).text);
    if (source == NULL && destination == NULL)
        table_cell(table, "-");
    else
        table_cell(table, "%s%s%s%s%s", source ? "from " : "",
                   source ? end_text(source, ends.source_port).text : "",
                   source && destination ? " " : "", destination ? "to " : "",
                   destination ? end_text(destination, ends.destination_port).text : "");
    table_cell(table, "%s", field_text(session, "state"));
    table_cell(table, "%s", format_duration(field_real(session, "idle_seconds")).text);
}

/* --- the list --- */

static void show_page(struct session *session, const json_t *list, bool more, void *context) {
    struct table *table = context;
    json_t *item;
    size_t i;

    if (more) { /* what comes shall stay aligned */
        table_widen(table, 1, strlen("255.255.255.255:65535"));
        table_widen(table, 2, strlen("255.255.255.255:65535"));
        table_widen(table, 4, strlen("tcp_established"));
    }
    json_array_foreach (list, i, item) {
        static const char *const directions[] = {"forward", "backward"};

        place_cells(table, item);
        for (size_t d = 0; d < 2; d++) {
            const json_t *counters = json_object_get(item, directions[d]);
            table_cell(table, "%s", format_scaled(field_real(counters, "packets")).text);
            table_cell(table, "%s", format_unit(field_real(counters, "bytes"), "B").text);
        }
    }
    table_flush(table, stdout, session->colour);
}

static int show_list(struct session *session, const struct match *match) {
    static const struct table_column columns[] = {
        {"PROTOCOL", TABLE_LEFT}, {"SOURCE", TABLE_LEFT}, {"DESTINATION", TABLE_LEFT},
        {"AS", TABLE_LEFT},       {"STATE", TABLE_LEFT},  {"IDLE", TABLE_RIGHT},
        {"PACKETS", TABLE_RIGHT}, {"BYTES", TABLE_RIGHT}, {"BACK", TABLE_RIGHT},
        {"BYTES", TABLE_RIGHT}};
    static const struct pages pages = {"sessions", "cursor", "cursor", show_page};
    struct table *table = TABLE_NEW(columns);
    size_t count;
    int status = pages_run(session, match, &pages, table, &count);

    if (status == STATUS_OK && !session->json && count == 0)
        puts("no sessions");
    table_end(table, stdout, session->colour);
    return status;
}

/* --- the live view --- */

/* All that the filters let through, up to WATCHED: {"sessions", "count", "all"}. */
static json_t *fetch(struct session *session, const struct match *match, struct failure *failure) {
    json_t *sessions = json_array(), *cursor = NULL, *count;
    bool more = true;

    while (more && json_array_size(sessions) < WATCHED) {
        json_t *params = match_params(match), *page;
        if (params == NULL)
            params = json_object();
        json_object_set_new(params, "limit", json_integer(PAGE));
        if (cursor != NULL)
            json_object_set_new(params, "cursor", cursor);
        page =
            client_call(session->client, match->command->method, params, CLIENT_TIMEOUT, failure);
        if (page == NULL) {
            json_decref(sessions);
            return NULL;
        }
        json_array_extend(sessions, json_object_get(page, "sessions"));
        cursor = json_incref(json_object_get(page, "cursor"));
        more = cursor != NULL && !json_is_null(cursor);
        json_decref(page);
    }
    json_decref(cursor);
    count = client_call(session->client, "session.count", NULL, CLIENT_TIMEOUT, failure);
    if (count == NULL) {
        json_decref(sessions);
        return NULL;
    }
    return json_pack("{s:o, s:o, s:b}", "sessions", sessions, "count", count, "all", !more);
}

/* A session with its rates per second. */
struct busy {
    const json_t *session;
    double packets[2], bytes[2], sum;
};

static double rate(const json_t *now, const json_t *before, const char *direction, const char *key,
                   double seconds) {
    double old = before ? field_real(json_object_get(before, direction), key) : 0;
    double new = field_real(json_object_get(now, direction), key);

    return new > old &&seconds > 0 ? (new - old) / seconds : 0;
}

static int busiest_first(const void *a, const void *b) {
    const struct busy *left = a, *right = b;
    double idle_left = field_real(left->session, "idle_seconds");
    double idle_right = field_real(right->session, "idle_seconds");

    if (left->sum != right->sum)
        return left->sum < right->sum ? 1 : -1;
    return (idle_left > idle_right) - (idle_left < idle_right);
}

/* The same session in the look before, or NULL when it is new. Both are sorted by id, so *at only
 * moves on. */
static const json_t *same_before(const json_t *now, const json_t *before, double seconds,
                                 size_t *at) {
    uint64_t id = field_count(now, "id");
    const json_t *other;

    while ((other = json_array_get(before, *at)) != NULL && field_count(other, "id") < id)
        (*at)++;
    if (other == NULL || field_count(other, "id") != id ||
        field_real(now, "age_seconds") < seconds) /* another one in the same place */
        return NULL;
    return other;
}

static void draw_busy(struct table *table, const struct busy *busy, bool rates) {
    place_cells(table, busy->session);
    for (size_t d = 0; d < 2; d++) {
        table_cell(table, "%s", rates ? format_scaled(busy->packets[d]).text : "-");
        table_cell(table, "%s", rates ? format_scaled(8 * busy->bytes[d]).text : "-");
    }
}

static void draw(struct session *session, const struct match *match, FILE *out, const json_t *now,
                 const json_t *before, double seconds) {
    static const struct table_column columns[] = {
        {"PROTOCOL", TABLE_LEFT}, {"SOURCE", TABLE_LEFT}, {"DESTINATION", TABLE_LEFT},
        {"AS", TABLE_LEFT},       {"STATE", TABLE_LEFT},  {"IDLE", TABLE_RIGHT},
        {"PPS", TABLE_RIGHT},     {"BIT/S", TABLE_RIGHT}, {"BACK PPS", TABLE_RIGHT},
        {"BIT/S", TABLE_RIGHT}};
    static const char *const directions[] = {"forward", "backward"};
    const json_t *list = json_object_get(now, "sessions"), *count = json_object_get(now, "count");
    const json_t *old_list = json_object_get(before, "sessions");
    struct busy *all = calloc(json_array_size(list) + 1, sizeof(*all));
    struct table *table = TABLE_NEW(columns);
    size_t shown = 0, at = 0;

    (void)match;
    if (all == NULL)
        abort();
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct busy *busy = &all[i];
        busy->session = json_array_get(list, i);
        const json_t *old = same_before(busy->session, old_list, seconds, &at);
        for (size_t d = 0; d < 2 && before != NULL; d++) {
            busy->packets[d] = rate(busy->session, old, directions[d], "packets", seconds);
            busy->bytes[d] = rate(busy->session, old, directions[d], "bytes", seconds);
            busy->sum += busy->bytes[d];
        }
    }
    qsort(all, json_array_size(list), sizeof(*all), busiest_first);
    fprintf(out, "%s sessions, room for %s; %s%s watched, the busiest first\n\n",
            format_count(field_count(count, "sessions")).text,
            format_count(field_count(count, "size")).text,
            json_is_true(json_object_get(now, "all")) ? "" : "only ",
            format_count(json_array_size(list)).text);
    for (; shown < json_array_size(list) && shown < BUSIEST; shown++)
        draw_busy(table, &all[shown], before != NULL);
    table_end(table, out, session->colour);
    free(all);
}

int run_show_sessions(struct session *session, const struct match *match) {
    if (match_has(match, "live"))
        return live_run(session, match, 1, 0, fetch, draw);
    return show_list(session, match);
}

/* --- how many --- */

void show_session_counts(struct session *session, const struct match *match, const void *result) {
    static const struct table_column columns[] = {{"", TABLE_LEFT}, {"", TABLE_RIGHT}};
    static const struct {
        const char *title, *key;
    } totals[] = {{"Sessions", "sessions"},      {"Places", "size"},
                  {"Opened", "opened"},          {"Ended", "ended"},
                  {"Evicted", "evicted"},        {"Events written", "events_written"},
                  {"Events lost", "events_lost"}};
    struct table *table = TABLE_NEW(columns);
    const char *name;
    json_t *value;

    (void)match;
    for (size_t i = 0; i < sizeof(totals) / sizeof(totals[0]); i++) {
        table_cell(table, "%s", totals[i].title);
        table_cell(table, "%s", format_count(field_count(result, totals[i].key)).text);
    }
    json_object_foreach (json_object_get(result, "states"), name, value) {
        if (json_integer_value(value) == 0)
            continue;
        table_cell(table, "  %s", name);
        table_cell(table, "%s", format_count((uint64_t)json_integer_value(value)).text);
    }
    table_end(table, stdout, session->colour);
}
