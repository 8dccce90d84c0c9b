/*
 * ICMP errors to the byte, about what they must not be sent, how many; and answers to echo.
 */
#include <unistd.h>

#include "harness.h"

#define FLOW4 .source = "192.168.1.10:1000", .destination = "203.0.113.1:53"
#define FLOW6 .source = "[2001:db8:1::10]:1000", .destination = "[2001:db8:99::1]:53"
#define ERROR4 .source = "192.168.1.1", .destination = "192.168.1.10"
#define ERROR6 .source = "2001:db8:1::1", .destination = "2001:db8:1::10"

enum { TIME_EXCEEDED = 11, UNREACHABLE = 3, UNREACHABLE6 = 1, TOO_BIG6 = 2, TIME_EXCEEDED6 = 3 };

#define silently_dropped(f, ...)   \
    do {                           \
        inject(LAN, (f));          \
        expect_nothing(ANYWHERE);  \
        expect_drops(__VA_ARGS__); \
    } while (0)

/* --- time exceeded --- */

CASE(time_exceeded) {
    struct frame *four = udp4(FLOW4, .ttl = 1, .size = 40);
    struct frame *six = udp6(FLOW6, .hop_limit = 1, .size = 40);

    start(standard);
    inject(LAN, four);
    expect(LAN, icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = four));
    inject(LAN, six);
    expect(LAN, icmp6_error(ERROR6, .type = TIME_EXCEEDED6, .about = six));
    expect_drop("local.time_exceeded", 2);
    four = patch(four, IP + 8, "00");
    inject(LAN, four);
    expect(LAN, icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = four));
    six = poke(six, IP + 7, "00");
    inject(LAN, six);
    expect(LAN, icmp6_error(ERROR6, .type = TIME_EXCEEDED6, .about = six));
    expect_drop("local.time_exceeded", 2);
}

/* Each hop of a traceroute shows the address of the interface that the probe came in by. */
CASE(errors_come_from_the_incoming_interface) {
    struct frame *from_wan =
        udp4(.source = "203.0.113.1:1", .destination = "192.168.1.10:2", .ttl = 1);
    struct frame *from_dmz =
        udp6(.source = "[2001:db8:3::10]:1", .destination = "[2001:db8:1::10]:2", .hop_limit = 1);

    start(standard);
    inject(WAN, from_wan);
    expect(WAN, icmp4_error(.source = "198.51.100.1", .destination = "203.0.113.1",
                            .type = TIME_EXCEEDED, .about = from_wan));
    inject(DMZ, from_dmz);
    expect(DMZ, icmp6_error(.source = "2001:db8:3::1", .destination = "2001:db8:3::10",
                            .type = TIME_EXCEEDED6, .about = from_dmz));
    expect_drop("local.time_exceeded", 2);
}

CASE(a_packet_for_the_router_may_have_its_last_hop) {
    struct frame *four =
        udp4(.source = "192.168.1.10:1", .destination = "198.51.100.1:9", .ttl = 1);

    start(standard);
    inject(LAN, four);
    expect(LAN, icmp4_error(ERROR4, .type = UNREACHABLE, .code = 3, .about = four));
    inject(LAN, icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1", .ttl = 1));
    expect(LAN, icmp4_echo_reply(.source = "192.168.1.1", .destination = "192.168.1.10"));
    expect_drop("local.no_listener", 1);
}

/* RFC 1812 section 4.3.2.3: at most 576 bytes of IPv4; RFC 4443 section 2.4: at most 1280 of IPv6.
 */
CASE(the_quote_is_as_long_as_may_be) {
    start(standard);
    for (unsigned size = 500; size < 560; size += 3) {
        struct frame *four = udp4(FLOW4, .ttl = 1, .size = size);
        struct frame *error = icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = four);

        require(error->length <= 14 + 576, "the case expects too much");
        inject(LAN, four);
        expect(LAN, error);
        expect_drop("local.time_exceeded", 1);
    }
    for (unsigned size = 1170; size < 1220; size += 3) {
        struct frame *six = udp6(FLOW6, .hop_limit = 1, .size = size);

        inject(LAN, six);
        expect(LAN, icmp6_error(ERROR6, .type = TIME_EXCEEDED6, .about = six));
        expect_drop("local.time_exceeded", 1);
    }
}

CASE(the_quote_holds_options_and_extension_headers) {
    struct frame *four = udp4(FLOW4, .ttl = 1, .options = "94040000 0101", .size = 20);
    struct frame *six =
        udp6(FLOW6, .hop_limit = 1, .first = 0, .extensions = "0000 0104 00000000", .size = 20);

    start(standard);
    inject(LAN, four);
    expect(LAN, icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = four));
    inject(LAN, six);
    expect(LAN, icmp6_error(ERROR6, .type = TIME_EXCEEDED6, .about = six));
    expect_drop("local.time_exceeded", 2);
}

CASE(the_quote_is_collected_from_all_buffers) {
    struct frame *four = udp4(FLOW4, .ttl = 1, .size = 1000);
    struct frame *six = udp6(FLOW6, .hop_limit = 1, .size = 1400);

    start(standard);
    for (unsigned each = 54; each < 500; each += 37) {
        inject_segments(LAN, four, each);
        expect(LAN, icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = four));
        inject_segments(LAN, six, each);
        expect(LAN, icmp6_error(ERROR6, .type = TIME_EXCEEDED6, .about = six));
        expect_drop("local.time_exceeded", 2);
    }
}

CASE(a_tagged_packet_is_quoted_without_its_tag) {
    struct frame *four = udp4(FLOW4, .ttl = 1);

    start(standard);
    inject(LAN, vlan(0, four));
    expect(LAN, icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = four));
    expect_drop("local.time_exceeded", 1);
}

/* --- unreachable --- */

CASE(ports_and_protocols_that_nobody_listens_to) {
    struct frame *frame;

    start(standard);
    frame = udp4(.source = "192.168.1.10:1", .destination = "192.168.1.1:9");
    inject(LAN, frame);
    expect(LAN, icmp4_error(ERROR4, .type = UNREACHABLE, .code = 3, .about = frame));
    frame = tcp4(.source = "192.168.1.10:1", .destination = "198.51.100.1:22", .tcp_flags = 2);
    inject(LAN, frame);
    expect(LAN, icmp4_error(ERROR4, .type = UNREACHABLE, .code = 3, .about = frame));
    frame = ip4(.source = "192.168.1.10", .destination = "192.168.1.1", .protocol = 89);
    inject(LAN, frame);
    expect(LAN, icmp4_error(ERROR4, .type = UNREACHABLE, .code = 2, .about = frame));
    frame = udp6(.source = "[2001:db8:1::10]:1", .destination = "[2001:db8:1::1]:9");
    inject(LAN, frame);
    expect(LAN, icmp6_error(ERROR6, .type = UNREACHABLE6, .code = 4, .about = frame));
    expect_drop("local.no_listener", 4);
    frame = ip6(.source = "2001:db8:1::10", .destination = "2001:db8:1::1", .protocol = 89);
    inject(LAN, frame);
    /* The next header field, at offset 6. */
    expect(LAN, icmp6_error(ERROR6, .type = 4, .code = 1, .rest = 6, .about = frame));
    expect_drop("local.no_listener", 1);
}

/* RFC 4443 section 2.2: an error about a packet for the router comes from the address it was for.
 */
CASE(port_unreachable_for_another_address_of_the_router) {
    struct frame *frame = udp6(.source = "[2001:db8:1::10]:1", .destination = "[2001:db8:2::1]:9");

    start(standard);
    inject(LAN, frame);
    expect(LAN, icmp6_error(.source = "2001:db8:2::1", .destination = "2001:db8:1::10",
                            .type = UNREACHABLE6, .code = 4, .about = frame));
    frame =
        udp6(.source = "[fe80::10]:1", .destination = text("[%s]:9", link_local_of(ROUTER_LAN)));
    inject(LAN, frame);
    discard(LAN); /* the question for the neighbour */
    inject(LAN,
           neighbour_advertisement(.source = "fe80::10", .destination = link_local_of(ROUTER_LAN),
                                   .target = "fe80::10", .flags = 0x60, .target_link = HOST_LAN));
    expect(LAN, icmp6_error(.source = link_local_of(ROUTER_LAN), .destination = "fe80::10",
                            .type = UNREACHABLE6, .code = 4, .about = frame));
    expect_drop("local.no_listener", 2);
}

CASE(a_host_that_does_not_answer) {
    struct frame *four = udp4(.source = "192.168.1.10:1", .destination = "10.3.0.77:2");
    struct frame *six = udp6(.source = "[2001:db8:1::10]:1", .destination = "[2001:db8:3::77]:2");

    start(standard);
    inject(LAN, four);
    inject(LAN, six);
    turn();
    expect_nothing(LAN);
    advance(4000);
    expect(LAN, icmp4_error(ERROR4, .type = UNREACHABLE, .code = 1, .about = four));
    expect(LAN, icmp6_error(ERROR6, .type = UNREACHABLE6, .code = 3, .about = six));
    require(discard(DMZ) == 6, "not three questions for each");
    expect_drop("local.host_unreachable", 2);
}

/* --- too big --- */

static const char *const narrow_wan =
    "{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES ", 'mtu': 9000}, 'wan': {" WAN_PORT
    "," WAN_ADDRESSES ", 'mtu': 1400}}, 'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
    "'routes': [" DEFAULT_ROUTES "]," UNLIMITED "}";

CASE(too_big_names_the_mtu) {
    struct frame *four, *six;

    start(narrow_wan);
    four = udp4(FLOW4, .fragment = DONT_FRAGMENT, .size = 1400 - 28);
    inject(LAN, four);
    expect(WAN, hop(four));
    four = udp4(FLOW4, .fragment = DONT_FRAGMENT, .size = 1400 - 27);
    inject(LAN, four);
    expect(LAN, icmp4_error(ERROR4, .type = UNREACHABLE, .code = 4, .rest = 1400, .about = four));
    expect_drop("local.too_big", 1);
    six = udp6(FLOW6, .size = 1400 - 48);
    inject(LAN, six);
    expect(WAN, hop(six));
    six = udp6(FLOW6, .size = 1400 - 47);
    inject(LAN, six);
    expect(LAN, icmp6_error(ERROR6, .type = TOO_BIG6, .rest = 1400, .about = six));
    expect_drop("local.too_big", 1);
    six = udp6(FLOW6, .size = 8000);
    inject(LAN, six);
    expect(LAN, icmp6_error(ERROR6, .type = TOO_BIG6, .rest = 1400, .about = six));
    expect_drop("local.too_big", 1);
}

CASE(too_big_is_said_of_fragments_of_ipv6_too) {
    struct frame *six = udp6(FLOW6, .first = 44, .extensions = "0000 0001 12345678", .size = 1400);

    start(narrow_wan);
    inject(LAN, six);
    expect(LAN, icmp6_error(ERROR6, .type = TOO_BIG6, .rest = 1400, .about = six));
    expect_drop("local.too_big", 1);
}

/* --- about what no error is sent --- */

CASE(no_errors_about_icmp_errors) {
    static const unsigned types4[] = {3, 4, 5, 11, 12};
    struct frame *about4 = udp4(.source = "203.0.113.1:1", .destination = "192.168.1.10:2");
    struct frame *about6 =
        udp6(.source = "[2001:db8:99::1]:1", .destination = "[2001:db8:1::10]:2");

    start(standard);
    for (unsigned i = 0; i < sizeof(types4) / sizeof(types4[0]); i++)
        silently_dropped(icmp4_error(.source = "192.168.1.10", .destination = "203.0.113.1",
                                     .type = types4[i], .ttl = 1, .about = about4),
                         {"icmp.error_not_allowed", 1}, {"local.time_exceeded", 1});
    for (unsigned type = 0; type < 128; type++)
        silently_dropped(icmp6_error(.source = "2001:db8:1::10", .destination = "2001:db8:99::1",
                                     .type = type, .hop_limit = 1, .about = about6),
                         {"icmp.error_not_allowed", 1}, {"local.time_exceeded", 1});
    silently_dropped(icmp6(.source = "2001:db8:1::10", .destination = "2001:db8:99::1", .type = 137,
                           .hop_limit = 1),
                     {"icmp.error_not_allowed", 1}, {"local.time_exceeded", 1});
}

CASE(errors_about_other_icmp_messages) {
    struct frame *four =
        icmp4_echo(.source = "192.168.1.10", .destination = "203.0.113.1", .ttl = 1);
    struct frame *six =
        icmp6_echo(.source = "2001:db8:1::10", .destination = "2001:db8:99::1", .hop_limit = 1);

    start(standard);
    inject(LAN, four);
    expect(LAN, icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = four));
    inject(LAN, six);
    expect(LAN, icmp6_error(ERROR6, .type = TIME_EXCEEDED6, .about = six));
    expect_drop("local.time_exceeded", 2);
}

CASE(no_errors_about_later_fragments) {
    struct frame *whole = udp4(FLOW4, .ttl = 1, .size = 100);

    start(standard);
    silently_dropped(fragment4(whole, 48, 24), {"icmp.error_not_allowed", 1},
                     {"local.time_exceeded", 1});
    inject(LAN, fragment4(whole, 0, 48));
    expect(LAN, icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = fragment4(whole, 0, 48)));
    expect_drop("local.time_exceeded", 1);
    silently_dropped(udp6(FLOW6, .hop_limit = 1, .first = 44, .extensions = "0000 0008 12345678"),
                     {"icmp.error_not_allowed", 1}, {"local.time_exceeded", 1});
}

CASE(no_errors_about_broadcasts_and_multicasts) {
    start(standard);
    silently_dropped(ether(udp4(FLOW4, .ttl = 1), BROADCAST, HOST_LAN),
                     {"route.link_broadcast_unicast", 1});
    silently_dropped(ether(udp4(.source = "192.168.1.10:1", .destination = "192.168.1.1:9"),
                           BROADCAST, HOST_LAN),
                     {"local.group_not_wanted", 1});
    silently_dropped(ether(udp4(.source = "192.168.1.10:1", .destination = "192.168.1.255:9"),
                           BROADCAST, HOST_LAN),
                     {"local.group_not_wanted", 1});
    silently_dropped(udp4(.source = "192.168.1.10:1", .destination = "224.0.0.1:9"),
                     {"local.group_not_wanted", 1});
    silently_dropped(udp6(.source = "[2001:db8:1::10]:1", .destination = "[ff02::1]:9"),
                     {"local.group_not_wanted", 1});
    /* No route for what came as a link-layer broadcast. */
    rpc("route.add", "{'prefix': '203.0.113.0/24', 'unreachable': true}");
    silently_dropped(ether(udp4(FLOW4), BROADCAST, HOST_LAN), {"icmp.error_not_allowed", 1},
                     {"local.host_unreachable", 1});
    rpc("route.delete", "{'prefix': '203.0.113.0/24'}");
}

CASE(no_errors_to_where_nobody_can_be) {
    start(standard);
    /* RFC 4443 section 2.4 (e.6): a source that is no single host's. */
    silently_dropped(udp6(.source = "::", .destination = "ff02::1"), {"local.group_not_wanted", 1});
    silently_dropped(ether(udp4(.source = "0.0.0.0:68", .destination = "255.255.255.255:67"),
                           BROADCAST, HOST_LAN),
                     {"local.group_not_wanted", 1});
}

/* There is no route to a link-local sender: the answer leaves where the packet came in. */
CASE(errors_to_link_local_sources) {
    struct frame *local = udp6(.source = "[fe80::10]:1", .destination = "[2001:db8:1::1]:9");
    struct frame *refused = udp6(.source = "[fe80::10]:1", .destination = "[2001:db8:98::1]:9");

    start(standard_with_routes("{'prefix': '2001:db8:98::/48', 'unreachable': true}"));
    inject(LAN, local);
    expect(LAN, neighbour_solicitation(.source = link_local_of(ROUTER_LAN), .target = "fe80::10",
                                       .source_link = ROUTER_LAN));
    inject(LAN,
           neighbour_advertisement(.source = "fe80::10", .destination = link_local_of(ROUTER_LAN),
                                   .target = "fe80::10", .flags = 0x60, .target_link = HOST_LAN));
    expect(LAN, icmp6_error(.source = "2001:db8:1::1", .destination = "fe80::10",
                            .type = UNREACHABLE6, .code = 4, .about = local));
    expect_drop("local.no_listener", 1);
    inject(LAN, refused);
    expect(LAN, icmp6_error(.source = link_local_of(ROUTER_LAN), .destination = "fe80::10",
                            .type = UNREACHABLE6, .code = 3, .about = refused));
    expect_drop("local.host_unreachable", 1);
}

/* --- how many --- */

CASE(errors_are_limited) {
    enum { BURST = 5, SENT = 40 };
    struct frame *frame = udp4(FLOW4, .ttl = 1);

    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          "," WAN_ADDRESSES "}}, 'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
          "'routes': [" DEFAULT_ROUTES "], 'icmp': {'rate_limit': 10, 'burst': 5}}");
    usleep(700 * 1000); /* the limit lives in real time: now it has a full burst */
    for (unsigned i = 0; i < SENT; i++)
        inject(LAN, frame);
    turn();
    for (unsigned i = 0; i < BURST; i++)
        expect(LAN, icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = frame));
    expect_nothing(LAN);
    expect_drops({"icmp.error_rate_limited", SENT - BURST}, {"local.time_exceeded", SENT});
    usleep(700 * 1000);
    inject(LAN, frame);
    expect(LAN, icmp4_error(ERROR4, .type = TIME_EXCEEDED, .about = frame));
    expect_drop("local.time_exceeded", 1);
}

CASE(errors_can_be_switched_off) {
    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "], 'icmp': {'rate_limit': 0}}");
    silently_dropped(udp4(FLOW4), {"icmp.error_rate_limited", 1}, {"local.no_route", 1});
}

/* --- echo --- */

CASE(echo) {
    start(standard);
    inject(LAN, icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1", .id = 77,
                           .tos = 0x10, .identifier = 0x1234, .sequence = 7, .payload = "abc"));
    expect(LAN,
           icmp4_echo_reply(.source = "192.168.1.1", .destination = "192.168.1.10", .id = 77,
                            .tos = 0x10, .identifier = 0x1234, .sequence = 7, .payload = "abc"));
    inject(LAN, icmp6_echo(.source = "2001:db8:1::10", .destination = "2001:db8:1::1",
                           .identifier = 0x1234, .sequence = 7, .payload = "abc"));
    expect(LAN, icmp6_echo_reply(.source = "2001:db8:1::1", .destination = "2001:db8:1::10",
                                 .identifier = 0x1234, .sequence = 7, .payload = "abc"));
}

CASE(echo_of_another_interface_s_address) {
    start(standard);
    inject(LAN, icmp4_echo(.source = "192.168.1.10", .destination = "10.3.0.1"));
    expect(LAN, icmp4_echo_reply(.source = "10.3.0.1", .destination = "192.168.1.10"));
    inject(WAN, icmp6_echo(.source = "2001:db8:99::1", .destination = "2001:db8:1::1"));
    expect(WAN, icmp6_echo_reply(.source = "2001:db8:1::1", .destination = "2001:db8:99::1"));
}

/* The checksum changes by the type alone: all values that it can have. */
CASE(echo_with_every_checksum) {
    enum { BURST = 64 };
    struct frame *replies[BURST];

    start(standard);
    for (unsigned n = 0; n < 0x10000; n += BURST) {
        for (unsigned i = 0; i < BURST; i++) {
            inject(LAN, icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1",
                                   .identifier = n + i, .sequence = 1, .size = 2));
            replies[i] = icmp4_echo_reply(.source = "192.168.1.1", .destination = "192.168.1.10",
                                          .identifier = n + i, .sequence = 1, .size = 2);
        }
        for (unsigned i = 0; i < BURST; i++)
            expect(LAN, replies[i]);
        frames_free();
    }
}

CASE(echo_with_every_ipv6_checksum) {
    start(standard);
    for (unsigned n = 0; n < 0x10000; n += n < 0x100 || n > 0xff00 ? 1 : 5) {
        inject(LAN, icmp6_echo(.source = "2001:db8:1::10", .destination = "2001:db8:1::1",
                               .identifier = n, .sequence = 1, .size = 2));
        expect(LAN, icmp6_echo_reply(.source = "2001:db8:1::1", .destination = "2001:db8:1::10",
                                     .identifier = n, .sequence = 1, .size = 2));
        if (n % 64 == 0)
            frames_free();
    }
}

CASE(echo_of_every_length) {
    start(standard);
    for (unsigned size = 1; size <= 1452; size += 3) {
        inject(LAN,
               icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1", .size = size));
        expect(LAN, icmp4_echo_reply(.source = "192.168.1.1", .destination = "192.168.1.10",
                                     .size = size));
        inject(LAN, icmp6_echo(.source = "2001:db8:1::10", .destination = "2001:db8:1::1",
                               .size = size));
        expect(LAN, icmp6_echo_reply(.source = "2001:db8:1::1", .destination = "2001:db8:1::10",
                                     .size = size));
    }
    inject(LAN,
           padded(icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1", .payload = ""),
                  60));
    expect(LAN,
           icmp4_echo_reply(.source = "192.168.1.1", .destination = "192.168.1.10", .payload = ""));
}

CASE(echo_with_a_wrong_checksum) {
    struct frame *four = icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1");
    struct frame *six = icmp6_echo(.source = "2001:db8:1::10", .destination = "2001:db8:1::1");

    start(standard);
    for (unsigned bit = 0; bit < 16; bit++) {
        struct frame *bad4 = copy(four), *bad6 = copy(six);

        bad4->bytes[IP4_PAYLOAD + 2 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        bad6->bytes[IP6_PAYLOAD + 2 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        silently_dropped(bad4, {"icmp.echo_checksum", 1});
        silently_dropped(bad6, {"icmp.echo_checksum", 1});
    }
}

CASE(a_big_echo_in_many_buffers) {
    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES ", 'mtu': 9000}},"
          "'neighbours': [" LAN_NEIGHBOURS "]," UNLIMITED "}");
    for (unsigned each = 62; each < 2000; each += 191) {
        inject_segments(
            LAN, icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1", .size = 8501),
            each);
        expect(LAN, icmp4_echo_reply(.source = "192.168.1.1", .destination = "192.168.1.10",
                                     .size = 8501));
        inject_segments(
            LAN,
            icmp6_echo(.source = "2001:db8:1::10", .destination = "2001:db8:1::1", .size = 8501),
            each);
        expect(LAN, icmp6_echo_reply(.source = "2001:db8:1::1", .destination = "2001:db8:1::10",
                                     .size = 8501));
    }
}

/* RFC 1122 section 3.2.2.6. */
CASE(echo_to_broadcasts_is_not_answered) {
    start(standard);
    silently_dropped(ether(icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.255"),
                           BROADCAST, HOST_LAN),
                     {"local.group_not_wanted", 1});
    silently_dropped(ether(icmp4_echo(.source = "192.168.1.10", .destination = "255.255.255.255"),
                           BROADCAST, HOST_LAN),
                     {"local.group_not_wanted", 1});
    silently_dropped(ether(icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1"),
                           BROADCAST, HOST_LAN),
                     {"local.group_not_wanted", 1});
    silently_dropped(icmp4_echo(.source = "192.168.1.10", .destination = "224.0.0.1"),
                     {"local.group_not_wanted", 1});
    silently_dropped(icmp4_echo(.source = "192.168.1.10", .destination = "10.3.0.255"),
                     {"route.directed_broadcast", 1});
}

/* RFC 4443 section 4.2: answered, from an address of the interface. */
CASE(echo_to_an_ipv6_group) {
    start(standard);
    inject(LAN, icmp6_echo(.source = "2001:db8:1::10", .destination = "ff02::1", .sequence = 1));
    expect(LAN, icmp6_echo_reply(.source = "2001:db8:1::1", .destination = "2001:db8:1::10",
                                 .sequence = 1));
}

CASE(echo_between_link_local_addresses) {
    const char *router = link_local_of(ROUTER_LAN);

    start(standard);
    router = link_local_of(ROUTER_LAN);
    inject(LAN, icmp6_echo(.source = "fe80::10", .destination = router, .sequence = 1));
    expect(LAN, neighbour_solicitation(.source = router, .target = "fe80::10",
                                       .source_link = ROUTER_LAN));
    inject(LAN,
           neighbour_advertisement(.source = "fe80::10", .destination = router,
                                   .target = "fe80::10", .flags = 0x60, .target_link = HOST_LAN));
    expect(LAN, icmp6_echo_reply(.source = router, .destination = "fe80::10", .sequence = 1));
    for (unsigned n = 2; n < 5; n++) {
        inject(LAN, icmp6_echo(.source = "fe80::10", .destination = router, .sequence = n));
        expect(LAN, icmp6_echo_reply(.source = router, .destination = "fe80::10", .sequence = n));
    }
}

CASE(echo_fragments_are_not_answered) {
    struct frame *echo =
        icmp4_echo(.source = "192.168.1.10", .destination = "192.168.1.1", .size = 100);

    start(standard);
    silently_dropped(fragment4(echo, 0, 48), {"local.no_listener", 1});
    silently_dropped(fragment4(echo, 48, 60), {"local.no_listener", 1});
}

CASE(answers_to_nobody_s_questions_end_here) {
    start(standard);
    silently_dropped(icmp4_echo_reply(.source = "192.168.1.10", .destination = "192.168.1.1"),
                     {"local.no_listener", 1});
    silently_dropped(icmp6_echo_reply(.source = "2001:db8:1::10", .destination = "2001:db8:1::1"),
                     {"local.no_listener", 1});
    silently_dropped(icmp4(.source = "192.168.1.10", .destination = "192.168.1.1", .type = 13),
                     {"local.no_listener", 1});
    /* From one of the router's own addresses, which must not become a circle. */
    inject(LAN, icmp4_echo(.source = "198.51.100.1", .destination = "192.168.1.1"));
    expect_nothing(ANYWHERE);
    forget_drops();
    inject(LAN, udp4(.source = "192.168.1.1:1", .destination = "192.168.1.1:1"));
    expect_nothing(ANYWHERE);
    forget_drops();
}

CASE(an_echo_that_is_too_short_for_its_header) {
    start(standard);
    for (unsigned size = 1; size < 8; size++) {
        silently_dropped(ip4(.source = "192.168.1.10", .destination = "192.168.1.1", .protocol = 1,
                             .size = size),
                         {"local.no_listener", 1});
        silently_dropped(ip6(.source = "2001:db8:1::10", .destination = "2001:db8:1::1",
                             .protocol = 58, .size = size),
                         {"local.no_listener", 1});
    }
}

/* RFC 6164: the even address of a /127 is a host's like the other one. */
CASE(the_even_address_of_a_127) {
    struct frame *udp =
        udp6(.source = "[2001:db8:1::10]:7", .destination = "[2001:db8:2::]:9", .size = 20);

    start("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
          "'wan': {" WAN_PORT ", 'addresses': ['198.51.100.1/24', '2001:db8:2::/127']}},"
          "'neighbours': [" LAN_NEIGHBOURS "]," UNLIMITED "}");
    inject(LAN, icmp6_echo(.source = "2001:db8:1::10", .destination = "2001:db8:2::"));
    expect(LAN, icmp6_echo_reply(.source = "2001:db8:2::", .destination = "2001:db8:1::10"));
    inject(LAN, udp);
    expect(LAN, icmp6_error(.source = "2001:db8:2::", .destination = "2001:db8:1::10", .type = 1,
                            .code = 4, .about = udp));
    expect_drop("local.no_listener", 1);
}

HARNESS_MAIN()
