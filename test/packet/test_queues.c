/* Two workers and ports with a queue for each: nobody hands frames over, and counters add up. */
#include "core/worker.h"
#include "harness.h"

#define THERE .source = "192.168.1.10:1", .destination = "203.0.113.1:2"

CASE(each_worker_has_a_queue_of_every_port) {
    uint16_t port, queue;

    start(standard);
    for (unsigned worker = 0; worker < 2; worker++) {
        unsigned count = 0;

        while (worker_queue(worker_get(worker), count, &port, &queue)) {
            require(queue == worker, "worker %u polls queue %u", worker, queue);
            count++;
        }
        require(count == 3, "worker %u polls %u queues", worker, count);
    }
}

CASE(both_queues_are_served) {
    struct frame *there = udp4(THERE, .size = 100);

    start(standard);
    for (unsigned i = 0; i < 200; i++)
        inject_queue(LAN, i % 2, there);
    for (unsigned i = 0; i < 200; i++)
        expect(WAN, hop(there));
    expect_counts("lan", .rx_packets = 200, .rx_bytes = 200 * there->length);
    expect_counts("wan", .tx_packets = 200, .tx_bytes = 200 * there->length);
}

CASE(answers_of_both_workers) {
    start(standard);
    for (unsigned queue = 0; queue < 2; queue++) {
        inject_queue(LAN, queue, icmp4_echo(.source = "192.168.1.10", .destination = "10.3.0.1"));
        expect(LAN, icmp4_echo_reply(.source = "10.3.0.1", .destination = "192.168.1.10"));
        inject_queue(
            LAN, queue,
            arp_request(.sender = "192.168.1.20", .sender_mac = HOST_LAN, .target = "192.168.1.1"));
        expect(LAN, arp_reply(.sender = "192.168.1.1", .sender_mac = ROUTER_LAN,
                              .target = "192.168.1.20", .target_mac = HOST_LAN));
    }
}

/* A port that is to have one queue is closed and opened again; then frames cross. */
CASE(numbers_of_queues_change_while_running) {
    struct frame *there = udp4(THERE);

    start(standard);
    for (unsigned round = 0; round < 5; round++) {
        apply(text("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
                   "," WAN_ADDRESSES ", 'rx_queues': %u, 'tx_queues': %u}},"
                   "'neighbours': [" WAN_NEIGHBOURS "], 'routes': [" DEFAULT_ROUTES "]," UNLIMITED
                   "}",
                   1 + round % 2, 1 + round % 2));
        advance(5000);
        discard(ANYWHERE);
        forget_drops();
        for (unsigned i = 0; i < 20; i++)
            inject_queue(LAN, i % 2, there);
        for (unsigned i = 0; i < 20; i++)
            expect(WAN, hop(there));
    }
}

HARNESS_MAIN(.workers = 2, .queues = 2)
