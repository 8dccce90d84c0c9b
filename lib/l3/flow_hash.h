/*
 * A number per flow, for spreading flows over equal-cost paths (RFC 2992). The NIC's RSS hash
 * serves where there is one; otherwise addresses, protocol and ports are mixed with a per-process
 * seed, so that routers in a row do not all choose alike. Fragments hash on addresses only, all of
 * them, so that they stay together.
 */
#pragma once

#include <nmmintrin.h>
#include <rte_mbuf.h>

#include "core/packet.h"
#include "l3/header.h"

/* Set once at start; any value. */
extern uint32_t flow_hash_seed;

static inline uint64_t flow_hash_mix(uint64_t hash) {
    hash ^= hash >> 32;
    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

/* 32 bits for the packet's flow; meta must be set by `parse`. */
static inline uint32_t flow_hash(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *frame = rte_pktmbuf_mtod(mbuf, const uint8_t *);
    const uint8_t *packet = frame + meta->l3_offset;
    uint64_t hash = flow_hash_seed ^ meta->l4_protocol;

    if (mbuf->ol_flags & RTE_MBUF_F_RX_RSS_HASH && !(meta->flags & PACKET_FRAGMENT))
        return (uint32_t)flow_hash_mix(mbuf->hash.rss ^ (uint64_t)flow_hash_seed << 32);
    if (meta->flags & PACKET_IPV6) {
        for (unsigned at = 8; at < IPV6_HEADER; at += 8)
            hash = _mm_crc32_u64(hash, load64(packet + at)) ^ hash << 32;
    } else {
        hash = _mm_crc32_u64(hash, load64(packet + 12));
    }
    /* TCP, UDP, SCTP, DCCP, UDP-Lite begin with the ports. */
    if (!(meta->flags & PACKET_FRAGMENT) && meta->l4_offset + 4u <= mbuf->data_len &&
        (meta->l4_protocol == IPPROTO_TCP || meta->l4_protocol == IPPROTO_UDP ||
         meta->l4_protocol == IPPROTO_SCTP || meta->l4_protocol == IPPROTO_DCCP ||
         meta->l4_protocol == IPPROTO_UDPLITE))
        hash = _mm_crc32_u64(hash, load32(frame + meta->l4_offset)) ^ hash << 32;
    return (uint32_t)flow_hash_mix(hash);
}
