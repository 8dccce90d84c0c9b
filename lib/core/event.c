/*
 * The event loop: level-triggered epoll and a binary heap of timers.
 *
 * Removal in callbacks: epoll_wait() hands out pointers to event_fd structures in a batch, and a
 * callback may remove any of them and free its memory. So the batch is part of the loop's state,
 * and event_fd_remove() strikes the structure from what is left of it.
 *
 * What can go wrong: epoll refuses a descriptor (plain files, for one); that is the caller's to
 * handle. Memory for the heap: a timer that silently never fires is worse than a restart, so that
 * ends the program.
 */
#include "core/event.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BATCH_MAX = 64 };

/* A heap entry repeats the deadline, so that sifting does not touch the timers' memory. */
struct heap_entry {
    uint64_t deadline;
    uint64_t order; /* counts starts: among equal deadlines the earlier start goes first */
    struct event_timer *timer;
};

static struct {
    bool made;
    bool dispatching;
    int epoll_fd;

    struct epoll_event batch[BATCH_MAX];
    int batch_count;
    int batch_next; /* first event of the batch whose callback has not been started */

    struct heap_entry *heap;
    uint32_t timer_count;
    uint32_t timer_capacity;
    uint64_t starts;

    uint64_t now;
    uint64_t advanced; /* what event_advance() has added to the clock */
} loop = {.epoll_fd = -1};

/* ---- the clock ---- */

static void read_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    loop.now = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 + loop.advanced;
}

uint64_t event_now(void) {
    /* Outside a turn the last turn may be long ago: a timer armed then would fire early. */
    if (!loop.dispatching)
        read_clock();
    return loop.now;
}

void event_refresh(void) {
    read_clock();
}

void event_advance(uint64_t msec) {
    loop.advanced += msec;
    loop.now += msec;
}

/* ---- timers ---- */

static bool before(const struct heap_entry *a, const struct heap_entry *b) {
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->order < b->order;
}

static void heap_place(uint32_t index, struct heap_entry entry) {
    loop.heap[index] = entry;
    entry.timer->slot = index + 1;
}

/* Puts the entry into the hole at `index`, moving the hole up or down to where it belongs. */
static void heap_sift(uint32_t index, struct heap_entry entry) {
    while (index > 0 && before(&entry, &loop.heap[(index - 1) / 2])) {
        heap_place(index, loop.heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= loop.timer_count)
            break;
        if (child + 1 < loop.timer_count && before(&loop.heap[child + 1], &loop.heap[child]))
            child++;
        if (!before(&loop.heap[child], &entry))
            break;
        heap_place(index, loop.heap[child]);
        index = child;
    }
    heap_place(index, entry);
}

static void heap_grow(void) {
    uint32_t capacity = loop.timer_capacity == 0 ? 64 : loop.timer_capacity * 2;
    struct heap_entry *heap = realloc(loop.heap, (size_t)capacity * sizeof(*heap));
    if (heap == NULL) {
        fputs("dpdk-router: error: out of memory for a timer\n", stderr);
        abort();
    }
    loop.heap = heap;
    loop.timer_capacity = capacity;
}

void event_timer_start(struct event_timer *self, uint64_t msec) {
    uint64_t now = event_now();
    self->deadline = msec > UINT64_MAX - now ? UINT64_MAX : now + msec;
    if (self->slot == 0) {
        if (loop.timer_count == loop.timer_capacity)
            heap_grow();
        self->slot = ++loop.timer_count;
    }
    heap_sift(
        self->slot - 1,
        (struct heap_entry){.deadline = self->deadline, .order = loop.starts++, .timer = self});
}

void event_timer_stop(struct event_timer *self) {
    if (self->slot == 0)
        return;
    uint32_t index = self->slot - 1;
    self->slot = 0;
    struct heap_entry last = loop.heap[--loop.timer_count];
    if (last.timer != self)
        heap_sift(index, last);
}

static int run_timers(void) {
    /* What the callbacks start from here on has a higher order and is left to the next turn. It
     * cannot hide an older due timer: its deadline is not before `now`. */
    uint64_t now = loop.now, orders = loop.starts;
    int count = 0;
    while (loop.timer_count > 0 && loop.heap[0].deadline <= now && loop.heap[0].order < orders) {
        struct event_timer *timer = loop.heap[0].timer;
        event_timer_stop(timer);
        timer->expired(timer);
        count++;
    }
    return count;
}

/* ---- descriptors ---- */

static int control(int operation, struct event_fd *self, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = self};
    return epoll_ctl(loop.epoll_fd, operation, self->fd, &event) == 0 ? 0 : -errno;
}

/* The structure's event in what is left of the batch, or NULL. */
static struct epoll_event *pending(const struct event_fd *self) {
    for (int i = loop.batch_next; i < loop.batch_count; i++) {
        if (loop.batch[i].data.ptr == self)
            return &loop.batch[i];
    }
    return NULL;
}

int event_fd_add(struct event_fd *self, uint32_t events) {
    return control(EPOLL_CTL_ADD, self, events);
}

int event_fd_modify(struct event_fd *self, uint32_t events) {
    int result = control(EPOLL_CTL_MOD, self, events);
    struct epoll_event *event = result == 0 ? pending(self) : NULL;
    if (event != NULL) {
        event->events &= events | EPOLLERR | EPOLLHUP; /* epoll always reports these two */
        if (event->events == 0)
            event->data.ptr = NULL;
    }
    return result;
}

void event_fd_remove(struct event_fd *self) {
    control(EPOLL_CTL_DEL, self, 0);
    struct epoll_event *event = pending(self);
    if (event != NULL)
        event->data.ptr = NULL;
}

static int run_batch(void) {
    int count = 0;
    while (loop.batch_next < loop.batch_count) {
        const struct epoll_event *event = &loop.batch[loop.batch_next++];
        struct event_fd *fd = event->data.ptr;
        if (fd == NULL)
            continue;
        fd->ready(fd, event->events);
        count++;
    }
    loop.batch_next = loop.batch_count = 0;
    return count;
}

/* ---- the loop ---- */

int event_init(void) {
    if (loop.made)
        return -EALREADY;
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0)
        return -errno;
    loop.epoll_fd = fd;
    loop.made = true;
    return 0;
}

void event_free(void) {
    if (loop.epoll_fd >= 0)
        close(loop.epoll_fd);
    for (uint32_t i = 0; i < loop.timer_count; i++)
        loop.heap[i].timer->slot = 0;
    free(loop.heap);
    loop.heap = NULL;
    loop.timer_count = loop.timer_capacity = 0;
    loop.batch_next = loop.batch_count = 0;
    loop.advanced = 0;
    loop.epoll_fd = -1;
    loop.made = false;
}

/* The caller's timeout, or less when a timer is due earlier. */
static int wait_msec(int timeout_msec) {
    if (loop.timer_count == 0 || timeout_msec == 0)
        return timeout_msec;
    uint64_t deadline = loop.heap[0].deadline;
    uint64_t left = deadline > loop.now ? deadline - loop.now : 0;
    if (timeout_msec > 0 && left > (uint64_t)timeout_msec)
        return timeout_msec;
    return left > INT_MAX ? INT_MAX : (int)left;
}

int event_turn(int timeout_msec) {
    if (loop.dispatching)
        return 0; /* the batch is in use */
    read_clock();
    int ready = epoll_wait(loop.epoll_fd, loop.batch, BATCH_MAX, wait_msec(timeout_msec));
    loop.batch_next = 0;
    loop.batch_count = ready > 0 ? ready : 0; /* EINTR: nothing is ready */

    read_clock();
    loop.dispatching = true;
    int count = run_batch();
    count += run_timers();
    loop.dispatching = false;
    return count;
}
