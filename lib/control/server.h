/*
 * The JSON-RPC server: a UNIX stream socket, its clients, and the limits that keep any one of them
 * from harming the others. What is said on a connection is connection.h's business.
 *
 * Everything runs on the control thread, from its event loop, and never blocks.
 *
 * - Each turn of the loop does a bounded piece of work per client, in rotation.
 * - A client that does not read its replies is no longer read from once CONNECTION_UNSENT_MAX bytes
 *   wait for it, and is closed after SERVER_PATIENCE_MSEC without progress. So is a client that
 *   stops in the middle of a request. A client that is merely idle may stay.
 * - A client that only closes its sending side (as `nc -N` does) still gets all its replies. One
 *   that closes entirely still has the requests carried out that it sent before.
 */
#pragma once

#include <stddef.h>

#include "core/problem.h"

enum {
    SERVER_CLIENTS_MAX = 1024,
    SERVER_PATIENCE_MSEC = 30000, /* without progress in a reply or a request */
    SERVER_LINGER_MSEC = 5000,    /* a refused client's time to finish sending and read why */
    SERVER_ACCEPTS_PER_TURN = 16,
    SERVER_SOCKET_MODE = 0660,
    SERVER_DIRECTORY_MODE = 0755,
};

struct server;

/* Listens on `path`. Missing directories are made; a socket that nobody listens on any more is
 * replaced; one that a program answers on, and anything that is no socket, is left alone and is a
 * problem. Raises the process's soft limit of open files if it is too low for all clients. NULL
 * with a problem on failure. */
struct server *server_new(const char *path, struct problems *problems);

/* Closes all connections and removes the socket. NULL is allowed. Not to be called by a method. */
void server_free(struct server *server);

/* The number of clients connected now. */
size_t server_clients(const struct server *server);
