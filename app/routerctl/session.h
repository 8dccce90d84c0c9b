/*
 * What a command runs in: the connection, the kind of output the user wants, and how errors are
 * told. One session lives as long as the program; the shell and scripts run many commands in it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "client.h"
#include "command.h"

struct session {
    struct client *client;
    struct command_set *commands;
    const char *socket;
    const char *script; /* name of the script being read, for error messages, or NULL */
    unsigned line;      /* line number in the script */
    bool json;          /* -j: print results as JSON */
    bool terminal;      /* stdout is a terminal */
    bool colour;        /* and may show colours */
    bool shell;         /* commands come from the shell or a script */
    bool leave;         /* the shell is to end */
};

/* Understands and runs one command line; returns its exit status. Errors have been told. */
int session_run(struct session *session, char *const *words, size_t count);

/* Calls a method and returns its result (new reference). On failure tells the user, sets *status
 * and returns NULL. `params` is consumed, `timeout` in seconds. */
json_t *session_call(struct session *session, const char *method, json_t *params, int timeout,
                     int *status);

/* One error line on stderr: "routerctl: ..." or "routerctl: SCRIPT:LINE: ...". */
void session_error(const struct session *session, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Tells a failed call, all its problems included, frees it and returns its exit status. */
int session_failure(const struct session *session, struct failure *failure);

/* Prints JSON: indented on a terminal, in one line otherwise. */
void session_print_json(const struct session *session, const json_t *value);

/* The named values of a match as an object for params; numbers become integers. NULL when there are
 * none. */
json_t *match_params(const struct match *match);

/* Completes argument names from the running router and the file system; a command_names_fn with the
 * session as context. Silent when no router answers. */
void session_names(void *context, enum argument_type type, const char *partial,
                   struct candidates *out);
