/* The control side of sessions: their memory, the clock, the settings. */
#include <errno.h>
#include <stdlib.h>

#include "core/event.h"
#include "core/log.h"
#include "core/rcu.h"
#include "l3/icmp.h"
#include "session/session_event.h"
#include "session/session_internal.h"

static const char *const reasons[] = {
    [SESSION_DROP_TRUNCATED] = "truncated",
    [SESSION_DROP_SPLIT_HEADER] = "split_header",
    [SESSION_DROP_TCP_FLAGS] = "tcp_flags",
    [SESSION_DROP_TCP_NO_SESSION] = "tcp_no_session",
    [SESSION_DROP_TCP_OUT_OF_STATE] = "tcp_out_of_state",
    [SESSION_DROP_ICMP_CHECKSUM] = "icmp_checksum",
    [SESSION_DROP_ICMP_QUOTE] = "icmp_quote",
    [SESSION_DROP_FRAGMENT_TINY] = "fragment_tiny",
    [SESSION_DROP_FRAGMENT_OVERLAP] = "fragment_overlap",
    [SESSION_DROP_FRAGMENT_TIMEOUT] = "fragment_timeout",
    [SESSION_DROP_FRAGMENT_TABLE_FULL] = "fragment_table_full",
    [SESSION_DROP_FRAGMENT_REFUSED] = "fragment_refused",
    [SESSION_DROP_TABLE_FULL] = "table_full",
    [SESSION_DROP_BUCKET_FULL] = "bucket_full",
    [SESSION_DROP_BUSY] = "busy",
    [SESSION_DROP_CONFLICT] = "conflict",
    [SESSION_DROP_SOURCE_LIMIT] = "source_limit",
    [SESSION_DROP_SOURCE_RATE] = "source_rate",
    [SESSION_DROP_NO_HEADROOM] = "no_headroom",
    [SESSION_DROP_FAMILY_HEADER] = "family_header",
    [SESSION_DROP_FAMILY_ICMP] = "family_icmp",
    [SESSION_DROP_FAMILY_NO_CHECKSUM] = "family_no_checksum",
    [SESSION_DROP_FAMILY_LENGTH] = "family_length",
    NULL,
};
/* Not the stage's own group: other stages count here as well. */
struct drop_group session_drops = {.name = "session", .reasons = reasons};
DROP_GROUP(session_drops)

struct session_limits session_limits;
_Atomic uint32_t session_clock;
static uint32_t wanted_size = SESSIONS_DEFAULT, actual_size;

/* --- the clock --- */

static struct event_timer clock_timer;

static void turn_clock(struct event_timer *timer) {
    atomic_store_explicit(&session_clock, (uint32_t)(event_now() * SESSION_TICKS / 1000),
                          memory_order_relaxed);
    event_timer_start(timer, 1000 / SESSION_TICKS);
}

/* --- memory --- */

static int make_workers(void) {
    unsigned count = workers_count();

    session_workers = aligned_alloc(RTE_CACHE_LINE_SIZE, count * sizeof(*session_workers));
    if (!session_workers)
        return -ENOMEM;
    memset(session_workers, 0, count * sizeof(*session_workers));
    for (unsigned i = 0; i < count; i++) {
        session_workers[i].half_open = calloc(HALF_OPEN_MAX, sizeof(struct half_open));
        session_workers[i].fragments = session_fragments_create();
        if (!session_workers[i].half_open || !session_workers[i].fragments)
            return -ENOMEM;
    }
    return 0;
}

static void free_workers(void) {
    for (unsigned i = 0; session_workers && i < workers_count(); i++) {
        free(session_workers[i].half_open);
        session_fragments_free(session_workers[i].fragments);
    }
    free(session_workers);
    session_workers = NULL;
}

void session_prepare_settings(const struct session_settings *settings) {
    wanted_size = settings->size;
}

int session_need(struct problems *problems) {
    if (session_flows)
        return 0;
    if (session_table_create(wanted_size, workers_count()) != 0 || make_workers() != 0 ||
        session_source_create() != 0) {
        session_free();
        problems_add(problems, "$.sessions.size", "there is no memory for %u sessions",
                     wanted_size);
        return -ENOMEM;
    }
    actual_size = wanted_size;
    icmp_restore = session_restore;
    clock_timer.expired = turn_clock;
    turn_clock(&clock_timer);
    return 0;
}

void session_free(void) {
    event_timer_stop(&clock_timer);
    session_events_free();
    if (session_flows) {
        session_table_hide();
        rcu_synchronize();
    }
    session_table_free();
    session_source_free();
    free_workers();
    actual_size = 0;
}

/* --- settings --- */

void session_tell_size(void) {
    if (actual_size != 0 && wanted_size != actual_size)
        log_notice("session",
                   "the new size of the session table is used when it is made anew: when "
                   "the router starts, or firewall and NAT were off meanwhile");
}

void session_set(const struct session_settings *settings) {
    for (unsigned state = 0; state < SESSION_STATES; state++)
        atomic_store(&session_limits.timeout[state], settings->timeouts[state] * SESSION_TICKS);
    if (actual_size != 0 && session_events_set(settings->events, workers_count()) != 0)
        log_error("session", "there is no memory for session events");
    atomic_store(&session_limits.tcp_pickup, settings->tcp_pickup);
    atomic_store(&session_limits.per_source, settings->per_source);
    atomic_store(&session_limits.rate_per_source, settings->rate_per_source);
}

/* --- looking at them --- */

void session_totals(struct session_totals *out) {
    *out = (struct session_totals){.most = actual_size};
    for (unsigned i = 0; session_workers && i < workers_count(); i++) {
        out->opened += session_workers[i].opened;
        out->ended += session_workers[i].ended;
        out->evicted += session_workers[i].evicted;
    }
    out->alive = (uint32_t)(out->opened - RTE_MIN(out->opened, out->ended));
}

void session_walk(uint32_t *cursor, uint32_t max,
                  bool (*visit)(uint32_t number, const struct session *session, void *context),
                  void *context) {
    uint32_t top = session_flows ? session_table_top() : 0;
    uint32_t number = RTE_MAX(*cursor, UINT32_C(1));

    for (; number < top && max > 0; number++, max--) {
        if (__atomic_load_n(&sessions[number].state, __ATOMIC_ACQUIRE) > SESSION_ENDING &&
            !(session_flows[number * 2].flags & FLOW_DEAD) &&
            !visit(number, &sessions[number], context))
            break;
    }
    *cursor = number < top ? number : 0;
}

/* --- who builds on sessions --- */

enum { WANTERS_MAX = 4 };
static bool (*wanters[WANTERS_MAX])(void);

void session_want(bool (*wanted)(void)) {
    for (unsigned i = 0; i < WANTERS_MAX; i++) {
        if (!wanters[i]) {
            wanters[i] = wanted;
            return;
        }
    }
}

bool session_wanted(void) {
    for (unsigned i = 0; i < WANTERS_MAX && wanters[i]; i++) {
        if (wanters[i]())
            return session_flows != NULL;
    }
    return false;
}

static void (*lookers[WANTERS_MAX])(void);

void session_on_look_again(void (*look)(void)) {
    for (unsigned i = 0; i < WANTERS_MAX; i++) {
        if (!lookers[i]) {
            lookers[i] = look;
            return;
        }
    }
}

void session_look_again(void) {
    for (unsigned i = 0; i < WANTERS_MAX && lookers[i]; i++)
        lookers[i]();
}
