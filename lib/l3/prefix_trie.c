/*
 * Path-compressed tree bitmap with copy-on-write updates. See prefix_trie.h for the papers.
 *
 * Shape. Nodes stand at bit positions base + 6k. Without a root array, base is 0. Under a root
 * array of 16 bits it is 14, so that the first node decides two bits again that are decided
 * already, but positions fall on 20, 26, 32, 38, 44, 50: networks are cut at multiples of four
 * bits, and a /48 in a /32, or sixteen neighbouring /48s, then take one node less than with 16, 22,
 * 28, 34, 40, 46. A node at position `pos` holds the prefixes of lengths pos..pos+5 below its key,
 * and leads to up to 64 children by the 6 bits from pos on. It is there only if it holds a prefix
 * or has at least two children, so any path has few nodes; a node says by its key which bits were
 * skipped on the way to it.
 *
 * Prefixes within a node are numbered as in a heap: length l and bits v make 1 << l | v, 1..63. All
 * candidates for an address are then its ancestors in that heap, found by one AND with a mask, and
 * the longest of them is the highest bit set.
 *
 * Under a 16-bit root, prefixes of length <= 16 are pushed into the slots that they cover, and
 * stand in a second tree (`shorts`, base 0) that only the writer reads: it knows them exactly.
 *
 * Updates. A node is never changed where it lies, with two exceptions: its `children` pointer may
 * be swapped for an array of the same shape, and the value of a prefix may be stored over. All
 * other changes make a copy of the whole array that holds the node, and swap the one pointer to
 * that array. A reader that still walks an old array finds everything below it unchanged or newer,
 * and nothing of it is reused before the readers' grace period is over.
 *
 * What can go wrong: nodes move with every update in their array, so a pointer to a node must not
 * be kept across replace_node(), and with immediate freeing (no retire function) its contents must
 * not be looked at afterwards.
 */
#include "l3/prefix_trie.h"

#include <errno.h>
#include <linux/mman.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISON 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ARENA_POISON 1
#endif
#ifdef ARENA_POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

enum {
    STRIDE = 6,
    ROOT_BITS = 16,
    ROOT_BASE = 14, /* position of the first nodes under a root array; see node positions above */
    ROOT_SLOTS = 1 << ROOT_BITS,
    FEW_RESULTS = 3, /* that many values fit into the node itself */
    CACHE_LINE = 64,
};

#define HUGEPAGE ((size_t)2 << 20)
#define SMALL_CHUNK ((size_t)64 << 10)

/* One cache line, so that a visit costs one miss. `shift` and `deep` are worked out once per node
 * because the lookup has better things to do; see node_offset(). */
struct prefix_node {
    uint64_t internal;            /* heap numbers of the prefixes in this node */
    uint64_t external;            /* 6-bit values that lead to a child */
    struct prefix_key key;        /* bits before pos; the rest is zero */
    struct prefix_node *children; /* popcount(external) nodes, in order */
    uint32_t *results;            /* popcount(internal) values if they are more than FEW_RESULTS */
    uint8_t pos;
    uint8_t shift;
    bool deep;                 /* the 6 bits do not lie in key.hi */
    uint32_t few[FEW_RESULTS]; /* the values if they are not */
};
_Static_assert(sizeof(struct prefix_node) == CACHE_LINE, "a node is a cache line");

struct root_slot {
    struct prefix_node *node;
    uint32_t value;    /* of the longest prefix of length <= ROOT_BITS here, 0 if none */
    uint8_t value_len; /* its length, for the writer; 0 if there is none */
};
_Static_assert(sizeof(struct root_slot) == 16, "four slots to a cache line");

/* Block sizes in bytes. Arrays of nodes are multiples of a cache line, up to 64 of them; arrays of
 * values come in the sizes up to 256. */
static const uint16_t class_size[] = {16,  32,  64,   128,  192,  256,  384,
                                      512, 768, 1024, 1536, 2048, 3072, 4096};
enum { CLASSES = sizeof(class_size) / sizeof(class_size[0]) };

struct free_block {
    struct free_block *next;
};

struct chunk {
    struct chunk *next;
    void *memory;
    size_t size;
};

struct arena {
    struct free_block *free[CLASSES];
    uint8_t *bump, *bump_end; /* never used part of the newest chunk */
    struct chunk *chunks;
    size_t mapped, used;
    bool small_first; /* the first chunk is a small one without hugepages */
    bool hugetlb;
};

/* Which slots lead to nodes, for the iteration: one bit per slot, one per 64 slots. */
struct slot_map {
    uint64_t word[ROOT_SLOTS / 64];
    uint64_t summary[ROOT_SLOTS / 64 / 64];
};

struct prefix_trie {
    /* Read by workers. */
    struct root_slot *root;
    uint32_t root_mask; /* number of slots - 1 */
    uint8_t root_bits;  /* bits that the root array decides: ROOT_BITS or 0 */
    uint8_t base;       /* position of the first nodes: ROOT_BASE or 0 */

    /* The writer's. */
    struct prefix_node *shorts;
    struct slot_map *occupied; /* with ROOT_BITS only */
    size_t count;
    size_t retired; /* blocks with the retire function */
    bool destroyed;
    retire_fn retire;
    void *retire_ctx;
    struct arena arena;
};

/* Where a node lies: in the array that *link points to. */
struct place {
    struct prefix_node **link;
    unsigned count, index;
};

/* ---- bits ---- */

__extension__ typedef unsigned __int128 key_bits;

static key_bits bits_of(struct prefix_key key) {
    return (key_bits)key.hi << 64 | key.lo;
}

static struct prefix_key key_of(key_bits bits) {
    return (struct prefix_key){.lo = (uint64_t)bits, .hi = (uint64_t)(bits >> 64)};
}

/* The first len bits of a key, the others zero. */
static struct prefix_key key_head(struct prefix_key key, unsigned len) {
    return len == 0 ? (struct prefix_key){0, 0}
                    : key_of(bits_of(key) & ~(key_bits)0 << (128 - len));
}

/* The 6 bits from pos on; those behind the end of the key are zero. */
static unsigned key_stride(struct prefix_key key, unsigned pos) {
    return pos < PREFIX_TRIE_KEY_BITS ? (unsigned)(bits_of(key) << pos >> (128 - STRIDE)) : 0;
}

/* Number of leading bits that two keys share. */
static unsigned key_common(struct prefix_key a, struct prefix_key b) {
    const uint64_t hi = a.hi ^ b.hi, lo = a.lo ^ b.lo;

    if (hi != 0)
        return (unsigned)__builtin_clzll(hi);
    return lo != 0 ? 64 + (unsigned)__builtin_clzll(lo) : 128;
}

static unsigned ones(uint64_t bits) {
    return (unsigned)_mm_popcnt_u64(bits);
}

static uint64_t bit(unsigned number) {
    return (uint64_t)1 << number;
}

static unsigned minimum(unsigned a, unsigned b) {
    return a < b ? a : b;
}

/* Position of the node that holds prefixes of this length, or that decides bit `len`. */
static unsigned grid(unsigned base, unsigned len) {
    return len - (len - base) % STRIDE;
}

/* Heap number of key/len in the node at pos; pos <= len < pos + STRIDE. */
static unsigned heap_number(struct prefix_key key, unsigned len, unsigned pos) {
    return (bit(STRIDE) | key_stride(key, pos)) >> (STRIDE - (len - pos));
}

/* ---- what the lookup takes from tables ---- */

#define HEAP_ANCESTORS(x)                                                                         \
    (UINT64_C(1) << ((x) | 32) | UINT64_C(1) << ((x) >> 1 | 16) | UINT64_C(1) << ((x) >> 2 | 8) | \
     UINT64_C(1) << ((x) >> 3 | 4) | UINT64_C(1) << ((x) >> 4 | 2) | UINT64_C(1) << 1)
#define ANCESTORS4(x) \
    HEAP_ANCESTORS(x), HEAP_ANCESTORS(x + 1), HEAP_ANCESTORS(x + 2), HEAP_ANCESTORS(x + 3)

/* Heap numbers of all prefixes in a node that match, by the first 5 of the node's 6 bits. (Length 6
 * is length 0 in the child.) */
static const uint64_t ancestors[32] = {ANCESTORS4(0),  ANCESTORS4(4),  ANCESTORS4(8),
                                       ANCESTORS4(12), ANCESTORS4(16), ANCESTORS4(20),
                                       ANCESTORS4(24), ANCESTORS4(28)};

/* The last position whose 6 bits lie in the upper half of a key. */
enum { LAST_HIGH_POS = 64 - STRIDE };

static void node_set_pos(struct prefix_node *node, unsigned pos) {
    node->pos = (uint8_t)pos;
    node->deep = pos > LAST_HIGH_POS;
    node->shift = (uint8_t)(node->deep ? 0 : LAST_HIGH_POS - pos);
}

static inline uint64_t node_offset_deep(const struct prefix_node *node,
                                        const struct prefix_key *key) {
    const key_bits difference = bits_of(*key) ^ bits_of(node->key);
    const int shift = PREFIX_TRIE_KEY_BITS - STRIDE - node->pos;

    if (shift < 0) /* fewer than 6 bits are left, or none: they count as if zeroes came behind */
        return difference >> (PREFIX_TRIE_KEY_BITS - node->pos) == 0
                   ? (uint64_t)(difference << -shift)
                   : 64;
    return difference >> shift < 64 ? (uint64_t)(difference >> shift) : 64;
}

/* Where the key lies below the node: its 6 bits from the node's position on; 64 or more if it does
 * not lie below. The node's own key is zero from there on, so that one exclusive or gives both: the
 * 6 bits, and above them what the bits before differ by. */
static inline uint64_t node_offset(const struct prefix_node *node, const struct prefix_key *key) {
    if (__builtin_expect(!node->deep, 1))
        return (key->hi ^ node->key.hi) >> node->shift;
    return node_offset_deep(node, key);
}

/* Acquire, because a value names something, a next hop, that was made just before. */
static inline uint32_t load_value(const uint32_t *value) {
    return __atomic_load_n(value, __ATOMIC_ACQUIRE);
}

static inline void store_value(uint32_t *stored, uint32_t value) {
    __atomic_store_n(stored, value, __ATOMIC_RELEASE);
}

/* Value of the highest of the node's prefixes in `candidates` (not 0). */
static inline uint32_t node_best_value(const struct prefix_node *node, uint64_t candidates) {
    const uint64_t internal = node->internal;
    const unsigned longest = 63 - (unsigned)__builtin_clzll(candidates);
    const uint32_t *values = ones(internal) <= FEW_RESULTS ? node->few : node->results;

    return load_value(&values[ones(internal & (bit(longest) - 1))]);
}

static inline struct prefix_node *load_nodes(struct prefix_node *const *link) {
    return __atomic_load_n(link, __ATOMIC_ACQUIRE);
}

/* The node's child for stride x. If there is none, an address that nobody may look at: worked out
 * as a number, because a null pointer must not be added to. */
static inline const struct prefix_node *node_child(const struct prefix_node *node, unsigned x) {
    const uintptr_t children = (uintptr_t)load_nodes(&node->children);

    return (const struct prefix_node *)(children +
                                        ones(node->external & (bit(x) - 1)) * sizeof(*node));
}

/* ---- lookup ---- */

static inline uint32_t lookup_one(const struct prefix_trie *trie, const struct prefix_key *key) {
    const struct root_slot *slot = &trie->root[key->hi >> 48 & trie->root_mask];
    uint32_t value = load_value(&slot->value);
    const struct prefix_node *node = load_nodes(&slot->node), *best = NULL;
    uint64_t best_candidates = 0;

    while (node != NULL) {
        const uint64_t x = node_offset(node, key);
        uint64_t candidates;

        if (x > 63)
            break;
        candidates = node->internal & ancestors[x >> 1];
        if (candidates != 0) {
            best = node;
            best_candidates = candidates;
        }
        if (!(node->external >> x & 1))
            break;
        node = node_child(node, (unsigned)x);
    }
    return best != NULL ? node_best_value(best, best_candidates) : value;
}

uint32_t prefix_trie_lookup(const struct prefix_trie *trie, struct prefix_key key) {
    return lookup_one(trie, &key);
}

/*
 * Level by level for all packets, so that their misses overlap. Free of branches that depend on the
 * data, for a mispredicted one waits for a node and then throws away the work on the packets
 * behind: whether a packet goes on is added to a counter, and what it has found is stored in any
 * case, but to a place of no interest if it is nothing. Masks and not `?:`, because compilers may
 * turn that into branches. (Whether a node is deep does branch: on one level all mostly are alike.)
 */
static void lookup_burst(const struct prefix_trie *trie, const struct prefix_key *key,
                         uint32_t *value, unsigned n) {
    const struct prefix_node *node[PREFIX_TRIE_BURST], *best[2 * PREFIX_TRIE_BURST];
    uint64_t best_candidates[2 * PREFIX_TRIE_BURST];
    uint8_t active[PREFIX_TRIE_BURST];
    unsigned active_count = 0;

    for (unsigned i = 0; i < n; i++) {
        const struct root_slot *slot = &trie->root[key[i].hi >> 48 & trie->root_mask];

        value[i] = load_value(&slot->value);
        node[i] = load_nodes(&slot->node);
        _mm_prefetch((const char *)node[i], _MM_HINT_T0);
        best[i] = NULL;
        best_candidates[i] = 0;
        active[active_count] = (uint8_t)i;
        active_count += node[i] != NULL;
    }
    while (active_count > 0) {
        unsigned still_active = 0;

        for (unsigned j = 0; j < active_count; j++) {
            const unsigned i = active[j];
            const struct prefix_node *at = node[i];
            const uint64_t offset = node_offset(at, &key[i]);
            const uint64_t covers = offset < 64;
            const unsigned x = (unsigned)offset & 63;
            const uint64_t candidates = at->internal & ancestors[x >> 1] & -covers;
            const uint64_t goes_on = at->external >> x & covers;
            const unsigned to = i + (candidates == 0) * PREFIX_TRIE_BURST;
            const uintptr_t step = ((uintptr_t)node_child(at, x) - (uintptr_t)at) & -goes_on;
            const struct prefix_node *next = (const void *)((uintptr_t)at + step);

            best[to] = at;
            best_candidates[to] = candidates;
            _mm_prefetch((const char *)next, _MM_HINT_T0);
            node[i] = next;
            active[still_active] = (uint8_t)i;
            still_active += (unsigned)goes_on;
        }
        active_count = still_active;
    }
    for (unsigned i = 0; i < n; i++) {
        if (best_candidates[i] != 0)
            value[i] = node_best_value(best[i], best_candidates[i]);
    }
}

/* Tables up to this size stay in the caches near the core; then there are no misses to overlap, and
 * one packet after the other is faster. */
enum { SMALL_TABLE = 2048 };

void prefix_trie_lookup_bulk(const struct prefix_trie *trie, const struct prefix_key *key,
                             uint32_t *value, unsigned n) {
    if (__atomic_load_n(&trie->count, __ATOMIC_RELAXED) <= SMALL_TABLE) {
        for (unsigned i = 0; i < n; i++)
            value[i] = lookup_one(trie, &key[i]);
        return;
    }
    for (; n > PREFIX_TRIE_BURST; n -= PREFIX_TRIE_BURST) {
        lookup_burst(trie, key, value, PREFIX_TRIE_BURST);
        key += PREFIX_TRIE_BURST;
        value += PREFIX_TRIE_BURST;
    }
    lookup_burst(trie, key, value, n);
}

/* ---- memory ---- */

static void *map_pages(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory != MAP_FAILED ? memory : NULL;
}

/* One aligned hugepage: of hugetlb if wanted and to be had, else by asking for a transparent one.
 */
static void *map_hugepage(bool hugetlb) {
    uint8_t *raw, *aligned;

    if (hugetlb) {
        raw = mmap(NULL, HUGEPAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB | MAP_POPULATE, -1, 0);
        if (raw != MAP_FAILED)
            return raw;
    }
    raw = map_pages(2 * HUGEPAGE);
    if (raw == NULL)
        return NULL;
    aligned = raw + (HUGEPAGE - (uintptr_t)raw % HUGEPAGE) % HUGEPAGE;
    if (aligned != raw)
        munmap(raw, (size_t)(aligned - raw));
    munmap(aligned + HUGEPAGE, (size_t)(raw + HUGEPAGE - aligned));
    madvise(aligned, HUGEPAGE, MADV_HUGEPAGE);
    return aligned;
}

static int arena_grow(struct arena *arena) {
    struct chunk *chunk = malloc(sizeof(*chunk));

    if (chunk == NULL)
        return -ENOMEM;
    if (arena->small_first && arena->chunks == NULL) {
        chunk->size = SMALL_CHUNK;
        chunk->memory = map_pages(chunk->size);
    } else {
        chunk->size = HUGEPAGE;
        chunk->memory = map_hugepage(arena->hugetlb);
    }
    if (chunk->memory == NULL) {
        free(chunk);
        return -ENOMEM;
    }
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->mapped += chunk->size;
    /* What is left of the chunk before is lost: less than the largest block. */
    arena->bump = chunk->memory;
    arena->bump_end = arena->bump + chunk->size;
    ASAN_POISON_MEMORY_REGION(chunk->memory, chunk->size);
    return 0;
}

/* Takes never used memory; size is a multiple of the cache line. */
static void *arena_bump(struct arena *arena, size_t size) {
    void *memory;

    if ((size_t)(arena->bump_end - arena->bump) < size && arena_grow(arena) < 0)
        return NULL;
    memory = arena->bump;
    arena->bump += size;
    ASAN_UNPOISON_MEMORY_REGION(memory, size);
    return memory;
}

static unsigned class_of(size_t size) {
    unsigned c = 0;

    while (class_size[c] < size)
        c++;
    return c;
}

static void block_free(struct arena *arena, struct free_block *block, unsigned c) {
    block->next = arena->free[c];
    arena->free[c] = block;
    ASAN_POISON_MEMORY_REGION(block, class_size[c]);
}

/* Uninitialised memory for 1..4096 bytes, 64-byte aligned from 64 bytes on; NULL if there is none.
 */
static void *arena_alloc(struct arena *arena, size_t size) {
    const unsigned c = class_of(size);
    struct free_block *block = arena->free[c];

    if (block != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(block, class_size[c]);
        arena->free[c] = block->next;
    } else if (class_size[c] >= CACHE_LINE) {
        block = arena_bump(arena, class_size[c]);
    } else {
        uint8_t *line = arena_bump(arena, CACHE_LINE);

        for (size_t at = class_size[c]; line != NULL && at < CACHE_LINE; at += class_size[c])
            block_free(arena, (struct free_block *)(line + at), c);
        block = (struct free_block *)line;
    }
    if (block != NULL)
        arena->used += class_size[c];
    return block;
}

static void arena_free(struct arena *arena, void *memory, size_t size) {
    const unsigned c = class_of(size);

    arena->used -= class_size[c];
    block_free(arena, memory, c);
}

static void trie_release(struct prefix_trie *trie) {
    for (struct chunk *chunk = trie->arena.chunks, *next; chunk != NULL; chunk = next) {
        next = chunk->next;
        ASAN_UNPOISON_MEMORY_REGION(chunk->memory, chunk->size);
        munmap(chunk->memory, chunk->size);
        free(chunk);
    }
    free(trie->occupied);
    free(trie);
}

/* A retire_free_fn. */
static void retired_free(void *owner, void *memory, size_t size) {
    struct prefix_trie *trie = owner;

    arena_free(&trie->arena, memory, size);
    trie->retired--;
    if (trie->destroyed && trie->retired == 0)
        trie_release(trie);
}

static void retire_memory(struct prefix_trie *trie, void *memory, size_t size) {
    if (trie->retire == NULL) {
        arena_free(&trie->arena, memory, size);
        return;
    }
    trie->retired++;
    trie->retire(trie->retire_ctx, retired_free, trie, memory, size);
}

static struct prefix_node *nodes_alloc(struct prefix_trie *trie, unsigned count) {
    return arena_alloc(&trie->arena, count * sizeof(struct prefix_node));
}

/* Takes back an array that no reader has seen. */
static void nodes_drop(struct prefix_trie *trie, struct prefix_node *nodes, unsigned count) {
    arena_free(&trie->arena, nodes, count * sizeof(*nodes));
}

static void nodes_retire(struct prefix_trie *trie, struct prefix_node *nodes, unsigned count) {
    retire_memory(trie, nodes, count * sizeof(*nodes));
}

/* The separate array of values of a node with these prefixes, if it has one. */
static void results_drop(struct prefix_trie *trie, uint32_t *results, uint64_t internal) {
    if (ones(internal) > FEW_RESULTS)
        arena_free(&trie->arena, results, ones(internal) * sizeof(*results));
}

static void results_retire(struct prefix_trie *trie, uint32_t *results, uint64_t internal) {
    if (ones(internal) > FEW_RESULTS)
        retire_memory(trie, results, ones(internal) * sizeof(*results));
}

struct prefix_trie *prefix_trie_create(unsigned root_bits, retire_fn retire, void *retire_ctx) {
    struct prefix_trie *trie;

    if (root_bits != 0 && root_bits != ROOT_BITS) {
        errno = EINVAL;
        return NULL;
    }
    trie = calloc(1, sizeof(*trie));
    if (trie == NULL)
        return NULL;
    trie->root_mask = (1u << root_bits) - 1;
    trie->root_bits = (uint8_t)root_bits;
    trie->base = root_bits ? ROOT_BASE : 0;
    trie->retire = retire;
    trie->retire_ctx = retire_ctx;
    trie->arena.small_first = root_bits == 0;
    trie->arena.hugetlb = retire != NULL;
    /* The root array lies at the start of the first chunk, so it shares a hugepage with nodes. */
    trie->root =
        arena_bump(&trie->arena, root_bits == 0 ? CACHE_LINE : ROOT_SLOTS * sizeof(*trie->root));
    if (root_bits != 0)
        trie->occupied = calloc(1, sizeof(*trie->occupied));
    if (trie->root == NULL || (root_bits != 0 && trie->occupied == NULL)) {
        trie_release(trie);
        errno = ENOMEM;
        return NULL;
    }
    return trie;
}

void prefix_trie_destroy(struct prefix_trie *trie) {
    if (trie == NULL)
        return;
    trie->destroyed = true;
    if (trie->retired == 0)
        trie_release(trie);
}

/* ---- parts of an update ---- */

static void publish(struct prefix_node **link, struct prefix_node *nodes) {
    __atomic_store_n(link, nodes, __ATOMIC_RELEASE);
}

static struct prefix_node *node_at(const struct place *at) {
    return &(*at->link)[at->index];
}

/* Where the node's child for stride x lies, or would lie. */
static struct place child_place(struct prefix_node *node, unsigned x) {
    return (struct place){.link = &node->children,
                          .count = ones(node->external),
                          .index = ones(node->external & (bit(x) - 1))};
}

/* Puts another node into a place, as the last, visible step of an update. */
static int replace_node(struct prefix_trie *trie, const struct place *at,
                        const struct prefix_node *replacement) {
    struct prefix_node *old = *at->link, *copy = nodes_alloc(trie, at->count);

    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, old, at->count * sizeof(*copy));
    copy[at->index] = *replacement;
    publish(at->link, copy);
    nodes_retire(trie, old, at->count);
    return 0;
}

/* Makes an empty node for the grid position pos on the way to key. */
static void node_init(struct prefix_node *node, struct prefix_key key, unsigned pos) {
    memset(node, 0, sizeof(*node));
    node->key = key_head(key, pos);
    node_set_pos(node, pos);
}

/* Makes a node with the single prefix key/len. */
static void node_init_leaf(struct prefix_node *node, struct prefix_key key, unsigned len,
                           unsigned pos, uint32_t value) {
    node_init(node, key, pos);
    node->internal = bit(heap_number(key, len, pos));
    node->few[0] = value;
}

static uint32_t *node_values(struct prefix_node *node) {
    return ones(node->internal) <= FEW_RESULTS ? node->few : node->results;
}

/* Gives `node`, a private copy of `old`, the prefixes `internal`, which are those of `old` and one
 * more with the value, or those of `old` less one. The array of values becomes its own. */
static int node_set_prefixes(struct prefix_trie *trie, struct prefix_node *node,
                             struct prefix_node *old, uint64_t internal, uint32_t value) {
    const uint32_t *from = node_values(old);
    uint32_t *to = node->few;

    if (ones(internal) > FEW_RESULTS) {
        to = arena_alloc(&trie->arena, ones(internal) * sizeof(*to));
        if (to == NULL)
            return -ENOMEM;
        node->results = to;
    } else {
        node->results = NULL;
    }
    node->internal = internal;
    for (uint64_t rest = internal | old->internal; rest != 0; rest &= rest - 1) {
        const uint64_t lowest = rest & -rest;
        const uint32_t carried = old->internal & lowest ? *from++ : value;

        if (internal & lowest)
            *to++ = carried;
    }
    return 0;
}

/* ---- insertion into one tree ---- */

/* The prefix belongs into the node at this place. */
static int insert_here(struct prefix_trie *trie, const struct place *at, struct prefix_key key,
                       unsigned len, uint32_t value, uint32_t *old_value) {
    struct prefix_node *node = node_at(at), changed = *node;
    const uint64_t old_internal = node->internal;
    uint32_t *old_results = node->results;
    const uint64_t number = bit(heap_number(key, len, node->pos));

    if (old_internal & number) {
        uint32_t *stored = &node_values(node)[ones(old_internal & (number - 1))];

        *old_value = *stored;
        store_value(stored, value);
        return 0;
    }
    if (node_set_prefixes(trie, &changed, node, old_internal | number, value) < 0)
        return -ENOMEM;
    if (replace_node(trie, at, &changed) < 0) {
        results_drop(trie, changed.results, changed.internal);
        return -ENOMEM;
    }
    results_retire(trie, old_results, old_internal);
    return 0;
}

/* The prefix goes below the node at this place, by a stride that has no child so far. */
static int insert_child(struct prefix_trie *trie, const struct place *at, struct prefix_key key,
                        unsigned len, unsigned leaf_pos, uint32_t value) {
    struct prefix_node changed = *node_at(at), *old_children = changed.children, *children;
    const unsigned x = key_stride(key, changed.pos);
    const struct place child = child_place(&changed, x);

    children = nodes_alloc(trie, child.count + 1);
    if (children == NULL)
        return -ENOMEM;
    if (child.count > 0) {
        memcpy(children, old_children, child.index * sizeof(*children));
        memcpy(children + child.index + 1, old_children + child.index,
               (child.count - child.index) * sizeof(*children));
    }
    node_init_leaf(&children[child.index], key, len, leaf_pos, value);
    changed.children = children;
    changed.external |= bit(x);
    if (replace_node(trie, at, &changed) < 0) {
        nodes_drop(trie, children, child.count + 1);
        return -ENOMEM;
    }
    if (child.count > 0)
        nodes_retire(trie, old_children, child.count);
    return 0;
}

/* The prefix leaves the compressed path to the node at this place: a node at fork_pos comes
 * between, which holds the prefix if that ends there, or else has the prefix's leaf beside the old
 * node. */
static int insert_above(struct prefix_trie *trie, const struct place *at, struct prefix_key key,
                        unsigned len, unsigned fork_pos, unsigned leaf_pos, uint32_t value) {
    const struct prefix_node *below = node_at(at);
    const unsigned below_x = key_stride(below->key, fork_pos), leaf_x = key_stride(key, fork_pos);
    const unsigned children = fork_pos == leaf_pos ? 1 : 2;
    struct prefix_node fork;

    if (children == 1)
        node_init_leaf(&fork, key, len, fork_pos, value);
    else
        node_init(&fork, key, fork_pos);
    fork.children = nodes_alloc(trie, children);
    if (fork.children == NULL)
        return -ENOMEM;
    fork.external = bit(below_x);
    if (children == 2) {
        fork.external |= bit(leaf_x);
        node_init_leaf(&fork.children[leaf_x > below_x], key, len, leaf_pos, value);
    }
    fork.children[children == 2 && below_x > leaf_x] = *below;
    if (replace_node(trie, at, &fork) < 0) {
        nodes_drop(trie, fork.children, children);
        return -ENOMEM;
    }
    return 0;
}

static int tree_insert(struct prefix_trie *trie, struct prefix_node **root, unsigned base,
                       struct prefix_key key, unsigned len, uint32_t value, uint32_t *old_value) {
    const unsigned leaf_pos = grid(base, len);
    struct place at = {.link = root, .count = 1, .index = 0};

    if (*root == NULL) {
        struct prefix_node *leaf = nodes_alloc(trie, 1);

        if (leaf == NULL)
            return -ENOMEM;
        node_init_leaf(leaf, key, len, leaf_pos, value);
        publish(root, leaf);
        return 0;
    }
    for (;;) {
        struct prefix_node *node = node_at(&at);
        const unsigned common = minimum(key_common(key, node->key), len);
        unsigned x;

        if (common < node->pos)
            return insert_above(trie, &at, key, len, grid(base, common), leaf_pos, value);
        if (node->pos == leaf_pos)
            return insert_here(trie, &at, key, len, value, old_value);
        x = key_stride(key, node->pos);
        if (!(node->external & bit(x)))
            return insert_child(trie, &at, key, len, leaf_pos, value);
        at = child_place(node, x);
    }
}

/* ---- deletion from one tree ---- */

/* Takes away the node at this place, which has neither prefixes nor children any more. A parent
 * that is left without prefixes and with one child is replaced by that child. */
static int remove_node(struct prefix_trie *trie, const struct place *parent,
                       const struct place *at) {
    struct prefix_node *old_children = *at->link, changed;
    int error;

    if (parent->link == NULL) {
        publish(at->link, NULL);
        nodes_retire(trie, old_children, 1);
        return 0;
    }
    changed = *node_at(parent);
    if (at->count == 2 && changed.internal == 0) {
        error = replace_node(trie, parent, &old_children[1 - at->index]);
    } else {
        const unsigned x = key_stride(old_children[at->index].key, changed.pos);

        changed.external &= ~bit(x);
        changed.children = NULL;
        if (at->count > 1) {
            changed.children = nodes_alloc(trie, at->count - 1);
            if (changed.children == NULL)
                return -ENOMEM;
            memcpy(changed.children, old_children, at->index * sizeof(changed));
            memcpy(changed.children + at->index, old_children + at->index + 1,
                   (at->count - at->index - 1) * sizeof(changed));
        }
        error = replace_node(trie, parent, &changed);
        if (error < 0 && changed.children != NULL)
            nodes_drop(trie, changed.children, at->count - 1);
    }
    if (error == 0)
        nodes_retire(trie, old_children, at->count);
    return error;
}

static int tree_delete(struct prefix_trie *trie, struct prefix_node **root, unsigned base,
                       struct prefix_key key, unsigned len, uint32_t *old_value) {
    const unsigned target_pos = grid(base, len);
    struct place parent = {0}, at = {.link = root, .count = 1, .index = 0};
    struct prefix_node *node = *root, changed, *children;
    uint64_t internal, number;
    uint32_t *results, value;
    int error;

    for (;;) {
        unsigned x;

        if (node == NULL || node->pos > target_pos || key_common(key, node->key) < node->pos)
            return -ENOENT;
        if (node->pos == target_pos)
            break;
        x = key_stride(key, node->pos);
        if (!(node->external & bit(x)))
            return -ENOENT;
        parent = at;
        at = child_place(node, x);
        node = node_at(&at);
    }
    number = bit(heap_number(key, len, target_pos));
    internal = node->internal;
    if (!(internal & number))
        return -ENOENT;
    value = node_values(node)[ones(internal & (number - 1))];
    results = node->results;
    children = node->children;

    if (internal == number && node->external == 0) {
        error = remove_node(trie, &parent, &at);
    } else if (internal == number && ones(node->external) == 1) {
        error = replace_node(trie, &at, &children[0]);
        if (error == 0)
            nodes_retire(trie, children, 1);
    } else {
        changed = *node;
        if (node_set_prefixes(trie, &changed, node, internal & ~number, 0) < 0)
            return -ENOMEM;
        error = replace_node(trie, &at, &changed);
        if (error < 0)
            results_drop(trie, changed.results, changed.internal);
        else
            results_retire(trie, results, internal);
    }
    if (error == 0)
        *old_value = value;
    return error;
}

/* ---- reading one tree on the writer's side ---- */

static uint32_t tree_get(const struct prefix_node *node, unsigned base, struct prefix_key key,
                         unsigned len) {
    const unsigned target_pos = grid(base, len);
    uint64_t number;

    for (;;) {
        unsigned x;

        if (node == NULL || node->pos > target_pos || key_common(key, node->key) < node->pos)
            return 0;
        if (node->pos == target_pos)
            break;
        x = key_stride(key, node->pos);
        if (!(node->external & bit(x)))
            return 0;
        node = node_child(node, x);
    }
    number = bit(heap_number(key, len, target_pos));
    return node->internal & number ? node_best_value(node, number) : 0;
}

/* Describes the prefix with this heap number. */
static void entry_fill(struct prefix_entry *entry, const struct prefix_node *node,
                       unsigned number) {
    const unsigned rel_len = 31 - (unsigned)__builtin_clz(number);
    key_bits tail = (key_bits)(number ^ 1u << rel_len);

    if (rel_len > 0)
        tail <<= 128 - node->pos - rel_len;
    entry->key = key_of(bits_of(node->key) | tail);
    entry->len = (uint8_t)(node->pos + rel_len);
    entry->value = node_best_value(node, bit(number));
}

static bool tree_covering(const struct prefix_node *node, struct prefix_key key, unsigned len,
                          struct prefix_entry *covering) {
    bool found = false;

    while (node != NULL && node->pos < len && key_common(key, node->key) >= node->pos) {
        const unsigned x = key_stride(key, node->pos);
        uint64_t candidates = node->internal & ancestors[x >> 1];

        if (len - node->pos < STRIDE) // heap numbers of lengths >= len start at 1 << (len - pos)
            candidates &= bit(1u << (len - node->pos)) - 1;
        if (candidates != 0) {
            entry_fill(covering, node, 63 - (unsigned)__builtin_clzll(candidates));
            found = true;
        }
        if (!(node->external & bit(x)))
            break;
        node = node_child(node, x);
    }
    return found;
}

/* Order of what is in a node: by the first 6-bit value below it, then by length, children last. */
static int order_of_prefix(unsigned number) {
    const unsigned rel_len = 31 - (unsigned)__builtin_clz(number);

    return (int)((number << (STRIDE - rel_len) & 63) << 3 | rel_len);
}

static int order_of_child(unsigned x) {
    return (int)(x << 3 | STRIDE);
}

/* The first prefix of a subtree that comes behind `order` within its top node. -1 is before all. */
static bool subtree_behind(const struct prefix_node *node, int order, struct prefix_entry *entry) {
    for (;;) {
        int first = order_of_child(64);
        unsigned number = 0, x;

        for (uint64_t rest = node->internal; rest != 0; rest &= rest - 1) {
            const unsigned candidate = (unsigned)__builtin_ctzll(rest);
            const int its_order = order_of_prefix(candidate);

            if (its_order > order && its_order < first) {
                first = its_order;
                number = candidate;
            }
        }
        /* The first child behind: that of order's own stride comes behind its prefixes. */
        x = order < 0 ? 0 : (unsigned)(order >> 3) + ((order & 7) == STRIDE);
        if (x < 64 && node->external >> x != 0) {
            x += (unsigned)__builtin_ctzll(node->external >> x);
            if (order_of_child(x) < first) {
                node = node_child(node, x);
                order = -1;
                continue;
            }
        }
        if (number == 0)
            return false;
        entry_fill(entry, node, number);
        return true;
    }
}

static bool tree_next(const struct prefix_node *node, struct prefix_key key, unsigned len,
                      struct prefix_entry *entry) {
    key_bits head, node_key;
    unsigned x;

    if (node == NULL)
        return false;
    head = bits_of(key_head(key, node->pos));
    node_key = bits_of(node->key);
    if (head > node_key)
        return false;
    if (head < node_key || len < node->pos)
        return subtree_behind(node, -1, entry);
    x = key_stride(key, node->pos);
    if (len - node->pos < STRIDE)
        return subtree_behind(node, (int)(x << 3 | (len - node->pos)), entry);
    if (node->external & bit(x) && tree_next(node_child(node, x), key, len, entry))
        return true;
    return subtree_behind(node, order_of_child(x), entry);
}

/* ---- the trie: slots, short prefixes, trees ---- */

static size_t slot_of(const struct prefix_trie *trie, struct prefix_key key) {
    return key.hi >> 48 & trie->root_mask;
}

/* Whether a prefix stands in `shorts` and the slots. */
static bool is_short(const struct prefix_trie *trie, unsigned len) {
    return trie->root_bits != 0 && len <= trie->root_bits;
}

static void slot_note(struct prefix_trie *trie, size_t slot) {
    struct slot_map *map = trie->occupied;

    if (map == NULL)
        return;
    if (trie->root[slot].node != NULL)
        map->word[slot / 64] |= bit(slot % 64);
    else
        map->word[slot / 64] &= ~bit(slot % 64);
    if (map->word[slot / 64] != 0)
        map->summary[slot / 4096] |= bit(slot / 64 % 64);
    else
        map->summary[slot / 4096] &= ~bit(slot / 64 % 64);
}

/* First slot from `slot` on that has a tree; ROOT_SLOTS if there is none. */
static size_t slot_next(const struct prefix_trie *trie, size_t slot) {
    const struct slot_map *map = trie->occupied;
    size_t word = slot / 64;
    uint64_t rest;

    if (map == NULL || slot >= ROOT_SLOTS)
        return ROOT_SLOTS;
    rest = map->word[word] >> (slot % 64);
    if (rest != 0)
        return slot + (size_t)__builtin_ctzll(rest);
    for (word++; word < ROOT_SLOTS / 64; word = (word / 64 + 1) * 64) {
        rest = map->summary[word / 64] >> (word % 64);
        if (rest != 0) {
            word += (size_t)__builtin_ctzll(rest);
            return word * 64 + (size_t)__builtin_ctzll(map->word[word]);
        }
    }
    return ROOT_SLOTS;
}

/* Pushes a short prefix into its slots, except where a longer one stands. */
static void slots_cover(struct prefix_trie *trie, struct prefix_key key, unsigned len,
                        uint32_t value) {
    struct root_slot *slot = &trie->root[slot_of(trie, key)],
                     *end = slot + (1u << (ROOT_BITS - len));

    for (; slot < end; slot++) {
        if (slot->value_len <= len) {
            slot->value_len = (uint8_t)len;
            store_value(&slot->value, value);
        }
    }
}

/* Gives the slots of a short prefix that is gone to the one that covers it, or to none (value 0).
 */
static void slots_uncover(struct prefix_trie *trie, struct prefix_key key, unsigned len,
                          const struct prefix_entry *covering) {
    struct root_slot *slot = &trie->root[slot_of(trie, key)],
                     *end = slot + (1u << (ROOT_BITS - len));

    for (; slot < end; slot++) {
        if (slot->value != 0 && slot->value_len == len) {
            slot->value_len = covering->len;
            store_value(&slot->value, covering->value);
        }
    }
}

int prefix_trie_insert(struct prefix_trie *trie, struct prefix_key key, unsigned len,
                       uint32_t value, uint32_t *old_value) {
    uint32_t old = 0;
    int error;

    if (len > PREFIX_TRIE_KEY_BITS || value == 0)
        return -EINVAL;
    key = key_head(key, len);
    if (is_short(trie, len)) {
        error = tree_insert(trie, &trie->shorts, 0, key, len, value, &old);
        if (error == 0)
            slots_cover(trie, key, len, value);
    } else {
        const size_t slot = slot_of(trie, key);

        error = tree_insert(trie, &trie->root[slot].node, trie->base, key, len, value, &old);
        slot_note(trie, slot);
    }
    if (error < 0)
        return error;
    __atomic_store_n(&trie->count, trie->count + (old == 0), __ATOMIC_RELAXED);
    if (old_value != NULL)
        *old_value = old;
    return 0;
}

int prefix_trie_delete(struct prefix_trie *trie, struct prefix_key key, unsigned len,
                       uint32_t *old_value) {
    uint32_t old;
    int error;

    if (len > PREFIX_TRIE_KEY_BITS)
        return -EINVAL;
    key = key_head(key, len);
    if (is_short(trie, len)) {
        struct prefix_entry covering = {0};

        error = tree_delete(trie, &trie->shorts, 0, key, len, &old);
        if (error == 0) {
            tree_covering(trie->shorts, key, len, &covering);
            slots_uncover(trie, key, len, &covering);
        }
    } else {
        const size_t slot = slot_of(trie, key);

        error = tree_delete(trie, &trie->root[slot].node, trie->base, key, len, &old);
        slot_note(trie, slot);
    }
    if (error < 0)
        return error;
    __atomic_store_n(&trie->count, trie->count - 1, __ATOMIC_RELAXED);
    if (old_value != NULL)
        *old_value = old;
    return 0;
}

uint32_t prefix_trie_get(const struct prefix_trie *trie, struct prefix_key key, unsigned len) {
    if (len > PREFIX_TRIE_KEY_BITS)
        return 0;
    key = key_head(key, len);
    if (is_short(trie, len))
        return tree_get(trie->shorts, 0, key, len);
    return tree_get(trie->root[slot_of(trie, key)].node, trie->base, key, len);
}

bool prefix_trie_covering(const struct prefix_trie *trie, struct prefix_key key, unsigned len,
                          struct prefix_entry *covering) {
    return tree_covering(trie->root[slot_of(trie, key)].node, key, len, covering) ||
           tree_covering(trie->shorts, key, len, covering);
}

/* Whether a comes before b in the order of the iteration. */
static bool entry_before(const struct prefix_entry *a, const struct prefix_entry *b) {
    const key_bits a_bits = bits_of(a->key), b_bits = bits_of(b->key);

    return a_bits != b_bits ? a_bits < b_bits : a->len < b->len;
}

/* The smaller of two possible answers from the slots' trees and the short prefixes. */
static bool entry_choose(bool has_long, bool has_short, const struct prefix_entry *of_shorts,
                         struct prefix_entry *entry) {
    if (has_short && (!has_long || entry_before(of_shorts, entry)))
        *entry = *of_shorts;
    return has_long || has_short;
}

bool prefix_trie_first(const struct prefix_trie *trie, struct prefix_entry *entry) {
    const size_t slot = trie->root_bits == 0 ? 0 : slot_next(trie, 0);
    const bool has_long = slot < ROOT_SLOTS && trie->root[slot].node != NULL &&
                          subtree_behind(trie->root[slot].node, -1, entry);
    struct prefix_entry of_shorts;
    const bool has_short = trie->shorts != NULL && subtree_behind(trie->shorts, -1, &of_shorts);

    return entry_choose(has_long, has_short, &of_shorts, entry);
}

bool prefix_trie_next(const struct prefix_trie *trie, struct prefix_key key, unsigned len,
                      struct prefix_entry *entry) {
    struct prefix_entry of_shorts;
    bool has_long, has_short;
    size_t slot;

    len = minimum(len, PREFIX_TRIE_KEY_BITS);
    key = key_head(key, len);
    slot = slot_of(trie, key);
    has_long = tree_next(trie->root[slot].node, key, len, entry);
    if (!has_long) {
        slot = slot_next(trie, slot + 1);
        has_long = slot < ROOT_SLOTS && subtree_behind(trie->root[slot].node, -1, entry);
    }
    has_short = tree_next(trie->shorts, key, len, &of_shorts);
    return entry_choose(has_long, has_short, &of_shorts, entry);
}

size_t prefix_trie_count(const struct prefix_trie *trie) {
    return trie->count;
}

size_t prefix_trie_memory(const struct prefix_trie *trie, size_t *used) {
    if (used != NULL)
        *used = trie->arena.used;
    return trie->arena.mapped + sizeof(*trie) +
           (trie->occupied != NULL ? sizeof(*trie->occupied) : 0);
}
