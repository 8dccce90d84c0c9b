/*
 * Stage `local`: the slow path in the worker. Packets that left the usual path come here with a cause:
 * for the router itself, too big, without a route, without a neighbour, out of hops.
 *
 * Each packet ends here in one way: answered, punted to the control thread through a policer, sent on
 * as fragments, or dropped under a name.
 */
#include <netinet/in.h>

#include "core/punt.h"
#include "core/stage.h"
#include "core/worker.h"
#include "interface/interface.h"
#include "l3/fragment.h"
#include "l3/header.h"
#include "l3/icmp.h"
#include "l3/next_hop.h"

enum local_drop {
    LOCAL_TIME_EXCEEDED,
    LOCAL_NET_UNREACHABLE,
    LOCAL_HOST_UNREACHABLE,
    LOCAL_PROHIBITED,
    LOCAL_TOO_BIG,
    LOCAL_PARAMETER_PROBLEM,
    LOCAL_NO_LISTENER,
    LOCAL_GROUP_NOT_WANTED,
    LOCAL_FRAGMENT_FAILED,
    LOCAL_UNKNOWN_CAUSE,
};

static void local_slow_path(struct worker *worker, struct rte_mbuf **packets, unsigned count);

static struct stage local_stage = {
    .name = "local",
    .drops = {.reasons = (const char *const[]){
                  [LOCAL_TIME_EXCEEDED] = "time_exceeded",
                  [LOCAL_NET_UNREACHABLE] = "no_route",
                  [LOCAL_HOST_UNREACHABLE] = "host_unreachable",
                  [LOCAL_PROHIBITED] = "prohibited",
                  [LOCAL_TOO_BIG] = "too_big",
                  [LOCAL_PARAMETER_PROBLEM] = "parameter_problem",
                  [LOCAL_NO_LISTENER] = "no_listener",
                  [LOCAL_GROUP_NOT_WANTED] = "group_not_wanted",
                  [LOCAL_FRAGMENT_FAILED] = "fragmentation_failed",
                  [LOCAL_UNKNOWN_CAUSE] = "unknown_cause",
                  NULL,
              }},
    .slow_path = local_slow_path,
};
STAGE(local_stage)

static void drop(struct worker *worker, struct rte_mbuf *mbuf, enum local_drop reason) {
    counters_drop(worker->counters, &local_stage.drops, reason);
    rte_pktmbuf_free(mbuf);
}

static void drop_with_error(struct worker *worker, struct rte_mbuf *mbuf, enum icmp_error error,
                            uint32_t argument, enum local_drop reason) {
    icmp_send_error(worker, mbuf, error, argument);
    drop(worker, mbuf, reason);
}

/* --- for the router itself --- */

/* The first two ports of a TCP or UDP packet in host order; zeroes when they cannot be read. */
static void ports_of(struct rte_mbuf *mbuf, uint16_t *source, uint16_t *destination) {
    const struct packet_meta *meta = packet_meta(mbuf);

    *source = *destination = 0;
    if (meta->flags & PACKET_LATER_FRAGMENT || meta->l4_offset + 4u > mbuf->data_len)
        return;
    *source = rte_be_to_cpu_16(load16(rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset)));
    *destination =
        rte_be_to_cpu_16(load16(rte_pktmbuf_mtod_offset(mbuf, uint8_t *, meta->l4_offset + 2)));
}

/* Which policer a packet for the host passes. */
static enum punt_class punt_class_of(struct rte_mbuf *mbuf) {
    enum { OSPF = 89, VRRP = 112, BGP_PORT = 179, RIP_PORT = 520, RIPNG_PORT = 521,
           LDP_PORT = 646, IKE_PORT = 500, NAT_T_PORT = 4500, BFD_PORT = 3784,
           BFD_ECHO_PORT = 3785, BFD_MULTIHOP_PORT = 4784 };
    uint16_t source, destination;

    ports_of(mbuf, &source, &destination);
    switch (packet_meta(mbuf)->l4_protocol) {
    case OSPF:
    case VRRP:
    case IPPROTO_IGMP:
    case IPPROTO_PIM:
        return PUNT_ROUTING;
    case IPPROTO_TCP:
        return destination == BGP_PORT || source == BGP_PORT ? PUNT_ROUTING : PUNT_OTHER;
    case IPPROTO_UDP:
        switch (destination) {
        case IKE_PORT:
        case NAT_T_PORT:
            return PUNT_IKE;
        case RIP_PORT:
        case RIPNG_PORT:
        case LDP_PORT:
        case BFD_PORT:
        case BFD_ECHO_PORT:
        case BFD_MULTIHOP_PORT:
            return PUNT_ROUTING;
        default:
            return PUNT_OTHER;
        }
    default:
        return PUNT_OTHER;
    }
}

static bool is_for_discovery(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);

    if (!(meta->flags & PACKET_IPV6) || meta->l4_protocol != IPPROTO_ICMPV6 ||
        meta->flags & PACKET_FRAGMENT || meta->l4_offset >= mbuf->data_len)
        return false;

    uint8_t type = *rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, meta->l4_offset);

    /* Router solicitation to redirect (RFC 4861), and queries for multicast listeners (RFC 3810). */
    return (type >= 133 && type <= 137) || type == 130;
}

/* A program that no longer is there, or never was, says so: port unreachable (RFC 1122 4.1.3.1). The
 * router itself has no TCP; an unreachable port ends a connection attempt at once. */
static void refuse(struct worker *worker, struct rte_mbuf *mbuf) {
    uint8_t protocol = packet_meta(mbuf)->l4_protocol;

    if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)
        icmp_send_error(worker, mbuf, ICMP_ERROR_PORT_UNREACHABLE, 0);
    else if (protocol != IPPROTO_ICMP && protocol != IPPROTO_ICMPV6)
        icmp_send_error(worker, mbuf, ICMP_ERROR_PROTOCOL_UNREACHABLE, 0);
    drop(worker, mbuf, LOCAL_NO_LISTENER);
}

static void deliver(struct worker *worker, struct rte_mbuf *mbuf) {
    const struct interface_table *table = interface_table();
    struct packet_meta *meta = packet_meta(mbuf);

    if (is_for_discovery(mbuf)) {
        punt(worker, mbuf, PUNT_ARP);
        return;
    }
    if (icmp_answer_echo(worker, mbuf))
        return;
    /* The twin of the interface it came in by; without one, that of the address's interface. */
    if (!(table->entry[meta->in_interface].flags & INTERFACE_TWIN)) {
        if (!(table->entry[meta->out_interface].flags & INTERFACE_TWIN) ||
            meta->flags & (PACKET_IP_MULTICAST | PACKET_LINK_MULTICAST)) {
            if (meta->flags & (PACKET_IP_MULTICAST | PACKET_LINK_MULTICAST))
                drop(worker, mbuf, LOCAL_GROUP_NOT_WANTED);
            else
                refuse(worker, mbuf);
            return;
        }
        meta->in_interface = meta->out_interface;
    }
    punt(worker, mbuf, punt_class_of(mbuf));
}

/* --- too big --- */

/* Sent from the same place in the path, so that it passes the later stages like any packet. */
static void send_fragment(struct worker *worker, struct rte_mbuf *fragment, void *context) {
    (void)context;
    worker_route(worker, fragment);
}

static void too_big(struct worker *worker, struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    /* A tunnel has less room than the link that it goes by. */
    uint16_t mtu = meta->pointer ? meta->pointer : next_hop_get(meta->next_hop)->mtu;
    bool may_fragment = !(meta->flags & PACKET_IPV6) &&
                        !(packet_l3(mbuf, const struct rte_ipv4_hdr *)->fragment_offset &
                          RTE_BE16(RTE_IPV4_HDR_DF_FLAG));

    if (may_fragment) {
        if (ipv4_fragment(worker, mbuf, mtu, send_fragment, NULL) < 0)
            drop(worker, mbuf, LOCAL_FRAGMENT_FAILED);
    } else {
        drop_with_error(worker, mbuf, ICMP_ERROR_TOO_BIG, mtu, LOCAL_TOO_BIG);
    }
}

/* --- dispatch --- */

static void handle(struct worker *worker, struct rte_mbuf *mbuf) {
    struct packet_meta *meta = packet_meta(mbuf);

    switch (meta->cause) {
    case CAUSE_ARP:
        punt(worker, mbuf, PUNT_ARP);
        break;
    case CAUSE_LOCAL:
        deliver(worker, mbuf);
        break;
    case CAUSE_RESOLVE:
        punt(worker, mbuf, PUNT_RESOLVE);
        break;
    case CAUSE_TOO_BIG:
        too_big(worker, mbuf);
        break;
    case CAUSE_TIME_EXCEEDED:
        drop_with_error(worker, mbuf, ICMP_ERROR_TIME_EXCEEDED, 0, LOCAL_TIME_EXCEEDED);
        break;
    case CAUSE_NET_UNREACHABLE:
        drop_with_error(worker, mbuf, ICMP_ERROR_NET_UNREACHABLE, 0, LOCAL_NET_UNREACHABLE);
        break;
    case CAUSE_HOST_UNREACHABLE:
        drop_with_error(worker, mbuf, ICMP_ERROR_HOST_UNREACHABLE, 0, LOCAL_HOST_UNREACHABLE);
        break;
    case CAUSE_PROHIBITED:
        drop_with_error(worker, mbuf, ICMP_ERROR_PROHIBITED, 0, LOCAL_PROHIBITED);
        break;
    case CAUSE_PARAMETER:
        drop_with_error(worker, mbuf, ICMP_ERROR_PARAMETER, meta->pointer,
                        LOCAL_PARAMETER_PROBLEM);
        break;
    default:
        drop(worker, mbuf, LOCAL_UNKNOWN_CAUSE);
        break;
    }
}

static void local_slow_path(struct worker *worker, struct rte_mbuf **packets, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        handle(worker, packets[i]);
}
