/*
 * The control thread's event loop: epoll for descriptors, a heap for timers.
 *
 * All calls come from the control thread, callbacks run on it. The loop can also be run one turn
 * at a time with a zero timeout, for tests and for a machine whose only lcore does both jobs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

/* A watched descriptor. Owned by the caller, who must keep it in place until event_fd_remove(). */
struct event_fd {
    int fd;
    void (*ready)(struct event_fd *self, uint32_t epoll_events);
    void *context;
};

/* Starts watching: `events` is EPOLLIN | EPOLLOUT ... (level-triggered). 0 or negative errno. */
int event_fd_add(struct event_fd *self, uint32_t events);
/* Changes the watched events. 0 or negative errno. */
int event_fd_modify(struct event_fd *self, uint32_t events);
/* Stops watching; safe inside any callback, also for descriptors that are ready in the same turn:
 * their callback is not run, and their memory may be freed. The descriptor is not closed; remove it
 * before closing it, or a duplicate of it (in a child, say) stays watched. Harmless when the
 * descriptor is not watched. */
void event_fd_remove(struct event_fd *self);

/* A one-shot timer. Zero-initialise, set `expired` (and `context`), owned by the caller. */
struct event_timer {
    void (*expired)(struct event_timer *self);
    void *context;
    uint64_t deadline; /* event_now() milliseconds; managed by the loop */
    uint32_t slot;     /* place in the heap plus one, 0 = not armed; managed by the loop */
};

/* Arms (or re-arms) the timer to fire once in `msec` milliseconds. Timers with the same deadline
 * fire in the order they were armed. A timer armed by a callback fires in the next turn at the
 * earliest, so one that re-arms itself with 0 does not keep the loop from its descriptors. */
void event_timer_start(struct event_timer *self, uint64_t msec);
/* Disarms; harmless when not armed. */
void event_timer_stop(struct event_timer *self);
static inline bool event_timer_armed(const struct event_timer *self) {
    return self->slot != 0;
}

/* Milliseconds of CLOCK_MONOTONIC: inside callbacks as of this turn of the loop, the same for all
 * of them; outside as of now. Tests may move the clock forward: event_advance() adds to it. */
uint64_t event_now(void);
void event_advance(uint64_t msec);
/* Reads the clock anew, in a callback that has taken long and goes on to start timers. */
void event_refresh(void);

/* Makes the loop, once, before any other call. 0 or negative errno (-EALREADY when it exists).
 * event_free() undoes it: timers are disarmed, descriptors are no longer watched. */
int event_init(void);
void event_free(void);

/* One turn: waits up to `timeout_msec` (-1: until something happens), runs the callbacks of ready
 * descriptors, then of due timers. Returns the number of callbacks run. A signal ends the wait, so
 * that the caller can look at what its handler noted. Not to be called from a callback. */
int event_turn(int timeout_msec);
