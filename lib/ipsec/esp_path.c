/*
 * Pairs of outer addresses. The control thread alone changes the chains; workers lower an MTU and
 * report the path by a list that only grows until the control thread takes it as a whole.
 */
#include "ipsec/esp_path.h"

#include <rte_jhash.h>

#include "core/event.h"
#include "core/log.h"
#include "core/rcu.h"
#include "core/slab.h"
#include "l3/flow_hash.h"

enum { BUCKETS = 1 << 14, SERIAL_MAX = INT32_MAX };

static struct esp_path *_Atomic buckets[BUCKETS];
static struct esp_path *_Atomic reports;
/* Those with an MTU, in the order in which it is forgotten. */
static struct esp_path *learned_first, *learned_last;
static struct slab slab = {.size = sizeof(struct esp_path)};
static uint32_t last_serial;

static struct esp_path *_Atomic *bucket_of(const struct esp_path_key *key) {
    return &buckets[rte_jhash(key, sizeof(*key), flow_hash_seed) % BUCKETS];
}

struct esp_path *esp_path_find(const struct esp_path_key *key) {
    struct esp_path *path = atomic_load_explicit(bucket_of(key), memory_order_acquire);

    while (path && memcmp(&path->key, key, sizeof(*key)) != 0)
        path = atomic_load_explicit(&path->next, memory_order_acquire);
    return path;
}

/* --- what workers learn --- */

static void report(struct esp_path *path) {
    struct esp_path *first = atomic_load_explicit(&reports, memory_order_relaxed);

    if (atomic_exchange(&path->reported, true))
        return;
    do
        path->reported_next = first;
    while (!atomic_compare_exchange_weak(&reports, &first, path));
}

/* Those whose packets routers may cut need not know. */
static bool wants_mtu(const struct ipsec_sa *sa) {
    return sa->df != IPSEC_DF_CLEAR || sa->flags & (SA_IPV6 | SA_TRANSPORT);
}

void esp_path_lower(struct ipsec_sa *sa, uint16_t mtu) {
    struct esp_path *path = sa->path;
    uint16_t known = atomic_load_explicit(&path->mtu, memory_order_relaxed);

    if (!wants_mtu(sa))
        return;
    do {
        if (mtu >= known)
            return;
    } while (!atomic_compare_exchange_weak(&path->mtu, &known, mtu));
    /* The others hear of it within a second; this one has a sender that waits. */
    atomic_store_explicit(&sa->path_mtu, mtu, memory_order_relaxed);
    report(path);
}

/* --- what becomes of it --- */

static void tell(struct ipsec_sa *sa, uint16_t mtu) {
    if (wants_mtu(sa))
        atomic_store_explicit(&sa->path_mtu, mtu, memory_order_relaxed);
}

static void tell_associations(const struct esp_path *path, uint16_t mtu) {
    for (struct ipsec_sa *sa = path->first; sa; sa = sa->path_next)
        tell(sa, mtu);
}

static bool is_learned(const struct esp_path *path) {
    return path->learned_before || learned_first == path;
}

static void unlink_learned(struct esp_path *path) {
    if (path->learned_next)
        path->learned_next->learned_before = path->learned_before;
    else
        learned_last = path->learned_before;
    if (path->learned_before)
        path->learned_before->learned_next = path->learned_next;
    else
        learned_first = path->learned_next;
    path->learned_next = path->learned_before = NULL;
}

static void link_learned(struct esp_path *path) {
    path->learned_before = learned_last;
    if (learned_last)
        learned_last->learned_next = path;
    else
        learned_first = path;
    learned_last = path;
}

static void take_report(struct esp_path *path) {
    uint16_t mtu = atomic_load(&path->mtu);
    char text[IP_ADDRESS_TEXT];

    if (mtu == ESP_PATH_MTU_UNKNOWN || !path->first)
        return;
    log_info("ipsec", "the path to %s has room for %u bytes",
             ip_address_text(&path->first->settings.destination, text), mtu);
    if (is_learned(path))
        unlink_learned(path);
    path->expires = event_now() + ESP_PATH_MTU_SECONDS * UINT64_C(1000);
    link_learned(path);
    tell_associations(path, mtu);
}

static void take_reports(void) {
    struct esp_path *path = atomic_exchange(&reports, NULL), *next;

    for (; path; path = next) {
        next = path->reported_next; /* before it may be reported again */
        atomic_store(&path->reported, false);
        take_report(path);
    }
}

/* --- associations come and go --- */

struct esp_path *esp_path_alloc(void) {
    return slab_take(&slab);
}

void esp_path_give_back(struct esp_path *path) {
    slab_give(&slab, path);
}

static void free_later(void *owner, void *memory, size_t size) {
    (void)owner;
    (void)size;
    take_reports(); /* it might be among them */
    slab_give(&slab, memory);
}

static void take_out(struct esp_path *path) {
    struct esp_path *_Atomic *at = bucket_of(&path->key);

    while (atomic_load(at) != path)
        at = &atomic_load(at)->next;
    atomic_store_explicit(at, atomic_load(&path->next), memory_order_release);
    rcu_retire(NULL, free_later, NULL, path, sizeof(*path));
}

static struct esp_path_key key_of(const struct ipsec_sa *sa) {
    const struct ipsec_sa_settings *settings = &sa->settings;
    struct esp_path_key key = {
        .vrf = sa->vrf,
        .direction = (uint8_t)settings->direction,
        .ipv6 = (sa->flags & SA_IPV6) != 0,
    };
    size_t length = key.ipv6 ? 16 : 4;

    memcpy(key.source, settings->source.bytes, length);
    memcpy(key.destination, settings->destination.bytes, length);
    return key;
}

static void insert(struct esp_path *path, const struct esp_path_key *key) {
    struct esp_path *_Atomic *bucket = bucket_of(key);

    path->key = *key;
    last_serial = last_serial == SERIAL_MAX ? 1 : last_serial + 1;
    path->serial = last_serial;
    atomic_init(&path->mtu, ESP_PATH_MTU_UNKNOWN);
    atomic_init(&path->next, atomic_load(bucket));
    atomic_store_explicit(bucket, path, memory_order_release);
}

static _Atomic uint32_t *counter_of(const struct ipsec_sa *sa) {
    return sa->flags & SA_UDP ? &sa->path->in_udp : &sa->path->plain;
}

void esp_path_join(struct ipsec_sa *sa) {
    const struct esp_path_key key = key_of(sa);
    struct esp_path *path = esp_path_find(&key);

    if (path) {
        esp_path_give_back(sa->spare_path);
    } else {
        path = sa->spare_path;
        insert(path, &key);
    }
    sa->spare_path = NULL;
    sa->path = path;
    sa->path_before = NULL;
    sa->path_next = path->first;
    if (path->first)
        path->first->path_before = sa;
    path->first = sa;
    atomic_fetch_add(counter_of(sa), 1);
    tell(sa, atomic_load(&path->mtu));
}

void esp_path_leave(struct ipsec_sa *sa) {
    struct esp_path *path = sa->path;

    take_reports(); /* what is known by now stays with the path */
    if (sa->path_next)
        sa->path_next->path_before = sa->path_before;
    if (sa->path_before)
        sa->path_before->path_next = sa->path_next;
    else
        path->first = sa->path_next;
    atomic_fetch_sub(counter_of(sa), 1);
    if (!path->first && !is_learned(path))
        take_out(path);
}

/* --- time --- */

static void forget(struct esp_path *path) {
    unlink_learned(path);
    atomic_store(&path->mtu, ESP_PATH_MTU_UNKNOWN);
    tell_associations(path, ESP_PATH_MTU_UNKNOWN);
    if (!path->first)
        take_out(path);
}

void esp_path_tick(void) {
    take_reports();
    while (learned_first && learned_first->expires <= event_now())
        forget(learned_first);
}

void esp_path_forget_all(void) {
    take_reports();
    while (learned_first)
        forget(learned_first);
}
