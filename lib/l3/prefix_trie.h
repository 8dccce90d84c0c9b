/*
 * Longest prefix match over keys of up to 128 bits: a path-compressed tree bitmap.
 *
 * After W. Eatherton, G. Varghese, Z. Dittia, "Tree Bitmap: Hardware/Software IP Lookups with
 * Incremental Updates", ACM SIGCOMM CCR 34(2), 2004; with a root array in front (DIR style) and
 * path compression between the nodes. A node is one cache line and decides 6 bits, so a lookup
 * costs one cache miss per node on its path, and the burst lookup overlaps those of 64 packets.
 *
 * It serves the workers as IPv6 FIB, and the control thread as RIB of both families with ordered
 * iteration (IPv4 keys stand in the top 32 bits).
 *
 * Readers are lock-free; there is one writer. Every update copies the few arrays it changes and
 * shows them to the readers by one pointer store, so a reader sees the old or the new tree. Only a
 * prefix of length <= 16 under a 16-bit root is different: it is pushed into up to 65536 slots, and
 * the readers see them change one after the other. What readers may still see goes to the retire
 * function (core/retire.h). Two updates are not one: a reader that is suspended inside a lookup
 * while one route is added and another one is deleted may miss both, for that one burst.
 *
 * What can go wrong: -ENOMEM, also from a deletion, as that has to copy too; the tree is unchanged
 * then. Values of 0 are refused, 0 means "no match".
 */
#pragma once

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/retire.h"

#define PREFIX_TRIE_KEY_BITS 128u

/* Packets that go through the tree side by side; larger bursts are cut up. */
#define PREFIX_TRIE_BURST 64u

/*
 * 128 bits as a number in host byte order, hi before lo in significance: the first bit of an
 * address is bit 63 of hi. In memory `lo` comes first, which makes the pair a little-endian number
 * and lets one byte shuffle convert an IPv6 address.
 */
struct prefix_key {
    uint64_t lo, hi;
};

/* A prefix and its value. Key bits behind `len` are zero. */
struct prefix_entry {
    struct prefix_key key;
    uint32_t value;
    uint8_t len;
};

struct prefix_trie;

/* Key of an IPv6 address: 16 bytes in network order, at any alignment. */
static inline struct prefix_key prefix_key_from_ipv6(const void *address) {
    const __m128i reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    struct prefix_key key;

    _mm_storeu_si128((__m128i *)&key,
                     _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)address), reverse));
    return key;
}

/* The reverse: writes the 16 bytes of the IPv6 address in network order. */
static inline void prefix_key_to_ipv6(struct prefix_key key, void *address) {
    const __m128i reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    _mm_storeu_si128((__m128i *)address,
                     _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)&key), reverse));
}

/* Key of an IPv4 address in host byte order. Prefix lengths stay 0..32. */
static inline struct prefix_key prefix_key_from_ipv4(uint32_t address) {
    return (struct prefix_key){.lo = 0, .hi = (uint64_t)address << 32};
}

/* The IPv4 address, in host byte order, of a key made by prefix_key_from_ipv4(). */
static inline uint32_t prefix_key_to_ipv4(struct prefix_key key) {
    return (uint32_t)(key.hi >> 32);
}

/*
 * Creates an empty trie.
 *
 * root_bits: 16 for large tables (1 MiB for the root array), 0 for small ones (a RIB with few
 * routes): those start with 64 KiB.
 * retire, retire_ctx: see core/retire.h. NULL also says that no worker reads the trie, and keeps it
 * from taking hugetlb pages, which the data path needs more urgently.
 *
 * Returns NULL with errno set to EINVAL or ENOMEM.
 */
struct prefix_trie *prefix_trie_create(unsigned root_bits, retire_fn retire, void *retire_ctx);

/*
 * Destroys the trie with all that is in it. No reader may be able to reach it any more. Memory that
 * is still with the retire function keeps the mapping alive until it has come back. NULL is
 * allowed.
 */
void prefix_trie_destroy(struct prefix_trie *trie);

/*
 * Adds key/len with the value, or changes the value of the existing key/len (that is one store).
 * Bits of the key behind len are ignored; len 0..128; value not 0.
 * *old_value (NULL if not wanted) becomes the value before, 0 if the prefix is new; it is left
 * alone on error.
 *
 * Returns 0, -EINVAL, or -ENOMEM (trie unchanged).
 */
int prefix_trie_insert(struct prefix_trie *trie, struct prefix_key key, unsigned len,
                       uint32_t value, uint32_t *old_value);

/*
 * Removes key/len. *old_value (NULL if not wanted) becomes its value; it is left alone on error.
 *
 * Returns 0, -ENOENT if there is no such prefix, -EINVAL, or -ENOMEM (trie unchanged).
 */
int prefix_trie_delete(struct prefix_trie *trie, struct prefix_key key, unsigned len,
                       uint32_t *old_value);

/* Value of exactly key/len, 0 if there is no such prefix. Writer's thread only. */
uint32_t prefix_trie_get(const struct prefix_trie *trie, struct prefix_key key, unsigned len);

/* Value of the longest prefix that matches the full key, 0 if none does. Any reader. */
uint32_t prefix_trie_lookup(const struct prefix_trie *trie, struct prefix_key key);

/* The same for n keys: value[i] becomes the answer for key[i]. Any n, best in bursts of 64. */
void prefix_trie_lookup_bulk(const struct prefix_trie *trie, const struct prefix_key *key,
                             uint32_t *value, unsigned n);

/*
 * Finds the longest prefix that covers key/len and is shorter than len (whether or not key/len
 * itself is in the trie). A len of 129 asks for the longest match of the full key, like
 * prefix_trie_lookup() but with the prefix. False if there is none. Writer's thread only.
 */
bool prefix_trie_covering(const struct prefix_trie *trie, struct prefix_key key, unsigned len,
                          struct prefix_entry *covering);

/*
 * Iterates in order of (key, length), that is, a prefix comes before the more specific ones in it.
 * prefix_trie_first() gives the first prefix, prefix_trie_next() the first one behind key/len; that
 * one need not exist any more, so an iteration can stop, let the trie change, and go on later.
 * False at the end. Writer's thread only.
 */
bool prefix_trie_first(const struct prefix_trie *trie, struct prefix_entry *entry);
bool prefix_trie_next(const struct prefix_trie *trie, struct prefix_key key, unsigned len,
                      struct prefix_entry *entry);

/* Number of prefixes. */
size_t prefix_trie_count(const struct prefix_trie *trie);

/*
 * Bytes of memory mapped for the trie. *used (NULL if not wanted) becomes the part of it in nodes
 * and arrays that are reachable or wait for their readers; the rest is free for later updates.
 */
size_t prefix_trie_memory(const struct prefix_trie *trie, size_t *used);
