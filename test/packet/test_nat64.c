/* Stateful NAT64 (RFC 6146), with headers as RFC 7915 has them. Frames are expected to the byte,
 * with checksums worked out anew; identifications of IPv4, which the router chooses, are copied. */
#include <stdio.h>

#include "harness.h"
#include "nat/nat_internal.h"

#define CLIENT "2001:db8:1::10"
#define SECOND "2001:db8:1::20"
#define OUTSIDE "198.51.100.1"
#define SERVER "203.0.113.1"
#define SERVER6 "64:ff9b:1::203.0.113.1"
#define GATEWAY "198.51.100.2"
#define GATEWAY6 "64:ff9b:1::198.51.100.2"

#define INTERFACES                              \
    "'interfaces': {"                           \
    "'lan': {" LAN_PORT ", " LAN_ADDRESSES "}," \
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"
#define NEIGHBOURS                                          \
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," \
    "{'interface': 'lan', 'address': '" SECOND "', 'mac': '" HOST_LAN "'}],"
#define ROUTER(sections) \
    "{" INTERFACES NEIGHBOURS "'routes': [" DEFAULT_ROUTES "]," sections "," UNLIMITED "}"
#define RULE "'prefix': '64:ff9b:1::/96', 'out': 'wan', 'to': 'interface'"

static const char *const nat64 = ROUTER("'nat': {'nat64': [{" RULE "}]}");

static const char *rule(const char *members) {
    return text(ROUTER("'nat': {'nat64': [{%s}]}"), members);
}

enum { SYN = 0x02, ACK = 0x10 };
enum { V4_UNREACHABLE = 3, V4_TOO_BIG = 4, V4_TIME_EXCEEDED = 11, V4_PARAMETER = 12 };
enum { V6_UNREACHABLE = 1, V6_TOO_BIG = 2, V6_TIME_EXCEEDED = 3, V6_PARAMETER = 4, V6_NO_PORT = 4 };

static const char *end6(const char *address, unsigned port) {
    return text("[%s]:%u", address, port);
}

/* The frame with the identification that the found one has, which the router has chosen. */
static struct frame *same_id(const struct frame *found, const struct frame *expected) {
    return patch(expected, IP + 4, text("%02x%02x", found->bytes[IP + 4], found->bytes[IP + 5]));
}

#define expect_ipv4(place, frame) expect_ipv4_at((place), (frame), __LINE__)
static struct frame *expect_ipv4_at(enum place place, const struct frame *frame, int line) {
    struct frame *found = take(place);
    const char *to = place == WAN ? HOST_WAN : HOST_LAN,
               *from = place == WAN ? ROUTER_WAN : ROUTER_LAN;
    struct frame *expected;

    require(found != NULL, "line %d: nothing came", line);
    expected = ether(same_id(found, frame), to, from);
    if (!frame_equal(expected, found))
        frame_compare(expected, found);
    require(frame_equal(expected, found), "line %d: another frame", line);
    return found;
}

static unsigned source_port(const struct frame *frame) {
    return (unsigned)frame->bytes[IP4_PAYLOAD] << 8 | frame->bytes[IP4_PAYLOAD + 1];
}

static void open_udp(void) {
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .ttl = 63));
}

/* --- packets --- */

CASE(udp_goes_out_and_its_answer_comes_back) {
    start(nat64);
    open_udp();
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000"));
    expect(LAN,
           udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .hop_limit = 63));
    for (unsigned size = 1; size < 40; size++) { /* odd and even lengths */
        inject(LAN,
               udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = size));
        expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .size = size,
                              .ttl = 63));
        inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = size));
        expect(LAN, udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000),
                         .size = size, .hop_limit = 63));
    }
}

CASE(tcp_goes_out_and_comes_back) {
    start(nat64);
    inject(LAN,
           tcp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 80), .tcp_flags = SYN));
    expect_ipv4(WAN, tcp4(.source = OUTSIDE ":4000", .destination = SERVER ":80", .tcp_flags = SYN,
                          .ttl = 63));
    inject(WAN,
           tcp4(.source = SERVER ":80", .destination = OUTSIDE ":4000", .tcp_flags = SYN | ACK));
    expect(LAN, tcp6(.source = end6(SERVER6, 80), .destination = end6(CLIENT, 4000),
                     .tcp_flags = SYN | ACK, .hop_limit = 63));
    inject(LAN, tcp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 80),
                     .tcp_flags = ACK, .size = 101));
    expect_ipv4(WAN, tcp4(.source = OUTSIDE ":4000", .destination = SERVER ":80", .tcp_flags = ACK,
                          .size = 101, .ttl = 63));
    inject(WAN, tcp4(.source = SERVER ":80", .destination = OUTSIDE ":4000", .tcp_flags = ACK,
                     .size = 77));
    expect(LAN, tcp6(.source = end6(SERVER6, 80), .destination = end6(CLIENT, 4000),
                     .tcp_flags = ACK, .size = 77, .hop_limit = 63));
}

CASE(echo_goes_out_and_comes_back) {
    start(nat64);
    for (unsigned sequence = 0; sequence < 3; sequence++) {
        inject(LAN, icmp6_echo(.source = CLIENT, .destination = SERVER6, .identifier = 0x4321,
                               .sequence = sequence, .size = 30 + sequence));
        expect_ipv4(WAN, icmp4_echo(.source = OUTSIDE, .destination = SERVER, .identifier = 0x4321,
                                    .sequence = sequence, .size = 30 + sequence, .ttl = 63));
        inject(WAN, icmp4_echo_reply(.source = SERVER, .destination = OUTSIDE, .identifier = 0x4321,
                                     .sequence = sequence, .size = 30 + sequence));
        expect(LAN, icmp6_echo_reply(.source = SERVER6, .destination = CLIENT, .identifier = 0x4321,
                                     .sequence = sequence, .size = 30 + sequence, .hop_limit = 63));
    }
}

/* RFC 7915 sections 4.1 and 5.1: the traffic class is the type of service. */
CASE(the_traffic_class_stays) {
    start(nat64);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53),
                     .traffic_class = 0xb8, .flow_label = 0x12345));
    expect_ipv4(
        WAN, udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .tos = 0xb8, .ttl = 63));
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .tos = 0x2e));
    expect(LAN, udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000),
                     .traffic_class = 0x2e, .hop_limit = 63));
}

/* Longer ones must not be fragmented, as nobody on the IPv6 side would have either. */
CASE(above_1260_bytes_df_is_set) {
    struct frame *found;

    start(nat64);
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = 1260 - 28));
    found = expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53",
                                  .size = 1260 - 28, .ttl = 63));
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = 1261 - 28));
    expect(WAN, udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .size = 1261 - 28,
                     .fragment = DONT_FRAGMENT, .ttl = 63));
    /* Those that may be cut differ in their identifications (RFC 6864). */
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    require(memcmp(take_one(WAN)->bytes + IP + 4, found->bytes + IP + 4, 2) != 0,
            "the same identification twice");
}

/* IPv6 has no options, and IPv4 no extension headers; hop-by-hop and destination options are left
 * out, what changes the packet's meaning is not. */
CASE(options_and_extension_headers) {
    start(nat64);
    open_udp();
    inject(WAN,
           udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .options = "01010100"));
    expect(LAN,
           udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .hop_limit = 63));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .first = 60,
                     .extensions = "1100010400000000"));
    expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .ttl = 63));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .first = 43,
                     .extensions = "1100000000000000"));
    expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .ttl = 63));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .first = 43,
                     .extensions = "1100000100000000"));
    expect_nothing(ANYWHERE);
    expect_drop("session.family_header", 1);
}

CASE(udp_without_a_checksum_gets_one) {
    struct frame *bare = udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 33);

    start(nat64);
    open_udp();
    memset(bare->bytes + IP4_PAYLOAD + 6, 0, 2);
    inject(WAN, bare);
    expect(LAN, udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .size = 33,
                     .hop_limit = 63));
    inject(WAN,
           fragment4(poke(udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 100),
                          IP4_PAYLOAD + 6, "0000"),
                     0, 64));
    expect_nothing(ANYWHERE);
    expect_drop("session.family_no_checksum", 1);
}

/* --- fragments --- */

/* The payload of the IPv6 fragment with this part of a UDP packet. */
static struct frame *fragment6(const struct frame *whole, unsigned offset, unsigned length,
                               bool more, unsigned id) {
    struct frame *out =
        ip6(.source = SERVER6, .destination = CLIENT, .first = 44, .protocol = 17, .size = length,
            .extensions = text("1100%04x%08x", offset | more, id), .hop_limit = 63);

    memcpy(out->bytes + IP6_PAYLOAD + 8, whole->bytes + IP6_PAYLOAD + offset, length);
    return out;
}

CASE(fragments_of_ipv4_stay_fragments) {
    struct frame *whole =
        udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 200, .id = 0xbeef);
    struct frame *as6 =
        udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .size = 200);

    start(nat64);
    open_udp();
    inject(WAN, fragment4(whole, 0, 104));
    inject(WAN, fragment4(whole, 104, 104));
    expect(LAN, fragment6(as6, 0, 104, true, 0xbeef));
    expect(LAN, fragment6(as6, 104, 104, false, 0xbeef));
}

CASE(fragments_that_come_first_wait) {
    struct frame *whole =
        udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 200, .id = 0xbeef);
    struct frame *as6 =
        udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .size = 200);

    start(nat64);
    open_udp();
    inject(WAN, fragment4(whole, 104, 104));
    expect_nothing(ANYWHERE);
    inject(WAN, fragment4(whole, 0, 104));
    expect(LAN, fragment6(as6, 0, 104, true, 0xbeef));
    expect(LAN, fragment6(as6, 104, 104, false, 0xbeef));
}

CASE(fragments_of_ipv6_stay_fragments) {
    struct frame *whole =
        udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = 200);
    struct frame *as4 = udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .size = 200,
                             .id = 0x5678, .ttl = 63);
    struct frame *head = ip6(.source = CLIENT, .destination = SERVER6, .first = 44, .protocol = 17,
                             .size = 104, .extensions = "1100000112345678");
    struct frame *tail = ip6(.source = CLIENT, .destination = SERVER6, .first = 44, .protocol = 17,
                             .size = 104, .extensions = "1100006812345678");

    memcpy(head->bytes + IP6_PAYLOAD + 8, whole->bytes + IP6_PAYLOAD, 104);
    memcpy(tail->bytes + IP6_PAYLOAD + 8, whole->bytes + IP6_PAYLOAD + 104, 104);
    start(nat64);
    inject(LAN, head); /* opens the session as well */
    inject(LAN, tail);
    expect(WAN, fragment4(as4, 0, 104));
    expect(WAN, fragment4(as4, 104, 104));
}

/* RFC 6946: a whole packet with a fragment header. */
CASE(an_atomic_fragment_may_be_cut) {
    struct frame *atomic = udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53),
                                .first = 44, .extensions = "1100000012345678");

    start(nat64);
    inject(LAN, atomic);
    expect(WAN,
           udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .id = 0x5678, .ttl = 63));
}

/* What may be fragmented, and would not pass each link of IPv6, is fragmented here. */
CASE(large_packets_without_df_go_on_in_pieces) {
    struct frame *whole =
        udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 1300, .id = 0xbeef);
    struct frame *as6 =
        udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .size = 1300);

    start(nat64);
    open_udp();
    inject(WAN, whole);
    expect(LAN, fragment6(as6, 0, 1232, true, 0xbeef));
    expect(LAN, fragment6(as6, 1232, 76, false, 0xbeef));
    memset(whole->bytes + IP4_PAYLOAD + 6, 0, 2); /* no checksum: both pieces get it by the first */
    inject(WAN, whole);
    expect(LAN, fragment6(as6, 0, 1232, true, 0xbeef));
    expect(LAN, fragment6(as6, 1232, 76, false, 0xbeef));
    inject(WAN, patch(whole, IP + 6, "4000")); /* DF */
    expect(LAN, udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .size = 1300,
                     .hop_limit = 63));
}

/* Hosts answer ping without DF: the checksum of ICMPv6 covers all of it, so it is made before. */
CASE(large_echoes_go_on_in_pieces) {
    struct frame *answer = icmp6_echo_reply(.source = SERVER6, .destination = CLIENT,
                                            .identifier = 0x4321, .size = 1400);
    struct frame *found;

    start(nat64);
    inject(LAN, icmp6_echo(.source = CLIENT, .destination = SERVER6, .identifier = 0x4321,
                           .size = 1400));
    discard(WAN);
    inject(WAN, icmp4_echo_reply(.source = SERVER, .destination = OUTSIDE, .identifier = 0x4321,
                                 .size = 1400, .id = 0xbeef));
    for (unsigned offset = 0; offset < 1408; offset += 1232) {
        unsigned length = offset ? 1408 - 1232 : 1232;

        found = take_one(LAN);
        require(found->bytes[IP + 6] == 44 && found->bytes[IP6_PAYLOAD] == 58, "no fragment");
        require(found->length == IP6_PAYLOAD + 8 + length, "%u bytes", found->length);
        require(memcmp(found->bytes + IP6_PAYLOAD + 8, answer->bytes + IP6_PAYLOAD + offset,
                       length) == 0,
                "another piece at %u", offset);
    }
}

CASE(fragmented_echoes_have_no_counterpart) {
    start(nat64);
    inject(LAN, icmp6_echo(.source = CLIENT, .destination = SERVER6, .identifier = 0x4321));
    discard(WAN);
    inject(WAN, fragment4(icmp4_echo_reply(.source = SERVER, .destination = OUTSIDE,
                                           .identifier = 0x4321, .size = 100),
                          0, 64));
    expect_nothing(ANYWHERE);
    expect_drop("session.family_icmp", 1);
}

/* --- ICMP errors --- */

/* Sends an error about what went out, and returns what comes in of it. */
static void error_about(const struct frame *sent, struct ipv4 error) {
    error.about = sent;
    error.source = GATEWAY;
    error.destination = OUTSIDE;
    inject(WAN, frame_icmp4_error(error));
}

static struct frame *error6(unsigned type, unsigned code, uint32_t rest, unsigned size) {
    return icmp6_error(.source = GATEWAY6, .destination = CLIENT, .type = type, .code = code,
                       .rest = rest, .hop_limit = 63, .traffic_class = 0xc0,
                       .about = udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53),
                                     .size = size, .hop_limit = 63));
}

CASE(errors_from_ipv4_reach_the_client) {
    static const struct {
        unsigned type, code;
        uint32_t rest;
        unsigned type6, code6;
        uint32_t rest6;
    } errors[] = {
        {V4_UNREACHABLE, 0, 0, V6_UNREACHABLE, 0, 0},
        {V4_UNREACHABLE, 1, 0, V6_UNREACHABLE, 0, 0},
        {V4_UNREACHABLE, 2, 0, V6_PARAMETER, 1, 6},
        {V4_UNREACHABLE, 3, 0, V6_UNREACHABLE, V6_NO_PORT, 0},
        {V4_UNREACHABLE, V4_TOO_BIG, 1400, V6_TOO_BIG, 0, 1420},
        {V4_UNREACHABLE, V4_TOO_BIG, 600, V6_TOO_BIG, 0, 1280},
        {V4_UNREACHABLE, 5, 0, V6_UNREACHABLE, 0, 0},
        {V4_UNREACHABLE, 9, 0, V6_UNREACHABLE, 1, 0},
        {V4_UNREACHABLE, 10, 0, V6_UNREACHABLE, 1, 0},
        {V4_UNREACHABLE, 13, 0, V6_UNREACHABLE, 1, 0},
        {V4_UNREACHABLE, 15, 0, V6_UNREACHABLE, 1, 0},
        {V4_TIME_EXCEEDED, 0, 0, V6_TIME_EXCEEDED, 0, 0},
        {V4_TIME_EXCEEDED, 1, 0, V6_TIME_EXCEEDED, 1, 0},
        {V4_PARAMETER, 0, 8u << 24, V6_PARAMETER, 0, 7},
        {V4_PARAMETER, 0, 12u << 24, V6_PARAMETER, 0, 8},
        {V4_PARAMETER, 0, 16u << 24, V6_PARAMETER, 0, 24},
    };
    struct frame *sent;

    start(nat64);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = 300));
    sent = take_one(WAN);
    for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        error_about(
            sent,
            (struct ipv4){.type = errors[i].type, .code = errors[i].code, .rest = errors[i].rest});
        expect(LAN, error6(errors[i].type6, errors[i].code6, errors[i].rest6, 300));
    }
    error_about(sent, (struct ipv4){.type = V4_UNREACHABLE, .code = 14});
    error_about(sent, (struct ipv4){.type = V4_PARAMETER, .rest = 10u << 24});
    expect_nothing(ANYWHERE);
    expect_drop("session.family_icmp", 2);
}

/* RFC 1191 section 7: the MTU of a router that names none is guessed. */
CASE(an_error_without_an_mtu) {
    struct frame *sent;

    start(nat64);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = 1400));
    sent = take_one(WAN);
    error_about(sent, (struct ipv4){.type = V4_UNREACHABLE, .code = V4_TOO_BIG, .quote = 64});
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    require(take_one(WAN) != NULL, "the session is gone");
    require(memcmp(take_one(LAN)->bytes + IP6_PAYLOAD, "\x02\x00", 2) == 0, "not too big");
}

CASE(errors_about_tcp_and_echo) {
    struct frame *sent;

    start(nat64);
    inject(LAN,
           tcp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 80), .tcp_flags = SYN));
    sent = take_one(WAN);
    error_about(sent, (struct ipv4){.type = V4_UNREACHABLE, .code = 1});
    expect(LAN,
           icmp6_error(.source = GATEWAY6, .destination = CLIENT, .type = V6_UNREACHABLE,
                       .hop_limit = 63, .traffic_class = 0xc0,
                       .about = tcp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 80),
                                     .tcp_flags = SYN, .hop_limit = 63)));
    inject(LAN, icmp6_echo(.source = CLIENT, .destination = SERVER6, .identifier = 5, .size = 50));
    sent = take_one(WAN);
    error_about(sent, (struct ipv4){.type = V4_TIME_EXCEEDED});
    expect(LAN, icmp6_error(.source = GATEWAY6, .destination = CLIENT, .type = V6_TIME_EXCEEDED,
                            .hop_limit = 63, .traffic_class = 0xc0,
                            .about = icmp6_echo(.source = CLIENT, .destination = SERVER6,
                                                .identifier = 5, .size = 50, .hop_limit = 63)));
}

/* Of a long packet no more is quoted than fits into 1280 bytes (RFC 4443 section 2.4 (c)). */
CASE(a_long_quote_is_cut) {
    struct frame *sent, *found;

    start(nat64);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = 1400));
    sent = take_one(WAN);
    error_about(sent, (struct ipv4){.type = V4_UNREACHABLE, .code = 3, .quote = 1400});
    found = take_one(LAN);
    require(found->length == 14 + 1280, "%u bytes", found->length);
}

CASE(errors_from_the_client_reach_the_server) {
    static const struct {
        unsigned type6, code6;
        uint32_t rest6;
        unsigned type, code;
        uint32_t rest;
    } errors[] = {
        {V6_UNREACHABLE, 0, 0, V4_UNREACHABLE, 1, 0},
        {V6_UNREACHABLE, 1, 0, V4_UNREACHABLE, 10, 0},
        {V6_UNREACHABLE, 3, 0, V4_UNREACHABLE, 1, 0},
        {V6_UNREACHABLE, V6_NO_PORT, 0, V4_UNREACHABLE, 3, 0},
        {V6_TOO_BIG, 0, 1400, V4_UNREACHABLE, V4_TOO_BIG, 1380},
        {V6_TIME_EXCEEDED, 0, 0, V4_TIME_EXCEEDED, 0, 0},
        {V6_PARAMETER, 1, 6, V4_UNREACHABLE, 2, 0},
        {V6_PARAMETER, 0, 7, V4_PARAMETER, 0, 8u << 24},
        {V6_PARAMETER, 0, 24, V4_PARAMETER, 0, 16u << 24},
    };
    struct frame *sent;

    start(nat64);
    open_udp();
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 100));
    sent = take_one(LAN);
    for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        inject(LAN, icmp6_error(.source = CLIENT, .destination = SERVER6, .type = errors[i].type6,
                                .code = errors[i].code6, .rest = errors[i].rest6, .about = sent));
        expect_ipv4(
            WAN,
            patch(icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = errors[i].type,
                              .code = errors[i].code, .rest = errors[i].rest, .ttl = 63,
                              .about = udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000",
                                            .size = 100, .ttl = 63)),
                  IP + 1, "00"));
    }
    inject(LAN, icmp6_error(.source = CLIENT, .destination = SERVER6, .type = V6_PARAMETER,
                            .code = 2, .about = sent));
    expect_nothing(ANYWHERE);
    expect_drop("session.family_icmp", 1);
}

/* Whoever on the inside it is: outside they are all one. */
CASE(a_router_on_the_inside_does_not_show) {
    struct frame *sent;

    start(nat64);
    open_udp();
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000"));
    sent = take_one(LAN);
    inject(LAN, icmp6_error(.source = SECOND, .destination = SERVER6, .type = V6_TIME_EXCEEDED,
                            .about = sent));
    expect_ipv4(WAN, patch(icmp4_error(.source = OUTSIDE, .destination = SERVER,
                                       .type = V4_TIME_EXCEEDED, .ttl = 63,
                                       .about = udp4(.source = SERVER ":53",
                                                     .destination = OUTSIDE ":4000", .ttl = 63)),
                           IP + 1, "00"));
}

/* --- the router's own errors, about packets as their sender knows them --- */

CASE(hops_that_run_out) {
    enum { QUOTED = IP4_PAYLOAD + 8 };
    struct frame *found, *expected;

    start(nat64);
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .hop_limit = 1));
    expect(LAN,
           icmp6_error(.source = "2001:db8:1::1", .destination = CLIENT, .type = V6_TIME_EXCEEDED,
                       .about = udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53),
                                     .hop_limit = 1)));
    expect_drop("local.time_exceeded", 1);
    open_udp();
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .ttl = 1));
    found = take_one(WAN);
    expected = ether(icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = V4_TIME_EXCEEDED,
                                 .about = udp4(.source = SERVER ":53",
                                               .destination = OUTSIDE ":4000", .ttl = 1)),
                     HOST_WAN, ROUTER_WAN);
    /* It went through IPv6, which keeps no identification: the quote has another. */
    memcpy(expected->bytes + QUOTED + 4, found->bytes + QUOTED + 4, 2);
    memcpy(expected->bytes + QUOTED + 10, found->bytes + QUOTED + 10, 2);
    require(frame_equal(expected, found), "another error");
    require(fold16(sum16(0, found->bytes + QUOTED, 20)) == 0xffff, "a wrong checksum in the quote");
    expect_drop("local.time_exceeded", 1);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53),
                     .hop_limit = 1)); /* of a session that there is */
    expect(LAN,
           icmp6_error(.source = "2001:db8:1::1", .destination = CLIENT, .type = V6_TIME_EXCEEDED,
                       .about = udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53),
                                     .hop_limit = 1)));
    expect_drop("local.time_exceeded", 1);
}

/* Each learns what fits for its own packets: 20 bytes more or less. */
CASE(path_mtu) {
    const char *const small =
        text("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'mtu': 1400},"
             "'wan': {" WAN_PORT ", " WAN_ADDRESSES ", 'mtu': 1300}}," NEIGHBOURS
             "'routes': [" DEFAULT_ROUTES "], 'nat': {'nat64': [{" RULE "}]}," UNLIMITED "}");
    struct frame *large =
        udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = 1300);
    struct frame *large4 = udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000",
                                .size = 1400, .fragment = DONT_FRAGMENT);

    start(small);
    open_udp();
    inject(LAN, large);
    expect(LAN, icmp6_error(.source = "2001:db8:1::1", .destination = CLIENT, .type = V6_TOO_BIG,
                            .rest = 1320, .about = large));
    expect_drop("local.too_big", 1);
    inject(WAN, large4);
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = V4_UNREACHABLE,
                            .code = V4_TOO_BIG, .rest = 1380, .about = large4));
    expect_drop("local.too_big", 1);
}

/* --- extensions of ICMP errors: RFC 4884 --- */

/* Version 2, and one object: a label of MPLS (RFC 4950). What is in them is nobody's business. */
#define LABELS "2000e1ab0008010100010102"

static struct frame *client_sends(unsigned size) {
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = size));
    return take_one(WAN);
}

static struct frame *quoted6(unsigned size) {
    return udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = size,
                .hop_limit = 63);
}

static struct frame *quoted4(unsigned size) {
    return udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = size, .ttl = 63);
}

/* The quote grows by 20 bytes, and is filled up to whole words of 64 bits. */
CASE(extensions_go_on_to_ipv6) {
    static const struct {
        unsigned size, quote, at, quote6, at6;
    } lengths[] = {
        {300, 128, 128, 148, 152}, /* bytes of UDP's data; in front of the extension, before, after
                                    */
        {300, 132, 132, 152, 152}, {300, 136, 136, 156, 160}, {300, 328, 328, 348, 352},
        {10, 38, 128, 58, 128}, /* a short packet: zeroes up to 128 bytes */
        {81, 109, 128, 129, 136},
    };

    start(nat64);
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct frame *sent = client_sends(lengths[i].size);

        error_about(sent, (struct ipv4){.type = V4_TIME_EXCEEDED,
                                        .quote = lengths[i].quote,
                                        .extension = LABELS,
                                        .extension_at = lengths[i].at});
        expect(LAN, icmp6_error(.source = GATEWAY6, .destination = CLIENT, .type = V6_TIME_EXCEEDED,
                                .hop_limit = 63, .traffic_class = 0xc0,
                                .about = quoted6(lengths[i].size), .quote = lengths[i].quote6,
                                .extension = LABELS, .extension_at = lengths[i].at6));
    }
}

CASE(extensions_go_on_to_ipv4) {
    static const struct {
        unsigned size, quote, at, quote4, at4;
    } lengths[] = {
        {300, 128, 128, 108, 128}, {300, 152, 152, 132, 132}, {300, 344, 344, 324, 324},
        {10, 58, 128, 38, 128},    {101, 149, 152, 129, 132},
    };

    start(nat64);
    open_udp();
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000",
                         .size = lengths[i].size));
        inject(LAN,
               icmp6_error(.source = CLIENT, .destination = SERVER6, .type = V6_UNREACHABLE,
                           .code = V6_NO_PORT, .about = take_one(LAN), .quote = lengths[i].quote,
                           .extension = LABELS, .extension_at = lengths[i].at));
        expect_ipv4(WAN,
                    patch(icmp4_error(.source = OUTSIDE, .destination = SERVER,
                                      .type = V4_UNREACHABLE, .code = 3, .ttl = 63,
                                      .about = quoted4(lengths[i].size), .quote = lengths[i].quote4,
                                      .extension = LABELS, .extension_at = lengths[i].at4),
                          IP + 1, "00"));
    }
}

/* There is room in the second word beside the MTU, but not in every error of IPv6. */
CASE(extensions_that_the_other_error_cannot_have) {
    struct frame *sent;

    start(nat64);
    sent = client_sends(300);
    error_about(sent, (struct ipv4){.type = V4_UNREACHABLE,
                                    .code = V4_TOO_BIG,
                                    .rest = 1400,
                                    .quote = 128,
                                    .extension = LABELS,
                                    .extension_at = 128});
    expect(LAN, icmp6_error(.source = GATEWAY6, .destination = CLIENT, .type = V6_TOO_BIG,
                            .rest = 1420, .hop_limit = 63, .traffic_class = 0xc0,
                            .about = quoted6(300), .quote = 148));
    error_about(sent, (struct ipv4){.type = V4_PARAMETER,
                                    .rest = 8u << 24,
                                    .quote = 128,
                                    .extension = LABELS,
                                    .extension_at = 128});
    expect(LAN, icmp6_error(.source = GATEWAY6, .destination = CLIENT, .type = V6_PARAMETER,
                            .rest = 7, .hop_limit = 63, .traffic_class = 0xc0,
                            .about = quoted6(300), .quote = 148));
}

/* A length that cannot be: all of it is the quote. */
CASE(lengths_that_are_wrong) {
    static const unsigned words[] = {1, 31, 77, 78,
                                     255}; /* 308 bytes are there, and 77 words all */
    struct frame *sent;

    start(nat64);
    sent = client_sends(280);
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        error_about(sent, (struct ipv4){.type = V4_TIME_EXCEEDED, .rest = words[i] << 16});
        expect(LAN, icmp6_error(.source = GATEWAY6, .destination = CLIENT, .type = V6_TIME_EXCEEDED,
                                .hop_limit = 63, .traffic_class = 0xc0, .about = quoted6(280)));
    }
}

static const char *zeroes(unsigned bytes) {
    char *out = room_for(2 * bytes + 1);

    memset(out, '0', 2 * bytes);
    out[2 * bytes] = '\0';
    return out;
}

/* An error is no longer than 1280 bytes, or 576: the quote makes room, down to 128 bytes. */
CASE(long_extensions) {
    struct frame *sent;

    start(nat64);
    sent = client_sends(1400);
    error_about(sent, (struct ipv4){.type = V4_TIME_EXCEEDED,
                                    .quote = 400,
                                    .extension = zeroes(1000),
                                    .extension_at = 400});
    expect(LAN, icmp6_error(.source = GATEWAY6, .destination = CLIENT, .type = V6_TIME_EXCEEDED,
                            .hop_limit = 63, .traffic_class = 0xc0, .about = quoted6(1400),
                            .quote = 232, .extension = zeroes(1000), .extension_at = 232));
    for (unsigned size = 1104; size <= 1108; size += 4) {
        struct ipv6 expected = {.source = GATEWAY6,
                                .destination = CLIENT,
                                .type = V6_TIME_EXCEEDED,
                                .hop_limit = 63,
                                .traffic_class = 0xc0,
                                .about = quoted6(1400),
                                .quote = 148};

        error_about(sent, (struct ipv4){.type = V4_TIME_EXCEEDED,
                                        .quote = 128,
                                        .extension = zeroes(size),
                                        .extension_at = 128});
        if (size == 1104) { /* it just fits */
            expected.quote = expected.extension_at = 128;
            expected.extension = zeroes(size);
        }
        expect(LAN, frame_icmp6_error(expected));
    }
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 1000));
    sent = take_one(LAN);
    for (unsigned size = 420; size <= 424; size += 4) {
        struct ipv4 expected = {.source = OUTSIDE,
                                .destination = SERVER,
                                .type = V4_UNREACHABLE,
                                .code = 3,
                                .ttl = 63,
                                .about = quoted4(1000),
                                .quote = 132};

        inject(LAN, icmp6_error(.source = CLIENT, .destination = SERVER6, .type = V6_UNREACHABLE,
                                .code = V6_NO_PORT, .about = sent, .quote = 152,
                                .extension = zeroes(size), .extension_at = 152));
        if (size == 420) {
            expected.quote = expected.extension_at = 128;
            expected.extension = zeroes(size);
        }
        expect_ipv4(WAN, patch(frame_icmp4_error(expected), IP + 1, "00"));
    }
}

/* In several buffers: of the quote, what is in the first one is enough. */
CASE(extensions_in_another_buffer) {
    struct frame *sent, *error;

    start(nat64);
    sent = client_sends(300);
    error = icmp4_error(.source = GATEWAY, .destination = OUTSIDE, .type = V4_TIME_EXCEEDED,
                        .about = sent, .quote = 136, .extension = LABELS, .extension_at = 136);
    inject_split(WAN, error, IP4_PAYLOAD + 8 + 100);
    expect(LAN, icmp6_error(.source = GATEWAY6, .destination = CLIENT, .type = V6_TIME_EXCEEDED,
                            .hop_limit = 63, .traffic_class = 0xc0, .about = quoted6(300),
                            .quote = 120, .extension = LABELS, .extension_at = 128));
}

/* --- who may --- */

CASE(the_firewall_sees_the_ipv6_packet) {
    start(ROUTER("'nat': {'nat64': [{" RULE "}]}, 'firewall': {'default': 'drop', 'rules': ["
                 "{'name': 'no', 'in': 'lan', 'destination': '64:ff9b:1::203.0.113.128/121',"
                 "'action': 'drop'},"
                 "{'name': 'out', 'in': 'lan', 'out': 'wan', 'source': '" CLIENT "/128',"
                 "'action': 'accept'}]}"));
    open_udp();
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000"));
    expect(LAN,
           udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .hop_limit = 63));
    inject(LAN, udp6(.source = end6(SECOND, 4000), .destination = end6(SERVER6, 53)));
    expect_nothing(ANYWHERE);
    expect_drop("firewall.default", 1);
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b:1::203.0.113.200", 53)));
    expect_nothing(ANYWHERE);
    expect_drop("firewall.rule", 1);
}

/* RFC 6052 section 3.1: private networks are not to be had by the well-known prefix. */
CASE(the_well_known_prefix_is_for_global_addresses) {
    start(rule("'prefix': '64:ff9b::/96', 'out': 'wan', 'to': 'interface'"));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b::10.0.0.1", 53)));
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b::192.168.1.1", 53)));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b::127.0.0.1", 53)));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b::224.0.0.1", 53)));
    expect_nothing(ANYWHERE);
    expect_drop("nat.nat64_destination", 4);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b::9.9.9.9", 53)));
    expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = "9.9.9.9:53", .ttl = 63));
}

CASE(neither_the_router_nor_other_protocols) {
    start(nat64);
    inject(LAN,
           udp6(.source = end6(CLIENT, 1), .destination = end6("64:ff9b:1::198.51.100.1", 53)));
    inject(LAN,
           udp6(.source = end6(CLIENT, 1), .destination = end6("64:ff9b:1::198.51.100.255", 53)));
    expect_nothing(ANYWHERE);
    expect_drop("nat.nat64_destination", 2);
    inject(LAN, ip6(.source = CLIENT, .destination = SERVER6, .protocol = 47, .size = 20));
    expect_nothing(ANYWHERE);
    expect_drop("nat.nat64_protocol", 1);
    /* Without a session an error goes nowhere, and not to the IPv6 default route. */
    inject(LAN,
           icmp6_error(.source = CLIENT, .destination = SERVER6, .type = V6_UNREACHABLE,
                       .about = udp6(.source = end6(SERVER6, 1), .destination = end6(CLIENT, 1))));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
}

CASE(where_no_rule_leads) {
    start(rule(
        RULE
        ", 'source': '2001:db8:1::10/128', 'protocol': 'udp', 'destination': '203.0.113.0/24'"));
    open_udp();
    inject(LAN, udp6(.source = end6(SECOND, 4000), .destination = end6(SERVER6, 53)));
    inject(LAN,
           tcp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .tcp_flags = SYN));
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b:1::198.51.100.9", 5)));
    expect_nothing(ANYWHERE);
    expect_drop("nat.nat64_no_rule", 3);
}

/* --- mappings: RFC 6146 section 3.5 --- */

CASE(mappings_are_endpoint_independent) {
    struct frame *found;

    start(nat64);
    open_udp();
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b:1::203.0.113.2", 99)));
    expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = "203.0.113.2:99", .ttl = 63));
    require(nat_mapping_count() == 1, "%u mappings", nat_mapping_count());
    inject(LAN, udp6(.source = end6(SECOND, 4000), .destination = end6(SERVER6, 53)));
    found = take_one(WAN);
    require(source_port(found) != 4000, "two have the same port");
    require((source_port(found) & 1) == 0, "the parity is lost");
    require(nat_mapping_count() == 2, "%u mappings", nat_mapping_count());
    /* Filtering is endpoint-dependent. */
    inject(WAN, udp4(.source = "203.0.113.3:53", .destination = OUTSIDE ":4000"));
    expect(WAN,
           icmp4_error(.source = OUTSIDE, .destination = "203.0.113.3", .type = V4_UNREACHABLE,
                       .code = 3,
                       .about = udp4(.source = "203.0.113.3:53", .destination = OUTSIDE ":4000")));
    expect_drop("local.no_listener", 1);
    rpc("session.flush", "{}");
    advance(3000);
    require(nat_mapping_count() == 0 && nat_mapping_ports_taken() == 0, "%u mappings, %u ports",
            nat_mapping_count(), nat_mapping_ports_taken());
}

CASE(anybody_may_send_to_an_open_mapping) {
    start(rule(RULE ", 'filtering': 'endpoint_independent'"));
    open_udp();
    inject(WAN, udp4(.source = "203.0.113.3:77", .destination = OUTSIDE ":4000"));
    expect(LAN, udp6(.source = end6("64:ff9b:1::203.0.113.3", 77),
                     .destination = end6(CLIENT, 4000), .hop_limit = 63));
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b:1::203.0.113.3", 77)));
    expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = "203.0.113.3:77", .ttl = 63));
}

/* The mapping lives on, and the rules in force say who may send to it. */
CASE(a_filter_that_closes_and_opens) {
    const char *const pool = "'prefix': '64:ff9b:1::/96', 'out': 'wan', 'to': '198.51.100.50'";
    struct frame *stranger = udp4(.source = "203.0.113.3:77", .destination = "198.51.100.50:4000");

    start(rule(pool));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    expect_ipv4(WAN, udp4(.source = "198.51.100.50:4000", .destination = SERVER ":53", .ttl = 63));
    apply(rule(text("%s, 'in': 'lan', 'destination': '203.0.113.0/24',"
                    "'filtering': 'endpoint_independent'",
                    pool)));
    inject(WAN, stranger);
    expect(LAN, udp6(.source = end6("64:ff9b:1::203.0.113.3", 77),
                     .destination = end6(CLIENT, 4000), .hop_limit = 63));
    inject(WAN, udp4(.source = "9.9.9.9:77", .destination = "198.51.100.50:4000"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
    apply(rule(pool));
    advance(1000);
    inject(WAN, stranger);
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
}

CASE(endpoint_dependent_mappings_share_ports) {
    unsigned port;

    start(rule(RULE ", 'mapping': 'endpoint_dependent'"));
    open_udp();
    inject(LAN,
           udp6(.source = end6(SECOND, 4000), .destination = end6("64:ff9b:1::203.0.113.2", 53)));
    require(source_port(take_one(WAN)) == 4000, "the port is not shared");
    inject(LAN, udp6(.source = end6(SECOND, 4000), .destination = end6(SERVER6, 53)));
    port = source_port(take_one(WAN));
    require(port != 4000, "two sessions have the same port");
    inject(WAN, udp4(.source = SERVER ":53", .destination = text(OUTSIDE ":%u", port)));
    expect(LAN,
           udp6(.source = end6(SERVER6, 53), .destination = end6(SECOND, 4000), .hop_limit = 63));
}

CASE(pools_and_source_nat_beside_it) {
    start(ROUTER(
        "'nat': {'nat64': [{'prefix': '64:ff9b:1::/96', 'out': 'wan', 'to': '198.51.100.50'}],"
        "'source': [{'out': 'wan', 'source': '192.168.1.0/24', 'to': '198.51.100.50'}]}"));
    inject(LAN, udp4(.source = "192.168.1.10:4000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = "198.51.100.50:4000", .destination = SERVER ":53", .ttl = 63));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    require(source_port(take_one(WAN)) != 4000, "a host of IPv4 has that port");
    inject(WAN, arp_request(.sender = "198.51.100.2", .sender_mac = HOST_WAN,
                            .target = "198.51.100.50"));
    expect(WAN, ether(arp_reply(.sender = "198.51.100.50", .sender_mac = ROUTER_WAN,
                                .target = "198.51.100.2", .target_mac = HOST_WAN),
                      HOST_WAN, ROUTER_WAN));
}

/* All lengths of RFC 6052 section 2.2; 203.0.113.1 is cb 00 71 01. */
CASE(prefixes_of_all_lengths) {
    static const struct {
        const char *prefix, *server;
    } lengths[] = {
        {"2001:db9::/32", "2001:db9:cb00:7101::"},
        {"2001:db8:100::/40", "2001:db8:1cb:71:1::"},
        {"2001:db8:122::/48", "2001:db8:122:cb00:71:100::"},
        {"2001:db8:122:300::/56", "2001:db8:122:3cb:0:7101::"},
        {"2001:db8:122:344::/64", "2001:db8:122:344:cb:71:100::"},
        {"2001:db8:122:344::/96", "2001:db8:122:344::203.0.113.1"},
    };

    for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct frame *sent;

        start(rule(text("'prefix': '%s', 'out': 'wan', 'to': 'interface'", lengths[i].prefix)));
        inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(lengths[i].server, 53)));
        sent = expect_ipv4(WAN,
                           udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .ttl = 63));
        inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000"));
        expect(LAN, udp6(.source = end6(lengths[i].server, 53), .destination = end6(CLIENT, 4000),
                         .hop_limit = 63));
        inject(WAN, icmp4_error(.source = SERVER, .destination = OUTSIDE, .type = V4_UNREACHABLE,
                                .code = 3, .about = sent));
        expect(LAN, icmp6_error(.source = lengths[i].server, .destination = CLIENT,
                                .type = V6_UNREACHABLE, .code = V6_NO_PORT, .hop_limit = 63,
                                .traffic_class = 0xc0,
                                .about = udp6(.source = end6(CLIENT, 4000),
                                              .destination = end6(lengths[i].server, 53),
                                              .hop_limit = 63)));
    }
}

/* --- any packets --- */

/* Hosts, ports, protocols and lengths at random: what goes out is what RFC 7915 makes of it, the
 * answer comes back to who asked, no two have a port at once, and no mapping outlives its sessions.
 * All checksums are worked out anew by expect(). */
CASE(random_packets_there_and_back) {
    enum { HOSTS = 4, ROUNDS = 1500 };

    start(ROUTER("'sessions': {'timeouts': {'udp': 20, 'udp_new': 20, 'icmp': 20,"
                 "'tcp_opening': 20, 'tcp_answered': 20}}, 'nat': {'nat64': [{" RULE "}]}"));
    for (unsigned round = 0; round < ROUNDS; round++) {
        const char *client = text("2001:db8:1::%x", 0x10 + 0x10 * draw(2));
        const char *server = text("203.0.113.%u", 1 + draw(HOSTS));
        const char *server6 = text("64:ff9b:1::%s", server);
        unsigned port = 1024 + draw(5), to = 50 + draw(3), size = draw(1100), got;
        const struct frame *found;

        if (draw(3) == 0) {
            inject(LAN, icmp6_echo(.source = client, .destination = server6, .identifier = port,
                                   .sequence = round, .size = size + 1));
            found = take_one(WAN);
            got = (unsigned)found->bytes[IP4_PAYLOAD + 4] << 8 | found->bytes[IP4_PAYLOAD + 5];
            require(
                frame_equal(
                    found, ether(same_id(found, icmp4_echo(.source = OUTSIDE, .destination = server,
                                                           .identifier = got, .sequence = round,
                                                           .size = size + 1, .ttl = 63)),
                                 HOST_WAN, ROUTER_WAN)),
                "another echo");
            inject(WAN, icmp4_echo_reply(.source = server, .destination = OUTSIDE,
                                         .identifier = got, .sequence = round, .size = size + 1));
            expect(LAN,
                   icmp6_echo_reply(.source = server6, .destination = client, .identifier = port,
                                    .sequence = round, .size = size + 1, .hop_limit = 63));
        } else {
            inject(LAN, udp6(.source = end6(client, port), .destination = end6(server6, to),
                             .size = size + 1));
            found = take_one(WAN);
            got = source_port(found);
            require(frame_equal(found,
                                ether(same_id(found, udp4(.source = text(OUTSIDE ":%u", got),
                                                          .destination = text("%s:%u", server, to),
                                                          .size = size + 1, .ttl = 63)),
                                      HOST_WAN, ROUTER_WAN)),
                    "another datagram");
            inject(WAN, udp4(.source = text("%s:%u", server, to),
                             .destination = text(OUTSIDE ":%u", got), .size = size + 1));
            expect(LAN, udp6(.source = end6(server6, to), .destination = end6(client, port),
                             .size = size + 1, .hop_limit = 63));
        }
        require(nat_mapping_count() == nat_mapping_ports_taken(), "%u mappings, %u ports",
                nat_mapping_count(), nat_mapping_ports_taken());
        if (draw(50) == 0)
            advance(draw(25000));
    }
    advance(25000);
    require(nat_mapping_count() == 0 && nat_mapping_ports_taken() == 0, "%u mappings, %u ports",
            nat_mapping_count(), nat_mapping_ports_taken());
}

/* --- corners --- */

/* The first `size` bytes of a UDP packet from the client, as a fragment. */
static struct frame *head6(const struct frame *whole, unsigned size, unsigned hops) {
    struct frame *head = ip6(.source = CLIENT, .destination = SERVER6, .first = 44, .protocol = 17,
                             .size = size, .extensions = "1100000112345678", .hop_limit = hops);

    memcpy(head->bytes + IP6_PAYLOAD + 8, whole->bytes + IP6_PAYLOAD, size);
    return head;
}

/* Putting a packet back for an error must not cut it, and so send it. */
CASE(errors_about_large_fragments_send_nothing_else) {
    struct frame *whole =
        udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = 2000);

    start(nat64);
    open_udp();
    inject(LAN, head6(whole, 1400, 1));
    require(take(WAN) == NULL, "something left by wan");
    require(memcmp(take_one(LAN)->bytes + IP6_PAYLOAD, "\x03\x00", 2) == 0, "not time exceeded");
    expect_drop("local.time_exceeded", 1);
    apply("{" INTERFACES NEIGHBOURS "'routes': [" DEFAULT_ROUTES
          ", {'prefix': '203.0.113.1/32', 'unreachable': true}],"
          "'nat': {'nat64': [{" RULE "}]}," UNLIMITED "}");
    inject(LAN, head6(whole, 1400, 64));
    require(take(WAN) == NULL, "something left by wan");
    require(memcmp(take_one(LAN)->bytes + IP6_PAYLOAD, "\x01\x03", 2) == 0, "not unreachable");
    expect_drop("local.host_unreachable", 1);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53), .size = 1350,
                     .first = 44, .extensions = "1100000012345678", .hop_limit = 1));
    require(take(WAN) == NULL, "something left by wan");
    require(take_one(LAN) != NULL, "no error");
    forget_drops();
}

CASE(large_packets_in_several_buffers) {
    struct frame *as6 =
        udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .size = 1300);
    struct frame *whole =
        udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 1300, .id = 0xbeef);

    start(nat64);
    open_udp();
    inject_segments(WAN, whole, 800);
    expect(LAN, fragment6(as6, 0, 1232, true, 0xbeef));
    expect(LAN, fragment6(as6, 1232, 76, false, 0xbeef));
    /* the first fragment of a larger one, itself too large */
    as6 = udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .size = 2000);
    whole =
        udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 2000, .id = 0xcafe);
    inject_segments(WAN, fragment4(whole, 0, 1400), 800);
    expect(LAN, fragment6(as6, 0, 1232, true, 0xcafe));
    expect(LAN, fragment6(as6, 1232, 168, true, 0xcafe));
    inject(WAN, fragment4(whole, 1400, 608)); /* is not refused because of the pieces */
    expect(LAN, fragment6(as6, 1400, 608, false, 0xcafe));
}

/* The outside address may be one uplink's alone: all of a session's packets take the same. */
CASE(a_session_keeps_to_one_of_several_uplinks) {
    unsigned by_wan = 0;

    start("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}, 'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': ['198.51.100.2', '10.3.0.10']}],"
          "'nat': {'nat64': [{'prefix': '64:ff9b:1::/96', 'out': 'wan', 'to': 'interface'},"
          "{'prefix': '64:ff9b:1::/96', 'out': 'dmz', 'to': 'interface'}]}," UNLIMITED "}");
    for (unsigned i = 0; i < 32; i++) {
        struct frame *sent =
            udp6(.source = end6(CLIENT, 4000 + i), .destination = end6(SERVER6, 53));
        bool first[3];

        for (unsigned packet = 0; packet < 3; packet++) {
            inject(LAN, sent);
            first[packet] = take(WAN) != NULL;
            require(first[packet] || take(DMZ) != NULL, "nothing came");
            require(first[packet] == first[0], "session %u has changed its uplink", i);
        }
        by_wan += first[0];
    }
    require(by_wan > 4 && by_wan < 28, "%u of 32 sessions by wan", by_wan);
}

CASE(reverse_paths_are_checked_before) {
    start("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'reverse_path': 'strict'},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES ", 'reverse_path': 'loose'},"
          "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES ", 'reverse_path': 'strict'}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
          "'routes': [" DEFAULT_ROUTES "], 'nat': {'nat64': [{" RULE "}]}," UNLIMITED "}");
    open_udp();
    inject(DMZ, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    expect_nothing(ANYWHERE);
    expect_drop("route.reverse_path", 1);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .ttl = 63));
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000"));
    expect(LAN,
           udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .hop_limit = 63));
}

/* A fragment that came before the first one would have another source when it goes on. */
CASE(reverse_paths_of_waiting_fragments_are_checked_before) {
    struct frame *whole =
        udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 200, .id = 0xbeef);
    struct frame *as6 =
        udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .size = 200);

    start("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
          "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES ", 'reverse_path': 'strict'}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
          "'routes': [" DEFAULT_ROUTES "], 'nat': {'nat64': [{" RULE "}]}," UNLIMITED "}");
    open_udp();
    inject(DMZ, fragment4(whole, 104, 104));
    expect_nothing(ANYWHERE);
    inject(WAN, fragment4(whole, 0, 104));
    expect(LAN, fragment6(as6, 0, 104, true, 0xbeef));
    expect_nothing(ANYWHERE);
    expect_drop("route.reverse_path", 1);
}

/* The limit of an interface is for IPv4; of IPv6 on it 20 bytes less. */
CASE(segment_sizes_fit_the_side_they_are_for) {
    struct frame *syn = tcp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 80),
                             .tcp_flags = SYN, .size = 4);
    struct frame *answer, *found;

    start("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'tcp_mss': 1400},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}}," NEIGHBOURS "'routes': [" DEFAULT_ROUTES "],"
          "'nat': {'nat64': [{" RULE "}]}," UNLIMITED "}");
    syn->bytes[IP6_PAYLOAD + 12] = 6 << 4;
    memcpy(syn->bytes + IP6_PAYLOAD + 20, "\x02\x04\x05\xa0", 4);
    inject(LAN, syn);
    found = take_one(WAN);
    require(memcmp(found->bytes + IP4_PAYLOAD + 22, "\x05\x64", 2) == 0, "not 1380");
    answer = tcp4(.source = SERVER ":80", .destination = OUTSIDE ":4000", .tcp_flags = SYN | ACK,
                  .size = 4);
    answer->bytes[IP4_PAYLOAD + 12] = 6 << 4;
    memcpy(answer->bytes + IP4_PAYLOAD + 20, "\x02\x04\x05\xb4", 4);
    inject(WAN, answer);
    found = take_one(LAN);
    require(memcmp(found->bytes + IP6_PAYLOAD + 22, "\x05\x64", 2) == 0, "not 1380 back");
}

/* The control thread may switch NAT off between two stages. */
static bool and_off(struct worker *worker, struct rte_mbuf *mbuf, struct session_miss *miss) {
    bool result = nat_translator.destination(worker, mbuf, miss);

    session_translate(false);
    return result;
}

CASE(nat_goes_in_the_middle_of_a_burst) {
    static struct session_translator other;

    start(nat64);
    other = nat_translator;
    other.destination = and_off;
    session_set_translator(&other);
    session_translate(true);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    turn();
    session_set_translator(&nat_translator);
    session_translate(true);
    expect_nothing(ANYWHERE);
    expect_drop("session.conflict", 1);
}

/* The stranger's session has taken no reference to the mapping that it came by. */
CASE(nat_goes_before_a_stranger_s_session) {
    static struct session_translator other;

    start(rule(RULE ", 'filtering': 'endpoint_independent'"));
    open_udp();
    other = nat_translator;
    other.destination = and_off;
    session_set_translator(&other);
    session_translate(true);
    inject(WAN, udp4(.source = "203.0.113.77:99", .destination = OUTSIDE ":4000"));
    turn();
    session_set_translator(&nat_translator);
    session_translate(true);
    expect_nothing(ANYWHERE);
    expect_drop("session.conflict", 1);
    require(nat_mapping_count() == 1, "%u mappings, and the session lives", nat_mapping_count());
}

/* Nobody can make a mapping lead to the router itself, or the prefix lead back. */
CASE(forged_sources) {
    start(rule(RULE ", 'filtering': 'endpoint_independent'"));
    inject(LAN, udp6(.source = "[2001:db8:1::1]:4000", .destination = end6(SERVER6, 53)));
    discard(WAN);
    inject(WAN, udp4(.source = "203.0.113.3:77", .destination = OUTSIDE ":4000"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.nat64_source", 1);
    inject(LAN, udp6(.source = end6(SERVER6, 4000), .destination = end6(SERVER6, 53)));
    expect_nothing(ANYWHERE);
    expect_drop("nat.nat64_source", 1);
}

/* A mapping outlives its rule for a moment; who comes by it then appears behind the new prefix. */
CASE(another_prefix_for_a_mapping_that_lives) {
    start(rule(RULE ", 'filtering': 'endpoint_independent'"));
    open_udp();
    apply(rule("'prefix': '64:ff9b:2::/96', 'out': 'wan', 'to': 'interface',"
               "'filtering': 'endpoint_independent'"));
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6("64:ff9b:2::203.0.113.1", 54)));
    expect_ipv4(WAN, udp4(.source = OUTSIDE ":4000", .destination = SERVER ":54", .ttl = 63));
    advance(10000);
    inject(WAN, udp4(.source = "203.0.113.3:77", .destination = OUTSIDE ":4000"));
    expect(LAN, udp6(.source = end6("64:ff9b:2::203.0.113.3", 77),
                     .destination = end6(CLIENT, 4000), .hop_limit = 63));
}

/* A rule without an incoming interface is for the VRF of the outgoing one. */
CASE(rules_do_not_reach_into_other_vrfs) {
    start("{'vrfs': {'red': {'table': 5}}, 'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
          "'dmz': {" DMZ_PORT ", 'vrf': 'red', " DMZ_ADDRESSES "},"
          "'isp': {" ISP_PORT ", 'vrf': 'red', " ISP_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "," ISP_NEIGHBOURS
          "], 'routes': [" DEFAULT_ROUTES ","
          "{'vrf': 'red', 'prefix': '::/0', 'via': '2001:db8:4::2'}],"
          "'nat': {'nat64': [{" RULE "}]}," UNLIMITED "}");
    inject(DMZ, udp6(.source = "[2001:db8:3::10]:4000", .destination = end6(SERVER6, 53)));
    expect(ISP, udp6(.source = "[2001:db8:3::10]:4000", .destination = end6(SERVER6, 53),
                     .hop_limit = 63));
}

/* An IPv6 host says something about a piece that the router has made. */
CASE(errors_about_pieces) {
    struct frame *sent;

    start(nat64);
    open_udp();
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000", .size = 1300));
    sent = take_one(LAN);
    take_one(LAN);
    inject(LAN, icmp6_error(.source = CLIENT, .destination = SERVER6, .type = V6_UNREACHABLE,
                            .code = V6_NO_PORT, .about = sent, .quote = 100));
    sent = take_one(WAN);
    require(memcmp(sent->bytes + IP4_PAYLOAD, "\x03\x03", 2) == 0, "no port unreachable");
    require(fold16(sum16(0, sent->bytes + IP4_PAYLOAD, sent->length - IP4_PAYLOAD)) == 0xffff,
            "a wrong checksum");
    require(memcmp(sent->bytes + IP4_PAYLOAD + 8 + 20, "\x00\x35\x0f\xa0", 4) == 0, "other ports");
}

/* --- changes --- */

CASE(another_pool_ends_the_sessions) {
    start(nat64);
    open_udp();
    apply(rule("'prefix': '64:ff9b:1::/96', 'out': 'wan', 'to': '198.51.100.60'"));
    advance(1000);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    expect_ipv4(WAN, udp4(.source = "198.51.100.60:4000", .destination = SERVER ":53", .ttl = 63));
}

CASE(a_reload_keeps_the_sessions) {
    start(nat64);
    open_udp();
    apply(ROUTER("'nat': {'nat64': [{" RULE "}]}, 'firewall': {'default': 'drop', 'rules': ["
                 "{'name': 'out', 'in': 'lan', 'out': 'wan', 'destination': '64:ff9b:1::/96',"
                 "'action': 'accept'}]}"));
    advance(1000);
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":4000"));
    expect(LAN,
           udp6(.source = end6(SERVER6, 53), .destination = end6(CLIENT, 4000), .hop_limit = 63));
}

CASE(what_session_list_and_nat_list_say) {
    const char *list;

    start(nat64);
    open_udp();
    list = rpc("session.list", "{}");
    require(strstr(list, "'family':'ipv6'"), "%s", list);
    require(strstr(list, "'source':{'address':'" CLIENT "','port':4000}"), "%s", list);
    require(strstr(list, "'translated_source':{'address':'" OUTSIDE "','port':4000}"), "%s", list);
    require(strstr(list, "'translated_destination':{'address':'" SERVER "','port':53}"), "%s",
            list);
    list = rpc("nat.list", "{}");
    require(strstr(list, "'prefix':'64:ff9b:1::/96'"), "%s", list);
}

CASE(wrong_rules_are_refused) {
    static const char *const wrong[] = {
        "'prefix': '64:ff9b::/95', 'out': 'wan', 'to': 'interface'",
        "'prefix': '2001:db8:0:0:100::/96', 'out': 'wan', 'to': 'interface'",
        "'prefix': '10.0.0.0/8', 'out': 'wan', 'to': 'interface'",
        "'prefix': '64:ff9b::/96', 'out': 'nowhere', 'to': 'interface'",
        "'prefix': '64:ff9b::/96', 'out': 'wan', 'to': 'none'",
        "'prefix': '64:ff9b::/96', 'out': 'wan', 'to': 'interface', 'protocol': 'gre'",
        "'prefix': '64:ff9b::/96', 'out': 'wan'",
        "'prefix': '64:ff9b::/96', 'out': 'wan', 'to': 'interface', 'port_block': 64",
        RULE "}, {" RULE,
    };

    start(nat64);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        apply_fails(rule(wrong[i]));
}

HARNESS_MAIN()
