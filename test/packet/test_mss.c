/* Lowering the MSS of TCP connections. Segments are expected to the byte, so every checksum is
 * compared with one that is worked out anew. */
#include "harness.h"

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10, ECE = 0x40, CWR = 0x80 };
enum { TCP = 6, TCP_HEADER = 20, DATA_OFFSET = 12, CHECKSUM = 16 };

#define HOST4 "192.168.1.10:1000"
#define HOST6 "[2001:db8:1::10]:1000"
#define SERVER4 "203.0.113.1:80"
#define SERVER6 "[2001:db8:99::1]:80"

/* The usual network; the interfaces with more members: ", 'tcp_mss': 1400". */
static const char *network(const char *lan, const char *wan, const char *dmz) {
    return text("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "%s},"
                "'wan': {" WAN_PORT "," WAN_ADDRESSES "%s},"
                "'dmz': {" DMZ_PORT "," DMZ_ADDRESSES "%s}},"
                "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
                "'routes': [" DEFAULT_ROUTES "]," UNLIMITED "}",
                lan, wan, dmz);
}

static const char *wan_has_1400(void) {
    return network("", ", 'tcp_mss': 1400", "");
}

/* The TCP checksum made anew; the segment starts at `tcp`. */
static struct frame *seal(struct frame *frame, unsigned tcp) {
    uint8_t *ip = frame->bytes + frame_ip_offset(frame);
    unsigned length = frame->length - tcp;
    bool ipv6 = ip[0] >> 4 == 6;
    uint32_t sum = sum16(TCP + length, ip + (ipv6 ? 8 : 12), ipv6 ? 32 : 8);
    uint16_t checksum;

    memset(frame->bytes + tcp + CHECKSUM, 0, 2);
    checksum = (uint16_t)~fold16(sum16(sum, frame->bytes + tcp, length));
    frame->bytes[tcp + CHECKSUM] = (uint8_t)(checksum >> 8);
    frame->bytes[tcp + CHECKSUM + 1] = (uint8_t)checksum;
    return frame;
}

/* Makes the first bytes of the payload options: hexadecimal digits, a multiple of four bytes. */
static struct frame *with_options(const struct frame *frame, unsigned tcp, const char *options) {
    struct frame *other = poke(frame, tcp + TCP_HEADER, options);

    other->bytes[tcp + DATA_OFFSET] = (uint8_t)((TCP_HEADER + strlen(options) / 2) / 4 << 4);
    return seal(other, tcp);
}

static struct frame *between4(const char *source, const char *destination, unsigned flags,
                              const char *options) {
    return with_options(tcp4(.source = source, .destination = destination, .tcp_flags = flags,
                             .size = (unsigned)strlen(options) / 2 + 5),
                        IP4_PAYLOAD, options);
}

static struct frame *between6(const char *source, const char *destination, unsigned flags,
                              const char *options) {
    return with_options(tcp6(.source = source, .destination = destination, .tcp_flags = flags,
                             .size = (unsigned)strlen(options) / 2 + 5),
                        IP6_PAYLOAD, options);
}

static struct frame *out4(unsigned flags, const char *options) {
    return between4(HOST4, SERVER4, flags, options);
}

static struct frame *out6(unsigned flags, const char *options) {
    return between6(HOST6, SERVER6, flags, options);
}

static struct frame *in4(unsigned flags, const char *options) {
    return between4(SERVER4, HOST4, flags, options);
}

static struct frame *in6(unsigned flags, const char *options) {
    return between6(SERVER6, HOST6, flags, options);
}

/* As Linux writes it: MSS, SACK permitted, timestamps, window scale. */
static const char *linux_options(unsigned mss) {
    return text("0204%04x0402080a0102030405060708"
                "01030307",
                mss);
}

static const char *mss_alone(unsigned mss) {
    return text("0204%04x", mss);
}

static void leaves_as(enum place from, enum place to, const struct frame *sent,
                      const struct frame *expected) {
    inject(from, sent);
    expect(to, hop(expected));
}

/* Out of the LAN by the WAN, as a packet of its own. */
static void becomes(const char *options, const char *expected) {
    leaves_as(LAN, WAN, out4(SYN, options), out4(SYN, expected));
}

static void stays(const char *options) {
    becomes(options, options);
}

/* --- what is lowered, and to what --- */

CASE(both_directions_and_families) {
    start(wan_has_1400());
    leaves_as(LAN, WAN, out4(SYN, linux_options(1460)), out4(SYN, linux_options(1400)));
    leaves_as(WAN, LAN, in4(SYN | ACK, linux_options(1460)), in4(SYN | ACK, linux_options(1400)));
    leaves_as(LAN, WAN, out6(SYN, linux_options(1440)), out6(SYN, linux_options(1380)));
    leaves_as(WAN, LAN, in6(SYN | ACK, linux_options(8940)), in6(SYN | ACK, linux_options(1380)));
    leaves_as(LAN, WAN, out4(SYN | ECE | CWR, mss_alone(65535)),
              out4(SYN | ECE | CWR, mss_alone(1400)));
}

CASE(other_interfaces_are_left_alone) {
    struct frame *there = between4(HOST4, "10.3.0.10:80", SYN, mss_alone(1460));
    struct frame *back = between6("[2001:db8:3::10]:80", HOST6, SYN | ACK, mss_alone(1440));

    start(wan_has_1400());
    leaves_as(LAN, DMZ, there, there);
    leaves_as(DMZ, LAN, back, back);
}

CASE(never_raised_and_never_added) {
    start(wan_has_1400());
    stays(mss_alone(1400));
    stays(mss_alone(1399));
    stays(mss_alone(536));
    stays(mss_alone(0));
    becomes(mss_alone(1401), mss_alone(1400));
    stays("0103030704020101");
    leaves_as(LAN, WAN, out6(SYN, mss_alone(1380)), out6(SYN, mss_alone(1380)));
    leaves_as(LAN, WAN, out6(SYN, mss_alone(1381)), out6(SYN, mss_alone(1380)));

    struct frame *bare =
        tcp4(.source = HOST4, .destination = SERVER4, .tcp_flags = SYN, .payload = "");

    leaves_as(LAN, WAN, bare, bare);
}

CASE(only_segments_with_syn) {
    static const unsigned flags[] = {0, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, ECE | CWR | ACK};

    start(wan_has_1400());
    for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        leaves_as(LAN, WAN, out4(flags[i], mss_alone(9000)), out4(flags[i], mss_alone(9000)));
        leaves_as(LAN, WAN, out6(flags[i], mss_alone(9000)), out6(flags[i], mss_alone(9000)));
    }
}

CASE(other_protocols) {
    /* What would be the SYN flag and an option, were it TCP. */
    struct frame *udp = poke(udp4(.source = HOST4, .destination = SERVER4, .size = 40),
                             IP4_PAYLOAD + DATA_OFFSET, "6002");

    start(wan_has_1400());
    udp = poke(udp, IP4_PAYLOAD + TCP_HEADER, "02042000");
    leaves_as(LAN, WAN, udp, udp);
    udp = poke(udp6(.source = HOST6, .destination = SERVER6, .size = 40), IP6_PAYLOAD + DATA_OFFSET,
               "6002");
    udp = poke(udp, IP6_PAYLOAD + TCP_HEADER, "02042000");
    leaves_as(LAN, WAN, udp, udp);
}

CASE(the_smaller_of_two_interfaces) {
    struct frame *there = between4(HOST4, "10.3.0.10:80", SYN, mss_alone(1460));

    start(network(", 'tcp_mss': 1300", ", 'tcp_mss': 1400", ", 'tcp_mss': 1200"));
    becomes(mss_alone(1460), mss_alone(1300));
    leaves_as(WAN, LAN, in4(SYN | ACK, mss_alone(1460)), in4(SYN | ACK, mss_alone(1300)));
    leaves_as(LAN, DMZ, there, between4(HOST4, "10.3.0.10:80", SYN, mss_alone(1200)));
    leaves_as(WAN, LAN, in6(SYN | ACK, mss_alone(1440)), in6(SYN | ACK, mss_alone(1280)));
}

CASE(the_smallest_and_the_largest) {
    start(network(", 'tcp_mss': 65535", ", 'tcp_mss': 88", ""));
    becomes(mss_alone(1460), mss_alone(88));
    leaves_as(LAN, WAN, out6(SYN, mss_alone(1440)), out6(SYN, mss_alone(68)));

    struct frame *there = between6(HOST6, "[2001:db8:3::10]:80", SYN, mss_alone(65535));

    leaves_as(LAN, DMZ, there, between6(HOST6, "[2001:db8:3::10]:80", SYN, mss_alone(65515)));
}

CASE(auto_follows_the_mtu) {
    start(network("", ", 'mtu': 1492, 'tcp_mss': 'auto'", ""));
    becomes(mss_alone(1460), mss_alone(1452));
    leaves_as(LAN, WAN, out6(SYN, mss_alone(1440)), out6(SYN, mss_alone(1432)));
    apply(network("", ", 'mtu': 1400, 'tcp_mss': 'auto'", ""));
    advance(5000);
    discard(ANYWHERE);
    forget_drops();
    becomes(mss_alone(1460), mss_alone(1360));
}

CASE(the_option_comes_and_goes) {
    start(network("", "", ""));
    require(!strstr(rpc("runtime.get", "{}"), "'mss'"), "nobody wants the stage");
    stays(mss_alone(1460));
    apply(wan_has_1400());
    require(strstr(rpc("runtime.get", "{}"), "'mss'"), "the stage is not there");
    becomes(mss_alone(1460), mss_alone(1400));
    apply(network("", ", 'tcp_mss': 1000", ""));
    becomes(mss_alone(1460), mss_alone(1000));
    require(strstr(rpc("interface.list", "{}"), "'tcp_mss':1000"), "it is not shown");
    apply(network("", "", ""));
    require(!strstr(rpc("runtime.get", "{}"), "'mss'"), "the stage is still there");
    stays(mss_alone(1460));
}

/* --- checksums --- */

CASE(every_checksum) {
    unsigned sent = 0;

    start(wan_has_1400());
    for (unsigned mss = 0; mss < 65536; mss += 97) {
        unsigned low = mss < 1400 ? mss : 1400;

        inject(LAN, out4(SYN, mss_alone(mss)));
        expect(WAN, hop(out4(SYN, mss_alone(low))));
        inject(LAN, out4(SYN, text("010204%04x010101", mss))); /* across two words */
        expect(WAN, hop(out4(SYN, text("010204%04x010101", low))));
        if (++sent % 64 == 0)
            frames_free();
    }
}

/* Whatever the checksum was, right or not: it is as right or wrong afterwards. */
CASE(wrong_checksums_stay_wrong) {
    struct frame *sent = out4(SYN, mss_alone(1460)), *expected = out4(SYN, mss_alone(1400));

    start(wan_has_1400());
    for (unsigned delta = 1; delta < 0xffff; delta += 1021) {
        struct frame *wrong = copy(sent), *wrong_after = copy(expected);
        uint8_t difference[2] = {(uint8_t)(delta >> 8), (uint8_t)delta};
        uint16_t before = fold16(sum16(sum16(0, difference, 2), sent->bytes + 50, 2));
        uint16_t after = fold16(sum16(sum16(0, difference, 2), expected->bytes + 50, 2));

        wrong->bytes[50] = (uint8_t)(before >> 8);
        wrong->bytes[51] = (uint8_t)before;
        wrong_after->bytes[50] = (uint8_t)(after >> 8);
        wrong_after->bytes[51] = (uint8_t)after;
        leaves_as(LAN, WAN, wrong, wrong_after);
    }
}

/* --- where the option stands --- */

CASE(every_place_among_other_options) {
    start(wan_has_1400());
    for (unsigned before = 0; before <= 36; before++) {
        char sent[100] = "", expected[100];
        char *at = sent;

        for (unsigned i = 0; i < before; i++)
            append(&at, "01");
        append(&at, "020405b4");
        while (strlen(sent) % 8 != 0)
            append(&at, "00");
        strcpy(expected, sent);
        memcpy(expected + 2ul * before, "02040578", 8);
        becomes(sent, expected);
    }
    becomes("0103030704020204"
            "05b4000000000000",
            "0103030704020204"
            "0578000000000000");
}

CASE(all_that_are_too_large) {
    start(wan_has_1400());
    becomes("020405b4020404b0020405b5", "02040578020404b002040578");
}

CASE(nothing_behind_the_end_of_the_options) {
    start(wan_has_1400());
    stays("00020405b4000000");
    stays("010100000204ffff");
}

CASE(not_in_the_data) {
    struct frame *frame = out4(SYN, "01010101");

    start(wan_has_1400());
    frame = seal(poke(frame, IP4_PAYLOAD + TCP_HEADER + 4, "0204ffff"), IP4_PAYLOAD);
    leaves_as(LAN, WAN, frame, frame);
}

CASE(malformed_options_are_left_alone) {
    start(wan_has_1400());
    stays("0200ffff");         /* no length */
    stays("0201ffff");         /* shorter than itself */
    stays("0203ff01");         /* too short */
    stays("0206ffff00000000"); /* too long */
    stays("01010204");         /* past the end */
    stays("010204ff");
    stays("01010102");
    stays("08010102020405b4"); /* nothing is known behind one without a length */
    stays("03ff030702040fff"); /* past the end, and so what is behind it */
    becomes("0204ffff0300ffff", "020405780300ffff"); /* what stands before is as it should be */
}

CASE(malformed_headers_are_left_alone) {
    struct frame *right = out4(SYN, mss_alone(1460)), *frame;

    start(wan_has_1400());
    for (unsigned words = 0; words <= 5; words++) {
        frame = poke(right, IP4_PAYLOAD + DATA_OFFSET, text("%02x", words << 4));
        leaves_as(LAN, WAN, seal(frame, IP4_PAYLOAD), frame);
    }
    frame = poke(right, IP4_PAYLOAD + DATA_OFFSET, "f0"); /* longer than the packet */
    leaves_as(LAN, WAN, seal(frame, IP4_PAYLOAD), frame);
    for (unsigned length = 1; length < 20; length++) { /* shorter than a TCP header */
        frame = ip4(.source = "192.168.1.10", .destination = "203.0.113.1", .protocol = TCP,
                    .size = length);
        for (unsigned i = 0; i < length; i++)
            frame->bytes[IP4_PAYLOAD + i] = 0xff;
        leaves_as(LAN, WAN, frame, frame);
        frame = ip6(.source = "2001:db8:1::10", .destination = "2001:db8:99::1", .protocol = TCP,
                    .size = length);
        for (unsigned i = 0; i < length; i++)
            frame->bytes[IP6_PAYLOAD + i] = 0xff;
        leaves_as(LAN, WAN, frame, frame);
    }
}

/* --- where the segment stands --- */

CASE(behind_ipv4_options) {
    struct frame *sent = tcp4(.source = HOST4, .destination = SERVER4, .tcp_flags = SYN,
                              .options = "94040000", .size = 9);

    start(wan_has_1400());
    leaves_as(LAN, WAN, with_options(sent, IP4_PAYLOAD + 4, mss_alone(1460)),
              with_options(sent, IP4_PAYLOAD + 4, mss_alone(1400)));
}

CASE(behind_extension_headers) {
    struct frame *options = tcp6(.source = HOST6, .destination = SERVER6, .tcp_flags = SYN,
                                 .first = 60, .extensions = "0600010400000000", .size = 9);
    /* Destination options, then an atomic fragment header. */
    struct frame *two = tcp6(.source = HOST6, .destination = SERVER6, .tcp_flags = SYN, .first = 60,
                             .extensions = "2c000104000000000600000000000001", .size = 9);

    start(wan_has_1400());
    leaves_as(LAN, WAN, with_options(options, IP6_PAYLOAD + 8, mss_alone(1440)),
              with_options(options, IP6_PAYLOAD + 8, mss_alone(1380)));
    leaves_as(LAN, WAN, with_options(two, IP6_PAYLOAD + 16, mss_alone(1440)),
              with_options(two, IP6_PAYLOAD + 16, mss_alone(1380)));
}

/* Its receiver would see that somebody changed it. */
CASE(not_behind_an_authentication_header) {
    struct frame *frame =
        tcp6(.source = HOST6, .destination = SERVER6, .tcp_flags = SYN, .first = 51,
             .extensions = "060400000000000100000001"
                           "0102030405060708"
                           "090a0b0c",
             .size = 9);
    struct frame *second =
        tcp6(.source = HOST6, .destination = SERVER6, .tcp_flags = SYN, .first = 60,
             .extensions = "3300010400000000"
                           "060400000000000100000001"
                           "0102030405060708"
                           "090a0b0c",
             .size = 9);

    start(wan_has_1400());
    frame = with_options(frame, IP6_PAYLOAD + 24, mss_alone(1440));
    leaves_as(LAN, WAN, frame, frame);
    second = with_options(second, IP6_PAYLOAD + 32, mss_alone(1440));
    leaves_as(LAN, WAN, second, second);
}

CASE(fragments) {
    struct frame *sent = between4(HOST4, SERVER4, SYN, linux_options(1460));
    struct frame *lowered = between4(HOST4, SERVER4, SYN, linux_options(1400));

    start(wan_has_1400());
    leaves_as(LAN, WAN, fragment4(sent, 0, 40), fragment4(lowered, 0, 40));
    leaves_as(LAN, WAN, fragment4(sent, 40, 5), fragment4(sent, 40, 5));
    leaves_as(LAN, WAN, fragment4(sent, 0, 24), fragment4(lowered, 0, 24)); /* just the option */
}

/* What looks like a SYN there is data, or the rest of one. */
CASE(later_fragments_are_left_alone) {
    struct frame *frame = out4(SYN, mss_alone(1460));
    struct frame *six = tcp6(.source = HOST6, .destination = SERVER6, .tcp_flags = SYN, .first = 44,
                             .extensions = "0600002000000001", .size = 9);

    start(wan_has_1400());
    frame = patch(frame, IP + 6, "0001");
    leaves_as(LAN, WAN, frame, frame);
    six = with_options(six, IP6_PAYLOAD + 8, mss_alone(1440));
    leaves_as(LAN, WAN, six, six);
}

/* The IP header and all that is changed have to lie in the first buffer. */
CASE(buffers_split_at_every_offset) {
    struct frame *sent = out4(SYN, mss_alone(1460)), *lowered = out4(SYN, mss_alone(1400));
    struct frame *sent6 = out6(SYN, mss_alone(1440)), *lowered6 = out6(SYN, mss_alone(1380));

    start(wan_has_1400());
    for (unsigned first = IP4_PAYLOAD; first < sent->length; first++) {
        inject_split(LAN, sent, first);
        expect(WAN, hop(first < IP4_PAYLOAD + TCP_HEADER + 4 ? sent : lowered));
    }
    for (unsigned first = IP6_PAYLOAD; first < sent6->length; first++) {
        inject_split(LAN, sent6, first);
        expect(WAN, hop(first < IP6_PAYLOAD + TCP_HEADER + 4 ? sent6 : lowered6));
    }
}

CASE(vlans) {
    start("{'interfaces': {'lan': {" LAN_PORT "},"
          "'office': {'parent': 'lan', 'vlan': 10, 'addresses': ['192.168.1.1/24',"
          "'2001:db8:1::1/64']},"
          "'wan': {" WAN_PORT "},"
          "'pppoe': {'parent': 'wan', 'vlan': 7, 'mtu': 1492, 'tcp_mss': 'auto',"
          "'addresses': ['198.51.100.1/24', '2001:db8:2::1/64']}},"
          "'neighbours': [{'interface': 'office', 'address': '192.168.1.10', 'mac': '" HOST_LAN
          "'}, {'interface': 'office', 'address': '2001:db8:1::10', 'mac': '" HOST_LAN
          "'}, {'interface': 'pppoe', 'address': '198.51.100.2', 'mac': '" HOST_WAN
          "'}, {'interface': 'pppoe', 'address': '2001:db8:2::2', 'mac': '" HOST_WAN
          "'}], 'routes': [" DEFAULT_ROUTES "]," UNLIMITED "}");
    inject(LAN, vlan(10, out4(SYN, mss_alone(1460))));
    expect(WAN, vlan(7, hop(out4(SYN, mss_alone(1452)))));
    inject(WAN, vlan(7, in6(SYN | ACK, mss_alone(1440))));
    expect(LAN, vlan(10, hop(in6(SYN | ACK, mss_alone(1432)))));
}

CASE(a_segment_that_waited_for_its_neighbour) {
    struct frame *sent = between4(HOST4, "198.51.100.77:80", SYN, mss_alone(1460));

    start(wan_has_1400());
    inject(LAN, sent);
    expect(WAN, arp_request(.sender = "198.51.100.1", .sender_mac = ROUTER_WAN,
                            .target = "198.51.100.77"));
    inject(WAN, arp_reply(.sender = "198.51.100.77", .sender_mac = HOST_WAN,
                          .target = "198.51.100.1", .target_mac = ROUTER_WAN));
    expect(WAN, hop(between4(HOST4, "198.51.100.77:80", SYN, mss_alone(1400))));
}

/* --- bursts --- */

CASE(some_of_a_burst) {
    start(wan_has_1400());
    for (unsigned family = 0; family < 2; family++) {
        for (unsigned i = 0; i < 64; i++)
            inject(LAN, family ? out6(i % 7 ? ACK : SYN, mss_alone(9000 + i))
                               : out4(i % 7 ? ACK : SYN, mss_alone(9000 + i)));
        for (unsigned i = 0; i < 64; i++)
            expect(WAN, hop(family ? out6(i % 7 ? ACK : SYN, mss_alone(i % 7 ? 9000 + i : 1380))
                                   : out4(i % 7 ? ACK : SYN, mss_alone(i % 7 ? 9000 + i : 1400))));
    }
}

CASE(a_mixed_burst) {
    struct frame *udp = udp4(.source = HOST4, .destination = SERVER4);

    start(wan_has_1400());
    for (unsigned i = 0; i < 16; i++) {
        inject(LAN, out4(SYN, mss_alone(1460 + i)));
        inject(LAN, out6(SYN, linux_options(1440 + i)));
        inject(LAN, between4(HOST4, "10.3.0.10:80", SYN, mss_alone(1460 + i)));
        inject(LAN, udp);
    }
    for (unsigned i = 0; i < 16; i++) {
        expect(WAN, hop(out4(SYN, mss_alone(1400))));
        expect(WAN, hop(out6(SYN, linux_options(1380))));
        expect(WAN, hop(udp));
        expect(DMZ, hop(between4(HOST4, "10.3.0.10:80", SYN, mss_alone(1460 + i))));
    }
}

/* --- with translation --- */

CASE(behind_nat) {
    struct frame *found;

    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "},"
          "'wan': {" WAN_PORT "," WAN_ADDRESSES ", 'tcp_mss': 1400}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
          "'routes': [" DEFAULT_ROUTES "],"
          "'nat': {'source': [{'out': 'wan', 'to': 'interface'}]}," UNLIMITED "}");
    inject(LAN, out4(SYN, linux_options(1460)));
    found = take_one(WAN);

    unsigned port = (unsigned)found->bytes[IP4_PAYLOAD] << 8 | found->bytes[IP4_PAYLOAD + 1];
    const char *outside = text("198.51.100.1:%u", port);
    struct frame *expected = hop(between4(outside, SERVER4, SYN, linux_options(1400)));

    require(found->length == expected->length &&
                memcmp(found->bytes + IP, expected->bytes + IP, found->length - IP) == 0,
            "the SYN is not what it should be");
    inject(WAN, between4(SERVER4, outside, SYN | ACK, linux_options(1460)));
    expect(LAN, hop(in4(SYN | ACK, linux_options(1400))));
}

HARNESS_MAIN()
