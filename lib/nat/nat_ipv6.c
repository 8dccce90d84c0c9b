/* Rules for IPv6. Rules are few, and only new sessions come here. */
#include "nat/nat_ipv6.h"

#include <netinet/in.h>
#include <rte_byteorder.h>
#include <stdlib.h>
#include <string.h>

#include "l3/header.h"
#include "session/embedded.h"
#include "session/rewrite.h"

enum {
    WORDS = 8,
    SUBNET_WORD = 3,     /* bits 48 to 63 */
    IDENTIFIER_WORD = 4, /* and those behind it */
    SUBNET_LENGTH = 48,  /* prefixes up to here are adjusted in the subnet's word */
};

bool nat_in_prefix6(const struct nat_prefix6 *prefix, const uint8_t address[16]) {
    unsigned whole = prefix->length / 8, rest = prefix->length % 8;

    return memcmp(prefix->address, address, whole) == 0 &&
           (rest == 0 ||
            ((prefix->address[whole] ^ address[whole]) & (0xff00 >> rest) & 0xff) == 0);
}

/* --- NPTv6 --- */

static uint16_t sum_of(const uint8_t address[16]) {
    uint32_t sum = 0;

    for (unsigned i = 0; i < 16; i += 2)
        sum += load16(address + i);
    return checksum_fold(sum);
}

void nptv6_prepare(struct nptv6_rule *rule) {
    rule->adjustment = checksum_fold((uint32_t)sum_of(rule->inside.address) +
                                     (uint16_t)~sum_of(rule->outside.address));
}

/* The word that takes the difference: RFC 6296 sections 3.4 and 3.5; -1: there is none. */
static int adjusted_word(const struct nptv6_rule *rule, const uint8_t address[16]) {
    if (rule->inside.length <= SUBNET_LENGTH)
        return load16(address + 2 * SUBNET_WORD) == UINT16_MAX ? -1 : SUBNET_WORD;
    if (load64(address + 2 * IDENTIFIER_WORD) == 0)
        return -1;
    for (int word = IDENTIFIER_WORD; word < WORDS; word++) {
        if (load16(address + 2 * word) != UINT16_MAX)
            return word;
    }
    return -1;
}

bool nptv6_translate(const struct nptv6_rule *rule, bool outward, const uint8_t from[16],
                     uint8_t to[16]) {
    const uint8_t *prefix = outward ? rule->outside.address : rule->inside.address;
    uint16_t change = outward ? rule->adjustment : (uint16_t)~rule->adjustment, value;
    unsigned whole = rule->inside.length / 8, rest = rule->inside.length % 8;
    int word = adjusted_word(rule, from);

    if (word < 0)
        return false;
    memcpy(to, from, 16);
    memcpy(to, prefix, whole);
    if (rest != 0)
        to[whole] = (uint8_t)(prefix[whole] | (from[whole] & 0xff >> rest));
    value = checksum_fold((uint32_t)load16(from + 2 * word) + change);
    if (value == UINT16_MAX)
        value = 0;
    memcpy(to + 2 * word, &value, sizeof(value));
    return true;
}

const struct nptv6_rule *nptv6_of_inside(const struct nat_rules *rules, uint16_t out,
                                         const uint8_t address[16]) {
    for (unsigned i = 0; i < rules->nptv6_count; i++) {
        if (rules->nptv6[i].out == out && out != 0 &&
            nat_in_prefix6(&rules->nptv6[i].inside, address))
            return &rules->nptv6[i];
    }
    return NULL;
}

const struct nptv6_rule *nptv6_of_outside(const struct nat_rules *rules, uint16_t vrf,
                                          const uint8_t address[16]) {
    for (unsigned i = 0; i < rules->nptv6_count; i++) {
        if (rules->nptv6[i].out != 0 && rules->nptv6[i].vrf == vrf &&
            nat_in_prefix6(&rules->nptv6[i].outside, address))
            return &rules->nptv6[i];
    }
    return NULL;
}

/* --- NAT64 --- */

const struct nat64_rule *nat64_of_destination(const struct nat_rules *rules, uint16_t in,
                                              uint16_t vrf, const uint8_t address[16]) {
    for (unsigned i = 0; i < rules->nat64_count; i++) {
        const struct nat64_rule *rule = &rules->nat64[i];

        if (nat_in_prefix6(&rule->prefix, address) &&
            (rule->as.any_in ? rule->vrf == vrf : rule->as.in == in))
            return rule;
    }
    return NULL;
}

bool nat_in_pool(const struct nat_source_rule *rule, uint32_t outside) {
    uint32_t host = rte_be_to_cpu_32(outside);

    for (unsigned i = 0; i < rule->pool_count; i++) {
        if (rule->pool[i].first <= host && host <= rule->pool[i].last)
            return true;
    }
    return false;
}

static bool from_source(const struct nat64_rule *rule, const uint8_t source[16]) {
    for (unsigned i = 0; i < rule->source_count; i++) {
        if (nat_in_prefix6(&rule->source[i], source))
            return true;
    }
    return rule->source_count == 0;
}

bool nat64_gives(const struct nat_rules *rules, uint16_t vrf, uint32_t outside,
                 const uint8_t inside[16]) {
    for (unsigned i = 0; i < rules->nat64_count; i++) {
        const struct nat64_rule *rule = &rules->nat64[i];

        if (rule->as.out != 0 && rule->vrf == vrf && nat_in_pool(&rule->as, outside) &&
            from_source(rule, inside))
            return true;
    }
    return false;
}

uint16_t nat64_outside_interface(const struct nat_rules *rules, uint16_t vrf, uint32_t outside) {
    for (unsigned i = 0; i < rules->nat64_static_count; i++) {
        if (rules->nat64_by_outside[i].vrf == vrf && rules->nat64_by_outside[i].outside == outside)
            return rules->nat64_by_outside[i].out;
    }
    for (unsigned i = 0; i < rules->nat64_count; i++) {
        if (rules->nat64[i].vrf == vrf && nat_in_pool(&rules->nat64[i].as, outside))
            return rules->nat64[i].as.out;
    }
    return 0;
}

uint32_t nat64_ipv4(const struct nat64_rule *rule, const uint8_t destination[16]) {
    return embedded_ipv4(destination, rule->prefix.length);
}

static bool in_any(const struct nat_prefix *list, unsigned count, uint32_t host) {
    for (unsigned i = 0; i < count; i++) {
        if ((host & list[i].mask) == list[i].address)
            return true;
    }
    return false;
}

bool nat64_may_reach(const struct nat64_rule *rule, uint32_t ipv4) {
    static const uint8_t well_known[16] = {0x00, 0x64, 0xff, 0x9b};
    /* RFC 6890, where "global" is false. */
    static const struct nat_prefix nowhere[] = {
        {0x00000000, 0xff000000}, {0x7f000000, 0xff000000}, {0xe0000000, 0xe0000000}};
    static const struct nat_prefix not_global[] = {
        {0x0a000000, 0xff000000},                                                     /* RFC 1918 */
        {0xac100000, 0xfff00000}, {0xc0a80000, 0xffff0000}, {0x64400000, 0xffc00000}, /* RFC 6598 */
        {0xa9fe0000, 0xffff0000},                                                     /* RFC 3927 */
        {0xc0000000, 0xffffff00},                                                     /* RFC 6890 */
        {0xc0000200, 0xffffff00},                                                     /* RFC 5737 */
        {0xc6336400, 0xffffff00}, {0xcb007100, 0xffffff00}, {0xc6120000, 0xfffe0000}, /* RFC 2544 */
    };
    uint32_t host = rte_be_to_cpu_32(ipv4);

    if (in_any(nowhere, RTE_DIM(nowhere), host))
        return false;
    return rule->prefix.length != 96 || memcmp(rule->prefix.address, well_known, 16) != 0 ||
           !in_any(not_global, RTE_DIM(not_global), host);
}

const struct nat64_rule *nat64_match(const struct nat_rules *rules, const struct nat_packet *packet,
                                     const uint8_t source[16], const uint8_t destination[16]) {
    for (unsigned i = 0; i < rules->nat64_count; i++) {
        const struct nat64_rule *rule = &rules->nat64[i];

        if (nat_in_prefix6(&rule->prefix, destination) &&
            nat_source_rule_matches(&rule->as, packet) && from_source(rule, source))
            return rule;
    }
    return NULL;
}

const struct nat64_rule *nat64_open_to(const struct nat_rules *rules,
                                       const struct nat_packet *packet, uint32_t outside,
                                       const uint8_t inside[16]) {
    uint8_t destination[16];

    for (unsigned i = 0; i < rules->nat64_count; i++) {
        const struct nat64_rule *rule = &rules->nat64[i];

        if (!rule->as.endpoint_independent_filter || !nat_in_pool(&rule->as, outside))
            continue;
        embedded_make(rule->prefix.address, rule->prefix.length, packet->destination, destination);
        if (nat64_match(rules, packet, inside, destination) == rule)
            return rule;
    }
    return NULL;
}

uint32_t nat64_inside_number(const uint8_t address[16]) {
    return load32(address) ^ load32(address + 4) ^ load32(address + 8) ^ load32(address + 12);
}

/* --- static bindings --- */

/* Sorted by VRF, address, protocol and first port: no two of them overlap. */
static int compare_outside(const struct nat64_static *a, const struct nat64_static *b) {
    uint32_t left = rte_be_to_cpu_32(a->outside), right = rte_be_to_cpu_32(b->outside);

    if (a->vrf != b->vrf)
        return a->vrf < b->vrf ? -1 : 1;
    if (left != right)
        return left < right ? -1 : 1;
    if (a->protocol != b->protocol)
        return a->protocol < b->protocol ? -1 : 1;
    return (a->first > b->first) - (a->first < b->first);
}

static int compare_inside(const struct nat64_static *a, const struct nat64_static *b) {
    int order = memcmp(a->inside, b->inside, sizeof(a->inside));

    if (order != 0)
        return order;
    if (a->out != b->out)
        return a->out < b->out ? -1 : 1;
    if (a->protocol != b->protocol)
        return a->protocol < b->protocol ? -1 : 1;
    return (a->inside_first > b->inside_first) - (a->inside_first < b->inside_first);
}

static int by_outside(const void *a, const void *b) {
    return compare_outside(a, b);
}

static int by_inside(const void *a, const void *b) {
    return compare_inside(a, b);
}

void nat64_statics_prepare(struct nat_rules *rules) {
    qsort(rules->nat64_by_outside, rules->nat64_static_count, sizeof(rules->nat64_by_outside[0]),
          by_outside);
    qsort(rules->nat64_by_inside, rules->nat64_static_count, sizeof(rules->nat64_by_inside[0]),
          by_inside);
}

/* The last that does not stand behind `wanted`. */
static const struct nat64_static *
last_before(const struct nat64_static *list, unsigned count, const struct nat64_static *wanted,
            int (*compare)(const struct nat64_static *, const struct nat64_static *)) {
    unsigned low = 0, high = count;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (compare(&list[middle], wanted) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &list[low - 1] : NULL;
}

const struct nat64_static *nat64_static_port(const struct nat_rules *rules, uint16_t vrf,
                                             uint32_t outside, uint8_t protocol, uint16_t port) {
    struct nat64_static wanted = {
        .outside = outside, .vrf = vrf, .protocol = protocol, .first = rte_be_to_cpu_16(port)};
    const struct nat64_static *fixed;

    if (rules->nat64_static_count == 0)
        return NULL;
    fixed =
        last_before(rules->nat64_by_outside, rules->nat64_static_count, &wanted, compare_outside);
    return fixed && fixed->out != 0 && fixed->outside == outside && fixed->vrf == vrf &&
                   fixed->protocol == protocol && wanted.first <= fixed->last
               ? fixed
               : NULL;
}

const struct nat64_static *nat64_static_address(const struct nat_rules *rules, uint16_t vrf,
                                                uint32_t outside) {
    return nat64_static_port(rules, vrf, outside, 0, 0);
}

const struct nat64_static *nat64_static_outside(const struct nat_rules *rules, uint16_t vrf,
                                                uint32_t outside, uint8_t protocol, uint16_t port) {
    const struct nat64_static *fixed = nat64_static_port(rules, vrf, outside, protocol, port);

    return fixed ? fixed : nat64_static_address(rules, vrf, outside);
}

static const struct nat64_static *of_inside(const struct nat_rules *rules, uint16_t out,
                                            const uint8_t inside[16], uint8_t protocol,
                                            uint16_t port) {
    struct nat64_static wanted = {.out = out, .protocol = protocol, .inside_first = port};
    const struct nat64_static *fixed;

    memcpy(wanted.inside, inside, sizeof(wanted.inside));
    fixed = last_before(rules->nat64_by_inside, rules->nat64_static_count, &wanted, compare_inside);
    return fixed && fixed->out == out && out != 0 && fixed->protocol == protocol &&
                   memcmp(fixed->inside, inside, sizeof(fixed->inside)) == 0 &&
                   port - fixed->inside_first <= fixed->last - fixed->first
               ? fixed
               : NULL;
}

const struct nat64_static *nat64_static_inside(const struct nat_rules *rules, uint16_t out,
                                               const uint8_t inside[16], uint8_t protocol,
                                               uint16_t port) {
    const struct nat64_static *fixed =
        of_inside(rules, out, inside, protocol, rte_be_to_cpu_16(port));

    return fixed ? fixed : of_inside(rules, out, inside, 0, 0);
}

uint16_t nat64_static_inward(const struct nat64_static *fixed, uint16_t port) {
    return fixed->protocol == 0 ? port
                                : rte_cpu_to_be_16((uint16_t)(rte_be_to_cpu_16(port) -
                                                              fixed->first + fixed->inside_first));
}

uint16_t nat64_static_outward(const struct nat64_static *fixed, uint16_t port) {
    return fixed->protocol == 0 ? port
                                : rte_cpu_to_be_16((uint16_t)(rte_be_to_cpu_16(port) -
                                                              fixed->inside_first + fixed->first));
}
