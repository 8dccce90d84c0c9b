/* Network prefix translation (RFC 6296): prefixes change, checksums and ports do not. Frames are
 * expected to the byte, with checksums worked out anew. */
#include <stdio.h>

#include "harness.h"

#define INSIDE "fd00:aaaa:bbbb:1::10"
/* RFC 6296 section 3.1: fd00:aaaa:bbbb adds up to 6367, 2001:db8:9 to 2dc2; the subnet takes the
 * difference: 1 + 6367 - 2dc2 = 35a6. */
#define OUTSIDE "2001:db8:9:35a6::10"
#define SERVER "2001:db8:f::1"

#define INTERFACES                                                                      \
    "'interfaces': {"                                                                   \
    "'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24', 'fd00:aaaa:bbbb:1::1/64']}," \
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"                                        \
    "'neighbours': [" WAN_NEIGHBOURS ","                                                \
    "{'interface': 'lan', 'address': '" INSIDE "', 'mac': '" HOST_LAN "'},"             \
    "{'interface': 'lan', 'address': 'fd00:aaaa:bbbb:1::20', 'mac': '" HOST_LAN "'}],"  \
    "'routes': [" DEFAULT_ROUTES "]"
#define NPTV6 \
    "'nat': {'nptv6': [{'out': 'wan', 'inside': 'fd00:aaaa:bbbb::/48', 'outside': '2001:db8:9::/48'}]}"

static const char *const translated = "{" INTERFACES "," NPTV6 "," UNLIMITED "}";
static const char *const firewalled =
    "{" INTERFACES "," NPTV6 ",'firewall': {'default': 'drop', 'rules': ["
    "{'name': 'out', 'in': 'lan', 'out': 'wan', 'action': 'accept'},"
    "{'name': 'web', 'in': 'wan', 'protocol': 'tcp', 'destination': '" INSIDE "/128',"
    "'destination_port': 80, 'action': 'accept'}]}," UNLIMITED "}";

enum { SYN = 0x02, ACK = 0x10 };
enum { UNREACHABLE = 1, NO_PORT = 4, TOO_BIG = 2, TIME_EXCEEDED = 3 };

/* "[address]:port" */
static const char *end(const char *address, unsigned port) {
    return text("[%s]:%u", address, port);
}

/* The outside address of what came, taken from the frame itself. */
static const char *source_of(const struct frame *frame) {
    char *out = room_for(64), *at = out;

    for (unsigned i = 0; i < 16; i += 2)
        append(&at, "%s%x", i ? ":" : "", frame->bytes[IP + 8 + i] << 8 | frame->bytes[IP + 9 + i]);
    return out;
}

CASE(udp_goes_out_and_its_answer_comes_back) {
    start(translated);
    inject(LAN, udp6(.source = end(INSIDE, 1024), .destination = end(SERVER, 53)));
    expect(WAN,
           udp6(.source = end(OUTSIDE, 1024), .destination = end(SERVER, 53), .hop_limit = 63));
    inject(WAN, udp6(.source = end(SERVER, 53), .destination = end(OUTSIDE, 1024)));
    expect(LAN, udp6(.source = end(SERVER, 53), .destination = end(INSIDE, 1024), .hop_limit = 63));
    /* established: the straight line */
    for (unsigned size = 1; size < 20; size++) {
        inject(LAN,
               udp6(.source = end(INSIDE, 1024), .destination = end(SERVER, 53), .size = size));
        expect(WAN, udp6(.source = end(OUTSIDE, 1024), .destination = end(SERVER, 53), .size = size,
                         .hop_limit = 63));
        inject(WAN,
               udp6(.source = end(SERVER, 53), .destination = end(OUTSIDE, 1024), .size = size));
        expect(LAN, udp6(.source = end(SERVER, 53), .destination = end(INSIDE, 1024), .size = size,
                         .hop_limit = 63));
    }
}

CASE(tcp_and_echo_too) {
    start(translated);
    inject(LAN,
           tcp6(.source = end(INSIDE, 4000), .destination = end(SERVER, 80), .tcp_flags = SYN));
    expect(WAN, tcp6(.source = end(OUTSIDE, 4000), .destination = end(SERVER, 80), .tcp_flags = SYN,
                     .hop_limit = 63));
    inject(WAN, tcp6(.source = end(SERVER, 80), .destination = end(OUTSIDE, 4000),
                     .tcp_flags = SYN | ACK));
    expect(LAN, tcp6(.source = end(SERVER, 80), .destination = end(INSIDE, 4000),
                     .tcp_flags = SYN | ACK, .hop_limit = 63));
    inject(LAN, icmp6_echo(.source = INSIDE, .destination = SERVER, .identifier = 7));
    expect(WAN,
           icmp6_echo(.source = OUTSIDE, .destination = SERVER, .identifier = 7, .hop_limit = 63));
    inject(WAN, icmp6_echo_reply(.source = SERVER, .destination = OUTSIDE, .identifier = 7));
    expect(LAN, icmp6_echo_reply(.source = SERVER, .destination = INSIDE, .identifier = 7,
                                 .hop_limit = 63));
}

/* Whoever is on the inside can be reached by his outside address, if the firewall lets it. */
CASE(the_outside_may_begin) {
    start(translated);
    inject(WAN, udp6(.source = end(SERVER, 5000), .destination = end(OUTSIDE, 53)));
    expect(LAN, udp6(.source = end(SERVER, 5000), .destination = end(INSIDE, 53), .hop_limit = 63));
    inject(LAN, udp6(.source = end(INSIDE, 53), .destination = end(SERVER, 5000)));
    expect(WAN,
           udp6(.source = end(OUTSIDE, 53), .destination = end(SERVER, 5000), .hop_limit = 63));
}

/* The firewall sees the inside address. */
CASE(the_firewall_decides_about_the_inside) {
    start(firewalled);
    inject(WAN,
           tcp6(.source = end(SERVER, 5000), .destination = end(OUTSIDE, 80), .tcp_flags = SYN));
    expect(LAN, tcp6(.source = end(SERVER, 5000), .destination = end(INSIDE, 80), .tcp_flags = SYN,
                     .hop_limit = 63));
    inject(WAN,
           tcp6(.source = end(SERVER, 5000), .destination = end(OUTSIDE, 81), .tcp_flags = SYN));
    expect_nothing(ANYWHERE);
    expect_drop("firewall.default", 1);
}

CASE(errors_from_outside_reach_who_sent_the_packet) {
    struct frame *sent;

    start(translated);
    inject(LAN, udp6(.source = end(INSIDE, 1024), .destination = end(SERVER, 53), .size = 200));
    sent = take_one(WAN);
    inject(WAN, icmp6_error(.source = "2001:db8:2::2", .destination = OUTSIDE, .type = TOO_BIG,
                            .rest = 1280, .about = sent));
    expect(LAN,
           icmp6_error(.source = "2001:db8:2::2", .destination = INSIDE, .type = TOO_BIG,
                       .rest = 1280, .hop_limit = 63,
                       .about = udp6(.source = end(INSIDE, 1024), .destination = end(SERVER, 53),
                                     .size = 200, .hop_limit = 63)));
}

/* From a router on the inside: it must not show. */
CASE(errors_from_inside_do_not_show_who_sent_them) {
    struct frame *sent;

    start(translated);
    inject(WAN, udp6(.source = end(SERVER, 5000), .destination = end(OUTSIDE, 53)));
    sent = take_one(LAN);
    inject(LAN, icmp6_error(.source = INSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = NO_PORT, .about = sent));
    expect(WAN, icmp6_error(.source = OUTSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = NO_PORT, .hop_limit = 63,
                            .about = udp6(.source = end(SERVER, 5000),
                                          .destination = end(OUTSIDE, 53), .hop_limit = 63)));
    inject(LAN, icmp6_error(.source = "fd00:aaaa:bbbb:1::20", .destination = SERVER,
                            .type = TIME_EXCEEDED, .about = sent));
    expect(WAN, icmp6_error(.source = OUTSIDE, .destination = SERVER, .type = TIME_EXCEEDED,
                            .hop_limit = 63,
                            .about = udp6(.source = end(SERVER, 5000),
                                          .destination = end(OUTSIDE, 53), .hop_limit = 63)));
}

/* What the router says about a translated packet quotes it as its sender knows it. */
CASE(the_routers_own_errors_quote_the_packet_as_it_came) {
    start(translated);
    inject(LAN, udp6(.source = end(INSIDE, 1024), .destination = end(SERVER, 53), .hop_limit = 1));
    expect(LAN, icmp6_error(.source = "fd00:aaaa:bbbb:1::1", .destination = INSIDE,
                            .type = TIME_EXCEEDED,
                            .about = udp6(.source = end(INSIDE, 1024),
                                          .destination = end(SERVER, 53), .hop_limit = 1)));
    expect_drop("local.time_exceeded", 1);
    inject(WAN, udp6(.source = end(SERVER, 1), .destination = end(OUTSIDE, 53), .hop_limit = 1));
    expect(WAN, icmp6_error(.source = "2001:db8:2::1", .destination = SERVER, .type = TIME_EXCEEDED,
                            .about = udp6(.source = end(SERVER, 1), .destination = end(OUTSIDE, 53),
                                          .hop_limit = 1)));
    expect_drop("local.time_exceeded", 1);
}

/* Two inside hosts by their outside addresses: both see outside addresses only. */
CASE(hairpins) {
    struct frame *found;
    const char *second;

    start(translated);
    inject(LAN, udp6(.source = end("fd00:aaaa:bbbb:1::20", 1), .destination = end(SERVER, 53)));
    found = take_one(WAN);
    second = source_of(found);
    inject(LAN, udp6(.source = end(INSIDE, 1024), .destination = end(second, 53)));
    expect(LAN, udp6(.source = end(OUTSIDE, 1024), .destination = end("fd00:aaaa:bbbb:1::20", 53),
                     .hop_limit = 63));
    inject(LAN, udp6(.source = end("fd00:aaaa:bbbb:1::20", 53), .destination = end(OUTSIDE, 1024)));
    expect(LAN, udp6(.source = end(second, 53), .destination = end(INSIDE, 1024), .hop_limit = 63));
}

/* RFC 6296 section 3.4: subnet ffff has no counterpart. */
CASE(a_subnet_of_ones_is_dropped) {
    start(translated);
    inject(LAN, udp6(.source = end("fd00:aaaa:bbbb:ffff::10", 1), .destination = end(SERVER, 53)));
    inject(WAN, udp6(.source = end(SERVER, 53), .destination = end("2001:db8:9:ffff::10", 1)));
    expect_nothing(ANYWHERE);
    expect_drop("nat.nptv6_address", 2);
}

/* Offset, M and identification of a fragment header; the type before and the reserved octet. */
static struct frame *piece(unsigned offset, bool more, unsigned size) {
    return ip6(.source = INSIDE, .destination = SERVER, .first = 44, .protocol = 17, .size = size,
               .extensions = text("1100%04x12345678", offset | more));
}

CASE(fragments_follow_the_first_one) {
    struct frame *head = piece(0, true, 24), *tail = piece(24, false, 8), *found;

    memcpy(head->bytes + IP6_PAYLOAD + 8, "\x04\x00\x00\x35\x00\x20", 6);
    start(translated);
    inject(LAN, tail);
    expect_nothing(ANYWHERE); /* it waits */
    inject(LAN, head);
    for (unsigned i = 0; i < 2; i++) {
        found = take_one(WAN);
        require(strcmp(source_of(found), "2001:db8:9:35a6:0:0:0:10") == 0, "from %s",
                source_of(found));
    }
}

/* Hosts that send fragments learn of a small MTU, too. */
CASE(errors_about_fragments) {
    struct frame *head = piece(0, true, 1200), *sent;

    memcpy(head->bytes + IP6_PAYLOAD + 8, "\x04\x00\x00\x35\x07\xd8", 6);
    start(translated);
    inject(LAN, head);
    sent = take_one(WAN);
    inject(WAN, icmp6_error(.source = "2001:db8:2::2", .destination = OUTSIDE, .type = TOO_BIG,
                            .rest = 1280, .about = sent));
    expect(LAN, icmp6_error(.source = "2001:db8:2::2", .destination = INSIDE, .type = TOO_BIG,
                            .rest = 1280, .hop_limit = 63, .about = hop(head)));
}

/* What belongs to no session is translated all the same (RFC 6296 needs none), and is not sent back
 * to where it came from. */
CASE(without_a_session) {
    struct frame *about = udp6(.source = end(OUTSIDE, 5), .destination = end(SERVER, 53));
    struct frame *back = udp6(.source = end(SERVER, 53), .destination = end(INSIDE, 5));

    start(translated);
    inject(WAN, icmp6_echo_reply(.source = SERVER, .destination = OUTSIDE, .identifier = 7));
    expect(LAN, icmp6_echo_reply(.source = SERVER, .destination = INSIDE, .identifier = 7,
                                 .hop_limit = 63));
    inject(WAN, icmp6_error(.source = "2001:db8:2::2", .destination = OUTSIDE,
                            .type = TIME_EXCEEDED, .about = about));
    expect(LAN,
           icmp6_error(.source = "2001:db8:2::2", .destination = INSIDE, .type = TIME_EXCEEDED,
                       .hop_limit = 63,
                       .about = udp6(.source = end(INSIDE, 5), .destination = end(SERVER, 53))));
    inject(LAN, icmp6_error(.source = INSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = NO_PORT, .about = back));
    expect(WAN,
           icmp6_error(.source = OUTSIDE, .destination = SERVER, .type = UNREACHABLE,
                       .code = NO_PORT, .hop_limit = 63,
                       .about = udp6(.source = end(SERVER, 53), .destination = end(OUTSIDE, 5))));
    inject(LAN, icmp6(.source = INSIDE, .destination = SERVER, .type = 200, .size = 12));
    expect(WAN, icmp6(.source = OUTSIDE, .destination = SERVER, .type = 200, .size = 12,
                      .hop_limit = 63));
}

/* The router keeps what it has in the outside prefix for itself. */
CASE(addresses_of_the_router_are_not_translated) {
    start("{'interfaces': {"
          "'lan': {" LAN_PORT ", 'addresses': ['fd00:aaaa:bbbb:1::1/64']},"
          "'wan': {" WAN_PORT ", 'addresses': ['2001:db8:2::1/64', '2001:db8:9::1/64']}},"
          "'neighbours': [{'interface': 'wan', 'address': '2001:db8:2::2', 'mac': '" HOST_WAN "'}],"
          "'routes': [{'prefix': '::/0', 'via': '2001:db8:2::2'}]," NPTV6 "," UNLIMITED "}");
    inject(WAN, icmp6_echo(.source = SERVER, .destination = "2001:db8:9::1", .identifier = 1));
    expect(WAN,
           icmp6_echo_reply(.source = "2001:db8:9::1", .destination = SERVER, .identifier = 1));
}

/* Sessions that no rule translates so any more end. */
CASE(another_prefix_ends_the_sessions) {
    start(translated);
    inject(LAN, udp6(.source = end(INSIDE, 1024), .destination = end(SERVER, 53)));
    discard(WAN);
    inject(WAN, udp6(.source = end(SERVER, 53), .destination = end(OUTSIDE, 1024)));
    discard(LAN);
    apply("{" INTERFACES ",'nat': {'nptv6': [{'out': 'wan', 'inside': 'fd00:aaaa:bbbb::/48',"
          "'outside': '2001:db8:a::/48'}]}," UNLIMITED "}");
    advance(1000);
    inject(WAN, udp6(.source = end(SERVER, 53), .destination = end(OUTSIDE, 1024)));
    discard(ANYWHERE);
    require(strstr(rpc("session.list", "{'address': '" OUTSIDE "'}"), "translated_source") == NULL,
            "the old session lives: %s", rpc("session.list", "{}"));
    inject(LAN, udp6(.source = end(INSIDE, 1024), .destination = end(SERVER, 53)));
    require(strncmp(source_of(take_one(WAN)), "2001:db8:a:", 11) == 0, "not the new prefix");
    forget_drops();
}

/* Only the first one would be translated, so that none may pass; in whatever order they come. */
CASE(fragments_without_a_session_do_not_leak) {
    struct frame *out =
        icmp6_echo_reply(.source = INSIDE, .destination = SERVER, .identifier = 7, .size = 100);
    struct frame *in =
        icmp6_echo_reply(.source = SERVER, .destination = OUTSIDE, .identifier = 7, .size = 100);

    start(translated);
    inject(LAN, fragment6_of(out, 0, 56, 99));
    inject(WAN, fragment6_of(in, 0, 56, 99));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 2);
    inject(LAN, fragment6_of(out, 56, 52, 99));
    inject(WAN, fragment6_of(in, 56, 52, 99));
    inject(LAN, fragment6_of(out, 56, 52, 100));
    expect_nothing(ANYWHERE);
    expect_drop("session.fragment_refused", 2);
    inject(LAN, fragment6_of(out, 0, 56, 100)); /* the other one has waited for it */
    expect_nothing(ANYWHERE);
    expect_drops({"nat.no_mapping", 1}, {"session.fragment_refused", 1});
    /* What keeps its addresses passes, and so does what is whole. */
    inject(WAN, fragment6_of(icmp6_echo_reply(.source = SERVER, .destination = INSIDE,
                                              .identifier = 7, .size = 100),
                             0, 56, 101));
    take_one(LAN);
    inject(LAN, out);
    require(strcmp(source_of(take_one(WAN)), "2001:db8:9:35a6:0:0:0:10") == 0, "not translated");
}

CASE(wrong_rules_are_refused) {
    static const char *const wrong[] = {
        "{'out': 'wan', 'inside': 'fd00::/48', 'outside': '2001:db8:9::/56'}",
        "{'out': 'wan', 'inside': 'fd00::/96', 'outside': '2001:db8:9::/96'}",
        "{'out': 'nowhere', 'inside': 'fd00::/48', 'outside': '2001:db8:9::/48'}",
        "{'out': 'wan', 'inside': '10.0.0.0/8', 'outside': '11.0.0.0/8'}",
        "{'out': 'wan', 'inside': '2001:db8:9::/48', 'outside': '2001:db8:9::/48'}",
        "{'out': 'wan', 'inside': 'fd00::/48'}",
    };

    start(translated);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        apply_fails(text("{" INTERFACES ",'nat': {'nptv6': [%s]}," UNLIMITED "}", wrong[i]));
}

HARNESS_MAIN()
