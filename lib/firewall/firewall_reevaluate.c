/*
 * A second look at live sessions, after the rules have changed: those that the new ruleset would
 * not have let begin end. The first packet of a session is put together again from what the session
 * knows of it; flags of TCP other than SYN, and the code of an ICMP query, are not remembered.
 *
 * A few thousand sessions per turn of the event loop: other work of the control thread goes on in
 * between, and so do the workers all the while.
 */
#include <netinet/in.h>
#include <string.h>

#include "core/event.h"
#include "core/log.h"
#include "firewall/firewall_internal.h"
#include "session/session.h"

enum {
    SLICE = 4096, /* sessions per turn */
    TCP_SYN_FLAG = 0x02,
    TCP_ACK_FLAG = 0x10,
    ICMP_CODE_BITS = 8,
    ICMP6_ECHO_REQUEST = 128,
};

struct look {
    const struct firewall_ruleset *set;
    const struct firewall_interfaces *interfaces;
    unsigned count;
    uint32_t numbers[FIREWALL_BURST_MAX], serials[FIREWALL_BURST_MAX];
    struct firewall_packet packets[FIREWALL_BURST_MAX];
};

static struct {
    struct event_timer timer;
    uint32_t cursor;
    uint64_t seen, ended;
} run;

static void describe_ports(const struct session *session, bool ipv6, uint16_t source_port,
                           uint16_t destination_port, struct firewall_packet *out) {
    switch (session->protocol) {
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6: /* the asking side has the identifier as its port; there is one query */
        out->destination_port = ipv6
                                    ? RTE_BE16(ICMP6_ECHO_REQUEST << ICMP_CODE_BITS)
                                    : rte_cpu_to_be_16((uint16_t)(rte_be_to_cpu_16(destination_port)
                                                                  << ICMP_CODE_BITS));
        return;
    case IPPROTO_TCP:
        out->tcp_flags = session->flags & SESSION_PICKED_UP ? TCP_ACK_FLAG : TCP_SYN_FLAG;
        break;
    default:
        break;
    }
    out->source_port = source_port;
    out->destination_port = destination_port;
}

/* NAT64 from the IPv4 side: the packet as the inside host saw it, whose answers tell. */
static void describe_as_ipv6(const struct session *session, const struct flow *backward,
                             struct firewall_packet *out) {
    const struct flow_key6 *answers = &backward->key6;

    if (out->protocol == IPPROTO_ICMP)
        out->protocol = IPPROTO_ICMPV6;
    out->ipv6 = true;
    memcpy(out->source, answers->destination, 16);
    memcpy(out->destination, answers->source, 16);
    describe_ports(session, true, answers->destination_port, answers->source_port, out);
}

/* The first packet as the stage saw it: source as it came in, destination translated, which is what
 * answers come from. */
static void describe(uint32_t number, const struct session *session,
                     const struct firewall_interfaces *interfaces, struct firewall_packet *out) {
    const struct flow *forward = &session_flows[number * 2];
    /* Of NAT64 from the IPv6 side the firewall sees the packet as it came in. */
    const struct flow *backward =
        forward->flags & FLOW_OTHER_FAMILY ? NULL : &session_flows[number * 2 + 1];
    const bool ipv6 = forward->flags & FLOW_IPV6;

    memset(out, 0, sizeof(*out));
    out->protocol = session->protocol;
    out->ipv6 = ipv6;
    out->in = interfaces->slot[session->in_interface % INTERFACES_MAX];
    out->out = session->flags & SESSION_LOCAL
                   ? RTE_BE16(FIREWALL_SLOT_ROUTER)
                   : interfaces->slot[session->out_interface % INTERFACES_MAX];
    out->dscp = session->traffic_class >> 2;
    if (!ipv6 && !backward) {
        describe_as_ipv6(session, &session_flows[number * 2 + 1], out);
    } else if (ipv6) {
        memcpy(out->source, forward->key6.source, 16);
        memcpy(out->destination, backward ? backward->key6.source : forward->key6.destination, 16);
        describe_ports(session, true, forward->key6.source_port,
                       backward ? backward->key6.source_port : forward->key6.destination_port, out);
    } else {
        memcpy(out->source, &forward->key4.source, 4);
        memcpy(out->destination, backward ? &backward->key4.source : &forward->key4.destination, 4);
        describe_ports(session, false, forward->key4.source_port,
                       backward ? backward->key4.source_port : forward->key4.destination_port, out);
    }
}

static void judge(struct look *look) {
    uint32_t rules[FIREWALL_BURST_MAX];

    firewall_classify(look->set, look->packets, look->count, rules);
    for (unsigned i = 0; i < look->count; i++) {
        struct session *session = &sessions[look->numbers[i]];

        /* Ended meanwhile, and perhaps somebody else's already. */
        if (__atomic_load_n(&session->serial, __ATOMIC_ACQUIRE) != look->serials[i])
            continue;
        if (look->set->verdicts[rules[i]].action == FIREWALL_ACCEPT) {
            __atomic_store_n(&session->rule, rules[i], __ATOMIC_RELAXED);
        } else {
            session_end(look->numbers[i]);
            run.ended++;
        }
    }
    run.seen += look->count;
    look->count = 0;
}

static bool visit(uint32_t number, const struct session *session, void *context) {
    struct look *look = context;

    if (session->flags & SESSION_FROM_ROUTER || session->state == SESSION_FREE ||
        session->state == SESSION_ENDING)
        return true;
    look->numbers[look->count] = number;
    look->serials[look->count] = __atomic_load_n(&session->serial, __ATOMIC_ACQUIRE);
    describe(number, session, look->interfaces, &look->packets[look->count]);
    if (++look->count == FIREWALL_BURST_MAX)
        judge(look);
    return true;
}

static void slice(struct event_timer *timer) {
    struct look look;

    look.count = 0;
    look.set = firewall_ruleset();
    if (!look.set || !session_flows)
        return;
    look.interfaces = firewall_interfaces_of(look.set);
    session_walk(&run.cursor, SLICE, visit, &look);
    if (look.count > 0)
        judge(&look);
    if (run.cursor != 0)
        event_timer_start(timer, 0);
    else if (run.ended > 0)
        log_notice("firewall", "the new rules ended %llu of %llu sessions",
                   (unsigned long long)run.ended, (unsigned long long)run.seen);
}

void firewall_reevaluate(void) {
    event_timer_stop(&run.timer);
    run.cursor = 0;
    run.seen = run.ended = 0;
    run.timer.expired = slice;
    if (firewall_ruleset() && session_flows)
        event_timer_start(&run.timer, 0);
}
