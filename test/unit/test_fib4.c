/*
 * fib4 against a list of prefixes that is searched from end to end, through random histories; what
 * its groups do at their limits; and a reader that looks on while the writer works.
 *
 * Every random test is reproducible: a failure prints the seed and the step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "l3/fib4.h"

#define EXPECT(condition, seed, step)                                                              \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            print_error("%s fails, seed %#llx, step %u\n", #condition, (unsigned long long)(seed), \
                        (unsigned)(step));                                                         \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

/* xorshift64*: the same numbers on every machine. */
struct random {
    uint64_t state;
};

static uint32_t random_bits(struct random *random) {
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return (uint32_t)(random->state * 0x2545f4914f6cdd1d >> 32);
}

static uint32_t random_below(struct random *random, uint32_t limit) {
    return (uint32_t)((uint64_t)random_bits(random) * limit >> 32);
}

/* The reference. */
struct route {
    uint32_t addr;
    unsigned len;
    uint32_t nh;
};

enum { ROUTES_MAX = 400 };

struct reference {
    struct route routes[ROUTES_MAX];
    unsigned count;
};

static uint32_t mask_of(unsigned len) {
    return len == 0 ? 0 : ~0u << (32 - len);
}

static struct route *reference_find(struct reference *reference, uint32_t addr, unsigned len) {
    for (unsigned i = 0; i < reference->count; i++) {
        if (reference->routes[i].addr == addr && reference->routes[i].len == len)
            return &reference->routes[i];
    }
    return NULL;
}

/* The longest match shorter than `below`; NULL if there is none. */
static struct route *reference_match(struct reference *reference, uint32_t addr, unsigned below) {
    struct route *best = NULL;

    for (unsigned i = 0; i < reference->count; i++) {
        struct route *route = &reference->routes[i];

        if (route->len < below && ((addr ^ route->addr) & mask_of(route->len)) == 0 &&
            (best == NULL || route->len > best->len))
            best = route;
    }
    return best;
}

static uint32_t reference_lookup(struct reference *reference, uint32_t addr) {
    const struct route *match = reference_match(reference, addr, 33);

    return match != NULL ? match->nh : 0;
}

static void both_add(struct fib4 *fib, struct reference *reference, uint32_t addr, unsigned len,
                     uint32_t nh) {
    struct route *route = reference_find(reference, addr, len);

    if (route == NULL) {
        assert_true(reference->count < ROUTES_MAX);
        route = &reference->routes[reference->count++];
    }
    *route = (struct route){.addr = addr, .len = len, .nh = nh};
    assert_int_equal(fib4_add(fib, addr, len, nh), 0);
}

static void both_delete(struct fib4 *fib, struct reference *reference, struct route *route) {
    const struct route gone = *route;
    const struct route *covering;

    *route = reference->routes[--reference->count];
    covering = reference_match(reference, gone.addr, gone.len);
    assert_int_equal(fib4_delete(fib, gone.addr, gone.len, covering != NULL ? covering->nh : 0,
                                 covering != NULL ? covering->len : 0),
                     0);
}

/* Compares both kinds of lookup at and around the ends of every prefix and at random places. */
static void compare(struct fib4 *fib, struct reference *reference, struct random *random,
                    uint64_t seed, unsigned step) {
    uint32_t dst[64], nh[64];
    unsigned next = 0;

    while (next < reference->count) {
        unsigned n = 0;

        for (; n + 4 <= 60 && next < reference->count; next++) {
            const struct route *route = &reference->routes[next];
            const uint32_t last = route->addr | ~mask_of(route->len);

            dst[n++] = route->addr;
            dst[n++] = route->addr - 1;
            dst[n++] = last;
            dst[n++] = last + 1;
        }
        while (n < 63)
            dst[n++] = random_bits(random);
        fib4_lookup_bulk(fib, dst, nh, n);
        for (unsigned i = 0; i < n; i++) {
            EXPECT(nh[i] == reference_lookup(reference, dst[i]), seed, step);
            EXPECT(nh[i] == fib4_lookup(fib, dst[i]), seed, step);
        }
    }
}

/* Draws a prefix: now and then anywhere, mostly where others are, so that they nest and touch. */
static void draw_prefix(struct random *random, uint32_t *addr, unsigned *len) {
    static const uint32_t clusters[] = {0x0a000000, 0x0a0102f0, 0xc0a80000, 0xffffff80, 0x00000000};

    *len = random_below(random, 33);
    *addr = random_bits(random);
    if (random_below(random, 4) != 0) {
        const uint32_t cluster = clusters[random_below(random, 5)];
        const unsigned kept = 10 + random_below(random, 20);

        *addr = (cluster & mask_of(kept)) | (*addr & ~mask_of(kept) & 0x0303c3ff);
    }
    *addr &= mask_of(*len);
}

static void random_history(uint64_t seed, unsigned steps, unsigned routes_aimed_at) {
    struct random random = {seed};
    struct fib4 *fib = fib4_create(1000, NULL, NULL);
    struct reference *reference = calloc(1, sizeof(*reference));

    assert_non_null(fib);
    for (unsigned step = 0; step < steps; step++) {
        if (random_below(&random, 2 * routes_aimed_at) >= reference->count) {
            uint32_t addr;
            unsigned len;

            draw_prefix(&random, &addr, &len);
            both_add(fib, reference, addr, len, 1 + random_below(&random, FIB4_NH_MAX));
        } else {
            both_delete(fib, reference,
                        &reference->routes[random_below(&random, reference->count)]);
        }
        if (step % 16 == 0)
            compare(fib, reference, &random, seed, step);
    }
    while (reference->count > 0) {
        both_delete(fib, reference, &reference->routes[random_below(&random, reference->count)]);
        if (reference->count % 16 == 0)
            compare(fib, reference, &random, seed, steps + reference->count);
    }
    assert_int_equal(fib4_group_count(fib), 0);
    for (unsigned i = 0; i < 1000; i++)
        EXPECT(fib4_lookup(fib, random_bits(&random)) == 0, seed, i);
    fib4_destroy(fib);
    free(reference);
}

static void test_history_sparse(void **state) {
    (void)state;
    random_history(0x5eed0001, 1500, 20);
}

static void test_history_dense(void **state) {
    (void)state;
    random_history(0x5eed0002, 2500, 150);
    random_history(0x5eed0003, 2500, 150);
}

/* One chain 0.0.0.0/0 .. a.b.c.d/32, taken down in random order: each deletion uncovers. */
static void test_nested_chain(void **state) {
    const uint32_t leaf = 0x0a0102f5;
    const uint64_t seed = 0x5eed0004;
    struct random random = {seed};
    struct reference *reference = calloc(1, sizeof(*reference));
    struct fib4 *fib = fib4_create(4, NULL, NULL);

    (void)state;
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i <= 32; i++) {
            const unsigned len = (i * 10 + round) % 33;

            both_add(fib, reference, leaf & mask_of(len), len, 1 + len);
        }
        EXPECT(fib4_lookup(fib, leaf) == 33, seed, round);
        while (reference->count > 0) {
            both_delete(fib, reference,
                        &reference->routes[random_below(&random, reference->count)]);
            EXPECT(fib4_lookup(fib, leaf) == reference_lookup(reference, leaf), seed, round);
            compare(fib, reference, &random, seed, round);
        }
        EXPECT(fib4_lookup(fib, leaf) == 0, seed, round);
    }
    fib4_destroy(fib);
    free(reference);
}

static void test_arguments(void **state) {
    struct fib4 *fib = fib4_create(4, NULL, NULL);

    (void)state;
    assert_non_null(fib);
    errno = 0;
    assert_null(fib4_create(FIB4_GROUPS_MAX + 1, NULL, NULL));
    assert_int_equal(errno, EINVAL);
    assert_int_equal(fib4_add(fib, 0, 33, 1), -EINVAL);
    assert_int_equal(fib4_add(fib, 0, 8, 0), -EINVAL);
    assert_int_equal(fib4_add(fib, 0, 8, FIB4_NH_MAX + 1), -EINVAL);
    assert_int_equal(fib4_delete(fib, 0, 33, 0, 0), -EINVAL);
    assert_int_equal(fib4_delete(fib, 0, 8, 1, 8), -EINVAL);
    assert_int_equal(fib4_delete(fib, 0, 8, FIB4_NH_MAX + 1, 0), -EINVAL);
    assert_int_equal(fib4_delete(fib, 0, 25, 0, 0), -ENOENT);
    assert_int_equal(fib4_delete(fib, 0, 24, 0, 0), 0);

    /* Bits behind the length do not count, the largest id survives the trip. */
    assert_int_equal(fib4_add(fib, 0xc0a80117, 16, FIB4_NH_MAX), 0);
    assert_int_equal(fib4_lookup(fib, 0xc0a8ffff), FIB4_NH_MAX);
    assert_int_equal(fib4_lookup(fib, 0xc0a90000), 0);
    assert_int_equal(fib4_delete(fib, 0xc0a8ffff, 16, 0, 0), 0);
    assert_int_equal(fib4_lookup(fib, 0xc0a8ffff), 0);
    fib4_destroy(fib);
    fib4_destroy(NULL);
}

/* A retire function that keeps everything until asked. */
struct deferred {
    struct {
        retire_free_fn free_fn;
        void *owner, *memory;
        size_t size;
    } items[4096];
    unsigned count;
};

static void deferred_retire(void *ctx, retire_free_fn free_fn, void *owner, void *memory,
                            size_t size) {
    struct deferred *deferred = ctx;

    assert_true(deferred->count < 4096);
    deferred->items[deferred->count].free_fn = free_fn;
    deferred->items[deferred->count].owner = owner;
    deferred->items[deferred->count].memory = memory;
    deferred->items[deferred->count++].size = size;
}

static void deferred_flush(struct deferred *deferred) {
    for (unsigned i = 0; i < deferred->count; i++)
        deferred->items[i].free_fn(deferred->items[i].owner, deferred->items[i].memory,
                                   deferred->items[i].size);
    deferred->count = 0;
}

static void test_groups_run_out(void **state) {
    struct deferred *deferred = calloc(1, sizeof(*deferred));
    struct fib4 *fib = fib4_create(2, deferred_retire, deferred);

    (void)state;
    assert_int_equal(fib4_add(fib, 0x0a000000, 8, 7), 0);
    assert_int_equal(fib4_add(fib, 0x0a000000, 24, 8), 0);
    assert_int_equal(fib4_add(fib, 0x0a000001, 32, 1), 0);
    assert_int_equal(fib4_add(fib, 0x0a000002, 32, 2), 0);
    assert_int_equal(fib4_add(fib, 0x0a000101, 32, 3), 0);
    assert_int_equal(fib4_group_count(fib), 2);
    assert_int_equal(fib4_add(fib, 0x0a000201, 32, 4), -ENOSPC);
    assert_int_equal(fib4_lookup(fib, 0x0a000201), 7);

    /* A freed group is not there for others before its readers are through. */
    assert_int_equal(fib4_delete(fib, 0x0a000101, 32, 7, 8), 0);
    assert_int_equal(fib4_group_count(fib), 1);
    assert_int_equal(deferred->count, 1);
    assert_int_equal(fib4_lookup(fib, 0x0a000101), 7);
    assert_int_equal(fib4_add(fib, 0x0a000201, 32, 4), -ENOSPC);
    deferred_flush(deferred);
    assert_int_equal(fib4_add(fib, 0x0a000201, 32, 4), 0);
    assert_int_equal(fib4_lookup(fib, 0x0a000201), 4);
    assert_int_equal(fib4_lookup(fib, 0x0a000202), 7);

    /* The base of a group follows the /24 above it, which can go and come back below it. */
    assert_int_equal(fib4_lookup(fib, 0x0a000003), 8);
    assert_int_equal(fib4_delete(fib, 0x0a000000, 24, 7, 8), 0);
    assert_int_equal(fib4_lookup(fib, 0x0a000003), 7);
    assert_int_equal(fib4_lookup(fib, 0x0a000002), 2);
    assert_int_equal(fib4_add(fib, 0x0a000000, 23, 9), 0);
    assert_int_equal(fib4_lookup(fib, 0x0a000003), 9);
    assert_int_equal(fib4_delete(fib, 0x0a000001, 32, 9, 23), 0);
    assert_int_equal(fib4_delete(fib, 0x0a000002, 32, 9, 23), 0);
    assert_int_equal(fib4_lookup(fib, 0x0a000002), 9);

    /* Destroyed while the group is still out: its return releases everything (see ASan). */
    assert_int_equal(deferred->count, 1);
    fib4_destroy(fib);
    deferred_flush(deferred);
    free(deferred);
}

/* A reader and a writer. The reader reports by its turn counter that it holds nothing; the writer
 * lets a batch of retired groups go when the counter has moved on by two. */
struct race {
    struct fib4 *fib;
    struct deferred deferred;
    uint64_t turns;
    uint32_t wrong; /* an answer that was never right, for the report; 0 if none */
    bool stop;
};

enum { ALWAYS_NH = 77, OTHERS_NH = 1000 };

static void *race_reader(void *argument) {
    struct race *race = argument;
    uint32_t dst[64], nh[64];
    struct random random = {0x5eed0005};

    while (!__atomic_load_n(&race->stop, __ATOMIC_ACQUIRE)) {
        /* Even: under the /20 only, no matter what else goes on in these /24s. Odd: in reach of the
         * others, so one of theirs or that of the /20. */
        for (unsigned i = 0; i < 64; i++)
            dst[i] = 0x0a010000 + (random_below(&random, 16) << 8) +
                     (i % 2 == 0 ? 0xf0 + random_below(&random, 16) : random_below(&random, 0xf0));
        fib4_lookup_bulk(race->fib, dst, nh, 64);
        for (unsigned i = 0; i < 64; i++) {
            const bool right =
                nh[i] == ALWAYS_NH || (i % 2 == 1 && nh[i] >= OTHERS_NH && nh[i] <= OTHERS_NH + 32);

            if (!right)
                __atomic_store_n(&race->wrong, nh[i] | 1u << 31, __ATOMIC_RELEASE);
        }
        __atomic_fetch_add(&race->turns, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void race_grace_period(struct race *race) {
    const uint64_t start = __atomic_load_n(&race->turns, __ATOMIC_ACQUIRE);

    while (__atomic_load_n(&race->turns, __ATOMIC_ACQUIRE) < start + 2)
        sched_yield();
    deferred_flush(&race->deferred);
}

static void test_concurrent_reader(void **state) {
    const uint64_t seed = 0x5eed0006;
    struct random random = {seed};
    struct race *race = calloc(1, sizeof(*race));
    bool present[16][240] = {0};
    unsigned present_count[16] = {0};
    pthread_t reader;

    (void)state;
    race->fib = fib4_create(64, deferred_retire, &race->deferred);
    assert_int_equal(fib4_add(race->fib, 0x0a010000, 20, ALWAYS_NH), 0);
    assert_int_equal(pthread_create(&reader, NULL, race_reader, race), 0);
    for (unsigned step = 0; step < 60000; step++) {
        const unsigned third = random_below(&random, 16), last = random_below(&random, 3) * 80;
        const uint32_t addr = 0x0a010000 + (third << 8) + last;

        /* Few host routes per /24, so that groups come and go all the time. */
        if (present[third][last]) {
            EXPECT(fib4_delete(race->fib, addr, 32, ALWAYS_NH, 20) == 0, seed, step);
            present_count[third]--;
        } else {
            EXPECT(fib4_add(race->fib, addr, 32, OTHERS_NH + 32) == 0, seed, step);
            present_count[third]++;
        }
        present[third][last] = !present[third][last];
        /* Things above the /20 must never show. */
        if (step % 64 == 0) {
            assert_int_equal(fib4_add(race->fib, 0x0a000000, 8, 5), 0);
            assert_int_equal(fib4_add(race->fib, 0x0a000000, 9, 6), 0);
        } else if (step % 64 == 32) {
            assert_int_equal(fib4_delete(race->fib, 0x0a000000, 9, 5, 8), 0);
            assert_int_equal(fib4_delete(race->fib, 0x0a000000, 8, 0, 0), 0);
        }
        if (race->deferred.count >= 32)
            race_grace_period(race);
        EXPECT(__atomic_load_n(&race->wrong, __ATOMIC_ACQUIRE) == 0, seed, step);
    }
    __atomic_store_n(&race->stop, true, __ATOMIC_RELEASE);
    pthread_join(reader, NULL);
    assert_int_equal(race->wrong, 0);
    fib4_destroy(race->fib);
    deferred_flush(&race->deferred);
    free(race);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments),      cmocka_unit_test(test_history_sparse),
        cmocka_unit_test(test_history_dense),  cmocka_unit_test(test_nested_chain),
        cmocka_unit_test(test_groups_run_out), cmocka_unit_test(test_concurrent_reader),
    };

    return cmocka_run_group_tests_name("fib4", tests, NULL, NULL);
}
