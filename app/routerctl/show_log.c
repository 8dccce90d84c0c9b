/*
 * show log. Lines are asked for by sequence number, so following the log never misses one that the
 * router still remembers, and never shows one twice.
 */
#include "commands.h"
#include "field.h"
#include "interrupt.h"
#include "live.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PAGE = 1000 };

/* An RFC 3339 time in UTC as local time with milliseconds, as people compare it with their clock;
 * any other text as it is. */
static void local_time(const char *text, char *out, size_t size) {
    struct tm parts = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    char fraction[5] = "";

    if (rest != NULL && rest[0] == '.') {
        snprintf(fraction, sizeof(fraction), "%s", rest);
        rest += 1 + strspn(rest + 1, "0123456789");
    }
    if (rest == NULL || strcmp(rest, "Z") != 0) {
        snprintf(out, size, "%s", text);
        return;
    }
    time_t seconds = timegm(&parts);
    localtime_r(&seconds, &parts);
    size_t used = strftime(out, size, "%Y-%m-%d %H:%M:%S", &parts);
    snprintf(out + used, size - used, "%s", fraction);
}

static void print_line(const struct session *session, const json_t *line) {
    const char *level = field_text(line, "level");
    char *area = text_clean(field_text(line, "area")), *text = text_clean(field_text(line, "text"));
    char *stamp = text_clean(field_text(line, "time")), when[64];
    bool red = session->colour && strcmp(level, "error") == 0;

    local_time(stamp, when, sizeof(when));
    printf("%s%s  %-7s  %-9s  %s%s\n", red ? "\033[31m" : "", when, level, area, text,
           red ? "\033[0m" : "");
    free(stamp);
    free(area);
    free(text);
}

/* Fetches and prints what came after *sequence and moves it on. Lines are added to `all`, which may
 * be NULL, instead of printed, when the output is one JSON array. */
static int print_new(struct session *session, const char *method, json_int_t *sequence,
                     json_t *all) {
    size_t count;

    do {
        int status;
        json_t *params = json_pack("{s:I, s:i}", "after", *sequence, "limit", PAGE);
        json_t *lines = session_call(session, method, params, CLIENT_TIMEOUT, &status), *line;
        size_t i;

        if (lines == NULL)
            return interrupt_pending() ? STATUS_OK : status;
        count = json_array_size(lines);
        json_array_foreach (lines, i, line) {
            json_int_t number = json_integer_value(json_object_get(line, "sequence"));
            if (number > *sequence)
                *sequence = number;
            if (all != NULL) {
                json_array_append(all, line);
            } else if (session->json) {
                json_dumpf(line, stdout, JSON_COMPACT);
                putchar('\n');
            } else {
                print_line(session, line);
            }
        }
        json_decref(lines);
    } while (count >= PAGE);
    return STATUS_OK;
}

int run_show_log(struct session *session, const struct match *match) {
    bool follow = match_has(match, "follow");
    json_t *all = session->json && !follow ? json_array() : NULL;
    json_int_t sequence = 0;

    if (follow) {
        interrupt_catch();
        live_keys(session->terminal);
    }
    int status = print_new(session, match->command->method, &sequence, all);
    while (follow && status == STATUS_OK && fflush(stdout) == 0 && live_wait(0.5))
        status = print_new(session, match->command->method, &sequence, NULL);
    if (follow) {
        live_keys(false);
        if (!interrupt_ends_program())
            interrupt_clear();
    }
    if (all != NULL && status == STATUS_OK)
        session_print_json(session, all);
    json_decref(all);
    return status;
}
