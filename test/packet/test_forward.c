/*
 * Forwarding: what happens to the usual packet. Hops, checksums, MAC addresses, padding, counters,
 * and that nothing else of the packet changes.
 */
#include "harness.h"

#define FLOW4 .source = "192.168.1.10:1000", .destination = "203.0.113.1:53"
#define FLOW6 .source = "[2001:db8:1::10]:1000", .destination = "[2001:db8:99::1]:53"

CASE(ipv4_loses_one_hop_and_gets_new_addresses) {
    start(standard);
    inject(LAN, udp4(FLOW4, .ttl = 64, .payload = "a question"));
    expect(WAN, ether(udp4(FLOW4, .ttl = 63, .payload = "a question"), HOST_WAN, ROUTER_WAN));
}

CASE(ipv6_loses_one_hop_and_gets_new_addresses) {
    start(standard);
    inject(LAN, udp6(FLOW6, .hop_limit = 64, .payload = "a question"));
    expect(WAN, ether(udp6(FLOW6, .hop_limit = 63, .payload = "a question"), HOST_WAN, ROUTER_WAN));
}

CASE(both_directions_and_a_third_network) {
    start(standard);
    inject(WAN, tcp4(.source = "203.0.113.1:80", .destination = "192.168.1.10:1000", .ttl = 50));
    expect(LAN, tcp4(.source = "203.0.113.1:80", .destination = "192.168.1.10:1000", .ttl = 49));
    inject(DMZ, udp4(.source = "10.3.0.10:1", .destination = "192.168.1.10:2"));
    expect(LAN, udp4(.source = "10.3.0.10:1", .destination = "192.168.1.10:2", .ttl = 63));
    inject(LAN, udp4(.source = "192.168.1.10:2", .destination = "10.3.0.10:1"));
    expect(DMZ, udp4(.source = "192.168.1.10:2", .destination = "10.3.0.10:1", .ttl = 63));
    inject(WAN, tcp6(.source = "[2001:db8:99::1]:80", .destination = "[2001:db8:3::10]:1000"));
    expect(DMZ, tcp6(.source = "[2001:db8:99::1]:80", .destination = "[2001:db8:3::10]:1000",
                     .hop_limit = 63));
}

CASE(a_packet_may_leave_where_it_came_in) {
    start(standard);
    inject(WAN, udp4(.source = "198.51.100.77:1", .destination = "203.0.113.1:2"));
    expect(WAN, udp4(.source = "198.51.100.77:1", .destination = "203.0.113.1:2", .ttl = 63));
}

CASE(all_fields_but_the_hops_stay) {
    struct frame *four, *six;

    start(standard);
    four =
        udp4(FLOW4, .tos = 0xbb, .id = 0xfffe, .fragment = DONT_FRAGMENT, .ttl = 255, .size = 99);
    inject(LAN, four);
    expect(WAN, hop(four));
    six = tcp6(FLOW6, .traffic_class = 0xb9, .flow_label = 0xabcde, .hop_limit = 255, .size = 99);
    inject(LAN, six);
    expect(WAN, hop(six));
}

CASE(every_ttl_that_has_hops_left) {
    start(standard);
    for (unsigned ttl = 2; ttl <= 255; ttl++) {
        inject(LAN, udp4(FLOW4, .ttl = ttl));
        expect(WAN, udp4(FLOW4, .ttl = ttl - 1));
        inject(LAN, udp6(FLOW6, .hop_limit = ttl));
        expect(WAN, udp6(FLOW6, .hop_limit = ttl - 1));
    }
}

CASE(every_protocol_number) {
    start(standard);
    for (unsigned protocol = 0; protocol < 256; protocol++) {
        struct frame *four = ip4(.source = "192.168.1.10", .destination = "203.0.113.1",
                                 .protocol = protocol, .size = 30);

        inject(LAN, four);
        expect(WAN, hop(four));
    }
}

/* RFC 1141 and RFC 1624: every value that the checksum can have, as the id makes it so. The header
 * sum is never +0, so the corner cases are the checksums around 0x0000 and 0xffff. */
CASE(the_checksum_follows_from_every_value_to_every_value) {
    enum { BURST = 64 };
    struct frame *sent[BURST];

    start(standard);
    for (unsigned id = 0; id < 0x10000; id += BURST) {
        for (unsigned i = 0; i < BURST; i++) {
            sent[i] = udp4(FLOW4, .id = id + i, .size = 1);
            inject(LAN, sent[i]);
        }
        for (unsigned i = 0; i < BURST; i++)
            expect(WAN, hop(sent[i]));
        if (id % 0x1000 == 0)
            frames_free();
    }
}

/* The same on the path of packets that the straight line leaves out (here: by a priority tag). */
CASE(the_checksum_follows_on_the_other_path_too) {
    start(standard);
    for (unsigned id = 0; id < 0x10000; id += id % 0x100 < 0xf0 && id > 0x200 ? 16 : 1) {
        struct frame *frame = udp4(FLOW4, .id = id, .size = 1);

        inject(LAN, vlan(0, frame));
        expect(WAN, hop(frame));
    }
}

/* A header checksum of 0xffff stands for the same as 0x0000, and passes as well. */
CASE(a_checksum_of_minus_zero_is_right) {
    start(standard);
    for (unsigned id = 0; id < 0x10000; id++) {
        struct frame *zero = udp4(FLOW4, .id = id, .size = 1);

        if (zero->bytes[IP + 10] != 0 || zero->bytes[IP + 11] != 0) {
            frames_free();
            continue;
        }

        struct frame *minus_zero = poke(zero, IP + 10, "ffff");

        inject(LAN, zero);
        expect(WAN, hop(zero));
        inject(LAN, minus_zero);
        /* 0xffff + 0x0100 with the carry brought round is 0x0100. */
        expect(WAN, hop(zero));
        return;
    }
    require(false, "no packet has a checksum of zero");
}

CASE(ethernet_padding_is_taken_off) {
    struct frame *four = udp4(FLOW4, .payload = "x"), *six = udp6(FLOW6, .payload = "x");

    start(standard);
    inject(LAN, padded(four, 60));
    expect(WAN, hop(four));
    inject(LAN, padded(four, 1514));
    expect(WAN, hop(four));
    inject(LAN, padded(six, 200));
    expect(WAN, hop(six));
    expect_counts("lan", .rx_packets = 3, .rx_bytes = 60 + 1514 + 200);
    expect_counts("wan", .tx_packets = 3, .tx_bytes = 2 * four->length + six->length);
}

CASE(padding_in_buffers_of_its_own_is_taken_off) {
    struct frame *four = udp4(FLOW4, .size = 100);

    start(standard);
    for (unsigned each = 60; each < four->length + 10; each++) {
        inject_segments(LAN, padded(four, 500), each);
        expect(WAN, hop(four));
    }
}

CASE(every_length_up_to_the_mtu) {
    start(standard);
    for (unsigned size = 1; size <= 1472; size++) {
        struct frame *frame = udp4(FLOW4, .size = size);

        inject(LAN, frame);
        expect(WAN, hop(frame));
        if (size % 50 == 0)
            frames_free();
    }
    for (unsigned size = 1; size <= 1452; size += 7) {
        struct frame *frame = udp6(FLOW6, .size = size);

        inject(LAN, frame);
        expect(WAN, hop(frame));
    }
}

CASE(packets_without_payload) {
    struct frame *four =
        ip4(.source = "192.168.1.10", .destination = "203.0.113.1", .protocol = 17, .payload = "");
    struct frame *six = ip6(.source = "2001:db8:1::10", .destination = "2001:db8:99::1",
                            .protocol = 59, .payload = "");

    start(standard);
    inject(LAN, four);
    expect(WAN, hop(four));
    inject(LAN, six);
    expect(WAN, hop(six));
}

CASE(jumbo_frames_in_several_buffers) {
    struct frame *four = udp4(FLOW4, .size = 8000), *six = udp6(FLOW6, .size = 8000);

    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES ", 'mtu': 9000},"
          "'wan': {" WAN_PORT "," WAN_ADDRESSES ", 'mtu': 9000}},"
          "'neighbours': [" WAN_NEIGHBOURS "], 'routes': [" DEFAULT_ROUTES "]," UNLIMITED "}");
    inject(LAN, four);
    expect(WAN, hop(four));
    inject(LAN, six);
    expect(WAN, hop(six));
    four = udp4(FLOW4, .size = 9000 - 28);
    inject_segments(LAN, four, 100);
    expect(WAN, hop(four));
}

/* The headers of one packet, cut anywhere: forwarded unchanged, or dropped by a name. */
CASE(buffers_split_at_every_offset) {
    struct frame *four = udp4(FLOW4, .size = 40), *six = udp6(FLOW6, .size = 40);

    start(standard);
    for (unsigned first = 1; first < four->length; first++) {
        inject_split(LAN, four, first);
        if (first < IP4_PAYLOAD) {
            expect_nothing(ANYWHERE);
            expect_drop("parse.truncated", 1);
        } else {
            expect(WAN, hop(four));
            expect_no_drops();
        }
    }
    for (unsigned first = 1; first < six->length; first++) {
        inject_split(LAN, six, first);
        if (first < IP6_PAYLOAD) {
            expect_nothing(ANYWHERE);
            expect_drop("parse.truncated", 1);
        } else {
            expect(WAN, hop(six));
            expect_no_drops();
        }
    }
}

CASE(counters_add_up) {
    struct frame *four = udp4(FLOW4, .size = 100), *six = udp6(FLOW6, .size = 200);

    start(standard);
    for (unsigned i = 0; i < 100; i++) {
        inject(LAN, four);
        inject(LAN, six);
    }
    for (unsigned i = 0; i < 100; i++) {
        expect(WAN, hop(four));
        expect(WAN, hop(six));
    }
    expect_counts("lan", .rx_packets = 200, .rx_bytes = 100 * (four->length + six->length));
    expect_counts("wan", .tx_packets = 200, .tx_bytes = 100 * (four->length + six->length));
    expect_counts("dmz", .rx_packets = 0);
}

/* Bursts of all sizes, and of all mixtures of families, special packets and drops. */
CASE(mixed_bursts_keep_their_order) {
    uint32_t random = 1;

    start(standard);
    for (unsigned burst = 1; burst <= 64; burst++) {
        struct frame *to_wan[64], *to_dmz[64];
        unsigned wan = 0, dmz = 0, bad = 0;

        for (unsigned i = 0; i < burst; i++) {
            struct frame *frame;

            random = random * 1664525 + 1013904223;
            switch (random >> 29) {
            case 0:
                frame = udp6(FLOW6, .sequence = i, .size = 1 + i);
                to_wan[wan++] = frame;
                break;
            case 1:
                frame = udp4(.source = "192.168.1.10:1", .destination = "10.3.0.10:2", .id = i);
                to_dmz[dmz++] = frame;
                break;
            case 2:
                frame = poke(udp4(FLOW4, .id = i), IP + 4, "dead"); /* the checksum is wrong */
                bad++;
                break;
            case 3:
                frame = udp6(.source = "[2001:db8:1::10]:1", .destination = "[2001:db8:3::10]:2");
                to_dmz[dmz++] = frame;
                break;
            default:
                frame = udp4(FLOW4, .id = i, .size = 1 + i);
                to_wan[wan++] = frame;
                break;
            }
            inject(LAN, frame);
        }
        for (unsigned i = 0; i < wan; i++)
            expect(WAN, hop(to_wan[i]));
        for (unsigned i = 0; i < dmz; i++)
            expect(DMZ, hop(to_dmz[i]));
        expect_drop("parse.ipv4_checksum", bad);
    }
}

CASE(a_full_port_loses_packets_by_name) {
    enum { FRAMES = 160 * 64 }; /* more than a ring of the harness holds */
    struct frame *frame = udp4(FLOW4);
    struct counts counts;
    unsigned room;

    start(standard);
    for (unsigned i = 0; i < FRAMES; i++) {
        inject(LAN, frame);
        if (i % 64 == 63)
            turn();
    }
    counts = counts_of("wan");
    room = discard(WAN);
    require(room == counts.tx_packets && counts.tx_packets + counts.tx_dropped == FRAMES,
            "%u frames left", room);
    expect_drop("tx.port_full", FRAMES - room);
    inject(LAN, frame);
    expect(WAN, hop(frame));
}

CASE(random_bytes_never_pass_and_never_leak) {
    uint32_t random = 7;

    start(standard);
    for (unsigned n = 0; n < 3000; n++) {
        struct frame *frame = frame_new(14 + n % 200);

        for (unsigned i = 0; i < frame->length; i++) {
            random = random * 1664525 + 1013904223;
            frame->bytes[i] = (uint8_t)(random >> 24);
        }
        frame->addressed = true;
        inject(LAN, frame);
        if (n % 50 == 0) {
            turn();
            frames_free();
        }
    }
    expect_nothing(ANYWHERE);
    forget_drops();
}

HARNESS_MAIN()
