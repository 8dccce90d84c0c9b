/*
 * Reading JSON: values, and what is said about mistakes, word by word.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "json/decode.h"

static struct problems problems;
static json_t *document;

static int begin(void **state) {
    (void)state;
    problems = (struct problems){0};
    document = NULL;
    return 0;
}

static int end(void **state) {
    (void)state;
    problems_free(&problems);
    json_decref(document);
    return 0;
}

static struct decode read_json(const char *text) {
    json_error_t error;
    json_decref(document);
    problems_free(&problems);
    document = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (document == NULL)
        fail_msg("%s: %s", text, error.text);
    return decode_root(document, &problems);
}

/* The only problem is this one; it is taken off the list. */
static void expect(const char *path, const char *message) {
    assert_int_equal(problems.count, 1);
    assert_string_equal(problems.list[0].path, path);
    assert_string_equal(problems.list[0].message, message);
    problems_free(&problems);
}

static void expect_none(void) {
    assert_int_equal(problems.count, 0);
}

/* ---- problems ---- */

static void list_of_problems_is_bounded(void **state) {
    (void)state;
    assert_false(problems_any(&problems));
    for (int i = 0; i < PROBLEMS_MAX + 50; i++)
        problems_add(&problems, "$", "problem %d", i);
    assert_true(problems_any(&problems));
    assert_int_equal(problems.count, PROBLEMS_MAX);
    assert_int_equal(problems.omitted, 50);
    assert_string_equal(problems.list[PROBLEMS_MAX - 1].message, "problem 999");
    problems_free(&problems);
    assert_false(problems_any(&problems));
    assert_int_equal(problems.omitted, 0);
    problems_add(NULL, "$", "ignored");
}

static void decoding_stops_writing_at_the_limit(void **state) {
    (void)state;
    json_t *array = json_array();
    for (int i = 0; i < PROBLEMS_MAX + 234; i++)
        json_array_append_new(array, json_string("x"));
    document = array;
    struct decode d = decode_root(array, &problems);
    for (size_t i = 0; i < json_array_size(array); i++) {
        struct decode element = decode_element(&d, i);
        bool value;
        assert_false(decode_bool(&element, &value));
    }
    assert_int_equal(problems.count, PROBLEMS_MAX);
    assert_int_equal(problems.omitted, 234);
    assert_string_equal(problems.list[999].path, "$[999]");

    struct decode quiet = decode_root(array, NULL);
    uint64_t number;
    assert_false(decode_uint(&quiet, 0, 1, &number));
}

/* ---- paths ---- */

static void paths(void **state) {
    (void)state;
    struct decode d =
        read_json("{\"interfaces\": {\"wan\": {\"addresses\": [1, 2]}, \"lan.20\": {\"mtu\": 0},"
                  "\"a\\\"b\\\\c\\n\\u009b\": {\"_x9\": 1}, \"9x\": 1, \"\": {\"-\": 2}}}");
    struct decode interfaces, name, member, element;
    char *path = decode_path(&d);
    assert_string_equal(path, "$");
    free(path);

    assert_true(decode_member(&d, "interfaces", &interfaces));
    assert_true(decode_member(&interfaces, "wan", &name));
    assert_true(decode_member(&name, "addresses", &member));
    element = decode_element(&member, 1);
    decode_problem(&element, "wrong");
    expect("$.interfaces.wan.addresses[1]", "wrong");

    assert_true(decode_member(&interfaces, "lan.20", &name));
    assert_true(decode_member(&name, "mtu", &member));
    decode_problem(&member, "wrong %d", 7);
    expect("$.interfaces[\"lan.20\"].mtu", "wrong 7");

    assert_true(decode_member(&interfaces, "a\"b\\c\n\xc2\x9b", &name));
    assert_true(decode_member(&name, "_x9", &member));
    decode_problem(&member, "wrong");
    expect("$.interfaces[\"a\\\"b\\\\c\\u000a\\u009b\"]._x9", "wrong");

    assert_true(decode_member(&interfaces, "9x", &name));
    decode_problem(&name, "wrong");
    expect("$.interfaces[\"9x\"]", "wrong");
    assert_true(decode_member(&interfaces, "", &name));
    assert_true(decode_member(&name, "-", &member));
    decode_problem(&member, "wrong");
    expect("$.interfaces[\"\"][\"-\"]", "wrong");

    d.root = "params";
    assert_true(decode_member(&d, "interfaces", &interfaces));
    decode_problem(&interfaces, "wrong");
    expect("params.interfaces", "wrong");
}

static void long_keys_are_cut(void **state) {
    (void)state;
    enum { LENGTH = 100000 };
    for (size_t shift = 0; shift < 3; shift++) {
        char *key = malloc(LENGTH + 1);
        assert_non_null(key);
        memset(key, 'k', shift);
        for (size_t i = shift; i + 2 <= LENGTH; i += 2)
            memcpy(key + i, "\xc3\xa4", 2);
        key[LENGTH - (LENGTH - shift) % 2] = '\0';
        json_decref(document);
        document = json_object();
        assert_int_equal(json_object_set_new(document, key, json_null()), 0);
        free(key);

        struct decode d = decode_root(document, &problems);
        static const char *const known[] = {"mtu", NULL};
        decode_only_keys(&d, known);
        assert_int_equal(problems.count, 1);
        assert_in_range(strlen(problems.list[0].path), 100, 140);
        assert_in_range(strlen(problems.list[0].message), 80, 120);
        json_t *text = json_string(problems.list[0].path); /* refuses what is not UTF-8 */
        assert_non_null(text);
        json_decref(text);
        text = json_string(problems.list[0].message);
        assert_non_null(text);
        json_decref(text);
        problems_free(&problems);
    }
}

static void deep_nesting_costs_no_stack(void **state) {
    (void)state;
    enum { DEPTH = 200000 };
    document = json_null();
    struct decode *chain = calloc(DEPTH, sizeof(*chain));
    assert_non_null(chain);
    chain[0] = decode_root(document, &problems);
    for (int i = 1; i < DEPTH; i++)
        chain[i] =
            (struct decode){.value = document, .parent = &chain[i - 1], .problems = &problems};
    decode_problem(&chain[DEPTH - 1], "deep");
    assert_int_equal(strlen(problems.list[0].path), 1 + 3 * (DEPTH - 1));
    free(chain);
}

/* ---- structure ---- */

static void structure(void **state) {
    (void)state;
    static const struct {
        const char *json, *not_object, *not_array;
    } cases[] = {
        {"{}", NULL, "expected an array, found an object"},
        {"[]", "expected an object, found an array", NULL},
        {"\"x\"", "expected an object, found a string", "expected an array, found a string"},
        {"7", "expected an object, found an integer", "expected an array, found an integer"},
        {"1.5", "expected an object, found a number with a fraction",
         "expected an array, found a number with a fraction"},
        {"true", "expected an object, found true", "expected an array, found true"},
        {"false", "expected an object, found false", "expected an array, found false"},
        {"null", "expected an object, found null", "expected an array, found null"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct decode d = read_json(cases[i].json);
        assert_int_equal(decode_is_object(&d), cases[i].not_object == NULL);
        if (cases[i].not_object != NULL)
            expect("$", cases[i].not_object);
        assert_int_equal(decode_is_array(&d), cases[i].not_array == NULL);
        if (cases[i].not_array != NULL)
            expect("$", cases[i].not_array);
    }
}

static void members(void **state) {
    (void)state;
    struct decode d = read_json("{\"b\": {\"x\": 1}, \"a\": {\"y\": 2}, \"c\": {\"z\": null}}");
    struct decode out;
    assert_false(decode_member(&d, "missing", &out));
    expect_none();
    assert_false(decode_required(&d, "missing", &out));
    expect("$", "`missing` is required");
    assert_true(decode_required(&d, "b", &out));
    assert_string_equal(out.key, "b");

    char seen[64] = "";
    struct decode child, grandchild;
    decode_foreach_member(&d, child) {
        decode_foreach_member(&child, grandchild) {
            char *path = decode_path(&grandchild);
            snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%s ", path);
            free(path);
        }
    }
    assert_string_equal(seen, "$.b.x $.a.y $.c.z ");
    assert_true(decode_member(&d, "c", &child));
    assert_true(decode_required(&child, "z", &grandchild));
    assert_true(json_is_null(grandchild.value)); /* a null is a value */

    d = read_json("[]");
    assert_false(decode_member(&d, "x", &out));
    decode_foreach_member(&d, child) {
        fail();
    }
    expect_none();
}

static void unknown_keys(void **state) {
    (void)state;
    static const char *const known[] = {"addresses", "mtu",       "host_twin", "in",
                                        "out",       "rx_queues", "tx_queues", NULL};
    static const struct {
        const char *key, *meant;
    } cases[] = {
        {"adresses", "addresses"},
        {"address", "addresses"},
        {"adderssse", "addresses"},
        {"MTU", "mtu"},
        {"mut", "mtu"},
        {"mt", "mtu"},
        {"hostTwin", "host_twin"},
        {"host-twin", "host_twin"},
        {"host twin", "host_twin"},
        {"rxqueues", "rx_queues"},
        {"tx_queue", "tx_queues"},
        {"uot", "out"},
        {"inn", "in"},
        {"vlan", NULL},
        {"xyz", NULL},
        {"", NULL},
        {"nat", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char json[100], message[200];
        snprintf(json, sizeof(json), "{\"in\": 1, \"%s\": 1, \"mtu\": 1}", cases[i].key);
        struct decode d = read_json(json);
        decode_only_keys(&d, known);
        if (cases[i].meant != NULL)
            snprintf(message, sizeof(message), "unknown key `%s`; did you mean `%s`?", cases[i].key,
                     cases[i].meant);
        else
            snprintf(message, sizeof(message), "unknown key `%s`", cases[i].key);
        assert_int_equal(problems.count, 1);
        assert_string_equal(problems.list[0].message, message);
    }
    struct decode d =
        read_json("{\"interfaces\": {\"mtu\": 1, \"adresses\": 1, \"x.y\\u001b\": 1}}");
    struct decode member;
    assert_true(decode_member(&d, "interfaces", &member));
    decode_only_keys(&member, known);
    assert_int_equal(problems.count, 2);
    assert_string_equal(problems.list[0].path, "$.interfaces.adresses");
    assert_string_equal(problems.list[1].path, "$.interfaces[\"x.y\\u001b\"]");
    assert_string_equal(problems.list[1].message, "unknown key `x.y\\u001b`");

    d = read_json("[1]");
    decode_only_keys(&d, known);
    expect_none();
    static const char *const nothing[] = {NULL};
    d = read_json("{\"x\": 1}");
    decode_only_keys(&d, nothing);
    expect("$.x", "unknown key `x`");
}

/* ---- values ---- */

static void integers(void **state) {
    (void)state;
    static const struct {
        const char *json, *found;
    } wrong[] = {
        {"70000", "70000"},
        {"67", "67"},
        {"0", "0"},
        {"-1", "-1"},
        {"1500.0", "1500.0"},
        {"1500.5", "1500.5"},
        {"\"1500\"", "a string"},
        {"true", "true"},
        {"null", "null"},
        {"[1500]", "an array"},
        {"{}", "an object"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"9223372036854775807", "9223372036854775807"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct decode d = read_json(wrong[i].json);
        char message[100];
        snprintf(message, sizeof(message), "expected an integer from 68 to 9216, found %s",
                 wrong[i].found);
        uint64_t value = 42;
        uint32_t value32 = 42;
        uint16_t value16 = 42;
        assert_false(decode_uint(&d, 68, 9216, &value));
        expect("$", message);
        assert_false(decode_u32(&d, 68, 9216, &value32));
        expect("$", message);
        assert_false(decode_u16(&d, 68, 9216, &value16));
        expect("$", message);
        assert_int_equal(value, 42);
        assert_int_equal(value32, 42);
        assert_int_equal(value16, 42);
    }
    uint64_t value;
    uint16_t value16;
    struct decode d = read_json("68");
    assert_true(decode_uint(&d, 68, 9216, &value));
    assert_int_equal(value, 68);
    d = read_json("9216");
    assert_true(decode_u16(&d, 68, 9216, &value16));
    assert_int_equal(value16, 9216);
    d = read_json("9223372036854775807");
    assert_true(decode_uint(&d, 0, UINT64_MAX, &value));
    assert_int_equal(value, INT64_MAX);
    uint32_t value32;
    assert_false(decode_u32(&d, 0, UINT32_MAX, &value32));
    expect("$", "expected an integer from 0 to 4294967295, found 9223372036854775807");
}

static void booleans(void **state) {
    (void)state;
    bool value = false;
    struct decode d = read_json("true");
    assert_true(decode_bool(&d, &value));
    assert_true(value);
    d = read_json("false");
    assert_true(decode_bool(&d, &value));
    assert_false(value);
    d = read_json("\"true\"");
    assert_false(decode_bool(&d, &value));
    expect("$", "expected true or false, found a string");
    d = read_json("1");
    assert_false(decode_bool(&d, &value));
    expect("$", "expected true or false, found an integer");
}

static void strings(void **state) {
    (void)state;
    const char *value = NULL;
    static const char untouched[] = "untouched";
    struct decode d = read_json("\"gr\xc3\xbc\"");
    assert_true(decode_string(&d, &value));
    assert_string_equal(value, "gr\xc3\xbc");
    value = untouched;
    d = read_json("[]");
    assert_false(decode_string(&d, &value));
    expect("$", "expected a string, found an array");
    d = read_json("\"\"");
    assert_false(decode_string(&d, &value));
    expect("$", "expected a string, found an empty string");
    d = read_json("\"a\\u0000b\"");
    assert_false(decode_string(&d, &value));
    expect("$", "expected a string, found a string with a NUL character");
    assert_ptr_equal(value, untouched);
}

static void words(void **state) {
    (void)state;
    static const char *const two[] = {"up", "down", NULL};
    static const char *const three[] = {"accept", "drop", "reject", NULL};
    unsigned value = 9;
    struct decode d = read_json("\"down\"");
    assert_true(decode_word(&d, two, &value));
    assert_int_equal(value, 1);
    assert_false(decode_word(&d, three, &value));
    assert_int_equal(value, 1);
    expect("$", "expected \"accept\", \"drop\" or \"reject\", found \"down\"");
    d = read_json("true");
    assert_false(decode_word(&d, two, &value));
    expect("$", "expected \"up\" or \"down\", found true");
    d = read_json("\"UP\\u0007\\\"\"");
    assert_false(decode_word(&d, two, &value));
    expect("$", "expected \"up\" or \"down\", found \"UP\\u0007\\\"\"");

    const char *many[101]; /* more than a message holds */
    for (int i = 0; i < 100; i++)
        many[i] = "a-rather-long-word-of-the-list";
    many[100] = NULL;
    assert_false(decode_word(&d, many, &value));
    assert_int_equal(problems.count, 1);
}

static void addresses(void **state) {
    (void)state;
    struct ip_address address;
    struct ip_prefix prefix;
    char text[IP_PREFIX_TEXT];
    struct decode d = read_json("\"2001:DB8::1\"");
    assert_true(decode_address(&d, &address));
    assert_string_equal(ip_address_text(&address, text), "2001:db8::1");
    d = read_json("\"10.0.0.0/8\"");
    assert_true(decode_prefix(&d, &prefix));
    assert_string_equal(ip_prefix_text(&prefix, text), "10.0.0.0/8");
    d = read_json("\"10.0.0.1/8\"");
    assert_true(decode_interface_address(&d, &prefix));
    assert_string_equal(ip_prefix_text(&prefix, text), "10.0.0.1/8");

    d = read_json("\"10.1.2.3/8\"");
    assert_false(decode_prefix(&d, &prefix));
    expect("$", "host bits are set; did you mean 10.0.0.0/8?");
    assert_false(decode_address(&d, &address));
    expect("$",
           "expected an address without a length, found \"10.1.2.3/8\"; did you mean 10.1.2.3?");
    d = read_json("\"2001:db8::1\"");
    assert_false(decode_prefix(&d, &prefix));
    expect("$", "the prefix length is missing; did you mean 2001:db8::1/128?");
    assert_false(decode_interface_address(&d, &prefix));
    expect("$", "expected an address with a prefix length such as 192.0.2.1/24 or 2001:db8::1/64, "
                "found \"2001:db8::1\"");
    d = read_json("\"10.0.0.300\"");
    assert_false(decode_address(&d, &address));
    expect("$", "expected an address such as 192.0.2.1 or 2001:db8::1, found \"10.0.0.300\"");
    assert_false(decode_prefix(&d, &prefix));
    expect("$", "expected a prefix such as 192.0.2.0/24 or 2001:db8::/32, found \"10.0.0.300\"");
    d = read_json("5");
    assert_false(decode_prefix(&d, &prefix));
    expect("$", "expected a prefix such as 192.0.2.0/24 or 2001:db8::/32, found an integer");
    d = read_json("\"192.0.2.1\\u0000x\"");
    assert_false(decode_address(&d, &address));
    expect("$", "expected an address such as 192.0.2.1 or 2001:db8::1, found a string with a NUL "
                "character");
}

static void mac_addresses(void **state) {
    (void)state;
    uint8_t mac[6] = {9};
    struct decode d = read_json("\"02:00:00:00:00:99\"");
    assert_true(decode_mac(&d, mac));
    assert_int_equal(mac[5], 0x99);
    d = read_json("\"02:00:00:00:00\"");
    assert_false(decode_mac(&d, mac));
    expect("$", "expected a MAC address such as 02:00:00:00:00:01, found \"02:00:00:00:00\"");
    d = read_json("\"ff:ff:ff:ff:ff:ff\"");
    assert_false(decode_mac(&d, mac));
    expect("$", "expected a unicast MAC address, found the group address ff:ff:ff:ff:ff:ff");
    d = read_json("\"00:00:00:00:00:00\"");
    assert_false(decode_mac(&d, mac));
    expect("$", "expected a unicast MAC address, found 00:00:00:00:00:00");
    assert_int_equal(mac[5], 0x99);
}

static void names(void **state) {
    (void)state;
    struct decode d = read_json("{\"lan 0\": 1}");
    static const char *const right[] = {"a",         "9",   "lan.20",
                                        "lan-0_B.c", "wan", "abcdefghijklmnopqrstuvwxyz12345"};
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++)
        assert_true(decode_name(&d, right[i]));
    expect_none();
    static const char *const wrong[] = {
        "",   ".a", "-a", "_a", "a b", "a/b", "gr\xc3\xbc", "abcdefghijklmnopqrstuvwxyz123456",
        "a\n"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(decode_name(&d, wrong[i]));
        assert_int_equal(problems.count, 1);
        problems_free(&problems);
    }
    struct decode member;
    assert_true(decode_member(&d, "lan 0", &member));
    assert_false(decode_name(&member, NULL));
    expect("$[\"lan 0\"]",
           "expected a name of 1 to 31 letters, digits, '.', '-' or '_' that starts "
           "with a letter or digit, found \"lan 0\"");
}

static void members_with_a_default(void **state) {
    (void)state;
    struct decode d = read_json("{\"a\": 7, \"b\": true, \"c\": \"text\", \"d\": null}");
    uint32_t u32 = 1;
    uint16_t u16 = 2;
    bool truth = false;
    const char *text = "default";
    assert_true(decode_member_u32(&d, "x", 5, 9, &u32));
    assert_true(decode_member_u16(&d, "x", 5, 9, &u16));
    assert_true(decode_member_bool(&d, "x", &truth));
    assert_true(decode_member_string(&d, "x", &text));
    assert_int_equal(u32, 1);
    assert_int_equal(u16, 2);
    assert_false(truth);
    assert_string_equal(text, "default");
    expect_none();

    assert_true(decode_member_u32(&d, "a", 5, 9, &u32));
    assert_true(decode_member_u16(&d, "a", 5, 9, &u16));
    assert_true(decode_member_bool(&d, "b", &truth));
    assert_true(decode_member_string(&d, "c", &text));
    assert_int_equal(u32, 7);
    assert_int_equal(u16, 7);
    assert_true(truth);
    assert_string_equal(text, "text");
    expect_none();

    assert_false(decode_member_u32(&d, "d", 5, 9, &u32));
    expect("$.d", "expected an integer from 5 to 9, found null");
    assert_false(decode_member_u16(&d, "a", 8, 9, &u16));
    expect("$.a", "expected an integer from 8 to 9, found 7");
    assert_false(decode_member_bool(&d, "d", &truth));
    expect("$.d", "expected true or false, found null");
    assert_false(decode_member_string(&d, "d", &text));
    expect("$.d", "expected a string, found null");
}

static void nested_problems_are_all_named(void **state) {
    (void)state;
    struct decode d = read_json("{\"interfaces\": {\"wan\": {\"mtu\": 70000, \"addresses\": "
                                "[\"192.0.2.1/24\", \"192.0.2.1\", 7]}, \"guest.7\": []}}");
    struct decode interfaces, interface, addresses_of;
    assert_true(decode_required(&d, "interfaces", &interfaces));
    decode_foreach_member(&interfaces, interface) {
        uint16_t mtu = 1500;
        if (!decode_is_object(&interface))
            continue;
        decode_member_u16(&interface, "mtu", 68, 9216, &mtu);
        if (!decode_member(&interface, "addresses", &addresses_of))
            continue;
        for (size_t i = 0; i < json_array_size(addresses_of.value); i++) {
            struct decode element = decode_element(&addresses_of, i);
            struct ip_prefix prefix;
            decode_interface_address(&element, &prefix);
        }
    }
    static const char *const where[] = {"$.interfaces.wan.mtu", "$.interfaces.wan.addresses[1]",
                                        "$.interfaces.wan.addresses[2]",
                                        "$.interfaces[\"guest.7\"]"};
    assert_int_equal(problems.count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(problems.list[i].path, where[i]);
}

static void endless_messages_are_cut(void **state) {
    (void)state;
    char text[5000];
    for (size_t i = 0; i + 2 < sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xa4", 3);
    struct decode d = read_json("null");
    decode_problem(&d, "x%s", text);
    assert_int_equal(problems.count, 1);
    size_t length = strlen(problems.list[0].message);
    assert_in_range(length, 2000, 2047);
    assert_string_equal(problems.list[0].message + length - 3, "...");
    json_t *valid = json_string(problems.list[0].message);
    assert_non_null(valid);
    json_decref(valid);
}

#define DECODE_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        DECODE_TEST(list_of_problems_is_bounded),
        DECODE_TEST(decoding_stops_writing_at_the_limit),
        DECODE_TEST(paths),
        DECODE_TEST(long_keys_are_cut),
        DECODE_TEST(deep_nesting_costs_no_stack),
        DECODE_TEST(structure),
        DECODE_TEST(members),
        DECODE_TEST(unknown_keys),
        DECODE_TEST(integers),
        DECODE_TEST(booleans),
        DECODE_TEST(strings),
        DECODE_TEST(words),
        DECODE_TEST(addresses),
        DECODE_TEST(mac_addresses),
        DECODE_TEST(names),
        DECODE_TEST(members_with_a_default),
        DECODE_TEST(nested_problems_are_all_named),
        DECODE_TEST(endless_messages_are_cut),
    };
    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
