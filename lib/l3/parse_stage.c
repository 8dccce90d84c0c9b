/*
 * Stage `parse`: from a frame to a validated IP packet that belongs to an interface.
 *
 * The usual packet (untagged, to our MAC, plain IPv4 or IPv6, no options, no fragment) is checked
 * in one straight line; everything else goes through parse_special(), which decides by name.
 * Validation follows RFC 1812 section 5.2.2 and 5.3.7 for IPv4, RFC 8200 and RFC 4291 section 2.5
 * for IPv6.
 */
#include <netinet/in.h>
#include <rte_prefetch.h>

#include "core/stage.h"
#include "core/worker.h"
#include "interface/interface.h"
#include "l3/header.h"
#include "l3/next_hop.h"
#include "l3/parse.h"

enum parse_drop {
    PARSE_TRUNCATED,
    PARSE_NO_INTERFACE,
    PARSE_UNKNOWN_VLAN,
    PARSE_STACKED_VLAN,
    PARSE_INTERFACE_DOWN,
    PARSE_NOT_FOR_US,
    PARSE_UNKNOWN_ETHERTYPE,
    PARSE_IPV4_VERSION,
    PARSE_IPV4_HEADER_LENGTH,
    PARSE_IPV4_TOTAL_LENGTH,
    PARSE_IPV4_CHECKSUM,
    PARSE_IPV4_MARTIAN_SOURCE,
    PARSE_IPV4_SOURCE_ROUTE,
    PARSE_IPV4_OPTIONS,
    PARSE_IPV6_VERSION,
    PARSE_IPV6_PAYLOAD_LENGTH,
    PARSE_IPV6_MARTIAN_SOURCE,
    PARSE_IPV6_MARTIAN_DESTINATION,
    PARSE_IPV6_HOP_BY_HOP,
    PARSE_IPV6_EXTENSION_HEADER,
    /* Not drops: */
    PARSE_OK,
    PARSE_DIVERT, /* leaves the path with meta->cause */
};

static const char *const reasons[] = {
    [PARSE_TRUNCATED] = "truncated",
    [PARSE_NO_INTERFACE] = "no_interface",
    [PARSE_UNKNOWN_VLAN] = "unknown_vlan",
    [PARSE_STACKED_VLAN] = "stacked_vlan",
    [PARSE_INTERFACE_DOWN] = "interface_down",
    [PARSE_NOT_FOR_US] = "not_for_us",
    [PARSE_UNKNOWN_ETHERTYPE] = "unknown_ethertype",
    [PARSE_IPV4_VERSION] = "ipv4_version",
    [PARSE_IPV4_HEADER_LENGTH] = "ipv4_header_length",
    [PARSE_IPV4_TOTAL_LENGTH] = "ipv4_total_length",
    [PARSE_IPV4_CHECKSUM] = "ipv4_checksum",
    [PARSE_IPV4_MARTIAN_SOURCE] = "ipv4_martian_source",
    [PARSE_IPV4_SOURCE_ROUTE] = "ipv4_source_route",
    [PARSE_IPV4_OPTIONS] = "ipv4_bad_options",
    [PARSE_IPV6_VERSION] = "ipv6_version",
    [PARSE_IPV6_PAYLOAD_LENGTH] = "ipv6_payload_length",
    [PARSE_IPV6_MARTIAN_SOURCE] = "ipv6_martian_source",
    [PARSE_IPV6_MARTIAN_DESTINATION] = "ipv6_martian_destination",
    [PARSE_IPV6_HOP_BY_HOP] = "ipv6_hop_by_hop_option",
    [PARSE_IPV6_EXTENSION_HEADER] = "ipv6_extension_header",
    NULL,
};

/* What the straight line leaves to parse_special(), by first octet or by next header. */
static const uint8_t ipv4_special_source[256] = {
    [0] = 1, [127] = 1, [224 ... 255] = 1, /* RFC 1122 section 3.2.1.3: never a source */
};
static const uint8_t ipv6_unicast[256] = {[0x20 ... 0x3f] = 1, [0xfc ... 0xfd] = 1};
static const uint8_t ipv6_extension_header[256] = {
    [IPPROTO_HOPOPTS] = 1, [IPPROTO_ROUTING] = 1, [IPPROTO_FRAGMENT] = 1,
    [IPPROTO_DSTOPTS] = 1, [IPPROTO_AH] = 1,      [IPPROTO_MH] = 1,
};

/* Metadata goes out in three 8-byte stores; the layout is packet_meta's. */
static inline uint64_t meta_word0(const struct interface_entry *interface) {
    return (uint64_t)interface->id << 32;
}

static inline uint64_t meta_word1(const struct interface_entry *interface, uint16_t flags,
                                  uint8_t l3_offset, uint8_t protocol, uint16_t l4_offset) {
    return interface->vrf | (uint64_t)flags << 16 | (uint64_t)l3_offset << 32 |
           (uint64_t)protocol << 40 | (uint64_t)l4_offset << 48;
}

static inline void set_meta(struct rte_mbuf *mbuf, const struct interface_entry *interface,
                            uint16_t flags, uint8_t l3_offset, uint8_t protocol,
                            uint16_t l4_offset) {
    uint64_t *words = (uint64_t *)packet_meta(mbuf);

    words[0] = meta_word0(interface);
    words[1] = meta_word1(interface, flags, l3_offset, protocol, l4_offset);
    words[2] = 0;
}

/* --- special packets --- */

/* Ethernet padding goes away, so that lengths are those of the IP packet from here on. */
bool parse_trim(struct rte_mbuf *mbuf, uint32_t length) {
    while (mbuf->pkt_len > length) {
        struct rte_mbuf *last = rte_pktmbuf_lastseg(mbuf);
        uint32_t excess = mbuf->pkt_len - length;

        if (excess < last->data_len || mbuf->nb_segs == 1)
            return rte_pktmbuf_trim(mbuf, (uint16_t)excess) == 0;

        /* The last segment is all padding: unlink it. */
        struct rte_mbuf *before = mbuf;

        while (before->next != last)
            before = before->next;
        before->next = NULL;
        mbuf->nb_segs--;
        mbuf->pkt_len -= last->data_len;
        rte_pktmbuf_free_seg(last);
    }
    return true;
}

static enum parse_drop ipv4_options(const uint8_t *options, unsigned length) {
    for (unsigned at = 0; at < length;) {
        uint8_t type = options[at];

        if (type == IPV4_OPTION_END)
            break;
        if (type == IPV4_OPTION_NOP) {
            at++;
            continue;
        }
        if (at + 1 >= length || options[at + 1] < 2 || at + options[at + 1] > length)
            return PARSE_IPV4_OPTIONS;
        if (type == IPV4_OPTION_LSRR || type == IPV4_OPTION_SSRR)
            return PARSE_IPV4_SOURCE_ROUTE; /* RFC 7126 section 4.3, 4.4 */
        at += options[at + 1];
    }
    return PARSE_OK;
}

/* A DHCP client behind the twin of an interface without an address is answered at the address it is
 * about to get (RFC 2131 section 4.1), which no route knows yet. */
static bool wants_dhcp(const struct interface_entry *interface) {
    return interface->flags & INTERFACE_TWIN && interface->ipv4_source == 0;
}

static bool is_dhcp_reply(const uint8_t *packet, unsigned header_length, unsigned contiguous,
                          uint16_t flags) {
    enum { DHCP_CLIENT_PORT = 68 };

    return packet[9] == IPPROTO_UDP && !(flags & PACKET_LATER_FRAGMENT) &&
           header_length + 4 <= contiguous &&
           load16(packet + header_length + 2) == RTE_BE16(DHCP_CLIENT_PORT);
}

static enum parse_drop parse_ipv4(struct rte_mbuf *mbuf, const struct interface_entry *interface,
                                  uint8_t l3_offset, uint16_t flags, bool checksum_checked) {
    const uint8_t *packet = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, l3_offset);
    const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)packet;
    unsigned contiguous = mbuf->data_len - l3_offset;

    if (contiguous < IPV4_HEADER)
        return PARSE_TRUNCATED;
    if (ip->version_ihl >> 4 != 4)
        return PARSE_IPV4_VERSION;

    unsigned header_length = rte_ipv4_hdr_len(ip);
    unsigned total_length = rte_be_to_cpu_16(ip->total_length);

    if (header_length < IPV4_HEADER)
        return PARSE_IPV4_HEADER_LENGTH;
    if (total_length < header_length || total_length > mbuf->pkt_len - l3_offset)
        return PARSE_IPV4_TOTAL_LENGTH;
    if (header_length > contiguous)
        return PARSE_TRUNCATED;
    if (!(checksum_checked &&
          (mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD) &&
        rte_raw_cksum(ip, header_length) != 0xffff)
        return PARSE_IPV4_CHECKSUM;
    if (!parse_trim(mbuf, l3_offset + total_length))
        return PARSE_IPV4_TOTAL_LENGTH;

    /* A host that asks for an address (RFC 2131) has none yet; that only goes to us. */
    bool unspecified_to_all = ip->src_addr == 0 && ip->dst_addr == UINT32_MAX;

    if (ipv4_special_source[packet[12]] && !unspecified_to_all)
        return PARSE_IPV4_MARTIAN_SOURCE;
    if (header_length > IPV4_HEADER) {
        enum parse_drop drop = ipv4_options(packet + IPV4_HEADER, header_length - IPV4_HEADER);

        if (drop != PARSE_OK)
            return drop;
        flags |= PACKET_OPTIONS;
    }

    uint16_t fragment = rte_be_to_cpu_16(ip->fragment_offset) & IPV4_FRAGMENT_BITS;

    if (fragment)
        flags |= PACKET_FRAGMENT;
    if (fragment & RTE_IPV4_HDR_OFFSET_MASK)
        flags |= PACKET_LATER_FRAGMENT;
    if (packet[16] >> 4 == 14)
        flags |= PACKET_IP_MULTICAST | PACKET_LOCAL;
    if (wants_dhcp(interface) && is_dhcp_reply(packet, header_length, contiguous, flags))
        flags |= PACKET_LOCAL;
    if (ip->time_to_live <= 1)
        flags |= PACKET_LAST_HOP;
    set_meta(mbuf, interface, flags, l3_offset, ip->next_proto_id,
             (uint16_t)(l3_offset + header_length));
    if (flags & PACKET_LOCAL)
        packet_meta(mbuf)->next_hop = NEXT_HOP_ID_LOCAL;
    return PARSE_OK;
}

/* Where the parameter problem is; the packet leaves the path. */
static enum parse_drop parameter_problem(struct rte_mbuf *mbuf, unsigned pointer) {
    packet_meta(mbuf)->cause = CAUSE_PARAMETER;
    packet_meta(mbuf)->pointer = (uint16_t)pointer;
    return PARSE_DIVERT;
}

/* RFC 8200 section 4.2: what the two highest bits of an unknown option's type ask for. */
static enum parse_drop hop_by_hop(struct rte_mbuf *mbuf, const uint8_t *packet, unsigned from,
                                  unsigned end, bool multicast) {
    unsigned at = from + 2;

    while (at < end) {
        uint8_t type = packet[at];

        if (type == IPV6_OPTION_PAD1) {
            at++;
            continue;
        }
        if (at + 1 >= end || at + 2 + packet[at + 1] > end)
            return PARSE_IPV6_HOP_BY_HOP;
        if (type != IPV6_OPTION_PADN && type != IPV6_OPTION_ROUTER_ALERT && type >> 6 != 0) {
            if (type >> 6 == 1 || (type >> 6 == 3 && multicast))
                return PARSE_IPV6_HOP_BY_HOP;
            return parameter_problem(mbuf, at);
        }
        at += 2u + packet[at + 1];
    }
    return PARSE_OK;
}

/* Walks the extension headers that lie in the first segment. At most eight: more is an attack. */
static enum parse_drop ipv6_extensions(struct rte_mbuf *mbuf, const uint8_t *packet,
                                       unsigned contiguous, unsigned l3_offset) {
    enum { HEADERS_MAX = 8 };
    struct packet_meta *meta = packet_meta(mbuf);
    uint8_t next = packet[6];
    unsigned at = IPV6_HEADER;

    for (unsigned count = 0; ipv6_extension_header[next]; count++) {
        if (count == HEADERS_MAX || at + 8 > contiguous)
            return PARSE_IPV6_EXTENSION_HEADER;

        unsigned length = next == IPPROTO_FRAGMENT ? 8
                          : next == IPPROTO_AH     ? (packet[at + 1] + 2u) * 4
                                                   : (packet[at + 1] + 1u) * 8;

        if (at + length > contiguous)
            return PARSE_IPV6_EXTENSION_HEADER;
        if (next == IPPROTO_HOPOPTS) {
            if (count != 0)
                return PARSE_IPV6_EXTENSION_HEADER; /* only directly after the IPv6 header */
            meta->flags |= PACKET_OPTIONS;

            enum parse_drop drop = hop_by_hop(mbuf, packet, at, at + length, packet[24] == 0xff);

            if (drop != PARSE_OK)
                return drop;
        }
        if (next == IPPROTO_FRAGMENT) {
            uint16_t offset = rte_be_to_cpu_16(load16(packet + at + 2));

            if (offset & 0xfff9) /* an atomic fragment (RFC 6946) is a whole packet */
                meta->flags |= PACKET_FRAGMENT;
            if (offset & 0xfff8)
                meta->flags |= PACKET_LATER_FRAGMENT;
        }
        next = packet[at];
        at += length;
        if (meta->flags & PACKET_LATER_FRAGMENT)
            break; /* what follows is payload */
    }
    meta->l4_protocol = next;
    meta->l4_offset = (uint16_t)(l3_offset + at);
    return PARSE_OK;
}

static bool ipv6_is_zero_up_to(const uint8_t *address, unsigned bytes) {
    static const uint8_t zero[16];

    return memcmp(address, zero, bytes) == 0;
}

static bool ipv6_is_link_local(const uint8_t *address) {
    return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

static enum parse_drop parse_ipv6(struct rte_mbuf *mbuf, const struct interface_entry *interface,
                                  uint8_t l3_offset, uint16_t flags) {
    const uint8_t *packet = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, l3_offset);
    unsigned contiguous = mbuf->data_len - l3_offset;

    if (contiguous < IPV6_HEADER)
        return PARSE_TRUNCATED;
    if (packet[0] >> 4 != 6)
        return PARSE_IPV6_VERSION;

    const uint8_t *source = packet + 8, *destination = packet + 24;
    unsigned total_length = IPV6_HEADER + rte_be_to_cpu_16(load16(packet + 4));

    if (total_length > mbuf->pkt_len - l3_offset || !parse_trim(mbuf, l3_offset + total_length))
        return PARSE_IPV6_PAYLOAD_LENGTH;
    contiguous = RTE_MIN(contiguous, total_length);
    flags |= PACKET_IPV6;

    bool multicast = destination[0] == 0xff;

    /* ::1 never on a link; :: only by hosts in duplicate address detection, to a group. */
    if (source[0] == 0xff || (ipv6_is_zero_up_to(source, 15) && source[15] == 1) ||
        (ipv6_is_zero_up_to(source, 16) && !multicast))
        return PARSE_IPV6_MARTIAN_SOURCE;
    /* Scopes 0 and 1 must not appear on a link (RFC 4291 section 2.7). */
    if (multicast && (destination[1] & 0x0f) <= 1)
        return PARSE_IPV6_MARTIAN_DESTINATION;
    if (multicast)
        flags |= PACKET_IP_MULTICAST | PACKET_LOCAL;
    if (packet[7] <= 1)
        flags |= PACKET_LAST_HOP;
    if (ipv6_is_link_local(source))
        flags |= PACKET_LINK_LOCAL_SOURCE;
    if (ipv6_is_link_local(destination)) {
        if (memcmp(destination, interface->ipv6_link_local, 16) != 0)
            return PARSE_IPV6_MARTIAN_DESTINATION; /* never forwarded: RFC 4291 section 2.5.6 */
        flags |= PACKET_LOCAL;
    }
    set_meta(mbuf, interface, flags, l3_offset, packet[6], (uint16_t)(l3_offset + IPV6_HEADER));
    if (flags & PACKET_LOCAL)
        packet_meta(mbuf)->next_hop = NEXT_HOP_ID_LOCAL;
    return ipv6_extension_header[packet[6]] ? ipv6_extensions(mbuf, packet, contiguous, l3_offset)
                                            : PARSE_OK;
}

/* Everything that the straight line did not take. */
static enum parse_drop parse_special(struct worker *worker, struct rte_mbuf *mbuf,
                                     const struct interface_table *table,
                                     const struct port_interfaces *port) {
    const uint8_t *frame = rte_pktmbuf_mtod(mbuf, const uint8_t *);
    uint16_t id = port->untagged;
    uint8_t l3_offset = ETHER_HEADER;

    packet_meta(mbuf)->l3_offset = l3_offset;
    if (mbuf->data_len < ETHER_HEADER)
        return PARSE_TRUNCATED;

    uint16_t ethertype = load16(frame + 12);

    if (ethertype == RTE_BE16(RTE_ETHER_TYPE_VLAN)) {
        if (mbuf->data_len < ETHER_VLAN_HEADER)
            return PARSE_TRUNCATED;

        uint16_t vlan = rte_be_to_cpu_16(load16(frame + 14)) & (VLAN_IDS - 1);

        if (vlan != 0) /* 0: a priority tag only */
            id = port->by_vlan ? port->by_vlan[vlan] : 0;
        if (id == 0)
            return PARSE_UNKNOWN_VLAN;
        ethertype = load16(frame + 16);
        l3_offset = ETHER_VLAN_HEADER;
    }
    if (ethertype == RTE_BE16(RTE_ETHER_TYPE_VLAN) || ethertype == RTE_BE16(RTE_ETHER_TYPE_QINQ))
        return PARSE_STACKED_VLAN;
    if (id == 0)
        return PARSE_NO_INTERFACE;

    const struct interface_entry *interface = &table->entry[id];
    struct interface_counters *counters = &worker->counters->interface[id];
    uint64_t destination = load64(frame) & MAC_BITS;
    uint16_t flags = 0;

    counters->rx_packets++;
    counters->rx_bytes += mbuf->pkt_len;
    if (!(interface->flags & INTERFACE_UP))
        return PARSE_INTERFACE_DOWN;
    if (destination & MAC_GROUP_BIT)
        flags |= PACKET_LINK_MULTICAST;
    else if (destination != interface->mac_bits)
        return PARSE_NOT_FOR_US;
    switch (ethertype) {
    case RTE_BE16(RTE_ETHER_TYPE_IPV4):
        return parse_ipv4(mbuf, interface, l3_offset, flags, port->rx_checksum_checked);
    case RTE_BE16(RTE_ETHER_TYPE_IPV6):
        return parse_ipv6(mbuf, interface, l3_offset, flags);
    case RTE_BE16(RTE_ETHER_TYPE_ARP):
        set_meta(mbuf, interface, flags, l3_offset, 0, l3_offset);
        packet_meta(mbuf)->cause = CAUSE_ARP;
        return PARSE_DIVERT;
    default:
        return PARSE_UNKNOWN_ETHERTYPE;
    }
}

/* --- the straight line --- */

/* EtherType and the first octet of the IP header (version; for IPv4 the header's length too), as
 * they come with one little-endian load. */
enum {
    KIND_BITS = 0xffffff,
    KIND_IPV4 = 0x450008,
    KIND_IPV6 = 0x60dd86,
    KIND_IPV6_BITS = 0xf0ffff,
};

/* What the plain frames of this burst have in common. */
struct plain {
    uint32_t mac_first; /* the destination: first four and last two octets, as they are loaded */
    uint16_t mac_last;
    uint64_t meta;                 /* packet_meta's first word */
    uint64_t meta_ipv4, meta_ipv6; /* the second word, but for the protocol */
};

/* Is the frame in one piece and of this length? */
static inline bool fills_frame(const struct rte_mbuf *mbuf, uint32_t length) {
    return mbuf->pkt_len == length && mbuf->data_len == length;
}

/* A packet of version 4 with 20 bytes of header: no fragment, hops left, an ordinary source and
 * destination, the right length and checksum. Each test is a branch of its own: they are never
 * taken on usual traffic, and so cost half of what gathering the results in a register does. */
static inline bool ipv4_is_plain(const uint8_t *ip, const struct rte_mbuf *mbuf,
                                 bool checksum_checked) {
    enum { FIRST_GROUP = 224 };
    uint32_t total_length = rte_be_to_cpu_16(load16(ip + 2));

    if (unlikely(load16(ip + 6) & RTE_BE16(IPV4_FRAGMENT_BITS)))
        return false;
    if (unlikely(ip[8] <= 1 || ip[16] >= FIRST_GROUP || ipv4_special_source[ip[12]]))
        return false;
    if (unlikely(total_length < IPV4_HEADER || !fills_frame(mbuf, total_length + ETHER_HEADER)))
        return false;
    return (checksum_checked &&
            (mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD) ||
           likely(header_checksum_right(load64(ip), load64(ip + 8), load32(ip + 16)));
}

/* Global unicast (2000::/3) and unique local (fc00::/7) addresses only; all others have something
 * special about them. */
static inline bool ipv6_is_plain(const uint8_t *ip, const struct rte_mbuf *mbuf) {
    uint32_t payload_length = rte_be_to_cpu_16(load16(ip + 4));

    return likely(ip[7] > 1 && !ipv6_extension_header[ip[6]] && ipv6_unicast[ip[8]] &&
                  ipv6_unicast[ip[24]] &&
                  fills_frame(mbuf, payload_length + ETHER_HEADER + IPV6_HEADER));
}

/* True, with metadata set, when the frame is plain. */
static inline bool parse_plain(struct rte_mbuf *mbuf, const struct plain *plain, unsigned *ipv6,
                               bool checksum_checked) {
    const uint8_t *frame = rte_pktmbuf_mtod(mbuf, const uint8_t *);
    const uint8_t *ip = frame + ETHER_HEADER;
    uint64_t *meta = (uint64_t *)packet_meta(mbuf);
    uint32_t kind = load32(frame + 12) & KIND_BITS;

    if (unlikely(load32(frame) != plain->mac_first || load16(frame + 4) != plain->mac_last))
        return false;
    if (likely(kind == KIND_IPV4)) {
        if (unlikely(!ipv4_is_plain(ip, mbuf, checksum_checked)))
            return false;
        meta[1] = plain->meta_ipv4 | (uint64_t)ip[9] << 40;
    } else {
        if (unlikely((kind & KIND_IPV6_BITS) != KIND_IPV6 || !ipv6_is_plain(ip, mbuf)))
            return false;
        meta[1] = plain->meta_ipv6 | (uint64_t)ip[6] << 40;
        (*ipv6)++;
    }
    meta[0] = plain->meta;
    meta[2] = 0;
    return true;
}

/* Parses what is plain; the mask of the others is returned. */
static inline uint64_t parse_burst(struct rte_mbuf **packets, unsigned count,
                                   const struct plain *plain, unsigned *ipv6, uint64_t *bytes,
                                   bool checksum_checked) {
    enum { PREFETCH_AHEAD = 4 };
    uint64_t rest = 0, sum = 0;
    unsigned i;

    for (i = 0; i < RTE_MIN(count, (unsigned)PREFETCH_AHEAD); i++)
        rte_prefetch0(rte_pktmbuf_mtod(packets[i], void *));
    for (i = 0; i + PREFETCH_AHEAD < count; i++) {
        rte_prefetch0(rte_pktmbuf_mtod(packets[i + PREFETCH_AHEAD], void *));
        if (likely(parse_plain(packets[i], plain, ipv6, checksum_checked)))
            sum += packets[i]->pkt_len;
        else
            rest |= UINT64_C(1) << i;
    }
    for (; i < count; i++) {
        if (likely(parse_plain(packets[i], plain, ipv6, checksum_checked)))
            sum += packets[i]->pkt_len;
        else
            rest |= UINT64_C(1) << i;
    }
    *bytes = sum;
    return rest;
}

static void parse_run(struct worker *worker, struct burst *burst);

static struct stage parse_stage = {
    .name = "parse",
    .drops = {.reasons = reasons},
    .run = parse_run,
};
STAGE(parse_stage)

static void parse_rest(struct worker *worker, struct burst *burst, uint64_t rest,
                       const struct interface_table *table, const struct port_interfaces *port) {
    unsigned i;

    BURST_FOREACH (i, rest) {
        struct rte_mbuf *mbuf = burst->packets[i];
        enum parse_drop drop = parse_special(worker, mbuf, table, port);

        if (drop == PARSE_DIVERT)
            burst_divert(burst, i, packet_meta(mbuf)->cause);
        else if (drop != PARSE_OK)
            burst_drop(worker, burst, i, &parse_stage.drops, drop);
    }
}

enum parse_inner parse_inner(struct worker *worker, struct burst *burst, unsigned i, bool ipv6,
                             uint16_t interface) {
    const struct interface_entry *entry = &interface_table()->entry[interface];
    struct rte_mbuf *mbuf = burst->packets[i];
    const uint8_t *ip = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, ETHER_HEADER);
    enum parse_drop drop;

    /* What the NIC has told about the outer packet is the same for all flows inside. */
    mbuf->ol_flags &= ~RTE_MBUF_F_RX_RSS_HASH;
    if (!ipv6 && likely(ip[0] == RTE_IPV4_VHL_DEF && ipv4_is_plain(ip, mbuf, false))) {
        set_meta(mbuf, entry, 0, ETHER_HEADER, ip[9], ETHER_HEADER + IPV4_HEADER);
        return PARSE_INNER_PLAIN;
    }
    if (ipv6 && ip[0] >> 4 == 6 && ipv6_is_plain(ip, mbuf)) {
        set_meta(mbuf, entry, PACKET_IPV6, ETHER_HEADER, ip[6], ETHER_HEADER + IPV6_HEADER);
        return PARSE_INNER_PLAIN;
    }
    drop = ipv6 ? parse_ipv6(mbuf, entry, ETHER_HEADER, PACKET_REWRITE)
                : parse_ipv4(mbuf, entry, ETHER_HEADER, PACKET_REWRITE, false);
    if (drop == PARSE_OK)
        return PARSE_INNER_OTHER;
    if (drop == PARSE_DIVERT)
        burst_divert(burst, i, packet_meta(mbuf)->cause);
    else
        burst_drop(worker, burst, i, &parse_stage.drops, drop);
    return PARSE_INNER_GONE;
}

static void parse_run(struct worker *worker, struct burst *burst) {
    const struct interface_table *table = interface_table();
    const struct port_interfaces *port = &table->port[worker->rx_port];
    const struct interface_entry *interface = &table->entry[port->untagged];
    struct interface_counters *counters = &worker->counters->interface[port->untagged];
    unsigned count = (unsigned)__builtin_popcountll(burst->mask); /* dense: the first stage */
    unsigned ipv6 = 0;
    uint64_t rest, bytes;
    const struct plain plain = {
        .mac_first = (uint32_t)interface->mac_bits,
        .mac_last = (uint16_t)(interface->mac_bits >> 32),
        .meta = meta_word0(interface),
        .meta_ipv4 = meta_word1(interface, 0, ETHER_HEADER, 0, ETHER_HEADER + IPV4_HEADER),
        .meta_ipv6 =
            meta_word1(interface, PACKET_IPV6, ETHER_HEADER, 0, ETHER_HEADER + IPV6_HEADER),
    };

    worker->burst_kind = BURST_MIXED;
    /* Down, no untagged frames here, or each packet must be looked at closely. */
    if (unlikely(!(interface->flags & INTERFACE_UP) || wants_dhcp(interface))) {
        parse_rest(worker, burst, burst->mask, table, port);
        return;
    }
    rest = port->rx_checksum_checked
               ? parse_burst(burst->packets, count, &plain, &ipv6, &bytes, true)
               : parse_burst(burst->packets, count, &plain, &ipv6, &bytes, false);
    counters->rx_packets += count - (unsigned)__builtin_popcountll(rest);
    counters->rx_bytes += bytes;
    if (unlikely(rest))
        parse_rest(worker, burst, rest, table, port);
    else if (ipv6 == 0)
        worker->burst_kind = BURST_PLAIN_IPV4;
    else if (ipv6 == count)
        worker->burst_kind = BURST_PLAIN_IPV6;
}
