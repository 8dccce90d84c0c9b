/*
 * The event loop: timers fire in order and once, descriptors may be removed by any callback.
 *
 * Time is moved with event_advance(), so nothing here depends on how fast the machine is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/event.h"

enum { HOUR = 3600 * 1000 };

static int make_loop(void **state) {
    (void)state;
    return event_init();
}

static int free_loop(void **state) {
    (void)state;
    event_free();
    return 0;
}

/* ---- timers ---- */

struct probe {
    struct event_timer timer;
    uint64_t order; /* of the start, to check ties */
    int fired;
};

static uint64_t last_deadline, last_order;
static int fired_total;

static void probe_expired(struct event_timer *timer) {
    struct probe *probe = timer->context;
    assert_false(event_timer_armed(timer));
    assert_true(timer->deadline <= event_now());
    assert_true(timer->deadline > last_deadline ||
                (timer->deadline == last_deadline && probe->order > last_order));
    last_deadline = timer->deadline;
    last_order = probe->order;
    probe->fired++;
    fired_total++;
}

static void ten_thousand_random_timers(void **state) {
    (void)state;
    enum { COUNT = 10000, SPAN = 5000 }; /* half of them share a deadline with another */
    struct probe *probes = calloc(COUNT, sizeof(*probes));
    bool *stopped = calloc(COUNT, sizeof(*stopped));
    assert_non_null(probes);
    assert_non_null(stopped);
    last_deadline = last_order = 0;
    fired_total = 0;
    uint64_t starts = 0;
    srand(2);
    for (int i = 0; i < COUNT; i++) {
        probes[i].timer = (struct event_timer){.expired = probe_expired, .context = &probes[i]};
        probes[i].order = ++starts;
        event_timer_start(&probes[i].timer, HOUR + (uint64_t)(rand() % SPAN));
        assert_true(event_timer_armed(&probes[i].timer));
    }
    /* Move some to another time, stop some, stop and start some. */
    for (int n = 0; n < COUNT; n++) {
        int i = rand() % COUNT;
        int what = rand() % 3;
        stopped[i] = what == 0;
        if (what != 1)
            event_timer_stop(&probes[i].timer);
        if (what != 0) {
            probes[i].order = ++starts;
            event_timer_start(&probes[i].timer, HOUR + (uint64_t)(rand() % SPAN));
        }
        assert_int_equal(event_timer_armed(&probes[i].timer), !stopped[i]);
    }
    assert_int_equal(event_turn(0), 0); /* nothing is due for an hour */

    int run = 0;
    event_advance(HOUR - 1000);
    for (int i = 0; i < 100; i++) {
        event_advance((SPAN + 2000) / 100);
        run += event_turn(0);
    }
    int expected = 0;
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(probes[i].fired, !stopped[i]);
        assert_false(event_timer_armed(&probes[i].timer));
        expected += !stopped[i];
    }
    assert_int_equal(fired_total, expected);
    assert_int_equal(run, expected);
    free(stopped);
    free(probes);
}

static int ticks;

static void rearm_at_once(struct event_timer *timer) {
    ticks++;
    event_timer_start(timer, 0);
}

static void rearming_timer_takes_turns(void **state) {
    (void)state;
    struct event_timer timer = {.expired = rearm_at_once};
    ticks = 0;
    event_timer_start(&timer, 0);
    for (int i = 1; i <= 5; i++) {
        assert_int_equal(event_turn(-1), 1);
        assert_int_equal(ticks, i);
    }
    event_timer_stop(&timer);
    event_timer_stop(&timer);
    assert_int_equal(event_turn(0), 0);
}

static void count_tick(struct event_timer *timer) {
    (void)timer;
    ticks++;
}

static void stop_other(struct event_timer *timer) {
    ticks++;
    event_timer_stop(timer->context);
}

static void free_other(struct event_timer *timer) {
    struct event_timer **other = timer->context;
    event_timer_stop(*other);
    free(*other);
    *other = NULL;
    ticks++;
}

static void timer_stops_another_that_is_due(void **state) {
    (void)state;
    struct event_timer other = {.expired = count_tick};
    struct event_timer first = {.expired = stop_other, .context = &other};
    struct event_timer *heap = calloc(1, sizeof(*heap));
    assert_non_null(heap);
    heap->expired = count_tick;
    struct event_timer second = {.expired = free_other, .context = &heap};
    ticks = 0;
    event_timer_start(&first, 10);
    event_timer_start(&other, 10);
    event_timer_start(&second, 10);
    event_timer_start(heap, 10);
    event_advance(HOUR);
    assert_int_equal(event_turn(0), 2);
    assert_int_equal(ticks, 2);
    assert_null(heap);
    assert_false(event_timer_armed(&other));
}

static void free_self(struct event_timer *timer) {
    ticks++;
    free(timer);
}

static void timer_frees_itself(void **state) {
    (void)state;
    ticks = 0;
    for (int i = 0; i < 10; i++) {
        struct event_timer *timer = calloc(1, sizeof(*timer));
        assert_non_null(timer);
        timer->expired = free_self;
        event_timer_start(timer, 1);
    }
    event_advance(2);
    assert_int_equal(event_turn(0), 10);
    assert_int_equal(ticks, 10);
}

static void far_deadlines_do_not_wrap(void **state) {
    (void)state;
    struct event_timer timer = {.expired = count_tick};
    ticks = 0;
    event_timer_start(&timer, UINT64_MAX);
    assert_int_equal(timer.deadline, UINT64_MAX);
    assert_int_equal(event_turn(0), 0);
    assert_int_equal(event_turn(1), 0);
    event_timer_stop(&timer);
}

static void clock_moves_forward(void **state) {
    (void)state;
    uint64_t start = event_now();
    event_advance(12345);
    assert_in_range(event_now() - start, 12345, 12345 + HOUR / 60);
    assert_int_equal(event_init(), -EALREADY);
}

static void waiting_ends_with_a_timer(void **state) {
    (void)state;
    struct event_timer timer = {.expired = count_tick};
    ticks = 0;
    uint64_t start = event_now();
    event_timer_start(&timer, 20);
    assert_int_equal(event_turn(-1), 1); /* waits for real */
    assert_true(event_now() - start >= 20);
    assert_int_equal(ticks, 1);
}

static void free_disarms(void **state) {
    (void)state;
    assert_int_equal(event_init(), 0);
    struct event_timer timer = {.expired = count_tick};
    event_timer_start(&timer, 10);
    event_free();
    assert_false(event_timer_armed(&timer));
    event_timer_stop(&timer);
    assert_int_equal(event_init(), 0);
    event_advance(HOUR);
    assert_int_equal(event_turn(0), 0);
    event_free();
}

/* ---- descriptors ---- */

enum { WATCHED = 100 }; /* more than one batch of the loop */

struct watched {
    struct event_fd event;
    int runs;
};

static struct watched *watched[WATCHED];
static int destroyed;

static void destroy(int i) {
    event_fd_remove(&watched[i]->event);
    close(watched[i]->event.fd);
    free(watched[i]);
    watched[i] = NULL;
    destroyed++;
}

static struct watched *make_ready(void (*ready)(struct event_fd *, uint32_t)) {
    struct watched *new = calloc(1, sizeof(*new));
    assert_non_null(new);
    new->event = (struct event_fd){.fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC), .ready = ready};
    assert_true(new->event.fd >= 0);
    assert_int_equal(event_fd_add(&new->event, EPOLLIN), 0);
    return new;
}

/* The first to run destroys all, itself included. */
static void destroy_all(struct event_fd *self, uint32_t events) {
    (void)self;
    assert_int_equal(events, EPOLLIN);
    for (int i = 0; i < WATCHED; i++)
        destroy(i);
}

static void callback_destroys_the_whole_batch(void **state) {
    (void)state;
    destroyed = 0;
    for (int i = 0; i < WATCHED; i++)
        watched[i] = make_ready(destroy_all);
    assert_int_equal(event_turn(0), 1);
    assert_int_equal(destroyed, WATCHED);
    assert_int_equal(event_turn(0), 0);
}

/* Destroys a random one that is left, perhaps itself, and puts a new one in its place: often at the
 * same address, whose stale event must not reach it. */
static int made;

static void first_run(struct event_fd *self, uint32_t events);

static void replace_random(struct event_fd *self, uint32_t events) {
    (void)events;
    ((struct watched *)(void *)self)->runs++;
    int i = rand() % WATCHED;
    destroy(i);
    watched[i] = make_ready(first_run);
    made++;
}

static void first_run(struct event_fd *self, uint32_t events) {
    (void)events;
    (void)self;
    fail_msg("an event of an earlier turn reached a new descriptor");
}

static void stale_events_do_not_reach_new_descriptors(void **state) {
    (void)state;
    srand(3);
    for (int round = 0; round < 50; round++) {
        made = 0;
        for (int i = 0; i < 60; i++) /* one batch, so that no new one is due in this turn */
            watched[i] = make_ready(replace_random);
        for (int i = 60; i < WATCHED; i++) {
            watched[i] = make_ready(replace_random);
            uint64_t value;
            assert_int_equal(read(watched[i]->event.fd, &value, sizeof(value)), sizeof(value));
        }
        int run = event_turn(0);
        assert_int_equal(run, made);
        assert_true(run > 0 && run <= 60);
        for (int i = 0; i < WATCHED; i++)
            destroy(i);
    }
}

static void count_run(struct event_fd *self, uint32_t events) {
    (void)events;
    ((struct watched *)(void *)self)->runs++;
}

static void every_ready_descriptor_gets_its_turn(void **state) {
    (void)state;
    for (int i = 0; i < WATCHED; i++)
        watched[i] = make_ready(count_run);
    for (int turn = 0; turn < 4; turn++)
        assert_int_equal(event_turn(0), 64);
    for (int i = 0; i < WATCHED; i++) {
        assert_in_range(watched[i]->runs, 2, 3); /* level-triggered, and in rotation */
        destroy(i);
    }
}

static void modify_other(struct event_fd *self, uint32_t events) {
    (void)events;
    ((struct watched *)(void *)self)->runs++;
    for (int i = 0; i < 2; i++) {
        if (&watched[i]->event != self)
            assert_int_equal(event_fd_modify(&watched[i]->event, 0), 0);
    }
}

static void modified_events_count_at_once(void **state) {
    (void)state;
    watched[0] = make_ready(modify_other);
    watched[1] = make_ready(modify_other);
    assert_int_equal(event_turn(0), 1);
    assert_int_equal(watched[0]->runs + watched[1]->runs, 1);
    assert_int_equal(event_fd_modify(&watched[0]->event, EPOLLOUT), 0);
    assert_int_equal(event_fd_modify(&watched[1]->event, 0), 0);
    assert_int_equal(event_turn(0), 1);
    destroy(0);
    destroy(1);
}

static void descriptor_before_timer(struct event_fd *self, uint32_t events) {
    (void)events;
    event_timer_stop(self->context);
    event_fd_remove(self);
}

static void waiting_data_beats_a_due_timer(void **state) {
    (void)state;
    struct event_timer timer = {.expired = count_tick};
    ticks = 0;
    watched[0] = make_ready(descriptor_before_timer);
    watched[0]->event.context = &timer;
    event_timer_start(&timer, 1);
    event_advance(HOUR);
    assert_int_equal(event_turn(0), 1);
    assert_int_equal(ticks, 0);
    event_fd_remove(&watched[0]->event); /* again: harmless */
    destroy(0);
}

static void nest(struct event_fd *self, uint32_t events) {
    (void)events;
    assert_int_equal(event_turn(-1), 0);
    event_fd_remove(self);
}

static void nested_turns_do_nothing(void **state) {
    (void)state;
    watched[0] = make_ready(nest);
    assert_int_equal(event_turn(0), 1);
    destroy(0);
}

static void wrong_descriptors_are_refused(void **state) {
    (void)state;
    struct event_fd none = {.fd = -1, .ready = nest};
    assert_int_equal(event_fd_add(&none, EPOLLIN), -EBADF);
    watched[0] = make_ready(nest);
    assert_int_equal(event_fd_add(&watched[0]->event, EPOLLIN), -EEXIST);
    event_fd_remove(&watched[0]->event);
    assert_int_equal(event_fd_modify(&watched[0]->event, EPOLLIN), -ENOENT);
    destroy(0);
}

static volatile sig_atomic_t signals;

static void on_signal(int number) {
    (void)number;
    signals++;
}

static void signal_ends_the_wait(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = on_signal}, before;
    sigaction(SIGALRM, &action, &before);
    signals = 0;
    /* Repeats, in case the first one comes before the wait has begun. */
    struct itimerval soon = {.it_value.tv_usec = 20000, .it_interval.tv_usec = 20000}, off = {0};
    setitimer(ITIMER_REAL, &soon, NULL);
    assert_int_equal(event_turn(-1), 0);
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGALRM, &before, NULL);
    assert_true(signals > 0);
}

#define LOOP_TEST(test) cmocka_unit_test_setup_teardown(test, make_loop, free_loop)

int main(void) {
    const struct CMUnitTest tests[] = {
        LOOP_TEST(ten_thousand_random_timers),
        LOOP_TEST(rearming_timer_takes_turns),
        LOOP_TEST(timer_stops_another_that_is_due),
        LOOP_TEST(timer_frees_itself),
        LOOP_TEST(far_deadlines_do_not_wrap),
        LOOP_TEST(clock_moves_forward),
        LOOP_TEST(waiting_ends_with_a_timer),
        cmocka_unit_test(free_disarms),
        LOOP_TEST(callback_destroys_the_whole_batch),
        LOOP_TEST(stale_events_do_not_reach_new_descriptors),
        LOOP_TEST(every_ready_descriptor_gets_its_turn),
        LOOP_TEST(modified_events_count_at_once),
        LOOP_TEST(waiting_data_beats_a_due_timer),
        LOOP_TEST(nested_turns_do_nothing),
        LOOP_TEST(wrong_descriptors_are_refused),
        LOOP_TEST(signal_ends_the_wait),
    };
    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
