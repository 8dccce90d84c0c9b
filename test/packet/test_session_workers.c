/*
 * Sessions on two workers, each on a thread of its own: one direction's packets come to one of them
 * and the answers to the other, at the same time.
 */
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "core/worker.h"
#include "harness.h"
#include "nat/nat_mapping.h"
#include "session/session.h"

#define CLIENT "192.168.1.10"
#define SERVER "203.0.113.1"
#define OUTSIDE "198.51.100.1"

enum { SYN = 0x02, ACK = 0x10 };

#define ROUTER(nat)                                                                                    \
    "{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "}, 'wan': {" WAN_PORT                      \
    ", " WAN_ADDRESSES "}}, 'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"                    \
    "'routes': [" DEFAULT_ROUTES "], 'sessions': {'size': 65536, 'timeouts': {'udp_new': 60,"          \
    "'udp': 60, 'tcp_established': 60, 'tcp_answered': 60, 'tcp_opening': 60}},"                       \
    "'firewall': {'default': 'drop', 'rules': [{'name': 'out', 'in': 'lan', 'action': 'accept'}]}" nat \
    "," UNLIMITED "}"
static const char *const masquerade =
    ROUTER(", 'nat': {'source': [{'out': 'wan', 'to': 'interface'}]}");
static const char *const no_nat = ROUTER("");

static unsigned ended(const char *text_of_count) {
    const char *at = strstr(text_of_count, "'sessions':");

    return at ? (unsigned)strtoul(at + strlen("'sessions':"), NULL, 10) : 0;
}

/* Waits for all that the ring can still bring, up to this number. */
static unsigned drain(enum place place, struct frame **found, unsigned most) {
    time_t until = time(NULL) + 10;
    unsigned count = 0;

    while (count < most && time(NULL) < until) {
        struct frame *frame = take_waiting(place);

        if (!frame) {
            usleep(50);
            continue;
        }
        if (found)
            found[count] = frame;
        count++;
    }
    return count;
}

CASE(each_direction_has_its_worker) {
    unsigned queues[2] = {0};
    uint16_t port, queue;

    start(masquerade);
    for (unsigned worker = 0; worker < 2; worker++) {
        while (worker_queue(worker_get(worker), queues[worker], &port, &queue))
            queues[worker]++;
    }
    require(queues[0] == 1 && queues[1] == 1, "%u and %u queues", queues[0], queues[1]);
}

/* What leaves the WAN comes back at once, turned round, while more goes out. */
static struct frame *answer_to(const struct frame *out) {
    struct frame *back = copy(out);
    uint8_t *ip = back->bytes + IP;

    memcpy(ip + 12, out->bytes + IP + 16, 4);
    memcpy(ip + 16, out->bytes + IP + 12, 4);
    memcpy(ip + 20, out->bytes + IP + 22, 2);
    memcpy(ip + 22, out->bytes + IP + 20, 2);
    back->addressed = false;
    return back;
}

CASE(answers_come_while_more_goes_out) {
    enum { ROUNDS = 60, FLOWS = 100 };
    unsigned answered = 0;

    start(masquerade);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct frame *outs[FLOWS];
        unsigned count;

        for (unsigned i = 0; i < FLOWS; i++)
            inject(LAN, udp4(.source = text(CLIENT ":%u", 2000 + (round * 37 + i) % 5000),
                             .destination = SERVER ":53", .size = 20));
        count = drain(WAN, outs, FLOWS);
        require(count == FLOWS, "round %u: %u of %u went out", round, count, FLOWS);
        for (unsigned i = 0; i < FLOWS; i++) {
            require(memcmp(outs[i]->bytes + IP + 12, (uint8_t[]){198, 51, 100, 1}, 4) == 0,
                    "one was not translated");
            inject(WAN, answer_to(outs[i]));
            /* The other worker has new sessions to open meanwhile. */
            if (i % 4 == 0)
                inject(LAN, udp4(.source = text(CLIENT ":%u", 20000 + round * FLOWS + i),
                                 .destination = SERVER ":54", .size = 20));
        }
        answered += drain(LAN, outs, FLOWS);
        for (unsigned i = 0; i < FLOWS; i++)
            require(outs[i]->bytes[IP + 16] == 192, "an answer was not translated back");
        require(drain(WAN, NULL, FLOWS / 4) == FLOWS / 4, "round %u: new ones were lost", round);
        frames_free();
    }
    require(answered == ROUNDS * FLOWS, "%u of %u answers came", answered, ROUNDS * FLOWS);
    expect_no_drops();
    require(nat_mapping_count() == nat_mapping_ports_taken(), "%u mappings and %u ports",
            nat_mapping_count(), nat_mapping_ports_taken());
}

/* Both workers open sessions, and both sweep, and all end. */
CASE(everything_comes_back) {
    enum { ROUNDS = 20, FLOWS = 200 };

    start(masquerade);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < FLOWS; i++) {
            inject(LAN, udp4(.source = text("192.168.1.%u:%u", 10 + i % 100, 2000 + round),
                             .destination = SERVER ":53"));
            inject(WAN, icmp4_echo(.source = text("203.0.113.%u", 1 + i), .destination = OUTSIDE,
                                   .identifier = round));
        }
        require(drain(WAN, NULL, FLOWS) == FLOWS, "round %u: some were lost", round);
        frames_free();
        if (round % 5 == 4)
            rpc("session.flush", "{}");
    }
    discard(ANYWHERE);
    forget_drops(); /* the router's policy for pings is the default */
    for (unsigned i = 0; i < 200 && ended(rpc("session.count", "{}")) > 0; i++) {
        advance(1000);
        usleep(10000);
    }
    require(ended(rpc("session.count", "{}")) == 0, "%s", rpc("session.count", "{}"));
    require(nat_mapping_count() == 0 && nat_mapping_ports_taken() == 0, "%u mappings and %u ports",
            nat_mapping_count(), nat_mapping_ports_taken());
}

/* The handshake's three steps come to different workers, as fast as they can. */
CASE(handshakes_across_workers) {
    enum { CONNECTIONS = 300 };

    start(masquerade);
    for (unsigned n = 0; n < CONNECTIONS; n++) {
        const char *inside = text(CLIENT ":%u", 3000 + n), *outside = text(OUTSIDE ":%u", 3000 + n);

        inject(LAN, tcp4(.source = inside, .destination = SERVER ":80", .tcp_flags = SYN));
        expect(WAN,
               tcp4(.source = outside, .destination = SERVER ":80", .tcp_flags = SYN, .ttl = 63));
        inject(WAN, tcp4(.source = SERVER ":80", .destination = outside, .tcp_flags = SYN | ACK));
        expect(LAN, tcp4(.source = SERVER ":80", .destination = inside, .tcp_flags = SYN | ACK,
                         .ttl = 63));
        inject(LAN, tcp4(.source = inside, .destination = SERVER ":80", .tcp_flags = ACK));
        expect(WAN,
               tcp4(.source = outside, .destination = SERVER ":80", .tcp_flags = ACK, .ttl = 63));
        if (n % 50 == 49)
            frames_free();
    }
    require(strstr(rpc("session.count", "{}"), text("'tcp_established':%u,", CONNECTIONS)) != NULL,
            "%s", rpc("session.count", "{}"));
}

CASE(reloads_keep_sessions_on_both_workers) {
    enum { FLOWS = 50 };
    struct frame *outs[FLOWS];

    start(masquerade);
    for (unsigned i = 0; i < FLOWS; i++)
        inject(LAN, udp4(.source = text(CLIENT ":%u", 2000 + i), .destination = SERVER ":53"));
    require(drain(WAN, outs, FLOWS) == FLOWS, "some were lost");
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < FLOWS; i++)
            inject(WAN, answer_to(outs[i]));
        apply(masquerade);
        require(drain(LAN, NULL, FLOWS) == FLOWS, "round %u: answers were lost", round);
        for (unsigned i = 0; i < FLOWS; i++)
            inject(LAN, udp4(.source = text(CLIENT ":%u", 2000 + i), .destination = SERVER ":53"));
        require(drain(WAN, NULL, FLOWS) == FLOWS, "round %u: some were lost", round);
    }
}

/* What is still under way is seen as well. Returns the number of frames. */
static unsigned nothing_leaves_untranslated(unsigned round) {
    unsigned passed = 0;

    for (unsigned quiet = 0; quiet < 10; quiet++) {
        struct frame *found = take_waiting(WAN);

        for (; found; found = take_waiting(WAN), quiet = 0, passed++)
            require(found->bytes[IP + 9] != 6 ||
                        memcmp(found->bytes + IP + 12, (uint8_t[]){198, 51, 100, 1}, 4) == 0,
                    "round %u: a segment left untranslated", round);
        for (found = take_waiting(LAN); found; found = take_waiting(LAN), quiet = 0, passed++)
            require(found->bytes[IP + 16] == 192, "round %u: an answer was not translated", round);
        usleep(500);
    }
    return passed;
}

static void segments(unsigned first, unsigned count, unsigned flags) {
    for (unsigned port = first; port < first + count; port++) {
        inject(LAN, tcp4(.source = text(CLIENT ":%u", port), .destination = SERVER ":80",
                         .tcp_flags = ACK));
        inject(WAN, tcp4(.source = SERVER ":80", .destination = text(OUTSIDE ":%u", port),
                         .tcp_flags = flags));
    }
}

/* The workers are at it while the rules are taken away, and the sessions after them. */
CASE(nat_goes_and_comes_while_both_workers_forward) {
    enum { CONNECTIONS = 100 };

    start(masquerade);
    for (unsigned round = 0; round < 15; round++) {
        unsigned first = 3000 + round * CONNECTIONS;

        for (unsigned port = first; port < first + CONNECTIONS; port++)
            inject(LAN, tcp4(.source = text(CLIENT ":%u", port), .destination = SERVER ":80",
                             .tcp_flags = SYN));
        require(drain(WAN, NULL, CONNECTIONS) == CONNECTIONS, "round %u: some were lost", round);
        segments(first, CONNECTIONS, SYN | ACK);
        segments(first, CONNECTIONS, ACK);
        apply(no_nat);
        segments(first, CONNECTIONS, ACK);
        require(nothing_leaves_untranslated(round) > 0, "round %u: all were lost", round);
        advance(3000);
        segments(first, CONNECTIONS, ACK);
        apply(masquerade);
        segments(first, CONNECTIONS, ACK);
        nothing_leaves_untranslated(round);
        for (unsigned i = 0; i < 100 && nat_mapping_count() > 0; i++) {
            advance(1000);
            usleep(10000);
        }
        require(nat_mapping_count() == 0 && nat_mapping_ports_taken() == 0,
                "round %u: %u mappings and %u ports", round, nat_mapping_count(),
                nat_mapping_ports_taken());
        frames_free();
    }
    forget_drops();
}

/* Both workers fill a small table with half-open sessions, which give way to each other. */
CASE(a_flood_on_both_workers) {
    enum { FLOODS = 40, EACH = 200 };
    const char *count;
    unsigned passed = 0;

    start("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          ", " WAN_ADDRESSES "}}, 'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
          "'routes': [" DEFAULT_ROUTES "], 'sessions': {'size': 1024, 'timeouts': {'udp_new': 60}},"
          "'firewall': {'default': 'accept'}," UNLIMITED "}");
    for (unsigned flood = 0; flood < FLOODS; flood++) {
        for (unsigned i = 0; i < EACH; i++) {
            inject(LAN, udp4(.source = text("192.168.1.%u:%u", 2 + i, 2000 + flood),
                             .destination = SERVER ":53"));
            inject(WAN, udp4(.source = text("203.0.113.%u:%u", 2 + i, 2000 + flood),
                             .destination = CLIENT ":53"));
        }
        usleep(2000);
        discard(ANYWHERE);
        frames_free();
    }
    for (unsigned quiet = 0; quiet < 20; quiet++) { /* some are still on their way */
        usleep(2000);
        quiet = discard(ANYWHERE) > 0 ? 0 : quiet;
    }
    forget_drops();
    count = rpc("session.count", "{}");
    require(ended(count) <= 1024, "%s", count);
    require(strstr(count, "'evicted':0,") == NULL, "%s", count);
    /* They come to an end, and all places can be used again, but for those that a worker keeps. */
    for (unsigned i = 0; i < 200 && ended(rpc("session.count", "{}")) > 0; i++) {
        advance(1000);
        usleep(10000);
    }
    require(ended(rpc("session.count", "{}")) == 0, "%s", rpc("session.count", "{}"));
    for (unsigned i = 0; i < 500; i++)
        inject(LAN, udp4(.source = text(CLIENT ":%u", 2000 + i), .destination = SERVER ":53"));
    passed = drain(WAN, NULL, 500);
    require(passed == 500, "%u of 500 passed", passed);
}

HARNESS_MAIN(.workers = 2, .threads = true)
