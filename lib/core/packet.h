/*
 * What the router knows about a packet besides its bytes: 24 bytes in the mbuf's dynamic area, at a
 * constant offset in the second cache line (which allocation and release touch anyway), so that they
 * travel with the packet through rings, hold queues and other workers.
 *
 * The frame always starts with its Ethernet header at rte_pktmbuf_mtod(); the IP header stands at
 * meta->l3_offset. Stages rewrite the Ethernet header last, in `output`.
 */
#pragma once

#include <rte_mbuf.h>
#include <stdint.h>

/* Flags of a packet. */
enum {
    PACKET_IPV6 = 1 << 0,           /* IPv6; otherwise IPv4 */
    PACKET_FRAGMENT = 1 << 1,       /* a fragment, the first one included */
    PACKET_LATER_FRAGMENT = 1 << 2, /* a fragment without the transport header */
    PACKET_LINK_MULTICAST = 1 << 3, /* came as link-layer broadcast or multicast */
    PACKET_OPTIONS = 1 << 4,        /* IPv4 options or IPv6 hop-by-hop header */
    PACKET_FROM_ROUTER = 1 << 5,    /* made by the router itself: no ICMP errors about it */
    PACKET_IP_MULTICAST = 1 << 6,   /* destination is an IP multicast group */
    PACKET_LOCAL = 1 << 8,          /* parse knows that it is for the router: no route lookup */
    PACKET_NEXT_HOP = 1 << 9,       /* the control thread chose next_hop: no route lookup */
    PACKET_REWRITE = 1 << 10,       /* the link-layer header is not one that came from a link */
    PACKET_LAST_HOP = 1 << 11,      /* TTL or hop limit is 0 or 1: cannot be forwarded */
    PACKET_FROM_HOST = 1 << 13,     /* from Linux through a twin: as FROM_ROUTER, but told of errors */
    PACKET_LINK_LOCAL_SOURCE = 1 << 12, /* IPv6 source is fe80::/10: cannot be forwarded */
    PACKET_HANDED_OVER = 1 << 7,    /* finished and counted by another worker; only to be sent */
    PACKET_OTHER_FAMILY = 1 << 15, /* came in as the other version of IP */
    PACKET_INSPECTED = 1 << 14,  /* has passed firewall and NAT, and comes by again (fragments, held packets) */
};

/* Why a packet left the usual path: what the slow path in the worker has to do with it. */
enum packet_cause {
    CAUSE_NONE,
    CAUSE_ARP,              /* an ARP frame */
    CAUSE_LOCAL,            /* for one of the router's own addresses, or multicast it listens to */
    CAUSE_RESOLVE,          /* the next hop's link-layer address is not known yet */
    CAUSE_TIME_EXCEEDED,    /* TTL or hop limit ran out */
    CAUSE_NET_UNREACHABLE,  /* no route */
    CAUSE_HOST_UNREACHABLE, /* next hop does not answer, or an unreachable route */
    CAUSE_PROHIBITED,       /* administratively prohibited */
    CAUSE_TOO_BIG,          /* longer than the outgoing interface's MTU */
    CAUSE_FRAME,            /* a complete frame for packet_meta.out_interface, made by the host side */
    CAUSE_PARAMETER,        /* IPv6 header with a parameter problem; offset in `pointer` */
    CAUSE_COUNT
};

/* Packets that did not come from a link: sent as they are, hop count included. */
enum { PACKET_OF_OURS = PACKET_FROM_ROUTER | PACKET_FROM_HOST };

struct packet_meta {
    uint32_t next_hop;      /* id of the next hop (l3/next_hop.h); set by `route` */
    uint16_t in_interface;  /* interface id (interface/interface.h); 0 = the router itself */
    uint16_t out_interface; /* set by `route`; 0 = none yet */
    uint16_t vrf;           /* VRF id whose tables route this packet */
    uint16_t flags;         /* PACKET_... */
    uint8_t l3_offset;      /* bytes from the start of the frame to the IP header */
    uint8_t l4_protocol;    /* IPPROTO_... after extension headers; of IPv4: the protocol field */
    uint16_t l4_offset;     /* bytes from the start of the frame to the transport header */
    uint8_t cause;          /* enum packet_cause, when diverted */
    uint8_t punt_class;     /* enum punt_class, when punted */
    uint16_t pointer;       /* CAUSE_PARAMETER: offset of the faulty octet in the IP packet;
                               CAUSE_TOO_BIG: the MTU, 0 = the next hop's */
    uint32_t session;       /* reserved for the stages that keep flow state */
};

_Static_assert(sizeof(struct packet_meta) == 24, "the mbuf has room for 24 bytes");

/* 8-byte aligned place inside rte_mbuf.dynfield1; packet_meta_init() reserves it. */
enum { PACKET_META_OFFSET = 96 };

static inline struct packet_meta *packet_meta(struct rte_mbuf *mbuf) {
    return (struct packet_meta *)((uint8_t *)mbuf + PACKET_META_OFFSET);
}

/* Reserves the metadata's place in every mbuf. Call once after rte_eal_init(). 0 or negative errno. */
int packet_meta_init(void);

/* Start of the IP header. */
#define packet_l3(mbuf, type) rte_pktmbuf_mtod_offset(mbuf, type, packet_meta(mbuf)->l3_offset)
