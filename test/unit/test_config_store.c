/*
 * The configuration store with two made-up sections: a pool that holds a number of things, and
 * tunnels with keys, which must name a pool of at least their number.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/config_file.h"
#include "control/config_store.h"
#include "control/control.h"
#include "control/json_diff.h"
#include "control/secrets.h"
#include "core/event.h"
#include "core/log.h"
#include "core/section.h"
#include "json/decode.h"
#include "json/rpc.h"

/* ---- the made-up sections ---- */

static bool device_gone;        /* the pool's prepare() fails */
static unsigned preparing_msec; /* how long it takes */
static uint32_t size_in_force;
static size_t tunnels_in_force;

static void *pool_decode(struct decode *d);
static void pool_commit(const struct config *old, const struct config *new);
static int pool_prepare(const struct config *old, const struct config *new,
                        struct problems *problems);

static struct config_section pool = {.name = "pool",
                                     .decode = pool_decode,
                                     .prepare = pool_prepare,
                                     .commit = pool_commit,
                                     .free = free};
CONFIG_SECTION(pool)

static void *pool_decode(struct decode *d) {
    static const char *const known[] = {"size", NULL};
    uint32_t *size = malloc(sizeof(*size));
    *size = 10;
    if (d && decode_is_object(d)) {
        decode_only_keys(d, known);
        decode_member_u32(d, "size", 1, 1000, size);
    }
    return size;
}

static int pool_prepare(const struct config *old, const struct config *new,
                        struct problems *problems) {
    usleep(preparing_msec * 1000);
    (void)old;
    (void)new;
    if (device_gone) {
        problems_add(problems, "$.pool", "the device is gone");
        return -ENODEV;
    }
    return 0;
}

static void pool_commit(const struct config *old, const struct config *new) {
    (void)old;
    size_in_force = *(uint32_t *)config_value(new, &pool);
}

static void *tunnels_decode(struct decode *d) {
    static const char *const known[] = {"name", "key", "note", NULL};
    size_t *count = calloc(1, sizeof(*count));
    if (!d || !decode_is_array(d)) {
        return count;
    }
    *count = json_array_size(d->value);
    for (size_t i = 0; i < *count; i++) {
        struct decode tunnel = decode_element(d, i);
        struct decode key;
        const char *text;
        if (decode_is_object(&tunnel)) {
            decode_only_keys(&tunnel, known);
            if (decode_required(&tunnel, "key", &key) && decode_string(&key, &text) &&
                text[strspn(text, "0123456789abcdef")]) {
                /* The careless message that the store must clean up. */
                decode_problem(&key, "\"%s\" is not hexadecimal", text);
            }
        }
    }
    return count;
}

static const char *const tunnels_after[] = {"pool", NULL};
static void tunnels_check(const struct config *config, struct problems *problems);
static void tunnels_commit(const struct config *old, const struct config *new);
static struct config_section tunnels = {.name = "tunnels",
                                        .after = tunnels_after,
                                        .decode = tunnels_decode,
                                        .check = tunnels_check,
                                        .commit = tunnels_commit,
                                        .free = free};
CONFIG_SECTION(tunnels)

static void tunnels_check(const struct config *config, struct problems *problems) {
    size_t count = *(size_t *)config_value(config, &tunnels);
    if (count > *(uint32_t *)config_value(config, &pool)) {
        problems_add(problems, "$.tunnels", "there are more tunnels than the pool holds");
    }
}

static void tunnels_commit(const struct config *old, const struct config *new) {
    (void)old;
    tunnels_in_force = *(size_t *)config_value(new, &tunnels);
}

/* ---- helpers ---- */

static char directory[64];

static char *in_directory(const char *name) {
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
    return path;
}

static int setup(void **state) {
    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    device_gone = false;
    size_in_force = 0;
    tunnels_in_force = 0;
    strcpy(directory, "/tmp/test_config_store.XXXXXX");
    return mkdtemp(directory) && event_init() == 0 ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    control_stop();
    event_free();
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

static json_t *json(const char *text) {
    json_error_t error;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &error);
    if (!value) {
        fail_msg("%s: %s", text, error.text);
    }
    return value;
}

/* Applies a document; returns the result, and the first problem's "path: message" in `problem`. */
static char problem[512];
static enum config_result apply(const char *text, uint32_t seconds) {
    struct problems problems = {0};
    json_t *document = json(text);
    enum config_result result = config_store_apply(document, seconds, NULL, &problems);
    json_decref(document);
    problem[0] = '\0';
    if (problems.count > 0) {
        snprintf(problem, sizeof(problem), "%s: %s", problems.list[0].path,
                 problems.list[0].message);
    }
    assert_int_equal(result == CONFIG_DONE, problems.count == 0);
    problems_free(&problems);
    return result;
}

static enum config_result simple(enum config_result (*function)(struct problems *)) {
    struct problems problems = {0};
    enum config_result result = function(&problems);
    assert_int_equal(result == CONFIG_DONE, problems.count == 0);
    problems_free(&problems);
    return result;
}

static void wait_seconds(unsigned seconds) {
    event_advance((uint64_t)seconds * 1000);
    event_turn(0);
}

/* Calls a method; returns its result or, on failure, {"code", "problems":[...]}. */
static json_t *call(const char *method, const char *params) {
    const struct rpc_method *found = rpc_find(method);
    assert_non_null(found);
    json_t *value = params ? json(params) : NULL;
    struct rpc_request request = {.params = value};
    json_t *result = found->call(&request);
    if (!result) {
        assert_true(request.problems.count > 0);
        json_t *list = json_array();
        for (size_t i = 0; i < request.problems.count; i++) {
            char line[512];
            snprintf(line, sizeof(line), "%s: %s", request.problems.list[i].path,
                     request.problems.list[i].message);
            json_array_append_new(list, json_string(line));
        }
        result = json_pack("{s:i, s:o}", "code", request.code, "problems", list);
    }
    problems_free(&request.problems);
    json_decref(value);
    return result;
}

/* The call's result, as compact text with sorted keys, must be `expected`. */
static void expect_call(const char *method, const char *params, const char *expected) {
    json_t *result = call(method, params);
    char *text = json_dumps(result, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text, expected);
    free(text);
    json_decref(result);
}

static void expect_diff(const char *old, const char *new, const char *expected) {
    json_t *before = json(old);
    json_t *after = json(new);
    json_t *changes = json_diff(before, after);
    char text[4096] = "";
    size_t i;
    json_t *change;
    json_array_foreach (changes, i, change) {
        char *left = json_dumps(json_object_get(change, "old"), JSON_COMPACT | JSON_ENCODE_ANY);
        char *right = json_dumps(json_object_get(change, "new"), JSON_COMPACT | JSON_ENCODE_ANY);
        size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used, "%s%s %s", used ? "; " : "",
                 json_string_value(json_object_get(change, "action")),
                 json_string_value(json_object_get(change, "path")));
        used = strlen(text);
        snprintf(text + used, sizeof(text) - used, "%s%s%s%s", left ? " " : "", left ? left : "",
                 right ? " -> " : "", right ? right : "");
        free(left);
        free(right);
    }
    assert_string_equal(text, expected);
    json_decref(changes);
    json_decref(before);
    json_decref(after);
}

static void write_bytes(const char *path, const char *text, size_t length) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, length), (ssize_t)length);
    close(fd);
}

static void write_file(const char *path, const char *text) {
    write_bytes(path, text, strlen(text));
}

static char *read_file(const char *path) {
    static char text[4096];
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    ssize_t length = read(fd, text, sizeof(text) - 1);
    assert_true(length >= 0);
    text[length] = '\0';
    close(fd);
    return text;
}

/* ---- decoding ---- */

static void test_decode_reports_everything(void **state) {
    (void)state;
    expect_call("config.check",
                "{\"config\": {\"pools\": {}, \"pool\": {\"size\": 0, \"x\": 1}, "
                "\"tunnels\": [{}, 7]}}",
                "{\"code\":-32003,\"problems\":["
                "\"$.pools: unknown key `pools`; did you mean `pool`?\","
                "\"$.pool.x: unknown key `x`\","
                "\"$.pool.size: expected an integer from 1 to 1000, found 0\","
                "\"$.tunnels[0]: `key` is required\","
                "\"$.tunnels[1]: expected an object, found an integer\"]}");
    expect_call("config.check", "{\"config\": []}",
                "{\"code\":-32003,\"problems\":[\"$: expected an object, found an array\"]}");
}

static void test_check_across_sections(void **state) {
    (void)state;
    /* An unknown key elsewhere does not hide what the check finds... */
    expect_call("config.check",
                "{\"config\": {\"zzzzz\": 1, \"pool\": {\"size\": 1}, "
                "\"tunnels\": [{\"key\": \"aa\"}, {\"key\": \"bb\"}]}}",
                "{\"code\":-32003,\"problems\":[\"$.zzzzz: unknown key `zzzzz`\","
                "\"$.tunnels: there are more tunnels than the pool holds\"]}");
    /* ... but a broken pool is not held against the tunnels. */
    json_t *result = call("config.check", "{\"config\": {\"pool\": {\"size\": true}, "
                                          "\"tunnels\": [{\"key\": \"aa\"}]}}");
    assert_int_equal(json_array_size(json_object_get(result, "problems")), 1);
    json_decref(result);
    expect_call("config.check", "{\"config\": {}}", "{\"valid\":true}");
}

/* ---- applying ---- */

static void test_apply(void **state) {
    (void)state;
    assert_null(config_store_running());
    assert_int_equal(apply("{\"pool\": {\"size\": 5}}", 0), CONFIG_DONE);
    assert_int_equal(size_in_force, 5);
    assert_int_equal(*(uint32_t *)config_value(config_store_running(), &pool), 5);
    assert_int_equal(apply("{}", 0), CONFIG_DONE);
    assert_int_equal(size_in_force, 10);
    expect_call("config.get", NULL, "{}");
}

static void test_failures_leave_all_as_it_was(void **state) {
    (void)state;
    assert_int_equal(apply("{\"pool\": {\"size\": 5}}", 0), CONFIG_DONE);
    assert_int_equal(apply("{\"pool\": {\"size\": 5000}}", 0), CONFIG_INVALID);
    assert_string_equal(problem, "$.pool.size: expected an integer from 1 to 1000, found 5000");
    device_gone = true;
    assert_int_equal(apply("{\"pool\": {\"size\": 6}, \"tunnels\": [{\"key\": \"aa\"}]}", 60),
                     CONFIG_FAILED);
    assert_string_equal(problem, "$.pool: the device is gone");
    assert_int_equal(size_in_force, 5);
    assert_int_equal(tunnels_in_force, 0);
    assert_int_equal(config_store_confirm_remaining(), -1);
    expect_call("config.get", NULL, "{\"pool\":{\"size\":5}}");
    assert_int_equal(simple(config_store_rollback), CONFIG_CONFLICT);
}

static void test_confirm_timeout_rolls_back(void **state) {
    (void)state;
    assert_int_equal(apply("{\"pool\": {\"size\": 1}}", 0), CONFIG_DONE);
    assert_int_equal(apply("{\"pool\": {\"size\": 2}}", 60), CONFIG_DONE);
    assert_int_equal(size_in_force, 2);
    wait_seconds(59);
    assert_int_equal(size_in_force, 2);
    assert_in_range(config_store_confirm_remaining(), 1, 1000);
    wait_seconds(1);
    assert_int_equal(size_in_force, 1);
    assert_int_equal(config_store_confirm_remaining(), -1);
    expect_call("config.get", NULL, "{\"pool\":{\"size\":1}}");
    /* The unconfirmed one does not come back. */
    assert_int_equal(simple(config_store_rollback), CONFIG_CONFLICT);
    assert_int_equal(simple(config_store_confirm), CONFIG_CONFLICT);
}

/* The time to confirm is not spent on applying. */
static void apply_slowly(struct event_timer *timer) {
    (void)timer;
    preparing_msec = 1000;
    assert_int_equal(apply("{\"pool\": {\"size\": 2}}", 3), CONFIG_DONE);
    preparing_msec = 0;
}

static void test_confirm_timeout_begins_when_it_is_applied(void **state) {
    struct event_timer timer = {.expired = apply_slowly};

    (void)state;
    assert_int_equal(apply("{\"pool\": {\"size\": 1}}", 0), CONFIG_DONE);
    event_timer_start(&timer, 0);
    while (size_in_force == 1)
        event_turn(1);
    assert_in_range(config_store_confirm_remaining(), 2100, 3000);
    assert_int_equal(simple(config_store_confirm), CONFIG_DONE);
}

static void test_confirm(void **state) {
    (void)state;
    assert_int_equal(apply("{\"pool\": {\"size\": 1}}", 0), CONFIG_DONE);
    assert_int_equal(apply("{\"pool\": {\"size\": 2}}", 60), CONFIG_DONE);
    assert_int_equal(simple(config_store_confirm), CONFIG_DONE);
    assert_int_equal(simple(config_store_confirm), CONFIG_CONFLICT);
    wait_seconds(100);
    assert_int_equal(size_in_force, 2);
    assert_int_equal(simple(config_store_rollback), CONFIG_DONE);
    assert_int_equal(size_in_force, 1);
}

static void test_second_apply_keeps_the_good_target(void **state) {
    (void)state;
    assert_int_equal(apply("{\"pool\": {\"size\": 1}}", 0), CONFIG_DONE);
    assert_int_equal(apply("{\"pool\": {\"size\": 2}}", 60), CONFIG_DONE);
    wait_seconds(50);
    assert_int_equal(apply("{\"pool\": {\"size\": 3}}", 60), CONFIG_DONE);
    wait_seconds(50); /* the first timer would have fired */
    assert_int_equal(size_in_force, 3);
    wait_seconds(10);
    assert_int_equal(size_in_force, 1);

    /* A failed apply leaves the pending one and its timer alone. */
    assert_int_equal(apply("{\"pool\": {\"size\": 2}}", 60), CONFIG_DONE);
    assert_int_equal(apply("{\"pool\": {\"size\": 0}}", 600), CONFIG_INVALID);
    assert_in_range(config_store_confirm_remaining(), 50000, 60000);

    /* An apply without a timeout is final; going back still means the good one. */
    assert_int_equal(apply("{\"pool\": {\"size\": 4}}", 0), CONFIG_DONE);
    wait_seconds(100);
    assert_int_equal(size_in_force, 4);
    assert_int_equal(simple(config_store_rollback), CONFIG_DONE);
    assert_int_equal(size_in_force, 1);
}

static void test_rollback_while_pending(void **state) {
    (void)state;
    assert_int_equal(apply("{\"pool\": {\"size\": 1}}", 0), CONFIG_DONE);
    assert_int_equal(apply("{\"pool\": {\"size\": 2}}", 60), CONFIG_DONE);
    assert_int_equal(simple(config_store_rollback), CONFIG_DONE);
    assert_int_equal(size_in_force, 1);
    assert_int_equal(config_store_confirm_remaining(), -1);
}

static void test_nothing_to_go_back_to(void **state) {
    (void)state;
    assert_int_equal(apply("{\"pool\": {\"size\": 1}}", 60), CONFIG_DONE); /* the first */
    assert_int_equal(config_store_confirm_remaining(), -1);
    assert_int_equal(apply("{\"pool\": {\"size\": 2}}", 0), CONFIG_DONE);
    assert_int_equal(apply("{\"pool\": {\"size\": 2}}", 60), CONFIG_DONE); /* no changes */
    assert_int_equal(config_store_confirm_remaining(), -1);
    wait_seconds(100);
    assert_int_equal(size_in_force, 2);
    assert_int_equal(simple(config_store_rollback), CONFIG_DONE);
    assert_int_equal(size_in_force, 1);
}

static void test_failed_rollback_is_tried_again(void **state) {
    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    assert_int_equal(apply("{\"pool\": {\"size\": 1}}", 0), CONFIG_DONE);
    assert_int_equal(apply("{\"pool\": {\"size\": 2}}", 5), CONFIG_DONE);
    device_gone = true;
    wait_seconds(5);
    assert_int_equal(size_in_force, 2);
    device_gone = false;
    wait_seconds(CONFIG_RETRY_SECONDS);
    assert_int_equal(size_in_force, 1);
}

/* ---- differences ---- */

static void test_diff_objects(void **state) {
    (void)state;
    expect_diff("{\"a\": 1, \"b\": {\"c\": 2}}", "{\"b\": {\"c\": 2}, \"a\": 1}", "");
    expect_diff("{\"a\": 1, \"b\": {\"c\": 2}, \"d\": 4}",
                "{\"a\": 1, \"b\": {\"c\": 3}, \"e\": 5}",
                "change $.b.c 2 -> 3; remove $.d 4; add $.e -> 5");
    expect_diff("{\"interfaces\": {\"lan.20\": {\"mtu\": 1500}}}",
                "{\"interfaces\": {\"lan.20\": {\"mtu\": 9000}}}",
                "change $.interfaces[\"lan.20\"].mtu 1500 -> 9000");
    expect_diff("[]", "{}", "change $ [] -> {}");
    expect_diff("1", "1.0", "change $ 1 -> 1.0");
}

static void test_diff_arrays(void **state) {
    (void)state;
    expect_diff("[1,2,3]", "[1,2,3]", "");
    expect_diff("[1,2,3]", "[0,1,2,3]", "add $[0] -> 0");
    expect_diff("[1,2,3]", "[1,3]", "remove $[1] 2");
    expect_diff("[1,2,3]", "[1,9,3]", "change $[1] 2 -> 9");
    expect_diff("[]", "[1,2]", "add $[0] -> 1; add $[1] -> 2");
    expect_diff("[1,2]", "[]", "remove $[0] 1; remove $[1] 2");
    expect_diff("[1,1,1]", "[1,1]", "remove $[2] 1");
    /* Order matters: a rule that moved was removed and added. */
    expect_diff("[1,2,3,4]", "[2,3,4,1]", "remove $[0] 1; add $[3] -> 1");
    expect_diff("[1,2,3,4,5]", "[0,1,2,9,4,5]", "add $[0] -> 0; change $[3] 3 -> 9");
    /* An element that changed in part, next to one that is new. */
    expect_diff("[{\"p\": 1, \"v\": 1}, {\"p\": 2, \"v\": 2}]",
                "[{\"p\": 0, \"v\": 0}, {\"p\": 1, \"v\": 1}, {\"p\": 2, \"v\": 3}]",
                "add $[0] -> {\"p\":0,\"v\":0}; change $[2].v 2 -> 3");
    expect_diff("[{\"p\": 1}]", "[{\"p\": 2}]", "change $[0] {\"p\":1} -> {\"p\":2}");
    expect_diff("[[1,2],[3]]", "[[1,2],[4]]", "change $[1] [3] -> [4]");
}

/* A big table with changes everywhere stays quick, and the changes exact. */
static void test_diff_many(void **state) {
    (void)state;
    enum { ROUTES = 100000 };
    json_t *old = json_array();
    json_t *new = json_array();
    size_t expected = 0;
    for (int i = 0; i < ROUTES; i++) {
        json_t *route = json_pack("{s:i, s:s}", "prefix", i, "via", i % 2 ? "a" : "b");
        if (i % 100 != 7) {
            json_array_append(old, route);
        }
        if (i % 100 != 50) {
            json_array_append(new, route);
        }
        expected += i % 100 == 7 || i % 100 == 50;
        json_decref(route);
    }
    json_t *changes = json_diff(old, new);
    assert_int_equal(json_array_size(changes), expected);
    json_decref(changes);
    json_decref(old);
    json_decref(new);
}

/* Whatever the arrays: applying the removals and additions to the old one gives the new one. */
static void test_diff_random(void **state) {
    (void)state;
    unsigned seed = 1;
    for (unsigned round = 0; round < 2000; round++) {
        json_t *arrays[2] = {json_array(), json_array()};
        for (unsigned side = 0; side < 2; side++) {
            for (int i = rand_r(&seed) % 12; i > 0; i--) {
                json_array_append_new(arrays[side], json_integer(rand_r(&seed) % 8));
            }
        }
        json_t *changes = json_diff(arrays[0], arrays[1]);
        /* Removed places of the old, then added ones of the new, then changed ones. */
        json_t *patched = json_array();
        size_t i;
        size_t from = 0;
        json_t *change;
        bool removed[16] = {false};
        bool put[16] = {false};
        json_t *values[16];
        json_array_foreach (changes, i, change) {
            unsigned at;
            const char *action = json_string_value(json_object_get(change, "action"));
            assert_int_equal(
                sscanf(json_string_value(json_object_get(change, "path")), "$[%u]", &at), 1);
            if (strcmp(action, "remove") == 0) {
                removed[at] = true;
                assert_true(
                    json_equal(json_array_get(arrays[0], at), json_object_get(change, "old")));
            } else {
                put[at] = true;
                values[at] = json_object_get(change, "new");
            }
        }
        /* What is neither removed nor replaced comes over in order; a change replaces one. */
        size_t changed = 0;
        json_array_foreach (changes, i, change) {
            changed += json_object_get(change, "old") && json_object_get(change, "new");
        }
        size_t kept = 0;
        for (i = 0; i < json_array_size(arrays[1]); i++) {
            kept += !put[i];
        }
        size_t staying = 0;
        for (i = 0; i < json_array_size(arrays[0]); i++) {
            staying += !removed[i];
        }
        assert_int_equal(staying, kept + changed);
        if (changed == 0) {
            for (i = 0; i < json_array_size(arrays[1]); i++) {
                if (put[i]) {
                    json_array_append(patched, values[i]);
                } else {
                    while (removed[from]) {
                        from++;
                    }
                    json_array_append(patched, json_array_get(arrays[0], from++));
                }
            }
            assert_true(json_equal(patched, arrays[1]));
        }
        json_decref(patched);
        json_decref(changes);
        json_decref(arrays[0]);
        json_decref(arrays[1]);
    }
}

/* ---- secrets ---- */

static void test_secrets_are_not_shown(void **state) {
    (void)state;
    assert_int_equal(apply("{\"tunnels\": [{\"name\": \"a\", \"key\": \"00112233\"}]}", 0),
                     CONFIG_DONE);
    expect_call("config.get", NULL, "{\"tunnels\":[{\"key\":\"***\",\"name\":\"a\"}]}");
    expect_call("config.diff",
                "{\"config\": {\"tunnels\": [{\"name\": \"a\", \"key\": \"44556677\"}, "
                "{\"name\": \"b\", \"key\": \"8899\"}]}}",
                "{\"changes\":[{\"action\":\"change\",\"new\":\"***\",\"old\":\"***\","
                "\"path\":\"$.tunnels[0].key\"},{\"action\":\"add\",\"new\":{\"key\":\"***\","
                "\"name\":\"b\"},\"path\":\"$.tunnels[1]\"}]}");
    expect_diff("{\"psk\": \"a\"}", "{\"psk\": {\"password\": \"b\", \"key\": 5}}",
                "change $.psk \"***\" -> {\"password\":\"***\",\"key\":5}");
    expect_diff("{\"secret\": [\"a\"]}", "{\"secret\": \"b\"}",
                "change $.secret [\"a\"] -> \"***\"");
}

static void test_masks_are_refused(void **state) {
    (void)state;
    assert_int_equal(apply("{\"tunnels\": [{\"key\": \"***\"}]}", 0), CONFIG_INVALID);
    assert_string_equal(problem, "$.tunnels[0].key: expected the secret itself, found \"***\", "
                                 "which stands for one where it is shown");
}

static void test_messages_are_scrubbed(void **state) {
    (void)state;
    assert_int_equal(apply("{\"tunnels\": [{\"key\": \"open sesame\"}, {\"key\": \"abcd\"}]}", 0),
                     CONFIG_INVALID);
    assert_string_equal(problem, "$.tunnels[0].key: \"***\" is not hexadecimal");

    /* Also one that the message cuts short. */
    json_t *document = json("{\"psk\": \"correct horse battery staple\", \"key\": \"abc\", "
                            "\"password\": \"beef\"}");
    struct problems problems = {0};
    problems_add(&problems, "$", "found \"correct horse bat...\" and abc and beefbeef, not bee");
    secrets_scrub(document, &problems);
    assert_string_equal(problems.list[0].message, "found \"***...\" and abc and ******, not bee");
    problems_free(&problems);
    json_decref(document);
}

/* ---- files ---- */

static enum config_result save(const char *path) {
    struct problems problems = {0};
    enum config_result result = config_store_save(path, &problems);
    problem[0] = '\0';
    if (problems.count > 0) {
        snprintf(problem, sizeof(problem), "%s: %s", problems.list[0].path,
                 problems.list[0].message);
    }
    problems_free(&problems);
    return result;
}

static void expect_problem(const char *text) {
    if (!strstr(problem, text)) {
        fail_msg("expected \"%s\" in \"%s\"", text, problem);
    }
}

static void test_save(void **state) {
    (void)state;
    const char *path = in_directory("router.json");
    const char *link_path = in_directory("link.json");
    struct stat status;
    assert_int_equal(save(path), CONFIG_CONFLICT); /* nothing applied yet */
    assert_int_equal(apply("{\"tunnels\": [{\"key\": \"0011\"}]}", 0), CONFIG_DONE);

    /* A new file: real secrets, so only for its owner. */
    assert_int_equal(save(path), CONFIG_DONE);
    assert_string_equal(read_file(path), "{\n  \"tunnels\": [\n    {\n      \"key\": \"0011\"\n"
                                         "    }\n  ]\n}\n");
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);

    /* An existing file keeps its mode; a link stays a link. */
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(symlink(path, link_path), 0);
    assert_int_equal(apply("{}", 0), CONFIG_DONE);
    assert_int_equal(save(link_path), CONFIG_DONE);
    assert_string_equal(read_file(path), "{}\n");
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0640);
    assert_int_equal(lstat(link_path, &status), 0);
    assert_true(S_ISLNK(status.st_mode));

    /* Not while it waits for confirmation. */
    assert_int_equal(apply("{\"pool\": {}}", 60), CONFIG_DONE);
    assert_int_equal(save(path), CONFIG_CONFLICT);
    assert_string_equal(read_file(path), "{}\n");
}

static void test_save_refused(void **state) {
    (void)state;
    assert_int_equal(apply("{}", 0), CONFIG_DONE);
    assert_int_equal(save(directory), CONFIG_FAILED);
    expect_problem("is not a regular file");
    assert_int_equal(save(in_directory("none/router.json")), CONFIG_FAILED);
    expect_problem("no file can be made in");
    expect_problem("No such file");
    const char *other = in_directory("passwd");
    write_file(other, "root:x:0:0\n");
    assert_int_equal(save(other), CONFIG_FAILED);
    expect_problem("does not look like a configuration");
    assert_string_equal(read_file(other), "root:x:0:0\n");
    const char *dangling = in_directory("dangling");
    assert_int_equal(symlink("nowhere", dangling), 0);
    assert_int_equal(save(dangling), CONFIG_FAILED);
    expect_problem("symbolic link to a file that does not exist");

    /* A directory that nothing can be written to; root may write anywhere, so give that up. */
    const char *locked = in_directory("locked");
    assert_int_equal(mkdir(locked, 0555), 0);
    assert_int_equal(chmod(directory, 0755), 0);
    bool root = geteuid() == 0;
    if (root) {
        assert_int_equal(seteuid(65534), 0);
    }
    char path[160];
    snprintf(path, sizeof(path), "%s/router.json", locked);
    enum config_result result = save(path);
    if (root) {
        assert_int_equal(seteuid(0), 0);
    }
    assert_int_equal(result, CONFIG_FAILED);
    expect_problem("Permission denied");
}

/* The first problem of reading a file with these contents, without the path in front. */
static const char *read_problem(const char *text, size_t length) {
    const char *path = in_directory("broken.json");
    write_bytes(path, text, length);
    struct problems problems = {0};
    json_t *document = config_file_read(path, &problems);
    problem[0] = '\0';
    if (problems.count > 0) {
        assert_int_equal(strncmp(problems.list[0].path, path, strlen(path)), 0);
        snprintf(problem, sizeof(problem), "%s %s", problems.list[0].path + strlen(path),
                 problems.list[0].message);
    }
    assert_int_equal(document == NULL, problems.count > 0);
    json_decref(document);
    problems_free(&problems);
    return problem;
}

static void test_file_syntax(void **state) {
    (void)state;
#define READ(text) read_problem(text, strlen(text))
    assert_string_equal(READ(" {\"a\": [1, 2.5, null, \"\\u00e9\"]}\n\n"), "");
    assert_string_equal(READ(""), ":1:1 expected a value, found the end");
    assert_string_equal(READ("{\n  \"a\": 1\n  \"b\": 2\n}\n"),
                        ":3:3 expected ',' or '}', found '\"'");
    assert_string_equal(READ("{\n  \"\303\251\": 1, }"),
                        ":2:11 expected a key in double quotes, found '}'");
    assert_string_equal(READ("{} {}"), ":1:4 expected nothing after the value, found '{'");
    assert_string_equal(READ("{\"a\": 1"), ":1:8 expected ',' or '}', found the end");
    assert_string_equal(READ("{\"key\": \"hush\n}"),
                        ":1:14 expected the closing '\"' of a string, found the end of the line");
    assert_string_equal(READ("{\"a\": {\"psk\": 1,\n \"psk\": \"hush\"}}"),
                        ":2:6 duplicate object key");
    assert_string_equal(READ("{\"key\": hush}"), ":1:12 invalid token");
    assert_string_equal(READ("[01]"), ":1:2 invalid token");
    assert_string_equal(READ("[\377]"), ":1:2 expected a value or ']', found byte 0xff");
#undef READ
    /* What stands in the file is not repeated, as it may be a secret. */
    read_problem("{\"key\": \"hush\377\"}", 17);
    assert_null(strstr(problem, "hush"));
    read_problem("{\"a\0\": 1}", 9);
    assert_string_not_equal(problem, "");
}

static void test_file_limits(void **state) {
    (void)state;
    char deep[2048];
    memset(deep, '[', 1024);
    memset(deep + 1024, ']', 1024);
    assert_string_equal(read_problem(deep, 2048), ":1:513 nested deeper than 512 levels");
    assert_string_equal(read_problem(deep + 512, 1024), "");

    struct problems problems = {0};
    const char *path = in_directory("big.json");
    write_file(path, "");
    assert_int_equal(truncate(path, CONFIG_FILE_MAX + 1), 0);
    assert_null(config_file_read(path, &problems));
    assert_string_equal(problems.list[0].message,
                        "has 67108865 bytes; a configuration may have 67108864");
    problems_free(&problems);
    assert_null(config_file_read("/dev/zero", &problems)); /* endless */
    assert_string_equal(problems.list[0].message, "is longer than 67108864 bytes");
    problems_free(&problems);
    assert_null(config_file_read(directory, &problems));
    assert_string_equal(problems.list[0].message, "cannot be read: Is a directory");
    problems_free(&problems);
    assert_null(config_file_read(in_directory("none"), &problems));
    assert_string_equal(problems.list[0].message, "cannot be opened: No such file or directory");
    problems_free(&problems);
}

/* ---- methods, and the face to main() ---- */

static void test_methods(void **state) {
    (void)state;
    expect_call("config.apply", "{\"config\": {\"pool\": {\"size\": 1}}}",
                "{\"changes\":1,\"confirm_timeout\":null}");
    expect_call("config.apply", "{\"config\": {\"pool\": {\"size\": 2}}, \"confirm_timeout\": 60}",
                "{\"changes\":1,\"confirm_timeout\":60}");
    expect_call("config.confirm", "{}", "{}");
    expect_call("config.confirm", NULL,
                "{\"code\":-32002,\"problems\":[\"$: no configuration waits for confirmation\"]}");
    expect_call("config.rollback", NULL, "{}");
    assert_int_equal(size_in_force, 1);
    device_gone = true;
    expect_call("config.apply", "{\"config\": {}}",
                "{\"code\":-32004,\"problems\":[\"$.pool: the device is gone\"]}");
    expect_call("config.apply", "{\"config\": {}, \"confirm_timeout\": 0}",
                "{\"code\":0,\"problems\":[\"$.confirm_timeout: expected an integer from 1 to "
                "86400, found 0\"]}");
    expect_call("config.apply", "{\"confg\": {}}",
                "{\"code\":0,\"problems\":[\"$.confg: unknown key `confg`; did you mean "
                "`config`?\"]}");
    expect_call("config.apply", NULL, "{\"code\":0,\"problems\":[\"$: `config` is required\"]}");
    expect_call("config.get", "[1]",
                "{\"code\":0,\"problems\":[\"$: expected an object, found an array\"]}");
    expect_call("config.save", "{\"file\": \"router.json\"}",
                "{\"code\":0,\"problems\":[\"$.file: expected an absolute path, which starts with "
                "/\"]}");
}

static void test_control(void **state) {
    (void)state;
    const unsigned workers[] = {1, 2};
    struct control_facts facts = {.version = "0.1.0",
                                  .dpdk_version = "DPDK 22.11.11",
                                  .config_file = in_directory("router.json"),
                                  .start_msec = event_now(),
                                  .workers = workers,
                                  .worker_count = 2};
    struct problems problems = {0};
    write_file(facts.config_file, "{\"pool\": {\"size\": 3}}");
    assert_int_equal(control_check(facts.config_file, &problems), 0);
    assert_int_equal(control_start(&facts, in_directory("run/s.sock"), &problems), 0);
    assert_int_equal(control_load(&problems), 0);
    assert_int_equal(size_in_force, 3);

    write_file(facts.config_file, "{\"pool\": {\"size\": 4}}");
    control_reload();
    assert_int_equal(size_in_force, 4);
    write_file(facts.config_file, "{\"tunnels\": [{\"key\": \"hush hush\"}]}");
    assert_int_equal(control_check(facts.config_file, &problems), -EINVAL);
    problems_free(&problems);
    control_reload();
    assert_int_equal(size_in_force, 4);
    struct log_line lines[64];
    size_t count = log_read(0, lines, 64);
    bool told = false;
    for (size_t i = 0; i < count; i++) {
        assert_null(strstr(lines[i].text, "hush"));
        told |= strstr(lines[i].text, "$.tunnels[0].key: \"***\" is not hexadecimal") != NULL;
    }
    assert_true(told);

    event_advance(1500);
    json_t *info = call("system.info", NULL);
    assert_string_equal(json_string_value(json_object_get(info, "version")), "0.1.0");
    assert_true(json_real_value(json_object_get(info, "uptime_seconds")) >= 1.5);
    assert_int_equal(json_array_size(json_object_get(info, "workers")), 2);
    assert_true(json_is_null(json_object_get(info, "confirm_remaining_seconds")));
    json_decref(info);
    info = call("log.list", "{\"limit\": 1}");
    assert_int_equal(json_array_size(info), 1);
    assert_true(json_object_get(json_array_get(info, 0), "text") != NULL);
    json_decref(info);
    info = call("system.methods", "{}");
    assert_true(json_array_size(info) >= 10);
    json_decref(info);
    /* The rename gives the file the running configuration again. */
    write_file(facts.config_file, "");
    info = call("config.save", "{}");
    assert_string_equal(json_string_value(json_object_get(info, "file")), facts.config_file);
    json_decref(info);
    assert_int_equal(control_check(facts.config_file, &problems), 0);

    assert_int_not_equal(control_start(&facts, in_directory("run/s.sock"), &problems), 0);
    problems_free(&problems);
    control_unload();
    assert_int_equal(size_in_force, 10); /* the default */
    expect_call("config.get", NULL, "{}");
    assert_int_equal(simple(config_store_rollback), CONFIG_CONFLICT);
    control_stop();
    control_unload();
    assert_int_not_equal(access(in_directory("run/s.sock"), F_OK), 0);
    control_stop();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_decode_reports_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_check_across_sections, setup, teardown),
        cmocka_unit_test_setup_teardown(test_apply, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failures_leave_all_as_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(test_confirm_timeout_rolls_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_confirm_timeout_begins_when_it_is_applied, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_confirm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_apply_keeps_the_good_target, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rollback_while_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_to_go_back_to, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_rollback_is_tried_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_diff_objects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_diff_arrays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_diff_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_diff_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_secrets_are_not_shown, setup, teardown),
        cmocka_unit_test_setup_teardown(test_masks_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages_are_scrubbed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_syntax, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_methods, setup, teardown),
        cmocka_unit_test_setup_teardown(test_control, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
