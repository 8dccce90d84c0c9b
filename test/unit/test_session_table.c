/*
 * The table of flows: keys are found as long as they are in it and never otherwise, whatever the
 * order of changes, and numbers of sessions come back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "core/event.h"
#include "core/rcu.h"
#include "session/table.h"

enum { WORKER = 0, SIZE = 100000 };

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint32_t draw(uint32_t below) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(((random_state * UINT64_C(0x2545f4914f6cdd1d)) >> 32) % below);
}

static int make_table(void **state) {
    (void)state;
    return session_table_create(SIZE, 1);
}

static int free_table(void **state) {
    (void)state;
    session_table_free();
    return 0;
}

/* The worker passes a quiescent state, and looks after its lists. */
static void turn(void) {
    rcu_quiescent(WORKER);
    session_table_turn(WORKER);
}

static union flow_key key_of(uint32_t n, bool ipv6) {
    union flow_key key = {0};

    if (ipv6) {
        memset(key.v6.source, 0x20, sizeof(key.v6.source));
        memcpy(key.v6.destination, &n, sizeof(n));
        key.v6.source_port = 0x1234;
        key.v6.protocol_vrf = flow_protocol_vrf(IPPROTO_TCP, 3);
    } else {
        key.v4 = (struct flow_key4){.source = n,
                                    .destination = 77,
                                    .source_port = 5,
                                    .destination_port = 6,
                                    .protocol_vrf = flow_protocol_vrf(IPPROTO_UDP, 1)};
    }
    return key;
}

static uint32_t find(uint32_t n, bool ipv6) {
    union flow_key key = key_of(n, ipv6);

    return session_table_find(&key, ipv6, flow_key_hash(&key, ipv6));
}

static void set_key(uint32_t flow, const union flow_key *key, bool ipv6) {
    if (ipv6)
        session_flows[flow].key6 = key->v6;
    else
        session_flows[flow].key4 = key->v4;
    session_flows[flow].flags = ipv6 ? FLOW_IPV6 : 0;
}

static int insert(uint32_t flow, uint32_t n, bool ipv6, uint32_t *found) {
    union flow_key key = key_of(n, ipv6);

    set_key(flow, &key, ipv6);
    return session_table_insert(flow, flow_key_hash(&key, ipv6), found);
}

static void test_insert_find_remove(void **state) {
    uint32_t found;

    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        uint32_t number = session_take(WORKER), other = session_take(WORKER);

        assert_int_equal(find(7, ipv6), SESSION_NONE);
        assert_int_equal(session_table_remove(number * 2), -ENOENT);
        assert_int_equal(insert(number * 2, 7, ipv6, &found), 0);
        assert_int_equal(find(7, ipv6), number * 2);
        assert_int_equal(find(8, ipv6), SESSION_NONE);
        /* The same key again is told whose it is. */
        assert_int_equal(insert(other * 2, 7, ipv6, &found), -EEXIST);
        assert_int_equal(found, number * 2);
        assert_int_equal(session_table_remove(other * 2), -ENOENT);
        assert_int_equal(session_table_remove(number * 2), 0);
        assert_int_equal(find(7, ipv6), SESSION_NONE);
        assert_int_equal(session_table_remove(number * 2), -ENOENT);
    }
}

/* Each field of the key tells flows apart, and so does the family. */
static void test_keys_differ_in_any_field(void **state) {
    union flow_key key = key_of(1, false);
    uint32_t found;

    (void)state;
    assert_int_equal(insert(2, 1, false, &found), 0);
    for (unsigned bit = 0; bit < 128; bit++) {
        union flow_key changed = key;

        ((uint8_t *)&changed.v4)[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(session_table_find(&changed, false, flow_key_hash(&changed, false)),
                         SESSION_NONE);
    }
    assert_int_equal(session_table_find(&key, false, flow_key_hash(&key, false)), 2);
    key = key_of(1, true);
    assert_int_equal(insert(4, 1, true, &found), 0);
    for (unsigned bit = 0; bit < 40 * 8; bit++) {
        union flow_key changed = key;

        ((uint8_t *)&changed.v6)[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(session_table_find(&changed, true, flow_key_hash(&changed, true)),
                         SESSION_NONE);
    }
    assert_int_equal(session_table_find(&key, true, flow_key_hash(&key, true)), 4);
}

/* Keys of one home bucket: when it is full, others go to the bucket of their signature, and are
 * found there, and come and go in any order. */
static void test_full_buckets(void **state) {
    enum { KEYS = 200 };
    uint32_t same[KEYS], inserted[KEYS], home = 0, count = 0, in = 0, found;

    (void)state;
    for (uint32_t n = 0; count < KEYS; n++) {
        union flow_key key = key_of(n, false);
        uint32_t bucket = hash_bucket(flow_key_hash(&key, false));

        if (n == 0)
            home = bucket;
        if (bucket == home)
            same[count++] = n;
    }
    for (unsigned i = 0; i < KEYS; i++) {
        int error = insert(2 + i * 2, same[i], false, &found);

        if (i < BUCKET_PLACES)
            assert_int_equal(error, 0);
        assert_true(error == 0 || error == -ENOSPC);
        inserted[i] = error == 0;
        in += error == 0;
    }
    /* The others are scattered by their signatures over many buckets. */
    assert_true(in > 2 * BUCKET_PLACES);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned i = draw(KEYS);

        assert_int_equal(find(same[i], false), inserted[i] ? 2 + i * 2 : SESSION_NONE);
        if (inserted[i])
            assert_int_equal(session_table_remove(2 + i * 2), 0);
        else if (insert(2 + i * 2, same[i], false, &found) != 0)
            continue;
        inserted[i] = !inserted[i];
    }
    for (unsigned i = 0; i < KEYS; i++)
        assert_int_equal(session_table_remove(2 + i * 2), inserted[i] ? 0 : -ENOENT);
    assert_int_equal(session_table.buckets[home].elsewhere, 0);
}

/* The other bucket of the other bucket is the first one, and they differ. */
static void test_buckets_come_in_pairs(void **state) {
    (void)state;
    for (unsigned i = 0; i < 100000; i++) {
        uint32_t bucket = draw(session_table.mask + 1);
        uint16_t signature = (uint16_t)(1 + draw(65535));

        assert_int_not_equal(bucket_other(bucket, signature), bucket);
        assert_in_range(bucket_other(bucket, signature), 0, session_table.mask);
        assert_int_equal(bucket_other(bucket_other(bucket, signature), signature), bucket);
    }
}

/* As full as it can be, with both flows of each session, of both families. */
/* The last keys of a full table find both their buckets full now and then: of that there is less
 * than one in a thousand, whatever the secret is. */
static void test_a_full_table(void **state) {
    uint32_t *numbers = calloc(SIZE, sizeof(*numbers)), *keys = calloc(SIZE, sizeof(*keys));
    uint32_t found, count = 0;

    (void)state;
    for (uint32_t n = 0; n < SIZE; n++) {
        uint32_t number = session_take(WORKER);
        bool ipv6 = n % 3 == 0;

        assert_int_not_equal(number, SESSION_NONE);
        assert_in_range(number, 1, SIZE);
        assert_int_equal(sessions[number].state, SESSION_FREE);
        if (insert(number * 2, 2 * n, ipv6, &found) != 0) {
            session_give_unused(WORKER, number);
            continue;
        }
        if (insert(number * 2 + 1, 2 * n + 1, ipv6, &found) != 0) {
            assert_int_equal(session_table_remove(number * 2), 0);
            session_give_unused(WORKER, number);
            continue;
        }
        sessions[number].state = SESSION_OTHER;
        keys[count] = n;
        numbers[count++] = number;
    }
    assert_true(count >= SIZE - SIZE / 1000 - 1);
    if (count == SIZE)
        assert_int_equal(session_take(WORKER), SESSION_NONE);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t n = keys[i];

        assert_int_equal(find(2 * n, n % 3 == 0), numbers[i] * 2);
        assert_int_equal(find(2 * n + 1, n % 3 == 0), numbers[i] * 2 + 1);
        assert_int_equal(find(2 * n, n % 3 != 0), SESSION_NONE);
    }
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(session_table_remove(numbers[i] * 2), 0);
        assert_int_equal(session_table_remove(numbers[i] * 2 + 1), 0);
        session_give(WORKER, numbers[i]);
    }
    for (uint32_t n = 0; n < 2 * SIZE; n += 7)
        assert_int_equal(find(n, n / 2 % 3 == 0), SESSION_NONE);
    for (uint32_t bucket = 0; bucket <= session_table.mask; bucket++)
        assert_int_equal(session_table.buckets[bucket].elsewhere, 0);
    free(numbers);
    free(keys);
}

/* What was given back is not used before everybody has passed a quiescent state, and then all is.
 */
static void test_numbers_come_back_after_a_grace_period(void **state) {
    uint8_t *taken = calloc(SIZE + 1, 1);
    uint32_t serial;

    (void)state;
    for (uint32_t n = 0; n < SIZE; n++)
        assert_int_not_equal(session_take(WORKER), SESSION_NONE);
    serial = sessions[1].serial;
    for (uint32_t number = 1; number <= SIZE; number++)
        session_give(WORKER, number);
    for (unsigned i = 0; i < 100; i++)
        session_table_turn(WORKER); /* nobody is quiescent */
    assert_int_equal(session_take(WORKER), SESSION_NONE);
    for (unsigned i = 0; i < 1000; i++)
        turn();
    for (uint32_t n = 0; n < SIZE; n++) {
        uint32_t number = session_take(WORKER);

        assert_in_range(number, 1, SIZE);
        assert_int_equal(taken[number], 0);
        taken[number] = 1;
    }
    assert_int_equal(session_take(WORKER), SESSION_NONE);
    assert_int_equal(sessions[1].serial, serial + 1);
    free(taken);
}

static void test_what_was_never_in_the_table_is_used_at_once(void **state) {
    (void)state;
    for (unsigned i = 0; i < 3 * SIZE; i++) {
        uint32_t number = session_take(WORKER);

        assert_in_range(number, 1, 64);
        session_give_unused(WORKER, number);
    }
}

/* A long random history against a plain list. */
static void test_random_history(void **state) {
    enum { KEYS = 40000, STEPS = 600000 };
    uint32_t *flow = calloc(KEYS, sizeof(*flow)), found, alive = 0;

    (void)state;
    for (unsigned step = 0; step < STEPS; step++) {
        uint32_t n = draw(KEYS);
        bool ipv6 = n % 2;

        assert_int_equal(find(n, ipv6), flow[n]);
        if (flow[n] == SESSION_NONE) {
            uint32_t number = session_take(WORKER);

            assert_int_not_equal(number, SESSION_NONE);
            assert_int_equal(insert(number * 2, n, ipv6, &found), 0);
            sessions[number].state = SESSION_OTHER;
            flow[n] = number * 2;
            alive++;
        } else if (draw(4)) {
            uint32_t number = session_take(WORKER);

            assert_int_equal(insert(number * 2, n, ipv6, &found), -EEXIST);
            assert_int_equal(found, flow[n]);
            session_give_unused(WORKER, number);
        } else {
            assert_int_equal(session_table_remove(flow[n]), 0);
            session_give(WORKER, flow_session(flow[n]));
            flow[n] = SESSION_NONE;
            alive--;
        }
        if (step % 16 == 0)
            turn();
    }
    for (uint32_t n = 0; n < KEYS; n++)
        assert_int_equal(find(n, n % 2), flow[n]);
    assert_true(alive > 0);
    free(flow);
}

/* Nobody outside can tell the buckets of keys beforehand. */
static void test_the_hash_has_a_secret(void **state) {
    union flow_key key = key_of(1, false), key6 = key_of(1, true);
    uint64_t before = flow_key_hash(&key, false), before6 = flow_key_hash(&key6, true);

    (void)state;
    session_table_free();
    assert_int_equal(session_table_create(SIZE, 1), 0);
    assert_true(flow_key_hash(&key, false) != before);
    assert_true(flow_key_hash(&key6, true) != before6);
}

/* Each bit of a key moves about half of the hash, on average. */
static void test_the_hash_mixes(void **state) {
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        for (unsigned bit = 0; bit < (ipv6 ? 320u : 128u); bit++) {
            unsigned changed = 0;

            for (uint32_t n = 0; n < 200; n++) {
                union flow_key key = key_of(n * 2654435761u, ipv6), other = key;

                if (ipv6)
                    ((uint8_t *)&other.v6)[bit / 8] ^= (uint8_t)(1 << bit % 8);
                else
                    ((uint8_t *)&other.v4)[bit / 8] ^= (uint8_t)(1 << bit % 8);
                changed += (unsigned)__builtin_popcountll(flow_key_hash(&key, ipv6) ^
                                                          flow_key_hash(&other, ipv6));
            }
            assert_in_range(changed, 200 * 64 * 40 / 100, 200 * 64 * 60 / 100);
        }
    }
}

#define WITH_TABLE(test) cmocka_unit_test_setup_teardown(test, make_table, free_table)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_TABLE(test_insert_find_remove),
        WITH_TABLE(test_keys_differ_in_any_field),
        WITH_TABLE(test_full_buckets),
        WITH_TABLE(test_buckets_come_in_pairs),
        WITH_TABLE(test_a_full_table),
        WITH_TABLE(test_numbers_come_back_after_a_grace_period),
        WITH_TABLE(test_what_was_never_in_the_table_is_used_at_once),
        WITH_TABLE(test_random_history),
        WITH_TABLE(test_the_hash_has_a_secret),
        WITH_TABLE(test_the_hash_mixes),
    };
    int failures;

    if (event_init() != 0 || rcu_init(1) != 0)
        return EXIT_FAILURE;
    rcu_online(WORKER);
    failures = cmocka_run_group_tests_name("session_table", tests, NULL, NULL);
    rcu_free();
    event_free();
    return failures;
}
