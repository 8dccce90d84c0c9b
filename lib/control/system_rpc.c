/*
 * The methods about the program itself: system.info, system.methods, log.list.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "control/config_store.h"
#include "control/control_internal.h"
#include "control/json_text.h"
#include "core/event.h"
#include "core/log.h"
#include "json/decode.h"
#include "json/rpc.h"

static const char *const no_params[] = {NULL};

static json_t *or_out_of_memory(struct rpc_request *request, json_t *result) {
    if (!result) {
        request->code = RPC_INTERNAL_ERROR;
        problems_add(&request->problems, "$", "out of memory");
    }
    return result;
}

static json_t *system_info(struct rpc_request *request) {
    struct decode params;
    if (!rpc_params(request, no_params, &params)) {
        return NULL;
    }
    const struct control_facts *facts = control_facts();
    json_t *workers = json_array();
    for (size_t i = 0; i < facts->worker_count; i++) {
        json_array_append_new(workers, json_integer(facts->workers[i]));
    }
    int64_t remaining = config_store_confirm_remaining();
    json_t *info =
        json_pack("{s:s, s:s, s:s, s:i, s:f, s:o, s:i, s:o, s:o}", "name", "dpdk-router", "version",
                  facts->version, "dpdk", facts->dpdk_version, "pid", (int)getpid(),
                  "uptime_seconds", (double)(event_now() - facts->start_msec) / 1000, "config_file",
                  json_text_string(facts->config_file), "control_lcore", (int)facts->control_lcore,
                  "workers", workers, "confirm_remaining_seconds",
                  remaining < 0 ? json_null() : json_real((double)remaining / 1000));
    return or_out_of_memory(request, info);
}
RPC_METHOD(system_info, "system.info", "Tells what runs, since when, and on which lcores.")

static json_t *system_methods(struct rpc_request *request) {
    struct decode params;
    if (!rpc_params(request, no_params, &params)) {
        return NULL;
    }
    json_t *list = json_array();
    for (const struct rpc_method *method = rpc_first(); method; method = method->next) {
        json_array_append_new(
            list, json_pack("{s:s, s:s}", "name", method->name, "summary", method->summary));
    }
    return or_out_of_memory(request, list);
}
RPC_METHOD(system_methods, "system.methods", "Lists all methods.")

/* RFC 3339, in UTC. */
static json_t *time_text(uint64_t usec) {
    time_t seconds = (time_t)(usec / 1000000);
    struct tm parts;
    char date[32];
    char text[64];
    gmtime_r(&seconds, &parts);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text, sizeof(text), "%s.%06" PRIu64 "Z", date, usec % 1000000);
    return json_string(text);
}

static json_t *log_list(struct rpc_request *request) {
    static const char *const known[] = {"after", "limit", NULL};
    struct decode params;
    struct decode member;
    uint64_t after = 0;
    uint32_t limit = LOG_RING_LINES;
    if (!rpc_params(request, known, &params)) {
        return NULL;
    }
    bool valid =
        !decode_member(&params, "after", &member) || decode_uint(&member, 0, INT64_MAX, &after);
    if (!decode_member_u32(&params, "limit", 1, LOG_RING_LINES, &limit) || !valid) {
        return NULL;
    }
    struct log_line *lines = calloc(limit, sizeof(*lines));
    if (!lines) {
        return or_out_of_memory(request, NULL);
    }
    size_t count = log_read(after, lines, limit);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(
            list, json_pack("{s:I, s:o, s:s, s:o, s:o}", "sequence", (json_int_t)lines[i].sequence,
                            "time", time_text(lines[i].time_usec), "level",
                            log_level_name(lines[i].level), "area", json_text_string(lines[i].area),
                            "text", json_text_string(lines[i].text)));
    }
    free(lines);
    return or_out_of_memory(request, list);
}
RPC_METHOD(log_list, "log.list",
           "Returns remembered log lines, oldest first, from after the sequence number `after`.")
