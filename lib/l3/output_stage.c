/*
 * Stage `output`: the last look at a packet. Time to live, length against the interface's MTU,
 * link-layer header, counters; what is for the router itself leaves the path here, so that every
 * stage before has seen it.
 *
 * Finished frames from the control thread and from other workers enter at this stage.
 */
#include "l3/output.h"

#include "core/stage.h"
#include "interface/interface.h"
#include "l3/header.h"
#include "l3/next_hop.h"

enum output_drop {
    OUTPUT_INTERFACE_DOWN,
    OUTPUT_NO_HEADROOM,
    OUTPUT_BLACKHOLE,
};

static void output_run(struct worker *worker, struct burst *burst);

static struct stage output_stage = {
    .name = "output",
    .drops = {.reasons =
                  (const char *const[]){
                      [OUTPUT_INTERFACE_DOWN] = "interface_down",
                      [OUTPUT_NO_HEADROOM] = "no_headroom",
                      [OUTPUT_BLACKHOLE] = "next_hop_gone",
                      NULL,
                  }},
    .run = output_run,
};
STAGE(output_stage)

/* Transmit counters of a run of packets to one interface, so that the memory is touched once. */
struct tally {
    struct counters *counters;
    uint64_t packets, bytes;
    uint16_t interface;
};

static inline void tally_flush(struct tally *tally) {
    struct interface_counters *counters = &tally->counters->interface[tally->interface];

    counters->tx_packets += tally->packets;
    counters->tx_bytes += tally->bytes;
    tally->packets = tally->bytes = 0;
}

static inline void tally_add(struct tally *tally, uint16_t interface, uint32_t bytes) {
    if (unlikely(interface != tally->interface)) {
        tally_flush(tally);
        tally->interface = interface;
    }
    tally->packets++;
    tally->bytes += bytes;
}

/* A frame from the control thread (untagged; the interface's tag is put in) or from another worker
 * (complete and counted there). */
static void output_frame(struct worker *worker, struct burst *burst, unsigned i,
                         struct tally *tally) {
    struct rte_mbuf *mbuf = burst->packets[i];
    struct packet_meta *meta = packet_meta(mbuf);

    if (meta->flags & PACKET_HANDED_OVER)
        return; /* mbuf->port was set by the worker that finished it */

    const struct interface_entry *interface = &interface_table()->entry[meta->out_interface];

    if (!(interface->flags & INTERFACE_UP)) {
        burst_drop(worker, burst, i, &output_stage.drops, OUTPUT_INTERFACE_DOWN);
        return;
    }
    if (interface->vlan != 0) {
        uint8_t *frame = (uint8_t *)rte_pktmbuf_prepend(mbuf, 4);
        uint16_t tag[2] = {RTE_BE16(RTE_ETHER_TYPE_VLAN), rte_cpu_to_be_16(interface->vlan)};

        if (!frame) {
            burst_drop(worker, burst, i, &output_stage.drops, OUTPUT_NO_HEADROOM);
            return;
        }
        memmove(frame, frame + 4, 12);
        memcpy(frame + 12, tag, sizeof(tag));
    }
    mbuf->port = interface->port;
    tally_add(tally, interface->id, mbuf->pkt_len);
}

/* The link-layer header when its length or the EtherType must change. */
static bool rewrite_header(struct rte_mbuf *mbuf, struct packet_meta *meta,
                           const struct next_hop *hop) {
    unsigned length = hop->tagged ? ETHER_VLAN_HEADER : ETHER_HEADER;
    uint8_t l2[16] __rte_aligned(16);

    if (length < meta->l3_offset) {
        rte_pktmbuf_adj(mbuf, (uint16_t)(meta->l3_offset - length));
    } else if (length > meta->l3_offset &&
               !rte_pktmbuf_prepend(mbuf, (uint16_t)(length - meta->l3_offset))) {
        return false;
    }
    meta->l4_offset = (uint16_t)(meta->l4_offset + length - meta->l3_offset);
    meta->l3_offset = (uint8_t)length;

    uint8_t *frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
    uint16_t ethertype =
        meta->flags & PACKET_IPV6 ? RTE_BE16(RTE_ETHER_TYPE_IPV6) : RTE_BE16(RTE_ETHER_TYPE_IPV4);

    _mm_store_si128((__m128i *)l2, _mm_load_si128(&hop->l2));
    memcpy(frame, l2, length - 2);
    memcpy(frame + length - 2, &ethertype, sizeof(ethertype));
    return true;
}

/* Leaves the path behind firewall and NAT: whatever of it comes by again must not pass them twice. */
static void divert_inspected(struct burst *burst, unsigned i, enum packet_cause cause) {
    packet_meta(burst->packets[i])->flags |= PACKET_INSPECTED;
    burst_divert(burst, i, cause);
}

/* What is not plain forwarding. True if the packet is to be sent after all. */
static bool output_special(struct worker *worker, struct burst *burst, unsigned i,
                           struct next_hop *hop) {
    switch (hop->type) {
    case NEXT_HOP_STALE:
        hop->used = 1;
        return true;
    case NEXT_HOP_FORWARD:
        return true;
    case NEXT_HOP_LOCAL:
    case NEXT_HOP_BROADCAST:
        burst_divert(burst, i, CAUSE_LOCAL);
        return false;
    case NEXT_HOP_RESOLVE:
    case NEXT_HOP_GLEAN:
        divert_inspected(burst, i, CAUSE_RESOLVE);
        return false;
    case NEXT_HOP_UNREACHABLE:
        divert_inspected(burst, i, CAUSE_HOST_UNREACHABLE);
        return false;
    default: /* changed by the control thread since `route`, or a tunnel without its stage */
        burst_drop(worker, burst, i, &output_stage.drops, OUTPUT_BLACKHOLE);
        return false;
    }
}

/* The usual case: Ethernet header of the same length, EtherType as it came, hops left. */
static inline void forward(struct rte_mbuf *mbuf, uint8_t *packet, const struct next_hop *hop,
                           bool ipv6) {
    uint8_t *frame = packet - ETHER_HEADER;
    __m128i l2 = _mm_load_si128(&hop->l2);
    uint64_t low = (uint64_t)_mm_cvtsi128_si64(l2);
    uint32_t high = (uint32_t)_mm_extract_epi32(l2, 2);

    memcpy(frame, &low, sizeof(low));
    memcpy(frame + 8, &high, sizeof(high));
    if (ipv6)
        packet[7]--;
    else
        ipv4_decrement_ttl((struct rte_ipv4_hdr *)packet);
    mbuf->port = hop->port;
}

/* Hop limit and link-layer header. False: there is no room for the header. */
static inline bool finish(struct rte_mbuf *mbuf, const struct next_hop *hop) {
    struct packet_meta *meta = packet_meta(mbuf);
    uint8_t *packet = packet_l3(mbuf, uint8_t *);

    if (!hop->tagged && meta->l3_offset == ETHER_HEADER &&
        !(meta->flags & (PACKET_OF_OURS | PACKET_REWRITE))) {
        forward(mbuf, packet, hop, meta->flags & PACKET_IPV6);
        return true;
    }
    if (!(meta->flags & PACKET_OF_OURS)) {
        if (meta->flags & PACKET_IPV6)
            packet[7]--;
        else
            ipv4_decrement_ttl((struct rte_ipv4_hdr *)packet);
    }
    mbuf->port = hop->port;
    return likely(rewrite_header(mbuf, meta, hop));
}

bool output_now(struct worker *worker, struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    struct next_hop *hop = &next_hops[meta->next_hop & NEXT_HOP_ID_MASK];
    struct tally tally = {.counters = worker->counters};

    if ((hop->type != NEXT_HOP_FORWARD && hop->type != NEXT_HOP_STALE) ||
        mbuf->pkt_len - meta->l3_offset > hop->mtu)
        return false;
    if (hop->type == NEXT_HOP_STALE)
        hop->used = 1;
    if (!finish(mbuf, hop)) {
        counters_drop(worker->counters, &output_stage.drops, OUTPUT_NO_HEADROOM);
        rte_pktmbuf_free(mbuf);
        return true;
    }
    tally_add(&tally, hop->out_interface, mbuf->pkt_len);
    tally_flush(&tally);
    worker_buffer(worker, mbuf);
    return true;
}

static void output_one(struct worker *worker, struct burst *burst, unsigned i,
                       struct tally *tally) {
    struct rte_mbuf *mbuf = burst->packets[i];
    struct packet_meta *meta = packet_meta(mbuf);
    struct next_hop *hop = &next_hops[meta->next_hop & NEXT_HOP_ID_MASK];

    if (unlikely(hop->type != NEXT_HOP_FORWARD) && !output_special(worker, burst, i, hop))
        return;
    if (unlikely(mbuf->pkt_len - meta->l3_offset > hop->mtu)) {
        divert_inspected(burst, i, CAUSE_TOO_BIG);
        return;
    }
    if (unlikely(!finish(mbuf, hop))) {
        burst_drop(worker, burst, i, &output_stage.drops, OUTPUT_NO_HEADROOM);
        return;
    }
    tally_add(tally, hop->out_interface, mbuf->pkt_len);
}

/* A burst of a known kind: what is the same for all packets is not looked at again. */
static inline void output_plain(struct worker *worker, struct burst *burst, struct tally *others,
                                bool ipv6) {
    struct tally tally = {.counters = worker->counters}; /* stays in registers, unlike `others` */
    unsigned count = (unsigned)__builtin_popcountll(burst->mask);
    const struct next_hop *hops = next_hops;
    unsigned other_ports = 0;
    uint16_t port = hops[packet_meta(burst->packets[0])->next_hop].port;

    for (unsigned i = 0; i < count; i++) {
        struct rte_mbuf *mbuf = burst->packets[i];
        const struct next_hop *hop = &hops[packet_meta(mbuf)->next_hop];

        if (unlikely(hop->type != NEXT_HOP_FORWARD || hop->tagged ||
                     mbuf->pkt_len > hop->mtu + (uint32_t)ETHER_HEADER)) {
            output_one(worker, burst, i, others);
            other_ports = 1;
            continue;
        }
        forward(mbuf, rte_pktmbuf_mtod_offset(mbuf, uint8_t *, ETHER_HEADER), hop, ipv6);
        other_ports |= hop->port ^ port;
        tally_add(&tally, hop->out_interface, mbuf->pkt_len);
    }
    tally_flush(&tally);
    worker->one_port = other_ports == 0;
}

static void output_run(struct worker *worker, struct burst *burst) {
    struct tally tally = {.counters = worker->counters};
    unsigned i;

    if (likely(worker->burst_kind == BURST_PLAIN_IPV4 && burst_is_dense(burst))) {
        output_plain(worker, burst, &tally, false);
    } else if (worker->burst_kind == BURST_PLAIN_IPV6 && burst_is_dense(burst)) {
        output_plain(worker, burst, &tally, true);
    } else {
        bool from_ring = worker->rx_port == PORT_NONE;

        worker->one_port = false;
        BURST_FOREACH(i, burst->mask) {
            if (from_ring && packet_meta(burst->packets[i])->cause == CAUSE_FRAME)
                output_frame(worker, burst, i, &tally);
            else
                output_one(worker, burst, i, &tally);
        }
    }
    tally_flush(&tally);
}
