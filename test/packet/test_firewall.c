/* The firewall's rules on packets: what matches, what happens to it, what is counted. */
#include <stdio.h>

#include "harness.h"

#define CLIENT "192.168.1.10"
#define SERVER "203.0.113.1"
#define CLIENT6 "2001:db8:1::10"
#define SERVER6 "2001:db8:99::1"
#define OUT4 .source = CLIENT ":5000", .destination = SERVER ":80"
#define BACK4 .source = SERVER ":80", .destination = CLIENT ":5000"
#define OUT6 .source = "[" CLIENT6 "]:5000", .destination = "[" SERVER6 "]:80"
#define BACK6 .source = "[" SERVER6 "]:80", .destination = "[" CLIENT6 "]:5000"

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10 };
enum { UNREACHABLE = 3, PROHIBITED = 13, UNREACHABLE6 = 1, PROHIBITED6 = 1 };

#define WITH(sections)                                                          \
    "{'interfaces': {"                                                          \
    "'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"                                 \
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"                                 \
    "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"                                \
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "]," \
    "'routes': [" DEFAULT_ROUTES "]," sections "," UNLIMITED "}"

/* Default drop, but the router itself may be talked to, and these rules. */
static const char *rules(const char *list) {
    return text(WITH("'firewall': {'default': 'drop', 'router_default': 'accept',"
                     "'address_sets': {'servers': ['203.0.113.0/30', '2001:db8:99::/64']},"
                     "'rules': [%s]}"),
                list);
}

/* One rule that accepts. */
static const char *accept_rule(const char *members) {
    return rules(text("{'name': 'one', %s, 'action': 'accept'}", members));
}

#define refused(from, packet) is_dropped(from, packet, "firewall.default")

static void contains(const char *answer, const char *part) {
    require(strstr(answer, part) != NULL, "%s is not in %s", part, answer);
}

/* --- what rules match --- */

CASE(rules_by_interface) {
    start(accept_rule("'in': 'lan', 'out': 'wan'"));
    passes(LAN, WAN, udp4(OUT4));
    passes(LAN, WAN, udp6(OUT6));
    refused(LAN, udp4(.source = CLIENT ":1", .destination = "10.3.0.10:2"));
    refused(DMZ, udp4(.source = "10.3.0.10:1", .destination = SERVER ":2"));
    refused(WAN, udp4(.source = SERVER ":1", .destination = CLIENT ":2"));
    refused(WAN, udp6(.source = "[" SERVER6 "]:1", .destination = "[" CLIENT6 "]:2"));
}

CASE(rules_by_several_interfaces) {
    start(accept_rule("'in': ['lan', 'dmz'], 'out': ['wan']"));
    passes(LAN, WAN, udp4(OUT4));
    passes(DMZ, WAN, udp4(.source = "10.3.0.10:1", .destination = SERVER ":2"));
    refused(LAN, udp4(.source = CLIENT ":1", .destination = "10.3.0.10:2"));
}

CASE(rules_by_prefix) {
    start(accept_rule("'source': ['192.168.1.8/29', '2001:db8:1::10'], 'destination': '@servers'"));
    passes(LAN, WAN, udp4(OUT4));
    passes(LAN, WAN, udp4(.source = "192.168.1.15:1", .destination = "203.0.113.3:2"));
    passes(LAN, WAN, udp6(OUT6));
    refused(LAN, udp4(.source = "192.168.1.16:1", .destination = SERVER ":2"));
    refused(LAN, udp4(.source = CLIENT ":1", .destination = "203.0.113.4:2"));
    refused(LAN, udp6(.source = "[2001:db8:1::11]:1", .destination = "[" SERVER6 "]:2"));
    refused(LAN, udp6(.source = "[" CLIENT6 "]:1", .destination = "[2001:db8:98::1]:2"));
}

CASE(rules_by_port) {
    start(accept_rule("'protocol': ['tcp', 'udp'], 'source_port': '1024-65535',"
                      "'destination_port': [80, 443, '8000-8099']"));
    passes(LAN, WAN, udp4(.source = CLIENT ":1024", .destination = SERVER ":80"));
    passes(LAN, WAN,
           tcp4(.source = CLIENT ":1024", .destination = SERVER ":443", .tcp_flags = SYN));
    passes(LAN, WAN, udp6(.source = "[" CLIENT6 "]:65535", .destination = "[" SERVER6 "]:8099"));
    refused(LAN, udp4(.source = CLIENT ":1023", .destination = SERVER ":80"));
    refused(LAN, udp4(.source = CLIENT ":1024", .destination = SERVER ":81"));
    refused(LAN, udp4(.source = CLIENT ":1024", .destination = SERVER ":8100"));
    refused(LAN, icmp4_echo(.source = CLIENT, .destination = SERVER));
    refused(LAN, ip4(.source = CLIENT, .destination = SERVER, .protocol = 47));
}

CASE(rules_by_icmp_type) {
    start(rules("{'name': 'ping', 'protocol': ['icmp', 'icmpv6'], 'icmp_type': 'echo_request',"
                "'action': 'accept'},"
                "{'name': 'stamp', 'protocol': 'icmp', 'icmp_type': '13/0', 'action': 'accept'}"));
    passes(LAN, WAN, icmp4_echo(.source = CLIENT, .destination = SERVER, .identifier = 1));
    passes(WAN, LAN, icmp4_echo_reply(.source = SERVER, .destination = CLIENT, .identifier = 1));
    passes(LAN, WAN, icmp6_echo(.source = CLIENT6, .destination = SERVER6, .identifier = 1));
    passes(WAN, LAN, icmp6_echo_reply(.source = SERVER6, .destination = CLIENT6, .identifier = 1));
    passes(LAN, WAN,
           icmp4(.source = CLIENT, .destination = SERVER, .type = 13, .identifier = 1, .size = 12));
    refused(LAN, icmp4(.source = CLIENT, .destination = SERVER, .type = 13, .code = 1,
                       .identifier = 2, .size = 12));
    refused(LAN, icmp4(.source = CLIENT, .destination = SERVER, .type = 17, .size = 4));
    refused(WAN, icmp4_echo_reply(.source = SERVER, .destination = CLIENT, .identifier = 2));
}

CASE(rules_by_tcp_flags) {
    start(rules("{'name': 'open', 'protocol': 'tcp', 'tcp_flags': 'syn,!ack', 'in': 'lan',"
                "'action': 'accept'}"));
    passes(LAN, WAN, tcp4(OUT4, .tcp_flags = SYN));
    passes(WAN, LAN, tcp4(BACK4, .tcp_flags = SYN | ACK));
    passes(LAN, WAN, tcp4(OUT4, .tcp_flags = ACK));
    refused(LAN,
            tcp4(.source = CLIENT ":5001", .destination = SERVER ":80", .tcp_flags = SYN | ACK));
    refused(LAN, tcp4(.source = CLIENT ":5001", .destination = SERVER ":80", .tcp_flags = ACK));
}

CASE(rules_by_dscp) {
    start(accept_rule("'dscp': [46, 10]"));
    passes(LAN, WAN, udp4(OUT4, .tos = 46 << 2));
    passes(LAN, WAN, udp6(OUT6, .traffic_class = 10 << 2 | 3));
    refused(LAN, udp4(.source = CLIENT ":1", .destination = SERVER ":2", .tos = 45 << 2));
    refused(LAN, udp6(.source = "[" CLIENT6 "]:1", .destination = "[" SERVER6 "]:2"));
}

CASE(rules_by_family) {
    start(accept_rule("'family': 'ipv6'"));
    passes(LAN, WAN, udp6(OUT6));
    refused(LAN, udp4(OUT4));
}

CASE(rules_by_vrf) {
    struct frame *out = udp4(.source = "192.168.1.10:1", .destination = "100.64.4.2:2");

    start("{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
          "'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'vrf': 'blue'},"
          "'isp': {" ISP_PORT ", " ISP_ADDRESSES ", 'vrf': 'blue'},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}, 'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "," ISP_NEIGHBOURS
          "],'routes': [" DEFAULT_ROUTES "], 'firewall': {'default': 'drop', 'rules': ["
          "{'name': 'blue', 'vrf': 'blue', 'action': 'accept'}]}," UNLIMITED "}");
    passes(LAN, ISP, out);
    passes(ISP, LAN, udp4(.source = "100.64.4.2:2", .destination = "192.168.1.10:1"));
    refused(DMZ, udp4(.source = "10.3.0.10:1", .destination = SERVER ":2"));
}

CASE(the_first_rule_that_matches_decides) {
    start(rules("{'name': 'not-this', 'destination': '203.0.113.1', 'action': 'drop'},"
                "{'name': 'off', 'enabled': false, 'action': 'drop'},"
                "{'name': 'net', 'destination': '203.0.113.0/24', 'action': 'accept'},"
                "{'name': 'never', 'destination': '203.0.113.2', 'action': 'drop'}"));
    is_dropped(LAN, udp4(OUT4), "firewall.rule");
    passes(LAN, WAN, udp4(.source = CLIENT ":1", .destination = "203.0.113.2:2"));
    refused(LAN, udp4(.source = CLIENT ":1", .destination = "10.3.0.10:2"));
}

/* --- the router itself --- */

CASE(rules_for_the_router_itself) {
    start(WITH("'firewall': {'default': 'accept', 'router_default': 'drop', 'rules': ["
               "{'name': 'ping', 'to_router': true, 'in': 'lan', 'protocol': ['icmp', 'icmpv6'],"
               "'icmp_type': 'echo_request', 'action': 'accept'}]}"));
    inject(LAN, icmp4_echo(.source = CLIENT, .destination = "192.168.1.1", .identifier = 1));
    expect(LAN, icmp4_echo_reply(.source = "192.168.1.1", .destination = CLIENT, .identifier = 1));
    inject(LAN, icmp6_echo(.source = CLIENT6, .destination = "2001:db8:1::1", .identifier = 1));
    expect(LAN,
           icmp6_echo_reply(.source = "2001:db8:1::1", .destination = CLIENT6, .identifier = 1));
    refused(WAN, icmp4_echo(.source = SERVER, .destination = "198.51.100.1", .identifier = 1));
    refused(WAN, icmp4_echo(.source = SERVER, .destination = "192.168.1.1", .identifier = 1));
    refused(LAN, udp4(.source = CLIENT ":1", .destination = "192.168.1.1:22"));
    passes(LAN, WAN, udp4(OUT4));
}

/* RFC 4890 section 4.4.1: without them there is no IPv6. */
CASE(neighbours_are_found_whatever_the_rules) {
    start(WITH("'firewall': {'default': 'drop', 'rules': ["
               "{'name': 'out', 'in': 'lan', 'action': 'accept'}]}"));
    inject(LAN, neighbour_solicitation(.source = CLIENT6, .target = "2001:db8:1::1",
                                       .source_link = HOST_LAN));
    expect(LAN, neighbour_advertisement(.source = "2001:db8:1::1", .destination = CLIENT6,
                                        .target = "2001:db8:1::1", .flags = 0xe0,
                                        .target_link = ROUTER_LAN));
    inject(WAN, neighbour_solicitation(.source = "2001:db8:2::2", .target = "2001:db8:2::1",
                                       .source_link = HOST_WAN));
    expect(WAN, neighbour_advertisement(.source = "2001:db8:2::1", .destination = "2001:db8:2::2",
                                        .target = "2001:db8:2::1", .flags = 0xe0,
                                        .target_link = ROUTER_WAN));
    inject(WAN,
           arp_request(.sender = "198.51.100.2", .sender_mac = HOST_WAN, .target = "198.51.100.1"));
    expect(WAN, arp_reply(.sender = "198.51.100.1", .sender_mac = ROUTER_WAN,
                          .target = "198.51.100.2", .target_mac = HOST_WAN));
    /* The router asks, and hears the answer. */
    inject(LAN, udp6(.source = "[" CLIENT6 "]:1", .destination = "[2001:db8:2::77]:2"));
    expect(WAN, neighbour_solicitation(.source = "2001:db8:2::1", .target = "2001:db8:2::77",
                                       .source_link = ROUTER_WAN));
    inject(WAN, neighbour_advertisement(.source = "2001:db8:2::77", .destination = "2001:db8:2::1",
                                        .target = "2001:db8:2::77", .flags = 0x60,
                                        .target_link = HOST_WAN));
    expect(WAN,
           udp6(.source = "[" CLIENT6 "]:1", .destination = "[2001:db8:2::77]:2", .hop_limit = 63));
}

CASE(errors_that_the_router_sends_are_its_own) {
    struct frame *probe = udp4(OUT4, .ttl = 1);

    start(WITH("'firewall': {'default': 'drop', 'rules': [{'name': 'out', 'in': 'lan',"
               "'action': 'accept'}]}"));
    inject(LAN, probe);
    expect(LAN,
           icmp4_error(.source = "192.168.1.1", .destination = CLIENT, .type = 11, .about = probe));
    expect_drop("local.time_exceeded", 1);
}

/* --- default policies, and what a refused packet is told --- */

CASE(nothing_is_configured_but_the_default) {
    start(WITH("'firewall': {}"));
    refused(LAN, udp4(OUT4));
    refused(LAN, udp6(OUT6));
    refused(LAN, icmp4_echo(.source = CLIENT, .destination = "192.168.1.1"));
    start(WITH("'firewall': {'default': 'accept'}"));
    passes(LAN, WAN, udp4(OUT4));
    passes(LAN, WAN, udp6(OUT6));
    passes(LAN, WAN, icmp4(.source = CLIENT, .destination = SERVER, .type = 17, .size = 4));
}

static const char *const rejecting = WITH("'firewall': {'default': 'reject'}");

CASE(a_rejected_datagram_is_told_of) {
    struct frame *four = udp4(OUT4, .size = 100), *six = udp6(OUT6, .size = 100);

    start(rejecting);
    inject(LAN, four);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = CLIENT, .type = UNREACHABLE,
                            .code = PROHIBITED, .about = four));
    inject(LAN, six);
    expect(LAN, icmp6_error(.source = "2001:db8:1::1", .destination = CLIENT6, .type = UNREACHABLE6,
                            .code = PROHIBITED6, .about = six));
    expect_drop("firewall.rejected", 2);
}

static struct frame *reset4(unsigned sequence, uint32_t acknowledged, unsigned flags) {
    struct frame *frame = tcp4(BACK4, .tcp_flags = flags, .sequence = sequence, .payload = "",
                               .fragment = DONT_FRAGMENT);
    uint8_t *tcp = frame->bytes + IP4_PAYLOAD;
    uint16_t sum;

    for (unsigned i = 0; i < 4; i++)
        tcp[8 + i] = (uint8_t)(acknowledged >> (24 - 8 * i));
    memset(tcp + 14, 0, 4); /* no window, checksum made anew */
    sum = (uint16_t)~fold16(sum16(sum16(20 + 6, frame->bytes + IP + 12, 8), tcp, 20));
    tcp[16] = (uint8_t)(sum >> 8);
    tcp[17] = (uint8_t)sum;
    return frame;
}

/* RFC 9293 section 3.10.7.1. */
CASE(a_rejected_segment_is_reset) {
    struct frame *with_ack = tcp4(OUT4, .tcp_flags = ACK, .sequence = 700);

    start(rejecting);
    inject(LAN, tcp4(OUT4, .tcp_flags = SYN, .sequence = 1000, .payload = ""));
    expect(LAN, reset4(0, 1001, RST | ACK));
    inject(LAN, tcp4(OUT4, .tcp_flags = SYN, .sequence = 0xffffffff, .payload = "abc"));
    expect(LAN, reset4(0, 3, RST | ACK));
    inject(LAN, padded(tcp4(OUT4, .tcp_flags = SYN, .sequence = 1000, .payload = ""), 60));
    expect(LAN, reset4(0, 1001, RST | ACK));
    expect_drop("firewall.rejected", 3);
    /* A segment with ACK says itself where the reset has to be. */
    with_ack = poke(with_ack, IP4_PAYLOAD + 8, "01020304");
    inject(LAN, with_ack);
    expect(LAN, reset4(0x01020304, 0, RST));
    expect_drop("firewall.rejected", 1);
    /* Never in answer to a reset. */
    is_dropped(LAN, tcp4(OUT4, .tcp_flags = RST), "firewall.rejected");
    is_dropped(LAN, tcp4(OUT4, .tcp_flags = RST | ACK), "firewall.rejected");
}

CASE(a_rejected_segment_is_reset_over_ipv6) {
    struct frame *found, *expected = tcp6(BACK6, .tcp_flags = RST | ACK, .payload = "");
    uint8_t *tcp = expected->bytes + IP6_PAYLOAD;
    uint16_t sum;

    start(rejecting);
    inject(LAN, tcp6(OUT6, .tcp_flags = SYN, .sequence = 1000, .payload = ""));
    memcpy(tcp + 8, (uint8_t[]){0, 0, 0x03, 0xe9}, 4);
    memset(tcp + 14, 0, 4);
    sum = (uint16_t)~fold16(sum16(sum16(20 + 6, expected->bytes + IP + 8, 32), tcp, 20));
    tcp[16] = (uint8_t)(sum >> 8);
    tcp[17] = (uint8_t)sum;
    found = copy(expected);
    expect(LAN, found);
    expect_drop("firewall.rejected", 1);
}

CASE(what_must_not_be_answered_is_not) {
    start(rejecting);
    /* How long the segment is, a fragment does not tell. */
    is_dropped(LAN, fragment4(tcp4(OUT4, .tcp_flags = SYN, .size = 100), 0, 48),
               "firewall.rejected");
    inject(LAN, icmp4_error(.source = CLIENT, .destination = SERVER, .type = UNREACHABLE, .code = 3,
                            .about = udp4(BACK4)));
    expect_nothing(ANYWHERE);
    expect_drops({"firewall.rejected", 1}, {"icmp.error_not_allowed", 1});
}

CASE(a_rejected_packet_for_the_router) {
    struct frame *probe = udp4(.source = CLIENT ":1", .destination = "192.168.1.1:22");

    start(WITH("'firewall': {'default': 'accept', 'router_default': 'reject'}"));
    inject(LAN, probe);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = CLIENT, .type = UNREACHABLE,
                            .code = PROHIBITED, .about = probe));
    expect_drop("firewall.rejected", 1);
}

/* The packet that is told of is the one that came in, not the one that would have left. */
CASE(a_rejected_packet_of_a_port_forward) {
    struct frame *probe = udp4(.source = SERVER ":5000", .destination = "198.51.100.1:8080");
    struct frame *found;

    start(WITH("'nat': {'destination': [{'in': 'wan', 'protocol': 'udp', 'destination_port': 8080,"
               "'to': '" CLIENT ":80'}, {'in': 'wan', 'protocol': 'tcp', 'destination_port': 8080,"
               "'to': '" CLIENT ":80'}]}, 'firewall': {'default': 'reject'}"));
    inject(WAN, probe);
    expect(WAN, icmp4_error(.source = "198.51.100.1", .destination = SERVER, .type = UNREACHABLE,
                            .code = PROHIBITED, .about = probe));
    inject(WAN,
           tcp4(.source = SERVER ":5000", .destination = "198.51.100.1:8080", .tcp_flags = SYN));
    found = take_one(WAN);
    require(memcmp(found->bytes + IP + 12, (uint8_t[]){198, 51, 100, 1}, 4) == 0 &&
                found->bytes[IP4_PAYLOAD] == 8080 >> 8 &&
                found->bytes[IP4_PAYLOAD + 1] == (8080 & 0xff),
            "the reset comes from somewhere else");
    expect_drop("firewall.rejected", 2);
}

/* --- the inside of port forwards --- */

CASE(rules_see_the_inside_of_a_port_forward) {
    start(WITH("'nat': {'destination': [{'in': 'wan', 'protocol': 'udp', 'destination_port':"
               "'8080-8081', 'to': '" CLIENT ":80'}]}, 'firewall': {'default': 'drop', 'rules': ["
               "{'name': 'web', 'in': 'wan', 'out': 'lan', 'destination': '" CLIENT "',"
               "'protocol': 'udp', 'destination_port': 80, 'action': 'accept'}]}"));
    inject(WAN, udp4(.source = SERVER ":5000", .destination = "198.51.100.1:8080"));
    expect(LAN, udp4(.source = SERVER ":5000", .destination = CLIENT ":80", .ttl = 63));
    inject(LAN, udp4(.source = CLIENT ":80", .destination = SERVER ":5000"));
    expect(WAN, udp4(.source = "198.51.100.1:8080", .destination = SERVER ":5000", .ttl = 63));
    refused(WAN, udp4(.source = SERVER ":5000", .destination = "198.51.100.1:8081"));
}

/* --- stateless rules, log --- */

CASE(stateless_rules_keep_nothing) {
    start(rules("{'name': 'out', 'in': 'lan', 'stateless': true, 'action': 'accept'}"));
    passes(LAN, WAN, udp4(OUT4));
    refused(WAN, udp4(BACK4));
    passes(LAN, WAN, tcp4(OUT4, .tcp_flags = ACK)); /* not even TCP's state */
    contains(rpc("session.count", "{}"), "'sessions':0");
    /* Flags that no TCP sends pass nowhere. */
    is_dropped(LAN, tcp4(OUT4, .tcp_flags = 0), "session.tcp_flags");
}

CASE(packets_are_logged) {
    start(rules("{'name': 'out', 'in': 'lan', 'log': true, 'action': 'accept'},"
                "{'name': 'in', 'log': true, 'action': 'reject'}"));
    for (unsigned i = 0; i < 100; i++) {
        passes(LAN, WAN, udp4(.source = text(CLIENT ":%u", 2000 + i), .destination = SERVER ":2"));
        passes(LAN, WAN, icmp6_echo(.source = CLIENT6, .destination = SERVER6, .identifier = i));
        inject(WAN, tcp6(BACK6, .tcp_flags = SYN));
        inject(WAN, ip4(.source = SERVER, .destination = CLIENT, .protocol = 112));
        discard(WAN);
    }
    expect_drop("firewall.rejected", 200);
}

/* --- rules that change --- */

static void open_sessions(void) {
    passes(LAN, WAN, tcp4(OUT4, .tcp_flags = SYN));
    passes(WAN, LAN, tcp4(BACK4, .tcp_flags = SYN | ACK));
    passes(LAN, WAN, tcp4(OUT4, .tcp_flags = ACK));
    passes(LAN, WAN, udp6(OUT6));
    passes(LAN, WAN, icmp4_echo(.source = CLIENT, .destination = SERVER, .identifier = 1));
}

CASE(sessions_that_are_still_allowed_go_on) {
    start(accept_rule("'in': 'lan'"));
    open_sessions();
    apply(rules("{'name': 'tcp', 'in': 'lan', 'out': 'wan', 'protocol': 'tcp', 'destination_port':"
                "80, 'tcp_flags': 'syn,!ack', 'action': 'accept'},"
                "{'name': 'udp', 'source': '2001:db8:1::/64', 'protocol': 'udp', 'action':"
                "'accept'}, {'name': 'ping', 'protocol': 'icmp', 'icmp_type': 'echo_request',"
                "'action': 'accept'}"));
    advance(3000);
    passes(WAN, LAN, tcp4(BACK4, .tcp_flags = ACK | PSH));
    passes(LAN, WAN, tcp4(OUT4, .tcp_flags = ACK | PSH));
    passes(WAN, LAN, udp6(BACK6));
    passes(WAN, LAN, icmp4_echo_reply(.source = SERVER, .destination = CLIENT, .identifier = 1));
    contains(rpc("session.count", "{}"), "'ended':0");
}

CASE(sessions_that_are_no_longer_allowed_end) {
    start(accept_rule("'in': 'lan'"));
    open_sessions();
    apply(accept_rule("'in': 'lan', 'protocol': 'udp'"));
    turn();
    refused(WAN, tcp4(BACK4, .tcp_flags = ACK));
    refused(LAN, tcp4(OUT4, .tcp_flags = ACK));
    refused(WAN, icmp4_echo_reply(.source = SERVER, .destination = CLIENT, .identifier = 1));
    passes(WAN, LAN, udp6(BACK6));
    advance(3000);
    contains(rpc("session.count", "{}"), "'sessions':1");
    apply(rules("{'name': 'one', 'action': 'drop'}"));
    turn();
    is_dropped(WAN, udp6(BACK6), "firewall.rule");
}

CASE(sessions_of_an_interface_that_moves_to_another_vrf_do_not_leak) {
    start(accept_rule("'in': 'lan'"));
    open_sessions();
    apply("{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
          "'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'vrf': 'blue'},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}, 'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS
          "],'routes': [" DEFAULT_ROUTES "], 'firewall': {'default': 'drop', 'router_default':"
          "'accept', 'rules': [{'name': 'one', 'in': 'lan', 'action': 'accept'}]}," UNLIMITED "}");
    advance(12000);
    discard(ANYWHERE);
    forget_drops();
    inject(WAN, tcp4(BACK4, .tcp_flags = ACK | PSH));
    discard(WAN); /* it may come back out there, by the default route */
    require(discard(LAN) == 0, "the answer crosses into the other VRF");
    forget_drops();
}

/* --- counters --- */

CASE(rules_count) {
    const char *list;

    start(rules("{'name': 'udp', 'in': 'lan', 'protocol': 'udp', 'action': 'accept'},"
                "{'name': 'icmp', 'protocol': 'icmp', 'action': 'drop'}"));
    for (unsigned i = 0; i < 5; i++)
        passes(LAN, WAN, udp4(OUT4, .size = 72));
    passes(LAN, WAN, udp4(.source = CLIENT ":6000", .destination = SERVER ":2", .size = 72));
    is_dropped(LAN, icmp4_echo(.source = CLIENT, .destination = SERVER, .size = 72),
               "firewall.rule");
    refused(WAN, udp4(.source = SERVER ":1", .destination = CLIENT ":2", .size = 72));
    list = rpc("firewall.list", "{}");
    contains(list, "'configured':true");
    contains(list, "'name':'udp','enabled':true,'stateless':false,'log':false,'packets':2,"
                   "'bytes':200,'sessions':2");
    contains(list, "'name':'icmp','enabled':true,'stateless':false,'log':false,'packets':1,"
                   "'bytes':100,'sessions':0");
    contains(list, "'default_counters':{'action':'drop','packets':1,'bytes':100,'sessions':0}");
    /* They go on under the same name. */
    apply(rules("{'name': 'more', 'protocol': 'tcp', 'action': 'accept'},"
                "{'name': 'udp', 'in': 'lan', 'protocol': 'udp', 'action': 'accept'}"));
    turn();
    passes(LAN, WAN, udp4(.source = CLIENT ":6001", .destination = SERVER ":2", .size = 72));
    list = rpc("firewall.list", "{}");
    contains(list, "'name':'udp','enabled':true,'stateless':false,'log':false,'packets':3,"
                   "'bytes':300,'sessions':3");
}

/* --- many --- */

CASE(many_rules_and_new_sessions_in_one_burst) {
    char *list = room_for(1000 * 150), *at = list;

    for (unsigned i = 0; i < 1000; i++)
        append(&at,
               "%s{'name': 'r%u', 'in': 'lan', 'protocol': 'udp', 'destination': '203.0.%u.%u',"
               "'destination_port': %u, 'action': '%s'}",
               i ? "," : "", i, 113 + i / 250, i % 250, 1000 + i, i % 3 ? "accept" : "drop");
    start(rules(list));
    for (unsigned first = 0; first < 1000; first += 64) {
        unsigned end = first + 64 < 1000 ? first + 64 : 1000, dropped = 0;

        for (unsigned i = first; i < end; i++)
            inject(LAN,
                   udp4(.source = CLIENT ":5000",
                        .destination = text("203.0.%u.%u:%u", 113 + i / 250, i % 250, 1000 + i)));
        for (unsigned i = first; i < end; i++) {
            dropped += i % 3 == 0;
            if (i % 3)
                expect(WAN,
                       udp4(.source = CLIENT ":5000",
                            .destination = text("203.0.%u.%u:%u", 113 + i / 250, i % 250, 1000 + i),
                            .ttl = 63));
        }
        expect_drop("firewall.rule", dropped);
        frames_free();
    }
}

HARNESS_MAIN()
