/*
 * The log: one line to stderr and one slot of a ring, without a lock.
 *
 * Workers log too, so nobody may wait for anybody:
 *
 * - The ring gives each line a sequence number by one atomic increment and its slot by the number's
 *   low bits. A slot is a small sequence lock: odd while it is written, and the line's own number
 *   when it is whole. A writer that finds its slot taken (another thread was descheduled half-way
 *   through a line 1024 lines ago) leaves its line out of the ring; readers see a gap.
 * - A line is one write() to stderr, so lines of several threads do not mix. When the reader of a
 *   pipe or the journal lags behind, write() would block: lines are then dropped from stderr,
 * though not from the ring, and the next one that goes through says how many. Only the main thread,
 * which is the control thread, gives the reader a moment first.
 *
 * What can go wrong: a reader of stderr that never reads. Then the ring is all there is.
 */
#include "core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    TEXT_MAX = 1024,             /* longest text on stderr, after escaping */
    LINE_MAX_BYTES = 1024 + 128, /* with what stands before it; below PIPE_BUF, so it is atomic */
    LINES_PER_SECOND = 5,        /* of log_limited(), per place */
    STDERR_PATIENCE_MSEC = 100,  /* how long the main thread waits for room */
    READER_PATIENCE = 100,       /* how often log_read() yields to writers */
    LINE_WORDS = sizeof(struct log_line) / sizeof(uint64_t),
};

_Static_assert(sizeof(struct log_line) % sizeof(uint64_t) == 0, "lines are copied by words");
_Static_assert((LOG_RING_LINES & (LOG_RING_LINES - 1)) == 0, "slots are found with a mask");

/* One line of the ring. The words are atomic because a reader may copy them while they change; it
 * finds out by `state` and throws the copy away. */
struct slot {
    _Atomic uint64_t state; /* twice the line's sequence, plus one while it is written */
    _Atomic uint64_t words[LINE_WORDS];
};

static struct slot ring[LOG_RING_LINES];
static _Atomic uint64_t last_sequence;
static _Atomic int current_level = LOG_LEVEL_INFO;
static _Atomic uint64_t
    unwritten; /* lines that stderr had no room for since the last one it took */

static const struct {
    const char *name;
    int severity; /* RFC 5424 section 6.2.1 */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", 3},   [LOG_LEVEL_WARNING] = {"warning", 4},
    [LOG_LEVEL_NOTICE] = {"notice", 5}, [LOG_LEVEL_INFO] = {"info", 6},
    [LOG_LEVEL_DEBUG] = {"debug", 7},
};

enum { LEVEL_COUNT = sizeof(levels) / sizeof(levels[0]) };

void log_set_level(enum log_level level) {
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void) {
    return (enum log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *out) {
    for (unsigned i = 0; i < LEVEL_COUNT; i++) {
        if (strcmp(text, levels[i].name) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

const char *log_level_name(enum log_level level) {
    return (unsigned)level < LEVEL_COUNT ? levels[level].name : "unknown";
}

/* ---- text that is safe to show ---- */

/* The length of the well-formed UTF-8 character at `s`, or 0 (RFC 3629 section 4). */
static size_t utf8_length(const unsigned char *s) {
    if (s[0] < 0x80)
        return 1;
    size_t length;
    unsigned char low = 0x80, high = 0xbf; /* the second byte's range */
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        length = 2;
    } else if (s[0] >= 0xe0 && s[0] <= 0xef) {
        length = 3;
        if (s[0] == 0xe0)
            low = 0xa0; /* shorter forms exist */
        if (s[0] == 0xed)
            high = 0x9f; /* surrogates */
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        length = 4;
        if (s[0] == 0xf0)
            low = 0x90;
        if (s[0] == 0xf4)
            high = 0x8f; /* past U+10FFFF */
    } else {
        return 0;
    }
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) /* also at the string's end */
            return 0;
    }
    return length;
}

/* Copies text into out[size], escaped; ends in "..." when it does not fit. Returns the length. */
static size_t escape(char *out, size_t size, const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    size_t length = 0; /* bytes in out */
    size_t safe = 0;   /* the longest length that leaves room for "..." */
    while (*s != '\0') {
        char piece[5];
        size_t taken = utf8_length(s), bytes = taken;
        if (*s == '\n' || *s == '\t' || *s == '\r') {
            snprintf(piece, sizeof(piece), "\\%c", *s == '\n' ? 'n' : *s == '\t' ? 't' : 'r');
            bytes = 2;
        } else if (taken == 0 || *s < 0x20 || *s == 0x7f || (*s == 0xc2 && s[1] < 0xa0)) {
            /* C0, DEL, the C1 controls U+0080 to U+009F (byte by byte), and what is not UTF-8. */
            snprintf(piece, sizeof(piece), "\\x%02x", *s);
            bytes = 4;
            taken = 1;
        } else {
            memcpy(piece, s, taken);
        }
        if (length + bytes >= size) {
            memcpy(out + safe, "...", 4);
            return safe + 3;
        }
        memcpy(out + length, piece, bytes);
        length += bytes;
        if (length + 3 < size)
            safe = length;
        s += taken;
    }
    out[length] = '\0';
    return length;
}

/* ---- the ring ---- */

static void ring_put(struct log_line *line) {
    line->sequence = atomic_fetch_add_explicit(&last_sequence, 1, memory_order_relaxed) + 1;
    struct slot *slot = &ring[line->sequence & (LOG_RING_LINES - 1)];

    uint64_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
    if ((state & 1) != 0 || state > 2 * line->sequence ||
        !atomic_compare_exchange_strong_explicit(&slot->state, &state, 2 * line->sequence + 1,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return;
    uint64_t words[LINE_WORDS];
    memcpy(words, line, sizeof(words));
    /* Release on each word: who reads a new word also sees that the slot had been taken before. */
    for (unsigned i = 0; i < LINE_WORDS; i++)
        atomic_store_explicit(&slot->words[i], words[i], memory_order_release);
    atomic_store_explicit(&slot->state, 2 * line->sequence, memory_order_release);
}

enum ring_result { RING_LINE, RING_NOT_YET, RING_GONE };

static enum ring_result ring_get(uint64_t sequence, struct log_line *line) {
    struct slot *slot = &ring[sequence & (LOG_RING_LINES - 1)];
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    if (state != 2 * sequence)
        return state > 2 * sequence + 1 ? RING_GONE : RING_NOT_YET;
    uint64_t words[LINE_WORDS];
    for (unsigned i = 0; i < LINE_WORDS; i++)
        words[i] = atomic_load_explicit(&slot->words[i], memory_order_acquire);
    if (atomic_load_explicit(&slot->state, memory_order_relaxed) != state)
        return RING_GONE;
    memcpy(line, words, sizeof(words));
    return RING_LINE;
}

size_t log_read(uint64_t after, struct log_line *lines, size_t max) {
    uint64_t last = atomic_load_explicit(&last_sequence, memory_order_relaxed);
    if (after >= last)
        return 0;
    uint64_t sequence = after + 1;
    if (last >= LOG_RING_LINES && sequence <= last - LOG_RING_LINES)
        sequence = last - LOG_RING_LINES + 1;

    size_t count = 0;
    unsigned patience = READER_PATIENCE;
    while (sequence <= last && count < max) {
        enum ring_result result = ring_get(sequence, &lines[count]);
        if (result == RING_NOT_YET && patience > 0) {
            /* Its writer is at it, most likely. Skipping the line at once would lose it for a
             * reader that goes on from the last sequence it saw. */
            patience--;
            sched_yield();
            continue;
        }
        if (result == RING_LINE)
            count++;
        sequence++;
    }
    return count;
}

/* ---- stderr ---- */

/* systemd sets JOURNAL_STREAM for services whose output goes to the journal, which takes "<4>" at
 * the start of a line as its severity. Asked once: getenv() is only safe while nobody sets. */
static bool to_journal(void) {
    static _Atomic int answer; /* 0 not asked yet, 1 no, 2 yes */
    int known = atomic_load_explicit(&answer, memory_order_relaxed);
    if (known == 0) {
        const char *stream = getenv("JOURNAL_STREAM");
        known = stream != NULL && stream[0] != '\0' ? 2 : 1;
        atomic_store_explicit(&answer, known, memory_order_relaxed);
    }
    return known == 2;
}

static bool is_main_thread(void) {
    return syscall(SYS_gettid) == getpid();
}

/* Is there room for a line? Files and terminals always say yes; a pipe whose reader has gone says
 * no, which also spares the process a SIGPIPE. */
static bool stderr_has_room(void) {
    struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
    int ready = poll(&fd, 1, 0);
    /* Once lines get lost the reader hangs: nobody gives it any more of the control thread's time
     * until it reads again. */
    if (ready == 0 && atomic_load_explicit(&unwritten, memory_order_relaxed) == 0 &&
        is_main_thread())
        ready = poll(&fd, 1, STDERR_PATIENCE_MSEC);
    return ready > 0 && (fd.revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL)) == POLLOUT;
}

static void stderr_put(const char *text, size_t length) {
    ssize_t written;
    do {
        written = write(STDERR_FILENO, text, length);
    } while (written < 0 && errno == EINTR);
    /* There is no place left to report any other error to. */
}

static size_t stderr_format(char line[LINE_MAX_BYTES], enum log_level level, const char *area,
                            const char *text) {
    int length = to_journal() ? snprintf(line, LINE_MAX_BYTES, "<%d>%s: %s\n",
                                         levels[level].severity, area, text)
                              : snprintf(line, LINE_MAX_BYTES, "dpdk-router: %s: %s: %s\n",
                                         levels[level].name, area, text);
    return (size_t)length;
}

static void stderr_line(enum log_level level, const char *area, const char *text) {
    char line[LINE_MAX_BYTES];
    if (!stderr_has_room()) {
        atomic_fetch_add_explicit(&unwritten, 1, memory_order_relaxed);
        return;
    }
    uint64_t lost = atomic_exchange_explicit(&unwritten, 0, memory_order_relaxed);
    if (lost > 0) {
        char notice[128];
        snprintf(notice, sizeof(notice),
                 "%" PRIu64 " lines are missing here because stderr was not read in time", lost);
        stderr_put(line, stderr_format(line, LOG_LEVEL_WARNING, "log", notice));
    }
    stderr_put(line, stderr_format(line, level, area, text));
}

/* ---- lines ---- */

/* `held_back` lines of the same place came before this one and were not written. */
__attribute__((format(printf, 4, 0))) static void put(enum log_level level, const char *area,
                                                      uint64_t held_back, const char *format,
                                                      va_list arguments) {
    int saved_errno = errno;
    char raw[2 * TEXT_MAX], text[TEXT_MAX], suffix[64] = "";
    if (vsnprintf(raw, sizeof(raw), format, arguments) < 0)
        snprintf(raw, sizeof(raw), "(a line that could not be formatted: %s)", format);
    size_t end = strlen(raw);
    if (end > 0 && raw[end - 1] == '\n')
        raw[end - 1] = '\0'; /* a habit from printf() */
    if (held_back > 0)
        snprintf(suffix, sizeof(suffix), " (%" PRIu64 " more like this were held back)", held_back);
    size_t suffix_size = strlen(suffix) + 1;

    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct log_line line = {
        .time_usec = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000,
        .level = level,
    };
    escape(line.area, sizeof(line.area), area);
    size_t length = escape(line.text, sizeof(line.text) - suffix_size + 1, raw);
    memcpy(line.text + length, suffix, suffix_size);
    ring_put(&line);

    length = escape(text, sizeof(text) - suffix_size + 1, raw);
    memcpy(text + length, suffix, suffix_size);
    stderr_line(level, line.area, text);
    errno = saved_errno;
}

/* Is the level one that exists and that is written? */
static bool wanted(enum log_level level) {
    return (unsigned)level < LEVEL_COUNT && level <= log_get_level();
}

void log_write(enum log_level level, const char *area, const char *format, ...) {
    if (!wanted(level))
        return;
    va_list arguments;
    va_start(arguments, format);
    put(level, area, 0, format, arguments);
    va_end(arguments);
}

/* Counts one line in the current second; false when the second is full. */
static bool limit_pass(struct log_limit *limit) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t second = (uint64_t)now.tv_sec << 8;
    uint64_t seen = atomic_load_explicit(&limit->window, memory_order_relaxed), next;
    do {
        uint64_t passed = seen & 0xff;
        /* A thread that read the clock a moment earlier must not reopen the second before. */
        next = (seen & ~UINT64_C(0xff)) < second ? second | 1 : seen + 1;
        if (next == seen + 1 && passed >= LINES_PER_SECOND)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&limit->window, &seen, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void log_limited(struct log_limit *limit, enum log_level level, const char *area,
                 const char *format, ...) {
    if (!wanted(level))
        return;
    if (!limit_pass(limit)) {
        atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
        return;
    }
    uint64_t held_back = atomic_exchange_explicit(&limit->suppressed, 0, memory_order_relaxed);
    va_list arguments;
    va_start(arguments, format);
    put(level, area, held_back, format, arguments);
    va_end(arguments);
}
