/* NAT64: static bindings (RFC 6146 section 3.2) and hairpins (section 3.8). Frames are expected to
 * the byte, with checksums worked out anew; identifications of IPv4, which the router chooses, are
 * copied. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "harness.h"
#include "nat/nat_internal.h"
#include "session/session.h"

#define CLIENT "2001:db8:1::10"
#define SECOND "2001:db8:1::20"
#define OUTSIDE "198.51.100.1"
#define OUTSIDE6 "64:ff9b:1::198.51.100.1"
#define WHOLE "198.51.100.60" /* an address of which all is bound */
#define WHOLE6 "64:ff9b:1::198.51.100.60"
#define SERVER "203.0.113.1"
#define SERVER6 "64:ff9b:1::203.0.113.1"

#define INTERFACES                              \
    "'interfaces': {"                           \
    "'lan': {" LAN_PORT ", " LAN_ADDRESSES "}," \
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"
#define NEIGHBOURS                                          \
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," \
    "{'interface': 'lan', 'address': '" SECOND "', 'mac': '" HOST_LAN "'}],"
#define ROUTER(sections) \
    "{" INTERFACES NEIGHBOURS "'routes': [" DEFAULT_ROUTES "]," sections "," UNLIMITED "}"
#define RULE "'prefix': '64:ff9b:1::/96', 'in': 'lan', 'out': 'wan', 'to': 'interface'"
#define WEB \
    "{'protocol': 'tcp', 'outside': 'interface', 'outside_port': 8080, 'inside': \
'" CLIENT "', 'inside_port': 80}"
#define GAMES                                  \
    "{'protocol': 'udp', 'outside': '" OUTSIDE \
    "', 'outside_port': '6000-6099', 'inside': '" SECOND "', 'inside_port': 7000}"
#define ALL "{'outside': '" WHOLE "', 'inside': '" SECOND "'}"

enum { SYN = 0x02, ACK = 0x10 };
enum { V6_UNREACHABLE = 1, V6_TIME_EXCEEDED = 3, V6_NO_PORT = 4, V6_PROHIBITED = 1 };

static const char *with(const char *statics) {
    return text(ROUTER("'nat': {'nat64': [{" RULE ", 'static': [%s]}]}"), statics);
}

static const char *plain(void) {
    return ROUTER("'nat': {'nat64': [{" RULE "}]}");
}

static const char *end6(const char *address, unsigned port) {
    return text("[%s]:%u", address, port);
}

/* The frame with the identification that the found one has, which the router has chosen. */
static struct frame *same_id(const struct frame *found, const struct frame *expected) {
    return patch(expected, IP + 4, text("%02x%02x", found->bytes[IP + 4], found->bytes[IP + 5]));
}

#define expect_ipv4(frame) expect_ipv4_at((frame), __LINE__)
static void expect_ipv4_at(const struct frame *frame, int line) {
    struct frame *found = take(WAN), *expected;

    require(found != NULL, "line %d: nothing came", line);
    expected = ether(same_id(found, frame), HOST_WAN, ROUTER_WAN);
    if (!frame_equal(expected, found))
        frame_compare(expected, found);
    require(frame_equal(expected, found), "line %d: another frame", line);
}

static unsigned source_port(const struct frame *frame) {
    return (unsigned)frame->bytes[IP4_PAYLOAD] << 8 | frame->bytes[IP4_PAYLOAD + 1];
}

/* SECOND gets a mapping: OUTSIDE:5000. */
static void second_opens(void) {
    inject(LAN, udp6(.source = end6(SECOND, 5000), .destination = end6(SERVER6, 53)));
    expect_ipv4(udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
}

/* CLIENT says something to it. */
static void client_turns(unsigned size) {
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6(OUTSIDE6, 5000), .size = size));
    expect(LAN, udp6(.source = end6(OUTSIDE6, 4000), .destination = end6(SECOND, 5000),
                     .size = size, .hop_limit = 63));
}

static void second_answers(unsigned size) {
    inject(LAN,
           udp6(.source = end6(SECOND, 5000), .destination = end6(OUTSIDE6, 4000), .size = size));
    expect(LAN, udp6(.source = end6(OUTSIDE6, 5000), .destination = end6(CLIENT, 4000),
                     .size = size, .hop_limit = 63));
}

/* --- hairpins --- */

CASE(a_host_reaches_another_by_its_mapping) {
    start(plain());
    second_opens();
    for (unsigned size = 1; size < 40; size++) { /* odd and even lengths */
        client_turns(size);
        second_answers(size);
    }
    /* The mapping is the one that the rest of the world sees. */
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 99)));
    expect_ipv4(udp4(.source = OUTSIDE ":4000", .destination = SERVER ":99", .ttl = 63));
    require(nat_mapping_count() == 2, "%u mappings", nat_mapping_count());
    rpc("session.flush", "{}");
    advance(3000);
    require(nat_mapping_count() == 0 && nat_mapping_ports_taken() == 0, "%u mappings, %u ports",
            nat_mapping_count(), nat_mapping_ports_taken());
}

/* With a prefix of global addresses all packets of a burst go the straight way. */
CASE(plain_packets_turn_round) {
    const char *const turn = "2001:db8:64::198.51.100.1";
    const struct frame *sent =
        tcp6(.source = end6(SECOND, 4000), .destination = end6(turn, 8080), .tcp_flags = SYN);

    start(ROUTER("'nat': {'nat64': [{'prefix': '2001:db8:64::/96', 'in': 'lan', 'out': 'wan',"
                 "'to': 'interface', 'static': [" WEB "]}]}"));
    for (unsigned i = 0; i < 3; i++) { /* the first opens the session, the others join it */
        inject(LAN, sent);
        if (i == 1)
            inject(LAN, sent);
        for (unsigned n = 0; n < 1 + (i == 1); n++)
            expect(LAN, tcp6(.source = end6(turn, 4000), .destination = end6(CLIENT, 80),
                             .tcp_flags = SYN, .hop_limit = 63));
    }
    inject(LAN, tcp6(.source = end6(CLIENT, 80), .destination = end6(turn, 4000),
                     .tcp_flags = SYN | ACK));
    expect(LAN, tcp6(.source = end6(turn, 8080), .destination = end6(SECOND, 4000),
                     .tcp_flags = SYN | ACK, .hop_limit = 63));
    for (unsigned size = 0; size < 40; size += 4) {
        for (unsigned n = 0; n < 4; n++)
            inject(LAN, tcp6(.source = end6(SECOND, 4000), .destination = end6(turn, 8080),
                             .tcp_flags = ACK, .size = size + n));
        for (unsigned n = 0; n < 4; n++)
            expect(LAN, tcp6(.source = end6(turn, 4000), .destination = end6(CLIENT, 80),
                             .tcp_flags = ACK, .size = size + n, .hop_limit = 63));
        for (unsigned n = 0; n < 4; n++)
            inject(LAN, tcp6(.source = end6(CLIENT, 80), .destination = end6(turn, 4000),
                             .tcp_flags = ACK, .size = size + n));
        for (unsigned n = 0; n < 4; n++)
            expect(LAN, tcp6(.source = end6(turn, 8080), .destination = end6(SECOND, 4000),
                             .tcp_flags = ACK, .size = size + n, .hop_limit = 63));
    }
}

/* The outside is of another VRF than those who talk. */
CASE(hairpins_of_another_vrf) {
    start("{'vrfs': {'red': {'table': 5}}, 'interfaces': {'lan': {" LAN_PORT
          ", 'vrf': 'red', " LAN_ADDRESSES "}, 'wan': {" WAN_PORT ", " WAN_ADDRESSES
          "}}, 'routes': [" DEFAULT_ROUTES ", {'vrf': 'red', 'prefix': '0.0.0.0/0',"
          "'via': '198.51.100.2', 'interface': 'wan'}], " NEIGHBOURS "'nat': {'nat64': [{" RULE
          "}]}," UNLIMITED "}");
    second_opens();
    client_turns(10);
    second_answers(20);
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 99)));
    expect_ipv4(udp4(.source = OUTSIDE ":4000", .destination = SERVER ":99", .ttl = 63));
    require(nat_mapping_count() == 2, "%u mappings", nat_mapping_count());
}

/* Addresses of another VRF may be other hosts' here: those are not led to. */
CASE(mappings_of_another_vrf_lead_nowhere) {
    start("{'vrfs': {'red': {'table': 5}}, 'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES
          "}, 'wan': {" WAN_PORT ", " WAN_ADDRESSES "}, 'dmz': {" DMZ_PORT
          ", 'vrf': 'red', " DMZ_ADDRESSES "}}, 'routes': [" DEFAULT_ROUTES
          ", {'vrf': 'red', 'prefix': '0.0.0.0/0', 'via': '198.51.100.2', 'interface': 'wan'}],"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
          "'nat': {'nat64': [{" RULE "}, {'prefix': '64:ff9b:1::/96', 'in': 'dmz', 'out': 'wan',"
          "'to': 'interface', 'filtering': 'endpoint_independent'}]}," UNLIMITED "}");
    inject(DMZ, udp6(.source = end6("2001:db8:3::10", 5000), .destination = end6(SERVER6, 53)));
    expect_ipv4(udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
    is_dropped(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(OUTSIDE6, 5000)),
               "nat.nat64_destination");
    is_dropped(WAN, udp4(.source = "203.0.113.3:77", .destination = OUTSIDE ":5000"),
               "nat.no_mapping");
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
    expect(DMZ, udp6(.source = end6(SERVER6, 53), .destination = end6("2001:db8:3::10", 5000),
                     .hop_limit = 63));
}

/* Whoever is written to may be the first to write back, by the port that the other has. */
CASE(both_begin_at_once) {
    start(plain());
    second_opens();
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    expect_ipv4(udp4(.source = OUTSIDE ":4000", .destination = SERVER ":53", .ttl = 63));
    second_answers(10);
    client_turns(20);
    second_answers(30);
}

CASE(tcp_turns_round_at_a_static_port) {
    start(with(WEB));
    inject(LAN, tcp6(.source = end6(SECOND, 4000), .destination = end6(OUTSIDE6, 8080),
                     .tcp_flags = SYN));
    expect(LAN, tcp6(.source = end6(OUTSIDE6, 4000), .destination = end6(CLIENT, 80),
                     .tcp_flags = SYN, .hop_limit = 63));
    inject(LAN, tcp6(.source = end6(CLIENT, 80), .destination = end6(OUTSIDE6, 4000),
                     .tcp_flags = SYN | ACK));
    expect(LAN, tcp6(.source = end6(OUTSIDE6, 8080), .destination = end6(SECOND, 4000),
                     .tcp_flags = SYN | ACK, .hop_limit = 63));
    for (unsigned size = 0; size < 20; size++) {
        inject(LAN, tcp6(.source = end6(SECOND, 4000), .destination = end6(OUTSIDE6, 8080),
                         .tcp_flags = ACK, .size = size));
        expect(LAN, tcp6(.source = end6(OUTSIDE6, 4000), .destination = end6(CLIENT, 80),
                         .tcp_flags = ACK, .size = size, .hop_limit = 63));
        inject(LAN, tcp6(.source = end6(CLIENT, 80), .destination = end6(OUTSIDE6, 4000),
                         .tcp_flags = ACK, .size = size));
        expect(LAN, tcp6(.source = end6(OUTSIDE6, 8080), .destination = end6(SECOND, 4000),
                         .tcp_flags = ACK, .size = size, .hop_limit = 63));
    }
}

CASE(echoes_turn_round_at_a_static_address) {
    start(with(ALL));
    for (unsigned sequence = 0; sequence < 3; sequence++) {
        inject(LAN, icmp6_echo(.source = CLIENT, .destination = WHOLE6, .identifier = 0x4321,
                               .sequence = sequence, .size = 30 + sequence));
        expect(LAN, icmp6_echo(.source = OUTSIDE6, .destination = SECOND, .identifier = 0x4321,
                               .sequence = sequence, .size = 30 + sequence, .hop_limit = 63));
        inject(LAN,
               icmp6_echo_reply(.source = SECOND, .destination = OUTSIDE6, .identifier = 0x4321,
                                .sequence = sequence, .size = 30 + sequence));
        expect(LAN, icmp6_echo_reply(.source = WHOLE6, .destination = CLIENT, .identifier = 0x4321,
                                     .sequence = sequence, .size = 30 + sequence, .hop_limit = 63));
    }
}

/* Two hosts with one identifier: one of them gets another, and its own back. */
CASE(identifiers_change_and_come_back) {
    struct frame *found;
    unsigned identifier;

    start(with("{'outside': '" WHOLE "', 'inside': '2001:db8:1::10'}"));
    inject(LAN, icmp6_echo(.source = "2001:db8:1::30", .destination = WHOLE6, .identifier = 2007));
    expect(LAN, icmp6_echo(.source = OUTSIDE6, .destination = CLIENT, .identifier = 2007,
                           .hop_limit = 63));
    inject(LAN, icmp6_echo(.source = SECOND, .destination = WHOLE6, .identifier = 2007, .size = 9));
    found = take_one(LAN);
    identifier = (unsigned)found->bytes[IP6_PAYLOAD + 4] << 8 | found->bytes[IP6_PAYLOAD + 5];
    require(identifier != 2007, "two have the same identifier");
    require(
        frame_equal(found, ether(icmp6_echo(.source = OUTSIDE6, .destination = CLIENT,
                                            .identifier = identifier, .size = 9, .hop_limit = 63),
                                 HOST_LAN, ROUTER_LAN)),
        "another echo");
    inject(LAN, icmp6_echo_reply(.source = CLIENT, .destination = OUTSIDE6,
                                 .identifier = identifier, .size = 9));
    expect(LAN, icmp6_echo_reply(.source = WHOLE6, .destination = SECOND, .identifier = 2007,
                                 .size = 9, .hop_limit = 63));
}

static struct frame *piece(const char *source, const char *destination, const struct frame *whole,
                           unsigned offset, unsigned length, bool more, unsigned hops) {
    struct frame *out =
        ip6(.source = source, .destination = destination, .first = 44, .protocol = 17,
            .size = length, .extensions = text("1100%04x12345678", offset | more),
            .hop_limit = hops);

    memcpy(out->bytes + IP6_PAYLOAD + 8, whole->bytes + IP6_PAYLOAD + offset, length);
    return out;
}

CASE(fragments_turn_round) {
    struct frame *came =
        udp6(.source = end6(CLIENT, 4000), .destination = end6(OUTSIDE6, 5000), .size = 200);
    struct frame *goes =
        udp6(.source = end6(OUTSIDE6, 4000), .destination = end6(SECOND, 5000), .size = 200);

    start(plain());
    second_opens();
    for (unsigned round = 0; round < 2; round++) { /* the first one opens the session */
        inject(LAN, piece(CLIENT, OUTSIDE6, came, 0, 104, true, 64));
        inject(LAN, piece(CLIENT, OUTSIDE6, came, 104, 104, false, 64));
        expect(LAN, piece(OUTSIDE6, SECOND, goes, 0, 104, true, 63));
        expect(LAN, piece(OUTSIDE6, SECOND, goes, 104, 104, false, 63));
    }
}

CASE(an_error_about_a_hairpin) {
    struct frame *sent;

    start(plain());
    second_opens();
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6(OUTSIDE6, 5000), .size = 100));
    sent = take_one(LAN);
    inject(LAN, icmp6_error(.source = SECOND, .destination = OUTSIDE6, .type = V6_UNREACHABLE,
                            .code = V6_NO_PORT, .about = sent));
    expect(LAN, icmp6_error(.source = OUTSIDE6, .destination = CLIENT, .type = V6_UNREACHABLE,
                            .code = V6_NO_PORT, .hop_limit = 63,
                            .about = udp6(.source = end6(CLIENT, 4000),
                                          .destination = end6(OUTSIDE6, 5000), .size = 100,
                                          .hop_limit = 63)));
    /* Cut short, with an odd length, and with the ports only. */
    for (unsigned quote = 48; quote < 60; quote++) {
        inject(LAN, icmp6_error(.source = SECOND, .destination = OUTSIDE6, .type = V6_UNREACHABLE,
                                .code = V6_NO_PORT, .about = sent, .quote = quote));
        expect(LAN, icmp6_error(.source = OUTSIDE6, .destination = CLIENT, .type = V6_UNREACHABLE,
                                .code = V6_NO_PORT, .hop_limit = 63, .quote = quote,
                                .about = udp6(.source = end6(CLIENT, 4000),
                                              .destination = end6(OUTSIDE6, 5000), .size = 100,
                                              .hop_limit = 63)));
    }
}

/* No more of TCP than its ports: nothing makes good for the change to the error's checksum. */
CASE(an_error_about_a_segment_that_turned) {
    struct frame *syn = tcp6(.source = end6(SECOND, 4000), .destination = end6(OUTSIDE6, 8080),
                             .tcp_flags = SYN, .hop_limit = 63);

    start(with(WEB));
    inject(LAN, syn);
    for (unsigned quote = 60; quote >= 48; quote -= 4) {
        struct frame *sent = tcp6(.source = end6(OUTSIDE6, 4000), .destination = end6(CLIENT, 80),
                                  .tcp_flags = SYN, .hop_limit = 62);

        if (quote == 60)
            expect(LAN, sent);
        inject(LAN, icmp6_error(.source = CLIENT, .destination = OUTSIDE6, .type = V6_UNREACHABLE,
                                .code = V6_NO_PORT, .about = sent, .quote = quote));
        expect(LAN, icmp6_error(.source = OUTSIDE6, .destination = SECOND, .type = V6_UNREACHABLE,
                                .code = V6_NO_PORT, .hop_limit = 63, .quote = quote,
                                .about = patch(syn, IP + 7, "3e")));
    }
}

CASE(an_error_about_an_echo_that_turned) {
    struct frame *sent;

    start(with(ALL));
    inject(LAN, icmp6_echo(.source = CLIENT, .destination = WHOLE6, .identifier = 9, .size = 21));
    sent = take_one(LAN);
    inject(LAN, icmp6_error(.source = SECOND, .destination = OUTSIDE6, .type = V6_TIME_EXCEEDED,
                            .about = sent));
    expect(LAN, icmp6_error(.source = WHOLE6, .destination = CLIENT, .type = V6_TIME_EXCEEDED,
                            .hop_limit = 63,
                            .about = icmp6_echo(.source = CLIENT, .destination = WHOLE6,
                                                .identifier = 9, .size = 21, .hop_limit = 63)));
}

/* RFC 4884: what is quoted keeps its length, so what is behind it stays where it is. */
CASE(an_extension_of_an_error_turns_round) {
    struct frame *sent;

    start(plain());
    second_opens();
    inject(LAN,
           udp6(.source = end6(CLIENT, 4000), .destination = end6(OUTSIDE6, 5000), .size = 100));
    sent = take_one(LAN);
    inject(LAN, icmp6_error(.source = SECOND, .destination = OUTSIDE6, .type = V6_UNREACHABLE,
                            .code = V6_NO_PORT, .about = sent, .extension_at = 152,
                            .extension = "2000e1ab0008010100010102"));
    expect(LAN, icmp6_error(.source = OUTSIDE6, .destination = CLIENT, .type = V6_UNREACHABLE,
                            .code = V6_NO_PORT, .hop_limit = 63, .extension_at = 152,
                            .extension = "2000e1ab0008010100010102",
                            .about = udp6(.source = end6(CLIENT, 4000),
                                          .destination = end6(OUTSIDE6, 5000), .size = 100,
                                          .hop_limit = 63)));
}

/* The router's own errors quote the packet as its sender knows it, the first and the next. */
CASE(hops_run_out_at_the_turn) {
    struct frame *last =
        udp6(.source = end6(CLIENT, 4000), .destination = end6(OUTSIDE6, 5000), .hop_limit = 1);

    start(plain());
    second_opens();
    for (unsigned round = 0; round < 2; round++) {
        inject(LAN, last);
        expect(LAN, icmp6_error(.source = "2001:db8:1::1", .destination = CLIENT,
                                .type = V6_TIME_EXCEEDED, .about = last));
        expect_drop("local.time_exceeded", 1);
        client_turns(30);
    }
}

CASE(the_firewall_sees_the_inside_of_a_hairpin) {
    const char *const router =
        ROUTER("'nat': {'nat64': [{" RULE ", 'static': [" WEB "]}]}, 'firewall': {'default': "
               "'reject', 'rules': [{'name': 'turn', 'in': 'lan', 'out': 'lan', 'protocol': 'tcp',"
               "'source': '" SECOND "', 'destination': '" CLIENT
               "', 'destination_port': 80, 'action': 'accept'}]}");
    struct frame *syn =
        tcp6(.source = end6(SECOND, 4000), .destination = end6(OUTSIDE6, 8080), .tcp_flags = SYN);
    struct frame *other = udp6(.source = end6(SECOND, 4000), .destination = end6(OUTSIDE6, 6001));

    start(router);
    inject(LAN, syn);
    expect(LAN, tcp6(.source = end6(OUTSIDE6, 4000), .destination = end6(CLIENT, 80),
                     .tcp_flags = SYN, .hop_limit = 63));
    apply(ROUTER("'nat': {'nat64': [{" RULE ", 'static': [" GAMES ", " WEB
                 "]}]}, 'firewall': {'default': 'reject'}"));
    inject(LAN, other); /* is refused, and quoted as it came */
    expect(LAN, icmp6_error(.source = "2001:db8:1::1", .destination = SECOND,
                            .type = V6_UNREACHABLE, .code = V6_PROHIBITED, .about = other));
    expect_drop("firewall.rejected", 1);
    advance(1000);
    require(strstr(rpc("session.count", "{}"), "'sessions':0,") != NULL, "the session lives on");
}

CASE(a_list_shows_both_ends_of_a_hairpin) {
    const char *list;

    start(plain());
    second_opens();
    client_turns(10);
    list = rpc("session.list", "{'port': 4000}");
    require(strstr(list, "'translated_source':{'address':'64:ff9b:1::c633:6401','port':4000}") &&
                strstr(list, "'translated_destination':{'address':'" SECOND "','port':5000}") &&
                strstr(list, "'destination':{'address':'64:ff9b:1::c633:6401','port':5000}"),
            "%s", list);
}

CASE(outside_ports_that_lead_nowhere) {
    start(with(WEB));
    second_opens();
    is_dropped(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(OUTSIDE6, 5001)),
               "nat.nat64_destination");
    is_dropped(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(OUTSIDE6, 8080)),
               "nat.nat64_destination");
    is_dropped(LAN, icmp6_echo(.source = CLIENT, .destination = OUTSIDE6), "nat.nat64_destination");
}

/* Endpoint-dependent sources have a port each, in a hairpin too. */
CASE(hairpins_with_endpoint_dependent_sources) {
    struct frame *found;
    unsigned port;

    start(ROUTER("'nat': {'nat64': [{" RULE ", 'mapping': 'endpoint_dependent', 'static': [" WEB
                 "]}]}"));
    inject(LAN, tcp6(.source = end6(SECOND, 4000), .destination = end6(OUTSIDE6, 8080),
                     .tcp_flags = SYN));
    expect(LAN, tcp6(.source = end6(OUTSIDE6, 4000), .destination = end6(CLIENT, 80),
                     .tcp_flags = SYN, .hop_limit = 63));
    inject(LAN, tcp6(.source = end6("2001:db8:1::30", 4000), .destination = end6(OUTSIDE6, 8080),
                     .tcp_flags = SYN));
    found = take_one(LAN);
    port = (unsigned)found->bytes[IP6_PAYLOAD] << 8 | found->bytes[IP6_PAYLOAD + 1];
    require(port != 4000, "two have the same port");
    require(nat_mapping_count() == 0, "a mapping was made");
}

/* Who is led to himself: both directions may have one key. */
CASE(a_host_turns_to_itself) {
    start(with(ALL));
    for (unsigned n = 0; n < 3; n++) {
        for (unsigned port = 4000; port < 4002; port++) {
            inject(LAN, udp6(.source = end6(SECOND, 4000), .destination = end6(WHOLE6, port)));
            expect(LAN, udp6(.source = end6(WHOLE6, 4000), .destination = end6(SECOND, port),
                             .hop_limit = 63));
        }
    }
    rpc("session.flush", "{}");
    advance(3000);
    require(strstr(rpc("session.count", "{}"), "'sessions':0,") != NULL, "a session is left");
}

/* --- static bindings --- */

static void server_reaches_web(void) {
    inject(WAN, tcp4(.source = SERVER ":1234", .destination = OUTSIDE ":8080", .tcp_flags = SYN));
    expect(LAN, tcp6(.source = end6(SERVER6, 1234), .destination = end6(CLIENT, 80),
                     .tcp_flags = SYN, .hop_limit = 63));
}

static void web_answers(void) {
    inject(LAN, tcp6(.source = end6(CLIENT, 80), .destination = end6(SERVER6, 1234),
                     .tcp_flags = SYN | ACK));
    expect_ipv4(tcp4(.source = OUTSIDE ":8080", .destination = SERVER ":1234",
                     .tcp_flags = SYN | ACK, .ttl = 63));
}

CASE(a_port_leads_inside) {
    start(with(WEB));
    server_reaches_web();
    web_answers();
    inject(WAN, tcp4(.source = SERVER ":1234", .destination = OUTSIDE ":8080", .tcp_flags = ACK,
                     .size = 33));
    expect(LAN, tcp6(.source = end6(SERVER6, 1234), .destination = end6(CLIENT, 80),
                     .tcp_flags = ACK, .size = 33, .hop_limit = 63));
    require(nat_mapping_count() == 0, "%u mappings", nat_mapping_count());
    /* Another port is the router's own. */
    inject(WAN, udp4(.source = SERVER ":1234", .destination = OUTSIDE ":8080"));
    require(take_one(WAN) != NULL, "no error");
    expect_drop("local.no_listener", 1);
}

/* RFC 6146 section 3.2: the binding is for both directions. */
CASE(a_bound_port_leaves_as_its_outside_port) {
    start(with(WEB));
    inject(LAN,
           tcp6(.source = end6(CLIENT, 80), .destination = end6(SERVER6, 99), .tcp_flags = SYN));
    expect_ipv4(
        tcp4(.source = OUTSIDE ":8080", .destination = SERVER ":99", .tcp_flags = SYN, .ttl = 63));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 99)));
    expect_ipv4(udp4(.source = OUTSIDE ":4000", .destination = SERVER ":99", .ttl = 63));
    require(nat_mapping_count() == 1, "%u mappings", nat_mapping_count());
}

CASE(a_range_of_ports_leads_inside) {
    start(with(WEB ", " GAMES));
    for (unsigned port = 6000; port < 6100; port += 33) {
        inject(WAN, udp4(.source = SERVER ":1234", .destination = text(OUTSIDE ":%u", port)));
        expect(LAN, udp6(.source = end6(SERVER6, 1234), .destination = end6(SECOND, port + 1000),
                         .hop_limit = 63));
        inject(LAN, udp6(.source = end6(SECOND, port + 1000), .destination = end6(SERVER6, 1)));
        expect_ipv4(
            udp4(.source = text(OUTSIDE ":%u", port), .destination = SERVER ":1", .ttl = 63));
    }
    for (unsigned port = 5999; port < 6101; port += 101) {
        inject(WAN, udp4(.source = SERVER ":1234", .destination = text(OUTSIDE ":%u", port)));
        require(take_one(WAN) != NULL, "no error");
        expect_drop("local.no_listener", 1);
    }
}

CASE(a_whole_address_leads_inside) {
    start(with(ALL));
    inject(WAN, udp4(.source = SERVER ":7", .destination = WHOLE ":9"));
    expect(LAN, udp6(.source = end6(SERVER6, 7), .destination = end6(SECOND, 9), .hop_limit = 63));
    inject(WAN, icmp4_echo(.source = SERVER, .destination = WHOLE, .identifier = 3, .size = 11));
    expect(LAN, icmp6_echo(.source = SERVER6, .destination = SECOND, .identifier = 3, .size = 11,
                           .hop_limit = 63));
    inject(LAN,
           icmp6_echo_reply(.source = SECOND, .destination = SERVER6, .identifier = 3, .size = 11));
    expect_ipv4(icmp4_echo_reply(.source = WHOLE, .destination = SERVER, .identifier = 3,
                                 .size = 11, .ttl = 63));
    inject(LAN, icmp6_echo(.source = SECOND, .destination = SERVER6, .identifier = 4));
    expect_ipv4(icmp4_echo(.source = WHOLE, .destination = SERVER, .identifier = 4, .ttl = 63));
    inject(LAN,
           tcp6(.source = end6(SECOND, 80), .destination = end6(SERVER6, 99), .tcp_flags = SYN));
    expect_ipv4(
        tcp4(.source = WHOLE ":80", .destination = SERVER ":99", .tcp_flags = SYN, .ttl = 63));
    is_dropped(WAN, ip4(.source = SERVER, .destination = WHOLE, .protocol = 47, .size = 20),
               "nat.nat64_protocol");
    is_dropped(WAN, icmp4(.source = SERVER, .destination = WHOLE, .type = 13, .size = 12),
               "nat.nat64_protocol");
    inject(WAN, arp_request(.sender = "198.51.100.2", .sender_mac = HOST_WAN, .target = WHOLE));
    expect(WAN, ether(arp_reply(.sender = WHOLE, .sender_mac = ROUTER_WAN, .target = "198.51.100.2",
                                .target_mac = HOST_WAN),
                      HOST_WAN, ROUTER_WAN));
}

/* The whole of an address and one of another's ports: the port goes before. */
CASE(a_bound_port_goes_before_a_bound_address) {
    start(with(ALL ", {'protocol': 'tcp', 'outside': 'interface', 'outside_port': 8080, "
                   "'inside': '" SECOND "', 'inside_port': 80}"));
    inject(LAN,
           tcp6(.source = end6(SECOND, 80), .destination = end6(SERVER6, 99), .tcp_flags = SYN));
    expect_ipv4(
        tcp4(.source = OUTSIDE ":8080", .destination = SERVER ":99", .tcp_flags = SYN, .ttl = 63));
    inject(LAN,
           tcp6(.source = end6(SECOND, 81), .destination = end6(SERVER6, 99), .tcp_flags = SYN));
    expect_ipv4(
        tcp4(.source = WHOLE ":81", .destination = SERVER ":99", .tcp_flags = SYN, .ttl = 63));
}

/* Neither IPv6 hosts nor IPv4 ones get a bound port from a pool. */
CASE(bound_ports_are_kept_from_others) {
    static const char *const mappings[] = {"endpoint_independent", "endpoint_dependent"};

    for (unsigned i = 0; i < 2; i++) {
        start(text(ROUTER("'nat': {'nat64': [{" RULE ", 'mapping': '%s', 'static': [" GAMES "]}],"
                          "'source': [{'out': 'wan', 'source': '192.168.1.0/24',"
                          "'to': 'interface', 'mapping': '%s'}]}"),
                   mappings[i], mappings[i]));
        inject(LAN, udp6(.source = end6(CLIENT, 6050 + i), .destination = end6(SERVER6, 53)));
        require(source_port(take_one(WAN)) - 6000 > 99, "an IPv6 host has a bound port");
        inject(LAN, udp4(.source = text("192.168.1.10:%u", 6060 + i), .destination = SERVER ":53"));
        require(source_port(take_one(WAN)) - 6000 > 99, "an IPv4 host has a bound port");
        inject(LAN, tcp6(.source = end6(CLIENT, 6070 + i), .destination = end6(SERVER6, 1),
                         .tcp_flags = SYN));
        require(source_port(take_one(WAN)) == 6070 + i, "ports of TCP are not bound");
    }
}

/* Nothing is left when bound ports are all that there is. */
CASE(no_port_is_left_beside_bound_ones) {
    start(ROUTER("'nat': {'nat64': [{" RULE ", 'ports': '6000-6099', 'static': [" GAMES "]}]}"));
    is_dropped(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)),
               "nat.ports_exhausted");
}

/* The first packet of a session may be one that does not fit 1280 bytes. */
CASE(a_large_first_packet_goes_on_in_pieces) {
    struct frame *as6 =
        udp6(.source = end6(SERVER6, 7), .destination = end6(SECOND, 7050), .size = 1400);

    start(with(GAMES));
    inject(WAN,
           udp4(.source = SERVER ":7", .destination = OUTSIDE ":6050", .size = 1400, .id = 0x5678));
    for (unsigned offset = 0; offset < 1408; offset += 1232) {
        struct frame *found = take_one(LAN);
        unsigned length = offset ? 1408 - 1232 : 1232;

        require(found->bytes[IP + 6] == 44 && found->length == IP6_PAYLOAD + 8 + length,
                "no such fragment: %u bytes", found->length);
        require(memcmp(found->bytes + IP6_PAYLOAD + 8, as6->bytes + IP6_PAYLOAD + offset, length) ==
                    0,
                "another piece at %u", offset);
    }
}

/* As behind destination NAT, a rule names the inside host and port; the source is behind the
 * prefix. */
CASE(the_firewall_sees_the_inside) {
#define WALL(rules)                                                \
    ROUTER("'nat': {'nat64': [{" RULE ", 'static': [" WEB ", " ALL \
           "]}]}, 'firewall': {'default': 'drop', 'rules': [" rules "]}")
    const char *const open =
        WALL("{'name': 'web', 'in': 'wan', 'out': 'lan', 'protocol': 'tcp', 'destination': '" CLIENT
             "', 'destination_port': 80, 'source': '64:ff9b:1::203.0.113.0/120',"
             "'action': 'accept'}, {'name': 'ping', 'in': 'wan', 'protocol': 'icmpv6',"
             "'icmp_type': 'echo_request', 'destination': '" SECOND "', 'action': 'accept'}");
    const char *const closed =
        WALL("{'name': 'outside', 'in': 'wan', 'destination': '" OUTSIDE "', 'action': 'accept'}");

    start(open);
    server_reaches_web();
    web_answers();
    inject(WAN, icmp4_echo(.source = SERVER, .destination = WHOLE, .identifier = 3));
    expect(LAN,
           icmp6_echo(.source = SERVER6, .destination = SECOND, .identifier = 3, .hop_limit = 63));
    is_dropped(WAN,
               tcp4(.source = "198.51.100.2:1", .destination = OUTSIDE ":8080", .tcp_flags = SYN),
               "firewall.default");
    is_dropped(WAN, udp4(.source = SERVER ":1", .destination = WHOLE ":2"), "firewall.default");
    apply(open); /* the same rules let them live on */
    advance(1000);
    require(strstr(rpc("session.count", "{}"), "'sessions':2,") != NULL, "sessions have ended");
    apply(closed);
    advance(1000);
    require(strstr(rpc("session.count", "{}"), "'sessions':0,") != NULL, "sessions live on");
    is_dropped(WAN, tcp4(.source = SERVER ":5", .destination = OUTSIDE ":8080", .tcp_flags = SYN),
               "firewall.default");
}

/* And with a mapping that is open, too. */
CASE(the_firewall_sees_the_inside_of_an_open_mapping) {
    start(ROUTER("'nat': {'nat64': [{" RULE ", 'filtering': 'endpoint_independent'}]},"
                 "'firewall': {'default': 'drop', 'rules': [{'name': 'out', 'in': 'lan',"
                 "'action': 'accept'}, {'name': 'games', 'in': 'wan', 'protocol': 'udp',"
                 "'destination': '" SECOND "', 'destination_port': 5000, 'action': 'accept'}]}"));
    second_opens();
    inject(WAN, udp4(.source = "203.0.113.3:77", .destination = OUTSIDE ":5000"));
    expect(LAN, udp6(.source = end6("64:ff9b:1::203.0.113.3", 77),
                     .destination = end6(SECOND, 5000), .hop_limit = 63));
    inject(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(SERVER6, 53)));
    discard(WAN);
    is_dropped(WAN, udp4(.source = "203.0.113.3:77", .destination = OUTSIDE ":4000"),
               "firewall.default");
}

CASE(a_refused_packet_is_quoted_as_it_came) {
    struct frame *refused = udp4(.source = SERVER ":7", .destination = OUTSIDE ":6050");

    start(ROUTER("'nat': {'nat64': [{" RULE ", 'static': [" GAMES "]}]},"
                 "'firewall': {'default': 'reject'}"));
    inject(WAN, refused);
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = 3, .code = 13,
                            .about = refused));
    expect_drop("firewall.rejected", 1);
}

/* Those inside that have IPv4 come by it as well, from behind the prefix. */
CASE(ipv4_hosts_inside_use_a_bound_port) {
    const struct frame *found;

    start(with(WEB));
    inject(LAN,
           tcp4(.source = "192.168.1.10:1234", .destination = OUTSIDE ":8080", .tcp_flags = SYN));
    expect(LAN, tcp6(.source = end6("64:ff9b:1::192.168.1.10", 1234),
                     .destination = end6(CLIENT, 80), .tcp_flags = SYN, .hop_limit = 63));
    inject(LAN, tcp6(.source = end6(CLIENT, 80),
                     .destination = end6("64:ff9b:1::192.168.1.10", 1234), .tcp_flags = SYN | ACK));
    found = take_one(LAN);
    require(frame_equal(found, ether(same_id(found, tcp4(.source = OUTSIDE ":8080",
                                                         .destination = "192.168.1.10:1234",
                                                         .tcp_flags = SYN | ACK, .ttl = 63)),
                                     HOST_LAN, ROUTER_LAN)),
            "another answer");
    /* Whoever has a private address is nobody behind the well-known prefix. */
    apply(ROUTER("'nat': {'nat64': [{'prefix': '64:ff9b::/96', 'out': 'wan', 'to': 'interface',"
                 "'static': [" WEB "]}]}"));
    is_dropped(
        LAN, tcp4(.source = "192.168.1.10:1235", .destination = OUTSIDE ":8080", .tcp_flags = SYN),
        "nat.nat64_destination");
}

CASE(beside_port_forwards) {
    start(ROUTER("'nat': {'nat64': [{" RULE ", 'static': [" WEB "]}],"
                 "'destination': [{'in': 'wan', 'to': '192.168.1.10'}]}"));
    server_reaches_web();
    inject(WAN, tcp4(.source = SERVER ":1234", .destination = OUTSIDE ":8081", .tcp_flags = SYN));
    expect(LAN, tcp4(.source = SERVER ":1234", .destination = "192.168.1.10:8081", .tcp_flags = SYN,
                     .ttl = 63));
}

CASE(nobody_is_led_to_the_router_itself) {
    start(with("{'outside': '" WHOLE "', 'inside': '2001:db8:1::1'}"));
    is_dropped(WAN, udp4(.source = SERVER ":7", .destination = WHOLE ":9"), "nat.nat64_source");
    is_dropped(LAN, udp6(.source = end6(CLIENT, 4000), .destination = end6(WHOLE6, 9)),
               "nat.nat64_source");
}

/* --- changes --- */

static void sessions_are(unsigned number) {
    const char *counts = rpc("session.count", "{}");

    require(strstr(counts, text("{'sessions':%u,", number)) != NULL, "expected %u sessions: %s",
            number, counts);
}

CASE(another_binding_ends_the_sessions) {
    start(with(WEB ", " ALL));
    server_reaches_web();
    web_answers();
    inject(LAN, icmp6_echo(.source = CLIENT, .destination = WHOLE6, .identifier = 9));
    inject(LAN, icmp6_echo(.source = SECOND, .destination = SERVER6, .identifier = 4));
    take_one(LAN);
    take_one(WAN);
    sessions_are(3);
    apply(with(ALL ", " WEB));
    advance(1000);
    sessions_are(3);
    /* The whole address is another host's: hairpin and outbound session go. */
    apply(with(WEB ", {'outside': '" WHOLE "', 'inside': '2001:db8:1::30'}"));
    advance(1000);
    sessions_are(1);
    /* Another inside port. */
    apply(
        with("{'protocol': 'tcp', 'outside': 'interface', 'outside_port': 8080, 'inside': '" CLIENT
             "', 'inside_port': 81}"));
    advance(1000);
    sessions_are(0);
}

CASE(a_binding_takes_a_port_from_those_that_have_it) {
    start(ROUTER("'nat': {'nat64': [{" RULE "}], 'source': [{'out': 'wan',"
                 "'source': '192.168.1.0/24', 'to': 'interface'}]}"));
    inject(LAN, udp6(.source = end6(CLIENT, 6000), .destination = end6(SERVER6, 53)));
    inject(LAN, udp4(.source = "192.168.1.10:6001", .destination = SERVER ":53"));
    inject(LAN, udp4(.source = "192.168.1.10:5999", .destination = SERVER ":53"));
    require(discard(WAN) == 3, "not all went out");
    apply(ROUTER("'nat': {'nat64': [{" RULE ", 'static': [" GAMES "]}], 'source': [{'out': 'wan',"
                 "'source': '192.168.1.0/24', 'to': 'interface'}]}"));
    advance(3000);
    sessions_are(1);
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":6000"));
    expect(LAN,
           udp6(.source = end6(SERVER6, 53), .destination = end6(SECOND, 7000), .hop_limit = 63));
}

static const char *path(void) {
    return text("/tmp/packet_nat64_static.%d", getpid());
}

static void restart(const char *config) {
    require(session_save(path()) == 0, "the sessions could not be saved");
    harness_clear();
    start(config);
    require(session_load(path()) == 0, "the sessions could not be loaded");
    turn();
    require(access(path(), F_OK) != 0 && errno == ENOENT, "the file is still there");
}

CASE(sessions_outlive_a_restart) {
    const char *const config = with(WEB ", " GAMES);

    start(config);
    server_reaches_web();
    second_opens();
    client_turns(10);
    inject(LAN, udp6(.source = end6(SECOND, 7001), .destination = end6(SERVER6, 1)));
    expect_ipv4(udp4(.source = OUTSIDE ":6001", .destination = SERVER ":1", .ttl = 63));
    inject(LAN, udp6(.source = end6(CLIENT, 4444), .destination = end6(OUTSIDE6, 6002)));
    expect(LAN, udp6(.source = end6(OUTSIDE6, 4444), .destination = end6(SECOND, 7002),
                     .hop_limit = 63));
    sessions_are(5);
    require(nat_mapping_count() == 3, "%u mappings", nat_mapping_count());
    restart(config);
    sessions_are(5);
    require(nat_mapping_count() == 3, "%u mappings", nat_mapping_count());
    web_answers();
    second_answers(33);
    client_turns(34);
    inject(WAN, udp4(.source = SERVER ":1", .destination = OUTSIDE ":6001"));
    expect(LAN,
           udp6(.source = end6(SERVER6, 1), .destination = end6(SECOND, 7001), .hop_limit = 63));
    inject(LAN, udp6(.source = end6(SECOND, 7002), .destination = end6(OUTSIDE6, 4444)));
    expect(LAN, udp6(.source = end6(OUTSIDE6, 6002), .destination = end6(CLIENT, 4444),
                     .hop_limit = 63));
    advance(1000); /* no review ends them */
    sessions_are(5);
    restart(plain()); /* what no rule gives any more is left out */
    sessions_are(2);
}

/* --- what is refused --- */

CASE(contradictions) {
#define BOUND(members) \
    "{'protocol': 'tcp', 'outside': '" OUTSIDE "', 'inside': '" CLIENT "', " members "}"
    static const struct {
        const char *statics, *more, *at;
    } wrong[] = {
        {BOUND("'outside_port': 80") ", " BOUND("'outside_port': '79-81', 'inside_port': 1000"), "",
         "static[1].outside_port"},
        {WEB
         ", {'protocol': 'tcp', 'outside': 'interface', 'outside_port': 8080, 'inside': '" SECOND
         "'}",
         "", "static[1].outside_port"},
        {ALL ", {'protocol': 'udp', 'outside': '" WHOLE "', 'outside_port': 5, 'inside': '" CLIENT
             "'}",
         "", "static[1].outside_port"},
        {ALL ", {'outside': '" WHOLE "', 'inside': '" CLIENT "'}", "", "static[1].outside"},
        {ALL ", {'outside': '198.51.100.61', 'inside': '" SECOND "'}", "", "static[1].inside"},
        {BOUND("'outside_port': 80") ", " BOUND("'outside_port': 81, 'inside_port': 80"), "",
         "static[1].inside"},
        {"{'outside': '" OUTSIDE "', 'inside': '64:ff9b:1::9'}", "", "static[0].inside"},
        {"{'outside': 'interface', 'inside': '" CLIENT "'}", "", "static[0].outside"},
        {"{'outside': '" OUTSIDE "', 'inside': '" CLIENT "'}", "", "static[0].outside"},
        {BOUND("'outside_port': '65000-65535', 'inside_port': 65001"), "", "static[0].inside_port"},
        {"{'protocol': 'tcp', 'outside': '" OUTSIDE "', 'inside': '" CLIENT "'}", "",
         "static[0].protocol"},
        {"{'outside_port': 80, 'outside': '" OUTSIDE "', 'inside': '" CLIENT "'}", "",
         "static[0].outside_port"},
        {"{'protocol': 'icmp', 'outside': '" OUTSIDE "', 'inside': '" CLIENT "'}", "",
         "static[0].protocol"},
        {"{'outside': '" OUTSIDE "', 'inside': '192.168.1.10'}", "", "static[0].inside"},
        {"{'outside': '" OUTSIDE "', 'inside': 'fe80::1'}", "", "static[0].inside"},
        {"{'outside': '2001:db8::1', 'inside': '" CLIENT "'}", "", "static[0].outside"},
        {ALL, ", 'source': [{'out': 'wan', 'to': '198.51.100.32/27'}]", "static[0].outside"},
        {ALL, ", 'static': [{'outside': '" WHOLE "', 'inside': '192.168.1.10'}]",
         "static[0].outside"},
        {ALL, ", 'destination': [{'in': 'wan', 'destination': '" WHOLE "', 'to': '192.168.1.10'}]",
         "static[0].outside"},
        {WEB,
         ", 'destination': [{'in': 'wan', 'protocol': 'tcp', 'destination_port': '8000-9000',"
         "'to': '192.168.1.10'}]",
         "static[0].outside_port"},
    };

    start(plain());
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        apply_fails_because(text(ROUTER("'nat': {'nat64': [{" RULE ", 'static': [%s]}]%s}"),
                                 wrong[i].statics, wrong[i].more),
                            text("$.nat.nat64[0].%s", wrong[i].at));
    apply_fails_because(
        text(ROUTER("'nat': {'nat64': [{" RULE "}, {'prefix': '64:ff9b::/96', 'out': 'wan',"
                    "'to': 'interface', 'static': [%s]}]}"),
             "{'outside': '" WHOLE "', 'inside': '64:ff9b:1::9'}"),
        "$.nat.nat64[1].static[0].inside");
    apply_fails_because(ROUTER("'nat': {'nat64': [{" RULE ", 'static': [" WEB
                               "]}, {'prefix': '64:ff9b::/96', 'out': 'wan', 'to': 'interface',"
                               "'static': [{'protocol': 'tcp', 'outside': 'interface',"
                               "'outside_port': 8080, 'inside': '" SECOND "'}]}]}"),
                        "$.nat.nat64[1].static[0].outside_port");
    /* What does not contradict. */
    apply(ROUTER("'nat': {'nat64': [{" RULE ", 'static': [" WEB ", " GAMES ", " ALL
                 ", {'protocol': 'udp', 'outside': 'interface', 'outside_port': 8080,"
                 "'inside': '" CLIENT "'}]}], 'source': [{'out': 'wan', 'to': 'interface'}],"
                 "'destination': [{'in': 'wan', 'protocol': 'tcp', 'destination_port': 8081,"
                 "'to': '192.168.1.10'}, {'in': 'wan', 'protocol': 'tcp',"
                 "'destination_port': 25, 'destination': '" WHOLE "', 'to': '192.168.1.10'}]}"));
}

CASE(the_list_shows_them) {
    const char *list;

    start(with(WEB ", " ALL));
    list = rpc("nat.list", "{}");
    require(strstr(list, "{'outside':'" OUTSIDE "','inside':'" CLIENT
                         "','protocol':'tcp','port_first':8080,'port_last':8080,"
                         "'inside_port':80}") &&
                strstr(list, "{'outside':'" WHOLE "','inside':'" SECOND "'}"),
            "%s", list);
}

/* --- anything --- */

/* How an inside host and port appear outside, as the router has said so far. */
enum { HOSTS = 4, PORTS = 4, PORT = 7000 };
struct seen {
    unsigned outside; /* port; 0: not known yet */
    bool whole;       /* of the whole address */
};

static const char *host(unsigned n) {
    return text("2001:db8:1::%x", 0x10 + 0x10 * n);
}

static const char *behind(const struct seen *seen) {
    return seen->whole ? WHOLE6 : OUTSIDE6;
}

/* Who talks with whom is drawn: servers, bound ports, a bound address, mappings. What goes out is
 * what comes back in, everybody appears the same to everybody, no two have one outside port, and
 * checksums are right for all lengths: expect() works them out anew. */
CASE(random_packets_turn_round_and_back) {
    struct seen seen[HOSTS][PORTS] = {0};

    start(text("{" INTERFACES "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS ","
               "{'interface': 'lan', 'address': '" SECOND "', 'mac': '" HOST_LAN "'},"
               "{'interface': 'lan', 'address': '2001:db8:1::30', 'mac': '" HOST_LAN "'},"
               "{'interface': 'lan', 'address': '2001:db8:1::40', 'mac': '" HOST_LAN "'}],"
               "'routes': [" DEFAULT_ROUTES "], 'nat': {'nat64': [{" RULE ", 'static': [" ALL ","
               "{'protocol': 'udp', 'outside': '" OUTSIDE "', 'outside_port': 7001,"
               "'inside': '" CLIENT "', 'inside_port': 7000},"
               "{'protocol': 'udp', 'outside': '" OUTSIDE "', 'outside_port': '53-54',"
               "'inside': '2001:db8:1::30', 'inside_port': 7002}]}]}," UNLIMITED "}"));
    /* What is bound is known from the beginning. */
    seen[0][0] = (struct seen){7001, false};
    seen[2][2] = (struct seen){53, false};
    seen[2][3] = (struct seen){54, false};
    for (unsigned port = 0; port < PORTS; port++)
        seen[1][port] = (struct seen){PORT + port, true};
    for (unsigned round = 0; round < 3000; round++) {
        unsigned from = draw(HOSTS), port = draw(PORTS), to = draw(HOSTS), there = draw(PORTS);
        unsigned size = 1 + draw(1100);
        struct seen *own = &seen[from][port], *other = &seen[to][there];
        const struct frame *found;

        if (from == to || other->outside == 0) { /* to a server */
            const char *server = text("203.0.113.%u", 1 + draw(3));

            inject(LAN, udp6(.source = end6(host(from), PORT + port),
                             .destination = end6(text("64:ff9b:1::%s", server), 99), .size = size));
            found = take_one(WAN);
            if (own->outside == 0)
                own->outside = source_port(found);
            require(
                frame_equal(
                    found,
                    ether(patch(udp4(.source =
                                         text("%s:%u", own->whole ? WHOLE : OUTSIDE, own->outside),
                                     .destination = text("%s:99", server), .size = size,
                                     .fragment = size + 28 > 1260 ? DONT_FRAGMENT : 0, .ttl = 63),
                                IP + 4,
                                text("%02x%02x", found->bytes[IP + 4], found->bytes[IP + 5])),
                          HOST_WAN, ROUTER_WAN)),
                "round %u: another datagram", round);
            inject(WAN,
                   udp4(.source = text("%s:99", server),
                        .destination = text("%s:%u", own->whole ? WHOLE : OUTSIDE, own->outside),
                        .size = size));
            expect(LAN, udp6(.source = end6(text("64:ff9b:1::%s", server), 99),
                             .destination = end6(host(from), PORT + port), .size = size,
                             .hop_limit = 63));
        } else if (draw(4) == 0 && (to == 1 || other->outside < 100 || other->outside == 7001)) {
            /* from outside to what is bound */
            inject(WAN, udp4(.source = SERVER ":77",
                             .destination =
                                 text("%s:%u", other->whole ? WHOLE : OUTSIDE, other->outside),
                             .size = size));
            expect(LAN,
                   udp6(.source = end6(SERVER6, 77), .destination = end6(host(to), PORT + there),
                        .size = size, .hop_limit = 63));
        } else { /* to each other */
            inject(LAN, udp6(.source = end6(host(from), PORT + port),
                             .destination = end6(behind(other), other->outside), .size = size));
            found = take_one(LAN);
            if (own->outside == 0)
                own->outside =
                    (unsigned)found->bytes[IP6_PAYLOAD] << 8 | found->bytes[IP6_PAYLOAD + 1];
            require(frame_equal(found, ether(udp6(.source = end6(behind(own), own->outside),
                                                  .destination = end6(host(to), PORT + there),
                                                  .size = size, .hop_limit = 63),
                                             HOST_LAN, ROUTER_LAN)),
                    "round %u: another datagram has turned", round);
            inject(LAN, udp6(.source = end6(host(to), PORT + there),
                             .destination = end6(behind(own), own->outside), .size = size));
            expect(LAN, udp6(.source = end6(behind(other), other->outside),
                             .destination = end6(host(from), PORT + port), .size = size,
                             .hop_limit = 63));
        }
        for (unsigned n = 0; n < HOSTS * PORTS; n++)
            require(&seen[0][0] + n == own || (&seen[0][0])[n].outside == 0 ||
                        (&seen[0][0])[n].whole != own->whole ||
                        (&seen[0][0])[n].outside != own->outside,
                    "round %u: two have port %u", round, own->outside);
        require(nat_mapping_count() == nat_mapping_ports_taken(), "%u mappings, %u ports",
                nat_mapping_count(), nat_mapping_ports_taken());
    }
}

HARNESS_MAIN()
