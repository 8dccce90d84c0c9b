/*
 * Neighbour Discovery packets: the checks that all received ones pass (RFC 4861 sections 6.1
 * and 7.1), and what all that are sent look like.
 *
 * Received packets may be forged, cut short, or in several buffers, so they are copied whole before
 * anybody looks at them, and every read is checked against the copy's length.
 */
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_ether.h>
#include <string.h>

#include "core/packet.h"
#include "core/worker.h"
#include "l3/link.h"
#include "l3/nd.h"

enum {
    IPV6_HEADER_LENGTH = 40,
    HOP_BY_HOP_LENGTH = 8, /* of what is sent */
    ETHERNET_HEADER = RTE_ETHER_HDR_LEN,
};

const struct ip_address nd_unspecified = {.family = AF_INET6};
const struct ip_address nd_all_nodes = {
    .family = AF_INET6, .bytes = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01}};
const struct ip_address nd_all_routers = {
    .family = AF_INET6, .bytes = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02}};

struct ip_address nd_solicited_node(const struct ip_address *address) {
    struct ip_address group = {.family = AF_INET6,
                               .bytes = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff}};

    memcpy(group.bytes + 13, address->bytes + 13, 3);
    return group;
}

/* ---- checksum: RFC 8200 section 8.1 ---- */

static uint32_t sum_bytes(uint32_t sum, const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i + 1 < length; i += 2)
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    if (length % 2)
        sum += (uint32_t)bytes[length - 1] << 8;
    return sum;
}

/* 0 over a message whose checksum is right. Messages are short: 32 bits hold the sum. */
static uint16_t checksum(const struct ip_address *source, const struct ip_address *destination,
                         const uint8_t *message, size_t length) {
    uint32_t sum = (uint32_t)length + IPPROTO_ICMPV6;

    sum = sum_bytes(sum, source->bytes, 16);
    sum = sum_bytes(sum, destination->bytes, 16);
    sum = sum_bytes(sum, message, length);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* ---- receiving ---- */

/* Finds the ICMPv6 message behind a hop-by-hop header, which MLD packets have. Other extension
 * headers have no place in these packets, and fragments must not be taken (RFC 6980). */
static bool find_message(struct nd_packet *packet, size_t length) {
    size_t offset = IPV6_HEADER_LENGTH;
    uint8_t next = packet->bytes[6];

    if (next == IPPROTO_HOPOPTS) {
        if (length < offset + 8) {
            nd_count(ND_SHORT);
            return false;
        }
        next = packet->bytes[offset];
        offset += (packet->bytes[offset + 1] + (size_t)1) * 8;
    }
    if (next != IPPROTO_ICMPV6) {
        nd_count(next == IPPROTO_FRAGMENT ? ND_FRAGMENTED : ND_NOT_ICMPV6);
        return false;
    }
    if (offset + 8 > length) { /* no type is shorter than that */
        nd_count(ND_SHORT);
        return false;
    }
    packet->message = packet->bytes + offset;
    packet->length = length - offset;
    return true;
}

bool nd_read(struct rte_mbuf *mbuf, struct nd_packet *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    size_t room = mbuf->pkt_len > meta->l3_offset ? mbuf->pkt_len - meta->l3_offset : 0, length;
    const void *bytes;

    out->interface = interface_by_id(meta->in_interface);
    out->to_group = (meta->flags & PACKET_LINK_MULTICAST) != 0;
    if (!out->interface || !out->interface->up) {
        nd_count(ND_NO_INTERFACE);
        return false;
    }
    if (meta->flags & PACKET_FRAGMENT) {
        nd_count(ND_FRAGMENTED);
        return false;
    }
    if (room < IPV6_HEADER_LENGTH || meta->l3_offset < ETHERNET_HEADER) {
        nd_count(ND_SHORT);
        return false;
    }
    bytes = rte_pktmbuf_read(mbuf, 6, 6, out->link_source);
    if (bytes != out->link_source)
        memcpy(out->link_source, bytes, 6);

    bytes = rte_pktmbuf_read(mbuf, meta->l3_offset, IPV6_HEADER_LENGTH, out->bytes);
    if (bytes != out->bytes)
        memcpy(out->bytes, bytes, IPV6_HEADER_LENGTH);
    length = IPV6_HEADER_LENGTH + ((size_t)out->bytes[4] << 8 | out->bytes[5]);
    if (out->bytes[0] >> 4 != 6) {
        nd_count(ND_NOT_ICMPV6);
        return false;
    }
    if (length > room) {
        nd_count(ND_SHORT);
        return false;
    }
    if (length > ND_RECEIVE_MAX) {
        nd_count(ND_TOO_LONG);
        return false;
    }
    bytes = rte_pktmbuf_read(mbuf, meta->l3_offset, (uint32_t)length, out->bytes);
    if (bytes != out->bytes)
        memcpy(out->bytes, bytes, length);

    out->hop_limit = out->bytes[7];
    out->source = ip6_address(out->bytes + 8);
    out->destination = ip6_address(out->bytes + 24);
    if (!find_message(out, length))
        return false;
    if (checksum(&out->source, &out->destination, out->message, out->length) != 0) {
        nd_count(ND_CHECKSUM);
        return false;
    }
    if (ip_address_is_multicast(&out->source)) {
        nd_count(ND_SOURCE);
        return false;
    }
    return true;
}

bool nd_read_options(const struct nd_packet *packet, size_t offset, struct nd_options *out) {
    *out = (struct nd_options){0};
    while (offset < packet->length) {
        const uint8_t *option = packet->message + offset;
        size_t left = packet->length - offset, length;

        length = left >= 2 ? (size_t)option[1] * 8 : 0;
        if (length == 0 || length > left) {
            nd_count(ND_OPTION_LENGTH);
            return false;
        }
        switch (option[0]) {
        case ND_OPTION_SOURCE_LINK:
        case ND_OPTION_TARGET_LINK:
            if (length != 8 || !link_mac_is_host(option + 2)) {
                nd_count(ND_LINK_OPTION);
                return false;
            }
            if (option[0] == ND_OPTION_SOURCE_LINK)
                out->source_link = option + 2;
            else
                out->target_link = option + 2;
            break;
        case ND_OPTION_NONCE:
            if (length == 8)
                out->nonce = option + 2;
            break;
        default: /* RFC 4861 section 4.6: skipped */
            break;
        }
        offset += length;
    }
    return true;
}

/* ---- sending ---- */

void nd_start(struct nd_message *message, uint8_t type, size_t length) {
    memset(message->bytes, 0, length);
    message->bytes[0] = type;
    message->length = length;
}

uint8_t *nd_add_option(struct nd_message *message, uint8_t type, size_t length) {
    uint8_t *option = message->bytes + message->length;

    memset(option, 0, length);
    option[0] = type;
    option[1] = (uint8_t)(length / 8);
    message->length += length;
    return option;
}

void nd_add_link_option(struct nd_message *message, uint8_t type, const uint8_t mac[6]) {
    memcpy(nd_add_option(message, type, 8) + 2, mac, 6);
}

/* RFC 2464 section 7. */
static void group_mac(const struct ip_address *group, uint8_t mac[6]) {
    mac[0] = mac[1] = 0x33;
    memcpy(mac + 2, group->bytes + 12, 4);
}

void nd_transmit(const struct interface *interface, const uint8_t *link_destination,
                 const struct ip_address *source, const struct ip_address *destination,
                 uint8_t hop_limit, bool router_alert, struct nd_message *message) {
    static const uint8_t alert[HOP_BY_HOP_LENGTH] = {
        IPPROTO_ICMPV6,
        0, /* next header; length: 8 bytes */
        5,
        2,
        0,
        0, /* router alert: MLD (RFC 2711) */
        1,
        0, /* PadN */
    };
    size_t extension = router_alert ? HOP_BY_HOP_LENGTH : 0;
    size_t payload = extension + message->length;
    size_t total = ETHERNET_HEADER + IPV6_HEADER_LENGTH + payload;
    struct packet_meta *meta;
    struct rte_mbuf *mbuf;
    uint8_t *frame, *ip;
    uint16_t sum;

    if (interface->if_id != 0)
        return; /* a tunnel has no link layer */
    mbuf = control_mbuf();
    frame = mbuf ? (uint8_t *)rte_pktmbuf_append(mbuf, (uint16_t)total) : NULL;
    if (!frame) {
        rte_pktmbuf_free(mbuf);
        nd_count(ND_NO_BUFFER);
        return;
    }
    if (link_destination)
        memcpy(frame, link_destination, 6);
    else
        group_mac(destination, frame);
    memcpy(frame + 6, interface->mac, 6);
    frame[12] = 0x86;
    frame[13] = 0xdd;

    ip = frame + ETHERNET_HEADER;
    memset(ip, 0, 8);
    ip[0] = 6 << 4;
    ip[4] = (uint8_t)(payload >> 8);
    ip[5] = (uint8_t)payload;
    ip[6] = router_alert ? IPPROTO_HOPOPTS : IPPROTO_ICMPV6;
    ip[7] = hop_limit;
    memcpy(ip + 8, source->bytes, 16);
    memcpy(ip + 24, destination->bytes, 16);
    memcpy(ip + IPV6_HEADER_LENGTH, alert, extension);

    message->bytes[2] = message->bytes[3] = 0;
    sum = checksum(source, destination, message->bytes, message->length);
    message->bytes[2] = (uint8_t)(sum >> 8);
    message->bytes[3] = (uint8_t)sum;
    memcpy(ip + IPV6_HEADER_LENGTH + extension, message->bytes, message->length);

    meta = packet_meta(mbuf);
    meta->l3_offset = ETHERNET_HEADER;
    meta->l4_offset = (uint16_t)(ETHERNET_HEADER + IPV6_HEADER_LENGTH + extension);
    meta->l4_protocol = IPPROTO_ICMPV6;
    meta->flags = PACKET_IPV6;
    meta->vrf = interface->vrf;
    control_transmit(mbuf, interface->id, interface->port->id);
}
