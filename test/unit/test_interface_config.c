/*
 * The sections "mbufs", "vrfs" and "interfaces": decode and check. Each wrong configuration names
 * all its mistakes, with their paths, in one go; nothing here touches a device.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/section.h"
#include "interface/interface.h"
#include "interface/interface_internal.h"
#include "json/decode.h"

/* As lib/control does it. */
static struct config *decode_text(const char *text, struct problems *problems) {
    json_error_t error;
    json_t *document = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    struct config *config = config_new();

    if (!document)
        fail_msg("%s: %s", error.text, text);

    struct decode root = decode_root(document, problems);

    for (struct config_section *s = config_section_first(); s; s = s->next) {
        struct decode member;
        size_t before = problems->count;

        config_set_value(config, s,
                         s->decode(decode_member(&root, s->name, &member) ? &member : NULL));
        if (problems->count > before)
            config_set_faulty(config, s);
    }
    config_check(config, problems);
    json_decref(document);
    return config;
}

static int compare_lines(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The problems as sorted lines "path: sentence". */
static void expect_lines(const char *text, const char *const *expected, size_t count) {
    struct problems problems = {0};
    struct config *config = decode_text(text, &problems);
    char **lines = calloc(problems.count + 1, sizeof(char *));
    const char **wanted = calloc(count + 1, sizeof(char *));
    bool same = problems.count == count;

    for (size_t i = 0; i < problems.count; i++) {
        size_t size = strlen(problems.list[i].path) + strlen(problems.list[i].message) + 3;

        lines[i] = malloc(size);
        snprintf(lines[i], size, "%s: %s", problems.list[i].path, problems.list[i].message);
    }
    for (size_t i = 0; i < count; i++)
        wanted[i] = expected[i];
    qsort(lines, problems.count, sizeof(lines[0]), compare_lines);
    qsort(wanted, count, sizeof(wanted[0]), compare_lines);
    for (size_t i = 0; same && i < count; i++)
        same = strcmp(lines[i], wanted[i]) == 0;
    if (!same) {
        print_error("%s\n", text);
        for (size_t i = 0; i < problems.count; i++)
            print_error("found    %s\n", lines[i]);
        for (size_t i = 0; i < count; i++)
            print_error("expected %s\n", wanted[i]);
    }
    for (size_t i = 0; i < problems.count; i++)
        free(lines[i]);
    free(lines);
    free(wanted);
    config_free(config);
    problems_free(&problems);
    assert_true(same);
}

#define EXPECT(text, ...)                                               \
    do {                                                                \
        const char *const lines_[] = {__VA_ARGS__};                     \
        expect_lines(text, lines_, sizeof(lines_) / sizeof(lines_[0])); \
    } while (0)

static void expect_right(const char *text) {
    expect_lines(text, NULL, 0);
}

/* One interface with these members, without its braces. */
static const char *one(const char *members) {
    static char text[4096];

    snprintf(text, sizeof(text), "{\"interfaces\":{\"a\":{%s}}}", members);
    return text;
}

#define DEVICE "\"device\":\"net_null0\""

static const char right[] = "{\"mbufs\":4096,\"vrfs\":{\"guest\":{\"table\":20}},\"interfaces\":{"
                            "\"wan\":{\"device\":\"0000:03:00.0\",\"mtu\":9000,"
                            "\"addresses\":[\"203.0.113.2/24\",\"198.51.100.1/31\"]},"
                            "\"lan\":{\"device\":\"net_null0\",\"mac\":\"02:00:00:00:00:01\","
                            "\"tcp_mss\":1400,\"reverse_path\":\"strict\","
                            "\"addresses\":[\"192.168.1.1/24\",\"192.168.1.2/24\","
                            "\"2001:db8:1::1/64\"],\"host_twin\":\"lan0\",\"rx_queues\":2,"
                            "\"tx_queues\":2,\"rx_descriptors\":512,\"tx_descriptors\":512,"
                            "\"promiscuous\":true,\"router_advertisement\":{\"interval\":30,"
                            "\"lifetime\":90,\"managed\":true,\"other\":true,\"mtu\":false,"
                            "\"prefixes\":[{\"prefix\":\"2001:db8:1::/64\"},{\"prefix\":"
                            "\"2001:db8:2::/48\",\"autonomous\":false,\"valid_lifetime\":100}]}},"
                            "\"guest.20\":{\"parent\":\"lan\",\"vlan\":20,\"vrf\":\"guest\","
                            "\"enabled\":false,\"addresses\":[\"192.168.1.1/24\",\"fe80::1/64\"]},"
                            "\"jumbo\":{\"parent\":\"wan\",\"vlan\":4094,\"tcp_mss\":\"auto\","
                            "\"reverse_path\":\"loose\",\"addresses\":[\"fe80::1/64\","
                            "\"10.0.0.1/32\"]}}}";

static const struct interfaces_config *interfaces_of(const struct config *config) {
    for (struct config_section *s = config_section_first(); s; s = s->next) {
        if (strcmp(s->name, "interfaces") == 0)
            return config_value(config, s);
    }
    return NULL;
}

static void test_right(void **state) {
    struct problems problems = {0};
    struct config *config = decode_text(right, &problems);
    const struct interfaces_config *interfaces = interfaces_of(config);

    (void)state;
    if (problems.count > 0)
        fail_msg("%s: %s", problems.list[0].path, problems.list[0].message);
    assert_int_equal(interfaces->count, 4);

    const struct interface_config *wan = &interfaces->list[0], *lan = &interfaces->list[1],
                                  *guest = &interfaces->list[2], *jumbo = &interfaces->list[3];

    assert_string_equal(wan->name, "wan");
    assert_string_equal(wan->device, "0000:03:00.0");
    assert_int_equal(wan->mtu, 9000);
    assert_true(wan->enabled);
    assert_false(wan->promiscuous || wan->has_mac || wan->router_advertisement.enabled);
    assert_int_equal(wan->rx_queues, 0);
    assert_string_equal(wan->vrf, "default");
    assert_int_equal(lan->mtu, 1500);
    assert_true(lan->promiscuous && lan->has_mac);
    assert_int_equal(lan->rx_descriptors, 512);
    assert_int_equal(lan->address_count, 3);
    assert_string_equal(lan->host_twin, "lan0");

    const struct router_advertisement *ra = &lan->router_advertisement;

    assert_true(ra->enabled && ra->managed && ra->other);
    assert_false(ra->send_mtu || ra->default_prefixes);
    assert_int_equal(ra->interval, 30);
    assert_int_equal(ra->lifetime, 90);
    assert_int_equal(ra->prefix_count, 2);
    assert_true(ra->prefixes[0].on_link && ra->prefixes[0].autonomous);
    assert_int_equal(ra->prefixes[0].valid_lifetime, 2592000);
    assert_int_equal(ra->prefixes[0].preferred_lifetime, 604800);
    assert_int_equal(ra->prefixes[1].valid_lifetime, 100);
    assert_int_equal(ra->prefixes[1].preferred_lifetime, 100);

    assert_string_equal(guest->parent, "lan");
    assert_string_equal(guest->device, "");
    assert_string_equal(guest->vrf, "guest");
    assert_int_equal(guest->vlan, 20);
    assert_int_equal(guest->mtu, 1500);
    assert_false(guest->enabled);
    assert_int_equal(jumbo->mtu, 9000);
    assert_int_equal(wan->tcp_mss, 0);
    assert_int_equal(lan->tcp_mss, 1400);
    assert_int_equal(jumbo->tcp_mss, 8960);
    assert_int_equal(wan->reverse_path, REVERSE_PATH_OFF);
    assert_int_equal(lan->reverse_path, REVERSE_PATH_STRICT);
    assert_int_equal(jumbo->reverse_path, REVERSE_PATH_LOOSE);
    config_free(config);
}

static void test_nothing(void **state) {
    (void)state;
    expect_right("{}");
    expect_right("{\"interfaces\":{},\"vrfs\":{}}");
    expect_right("{\"interfaces\":{\"a\":{" DEVICE ",\"router_advertisement\":true}}}");
    expect_right("{\"interfaces\":{\"a\":{" DEVICE ",\"router_advertisement\":false,\"mtu\":68}}}");
}

static void test_mbufs(void **state) {
    (void)state;
    expect_right("{\"mbufs\":512}");
    expect_right("{\"mbufs\":8388608}");
    EXPECT("{\"mbufs\":511}", "$.mbufs: expected an integer from 512 to 8388608, found 511");
    EXPECT("{\"mbufs\":\"x\"}", "$.mbufs: expected an integer from 512 to 8388608, found a string");
}

static void test_vrfs(void **state) {
    (void)state;
    EXPECT("{\"vrfs\":[]}", "$.vrfs: expected an object, found an array");
    EXPECT(
        "{\"vrfs\":{\"default\":{\"table\":1},\"a\":{},\"b\":{\"table\":0},\"c\":{\"table\":254},"
        "\"d\":{\"table\":7},\"e\":{\"table\":7},\"-f\":{\"table\":8},\"g\":9,\"h\":{\"tabel\":1}}}",
        "$.vrfs.default: the VRF `default` always exists, with table 254, and cannot be configured",
        "$.vrfs.a: `table` is required",
        "$.vrfs.b.table: expected an integer from 1 to 4294967295, found 0",
        "$.vrfs.c.table: table 254 is reserved: Linux uses 253 to 255 itself",
        "$.vrfs.e.table: table 7 already belongs to VRF `d`",
        "$.vrfs[\"-f\"]: expected a name of 1 to 31 letters, digits, '.', '-' or '_' that starts "
        "with a letter or digit, found \"-f\"",
        "$.vrfs.g: expected an object, found an integer", "$.vrfs.h: `table` is required",
        "$.vrfs.h.tabel: unknown key `tabel`; did you mean `table`?");
}

static void test_vrf_of_interface(void **state) {
    (void)state;
    expect_right(one(DEVICE ",\"vrf\":\"default\""));
    EXPECT("{\"vrfs\":{\"guest\":{\"table\":5}},\"interfaces\":{\"a\":{" DEVICE
           ",\"vrf\":\"guests\"},\"b.1\":{\"parent\":\"a\",\"vlan\":1,\"vrf\":\"x\"}}}",
           "$.interfaces.a.vrf: VRF `guests` does not exist",
           "$.interfaces[\"b.1\"].vrf: VRF `x` does not exist");
    EXPECT(one(DEVICE ",\"vrf\":4"), "$.interfaces.a.vrf: expected a string, found an integer");
}

static void test_place(void **state) {
    (void)state;
    EXPECT(one(""), "$.interfaces.a: `device`, or `parent` and `vlan`, or `if_id` is required");
    EXPECT(one("\"device\":\"net_null0\",\"parent\":\"b\",\"vlan\":1"),
           "$.interfaces.a.parent: `parent` cannot stand next to `device`: an interface sits on a "
           "device, or is a VLAN of a parent");
    EXPECT(one("\"device\":\"net_null0\",\"vlan\":1"),
           "$.interfaces.a.vlan: `vlan` cannot stand next to `device`: an interface sits on a "
           "device, or is a VLAN of a parent");
    EXPECT(one("\"parent\":\"b\""), "$.interfaces.a: `vlan` is required next to `parent`",
           "$.interfaces.a.parent: interface `b` does not exist");
    EXPECT(one("\"vlan\":4095"), "$.interfaces.a: `parent` is required next to `vlan`",
           "$.interfaces.a.vlan: expected an integer from 1 to 4094, found 4095");
    EXPECT(one("\"device\":7"), "$.interfaces.a.device: expected a string, found an integer");
    EXPECT(one("\"device\":\"eth0\""),
           "$.interfaces.a.device: `eth0` is neither a PCI address such as 0000:03:00.0 nor a "
           "virtual device such as net_tap0");
    EXPECT(one("\"device\":\"net_null0,size=0,colour=red\""),
           "$.interfaces.a.device: net_null0: argument `size` must be a number from 1 to 2048, but "
           "is `0`",
           "$.interfaces.a.device: net_null0: there is no argument `colour`; it takes size, copy, "
           "no-rx");
}

static void test_parents(void **state) {
    (void)state;
    EXPECT("{\"interfaces\":{\"p\":{" DEVICE ",\"addresses\":[\"bad\"]},"
           "\"v\":{\"parent\":\"p\",\"vlan\":5},\"w\":{\"parent\":\"p\",\"vlan\":5},"
           "\"x\":{\"parent\":\"v\",\"vlan\":6},\"y\":{\"parent\":\"y\",\"vlan\":7},"
           "\"z\":{\"parent\":\"q\",\"vlan\":8,\"rx_queues\":1,\"promiscuous\":true},"
           "\"u\":{\"parent\":\"p\",\"vlan\":6}}}",
           "$.interfaces.p.addresses[0]: expected an address with a prefix length such as "
           "192.0.2.1/24 or 2001:db8::1/64, found \"bad\"",
           "$.interfaces.w.vlan: VLAN 5 of `p` already belongs to interface `v`",
           "$.interfaces.x.parent: `v` is a VLAN itself; a VLAN needs a parent with a `device`",
           "$.interfaces.y.parent: an interface cannot be its own parent",
           "$.interfaces.z.parent: interface `q` does not exist",
           "$.interfaces.z.rx_queues: only an interface with a `device` has `rx_queues`",
           "$.interfaces.z.promiscuous: only an interface with a `device` has `promiscuous`");
}

static void test_tunnels(void **state) {
    (void)state;
    EXPECT(
        "{\"interfaces\":{\"a\":{\"if_id\":0},\"b\":{\"if_id\":7,\"device\":\"net_null0\"},"
        "\"c\":{\"if_id\":7},\"d\":{\"parent\":\"c\",\"vlan\":5},"
        "\"e\":{\"if_id\":8,\"host_twin\":\"vpn0\",\"mac\":\"02:00:00:00:00:01\","
        "\"rx_queues\":1,\"router_advertisement\":true},"
        "\"f\":{\"if_id\":9,\"mtu\":1200,\"addresses\":[\"2001:db8::1/64\"]}}}",
        "$.interfaces.a.if_id: expected an integer from 1 to 4294967295, found 0",
        "$.interfaces.b.device: `device` cannot stand next to `if_id`: a tunnel interface sits on "
        "nothing but IPsec",
        "$.interfaces.e.rx_queues: only an interface with a `device` has `rx_queues`",
        "$.interfaces.e.mac: only an interface with a link layer has `mac`",
        "$.interfaces.e.host_twin: only an interface with a link layer has `host_twin`",
        "$.interfaces.e.router_advertisement: only an interface with a link layer has "
        "`router_advertisement`",
        "$.interfaces.c.if_id: 7 already belongs to interface `b`",
        "$.interfaces.d.parent: `c` is a tunnel itself; a VLAN needs a parent with a `device`",
        "$.interfaces.f.mtu: IPv6 needs an MTU of at least 1280, found 1200");
}

static void test_devices_twice(void **state) {
    (void)state;
    EXPECT(
        "{\"interfaces\":{\"a\":{\"device\":\"net_null0\"},\"b\":{\"device\":\"net_null0,size=64\"},"
        "\"c\":{\"device\":\"0000:03:00.0\"},\"d\":{\"device\":\"03:00.0\"},"
        "\"e\":{\"device\":\"0000:03:00.0,port=1\"},\"f\":{\"device\":\"03:00.0,port=0\"},"
        "\"g\":{\"device\":\"net_null1\"}}}",
        "$.interfaces.b.device: the device already belongs to interface `a`",
        "$.interfaces.d.device: the device already belongs to interface `c`",
        "$.interfaces.f.device: the device already belongs to interface `c`",
        "$.interfaces.f.device: the device already belongs to interface `d`");
}

static void test_twins(void **state) {
    (void)state;
    EXPECT("{\"interfaces\":{\"a\":{\"device\":\"net_null0\",\"host_twin\":\"t\"},"
           "\"b\":{\"device\":\"net_null1\",\"host_twin\":\"t\"},"
           "\"c\":{\"device\":\"net_null2\",\"host_twin\":\"lo\"},"
           "\"d\":{\"device\":\"net_null3\",\"host_twin\":\"sixteen-letters-\"},"
           "\"e\":{\"device\":\"net_null4\",\"host_twin\":\"a/b\"},"
           "\"f\":{\"device\":\"net_null5\",\"host_twin\":\"\"},"
           "\"g\":{\"device\":\"net_null6\",\"host_twin\":\"tap%d\"},"
           "\"h\":{\"device\":\"net_null7\",\"host_twin\":\"fifteen-letters\"}}}",
           "$.interfaces.b.host_twin: `t` is already the host twin of interface `a`",
           "$.interfaces.c.host_twin: `lo` is reserved by Linux",
           "$.interfaces.d.host_twin: expected the name of a Linux interface: 1 to 15 characters, "
           "without spaces, '/', ':', '%' and quotes",
           "$.interfaces.e.host_twin: expected the name of a Linux interface: 1 to 15 characters, "
           "without spaces, '/', ':', '%' and quotes",
           "$.interfaces.f.host_twin: expected a string, found an empty string",
           "$.interfaces.g.host_twin: expected the name of a Linux interface: 1 to 15 characters, "
           "without spaces, '/', ':', '%' and quotes");
}

static void test_tcp_mss(void **state) {
    static const char wanted[] =
        "$.interfaces.a.tcp_mss: expected an integer from 88 to 65535, or \"auto\"";

    (void)state;
    expect_right(one(DEVICE ",\"tcp_mss\":88"));
    expect_right(one(DEVICE ",\"tcp_mss\":65535"));
    expect_right(one(DEVICE ",\"tcp_mss\":\"auto\",\"mtu\":68"));
    EXPECT(one(DEVICE ",\"tcp_mss\":87"),
           "$.interfaces.a.tcp_mss: expected an integer from 88 to 65535, found 87");
    EXPECT(one(DEVICE ",\"tcp_mss\":65536"),
           "$.interfaces.a.tcp_mss: expected an integer from 88 to 65535, found 65536");
    EXPECT(one(DEVICE ",\"tcp_mss\":\"Auto\""), wanted);
    EXPECT(one(DEVICE ",\"tcp_mss\":true"), wanted);
    EXPECT(one(DEVICE ",\"tcp_mss\":null"), wanted);
    EXPECT(one(DEVICE ",\"tcp_mss\":\"auto\",\"mtu\":67"),
           "$.interfaces.a.mtu: expected an integer from 68 to 9216, found 67");
}

static void test_reverse_path(void **state) {
    (void)state;
    expect_right(one(DEVICE ",\"reverse_path\":\"off\""));
    EXPECT(one(DEVICE ",\"reverse_path\":\"feasible\""),
           "$.interfaces.a.reverse_path: expected \"off\", \"loose\" or \"strict\", found "
           "\"feasible\"");
    EXPECT(one(DEVICE ",\"reverse_path\":true"),
           "$.interfaces.a.reverse_path: expected \"off\", \"loose\" or \"strict\", found true");
}

static void test_mtu(void **state) {
    (void)state;
    expect_right(one(DEVICE ",\"mtu\":1280,\"addresses\":[\"2001:db8::1/64\"]"));
    EXPECT(one(DEVICE ",\"mtu\":67"),
           "$.interfaces.a.mtu: expected an integer from 68 to 9216, found 67");
    EXPECT(one(DEVICE ",\"mtu\":67,\"addresses\":[\"2001:db8::1/64\"]"),
           "$.interfaces.a.mtu: expected an integer from 68 to 9216, found 67");
    EXPECT(
        "{\"interfaces\":{\"v\":{\"parent\":\"a\",\"vlan\":1,\"addresses\":[\"2001:db8::1/64\"]},"
        "\"a\":{" DEVICE ",\"mtu\":1000,\"router_advertisement\":true},"
        "\"w\":{\"parent\":\"a\",\"vlan\":2,\"mtu\":1001},"
        "\"x\":{\"parent\":\"a\",\"vlan\":3,\"mtu\":1000}}}",
        "$.interfaces.v: IPv6 needs an MTU of at least 1280, found 1000",
        "$.interfaces.a.mtu: IPv6 needs an MTU of at least 1280, found 1000",
        "$.interfaces.w.mtu: expected at most the MTU 1000 of the parent `a`, found 1001");
}

static void test_address_kinds(void **state) {
    (void)state;
    expect_right(one(DEVICE ",\"addresses\":[\"10.0.0.0/31\",\"10.0.0.3/31\",\"10.1.0.0/32\","
                            "\"10.2.255.255/32\",\"2001:db8::/127\",\"2001:db8:1::/128\"]"));
    EXPECT(
        one(DEVICE
            ",\"addresses\":[\"224.0.0.5/24\",\"127.0.0.1/8\",\"0.1.2.3/8\",\"240.0.0.1/8\","
            "\"10.0.0.0/24\",\"10.0.0.255/24\",\"10.1.2.3/0\",\"ff02::1/64\",\"::1/128\",\"::/0\","
            "\"2001:db8::/64\",\"::ffff:1.2.3.4/96\",\"10.9.0.1\",5,\"10.0.0.3/30\"]"),
        "$.interfaces.a.addresses[0]: 224.0.0.5 is a multicast address, which no interface can have",
        "$.interfaces.a.addresses[1]: 127.0.0.1 is a loopback address, which no interface can have",
        "$.interfaces.a.addresses[2]: 0.1.2.3 is not a unicast address that an interface can have",
        "$.interfaces.a.addresses[3]: 240.0.0.1 is not a unicast address that an interface can have",
        "$.interfaces.a.addresses[4]: 10.0.0.0 is the network address of 10.0.0.0/24, which no "
        "interface can have",
        "$.interfaces.a.addresses[5]: 10.0.0.255 is the broadcast address of 10.0.0.0/24, which no "
        "interface can have",
        "$.interfaces.a.addresses[6]: expected a prefix length from 1 to 32, found 0",
        "$.interfaces.a.addresses[7]: ff02::1 is a multicast address, which no interface can have",
        "$.interfaces.a.addresses[8]: ::1 is a loopback address, which no interface can have",
        "$.interfaces.a.addresses[9]: :: is not a unicast address that an interface can have",
        "$.interfaces.a.addresses[10]: 2001:db8:: is the subnet-router anycast address of "
        "2001:db8::/64 (RFC 4291), which no interface can have",
        "$.interfaces.a.addresses[11]: ::ffff:1.2.3.4 is not a unicast address that an interface "
        "can have",
        "$.interfaces.a.addresses[12]: expected an address with a prefix length such as "
        "192.0.2.1/24 or 2001:db8::1/64, found \"10.9.0.1\"",
        "$.interfaces.a.addresses[13]: expected an address with a prefix length such as "
        "192.0.2.1/24 or 2001:db8::1/64, found an integer",
        "$.interfaces.a.addresses[14]: 10.0.0.3 is the broadcast address of 10.0.0.0/30, which no "
        "interface can have");
    EXPECT(one(DEVICE ",\"addresses\":\"10.0.0.1/24\""),
           "$.interfaces.a.addresses: expected an array, found a string");
}

static void test_address_number(void **state) {
    char text[4096] = DEVICE ",\"addresses\":[";

    (void)state;
    for (unsigned i = 0; i < 64; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\"10.0.%u.1/24\"",
                 i ? "," : "", i);
    strcat(text, "]");
    EXPECT(one(text), "$.interfaces.a.addresses: expected at most 63 addresses, found 64");
}

static void test_addresses_collide(void **state) {
    (void)state;
    EXPECT(
        "{\"vrfs\":{\"g\":{\"table\":9}},\"interfaces\":{"
        "\"a\":{\"device\":\"net_null0\",\"addresses\":[\"10.0.0.1/16\",\"10.0.0.1/24\","
        "\"fe80::1/64\",\"2001:db8::1/64\"]},"
        "\"b\":{\"device\":\"net_null1\",\"addresses\":[\"10.0.0.1/16\",\"10.0.9.1/24\","
        "\"fe80::1/64\",\"fe80::1/10\",\"10.1.0.1/16\"]},"
        "\"c\":{\"device\":\"net_null2\",\"addresses\":[\"8.1.1.1/5\",\"2001:db8::2/128\"]},"
        "\"d\":{\"device\":\"net_null3\",\"vrf\":\"g\",\"addresses\":[\"10.0.0.1/16\"]}}}",
        "$.interfaces.a.addresses[1]: 10.0.0.1 stands there twice",
        "$.interfaces.b.addresses[0]: 10.0.0.1 is already an address of interface `a` in VRF "
        "`default`",
        "$.interfaces.b.addresses[1]: 10.0.9.0/24 overlaps 10.0.0.0/16 of interface `a` in VRF "
        "`default`",
        "$.interfaces.b.addresses[3]: fe80::1 stands there twice",
        "$.interfaces.c.addresses[0]: 8.0.0.0/5 overlaps 10.0.0.0/16 of interface `a` in VRF "
        "`default`",
        "$.interfaces.c.addresses[0]: 8.0.0.0/5 overlaps 10.1.0.0/16 of interface `b` in VRF "
        "`default`",
        "$.interfaces.c.addresses[1]: 2001:db8::2/128 overlaps 2001:db8::/64 of interface `a` in "
        "VRF `default`");
}

static void test_values(void **state) {
    (void)state;
    EXPECT(
        "{\"interfaces\":{\"bad name\":{" DEVICE "},\"b\":true}}",
        "$.interfaces[\"bad name\"]: expected a name of 1 to 31 letters, digits, '.', '-' or '_' "
        "that starts with a letter or digit, found \"bad name\"",
        "$.interfaces.b: expected an object, found true");
    EXPECT("{\"interfaces\":[]}", "$.interfaces: expected an object, found an array");
    EXPECT(one(DEVICE ",\"mac\":\"01:00:00:00:00:01\",\"enabled\":1,\"promiscuous\":\"yes\","
                      "\"rx_queues\":0,\"tx_queues\":65,\"rx_descriptors\":8,"
                      "\"tx_descriptors\":65536,\"adresses\":[]"),
           "$.interfaces.a.mac: expected a unicast MAC address, found the group address "
           "01:00:00:00:00:01",
           "$.interfaces.a.enabled: expected true or false, found an integer",
           "$.interfaces.a.promiscuous: expected true or false, found a string",
           "$.interfaces.a.rx_queues: expected an integer from 1 to 64, found 0",
           "$.interfaces.a.tx_queues: expected an integer from 1 to 64, found 65",
           "$.interfaces.a.rx_descriptors: expected an integer from 16 to 32768, found 8",
           "$.interfaces.a.tx_descriptors: expected an integer from 16 to 32768, found 65536",
           "$.interfaces.a.adresses: unknown key `adresses`; did you mean `addresses`?");
}

static void test_advertisement(void **state) {
    (void)state;
    EXPECT(one(DEVICE ",\"router_advertisement\":1"),
           "$.interfaces.a.router_advertisement: expected true, false or an object");
    EXPECT(
        one(DEVICE ",\"router_advertisement\":{\"interval\":3,\"lifetime\":9001,\"manged\":true}"),
        "$.interfaces.a.router_advertisement.interval: expected an integer from 4 to 1800, found 3",
        "$.interfaces.a.router_advertisement.lifetime: expected an integer from 0 to 9000, found "
        "9001",
        "$.interfaces.a.router_advertisement.manged: unknown key `manged`; did you mean `managed`?");
    EXPECT(
        one(DEVICE ",\"router_advertisement\":{\"interval\":300,\"lifetime\":299}"),
        "$.interfaces.a.router_advertisement.lifetime: expected 0, or at least the interval 300, "
        "found 299");
    EXPECT(
        one(DEVICE ",\"router_advertisement\":{\"prefixes\":[{},{\"prefix\":\"10.0.0.0/8\"},"
                   "{\"prefix\":\"fe80::/64\"},{\"prefix\":\"2001:db8::/48\"},"
                   "{\"prefix\":\"2001:db8:1::/64\"},{\"prefix\":\"2001:db8:1::/64\"},"
                   "{\"prefix\":\"2001:db8:2::/64\",\"valid_lifetime\":5,\"preferred_lifetime\":6},"
                   "{\"prefix\":\"2001:db8::1/64\"}]}"),
        "$.interfaces.a.router_advertisement.prefixes[0]: `prefix` is required",
        "$.interfaces.a.router_advertisement.prefixes[1].prefix: expected an IPv6 prefix, found "
        "10.0.0.0/8",
        "$.interfaces.a.router_advertisement.prefixes[2].prefix: fe80::/64 is a link-local prefix, "
        "which no router advertises",
        "$.interfaces.a.router_advertisement.prefixes[3].prefix: hosts can make addresses only "
        "from a prefix of length 64; set `autonomous` to false for 2001:db8::/48",
        "$.interfaces.a.router_advertisement.prefixes[5].prefix: 2001:db8:1::/64 stands there "
        "twice",
        "$.interfaces.a.router_advertisement.prefixes[6].preferred_lifetime: expected at most the "
        "valid lifetime 5, found 6",
        "$.interfaces.a.router_advertisement.prefixes[7].prefix: host bits are set; did you mean "
        "2001:db8::/64?");
}

static void test_all_at_once(void **state) {
    (void)state;
    EXPECT("{\"mbufs\":1,\"vrfs\":{\"g\":{}},\"interfaces\":{\"a\":{\"device\":\"x\",\"mtu\":1},"
           "\"b\":{\"parent\":\"a\"},\"c\":{}}}",
           "$.mbufs: expected an integer from 512 to 8388608, found 1",
           "$.vrfs.g: `table` is required",
           "$.interfaces.a.device: `x` is neither a PCI address such as 0000:03:00.0 nor a virtual "
           "device such as net_tap0",
           "$.interfaces.a.mtu: expected an integer from 68 to 9216, found 1",
           "$.interfaces.b: `vlan` is required next to `parent`",
           "$.interfaces.c: `device`, or `parent` and `vlan`, or `if_id` is required");
}

/* The most there can be, with addresses that all nest in those of the first. */
static void test_many(void **state) {
    size_t size = 1 << 20, used;
    char *text = malloc(size);

    (void)state;
    used = (size_t)snprintf(text, size, "{\"interfaces\":{\"p\":{" DEVICE "}");
    for (unsigned i = 1; i < INTERFACES_MAX - 1; i++)
        used += (size_t)snprintf(text + used, size - used,
                                 ",\"v%u\":{\"parent\":\"p\",\"vlan\":%u,\"addresses\":["
                                 "\"10.%u.%u.1/24\",\"2001:db8:%x::1/64\"]}",
                                 i, i, i / 256, i % 256, i);
    snprintf(text + used, size - used, "}}");
    expect_right(text);
    snprintf(text + used, size - used, ",\"one\":{\"device\":\"net_null1\"}}}");
    EXPECT(text, "$.interfaces: expected at most 1023 interfaces, found 1024");
    free(text);
}

static bool on_link(const struct config *config, const char *vrf, const char *interface,
                    const char *text) {
    struct ip_address address;

    assert_int_equal(ip_address_parse(text, &address), 0);
    return interface_configured_on_link(config, vrf, interface, &address);
}

static void test_names_for_others(void **state) {
    struct problems problems = {0};
    struct config *config = decode_text(right, &problems), *empty = config_new();

    (void)state;
    assert_true(interface_configured(config, "wan") && interface_configured(config, "guest.20"));
    assert_false(interface_configured(config, "guest") || interface_configured(empty, "wan"));
    assert_false(interface_configured(NULL, "wan"));
    assert_true(vrf_configured(config, "guest") && vrf_configured(config, "default"));
    assert_false(vrf_configured(config, "gues") || vrf_configured(NULL, "guest"));
    assert_true(vrf_configured(NULL, "default"));
    assert_string_equal(interface_configured_vrf(config, "guest.20"), "guest");
    assert_string_equal(interface_configured_vrf(config, "lan"), "default");
    assert_null(interface_configured_vrf(config, "nobody"));

    assert_true(on_link(config, "default", NULL, "203.0.113.254"));
    assert_true(on_link(config, "default", "wan", "203.0.113.254"));
    assert_false(on_link(config, "default", "lan", "203.0.113.254"));
    assert_false(on_link(config, "guest", NULL, "203.0.113.254"));
    assert_true(on_link(config, "default", NULL, "192.168.1.77"));
    assert_true(on_link(config, "guest", NULL, "192.168.1.77"));
    assert_true(on_link(config, "guest", "guest.20", "192.168.1.77"));
    assert_false(on_link(config, "default", "guest.20", "192.168.1.77"));
    assert_true(on_link(config, "default", NULL, "198.51.100.0"));
    assert_false(on_link(config, "default", NULL, "198.51.100.2"));
    assert_true(on_link(config, "default", NULL, "10.0.0.1"));
    assert_false(on_link(config, "default", NULL, "10.0.0.0"));
    assert_false(on_link(config, "default", NULL, "255.255.255.255"));
    assert_false(on_link(config, "default", NULL, "0.0.0.0"));
    assert_true(on_link(config, "default", NULL, "2001:db8:1::99"));
    assert_false(on_link(config, "default", NULL, "2001:db8:2::99"));
    assert_false(on_link(config, "default", NULL, "fe80::99"));
    assert_true(on_link(config, "default", "lan", "fe80::99"));
    assert_true(on_link(config, "guest", "guest.20", "fe80::99"));
    assert_false(on_link(config, "default", "wan", "fe80::99"));
    assert_false(on_link(config, "default", "nobody", "203.0.113.254"));
    config_free(config);
    config_free(empty);
}

/* A host prefix around which there is a wider one of the same interface, and gaps between. */
static void test_nested_on_link(void **state) {
    struct problems problems = {0};
    struct config *config =
        decode_text(one(DEVICE ",\"addresses\":[\"10.0.0.1/8\",\"10.1.0.1/16\",\"10.1.2.1/24\","
                               "\"10.9.9.9/32\",\"11.0.0.1/24\"]"),
                    &problems);

    (void)state;
    assert_int_equal(problems.count, 0);
    assert_true(on_link(config, "default", "a", "10.1.2.9"));
    assert_true(on_link(config, "default", "a", "10.1.9.9"));
    assert_true(on_link(config, "default", "a", "10.200.0.1"));
    assert_true(on_link(config, "default", "a", "10.9.9.9"));
    assert_true(on_link(config, "default", "a", "10.255.255.255"));
    assert_false(on_link(config, "default", "a", "11.0.1.1"));
    assert_false(on_link(config, "default", "a", "9.255.255.255"));
    config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_mbufs),
        cmocka_unit_test(test_vrfs),
        cmocka_unit_test(test_vrf_of_interface),
        cmocka_unit_test(test_place),
        cmocka_unit_test(test_parents),
        cmocka_unit_test(test_tunnels),
        cmocka_unit_test(test_devices_twice),
        cmocka_unit_test(test_twins),
        cmocka_unit_test(test_mtu),
        cmocka_unit_test(test_tcp_mss),
        cmocka_unit_test(test_reverse_path),
        cmocka_unit_test(test_address_kinds),
        cmocka_unit_test(test_address_number),
        cmocka_unit_test(test_addresses_collide),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_advertisement),
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_names_for_others),
        cmocka_unit_test(test_nested_on_link),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
