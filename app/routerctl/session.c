/*
 * Running one command: understand it, call its method, show the result; and telling what went
 * wrong.
 */
#include "session.h"

#include "commands.h"
#include "table.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { JSON_STYLE = JSON_ENCODE_ANY | JSON_REAL_PRECISION(15), NAMES_TIMEOUT = 2 };

void session_error(const struct session *session, const char *format, ...) {
    va_list arguments;

    fflush(stdout); /* in a log of both, the error comes after what was printed before it */
    fputs("routerctl: ", stderr);
    if (session->script != NULL)
        fprintf(stderr, "%s:%u: ", session->script, session->line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

/* The member as cleaned text, or NULL; the caller frees it. */
static char *clean_member(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text_clean(text) : NULL;
}

static void print_problems(const json_t *problems, const json_t *omitted) {
    size_t i;
    json_t *problem;

    json_array_foreach (problems, i, problem) {
        char *path = clean_member(problem, "path"), *message = clean_member(problem, "message");
        fprintf(stderr, "  %s: %s\n", path ? path : "$", message ? message : "wrong");
        free(path);
        free(message);
    }
    if (json_integer_value(omitted) > 0)
        fprintf(stderr, "  and %" JSON_INTEGER_FORMAT " more\n", json_integer_value(omitted));
}

/* The path to put before a single sentence, or NULL. "$" alone says nothing unless the whole input
 * is what is wrong. */
static char *telling_path(const struct failure *failure) {
    enum { INVALID_PARAMS = -32602, CONFIG_INVALID = -32003 };
    char *path = clean_member(failure->data, "path");

    if (path != NULL && strcmp(path, "$") == 0 && failure->code != INVALID_PARAMS &&
        failure->code != CONFIG_INVALID) {
        free(path);
        path = NULL;
    }
    return path;
}

int session_failure(const struct session *session, struct failure *failure) {
    const json_t *problems = json_object_get(failure->data, "problems");
    const json_t *omitted = json_object_get(failure->data, "omitted");
    int status = failure->status;

    if (!failure->interrupted && json_array_size(problems) > 1) {
        session_error(session, "there are %zu problems:",
                      json_array_size(problems) + (size_t)json_integer_value(omitted));
        print_problems(problems, omitted);
    } else if (!failure->interrupted) {
        char *text = text_clean(failure->text), *path = telling_path(failure);
        session_error(session, "%s%s%s", path ? path : "", path ? ": " : "", text);
        free(path);
        free(text);
    }
    failure_free(failure);
    return status;
}

json_t *session_call(struct session *session, const char *method, json_t *params, int timeout,
                     int *status) {
    struct failure failure;
    json_t *result = client_call(session->client, method, params, timeout, &failure);

    *status = result != NULL ? STATUS_OK : session_failure(session, &failure);
    return result;
}

void session_print_json(const struct session *session, const json_t *value) {
    json_dumpf(value, stdout,
               JSON_STYLE | (session->terminal ? (size_t)JSON_INDENT(2) : (size_t)JSON_COMPACT));
    putchar('\n');
}

json_t *match_params(const struct match *match) {
    json_t *params = NULL;

    for (size_t i = 0; i < match->count; i++) {
        const struct match_word *word = &match->words[i];
        if (word->key == NULL)
            continue;
        if (params == NULL)
            params = json_object();
        bool number = word->argument && argument_of(word->type)->number &&
                      word->text[strspn(word->text, "0123456789")] == '\0';
        json_object_set_new(params, word->key,
                            number ? json_integer(atoi(word->text)) : json_string(word->text));
    }
    return params;
}

/* A command without a function of its own: one call, one result. */
static int run_method(struct session *session, const struct match *match) {
    const struct command *command = match->command;
    int status, timeout = command->flags & COMMAND_SLOW ? CLIENT_TIMEOUT_SLOW : CLIENT_TIMEOUT;
    json_t *result = session_call(session, command->method, match_params(match), timeout, &status);

    if (result == NULL)
        return status;
    if (session->json)
        session_print_json(session, result);
    else if (command->render != NULL)
        command->render(session, match, result);
    json_decref(result);
    return STATUS_OK;
}

int session_run(struct session *session, char *const *words, size_t count) {
    struct match match;
    char *error;

    if (!command_match(session->commands, words, count, session->shell,
                       session->shell ? "" : "routerctl ", &match, &error)) {
        session_error(session, "%s", error);
        free(error);
        return STATUS_USAGE;
    }
    int status =
        match.command->run ? match.command->run(session, &match) : run_method(session, &match);
    match_free(&match);
    return status;
}

/* ---- names for completion ---- */

static void add_name(struct candidates *out, const char *name, const char *partial) {
    if (name != NULL && strncmp(name, partial, strlen(partial)) == 0)
        candidates_add(out, name, NULL);
}

static void add_from_router(struct session *session, const char *method, const char *key,
                            const char *partial, struct candidates *out) {
    struct failure failure;
    json_t *list = client_call(session->client, method, NULL, NAMES_TIMEOUT, &failure), *item;
    size_t i;

    if (list == NULL) {
        failure_free(&failure);
        return;
    }
    json_array_foreach (list, i, item) {
        add_name(out, json_string_value(json_object_get(item, key)), partial);
    }
    json_decref(list);
}

static int visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

/* Files whose names start with `partial`; directories with a slash behind them. */
static void add_files(const char *partial, struct candidates *out) {
    const char *slash = strrchr(partial, '/'), *name = slash ? slash + 1 : partial;
    char *folder = slash ? strndup(partial, (size_t)(slash - partial) + 1) : strdup("");
    struct dirent **entries = NULL;
    int count = folder == NULL ? -1
                               : scandir(slash ? folder : ".", &entries,
                                         name[0] == '.' ? NULL : visible, alphasort);

    for (int i = 0; i < count; i++) {
        const char *entry = entries[i]->d_name;
        struct stat status;
        char *path;

        if (strncmp(entry, name, strlen(name)) == 0 &&
            asprintf(&path, "%s%s/", folder, entry) >= 0) {
            bool is_folder = stat(path, &status) == 0; /* the slash makes files fail */
            if (!is_folder)
                path[strlen(path) - 1] = '\0';
            struct candidate *candidate = candidates_add(out, path, NULL);
            candidate->file = true;
            candidate->unfinished = is_folder;
            free(path);
        }
        free(entries[i]);
    }
    free(entries);
    free(folder);
}

void session_names(void *context, enum argument_type type, const char *partial,
                   struct candidates *out) {
    struct session *session = context;
    const char *const *names = argument_of(type)->names;

    for (size_t i = 0; names != NULL && names[i] != NULL; i++)
        add_name(out, names[i], partial);
    switch (type) {
    case ARGUMENT_INTERFACE:
        add_from_router(session, "interface.list", "name", partial, out);
        break;
    case ARGUMENT_VRF:
        add_name(out, "default", partial);
        add_from_router(session, "interface.list", "vrf", partial, out);
        break;
    case ARGUMENT_METHOD:
        add_from_router(session, "system.methods", "name", partial, out);
        break;
    case ARGUMENT_FILE:
        add_files(partial, out);
        break;
    default:
        break;
    }
}
