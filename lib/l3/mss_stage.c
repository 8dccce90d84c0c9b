/*
 * Stage `mss`: lowers the maximum segment size that TCP connections agree on (RFC 9293 section
 * 3.7.1) to what an interface carries, so that nobody has to learn it from ICMP errors which a
 * firewall somewhere keeps back (RFC 2923 section 2.1). Interfaces ask for it with "tcp_mss".
 *
 * Only the option of a SYN is changed, and only to less: one that is missing stands for 536
 * (RFC 1122 section 4.2.2.6), which is small enough. Of a burst of plain packets the stage reads no
 * more than protocol and TCP flags.
 */
#include <netinet/in.h>

#include "core/stage.h"
#include "core/worker.h"
#include "interface/interface.h"
#include "l3/header.h"
#include "l3/next_hop.h"

enum {
    TCP_HEADER = 20,
    TCP_DATA_OFFSET = 12,
    TCP_FLAGS = 13,
    TCP_CHECKSUM = 16,
    TCP_SYN = 0x02,
    TCP_OPTION_END = 0,
    TCP_OPTION_NOP = 1,
    TCP_OPTION_MSS = 2,
    TCP_OPTION_MSS_LENGTH = 4,
    IPV4_PROTOCOL = 9,
    IPV6_NEXT_HEADER = 6,
};

static void mss_run(struct worker *worker, struct burst *burst);

static bool mss_wanted(void) {
    for (const struct interface *i = NULL; (i = interface_next(i));) {
        if (i->tcp_mss != 0)
            return true;
    }
    return false;
}

static struct stage mss_stage = {
    .name = "mss",
    .run = mss_run,
    .wanted = mss_wanted,
};
STAGE(mss_stage)

/* The value that stands at `value` becomes `mss` if it is larger; the checksum follows by the
 * difference (RFC 1624). */
static void lower(uint8_t *tcp, uint8_t *value, uint16_t mss) {
    uint16_t old = load16(value), new = rte_cpu_to_be_16(mss);
    uint32_t sum = (uint16_t)~load16(tcp + TCP_CHECKSUM);

    if (rte_be_to_cpu_16(old) <= mss)
        return;
    memcpy(value, &new, sizeof(new));
    if ((value - tcp) & 1) { /* each octet counts in the other half of a word */
        old = rte_bswap16(old);
        new = rte_bswap16(new);
    }
    sum += (uint32_t)(uint16_t)~old + new;
    sum = (sum & 0xffff) + (sum >> 16);
    sum += sum >> 16;
    new = (uint16_t)~sum;
    memcpy(tcp + TCP_CHECKSUM, &new, sizeof(new));
}

/* From the first option that makes no sense on nothing is known. */
static void lower_options(uint8_t *tcp, unsigned end, uint16_t mss) {
    for (unsigned at = TCP_HEADER; at < end && tcp[at] != TCP_OPTION_END;) {
        if (tcp[at] == TCP_OPTION_NOP) {
            at++;
            continue;
        }
        if (at + 2 > end || tcp[at + 1] < 2 || at + tcp[at + 1] > end)
            return;
        if (tcp[at] == TCP_OPTION_MSS && tcp[at + 1] == TCP_OPTION_MSS_LENGTH)
            lower(tcp, tcp + at + 2, mss);
        at += tcp[at + 1];
    }
}

/* An authentication header (RFC 4302) covers what is behind it: a changed segment would be refused.
 * `end` is where the extension headers, which `parse` has checked, end. */
static bool is_authenticated(const uint8_t *packet, unsigned end) {
    uint8_t next = packet[IPV6_NEXT_HEADER];

    for (unsigned at = IPV6_HEADER; at < end && next != IPPROTO_AH;) {
        unsigned length = next == IPPROTO_FRAGMENT ? 8 : (packet[at + 1] + 1u) * 8;

        next = packet[at];
        at += length;
    }
    return next == IPPROTO_AH;
}

/* On the side that a packet of the other version of IP came from, the header has another length. */
static uint16_t came_in_limit(const struct packet_meta *meta, uint16_t limit) {
    if (limit == 0 || !(meta->flags & PACKET_OTHER_FAMILY))
        return limit;
    return meta->flags & PACKET_IPV6 ? (uint16_t)(limit + (IPV6_HEADER - IPV4_HEADER))
                                     : (uint16_t)(limit - (IPV6_HEADER - IPV4_HEADER));
}

/* For IPv4; 0 = no limit. What is for the router itself leaves by no interface. */
static uint16_t limit_of(const struct packet_meta *meta) {
    const struct interface_table *table = interface_table();
    uint8_t type = next_hop_get(meta->next_hop)->type;
    bool local = meta->flags & PACKET_LOCAL || type == NEXT_HOP_LOCAL || type == NEXT_HOP_BROADCAST;
    uint16_t in = came_in_limit(meta, table->entry[meta->in_interface].tcp_mss);
    uint16_t out = local ? 0 : table->entry[meta->out_interface].tcp_mss;

    return in == 0 || (out != 0 && out < in) ? out : in;
}

static void one_packet(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    unsigned at = meta->l4_offset;
    bool ipv6 = meta->flags & PACKET_IPV6;

    if (likely(meta->l4_protocol != IPPROTO_TCP || meta->flags & PACKET_LATER_FRAGMENT ||
               at + TCP_HEADER > mbuf->data_len))
        return;

    uint8_t *tcp = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, at);
    unsigned length = (tcp[TCP_DATA_OFFSET] >> 4) * 4u;

    if (likely(!(tcp[TCP_FLAGS] & TCP_SYN)) || length <= TCP_HEADER)
        return;
    /* Only a fragment may leave the rest of the header to another packet. */
    if (at + length > mbuf->pkt_len && !(meta->flags & PACKET_FRAGMENT))
        return;

    uint16_t limit = limit_of(meta);

    if (limit == 0 ||
        (ipv6 && is_authenticated(packet_l3(mbuf, const uint8_t *), at - meta->l3_offset)))
        return;
    lower_options(tcp, RTE_MIN(length, mbuf->data_len - at),
                  ipv6 ? (uint16_t)(limit - (IPV6_HEADER - IPV4_HEADER)) : limit);
}

/* Plain packets may be shorter than what is read here, but not their buffers. */
static inline void plain(struct burst *burst, unsigned protocol, unsigned transport) {
    unsigned i;

    BURST_FOREACH (i, burst->mask) {
        const uint8_t *packet =
            rte_pktmbuf_mtod_offset(burst->packets[i], const uint8_t *, ETHER_HEADER);

        if (unlikely(packet[protocol] == IPPROTO_TCP && packet[transport + TCP_FLAGS] & TCP_SYN))
            one_packet(burst->packets[i]);
    }
}

static void mss_run(struct worker *worker, struct burst *burst) {
    unsigned i;

    if (likely(worker->burst_kind == BURST_PLAIN_IPV4)) {
        plain(burst, IPV4_PROTOCOL, IPV4_HEADER);
    } else if (worker->burst_kind == BURST_PLAIN_IPV6) {
        plain(burst, IPV6_NEXT_HEADER, IPV6_HEADER);
    } else {
        BURST_FOREACH (i, burst->mask)
            one_packet(burst->packets[i]);
    }
}
