/*
 * Policies as an IKE daemon knows them. Linux has three directions: in for packets to itself, fwd
 * for those that it forwards, out. A router's packets come in or go out, so that a policy for fwd
 * is taken together with the one for in about the same packets, which daemons add as well; if they
 * differ, the one for in decides.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "ipsec/xfrm_internal.h"

enum {
    BUCKETS = 1 << 12,
    INDEX_STEP = 8, /* the low bits are the direction, as in Linux */
    ACQUIRE_MSEC = 1000,
    PUBLISH_AGAIN_MSEC = 1000,
    PUBLISH_PART = 10,
    PUBLISH_AT_ONCE_USEC = 10000,
    USEC = 1000000,
    NSEC_PER_USEC = 1000,
    USEC_PER_MSEC = 1000,
};

TAILQ_HEAD(policy_list, xfrm_policy_record);
LIST_HEAD(policy_chain, xfrm_policy_record);

static struct policy_list all = TAILQ_HEAD_INITIALIZER(all);
static struct policy_chain buckets[BUCKETS];
static uint64_t last_serial;
static uint32_t last_index, acquires;

/* --- publication --- */

static uint64_t not_before; /* event_now() */

/* Of this thread's work: what others take of the CPU meanwhile says nothing about the policies. */
static uint64_t work_usec(void) {
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * USEC + (uint64_t)now.tv_nsec / NSEC_PER_USEC;
}

static void publish(struct event_timer *timer) {
    static struct log_limit limit;
    uint64_t start = work_usec(), took;
    int error = ipsec_publish();

    took = work_usec() - start;
    not_before = 0;
    if (took > PUBLISH_AT_ONCE_USEC)
        not_before = event_now() + took * PUBLISH_PART / USEC_PER_MSEC;
    if (error) {
        log_limited(&limit, LOG_LEVEL_ERROR, "ipsec",
                    "the policies could not be put in force, trying again: %s", strerror(-error));
        event_timer_start(timer, PUBLISH_AGAIN_MSEC);
    }
}

static struct event_timer publish_timer = {.expired = publish};

/* At once, since the daemon takes the answer for a promise; but not when there are so many policies
 * that this would take most of the control thread's time: a daemon adds them one by one. */
static void publish_soon(void) {
    if (event_timer_armed(&publish_timer))
        return;
    if (event_now() >= not_before)
        publish(&publish_timer);
    else
        event_timer_start(&publish_timer, not_before - event_now());
}

/* --- records --- */

static struct policy_chain *bucket_of(const struct xfrm_selector *selector) {
    const uint8_t *bytes = (const uint8_t *)selector;
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (size_t i = 0; i < sizeof(*selector); i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return &buckets[hash % BUCKETS];
}

static struct xfrm_policy_record *find_selector(uint8_t dir, const struct xfrm_selector *selector,
                                                uint32_t if_id) {
    struct xfrm_policy_record *record;

    LIST_FOREACH(record, bucket_of(selector), hashed) {
        if (record->policy.info.dir == dir && record->policy.settings.if_id == if_id &&
            memcmp(&record->policy.info.sel, selector, sizeof(*selector)) == 0)
            return record;
    }
    return NULL;
}

static struct xfrm_policy_record *find(const struct xfrm_policy_key *key) {
    const struct xfrm_userpolicy_id *id = &key->id;
    struct xfrm_policy_record *record;

    if (id->index == 0)
        return find_selector(id->dir, &id->sel, key->if_id);
    TAILQ_FOREACH (record, &all, listed) {
        if (record->policy.info.index == id->index && record->policy.info.dir == id->dir)
            return record;
    }
    return NULL;
}

/* Of a policy for in the one for fwd, and the other way round. */
static struct xfrm_policy_record *sibling_of(const struct xfrm_policy *policy) {
    const struct xfrm_userpolicy_info *info = &policy->info;

    if (info->dir == XFRM_POLICY_OUT)
        return NULL;
    return find_selector(info->dir == XFRM_POLICY_IN ? XFRM_POLICY_FWD : XFRM_POLICY_IN, &info->sel,
                         policy->settings.if_id);
}

const struct xfrm_policy_record *xfrm_spd_after(uint64_t serial) {
    struct xfrm_policy_record *record;

    TAILQ_FOREACH (record, &all, listed) {
        if (record->serial > serial)
            return record;
    }
    return NULL;
}

void xfrm_spd_count(uint32_t out[XFRM_POLICY_MAX]) {
    struct xfrm_policy_record *record;

    memset(out, 0, XFRM_POLICY_MAX * sizeof(*out));
    TAILQ_FOREACH (record, &all, listed)
        out[record->policy.info.dir]++;
}

static struct xfrm_policy_record *add_record(const struct xfrm_policy *policy) {
    struct xfrm_policy_record *record = calloc(1, sizeof(*record));

    if (!record)
        return NULL;
    record->policy = *policy;
    record->serial = ++last_serial;
    TAILQ_INSERT_TAIL(&all, record, listed);
    LIST_INSERT_HEAD(bucket_of(&policy->info.sel), record, hashed);
    return record;
}

static void remove_record(struct xfrm_policy_record *record) {
    TAILQ_REMOVE(&all, record, listed);
    LIST_REMOVE(record, hashed);
    free(record);
}

/* --- what is in force --- */

static void set_in_force(struct xfrm_policy_record *record, struct ipsec_policy *policy) {
    if (record->in_force == policy)
        return;
    record->in_force = policy;
    record->packets = record->without_sa = 0;
}

/* Rekeying changes but the SPI: nothing that would have to be published. */
static bool only_prefers(const struct ipsec_policy_settings *before,
                         const struct ipsec_policy_settings *after) {
    struct ipsec_policy_settings same = *before;

    if (after->request != 0)
        same.spi = after->spi;
    return memcmp(&same, after, sizeof(same)) == 0;
}

/* Puts a policy in the place of one that is in force, or of none. On failure the old one is back,
 * as far as memory allows: *policy says. */
static int replace(struct ipsec_policy **policy, const struct ipsec_policy_settings *settings) {
    struct ipsec_policy_settings before = {0};
    bool was_there = *policy != NULL;
    int error;

    if (was_there) {
        before = *ipsec_policy_settings(*policy);
        if (only_prefers(&before, settings)) {
            ipsec_policy_prefer(*policy, settings->spi);
            return 0;
        }
        ipsec_policy_delete(*policy);
        *policy = NULL;
    }
    error = ipsec_policy_add(settings, IPSEC_OF_IKE, policy);
    if (error) {
        *policy = NULL;
        if (was_there && ipsec_policy_add(&before, IPSEC_OF_IKE, policy) != 0)
            *policy = NULL;
    }
    publish_soon();
    return error;
}

/* The VRF of this end of the tunnel; without tunnel, that of the host that the policy is about. */
static uint16_t vrf_of(const struct xfrm_policy *policy) {
    const struct ipsec_selector *selector = &policy->settings.selector;
    const struct ip_prefix *inside =
        policy->settings.direction == IPSEC_OUT ? &selector->source : &selector->destination;
    int vrf = policy->local.family != 0 ? xfrm_local_vrf(&policy->local)
                                        : xfrm_local_vrf(&inside->address);

    return vrf < 0 ? 0 : (uint16_t)vrf;
}

int xfrm_spd_put(const struct xfrm_policy *from) {
    struct xfrm_policy policy = *from;
    struct xfrm_policy_record *record =
        find_selector(policy.info.dir, &policy.info.sel, policy.settings.if_id);
    struct xfrm_policy_record *sibling = sibling_of(&policy);
    struct ipsec_policy *in_force;
    bool is_new = !record;
    int error = 0;

    policy.settings.vrf = vrf_of(&policy);
    if (is_new)
        record = add_record(&policy);
    if (!record)
        return -ENOMEM;
    if (is_new)
        record->policy.info.index = (last_index += INDEX_STEP) | policy.info.dir;
    policy.info.index = record->policy.info.index;
    if (policy.info.dir != XFRM_POLICY_FWD || !sibling) {
        in_force = record->in_force ? record->in_force : sibling ? sibling->in_force : NULL;
        error = replace(&in_force, &policy.settings);
        if (error && is_new && sibling) {
            set_in_force(sibling, in_force);
        } else {
            set_in_force(record, in_force);
            if (sibling)
                set_in_force(sibling, NULL);
        }
    }
    if (error == 0)
        record->policy = policy;
    else if (is_new)
        remove_record(record);
    xfrm_poll_start();
    return error;
}

static void delete_record(struct xfrm_policy_record *record) {
    struct xfrm_policy_record *sibling = sibling_of(&record->policy);
    struct ipsec_policy *in_force = record->in_force;

    if (in_force && sibling) {
        replace(&in_force, &sibling->policy.settings);
        set_in_force(sibling, in_force);
    } else if (in_force) {
        ipsec_policy_delete(in_force);
        publish_soon();
    }
    remove_record(record);
}

int xfrm_spd_delete(const struct xfrm_policy_key *key) {
    struct xfrm_policy_record *record = find(key);

    if (!record)
        return -ENOENT;
    delete_record(record);
    return 0;
}

void xfrm_spd_flush(void) {
    struct xfrm_policy_record *record;
    bool any = !TAILQ_EMPTY(&all);

    while ((record = TAILQ_FIRST(&all)) != NULL) {
        if (record->in_force)
            ipsec_policy_delete(record->in_force);
        remove_record(record);
    }
    if (any)
        publish_soon();
}

/* --- counters --- */

static void refresh(struct xfrm_policy_record *record, struct ipsec_policy_counters *out) {
    const struct ipsec_policy *policy = record->in_force;

    *out = (struct ipsec_policy_counters){0};
    if (!policy)
        return;
    ipsec_policy_counters(policy, out);
    if (out->packets != record->packets)
        record->used = event_now();
    record->packets = out->packets;
}

const struct xfrm_policy_record *xfrm_spd_find(const struct xfrm_policy_key *key) {
    struct xfrm_policy_record *record = find(key);
    struct xfrm_policy_record *sibling = record ? sibling_of(&record->policy) : NULL;
    struct ipsec_policy_counters counters;

    if (!record)
        return NULL;
    refresh(record, &counters);
    if (sibling) { /* the packets of one are the packets of the other */
        refresh(sibling, &counters);
        if (sibling->used > record->used)
            record->used = sibling->used;
    }
    return record;
}

/* Packets are told of as long as they come, since the daemon may have given up meanwhile. */
static void acquire(struct xfrm_policy_record *record, uint64_t without_sa) {
    char buffer[XFRM_MESSAGE_MAX] __attribute__((aligned(16)));
    struct nlmsghdr *message;
    struct ipsec_flow flow;
    bool found;

    if (record->acquired != 0 && event_now() - record->acquired < ACQUIRE_MSEC)
        return;
    record->without_sa = without_sa;
    found = ipsec_policy_unmet(record->in_force, &flow);
    message = xfrm_write_acquire(buffer, &record->policy, found ? &flow : NULL, ++acquires);
    if (xfrm_notify(XFRMNLGRP_ACQUIRE, message))
        record->acquired = event_now();
}

bool xfrm_spd_poll(void) {
    struct ipsec_policy_counters counters;
    struct xfrm_policy_record *record;

    TAILQ_FOREACH (record, &all, listed) {
        refresh(record, &counters);
        if (record->policy.settings.direction == IPSEC_OUT &&
            record->policy.settings.action == IPSEC_PROTECT &&
            counters.without_sa != record->without_sa)
            acquire(record, counters.without_sa);
    }
    return !TAILQ_EMPTY(&all);
}
