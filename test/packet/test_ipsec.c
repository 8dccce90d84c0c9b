/* IPsec, both directions of a tunnel and what leaves by it. What leaves is compared to the byte
 * with what the other end (esp_frame.h) would have made of it. */
#include "ipsec_network.h"

enum { UNREACHABLE = 3, FRAGMENTATION_NEEDED = 4, TIME_EXCEEDED = 11 };
enum { TOO_BIG6 = 2, TIME_EXCEEDED6 = 3 };

#define ROUTER_LAN4 "192.168.1.1"
#define ROUTER_LAN6 "2001:db8:1::1"

/* --- algorithms --- */

#define AUTH_SHA1 .authentication = "hmac-sha1-96", .authentication_key = KEY_128 "01234567"
#define AUTH_SHA256 .authentication = "hmac-sha256-128", .authentication_key = KEY_256
#define AUTH_SHA384 .authentication = "hmac-sha384-192", .authentication_key = KEY_256 KEY_128
#define AUTH_SHA512 .authentication = "hmac-sha512-256", .authentication_key = KEY_256 KEY_256

static const struct esp_sa algorithms[] = {
    {.algorithm = "aes-gcm-128", .key = KEY_128 SALT, .icv_length = 8},
    {.algorithm = "aes-gcm-128", .key = KEY_128 SALT, .icv_length = 12},
    {.algorithm = "aes-gcm-128", .key = KEY_128 SALT, .icv_length = 16},
    {.algorithm = "aes-gcm-192", .key = KEY_192 SALT, .icv_length = 8},
    {.algorithm = "aes-gcm-192", .key = KEY_192 SALT, .icv_length = 12},
    {.algorithm = "aes-gcm-192", .key = KEY_192 SALT},
    {.algorithm = "aes-gcm-256", .key = KEY_256 SALT, .icv_length = 8},
    {.algorithm = "aes-gcm-256", .key = KEY_256 SALT, .icv_length = 12},
    {.algorithm = "aes-gcm-256", .key = KEY_256 SALT},
    {.algorithm = "aes-gmac-128", .key = KEY_128 SALT},
    {.algorithm = "aes-gmac-192", .key = KEY_192 SALT},
    {.algorithm = "aes-gmac-256", .key = KEY_256 SALT},
    {.algorithm = "chacha20-poly1305", .key = KEY_256 SALT},
    {.algorithm = "aes-cbc-128", .key = KEY_128, AUTH_SHA1},
    {.algorithm = "aes-cbc-128", .key = KEY_128, AUTH_SHA256},
    {.algorithm = "aes-cbc-128", .key = KEY_128, AUTH_SHA384},
    {.algorithm = "aes-cbc-128", .key = KEY_128, AUTH_SHA512},
    {.algorithm = "aes-cbc-192", .key = KEY_192, AUTH_SHA256},
    {.algorithm = "aes-cbc-256", .key = KEY_256, AUTH_SHA1},
    {.algorithm = "aes-cbc-256", .key = KEY_256, AUTH_SHA256},
    {.algorithm = "aes-cbc-256", .key = KEY_256, AUTH_SHA384},
    {.algorithm = "aes-cbc-256", .key = KEY_256, AUTH_SHA512},
    {.algorithm = "aes-ctr-128", .key = KEY_128 SALT, AUTH_SHA1},
    {.algorithm = "aes-ctr-128", .key = KEY_128 SALT, AUTH_SHA256},
    {.algorithm = "aes-ctr-192", .key = KEY_192 SALT, AUTH_SHA256},
    {.algorithm = "aes-ctr-256", .key = KEY_256 SALT, AUTH_SHA512},
    {.algorithm = "null", AUTH_SHA1},
    {.algorithm = "null", AUTH_SHA256},
    {.algorithm = "null", AUTH_SHA384},
    {.algorithm = "null", AUTH_SHA512},
};
enum { ALGORITHMS = sizeof(algorithms) / sizeof(algorithms[0]) };

static struct esp_sa algorithm(unsigned n, const struct esp_sa *ends, bool esn) {
    struct esp_sa sa = algorithms[n];

    sa.spi = ends->spi + n;
    sa.source = ends->source;
    sa.destination = ends->destination;
    sa.esn = esn;
    return sa;
}

/* Each algorithm has a network of its own behind the peer: 10.9.N.0/24. */
static const char *all_algorithms(const struct esp_sa *out, const struct esp_sa *in, bool esn) {
    const char *sas = "", *policies = "";

    for (unsigned n = 0; n < ALGORITHMS; n++) {
        struct esp_sa there = algorithm(n, out, esn), back = algorithm(n, in, esn);

        sas = text("%s%s%s, %s", sas, n ? "," : "", sa_json(&there, "out", ""),
                   sa_json(&back, "in", ", 'replay_window': 64"));
        policies = text("%s%s{'direction': 'out', 'destination': '10.9.%u.0/24', 'action':"
                        " 'protect', 'spi': %u}, {'direction': 'in', 'source': '10.9.%u.0/24',"
                        " 'action': 'protect', 'spi': %u}",
                        policies, n ? "," : "", n, there.spi, n, back.spi);
    }
    return with_sas(sas, policies);
}

static void every_algorithm(const struct esp_sa *out, const struct esp_sa *in, bool esn) {
    start(all_algorithms(out, in, esn));
    for (unsigned n = 0; n < ALGORITHMS; n++) {
        struct esp_sa there = algorithm(n, out, esn), back = algorithm(n, in, esn);
        const char *far = text("10.9.%u.1:2000", n);
        unsigned sequence = 0;

        /* Each length of a last block, and a packet that fills the MTU. */
        for (unsigned size = 1; size <= 67; size++) {
            unsigned length = size == 67 ? esp_room(&there, 1500) - 28 : size;

            sequence++;
            goes_out(&there, udp4(.source = INSIDE ":1000", .destination = far, .size = length),
                     .sequence = sequence);
            comes_in(&back, udp4(.source = far, .destination = INSIDE ":1000", .size = length),
                     .sequence = sequence);
        }
    }
}

CASE(every_algorithm_over_ipv4) {
    every_algorithm(&out4, &in4, false);
}

CASE(every_algorithm_over_ipv6_with_extended_numbers) {
    every_algorithm(&out6, &in6, true);
}

/* Bursts of all algorithms mixed, so that the library has jobs of several kinds under way. */
CASE(algorithms_in_one_burst) {
    start(all_algorithms(&out4, &in4, false));
    for (unsigned round = 1; round <= 4; round++) {
        for (unsigned n = 0; n < ALGORITHMS; n++)
            inject(LAN, udp4(.source = INSIDE ":1", .destination = text("10.9.%u.1:2", n),
                             .size = 100 * n + round));
        turn();
        for (unsigned n = 0; n < ALGORITHMS; n++) {
            struct esp_sa there = algorithm(n, &out4, false);

            /* Short of the MTU by whatever the algorithm adds. */
            if (100 * n + round + 28 > esp_room(&there, 1500))
                break;
            expect_esp(WAN, &there,
                       hop(udp4(.source = INSIDE ":1", .destination = text("10.9.%u.1:2", n),
                                .size = 100 * n + round)),
                       .sequence = round);
        }
        discard(WAN);
        for (unsigned n = 0; n < ALGORITHMS; n++) {
            struct esp_sa back = algorithm(n, &in4, false);

            inject(WAN, esp(&back,
                            udp4(.source = text("10.9.%u.1:2", n), .destination = INSIDE ":1",
                                 .size = 40 * n + round),
                            .sequence = round));
        }
        turn();
        for (unsigned n = 0; n < ALGORITHMS; n++)
            expect(LAN, hop(udp4(.source = text("10.9.%u.1:2", n), .destination = INSIDE ":1",
                                 .size = 40 * n + round)));
    }
}

/* RFC 4106 section 3.1: never twice with one key. RFC 3602 section 3: not to be foreseen. */
CASE(initialization_vectors) {
    struct esp_sa cbc = {.spi = SPI_OUT,
                         .source = ROUTER,
                         .destination = PEER,
                         .algorithm = "aes-cbc-128",
                         .key = KEY_128,
                         AUTH_SHA256};
    const struct esp_sa *sas[] = {&out4, &cbc};
    enum { PACKETS = 200 };
    uint8_t seen[PACKETS][16];

    for (unsigned n = 0; n < 2; n++) {
        unsigned length = n == 0 ? 8 : 16, differences = 0;

        start(tunnel(sas[n], NULL, ""));
        for (unsigned i = 0; i < PACKETS; i++) {
            struct esp_found found;

            inject(LAN, to_far());
            require(!esp_unwrap(sas[n], take_one(WAN), 0, &found), "packet %u is wrong", i);
            memcpy(seen[i], found.iv, length);
            for (unsigned k = 0; k < i; k++)
                require(memcmp(seen[i], seen[k], length) != 0, "packets %u and %u are alike", k, i);
            for (unsigned k = 0; i > 0 && k < length; k++)
                differences += seen[i][k] != seen[i - 1][k];
        }
        if (n == 1)
            require(differences > 15 * (PACKETS - 1), "the vectors follow one another");
    }
}

/* --- modes and families --- */

CASE(families_in_tunnels) {
    start(tunnel(&out4, &in4, ""));
    goes_out(&out4, to_far(), .sequence = 1);
    goes_out(&out4, to_far6(), .sequence = 2, .df = true);
    comes_in(&in4, from_far(), .sequence = 1);
    comes_in(&in4, from_far6(), .sequence = 2);
    start(tunnel(&out6, &in6, ""));
    goes_out(&out6, to_far(), .sequence = 1);
    goes_out(&out6, to_far6(), .sequence = 2);
    comes_in(&in6, from_far(), .sequence = 1);
    comes_in(&in6, from_far6(), .sequence = 2);
}

/* Both families, and clear packets, in one burst each way. */
CASE(families_in_one_burst) {
    start(tunnel(&out4, &in4, ""));
    for (unsigned round = 0; round < 3; round++) {
        inject(LAN, to_far());
        inject(LAN, to_far6());
        inject(LAN, udp4(.source = INSIDE ":1", .destination = OUTSIDE ":2"));
        inject(LAN, udp6(.source = "[" INSIDE6 "]:1", .destination = "[" OUTSIDE6 "]:2"));
        turn();
        expect_esp(WAN, &out4, hop(to_far()), .sequence = 2 * round + 1);
        expect_esp(WAN, &out4, hop(to_far6()), .sequence = 2 * round + 2, .df = true);
        expect(WAN, hop(udp4(.source = INSIDE ":1", .destination = OUTSIDE ":2")));
        expect(WAN, hop(udp6(.source = "[" INSIDE6 "]:1", .destination = "[" OUTSIDE6 "]:2")));
        inject(WAN, esp(&in4, from_far6(), .sequence = 2 * round + 1));
        inject(WAN, udp4(.source = OUTSIDE ":2", .destination = INSIDE ":1"));
        inject(WAN, esp(&in4, from_far(), .sequence = 2 * round + 2));
        inject(WAN, udp6(.source = "[" OUTSIDE6 "]:2", .destination = "[" INSIDE6 "]:1"));
        turn();
        expect(LAN, hop(from_far6()));
        expect(LAN, hop(udp4(.source = OUTSIDE ":2", .destination = INSIDE ":1")));
        expect(LAN, hop(from_far()));
        expect(LAN, hop(udp6(.source = "[" OUTSIDE6 "]:2", .destination = "[" INSIDE6 "]:1")));
    }
}

/* All packets of a burst change their family, which later stages must not take for granted. */
CASE(bursts_of_the_other_family) {
    start(tunnel(&out4, &in4, ""));
    for (unsigned i = 1; i <= 10; i++) {
        inject(LAN, to_far6(.size = i));
        inject(WAN, esp(&in4, from_far6(.size = i), .sequence = i));
    }
    turn();
    for (unsigned i = 1; i <= 10; i++) {
        expect_esp(WAN, &out4, hop(to_far6(.size = i)), .sequence = i, .df = true);
        expect(LAN, hop(from_far6(.size = i)));
    }
    start(tunnel(&out6, &in6, ""));
    for (unsigned i = 1; i <= 10; i++) {
        inject(LAN, to_far(.size = i));
        inject(WAN, esp(&in6, from_far(.size = i), .sequence = i));
    }
    turn();
    for (unsigned i = 1; i <= 10; i++) {
        expect_esp(WAN, &out6, hop(to_far(.size = i)), .sequence = i);
        expect(LAN, hop(from_far(.size = i)));
    }
}

/* Between two hosts, the router as their gateway to each other's protection. */
static const char *transport4(const struct esp_sa *out, const struct esp_sa *in) {
    return with_sas(both(sa_json(out, "out", ""), sa_json(in, "in", "")),
                    text("{'direction': 'out', 'source': '" INSIDE "', 'destination': '" FAR
                         "', 'action': 'protect', 'spi': %u},"
                         "{'direction': 'in', 'source': '" FAR "', 'destination': '" INSIDE
                         "', 'action': 'protect', 'spi': %u}",
                         out->spi, in->spi));
}

static const char *transport6(const struct esp_sa *out, const struct esp_sa *in) {
    return with_sas(both(sa_json(out, "out", ""), sa_json(in, "in", "")),
                    text("{'direction': 'out', 'source': '" INSIDE6 "', 'destination': '" FAR6
                         "', 'action': 'protect', 'spi': %u},"
                         "{'direction': 'in', 'source': '" FAR6 "', 'destination': '" INSIDE6
                         "', 'action': 'protect', 'spi': %u}",
                         out->spi, in->spi));
}

CASE(transport_mode) {
    struct esp_sa there = {
        .spi = SPI_OUT, .source = INSIDE, .destination = FAR, .transport = true, GCM};
    struct esp_sa back = turned(&there, SPI_IN);
    struct frame *with_options =
        udp4(.source = INSIDE ":1", .destination = FAR ":2", .options = "01010101");

    start(transport4(&there, &back));
    for (unsigned size = 1; size < 40; size++) {
        goes_out(&there, to_far(.size = size, .tos = 0xb9, .id = 7), .sequence = size);
        comes_in(&back, from_far(.size = size, .tos = 0xb9, .id = 7), .sequence = size);
    }
    goes_out(&there, tcp4(.source = INSIDE ":1", .destination = FAR ":2"), .sequence = 40);
    goes_out(&there, icmp4_echo(.source = INSIDE, .destination = FAR), .sequence = 41);
    comes_in(&back, icmp4_echo(.source = FAR, .destination = INSIDE), .sequence = 41);
    /* Options stay in front of ESP: RFC 4303 section 3.1.1. */
    inject(LAN, with_options);
    struct frame *found = take_one(WAN);
    struct frame *expected =
        esp(&there, hop(with_options), .sequence = 42, .iv_bytes = found->bytes + IP + 24 + 8);

    require(found->length == expected->length &&
                memcmp(found->bytes + IP, expected->bytes + IP, expected->length - IP) == 0,
            "options in transport mode");
    with_options = udp4(.source = FAR ":1", .destination = INSIDE ":2", .options = "01010101");
    comes_in(&back, with_options, .sequence = 42);
    there = (struct esp_sa){
        .spi = SPI_OUT, .source = INSIDE6, .destination = FAR6, .transport = true, GCM};
    back = turned(&there, SPI_IN);
    start(transport6(&there, &back));
    for (unsigned size = 1; size < 40; size++) {
        goes_out(&there, to_far6(.size = size, .traffic_class = 0xb9, .flow_label = 0x12345),
                 .sequence = size);
        comes_in(&back, from_far6(.size = size, .traffic_class = 0xb9, .flow_label = 0x12345),
                 .sequence = size);
    }
}

/* Only whole packets between the association's ends can be protected so. */
CASE(transport_mode_is_for_its_ends_alone) {
    struct esp_sa there = {
        .spi = SPI_OUT, .source = INSIDE, .destination = FAR, .transport = true, GCM};
    struct frame *whole = to_far(.size = 1000);

    start(with_sas(sa_json(&there, "out", ""), "{'direction': 'out', 'destination': '10.9.0.0/16',"
                                               " 'action': 'protect', 'spi': 4096}"));
    is_dropped(LAN, udp4(.source = INSIDE ":1", .destination = "10.9.0.2:2"),
               "ipsec_out.not_for_transport_mode");
    is_dropped(LAN, udp4(.source = "192.168.1.11:1", .destination = FAR ":2"),
               "ipsec_out.not_for_transport_mode");
    is_dropped(LAN, fragment4(whole, 0, 512), "ipsec_out.not_for_transport_mode");
    is_dropped(LAN, fragment4(whole, 512, 496), "ipsec_out.not_for_transport_mode");
}

/* What the router itself says to the peer. */
CASE(transport_mode_of_the_router) {
    struct esp_sa there = {
        .spi = SPI_OUT, .source = ROUTER, .destination = "198.51.100.2", .transport = true, GCM};
    struct esp_sa back = turned(&there, SPI_IN);

    start(with_sas(both(sa_json(&there, "out", ""), sa_json(&back, "in", "")),
                   "{'direction': 'out', 'source': '" ROUTER "', 'destination': '198.51.100.2',"
                   " 'action': 'protect', 'spi': 4096},"
                   "{'direction': 'in', 'destination': '" ROUTER "', 'source': '198.51.100.2',"
                   " 'action': 'protect', 'spi': 8192}"));
    inject(WAN, esp(&back, icmp4_echo(.source = "198.51.100.2", .destination = ROUTER,
                                      .identifier = 5, .sequence = 6)));
    expect_esp(WAN, &there,
               icmp4_echo_reply(.source = ROUTER, .destination = "198.51.100.2", .identifier = 5,
                                .sequence = 6));
    is_dropped(WAN, icmp4_echo(.source = "198.51.100.2", .destination = ROUTER),
               "ipsec_in.unprotected");
    inject_from_host(udp4(.source = ROUTER ":7", .destination = "198.51.100.2:8", .ttl = 3));
    expect_esp(WAN, &there, udp4(.source = ROUTER ":7", .destination = "198.51.100.2:8", .ttl = 3),
               .sequence = 2);
}

/* --- UDP encapsulation (RFC 3948) --- */

CASE(in_udp_both_ways) {
    static const struct esp_sa *const ends[][2] = {{&out4, &in4}, {&out6, &in6}};

    for (unsigned i = 0; i < 2; i++) {
        struct esp_sa there = *ends[i][0], back = *ends[i][1];

        there.source_port = back.destination_port = 4500;
        there.destination_port = back.source_port = 31234; /* as a NAT on the way has chosen */
        start(tunnel(&there, &back, ""));
        for (unsigned size = 1; size < 40; size++) {
            goes_out(&there, to_far(.size = size), .sequence = 2 * size - 1);
            goes_out(&there, to_far6(.size = size), .sequence = 2 * size, .df = true);
            comes_in(&back, from_far(.size = size), .sequence = 2 * size - 1);
            comes_in(&back, from_far6(.size = size), .sequence = 2 * size);
        }
        /* The NAT may choose another port at any time (RFC 3948 section 2.2). */
        back.source_port = 1025;
        comes_in(&back, from_far(), .sequence = 80);
        /* Plain ESP is not what was agreed upon. */
        back.source_port = back.destination_port = 0;
        is_dropped(WAN, esp(&back, from_far(), .sequence = 81), "ipsec_in.unknown_spi");
    }
}

CASE(transport_mode_in_udp) {
    struct esp_sa there = {.spi = SPI_OUT,
                           .source = INSIDE,
                           .destination = FAR,
                           .transport = true,
                           .source_port = 4500,
                           .destination_port = 4500,
                           GCM};
    struct esp_sa back = turned(&there, SPI_IN);
    struct frame *nat_changed, *tcp = tcp4(.source = FAR ":1", .destination = INSIDE ":2");

    start(transport4(&there, &back));
    for (unsigned size = 1; size < 40; size++) {
        goes_out(&there, to_far(.size = size), .sequence = size);
        comes_in(&back, from_far(.size = size), .sequence = size);
    }
    /* The inner checksum is about addresses from before a NAT: it is made anew (section 3.1.2). */
    nat_changed = udp4(.source = "10.77.0.1:2000", .destination = INSIDE ":1000");
    memcpy(nat_changed->bytes + IP + 12, from_far()->bytes + IP + 12, 4);
    inject(WAN, esp(&back, nat_changed, .sequence = 50));
    expect(LAN, hop(from_far()));
    nat_changed = tcp4(.source = "10.77.0.1:1", .destination = INSIDE ":2");
    memcpy(nat_changed->bytes + IP + 12, tcp->bytes + IP + 12, 4);
    inject(WAN, esp(&back, nat_changed, .sequence = 51));
    expect(LAN, hop(tcp));
    inject_segments(WAN, esp(&back, nat_changed, .sequence = 52), 100);
    expect(LAN, hop(tcp));
}

/* --- the outer header --- */

/* RFC 4301 section 5.1.2.1 and RFC 6040 section 4.1: both fields are copied. */
CASE(traffic_class_goes_outside) {
    unsigned sequence = 0;

    start(tunnel(&out4, &in4, ""));
    for (unsigned tos = 0; tos < 256; tos += 3) {
        goes_out(&out4, to_far(.tos = tos), .tos = tos, .sequence = ++sequence);
        goes_out(&out4, to_far6(.traffic_class = tos), .tos = tos, .sequence = ++sequence,
                 .df = true);
    }
    start(tunnel(&out6, &in6, ""));
    sequence = 0;
    for (unsigned tos = 0; tos < 256; tos += 3) {
        goes_out(&out6, to_far(.tos = tos), .tos = tos, .sequence = ++sequence);
        goes_out(&out6, to_far6(.traffic_class = tos, .flow_label = 0xfffff), .tos = tos,
                 .sequence = ++sequence);
    }
}

CASE(df_is_copied_cleared_or_set) {
    struct frame *with = to_far(.fragment = DONT_FRAGMENT), *without = to_far();

    start(tunnel(&out4, &in4, ""));
    goes_out(&out4, with, .df = true, .sequence = 1);
    goes_out(&out4, without, .df = false, .sequence = 2);
    start(tunnel(&out4, &in4, ", 'df': 'copy'")); /* as before: the numbers go on */
    goes_out(&out4, with, .df = true, .sequence = 3);
    goes_out(&out4, without, .df = false, .sequence = 4);
    start(tunnel(&out4, &in4, ", 'df': 'clear'"));
    goes_out(&out4, with, .df = false, .sequence = 1);
    goes_out(&out4, without, .df = false, .sequence = 2);
    goes_out(&out4, to_far6(), .df = false, .sequence = 3);
    start(tunnel(&out4, &in4, ", 'df': 'set'"));
    goes_out(&out4, with, .df = true, .sequence = 1);
    goes_out(&out4, without, .df = true, .sequence = 2);
    goes_out(&out4, to_far6(), .df = true, .sequence = 3);
}

/* RFC 6864 section 4.3: packets that may be fragmented need ids that differ. */
CASE(outer_ids_differ) {
    unsigned last = 0;

    start(tunnel(&out4, &in4, ""));
    for (unsigned i = 0; i < 100; i++) {
        struct esp_found found;

        inject(LAN, to_far());
        require(!esp_unwrap(&out4, take_one(WAN), 0, &found), "packet %u is wrong", i);
        require(i == 0 || found.id != last, "two packets with id %u", last);
        last = found.id;
    }
}

/* The inner packet was forwarded once; the tunnel is no hop of its own. */
CASE(hops) {
    start(tunnel(&out4, &in4, ""));
    goes_out(&out4, to_far(.ttl = 2), .sequence = 1);
    goes_out(&out4, to_far(.ttl = 255), .sequence = 2);
    goes_out(&out4, to_far6(.hop_limit = 2), .sequence = 3, .df = true);
    inject(LAN, to_far(.ttl = 1));
    expect(LAN, icmp4_error(.source = ROUTER_LAN4, .destination = INSIDE, .type = TIME_EXCEEDED,
                            .about = to_far(.ttl = 1)));
    expect_drop("local.time_exceeded", 1);
    inject(LAN, to_far6(.hop_limit = 1));
    expect(LAN, icmp6_error(.source = ROUTER_LAN6, .destination = INSIDE6, .type = TIME_EXCEEDED6,
                            .about = to_far6(.hop_limit = 1)));
    expect_drop("local.time_exceeded", 1);
    comes_in(&in4, from_far(.ttl = 2), .sequence = 1);
}

/* The sender is behind the tunnel, and so the answer goes back by it. */
CASE(hops_run_out_behind_the_tunnel) {
    start(tunnel(&out4, &in4, ""));
    inject(WAN, esp(&in4, from_far(.ttl = 1)));
    turn();
    expect_drop("local.time_exceeded", 1);
    discard(WAN);
}

/* --- lengths --- */

static struct frame *length4(unsigned length, unsigned flags) {
    return to_far(.size = length - 28, .fragment = flags);
}

static struct frame *length6(unsigned length) {
    return to_far6(.size = length - 48);
}

/* For each kind of outer header and algorithm: the longest that fits, and one octet more. */
CASE(longest_packets) {
    struct esp_sa cbc = {.algorithm = "aes-cbc-256", .key = KEY_256, AUTH_SHA512};
    struct esp_sa sas[6] = {out4, out6, out4, out6, out4, out6};

    for (unsigned i = 0; i < 6; i++) {
        unsigned room, sequence = 0;

        if (i >= 4) {
            sas[i].algorithm = cbc.algorithm;
            sas[i].key = cbc.key;
            sas[i].authentication = cbc.authentication;
            sas[i].authentication_key = cbc.authentication_key;
        }
        if (i >= 2)
            sas[i].source_port = sas[i].destination_port = 4500;
        room = esp_room(&sas[i], 1500);
        start(tunnel(&sas[i], NULL, ""));
        goes_out(&sas[i], length4(room, DONT_FRAGMENT), .df = true, .sequence = ++sequence);
        goes_out(&sas[i], length6(room), .df = true, .sequence = ++sequence);
        inject(LAN, length4(room + 1, DONT_FRAGMENT));
        expect(LAN, icmp4_error(.source = ROUTER_LAN4, .destination = INSIDE, .type = UNREACHABLE,
                                .code = FRAGMENTATION_NEEDED, .rest = room,
                                .about = length4(room + 1, DONT_FRAGMENT)));
        inject(LAN, length6(room + 1));
        expect(LAN, icmp6_error(.source = ROUTER_LAN6, .destination = INSIDE6, .type = TOO_BIG6,
                                .rest = room, .about = length6(room + 1)));
        expect_drop("local.too_big", 2);
        /* The association's numbers were not used up by those. */
        goes_out(&sas[i], to_far(), .sequence = ++sequence);
    }
}

/* RFC 4301 section 8.2.1: fragments first, and each of them is one ESP packet. */
CASE(fragments_before_encryption) {
    struct frame *whole = length4(3000, 0);
    unsigned room = esp_room(&out4, 1500), piece = (room - 20) / 8 * 8, sequence = 0;

    start(tunnel(&out4, NULL, ""));
    for (unsigned round = 0; round < 3; round++) {
        unsigned at = 0, payload = 3000 - 20;

        inject(LAN, whole);
        for (; at < payload; at += piece)
            expect_esp(WAN, &out4,
                       hop(fragment4(whole, at, payload - at < piece ? payload - at : piece)),
                       .sequence = ++sequence);
    }
    /* One octet too long. */
    inject(LAN, length4(room + 1, 0));
    expect_esp(WAN, &out4, hop(fragment4(length4(room + 1, 0), 0, piece)), .sequence = ++sequence);
    expect_esp(WAN, &out4, hop(fragment4(length4(room + 1, 0), piece, room + 1 - 20 - piece)),
               .sequence = ++sequence);
    /* A fragment may be cut again. */
    whole = length4(4000, 0);
    inject(LAN, fragment4(whole, 1000, 1480));
    expect_esp(WAN, &out4, hop(fragment4(whole, 1000, piece)), .sequence = ++sequence);
    expect_esp(WAN, &out4, hop(fragment4(whole, 1000 + piece, 1480 - piece)),
               .sequence = ++sequence);
    /* The outer header may say DF then. */
    start(tunnel(&out4, NULL, ", 'df': 'set'"));
    inject(LAN, length4(room + 1, 0));
    expect_esp(WAN, &out4, hop(fragment4(length4(room + 1, 0), 0, piece)), .sequence = 1,
               .df = true);
    expect_esp(WAN, &out4, hop(fragment4(length4(room + 1, 0), piece, room + 1 - 20 - piece)),
               .sequence = 2, .df = true);
}

static const char *with_mtus(const char *lan, const char *wan, const char *sas,
                             const char *policies) {
    return text("{'interfaces': {"
                "'lan': {" LAN_PORT ", " LAN_ADDRESSES ", 'mtu': %s},"
                "'wan': {" WAN_PORT ", " WAN_ADDRESSES ", 'mtu': %s}},"
                "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
                "'routes': [" DEFAULT_ROUTES
                "], 'ipsec': {'sas': [%s], 'policies': [%s]}," UNLIMITED "}",
                lan, wan, sas, policies);
}

CASE(the_mtu_of_the_outer_route) {
    unsigned room = esp_room(&out4, 1400);

    start(with_mtus("1500", "1400", sa_json(&out4, "out", ""), policies_of(SPI_OUT, 0)));
    inject(LAN, length4(room + 1, DONT_FRAGMENT));
    expect(LAN, icmp4_error(.source = ROUTER_LAN4, .destination = INSIDE, .type = UNREACHABLE,
                            .code = FRAGMENTATION_NEEDED, .rest = room,
                            .about = length4(room + 1, DONT_FRAGMENT)));
    expect_drop("local.too_big", 1);
    goes_out(&out4, length4(room, DONT_FRAGMENT), .df = true);
}

/* IPv6 links carry 1280 octets; a tunnel that cannot says nothing that its sender could use. */
CASE(no_room_for_ipv6) {
    unsigned room = esp_room(&out4, 1300);

    start(with_mtus("1500", "1300", sa_json(&out4, "out", ""), policies_of(SPI_OUT, 0)));
    goes_out(&out4, length6(room), .df = true);
    is_dropped(LAN, length6(room + 1), "ipsec_out.too_long");
}

/* What the sender is told is about its whole packet, header included. */
CASE(too_long_in_transport_mode) {
    struct esp_sa there = {
        .spi = SPI_OUT, .source = INSIDE, .destination = FAR, .transport = true, GCM};
    unsigned room = esp_room(&there, 1500) + 20;

    start(with_sas(sa_json(&there, "out", ""), policies_of(SPI_OUT, 0)));
    goes_out(&there, length4(room, DONT_FRAGMENT));
    inject(LAN, length4(room + 1, DONT_FRAGMENT));
    expect(LAN, icmp4_error(.source = ROUTER_LAN4, .destination = INSIDE, .type = UNREACHABLE,
                            .code = FRAGMENTATION_NEEDED, .rest = room,
                            .about = length4(room + 1, DONT_FRAGMENT)));
    expect_drop("local.too_big", 1);
}

/* RFC 4303 section 3.3.4: it protects whole packets; what leaves is cut after that. */
CASE(fragments_after_encryption_in_transport_mode) {
    struct esp_sa there = {
        .spi = SPI_OUT, .source = INSIDE, .destination = FAR, .transport = true, GCM};

    for (unsigned udp = 0; udp < 2; udp++) {
        unsigned sequence = 0;

        there.source_port = there.destination_port = udp ? 4500 : 0;
        start(with_sas(sa_json(&there, "out", ""), policies_of(SPI_OUT, 0)));
        for (unsigned length = esp_room(&there, 1500) + 21; length <= 1500; length++) {
            struct frame *sent = length4(length, 0), *first, *second, *whole;

            inject(LAN, sent);
            first = take_one(WAN);
            second = take_one(WAN);
            whole = esp(&there, hop(sent), .sequence = ++sequence,
                        .iv_bytes = first->bytes + esp_offset(&there) + 8);
            whole = ether(whole, HOST_WAN, ROUTER_WAN);
            require(frame_equal(first, fragment4(whole, 0, 1480)), "the first piece is wrong");
            require(frame_equal(second, fragment4(whole, 1480, whole->length - IP4_PAYLOAD - 1480)),
                    "the second piece is wrong");
        }
    }
    /* Between IPv6 hosts nobody on the way cuts. */
    there = (struct esp_sa){
        .spi = SPI_OUT, .source = INSIDE6, .destination = FAR6, .transport = true, GCM};
    start(with_sas(sa_json(&there, "out", ""), policies_of(SPI_OUT, 0)));
    inject(LAN, length6(1490));
    expect(LAN, icmp6_error(.source = ROUTER_LAN6, .destination = INSIDE6, .type = TOO_BIG6,
                            .rest = esp_room(&there, 1500) + 40, .about = length6(1490)));
    expect_drop("local.too_big", 1);
}

/* --- packets in several buffers --- */

CASE(outbound_in_several_buffers) {
    struct esp_sa cbc = out4;
    unsigned sequence = 0;

    cbc.algorithm = "aes-cbc-128";
    cbc.key = KEY_128;
    cbc.authentication = "hmac-sha256-128";
    cbc.authentication_key = KEY_256;
    start(tunnel(&cbc, NULL, ""));
    for (unsigned size = 1; size < 120; size += 7) {
        for (unsigned first = IP4_PAYLOAD + 8; first < IP4_PAYLOAD + 8 + size; first += 3) {
            inject_split(LAN, to_far(.size = size), first);
            expect_esp(WAN, &cbc, hop(to_far(.size = size)), .sequence = ++sequence);
        }
    }
    for (unsigned each = 64; each < 700; each += 31) {
        inject_segments(LAN, to_far(.size = 1300), each);
        expect_esp(WAN, &cbc, hop(to_far(.size = 1300)), .sequence = ++sequence);
        inject_segments(LAN, to_far6(.size = 1300), each);
        expect_esp(WAN, &cbc, hop(to_far6(.size = 1300)), .sequence = ++sequence, .df = true);
    }
}

/* Buffers that are full to the end: the trailer needs one of its own. */
CASE(jumbo_frames) {
    const char *sas = both(sa_json(&out4, "out", ""), sa_json(&in4, "in", ""));
    unsigned room = esp_room(&out4, 9000), sequence = 0;

    start(with_mtus("9000", "9000", sas, policies_of(SPI_OUT, SPI_IN)));
    for (unsigned length = room; length > room - 40; length--) {
        sequence++;
        goes_out(&out4, length4(length, 0), .sequence = sequence);
        comes_in(&in4, from_far(.size = length - 28), .sequence = sequence);
    }
    for (unsigned length = 1900; length < 2300; length += 3) {
        sequence++;
        goes_out(&out4, length4(length, 0), .sequence = sequence);
        goes_out(&out4, length6(length), .sequence = ++sequence, .df = true);
        comes_in(&in4, from_far(.size = length - 28), .sequence = sequence);
    }
}

CASE(jumbo_frames_are_fragmented) {
    unsigned piece = (esp_room(&out4, 1500) - 20) / 8 * 8, sequence = 0;

    start(with_mtus("9000", "1500", sa_json(&out4, "out", ""), policies_of(SPI_OUT, 0)));
    for (unsigned length = 2000; length <= 9000; length += 700) {
        struct frame *whole = length4(length, 0);
        unsigned payload = length - 20;

        inject(LAN, whole);
        for (unsigned at = 0; at < payload; at += piece)
            expect_esp(WAN, &out4,
                       hop(fragment4(whole, at, payload - at < piece ? payload - at : piece)),
                       .sequence = ++sequence);
    }
}

/* --- where the outer packet goes --- */

CASE(over_vlans) {
    start(text("{'interfaces': {"
               "'lan': {" LAN_PORT "}, 'wan': {" WAN_PORT "},"
               "'office': {'parent': 'lan', 'vlan': 10, " LAN_ADDRESSES "},"
               "'uplink': {'parent': 'wan', 'vlan': 7, " WAN_ADDRESSES "}},"
               "'neighbours': [{'interface': 'office', 'address': '" INSIDE "', 'mac': '" HOST_LAN
               "'}, {'interface': 'office', 'address': '" INSIDE6 "', 'mac': '" HOST_LAN "'},"
               "{'interface': 'uplink', 'address': '198.51.100.2', 'mac': '" HOST_WAN "'}],"
               "'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'},"
               "{'prefix': '::/0', 'blackhole': true}],"
               "'ipsec': {'sas': [%s, %s], 'policies': [%s]}," UNLIMITED "}",
               sa_json(&out4, "out", ""), sa_json(&in4, "in", ""), policies_of(SPI_OUT, SPI_IN)));
    for (unsigned i = 1; i <= 3; i++) {
        inject(LAN, vlan(10, to_far(.size = 1300)));
        expect_esp(WAN, &out4, hop(to_far(.size = 1300)), .vlan = 7, .sequence = i);
        inject(WAN, esp(&in4, from_far(), .vlan = 7, .sequence = 2 * i - 1));
        expect(LAN, vlan(10, hop(from_far())));
        inject(WAN, esp(&in4, from_far6(), .vlan = 7, .sequence = 2 * i));
        expect(LAN, vlan(10, hop(from_far6())));
    }
}

CASE(several_paths) {
    struct esp_sa sas[16];
    const char *json = "", *policies = "";
    unsigned wan = 0, isp = 0;

    for (unsigned i = 0; i < 16; i++) {
        sas[i] = out4;
        sas[i].spi = SPI_OUT + i;
        json = text("%s%s%s", json, i ? "," : "", sa_json(&sas[i], "out", ""));
        policies = text("%s%s{'direction': 'out', 'destination': '10.9.%u.0/24', 'action':"
                        " 'protect', 'spi': %u}",
                        policies, i ? "," : "", i, sas[i].spi);
    }
    start(text("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
               "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}, 'isp': {" ISP_PORT ", " ISP_ADDRESSES
               "}}, 'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," ISP_NEIGHBOURS "],"
               "'routes': [{'prefix': '0.0.0.0/0', 'via': ['198.51.100.2', '100.64.4.2']}],"
               "'ipsec': {'sas': [%s], 'policies': [%s]}," UNLIMITED "}",
               json, policies));
    for (unsigned i = 0; i < 16; i++) {
        enum place place = ANYWHERE;

        /* One path for each association, whatever the packets inside are. */
        for (unsigned n = 1; n <= 4; n++) {
            const struct frame *frame =
                udp4(.source = text(INSIDE ":%u", n), .destination = text("10.9.%u.1:%u", i, n));
            struct frame *found;
            struct esp_found inside;

            inject(LAN, frame);
            found = take(WAN);
            require(place == ANYWHERE || (found ? WAN : ISP) == place,
                    "the packets of association %u take two ways", i);
            place = found ? WAN : ISP;
            if (!found)
                found = take_one(ISP);
            require(!esp_unwrap(&sas[i], found, 0, &inside) && inside.sequence == n,
                    "packet %u of association %u is wrong", n, i);
        }
        wan += place == WAN;
        isp += place == ISP;
    }
    require(wan >= 2 && isp >= 2, "%u associations by one path, %u by the other", wan, isp);
}

CASE(no_way_for_the_outer_packet) {
    start(text("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
               "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"
               "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
               "'routes': [{'prefix': '10.9.0.0/16', 'via': '198.51.100.2'}],"
               "'ipsec': {'sas': [%s], 'policies': [%s]}," UNLIMITED "}",
               sa_json(&out4, "out", ""), policies_of(SPI_OUT, 0)));
    is_dropped(LAN, to_far(), "ipsec_out.no_route");
}

/* The peer is a host on the WAN's own link, and nobody knows its MAC address. */
#define SILENT "198.51.100.99"

static struct esp_sa to_silent(void) {
    struct esp_sa sa = out4;

    sa.destination = SILENT;
    return sa;
}

static void silent_answers(void) {
    inject(WAN, arp_reply(.sender = SILENT, .sender_mac = HOST_WAN, .target = ROUTER,
                          .target_mac = ROUTER_WAN));
}

/* The packet waits as it is, in ESP, and is sent once. */
CASE(unresolved_next_hop) {
    struct esp_sa sa = to_silent();

    start(tunnel(&sa, NULL, ""));
    inject(LAN, to_far(.size = 1));
    inject(LAN, to_far(.size = 2));
    expect(WAN,
           padded(ether(arp_request(.sender = ROUTER, .sender_mac = ROUTER_WAN, .target = SILENT),
                        BROADCAST, ROUTER_WAN),
                  60));
    expect_nothing(ANYWHERE);
    silent_answers();
    expect_esp(WAN, &sa, hop(to_far(.size = 1)), .sequence = 1);
    expect_esp(WAN, &sa, hop(to_far(.size = 2)), .sequence = 2);
    goes_out(&sa, to_far(.size = 3), .sequence = 3);
}

/* So do the pieces of one that is too long. */
CASE(unresolved_next_hop_of_fragments) {
    struct frame *whole = length4(2000, 0);
    struct esp_sa sa = to_silent();
    unsigned piece = (esp_room(&sa, 1500) - 20) / 8 * 8;

    start(tunnel(&sa, NULL, ""));
    inject(LAN, whole);
    turn();
    require(discard(WAN) == 1, "one question was expected");
    silent_answers();
    expect_esp(WAN, &sa, hop(fragment4(whole, 0, piece)), .sequence = 1);
    expect_esp(WAN, &sa, hop(fragment4(whole, piece, 1980 - piece)), .sequence = 2);
}

/* The sender of the outer packet is told, and that is the router itself. */
CASE(next_hop_that_never_answers) {
    struct esp_sa sa = to_silent();

    start(tunnel(&sa, NULL, ""));
    inject(LAN, to_far());
    advance(5000);
    discard(WAN); /* questions */
    expect_nothing(LAN);
    expect_drops({"local.host_unreachable", 1}, {"local.no_listener", 1});
}

/* --- sequence numbers --- */

static void start_with_clients_sa(const struct esp_sa *sa, uint64_t sequence) {
    apply("{}"); /* what an earlier one has added goes */
    start(with_ipsec("'sas': []"));
    rpc("ipsec.policy.add", "{'name': 'far', 'direction': 'out', 'destination': '10.9.0.0/16',"
                            " 'action': 'protect', 'spi': 4096}");
    add_out_sa_at(sa, sequence);
}

/* RFC 4303 section 3.3.3: an association whose numbers are used up sends nothing more. */
CASE(numbers_are_used_up) {
    start_with_clients_sa(&out4, UINT32_MAX - 3);
    goes_out(&out4, to_far(), .sequence = UINT32_MAX - 2);
    goes_out(&out4, to_far(), .sequence = UINT32_MAX - 1);
    inject(LAN, to_far());
    inject(LAN, to_far());
    inject(LAN, to_far());
    turn();
    expect_esp(WAN, &out4, hop(to_far()), .sequence = UINT32_MAX);
    expect_nothing(ANYWHERE);
    expect_drop("ipsec_out.sequence_exhausted", 2);
    for (unsigned i = 0; i < 200; i++)
        inject(LAN, to_far());
    expect_nothing(ANYWHERE);
    expect_drop("ipsec_out.sequence_exhausted", 200);
}

CASE(extended_numbers_out) {
    struct esp_sa esn = out4;

    esn.esn = true;
    start_with_clients_sa(&esn, UINT32_MAX - 3);
    for (uint64_t number = UINT32_MAX - 2; number < UINT64_C(0x100000000) + 20; number++)
        goes_out(&esn, to_far(), .sequence = number);
}

CASE(extended_numbers_are_used_up) {
    struct esp_sa esn = out4;

    esn.esn = true;
    start_with_clients_sa(&esn, UINT64_MAX - 1);
    for (unsigned i = 0; i < 200; i++)
        inject(LAN, to_far());
    expect_nothing(ANYWHERE);
    expect_drop("ipsec_out.sequence_exhausted", 200);
}

/* The lower half is what is sent; the upper half is in what is authenticated. */
CASE(extended_numbers_with_every_algorithm) {
    for (unsigned n = 0; n < ALGORITHMS; n++) {
        struct esp_sa esn = algorithm(n, &out4, true);

        esn.spi = SPI_OUT;
        start_with_clients_sa(&esn, UINT64_C(0x300000000) - 2);
        goes_out(&esn, to_far(), .sequence = UINT64_C(0x2ffffffff));
        goes_out(&esn, to_far(), .sequence = UINT64_C(0x300000000));
        goes_out(&esn, to_far(), .sequence = UINT64_C(0x300000001));
    }
}

/* Receivers refuse numbers that are behind their window, and Linux has one of 32 as a rule. */
static unsigned number_of(const struct frame *frame) {
    const uint8_t *esp = frame->bytes + IP4_PAYLOAD;

    return (unsigned)esp[6] << 8 | esp[7];
}

CASE(numbers_leave_in_order) {
    static const unsigned sizes[] = {18, 18, 1472, 18, 1472, 1472, 400, 1472, 18, 18};
    const struct frame *frame;
    unsigned last = 0;

    start(tunnel(&out4, &in4, ""));
    for (unsigned i = 0; i < 60; i++)
        inject(LAN, to_far(.size = sizes[i % 10]));
    inject(LAN, udp4(.source = INSIDE ":1", .destination = OUTSIDE ":2")); /* not protected */
    for (unsigned i = 0; i < 60 + 24; i++) {
        do
            frame = take_one(WAN);
        while (frame->bytes[IP + 9] != 50);
        last++;
        require(number_of(frame) == last, "number %u is not the next one, which is %u",
                number_of(frame), last);
    }
    discard(WAN);
}

/* So do the packets themselves, cut or not. */
CASE(packets_leave_in_order) {
    struct esp_sa other = out4;
    unsigned last = 0;

    other.spi = SPI_OUT + 1;
    start(with_sas(both(sa_json(&out4, "out", ""), sa_json(&other, "out", "")),
                   text("{'direction': 'out', 'destination': '10.9.0.0/24', 'action': 'protect',"
                        " 'spi': %u}, {'direction': 'out', 'destination': '10.9.1.0/24', 'action':"
                        " 'protect', 'spi': %u}",
                        out4.spi, other.spi)));
    for (unsigned i = 1; i <= 60; i++)
        inject(LAN,
               udp4(.source = text(INSIDE ":%u", i), .destination = i % 3 ? FAR ":2" : "10.9.1.1:2",
                    .size = i % 20 == 7 ? 1472 : 18));
    while (last < 60) {
        const struct frame *frame = take_one(WAN);
        struct esp_found found;

        if (esp_unwrap(&out4, frame, 0, &found) && esp_unwrap(&other, frame, 0, &found))
            fail_msg("a packet of neither association");
        if (found.inner->bytes[IP + 7] != 0)
            continue; /* a later fragment */
        last++;
        require(found.inner->bytes[IP4_PAYLOAD + 1] == last, "packet %u comes in the place of %u",
                found.inner->bytes[IP4_PAYLOAD + 1], last);
    }
}

/* Protected packets leave with the next numbers, one after the other. */
static void expect_numbers(unsigned packets) {
    for (unsigned number = 1; number <= packets; number++) {
        const unsigned found = number_of(take_one(WAN));

        require(found == number, "number %u is not the next one, which is %u", found, number);
    }
    expect_nothing(ANYWHERE);
}

/* A packet that is cut, but otherwise goes another way through the code than its neighbours: it
 * lies in several buffers. */
CASE(numbers_leave_in_order_with_chains) {
    start(tunnel(&out4, &in4, ""));
    for (unsigned i = 0; i < 60; i++) {
        if (i % 7 == 3)
            inject_segments(LAN, to_far(.size = 1472), 700);
        else
            inject(LAN, to_far(.size = 18));
    }
    expect_numbers(60 + 9);
}

/* The same for one that is not cut. */
CASE(numbers_leave_in_order_with_short_chains) {
    start(tunnel(&out4, &in4, ""));
    for (unsigned i = 0; i < 60; i++) {
        if (i % 20 == 9)
            inject_segments(LAN, to_far(.size = 400), 200);
        else
            inject(LAN, to_far(.size = 18));
    }
    expect_numbers(60);
}

/* And where packets of both families share an association, as those of a dual-stack CHILD_SA do. */
CASE(numbers_leave_in_order_over_families) {
    start(tunnel(&out4, &in4, ""));
    for (unsigned i = 0; i < 60; i++)
        inject(LAN, i % 2 ? to_far(.size = 18) : to_far6(.size = 18));
    expect_numbers(60);
}

/* --- many associations --- */

enum { MANY = 24 };

/* Every association has a network of its own. Some are in UDP, some over IPv6, one in four has
 * another algorithm; the last has no route. */
static struct esp_sa one_of_many(unsigned n) {
    struct esp_sa sa = algorithm(n % 4 == 3 ? n : 2, n % 8 == 5 ? &out6 : &out4, n % 8 == 6);

    sa.spi = SPI_OUT + n;
    if (n % 8 == 1)
        sa.source_port = sa.destination_port = 4500;
    return sa;
}

static const char *many(void) {
    const char *sas = "", *policies = "";

    for (unsigned n = 0; n < MANY; n++) {
        struct esp_sa sa = one_of_many(n);

        sas = text("%s%s%s", sas, n ? "," : "", sa_json(&sa, "out", ""));
        policies = text("%s{'direction': 'out', 'destination': '10.9.%u.0/24', 'action': 'protect',"
                        " 'spi': %u},",
                        policies, n, sa.spi);
    }
    return with_sas(sas, text("%s{'direction': 'out', 'destination': '10.9.100.0/24', 'action':"
                              " 'discard'},"
                              "{'direction': 'out', 'destination': '10.9.101.0/24', 'action':"
                              " 'bypass'},"
                              "{'direction': 'out', 'destination': '10.9.102.0/24', 'action':"
                              " 'protect', 'request': 77}",
                              policies));
}

static const struct frame *to_many(unsigned n, unsigned size) {
    return udp4(.source = INSIDE ":1", .destination = text("10.9.%u.1:2", n), .size = size);
}

/* Whole bursts for many associations, with packets between them that are not protected, have no
 * association or are discarded: each is what it would be alone, in the order in which they came. */
CASE(many_associations_in_one_burst) {
    enum { ROUNDS = 20, PACKETS = 64 };
    unsigned sequences[MANY] = {0}, discarded = 0, without = 0, not_sent = 0, sent = 0, decided = 0;

    start(many());
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint8_t networks[PACKETS];

        for (unsigned i = 0; i < PACKETS; i++) {
            /* In some rounds runs of one association, in some only usual ones. */
            networks[i] = (uint8_t)((round % 3 == 0 ? i / 5 : i * 7 + round) % MANY);
            if (round % 4 == 2 && i % 9 == 4)
                networks[i] = (uint8_t)(100 + i % 3);
            inject(LAN, to_many(networks[i], 1 + (i + round) % 200));
        }
        turn();
        for (unsigned i = 0; i < PACKETS; i++) {
            const struct frame *packet = to_many(networks[i], 1 + (i + round) % 200);
            struct esp_sa sa;

            discarded += networks[i] == 100;
            without += networks[i] == 102;
            if (networks[i] == 101)
                expect(WAN, hop(packet));
            not_sent += networks[i] >= 100;
            if (networks[i] >= 100)
                continue;
            sa = one_of_many(networks[i]);
            expect_esp(WAN, &sa, hop(packet), .sequence = ++sequences[networks[i]]);
        }
    }
    expect_nothing(ANYWHERE);
    expect_drops({"ipsec_out.discarded", discarded}, {"ipsec_out.no_sa", without});
    for (const struct ipsec_sa *sa = ipsec_sa_next(NULL); sa; sa = ipsec_sa_next(sa)) {
        struct ipsec_sa_counters counters;

        ipsec_sa_counters(sa, &counters);
        sent += counters.packets;
    }
    require(sent == ROUNDS * PACKETS - not_sent, "%u packets were counted", sent);
    for (const struct ipsec_policy *policy = ipsec_policy_next(NULL); policy;
         policy = ipsec_policy_next(policy)) {
        struct ipsec_policy_counters counters;

        ipsec_policy_counters(policy, &counters);
        decided += counters.packets;
    }
    require(decided == ROUNDS * PACKETS, "%u packets were decided about", decided);
}

HARNESS_MAIN()
