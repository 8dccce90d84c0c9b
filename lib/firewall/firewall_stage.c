/*
 * Stage `firewall`: decides about packets that belong to no session. Established flows pass it with
 * one look at the burst's misses.
 */
#include <netinet/in.h>
#include <rte_cycles.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/ip.h"
#include "core/stage.h"
#include "core/worker.h"
#include "core/worker_log.h"
#include "firewall/firewall_internal.h"
#include "interface/interface.h"
#include "l3/header.h"
#include "l3/icmp.h"
#include "l3/next_hop.h"
#include "session/session.h"

enum { ICMP6_ECHO_REQUEST = 128 };

enum firewall_drop {
    FIREWALL_DROP_RULE,
    FIREWALL_DROP_DEFAULT,
    FIREWALL_DROP_REJECTED,
    FIREWALL_DROP_HOST_REFUSED,
};

static void firewall_run(struct worker *worker, struct burst *burst);

static struct stage firewall_stage = {
    .name = "firewall",
    .drops = {.reasons =
                  (const char *const[]){
                      [FIREWALL_DROP_RULE] = "rule",
                      [FIREWALL_DROP_DEFAULT] = "default",
                      [FIREWALL_DROP_REJECTED] = "rejected",
                      [FIREWALL_DROP_HOST_REFUSED] = "host_refused",
                      NULL,
                  }},
    .run = firewall_run,
    .wanted = session_wanted,
};
STAGE(firewall_stage)

/* --- what the classifier is told --- */

static bool for_router(const struct packet_meta *meta) {
    const uint8_t type = next_hop_get(meta->next_hop)->type;

    return meta->flags & PACKET_LOCAL || type == NEXT_HOP_LOCAL || type == NEXT_HOP_BROADCAST;
}

/* Neighbour discovery and listener discovery of the link itself: RFC 4890 section 4.4.1 has them
 * never dropped, and without them no IPv6 packet would find its way. */
static bool is_discovery(const struct packet_meta *meta, const struct session_miss *miss) {
    enum {
        MLD_QUERY = 130,
        MLD_DONE = 132,
        ND_FIRST = 133, /* router solicitation */
        ND_LAST = 137,  /* redirect */
        MLD2_REPORT = 143,
    };
    const uint8_t type = miss->icmp_type;

    return meta->flags & PACKET_IPV6 && meta->l4_protocol == IPPROTO_ICMPV6 &&
           !(meta->flags & PACKET_FRAGMENT) &&
           ((type >= MLD_QUERY && type <= MLD_DONE) || (type >= ND_FIRST && type <= ND_LAST) ||
            type == MLD2_REPORT);
}

/* A packet of IPv4 that goes on as IPv6, because NAT64 leads to an inside host, as that host will
 * see it: so a rule names the inside destination, as it does behind any other destination NAT. */
static void describe_as_ipv6(const struct session_miss *miss, struct firewall_packet *out) {
    out->ipv6 = true;
    memcpy(out->source, miss->source6, 16);
    memcpy(out->destination, miss->destination6, 16);
    if (out->protocol == IPPROTO_ICMP) { /* an echo: nothing else gets here */
        out->protocol = IPPROTO_ICMPV6;
        out->destination_port = rte_cpu_to_be_16((uint16_t)(ICMP6_ECHO_REQUEST << 8));
    } else {
        out->destination_port = miss->destination_port;
    }
}

/* Addresses from the packet, which carries the real inside destination by now. Ports from the miss,
 * which knows those of later fragments too. */
static void describe(struct rte_mbuf *mbuf, const struct session_miss *miss,
                     const struct firewall_interfaces *interfaces, bool to_router,
                     struct firewall_packet *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    const bool ipv6 = meta->flags & PACKET_IPV6;

    memset(out, 0, sizeof(*out));
    out->protocol = meta->l4_protocol;
    out->ipv6 = ipv6;
    out->in = interfaces->slot[meta->in_interface % INTERFACES_MAX];
    out->out = to_router ? RTE_BE16(FIREWALL_SLOT_ROUTER)
                         : interfaces->slot[meta->out_interface % INTERFACES_MAX];
    if (ipv6) {
        out->dscp = (uint8_t)(rte_be_to_cpu_32(load32(packet)) >> 22 & 0x3f);
        memcpy(out->source, packet + 8, 16);
        memcpy(out->destination, packet + 24, 16);
    } else {
        out->dscp = packet[1] >> 2;
        memcpy(out->source, packet + 12, 4);
        memcpy(out->destination, packet + 16, 4);
    }
    switch (meta->l4_protocol) {
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        out->destination_port =
            rte_cpu_to_be_16((uint16_t)(miss->icmp_type << 8 | miss->icmp_code));
        break;
    case IPPROTO_TCP:
        out->tcp_flags = miss->tcp_flags;
        /* fall through */
    default:
        out->source_port = ipv6 ? miss->key.v6.source_port : miss->key.v4.source_port;
        out->destination_port =
            ipv6 ? miss->key.v6.destination_port : miss->key.v4.destination_port;
        if (miss->flags & FLOW_DESTINATION)
            out->destination_port = miss->destination_port;
        break;
    }
    if (!ipv6 && miss->flags & FLOW_OTHER_FAMILY)
        describe_as_ipv6(miss, out);
}

/* --- log --- */

static struct worker_log rule_log;

static void log_packet(struct worker *worker, const struct firewall_interfaces *interfaces,
                       const struct packet_meta *meta, const struct firewall_packet *packet,
                       const struct firewall_verdict *verdict) {
    char source[IP_ADDRESS_TEXT], destination[IP_ADDRESS_TEXT], ports[48] = "";
    struct ip_address from, to;
    char protocol[IP_PROTOCOL_TEXT];

    if (!worker_may_log(&rule_log, worker))
        return;
    from = packet->ipv6 ? ip6_address(packet->source) : ip4_address(packet->source);
    to = packet->ipv6 ? ip6_address(packet->destination) : ip4_address(packet->destination);
    switch (packet->protocol) {
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        snprintf(ports, sizeof(ports), " type=%u code=%u",
                 rte_be_to_cpu_16(packet->destination_port) >> 8,
                 rte_be_to_cpu_16(packet->destination_port) & 0xffu);
        break;
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
        snprintf(ports, sizeof(ports), " spt=%u dpt=%u", rte_be_to_cpu_16(packet->source_port),
                 rte_be_to_cpu_16(packet->destination_port));
        break;
    default:
        break;
    }
    ip_protocol_text(packet->protocol, protocol);
    log_limited(&rule_log.limit, LOG_LEVEL_INFO, "firewall",
                "rule=%s action=%s in=%s out=%s src=%s dst=%s proto=%s%s", verdict->name,
                firewall_action_names[verdict->action],
                interfaces->name[meta->in_interface % INTERFACES_MAX],
                packet->out == RTE_BE16(FIREWALL_SLOT_ROUTER)
                    ? "router"
                    : interfaces->name[meta->out_interface % INTERFACES_MAX],
                ip_address_text(&from, source), ip_address_text(&to, destination), protocol, ports);
}

/* --- verdicts --- */

static void reject(struct worker *worker, struct rte_mbuf *mbuf) {
    session_restore(worker, mbuf);
    if (packet_meta(mbuf)->l4_protocol == IPPROTO_TCP)
        firewall_reset(worker, mbuf);
    else
        icmp_send_error(worker, mbuf, ICMP_ERROR_PROHIBITED, 0);
}

static void refuse(struct worker *worker, struct burst *burst, unsigned i,
                   const struct firewall_verdict *verdict, bool is_default) {
    session_refuse(worker, burst, i);
    if (verdict->action == FIREWALL_REJECT) {
        reject(worker, burst->packets[i]);
        burst_drop(worker, burst, i, &firewall_stage.drops, FIREWALL_DROP_REJECTED);
    } else {
        burst_drop(worker, burst, i, &firewall_stage.drops,
                   is_default ? FIREWALL_DROP_DEFAULT : FIREWALL_DROP_RULE);
    }
}

/* Returns whether a session was opened. */
static bool let_pass(struct worker *worker, struct burst *burst, unsigned i, uint32_t rule,
                     bool stateless) {
    enum session_open_result result = session_accept(worker, burst, i, rule, stateless);

    if (result == SESSION_REFUSED)
        burst->dropped |= UINT64_C(1) << i; /* counted under its name already */
    return result == SESSION_OPENED;
}

/* --- bursts --- */

static void from_router(struct worker *worker, struct burst *burst) {
    unsigned i;

    BURST_FOREACH (i, burst->mask) {
        const struct packet_meta *meta = packet_meta(burst->packets[i]);

        if ((meta->flags & (PACKET_FROM_HOST | PACKET_INSPECTED)) == PACKET_FROM_HOST &&
            !session_from_host(worker, burst->packets[i]))
            burst_drop(worker, burst, i, &firewall_stage.drops, FIREWALL_DROP_HOST_REFUSED);
    }
}

/* Sessions without a firewall, for the NAT alone: everything is accepted. */
static void accept_all(struct worker *worker, struct burst *burst, uint64_t misses) {
    unsigned i;

    BURST_FOREACH (i, misses)
        session_begin(worker, burst, i, 0, false);
    BURST_FOREACH (i, misses)
        let_pass(worker, burst, i, 0, false);
}

static void decide(struct worker *worker, struct burst *burst, const struct session_burst *own,
                   uint64_t misses, const struct firewall_ruleset *set) {
    const struct firewall_interfaces *interfaces = firewall_interfaces_of(set);
    struct firewall_counter *counters = set->counters[worker->index];
    struct firewall_packet packets[BURST_MAX];
    uint32_t numbers[BURST_MAX];
    uint8_t index[BURST_MAX];
    unsigned count = 0, i;

    BURST_FOREACH (i, misses) {
        const struct packet_meta *meta = packet_meta(burst->packets[i]);
        const bool to_router = for_router(meta);

        if (unlikely(to_router && is_discovery(meta, &own->miss[i])))
            continue;
        describe(burst->packets[i], &own->miss[i], interfaces, to_router, &packets[count]);
        index[count++] = (uint8_t)i;
    }
    if (count == 0)
        return;
    firewall_classify(set, packets, count, numbers);
    for (unsigned n = 0; n < count; n++) {
        const struct firewall_verdict *verdict = &set->verdicts[numbers[n]];

        if (verdict->action == FIREWALL_ACCEPT)
            session_begin(worker, burst, index[n], numbers[n], verdict->stateless);
    }
    for (unsigned n = 0; n < count; n++) {
        const struct firewall_verdict *verdict = &set->verdicts[numbers[n]];
        struct firewall_counter *counter = &counters[numbers[n]];
        const struct packet_meta *meta;

        i = index[n];
        meta = packet_meta(burst->packets[i]);
        counter->packets++;
        counter->bytes += burst->packets[i]->pkt_len - meta->l3_offset;
        if (unlikely(verdict->log))
            log_packet(worker, interfaces, meta, &packets[n], verdict);
        if (verdict->action == FIREWALL_ACCEPT)
            counter->sessions += let_pass(worker, burst, i, numbers[n], verdict->stateless);
        else
            refuse(worker, burst, i, verdict, numbers[n] >= set->rule_count);
    }
}

static void firewall_run(struct worker *worker, struct burst *burst) {
    const struct session_burst *own = session_burst_of(worker);
    const struct firewall_ruleset *set;
    uint64_t misses;

    if (unlikely(!own)) {
        from_router(worker, burst);
        return;
    }
    misses = own->misses & burst->mask;
    if (likely(misses == 0))
        return;
    set = firewall_ruleset();
    if (set)
        decide(worker, burst, own, misses, set);
    else
        accept_all(worker, burst, misses);
}
