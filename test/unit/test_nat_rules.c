/* The NAT's rules: which one a packet falls under, and what it is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "nat/nat_rules.h"

enum { LAN = 1, WAN = 2, DMZ = 3 };

#define IP(a, b, c, d) (((uint32_t)(a) << 24) | (b) << 16 | (c) << 8 | (d))

static struct nat_prefixes prefix(uint32_t address, unsigned length) {
    return (struct nat_prefixes){
        .count = 1, .list = {{address, length == 0 ? 0 : UINT32_MAX << (32 - length)}}};
}

static struct nat_packet packet(uint32_t source, uint32_t destination, uint16_t port) {
    return (struct nat_packet){.source = htonl(source),
                               .destination = htonl(destination),
                               .source_port = htons(1000),
                               .destination_port = htons(port),
                               .protocol = IPPROTO_UDP,
                               .has_ports = true,
                               .in = LAN,
                               .out = WAN};
}

/* --- source rules --- */

static const struct nat_source_rule *match(struct nat_source_rule *rule, struct nat_packet p) {
    struct nat_rules rules = {.source_count = 1, .sources = rule};

    return nat_match_source(&rules, &p);
}

static void test_source_rules_match(void **state) {
    struct nat_source_rule rule = {.out = WAN,
                                   .in = LAN,
                                   .source = prefix(IP(192, 168, 1, 0), 24),
                                   .destination = prefix(IP(10, 0, 0, 0), 8)};
    struct nat_packet right = packet(IP(192, 168, 1, 5), IP(10, 9, 9, 9), 80), p;

    (void)state;
    assert_ptr_equal(match(&rule, right), &rule);
    p = right;
    p.out = DMZ;
    assert_null(match(&rule, p));
    p = right;
    p.in = DMZ;
    assert_null(match(&rule, p));
    rule.any_in = true;
    assert_ptr_equal(match(&rule, p), &rule);
    assert_null(match(&rule, packet(IP(192, 168, 2, 5), IP(10, 9, 9, 9), 80)));
    assert_null(match(&rule, packet(IP(192, 168, 1, 5), IP(11, 9, 9, 9), 80)));
    rule.protocol = IPPROTO_TCP;
    assert_null(match(&rule, right));
    rule.protocol = IPPROTO_UDP;
    assert_ptr_equal(match(&rule, right), &rule);
    rule.destination.count = 0;
    assert_ptr_equal(match(&rule, packet(IP(192, 168, 1, 5), IP(11, 9, 9, 9), 80)), &rule);
    /* Of an interface that does not exist. */
    rule.out = 0;
    right.out = 0;
    assert_null(match(&rule, right));
}

static void test_the_first_rule_that_matches(void **state) {
    struct nat_source_rule list[] = {
        {.out = WAN, .any_in = true, .destination = prefix(IP(10, 1, 0, 0), 16)},
        {.out = WAN, .any_in = true, .destination = prefix(IP(10, 0, 0, 0), 8)},
        {.out = WAN, .any_in = true},
    };
    struct nat_rules rules = {.source_count = 3, .sources = list};
    struct nat_packet p = packet(IP(1, 1, 1, 1), IP(10, 1, 2, 3), 1);

    (void)state;
    assert_ptr_equal(nat_match_source(&rules, &p), &list[0]);
    p = packet(IP(1, 1, 1, 1), IP(10, 2, 2, 3), 1);
    assert_ptr_equal(nat_match_source(&rules, &p), &list[1]);
    p = packet(IP(1, 1, 1, 1), IP(11, 2, 2, 3), 1);
    assert_ptr_equal(nat_match_source(&rules, &p), &list[2]);
}

/* --- pools --- */

static struct nat_source_rule pool_rule(void) {
    return (struct nat_source_rule){
        .target = NAT_TO_POOL,
        .port_first = NAT_PORT_FIRST,
        .port_last = NAT_PORT_LAST,
        .pool_count = 3,
        .pool = {{IP(203, 0, 113, 1), IP(203, 0, 113, 1)},
                 {IP(203, 0, 113, 16), IP(203, 0, 113, 31)},
                 {IP(198, 51, 100, 0), IP(198, 51, 100, 2)}},
        .pool_size = 20,
    };
}

static void test_addresses_of_a_pool(void **state) {
    struct nat_source_rule rule = pool_rule();

    (void)state;
    assert_int_equal(nat_pool_address(&rule, 0), htonl(IP(203, 0, 113, 1)));
    assert_int_equal(nat_pool_address(&rule, 1), htonl(IP(203, 0, 113, 16)));
    assert_int_equal(nat_pool_address(&rule, 16), htonl(IP(203, 0, 113, 31)));
    assert_int_equal(nat_pool_address(&rule, 17), htonl(IP(198, 51, 100, 0)));
    assert_int_equal(nat_pool_address(&rule, 19), htonl(IP(198, 51, 100, 2)));
}

/* RFC 4787 REQ-2: an inside address has one outside address. All of the pool is used. */
static void test_a_pool_is_paired(void **state) {
    struct nat_source_rule rule = pool_rule();
    unsigned count[20] = {0};

    (void)state;
    for (uint32_t host = 0; host < 10000; host++) {
        uint32_t outside, again;
        uint16_t first, last;
        unsigned n = 0;

        assert_true(nat_share_of(&rule, htonl(IP(10, 0, 0, 0) + host), &outside, &first, &last));
        assert_true(nat_share_of(&rule, htonl(IP(10, 0, 0, 0) + host), &again, &first, &last));
        assert_int_equal(outside, again);
        assert_int_equal(first, NAT_PORT_FIRST);
        assert_int_equal(last, NAT_PORT_LAST);
        while (n < 20 && nat_pool_address(&rule, n) != outside)
            n++;
        assert_in_range(n, 0, 19);
        count[n]++;
    }
    for (unsigned n = 0; n < 20; n++)
        assert_in_range(count[n], 350, 650);
}

static void test_an_empty_pool(void **state) {
    struct nat_source_rule rule = {.port_first = 1024, .port_last = 65535};
    uint32_t outside;
    uint16_t first, last;

    (void)state;
    assert_false(nat_share_of(&rule, htonl(1), &outside, &first, &last));
    rule.block_size = 10;
    rule.source = prefix(0, 24);
    assert_false(nat_share_of(&rule, htonl(1), &outside, &first, &last));
}

/* RFC 7422: no two inside addresses share a port of an outside address. */
static void blocks_are_disjoint(struct nat_source_rule *rule, const uint32_t *hosts, unsigned count,
                                unsigned expected) {
    struct {
        uint32_t outside;
        uint16_t first, last;
    } *shares = calloc(count, sizeof(*shares));
    unsigned given = 0;

    for (unsigned i = 0; i < count; i++) {
        uint32_t outside;
        uint16_t first, last;

        if (!nat_share_of(rule, htonl(hosts[i]), &outside, &first, &last))
            continue;
        assert_true(first >= rule->port_first && last <= rule->port_last);
        assert_int_equal(last - first + 1, rule->block_size);
        for (unsigned other = 0; other < given; other++)
            assert_true(shares[other].outside != outside || shares[other].last < first ||
                        shares[other].first > last);
        shares[given].outside = outside;
        shares[given].first = first;
        shares[given++].last = last;
    }
    assert_int_equal(given, expected);
    free(shares);
}

static void test_port_blocks_are_injective(void **state) {
    struct nat_source_rule rule = pool_rule();
    static uint32_t hosts[700];

    (void)state;
    /* Overlapping prefixes, and one of a single address. */
    rule.source = (struct nat_prefixes){.count = 3,
                                        .list = {{IP(10, 0, 0, 128), UINT32_MAX << 7},
                                                 {IP(10, 0, 0, 0), UINT32_MAX << 8},
                                                 {IP(10, 9, 9, 9), UINT32_MAX}}};
    for (unsigned i = 0; i < 256; i++)
        hosts[i] = IP(10, 0, 0, 0) + i;
    hosts[256] = IP(10, 9, 9, 9);
    hosts[257] = IP(10, 9, 9, 10); /* in none of them */
    rule.block_size = 1000;
    blocks_are_disjoint(&rule, hosts, 258, 257);
    rule.block_size = 64512;
    blocks_are_disjoint(&rule, hosts, 258, 20);
    rule.block_size = 1;
    blocks_are_disjoint(&rule, hosts, 258, 257);
    rule.port_first = 2000;
    rule.port_last = 2009;
    rule.block_size = 3; /* three blocks and a port too many */
    blocks_are_disjoint(&rule, hosts, 258, 60);
    rule.port_first = rule.port_last = 65535;
    rule.block_size = 1;
    blocks_are_disjoint(&rule, hosts, 258, 20);
    rule.port_first = 1;
    rule.port_last = 65535;
    rule.block_size = 65535;
    blocks_are_disjoint(&rule, hosts, 258, 20);
}

static void test_port_blocks_of_everybody(void **state) {
    struct nat_source_rule rule = pool_rule();
    uint32_t outside;
    uint16_t first, last;

    (void)state;
    rule.source = prefix(0, 0);
    rule.block_size = 64;
    assert_true(nat_share_of(&rule, htonl(0), &outside, &first, &last));
    assert_int_equal(first, 1024);
    assert_true(nat_share_of(&rule, htonl(20 * 1008 - 1), &outside, &first, &last));
    assert_int_equal(outside, htonl(IP(198, 51, 100, 2)));
    assert_int_equal(last, 65535);
    assert_false(nat_share_of(&rule, htonl(20 * 1008), &outside, &first, &last));
    assert_false(nat_share_of(&rule, htonl(UINT32_MAX), &outside, &first, &last));
}

/* --- destination rules --- */

static void test_destination_rules_match(void **state) {
    struct nat_destination_rule rule = {.in = WAN,
                                        .protocol = IPPROTO_UDP,
                                        .port_first = 80,
                                        .port_last = 90,
                                        .source = prefix(IP(203, 0, 113, 0), 24),
                                        .destination = prefix(IP(198, 51, 100, 1), 32)};
    struct nat_rules rules = {.destination_count = 1, .destinations = &rule};
    struct nat_packet p = packet(IP(203, 0, 113, 5), IP(198, 51, 100, 1), 80);

    (void)state;
    assert_null(nat_match_destination(&rules, &p)); /* from the LAN */
    rule.hairpin = true;
    assert_ptr_equal(nat_match_destination(&rules, &p), &rule);
    rule.hairpin = false;
    p.in = WAN;
    assert_ptr_equal(nat_match_destination(&rules, &p), &rule);
    for (unsigned port = 70; port < 100; port++) {
        p.destination_port = htons((uint16_t)port);
        assert_true((nat_match_destination(&rules, &p) != NULL) == (port >= 80 && port <= 90));
    }
    p.destination_port = htons(85);
    p.destination = htonl(IP(198, 51, 100, 2));
    assert_null(nat_match_destination(&rules, &p));
    p.destination = htonl(IP(198, 51, 100, 1));
    p.source = htonl(IP(203, 0, 114, 5));
    assert_null(nat_match_destination(&rules, &p));
    rule.source.count = 0;
    assert_ptr_equal(nat_match_destination(&rules, &p), &rule);
    p.protocol = IPPROTO_TCP;
    assert_null(nat_match_destination(&rules, &p));
    rule.protocol = 0;
    p.has_ports = false; /* what has no ports has none that match */
    assert_null(nat_match_destination(&rules, &p));
    rule.any_port = true;
    assert_ptr_equal(nat_match_destination(&rules, &p), &rule);
    rule.destination.count = 0; /* an interface without addresses */
    assert_null(nat_match_destination(&rules, &p));
}

static void test_where_destinations_go(void **state) {
    struct nat_destination_rule rule = {.port_first = 8000,
                                        .port_last = 8099,
                                        .to_first = IP(10, 0, 0, 1),
                                        .to_last = IP(10, 0, 0, 1),
                                        .to_port = 65436};
    struct nat_packet p = packet(IP(203, 0, 113, 5), IP(198, 51, 100, 1), 8099);
    uint32_t address;
    uint16_t port;

    (void)state;
    nat_destination_of(&rule, &p, &address, &port);
    assert_int_equal(address, htonl(IP(10, 0, 0, 1)));
    assert_int_equal(port, htons(65535));
    p.destination_port = htons(8000);
    nat_destination_of(&rule, &p, &address, &port);
    assert_int_equal(port, htons(65436));
    rule.keeps_port = true;
    nat_destination_of(&rule, &p, &address, &port);
    assert_int_equal(port, htons(8000));
}

static void test_servers_share_the_clients(void **state) {
    struct nat_destination_rule rule = {
        .keeps_port = true, .to_first = IP(10, 0, 0, 1), .to_last = IP(10, 0, 0, 5)};
    unsigned count[5] = {0};

    (void)state;
    for (uint32_t client = 0; client < 5000; client++) {
        struct nat_packet p = packet(IP(203, 0, 0, 0) + client, IP(198, 51, 100, 1), 80);
        uint32_t address, again;
        uint16_t port;

        nat_destination_of(&rule, &p, &address, &port);
        p.source_port = htons(77);
        nat_destination_of(&rule, &p, &again, &port);
        assert_int_equal(address, again);
        assert_in_range(ntohl(address), rule.to_first, rule.to_last);
        count[ntohl(address) - rule.to_first]++;
    }
    for (unsigned i = 0; i < 5; i++)
        assert_in_range(count[i], 700, 1300);
    /* All that there is. */
    rule.to_first = 0;
    rule.to_last = UINT32_MAX;
    for (uint32_t client = 0; client < 10; client++) {
        struct nat_packet p = packet(IP(203, 0, 0, 0) + client, IP(198, 51, 100, 1), 80);
        uint32_t address;
        uint16_t port;

        nat_destination_of(&rule, &p, &address, &port);
    }
}

/* --- searches --- */

static int by_first_word(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

    return (left > right) - (left < right);
}

static void test_static_rules_are_found(void **state) {
    enum { COUNT = 500 };
    struct nat_static_rule outside[COUNT], inside[COUNT];
    struct nat_rules rules = {.static_count = COUNT, .by_outside = outside, .by_inside = inside};

    (void)state;
    for (uint32_t i = 0; i < COUNT; i++)
        outside[i] = (struct nat_static_rule){.outside = htonl(IP(203, 0, 113, 0) + 3 * i),
                                              .inside = htonl(IP(10, 0, 0, 0) + 999983 * i)};
    qsort(outside, COUNT, sizeof(outside[0]), by_first_word);
    memcpy(inside, outside, sizeof(inside));
    for (unsigned i = 1; i < COUNT; i++) { /* by the second word */
        for (unsigned j = i; j > 0 && inside[j - 1].inside > inside[j].inside; j--) {
            struct nat_static_rule swap = inside[j];

            inside[j] = inside[j - 1];
            inside[j - 1] = swap;
        }
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t address = htonl(IP(203, 0, 113, 0) + 3 * i),
                 within = htonl(IP(10, 0, 0, 0) + 999983 * i);

        assert_int_equal(nat_static_outside(&rules, address)->inside, within);
        assert_int_equal(nat_static_inside(&rules, within)->outside, address);
        assert_null(nat_static_outside(&rules, htonl(IP(203, 0, 113, 1) + 3 * i)));
        assert_null(nat_static_inside(&rules, htonl(IP(10, 0, 0, 1) + 999983 * i)));
    }
    rules.static_count = 0;
    assert_null(nat_static_outside(&rules, htonl(IP(203, 0, 113, 0))));
}

static void test_pool_addresses_are_known(void **state) {
    struct nat_range ranges[] = {{5, 5}, {10, 20}, {22, 22}, {UINT32_MAX - 1, UINT32_MAX}};
    struct nat_rules rules = {.pool_count = 4, .pools = ranges};

    (void)state;
    for (uint32_t host = 0; host < 40; host++)
        assert_true(nat_is_pool_address(&rules, 0, htonl(host)) ==
                    (host == 5 || (host >= 10 && host <= 20) || host == 22));
    assert_true(nat_is_pool_address(&rules, 0, htonl(UINT32_MAX)));
    assert_false(nat_is_pool_address(&rules, 0, htonl(UINT32_MAX - 2)));
    rules.pool_count = 0;
    assert_false(nat_is_pool_address(&rules, 0, htonl(5)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_source_rules_match),
        cmocka_unit_test(test_the_first_rule_that_matches),
        cmocka_unit_test(test_addresses_of_a_pool),
        cmocka_unit_test(test_a_pool_is_paired),
        cmocka_unit_test(test_an_empty_pool),
        cmocka_unit_test(test_port_blocks_are_injective),
        cmocka_unit_test(test_port_blocks_of_everybody),
        cmocka_unit_test(test_destination_rules_match),
        cmocka_unit_test(test_where_destinations_go),
        cmocka_unit_test(test_servers_share_the_clients),
        cmocka_unit_test(test_static_rules_are_found),
        cmocka_unit_test(test_pool_addresses_are_known),
    };

    return cmocka_run_group_tests_name("nat_rules", tests, NULL, NULL);
}
