/*
 * Virtual reassembly: only the first fragment of a packet has the ports, so the others are let
 * through, and translated, as it was. Those that come first wait for it, a few at a time and not
 * for long; nothing is ever put together here. Each worker has its own table, because NICs spread
 * fragments by their addresses alone, so that all of a packet come to the same worker.
 *
 * A first fragment has to hold the whole transport header (RFC 1858 section 3.1, RFC 7112), and a
 * later one that would overwrite any of the first is dropped (RFC 3128, RFC 5722). Overlaps among
 * later fragments are left to the receiver: they cannot change what was decided here.
 */
#include <rte_mbuf.h>
#include <stdlib.h>

#include "session/session_internal.h"

enum {
    SET = 4,
    SETS = 512,
    HELD_EACH = 16, /* fragments that wait for the same first one */
    HELD_ALL = 512, /* and of one worker altogether */
    WAIT_TICKS = 2 * SESSION_TICKS,
    KEEP_TICKS = 30 * SESSION_TICKS, /* as long as Linux waits for the rest of a packet */
    SWEEP_AT_ONCE = 4,
};

enum fragment_state { FRAGMENT_FREE, FRAGMENT_WAITING, FRAGMENT_KNOWN, FRAGMENT_REFUSED };

struct fragmented {
    uint64_t identity; /* keyed hash of addresses, identification, protocol and VRF */
    uint32_t flow, serial;
    uint32_t since;
    uint16_t first_end; /* bytes of the packet's payload in the first fragment */
    uint16_t vrf;       /* FRAGMENT_PASSES: where the first one is routed */
    uint8_t state, held_count;
    struct rte_mbuf *held[HELD_EACH];
};

struct fragment_table {
    struct fragmented sets[SETS][SET];
    unsigned held, sweep;
    unsigned used; /* entries that are not free: usually none, and then nothing is swept */
};

struct fragment_table *session_fragments_create(void) {
    return calloc(1, sizeof(struct fragment_table));
}

static void set_state(struct fragment_table *table, struct fragmented *entry,
                      enum fragment_state state) {
    table->used += (state != FRAGMENT_FREE) - (entry->state != FRAGMENT_FREE);
    entry->state = (uint8_t)state;
}

static void let_go(struct fragment_table *table, struct fragmented *entry) {
    for (unsigned i = 0; i < entry->held_count; i++)
        rte_pktmbuf_free(entry->held[i]);
    table->held -= entry->held_count;
    entry->held_count = 0;
    set_state(table, entry, FRAGMENT_FREE);
}

void session_fragments_free(struct fragment_table *table) {
    for (unsigned i = 0; table && i < SETS * SET; i++)
        let_go(table, &table->sets[i / SET][i % SET]);
    free(table);
}

/* --- what a fragment says --- */

struct fragment {
    uint64_t identity;
    unsigned offset, length; /* of its payload in the whole one's, bytes */
};

const uint8_t *session_fragment_header6(const uint8_t *packet, unsigned end) {
    uint8_t next = packet[6];
    unsigned at = IPV6_HEADER;

    while (next != IPPROTO_FRAGMENT && at + 8 <= end) {
        unsigned length =
            next == IPPROTO_AH ? (packet[at + 1] + 2u) * 4 : (packet[at + 1] + 1u) * 8;

        next = packet[at];
        at += length;
    }
    return next == IPPROTO_FRAGMENT && at + 8 <= end ? packet + at : NULL;
}

/* `key` has the addresses and the VRF that the packet came in with. */
static bool read_fragment(struct rte_mbuf *mbuf, const union flow_key *key, struct fragment *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    union flow_key identity = *key;
    unsigned payload;

    if (meta->flags & PACKET_IPV6) {
        const uint8_t *header = session_fragment_header6(packet, mbuf->data_len - meta->l3_offset);

        if (!header)
            return false;
        memcpy(&identity.v6.source_port, header + 4, 4);
        identity.v6.protocol_vrf &= ~UINT32_C(0xffff);
        out->identity = flow_hash6(&identity.v6) | 1;
        out->offset = rte_be_to_cpu_16(load16(header + 2)) & 0xfff8;
        payload = meta->l3_offset + (unsigned)(header + 8 - packet);
    } else {
        identity.v4.source_port = load16(packet + 4);
        identity.v4.destination_port = 0;
        identity.v4.protocol_vrf = (key->v4.protocol_vrf & ~UINT32_C(0xffff)) | 1 << 8 | packet[9];
        out->identity = flow_hash4(identity.first) | 1;
        out->offset = (rte_be_to_cpu_16(load16(packet + 6)) & RTE_IPV4_HDR_OFFSET_MASK) * 8;
        payload = meta->l4_offset;
    }
    out->length = mbuf->pkt_len > payload ? mbuf->pkt_len - payload : 0;
    return true;
}

/* The entry with this identity; if there is none, one that may be taken, its state FRAGMENT_FREE,
 * or NULL. Entries that only wait are not thrown out for others, so that a flood does no harm to
 * them. */
static struct fragmented *find(struct fragment_table *table, uint64_t identity) {
    struct fragmented *set = table->sets[(identity >> 32) % SETS], *oldest = NULL;

    for (unsigned i = 0; i < SET; i++) {
        if (set[i].state != FRAGMENT_FREE && set[i].identity == identity)
            return &set[i];
    }
    for (unsigned i = 0; i < SET; i++) {
        if (set[i].state == FRAGMENT_FREE)
            return &set[i];
        if (set[i].state != FRAGMENT_WAITING && (!oldest || set[i].since < oldest->since))
            oldest = &set[i];
    }
    if (oldest)
        set_state(table, oldest, FRAGMENT_FREE);
    return oldest;
}

static bool still_there(const struct fragmented *entry) {
    const struct session *session = &sessions[flow_session(entry->flow)];

    return session->serial == entry->serial && session->state > SESSION_ENDING &&
           !(session_flows[entry->flow].flags & FLOW_DEAD);
}

/* --- the first one --- */

/* One that waited goes on: its destination is translated here, its source in `nat`. */
static void send_on(struct worker *worker, struct rte_mbuf *mbuf, uint32_t number) {
    struct packet_meta *meta = packet_meta(mbuf);
    struct flow *flow = &session_flows[number];

    flow_count(flow, mbuf, meta->l3_offset);
    meta->session = number;
    if (flow->flags & FLOW_OTHER_FAMILY) {
        if (session_change_family(worker, mbuf, number) != SESSION_FAMILY_CHANGED) {
            rte_pktmbuf_free(mbuf);
            return;
        }
    } else {
        if (flow->flags & FLOW_DESTINATION)
            session_rewrite_destination(mbuf, number);
        if (flow->flags & FLOW_OTHER_VRF)
            meta->vrf = session_vrf_of(number);
    }
    worker_route(worker, mbuf);
}

static void send_held(struct worker *worker, struct fragment_table *table, struct fragmented *entry,
                      const union flow_key *key) {
    for (unsigned i = 0; i < entry->held_count; i++) {
        struct fragment fragment;

        if (read_fragment(entry->held[i], key, &fragment) && fragment.offset < entry->first_end) {
            session_drop_count(worker, SESSION_DROP_FRAGMENT_OVERLAP);
            rte_pktmbuf_free(entry->held[i]);
        } else if (entry->flow == FRAGMENT_PASSES) {
            packet_meta(entry->held[i])->vrf = entry->vrf;
            worker_route(worker, entry->held[i]);
        } else {
            send_on(worker, entry->held[i], entry->flow);
        }
    }
    table->held -= entry->held_count;
    entry->held_count = 0;
}

void session_fragment_first(struct worker *worker, struct rte_mbuf *mbuf, const union flow_key *key,
                            uint32_t flow) {
    struct fragment_table *table = session_workers[worker->index].fragments;
    struct fragment fragment;
    struct fragmented *entry;

    if (!read_fragment(mbuf, key, &fragment))
        return;
    entry = find(table, fragment.identity);
    if (!entry)
        return;
    if (entry->state == FRAGMENT_FREE)
        entry->identity = fragment.identity;
    entry->since = atomic_load_explicit(&session_clock, memory_order_relaxed);
    entry->first_end = (uint16_t)RTE_MIN(fragment.length, (unsigned)UINT16_MAX);
    entry->flow = flow;
    entry->vrf = packet_meta(mbuf)->vrf;
    entry->serial = flow == FRAGMENT_PASSES ? 0 : sessions[flow_session(flow)].serial;
    if (flow == SESSION_NONE) {
        for (unsigned i = 0; i < entry->held_count; i++)
            session_drop_count(worker, SESSION_DROP_FRAGMENT_REFUSED);
        let_go(table, entry);
        set_state(table, entry, FRAGMENT_REFUSED);
        return;
    }
    set_state(table, entry, FRAGMENT_KNOWN);
    send_held(worker, table, entry, key);
}

/* --- the others --- */

/* The sweep frees old entries, but it may be late. */
static bool is_old(const struct fragmented *entry) {
    uint32_t age = atomic_load_explicit(&session_clock, memory_order_relaxed) - entry->since;

    return age >= (uint32_t)(entry->state == FRAGMENT_WAITING ? WAIT_TICKS : KEEP_TICKS);
}

static enum session_drop hold(struct fragment_table *table, struct fragmented *entry,
                              uint64_t identity, struct rte_mbuf *mbuf) {
    if (!entry || table->held == HELD_ALL)
        return SESSION_DROP_FRAGMENT_TABLE_FULL;
    if (entry->state == FRAGMENT_FREE) {
        entry->identity = identity;
        set_state(table, entry, FRAGMENT_WAITING);
        entry->held_count = 0;
        entry->since = atomic_load_explicit(&session_clock, memory_order_relaxed);
    }
    if (entry->held_count == HELD_EACH)
        return SESSION_DROP_FRAGMENT_TABLE_FULL;
    entry->held[entry->held_count++] = mbuf;
    table->held++;
    return SESSION_TAKEN;
}

enum session_drop session_fragment_later(struct worker *worker, struct rte_mbuf *mbuf,
                                         uint32_t *flow) {
    struct fragment_table *table = session_workers[worker->index].fragments;
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    union flow_key key = {0};
    struct fragment fragment;
    struct fragmented *entry;

    if (packet_meta(mbuf)->flags & PACKET_IPV6) {
        memcpy(key.v6.source, packet + 8, 32);
        key.v6.protocol_vrf = flow_protocol_vrf(0, packet_meta(mbuf)->vrf);
    } else {
        key.v4.source = load32(packet + 12);
        key.v4.destination = load32(packet + 16);
        key.v4.protocol_vrf = flow_protocol_vrf(0, packet_meta(mbuf)->vrf);
    }
    if (!read_fragment(mbuf, &key, &fragment))
        return SESSION_DROP_TRUNCATED;
    entry = find(table, fragment.identity);
    if (!entry || entry->state == FRAGMENT_FREE || entry->state == FRAGMENT_WAITING)
        return hold(table, entry, fragment.identity, mbuf);
    if (entry->state == FRAGMENT_REFUSED || (entry->flow != FRAGMENT_PASSES && !still_there(entry)))
        return SESSION_DROP_FRAGMENT_REFUSED;
    if (fragment.offset < entry->first_end)
        return SESSION_DROP_FRAGMENT_OVERLAP;
    *flow = entry->flow;
    if (entry->flow == FRAGMENT_PASSES) {
        *flow = SESSION_NONE;
        packet_meta(mbuf)->vrf = entry->vrf;
    }
    return SESSION_PASS;
}

void session_fragment_turn(struct worker *worker) {
    struct fragment_table *table = session_workers[worker->index].fragments;

    for (unsigned i = 0; i < SWEEP_AT_ONCE && table->used > 0; i++) {
        struct fragmented *entry = &table->sets[table->sweep / SET][table->sweep % SET];

        table->sweep = (table->sweep + 1) % (SETS * SET);
        if (entry->state == FRAGMENT_FREE || !is_old(entry))
            continue;
        for (unsigned held = 0; held < entry->held_count; held++)
            session_drop_count(worker, SESSION_DROP_FRAGMENT_TIMEOUT);
        let_go(table, entry);
    }
}
