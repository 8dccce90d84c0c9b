/* Sessions: who opens one, what passes as part of it, and when it ends. */
#include <stdio.h>

#include "harness.h"
#include "session/session.h"

#define CLIENT "192.168.1.10"
#define SERVER "203.0.113.1"
#define CLIENT6 "2001:db8:1::10"
#define SERVER6 "2001:db8:99::1"
#define OUT4 .source = CLIENT ":5000", .destination = SERVER ":80"
#define BACK4 .source = SERVER ":80", .destination = CLIENT ":5000"
#define OUT6 .source = "[" CLIENT6 "]:5000", .destination = "[" SERVER6 "]:80"
#define BACK6 .source = "[" SERVER6 "]:80", .destination = "[" CLIENT6 "]:5000"

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10, URG = 0x20 };
enum { UNREACHABLE = 3, PORT_UNREACHABLE = 3, TOO_BIG = 4, TIME_EXCEEDED = 11 };
enum { UNREACHABLE6 = 1, TOO_BIG6 = 2 };

#define WITH(sections)                                                          \
    "{'interfaces': {"                                                          \
    "'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"                                 \
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"                                 \
    "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"                                \
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "]," \
    "'routes': [" DEFAULT_ROUTES "]," sections "," UNLIMITED "}"

/* Only the LAN may begin. */
#define ONE_WAY                                                                                    \
    "'firewall': {'default': 'drop', 'router_default': 'accept', 'rules': [{'name': 'out', 'in': " \
    "'lan', 'action': 'accept'}]}"
static const char *const one_way = WITH(ONE_WAY);
static const char *const both_ways = WITH("'firewall': {'default': 'accept'}");

static const char *one_way_with(const char *sections) {
    return text(WITH("%s, " ONE_WAY), sections);
}

#define out(flags) passes(LAN, WAN, tcp4(OUT4, .tcp_flags = (flags)))
#define back(flags) passes(WAN, LAN, tcp4(BACK4, .tcp_flags = (flags)))
#define out_dropped(flags, reason) is_dropped(LAN, tcp4(OUT4, .tcp_flags = (flags)), reason)
#define back_dropped(flags, reason) is_dropped(WAN, tcp4(BACK4, .tcp_flags = (flags)), reason)

static void establish(void) {
    out(SYN);
    back(SYN | ACK);
    out(ACK);
}

static void answer_contains(const char *answer, const char *part) {
    require(strstr(answer, part) != NULL, "%s is not in %s", part, answer);
}

static void sessions_are(unsigned number) {
    answer_contains(rpc("session.count", "{}"), text("'sessions':%u,", number));
}

static void state_is(const char *state) {
    answer_contains(rpc("session.list", "{}"), text("'state':'%s'", state));
}

/* --- TCP --- */

CASE(a_connection_from_beginning_to_end) {
    start(one_way);
    out(SYN);
    state_is("tcp_opening");
    back(SYN | ACK);
    state_is("tcp_answered");
    out(ACK);
    state_is("tcp_established");
    for (unsigned i = 0; i < 10; i++) {
        out(ACK | PSH);
        back(ACK | PSH);
        out(ACK);
    }
    out(FIN | ACK);
    state_is("tcp_established");
    back(ACK);
    back(ACK | PSH);
    back(FIN | ACK);
    state_is("tcp_closing");
    out(ACK);
    sessions_are(1);
    advance(245000);
    sessions_are(0);
    back_dropped(ACK, "firewall.default");
    out_dropped(ACK, "session.tcp_no_session");
}

CASE(a_connection_over_ipv6) {
    start(one_way);
    passes(LAN, WAN, tcp6(OUT6, .tcp_flags = SYN));
    passes(WAN, LAN, tcp6(BACK6, .tcp_flags = SYN | ACK));
    passes(LAN, WAN, tcp6(OUT6, .tcp_flags = ACK));
    state_is("tcp_established");
    passes(WAN, LAN, tcp6(BACK6, .tcp_flags = ACK | PSH, .size = 100));
    passes(LAN, WAN, tcp6(OUT6, .tcp_flags = FIN | ACK));
    passes(WAN, LAN, tcp6(BACK6, .tcp_flags = FIN | ACK));
    state_is("tcp_closing");
    is_dropped(
        WAN,
        tcp6(.source = "[" SERVER6 "]:81", .destination = "[" CLIENT6 "]:5000", .tcp_flags = SYN),
        "firewall.default");
}

CASE(a_reset_closes) {
    start(one_way);
    establish();
    back(RST);
    state_is("tcp_closed");
    out(ACK); /* under way already */
    advance(13000);
    sessions_are(0);
    out_dropped(ACK, "session.tcp_no_session");
}

CASE(a_refused_connection) {
    start(one_way);
    out(SYN);
    back(RST | ACK);
    state_is("tcp_closed");
    advance(13000);
    sessions_are(0);
}

/* Both ends may open at once: RFC 5382 REQ-2. */
CASE(both_sides_open_at_once) {
    start(one_way);
    out(SYN);
    back(SYN);
    out(SYN | ACK);
    back(SYN | ACK);
    out(ACK);
    back(ACK);
    state_is("tcp_established");
}

CASE(impossible_flags) {
    static const uint8_t possible[] = {SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK};

    start(one_way);
    for (unsigned known = 0; known < 2; known++) {
        for (unsigned flags = 0; flags < 64; flags++) {
            bool is_possible = false;

            for (unsigned i = 0; i < sizeof(possible); i++)
                is_possible |= (flags & (FIN | SYN | RST | ACK)) == possible[i];
            if (known) {
                rpc("session.flush", "{}");
                establish();
            }
            inject(LAN, tcp4(OUT4, .tcp_flags = flags));
            turn();
            if (is_possible != (drops_so_far("session.tcp_flags") == 0))
                failed_at(__FILE__, __LINE__, "flags 0x%02x are %s", flags,
                          is_possible ? "not let through" : "let through");
            discard(ANYWHERE);
            forget_drops();
            rpc("session.flush", "{}");
        }
    }
}

CASE(only_a_syn_begins) {
    static const uint8_t others[] = {ACK, SYN | ACK, FIN | ACK, RST, RST | ACK, ACK | PSH};

    start(both_ways);
    for (unsigned i = 0; i < sizeof(others); i++) {
        out_dropped(others[i], "session.tcp_no_session");
        is_dropped(LAN, tcp6(OUT6, .tcp_flags = others[i]), "session.tcp_no_session");
    }
    sessions_are(0);
}

CASE(picking_up_in_mid_stream) {
    start(one_way_with("'sessions': {'tcp_pickup': true}"));
    out_dropped(SYN | ACK, "session.tcp_no_session");
    out_dropped(RST, "session.tcp_no_session");
    out_dropped(FIN | ACK, "session.tcp_no_session");
    back_dropped(ACK, "firewall.default");
    out(ACK | PSH);
    state_is("tcp_established");
    back(ACK);
    back(ACK);
    out(FIN | ACK);
    back(FIN | ACK);
    state_is("tcp_closing");
}

CASE(nothing_before_the_other_side_has_answered) {
    start(one_way);
    out(SYN);
    out_dropped(ACK, "session.tcp_out_of_state");
    out_dropped(ACK | PSH, "session.tcp_out_of_state");
    out_dropped(FIN | ACK, "session.tcp_out_of_state");
    back_dropped(FIN | ACK, "session.tcp_out_of_state");
    out(SYN); /* sent again */
    back(SYN | ACK);
    back(SYN | ACK);
    out(ACK);
    state_is("tcp_established");
}

/* RFC 9293 section 3.5.1: the other side may remember another connection. */
CASE(an_old_connection_on_the_other_side) {
    start(one_way);
    out(SYN);
    back(ACK);
    out(RST);
    out(SYN);
    back(SYN | ACK);
    out(ACK);
    state_is("tcp_established");
}

CASE(ports_are_used_again_after_fin) {
    start(one_way);
    establish();
    out(FIN | ACK);
    back(FIN | ACK);
    out(ACK);
    advance(1000);
    establish();
    state_is("tcp_established");
    back(ACK | PSH);
    out(FIN | ACK);
    state_is("tcp_established");
    back(FIN | ACK);
    state_is("tcp_closing");
    sessions_are(1);
}

CASE(ports_are_used_again_after_a_reset) {
    start(one_way);
    establish();
    out(RST | ACK);
    establish();
    state_is("tcp_established");
    sessions_are(1);
    advance(20000);
    out(ACK);
    back(ACK);
}

/* What has opened it again is the last packet, and the time is that of the new state. */
CASE(ports_are_used_again_just_before_the_end) {
    start(one_way_with("'sessions': {'timeouts': {'tcp_opening': 5, 'tcp_answered': 5, "
                       "'tcp_closed': 60}}"));
    establish();
    out(RST | ACK);
    advance(20000);
    out(SYN);
    advance(3000);
    back(SYN | ACK);
    out(ACK);
    state_is("tcp_established");
    sessions_are(1);
}

CASE(the_other_side_cannot_open_after_fin) {
    start(one_way);
    establish();
    out(FIN | ACK);
    back(FIN | ACK);
    out(ACK);
    back_dropped(SYN, "session.tcp_out_of_state");
}

CASE(the_other_side_cannot_open_after_a_reset) {
    start(one_way);
    establish();
    out(RST);
    back_dropped(SYN, "session.tcp_out_of_state");
}

CASE(timeouts_of_tcp) {
    start(one_way);
    out(SYN);
    advance(235000);
    sessions_are(1);
    advance(10000);
    sessions_are(0);
    establish();
    advance(7000000);
    sessions_are(1);
    out(ACK);
    advance(7000000);
    sessions_are(1);
    back(ACK);
    advance(7450000);
    sessions_are(0);
}

/* --- the other protocols --- */

static uint32_t flow_with_packets(uint64_t packets) {
    for (uint32_t number = 2; number < 400; number += 2) {
        if (session_flows[number].packets == packets)
            return number;
    }
    require(false, "no flow");
    return 0;
}

/* Another worker has read the clock after it was turned, and the one that sweeps before. */
CASE(the_clock_turns_during_the_sweep) {
    uint32_t flow;

    start(one_way);
    for (unsigned i = 0; i < 8; i++) { /* one way only */
        passes(LAN, WAN, udp4(OUT4));
        advance(60000);
    }
    passes(LAN, WAN, udp4(OUT4));
    flow = flow_with_packets(9);
    for (unsigned i = 0; i < 60; i++) {
        session_flows[flow].last = session_clock + 2;
        advance(100);
    }
    sessions_are(1);
}

CASE(timeouts_of_udp) {
    start(one_way);
    passes(LAN, WAN, udp4(OUT4));
    state_is("udp_new");
    advance(115000);
    sessions_are(1);
    advance(10000);
    sessions_are(0);
    is_dropped(WAN, udp4(BACK4), "firewall.default");
    passes(LAN, WAN, udp4(OUT4));
    passes(WAN, LAN, udp4(BACK4));
    state_is("udp");
    advance(290000);
    passes(WAN, LAN, udp4(BACK4)); /* either side keeps it */
    advance(290000);
    passes(LAN, WAN, udp4(OUT4));
    advance(290000);
    sessions_are(1);
    advance(15000);
    sessions_are(0);
}

CASE(udp_over_ipv6) {
    start(one_way);
    is_dropped(WAN, udp6(BACK6), "firewall.default");
    passes(LAN, WAN, udp6(OUT6));
    passes(WAN, LAN, udp6(BACK6));
    passes(LAN, WAN, udp6(OUT6, .extensions = "0000010400000000", .first = 60));
    sessions_are(1);
}

CASE(configured_timeouts) {
    start(one_way_with("'sessions': {'timeouts': {'udp_new': 5, 'udp': 20, 'icmp': 3}}"));
    passes(LAN, WAN, udp4(OUT4));
    passes(LAN, WAN, icmp4_echo(.source = CLIENT, .destination = SERVER, .identifier = 1));
    sessions_are(2);
    advance(5500);
    advance(2000);
    sessions_are(0);
    passes(LAN, WAN, udp4(OUT4));
    passes(WAN, LAN, udp4(BACK4));
    advance(19000);
    sessions_are(1);
    /* A change is for those that there are, too. */
    apply(one_way_with("'sessions': {'timeouts': {'udp': 60}}"));
    advance(30000);
    sessions_are(1);
    advance(32000);
    sessions_are(0);
}

CASE(echo) {
    start(one_way);
    is_dropped(WAN, icmp4_echo_reply(.source = SERVER, .destination = CLIENT, .identifier = 7),
               "firewall.default");
    passes(LAN, WAN, icmp4_echo(.source = CLIENT, .destination = SERVER, .identifier = 7));
    passes(WAN, LAN, icmp4_echo_reply(.source = SERVER, .destination = CLIENT, .identifier = 7));
    passes(WAN, LAN, icmp4_echo_reply(.source = SERVER, .destination = CLIENT, .identifier = 7));
    is_dropped(WAN, icmp4_echo_reply(.source = SERVER, .destination = CLIENT, .identifier = 8),
               "firewall.default");
    is_dropped(WAN, icmp4_echo(.source = SERVER, .destination = CLIENT, .identifier = 7),
               "firewall.default");
    is_dropped(
        WAN,
        icmp4(.source = SERVER, .destination = CLIENT, .type = 14, .identifier = 7, .size = 12),
        "firewall.default");
    sessions_are(1);
    advance(63000);
    sessions_are(0);
}

CASE(echo_over_ipv6) {
    start(one_way);
    is_dropped(WAN, icmp6_echo_reply(.source = SERVER6, .destination = CLIENT6, .identifier = 7),
               "firewall.default");
    passes(LAN, WAN, icmp6_echo(.source = CLIENT6, .destination = SERVER6, .identifier = 7));
    passes(WAN, LAN, icmp6_echo_reply(.source = SERVER6, .destination = CLIENT6, .identifier = 7));
    is_dropped(WAN, icmp6_echo_reply(.source = SERVER6, .destination = CLIENT6, .identifier = 8),
               "firewall.default");
    is_dropped(WAN, icmp6_echo(.source = SERVER6, .destination = CLIENT6, .identifier = 7),
               "firewall.default");
}

CASE(timestamps) {
    start(one_way);
    passes(LAN, WAN,
           icmp4(.source = CLIENT, .destination = SERVER, .type = 13, .identifier = 7, .size = 12));
    passes(WAN, LAN,
           icmp4(.source = SERVER, .destination = CLIENT, .type = 14, .identifier = 7, .size = 12));
    is_dropped(WAN, icmp4_echo_reply(.source = SERVER, .destination = CLIENT, .identifier = 7),
               "firewall.default");
}

/* Answers come in by another VRF than the one the first packet came in by. */
static const char *const leaked =
    "{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
    "'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'vrf': 'blue'},"
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "], 'routes': [" DEFAULT_ROUTES ","
    "{'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via': '198.51.100.2', 'interface': 'wan'},"
    "{'prefix': '::/0', 'vrf': 'blue', 'via': '2001:db8:2::2', 'interface': 'wan'}],"
    "'firewall': {'default': 'drop', 'rules': [{'name': 'out', 'in': 'lan',"
    "'action': 'accept'}]}," UNLIMITED "}";

CASE(sessions_over_a_leaked_route) {
    struct frame *udp = udp6(OUT6, .hop_limit = 63);

    start(leaked);
    for (unsigned i = 0; i < 3; i++) {
        passes(LAN, WAN, udp4(OUT4));
        passes(WAN, LAN, udp4(BACK4));
        passes(LAN, WAN, udp6(OUT6));
        passes(WAN, LAN, udp6(BACK6));
        passes(WAN, LAN,
               icmp6_error(.source = "2001:db8:2::2", .destination = CLIENT6, .type = TOO_BIG6,
                           .rest = 1400, .about = udp));
        sessions_are(2);
    }
}

/* The first fragment says by which session they go, whichever comes first. */
CASE(fragments_of_errors_over_a_leaked_route) {
    struct frame *about = udp4(OUT4, .size = 400, .ttl = 63);
    struct frame *error = icmp4_error(.source = SERVER, .destination = CLIENT, .type = UNREACHABLE,
                                      .code = PORT_UNREACHABLE, .about = about, .quote = 300);

    start(leaked);
    passes(LAN, WAN, udp4(OUT4));
    passes(WAN, LAN, fragment4(error, 0, 160));
    passes(WAN, LAN, fragment4(error, 160, 200));
    error = patch(error, IP + 4, "0777");
    inject(WAN, fragment4(error, 160, 200));
    expect_nothing(ANYWHERE);
    inject(WAN, fragment4(error, 0, 160));
    expect(LAN, hop(fragment4(error, 0, 160)));
    expect(LAN, hop(fragment4(error, 160, 200)));
}

CASE(protocols_without_ports) {
    static const uint8_t protocols[] = {47, 50, 51, 4, 89, 112};

    start(one_way);
    for (unsigned i = 0; i < sizeof(protocols); i++) {
        unsigned p = protocols[i];

        is_dropped(WAN, ip4(.source = SERVER, .destination = CLIENT, .protocol = p, .size = 40),
                   "firewall.default");
        passes(LAN, WAN, ip4(.source = CLIENT, .destination = SERVER, .protocol = p, .size = 40));
        passes(WAN, LAN, ip4(.source = SERVER, .destination = CLIENT, .protocol = p, .size = 40));
        is_dropped(WAN,
                   ip4(.source = "203.0.113.2", .destination = CLIENT, .protocol = p, .size = 40),
                   "firewall.default");
    }
    sessions_are(sizeof(protocols));
    passes(LAN, WAN, ip6(.source = CLIENT6, .destination = SERVER6, .protocol = 47, .size = 40));
    passes(WAN, LAN, ip6(.source = SERVER6, .destination = CLIENT6, .protocol = 47, .size = 40));
    passes(LAN, WAN, ip6(.source = CLIENT6, .destination = SERVER6, .protocol = 50, .size = 40));
    passes(WAN, LAN, ip6(.source = SERVER6, .destination = CLIENT6, .protocol = 50, .size = 40));
}

CASE(headers_that_are_cut_off) {
    start(both_ways);
    for (unsigned size = 1; size < 20; size++)
        is_dropped(LAN, ip4(.source = CLIENT, .destination = SERVER, .protocol = 6, .size = size),
                   "session.truncated");
    for (unsigned size = 1; size < 8; size++) {
        is_dropped(LAN, ip4(.source = CLIENT, .destination = SERVER, .protocol = 17, .size = size),
                   "session.truncated");
        is_dropped(LAN, ip4(.source = CLIENT, .destination = SERVER, .protocol = 1, .size = size),
                   "session.truncated");
        is_dropped(LAN,
                   ip6(.source = CLIENT6, .destination = SERVER6, .protocol = 17, .size = size),
                   "session.truncated");
    }
    is_dropped(LAN,
               patch(ip6(.source = CLIENT6, .destination = SERVER6, .protocol = 58, .size = 7),
                     IP6_PAYLOAD, "80"),
               "session.truncated");
    sessions_are(0);
}

/* --- ICMP errors --- */

CASE(errors_about_packets_of_a_session) {
    struct frame *udp = udp4(OUT4, .ttl = 63), *answer = udp4(BACK4, .ttl = 63);
    struct frame *error =
        icmp4_error(.source = "198.51.100.9", .destination = CLIENT, .type = UNREACHABLE,
                    .code = TOO_BIG, .rest = 1400, .about = udp);

    start(one_way);
    is_dropped(WAN, error, "firewall.default");
    passes(LAN, WAN, udp4(OUT4));
    passes(WAN, LAN, error);
    passes(WAN, LAN,
           icmp4_error(.source = SERVER, .destination = CLIENT, .type = UNREACHABLE,
                       .code = PORT_UNREACHABLE, .about = udp, .quote = 28));
    passes(LAN, WAN,
           icmp4_error(.source = CLIENT, .destination = SERVER, .type = UNREACHABLE,
                       .code = PORT_UNREACHABLE, .about = answer));
    /* About a packet that goes the other way than the error would. */
    is_dropped(WAN,
               icmp4_error(.source = SERVER, .destination = CLIENT, .type = UNREACHABLE,
                           .code = PORT_UNREACHABLE, .about = answer),
               "session.icmp_quote");
    is_dropped(WAN,
               icmp4_error(.source = SERVER, .destination = CLIENT, .type = UNREACHABLE,
                           .code = PORT_UNREACHABLE,
                           .about = udp4(.source = CLIENT ":5001", .destination = SERVER ":80")),
               "firewall.default");
    /* To somebody else. */
    is_dropped(WAN,
               icmp4_error(.source = SERVER, .destination = "192.168.1.11", .type = UNREACHABLE,
                           .code = PORT_UNREACHABLE, .about = udp),
               "session.icmp_quote");
    sessions_are(1);
}

CASE(errors_about_packets_of_a_session_over_ipv6) {
    struct frame *udp = udp6(OUT6, .hop_limit = 63);

    start(one_way);
    is_dropped(WAN,
               icmp6_error(.source = "2001:db8:2::2", .destination = CLIENT6, .type = TOO_BIG6,
                           .rest = 1400, .about = udp),
               "firewall.default");
    passes(LAN, WAN, udp6(OUT6));
    passes(WAN, LAN,
           icmp6_error(.source = "2001:db8:2::2", .destination = CLIENT6, .type = TOO_BIG6,
                       .rest = 1400, .about = udp));
    passes(WAN, LAN,
           icmp6_error(.source = SERVER6, .destination = CLIENT6, .type = UNREACHABLE6, .code = 4,
                       .about = udp));
    passes(LAN, WAN, icmp6_echo(.source = CLIENT6, .destination = SERVER6, .identifier = 7));
    passes(WAN, LAN,
           icmp6_error(.source = "2001:db8:2::2", .destination = CLIENT6, .type = 3,
                       .about = icmp6_echo(.source = CLIENT6, .destination = SERVER6,
                                           .identifier = 7, .hop_limit = 1)));
    is_dropped(WAN,
               icmp6_error(.source = SERVER6, .destination = "2001:db8:1::11", .type = UNREACHABLE6,
                           .code = 4, .about = udp),
               "session.icmp_quote");
}

CASE(errors_about_echo_and_tcp) {
    start(one_way);
    out(SYN);
    passes(LAN, WAN, icmp4_echo(.source = CLIENT, .destination = SERVER, .identifier = 7));
    passes(WAN, LAN,
           icmp4_error(.source = "198.51.100.9", .destination = CLIENT, .type = TIME_EXCEEDED,
                       .about = tcp4(OUT4, .tcp_flags = SYN, .ttl = 1), .quote = 28));
    passes(WAN, LAN,
           icmp4_error(.source = "198.51.100.9", .destination = CLIENT, .type = TIME_EXCEEDED,
                       .about = icmp4_echo(.source = CLIENT, .destination = SERVER, .identifier = 7,
                                           .ttl = 1)));
    state_is("tcp_opening");
}

CASE(errors_that_quote_garbage) {
    struct frame *udp = udp4(OUT4, .ttl = 63), *quoted;

    start(both_ways);
    passes(LAN, WAN, udp4(OUT4));
    for (unsigned quote = 1; quote < 28; quote++)
        is_dropped(WAN,
                   icmp4_error(.source = SERVER, .destination = CLIENT, .type = UNREACHABLE,
                               .code = PORT_UNREACHABLE, .about = udp, .quote = quote),
                   "session.icmp_quote");
    quoted = poke(udp, IP, "65");
    is_dropped(WAN,
               icmp4_error(.source = SERVER, .destination = CLIENT, .type = UNREACHABLE,
                           .code = PORT_UNREACHABLE, .about = quoted),
               "session.icmp_quote");
    quoted = poke(udp, IP, "44");
    is_dropped(WAN,
               icmp4_error(.source = SERVER, .destination = CLIENT, .type = UNREACHABLE,
                           .code = PORT_UNREACHABLE, .about = quoted),
               "session.icmp_quote");
    quoted = poke(udp, IP, "4f"); /* more header than there is */
    is_dropped(WAN,
               icmp4_error(.source = SERVER, .destination = CLIENT, .type = UNREACHABLE,
                           .code = PORT_UNREACHABLE, .about = quoted),
               "session.icmp_quote");
    for (unsigned quote = 1; quote < 48; quote += 3)
        is_dropped(WAN,
                   icmp6_error(.source = SERVER6, .destination = CLIENT6, .type = UNREACHABLE6,
                               .code = 4, .about = udp6(OUT6), .quote = quote),
                   "session.icmp_quote");
}

CASE(errors_with_a_wrong_checksum) {
    struct frame *error = icmp4_error(.source = SERVER, .destination = CLIENT, .type = UNREACHABLE,
                                      .code = PORT_UNREACHABLE, .about = udp4(OUT4, .ttl = 63));
    struct frame *error6 = icmp6_error(.source = SERVER6, .destination = CLIENT6,
                                       .type = UNREACHABLE6, .code = 4, .about = udp6(OUT6));

    start(one_way);
    passes(LAN, WAN, udp4(OUT4));
    passes(LAN, WAN, udp6(OUT6));
    for (unsigned bit = 0; bit < 16; bit++) {
        struct frame *bad = copy(error), *bad6 = copy(error6);

        bad->bytes[IP4_PAYLOAD + 2 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        is_dropped(WAN, bad, "session.icmp_checksum");
        bad6->bytes[IP6_PAYLOAD + 2 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        is_dropped(WAN, bad6, "session.icmp_checksum");
    }
    passes(WAN, LAN, error);
    passes(WAN, LAN, error6);
    for (unsigned first = IP4_PAYLOAD + 8 + 28; first < error->length; first++) {
        inject_split(WAN, error, first);
        expect(LAN, hop(error));
    }
}

/* --- fragments --- */

#define BIG4 udp4(OUT4, .size = 3000, .id = 7)

CASE(fragments_follow_their_first) {
    struct frame *whole = BIG4;

    start(one_way);
    for (unsigned at = 0; at < 3008; at += 1000)
        passes(LAN, WAN, fragment4(whole, at, 1000));
    sessions_are(1);
    answer_contains(rpc("session.list", "{}"), "'forward':{'packets':4,");
    /* The answer's as well. */
    whole = udp4(BACK4, .size = 3000, .id = 9);
    for (unsigned at = 0; at < 3008; at += 1000)
        passes(WAN, LAN, fragment4(whole, at, 1000));
}

CASE(fragments_wait_for_their_first) {
    struct frame *whole = BIG4;

    start(one_way);
    inject(LAN, fragment4(whole, 3000, 1000));
    inject(LAN, fragment4(whole, 1000, 1000));
    expect_nothing(ANYWHERE);
    sessions_are(0);
    inject(LAN, fragment4(whole, 0, 1000));
    expect(WAN, hop(fragment4(whole, 0, 1000)));
    expect(WAN, hop(fragment4(whole, 3000, 1000)));
    expect(WAN, hop(fragment4(whole, 1000, 1000)));
    passes(LAN, WAN, fragment4(whole, 2000, 1000));
}

/* The fragment header says more fragments, offset in units of eight, and identification. */
static struct frame *fragment6(unsigned offset, bool more, unsigned size, bool back) {
    return ip6(.source = back ? SERVER6 : CLIENT6, .destination = back ? CLIENT6 : SERVER6,
               .first = 44, .extensions = text("0000%04x00000077", offset | more), .protocol = 17,
               .size = size);
}

static struct frame *first6(unsigned size, bool back) {
    struct frame *frame = fragment6(0, true, size, back);

    return poke(frame, IP6_PAYLOAD + 8, back ? "0050138801000000" : "1388005001000000");
}

CASE(fragments_over_ipv6) {
    start(one_way);
    is_dropped(WAN, first6(160, true), "firewall.default");
    advance(60000);
    passes(LAN, WAN, first6(160, false));
    passes(LAN, WAN, fragment6(160, true, 80, false));
    passes(LAN, WAN, fragment6(240, false, 33, false));
    inject(WAN, fragment6(240, false, 33, true));
    inject(WAN, fragment6(160, true, 80, true));
    expect_nothing(ANYWHERE);
    inject(WAN, first6(160, true));
    expect(LAN, hop(first6(160, true)));
    expect(LAN, hop(fragment6(240, false, 33, true)));
    expect(LAN, hop(fragment6(160, true, 80, true)));
    sessions_are(1);
}

CASE(fragments_whose_first_never_comes) {
    struct frame *whole = BIG4;

    start(one_way);
    inject(LAN, fragment4(whole, 1000, 1000));
    inject(LAN, fragment4(whole, 2000, 1000));
    inject(WAN, fragment6(160, true, 80, true));
    advance(1500);
    expect_nothing(ANYWHERE);
    expect_no_drops();
    advance(60000);
    expect_nothing(ANYWHERE);
    expect_drop("session.fragment_timeout", 3);
}

/* RFC 1858 section 3, RFC 7112. */
CASE(a_tiny_first_fragment) {
    struct frame *whole = tcp4(OUT4, .tcp_flags = SYN, .size = 100, .id = 7);

    start(both_ways);
    is_dropped(LAN, fragment4(whole, 0, 8), "session.fragment_tiny");
    is_dropped(LAN, fragment4(whole, 0, 16), "session.fragment_tiny");
    passes(LAN, WAN, fragment4(whole, 0, 24));
}

CASE(fragments_that_overwrite_the_first) {
    struct frame *whole = BIG4;

    start(both_ways);
    inject(LAN, fragment4(whole, 992, 1000)); /* waits, but that does not help */
    inject(LAN, fragment4(whole, 2000, 1000));
    inject(LAN, fragment4(whole, 0, 1000));
    expect(WAN, hop(fragment4(whole, 0, 1000)));
    expect(WAN, hop(fragment4(whole, 2000, 1000)));
    expect_nothing(ANYWHERE);
    expect_drop("session.fragment_overlap", 1);
    is_dropped(LAN, fragment4(whole, 8, 1000), "session.fragment_overlap");
    is_dropped(LAN, fragment4(whole, 992, 8), "session.fragment_overlap");
    passes(LAN, WAN, fragment4(whole, 1000, 1000));
}

CASE(fragments_of_a_refused_packet) {
    struct frame *whole = udp4(BACK4, .size = 3000, .id = 7);

    start(one_way);
    inject(WAN, fragment4(whole, 2000, 1000));
    inject(WAN, fragment4(whole, 0, 1000));
    expect_nothing(ANYWHERE);
    expect_drops({"firewall.default", 1}, {"session.fragment_refused", 1});
    is_dropped(WAN, fragment4(whole, 1000, 1000), "session.fragment_refused");
}

CASE(fragments_of_a_stateless_rule) {
    struct frame *whole = BIG4;

    start(WITH("'firewall': {'default': 'drop', 'rules': [{'name': 'all', 'action': 'accept',"
               "'stateless': true}]}"));
    passes(LAN, WAN, fragment4(whole, 0, 1000));
    passes(LAN, WAN, fragment4(whole, 1000, 1000));
    passes(LAN, WAN, fragment4(whole, 2000, 2000));
    sessions_are(0);
}

CASE(fragments_of_another_packet) {
    struct frame *whole = BIG4, *other = udp4(OUT4, .size = 3000, .id = 8);

    start(one_way);
    passes(LAN, WAN, fragment4(whole, 0, 1000));
    inject(LAN, fragment4(other, 1000, 1000));
    expect_nothing(ANYWHERE);
    passes(LAN, WAN, fragment4(whole, 1000, 1000));
    advance(60000);
    expect_drop("session.fragment_timeout", 1);
    /* The first one is forgotten by now. */
    inject(LAN, fragment4(whole, 2000, 1000));
    advance(60000);
    expect_nothing(ANYWHERE);
    expect_drop("session.fragment_timeout", 1);
}

CASE(a_flood_of_fragments) {
    start(one_way);
    for (unsigned id = 0; id < 1000; id++) {
        inject(WAN, fragment4(udp4(BACK4, .size = 3000, .id = id), 1000, 8));
        if (id % 100 == 99) {
            turn();
            frames_free();
        }
    }
    expect_nothing(ANYWHERE);
    require(drops_so_far("session.fragment_table_full") >= 1000 - 512, "too many are held");
    forget_drops();
    advance(60000);
    forget_drops();
    passes(LAN, WAN, fragment4(BIG4, 0, 1000));
    passes(LAN, WAN, fragment4(BIG4, 1000, 1000));
}

CASE(waiting_fragments_go_with_the_sessions) {
    start(one_way);
    inject(LAN, fragment4(BIG4, 1000, 1000));
    expect_nothing(ANYWHERE);
    /* The harness counts buffers at the end. */
}

/* --- limits --- */

#define SMALL "'sessions': {'size': 1024}"

static const char *client(unsigned n) {
    return text("%u.%u.%u.%u:%u", 192, 168, 1, 2 + n % 250, 2000 + n / 250);
}

CASE(the_oldest_half_open_sessions_go_first) {
    start(one_way_with(SMALL));
    establish();
    for (unsigned n = 0; n < 5000; n++) {
        inject(LAN, tcp4(.source = client(n), .destination = SERVER ":80", .tcp_flags = SYN));
        if (n % 32 == 31) {
            turn();
            discard(ANYWHERE);
            frames_free();
        }
    }
    discard(ANYWHERE);
    forget_drops();
    out(ACK);
    back(ACK);
    require(strstr(rpc("session.count", "{}"), "'evicted':0") == NULL, "nothing was evicted");
    /* The newest one is there, the oldest is not. */
    inject(WAN, tcp4(.source = SERVER ":80", .destination = client(2), .tcp_flags = SYN | ACK));
    expect_nothing(ANYWHERE);
    expect_drop("firewall.default", 1);
    passes(LAN, WAN, tcp4(.source = CLIENT ":6000", .destination = SERVER ":80", .tcp_flags = SYN));
    passes(WAN, LAN,
           tcp4(.source = SERVER ":80", .destination = CLIENT ":6000", .tcp_flags = SYN | ACK));
}

CASE(a_table_full_of_established_sessions) {
    unsigned opened = 0;

    start(one_way_with(SMALL));
    for (unsigned n = 0; n < 1500; n++) {
        const char *source = text(CLIENT ":%u", 2000 + n);

        inject(LAN, udp4(.source = source, .destination = SERVER ":53"));
        if (discard(WAN) == 1) {
            inject(WAN, udp4(.source = SERVER ":53", .destination = source));
            opened += discard(LAN);
        }
        if (n % 32 == 31)
            frames_free();
    }
    require(opened >= 960 && opened <= 1024, "%u of 1024 sessions were opened", opened);
    require(drops_so_far("session.table_full") == 1500 - opened, "%lu were refused for that",
            drops_so_far("session.table_full"));
    forget_drops();
    sessions_are(opened);
    advance(310000);
    sessions_are(0);
    for (unsigned n = 0; n < 900; n++) { /* all can be used again */
        inject(LAN, udp4(.source = text(CLIENT ":%u", 2000 + n), .destination = SERVER ":53"));
        require(discard(WAN) == 1, "number %u is refused", n);
        if (n % 32 == 31)
            frames_free();
    }
}

CASE(sessions_per_source) {
    start(one_way_with("'sessions': {'limits': {'per_source': 5}, 'timeouts': {'udp_new': 5}}"));
    for (unsigned n = 0; n < 5; n++)
        passes(LAN, WAN, udp4(.source = text(CLIENT ":%u", 5000 + n), .destination = SERVER ":53"));
    is_dropped(LAN, udp4(.source = CLIENT ":5005", .destination = SERVER ":53"),
               "session.source_limit");
    passes(LAN, WAN, udp4(.source = CLIENT ":5000", .destination = SERVER ":53"));
    passes(LAN, WAN, udp4(.source = "192.168.1.11:5005", .destination = SERVER ":53"));
    for (unsigned n = 0; n < 5; n++)
        passes(
            LAN, WAN,
            udp6(.source = text("[" CLIENT6 "]:%u", 5000 + n), .destination = "[" SERVER6 "]:53"));
    is_dropped(LAN, udp6(.source = "[" CLIENT6 "]:5005", .destination = "[" SERVER6 "]:53"),
               "session.source_limit");
    advance(8000);
    for (unsigned n = 0; n < 5; n++)
        passes(LAN, WAN, udp4(.source = text(CLIENT ":%u", 6000 + n), .destination = SERVER ":53"));
    is_dropped(LAN, udp4(.source = CLIENT ":5005", .destination = SERVER ":53"),
               "session.source_limit");
}

CASE(new_sessions_per_second_and_source) {
    start(one_way_with("'sessions': {'limits': {'new_per_second_per_source': 10}}"));
    for (unsigned second = 0; second < 3; second++) {
        unsigned passed = 0;

        for (unsigned n = 0; n < 50; n++) {
            inject(LAN, udp4(.source = text(CLIENT ":%u", 5000 + second * 100 + n),
                             .destination = SERVER ":53"));
            passed += discard(WAN);
        }
        /* A second may have begun in between. */
        require(passed == 10 || passed == 20, "%u passed", passed);
        expect_drop("session.source_rate", 50 - passed);
        passes(LAN, WAN,
               udp4(.source = text("192.168.1.11:%u", 5000 + second), .destination = SERVER ":53"));
        advance(1000);
    }
}

/* --- looking at sessions --- */

static unsigned occurrences(const char *answer, const char *part) {
    unsigned count = 0;

    for (; (answer = strstr(answer, part)) != NULL; answer++)
        count++;
    return count;
}

CASE(lists_and_filters) {
    start(both_ways);
    establish();
    passes(LAN, WAN, udp4(.source = CLIENT ":5000", .destination = SERVER ":53"));
    passes(LAN, DMZ, udp4(.source = "192.168.1.11:5001", .destination = "10.3.0.10:53"));
    passes(LAN, WAN, udp6(OUT6));
    inject(WAN, icmp4_echo(.source = SERVER, .destination = "198.51.100.1", .identifier = 9));
    discard(WAN);

    static const struct {
        const char *filter;
        unsigned found;
    } filters[] = {
        {"{}", 5},
        {"{'protocol': 'tcp'}", 1},
        {"{'protocol': 17}", 3},
        {"{'protocol': 'icmp'}", 1},
        {"{'state': 'tcp_established'}", 1},
        {"{'state': 'udp_new'}", 3},
        {"{'address': '192.168.1.10'}", 2},
        {"{'address': '192.168.1.0/24'}", 3},
        {"{'address': '2001:db8:99::/48'}", 1},
        {"{'address': '10.3.0.11'}", 0},
        {"{'port': 53}", 2},
        {"{'port': 5000, 'protocol': 'udp'}", 2},
        {"{'interface': 'dmz'}", 1},
        {"{'interface': 'lan'}", 4},
        {"{'vrf': 'default'}", 5},
    };

    for (unsigned i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        const char *answer = rpc("session.list", filters[i].filter);

        require(occurrences(answer, "'id':") == filters[i].found, "%s found %s", filters[i].filter,
                answer);
    }

    const char *one = rpc("session.list", "{'protocol': 'tcp'}");

    answer_contains(one, "'source':{'address':'192.168.1.10','port':5000}");
    answer_contains(one, "'destination':{'address':'203.0.113.1','port':80}");
    answer_contains(one, "'in':'lan'");
    answer_contains(one, "'out':'wan'");
    answer_contains(one, "'family':'ipv4'");
    answer_contains(one, "'forward':{'packets':2,'bytes':94}");
    answer_contains(one, "'backward':{'packets':1,'bytes':47}");
    answer_contains(rpc("session.list", "{'protocol': 'icmp'}"), "'out':'router'");
    answer_contains(rpc("session.count", "{}"), "'tcp_established':1");
    answer_contains(rpc("session.count", "{}"), "'opened':5");
}

CASE(lists_come_in_pages) {
    const char *cursor = "0";
    unsigned found = 0, pages = 0;

    start(one_way);
    for (unsigned n = 0; n < 95; n++)
        inject(LAN, udp4(.source = text(CLIENT ":%u", 5000 + n), .destination = SERVER ":53"));
    require(discard(WAN) == 95, "some were lost");
    do {
        const char *answer = rpc("session.list", text("{'limit': 10, 'cursor': %s}", cursor));
        const char *next = strstr(answer, "'cursor':");

        found += occurrences(answer, "'id':");
        require(occurrences(answer, "'id':") <= 10, "more than a page");
        cursor = text("%.*s", (int)strcspn(next + 9, "},"), next + 9);
        pages++;
    } while (strcmp(cursor, "null") != 0 && pages < 50);
    require(found == 95 && pages == 10, "%u on %u pages", found, pages);
}

CASE(sessions_are_flushed) {
    start(one_way);
    establish();
    passes(LAN, WAN, udp4(OUT4));
    passes(LAN, WAN, udp6(OUT6));
    answer_contains(rpc("session.flush", "{'protocol': 'tcp'}"), "'ended':1");
    out_dropped(ACK, "session.tcp_no_session");
    passes(WAN, LAN, udp4(BACK4));
    answer_contains(rpc("session.flush", "{}"), "'ended':2");
    is_dropped(WAN, udp4(BACK4), "firewall.default");
    is_dropped(WAN, udp6(BACK6), "firewall.default");
    advance(3000);
    sessions_are(0);
    answer_contains(rpc("session.count", "{}"), "'ended':3");
    establish();
}

/* --- reloads --- */

CASE(sessions_survive_a_reload) {
    start(one_way);
    establish();
    passes(LAN, WAN, udp4(OUT4));
    passes(LAN, WAN, udp6(OUT6));
    for (unsigned i = 0; i < 5; i++) {
        apply(i % 2 ? one_way
                    : WITH("'firewall': {'default': 'drop', 'rules': ["
                           "{'name': 'some', 'in': 'lan', 'protocol': ['tcp', 'udp'],"
                           "'action': 'accept'}]}, 'nat': {}"));
        advance(3000);
        out(ACK);
        back(ACK | PSH);
        passes(WAN, LAN, udp4(BACK4));
        passes(WAN, LAN, udp6(BACK6));
        sessions_are(3);
    }
    forget_drops();
}

CASE(without_firewall_and_nat_there_are_no_sessions) {
    start(one_way);
    establish();
    passes(LAN, WAN, udp4(OUT4));
    apply(standard);
    advance(3000);
    answer_contains(rpc("session.count", "{}"), "'sessions':0,'size':0");
    back(ACK);
    passes(WAN, LAN, udp4(.source = SERVER ":1", .destination = CLIENT ":2"));
    apply(one_way);
    advance(3000);
    sessions_are(0);
    back_dropped(ACK, "firewall.default");
    establish();
}

CASE(the_table_comes_and_goes) {
    start(one_way);
    for (unsigned i = 0; i < 20; i++) {
        passes(LAN, WAN, udp4(OUT4));
        inject(LAN, fragment4(udp4(OUT4, .size = 3000, .id = i), 1000, 1000));
        turn();
        apply(standard);
        passes(WAN, LAN, udp4(BACK4));
        apply(one_way);
        turn();
    }
    discard(ANYWHERE);
    forget_drops();
}

/* --- at random --- */

CASE(random_bytes_do_no_harm) {
    uint32_t state = 1;

    start(both_ways);
    for (unsigned n = 0; n < 20000; n++) {
        static const uint8_t protocols[] = {1, 6, 17, 47, 58, 132, 33, 136};
        unsigned size = 1 + state % 100;
        struct frame *frame = state & 64 ? ip4(.source = CLIENT, .destination = SERVER,
                                               .size = size, .protocol = protocols[n % 8],
                                               .fragment = state & 128 ? state >> 8 & 0x203f : 0)
                                         : ip6(.source = CLIENT6, .destination = SERVER6,
                                               .size = size, .protocol = protocols[n % 8]);

        for (unsigned at = state & 64 ? IP4_PAYLOAD : IP6_PAYLOAD; at < frame->length; at++) {
            state = state * 1664525 + 1013904223;
            frame->bytes[at] = (uint8_t)(state >> 24) & (at % 3 ? 0xff : 0x0f);
        }
        state = state * 1664525 + 1013904223;
        inject(n % 2 ? LAN : WAN, frame);
        if (n % 64 == 63) {
            discard(ANYWHERE);
            frames_free();
        }
        if (n % 1000 == 0)
            advance(10000);
    }
    discard(ANYWHERE);
    rpc("session.flush", "{}");
    advance(60000);
    discard(ANYWHERE);
    forget_drops();
    sessions_are(0);
}

/* --- what others may try --- */

CASE(pings_that_nobody_answers_make_room) {
    start(one_way_with(SMALL));
    for (unsigned n = 0; n < 3000; n++) {
        inject(LAN, icmp4_echo(.source = CLIENT, .destination = SERVER, .identifier = n));
        if (n % 32 == 31) {
            discard(ANYWHERE);
            frames_free();
        }
    }
    discard(ANYWHERE);
    forget_drops();
    require(strstr(rpc("session.count", "{}"), "'evicted':0") == NULL, "nothing was evicted");
    establish();
}

CASE(a_forged_reset_does_not_end_a_connection) {
    start(one_way);
    establish();
    back(RST);
    state_is("tcp_closed");
    advance(3000);
    out(ACK | PSH); /* from the side that is to believe it: says nothing */
    state_is("tcp_closed");
    back(ACK | PSH);
    state_is("tcp_established");
    advance(20000);
    sessions_are(1);
    out(ACK);
}

CASE(forged_resets_again_and_again) {
    start(one_way);
    establish();
    for (unsigned i = 0; i < 100; i++) {
        if (i % 2)
            back(RST);
        else
            out(RST | ACK);
        out(ACK | PSH);
        back(ACK | PSH);
        advance(500);
    }
    advance(1000);
    out(ACK);
    back(ACK);
    state_is("tcp_established");
    sessions_are(1);
}

/* Whoever has sent it is not there any more; what the other side has under way says nothing. */
CASE(a_genuine_reset_ends_a_connection) {
    start(one_way);
    establish();
    back(RST | ACK);
    for (unsigned i = 0; i < 8; i++) {
        out(ACK | PSH);
        back(RST);
        state_is("tcp_closed");
        advance(1000);
    }
    advance(5000);
    sessions_are(0);
}

/* Segments that were sent before the RST, and the answers to them, come a moment behind it. */
CASE(a_reset_that_overtakes_others_ends_a_connection) {
    start(one_way);
    establish();
    back(ACK | PSH);
    back(RST | ACK);
    for (unsigned i = 0; i < 4; i++) {
        back(ACK | PSH);
        out(ACK);
        back(FIN | ACK);
        advance(200);
    }
    state_is("tcp_closed");
    advance(13000);
    sessions_are(0);
    out_dropped(ACK, "session.tcp_no_session");
}

/* For longer than a closed session lives. */
static void data_goes_both_ways(void) {
    for (unsigned i = 0; i < 15; i++) {
        out(ACK | PSH);
        back(ACK | PSH);
        advance(1000);
    }
    state_is("tcp_established");
}

/* RFC 9293 section 3.5, figure 8: the first side resets what an old SYN of its own has begun. */
CASE(an_old_syn_comes_before_the_real_one) {
    start(one_way);
    out(SYN);
    out(SYN);
    back(SYN | ACK);
    out(RST);
    state_is("tcp_closed");
    back(SYN | ACK);
    state_is("tcp_answered");
    out(ACK);
    data_goes_both_ways();
}

CASE(a_forged_reset_does_not_refuse_a_connection) {
    start(one_way);
    out(SYN);
    back(RST | ACK);
    back(SYN | ACK);
    out(ACK);
    data_goes_both_ways();
}

CASE(a_forged_reset_after_the_answer) {
    start(one_way);
    out(SYN);
    back(SYN | ACK);
    back(RST);
    out(ACK);
    data_goes_both_ways();
    rpc("session.flush", "{}");
    out(SYN);
    back(SYN | ACK);
    out(RST);
    out(ACK);
    data_goes_both_ways();
}

CASE(a_forged_reset_after_fin) {
    start(one_way);
    establish();
    out(FIN | ACK);
    back(FIN | ACK);
    back(RST);
    state_is("tcp_closed");
    advance(3000);
    back(ACK);
    state_is("tcp_closing");
}

/* Nobody can go on with what was refused. */
CASE(a_refused_connection_stays_closed) {
    start(one_way);
    out(SYN);
    back(RST | ACK);
    for (unsigned i = 0; i < 5; i++) {
        advance(2000);
        back(ACK);
        out(ACK);
        state_is("tcp_closed");
    }
    advance(3000);
    sessions_are(0);
}

CASE(a_scan_leaves_nothing) {
    start(one_way);
    out(SYN);
    back(SYN | ACK);
    out(RST);
    advance(1000);
    back(SYN | ACK); /* sent again: the RST is lost behind the router */
    state_is("tcp_answered");
    out(RST);
    state_is("tcp_closed");
    advance(13000);
    sessions_are(0);
}

/* Where sources are checked, a forged packet changes no session on its way to being dropped. */
static const char *const strict_dmz =
    "{'interfaces': {"
    "'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
    "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES ", 'reverse_path': 'strict'}},"
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
    "'routes': [" DEFAULT_ROUTES "]," ONE_WAY "," UNLIMITED "}";

#define forged(flags) is_dropped(DMZ, tcp4(BACK4, .tcp_flags = (flags)), "route.reverse_path")

CASE(a_forged_source_changes_no_connection) {
    start(strict_dmz);
    out(SYN);
    forged(SYN | ACK);
    state_is("tcp_opening");
    forged(RST | ACK);
    state_is("tcp_opening");
    back(SYN | ACK);
    forged(FIN | ACK);
    state_is("tcp_answered");
    out(ACK);
    forged(RST);
    state_is("tcp_established");
    out(FIN | ACK);
    forged(FIN | ACK);
    state_is("tcp_established");
    is_dropped(DMZ, tcp4(OUT4, .tcp_flags = SYN), "route.reverse_path");
    answer_contains(rpc("session.list", "{}"), "'backward':{'packets':1,");
}

CASE(a_forged_source_answers_nothing) {
    start(strict_dmz);
    passes(LAN, WAN, udp4(OUT4));
    passes(LAN, WAN, udp6(OUT6));
    is_dropped(DMZ, udp4(BACK4), "route.reverse_path");
    is_dropped(DMZ, udp6(BACK6), "route.reverse_path");
    answer_contains(rpc("session.count", "{}"), "'udp_new':2,");
    is_dropped(DMZ, udp4(OUT4, .id = 3), "route.reverse_path");
    is_dropped(DMZ, udp4(.source = CLIENT ":5001", .destination = SERVER ":80"),
               "route.reverse_path");
    sessions_are(2);
}

CASE(a_forged_first_fragment_leads_no_others) {
    struct frame *whole = udp4(OUT4, .size = 3000, .id = 7);
    struct frame *other =
        udp4(.source = CLIENT ":5001", .destination = SERVER ":80", .size = 3000, .id = 7);

    start(strict_dmz);
    passes(LAN, WAN, udp4(OUT4));
    is_dropped(DMZ, fragment4(whole, 0, 1000), "route.reverse_path");
    is_dropped(DMZ, fragment4(whole, 1000, 1000), "route.reverse_path");
    inject(LAN, fragment4(other, 2000, 1000));
    expect_nothing(ANYWHERE);
    passes(LAN, WAN, udp4(OUT4));
    answer_contains(rpc("session.list", "{}"), "'forward':{'packets':2,");
}

CASE(a_network_of_64_bits_is_one_source) {
    start(one_way_with("'sessions': {'limits': {'per_source': 5}}"));
    for (unsigned n = 0; n < 5; n++)
        passes(LAN, WAN,
               udp6(.source = text("[2001:db8:1::%x]:5000", 0x10 + n),
                    .destination = "[" SERVER6 "]:53"));
    is_dropped(LAN, udp6(.source = "[2001:db8:1::99]:5000", .destination = "[" SERVER6 "]:53"),
               "session.source_limit");
}

/* Ports that are not in the first buffer are not looked for. */
CASE(a_transport_header_in_two_buffers) {
    start(one_way);
    inject_split(LAN, udp4(.source = CLIENT ":5000", .destination = SERVER ":53"), IP + 24);
    expect_nothing(ANYWHERE);
    expect_drop("session.split_header", 1);
    inject_split(LAN, udp4(.source = CLIENT ":5000", .destination = SERVER ":53", .size = 100),
                 IP + 28);
    expect(WAN,
           udp4(.source = CLIENT ":5000", .destination = SERVER ":53", .size = 100, .ttl = 63));
}

HARNESS_MAIN()
