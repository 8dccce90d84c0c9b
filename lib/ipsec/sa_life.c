/* See sa_life.h. */
#include "ipsec/sa_life.h"

#include <rte_common.h>

enum {
    MSEC = 1000,
    POLL_MSEC = 500,
    RECHECK_MSEC_MAX = 1 << 30, /* longer waits come in pieces */
};

TAILQ_HEAD(life_list, sa_life);

static struct life_list polled = TAILQ_HEAD_INITIALIZER(polled); /* have limits by use */

void sa_life_use(struct sa_life *life, struct ipsec_sa_use *out) {
    struct ipsec_sa_counters counters = {0};

    life->count(life, &counters);
    if (life->first_used == 0)
        life->first_used = life->before.first_used;
    if (life->first_used == 0 && counters.packets > 0)
        life->first_used = counters.last_used ? counters.last_used : event_now();
    *out = (struct ipsec_sa_use){
        .bytes = life->before.bytes + counters.bytes,
        .packets = life->before.packets + counters.packets,
        .added = life->before.added,
        .first_used = life->first_used,
    };
}

static bool is_reached(uint64_t limit, uint64_t value) {
    return limit != 0 && value >= limit;
}

static uint64_t seconds_since(uint64_t msec) {
    return msec ? (event_now() - msec) / MSEC : 0;
}

static bool is_any_reached(const struct ipsec_sa_limits *limits, const struct ipsec_sa_use *use) {
    return is_reached(limits->bytes, use->bytes) || is_reached(limits->packets, use->packets) ||
           is_reached(limits->seconds, seconds_since(use->added)) ||
           is_reached(limits->use_seconds, seconds_since(use->first_used));
}

/* The life may be gone afterwards; false: it is over. */
static bool check(struct sa_life *life) {
    struct ipsec_sa_use use;

    sa_life_use(life, &use);
    if (is_any_reached(&life->hard, &use)) {
        if (!life->hard_told) {
            life->hard_told = true;
            life->reached(life, true);
        }
        return false;
    }
    if (!life->soft_told && is_any_reached(&life->soft, &use)) {
        life->soft_told = true;
        life->reached(life, false);
    }
    return true;
}

static void wait_for(const struct sa_life *life, uint64_t seconds, uint64_t *least) {
    uint64_t age = event_now() - life->before.added, due;

    if (seconds == 0)
        return;
    due = seconds < UINT64_MAX / MSEC ? seconds * MSEC : UINT64_MAX;
    due = due > age ? RTE_MIN(due - age, (uint64_t)RECHECK_MSEC_MAX) : 0;
    if (due < *least)
        *least = due;
}

static void arm(struct sa_life *life) {
    uint64_t least = UINT64_MAX;

    if (!life->soft_told)
        wait_for(life, life->soft.seconds, &least);
    wait_for(life, life->hard.seconds, &least);
    if (least != UINT64_MAX)
        event_timer_start(&life->timer, least);
}

static void timer_expired(struct event_timer *timer) {
    struct sa_life *life = timer->context;

    if (check(life))
        arm(life);
}

static void poll_now(struct event_timer *timer) {
    struct sa_life *life = TAILQ_FIRST(&polled), *next;

    for (; life; life = next) {
        next = TAILQ_NEXT(life, polled);
        check(life);
    }
    if (!TAILQ_EMPTY(&polled))
        event_timer_start(timer, POLL_MSEC);
}

static struct event_timer poll_timer = {.expired = poll_now};

static bool is_by_use(const struct ipsec_sa_limits *limits) {
    return limits->bytes != 0 || limits->packets != 0 || limits->use_seconds != 0;
}

void sa_life_begin(struct sa_life *life) {
    life->timer = (struct event_timer){.expired = timer_expired, .context = life};
    life->begun = true;
    life->is_polled = is_by_use(&life->soft) || is_by_use(&life->hard);
    if (life->is_polled) {
        TAILQ_INSERT_TAIL(&polled, life, polled);
        if (!event_timer_armed(&poll_timer))
            event_timer_start(&poll_timer, POLL_MSEC);
    }
    arm(life);
}

void sa_life_end(struct sa_life *life) {
    if (!life->begun)
        return;
    event_timer_stop(&life->timer);
    if (life->is_polled)
        TAILQ_REMOVE(&polled, life, polled);
    life->begun = life->is_polled = false;
    if (TAILQ_EMPTY(&polled))
        event_timer_stop(&poll_timer);
}
