/*
 * The section "firewall" of router.json: address sets, rules, default policies.
 *
 * Lists grow by multiplication when rules are compiled, so a small document can ask for a very
 * large classifier: the number of entries is counted while decoding, and nothing is kept of rules
 * past the bound.
 *
 * A configuration that says the same about the firewall as the one before keeps the ruleset, so
 * that an apply that is about something else costs nothing here.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rcu.h"
#include "core/section.h"
#include "core/worker.h"
#include "firewall/firewall_internal.h"
#include "interface/interface.h"
#include "session/session.h"
#include "json/decode.h"

const struct firewall_ruleset *_Atomic firewall_ruleset_published;

struct firewall_config {
    struct firewall_rules rules;
    char *text; /* the section as canonical JSON, to tell whether two are the same */
};

static struct config_section firewall_section;

/* The control side's own handles on what is published, and on what prepare() made. */
static struct firewall_ruleset *current, *prepared;
static bool rebuilt; /* prepare() found that the ruleset has to change */

bool firewall_wanted(void) {
    return current != NULL;
}

/* Ends the program when there is no memory, like the other keepers of the configuration. */
static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count > 0 ? count : 1, size);

    if (!memory) {
        log_error("firewall", "out of memory");
        abort();
    }
    return memory;
}

/* --- lists: one value, or an array of them --- */

struct list {
    const struct decode *d;
    size_t count;
    bool is_array;
};

/* False with a problem for an empty array, and for one that could never be used. */
static bool list_of(const struct decode *d, struct list *out) {
    *out = (struct list){.d = d, .count = 1};
    if (!json_is_array(d->value))
        return true;
    out->is_array = true;
    out->count = json_array_size(d->value);
    if (out->count == 0)
        decode_problem(d, "expected at least one element, found none");
    else if (out->count > FIREWALL_ENTRIES_MAX)
        decode_problem(d, "expected at most %u elements, found %zu", (unsigned)FIREWALL_ENTRIES_MAX,
                       out->count);
    return out->count > 0 && out->count <= FIREWALL_ENTRIES_MAX;
}

static struct decode list_element(const struct list *list, size_t i) {
    return list->is_array ? decode_element(list->d, i) : *list->d;
}

/* Decodes a list of ranges; each element may give two, for the two kinds of ICMP. */
static bool decode_ranges(const struct decode *d, struct firewall_ranges *out,
                          bool (*decode_one)(const struct decode *d,
                                             struct firewall_range *range)) {
    struct list list;
    bool good = true;

    if (!list_of(d, &list))
        return false;
    out->list = allocate(list.count, sizeof(*out->list));
    for (size_t i = 0; i < list.count; i++) {
        struct decode element = list_element(&list, i);

        if (decode_one(&element, &out->list[out->count]))
            out->count++;
        else
            good = false;
    }
    out->count = firewall_ranges_join(out->list, out->count);
    return good && out->count > 0;
}

/* A decimal number from 0 to max that ends at `end`. */
static bool number(const char *text, const char *end, unsigned max, uint16_t *out) {
    unsigned value = 0;

    if (text == end || end - text > 5)
        return false;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (unsigned)(*text - '0');
    }
    *out = (uint16_t)value;
    return value <= max;
}

/* --- addresses --- */

struct address_set {
    const char *name;
    bool good;
    struct firewall_prefixes prefixes;
};

struct address_sets {
    size_t count;
    struct address_set *list; /* sorted by name */
};

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct address_set *)a)->name, ((const struct address_set *)b)->name);
}

/* A prefix, or an address for that address alone. */
static bool decode_address_or_prefix(const struct decode *d, struct ip_prefix *out) {
    const char *text = json_string_value(d->value);

    if (!text || strchr(text, '/'))
        return decode_prefix(d, out);
    if (!decode_address(d, &out->address))
        return false;
    out->length = ip_family_bits(out->address.family);
    return true;
}

static bool decode_set(const struct decode *d, struct address_set *out) {
    bool good = decode_name(d, NULL);
    struct list list;

    if (!decode_is_array(d) || !list_of(d, &list))
        return false;
    out->prefixes.list = allocate(list.count, sizeof(*out->prefixes.list));
    for (size_t i = 0; i < list.count; i++) {
        struct decode element = list_element(&list, i);

        if (decode_address_or_prefix(&element, &out->prefixes.list[out->prefixes.count]))
            out->prefixes.count++;
        else
            good = false;
    }
    return good;
}

static void decode_sets(const struct decode *d, struct address_sets *out) {
    struct decode member, child;

    if (!decode_member(d, "address_sets", &member) || !decode_is_object(&member))
        return;
    out->list = allocate(json_object_size(member.value), sizeof(*out->list));
    decode_foreach_member (&member, child) {
        struct address_set *set = &out->list[out->count++];

        set->name = child.key;
        set->good = decode_set(&child, set);
    }
    qsort(out->list, out->count, sizeof(*out->list), by_name);
}

static void free_sets(struct address_sets *sets) {
    for (size_t i = 0; i < sets->count; i++)
        free(sets->list[i].prefixes.list);
    free(sets->list);
}

static const struct address_set *find_set(const struct address_sets *sets, const char *name) {
    const struct address_set wanted = {.name = name};

    return sets->count == 0
               ? NULL
               : bsearch(&wanted, sets->list, sets->count, sizeof(*sets->list), by_name);
}

/* Adds what one element of the list stands for. */
static bool add_addresses(const struct decode *d, const struct address_sets *sets,
                          struct firewall_prefixes *out, size_t *room) {
    const char *text = json_string_value(d->value);
    const struct address_set *set = NULL;
    struct ip_prefix prefix;
    const struct ip_prefix *from = &prefix;
    size_t count = 1;

    if (text && text[0] == '@') {
        set = find_set(sets, text + 1);
        if (!set)
            decode_problem(d, "there is no address set of this name");
        if (!set || !set->good)
            return false;
        from = set->prefixes.list;
        count = set->prefixes.count;
    } else if (!decode_address_or_prefix(d, &prefix)) {
        return false;
    }
    if (out->count + count > FIREWALL_ENTRIES_MAX) {
        decode_problem(d, "the list has more than %u addresses with this one",
                       (unsigned)FIREWALL_ENTRIES_MAX);
        return false;
    }
    if (out->count + count > *room) {
        *room = 2 * *room + count;
        out->list = realloc(out->list, *room * sizeof(*out->list));
        if (!out->list)
            abort();
    }
    memcpy(out->list + out->count, from, count * sizeof(*from));
    out->count += (unsigned)count;
    return true;
}

static bool decode_addresses(const struct decode *d, const char *key,
                             const struct address_sets *sets, struct firewall_prefixes *out) {
    struct decode member;
    struct list list;
    size_t room = 0;
    bool good = true;

    if (!decode_member(d, key, &member))
        return true;
    if (!list_of(&member, &list))
        return false;
    for (size_t i = 0; i < list.count && out->count < FIREWALL_ENTRIES_MAX; i++) {
        struct decode element = list_element(&list, i);

        good &= add_addresses(&element, sets, out, &room);
    }
    return good;
}

/* --- interfaces --- */

static bool decode_names(const struct decode *d, const char *key, struct firewall_names *out) {
    struct decode member;
    struct list list;
    bool good = true;

    if (!decode_member(d, key, &member))
        return true;
    if (!list_of(&member, &list))
        return false;
    if (list.count >= INTERFACES_MAX) {
        decode_problem(&member, "expected at most %u interfaces, found %zu", INTERFACES_MAX - 1u,
                       list.count);
        return false;
    }
    out->is_array = list.is_array;
    out->list = allocate(list.count, sizeof(*out->list));
    for (size_t i = 0; i < list.count; i++) {
        struct decode element = list_element(&list, i);
        const char *name;

        if (decode_string(&element, &name) && decode_name(&element, name))
            snprintf(out->list[out->count++], sizeof(*out->list), "%s", name);
        else
            good = false;
    }
    return good;
}

/* --- protocols and what belongs to them --- */

static bool decode_one_protocol(const struct decode *d, struct firewall_range *out) {
    uint8_t protocol;

    if (!decode_protocol(d, &protocol))
        return false;
    *out = (struct firewall_range){protocol, protocol};
    return true;
}

/* Not joined to ranges, since a range of protocols is two families' at once. */
static bool decode_protocols(const struct decode *d, struct firewall_ranges *out) {
    bool seen[UINT8_MAX + 1] = {false}, good = true;
    struct list list;

    if (!list_of(d, &list))
        return false;
    out->list = allocate(RTE_MIN(list.count, RTE_DIM(seen)), sizeof(*out->list));
    for (size_t i = 0; i < list.count; i++) {
        struct decode element = list_element(&list, i);
        struct firewall_range protocol;

        if (!decode_one_protocol(&element, &protocol)) {
            good = false;
        } else if (!seen[protocol.first]) {
            seen[protocol.first] = true;
            out->list[out->count++] = protocol;
        }
    }
    return good;
}

/* Is the list not empty, and all of it among these? */
static bool only_protocols(const struct firewall_ranges *list, const uint8_t *wanted,
                           size_t count) {
    for (unsigned i = 0; i < list->count; i++) {
        if (!memchr(wanted, list->list[i].first, count))
            return false;
    }
    return list->count > 0;
}

static bool decode_port(const struct decode *d, struct firewall_range *out) {
    const char *text = json_string_value(d->value), *dash = text ? strchr(text, '-') : NULL;
    uint16_t value = 0;

    if (json_is_integer(d->value)) {
        if (!decode_u16(d, 0, UINT16_MAX, &value))
            return false;
        *out = (struct firewall_range){value, value};
        return true;
    }
    if (!dash || !number(text, dash, UINT16_MAX, &out->first) ||
        !number(dash + 1, dash + strlen(dash), UINT16_MAX, &out->last)) {
        decode_problem(d, "expected a port such as 80 or a range such as \"1000-2000\", from 0 to "
                          "65535");
        return false;
    }
    if (out->first > out->last) {
        decode_problem(d, "the range is reversed; did you mean \"%u-%u\"?", out->last, out->first);
        return false;
    }
    return true;
}

static bool decode_port_ranges(const struct decode *d, const char *key,
                         const struct firewall_ranges *of_protocols, bool protocols_good,
                         struct firewall_ranges *out) {
    static const uint8_t with_ports[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP};
    struct decode member;

    if (!decode_member(d, key, &member))
        return true;
    if (protocols_good && !only_protocols(of_protocols, with_ports, RTE_DIM(with_ports))) {
        decode_problem(&member,
                       "ports need a `protocol` that has them: \"tcp\", \"udp\", \"sctp\"");
        return false;
    }
    return decode_ranges(&member, out, decode_port);
}

/* Types by name: ICMP (RFC 792), ICMPv6 (RFC 4443); type << 8 | code. */
static const struct {
    const char *name;
    struct firewall_range icmp, icmpv6;
} icmp_names[] = {
    {"echo_request", {8 << 8, 8 << 8 | 255}, {128 << 8, 128 << 8 | 255}},
    {"echo_reply", {0, 255}, {129 << 8, 129 << 8 | 255}},
    {"destination_unreachable", {3 << 8, 3 << 8 | 255}, {1 << 8, 1 << 8 | 255}},
    {"time_exceeded", {11 << 8, 11 << 8 | 255}, {3 << 8, 3 << 8 | 255}},
    {"packet_too_big", {3 << 8 | 4, 3 << 8 | 4}, {2 << 8, 2 << 8 | 255}},
};

static bool decode_icmp_type(const struct decode *d, struct firewall_range *icmp,
                             struct firewall_range *icmpv6) {
    const char *text = json_string_value(d->value), *slash = text ? strchr(text, '/') : NULL;
    uint16_t type = 0, code = 0;

    for (size_t i = 0; text && i < RTE_DIM(icmp_names); i++) {
        if (strcmp(text, icmp_names[i].name) == 0) {
            *icmp = icmp_names[i].icmp;
            *icmpv6 = icmp_names[i].icmpv6;
            return true;
        }
    }
    if (json_is_integer(d->value)) {
        if (!decode_u16(d, 0, UINT8_MAX, &type))
            return false;
        *icmp = (struct firewall_range){(uint16_t)(type << 8), (uint16_t)(type << 8 | UINT8_MAX)};
    } else if (slash && number(text, slash, UINT8_MAX, &type) &&
               number(slash + 1, slash + strlen(slash), UINT8_MAX, &code)) {
        icmp->first = icmp->last = (uint16_t)(type << 8 | code);
    } else {
        decode_problem(d, "expected a type such as 8, a type and code such as \"3/4\", or one of "
                          "\"echo_request\", \"echo_reply\", \"destination_unreachable\", "
                          "\"time_exceeded\", \"packet_too_big\"");
        return false;
    }
    *icmpv6 = *icmp;
    return true;
}

static bool decode_icmp(const struct decode *d, bool protocols_good, struct firewall_rule *rule) {
    static const uint8_t kinds[] = {IPPROTO_ICMP, IPPROTO_ICMPV6};
    struct decode member;
    struct list list;
    bool good = true;

    if (!decode_member(d, "icmp_type", &member))
        return true;
    if (protocols_good && !only_protocols(&rule->protocols, kinds, RTE_DIM(kinds))) {
        decode_problem(&member, "types need the `protocol` \"icmp\" or \"icmpv6\"");
        return false;
    }
    if (!list_of(&member, &list))
        return false;
    rule->icmp.list = allocate(list.count, sizeof(*rule->icmp.list));
    rule->icmpv6.list = allocate(list.count, sizeof(*rule->icmpv6.list));
    for (size_t i = 0; i < list.count; i++) {
        struct decode element = list_element(&list, i);

        if (decode_icmp_type(&element, &rule->icmp.list[rule->icmp.count],
                             &rule->icmpv6.list[rule->icmp.count]))
            rule->icmp.count++;
        else
            good = false;
    }
    rule->icmpv6.count = firewall_ranges_join(rule->icmpv6.list, rule->icmp.count);
    rule->icmp.count = firewall_ranges_join(rule->icmp.list, rule->icmp.count);
    return good;
}

/* "syn,!ack": flags by the bits of RFC 9293 section 3.1. */
static bool decode_flags(const struct decode *d, bool protocols_good, struct firewall_rule *rule) {
    static const char *const names[] = {"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"};
    static const uint8_t tcp[] = {IPPROTO_TCP};
    struct decode member;
    const char *text;

    if (!decode_member(d, "tcp_flags", &member))
        return true;
    if (protocols_good && !only_protocols(&rule->protocols, tcp, RTE_DIM(tcp))) {
        decode_problem(&member, "flags need the `protocol` \"tcp\"");
        return false;
    }
    if (!decode_string(&member, &text))
        return false;
    for (bool more = true; more;) {
        const bool clear = *text == '!';
        const size_t length = strcspn(text += clear, ",");
        unsigned flag = 0;

        while (flag < RTE_DIM(names) &&
               (strlen(names[flag]) != length || strncmp(names[flag], text, length) != 0))
            flag++;
        if (flag == RTE_DIM(names)) {
            decode_problem(&member,
                           "expected flags such as \"syn,!ack\" out of fin, syn, rst, psh, "
                           "ack, urg, ece, cwr");
            return false;
        }
        if (rule->tcp_flags_mask & 1u << flag) {
            decode_problem(&member, "the flag %s stands there twice", names[flag]);
            return false;
        }
        rule->tcp_flags_mask |= (uint8_t)(1u << flag);
        if (!clear)
            rule->tcp_flags |= (uint8_t)(1u << flag);
        more = text[length] == ',';
        text += length + more;
    }
    return true;
}

static bool decode_dscp(const struct decode *d, struct firewall_range *out) {
    uint16_t value = 0;

    if (!decode_u16(d, 0, 63, &value))
        return false;
    *out = (struct firewall_range){value, value};
    return true;
}

/* --- rules --- */

static bool decode_action(const struct decode *d, const char *key, enum firewall_action *out) {
    struct decode member;
    unsigned word = 0;

    if (!decode_member(d, key, &member))
        return true;
    if (!decode_word(&member, firewall_action_names, &word))
        return false;
    *out = (enum firewall_action)word;
    return true;
}

static bool decode_family(const struct decode *d, struct firewall_rule *rule) {
    static const char *const words[] = {"ipv4", "ipv6", NULL};
    struct decode member;
    unsigned word = 0;

    if (!decode_member(d, "family", &member))
        return true;
    if (!decode_word(&member, words, &word))
        return false;
    rule->family = word == 0 ? AF_INET : AF_INET6;
    return true;
}

static bool decode_direction(const struct decode *d, struct firewall_rule *rule) {
    struct decode member;
    bool to_router = false;

    if (!decode_member(d, "to_router", &member))
        return true;
    if (!decode_bool(&member, &to_router))
        return false;
    rule->direction = to_router ? FIREWALL_TO_ROUTER : FIREWALL_FORWARDED;
    if (to_router && decode_member(d, "out", &member)) {
        decode_problem(&member, "what is for the router leaves by no interface: `out` and "
                                "`to_router` exclude each other");
        return false;
    }
    return true;
}

static bool decode_vrf(const struct decode *d, struct firewall_rule *rule) {
    const char *name = NULL;
    struct decode member;

    if (!decode_member(d, "vrf", &member))
        return true;
    if (!decode_string(&member, &name) || !decode_name(&member, name))
        return false;
    snprintf(rule->vrf, sizeof(rule->vrf), "%s", name);
    return true;
}

static bool has_family(const struct firewall_prefixes *prefixes, uint8_t family) {
    bool found = prefixes->count == 0;

    for (unsigned i = 0; i < prefixes->count && !found; i++)
        found = prefixes->list[i].address.family == family;
    return found;
}

/* Says where the rule contradicts itself, so that it could never match. */
static bool check_family(const struct decode *d, const struct firewall_rule *rule) {
    static const struct {
        uint8_t family, other_icmp;
        const char *name;
    } families[] = {{AF_INET, IPPROTO_ICMPV6, "IPv4"}, {AF_INET6, IPPROTO_ICMP, "IPv6"}};
    struct decode member;

    if (firewall_rule_entries(rule, AF_INET) + firewall_rule_entries(rule, AF_INET6) > 0)
        return true;
    for (unsigned i = 0; i < RTE_DIM(families); i++) {
        const uint8_t family = families[i].family;

        if (rule->family != family)
            continue;
        if (!has_family(&rule->source, family) && decode_member(d, "source", &member))
            decode_problem(&member, "the rule's `family` is %s, but no address here is",
                           families[i].name);
        else if (!has_family(&rule->destination, family) &&
                 decode_member(d, "destination", &member))
            decode_problem(&member, "the rule's `family` is %s, but no address here is",
                           families[i].name);
        else if (decode_member(d, "protocol", &member))
            decode_problem(&member, "the rule's `family` is %s, which has no such protocol",
                           families[i].name);
        return false;
    }
    for (unsigned i = 0; i < RTE_DIM(families); i++) {
        /* The addresses alone leave one family at most: is it the protocol that excludes it? */
        if (has_family(&rule->source, families[i].family) &&
            has_family(&rule->destination, families[i].family) &&
            decode_member(d, "protocol", &member)) {
            decode_problem(&member, "the rule's addresses are %s, which has no such protocol",
                           families[i].name);
            return false;
        }
    }
    decode_problem(d, "no address in `source` is of the family of one in `destination`");
    return false;
}

static bool decode_name_of(const struct decode *d, struct firewall_rule *rule) {
    const char *name = NULL;
    struct decode member;

    if (!decode_required(d, "name", &member) || !decode_string(&member, &name) ||
        !decode_name(&member, name))
        return false;
    if (strcmp(name, "default") == 0 || strcmp(name, "router_default") == 0) {
        decode_problem(&member, "`%s` is not for a rule: it stands for what no rule matches", name);
        return false;
    }
    snprintf(rule->name, sizeof(rule->name), "%s", name);
    return true;
}

static bool decode_rule(const struct decode *d, const struct address_sets *sets,
                        struct firewall_rule *rule) {
    static const char *const keys[] = {
        "name",      "enabled",   "in",          "out",      "to_router",   "vrf",
        "family",    "source",    "destination", "protocol", "source_port", "destination_port",
        "icmp_type", "tcp_flags", "dscp",        "action",   "log",         "stateless",
        NULL};
    struct decode member;
    bool good, protocols_good = true;

    if (!decode_is_object(d))
        return false;
    decode_only_keys(d, keys);
    rule->enabled = true;
    good = decode_name_of(d, rule);
    good &= decode_member_bool(d, "enabled", &rule->enabled);
    good &= decode_member_bool(d, "log", &rule->log);
    good &= decode_member_bool(d, "stateless", &rule->stateless);
    good &= decode_required(d, "action", &member) && decode_action(d, "action", &rule->action);
    good &= decode_names(d, "in", &rule->in);
    good &= decode_names(d, "out", &rule->out);
    if (rule->out.count > 0)
        rule->direction = FIREWALL_FORWARDED;
    good &= decode_direction(d, rule);
    good &= decode_vrf(d, rule);
    good &= decode_family(d, rule);
    good &= decode_addresses(d, "source", sets, &rule->source);
    good &= decode_addresses(d, "destination", sets, &rule->destination);
    if (decode_member(d, "protocol", &member))
        protocols_good = decode_protocols(&member, &rule->protocols);
    good &= protocols_good;
    good &= decode_port_ranges(d, "source_port", &rule->protocols, protocols_good, &rule->source_ports);
    good &= decode_port_ranges(d, "destination_port", &rule->protocols, protocols_good,
                         &rule->destination_ports);
    good &= decode_icmp(d, protocols_good, rule);
    good &= decode_flags(d, protocols_good, rule);
    if (decode_member(d, "dscp", &member))
        good &= decode_ranges(&member, &rule->dscp, decode_dscp);
    return good && check_family(d, rule);
}

struct rule_name {
    const char *name;
    unsigned index;
};

static int by_rule_name(const void *a, const void *b) {
    const struct rule_name *left = a, *right = b;
    int order = strcmp(left->name, right->name);

    return order != 0 ? order : (left->index > right->index) - (left->index < right->index);
}

/* `index` of each rule in the array; rules with mistakes are left out of `rules`. */
static void find_duplicates(const struct decode *d, const struct firewall_rules *rules,
                            const unsigned *index) {
    struct rule_name *names = allocate(rules->count, sizeof(*names));
    unsigned first = 0;

    for (unsigned i = 0; i < rules->count; i++)
        names[i] = (struct rule_name){rules->list[i].name, index[i]};
    qsort(names, rules->count, sizeof(*names), by_rule_name);
    for (unsigned i = 1; i < rules->count; i++) {
        if (strcmp(names[i].name, names[first].name) != 0) {
            first = i;
            continue;
        }

        struct decode at = decode_element(d, names[i].index), member;

        decode_member(&at, "name", &member);
        decode_problem(&member, "the rule at index %u has this name already", names[first].index);
    }
    free(names);
}

static void decode_rules(const struct decode *d, const struct address_sets *sets,
                         struct firewall_rules *rules) {
    const size_t size = json_array_size(d->value);
    unsigned *index;
    uint64_t entries = 0;

    if (size > FIREWALL_ENTRIES_MAX) {
        decode_problem(d, "expected at most %u rules, found %zu", (unsigned)FIREWALL_ENTRIES_MAX,
                       size);
        return;
    }
    rules->list = allocate(size, sizeof(*rules->list));
    index = allocate(size, sizeof(*index));
    for (size_t i = 0; i < size; i++) {
        struct firewall_rule *rule = &rules->list[rules->count];
        struct decode element = decode_element(d, i);

        if (!decode_rule(&element, sets, rule)) {
            firewall_rule_clear(rule);
            continue;
        }

        const uint64_t here =
            firewall_rule_entries(rule, AF_INET) + firewall_rule_entries(rule, AF_INET6);

        if (entries + here > FIREWALL_ENTRIES_MAX) {
            decode_problem(&element,
                           "with this rule there are more than %u entries; a rule has one for each "
                           "combination of the elements of its lists, and of both families",
                           (unsigned)FIREWALL_ENTRIES_MAX);
            firewall_rule_clear(rule);
            break;
        }
        entries += here;
        index[rules->count++] = (unsigned)i;
    }
    find_duplicates(d, rules, index);
    free(index);
}

/* --- the section --- */

static void firewall_config_free(void *value) {
    struct firewall_config *config = value;

    if (!config)
        return;
    firewall_rules_free(&config->rules);
    free(config->text);
    free(config);
}

static void *decode(struct decode *d) {
    static const char *const keys[] = {"default", "router_default", "address_sets", "rules", NULL};
    struct firewall_config *config;
    struct address_sets sets = {0};
    struct decode member;

    if (!d || !decode_is_object(d))
        return NULL;
    decode_only_keys(d, keys);
    config = allocate(1, sizeof(*config));
    config->rules.default_action = FIREWALL_DROP;
    decode_action(d, "default", &config->rules.default_action);
    config->rules.router_default_action = config->rules.default_action;
    decode_action(d, "router_default", &config->rules.router_default_action);
    decode_sets(d, &sets);
    if (decode_member(d, "rules", &member) && decode_is_array(&member))
        decode_rules(&member, &sets, &config->rules);
    free_sets(&sets);
    config->text = json_dumps(d->value, JSON_COMPACT | JSON_SORT_KEYS);
    return config;
}

static void check_names(const struct config *config, const struct firewall_names *names,
                        const char *key, const struct firewall_rule *rule, unsigned index,
                        bool in_vrf, struct problems *problems) {
    for (unsigned i = 0; i < names->count; i++) {
        const char *vrf = interface_configured_vrf(config, names->list[i]);
        char path[64];

        if (vrf && (!in_vrf || rule->vrf[0] == '\0' || strcmp(vrf, rule->vrf) == 0))
            continue;
        if (names->is_array)
            snprintf(path, sizeof(path), "$.firewall.rules[%u].%s[%u]", index, key, i);
        else
            snprintf(path, sizeof(path), "$.firewall.rules[%u].%s", index, key);
        if (!vrf)
            problems_add(problems, path, "interface `%s` is not configured", names->list[i]);
        else
            problems_add(problems, path, "interface `%s` is in VRF `%s`, not in `%s`",
                         names->list[i], vrf, rule->vrf);
    }
}

/* Only runs when decode() found nothing wrong: the list of rules is that of the document. */
static void check(const struct config *config, struct problems *problems) {
    const struct firewall_config *value = config_value(config, &firewall_section);

    for (unsigned i = 0; value && i < value->rules.count; i++) {
        const struct firewall_rule *rule = &value->rules.list[i];
        bool vrf_exists = rule->vrf[0] == '\0' || vrf_configured(config, rule->vrf);
        char path[64];

        if (!vrf_exists) {
            snprintf(path, sizeof(path), "$.firewall.rules[%u].vrf", i);
            problems_add(problems, path, "VRF `%s` does not exist", rule->vrf);
        }
        check_names(config, &rule->in, "in", rule, i, vrf_exists, problems);
        check_names(config, &rule->out, "out", rule, i, false, problems);
    }
}

static const char *vrf_of_interface(const void *config, const char *interface) {
    return interface_configured_vrf(config, interface);
}

static bool is_unchanged(const struct firewall_config *before, const struct firewall_config *after,
                         const struct firewall_slots *slots) {
    return current && before && after && before->text && after->text &&
           strcmp(before->text, after->text) == 0 && firewall_slots_equal(&current->slots, slots);
}

/* Makes `prepared`. */
static int make(const struct firewall_config *value, struct firewall_slots *slots) {
    int error = firewall_ruleset_make(&value->rules, slots, workers_count(), &prepared);

    if (error == 0)
        error = firewall_ruleset_succeed(prepared, current);
    if (error == 0) {
        /* Here, where it may fail; filled in by commit, when the interfaces have their ids. */
        prepared->interfaces = calloc(1, sizeof(*prepared->interfaces));
        error = prepared->interfaces ? 0 : -ENOMEM;
    }
    if (error != 0) {
        firewall_ruleset_free(prepared);
        prepared = NULL;
    }
    return error;
}

static int prepare(const struct config *old, const struct config *new, struct problems *problems) {
    const struct firewall_config *before = config_value(old, &firewall_section);
    const struct firewall_config *after = config_value(new, &firewall_section);
    struct firewall_slots slots;
    int error;

    prepared = NULL;
    rebuilt = true;
    if (!after)
        return 0;
    error = session_need(problems);
    if (error != 0)
        return error;
    error = firewall_slots_make(&slots, &after->rules, vrf_of_interface, new);
    if (error == 0 && is_unchanged(before, after, &slots)) {
        rebuilt = false;
        firewall_slots_clear(&slots);
        return 0;
    }
    if (error == 0)
        error = make(after, &slots);
    if (error != 0)
        problems_add(problems, "$.firewall", "the rules could not be compiled: %s",
                     error == -ENOMEM ? "there is not enough memory (see -m and huge pages)"
                                      : strerror(-error));
    return error;
}

static void abort_prepared(const struct config *old, const struct config *new) {
    (void)old;
    (void)new;
    firewall_ruleset_free(prepared);
    prepared = NULL;
}

/* --- which interface has which slot --- */

static void set_interface(struct firewall_interfaces *interfaces,
                          const struct firewall_ruleset *set, const struct interface *interface) {
    const char *vrf = vrf_name(interface->vrf);

    interfaces->slot[interface->id] =
        rte_cpu_to_be_16(firewall_slot_of(&set->slots, interface->name, vrf ? vrf : ""));
    memcpy(interfaces->name[interface->id], interface->name, sizeof(interface->name));
}

static void fill_interfaces(struct firewall_interfaces *interfaces,
                            const struct firewall_ruleset *set) {
    for (unsigned id = 0; id < INTERFACES_MAX; id++) {
        interfaces->slot[id] = RTE_BE16(FIREWALL_SLOT_OTHER);
        strcpy(interfaces->name[id], "-");
    }
    for (const struct interface *interface = interface_next(NULL); interface;
         interface = interface_next(interface))
        set_interface(interfaces, set, interface);
}

static struct firewall_interfaces *new_interfaces(const struct firewall_ruleset *set) {
    struct firewall_interfaces *interfaces = malloc(sizeof(*interfaces));

    if (interfaces)
        fill_interfaces(interfaces, set);
    else
        log_error("firewall", "out of memory: new interfaces are not known to the rules");
    return interfaces;
}

static void free_memory(void *owner, void *memory, size_t size) {
    (void)owner;
    (void)size;
    free(memory);
}

/* Ids have changed under a ruleset that stays. */
static void renew_interfaces(void) {
    const struct firewall_interfaces *before;
    struct firewall_interfaces *after;

    if (!current)
        return;
    after = new_interfaces(current);
    if (!after)
        return;
    before = current->interfaces;
    __atomic_store_n(&current->interfaces, after, __ATOMIC_RELEASE);
    rcu_retire(NULL, free_memory, NULL, (void *)(uintptr_t)before, sizeof(*before));
}

static void interface_added(struct interface *interface) {
    (void)interface;
    renew_interfaces();
}

static struct interface_listener listener = {.added = interface_added};

/* --- putting it to work --- */

static void free_ruleset(void *owner, void *memory, size_t size) {
    (void)owner;
    (void)size;
    firewall_ruleset_free(memory);
}

static void commit(const struct config *old, const struct config *new) {
    struct firewall_ruleset *before = current;

    (void)old;
    (void)new;
    if (!rebuilt) {
        renew_interfaces();
        return;
    }
    if (prepared)
        fill_interfaces((struct firewall_interfaces *)(uintptr_t)prepared->interfaces, prepared);
    current = prepared;
    prepared = NULL;
    __atomic_store_n((const struct firewall_ruleset **)(uintptr_t)&firewall_ruleset_published,
                     current, __ATOMIC_RELEASE);
    if (before)
        rcu_retire(NULL, free_ruleset, NULL, before, sizeof(*before));
}

/* Only now do workers open sessions by the new rules alone. */
static void release(const struct config *old, const struct config *new) {
    (void)old;
    (void)new;
    if (rebuilt)
        firewall_reevaluate();
}

static int init(void) {
    interface_listen(&listener);
    session_want(firewall_wanted);
    session_on_look_again(firewall_reevaluate);
    return 0;
}

static struct config_section firewall_section = {
    .name = "firewall",
    .after = (const char *const[]){"interfaces", "vrfs", "sessions", NULL},
    .init = init,
    .decode = decode,
    .check = check,
    .prepare = prepare,
    .abort = abort_prepared,
    .commit = commit,
    .release = release,
    .free = firewall_config_free,
};
CONFIG_SECTION(firewall_section)
