/* The table of flows, and the lists of sessions that are not in use. */
#include "session/table.h"

#include <errno.h>
#include <rte_pause.h>
#include <rte_prefetch.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

#include "core/huge_memory.h"
#include "core/rcu.h"

enum {
    KEYS_PER_BUCKET = 4,  /* on average, when the table is full */
    LOCK_ATTEMPTS = 2000, /* about 30 microseconds */
    CHUNK = 64, /* sessions that move between a worker's list and the common one at once */
    LIMBO_BATCHES = 64,
    LIMBO_BATCH = 64,
};

struct session_table session_table;
struct flow *session_flows;
struct session *sessions;
uint32_t session_count_max;

/* Sessions that were given back, in the order in which they may be used again. */
struct limbo_batch {
    uint64_t token;
    uint32_t head, count; /* linked by `next` */
};

struct holder {
    uint32_t free_head, free_count;
    struct limbo_batch limbo[LIMBO_BATCHES]; /* a ring; the last one is still open */
    uint32_t limbo_first, limbo_count;
} __rte_cache_aligned;

static struct holder *holders;
static unsigned holder_count;
static void *flows_memory, *sessions_memory;
static size_t flows_size, sessions_size, buckets_size;

/* Chunks that no worker holds: a stack whose head is the number of the chunk's first session and,
 * above it, a count that changes with each pop, so that a head that was taken and came back is not
 * taken for the same (Treiber 1986). The chunk's first session has the chunk below in `mapping` and
 * the chunk's size in `source`. */
static _Atomic uint64_t common;
static _Atomic uint32_t common_count;
/* Sessions from here on have never been used. */
static _Atomic uint32_t fresh;

/* --- life --- */

static uint32_t buckets_for(uint32_t size) {
    uint32_t count = 2;

    while ((uint64_t)count * KEYS_PER_BUCKET < (uint64_t)size * 2)
        count *= 2;
    return count;
}

int session_table_create(uint32_t size, unsigned workers) {
    uint32_t buckets = buckets_for(size);

    session_count_max = size + 1; /* 0 is none */
    flows_size = (size_t)session_count_max * 2 * sizeof(struct flow);
    sessions_size = (size_t)session_count_max * sizeof(struct session);
    buckets_size = (size_t)buckets * sizeof(struct bucket);
    session_flows = flows_memory = huge_memory_map(flows_size);
    sessions = sessions_memory = huge_memory_map(sessions_size);
    session_table.buckets = huge_memory_map(buckets_size);
    holders = aligned_alloc(RTE_CACHE_LINE_SIZE, workers * sizeof(*holders));
    if (!session_flows || !sessions || !session_table.buckets || !holders ||
        getrandom(session_table.secret, sizeof(session_table.secret), 0) !=
            (ssize_t)sizeof(session_table.secret)) {
        session_table_free();
        return -ENOMEM;
    }
    memset(holders, 0, workers * sizeof(*holders));
    holder_count = workers;
    session_table.mask = buckets - 1;
    atomic_store(&common, 0);
    atomic_store(&common_count, 0);
    atomic_store(&fresh, 1);
    return 0;
}

void session_table_hide(void) {
    __atomic_store_n(&session_flows, NULL, __ATOMIC_RELEASE);
    sessions = NULL;
    session_count_max = 0;
}

void session_table_free(void) {
    session_table_hide();
    huge_memory_unmap(flows_memory, flows_size);
    huge_memory_unmap(sessions_memory, sessions_size);
    huge_memory_unmap(session_table.buckets, buckets_size);
    free(holders);
    flows_memory = sessions_memory = NULL;
    session_table.buckets = NULL;
    holders = NULL;
}

/* --- lookup --- */

static uint32_t find_in(const struct bucket *bucket, uint16_t signature, const union flow_key *key,
                        bool ipv6) {
    uint32_t match = bucket_match(bucket, signature);

    while (match) {
        unsigned place = (unsigned)__builtin_ctz(match) / 2;
        uint32_t flow = __atomic_load_n(&bucket->flow[place], __ATOMIC_ACQUIRE);

        if (flow != SESSION_NONE && flow_is(&session_flows[flow], key, ipv6))
            return flow;
        match &= ~(3u << place * 2);
    }
    return SESSION_NONE;
}

uint32_t session_table_find(const union flow_key *key, bool ipv6, uint64_t hash) {
    uint32_t home = hash_bucket(hash);
    uint16_t signature = hash_signature(hash);
    const struct bucket *bucket = &session_table.buckets[home];
    uint32_t flow = find_in(bucket, signature, key, ipv6);

    if (flow == SESSION_NONE && __atomic_load_n(&bucket->elsewhere, __ATOMIC_RELAXED) != 0)
        flow = find_in(&session_table.buckets[bucket_other(home, signature)], signature, key, ipv6);
    return flow;
}

/* --- change --- */

static bool try_lock(struct bucket *bucket) {
    for (unsigned i = 0; i < LOCK_ATTEMPTS; i++) {
        if (__atomic_load_n(&bucket->lock, __ATOMIC_RELAXED) == 0 &&
            __atomic_exchange_n(&bucket->lock, 1, __ATOMIC_ACQUIRE) == 0)
            return true;
        rte_pause();
    }
    return false;
}

static void unlock(struct bucket *bucket) {
    __atomic_store_n(&bucket->lock, 0, __ATOMIC_RELEASE);
}

static int free_place(const struct bucket *bucket) {
    for (int place = 0; place < BUCKET_PLACES; place++) {
        if (bucket->signature[place] == 0)
            return place;
    }
    return -1;
}

static int place_of(const struct bucket *bucket, uint32_t flow) {
    for (int place = 0; place < BUCKET_PLACES; place++) {
        if (bucket->signature[place] != 0 && bucket->flow[place] == flow)
            return place;
    }
    return -1;
}

/* The signature comes last: a reader that sees it sees the flow. */
static void set_place(struct bucket *bucket, int place, uint16_t signature, uint32_t flow) {
    __atomic_store_n(&bucket->flow[place], flow, __ATOMIC_RELEASE);
    __atomic_store_n(&bucket->signature[place], signature, __ATOMIC_RELEASE);
}

static uint64_t hash_of_flow(const struct flow *flow) {
    union flow_key key = flow_key_of(flow);

    return flow_key_hash(&key, flow->flags & FLOW_IPV6);
}

static int insert_locked(struct bucket *bucket, uint32_t home, uint32_t flow, uint64_t hash) {
    uint16_t signature = hash_signature(hash);
    int place = free_place(bucket);
    struct bucket *other = &session_table.buckets[bucket_other(home, signature)];

    if (place >= 0) {
        set_place(bucket, place, signature, flow);
        return 0;
    }
    if (!try_lock(other))
        return -EBUSY;
    place = free_place(other);
    if (place >= 0) {
        /* First, so that no reader misses the key when it is there. */
        __atomic_store_n(&bucket->elsewhere, bucket->elsewhere + 1, __ATOMIC_RELEASE);
        set_place(other, place, signature, flow);
    }
    unlock(other);
    return place >= 0 ? 0 : -ENOSPC;
}

int session_table_insert(uint32_t flow, uint64_t hash, uint32_t *found) {
    const struct flow *added = &session_flows[flow];
    uint32_t home = hash_bucket(hash);
    struct bucket *bucket = &session_table.buckets[home];
    bool ipv6 = added->flags & FLOW_IPV6;
    union flow_key key = flow_key_of(added);
    int error = -EEXIST;

    if (!try_lock(bucket))
        return -EBUSY;
    *found = session_table_find(&key, ipv6, hash);
    if (*found == SESSION_NONE)
        error = insert_locked(bucket, home, flow, hash);
    unlock(bucket);
    return error;
}

int session_table_remove(uint32_t flow) {
    uint64_t hash = hash_of_flow(&session_flows[flow]);
    uint32_t home = hash_bucket(hash);
    struct bucket *bucket = &session_table.buckets[home];
    struct bucket *other = &session_table.buckets[bucket_other(home, hash_signature(hash))];
    int place, error = 0;

    if (!try_lock(bucket))
        return -EBUSY;
    place = place_of(bucket, flow);
    if (place >= 0) {
        __atomic_store_n(&bucket->signature[place], 0, __ATOMIC_RELEASE);
    } else if (bucket->elsewhere == 0) {
        error = -ENOENT;
    } else if (!try_lock(other)) {
        error = -EBUSY;
    } else {
        place = place_of(other, flow);
        if (place >= 0) {
            __atomic_store_n(&other->signature[place], 0, __ATOMIC_RELEASE);
            __atomic_store_n(&bucket->elsewhere, bucket->elsewhere - 1, __ATOMIC_RELEASE);
        }
        error = place >= 0 ? 0 : -ENOENT;
        unlock(other);
    }
    unlock(bucket);
    return error;
}

/* --- numbers --- */

static void push_chunk(uint32_t head, uint32_t count) {
    uint64_t old = atomic_load_explicit(&common, memory_order_relaxed), new;

    sessions[head].source = count;
    do {
        sessions[head].mapping = (uint32_t)old;
        new = (old & ~(uint64_t)UINT32_MAX) | head;
    } while (!atomic_compare_exchange_weak_explicit(&common, &old, new, memory_order_release,
                                                    memory_order_relaxed));
    atomic_fetch_add_explicit(&common_count, count, memory_order_relaxed);
}

/* Another worker may take the same chunk meanwhile and write to its first session: then what was
 * read here is wrong, and the count says so. */
static bool pop_chunk(uint32_t *head, uint32_t *count) {
    uint64_t old = atomic_load_explicit(&common, memory_order_acquire), new;

    do {
        *head = (uint32_t)old;
        if (*head == SESSION_NONE)
            return false;
        new = ((old >> 32) + 1) << 32 | __atomic_load_n(&sessions[*head].mapping, __ATOMIC_RELAXED);
    } while (!atomic_compare_exchange_weak_explicit(&common, &old, new, memory_order_acquire,
                                                    memory_order_acquire));
    *count = sessions[*head].source;
    atomic_fetch_sub_explicit(&common_count, *count, memory_order_relaxed);
    return true;
}

/* Numbers that were never used, linked. */
static bool take_fresh(uint32_t *head, uint32_t *count) {
    uint32_t first = atomic_load_explicit(&fresh, memory_order_relaxed), next;

    do {
        if (first >= session_count_max)
            return false;
        next = RTE_MIN(first + CHUNK, session_count_max);
    } while (!atomic_compare_exchange_weak(&fresh, &first, next));
    for (uint32_t i = first; i < next; i++)
        sessions[i].next = i + 1 < next ? i + 1 : SESSION_NONE;
    *head = first;
    *count = next - first;
    return true;
}

uint32_t session_take(unsigned worker) {
    struct holder *holder = &holders[worker];
    struct session *session;
    uint32_t number, serial;

    if (holder->free_head == SESSION_NONE && !pop_chunk(&holder->free_head, &holder->free_count) &&
        !take_fresh(&holder->free_head, &holder->free_count))
        return SESSION_NONE;
    number = holder->free_head;
    session = &sessions[number];
    holder->free_head = session->next;
    holder->free_count--;
    /* Whoever comes next finds these in the cache. */
    rte_prefetch0(&sessions[holder->free_head]);
    rte_prefetch0(&session_flows[holder->free_head * 2]);
    rte_prefetch0(&session_flows[holder->free_head * 2 + 1]);
    serial = session->serial + 1;
    memset(session, 0, sizeof(*session));
    session->serial = serial;
    memset(&session_flows[number * 2], 0, 2 * sizeof(struct flow));
    return number;
}

static void mark_free(uint32_t number) {
    __atomic_store_n(&sessions[number].state, SESSION_FREE, __ATOMIC_RELEASE);
}

/* The first CHUNK of a long list go to where every worker finds them. */
static void share_surplus(struct holder *holder) {
    uint32_t head = holder->free_head, last = head;

    if (holder->free_count < 3 * CHUNK)
        return;
    for (unsigned i = 1; i < CHUNK; i++)
        last = sessions[last].next;
    holder->free_head = sessions[last].next;
    holder->free_count -= CHUNK;
    sessions[last].next = SESSION_NONE;
    push_chunk(head, CHUNK);
}

static void free_at_once(struct holder *holder, uint32_t number) {
    sessions[number].next = holder->free_head;
    holder->free_head = number;
    holder->free_count++;
    share_surplus(holder);
}

void session_give_unused(unsigned worker, uint32_t number) {
    mark_free(number);
    free_at_once(&holders[worker], number);
}

static struct limbo_batch *open_batch(struct holder *holder) {
    struct limbo_batch *batch;

    if (holder->limbo_count > 0) {
        batch = &holder->limbo[(holder->limbo_first + holder->limbo_count - 1) % LIMBO_BATCHES];
        /* A full batch goes on as the open one when there is no room for another: it becomes due
         * later than it could. */
        if (batch->token == 0 &&
            (batch->count < LIMBO_BATCH || holder->limbo_count == LIMBO_BATCHES))
            return batch;
        if (holder->limbo_count == LIMBO_BATCHES) {
            batch->token = 0;
            return batch;
        }
        if (batch->token == 0)
            batch->token = rcu_token();
    }
    batch = &holder->limbo[(holder->limbo_first + holder->limbo_count++) % LIMBO_BATCHES];
    *batch = (struct limbo_batch){0};
    return batch;
}

void session_give(unsigned worker, uint32_t number) {
    struct limbo_batch *batch = open_batch(&holders[worker]);

    mark_free(number);
    sessions[number].next = batch->head;
    batch->head = number;
    batch->count++;
}

/* At most one batch, so that a turn stays short. */
void session_table_turn(unsigned worker) {
    struct holder *holder = &holders[worker];
    struct limbo_batch *batch = &holder->limbo[holder->limbo_first];

    if (holder->limbo_count == 0)
        return;
    if (batch->token == 0) /* the only one: close it, the next turns will find it due */
        batch->token = rcu_token();
    if (!rcu_passed(batch->token))
        return;
    holder->limbo_first = (holder->limbo_first + 1) % LIMBO_BATCHES;
    holder->limbo_count--;
    for (uint32_t number = batch->head, next; number != SESSION_NONE; number = next) {
        next = sessions[number].next;
        free_at_once(holder, number);
    }
}

uint32_t session_table_room(void) {
    return atomic_load_explicit(&common_count, memory_order_relaxed) + session_count_max -
           atomic_load_explicit(&fresh, memory_order_relaxed);
}

uint32_t session_table_top(void) {
    return atomic_load_explicit(&fresh, memory_order_relaxed);
}
