/*
 * Small helpers for header bytes, shared by the stages. All loads may be unaligned; values read
 * with load16/load32 are in network order unless the name says otherwise.
 */
#pragma once

#include <immintrin.h>
#include <rte_byteorder.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    ETHER_HEADER = 14,
    ETHER_VLAN_HEADER = 18,
    IPV4_HEADER = 20,
    IPV6_HEADER = 40,
    IPV4_FRAGMENT_BITS = 0x3fff, /* more fragments, and the offset */
    IPV4_OPTION_END = 0,
    IPV4_OPTION_NOP = 1,
    IPV4_OPTION_LSRR = 131,
    IPV4_OPTION_SSRR = 137,
    IPV6_OPTION_PAD1 = 0,
    IPV6_OPTION_PADN = 1,
    IPV6_OPTION_ROUTER_ALERT = 5,
};

#define MAC_BITS UINT64_C(0xffffffffffff)
#define MAC_GROUP_BIT UINT64_C(1) /* of a little-endian load: broadcast or multicast */

static inline uint16_t load16(const void *from) {
    uint16_t value;

    memcpy(&value, from, sizeof(value));
    return value;
}

static inline uint32_t load32(const void *from) {
    uint32_t value;

    memcpy(&value, from, sizeof(value));
    return value;
}

static inline uint64_t load64(const void *from) {
    uint64_t value;

    memcpy(&value, from, sizeof(value));
    return value;
}

/* Is the checksum of a 20-byte header right? It comes as three words, in the order it stands in the
 * frame.
 *
 * The one's complement sum of RFC 1071 is arithmetic modulo 65535, and 2^64 is 1 modulo 65535; so the
 * header adds up to "minus zero" exactly when the 64-bit sum with end-around carry is a multiple of
 * 65535. Whether an odd number divides takes one multiplication by its inverse modulo 2^64. */
static inline bool header_checksum_right(uint64_t word0, uint64_t word1, uint32_t word2) {
    const uint64_t inverse = UINT64_C(0xfffefffefffeffff); /* of 65535 */
    unsigned long long sum;
    unsigned char carry = _addcarry_u64(0, word0, word1, &sum);

    carry = _addcarry_u64(carry, sum, word2, &sum);
    sum += carry;
    return sum * inverse <= UINT64_MAX / 65535;
}

/* Time to live minus one, checksum following it (RFC 1141, RFC 1624). */
static inline void ipv4_decrement_ttl(struct rte_ipv4_hdr *ip) {
    uint32_t sum = ip->hdr_checksum + (uint32_t)RTE_BE16(0x0100);

    ip->time_to_live--;
    ip->hdr_checksum = (uint16_t)(sum + (sum >= 0xffff));
}
