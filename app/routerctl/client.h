/*
 * A JSON-RPC 2.0 client for the router's control socket: one request at a time, one reply per line.
 *
 * The connection is made by the first call and made again when the router closed it in between, so
 * a shell survives a restart of the router. A call that fails half-way closes the connection: what
 * might still arrive on it belongs to no one.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

/* Exit statuses of the program, as documented in routerctl(1). */
enum status { STATUS_OK = 0, STATUS_ROUTER = 1, STATUS_USAGE = 2, STATUS_CONNECT = 3 };

enum { CLIENT_TIMEOUT = 30, CLIENT_TIMEOUT_SLOW = 600 };

/* Why a call failed. Free with failure_free(). */
struct failure {
    enum status status; /* STATUS_ROUTER: it answered with an error; STATUS_CONNECT: no answer */
    bool interrupted;   /* the user pressed Ctrl-C; nothing needs to be said */
    char *text;         /* one sentence */
    int code;           /* JSON-RPC error code, 0 without an answer */
    json_t *data;       /* the error's data, or NULL */
};

struct client;

/* Makes a client for this socket path, which is copied. Does not connect yet. */
struct client *client_new(const char *path);
void client_free(struct client *client);

/* Is there a connection, as far as one can tell without writing to it? */
bool client_connected(const struct client *client);

/* Calls a method. `params` (an object, or NULL for none) is consumed. `timeout` is the longest
 * silence in seconds before the call is given up. Returns the result, a new reference, or NULL with
 * *failure filled in. */
json_t *client_call(struct client *client, const char *method, json_t *params, int timeout,
                    struct failure *failure);

void failure_free(struct failure *failure);
