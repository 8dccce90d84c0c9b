/*
 * The config.* methods: a thin layer over the configuration store.
 *
 * Problems in a configuration have paths that start at the configuration itself ($.routes[1].via),
 * so that they read the same here, in `dpdk-router --check` and in the log.
 */
#include "control/config_store.h"
#include "control/control_internal.h"
#include "control/json_diff.h"
#include "control/json_text.h"
#include "control/secrets.h"
#include "json/decode.h"
#include "json/rpc.h"

static json_t *out_of_memory(struct rpc_request *request) {
    request->code = RPC_INTERNAL_ERROR;
    problems_add(&request->problems, "$", "out of memory");
    return NULL;
}

/* The result for `result`: `success` (taken over), or NULL with the error's code. */
static json_t *conclude(struct rpc_request *request, enum config_result result, json_t *success) {
    if (result == CONFIG_DONE) {
        return success ? success : out_of_memory(request);
    }
    json_decref(success);
    request->code = result == CONFIG_INVALID    ? RPC_CONFIG_INVALID
                    : result == CONFIG_CONFLICT ? RPC_CONFLICT
                                                : RPC_CONFIG_FAILED;
    return NULL;
}

static const char *const no_params[] = {NULL};
static const char *const config_params[] = {"config", NULL};

/* The required parameter "config", and no other. */
static bool config_param(struct rpc_request *request, struct decode *config) {
    struct decode params;
    return rpc_params(request, config_params, &params) &&
           decode_required(&params, "config", config);
}

static json_t *config_get(struct rpc_request *request) {
    struct decode params;
    if (!rpc_params(request, no_params, &params)) {
        return NULL;
    }
    json_t *document = config_store_document();
    json_t *masked = document ? secrets_masked(NULL, document) : NULL;
    json_decref(document);
    return masked ? masked : out_of_memory(request);
}
RPC_METHOD(config_get, "config.get", "Returns the configuration in force, without its secrets.")

static json_t *config_check_(struct rpc_request *request) {
    struct decode config;
    if (!config_param(request, &config)) {
        return NULL;
    }
    struct config *decoded = config_decode(config.value, &request->problems);
    if (!decoded) {
        return conclude(request, CONFIG_INVALID, NULL);
    }
    config_free(decoded);
    return conclude(request, CONFIG_DONE, json_pack("{s:b}", "valid", 1));
}
RPC_METHOD(config_check_, "config.check", "Checks a configuration and names all its problems.")

static json_t *config_diff(struct rpc_request *request) {
    struct decode config;
    if (!config_param(request, &config)) {
        return NULL;
    }
    json_t *running = config_store_document();
    json_t *changes = running ? json_diff(running, config.value) : NULL;
    json_decref(running);
    return changes ? json_pack("{s:o}", "changes", changes) : out_of_memory(request);
}
RPC_METHOD(config_diff, "config.diff",
           "Lists the changes that lead from the configuration in force to another.")

static json_t *config_apply(struct rpc_request *request) {
    static const char *const known[] = {"config", "confirm_timeout", NULL};
    struct decode params;
    struct decode config;
    uint32_t timeout = 0;
    if (!rpc_params(request, known, &params) || !decode_required(&params, "config", &config) ||
        !decode_member_u32(&params, "confirm_timeout", 1, CONFIG_CONFIRM_MAX, &timeout)) {
        return NULL;
    }
    size_t changes = 0;
    enum config_result result =
        config_store_apply(config.value, timeout, &changes, &request->problems);
    if (result != CONFIG_DONE) {
        return conclude(request, result, NULL);
    }
    bool pending = config_store_confirm_remaining() >= 0;
    return conclude(request, result,
                    json_pack("{s:I, s:o}", "changes", (json_int_t)changes, "confirm_timeout",
                              pending ? json_integer(timeout) : json_null()));
}
RPC_METHOD(config_apply, "config.apply",
           "Puts a configuration in force, all of it or none; with confirm_timeout (seconds) it is "
           "rolled back unless config.confirm follows in time.")

static json_t *config_confirm(struct rpc_request *request) {
    struct decode params;
    if (!rpc_params(request, no_params, &params)) {
        return NULL;
    }
    enum config_result result = config_store_confirm(&request->problems);
    return conclude(request, result, json_object());
}
RPC_METHOD(config_confirm, "config.confirm", "Keeps the configuration that waits for confirmation.")

static json_t *config_rollback(struct rpc_request *request) {
    struct decode params;
    if (!rpc_params(request, no_params, &params)) {
        return NULL;
    }
    enum config_result result = config_store_rollback(&request->problems);
    return conclude(request, result, json_object());
}
RPC_METHOD(config_rollback, "config.rollback", "Puts the previous configuration in force again.")

static json_t *config_save(struct rpc_request *request) {
    static const char *const known[] = {"file", NULL};
    struct decode params;
    struct decode file;
    const char *path = control_facts()->config_file;
    if (!rpc_params(request, known, &params)) {
        return NULL;
    }
    if (decode_member(&params, "file", &file)) {
        if (!decode_string(&file, &path)) {
            return NULL;
        }
        if (path[0] != '/') {
            /* The client's working directory is not the router's. */
            decode_problem(&file, "expected an absolute path, which starts with /");
            return NULL;
        }
    }
    enum config_result result = config_store_save(path, &request->problems);
    return conclude(request, result,
                    result == CONFIG_DONE ? json_pack("{s:o}", "file", json_text_string(path))
                                          : NULL);
}
RPC_METHOD(config_save, "config.save",
           "Writes the configuration in force to its file, or to another.")
