/* IPv4 fragmentation (RFC 791, RFC 1812 section 4.2.2.7): exact fragments, and who gets none. */
#include "harness.h"

#define FLOW4 .source = "192.168.1.10:1000", .destination = "203.0.113.1:53"

static const char *with_wan_mtu(unsigned mtu) {
    return text("{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24'],"
                "'mtu': 9216}, 'wan': {" WAN_PORT ", 'addresses': ['198.51.100.1/24'],"
                "'mtu': %u}}, 'neighbours': [{'interface': 'lan', 'address': '192.168.1.10',"
                "'mac': '" HOST_LAN "'}, {'interface': 'wan', 'address': '198.51.100.2',"
                "'mac': '" HOST_WAN "'}],"
                "'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}]," UNLIMITED "}",
                mtu);
}

/* The whole arrives, and its fragments leave: all but the last as long as the MTU allows. */
static void is_fragmented(const struct frame *whole, unsigned mtu) {
    unsigned header = (whole->bytes[IP] & 15u) * 4;
    unsigned payload = whole->length - IP - header, step = (mtu - header) / 8 * 8;

    for (unsigned offset = 0; offset < payload; offset += step) {
        struct frame *fragment = fragment4(whole, offset, step);

        require(fragment->length - IP <= mtu, "the case expects too much");
        expect(WAN, hop(fragment));
    }
    expect_nothing(ANYWHERE);
    expect_no_drops();
}

CASE(two_fragments) {
    struct frame *whole = udp4(FLOW4, .id = 4711, .tos = 0x20, .size = 1400);

    start(with_wan_mtu(1000));
    inject(LAN, whole);
    expect(WAN, hop(fragment4(whole, 0, 976)));
    expect(WAN, hop(fragment4(whole, 976, 432)));
}

CASE(every_length_around_the_mtu) {
    start(with_wan_mtu(576));
    for (unsigned size = 530; size < 1150; size++) {
        struct frame *whole = udp4(FLOW4, .id = size, .size = size);

        inject(LAN, whole);
        if (size + 28 <= 576)
            expect(WAN, hop(whole));
        else
            is_fragmented(whole, 576);
        if (size % 64 == 0)
            frames_free();
    }
}

CASE(mtus_that_are_no_multiples_of_eight) {
    struct frame *whole;

    for (unsigned mtu = 572; mtu < 582; mtu++) {
        start(with_wan_mtu(mtu));
        whole = udp4(FLOW4, .id = mtu, .size = 3000);
        inject(LAN, whole);
        is_fragmented(whole, mtu);
    }
}

/* RFC 791: every link carries 68 bytes, a header with all options and one unit of payload. */
CASE(the_smallest_mtu) {
    struct frame *whole = udp4(FLOW4, .id = 1, .size = 1400);

    start(with_wan_mtu(68));
    inject(LAN, whole);
    is_fragmented(whole, 68);
}

CASE(the_largest_packets_through_the_smallest_mtu) {
    struct frame *whole = udp4(FLOW4, .id = 1, .size = 9000);

    start(with_wan_mtu(68));
    inject(LAN, whole);
    is_fragmented(whole, 68);
}

CASE(packets_in_several_buffers) {
    struct frame *whole;

    start(with_wan_mtu(1500));
    for (unsigned each = 60; each < 2048; each += 331) {
        whole = udp4(FLOW4, .id = each, .size = 8000);
        inject_segments(LAN, whole, each);
        is_fragmented(whole, 1500);
    }
    for (unsigned size = 4990; size < 5010; size++) {
        whole = udp4(FLOW4, .id = size, .size = size);
        inject_segments(LAN, whole, 1000);
        is_fragmented(whole, 1500);
    }
}

CASE(fragments_longer_than_a_buffer) {
    struct frame *whole;

    start(with_wan_mtu(4000));
    for (unsigned each = 500; each <= 2048; each += 516) {
        whole = udp4(FLOW4, .id = each, .size = 9000);
        inject_segments(LAN, whole, each);
        is_fragmented(whole, 4000);
    }
}

CASE(a_fragment_is_fragmented_further) {
    struct frame *whole = udp4(FLOW4, .id = 9, .size = 4000);
    struct frame *parts[] = {fragment4(whole, 0, 1480), fragment4(whole, 1480, 1480),
                             fragment4(whole, 2960, 1480)};

    start(with_wan_mtu(600));
    for (unsigned i = 0; i < 3; i++) {
        inject(LAN, parts[i]);
        is_fragmented(parts[i], 600);
    }
}

/* Options whose type has the high bit are in every fragment, others only in the first. */
CASE(options_in_all_fragments) {
    struct frame *whole = udp4(FLOW4, .id = 3, .options = "94040000", .size = 2000);

    start(with_wan_mtu(1000));
    inject(LAN, whole);
    expect(WAN, hop(fragment4(whole, 0, 976)));
    expect(WAN, hop(fragment4(whole, 976, 976)));
    expect(WAN, hop(fragment4(whole, 1952, 976)));
}

CASE(options_in_the_first_fragment_only) {
    /* A timestamp (not copied), and a security option (copied). */
    struct frame *whole =
        udp4(FLOW4, .id = 3, .options = "440c0500 00000000 00000000 82041122", .size = 2000);
    struct frame *found[8];
    unsigned count = 0, payload = 0;

    start(with_wan_mtu(1000));
    inject(LAN, whole);
    turn();
    while (count < 8 && (found[count] = take(WAN)) != NULL)
        count++;
    require(count >= 3, "%u fragments came", count);
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *ip = found[i]->bytes + IP;
        unsigned header = (ip[0] & 15u) * 4, length = found[i]->length - IP - header;

        require(found[i]->length - IP <= 1000, "fragment %u is too long", i);
        require(frame_equal(found[i],
                            ether(hop(fragment4(whole, payload, length)), HOST_WAN, ROUTER_WAN)),
                "fragment %u is wrong: options must be copied as RFC 791 says", i);
        payload += length;
    }
    require(payload == 2008, "%u bytes of payload came", payload);
}

CASE(dont_fragment) {
    struct frame *whole = udp4(FLOW4, .fragment = DONT_FRAGMENT, .size = 1400);

    start(with_wan_mtu(1000));
    inject(LAN, whole);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = "192.168.1.10", .type = 3,
                            .code = 4, .rest = 1000, .about = whole));
    expect_drop("local.too_big", 1);
}

CASE(padding_does_not_make_a_packet_too_big) {
    struct frame *whole = udp4(FLOW4, .size = 900);

    start(with_wan_mtu(1000));
    inject(LAN, padded(whole, 1500));
    expect(WAN, hop(whole));
}

CASE(fragments_pass_unchanged) {
    struct frame *whole = udp4(FLOW4, .id = 9, .size = 4000);

    start(with_wan_mtu(1500));
    for (unsigned offset = 0; offset < 4008; offset += 1480) {
        inject(LAN, fragment4(whole, offset, 1480));
        expect(WAN, hop(fragment4(whole, offset, 1480)));
    }
}

CASE(fragments_onto_a_vlan) {
    struct frame *whole = udp4(FLOW4, .id = 9, .size = 1400);

    start("{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24']},"
          "'wan': {" WAN_PORT "}, 'wan.5': {'parent': 'wan', 'vlan': 5, 'mtu': 1000,"
          "'addresses': ['198.51.100.1/24']}},"
          "'neighbours': [{'interface': 'wan.5', 'address': '198.51.100.2', 'mac': '" HOST_WAN
          "'}], 'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}]," UNLIMITED "}");
    inject(LAN, whole);
    expect(WAN, vlan(5, hop(fragment4(whole, 0, 976))));
    expect(WAN, vlan(5, hop(fragment4(whole, 976, 976))));
}

CASE(the_router_s_own_answers_are_fragmented) {
    struct frame *reply;

    start("{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24'], 'mtu': 600}},"
          "'neighbours': [{'interface': 'lan', 'address': '192.168.1.10', 'mac': '" HOST_LAN
          "'}]," UNLIMITED "}");
    inject(LAN, icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1", .size = 1000));
    reply = icmp4_echo_reply(.source = "192.168.1.1", .destination = "192.168.1.10", .size = 1000);
    expect(LAN, fragment4(reply, 0, 576));
    expect(LAN, fragment4(reply, 576, 576));
}

CASE(the_mtu_can_change_while_running) {
    struct frame *whole = udp4(FLOW4, .id = 9, .size = 1400);

    start(with_wan_mtu(1500));
    inject(LAN, whole);
    expect(WAN, hop(whole));
    apply(with_wan_mtu(1000));
    inject(LAN, whole);
    is_fragmented(whole, 1000);
    apply(with_wan_mtu(1500));
    inject(LAN, whole);
    expect(WAN, hop(whole));
}

/* More fragments at once than the worker's ring holds: what is lost has a name. */
CASE(a_burst_of_large_packets_overflows_by_name) {
    enum { PACKETS = 40, FRAGMENTS = (9008 + 47) / 48 };
    unsigned left;

    start(with_wan_mtu(68));
    for (unsigned id = 0; id < PACKETS; id++)
        inject(LAN, udp4(FLOW4, .id = id, .size = 9000));
    turn();
    left = discard(WAN);
    require(left > FRAGMENTS && left < PACKETS * FRAGMENTS, "%u fragments left", left);
    expect_drop("tx.router_ring_full", PACKETS * FRAGMENTS - left);
}

CASE(fragments_that_are_malformed_pass_or_end_without_harm) {
    start(with_wan_mtu(576));
    for (unsigned field = 0; field < 0x10000; field += 0x1f) {
        inject(LAN, udp4(FLOW4, .fragment = field, .size = 40 + field % 1200));
        if (field % 64 == 0) {
            turn();
            discard(ANYWHERE);
            frames_free();
        }
    }
    turn();
    discard(ANYWHERE);
    forget_drops();
}

/* Bursts of long packets: each becomes six fragments, and all of them have to leave. */
CASE(bursts_of_long_packets) {
    enum { PACKETS = 500, PIECES = 6 };
    unsigned left = 0;

    start("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'mtu': 9000},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
          "'routes': [" DEFAULT_ROUTES "]," UNLIMITED "}");
    for (unsigned i = 0; i < PACKETS; i++)
        inject_segments(LAN,
                        udp4(.source = "192.168.1.10:1000", .destination = "203.0.113.1:53",
                             .size = 8000),
                        1800);
    while (take(WAN))
        left++;
    require(left == PACKETS * PIECES, "%u fragments left", left);
    expect_no_drops();
}

HARNESS_MAIN()
