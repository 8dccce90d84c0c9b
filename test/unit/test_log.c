/*
 * The log: what stands on stderr and in the ring, rate limits, and many threads at once.
 *
 * What goes to stderr is looked at in child processes, whose stderr is a pipe.
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
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"

static char captured[65536];

/* Runs `body` in a child and collects its stderr in `captured`. `journal` is JOURNAL_STREAM or
 * NULL. */
static void capture(void (*body)(void), const char *journal) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        if (journal != NULL)
            setenv("JOURNAL_STREAM", journal, 1);
        else
            unsetenv("JOURNAL_STREAM");
        body();
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], captured + length, sizeof(captured) - 1 - length)) > 0)
        length += (size_t)got;
    captured[length] = '\0';
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void three_levels(void) {
    log_error("interface", "port %s: %s", "lan0", "no such device");
    log_warning("l3", "text");
    log_info("core", "up");
    log_debug("core", "not shown");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("core", "shown");
    log_set_level(LOG_LEVEL_ERROR);
    log_notice("core", "not shown");
}

static void lines_for_people(void **state) {
    (void)state;
    capture(three_levels, NULL);
    assert_string_equal(captured, "dpdk-router: error: interface: port lan0: no such device\n"
                                  "dpdk-router: warning: l3: text\n"
                                  "dpdk-router: info: core: up\n"
                                  "dpdk-router: debug: core: shown\n");
}

static void lines_for_the_journal(void **state) {
    (void)state;
    capture(three_levels, "8:12345");
    assert_string_equal(captured, "<3>interface: port lan0: no such device\n"
                                  "<4>l3: text\n"
                                  "<6>core: up\n"
                                  "<7>core: shown\n");
}

static void hostile_text(void) {
    log_info("a", "one\ntwo\r\n");
    log_info("a", "%s", "\x1b[31mred\x7f\t\x01");
    log_info("a", "%s", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
    log_info("a", "%s", "bad \xff \xc3( \xed\xa0\x80 \xc0\xaf \xe2\x82");
    log_info("a", "%s", "c1 \xc2\x9b");
    log_info("a", "%s", "");
}

static void control_characters_are_escaped(void **state) {
    (void)state;
    capture(hostile_text, NULL);
    assert_string_equal(
        captured, "dpdk-router: info: a: one\\ntwo\\r\n"
                  "dpdk-router: info: a: \\x1b[31mred\\x7f\\t\\x01\n"
                  "dpdk-router: info: a: gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\n"
                  "dpdk-router: info: a: bad \\xff \\xc3( \\xed\\xa0\\x80 \\xc0\\xaf \\xe2\\x82\n"
                  "dpdk-router: info: a: c1 \\xc2\\x9b\n"
                  "dpdk-router: info: a: \n");
}

static void errno_line(void) {
    errno = ENOENT;
    log_info("a", "%m");
    if (errno != ENOENT)
        _exit(1);
}

static void errno_is_kept(void **state) {
    (void)state;
    capture(errno_line, NULL);
    assert_string_equal(captured, "dpdk-router: info: a: No such file or directory\n");
}

/* ---- a stderr that nobody reads ---- */

static int unread[2];

static void *log_much(void *argument) {
    for (int i = 0; i < 3000; i++)
        log_info("flood", "line %d of the flood", i);
    return argument;
}

static void flood(void) {
    alarm(60); /* a worker that waits for the reader would wait for ever */
    if (pipe(unread) != 0 || dup2(unread[1], STDERR_FILENO) < 0)
        _exit(1);
    pthread_t thread;
    if (pthread_create(&thread, NULL, log_much, NULL) != 0)
        _exit(2);
    pthread_join(thread, NULL);
    log_much(NULL); /* nor does the main thread wait for each line */

    struct log_line last;
    if (log_read(5999, &last, 1) != 1 || strcmp(last.text, "line 2999 of the flood") != 0)
        _exit(3); /* the ring has what stderr has not */

    static char text[200000];
    fcntl(unread[0], F_SETFL, O_NONBLOCK);
    if (read(unread[0], text, sizeof(text)) < 1000)
        _exit(4);
    log_info("flood", "the reader is back");
    ssize_t length = read(unread[0], text, sizeof(text) - 1);
    if (length <= 0)
        _exit(5);
    text[length] = '\0';
    unsigned long missing = 0;
    if (sscanf(text, "dpdk-router: warning: log: %lu lines are missing", &missing) != 1 ||
        missing < 1000 || strstr(text, "\ndpdk-router: info: flood: the reader is back\n") == NULL)
        _exit(6);

    close(unread[0]); /* no reader at all: no SIGPIPE either */
    log_info("flood", "nobody there");
}

static void unread_stderr_stops_nobody(void **state) {
    (void)state;
    capture(flood, NULL);
}

/* ---- limits ---- */

static struct log_limit limit;

static void limited(void) {
    for (int i = 0; i < 1000; i++)
        log_limited(&limit, LOG_LEVEL_DEBUG, "a", "not shown");
    for (int i = 0; i < 1000; i++)
        log_limited(&limit, LOG_LEVEL_INFO, "a", "line %d", i);
    struct timespec pause = {.tv_sec = 1, .tv_nsec = 100000000};
    nanosleep(&pause, NULL);
    log_limited(&limit, LOG_LEVEL_INFO, "a", "later");
    log_limited(&limit, LOG_LEVEL_INFO, "a", "last");
}

static void rate_limit(void **state) {
    (void)state;
    capture(limited, NULL);
    unsigned lines = 0, held_back = 0, sum = 0;
    bool later = false, last = false;
    for (char *line = strtok(captured, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        lines++;
        assert_null(strstr(line, "not shown"));
        const char *found = strstr(line, " (");
        if (found != NULL && sscanf(found, " (%u more like this were held back)", &held_back) == 1)
            sum += held_back;
        later = later || strstr(line, "a: later (") != NULL;
        last = last || strcmp(line, "dpdk-router: info: a: last") == 0;
    }
    /* The thousand lie in one second or on both sides of a boundary; every line is accounted for.
     */
    assert_in_range(lines, 7, 12);
    assert_int_equal(lines + sum, 1002);
    assert_true(later);
    assert_true(last);
}

/* ---- the ring ---- */

/* The ring's tests write thousands of lines that nobody needs to see. */
static int real_stderr;

static int mute(void **state) {
    (void)state;
    real_stderr = dup(STDERR_FILENO);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (real_stderr < 0 || null < 0 || dup2(null, STDERR_FILENO) < 0)
        return -1;
    return close(null);
}

static int unmute(void **state) {
    (void)state;
    dup2(real_stderr, STDERR_FILENO);
    return close(real_stderr);
}

static struct log_line lines[LOG_RING_LINES + 10];

static uint64_t newest(void) {
    size_t count = log_read(0, lines, LOG_RING_LINES + 10);
    return count == 0 ? 0 : lines[count - 1].sequence;
}

static void ring_remembers(void **state) {
    (void)state;
    uint64_t start = newest();
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    log_warning("l3", "first");
    log_error("an area with a long name", "second");
    log_debug("l3", "not written");

    assert_int_equal(log_read(start, lines, 10), 2);
    assert_int_equal(lines[0].sequence, start + 1);
    assert_int_equal(lines[0].level, LOG_LEVEL_WARNING);
    assert_string_equal(lines[0].area, "l3");
    assert_string_equal(lines[0].text, "first");
    assert_true(lines[0].time_usec / 1000000 >= (uint64_t)now.tv_sec);
    assert_true(lines[0].time_usec / 1000000 <= (uint64_t)now.tv_sec + 60);
    assert_int_equal(lines[1].sequence, start + 2);
    assert_string_equal(lines[1].area, "an area with...");
    assert_string_equal(lines[1].text, "second");

    assert_int_equal(log_read(start, lines, 1), 1);
    assert_string_equal(lines[0].text, "first");
    assert_int_equal(log_read(start + 2, lines, 10), 0);
    assert_int_equal(log_read(UINT64_MAX, lines, 10), 0);
    assert_int_equal(log_read(0, lines, 0), 0);
}

static void ring_keeps_the_latest(void **state) {
    (void)state;
    uint64_t start = newest();
    for (int i = 0; i < 3000; i++)
        log_info("ring", "line %d", i);
    assert_int_equal(log_read(0, lines, LOG_RING_LINES + 10), LOG_RING_LINES);
    for (unsigned i = 0; i < LOG_RING_LINES; i++) {
        char text[32];
        snprintf(text, sizeof(text), "line %u", 3000 - LOG_RING_LINES + i);
        assert_string_equal(lines[i].text, text);
        assert_int_equal(lines[i].sequence, start + 3000 - LOG_RING_LINES + i + 1);
    }
    assert_int_equal(log_read(start + 10, lines, 3), 3); /* overwritten: on with the oldest */
    assert_int_equal(lines[0].sequence, start + 3000 - LOG_RING_LINES + 1);
}

static void long_text_is_cut_between_characters(void **state) {
    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        uint64_t start = newest();
        char text[3000], piece[] = "\xe2\x82\xac";
        memset(text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof(text); i += 3)
            memcpy(text + i, piece, 4);
        log_info("a", "%s", text);
        assert_int_equal(log_read(start, lines, 10), 1);
        size_t length = strlen(lines[0].text);
        assert_in_range(length, sizeof(lines[0].text) - 4, sizeof(lines[0].text) - 1);
        assert_string_equal(lines[0].text + length - 3, "...");
        assert_int_equal((length - 3 - shift) % 3, 0);
        assert_memory_equal(lines[0].text, text, length - 3);
    }
    uint64_t start = newest();
    char text[232];
    memset(text, 'y', sizeof(text) - 1);
    text[231] = '\0';
    log_info("a", "%s", text); /* just fits */
    assert_int_equal(log_read(start, lines, 10), 1);
    assert_string_equal(lines[0].text, text);
}

/* ---- many threads ---- */

enum { WRITERS = 3, LINES_EACH = 20000 };

static atomic_int writers_left;

static void *write_lines(void *argument) {
    unsigned writer = (unsigned)(uintptr_t)argument;
    for (unsigned i = 0; i < LINES_EACH; i++)
        log_info("threads", "%u %u %u %s", writer, i, writer * 1000003 + i * 7,
                 "a tail that makes the line longer than a cache line or two");
    atomic_fetch_sub(&writers_left, 1);
    return NULL;
}

static void threads_write_while_one_reads(void **state) {
    (void)state;
    uint64_t after = newest();
    uint64_t first = after;
    pthread_t threads[WRITERS];
    atomic_store(&writers_left, WRITERS);
    for (uintptr_t i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, (void *)i), 0);

    uint64_t next_of[WRITERS] = {0};
    size_t total = 0;
    bool done = false, torn = false, disordered = false;
    while (!done) {
        done = atomic_load(&writers_left) == 0;
        size_t count = log_read(after, lines, LOG_RING_LINES);
        for (size_t i = 0; i < count; i++) {
            unsigned writer = 0, number = 0, check = 0;
            int fields = sscanf(lines[i].text, "%u %u %u", &writer, &number, &check);
            if (fields != 3 || writer >= WRITERS || check != writer * 1000003 + number * 7) {
                torn = true;
                continue;
            }
            disordered = disordered || lines[i].sequence <= after || number < next_of[writer];
            next_of[writer] = number + 1;
            after = lines[i].sequence;
            total++;
        }
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    assert_false(torn);
    assert_false(disordered);
    assert_true(total >= LOG_RING_LINES / 2);
    assert_true(after <= first + WRITERS * LINES_EACH);
    assert_true(log_read(0, lines, LOG_RING_LINES) > LOG_RING_LINES / 2);
}

static void level_names(void **state) {
    (void)state;
    for (enum log_level level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
        enum log_level again = LOG_LEVEL_INFO;
        assert_int_equal(log_level_parse(log_level_name(level), &again), 0);
        assert_int_equal(again, level);
    }
    enum log_level untouched = LOG_LEVEL_NOTICE;
    assert_int_equal(log_level_parse("warn", &untouched), -EINVAL);
    assert_int_equal(log_level_parse("", &untouched), -EINVAL);
    assert_int_equal(untouched, LOG_LEVEL_NOTICE);
    assert_int_equal(log_get_level(), LOG_LEVEL_INFO);
}

int main(void) {
    /* The children come first: they must find a log that has not yet asked for JOURNAL_STREAM. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(level_names),
        cmocka_unit_test(lines_for_people),
        cmocka_unit_test(lines_for_the_journal),
        cmocka_unit_test(control_characters_are_escaped),
        cmocka_unit_test(errno_is_kept),
        cmocka_unit_test(unread_stderr_stops_nobody),
        cmocka_unit_test(rate_limit),
        cmocka_unit_test_setup_teardown(ring_remembers, mute, unmute),
        cmocka_unit_test_setup_teardown(threads_write_while_one_reads, mute, unmute),
        cmocka_unit_test_setup_teardown(ring_keeps_the_latest, mute, unmute),
        cmocka_unit_test_setup_teardown(long_text_is_cut_between_characters, mute, unmute),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
