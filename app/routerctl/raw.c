/*
 * call: any method by its name. And the one-line results that several commands share.
 */
#include "commands.h"
#include "format.h"
#include "session.h"

#include <stdio.h>

int run_call(struct session *session, const struct match *match) {
    const char *text = match_value(match, "json");
    json_error_t error;
    int status;
    json_t *params = text ? json_loads(text, JSON_REJECT_DUPLICATES, &error) : NULL;

    if (text != NULL && params == NULL) {
        session_error(session, "the parameters are not JSON: column %d: %s", error.column,
                      error.text);
        return STATUS_USAGE;
    }
    json_t *result =
        session_call(session, match_value(match, "method"), params, CLIENT_TIMEOUT_SLOW, &status);
    if (result == NULL)
        return status;
    session_print_json(session, result);
    json_decref(result);
    return status;
}

void show_count(struct session *session, const struct match *match, const void *result) {
    static const struct {
        const char *key, *what;
    } counts[] = {
        {"added", "route"}, {"deleted", "route"}, {"flushed", "neighbour"}, {"ended", "session"}};

    (void)session;
    (void)match;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        const json_t *value = json_object_get(result, counts[i].key);
        if (!json_is_integer(value))
            continue;
        json_int_t count = json_integer_value(value);
        printf("%s %s%s %s\n", format_count((uint64_t)count).text, counts[i].what,
               count == 1 ? "" : "s", counts[i].key);
    }
}
