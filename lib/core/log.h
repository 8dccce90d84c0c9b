/*
 * The one log. Control side and workers both write to it; lines go to stderr (where systemd or a
 * terminal reads them, with an RFC 5424 severity prefix under systemd) and to a ring of the latest
 * lines that `routerctl show log` reads.
 *
 * Workers must not log per packet: they use log_limited(), which passes a few lines per second and
 * says afterwards how many it held back. No lock is ever waited for by a worker.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_NOTICE,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG
};

/* Lines above this level are not written. Default: LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* "error", "warning", "notice", "info", "debug" <-> level. log_level_parse returns 0 or -EINVAL. */
int log_level_parse(const char *text, enum log_level *out);
const char *log_level_name(enum log_level level);

/* Writes one line. `area` is the feature's name ("l3", "interface", ...). Control characters and
 * bytes that are not UTF-8 are escaped (\n, \x1b), so that one call is one line and what came from
 * a network cannot forge another or steer a terminal; what is too long ends in "...". Callable from
 * any thread; errno is kept, and %m works. */
void log_write(enum log_level level, const char *area, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(area, ...) log_write(LOG_LEVEL_ERROR, area, __VA_ARGS__)
#define log_warning(area, ...) log_write(LOG_LEVEL_WARNING, area, __VA_ARGS__)
#define log_notice(area, ...) log_write(LOG_LEVEL_NOTICE, area, __VA_ARGS__)
#define log_info(area, ...) log_write(LOG_LEVEL_INFO, area, __VA_ARGS__)
#define log_debug(area, ...) log_write(LOG_LEVEL_DEBUG, area, __VA_ARGS__)

/* A place that may log often. One static instance per place; zero-initialised is right. */
struct log_limit {
    _Atomic uint64_t window;     /* a second, and in the low byte the lines written in it */
    _Atomic uint64_t suppressed; /* lines held back since the last one written */
};

/* Like log_write, at most five lines per second from this place; the first line after some were
 * held back says how many. Callable from any thread. */
void log_limited(struct log_limit *limit, enum log_level level, const char *area,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* One remembered line. */
struct log_line {
    uint64_t sequence;  /* 1 for the first line of the process */
    uint64_t time_usec; /* CLOCK_REALTIME, microseconds */
    enum log_level level;
    char area[16];
    char text[232];
};

enum { LOG_RING_LINES = 1024 }; /* the latest lines are kept, older ones are gone */

/* Copies up to `max` remembered lines with a sequence above `after`, oldest first; returns their
 * number. Lines may be written meanwhile. Sequences may have gaps: lines that were overwritten
 * before they could be read. Not for workers: it may yield to a writer that is half done. */
size_t log_read(uint64_t after, struct log_line *lines, size_t max);
