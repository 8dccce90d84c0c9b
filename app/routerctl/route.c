/*
 * route add and route load.
 *
 * A file of routes is a JSON array of route objects as in router.json, or lines as behind "route
 * add". It may be larger than one wants to hold in memory, so both forms are read route by route
 * and sent in batches. What can go wrong in the middle: batches sent before stay in force; the
 * error says how many routes that are.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "live.h"
#include "session.h"
#include "words.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 10000 };

/* Sets a member that must not be there yet. Returns false when it is. */
static bool set_once(json_t *object, const char *key, const struct match_word *word) {
    if (json_object_get(object, key) != NULL)
        return false;
    bool number = argument_of(word->type)->number;
    json_object_set_new(object, key,
                        number ? json_integer(atoi(word->text)) : json_string(word->text));
    return true;
}

/* Makes the route object of a "route add" line. NULL with *twice naming a word given twice. */
static json_t *route_of(const struct match *match, const char **twice) {
    json_t *route = json_object(), *hops = json_array(), *hop = NULL;

    *twice = NULL;
    for (size_t i = 0; i < match->count && *twice == NULL; i++) {
        const struct match_word *word = &match->words[i];
        if (!word->argument) {
            if (strcmp(word->text, "blackhole") == 0 || strcmp(word->text, "unreachable") == 0 ||
                strcmp(word->text, "prohibit") == 0)
                json_object_set_new(route, word->text, json_true());
        } else if (strcmp(word->key, "via") == 0) {
            hop = json_pack("{s:s}", "address", word->text);
            json_array_append_new(hops, hop);
        } else {
            /* An interface or weight belongs to the next hop before it. */
            bool of_hop = word->type == ARGUMENT_INTERFACE || word->type == ARGUMENT_WEIGHT;
            if (!set_once(of_hop && hop ? hop : route, word->key, word))
                *twice = word->key;
        }
    }
    if (json_array_size(hops) == 1 && json_object_size(hop) == 1)
        json_object_set(route, "via", json_object_get(hop, "address"));
    else if (hop != NULL)
        json_object_set(route, "via", hops);
    json_decref(hops);
    if (*twice != NULL) {
        json_decref(route);
        return NULL;
    }
    return route;
}

int run_route_add(struct session *session, const struct match *match) {
    const char *twice;
    json_t *route = route_of(match, &twice);
    int status;

    if (route == NULL) {
        session_error(session, "\"%s\" is given twice", twice);
        return STATUS_USAGE;
    }
    json_t *result = session_call(session, match->command->method, route, CLIENT_TIMEOUT, &status);
    if (result == NULL)
        return status;
    if (session->json)
        session_print_json(session, result);
    else
        show_count(session, match, result);
    json_decref(result);
    return status;
}

struct loader {
    struct session *session;
    const char *name; /* of the file */
    FILE *in;
    struct command_set *syntax; /* route lines, made when the first one comes */
    uint64_t line;
    json_t *batch;
    uint64_t read;  /* routes taken from the file */
    uint64_t added; /* routes the router says it added */
    int status;
};

static void load_error(struct loader *loader, const char *text) {
    if (loader->line > 0)
        session_error(loader->session, "%s:%" PRIu64 ": %s", loader->name, loader->line, text);
    else
        session_error(loader->session, "%s: route %s: %s", loader->name,
                      format_count(loader->read + 1).text, text);
    loader->status = STATUS_ROUTER;
}

/* Sends the batch. Returns false when the router refused it. */
static bool send_batch(struct loader *loader) {
    size_t count = json_array_size(loader->batch);

    if (count == 0)
        return true;
    json_t *params = json_pack("{s:o}", "routes", loader->batch);
    loader->batch = json_array();
    json_t *result =
        session_call(loader->session, "route.add", params, CLIENT_TIMEOUT_SLOW, &loader->status);
    if (result == NULL) {
        if (loader->status == STATUS_ROUTER)
            session_error(loader->session, "%s: stopped at routes %s to %s (the $.routes above)",
                          loader->name, format_count(loader->read - count + 1).text,
                          format_count(loader->read).text);
        return false;
    }
    loader->added += field_count(result, "added");
    json_decref(result);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s routes ", format_count(loader->added).text);
    return true;
}

/* Takes a route over and sends the batch when it is full. */
static bool add_route(struct loader *loader, json_t *route) {
    json_array_append_new(loader->batch, route);
    loader->read++;
    return json_array_size(loader->batch) < BATCH || send_batch(loader);
}

/* The first character that is not blank, left in the stream; EOF at the end. */
static int peek(FILE *in) {
    int c;

    do
        c = getc(in);
    while (c == ' ' || c == '\t' || c == '\n' || c == '\r');
    if (c != EOF)
        ungetc(c, in);
    return c;
}

/* Reads one object of the array. Returns false at a mistake, after telling it. */
static bool load_object(struct loader *loader) {
    json_error_t error;

    if (peek(loader->in) != '{') {
        load_error(loader, "expected a JSON object");
        return false;
    }
    json_t *route = json_loadf(loader->in, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &error);
    if (route == NULL) {
        load_error(loader, error.text);
        return false;
    }
    return add_route(loader, route);
}

/* Reads "[ {...}, {...} ]" object by object. */
static bool load_json(struct loader *loader) {
    getc(loader->in); /* the bracket */
    int next = peek(loader->in) == ']' ? ']' : ',';

    while (next == ',') {
        if (!load_object(loader))
            return false;
        next = peek(loader->in);
        if (next != ',' && next != ']') {
            load_error(loader, "expected \",\" or \"]\" before it");
            return false;
        }
        if (next == ',')
            getc(loader->in);
    }
    getc(loader->in); /* the closing bracket */
    if (peek(loader->in) != EOF) {
        load_error(loader, "more text stands behind the array's end");
        return false;
    }
    return true;
}

/* The table's "route add" rows without their first two words. */
static struct command_set *line_syntax(void) {
    enum { MOST = 8 };
    static struct command rows[MOST];
    static const char head[] = "route add ";
    size_t count = 0;

    for (size_t i = 0; i < command_count && count < MOST; i++)
        if (strncmp(commands[i].syntax, head, strlen(head)) == 0)
            rows[count++] = (struct command){.syntax = commands[i].syntax + strlen(head)};
    return command_set_new(rows, count);
}

static bool load_line(struct loader *loader, const char *text) {
    struct words words = words_split(text);
    struct match match;
    char *error = NULL;
    json_t *route = NULL;
    const char *twice;
    bool empty = words.count == 0;

    if (loader->syntax == NULL)
        loader->syntax = line_syntax();
    if (empty) {
        ;
    } else if (command_match(loader->syntax, words.list, words.count, false, "", &match, &error)) {
        route = route_of(&match, &twice);
        match_free(&match);
        if (route == NULL)
            load_error(loader, "a word is given twice");
    } else {
        error[strcspn(error, "\n")] = '\0'; /* the usage is in the manual */
        load_error(loader, error);
        free(error);
    }
    words_free(&words);
    return empty || (route != NULL && add_route(loader, route));
}

static bool load_lines(struct loader *loader) {
    char *text = NULL;
    size_t size = 0;
    bool good = true;

    while (good && getline(&text, &size, loader->in) >= 0) {
        loader->line++;
        good = load_line(loader, text);
    }
    free(text);
    return good;
}

static void report(const struct loader *loader, double seconds) {
    double rate = seconds > 0 ? (double)loader->added / seconds : 0;

    if (isatty(STDERR_FILENO) && loader->added > 0)
        fputs("\r\033[K", stderr);
    if (loader->session->json && loader->status == STATUS_OK) {
        json_t *result = json_pack("{s:I, s:f, s:f}", "added", (json_int_t)loader->added, "seconds",
                                   seconds, "routes_per_second", rate);
        session_print_json(loader->session, result);
        json_decref(result);
    } else if (loader->status == STATUS_OK) {
        printf("%s routes added in %.1f s, %s routes/s\n", format_count(loader->added).text,
               seconds, format_count((uint64_t)rate).text);
    } else if (loader->status == STATUS_ROUTER || loader->added > 0) {
        session_error(loader->session, "%s: %s routes were added before that", loader->name,
                      format_count(loader->added).text);
    }
}

int run_route_load(struct session *session, const struct match *match) {
    struct loader loader = {.session = session, .name = match_value(match, "file")};
    bool is_stdin = strcmp(loader.name, "-") == 0;
    double start = live_clock();

    loader.in = is_stdin ? stdin : fopen(loader.name, "r");
    if (loader.in == NULL) {
        session_error(session, "cannot read %s: %m", loader.name);
        return STATUS_ROUTER;
    }
    if (is_stdin)
        loader.name = "stdin";
    loader.batch = json_array();
    bool good = peek(loader.in) == '[' ? load_json(&loader) : load_lines(&loader);
    if (good && ferror(loader.in)) {
        load_error(&loader, strerror(errno));
        good = false;
    }
    if (good)
        send_batch(&loader);
    report(&loader, live_clock() - start);
    json_decref(loader.batch);
    if (loader.syntax != NULL)
        command_set_free(loader.syntax);
    if (!is_stdin)
        fclose(loader.in);
    return loader.status;
}
