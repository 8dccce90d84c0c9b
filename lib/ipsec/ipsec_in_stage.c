/*
 * Stage `ipsec_in`: what comes in protected is taken out of its protection, and what should have
 * been protected ends here (RFC 4301 section 5.2).
 *
 * ESP packets, plain or in UDP, are put together if they come in fragments, and found by SPI and
 * destination. What is in them goes through `parse` again and has to match a policy that names
 * their association; it keeps the interface that its outer packet came in by, so that firewall
 * rules for that interface see it, or comes in by the tunnel interface that the association belongs
 * to. ESP that is not for an association here passes, as the packets of others do, unless it is for
 * the router itself.
 */
#include <netinet/in.h>
#include <rte_prefetch.h>

#include "ipsec/esp_packet.h"
#include "ipsec/esp_path.h"
#include "ipsec/esp_reassembly.h"
#include "ipsec/ipsec_audit.h"
#include "ipsec/ipsec_internal.h"
#include "l3/header.h"
#include "l3/next_hop.h"
#include "l3/route_lookup.h"

enum in_drop {
    IN_UNKNOWN_SPI = ESP_REASSEMBLY_REASONS,
    IN_NO_POLICY,
    IN_UNPROTECTED,
    IN_DISCARDED,
};

static void ipsec_in_run(struct worker *worker, struct burst *burst);
static void ipsec_in_turn(struct worker *worker);

static struct stage ipsec_in_stage = {
    .name = "ipsec_in",
    .drops = {.reasons =
                  (const char *const[]){
                      [ESP_OPEN_FRAGMENT] = "fragment",
                      [ESP_OPEN_TRUNCATED] = "truncated",
                      [ESP_OPEN_LENGTH] = "bad_length",
                      [ESP_OPEN_ADDRESS] = "wrong_source",
                      [ESP_OPEN_REPLAYED] = "replayed",
                      [ESP_OPEN_TOO_OLD] = "too_old",
                      [ESP_OPEN_SEQUENCE] = "sequence_zero",
                      [ESP_OPEN_BUSY] = "busy",
                      [ESP_OPEN_INTEGRITY] = "integrity",
                      [ESP_OPEN_PADDING] = "bad_padding",
                      [ESP_OPEN_DUMMY] = "dummy_packet",
                      [ESP_OPEN_NEXT_HEADER] = "wrong_next_header",
                      [ESP_OPEN_ECN] = "ecn_congestion",
                      [ESP_OPEN_INTERFACE] = "interface_down",
                      [ESP_FRAGMENT_MALFORMED] = "fragment_malformed",
                      [ESP_FRAGMENT_DUPLICATE] = "fragment_duplicate",
                      [ESP_FRAGMENT_OVERLAP] = "fragment_overlap",
                      [ESP_FRAGMENT_TOO_LONG] = "fragment_too_long",
                      [ESP_FRAGMENT_TIMEOUT] = "fragment_timeout",
                      [ESP_FRAGMENT_TABLE_FULL] = "fragment_table_full",
                      [ESP_FRAGMENT_REFUSED] = "fragment_refused",
                      [IN_UNKNOWN_SPI] = "unknown_spi",
                      [IN_NO_POLICY] = "no_policy",
                      [IN_UNPROTECTED] = "unprotected",
                      [IN_DISCARDED] = "discarded",
                      NULL,
                  }},
    .run = ipsec_in_run,
    .turn = ipsec_in_turn,
    .wanted = ipsec_wanted,
};
STAGE(ipsec_in_stage)

static void drop(struct worker *worker, struct burst *burst, unsigned i, unsigned reason) {
    burst_drop(worker, burst, i, &ipsec_in_stage.drops, reason);
}

/* --- associations --- */

static bool is_for(const struct ipsec_sa *sa, const struct packet_meta *meta,
                   const uint8_t *packet) {
    bool udp = meta->l4_protocol == IPPROTO_UDP, ipv6 = meta->flags & PACKET_IPV6;

    if (sa->vrf != meta->vrf || udp != (bool)(sa->flags & SA_UDP) ||
        ipv6 != (bool)(sa->flags & SA_IPV6))
        return false;
    if (ipv6)
        return memcmp(packet + 24, sa->destination6, 16) == 0;
    return rte_be_to_cpu_32(load32(packet + 16)) == sa->destination;
}

static bool is_ours(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    uint32_t id;

    if (meta->flags & PACKET_LOCAL)
        return true;
    if (meta->flags & PACKET_IPV6) {
        struct prefix_key destination = prefix_key_from_ipv6(packet + 24);

        route_lookup_ipv6(meta->vrf, &destination, &id, 1);
    } else {
        uint32_t destination = rte_be_to_cpu_32(load32(packet + 16));

        route_lookup_ipv4(meta->vrf, &destination, &id, 1);
    }
    return next_hop_get(id)->type == NEXT_HOP_LOCAL;
}

/* UDP, ICMP or ICMPv6? */
static inline bool is_looked_at(uint8_t protocol) {
    const uint64_t wanted =
        UINT64_C(1) << IPPROTO_UDP | UINT64_C(1) << IPPROTO_ICMP | UINT64_C(1) << IPPROTO_ICMPV6;

    return protocol < 64 && wanted >> protocol & 1;
}

static inline bool may_be_esp(uint8_t protocol) {
    return protocol == IPPROTO_ESP || protocol == IPPROTO_UDP;
}

/* ESP, or UDP to the port of RFC 3948: where the ESP header is; 0 for all others. */
static inline unsigned esp_at(struct rte_mbuf *mbuf) {
    enum { UDP_PORT = 4500 };
    const struct packet_meta *meta = packet_meta(mbuf);
    unsigned at = meta->l4_offset;

    if (meta->l4_protocol == IPPROTO_ESP)
        return at;
    if (likely(!is_looked_at(meta->l4_protocol)))
        return 0;
    if (unlikely(meta->l4_protocol != IPPROTO_UDP)) {
        esp_path_mtu_learn(mbuf);
        return 0;
    }
    if (meta->flags & PACKET_LATER_FRAGMENT || at + UDP_HEADER + ESP_HEADER > mbuf->data_len)
        return 0;
    return load16(rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, at + 2)) == RTE_BE16(UDP_PORT)
               ? at + UDP_HEADER
               : 0;
}

/* The first bytes of the ESP header; 0 where it is not in the first buffer. */
static inline uint32_t spi_of(struct rte_mbuf *mbuf, unsigned at) {
    if (unlikely(at + ESP_HEADER > mbuf->data_len ||
                 packet_meta(mbuf)->flags & PACKET_LATER_FRAGMENT))
        return 0;
    return load32(rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, at));
}

static inline struct ipsec_sa *first_of(uint32_t spi) {
    return atomic_load_explicit(&sa_buckets[IPSEC_IN][sa_bucket(spi)], memory_order_acquire);
}

/* Among those of a bucket. */
static inline struct ipsec_sa *find_for(struct ipsec_sa *sa, uint32_t spi,
                                        const struct packet_meta *meta, const uint8_t *packet) {
    while (sa && unlikely(sa->spi != spi || !is_for(sa, meta, packet)))
        sa = atomic_load_explicit(&sa->next, memory_order_acquire);
    return sa;
}

/* Which packets are ESP, or may be. */
static uint64_t find_esp(const struct burst *burst, struct esp_opening *opening) {
    const uint64_t mask = burst->mask & ~burst->dropped;
    uint64_t found = 0;
    unsigned i;

    BURST_FOREACH (i, mask) {
        struct rte_mbuf *mbuf = burst->packets[i];

        opening->at[i] = (uint16_t)esp_at(mbuf);
        if (opening->at[i] == 0)
            continue;
        found |= UINT64_C(1) << i;
        opening->spi[i] = spi_of(mbuf, opening->at[i]);
        rte_prefetch0(&sa_buckets[IPSEC_IN][sa_bucket(opening->spi[i])]);
    }
    return found;
}

/* With many associations everything that belongs to one is far away in memory: each is asked for
 * two slices before it is needed, ... */
static void fetch_sas(uint64_t mask, struct esp_opening *opening) {
    unsigned i;

    BURST_FOREACH (i, mask) {
        opening->sa[i] = first_of(opening->spi[i]);
        rte_prefetch0(opening->sa[i]);
    }
}

/* ... and the rest of it one slice before. Returns for which packets there is one; those that
 * should have one and have not end. */
static uint64_t find_sas(struct worker *worker, struct burst *burst, uint64_t mask,
                         struct esp_opening *opening) {
    const struct ipsec_sa *fetched = NULL;
    uint64_t found = 0;
    unsigned i;

    BURST_FOREACH (i, mask) {
        struct rte_mbuf *mbuf = burst->packets[i];
        const struct packet_meta *meta = packet_meta(mbuf);
        struct ipsec_sa *sa =
            find_for(opening->sa[i], opening->spi[i], meta, packet_l3(mbuf, const uint8_t *));

        opening->sa[i] = sa;
        if (likely(sa != NULL)) {
            found |= UINT64_C(1) << i;
            if (sa == fetched)
                continue;
            fetched = sa;
            rte_prefetch0(&sa->lock);
            if (unlikely(ipsec_shared))
                rte_prefetch0(sa_use(sa, worker->index));
            esp_key_prefetch(sa->key);
        } else if (meta->l4_protocol == IPPROTO_ESP && is_ours(mbuf)) {
            unsigned reason =
                meta->flags & PACKET_FRAGMENT ? (unsigned)ESP_OPEN_FRAGMENT : IN_UNKNOWN_SPI;

            ipsec_audit_esp(worker, &ipsec_in_stage.drops, reason, mbuf, opening->at[i]);
            drop(worker, burst, i, reason);
        }
    }
    return found;
}

/* One buffer, and nothing in front of the ESP header but what usual associations have. */
static inline bool has_plain_header(struct rte_mbuf *mbuf) {
    const struct packet_meta *meta = packet_meta(mbuf);

    return likely(!(meta->flags & (PACKET_IPV6 | PACKET_FRAGMENT)) && mbuf->nb_segs == 1 &&
                  meta->l3_offset == ETHER_HEADER);
}

/* Sorts packets that have an association. False: one is not usual, but for an association that
 * others of the burst may be usual packets of, and has to be opened in its turn. */
static bool sort(const struct burst *burst, uint64_t mask, const struct esp_opening *opening,
                 uint64_t *usual, uint64_t *others) {
    unsigned i;

    *usual = *others = 0;
    BURST_FOREACH (i, mask) {
        struct rte_mbuf *mbuf = burst->packets[i];
        const struct ipsec_sa *sa = opening->sa[i];
        const struct esp_shape shape = esp_shape_of(sa);

        if (unlikely(!esp_open_is_usual_sa(sa))) {
            *others |= UINT64_C(1) << i;
            continue;
        }
        if (unlikely(!has_plain_header(mbuf) || opening->at[i] != shape.at ||
                     !esp_open_fits(&shape, mbuf) || !esp_open_is_from(sa, mbuf)))
            return false;
        *usual |= UINT64_C(1) << i;
    }
    return true;
}

/* --- one association --- */

/* What most bursts are: plain packets of IPv4, all usual and of one association. It, or NULL. */
static struct ipsec_sa *find_one(const struct worker *worker, const struct burst *burst) {
    enum { ADDRESSES = ETHER_HEADER + 12, PORTS = ETHER_HEADER + IPV4_HEADER };
    const unsigned count = (unsigned)__builtin_popcountll(burst->mask);
    struct rte_mbuf *first = burst->packets[0];
    struct esp_shape shape;
    const uint8_t *frame;
    uint64_t addresses;
    struct ipsec_sa *sa;
    uint32_t spi, ports;
    uint8_t protocol;
    unsigned at;

    if (worker->burst_kind != BURST_PLAIN_IPV4 || !burst_is_dense(burst))
        return NULL;
    protocol = packet_meta(first)->l4_protocol;
    if (!may_be_esp(protocol))
        return NULL;
    at = esp_at(first);
    if (at == 0)
        return NULL;
    frame = rte_pktmbuf_mtod(first, const uint8_t *);
    spi = spi_of(first, at);
    sa = find_for(first_of(spi), spi, packet_meta(first), frame + ETHER_HEADER);
    if (!sa || !esp_open_is_usual_sa(sa) || !esp_open_is_from(sa, first))
        return NULL;
    addresses = load64(frame + ADDRESSES);
    ports = load32(frame + PORTS); /* in UDP; else the SPI */
    shape = esp_shape_of(sa);
    for (unsigned i = 0; i < count; i++) {
        struct rte_mbuf *mbuf = burst->packets[i];

        frame = rte_pktmbuf_mtod(mbuf, const uint8_t *);
        if (unlikely(packet_meta(mbuf)->l4_protocol != protocol || !esp_open_fits(&shape, mbuf) ||
                     load64(frame + ADDRESSES) != addresses || load32(frame + PORTS) != ports ||
                     load32(frame + at) != spi))
            return NULL;
    }
    return sa;
}

/* --- policies --- */

static void name_sets(const struct burst *burst, const struct esp_opening *opening,
                      uint16_t *sets) {
    unsigned i;

    BURST_FOREACH (i, opening->mask) {
        const struct packet_meta *meta = packet_meta(burst->packets[i]);

        sets[i] = opening->tunnels >> i & 1 ? spd_set_of_tunnel(meta->in_interface) : meta->vrf;
    }
}

/* What was inside: it has to match a policy that names the association (section 5.2, step 4). */
static void check_opened(struct worker *worker, struct burst *burst,
                         const struct esp_opening *opening) {
    struct ipsec_policy *policy[BURST_MAX], *same_policy = NULL;
    const struct ipsec_sa *same_sa = NULL;
    uint16_t sets[BURST_MAX];
    unsigned i;

    if (unlikely(opening->tunnels))
        name_sets(burst, opening, sets);
    spd_look_up(worker, IPSEC_IN, burst, opening->mask, opening->tunnels ? sets : NULL, policy);
    BURST_FOREACH (i, opening->mask) {
        struct ipsec_sa *sa = opening->sa[i];

        if (likely(
                (policy[i] == same_policy && sa == same_sa) ||
                (policy[i] && policy[i]->action == IPSEC_PROTECT && policy_names(policy[i], sa)))) {
            same_policy = policy[i];
            same_sa = sa;
            policy_tally(policy[i], worker->index)->packets++;
            continue;
        }
        sa->tallies[worker->index].refused++;
        ipsec_audit_clear(worker, &ipsec_in_stage.drops, IN_NO_POLICY, burst->packets[i], sa,
                          opening->sequence[i]);
        drop(worker, burst, i, IN_NO_POLICY);
    }
}

static void check_clear(struct worker *worker, struct burst *burst, uint64_t mask) {
    struct ipsec_policy *policy[BURST_MAX];
    unsigned i;

    if (!spd_look_up(worker, IPSEC_IN, burst, mask, NULL, policy))
        return;
    BURST_FOREACH (i, mask) {
        struct rte_mbuf *mbuf = burst->packets[i];

        if (likely(!policy[i]) || spd_is_exempt(mbuf) || (spd_is_of_ipsec(mbuf) && is_ours(mbuf)))
            continue;
        policy_tally(policy[i], worker->index)->packets++;
        if (policy[i]->action == IPSEC_PROTECT) {
            ipsec_audit_clear(worker, &ipsec_in_stage.drops, IN_UNPROTECTED, mbuf, NULL, 0);
            drop(worker, burst, i, IN_UNPROTECTED);
        } else if (policy[i]->action == IPSEC_DISCARD) {
            drop(worker, burst, i, IN_DISCARDED);
        }
    }
}

/* --- the burst --- */

static bool is_of_one_interface(const struct burst *burst) {
    const uint64_t left = burst->mask & ~burst->dropped;
    unsigned i;

    BURST_FOREACH (i, left) {
        if (packet_meta(burst->packets[i])->in_interface !=
            packet_meta(burst->packets[__builtin_ctzll(left)])->in_interface)
            return false;
    }
    return true;
}

/* Clear packets beside those of both families that came out of ESP are the rare case. */
static void set_kind(struct worker *worker, const struct burst *burst,
                     const struct esp_opening *opening) {
    uint64_t clear = burst->mask & ~opening->all;

    if (worker->burst_kind == BURST_MIXED || opening->other ||
        (unlikely(opening->tunnels) && !is_of_one_interface(burst)))
        worker->burst_kind = BURST_MIXED;
    else if (clear && (worker->burst_kind == BURST_PLAIN_IPV4 ? opening->ipv6 : opening->ipv4))
        worker->burst_kind = BURST_MIXED;
    else if (opening->ipv4 && opening->ipv6)
        worker->burst_kind = BURST_MIXED;
    else if (opening->ipv4 || opening->ipv6)
        worker->burst_kind = opening->ipv6 ? BURST_PLAIN_IPV6 : BURST_PLAIN_IPV4;
}

static void ipsec_in_turn(struct worker *worker) {
    esp_reassembly_turn(worker, &ipsec_in_stage.drops);
}

/* Where the slices of a burst are on their way. */
struct line {
    uint64_t left;  /* nothing has been done yet */
    uint64_t asked; /* their associations come from memory */
    uint64_t found; /* they have one, and the rest of it comes */
};

static void move(struct worker *worker, struct burst *burst, struct esp_opening *opening,
                 struct line *line) {
    line->found = find_sas(worker, burst, line->asked, opening);
    line->asked = burst_slice(&line->left);
    fetch_sas(line->asked, opening);
}

/* All that is left at once. */
static uint64_t find_rest(struct worker *worker, struct burst *burst, struct esp_opening *opening,
                          const struct line *line) {
    fetch_sas(line->left, opening);
    return line->found | find_sas(worker, burst, line->asked | line->left, opening);
}

static void open_many(struct worker *worker, struct burst *burst, struct esp_opening *opening) {
    struct line line = {.left = find_esp(burst, opening)};
    uint64_t others = 0, slice, usual, rare, opened;

    move(worker, burst, opening, &line);
    for (move(worker, burst, opening, &line); line.found | line.asked;) {
        slice = line.found;
        move(worker, burst, opening, &line);
        opening->all |= slice;
        if (unlikely(!sort(burst, slice, opening, &usual, &rare))) {
            slice |= find_rest(worker, burst, opening, &line);
            opening->all |= slice;
            others |= slice;
            break;
        }
        esp_open_usual(worker, burst, usual, opening, &ipsec_in_stage.drops);
        others |= rare;
    }
    if (likely(others == 0))
        return;
    opened = opening->mask;
    opening->mask = others;
    esp_open(worker, burst, opening, &ipsec_in_stage.drops);
    opening->mask |= opened;
}

/* Takes packets out of ESP; `opening` says which were in it. */
static void open_all(struct worker *worker, struct burst *burst, struct esp_opening *opening) {
    struct ipsec_sa *sa = find_one(worker, burst);

    opening->mask = opening->all = opening->ipv4 = opening->ipv6 = opening->other = 0;
    opening->tunnels = 0;
    if (likely(sa != NULL)) {
        opening->all = burst->mask;
        esp_open_run(worker, burst, (unsigned)__builtin_popcountll(burst->mask), sa, opening,
                     &ipsec_in_stage.drops);
        return;
    }
    if (unlikely(worker->burst_kind == BURST_MIXED)) /* no other has fragments */
        esp_reassemble(worker, burst, &ipsec_in_stage.drops);
    open_many(worker, burst, opening);
}

static void ipsec_in_run(struct worker *worker, struct burst *burst) {
    struct esp_opening opening;

    open_all(worker, burst, &opening);
    if (opening.all)
        set_kind(worker, burst, &opening);
    if (opening.mask)
        check_opened(worker, burst, &opening);
    if (atomic_load_explicit(&ipsec_has_in_policies, memory_order_relaxed)) {
        uint64_t clear = burst->mask & ~opening.all & ~burst->dropped;

        if (clear)
            check_clear(worker, burst, clear);
    }
}
