/*
 * The section "nat" of router.json, and what becomes of it: a snapshot for the workers, made anew
 * whenever the configuration or an interface's addresses change, and a look at the live sessions
 * afterwards, which ends those whose translation no rule gives any more.
 */
#include <errno.h>
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_common.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/log.h"
#include "core/rcu.h"
#include "core/section.h"
#include "interface/interface.h"
#include "l3/link.h"
#include "nat/nat_internal.h"
#include "session/session.h"
#include "json/decode.h"

enum { SESSIONS_AT_ONCE = 4096 };

/* --- as configured: rules with the names of interfaces --- */

struct source_config {
    char in[INTERFACE_NAME_TEXT], out[INTERFACE_NAME_TEXT];
    struct nat_source_rule rule;
};

struct destination_config {
    char in[INTERFACE_NAME_TEXT];
    struct nat_destination_rule rule;
};

struct static_config {
    char interface[INTERFACE_NAME_TEXT]; /* "" = the one whose prefix holds the outside address */
    struct ip_address outside, inside;
    unsigned index;
};

struct nat_config {
    bool present;
    unsigned source_count, destination_count, static_count;
    struct source_config *sources;
    struct destination_config *destinations;
    struct static_config *statics;
};

static const struct nat_config *current;

bool nat_wanted(void) {
    return current && current->present;
}

static void *allocate(size_t count, size_t size) {
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

static bool decode_ipv4(const struct decode *d, struct ip_address *out) {
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

static void decode_interface_name(const struct decode *d, const char *key, bool required,
                                  char *out) {
    struct decode at;
    const char *name;

    if (!(required ? decode_required(d, key, &at) : decode_member(d, key, &at)))
        return;
    if (decode_string(&at, &name) && decode_name(&at, name))
        snprintf(out, INTERFACE_NAME_TEXT, "%s", name);
}

static void decode_rule_name(const struct decode *d, const char *kind, unsigned index, char *out) {
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

static void decode_source(const struct decode *d, struct source_config *config, unsigned index) {
    static const char *const keys[] = {"name",        "in",       "out",        "source",
                                       "destination", "protocol", "to",         "mapping",
                                       "filtering",   "ports",    "port_block", NULL};
    static const char *const words[] = {"endpoint_independent", "endpoint_dependent", NULL};
    struct nat_source_rule *rule = &config->rule;
    struct decode at;
    unsigned word;

    rule->index = index;
    rule->port_first = NAT_PORT_FIRST;
    rule->port_last = NAT_PORT_LAST;
    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    decode_rule_name(d, "source", index, rule->name);
    decode_interface_name(d, "in", false, config->in);
    rule->any_in = config->in[0] == '\0';
    decode_interface_name(d, "out", true, config->out);
    decode_prefixes(d, "source", &rule->source);
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
    if (decode_member(d, "port_block", &at) && decode_u16(&at, 1, UINT16_MAX, &rule->block_size)) {
        if (rule->source.count == 0)
            decode_problem(&at,
                           "port blocks follow from the inside address: `source` has to list the "
                           "prefixes that get them");
        else if (rule->block_size > rule->port_last - rule->port_first + 1)
            decode_problem(&at, "a block of %u ports is larger than the range %u-%u",
                           rule->block_size, rule->port_first, rule->port_last);
    }
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
    decode_rule_name(d, "destination", index, rule->name);
    decode_interface_name(d, "in", true, config->in);
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
        decode_ipv4(&at, &config->outside);
    if (decode_required(d, "inside", &at))
        decode_ipv4(&at, &config->inside);
    decode_interface_name(d, "interface", false, config->interface);
}

/* The list's size; 0 with a problem when it cannot be one. */
static unsigned list_size(const struct decode *d, const char *key, struct decode *out) {
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
    static const char *const keys[] = {"source", "destination", "static", NULL};
    struct nat_config *config = allocate(1, sizeof(*config));
    struct decode list, element;

    if (!d || !decode_is_object(d))
        return config;
    config->present = true;
    decode_only_keys(d, keys);
    config->source_count = list_size(d, "source", &list);
    config->sources = allocate(config->source_count, sizeof(config->sources[0]));
    for (unsigned i = 0; i < config->source_count; i++) {
        element = decode_element(&list, i);
        decode_source(&element, &config->sources[i], i);
    }
    config->destination_count = list_size(d, "destination", &list);
    config->destinations = allocate(config->destination_count, sizeof(config->destinations[0]));
    for (unsigned i = 0; i < config->destination_count; i++) {
        element = decode_element(&list, i);
        decode_destination(&element, &config->destinations[i], i);
    }
    config->static_count = list_size(d, "static", &list);
    config->statics = allocate(config->static_count, sizeof(config->statics[0]));
    for (unsigned i = 0; i < config->static_count; i++) {
        element = decode_element(&list, i);
        decode_static(&element, &config->statics[i], i);
    }
    return config;
}

static void free_nat(void *value) {
    struct nat_config *config = value;

    if (!config)
        return;
    free(config->sources);
    free(config->destinations);
    free(config->statics);
    free(config);
}

/* --- checking --- */

static void check_interface(const struct config *config, struct problems *problems,
                            const char *kind, unsigned index, const char *key, const char *name) {
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
        check_interface(config, problems, "source", i, "in", nat->sources[i].in);
        check_interface(config, problems, "source", i, "out", nat->sources[i].out);
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
        check_interface(config, problems, "destination", i, "in", nat->destinations[i].in);
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

        check_interface(config, problems, "static", i, "interface", entry->interface);
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

static struct config_section nat_section;

static void check_nat(const struct config *config, struct problems *problems) {
    const struct nat_config *nat = config_value(config, &nat_section);

    if (!nat)
        return;
    check_sources(config, nat, problems);
    check_destinations(config, nat, problems);
    check_statics(config, nat, problems);
}

/* --- the snapshot --- */

static uint16_t id_of(const char *name) {
    const struct interface *interface = interface_by_name(name);

    return interface ? interface->id : 0;
}

static void add_mapping_addresses(const struct nat_source_rule *rule, uint16_t vrf) {
    for (uint32_t n = 0; n < rule->pool_size; n++) {
        int error = nat_mapping_add_address(nat_pool_address(rule, n), vrf);

        if (error) {
            log_error("nat",
                      "source rule %s: no port can be given out of address %u and those "
                      "behind it: %s",
                      rule->name, n + 1, strerror(-error));
            return;
        }
    }
}

static void fill_source(const struct source_config *config, struct nat_source_rule *rule) {
    const struct interface *out = interface_by_name(config->out);
    const struct interface_address *address = out ? interface_source(out, AF_INET) : NULL;

    *rule = config->rule;
    rule->out = out ? out->id : 0;
    rule->in = id_of(config->in);
    if (rule->target == NAT_TO_INTERFACE && address) {
        uint32_t host = ip4_host_order(&address->prefix.address);

        rule->pool[0] = (struct nat_range){host, host};
        rule->pool_count = rule->pool_size = 1;
    }
    if (out && rule->target != NAT_TO_NONE && !rule->endpoint_dependent)
        add_mapping_addresses(rule, out->vrf);
}

static void fill_destination(const struct destination_config *config,
                             struct nat_destination_rule *rule) {
    const struct interface *in = interface_by_name(config->in);

    *rule = config->rule;
    rule->in = in ? in->id : 0;
    if (rule->destination.count > 0 || !in)
        return;
    for (unsigned i = 0; i < in->address_count && rule->destination.count < NAT_LIST_MAX; i++) {
        const struct ip_address *address = &in->addresses[i].prefix.address;

        if (address->family == AF_INET)
            rule->destination.list[rule->destination.count++] =
                (struct nat_prefix){.address = ip4_host_order(address), .mask = UINT32_MAX};
    }
}

/* The interface in whose prefix the outside address is. */
static const struct interface *outside_interface(const struct static_config *config) {
    if (config->interface[0])
        return interface_by_name(config->interface);
    for (const struct interface *i = interface_next(NULL); i; i = interface_next(i)) {
        if (i->vrf == VRF_DEFAULT && link_connected(i, &config->outside))
            return i;
    }
    return NULL;
}

static void fill_static(const struct static_config *config, struct nat_static_rule *rule) {
    const struct interface *interface = outside_interface(config);

    memcpy(&rule->outside, config->outside.bytes, 4);
    memcpy(&rule->inside, config->inside.bytes, 4);
    rule->interface = interface ? interface->id : 0;
    rule->vrf = interface ? interface->vrf : VRF_DEFAULT;
}

static int by_outside(const void *a, const void *b) {
    uint32_t left = ((const struct nat_static_rule *)a)->outside,
             right = ((const struct nat_static_rule *)b)->outside;

    return (left > right) - (left < right);
}

static int by_inside(const void *a, const void *b) {
    uint32_t left = ((const struct nat_static_rule *)a)->inside,
             right = ((const struct nat_static_rule *)b)->inside;

    return (left > right) - (left < right);
}

static int by_first(const void *a, const void *b) {
    uint32_t left = ((const struct nat_range *)a)->first,
             right = ((const struct nat_range *)b)->first;

    return (left > right) - (left < right);
}

static bool is_interface_address(uint32_t host) {
    uint32_t network = rte_cpu_to_be_32(host);
    struct ip_address address = ip4_address(&network);

    for (const struct interface *i = interface_next(NULL); i; i = interface_next(i)) {
        if (link_own(i, &address))
            return true;
    }
    return false;
}

/* Adds the range without the addresses that interfaces have. */
static void add_pool(struct nat_rules *rules, struct nat_range range) {
    if (range.last - range.first < NAT_ADDRESSES_MAX) {
        for (uint32_t host = range.first; host <= range.last && host >= range.first; host++) {
            if (!is_interface_address(host))
                continue;
            if (host > range.first)
                add_pool(rules, (struct nat_range){range.first, host - 1});
            if (host == range.last)
                return;
            range.first = host + 1;
        }
    }
    rules->pools = realloc(rules->pools, (rules->pool_count + 1) * sizeof(rules->pools[0]));
    if (!rules->pools)
        abort();
    rules->pools[rules->pool_count++] = range;
}

/* Sorted and joined, for the search; returns how many are left. */
static unsigned finish_ranges(struct nat_range *ranges, unsigned count) {
    unsigned kept = 0;

    if (count == 0)
        return 0;
    qsort(ranges, count, sizeof(ranges[0]), by_first);
    for (unsigned i = 1; i < count; i++) {
        if (ranges[i].first <= ranges[kept].last + (uint64_t)1)
            ranges[kept].last = RTE_MAX(ranges[kept].last, ranges[i].last);
        else
            ranges[++kept] = ranges[i];
    }
    return kept + 1;
}

/* After a change of rules mappings of the old ones may live on for a while; nobody new comes to
 * them. */
static void collect_mapped(struct nat_rules *rules) {
    rules->mapped =
        allocate((size_t)rules->source_count * NAT_RANGES_MAX, sizeof(rules->mapped[0]));
    for (unsigned i = 0; i < rules->source_count; i++) {
        const struct nat_source_rule *rule = &rules->sources[i];

        for (unsigned r = 0; !rule->endpoint_dependent && r < rule->pool_count; r++)
            rules->mapped[rules->mapped_count++] = rule->pool[r];
    }
    rules->mapped_count = finish_ranges(rules->mapped, rules->mapped_count);
    for (unsigned i = 0; i < rules->source_count; i++) {
        struct nat_source_rule *rule = &rules->sources[i];

        for (unsigned r = 0; r < rule->pool_count; r++) {
            for (unsigned m = 0; m < rules->mapped_count; m++)
                rule->shares_mapped |= rule->pool[r].first <= rules->mapped[m].last &&
                                       rule->pool[r].last >= rules->mapped[m].first;
        }
    }
}

/* Single addresses on the link are the router's then; a rule for a whole network, or for addresses
 * behind another router, only takes what it matches. */
static void collect_forwarded(struct nat_rules *rules, const struct nat_destination_rule *rule) {
    const struct interface *in = rule->in ? interface_by_id(rule->in) : NULL;

    for (unsigned i = 0; in && i < rule->destination.count; i++) {
        uint32_t host = rule->destination.list[i].address, network = rte_cpu_to_be_32(host);
        struct ip_address address = ip4_address(&network);

        if (rule->destination.list[i].mask == UINT32_MAX && link_connected(in, &address))
            add_pool(rules, (struct nat_range){host, host});
    }
}

static void collect_pools(struct nat_rules *rules) {
    for (unsigned i = 0; i < rules->source_count; i++) {
        const struct nat_source_rule *rule = &rules->sources[i];

        for (unsigned r = 0; rule->target == NAT_TO_POOL && r < rule->pool_count; r++)
            add_pool(rules, rule->pool[r]);
    }
    for (unsigned i = 0; i < rules->destination_count; i++)
        collect_forwarded(rules, &rules->destinations[i]);
    for (unsigned i = 0; i < rules->static_count; i++) {
        uint32_t host = rte_be_to_cpu_32(rules->by_outside[i].outside);

        add_pool(rules, (struct nat_range){host, host});
    }
    rules->pool_count = finish_ranges(rules->pools, rules->pool_count);
    collect_mapped(rules);
}

static struct nat_rules *make_rules(const struct nat_config *config) {
    struct nat_rules *rules = allocate(1, sizeof(*rules));
    size_t statics = config->static_count * sizeof(rules->by_outside[0]);

    nat_mapping_begin_addresses();
    rules->source_count = config->source_count;
    rules->destination_count = config->destination_count;
    rules->static_count = config->static_count;
    rules->sources = allocate(config->source_count, sizeof(rules->sources[0]));
    rules->destinations = allocate(config->destination_count, sizeof(rules->destinations[0]));
    rules->by_outside = allocate(config->static_count, sizeof(rules->by_outside[0]));
    rules->by_inside = allocate(config->static_count, sizeof(rules->by_inside[0]));
    for (unsigned i = 0; i < config->source_count; i++)
        fill_source(&config->sources[i], &rules->sources[i]);
    nat_mapping_end_addresses();
    for (unsigned i = 0; i < config->destination_count; i++)
        fill_destination(&config->destinations[i], &rules->destinations[i]);
    for (unsigned i = 0; i < config->static_count; i++)
        fill_static(&config->statics[i], &rules->by_outside[i]);
    memcpy(rules->by_inside, rules->by_outside, statics);
    qsort(rules->by_outside, rules->static_count, sizeof(rules->by_outside[0]), by_outside);
    qsort(rules->by_inside, rules->static_count, sizeof(rules->by_inside[0]), by_inside);
    collect_pools(rules);
    return rules;
}

static void free_retired(void *owner, void *memory, size_t size) {
    (void)owner;
    (void)size;
    nat_rules_free(memory);
}

/* --- live sessions --- */

static struct event_timer review_timer;
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

/* Does a rule give this source still? The first that matches decides; of a hairpin it is not known
 * any more which outside interface it turned round at. */
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
    if (!hairpin) {
        rule = nat_match_source(rules, &packet);
        return rule && rule_gives(rule, &packet, outside);
    }
    for (unsigned i = 0; i < rules->source_count; i++) {
        packet.out = rules->sources[i].out;
        packet.destination = key->destination;
        if (rule_gives(&rules->sources[i], &packet, outside))
            return true;
        packet.destination = answers->source; /* a port forward to where sources are translated */
        if (packet.out == session->out_interface &&
            rule_gives(&rules->sources[i], &packet, outside))
            return true;
    }
    /* Without a rule a hairpin has the address that its packets were sent to. */
    return answers->destination == key->destination && is_interface_address(outside);
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
                                .in = session->in_interface};
    const struct nat_destination_rule *rule;
    uint32_t address;
    uint16_t port;

    if (fixed)
        return fixed->inside == answers->source;
    rule = nat_match_destination(rules, &packet);
    if (rule) {
        nat_destination_of(rule, &packet, &address, &port);
        return address == answers->source && port == answers->source_port;
    }
    if (session->mapping == MAPPING_NONE)
        return false;
    return forward->flags & FLOW_SOURCE || mapping_stands(rules, session, forward);
}

static bool review(uint32_t number, const struct session *session, void *context) {
    const struct nat_rules *rules = context;
    const struct flow *forward = &session_flows[number * 2];

    if (!(forward->flags & FLOW_IPV6) && !(session->flags & SESSION_FROM_ROUTER) &&
        ((forward->flags & FLOW_SOURCE && !source_stands(rules, session, forward)) ||
         (forward->flags & FLOW_DESTINATION && !destination_stands(rules, session, forward))))
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

static void review_live(void) {
    review_cursor = 0;
    event_timer_start(&review_timer, 0);
}

/* --- in force --- */

static void publish(void) {
    struct nat_rules *new = nat_wanted() ? make_rules(current) : NULL;
    struct nat_rules *old = (struct nat_rules *)(uintptr_t)atomic_load(&nat_rules_published);

    if (!new)
        session_translate(false);
    if (new || !old)
        atomic_store_explicit(&nat_rules_published, new, memory_order_release);
    if (new)
        session_translate(true);
    /* Without NAT the last rules stay until no worker looks at them: see release_nat(). */
    if (old && new)
        rcu_retire(NULL, free_retired, NULL, old, 0);
    review_live();
}

static struct event_timer publish_timer;

static void publish_later(struct event_timer *timer) {
    (void)timer;
    publish();
}

/* Several addresses may change at once. */
static void interfaces_changed(void) {
    if (nat_wanted() && !event_timer_armed(&publish_timer))
        event_timer_start(&publish_timer, 0);
}

static void interface_changed(struct interface *interface) {
    (void)interface;
    interfaces_changed();
}

static void address_changed(struct interface *interface, const struct interface_address *address) {
    (void)interface;
    (void)address;
    interfaces_changed();
}

/* Pools and static outside addresses that lie in a prefix of the interface (RFC 1027). */
static bool answers_for(const struct interface *interface, const struct ip_address *address) {
    const struct nat_rules *rules = atomic_load(&nat_rules_published);
    uint32_t network;

    memcpy(&network, address->bytes, sizeof(network));
    return nat_wanted() && rules && address->family == AF_INET &&
           nat_is_pool_address(rules, network) && link_connected(interface, address);
}

static int init_nat(void) {
    static struct interface_listener listener = {
        .added = interface_changed,
        .removed = interface_changed,
        .address_added = address_changed,
        .address_removed = address_changed,
        .address_changed = address_changed,
    };

    publish_timer.expired = publish_later;
    review_timer.expired = review_some;
    arp_answers_for = answers_for;
    session_set_translator(&nat_translator);
    session_want(nat_wanted);
    session_on_look_again(review_live);
    interface_listen(&listener);
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
    return 0;
}

static void commit_nat(const struct config *old, const struct config *new) {
    (void)old;
    current = config_value(new, &nat_section);
    publish();
}

/* Sessions that were translated keep their mappings until they end. */
static void release_nat(const struct config *old, const struct config *new) {
    struct nat_rules *rules = (struct nat_rules *)(uintptr_t)atomic_load(&nat_rules_published);

    (void)old;
    (void)new;
    if (!nat_wanted() && rules) {
        atomic_store(&nat_rules_published, NULL);
        nat_rules_free(rules);
    }
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
