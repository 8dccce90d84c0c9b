/* Session events as lines of JSON: the rings they come through, and where they go. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/event.h"
#include "core/log.h"
#include "interface/interface.h"
#include "session/session_event.h"
#include "session/session_internal.h"

enum {
    RING_EVENTS = 1 << 14, /* per worker: 16,000 in a tenth of a second */
    DRAIN_MSEC = 100,
    DRAIN_MSEC_BUSY = 1,
    DRAIN_AT_ONCE = 2048,
    REOPEN_MSEC = 1000,
    LINE_MAX_BYTES = 1024,
    BUFFER_BYTES = 1 << 18,
};

/* All that a line says; what has no name yet is looked up by the control thread. */
struct event_record {
    struct flow flows[2];
    struct session session;
    uint64_t time_usec; /* CLOCK_REALTIME */
    const char *reason;
    uint32_t number;
    uint8_t type;
} __rte_cache_aligned;

/* One writer, one reader. */
struct event_ring {
    _Atomic uint32_t head __rte_cache_aligned; /* written up to here */
    _Atomic uint64_t lost;
    _Atomic uint32_t tail __rte_cache_aligned; /* read up to here */
    struct event_record records[RING_EVENTS];
};

_Atomic bool session_events_on;
static struct event_ring *rings[WORKERS_MAX];
static unsigned ring_count;
static char target[SESSION_PATH_TEXT];
static int fd = -1;
static uint64_t reopen_at, written, dropped;
static struct event_timer drain_timer;
static char *buffer;
static size_t buffered;
static bool midway; /* the buffer begins with the rest of a line, which the target has half of */

/* --- workers --- */

void session_event(unsigned worker, uint32_t number, enum session_event_type type,
                   const char *reason) {
    struct event_ring *ring;
    struct event_record *record;
    struct timespec now;
    uint32_t head;

    if (!atomic_load_explicit(&session_events_on, memory_order_acquire))
        return;
    ring = rings[worker];
    head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) == RING_EVENTS) {
        atomic_fetch_add_explicit(&ring->lost, 1, memory_order_relaxed);
        return;
    }
    record = &ring->records[head % RING_EVENTS];
    memcpy(record->flows, &session_flows[number * 2], sizeof(record->flows));
    record->session = sessions[number];
    clock_gettime(CLOCK_REALTIME, &now); /* the vDSO's: no system call */
    record->time_usec = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    record->reason = reason;
    record->number = number;
    record->type = (uint8_t)type;
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

/* --- lines --- */

static void end_json(json_t *object, const char *key, const struct ip_address *address,
                     uint16_t port) {
    char text[IP_ADDRESS_TEXT];

    json_object_set_new(object, key,
                        json_pack("{s:s, s:i}", "address", ip_address_text(address, text), "port",
                                  rte_be_to_cpu_16(port)));
}

/* The two ends of the packets that a flow's key is about. */
static void add_key(json_t *object, const struct flow *flow, const char *source,
                    const char *destination) {
    struct ip_address from, to;
    bool ipv6 = flow->flags & FLOW_IPV6;

    from = ipv6 ? ip6_address(flow->key6.source) : ip4_address(&flow->key4.source);
    to = ipv6 ? ip6_address(flow->key6.destination) : ip4_address(&flow->key4.destination);
    if (source)
        end_json(object, source, &from, ipv6 ? flow->key6.source_port : flow->key4.source_port);
    if (destination)
        end_json(object, destination, &to,
                 ipv6 ? flow->key6.destination_port : flow->key4.destination_port);
}

/* What its packets became, the answers come from and go to. */
static void add_ends(json_t *object, const struct flow *flows) {
    bool both = flows[0].flags & FLOW_OTHER_FAMILY;

    add_key(object, &flows[0], "source", "destination");
    add_key(object, &flows[1],
            both || flows[0].flags & FLOW_DESTINATION ? "translated_destination" : NULL,
            both || flows[0].flags & FLOW_SOURCE ? "translated_source" : NULL);
}

/* Sessions outlive their interfaces by a moment, and so do lines about them: names of those that
 * are gone, by id. */
static char gone[INTERFACES_MAX][INTERFACE_NAME_TEXT];

static void remember_name(struct interface *interface) {
    memcpy(gone[interface->id], interface->name, INTERFACE_NAME_TEXT);
}

void session_events_init(void) {
    static struct interface_listener listener = {.removed = remember_name};

    interface_listen(&listener);
}

static const char *interface_text(uint16_t id, bool router) {
    const struct interface *interface = id ? interface_by_id(id) : NULL;

    if (interface)
        return interface->name;
    return id ? gone[id % INTERFACES_MAX] : router ? "router" : "";
}

static json_t *line_of(const struct event_record *record) {
    const struct session *session = &record->session;
    char time_text[40], protocol[IP_PROTOCOL_TEXT];
    time_t seconds = (time_t)(record->time_usec / 1000000);
    struct tm utc;
    size_t length;
    json_t *object;

    gmtime_r(&seconds, &utc);
    length = strftime(time_text, sizeof(time_text), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(time_text + length, sizeof(time_text) - length, ".%06uZ",
             (unsigned)(record->time_usec % 1000000));
    object = json_pack(
        "{s:s, s:s, s:I, s:s, s:s, s:s}", "time", time_text, "event",
        record->type == SESSION_EVENT_START ? "start" : "end", "id", (json_int_t)record->number,
        "protocol", ip_protocol_text(session->protocol, protocol), "in",
        interface_text(session->in_interface, session->flags & SESSION_FROM_ROUTER), "out",
        interface_text(session->out_interface, session->flags & SESSION_LOCAL));
    if (!object)
        return NULL;
    add_ends(object, record->flows);
    if (record->type == SESSION_EVENT_END) {
        json_object_set_new(object, "reason", json_string(record->reason));
        json_object_set_new(object, "forward",
                            json_pack("{s:I, s:I}", "packets", (json_int_t)record->flows[0].packets,
                                      "bytes", (json_int_t)record->flows[0].bytes));
        json_object_set_new(object, "backward",
                            json_pack("{s:I, s:I}", "packets", (json_int_t)record->flows[1].packets,
                                      "bytes", (json_int_t)record->flows[1].bytes));
        json_object_set_new(
            object, "duration_seconds",
            json_real((double)(atomic_load(&session_clock) - session->created) / SESSION_TICKS));
    }
    return object;
}

/* --- where they go --- */

static int open_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int made;

    if (strlen(path) >= sizeof(address.sun_path))
        return -1;
    memcpy(address.sun_path, path, strlen(path) + 1);
    made = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made >= 0 && connect(made, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        close(made);
        made = -1;
    }
    return made;
}

static bool open_target(void) {
    static struct log_limit limit;
    static const char prefix[] = "unix:";

    if (fd >= 0)
        return true;
    if (event_now() < reopen_at)
        return false;
    reopen_at = event_now() + REOPEN_MSEC;
    fd = strncmp(target, prefix, sizeof(prefix) - 1) == 0
             ? open_socket(target + sizeof(prefix) - 1)
             : open(target, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640);
    if (fd < 0)
        log_limited(&limit, LOG_LEVEL_WARNING, "session", "events cannot go to %s: %m", target);
    return fd >= 0;
}

/* The lines that end in the first so many bytes of the buffer are not going to be written. */
static void drop_lines(size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (buffer[i] == '\n') {
            written--;
            dropped++;
        }
    }
    buffered -= length;
    memmove(buffer, buffer + length, buffered);
}

/* The rest of a line is of no use to whoever comes next; whole lines wait for him. */
static void close_target(void) {
    if (fd >= 0)
        close(fd);
    fd = -1;
    if (midway)
        drop_lines((size_t)((char *)memchr(buffer, '\n', buffered) + 1 - buffer));
    midway = false;
}

/* What the other side does not take yet stays in the buffer. */
static void flush(void) {
    size_t done = 0;
    bool broken = false;

    while (fd >= 0 && done < buffered && !broken) {
        ssize_t count = strncmp(target, "unix:", 5) == 0
                            ? send(fd, buffer + done, buffered - done, MSG_NOSIGNAL)
                            : write(fd, buffer + done, buffered - done);

        if (count > 0)
            done += (size_t)count;
        else if (count < 0 && errno == EAGAIN)
            break;
        else
            broken = count == 0 || errno != EINTR;
    }
    if (done > 0) {
        midway = buffer[done - 1] != '\n';
        buffered -= done;
        memmove(buffer, buffer + done, buffered);
    }
    if (broken)
        close_target();
}

static bool append_line(const struct event_record *record) {
    json_t *object = line_of(record);
    size_t length;

    if (!object)
        return false;
    length = json_dumpb(object, buffer + buffered, BUFFER_BYTES - buffered - 1,
                        JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(object);
    if (length == 0 || length >= BUFFER_BYTES - buffered)
        return false;
    buffered += length;
    buffer[buffered++] = '\n';
    written++;
    return true;
}

/* Returns how many events it has taken, which is DRAIN_AT_ONCE if there may be more. */
static unsigned drain(void) {
    unsigned count = 0;

    if (open_target()) {
        flush();
        for (unsigned i = 0; i < ring_count; i++) {
            struct event_ring *ring = rings[i];
            uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
            uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

            for (;
                 tail != head && count < DRAIN_AT_ONCE && BUFFER_BYTES - buffered > LINE_MAX_BYTES;
                 tail++, count++)
                append_line(&ring->records[tail % RING_EVENTS]);
            atomic_store_explicit(&ring->tail, tail, memory_order_release);
        }
        flush();
    }
    return count;
}

static void drain_now_and_then(struct event_timer *timer) {
    event_timer_start(timer, drain() == DRAIN_AT_ONCE ? DRAIN_MSEC_BUSY : DRAIN_MSEC);
}

/* What has happened until now still goes to the old target, as far as it takes it. */
static void leave_target(void) {
    for (unsigned i = 0; i <= RING_EVENTS / DRAIN_AT_ONCE && drain() == DRAIN_AT_ONCE; i++)
        ;
    close_target();
    drop_lines(buffered);
}

/* --- on and off --- */

static int make_rings(unsigned workers) {
    if (!buffer)
        buffer = malloc(BUFFER_BYTES);
    for (ring_count = 0; ring_count < workers; ring_count++) {
        struct event_ring *ring = rings[ring_count];

        if (ring) { /* from the last time; what is still in it is old */
            atomic_store(&ring->tail, atomic_load(&ring->head));
            continue;
        }
        ring = aligned_alloc(RTE_CACHE_LINE_SIZE, sizeof(*ring));
        if (!ring)
            return -ENOMEM;
        memset(ring, 0, sizeof(*ring));
        rings[ring_count] = ring;
    }
    return buffer ? 0 : -ENOMEM;
}

int session_events_set(const char *to, unsigned workers) {
    if (strcmp(to, target) == 0)
        return 0;
    if (target[0] != '\0')
        leave_target();
    snprintf(target, sizeof(target), "%s", to);
    reopen_at = 0;
    if (target[0] == '\0') {
        /* Workers may still be at a record: the rings stay until session_events_free(). */
        atomic_store_explicit(&session_events_on, false, memory_order_release);
        event_timer_stop(&drain_timer);
        return 0;
    }
    if (!atomic_load(&session_events_on) && make_rings(workers) != 0)
        return -ENOMEM;
    drain_timer.expired = drain_now_and_then;
    event_timer_start(&drain_timer, 0);
    atomic_store_explicit(&session_events_on, true, memory_order_release);
    return 0;
}

void session_events_free(void) {
    session_events_set("", 0);
    for (unsigned i = 0; i < WORKERS_MAX; i++) {
        free(rings[i]);
        rings[i] = NULL;
    }
    free(buffer);
    buffer = NULL;
    ring_count = 0;
}

void session_event_stats(struct session_event_stats *out) {
    *out = (struct session_event_stats){.written = written, .lost = dropped};
    for (unsigned i = 0; i < ring_count; i++)
        out->lost += atomic_load(&rings[i]->lost);
}
