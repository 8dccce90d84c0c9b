/* The router between rings, and what cases can ask of it. */
#define _GNU_SOURCE
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_version.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "control/config_store.h"
#include "control/control.h"
#include "core/counters.h"
#include "core/event.h"
#include "core/log.h"
#include "core/mbuf_pool.h"
#include "core/packet.h"
#include "core/port.h"
#include "core/punt.h"
#include "core/rcu.h"
#include "core/section.h"
#include "core/worker.h"
#include "host/host.h"
#include "interface/interface.h"
#include "json/rpc.h"

enum {
    RING_SIZE = 8192,
    QUEUES_MAX = 4,
    SETTLE_MSEC = 12000,
    TURNS_MAX = 200000,
    THREAD_WAIT_MSEC = 5000,
    THREAD_PAUSE_USEC = 300,
    SEGMENT_MAX = MBUF_DATA_ROOM - RTE_PKTMBUF_HEADROOM,
};

#define STANDARD(more_routes)                                                   \
    "{'interfaces': {"                                                          \
    "  'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"                               \
    "  'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"                               \
    "  'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"                              \
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "]," \
    "'routes': [" DEFAULT_ROUTES more_routes "]," UNLIMITED "}"

const char *const standard = STANDARD("");

static const char *const place_names[PLACES] = {"", "lan", "wan", "dmz", "isp"};

static struct harness_options options;
static struct rte_ring *rx_rings[PLACES][QUEUES_MAX], *tx_rings[PLACES][QUEUES_MAX];
static struct counters baseline_counters, baseline_drops, now;
static uint32_t buffers_at_start;
void (*harness_around_plan)(void);

/* --- telling --- */

void failed_at(const char *file, int line, const char *format, ...) {
    va_list list;

    fputs("# ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    _fail(file, line);
    abort();
}

char *room_for(size_t size) {
    return (char *)frame_new((unsigned)size)->bytes;
}

void append(char **at, const char *format, ...) {
    va_list list;

    va_start(list, format);
    *at += vsprintf(*at, format, list);
    va_end(list);
}

const char *text(const char *format, ...) {
    va_list list;
    char *made, *out;
    int length;

    va_start(list, format);
    length = vasprintf(&made, format, list);
    va_end(list);
    if (length < 0)
        failed_at(__FILE__, __LINE__, "there is no memory for a text");
    out = room_for((size_t)length + 1);
    memcpy(out, made, (size_t)length);
    free(made);
    return out;
}

const char *standard_with_routes(const char *routes) {
    return text(STANDARD(", %s"), routes);
}

/* --- the crank --- */

static uint64_t msec_now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

void turn(void) {
    unsigned turns = 0;

    for (unsigned idle = 0; idle < 2; turns++) {
        unsigned moved = (unsigned)event_turn(0);

        for (unsigned i = 0; !options.threads && i < workers_count(); i++)
            moved += worker_turn(worker_get(i));
        rcu_shared_quiescent();
        if (options.threads && !moved)
            usleep(THREAD_PAUSE_USEC);
        idle = moved ? 0 : idle + 1;
        if (turns == TURNS_MAX)
            failed_at(__FILE__, __LINE__, "something moves for ever");
    }
}

void advance(unsigned msec) {
    enum { STEP = 100 };

    for (; msec > 0; msec -= msec < STEP ? msec : STEP) {
        event_advance(msec < STEP ? msec : STEP);
        turn();
    }
}

/* --- frames in --- */

static void set_link(enum place place, const struct frame *frame, bool to_router, uint8_t *bytes) {
    const uint8_t router[6] = {2, 0, 0, 0, (uint8_t)place, 0x01};
    const uint8_t host[6] = {2, 0, 0, 0, (uint8_t)place, 0x10};
    unsigned ip = frame_ip_offset(frame);

    if (frame->addressed || frame->length < 12)
        return;
    memcpy(bytes, to_router ? router : host, 6);
    memcpy(bytes + 6, to_router ? host : router, 6);
    /* RFC 2464 section 7, RFC 1112 section 6.4 */
    if (frame->length >= ip + 40 && bytes[ip - 2] == 0x86 && bytes[ip + 24] == 0xff) {
        bytes[0] = bytes[1] = 0x33;
        memcpy(bytes + 2, bytes + ip + 36, 4);
    } else if (frame->length >= ip + 20 && bytes[ip - 2] == 0x08 && bytes[ip - 1] == 0x00 &&
               bytes[ip + 16] >> 4 == 14) {
        memcpy(bytes, (const uint8_t[]){1, 0, 0x5e, bytes[ip + 17] & 0x7f}, 4);
        memcpy(bytes + 4, bytes + ip + 18, 2);
    }
}

struct rte_mbuf *harness_mbuf(enum place place, const struct frame *frame, unsigned first,
                              unsigned each) {
    struct rte_mempool *pool = mbuf_pool(SOCKET_ID_ANY);
    struct rte_mbuf *head = NULL, *last = NULL;
    unsigned at = 0;
    uint8_t *bytes = malloc(frame->length + 1);

    memcpy(bytes, frame->bytes, frame->length);
    set_link(place, frame, true, bytes);
    do {
        unsigned piece = at == 0 && first ? first : each ? each : SEGMENT_MAX;
        struct rte_mbuf *mbuf = pool ? rte_pktmbuf_alloc(pool) : NULL;

        if (!mbuf)
            failed_at(__FILE__, __LINE__, "there are no packet buffers left");
        if (piece > frame->length - at)
            piece = frame->length - at;
        if (piece > SEGMENT_MAX)
            piece = SEGMENT_MAX;
        memcpy(rte_pktmbuf_append(mbuf, (uint16_t)piece), bytes + at, piece);
        at += piece;
        if (!head) {
            head = last = mbuf;
            continue;
        }
        last->next = mbuf;
        last = mbuf;
        head->nb_segs++;
        head->pkt_len += piece;
    } while (at < frame->length);
    free(bytes);
    return head;
}

static void enqueue(enum place place, unsigned queue, struct rte_mbuf *mbuf) {
    if (rte_ring_enqueue(rx_rings[place][queue], mbuf) != 0)
        failed_at(__FILE__, __LINE__, "too many frames were injected on %s", place_names[place]);
}

void inject(enum place place, const struct frame *frame) {
    inject_queue(place, 0, frame);
}

void inject_queue(enum place place, unsigned queue, const struct frame *frame) {
    enqueue(place, queue, harness_mbuf(place, frame, 0, 0));
}

void inject_hashed(enum place place, const struct frame *frame, uint32_t hash) {
    struct rte_mbuf *mbuf = harness_mbuf(place, frame, 0, 0);

    mbuf->hash.rss = hash;
    mbuf->ol_flags |= RTE_MBUF_F_RX_RSS_HASH;
    enqueue(place, 0, mbuf);
}

void inject_split(enum place place, const struct frame *frame, unsigned first) {
    enqueue(place, 0, harness_mbuf(place, frame, first, 0));
}

void inject_segments(enum place place, const struct frame *frame, unsigned each) {
    enqueue(place, 0, harness_mbuf(place, frame, each, each));
}

void inject_from_host(const struct frame *frame) {
    struct rte_mbuf *mbuf = harness_mbuf(LAN, frame, 0, 0);
    bool ipv6 = frame->bytes[IP] >> 4 == 6;

    *packet_meta(mbuf) = (struct packet_meta){
        .vrf = VRF_DEFAULT,
        .flags = PACKET_FROM_HOST | (ipv6 ? PACKET_IPV6 : 0),
        .l3_offset = IP,
        .l4_protocol = frame->bytes[ipv6 ? IP + 6 : IP + 9],
        .l4_offset = ipv6 ? IP6_PAYLOAD : IP4_PAYLOAD,
    };
    control_route(mbuf);
}

struct rte_ring *harness_rx_ring(enum place place, unsigned queue) {
    return rx_rings[place][queue];
}

struct rte_ring *harness_tx_ring(enum place place, unsigned queue) {
    return tx_rings[place][queue];
}

/* --- frames out --- */

static struct rte_mbuf *dequeue(enum place place) {
    struct rte_mbuf *mbuf;

    for (unsigned queue = 0; queue < options.queues; queue++) {
        if (rte_ring_dequeue(tx_rings[place][queue], (void **)&mbuf) == 0)
            return mbuf;
    }
    return NULL;
}

/* Is the chain of buffers in order? Drivers rely on it. */
static void check_chain(const struct rte_mbuf *mbuf) {
    unsigned length = 0, segments = 0;

    for (const struct rte_mbuf *m = mbuf; m; m = m->next) {
        length += m->data_len;
        segments++;
        if (m->data_len == 0)
            failed_at(__FILE__, __LINE__, "a frame was sent with an empty buffer in its chain");
    }
    if (length != mbuf->pkt_len || segments != mbuf->nb_segs)
        failed_at(__FILE__, __LINE__,
                  "a frame was sent in %u buffers of %u bytes that says of itself %u and %u",
                  segments, length, mbuf->nb_segs, mbuf->pkt_len);
}

/* Consumes the buffers. */
static struct frame *frame_of(struct rte_mbuf *mbuf) {
    struct frame *frame = frame_new(mbuf->pkt_len);

    check_chain(mbuf);
    frame->addressed = true;
    for (unsigned at = 0; mbuf;) {
        struct rte_mbuf *next = mbuf->next;

        memcpy(frame->bytes + at, rte_pktmbuf_mtod(mbuf, void *), mbuf->data_len);
        at += mbuf->data_len;
        rte_pktmbuf_free_seg(mbuf);
        mbuf = next;
    }
    return frame;
}

struct frame *take(enum place place) {
    uint64_t until = msec_now() + (options.threads ? THREAD_WAIT_MSEC : 0);
    struct rte_mbuf *mbuf = dequeue(place);

    while (!mbuf) {
        turn();
        mbuf = dequeue(place);
        if (mbuf || msec_now() >= until)
            break;
    }
    return mbuf ? frame_of(mbuf) : NULL;
}

struct frame *take_waiting(enum place place) {
    struct rte_mbuf *mbuf = dequeue(place);

    return mbuf ? frame_of(mbuf) : NULL;
}

static void print_drops(void);

struct frame *take_one_at(enum place place, const char *file, int line) {
    struct frame *frame = take(place);

    if (!frame) {
        print_drops();
        failed_at(file, line, "no frame left by %s", place_names[place]);
    }
    return frame;
}

void expect_at(enum place place, const struct frame *frame, const char *file, int line) {
    struct frame *found = take(place), *expected = copy(frame);

    set_link(place, frame, false, expected->bytes);
    if (!found) {
        frame_print("expected", expected);
        print_drops();
        failed_at(file, line, "no frame left by %s", place_names[place]);
    }
    if (!frame_equal(found, expected)) {
        frame_compare(expected, found);
        failed_at(file, line, "another frame than expected left by %s", place_names[place]);
    }
}

void expect_nothing_at(enum place place, const char *file, int line) {
    unsigned first = place == ANYWHERE ? 1 : place, last = place == ANYWHERE ? PLACES - 1 : place;

    turn();
    for (unsigned i = first; i <= last; i++) {
        struct rte_mbuf *mbuf = dequeue(i);

        if (!mbuf)
            continue;
        frame_print("found", frame_of(mbuf));
        failed_at(file, line, "a frame left by %s, but none was expected", place_names[i]);
    }
}

unsigned discard(enum place place) {
    unsigned first = place == ANYWHERE ? 1 : place, last = place == ANYWHERE ? PLACES - 1 : place;
    unsigned count = 0;
    struct rte_mbuf *mbuf;

    turn();
    for (unsigned i = first; i <= last; i++) {
        while ((mbuf = dequeue(i)) != NULL) {
            rte_pktmbuf_free(mbuf);
            count++;
        }
    }
    return count;
}

/* --- counters --- */

static void sum(struct counters *out) {
    memset(out, 0, sizeof(*out));
    counters_sum(out);
}

/* "group.reason" of a counter; NULL for one that no group has. */
static const char *drop_name(unsigned index) {
    static char name[100];

    for (const struct drop_group *group = drop_group_first(); group; group = group->next) {
        if (index >= group->base && index < group->base + group->count) {
            snprintf(name, sizeof(name), "%s.%s", group->name, group->reasons[index - group->base]);
            return name;
        }
    }
    return NULL;
}

static void print_drops(void) {
    sum(&now);
    for (unsigned i = 0; i < DROPS_MAX; i++) {
        if (now.drops[i] != baseline_drops.drops[i])
            fprintf(stderr, "# counted: %s %lu\n", drop_name(i),
                    now.drops[i] - baseline_drops.drops[i]);
    }
}

void forget_drops(void) {
    sum(&baseline_drops);
}

uint64_t drops_so_far(const char *name) {
    sum(&now);
    for (unsigned i = 0; i < DROPS_MAX; i++) {
        const char *this = drop_name(i);

        if (this && strcmp(this, name) == 0)
            return now.drops[i] - baseline_drops.drops[i];
    }
    failed_at(__FILE__, __LINE__, "there is no drop reason %s", name);
}

void expect_drops_at(const struct drops *drops, size_t count, const char *file, int line) {
    uint64_t wanted[DROPS_MAX] = {0};
    bool right = true;

    turn();
    for (size_t i = 0; i < count; i++) {
        unsigned at = 0;

        while (at < DROPS_MAX && (!drop_name(at) || strcmp(drop_name(at), drops[i].name) != 0))
            at++;
        if (at == DROPS_MAX)
            failed_at(file, line, "there is no drop reason %s", drops[i].name);
        wanted[at] += drops[i].count;
    }
    sum(&now);
    for (unsigned i = 0; i < DROPS_MAX; i++) {
        uint64_t found = now.drops[i] - baseline_drops.drops[i];

        if (found == wanted[i])
            continue;
        right = false;
        fprintf(stderr, "# %s: counted %lu, expected %lu\n", drop_name(i), found, wanted[i]);
    }
    if (!right)
        failed_at(file, line, "the counters of drops are not as expected");
    baseline_drops = now;
}

static unsigned interface_id(const char *name) {
    const struct interface *interface = interface_by_name(name);

    if (!interface)
        failed_at(__FILE__, __LINE__, "there is no interface %s", name);
    return interface->id;
}

struct counts counts_of(const char *name) {
    unsigned id = interface_id(name);

    turn();
    sum(&now);

    const struct interface_counters *is = &now.interface[id],
                                    *was = &baseline_counters.interface[id];

    return (struct counts){
        .rx_packets = is->rx_packets - was->rx_packets,
        .rx_bytes = is->rx_bytes - was->rx_bytes,
        .tx_packets = is->tx_packets - was->tx_packets,
        .tx_bytes = is->tx_bytes - was->tx_bytes,
        .tx_dropped = is->tx_dropped - was->tx_dropped,
    };
}

void expect_counts_at(const char *name, struct counts expected, const char *file, int line) {
    struct counts found = counts_of(name);

    if (memcmp(&found, &expected, sizeof(found)) != 0)
        failed_at(file, line,
                  "%s counted rx %lu packets %lu bytes, tx %lu packets %lu bytes, %lu dropped; "
                  "expected rx %lu packets %lu bytes, tx %lu packets %lu bytes, %lu dropped",
                  name, found.rx_packets, found.rx_bytes, found.tx_packets, found.tx_bytes,
                  found.tx_dropped, expected.rx_packets, expected.rx_bytes, expected.tx_packets,
                  expected.tx_bytes, expected.tx_dropped);
}

static uint32_t random_state = 1;

void draw_from(uint32_t seed) {
    random_state = seed;
}

unsigned draw(unsigned below) {
    random_state = random_state * 1664525 + 1013904223;
    return (unsigned)(((uint64_t)(random_state >> 8) * below) >> 24);
}

bool now_and_then(unsigned in) {
    return draw(in) == 0;
}

unsigned buffers_in_use(void) {
    uint32_t total, in_use;

    mbuf_pool_usage(&total, &in_use);
    return in_use;
}

/* --- configuration and RPC --- */

/* ' becomes ". The caller frees it. */
static char *json_text(const char *text) {
    char *out = strdup(text);

    for (char *c = out; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    return out;
}

static json_t *parse(const char *text, const char *file, int line) {
    json_error_t error;
    char *json = json_text(text);
    json_t *document = json_loads(json, JSON_REJECT_DUPLICATES, &error);

    if (!document) {
        fprintf(stderr, "# %s\n", text);
        failed_at(file, line, "mistake in the case's JSON at %d: %s", error.position, error.text);
    }
    free(json);
    return document;
}

/* Takes the place of rte_dev_probe() (ld --wrap): a net_ring device that a case names is made
 * around the harness's rings. EAL would make one that talks to itself. */
int __wrap_rte_dev_probe(const char *devargs);
int __real_rte_dev_probe(const char *devargs);

int __wrap_rte_dev_probe(const char *devargs) {
    for (enum place place = LAN; place < PLACES; place++) {
        char name[64];

        snprintf(name, sizeof(name), "net_ring_%s", place_names[place]);
        if (strcmp(devargs, name) == 0)
            return rte_eth_from_rings(place_names[place], rx_rings[place], options.queues,
                                      tx_rings[place], options.queues, 0) < 0
                       ? -ENODEV
                       : 0;
    }
    return __real_rte_dev_probe(devargs);
}

static bool apply_document(const char *json, bool quietly, const char *file, int line) {
    struct problems problems = {0};
    json_t *document = parse(json, file, line);
    bool done = config_store_apply(document, 0, NULL, &problems) == CONFIG_DONE;
    json_decref(document);
    for (size_t i = 0; i < problems.count && !quietly; i++)
        fprintf(stderr, "# %s: %s\n", problems.list[i].path, problems.list[i].message);
    problems_free(&problems);
    return done;
}

void apply_at(const char *json, const char *file, int line) {
    if (!apply_document(json, false, file, line))
        failed_at(file, line, "the configuration was refused");
    turn();
}

void apply_fails_at(const char *json, const char *file, int line) {
    if (apply_document(json, true, file, line))
        failed_at(file, line, "the configuration was put in force");
    turn();
}

void apply_fails_because_at(const char *json, const char *path, const char *file, int line) {
    struct problems problems = {0};
    json_t *document = parse(json, file, line);
    bool done = config_store_apply(document, 0, NULL, &problems) == CONFIG_DONE, right;

    json_decref(document);
    right = problems.count == 1 && strcmp(problems.list[0].path, path) == 0;
    for (size_t i = 0; i < problems.count && !right; i++)
        fprintf(stderr, "# %s: %s\n", problems.list[i].path, problems.list[i].message);
    problems_free(&problems);
    if (done)
        failed_at(file, line, "the configuration was put in force");
    if (!right)
        failed_at(file, line, "a problem at %s alone was expected", path);
    turn();
}

const char *rpc_fails_at(const char *method, const char *params, const char *path, const char *file,
                         int line) {
    const struct rpc_method *found = rpc_find(method);
    json_t *document = parse(params, file, line);
    struct rpc_request request = {.params = document};
    const char *message = NULL;
    json_t *result;

    if (!found)
        failed_at(file, line, "there is no method %s", method);
    result = found->call(&request);
    json_decref(document);
    for (size_t i = 0; i < request.problems.count; i++) {
        if (strcmp(request.problems.list[i].path, path) == 0)
            message = text("%s", request.problems.list[i].message);
        else
            fprintf(stderr, "# %s: %s\n", request.problems.list[i].path,
                    request.problems.list[i].message);
    }
    problems_free(&request.problems);
    if (result)
        failed_at(file, line, "%s succeeded", method);
    if (!message)
        failed_at(file, line, "a problem at %s was expected", path);
    return message;
}

const char *rpc_at(const char *method, const char *params, const char *file, int line) {
    const struct rpc_method *found = rpc_find(method);
    json_t *document = parse(params, file, line);
    struct rpc_request request = {.params = document};
    json_t *result;
    char *dump;
    const char *out;

    if (!found)
        failed_at(file, line, "there is no method %s", method);
    result = found->call(&request);
    for (size_t i = 0; i < request.problems.count; i++)
        fprintf(stderr, "# %s: %s\n", request.problems.list[i].path,
                request.problems.list[i].message);
    problems_free(&request.problems);
    json_decref(document);
    if (!result)
        failed_at(file, line, "%s failed", method);
    dump = json_dumps(result, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(result);
    for (char *c = dump; *c; c++)
        *c = *c == '"' ? '\'' : *c;
    out = text("%s", dump);
    free(dump);
    return out;
}

static void begin(void) {
    /* Workers on threads of their own may be a little behind. */
    for (unsigned quiet = 0; options.threads && quiet < 10; quiet++) {
        usleep(2000);
        if (discard(ANYWHERE) > 0)
            quiet = 0;
    }
    discard(ANYWHERE);
    sum(&baseline_counters);
    baseline_drops = baseline_counters;
}

void start_at_once(const char *json) {
    begin();
    apply_at(json, __FILE__, __LINE__);
}

void start(const char *json) {
    start_at_once(json);
    advance(SETTLE_MSEC);
    begin();
}

void harness_clear(void) {
    struct rte_mbuf *mbuf;

    apply_document("{}", false, __FILE__, __LINE__);
    turn();
    advance(200);
    discard(ANYWHERE);
    for (enum place place = LAN; place < PLACES; place++) {
        for (unsigned queue = 0; queue < options.queues; queue++) {
            while (rte_ring_dequeue(rx_rings[place][queue], (void **)&mbuf) == 0)
                rte_pktmbuf_free(mbuf);
        }
    }
}

/* --- start and end of the program --- */

static void plan_workers(void) {
    struct port *ports[PORTS_MAX];

    if (harness_around_plan)
        harness_around_plan();
    if (workers_plan(ports, interface_ports(ports)) != 0)
        failed_at(__FILE__, __LINE__, "the workers got no new pipelines");
    if (harness_around_plan)
        harness_around_plan();
}

static void must(int error, const char *what) {
    if (error < 0) {
        fprintf(stderr, "harness: %s: %s\n", what, strerror(-error));
        exit(EXIT_FAILURE);
    }
}

/* Threads may run on any CPU that this process may use: there may be fewer of them than threads. */
static void lcore_argument(char *argument, size_t size) {
    cpu_set_t set;
    char cpus[2000] = "", *at = cpus;
    int used;

    sched_getaffinity(0, sizeof(set), &set);
    for (unsigned cpu = 0; cpu < 256; cpu++) {
        if (CPU_ISSET(cpu, &set))
            append(&at, "%s%u", at > cpus ? "," : "", cpu);
    }
    used = snprintf(argument, size, "--lcores=0@(%s)", cpus);
    for (unsigned i = 1; options.threads && i <= options.workers; i++)
        used += snprintf(argument + used, size - (size_t)used, ",%u@(%s)", i, cpus);
}

static void make_rings(void) {
    for (enum place place = LAN; place < PLACES; place++) {
        for (unsigned queue = 0; queue < options.queues; queue++) {
            char name[RTE_RING_NAMESIZE];

            snprintf(name, sizeof(name), "in_%s_%u", place_names[place], queue);
            rx_rings[place][queue] = rte_ring_create(name, RING_SIZE, SOCKET_ID_ANY, 0);
            snprintf(name, sizeof(name), "out_%s_%u", place_names[place], queue);
            tx_rings[place][queue] = rte_ring_create(name, RING_SIZE, SOCKET_ID_ANY, 0);
            if (!rx_rings[place][queue] || !tx_rings[place][queue])
                must(-ENOMEM, "rings");
        }
    }
}

void harness_init(const char *program, const struct harness_options *wanted) {
    char lcores[8000];
    char *eal[] = {(char *)(uintptr_t)program,
                   (char *)(uintptr_t) "--no-huge",
                   (char *)(uintptr_t) "--no-shconf",
                   (char *)(uintptr_t) "-m",
                   (char *)(uintptr_t) "768",
                   lcores,
                   (char *)(uintptr_t) "--no-telemetry",
                   (char *)(uintptr_t) "-a",
                   (char *)(uintptr_t) "0000:00:00.0",
                   (char *)(uintptr_t) "--log-level=error",
                   NULL};
    struct problems problems = {0};
    unsigned worker_lcores[WORKERS_MAX] = {0};
    enum log_level level = LOG_LEVEL_ERROR;

    options = *wanted;
    options.workers = options.workers ? options.workers : 1;
    options.queues = options.queues ? options.queues : 1;
    if (getenv("HARNESS_LOG"))
        log_level_parse(getenv("HARNESS_LOG"), &level);
    log_set_level(level);
    must(event_init(), "event loop");
    lcore_argument(lcores, sizeof(lcores));
    must(rte_eal_init(sizeof(eal) / sizeof(eal[0]) - 1, eal), "EAL");
    must(packet_meta_init(), "metadata");
    must(rcu_init(options.workers), "RCU");
    for (unsigned i = 0; i < options.workers; i++)
        worker_lcores[i] = options.threads ? i + 1 : 0;
    must(workers_create(worker_lcores, options.workers), "workers");
    must(punt_init(), "punts");
    must(config_init(&problems), "sections");
    if (!options.threads)
        rcu_set_shared_thread(0);
    config_after_commit = plan_workers;
    make_rings();
    /* The first configuration makes the pipelines that workers start with. */
    apply_document("{}", false, __FILE__, __LINE__);
    if (options.threads)
        must(workers_start(), "threads");
}

void harness_exit(void) {
    control_unload();
    workers_stop();
    control_stop();
    host_free();
    interface_free();
    punt_free();
    rcu_free();
    workers_free();
    mbuf_pools_free();
    frames_free();
    rte_eal_cleanup();
    event_free();
}

/* --- running cases --- */

static struct test_case *cases;
static bool finished;

void test_case_register(struct test_case *test_case) {
    struct test_case **end = &cases;

    while (*end)
        end = &(*end)->next;
    *end = test_case;
}

static void run_case(void **state) {
    const struct test_case *test_case = *state;

    finished = false;
    buffers_at_start = buffers_in_use();
    test_case->body();
    expect_nothing(ANYWHERE);
    expect_no_drops();
    harness_clear();
    finished = true;
    for (unsigned i = 0; options.threads && i < 2000 && buffers_in_use() != buffers_at_start; i++)
        usleep(1000); /* the workers let go of the last ones */
    if (buffers_in_use() != buffers_at_start)
        failed_at(__FILE__, __LINE__, "%u packet buffers are out at the end, %u were at the start",
                  buffers_in_use(), buffers_at_start);
}

static int end_case(void **state) {
    (void)state;
    harness_around_plan = NULL;
    if (!finished)
        harness_clear();
    frames_free();
    return 0;
}

int harness_main(int argc, char **argv, const struct harness_options *wanted) {
    const char *filter = argc > 1 ? argv[1] : "";
    struct CMUnitTest tests[1000];
    size_t count = 0;
    int failures;

    harness_init(argv[0], wanted);
    for (struct test_case *c = cases; c && count < 1000; c = c->next) {
        if (strstr(c->name, filter))
            tests[count++] = (struct CMUnitTest){.name = c->name,
                                                 .test_func = run_case,
                                                 .teardown_func = end_case,
                                                 .initial_state = c};
    }
    failures = _cmocka_run_group_tests("packet", tests, count, NULL, NULL);
    harness_exit();
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
