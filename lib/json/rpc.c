/*
 * The registry of JSON-RPC methods: a list sorted by name.
 *
 * Filled by constructors before main(), then only read; a few dozen names do not need more than a
 * list. What can go wrong: two features claim one name. That is a mistake in the program that every
 * start shows, so it ends the program.
 */
#include "json/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct rpc_method *methods;

void rpc_register(struct rpc_method *method) {
    struct rpc_method **place = &methods;
    while (*place != NULL && strcmp((*place)->name, method->name) < 0)
        place = &(*place)->next;
    if (*place != NULL && strcmp((*place)->name, method->name) == 0) {
        fprintf(stderr, "dpdk-router: error: the JSON-RPC method %s is registered twice\n",
                method->name);
        abort();
    }
    method->next = *place;
    *place = method;
}

const struct rpc_method *rpc_find(const char *name) {
    for (const struct rpc_method *method = methods; method != NULL; method = method->next) {
        if (strcmp(method->name, name) == 0)
            return method;
    }
    return NULL;
}

const struct rpc_method *rpc_first(void) {
    return methods;
}

bool rpc_params(struct rpc_request *request, const char *const *known, struct decode *out) {
    static json_t *none; /* lives as long as the process */

    if (!none)
        none = json_object();
    *out = decode_root(request->params ? request->params : none, &request->problems);
    if (!decode_is_object(out))
        return false;
    decode_only_keys(out, known);
    return !problems_any(&request->problems);
}

json_t *rpc_result(struct rpc_request *request, json_t *result) {
    if (!result) {
        request->code = RPC_INTERNAL_ERROR;
        problems_add(&request->problems, "$", "out of memory");
    }
    return result;
}
