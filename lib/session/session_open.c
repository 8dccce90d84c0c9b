/* The beginning of sessions, and what the rest of the router asks of them. */
#include <errno.h>
#include <rte_prefetch.h>

#include "interface/interface.h"
#include "l3/flow_hash.h"
#include "l3/next_hop.h"
#include "l3/route_lookup.h"
#include "session/session_event.h"
#include "session/session_internal.h"

enum { TRANSLATION_ATTEMPTS = 1000 }; /* the translator gives up long before */

const struct session_translator *session_translator_in_use;
static const struct session_translator *translator;
bool (*session_is_protected)(const struct session_new *draft);

/* Read once by each function: it may be switched off at any moment. Its rules stay until no worker
 * can have read it. */
static const struct session_translator *translator_now(void) {
    return __atomic_load_n(&session_translator_in_use, __ATOMIC_ACQUIRE);
}

/* --- a new session --- */

static void give_back_mapping(const struct session_new *draft) {
    if (draft->mapping != 0 && translator)
        translator->ended(draft->mapping);
}

static uint8_t draft_protocol(const struct session_new *draft) {
    return (uint8_t)(draft->flags & FLOW_IPV6 ? draft->key.v6.protocol_vrf
                                              : draft->key.v4.protocol_vrf);
}

/* Until a translator says otherwise. */
static void keep_source(struct session_new *draft) {
    if (draft->flags & FLOW_IPV6) {
        memcpy(draft->source6, draft->key.v6.source, sizeof(draft->source6));
        draft->source_port = draft->key.v6.source_port;
    } else {
        draft->source = draft->key.v4.source;
        draft->source_port = draft->key.v4.source_port;
    }
}

static void set_forward(struct flow *flow, const struct session_new *draft) {
    flow->flags = draft->flags;
    if (draft->flags & FLOW_IPV6) {
        flow->key6 = draft->key.v6;
        return;
    }
    flow->key4 = draft->key.v4;
    if (!(draft->flags & FLOW_OTHER_FAMILY))
        session_set_rewrite(flow, draft->source, draft->source_port, draft->destination,
                            draft->destination_port);
}

/* The key of answers, and what undoes the translation in them. */
static void set_backward(struct flow *flow, const struct session_new *draft) {
    bool ipv6 = flow_becomes_ipv6(draft->flags);
    uint32_t protocol_vrf = flow_protocol_vrf(draft->flags & FLOW_OTHER_FAMILY
                                                  ? protocol_of_family(draft_protocol(draft), ipv6)
                                                  : draft_protocol(draft),
                                              draft->out_vrf);

    flow->flags = (uint8_t)((ipv6 ? FLOW_IPV6 : 0) | (draft->flags & FLOW_OTHER_FAMILY) |
                            (draft->flags & FLOW_DESTINATION ? FLOW_SOURCE : 0) |
                            (draft->flags & FLOW_SOURCE ? FLOW_DESTINATION : 0) |
                            (draft->flags & FLOW_PORTS) |
                            (draft->out_vrf != draft->vrf ? FLOW_OTHER_VRF : 0));
    if (ipv6) {
        memcpy(flow->key6.source, draft->destination6, 16);
        memcpy(flow->key6.destination, draft->source6, 16);
        flow->key6.source_port = draft->destination_port;
        flow->key6.destination_port = draft->source_port;
        flow->key6.protocol_vrf = protocol_vrf;
        return;
    }
    flow->key4 = (struct flow_key4){
        .source = draft->destination,
        .destination = draft->source,
        .source_port = draft->destination_port,
        .destination_port = draft->source_port,
        .protocol_vrf = protocol_vrf,
    };
    if (!(draft->flags & FLOW_OTHER_FAMILY))
        session_set_rewrite(flow, draft->key.v4.destination, draft->key.v4.destination_port,
                            draft->key.v4.source, draft->key.v4.source_port);
    flow->rewrite.vrf = draft->vrf;
}

bool session_would_be_protected(uint32_t number) {
    const struct flow *flow = &session_flows[number];
    union flow_key answers = flow_key_of(flow + 1);
    struct session_new draft = {
        .key = flow_key_of(flow), .flags = flow->flags, .vrf = flow_vrf(flow)};

    if (!session_is_protected || flow->flags & FLOW_OTHER_FAMILY)
        return false;
    if (flow->flags & FLOW_IPV6) {
        memcpy(draft.destination6, answers.v6.source, sizeof(draft.destination6));
        draft.destination_port = answers.v6.source_port;
    } else {
        draft.destination = answers.v4.source;
        draft.destination_port = answers.v4.source_port;
    }
    return session_is_protected(&draft);
}

static bool keeps_source(const struct session_new *draft) {
    return draft->local || draft->from_router ||
           (session_is_protected && !(draft->flags & FLOW_OTHER_FAMILY) &&
            session_is_protected(draft));
}

/* Chooses a source, which makes both flows ready for the table. */
static enum session_drop choose_source(struct worker *worker, struct session_opening *opening) {
    struct flow *flow = &session_flows[opening->number * 2];
    struct session_new *draft = &opening->draft;
    const struct session_translator *now = translator_now();
    bool kept = !now || keeps_source(draft);
    union flow_key key;

    /* Nobody is there any more to say as whom. The translator takes the reference to the mapping,
     * so that before its first attempt there is none to give back. */
    if (kept && (draft->attempt > 0 || draft->flags & FLOW_OTHER_FAMILY)) {
        if (draft->attempt == 0)
            draft->mapping = 0;
        return SESSION_DROP_CONFLICT;
    }
    if (kept) {
        draft->mapping = 0;
        if (now && !(draft->flags & FLOW_IPV6) && draft->from_router)
            now->keep_port(draft);
    } else if (!now->source(worker, draft)) {
        return SESSION_TAKEN; /* counted by the translator */
    }
    set_backward(&flow[1], draft);
    key = flow_key_of(&flow[1]);
    opening->hash = flow_key_hash(&key, flow[1].flags & FLOW_IPV6);
    rte_prefetch0(&session_table.buckets[hash_bucket(opening->hash)]);
    set_forward(&flow[0], draft);
    return SESSION_PASS;
}

/* Chooses other sources until the key of the answers is free. */
static enum session_drop insert_backward(struct worker *worker, struct session_opening *opening) {
    struct session_new *draft = &opening->draft;
    enum session_drop result;
    uint32_t found;
    int error;

    for (;;) {
        error = session_table_insert(opening->number * 2 + 1, opening->hash, &found);
        if (error == 0)
            return SESSION_PASS;
        if (error == -EBUSY)
            return SESSION_DROP_BUSY;
        if (error == -ENOSPC)
            return SESSION_DROP_BUCKET_FULL;
        if (!(draft->flags & (FLOW_SOURCE | FLOW_OTHER_FAMILY)) ||
            draft->attempt == TRANSLATION_ATTEMPTS)
            return SESSION_DROP_CONFLICT;
        draft->attempt++;
        result = choose_source(worker, opening);
        if (result != SESSION_PASS)
            return result;
    }
}

/* Fills in session and flows. The state comes last: whoever sees it sees the rest. */
static void fill_in(struct session *session, const struct session_new *draft, uint32_t source) {
    uint8_t protocol = draft_protocol(draft);
    bool picked_up = protocol == IPPROTO_TCP && !(draft->tcp_flags & TCP_SYN);
    enum session_state state = session_first_state(protocol, picked_up);

    session->created = atomic_load_explicit(&session_clock, memory_order_relaxed);
    session->protocol = protocol;
    session->flags =
        (uint8_t)((draft->local ? SESSION_LOCAL : 0) |
                  (draft->from_router ? SESSION_FROM_ROUTER : 0) |
                  (draft->bound ? SESSION_BOUND : 0) | (picked_up ? SESSION_PICKED_UP : 0));
    session->traffic_class = draft->traffic_class;
    session->in_interface = draft->in_interface;
    session->out_interface = draft->local ? 0 : draft->out_interface;
    session->rule = draft->rule;
    session->mapping = draft->mapping;
    session->source = source;
    __atomic_store_n(&session->state, (uint8_t)state, __ATOMIC_RELEASE);
}

static void unwind(struct worker *worker, const struct session_new *draft, uint32_t number,
                   uint32_t source) {
    session_source_give(source);
    give_back_mapping(draft);
    session_give_unused(worker->index, number);
}

static void abandon(struct worker *worker, const struct session_opening *opening) {
    unwind(worker, &opening->draft, opening->number, opening->source);
}

/* Everything but the table. With SESSION_PASS, finish_session() or abandon() has to follow. */
static enum session_drop begin_session(struct worker *worker, struct session_opening *opening) {
    const struct session_new *draft = &opening->draft;
    enum session_drop result;

    opening->source = 0;
    result = session_source_take(&draft->key, draft->flags & FLOW_IPV6, &opening->source);
    if (result != SESSION_PASS)
        return result;
    opening->number = session_take(worker->index);
    if (opening->number == SESSION_NONE) {
        session_source_give(opening->source);
        /* For those who come after: the place is free after a grace period. */
        session_evict(worker);
        return SESSION_DROP_TABLE_FULL;
    }
    result = choose_source(worker, opening);
    if (result != SESSION_PASS)
        abandon(worker, opening);
    return result;
}

/* SESSION_PASS with the forward flow in *flow; it may be of a session that another worker has just
 * opened. */
static enum session_drop finish_session(struct worker *worker, struct session_opening *opening,
                                        uint32_t *flow) {
    struct session_worker *own = &session_workers[worker->index];
    const struct session_new *draft = &opening->draft;
    uint32_t number = opening->number, found;
    bool ipv6 = draft->flags & FLOW_IPV6;
    struct flow *forward = &session_flows[number * 2];
    enum session_drop result = insert_backward(worker, opening);
    int error;

    if (result != SESSION_PASS) {
        abandon(worker, opening);
        return result;
    }
    forward->last = forward[1].last = atomic_load_explicit(&session_clock, memory_order_relaxed);
    fill_in(&sessions[number], draft, opening->source);
    if (sessions[number].state != SESSION_TCP_OPENING)
        forward->flags |= FLOW_QUICK; /* nothing that comes this way changes the state */
    error = session_table_insert(number * 2, flow_key_hash(&draft->key, ipv6), &found);
    if (error != 0) {
        sessions[number].state = SESSION_ENDING;
        if (session_table_remove(number * 2 + 1) == 0) {
            session_source_give(opening->source);
            give_back_mapping(draft);
            session_give(worker->index, number); /* readers may have seen the backward flow */
        } else {                                 /* the bucket is busy: the sweep tries again */
            sessions[number].state = (uint8_t)session_first_state(sessions[number].protocol, false);
            session_end(number);
            own->opened++;
        }
        if (error == -EEXIST) {
            *flow = found;
            return SESSION_PASS;
        }
        return error == -EBUSY ? SESSION_DROP_BUSY : SESSION_DROP_BUCKET_FULL;
    }
    own->opened++;
    session_event(worker->index, number, SESSION_EVENT_START, NULL);
    if (sessions[number].state != SESSION_TCP_ESTABLISHED) {
        /* The table is filling up: one that waits for an answer goes for one that comes. */
        if (session_table_room() < session_count_max / 16)
            session_evict(worker);
        session_remember_half_open(own, number);
    }
    *flow = number * 2;
    return SESSION_PASS;
}

static uint8_t traffic_class_of(struct rte_mbuf *mbuf) {
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);

    return packet_meta(mbuf)->flags & PACKET_IPV6 ? (uint8_t)(rte_be_to_cpu_16(load16(packet)) >> 4)
                                                  : packet[1];
}

static bool is_local(const struct packet_meta *meta) {
    const struct next_hop *hop = next_hop_get(meta->next_hop);

    return meta->flags & PACKET_LOCAL || hop->type == NEXT_HOP_LOCAL ||
           hop->type == NEXT_HOP_BROADCAST;
}

/* A miss was routed by the destination that it had, or that the translator gave it alone. */
static bool goes_the_same_way(const struct flow *flow, uint32_t number,
                              const struct session_miss *miss) {
    if (flow->flags & FLOW_OTHER_VRF || (flow->flags ^ miss->flags) & FLOW_OTHER_FAMILY)
        return false;
    if (flow->flags & FLOW_OTHER_FAMILY)
        return true; /* the translator does not choose among several */
    if (flow->flags & FLOW_IPV6) {
        const struct flow_key6 *answers = &session_flows[flow_other(number)].key6;

        return memcmp(answers->source, miss->destination6, 16) == 0 &&
               answers->source_port == miss->destination_port;
    }
    return flow->rewrite.destination == miss->destination &&
           flow->rewrite.destination_port == miss->destination_port;
}

/* The miss has a session after all: one that a packet before it in the same burst has opened, or
 * another worker, in whichever direction. */
static enum session_open_result join(struct worker *worker, struct rte_mbuf *mbuf, unsigned i,
                                     uint32_t number) {
    struct session_burst *own = &session_workers[worker->index].burst;
    const struct session_miss *miss = &own->miss[i];
    struct packet_meta *meta = packet_meta(mbuf);
    struct flow *flow = &session_flows[number];
    enum session_drop result = session_follow(number, miss->tcp_flags);

    if (meta->flags & PACKET_FRAGMENT)
        session_fragment_first(worker, mbuf, &miss->key, result == SESSION_PASS ? number : 0);
    if (result != SESSION_PASS) {
        session_drop_count(worker, result);
        return SESSION_REFUSED;
    }
    flow_count(flow, mbuf, meta->l3_offset);
    meta->session = number;
    if (flow->flags & (FLOW_SOURCE | FLOW_OTHER_FAMILY))
        own->sources |= UINT64_C(1) << i;
    if (goes_the_same_way(flow, number, miss))
        return SESSION_PASSED;
    meta->flags &= (uint16_t) ~(PACKET_LOCAL | PACKET_NEXT_HOP);
    if (flow->flags & FLOW_OTHER_FAMILY) {
        if (session_change_family(worker, mbuf, number) != SESSION_FAMILY_CHANGED)
            return SESSION_REFUSED;
    } else {
        if (flow->flags & FLOW_IPV6)
            session_replace6(mbuf, false, session_flows[flow_other(number)].key6.source,
                             session_flows[flow_other(number)].key6.source_port);
        else
            session_replace(mbuf, false, flow->rewrite.destination, flow->rewrite.destination_port);
        if (flow->flags & FLOW_OTHER_VRF)
            meta->vrf = session_vrf_of(number);
    }
    rte_pktmbuf_refcnt_update(mbuf, 1); /* the burst lets go of it, the ring holds it */
    worker_route(worker, mbuf);
    return SESSION_REFUSED;
}

/* The draft of a session whose packets go on as they came, but for what the miss says. */
static void begin_draft(struct session_new *draft, struct rte_mbuf *mbuf,
                        const struct session_miss *miss, uint32_t rule) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const bool local = is_local(meta);

    *draft = (struct session_new){
        .key = miss->key,
        .flags = miss->flags,
        .tcp_flags = miss->tcp_flags,
        .traffic_class = traffic_class_of(mbuf),
        .local = local,
        .in_interface = meta->in_interface,
        .out_interface = meta->out_interface,
        .vrf = meta->vrf,
        .out_vrf = local ? meta->vrf : interface_table()->entry[meta->out_interface].vrf,
        .rule = rule,
        .mapping = local ? 0 : miss->mapping,
        .translation = miss->translation,
        .destination = miss->destination,
        .destination_port = miss->destination_port,
    };
    memcpy(draft->destination6, miss->destination6, sizeof(draft->destination6));
    memcpy(draft->source6, miss->source6, sizeof(draft->source6));
    keep_source(draft);
}

static enum session_drop may_begin(const struct packet_meta *meta,
                                   const struct session_miss *miss) {
    return meta->l4_protocol == IPPROTO_TCP ? session_may_begin(miss->tcp_flags) : SESSION_PASS;
}

static uint32_t living_flow(const struct session_miss *miss, uint64_t hash) {
    uint32_t number = session_table_find(&miss->key, miss->flags & FLOW_IPV6, hash);

    return number != SESSION_NONE && session_flows[number].flags & FLOW_DEAD ? SESSION_NONE
                                                                             : number;
}

/* Is a session with this hash begun in the burst? Then this miss may be another packet of it. */
static bool key_is_begun(struct session_worker *own, uint64_t hash) {
    uint64_t bit = UINT64_C(1) << (hash % 64), *word;
    bool begun;

    if (own->begun == 0)
        memset(own->begun_keys, 0, sizeof(own->begun_keys));
    word = &own->begun_keys[hash / 64 % RTE_DIM(own->begun_keys)];
    begun = *word & bit;
    *word |= bit;
    return begun;
}

static void begin_miss(struct worker *worker, struct rte_mbuf *mbuf, unsigned i, uint32_t rule) {
    struct session_worker *own = &session_workers[worker->index];
    const struct session_miss *miss = &own->burst.miss[i];
    uint64_t hash = flow_key_hash(&miss->key, miss->flags & FLOW_IPV6);

    if (key_is_begun(own, hash) || living_flow(miss, hash) != SESSION_NONE ||
        may_begin(packet_meta(mbuf), miss) != SESSION_PASS)
        return;
    begin_draft(&own->opening[i].draft, mbuf, miss, rule);
    own->opening[i].result = begin_session(worker, &own->opening[i]);
    own->begun |= UINT64_C(1) << i;
}

static enum session_drop open_session(struct worker *worker, struct rte_mbuf *mbuf, unsigned i,
                                      uint32_t rule, uint32_t *flow) {
    struct session_worker *own = &session_workers[worker->index];
    const struct session_miss *miss = &own->burst.miss[i];
    struct session_opening *opening = &own->opening[i];

    if (!(own->begun >> i & 1)) {
        enum session_drop result = may_begin(packet_meta(mbuf), miss);

        if (result != SESSION_PASS)
            return result;
        begin_draft(&opening->draft, mbuf, miss, rule);
        opening->result = begin_session(worker, opening);
    }
    own->begun &= ~(UINT64_C(1) << i);
    return opening->result == SESSION_PASS ? finish_session(worker, opening, flow)
                                           : opening->result;
}

static void forget_opening(struct worker *worker, unsigned i) {
    struct session_worker *own = &session_workers[worker->index];

    if (own->begun >> i & 1 && own->opening[i].result == SESSION_PASS)
        abandon(worker, &own->opening[i]);
    own->begun &= ~(UINT64_C(1) << i);
}

static enum session_open_result open_miss(struct worker *worker, struct rte_mbuf *mbuf, unsigned i,
                                          uint32_t rule) {
    struct session_worker *own = &session_workers[worker->index];
    const struct session_miss *miss = &own->burst.miss[i];
    struct packet_meta *meta = packet_meta(mbuf);
    uint64_t hash = flow_key_hash(&miss->key, miss->flags & FLOW_IPV6);
    uint32_t number = living_flow(miss, hash);
    enum session_drop result;

    if (number != SESSION_NONE) {
        forget_opening(worker, i);
        return join(worker, mbuf, i, number);
    }
    result = open_session(worker, mbuf, i, rule, &number);
    if (result == SESSION_DROP_CONFLICT || result == SESSION_TAKEN) {
        /* Another worker may have been faster. */
        number = living_flow(miss, hash);
        if (number != SESSION_NONE)
            return join(worker, mbuf, i, number);
    }
    if (meta->flags & PACKET_FRAGMENT)
        session_fragment_first(worker, mbuf, &miss->key,
                               result == SESSION_PASS ? number : SESSION_NONE);
    if (result != SESSION_PASS) {
        if (result != SESSION_TAKEN)
            session_drop_count(worker, result);
        return SESSION_REFUSED;
    }

    struct flow *flow = &session_flows[number];

    flow_count(flow, mbuf, meta->l3_offset);
    meta->session = number;
    if (flow->flags & (FLOW_SOURCE | FLOW_OTHER_FAMILY))
        own->burst.sources |= UINT64_C(1) << i;
    return SESSION_OPENED;
}

/* Must the packet not leave as it is? */
static bool must_be_translated(struct rte_mbuf *mbuf, const struct session_miss *miss) {
    const struct session_translator *now = translator_now();
    const struct packet_meta *meta = packet_meta(mbuf);
    struct session_new draft;

    if (!now || is_local(meta) ||
        !now->wants_source(&miss->key, miss->flags & FLOW_IPV6, meta->in_interface,
                           meta->out_interface))
        return false;
    begin_draft(&draft, mbuf, miss, 0);
    return !keeps_source(&draft);
}

/* Whether the rule, or the translation, wants a session. */
static bool wants_session(struct rte_mbuf *mbuf, const struct session_miss *miss, bool stateless) {
    return !miss->stateless &&
           (!stateless || miss->flags & (FLOW_DESTINATION | FLOW_OTHER_FAMILY) ||
            must_be_translated(mbuf, miss));
}

/* The first fragment of a packet without a session has another prefix (RFC 6296), which those
 * behind it would not get. */
static bool leaves_fragments_behind(struct rte_mbuf *mbuf, const struct session_miss *miss) {
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);

    return packet_meta(mbuf)->flags & PACKET_FRAGMENT && miss->flags & FLOW_IPV6 &&
           (memcmp(packet + 8, miss->key.v6.source, 16) != 0 ||
            memcmp(packet + 24, miss->key.v6.destination, 16) != 0);
}

void session_begin(struct worker *worker, struct burst *burst, unsigned i, uint32_t rule,
                   bool stateless) {
    struct rte_mbuf *mbuf = burst->packets[i];

    if (wants_session(mbuf, &session_workers[worker->index].burst.miss[i], stateless))
        begin_miss(worker, mbuf, i, rule);
}

enum session_open_result session_accept(struct worker *worker, struct burst *burst, unsigned i,
                                        uint32_t rule, bool stateless) {
    struct session_miss *miss = &session_workers[worker->index].burst.miss[i];
    struct rte_mbuf *mbuf = burst->packets[i];
    const struct packet_meta *meta = packet_meta(mbuf);

    if (wants_session(mbuf, miss, stateless))
        return open_miss(worker, mbuf, i, rule);
    forget_opening(worker, i); /* begun while there was a translation that is gone by now */
    if (miss->stateless && miss->flags & FLOW_IPV6 && !is_local(meta)) {
        const struct session_translator *now = translator_now();

        if (now && !now->stateless6(worker, mbuf, meta->out_interface))
            return SESSION_REFUSED;
    } else if (miss->stateless && must_be_translated(mbuf, miss)) {
        translator->untranslatable(worker);
        return SESSION_REFUSED;
    }
    if (leaves_fragments_behind(mbuf, miss)) {
        session_refuse(worker, burst, i);
        translator->untranslatable(worker);
        return SESSION_REFUSED;
    }
    if (meta->flags & PACKET_FRAGMENT)
        session_fragment_first(worker, mbuf, &miss->key, FRAGMENT_PASSES);
    return SESSION_PASSED;
}

void session_refuse(struct worker *worker, struct burst *burst, unsigned i) {
    if (packet_meta(burst->packets[i])->flags & PACKET_FRAGMENT)
        session_fragment_first(worker, burst->packets[i],
                               &session_workers[worker->index].burst.miss[i].key, SESSION_NONE);
}

/* --- from before a restart --- */

static void set_past(uint32_t number, const struct session_restored *restored) {
    uint32_t now = atomic_load(&session_clock);
    struct flow *flow = &session_flows[number * 2];
    bool both = restored->state == SESSION_TCP_ESTABLISHED || restored->state == SESSION_UDP;
    bool forward = both || sessions[number].protocol != IPPROTO_TCP; /* as in finish_session() */

    for (unsigned way = 0; way < 2; way++) {
        flow[way].packets = restored->packets[way];
        flow[way].bytes = restored->bytes[way];
        flow[way].last = now - restored->idle;
        if (way == 0 ? forward : both)
            flow[way].flags |= FLOW_QUICK;
    }
    sessions[number].created = now - restored->age;
    sessions[number].flags = restored->flags;
    sessions[number].state = restored->state;
}

bool session_reopen(struct session_new *draft, const struct session_restored *restored) {
    bool translated = draft->flags & (FLOW_SOURCE | FLOW_DESTINATION | FLOW_OTHER_FAMILY),
         ipv6 = draft->flags & FLOW_IPV6;
    uint32_t number = session_take(0), source, found;
    union flow_key key;

    if (number == SESSION_NONE)
        return false;
    source = session_source_take_again(&draft->key, ipv6);
    if (translated && (!session_translator_in_use ||
                       !session_translator_in_use->restore(draft, restored->mapped))) {
        unwind(worker_get(0), draft, number, source);
        return false;
    }
    if (session_translator_in_use && !ipv6 && draft->from_router && restored->mapped)
        session_translator_in_use->keep_port(draft);
    set_forward(&session_flows[number * 2], draft);
    set_backward(&session_flows[number * 2 + 1], draft);
    key = flow_key_of(&session_flows[number * 2 + 1]);
    if (session_table_insert(number * 2 + 1, flow_key_hash(&key, flow_becomes_ipv6(draft->flags)),
                             &found) != 0) {
        unwind(worker_get(0), draft, number, source);
        return false;
    }
    fill_in(&sessions[number], draft, source);
    set_past(number, restored);
    if (session_table_insert(number * 2, flow_key_hash(&draft->key, ipv6), &found) != 0) {
        session_table_remove(number * 2 + 1);
        unwind(worker_get(0), draft, number, source);
        return false;
    }
    session_workers[0].opened++;
    return true;
}

/* --- packets of the host --- */

bool session_from_host(struct worker *worker, struct rte_mbuf *mbuf) {
    struct packet_meta *meta = packet_meta(mbuf);
    struct session_miss miss;
    enum session_drop result = session_key_of(mbuf, &miss);
    uint32_t number;

    /* Groups, ICMP errors and fragments are the host's own affair. */
    if (result != SESSION_PASS || miss.stateless ||
        meta->flags & (PACKET_IP_MULTICAST | PACKET_LATER_FRAGMENT))
        return true;
    number = session_table_find(&miss.key, miss.flags & FLOW_IPV6,
                                flow_key_hash(&miss.key, miss.flags & FLOW_IPV6));
    if (number != SESSION_NONE && session_flows[number].flags & FLOW_DEAD) {
        session_close(worker, flow_session(number), "ended");
        number = SESSION_NONE;
    }
    if (number == SESSION_NONE) {
        struct session_opening opening;

        /* What belongs to no session, say the RST for a port that is closed, passes without one. */
        if (may_begin(meta, &miss) != SESSION_PASS)
            return true;
        begin_draft(&opening.draft, mbuf, &miss, 0);
        opening.draft.from_router = true;
        opening.draft.local = false;
        opening.draft.in_interface = 0;
        opening.draft.out_vrf = interface_table()->entry[meta->out_interface].vrf;
        result = begin_session(worker, &opening);
        if (result == SESSION_PASS)
            result = finish_session(worker, &opening, &number);
        if (result != SESSION_PASS) {
            session_drop_count(worker, result);
            return false;
        }
    } else {
        session_follow(number, miss.tcp_flags);
    }

    struct flow *flow = &session_flows[number];

    flow_count(flow, mbuf, meta->l3_offset);
    flow->last = atomic_load_explicit(&session_clock, memory_order_relaxed);
    meta->session = number;
    return true;
}

/* --- undoing --- */

/* A packet may wait for a neighbour for longer than its session lives, and the place be another's
 * by then: nothing is put back into a packet that the flow has not made. */
static bool made_by(const union flow_key *came, const union flow_key *went, bool ipv6,
                    const uint8_t *packet) {
    if (ipv6)
        return (memcmp(packet + 8, came->v6.source, 16) == 0 ||
                memcmp(packet + 8, went->v6.source, 16) == 0) &&
               (memcmp(packet + 24, came->v6.destination, 16) == 0 ||
                memcmp(packet + 24, went->v6.destination, 16) == 0);
    return (load32(packet + 12) == came->v4.source || load32(packet + 12) == went->v4.source) &&
           (load32(packet + 16) == came->v4.destination ||
            load32(packet + 16) == went->v4.destination);
}

static void restore_miss(struct worker *worker, struct rte_mbuf *mbuf) {
    const struct session_burst *own = session_burst_of(worker);
    const struct session_miss *miss;

    if (!own)
        return;
    miss = &own->miss[packet_meta(mbuf)->session & ~SESSION_MISS_MARK];
    if (miss->flags & FLOW_IPV6)
        session_replace6(mbuf, false, miss->key.v6.destination, miss->key.v6.destination_port);
    else
        session_replace(mbuf, false, miss->key.v4.destination, miss->key.v4.destination_port);
}

static void restore_flow(struct worker *worker, struct rte_mbuf *mbuf, uint32_t number) {
    struct packet_meta *meta = packet_meta(mbuf);
    const struct flow *flow = &session_flows[number];
    union flow_key came = flow_key_of(flow), went = session_key_sent_on(number);
    bool ipv6 = meta->flags & PACKET_IPV6;
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);

    if (flow->flags & FLOW_OTHER_FAMILY) {
        if (ipv6 == (bool)(flow->flags & FLOW_IPV6) || !made_by(&went, &went, ipv6, packet))
            return;
        if (!session_family_restore(worker, mbuf, &came)) {
            meta->flags |= PACKET_FROM_ROUTER; /* no error about what its sender does not know */
            return;
        }
    } else if (ipv6 != (bool)(flow->flags & FLOW_IPV6) || !made_by(&came, &went, ipv6, packet)) {
        return;
    } else if (ipv6) {
        session_replace6(mbuf, true, came.v6.source, came.v6.source_port);
        session_replace6(mbuf, false, came.v6.destination, came.v6.destination_port);
    } else {
        session_replace(mbuf, true, came.v4.source, came.v4.source_port);
        session_replace(mbuf, false, came.v4.destination, came.v4.destination_port);
    }
    meta->vrf = flow_vrf(flow);
}

/* The packet may have waited while the table was taken away, or made anew in another size. */
void session_restore(struct worker *worker, struct rte_mbuf *mbuf) {
    struct packet_meta *meta = packet_meta(mbuf);
    const struct flow *flows = __atomic_load_n(&session_flows, __ATOMIC_ACQUIRE);
    const unsigned translated = FLOW_SOURCE | FLOW_DESTINATION | FLOW_OTHER_FAMILY;

    if (meta->session == SESSION_NONE || !flows)
        return;
    if (meta->session & SESSION_MISS_MARK) {
        restore_miss(worker, mbuf);
        meta->session = SESSION_NONE;
    } else if (flow_session(meta->session) < session_count_max &&
               flows[meta->session].flags & translated) {
        restore_flow(worker, mbuf, meta->session);
    }
}

/* --- the other family --- */

/* IPv4's route for a packet of IPv6 is chosen by what it came with, as it was for the first packet
 * of its session: the outside address may be one uplink's alone. */
static uint32_t next_hop_on_ipv4(struct rte_mbuf *mbuf, uint32_t destination) {
    uint32_t host = rte_be_to_cpu_32(destination), id;
    const struct next_hop *hop;

    route_lookup_ipv4(packet_meta(mbuf)->vrf, &host, &id, 1);
    hop = next_hop_get(id);
    return hop->type == NEXT_HOP_GROUP ? hop->buckets[flow_hash(mbuf) & hop->bucket_mask] : id;
}

enum session_family_result session_change_family(struct worker *worker, struct rte_mbuf *mbuf,
                                                 uint32_t number) {
    struct packet_meta *meta = packet_meta(mbuf);
    union flow_key to = session_key_sent_on(number);
    bool wants_next_hop = meta->flags & PACKET_IPV6 && !(meta->flags & PACKET_NEXT_HOP);
    enum session_drop result;

    if (session_flows[number].flags & FLOW_OTHER_VRF)
        meta->vrf = session_vrf_of(number);
    if (wants_next_hop)
        meta->next_hop = next_hop_on_ipv4(mbuf, to.v4.destination);
    result = session_family_change(worker, mbuf, &to);
    if (result == SESSION_TAKEN)
        return SESSION_FAMILY_IN_PIECES;
    if (result != SESSION_PASS) {
        session_drop_count(worker, result);
        return SESSION_FAMILY_DROPPED;
    }
    if (wants_next_hop)
        meta->flags |= PACKET_NEXT_HOP;
    return SESSION_FAMILY_CHANGED;
}

/* --- who translates --- */

void session_set_translator(const struct session_translator *registered) {
    translator = registered;
}

void session_translate(bool on) {
    __atomic_store_n(&session_translator_in_use, on ? translator : NULL, __ATOMIC_RELEASE);
}

const struct session_translator *session_translator_of_all(void) {
    return translator;
}
