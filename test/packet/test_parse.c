/*
 * The first look at a frame: every reason for which `parse` drops one, and that it drops nothing
 * else.
 */
#include "harness.h"

#define FLOW4 .source = "192.168.1.10:1000", .destination = "203.0.113.1:53"
#define FLOW6 .source = "[2001:db8:1::10]:1000", .destination = "[2001:db8:99::1]:53"

/* The frame arrives on the LAN and is dropped for this reason. */
#define dropped(f, reason)        \
    do {                          \
        inject(LAN, (f));         \
        expect_nothing(ANYWHERE); \
        expect_drop((reason), 1); \
    } while (0)

#define forwarded(f)                    \
    do {                                \
        const struct frame *sent = (f); \
                                        \
        inject(LAN, sent);              \
        expect(WAN, hop(sent));         \
        expect_no_drops();              \
    } while (0)

/* --- lengths --- */

CASE(ipv4_truncated_at_every_length) {
    struct frame *whole = ether(udp4(FLOW4, .size = 32), ROUTER_LAN, HOST_LAN);

    start(standard);
    for (unsigned length = 1; length < whole->length; length++)
        dropped(truncated(whole, length),
                length < IP4_PAYLOAD ? "parse.truncated" : "parse.ipv4_total_length");
    forwarded(udp4(FLOW4, .size = 32));
}

CASE(ipv6_truncated_at_every_length) {
    struct frame *whole = ether(udp6(FLOW6, .size = 12), ROUTER_LAN, HOST_LAN);

    start(standard);
    for (unsigned length = 1; length < whole->length; length++)
        dropped(truncated(whole, length),
                length < IP6_PAYLOAD ? "parse.truncated" : "parse.ipv6_payload_length");
    forwarded(udp6(FLOW6, .size = 12));
}

CASE(tagged_truncated_at_every_length) {
    struct frame *whole = vlan(0, ether(udp4(FLOW4, .size = 32), ROUTER_LAN, HOST_LAN));

    start(standard);
    for (unsigned length = 1; length < whole->length; length++)
        dropped(truncated(whole, length),
                length < IP4_PAYLOAD + 4 ? "parse.truncated" : "parse.ipv4_total_length");
}

/* Where the frame is shorter than 14 bytes nobody knows whose it is; behind that the interface
 * counts it. */
CASE(truncated_frames_are_counted_by_the_interface_from_the_ethernet_header_on) {
    struct frame *whole = ether(udp4(FLOW4), ROUTER_LAN, HOST_LAN);

    start(standard);
    inject(LAN, truncated(whole, 13));
    inject(LAN, truncated(whole, 14));
    expect_drop("parse.truncated", 2);
    expect_counts("lan", .rx_packets = 1, .rx_bytes = 14);
}

CASE(a_total_length_that_lies) {
    struct frame *frame = udp4(FLOW4, .size = 32); /* 60 bytes of IP */

    start(standard);
    dropped(patch(frame, IP + 2, "003d"), "parse.ipv4_total_length");
    dropped(patch(frame, IP + 2, "ffff"), "parse.ipv4_total_length");
    dropped(patch(frame, IP + 2, "0013"), "parse.ipv4_total_length");
    dropped(patch(frame, IP + 2, "0000"), "parse.ipv4_total_length");
    /* Less than there is: padding. */
    inject(LAN, patch(frame, IP + 2, "0014"));
    expect(WAN, hop(truncated(patch(frame, IP + 2, "0014"), IP4_PAYLOAD)));
}

CASE(a_payload_length_that_lies) {
    struct frame *frame = udp6(FLOW6, .size = 32); /* payload 40 = 0x28 */

    start(standard);
    dropped(poke(frame, IP + 4, "0029"), "parse.ipv6_payload_length");
    dropped(poke(frame, IP + 4, "ffff"), "parse.ipv6_payload_length");
    inject(LAN, poke(frame, IP + 4, "0000"));
    expect(WAN, hop(truncated(poke(frame, IP + 4, "0000"), IP6_PAYLOAD)));
}

CASE(every_header_length) {
    struct frame *frame = udp4(FLOW4, .size = 100);

    start(standard);
    for (unsigned words = 0; words < 5; words++)
        dropped(poke(frame, IP, text("4%x", words)), "parse.ipv4_header_length");
    for (unsigned words = 6; words < 16; words++) /* the checksum covers other bytes now */
        dropped(poke(frame, IP, text("4%x", words)), "parse.ipv4_checksum");
}

CASE(an_option_header_longer_than_the_packet) {
    struct frame *frame = udp4(FLOW4, .payload = "12345678"); /* 36 bytes of IP */

    start(standard);
    dropped(poke(frame, IP, "4a"), "parse.ipv4_total_length");
}

/* --- versions, checksum --- */

CASE(every_version) {
    start(standard);
    for (unsigned version = 0; version < 16; version++) {
        if (version != 4)
            dropped(poke(udp4(FLOW4), IP, text("%x5", version)), "parse.ipv4_version");
        if (version != 6)
            dropped(poke(udp6(FLOW6), IP, text("%x0", version)), "parse.ipv6_version");
    }
}

CASE(every_bit_of_the_header_is_under_the_checksum) {
    struct frame *frame = udp4(FLOW4, .size = 60);

    start(standard);
    for (unsigned bit = 0; bit < 160; bit++) {
        struct frame *changed = copy(frame);
        const char *reason = "parse.ipv4_checksum";

        changed->bytes[IP + bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
        if (bit < 4)
            reason = "parse.ipv4_version";
        else if (bit < 8 && (changed->bytes[IP] & 15) < 5)
            reason = "parse.ipv4_header_length";
        else if (bit >= 16 && bit < 32 &&
                 (changed->bytes[IP + 2] << 8 | changed->bytes[IP + 3]) > 88)
            reason = "parse.ipv4_total_length";
        else if (bit >= 16 && bit < 32 &&
                 (changed->bytes[IP + 2] << 8 | changed->bytes[IP + 3]) < 20)
            reason = "parse.ipv4_total_length";
        dropped(changed, reason);
    }
    for (unsigned bit = 0; bit < 80; bit++) { /* and nothing behind it is */
        struct frame *changed = copy(frame);

        changed->bytes[IP4_PAYLOAD + bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
        forwarded(changed);
    }
}

CASE(every_wrong_checksum) {
    struct frame *frame = udp4(FLOW4, .size = 1), *changed = copy(frame);
    unsigned right = (unsigned)frame->bytes[IP + 10] << 8 | frame->bytes[IP + 11], wrong = 0;

    start(standard);
    for (unsigned sum = 0; sum < 0x10000; sum++) {
        if (sum == right)
            continue;
        changed->bytes[IP + 10] = (uint8_t)(sum >> 8);
        changed->bytes[IP + 11] = (uint8_t)sum;
        inject(LAN, changed);
        if (++wrong % 64 == 0)
            turn();
    }
    expect_nothing(ANYWHERE);
    expect_drop("parse.ipv4_checksum", wrong);
}

/* --- link layer --- */

CASE(for_another_mac_address) {
    start(standard);
    dropped(ether(udp4(FLOW4), "02:00:00:00:01:02", HOST_LAN), "parse.not_for_us");
    dropped(ether(udp6(FLOW6), ROUTER_WAN, HOST_LAN), "parse.not_for_us");
    dropped(ether(udp4(FLOW4), "00:00:00:00:00:00", HOST_LAN), "parse.not_for_us");
    for (unsigned bit = 1; bit < 48; bit++) {
        struct frame *frame = ether(udp4(FLOW4), ROUTER_LAN, HOST_LAN);

        if (bit == 40 || bit / 8 * 8 + 7 - bit % 8 == 0)
            continue;
        frame->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        dropped(frame, "parse.not_for_us");
    }
    expect_counts("wan", .tx_packets = 0);
}

CASE(broadcast_and_multicast_frames_are_not_forwarded) {
    start(standard);
    dropped(ether(udp4(FLOW4), BROADCAST, HOST_LAN), "route.link_broadcast_unicast");
    dropped(ether(udp4(FLOW4), "01:00:5e:00:00:05", HOST_LAN), "route.link_broadcast_unicast");
    dropped(ether(udp6(FLOW6), "33:33:00:00:00:01", HOST_LAN), "route.link_broadcast_unicast");
    dropped(ether(udp6(FLOW6), BROADCAST, HOST_LAN), "route.link_broadcast_unicast");
}

CASE(every_ethertype) {
    struct frame *frame = ether(udp4(FLOW4, .size = 40), ROUTER_LAN, HOST_LAN);
    unsigned unknown = 0;

    start(standard);
    for (unsigned type = 0; type < 0x10000; type++) {
        if (type == 0x0800 || type == 0x86dd || type == 0x0806 || type == 0x8100 || type == 0x88a8)
            continue;
        frame->bytes[12] = (uint8_t)(type >> 8);
        frame->bytes[13] = (uint8_t)type;
        inject(LAN, frame);
        if (++unknown % 64 == 0)
            turn();
    }
    expect_nothing(ANYWHERE);
    expect_drop("parse.unknown_ethertype", unknown);
}

CASE(priority_tags_are_like_no_tag) {
    start(standard);
    inject(LAN, vlan(0, udp4(FLOW4)));
    expect(WAN, hop(udp4(FLOW4)));
    inject(LAN, vlan(0xe000, udp6(FLOW6)));
    expect(WAN, hop(udp6(FLOW6)));
    inject(LAN, vlan(0, padded(udp4(FLOW4), 60)));
    expect(WAN, hop(udp4(FLOW4)));
}

CASE(unknown_vlans) {
    unsigned count = 0;

    start(standard);
    for (unsigned id = 1; id < 4096; id++) {
        inject(LAN, vlan(id, udp4(FLOW4)));
        if (++count % 64 == 0)
            turn();
    }
    expect_nothing(ANYWHERE);
    expect_drop("parse.unknown_vlan", count);
    expect_counts("lan", .rx_packets = 0);
}

CASE(stacked_tags) {
    start(standard);
    dropped(vlan(0, vlan(0, udp4(FLOW4))), "parse.stacked_vlan");
    dropped(vlan(0, vlan(5, udp4(FLOW4))), "parse.stacked_vlan");
    dropped(vlan(7, vlan(5, udp4(FLOW4))), "parse.unknown_vlan");
    dropped(tagged(0x88a8, 1, udp4(FLOW4)), "parse.stacked_vlan");
    dropped(tagged(0x88a8, 1, vlan(5, udp4(FLOW4))), "parse.stacked_vlan");
    dropped(vlan(0, tagged(0x88a8, 1, udp4(FLOW4))), "parse.stacked_vlan");
}

CASE(untagged_frames_are_refused_where_only_vlans_are_used) {
    start("{'interfaces': {'lan': {" LAN_PORT ", 'enabled': false},"
          "'office': {'parent': 'lan', 'vlan': 7, 'addresses': ['192.168.7.1/24']}}," UNLIMITED
          "}");
    dropped(udp4(FLOW4), "parse.interface_down");
    dropped(vlan(7, udp4(FLOW4)), "parse.interface_down");
}

/* --- addresses that must not be on a link --- */

CASE(ipv4_sources_that_no_host_has) {
    static const char *const sources[] = {"0.0.0.0",   "0.0.0.1",         "0.255.255.255",
                                          "127.0.0.1", "127.255.255.255", "224.0.0.1",
                                          "239.1.2.3", "240.0.0.1",       "255.255.255.255"};
    static const char *const fine[] = {"1.0.0.1", "126.255.255.255", "128.0.0.1",
                                       "223.255.255.254"};

    start(standard);
    for (unsigned i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
        dropped(udp4(.source = sources[i], .destination = "203.0.113.1:53"),
                "parse.ipv4_martian_source");
    for (unsigned i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
        forwarded(udp4(.source = fine[i], .destination = "203.0.113.1:53"));
}

CASE(ipv4_destinations_that_are_never_forwarded) {
    static const char *const martian[] = {"0.0.0.0",   "0.1.2.3",        "127.0.0.1",
                                          "127.1.2.3", "240.0.0.1",      "247.255.255.255",
                                          "254.1.2.3", "255.255.255.254"};

    start(standard);
    for (unsigned i = 0; i < sizeof(martian) / sizeof(martian[0]); i++)
        dropped(udp4(.source = "192.168.1.10:1", .destination = martian[i]),
                "route.martian_destination");
    dropped(udp4(.source = "192.168.1.10:1", .destination = "255.255.255.255:2"),
            "route.directed_broadcast");
    dropped(udp4(.source = "192.168.1.10:1", .destination = "224.0.0.5:2"),
            "local.group_not_wanted");
    dropped(udp4(.source = "192.168.1.10:1", .destination = "239.255.255.255:2"),
            "local.group_not_wanted");
}

CASE(ipv4_broadcasts_for_everybody_end_here) {
    start(standard);
    dropped(ether(udp4(.source = "192.168.1.10:68", .destination = "255.255.255.255:67"), BROADCAST,
                  HOST_LAN),
            "local.group_not_wanted");
    /* A host without an address yet asks for one. */
    dropped(ether(udp4(.source = "0.0.0.0:68", .destination = "255.255.255.255:67"), BROADCAST,
                  HOST_LAN),
            "local.group_not_wanted");
    dropped(ether(udp4(.source = "192.168.1.10:137", .destination = "192.168.1.255:137"), BROADCAST,
                  HOST_LAN),
            "local.group_not_wanted");
}

CASE(ipv6_sources_that_no_host_has) {
    static const char *const sources[] = {"::1", "::", "ff02::1", "ff0e::1:2"};

    start(standard);
    for (unsigned i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
        dropped(udp6(.source = sources[i], .destination = "2001:db8:99::1"),
                "parse.ipv6_martian_source");
    forwarded(udp6(.source = "fd00::1", .destination = "2001:db8:99::1"));
    forwarded(udp6(.source = "::2", .destination = "2001:db8:99::1"));
    forwarded(udp6(.source = "4000::1", .destination = "2001:db8:99::1"));
}

CASE(ipv6_link_local_addresses_stay_on_their_link) {
    start(standard);
    dropped(udp6(.source = "fe80::1", .destination = "2001:db8:99::1"), "route.link_local_source");
    dropped(udp6(.source = "febf::1", .destination = "2001:db8:99::1"), "route.link_local_source");
    forwarded(udp6(.source = "fec0::1", .destination = "2001:db8:99::1"));
    dropped(udp6(.source = "2001:db8:1::10", .destination = "fe80::1"),
            "parse.ipv6_martian_destination");
    /* The router's own link-local address of another link. */
    dropped(udp6(.source = "fe80::1", .destination = link_local_of(ROUTER_WAN)),
            "parse.ipv6_martian_destination");
}

CASE(ipv6_destinations_that_are_never_forwarded) {
    static const char *const martian[] = {"::1", "::", "::ffff:192.0.2.1"};

    start(standard);
    for (unsigned i = 0; i < sizeof(martian) / sizeof(martian[0]); i++)
        dropped(udp6(.source = "2001:db8:1::10", .destination = martian[i]),
                "route.martian_destination");
    dropped(udp6(.source = "2001:db8:1::10", .destination = "ff00::1"),
            "parse.ipv6_martian_destination");
    dropped(udp6(.source = "2001:db8:1::10", .destination = "ff01::1"),
            "parse.ipv6_martian_destination");
    dropped(udp6(.source = "2001:db8:1::10", .destination = "ff11::1"),
            "parse.ipv6_martian_destination");
    dropped(udp6(.source = "2001:db8:1::10", .destination = "ff02::5"), "local.group_not_wanted");
    dropped(udp6(.source = "2001:db8:1::10", .destination = "ff0e::101"), "local.group_not_wanted");
}

/* --- IPv4 options --- */

CASE(ipv4_options_pass) {
    start(standard);
    forwarded(udp4(FLOW4, .options = "94040000"));            /* router alert */
    forwarded(udp4(FLOW4, .options = "01010101"));            /* no operation */
    forwarded(udp4(FLOW4, .options = "00ffffff"));            /* end: what follows is padding */
    forwarded(udp4(FLOW4, .options = "0728080102030405060708" /* record route, 40 bytes */
                                     "0102030405060708010203040506070801020304"
                                     "050607080102030405"));
    forwarded(udp4(FLOW4, .options = "440c0500 00000000 00000000")); /* timestamp */
    forwarded(udp4(FLOW4, .options = "1e020101"));                   /* unknown ones are skipped */
    inject(LAN, padded(udp4(FLOW4, .options = "94040000", .payload = "x"), 60));
    expect(WAN, hop(udp4(FLOW4, .options = "94040000", .payload = "x")));
}

CASE(ipv4_source_routes_do_not) {
    start(standard);
    dropped(udp4(FLOW4, .options = "830704 0a030001"), "parse.ipv4_source_route");
    dropped(udp4(FLOW4, .options = "890704 0a030001"), "parse.ipv4_source_route");
    dropped(udp4(FLOW4, .options = "0101 830704 0a030001"), "parse.ipv4_source_route");
    dropped(udp4(FLOW4, .options = "94040000 890704 0a030001"), "parse.ipv4_source_route");
    forwarded(udp4(FLOW4, .options = "00 830704 0a0300")); /* behind the end */
}

CASE(ipv4_options_that_are_no_options) {
    start(standard);
    dropped(udp4(FLOW4, .options = "94000000"), "parse.ipv4_bad_options");
    dropped(udp4(FLOW4, .options = "94010000"), "parse.ipv4_bad_options");
    dropped(udp4(FLOW4, .options = "94050000"), "parse.ipv4_bad_options");
    dropped(udp4(FLOW4, .options = "01010194"), "parse.ipv4_bad_options");
    dropped(udp4(FLOW4, .options = "010194ff"), "parse.ipv4_bad_options");
    dropped(udp4(FLOW4, .options = "0101 8307"), "parse.ipv4_bad_options");
}

CASE(every_option_type_and_length) {
    start(standard);
    for (unsigned type = 2; type < 256; type++) {
        for (unsigned length = 0; length < 12; length++) {
            struct frame *frame =
                udp4(FLOW4, .options = text("%02x%02x0000 00000000", type, length));

            if (length < 2 || length > 8)
                dropped(frame, "parse.ipv4_bad_options");
            else if (type == 131 || type == 137)
                dropped(frame, "parse.ipv4_source_route");
            else
                forwarded(frame);
        }
        if (type % 16 == 0)
            frames_free();
    }
}

CASE(options_have_to_be_in_the_first_buffer) {
    struct frame *frame = udp4(FLOW4, .options = "94040000 01010101", .size = 20);

    start(standard);
    for (unsigned first = IP4_PAYLOAD; first < frame->length; first++) {
        inject_split(LAN, frame, first);
        if (first < IP4_PAYLOAD + 8) {
            expect_nothing(ANYWHERE);
            expect_drop("parse.truncated", 1);
        } else {
            expect(WAN, hop(frame));
        }
    }
}

/* --- IPv6 extension headers --- */

CASE(ipv6_extension_headers_pass) {
    start(standard);
    forwarded(udp6(FLOW6, .first = 0, .extensions = "0000 0104 00000000")); /* PadN */
    forwarded(udp6(FLOW6, .first = 0, .extensions = "0000 000000000000"));  /* Pad1 */
    forwarded(udp6(FLOW6, .first = 0, .extensions = "0000 05020000 0100")); /* router alert */
    forwarded(
        udp6(FLOW6, .first = 60, .extensions = "0000 0104 00000000")); /* for the destination */
    forwarded(udp6(FLOW6, .first = 43, .extensions = "0000 0400 00000000")); /* routing */
    forwarded(
        udp6(FLOW6, .first = 43, .extensions = "0000 00ff 00000000")); /* type 0: for its node */
    forwarded(udp6(FLOW6, .first = 51,
                   .extensions = "0004 0000 00000001 00000001"
                                 "0102030405060708090a0b0c"));               /* AH */
    forwarded(udp6(FLOW6, .first = 44, .extensions = "0000 0001 12345678")); /* first fragment */
    forwarded(udp6(FLOW6, .first = 44, .extensions = "0000 0008 12345678")); /* last */
    forwarded(udp6(FLOW6, .first = 0,
                   .extensions = "2c00 0104 00000000 3c00 0001 12345678"
                                 "0000 0104 00000000"));
    forwarded(ip6(.source = "2001:db8:1::10", .destination = "2001:db8:99::1", .protocol = 59,
                  .first = 0, .extensions = "0000 0104 00000000"));
    forwarded(ip6(.source = "2001:db8:1::10", .destination = "2001:db8:99::1", .protocol = 253));
}

CASE(eight_extension_headers_are_enough) {
    const char *one = "3c00 0104 00000000";
    char chain[1000] = "";

    start(standard);
    for (unsigned count = 1; count <= 12; count++) {
        strcat(chain, one);

        struct frame *frame = udp6(FLOW6, .first = 60, .extensions = chain, .size = 20);

        if (count <= 8)
            forwarded(frame);
        else
            dropped(frame, "parse.ipv6_extension_header");
    }
}

CASE(ipv6_extension_headers_out_of_bounds) {
    struct frame *frame;

    start(standard);
    /* Longer than the packet. */
    dropped(poke(udp6(FLOW6, .first = 60, .extensions = "0000 0104 00000000", .size = 4),
                 IP6_PAYLOAD + 1, "03"),
            "parse.ipv6_extension_header");
    dropped(
        poke(udp6(FLOW6, .first = 60, .extensions = "0000 0104 00000000"), IP6_PAYLOAD + 1, "ff"),
        "parse.ipv6_extension_header");
    /* No room for even the smallest. */
    for (unsigned size = 1; size < 8; size++)
        dropped(ip6(.source = "2001:db8:1::10", .destination = "2001:db8:99::1", .protocol = 60,
                    .size = size),
                "parse.ipv6_extension_header");
    /* Hop-by-hop options anywhere but in front. */
    dropped(udp6(FLOW6, .first = 60, .extensions = "0000 0104 00000000 1100 0104 00000000"),
            "parse.ipv6_extension_header");
    dropped(udp6(FLOW6, .first = 0, .extensions = "0000 0104 00000000 1100 0104 00000000"),
            "parse.ipv6_extension_header");
    /* Padding behind the packet is no part of it. */
    frame = ip6(.source = "2001:db8:1::10", .destination = "2001:db8:99::1", .protocol = 60,
                .payload = "");
    dropped(padded(frame, 100), "parse.ipv6_extension_header");
}

CASE(ipv6_extension_headers_have_to_be_in_the_first_buffer) {
    struct frame *frame = udp6(FLOW6, .first = 0,
                               .extensions = "3c00 0104 00000000"
                                             "0001 010c 000000000000000000000000",
                               .size = 20);

    start(standard);
    for (unsigned first = IP6_PAYLOAD; first < frame->length; first++) {
        inject_split(LAN, frame, first);
        if (first < IP6_PAYLOAD + 24) {
            expect_nothing(ANYWHERE);
            expect_drop("parse.ipv6_extension_header", 1);
        } else {
            expect(WAN, hop(frame));
        }
    }
}

/* RFC 8200 section 4.2: the two high bits of an unknown option's type say what to do. */
CASE(unknown_hop_by_hop_options) {
    start(standard);
    for (unsigned type = 2; type < 256; type++) {
        struct frame *frame = udp6(
            FLOW6, .first = 0, .extensions = text("0000 0100 %02x02 0000", type), .hop_limit = 9);
        struct frame *to_group =
            udp6(.source = "[2001:db8:1::10]:1", .destination = "[ff0e::99]:2", .first = 0,
                 .extensions = text("0000 0100 %02x02 0000", type));
        unsigned action = type == 5 ? 0 : type >> 6;

        switch (action) {
        case 0: /* skip */
            forwarded(frame);
            dropped(to_group, "local.group_not_wanted");
            break;
        case 1: /* drop */
            dropped(frame, "parse.ipv6_hop_by_hop_option");
            dropped(to_group, "parse.ipv6_hop_by_hop_option");
            break;
        default: /* drop and tell; 3: not when it was for a group */
            inject(LAN, frame);
            expect(LAN, icmp6_error(.source = "2001:db8:1::1", .destination = "2001:db8:1::10",
                                    .type = 4, .code = 2, .rest = 44, .about = frame));
            expect_drop("local.parameter_problem", 1);
            if (action == 3) {
                dropped(to_group, "parse.ipv6_hop_by_hop_option");
                break;
            }
            inject(LAN, to_group);
            expect(LAN, icmp6_error(.source = "2001:db8:1::1", .destination = "2001:db8:1::10",
                                    .type = 4, .code = 2, .rest = 44, .about = to_group));
            expect_drop("local.parameter_problem", 1);
            break;
        }
        if (type % 16 == 0)
            frames_free();
    }
}

CASE(hop_by_hop_options_out_of_bounds) {
    start(standard);
    dropped(udp6(FLOW6, .first = 0, .extensions = "0000 0105 00000000"),
            "parse.ipv6_hop_by_hop_option");
    dropped(udp6(FLOW6, .first = 0, .extensions = "0000 0102 0000 0006"),
            "parse.ipv6_hop_by_hop_option");
    dropped(udp6(FLOW6, .first = 0, .extensions = "0000 0000 0000 0001"),
            "parse.ipv6_hop_by_hop_option");
    dropped(udp6(FLOW6, .first = 0, .extensions = "0000 01ff 00000000"),
            "parse.ipv6_hop_by_hop_option");
}

CASE(every_byte_of_an_extension_header_has_some_end) {
    struct frame *frame = udp6(FLOW6, .first = 0,
                               .extensions = "2c00 0104 00000000"
                                             "0000 0001 12345678");

    start(standard);
    for (unsigned offset = IP + 4; offset < IP6_PAYLOAD + 16; offset++) {
        for (unsigned value = 0; value < 256; value++) {
            inject(LAN, poke(frame, offset, text("%02x", value)));
            turn();
        }
        discard(ANYWHERE);
        frames_free();
        frame = udp6(FLOW6, .first = 0, .extensions = "2c00 0104 00000000 0000 0001 12345678");
    }
    advance(5000); /* neighbours that were made up have failed */
    discard(ANYWHERE);
    forget_drops();
}

/* --- interfaces --- */

CASE(nothing_is_received_by_an_interface_that_is_down) {
    start(standard);
    rpc("interface.set", "{'name': 'lan', 'admin': 'down'}");
    dropped(udp4(FLOW4), "parse.interface_down");
    dropped(udp6(FLOW6), "parse.interface_down");
    dropped(arp_request(.sender = "192.168.1.10", .sender_mac = HOST_LAN, .target = "192.168.1.1"),
            "parse.interface_down");
    rpc("interface.set", "{'name': 'lan', 'admin': 'up'}");
    turn();
    discard(LAN);
    forwarded(udp4(FLOW4));
}

HARNESS_MAIN()
