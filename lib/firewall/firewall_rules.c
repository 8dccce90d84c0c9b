/*
 * Rules into rte_acl contexts.
 *
 * Two choices decide about size and speed. The order of the fields: interfaces and addresses before
 * ports; with ports first, 10,000 rules of mixed prefixes and ports take 20 times as long to build
 * and ten times the memory. And the limit of memory that rte_acl is given: with a generous one it
 * makes a single trie, while "no limit" makes it keep tries small, and several of them, which are
 * 4 to 7 times slower to walk with 10,000 rules. Words that no rule of a context looks at are left
 * out of it.
 */
#include "firewall/firewall_rules.h"

#include <errno.h>
#include <netinet/in.h>
#include <rte_acl.h>
#include <rte_byteorder.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const firewall_action_names[] = {
    [FIREWALL_ACCEPT] = "accept",
    [FIREWALL_DROP] = "drop",
    [FIREWALL_REJECT] = "reject",
    NULL,
};

static const struct firewall_range any16 = {0, UINT16_MAX};

/* --- lists --- */

static int by_first(const void *a, const void *b) {
    const struct firewall_range *left = a, *right = b;

    return (left->first > right->first) - (left->first < right->first);
}

unsigned firewall_ranges_join(struct firewall_range *list, unsigned count) {
    unsigned kept = 0;

    if (count == 0)
        return 0;
    qsort(list, count, sizeof(*list), by_first);
    for (unsigned i = 1; i < count; i++) {
        if (list[i].first <= list[kept].last + 1u)
            list[kept].last = RTE_MAX(list[kept].last, list[i].last);
        else
            list[++kept] = list[i];
    }
    return kept + 1;
}

void firewall_rule_clear(struct firewall_rule *rule) {
    free(rule->in.list);
    free(rule->out.list);
    free(rule->source.list);
    free(rule->destination.list);
    free(rule->protocols.list);
    free(rule->source_ports.list);
    free(rule->destination_ports.list);
    free(rule->icmp.list);
    free(rule->icmpv6.list);
    free(rule->dscp.list);
    memset(rule, 0, sizeof(*rule));
}

void firewall_rules_free(struct firewall_rules *rules) {
    for (unsigned i = 0; i < rules->count; i++)
        firewall_rule_clear(&rules->list[i]);
    free(rules->list);
    *rules = (struct firewall_rules){0};
}

/* Prefixes of the family; 1 where any address will do. */
static uint64_t prefixes_of(const struct firewall_prefixes *prefixes, uint8_t family) {
    uint64_t count = 0;

    if (prefixes->count == 0)
        return 1;
    for (unsigned i = 0; i < prefixes->count; i++)
        count += prefixes->list[i].address.family == family;
    return count;
}

/* ICMP belongs to IPv4 and ICMPv6 to IPv6, whatever the family of the rule. */
static bool protocol_in_family(uint16_t protocol, uint8_t family) {
    return protocol != (family == AF_INET ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

static uint64_t protocols_of(const struct firewall_ranges *protocols, uint8_t family) {
    uint64_t count = 0;

    if (protocols->count == 0)
        return 1;
    for (unsigned i = 0; i < protocols->count; i++)
        count += protocol_in_family(protocols->list[i].first, family);
    return count;
}

static const struct firewall_ranges *icmp_of(const struct firewall_rule *rule, uint8_t family) {
    return family == AF_INET ? &rule->icmp : &rule->icmpv6;
}

uint64_t firewall_rule_entries(const struct firewall_rule *rule, uint8_t family) {
    const uint64_t factors[] = {
        prefixes_of(&rule->source, family),
        prefixes_of(&rule->destination, family),
        protocols_of(&rule->protocols, family),
        RTE_MAX(rule->source_ports.count, 1u),
        RTE_MAX(rule->destination_ports.count, 1u),
        RTE_MAX(icmp_of(rule, family)->count, 1u),
        RTE_MAX(rule->dscp.count, 1u),
        RTE_MAX(rule->in.count, 1u),
        RTE_MAX(rule->out.count, 1u),
    };
    uint64_t product = 1;

    if (rule->family != 0 && rule->family != family)
        return 0;
    for (unsigned i = 0; i < RTE_DIM(factors); i++) {
        if (factors[i] == 0)
            return 0;
        product = RTE_MIN(product * RTE_MIN(factors[i], UINT64_C(1) << 31), UINT64_C(1) << 31);
    }
    return product;
}

/* --- slots --- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct firewall_named *)a)->name,
                  ((const struct firewall_named *)b)->name);
}

static int by_vrf(const void *a, const void *b) {
    const struct firewall_named *left = a, *right = b;
    int order = strcmp(left->vrf, right->vrf);

    return order != 0 ? order : strcmp(left->name, right->name);
}

static unsigned unique(struct firewall_named *list, unsigned count) {
    unsigned kept = 0;

    if (count == 0)
        return 0;
    qsort(list, count, sizeof(*list), by_name);
    for (unsigned i = 1; i < count; i++) {
        if (by_name(&list[i], &list[kept]) != 0)
            list[++kept] = list[i];
    }
    return kept + 1;
}

static const struct firewall_named *find(const struct firewall_named *list, unsigned count,
                                         const char *name) {
    struct firewall_named wanted;

    if (count == 0)
        return NULL;
    snprintf(wanted.name, sizeof(wanted.name), "%s", name);
    return bsearch(&wanted, list, count, sizeof(*list), by_name);
}

static void collect(const struct firewall_names *names, struct firewall_named *list,
                    unsigned *count) {
    for (unsigned i = 0; i < names->count; i++)
        memcpy(list[(*count)++].name, names->list[i], sizeof(names->list[i]));
}

/* VRFs side by side; in each, first the slot for the interfaces that no rule names. */
static void number(struct firewall_slots *slots) {
    uint16_t next = FIREWALL_SLOT_FIRST;
    unsigned i = 0;

    qsort(slots->interfaces, slots->interface_count, sizeof(*slots->interfaces), by_vrf);
    for (unsigned v = 0; v < slots->vrf_count; v++) {
        struct firewall_named *vrf = &slots->vrfs[v];

        vrf->slot = next++;
        while (i < slots->interface_count && strcmp(slots->interfaces[i].vrf, vrf->name) == 0)
            slots->interfaces[i++].slot = next++;
        vrf->last = (uint16_t)(next - 1);
    }
    qsort(slots->interfaces, slots->interface_count, sizeof(*slots->interfaces), by_name);
}

int firewall_slots_make(struct firewall_slots *slots, const struct firewall_rules *rules,
                        const char *(*vrf_of)(const void *context, const char *interface),
                        const void *context) {
    size_t names = 1, vrfs = 1;

    *slots = (struct firewall_slots){0};
    for (unsigned i = 0; i < rules->count; i++) {
        names += rules->list[i].in.count + rules->list[i].out.count;
        vrfs += rules->list[i].vrf[0] != '\0';
    }
    slots->interfaces = calloc(names, sizeof(*slots->interfaces));
    slots->vrfs = calloc(vrfs + names, sizeof(*slots->vrfs));
    if (!slots->interfaces || !slots->vrfs) {
        firewall_slots_clear(slots);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < rules->count; i++) {
        const struct firewall_rule *rule = &rules->list[i];

        collect(&rule->in, slots->interfaces, &slots->interface_count);
        collect(&rule->out, slots->interfaces, &slots->interface_count);
        if (rule->vrf[0] != '\0')
            memcpy(slots->vrfs[slots->vrf_count++].name, rule->vrf, sizeof(rule->vrf));
    }
    slots->interface_count = unique(slots->interfaces, slots->interface_count);
    for (unsigned i = 0; i < slots->interface_count; i++) {
        struct firewall_named *interface = &slots->interfaces[i];
        const char *vrf = vrf_of(context, interface->name);

        snprintf(interface->vrf, sizeof(interface->vrf), "%s", vrf ? vrf : "");
        memcpy(slots->vrfs[slots->vrf_count++].name, interface->vrf, sizeof(interface->vrf));
    }
    slots->vrf_count = unique(slots->vrfs, slots->vrf_count);
    number(slots);
    return 0;
}

void firewall_slots_clear(struct firewall_slots *slots) {
    free(slots->interfaces);
    free(slots->vrfs);
    *slots = (struct firewall_slots){0};
}

static bool same(const struct firewall_named *a, const struct firewall_named *b, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(a[i].name, b[i].name) != 0 || strcmp(a[i].vrf, b[i].vrf) != 0 ||
            a[i].slot != b[i].slot || a[i].last != b[i].last)
            return false;
    }
    return true;
}

bool firewall_slots_equal(const struct firewall_slots *a, const struct firewall_slots *b) {
    return a->interface_count == b->interface_count && a->vrf_count == b->vrf_count &&
           same(a->interfaces, b->interfaces, a->interface_count) &&
           same(a->vrfs, b->vrfs, a->vrf_count);
}

uint16_t firewall_slot_of(const struct firewall_slots *slots, const char *interface,
                          const char *vrf) {
    const struct firewall_named *found = find(slots->interfaces, slots->interface_count, interface);

    if (!found)
        found = find(slots->vrfs, slots->vrf_count, vrf);
    return found ? found->slot : FIREWALL_SLOT_OTHER;
}

/* --- compiling --- */

/* What rte_acl reads of a packet: the protocol, and from the second word on, side by side, the
 * fields that the rules look at. */
enum {
    KEY_SECOND_WORD = 4,
    KEY_SIZE = 64, /* at most 4 + 2 x 2 + 2 x 16 + 2 x 2 + 2, and what fills the word */
};

enum {
    /* IPv6: protocol, 2 interfaces, 16 halves of addresses, 2 ports, 2 marks, 1 to fill the word */
    FIELDS_MAX = 24,
    ONE_TRIE_BYTES = 1 << 27,
};
RTE_ACL_RULE_DEF(firewall_entry, FIELDS_MAX);

struct compiler {
    const struct firewall_slots *slots;
    struct firewall_classifier *made;
    uint8_t family;
    struct rte_acl_config config;
    unsigned number;             /* the rule's */
    struct firewall_entry entry; /* the one being filled */
    int error;
};

/* rte_acl walks whole words; `offset` in the key. */
static void add_field(struct rte_acl_config *config, uint8_t type, uint8_t size, unsigned *offset) {
    config->defs[config->num_fields] = (struct rte_acl_field_def){
        .type = type,
        .size = size,
        .field_index = (uint8_t)config->num_fields,
        .input_index = (uint8_t)(*offset / 4),
        .offset = *offset,
    };
    config->num_fields++;
    *offset += size;
}

static void add_address(struct rte_acl_config *config, uint8_t family, unsigned *offset) {
    for (unsigned i = 0; i < ip_family_bits(family) / 16u; i++)
        add_field(config, RTE_ACL_FIELD_TYPE_MASK, 2, offset);
}

/* The same order as in the functions that fill entries, below, and in put_key(). */
static void lay_out(struct compiler *c) {
    const struct firewall_classifier *made = c->made;
    const uint8_t slot_size = made->wide_slots ? 2 : 1;
    struct rte_acl_config *config = &c->config;
    unsigned offset = 0;

    config->num_categories = 1;
    add_field(config, RTE_ACL_FIELD_TYPE_BITMASK, 1, &offset);
    offset = KEY_SECOND_WORD; /* the first field stands alone */
    if (made->interfaces) {
        add_field(config, RTE_ACL_FIELD_TYPE_RANGE, slot_size, &offset);
        add_field(config, RTE_ACL_FIELD_TYPE_RANGE, slot_size, &offset);
    }
    add_address(config, c->family, &offset);
    add_address(config, c->family, &offset);
    if (made->destination_ports)
        add_field(config, RTE_ACL_FIELD_TYPE_RANGE, 2, &offset);
    if (made->source_ports)
        add_field(config, RTE_ACL_FIELD_TYPE_RANGE, 2, &offset);
    if (made->marks) {
        add_field(config, RTE_ACL_FIELD_TYPE_RANGE, 1, &offset);
        add_field(config, RTE_ACL_FIELD_TYPE_BITMASK, 1, &offset);
    }
    if (offset % 4 != 0)
        add_field(config, RTE_ACL_FIELD_TYPE_BITMASK, 2, &offset);
}

static unsigned set_range(struct compiler *c, unsigned field, struct firewall_range range) {
    const uint16_t most = c->config.defs[field].size == 1 ? UINT8_MAX : UINT16_MAX;

    c->entry.field[field].value.u16 = range.first;
    c->entry.field[field].mask_range.u16 = RTE_MIN(range.last, most);
    return field + 1;
}

static unsigned set_address(struct compiler *c, unsigned field, const struct ip_prefix *prefix) {
    for (unsigned i = 0; i < ip_family_bits(c->family) / 16u; i++, field++) {
        unsigned length = prefix && prefix->length > i * 16 ? prefix->length - i * 16 : 0;
        uint16_t half = 0;

        if (prefix)
            memcpy(&half, prefix->address.bytes + (size_t)i * 2, sizeof(half));
        c->entry.field[field].value.u16 = rte_be_to_cpu_16(half);
        c->entry.field[field].mask_range.u16 = RTE_MIN(length, 16u);
    }
    return field;
}

static void add_entry(struct compiler *c) {
    if (c->error == 0)
        c->error = rte_acl_add_rules(c->made->acl, (const struct rte_acl_rule *)&c->entry, 1);
}

/* Each of these runs over one list and calls the next for each element. An empty list is one
 * element that matches everything. */
static void fill_marks(struct compiler *c, const struct firewall_rule *rule, unsigned field) {
    if (!c->made->marks) {
        add_entry(c);
        return;
    }
    c->entry.field[field + 1].value.u8 = rule->tcp_flags;
    c->entry.field[field + 1].mask_range.u8 = rule->tcp_flags_mask;
    for (unsigned i = 0; i < RTE_MAX(rule->dscp.count, 1u); i++) {
        struct firewall_range dscp = {0, UINT8_MAX};

        if (rule->dscp.count > 0)
            dscp = rule->dscp.list[i];
        c->entry.field[field].value.u8 = (uint8_t)dscp.first;
        c->entry.field[field].mask_range.u8 = (uint8_t)dscp.last;
        add_entry(c);
    }
}

static void fill_source_ports(struct compiler *c, const struct firewall_rule *rule,
                              unsigned field) {
    const struct firewall_ranges *from = &rule->source_ports;

    if (!c->made->source_ports)
        fill_marks(c, rule, field);
    else if (from->count == 0)
        fill_marks(c, rule, set_range(c, field, any16));
    else
        for (unsigned i = 0; i < from->count; i++)
            fill_marks(c, rule, set_range(c, field, from->list[i]));
}

/* ICMP's type and code stand where other protocols have the destination port. */
static void fill_ports(struct compiler *c, const struct firewall_rule *rule, unsigned field) {
    const struct firewall_ranges *icmp = icmp_of(rule, c->family);
    const struct firewall_ranges *to = icmp->count > 0 ? icmp : &rule->destination_ports;

    if (!c->made->destination_ports)
        fill_source_ports(c, rule, field);
    else if (to->count == 0)
        fill_source_ports(c, rule, set_range(c, field, any16));
    else
        for (unsigned i = 0; i < to->count; i++)
            fill_source_ports(c, rule, set_range(c, field, to->list[i]));
}

static void fill_source(struct compiler *c, const struct firewall_rule *rule, unsigned field) {
    if (rule->source.count == 0)
        fill_ports(c, rule, set_address(c, field, NULL));
    for (unsigned i = 0; i < rule->source.count; i++) {
        if (rule->source.list[i].address.family == c->family)
            fill_ports(c, rule, set_address(c, field, &rule->source.list[i]));
    }
}

static void fill_destination(struct compiler *c, const struct firewall_rule *rule, unsigned field) {
    if (rule->destination.count == 0)
        fill_source(c, rule, set_address(c, field, NULL));
    for (unsigned i = 0; i < rule->destination.count; i++) {
        if (rule->destination.list[i].address.family == c->family)
            fill_source(c, rule, set_address(c, field, &rule->destination.list[i]));
    }
}

/* The slots of the named interfaces, of those that are in `vrf` if it is not NULL. */
static unsigned slots_of(const struct compiler *c, const struct firewall_names *names,
                         const struct firewall_named *vrf, struct firewall_range *out) {
    unsigned count = 0;

    for (unsigned i = 0; i < names->count; i++) {
        const struct firewall_named *found =
            find(c->slots->interfaces, c->slots->interface_count, names->list[i]);

        if (found && (!vrf || (found->slot >= vrf->slot && found->slot <= vrf->last)))
            out[count++] = (struct firewall_range){found->slot, found->slot};
    }
    return firewall_ranges_join(out, count);
}

static unsigned in_slots(const struct compiler *c, const struct firewall_rule *rule,
                         struct firewall_range *out) {
    const struct firewall_named *vrf =
        rule->vrf[0] != '\0' ? find(c->slots->vrfs, c->slots->vrf_count, rule->vrf) : NULL;

    if (rule->in.count > 0)
        return slots_of(c, &rule->in, vrf, out);
    out[0] = vrf ? (struct firewall_range){vrf->slot, vrf->last} : any16;
    return 1;
}

static unsigned out_slots(const struct compiler *c, const struct firewall_rule *rule,
                          struct firewall_range *out) {
    if (rule->out.count > 0)
        return slots_of(c, &rule->out, NULL, out);
    out[0] = any16;
    if (rule->direction == FIREWALL_FORWARDED)
        out[0].first = FIREWALL_SLOT_ROUTER + 1;
    else if (rule->direction == FIREWALL_TO_ROUTER)
        out[0].first = out[0].last = FIREWALL_SLOT_ROUTER;
    return 1;
}

static void fill_interfaces(struct compiler *c, const struct firewall_rule *rule, unsigned field) {
    struct firewall_range *in, *out;

    if (!c->made->interfaces) {
        fill_destination(c, rule, field);
        return;
    }
    in = calloc(rule->in.count + rule->out.count + 2, sizeof(*in));
    if (!in) {
        c->error = -ENOMEM;
        return;
    }
    out = in + rule->in.count + 1;

    const unsigned ins = in_slots(c, rule, in), outs = out_slots(c, rule, out);

    for (unsigned i = 0; i < ins; i++) {
        for (unsigned j = 0; j < outs; j++) {
            set_range(c, field, in[i]);
            set_range(c, field + 1, out[j]);
            fill_destination(c, rule, field + 2);
        }
    }
    free(in);
}

static void fill_rule(struct compiler *c, const struct firewall_rule *rule) {
    c->entry.data = (struct rte_acl_rule_data){
        .category_mask = 1,
        .priority = (int32_t)(RTE_ACL_MAX_PRIORITY - c->number),
        .userdata = c->number + 1,
    };
    if (rule->protocols.count == 0) {
        c->entry.field[0].value.u8 = 0;
        c->entry.field[0].mask_range.u8 = 0;
        fill_interfaces(c, rule, 1);
    }
    for (unsigned i = 0; i < rule->protocols.count; i++) {
        if (!protocol_in_family(rule->protocols.list[i].first, c->family))
            continue;
        c->entry.field[0].value.u8 = (uint8_t)rule->protocols.list[i].first;
        c->entry.field[0].mask_range.u8 = UINT8_MAX;
        fill_interfaces(c, rule, 1);
    }
}

static bool has_entries(const struct firewall_rule *rule, uint8_t family) {
    return rule->enabled && firewall_rule_entries(rule, family) > 0;
}

/* Which fields the rules look at. How many entries there will be. */
static uint64_t look_at_rules(struct compiler *c, const struct firewall_rules *rules) {
    struct firewall_classifier *made = c->made;
    uint64_t entries = 0;

    for (unsigned i = 0; i < rules->count; i++) {
        const struct firewall_rule *rule = &rules->list[i];

        if (!has_entries(rule, c->family))
            continue;
        entries += firewall_rule_entries(rule, c->family);
        made->interfaces |= rule->in.count > 0 || rule->out.count > 0 || rule->vrf[0] != '\0' ||
                            rule->direction != FIREWALL_ANYWHERE;
        made->destination_ports |=
            rule->destination_ports.count > 0 || icmp_of(rule, c->family)->count > 0;
        made->source_ports |= rule->source_ports.count > 0;
        made->marks |= rule->dscp.count > 0 || rule->tcp_flags_mask != 0;
    }
    made->wide_slots =
        c->slots->vrf_count > 0 && c->slots->vrfs[c->slots->vrf_count - 1].last > UINT8_MAX;
    return entries;
}

/* One large trie if it fits, else as rte_acl sees fit: slower, but in less memory. */
static int build(struct compiler *c) {
    int error;

    c->config.max_size = ONE_TRIE_BYTES;
    error = rte_acl_build(c->made->acl, &c->config);
    if (error == -ERANGE || error == -ENOMEM) {
        c->config.max_size = 0;
        error = rte_acl_build(c->made->acl, &c->config);
    }
    return error;
}

/* The classifier of one family, empty when no rule is about it. */
static int compile(const struct firewall_rules *rules, const struct firewall_slots *slots,
                   uint8_t family, struct firewall_classifier *out) {
    static unsigned serial; /* contexts are known to DPDK by their names */
    struct compiler c = {.slots = slots, .family = family, .made = out};
    const uint64_t entries = look_at_rules(&c, rules);
    char name[RTE_ACL_NAMESIZE];

    if (entries == 0)
        return 0;
    if (entries > FIREWALL_ENTRIES_MAX)
        return -E2BIG;
    lay_out(&c);
    snprintf(name, sizeof(name), "firewall_%u", serial++);

    const struct rte_acl_param param = {
        .name = name,
        .socket_id = -1,
        .rule_size = (uint32_t)RTE_ACL_RULE_SZ(c.config.num_fields),
        .max_rule_num = (uint32_t)entries,
    };

    out->acl = rte_acl_create(&param);
    if (!out->acl)
        return -ENOMEM;

    unsigned used = 0;

    for (unsigned i = 0; i < rules->count && c.error == 0; i++) {
        c.number = i;
        if (has_entries(&rules->list[i], family)) {
            fill_rule(&c, &rules->list[i]);
            used++;
        }
    }
    if (c.error == 0 && used > 0)
        c.error = build(&c);
    return c.error;
}

/* --- rulesets --- */

static void set_verdicts(struct firewall_ruleset *set, const struct firewall_rules *rules) {
    struct firewall_verdict *verdict = set->verdicts;

    for (unsigned i = 0; i < rules->count; i++, verdict++) {
        const struct firewall_rule *rule = &rules->list[i];

        memcpy(verdict->name, rule->name, sizeof(verdict->name));
        verdict->action = (uint8_t)rule->action;
        verdict->enabled = rule->enabled;
        verdict->log = rule->log;
        verdict->stateless = rule->stateless;
    }
    *verdict++ = (struct firewall_verdict){
        .name = "default", .action = (uint8_t)rules->default_action, .enabled = true};
    *verdict = (struct firewall_verdict){
        .name = "router_default", .action = (uint8_t)rules->router_default_action, .enabled = true};
}

static int make_counters(struct firewall_ruleset *set) {
    const size_t count = set->rule_count + 2;
    const size_t size = RTE_ALIGN(count * sizeof(struct firewall_counter), RTE_CACHE_LINE_SIZE);

    set->carried = calloc(count, sizeof(*set->carried));
    set->counters = calloc(set->workers, sizeof(*set->counters));
    if (!set->carried || !set->counters)
        return -ENOMEM;
    for (unsigned i = 0; i < set->workers; i++) {
        set->counters[i] = aligned_alloc(RTE_CACHE_LINE_SIZE, size);
        if (!set->counters[i])
            return -ENOMEM;
        memset(set->counters[i], 0, size);
    }
    return 0;
}

int firewall_ruleset_make(const struct firewall_rules *rules, struct firewall_slots *slots,
                          unsigned workers, struct firewall_ruleset **out) {
    struct firewall_ruleset *set =
        calloc(1, sizeof(*set) + (rules->count + 2) * sizeof(set->verdicts[0]));
    int error;

    if (!set) {
        firewall_slots_clear(slots);
        return -ENOMEM;
    }
    set->slots = *slots;
    *slots = (struct firewall_slots){0};
    set->rule_count = rules->count;
    set->workers = workers;
    set_verdicts(set, rules);
    error = make_counters(set);
    if (error == 0)
        error = compile(rules, &set->slots, AF_INET, &set->ipv4);
    if (error == 0)
        error = compile(rules, &set->slots, AF_INET6, &set->ipv6);
    if (error != 0) {
        firewall_ruleset_free(set);
        return error;
    }
    *out = set;
    return 0;
}

static void add_counter(struct firewall_counter *to, const struct firewall_counter *from) {
    to->packets += __atomic_load_n(&from->packets, __ATOMIC_RELAXED);
    to->bytes += __atomic_load_n(&from->bytes, __ATOMIC_RELAXED);
    to->sessions += __atomic_load_n(&from->sessions, __ATOMIC_RELAXED);
}

struct firewall_counter firewall_counted(const struct firewall_ruleset *set, uint32_t number) {
    struct firewall_counter sum = {0};

    while (set && number < set->rule_count + 2) {
        add_counter(&sum, &set->carried[number]);
        for (unsigned i = 0; i < set->workers; i++)
            add_counter(&sum, &set->counters[i][number]);
        number = set->before ? set->number_before[number] : UINT32_MAX;
        set = set->before;
    }
    return sum;
}

/* Nobody counts here any more: what was counted moves to the successor. */
static void hand_over_counters(struct firewall_ruleset *set) {
    struct firewall_ruleset *after = set->after;

    for (uint32_t i = 0; i < after->rule_count + 2; i++) {
        if (after->number_before[i] != UINT32_MAX) {
            const struct firewall_counter sum = firewall_counted(set, after->number_before[i]);

            add_counter(&after->carried[i], &sum);
        }
    }
    after->before = NULL;
    free(after->number_before);
    after->number_before = NULL;
}

void firewall_ruleset_free(struct firewall_ruleset *set) {
    if (!set)
        return;
    if (set->after)
        hand_over_counters(set);
    if (set->before)
        set->before->after = NULL;
    rte_acl_free(set->ipv4.acl);
    rte_acl_free(set->ipv6.acl);
    firewall_slots_clear(&set->slots);
    for (unsigned i = 0; set->counters && i < set->workers; i++)
        free(set->counters[i]);
    free(set->counters);
    free(set->carried);
    free(set->number_before);
    free((void *)(uintptr_t)set->interfaces);
    free(set);
}

struct numbered {
    const char *name;
    uint32_t number;
};

static int by_text(const void *a, const void *b) {
    return strcmp(((const struct numbered *)a)->name, ((const struct numbered *)b)->name);
}

int firewall_ruleset_succeed(struct firewall_ruleset *set, struct firewall_ruleset *before) {
    struct numbered *names;

    if (!before)
        return 0;
    names = calloc(before->rule_count + 1, sizeof(*names));
    set->number_before = calloc(set->rule_count + 2, sizeof(*set->number_before));
    if (!names || !set->number_before) {
        free(names);
        free(set->number_before);
        set->number_before = NULL;
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < before->rule_count; i++)
        names[i] = (struct numbered){before->verdicts[i].name, i};
    qsort(names, before->rule_count, sizeof(*names), by_text);
    for (uint32_t i = 0; i < set->rule_count; i++) {
        const struct numbered wanted = {.name = set->verdicts[i].name};
        const struct numbered *found =
            bsearch(&wanted, names, before->rule_count, sizeof(*names), by_text);

        set->number_before[i] = found ? found->number : UINT32_MAX;
    }
    free(names);
    set->number_before[firewall_default(set)] = firewall_default(before);
    set->number_before[firewall_router_default(set)] = firewall_router_default(before);
    set->before = before;
    before->after = set;
    return 0;
}

/* --- classifying --- */

static uint8_t *put(uint8_t *key, const void *value, size_t size) {
    memcpy(key, value, size);
    return key + size;
}

/* Interfaces and addresses, the order of lay_out(). */
static uint8_t *put_ends(const struct firewall_classifier *classifier,
                         const struct firewall_packet *packet, uint8_t *key) {
    if (classifier->interfaces && classifier->wide_slots) {
        key = put(key, &packet->in, 2);
        key = put(key, &packet->out, 2);
    } else if (classifier->interfaces) {
        *key++ = (uint8_t)rte_be_to_cpu_16(packet->in);
        *key++ = (uint8_t)rte_be_to_cpu_16(packet->out);
    }
    if (packet->ipv6) {
        key = put(key, packet->destination, 16);
        return put(key, packet->source, 16);
    }
    key = put(key, packet->destination, 4);
    return put(key, packet->source, 4);
}

static void put_key(const struct firewall_classifier *classifier,
                    const struct firewall_packet *packet, uint8_t key[KEY_SIZE]) {
    uint8_t *next;

    key[0] = packet->protocol;
    next = put_ends(classifier, packet, key + KEY_SECOND_WORD);
    if (classifier->destination_ports)
        next = put(next, &packet->destination_port, 2);
    if (classifier->source_ports)
        next = put(next, &packet->source_port, 2);
    if (classifier->marks) {
        *next++ = packet->dscp;
        *next++ = packet->tcp_flags;
    }
    put(next, "\0", 2);
}

static void classify(const struct firewall_classifier *classifier,
                     const struct firewall_packet *packets, const uint8_t *index, unsigned count,
                     uint32_t *numbers) {
    uint8_t keys[FIREWALL_BURST_MAX][KEY_SIZE];
    const uint8_t *data[FIREWALL_BURST_MAX];
    uint32_t found[FIREWALL_BURST_MAX];

    if (!classifier->acl || count == 0)
        return;
    for (unsigned i = 0; i < count; i++) {
        put_key(classifier, &packets[index[i]], keys[i]);
        data[i] = keys[i];
    }
    rte_acl_classify(classifier->acl, data, found, count, 1);
    for (unsigned i = 0; i < count; i++) {
        if (found[i] != 0)
            numbers[index[i]] = found[i] - 1;
    }
}

void firewall_classify(const struct firewall_ruleset *set, const struct firewall_packet *packets,
                       unsigned count, uint32_t *numbers) {
    uint8_t ipv4[FIREWALL_BURST_MAX], ipv6[FIREWALL_BURST_MAX];
    unsigned count4 = 0, count6 = 0;

    for (unsigned i = 0; i < count; i++) {
        numbers[i] = packets[i].out == FIREWALL_SLOT_ROUTER ? firewall_router_default(set)
                                                            : firewall_default(set);
        if (packets[i].ipv6)
            ipv6[count6++] = (uint8_t)i;
        else
            ipv4[count4++] = (uint8_t)i;
    }
    classify(&set->ipv4, packets, ipv4, count4, numbers);
    classify(&set->ipv6, packets, ipv6, count6, numbers);
}
