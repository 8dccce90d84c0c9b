/*
 * TCP resets for segments that the firewall rejects: made as the destination would make them, so
 * that the sender gives up at once (RFC 9293 section 3.10.7.1).
 */
#include <netinet/in.h>
#include <rte_tcp.h>

#include "core/worker.h"
#include "firewall/firewall_internal.h"
#include "interface/interface.h"
#include "l3/header.h"
#include "l3/icmp.h"

enum { TCP_HEADER = 20, RESET_TTL = 64 };

/* Those that no ICMP error would be sent about either (RFC 1122 section 3.2.2): groups, broadcasts,
 * sources that are nobody's. Fragments do not tell the segment's length. */
static bool may_answer(struct rte_mbuf *about) {
    const struct packet_meta *meta = packet_meta(about);
    const uint8_t *packet = packet_l3(about, const uint8_t *);

    if (meta->flags &
        (PACKET_FRAGMENT | PACKET_LINK_MULTICAST | PACKET_IP_MULTICAST | PACKET_OF_OURS))
        return false;
    if (meta->l4_offset + (unsigned)TCP_HEADER > about->data_len)
        return false;
    if (meta->flags & PACKET_IPV6) {
        static const uint8_t unspecified[16];

        return packet[8] != 0xff && memcmp(packet + 8, unspecified, 16) != 0;
    }
    return packet[12] != 0 && packet[12] != 127 && packet[12] < 224;
}

/* SEG.LEN of RFC 9293: data, and one each for SYN and FIN. The IP header says how long the packet
 * is; the frame may be padded. */
static uint32_t segment_length(struct rte_mbuf *about, const struct rte_tcp_hdr *tcp) {
    const struct packet_meta *meta = packet_meta(about);
    const uint8_t *packet = packet_l3(about, const uint8_t *);
    uint32_t end = meta->l3_offset;
    uint32_t data = meta->l4_offset + (tcp->data_off >> 4) * 4u;

    end += meta->flags & PACKET_IPV6 ? IPV6_HEADER + (uint32_t)rte_be_to_cpu_16(load16(packet + 4))
                                     : rte_be_to_cpu_16(load16(packet + 2));
    return (end > data ? end - data : 0) + ((tcp->tcp_flags & RTE_TCP_SYN_FLAG) != 0) +
           ((tcp->tcp_flags & RTE_TCP_FIN_FLAG) != 0);
}

static void fill_tcp(struct rte_tcp_hdr *reset, const struct rte_tcp_hdr *tcp, uint32_t length) {
    *reset = (struct rte_tcp_hdr){
        .src_port = tcp->dst_port,
        .dst_port = tcp->src_port,
        .data_off = TCP_HEADER / 4 << 4,
    };
    if (tcp->tcp_flags & RTE_TCP_ACK_FLAG) {
        reset->sent_seq = tcp->recv_ack;
        reset->tcp_flags = RTE_TCP_RST_FLAG;
    } else {
        reset->recv_ack = rte_cpu_to_be_32(rte_be_to_cpu_32(tcp->sent_seq) + length);
        reset->tcp_flags = RTE_TCP_RST_FLAG | RTE_TCP_ACK_FLAG;
    }
}

static void fill_v4(uint8_t *frame, const uint8_t *packet, struct rte_tcp_hdr *reset) {
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(frame + ETHER_HEADER);

    *ip = (struct rte_ipv4_hdr){
        .version_ihl = RTE_IPV4_VHL_DEF,
        .total_length = RTE_BE16(IPV4_HEADER + TCP_HEADER),
        .fragment_offset = RTE_BE16(RTE_IPV4_HDR_DF_FLAG),
        .time_to_live = RESET_TTL,
        .next_proto_id = IPPROTO_TCP,
        .src_addr = load32(packet + 16),
        .dst_addr = load32(packet + 12),
    };
    ip->hdr_checksum = rte_ipv4_cksum(ip);
    reset->cksum = rte_ipv4_udptcp_cksum(ip, reset);
}

static void fill_v6(uint8_t *frame, const uint8_t *packet, struct rte_tcp_hdr *reset) {
    struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(frame + ETHER_HEADER);

    *ip = (struct rte_ipv6_hdr){
        .vtc_flow = RTE_BE32(UINT32_C(6) << 28),
        .payload_len = RTE_BE16(TCP_HEADER),
        .proto = IPPROTO_TCP,
        .hop_limits = RESET_TTL,
    };
    memcpy(ip->src_addr, packet + 24, 16);
    memcpy(ip->dst_addr, packet + 8, 16);
    reset->cksum = rte_ipv6_udptcp_cksum(ip, reset);
}

void firewall_reset(struct worker *worker, struct rte_mbuf *about) {
    const struct packet_meta *meta = packet_meta(about);
    const uint8_t *packet = packet_l3(about, const uint8_t *);
    const bool ipv6 = meta->flags & PACKET_IPV6;
    const unsigned tcp_offset = ETHER_HEADER + (ipv6 ? IPV6_HEADER : IPV4_HEADER);
    const struct rte_tcp_hdr *tcp;
    struct rte_mbuf *reply;
    uint8_t *frame;

    if (!may_answer(about))
        return;
    tcp = rte_pktmbuf_mtod_offset(about, const struct rte_tcp_hdr *, meta->l4_offset);
    if (tcp->tcp_flags & RTE_TCP_RST_FLAG || !icmp_rate_allows(worker))
        return;
    reply = rte_pktmbuf_alloc(worker->pool);
    if (!reply)
        return;
    frame = (uint8_t *)rte_pktmbuf_append(reply, (uint16_t)(tcp_offset + TCP_HEADER));
    if (!frame) {
        rte_pktmbuf_free(reply);
        return;
    }
    memset(frame, 0, ETHER_HEADER);

    struct rte_tcp_hdr *reset = (struct rte_tcp_hdr *)(frame + tcp_offset);

    fill_tcp(reset, tcp, segment_length(about, tcp));
    if (ipv6)
        fill_v6(frame, packet, reset);
    else
        fill_v4(frame, packet, reset);
    /* Back to where the segment came from, also when a translation had taken it to another VRF. */
    *packet_meta(reply) = (struct packet_meta){
        .vrf = interface_table()->entry[meta->in_interface].vrf,
        .flags = (uint16_t)(PACKET_FROM_ROUTER | (ipv6 ? PACKET_IPV6 : 0)),
        .l3_offset = ETHER_HEADER,
        .l4_protocol = IPPROTO_TCP,
        .l4_offset = (uint16_t)tcp_offset,
    };
    icmp_send_reply(worker, reply, meta->in_interface);
}
