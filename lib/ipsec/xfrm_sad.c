/*
 * Security associations as an IKE daemon knows them: with the selector, the limits and the flags of
 * <linux/xfrm.h>, and with their keys, because a daemon whose peer moves to another address reads
 * an association and adds it anew.
 *
 * Linux does not say whether an association is for packets that come in or go out; here that is
 * known from whose SPI it is.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "interface/interface.h"
#include "ipsec/xfrm_internal.h"

enum {
    BUCKETS = 1 << 14,
    ALLOCATE_ATTEMPTS = 1000,
    /* As long as charon has it: the time in which a negotiation ends, or has failed. */
    LARVAL_MSEC = 165 * 1000,
    LARVAL_MAX = 1 << 16,
    MOVED_MSEC = 5000,
    MSEC = 1000,
    ESP_PORT = 4500,
};

TAILQ_HEAD(record_list, xfrm_sa_record);
LIST_HEAD(record_chain, xfrm_sa_record);

static struct record_list all = TAILQ_HEAD_INITIALIZER(all);
static struct record_list polled = TAILQ_HEAD_INITIALIZER(polled); /* come in, in UDP */
static struct record_chain buckets[BUCKETS];
static unsigned count, larval_count;
static uint64_t last_serial;

/* --- addresses and times --- */

int xfrm_local_vrf(const struct ip_address *address) {
    for (const struct interface *i = NULL; (i = interface_next(i)) != NULL;) {
        for (unsigned n = 0; n < i->address_count; n++) {
            if (ip_address_compare(&i->addresses[n].prefix.address, address) == 0)
                return i->vrf;
        }
    }
    return -1;
}

uint64_t xfrm_real_time(uint64_t msec) {
    return (uint64_t)time(NULL) - (event_now() - msec) / MSEC;
}

/* The other way round; a time that is still to come is now. */
static uint64_t monotonic_time(uint64_t seconds) {
    uint64_t now = (uint64_t)time(NULL), age = now > seconds ? (now - seconds) * MSEC : 0;

    return age < event_now() ? event_now() - age : 1;
}

/* --- records --- */

static struct record_chain *bucket_of(uint32_t spi) {
    return &buckets[(uint32_t)((spi * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % BUCKETS];
}

static struct xfrm_sa_record *find(const struct xfrm_sa_key *key) {
    struct xfrm_sa_record *record;

    LIST_FOREACH(record, bucket_of(key->spi), hashed) {
        if (record->key.spi == key->spi &&
            ip_address_compare(&record->key.destination, &key->destination) == 0)
            return record;
    }
    return NULL;
}

const struct xfrm_sa_record *xfrm_sad_find(const struct xfrm_sa_key *key) {
    return find(key);
}

const struct xfrm_sa_record *xfrm_sad_after(uint64_t serial) {
    struct xfrm_sa_record *record;

    TAILQ_FOREACH (record, &all, listed) {
        if (record->serial > serial)
            return record;
    }
    return NULL;
}

unsigned xfrm_sad_count(void) {
    return count;
}

/* Nobody wants the SPI any more. */
static void timer_expired(struct event_timer *timer);

static struct xfrm_sa_record *add_record(const struct xfrm_sa_key *key) {
    struct xfrm_sa_record *record = calloc(1, sizeof(*record));

    if (!record)
        return NULL;
    record->key = *key;
    record->serial = ++last_serial;
    record->timer = (struct event_timer){.expired = timer_expired, .context = record};
    TAILQ_INSERT_TAIL(&all, record, listed);
    LIST_INSERT_HEAD(bucket_of(key->spi), record, hashed);
    count++;
    return record;
}

static void set_larval(struct xfrm_sa_record *record, bool larval) {
    larval_count += (unsigned)larval - (unsigned)record->larval;
    record->larval = larval;
}

static void set_polled(struct xfrm_sa_record *record, bool is_polled) {
    if (is_polled && !record->is_polled)
        TAILQ_INSERT_TAIL(&polled, record, polled);
    else if (!is_polled && record->is_polled)
        TAILQ_REMOVE(&polled, record, polled);
    record->is_polled = is_polled;
    if (is_polled)
        xfrm_poll_start();
}

static void remove_record(struct xfrm_sa_record *record) {
    event_timer_stop(&record->timer);
    set_larval(record, false);
    set_polled(record, false);
    TAILQ_REMOVE(&all, record, listed);
    LIST_REMOVE(record, hashed);
    count--;
    explicit_bzero(record, sizeof(*record));
    free(record);
}

static const struct ipsec_sa *in_force(const struct xfrm_sa_record *record) {
    return record->larval ? NULL
                          : ipsec_sa_find(record->key.spi, record->sa.settings.direction,
                                          &record->key.destination);
}

static void take_out_of_force(const struct xfrm_sa_record *record) {
    if (!record->larval)
        ipsec_sa_delete(record->key.spi, record->sa.settings.direction, &record->key.destination,
                        IPSEC_OF_IKE);
}

static void delete_record(struct xfrm_sa_record *record) {
    take_out_of_force(record);
    remove_record(record);
}

int xfrm_sad_delete(const struct xfrm_sa_key *key) {
    struct xfrm_sa_record *record = find(key);

    if (!record)
        return -ESRCH;
    delete_record(record);
    return 0;
}

void xfrm_sad_flush(void) {
    while (!TAILQ_EMPTY(&all))
        delete_record(TAILQ_FIRST(&all));
}

/* --- what it has done --- */

void xfrm_sad_state(struct xfrm_sa_record *record, struct xfrm_sa_state *out) {
    const struct ipsec_sa *sa = in_force(record);
    struct ipsec_sa_counters counters;
    struct ipsec_sa_use use;

    memset(out, 0, sizeof(*out));
    if (!sa)
        return;
    ipsec_sa_counters(sa, &counters);
    ipsec_sa_use(sa, &use);
    out->sequence = ipsec_sa_sequence(sa);
    out->use.bytes = use.bytes;
    out->use.packets = use.packets;
    out->use.add_time = xfrm_real_time(use.added);
    if (use.first_used != 0)
        out->use.use_time = xfrm_real_time(use.first_used);
    if (counters.last_used != 0)
        out->last_used = xfrm_real_time(counters.last_used);
    out->replayed = (uint32_t)counters.replayed;
    out->too_old = (uint32_t)counters.too_old;
    out->failed = (uint32_t)counters.failed;
}

/* --- limits --- */

static uint64_t limit_of(uint64_t limit) {
    return limit == XFRM_INF ? 0 : limit;
}

static void set_limits(struct ipsec_sa_settings *out, const struct xfrm_lifetime_cfg *limits) {
    out->soft = (struct ipsec_sa_limits){
        .bytes = limit_of(limits->soft_byte_limit),
        .packets = limit_of(limits->soft_packet_limit),
        .seconds = limit_of(limits->soft_add_expires_seconds),
        .use_seconds = limit_of(limits->soft_use_expires_seconds),
    };
    out->hard = (struct ipsec_sa_limits){
        .bytes = limit_of(limits->hard_byte_limit),
        .packets = limit_of(limits->hard_packet_limit),
        .seconds = limit_of(limits->hard_add_expires_seconds),
        .use_seconds = limit_of(limits->hard_use_expires_seconds),
    };
}

static void limit_reached(const struct ipsec_sa *sa, bool hard) {
    const struct ipsec_sa_settings *settings = ipsec_sa_settings(sa);
    const struct xfrm_sa_key key = {settings->spi, settings->destination};
    char buffer[XFRM_MESSAGE_MAX] __attribute__((aligned(16)));
    struct xfrm_sa_record *record = find(&key);
    struct xfrm_sa_state state;

    if (!record)
        return;
    xfrm_sad_state(record, &state);
    xfrm_notify(XFRMNLGRP_EXPIRE, xfrm_write_expire(buffer, &record->sa, &state, hard));
    if (hard)
        delete_record(record);
}

static void timer_expired(struct event_timer *timer) {
    remove_record(timer->context);
}

/* --- peers behind a NAT --- */

/* A peer's packets may come from two places in turn for a while; the daemon need not hear of
 * each. */
static void check_source(struct xfrm_sa_record *record) {
    const struct ipsec_sa *sa = in_force(record);
    char buffer[XFRM_MESSAGE_MAX] __attribute__((aligned(16)));
    struct ip_address source;
    uint16_t port;

    if (!sa || (record->moved != 0 && event_now() - record->moved < MOVED_MSEC) ||
        !ipsec_sa_new_source(sa, &source, &port))
        return;
    record->moved = event_now();
    xfrm_notify(XFRMNLGRP_MAPPING, xfrm_write_mapping(buffer, &record->sa, &source, port));
}

bool xfrm_sad_poll(void) {
    struct xfrm_sa_record *record;

    TAILQ_FOREACH (record, &polled, polled)
        check_source(record);
    return !TAILQ_EMPTY(&polled);
}

/* --- SPIs --- */

static bool is_free(const struct xfrm_sa_key *key) {
    return !find(key) && !ipsec_sa_find(key->spi, IPSEC_IN, &key->destination);
}

static int choose_spi(const struct xfrm_spi_request *request, struct xfrm_sa_key *out) {
    uint32_t least = request->least < IPSEC_SPI_FIRST ? IPSEC_SPI_FIRST : request->least;
    uint64_t number, choices = (uint64_t)request->most - least + 1;

    out->destination = request->destination;
    for (unsigned i = 0; i < ALLOCATE_ATTEMPTS; i++) {
        if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
            return -EAGAIN;
        out->spi = least + (uint32_t)(number % choices);
        if (is_free(out))
            return 0;
    }
    return -ENOENT;
}

int xfrm_sad_allocate(const struct xfrm_spi_request *request, const struct xfrm_sa_record **out) {
    struct xfrm_sa_record *record;
    struct xfrm_sa_key key;
    int error;

    if (larval_count == LARVAL_MAX)
        return -ENOSPC;
    error = choose_spi(request, &key);
    if (error)
        return error;
    record = add_record(&key);
    if (!record)
        return -ENOMEM;
    set_larval(record, true);
    record->sa.info = request->info;
    record->sa.info.id.spi = htonl(key.spi);
    event_timer_start(&record->timer, LARVAL_MSEC);
    *out = record;
    return 0;
}

/* --- adding --- */

static enum ipsec_direction direction_of(const struct xfrm_sa *sa,
                                         const struct xfrm_sa_record *record, bool update) {
    if (sa->has_direction)
        return sa->settings.direction;
    if (record && !record->larval)
        return record->sa.settings.direction;
    if (record || update)
        return IPSEC_IN; /* who sends chose its SPI elsewhere */
    return xfrm_local_vrf(&sa->settings.destination) >= 0 &&
                   xfrm_local_vrf(&sa->settings.source) < 0
               ? IPSEC_IN
               : IPSEC_OUT;
}

static bool same_keys(const struct ipsec_sa_settings *a, const struct ipsec_sa_settings *b) {
    return a->cipher == b->cipher && a->auth == b->auth &&
           memcmp(a->key, b->key, sizeof(a->key)) == 0 &&
           memcmp(a->auth_key, b->auth_key, sizeof(a->auth_key)) == 0;
}

/* ipsec_sa_add() zeroes the keys that it is given, and the record keeps its own. */
static int put_in_force(const struct ipsec_sa_settings *settings) {
    struct ipsec_sa_settings copy = *settings;

    return ipsec_sa_add(&copy, IPSEC_OF_IKE);
}

/* What workers may still send by an association while another one is about to take its place. */
enum { NUMBERS_UNDER_WAY = 1 << 15 };

static uint64_t sequence_behind(const struct ipsec_sa *sa, enum ipsec_direction direction) {
    return ipsec_sa_sequence(sa) + (direction == IPSEC_OUT ? NUMBERS_UNDER_WAY : 0);
}

/* An association with the same keys goes on where the one before it is, or further on if the daemon
 * says so, but never before: numbers must not come twice, in either direction. What the daemon says
 * is what it has asked for a while ago. */
static void go_on(struct xfrm_sa *sa, const struct xfrm_sa_record *before) {
    const struct ipsec_sa *old = before ? in_force(before) : NULL;
    const struct xfrm_lifetime_cur *use = &sa->use;

    if (sa->has_replay)
        sa->settings.sequence = sa->settings.direction == IPSEC_OUT ? sa->sent : sa->received;
    if (sa->has_use)
        sa->settings.before = (struct ipsec_sa_use){
            .bytes = use->bytes,
            .packets = use->packets,
            .added = use->add_time != 0 ? monotonic_time(use->add_time) : 0,
            .first_used = use->use_time != 0 ? monotonic_time(use->use_time) : 0,
        };
    if (!old || !same_keys(&sa->settings, &before->sa.settings))
        return;
    sa->settings.sequence =
        RTE_MAX(sa->settings.sequence, sequence_behind(old, sa->settings.direction));
    if (!sa->has_use)
        ipsec_sa_use(old, &sa->settings.before);
}

static int replace(struct xfrm_sa_record *record, const struct xfrm_sa *sa) {
    struct ipsec_sa_settings old = record->sa.settings;
    const struct ipsec_sa *before = in_force(record);
    int error;

    if (before) {
        old.sequence = sequence_behind(before, old.direction);
        ipsec_sa_use(before, &old.before);
    }
    take_out_of_force(record);
    error = put_in_force(&sa->settings);
    if (error && before && put_in_force(&old) != 0)
        remove_record(record);
    explicit_bzero(&old, sizeof(old));
    return error;
}

static int put(struct xfrm_sa *sa, bool update) {
    struct xfrm_sa_key key = {.spi = sa->settings.spi, .destination = sa->settings.destination};
    struct xfrm_sa_record *record = find(&key);
    bool is_new = !record;
    int vrf, error;

    sa->settings.direction = direction_of(sa, record, update);
    vrf = xfrm_local_vrf(sa->settings.direction == IPSEC_IN ? &sa->settings.destination
                                                            : &sa->settings.source);
    sa->settings.vrf = vrf < 0 ? 0 : (uint16_t)vrf;
    if (sa->settings.direction == IPSEC_IN && sa->settings.destination_port != 0 &&
        sa->settings.destination_port != ESP_PORT)
        return -EOPNOTSUPP; /* where the router does not look for it */
    go_on(sa, record);
    set_limits(&sa->settings, &sa->info.lft);
    ipsec_ike_limit_reached = limit_reached;
    if (is_new)
        record = add_record(&key);
    if (!record)
        return -ENOMEM;
    error = is_new || record->larval ? put_in_force(&sa->settings) : replace(record, sa);
    if (error) {
        if (is_new)
            remove_record(record);
        return error;
    }
    set_larval(record, false);
    event_timer_stop(&record->timer);
    record->sa = *sa;
    /* What was left to the algorithm, or cut to what there is. */
    record->sa.settings.icv = ipsec_sa_settings(in_force(record))->icv;
    set_polled(record, sa->settings.direction == IPSEC_IN && sa->settings.source_port != 0);
    return 0;
}

int xfrm_sad_put(struct xfrm_sa *sa, bool update) {
    int error = put(sa, update);

    explicit_bzero(sa->settings.key, sizeof(sa->settings.key));
    explicit_bzero(sa->settings.auth_key, sizeof(sa->settings.auth_key));
    return error;
}

int xfrm_sad_set_replay(const struct xfrm_sa_key *key, const struct xfrm_sa *from) {
    struct xfrm_sa_record *record = find(key);
    struct xfrm_sa sa;

    if (!record || record->larval)
        return -ESRCH;
    sa = record->sa;
    sa.has_replay = from->has_replay;
    sa.sent = from->sent;
    sa.received = from->received;
    sa.has_use = from->has_use;
    sa.use = from->use;
    return xfrm_sad_put(&sa, false);
}
