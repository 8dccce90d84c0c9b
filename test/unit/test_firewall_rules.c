/*
 * Firewall rules: what each condition matches, that the first rule wins, how interfaces and VRFs
 * are told apart, what counters keep over a change of the rules; and random rules and packets,
 * where the compiled classifier has to agree with the rules read one after the other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_eal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "firewall/firewall_rules.h"

/* --- building rules --- */

enum { RULES_MAX = 10000 };
static struct firewall_rules rules;

static struct firewall_rule *add_rule(enum firewall_action action) {
    struct firewall_rule *rule = &rules.list[rules.count];

    memset(rule, 0, sizeof(*rule));
    snprintf(rule->name, sizeof(rule->name), "r%u", rules.count++);
    rule->action = action;
    rule->enabled = true;
    return rule;
}

static void add_prefix(struct firewall_prefixes *to, const char *text) {
    to->list = realloc(to->list, (to->count + 1) * sizeof(*to->list));
    assert_int_equal(ip_prefix_parse(text, &to->list[to->count++]), 0);
}

static void add_range(struct firewall_ranges *to, unsigned first, unsigned last) {
    to->list = realloc(to->list, (to->count + 1) * sizeof(*to->list));
    to->list[to->count++] = (struct firewall_range){(uint16_t)first, (uint16_t)last};
}

static void add_name(struct firewall_names *to, const char *name) {
    to->list = realloc(to->list, (to->count + 1) * sizeof(*to->list));
    memset(to->list[to->count], 0, sizeof(*to->list));
    snprintf(to->list[to->count++], sizeof(*to->list), "%s", name);
}

/* Names that begin with b are in the VRF "blue". */
static const char *vrf_of(const void *context, const char *interface) {
    (void)context;
    return interface[0] == 'b' ? "blue" : "default";
}

static struct firewall_ruleset *compile(void) {
    struct firewall_ruleset *set = NULL;
    struct firewall_slots slots;

    assert_int_equal(firewall_slots_make(&slots, &rules, vrf_of, NULL), 0);
    assert_int_equal(firewall_ruleset_make(&rules, &slots, 2, &set), 0);
    assert_null(slots.interfaces);
    return set;
}

static int set_up(void **state) {
    (void)state;
    rules = (struct firewall_rules){.default_action = FIREWALL_DROP,
                                    .router_default_action = FIREWALL_REJECT,
                                    .list = calloc(RULES_MAX, sizeof(struct firewall_rule))};
    srandom(1);
    return rules.list ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    firewall_rules_free(&rules);
    return 0;
}

/* --- packets --- */

static struct firewall_packet packet(const char *source, const char *destination, uint8_t protocol,
                                     unsigned source_port, unsigned destination_port) {
    struct firewall_packet made = {
        .protocol = protocol,
        .in = RTE_BE16(FIREWALL_SLOT_OTHER),
        .out = RTE_BE16(FIREWALL_SLOT_OTHER),
        .source_port = rte_cpu_to_be_16((uint16_t)source_port),
        .destination_port = rte_cpu_to_be_16((uint16_t)destination_port),
    };
    struct ip_address address;

    assert_int_equal(ip_address_parse(source, &address), 0);
    made.ipv6 = address.family == AF_INET6;
    memcpy(made.source, address.bytes, sizeof(made.source));
    assert_int_equal(ip_address_parse(destination, &address), 0);
    memcpy(made.destination, address.bytes, sizeof(made.destination));
    return made;
}

static uint32_t rule_for(const struct firewall_ruleset *set, struct firewall_packet p) {
    uint32_t number = UINT32_MAX;

    firewall_classify(set, &p, 1, &number);
    return number;
}

static struct firewall_packet tcp4(unsigned destination_port) {
    return packet("192.0.2.1", "198.51.100.1", IPPROTO_TCP, 40000, destination_port);
}

/* --- cases --- */

static void without_rules_the_defaults_decide(void **state) {
    struct firewall_ruleset *set = compile();
    struct firewall_packet to_router = tcp4(22);

    (void)state;
    to_router.out = RTE_BE16(FIREWALL_SLOT_ROUTER);
    assert_int_equal(rule_for(set, tcp4(22)), firewall_default(set));
    assert_int_equal(rule_for(set, to_router), firewall_router_default(set));
    assert_int_equal(set->verdicts[firewall_default(set)].action, FIREWALL_DROP);
    assert_int_equal(set->verdicts[firewall_router_default(set)].action, FIREWALL_REJECT);
    assert_string_equal(set->verdicts[firewall_default(set)].name, "default");
    firewall_ruleset_free(set);
}

static void the_first_rule_that_matches_wins(void **state) {
    struct firewall_rule *rule = add_rule(FIREWALL_DROP);
    struct firewall_ruleset *set;

    (void)state;
    add_prefix(&rule->source, "192.0.2.1/32");
    add_range(&rule->protocols, IPPROTO_TCP, IPPROTO_TCP);
    add_range(&rule->destination_ports, 80, 80);
    add_rule(FIREWALL_ACCEPT)->enabled = false;
    add_prefix(&add_rule(FIREWALL_ACCEPT)->source, "192.0.2.0/24");
    add_rule(FIREWALL_REJECT);
    set = compile();
    assert_int_equal(rule_for(set, tcp4(80)), 0);
    assert_int_equal(rule_for(set, tcp4(81)), 2);
    assert_int_equal(rule_for(set, packet("192.0.3.1", "1.1.1.1", 47, 0, 0)), 3);
    assert_int_equal(rule_for(set, packet("2001:db8::1", "2001:db8::2", 47, 0, 0)), 3);
    firewall_ruleset_free(set);
}

static void prefixes_match_to_the_bit(void **state) {
    struct firewall_rule *rule = add_rule(FIREWALL_ACCEPT);
    struct firewall_ruleset *set;

    (void)state;
    add_prefix(&rule->source, "10.16.0.0/12");
    add_prefix(&rule->source, "2001:db8:0:8000::/49");
    add_prefix(&rule->destination, "192.0.2.128/25");
    add_prefix(&rule->destination, "2001:db8::1/128");
    set = compile();
    assert_int_equal(rule_for(set, packet("10.31.255.255", "192.0.2.128", 6, 1, 1)), 0);
    assert_int_equal(rule_for(set, packet("10.16.0.0", "192.0.2.255", 6, 1, 1)), 0);
    assert_int_equal(rule_for(set, packet("10.32.0.0", "192.0.2.128", 6, 1, 1)), 1);
    assert_int_equal(rule_for(set, packet("10.15.255.255", "192.0.2.128", 6, 1, 1)), 1);
    assert_int_equal(rule_for(set, packet("10.16.0.0", "192.0.2.127", 6, 1, 1)), 1);
    assert_int_equal(rule_for(set, packet("2001:db8:0:ffff::", "2001:db8::1", 6, 1, 1)), 0);
    assert_int_equal(rule_for(set, packet("2001:db8:0:7fff::", "2001:db8::1", 6, 1, 1)), 1);
    assert_int_equal(rule_for(set, packet("2001:db8:0:8000::", "2001:db8::2", 6, 1, 1)), 1);
    firewall_ruleset_free(set);
}

static void icmp_types_belong_to_their_family(void **state) {
    struct firewall_rule *rule = add_rule(FIREWALL_ACCEPT);
    struct firewall_ruleset *set;

    (void)state;
    add_range(&rule->protocols, IPPROTO_ICMP, IPPROTO_ICMP);
    add_range(&rule->protocols, IPPROTO_ICMPV6, IPPROTO_ICMPV6);
    add_range(&rule->icmp, 8 << 8, 8 << 8 | 255);
    add_range(&rule->icmpv6, 128 << 8, 128 << 8);
    set = compile();
    assert_int_equal(rule_for(set, packet("1.1.1.1", "2.2.2.2", IPPROTO_ICMP, 0, 8 << 8 | 3)), 0);
    assert_int_equal(rule_for(set, packet("1.1.1.1", "2.2.2.2", IPPROTO_ICMP, 0, 128 << 8)), 1);
    assert_int_equal(rule_for(set, packet("1::1", "2::2", IPPROTO_ICMPV6, 0, 128 << 8)), 0);
    assert_int_equal(rule_for(set, packet("1::1", "2::2", IPPROTO_ICMPV6, 0, 128 << 8 | 1)), 1);
    assert_int_equal(rule_for(set, packet("1::1", "2::2", IPPROTO_ICMP, 0, 8 << 8)), 1);
    assert_int_equal(rule_for(set, packet("1.1.1.1", "2.2.2.2", IPPROTO_ICMPV6, 0, 8 << 8)), 1);
    firewall_ruleset_free(set);
}

static void flags_and_dscp_are_looked_at(void **state) {
    struct firewall_rule *rule = add_rule(FIREWALL_ACCEPT);
    struct firewall_packet p = tcp4(80);
    struct firewall_ruleset *set;

    (void)state;
    add_range(&rule->protocols, IPPROTO_TCP, IPPROTO_TCP);
    rule->tcp_flags = 0x02;
    rule->tcp_flags_mask = 0x12;
    add_range(&rule->dscp, 10, 12);
    add_range(&rule->dscp, 46, 46);
    set = compile();
    p.tcp_flags = 0x42;
    assert_int_equal(rule_for(set, p), 1);
    p.dscp = 46;
    assert_int_equal(rule_for(set, p), 0);
    p.dscp = 12;
    assert_int_equal(rule_for(set, p), 0);
    p.dscp = 13;
    assert_int_equal(rule_for(set, p), 1);
    p.dscp = 10;
    p.tcp_flags = 0x12;
    assert_int_equal(rule_for(set, p), 1);
    firewall_ruleset_free(set);
}

static struct firewall_packet by_way_of(const struct firewall_ruleset *set, const char *in,
                                        const char *out) {
    struct firewall_packet p = tcp4(80);

    p.in = rte_cpu_to_be_16(firewall_slot_of(&set->slots, in, vrf_of(NULL, in)));
    p.out = out ? rte_cpu_to_be_16(firewall_slot_of(&set->slots, out, vrf_of(NULL, out)))
                : RTE_BE16(FIREWALL_SLOT_ROUTER);
    return p;
}

static void interfaces_vrfs_and_the_router_are_told_apart(void **state) {
    struct firewall_rule *rule = add_rule(FIREWALL_ACCEPT);
    struct firewall_ruleset *set;

    (void)state;
    add_name(&rule->in, "lan"); /* 0: from lan or b-lan to wan */
    add_name(&rule->in, "b-lan");
    add_name(&rule->out, "wan");
    rule->direction = FIREWALL_FORWARDED;
    rule = add_rule(FIREWALL_ACCEPT); /* 1: from anywhere in blue, not to the router */
    strcpy(rule->vrf, "blue");
    rule->direction = FIREWALL_FORWARDED;
    rule = add_rule(FIREWALL_ACCEPT); /* 2: from wan to the router */
    add_name(&rule->in, "wan");
    rule->direction = FIREWALL_TO_ROUTER;
    rule = add_rule(FIREWALL_ACCEPT); /* 3: from dmz, wherever it goes */
    add_name(&rule->in, "dmz");
    set = compile();
    assert_int_equal(rule_for(set, by_way_of(set, "lan", "wan")), 0);
    assert_int_equal(rule_for(set, by_way_of(set, "b-lan", "wan")), 0);
    assert_int_equal(rule_for(set, by_way_of(set, "b-lan", "dmz")), 1);
    assert_int_equal(rule_for(set, by_way_of(set, "b-other", "lan")), 1);
    assert_int_equal(rule_for(set, by_way_of(set, "b-other", NULL)), firewall_router_default(set));
    assert_int_equal(rule_for(set, by_way_of(set, "wan", NULL)), 2);
    assert_int_equal(rule_for(set, by_way_of(set, "wan", "lan")), firewall_default(set));
    assert_int_equal(rule_for(set, by_way_of(set, "other", "wan")), firewall_default(set));
    assert_int_equal(rule_for(set, by_way_of(set, "dmz", NULL)), 3);
    assert_int_equal(rule_for(set, by_way_of(set, "dmz", "other")), 3);
    firewall_ruleset_free(set);
}

/* More than a byte can number. */
static void hundreds_of_interfaces_are_told_apart(void **state) {
    enum { INTERFACES = 300 };
    struct firewall_ruleset *set;

    (void)state;
    for (unsigned i = 0; i < INTERFACES; i++) {
        struct firewall_rule *rule = add_rule(FIREWALL_ACCEPT);
        char name[INTERFACE_NAME_TEXT];

        snprintf(name, sizeof(name), "vlan%u", i);
        add_name(&rule->in, name);
        if (i % 2 == 1) {
            snprintf(name, sizeof(name), "vlan%u", INTERFACES - 1 - i);
            add_name(&rule->out, name);
        }
    }
    set = compile();
    for (unsigned i = 0; i < INTERFACES; i++) {
        char in[INTERFACE_NAME_TEXT], out[INTERFACE_NAME_TEXT];

        snprintf(in, sizeof(in), "vlan%u", i);
        snprintf(out, sizeof(out), "vlan%u", INTERFACES - 1 - i);
        assert_int_equal(rule_for(set, by_way_of(set, in, out)), i);
        assert_int_equal(rule_for(set, by_way_of(set, in, "other")),
                         i % 2 == 1 ? firewall_default(set) : i);
        assert_int_equal(rule_for(set, by_way_of(set, "other", in)), firewall_default(set));
    }
    firewall_ruleset_free(set);
}

static void slots_are_equal_while_names_and_vrfs_are(void **state) {
    struct firewall_slots a, b;

    (void)state;
    add_name(&add_rule(FIREWALL_ACCEPT)->in, "lan");
    add_name(&rules.list[0].out, "wan");
    assert_int_equal(firewall_slots_make(&a, &rules, vrf_of, NULL), 0);
    assert_int_equal(firewall_slots_make(&b, &rules, vrf_of, NULL), 0);
    assert_true(firewall_slots_equal(&a, &b));
    firewall_slots_clear(&b);
    add_name(&rules.list[0].in, "dmz");
    assert_int_equal(firewall_slots_make(&b, &rules, vrf_of, NULL), 0);
    assert_false(firewall_slots_equal(&a, &b));
    firewall_slots_clear(&a);
    firewall_slots_clear(&b);
}

static void ranges_are_joined(void **state) {
    struct firewall_range list[] = {{500, 600}, {0, 9}, {10, 10}, {599, 65535}, {20, 30}, {22, 23}};

    (void)state;
    assert_int_equal(firewall_ranges_join(list, 0), 0);
    assert_int_equal(firewall_ranges_join(list, 6), 3);
    assert_int_equal(list[0].first, 0);
    assert_int_equal(list[0].last, 10);
    assert_int_equal(list[1].first, 20);
    assert_int_equal(list[1].last, 30);
    assert_int_equal(list[2].first, 500);
    assert_int_equal(list[2].last, 65535);
}

static void entries_are_the_product_of_the_lists(void **state) {
    struct firewall_rule *rule = add_rule(FIREWALL_ACCEPT);

    (void)state;
    assert_int_equal(firewall_rule_entries(rule, AF_INET), 1);
    add_prefix(&rule->source, "10.0.0.0/8");
    add_prefix(&rule->source, "10.0.0.0/9");
    add_prefix(&rule->source, "2001:db8::/32");
    assert_int_equal(firewall_rule_entries(rule, AF_INET), 2);
    assert_int_equal(firewall_rule_entries(rule, AF_INET6), 1);
    add_range(&rule->protocols, IPPROTO_TCP, IPPROTO_TCP);
    add_range(&rule->protocols, IPPROTO_UDP, IPPROTO_UDP);
    add_range(&rule->protocols, IPPROTO_ICMP, IPPROTO_ICMP);
    add_range(&rule->dscp, 1, 1);
    add_range(&rule->dscp, 3, 3);
    assert_int_equal(firewall_rule_entries(rule, AF_INET), 12);
    assert_int_equal(firewall_rule_entries(rule, AF_INET6), 4);
    rule->family = AF_INET6;
    assert_int_equal(firewall_rule_entries(rule, AF_INET), 0);
    add_prefix(&rule->destination, "10.0.0.0/8");
    assert_int_equal(firewall_rule_entries(rule, AF_INET6), 0);
}

static void too_many_entries_are_refused(void **state) {
    struct firewall_ruleset *set = NULL;
    struct firewall_slots slots;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct firewall_rule *rule = add_rule(FIREWALL_ACCEPT);

        for (unsigned port = 0; port < 256; port++) {
            add_range(&rule->source_ports, port * 2, port * 2);
            add_range(&rule->destination_ports, port * 2, port * 2);
        }
        rule->family = AF_INET;
    }
    assert_int_equal(firewall_slots_make(&slots, &rules, vrf_of, NULL), 0);
    assert_int_equal(firewall_ruleset_make(&rules, &slots, 1, &set), -E2BIG);
    assert_null(set);
}

static void counters_go_on_under_the_same_name(void **state) {
    struct firewall_ruleset *first, *second, *third;

    (void)state;
    add_rule(FIREWALL_ACCEPT); /* r0 */
    add_rule(FIREWALL_ACCEPT); /* r1 */
    first = compile();
    first->counters[0][1].packets = 5;
    first->counters[1][1].packets = 6;
    first->counters[1][1].bytes = 600;
    first->counters[1][firewall_default(first)].packets = 9;

    /* r1 comes first now, and r0 is gone. */
    strcpy(rules.list[0].name, "r1");
    strcpy(rules.list[1].name, "new");
    second = compile();
    assert_int_equal(firewall_ruleset_succeed(second, first), 0);
    second->counters[0][0].packets = 1;
    assert_int_equal(firewall_counted(second, 0).packets, 12);
    first->counters[0][1].packets++; /* a worker that has not seen the new rules yet */
    assert_int_equal(firewall_counted(second, 0).packets, 13);
    assert_int_equal(firewall_counted(second, 0).bytes, 600);
    assert_int_equal(firewall_counted(second, 1).packets, 0);
    assert_int_equal(firewall_counted(second, firewall_default(second)).packets, 9);

    third = compile();
    assert_int_equal(firewall_ruleset_succeed(third, second), 0);
    assert_int_equal(firewall_counted(third, 0).packets, 13);
    firewall_ruleset_free(first);
    assert_int_equal(firewall_counted(third, 0).packets, 13);
    second->counters[1][0].packets++;
    firewall_ruleset_free(second);
    assert_int_equal(firewall_counted(third, 0).packets, 14);
    assert_int_equal(firewall_counted(third, firewall_default(third)).packets, 9);
    firewall_ruleset_free(third);
}

static void a_ruleset_that_is_given_up_leaves_the_old_one_alone(void **state) {
    struct firewall_ruleset *first, *second;

    (void)state;
    add_rule(FIREWALL_ACCEPT);
    first = compile();
    first->counters[0][0].packets = 3;
    second = compile();
    assert_int_equal(firewall_ruleset_succeed(second, first), 0);
    firewall_ruleset_free(second);
    assert_int_equal(firewall_counted(first, 0).packets, 3);
    firewall_ruleset_free(first);
}

/* --- random rules, read one after the other --- */

static unsigned any_of(unsigned count) {
    return (unsigned)random() % count;
}

static bool in_ranges(const struct firewall_ranges *ranges, unsigned value) {
    bool found = ranges->count == 0;

    for (unsigned i = 0; i < ranges->count; i++)
        found |= value >= ranges->list[i].first && value <= ranges->list[i].last;
    return found;
}

static bool in_prefixes(const struct firewall_prefixes *prefixes, const uint8_t *bytes, bool ipv6) {
    struct ip_address address = ipv6 ? ip6_address(bytes) : ip4_address(bytes);
    bool found = prefixes->count == 0;

    for (unsigned i = 0; i < prefixes->count; i++)
        found |= ip_prefix_contains(&prefixes->list[i], &address);
    return found;
}

static bool in_names(const struct firewall_ruleset *set, const struct firewall_names *names,
                     uint16_t slot) {
    bool found = names->count == 0;

    for (unsigned i = 0; i < names->count; i++)
        found |= firewall_slot_of(&set->slots, names->list[i], "") == slot;
    return found;
}

static bool matches(const struct firewall_ruleset *set, const struct firewall_rule *rule,
                    const struct firewall_packet *p) {
    const uint16_t in = rte_be_to_cpu_16(p->in), out = rte_be_to_cpu_16(p->out);
    const uint16_t from = rte_be_to_cpu_16(p->source_port),
                   to = rte_be_to_cpu_16(p->destination_port);
    bool in_blue = false;

    for (unsigned i = 0; i < set->slots.vrf_count; i++) {
        if (strcmp(set->slots.vrfs[i].name, "blue") == 0)
            in_blue = in >= set->slots.vrfs[i].slot && in <= set->slots.vrfs[i].last;
    }
    if (p->protocol == (p->ipv6 ? IPPROTO_ICMP : IPPROTO_ICMPV6) && rule->protocols.count > 0)
        return false;
    return rule->enabled && (rule->family == 0 || (rule->family == AF_INET6) == p->ipv6) &&
           (rule->vrf[0] == '\0' || in_blue) && in_names(set, &rule->in, in) &&
           in_names(set, &rule->out, out) &&
           !(rule->direction == FIREWALL_FORWARDED && out == FIREWALL_SLOT_ROUTER) &&
           !(rule->direction == FIREWALL_TO_ROUTER && out != FIREWALL_SLOT_ROUTER) &&
           in_prefixes(&rule->source, p->source, p->ipv6) &&
           in_prefixes(&rule->destination, p->destination, p->ipv6) &&
           in_ranges(&rule->protocols, p->protocol) && in_ranges(&rule->source_ports, from) &&
           in_ranges(&rule->destination_ports, to) && in_ranges(&rule->dscp, p->dscp) &&
           (p->tcp_flags & rule->tcp_flags_mask) == rule->tcp_flags;
}

static uint32_t expected(const struct firewall_ruleset *set, const struct firewall_packet *p) {
    for (unsigned i = 0; i < rules.count; i++) {
        if (matches(set, &rules.list[i], p))
            return i;
    }
    return p->out == 0 ? firewall_router_default(set) : firewall_default(set);
}

/* Few bits differ, so that much of it overlaps. */
static void random_bytes(uint8_t bytes[16], bool ipv6) {
    memset(bytes, 0, 16);
    for (unsigned i = 0; i < (ipv6 ? 16u : 4u); i++)
        bytes[i] = any_of(3) == 0 ? (uint8_t)(1u << any_of(8)) : 0;
}

static void random_prefix(struct firewall_prefixes *to) {
    struct ip_prefix prefix = {.address.family = any_of(2) ? AF_INET : AF_INET6};
    char text[IP_PREFIX_TEXT];

    random_bytes(prefix.address.bytes, prefix.address.family == AF_INET6);
    prefix.length = (uint8_t)any_of(ip_family_bits(prefix.address.family) + 1u);
    prefix = ip_prefix_network(&prefix);
    add_prefix(to, ip_prefix_text(&prefix, text));
}

static void random_ranges(struct firewall_ranges *to, unsigned below) {
    for (unsigned i = any_of(3); i > 0; i--) {
        unsigned first = any_of(below);

        add_range(to, first, first + (any_of(2) ? any_of(below - first) : 0));
    }
    to->count = firewall_ranges_join(to->list, to->count);
}

static const char *const interface_names[] = {"lan", "wan", "dmz", "b-lan", "b-wan"};
static const uint8_t some_protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6,
                                         47};

static void random_rule(void) {
    struct firewall_rule *rule = add_rule(FIREWALL_ACCEPT);

    rule->enabled = any_of(10) != 0;
    rule->family = any_of(4) ? 0 : any_of(2) ? AF_INET : AF_INET6;
    for (unsigned i = any_of(3); i > 0; i--)
        random_prefix(&rule->source);
    for (unsigned i = any_of(3); i > 0; i--)
        random_prefix(&rule->destination);
    for (unsigned i = any_of(3), first = any_of(4); i > 0; i--)
        add_range(&rule->protocols, some_protocols[(first + i) % 5],
                  some_protocols[(first + i) % 5]);
    random_ranges(&rule->source_ports, 1000);
    random_ranges(&rule->destination_ports, 1000);
    if (any_of(4) == 0)
        random_ranges(&rule->dscp, 64);
    if (any_of(4) == 0) {
        rule->tcp_flags_mask = (uint8_t)random();
        rule->tcp_flags = (uint8_t)(rule->tcp_flags_mask & random());
    }
    for (unsigned i = any_of(3); i > 0; i--)
        add_name(&rule->in, interface_names[any_of(5)]);
    if (any_of(4) == 0)
        strcpy(rule->vrf, "blue");
    rule->direction = any_of(3);
    if (rule->direction == FIREWALL_FORWARDED && any_of(2))
        add_name(&rule->out, interface_names[any_of(5)]);
}

static void random_packet(const struct firewall_ruleset *set, struct firewall_packet *p) {
    const char *in = interface_names[any_of(5)], *out = interface_names[any_of(5)];

    *p = by_way_of(set, any_of(4) ? in : "b-other", any_of(3) ? out : any_of(2) ? "other" : NULL);
    p->ipv6 = any_of(2);
    p->protocol = some_protocols[any_of(5)];
    p->source_port = rte_cpu_to_be_16((uint16_t)any_of(1000));
    p->destination_port = rte_cpu_to_be_16((uint16_t)any_of(1000));
    p->dscp = (uint8_t)any_of(64);
    p->tcp_flags = (uint8_t)random();
    random_bytes(p->source, p->ipv6);
    random_bytes(p->destination, p->ipv6);
}

static void agrees_with_rules_read_one_after_the_other(void **state) {
    unsigned matched = 0;

    (void)state;
    for (unsigned round = 0; round < 40; round++) {
        const unsigned count = 1 + any_of(60);
        struct firewall_ruleset *set;

        for (unsigned i = 0; i < count; i++)
            random_rule();
        set = compile();
        for (unsigned burst = 0; burst < 20; burst++) {
            struct firewall_packet packets[FIREWALL_BURST_MAX];
            uint32_t numbers[FIREWALL_BURST_MAX];
            const unsigned size = 1 + any_of(FIREWALL_BURST_MAX);

            for (unsigned i = 0; i < size; i++)
                random_packet(set, &packets[i]);
            firewall_classify(set, packets, size, numbers);
            for (unsigned i = 0; i < size; i++) {
                assert_int_equal(numbers[i], expected(set, &packets[i]));
                matched += numbers[i] < set->rule_count;
            }
        }
        firewall_ruleset_free(set);
        for (unsigned i = 0; i < count; i++)
            firewall_rule_clear(&rules.list[i]);
        rules.count = 0;
    }
    assert_true(matched > 1000); /* or nothing was tested */
}

/* Mixed prefixes, single ports and ranges, TCP and UDP. */
static void ten_thousand_rules_are_compiled(void **state) {
    struct firewall_ruleset *set;
    unsigned matched = 0;

    (void)state;
    while (rules.count < RULES_MAX) {
        struct firewall_rule *rule = add_rule(FIREWALL_ACCEPT);
        const uint8_t protocol = any_of(10) < 6 ? IPPROTO_TCP : IPPROTO_UDP;
        struct ip_prefix source = {
            .address = {AF_INET, {10, (uint8_t)random(), (uint8_t)random(), (uint8_t)random()}},
            .length = (uint8_t)(16 + any_of(17))};
        struct ip_prefix destination = source;
        char text[IP_PREFIX_TEXT];

        destination.address.bytes[0] = 172;
        source = ip_prefix_network(&source);
        destination = ip_prefix_network(&destination);
        add_prefix(&rule->source, ip_prefix_text(&source, text));
        add_prefix(&rule->destination, ip_prefix_text(&destination, text));
        add_range(&rule->protocols, protocol, protocol);
        if (any_of(2))
            add_range(&rule->destination_ports, rules.count, rules.count + any_of(2) * 1000);
    }
    set = compile();
    for (unsigned i = 0; i < 2000; i++) {
        const struct firewall_rule *rule = &rules.list[any_of(rules.count)];
        struct firewall_packet p =
            tcp4(rule->destination_ports.count > 0 ? rule->destination_ports.list[0].first : 1);

        p.protocol = (uint8_t)rule->protocols.list[0].first;
        memcpy(p.source, rule->source.list[0].address.bytes, 4);
        memcpy(p.destination, rule->destination.list[0].address.bytes, 4);
        if (any_of(4) == 0)
            p.destination[3] ^= 1;
        matched += rule_for(set, p) < set->rule_count;
        assert_int_equal(rule_for(set, p), expected(set, &p));
    }
    assert_true(matched > 1000);
    firewall_ruleset_free(set);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    char *arguments[] = {(char *)(uintptr_t) "test_firewall_rules",
                         (char *)(uintptr_t) "--no-huge",
                         (char *)(uintptr_t) "--no-shconf",
                         (char *)(uintptr_t) "--no-telemetry",
                         (char *)(uintptr_t) "--log-level=error",
                         (char *)(uintptr_t) "-m",
                         (char *)(uintptr_t) "1024",
                         (char *)(uintptr_t) "--no-pci",
                         (char *)(uintptr_t) "-l",
                         (char *)(uintptr_t) "0",
                         NULL};
    const struct CMUnitTest tests[] = {
        CASE(without_rules_the_defaults_decide),
        CASE(the_first_rule_that_matches_wins),
        CASE(prefixes_match_to_the_bit),
        CASE(icmp_types_belong_to_their_family),
        CASE(flags_and_dscp_are_looked_at),
        CASE(interfaces_vrfs_and_the_router_are_told_apart),
        CASE(hundreds_of_interfaces_are_told_apart),
        CASE(slots_are_equal_while_names_and_vrfs_are),
        CASE(ranges_are_joined),
        CASE(entries_are_the_product_of_the_lists),
        CASE(too_many_entries_are_refused),
        CASE(counters_go_on_under_the_same_name),
        CASE(a_ruleset_that_is_given_up_leaves_the_old_one_alone),
        CASE(agrees_with_rules_read_one_after_the_other),
        CASE(ten_thousand_rules_are_compiled),
    };

    if (rte_eal_init((int)(sizeof(arguments) / sizeof(arguments[0])) - 1, arguments) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
