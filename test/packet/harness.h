/*
 * The whole router in one process, between rings: a case writes a configuration, injects frames on
 * ports and says which frames have to come out, which drop reasons have to count, and nothing else.
 *
 *     CASE(forwards_ipv4) {
 *         start(standard);
 *         inject(LAN, udp4(.source = "192.168.1.10:1000", .destination = "203.0.113.1:53"));
 *         expect(WAN, udp4(.source = "192.168.1.10:1000", .destination = "203.0.113.1:53",
 *                          .ttl = 63));
 *     }
 *
 * Everything between the rings is the product: JSON is decoded and applied by lib/control, ports
 * are opened by lib/core, workers are turned by the same function as in the program. Only the crank
 * is the harness's: expect() turns the workers and the event loop until nothing moves any more.
 *
 * At the end of each case nothing may be left over: no frame on a port, no drop that the case did
 * not expect, and, after the empty configuration was applied, no packet buffer.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frame.h"

/* --- the usual network --- */

/* Ports: devices net_ring_lan ... On port N the router's MAC address is 02:00:00:00:0N:01, and that
 * of the usual neighbour 02:00:00:00:0N:10. */
enum place { ANYWHERE, LAN, WAN, DMZ, ISP, PLACES };

#define ROUTER_LAN "02:00:00:00:01:01"
#define ROUTER_WAN "02:00:00:00:02:01"
#define ROUTER_DMZ "02:00:00:00:03:01"
#define ROUTER_ISP "02:00:00:00:04:01"
#define HOST_LAN "02:00:00:00:01:10"
#define HOST_WAN "02:00:00:00:02:10"
#define HOST_DMZ "02:00:00:00:03:10"
#define HOST_ISP "02:00:00:00:04:10"
#define BROADCAST "ff:ff:ff:ff:ff:ff"

/* JSON, in which ' stands for ". No limit on ICMP errors and punts, so that cases do not depend on
 * the time they take. */
#define UNLIMITED                                                                           \
    "'mbufs': 32768,"                                                                       \
    "'icmp': {'rate_limit': 1000000, 'burst': 100000},"                                     \
    "'punt': {'arp': 10000000, 'resolve': 10000000, 'ike': 10000000, 'routing': 10000000, " \
    "'other': 10000000}"
#define LAN_PORT "'device': 'net_ring_lan', 'mac': '" ROUTER_LAN "'"
#define WAN_PORT "'device': 'net_ring_wan', 'mac': '" ROUTER_WAN "'"
#define DMZ_PORT "'device': 'net_ring_dmz', 'mac': '" ROUTER_DMZ "'"
#define ISP_PORT "'device': 'net_ring_isp', 'mac': '" ROUTER_ISP "'"
#define LAN_ADDRESSES "'addresses': ['192.168.1.1/24', '2001:db8:1::1/64']"
#define WAN_ADDRESSES "'addresses': ['198.51.100.1/24', '2001:db8:2::1/64']"
#define DMZ_ADDRESSES "'addresses': ['10.3.0.1/24', '2001:db8:3::1/64']"
#define ISP_ADDRESSES "'addresses': ['100.64.4.1/24', '2001:db8:4::1/64']"
#define LAN_NEIGHBOURS                                                        \
    "{'interface': 'lan', 'address': '192.168.1.10', 'mac': '" HOST_LAN "'}," \
    "{'interface': 'lan', 'address': '2001:db8:1::10', 'mac': '" HOST_LAN "'}"
#define WAN_NEIGHBOURS                                                        \
    "{'interface': 'wan', 'address': '198.51.100.2', 'mac': '" HOST_WAN "'}," \
    "{'interface': 'wan', 'address': '2001:db8:2::2', 'mac': '" HOST_WAN "'}"
#define DMZ_NEIGHBOURS                                                     \
    "{'interface': 'dmz', 'address': '10.3.0.10', 'mac': '" HOST_DMZ "'}," \
    "{'interface': 'dmz', 'address': '2001:db8:3::10', 'mac': '" HOST_DMZ "'}"
#define ISP_NEIGHBOURS                                                      \
    "{'interface': 'isp', 'address': '100.64.4.2', 'mac': '" HOST_ISP "'}," \
    "{'interface': 'isp', 'address': '2001:db8:4::2', 'mac': '" HOST_ISP "'}"
#define DEFAULT_ROUTES                                \
    "{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}," \
    "{'prefix': '::/0', 'via': '2001:db8:2::2'}"

/* LAN, WAN with the default routes, and DMZ; neighbours are static. */
extern const char *const standard;
/* The same, with more routes: "{...}, {...}". */
const char *standard_with_routes(const char *routes);

/* --- a case --- */

/* Puts the configuration in force, lets the router announce itself (for 12 s of its clock), and
 * forgets what it sent and counted meanwhile. */
void start(const char *json);
/* The same without waiting: what the router says at first is the case's to expect. */
void start_at_once(const char *json);
/* Another configuration. Nothing is forgotten. */
#define apply(json) apply_at((json), __FILE__, __LINE__)
void apply_at(const char *json, const char *file, int line);
/* One that has to be refused. */
#define apply_fails(json) apply_fails_at((json), __FILE__, __LINE__)
void apply_fails_at(const char *json, const char *file, int line);
/* One that has to be refused because of what stands at this path, "$.routes[0].via", and nothing
 * else. */
#define apply_fails_because(json, path) apply_fails_because_at((json), (path), __FILE__, __LINE__)
void apply_fails_because_at(const char *json, const char *path, const char *file, int line);
/* Calls a JSON-RPC method, which has to succeed; the result as compact JSON, with ' for ". */
#define rpc(method, params) rpc_at((method), (params), __FILE__, __LINE__)
const char *rpc_at(const char *method, const char *params, const char *file, int line);
/* The same for one that has to fail, with a problem at this path; its message. */
#define rpc_fails(method, params, path) rpc_fails_at((method), (params), (path), __FILE__, __LINE__)
const char *rpc_fails_at(const char *method, const char *params, const char *path, const char *file,
                         int line);

/* Turns the workers and the event loop until nothing moves. */
void turn(void);
/* Moves the router's clock, in steps of 100 ms with turns in between. */
void advance(unsigned msec);

/* A frame arrives; nothing moves yet. The router's and the usual neighbour's MAC addresses are
 * filled in, unless ether() has set others. */
void inject(enum place place, const struct frame *frame);
void inject_queue(enum place place, unsigned queue, const struct frame *frame);
/* With what a NIC says of the flow. */
void inject_hashed(enum place place, const struct frame *frame, uint32_t hash);
/* The same in several buffers: of `first` bytes and the rest; of `each` bytes. */
void inject_split(enum place place, const struct frame *frame, unsigned first);
void inject_segments(enum place place, const struct frame *frame, unsigned each);
/* A packet of the router's own host, as a twin takes it from Linux: whole, in the VRF default, and
 * without IPv4 options or extension headers. */
void inject_from_host(const struct frame *frame);

/* The next frame that leaves by the port is this one, to the byte. */
#define expect(place, frame) expect_at((place), (frame), __FILE__, __LINE__)
void expect_at(enum place place, const struct frame *frame, const char *file, int line);
/* No (further) frame leaves by this port, or ANYWHERE. */
#define expect_nothing(place) expect_nothing_at((place), __FILE__, __LINE__)
void expect_nothing_at(enum place place, const char *file, int line);

/* The next frame, whatever it is; NULL if there is none. */
struct frame *take(enum place place);
/* The same without turning: only what has already left. */
struct frame *take_waiting(enum place place);
#define take_one(place) take_one_at((place), __FILE__, __LINE__)
struct frame *take_one_at(enum place place, const char *file, int line);
/* Throws away what has left; returns the number of frames. */
unsigned discard(enum place place);

/* Since the start, or the last expectation of drops, exactly these were counted. */
struct drops {
    const char *name; /* "parse.truncated" */
    uint64_t count;
};
#define expect_drops(...)                                                                         \
    expect_drops_at((const struct drops[]){__VA_ARGS__},                                          \
                    sizeof((const struct drops[]){__VA_ARGS__}) / sizeof(struct drops), __FILE__, \
                    __LINE__)
#define expect_drop(reason, number) expect_drops({(reason), (number)})
#define expect_no_drops() expect_drops_at(NULL, 0, __FILE__, __LINE__)
void expect_drops_at(const struct drops *drops, size_t count, const char *file, int line);
/* How often the reason counted since then; nothing is expected or forgotten. */
uint64_t drops_so_far(const char *name);
void forget_drops(void);

/* What arrives leaves on the other side, one hop further. */
#define passes(from, to, packet)                \
    do {                                        \
        const struct frame *passing = (packet); \
                                                \
        inject((from), passing);                \
        expect((to), hop(passing));             \
    } while (0)
/* Nothing comes of it but a count. */
#define is_dropped(from, packet, reason) \
    do {                                 \
        inject((from), (packet));        \
        expect_nothing(ANYWHERE);        \
        expect_drop((reason), 1);        \
    } while (0)

/* What the interface counted since the start. */
struct counts {
    uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, tx_dropped;
};
#define expect_counts(interface, ...) \
    expect_counts_at((interface), (struct counts){__VA_ARGS__}, __FILE__, __LINE__)
void expect_counts_at(const char *interface, struct counts expected, const char *file, int line);
struct counts counts_of(const char *interface);

/* Fails the case with a sentence. */
#define require(condition, ...)                         \
    do {                                                \
        if (!(condition))                               \
            failed_at(__FILE__, __LINE__, __VA_ARGS__); \
    } while (0)
void failed_at(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn));

/* Random histories that are the same in each run: a number below this one, and true in so many. */
void draw_from(uint32_t seed);
unsigned draw(unsigned below);
bool now_and_then(unsigned in);

/* Buffers that are out of the pools. */
unsigned buffers_in_use(void);
/* Text, and room for it, that live until the case ends. */
char *room_for(size_t size);
/* Writes text at *at, where there has to be room, and moves *at behind it. */
void append(char **at, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- registration --- */

struct test_case {
    const char *name;
    void (*body)(void);
    struct test_case *next;
};
void test_case_register(struct test_case *test_case);

/* Defines a case; those of a file run in the order of their definition. */
#define CASE(identifier)                                                        \
    static void case_##identifier(void);                                        \
    static struct test_case case_of_##identifier = {.name = #identifier,        \
                                                    .body = case_##identifier}; \
    __attribute__((constructor)) static void register_##identifier(void) {      \
        test_case_register(&case_of_##identifier);                              \
    }                                                                           \
    static void case_##identifier(void)

struct harness_options {
    unsigned workers; /* 0: 1 */
    unsigned queues;  /* of each port; 0: 1 */
    bool threads;     /* workers run on threads of their own; the crank only turns the event loop */
};

/* Runs the cases, or those whose name contains the first argument. The program's exit status. */
int harness_main(int argc, char **argv, const struct harness_options *options);

#define HARNESS_MAIN(...)                                                        \
    int main(int argc, char **argv) {                                            \
        return harness_main(argc, argv, &(struct harness_options){__VA_ARGS__}); \
    }

/* For those who do without cases (fuzzing). */
void harness_init(const char *program, const struct harness_options *options);
void harness_exit(void);
/* Puts the empty configuration in force and throws away what is left. */
void harness_clear(void);
/* The rings behind a port, for traffic that another thread makes. */
struct rte_ring;
struct rte_ring *harness_rx_ring(enum place place, unsigned queue);
struct rte_ring *harness_tx_ring(enum place place, unsigned queue);
/* A buffer with the frame as inject() would send it, in buffers of at most `each` bytes. */
struct rte_mbuf;
struct rte_mbuf *harness_mbuf(enum place place, const struct frame *frame, unsigned first,
                              unsigned each);
/* When not NULL: run before and after the workers get their new pipelines. */
extern void (*harness_around_plan)(void);
