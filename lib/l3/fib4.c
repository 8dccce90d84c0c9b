/*
 * IPv4 forwarding table, the writer's side. The scheme is described in fib4.h.
 *
 * Invariants:
 *  - top, tbl24 and tbl8 hold only prefixes of their own range of lengths, so an entry's depth says
 *    at once whether a shorter or longer prefix than the one being changed owns it;
 *  - a group exists exactly as long as one of its 256 entries is set. It is all zero when it is
 *    taken into use and all zero again when it is let go, so it is never cleared in between;
 *  - while a /24 has a group, its covering entry of length 9..24 lives in the group's base.
 *
 * What can go wrong: readers keep using a group for a while after its /24 has been switched back.
 * It stays valid for them (all zero, base unchanged) until the retire function returns it, and only
 * then goes back to the free list.
 */
#include "l3/fib4.h"

#include <errno.h>
#include <linux/mman.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define TBL24_ENTRIES (1u << 24)
#define TBL24_BYTES ((size_t)TBL24_ENTRIES * sizeof(uint32_t))
#define HUGEPAGE ((size_t)2 << 20)
#define GROUP_BYTES (FIB4_GROUP_SIZE * sizeof(uint32_t))

/* What only the writer needs. The arrays have max_groups elements and are mapped, not allocated, so
 * that they cost nothing until used. */
struct fib4_control {
    retire_fn retire;
    void *retire_ctx;
    uint32_t max_groups;
    uint32_t groups_touched; /* groups 0..groups_touched-1 have been in use at least once */
    uint32_t groups_used;
    uint32_t groups_retired; /* with the retire function, to come back through group_free() */
    uint32_t free_count;
    bool destroyed;
    uint32_t *free_groups; /* stack of group numbers */
    uint16_t *set_count;   /* per group: entries that are not 0 */
};

static uint32_t entry_make(uint32_t nh, unsigned len) {
    return nh | len << FIB4_ENTRY_DEPTH_SHIFT;
}

/* Length of the prefix that owns an entry; 0 for an empty one, which any prefix may take over. */
static unsigned entry_depth(uint32_t entry) {
    return entry >> FIB4_ENTRY_DEPTH_SHIFT & FIB4_ENTRY_DEPTH;
}

static void entry_store(uint32_t *entry, uint32_t value) {
    __atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

static size_t round_up(size_t size, size_t unit) {
    return (size + unit - 1) / unit * unit;
}

/* Maps zeroed memory lazily, for the readers. Aligned to hugepages by hand because kernels
 * before 6.7 do not do so, and an unaligned mapping would start and end with thousands of small
 * pages. */
static void *map_lazily(size_t size) {
    uint8_t *raw, *base;

    size = round_up(size, HUGEPAGE);
    raw = mmap(NULL, size + HUGEPAGE, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    base = (uint8_t *)round_up((size_t)raw, HUGEPAGE);
    if (base != raw)
        munmap(raw, (size_t)(base - raw));
    munmap(base + size, (size_t)(raw + HUGEPAGE - base));
    madvise(base, size, MADV_HUGEPAGE); // only a wish: without THP the table is slower, not wrong
    return base;
}

/* The same with small pages, for arrays of the writer that stay almost empty. */
static void *map_sparsely(size_t size) {
    void *memory = mmap(NULL, round_up(size, HUGEPAGE), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory != MAP_FAILED ? memory : NULL;
}

static void *map_tbl24(void) {
    void *table =
        mmap(NULL, TBL24_BYTES, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB | MAP_POPULATE, -1, 0);

    return table != MAP_FAILED ? table : map_lazily(TBL24_BYTES);
}

static void unmap(void *memory, size_t size) {
    if (memory != NULL)
        munmap(memory, round_up(size, HUGEPAGE));
}

static void fib4_release(struct fib4 *fib) {
    struct fib4_control *control = fib->control;

    unmap(fib->tbl24, TBL24_BYTES);
    unmap(fib->tbl8, control->max_groups * GROUP_BYTES);
    unmap(fib->tbl8_base, control->max_groups * sizeof(uint32_t));
    unmap(control->free_groups, control->max_groups * sizeof(uint32_t));
    unmap(control->set_count, control->max_groups * sizeof(uint16_t));
    free(control);
    free(fib);
}

struct fib4 *fib4_create(uint32_t max_groups, retire_fn retire, void *retire_ctx) {
    struct fib4_control *control;
    struct fib4 *fib;

    if (max_groups == 0)
        max_groups = FIB4_GROUPS_DEFAULT;
    if (max_groups > FIB4_GROUPS_MAX) {
        errno = EINVAL;
        return NULL;
    }
    fib = aligned_alloc(64, sizeof(*fib));
    control = calloc(1, sizeof(*control));
    if (fib == NULL || control == NULL) {
        free(fib);
        free(control);
        errno = ENOMEM;
        return NULL;
    }
    memset(fib, 0, sizeof(*fib));
    fib->control = control;
    control->retire = retire;
    control->retire_ctx = retire_ctx;
    control->max_groups = max_groups;

    fib->tbl24 = map_tbl24();
    fib->tbl8 = map_lazily(max_groups * GROUP_BYTES);
    fib->tbl8_base = map_lazily(max_groups * sizeof(uint32_t));
    control->free_groups = map_sparsely(max_groups * sizeof(uint32_t));
    control->set_count = map_sparsely(max_groups * sizeof(uint16_t));
    if (fib->tbl24 == NULL || fib->tbl8 == NULL || fib->tbl8_base == NULL ||
        control->free_groups == NULL || control->set_count == NULL) {
        fib4_release(fib);
        errno = ENOMEM;
        return NULL;
    }
    return fib;
}

void fib4_destroy(struct fib4 *fib) {
    if (fib == NULL)
        return;
    fib->control->destroyed = true;
    if (fib->control->groups_retired == 0)
        fib4_release(fib);
}

/* Takes a group that is all zero. Returns its number, or max_groups if there is none. */
static uint32_t group_take(struct fib4_control *control) {
    uint32_t group = control->max_groups;

    if (control->free_count > 0)
        group = control->free_groups[--control->free_count];
    else if (control->groups_touched < control->max_groups)
        group = control->groups_touched++;
    if (group != control->max_groups)
        control->groups_used++;
    return group;
}

/* A retire_free_fn: the group's grace period is over. */
static void group_free(void *owner, void *memory, size_t size) {
    struct fib4 *fib = owner;
    struct fib4_control *control = fib->control;

    (void)size;
    control->free_groups[control->free_count++] =
        (uint32_t)((size_t)((uint32_t *)memory - fib->tbl8) / FIB4_GROUP_SIZE);
    control->groups_retired--;
    if (control->destroyed && control->groups_retired == 0)
        fib4_release(fib);
}

static void group_retire(struct fib4 *fib, uint32_t group) {
    struct fib4_control *control = fib->control;
    uint32_t *memory = &fib->tbl8[(size_t)group * FIB4_GROUP_SIZE];

    control->groups_used--;
    control->groups_retired++;
    if (control->retire != NULL)
        control->retire(control->retire_ctx, group_free, fib, memory, GROUP_BYTES);
    else
        group_free(fib, memory, GROUP_BYTES);
}

/* The entry for lengths 9..24 of one /24, wherever it lives at present. */
static uint32_t *entry24(struct fib4 *fib, size_t index) {
    const uint32_t entry = fib->tbl24[index];

    return entry & FIB4_ENTRY_GROUP ? &fib->tbl8_base[entry & FIB4_ENTRY_ID] : &fib->tbl24[index];
}

static uint32_t prefix_base(uint32_t addr, unsigned len) {
    return len == 0 ? 0 : addr & ~0u << (32 - len);
}

int fib4_add(struct fib4 *fib, uint32_t addr, unsigned len, uint32_t nh) {
    struct fib4_control *control = fib->control;
    uint32_t entry, group, old, *tbl8;
    bool fresh;

    if (len > 32 || nh == 0 || nh > FIB4_NH_MAX)
        return -EINVAL;
    addr = prefix_base(addr, len);
    entry = entry_make(nh, len);

    if (len <= 8) {
        for (size_t i = addr >> 24, end = i + (1u << (8 - len)); i < end; i++) {
            if (entry_depth(fib->top[i]) <= len)
                entry_store(&fib->top[i], entry);
        }
        return 0;
    }
    if (len <= 24) {
        for (size_t i = addr >> 8, end = i + (1u << (24 - len)); i < end; i++) {
            uint32_t *target = entry24(fib, i);

            if (entry_depth(*target) <= len)
                entry_store(target, entry);
        }
        return 0;
    }

    old = fib->tbl24[addr >> 8];
    fresh = !(old & FIB4_ENTRY_GROUP);
    if (fresh) {
        group = group_take(control);
        if (group == control->max_groups)
            return -ENOSPC;
        entry_store(&fib->tbl8_base[group], old);
    } else {
        group = old & FIB4_ENTRY_ID;
    }
    tbl8 = &fib->tbl8[(size_t)group * FIB4_GROUP_SIZE];
    for (size_t i = addr & 0xff, end = i + (1u << (32 - len)); i < end; i++) {
        if (entry_depth(tbl8[i]) > len)
            continue;
        control->set_count[group] += tbl8[i] == 0;
        entry_store(&tbl8[i], entry);
    }
    // The store that shows the group to the readers comes after those that filled it.
    if (fresh)
        entry_store(&fib->tbl24[addr >> 8], FIB4_ENTRY_GROUP | group);
    return 0;
}

/* Replaces an entry that belongs to a prefix of length len. Tells whether it did. */
static bool entry_replace(uint32_t *entry, unsigned len, uint32_t replacement) {
    if (*entry == 0 || entry_depth(*entry) != len)
        return false;
    entry_store(entry, replacement);
    return true;
}

int fib4_delete(struct fib4 *fib, uint32_t addr, unsigned len, uint32_t covering_nh,
                unsigned covering_len) {
    struct fib4_control *control = fib->control;
    uint32_t covering = 0, entry, group, *tbl8;

    if (len > 32 || covering_nh > FIB4_NH_MAX || (covering_nh != 0 && covering_len >= len))
        return -EINVAL;
    addr = prefix_base(addr, len);
    if (covering_nh != 0)
        covering = entry_make(covering_nh, covering_len);

    // A covering prefix from the range of another table is reached there, by an empty entry here.
    if (len <= 8) {
        for (size_t i = addr >> 24, end = i + (1u << (8 - len)); i < end; i++)
            entry_replace(&fib->top[i], len, covering);
        return 0;
    }
    if (len <= 24) {
        if (entry_depth(covering) <= 8)
            covering = 0;
        for (size_t i = addr >> 8, end = i + (1u << (24 - len)); i < end; i++)
            entry_replace(entry24(fib, i), len, covering);
        return 0;
    }

    if (entry_depth(covering) <= 24)
        covering = 0;
    entry = fib->tbl24[addr >> 8];
    if (!(entry & FIB4_ENTRY_GROUP))
        return -ENOENT;
    group = entry & FIB4_ENTRY_ID;
    tbl8 = &fib->tbl8[(size_t)group * FIB4_GROUP_SIZE];
    for (size_t i = addr & 0xff, end = i + (1u << (32 - len)); i < end; i++) {
        if (entry_replace(&tbl8[i], len, covering) && covering == 0)
            control->set_count[group]--;
    }
    if (control->set_count[group] == 0) {
        entry_store(&fib->tbl24[addr >> 8], fib->tbl8_base[group]);
        group_retire(fib, group);
    }
    return 0;
}

uint32_t fib4_group_count(const struct fib4 *fib) {
    return fib->control->groups_used;
}

size_t fib4_memory(const struct fib4 *fib) {
    return sizeof(*fib) + sizeof(*fib->control) + TBL24_BYTES +
           fib->control->groups_touched * (GROUP_BYTES + 2 * sizeof(uint32_t) + sizeof(uint16_t));
}
