/* IPsec under a random history: packets of all kinds both ways, replays, forgeries and rubbish,
 * against a plain model of what has to come out. Nothing may come out that was not sent so, nothing
 * twice, and no buffer may be lost. */
#include "ipsec_network.h"

enum { WINDOW = 128, NUMBERS = 1 << 17 };

/* What the peer has sent, and the router has taken. */
struct model {
    uint8_t seen[NUMBERS];
    unsigned highest;
};

static struct model model;

static bool is_new(const struct model *of, unsigned number) {
    return number > of->highest || (of->highest - number < WINDOW && !of->seen[number % NUMBERS]);
}

static void is_taken(struct model *of, unsigned number) {
    of->seen[number % NUMBERS] = 1;
    if (number > of->highest)
        of->highest = number;
}

/* Mostly the next ones, in any order; sometimes an old one, or one far ahead. */
static unsigned random_number(const struct model *of) {
    if (now_and_then(4))
        return 1 + draw(of->highest + 10);
    if (now_and_then(10))
        return of->highest + 1 + draw(300);
    return of->highest + 1 - (of->highest > 200 ? draw(200) : 0);
}

static struct frame *random_packet(bool out, unsigned longest) {
    const char *there = out ? INSIDE : FAR, *here = out ? FAR : INSIDE;
    const char *there6 = out ? INSIDE6 : FAR6, *here6 = out ? FAR6 : INSIDE6;
    unsigned size = 1 + (now_and_then(3) ? draw(longest) : draw(200));

    switch (draw(6)) {
    case 0:
        return tcp4(.source = text("%s:%u", there, 1 + draw(99)),
                    .destination = text("%s:80", here), .size = size, .tos = draw(64) << 2);
    case 1:
        return icmp4_echo(.source = there, .destination = here, .size = size);
    case 2:
        return udp6(.source = text("[%s]:%u", there6, 1 + draw(99)),
                    .destination = text("[%s]:80", here6), .size = size);
    case 3:
        return icmp6_echo(.source = there6, .destination = here6, .size = size);
    case 4:
        return ip4(.source = there, .destination = here, .protocol = 200, .size = size,
                   .ttl = 2 + draw(200), .options = now_and_then(4) ? "01010101" : NULL);
    default:
        return udp4(.source = text("%s:%u", there, 1 + draw(99)),
                    .destination = text("%s:%u", here, 1 + draw(99)), .size = size,
                    .fragment = now_and_then(2) ? DONT_FRAGMENT : 0, .id = draw(65536));
    }
}

static void inject_somehow(enum place place, const struct frame *frame, unsigned headers) {
    if (now_and_then(5))
        inject_split(place, frame, 1 + draw(frame->length));
    else if (now_and_then(5))
        inject_segments(place, frame, headers + draw(300));
    else
        inject(place, frame);
}

/* --- out --- */

static uint32_t sequence_out;

/* Each ESP packet can be opened, has the next number, and holds the packet or a piece of it. */
static void send_out(const struct esp_sa *sa, bool split) {
    const struct frame *sent = random_packet(true, 2500), *expected = hop(sent);
    struct frame *found;
    unsigned count = 0;
    bool whole = false;

    if (split)
        inject_segments(LAN, sent, 100 + draw(300));
    else
        inject(LAN, sent);
    while ((found = take(WAN)) != NULL) {
        struct esp_found inside;
        const char *wrong = esp_unwrap(sa, found, 0, &inside);

        require(!wrong, "an ESP packet cannot be opened: %s", wrong);
        require((uint32_t)inside.sequence == ++sequence_out, "number %lu, %u expected",
                (unsigned long)inside.sequence, sequence_out);
        count++;
        whole = inside.inner->length == expected->length;
        require(!whole || memcmp(inside.inner->bytes + IP, expected->bytes + IP,
                                 expected->length - IP) == 0,
                "another packet was inside");
        /* A piece has the packet's addresses and id. */
        require(whole || memcmp(inside.inner->bytes + IP + 12, expected->bytes + IP + 12, 8) == 0,
                "a piece of something else was inside");
    }
    require(sent->length - IP > esp_room(sa, 1500) || (count == 1 && whole),
            "a packet of %u bytes became %u", sent->length, count);
}

/* --- in --- */

enum fate { GENUINE, FORGED, SHORTENED };

/* Changes what is protected; an outer header that is changed as well is no longer ours to judge. */
static struct frame *spoil(const struct esp_sa *sa, const struct frame *frame, enum fate fate) {
    struct frame *other = copy(frame);
    unsigned at = esp_offset(sa);

    if (fate == FORGED) {
        for (unsigned flips = 1 + draw(3), last = 0; flips > 0; flips--) {
            unsigned bit = at * 8 + draw((frame->length - at) * 8);

            if (bit != last) /* not back again */
                other->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            last = bit;
        }
        return memcmp(other->bytes, frame->bytes, frame->length) == 0 ? spoil(sa, frame, fate)
                                                                      : other;
    }
    other = truncated(frame, at + draw(frame->length - at));
    return patch(other, IP + 2, text("%04x", other->length - IP));
}

static void send_in(const struct esp_sa *sa) {
    unsigned number = random_number(&model);
    const struct frame *inner = random_packet(false, 1300);
    bool dummy = now_and_then(30);
    struct frame *frame = esp(sa, inner, .sequence = number, .tfc = now_and_then(6) ? draw(60) : 0,
                              .padding = now_and_then(8) ? 16 * draw(8) : 0,
                              .next_header = dummy ? NO_NEXT_HEADER : 0, .id = draw(65536));
    enum fate fate = now_and_then(3) ? FORGED : now_and_then(12) ? SHORTENED : GENUINE;
    const bool expected = fate == GENUINE && is_new(&model, number);
    struct frame *found;

    if (fate != GENUINE)
        frame = spoil(sa, frame, fate);
    if (now_and_then(4))
        inject_segments(WAN, frame, 150 + draw(300));
    else
        inject(WAN, frame);
    if (expected)
        is_taken(&model, number);
    found = take(LAN);
    require((found != NULL) == (expected && !dummy), "number %u, highest %u: %s", number,
            model.highest, found ? "a packet came out" : "it did not come out");
    require(!found || (found->length == inner->length &&
                       memcmp(found->bytes + IP, hop(inner)->bytes + IP, inner->length - IP) == 0),
            "another packet came out");
}

/* Bits of the whole frame, outer header included, in buffers of any length: only no crash, and
 * nothing that was not sent. */
static void send_rubbish(const struct esp_sa *sa) {
    const struct frame *inner = random_packet(false, 600);
    struct frame *frame = esp(sa, inner, .sequence = model.highest + 1 + draw(50));
    struct frame *found;

    for (unsigned flips = 1 + draw(6); flips > 0; flips--) {
        unsigned bit = IP * 8 + draw((frame->length - IP) * 8);

        frame->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    if (now_and_then(2))
        frame = patch(frame, IP + 8, "40"); /* with a right checksum */
    inject_somehow(WAN, frame, 20);
    found = take(LAN);
    /* What is not authenticated may differ, as the TTL does; nothing that was inside. */
    require(!found || found->length < IP4_PAYLOAD || found->bytes[IP + 9] == ESP_PROTOCOL ||
                memcmp(found->bytes + IP4_PAYLOAD, inner->bytes + IP4_PAYLOAD,
                       inner->length - IP4_PAYLOAD) == 0,
            "a changed packet came out");
    if (found)
        for (unsigned number = model.highest + 1; number <= model.highest + 51; number++)
            model.seen[number % NUMBERS] = 0;
    discard(ANYWHERE);
}

static void history(const struct esp_sa *out, const struct esp_sa *in, uint32_t seed) {
    enum { STEPS = 3000 };

    draw_from(seed);
    memset(&model, 0, sizeof(model));
    sequence_out = 0;
    start(with_sas(
        both(sa_json(out, "out", ""), sa_json(in, "in", text(", 'replay_window': %u", WINDOW))),
        policies_of(out->spi, in->spi)));
    for (unsigned i = 1; i <= STEPS; i++) {
        if (now_and_then(3))
            send_out(out, now_and_then(4));
        else
            send_in(in);
        discard(ANYWHERE); /* errors about packets that are too long, or no ESP in UDP */
        if (i % 64 == 0)
            frames_free();
    }
    for (unsigned i = 1; i <= STEPS; i++) {
        send_rubbish(in);
        if (i % 64 == 0)
            frames_free();
    }
    discard(ANYWHERE);
    apply("{}");
    forget_drops();
}

#define GCM_SA .algorithm = "aes-gcm-256", .key = KEY_256 SALT
#define CBC_SA                                                                       \
    .algorithm = "aes-cbc-256", .key = KEY_256, .authentication = "hmac-sha256-128", \
    .authentication_key = KEY_256
#define CTR_SA                                                                            \
    .algorithm = "aes-ctr-128", .key = KEY_128 SALT, .authentication = "hmac-sha512-256", \
    .authentication_key = KEY_256 KEY_256
#define CHACHA_SA .algorithm = "chacha20-poly1305", .key = KEY_256 SALT
#define NULL_SA \
    .algorithm = "null", .authentication = "hmac-sha384-192", .authentication_key = KEY_256 KEY_128

#define HISTORY(name, seed, ...)                                                 \
    CASE(name) {                                                                 \
        const struct esp_sa out = {                                              \
            .spi = SPI_OUT, .source = ROUTER, .destination = PEER, __VA_ARGS__}; \
        const struct esp_sa in = turned(&out, SPI_IN);                           \
                                                                                 \
        history(&out, &in, (seed));                                              \
    }

HISTORY(history_of_gcm, 1, GCM_SA)
HISTORY(history_of_gcm_in_udp, 2, GCM_SA, .source_port = 4500, .destination_port = 4500)
HISTORY(history_of_gcm_with_extended_numbers, 3, GCM_SA, .esn = true)
HISTORY(history_of_cbc, 4, CBC_SA)
HISTORY(history_of_ctr_with_extended_numbers, 5, CTR_SA, .esn = true)
HISTORY(history_of_chacha, 6, CHACHA_SA)
HISTORY(history_of_null, 7, NULL_SA)

/* Inner packets of random bytes behind right check values: what a peer gone mad would send. */
CASE(random_insides) {
    struct frame *found;

    draw_from(99);
    start(tunnel(&out4, &in4, ""));
    for (unsigned i = 1; i < 20000; i++) {
        unsigned length = draw(120);
        char *hex = room_for(2 * length + 1), *at = hex;

        for (unsigned k = 0; k < length; k++)
            append(&at, "%02x", k == 0 && draw(3) ? (draw(2) ? 0x45 : 0x60) : draw(256));
        *at = '\0';
        inject_somehow(
            WAN,
            esp(&in4, from_far(), .payload = hex, .sequence = i, .next_header = draw(2) ? 4 : 41),
            60);
        while ((found = take(LAN)) != NULL)
            ;
        if (i % 64 == 0)
            frames_free();
    }
    discard(ANYWHERE);
    forget_drops();
}

/* --- bursts for several associations --- */

/* Those of one network each, 10.9.N.0/24 and 2001:db8:9:N::/64, of every kind. */
enum { SEVERAL = 7, BURST = 64, BURSTS = 400 };

static struct {
    struct esp_sa out, in;
    uint64_t sequence; /* sent last */
    unsigned serial;   /* of the last packet found */
    unsigned sent, found;
    struct model model;
    const struct frame *expected[BURST];
    unsigned first, count;
} several[SEVERAL];

static void start_several(void) {
    const char *sas = "", *policies = "";

    for (unsigned n = 0; n < SEVERAL; n++) {
        struct esp_sa out = esp_kind(&out4, &out6, n % ESP_KINDS);

        if (n % 3 == 2) {
            out.algorithm = "aes-cbc-256";
            out.key = KEY_256;
            out.authentication = "hmac-sha256-128";
            out.authentication_key = KEY_256;
        }
        out.spi = SPI_OUT + n;
        memset(&several[n], 0, sizeof(several[n]));
        several[n].out = out;
        several[n].in = turned(&out, SPI_IN + n);
        sas = text("%s%s%s, %s", sas, n ? ", " : "", sa_json(&several[n].out, "out", ""),
                   sa_json(&several[n].in, "in", text(", 'replay_window': %u", WINDOW)));
        policies = text("%s%s{'direction': 'out', 'destination': '10.9.%u.0/24', 'action':"
                        " 'protect', 'spi': %u}, {'direction': 'out', 'destination':"
                        " '2001:db8:9:%u::/64', 'action': 'protect', 'spi': %u},"
                        "{'direction': 'in', 'source': '10.9.%u.0/24', 'action': 'protect', 'spi':"
                        " %u}, {'direction': 'in', 'source': '2001:db8:9:%u::/64', 'action':"
                        " 'protect', 'spi': %u}",
                        policies, n ? ", " : "", n, SPI_OUT + n, n, SPI_OUT + n, n, SPI_IN + n, n,
                        SPI_IN + n);
    }
    start(with_sas(sas, policies));
}

/* Port 1 to 65535 of the inside is the packet's serial number. */
static struct frame *numbered(unsigned n, bool out, bool ipv6, unsigned serial, unsigned size) {
    const char *inside = text(ipv6 ? "[" INSIDE6 "]:%u" : INSIDE ":%u", serial);
    const char *far = text(ipv6 ? "[2001:db8:9:%u::1]:9" : "10.9.%u.1:9", n);

    return ipv6
               ? udp6(.source = out ? inside : far, .destination = out ? far : inside, .size = size)
               : udp4(.source = out ? inside : far, .destination = out ? far : inside, .size = size,
                      .id = serial);
}

/* Each association's packets in the order in which they came, with numbers in the order in which
 * they leave. */
static void found_outside(const struct frame *frame) {
    struct esp_found found;
    unsigned n = 0;
    const uint8_t *inner;
    bool ipv6;

    while (n < SEVERAL &&
           esp_unwrap(&several[n].out, frame, (uint32_t)(several[n].sequence >> 32), &found))
        n++;
    require(n < SEVERAL, "a packet of no association");
    require(found.sequence == ++several[n].sequence, "association %u sent number %lu before %lu", n,
            (unsigned long)found.sequence, (unsigned long)several[n].sequence);
    inner = found.inner->bytes + IP;
    ipv6 = inner[0] >> 4 == 6;
    if (!ipv6 && ((inner[6] & 0x1f) != 0 || inner[7] != 0))
        return; /* a later fragment */
    inner += ipv6 ? 40 : 20;
    require((unsigned)(inner[0] << 8 | inner[1]) > several[n].serial,
            "association %u sent packet %u behind %u", n, inner[0] << 8 | inner[1],
            several[n].serial);
    several[n].serial = (unsigned)(inner[0] << 8 | inner[1]);
    several[n].found++;
}

CASE(bursts_out) {
    unsigned serial = 0;
    const struct frame *frame;

    draw_from(4711);
    start_several();
    for (unsigned round = 0; round < BURSTS; round++) {
        /* In some rounds only usual packets, in some of one association, in some of all kinds. */
        unsigned one = now_and_then(4) ? draw(SEVERAL) : SEVERAL, unusual = draw(3);

        for (unsigned i = 0; i < BURST; i++) {
            unsigned n = one < SEVERAL ? one : draw(SEVERAL);
            bool ipv6 = unusual > 0 && now_and_then(4), strange = unusual > 1 && now_and_then(8);
            unsigned size = strange && !ipv6 ? 1 + draw(2900) : 1 + draw(600);
            const struct frame *packet = numbered(n, true, ipv6, ++serial, size);

            if (strange && now_and_then(2))
                inject_segments(LAN, packet, 100 + draw(300));
            else
                inject(LAN, packet);
            several[n].sent++;
        }
        while ((frame = take(WAN)) != NULL)
            found_outside(frame);
        frames_free();
    }
    for (unsigned n = 0; n < SEVERAL; n++)
        require(several[n].found == several[n].sent, "association %u: %u packets of %u", n,
                several[n].found, several[n].sent);
    expect_nothing(ANYWHERE);
    expect_no_drops();
}

static void found_inside(const struct frame *frame) {
    const bool ipv6 = is_ipv6(frame);
    const unsigned n = ipv6 ? frame->bytes[IP + 8 + 7] : frame->bytes[IP + 12 + 2];
    const struct frame *expected;

    require(n < SEVERAL && several[n].first < several[n].count, "a packet that nobody sent");
    expected = several[n].expected[several[n].first++];
    require(frame->length == expected->length &&
                memcmp(frame->bytes + IP, expected->bytes + IP, frame->length - IP) == 0,
            "association %u: another packet than the next one came out", n);
}

/* What is genuine and new comes out, in the order in which it came in, whatever lies between. */
CASE(bursts_in) {
    unsigned serial = 0;
    const struct frame *found;

    draw_from(815);
    start_several();
    for (unsigned round = 0; round < BURSTS; round++) {
        unsigned one = now_and_then(4) ? draw(SEVERAL) : SEVERAL, unusual = draw(3);

        for (unsigned n = 0; n < SEVERAL; n++)
            several[n].first = several[n].count = 0;
        for (unsigned i = 0; i < BURST; i++) {
            const unsigned n = one < SEVERAL ? one : draw(SEVERAL);
            const struct esp_sa *sa = &several[n].in;
            struct model *of = &several[n].model;
            bool ipv6 = unusual > 0 && now_and_then(4), strange = unusual > 1 && now_and_then(8);
            unsigned number = unusual ? random_number(of) : of->highest + 1;
            const struct frame *inner =
                numbered(n, false, ipv6, ++serial % UINT16_MAX, 1 + draw(600));
            struct frame *frame = esp(sa, inner, .sequence = number, .tfc = strange ? draw(60) : 0);

            if (unusual && now_and_then(10))
                frame = spoil(sa, frame, draw(2) ? FORGED : SHORTENED);
            else if (is_new(of, number)) {
                is_taken(of, number);
                several[n].expected[several[n].count++] = hop(inner);
            }
            if (strange && now_and_then(2))
                inject_segments(WAN, frame, 150 + draw(300));
            else
                inject(WAN, frame);
        }
        while ((found = take(LAN)) != NULL)
            found_inside(found);
        for (unsigned n = 0; n < SEVERAL; n++)
            require(several[n].first == several[n].count, "association %u: %u packets of %u", n,
                    several[n].first, several[n].count);
        discard(ANYWHERE); /* errors about ports where no ESP is */
        frames_free();
    }
    forget_drops();
}

HARNESS_MAIN()
