/*
 * prefix_trie against a list of prefixes that is searched from end to end, through random histories
 * with IPv6-like, IPv4-like and adversarial keys, with both kinds of root; iteration, memory, and a
 * reader that looks on while the writer works.
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
#include <string.h>
#include <sys/resource.h>

#include "l3/prefix_trie.h"
#include "skip.h"

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

static uint64_t random_long(struct random *random) {
    return (uint64_t)random_bits(random) << 32 | random_bits(random);
}

static struct prefix_key key_make(uint64_t hi, uint64_t lo) {
    return (struct prefix_key){.lo = lo, .hi = hi};
}

/* Deliberately not the way the implementation does it: bit by bit. */
static bool key_bit(struct prefix_key key, unsigned number) {
    return (number < 64 ? key.hi >> (63 - number) : key.lo >> (127 - number)) & 1;
}

static struct prefix_key key_mask(struct prefix_key key, unsigned len) {
    if (len <= 64)
        return key_make(len == 0 ? 0 : key.hi >> (64 - len) << (64 - len), 0);
    return key_make(key.hi, key.lo >> (128 - len) << (128 - len));
}

static bool key_equal(struct prefix_key a, struct prefix_key b) {
    return a.hi == b.hi && a.lo == b.lo;
}

static int entry_order(const void *left, const void *right) {
    const struct prefix_entry *a = left, *b = right;

    for (unsigned i = 0; i < 128; i++) {
        if (key_bit(a->key, i) != key_bit(b->key, i))
            return key_bit(a->key, i) ? 1 : -1;
    }
    return (int)a->len - (int)b->len;
}

/* The reference. */
enum { ENTRIES_MAX = 600 };

struct reference {
    struct prefix_entry entries[ENTRIES_MAX];
    unsigned count;
};

static struct prefix_entry *reference_find(struct reference *reference, struct prefix_key key,
                                           unsigned len) {
    for (unsigned i = 0; i < reference->count; i++) {
        if (reference->entries[i].len == len && key_equal(reference->entries[i].key, key))
            return &reference->entries[i];
    }
    return NULL;
}

static struct prefix_entry *reference_match(struct reference *reference, struct prefix_key key,
                                            unsigned below) {
    struct prefix_entry *best = NULL;

    for (unsigned i = 0; i < reference->count; i++) {
        struct prefix_entry *entry = &reference->entries[i];

        if (entry->len < below && (best == NULL || entry->len > best->len) &&
            key_equal(key_mask(key, entry->len), entry->key))
            best = entry;
    }
    return best;
}

static void both_insert(struct prefix_trie *trie, struct reference *reference,
                        struct prefix_key key, unsigned len, uint32_t value) {
    struct prefix_entry *entry = reference_find(reference, key, len);
    uint32_t old = 12345;

    assert_int_equal(prefix_trie_insert(trie, key, len, value, &old), 0);
    assert_int_equal(old, entry != NULL ? entry->value : 0);
    if (entry == NULL) {
        assert_true(reference->count < ENTRIES_MAX);
        entry = &reference->entries[reference->count++];
    }
    *entry = (struct prefix_entry){.key = key, .value = value, .len = (uint8_t)len};
    assert_int_equal(prefix_trie_count(trie), reference->count);
}

static void both_delete(struct prefix_trie *trie, struct reference *reference,
                        struct prefix_entry *entry) {
    const struct prefix_entry gone = *entry;
    uint32_t old = 12345;

    *entry = reference->entries[--reference->count];
    assert_int_equal(prefix_trie_delete(trie, gone.key, gone.len, &old), 0);
    assert_int_equal(old, gone.value);
    old = 12345;
    assert_int_equal(prefix_trie_delete(trie, gone.key, gone.len, &old), -ENOENT);
    assert_int_equal(old, 12345);
    assert_int_equal(prefix_trie_count(trie), reference->count);
}

static bool entry_equal(const struct prefix_entry *a, const struct prefix_entry *b) {
    return key_equal(a->key, b->key) && a->len == b->len && a->value == b->value;
}

/* A key at or just outside an end of the entry, or with one bit changed, or with all the bits that
 * do not count drawn anew. */
static struct prefix_key key_near(struct random *random, const struct prefix_entry *entry) {
    const struct prefix_key noise = key_make(random_long(random), random_long(random));
    const struct prefix_key fixed = key_mask(noise, entry->len);
    struct prefix_key key = entry->key;
    unsigned number;

    switch (random_below(random, 4)) {
    case 0:
        return key;
    case 1: /* the last key of the prefix */
        key.hi |= ~key_mask(key_make(~0ull, ~0ull), entry->len).hi;
        key.lo |= ~key_mask(key_make(~0ull, ~0ull), entry->len).lo;
        return key;
    case 2:
        number = random_below(random, 128);
        if (number < 64)
            key.hi ^= 1ull << (63 - number);
        else
            key.lo ^= 1ull << (127 - number);
        return key;
    default:
        return key_make(key.hi | (noise.hi ^ fixed.hi), key.lo | (noise.lo ^ fixed.lo));
    }
}

static void compare_lookups(struct prefix_trie *trie, struct reference *reference,
                            struct random *random, uint64_t seed, unsigned step) {
    struct prefix_key keys[150] = {0};
    uint32_t values[150];
    const unsigned n = random_below(random, 151);

    for (unsigned i = 0; i < n; i++) {
        keys[i] = key_make(random_long(random), random_long(random));
        if (reference->count > 0 && i % 8 != 0)
            keys[i] = key_near(random, &reference->entries[random_below(random, reference->count)]);
    }
    prefix_trie_lookup_bulk(trie, keys, values, n);
    for (unsigned i = 0; i < n; i++) {
        const struct prefix_entry *match = reference_match(reference, keys[i], 129);
        const unsigned len = random_below(random, 130);
        const struct prefix_entry *cover = reference_match(reference, keys[i], len);
        struct prefix_entry got;

        EXPECT(values[i] == (match != NULL ? match->value : 0), seed, step);
        EXPECT(prefix_trie_lookup(trie, keys[i]) == values[i], seed, step);
        EXPECT(prefix_trie_covering(trie, keys[i], 129, &got) == (match != NULL), seed, step);
        EXPECT(match == NULL || entry_equal(&got, match), seed, step);
        EXPECT(prefix_trie_covering(trie, keys[i], len, &got) == (cover != NULL), seed, step);
        EXPECT(cover == NULL || entry_equal(&got, cover), seed, step);
        if (len <= 128) {
            const struct prefix_entry *exact =
                reference_find(reference, key_mask(keys[i], len), len);

            EXPECT(prefix_trie_get(trie, keys[i], len) == (exact != NULL ? exact->value : 0), seed,
                   step);
        }
    }
}

static void compare_iteration(struct prefix_trie *trie, struct reference *reference,
                              struct random *random, uint64_t seed, unsigned step) {
    struct prefix_entry entry;
    bool more = prefix_trie_first(trie, &entry);

    qsort(reference->entries, reference->count, sizeof(reference->entries[0]), entry_order);
    for (unsigned i = 0; i < reference->count; i++) {
        EXPECT(more, seed, step);
        EXPECT(entry_equal(&entry, &reference->entries[i]), seed, step);
        EXPECT(prefix_trie_get(trie, entry.key, entry.len) == entry.value, seed, step);
        more = prefix_trie_next(trie, entry.key, entry.len, &entry);
    }
    EXPECT(!more, seed, step);

    /* Resume behind prefixes that were never there. */
    for (unsigned i = 0; i < 20; i++) {
        struct prefix_entry behind = {.len = (uint8_t)random_below(random, 129)};
        unsigned expected = 0;

        behind.key = key_make(random_long(random), random_long(random));
        if (reference->count > 0 && i % 4 != 0)
            behind.key =
                key_near(random, &reference->entries[random_below(random, reference->count)]);
        more = prefix_trie_next(trie, behind.key, behind.len, &entry);
        behind.key = key_mask(behind.key, behind.len);
        while (expected < reference->count &&
               entry_order(&reference->entries[expected], &behind) <= 0)
            expected++;
        EXPECT(more == (expected < reference->count), seed, step);
        EXPECT(!more || entry_equal(&entry, &reference->entries[expected]), seed, step);
    }
}

/* Kinds of prefixes. All of them mix in lengths and keys that the kind is not about. */
enum kind {
    KIND_RANDOM,   /* anywhere, any length */
    KIND_INTERNET, /* a few /32 and what is in them, down to host routes */
    KIND_IPV4,     /* lengths up to 32, in the top bits */
    KIND_TIGHT,    /* variations of few bits of one address: full nodes, long chains */
};

static void draw_prefix(struct random *random, enum kind kind, struct prefix_key *key,
                        unsigned *len) {
    *key = key_make(random_long(random), random_long(random));
    *len = random_below(random, 129);
    switch (kind) {
    case KIND_RANDOM:
        break;
    case KIND_INTERNET:
        key->hi = 0x20010db800000000 | (uint64_t)random_below(random, 3) << 40 |
                  (random_bits(random) & 0x00030003);
        key->lo = random_below(random, 2) == 0 ? random_below(random, 8) : key->lo;
        if (random_below(random, 4) != 0) {
            static const uint8_t usual[] = {16, 20, 29, 32, 40, 44, 48, 56, 64, 127, 128};

            *len = usual[random_below(random, sizeof(usual))];
        }
        break;
    case KIND_IPV4:
        *key = prefix_key_from_ipv4(0x0a000000 | (random_bits(random) & 0x00030f0f));
        *len = random_below(random, 33);
        break;
    case KIND_TIGHT:
        key->hi = 0xfd00123456789abc ^ (key->hi & 0x0000000000000fff);
        key->lo = 0x0123456789abcdef ^ (key->lo & 0xfc00000000000003);
        *len = random_below(random, 4) == 0 ? *len : 50 + random_below(random, 22);
        break;
    }
    *key = key_mask(*key, *len);
}

static void random_history(uint64_t seed, unsigned root_bits, enum kind kind, unsigned steps,
                           unsigned entries_aimed_at) {
    struct random random = {seed};
    struct prefix_trie *trie = prefix_trie_create(root_bits, NULL, NULL);
    struct reference *reference = calloc(1, sizeof(*reference));
    size_t used;

    assert_non_null(trie);
    for (unsigned step = 0; step < steps; step++) {
        if (random_below(&random, 2 * entries_aimed_at) >= reference->count) {
            struct prefix_key key;
            unsigned len;

            draw_prefix(&random, kind, &key, &len);
            both_insert(trie, reference, key, len, 1 + random_below(&random, UINT32_MAX));
        } else {
            both_delete(trie, reference,
                        &reference->entries[random_below(&random, reference->count)]);
        }
        if (step % 8 == 0)
            compare_lookups(trie, reference, &random, seed, step);
        if (step % 32 == 0)
            compare_iteration(trie, reference, &random, seed, step);
    }
    while (reference->count > 0) {
        both_delete(trie, reference, &reference->entries[random_below(&random, reference->count)]);
        if (reference->count % 8 == 0)
            compare_lookups(trie, reference, &random, seed, steps + reference->count);
    }
    compare_iteration(trie, reference, &random, seed, steps);
    prefix_trie_memory(trie, &used);
    EXPECT(used == 0, seed, steps); // every node and array has come back
    prefix_trie_destroy(trie);
    free(reference);
}

static void histories(unsigned root_bits) {
    random_history(0x5eed1001, root_bits, KIND_RANDOM, 2000, 150);
    random_history(0x5eed1002, root_bits, KIND_INTERNET, 3000, 200);
    random_history(0x5eed1003, root_bits, KIND_IPV4, 2000, 200);
    random_history(0x5eed1004, root_bits, KIND_TIGHT, 3000, 280);
    random_history(0x5eed1005, root_bits, KIND_TIGHT, 1500, 8);
}

static void test_history_root16(void **state) {
    (void)state;
    histories(16);
}

static void test_history_root0(void **state) {
    (void)state;
    histories(0);
}

/* One chain ::/0 .. /128, built up and taken down in different orders. */
static void test_nested_chain(void **state) {
    const struct prefix_key leaf = key_make(0x20010db8a5c396e1, 0x80f7c3a15e9d2b47);
    const uint64_t seed = 0x5eed1006;
    struct random random = {seed};
    struct reference *reference = calloc(1, sizeof(*reference));

    (void)state;
    for (unsigned root_bits = 0; root_bits <= 16; root_bits += 16) {
        struct prefix_trie *trie = prefix_trie_create(root_bits, NULL, NULL);

        for (unsigned i = 0; i <= 128; i++) {
            const unsigned len = i * 37 % 129;

            both_insert(trie, reference, key_mask(leaf, len), len, 1 + len);
        }
        compare_iteration(trie, reference, &random, seed, root_bits);
        while (reference->count > 0) {
            both_delete(trie, reference,
                        &reference->entries[random_below(&random, reference->count)]);
            compare_lookups(trie, reference, &random, seed, reference->count);
        }
        prefix_trie_destroy(trie);
    }
    free(reference);
}

/* All prefixes of lengths 22..28 below one /22: one node full of prefixes, and 64 children. */
static void test_full_node(void **state) {
    const uint64_t base = 0x2001080000000000;

    (void)state;
    for (unsigned root_bits = 0; root_bits <= 16; root_bits += 16) {
        struct prefix_trie *trie = prefix_trie_create(root_bits, NULL, NULL);
        size_t used;

        for (unsigned len = 28; len >= 22; len--) {
            for (uint64_t i = 0; i < 1u << (len - 22); i++)
                assert_int_equal(prefix_trie_insert(trie, key_make(base | i << (64 - len), 0), len,
                                                    (uint32_t)(len << 8 | i), NULL),
                                 0);
        }
        assert_int_equal(prefix_trie_count(trie), 127);
        for (uint64_t i = 0; i < 64; i++) {
            const struct prefix_key key = key_make(base | i << 36 | 0x123456789, 99);

            for (unsigned below = 29; below > 22; below--) {
                struct prefix_entry entry;

                assert_true(prefix_trie_covering(trie, key, below, &entry));
                assert_int_equal(entry.value, (below - 1) << 8 | i >> (29 - below));
            }
            assert_int_equal(prefix_trie_lookup(trie, key), 28 << 8 | i);
        }
        for (unsigned len = 22; len <= 28; len++) {
            for (uint64_t i = 0; i < 1u << (len - 22); i++)
                assert_int_equal(
                    prefix_trie_delete(trie, key_make(base | i << (64 - len), 0), len, NULL), 0);
        }
        prefix_trie_memory(trie, &used);
        assert_int_equal(used, 0);
        prefix_trie_destroy(trie);
    }
}

static void test_arguments(void **state) {
    const struct prefix_key key = key_make(0x20010db800000000, 1);
    struct prefix_entry entry;
    struct prefix_trie *trie;
    uint32_t old = 5;

    (void)state;
    errno = 0;
    assert_null(prefix_trie_create(8, NULL, NULL));
    assert_int_equal(errno, EINVAL);
    prefix_trie_destroy(NULL);
    for (unsigned root_bits = 0; root_bits <= 16; root_bits += 16) {
        trie = prefix_trie_create(root_bits, NULL, NULL);
        assert_non_null(trie);
        assert_false(prefix_trie_first(trie, &entry));
        assert_false(prefix_trie_next(trie, key, 128, &entry));
        assert_false(prefix_trie_covering(trie, key, 129, &entry));
        assert_int_equal(prefix_trie_lookup(trie, key), 0);
        prefix_trie_lookup_bulk(trie, &key, &old, 0);
        assert_int_equal(old, 5);
        assert_int_equal(prefix_trie_insert(trie, key, 129, 1, &old), -EINVAL);
        assert_int_equal(prefix_trie_insert(trie, key, 64, 0, &old), -EINVAL);
        assert_int_equal(prefix_trie_delete(trie, key, 129, &old), -EINVAL);
        assert_int_equal(prefix_trie_delete(trie, key, 64, &old), -ENOENT);
        assert_int_equal(prefix_trie_delete(trie, key, 8, &old), -ENOENT);
        assert_int_equal(prefix_trie_get(trie, key, 129), 0);
        assert_int_equal(old, 5);

        /* Bits behind the length do not count, and any value but 0 is good. */
        assert_int_equal(prefix_trie_insert(trie, key, 32, UINT32_MAX, NULL), 0);
        assert_int_equal(prefix_trie_get(trie, key_make(0x20010db8ffffffff, 7), 32), UINT32_MAX);
        assert_true(prefix_trie_first(trie, &entry));
        assert_int_equal(entry.key.hi, 0x20010db800000000);
        assert_int_equal(entry.key.lo, 0);
        assert_int_equal(entry.len, 32);
        assert_int_equal(prefix_trie_delete(trie, key, 32, NULL), 0);
        assert_int_equal(prefix_trie_count(trie), 0);
        prefix_trie_destroy(trie);
    }
}

static void test_key_conversion(void **state) {
    const uint8_t address[16] = {0x20, 0x01, 0x0d, 0xb8, 0xa1, 0xa2, 0xa3, 0xa4,
                                 0xb1, 0xb2, 0xb3, 0xb4, 0xc1, 0xc2, 0xc3, 0xc4};
    uint8_t unaligned[17], back[16];
    struct prefix_key key;

    (void)state;
    memcpy(unaligned + 1, address, 16);
    key = prefix_key_from_ipv6(unaligned + 1);
    assert_true(key.hi == 0x20010db8a1a2a3a4);
    assert_true(key.lo == 0xb1b2b3b4c1c2c3c4);
    prefix_key_to_ipv6(key, back);
    assert_memory_equal(back, address, 16);
    key = prefix_key_from_ipv4(0xc0a80102);
    assert_true(key.hi == 0xc0a8010200000000 && key.lo == 0);
    assert_int_equal(prefix_key_to_ipv4(key), 0xc0a80102);
}

/* When memory runs out in the middle of an update, nothing has happened. */
static void test_out_of_memory(void **state) {
    const uint64_t seed = 0x5eed1007;
    struct random random = {seed};
    struct prefix_trie *trie = prefix_trie_create(0, NULL, NULL);
    struct rlimit unlimited, none;
    enum { ATTEMPTS = 6000 };
    static bool inserted[ATTEMPTS];
    unsigned failures = 0;
    size_t count = 0, used;

    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    prefix_trie_destroy(trie);
    SKIP_CASE("a sanitizer cannot live with a limit on address space");
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    prefix_trie_destroy(trie);
    SKIP_CASE("a sanitizer cannot live with a limit on address space");
#endif
#endif
    assert_int_equal(getrlimit(RLIMIT_AS, &unlimited), 0);
    none = unlimited;
    none.rlim_cur = 1;
    assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
    /* Beyond the first failure some still fit into free blocks, so that all steps get to fail. */
    for (uint32_t i = 0; i < ATTEMPTS; i++) {
        const uint32_t draw = random_bits(&random);
        const int error = prefix_trie_insert(trie, prefix_key_from_ipv4(draw), 32, i + 1, NULL);

        EXPECT(error == 0 || error == -ENOMEM, seed, i);
        inserted[i] = error == 0;
        count += inserted[i];
        failures += error != 0;
    }
    assert_int_equal(setrlimit(RLIMIT_AS, &unlimited), 0);
    assert_true(count > 100 && failures > 100);
    assert_int_equal(prefix_trie_count(trie), count);

    random.state = seed;
    for (uint32_t i = 0; i < ATTEMPTS; i++) {
        const struct prefix_key key = prefix_key_from_ipv4(random_bits(&random));

        EXPECT(prefix_trie_lookup(trie, key) == (inserted[i] ? i + 1 : 0), seed, i);
    }
    random.state = seed;
    for (uint32_t i = 0; i < ATTEMPTS; i++) {
        const struct prefix_key key = prefix_key_from_ipv4(random_bits(&random));

        EXPECT(prefix_trie_delete(trie, key, 32, NULL) == (inserted[i] ? 0 : -ENOENT), seed, i);
    }
    prefix_trie_memory(trie, &used);
    assert_int_equal(used, 0); // what a failed update had taken is back as well
    prefix_trie_destroy(trie);
}

/* A retire function that keeps everything until asked. */
enum { DEFERRED_MAX = 4096 };

struct deferred {
    struct {
        retire_free_fn free_fn;
        void *owner, *memory;
        size_t size;
    } items[DEFERRED_MAX];
    unsigned count;
};

static void deferred_retire(void *ctx, retire_free_fn free_fn, void *owner, void *memory,
                            size_t size) {
    struct deferred *deferred = ctx;

    assert_true(deferred->count < DEFERRED_MAX);
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

static void test_destroy_before_retired_is_back(void **state) {
    struct deferred *deferred = calloc(1, sizeof(*deferred));
    struct prefix_trie *trie = prefix_trie_create(16, deferred_retire, deferred);
    size_t used;

    (void)state;
    for (unsigned i = 1; i <= 200; i++)
        assert_int_equal(prefix_trie_insert(trie,
                                            key_make(0x2001000000000000 + ((uint64_t)i << 32), 0),
                                            48, i, NULL),
                         0);
    for (unsigned i = 1; i <= 200; i++)
        assert_int_equal(prefix_trie_delete(
                             trie, key_make(0x2001000000000000 + ((uint64_t)i << 32), 0), 48, NULL),
                         0);
    assert_true(deferred->count > 200);
    prefix_trie_memory(trie, &used);
    assert_true(used > 0);
    prefix_trie_destroy(trie);
    deferred_flush(deferred); // the last one releases everything, see ASan
    free(deferred);
}

/* A reader and a writer. The reader reports by its turn counter that it holds nothing; the writer
 * lets a batch of retired memory go when the counter has moved on by two. */
struct race {
    struct prefix_trie *trie;
    struct deferred deferred;
    uint64_t turns;
    uint32_t wrong;
    bool stop;
};

/* The prefix that is always there; its addresses in reach of the others; and those out of reach. */
#define STABLE_HI 0x20010db800000000ull
enum { STABLE_LEN = 34, STABLE_VALUE = 77, OTHERS_VALUE = 1000 };

static void *race_reader(void *argument) {
    struct race *race = argument;
    struct random random = {0x5eed1008};
    struct prefix_key keys[64];
    uint32_t values[64];

    while (!__atomic_load_n(&race->stop, __ATOMIC_ACQUIRE)) {
        for (unsigned i = 0; i < 64; i++) {
            const uint64_t subnet = random_below(&random, 32) * 2 + (i % 2);

            /* Even subnets only ever match the stable prefix, odd ones also more specific ones. */
            keys[i] = key_make(STABLE_HI | subnet << 16 | random_below(&random, 4),
                               random_below(&random, 4));
        }
        prefix_trie_lookup_bulk(race->trie, keys, values, 64);
        for (unsigned i = 0; i < 64; i++) {
            const uint32_t value =
                random_below(&random, 8) == 0 ? prefix_trie_lookup(race->trie, keys[i]) : values[i];

            if (value != STABLE_VALUE &&
                (i % 2 == 0 || value < OTHERS_VALUE || value > OTHERS_VALUE + 128))
                __atomic_store_n(&race->wrong, value | 1u << 31, __ATOMIC_RELEASE);
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

static void concurrent_reader(unsigned root_bits) {
    const uint64_t seed = 0x5eed1009;
    struct random random = {seed};
    struct race *race = calloc(1, sizeof(*race));
    pthread_t reader;
    size_t used;

    race->trie = prefix_trie_create(root_bits, deferred_retire, &race->deferred);
    assert_non_null(race->trie);
    assert_int_equal(
        prefix_trie_insert(race->trie, key_make(STABLE_HI, 0), STABLE_LEN, STABLE_VALUE, NULL), 0);
    assert_int_equal(pthread_create(&reader, NULL, race_reader, race), 0);
    for (unsigned step = 0; step < 60000; step++) {
        const uint64_t subnet = random_below(&random, 32) * 2 + 1;
        struct prefix_key key =
            key_make(STABLE_HI | subnet << 16 | random_below(&random, 4), random_below(&random, 4));
        unsigned len = 48 + random_below(&random, 81);
        uint32_t value = OTHERS_VALUE + len;

        switch (random_below(&random, 8)) {
        case 0: /* a shorter one above the stable one: splits and joins the path to it */
            len = random_below(&random, STABLE_LEN);
            value = 5;
            break;
        case 1: /* a neighbour on the path */
            len = 20 + random_below(&random, 20);
            key.hi ^= 1ull << (64 - len);
            key.hi ^= len > STABLE_LEN ? 1ull << (64 - STABLE_LEN) : 0;
            value = 6;
            break;
        }
        if (prefix_trie_delete(race->trie, key, len, NULL) == -ENOENT)
            EXPECT(prefix_trie_insert(race->trie, key, len, value, NULL) == 0, seed, step);
        if (race->deferred.count >= 64)
            race_grace_period(race);
        EXPECT(__atomic_load_n(&race->wrong, __ATOMIC_ACQUIRE) == 0, seed, step);
    }
    __atomic_store_n(&race->stop, true, __ATOMIC_RELEASE);
    pthread_join(reader, NULL);
    assert_int_equal(race->wrong, 0);

    /* Take everything away through the iteration: it is resumed behind what has just been deleted.
     */
    deferred_flush(&race->deferred);
    for (struct prefix_entry entry = {0}; prefix_trie_count(race->trie) > 0;) {
        const bool more = entry.value == 0
                              ? prefix_trie_first(race->trie, &entry)
                              : prefix_trie_next(race->trie, entry.key, entry.len, &entry);

        assert_true(more);
        assert_int_equal(prefix_trie_delete(race->trie, entry.key, entry.len, NULL), 0);
        if (race->deferred.count >= 64)
            deferred_flush(&race->deferred);
    }
    deferred_flush(&race->deferred);
    prefix_trie_memory(race->trie, &used);
    assert_int_equal(used, 0);
    prefix_trie_destroy(race->trie);
    free(race);
}

static void test_concurrent_reader_root16(void **state) {
    (void)state;
    concurrent_reader(16);
}

static void test_concurrent_reader_root0(void **state) {
    (void)state;
    concurrent_reader(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_conversion),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_history_root16),
        cmocka_unit_test(test_history_root0),
        cmocka_unit_test(test_nested_chain),
        cmocka_unit_test(test_full_node),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_destroy_before_retired_is_back),
        cmocka_unit_test(test_concurrent_reader_root16),
        cmocka_unit_test(test_concurrent_reader_root0),
    };

    return cmocka_run_group_tests_name("prefix_trie", tests, NULL, NULL);
}
