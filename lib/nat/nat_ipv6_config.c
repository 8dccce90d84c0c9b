/* The lists "nptv6" and "nat64" of the section "nat". */
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/section.h"
#include "nat/nat_decode.h"
#include "nat/nat_ipv6.h"
#include "session/embedded.h"

/* --- decoding --- */

static bool decode_prefix6(const struct decode *d, struct nat_prefix6 *out) {
    struct ip_prefix prefix;

    if (!decode_prefix(d, &prefix))
        return false;
    if (prefix.address.family != AF_INET6) {
        decode_problem(d, "expected an IPv6 prefix, found IPv4");
        return false;
    }
    memcpy(out->address, prefix.address.bytes, sizeof(out->address));
    out->length = prefix.length;
    return true;
}

/* Groups and link-local addresses mean something else on each link. */
static void need_unicast(const struct decode *d, const struct nat_prefix6 *prefix) {
    if (prefix->address[0] == 0xff ||
        (prefix->address[0] == 0xfe && (prefix->address[1] & 0xc0) == 0x80))
        decode_problem(d, "expected global or unique local addresses");
}

static bool decode_member_prefix6(const struct decode *d, const char *key, struct decode *at,
                                  struct nat_prefix6 *out) {
    return decode_required(d, key, at) && decode_prefix6(at, out);
}

static void decode_nptv6(const struct decode *d, struct nptv6_config *config, unsigned index) {
    static const char *const keys[] = {"name", "out", "inside", "outside", NULL};
    struct nptv6_rule *rule = &config->rule;
    struct decode inside, outside;

    rule->index = index;
    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    nat_decode_name(d, "nptv6", index, rule->name);
    nat_decode_interface(d, "out", true, config->out);
    if (!decode_member_prefix6(d, "inside", &inside, &rule->inside) ||
        !decode_member_prefix6(d, "outside", &outside, &rule->outside))
        return;
    if (rule->inside.length != rule->outside.length)
        decode_problem(&outside, "the prefixes have to be of one length; the inside is a /%u",
                       rule->inside.length);
    else if (rule->inside.length == 0 || rule->inside.length > 64)
        decode_problem(&inside, "a prefix of 1 to 64 bits can be translated, not a /%u",
                       rule->inside.length);
    need_unicast(&inside, &rule->inside);
    need_unicast(&outside, &rule->outside);
    nptv6_prepare(rule);
}

static void decode_sources6(const struct decode *d, struct nat64_rule *rule) {
    struct decode at;

    if (!decode_member(d, "source", &at))
        return;
    if (!json_is_array(at.value)) {
        rule->source_count = decode_prefix6(&at, &rule->source[0]);
        return;
    }
    if (json_array_size(at.value) == 0 || json_array_size(at.value) > NAT_LIST_MAX) {
        decode_problem(&at, "expected 1 to %d prefixes, found %zu", NAT_LIST_MAX,
                       json_array_size(at.value));
        return;
    }
    for (size_t i = 0; i < json_array_size(at.value); i++) {
        struct decode element = decode_element(&at, i);

        rule->source_count += decode_prefix6(&element, &rule->source[rule->source_count]);
    }
}

/* The inside of a static binding. */
static void decode_inside(const struct decode *d, const struct nat_prefix6 *prefix,
                          struct nat64_static *fixed) {
    struct nat_prefix6 inside = {.length = IP6_MAX_LENGTH};
    struct ip_address address;

    if (!decode_address(d, &address))
        return;
    if (address.family != AF_INET6 || !ip_address_is_host(&address)) {
        decode_problem(d, "expected the IPv6 address of a host");
        return;
    }
    memcpy(fixed->inside, address.bytes, sizeof(fixed->inside));
    memcpy(inside.address, address.bytes, sizeof(inside.address));
    need_unicast(d, &inside);
    if (prefix->length != 0 && nat_in_prefix6(prefix, inside.address))
        decode_problem(d, "it lies behind the rule's own prefix, where no host is");
}

static void decode_static_ports(const struct decode *d, struct nat64_static *fixed) {
    struct decode at, protocol;

    if (decode_member(d, "protocol", &protocol)) {
        decode_protocol(&protocol, &fixed->protocol);
        if (fixed->protocol != IPPROTO_TCP && fixed->protocol != IPPROTO_UDP)
            decode_problem(&protocol, "ports are of tcp or udp; without a protocol and a port all "
                                      "of the address leads to the inside");
        else if (!decode_member(d, "outside_port", &at))
            decode_problem(&protocol, "a protocol needs an `outside_port`");
    }
    if (decode_member(d, "outside_port", &at)) {
        if (fixed->protocol == 0)
            decode_problem(&at, "a port needs a `protocol`: tcp or udp");
        decode_ports(&at, &fixed->first, &fixed->last);
    }
    fixed->inside_first = fixed->first;
    if (!decode_member(d, "inside_port", &at) ||
        !decode_u16(&at, 1, UINT16_MAX, &fixed->inside_first))
        return;
    if (fixed->first == 0)
        decode_problem(&at, "a port here needs `outside_port`, whose place it takes");
    else if (fixed->inside_first + (fixed->last - fixed->first) > UINT16_MAX)
        decode_problem(&at, "the range of ports would end at %u, past 65535",
                       fixed->inside_first + (unsigned)(fixed->last - fixed->first));
}

static void decode_nat64_static(const struct decode *d, const struct nat64_rule *rule,
                                struct nat64_static_config *config) {
    static const char *const keys[] = {"protocol", "outside",     "outside_port",
                                       "inside",   "inside_port", NULL};
    struct decode at;
    struct ip_address outside;

    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    decode_static_ports(d, &config->fixed);
    if (decode_required(d, "outside", &at)) {
        config->of_interface =
            json_is_string(at.value) && strcmp(json_string_value(at.value), "interface") == 0;
        if (config->of_interface && config->fixed.protocol == 0)
            decode_problem(&at, "the router would not have its own address any more: name a "
                                "`protocol` and an `outside_port`");
        else if (!config->of_interface && nat_decode_ipv4(&at, &outside))
            memcpy(&config->fixed.outside, outside.bytes, sizeof(config->fixed.outside));
    }
    if (decode_required(d, "inside", &at))
        decode_inside(&at, &rule->prefix, &config->fixed);
}

static void decode_nat64(const struct decode *d, struct nat64_config *config, unsigned index) {
    static const char *const keys[] = {"name",        "prefix",   "in", "out",     "source",
                                       "destination", "protocol", "to", "mapping", "filtering",
                                       "ports",       "static",   NULL};
    struct nat64_rule *rule = &config->rule;
    struct decode at, element;

    rule->as.index = index;
    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    nat_decode_name(d, "nat64", index, rule->as.name);
    if (decode_member_prefix6(d, "prefix", &at, &rule->prefix)) {
        if (!embedded_length_valid(rule->prefix.length))
            decode_problem(&at,
                           "an IPv4 address fits behind a prefix of 32, 40, 48, 56, 64 or 96 bits "
                           "(RFC 6052), not behind a /%u",
                           rule->prefix.length);
        else if (rule->prefix.address[8] != 0)
            decode_problem(&at, "bits 64 to 71 of the prefix have to be zero (RFC 6052)");
    }
    if (rule->prefix.length != 0)
        need_unicast(&at, &rule->prefix);
    decode_sources6(d, rule);
    nat_decode_source_rule(d, config->in, config->out, &rule->as);
    if (rule->as.target == NAT_TO_NONE && decode_member(d, "to", &at))
        decode_problem(&at, "an IPv6 host cannot keep its address: expected \"interface\" or "
                            "addresses");
    if (decode_member(d, "protocol", &at) && rule->as.protocol != IPPROTO_TCP &&
        rule->as.protocol != IPPROTO_UDP && rule->as.protocol != IPPROTO_ICMP)
        decode_problem(&at, "only tcp, udp and icmp are translated (RFC 6146)");
    config->static_count = nat_decode_list(d, "static", &at);
    config->statics = nat_allocate(config->static_count, sizeof(config->statics[0]));
    for (unsigned i = 0; i < config->static_count; i++) {
        element = decode_element(&at, i);
        decode_nat64_static(&element, rule, &config->statics[i]);
    }
}

void nat_decode_ipv6(const struct decode *d, struct nat_config *config) {
    struct decode list, element;

    config->nptv6_count = nat_decode_list(d, "nptv6", &list);
    config->nptv6 = nat_allocate(config->nptv6_count, sizeof(config->nptv6[0]));
    for (unsigned i = 0; i < config->nptv6_count; i++) {
        element = decode_element(&list, i);
        decode_nptv6(&element, &config->nptv6[i], i);
    }
    config->nat64_count = nat_decode_list(d, "nat64", &list);
    config->nat64 = nat_allocate(config->nat64_count, sizeof(config->nat64[0]));
    for (unsigned i = 0; i < config->nat64_count; i++) {
        element = decode_element(&list, i);
        decode_nat64(&element, &config->nat64[i], i);
    }
}

/* --- checking --- */

static bool overlap(const struct nat_prefix6 *a, const struct nat_prefix6 *b) {
    return a->length <= b->length ? nat_in_prefix6(a, b->address) : nat_in_prefix6(b, a->address);
}

static void check_nptv6(const struct config *config, const struct nat_config *nat,
                        struct problems *problems) {
    char path[64];

    for (unsigned i = 0; i < nat->nptv6_count; i++) {
        const struct nptv6_config *entry = &nat->nptv6[i];

        nat_check_interface(config, problems, "nptv6", i, "out", entry->out);
        if (overlap(&entry->rule.inside, &entry->rule.outside)) {
            snprintf(path, sizeof(path), "$.nat.nptv6[%u].outside", i);
            problems_add(problems, path, "inside and outside overlap");
        }
        for (unsigned before = 0; before < i; before++) {
            const struct nptv6_config *other = &nat->nptv6[before];

            if (strcmp(other->out, entry->out) == 0 &&
                overlap(&other->rule.inside, &entry->rule.inside)) {
                snprintf(path, sizeof(path), "$.nat.nptv6[%u].inside", i);
                problems_add(problems, path,
                             "overlaps with that of nptv6[%u] on the same interface", before);
            }
            if (overlap(&other->rule.outside, &entry->rule.outside)) {
                snprintf(path, sizeof(path), "$.nat.nptv6[%u].outside", i);
                problems_add(problems, path, "overlaps with that of nptv6[%u]", before);
            }
        }
    }
}

static bool nat64_hides(const struct nat64_config *first, const struct nat64_config *later) {
    const struct nat64_rule *a = &first->rule, *b = &later->rule;

    return strcmp(first->out, later->out) == 0 && overlap(&a->prefix, &b->prefix) &&
           a->prefix.length <= b->prefix.length &&
           (a->as.any_in || strcmp(first->in, later->in) == 0) &&
           (a->as.protocol == 0 || a->as.protocol == b->as.protocol) && a->source_count == 0 &&
           a->as.destination.count == 0;
}

static void check_nat64(const struct config *config, const struct nat_config *nat,
                        struct problems *problems) {
    struct ip_address prefix;
    char path[64];

    for (unsigned i = 0; i < nat->nat64_count; i++) {
        const struct nat64_config *entry = &nat->nat64[i];

        nat_check_interface(config, problems, "nat64", i, "in", entry->in);
        nat_check_interface(config, problems, "nat64", i, "out", entry->out);
        for (unsigned before = 0; before < i; before++) {
            if (nat64_hides(&nat->nat64[before], entry)) {
                snprintf(path, sizeof(path), "$.nat.nat64[%u]", i);
                problems_add(problems, path,
                             "nat64[%u] takes all packets that this rule could match", before);
                break;
            }
        }
        for (unsigned before = 0; before < i; before++) {
            const struct nat_prefix6 *other = &nat->nat64[before].rule.prefix;

            if (overlap(other, &entry->rule.prefix) && other->length != entry->rule.prefix.length) {
                snprintf(path, sizeof(path), "$.nat.nat64[%u].prefix", i);
                problems_add(problems, path, "overlaps with that of nat64[%u], which is a /%u",
                             before, other->length);
                break;
            }
        }
        prefix = ip6_address(entry->rule.prefix.address);
        if (interface_configured_on_link(config, "default", NULL, &prefix)) {
            snprintf(path, sizeof(path), "$.nat.nat64[%u].prefix", i);
            problems_add(problems, path,
                         "it lies in a connected prefix, whose hosts could not be "
                         "reached any more");
        }
        for (unsigned rule = 0; rule < nat->nptv6_count; rule++) {
            if (overlap(&nat->nptv6[rule].rule.outside, &entry->rule.prefix)) {
                snprintf(path, sizeof(path), "$.nat.nat64[%u].prefix", i);
                problems_add(problems, path, "overlaps with the outside of nptv6[%u]", rule);
            }
        }
    }
}

/* --- static bindings of NAT64 --- */

/* One of them, and where it stands. */
struct binding {
    const struct nat64_config *rule;
    const struct nat64_static_config *entry;
    unsigned rule_index, index;
};

static void binding_problem(struct problems *problems, const struct binding *at, const char *key,
                            const char *what, const char *whose, unsigned index) {
    char path[80];

    snprintf(path, sizeof(path), "$.nat.nat64[%u].static[%u].%s", at->rule_index, at->index, key);
    problems_add(problems, path, what, whose, index);
}

static bool ranges_meet(uint32_t first, uint32_t last, uint32_t other_first, uint32_t other_last) {
    return first <= other_last && other_first <= last;
}

static bool same_outside(const struct binding *a, const struct binding *b) {
    if (a->entry->of_interface != b->entry->of_interface)
        return false; /* it is not known here which address the interface has */
    return a->entry->of_interface ? strcmp(a->rule->out, b->rule->out) == 0
                                  : a->entry->fixed.outside == b->entry->fixed.outside;
}

/* An outside port leads to one inside, and an inside port appears as one outside. An address of
 * which all is bound has no port for others. */
static void check_pair(struct problems *problems, const struct binding *earlier,
                       const struct binding *later) {
    const struct nat64_static *a = &earlier->entry->fixed, *b = &later->entry->fixed;
    bool whole = a->protocol == 0 || b->protocol == 0, same = a->protocol == b->protocol;
    unsigned span = (unsigned)(a->last - a->first), later_span = (unsigned)(b->last - b->first);
    char whose[48];

    snprintf(whose, sizeof(whose), "nat64[%u].static", earlier->rule_index);
    if (same_outside(earlier, later) &&
        (whole || (same && ranges_meet(a->first, a->last, b->first, b->last))))
        binding_problem(problems, later, b->protocol == 0 ? "outside" : "outside_port",
                        "it belongs to %s[%u] already", whose, earlier->index);
    if (strcmp(earlier->rule->out, later->rule->out) == 0 &&
        memcmp(a->inside, b->inside, sizeof(a->inside)) == 0 && same &&
        ranges_meet(a->inside_first, a->inside_first + span, b->inside_first,
                    b->inside_first + later_span))
        binding_problem(problems, later, "inside",
                        "on the same interface it appears as the outside of %s[%u] already", whose,
                        earlier->index);
}

static bool has_address(const struct nat_source_rule *rule, const struct binding *at) {
    return !at->entry->of_interface && nat_in_pool(rule, at->entry->fixed.outside);
}

/* Ports of a pool are kept from its mappings, but an address as a whole is not the pool's any
 * more. */
static void check_pools(const struct nat_config *nat, const struct binding *at,
                        struct problems *problems) {
    if (at->entry->fixed.protocol != 0)
        return;
    for (unsigned i = 0; i < nat->source_count; i++) {
        if (has_address(&nat->sources[i].rule, at))
            binding_problem(problems, at, "outside", "it is in the pool of %s[%u] as well",
                            "source", i);
    }
    for (unsigned i = 0; i < nat->nat64_count; i++) {
        if (has_address(&nat->nat64[i].rule.as, at))
            binding_problem(problems, at, "outside", "it is in the pool of %s[%u] as well", "nat64",
                            i);
    }
}

static bool forwards_from(const struct nat_destination_rule *rule, const struct binding *at) {
    uint32_t host = rte_be_to_cpu_32(at->entry->fixed.outside);

    if (rule->destination.count == 0)
        return at->entry->of_interface;
    for (unsigned i = 0; !at->entry->of_interface && i < rule->destination.count; i++) {
        if ((host & rule->destination.list[i].mask) == rule->destination.list[i].address)
            return true;
    }
    return false;
}

/* A static port goes before port forwards, which go before a static address: one of the two would
 * be asked about nothing. */
static void check_forwards(const struct nat_config *nat, const struct binding *at,
                           struct problems *problems) {
    const struct nat64_static *fixed = &at->entry->fixed;

    for (unsigned i = 0; i < nat->destination_count; i++) {
        const struct nat_destination_rule *rule = &nat->destinations[i].rule;

        if (strcmp(nat->destinations[i].in, at->rule->out) != 0 || !forwards_from(rule, at))
            continue;
        if (fixed->protocol == 0 && rule->protocol == 0 && rule->any_port &&
            rule->source.count == 0)
            binding_problem(problems, at, "outside", "%s[%u] forwards all of it already",
                            "destination", i);
        if (fixed->protocol != 0 && rule->protocol == fixed->protocol && !rule->any_port &&
            ranges_meet(fixed->first, fixed->last, rule->port_first, rule->port_last))
            binding_problem(problems, at, "outside_port", "%s[%u] forwards it already",
                            "destination", i);
    }
}

/* Nothing would reach the router by it any more. */
static void check_own(const struct config *config, const struct binding *at,
                      struct problems *problems) {
    const char *vrf = interface_configured_vrf(config, at->rule->out);
    struct ip_address outside = ip4_address(&at->entry->fixed.outside);
    char path[80];

    if (at->entry->fixed.protocol != 0 || !vrf || !interface_configured_own(config, vrf, &outside))
        return;
    snprintf(path, sizeof(path), "$.nat.nat64[%u].static[%u].outside", at->rule_index, at->index);
    problems_add(problems, path,
                 "it is the router's own address: name a `protocol` and an `outside_port`");
}

static void check_binding(const struct config *config, const struct nat_config *nat,
                          const struct binding *at, struct problems *problems) {
    uint32_t outside;

    for (unsigned i = 0; i < nat->static_count; i++) {
        memcpy(&outside, nat->statics[i].outside.bytes, sizeof(outside));
        if (!at->entry->of_interface && outside == at->entry->fixed.outside)
            binding_problem(problems, at, "outside", "it belongs to %s[%u] already", "static", i);
    }
    for (unsigned i = 0; i < nat->nat64_count; i++) {
        if (i != at->rule_index &&
            nat_in_prefix6(&nat->nat64[i].rule.prefix, at->entry->fixed.inside))
            binding_problem(problems, at, "inside", "it lies behind the prefix of %s[%u]", "nat64",
                            i);
    }
    check_own(config, at, problems);
    check_pools(nat, at, problems);
    check_forwards(nat, at, problems);
}

/* The first `count` bindings, in the order of the configuration. */
static void check_bindings(const struct config *config, const struct nat_config *nat,
                           struct problems *problems) {
    unsigned total = 0, count = 0;
    struct binding *all;

    for (unsigned i = 0; i < nat->nat64_count; i++)
        total += nat->nat64[i].static_count;
    all = nat_allocate(total, sizeof(all[0]));
    for (unsigned i = 0; i < nat->nat64_count; i++) {
        for (unsigned n = 0; n < nat->nat64[i].static_count; n++) {
            all[count] = (struct binding){&nat->nat64[i], &nat->nat64[i].statics[n], i, n};
            check_binding(config, nat, &all[count], problems);
            for (unsigned before = 0; before < count; before++)
                check_pair(problems, &all[before], &all[count]);
            count++;
        }
    }
    free(all);
}

void nat_check_ipv6(const struct config *config, const struct nat_config *nat,
                    struct problems *problems) {
    check_nptv6(config, nat, problems);
    check_nat64(config, nat, problems);
    check_bindings(config, nat, problems);
}
