/*
 * The array of next hops.
 *
 * Workers may read any entry at any moment, so a change is one store, or several whose order makes
 * every mixture harmless:
 *
 *   - a link-layer header stands before the type says that it may be used;
 *   - every bucket array has BUCKETS_MAX elements, the used part repeated to the end, so that a
 *     worker that reads the mask from before a change and the array from after it (or the other way
 *     round) still finds a member.
 *
 * What can go wrong: the ids run out, when the caller gets 0; a caller that releases an id which a
 * table still returns, when the packets go where the id's next owner sends his: nothing here can
 * check that.
 */
#define _GNU_SOURCE
#include "l3/next_hop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/huge_memory.h"
#include "core/rcu.h"

enum {
    BUCKETS_MAX = 1024,
    BUCKETS_MIN = 64,
    BUCKETS_PER_WEIGHT = 16, /* at least so many per unit of weight, as long as there is room */
    MEMBERS_MAX = 64,
};

/* In next_hop.reserved, for this file alone: the group's buckets are with rcu_retire() already. */
enum { RELEASED };

#define ARRAY_BYTES (NEXT_HOPS_MAX * sizeof(struct next_hop))

struct next_hop *next_hops;

/* Released ids, the oldest first. They are used again as late as possible: a packet that waits in a
 * ring may carry the id of a next hop for longer than the grace period. */
static uint32_t free_ids[NEXT_HOPS_MAX];
static uint32_t free_first, free_count;
static uint32_t fresh; /* this id and all above have never been used */

int next_hop_init(void) {
    static const struct {
        uint32_t id;
        enum next_hop_type type;
    } fixed[] = {
        {NEXT_HOP_ID_NONE, NEXT_HOP_NONE},
        {NEXT_HOP_ID_BLACKHOLE, NEXT_HOP_BLACKHOLE},
        {NEXT_HOP_ID_UNREACHABLE, NEXT_HOP_UNREACHABLE},
        {NEXT_HOP_ID_PROHIBIT, NEXT_HOP_PROHIBIT},
        {NEXT_HOP_ID_MARTIAN, NEXT_HOP_MARTIAN},
        {NEXT_HOP_ID_LOCAL, NEXT_HOP_LOCAL},
    };

    if (next_hops != NULL)
        return -EALREADY;
    next_hops = huge_memory_map(ARRAY_BYTES);
    if (next_hops == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        next_hops[fixed[i].id].type = (uint8_t)fixed[i].type;
    free_first = free_count = 0;
    fresh = NEXT_HOP_ID_FIRST_FREE;
    return 0;
}

void next_hop_free_all(void) {
    if (next_hops == NULL)
        return;
    for (uint32_t id = NEXT_HOP_ID_FIRST_FREE; id < fresh; id++) {
        if (!next_hops[id].reserved[RELEASED])
            free((void *)(uintptr_t)next_hops[id].buckets);
    }
    huge_memory_unmap(next_hops, ARRAY_BYTES);
    next_hops = NULL;
}

/* ---- ids ---- */

uint32_t next_hop_alloc(void) {
    uint32_t id;

    if (fresh < NEXT_HOPS_MAX)
        return fresh++;
    if (free_count == 0)
        rcu_reclaim(); /* released ones may have become due */
    if (free_count == 0)
        return NEXT_HOP_ID_NONE;
    id = free_ids[free_first];
    free_first = (free_first + 1) % NEXT_HOPS_MAX;
    free_count--;
    return id;
}

/* A retire_free_fn: no worker can hold the id any more. */
static void id_free(void *owner, void *memory, size_t size) {
    struct next_hop *entry = memory;

    /* The array may be gone, or be another one, when the program ends before the grace period. */
    if (owner != next_hops || next_hops == NULL)
        return;
    memset(entry, 0, size);
    free_ids[(free_first + free_count++) % NEXT_HOPS_MAX] = (uint32_t)(entry - next_hops);
}

void next_hop_release(uint32_t id) {
    struct next_hop *entry = &next_hops[id & NEXT_HOP_ID_MASK];

    rcu_retire(NULL, id_free, next_hops, entry, sizeof(*entry));
}

/* ---- plain next hops ---- */

static void store_type(struct next_hop *entry, enum next_hop_type type) {
    __atomic_store_n(&entry->type, (uint8_t)type, __ATOMIC_RELEASE);
}

void next_hop_set_forward(uint32_t id, enum next_hop_type type, const uint8_t destination[6],
                          const uint8_t source[6], uint16_t vlan) {
    struct next_hop *entry = &next_hops[id & NEXT_HOP_ID_MASK];
    _Alignas(16) uint8_t header[16] = {0};

    memcpy(header, destination, 6);
    memcpy(header + 6, source, 6);
    if (vlan != 0) {
        header[12] = 0x81; /* IEEE 802.1Q: tag protocol identifier 0x8100 */
        header[13] = 0x00;
        header[14] = (uint8_t)(vlan >> 8 & 0x0f); /* priority 0 */
        header[15] = (uint8_t)vlan;
    }
    _mm_store_si128(&entry->l2, _mm_load_si128((const __m128i *)header));
    __atomic_store_n(&entry->tagged, vlan != 0, __ATOMIC_RELEASE);
    store_type(entry, type);
}

void next_hop_set_type(uint32_t id, enum next_hop_type type) {
    store_type(&next_hops[id & NEXT_HOP_ID_MASK], type);
}

void next_hop_set_anycast(uint32_t id) {
    next_hops[id & NEXT_HOP_ID_MASK].anycast = 1;
    next_hop_set_type(id, NEXT_HOP_LOCAL);
}

void next_hop_set_interface(uint32_t id, uint16_t out_interface, uint16_t port, uint16_t mtu) {
    struct next_hop *entry = &next_hops[id & NEXT_HOP_ID_MASK];

    __atomic_store_n(&entry->out_interface, out_interface, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->port, port, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->mtu, mtu, __ATOMIC_RELAXED);
}

/* ---- groups ---- */

struct member {
    uint32_t id;
    uint32_t weight;
    uint32_t quota; /* buckets it is to have */
    uint32_t have;  /* buckets it has so far */
};

/* Two paths may lead to one neighbour: then it gets the sum of their weights. */
static unsigned merge_members(struct member *out, const uint32_t *members, const uint8_t *weights,
                              unsigned count) {
    unsigned unique = 0;

    for (unsigned i = 0; i < count; i++) {
        const uint32_t weight = weights[i] != 0 ? weights[i] : 1;
        unsigned j = 0;

        while (j < unique && out[j].id != members[i])
            j++;
        if (j == unique)
            out[unique++] = (struct member){.id = members[i]};
        out[j].weight += weight;
    }
    return unique;
}

static uint32_t greatest_common_divisor(uint32_t a, uint32_t b) {
    while (b != 0) {
        const uint32_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

static uint32_t bucket_number(const struct member *members, unsigned count) {
    uint32_t total = 0, divisor = members[0].weight, number = BUCKETS_MIN;

    for (unsigned i = 0; i < count; i++) {
        total += members[i].weight;
        divisor = greatest_common_divisor(members[i].weight, divisor);
    }
    while (number < BUCKETS_MAX && number < total / divisor * BUCKETS_PER_WEIGHT)
        number *= 2;
    return number;
}

/* Shares the buckets out by weight: whole parts first, then the largest remainders, but at least
 * one bucket for each member. */
static void set_quotas(struct member *members, unsigned count, uint32_t buckets) {
    uint64_t remainder[MEMBERS_MAX];
    uint32_t total = 0, given = 0;

    for (unsigned i = 0; i < count; i++)
        total += members[i].weight;
    for (unsigned i = 0; i < count; i++) {
        const uint64_t share = (uint64_t)members[i].weight * buckets;

        members[i].quota = (uint32_t)(share / total);
        remainder[i] = share % total + 1; /* 0 marks one that has been served */
        if (members[i].quota == 0) {
            members[i].quota = 1;
            remainder[i] = 0;
        }
        given += members[i].quota;
    }
    for (; given < buckets; given++) {
        unsigned best = 0;

        for (unsigned i = 1; i < count; i++)
            best = remainder[i] > remainder[best] ? i : best;
        members[best].quota++;
        remainder[best] = 0;
    }
    for (; given > buckets; given--) {
        unsigned most = 0;

        for (unsigned i = 1; i < count; i++)
            most = members[i].quota > members[most].quota ? i : most;
        members[most].quota--;
    }
}

/* Fills the new array: first with what the old one (NULL if there is none) says, as far as the
 * quotas allow; what is left goes to the member that lacks most, which interleaves equal ones. */
static void fill_buckets(uint32_t *buckets, uint32_t number, const uint32_t *old,
                         struct member *members, unsigned count) {
    for (uint32_t b = 0; b < number; b++) {
        buckets[b] = NEXT_HOP_ID_NONE;
        for (unsigned i = 0; old != NULL && i < count; i++) {
            if (members[i].id == old[b] && members[i].have < members[i].quota) {
                buckets[b] = old[b];
                members[i].have++;
                break;
            }
        }
    }
    for (uint32_t b = 0; b < number; b++) {
        unsigned neediest = 0;

        if (buckets[b] != NEXT_HOP_ID_NONE)
            continue;
        for (unsigned i = 1; i < count; i++) {
            if (members[i].quota - members[i].have >
                members[neediest].quota - members[neediest].have)
                neediest = i;
        }
        buckets[b] = members[neediest].id;
        members[neediest].have++;
    }
    for (uint32_t b = number; b < BUCKETS_MAX; b++)
        buckets[b] = buckets[b & (number - 1)];
}

/* A retire_free_fn. */
static void buckets_free(void *owner, void *memory, size_t size) {
    (void)owner;
    (void)size;
    free(memory);
}

static void buckets_retire(const uint32_t *buckets) {
    if (buckets != NULL)
        rcu_retire(NULL, buckets_free, NULL, (void *)(uintptr_t)buckets,
                   BUCKETS_MAX * sizeof(*buckets));
}

uint32_t next_hop_group_set(uint32_t id, const uint32_t *members, const uint8_t *weights,
                            unsigned count) {
    struct member list[MEMBERS_MAX];

    if (count == 0 || count > MEMBERS_MAX)
        return 0;
    count = merge_members(list, members, weights, count);

    uint32_t *buckets = aligned_alloc(64, BUCKETS_MAX * sizeof(*buckets));
    if (buckets == NULL)
        return 0;
    const bool is_new = id == 0;
    if (is_new)
        id = next_hop_alloc();
    if (id == 0) {
        free(buckets);
        return 0;
    }

    struct next_hop *entry = &next_hops[id & NEXT_HOP_ID_MASK];
    const uint32_t *old = entry->buckets;
    uint32_t number = bucket_number(list, count);

    /* More buckets, and a flow stays where the smaller number had put it; fewer, and it would not.
     */
    if (!is_new && number < entry->bucket_mask + 1)
        number = entry->bucket_mask + 1;
    set_quotas(list, count, number);
    fill_buckets(buckets, number, old, list, count);

    __atomic_store_n(&entry->buckets, buckets, __ATOMIC_RELEASE);
    __atomic_store_n(&entry->bucket_mask, number - 1, __ATOMIC_RELEASE);
    store_type(entry, NEXT_HOP_GROUP);
    if (!is_new)
        buckets_retire(old);
    return id | NEXT_HOP_GROUP_FLAG;
}

void next_hop_group_release(uint32_t id) {
    /* The entry keeps pointing at the buckets for those who still look; both become due together,
     * the buckets first, and the entry is cleared before the id is given out again. */
    struct next_hop *entry = &next_hops[id & NEXT_HOP_ID_MASK];

    entry->reserved[RELEASED] = 1;
    buckets_retire(entry->buckets);
    next_hop_release(id);
}
