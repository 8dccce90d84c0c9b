/*
 * Addresses and prefixes: text forms there and back, what is refused, order and classes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "core/ip.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct ip_address address_of(const char *text) {
    struct ip_address address;
    if (ip_address_parse(text, &address) != 0)
        fail_msg("`%s` should be an address", text);
    return address;
}

static struct ip_prefix interface_of(const char *text) {
    struct ip_prefix prefix;
    if (ip_interface_parse(text, &prefix) != 0)
        fail_msg("`%s` should be an interface address", text);
    return prefix;
}

static void addresses_read_and_write(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"192.0.2.1", "192.0.2.1"},
        {"0.0.0.0", "0.0.0.0"},
        {"255.255.255.255", "255.255.255.255"},
        {"::", "::"},
        {"::1", "::1"},
        {"1::", "1::"},
        /* RFC 5952 section 4.1 and 4.3: no leading zeros, lower case */
        {"2001:0DB8:0000:0000:0000:0000:0002:0001", "2001:db8::2:1"},
        /* 4.2.1: as short as possible */
        {"2001:db8:0:0:0:0:2:1", "2001:db8::2:1"},
        /* 4.2.2: one zero group is not shortened */
        {"2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
        {"0:2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"},
        {"::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"},
        {"1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"},
        /* 4.2.3: the longest run, the first among equals */
        {"2001:0:0:1:0:0:0:1", "2001:0:0:1::1"},
        {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
        {"0:0:1::", "0:0:1::"},
        {"0:0:1:2:3:4:0:0", "::1:2:3:4:0:0"},
        /* 5: mixed notation where the prefix says that an IPv4 address follows */
        {"::ffff:c000:201", "::ffff:192.0.2.1"},
        {"::FFFF:192.0.2.1", "::ffff:192.0.2.1"},
        {"::192.0.2.1", "::c000:201"},
        {"::1:2", "::1:2"},
        {"64:ff9b::192.0.2.1", "64:ff9b::c000:201"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ip_address address = address_of(cases[i].in);
        char text[IP_ADDRESS_TEXT];
        assert_ptr_equal(ip_address_text(&address, text), text);
        assert_string_equal(text, cases[i].out);
        struct ip_address again = address_of(text);
        assert_memory_equal(&again, &address, sizeof(address));
    }
    struct ip_address none = {0};
    char text[IP_ADDRESS_TEXT];
    assert_string_equal(ip_address_text(&none, text), "none");
}

static void random_addresses_round_trip(void **state) {
    (void)state;
    srand(1);
    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[16];
        for (size_t j = 0; j < sizeof(bytes); j++)
            bytes[j] = rand() % 3 == 0 ? (uint8_t)rand() : 0; /* many zero runs */
        struct ip_address address = i % 2 != 0 ? ip4_address(bytes) : ip6_address(bytes);
        char text[IP_ADDRESS_TEXT];
        ip_address_text(&address, text);
        struct ip_address again = address_of(text);
        assert_memory_equal(&again, &address, sizeof(address));

        struct ip_prefix prefix = {
            .address = address, .length = (uint8_t)(rand() % (ip_family_bits(address.family) + 1))};
        char prefix_text[IP_PREFIX_TEXT];
        struct ip_prefix read = interface_of(ip_prefix_text(&prefix, prefix_text));
        assert_memory_equal(&read, &prefix, sizeof(prefix));

        /* The network is what ip_prefix_parse() accepts, and it covers where it came from. */
        struct ip_prefix network = ip_prefix_network(&prefix);
        assert_int_equal(ip_prefix_parse(ip_prefix_text(&network, prefix_text), &read), 0);
        assert_int_equal(ip_prefix_compare(&read, &network), 0);
        assert_true(ip_prefix_contains(&network, &address));
    }
}

static void wrong_addresses_are_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "",
        " ",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.1.1",
        "192.0.2.01",
        "192.0.2.1 ",
        " 192.0.2.1",
        "0x7f000001",
        "3221225985",
        "192.0.2.-1",
        "192.0.2.1/24",
        ":",
        ":::",
        "1::2::3",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "12345::",
        "g::",
        "fe80::1%eth0",
        "::1.2.3",
        "1:2:3:4:5:6:7:1.2.3.4",
        "1::2:3:4:5:6:7:8",
        "localhost",
    };
    for (size_t i = 0; i < COUNT(wrong); i++) {
        struct ip_address address = {.family = 99};
        if (ip_address_parse(wrong[i], &address) != -EINVAL)
            fail_msg("`%s` should be refused", wrong[i]);
        assert_int_equal(address.family, 99);
    }
}

static void prefixes_keep_host_bits_out(void **state) {
    (void)state;
    struct ip_prefix prefix;
    static const char *const right[] = {
        "0.0.0.0/0", "10.0.0.0/8",    "192.0.2.128/25", "192.0.2.1/32", "::/0",
        "fe80::/10", "2001:db8::/33", "::1/128",        "128.0.0.0/1",  "224.0.0.0/3"};
    for (size_t i = 0; i < COUNT(right); i++) {
        char text[IP_PREFIX_TEXT];
        assert_int_equal(ip_prefix_parse(right[i], &prefix), 0);
        assert_string_equal(ip_prefix_text(&prefix, text), right[i]);
    }

    static const char *const host_bits[] = {"10.0.0.1/8",   "192.0.2.128/24",  "0.0.0.1/0",
                                            "192.0.2.1/31", "2001:db8::1/127", "::1/0"};
    for (size_t i = 0; i < COUNT(host_bits); i++) {
        prefix.length = 200;
        assert_int_equal(ip_prefix_parse(host_bits[i], &prefix), -EDOM);
        assert_int_equal(prefix.length, 200);
        assert_int_equal(ip_interface_parse(host_bits[i], &prefix), 0);
    }

    static const char *const wrong[] = {"10.0.0.0",
                                        "10.0.0.0/",
                                        "/8",
                                        "10.0.0.0/33",
                                        "10.0.0.0/08",
                                        "10.0.0.0/+8",
                                        "10.0.0.0/-1",
                                        "10.0.0.0/8 ",
                                        "::/129",
                                        "::/1000",
                                        "::/00",
                                        "10.0.0/8",
                                        "10.0.0.0/8/8",
                                        "10.0.0.0/0x8",
                                        "::/4294967296",
                                        "2001:0db8:0000:0000:0000:0000:0000:0000:0000:00001/64"};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        if (ip_prefix_parse(wrong[i], &prefix) != -EINVAL ||
            ip_interface_parse(wrong[i], &prefix) != -EINVAL)
            fail_msg("`%s` should be refused", wrong[i]);
    }
}

static void networks(void **state) {
    (void)state;
    static const struct {
        const char *address, *network;
    } cases[] = {{"192.168.1.77/24", "192.168.1.0/24"},
                 {"192.168.1.77/26", "192.168.1.64/26"},
                 {"255.255.255.255/1", "128.0.0.0/1"},
                 {"192.0.2.1/0", "0.0.0.0/0"},
                 {"192.0.2.1/32", "192.0.2.1/32"},
                 {"2001:db8:1:2:3::4/64", "2001:db8:1:2::/64"},
                 {"ffff::1/9", "ff80::/9"},
                 {"::1/128", "::1/128"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ip_prefix from = interface_of(cases[i].address);
        struct ip_prefix network = ip_prefix_network(&from);
        char text[IP_PREFIX_TEXT];
        assert_string_equal(ip_prefix_text(&network, text), cases[i].network);
    }
}

static void covering_and_overlapping(void **state) {
    (void)state;
    static const struct {
        const char *prefix, *address;
        bool inside;
    } cases[] = {
        {"192.0.2.0/24", "192.0.2.255", true},
        {"192.0.2.0/24", "192.0.3.0", false},
        {"192.0.2.0/25", "192.0.2.128", false},
        {"0.0.0.0/0", "255.1.2.3", true},
        {"0.0.0.0/0", "::", false},
        {"::/0", "0.0.0.0", false},
        {"192.0.2.1/32", "192.0.2.1", true},
        {"192.0.2.1/32", "192.0.2.0", false},
        {"2001:db8::/33", "2001:db8:7fff::", true},
        {"2001:db8::/33", "2001:db8:8000::", false},
        {"::1/128", "::1", true},
        {"::1/128", "::2", false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ip_prefix prefix = interface_of(cases[i].prefix);
        struct ip_address address = address_of(cases[i].address);
        assert_int_equal(ip_prefix_contains(&prefix, &address), cases[i].inside);
    }
    struct ip_prefix wide = interface_of("10.0.0.0/8"), narrow = interface_of("10.1.0.0/16"),
                     other = interface_of("10.2.0.0/16"), ipv6 = interface_of("::/0");
    assert_true(ip_prefix_overlaps(&wide, &narrow));
    assert_true(ip_prefix_overlaps(&narrow, &wide));
    assert_true(ip_prefix_overlaps(&wide, &wide));
    assert_false(ip_prefix_overlaps(&narrow, &other));
    assert_false(ip_prefix_overlaps(&wide, &ipv6));
    assert_false(ip_prefix_overlaps(&ipv6, &wide));
}

static void order(void **state) {
    (void)state;
    static const char *const sorted[] = {"0.0.0.0/0",   "9.255.0.0/16", "10.0.0.0/8",
                                         "10.0.0.0/16", "10.0.0.1/32",  "255.0.0.0/8",
                                         "::/0",        "::1/128",      "fe80::/10"};
    for (size_t i = 0; i < COUNT(sorted); i++) {
        for (size_t j = 0; j < COUNT(sorted); j++) {
            struct ip_prefix a = interface_of(sorted[i]), b = interface_of(sorted[j]);
            int result = ip_prefix_compare(&a, &b);
            assert_int_equal((result > 0) - (result < 0), (i > j) - (i < j));
        }
    }
    struct ip_address a = address_of("192.0.2.1");
    assert_int_equal(ip4_host_order(&a), 0xc0000201);
}

static void classes(void **state) {
    (void)state;
    enum { UNSPECIFIED = 1, LOOPBACK = 2, MULTICAST = 4, LINK_LOCAL = 8, HOST = 16 };
    static const struct {
        const char *address;
        int classes;
    } cases[] = {
        {"0.0.0.0", UNSPECIFIED},
        {"0.0.0.1", 0},
        {"1.0.0.0", HOST},
        {"10.1.2.3", HOST},
        {"126.255.255.255", HOST},
        {"127.0.0.1", LOOPBACK},
        {"127.255.255.255", LOOPBACK},
        {"128.0.0.0", HOST},
        {"169.254.0.1", LINK_LOCAL | HOST},
        {"169.253.0.1", HOST},
        {"223.255.255.255", HOST},
        {"224.0.0.1", MULTICAST},
        {"239.255.255.255", MULTICAST},
        {"240.0.0.0", 0},
        {"255.255.255.255", 0},
        {"::", UNSPECIFIED},
        {"::1", LOOPBACK},
        {"::2", HOST},
        {"2001:db8::1", HOST},
        {"fe80::1", LINK_LOCAL | HOST},
        {"febf::1", LINK_LOCAL | HOST},
        {"fec0::1", HOST},
        {"fd00::1", HOST},
        {"ff02::1", MULTICAST},
        {"::ffff:192.0.2.1", 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct ip_address a = address_of(cases[i].address);
        int found = (ip_address_is_unspecified(&a) ? UNSPECIFIED : 0) |
                    (ip_address_is_loopback(&a) ? LOOPBACK : 0) |
                    (ip_address_is_multicast(&a) ? MULTICAST : 0) |
                    (ip_address_is_link_local(&a) ? LINK_LOCAL : 0) |
                    (ip_address_is_host(&a) ? HOST : 0);
        if (found != cases[i].classes)
            fail_msg("%s is in classes %#x, expected %#x", cases[i].address, found,
                     cases[i].classes);
    }
    struct ip_address none = {0};
    assert_false(ip_address_is_unspecified(&none));
    assert_false(ip_address_is_host(&none));
}

static void mac_addresses(void **state) {
    (void)state;
    uint8_t mac[6];
    char text[MAC_ADDRESS_TEXT];
    assert_int_equal(mac_address_parse("02:00:5E:aB:cd:fF", mac), 0);
    assert_memory_equal(mac, ((uint8_t[]){0x02, 0x00, 0x5e, 0xab, 0xcd, 0xff}), 6);
    assert_string_equal(mac_address_text(mac, text), "02:00:5e:ab:cd:ff");

    static const char *const wrong[] = {"",
                                        "02:00:00:00:00",
                                        "02:00:00:00:00:0",
                                        "2:0:0:0:0:1",
                                        "02:00:00:00:00:001",
                                        "02-00-00-00-00-01",
                                        "02:00:00:00:00:0g",
                                        "02:00:00:00:00:01:",
                                        "0200.0000.0001",
                                        "+2:00:00:00:00:01",
                                        " 2:00:00:00:00:01"};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        uint8_t untouched[6] = {1, 2, 3, 4, 5, 6};
        assert_int_equal(mac_address_parse(wrong[i], untouched), -EINVAL);
        assert_memory_equal(untouched, ((uint8_t[]){1, 2, 3, 4, 5, 6}), 6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_read_and_write),
        cmocka_unit_test(random_addresses_round_trip),
        cmocka_unit_test(wrong_addresses_are_refused),
        cmocka_unit_test(prefixes_keep_host_bits_out),
        cmocka_unit_test(networks),
        cmocka_unit_test(covering_and_overlapping),
        cmocka_unit_test(order),
        cmocka_unit_test(classes),
        cmocka_unit_test(mac_addresses),
    };
    return cmocka_run_group_tests_name("ip", tests, NULL, NULL);
}
