/*
 * The choice for a new session: where its packets go, and as whom.
 *
 * Destinations are chosen before the route is looked up: by static translations, static ports of
 * NAT64, port forwards, static addresses of NAT64, and mappings, in this order. Sources are chosen
 * behind the firewall, when the outgoing interface is known: by static translations, then by the
 * first source rule. A packet that was sent to one of the outside addresses from another interface
 * than the outside is a hairpin (RFC 4787 section 6): its source is translated as if it had left
 * and come back, so that both hosts see each other's outside addresses.
 */
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_cycles.h>
#include <stdatomic.h>

#include "core/log.h"
#include "core/packet.h"
#include "core/worker.h"
#include "interface/interface.h"
#include "l3/route_lookup.h"
#include "nat/nat_internal.h"
#include "nat/nat_ipv6.h"

enum {
    PORT_ATTEMPTS = 64,
    MAPPING_ATTEMPTS = 4,
    ICMP_ECHO_REPLY = 0,
    ICMP_TIMESTAMP_REPLY = 14,
    EXHAUSTED_MEMORY = 256, /* destinations that have no port left, remembered for a tick */
};

struct drop_group nat_drops = {
    .name = "nat",
    .reasons =
        (const char *const[]){
            [NAT_PORTS_EXHAUSTED] = "ports_exhausted",
            [NAT_NO_ADDRESS] = "no_address",
            [NAT_NO_BLOCK] = "no_port_block",
            [NAT_NO_MAPPING] = "no_mapping",
            [NAT_CONFLICT] = "conflict",
            [NAT_TABLE_FULL] = "table_full",
            [NAT_BUSY] = "busy",
            [NAT_NPTV6_ADDRESS] = "nptv6_address",
            [NAT_NAT64_SOURCE] = "nat64_source",
            [NAT_NAT64_DESTINATION] = "nat64_destination",
            [NAT_NAT64_PROTOCOL] = "nat64_protocol",
            [NAT_NAT64_NO_RULE] = "nat64_no_rule",
            NULL,
        },
};
DROP_GROUP(nat_drops)

const struct nat_rules *_Atomic nat_rules_published;

/* What the destination's choice says to the source's. */
struct hairpin {
    bool is_hairpin;
    uint16_t outside_interface;
    uint32_t outside; /* the address that the packet was sent to */
};

/* Per worker: the choices of the running burst, and what is exhausted. */
struct memory {
    struct hairpin hairpins[BURST_MAX];
    unsigned next;
    uint64_t exhausted[EXHAUSTED_MEMORY];
    uint32_t exhausted_at[EXHAUSTED_MEMORY];
    uint64_t random;
} __rte_cache_aligned;
static struct memory memories[WORKERS_MAX];

/* Marsaglia's xorshift: ports need not be unguessable for more than a moment (RFC 6056
 * section 3.3.2), but different. */
static uint32_t random_of(struct memory *memory) {
    uint64_t value = memory->random ? memory->random : rte_rdtsc() | 1;

    value ^= value << 13;
    value ^= value >> 7;
    value ^= value << 17;
    memory->random = value;
    return (uint32_t)(value >> 32);
}

static bool has_ports(uint8_t protocol) {
    return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
           protocol == IPPROTO_DCCP;
}

/* Whoever would be translated on his way out is on the inside. */
static bool wants_source4(const struct flow_key4 *key, uint16_t in, uint16_t out) {
    const struct nat_rules *rules = nat_rules_now();
    uint8_t protocol = (uint8_t)key->protocol_vrf;
    struct nat_packet packet = {.source = key->source,
                                .destination = key->destination,
                                .protocol = protocol,
                                .in = in,
                                .out = out};
    const struct nat_static_rule *fixed = nat_static_inside(rules, key->source);
    const struct nat_source_rule *rule;

    if (fixed && fixed->interface == out && fixed->vrf == key->protocol_vrf >> 16)
        return true;
    rule = nat_match_source(rules, &packet);
    return rule && rule->target != NAT_TO_NONE;
}

static bool wants_source(const union flow_key *key, bool ipv6, uint16_t in, uint16_t out) {
    return ipv6 ? nat_wants_source6(&key->v6, in, out) : wants_source4(&key->v4, in, out);
}

/* --- destinations --- */

static void remember_hairpin(struct worker *worker, struct session_miss *miss, uint16_t in,
                             uint16_t outside_interface) {
    struct memory *memory = &memories[worker->index];
    struct hairpin *hairpin = &memory->hairpins[memory->next++ % BURST_MAX];

    *hairpin = (struct hairpin){.is_hairpin = in != outside_interface,
                                .outside_interface = outside_interface,
                                .outside = miss->key.v4.destination};
    miss->translation = hairpin;
}

static void set_destination(struct session_miss *miss, uint32_t address, uint16_t port) {
    miss->destination = address;
    miss->destination_port = port;
    miss->flags |= FLOW_DESTINATION;
}

/* Endpoint-independent filtering (RFC 4787 section 5): may this stranger send to the mapping? The
 * rule says so that the inside would answer him by; mappings outlive the rule that made them. */
static bool is_open(const struct nat_rules *rules, const struct nat_mapping *mapping,
                    uint32_t stranger) {
    uint32_t inside = rte_be_to_cpu_32(mapping->inside), next_hop;
    struct nat_packet packet = {.source = mapping->inside,
                                .destination = stranger,
                                .protocol = mapping->protocol,
                                .out = mapping->outside_interface};
    const struct nat_source_rule *rule;

    route_lookup_ipv4(mapping->inside_vrf, &inside, &next_hop, 1);
    packet.in = nat_interface_of(next_hop);
    rule = nat_match_source(rules, &packet);
    return rule && rule->endpoint_independent_filter && nat_in_pool(rule, mapping->outside);
}

static bool choose_destination4(struct worker *worker, struct rte_mbuf *mbuf,
                                struct session_miss *miss) {
    const struct nat_rules *rules = nat_rules_now();
    const struct packet_meta *meta = packet_meta(mbuf);
    const struct flow_key4 *key = &miss->key.v4;
    uint8_t protocol = (uint8_t)key->protocol_vrf;
    struct nat_packet packet = {.source = key->source,
                                .destination = key->destination,
                                .source_port = key->source_port,
                                .destination_port = key->destination_port,
                                .protocol = protocol,
                                .has_ports = has_ports(protocol),
                                .in = meta->in_interface,
                                .vrf = meta->vrf};
    const struct nat_static_rule *fixed = nat_static_outside(rules, key->destination);
    const struct nat_destination_rule *forward;
    const struct nat64_static *binding;
    const struct nat64_rule *open6;
    const struct nat_mapping *mapping;
    uint32_t number = MAPPING_NONE, address;
    uint16_t port;

    if (fixed && fixed->interface != 0 && fixed->vrf == meta->vrf) {
        set_destination(miss, fixed->inside, key->destination_port);
        remember_hairpin(worker, miss, meta->in_interface, fixed->interface);
        return true;
    }
    binding =
        nat64_static_port(rules, meta->vrf, key->destination, protocol, key->destination_port);
    if (binding)
        return nat_enter_static6(worker, mbuf, miss, binding);
    forward = nat_match_destination(rules, &packet);
    if (forward) {
        nat_destination_of(forward, &packet, &address, &port);
        set_destination(miss, address, port);
        remember_hairpin(worker, miss, meta->in_interface, forward->in);
        return true;
    }
    binding = nat64_static_address(rules, meta->vrf, key->destination);
    if (binding)
        return nat_enter_static6(worker, mbuf, miss, binding);
    /* Most destinations are no address that mappings are made on. A query has its type for a port,
     * which no mapping is about: only answers have an identifier there. */
    number =
        !nat_is_mapped_address(rules, meta->vrf, key->destination) ||
                (protocol == IPPROTO_ICMP && miss->icmp_type != ICMP_ECHO_REPLY &&
                 miss->icmp_type != ICMP_TIMESTAMP_REPLY)
            ? MAPPING_NONE
            : nat_mapping_of_outside(key->destination, key->destination_port, protocol, meta->vrf);
    mapping = number != MAPPING_NONE ? nat_mapping_get(number) : NULL;
    open6 = mapping && mapping->flags & MAPPING_IPV6 ? nat_open_to_ipv6(mbuf, key, number) : NULL;
    if (open6)
        return nat_enter_ipv6(worker, mbuf, miss, number, open6);
    /* Of another VRF the inside address may be another host's here. */
    if (mapping && mapping->inside != 0 && mapping->inside_vrf == meta->vrf &&
        (is_open(rules, mapping, key->source) ||
         (mapping->outside_interface != meta->in_interface &&
          wants_source4(key, meta->in_interface, mapping->outside_interface)))) {
        set_destination(miss, mapping->inside, mapping->inside_port);
        miss->mapping = number;
        remember_hairpin(worker, miss, meta->in_interface, mapping->outside_interface);
        return true;
    }
    /* An address that only the NAT has: there is nobody else to give it to. */
    if (nat_is_pool_address(rules, meta->vrf, key->destination))
        return nat_refuse(worker, NAT_NO_MAPPING);
    return true;
}

static bool choose_destination(struct worker *worker, struct rte_mbuf *mbuf,
                               struct session_miss *miss) {
    return miss->flags & FLOW_IPV6 ? nat_choose_destination6(worker, mbuf, miss)
                                   : choose_destination4(worker, mbuf, miss);
}

/* --- sources --- */

/* Who asks for an outside address and port. */
struct asking {
    const struct nat_inside6 *ipv6; /* NULL: the IPv4 address is meant, else that is a number */
    uint32_t address;
    uint16_t port;
    uint8_t protocol; /* as the outside has it */
};

static struct asking asking_of(const struct session_new *draft, const struct nat_inside6 *inside6) {
    const struct flow_key4 *key = &draft->key.v4;
    uint8_t protocol;

    if (!inside6)
        return (struct asking){.address = key->source,
                               .port = key->source_port,
                               .protocol = (uint8_t)key->protocol_vrf};
    protocol = (uint8_t)draft->key.v6.protocol_vrf;
    return (struct asking){.ipv6 = inside6,
                           .address = nat64_inside_number(inside6->address),
                           .port = draft->key.v6.source_port,
                           .protocol = protocol == IPPROTO_ICMPV6 ? IPPROTO_ICMP : protocol};
}

/* With another version of IP both ends are new, and there is no flag for the source alone. */
static void set_source(struct session_new *draft, uint32_t address, uint16_t port) {
    draft->source = address;
    draft->source_port = port;
    if (!(draft->flags & FLOW_OTHER_FAMILY))
        draft->flags |= FLOW_SOURCE;
}

static void say_exhausted(const struct nat_source_rule *rule, uint32_t outside) {
    static struct log_limit limit;
    struct ip_address address = ip4_address(&outside);
    char text[IP_ADDRESS_TEXT];

    log_limited(&limit, LOG_LEVEL_WARNING, "nat",
                "rule %s: the ports %u to %u of %s are all in use", rule->name, rule->port_first,
                rule->port_last, ip_address_text(&address, text));
}

static bool exhausted(struct worker *worker, const struct nat_source_rule *rule, uint32_t outside) {
    say_exhausted(rule, outside);
    return nat_refuse(worker, NAT_PORTS_EXHAUSTED);
}

/* The port belongs to a session of the router itself. A mapping that others use is what it is; one
 * that was made for this session alone may have another port. */
static bool may_choose_again(struct session_new *draft, uint16_t *avoid) {
    const struct nat_mapping *mapping = nat_mapping_get(draft->mapping);

    if (draft->attempt > MAPPING_ATTEMPTS || draft->mapping == MAPPING_NONE ||
        __atomic_load_n(&mapping->references, __ATOMIC_RELAXED) != 1)
        return false;
    *avoid = rte_be_to_cpu_16(mapping->outside_port);
    nat_mapping_release(draft->mapping);
    draft->mapping = MAPPING_NONE;
    return true;
}

static bool map_independent(struct worker *worker, struct session_new *draft,
                            const struct nat_source_rule *rule, const struct asking *who,
                            uint32_t outside, uint16_t first, uint16_t last) {
    struct nat_mapping wanted = {
        .inside = who->ipv6 ? 0 : who->address,
        .outside = outside,
        .inside_port = who->port,
        .inside_vrf = draft->vrf,
        .outside_vrf = draft->out_vrf,
        .outside_interface = rule->out,
        .protocol = who->protocol,
    };
    const struct nat_mapping *mapping;
    uint16_t avoid = 0;

    if (draft->attempt > 0 && !may_choose_again(draft, &avoid))
        return nat_refuse(worker, NAT_CONFLICT);
    draft->mapping =
        who->ipv6 ? nat_mapping_of_inside6(who->ipv6->address, who->port, who->protocol,
                                           wanted.inside_vrf, wanted.outside, wanted.outside_vrf)
                  : nat_mapping_of_inside(wanted.inside, who->port, who->protocol,
                                          wanted.inside_vrf, wanted.outside, wanted.outside_vrf);
    if (draft->mapping == MAPPING_NONE || !nat_mapping_hold(draft->mapping)) {
        switch (nat_mapping_make(&wanted, who->ipv6, first, last, avoid,
                                 random_of(&memories[worker->index]), &draft->mapping)) {
        case NAT_PORT_OK:
            break;
        case NAT_PORT_NONE:
            return exhausted(worker, rule, outside);
        case NAT_PORT_NO_MAPPING:
            return nat_refuse(worker, NAT_TABLE_FULL);
        default:
            return nat_refuse(worker, NAT_BUSY);
        }
    }
    mapping = nat_mapping_get(draft->mapping);
    set_source(draft, mapping->outside, mapping->outside_port);
    return true;
}

/* Has the search for a port towards this destination failed a moment ago? It takes long, and
 * whoever has used up the ports tends to go on trying. */
static uint64_t *exhausted_place(struct memory *memory, const struct session_new *draft,
                                 uint8_t protocol, uint32_t outside, uint64_t *identity,
                                 uint32_t **at) {
    uint64_t value = ((uint64_t)outside << 32 | draft->destination) ^
                     ((uint64_t)draft->destination_port << 20 | protocol);
    unsigned place;

    value *= UINT64_C(0x9e3779b97f4a7c15);
    place = (unsigned)(value >> 56) % EXHAUSTED_MEMORY;
    *identity = value;
    *at = &memory->exhausted_at[place];
    return &memory->exhausted[place];
}

/* Has a mapping the outside port, or a static binding of NAT64? */
static bool is_others(const struct session_new *draft, const struct nat_source_rule *rule,
                      uint32_t outside, uint16_t port, uint8_t protocol) {
    return (rule->shares_mapped &&
            nat_mapping_of_outside(outside, port, protocol, draft->out_vrf) != MAPPING_NONE) ||
           nat64_static_outside(nat_rules_now(), draft->out_vrf, outside, protocol, port);
}

/* Any port will do that no session to the same destination has: lib/session knows. Ports that
 * mappings have are left alone. */
static bool map_dependent(struct worker *worker, struct session_new *draft,
                          const struct nat_source_rule *rule, const struct asking *who,
                          uint32_t outside, uint16_t first, uint16_t last) {
    struct memory *memory = &memories[worker->index];
    uint16_t wanted = rte_be_to_cpu_16(who->port);
    unsigned range = (unsigned)(last - first) + 1;
    unsigned attempts = RTE_MIN((unsigned)PORT_ATTEMPTS, 2 * range + 1);
    uint32_t now = atomic_load_explicit(&session_clock, memory_order_relaxed), *at;
    uint8_t protocol = who->protocol;
    uint64_t identity, *place = exhausted_place(memory, draft, protocol, outside, &identity, &at);

    if (*place == identity && *at == now)
        return exhausted(worker, rule, outside);
    for (; draft->attempt < attempts; draft->attempt++) {
        unsigned port = wanted;

        if (draft->attempt > 0 || wanted < first || wanted > last) {
            /* A small range is tried from one end to the other, so that none is overlooked. */
            port = first +
                   (2 * range < PORT_ATTEMPTS ? draft->attempt % range : random_of(memory) % range);
            if (((port ^ wanted) & 1) && range > 2 * PORT_ATTEMPTS && protocol != IPPROTO_ICMP)
                port = port < last ? port + 1 : port - 1;
        }
        if (is_others(draft, rule, outside, rte_cpu_to_be_16((uint16_t)port), protocol))
            continue;
        set_source(draft, outside, rte_cpu_to_be_16((uint16_t)port));
        return true;
    }
    *place = identity;
    *at = now;
    return exhausted(worker, rule, outside);
}

/* Protocols without ports that could be told apart keep one session per pair of addresses. */
static bool map_address(struct worker *worker, struct session_new *draft, uint32_t outside) {
    if (draft->attempt > 0)
        return nat_refuse(worker, NAT_CONFLICT);
    set_source(draft, outside, draft->key.v4.source_port);
    return true;
}

bool nat_apply_rule(struct worker *worker, struct session_new *draft,
                    const struct nat_source_rule *rule, const struct nat_inside6 *inside6) {
    const struct asking who = asking_of(draft, inside6);
    uint32_t outside;
    uint16_t first, last;

    if (!nat_share_of(rule, who.address, &outside, &first, &last))
        return nat_refuse(worker, rule->pool_size == 0 ? NAT_NO_ADDRESS : NAT_NO_BLOCK);
    if (!has_ports(who.protocol) && who.protocol != IPPROTO_ICMP)
        return map_address(worker, draft, outside);
    if (rule->endpoint_dependent)
        return map_dependent(worker, draft, rule, &who, outside, first, last);
    return map_independent(worker, draft, rule, &who, outside, first, last);
}

static bool choose_source4(struct worker *worker, struct session_new *draft) {
    const struct nat_rules *rules = nat_rules_now();
    const struct hairpin *hairpin = draft->translation;
    bool turned =
        hairpin && hairpin->is_hairpin && hairpin->outside_interface != draft->out_interface;
    uint8_t protocol = (uint8_t)draft->key.v4.protocol_vrf;
    struct nat_packet packet = {
        .source = draft->key.v4.source,
        .destination = turned ? hairpin->outside : draft->destination,
        .source_port = draft->key.v4.source_port,
        .destination_port = draft->destination_port,
        .protocol = protocol,
        .has_ports = has_ports(protocol),
        .in = draft->in_interface,
        .out = turned ? hairpin->outside_interface : draft->out_interface,
    };
    const struct nat_static_rule *fixed = nat_static_inside(rules, packet.source);
    const struct nat_source_rule *rule;

    /* A session that comes in from the outside through a mapping lives on it. A hairpin lives on
     * that of its source: the other one is kept by those who sit behind it. */
    if (draft->mapping != MAPPING_NONE && draft->attempt == 0 &&
        (turned || !nat_mapping_hold(draft->mapping))) {
        draft->mapping = MAPPING_NONE;
        if (!turned)
            return nat_refuse(worker, NAT_NO_MAPPING);
    }
    if (fixed && fixed->interface == packet.out && fixed->vrf == draft->vrf) {
        if (draft->attempt > 0)
            return nat_refuse(worker, NAT_CONFLICT);
        set_source(draft, fixed->outside, draft->key.v4.source_port);
        return true;
    }
    /* From the outside: it can hold no other one. Later on it is one that was made here. */
    if (draft->mapping != MAPPING_NONE && draft->attempt == 0)
        return true;
    rule = nat_match_source(rules, &packet);
    if (rule && rule->target != NAT_TO_NONE)
        return nat_apply_rule(worker, draft, rule, NULL);
    /* Answers have to come back this way. */
    if (turned && !rule) {
        static const struct nat_source_rule any = {
            .name = "hairpin", .port_first = NAT_PORT_FIRST, .port_last = NAT_PORT_LAST};
        const struct asking who = asking_of(draft, NULL);

        return map_dependent(worker, draft, &any, &who, hairpin->outside, NAT_PORT_FIRST,
                             NAT_PORT_LAST);
    }
    return draft->attempt == 0 || nat_refuse(worker, NAT_CONFLICT);
}

static bool choose_source(struct worker *worker, struct session_new *draft) {
    return draft->flags & (FLOW_IPV6 | FLOW_OTHER_FAMILY) ? nat_choose_source6(worker, draft)
                                                          : choose_source4(worker, draft);
}

/* Where no mappings are made, or one has the port already, nothing is kept: the keys of the answers
 * tell both sessions apart. What others begin with the host takes no port, since anybody could take
 * them all so. */
static void keep_port(struct session_new *draft) {
    const struct flow_key4 *key = &draft->key.v4;
    uint8_t protocol = (uint8_t)key->protocol_vrf;
    struct nat_mapping wanted = {
        .inside_port = key->source_port,
        .outside = key->source,
        .inside_vrf = draft->vrf,
        .outside_vrf = draft->vrf,
        .outside_interface = draft->out_interface,
        .protocol = protocol,
    };
    uint16_t port = rte_be_to_cpu_16(key->source_port);

    if (has_ports(protocol) || protocol == IPPROTO_ICMP)
        nat_mapping_make(&wanted, NULL, port, port, 0, 0, &draft->mapping);
}

/* The mapping that outbound packets of the session have, or that it came in by. The rules that it
 * falls under now say whether it may; the review of live sessions asks about the rest. */
static bool restore4(struct session_new *draft, bool mapped) {
    const struct nat_rules *rules = nat_rules_now();
    const struct flow_key4 *key = &draft->key.v4;
    uint8_t protocol = (uint8_t)key->protocol_vrf;
    bool outward = draft->flags & FLOW_SOURCE;
    struct nat_mapping wanted = {
        .inside = outward ? key->source : draft->destination,
        .inside_port = outward ? key->source_port : draft->destination_port,
        .outside = outward ? draft->source : key->destination,
        .inside_vrf = outward ? draft->vrf : draft->out_vrf,
        .outside_vrf = outward ? draft->out_vrf : draft->vrf,
        .outside_interface = outward ? draft->out_interface : draft->in_interface,
        .protocol = protocol,
    };
    uint16_t port = rte_be_to_cpu_16(outward ? draft->source_port : key->destination_port);
    struct nat_packet packet = {.source = wanted.inside,
                                .destination = outward ? draft->destination : key->source,
                                .protocol = protocol,
                                .in = outward ? draft->in_interface : draft->out_interface,
                                .out = wanted.outside_interface};
    const struct nat_source_rule *rule;

    if (!mapped)
        return true;
    if (outward && draft->flags & FLOW_DESTINATION) {
        packet.destination = key->destination;
        rule =
            nat_hairpin_rule(rules, &packet, draft->destination, rte_be_to_cpu_32(draft->source));
    } else {
        rule = nat_match_source(rules, &packet);
    }
    if (!rule || rule->endpoint_dependent)
        return false;
    wanted.outside_interface = rule->out;
    return nat_mapping_make(&wanted, NULL, port, port, 0, 0, &draft->mapping) == NAT_PORT_OK &&
           nat_mapping_get(draft->mapping)->outside_port == rte_cpu_to_be_16(port);
}

static bool restore(struct session_new *draft, bool mapped) {
    return draft->flags & (FLOW_IPV6 | FLOW_OTHER_FAMILY) ? nat_restore6(draft, mapped)
                                                          : restore4(draft, mapped);
}

static void untranslatable(struct worker *worker) {
    nat_refuse(worker, NAT_NO_MAPPING);
}

const struct session_translator nat_translator = {
    .destination = choose_destination,
    .source = choose_source,
    .keep_port = keep_port,
    .stateless6 = nat_stateless6,
    .wants_source = wants_source,
    .untranslatable = untranslatable,
    .restore = restore,
    .ended = nat_mapping_release,
};
