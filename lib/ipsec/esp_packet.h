/*
 * Inside lib/ipsec: packets into ESP and out of it (RFC 4303 section 3.3 and 3.4, RFC 3948), a
 * burst at a time. Which association a packet belongs to, and whether it may, is for the stages to
 * know.
 */
#pragma once

#include "ipsec/ipsec_internal.h"

/* 1, 2, 3, ... (RFC 4303 section 2.4). */
extern uint8_t esp_padding[255];

/* Packets that esp_seal() has made carry this in mbuf->ol_flags, so that they are not protected
 * again. */
extern uint64_t esp_sealed_flag;

/* Once. 0 or negative errno. */
int esp_packet_init(void);

/* The bytes of a chain from an offset on, to and from a buffer. */
void esp_gather(const struct rte_mbuf *mbuf, unsigned from, unsigned length, uint8_t *out);
void esp_scatter(struct rte_mbuf *mbuf, unsigned from, const uint8_t *bytes);

/* --- out of ESP --- */

enum esp_open_reason {
    ESP_OPEN_FRAGMENT,
    ESP_OPEN_TRUNCATED, /* not even a header and a check value */
    ESP_OPEN_LENGTH,    /* the encrypted part is no multiple of what the algorithm wants */
    ESP_OPEN_ADDRESS,   /* from somebody else than the association says */
    ESP_OPEN_REPLAYED,
    ESP_OPEN_TOO_OLD,
    ESP_OPEN_SEQUENCE,    /* number 0 */
    ESP_OPEN_BUSY,        /* other workers held the window for too long */
    ESP_OPEN_INTEGRITY,   /* wrong check value */
    ESP_OPEN_PADDING,     /* longer than the packet, or not 1, 2, 3, ... */
    ESP_OPEN_DUMMY,       /* next header 59, sent to hide traffic (section 2.6) */
    ESP_OPEN_NEXT_HEADER, /* not what the mode carries */
    ESP_OPEN_ECN,         /* RFC 6040 section 4.2: congestion, but the inner packet cannot say so */
    ESP_OPEN_INTERFACE,   /* the association's tunnel interface is down, or not there */
    ESP_OPEN_REASONS
};

/* Packets of a burst on their way. */
struct esp_opening {
    uint64_t mask; /* to be opened; afterwards: those that were, and go on */
    uint64_t all;
    uint64_t ipv4, ipv6, other;   /* of those: plain packets of a family, and what is not plain */
    uint64_t tunnels;             /* of those: came in by a tunnel interface */
    uint16_t at[BURST_MAX];       /* where the ESP header is, from the start of the frame */
    uint32_t spi[BURST_MAX];      /* network order */
    uint64_t sequence[BURST_MAX]; /* of those that were opened */
    struct ipsec_sa *sa[BURST_MAX];
};

/* Verifies, decrypts and unwraps the packets of the mask, in place; each then is as if it had come
 * in by itself. Those that fail are dropped, counted in the group under the reasons above. */
void esp_open(struct worker *worker, struct burst *burst, struct esp_opening *opening,
              const struct drop_group *drops);

/* Is it a tunnel over IPv4? */
static inline bool esp_open_is_usual_sa(const struct ipsec_sa *sa) {
    return likely(!(sa->flags & (SA_IPV6 | SA_TRANSPORT)));
}

/* Where things are in packets of such an association that have a plain header of IPv4. */
struct esp_shape {
    unsigned at, payload; /* of the ESP header, and what was encrypted */
    unsigned around;      /* octets that were not encrypted */
    unsigned align;
};

static inline struct esp_shape esp_shape_of(const struct ipsec_sa *sa) {
    const unsigned at = ETHER_HEADER + sa->outer, payload = at + ESP_HEADER + sa->sizes.iv;

    return (struct esp_shape){at, payload, payload + sa->sizes.icv, sa->sizes.align};
}

/* Does it come from where the association says? With a plain header of IPv4. */
static inline bool esp_open_is_from(const struct ipsec_sa *sa, const struct rte_mbuf *mbuf) {
    enum { SOURCE = 12 };
    const uint8_t *ip =
        rte_pktmbuf_mtod_offset((struct rte_mbuf *)(uintptr_t)mbuf, const uint8_t *, ETHER_HEADER);

    return likely(load32(ip + SOURCE) == load32(sa->header + SOURCE)) &&
           (!(sa->flags & SA_UDP) ||
            likely(load32(ip + IPV4_HEADER) == load32(sa->header + IPV4_HEADER)));
}

/* Has the packet, in one buffer, such a length? */
static inline bool esp_open_fits(const struct esp_shape *shape, const struct rte_mbuf *mbuf) {
    const unsigned length = mbuf->data_len - shape->around;

    return likely(mbuf->data_len >= shape->around + ESP_TRAILER &&
                  (length & (shape->align - 1u)) == 0);
}

/* The same for packets that are usual by all of these, each in its association of opening->sa. They
 * are added to opening->mask if they go on. */
void esp_open_usual(struct worker *worker, struct burst *burst, uint64_t usual,
                    struct esp_opening *opening, const struct drop_group *drops);

/* As many from the first on, all of one association; opening->sa does not have to have it yet. */
void esp_open_run(struct worker *worker, struct burst *burst, unsigned packets, struct ipsec_sa *sa,
                  struct esp_opening *opening, const struct drop_group *drops);

/* --- into ESP --- */

enum { ESP_SEAL_MAX = BURST_MAX };

enum esp_seal_reason {
    ESP_SEAL_SEQUENCE, /* the association's numbers are used up */
    ESP_SEAL_NO_ROOM,  /* no buffer for what is added */
    ESP_SEAL_MODE,     /* transport mode, but the packet is not between the association's ends */
    ESP_SEAL_REASONS
};

/* A packet to be protected, from the IP header on. */
struct esp_sealing {
    struct rte_mbuf *mbuf;
    struct ipsec_sa *sa;
    uint32_t next_hop; /* of the outer packet */
    uint16_t tunnel;   /* the tunnel interface that it was routed into; 0 = none */
    uint16_t length;   /* with one: from the IP header on, before */
    enum esp_seal_reason reason;
};

/* Wraps and encrypts up to ESP_SEAL_MAX packets in place; lengths were checked before. They are
 * outer packets then, with their next hop. Those that failed have `reason` set, the others
 * ESP_SEAL_REASONS. */
void esp_seal(struct worker *worker, struct esp_sealing *packets, unsigned count);

/* So many bytes are written behind a usual packet, even if fewer are added to it. */
enum { ESP_PADDED_AT_ONCE = 16 };

/* Usual packets take numbers without asking again whether there are any, so they stop this far from
 * the last one. It is about what a worker sends in a second: between question and taking, one that
 * the kernel interrupts may be overtaken by all others. */
enum { ESP_SEAL_RESERVE = 1 << 24 };

/* Is it a tunnel over IPv4, far from its last number? */
static inline bool esp_seal_is_usual_sa(const struct ipsec_sa *sa) {
    return likely(!(sa->flags & (SA_IPV6 | SA_TRANSPORT)) &&
                  sa->sequence_last - ESP_SEAL_RESERVE >
                      atomic_load_explicit(&sa->sequence, memory_order_relaxed));
}

/* Is it a packet of IPv4 in one buffer, with room for such a tunnel? */
static inline bool esp_seal_is_usual(const struct ipsec_sa *sa, const struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta((struct rte_mbuf *)(uintptr_t)mbuf);

    return likely(!(meta->flags & (PACKET_IPV6 | PACKET_OF_OURS)) && mbuf->nb_segs == 1 &&
                  RTE_MBUF_DIRECT(mbuf)) &&
           rte_pktmbuf_tailroom(mbuf) >=
               RTE_MAX(sa->sizes.align + ESP_TRAILER + sa->sizes.icv, ESP_PADDED_AT_ONCE) &&
           rte_pktmbuf_headroom(mbuf) >= sa->outer + ESP_HEADER + sa->sizes.iv;
}

/* The same for usual packets of usual associations, up to ESP_SEAL_MAX, that fit; none fails. Those
 * of one association that follow each other have the same next hop. */
void esp_seal_usual(struct worker *worker, struct rte_mbuf *const *mbufs,
                    struct ipsec_sa *const *sas, const uint32_t *hop_ids, unsigned count);
/* All for one association. */
void esp_seal_run(struct worker *worker, struct rte_mbuf *const *mbufs, unsigned count,
                  struct ipsec_sa *sa, uint32_t hop_id);
