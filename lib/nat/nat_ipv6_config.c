/* The lists "nptv6" and "nat64" of the section "nat". */
#include <netinet/in.h>
#include <stdio.h>
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

static void decode_nat64(const struct decode *d, struct nat64_config *config, unsigned index) {
    static const char *const keys[] = {"name",    "prefix",      "in",       "out",
                                       "source",  "destination", "protocol", "to",
                                       "mapping", "filtering",   "ports",    NULL};
    struct nat64_rule *rule = &config->rule;
    struct decode at;

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

void nat_check_ipv6(const struct config *config, const struct nat_config *nat,
                    struct problems *problems) {
    check_nptv6(config, nat, problems);
    check_nat64(config, nat, problems);
}
