/*
 * ESP into the running router, and out of it. What is inside of packets for the router is sealed
 * here, by another implementation, so that the input gets past the check value: padding, trailers,
 * next headers and inner packets are then the fuzzer's. Clear packets on their way into a tunnel,
 * fragments of ESP, ICMP errors about it and whole frames are the rest.
 *
 * An input is a sequence of records: a control byte, a byte `which`, two bytes of length (less
 * significant first) and as many bytes of body, the last one as long as what is left.
 *
 *   control, bits 0-2  what is done: see enum kind
 *            bit 3     it arrives in several buffers, cut at 1 + 7 * the body's last byte
 *            bits 4-5  time that passes afterwards: none, 0.1 s, 1.2 s, 31 s
 *            bit 6     of what is sealed: the body is an inner packet, whose lengths and checksum
 *                      are put right, and padding and next header are; without it the body is all
 *                      that is encrypted
 *            bit 7     of what is sealed: IPv4 options in front of it in transport mode, padding
 *                      that hides its length in tunnel mode
 *   which,   bits 0-3  the association, or the policy for what leaves
 *            bits 4-5  sequence number: the next one, the last one again, one a little behind, one
 *                      far ahead
 *            bits 6-7  ECN of the outer header
 *
 * What is checked beside router.h: what the router has sealed can be opened by the other end, and
 * nothing leaves in the clear that a policy protects. Each input begins with new associations.
 */
#include "bytes.h"
#include "ipsec/ipsec.h"
#include "ipsec_network.h"
#include "router.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORDS_PER_INPUT = 48, RECORD_HEAD = 4, LENGTH_MAX = 3000, PLAIN_MAX = 2000 };

enum kind {
    SEALED,
    PATCHED,     /* sealed; then bytes of the frame are changed as the body's end says */
    FRAGMENTED,  /* sealed; in two pieces */
    RAW_WAN,     /* the body is a frame from outside, put right */
    RAW_LAN,     /* one from inside */
    CLEAR,       /* the body is the payload of a packet that a policy protects */
    ERROR_ABOUT, /* ICMP about the packet that the router sealed last */
    ECHO,        /* what was in that packet comes back */
};

#define SHA1 .authentication = "hmac-sha1-96", .authentication_key = KEY_128 "00112233"
#define SHA256 .authentication = "hmac-sha256-128", .authentication_key = KEY_256
#define NULL_CIPHER .algorithm = "null"
#define TO_ROUTER .source = PEER, .destination = ROUTER
#define TO_ROUTER6 .source = PEER6, .destination = ROUTER6
#define IN_UDP .source_port = 4500, .destination_port = 4500

/* A pair of associations: inbound as it stands here, outbound turned. */
static const struct pair {
    struct esp_sa in;
    unsigned window;
    uint64_t sequence; /* of both, so far */
} pairs[] = {
    {{TO_ROUTER, GCM}, 64, 0},
    {{TO_ROUTER, GCM, .esn = true}, 4096, 0xfffffff0},
    {{TO_ROUTER, NULL_CIPHER, SHA1}, 0, 0},
    {{TO_ROUTER, NULL_CIPHER, SHA256, .esn = true}, 128, 0xfffffffe},
    {{TO_ROUTER, GCM, IN_UDP}, 64, 0xfffffffc},
    {{TO_ROUTER6, GCM, .icv_length = 8}, 32, 0},
    {{TO_ROUTER6, NULL_CIPHER, SHA256, IN_UDP}, 64, 0},
    {{TO_ROUTER, .algorithm = "aes-cbc-128", .key = KEY_128, SHA1}, 1024, 0},
    {{TO_ROUTER, .algorithm = "chacha20-poly1305", .key = KEY_256 SALT}, 64, 0},
    {{TO_ROUTER6, .algorithm = "aes-ctr-128", .key = KEY_128 SALT, SHA1}, 64, 0},
    {{TO_ROUTER, .algorithm = "aes-gmac-128", .key = KEY_128 SALT}, 64, 0},
    /* Transport mode: outbound, a protocol each. */
    {{TO_ROUTER, GCM, .transport = true}, 64, 0},
    {{TO_ROUTER, NULL_CIPHER, SHA1, .transport = true, IN_UDP}, 0, 0},
    {{TO_ROUTER, NULL_CIPHER, SHA256, .transport = true, .esn = true}, 64, 0},
    {{TO_ROUTER6, GCM, .transport = true}, 64, 0},
    {{TO_ROUTER6, NULL_CIPHER, SHA1, .transport = true, IN_UDP}, 64, 0},
};
enum { PAIRS = sizeof(pairs) / sizeof(pairs[0]), FIRST_TRANSPORT = 11 };
/* What ties associations to policies. */
enum { TUNNEL = 1, TRANSPORT, OUTBOUND };

/* Outbound in transport mode: the protocol that its policy is about. */
static const uint8_t protocols[PAIRS] = {[11] = 6, [12] = 17, [13] = 1, [14] = 17, [15] = 6};

static uint64_t last_number[PAIRS];            /* sent to the router */
static bool used[PAIRS];                       /* one of the two, since they were made */
static uint8_t last_sealed[FUZZ_MTU_MAX + IP]; /* by the router */
static unsigned last_sealed_length, last_sealed_pair;

static struct esp_sa in_of(unsigned pair) {
    struct esp_sa sa = pairs[pair].in;

    sa.spi = SPI_IN + pair;
    return sa;
}

static struct esp_sa out_of(unsigned pair) {
    return turned(&pairs[pair].in, SPI_OUT + pair);
}

/* --- associations and policies --- */

static void remake(unsigned pair) {
    struct esp_sa in = in_of(pair), out = out_of(pair);
    unsigned request = in.transport ? TRANSPORT : TUNNEL;

    remove_sa(&in, IPSEC_IN);
    remove_sa(&out, IPSEC_OUT);
    add_sa(&in, IPSEC_IN, request, pairs[pair].window, pairs[pair].sequence);
    add_sa(&out, IPSEC_OUT, OUTBOUND + pair, 0, pairs[pair].sequence);
    last_number[pair] = pairs[pair].sequence;
    used[pair] = false;
}

static void remake_used(void) {
    for (unsigned i = 0; i < PAIRS; i++) {
        if (used[i])
            remake(i);
    }
    last_sealed_length = 0;
}

static const char *policy_json(const char *direction, const char *source, const char *destination,
                               const char *more) {
    return text("%s{'direction': '%s', 'source': '%s', 'destination': '%s', 'action': 'protect', "
                "%s}",
                ",", direction, source, destination, more);
}

static const char *policies(void) {
    const char *list = "{'direction': 'out', 'destination': '10.10.0.0/16', 'action': 'discard'}";

    for (unsigned i = 0; i < PAIRS; i++) {
        const char *with = text("'request': %u", OUTBOUND + i);

        if (i < FIRST_TRANSPORT) {
            list = text("%s%s%s", list,
                        policy_json("out", "192.168.1.0/24", text("10.9.%u.0/24", i), with),
                        policy_json("out", "2001:db8:1::/64", text("2001:db8:9:%x::/64", i), with));
        } else {
            bool ipv6 = strchr(pairs[i].in.source, ':');

            list = text("%s%s", list,
                        policy_json("out", ipv6 ? ROUTER6 : ROUTER, ipv6 ? PEER6 : PEER,
                                    text("'protocol': %u, %s", protocols[i], with)));
        }
    }
    return text(
        "%s%s%s%s%s", list,
        policy_json("in", "10.9.0.0/16", "192.168.1.0/24", text("'request': %u", TUNNEL)),
        policy_json("in", "2001:db8:9::/48", "2001:db8:1::/64", text("'request': %u", TUNNEL)),
        policy_json("in", PEER, ROUTER, text("'request': %u", TRANSPORT)),
        policy_json("in", PEER6, ROUTER6, text("'request': %u", TRANSPORT)));
}

static const char *configuration(void) {
    return with_ipsec_and(text("'policies': [%s]", policies()),
                          "'sessions': {'size': 4096, 'tcp_pickup': true},"
                          "'firewall': {'default': 'reject', 'rules': ["
                          "{'name': 'no-telnet', 'protocol': 'tcp', 'destination_port': 23,"
                          " 'action': 'reject'}, {'name': 'all', 'action': 'accept'}]}");
}

/* --- what leaves --- */

/* The pair whose outbound association has made this; PAIRS: none. */
static unsigned pair_of(const struct frame *frame, unsigned at) {
    const uint8_t *ip = frame->bytes + at;
    bool ipv6 = ip[0] >> 4 == 6;
    unsigned header = ipv6 ? 40 : (ip[0] & 15u) * 4;
    unsigned protocol = ip[ipv6 ? 6 : 9];
    uint32_t spi;

    if (protocol == 17 && frame->length >= at + header + 12 && get16(ip + header) == 4500)
        header += 8;
    else if (protocol != ESP_PROTOCOL)
        return PAIRS;
    if (frame->length < at + header + 4)
        return PAIRS;
    spi = get32(ip + header);
    return spi >= SPI_OUT && spi < SPI_OUT + PAIRS ? spi - SPI_OUT : PAIRS;
}

static bool is_fragment(const uint8_t *ip) {
    return ip[0] >> 4 == 4 && get16(ip + 6) & (MORE_FRAGMENTS | 0x1fff);
}

static void check_sealed(unsigned pair, const struct frame *frame) {
    const struct esp_sa sa = out_of(pair);
    struct esp_found found;
    const char *wrong = esp_unwrap(&sa, frame, 0, &found);

    if (wrong && sa.esn)
        wrong = esp_unwrap(&sa, frame, 1, &found);
    fuzz_check(!wrong, wrong, frame);
    used[pair] = true;
    last_sealed_pair = pair;
    last_sealed_length = frame->length;
    memcpy(last_sealed, frame->bytes, frame->length);
}

/* Between the ends of a tunnel: from inside to far, but for ESP, which is exempt. */
static bool is_protected(const uint8_t *ip) {
    static const uint8_t inside6[] = {0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0};
    static const uint8_t far6[] = {0x20, 1, 0x0d, 0xb8, 0, 9, 0};

    if (ip[0] >> 4 == 4)
        return ip[9] != ESP_PROTOCOL && memcmp(ip + 12, (const uint8_t[]){192, 168, 1}, 3) == 0 &&
               memcmp(ip + 16, (const uint8_t[]){10, 9}, 2) == 0 && ip[18] < FIRST_TRANSPORT;
    /* Without extension headers, which may end in ESP or neighbour discovery. */
    return (ip[6] == 6 || ip[6] == 17) && memcmp(ip + 8, inside6, sizeof(inside6)) == 0 &&
           memcmp(ip + 24, far6, sizeof(far6)) == 0 && ip[31] < FIRST_TRANSPORT;
}

static void has_left(enum place place, const struct frame *frame) {
    unsigned at = frame_ip_offset(frame), pair;
    const uint8_t *ip = frame->bytes + at;

    if (get16(ip - 2) == 0x0806)
        return;
    fuzz_check(!is_protected(ip), "left in the clear", frame);
    pair = pair_of(frame, at);
    if (place == WAN && pair < PAIRS && !is_fragment(ip) && frame->length <= sizeof(last_sealed))
        check_sealed(pair, frame);
}

/* --- what arrives --- */

struct record {
    uint8_t control, which;
    const uint8_t *body;
    unsigned length;
};

static unsigned last_octet(const struct record *record) {
    return record->length ? record->body[record->length - 1] : 0;
}

static void arrive(enum place place, const struct frame *frame, const struct record *record) {
    if (record->control & 8)
        inject_split(place, frame, 1 + last_octet(record) * 7u);
    else
        inject(place, frame);
}

static void put_host(const char *address, uint8_t *at) {
    struct ip_address parsed;

    if (ip_address_parse(address, &parsed) < 0)
        abort();
    memcpy(at, parsed.bytes, strchr(address, ':') ? 16 : 4);
}

/* A packet between two addresses, with the body behind its header, and maybe options. */
static struct frame *packet(const char *source, const char *destination, unsigned protocol,
                            const uint8_t *body, unsigned length, unsigned options) {
    bool ipv6 = strchr(source, ':');
    unsigned header = ipv6 ? 40 : 20 + options;
    struct frame *frame = frame_new(IP + header + length);
    uint8_t *ip = frame->bytes + IP;

    put16(ip - 2, ipv6 ? 0x86dd : 0x0800);
    ip[0] = (uint8_t)(ipv6 ? 0x60 : 0x40 | header / 4);
    ip[ipv6 ? 6 : 9] = (uint8_t)protocol;
    ip[ipv6 ? 7 : 8] = 64;
    put_host(source, ip + (ipv6 ? 8 : 12));
    put_host(destination, ip + (ipv6 ? 24 : 16));
    memset(ip + 20, 1, options); /* of no meaning */
    memcpy(ip + header, body, length);
    fuzz_repair(ANYWHERE, frame);
    return frame;
}

static uint64_t next_number(unsigned pair, unsigned how) {
    uint64_t last = last_number[pair], next = last + 1;

    if (how == 1)
        return last;
    if (how == 2)
        return last > 40 ? last - 40 : 1;
    if (how == 3)
        next += pairs[pair].in.esn ? 0xe0000000 : 2000;
    if (!pairs[pair].in.esn && next > UINT32_MAX)
        next = UINT32_MAX;
    last_number[pair] = next;
    return next;
}

/* In tunnel mode the body is the inner packet; in transport mode its payload. */
static struct frame *inner_of(const struct record *record, const struct esp_sa *sa, unsigned pair) {
    unsigned options = record->control & 128 && sa->transport && !strchr(sa->source, ':') ? 8 : 0;
    struct frame *inner;

    if (sa->transport || record->length < 20)
        return packet(sa->source, sa->destination, protocols[pair], record->body,
                      record->control & 64 ? record->length : 0, options);
    inner = frame_new(IP + record->length);
    put16(inner->bytes + 12, record->body[0] >> 4 == 6 ? 0x86dd : 0x0800);
    memcpy(inner->bytes + IP, record->body, record->length);
    fuzz_repair(ANYWHERE, inner);
    return inner;
}

static struct frame *sealed(const struct record *record) {
    unsigned pair = record->which % PAIRS;
    const struct esp_sa sa = in_of(pair);
    uint8_t whole[LENGTH_MAX + 16] = {0};
    /* Of all that is encrypted the end counts most: padding and next header. */
    unsigned length = (record->length + 15) & ~15u;
    struct esp_fields fields = {
        .sequence = next_number(pair, record->which >> 4 & 3),
        .tos = record->which >> 6,
        .tfc = record->control & 128 && !sa.transport ? 50 : 0,
    };

    used[pair] = true;
    fields.zero_sequence = fields.sequence == 0;
    if (!(record->control & 64)) {
        length = length ? length : 16;
        memcpy(whole, record->body, record->length);
        if (record->length >= 2)
            memmove(whole + length - 2, record->body + record->length - 2, 2);
        fields.encrypted = whole;
        fields.encrypted_length = length;
    }
    return esp_wrap(&sa, inner_of(record, &sa, pair), fields);
}

static void send_patched(const struct record *record) {
    struct frame *frame = sealed(record);

    for (unsigned i = 0; i + 2 < record->length && i < 8; i += 2) {
        const uint8_t *change = record->body + record->length - i - 2;

        frame->bytes[(IP + change[0]) % frame->length] ^= change[1];
    }
    if (last_octet(record) & 1)
        fuzz_repair(WAN, frame);
    arrive(WAN, frame, record);
}

static void send_fragmented(const struct record *record) {
    struct frame *frame = sealed(record);
    unsigned length = frame->length - IP - 20, cut = 8 + last_octet(record) % 200 / 8 * 8;

    if (frame->bytes[IP] != 0x45 || cut >= length) {
        arrive(WAN, frame, record);
        return;
    }
    arrive(WAN, fragment4(frame, 0, cut), record);
    arrive(WAN, fragment4(frame, cut, length - cut), record);
}

/* What would be taken for the router's own. */
static bool seems_sealed(const struct frame *frame) {
    return frame->length >= IP + 20 && pair_of(frame, IP) < PAIRS &&
           !is_fragment(frame->bytes + IP);
}

static void send_raw(enum place place, const struct record *record) {
    struct frame *frame = raw_bytes(record->body, record->length);

    fuzz_repair(place, frame);
    if (!seems_sealed(frame))
        arrive(place, frame, record);
}

/* From inside to far, or from the router's host to its peer. */
static void send_clear(const struct record *record) {
    unsigned pair = record->which % PAIRS;
    unsigned protocol = record->length ? record->body[0] : 17;
    bool ipv6 = record->which & 128;

    if (pair >= FIRST_TRANSPORT) {
        const struct esp_sa sa = out_of(pair);
        struct frame *frame =
            packet(sa.source, sa.destination, protocols[pair], record->body, record->length, 0);

        if (!seems_sealed(frame)) /* IKE is exempt */
            inject_from_host(frame);
    } else if (ipv6) {
        arrive(LAN,
               packet(INSIDE6, text("2001:db8:9:%x::1", pair), protocol, record->body,
                      record->length, 0),
               record);
    } else {
        struct frame *frame = packet(INSIDE, text("10.9.%u.1", pair), protocol, record->body,
                                     record->length, record->control & 64 ? 4 : 0);

        put16(frame->bytes + IP + 6, (record->which & 64 ? DONT_FRAGMENT : 0) |
                                         (record->control & 128 ? last_octet(record) : 0));
        fuzz_repair(LAN, frame);
        arrive(LAN, frame, record);
    }
}

static struct frame *last_frame(void) {
    return last_sealed_length ? raw_bytes(last_sealed, last_sealed_length) : NULL;
}

static void send_error(const struct record *record) {
    const struct frame *about = last_frame();
    unsigned type = record->length > 0 ? record->body[0] : 3;
    unsigned code = record->length > 1 ? record->body[1] : 4;
    uint32_t rest = record->length > 5 ? get32(record->body + 2) : 1000;

    if (!about)
        return;
    if (about->bytes[IP] >> 4 == 6)
        arrive(WAN,
               icmp6_error(.source = OUTSIDE6, .destination = ROUTER6, .type = type & 3,
                           .code = code, .rest = rest, .about = about, .quote = record->which),
               record);
    else
        arrive(WAN,
               icmp4_error(.source = OUTSIDE, .destination = ROUTER, .type = type, .code = code,
                           .rest = rest, .about = about, .quote = record->which),
               record);
}

static void swap(uint8_t *one, uint8_t *other, unsigned length) {
    for (unsigned i = 0; i < length; i++) {
        uint8_t octet = one[i];

        one[i] = other[i];
        other[i] = octet;
    }
}

static void send_echo(const struct record *record) {
    const struct frame *last = last_frame();
    unsigned pair = last_sealed_pair;
    struct esp_sa out = out_of(pair), in = in_of(pair);
    struct esp_found found;
    uint8_t *ip;

    if (!last || (esp_unwrap(&out, last, 0, &found) && esp_unwrap(&out, last, 1, &found)))
        return;
    ip = found.inner->bytes + IP;
    if (ip[0] >> 4 == 6)
        swap(ip + 8, ip + 24, 16);
    else
        swap(ip + 12, ip + 16, 4);
    used[pair] = true;
    arrive(WAN,
           esp(&in, found.inner, .sequence = next_number(pair, record->which >> 4 & 3),
               .tos = record->which >> 6),
           record);
}

static void one(const struct record *record) {
    switch ((enum kind)(record->control & 7)) {
    case SEALED:
        arrive(WAN, sealed(record), record);
        break;
    case PATCHED:
        send_patched(record);
        break;
    case FRAGMENTED:
        send_fragmented(record);
        break;
    case RAW_WAN:
        send_raw(WAN, record);
        break;
    case RAW_LAN:
        send_raw(LAN, record);
        break;
    case CLEAR:
        send_clear(record);
        break;
    case ERROR_ABOUT:
        send_error(record);
        break;
    case ECHO:
        send_echo(record);
        break;
    }
    fuzz_take_all(false);
    fuzz_pass(record->control >> 4 & 3);
    fuzz_take_all(false);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    fuzz_has_left = has_left;
    fuzz_start((*argv)[0], configuration());
    for (unsigned i = 0; i < PAIRS; i++)
        remake(i);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (unsigned count = 0; size > RECORD_HEAD && count < RECORDS_PER_INPUT; count++) {
        struct record record = {data[0], data[1], data + RECORD_HEAD,
                                data[2] | (unsigned)data[3] << 8};

        data += RECORD_HEAD;
        size -= RECORD_HEAD;
        record.length = record.length > LENGTH_MAX ? LENGTH_MAX : record.length;
        record.length = record.length > size ? (unsigned)size : record.length;
        one(&record);
        data += record.length;
        size -= record.length;
    }
    fuzz_take_all(false);
    remake_used();
    fuzz_end_input();
    return 0;
}
