/*
 * The other end of a tunnel, by OpenSSL's libcrypto: wraps packets in ESP (RFC 4303) and takes them
 * out again. Nothing here uses the product's code, nor its library, so what both agree about is
 * what the RFCs say: 4106 (AES-GCM), 4543 (AES-GMAC), 7634 (ChaCha20-Poly1305), 3602 (AES-CBC),
 * 3686 (AES-CTR), 2410 (NULL), 2404 and 4868 (HMAC), 3948 (ESP in UDP).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"

enum { ESP_PROTOCOL = 50, NO_NEXT_HEADER = 59 };

/* One direction of a tunnel. The names are those of router.json. */
struct esp_sa {
    uint32_t spi;
    const char *source, *destination;                /* of the outer header, IPv4 or IPv6 */
    const char *algorithm, *key;                     /* hexadecimal digits, the salt last */
    const char *authentication, *authentication_key; /* NULL with a combined algorithm */
    unsigned icv_length;                             /* 0: the algorithm's usual */
    bool esn, transport;
    unsigned source_port, destination_port; /* of UDP; 0: plain ESP */
};

/* What else a packet has, or has wrong on purpose. */
struct esp_fields {
    uint64_t sequence;  /* 0: 1 */
    bool zero_sequence; /* number 0 */
    const char *iv;     /* hexadecimal digits; NULL: made from the sequence number */
    const uint8_t *iv_bytes;
    unsigned tos, ttl, id; /* of the outer header in tunnel mode; ttl 0: 64 */
    bool df;
    unsigned tfc;        /* octets of traffic-flow confidentiality behind the inner packet */
    unsigned padding;    /* octets beyond what is needed: a multiple of the algorithm's alignment */
    int next_header;     /* 0: the right one */
    const char *payload; /* hexadecimal digits in the place of the inner packet; "" = nothing */
    const char *trailer; /* hexadecimal digits: padding, its length, and next header */
    const uint8_t *encrypted; /* in the place of all that is encrypted, trailer included */
    unsigned encrypted_length;
    unsigned udp_checksum; /* in the place of the right one; over IPv4 0 is the usual */
    unsigned vlan;         /* tag of the frame; 0 = untagged */
};

/* The frame, without MAC addresses. In transport mode the inner packet's header stays in front. */
#define esp(sa, inner, ...) esp_wrap((sa), (inner), (struct esp_fields){__VA_ARGS__})
struct frame *esp_wrap(const struct esp_sa *sa, const struct frame *inner,
                       struct esp_fields fields);

/* What was found in a packet. */
struct esp_found {
    uint64_t sequence;
    unsigned tos, ttl, id, pad;
    bool df;
    const uint8_t *iv;   /* in the frame */
    struct frame *inner; /* without MAC addresses */
};

/* Opens a frame that the router has sent. `high`: the upper half of the sequence number. NULL, or
 * what is wrong with it: outer checksum, lengths, addresses, ports, SPI, check value, padding that
 * is not 1, 2, 3, ..., next header. */
const char *esp_unwrap(const struct esp_sa *sa, const struct frame *frame, uint32_t high,
                       struct esp_found *found);

/* Octets between the outer header's end and the inner packet, and behind it but for the padding. */
unsigned esp_overhead(const struct esp_sa *sa);
/* The longest inner packet that makes an outer one of at most `mtu` octets. */
unsigned esp_room(const struct esp_sa *sa, unsigned mtu);
/* Where the ESP header stands in an untagged frame of the association. */
unsigned esp_offset(const struct esp_sa *sa);
