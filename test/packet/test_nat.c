/* Translation of addresses and ports. Frames are expected to the byte, so every checksum is
 * compared with one that is worked out anew. */
#include <stdio.h>

#include "core/worker.h"
#include "harness.h"
#include "nat/nat_internal.h"
#include "nat/nat_mapping.h"
#include "session/session.h"

#define INSIDE "192.168.1.10"
#define SECOND "192.168.1.20"
#define OUTSIDE "198.51.100.1"
#define SERVER "203.0.113.1"
#define OTHER_SERVER "203.0.113.2"
#define POOLED "198.51.100.50"

#define INTERFACES                              \
    "'interfaces': {"                           \
    "'lan': {" LAN_PORT ", " LAN_ADDRESSES "}," \
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}," \
    "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"
#define NEIGHBOURS                                                             \
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "," \
    "{'interface': 'lan', 'address': '" SECOND "', 'mac': '" HOST_LAN "'},"    \
    "{'interface': 'wan', 'address': '198.51.100.9', 'mac': '" HOST_WAN "'}],"
#define NAT(sections) \
    "{" INTERFACES NEIGHBOURS "'routes': [" DEFAULT_ROUTES "]," sections "," UNLIMITED "}"

#define MASQUERADE "{'out': 'wan', 'source': '192.168.1.0/24', 'to': 'interface'}"
static const char *const masquerade = NAT("'nat': {'source': [" MASQUERADE "]}");

/* One source rule, with more members. */
static const char *source_rule(const char *members) {
    return text(NAT("'nat': {'source': [{'out': 'wan', 'source': '192.168.1.0/24', %s}]}"),
                members);
}

static const char *destination_rule(const char *members) {
    return text(NAT("'nat': {'source': [" MASQUERADE "], 'destination': [{'in': 'wan', %s}]}"),
                members);
}

enum { SYN = 0x02, ACK = 0x10, FIN = 0x01, RST = 0x04, ECHO = 8, ECHO_REPLY = 0 };
enum { UNREACHABLE = 3, PORT_UNREACHABLE = 3, TOO_BIG = 4, TIME_EXCEEDED = 11 };

static unsigned source_port(const struct frame *frame) {
    return (unsigned)frame->bytes[IP4_PAYLOAD] << 8 | frame->bytes[IP4_PAYLOAD + 1];
}

static unsigned identifier(const struct frame *frame) {
    return (unsigned)frame->bytes[IP4_PAYLOAD + 4] << 8 | frame->bytes[IP4_PAYLOAD + 5];
}

static const char *end(const char *address, unsigned port) {
    return text("%s:%u", address, port);
}

/* Sends a datagram from inside; which port it got outside. */
static unsigned open_udp(const char *from, unsigned port, const char *to) {
    struct frame *found;

    inject(LAN, udp4(.source = end(from, port), .destination = to));
    found = take(WAN);
    return found ? source_port(found) : 0;
}

static void mappings_are_right(unsigned expected) {
    require(nat_mapping_count() == expected, "%u mappings, %u expected", nat_mapping_count(),
            expected);
    require(nat_mapping_ports_taken() == expected, "%u ports are taken, %u expected",
            nat_mapping_ports_taken(), expected);
}

/* --- source NAT --- */

CASE(udp_goes_out_and_its_answer_comes_back) {
    start(masquerade);
    inject(LAN, udp4(.source = INSIDE ":1024", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":1024", .destination = SERVER ":53", .ttl = 63));
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":1024"));
    expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":1024", .ttl = 63));
}

CASE(tcp_goes_out_and_comes_back) {
    start(masquerade);
    inject(LAN, tcp4(.source = INSIDE ":4001", .destination = SERVER ":80", .tcp_flags = SYN));
    expect(WAN, tcp4(.source = OUTSIDE ":4001", .destination = SERVER ":80", .tcp_flags = SYN,
                     .ttl = 63));
    inject(WAN,
           tcp4(.source = SERVER ":80", .destination = OUTSIDE ":4001", .tcp_flags = SYN | ACK));
    expect(LAN, tcp4(.source = SERVER ":80", .destination = INSIDE ":4001", .tcp_flags = SYN | ACK,
                     .ttl = 63));
    for (unsigned size = 1; size < 40; size++) { /* odd and even lengths */
        inject(LAN, tcp4(.source = INSIDE ":4001", .destination = SERVER ":80", .tcp_flags = ACK,
                         .size = size));
        expect(WAN, tcp4(.source = OUTSIDE ":4001", .destination = SERVER ":80", .tcp_flags = ACK,
                         .size = size, .ttl = 63));
        inject(WAN, tcp4(.source = SERVER ":80", .destination = OUTSIDE ":4001", .tcp_flags = ACK,
                         .size = size));
        expect(LAN, tcp4(.source = SERVER ":80", .destination = INSIDE ":4001", .tcp_flags = ACK,
                         .size = size, .ttl = 63));
    }
}

CASE(echo_goes_out_and_comes_back) {
    start(masquerade);
    inject(LAN, icmp4_echo(.source = INSIDE, .destination = SERVER, .identifier = 0x4321,
                           .sequence = 5));
    expect(WAN, icmp4_echo(.source = OUTSIDE, .destination = SERVER, .identifier = 0x4321,
                           .sequence = 5, .ttl = 63));
    inject(WAN, icmp4_echo_reply(.source = SERVER, .destination = OUTSIDE, .identifier = 0x4321,
                                 .sequence = 5));
    expect(LAN, icmp4_echo_reply(.source = SERVER, .destination = INSIDE, .identifier = 0x4321,
                                 .sequence = 5, .ttl = 63));
}

CASE(two_hosts_ping_with_the_same_identifier) {
    struct frame *found;
    unsigned other;

    start(masquerade);
    inject(LAN, icmp4_echo(.source = INSIDE, .destination = SERVER, .identifier = 0x4321));
    expect(WAN,
           icmp4_echo(.source = OUTSIDE, .destination = SERVER, .identifier = 0x4321, .ttl = 63));
    inject(LAN, icmp4_echo(.source = SECOND, .destination = SERVER, .identifier = 0x4321));
    found = take_one(WAN);
    other = identifier(found);
    require(other != 0x4321, "both have the same identifier");
    require(frame_equal(found, ether(icmp4_echo(.source = OUTSIDE, .destination = SERVER,
                                                .identifier = other, .ttl = 63),
                                     HOST_WAN, ROUTER_WAN)),
            "another frame");
    inject(WAN, icmp4_echo_reply(.source = SERVER, .destination = OUTSIDE, .identifier = other));
    expect(LAN, icmp4_echo_reply(.source = SERVER, .destination = SECOND, .identifier = 0x4321,
                                 .ttl = 63));
    inject(WAN, icmp4_echo_reply(.source = SERVER, .destination = OUTSIDE, .identifier = 0x4321));
    expect(LAN, icmp4_echo_reply(.source = SERVER, .destination = INSIDE, .identifier = 0x4321,
                                 .ttl = 63));
}

/* RFC 1624 section 3: zero and ones are not the same here. */
CASE(an_echo_of_nothing_but_zeroes) {
    struct frame *echo = icmp4_echo(.source = INSIDE, .destination = SERVER, .size = 8), *found,
                 *reply, *expected;
    unsigned outside;

    start(masquerade);
    memset(echo->bytes + IP4_PAYLOAD + 8, 0, 8);
    memcpy(echo->bytes + IP4_PAYLOAD + 2, (uint8_t[]){0xf7, 0xff}, 2);
    inject(LAN, echo);
    found = take_one(WAN);
    outside = identifier(found);
    require(fold16(sum16(0, found->bytes + IP4_PAYLOAD, 16)) == 0xffff, "a wrong checksum outside");
    reply = icmp4_echo_reply(.source = SERVER, .destination = OUTSIDE, .size = 8);
    memset(reply->bytes + IP4_PAYLOAD, 0, 16);
    reply->bytes[IP4_PAYLOAD + 4] = (uint8_t)(outside >> 8);
    reply->bytes[IP4_PAYLOAD + 5] = (uint8_t)outside;
    reply->bytes[IP4_PAYLOAD + 2] = (uint8_t)(~outside >> 8);
    reply->bytes[IP4_PAYLOAD + 3] = (uint8_t)~outside;
    inject(WAN, reply);
    expected = icmp4_echo_reply(.source = SERVER, .destination = INSIDE, .size = 8, .ttl = 63);
    memset(expected->bytes + IP4_PAYLOAD, 0, 16);
    memset(expected->bytes + IP4_PAYLOAD + 2, 0xff, 2);
    expect(LAN, expected);
}

CASE(timestamps_are_not_echoes) {
    start(masquerade);
    inject(LAN, icmp4(.source = INSIDE, .destination = SERVER, .type = 13, .identifier = 0x4321,
                      .size = 12));
    expect(WAN, icmp4(.source = OUTSIDE, .destination = SERVER, .type = 13, .identifier = 0x4321,
                      .size = 12, .ttl = 63));
    inject(LAN, icmp4_echo(.source = INSIDE, .destination = SERVER, .identifier = 0x4321));
    expect(WAN,
           icmp4_echo(.source = OUTSIDE, .destination = SERVER, .identifier = 0x4321, .ttl = 63));
    inject(WAN, icmp4(.source = SERVER, .destination = OUTSIDE, .type = 14, .identifier = 0x4321,
                      .size = 12));
    expect(LAN, icmp4(.source = SERVER, .destination = INSIDE, .type = 14, .identifier = 0x4321,
                      .size = 12, .ttl = 63));
}

/* Without ports a pair of addresses is all that tells sessions apart. */
CASE(gre_is_translated_by_address) {
    start(masquerade);
    inject(LAN, ip4(.source = INSIDE, .destination = SERVER, .protocol = 47, .size = 33));
    expect(WAN,
           ip4(.source = OUTSIDE, .destination = SERVER, .protocol = 47, .size = 33, .ttl = 63));
    inject(WAN, ip4(.source = SERVER, .destination = OUTSIDE, .protocol = 47, .size = 21));
    expect(LAN,
           ip4(.source = SERVER, .destination = INSIDE, .protocol = 47, .size = 21, .ttl = 63));
    inject(LAN, ip4(.source = SECOND, .destination = SERVER, .protocol = 47, .size = 33));
    expect_nothing(ANYWHERE);
    expect_drop("nat.conflict", 1);
    inject(LAN, ip4(.source = SECOND, .destination = OTHER_SERVER, .protocol = 50, .size = 40));
    expect(WAN, ip4(.source = OUTSIDE, .destination = OTHER_SERVER, .protocol = 50, .size = 40,
                    .ttl = 63));
}

CASE(a_udp_checksum_of_zero_stays) {
    start(masquerade);
    inject(LAN, poke(udp4(.source = INSIDE ":1025", .destination = SERVER ":53"), IP4_PAYLOAD + 6,
                     "0000"));
    expect(WAN, poke(udp4(.source = OUTSIDE ":1025", .destination = SERVER ":53", .ttl = 63),
                     IP4_PAYLOAD + 6, "0000"));
    inject(WAN, poke(udp4(.source = SERVER ":53", .destination = OUTSIDE ":1025"), IP4_PAYLOAD + 6,
                     "0000"));
    expect(LAN, poke(udp4(.source = SERVER ":53", .destination = INSIDE ":1025", .ttl = 63),
                     IP4_PAYLOAD + 6, "0000"));
}

/* Every sum that a payload can have, so that those come by whose checksum is, or becomes, zero. */
CASE(every_udp_checksum) {
    start(masquerade);
    for (unsigned word = 0; word < 0x10000; word += word < 0xff00 ? 61 : 1) {
        struct frame *in = udp4(.source = INSIDE ":1024", .destination = SERVER ":53", .size = 2);
        struct frame *out =
            udp4(.source = OUTSIDE ":1024", .destination = SERVER ":53", .size = 2, .ttl = 63);
        struct frame *both[] = {in, out};

        for (unsigned i = 0; i < 2; i++) {
            uint8_t *udp = both[i]->bytes + IP4_PAYLOAD;
            uint16_t sum;

            udp[8] = (uint8_t)(word >> 8);
            udp[9] = (uint8_t)word;
            udp[6] = udp[7] = 0;
            sum = (uint16_t)~fold16(sum16(sum16(10 + 17, both[i]->bytes + IP + 12, 8), udp, 10));
            sum = sum ? sum : 0xffff;
            udp[6] = (uint8_t)(sum >> 8);
            udp[7] = (uint8_t)sum;
        }
        inject(LAN, in);
        expect(WAN, out);
        if (word % 64 == 0)
            frames_free();
    }
}

static struct frame *udplite(const char *from, unsigned word, unsigned ttl) {
    enum { UDPLITE = 136, SIZE = 10 };
    struct frame *out =
        ip4(.source = from, .destination = SERVER, .protocol = UDPLITE, .size = SIZE, .ttl = ttl);
    uint8_t *udp = out->bytes + IP4_PAYLOAD;
    uint16_t sum;

    memcpy(udp, "\x04\0\0\x35\0\0\0", 8); /* from port 1024 to 53; all of it is covered */
    udp[8] = (uint8_t)(word >> 8);
    udp[9] = (uint8_t)word;
    sum = (uint16_t)~fold16(sum16(sum16(SIZE + UDPLITE, out->bytes + IP + 12, 8), udp, SIZE));
    sum = sum ? sum : 0xffff; /* RFC 3828 section 3.1: there has to be one */
    udp[6] = (uint8_t)(sum >> 8);
    udp[7] = (uint8_t)sum;
    return out;
}

/* Those that become zero, and their neighbours. */
CASE(udplite_has_a_checksum) {
    unsigned zero = 0;

    start(masquerade);
    while (memcmp(udplite(OUTSIDE, zero, 63)->bytes + IP4_PAYLOAD + 6, "\xff\xff", 2) != 0) {
        zero++;
        if (zero % 64 == 0)
            frames_free();
    }
    for (unsigned word = zero - 1; word <= zero + 1; word++) {
        struct frame *out = udplite(OUTSIDE, word, 63);

        inject(LAN, udplite(INSIDE, word, 64));
        expect(WAN, out);
        /* What an error quotes has the checksum that it came with. */
        inject(WAN, icmp4_error(.source = SERVER, .destination = OUTSIDE, .type = UNREACHABLE,
                                .code = PORT_UNREACHABLE, .about = out));
        expect(LAN, icmp4_error(.source = SERVER, .destination = INSIDE, .type = UNREACHABLE,
                                .code = PORT_UNREACHABLE, .about = udplite(INSIDE, word, 63),
                                .ttl = 63));
    }
}

CASE(headers_with_options) {
    start(masquerade);
    inject(LAN, udp4(.source = INSIDE ":1024", .destination = SERVER ":53", .options = "01010100"));
    expect(WAN, udp4(.source = OUTSIDE ":1024", .destination = SERVER ":53", .options = "01010100",
                     .ttl = 63));
    inject(WAN,
           udp4(.source = SERVER ":53", .destination = OUTSIDE ":1024", .options = "0101010101"));
    expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":1024", .options = "0101010101",
                     .ttl = 63));
}

CASE(packets_in_several_buffers) {
    start(masquerade);
    for (unsigned first = 62; first < 90; first++) {
        inject_split(LAN, udp4(.source = INSIDE ":1024", .destination = SERVER ":53", .size = 101),
                     first);
        expect(WAN, udp4(.source = OUTSIDE ":1024", .destination = SERVER ":53", .size = 101,
                         .ttl = 63));
    }
}

CASE(others_are_not_translated) {
    start(masquerade);
    inject(LAN, udp4(.source = INSIDE ":1024", .destination = "10.3.0.10:53"));
    expect(DMZ, udp4(.source = INSIDE ":1024", .destination = "10.3.0.10:53", .ttl = 63));
    inject(DMZ, udp4(.source = "10.3.0.10:1024", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = "10.3.0.10:1024", .destination = SERVER ":53", .ttl = 63));
    inject(LAN, udp6(.source = "[2001:db8:1::10]:1024", .destination = "[2001:db8:99::1]:53"));
    expect(WAN, udp6(.source = "[2001:db8:1::10]:1024", .destination = "[2001:db8:99::1]:53",
                     .hop_limit = 63));
}

CASE(exempt_destinations) {
    start(NAT(
        "'nat': {'source': [{'out': 'wan', 'destination': '203.0.113.0/30', 'to': 'none'}," MASQUERADE
        "]}"));
    inject(LAN, udp4(.source = INSIDE ":1024", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = INSIDE ":1024", .destination = SERVER ":53", .ttl = 63));
    inject(WAN, udp4(.source = SERVER ":53", .destination = INSIDE ":1024"));
    expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":1024", .ttl = 63));
    inject(LAN, udp4(.source = INSIDE ":1024", .destination = "203.0.113.77:53"));
    expect(WAN, udp4(.source = OUTSIDE ":1024", .destination = "203.0.113.77:53", .ttl = 63));
}

CASE(rules_by_protocol_and_incoming_interface) {
    start(NAT("'nat': {'source': [{'in': 'lan', 'out': 'wan', 'protocol': 'udp', 'to': '" POOLED
              "'}, {'in': 'dmz', 'out': 'wan', 'to': 'interface'}]}"));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = POOLED ":5000", .destination = SERVER ":53", .ttl = 63));
    inject(LAN, tcp4(.source = INSIDE ":5000", .destination = SERVER ":80", .tcp_flags = SYN));
    expect(WAN, tcp4(.source = INSIDE ":5000", .destination = SERVER ":80", .tcp_flags = SYN,
                     .ttl = 63));
    inject(DMZ, udp4(.source = "10.3.0.10:5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
    mappings_are_right(2);
    rpc("session.flush", "{}");
    advance(3000);
    mappings_are_right(0);
}

/* --- ports --- */

CASE(a_port_that_is_taken_gives_way_to_one_of_its_parity) {
    start(masquerade);
    for (unsigned port = 5000; port < 5010; port++) {
        unsigned first = open_udp(INSIDE, port, SERVER ":53");
        unsigned second = open_udp(SECOND, port, SERVER ":53");

        require(first == port, "%u became %u", port, first);
        require(second != port && second >= 1024 && second % 2 == port % 2, "%u became %u", port,
                second);
        inject(WAN, udp4(.source = SERVER ":53", .destination = end(OUTSIDE, second)));
        expect(LAN, udp4(.source = SERVER ":53", .destination = end(SECOND, port), .ttl = 63));
    }
    mappings_are_right(20);
}

CASE(well_known_ports_are_not_kept) {
    start(masquerade);
    for (unsigned port = 1; port < 1024; port += 73) {
        unsigned outside = open_udp(INSIDE, port, SERVER ":53");

        require(outside >= 1024 && outside % 2 == port % 2, "%u became %u", port, outside);
    }
}

CASE(a_small_range_of_ports) {
    bool seen[10] = {false};

    start(source_rule("'to': 'interface', 'ports': '2000-2009'"));
    for (unsigned i = 0; i < 10; i++) {
        unsigned port = open_udp(i % 2 ? INSIDE : SECOND, 3000 + i, SERVER ":53");

        require(port >= 2000 && port <= 2009 && !seen[port - 2000], "number %u became %u", i, port);
        seen[port - 2000] = true;
    }
    mappings_are_right(10);
    inject(LAN, udp4(.source = INSIDE ":4000", .destination = SERVER ":53"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.ports_exhausted", 1);
    mappings_are_right(10);
    /* Other protocols have ports of their own. */
    inject(LAN, tcp4(.source = INSIDE ":2004", .destination = SERVER ":80", .tcp_flags = SYN));
    expect(WAN, tcp4(.source = OUTSIDE ":2004", .destination = SERVER ":80", .tcp_flags = SYN,
                     .ttl = 63));
    mappings_are_right(11);
    advance(125000); /* nobody has answered */
    mappings_are_right(1);
    for (unsigned i = 0; i < 10; i++)
        require(open_udp(INSIDE, 2000 + i, SERVER ":53") == 2000 + i, "port %u is not free",
                2000 + i);
}

CASE(mappings_end_with_their_last_session) {
    start(text(
        NAT("'sessions': {'timeouts': {'udp_new': 10}}, 'nat': {'source': [" MASQUERADE "]}")));
    open_udp(INSIDE, 5000, SERVER ":53");
    advance(6000);
    open_udp(INSIDE, 5000, OTHER_SERVER ":53");
    mappings_are_right(1);
    advance(8000);
    mappings_are_right(1);
    advance(5000);
    mappings_are_right(0);
}

CASE(independent_of_the_endpoint) {
    start(masquerade);
    require(open_udp(SECOND, 5000, SERVER ":53") == 5000, "not preserved");
    unsigned port = open_udp(INSIDE, 5000, SERVER ":53");

    require(port != 5000, "one port for two hosts");
    for (unsigned i = 0; i < 20; i++)
        require(open_udp(INSIDE, 5000, end(OTHER_SERVER, 53 + i)) == port, "another port");
    mappings_are_right(2);
}

CASE(dependent_on_the_endpoint) {
    unsigned port;

    start(source_rule("'to': 'interface', 'mapping': 'endpoint_dependent'"));
    require(open_udp(INSIDE, 5000, SERVER ":53") == 5000, "not preserved");
    require(open_udp(SECOND, 5000, OTHER_SERVER ":53") == 5000, "not reused for another");
    port = open_udp(SECOND, 5000, SERVER ":53");
    require(port != 5000 && port % 2 == 0, "5000 became %u", port);
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
    expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63));
    inject(WAN, udp4(.source = OTHER_SERVER ":53", .destination = OUTSIDE ":5000"));
    expect(LAN, udp4(.source = OTHER_SERVER ":53", .destination = SECOND ":5000", .ttl = 63));
    inject(WAN, udp4(.source = SERVER ":53", .destination = end(OUTSIDE, port)));
    expect(LAN, udp4(.source = SERVER ":53", .destination = SECOND ":5000", .ttl = 63));
    mappings_are_right(0);
}

CASE(a_small_range_dependent_on_the_endpoint) {
    start(source_rule("'to': 'interface', 'mapping': 'endpoint_dependent', 'ports': '2000-2009'"));
    for (unsigned destination = 0; destination < 3; destination++) {
        bool seen[10] = {false};

        for (unsigned i = 0; i < 10; i++) {
            unsigned port = open_udp(INSIDE, 3000 + i, end(SERVER, 53 + destination));

            require(port >= 2000 && port <= 2009 && !seen[port - 2000], "%u became %u", i, port);
            seen[port - 2000] = true;
        }
        inject(LAN, udp4(.source = SECOND ":4000", .destination = end(SERVER, 53 + destination)));
        expect_nothing(ANYWHERE);
        expect_drop("nat.ports_exhausted", 1);
    }
    advance(125000);
    require(open_udp(INSIDE, 2003, SERVER ":53") == 2003, "not free again");
}

/* Two rules, two outside addresses: a host that uses one port for both has two mappings. */
CASE(each_outside_has_its_own_mapping) {
    start(NAT("'nat': {'source': [" MASQUERADE ", {'out': 'dmz', 'to': 'interface'}]}"));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = "10.3.0.10:53"));
    expect(DMZ, udp4(.source = "10.3.0.1:5000", .destination = "10.3.0.10:53", .ttl = 63));
    inject(DMZ, udp4(.source = "10.3.0.10:53", .destination = "10.3.0.1:5000"));
    expect(LAN, udp4(.source = "10.3.0.10:53", .destination = INSIDE ":5000", .ttl = 63));
}

CASE(rules_by_destination_have_their_own_mappings) {
    start(NAT("'nat': {'source': [{'out': 'wan', 'destination': '" SERVER "', 'to': '" POOLED
              "'}," MASQUERADE "]}"));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = POOLED ":5000", .destination = SERVER ":53", .ttl = 63));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = OTHER_SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = OTHER_SERVER ":53", .ttl = 63));
}

/* --- the router's own host --- */

/* It would reach the host, if there were a twin. */
static void is_for_host(const char *from, unsigned port, const char *destination) {
    struct frame *frame = udp4(.source = end(from, port), .destination = destination);

    inject(WAN, frame);
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = from, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = frame));
    expect_drop("local.no_listener", 1);
}

/* Somebody talks to a server of the host, and the client inside wants just these ports. */
CASE(a_mapping_meets_a_session_of_the_router) {
    unsigned port;

    start(masquerade);
    is_for_host(SERVER, 53, OUTSIDE ":5000");
    inject_from_host(udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53"));
    port = open_udp(INSIDE, 5000, SERVER ":53");
    require(port >= 1024 && port != 5000 && port % 2 == 0, "5000 became %u", port);
    mappings_are_right(1);
    for (unsigned i = 0; i < 3; i++) {
        inject(WAN, udp4(.source = SERVER ":53", .destination = end(OUTSIDE, port)));
        expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63));
        require(open_udp(INSIDE, 5000, SERVER ":53") == port, "another port");
        require(open_udp(INSIDE, 5000, OTHER_SERVER ":53") == port, "another port");
        is_for_host(SERVER, 53, OUTSIDE ":5000");
        inject_from_host(udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53"));
        expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53"));
    }
    /* A mapping that others use is what it is. */
    is_for_host(SERVER, 54, end(OUTSIDE, port));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":54"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.conflict", 1);
    mappings_are_right(1);
}

/* What it talks from is not given away, whoever it talks to; not even to strangers, who may send to
 * all mappings here. */
CASE(ports_of_the_router_s_host_are_not_chosen) {
    unsigned port;

    start(source_rule("'to': 'interface', 'filtering': 'endpoint_independent'"));
    for (unsigned i = 0; i < 2; i++) {
        inject_from_host(udp4(.source = OUTSIDE ":5000", .destination = end(OTHER_SERVER, 53 + i)));
        expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = end(OTHER_SERVER, 53 + i)));
    }
    port = open_udp(INSIDE, 5000, SERVER ":53");
    require(port >= 1024 && port != 5000 && port % 2 == 0, "5000 became %u", port);
    mappings_are_right(2);
    is_for_host(OTHER_SERVER, 53, OUTSIDE ":5000");
    is_for_host(OTHER_SERVER, 54, OUTSIDE ":5000");
    is_for_host("203.0.113.3", 99, OUTSIDE ":5000");
    inject(LAN, udp4(.source = SECOND ":6000", .destination = OUTSIDE ":5000"));
    expect(LAN,
           icmp4_error(.source = "192.168.1.1", .destination = SECOND, .type = UNREACHABLE,
                       .code = PORT_UNREACHABLE,
                       .about = udp4(.source = SECOND ":6000", .destination = OUTSIDE ":5000")));
    expect_drop("local.no_listener", 1);
    inject(WAN, udp4(.source = SERVER ":53", .destination = end(OUTSIDE, port)));
    expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63));
    /* TCP has ports of its own; echoes have identifiers. */
    inject(LAN, tcp4(.source = INSIDE ":5000", .destination = SERVER ":80", .tcp_flags = SYN));
    expect(WAN, tcp4(.source = OUTSIDE ":5000", .destination = SERVER ":80", .tcp_flags = SYN,
                     .ttl = 63));
    inject_from_host(icmp4_echo(.source = OUTSIDE, .destination = SERVER, .identifier = 77));
    expect(WAN, icmp4_echo(.source = OUTSIDE, .destination = SERVER, .identifier = 77));
    inject(LAN, icmp4_echo(.source = INSIDE, .destination = OTHER_SERVER, .identifier = 77));
    require(identifier(take_one(WAN)) != 77, "an identifier of the router");
    /* When its last session ends, the port is anybody's. */
    rpc("session.flush", "{'address': '" OTHER_SERVER "', 'port': 53}");
    advance(3000);
    require(open_udp(SECOND, 5000, SERVER ":53") != 5000, "it has another session");
    rpc("session.flush", "{}");
    advance(3000);
    mappings_are_right(0);
    require(open_udp(SECOND, 5000, SERVER ":53") == 5000, "not free again");
    /* And a port that a mapping has is no hindrance to the host. */
    inject_from_host(udp4(.source = OUTSIDE ":5000", .destination = OTHER_SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = OTHER_SERVER ":53"));
    is_for_host(OTHER_SERVER, 53, OUTSIDE ":5000");
    mappings_are_right(1);
}

/* --- filtering (RFC 4787 section 5) --- */

CASE(strangers_do_not_come_in) {
    start(source_rule("'to': '" POOLED "'"));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = POOLED ":5000", .destination = SERVER ":53", .ttl = 63));
    inject(WAN, udp4(.source = OTHER_SERVER ":53", .destination = POOLED ":5000"));
    inject(WAN, udp4(.source = SERVER ":54", .destination = POOLED ":5000"));
    inject(WAN, udp4(.source = SERVER ":53", .destination = POOLED ":5001"));
    inject(WAN, icmp4_echo(.source = SERVER, .destination = POOLED));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 4);
}

CASE(strangers_may_come_in) {
    start(source_rule("'to': '" POOLED "', 'filtering': 'endpoint_independent'"));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = POOLED ":5000", .destination = SERVER ":53", .ttl = 63));
    inject(WAN, udp4(.source = OTHER_SERVER ":99", .destination = POOLED ":5000"));
    expect(LAN, udp4(.source = OTHER_SERVER ":99", .destination = INSIDE ":5000", .ttl = 63));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = OTHER_SERVER ":99"));
    expect(WAN, udp4(.source = POOLED ":5000", .destination = OTHER_SERVER ":99", .ttl = 63));
    mappings_are_right(1);
    inject(WAN, udp4(.source = SERVER ":53", .destination = POOLED ":5001"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
}

/* The mapping lives on, and the rules in force say who may send to it. */
CASE(a_filter_that_closes_and_opens) {
    const char *const closed = source_rule("'to': '" POOLED "'"),
                      *const open =
                          source_rule("'to': '" POOLED "', 'filtering': 'endpoint_independent'");
    struct frame *stranger = udp4(.source = OTHER_SERVER ":99", .destination = POOLED ":5000");

    start(open);
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = POOLED ":5000", .destination = SERVER ":53", .ttl = 63));
    apply(closed);
    inject(WAN, stranger);
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
    apply(open);
    inject(WAN, stranger);
    expect(LAN, udp4(.source = OTHER_SERVER ":99", .destination = INSIDE ":5000", .ttl = 63));
    mappings_are_right(1);
}

/* Two rules share a mapping, and each speaks for those whom it is about. */
CASE(open_to_some_strangers) {
    start(NAT("'nat': {'source': [{'out': 'wan', 'in': 'lan', 'destination': '" SERVER
              "', 'to': '" POOLED "', 'filtering': 'endpoint_independent'},"
              "{'out': 'wan', 'in': 'lan', 'to': '" POOLED "'},"
              "{'out': 'wan', 'to': '" POOLED "', 'filtering': 'endpoint_independent'}]}"));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = "203.0.113.7:53"));
    expect(WAN, udp4(.source = POOLED ":5000", .destination = "203.0.113.7:53", .ttl = 63));
    inject(WAN, udp4(.source = SERVER ":99", .destination = POOLED ":5000"));
    expect(LAN, udp4(.source = SERVER ":99", .destination = INSIDE ":5000", .ttl = 63));
    inject(WAN, udp4(.source = OTHER_SERVER ":99", .destination = POOLED ":5000"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
}

CASE(pings_to_the_router_do_not_meet_mappings) {
    start(
        source_rule("'to': 'interface', 'ports': '1-65535', 'filtering': 'endpoint_independent'"));
    inject(LAN, icmp4_echo(.source = INSIDE, .destination = SERVER, .identifier = 8));
    expect(WAN, icmp4_echo(.source = OUTSIDE, .destination = SERVER, .identifier = 8, .ttl = 63));
    inject(WAN, icmp4_echo(.source = OTHER_SERVER, .destination = OUTSIDE, .identifier = 77));
    expect(WAN, icmp4_echo_reply(.source = OUTSIDE, .destination = OTHER_SERVER, .identifier = 77));
}

/* --- pools --- */

CASE(a_host_keeps_its_address_of_the_pool) {
    unsigned used = 0;
    bool seen[4] = {false};

    start(source_rule("'to': '198.51.100.48/30'"));
    for (unsigned host = 10; host < 42; host++) {
        unsigned address = 0;

        for (unsigned i = 0; i < 5; i++) {
            struct frame *found;

            inject(LAN, udp4(.source = text("192.168.1.%u:%u", host, 3000 + i),
                             .destination = i % 2 ? SERVER ":53" : OTHER_SERVER ":53"));
            found = take_one(WAN);
            require(i == 0 || found->bytes[IP + 15] == address, "host %u has several addresses",
                    host);
            address = found->bytes[IP + 15];
            require(found->bytes[IP + 14] == 100 && address >= 48 && address <= 51,
                    "an address out of the pool");
        }
        used += !seen[address - 48];
        seen[address - 48] = true;
    }
    require(used == 4, "only %u of 4 addresses are used", used);
}

CASE(the_pool_s_addresses_are_answered_for) {
    start(source_rule("'to': ['198.51.100.48/30', '198.51.100.60']"));
    for (unsigned host = 46; host < 62; host++) {
        bool is_ours = (host >= 48 && host <= 51) || host == 60;

        inject(WAN, arp_request(.sender = "198.51.100.2", .sender_mac = HOST_WAN,
                                .target = text("198.51.100.%u", host)));
        if (is_ours)
            expect(WAN, arp_reply(.sender = text("198.51.100.%u", host), .sender_mac = ROUTER_WAN,
                                  .target = "198.51.100.2", .target_mac = HOST_WAN));
        expect_nothing(ANYWHERE);
    }
    forget_drops();
}

/* RFC 7422: who had a port follows from the configuration. */
CASE(a_pool_around_the_router_s_own_address) {
    static const char *const pools[] = {"198.51.96.0/20", "198.51.96.0/19", "198.51.100.1/32",
                                        "198.51.0.0-198.51.100.1", "198.51.100.1-198.51.200.0"};

    for (unsigned i = 0; i < RTE_DIM(pools); i++) {
        const char *const rules =
            source_rule(text("'to': '%s', 'mapping': 'endpoint_dependent'", pools[i]));

        if (i == 0)
            start(rules);
        else
            apply(rules);
        inject(WAN,
               icmp4_echo(.source = "198.51.100.2", .destination = OUTSIDE, .identifier = i + 1));
        expect(WAN, icmp4_echo_reply(.source = OUTSIDE, .destination = "198.51.100.2",
                                     .identifier = i + 1));
    }
    apply(source_rule("'to': '198.51.96.0/19', 'mapping': 'endpoint_dependent'"));
    inject(WAN, udp4(.source = SERVER ":1", .destination = "198.51.100.50:1"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
}

CASE(port_blocks) {
    start(source_rule("'to': '198.51.100.48/31', 'ports': '10000-10999', 'port_block': 10"));
    for (unsigned host = 0; host < 200; host += 7) {
        unsigned block = host % 100;

        for (unsigned i = 0; i < 10; i++) {
            struct frame *found;
            unsigned port;

            inject(LAN, udp4(.source = text("192.168.1.%u:%u", host + 2, 3000 + i),
                             .destination = SERVER ":53"));
            found = take_one(WAN);
            port = source_port(found);
            block = (host + 2) % 100;
            require(found->bytes[IP + 15] == 48 + (host + 2) / 100, "host %u has .%u", host + 2,
                    found->bytes[IP + 15]);
            require(port >= 10000 + block * 10 && port < 10010 + block * 10, "host %u has port %u",
                    host + 2, port);
        }
        inject(LAN,
               udp4(.source = text("192.168.1.%u:4000", host + 2), .destination = SERVER ":53"));
        expect_nothing(ANYWHERE);
        expect_drop("nat.ports_exhausted", 1);
    }
    inject(LAN, udp4(.source = "192.168.1.200:4000", .destination = SERVER ":53"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_port_block", 1);
}

/* --- destination NAT --- */

CASE(a_port_forward) {
    start(destination_rule("'protocol': 'tcp', 'destination_port': 8080, 'to': '" INSIDE ":80'"));
    inject(WAN, tcp4(.source = SERVER ":5000", .destination = OUTSIDE ":8080", .tcp_flags = SYN));
    expect(LAN, tcp4(.source = SERVER ":5000", .destination = INSIDE ":80", .tcp_flags = SYN,
                     .ttl = 63));
    inject(LAN,
           tcp4(.source = INSIDE ":80", .destination = SERVER ":5000", .tcp_flags = SYN | ACK));
    expect(WAN, tcp4(.source = OUTSIDE ":8080", .destination = SERVER ":5000",
                     .tcp_flags = SYN | ACK, .ttl = 63));
    inject(WAN, tcp4(.source = SERVER ":5000", .destination = OUTSIDE ":8080", .tcp_flags = ACK));
    expect(LAN, tcp4(.source = SERVER ":5000", .destination = INSIDE ":80", .tcp_flags = ACK,
                     .ttl = 63));
    /* Other ports are the router's own, and other protocols. */
    inject(WAN, icmp4_echo(.source = SERVER, .destination = OUTSIDE));
    expect(WAN, icmp4_echo_reply(.source = OUTSIDE, .destination = SERVER));
}

CASE(a_port_forward_that_keeps_the_port) {
    start(
        destination_rule("'protocol': 'udp', 'destination_port': '5000-5999', 'to': '" INSIDE "'"));
    for (unsigned port = 5000; port < 6000; port += 333) {
        inject(WAN, udp4(.source = SERVER ":53", .destination = end(OUTSIDE, port)));
        expect(LAN, udp4(.source = SERVER ":53", .destination = end(INSIDE, port), .ttl = 63));
        inject(LAN, udp4(.source = end(INSIDE, port), .destination = SERVER ":53"));
        expect(WAN, udp4(.source = end(OUTSIDE, port), .destination = SERVER ":53", .ttl = 63));
    }
}

CASE(a_range_of_ports_goes_to_another_range) {
    start(destination_rule("'protocol': 'udp', 'destination_port': '5000-5999', 'to': '" INSIDE
                           ":7000'"));
    for (unsigned port = 5000; port < 6000; port += 333) {
        inject(WAN, udp4(.source = SERVER ":53", .destination = end(OUTSIDE, port)));
        expect(LAN,
               udp4(.source = SERVER ":53", .destination = end(INSIDE, port + 2000), .ttl = 63));
        inject(LAN, udp4(.source = end(INSIDE, port + 2000), .destination = SERVER ":53"));
        expect(WAN, udp4(.source = end(OUTSIDE, port), .destination = SERVER ":53", .ttl = 63));
    }
}

CASE(servers_share_the_load) {
    unsigned count[3] = {0};

    start(NAT("'nat': {'destination': [{'in': 'wan', 'protocol': 'udp', 'destination_port': 53,"
              "'to': '10.3.0.10-10.3.0.12:5353'}]},"
              "'firewall': {'default': 'accept'}"));
    rpc("neighbour.add", "{'interface': 'dmz', 'address': '10.3.0.11', 'mac': '" HOST_DMZ "'}");
    rpc("neighbour.add", "{'interface': 'dmz', 'address': '10.3.0.12', 'mac': '" HOST_DMZ "'}");
    for (unsigned client = 1; client < 100; client++) {
        unsigned chosen = 0;

        for (unsigned i = 0; i < 3; i++) {
            struct frame *found;

            inject(WAN, udp4(.source = text("203.0.113.%u:%u", client, 5000 + i),
                             .destination = OUTSIDE ":53"));
            found = take_one(DMZ);
            require(i == 0 || chosen == found->bytes[IP + 19], "the client changes its server");
            chosen = found->bytes[IP + 19];
            require(chosen >= 10 && chosen <= 12, "server .%u", chosen);
        }
        count[chosen - 10]++;
        inject(DMZ, udp4(.source = text("10.3.0.%u:5353", chosen),
                         .destination = text("203.0.113.%u:5000", client)));
        expect(WAN, udp4(.source = OUTSIDE ":53", .destination = text("203.0.113.%u:5000", client),
                         .ttl = 63));
    }
    require(count[0] > 15 && count[1] > 15 && count[2] > 15, "%u, %u, %u clients", count[0],
            count[1], count[2]);
}

CASE(static_translation_both_ways) {
    start(NAT("'nat': {'source': [" MASQUERADE "], 'static': [{'outside': '" POOLED
              "', 'inside': '" INSIDE "'}]}"));
    inject(LAN, udp4(.source = INSIDE ":99", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = POOLED ":99", .destination = SERVER ":53", .ttl = 63));
    inject(WAN, tcp4(.source = SERVER ":5000", .destination = POOLED ":22", .tcp_flags = SYN));
    expect(LAN, tcp4(.source = SERVER ":5000", .destination = INSIDE ":22", .tcp_flags = SYN,
                     .ttl = 63));
    inject(LAN,
           tcp4(.source = INSIDE ":22", .destination = SERVER ":5000", .tcp_flags = SYN | ACK));
    expect(WAN, tcp4(.source = POOLED ":22", .destination = SERVER ":5000", .tcp_flags = SYN | ACK,
                     .ttl = 63));
    inject(WAN, icmp4_echo(.source = SERVER, .destination = POOLED, .identifier = 7));
    expect(LAN, icmp4_echo(.source = SERVER, .destination = INSIDE, .identifier = 7, .ttl = 63));
    inject(LAN, icmp4_echo_reply(.source = INSIDE, .destination = SERVER, .identifier = 7));
    expect(WAN,
           icmp4_echo_reply(.source = POOLED, .destination = SERVER, .identifier = 7, .ttl = 63));
    inject(WAN, ip4(.source = SERVER, .destination = POOLED, .protocol = 47));
    expect(LAN, ip4(.source = SERVER, .destination = INSIDE, .protocol = 47, .ttl = 63));
    inject(LAN, udp4(.source = SECOND ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
    inject(WAN, arp_request(.sender = "198.51.100.2", .sender_mac = HOST_WAN, .target = POOLED));
    expect(WAN, arp_reply(.sender = POOLED, .sender_mac = ROUTER_WAN, .target = "198.51.100.2",
                          .target_mac = HOST_WAN));
}

/* --- hairpins (RFC 4787 section 6) --- */

CASE(a_hairpin_to_a_mapping) {
    start(masquerade);
    open_udp(INSIDE, 5000, SERVER ":53");
    inject(LAN, udp4(.source = SECOND ":6000", .destination = OUTSIDE ":5000"));
    expect(LAN, udp4(.source = OUTSIDE ":6000", .destination = INSIDE ":5000", .ttl = 63));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = OUTSIDE ":6000"));
    expect(LAN, udp4(.source = OUTSIDE ":5000", .destination = SECOND ":6000", .ttl = 63));
    inject(LAN, udp4(.source = SECOND ":6000", .destination = OUTSIDE ":5000", .size = 99));
    expect(LAN,
           udp4(.source = OUTSIDE ":6000", .destination = INSIDE ":5000", .size = 99, .ttl = 63));
    mappings_are_right(2);
}

CASE(a_hairpin_to_a_port_forward) {
    start(destination_rule("'protocol': 'tcp', 'destination_port': 8080, 'to': '" INSIDE ":80'"));
    inject(LAN, tcp4(.source = SECOND ":6000", .destination = OUTSIDE ":8080", .tcp_flags = SYN));
    expect(LAN, tcp4(.source = OUTSIDE ":6000", .destination = INSIDE ":80", .tcp_flags = SYN,
                     .ttl = 63));
    inject(LAN,
           tcp4(.source = INSIDE ":80", .destination = OUTSIDE ":6000", .tcp_flags = SYN | ACK));
    expect(LAN, tcp4(.source = OUTSIDE ":8080", .destination = SECOND ":6000",
                     .tcp_flags = SYN | ACK, .ttl = 63));
    /* Even the server itself. */
    inject(LAN, tcp4(.source = INSIDE ":6001", .destination = OUTSIDE ":8080", .tcp_flags = SYN));
    expect(LAN, tcp4(.source = OUTSIDE ":6001", .destination = INSIDE ":80", .tcp_flags = SYN,
                     .ttl = 63));
}

CASE(a_hairpin_to_a_static_translation) {
    start(NAT("'nat': {'source': [" MASQUERADE "], 'static': [{'outside': '" POOLED
              "', 'inside': '" INSIDE "'}]}"));
    inject(LAN, udp4(.source = SECOND ":6000", .destination = POOLED ":53"));
    expect(LAN, udp4(.source = OUTSIDE ":6000", .destination = INSIDE ":53", .ttl = 63));
    inject(LAN, udp4(.source = INSIDE ":53", .destination = OUTSIDE ":6000"));
    expect(LAN, udp4(.source = POOLED ":53", .destination = SECOND ":6000", .ttl = 63));
}

CASE(no_hairpin_where_it_is_switched_off) {
    start(destination_rule("'protocol': 'udp', 'destination_port': 8080, 'to': '" INSIDE
                           ":80', 'hairpin': false"));
    inject(LAN, udp4(.source = SECOND ":6000", .destination = OUTSIDE ":8080"));
    expect(LAN,
           icmp4_error(.source = "192.168.1.1", .destination = SECOND, .type = UNREACHABLE,
                       .code = PORT_UNREACHABLE,
                       .about = udp4(.source = SECOND ":6000", .destination = OUTSIDE ":8080")));
    forget_drops();
}

/* --- ICMP errors (RFC 5508) --- */

/* From outside about a translated packet: the quote is what the host inside has sent. */
static void error_from_outside(const char *from, struct frame *inside, struct frame *outside,
                               unsigned type, unsigned code, unsigned quote) {
    inject(WAN, icmp4_error(.source = from, .destination = OUTSIDE, .type = type, .code = code,
                            .rest = code == TOO_BIG ? 1400 : 0, .about = outside, .quote = quote));
    expect(LAN, icmp4_error(.source = from, .destination = INSIDE, .type = type, .code = code,
                            .rest = code == TOO_BIG ? 1400 : 0, .about = inside, .quote = quote,
                            .ttl = 63));
}

CASE(errors_about_translated_packets) {
    static const unsigned quotes[] = {28, 29, 48, 0};

    start(masquerade);
    /* Somebody else has the ports already, so that ports change as well. */
    open_udp(SECOND, 5000, SERVER ":53");
    inject(LAN, tcp4(.source = SECOND ":5000", .destination = SERVER ":80", .tcp_flags = SYN));
    discard(WAN);
    inject(LAN, icmp4_echo(.source = SECOND, .destination = SERVER, .identifier = 5000));
    discard(WAN);

    for (unsigned i = 0; i < sizeof(quotes) / sizeof(quotes[0]); i++) {
        struct frame *udp = udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .size = 60);
        struct frame *tcp =
            tcp4(.source = INSIDE ":5000", .destination = SERVER ":80", .tcp_flags = SYN);
        struct frame *echo =
            icmp4_echo(.source = INSIDE, .destination = SERVER, .identifier = 5000, .size = 33);
        struct frame *out;

        inject(LAN, udp);
        out = take_one(WAN);
        error_from_outside(SERVER, hop(udp), out, UNREACHABLE, PORT_UNREACHABLE, quotes[i]);
        error_from_outside("198.51.100.9", hop(udp), out, TIME_EXCEEDED, 0, quotes[i]);
        error_from_outside("198.51.100.9", hop(udp), out, UNREACHABLE, TOO_BIG, quotes[i]);
        inject(LAN, tcp);
        out = take_one(WAN);
        error_from_outside(SERVER, hop(tcp), out, UNREACHABLE, 1, quotes[i]);
        error_from_outside("198.51.100.9", hop(tcp), out, UNREACHABLE, TOO_BIG, quotes[i]);
        inject(LAN, echo);
        out = take_one(WAN);
        error_from_outside("198.51.100.9", hop(echo), out, TIME_EXCEEDED, 0, quotes[i]);
    }
}

CASE(errors_about_packets_without_checksum) {
    struct frame *inside =
        poke(udp4(.source = INSIDE ":5000", .destination = SERVER ":53"), IP4_PAYLOAD + 6, "0000");
    struct frame *out;

    start(masquerade);
    inject(LAN, inside);
    out = take_one(WAN);
    error_from_outside(SERVER, hop(inside), out, UNREACHABLE, PORT_UNREACHABLE, 0);
}

/* From inside about an answer: whoever is behind the router shows its address. */
CASE(errors_from_inside_about_answers) {
    struct frame *in, *answer = udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000");

    start(masquerade);
    open_udp(INSIDE, 5000, SERVER ":53");
    inject(WAN, answer);
    in = take_one(LAN);
    inject(LAN, icmp4_error(.source = INSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = in));
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = hop(answer), .ttl = 63));
    /* A router further inside. */
    inject(LAN, icmp4_error(.source = SECOND, .destination = SERVER, .type = TIME_EXCEEDED,
                            .about = in));
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = TIME_EXCEEDED,
                            .about = hop(answer), .ttl = 63));
}

CASE(errors_from_inside_about_a_port_forward) {
    struct frame *in,
        *syn = tcp4(.source = SERVER ":5000", .destination = OUTSIDE ":8080", .tcp_flags = SYN);

    start(destination_rule("'protocol': 'tcp', 'destination_port': 8080, 'to': '" INSIDE ":80'"));
    inject(WAN, syn);
    in = take_one(LAN);
    inject(LAN, icmp4_error(.source = INSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = 10, .about = in));
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = 10, .about = hop(syn), .ttl = 63));
}

CASE(errors_about_answers_of_a_port_forward) {
    struct frame *out, *answer = udp4(.source = INSIDE ":80", .destination = SERVER ":5000");

    start(destination_rule("'protocol': 'udp', 'destination_port': 8080, 'to': '" INSIDE ":80'"));
    inject(WAN, udp4(.source = SERVER ":5000", .destination = OUTSIDE ":8080"));
    discard(LAN);
    inject(LAN, answer);
    out = take_one(WAN);
    error_from_outside("198.51.100.9", hop(answer), out, UNREACHABLE, TOO_BIG, 0);
    error_from_outside(SERVER, hop(answer), out, UNREACHABLE, PORT_UNREACHABLE, 28);
}

CASE(errors_about_hairpins) {
    struct frame *there = udp4(.source = SECOND ":6000", .destination = OUTSIDE ":5000"), *found;

    start(masquerade);
    open_udp(INSIDE, 5000, SERVER ":53");
    inject(LAN, there);
    found = take_one(LAN);
    inject(LAN, icmp4_error(.source = INSIDE, .destination = OUTSIDE, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = found));
    expect(LAN, icmp4_error(.source = OUTSIDE, .destination = SECOND, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = hop(there), .ttl = 63));
}

CASE(errors_about_gre) {
    struct frame *gre = ip4(.source = INSIDE, .destination = SERVER, .protocol = 47, .size = 50);
    struct frame *out;

    start(masquerade);
    inject(LAN, gre);
    out = take_one(WAN);
    error_from_outside("198.51.100.9", hop(gre), out, UNREACHABLE, TOO_BIG, 28);
}

CASE(errors_with_quotes_of_every_length) {
    struct frame *tcp = tcp4(.source = INSIDE ":5000", .destination = SERVER ":80",
                             .tcp_flags = SYN, .options = "010101010101", .size = 30);
    struct frame *udp = udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .size = 60);
    struct frame *out_tcp, *out_udp;

    start(masquerade);
    open_udp(SECOND, 5000, SERVER ":53");
    inject(LAN, tcp4(.source = SECOND ":5000", .destination = SERVER ":80", .tcp_flags = SYN));
    discard(WAN);
    inject(LAN, tcp);
    out_tcp = take_one(WAN);
    inject(LAN, udp);
    out_udp = take_one(WAN);
    for (unsigned quote = 1; quote < 78; quote++) {
        if (quote == 45)
            continue; /* half of TCP's checksum is of no use to anybody */
        if (quote >= 28) {
            error_from_outside(SERVER, hop(udp), out_udp, UNREACHABLE, PORT_UNREACHABLE, quote);
        } else {
            inject(WAN, icmp4_error(.source = SERVER, .destination = OUTSIDE, .type = UNREACHABLE,
                                    .code = PORT_UNREACHABLE, .about = out_udp, .quote = quote));
            expect_nothing(ANYWHERE);
            expect_drop("session.icmp_quote", 1);
        }
        if (quote >= 36) {
            error_from_outside(SERVER, hop(tcp), out_tcp, TIME_EXCEEDED, 0, quote);
        } else {
            inject(WAN, icmp4_error(.source = SERVER, .destination = OUTSIDE, .type = TIME_EXCEEDED,
                                    .about = out_tcp, .quote = quote));
            expect_nothing(ANYWHERE);
            expect_drop("session.icmp_quote", 1);
        }
    }
}

/* Either the quoted packet is translated with all its checksums, or the error does not pass. */
CASE(errors_in_two_buffers) {
    enum { QUOTED = IP4_PAYLOAD + 8 + 20, TCP_CHECKSUM_END = QUOTED + 18 };
    struct frame *tcp =
        tcp4(.source = INSIDE ":5000", .destination = SERVER ":80", .tcp_flags = SYN, .size = 30);
    struct frame *udp = udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .size = 60);
    struct frame *out_tcp, *out_udp, *error;

    start(masquerade);
    open_udp(SECOND, 5000, SERVER ":53");
    inject(LAN, tcp4(.source = SECOND ":5000", .destination = SERVER ":80", .tcp_flags = SYN));
    discard(WAN);
    inject(LAN, tcp);
    out_tcp = take_one(WAN);
    inject(LAN, udp);
    out_udp = take_one(WAN);
    error = icmp4_error(.source = SERVER, .destination = OUTSIDE, .type = UNREACHABLE, .code = 1,
                        .about = out_tcp);
    for (unsigned first = QUOTED + 8; first < error->length; first++) {
        inject_split(WAN, error, first);
        if (first < TCP_CHECKSUM_END) {
            expect_nothing(ANYWHERE);
            expect_drop("session.split_header", 1);
        } else {
            expect(LAN, icmp4_error(.source = SERVER, .destination = INSIDE, .type = UNREACHABLE,
                                    .code = 1, .about = hop(tcp), .ttl = 63));
        }
    }
    /* One that quotes less than the checksum. */
    error = icmp4_error(.source = SERVER, .destination = OUTSIDE, .type = UNREACHABLE, .code = 1,
                        .about = out_tcp, .quote = 20 + 16);
    inject_split(WAN, error, QUOTED + 10);
    expect(LAN, icmp4_error(.source = SERVER, .destination = INSIDE, .type = UNREACHABLE, .code = 1,
                            .about = hop(tcp), .quote = 20 + 16, .ttl = 63));
    error = icmp4_error(.source = SERVER, .destination = OUTSIDE, .type = UNREACHABLE, .code = 1,
                        .about = out_udp);
    for (unsigned first = QUOTED + 8; first < error->length; first++) {
        inject_split(WAN, error, first);
        expect(LAN, icmp4_error(.source = SERVER, .destination = INSIDE, .type = UNREACHABLE,
                                .code = 1, .about = hop(udp), .ttl = 63));
    }
}

/* Those that quote what nobody has sent, byte by byte. */
CASE(errors_that_quote_something_else) {
    struct frame *udp, *out;

    start(masquerade);
    udp = udp4(.source = INSIDE ":5000", .destination = SERVER ":53");
    inject(LAN, udp);
    out = take_one(WAN);
    for (unsigned bit = 0; bit < 28 * 8; bit++) {
        struct frame *changed = copy(out), *found;

        changed->bytes[IP + bit / 8] ^= (uint8_t)(1 << bit % 8);
        inject(WAN, icmp4_error(.source = "198.51.100.9", .destination = OUTSIDE,
                                .type = UNREACHABLE, .code = 1, .about = changed));
        found = take(LAN);
        /* Nothing but the addresses, protocol and ports says whose it is. */
        if (found)
            require(bit / 8 < 9 || (bit / 8 > 9 && bit / 8 < 12) || bit / 8 >= 24,
                    "bit %u of the quote is not looked at", bit);
    }
    discard(ANYWHERE);
    forget_drops();
}

/* RFC 4884: what is quoted keeps its length, so what is behind it stays where it is. */
CASE(extensions_of_errors_stay) {
    struct frame *sent;

    start(masquerade);
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .size = 33));
    sent = take_one(WAN);
    inject(WAN, icmp4_error(.source = "198.51.100.9", .destination = OUTSIDE, .type = UNREACHABLE,
                            .code = 1, .about = sent, .extension_at = 128,
                            .extension = "2000e1ab0008010100010102"));
    expect(LAN, icmp4_error(.source = "198.51.100.9", .destination = INSIDE, .type = UNREACHABLE,
                            .code = 1, .ttl = 63, .extension_at = 128,
                            .extension = "2000e1ab0008010100010102",
                            .about = udp4(.source = INSIDE ":5000", .destination = SERVER ":53",
                                          .size = 33, .ttl = 63)));
}

CASE(random_errors_do_no_harm) {
    start(masquerade);
    for (unsigned n = 0; n < 10000; n++) {
        static const uint8_t protocols[] = {1, 6, 17, 47, 132, 33, 136, 4};
        struct frame *about =
            ip4(.source = draw(2) ? OUTSIDE : SERVER, .destination = draw(2) ? SERVER : OUTSIDE,
                .size = 1 + draw(60), .protocol = protocols[draw(8)],
                .fragment = draw(8) ? 0 : draw(0x10000));

        for (unsigned at = IP4_PAYLOAD; at < about->length; at++)
            about->bytes[at] = (uint8_t)draw(at < IP4_PAYLOAD + 4 ? 4 : 256);
        if (draw(4) == 0)
            about->bytes[IP] = (uint8_t)(0x40 | draw(16));
        if (draw(4) == 0) {
            memcpy(about->bytes + IP + 12, "\xc0\xa8\x01\x0a", 4);
            inject(LAN, about);
        } else {
            inject(draw(2) ? WAN : LAN, icmp4_error(.source = draw(2) ? SERVER : INSIDE,
                                                    .destination = draw(2) ? OUTSIDE : SERVER,
                                                    .type = draw(2) ? UNREACHABLE : TIME_EXCEEDED,
                                                    .code = draw(16), .about = about));
        }
        if (n % 64 == 63) {
            discard(ANYWHERE);
            frames_free();
        }
    }
    discard(ANYWHERE);
    rpc("session.flush", "{}");
    advance(60000);
    discard(ANYWHERE);
    forget_drops();
    mappings_are_right(0);
}

CASE(traceroute_begins_at_the_router) {
    start(masquerade);
    for (unsigned i = 0; i < 3; i++) {
        struct frame *probe =
            udp4(.source = INSIDE ":5000", .destination = end(SERVER, 33434 + i), .ttl = 1);

        inject(LAN, probe);
        expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = INSIDE,
                                .type = TIME_EXCEEDED, .about = probe));
        expect_drop("local.time_exceeded", 1);
    }
    mappings_are_right(0);
    /* The same for packets of a session that there is. */
    open_udp(INSIDE, 5000, SERVER ":33434");

    struct frame *probe = udp4(.source = INSIDE ":5000", .destination = SERVER ":33434", .ttl = 1);

    inject(LAN, probe);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = INSIDE, .type = TIME_EXCEEDED,
                            .about = probe));
    expect_drop("local.time_exceeded", 1);
    probe = udp4(.source = SERVER ":33434", .destination = OUTSIDE ":5000", .ttl = 1);
    inject(WAN, probe);
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = TIME_EXCEEDED,
                            .about = probe));
    expect_drop("local.time_exceeded", 1);
}

CASE(a_probe_that_ends_at_the_router_behind_a_port_forward) {
    struct frame *probe = udp4(.source = SERVER ":5000", .destination = OUTSIDE ":8080", .ttl = 1);

    start(destination_rule("'protocol': 'udp', 'destination_port': 8080, 'to': '" INSIDE ":80'"));
    inject(WAN, probe);
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = TIME_EXCEEDED,
                            .about = probe));
    expect_drop("local.time_exceeded", 1);
}

CASE(a_port_forward_to_nowhere) {
    struct frame *probe = udp4(.source = SERVER ":5000", .destination = OUTSIDE ":8080");

    start("{" INTERFACES NEIGHBOURS
          "'routes': [{'prefix': '203.0.113.0/24', 'via': '198.51.100.2'},"
          "{'prefix': '172.16.0.0/16', 'unreachable': true}],"
          "'nat': {'destination': [{'in': 'wan', 'protocol': 'udp', 'destination_port': 8080,"
          "'to': '172.16.0.1:80'}]}," UNLIMITED "}");
    inject(WAN, probe);
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = 1, .about = probe));
    expect_drop("local.host_unreachable", 1);
}

#define SMALL_WAN                                                                \
    "{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"                  \
    "'wan': {" WAN_PORT ", 'addresses': ['198.51.100.1/24'], 'mtu': 1000}},"     \
    "'neighbours': [" LAN_NEIGHBOURS                                             \
    ", {'interface': 'wan', 'address': '198.51.100.2', 'mac': '" HOST_WAN "'}]," \
    "'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}],"                \
    "'nat': {'source': [" MASQUERADE "]}," UNLIMITED "}"

CASE(packets_too_big_behind_the_nat) {
    struct frame *big = udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .size = 1200,
                             .fragment = DONT_FRAGMENT);

    start(SMALL_WAN);
    for (unsigned i = 0; i < 2; i++) { /* without, and with a session */
        inject(LAN, big);
        expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = INSIDE, .type = UNREACHABLE,
                                .code = TOO_BIG, .rest = 1000, .about = big));
        expect_drop("local.too_big", 1);
    }
}

CASE(packets_that_the_router_fragments) {
    struct frame *big =
        udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .size = 1200, .id = 99);
    struct frame *out = udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .size = 1200,
                             .id = 99, .ttl = 63);

    start(SMALL_WAN);
    inject(LAN, big);
    expect(WAN, fragment4(out, 0, 976));
    expect(WAN, fragment4(out, 976, 976));
}

/* --- fragments --- */

CASE(fragments_are_translated) {
    struct frame *in =
        udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .size = 3000, .id = 1);
    struct frame *out = udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .size = 3000,
                             .id = 1, .ttl = 63);

    start(masquerade);
    for (unsigned at = 0; at < 3008; at += 1000) {
        inject(LAN, fragment4(in, at, 1000));
        expect(WAN, fragment4(out, at, 1000));
    }
    in = udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000", .size = 3000, .id = 2);
    out = udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .size = 3000, .id = 2,
               .ttl = 63);
    for (unsigned at = 0; at < 3008; at += 1000)
        inject(WAN, fragment4(in, at, 1000));
    for (unsigned at = 0; at < 3008; at += 1000)
        expect(LAN, fragment4(out, at, 1000));
}

CASE(fragments_in_disorder_are_translated) {
    struct frame *in =
        udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .size = 3000, .id = 1);
    struct frame *out = udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .size = 3000,
                             .id = 1, .ttl = 63);

    start(masquerade);
    inject(LAN, fragment4(in, 2000, 1000));
    inject(LAN, fragment4(in, 1000, 1000));
    expect_nothing(ANYWHERE);
    inject(LAN, fragment4(in, 0, 1000));
    expect(WAN, fragment4(out, 0, 1000));
    expect(WAN, fragment4(out, 2000, 1000));
    expect(WAN, fragment4(out, 1000, 1000));
    inject(LAN, fragment4(in, 3000, 1000));
    expect(WAN, fragment4(out, 3000, 1000));
    in = udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000", .size = 1500, .id = 2);
    out = udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .size = 1500, .id = 2,
               .ttl = 63);
    inject(WAN, fragment4(in, 1000, 1000));
    inject(WAN, fragment4(in, 0, 1000));
    expect(LAN, fragment4(out, 0, 1000));
    expect(LAN, fragment4(out, 1000, 1000));
}

CASE(fragmented_pings_are_translated) {
    struct frame *in = icmp4_echo(.source = INSIDE, .destination = SERVER, .size = 2000,
                                  .identifier = 5000, .id = 1);
    struct frame *out = icmp4_echo(.source = OUTSIDE, .destination = SERVER, .size = 2000,
                                   .identifier = 5000, .id = 1, .ttl = 63);

    start(masquerade);
    for (unsigned at = 0; at < 2008; at += 1000) {
        inject(LAN, fragment4(in, at, 1000));
        expect(WAN, fragment4(out, at, 1000));
    }
}

/* --- VRFs --- */

CASE(from_one_vrf_into_another) {
    start("{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
          "'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'vrf': 'blue'},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
          "'routes': [" DEFAULT_ROUTES ", {'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via':"
          "'198.51.100.2', 'interface': 'wan'}],"
          "'nat': {'source': [" MASQUERADE "]}," UNLIMITED "}");
    for (unsigned i = 0; i < 3; i++) {
        struct frame *probe;

        inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
        expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
        inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
        expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63));
        inject(LAN, tcp4(.source = INSIDE ":5000", .destination = SERVER ":80", .tcp_flags = SYN));
        expect(WAN, tcp4(.source = OUTSIDE ":5000", .destination = SERVER ":80", .tcp_flags = SYN,
                         .ttl = 63));
        /* Errors find their way, too: from outside, and the router's own. */
        error_from_outside("198.51.100.9",
                           udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .ttl = 63),
                           udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63),
                           UNREACHABLE, TOO_BIG, 28);
        probe = udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .ttl = 1);
        inject(LAN, probe);
        expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = INSIDE,
                                .type = TIME_EXCEEDED, .about = probe));
        probe = udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000", .ttl = 1);
        inject(WAN, probe);
        expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = TIME_EXCEEDED,
                                .about = probe));
        expect_drop("local.time_exceeded", 2);
    }
}

/* The inside address of another VRF may be another host's here: those are not led to. */
CASE(an_open_mapping_of_another_vrf_leads_nowhere) {
    start("{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
          "'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'vrf': 'blue'},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
          "'dmz': {" DMZ_PORT ", 'addresses': ['192.168.1.2/24']}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS
          ", {'interface': 'dmz', 'address': '" INSIDE "', 'mac': '" HOST_DMZ "'}],"
          "'routes': [" DEFAULT_ROUTES ", {'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via':"
          "'198.51.100.2', 'interface': 'wan'}],"
          "'nat': {'source': [{'out': 'wan', 'to': '198.51.100.50', 'filtering':"
          " 'endpoint_independent'}]}," UNLIMITED "}");
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = "198.51.100.50:5000", .destination = SERVER ":53", .ttl = 63));
    is_dropped(WAN, udp4(.source = "203.0.113.77:9", .destination = "198.51.100.50:5000"),
               "nat.no_mapping");
    inject(WAN, udp4(.source = SERVER ":53", .destination = "198.51.100.50:5000"));
    expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63));
}

CASE(fragments_from_one_vrf_into_another) {
    struct frame *in =
        udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000", .size = 1500, .id = 2);
    struct frame *out = udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .size = 1500,
                             .id = 2, .ttl = 63);

    start("{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
          "'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'vrf': 'blue'},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
          "'routes': [" DEFAULT_ROUTES ", {'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via':"
          "'198.51.100.2', 'interface': 'wan'}],"
          "'nat': {'source': [" MASQUERADE "]}," UNLIMITED "}");
    open_udp(INSIDE, 5000, SERVER ":53");
    inject(WAN, fragment4(in, 1000, 1000));
    inject(WAN, fragment4(in, 0, 1000));
    expect(LAN, fragment4(out, 0, 1000));
    expect(LAN, fragment4(out, 1000, 1000));
}

/* The same networks twice: lan and wan in the VRF default, dmz and isp in blue. */
#define TWO_NETWORKS(nat)                                                      \
    "{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"                         \
    "'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24']},"                  \
    "'wan': {" WAN_PORT ", 'addresses': ['198.51.100.1/24']},"                 \
    "'dmz': {" DMZ_PORT ", 'addresses': ['192.168.1.1/24'], 'vrf': 'blue'},"   \
    "'isp': {" ISP_PORT ", 'addresses': ['198.51.100.1/24'], 'vrf': 'blue'}}," \
    "'neighbours': ["                                                          \
    "{'interface': 'lan', 'address': '" INSIDE "', 'mac': '" HOST_LAN "'},"    \
    "{'interface': 'lan', 'address': '" SECOND "', 'mac': '" HOST_LAN "'},"    \
    "{'interface': 'dmz', 'address': '" INSIDE "', 'mac': '" HOST_DMZ "'},"    \
    "{'interface': 'wan', 'address': '198.51.100.2', 'mac': '" HOST_WAN "'},"  \
    "{'interface': 'wan', 'address': '" POOLED "', 'mac': '" HOST_WAN "'},"    \
    "{'interface': 'isp', 'address': '198.51.100.2', 'mac': '" HOST_ISP "'}]," \
    "'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'},"               \
    "{'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via': '198.51.100.2'}],"          \
    "'nat': {" nat "}," UNLIMITED "}"

static void is_asked_for(enum place place, const char *mac, const char *host_mac,
                         const char *address, bool answered) {
    inject(place, arp_request(.sender = "198.51.100.2", .sender_mac = host_mac, .target = address));
    if (answered)
        expect(place, arp_reply(.sender = address, .sender_mac = mac, .target = "198.51.100.2",
                                .target_mac = host_mac));
    expect_nothing(ANYWHERE);
    forget_drops();
}

/* Each VRF has ports of its own, its own mappings, and its own idea of who may send to them. */
CASE(one_pool_address_in_two_vrfs) {
    struct frame *inside = udp4(.source = INSIDE ":5000", .destination = SERVER ":53");
    struct frame *outside = udp4(.source = POOLED ":5000", .destination = SERVER ":53", .ttl = 63);
    struct frame *answer = udp4(.source = SERVER ":53", .destination = POOLED ":5000");
    struct frame *came = udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63);
    struct frame *stranger = udp4(.source = OTHER_SERVER ":99", .destination = POOLED ":5000");
    unsigned other;

    start(TWO_NETWORKS("'source': [{'out': 'wan', 'to': '" POOLED
                       "'}, {'out': 'isp', 'to': '" POOLED
                       "', 'filtering': 'endpoint_independent'}]"));
    is_asked_for(WAN, ROUTER_WAN, HOST_WAN, POOLED, true);
    is_asked_for(ISP, ROUTER_ISP, HOST_ISP, POOLED, true);
    inject(LAN, inside);
    expect(WAN, outside);
    /* The port is free in the other VRF: nothing there belongs to the mapping of this one. */
    inject(ISP, answer);
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
    inject(DMZ, inside);
    expect(ISP, outside);
    mappings_are_right(2);
    for (unsigned i = 0; i < 3; i++) {
        inject(WAN, answer);
        inject(ISP, answer);
        expect(LAN, came);
        expect(DMZ, came);
        inject(LAN, inside);
        inject(DMZ, inside);
        expect(WAN, outside);
        expect(ISP, outside);
    }
    inject(WAN, icmp4_error(.source = SERVER, .destination = POOLED, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = outside));
    expect(LAN, icmp4_error(.source = SERVER, .destination = INSIDE, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = hop(inside), .ttl = 63));
    inject(ISP, icmp4_error(.source = SERVER, .destination = POOLED, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = outside));
    expect(DMZ, icmp4_error(.source = SERVER, .destination = INSIDE, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = hop(inside), .ttl = 63));
    /* Only blue is open to strangers. */
    inject(ISP, stranger);
    expect(DMZ, udp4(.source = OTHER_SERVER ":99", .destination = INSIDE ":5000", .ttl = 63));
    inject(WAN, stranger);
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
    /* A port that is taken in one of them. */
    other = open_udp(SECOND, 5000, SERVER ":53");
    require(other != 0 && other != 5000, "5000 became %u", other);
    inject(ISP, udp4(.source = SERVER ":53", .destination = end(POOLED, other)));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
    mappings_are_right(3);
    /* What ends in one of them goes on in the other. */
    rpc("session.flush", "{'vrf': 'blue'}");
    advance(3000);
    mappings_are_right(2);
    inject(WAN, answer);
    expect(LAN, came);
    inject(ISP, answer);
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
}

/* In the other VRF the outside address is somebody else's, and so is the inside one. */
CASE(a_static_translation_of_a_vrf_acts_only_there) {
    start(TWO_NETWORKS(
        "'source': [{'out': 'wan', 'to': 'interface'}], 'static': [{'outside': '" POOLED
        "', 'inside': '" INSIDE "', 'interface': 'isp'}]"));
    is_asked_for(WAN, ROUTER_WAN, HOST_WAN, POOLED, false);
    is_asked_for(ISP, ROUTER_ISP, HOST_ISP, POOLED, true);
    for (unsigned i = 0; i < 3; i++) {
        inject(DMZ, udp4(.source = INSIDE ":99", .destination = SERVER ":53"));
        expect(ISP, udp4(.source = POOLED ":99", .destination = SERVER ":53", .ttl = 63));
        inject(ISP, udp4(.source = SERVER ":53", .destination = POOLED ":99"));
        expect(DMZ, udp4(.source = SERVER ":53", .destination = INSIDE ":99", .ttl = 63));
        inject(ISP, tcp4(.source = SERVER ":5000", .destination = POOLED ":22", .tcp_flags = SYN));
        expect(DMZ, tcp4(.source = SERVER ":5000", .destination = INSIDE ":22", .tcp_flags = SYN,
                         .ttl = 63));

        inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
        expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
        inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
        expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63));
        inject(LAN, udp4(.source = INSIDE ":5000", .destination = POOLED ":53"));
        expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = POOLED ":53", .ttl = 63));
    }
    /* From the outside of the other one it is routed as if there were no such rule. */
    inject(WAN, udp4(.source = SERVER ":7000", .destination = POOLED ":22"));
    expect(WAN, udp4(.source = OUTSIDE ":7000", .destination = POOLED ":22", .ttl = 63));
}

/* --- errors between VRFs --- */

static const char *const between_vrfs =
    "{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
    "'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'vrf': 'blue'},"
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}, 'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
    "'routes': [" DEFAULT_ROUTES ", {'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via':"
    "'198.51.100.2', 'interface': 'wan'}],"
    "'nat': {'source': [" MASQUERADE "]}," UNLIMITED "}";

/* The others of its burst stay in their VRF, whichever packet of the burst it is: each would go to
 * the WAN in the other one. */
CASE(an_error_between_vrfs_in_a_burst_of_plain_packets) {
    enum { BURST = 64 };
    struct frame *inside = udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .ttl = 63);
    struct frame *outside = udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63);
    struct frame *error =
        icmp4_error(.source = "198.51.100.9", .destination = OUTSIDE, .type = UNREACHABLE,
                    .code = TOO_BIG, .rest = 1400, .about = outside);

    start(between_vrfs);
    open_udp(INSIDE, 5000, SERVER ":53");
    for (unsigned i = 0; i < BURST; i++) {
        inject(DMZ, udp4(.source = end("10.3.0.10", 3000 + i), .destination = SERVER ":53"));
        expect(WAN,
               udp4(.source = end("10.3.0.10", 3000 + i), .destination = SERVER ":53", .ttl = 63));
    }
    for (unsigned at = 0; at < BURST; at += at % 2 ? 30 : 1) {
        /* Packets of sessions, and in the second round ones that open their own. */
        for (unsigned round = 0; round < 2; round++) {
            for (unsigned i = 0; i < BURST; i++)
                inject(WAN, i == at ? error
                                    : udp4(.source = end(SERVER, 53 + round * (at + 1)),
                                           .destination = end("10.3.0.10", 3000 + i), .size = i));
            expect(LAN,
                   icmp4_error(.source = "198.51.100.9", .destination = INSIDE, .type = UNREACHABLE,
                               .code = TOO_BIG, .rest = 1400, .about = inside, .ttl = 63));
            for (unsigned i = 0; i < BURST; i++) {
                if (i != at)
                    expect(DMZ,
                           udp4(.source = end(SERVER, 53 + round * (at + 1)),
                                .destination = end("10.3.0.10", 3000 + i), .size = i, .ttl = 63));
            }
            expect_nothing(ANYWHERE);
        }
    }
    expect_no_drops();
}

/* --- what must not get out --- */

CASE(what_cannot_be_translated_does_not_leak) {
    start(masquerade);
    inject(LAN, icmp4(.source = INSIDE, .destination = SERVER, .type = 17, .size = 4));
    inject(LAN, icmp4_error(.source = INSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE,
                            .about = udp4(.source = SERVER ":53", .destination = INSIDE ":5000")));
    expect_nothing(ANYWHERE);
    forget_drops();
}

CASE(a_stateless_rule_does_not_leak_inside_addresses) {
    start(NAT("'nat': {'source': [" MASQUERADE "]}, 'firewall': {'default': 'drop', 'rules': ["
              "{'name': 'all', 'action': 'accept', 'stateless': true}]}"));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
}

/* --- other ways through the router --- */

CASE(packets_that_wait_for_a_neighbour) {
    start(masquerade);
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = "198.51.100.77:53"));
    expect(WAN,
           arp_request(.sender = OUTSIDE, .sender_mac = ROUTER_WAN, .target = "198.51.100.77"));
    inject(WAN, arp_reply(.sender = "198.51.100.77", .sender_mac = HOST_WAN, .target = OUTSIDE,
                          .target_mac = ROUTER_WAN));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = "198.51.100.77:53", .ttl = 63));
    inject(WAN, udp4(.source = "198.51.100.77:53", .destination = OUTSIDE ":5000"));
    expect(LAN, udp4(.source = "198.51.100.77:53", .destination = INSIDE ":5000", .ttl = 63));
}

CASE(packets_that_wait_for_nobody) {
    struct frame *probe = udp4(.source = INSIDE ":5000", .destination = "198.51.100.77:53");

    start(masquerade);
    inject(LAN, probe);
    advance(5000);
    discard(WAN);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = INSIDE, .type = UNREACHABLE,
                            .code = 1, .about = probe));
    forget_drops();
}

CASE(tagged_frames_are_translated) {
    start("{'interfaces': {'lan': {" LAN_PORT "}, 'lan.5': {'parent': 'lan', 'vlan': 5,"
          "'addresses': ['192.168.1.1/24']}, 'wan': {" WAN_PORT "},"
          "'wan.7': {'parent': 'wan', 'vlan': 7, 'addresses': ['198.51.100.1/24']}},"
          "'neighbours': [{'interface': 'lan.5', 'address': '192.168.1.10', 'mac': '" HOST_LAN
          "'}, {'interface': 'wan.7', 'address': '198.51.100.2', 'mac': '" HOST_WAN "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}],"
          "'nat': {'source': [{'out': 'wan.7', 'to': 'interface'}]}," UNLIMITED "}");
    for (unsigned i = 0; i < 3; i++) {
        inject(LAN, vlan(5, udp4(.source = INSIDE ":5000", .destination = SERVER ":53")));
        expect(WAN,
               vlan(7, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63)));
        inject(WAN, vlan(7, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000")));
        expect(LAN,
               vlan(5, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63)));
    }
}

/* Those of many sessions, new ones and fragments among them, come in one burst. */
CASE(a_burst_of_everything) {
    start(masquerade);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 64; i++) {
            unsigned port = 3000 + i + (i % 8 == 0 ? 100 * round : 0);

            inject(LAN,
                   i % 4 == 3
                       ? icmp4_echo(.source = INSIDE, .destination = SERVER, .identifier = port)
                       : udp4(.source = end(INSIDE, port), .destination = SERVER ":53"));
        }
        for (unsigned i = 0; i < 64; i++) {
            unsigned port = 3000 + i + (i % 8 == 0 ? 100 * round : 0);

            expect(WAN, i % 4 == 3 ? icmp4_echo(.source = OUTSIDE, .destination = SERVER,
                                                .identifier = port, .ttl = 63)
                                   : udp4(.source = end(OUTSIDE, port), .destination = SERVER ":53",
                                          .ttl = 63));
        }
    }
}

/* Sources of a whole burst are chosen before the first of its sessions is in the table: they meet
 * each other there, and packets of one session meet their own. */
static void burst_for_one_port(const char *rule) {
    enum { HOSTS = 8, PACKETS = 3 };
    unsigned ports[HOSTS];

    start(source_rule(rule));
    for (unsigned i = 0; i < HOSTS * PACKETS; i++)
        inject(LAN, udp4(.source = text("192.168.1.%u:4000", 20 + i % HOSTS),
                         .destination = SERVER ":53"));
    for (unsigned i = 0; i < HOSTS * PACKETS; i++) {
        unsigned port = source_port(take_one(WAN));

        if (i < HOSTS)
            ports[i] = port;
        require(port == ports[i % HOSTS], "host %u has port %u, then %u", i % HOSTS,
                ports[i % HOSTS], port);
        for (unsigned other = 0; i < HOSTS && other < i; other++)
            require(port != ports[other], "two hosts have port %u", port);
    }
    require(strstr(rpc("session.count", "{}"), text("'sessions':%d", HOSTS)) != NULL, "found %s",
            rpc("session.count", "{}"));
    expect_no_drops();
}

CASE(a_burst_of_mappings_that_want_the_same_port) {
    burst_for_one_port("'to': 'interface'");
    mappings_are_right(8);
}

CASE(a_burst_of_sessions_that_want_the_same_port) {
    burst_for_one_port("'to': 'interface', 'mapping': 'endpoint_dependent'");
}

CASE(hairpins_of_fragments) {
    struct frame *in =
        udp4(.source = SECOND ":6000", .destination = OUTSIDE ":5000", .size = 1500, .id = 3);
    struct frame *out = udp4(.source = OUTSIDE ":6000", .destination = INSIDE ":5000", .size = 1500,
                             .id = 3, .ttl = 63);

    start(masquerade);
    open_udp(INSIDE, 5000, SERVER ":53");
    inject(LAN, fragment4(in, 1000, 1000));
    inject(LAN, fragment4(in, 0, 1000));
    expect(LAN, fragment4(out, 0, 1000));
    expect(LAN, fragment4(out, 1000, 1000));
}

/* Nobody outside may pretend to be one of the inside. */
CASE(fragments_that_nobody_may_send) {
    struct frame *whole =
        udp4(.source = SERVER ":53", .destination = POOLED ":5000", .size = 1500, .id = 3);

    start(source_rule("'to': '" POOLED "'"));
    inject(WAN, fragment4(whole, 1000, 1000));
    inject(WAN, fragment4(whole, 0, 1000));
    expect_nothing(ANYWHERE);
    expect_drops({"nat.no_mapping", 1}, {"session.fragment_refused", 1});
}

/* A server that does not know the way back gets to see the router. */
CASE(source_and_destination_at_once) {
    start(NAT("'nat': {'source': [{'out': 'dmz', 'to': 'interface'}], 'destination': [{'in': 'wan',"
              "'protocol': 'udp', 'destination_port': 53, 'to': '10.3.0.10:5353'}]}"));
    for (unsigned i = 0; i < 3; i++) {
        struct frame *in = udp4(.source = SERVER ":5000", .destination = OUTSIDE ":53"), *found;

        inject(WAN, in);
        expect(DMZ, udp4(.source = "10.3.0.1:5000", .destination = "10.3.0.10:5353", .ttl = 63));
        inject(DMZ, udp4(.source = "10.3.0.10:5353", .destination = "10.3.0.1:5000"));
        expect(WAN, udp4(.source = OUTSIDE ":53", .destination = SERVER ":5000", .ttl = 63));
        inject(WAN, in);
        found = take_one(DMZ);
        inject(DMZ, icmp4_error(.source = "10.3.0.10", .destination = "10.3.0.1",
                                .type = UNREACHABLE, .code = PORT_UNREACHABLE, .about = found));
        expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = UNREACHABLE,
                                .code = PORT_UNREACHABLE, .about = hop(in), .ttl = 63));
    }
    /* A second client with the same port. */
    inject(WAN, udp4(.source = OTHER_SERVER ":5000", .destination = OUTSIDE ":53"));

    struct frame *found = take_one(DMZ);
    unsigned port = source_port(found);

    require(port != 5000, "two clients share a port");
    inject(DMZ, udp4(.source = "10.3.0.10:5353", .destination = end("10.3.0.1", port)));
    expect(WAN, udp4(.source = OUTSIDE ":53", .destination = OTHER_SERVER ":5000", .ttl = 63));
    mappings_are_right(2);
    /* They live through a reload that says the same, and end with the rule. */
    apply(NAT("'nat': {'source': [{'out': 'dmz', 'to': 'interface'}], 'destination': [{'in': 'wan',"
              "'protocol': 'udp', 'destination_port': 53, 'to': '10.3.0.10:5353'}]},"
              "'firewall': {'default': 'accept'}"));
    advance(3000);
    mappings_are_right(2);
    apply(NAT("'nat': {'destination': [{'in': 'wan', 'protocol': 'udp', 'destination_port': 53,"
              "'to': '10.3.0.10:5353'}]}"));
    advance(3000);
    mappings_are_right(0);
}

/* And the port that the client has belongs to a session of the router. */
CASE(source_and_destination_and_a_session_of_the_router) {
    struct frame *in = udp4(.source = SERVER ":5000", .destination = OUTSIDE ":53");
    struct frame *probe = udp4(.source = "10.3.0.10:5353", .destination = "10.3.0.1:5000"), *found;
    unsigned port;

    start(NAT("'nat': {'source': [{'out': 'dmz', 'to': 'interface'}], 'destination': [{'in': 'wan',"
              "'protocol': 'udp', 'destination_port': 53, 'to': '10.3.0.10:5353'}]}"));
    inject(DMZ, probe);
    expect(DMZ, icmp4_error(.source = "10.3.0.1", .destination = "10.3.0.10", .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = probe));
    expect_drop("local.no_listener", 1);
    inject(WAN, in);
    found = take_one(DMZ);
    port = source_port(found);
    require(port != 5000 && port % 2 == 0, "5000 became %u", port);
    mappings_are_right(1);
    inject(DMZ, udp4(.source = "10.3.0.10:5353", .destination = end("10.3.0.1", port)));
    expect(WAN, udp4(.source = OUTSIDE ":53", .destination = SERVER ":5000", .ttl = 63));
    inject(WAN, in);
    require(source_port(take_one(DMZ)) == port, "another port");
    rpc("session.flush", "{}");
    advance(3000);
    mappings_are_right(0);
}

/* --- reloads --- */

static void is_translated(const char *outside) {
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = end(outside, 5000), .destination = SERVER ":53", .ttl = 63));
    inject(WAN, udp4(.source = SERVER ":53", .destination = end(outside, 5000)));
    expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63));
}

CASE(sessions_survive_a_reload) {
    start(masquerade);
    is_translated(OUTSIDE);
    inject(LAN, tcp4(.source = INSIDE ":4001", .destination = SERVER ":80", .tcp_flags = SYN));
    inject(LAN, udp4(.source = SECOND ":5000", .destination = SERVER ":53"));
    discard(WAN);
    apply(NAT("'nat': {'source': [{'out': 'wan', 'source': '192.168.0.0/16', 'to': 'interface'}]},"
              "'firewall': {'default': 'accept'}"));
    advance(3000);
    mappings_are_right(3);
    inject(WAN,
           tcp4(.source = SERVER ":80", .destination = OUTSIDE ":4001", .tcp_flags = SYN | ACK));
    expect(LAN, tcp4(.source = SERVER ":80", .destination = INSIDE ":4001", .tcp_flags = SYN | ACK,
                     .ttl = 63));
    is_translated(OUTSIDE);
    apply(masquerade);
    advance(3000);
    is_translated(OUTSIDE);
    mappings_are_right(3);
}

CASE(a_changed_pool_ends_sessions) {
    start(source_rule("'to': '198.51.100.50'"));
    is_translated("198.51.100.50");
    apply(source_rule("'to': '198.51.100.51'"));
    advance(3000);
    mappings_are_right(0);
    is_translated("198.51.100.51");
    inject(WAN, udp4(.source = SERVER ":53", .destination = "198.51.100.50:5000"));
    discard(WAN);
    forget_drops();
}

CASE(a_second_large_pool_takes_the_place_of_the_first) {
    start(source_rule("'to': '100.70.0.0/20'"));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    require(discard(WAN) == 1, "not by the first pool");
    apply(source_rule("'to': '100.80.0.0/20'")); /* the session's mapping is alive yet */
    inject(LAN, udp4(.source = INSIDE ":5001", .destination = SERVER ":53"));
    require(discard(WAN) == 1, "not by the second pool");
    advance(5000);
    apply(source_rule("'to': '100.70.8.0-100.70.23.255'"));
    inject(LAN, udp4(.source = INSIDE ":5002", .destination = SERVER ":53"));
    require(discard(WAN) == 1, "not by the third pool");
}

CASE(pools_have_so_many_addresses_together) {
    const char *const two = NAT("'nat': {'source': ["
                                "{'out': 'wan', 'protocol': 'tcp', 'to': '100.70.0.0/20'},"
                                "{'out': 'wan', 'to': %s}]}");

    start(masquerade);
    apply(text(two, "['100.70.8.0/24', '100.70.15.1']")); /* the same ones count once */
    apply(text(two, "'100.80.0.0/20', 'mapping': 'endpoint_dependent'"));
    apply_fails_because(text(two, "'100.70.15.1-100.70.16.0'"), "$.nat.source[1].to");
}

CASE(a_changed_pool_ends_sessions_that_share_a_mapping) {
    start(source_rule("'to': '198.51.100.50'"));
    is_translated("198.51.100.50");
    open_udp(INSIDE, 5000, OTHER_SERVER ":53");
    apply(source_rule("'to': '198.51.100.51'"));
    turn();
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = "198.51.100.51:5000", .destination = SERVER ":53", .ttl = 63));
    advance(3000);
    mappings_are_right(1);
}

CASE(a_changed_pool_ends_what_strangers_opened) {
    start(source_rule("'to': '198.51.100.50', 'filtering': 'endpoint_independent'"));
    is_translated("198.51.100.50");
    inject(WAN, udp4(.source = OTHER_SERVER ":99", .destination = "198.51.100.50:5000"));
    expect(LAN, udp4(.source = OTHER_SERVER ":99", .destination = INSIDE ":5000", .ttl = 63));
    apply(source_rule("'to': '198.51.100.51', 'filtering': 'endpoint_independent'"));
    advance(3000);
    mappings_are_right(0);
}

CASE(the_end_of_nat_ends_its_sessions) {
    start(masquerade);
    is_translated(OUTSIDE);
    apply(NAT("'firewall': {'default': 'accept'}"));
    advance(3000);
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
    apply(masquerade);
    advance(3000);
    inject(LAN, udp4(.source = INSIDE ":5001", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5001", .destination = SERVER ":53", .ttl = 63));
}

static bool address_is(const struct frame *frame, unsigned offset, const char *address) {
    unsigned a, b, c, d;
    const uint8_t *bytes = frame->bytes + offset;

    sscanf(address, "%u.%u.%u.%u", &a, &b, &c, &d);
    return bytes[0] == a && bytes[1] == b && bytes[2] == c && bytes[3] == d;
}

/* The connections of a round have the ports from here on. */
enum { CONNECTIONS = 40 };
static unsigned first_port;

static void both_ways(void) {
    for (unsigned port = first_port; port < first_port + CONNECTIONS; port++) {
        inject(LAN,
               tcp4(.source = end(INSIDE, port), .destination = SERVER ":80", .tcp_flags = ACK));
        inject(WAN,
               tcp4(.source = SERVER ":80", .destination = end(OUTSIDE, port), .tcp_flags = ACK));
    }
}

static void connect_all(void) {
    for (unsigned port = first_port; port < first_port + CONNECTIONS; port++) {
        inject(LAN,
               tcp4(.source = end(INSIDE, port), .destination = SERVER ":80", .tcp_flags = SYN));
        turn();
        inject(WAN, tcp4(.source = SERVER ":80", .destination = end(OUTSIDE, port),
                         .tcp_flags = SYN | ACK));
        turn();
    }
    both_ways();
}

/* The new rules are in force, and nobody has looked at the sessions yet. */
static void both_ways_in_between(void) {
    both_ways();
    worker_turn(worker_get(0));
    worker_turn(worker_get(0));
}

/* Segments that still pass are translated, whatever else becomes of the session; returns their
 * number. */
static unsigned translated_segments(void) {
    unsigned passed = 0;
    struct frame *found;

    for (; (found = take(WAN)) != NULL; passed++)
        require(found->bytes[IP + 9] != 6 || address_is(found, IP + 12, OUTSIDE),
                "a segment left untranslated");
    for (; (found = take(LAN)) != NULL; passed++)
        require(address_is(found, IP + 16, INSIDE), "an answer was not translated back");
    return passed;
}

/* The firewall keeps the table alive. No session can begin in mid-stream, so that none of the
 * connections' segments may be seen untranslated. */
CASE(nat_goes_and_comes_under_traffic) {
    static const char *const off = NAT("'firewall': {'default': 'accept'}");
    static const char *const on =
        NAT("'nat': {'source': [" MASQUERADE "]}, 'firewall': {'default': 'accept'}");

    start(on);
    for (unsigned round = 0; round < 6; round++) {
        unsigned passed;

        first_port = 3000 + round * CONNECTIONS;
        connect_all();
        passed = translated_segments();
        require(passed == 4 * CONNECTIONS, "round %u: only %u passed", round, passed);
        mappings_are_right(CONNECTIONS);
        inject(LAN, fragment4(udp4(.source = INSIDE ":5000", .destination = SERVER ":53",
                                   .size = 1500, .id = round),
                              1000, 1000));
        both_ways();
        harness_around_plan = both_ways_in_between;
        apply(off);
        passed = translated_segments();
        require(passed > 0 && passed <= 6 * CONNECTIONS, "round %u: %u passed", round, passed);
        advance(3000);
        mappings_are_right(0);
        both_ways();
        require(translated_segments() == 0, "round %u: connections outlive the NAT", round);
        /* New ones begin as the rules say now. */
        inject(LAN, udp4(.source = INSIDE ":6000", .destination = SERVER ":53"));
        expect(WAN, udp4(.source = INSIDE ":6000", .destination = SERVER ":53", .ttl = 63));
        apply(on);
        harness_around_plan = NULL;
        both_ways();
        require(translated_segments() == 0, "round %u: a connection came back", round);
        advance(3000);
        mappings_are_right(0);
        forget_drops();
        frames_free();
    }
    rpc("session.flush", "{}");
    advance(60000);
    forget_drops();
}

/* The control thread may switch NAT off after the first choice of a port. */
static bool source_and_off(struct worker *worker, struct session_new *draft) {
    bool result = nat_translator.source(worker, draft);

    session_translate(false);
    return result;
}

/* The port belongs to a session of the router, and nobody is there to choose another. */
CASE(nat_goes_between_two_choices) {
    static struct session_translator other;

    start(masquerade);
    is_for_host(SERVER, 53, OUTSIDE ":5000");
    other = nat_translator;
    other.source = source_and_off;
    session_set_translator(&other);
    session_translate(true);
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    turn();
    session_set_translator(&nat_translator);
    session_translate(true);
    expect_nothing(ANYWHERE);
    expect_drop("session.conflict", 1);
    mappings_are_right(0);
}

/* Without a firewall the table goes with the NAT, and what it was in the middle of. */
CASE(the_last_nat_goes_under_traffic) {
    static const char *const off = NAT("'sessions': {}");

    start(masquerade);
    for (unsigned round = 0; round < 10; round++) {
        const char *unknown = text("198.51.100.%u", 100 + round);
        struct frame *found;

        is_translated(OUTSIDE);
        inject(LAN, udp4(.source = INSIDE ":5001", .destination = end(unknown, 53)));
        inject(LAN, fragment4(udp4(.source = INSIDE ":5002", .destination = SERVER ":53",
                                   .size = 1500, .id = round),
                              1000, 1000));
        expect(WAN, arp_request(.sender = OUTSIDE, .sender_mac = ROUTER_WAN, .target = unknown));
        for (unsigned port = 3000; port < 3040; port++)
            inject(LAN, udp4(.source = end(INSIDE, port), .destination = SERVER ":53"));
        apply(off);
        /* What waited for its neighbour was translated before. */
        inject(WAN, arp_reply(.sender = unknown, .sender_mac = HOST_WAN, .target = OUTSIDE,
                              .target_mac = ROUTER_WAN));
        inject(WAN, icmp4_error(.source = SERVER, .destination = OUTSIDE, .type = UNREACHABLE,
                                .code = PORT_UNREACHABLE,
                                .about = udp4(.source = OUTSIDE ":5000",
                                              .destination = SERVER ":53", .ttl = 63)));
        while ((found = take(WAN)) != NULL)
            require(!(found->bytes[IP + 9] == 17 && found->bytes[IP + 16] == 198) ||
                        address_is(found, IP + 12, OUTSIDE),
                    "what waited left untranslated");
        inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
        expect(WAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
        require(!nat_mapping_exists(), "the mappings are still there");
        for (unsigned port = 3000; port < 3040; port++)
            inject(LAN, udp4(.source = end(INSIDE, port), .destination = SERVER ":53"));
        apply(masquerade);
        discard(ANYWHERE);
        forget_drops();
    }
}

/* What began without NAT is not what the rules say now. */
CASE(sessions_that_a_new_rule_would_translate_end) {
    static const char *const without = NAT("'firewall': {'default': 'accept'}");
    struct frame *out = udp4(.source = INSIDE ":5000", .destination = SERVER ":53");
    struct frame *other = udp4(.source = INSIDE ":5000", .destination = "10.3.0.10:53");
    struct frame *in = udp4(.source = SERVER ":99", .destination = OUTSIDE ":8080");

    start(without);
    inject(LAN, out);
    expect(WAN, hop(out));
    inject(LAN, other);
    expect(DMZ, hop(other));
    is_for_host(SERVER, 99, OUTSIDE ":8080");
    apply(NAT("'firewall': {'default': 'accept'}, 'nat': {'source': [" MASQUERADE
              "], 'destination': [{'in': 'wan', 'protocol': 'udp', 'destination_port': 8080, 'to': "
              "'" INSIDE ":80'}]}"));
    inject(LAN, out);
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
    inject(WAN, in);
    expect(LAN, udp4(.source = SERVER ":99", .destination = INSIDE ":80", .ttl = 63));
    /* Others go on: their packets are counted as before. */
    inject(LAN, other);
    expect(DMZ, hop(other));
    require(strstr(rpc("session.list", "{'interface': 'dmz'}"), "'forward':{'packets':2") != NULL,
            "%s", rpc("session.list", "{'interface': 'dmz'}"));
    apply(without);
    inject(LAN, out);
    expect(WAN, hop(out));
    apply(NAT("'firewall': {'default': 'accept'}, 'nat': {'static': [{'outside': '" POOLED
              "', 'inside': '" INSIDE "'}]}"));
    inject(LAN, out);
    expect(WAN, udp4(.source = POOLED ":5000", .destination = SERVER ":53", .ttl = 63));
}

CASE(an_address_that_goes_ends_its_sessions) {
    start(masquerade);
    is_translated(OUTSIDE);
    apply("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          ", 'addresses': ['198.51.100.7/24', '2001:db8:2::1/64']}, 'dmz': {" DMZ_PORT
          ", " DMZ_ADDRESSES "}}," NEIGHBOURS
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}],"
          "'nat': {'source': [" MASQUERADE "]}," UNLIMITED "}");
    advance(12000);
    discard(ANYWHERE);
    mappings_are_right(0);
    is_translated("198.51.100.7");
    forget_drops();
}

CASE(a_port_forward_that_goes_ends_its_sessions) {
    start(destination_rule("'protocol': 'udp', 'destination_port': 8080, 'to': '" INSIDE ":80'"));
    inject(WAN, udp4(.source = SERVER ":5000", .destination = OUTSIDE ":8080"));
    expect(LAN, udp4(.source = SERVER ":5000", .destination = INSIDE ":80", .ttl = 63));
    apply(destination_rule("'protocol': 'udp', 'destination_port': 8080, 'to': '" SECOND ":80'"));
    advance(3000);
    inject(WAN, udp4(.source = SERVER ":5000", .destination = OUTSIDE ":8080"));
    expect(LAN, udp4(.source = SERVER ":5000", .destination = SECOND ":80", .ttl = 63));
    /* To another port of the same host. */
    apply(destination_rule("'protocol': 'udp', 'destination_port': 8080, 'to': '" SECOND ":81'"));
    advance(3000);
    inject(WAN, udp4(.source = SERVER ":5000", .destination = OUTSIDE ":8080"));
    expect(LAN, udp4(.source = SERVER ":5000", .destination = SECOND ":81", .ttl = 63));
}

/* --- everything at random --- */

struct packet {
    unsigned protocol; /* 6, 17, 1 */
    char source[16], destination[16];
    unsigned source_port, destination_port, size;
    bool no_checksum;
};

static struct frame *frame_of_packet(const struct packet *p, unsigned ttl, bool reply) {
    struct frame *frame;

    if (p->protocol == 1)
        return icmp4(.source = p->source, .destination = p->destination,
                     .type = reply ? ECHO_REPLY : ECHO,
                     .identifier = reply ? p->destination_port : p->source_port, .sequence = 1,
                     .size = p->size, .ttl = ttl);
    if (p->protocol == 6)
        return tcp4(.source = end(p->source, p->source_port),
                    .destination = end(p->destination, p->destination_port),
                    .tcp_flags = reply ? SYN | ACK : SYN, .size = p->size, .ttl = ttl);
    frame =
        udp4(.source = end(p->source, p->source_port),
             .destination = end(p->destination, p->destination_port), .size = p->size, .ttl = ttl);
    return p->no_checksum ? poke(frame, IP4_PAYLOAD + 6, "0000") : frame;
}

/* What of it an observer outside can tell apart: no two live flows may look the same. */
struct seen {
    unsigned protocol, outside, port, remote, remote_port;
    unsigned inside, inside_port;
};

static void random_flows(const char *configuration, unsigned flows) {
    static struct seen seen[2000];
    unsigned count = 0, used_from = 0;

    start(configuration);
    for (unsigned n = 0; n < flows; n++) {
        static const unsigned protocols[] = {6, 17, 17, 1};
        struct packet p = {.protocol = protocols[draw(4)],
                           .source_port = draw(8) ? 1024 + draw(40) : 1 + draw(65535),
                           .destination_port = 53 + draw(3),
                           .size = 1 + draw(100),
                           .no_checksum = draw(4) == 0};
        unsigned inside = 10 + draw(4), remote = 1 + draw(4);
        struct frame *out;
        struct packet answer;

        snprintf(p.source, sizeof(p.source), "192.168.1.%u", inside);
        snprintf(p.destination, sizeof(p.destination), "203.0.113.%u", remote);
        if (p.protocol == 1)
            p.destination_port = 8;
        inject(LAN, frame_of_packet(&p, 64, false));
        out = take_one(WAN);

        unsigned port = p.protocol == 1 ? identifier(out) : source_port(out);
        struct packet translated = p;

        snprintf(translated.source, sizeof(translated.source), "198.51.100.%u",
                 out->bytes[IP + 15]);
        translated.source_port = port;
        require(
            frame_equal(out, ether(frame_of_packet(&translated, 63, false), HOST_WAN, ROUTER_WAN)),
            "flow %u: not what went in", n);
        for (unsigned i = used_from; i < count; i++) {
            const struct seen *s = &seen[i];
            bool same_outside = s->protocol == p.protocol && s->outside == out->bytes[IP + 15] &&
                                s->port == port && s->remote == remote &&
                                s->remote_port == p.destination_port;
            bool same_inside = s->inside == inside && s->inside_port == p.source_port;

            require(!same_outside || same_inside, "flow %u: %u and %u share port %u", n, i, n,
                    port);
        }
        seen[count++] =
            (struct seen){p.protocol, out->bytes[IP + 15], port, remote, p.destination_port,
                          inside,     p.source_port};
        /* The answer is translated back to the inverse. */
        answer = translated;
        memcpy(answer.source, translated.destination, sizeof(answer.source));
        memcpy(answer.destination, translated.source, sizeof(answer.destination));
        answer.source_port = p.destination_port;
        answer.destination_port = port;
        answer.size = 1 + draw(100);
        inject(WAN, frame_of_packet(&answer, 64, true));
        memcpy(answer.destination, p.source, sizeof(answer.destination));
        answer.destination_port = p.source_port;
        out = take_one(LAN);
        require(frame_equal(out, ether(frame_of_packet(&answer, 63, true), HOST_LAN, ROUTER_LAN)),
                "flow %u: the answer is not the inverse", n);
        require(nat_mapping_count() == nat_mapping_ports_taken(), "%u mappings and %u ports",
                nat_mapping_count(), nat_mapping_ports_taken());
        if (n % 50 == 49)
            frames_free();
        if (n % 200 == 199) { /* all end */
            advance(600000);
            used_from = count;
            mappings_are_right(0);
        }
    }
}

#define NEAR_HOSTS                                                            \
    "{'interface': 'lan', 'address': '192.168.1.11', 'mac': '" HOST_LAN "'}," \
    "{'interface': 'lan', 'address': '192.168.1.12', 'mac': '" HOST_LAN "'}," \
    "{'interface': 'lan', 'address': '192.168.1.13', 'mac': '" HOST_LAN "'}"

static const char *random_rule(const char *members) {
    return text("{" INTERFACES "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," NEAR_HOSTS
                "], 'routes': [" DEFAULT_ROUTES "], 'nat': {'source': ["
                "{'out': 'wan', 'source': '192.168.1.0/24', %s}]}," UNLIMITED "}",
                members);
}

CASE(random_flows_by_one_address) {
    random_flows(random_rule("'to': 'interface'"), 400);
}

CASE(random_flows_by_a_pool) {
    random_flows(random_rule("'to': '198.51.100.48-198.51.100.50'"), 400);
}

CASE(random_flows_dependent_on_the_endpoint) {
    random_flows(random_rule("'to': 'interface', 'mapping': 'endpoint_dependent'"), 400);
}

CASE(random_flows_in_port_blocks) {
    random_flows(random_rule("'to': '198.51.100.48/30', 'port_block': 500"), 400);
}

CASE(random_flows_in_a_small_range) {
    random_flows(random_rule("'to': '198.51.100.48/30', 'mapping': 'endpoint_dependent',"
                             "'ports': '3000-3499'"),
                 400);
}

/* --- what others may try --- */

CASE(another_uplink_is_not_the_inside) {
    start(source_rule("'to': '" POOLED "'"));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = POOLED ":5000", .destination = SERVER ":53", .ttl = 63));
    inject(DMZ, udp4(.source = "10.3.0.10:99", .destination = POOLED ":5000"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_mapping", 1);
}

CASE(errors_from_inside_pass_the_reverse_path_check) {
    struct frame *in, *answer = udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000");

    start("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'reverse_path': 'strict'},"
          "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}}, 'neighbours': [" LAN_NEIGHBOURS
          "," WAN_NEIGHBOURS "], 'routes': [" DEFAULT_ROUTES "], 'nat': {'source': [" MASQUERADE
          "]}," UNLIMITED "}");
    open_udp(INSIDE, 5000, SERVER ":53");
    inject(WAN, answer);
    in = take_one(LAN);
    inject(LAN, icmp4_error(.source = INSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = in));
    expect(WAN, icmp4_error(.source = OUTSIDE, .destination = SERVER, .type = UNREACHABLE,
                            .code = PORT_UNREACHABLE, .about = hop(answer), .ttl = 63));
    expect_no_drops();
}

/* The control thread switches NAT off between session_begin() and session_accept(). */
CASE(nat_goes_while_a_session_begins) {
    static struct session_translator other;

    start("{" INTERFACES NEIGHBOURS "'routes': [" DEFAULT_ROUTES
          "], 'firewall': {'default': 'drop', 'rules': [{'name': 'all', 'action': 'accept', "
          "'stateless': true}]}, 'nat': {'source': [" MASQUERADE "]}," UNLIMITED "}");
    other = nat_translator;
    other.source = source_and_off;
    session_set_translator(&other);
    session_translate(true);
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
    require(nat_mapping_count() == 0, "a mapping is left");
    session_set_translator(&nat_translator);
    session_translate(true);
    /* This one belongs to no session, and not to that which was begun either. */
    inject(LAN,
           tcp4(.source = SECOND ":6000", .destination = OTHER_SERVER ":80", .tcp_flags = ACK));
    expect_nothing(ANYWHERE);
    expect_drop("session.tcp_no_session", 1);
    require(strstr(rpc("session.count", "{}"), "'sessions':0,") != NULL, "there is a session");
}

CASE(an_interface_without_an_address_to_translate_to) {
    start("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          ", 'addresses': ['2001:db8:2::1/64']}}, 'neighbours': [" LAN_NEIGHBOURS
          ", {'interface': 'wan', 'address': '2001:db8:2::2', 'mac': '" HOST_WAN "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '2001:db8:2::2'}],"
          "'nat': {'source': [" MASQUERADE "]}," UNLIMITED "}");
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect_nothing(ANYWHERE);
    expect_drop("nat.no_address", 1);
}

HARNESS_MAIN()
