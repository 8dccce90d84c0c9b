/*
 * The section "neighbours" and the neighbour.* methods, on fakes of the table and of the
 * interfaces: all problems at once with their paths, what a commit sets and removes, and the
 * methods' results.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/section.h"
#include "interface/interface.h"
#include "l3/neighbour.h"
#include "json/decode.h"
#include "json/rpc.h"

/* ---- fakes ---- */

static struct interface wan = {.id = 1, .name = "wan"}, lan = {.id = 2, .name = "lan"};
static char calls[1024];
static int answer;
static uint64_t clock_msec = 100000;

static void note(const char *what, uint16_t interface, const struct ip_address *address) {
    char text[IP_ADDRESS_TEXT];
    size_t length = strlen(calls);

    snprintf(calls + length, sizeof(calls) - length, "%s %u %s;", what, interface,
             ip_address_text(address, text));
}

uint64_t event_now(void) {
    return clock_msec;
}

struct interface *interface_by_id(uint16_t id) {
    return id == 1 ? &wan : id == 2 ? &lan : NULL;
}

struct interface *interface_by_name(const char *name) {
    return strcmp(name, "wan") == 0 ? &wan : strcmp(name, "lan") == 0 ? &lan : NULL;
}

const char *interface_configured_vrf(const struct config *config, const char *name) {
    (void)config;
    return interface_by_name(name) ? "default" : NULL;
}

uint32_t interface_configured_if_id(const struct config *config, const char *name) {
    (void)config;
    return strcmp(name, "tunnel") == 0;
}

bool interface_configured_on_link(const struct config *config, const char *vrf,
                                  const char *interface_name, const struct ip_address *address) {
    (void)config;
    assert_string_equal(vrf, "default");
    return address->bytes[0] == (strcmp(interface_name, "wan") == 0 ? 192 : 10);
}

int neighbour_add_static(uint16_t interface, const struct ip_address *address,
                         const uint8_t mac[6]) {
    (void)mac;
    note("add", interface, address);
    return answer;
}

int neighbour_delete(uint16_t interface, const struct ip_address *address) {
    note("delete", interface, address);
    return answer;
}

unsigned neighbour_flush(uint16_t interface) {
    return interface == 0 ? 5 : interface;
}

void neighbour_each(uint16_t interface,
                    bool (*visit)(const struct neighbour_view *view, void *context),
                    void *context) {
    struct neighbour_view views[] = {
        {.interface = 2, .state = NEIGHBOUR_FAILED},
        {.interface = 1,
         .state = NEIGHBOUR_REACHABLE,
         .has_mac = true,
         .mac = {2, 0, 0, 0, 0, 9},
         .confirmed_msec = 98500,
         .is_router = true},
        {.interface = 1, .state = NEIGHBOUR_STATIC, .has_mac = true, .mac = {2, 0, 0, 0, 0, 8}},
    };

    ip_address_parse("10.0.0.9", &views[0].address);
    ip_address_parse("fe80::9", &views[1].address);
    ip_address_parse("192.0.2.9", &views[2].address);
    for (unsigned i = 0; i < 3; i++) {
        if ((interface == 0 || views[i].interface == interface) && !visit(&views[i], context))
            return;
    }
}

static struct config_section empty_interfaces = {.name = "interfaces"};
CONFIG_SECTION(empty_interfaces)

/* ---- the section ---- */

static struct config_section *section(void) {
    struct config_section *found = config_section_first();

    while (strcmp(found->name, "neighbours") != 0)
        found = found->next;
    return found;
}

static struct config *config_of(const char *text, struct problems *problems) {
    struct config *config = config_new();
    json_t *json = json_loads(text, 0, NULL);
    struct decode root;

    assert_non_null(json);
    root = decode_root(json, problems);
    root.root = "$.neighbours";
    config_set_value(config, section(), section()->decode(&root));
    if (!problems_any(problems))
        section()->check(config, problems);
    json_decref(json);
    return config;
}

/* The paths of the problems are these, each with a semicolon. */
static void expect_problems(const char *text, const char *paths) {
    struct problems problems = {0};
    char found[1024] = "";

    config_free(config_of(text, &problems));
    for (size_t i = 0; i < problems.count; i++) {
        strcat(found, problems.list[i].path);
        strcat(found, ";");
    }
    assert_string_equal(found, paths);
    problems_free(&problems);
}

#define ENTRY(interface, address, mac) \
    "{\"interface\":\"" interface "\",\"address\":\"" address "\",\"mac\":\"" mac "\"}"
#define MAC "02:00:00:00:00:09"

/* clang-format off */
static const char wrong_values[] = "["
    ENTRY("wan", "192.0.2.9", "01:00:5e:00:00:01") ","
    ENTRY("wan", "224.0.0.1", MAC) ","
    ENTRY("wan", "192.0.2.300", MAC) ","
    ENTRY("-", "192.0.2.9", MAC) ","
    ENTRY("wan", "192.0.2.7", MAC) ","
    ENTRY("wan", "192.0.2.7", MAC) ","
    "{\"interface\":\"wan\",\"address\":\"192.0.2.8\",\"mac\":\"" MAC "\",\"x\":1}]";
static const char wrong_references[] = "["
    ENTRY("wan", "10.0.0.9", MAC) ","
    ENTRY("dmz", "10.0.0.9", MAC) ","
    ENTRY("lan", "192.0.2.9", MAC) "]";
static const char before_change[] = "["
    ENTRY("wan", "192.0.2.9", MAC) ","
    ENTRY("lan", "10.0.0.9", MAC) "]";
static const char after_change[] = "["
    ENTRY("lan", "10.0.0.8", MAC) ","
    ENTRY("wan", "192.0.2.9", MAC) "]";
/* clang-format on */

static void test_problems(void **state) {
    (void)state;
    expect_problems("[]", "");
    expect_problems("{}", "$.neighbours;");
    expect_problems("[3]", "$.neighbours[0];");
    expect_problems("[{}]", "$.neighbours[0];$.neighbours[0];$.neighbours[0];");
    expect_problems(before_change, "");
    /* Everything that is wrong with the values at once ... */
    expect_problems(wrong_values, "$.neighbours[0].mac;$.neighbours[1].address;"
                                  "$.neighbours[2].address;$.neighbours[3].interface;"
                                  "$.neighbours[6].x;$.neighbours[5];");
    /* ... and with what they refer to, in the order of the document. */
    expect_problems(wrong_references, "$.neighbours[0].address;$.neighbours[1].interface;"
                                      "$.neighbours[2].address;");
}

static void test_commit(void **state) {
    struct problems problems = {0};
    struct config *first = config_of(before_change, &problems),
                  *second = config_of(after_change, &problems);

    (void)state;
    assert_int_equal(problems.count, 0);
    calls[0] = '\0';
    section()->commit(NULL, first);
    assert_string_equal(calls, "add 2 10.0.0.9;add 1 192.0.2.9;");
    calls[0] = '\0';
    section()->commit(first, second);
    assert_string_equal(calls, "delete 2 10.0.0.9;add 2 10.0.0.8;add 1 192.0.2.9;");
    calls[0] = '\0';
    section()->commit(second, NULL);
    assert_string_equal(calls, "delete 2 10.0.0.8;delete 1 192.0.2.9;");
    answer = -ENOSPC; /* only logged */
    section()->commit(NULL, first);
    answer = -EINVAL;
    section()->commit(NULL, first);
    answer = 0;
    assert_null(config_value(NULL, section()));
    config_free(first);
    config_free(second);
}

static void test_absent(void **state) {
    void *value = section()->decode(NULL);

    (void)state;
    assert_non_null(value);
    section()->free(value);
}

/* ---- the methods ---- */

/* The result as compact text with sorted keys, or "code path". */
static void expect_call(const char *method, const char *params, const char *expected) {
    json_t *json = params ? json_loads(params, 0, NULL) : NULL, *result;
    struct rpc_request request = {.params = json};
    char failure[128];
    char *text;

    result = rpc_find(method)->call(&request);
    if (result) {
        assert_int_equal(request.problems.count, 0);
        text = json_dumps(result, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(4));
        assert_string_equal(text, expected);
        free(text);
    } else {
        assert_true(request.problems.count > 0);
        snprintf(failure, sizeof(failure), "%d %s", request.code, request.problems.list[0].path);
        assert_string_equal(failure, expected);
    }
    json_decref(result);
    json_decref(json);
    problems_free(&request.problems);
}

#define WAN_STATIC                                                                   \
    "{\"address\":\"192.0.2.9\",\"age_seconds\":null,\"interface\":\"wan\",\"mac\":" \
    "\"02:00:00:00:00:08\",\"router\":false,\"state\":\"static\"}"
#define WAN_ROUTER                                                                \
    "{\"address\":\"fe80::9\",\"age_seconds\":1.5,\"interface\":\"wan\",\"mac\":" \
    "\"02:00:00:00:00:09\",\"router\":true,\"state\":\"reachable\"}"
#define LAN_FAILED                                                                       \
    "{\"address\":\"10.0.0.9\",\"age_seconds\":null,\"interface\":\"lan\",\"mac\":null," \
    "\"router\":false,\"state\":\"failed\"}"

static void test_list(void **state) {
    (void)state;
    expect_call("neighbour.list", NULL, "[" WAN_STATIC "," WAN_ROUTER "," LAN_FAILED "]");
    expect_call("neighbour.list", "{\"interface\":\"lan\"}", "[" LAN_FAILED "]");
    expect_call("neighbour.list", "{\"interface\":\"dmz\"}", "-32001 $.interface");
    expect_call("neighbour.list", "{\"interfaces\":\"dmz\"}", "0 $.interfaces");
    expect_call("neighbour.list", "[]", "0 $");
}

static void test_add_and_delete(void **state) {
    (void)state;
    calls[0] = '\0';
    expect_call("neighbour.add", ENTRY("wan", "192.0.2.9", MAC), "{}");
    expect_call("neighbour.delete", "{\"interface\":\"wan\",\"address\":\"192.0.2.9\"}", "{}");
    assert_string_equal(calls, "add 1 192.0.2.9;delete 1 192.0.2.9;");
    expect_call("neighbour.add", ENTRY("dmz", "192.0.2.9", MAC), "-32001 $.interface");
    expect_call("neighbour.add", ENTRY("wan", "192.0.2", MAC), "0 $.address");
    expect_call("neighbour.add", ENTRY("wan", "192.0.2.9", "ff:ff:ff:ff:ff:ff"), "0 $.mac");
    expect_call("neighbour.add", "{}", "0 $");
    answer = -EINVAL;
    expect_call("neighbour.add", ENTRY("wan", "192.0.2.9", MAC), "0 $.address");
    answer = -ENOSPC;
    expect_call("neighbour.add", ENTRY("wan", "192.0.2.9", MAC), "-32002 $");
    answer = -ENOENT;
    expect_call("neighbour.delete", "{\"interface\":\"wan\",\"address\":\"192.0.2.9\"}",
                "-32001 $.address");
    answer = 0;
}

static void test_flush(void **state) {
    (void)state;
    expect_call("neighbour.flush", NULL, "{\"flushed\":5}");
    expect_call("neighbour.flush", "{\"interface\":\"lan\"}", "{\"flushed\":2}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_problems),       cmocka_unit_test(test_commit),
        cmocka_unit_test(test_absent),         cmocka_unit_test(test_list),
        cmocka_unit_test(test_add_and_delete), cmocka_unit_test(test_flush),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
