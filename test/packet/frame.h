/*
 * Frames as the cases write them down. Nothing here uses the product's code: what a correct frame
 * looks like, checksums included, is worked out a second time, by the plainest code there is.
 *
 *     udp4(.source = "192.168.1.10:1000", .destination = "203.0.113.1:53", .ttl = 64)
 *
 * makes a frame whose MAC addresses are still open: inject() and expect() fill in those of the
 * router and of the usual neighbour on that port, unless ether() has set others.
 *
 * Frames live until the end of the case. Functions that change a frame return a changed copy; bytes
 * may also be changed in place (frame->bytes[14] = 0). A wrong address or number in a case ends the
 * program with a message.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAME_MAX = 70000 };

struct frame {
    unsigned length;
    bool addressed; /* MAC addresses are set */
    struct frame *next;
    uint8_t bytes[];
};

/* Offsets of an untagged frame. */
enum { ETHER = 0, IP = 14, IP4_PAYLOAD = IP + 20, IP6_PAYLOAD = IP + 40 };

enum { DONT_FRAGMENT = 0x4000, MORE_FRAGMENTS = 0x2000 };

/* Fields of IPv4 and what is in it; those that a kind of packet does not have are ignored. */
struct ipv4 {
    const char *source, *destination; /* "192.0.2.1", of UDP and TCP "192.0.2.1:53" */
    unsigned ttl;                     /* 0: 64 */
    unsigned tos, id;                 /* tos of icmp4_error(): 0 = 0xc0 */
    unsigned fragment;   /* the header's field: flags, and the offset in units of 8 bytes */
    const char *options; /* hexadecimal digits; zeroes fill the last word */
    unsigned protocol;   /* of ip4() */
    const char *payload; /* text; NULL: `size` bytes of a pattern, or a few if that is 0 too */
    unsigned size;
    unsigned tcp_flags, sequence, identifier;
    unsigned type, code;       /* of icmp4() */
    uint32_t rest;             /* of icmp4(): the header's second word */
    const struct frame *about; /* of icmp4_error(): the packet it quotes */
    unsigned quote;            /* of icmp4_error(): how much of it; 0 = up to 548 bytes */
    const char *extension;     /* of icmp4_error(): hexadecimal digits of what is behind it (RFC
                                  4884), and where: so many bytes behind the error's header */
    unsigned extension_at;
};

struct ipv6 {
    const char *source, *destination; /* "2001:db8::1", of UDP and TCP "[2001:db8::1]:53" */
    unsigned hop_limit;               /* 0: 64 */
    unsigned traffic_class, flow_label;
    const char *extensions; /* hexadecimal digits of the extension headers; the next header that
                               each names is filled in, but for that in the last */
    unsigned first;         /* the first extension header's type */
    unsigned protocol;      /* of ip6() */
    const char *payload;
    unsigned size;
    unsigned tcp_flags, sequence, identifier;
    unsigned type, code;
    uint32_t rest;
    const struct frame *about;
    unsigned quote; /* 0 = up to 1232 bytes */
    const char *extension;
    unsigned extension_at;
};

struct arp {
    const char *sender, *target;         /* IPv4 addresses */
    const char *sender_mac, *target_mac; /* target: NULL = zero */
    const char
        *to; /* Ethernet destination; NULL = everybody for requests, target_mac for replies */
};

/* Neighbour discovery: RFC 4861. */
struct nd {
    const char *source,
        *destination; /* IPv6; destination NULL: the target's solicited-node group */
    const char *target;
    unsigned flags; /* of advertisements: router 0x80, solicited 0x40, override 0x20 */
    const char *source_link, *target_link; /* options, MAC addresses */
    const char *nonce;                     /* option, six bytes in hexadecimal */
    unsigned hop_limit;                    /* 0: 255 */
};

#define ip4(...) frame_ip4((struct ipv4){__VA_ARGS__})
#define udp4(...) frame_udp4((struct ipv4){__VA_ARGS__})
#define tcp4(...) frame_tcp4((struct ipv4){__VA_ARGS__})
#define icmp4(...) frame_icmp4((struct ipv4){__VA_ARGS__})
#define icmp4_echo(...) frame_icmp4((struct ipv4){.type = 8, __VA_ARGS__})
#define icmp4_echo_reply(...) frame_icmp4((struct ipv4){.type = 0, __VA_ARGS__})
/* Errors have precedence 6: RFC 1812 section 4.3.2.5. */
#define icmp4_error(...) frame_icmp4_error((struct ipv4){__VA_ARGS__})
#define ip6(...) frame_ip6((struct ipv6){__VA_ARGS__})
#define udp6(...) frame_udp6((struct ipv6){__VA_ARGS__})
#define tcp6(...) frame_tcp6((struct ipv6){__VA_ARGS__})
#define icmp6(...) frame_icmp6((struct ipv6){__VA_ARGS__})
#define icmp6_echo(...) frame_icmp6((struct ipv6){.type = 128, __VA_ARGS__})
#define icmp6_echo_reply(...) frame_icmp6((struct ipv6){.type = 129, __VA_ARGS__})
#define icmp6_error(...) frame_icmp6_error((struct ipv6){__VA_ARGS__})
#define arp_request(...) frame_arp(1, (struct arp){__VA_ARGS__})
#define arp_reply(...) frame_arp(2, (struct arp){__VA_ARGS__})
#define neighbour_solicitation(...) frame_nd(135, (struct nd){__VA_ARGS__})
#define neighbour_advertisement(...) frame_nd(136, (struct nd){__VA_ARGS__})
#define router_solicitation(...) frame_nd(133, (struct nd){__VA_ARGS__})

struct frame *frame_ip4(struct ipv4 fields);
struct frame *frame_udp4(struct ipv4 fields);
struct frame *frame_tcp4(struct ipv4 fields);
struct frame *frame_icmp4(struct ipv4 fields);
struct frame *frame_icmp4_error(struct ipv4 fields);
struct frame *frame_ip6(struct ipv6 fields);
struct frame *frame_udp6(struct ipv6 fields);
struct frame *frame_tcp6(struct ipv6 fields);
struct frame *frame_icmp6(struct ipv6 fields);
struct frame *frame_icmp6_error(struct ipv6 fields);
struct frame *frame_arp(unsigned operation, struct arp fields);
struct frame *frame_nd(unsigned type, struct nd fields);

/* Any bytes, as hexadecimal digits; blanks are skipped. */
struct frame *raw(const char *hex);
struct frame *raw_bytes(const void *bytes, unsigned length);

/* --- changed copies --- */

struct frame *copy(const struct frame *frame);
struct frame *ether(const struct frame *frame, const char *destination, const char *source);
struct frame *vlan(unsigned tci, const struct frame *frame);
/* The same with another tag protocol identifier. */
struct frame *tagged(unsigned tpid, unsigned tci, const struct frame *frame);
/* Zeroes behind the packet, up to this length of the frame. */
struct frame *padded(const struct frame *frame, unsigned length);
/* The first bytes only. */
struct frame *truncated(const struct frame *frame, unsigned length);
/* One hop further: TTL or hop limit one less, IPv4 header checksum made anew. */
struct frame *hop(const struct frame *frame);
/* Some bytes set, IPv4 header checksum made anew: patch(f, IP + 8, "00") has TTL 0. */
struct frame *patch(const struct frame *frame, unsigned offset, const char *hex);
/* The same, checksums left alone. */
struct frame *poke(const struct frame *frame, unsigned offset, const char *hex);
/* The fragment with `length` bytes of the IPv4 payload from `offset` on (a multiple of 8). */
struct frame *fragment4(const struct frame *whole, unsigned offset, unsigned length);
/* The same of an IPv6 packet without extension headers. */
struct frame *fragment6_of(const struct frame *whole, unsigned offset, unsigned length,
                           uint32_t id);

/* --- looking at frames --- */

/* Offset of the IP header, behind any tags. */
unsigned frame_ip_offset(const struct frame *frame);
bool frame_equal(const struct frame *a, const struct frame *b);
/* "IPv4 192.168.1.10 > 203.0.113.1 ttl 63 UDP 1000 > 53, 49 bytes" */
void frame_summary(const struct frame *frame, char *text, size_t size);
/* Prints what was expected and what came, with the first difference marked, to stderr. */
void frame_compare(const struct frame *expected, const struct frame *found);
void frame_print(const char *title, const struct frame *frame);

/* One's complement sum of RFC 1071 over big-endian pairs, to be folded and inverted. */
uint32_t sum16(uint32_t sum, const uint8_t *bytes, size_t length);
uint16_t fold16(uint32_t sum);

/* Room for a frame of this length, all zeroes; and all frames of the case given back. */
struct frame *frame_new(unsigned length);
void frames_free(void);

/* "02:00:00:00:00:01" */
void parse_mac(const char *text, uint8_t mac[6]);
/* fe80:: and the modified EUI-64 of the MAC address, as text that lives until the case ends. */
const char *link_local_of(const char *mac);
