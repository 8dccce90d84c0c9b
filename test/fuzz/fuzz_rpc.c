/*
 * Fuzzes what a client of the control socket can reach: framing, JSON-RPC, and the decoding,
 * masking and comparing of configurations. The bytes come to a connection in pieces whose sizes the
 * first byte chooses; the same bytes in one piece must yield the same replies.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config_store.h"
#include "control/connection.h"
#include "control/json_diff.h"
#include "control/json_text.h"
#include "control/secrets.h"
#include "core/log.h"
#include "core/section.h"
#include "json/decode.h"
#include "json/rpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- methods ---- */

static json_t *fuzz_echo(struct rpc_request *request) {
    return request->params ? json_incref((json_t *)(uintptr_t)request->params) : json_null();
}
RPC_METHOD(fuzz_echo, "echo", "Returns its parameters.")

static json_t *fuzz_fail(struct rpc_request *request) {
    struct decode params;
    struct decode member;
    const char *text;
    problems_add(&request->problems, "$", "always fails");
    if (request->params) {
        params = decode_root(request->params, &request->problems);
        decode_foreach_member (&params, member) {
            decode_string(&member, &text);
        }
    }
    return NULL;
}
RPC_METHOD(fuzz_fail, "fail", "Fails, with problems about its parameters.")

static json_t *fuzz_check(struct rpc_request *request) {
    struct config *config =
        request->params ? config_decode(request->params, &request->problems) : NULL;
    if (!config) {
        request->code = RPC_CONFIG_INVALID;
        problems_add(&request->problems, "$", "is wrong");
        return NULL;
    }
    config_free(config);
    return json_true();
}
RPC_METHOD(fuzz_check, "check", "Decodes its parameters as a configuration.")

/* ---- a section ---- */

static void *fuzz_decode(struct decode *d) {
    static const char *const known[] = {"key", "name", "list", NULL};
    struct decode member;
    const char *text;
    char *value = NULL;
    if (d && decode_is_object(d)) {
        decode_only_keys(d, known);
        if (decode_member(d, "key", &member) && decode_string(&member, &text)) {
            value = strdup(text);
            if (strlen(text) < 8) {
                decode_problem(&member, "\"%s\" is too short", text);
            }
        }
        if (decode_member(d, "list", &member) && decode_is_array(&member)) {
            for (size_t i = 0; i < json_array_size(member.value); i++) {
                struct decode element = decode_element(&member, i);
                uint64_t number;
                decode_uint(&element, 1, 10, &number);
            }
        }
    }
    return value;
}

static struct config_section fuzz_section = {.name = "fuzz", .decode = fuzz_decode, .free = free};
CONFIG_SECTION(fuzz_section)

/* ---- the connection ---- */

/* Feeds all of the data in pieces of at most `piece` bytes; returns all output as text. */
static char *converse(const uint8_t *data, size_t size, size_t piece) {
    struct connection c;
    connection_init(&c);
    char *output = NULL;
    size_t total = 0;
    bool ended = false;
    for (size_t at = 0; !connection_finished(&c);) {
        if (connection_runnable(&c)) {
            connection_run(&c);
        } else if (at < size && connection_wants_input(&c)) {
            size_t n = size - at < piece ? size - at : piece;
            char *block = malloc(n);
            memcpy(block, data + at, n);
            connection_feed(&c, block, n);
            free(block);
            at += n;
        } else if (!ended && connection_wants_input(&c)) {
            connection_end_input(&c);
            ended = true;
        } else {
            size_t length;
            const char *text = connection_output(&c, &length);
            if (length == 0 && !connection_finished(&c)) {
                abort(); /* nothing to do, and not at the end: a client would hang */
            }
            output = realloc(output, total + length + 1);
            memcpy(output + total, text, length);
            total += length;
            connection_sent(&c, length);
        }
    }
    if (c.failed) {
        abort();
    }
    connection_free(&c);
    output = realloc(output, total + 1);
    output[total] = '\0';
    return output;
}

/* Every line of output is a reply, or a batch of them. */
static void check_replies(const char *output) {
    while (*output) {
        const char *end = strchr(output, '\n');
        json_t *reply = end ? json_loadb(output, (size_t)(end - output), 0, NULL) : NULL;
        if (!reply || (json_is_object(reply) && !json_object_get(reply, "id"))) {
            abort();
        }
        json_decref(reply);
        output = end + 1;
    }
}

/* Documents: what decoding accepts is equal to itself, and masking leaves no secret. */
static void check_document(const char *text, size_t length) {
    struct json_fault fault;
    json_t *document = json_text_load(text, length, &fault);
    if (!document) {
        if (fault.position > length || fault.line == 0 || fault.column == 0) {
            abort();
        }
        return;
    }
    struct problems problems = {0};
    config_free(config_decode(document, &problems));
    problems_free(&problems);

    json_t *masked = secrets_masked(NULL, document);
    json_t *again = secrets_masked(NULL, masked);
    json_t *none = json_diff(document, document);
    json_t *all = json_diff(document, masked);
    json_t *back = json_diff(masked, document);
    if (!json_equal(masked, again) || json_array_size(none) != 0 ||
        (json_array_size(all) == 0) != (bool)json_equal(document, masked) ||
        (json_array_size(back) == 0) != (json_array_size(all) == 0)) {
        abort();
    }
    json_decref(all);
    json_decref(back);
    json_decref(none);
    json_decref(again);
    json_decref(masked);

    /* The halves of an array, as two versions of it. */
    if (json_is_array(document) && json_array_size(document) == 2) {
        const json_t *old = json_array_get(document, 0);
        const json_t *new = json_array_get(document, 1);
        json_t *changes = json_diff(old, new);
        if ((json_array_size(changes) == 0) != (bool)json_equal(old, new)) {
            abort();
        }
        json_decref(changes);
    }
    json_decref(document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    char *pieces = converse(data + 1, size - 1, 1 + data[0] % 32);
    char *whole = converse(data + 1, size - 1, CONNECTION_READ_SIZE);
    if (strcmp(pieces, whole) != 0) {
        abort();
    }
    check_replies(whole);
    free(pieces);
    free(whole);
    check_document((const char *)data + 1, size - 1);
    return 0;
}
