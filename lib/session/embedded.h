/*
 * IPv4 addresses embedded in IPv6 addresses: RFC 6052 section 2.2. The four octets stand behind a
 * prefix of 32, 40, 48, 56, 64 or 96 bits, with octet 8 left out and zero.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline bool embedded_length_valid(unsigned length) {
    return length == 96 || (length >= 32 && length <= 64 && length % 8 == 0);
}

/* The address with the IPv4 address (network order) behind the prefix; what is behind that is zero.
 */
static inline void embedded_make(const uint8_t prefix[16], unsigned length, uint32_t ipv4,
                                 uint8_t out[16]) {
    unsigned at = length / 8;

    memset(out, 0, 16);
    memcpy(out, prefix, at);
    for (unsigned i = 0; i < 4; i++, at++) {
        at += at == 8;
        out[at] = ((const uint8_t *)&ipv4)[i];
    }
}

/* The IPv4 address behind a prefix of this length, network order. */
static inline uint32_t embedded_ipv4(const uint8_t address[16], unsigned length) {
    unsigned at = length / 8;
    uint32_t ipv4;

    for (unsigned i = 0; i < 4; i++, at++) {
        at += at == 8;
        ((uint8_t *)&ipv4)[i] = address[at];
    }
    return ipv4;
}
