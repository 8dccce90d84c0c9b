/*
 * config check, diff, apply, save. Files are read here, by the user's rights, and travel to the
 * router as JSON; only "save" writes on the router's side.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads a configuration file, "-" for stdin. NULL after telling what is wrong. */
static json_t *read_config(struct session *session, const char *file) {
    json_error_t error;
    bool is_stdin = strcmp(file, "-") == 0;
    FILE *in = is_stdin ? stdin : fopen(file, "r");

    if (in == NULL) {
        session_error(session, "cannot read %s: %m", file);
        return NULL;
    }
    json_t *config = json_loadf(in, JSON_REJECT_DUPLICATES, &error);
    if (config == NULL)
        session_error(session, "%s:%d:%d: %s", is_stdin ? "stdin" : file, error.line, error.column,
                      error.text);
    if (!is_stdin)
        fclose(in);
    return config;
}

/* Calls the command's method with the file's content; NULL with *status after telling. */
static json_t *call_with_config(struct session *session, const struct match *match, int *status) {
    json_t *config = read_config(session, match_value(match, "file"));
    const char *confirm = match_value(match, "confirm_timeout");

    if (config == NULL) {
        *status = STATUS_ROUTER;
        return NULL;
    }
    json_t *params = json_pack("{s:o}", "config", config);
    if (confirm != NULL)
        json_object_set_new(params, "confirm_timeout", json_integer(atoi(confirm)));
    return session_call(session, match->command->method, params, CLIENT_TIMEOUT_SLOW, status);
}

int run_config_check(struct session *session, const struct match *match) {
    int status;
    json_t *result = call_with_config(session, match, &status);

    if (result == NULL) {
        if (status == STATUS_CONNECT)
            fprintf(stderr, "a file can be checked without a running router: "
                            "dpdk-router -- --check -c FILE\n");
        return status;
    }
    if (session->json)
        session_print_json(session, result);
    else
        printf("%s: valid\n", match_value(match, "file"));
    json_decref(result);
    return status;
}

static void print_value(const json_t *value) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

    printf(" %s", text ? text : "?");
    free(text);
}

static void print_change(const struct session *session, const json_t *change) {
    const char *action = field_text(change, "action");
    bool add = strcmp(action, "add") == 0, take = strcmp(action, "remove") == 0;
    char *path = text_clean(field_text(change, "path"));
    const char *colour = !session->colour ? "" : add ? "\033[32m" : take ? "\033[31m" : "";

    printf("%s%s %s:", colour, add ? "+" : take ? "-" : "~", path);
    if (!add)
        print_value(json_object_get(change, "old"));
    if (!add && !take)
        fputs(" ->", stdout);
    if (!take)
        print_value(json_object_get(change, "new"));
    printf("%s\n", *colour ? "\033[0m" : "");
    free(path);
}

int run_config_diff(struct session *session, const struct match *match) {
    int status;
    json_t *result = call_with_config(session, match, &status), *change;
    size_t i;

    if (result == NULL)
        return status;
    const json_t *changes = json_object_get(result, "changes");
    if (session->json) {
        session_print_json(session, result);
    } else {
        json_array_foreach (changes, i, change) {
            print_change(session, change);
        }
        if (i == 0)
            puts("no differences");
    }
    json_decref(result);
    return status;
}

int run_config_apply(struct session *session, const struct match *match) {
    int status;
    json_t *result = call_with_config(session, match, &status);

    if (result == NULL)
        return status;
    if (session->json) {
        session_print_json(session, result);
    } else {
        uint64_t changes = field_count(result, "changes");
        if (changes == 0)
            printf("nothing to change, this configuration is in force already%s\n",
                   field_real(result, "confirm_timeout") > 0 ? "" : ", and stays");
        else
            printf("applied, %s change%s\n", format_count(changes).text, changes == 1 ? "" : "s");
        if (field_real(result, "confirm_timeout") > 0)
            printf("without \"config confirm\" it is undone in %s\n",
                   format_duration(field_real(result, "confirm_timeout")).text);
    }
    json_decref(result);
    return status;
}

void show_confirmed(struct session *session, const struct match *match, const void *result) {
    (void)session;
    (void)match;
    (void)result;
    puts("confirmed, the configuration stays");
}

void show_rolled_back(struct session *session, const struct match *match, const void *result) {
    (void)session;
    (void)match;
    (void)result;
    puts("rolled back, the configuration before is in force");
}

/* The router has another working directory, so a relative name is made absolute here. */
static char *absolute(const char *file) {
    char *folder = *file == '/' ? NULL : getcwd(NULL, 0), *path = NULL;

    if (folder == NULL)
        return strdup(file);
    if (asprintf(&path, "%s/%s", folder, file) < 0)
        abort();
    free(folder);
    return path;
}

int run_config_save(struct session *session, const struct match *match) {
    const char *file = match_value(match, "file");
    char *path = file ? absolute(file) : NULL;
    int status;
    json_t *params = path ? json_pack("{s:s}", "file", path) : NULL;
    json_t *result =
        session_call(session, match->command->method, params, CLIENT_TIMEOUT_SLOW, &status);

    free(path);
    if (result == NULL)
        return status;
    if (session->json)
        session_print_json(session, result);
    else
        printf("saved to %s\n", field_text(result, "file"));
    json_decref(result);
    return status;
}
