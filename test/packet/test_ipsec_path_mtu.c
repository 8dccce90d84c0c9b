/* What ICMP errors about ESP packets say of a tunnel's path (RFC 4301 section 8.2, RFC 1191,
 * RFC 8201). */
#include "core/event.h"
#include "ipsec_network.h"

enum {
    UNREACHABLE = 3,
    FRAGMENTATION_NEEDED = 4,
    TOO_BIG6 = 2,
    MTU = 1500,
    REMEMBERED_MSEC = 600 * 1000,
};

#define ON_THE_WAY "100.64.1.1" /* a router between here and the peer */
#define ON_THE_WAY6 "2001:db8:64::1"
#define ROUTER_LAN4 "192.168.1.1"
#define ROUTER_LAN6 "2001:db8:1::1"

#define for_each_kind(sa) for_each_kind_of(sa, &out4, &out6)

/* An inner packet of this length. */
static struct frame *of_length(unsigned length, unsigned flags) {
    return to_far(.size = length - 28, .fragment = flags);
}

static struct frame *of_length6(unsigned length) {
    return to_far6(.size = length - 48);
}

/* What the router sends for an inner packet. */
static struct frame *sent_for(const struct frame *inner) {
    inject(LAN, inner);
    return take_one(WAN);
}

static struct frame *too_big(const struct frame *about, uint32_t mtu) {
    return is_ipv6(about)
               ? icmp6_error(.source = ON_THE_WAY6, .destination = ROUTER6, .type = TOO_BIG6,
                             .rest = mtu, .about = about)
               : icmp4_error(.source = ON_THE_WAY, .destination = ROUTER, .type = UNREACHABLE,
                             .code = FRAGMENTATION_NEEDED, .rest = mtu, .about = about);
}

/* It goes on to the host, which is not there. */
#define hears(error)                         \
    do {                                     \
        inject(WAN, (error));                \
        expect_nothing(ANYWHERE);            \
        expect_drop("local.no_listener", 1); \
    } while (0)

/* Packets up to this room pass, and the senders of longer ones are told. */
static void has_room(const struct esp_sa *sa, unsigned mtu) {
    unsigned room = esp_room(sa, mtu), piece = (room - 20) / 8 * 8;
    struct frame *large = of_length(room + 1, 0);

    inject(LAN, of_length(room, DONT_FRAGMENT));
    require(take_one(WAN)->length <= 14 + mtu, "longer than the path");
    inject(LAN, of_length(room + 1, DONT_FRAGMENT));
    expect(LAN, icmp4_error(.source = ROUTER_LAN4, .destination = INSIDE, .type = UNREACHABLE,
                            .code = FRAGMENTATION_NEEDED, .rest = room,
                            .about = of_length(room + 1, DONT_FRAGMENT)));
    expect_drop("local.too_big", 1);
    /* Others are cut before they are encrypted. */
    inject(LAN, large);
    for (unsigned from = 0; from < room + 1 - 20; from += piece) {
        struct esp_found found;
        const char *wrong = esp_unwrap(sa, take_one(WAN), 0, &found);

        require(!wrong, "%s", wrong);
        require(frame_equal(found.inner, hop(fragment4(large, from, piece))), "another piece");
    }
    if (room < 1280)
        return;
    inject(LAN, of_length6(room));
    require(take_one(WAN)->length <= 14 + mtu, "longer than the path");
    inject(LAN, of_length6(room + 1));
    expect(LAN, icmp6_error(.source = ROUTER_LAN6, .destination = INSIDE6, .type = TOO_BIG6,
                            .rest = room, .about = of_length6(room + 1)));
    expect_drop("local.too_big", 1);
}

#define shows(part) contains(rpc("ipsec.sa.list", "{}"), (part))
#define shows_not(part) contains_not(rpc("ipsec.sa.list", "{}"), (part))

/* --- lower --- */

CASE(too_big_lowers) {
    for_each_kind(sa) {
        start(tunnel(&sa, NULL, ""));
        has_room(&sa, MTU);
        shows_not("path_mtu");
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1420));
        has_room(&sa, 1420);
        shows("'path_mtu':1420");
        hears(too_big(sent_for(of_length(1300, DONT_FRAGMENT)), 1400));
        has_room(&sa, 1400);
        shows("'path_mtu':1400");
        /* Never raised by an error. */
        hears(too_big(sent_for(of_length(1300, DONT_FRAGMENT)), 1480));
        has_room(&sa, 1400);
        shows("'path_mtu':1400");
    }
}

/* The straight line for many packets of one association, too. */
CASE(bursts) {
    unsigned room = esp_room(&out4, 1400);

    start(tunnel(&out4, NULL, ""));
    hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1400));
    for (unsigned i = 0; i < 20; i++)
        inject(LAN, of_length(room + (i == 10), DONT_FRAGMENT));
    turn();
    require(discard(WAN) == 19, "not each that fits was sent");
    expect(LAN, icmp4_error(.source = ROUTER_LAN4, .destination = INSIDE, .type = UNREACHABLE,
                            .code = FRAGMENTATION_NEEDED, .rest = room,
                            .about = of_length(room + 1, DONT_FRAGMENT)));
    expect_drop("local.too_big", 1);
}

CASE(down_to_the_floor) {
    for_each_kind(sa) {
        unsigned least = kind_ & 1 ? 1280 : 576;

        start(tunnel(&sa, NULL, ""));
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), least - 1));
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 68));
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1));
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 0));
        shows_not("path_mtu");
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), least));
        has_room(&sa, least);
    }
}

/* More than the link has room for is no news. */
CASE(larger_than_the_link) {
    for_each_kind(sa) {
        start(tunnel(&sa, NULL, ""));
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 9000));
        has_room(&sa, MTU);
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 65535));
        if (kind_ & 1)
            hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), UINT32_MAX));
        if (kind_ & 1)
            hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 65536 + 1300));
        has_room(&sa, MTU);
        shows_not("'path_mtu':1");
    }
}

/* RFC 792: eight bytes behind the header, which end with the sequence number. In UDP there has to
 * be as much of ESP. */
CASE(short_quotes) {
    for_each_kind(sa) {
        unsigned enough = (kind_ & 1 ? 40 : 20) + (kind_ & 2 ? 8 : 0) + 8;
        struct frame *sent, *error;

        start(tunnel(&sa, NULL, ""));
        sent = sent_for(of_length(1400, DONT_FRAGMENT));
        for (unsigned quote = enough; quote >= enough - 8; quote -= 8) {
            error =
                kind_ & 1
                    ? icmp6_error(.source = ON_THE_WAY6, .destination = ROUTER6, .type = TOO_BIG6,
                                  .rest = 1390 + quote - enough, .about = sent, .quote = quote)
                    : icmp4_error(.source = ON_THE_WAY, .destination = ROUTER, .type = UNREACHABLE,
                                  .code = FRAGMENTATION_NEEDED, .rest = 1390 + quote - enough,
                                  .about = sent, .quote = quote);
            hears(error);
            shows("'path_mtu':1390");
        }
    }
}

/* Inner IPv6 packets cannot be shorter than 1280 bytes, nor can they be cut. */
CASE(no_room_for_ipv6) {
    start(tunnel(&out4, NULL, ""));
    hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1300));
    is_dropped(LAN, of_length6(1280), "ipsec_out.too_long");
}

/* The packets of transport mode that may be cut on the way are left to the way. */
CASE(transport_mode) {
    struct esp_sa sa = {
        .spi = SPI_OUT, .source = INSIDE, .destination = FAR, .transport = true, GCM};
    struct frame *error, *sent;

    start(with_sas(sa_json(&sa, "out", ""), "{'direction': 'out', 'destination': '10.9.0.0/16',"
                                            " 'action': 'protect', 'spi': 4096}"));
    sent = sent_for(of_length(1400, DONT_FRAGMENT));
    error = icmp4_error(.source = ON_THE_WAY, .destination = INSIDE, .type = UNREACHABLE,
                        .code = FRAGMENTATION_NEEDED, .rest = 1400, .about = sent);
    /* It goes to an inside host, and there it gets. */
    passes(WAN, LAN, error);
    shows("'path_mtu':1400");
    goes_out(&sa, of_length(1400 - 36, DONT_FRAGMENT), .sequence = 2);
    inject(LAN, of_length(1450, DONT_FRAGMENT));
    expect(LAN, icmp4_error(.source = ROUTER_LAN4, .destination = INSIDE, .type = UNREACHABLE,
                            .code = FRAGMENTATION_NEEDED, .rest = esp_room(&sa, 1400) + 20,
                            .about = of_length(1450, DONT_FRAGMENT)));
    expect_drop("local.too_big", 1);
    goes_out(&sa, of_length(1450, 0), .sequence = 3);
}

/* What may be cut on the way needs no path that has room for all of it. */
CASE(without_df) {
    struct esp_sa cut = out4;

    cut.spi++;
    cut.destination = PEER;
    start(
        with_sas(text("%s, %s", sa_json(&out4, "out", ""), sa_json(&cut, "out", ", 'df': 'clear'")),
                 "{'direction': 'out', 'destination': '10.9.0.0/24', 'action': 'protect',"
                 " 'spi': 4096},"
                 "{'direction': 'out', 'destination': '10.9.1.0/24', 'action': 'protect',"
                 " 'spi': 4097}"));
    hears(too_big(sent_for(udp4(.source = INSIDE ":1", .destination = "10.9.1.1:2")), 1300));
    shows_not("path_mtu");
    hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1300));
    advance(1200);
    shows("'path_mtu':1300");
    inject(LAN, udp4(.source = INSIDE ":1", .destination = "10.9.1.1:2", .size = 1400,
                     .fragment = DONT_FRAGMENT));
    take_one(WAN);
    inject(LAN, of_length(1400, DONT_FRAGMENT));
    turn();
    require(discard(LAN) == 1, "the sender was not told");
    expect_drop("local.too_big", 1);
}

/* --- not believed --- */

static struct frame *with_checksum(struct frame *error) {
    unsigned at = is_ipv6(error) ? IP6_PAYLOAD : IP4_PAYLOAD;
    uint32_t sum = 0;
    uint16_t folded;

    error->bytes[at + 2] = error->bytes[at + 3] = 0;
    if (is_ipv6(error)) {
        uint8_t tail[4] = {(uint8_t)((error->length - at) >> 8), (uint8_t)(error->length - at), 0,
                           58};

        sum = sum16(sum16(0, error->bytes + IP + 8, 32), tail, 4);
    }
    folded = (uint16_t)~fold16(sum16(sum, error->bytes + at, error->length - at));
    error->bytes[at + 2] = (uint8_t)(folded >> 8);
    error->bytes[at + 3] = (uint8_t)folded;
    return error;
}

/* The error with these bytes at an offset of the packet it quotes. */
static struct frame *quoting(const struct frame *error, unsigned offset, const char *bytes) {
    return with_checksum(
        poke(error, (is_ipv6(error) ? IP6_PAYLOAD : IP4_PAYLOAD) + 8 + offset, bytes));
}

CASE(forged_quotes) {
    for_each_kind(sa) {
        bool ipv6 = kind_ & 1, udp = kind_ & 2;
        unsigned header = ipv6 ? 40 : 20, at = header + (udp ? 8 : 0);
        struct frame *error;

        start(tunnel(&sa, NULL, ""));
        for (unsigned i = 0; i < 10; i++)
            error = too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1300);
        hears(quoting(error, at, "00001001")); /* SPI */
        hears(quoting(error, at, "00000000"));
        hears(quoting(error, at + 4, "0000000b")); /* not sent yet */
        hears(quoting(error, at + 4, "80000000"));
        hears(quoting(error, at + 4, "ff000000"));
        hears(quoting(error, ipv6 ? 24 : 16, "0a090909"));      /* destination */
        hears(quoting(error, ipv6 ? 8 : 12, "0a090909"));       /* source */
        hears(quoting(error, ipv6 ? 6 : 9, udp ? "32" : "11")); /* protocol */
        hears(quoting(error, ipv6 ? 6 : 9, "06"));
        hears(quoting(error, 0, ipv6 ? "40" : "65")); /* version */
        if (!ipv6)
            hears(quoting(error, 0, "44"));
        if (!ipv6)
            hears(quoting(error, 6, "0001")); /* a later fragment */
        if (udp) {
            hears(quoting(error, header, "1195")); /* ports */
            hears(quoting(error, header + 2, "1195"));
        }
        hears(poke(error, ipv6 ? IP6_PAYLOAD + 2 : IP4_PAYLOAD + 2, "beef")); /* checksum */
        hears(with_checksum(poke(error, ipv6 ? IP6_PAYLOAD : IP4_PAYLOAD, ipv6 ? "03" : "0b")));
        if (!ipv6)
            hears(with_checksum(poke(error, IP4_PAYLOAD + 1, "03"))); /* port unreachable */
        shows_not("path_mtu");
        hears(error);
        shows("'path_mtu':1300");
    }
}

CASE(to_somebody_else) {
    struct frame *sent;

    start(tunnel(&out4, NULL, ""));
    sent = sent_for(of_length(1400, DONT_FRAGMENT));
    hears(icmp4_error(.source = ON_THE_WAY, .destination = ROUTER_LAN4, .type = UNREACHABLE,
                      .code = FRAGMENTATION_NEEDED, .rest = 1300, .about = sent));
    passes(WAN, LAN,
           icmp4_error(.source = ON_THE_WAY, .destination = INSIDE, .type = UNREACHABLE,
                       .code = FRAGMENTATION_NEEDED, .rest = 1300, .about = sent));
    shows_not("path_mtu");
}

/* The same addresses in another VRF are others. */
CASE(other_vrfs) {
    struct esp_sa sa = out4;
    struct frame *error;

    sa.source = "10.3.0.1";
    start(text("{'vrfs': {'blue': {'table': 20}}, 'interfaces': {"
               "'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
               "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
               "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES ", 'vrf': 'blue'}},"
               "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
               "'routes': [" DEFAULT_ROUTES
               ", {'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via': '10.3.0.10'}],"
               "'ipsec': {'sas': [%s], 'policies': [%s]}, " UNLIMITED "}",
               sa_json(&sa, "out", ", 'vrf': 'blue'"), policies_of(SPI_OUT, 0)));
    inject(LAN, of_length(1400, DONT_FRAGMENT));
    error = icmp4_error(.source = ON_THE_WAY, .destination = "10.3.0.1", .type = UNREACHABLE,
                        .code = FRAGMENTATION_NEEDED, .rest = 1300, .about = take_one(DMZ));
    passes(WAN, WAN, error);
    shows_not("path_mtu");
    inject(DMZ, error);
    turn();
    expect_drop("local.no_listener", 1);
    shows("'path_mtu':1300");
}

CASE(before_anything_was_sent) {
    struct frame *sent = esp(&out4, of_length(1400, DONT_FRAGMENT));

    start(tunnel(&out4, NULL, ""));
    hears(too_big(sent, 1300));
    hears(quoting(too_big(sent, 1300), 24, "00000000"));
    shows_not("path_mtu");
}

CASE(inbound_associations) {
    struct esp_sa sa = turned(&in4, SPI_IN); /* as an outbound one would look */

    start(tunnel(&out4, &in4, ""));
    comes_in(&in4, from_far());
    hears(too_big(esp(&sa, of_length(1400, DONT_FRAGMENT)), 1300));
    shows_not("path_mtu");
}

CASE(cut_short) {
    struct frame *error, *shorter;

    start(tunnel(&out4, NULL, ""));
    error = too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1300);
    for (unsigned length = IP4_PAYLOAD; length < IP4_PAYLOAD + 8 + 28; length++) {
        shorter = patch(truncated(error, length), IP + 2, text("%04x", length - IP));
        hears(length >= IP4_PAYLOAD + 8 ? with_checksum(shorter) : shorter);
    }
    shows_not("path_mtu");
    /* In several buffers what is in the first one counts. */
    inject_split(WAN, error, IP4_PAYLOAD + 20);
    expect_nothing(ANYWHERE);
    expect_drop("local.no_listener", 1);
    shows_not("path_mtu");
    inject_split(WAN, error, IP4_PAYLOAD + 8 + 28);
    expect_nothing(ANYWHERE);
    expect_drop("local.no_listener", 1);
    shows("'path_mtu':1300");
}

/* --- forgotten --- */

static void pass_time(unsigned msec) {
    advance(1200); /* what was learned is known by then */
    event_advance(msec);
    advance(1200);
}

CASE(ageing) {
    for_each_kind(sa) {
        start(tunnel(&sa, NULL, ""));
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1400));
        pass_time(REMEMBERED_MSEC - 5000);
        has_room(&sa, 1400);
        pass_time(5000);
        shows_not("path_mtu");
        has_room(&sa, MTU);
        /* A lower one is remembered for as long as one that was learned alone. */
        hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1400));
        pass_time(REMEMBERED_MSEC - 5000);
        hears(too_big(sent_for(of_length(1300, DONT_FRAGMENT)), 1390));
        pass_time(REMEMBERED_MSEC - 5000);
        has_room(&sa, 1390);
        pass_time(5000);
        has_room(&sa, MTU);
    }
}

CASE(several_paths_are_forgotten_in_turn) {
    enum { PATHS = 5 };
    struct esp_sa sa[PATHS];
    const char *sas = "", *policies = "";

    for (unsigned i = 0; i < PATHS; i++) {
        sa[i] = out4;
        sa[i].spi += i;
        sa[i].destination = text("203.0.113.%u", 10 + i);
        sas = text("%s%s%s", sas, i ? "," : "", sa_json(&sa[i], "out", ""));
        policies = text("%s%s{'direction': 'out', 'destination': '10.9.%u.0/24', 'action':"
                        " 'protect', 'spi': %u}",
                        policies, i ? "," : "", i, sa[i].spi);
    }
    start(with_sas(sas, policies));
    for (unsigned i = 0; i < PATHS; i++) {
        hears(too_big(sent_for(udp4(.source = INSIDE ":1", .destination = text("10.9.%u.1:2", i),
                                    .size = 1000)),
                      1300 + i));
        for (unsigned k = 0; k < PATHS; k++) {
            if (k <= i)
                shows(text("'path_mtu':%u", 1300 + k));
            else
                shows_not(text("'path_mtu':%u", 1300 + k));
        }
        pass_time(60000);
    }
    pass_time(REMEMBERED_MSEC - PATHS * 62400 - 30000);
    for (unsigned i = 0; i < PATHS; i++) {
        shows(text("'path_mtu':%u", 1300 + i));
        pass_time(60000);
        shows_not(text("'path_mtu':%u", 1300 + i));
    }
}

/* --- other associations --- */

static void add(const struct esp_sa *sa) {
    rpc("ipsec.sa.add", sa_json(sa, "out", ""));
}

static void delete (const struct esp_sa *sa) {
    rpc("ipsec.sa.delete", text("{'spi': %u, 'direction': 'out'}", sa->spi));
}

/* The successor is told from the start, also when there was a gap between the two. */
CASE(rekeying) {
    struct esp_sa old = out4, new = out4;

    new.spi++;
    start(with_ipsec("'sas': []"));
    add(&new);
    rpc("ipsec.policy.add", "{'name': 'far', 'direction': 'out', 'destination': '10.9.0.0/16',"
                            " 'action': 'protect', 'spi': 4097}");
    rpc("ipsec.policy.add", "{'name': 'far6', 'direction': 'out', 'destination':"
                            " '2001:db8:9::/48', 'action': 'protect', 'spi': 4097}");
    hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1400));
    shows("'path_mtu':1400");
    add(&old);
    delete (&new);
    shows("'path_mtu':1400");
    shows("'spi':4096");
    shows_not("'spi':4097");
    delete (&old);
    shows_not("path_mtu");
    add(&new);
    shows("'path_mtu':1400");
    has_room(&new, 1400);
    delete (&new);
    pass_time(REMEMBERED_MSEC);
    add(&new);
    shows_not("path_mtu");
    delete (&new);
}

/* One on the same path hears within a second, those of others do not. */
CASE(beside_each_other) {
    struct esp_sa one = out4, two = out4, other = out4;

    two.spi++;
    other.spi += 2;
    other.destination = "203.0.113.10";
    start(with_sas(text("%s, %s, %s", sa_json(&one, "out", ""), sa_json(&two, "out", ""),
                        sa_json(&other, "out", "")),
                   "{'direction': 'out', 'destination': '10.9.0.0/24', 'action': 'protect',"
                   " 'spi': 4096},"
                   "{'direction': 'out', 'destination': '10.9.1.0/24', 'action': 'protect',"
                   " 'spi': 4097},"
                   "{'direction': 'out', 'destination': '10.9.2.0/24', 'action': 'protect',"
                   " 'spi': 4098}"));
    hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1400));
    advance(1200);
    inject(LAN, udp4(.source = INSIDE ":1", .destination = "10.9.1.1:2", .size = 1400,
                     .fragment = DONT_FRAGMENT));
    turn();
    require(discard(LAN) == 1, "the sender was not told");
    expect_drop("local.too_big", 1);
    inject(LAN, udp4(.source = INSIDE ":1", .destination = "10.9.2.1:2", .size = 1400,
                     .fragment = DONT_FRAGMENT));
    take_one(WAN);
}

CASE(reloads) {
    start(tunnel(&out4, NULL, ""));
    hears(too_big(sent_for(of_length(1400, DONT_FRAGMENT)), 1400));
    apply(tunnel(&out4, NULL, ""));
    shows("'path_mtu':1400");
    apply(tunnel(&out4, &in4, ", 'df': 'set'")); /* another association in its place */
    shows("'path_mtu':1400");
    has_room(&out4, 1400);
    /* With the section all of it is forgotten. */
    apply(standard);
    apply(tunnel(&out4, NULL, ""));
    shows_not("path_mtu");
}

HARNESS_MAIN(.workers = 1)
