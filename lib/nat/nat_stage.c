/* Stage `nat`: the source of packets whose session says so. Which ones they are, `session` has
 * found on its way; packets that come from the router itself say it in their metadata. */
#include "core/stage.h"
#include "core/worker.h"
#include "l3/header.h"
#include "nat/nat_internal.h"
#include "session/rewrite.h"

static bool is_of(struct rte_mbuf *mbuf, const struct flow *flow) {
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    bool ipv6 = packet_meta(mbuf)->flags & PACKET_IPV6;

    if (ipv6 != (bool)(flow->flags & FLOW_IPV6))
        return false;
    return ipv6 ? memcmp(packet + 8, flow->key6.source, 16) == 0
                : load32(packet + 12) == flow->key4.source;
}

/* A packet that has waited: its session may have ended, and the place be another's, by now. */
static void from_ring(struct worker *worker, struct burst *burst, unsigned i) {
    const struct packet_meta *meta = packet_meta(burst->packets[i]);
    const struct flow *flow;

    if (meta->session == SESSION_NONE || meta->session & SESSION_MISS_MARK ||
        meta->flags & PACKET_INSPECTED)
        return;
    if (flow_session(meta->session) >= session_count_max) { /* the table was made anew, smaller */
        burst_drop(worker, burst, i, &nat_drops, NAT_CONFLICT);
        return;
    }
    flow = &session_flows[meta->session];
    if (!(flow->flags & FLOW_SOURCE))
        return;
    if (is_of(burst->packets[i], flow))
        session_rewrite_source(burst->packets[i], meta->session);
    else
        burst_drop(worker, burst, i, &nat_drops, NAT_CONFLICT);
}

static void plain_ipv6(struct rte_mbuf *mbuf) {
    uint32_t number = packet_meta(mbuf)->session;
    uint8_t *ip = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, ETHER_HEADER);

    if (likely((ip[6] == IPPROTO_UDP || ip[6] == IPPROTO_TCP) &&
               !(session_flows[number].flags & FLOW_PORTS)))
        session_rewrite_source_plain6(ip, number);
    else
        session_rewrite_source(mbuf, number);
}

static void one_packet(struct worker *worker, struct burst *burst, unsigned i) {
    uint32_t number = packet_meta(burst->packets[i])->session;

    if (!(session_flows[number].flags & FLOW_OTHER_FAMILY))
        session_rewrite_source(burst->packets[i], number);
    else if (session_change_family(worker, burst->packets[i], number) != SESSION_FAMILY_CHANGED)
        burst->dropped |= UINT64_C(1) << i;
}

static void nat_run(struct worker *worker, struct burst *burst) {
    const struct session_burst *own = session_burst_of(worker);
    unsigned i;

    if (likely(own != NULL)) {
        uint64_t mask = own->sources & burst->mask;

        if (likely(worker->burst_kind == BURST_PLAIN_IPV4)) {
            BURST_FOREACH (i, mask) {
                struct rte_mbuf *mbuf = burst->packets[i];
                const struct flow *flow = &session_flows[packet_meta(mbuf)->session];
                uint8_t *ip = rte_pktmbuf_mtod_offset(mbuf, uint8_t *, ETHER_HEADER);

                if (likely(ip[9] == IPPROTO_UDP || ip[9] == IPPROTO_TCP))
                    session_rewrite_source_plain(ip, &flow->rewrite);
                else
                    session_rewrite_source(mbuf, packet_meta(mbuf)->session);
            }
        } else if (worker->burst_kind == BURST_PLAIN_IPV6) {
            BURST_FOREACH (i, mask)
                plain_ipv6(burst->packets[i]);
        } else {
            BURST_FOREACH (i, mask)
                one_packet(worker, burst, i);
        }
        return;
    }
    BURST_FOREACH (i, burst->mask)
        from_ring(worker, burst, i);
}

static struct stage nat_stage = {
    .name = "nat",
    .run = nat_run,
    .wanted = session_wanted,
};
STAGE(nat_stage)
