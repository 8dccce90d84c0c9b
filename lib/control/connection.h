/*
 * One client's conversation in JSON-RPC 2.0, without its socket: bytes in, requests carried out,
 * bytes out. The server moves the bytes; tests and the fuzzer do so by hand.
 *
 * Requests are JSON values in any framing: one per line, several on a line, or pretty-printed over
 * many lines. Every reply (for a batch: the array of replies) is one line. What is no JSON gets a
 * parse error with its position, and reading goes on after the next newline.
 *
 * A connection does a bounded amount of work per call of connection_run(), and none while too much
 * of its output is waiting to be sent, so no client can take the control thread for itself.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "control/json_scan.h"

enum {
    CONNECTION_REQUEST_MAX = 16 << 20, /* bytes of one request or batch; more ends the connection */
    CONNECTION_UNSENT_MAX = 8 << 20, /* unsent bytes of replies at which work on requests pauses */
    CONNECTION_READ_SIZE = 64 << 10, /* bytes taken from the socket at a time */
    CONNECTION_RUN_REQUESTS = 16,    /* requests (also those of a batch) in one run */
    CONNECTION_RUN_BYTES = 64 << 10, /* bytes of requests after which a run ends */
};

/* Bytes data[start..end), in memory that grows as needed. */
struct connection_bytes {
    char *data;
    size_t start;
    size_t end;
    size_t capacity;
};

struct connection {
    struct connection_bytes in;
    size_t scanned; /* offset in in.data up to which the scanner has looked */
    struct json_scan scan;
    bool skipping; /* after a mistake, until the next newline */
    bool ended;    /* no more input will come */
    bool closing;  /* refused: only the output is left to be sent */
    bool failed;   /* out of memory: to be closed at once */

    json_t *batch; /* being carried out, or NULL */
    size_t batch_next;
    bool batch_replied; /* a reply of the batch has been written */

    struct connection_bytes out;
};

void connection_init(struct connection *c);
void connection_free(struct connection *c);

/* Does the connection want more bytes now? If not: it has work left, too much unsent output, or has
 * come to its end. */
bool connection_wants_input(const struct connection *c);

/* Takes bytes from the client, to be worked on by connection_run(). At most CONNECTION_READ_SIZE at
 * a time, and only when connection_wants_input(), keeps the memory within the limits. */
void connection_feed(struct connection *c, const char *data, size_t length);

/* The client will send no more. What it sent before is still carried out. */
void connection_end_input(struct connection *c);

/* Does a bounded piece of the work at hand. */
void connection_run(struct connection *c);

/* Is there work at hand that connection_run() would go on with? */
bool connection_runnable(const struct connection *c);

/* Bytes to be sent, and the report that some of them were. */
const char *connection_output(const struct connection *c, size_t *length);
void connection_sent(struct connection *c, size_t length);

/* Is the client in the middle of a request, with the rest still to come? */
bool connection_midway(const struct connection *c);

/* Is there nothing left but to close the connection? */
bool connection_finished(const struct connection *c);

/* Sends an error reply without an id and ends the connection after it. */
void connection_refuse(struct connection *c, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
