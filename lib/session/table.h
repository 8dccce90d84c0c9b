/*
 * The table of flows: which flow has this key? Shared by all workers; lookups take no lock.
 *
 * A bucket is a cache line of ten places: 16-bit signatures, compared eight at a time, and the
 * numbers of flows. A key stands in one bucket, or, when that is full, in one other: a lookup reads
 * at most two. At one session per 32 bytes of buckets there are four keys to a bucket on average;
 * the chance that both are full is less than 1 in 10,000 even then. Keys are hashed with two rounds
 * of AES and a random key, which, unlike a CRC under any seed, leaves a sender no way to choose
 * colliding flows.
 *
 * Inserting and removing take the bucket's lock by one attempt and a bounded wait; who does not get
 * it is told so, and nobody waits for a thread that lost its CPU. Flows and sessions are given out
 * from lists that each worker holds, and come back when no worker can have them in its hands any
 * more.
 */
#pragma once

#include <rte_common.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <wmmintrin.h>

#include "session/session.h"

enum { BUCKET_PLACES = 10 };

struct bucket {
    uint16_t signature[BUCKET_PLACES]; /* 0 = empty */
    uint16_t lock;
    uint16_t elsewhere; /* keys of this bucket that stand in the other one */
    uint32_t flow[BUCKET_PLACES];
} __rte_cache_aligned;
_Static_assert(sizeof(struct bucket) == 64, "one cache line");

struct session_table {
    struct bucket *buckets;
    uint32_t mask; /* number of buckets - 1 */
    __m128i secret[4];
};
extern struct session_table session_table;

/* Makes a table for `size` sessions and `workers` workers. 0 or -ENOMEM. */
int session_table_create(uint32_t size, unsigned workers);
/* From now on nobody finds it; then, when no worker can have it in its hands, it is freed. */
void session_table_hide(void);
void session_table_free(void);

/* --- hashing --- */

static inline uint64_t flow_hash_rounds(__m128i state) {
    state = _mm_aesenc_si128(state, session_table.secret[1]);
    state = _mm_aesenc_si128(state, session_table.secret[2]);
    state = _mm_aesenc_si128(state, session_table.secret[3]);
    return (uint64_t)_mm_cvtsi128_si64(state);
}

static inline uint64_t flow_hash4(__m128i key) {
    return flow_hash_rounds(_mm_xor_si128(key, session_table.secret[0]));
}

/* `tail` is the rest of an IPv6 key, as its last eight bytes stand in memory. */
static inline uint64_t flow_hash6_of(__m128i source, __m128i destination, uint64_t tail) {
    __m128i state = _mm_xor_si128(source, session_table.secret[0]);

    state = _mm_aesenc_si128(state, session_table.secret[2]);
    state = _mm_aesenc_si128(state, _mm_xor_si128(destination, session_table.secret[1]));
    return flow_hash_rounds(_mm_xor_si128(state, _mm_cvtsi64_si128((long long)tail)));
}

static inline uint64_t flow_hash6(const struct flow_key6 *key) {
    uint64_t tail;

    memcpy(&tail, &key->source_port, sizeof(tail));
    return flow_hash6_of(_mm_loadu_si128((const __m128i *)key->source),
                         _mm_loadu_si128((const __m128i *)key->destination), tail);
}

static inline uint64_t flow_key_hash(const union flow_key *key, bool ipv6) {
    return ipv6 ? flow_hash6(&key->v6) : flow_hash4(key->first);
}

/* --- lookup --- */

static inline uint32_t hash_bucket(uint64_t hash) {
    return (uint32_t)hash & session_table.mask;
}

static inline uint16_t hash_signature(uint64_t hash) {
    uint16_t signature = (uint16_t)(hash >> 32);

    return signature ? signature : 1;
}

/* The other bucket of keys of this one; of that one, this. */
static inline uint32_t bucket_other(uint32_t bucket, uint16_t signature) {
    return bucket ^ (((uint32_t)signature * UINT32_C(0x9e3779b1) | 1) & session_table.mask);
}

/* Places whose signature is this one, as two bits per place. */
static inline uint32_t bucket_match(const struct bucket *bucket, uint16_t signature) {
    __m128i wanted = _mm_set1_epi16((short)signature);
    uint32_t low = (uint32_t)_mm_movemask_epi8(
        _mm_cmpeq_epi16(_mm_load_si128((const __m128i *)bucket->signature), wanted));
    uint32_t high = (uint32_t)_mm_movemask_epi8(
        _mm_cmpeq_epi16(_mm_cvtsi32_si128((int)*(const uint32_t *)&bucket->signature[8]), wanted));

    return low | (high & 0xf) << 16;
}

static inline bool flow_is4(const struct flow *flow, __m128i key) {
    return _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128((const __m128i *)flow), key)) ==
               0xffff &&
           !(flow->flags & FLOW_IPV6);
}

static inline bool flow_is6(const struct flow *flow, const struct flow_key6 *key) {
    return flow->flags & FLOW_IPV6 && memcmp(&flow->key6, key, sizeof(*key)) == 0;
}

static inline union flow_key flow_key_of(const struct flow *flow) {
    union flow_key key = {0};

    if (flow->flags & FLOW_IPV6)
        key.v6 = flow->key6;
    else
        key.v4 = flow->key4;
    return key;
}

/* The VRF of its key: where its packets come in. */
static inline uint16_t flow_vrf(const struct flow *flow) {
    return (
        uint16_t)((flow->flags & FLOW_IPV6 ? flow->key6.protocol_vrf : flow->key4.protocol_vrf) >>
                  16);
}

static inline bool flow_is(const struct flow *flow, const union flow_key *key, bool ipv6) {
    return ipv6 ? flow_is6(flow, &key->v6) : flow_is4(flow, key->first);
}

/* The flow with this key, or SESSION_NONE. */
uint32_t session_table_find(const union flow_key *key, bool ipv6, uint64_t hash);

/* --- change --- */

/* Puts the flow in, whose key and family flag are set. 0; -EEXIST with the flow that has the key in
 * *found; -ENOSPC when both buckets are full; -EBUSY when they are held by another worker. */
int session_table_insert(uint32_t flow, uint64_t hash, uint32_t *found);
/* Takes it out. 0, -ENOENT or -EBUSY. */
int session_table_remove(uint32_t flow);

/* --- numbers --- */

/* A session that is not in use, its flows and itself zeroed but for the serial; SESSION_NONE when
 * there is none. The state stays SESSION_FREE until the caller sets another. */
uint32_t session_take(unsigned worker);
/* Gives one back that is not in the table any more: it is used again after a grace period. */
void session_give(unsigned worker, uint32_t number);
/* The same for one that never was in the table: used again at once. */
void session_give_unused(unsigned worker, uint32_t number);
/* Moves what may be used again to where session_take() finds it. Once per turn and worker. */
void session_table_turn(unsigned worker);
/* Sessions that are not in use, roughly (those that workers hold for themselves left out). */
uint32_t session_table_room(void);
/* Numbers from here on have never been used. */
uint32_t session_table_top(void);
