/* Endpoint-independent mappings: which port is chosen, and that each is given to one only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/rcu.h"
#include "nat/nat_mapping.h"
#include "session/table.h"

enum { WORKER = 0, SIZE = 100000, OUTSIDE = 0x0100000a, VRF = 2 };

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint32_t draw(uint32_t below) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(((random_state * UINT64_C(0x2545f4914f6cdd1d)) >> 32) % below);
}

static int make_table(void **state) {
    (void)state;
    if (session_table_create(1024, 1) != 0 || nat_mapping_create(SIZE) != 0)
        return -1;
    nat_mapping_begin_addresses();
    for (uint32_t i = 0; i < 4; i++) {
        if (nat_mapping_add_address(OUTSIDE + i, VRF) != 0)
            return -1;
    }
    nat_mapping_drop_addresses();
    return 0;
}

static int free_table(void **state) {
    (void)state;
    nat_mapping_free();
    session_table_free();
    return 0;
}

static struct nat_mapping from(uint32_t inside, uint16_t port, uint8_t protocol) {
    return (struct nat_mapping){.inside = inside,
                                .inside_port = htons(port),
                                .outside = OUTSIDE,
                                .outside_vrf = VRF,
                                .inside_vrf = 1,
                                .protocol = protocol};
}

/* The outside port in host order; 0 when none could be had. */
static uint16_t make(uint32_t inside, uint16_t port, uint16_t first, uint16_t last,
                     uint32_t *number) {
    struct nat_mapping wanted = from(inside, port, IPPROTO_UDP);

    if (nat_mapping_make(&wanted, NULL, first, last, 0, draw(UINT32_MAX), number) != NAT_PORT_OK)
        return 0;
    return ntohs(nat_mapping_get(*number)->outside_port);
}

static void counts_are(uint32_t expected) {
    assert_int_equal(nat_mapping_count(), expected);
    assert_int_equal(nat_mapping_ports_taken(), expected);
}

static void test_made_and_found(void **state) {
    uint32_t number, again;

    (void)state;
    assert_int_equal(make(7, 5000, 1024, 65535, &number), 5000);
    assert_int_equal(nat_mapping_of_inside(7, htons(5000), IPPROTO_UDP, 1, OUTSIDE, VRF), number);
    assert_int_equal(nat_mapping_of_outside(OUTSIDE, htons(5000), IPPROTO_UDP, VRF), number);
    /* Nothing but the whole key will do. */
    assert_int_equal(nat_mapping_of_inside(8, htons(5000), IPPROTO_UDP, 1, OUTSIDE, VRF), 0);
    assert_int_equal(nat_mapping_of_inside(7, htons(5001), IPPROTO_UDP, 1, OUTSIDE, VRF), 0);
    assert_int_equal(nat_mapping_of_inside(7, htons(5000), IPPROTO_TCP, 1, OUTSIDE, VRF), 0);
    assert_int_equal(nat_mapping_of_inside(7, htons(5000), IPPROTO_UDP, 2, OUTSIDE, VRF), 0);
    assert_int_equal(nat_mapping_of_inside(7, htons(5000), IPPROTO_UDP, 1, OUTSIDE + 1, VRF), 0);
    assert_int_equal(nat_mapping_of_outside(OUTSIDE + 1, htons(5000), IPPROTO_UDP, VRF), 0);
    assert_int_equal(nat_mapping_of_outside(OUTSIDE, htons(5001), IPPROTO_UDP, VRF), 0);
    assert_int_equal(nat_mapping_of_outside(OUTSIDE, htons(5000), IPPROTO_TCP, VRF), 0);
    assert_int_equal(nat_mapping_of_outside(OUTSIDE, htons(5000), IPPROTO_UDP, 1), 0);
    counts_are(1);
    /* Made once more, it is the same one, with one reference more. */
    assert_int_equal(make(7, 5000, 1024, 65535, &again), 5000);
    assert_int_equal(again, number);
    counts_are(1);
    nat_mapping_release(number);
    counts_are(1);
    assert_true(nat_mapping_hold(number));
    nat_mapping_release(number);
    nat_mapping_release(number);
    counts_are(0);
    assert_false(nat_mapping_hold(number));
    assert_int_equal(nat_mapping_of_inside(7, htons(5000), IPPROTO_UDP, 1, OUTSIDE, VRF),
                     MAPPING_NONE);
    assert_int_equal(nat_mapping_of_outside(OUTSIDE, htons(5000), IPPROTO_UDP, VRF), MAPPING_NONE);
}

/* RFC 4787 REQ-4: even stays even and odd stays odd, as long as there is such a port. */
static void test_parity(void **state) {
    uint32_t number;

    (void)state;
    for (uint32_t n = 1; n <= 50; n++) {
        uint16_t odd = make(n, 2001, 2000, 2099, &number),
                 even = make(n, 2002, 2000, 2099, &number);

        assert_in_range(odd, 2000, 2099);
        assert_in_range(even, 2000, 2099);
        assert_int_equal(odd % 2, 1);
        assert_int_equal(even % 2, 0);
    }
    counts_are(100);
    assert_int_equal(make(99, 2001, 2000, 2099, &number), 0);
    /* With odd ones left only, an even one gets one of those. */
    number = nat_mapping_of_outside(OUTSIDE, htons(2051), IPPROTO_UDP, VRF);
    nat_mapping_release(number);
    assert_int_equal(make(99, 2002, 2000, 2099, &number), 2051);
}

static void test_out_of_range_ports_are_not_preserved(void **state) {
    uint32_t number;

    (void)state;
    for (uint32_t n = 0; n < 1000; n++) {
        uint16_t port = make(n + 1, 80, 3000, 3999, &number);

        assert_in_range(port, 3000, 3999);
    }
    assert_int_equal(make(5000, 80, 3000, 3999, &number), 0);
    assert_int_equal(number, MAPPING_NONE);
    counts_are(1000);
}

/* Ports that are kept are given to nobody, until they are not kept any more; and a mapping that has
 * one loses nothing. */
static void test_kept_ports(void **state) {
    uint32_t held, number, numbers[3];

    (void)state;
    assert_int_equal(make(1, 2003, 2000, 2007, &held), 2003);
    nat_mapping_begin_addresses();
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(nat_mapping_add_address(OUTSIDE + i, VRF), 0);
    assert_int_equal(nat_mapping_keep_ports(OUTSIDE, VRF, IPPROTO_UDP, 2002, 2005), 0);
    assert_int_equal(nat_mapping_keep_ports(OUTSIDE, VRF, IPPROTO_TCP, 2006, 2006), 0);
    assert_int_equal(nat_mapping_keep_ports(OUTSIDE + 1, VRF, 0, 0, UINT16_MAX), 0);
    assert_int_equal(nat_mapping_keep_ports(OUTSIDE + 99, VRF, 0, 1, 2), 0); /* nobody's */
    nat_mapping_drop_addresses();
    assert_int_equal(make(1, 2003, 2000, 2007, &number), 2003);
    assert_int_equal(number, held);
    assert_int_equal(make(2, 2002, 2000, 2005, &numbers[0]), 2000);
    assert_int_equal(make(3, 2002, 2000, 2005, &numbers[1]), 2001);
    assert_int_equal(make(4, 2004, 2000, 2005, &number), 0);
    assert_int_equal(make(4, 2006, 2000, 2007, &numbers[2]), 2006); /* kept of TCP alone */
    counts_are(4);
    nat_mapping_release(held);
    nat_mapping_release(held);
    assert_int_equal(make(5, 2003, 2000, 2005, &number), 0);
    for (unsigned protocol = 0; protocol < 2; protocol++) {
        struct nat_mapping wanted = from(6, 4000, protocol ? IPPROTO_ICMP : IPPROTO_UDP);

        wanted.outside = OUTSIDE + 1;
        assert_int_equal(nat_mapping_make(&wanted, NULL, 1, 65535, 0, 0, &number), NAT_PORT_NONE);
    }
    nat_mapping_begin_addresses();
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(nat_mapping_add_address(OUTSIDE + i, VRF), 0);
    nat_mapping_drop_addresses();
    assert_int_equal(make(5, 2003, 2000, 2005, &number), 2003);
    counts_are(4);
}

/* Ranges of any size at any place: each port is used once, and no other. */
static void test_every_port_of_a_range_is_used_once(void **state) {
    static const struct {
        uint16_t first, last;
    } ranges[] = {{2000, 2000}, {2000, 2001}, {2047, 2048},   {2048, 2111},   {2049, 2110},
                  {1, 63},      {1, 64},      {63, 65},       {65535, 65535}, {65472, 65535},
                  {64, 127},    {1000, 1200}, {60000, 65535}, {1, 130},       {1023, 1025}};

    (void)state;
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        unsigned size = ranges[i].last - ranges[i].first + 1u;
        uint8_t *used = calloc(65536, 1);
        uint32_t *numbers = calloc(size, sizeof(*numbers)), none;

        for (uint32_t n = 0; n < size; n++) {
            uint16_t port =
                make(n + 1, (uint16_t)draw(65536), ranges[i].first, ranges[i].last, &numbers[n]);

            assert_in_range(port, ranges[i].first, ranges[i].last);
            assert_int_equal(used[port], 0);
            used[port] = 1;
        }
        assert_int_equal(make(size + 1, 5, ranges[i].first, ranges[i].last, &none), 0);
        counts_are(size);
        for (uint32_t n = 0; n < size; n++)
            nat_mapping_release(numbers[n]);
        counts_are(0);
        rcu_quiescent(WORKER);
        free(numbers);
        free(used);
    }
}

static void test_protocols_and_addresses_have_ports_of_their_own(void **state) {
    static const uint8_t protocols[] = {IPPROTO_UDP, IPPROTO_TCP, IPPROTO_ICMP};
    uint32_t number;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        for (uint32_t address = 0; address < 4; address++) {
            struct nat_mapping wanted = from(7, 5000, protocols[i]);

            wanted.outside = OUTSIDE + address;
            assert_int_equal(nat_mapping_make(&wanted, NULL, 5000, 5000, 0, 0, &number),
                             NAT_PORT_OK);
            assert_int_equal(nat_mapping_of_outside(wanted.outside, htons(5000), protocols[i], VRF),
                             number);
            wanted.inside = 8;
            assert_int_equal(nat_mapping_make(&wanted, NULL, 5000, 5000, 0, 0, &number),
                             NAT_PORT_NONE);
        }
    }
    counts_are(12);
}

static void test_an_address_that_nobody_named(void **state) {
    struct nat_mapping wanted = from(7, 5000, IPPROTO_UDP);
    uint32_t number = 77;

    (void)state;
    wanted.outside = OUTSIDE + 100;
    assert_int_equal(nat_mapping_make(&wanted, NULL, 1024, 65535, 0, 0, &number),
                     NAT_PORT_NO_MAPPING);
    assert_int_equal(number, MAPPING_NONE);
    wanted.outside = OUTSIDE;
    wanted.outside_vrf = VRF + 1;
    assert_int_equal(nat_mapping_make(&wanted, NULL, 1024, 65535, 0, 0, &number),
                     NAT_PORT_NO_MAPPING);
    counts_are(0);
}

static void test_the_table_is_full(void **state) {
    struct nat_mapping wanted = from(7, 0, IPPROTO_UDP);
    uint32_t number, made = 0;

    (void)state;
    for (uint32_t n = 0; n < SIZE + 10; n++) {
        wanted.inside = n + 1;
        wanted.inside_port = htons((uint16_t)(1024 + n));
        wanted.outside = OUTSIDE + n % 4;
        if (nat_mapping_make(&wanted, NULL, 1, 65535, 0, n * 7, &number) == NAT_PORT_OK)
            made++;
        else
            assert_true(made >= SIZE);
    }
    assert_int_equal(made, SIZE);
    counts_are(SIZE);
}

/* Numbers are used again, but only when no worker can be looking. */
static void test_numbers_come_back_after_a_grace_period(void **state) {
    uint32_t number, others[SIZE / 1000];

    (void)state;
    assert_int_equal(make(1, 5000, 1024, 65535, &number), 5000);
    nat_mapping_release(number);
    for (unsigned i = 0; i < SIZE / 1000; i++) {
        assert_int_not_equal(make(2 + i, 5000, 1024, 65535, &others[i]), 0);
        assert_int_not_equal(others[i], number);
    }
    /* What it was can still be read. */
    assert_int_equal(nat_mapping_get(number)->inside, 1);
    for (unsigned round = 0; round < 30; round++) {
        for (unsigned i = 0; i < 10000; i++) {
            uint32_t one;

            assert_int_not_equal(make(1000000 + i, 6000, 1024, 65535, &one), 0);
            nat_mapping_release(one);
            rcu_quiescent(WORKER);
        }
    }
    counts_are(SIZE / 1000);
}

static void test_addresses_come_and_go(void **state) {
    enum { ADDRESSES = 3000, ROUNDS = 6 };
    struct nat_mapping wanted = from(7, 5000, IPPROTO_UDP);
    uint32_t held;

    (void)state;
    assert_int_equal(make(1, 5000, 1024, 65535, &held), 5000);
    /* More in all than there may be at once. */
    for (uint32_t round = 0; round < ROUNDS; round++) {
        nat_mapping_begin_addresses();
        for (uint32_t i = 0; i < ADDRESSES; i++)
            assert_int_equal(nat_mapping_add_address(0x20000000 + (round * 7 + i) * 65537, 1), 0);
        nat_mapping_drop_addresses();
        for (uint32_t i = 0; i < ADDRESSES + 60; i++) {
            uint32_t number;
            enum nat_port_result result;

            wanted.outside = 0x20000000 + (round * 7 + i - 30) * 65537;
            wanted.outside_vrf = 1;
            result = nat_mapping_make(&wanted, NULL, 1024, 65535, 0, 0, &number);
            assert_int_equal(result,
                             i >= 30 && i < ADDRESSES + 30 ? NAT_PORT_OK : NAT_PORT_NO_MAPPING);
            if (result == NAT_PORT_OK)
                nat_mapping_release(number);
            rcu_quiescent(WORKER);
        }
        /* One that is not named any more stays as long as it has a mapping. */
        assert_int_equal(nat_mapping_of_outside(OUTSIDE, htons(5000), IPPROTO_UDP, VRF), held);
    }
    counts_are(1);
    nat_mapping_release(held);
    counts_are(0);
}

/* The addresses [first, first + count) of VRF 0, in the place of all that there were. */
static void have_addresses(uint32_t first, uint32_t count) {
    nat_mapping_begin_addresses();
    for (uint32_t i = 0; i < count; i++)
        nat_mapping_name_address(first + i, 0);
    nat_mapping_drop_addresses();
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(nat_mapping_add_address(first + i, 0), 0);
}

/* Each of them has a mapping that lives on for one change of the addresses. */
static void test_as_many_addresses_in_place_of_others(void **state) {
    static uint32_t numbers[2][NAT_ADDRESSES_MAX];
    struct nat_mapping wanted = from(7, 5000, IPPROTO_UDP);

    (void)state;
    wanted.outside_vrf = 0;
    for (uint32_t round = 0; round < 4; round++) {
        have_addresses(0x30000000 + round * NAT_ADDRESSES_MAX, NAT_ADDRESSES_MAX);
        for (uint32_t i = 0; i < NAT_ADDRESSES_MAX; i++) {
            wanted.outside = 0x30000000 + round * NAT_ADDRESSES_MAX + i;
            assert_int_equal(
                nat_mapping_make(&wanted, NULL, 1024, 65535, 0, 0, &numbers[round % 2][i]),
                NAT_PORT_OK);
            if (round > 0)
                nat_mapping_release(numbers[(round - 1) % 2][i]);
            rcu_quiescent(WORKER);
        }
    }
    counts_are(NAT_ADDRESSES_MAX);
}

static void test_too_many_addresses(void **state) {
    (void)state;
    nat_mapping_begin_addresses();
    for (uint32_t i = 0; i < 2 * NAT_ADDRESSES_MAX - 4; i++)
        assert_int_equal(nat_mapping_add_address(0x30000000 + i, 0), 0);
    assert_int_equal(nat_mapping_add_address(0x40000000, 0), -ENOSPC);
    assert_int_equal(nat_mapping_add_address(0x30000000, 0), 0);
    nat_mapping_drop_addresses();
}

/* Random references and mappings, against a plain list. */
static void test_random_history(void **state) {
    enum { HOSTS = 50, PORTS = 40, STEPS = 300000, FIRST = 2000, LAST = 3499 };
    static struct entry {
        uint32_t number, references;
        uint16_t port;
    } entries[HOSTS][PORTS];
    static uint16_t owner[65536];
    uint32_t alive = 0;

    (void)state;
    memset(entries, 0, sizeof(entries));
    memset(owner, 0, sizeof(owner));
    for (unsigned step = 0; step < STEPS; step++) {
        uint32_t host = draw(HOSTS), port = draw(PORTS);
        struct entry *entry = &entries[host][port];
        uint16_t who = (uint16_t)(1 + host * PORTS + port);

        if (entry->references > 0 && draw(2)) {
            nat_mapping_release(entry->number);
            if (--entry->references == 0) {
                owner[entry->port] = 0;
                alive--;
            }
        } else {
            uint32_t number;
            uint16_t got = make(100 + host, (uint16_t)(2000 + port * 50), FIRST, LAST, &number);

            if (got == 0) {
                assert_true(entry->references == 0);
                assert_int_equal(alive, LAST - FIRST + 1);
                continue;
            }
            if (entry->references == 0) {
                assert_int_equal(owner[got], 0); /* nobody else has it */
                owner[got] = who;
                *entry = (struct entry){.number = number, .port = got};
                alive++;
            }
            assert_int_equal(number, entry->number);
            assert_int_equal(got, entry->port);
            assert_int_equal(owner[got], who);
            entry->references++;
        }
        assert_int_equal(nat_mapping_count(), alive);
        assert_int_equal(nat_mapping_ports_taken(), alive);
        if (step % 8 == 0)
            rcu_quiescent(WORKER);
    }
    for (uint32_t host = 0; host < HOSTS; host++) {
        for (uint32_t port = 0; port < PORTS; port++) {
            struct entry *entry = &entries[host][port];

            assert_int_equal(nat_mapping_of_inside(100 + host, htons((uint16_t)(2000 + port * 50)),
                                                   IPPROTO_UDP, 1, OUTSIDE, VRF),
                             entry->references ? entry->number : MAPPING_NONE);
            for (; entry->references > 0; entry->references--)
                nat_mapping_release(entry->number);
        }
    }
    counts_are(0);
}

#define WITH_TABLE(test) cmocka_unit_test_setup_teardown(test, make_table, free_table)

/* A busy day ends: nobody opens anything while all mappings go. */
static void test_all_numbers_come_back(void **state) {
    static uint32_t numbers[SIZE];
    struct nat_mapping wanted = from(7, 0, IPPROTO_UDP);

    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        for (uint32_t n = 0; n < SIZE; n++) {
            wanted.inside = n + 1;
            wanted.inside_port = htons((uint16_t)(1024 + n));
            wanted.outside = OUTSIDE + n % 4;
            assert_int_equal(nat_mapping_make(&wanted, NULL, 1, 65535, 0, n * 7, &numbers[n]),
                             NAT_PORT_OK);
        }
        assert_int_equal(nat_mapping_count(), SIZE);
        for (uint32_t n = 0; n < SIZE; n++)
            nat_mapping_release(numbers[n]);
        assert_int_equal(nat_mapping_count(), 0);
        assert_int_equal(nat_mapping_ports_taken(), 0);
        rcu_quiescent(WORKER);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_TABLE(test_made_and_found),
        WITH_TABLE(test_parity),
        WITH_TABLE(test_out_of_range_ports_are_not_preserved),
        WITH_TABLE(test_kept_ports),
        WITH_TABLE(test_every_port_of_a_range_is_used_once),
        WITH_TABLE(test_protocols_and_addresses_have_ports_of_their_own),
        WITH_TABLE(test_an_address_that_nobody_named),
        WITH_TABLE(test_the_table_is_full),
        WITH_TABLE(test_numbers_come_back_after_a_grace_period),
        WITH_TABLE(test_addresses_come_and_go),
        WITH_TABLE(test_as_many_addresses_in_place_of_others),
        WITH_TABLE(test_too_many_addresses),
        WITH_TABLE(test_all_numbers_come_back),
        WITH_TABLE(test_random_history),
    };
    int failures;

    if (event_init() != 0 || rcu_init(1) != 0)
        return EXIT_FAILURE;
    rcu_online(WORKER);
    failures = cmocka_run_group_tests_name("nat_mapping", tests, NULL, NULL);
    rcu_free();
    event_free();
    return failures;
}
