/* Frames: building, changing, comparing. */
#include "frame.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

enum { TCP = 6, UDP = 17, ICMP = 1, ICMP6 = 58, IP4_HEADER = 20, IP6_HEADER = 40 };

static struct frame *frames;

__attribute__((noreturn)) static void mistake(const char *what, const char *text) {
    fprintf(stderr, "mistake in a case: %s `%s`\n", what, text ? text : "(none)");
    abort();
}

struct frame *frame_new(unsigned length) {
    struct frame *frame = calloc(1, sizeof(*frame) + length);

    if (!frame)
        mistake("no memory for a frame", "");
    frame->length = length;
    frame->next = frames;
    frames = frame;
    return frame;
}

void frames_free(void) {
    while (frames) {
        struct frame *next = frames->next;

        free(frames);
        frames = next;
    }
}

/* --- numbers and text --- */

uint32_t sum16(uint32_t sum, const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        sum += i % 2 == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
    return sum;
}

uint16_t fold16(uint32_t sum) {
    while (sum > 0xffff)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static int digit(char c) {
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* Writes at most `room` bytes; returns their number. */
static unsigned parse_hex(const char *text, uint8_t *bytes, unsigned room) {
    unsigned count = 0;

    for (const char *c = text; *c;) {
        if (isspace((unsigned char)*c)) {
            c++;
            continue;
        }
        if (!isxdigit((unsigned char)c[0]) || !isxdigit((unsigned char)c[1]) || count == room)
            mistake("hexadecimal bytes", text);
        bytes[count++] = (uint8_t)(digit(c[0]) << 4 | digit(c[1]));
        c += 2;
    }
    return count;
}

void parse_mac(const char *text, uint8_t mac[6]) {
    unsigned v[6];

    if (!text ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5]) != 6)
        mistake("MAC address", text);
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)v[i];
}

/* "192.0.2.1:53"; returns the port, 0 if there is none. */
static unsigned parse_ip4(const char *text, uint8_t bytes[4]) {
    char address[64];
    const char *colon = text ? strchr(text, ':') : NULL;

    snprintf(address, sizeof(address), "%.*s", (int)(colon ? colon - text : 63), text ? text : "");
    if (inet_pton(AF_INET, address, bytes) != 1)
        mistake("IPv4 address", text);
    return colon ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
}

/* "2001:db8::1" or "[2001:db8::1]:53". */
static unsigned parse_ip6(const char *text, uint8_t bytes[16]) {
    char address[80];
    const char *end = text && text[0] == '[' ? strchr(text, ']') : NULL;

    snprintf(address, sizeof(address), "%.*s", (int)(end ? end - text - 1 : 79),
             end    ? text + 1
             : text ? text
                    : "");
    if (inet_pton(AF_INET6, address, bytes) != 1)
        mistake("IPv6 address", text);
    return end && end[1] == ':' ? (unsigned)strtoul(end + 2, NULL, 10) : 0;
}

const char *link_local_of(const char *mac_text) {
    uint8_t mac[6], address[16] = {0xfe, 0x80};
    /* Frames are the memory that lives until the case ends. */
    char *text = (char *)frame_new(INET6_ADDRSTRLEN)->bytes;

    parse_mac(mac_text, mac);
    memcpy(address + 8, (uint8_t[]){mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]},
           8);
    inet_ntop(AF_INET6, address, text, INET6_ADDRSTRLEN);
    return text;
}

/* --- payloads --- */

static unsigned payload_length(const char *payload, unsigned size) {
    return payload ? (unsigned)strlen(payload) : size ? size : 7;
}

static void fill_payload(uint8_t *at, const char *payload, unsigned length) {
    if (payload) {
        memcpy(at, payload, length);
        return;
    }
    for (unsigned i = 0; i < length; i++)
        at[i] = (uint8_t)(i * 7 + i / 256 + 1);
}

/* --- IPv4 --- */

static void set_ip4_checksum(uint8_t *ip) {
    unsigned length = (ip[0] & 15u) * 4;

    put16(ip + 10, 0);
    put16(ip + 10, (uint16_t)~fold16(sum16(0, ip, length)));
}

/* The frame with its IPv4 header, and room for `length` bytes behind; *at is where they go. */
static struct frame *start_ip4(const struct ipv4 *f, unsigned protocol, unsigned length,
                               uint8_t **at) {
    uint8_t options[40] = {0};
    unsigned option_length = f->options ? parse_hex(f->options, options, sizeof(options)) : 0;
    unsigned header = IP4_HEADER + (option_length + 3) / 4 * 4;
    struct frame *frame = frame_new(IP + header + length);
    uint8_t *ip = frame->bytes + IP;

    put16(frame->bytes + 12, 0x0800);
    ip[0] = (uint8_t)(4 << 4 | header / 4);
    ip[1] = (uint8_t)f->tos;
    put16(ip + 2, header + length);
    put16(ip + 4, f->id);
    put16(ip + 6, f->fragment);
    ip[8] = (uint8_t)(f->ttl ? f->ttl : 64);
    ip[9] = (uint8_t)protocol;
    parse_ip4(f->source, ip + 12);
    parse_ip4(f->destination, ip + 16);
    memcpy(ip + IP4_HEADER, options, header - IP4_HEADER);
    set_ip4_checksum(ip);
    *at = ip + header;
    return frame;
}

static uint16_t transport_checksum4(const uint8_t *ip, const uint8_t *from, unsigned length) {
    uint32_t sum = sum16(length + ip[9], ip + 12, 8);

    return (uint16_t)~fold16(sum16(sum, from, length));
}

struct frame *frame_ip4(struct ipv4 f) {
    unsigned length = payload_length(f.payload, f.size);
    uint8_t *at;
    struct frame *frame = start_ip4(&f, f.protocol, length, &at);

    fill_payload(at, f.payload, length);
    return frame;
}

static void put_udp(uint8_t *at, unsigned source, unsigned destination, unsigned length) {
    put16(at, source);
    put16(at + 2, destination);
    put16(at + 4, length);
}

static void put_tcp(uint8_t *at, unsigned source, unsigned destination, unsigned sequence,
                    unsigned flags) {
    put16(at, source);
    put16(at + 2, destination);
    put32(at + 4, sequence);
    at[12] = 5 << 4;
    at[13] = (uint8_t)flags;
    put16(at + 14, 8192);
}

struct frame *frame_udp4(struct ipv4 f) {
    unsigned length = payload_length(f.payload, f.size);
    uint8_t *at, address[4];
    struct frame *frame = start_ip4(&f, UDP, 8 + length, &at);
    uint16_t checksum;

    put_udp(at, parse_ip4(f.source, address), parse_ip4(f.destination, address), 8 + length);
    fill_payload(at + 8, f.payload, length);
    checksum = transport_checksum4(frame->bytes + IP, at, 8 + length);
    put16(at + 6, checksum ? checksum : 0xffff);
    return frame;
}

struct frame *frame_tcp4(struct ipv4 f) {
    unsigned length = payload_length(f.payload, f.size);
    uint8_t *at, address[4];
    struct frame *frame = start_ip4(&f, TCP, 20 + length, &at);

    put_tcp(at, parse_ip4(f.source, address), parse_ip4(f.destination, address), f.sequence,
            f.tcp_flags);
    fill_payload(at + 20, f.payload, length);
    put16(at + 16, transport_checksum4(frame->bytes + IP, at, 20 + length));
    return frame;
}

struct frame *frame_icmp4(struct ipv4 f) {
    unsigned length = payload_length(f.payload, f.size);
    uint8_t *at;
    struct frame *frame = start_ip4(&f, ICMP, 8 + length, &at);

    at[0] = (uint8_t)f.type;
    at[1] = (uint8_t)f.code;
    put32(at + 4, f.rest);
    if (f.identifier || f.sequence) {
        put16(at + 4, f.identifier);
        put16(at + 6, f.sequence);
    }
    fill_payload(at + 8, f.payload, length);
    put16(at + 2, (uint16_t)~fold16(sum16(0, at, 8 + length)));
    return frame;
}

/* How much of the quoted packet fits. */
static unsigned quote_length(const struct frame *about, unsigned quote, unsigned most) {
    unsigned there = about->length - frame_ip_offset(about);

    if (quote == 0)
        quote = most;
    return there < quote ? there : quote;
}

/* Bytes behind an error's header that has an extension; what is between is zero. */
static unsigned with_extension(const char *hex, unsigned at, uint8_t *bytes, size_t room) {
    return at + parse_hex(hex, bytes, room);
}

struct frame *frame_icmp4_error(struct ipv4 f) {
    unsigned quoted = quote_length(f.about, f.quote, 576 - IP4_HEADER - 8), length = quoted;
    uint8_t *at, extension[2000];
    struct frame *frame;

    f.tos = f.tos ? f.tos : 0xc0;
    if (f.extension)
        length = with_extension(f.extension, f.extension_at, extension, sizeof(extension));
    frame = start_ip4(&f, ICMP, 8 + length, &at);
    at[0] = (uint8_t)f.type;
    at[1] = (uint8_t)f.code;
    put32(at + 4, f.rest);
    memcpy(at + 8, f.about->bytes + frame_ip_offset(f.about), quoted);
    if (f.extension) {
        at[5] = (uint8_t)(f.extension_at / 4);
        memcpy(at + 8 + f.extension_at, extension, length - f.extension_at);
    }
    put16(at + 2, (uint16_t)~fold16(sum16(0, at, 8 + length)));
    return frame;
}

/* --- IPv6 --- */

static unsigned extension_length(unsigned type, const uint8_t *header) {
    return type == 44 ? 8 : type == 51 ? (header[1] + 2u) * 4 : (header[1] + 1u) * 8;
}

static struct frame *start_ip6(const struct ipv6 *f, unsigned protocol, unsigned length,
                               uint8_t **at) {
    uint8_t extensions[2000] = {0};
    unsigned extra = f->extensions ? parse_hex(f->extensions, extensions, sizeof(extensions)) : 0;
    struct frame *frame = frame_new(IP + IP6_HEADER + extra + length);
    uint8_t *ip = frame->bytes + IP;
    unsigned type = f->first;

    put16(frame->bytes + 12, 0x86dd);
    put32(ip, 6u << 28 | f->traffic_class << 20 | f->flow_label);
    put16(ip + 4, extra + length);
    ip[6] = (uint8_t)(extra ? f->first : protocol);
    ip[7] = (uint8_t)(f->hop_limit ? f->hop_limit : 64);
    parse_ip6(f->source, ip + 8);
    parse_ip6(f->destination, ip + 24);
    memcpy(ip + IP6_HEADER, extensions, extra);
    /* The last extension header names the payload. */
    for (unsigned from = 0; from < extra;) {
        uint8_t *header = ip + IP6_HEADER + from;
        unsigned step = extension_length(type, header);

        if (from + step >= extra)
            header[0] = (uint8_t)protocol;
        type = header[0];
        from += step;
    }
    *at = ip + IP6_HEADER + extra;
    return frame;
}

static uint16_t transport_checksum6(const uint8_t *ip, unsigned protocol, const uint8_t *from,
                                    unsigned length) {
    uint32_t sum = sum16(length + protocol, ip + 8, 32);

    return (uint16_t)~fold16(sum16(sum, from, length));
}

struct frame *frame_ip6(struct ipv6 f) {
    unsigned length = payload_length(f.payload, f.size);
    uint8_t *at;
    struct frame *frame = start_ip6(&f, f.protocol, length, &at);

    fill_payload(at, f.payload, length);
    return frame;
}

struct frame *frame_udp6(struct ipv6 f) {
    unsigned length = payload_length(f.payload, f.size);
    uint8_t *at, address[16];
    struct frame *frame = start_ip6(&f, UDP, 8 + length, &at);
    uint16_t checksum;

    put_udp(at, parse_ip6(f.source, address), parse_ip6(f.destination, address), 8 + length);
    fill_payload(at + 8, f.payload, length);
    checksum = transport_checksum6(frame->bytes + IP, UDP, at, 8 + length);
    put16(at + 6, checksum ? checksum : 0xffff);
    return frame;
}

struct frame *frame_tcp6(struct ipv6 f) {
    unsigned length = payload_length(f.payload, f.size);
    uint8_t *at, address[16];
    struct frame *frame = start_ip6(&f, TCP, 20 + length, &at);

    put_tcp(at, parse_ip6(f.source, address), parse_ip6(f.destination, address), f.sequence,
            f.tcp_flags);
    fill_payload(at + 20, f.payload, length);
    put16(at + 16, transport_checksum6(frame->bytes + IP, TCP, at, 20 + length));
    return frame;
}

struct frame *frame_icmp6(struct ipv6 f) {
    unsigned length = payload_length(f.payload, f.size);
    uint8_t *at;
    struct frame *frame = start_ip6(&f, ICMP6, 8 + length, &at);

    at[0] = (uint8_t)f.type;
    at[1] = (uint8_t)f.code;
    put32(at + 4, f.rest);
    if (f.identifier || f.sequence) {
        put16(at + 4, f.identifier);
        put16(at + 6, f.sequence);
    }
    fill_payload(at + 8, f.payload, length);
    put16(at + 2, transport_checksum6(frame->bytes + IP, ICMP6, at, 8 + length));
    return frame;
}

struct frame *frame_icmp6_error(struct ipv6 f) {
    unsigned quoted = quote_length(f.about, f.quote, 1280 - IP6_HEADER - 8), length = quoted;
    uint8_t *at, extension[2000];
    struct frame *frame;

    if (f.extension)
        length = with_extension(f.extension, f.extension_at, extension, sizeof(extension));
    frame = start_ip6(&f, ICMP6, 8 + length, &at);
    at[0] = (uint8_t)f.type;
    at[1] = (uint8_t)f.code;
    put32(at + 4, f.rest);
    memcpy(at + 8, f.about->bytes + frame_ip_offset(f.about), quoted);
    if (f.extension) {
        at[4] = (uint8_t)(f.extension_at / 8);
        memcpy(at + 8 + f.extension_at, extension, length - f.extension_at);
    }
    put16(at + 2, transport_checksum6(frame->bytes + IP, ICMP6, at, 8 + length));
    return frame;
}

/* --- ARP and neighbour discovery --- */

struct frame *frame_arp(unsigned operation, struct arp f) {
    struct frame *frame = frame_new(60);
    uint8_t *arp = frame->bytes + 14;
    const char *to = f.to ? f.to : operation == 1 ? "ff:ff:ff:ff:ff:ff" : f.target_mac;

    parse_mac(to, frame->bytes);
    parse_mac(f.sender_mac, frame->bytes + 6);
    frame->addressed = true;
    put16(frame->bytes + 12, 0x0806);
    put16(arp, 1);
    put16(arp + 2, 0x0800);
    arp[4] = 6;
    arp[5] = 4;
    put16(arp + 6, operation);
    parse_mac(f.sender_mac, arp + 8);
    parse_ip4(f.sender, arp + 14);
    if (f.target_mac)
        parse_mac(f.target_mac, arp + 18);
    parse_ip4(f.target, arp + 24);
    return frame;
}

static uint8_t *put_link_option(uint8_t *at, uint8_t type, const char *mac) {
    if (!mac)
        return at;
    at[0] = type;
    at[1] = 1;
    parse_mac(mac, at + 2);
    return at + 8;
}

struct frame *frame_nd(unsigned type, struct nd f) {
    unsigned header = type == 133 ? 8 : 24;
    unsigned length =
        header + (f.source_link ? 8 : 0) + (f.target_link ? 8 : 0) + (f.nonce ? 8 : 0);
    uint8_t target[16] = {0}, *at;
    char group[INET6_ADDRSTRLEN];
    struct ipv6 outer = {.source = f.source,
                         .destination = f.destination,
                         .hop_limit = f.hop_limit ? f.hop_limit : 255};
    struct frame *frame;

    if (f.target)
        parse_ip6(f.target, target);
    if (!f.destination) {
        snprintf(group, sizeof(group), "ff02::1:ff%02x:%02x%02x", target[13], target[14],
                 target[15]);
        outer.destination = group;
    }
    frame = start_ip6(&outer, ICMP6, length, &at);

    uint8_t *end = at + header;

    at[0] = (uint8_t)type;
    at[4] = (uint8_t)f.flags;
    if (type != 133)
        memcpy(at + 8, target, 16);
    end = put_link_option(end, 1, f.source_link);
    end = put_link_option(end, 2, f.target_link);
    if (f.nonce) {
        end[0] = 14;
        end[1] = 1;
        parse_hex(f.nonce, end + 2, 6);
    }
    put16(at + 2, transport_checksum6(frame->bytes + IP, ICMP6, at, length));
    return frame;
}

/* --- raw --- */

struct frame *raw_bytes(const void *bytes, unsigned length) {
    struct frame *frame = frame_new(length);

    memcpy(frame->bytes, bytes, length);
    frame->addressed = true;
    return frame;
}

struct frame *raw(const char *hex) {
    static uint8_t bytes[FRAME_MAX];

    return raw_bytes(bytes, parse_hex(hex, bytes, sizeof(bytes)));
}

/* --- changed copies --- */

static struct frame *resized(const struct frame *frame, unsigned length) {
    struct frame *other = frame_new(length);

    memcpy(other->bytes, frame->bytes, frame->length < length ? frame->length : length);
    other->addressed = frame->addressed;
    return other;
}

struct frame *copy(const struct frame *frame) {
    return resized(frame, frame->length);
}

struct frame *ether(const struct frame *frame, const char *destination, const char *source) {
    struct frame *other = copy(frame);

    parse_mac(destination, other->bytes);
    parse_mac(source, other->bytes + 6);
    other->addressed = true;
    return other;
}

struct frame *tagged(unsigned tpid, unsigned tci, const struct frame *frame) {
    struct frame *other = frame_new(frame->length + 4);

    memcpy(other->bytes, frame->bytes, 12);
    put16(other->bytes + 12, tpid);
    put16(other->bytes + 14, tci);
    memcpy(other->bytes + 16, frame->bytes + 12, frame->length - 12);
    other->addressed = frame->addressed;
    return other;
}

struct frame *vlan(unsigned tci, const struct frame *frame) {
    return tagged(0x8100, tci, frame);
}

struct frame *padded(const struct frame *frame, unsigned length) {
    return resized(frame, length > frame->length ? length : frame->length);
}

struct frame *truncated(const struct frame *frame, unsigned length) {
    return resized(frame, length < frame->length ? length : frame->length);
}

static bool is_ip4(const struct frame *frame) {
    unsigned at = frame_ip_offset(frame);

    return get16(frame->bytes + at - 2) == 0x0800 && frame->length >= at + IP4_HEADER &&
           frame->length >= at + (frame->bytes[at] & 15u) * 4;
}

struct frame *hop(const struct frame *frame) {
    struct frame *other = copy(frame);
    unsigned at = frame_ip_offset(frame);

    if (is_ip4(other)) {
        other->bytes[at + 8]--;
        set_ip4_checksum(other->bytes + at);
    } else {
        other->bytes[at + 7]--;
    }
    return other;
}

struct frame *poke(const struct frame *frame, unsigned offset, const char *hex) {
    struct frame *other = copy(frame);

    if (offset > other->length)
        mistake("an offset behind the frame, for", hex);
    parse_hex(hex, other->bytes + offset, other->length - offset);
    return other;
}

struct frame *patch(const struct frame *frame, unsigned offset, const char *hex) {
    struct frame *other = poke(frame, offset, hex);

    if (is_ip4(other))
        set_ip4_checksum(other->bytes + frame_ip_offset(other));
    return other;
}

/* RFC 791: only options whose type has the high bit set are in all fragments. */
static unsigned copied_options(const uint8_t *options, unsigned length, uint8_t *out) {
    unsigned count = 0;

    for (unsigned at = 0; at < length && options[at] != 0;) {
        unsigned step = options[at] == 1 ? 1 : options[at + 1];

        if (options[at] & 0x80) {
            memcpy(out + count, options + at, step);
            count += step;
        }
        at += step;
    }
    return (count + 3) / 4 * 4;
}

struct frame *fragment4(const struct frame *whole, unsigned offset, unsigned length) {
    const uint8_t *ip = whole->bytes + IP;
    unsigned header = (ip[0] & 15u) * 4, payload = get16(ip + 2) - header;
    unsigned field = get16(ip + 6);
    uint8_t options[40] = {0};
    unsigned option_length = header - IP4_HEADER;

    memcpy(options, ip + IP4_HEADER, option_length);
    if (offset > 0) {
        memset(options, 0, sizeof(options));
        option_length = copied_options(ip + IP4_HEADER, header - IP4_HEADER, options);
    }
    if (length > payload - offset)
        length = payload - offset;

    struct frame *frame = frame_new(IP + IP4_HEADER + option_length + length);
    uint8_t *to = frame->bytes + IP;

    memcpy(frame->bytes, whole->bytes, IP + IP4_HEADER);
    frame->addressed = whole->addressed;
    to[0] = (uint8_t)(4 << 4 | (IP4_HEADER + option_length) / 4);
    put16(to + 2, IP4_HEADER + option_length + length);
    put16(to + 6, (field + offset / 8) | (offset + length < payload ? MORE_FRAGMENTS : 0u));
    memcpy(to + IP4_HEADER, options, option_length);
    memcpy(to + IP4_HEADER + option_length, ip + header + offset, length);
    set_ip4_checksum(to);
    return frame;
}

struct frame *fragment6_of(const struct frame *whole, unsigned offset, unsigned length,
                           uint32_t id) {
    enum { IPV6_LENGTH = 40, HEADER = 8, FRAGMENT_HEADER = 44 };
    const uint8_t *ip = whole->bytes + IP;
    unsigned payload = get16(ip + 4);
    struct frame *frame;
    uint8_t *to;

    if (length > payload - offset)
        length = payload - offset;
    frame = frame_new(IP + IPV6_LENGTH + HEADER + length);
    to = frame->bytes + IP;
    memcpy(frame->bytes, whole->bytes, IP + IPV6_LENGTH);
    frame->addressed = whole->addressed;
    put16(to + 4, HEADER + length);
    to[6] = FRAGMENT_HEADER;
    to += IPV6_LENGTH;
    to[0] = ip[6];
    put16(to + 2, offset | (offset + length < payload));
    put16(to + 4, id >> 16);
    put16(to + 6, id & 0xffff);
    memcpy(to + HEADER, ip + IPV6_LENGTH + offset, length);
    return frame;
}

/* --- looking --- */

unsigned frame_ip_offset(const struct frame *frame) {
    unsigned at = 12;

    while (at + 4 <= frame->length &&
           (get16(frame->bytes + at) == 0x8100 || get16(frame->bytes + at) == 0x88a8))
        at += 4;
    return at + 2;
}

bool frame_equal(const struct frame *a, const struct frame *b) {
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

static const char *protocol_name(unsigned protocol) {
    switch (protocol) {
    case ICMP:
        return "ICMP";
    case TCP:
        return "TCP";
    case UDP:
        return "UDP";
    case ICMP6:
        return "ICMPv6";
    default:
        return "protocol";
    }
}

static int summarise_transport(const struct frame *frame, unsigned at, unsigned protocol,
                               char *text, size_t size) {
    const uint8_t *bytes = frame->bytes + at;

    if (at + 8 > frame->length)
        return snprintf(text, size, "%s %u", protocol_name(protocol), protocol);
    if (protocol == UDP || protocol == TCP)
        return snprintf(text, size, "%s %u > %u", protocol_name(protocol), get16(bytes),
                        get16(bytes + 2));
    if (protocol == ICMP || protocol == ICMP6)
        return snprintf(text, size, "%s type %u code %u rest %02x%02x%02x%02x",
                        protocol_name(protocol), bytes[0], bytes[1], bytes[4], bytes[5], bytes[6],
                        bytes[7]);
    return snprintf(text, size, "protocol %u", protocol);
}

void frame_summary(const struct frame *frame, char *text, size_t size) {
    char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN], transport[100] = "", tag[40] = "";
    unsigned at = frame_ip_offset(frame), type;
    const uint8_t *ip = frame->bytes + at;

    if (at > frame->length) {
        snprintf(text, size, "%u bytes", frame->length);
        return;
    }
    type = get16(frame->bytes + at - 2);
    if (at > 14)
        snprintf(tag, sizeof(tag), "VLAN %u ", get16(frame->bytes + 14) & 4095);
    if (type == 0x0800 && frame->length >= at + IP4_HEADER) {
        inet_ntop(AF_INET, ip + 12, source, sizeof(source));
        inet_ntop(AF_INET, ip + 16, destination, sizeof(destination));
        if ((get16(ip + 6) & 0x1fff) == 0)
            summarise_transport(frame, at + (ip[0] & 15u) * 4, ip[9], transport, sizeof(transport));
        snprintf(text, size, "%sIPv4 %s > %s ttl %u length %u fragment %04x %s, %u bytes", tag,
                 source, destination, ip[8], get16(ip + 2), get16(ip + 6), transport,
                 frame->length);
    } else if (type == 0x86dd && frame->length >= at + IP6_HEADER) {
        inet_ntop(AF_INET6, ip + 8, source, sizeof(source));
        inet_ntop(AF_INET6, ip + 24, destination, sizeof(destination));
        summarise_transport(frame, at + IP6_HEADER, ip[6], transport, sizeof(transport));
        snprintf(text, size, "%sIPv6 %s > %s hop limit %u payload %u %s, %u bytes", tag, source,
                 destination, ip[7], get16(ip + 4), transport, frame->length);
    } else if (type == 0x0806 && frame->length >= at + 28) {
        inet_ntop(AF_INET, ip + 14, source, sizeof(source));
        inet_ntop(AF_INET, ip + 24, destination, sizeof(destination));
        snprintf(text, size, "%sARP %s sender %s target %s, %u bytes", tag,
                 get16(ip + 6) == 1 ? "request" : "reply", source, destination, frame->length);
    } else {
        snprintf(text, size, "%stype %04x, %u bytes", tag, type, frame->length);
    }
}

enum { PER_LINE = 16, LINES_MAX = 40 };

/* One line of hexadecimal digits; bytes that differ from `other` stand in brackets. */
static void print_line(const struct frame *frame, const struct frame *other, unsigned from) {
    fprintf(stderr, "#   %5u ", from);
    for (unsigned i = from; i < from + PER_LINE && i < frame->length; i++) {
        bool differs = other && (i >= other->length || other->bytes[i] != frame->bytes[i]);

        fprintf(stderr, differs ? "[%02x]" : " %02x ", frame->bytes[i]);
    }
    fputc('\n', stderr);
}

static void print_frame(const char *title, const struct frame *frame, const struct frame *other) {
    char summary[300];

    frame_summary(frame, summary, sizeof(summary));
    fprintf(stderr, "# %s: %s\n", title, summary);
    for (unsigned from = 0; from < frame->length; from += PER_LINE) {
        if (from / PER_LINE == LINES_MAX) {
            fprintf(stderr, "#   ...\n");
            break;
        }
        print_line(frame, other, from);
    }
}

void frame_print(const char *title, const struct frame *frame) {
    print_frame(title, frame, NULL);
}

static const char *place_name(const struct frame *frame, unsigned offset) {
    unsigned ip = frame_ip_offset(frame), type;

    if (offset < 6)
        return "destination MAC";
    if (offset < 12)
        return "source MAC";
    if (offset < ip)
        return "EtherType or tag";
    type = ip <= frame->length ? get16(frame->bytes + ip - 2) : 0;
    if (type == 0x0800) {
        static const char *const fields[IP4_HEADER] = {
            "version",     "TOS",         "total length",    "total length",
            "id",          "id",          "fragment",        "fragment",
            "TTL",         "protocol",    "header checksum", "header checksum",
            "source",      "source",      "source",          "source",
            "destination", "destination", "destination",     "destination"};

        return offset - ip < IP4_HEADER ? fields[offset - ip] : "behind the IPv4 header";
    }
    if (type == 0x86dd) {
        offset -= ip;
        return offset < 4    ? "version, class, flow"
               : offset < 6  ? "payload length"
               : offset == 6 ? "next header"
               : offset == 7 ? "hop limit"
               : offset < 24 ? "source"
               : offset < 40 ? "destination"
                             : "behind the IPv6 header";
    }
    return "payload";
}

void frame_compare(const struct frame *expected, const struct frame *found) {
    unsigned offset = 0;

    while (offset < expected->length && offset < found->length &&
           expected->bytes[offset] == found->bytes[offset])
        offset++;
    fprintf(stderr, "# the frames differ at byte %u (%s)\n", offset, place_name(expected, offset));
    print_frame("expected", expected, found);
    print_frame("found   ", found, expected);
}
