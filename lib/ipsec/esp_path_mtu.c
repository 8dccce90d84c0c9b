/*
 * ICMP errors about ESP packets that this router sent: "fragmentation needed" (RFC 1191) and
 * "packet too big" (RFC 4443 section 3.2).
 *
 * Such an error is not authenticated, and anybody may send one (RFC 4301 section 8.2.1). So it
 * counts only if it quotes what can hardly be guessed, an SPI and one of the last numbers of an
 * association with the addresses and ports of the quoted packet, and only between what the path is
 * known to carry and a floor. It is on its way to the host meanwhile, like any other error.
 */
#include <netinet/in.h>

#include "ipsec/esp_path.h"
#include "l3/header.h"
#include "l3/icmp.h"

enum {
    ICMP_HEADER = 8,
    V4_UNREACHABLE = 3,
    V4_FRAGMENTATION_NEEDED = 4,
    V6_TOO_BIG = 2,
    /* Packets sent since the quoted one: more than a second's at 10 million a second. */
    SENT_SINCE_MAX = 1 << 24,
};

/* The packet in the error. */
struct quote {
    const uint8_t *packet, *esp, *ports; /* ports: NULL for plain ESP */
    bool ipv6;
};

/* What the error says, 0 if it is not about lengths. */
static uint32_t mtu_of(const uint8_t *icmp, bool ipv6) {
    if (ipv6)
        return icmp[0] == V6_TOO_BIG ? rte_be_to_cpu_32(load32(icmp + 4)) : 0;
    return icmp[0] == V4_UNREACHABLE && icmp[1] == V4_FRAGMENTATION_NEEDED
               ? rte_be_to_cpu_16(load16(icmp + 6))
               : 0;
}

/* Up to the sequence number: all that RFC 792 has a router quote of plain ESP. */
static bool read_quote(struct quote *quote, const uint8_t *packet, unsigned length, bool ipv6) {
    unsigned header = IPV6_HEADER;
    uint8_t protocol;

    if (length < (ipv6 ? IPV6_HEADER : IPV4_HEADER) || packet[0] >> 4 != (ipv6 ? 6 : 4))
        return false;
    protocol = packet[ipv6 ? 6 : 9];
    if (!ipv6) {
        header = (packet[0] & 15u) * 4;
        if (header < IPV4_HEADER || load16(packet + 6) & RTE_BE16(RTE_IPV4_HDR_OFFSET_MASK))
            return false;
    }
    *quote = (struct quote){.packet = packet, .esp = packet + header, .ipv6 = ipv6};
    if (protocol == IPPROTO_UDP) {
        quote->ports = quote->esp;
        quote->esp += UDP_HEADER;
        header += UDP_HEADER;
    } else if (protocol != IPPROTO_ESP) {
        return false;
    }
    return length >= header + ESP_HEADER;
}

static bool has_ends(const struct ipsec_sa *sa, const struct quote *quote) {
    const uint8_t *packet = quote->packet;

    if (quote->ports && load32(quote->ports) != load32(sa->header + sa->outer - UDP_HEADER))
        return false;
    if (quote->ipv6)
        return memcmp(packet + 8, sa->source, 16) == 0 &&
               memcmp(packet + 24, sa->destination6, 16) == 0;
    return load32(packet + 12) == load32(sa->source) &&
           rte_be_to_cpu_32(load32(packet + 16)) == sa->destination;
}

/* Has a packet with this number been sent, and not long ago? */
static bool is_recent(const struct ipsec_sa *sa, const struct quote *quote) {
    uint64_t sent = atomic_load_explicit(&sa->sequence, memory_order_relaxed);

    return sent > 0 && (uint32_t)sent - rte_be_to_cpu_32(load32(quote->esp + 4)) < SENT_SINCE_MAX;
}

static struct ipsec_sa *find(const struct quote *quote, uint16_t vrf) {
    const uint8_t wanted = (uint8_t)((quote->ipv6 ? SA_IPV6 : 0) | (quote->ports ? SA_UDP : 0));
    const uint32_t spi = load32(quote->esp);
    struct ipsec_sa *sa =
        atomic_load_explicit(&sa_buckets[IPSEC_OUT][sa_bucket(spi)], memory_order_acquire);

    for (; sa; sa = atomic_load_explicit(&sa->next, memory_order_acquire)) {
        if (sa->spi == spi && sa->vrf == vrf && (sa->flags & (SA_IPV6 | SA_UDP)) == wanted &&
            has_ends(sa, quote))
            return is_recent(sa, quote) ? sa : NULL;
    }
    return NULL;
}

void esp_path_mtu_learn(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const bool ipv6 = meta->flags & PACKET_IPV6;
    const uint8_t *ip = packet_l3(mbuf, const uint8_t *);
    const uint8_t *icmp = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, meta->l4_offset);
    const unsigned length = mbuf->data_len - RTE_MIN(meta->l4_offset, mbuf->data_len);
    struct ipsec_sa *sa;
    struct quote quote;
    uint32_t mtu;

    if (meta->flags & PACKET_FRAGMENT || length < ICMP_HEADER ||
        meta->l4_protocol != (ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
        return;
    mtu = mtu_of(icmp, ipv6);
    if (likely(mtu < (ipv6 ? ESP_PATH_MTU_LEAST6 : ESP_PATH_MTU_LEAST4)) ||
        mtu >= ESP_PATH_MTU_UNKNOWN)
        return;
    if (!read_quote(&quote, icmp + ICMP_HEADER, length - ICMP_HEADER, ipv6) ||
        /* It goes to who sent what it quotes. */
        (ipv6 ? memcmp(ip + 24, quote.packet + 8, 16) != 0
              : load32(ip + 16) != load32(quote.packet + 12)))
        return;
    sa = find(&quote, meta->vrf);
    if (sa && icmp_checksum_is_right(mbuf))
        esp_path_lower(sa, (uint16_t)mtu);
}
