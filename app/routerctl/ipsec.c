/*
 * ipsec: adds and deletes associations and policies. What is added comes from files, since keys on
 * a command line could be read by all users of the machine.
 */
#include "commands.h"
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An object, or an array of them, as an array; "-" is stdin. NULL after telling what is wrong. */
static json_t *read_list(struct session *session, const char *file) {
    bool is_stdin = strcmp(file, "-") == 0;
    FILE *in = is_stdin ? stdin : fopen(file, "r");
    json_error_t error;

    if (in == NULL) {
        session_error(session, "cannot read %s: %m", file);
        return NULL;
    }
    json_t *read = json_loadf(in, JSON_REJECT_DUPLICATES, &error);
    if (read == NULL)
        session_error(session, "%s:%d:%d: %s", is_stdin ? "stdin" : file, error.line, error.column,
                      error.text);
    if (!is_stdin)
        fclose(in);
    return json_is_object(read) ? json_pack("[o]", read) : read;
}

/* One after the other: those before one that is refused stay. */
int run_ipsec_add(struct session *session, const struct match *match) {
    const char *file = match_value(match, "file");
    json_t *list = read_list(session, file);
    size_t count = json_array_size(list), i;
    int status = list ? STATUS_OK : STATUS_ROUTER;

    for (i = 0; i < count && status == STATUS_OK; i++) {
        json_t *params = json_incref(json_array_get(list, i));
        json_t *result =
            session_call(session, match->command->method, params, CLIENT_TIMEOUT, &status);

        json_decref(result);
        if (status == STATUS_ROUTER && count > 1)
            session_error(session, "%s: stopped at element %zu of %zu", file, i + 1, count);
    }
    json_decref(list);
    if (status == STATUS_OK && session->json)
        puts("{}");
    else if (status == STATUS_OK)
        printf("%zu added\n", count);
    return status;
}

int run_ipsec_sa_delete(struct session *session, const struct match *match) {
    const char *destination = match_value(match, "destination");
    unsigned long long spi = strtoull(match_value(match, "spi"), NULL, 0);
    json_t *params = json_pack("{s:I, s:s}", "spi", (json_int_t)spi, "direction",
                               match_value(match, "direction")),
           *result;
    int status;

    if (destination)
        json_object_set_new(params, "destination", json_string(destination));
    result = session_call(session, match->command->method, params, CLIENT_TIMEOUT, &status);
    if (result && session->json)
        session_print_json(session, result);
    json_decref(result);
    return status;
}
