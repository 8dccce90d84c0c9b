/*
 * Two workers, turned one after the other: ports of one queue belong to one of them, and frames
 * from the other cross through its ring.
 */
#include "core/worker.h"
#include "harness.h"

#define THERE .source = "192.168.1.10:1", .destination = "203.0.113.1:2"
#define BACK .source = "203.0.113.1:2", .destination = "192.168.1.10:1"

CASE(the_ports_are_shared_out) {
    uint16_t port, queue;
    unsigned count[2] = {0};

    start(standard);
    for (unsigned worker = 0; worker < 2; worker++) {
        while (worker_queue(worker_get(worker), count[worker], &port, &queue))
            count[worker]++;
    }
    require(count[0] + count[1] == 3 && count[0] >= 1 && count[1] >= 1, "%u and %u queues",
            count[0], count[1]);
}

CASE(frames_cross_in_order) {
    start(standard);
    for (unsigned id = 0; id < 500; id++) {
        inject(LAN, udp4(THERE, .id = id));
        inject(WAN, udp4(BACK, .id = id));
    }
    for (unsigned id = 0; id < 500; id++) {
        expect(WAN, hop(udp4(THERE, .id = id)));
        expect(LAN, hop(udp4(BACK, .id = id)));
    }
}

CASE(each_frame_is_counted_once) {
    struct frame *there = udp4(THERE, .size = 100), *back = udp4(BACK, .size = 300);

    start(standard);
    for (unsigned i = 0; i < 100; i++) {
        inject(LAN, there);
        inject(WAN, back);
    }
    turn();
    require(discard(WAN) == 100 && discard(LAN) == 100, "some were lost");
    expect_counts("lan", .rx_packets = 100, .rx_bytes = 100 * there->length, .tx_packets = 100,
                  .tx_bytes = 100 * back->length);
    expect_counts("wan", .rx_packets = 100, .rx_bytes = 100 * back->length, .tx_packets = 100,
                  .tx_bytes = 100 * there->length);
}

CASE(errors_and_answers_come_from_either_worker) {
    struct frame *there = udp4(THERE, .ttl = 1), *back = udp4(BACK, .ttl = 1);

    start(standard);
    inject(LAN, there);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = "192.168.1.10", .type = 11,
                            .about = there));
    inject(WAN, back);
    expect(WAN, icmp4_error(.source = "198.51.100.1", .destination = "203.0.113.1", .type = 11,
                            .about = back));
    inject(WAN, icmp4_echo(.source = "203.0.113.1", .destination = "192.168.1.1"));
    expect(WAN, icmp4_echo_reply(.source = "192.168.1.1", .destination = "203.0.113.1"));
    expect_drop("local.time_exceeded", 2);
}

CASE(neighbours_are_found_for_either_worker) {
    start(standard);
    inject(WAN, udp4(.source = "203.0.113.1:1", .destination = "192.168.1.77:2"));
    expect(LAN, arp_request(.sender = "192.168.1.1", .sender_mac = ROUTER_LAN,
                            .target = "192.168.1.77"));
    inject(LAN, arp_reply(.sender = "192.168.1.77", .sender_mac = HOST_LAN, .target = "192.168.1.1",
                          .target_mac = ROUTER_LAN));
    expect(LAN, udp4(.source = "203.0.113.1:1", .destination = "192.168.1.77:2", .ttl = 63));
    inject(LAN, udp4(.source = "192.168.1.10:1", .destination = "198.51.100.77:2"));
    expect(WAN, arp_request(.sender = "198.51.100.1", .sender_mac = ROUTER_WAN,
                            .target = "198.51.100.77"));
    inject(WAN, arp_reply(.sender = "198.51.100.77", .sender_mac = HOST_WAN,
                          .target = "198.51.100.1", .target_mac = ROUTER_WAN));
    expect(WAN, udp4(.source = "192.168.1.10:1", .destination = "198.51.100.77:2", .ttl = 63));
}

CASE(fragments_cross) {
    struct frame *whole = udp4(THERE, .id = 5, .size = 1400);

    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          ", 'addresses': ['198.51.100.1/24'], 'mtu': 600}}, 'neighbours': [{'interface': 'wan',"
          "'address': '198.51.100.2', 'mac': '" HOST_WAN "'}], 'routes': ["
          "{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}]," UNLIMITED "}");
    inject(LAN, whole);
    for (unsigned offset = 0; offset < 1408; offset += 576)
        expect(WAN, hop(fragment4(whole, offset, 576)));
}

CASE(a_ring_between_workers_that_is_full_loses_by_name) {
    enum { FRAMES = 6000 };
    struct frame *there = udp4(THERE);
    struct counts counts;
    unsigned lan = 0, left;

    start(standard);
    for (unsigned i = 0; i < FRAMES; i++)
        inject(LAN, there);
    /* One worker alone runs: which of them has the LAN shows by what it takes. */
    for (unsigned i = 0; i < FRAMES / 64 + 2; i++)
        lan += worker_turn(worker_get(0));
    if (lan == 0) {
        for (unsigned i = 0; i < FRAMES / 64 + 2; i++)
            worker_turn(worker_get(1));
    }
    turn();
    left = discard(WAN);
    counts = counts_of("wan");
    require(left < FRAMES && left == counts.tx_packets && left + counts.tx_dropped == FRAMES,
            "%u left, %lu were counted and %lu dropped", left, counts.tx_packets,
            counts.tx_dropped);
    expect_drop("tx.ring_full", FRAMES - left);
}

CASE(a_port_goes_while_frames_cross) {
    struct frame *there = udp4(THERE);

    start(standard);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 64; i++)
            inject(LAN, there);
        worker_turn(worker_get(round % 2));
        apply("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'dmz': {" DMZ_PORT
              "," DMZ_ADDRESSES "}}," UNLIMITED "}");
        turn();
        discard(ANYWHERE);
        apply(standard);
        turn();
        discard(ANYWHERE);
    }
    advance(12000);
    discard(ANYWHERE);
    forget_drops();
    inject(LAN, there);
    expect(WAN, hop(there));
}

CASE(reloads_lose_nothing) {
    struct frame *there = udp4(THERE), *back = udp4(BACK);
    unsigned arrived[2] = {0};

    start(standard);
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < 32; i++) {
            inject(LAN, there);
            inject(WAN, back);
        }
        worker_turn(worker_get(round % 2));
        apply(round % 2 ? standard
                        : "{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES
                          "}, 'isp': {" ISP_PORT "," ISP_ADDRESSES "}, 'wan': {" WAN_PORT
                          "," WAN_ADDRESSES "}}, 'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS
                          "],"
                          "'routes': [" DEFAULT_ROUTES "]," UNLIMITED "}");
        turn();
        for (struct frame *found; (found = take(WAN)) != NULL;)
            arrived[0] += found->length == there->length;
        for (struct frame *found; (found = take(LAN)) != NULL;)
            arrived[1] += found->length == back->length;
        discard(ANYWHERE);
    }
    require(arrived[0] == 60 * 32 && arrived[1] == 60 * 32, "%u and %u of %u arrived", arrived[0],
            arrived[1], 60 * 32);
    forget_drops();
}

HARNESS_MAIN(.workers = 2)
