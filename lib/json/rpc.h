/*
 * The registry of JSON-RPC methods. A feature's *_rpc.c registers its methods; the server in
 * lib/control finds them by name. Methods run on the control thread.
 */
#pragma once

#include <jansson.h> /* *_rpc.c files and lib/control only */

#include "core/problem.h"
#include "json/decode.h"

struct rpc_request {
    const json_t *params;     /* the request's params: an object, an array, or NULL */
    struct problems problems; /* what is wrong; the server turns the first into error.data.path */
    int code;                 /* JSON-RPC error code to use when problems exist; 0 = -32602 */
};

/* Returns the result (a new reference), or NULL with at least one problem in the request. */
typedef json_t *(*rpc_method_fn)(struct rpc_request *request);

struct rpc_method {
    const char *name;    /* "route.list" */
    const char *summary; /* one sentence for system.methods and the documentation */
    rpc_method_fn call;
    struct rpc_method *next; /* managed by the registry */
};

/* JSON-RPC 2.0 section 5.1, and the application's own codes. */
enum rpc_error {
    RPC_PARSE_ERROR = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_METHOD_NOT_FOUND = -32601,
    RPC_INVALID_PARAMS = -32602,
    RPC_INTERNAL_ERROR = -32603,
    RPC_NOT_FOUND = -32001,      /* a named object does not exist */
    RPC_CONFLICT = -32002,       /* it exists already, or the state does not allow it now */
    RPC_CONFIG_INVALID = -32003, /* the configuration has mistakes: data.problems lists them all */
    RPC_CONFIG_FAILED = -32004,  /* a valid configuration could not be put to work */
    RPC_TOO_LARGE = -32005,      /* request over the stated limit */
};

/* Adds the method; the structure must live for the whole process. A name that is taken ends the
 * program with a message. */
void rpc_register(struct rpc_method *method);
/* The method of that name, or NULL. */
const struct rpc_method *rpc_find(const char *name);
const struct rpc_method *rpc_first(void); /* iterate with ->next, sorted by name */

/* The request's params as an object (an empty one when absent) whose keys are all in the
 * NULL-terminated list. False with problems otherwise. */
bool rpc_params(struct rpc_request *request, const char *const *known, struct decode *out);

/* Passes a method's result on; NULL, which means that memory is out, becomes a problem. */
json_t *rpc_result(struct rpc_request *request, json_t *result);

/* Registers a method at program start: RPC_METHOD(route_list, "route.list", "Lists routes."); calls
 * `static json_t *route_list(struct rpc_request *)`. */
#define RPC_METHOD(fn, method_name, text)                              \
    static struct rpc_method rpc_method_##fn = {                       \
        .name = (method_name), .summary = (text), .call = (fn)};       \
    __attribute__((constructor)) static void rpc_register_##fn(void) { \
        rpc_register(&rpc_method_##fn);                                \
    }
