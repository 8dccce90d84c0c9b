/* Matching of NAT rules. Rules are few and only new sessions come here, so that they are looked at
 * one after the other; static translations, of which there may be thousands, are searched. */
#include "nat/nat_rules.h"

#include <rte_byteorder.h>
#include <stdlib.h>

static bool in_prefixes(const struct nat_prefixes *prefixes, uint32_t address) {
    uint32_t host = rte_be_to_cpu_32(address);

    for (unsigned i = 0; i < prefixes->count; i++) {
        if ((host & prefixes->list[i].mask) == prefixes->list[i].address)
            return true;
    }
    return false;
}

static bool any_or_in(const struct nat_prefixes *prefixes, uint32_t address) {
    return prefixes->count == 0 || in_prefixes(prefixes, address);
}

bool nat_source_rule_matches(const struct nat_source_rule *rule, const struct nat_packet *packet) {
    return rule->out == packet->out && rule->out != 0 && (rule->any_in || rule->in == packet->in) &&
           (rule->protocol == 0 || rule->protocol == packet->protocol) &&
           any_or_in(&rule->source, packet->source) &&
           any_or_in(&rule->destination, packet->destination);
}

const struct nat_source_rule *nat_match_source(const struct nat_rules *rules,
                                               const struct nat_packet *packet) {
    for (unsigned i = 0; i < rules->source_count; i++) {
        if (nat_source_rule_matches(&rules->sources[i], packet))
            return &rules->sources[i];
    }
    return NULL;
}

const struct nat_destination_rule *nat_match_destination(const struct nat_rules *rules,
                                                         const struct nat_packet *packet) {
    uint16_t port = rte_be_to_cpu_16(packet->destination_port);

    for (unsigned i = 0; i < rules->destination_count; i++) {
        const struct nat_destination_rule *rule = &rules->destinations[i];

        if (rule->in == 0 || rule->vrf != packet->vrf ||
            (rule->in != packet->in && !rule->hairpin) ||
            (rule->protocol != 0 && rule->protocol != packet->protocol) ||
            (!rule->any_port &&
             (!packet->has_ports || port < rule->port_first || port > rule->port_last)) ||
            !in_prefixes(&rule->destination, packet->destination) ||
            !any_or_in(&rule->source, packet->source))
            continue;
        return rule;
    }
    return NULL;
}

void nat_destination_of(const struct nat_destination_rule *rule, const struct nat_packet *packet,
                        uint32_t *address, uint16_t *port) {
    uint32_t count = rule->to_last - rule->to_first + 1;
    /* By source address, so that a client stays with its server. */
    uint32_t mixed = rte_be_to_cpu_32(packet->source) * UINT32_C(0x9e3779b1);

    *address = rte_cpu_to_be_32(rule->to_first + (uint32_t)(((uint64_t)mixed * count) >> 32));
    *port = packet->destination_port;
    if (!rule->keeps_port && packet->has_ports)
        *port = rte_cpu_to_be_16(
            (uint16_t)(rule->to_port + rte_be_to_cpu_16(*port) - rule->port_first));
}

static int compare_outside(const void *key, const void *rule) {
    uint32_t wanted = *(const uint32_t *)key, has = ((const struct nat_static_rule *)rule)->outside;

    return (wanted > has) - (wanted < has);
}

static int compare_inside(const void *key, const void *rule) {
    uint32_t wanted = *(const uint32_t *)key, has = ((const struct nat_static_rule *)rule)->inside;

    return (wanted > has) - (wanted < has);
}

const struct nat_static_rule *nat_static_outside(const struct nat_rules *rules, uint32_t address) {
    return rules->static_count == 0 ? NULL
                                    : bsearch(&address, rules->by_outside, rules->static_count,
                                              sizeof(rules->by_outside[0]), compare_outside);
}

const struct nat_static_rule *nat_static_inside(const struct nat_rules *rules, uint32_t address) {
    return rules->static_count == 0 ? NULL
                                    : bsearch(&address, rules->by_inside, rules->static_count,
                                              sizeof(rules->by_inside[0]), compare_inside);
}

static bool in_ranges(const struct nat_range *ranges, unsigned count, uint16_t vrf,
                      uint32_t address) {
    uint32_t host = rte_be_to_cpu_32(address);
    uint64_t wanted = (uint64_t)vrf << 32 | host;
    unsigned low = 0, high = count;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (((uint64_t)ranges[middle].vrf << 32 | ranges[middle].last) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && ranges[low].vrf == vrf && ranges[low].first <= host;
}

bool nat_is_pool_address(const struct nat_rules *rules, uint16_t vrf, uint32_t address) {
    return in_ranges(rules->pools, rules->pool_count, vrf, address);
}

bool nat_is_mapped_address(const struct nat_rules *rules, uint16_t vrf, uint32_t address) {
    return in_ranges(rules->mapped, rules->mapped_count, vrf, address);
}

uint32_t nat_pool_address(const struct nat_source_rule *rule, uint32_t n) {
    for (unsigned i = 0; i < rule->pool_count; i++) {
        uint32_t size = rule->pool[i].last - rule->pool[i].first + 1;

        if (n < size)
            return rte_cpu_to_be_32(rule->pool[i].first + n);
        n -= size;
    }
    return 0;
}

/* How many addresses of the rule's source prefixes stand before this one. */
static uint64_t rank_of(const struct nat_prefixes *prefixes, uint32_t inside) {
    uint64_t rank = 0;

    for (unsigned i = 0; i < prefixes->count; i++) {
        const struct nat_prefix *prefix = &prefixes->list[i];

        if ((inside & prefix->mask) == prefix->address)
            return rank + (inside & ~prefix->mask);
        rank += (uint64_t)~prefix->mask + 1;
    }
    return UINT64_MAX;
}

bool nat_share_of(const struct nat_source_rule *rule, uint32_t inside, uint32_t *outside,
                  uint16_t *first, uint16_t *last) {
    uint32_t host = rte_be_to_cpu_32(inside);

    *first = rule->port_first;
    *last = rule->port_last;
    if (rule->pool_size == 0)
        return false;
    if (rule->block_size == 0) {
        /* Always the same one for an inside address: pooling "paired", RFC 4787 REQ-2. */
        *outside = nat_pool_address(
            rule, (uint32_t)(((uint64_t)(host * UINT32_C(0x9e3779b1)) * rule->pool_size) >> 32));
        return true;
    }

    uint32_t blocks = (rule->port_last - rule->port_first + 1u) / rule->block_size;
    uint64_t rank = rank_of(&rule->source, host);

    if (blocks == 0 || rank / blocks >= rule->pool_size)
        return false;
    *outside = nat_pool_address(rule, (uint32_t)(rank / blocks));
    *first = (uint16_t)(rule->port_first + rank % blocks * rule->block_size);
    *last = (uint16_t)(*first + rule->block_size - 1);
    return true;
}

void nat_rules_free(struct nat_rules *rules) {
    if (!rules)
        return;
    free(rules->nptv6);
    free(rules->nat64);
    free(rules->nat64_by_outside);
    free(rules->nat64_by_inside);
    free(rules->sources);
    free(rules->destinations);
    free(rules->by_outside);
    free(rules->by_inside);
    free(rules->pools);
    free(rules->mapped);
    free(rules);
}
