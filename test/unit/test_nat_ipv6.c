/* NPTv6 and addresses of NAT64: what an address becomes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "nat/nat_ipv6.h"
#include "session/embedded.h"

static struct nat_prefix6 prefix(const char *address, uint8_t length) {
    struct nat_prefix6 out = {.length = length};

    assert_int_equal(inet_pton(AF_INET6, address, out.address), 1);
    return out;
}

static struct nptv6_rule rule(const char *inside, const char *outside, uint8_t length) {
    struct nptv6_rule out = {
        .out = 1, .inside = prefix(inside, length), .outside = prefix(outside, length)};

    nptv6_prepare(&out);
    return out;
}

/* What becomes of the address; NULL if it has no counterpart. */
static const char *becomes(const struct nptv6_rule *by, bool outward, const char *address) {
    static char text[INET6_ADDRSTRLEN];
    uint8_t from[16], to[16];

    assert_int_equal(inet_pton(AF_INET6, address, from), 1);
    if (!nptv6_translate(by, outward, from, to))
        return NULL;
    return inet_ntop(AF_INET6, to, text, sizeof(text));
}

/* One's complement sum of the words, 0 and 0xffff being the same. */
static unsigned sum(const uint8_t address[16]) {
    unsigned total = 0;

    for (unsigned i = 0; i < 16; i += 2)
        total += (unsigned)address[i] << 8 | address[i + 1];
    return total % 0xffff;
}

static uint32_t random_state = 1;

static uint8_t draw(void) {
    random_state = random_state * 1664525 + 1013904223;
    return (uint8_t)(random_state >> 24);
}

/* The examples of RFC 6296 sections 2.1 and appendix B. */
static void test_the_rfcs_example(void **state) {
    struct nptv6_rule by = rule("fd01:203:405::", "2001:db8:1::", 48);

    (void)state;
    assert_string_equal(becomes(&by, true, "fd01:203:405:1::1234"), "2001:db8:1:d550::1234");
    assert_string_equal(becomes(&by, false, "2001:db8:1:d550::1234"), "fd01:203:405:1::1234");
}

static void test_what_has_no_counterpart(void **state) {
    struct nptv6_rule by = rule("fd01:203:405::", "2001:db8:1::", 48);
    struct nptv6_rule longer = rule("fd01:203:405:6::", "2001:db8:1:2::", 64);

    (void)state;
    assert_null(becomes(&by, true, "fd01:203:405:ffff::1"));
    assert_null(becomes(&by, false, "2001:db8:1:ffff::1"));
    assert_null(becomes(&longer, true, "fd01:203:405:6::"));
    assert_null(becomes(&longer, true, "fd01:203:405:6:ffff:ffff:ffff:ffff"));
    assert_non_null(becomes(&longer, true, "fd01:203:405:6:ffff:ffff:ffff:1"));
}

/* Prefixes of all lengths: there and back is the same, the rest of the bits stays, and no checksum
 * changes. */
static void test_there_and_back(void **state) {
    (void)state;
    for (unsigned length = 1; length <= 64; length++) {
        for (unsigned round = 0; round < 500; round++) {
            struct nptv6_rule by = {.inside = {.length = (uint8_t)length},
                                    .outside = {.length = (uint8_t)length}};
            uint8_t from[16], out[16], back[16];

            for (unsigned i = 0; i < 16; i++) {
                from[i] = draw();
                by.inside.address[i] = i * 8 < length ? from[i] : 0;
                by.outside.address[i] = i * 8 < length ? draw() : 0;
            }
            if (length % 8) {
                by.inside.address[length / 8] &= (uint8_t)(0xff00 >> length % 8);
                by.outside.address[length / 8] &= (uint8_t)(0xff00 >> length % 8);
            }
            nptv6_prepare(&by);
            if (!nptv6_translate(&by, true, from, out))
                continue;
            assert_int_equal(sum(out), sum(from));
            assert_true(nat_in_prefix6(&by.outside, out));
            assert_true(nptv6_translate(&by, false, out, back));
            assert_memory_equal(back, from, 16);
        }
    }
}

/* The table of RFC 6052 section 2.4. */
static void test_embedded_addresses(void **state) {
    static const struct {
        const char *prefix;
        uint8_t length;
        const char *address;
    } examples[] = {
        {"2001:db8::", 32, "2001:db8:c000:221::"},
        {"2001:db8:100::", 40, "2001:db8:1c0:2:21::"},
        {"2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"},
        {"2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"},
        {"2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"},
        {"2001:db8:122:344::", 96, "2001:db8:122:344::192.0.2.33"},
    };
    const uint32_t ipv4 = htonl(0xc0000221);

    (void)state;
    for (unsigned i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
        struct nat_prefix6 before = prefix(examples[i].prefix, examples[i].length);
        uint8_t expected[16], made[16];

        assert_int_equal(inet_pton(AF_INET6, examples[i].address, expected), 1);
        embedded_make(before.address, before.length, ipv4, made);
        assert_memory_equal(made, expected, 16);
        assert_int_equal(embedded_ipv4(made, before.length), ipv4);
    }
}

static void test_what_nat64_may_reach(void **state) {
    static const struct {
        uint32_t host;
        bool global, anywhere;
    } addresses[] = {
        {0x08080808, true, true},   {0x0a000001, false, true},  {0xac1fffff, false, true},
        {0xac200000, true, true},   {0xc0a80101, false, true},  {0x647fffff, false, true},
        {0x64800000, true, true},   {0xa9fe0101, false, true},  {0xc6130001, false, true},
        {0x7f000001, false, false}, {0x00000001, false, false}, {0xe0000001, false, false},
        {0xffffffff, false, false}, {0xdfffffff, true, true},
    };
    struct nat64_rule well_known = {.prefix = prefix("64:ff9b::", 96)};
    struct nat64_rule own = {.prefix = prefix("64:ff9b:1::", 96)};

    (void)state;
    for (unsigned i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        assert_int_equal(nat64_may_reach(&well_known, htonl(addresses[i].host)),
                         addresses[i].global);
        assert_int_equal(nat64_may_reach(&own, htonl(addresses[i].host)), addresses[i].anywhere);
    }
}

/* Many of them, against the plainest search. */
static void test_static_bindings(void **state) {
    enum { COUNT = 300, SPAN = 10 };
    struct nat64_static list[COUNT] = {0}, by_outside[COUNT], by_inside[COUNT];
    struct nat_rules rules = {
        .nat64_static_count = COUNT, .nat64_by_outside = by_outside, .nat64_by_inside = by_inside};
    unsigned found = 0;

    (void)state;
    for (unsigned i = 0; i < COUNT; i++) {
        struct nat64_static *fixed = &list[i];

        fixed->vrf = (uint16_t)(i % 2);
        fixed->out = (uint16_t)(1 + i % 2);
        fixed->outside = htonl(0xc0000200 + i % 3);
        fixed->inside[15] = (uint8_t)(i % 5);
        if (i < 30) { /* addresses */
            fixed->outside = htonl(0xc0000300 + i);
            fixed->inside[14] = (uint8_t)(1 + i);
            continue;
        }
        fixed->protocol = i % 4 < 2 ? 6 : 17;
        fixed->first = (uint16_t)(1000 + SPAN * i);
        fixed->last = (uint16_t)(fixed->first + draw() % SPAN);
        fixed->inside_first = (uint16_t)(5000 + SPAN * i);
    }
    memcpy(by_outside, list, sizeof(list));
    memcpy(by_inside, list, sizeof(list));
    nat64_statics_prepare(&rules);
    for (unsigned round = 0; round < 200000; round++) {
        uint16_t vrf = draw() % 2, port = (uint16_t)(990 + draw() * 28 + draw() % 28);
        uint32_t outside = htonl((draw() % 4 ? 0xc0000200 : 0xc0000300) + draw() % 4);
        uint8_t protocol = draw() % 2 ? 6 : 17, inside[16] = {0};
        const struct nat64_static *expected = NULL, *expected_inside = NULL, *got;

        inside[15] = draw() % 5;
        inside[14] = draw() % 4 ? 0 : draw() % 30;
        for (unsigned i = 0; i < COUNT; i++) {
            const struct nat64_static *fixed = &list[i];
            bool whole = fixed->protocol == 0, same = fixed->protocol == protocol;

            if (fixed->vrf == vrf && fixed->outside == outside &&
                (whole || (same && port >= fixed->first && port <= fixed->last)))
                expected = fixed;
            if (fixed->out == vrf + 1 && memcmp(fixed->inside, inside, 16) == 0 &&
                (whole || (same && port >= fixed->inside_first &&
                           port <= fixed->inside_first + (fixed->last - fixed->first))))
                expected_inside = fixed;
        }
        got = nat64_static_outside(&rules, vrf, outside, protocol, htons(port));
        assert_int_equal(got != NULL, expected != NULL);
        if (got) {
            assert_memory_equal(got, expected, sizeof(*got));
            assert_int_equal(nat64_static_outward(got, nat64_static_inward(got, htons(port))),
                             htons(port));
            found++;
        }
        got = nat64_static_inside(&rules, (uint16_t)(vrf + 1), inside, protocol, htons(port));
        assert_int_equal(got != NULL, expected_inside != NULL);
        if (got) {
            assert_memory_equal(got, expected_inside, sizeof(*got));
            found++;
        }
    }
    assert_in_range(found, 1000, 300000);
    rules.nat64_static_count = 0;
    assert_null(nat64_static_outside(&rules, 0, list[0].outside, 6, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rfcs_example),     cmocka_unit_test(test_what_has_no_counterpart),
        cmocka_unit_test(test_there_and_back),       cmocka_unit_test(test_embedded_addresses),
        cmocka_unit_test(test_what_nat64_may_reach), cmocka_unit_test(test_static_bindings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
