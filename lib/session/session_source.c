/*
 * Limits per source (an IPv4 address, an IPv6 network of 64 bits): how many sessions it may have,
 * and how many new ones a second. Records are found by hash in sets of eight, with the keyed hash
 * of the flow table; they are shared by all workers and changed with atomic operations. A record
 * without sessions may be taken over by another source, so that a flood from random sources costs
 * nothing but its own sessions.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/huge_memory.h"
#include "session/session_internal.h"

enum {
    SET = 8,
    SETS = 1 << 14,
    RECORDS = SET * SETS,
};

struct source {
    uint64_t identity; /* keyed hash of VRF and address; 0 = never used */
    uint32_t sessions;
    uint16_t second; /* the one that `fresh` counts */
    uint16_t unused;
    uint32_t fresh;
    uint32_t unused2;
};

static struct source *sources;

int session_source_create(void) {
    sources = huge_memory_map(RECORDS * sizeof(*sources));
    return sources ? 0 : -ENOMEM;
}

void session_source_free(void) {
    huge_memory_unmap(sources, RECORDS * sizeof(*sources));
    sources = NULL;
}

static uint64_t identity_of(const union flow_key *key, bool ipv6) {
    union flow_key only = {0};

    if (ipv6) {
        memcpy(only.v6.source, key->v6.source, 8); /* a host has all of its /64 */
        only.v6.protocol_vrf = key->v6.protocol_vrf & ~UINT32_C(0xffff);
        return flow_hash6(&only.v6) | 1;
    }
    only.v4.source = key->v4.source;
    only.v4.protocol_vrf = key->v4.protocol_vrf & ~UINT32_C(0xffff);
    return flow_hash4(only.first) | 1;
}

/* The record of this source, or one that can be its; NULL when all of the set have sessions. */
static struct source *find(uint64_t identity) {
    struct source *set = &sources[(identity >> 32) % SETS * SET];

    for (unsigned i = 0; i < SET; i++) {
        if (__atomic_load_n(&set[i].identity, __ATOMIC_RELAXED) == identity)
            return &set[i];
    }
    for (unsigned i = 0; i < SET; i++) {
        uint64_t old = __atomic_load_n(&set[i].identity, __ATOMIC_RELAXED);

        if (__atomic_load_n(&set[i].sessions, __ATOMIC_RELAXED) == 0 &&
            __atomic_compare_exchange_n(&set[i].identity, &old, identity, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
            set[i].fresh = 0;
            return &set[i];
        }
    }
    return NULL;
}

enum session_drop session_source_take(const union flow_key *key, bool ipv6, uint32_t *record) {
    uint32_t most = atomic_load_explicit(&session_limits.per_source, memory_order_relaxed);
    uint32_t rate = atomic_load_explicit(&session_limits.rate_per_source, memory_order_relaxed);
    struct source *source;
    uint16_t second;

    *record = 0;
    if (most == 0 && rate == 0)
        return SESSION_PASS;
    source = find(identity_of(key, ipv6));
    if (!source)
        return SESSION_PASS; /* not counted: more sources at once than there are records */
    second = (uint16_t)(atomic_load_explicit(&session_clock, memory_order_relaxed) / SESSION_TICKS);
    if (source->second != second) {
        source->second = second;
        __atomic_store_n(&source->fresh, 0, __ATOMIC_RELAXED);
    }
    if (rate != 0 && __atomic_fetch_add(&source->fresh, 1, __ATOMIC_RELAXED) >= rate)
        return SESSION_DROP_SOURCE_RATE;
    if (__atomic_fetch_add(&source->sessions, 1, __ATOMIC_RELAXED) >= most && most != 0) {
        __atomic_fetch_sub(&source->sessions, 1, __ATOMIC_RELAXED);
        return SESSION_DROP_SOURCE_LIMIT;
    }
    *record = (uint32_t)(source - sources) + 1;
    return SESSION_PASS;
}

uint32_t session_source_take_again(const union flow_key *key, bool ipv6) {
    struct source *source;

    if (atomic_load(&session_limits.per_source) == 0 &&
        atomic_load(&session_limits.rate_per_source) == 0)
        return 0;
    source = find(identity_of(key, ipv6));
    if (!source)
        return 0;
    __atomic_fetch_add(&source->sessions, 1, __ATOMIC_RELAXED);
    return (uint32_t)(source - sources) + 1;
}

void session_source_give(uint32_t record) {
    if (record != 0)
        __atomic_fetch_sub(&sources[record - 1].sessions, 1, __ATOMIC_RELAXED);
}
