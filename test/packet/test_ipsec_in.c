/* IPsec, what comes in: the checks of RFC 4303 section 3.4 in their order, the window against
 * replays, and what becomes of what was inside. */
#include "ipsec_network.h"

enum { ECN_CE = 3, ECT1 = 1, ECT0 = 2, NOT_ECT = 0 };

#define CBC                                                                          \
    .algorithm = "aes-cbc-128", .key = KEY_128, .authentication = "hmac-sha256-128", \
    .authentication_key = KEY_256

static const char *with_window(unsigned packets) {
    return tunnel(NULL, &in4, text(", 'replay_window': %u", packets));
}

static struct esp_sa with_esn(void) {
    struct esp_sa sa = in4;

    sa.esn = true;
    return sa;
}

#define arrives(sa, number) comes_in((sa), from_far(), .sequence = (number))
#define is_replayed(sa, number) \
    is_dropped(WAN, esp((sa), from_far(), .sequence = (number)), "ipsec_in.replayed")
#define is_too_old(sa, number) \
    is_dropped(WAN, esp((sa), from_far(), .sequence = (number)), "ipsec_in.too_old")

/* Length in the header and its checksum as the frame's length says. */
static struct frame *cut_to(const struct frame *frame, unsigned length) {
    struct frame *shorter = truncated(frame, length);

    return patch(shorter, IP + 2, text("%04x", length - IP));
}

/* One bit of the frame is another one; outer header checksums stay as they were. */
static struct frame *flipped(const struct frame *frame, unsigned bit) {
    struct frame *other = copy(frame);

    other->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    return other;
}

/* --- replays (RFC 4303 section 3.4.3) --- */

CASE(each_number_once) {
    start(with_window(64));
    for (unsigned number = 1; number <= 200; number++) {
        arrives(&in4, number);
        is_replayed(&in4, number);
    }
    is_replayed(&in4, 137);
    is_too_old(&in4, 136);
    is_too_old(&in4, 1);
    contains(rpc("ipsec.sa.list", "{}"), "'replayed':201,'too_old':2,'integrity_failures':0,"
                                         "'malformed':0,'refused':0,'sequence':200");
}

CASE(reordered_packets) {
    start(with_window(64));
    for (unsigned block = 0; block < 10; block++) {
        for (unsigned i = 64; i > 0; i--)
            arrives(&in4, block * 64 + i);
    }
    arrives(&in4, 1000);
    for (unsigned number = 999; number > 1000 - 64; number--)
        arrives(&in4, number);
    is_too_old(&in4, 1000 - 64);
    for (unsigned number = 1000; number > 1000 - 64; number--)
        is_replayed(&in4, number);
}

CASE(windows_of_all_sizes) {
    static const unsigned sizes[] = {1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 1000, 4095, 4096};

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned size = sizes[i];

        start(with_window(size));
        arrives(&in4, 10000);
        if (size > 1)
            arrives(&in4, 10000 - size + 1);
        is_replayed(&in4, 10000 - size + 1);
        is_too_old(&in4, 10000 - size);
        arrives(&in4, 10001);
        is_too_old(&in4, 10001 - size);
        /* Far ahead: nothing of before is remembered wrongly. */
        arrives(&in4, 200000);
        for (unsigned back = 1; back < size; back += size / 16 + 1)
            arrives(&in4, 200000 - back);
        is_too_old(&in4, 200000 - size);
        apply("{}");
    }
}

CASE(without_a_window) {
    start(tunnel(NULL, &in4, ", 'replay_window': 0"));
    arrives(&in4, 5);
    arrives(&in4, 5);
    arrives(&in4, 1);
    arrives(&in4, 1000000);
    arrives(&in4, 2);
}

CASE(number_zero) {
    start(with_window(64));
    is_dropped(WAN, esp(&in4, from_far(), .zero_sequence = true), "ipsec_in.sequence_zero");
    arrives(&in4, 1);
    is_dropped(WAN, esp(&in4, from_far(), .zero_sequence = true), "ipsec_in.sequence_zero");
}

CASE(the_last_number) {
    start(with_window(64));
    arrives(&in4, UINT32_MAX - 1);
    arrives(&in4, UINT32_MAX);
    is_replayed(&in4, UINT32_MAX);
    is_too_old(&in4, 1);
}

/* Only what was authenticated moves the window: otherwise anybody could move it past the peer. */
CASE(forged_numbers_do_not_count) {
    start(with_window(64));
    arrives(&in4, 1);
    for (unsigned number = 2; number < 100; number++) {
        struct frame *forged = esp(&in4, from_far(), .sequence = number);

        forged->bytes[forged->length - 1] ^= 1;
        is_dropped(WAN, forged, "ipsec_in.integrity");
    }
    is_dropped(WAN, poke(esp(&in4, from_far(), .sequence = 1), IP4_PAYLOAD + 4, "7fffffff"),
               "ipsec_in.integrity");
    for (unsigned number = 2; number < 100; number++)
        arrives(&in4, number);
    contains(rpc("ipsec.sa.list", "{}"), "'integrity_failures':99");
}

/* A packet twice in one burst passes the first look twice. */
CASE(replays_in_one_burst) {
    start(with_window(64));
    for (unsigned i = 0; i < 5; i++) {
        inject(WAN, esp(&in4, from_far(.size = 10), .sequence = 1));
        inject(WAN, esp(&in4, from_far(.size = 20), .sequence = 2));
    }
    turn();
    expect(LAN, hop(from_far(.size = 10)));
    expect(LAN, hop(from_far(.size = 20)));
    expect_nothing(ANYWHERE);
    expect_drop("ipsec_in.replayed", 8);
}

/* --- extended numbers (RFC 4303 section 2.2.1 and appendix A) --- */

CASE(extended_numbers) {
    static const struct esp_sa cbc = {
        .spi = SPI_IN, .source = PEER, .destination = ROUTER, CBC, .esn = true};
    const struct esp_sa gcm = with_esn(), *sas[] = {&gcm, &cbc};

    for (unsigned i = 0; i < 2; i++) {
        const uint64_t turn_over = UINT64_C(1) << 32;

        start(tunnel(NULL, sas[i], ", 'replay_window': 64"));
        arrives(sas[i], 1);
        arrives(sas[i], turn_over / 2);
        for (uint64_t number = turn_over - 10; number < turn_over + 10; number++) {
            arrives(sas[i], number);
            is_replayed(sas[i], number);
        }
        /* The window reaches back across. */
        arrives(sas[i], turn_over - 20);
        is_replayed(sas[i], turn_over - 20);
        arrives(sas[i], turn_over + 70);
        /* What is behind the window is taken for one of 2^32 later, and so is not authentic. */
        is_dropped(WAN, esp(sas[i], from_far(), .sequence = turn_over + 1), "ipsec_in.integrity");
        is_dropped(WAN, esp(sas[i], from_far(), .sequence = 500), "ipsec_in.integrity");
        arrives(sas[i], 2 * turn_over - 1);
        arrives(sas[i], 2 * turn_over + 5);
        arrives(sas[i], 2 * turn_over);
    }
}

CASE(extended_numbers_in_the_largest_window) {
    struct esp_sa sa = with_esn();
    const uint64_t turn_over = UINT64_C(1) << 32;

    start(tunnel(NULL, &sa, ", 'replay_window': 4096"));
    arrives(&sa, turn_over - 2000);
    arrives(&sa, turn_over + 2000);
    for (uint64_t number = turn_over - 1999; number < turn_over + 2000; number += 37)
        arrives(&sa, number);
    for (uint64_t number = turn_over - 1999; number < turn_over + 2000; number += 37)
        is_replayed(&sa, number);
}

/* The wrong upper half is a wrong check value. */
CASE(extended_numbers_are_authenticated) {
    struct esp_sa sa = with_esn();

    start(tunnel(NULL, &sa, ", 'replay_window': 64"));
    arrives(&sa, 100);
    is_dropped(WAN, esp(&sa, from_far(), .sequence = (UINT64_C(1) << 32) + 101),
               "ipsec_in.integrity");
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 101), "ipsec_in.integrity");
    arrives(&sa, 101);
}

/* Without a window packets are late as well; the upper half is that of the nearest number. */
CASE(extended_numbers_without_a_window) {
    struct esp_sa sa = with_esn();
    const uint64_t turn_over = UINT64_C(1) << 32;

    start(tunnel(NULL, &sa, ", 'replay_window': 0"));
    arrives(&sa, 10);
    arrives(&sa, 5);
    arrives(&sa, 10);
    arrives(&sa, turn_over / 2);
    arrives(&sa, turn_over - 1);
    arrives(&sa, turn_over + 3);
    arrives(&sa, turn_over - 2);
    arrives(&sa, turn_over + 2);
}

/* --- what is wrong with a packet --- */

CASE(wrong_check_values) {
    const struct frame *right = esp(&in4, from_far());

    start(tunnel(NULL, &in4, ""));
    for (unsigned bit = (IP4_PAYLOAD + 4) * 8; bit < right->length * 8; bit++)
        is_dropped(WAN, flipped(right, bit), "ipsec_in.integrity");
    inject(WAN, right);
    expect(LAN, hop(from_far()));
}

CASE(wrong_check_values_beside_the_cipher) {
    static const struct esp_sa cbc = {.spi = SPI_IN, .source = PEER, .destination = ROUTER, CBC};
    const struct frame *right = esp(&cbc, from_far());

    start(tunnel(NULL, &cbc, ""));
    for (unsigned bit = (IP4_PAYLOAD + 4) * 8; bit < right->length * 8; bit++)
        is_dropped(WAN, flipped(right, bit), "ipsec_in.integrity");
    inject(WAN, right);
    expect(LAN, hop(from_far()));
}

CASE(another_key) {
    struct esp_sa other = in4;

    other.key = "00112233445566778899aabbccddeefe" SALT;
    start(tunnel(NULL, &in4, ""));
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.integrity");
    other.key = KEY_128 "a1b2c3d5";
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.integrity");
    other = in4;
    other.icv_length = 12;
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.integrity");
}

CASE(truncated_packets) {
    static const struct esp_sa cbc = {.spi = SPI_IN, .source = PEER, .destination = ROUTER, CBC};
    const struct esp_sa *sas[] = {&in4, &cbc};

    for (unsigned i = 0; i < 2; i++) {
        const struct frame *right = esp(sas[i], from_far());
        unsigned iv = i == 0 ? 8 : 16, align = i == 0 ? 4 : 16;

        start(tunnel(NULL, sas[i], ""));
        for (unsigned length = IP4_PAYLOAD; length < right->length; length++) {
            unsigned there = length - IP4_PAYLOAD, around = 8 + iv + 16;
            const char *reason = there < 8                       ? "ipsec_in.unknown_spi"
                                 : there < around + 2            ? "ipsec_in.truncated"
                                 : (there - around) % align != 0 ? "ipsec_in.bad_length"
                                                                 : "ipsec_in.integrity";

            is_dropped(WAN, cut_to(right, length), reason);
        }
    }
}

CASE(bad_padding) {
    start(tunnel(NULL, &in4, ""));
    /* Not 1, 2, 3, ...; from_far() has 35 octets, so that three of padding fill the word. */
    is_dropped(WAN, esp(&in4, from_far(), .trailer = "0102040304"), "ipsec_in.bad_padding");
    is_dropped(WAN, esp(&in4, from_far(), .trailer = "0002030304", .sequence = 2),
               "ipsec_in.bad_padding");
    is_dropped(WAN, esp(&in4, from_far(), .trailer = "0000000304", .sequence = 3),
               "ipsec_in.bad_padding");
    is_dropped(WAN, esp(&in4, from_far(), .trailer = "010203ff04", .sequence = 4),
               "ipsec_in.bad_padding");
    is_dropped(WAN, esp(&in4, from_far(), .trailer = "0102032704", .sequence = 5),
               "ipsec_in.bad_padding");
    is_dropped(WAN,
               esp(&in4, from_far(), .payload = "", .trailer = "0102030405060107", .sequence = 6),
               "ipsec_in.bad_padding");
    is_dropped(WAN, esp(&in4, from_far(), .payload = "", .trailer = "01020304", .sequence = 7),
               "ipsec_in.bad_padding");
    contains(rpc("ipsec.sa.list", "{}"), "'malformed':7");
    comes_in(&in4, from_far(), .trailer = "0102030304", .sequence = 8);
}

/* Up to 255 octets, to hide how long packets are (RFC 4303 section 2.4). */
CASE(more_padding_than_needed) {
    start(tunnel(NULL, &in4, ""));
    for (unsigned padding = 4; padding <= 252; padding += 4)
        comes_in(&in4, from_far(), .padding = padding, .sequence = padding);
}

CASE(traffic_flow_confidentiality) {
    unsigned sequence = 0;

    start(tunnel(NULL, &in4, ""));
    for (unsigned octets = 1; octets < 1300; octets += 37) {
        comes_in(&in4, from_far(), .tfc = octets, .sequence = ++sequence);
        comes_in(&in4, from_far6(), .tfc = octets, .sequence = ++sequence);
        inject_segments(WAN, esp(&in4, from_far(), .tfc = octets, .sequence = ++sequence), 100);
        expect(LAN, hop(from_far()));
    }
}

/* RFC 4303 section 2.6. */
CASE(dummy_packets) {
    start(tunnel(NULL, &in4, ", 'replay_window': 64"));
    is_dropped(WAN, esp(&in4, from_far(), .next_header = NO_NEXT_HEADER), "ipsec_in.dummy_packet");
    is_dropped(WAN,
               esp(&in4, from_far(), .payload = "", .next_header = NO_NEXT_HEADER, .sequence = 2),
               "ipsec_in.dummy_packet");
    is_dropped(WAN,
               esp(&in4, from_far(), .payload = "ffffffffffff", .sequence = 3,
                   .next_header = NO_NEXT_HEADER),
               "ipsec_in.dummy_packet");
    /* They are packets like others to the window, and nothing is wrong with them. */
    is_dropped(WAN, esp(&in4, from_far(), .next_header = NO_NEXT_HEADER, .sequence = 3),
               "ipsec_in.replayed");
    contains(rpc("ipsec.sa.list", "{}"), "'malformed':0");
}

CASE(next_headers_that_the_mode_does_not_carry) {
    struct esp_sa back = {
        .spi = SPI_IN, .source = FAR, .destination = INSIDE, .transport = true, GCM};
    unsigned sequence = 0;

    start(tunnel(NULL, &in4, ""));
    for (int next_header = 1; next_header < 256; next_header++) {
        if (next_header == 4 || next_header == 41 || next_header == NO_NEXT_HEADER)
            continue;
        is_dropped(WAN, esp(&in4, from_far(), .next_header = next_header, .sequence = ++sequence),
                   "ipsec_in.wrong_next_header");
    }
    /* The family has to be the one that is said. */
    is_dropped(WAN, esp(&in4, from_far6(), .next_header = 4, .sequence = ++sequence),
               "parse.ipv4_version");
    is_dropped(WAN, esp(&in4, from_far(.size = 40), .next_header = 41, .sequence = ++sequence),
               "parse.ipv6_version");
    start(with_sas(sa_json(&back, "in", ""), "{'direction': 'in', 'source': '10.9.0.0/16',"
                                             " 'action': 'protect', 'spi': 8192}"));
    is_dropped(WAN, esp(&back, from_far(), .next_header = 4), "ipsec_in.wrong_next_header");
    is_dropped(WAN, esp(&back, from_far(), .next_header = 41, .sequence = 2),
               "ipsec_in.wrong_next_header");
    comes_in(&back, from_far(), .sequence = 3);
}

CASE(nothing_inside) {
    struct esp_sa back = {
        .spi = SPI_IN, .source = FAR, .destination = INSIDE, .transport = true, GCM};

    start(tunnel(NULL, &in4, ""));
    is_dropped(WAN, esp(&in4, from_far(), .payload = ""), "ipsec_in.truncated");
    is_dropped(WAN, esp(&in4, from_far6(), .payload = "", .sequence = 2), "ipsec_in.truncated");
    is_dropped(WAN, esp(&in4, from_far(), .payload = "4500", .sequence = 3), "ipsec_in.truncated");
    is_dropped(WAN,
               esp(&in4, from_far6(), .payload = "60000000000011400000000000000000", .sequence = 4),
               "ipsec_in.truncated");
    /* An IPv4 packet of a header alone is none the less one. */
    start(with_sas(sa_json(&back, "in", ""), "{'direction': 'in', 'source': '10.9.0.0/16',"
                                             " 'action': 'protect', 'spi': 8192}"));
    inject(WAN,
           esp(&back, ip4(.source = FAR, .destination = INSIDE, .protocol = 200), .payload = ""));
    expect(LAN, hop(ip4(.source = FAR, .destination = INSIDE, .protocol = 200, .payload = "")));
}

/* The reasons of `parse` hold inside as well. */
CASE(garbage_inside) {
    static const struct {
        unsigned offset;
        const char *bytes, *reason;
    } four[] = {
        {IP, "65", "parse.ipv4_version"},
        {IP, "44", "parse.ipv4_header_length"},
        {IP, "4f", "parse.ipv4_total_length"},
        {IP + 2, "0010", "parse.ipv4_total_length"},
        {IP + 2, "0100", "parse.ipv4_total_length"},
        {IP + 10, "beef", "parse.ipv4_checksum"},
    };
    unsigned sequence = 0;

    start(tunnel(NULL, &in4, ""));
    for (unsigned i = 0; i < sizeof(four) / sizeof(four[0]); i++) {
        struct frame *bad = poke(from_far(), four[i].offset, four[i].bytes);

        inject(WAN, esp(&in4, bad, .next_header = 4, .sequence = ++sequence));
        expect_nothing(ANYWHERE);
        expect_drop(four[i].reason, 1);
    }
    contains(rpc("ipsec.sa.list", "{}"), "'malformed':6");
    comes_in(&in4, from_far(), .sequence = ++sequence);
    inject(WAN, esp(&in4, poke(from_far6(), IP, "40"), .next_header = 41, .sequence = ++sequence));
    expect_nothing(ANYWHERE);
    expect_drop("parse.ipv6_version", 1);
    inject(WAN, esp(&in4, poke(from_far6(), IP + 4, "0100"), .sequence = ++sequence));
    expect_nothing(ANYWHERE);
    expect_drop("parse.ipv6_payload_length", 1);
    inject(WAN, esp(&in4, udp4(.source = "127.0.0.1:1", .destination = INSIDE ":2"),
                    .sequence = ++sequence));
    expect_nothing(ANYWHERE);
    expect_drop("parse.ipv4_martian_source", 1);
}

CASE(unknown_spis) {
    struct esp_sa other = in4;

    start(tunnel(NULL, &in4, ""));
    other.spi = SPI_IN + 1;
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.unknown_spi");
    other.spi = 0;
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.unknown_spi");
    other.spi = UINT32_MAX;
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.unknown_spi");
    /* To another address of the router: another association. */
    other = in4;
    other.destination = "192.168.1.1";
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.unknown_spi");
    other = in6;
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.unknown_spi");
}

/* ESP between others passes, whatever its SPI. */
CASE(esp_of_others) {
    struct esp_sa other = in4;

    other.destination = INSIDE;
    start(tunnel(NULL, &in4, ""));
    passes(WAN, LAN, esp(&other, from_far()));
    other = in6;
    other.destination = INSIDE6;
    passes(WAN, LAN, esp(&other, from_far()));
    other = out4;
    other.source = INSIDE;
    passes(LAN, WAN, esp(&other, to_far()));
}

CASE(wrong_source) {
    struct esp_sa other = in4;

    start(tunnel(NULL, &in4, ""));
    other.source = "203.0.113.10";
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.wrong_source");
    comes_in(&in4, from_far());
    start(tunnel(NULL, &in6, ""));
    other = in6;
    other.source = "2001:db8:99::a";
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.wrong_source");
    comes_in(&in6, from_far());
}

/* --- UDP (RFC 3948 section 2) --- */

static struct esp_sa in_udp(void) {
    struct esp_sa sa = in4;

    sa.source_port = sa.destination_port = 4500;
    return sa;
}

/* What is not ESP on the port goes to IKE: without a daemon that is "port unreachable". */
CASE(ike_on_the_same_port) {
    static const char *const not_esp[] = {
        "000000000123456789abcdef0000000000000000212022080000000000000000", /* IKE */
        "ff",                                                               /* keepalive */
        "00000000",
        "",
        "000000",
        "00001000",
        "00001000000000", /* not even a header */
    };
    struct esp_sa sa = in_udp();

    start(tunnel(NULL, &sa, ""));
    for (unsigned i = 0; i < sizeof(not_esp) / sizeof(not_esp[0]); i++) {
        unsigned length = (unsigned)strlen(not_esp[i]) / 2;
        struct frame *frame = udp4(.source = PEER ":4500", .destination = ROUTER ":4500",
                                   .size = length ? length : 1);

        if (length == 0)
            frame = udp4(.source = PEER ":4500", .destination = ROUTER ":4500", .payload = "");
        frame = poke(frame, IP4_PAYLOAD + 8, not_esp[i]);
        frame = poke(frame, IP4_PAYLOAD + 6, "0000");
        inject(WAN, frame);
        expect(WAN, icmp4_error(.source = ROUTER, .destination = PEER, .type = 3, .code = 3,
                                .about = frame));
        expect_drop("local.no_listener", 1);
    }
    comes_in(&sa, from_far());
}

/* RFC 3948 section 2.1: the receiver must not depend upon the checksum. */
CASE(udp_checksums_do_not_matter) {
    struct esp_sa sa = in_udp();

    start(tunnel(NULL, &sa, ""));
    inject(WAN, esp(&sa, from_far(), .udp_checksum = 0xbeef));
    expect(LAN, hop(from_far()));
}

CASE(udp_to_another_port_is_not_esp) {
    struct esp_sa sa = in_udp(), other = sa;
    struct frame *frame;

    other.destination_port = 4501;
    start(tunnel(NULL, &sa, ""));
    frame = esp(&other, from_far());
    inject(WAN, frame);
    expect(WAN, icmp4_error(.source = ROUTER, .destination = PEER, .type = 3, .code = 3,
                            .about = frame));
    expect_drop("local.no_listener", 1);
}

/* --- congestion (RFC 6040 section 4.2) --- */

CASE(congestion_outside_is_told_inside) {
    /* By inner and outer field: what the inner becomes; 4 = the packet is dropped. */
    static const unsigned becomes[4][4] = {
        [NOT_ECT] = {NOT_ECT, NOT_ECT, NOT_ECT, 4},
        [ECT1] = {ECT1, ECT1, ECT1, ECN_CE},
        [ECT0] = {ECT0, ECT1, ECT0, ECN_CE},
        [ECN_CE] = {ECN_CE, ECN_CE, ECN_CE, ECN_CE},
    };
    unsigned sequence = 0;

    start(tunnel(NULL, &in4, ""));
    for (unsigned inner = 0; inner < 4; inner++) {
        for (unsigned outer = 0; outer < 4; outer++) {
            const unsigned dscp = 0xb8, new = becomes[inner][outer];
            struct frame *sent = from_far(.tos = dscp | inner);
            struct frame *sent6 = from_far6(.traffic_class = dscp | inner, .flow_label = 0xabcde);

            inject(WAN, esp(&in4, sent, .tos = 0x48 | outer, .sequence = ++sequence));
            inject(WAN, esp(&in4, sent6, .tos = 0x48 | outer, .sequence = ++sequence));
            if (new == 4) {
                expect_nothing(ANYWHERE);
                expect_drop("ipsec_in.ecn_congestion", 2);
                continue;
            }
            expect(LAN, hop(from_far(.tos = dscp | new)));
            expect(LAN, hop(from_far6(.traffic_class = dscp | new, .flow_label = 0xabcde)));
        }
    }
    start(tunnel(NULL, &in6, ""));
    inject(WAN, esp(&in6, from_far(.tos = ECT0), .tos = ECN_CE));
    expect(LAN, hop(from_far(.tos = ECN_CE)));
    inject(WAN, esp(&in6, from_far6(.traffic_class = ECT0), .tos = ECN_CE, .sequence = 2));
    expect(LAN, hop(from_far6(.traffic_class = ECN_CE)));
}

/* --- buffers --- */

/* Ports put the headers into the first buffer; wherever else one ends does not matter. */
CASE(inbound_in_several_buffers) {
    static const struct esp_sa cbc = {.spi = SPI_IN, .source = PEER, .destination = ROUTER, CBC};
    const struct esp_sa *sas[] = {&in4, &cbc, &in6};

    for (unsigned i = 0; i < 3; i++) {
        const struct frame *length = esp(sas[i], from_far(.size = 60));
        unsigned sequence = 0, headers = esp_offset(sas[i]) + 8 + 16 + 40 + 8;

        start(tunnel(NULL, sas[i], ", 'replay_window': 4096"));
        for (unsigned first = headers; first < length->length; first++) {
            inject_split(WAN, esp(sas[i], from_far(.size = 60), .sequence = ++sequence), first);
            expect(LAN, hop(from_far(.size = 60)));
            inject_split(WAN, esp(sas[i], from_far6(.size = 40), .sequence = ++sequence), first);
            expect(LAN, hop(from_far6(.size = 40)));
        }
        for (unsigned each = headers; each < 700; each += 31) {
            inject_segments(WAN, esp(sas[i], from_far(.size = 1300), .sequence = ++sequence), each);
            expect(LAN, hop(from_far(.size = 1300)));
            inject_segments(WAN, esp(sas[i], from_far6(.size = 1300), .sequence = ++sequence),
                            each);
            expect(LAN, hop(from_far6(.size = 1300)));
        }
        /* Trailer and check value in buffers of their own. */
        for (unsigned last = 1; last < 40; last++) {
            struct frame *frame = esp(sas[i], from_far(.size = 300), .sequence = ++sequence);

            inject_split(WAN, frame, frame->length - last);
            expect(LAN, hop(from_far(.size = 300)));
        }
        is_dropped(WAN, flipped(esp(sas[i], from_far(), .sequence = ++sequence), 8 * 90),
                   "ipsec_in.integrity");
        inject_segments(
            WAN, flipped(esp(sas[i], from_far(.size = 500), .sequence = sequence), 8 * 290), 100);
        expect_nothing(ANYWHERE);
        expect_drop("ipsec_in.integrity", 1);
    }
}

CASE(transport_mode_in_several_buffers) {
    struct esp_sa back = {
        .spi = SPI_IN, .source = FAR, .destination = INSIDE, .transport = true, GCM};
    unsigned sequence = 0;

    start(with_sas(sa_json(&back, "in", ""), "{'direction': 'in', 'source': '10.9.0.0/16',"
                                             " 'action': 'protect', 'spi': 8192}"));
    for (unsigned first = 64; first < 130; first++) {
        inject_split(WAN, esp(&back, from_far(.size = 60), .sequence = ++sequence), first);
        expect(LAN, hop(from_far(.size = 60)));
    }
}

/* A header in two buffers is dropped, as `parse` drops others of that kind. */
CASE(headers_in_several_buffers) {
    const unsigned inner = IP4_PAYLOAD + 8 + 8;
    unsigned sequence = 0;

    start(tunnel(NULL, &in4, ", 'replay_window': 4096"));
    for (unsigned first = IP4_PAYLOAD; first < inner + 20; first++) {
        inject_split(WAN, esp(&in4, from_far(.size = 60), .sequence = ++sequence, .tos = ECN_CE),
                     first);
        expect_nothing(ANYWHERE);
        expect_drop(first < IP4_PAYLOAD + 8 ? "ipsec_in.unknown_spi"
                    : first < inner         ? "ipsec_in.integrity"
                                            : "ipsec_in.truncated",
                    1);
    }
    inject_split(WAN, esp(&in4, from_far(.size = 60), .sequence = ++sequence), inner + 20);
    expect(LAN, hop(from_far(.size = 60)));
}

/* --- and then --- */

/* The policy's prefixes and protocol are what a peer may send (RFC 4301 section 5.2). */
CASE(inside_the_selectors_alone) {
    start(with_sas(sa_json(&in4, "in", ""),
                   "{'direction': 'in', 'source': '10.9.0.0/16', 'destination': '192.168.1.0/24',"
                   " 'protocol': 'udp', 'action': 'protect', 'spi': 8192}"));
    comes_in(&in4, from_far(), .sequence = 1);
    is_dropped(WAN,
               esp(&in4, udp4(.source = "10.8.0.1:1", .destination = INSIDE ":2"), .sequence = 2),
               "ipsec_in.no_policy");
    is_dropped(WAN,
               esp(&in4, udp4(.source = FAR ":1", .destination = "10.3.0.10:2"), .sequence = 3),
               "ipsec_in.no_policy");
    is_dropped(WAN, esp(&in4, tcp4(.source = FAR ":1", .destination = INSIDE ":2"), .sequence = 4),
               "ipsec_in.no_policy");
    is_dropped(WAN, esp(&in4, from_far6(), .sequence = 5), "ipsec_in.no_policy");
    contains(rpc("ipsec.sa.list", "{}"), "'refused':4");
}

/* Each association has its own policies. */
CASE(by_the_wrong_association) {
    struct esp_sa other = in4;

    other.spi = SPI_IN + 1;
    start(with_sas(both(sa_json(&in4, "in", ""), sa_json(&other, "in", "")),
                   text("%s, {'direction': 'in', 'source': '10.8.0.0/16', 'action': 'protect',"
                        " 'spi': %u}",
                        policies_of(0, SPI_IN), other.spi)));
    comes_in(&in4, from_far());
    is_dropped(WAN, esp(&other, from_far()), "ipsec_in.no_policy");
    comes_in(&other, udp4(.source = "10.8.0.1:1", .destination = INSIDE ":2"), .sequence = 2);
    is_dropped(WAN,
               esp(&in4, udp4(.source = "10.8.0.1:1", .destination = INSIDE ":2"), .sequence = 2),
               "ipsec_in.no_policy");
}

/* For the router itself, and a packet of a tunnel inside the tunnel. */
CASE(for_the_router) {
    struct esp_sa nested = in4;

    start(with_sas(sa_json(&in4, "in", ""),
                   "{'direction': 'in', 'source': '0.0.0.0/0', 'destination': '0.0.0.0/0',"
                   " 'action': 'protect', 'spi': 8192},"
                   "{'direction': 'out', 'destination': '10.0.0.0/8', 'action': 'bypass'}"));
    inject(WAN, esp(&in4, icmp4_echo(.source = FAR, .destination = "192.168.1.1")));
    expect(WAN, icmp4_echo_reply(.source = "192.168.1.1", .destination = FAR));
    nested.source = FAR;
    nested.destination = INSIDE;
    inject(WAN, esp(&in4, esp(&nested, from_far()), .sequence = 2));
    expect(LAN, hop(esp(&nested, from_far())));
}

/* Out of one tunnel and into another. */
CASE(from_tunnel_to_tunnel) {
    struct esp_sa second = out4;

    second.destination = "203.0.113.20";
    start(with_sas(both(sa_json(&in4, "in", ""), sa_json(&second, "out", "")),
                   "{'direction': 'in', 'source': '10.9.0.0/16', 'action': 'protect', 'spi': 8192},"
                   "{'direction': 'out', 'destination': '10.8.0.0/16', 'action': 'protect',"
                   " 'spi': 4096}"));
    for (unsigned i = 1; i < 20; i++) {
        struct frame *inner = udp4(.source = FAR ":1", .destination = "10.8.0.1:2", .size = i);

        inject(WAN, esp(&in4, inner, .sequence = i));
        expect_esp(WAN, &second, hop(inner), .sequence = i);
    }
}

CASE(hops_inside) {
    struct frame *last = from_far(.ttl = 1);

    start(tunnel(NULL, &in4, ""));
    inject(WAN, esp(&in4, last));
    expect(WAN, icmp4_error(.source = ROUTER, .destination = FAR, .type = 11, .about = last));
    expect_drop("local.time_exceeded", 1);
    comes_in(&in4, from_far(.ttl = 2), .sequence = 2);
    comes_in(&in4, from_far6(.hop_limit = 2), .sequence = 3);
}

CASE(counters_of_associations) {
    start(tunnel(&out4, &in4, ""));
    for (unsigned i = 1; i <= 3; i++) {
        goes_out(&out4, to_far(.size = 100), .sequence = i);
        comes_in(&in4, from_far(.size = 200), .sequence = i);
    }
    contains(rpc("ipsec.sa.list", "{}"),
             "'packets':3,'bytes':384,'replayed':0,'too_old':0,'integrity_failures':0,"
             "'malformed':0,'refused':0,'sequence':3");
    contains(rpc("ipsec.sa.list", "{}"),
             "'packets':3,'bytes':684,'replayed':0,'too_old':0,'integrity_failures':0,"
             "'malformed':0,'refused':0,'sequence':3");
    contains(rpc("ipsec.sa.list", "{}"), "'idle':");
}

/* --- bursts --- */

/* Whatever stands beside it, each packet is looked at for itself. */
CASE(one_of_a_burst_is_another) {
    struct frame *good = from_far();
    struct esp_sa liar = in4, elsewhere = in4;
    struct {
        const struct frame *frame;
        const char *reason;
    } others[] = {
        {NULL, "ipsec_in.wrong_source"},
        {NULL, "ipsec_in.unknown_spi"},
        {esp(&in4, good, .sequence = 1), "ipsec_in.replayed"},
        {esp(&in4, good, .sequence = 2, .tos = 3), "ipsec_in.ecn_congestion"},
        {esp(&in4, good, .sequence = 2, .trailer = "0102040304"), "ipsec_in.bad_padding"},
        {esp(&in4, good, .sequence = 2, .trailer = "0102030904"), "ipsec_in.bad_padding"},
        {esp(&in4, good, .sequence = 2, .trailer = "01020304"), "ipsec_in.bad_length"},
        {esp(&in4, good, .sequence = 2, .next_header = 6), "ipsec_in.wrong_next_header"},
    };

    liar.source = OUTSIDE;
    others[0].frame = esp(&liar, good, .sequence = 2);
    elsewhere.spi++;
    others[1].frame = esp(&elsewhere, good, .sequence = 2);
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        apply("{}"); /* numbers begin anew */
        start(with_sas(
            text("%s, %s", sa_json(&out4, "out", ""), sa_json(&in4, "in", ", 'replay_window': 64")),
            policies_of(SPI_OUT, SPI_IN)));
        inject(WAN, esp(&in4, good, .sequence = 1));
        inject(WAN, others[i].frame);
        inject(WAN, esp(&in4, good, .sequence = 3));
        expect(LAN, hop(good));
        expect(LAN, hop(good));
        expect_nothing(ANYWHERE);
        expect_drop(others[i].reason, 1);
    }
}

/* Two associations in a burst, and a policy for the packets of both that names one of them. */
CASE(one_of_a_burst_has_no_policy) {
    struct esp_sa second = in4;

    second.spi = SPI_IN + 1;
    start(with_sas(text("%s, %s, %s", sa_json(&out4, "out", ""), sa_json(&in4, "in", ""),
                        sa_json(&second, "in", "")),
                   policies_of(SPI_OUT, SPI_IN)));
    inject(WAN, esp(&in4, from_far(), .sequence = 1));
    inject(WAN, esp(&second, from_far(), .sequence = 1));
    inject(WAN, esp(&in4, from_far(), .sequence = 2));
    expect(LAN, hop(from_far()));
    expect(LAN, hop(from_far()));
    expect_nothing(ANYWHERE);
    expect_drop("ipsec_in.no_policy", 1);
}

/* --- many associations --- */

enum { MANY = 24 };

/* Every association has a network of its own. Some are in UDP, some over IPv6, some have extended
 * numbers or another algorithm. */
static struct esp_sa one_of_many(unsigned n) {
    struct esp_sa sa = n % 8 == 5 ? in6 : in4;

    if (n % 8 == 3)
        sa = (struct esp_sa){.source = PEER, .destination = ROUTER, CBC};
    sa.spi = SPI_IN + n;
    sa.esn = n % 8 == 6;
    if (n % 8 == 1) {
        sa.source_port = 31234;
        sa.destination_port = 4500;
    }
    return sa;
}

static const char *many(void) {
    const char *sas = "", *policies = "";

    for (unsigned n = 0; n < MANY; n++) {
        struct esp_sa sa = one_of_many(n);

        sas = text("%s%s%s", sas, n ? "," : "", sa_json(&sa, "in", ", 'replay_window': 64"));
        policies = text("%s%s{'direction': 'in', 'source': '10.9.%u.0/24', 'action': 'protect',"
                        " 'spi': %u}",
                        policies, n ? "," : "", n, sa.spi);
    }
    return with_sas(sas, policies);
}

static struct frame *from_many(unsigned n, unsigned size) {
    return udp4(.source = text("10.9.%u.1:2", n), .destination = INSIDE ":1", .size = size);
}

enum kind { GOOD, CLEAR, REPLAYED, FORGED, STRANGE, LIAR, SHORT, CHAINED, KINDS };
static const char *const names[KINDS] = {
    [REPLAYED] = "ipsec_in.replayed",   [FORGED] = "ipsec_in.integrity",
    [STRANGE] = "ipsec_in.unknown_spi", [LIAR] = "ipsec_in.wrong_source",
    [SHORT] = "ipsec_in.truncated",
};

/* What is wrong with packet i of a round: in some rounds nothing. */
static enum kind kind_of(unsigned round, unsigned i) {
    static const enum kind kinds[][7] = {
        {GOOD, GOOD, GOOD, GOOD, GOOD, GOOD, GOOD},
        {GOOD, REPLAYED, GOOD, GOOD, FORGED, GOOD, GOOD},
        {GOOD, GOOD, CLEAR, GOOD, GOOD, GOOD, STRANGE},
        {LIAR, GOOD, GOOD, GOOD, CHAINED, GOOD, SHORT},
    };

    return kinds[round % 4][i % 7];
}

static void inject_of(enum kind kind, const struct esp_sa *sa, const struct frame *packet,
                      unsigned sequence) {
    struct esp_sa other = *sa;

    switch (kind) {
    case CLEAR:
        inject(WAN, packet);
        break;
    case FORGED:
        inject(WAN, flipped(esp(sa, packet, .sequence = sequence),
                            (esp_offset(sa) + 8 + 16 + 10) * 8 + 3));
        break;
    case STRANGE:
        other.spi = 0x7777;
        inject(WAN, esp(&other, packet));
        break;
    case LIAR:
        other.source = sa->source[0] == '2' && strchr(sa->source, ':') ? OUTSIDE6 : OUTSIDE;
        inject(WAN, esp(&other, packet, .sequence = sequence));
        break;
    case SHORT:
        inject(WAN, esp(sa, packet, .sequence = sequence, .encrypted = (const uint8_t *)"",
                        .encrypted_length = 0));
        break;
    case CHAINED:
        inject_segments(WAN, esp(sa, packet, .sequence = sequence), 120);
        break;
    default:
        inject(WAN, esp(sa, packet, .sequence = sequence));
        break;
    }
}

/* Whole bursts of many associations, with all kinds of others between them: each packet has the
 * fate that it would have alone, in the order in which they came. */
CASE(many_associations_in_one_burst) {
    enum { ROUNDS = 24, PACKETS = 64 };
    unsigned sequences[MANY] = {0}, packets = 0, counts[KINDS] = {0}, taken = 0, decided = 0;
    struct drops drops[KINDS];
    unsigned dropped = 0;

    start(many());
    for (unsigned round = 0; round < ROUNDS; round++) {
        const struct frame *expected[PACKETS];
        unsigned count = 0;

        for (unsigned i = 0; i < PACKETS; i++) {
            /* In some rounds runs of one association. */
            const unsigned n = (round % 3 == 0 ? i / 5 : i * 7 + round) % MANY;
            enum kind kind = kind_of(round, i);
            const struct frame *packet = from_many(n, 100 + (i + round) % 200);
            struct esp_sa sa = one_of_many(n);

            if (kind == CLEAR)
                packet = udp4(.source = OUTSIDE ":2", .destination = INSIDE ":1", .size = i);
            /* In UDP an unknown SPI is for whoever listens on that port. */
            if ((kind == REPLAYED && sequences[n] == 0) || (kind == STRANGE && sa.source_port))
                kind = GOOD;
            counts[kind]++;
            inject_of(kind, &sa, packet, kind == REPLAYED ? sequences[n] : sequences[n] + 1);
            if (kind == GOOD || kind == CHAINED || kind == CLEAR)
                expected[count++] = hop(packet);
            if (kind == GOOD || kind == CHAINED) {
                sequences[n]++;
                packets++;
            }
        }
        turn();
        for (unsigned i = 0; i < count; i++)
            expect(LAN, expected[i]);
    }
    expect_nothing(ANYWHERE);
    for (enum kind kind = GOOD; kind < KINDS; kind++) {
        if (names[kind])
            drops[dropped++] = (struct drops){names[kind], counts[kind]};
    }
    expect_drops_at(drops, dropped, __FILE__, __LINE__);
    for (const struct ipsec_sa *sa = ipsec_sa_next(NULL); sa; sa = ipsec_sa_next(sa)) {
        struct ipsec_sa_counters counters;

        ipsec_sa_counters(sa, &counters);
        taken += counters.packets;
    }
    for (const struct ipsec_policy *policy = ipsec_policy_next(NULL); policy;
         policy = ipsec_policy_next(policy)) {
        struct ipsec_policy_counters counters;

        ipsec_policy_counters(policy, &counters);
        decided += counters.packets;
    }
    require(taken == packets && decided == packets, "%u and %u of %u packets were counted", taken,
            decided, packets);
}

/* What is unusual has its turn among the usual packets of its association: late, with a small
 * window, it would be too old. */
CASE(unusual_packets_in_their_turn) {
    struct esp_sa second = in4;
    unsigned sequence = 0;

    second.spi = SPI_IN + 1;
    start(with_sas(both(sa_json(&in4, "in", ", 'replay_window': 8"),
                        sa_json(&second, "in", ", 'replay_window': 8")),
                   "{'direction': 'in', 'source': '" FAR "', 'action': 'protect', 'spi': 8192},"
                   "{'direction': 'in', 'source': '10.9.1.1', 'action': 'protect', 'spi': 8193}"));
    for (unsigned i = 0; i < 32; i++) {
        const struct frame *packet = esp(&in4, from_far(.size = 100 + i), .sequence = ++sequence);

        if (i == 1)
            inject_segments(WAN, packet, 80);
        else
            inject(WAN, packet);
        inject(WAN, esp(&second, from_many(1, 100 + i), .sequence = sequence));
    }
    for (unsigned i = 0; i < 32; i++) {
        expect(LAN, hop(from_far(.size = 100 + i)));
        expect(LAN, hop(from_many(1, 100 + i)));
    }
    expect_no_drops();
}

/* --- several paths behind the tunnel --- */

/* The NIC's hash is of the outer packet, and so the same for all. */
CASE(flows_of_one_tunnel_take_all_paths) {
    unsigned by_lan, by_dmz;

    start(text("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "}, 'wan': {" WAN_PORT
               ", " WAN_ADDRESSES "}, 'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"
               "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
               "'routes': [" DEFAULT_ROUTES
               ", {'prefix': '172.20.0.0/16', 'via': ['192.168.1.10', '10.3.0.10']}],"
               "'ipsec': {'sas': [%s], 'policies': [{'direction': 'in', 'source': '10.9.0.0/16',"
               " 'destination': '172.20.0.0/16', 'action': 'protect', 'spi': %u}]}," UNLIMITED "}",
               sa_json(&in4, "in", ""), in4.spi));
    for (unsigned i = 1; i <= 64; i++)
        inject_hashed(WAN,
                      esp(&in4, udp4(.source = FAR ":9", .destination = text("172.20.0.1:%u", i)),
                          .sequence = i),
                      0x12345678);
    turn();
    by_lan = discard(LAN);
    by_dmz = discard(DMZ);
    require(by_lan + by_dmz == 64 && by_lan > 10 && by_dmz > 10, "%u by one path, %u by the other",
            by_lan, by_dmz);
}

HARNESS_MAIN()
