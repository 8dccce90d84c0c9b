/*
 * A client's conversation: framing, JSON-RPC 2.0, and its limits.
 *
 * Input is scanned once, as it comes. A value found complete is parsed and carried out. Of a batch,
 * the parsed array is kept and worked off a few requests per run, its replies written as they come,
 * so that neither time nor memory is at the mercy of the batch's length.
 *
 * What can go wrong: the client's text (it gets an error reply), its size (error, then the end),
 * and memory, which ends this connection only.
 */
#include "control/connection.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/json_text.h"
#include "json/rpc.h"

enum { BYTES_KEPT = 16 << 10 }; /* memory that an idle connection may keep per direction */

/* ---- growing byte strings ---- */

/* Makes room for `more` bytes at the end. Moves at most as many bytes as have been taken from the
 * front since the last move, so the cost per byte is constant. */
static bool bytes_reserve(struct connection_bytes *b, size_t more) {
    if (b->capacity - b->end >= more) {
        return true;
    }
    size_t used = b->end - b->start;
    if (b->start < used || b->capacity - used < more) {
        size_t capacity = b->capacity ? b->capacity : 4096;
        while (capacity - b->end < more) {
            capacity *= 2;
        }
        char *data = realloc(b->data, capacity);
        if (!data) {
            return false;
        }
        b->data = data;
        b->capacity = capacity;
        return true;
    }
    memmove(b->data, b->data + b->start, used);
    b->start = 0;
    b->end = used;
    return true;
}

static bool bytes_append(struct connection_bytes *b, const char *data, size_t length) {
    if (!bytes_reserve(b, length)) {
        return false;
    }
    memcpy(b->data + b->end, data, length);
    b->end += length;
    return true;
}

static void bytes_free(struct connection_bytes *b) {
    free(b->data);
    *b = (struct connection_bytes){0};
}

static void bytes_take(struct connection_bytes *b, size_t length) {
    b->start += length;
    if (b->start == b->end) {
        b->start = b->end = 0;
        if (b->capacity > BYTES_KEPT) {
            bytes_free(b);
        }
    }
}

static size_t unsent(const struct connection *c) {
    return c->out.end - c->out.start;
}

/* ---- replies ---- */

static void write_text(struct connection *c, const char *text, size_t length) {
    if (!c->failed && !bytes_append(&c->out, text, length)) {
        c->failed = true;
    }
}

static int write_callback(const char *text, size_t length, void *context) {
    struct connection *c = context;
    write_text(c, text, length);
    return c->failed ? -1 : 0;
}

/* Writes the reply without a line end, and releases it. NULL stands for a reply that could not be
 * made for want of memory. */
static void write_reply(struct connection *c, json_t *reply) {
    if (!reply ||
        json_dump_callback(reply, write_callback, c, JSON_COMPACT | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY) != 0) {
        c->failed = true;
    }
    json_decref(reply);
}

static json_t *make_error(int code, const char *message, json_t *data, json_t *id) {
    json_t *error = json_object();
    json_object_set_new(error, "code", json_integer(code));
    json_object_set_new(error, "message", json_text_string(message));
    if (data) {
        json_object_set_new(error, "data", data);
    }
    json_t *reply = json_object();
    json_object_set_new(reply, "jsonrpc", json_string("2.0"));
    json_object_set_new(reply, "error", error);
    json_object_set(reply, "id", id);
    return reply;
}

static json_t *make_problems_error(const struct rpc_request *request, json_t *id) {
    const struct problems *problems = &request->problems;
    int code = request->code ? request->code : RPC_INVALID_PARAMS;
    if (problems->count == 0) {
        return make_error(request->code ? request->code : RPC_INTERNAL_ERROR,
                          "the method failed and did not say why", NULL, id);
    }

    json_t *list = json_array();
    for (size_t i = 0; i < problems->count; i++) {
        json_t *entry = json_object();
        json_object_set_new(entry, "path", json_text_string(problems->list[i].path));
        json_object_set_new(entry, "message", json_text_string(problems->list[i].message));
        json_array_append_new(list, entry);
    }
    json_t *data = json_object();
    json_object_set_new(data, "path", json_text_string(problems->list[0].path));
    json_object_set_new(data, "problems", list);
    if (problems->omitted > 0) {
        json_object_set_new(data, "omitted", json_integer((json_int_t)problems->omitted));
    }
    return make_error(code, problems->list[0].message, data, id);
}

/* Carries out one request. NULL when it was a notification, which gets no reply. */
static json_t *call(const json_t *request) {
    json_t *null = json_null();
    if (!json_is_object(request)) {
        return make_error(RPC_INVALID_REQUEST, "a request must be an object", NULL, null);
    }

    /* An id that can be used is echoed even when the rest is wrong: the client can then tell which
     * of its requests was refused. */
    json_t *id = json_object_get(request, "id");
    bool id_valid = !id || json_is_string(id) || json_is_number(id) || json_is_null(id);
    json_t *reply_id = id && id_valid ? id : null;

    const char *mistake = NULL;
    const json_t *version = json_object_get(request, "jsonrpc");
    const json_t *name = json_object_get(request, "method");
    const json_t *params = json_object_get(request, "params");
    if (!json_is_string(version) || strcmp(json_string_value(version), "2.0") != 0) {
        mistake = "\"jsonrpc\" must be \"2.0\"";
    } else if (!json_is_string(name)) {
        mistake = "\"method\" must be a string";
    } else if (params && !json_is_object(params) && !json_is_array(params)) {
        mistake = "\"params\" must be an object or an array";
    } else if (!id_valid) {
        mistake = "\"id\" must be a string, a number or null";
    }
    if (mistake) {
        return make_error(RPC_INVALID_REQUEST, mistake, NULL, reply_id);
    }

    const struct rpc_method *method = rpc_find(json_string_value(name));
    if (!method) {
        if (!id) {
            return NULL;
        }
        char message[160];
        snprintf(message, sizeof(message), "there is no method \"%.80s\"; system.methods lists all",
                 json_string_value(name));
        return make_error(RPC_METHOD_NOT_FOUND, message, NULL, reply_id);
    }

    struct rpc_request rpc = {.params = params};
    json_t *result = method->call(&rpc);
    json_t *reply = NULL;
    if (!id) {
        json_decref(result);
    } else if (result) {
        reply = json_object();
        json_object_set_new(reply, "jsonrpc", json_string("2.0"));
        json_object_set_new(reply, "result", result);
        json_object_set(reply, "id", reply_id);
    } else {
        reply = make_problems_error(&rpc, reply_id);
    }
    problems_free(&rpc.problems);
    return reply;
}

static void drop_input(struct connection *c) {
    bytes_free(&c->in);
    c->scanned = 0;
    json_scan_init(&c->scan);
}

void connection_refuse(struct connection *c, int code, const char *format, ...) {
    char message[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    write_reply(c, make_error(code, message, NULL, json_null()));
    write_text(c, "\n", 1);
    c->closing = true;
    json_decref(c->batch);
    c->batch = NULL;
    drop_input(c);
}

static void reply_fault(struct connection *c, int code, const struct json_fault *fault) {
    char message[300];
    snprintf(message, sizeof(message), "%s at line %zu, column %zu of the request", fault->text,
             fault->line, fault->column);
    json_t *data = json_object();
    json_object_set_new(data, "position", json_integer((json_int_t)fault->position));
    json_object_set_new(data, "line", json_integer((json_int_t)fault->line));
    json_object_set_new(data, "column", json_integer((json_int_t)fault->column));
    write_reply(c, make_error(code, message, data, json_null()));
    write_text(c, "\n", 1);
}

/* ---- input ---- */

void connection_init(struct connection *c) {
    memset(c, 0, sizeof(*c));
    json_scan_init(&c->scan);
}

void connection_free(struct connection *c) {
    bytes_free(&c->in);
    bytes_free(&c->out);
    json_decref(c->batch);
    c->batch = NULL;
}

static bool has_work(const struct connection *c) {
    return !c->closing && (c->batch || c->scanned < c->in.end || (c->ended && c->scan.begun));
}

bool connection_wants_input(const struct connection *c) {
    return !c->ended && !c->closing && !has_work(c) && unsent(c) < CONNECTION_UNSENT_MAX;
}

void connection_feed(struct connection *c, const char *data, size_t length) {
    if (c->closing || c->ended) {
        return;
    }
    size_t ahead = c->scanned - c->in.start;
    if (!bytes_append(&c->in, data, length)) {
        c->failed = true;
    }
    c->scanned = c->in.start + ahead; /* the bytes may have moved to the front */
}

void connection_end_input(struct connection *c) {
    c->ended = true;
}

/* The first `length` bytes of the input are done with. */
static void take_input(struct connection *c, size_t length) {
    size_t ahead = c->scanned - c->in.start - length;
    bytes_take(&c->in, length);
    c->scanned = c->in.start + ahead;
}

bool connection_midway(const struct connection *c) {
    return !c->closing && !c->ended && c->scan.begun && !has_work(c);
}

bool connection_finished(const struct connection *c) {
    return c->failed || ((c->ended || c->closing) && !has_work(c) && unsent(c) == 0);
}

const char *connection_output(const struct connection *c, size_t *length) {
    *length = unsent(c);
    return c->out.data ? c->out.data + c->out.start : "";
}

void connection_sent(struct connection *c, size_t length) {
    bytes_take(&c->out, length);
}

/* The scanner stopped at a byte that cannot be right: c->scanned is its place. */
static void refuse_text(struct connection *c, enum json_scan_status status) {
    struct json_fault fault;
    const char *text = c->in.data + c->in.start;
    json_fault_locate(&fault, text, c->scanned - c->in.start);
    if (status == JSON_SCAN_TOO_DEEP) {
        snprintf(fault.text, sizeof(fault.text), "nested deeper than %d levels",
                 JSON_SCAN_MAX_DEPTH);
        reply_fault(c, RPC_TOO_LARGE, &fault);
    } else {
        json_fault_unexpected(&fault, text, c->in.end - c->in.start, c->scan.expected);
        reply_fault(c, RPC_PARSE_ERROR, &fault);
    }
    c->skipping = true;
    json_scan_init(&c->scan);
    take_input(c, c->scanned - c->in.start);
}

static void refuse_size(struct connection *c) {
    connection_refuse(c, RPC_TOO_LARGE, "the request is longer than %d bytes",
                      CONNECTION_REQUEST_MAX);
}

/* Input [start, scanned) is one whole value. */
static void handle_value(struct connection *c) {
    size_t length = c->scanned - c->in.start;
    if (length > CONNECTION_REQUEST_MAX) {
        refuse_size(c);
        return;
    }
    struct json_fault fault;
    const char *text = c->in.data + c->in.start;
    bool bare = *text != '{' && *text != '[';
    json_scan_init(&c->scan);
    json_t *value = json_text_parse(text, length, &fault);
    take_input(c, length);
    if (!value) {
        reply_fault(c, RPC_PARSE_ERROR, &fault);
        /* Brackets and quotes told for sure where an object or array ends, but a bad word says
         * nothing about what its line is made of. */
        c->skipping = bare;
    } else if (json_is_array(value) && json_array_size(value) > 0) {
        c->batch = value;
        c->batch_next = 0;
        c->batch_replied = false;
    } else if (json_is_array(value)) {
        write_reply(c, make_error(RPC_INVALID_REQUEST, "a batch must hold at least one request",
                                  NULL, json_null()));
        write_text(c, "\n", 1);
        json_decref(value);
    } else {
        json_t *reply = call(value);
        if (reply) {
            write_reply(c, reply);
            write_text(c, "\n", 1);
        }
        json_decref(value);
    }
}

/* Carries out the next request of the batch. */
static void run_batch(struct connection *c) {
    json_t *reply = call(json_array_get(c->batch, c->batch_next++));
    if (reply) {
        write_text(c, c->batch_replied ? "," : "[", 1);
        write_reply(c, reply);
        c->batch_replied = true;
    }
    if (c->batch_next == json_array_size(c->batch)) {
        if (c->batch_replied) { /* JSON-RPC section 6: no reply at all to notifications only */
            write_text(c, "]\n", 2);
        }
        json_decref(c->batch);
        c->batch = NULL;
    }
}

/* Drops what need not be looked at: the rest of a bad line, and white space between values. */
static void skip_input(struct connection *c) {
    size_t waiting = c->in.end - c->scanned;
    if (c->skipping) {
        const char *from = c->in.data + c->scanned;
        const char *newline = waiting ? memchr(from, '\n', waiting) : NULL;
        c->skipping = !newline;
        c->scanned += newline ? (size_t)(newline - from) + 1 : waiting;
        take_input(c, c->scanned - c->in.start);
    }
    if (!c->skipping && !c->scan.begun) {
        while (c->scanned < c->in.end && json_scan_is_space(c->in.data[c->scanned])) {
            c->scanned++;
        }
        take_input(c, c->scanned - c->in.start);
    }
}

/* Looks at the waiting input up to the end of the next value and carries that out. Returns the
 * number of bytes looked at. */
static size_t run_input(struct connection *c) {
    size_t waiting = c->in.end - c->scanned;
    skip_input(c);
    size_t used = 0;
    enum json_scan_status status = JSON_SCAN_MORE;
    if (c->scanned < c->in.end) {
        status = json_scan_feed(&c->scan, c->in.data + c->scanned, c->in.end - c->scanned, &used);
        c->scanned += used;
    } else if (c->ended) {
        status = json_scan_end(&c->scan);
    }
    switch (status) {
    case JSON_SCAN_MORE:
        if (c->scanned - c->in.start > CONNECTION_REQUEST_MAX) {
            refuse_size(c);
        }
        return waiting;
    case JSON_SCAN_VALUE:
        used = c->scanned - c->in.start; /* parsing costs more than scanning: count all of it */
        handle_value(c);
        return used;
    case JSON_SCAN_ERROR:
    case JSON_SCAN_TOO_DEEP:
    default:
        refuse_text(c, status);
        return used;
    }
}

bool connection_runnable(const struct connection *c) {
    return !c->failed && has_work(c) && unsent(c) < CONNECTION_UNSENT_MAX;
}

void connection_run(struct connection *c) {
    size_t bytes = 0;
    for (unsigned i = 0; i < CONNECTION_RUN_REQUESTS && bytes < CONNECTION_RUN_BYTES; i++) {
        if (!connection_runnable(c)) {
            break;
        }
        if (c->batch) {
            run_batch(c);
        } else {
            bytes += run_input(c);
        }
    }
}
