/*
 * Workers on threads of their own, as in the program: traffic never stops while the control thread
 * changes everything around it.
 */
#include <pthread.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

/* A source and sink on another thread: sends as long as not too much is under way, and counts what
 * comes back. */
enum { WINDOW = 256, SEND_BURST = 16 };

static struct traffic {
    pthread_t thread;
    atomic_bool stop;
    time_t begun;
    struct frame *frame;
    atomic_ulong sent, arrived, other;
} traffic;

static void count_arrivals(void) {
    struct rte_mbuf *mbuf;

    while (rte_ring_dequeue(harness_tx_ring(WAN, 0), (void **)&mbuf) == 0) {
        const uint8_t *bytes = rte_pktmbuf_mtod(mbuf, const uint8_t *);

        if (mbuf->pkt_len == traffic.frame->length &&
            memcmp(bytes + IP + 12, traffic.frame->bytes + IP + 12, 8) == 0)
            traffic.arrived++;
        else
            traffic.other++;
        rte_pktmbuf_free(mbuf);
    }
}

static void *run_traffic(void *context) {
    (void)context;
    while (!traffic.stop) {
        if (traffic.sent - traffic.arrived < WINDOW) {
            for (unsigned i = 0; i < SEND_BURST; i++) {
                inject(LAN, traffic.frame);
                traffic.sent++;
            }
        } else {
            usleep(20); /* the workers may need this CPU */
        }
        count_arrivals();
    }
    for (unsigned wait = 0; wait < 5000 && traffic.sent != traffic.arrived; wait++) {
        usleep(1000);
        count_arrivals();
    }
    return NULL;
}

static void begin_traffic(void) {
    traffic.frame =
        udp4(.source = "192.168.1.10:1000", .destination = "203.0.113.1:53", .size = 50);
    traffic.sent = traffic.arrived = traffic.other = 0;
    traffic.stop = false;
    traffic.begun = time(NULL);
    require(pthread_create(&traffic.thread, NULL, run_traffic, NULL) == 0, "no thread");
}

/* Waits until this much more has passed, so that changes do not outrun the traffic. */
static void let_pass(unsigned packets) {
    unsigned long until = traffic.arrived + packets;

    for (unsigned wait = 0; wait < 50000 && traffic.arrived < until; wait++) {
        turn();
        usleep(100);
    }
}

/* Cases end early on a machine that has too much to do. */
static bool time_is_left(void) {
    enum { SECONDS = 15 };

    return time(NULL) - traffic.begun < SECONDS;
}

#define end_traffic()                                                            \
    do {                                                                         \
        traffic.stop = true;                                                     \
        pthread_join(traffic.thread, NULL);                                      \
        require(traffic.sent == traffic.arrived, "%lu of %lu packets were lost", \
                traffic.sent - traffic.arrived, traffic.sent);                   \
    } while (0)

CASE(a_worker_on_its_own_thread_forwards) {
    start(standard);
    for (unsigned id = 0; id < 100; id++)
        inject(LAN, udp4(.source = "192.168.1.10:1", .destination = "203.0.113.1:2", .id = id));
    for (unsigned id = 0; id < 100; id++)
        expect(WAN,
               hop(udp4(.source = "192.168.1.10:1", .destination = "203.0.113.1:2", .id = id)));
    inject(LAN, udp4(.source = "192.168.1.10:1", .destination = "10.3.0.77:2"));
    expect(DMZ, arp_request(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ, .target = "10.3.0.77"));
    inject(DMZ, arp_reply(.sender = "10.3.0.77", .sender_mac = HOST_DMZ, .target = "10.3.0.1",
                          .target_mac = ROUTER_DMZ));
    expect(DMZ, udp4(.source = "192.168.1.10:1", .destination = "10.3.0.77:2", .ttl = 63));
}

CASE(a_hundred_applies_lose_nothing) {
    start(standard);
    begin_traffic();
    for (unsigned round = 0; round < 100 && time_is_left(); round++) {
        apply(round % 2
                  ? standard
                  : "{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
                    "'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24', '192.168.5.1/24',"
                    "'2001:db8:1::1/64']},"
                    "'lan.9': {'parent': 'lan', 'vlan': 9, 'addresses': ['192.168.9.1/24']},"
                    "'wan': {" WAN_PORT "," WAN_ADDRESSES ", 'mtu': 1400},"
                    "'isp': {" ISP_PORT "," ISP_ADDRESSES ", 'vrf': 'blue'}},"
                    "'neighbours': [" ISP_NEIGHBOURS "," WAN_NEIGHBOURS "],"
                    "'routes': [{'prefix': '203.0.112.0/24', 'via': '198.51.100.2'}," DEFAULT_ROUTES
                    "]," UNLIMITED "}");
        let_pass(50);
    }
    end_traffic();
    apply(standard); /* what comes and goes has nothing more to say (MLD, up to a second later) */
    let_pass(1500);
    discard(ANYWHERE);
    forget_drops();
}

CASE(a_hundred_thousand_routes_come_and_go) {
    enum { ROUTES = 100000, CHUNK = 10000 };
    char *json = room_for(CHUNK * 90 + 100);

    start(standard);
    begin_traffic();
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned first = 100000; first < 100000 + ROUTES; first += CHUNK) {
            char *at = json;

            append(&at, "{'routes': [");
            for (unsigned i = first; i < first + CHUNK; i++)
                append(&at, "%s{'prefix': '%u.%u.%u.0/24'%s}", i > first ? "," : "",
                       201 + i / 65536, i / 256 % 256, i % 256,
                       pass ? "" : ", 'via': '198.51.100.2'");
            append(&at, "]}");
            rpc(pass ? "route.delete" : "route.add", json);
            let_pass(50);
        }
    }
    end_traffic();
    discard(ANYWHERE);
    expect_no_drops();
}

CASE(groups_neighbours_and_interfaces_around_it_change) {
    start(standard);
    begin_traffic();
    for (unsigned round = 0; round < 40 && time_is_left(); round++) {
        rpc("route.add", round % 2
                             ? "{'prefix': '203.0.113.0/24', 'via': '198.51.100.2'}"
                             : "{'prefix': '203.0.113.0/24', 'via': ['198.51.100.2',"
                               "{'address': '198.51.100.2', 'interface': 'wan', 'weight': 3}]}");
        rpc("neighbour.add", "{'interface': 'wan', 'address': '198.51.100.9',"
                             "'mac': '02:00:00:00:02:99'}");
        rpc("interface.set", "{'name': 'dmz', 'admin': 'down'}");
        let_pass(20);
        rpc("neighbour.delete", "{'interface': 'wan', 'address': '198.51.100.9'}");
        rpc("interface.set", "{'name': 'dmz', 'admin': 'up'}");
        rpc("route.delete", "{'prefix': '203.0.113.0/24'}");
        let_pass(20);
    }
    end_traffic();
    discard(ANYWHERE);
    forget_drops();
}

/* A route that alternates between two ports: each packet leaves by one of them. */
CASE(a_route_that_moves_to_and_fro_loses_nothing) {
    struct frame *frame = udp4(.source = "192.168.1.10:1", .destination = "203.0.113.1:2");
    unsigned sent = 0, left = 0;

    start(standard);
    for (unsigned round = 0; round < 100; round++) {
        rpc("route.add", round % 2 ? "{'prefix': '203.0.113.0/24', 'via': '198.51.100.2'}"
                                   : "{'prefix': '203.0.113.0/24', 'via': '10.3.0.10'}");
        for (unsigned i = 0; i < 20; i++, sent++)
            inject(LAN, frame);
        left += discard(WAN) + discard(DMZ);
    }
    rpc("route.delete", "{'prefix': '203.0.113.0/24'}");
    for (unsigned wait = 0; wait < 1000 && left < sent; wait++) {
        usleep(1000);
        left += discard(WAN) + discard(DMZ);
    }
    require(left == sent, "%u of %u left", left, sent);
}

HARNESS_MAIN(.workers = 2, .threads = true)
