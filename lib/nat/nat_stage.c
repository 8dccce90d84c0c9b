/* Stage `nat`: the source of packets whose session says so. Which ones they are, `session` has
 * found on its way; packets that come from the router itself say it in their metadata. */
#include "core/stage.h"
#include "core/worker.h"
#include "l3/header.h"
#include "nat/nat_internal.h"
#include "session/rewrite.h"

/* A packet that has waited: its session may have ended, and the place be another's, by now. */
static void from_ring(struct worker *worker, struct burst *burst, unsigned i) {
    const struct packet_meta *meta = packet_meta(burst->packets[i]);
    const struct flow *flow;

    if (meta->session == SESSION_NONE || meta->session & SESSION_MISS_MARK ||
        meta->flags & (PACKET_INSPECTED | PACKET_IPV6))
        return;
    if (flow_session(meta->session) >= session_count_max) { /* the table was made anew, smaller */
        burst_drop(worker, burst, i, &nat_drops, NAT_CONFLICT);
        return;
    }
    flow = &session_flows[meta->session];
    if (!(flow->flags & FLOW_SOURCE) || flow->flags & FLOW_IPV6)
        return;
    if (load32(packet_l3(burst->packets[i], const uint8_t *) + 12) == flow->key4.source)
        session_rewrite_source(burst->packets[i], flow);
    else
        burst_drop(worker, burst, i, &nat_drops, NAT_CONFLICT);
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
                    session_rewrite_source(mbuf, flow);
            }
            return;
        }
        BURST_FOREACH (i, mask)
            session_rewrite_source(burst->packets[i],
                                   &session_flows[packet_meta(burst->packets[i])->session]);
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
