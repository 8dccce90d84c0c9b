/*
 * Live sessions after a change of rules or addresses: those end whose translation no rule gives any
 * more, and those without one that a rule would give one now.
 */
#include <rte_byteorder.h>
#include <stdatomic.h>

#include "core/event.h"
#include "nat/nat_internal.h"
#include "nat/nat_ipv6.h"
#include "session/session.h"

enum { SESSIONS_AT_ONCE = 4096 };

static void review_some(struct event_timer *timer);
static struct event_timer review_timer = {.expired = review_some};
static uint32_t review_cursor;

/* Does the rule give this outside address (host order) to such a packet? */
static bool rule_gives(const struct nat_source_rule *rule, const struct nat_packet *packet,
                       uint32_t outside) {
    struct nat_rules alone = {.source_count = 1,
                              .sources = (struct nat_source_rule *)(uintptr_t)rule};

    if (!nat_match_source(&alone, packet))
        return false;
    for (unsigned i = 0; i < rule->pool_count; i++) {
        if (rule->pool[i].first <= outside && outside <= rule->pool[i].last)
            return true;
    }
    return false;
}

const struct nat_source_rule *nat_hairpin_rule(const struct nat_rules *rules,
                                               const struct nat_packet *packet, uint32_t became,
                                               uint32_t outside) {
    struct nat_packet asked = *packet;

    for (unsigned i = 0; i < rules->source_count; i++) {
        const struct nat_source_rule *rule = &rules->sources[i];

        asked.out = rule->out;
        asked.destination = packet->destination;
        if (rule_gives(rule, &asked, outside))
            return rule;
        asked.destination = became; /* a port forward to where sources are translated */
        if (asked.out == packet->out && rule_gives(rule, &asked, outside))
            return rule;
    }
    return NULL;
}

/* Does a rule give this source still? The first that matches decides. */
static bool source_stands(const struct nat_rules *rules, const struct session *session,
                          const struct flow *forward) {
    const struct flow_key4 *key = &forward->key4, *answers = &forward[1].key4;
    const struct nat_static_rule *fixed = nat_static_inside(rules, key->source);
    uint32_t outside = rte_be_to_cpu_32(answers->destination);
    bool hairpin = forward->flags & FLOW_DESTINATION;
    struct nat_packet packet = {.source = key->source,
                                .destination = hairpin ? key->destination : answers->source,
                                .protocol = session->protocol,
                                .in = session->in_interface,
                                .out = session->out_interface};
    const struct nat_source_rule *rule;

    if (fixed && fixed->outside == answers->destination)
        return true;
    if (nat64_static_outside(rules, (uint16_t)(answers->protocol_vrf >> 16), answers->destination,
                             session->protocol, answers->destination_port))
        return false; /* the port belongs to an IPv6 host */
    if (!hairpin) {
        rule = nat_match_source(rules, &packet);
        return rule && rule_gives(rule, &packet, outside);
    }
    if (nat_hairpin_rule(rules, &packet, answers->source, outside))
        return true;
    /* Without a rule a hairpin has the address that its packets were sent to. */
    return answers->destination == key->destination && nat_is_interface_address(outside);
}

/* Somebody outside came in by a mapping: would the inside still be mapped so, and open to all? */
static bool mapping_stands(const struct nat_rules *rules, const struct session *session,
                           const struct flow *forward) {
    const struct flow_key4 *key = &forward->key4, *answers = &forward[1].key4;
    struct nat_packet packet = {.source = answers->source,
                                .destination = key->source,
                                .protocol = session->protocol,
                                .in = session->out_interface,
                                .out = session->in_interface};
    const struct nat_source_rule *rule = nat_match_source(rules, &packet);

    return rule && !rule->endpoint_dependent && rule->endpoint_independent_filter &&
           rule_gives(rule, &packet, rte_be_to_cpu_32(key->destination));
}

/* And this destination? A hairpin through a mapping ends with the one of its source. */
static bool destination_stands(const struct nat_rules *rules, const struct session *session,
                               const struct flow *forward) {
    const struct flow_key4 *key = &forward->key4, *answers = &forward[1].key4;
    const struct nat_static_rule *fixed = nat_static_outside(rules, key->destination);
    struct nat_packet packet = {.source = key->source,
                                .destination = key->destination,
                                .source_port = key->source_port,
                                .destination_port = key->destination_port,
                                .protocol = session->protocol,
                                .has_ports = true,
                                .in = session->in_interface,
                                .vrf = (uint16_t)(key->protocol_vrf >> 16)};
    const struct nat_destination_rule *rule;
    uint32_t address;
    uint16_t port;

    if (fixed && fixed->vrf == packet.vrf)
        return fixed->inside == answers->source;
    if (nat64_static_port(rules, packet.vrf, key->destination, session->protocol,
                          key->destination_port))
        return false;
    rule = nat_match_destination(rules, &packet);
    if (rule) {
        nat_destination_of(rule, &packet, &address, &port);
        return address == answers->source && port == answers->source_port;
    }
    if (session->mapping == MAPPING_NONE)
        return false;
    return forward->flags & FLOW_SOURCE || mapping_stands(rules, session, forward);
}

/* Nothing of the session is translated: would its first packet be now? What the router's own host
 * gets or sends never has another source, nor has what IPsec protects. */
static bool is_wanted(const struct nat_rules *rules, const struct session *session,
                      const struct flow *forward, bool is_protected) {
    const struct flow_key4 *key = &forward->key4;
    const struct nat_static_rule *to = nat_static_outside(rules, key->destination),
                                 *from = nat_static_inside(rules, key->source);
    struct nat_packet packet = {.source = key->source,
                                .destination = key->destination,
                                .source_port = key->source_port,
                                .destination_port = key->destination_port,
                                .protocol = session->protocol,
                                .has_ports = true,
                                .in = session->in_interface,
                                .out = session->out_interface,
                                .vrf = (uint16_t)(key->protocol_vrf >> 16)};
    const struct nat_source_rule *rule;

    if ((to && to->interface != 0 && to->vrf == packet.vrf) ||
        nat_match_destination(rules, &packet) ||
        nat64_static_outside(rules, packet.vrf, key->destination, session->protocol,
                             key->destination_port))
        return true;
    if (session->flags & SESSION_LOCAL || is_protected)
        return false;
    if (from && from->interface == packet.out && from->vrf == packet.vrf)
        return true;
    rule = nat_match_source(rules, &packet);
    return rule && rule->target != NAT_TO_NONE;
}

static bool session_stands(const struct nat_rules *rules, const struct session *session,
                           uint32_t number) {
    const struct flow *forward = &session_flows[number];
    bool is_protected;

    if (session->flags & SESSION_FROM_ROUTER)
        return true;
    is_protected = session_would_be_protected(number);
    if (is_protected && forward->flags & FLOW_SOURCE)
        return false; /* it would go on in clear */
    if (forward->flags & (FLOW_IPV6 | FLOW_OTHER_FAMILY))
        return is_protected || nat_stands6(rules, session, forward);
    if (!(forward->flags & (FLOW_SOURCE | FLOW_DESTINATION)))
        return !is_wanted(rules, session, forward, is_protected);
    return (!(forward->flags & FLOW_SOURCE) || source_stands(rules, session, forward)) &&
           (!(forward->flags & FLOW_DESTINATION) || destination_stands(rules, session, forward));
}

static bool review(uint32_t number, const struct session *session, void *context) {
    const struct nat_rules *rules = context;
    uint32_t serial = __atomic_load_n(&session->serial, __ATOMIC_ACQUIRE);
    bool stands = session_stands(rules, session, number * 2);

    /* It may have ended meanwhile, and the place be another session's. */
    if (!stands && __atomic_load_n(&session->serial, __ATOMIC_ACQUIRE) == serial)
        session_end(number);
    return true;
}

static void review_some(struct event_timer *timer) {
    static const struct nat_rules none;
    const struct nat_rules *rules = nat_wanted() ? atomic_load(&nat_rules_published) : NULL;

    session_walk(&review_cursor, SESSIONS_AT_ONCE, review,
                 (void *)(uintptr_t)(rules ? rules : &none));
    if (review_cursor != 0)
        event_timer_start(timer, 1);
}

void nat_review(void) {
    review_cursor = 0;
    event_timer_start(&review_timer, 0);
}
