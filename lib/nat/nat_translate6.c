/*
 * The choice for a new session of which one side is IPv6.
 *
 * NPTv6 (RFC 6296) only changes prefixes, so what an address becomes follows from the rule alone;
 * sessions serve the firewall, and spare established flows the arithmetic. A packet from the inside
 * to an outside address of the inside is a hairpin: its source is translated as well.
 *
 * NAT64 (RFC 6146): an IPv6 packet to an address behind a rule's prefix goes on as IPv4. Until the
 * firewall has seen it, it stays IPv6, but its next hop is that of the IPv4 destination. The source
 * comes from the rule's pool as it does for IPv4, or from a static binding. When the IPv4 address
 * and port lead back to an IPv6 host, the packet is a hairpin (section 3.8): it stays IPv6, and
 * gets that host for its destination and an address behind the prefix for its source.
 */
#include <netinet/in.h>
#include <rte_byteorder.h>

#include "l3/header.h"
#include "l3/next_hop.h"
#include "l3/route_lookup.h"
#include "nat/nat_internal.h"
#include "nat/nat_ipv6.h"
#include "session/embedded.h"

enum { ICMP_ECHO = 8 };

/* --- destinations --- */

static bool is_own(uint32_t next_hop) {
    uint8_t type = next_hop_get(next_hop)->type;

    return type == NEXT_HOP_LOCAL || type == NEXT_HOP_BROADCAST;
}

static uint32_t route_of_ipv6(uint16_t vrf, const uint8_t address[16]) {
    struct prefix_key key = prefix_key_from_ipv6(address);
    uint32_t next_hop;

    route_lookup_ipv6(vrf, &key, &next_hop, 1);
    return next_hop;
}

/* `route` is not to look for the destination that the packet still has. */
static void set_next_hop(struct rte_mbuf *mbuf, uint32_t next_hop) {
    packet_meta(mbuf)->next_hop = next_hop;
    packet_meta(mbuf)->flags |= PACKET_NEXT_HOP;
}

/* The protocol as IPv4 has it. */
static uint8_t protocol4(const struct flow_key6 *key) {
    uint8_t protocol = (uint8_t)key->protocol_vrf;

    return protocol == IPPROTO_ICMPV6 ? IPPROTO_ICMP : protocol;
}

/* RFC 6146 section 3.8: an outside address and port that lead to another IPv6 host. */
struct turn {
    uint8_t inside[16];
    uint16_t port;
    uint16_t out; /* where the packet would have left and come back */
    bool bound;   /* by a static binding */
};

static bool turns_round(const struct nat64_rule *rule, const struct flow_key6 *key, uint32_t ipv4,
                        struct turn *out) {
    const struct nat_rules *rules = nat_rules_now();
    uint8_t protocol = protocol4(key);
    const struct nat64_static *fixed =
        nat64_static_outside(rules, rule->vrf, ipv4, protocol, key->destination_port);
    const struct nat_mapping *mapping;
    uint32_t number;

    if (fixed) {
        memcpy(out->inside, fixed->inside, sizeof(out->inside));
        out->port = nat64_static_inward(fixed, key->destination_port);
        out->out = fixed->out;
        out->bound = true;
        return true;
    }
    /* No mapping is about queries, which have their type for a port. */
    if (protocol == IPPROTO_ICMP || !nat_is_mapped_address(rules, rule->vrf, ipv4))
        return false;
    number = nat_mapping_of_outside(ipv4, key->destination_port, protocol, rule->vrf);
    mapping = nat_mapping_get(number);
    /* Of another VRF the inside address may be another host's here. */
    if (number == MAPPING_NONE || !(mapping->flags & MAPPING_IPV6) ||
        mapping->inside_vrf != key->protocol_vrf >> 16)
        return false;
    memcpy(out->inside, nat_mapping_inside6(number)->address, sizeof(out->inside));
    out->port = mapping->inside_port;
    out->out = mapping->outside_interface;
    out->bound = false;
    return true;
}

/* It stays IPv6, and both ends change: see source_of_hairpin(). */
static bool enter_hairpin(struct worker *worker, struct rte_mbuf *mbuf, struct session_miss *miss,
                          const struct turn *turn, uint32_t ipv4) {
    if (is_own(route_of_ipv6(packet_meta(mbuf)->vrf, turn->inside)))
        return nat_refuse(worker, NAT_NAT64_SOURCE);
    memcpy(miss->destination6, turn->inside, sizeof(miss->destination6));
    miss->destination_port = turn->port;
    miss->destination = ipv4;
    miss->flags |= FLOW_DESTINATION | FLOW_PORTS;
    return true;
}

static bool enter_ipv4(struct worker *worker, struct rte_mbuf *mbuf, struct session_miss *miss,
                       const struct nat64_rule *rule) {
    const struct flow_key6 *key = &miss->key.v6;
    uint8_t protocol = protocol4(key);
    uint32_t ipv4 = nat64_ipv4(rule, key->destination), host = rte_be_to_cpu_32(ipv4), next_hop;
    struct turn turn;

    /* RFC 6146 section 3.5: whoever says to be behind the prefix would be answered in a circle. */
    if (nat_in_prefix6(&rule->prefix, key->source))
        return nat_refuse(worker, NAT_NAT64_SOURCE);
    if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_ICMP)
        return nat_refuse(worker, NAT_NAT64_PROTOCOL);
    if (!nat64_may_reach(rule, ipv4))
        return nat_refuse(worker, NAT_NAT64_DESTINATION);
    if (turns_round(rule, key, ipv4, &turn))
        return enter_hairpin(worker, mbuf, miss, &turn, ipv4);
    route_lookup_ipv4(packet_meta(mbuf)->vrf, &host, &next_hop, 1);
    if (is_own(next_hop) || nat_is_pool_address(nat_rules_now(), packet_meta(mbuf)->vrf, ipv4))
        return nat_refuse(worker, NAT_NAT64_DESTINATION);
    miss->flags |= FLOW_OTHER_FAMILY;
    miss->destination = ipv4;
    set_next_hop(mbuf, next_hop);
    return true;
}

/* To the inside address and port, from behind the rule's prefix. */
static bool enter_ipv6(struct worker *worker, struct rte_mbuf *mbuf, struct session_miss *miss,
                       const struct nat64_rule *rule, const uint8_t inside[16], uint16_t port) {
    uint32_t source = miss->key.v4.source, next_hop = route_of_ipv6(packet_meta(mbuf)->vrf, inside);

    if (!nat64_may_reach(rule, source))
        return nat_refuse(worker, NAT_NAT64_DESTINATION);
    if (is_own(next_hop)) /* somebody has used an address of the router */
        return nat_refuse(worker, NAT_NAT64_SOURCE);
    miss->flags |= FLOW_OTHER_FAMILY;
    memcpy(miss->destination6, inside, sizeof(miss->destination6));
    miss->destination_port = port;
    embedded_make(rule->prefix.address, rule->prefix.length, source, miss->source6);
    set_next_hop(mbuf, next_hop);
    return true;
}

const struct nat64_rule *nat_open_to_ipv6(struct rte_mbuf *mbuf, const struct flow_key4 *key,
                                          uint32_t mapping) {
    const uint8_t *inside = nat_mapping_inside6(mapping)->address;
    uint32_t next_hop = route_of_ipv6(nat_mapping_get(mapping)->inside_vrf, inside);
    struct nat_packet answer = {.destination = key->source,
                                .protocol = (uint8_t)key->protocol_vrf,
                                .in = nat_interface_of(next_hop),
                                .out = packet_meta(mbuf)->in_interface};

    return nat64_open_to(nat_rules_now(), &answer, key->destination, inside);
}

bool nat_enter_ipv6(struct worker *worker, struct rte_mbuf *mbuf, struct session_miss *miss,
                    uint32_t mapping, const struct nat64_rule *rule) {
    if (nat_mapping_get(mapping)->inside_vrf != packet_meta(mbuf)->vrf)
        return nat_refuse(worker, NAT_NO_MAPPING); /* of another VRF: it may be another host here */
    miss->mapping = mapping;
    return enter_ipv6(worker, mbuf, miss, rule, nat_mapping_inside6(mapping)->address,
                      nat_mapping_get(mapping)->inside_port);
}

bool nat_enter_static6(struct worker *worker, struct rte_mbuf *mbuf, struct session_miss *miss,
                       const struct nat64_static *fixed) {
    const struct flow_key4 *key = &miss->key.v4;
    uint8_t protocol = (uint8_t)key->protocol_vrf;
    bool echo = protocol == IPPROTO_ICMP && miss->icmp_type == ICMP_ECHO;

    /* All of an address may be meant, and some of it has no counterpart. */
    if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && !echo)
        return nat_refuse(worker, NAT_NAT64_PROTOCOL);
    return enter_ipv6(worker, mbuf, miss, &nat_rules_now()->nat64[fixed->rule], fixed->inside,
                      nat64_static_inward(fixed, key->destination_port));
}

bool nat_choose_destination6(struct worker *worker, struct rte_mbuf *mbuf,
                             struct session_miss *miss) {
    const struct nat_rules *rules = nat_rules_now();
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *destination = miss->key.v6.destination;
    const struct nat64_rule *nat64 =
        nat64_of_destination(rules, meta->in_interface, meta->vrf, destination);
    const struct nptv6_rule *nptv6 = nptv6_of_outside(rules, meta->vrf, destination);

    /* The router may have addresses of its own in these prefixes. */
    if ((!nat64 && !nptv6) || meta->flags & PACKET_LOCAL ||
        is_own(route_of_ipv6(meta->vrf, destination)))
        return true;
    if (nat64)
        return enter_ipv4(worker, mbuf, miss, nat64);
    if (!nptv6_translate(nptv6, false, destination, miss->destination6))
        return nat_refuse(worker, NAT_NPTV6_ADDRESS);
    miss->flags |= FLOW_DESTINATION;
    miss->translation = nptv6;
    return true;
}

/* --- sources --- */

static struct nat_packet packet_of(const struct session_new *draft) {
    return (struct nat_packet){
        .destination = draft->destination,
        .protocol = protocol4(&draft->key.v6),
        .in = draft->in_interface,
        .out = draft->out_interface,
    };
}

static struct nat_inside6 inside_of(const uint8_t address[16]) {
    struct nat_inside6 inside;

    memcpy(inside.address, address, sizeof(inside.address));
    return inside;
}

static bool source_by_static(struct worker *worker, struct session_new *draft,
                             const struct nat64_static *fixed) {
    if (draft->attempt > 0)
        return nat_refuse(worker, NAT_CONFLICT);
    if (fixed->outside == 0)
        return nat_refuse(worker, NAT_NO_ADDRESS);
    draft->source = fixed->outside;
    draft->source_port = nat64_static_outward(fixed, draft->key.v6.source_port);
    if (!(draft->flags & FLOW_OTHER_FAMILY))
        draft->flags |= FLOW_SOURCE;
    return true;
}

/* The outside address and port of an IPv6 source. A static binding goes before the rules' pools. */
static bool source_by_rule(struct worker *worker, struct session_new *draft,
                           const struct nat_packet *packet) {
    const struct nat_rules *rules = nat_rules_now();
    const struct flow_key6 *key = &draft->key.v6;
    const struct nat64_static *fixed =
        nat64_static_inside(rules, packet->out, key->source, packet->protocol, key->source_port);
    const struct nat64_rule *rule;
    struct nat_inside6 inside;

    if (fixed)
        return source_by_static(worker, draft, fixed);
    rule = nat64_match(rules, packet, key->source, key->destination);
    if (!rule)
        return nat_refuse(worker, NAT_NAT64_NO_RULE);
    inside = inside_of(key->source);
    return nat_apply_rule(worker, draft, &rule->as, &inside);
}

static bool source_on_ipv4(struct worker *worker, struct session_new *draft) {
    const struct nat_packet packet = packet_of(draft);

    return source_by_rule(worker, draft, &packet);
}

/* As if it had left by the outside interface and come back: RFC 6146 section 3.8. */
static bool source_of_hairpin(struct worker *worker, struct session_new *draft) {
    const struct flow_key6 *key = &draft->key.v6;
    struct nat_packet packet = packet_of(draft);
    const struct nat64_rule *rule =
        nat64_of_destination(nat_rules_now(), draft->in_interface, draft->vrf, key->destination);
    uint16_t out_vrf = draft->out_vrf;
    struct turn turn;
    bool made;

    if (!rule || !turns_round(rule, key, draft->destination, &turn))
        return nat_refuse(worker, NAT_NO_MAPPING);
    packet.out = turn.out;
    draft->bound = turn.bound;
    draft->out_vrf = rule->vrf; /* of the outside address, while that is chosen */
    made = source_by_rule(worker, draft, &packet);
    draft->out_vrf = out_vrf;
    embedded_make(rule->prefix.address, rule->prefix.length, draft->source, draft->source6);
    return made;
}

/* From the IPv4 side: the source is chosen already, for the firewall; a mapping is held. */
static bool source_on_ipv6(struct worker *worker, struct session_new *draft) {
    if (draft->attempt > 0)
        return nat_refuse(worker, NAT_CONFLICT);
    if (draft->mapping != MAPPING_NONE && !nat_mapping_hold(draft->mapping)) {
        draft->mapping = MAPPING_NONE;
        return nat_refuse(worker, NAT_NO_MAPPING);
    }
    return true;
}

static bool new_prefix(struct worker *worker, struct session_new *draft) {
    const uint8_t *source = draft->key.v6.source;
    const struct nptv6_rule *hairpin = draft->translation;
    const struct nptv6_rule *rule = nptv6_of_inside(nat_rules_now(), draft->out_interface, source);

    draft->mapping = MAPPING_NONE;
    if (!rule && hairpin && nat_in_prefix6(&hairpin->inside, source) &&
        draft->in_interface != hairpin->out)
        rule = hairpin;
    if (draft->attempt > 0)
        return nat_refuse(worker, NAT_CONFLICT);
    if (!rule)
        return true;
    if (!nptv6_translate(rule, true, source, draft->source6))
        return nat_refuse(worker, NAT_NPTV6_ADDRESS);
    draft->flags |= FLOW_SOURCE;
    return true;
}

bool nat_choose_source6(struct worker *worker, struct session_new *draft) {
    if (draft->flags & FLOW_PORTS)
        return source_of_hairpin(worker, draft);
    if (!(draft->flags & FLOW_OTHER_FAMILY))
        return new_prefix(worker, draft);
    return draft->flags & FLOW_IPV6 ? source_on_ipv4(worker, draft) : source_on_ipv6(worker, draft);
}

static bool leaves_as_another(const struct nat_rules *rules, const struct flow_key6 *key,
                              uint16_t in, uint16_t out) {
    return nptv6_of_inside(rules, out, key->source) ||
           nat64_of_destination(rules, in, (uint16_t)(key->protocol_vrf >> 16), key->destination);
}

bool nat_wants_source6(const struct flow_key6 *key, uint16_t in, uint16_t out) {
    return leaves_as_another(nat_rules_now(), key, in, out);
}

/* --- without a session --- */

/* The address in the packet that an ICMPv6 error quotes, if there is one: at `at` of its header. */
static uint8_t *quoted_address(struct rte_mbuf *mbuf, unsigned at) {
    enum { ICMP_HEADER = 8, FIRST_QUERY = 128 };
    const struct packet_meta *meta = packet_meta(mbuf);
    unsigned quote = meta->l4_offset + ICMP_HEADER;

    if (meta->l4_protocol != IPPROTO_ICMPV6 || meta->flags & PACKET_LATER_FRAGMENT ||
        quote + IPV6_HEADER > mbuf->data_len ||
        *rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, meta->l4_offset) >= FIRST_QUERY)
        return NULL;
    return rte_pktmbuf_mtod_offset(mbuf, uint8_t *, quote + at);
}

/* In the packet and in what it quotes, where addresses have changed places. Both leave all
 * checksums as they are. */
static bool translate_both(struct worker *worker, const struct nptv6_rule *rule, bool outward,
                           uint8_t *address, uint8_t *quoted) {
    uint8_t became[16];

    if (!nptv6_translate(rule, outward, address, became))
        return nat_refuse(worker, NAT_NPTV6_ADDRESS);
    memcpy(address, became, sizeof(became));
    if (quoted && nat_in_prefix6(outward ? &rule->inside : &rule->outside, quoted) &&
        nptv6_translate(rule, outward, quoted, became))
        memcpy(quoted, became, sizeof(became));
    return true;
}

bool nat_stateless6(struct worker *worker, struct rte_mbuf *mbuf, uint16_t out) {
    const struct nat_rules *rules = nat_rules_now();
    const struct packet_meta *meta = packet_meta(mbuf);
    uint8_t *packet = packet_l3(mbuf, uint8_t *);
    const struct nptv6_rule *rule;

    if (out != 0) {
        rule = nptv6_of_inside(rules, out, packet + 8);
        return !rule || translate_both(worker, rule, true, packet + 8, quoted_address(mbuf, 24));
    }
    if (meta->flags & (PACKET_LOCAL | PACKET_IP_MULTICAST))
        return true;
    rule = nptv6_of_outside(rules, meta->vrf, packet + 24);
    if (rule && !is_own(route_of_ipv6(meta->vrf, packet + 24)))
        return translate_both(worker, rule, false, packet + 24, quoted_address(mbuf, 8));
    if (nat64_of_destination(rules, meta->in_interface, meta->vrf, packet + 24) &&
        !is_own(route_of_ipv6(meta->vrf, packet + 24)))
        return nat_refuse(worker, NAT_NO_MAPPING);
    return true;
}

/* --- what holds for sessions that there are --- */

/* Does a static binding lead a packet with this key to this inside, as this source? */
static bool static_leads_to(const struct nat_rules *rules, uint16_t vrf,
                            const struct flow_key4 *key, const uint8_t source6[16],
                            const uint8_t inside[16], uint16_t port) {
    const struct nat64_static *fixed = nat64_static_outside(
        rules, vrf, key->destination, (uint8_t)key->protocol_vrf, key->destination_port);
    const struct nat_prefix6 *prefix = fixed ? &rules->nat64[fixed->rule].prefix : NULL;
    uint8_t source[16];

    if (!fixed)
        return false;
    embedded_make(prefix->address, prefix->length, key->source, source);
    return memcmp(source, source6, 16) == 0 && memcmp(fixed->inside, inside, 16) == 0 &&
           nat64_static_inward(fixed, key->destination_port) == port;
}

/* And a hairpin, to this outside address and the port in the key? Of a mapping only the rule is
 * asked: it may have gone, which does not end those who have come by it. */
static bool hairpin_leads_to(const struct nat_rules *rules, uint16_t vrf,
                             const struct flow_key6 *key, uint32_t ipv4, const uint8_t inside[16],
                             uint16_t port, bool bound) {
    const struct nat64_static *fixed =
        nat64_static_outside(rules, vrf, ipv4, protocol4(key), key->destination_port);

    if (fixed)
        return memcmp(fixed->inside, inside, 16) == 0 &&
               nat64_static_inward(fixed, key->destination_port) == port;
    return !bound && nat64_gives(rules, vrf, ipv4, inside);
}

/* --- after a restart --- */

static bool some_rule_makes(const struct nat_rules *rules, bool outward, const uint8_t from[16],
                            const uint8_t to[16]) {
    uint8_t became[16];

    for (unsigned i = 0; i < rules->nptv6_count; i++) {
        const struct nptv6_rule *rule = &rules->nptv6[i];

        if (nat_in_prefix6(outward ? &rule->inside : &rule->outside, from) &&
            nptv6_translate(rule, outward, from, became) && memcmp(became, to, 16) == 0)
            return true;
    }
    return false;
}

/* From the IPv6 side, with an outside address and port (network order) on this interface. */
static bool restore_outside(struct session_new *draft, bool mapped, uint16_t out, uint16_t out_vrf,
                            uint32_t ipv4) {
    const struct nat_rules *rules = nat_rules_now();
    const struct flow_key6 *key = &draft->key.v6;
    struct nat_packet packet = packet_of(draft);
    uint16_t port = rte_be_to_cpu_16(draft->source_port);
    const struct nat64_static *fixed =
        nat64_static_inside(rules, out, key->source, packet.protocol, key->source_port);
    const struct nat64_rule *rule;
    struct nat_inside6 inside;
    struct nat_mapping wanted = {
        .outside = draft->source,
        .inside_port = key->source_port,
        .inside_vrf = draft->vrf,
        .outside_vrf = out_vrf,
        .outside_interface = out,
        .protocol = packet.protocol,
    };

    if (fixed)
        return !mapped && draft->source == fixed->outside &&
               draft->source_port == nat64_static_outward(fixed, key->source_port);
    packet.out = out;
    packet.destination = ipv4;
    rule = nat64_match(rules, &packet, key->source, key->destination);
    if (!rule || rule->as.endpoint_dependent == mapped)
        return false;
    if (!mapped)
        return true;
    inside = inside_of(key->source);
    return nat_mapping_make(&wanted, &inside, port, port, 0, 0, &draft->mapping) == NAT_PORT_OK &&
           nat_mapping_get(draft->mapping)->outside_port == draft->source_port;
}

/* The outside interface is not kept, but only one can have the outside address. */
static bool restore_hairpin(struct session_new *draft, bool mapped) {
    const struct nat_rules *rules = nat_rules_now();
    const struct nat64_rule *rule =
        nat64_of_destination(rules, draft->in_interface, draft->vrf, draft->key.v6.destination);
    uint32_t ipv4;

    if (!rule || !nat_in_prefix6(&rule->prefix, draft->source6))
        return false;
    ipv4 = nat64_ipv4(rule, draft->key.v6.destination);
    draft->source = nat64_ipv4(rule, draft->source6);
    return hairpin_leads_to(rules, rule->vrf, &draft->key.v6, ipv4, draft->destination6,
                            draft->destination_port, draft->bound) &&
           restore_outside(draft, mapped, nat64_outside_interface(rules, rule->vrf, draft->source),
                           rule->vrf, ipv4);
}

/* Whoever came in by a mapping comes again; a static binding is there still. */
static bool restore_inward(const struct session_new *draft, bool mapped) {
    const struct flow_key4 *key = &draft->key.v4;

    return !mapped && static_leads_to(nat_rules_now(), draft->vrf, key, draft->source6,
                                      draft->destination6, draft->destination_port);
}

bool nat_restore6(struct session_new *draft, bool mapped) {
    const struct nat_rules *rules = nat_rules_now();
    const struct flow_key6 *key = &draft->key.v6;

    if (draft->flags & FLOW_PORTS)
        return restore_hairpin(draft, mapped);
    if (!(draft->flags & FLOW_OTHER_FAMILY))
        return !mapped &&
               (!(draft->flags & FLOW_SOURCE) ||
                some_rule_makes(rules, true, key->source, draft->source6)) &&
               (!(draft->flags & FLOW_DESTINATION) ||
                some_rule_makes(rules, false, key->destination, draft->destination6));
    if (!(draft->flags & FLOW_IPV6))
        return restore_inward(draft, mapped);
    return restore_outside(draft, mapped, draft->out_interface, draft->out_vrf, draft->destination);
}

/* --- after a change of rules --- */

static bool prefixes_stand(const struct nat_rules *rules, const struct session *session,
                           const struct flow *forward) {
    const struct flow_key6 *key = &forward->key6, *answers = &forward[1].key6;
    bool hairpin = forward->flags & FLOW_SOURCE && forward->flags & FLOW_DESTINATION;
    uint8_t became[16];

    for (unsigned i = 0; i < rules->nptv6_count; i++) {
        const struct nptv6_rule *rule = &rules->nptv6[i];

        if (forward->flags & FLOW_SOURCE && ((!hairpin && rule->out != session->out_interface) ||
                                             !nat_in_prefix6(&rule->inside, key->source) ||
                                             !nptv6_translate(rule, true, key->source, became) ||
                                             memcmp(became, answers->destination, 16) != 0))
            continue;
        if (forward->flags & FLOW_DESTINATION &&
            (!nat_in_prefix6(&rule->outside, key->destination) ||
             !nptv6_translate(rule, false, key->destination, became) ||
             memcmp(became, answers->source, 16) != 0))
            continue;
        return true;
    }
    return false;
}

/* Nothing of the session is translated: would its first packet be now? */
static bool is_wanted(const struct nat_rules *rules, const struct session *session,
                      const struct flow_key6 *key) {
    if (session->flags & SESSION_LOCAL)
        return false;
    return leaves_as_another(rules, key, session->in_interface, session->out_interface) ||
           nptv6_of_outside(rules, (uint16_t)(key->protocol_vrf >> 16), key->destination);
}

/* Has the inside (of `key`) this outside address and port still, on the interface packet->out? */
static bool outside_stands(const struct nat_rules *rules, const struct nat_packet *packet,
                           const struct flow_key6 *key, uint16_t vrf, uint32_t outside,
                           uint16_t port) {
    const struct nat64_static *fixed =
        nat64_static_inside(rules, packet->out, key->source, packet->protocol, key->source_port);
    const struct nat64_rule *rule;

    if (fixed)
        return fixed->outside == outside && nat64_static_outward(fixed, key->source_port) == port;
    rule = nat64_match(rules, packet, key->source, key->destination);
    return rule && nat_in_pool(&rule->as, outside) &&
           !nat64_static_outside(rules, vrf, outside, packet->protocol, port);
}

static bool hairpin_stands(const struct nat_rules *rules, const struct session *session,
                           const struct flow *forward) {
    const struct flow_key6 *key = &forward->key6, *answers = &forward[1].key6;
    const struct nat64_rule *rule = nat64_of_destination(
        rules, session->in_interface, (uint16_t)(key->protocol_vrf >> 16), key->destination);
    struct nat_packet packet = {.protocol = protocol4(key), .in = session->in_interface};
    uint32_t outside;

    if (!rule || !nat_in_prefix6(&rule->prefix, answers->destination))
        return false;
    packet.destination = nat64_ipv4(rule, key->destination);
    outside = nat64_ipv4(rule, answers->destination);
    packet.out = nat64_outside_interface(rules, rule->vrf, outside);
    return hairpin_leads_to(rules, rule->vrf, key, packet.destination, answers->source,
                            answers->source_port, session->flags & SESSION_BOUND) &&
           outside_stands(rules, &packet, key, rule->vrf, outside, answers->destination_port);
}

/* From the IPv4 side, by a static binding or else by a mapping that is open. */
static bool inward_stands(const struct nat_rules *rules, const struct session *session,
                          const struct flow *forward) {
    const struct flow_key4 *key = &forward->key4;
    const struct flow_key6 *answers = &forward[1].key6;
    uint16_t vrf = (uint16_t)(key->protocol_vrf >> 16);
    struct nat_packet answer = {.destination = key->source,
                                .protocol = (uint8_t)key->protocol_vrf,
                                .in = session->out_interface,
                                .out = session->in_interface};
    const struct nat64_rule *rule;

    if (session->mapping == MAPPING_NONE)
        return static_leads_to(rules, vrf, key, answers->destination, answers->source,
                               answers->source_port);
    rule = nat64_open_to(rules, &answer, key->destination, answers->source);
    return rule && nat_in_prefix6(&rule->prefix, answers->destination) &&
           !nat64_static_outside(rules, vrf, key->destination, (uint8_t)key->protocol_vrf,
                                 key->destination_port);
}

bool nat_stands6(const struct nat_rules *rules, const struct session *session,
                 const struct flow *forward) {
    const struct flow_key4 *answers = &forward[1].key4;
    struct nat_packet packet = {
        .destination = answers->source,
        .protocol = (uint8_t)answers->protocol_vrf,
        .in = session->in_interface,
        .out = session->out_interface,
    };

    if (forward->flags & FLOW_PORTS)
        return hairpin_stands(rules, session, forward);
    if (!(forward->flags & FLOW_OTHER_FAMILY))
        return forward->flags & (FLOW_SOURCE | FLOW_DESTINATION)
                   ? prefixes_stand(rules, session, forward)
                   : !is_wanted(rules, session, &forward->key6);
    if (!(forward->flags & FLOW_IPV6))
        return inward_stands(rules, session, forward);
    return outside_stands(rules, &packet, &forward->key6, (uint16_t)(answers->protocol_vrf >> 16),
                          answers->destination, answers->destination_port);
}
