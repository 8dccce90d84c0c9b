/* One association, several workers: numbers are given once, and the window is one for all. */
#include "ipsec_network.h"

enum { WORKERS = 3, PACKETS = 300 };

/* Two packets with one number would have the same initialization vector: RFC 4106 section 9. */
CASE(numbers_are_given_once) {
    bool seen[PACKETS + 1] = {false};

    start(tunnel(&out4, NULL, ""));
    for (unsigned i = 0; i < PACKETS; i++)
        inject_queue(LAN, i % WORKERS,
                     udp4(.source = text(INSIDE ":%u", 1 + i), .destination = FAR ":2"));
    turn();
    for (unsigned i = 0; i < PACKETS; i++) {
        struct esp_found found;
        const char *wrong = esp_unwrap(&out4, take_one(WAN), 0, &found);

        require(!wrong, "packet %u: %s", i, wrong);
        require(found.sequence >= 1 && found.sequence <= PACKETS && !seen[found.sequence],
                "number %lu", (unsigned long)found.sequence);
        seen[found.sequence] = true;
    }
    contains(rpc("ipsec.sa.list", "{}"), "'packets':300,");
    contains(rpc("ipsec.policy.list", "{}"), "'packets':300,");
}

CASE(replays_by_another_queue) {
    start(tunnel(NULL, &in4, ", 'replay_window': 1024"));
    for (unsigned i = 1; i <= PACKETS; i++) {
        for (unsigned queue = 0; queue < WORKERS; queue++)
            inject_queue(WAN, queue, esp(&in4, from_far(), .sequence = i));
    }
    turn();
    require(discard(LAN) == PACKETS, "not each packet came out once");
    expect_drop("ipsec_in.replayed", (WORKERS - 1) * PACKETS);
    contains(rpc("ipsec.sa.list", "{}"), "'packets':300,");
    contains(rpc("ipsec.sa.list", "{}"), "'replayed':600,");
}

/* Each worker puts together what comes by its own queues: NICs spread fragments by their addresses,
 * so that those of a datagram come by one. */
CASE(fragments_by_several_queues) {
    enum { EACH = 400, PIECES = 3, DATAGRAMS = 120, WAIT_MSEC = 3200 };

    start(tunnel(NULL, &in4, ", 'replay_window': 1024"));
    for (unsigned n = PIECES; n-- > 0;) {
        for (unsigned i = 0; i < DATAGRAMS; i++) {
            struct frame *whole = esp(&in4, from_far(.size = 1000), .sequence = 1 + i, .id = 1 + i);

            inject_queue(WAN, i % WORKERS, fragment4(whole, n * EACH, EACH));
        }
        turn();
    }
    require(discard(LAN) == DATAGRAMS, "not each was put together");
    expect_no_drops();
    /* If it were otherwise: nothing comes of them, and nothing is left of them. */
    for (unsigned n = 0; n < PIECES; n++) {
        struct frame *whole = esp(&in4, from_far(.size = 1000), .sequence = 500, .id = 500);

        inject_queue(WAN, n, fragment4(whole, n * EACH, EACH));
    }
    advance(WAIT_MSEC);
    expect_nothing(ANYWHERE);
    expect_drop("ipsec_in.fragment_timeout", PIECES);
}

/* What one worker hears of the path, the others know. */
CASE(path_mtu_heard_by_another_worker) {
    enum { UNREACHABLE = 3, FRAGMENTATION_NEEDED = 4, DONT = DONT_FRAGMENT };
    struct frame *large = to_far(.size = 1372, .fragment = DONT), *sent;

    start(tunnel(&out4, NULL, ""));
    inject_queue(LAN, 0, large);
    sent = take_one(WAN);
    inject_queue(WAN, 1,
                 icmp4_error(.source = "100.64.1.1", .destination = ROUTER, .type = UNREACHABLE,
                             .code = FRAGMENTATION_NEEDED, .rest = 1400, .about = sent));
    turn();
    expect_drop("local.no_listener", 1);
    for (unsigned queue = 0; queue < WORKERS; queue++)
        inject_queue(LAN, queue, large);
    turn();
    require(discard(LAN) == WORKERS, "the sender was not told each time");
    expect_nothing(WAN);
    expect_drop("local.too_big", WORKERS);
}

HARNESS_MAIN(.workers = WORKERS, .queues = WORKERS)
