/*
 * Next hops: link-layer headers, ids that rest before they are used again, and how groups share
 * their buckets out when members come, go and change weight.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/rcu.h"
#include "l3/next_hop.h"

static int set_up(void **state) {
    (void)state;
    assert_int_equal(event_init(), 0);
    assert_int_equal(rcu_init(1), 0);
    return next_hop_init();
}

static int tear_down(void **state) {
    (void)state;
    rcu_free();
    next_hop_free_all();
    event_free();
    return 0;
}

static void well_known_ids_have_their_types(void **state) {
    (void)state;
    assert_int_equal(next_hop_get(NEXT_HOP_ID_NONE)->type, NEXT_HOP_NONE);
    assert_int_equal(next_hop_get(NEXT_HOP_ID_BLACKHOLE)->type, NEXT_HOP_BLACKHOLE);
    assert_int_equal(next_hop_get(NEXT_HOP_ID_UNREACHABLE)->type, NEXT_HOP_UNREACHABLE);
    assert_int_equal(next_hop_get(NEXT_HOP_ID_PROHIBIT)->type, NEXT_HOP_PROHIBIT);
    assert_int_equal(next_hop_get(NEXT_HOP_ID_MARTIAN)->type, NEXT_HOP_MARTIAN);
    assert_int_equal(next_hop_init(), -EALREADY);
}

static void headers_are_written_as_they_go_on_the_wire(void **state) {
    static const uint8_t to[6] = {2, 0, 0, 0, 0, 9}, from[6] = {2, 0, 0, 0, 0, 1};
    static const uint8_t untagged[16] = {2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1};
    static const uint8_t tagged[16] = {2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x81, 0, 0x0a, 0xbc};
    const uint32_t id = next_hop_alloc();

    (void)state;
    assert_int_equal(next_hop_get(id)->type, NEXT_HOP_NONE);
    next_hop_set_interface(id, 7, 3, 1500);
    next_hop_set_type(id, NEXT_HOP_RESOLVE);
    next_hop_set_forward(id, NEXT_HOP_FORWARD, to, from, 0);
    assert_memory_equal(&next_hop_get(id)->l2, untagged, 16);
    assert_int_equal(next_hop_get(id)->tagged, 0);
    assert_int_equal(next_hop_get(id)->type, NEXT_HOP_FORWARD);
    next_hop_set_forward(id, NEXT_HOP_STALE, to, from, 0xabc);
    assert_memory_equal(&next_hop_get(id)->l2, tagged, 16);
    assert_int_equal(next_hop_get(id)->tagged, 1);
    assert_int_equal(next_hop_get(id)->type, NEXT_HOP_STALE);
    assert_int_equal(next_hop_get(id)->out_interface, 7);
    assert_int_equal(next_hop_get(id)->port, 3);
    assert_int_equal(next_hop_get(id)->mtu, 1500);
    next_hop_release(id);
}

static void a_released_id_rests_until_no_worker_can_hold_it(void **state) {
    (void)state;
    rcu_online(0);
    rcu_quiescent(0);
    const uint32_t id = next_hop_alloc();
    next_hop_set_type(id, NEXT_HOP_LOCAL);
    next_hop_release(id);
    assert_int_equal(next_hop_get(id)->type, NEXT_HOP_LOCAL); /* a worker may still look at it */
    rcu_reclaim();
    const uint32_t other = next_hop_alloc();
    assert_int_not_equal(other, id);

    rcu_quiescent(0);
    rcu_reclaim();
    assert_int_equal(next_hop_get(id)->type, NEXT_HOP_NONE);
    assert_int_not_equal(next_hop_alloc(), id); /* as late as possible: see all_ids_are_given_out_once */
    rcu_offline(0);
}

static void all_ids_are_given_out_once(void **state) {
    uint8_t *seen = calloc(NEXT_HOPS_MAX, 1);
    uint32_t id, count = 0;

    (void)state;
    assert_non_null(seen);
    while ((id = next_hop_alloc()) != 0) {
        assert_in_range(id, NEXT_HOP_ID_FIRST_FREE, NEXT_HOPS_MAX - 1);
        assert_int_equal(seen[id], 0);
        seen[id] = 1;
        count++;
    }
    assert_int_equal(count, NEXT_HOPS_MAX - NEXT_HOP_ID_FIRST_FREE);
    assert_int_equal(next_hop_group_set(0, (const uint32_t[]){9}, (const uint8_t[]){1}, 1), 0);
    /* What was released is found without anybody running the reclamation. */
    next_hop_release(4711);
    assert_int_equal(next_hop_alloc(), 4711);
    free(seen);
}

/* How many of the group's buckets lead to the id. */
static unsigned share(uint32_t group, uint32_t id) {
    const struct next_hop *entry = next_hop_get(group);
    unsigned count = 0;

    for (uint32_t i = 0; i <= entry->bucket_mask; i++)
        count += entry->buckets[i] == id;
    return count;
}

static unsigned buckets(uint32_t group) {
    return next_hop_get(group)->bucket_mask + 1;
}

static void groups_share_by_weight(void **state) {
    static const struct {
        unsigned count;
        uint8_t weights[5];
    } cases[] = {
        {1, {7}},       {2, {1, 1}},         {2, {1, 3}},       {2, {255, 1}},
        {3, {1, 1, 1}}, {3, {100, 100, 56}}, {4, {1, 2, 3, 4}}, {5, {1, 255, 255, 255, 255}},
        {2, {200, 200}}};

    (void)state;
    for (unsigned c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        uint32_t members[5], total = 0, sum = 0;

        for (unsigned i = 0; i < cases[c].count; i++) {
            members[i] = next_hop_alloc();
            total += cases[c].weights[i];
        }
        const uint32_t group = next_hop_group_set(0, members, cases[c].weights, cases[c].count);
        assert_true(group & NEXT_HOP_GROUP_FLAG);
        assert_int_equal(next_hop_get(group)->type, NEXT_HOP_GROUP);
        const unsigned n = buckets(group);
        assert_int_equal(n & (n - 1), 0);
        assert_true(n <= 1024);
        for (unsigned i = 0; i < cases[c].count; i++) {
            const double wanted = (double)cases[c].weights[i] * n / total;
            const unsigned got = share(group, members[i]);

            assert_true(got >= 1);
            assert_true(got > wanted - 2 && got < wanted + 2);
            sum += got;
        }
        assert_int_equal(sum, n);
        next_hop_group_release(group);
        for (unsigned i = 0; i < cases[c].count; i++)
            next_hop_release(members[i]);
    }
}

static void one_neighbour_twice_counts_twice(void **state) {
    const uint32_t a = next_hop_alloc(), b = next_hop_alloc();
    const uint32_t group =
        next_hop_group_set(0, (const uint32_t[]){a, b, a}, (const uint8_t[]){1, 2, 1}, 3);

    (void)state;
    assert_int_equal(share(group, a), share(group, b));
    next_hop_group_release(group);
}

/* Copies the buckets as 1024, so that groups of different sizes compare. */
static void snapshot(uint32_t group, uint32_t out[1024]) {
    for (uint32_t i = 0; i < 1024; i++)
        out[i] = next_hop_get(group)->buckets[i & next_hop_get(group)->bucket_mask];
}

static void only_the_flows_of_a_lost_member_move(void **state) {
    static const uint8_t even[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    uint32_t members[8], before[1024], after[1024];

    (void)state;
    for (unsigned i = 0; i < 8; i++)
        members[i] = next_hop_alloc();
    const uint32_t group = next_hop_group_set(0, members, even, 8);
    snapshot(group, before);
    assert_int_equal(next_hop_group_set(group, members, even, 7), group);
    snapshot(group, after);
    for (unsigned i = 0; i < 1024; i++) {
        if (before[i] != members[7])
            assert_int_equal(after[i], before[i]);
        assert_int_not_equal(after[i], members[7]);
    }

    /* It comes back: at most its share moves. */
    memcpy(before, after, sizeof(before));
    assert_int_equal(next_hop_group_set(group, members, even, 8), group);
    snapshot(group, after);
    unsigned moved = 0;
    for (unsigned i = 0; i < 1024; i++) {
        moved += after[i] != before[i];
        if (after[i] != before[i])
            assert_int_equal(after[i], members[7]);
    }
    assert_int_equal(moved, 1024 / 8);
    next_hop_group_release(group);
}

static void a_group_can_grow_its_buckets_under_readers(void **state) {
    static const uint8_t uneven[32] = {[0] = 200, [1 ... 31] = 3};
    uint32_t members[32], before[1024], after[1024];
    unsigned kept = 0;

    (void)state;
    for (unsigned i = 0; i < 32; i++)
        members[i] = next_hop_alloc();
    const uint32_t group = next_hop_group_set(0, members, (const uint8_t[]){1, 1}, 2);
    const uint32_t *old = next_hop_get(group)->buckets;
    const uint32_t old_mask = next_hop_get(group)->bucket_mask;
    snapshot(group, before);
    next_hop_group_set(group, members, uneven, 32);
    snapshot(group, after);
    assert_true(next_hop_get(group)->bucket_mask > old_mask);
    /* A worker with the new mask and the old array, or the reverse, still gets a member. */
    for (uint32_t i = 0; i < 1024; i++) {
        const uint32_t id = old[i & next_hop_get(group)->bucket_mask];

        assert_true(id == members[0] || id == members[1]);
        kept += after[i] == before[i];
    }
    assert_true(kept >= 1024 / 2); /* half the buckets were members[0]'s, and it has more now */

    /* It does not shrink: that would move flows of members that stay. */
    const uint32_t mask = next_hop_get(group)->bucket_mask;
    next_hop_group_set(group, members, (const uint8_t[]){1, 1}, 2);
    assert_int_equal(next_hop_get(group)->bucket_mask, mask);
    next_hop_group_release(group);
}

static void groups_check_their_input(void **state) {
    uint32_t members[65];
    uint8_t weights[65];

    (void)state;
    for (unsigned i = 0; i < 65; i++) {
        members[i] = next_hop_alloc();
        weights[i] = 255;
    }
    assert_int_equal(next_hop_group_set(0, members, weights, 0), 0);
    assert_int_equal(next_hop_group_set(0, members, weights, 65), 0);
    const uint32_t group = next_hop_group_set(0, members, weights, 64);
    assert_int_not_equal(group, 0);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(share(group, members[i]), buckets(group) / 64);
    next_hop_group_release(group);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(well_known_ids_have_their_types),
        TEST(headers_are_written_as_they_go_on_the_wire),
        TEST(a_released_id_rests_until_no_worker_can_hold_it),
        TEST(all_ids_are_given_out_once),
        TEST(groups_share_by_weight),
        TEST(one_neighbour_twice_counts_twice),
        TEST(only_the_flows_of_a_lost_member_move),
        TEST(a_group_can_grow_its_buckets_under_readers),
        TEST(groups_check_their_input),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
