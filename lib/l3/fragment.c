/* Pieces of IPv4 packets. */
#include "l3/fragment.h"

#include <errno.h>
#include <rte_ip_frag.h>

#include "core/mbuf_pool.h"
#include "core/worker.h"
#include "l3/header.h"

/* Gives a fragment the room for a link-layer header and its metadata. */
static void finish(struct rte_mbuf *fragment, const struct packet_meta *meta) {
    struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod(fragment, struct rte_ipv4_hdr *);
    unsigned header_length = rte_ipv4_hdr_len(ip);
    struct packet_meta *own = packet_meta(fragment);

    ip->hdr_checksum = 0;
    ip->hdr_checksum = (uint16_t)~rte_raw_cksum(ip, header_length);
    memset(rte_pktmbuf_prepend(fragment, ETHER_HEADER), 0, ETHER_HEADER);
    *own = *meta;
    own->l3_offset = ETHER_HEADER;
    own->l4_offset = (uint16_t)(ETHER_HEADER + header_length);
    own->cause = CAUSE_NONE;
    own->flags |= PACKET_FRAGMENT | PACKET_REWRITE;
    if (ip->fragment_offset & RTE_BE16(RTE_IPV4_HDR_OFFSET_MASK))
        own->flags |= PACKET_LATER_FRAGMENT;
}

uint64_t ipv4_fragments_keep;

int ipv4_fragment(struct worker *worker, struct rte_mbuf *mbuf, uint16_t mtu,
                  void (*send)(struct worker *worker, struct rte_mbuf *fragment, void *context),
                  void *context) {
    enum { FRAGMENTS_MAX = 1400 /* 64 KiB at an MTU of 68 */ };
    struct rte_mbuf *fragments[FRAGMENTS_MAX];
    const struct packet_meta meta = *packet_meta(mbuf);
    int count;

    rte_pktmbuf_adj(mbuf, meta.l3_offset);
    /* Fragments of one buffer each if they fit: not every port takes chains. */
    if (mtu <= MBUF_DATA_ROOM - RTE_PKTMBUF_HEADROOM && mbuf->nb_segs == 1)
        count =
            rte_ipv4_fragment_copy_nonseg_packet(mbuf, fragments, FRAGMENTS_MAX, mtu, worker->pool);
    else
        count = rte_ipv4_fragment_packet(mbuf, fragments, FRAGMENTS_MAX, mtu, worker->pool,
                                         worker->pool);
    if (count <= 0) {
        rte_pktmbuf_prepend(mbuf, meta.l3_offset);
        return count < 0 ? count : -EINVAL;
    }
    for (int i = 0; i < count; i++) {
        finish(fragments[i], &meta);
        fragments[i]->ol_flags |= mbuf->ol_flags & ipv4_fragments_keep;
        send(worker, fragments[i], context);
    }
    rte_pktmbuf_free(mbuf);
    return count;
}
