/*
 * The end of sessions: a sweep over the numbers in use, a few at each turn of a worker, so that
 * none is looked at much later than two seconds after it became due and no turn takes long. It
 * walks memory in order, which the hardware fetches ahead of it: 30 ns per session, where a wheel
 * of timers would touch memory at random whenever a session is moved on it.
 */
#include <errno.h>

#include "session/session_event.h"
#include "session/session_internal.h"

enum {
    SWEEP_TICKS = 20,   /* a whole round */
    SWEEP_AT_ONCE = 16, /* numbers per turn */
    SWEEP_CHUNK = 64,   /* consecutive numbers that one worker sweeps */
};

/* --- one session --- */

bool session_close(struct worker *worker, uint32_t number, const char *reason) {
    struct session *session = &sessions[number];
    uint8_t state = __atomic_load_n(&session->state, __ATOMIC_ACQUIRE);

    if (state <= SESSION_ENDING ||
        !__atomic_compare_exchange_n(&session->state, &state, SESSION_ENDING, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return false;
    /* A flow that an earlier attempt has taken out already is not there; that is no fault. */
    if (session_table_remove(number * 2) == -EBUSY ||
        session_table_remove(number * 2 + 1) == -EBUSY) {
        __atomic_fetch_or(&session_flows[number * 2].flags, FLOW_DEAD, __ATOMIC_RELAXED);
        __atomic_fetch_or(&session_flows[number * 2 + 1].flags, FLOW_DEAD, __ATOMIC_RELAXED);
        __atomic_store_n(&session->state, state, __ATOMIC_RELEASE);
        return false;
    }
    session_event(worker->index, number, SESSION_EVENT_END, reason);
    session_source_give(session->source);
    if (session->mapping != 0 && session_translator_of_all())
        session_translator_of_all()->ended(session->mapping);
    session_workers[worker->index].ended++;
    session_give(worker->index, number);
    return true;
}

/* --- the sweep --- */

static void sweep_one(struct worker *worker, uint32_t number, uint32_t now) {
    uint8_t state = __atomic_load_n(&sessions[number].state, __ATOMIC_ACQUIRE);
    uint32_t timeout;

    if (state <= SESSION_ENDING)
        return;
    timeout = atomic_load_explicit(&session_limits.timeout[state], memory_order_relaxed);
    if (session_flows[number * 2].flags & FLOW_DEAD)
        session_close(worker, number, "ended");
    else if (session_idle(number, now) >= timeout)
        session_close(worker, number, "timeout");
}

/* The next number that this worker sweeps. */
static uint32_t sweep_after(const struct worker *worker, uint32_t number) {
    number++;
    if (number % SWEEP_CHUNK == 0)
        number += (workers_count() - 1) * SWEEP_CHUNK;
    return number >= session_table_top() ? worker->index * SWEEP_CHUNK : number;
}

void session_sweep(struct worker *worker) {
    struct session_worker *own = &session_workers[worker->index];
    uint32_t now = atomic_load_explicit(&session_clock, memory_order_relaxed);

    if (own->sweep_tick != now) {
        uint32_t ticks = RTE_MIN(now - own->sweep_tick, (uint32_t)SWEEP_TICKS);
        uint32_t mine = session_table_top() / workers_count() + SWEEP_CHUNK;

        own->sweep_tick = now;
        own->sweep_left = RTE_MIN(own->sweep_left + (mine / SWEEP_TICKS + 1) * ticks, mine);
    }
    for (unsigned i = 0; i < SWEEP_AT_ONCE && own->sweep_left > 0; i++) {
        if (own->sweep_next < session_table_top())
            sweep_one(worker, own->sweep_next, now);
        own->sweep_next = sweep_after(worker, own->sweep_next);
        own->sweep_left--;
    }
}

/* --- half-open sessions --- */

void session_remember_half_open(struct session_worker *own, uint32_t number) {
    uint32_t at = (own->half_open_first + own->half_open_count) % HALF_OPEN_MAX;

    own->half_open[at] = (struct half_open){.number = number, .serial = sessions[number].serial};
    if (own->half_open_count < HALF_OPEN_MAX)
        own->half_open_count++;
    else
        own->half_open_first = (own->half_open_first + 1) % HALF_OPEN_MAX;
}

/* Has nothing come back yet? Such a session makes room for others. */
static bool waits_for_answer(uint32_t number) {
    switch (__atomic_load_n(&sessions[number].state, __ATOMIC_ACQUIRE)) {
    case SESSION_TCP_OPENING:
    case SESSION_TCP_ANSWERED:
    case SESSION_UDP_NEW:
        return true;
    case SESSION_ICMP:
    case SESSION_OTHER:
        return __atomic_load_n(&session_flows[number * 2 + 1].packets, __ATOMIC_RELAXED) == 0;
    default:
        return false;
    }
}

static bool is_half_open(const struct half_open *entry) {
    return sessions[entry->number].serial == entry->serial && waits_for_answer(entry->number);
}

bool session_evict(struct worker *worker) {
    enum { ENTRIES_AT_ONCE = 64 };
    struct session_worker *own = &session_workers[worker->index];

    for (unsigned i = 0; i < ENTRIES_AT_ONCE && own->half_open_count > 0; i++) {
        struct half_open entry = own->half_open[own->half_open_first];

        own->half_open_first = (own->half_open_first + 1) % HALF_OPEN_MAX;
        own->half_open_count--;
        if (is_half_open(&entry) && session_close(worker, entry.number, "evicted")) {
            own->evicted++;
            return true;
        }
    }
    return false;
}

void session_end(uint32_t number) {
    __atomic_fetch_or(&session_flows[number * 2].flags, FLOW_DEAD, __ATOMIC_RELAXED);
    __atomic_fetch_or(&session_flows[number * 2 + 1].flags, FLOW_DEAD, __ATOMIC_RELAXED);
}
