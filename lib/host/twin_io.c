/*
 * Frames between the twins and the workers.
 *
 * To Linux go the packets that workers punt, as untagged frames. From Linux comes what its programs
 * send, and it is checked as strictly as a frame from a link: raw sockets can send anything. Frames
 * from Linux are read into one contiguous buffer and copied into mbufs when they are found good.
 */
#include <errno.h>
#include <netinet/in.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/log.h"
#include "core/packet.h"
#include "core/punt.h"
#include "core/worker.h"
#include "host/host_internal.h"
#include "l3/header.h"
#include "l3/neighbour.h"

enum {
    FRAMES_PER_TURN = 64,
    FRAME_MAX = PORT_MTU_MAX + ETHER_VLAN_HEADER,
    SEGMENTS_MAX = 64, /* of a punted packet */
    EXTENSION_HEADERS_MAX = 8,
};

enum host_drop {
    HOST_NO_TWIN,
    HOST_CAME_BACK,
    HOST_SPOOFED,
    HOST_MALFORMED_PUNT,
    HOST_TWIN_FULL,
    HOST_TWIN_DOWN,
    HOST_TWIN_FAILED,
    HOST_INTERFACE_DOWN,
    HOST_TRUNCATED,
    HOST_TOO_LONG,
    HOST_SOURCE_MAC,
    HOST_ETHERTYPE,
    HOST_IPV4_HEADER,
    HOST_IPV4_LENGTH,
    HOST_IPV4_CHECKSUM,
    HOST_IPV6_VERSION,
    HOST_IPV6_LENGTH,
    HOST_IPV6_EXTENSION_HEADER,
    HOST_MARTIAN_SOURCE,
    HOST_FOREIGN_SOURCE,
    HOST_LINK_LOCAL_SOURCE,
    HOST_DESTINATION,
    HOST_NO_BUFFER,
    HOST_OK, /* not a drop */
};

static struct drop_group host_drops = {
    .name = "host",
    .reasons =
        (const char *const[]){
            /* to Linux */
            [HOST_NO_TWIN] = "no_twin",
            [HOST_CAME_BACK] = "came_back", /* from Linux to an address of the router; see host.h */
            [HOST_SPOOFED] = "spoofed_source",
            [HOST_MALFORMED_PUNT] = "malformed_punt",
            [HOST_TWIN_FULL] = "twin_full",
            [HOST_TWIN_DOWN] = "twin_down", /* somebody has set the device down in Linux */
            [HOST_TWIN_FAILED] = "twin_write_failed",
            /* from Linux */
            [HOST_INTERFACE_DOWN] = "interface_down",
            [HOST_TRUNCATED] = "truncated",
            [HOST_TOO_LONG] = "too_long",
            [HOST_SOURCE_MAC] = "source_mac",
            [HOST_ETHERTYPE] = "unknown_ethertype",
            [HOST_IPV4_HEADER] = "ipv4_header",
            [HOST_IPV4_LENGTH] = "ipv4_total_length",
            [HOST_IPV4_CHECKSUM] = "ipv4_checksum",
            [HOST_IPV6_VERSION] = "ipv6_version",
            [HOST_IPV6_LENGTH] = "ipv6_payload_length",
            [HOST_IPV6_EXTENSION_HEADER] = "ipv6_extension_header",
            [HOST_MARTIAN_SOURCE] = "martian_source",
            [HOST_FOREIGN_SOURCE] = "foreign_source", /* not an address of the router */
            [HOST_LINK_LOCAL_SOURCE] = "link_local_source",
            [HOST_DESTINATION] = "bad_destination",
            [HOST_NO_BUFFER] = "no_buffer",
            NULL,
        },
};
DROP_GROUP(host_drops)

static void count_drop(enum host_drop reason) {
    counters_drop(control_counters(), &host_drops, reason);
}

/* --- to Linux --- */

/* The 14 bytes of an untagged frame. What came from a link keeps its addresses; a unicast frame
 * gets the twin's address, because it may have come in by another interface, and what the router
 * made has no link-layer addresses at all. */
static void ethernet_header(uint8_t header[ETHER_HEADER], struct rte_mbuf *mbuf,
                            const struct interface *interface) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *received = rte_pktmbuf_mtod(mbuf, const uint8_t *);
    uint16_t ethertype =
        meta->flags & PACKET_IPV6 ? RTE_BE16(RTE_ETHER_TYPE_IPV6) : RTE_BE16(RTE_ETHER_TYPE_IPV4);

    memcpy(header, received, 12);
    if (!(meta->flags & PACKET_LINK_MULTICAST))
        memcpy(header, interface->mac, 6);
    if (meta->flags & (PACKET_OF_OURS | PACKET_REWRITE))
        memcpy(header + 6, interface->mac, 6);
    memcpy(header + 12, &ethertype, sizeof(ethertype));
}

static bool has_address(const struct interface *interface, const struct ip_address *address) {
    for (unsigned i = 0; i < interface->address_count; i++) {
        if (interface->addresses[i].state == ADDRESS_VALID &&
            ip_address_compare(&interface->addresses[i].prefix.address, address) == 0)
            return true;
    }
    return false;
}

/* Is it an address that the router may send from? A link-local one must be of this very interface:
 * others may have the same, and mean another link (RFC 4007). */
static bool own_address(const struct interface *interface, const struct ip_address *address) {
    if (has_address(interface, address))
        return true;
    if (address->family == AF_INET6 && ip_address_is_link_local(address))
        return false;
    for (const struct interface *other = NULL; (other = interface_next(other));) {
        if (other->vrf == interface->vrf && has_address(other, address))
            return true;
    }
    return false;
}

/* Did the router make the packet about itself, other than ICMP? See host.h. */
static bool came_back(const struct packet_meta *meta) {
    uint8_t icmp = meta->flags & PACKET_IPV6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;

    return meta->flags & PACKET_OF_OURS && meta->l4_protocol != icmp;
}

/* Did somebody else send it with an address of the router as its source? Linux takes such packets
 * from twins (twin_netlink_setup()), and programs may trust them. */
static bool is_spoofed(struct rte_mbuf *mbuf, const struct interface *interface) {
    const struct packet_meta *meta = packet_meta(mbuf);
    struct ip_address source = {.family = AF_INET};
    uint8_t header[24];
    const uint8_t *ip = rte_pktmbuf_read(mbuf, meta->l3_offset, sizeof(header), header);

    if (meta->flags & PACKET_OF_OURS || !ip)
        return false;
    if (meta->flags & PACKET_IPV6)
        source = ip6_address(ip + 8);
    else
        memcpy(source.bytes, ip + 12, 4);
    return own_address(interface, &source);
}

static enum host_drop write_frame(const struct twin *twin, struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    uint8_t header[ETHER_HEADER];
    struct iovec parts[1 + SEGMENTS_MAX] = {{.iov_base = header, .iov_len = sizeof(header)}};
    int count = 1;

    if (meta->l3_offset < ETHER_HEADER || meta->l3_offset >= mbuf->data_len ||
        mbuf->nb_segs > SEGMENTS_MAX)
        return HOST_MALFORMED_PUNT;
    ethernet_header(header, mbuf, twin->interface);
    for (struct rte_mbuf *segment = mbuf; segment; segment = segment->next) {
        unsigned skip = segment == mbuf ? meta->l3_offset : 0;

        parts[count++] = (struct iovec){.iov_base = rte_pktmbuf_mtod_offset(segment, void *, skip),
                                        .iov_len = segment->data_len - skip};
    }
    for (;;) {
        if (writev(twin->tap.fd, parts, count) >= 0)
            return HOST_OK;
        switch (errno) {
        case EINTR:
            continue;
        case EAGAIN:
            return HOST_TWIN_FULL;
        case EIO:
            return HOST_TWIN_DOWN;
        default: /* a device that is gone shows itself to twin_io_ready() */
            return HOST_TWIN_FAILED;
        }
    }
}

static void punted(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const struct twin *twin = twin_of(meta->in_interface);
    enum host_drop reason;

    if (came_back(meta))
        reason = HOST_CAME_BACK;
    else if (!twin)
        reason = HOST_NO_TWIN;
    else if (is_spoofed(mbuf, twin->interface))
        reason = HOST_SPOOFED;
    else
        reason = write_frame(twin, mbuf);
    if (reason != HOST_OK)
        count_drop(reason);
    rte_pktmbuf_free(mbuf);
}

/* --- from Linux: checks --- */

/* A frame that is being looked at. */
struct frame {
    uint8_t *bytes;
    unsigned length; /* without padding once the IP header was read */
    uint16_t flags;
    uint8_t l4_protocol;
    uint16_t l4_offset;
    struct ip_address source, destination;
};

static bool is_extension_header(uint8_t next) {
    return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT ||
           next == IPPROTO_DSTOPTS || next == IPPROTO_AH || next == IPPROTO_MH;
}

static enum host_drop check_ipv4(struct frame *frame) {
    const uint8_t *packet = frame->bytes + ETHER_HEADER;
    const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)packet;
    unsigned room = frame->length - ETHER_HEADER;

    if (room < IPV4_HEADER)
        return HOST_TRUNCATED;

    unsigned header_length = rte_ipv4_hdr_len(ip);
    unsigned total_length = rte_be_to_cpu_16(load16(packet + 2));
    uint16_t fragment = rte_be_to_cpu_16(load16(packet + 6)) & IPV4_FRAGMENT_BITS;

    if (packet[0] >> 4 != 4 || header_length < IPV4_HEADER)
        return HOST_IPV4_HEADER;
    if (total_length < header_length || total_length > room)
        return HOST_IPV4_LENGTH;
    if (rte_raw_cksum(packet, header_length) != 0xffff)
        return HOST_IPV4_CHECKSUM;
    frame->length = ETHER_HEADER + total_length;
    frame->flags = (uint16_t)((header_length > IPV4_HEADER ? PACKET_OPTIONS : 0) |
                              (fragment ? PACKET_FRAGMENT : 0) |
                              ((fragment & RTE_IPV4_HDR_OFFSET_MASK) ? PACKET_LATER_FRAGMENT : 0));
    frame->l4_protocol = packet[9];
    frame->l4_offset = (uint16_t)(ETHER_HEADER + header_length);
    frame->source = ip4_address(packet + 12);
    frame->destination = ip4_address(packet + 16);
    return HOST_OK;
}

/* RFC 8200 section 4: as far as later stages must know where the transport header is. */
static enum host_drop check_extension_headers(struct frame *frame) {
    uint8_t next = frame->l4_protocol;
    unsigned at = frame->l4_offset;

    for (unsigned count = 0; is_extension_header(next); count++) {
        const uint8_t *header = frame->bytes + at;

        if (count == EXTENSION_HEADERS_MAX || at + 8 > frame->length)
            return HOST_IPV6_EXTENSION_HEADER;

        unsigned length = next == IPPROTO_FRAGMENT ? 8
                          : next == IPPROTO_AH     ? (header[1] + 2u) * 4
                                                   : (header[1] + 1u) * 8;

        if (at + length > frame->length || (next == IPPROTO_HOPOPTS && count != 0))
            return HOST_IPV6_EXTENSION_HEADER;
        if (next == IPPROTO_HOPOPTS)
            frame->flags |= PACKET_OPTIONS;
        if (next == IPPROTO_FRAGMENT) {
            uint16_t offset = rte_be_to_cpu_16(load16(header + 2));

            if (offset & 0xfff9) /* an atomic fragment (RFC 6946) is a whole packet */
                frame->flags |= PACKET_FRAGMENT;
            if (offset & 0xfff8)
                frame->flags |= PACKET_LATER_FRAGMENT;
        }
        next = header[0];
        at += length;
        if (frame->flags & PACKET_LATER_FRAGMENT)
            break; /* what follows is payload */
    }
    frame->l4_protocol = next;
    frame->l4_offset = (uint16_t)at;
    return HOST_OK;
}

static enum host_drop check_ipv6(struct frame *frame) {
    const uint8_t *packet = frame->bytes + ETHER_HEADER;
    unsigned room = frame->length - ETHER_HEADER;

    if (room < IPV6_HEADER)
        return HOST_TRUNCATED;
    if (packet[0] >> 4 != 6)
        return HOST_IPV6_VERSION;

    unsigned total_length = IPV6_HEADER + rte_be_to_cpu_16(load16(packet + 4));

    if (total_length > room)
        return HOST_IPV6_LENGTH;
    frame->length = ETHER_HEADER + total_length;
    frame->flags = PACKET_IPV6;
    frame->l4_protocol = packet[6];
    frame->l4_offset = ETHER_HEADER + IPV6_HEADER;
    frame->source = ip6_address(packet + 8);
    frame->destination = ip6_address(packet + 24);
    return check_extension_headers(frame);
}

static enum host_drop check_frame(const struct twin *twin, struct frame *frame) {
    const struct interface *interface = twin->interface;
    enum host_drop reason;

    if (!interface->up)
        return HOST_INTERFACE_DOWN;
    if (frame->length < ETHER_HEADER)
        return HOST_TRUNCATED;
    /* A twin is a host, not a bridge: a frame of another sender would teach switches nonsense. */
    if (memcmp(frame->bytes + 6, interface->mac, 6) != 0)
        return HOST_SOURCE_MAC;
    switch (load16(frame->bytes + 12)) {
    case RTE_BE16(RTE_ETHER_TYPE_IPV4):
        reason = check_ipv4(frame);
        break;
    case RTE_BE16(RTE_ETHER_TYPE_IPV6):
        reason = check_ipv6(frame);
        break;
    default:
        return HOST_ETHERTYPE;
    }
    if (reason != HOST_OK)
        return reason;
    if (frame->length - ETHER_HEADER > interface->mtu)
        return HOST_TOO_LONG;
    if (ip_address_is_multicast(&frame->source) || ip_address_is_loopback(&frame->source))
        return HOST_MARTIAN_SOURCE;
    return HOST_OK;
}

/* --- from Linux: on its way --- */

static bool is_connected(const struct interface *interface, const struct ip_address *address) {
    for (unsigned i = 0; i < interface->address_count; i++) {
        if (interface->addresses[i].state == ADDRESS_VALID &&
            ip_prefix_contains(&interface->addresses[i].prefix, address))
            return true;
    }
    return false;
}

/* An IPv4 address that all hosts of this link listen to: the limited broadcast address, or that of
 * a prefix of the interface (RFC 919). */
static bool is_broadcast(const struct interface *interface, const struct ip_address *address) {
    if (address->family != AF_INET)
        return false;

    uint32_t number = ip4_host_order(address);

    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct ip_prefix *prefix = &interface->addresses[i].prefix;

        if (prefix->address.family != AF_INET || prefix->length > 30)
            continue;

        uint32_t host_bits = UINT32_MAX >> prefix->length;

        if (number == (ip4_host_order(&prefix->address) | host_bits))
            return true;
    }
    return number == INADDR_BROADCAST;
}

/* A copy in mbufs, with room in front for a VLAN tag; NULL when there are none left. */
static struct rte_mbuf *copy_frame(const struct frame *frame) {
    struct rte_mbuf *head = NULL;

    for (unsigned done = 0; done < frame->length;) {
        struct rte_mbuf *segment = control_mbuf();

        if (!segment || (head && rte_pktmbuf_chain(head, segment) != 0)) {
            rte_pktmbuf_free(segment);
            rte_pktmbuf_free(head);
            return NULL;
        }
        if (!head)
            head = segment;

        unsigned part = RTE_MIN(frame->length - done, (unsigned)rte_pktmbuf_tailroom(segment));

        memcpy(rte_pktmbuf_append(head, (uint16_t)part), frame->bytes + done, part);
        done += part;
    }
    return head;
}

/* What is to be done with a good frame. */
enum way { WAY_DROP, WAY_TRANSMIT, WAY_ROUTE, WAY_RESOLVE };

static enum way choose_way(const struct interface *interface, struct frame *frame,
                           enum host_drop *reason) {
    const struct ip_address *source = &frame->source, *destination = &frame->destination;
    bool ipv6 = frame->flags & PACKET_IPV6;

    if (frame->bytes[0] & 1)
        return WAY_TRANSMIT;
    if (!ip_address_is_unspecified(source) && !own_address(interface, source)) {
        *reason = HOST_FOREIGN_SOURCE;
        return WAY_DROP;
    }
    if (memcmp(frame->bytes, interface->mac, 6) != 0)
        return WAY_TRANSMIT;
    /* On a device without ARP Linux sends its sockets' broadcasts, too, to the device's address. */
    if (is_broadcast(interface, destination)) {
        memset(frame->bytes, 0xff, 6);
        return WAY_TRANSMIT;
    }
    if (ip_address_is_multicast(destination)) {
        *reason = HOST_DESTINATION;
        return WAY_DROP;
    }
    if (ipv6 && ip_address_is_link_local(destination)) {
        if (!has_address(interface, destination))
            return WAY_RESOLVE;
        *reason = HOST_DESTINATION;
        return WAY_DROP;
    }
    /* RFC 4007 section 9: what comes from a link-local address stays on its link. */
    if (ipv6 && ip_address_is_link_local(source) && !is_connected(interface, destination)) {
        *reason = HOST_LINK_LOCAL_SOURCE;
        return WAY_DROP;
    }
    return WAY_ROUTE;
}

static enum host_drop take_frame(const struct twin *twin, struct frame *frame) {
    const struct interface *interface = twin->interface;
    enum host_drop reason = check_frame(twin, frame);
    struct rte_mbuf *mbuf;

    if (reason != HOST_OK)
        return reason;

    enum way way = choose_way(interface, frame, &reason);

    if (way == WAY_DROP)
        return reason;
    mbuf = copy_frame(frame);
    if (!mbuf)
        return HOST_NO_BUFFER;
    *packet_meta(mbuf) = (struct packet_meta){
        .vrf = interface->vrf,
        .flags = frame->flags | PACKET_FROM_HOST,
        .l3_offset = ETHER_HEADER,
        .l4_protocol = frame->l4_protocol,
        .l4_offset = frame->l4_offset,
    };
    if (way == WAY_TRANSMIT) {
        control_transmit(mbuf, interface->id, interface->port->id);
    } else if (way == WAY_RESOLVE) {
        packet_meta(mbuf)->out_interface = interface->id;
        neighbour_resolve(mbuf);
    } else {
        control_route(mbuf);
    }
    return HOST_OK;
}

/* Level-triggered: what is left after the last frame of this turn is told again. */
void twin_io_ready(struct event_fd *tap, uint32_t events) {
    static uint8_t buffer[FRAME_MAX] __attribute__((aligned(16)));
    struct twin *twin = tap->context;

    (void)events;
    for (unsigned i = 0; i < FRAMES_PER_TURN; i++) {
        ssize_t length = read(tap->fd, buffer, sizeof(buffer));

        if (length < 0) {
            if (errno != EAGAIN && errno != EINTR)
                twin_lost(twin, errno);
            return;
        }

        struct frame frame = {.bytes = buffer, .length = (unsigned)length};
        enum host_drop reason = take_frame(twin, &frame);

        if (reason != HOST_OK)
            count_drop(reason);
    }
}

void twin_io_init(void) {
    punt_set_handler(PUNT_IKE, punted);
    punt_set_handler(PUNT_ROUTING, punted);
    punt_set_handler(PUNT_OTHER, punted);
}
