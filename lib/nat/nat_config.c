/*
 * The section "nat" of router.json. What becomes of it is in nat_publish.c.
 */
#include <errno.h>
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_common.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/section.h"
#include "interface/interface.h"
#include "nat/nat_decode.h"
#include "session/session.h"
#include "json/decode.h"

const struct nat_config *nat_config_in_force;

bool nat_wanted(void) {
    return nat_config_in_force && nat_config_in_force->present;
}

void *nat_allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);

    if (!memory)
        abort(); /* the control side has no sensible way to go on */
    return memory;
}

/* --- decoding --- */

static bool need_ipv4(const struct decode *d, const struct ip_address *address) {
    if (address->family == AF_INET)
        return true;
    decode_problem(d, "expected IPv4, found IPv6: only IPv4 addresses are translated");
    return false;
}

bool nat_decode_ipv4(const struct decode *d, struct ip_address *out) {
    if (!decode_address(d, out) || !need_ipv4(d, out))
        return false;
    if (ip_address_is_host(out))
        return true;
    decode_problem(d, "expected the address of a host, found one that no host can have");
    return false;
}

static uint32_t mask_of(unsigned length) {
    return length == 0 ? 0 : UINT32_MAX << (32 - length);
}

/* A prefix, or an address. */
static void decode_one_prefix(const struct decode *d, struct nat_prefixes *out) {
    struct ip_prefix prefix = {.length = IP4_MAX_LENGTH};
    const char *text;

    if (!decode_string(d, &text))
        return;
    if (strchr(text, '/') ? !decode_prefix(d, &prefix) : !decode_address(d, &prefix.address))
        return;
    if (!need_ipv4(d, &prefix.address))
        return;
    out->list[out->count++] = (struct nat_prefix){.address = ip4_host_order(&prefix.address),
                                                  .mask = mask_of(prefix.length)};
}

/* One value or a list of them; absent: any. */
static void decode_prefixes(const struct decode *d, const char *key, struct nat_prefixes *out) {
    struct decode at;

    if (!decode_member(d, key, &at))
        return;
    if (!json_is_array(at.value)) {
        decode_one_prefix(&at, out);
        return;
    }
    if (json_array_size(at.value) == 0 || json_array_size(at.value) > NAT_LIST_MAX) {
        decode_problem(&at, "expected 1 to %d prefixes, found %zu", NAT_LIST_MAX,
                       json_array_size(at.value));
        return;
    }
    for (size_t i = 0; i < json_array_size(at.value); i++) {
        struct decode element = decode_element(&at, i);

        decode_one_prefix(&element, out);
    }
}

void nat_decode_interface(const struct decode *d, const char *key, bool required, char *out) {
    struct decode at;
    const char *name;

    if (!(required ? decode_required(d, key, &at) : decode_member(d, key, &at)))
        return;
    if (decode_string(&at, &name) && decode_name(&at, name))
        snprintf(out, INTERFACE_NAME_TEXT, "%s", name);
}

void nat_decode_name(const struct decode *d, const char *kind, unsigned index, char *out) {
    struct decode at;
    const char *name;

    snprintf(out, NAT_NAME_TEXT, "%s-%u", kind, index + 1);
    if (decode_member(d, "name", &at) && decode_string(&at, &name) && decode_name(&at, name))
        snprintf(out, NAT_NAME_TEXT, "%s", name);
}

/* "203.0.113.9", "203.0.113.16-203.0.113.31" or "203.0.113.16/28" with `prefixes`. */
static bool parse_range(const char *text, bool prefixes, struct nat_range *out) {
    char copy[2 * IP_ADDRESS_TEXT + 2], *dash;
    struct ip_address first, last;
    struct ip_prefix prefix;

    if (strlen(text) >= sizeof(copy))
        return false;
    snprintf(copy, sizeof(copy), "%s", text);
    if (prefixes && strchr(copy, '/')) {
        if (ip_prefix_parse(copy, &prefix) != 0 || prefix.address.family != AF_INET)
            return false;
        out->first = ip4_host_order(&prefix.address);
        out->last = out->first | ~mask_of(prefix.length);
        return true;
    }
    dash = strchr(copy, '-');
    if (dash)
        *dash = '\0';
    if (ip_address_parse(copy, &first) != 0 || first.family != AF_INET)
        return false;
    last = first;
    if (dash && (ip_address_parse(dash + 1, &last) != 0 || last.family != AF_INET))
        return false;
    out->first = ip4_host_order(&first);
    out->last = ip4_host_order(&last);
    return out->first <= out->last;
}

static bool range_of_hosts(const struct nat_range *range) {
    uint32_t first = rte_cpu_to_be_32(range->first), last = rte_cpu_to_be_32(range->last);
    struct ip_address low = ip4_address(&first), high = ip4_address(&last);

    return ip_address_is_host(&low) && ip_address_is_host(&high);
}

static void decode_pool_part(const struct decode *d, struct nat_source_rule *rule) {
    struct nat_range range;
    const char *text;

    if (!decode_string(d, &text))
        return;
    if (!parse_range(text, true, &range) || !range_of_hosts(&range)) {
        decode_problem(
            d, "expected \"interface\", \"none\", an IPv4 address, a prefix, or a range such "
               "as 203.0.113.16-203.0.113.31");
        return;
    }
    rule->pool[rule->pool_count++] = range;
    rule->pool_size += range.last - range.first + 1;
}

static void decode_to(const struct decode *d, struct nat_source_rule *rule) {
    rule->target = NAT_TO_POOL;
    if (json_is_array(d->value)) {
        if (json_array_size(d->value) == 0 || json_array_size(d->value) > NAT_RANGES_MAX) {
            decode_problem(d, "expected 1 to %d addresses or ranges, found %zu", NAT_RANGES_MAX,
                           json_array_size(d->value));
            return;
        }
        for (size_t i = 0; i < json_array_size(d->value); i++) {
            struct decode element = decode_element(d, i);

            decode_pool_part(&element, rule);
        }
    } else if (json_is_string(d->value) && strcmp(json_string_value(d->value), "interface") == 0) {
        rule->target = NAT_TO_INTERFACE;
    } else if (json_is_string(d->value) && strcmp(json_string_value(d->value), "none") == 0) {
        rule->target = NAT_TO_NONE;
    } else {
        decode_pool_part(d, rule);
    }
}

void nat_decode_source_rule(const struct decode *d, char *in, char *out,
                            struct nat_source_rule *rule) {
    static const char *const words[] = {"endpoint_independent", "endpoint_dependent", NULL};
    struct decode at;
    unsigned word;

    rule->port_first = NAT_PORT_FIRST;
    rule->port_last = NAT_PORT_LAST;
    nat_decode_interface(d, "in", false, in);
    rule->any_in = in[0] == '\0';
    nat_decode_interface(d, "out", true, out);
    decode_prefixes(d, "destination", &rule->destination);
    if (decode_member(d, "protocol", &at))
        decode_protocol(&at, &rule->protocol);
    if (decode_required(d, "to", &at))
        decode_to(&at, rule);
    if (decode_member(d, "mapping", &at) && decode_word(&at, words, &word))
        rule->endpoint_dependent = word == 1;
    if (decode_member(d, "filtering", &at) && decode_word(&at, words, &word)) {
        rule->endpoint_independent_filter = word == 0;
        if (rule->endpoint_independent_filter && rule->endpoint_dependent)
            decode_problem(&at,
                           "anybody can send to a mapping only if it is the same for everybody: "
                           "set `mapping` to endpoint_independent");
    }
    if (decode_member(d, "ports", &at))
        decode_ports(&at, &rule->port_first, &rule->port_last);
    if (rule->target == NAT_TO_POOL && !rule->endpoint_dependent &&
        rule->pool_size > NAT_ADDRESSES_MAX) {
        decode_member(d, "to", &at);
        decode_problem(
            &at,
            "a pool for endpoint-independent mappings has at most %d addresses, this one "
            "has %u",
            NAT_ADDRESSES_MAX, rule->pool_size);
    }
}

static void decode_source(const struct decode *d, struct source_config *config, unsigned index) {
    static const char *const keys[] = {"name",        "in",       "out",        "source",
                                       "destination", "protocol", "to",         "mapping",
                                       "filtering",   "ports",    "port_block", NULL};
    struct nat_source_rule *rule = &config->rule;
    struct decode at;

    rule->index = index;
    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    nat_decode_name(d, "source", index, rule->name);
    decode_prefixes(d, "source", &rule->source);
    nat_decode_source_rule(d, config->in, config->out, rule);
    if (decode_member(d, "port_block", &at) && decode_u16(&at, 1, UINT16_MAX, &rule->block_size)) {
        if (rule->source.count == 0)
            decode_problem(&at,
                           "port blocks follow from the inside address: `source` has to list the "
                           "prefixes that get them");
        else if (rule->block_size > rule->port_last - rule->port_first + 1)
            decode_problem(&at, "a block of %u ports is larger than the range %u-%u",
                           rule->block_size, rule->port_first, rule->port_last);
    }
}

/* "80": digits alone; 0 for what is no port. */
static unsigned read_port(const char *text) {
    unsigned port = 0;

    for (; *text >= '0' && *text <= '9' && port <= UINT16_MAX; text++)
        port = port * 10 + (unsigned)(*text - '0');
    return *text == '\0' && port <= UINT16_MAX ? port : 0;
}

/* "192.168.1.10", "192.168.1.10:80", "192.168.1.10-192.168.1.12:80" */
static void decode_destination_to(const struct decode *d, struct nat_destination_rule *rule) {
    char addresses[2 * IP_ADDRESS_TEXT + 2];
    const char *text, *colon;
    struct nat_range range;
    unsigned port, most;

    if (!decode_string(d, &text))
        return;
    colon = strchr(text, ':');
    port = colon ? read_port(colon + 1) : 0;
    snprintf(addresses, sizeof(addresses), "%.*s", colon ? (int)(colon - text) : (int)strlen(text),
             text);
    if (!parse_range(addresses, false, &range) || !range_of_hosts(&range) || (colon && port == 0)) {
        decode_problem(d, "expected an IPv4 address, or a range of them, and perhaps a port, such "
                          "as 192.168.1.10:80");
        return;
    }
    rule->to_first = range.first;
    rule->to_last = range.last;
    rule->keeps_port = !colon;
    rule->to_port = (uint16_t)port;
    most = port + (unsigned)(rule->port_last - rule->port_first);
    if (colon && rule->any_port)
        decode_problem(d, "a port here needs `destination_port`, which it takes the place of");
    else if (colon && most > UINT16_MAX)
        decode_problem(d, "the range of ports would end at %u, past 65535", most);
}

static void decode_destination(const struct decode *d, struct destination_config *config,
                               unsigned index) {
    static const char *const keys[] = {"name",   "in",          "protocol",
                                       "source", "destination", "destination_port",
                                       "to",     "hairpin",     NULL};
    struct nat_destination_rule *rule = &config->rule;
    struct decode at;

    rule->index = index;
    rule->any_port = true;
    rule->hairpin = true;
    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    nat_decode_name(d, "destination", index, rule->name);
    nat_decode_interface(d, "in", true, config->in);
    if (decode_member(d, "protocol", &at))
        decode_protocol(&at, &rule->protocol);
    decode_prefixes(d, "source", &rule->source);
    decode_prefixes(d, "destination", &rule->destination);
    decode_member_bool(d, "hairpin", &rule->hairpin);
    if (decode_member(d, "destination_port", &at)) {
        if (rule->protocol != IPPROTO_TCP && rule->protocol != IPPROTO_UDP &&
            rule->protocol != IPPROTO_UDPLITE && rule->protocol != IPPROTO_DCCP)
            decode_problem(&at, "ports need a `protocol` that has them: tcp, udp, udplite or dccp");
        rule->any_port = !decode_ports(&at, &rule->port_first, &rule->port_last);
    }
    if (decode_required(d, "to", &at))
        decode_destination_to(&at, rule);
}

static void decode_static(const struct decode *d, struct static_config *config, unsigned index) {
    static const char *const keys[] = {"outside", "inside", "interface", NULL};
    struct decode at;

    config->index = index;
    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    if (decode_required(d, "outside", &at))
        nat_decode_ipv4(&at, &config->outside);
    if (decode_required(d, "inside", &at))
        nat_decode_ipv4(&at, &config->inside);
    nat_decode_interface(d, "interface", false, config->interface);
}

unsigned nat_decode_list(const struct decode *d, const char *key, struct decode *out) {
    if (!decode_member(d, key, out) || !decode_is_array(out))
        return 0;
    if (json_array_size(out->value) > NAT_RULES_MAX) {
        decode_problem(out, "expected at most %d rules, found %zu", NAT_RULES_MAX,
                       json_array_size(out->value));
        return 0;
    }
    return (unsigned)json_array_size(out->value);
}

static void *decode_nat(struct decode *d) {
    static const char *const keys[] = {"source", "destination", "static", "nptv6", "nat64", NULL};
    struct nat_config *config = nat_allocate(1, sizeof(*config));
    struct decode list, element;

    if (!d || !decode_is_object(d))
        return config;
    config->present = true;
    decode_only_keys(d, keys);
    config->source_count = nat_decode_list(d, "source", &list);
    config->sources = nat_allocate(config->source_count, sizeof(config->sources[0]));
    for (unsigned i = 0; i < config->source_count; i++) {
        element = decode_element(&list, i);
        decode_source(&element, &config->sources[i], i);
    }
    config->destination_count = nat_decode_list(d, "destination", &list);
    config->destinations = nat_allocate(config->destination_count, sizeof(config->destinations[0]));
    for (unsigned i = 0; i < config->destination_count; i++) {
        element = decode_element(&list, i);
        decode_destination(&element, &config->destinations[i], i);
    }
    config->static_count = nat_decode_list(d, "static", &list);
    config->statics = nat_allocate(config->static_count, sizeof(config->statics[0]));
    for (unsigned i = 0; i < config->static_count; i++) {
        element = decode_element(&list, i);
        decode_static(&element, &config->statics[i], i);
    }
    nat_decode_ipv6(d, config);
    return config;
}

static void free_nat(void *value) {
    struct nat_config *config = value;

    if (!config)
        return;
    free(config->sources);
    free(config->destinations);
    free(config->statics);
    free(config->nptv6);
    for (unsigned i = 0; i < config->nat64_count; i++)
        free(config->nat64[i].statics);
    free(config->nat64);
    free(config);
}

/* --- checking --- */

void nat_check_interface(const struct config *config, struct problems *problems, const char *kind,
                         unsigned index, const char *key, const char *name) {
    char path[64];

    if (name[0] == '\0' || interface_configured(config, name))
        return;
    snprintf(path, sizeof(path), "$.nat.%s[%u].%s", kind, index, key);
    problems_add(problems, path, "interface `%s` is not configured", name);
}

static bool same_prefixes(const struct nat_prefixes *a, const struct nat_prefixes *b) {
    return a->count == b->count && memcmp(a->list, b->list, a->count * sizeof(a->list[0])) == 0;
}

/* Would the later rule never be asked? */
static bool source_hides(const struct source_config *first, const struct source_config *later) {
    const struct nat_source_rule *a = &first->rule, *b = &later->rule;

    return strcmp(first->out, later->out) == 0 &&
           (a->any_in || strcmp(first->in, later->in) == 0) &&
           (a->protocol == 0 || a->protocol == b->protocol) &&
           (a->source.count == 0 || same_prefixes(&a->source, &b->source)) &&
           (a->destination.count == 0 || same_prefixes(&a->destination, &b->destination));
}

static bool destination_hides(const struct destination_config *first,
                              const struct destination_config *later) {
    const struct nat_destination_rule *a = &first->rule, *b = &later->rule;

    return strcmp(first->in, later->in) == 0 && (a->protocol == 0 || a->protocol == b->protocol) &&
           (a->any_port ||
            (!b->any_port && a->port_first <= b->port_first && a->port_last >= b->port_last)) &&
           (a->source.count == 0 || same_prefixes(&a->source, &b->source)) &&
           same_prefixes(&a->destination, &b->destination);
}

static void check_sources(const struct config *config, const struct nat_config *nat,
                          struct problems *problems) {
    char path[64];

    for (unsigned i = 0; i < nat->source_count; i++) {
        nat_check_interface(config, problems, "source", i, "in", nat->sources[i].in);
        nat_check_interface(config, problems, "source", i, "out", nat->sources[i].out);
        for (unsigned before = 0; before < i; before++) {
            if (!source_hides(&nat->sources[before], &nat->sources[i]))
                continue;
            snprintf(path, sizeof(path), "$.nat.source[%u]", i);
            problems_add(problems, path, "source[%u] takes all packets that this rule could match",
                         before);
            break;
        }
    }
}

static void check_destinations(const struct config *config, const struct nat_config *nat,
                               struct problems *problems) {
    char path[64];

    for (unsigned i = 0; i < nat->destination_count; i++) {
        nat_check_interface(config, problems, "destination", i, "in", nat->destinations[i].in);
        for (unsigned before = 0; before < i; before++) {
            if (!destination_hides(&nat->destinations[before], &nat->destinations[i]))
                continue;
            snprintf(path, sizeof(path), "$.nat.destination[%u]", i);
            problems_add(problems, path,
                         "destination[%u] takes all packets that this rule could match", before);
            break;
        }
    }
}

static void check_statics(const struct config *config, const struct nat_config *nat,
                          struct problems *problems) {
    char path[64], text[IP_ADDRESS_TEXT];

    for (unsigned i = 0; i < nat->static_count; i++) {
        const struct static_config *entry = &nat->statics[i];
        uint32_t outside = ip4_host_order(&entry->outside);

        nat_check_interface(config, problems, "static", i, "interface", entry->interface);
        snprintf(path, sizeof(path), "$.nat.static[%u].outside", i);
        if (!entry->interface[0] &&
            !interface_configured_on_link(config, "default", NULL, &entry->outside))
            problems_add(problems, path,
                         "%s is in no connected prefix: name the outside `interface`",
                         ip_address_text(&entry->outside, text));
        for (unsigned before = 0; before < i; before++) {
            if (ip_address_compare(&nat->statics[before].outside, &entry->outside) == 0)
                problems_add(problems, path, "%s belongs to static[%u] already",
                             ip_address_text(&entry->outside, text), before);
            if (ip_address_compare(&nat->statics[before].inside, &entry->inside) == 0) {
                char inside[64];

                snprintf(inside, sizeof(inside), "$.nat.static[%u].inside", i);
                problems_add(problems, inside, "%s belongs to static[%u] already",
                             ip_address_text(&entry->inside, text), before);
            }
        }
        for (unsigned rule = 0; rule < nat->source_count; rule++) {
            for (unsigned r = 0; r < nat->sources[rule].rule.pool_count; r++) {
                if (nat->sources[rule].rule.pool[r].first <= outside &&
                    nat->sources[rule].rule.pool[r].last >= outside)
                    problems_add(problems, path, "%s is in the pool of source[%u] as well",
                                 ip_address_text(&entry->outside, text), rule);
            }
        }
    }
}

/* --- addresses that mappings are made on --- */

struct mapped_range {
    const char *vrf;
    uint32_t first, last;
};

static int by_vrf_and_first(const void *a, const void *b) {
    const struct mapped_range *left = a, *right = b;
    int order = strcmp(left->vrf, right->vrf);

    return order ? order : (left->first > right->first) - (left->first < right->first);
}

/* How many addresses the ranges have together, each counted once; sorts them. */
static uint64_t distinct_addresses(struct mapped_range *ranges, unsigned count) {
    uint64_t total = 0, next = 0; /* the first address that no range has had so far */

    qsort(ranges, count, sizeof(ranges[0]), by_vrf_and_first);
    for (unsigned i = 0; i < count; i++) {
        if (i == 0 || strcmp(ranges[i - 1].vrf, ranges[i].vrf) != 0)
            next = 0;
        if (next <= ranges[i].last)
            total += ranges[i].last + (uint64_t)1 - RTE_MAX(next, (uint64_t)ranges[i].first);
        next = RTE_MAX(next, ranges[i].last + (uint64_t)1);
    }
    return total;
}

/* The pools of the first `count` rules, sources before NAT64. */
static uint64_t mapped_addresses(const struct config *config, const struct nat_config *nat,
                                 unsigned count, struct mapped_range *ranges) {
    unsigned found = 0;

    for (unsigned i = 0; i < count; i++) {
        bool nat64 = i >= nat->source_count;
        const struct nat_source_rule *rule =
            nat64 ? &nat->nat64[i - nat->source_count].rule.as : &nat->sources[i].rule;
        const char *vrf = interface_configured_vrf(
            config, nat64 ? nat->nat64[i - nat->source_count].out : nat->sources[i].out);

        for (unsigned r = 0; vrf && !rule->endpoint_dependent && r < rule->pool_count; r++)
            ranges[found++] = (struct mapped_range){vrf, rule->pool[r].first, rule->pool[r].last};
    }
    return distinct_addresses(ranges, found);
}

/* Names the first rule that has more than there is room for. */
static void check_mapped(const struct config *config, const struct nat_config *nat,
                         struct problems *problems) {
    unsigned low = 0, high = nat->source_count + nat->nat64_count;
    struct mapped_range *ranges = nat_allocate((size_t)high * NAT_RANGES_MAX, sizeof(ranges[0]));
    uint64_t all = mapped_addresses(config, nat, high, ranges);
    char path[64];

    while (all > NAT_ADDRESSES_MAX && low < high) {
        unsigned middle = (low + high) / 2;

        if (mapped_addresses(config, nat, middle + 1, ranges) > NAT_ADDRESSES_MAX)
            high = middle;
        else
            low = middle + 1;
    }
    free(ranges);
    if (all <= NAT_ADDRESSES_MAX)
        return;
    snprintf(path, sizeof(path), "$.nat.%s[%u].to", low < nat->source_count ? "source" : "nat64",
             low < nat->source_count ? low : low - nat->source_count);
    problems_add(problems, path,
                 "the pools for endpoint-independent mappings have at most %d addresses together, "
                 "these have %llu",
                 NAT_ADDRESSES_MAX, (unsigned long long)all);
}

static struct config_section nat_section;

static void check_nat(const struct config *config, struct problems *problems) {
    const struct nat_config *nat = config_value(config, &nat_section);

    if (!nat)
        return;
    check_sources(config, nat, problems);
    check_destinations(config, nat, problems);
    check_statics(config, nat, problems);
    nat_check_ipv6(config, nat, problems);
    check_mapped(config, nat, problems);
}

/* --- in force --- */

static int init_nat(void) {
    session_set_translator(&nat_translator);
    session_want(nat_wanted);
    session_on_look_again(nat_review);
    nat_publish_init();
    return 0;
}

static int prepare_nat(const struct config *old, const struct config *new,
                       struct problems *problems) {
    const struct nat_config *config = config_value(new, &nat_section);
    struct session_totals totals;

    (void)old;
    if (!config || !config->present)
        return 0;
    if (session_need(problems) != 0)
        return -ENOMEM;
    session_totals(&totals);
    if (!nat_mapping_exists() && nat_mapping_create(totals.most) != 0) {
        problems_add(problems, "$.nat", "there is no memory for the mappings of %u sessions",
                     totals.most);
        return -ENOMEM;
    }
    if (config->nat64_count > 0 && nat_mapping_need_ipv6() != 0) {
        problems_add(problems, "$.nat.nat64", "there is no memory for the mappings of %u sessions",
                     totals.most);
        return -ENOMEM;
    }
    return 0;
}

static void commit_nat(const struct config *old, const struct config *new) {
    (void)old;
    nat_config_in_force = config_value(new, &nat_section);
    nat_publish();
}

/* Sessions that were translated keep their mappings until they end. */
static void release_nat(const struct config *old, const struct config *new) {
    (void)old;
    (void)new;
    if (!nat_wanted())
        nat_unpublish();
    if (!session_wanted())
        nat_mapping_free();
}

static struct config_section nat_section = {
    .name = "nat",
    .after = (const char *const[]){"interfaces", "vrfs", "sessions", NULL},
    .init = init_nat,
    .decode = decode_nat,
    .check = check_nat,
    .prepare = prepare_nat,
    .commit = commit_nat,
    .release = release_nat,
    .free = free_nat,
};
CONFIG_SECTION(nat_section)
