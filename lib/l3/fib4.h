/*
 * IPv4 forwarding table: DIR-24-8 with bounded updates.
 *
 * After P. Gupta, S. Lin, N. McKeown, "Routing Lookups in Hardware at Memory Access Speeds",
 * INFOCOM 1998. Three tables of 32-bit entries, each answering for one range of prefix lengths:
 *
 *     top[256]        lengths  0..8, one entry per first octet
 *     tbl24[2^24]     lengths  9..24; an empty entry means "ask top"
 *     tbl8 groups     lengths 25..32, 256 entries for one /24; an empty entry means "ask the base
 *                     of the group", which is the entry that tbl24 would hold without the group
 *
 * Splitting off the lengths 0..8 and the base of a group is what bounds the updates: in the plain
 * scheme 0.0.0.0/0 rewrites 16 M entries, and a /9 rewrites every entry of every group below it.
 * Here the worst update, a /9, makes 32768 stores.
 *
 * Readers are lock-free. The single writer changes an entry with one 32-bit store, so every lookup
 * gives the answer from before or from after an update, for the address it asks about. Two updates
 * are not one: a reader that is suspended between its two loads while a more specific route is
 * added *and* the old one deleted may miss both, for that one burst. Callers that must not drop a
 * packet in such a move leave a grace period between the two.
 *
 * What can go wrong: -ENOSPC when the tbl8 groups run out (freed ones come back only after their
 * grace period), and a caller that names the wrong covering prefix on delete: the table cannot
 * check that, the RIB has to be right.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/retire.h"

/* Largest next hop id. Id 0 means "no route". */
#define FIB4_NH_MAX 0x00ffffffu

/* Layout of an entry: the next hop id (or group number), the length of the prefix that the entry
 * belongs to (for the writer, so that it knows what a change may overwrite), and the group flag.
 * An entry of 0 is empty. Internal to fib4.c and the lookups below. */
#define FIB4_ENTRY_ID 0x00ffffffu
#define FIB4_ENTRY_DEPTH_SHIFT 24
#define FIB4_ENTRY_DEPTH 0x3fu
#define FIB4_ENTRY_GROUP 0x80000000u

#define FIB4_GROUP_SIZE 256u
#define FIB4_GROUPS_MAX (1u << 20)
#define FIB4_GROUPS_DEFAULT (1u << 19)

struct fib4_control;

/* Only the lookups below read the fields. Everything a lookup touches besides the big tables lies
 * in the first 17 cache lines. */
struct fib4 {
    uint32_t *tbl24;
    uint32_t *tbl8;
    uint32_t *tbl8_base;
    struct fib4_control *control;
    _Alignas(64) uint32_t top[256];
};

/*
 * Creates an empty table.
 *
 * max_groups: how many /24s can hold prefixes longer than 24 at the same time, 1..FIB4_GROUPS_MAX;
 * 0 asks for FIB4_GROUPS_DEFAULT. It costs only address space (1 KiB each) until a group is used.
 * retire, retire_ctx: see core/retire.h.
 *
 * tbl24 is 64 MiB of 2 MiB hugetlb pages, populated at once, if the system has them free. Otherwise
 * it is ordinary memory with transparent hugepages, which grows as routes touch it; in that case
 * the first look at a part without routes makes the reader take one page fault.
 *
 * Returns NULL with errno set to EINVAL or ENOMEM.
 */
struct fib4 *fib4_create(uint32_t max_groups, retire_fn retire, void *retire_ctx);

/*
 * Destroys the table. No reader may be able to reach it any more. Memory that is still with the
 * retire function keeps the mapping alive until it has come back. NULL is allowed.
 */
void fib4_destroy(struct fib4 *fib);

/*
 * Adds addr/len with next hop id nh, or changes the next hop of the existing addr/len.
 * addr is in host byte order, bits behind len are ignored; len 0..32; nh 1..FIB4_NH_MAX.
 *
 * Returns 0, -EINVAL, or -ENOSPC (no free tbl8 group, table unchanged).
 */
int fib4_add(struct fib4 *fib, uint32_t addr, unsigned len, uint32_t nh);

/*
 * Removes addr/len. The longest remaining prefix that covers it, shorter than len, takes over what
 * becomes free: covering_nh and covering_len describe it, covering_nh 0 if there is none (then
 * covering_len is ignored). Which prefix that is, only the RIB knows.
 *
 * Returns 0, -EINVAL (also if covering_len >= len), or -ENOENT if a prefix longer than 24 is
 * certainly not in the table. Deleting any other prefix that was never added changes nothing and
 * returns 0: a prefix hidden behind more specific ones leaves no trace to tell the cases apart.
 */
int fib4_delete(struct fib4 *fib, uint32_t addr, unsigned len, uint32_t covering_nh,
                unsigned covering_len);

/* Number of tbl8 groups that hold routes now (groups waiting to be freed are not counted). */
uint32_t fib4_group_count(const struct fib4 *fib);

/*
 * Bytes that the tables may occupy at present: tbl24 and all groups used so far. With transparent
 * hugepages parts of tbl24 that no route touched are not really backed. Reserved address space is
 * not counted.
 */
size_t fib4_memory(const struct fib4 *fib);

/* Loads an entry. Acquire, because the entry may name a group that was filled just before. */
static inline uint32_t fib4_load(const uint32_t *entry) {
    return __atomic_load_n(entry, __ATOMIC_ACQUIRE);
}

/* Second step for an entry of tbl24 that carries FIB4_ENTRY_GROUP. dst in host byte order. */
static inline uint32_t fib4_load_group(const struct fib4 *fib, uint32_t entry, uint32_t dst) {
    const size_t group = entry & FIB4_ENTRY_ID;

    entry = fib4_load(&fib->tbl8[group * FIB4_GROUP_SIZE + (dst & 0xff)]);
    return entry != 0 ? entry : fib4_load(&fib->tbl8_base[group]);
}

/*
 * Longest prefix match for one address in host byte order.
 * Returns the next hop id, 0 if there is no route. Any number of concurrent readers.
 */
static inline uint32_t fib4_lookup(const struct fib4 *fib, uint32_t dst) {
    uint32_t entry = fib4_load(&fib->tbl24[dst >> 8]);

    if (entry & FIB4_ENTRY_GROUP)
        entry = fib4_load_group(fib, entry, dst);
    if (entry == 0)
        entry = fib4_load(&fib->top[dst >> 24]);
    return entry & FIB4_ENTRY_ID;
}

/*
 * Longest prefix match for n addresses in host byte order: nh[i] becomes the next hop id of dst[i],
 * 0 if there is no route. The arrays must not overlap.
 *
 * Several passes, so that no branch waits for a cache miss: a mispredicted one in the first pass
 * would throw away the misses of all the packets behind it. The passes for groups and for short
 * prefixes run only when the first one saw a need; by then the entries are in the first-level cache.
 */
static inline void fib4_lookup_bulk(const struct fib4 *fib, const uint32_t *restrict dst,
                                    uint32_t *restrict nh, unsigned n) {
    uint32_t seen = 0, empty = 0;

    for (unsigned i = 0; i < n; i++) {
        const uint32_t entry = fib4_load(&fib->tbl24[dst[i] >> 8]);

        nh[i] = entry;
        seen |= entry;
        empty |= entry == 0;
    }
    if (seen & FIB4_ENTRY_GROUP) {
        for (unsigned i = 0; i < n; i++) {
            if (nh[i] & FIB4_ENTRY_GROUP) {
                nh[i] = fib4_load_group(fib, nh[i], dst[i]);
                empty |= nh[i] == 0;
            }
        }
    }
    if (empty) {
        for (unsigned i = 0; i < n; i++) {
            const uint32_t short_entry = fib4_load(&fib->top[dst[i] >> 24]);
            const uint32_t entry = nh[i];

            nh[i] = entry != 0 ? entry : short_entry;
        }
    }
    for (unsigned i = 0; i < n; i++)
        nh[i] &= FIB4_ENTRY_ID;
}
