/*
 * The snapshot of the rules that workers read: made anew whenever the configuration or an
 * interface's addresses change.
 */
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_common.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/log.h"
#include "core/rcu.h"
#include "l3/link.h"
#include "nat/nat_internal.h"
#include "nat/nat_ipv6.h"
#include "session/session.h"

static uint16_t id_of(const char *name) {
    const struct interface *interface = interface_by_name(name);

    return interface ? interface->id : 0;
}

static uint16_t vrf_of(const char *name) {
    const struct interface *interface = interface_by_name(name);

    return interface ? interface->vrf : VRF_DEFAULT;
}

static void fill_source(const char *in, const char *out_name, struct nat_source_rule *rule) {
    const struct interface *out = interface_by_name(out_name);
    const struct interface_address *address = out ? interface_source(out, AF_INET) : NULL;

    rule->out = out ? out->id : 0;
    rule->in = id_of(in);
    if (rule->target == NAT_TO_INTERFACE && address) {
        uint32_t host = ip4_host_order(&address->prefix.address);

        rule->pool[0] = (struct nat_range){host, host, 0};
        rule->pool_count = rule->pool_size = 1;
    }
    for (unsigned r = 0; out && r < rule->pool_count; r++)
        rule->pool[r].vrf = out->vrf;
}

/* The rules that have pools: those of sources, then those of NAT64. */
static unsigned pooled_count(const struct nat_rules *rules) {
    return rules->source_count + rules->nat64_count;
}

static struct nat_source_rule *pooled(const struct nat_rules *rules, unsigned i) {
    return i < rules->source_count ? &rules->sources[i] : &rules->nat64[i - rules->source_count].as;
}

static bool makes_mappings(const struct nat_source_rule *rule) {
    return rule->out != 0 && rule->target != NAT_TO_NONE && !rule->endpoint_dependent;
}

static void add_addresses(const struct nat_source_rule *rule) {
    for (uint32_t n = 0; n < rule->pool_size; n++) {
        int error = nat_mapping_add_address(nat_pool_address(rule, n), rule->pool[0].vrf);

        if (error) {
            log_error("nat",
                      "source rule %s: no port can be given out of address %u and those "
                      "behind it: %s",
                      rule->name, n + 1, strerror(-error));
            return;
        }
    }
}

/* Those that stay are named first, so that the old pools make room for the new ones. */
static void take_addresses(const struct nat_rules *rules) {
    nat_mapping_begin_addresses();
    for (unsigned i = 0; i < pooled_count(rules); i++) {
        const struct nat_source_rule *rule = pooled(rules, i);

        for (uint32_t n = 0; makes_mappings(rule) && n < rule->pool_size; n++)
            nat_mapping_name_address(nat_pool_address(rule, n), rule->pool[0].vrf);
    }
    nat_mapping_drop_addresses();
    for (unsigned i = 0; i < pooled_count(rules); i++) {
        if (makes_mappings(pooled(rules, i)))
            add_addresses(pooled(rules, i));
    }
}

static void fill_nptv6(const struct nptv6_config *config, struct nptv6_rule *rule) {
    const struct interface *out = interface_by_name(config->out);

    *rule = config->rule;
    rule->out = out ? out->id : 0;
    rule->vrf = vrf_of(config->out);
}

/* Static bindings of all NAT64 rules, and their ports, which no mapping may have. */
static void fill_statics6(const struct nat_config *config, struct nat_rules *rules) {
    unsigned count = 0;

    for (unsigned i = 0; i < config->nat64_count; i++)
        count += config->nat64[i].static_count;
    rules->nat64_by_outside = nat_allocate(count, sizeof(rules->nat64_by_outside[0]));
    rules->nat64_by_inside = nat_allocate(count, sizeof(rules->nat64_by_inside[0]));
    for (unsigned i = 0; i < config->nat64_count; i++) {
        const struct interface *out = interface_by_name(config->nat64[i].out);
        const struct interface_address *address = out ? interface_source(out, AF_INET) : NULL;

        for (unsigned n = 0; n < config->nat64[i].static_count; n++) {
            const struct nat64_static_config *entry = &config->nat64[i].statics[n];
            struct nat64_static *fixed = &rules->nat64_by_outside[rules->nat64_static_count++];

            *fixed = entry->fixed;
            fixed->rule = (uint16_t)i;
            fixed->out = out ? out->id : 0;
            fixed->vrf = out ? out->vrf : VRF_DEFAULT;
            if (entry->of_interface && address)
                memcpy(&fixed->outside, address->prefix.address.bytes, sizeof(fixed->outside));
            if (nat_mapping_keep_ports(fixed->outside, fixed->vrf, fixed->protocol, fixed->first,
                                       fixed->protocol == 0 ? UINT16_MAX : fixed->last) != 0)
                log_error("nat", "nat64[%u].static[%u]: no memory to keep its ports from others", i,
                          n);
        }
    }
    memcpy(rules->nat64_by_inside, rules->nat64_by_outside,
           count * sizeof(rules->nat64_by_inside[0]));
    nat64_statics_prepare(rules);
}

static void fill_destination(const struct destination_config *config,
                             struct nat_destination_rule *rule) {
    const struct interface *in = interface_by_name(config->in);

    *rule = config->rule;
    rule->in = in ? in->id : 0;
    rule->vrf = in ? in->vrf : VRF_DEFAULT;
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
    const struct nat_range *left = a, *right = b;

    if (left->vrf != right->vrf)
        return left->vrf < right->vrf ? -1 : 1;
    return (left->first > right->first) - (left->first < right->first);
}

bool nat_is_interface_address(uint32_t host) {
    uint32_t network = rte_cpu_to_be_32(host);
    struct ip_address address = ip4_address(&network);

    for (const struct interface *i = interface_next(NULL); i; i = interface_next(i)) {
        if (link_own(i, &address))
            return true;
    }
    return false;
}

/* The lowest address in the range that an interface has. */
static bool first_own(struct nat_range range, uint32_t *out) {
    bool found = false;

    for (const struct interface *i = interface_next(NULL); i; i = interface_next(i)) {
        for (unsigned n = 0; n < i->address_count; n++) {
            const struct ip_address *address = &i->addresses[n].prefix.address;
            uint32_t host;

            if (address->family != AF_INET || !link_own(i, address))
                continue;
            host = ip4_host_order(address);
            if (host < range.first || host > range.last)
                continue;
            range.last = *out = host;
            found = true;
        }
    }
    return found;
}

static void append_pool(struct nat_rules *rules, struct nat_range range) {
    rules->pools = realloc(rules->pools, (rules->pool_count + 1) * sizeof(rules->pools[0]));
    if (!rules->pools)
        abort();
    rules->pools[rules->pool_count++] = range;
}

/* Adds the range without the addresses that interfaces have. */
static void add_pool(struct nat_rules *rules, struct nat_range range) {
    uint32_t host;

    while (first_own(range, &host)) {
        if (host > range.first)
            append_pool(rules, (struct nat_range){range.first, host - 1, range.vrf});
        if (host == range.last)
            return;
        range.first = host + 1;
    }
    append_pool(rules, range);
}

/* Sorted and joined, for the search; returns how many are left. */
static unsigned finish_ranges(struct nat_range *ranges, unsigned count) {
    unsigned kept = 0;

    if (count == 0)
        return 0;
    qsort(ranges, count, sizeof(ranges[0]), by_first);
    for (unsigned i = 1; i < count; i++) {
        if (ranges[i].vrf == ranges[kept].vrf && ranges[i].first <= ranges[kept].last + (uint64_t)1)
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
        nat_allocate((size_t)pooled_count(rules) * NAT_RANGES_MAX, sizeof(rules->mapped[0]));
    for (unsigned i = 0; i < pooled_count(rules); i++) {
        const struct nat_source_rule *rule = pooled(rules, i);

        for (unsigned r = 0; !rule->endpoint_dependent && r < rule->pool_count; r++)
            rules->mapped[rules->mapped_count++] = rule->pool[r];
    }
    rules->mapped_count = finish_ranges(rules->mapped, rules->mapped_count);
    for (unsigned i = 0; i < pooled_count(rules); i++) {
        struct nat_source_rule *rule = pooled(rules, i);

        for (unsigned r = 0; r < rule->pool_count; r++) {
            for (unsigned m = 0; m < rules->mapped_count; m++)
                rule->shares_mapped |= rule->pool[r].vrf == rules->mapped[m].vrf &&
                                       rule->pool[r].first <= rules->mapped[m].last &&
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
            add_pool(rules, (struct nat_range){host, host, rule->vrf});
    }
}

static void collect_pools(struct nat_rules *rules) {
    for (unsigned i = 0; i < pooled_count(rules); i++) {
        const struct nat_source_rule *rule = pooled(rules, i);

        for (unsigned r = 0; rule->target == NAT_TO_POOL && r < rule->pool_count; r++)
            add_pool(rules, rule->pool[r]);
    }
    for (unsigned i = 0; i < rules->destination_count; i++)
        collect_forwarded(rules, &rules->destinations[i]);
    for (unsigned i = 0; i < rules->static_count; i++) {
        uint32_t host = rte_be_to_cpu_32(rules->by_outside[i].outside);

        add_pool(rules, (struct nat_range){host, host, rules->by_outside[i].vrf});
    }
    for (unsigned i = 0; i < rules->nat64_static_count; i++) {
        const struct nat64_static *fixed = &rules->nat64_by_outside[i];
        uint32_t host = rte_be_to_cpu_32(fixed->outside);

        if (host != 0)
            add_pool(rules, (struct nat_range){host, host, fixed->vrf});
    }
    rules->pool_count = finish_ranges(rules->pools, rules->pool_count);
    collect_mapped(rules);
}

static struct nat_rules *make_rules(const struct nat_config *config) {
    struct nat_rules *rules = nat_allocate(1, sizeof(*rules));
    size_t statics = config->static_count * sizeof(rules->by_outside[0]);

    rules->source_count = config->source_count;
    rules->destination_count = config->destination_count;
    rules->static_count = config->static_count;
    rules->sources = nat_allocate(config->source_count, sizeof(rules->sources[0]));
    rules->destinations = nat_allocate(config->destination_count, sizeof(rules->destinations[0]));
    rules->by_outside = nat_allocate(config->static_count, sizeof(rules->by_outside[0]));
    rules->by_inside = nat_allocate(config->static_count, sizeof(rules->by_inside[0]));
    rules->nptv6_count = config->nptv6_count;
    rules->nat64_count = config->nat64_count;
    rules->nptv6 = nat_allocate(config->nptv6_count, sizeof(rules->nptv6[0]));
    rules->nat64 = nat_allocate(config->nat64_count, sizeof(rules->nat64[0]));
    for (unsigned i = 0; i < config->source_count; i++) {
        rules->sources[i] = config->sources[i].rule;
        fill_source(config->sources[i].in, config->sources[i].out, &rules->sources[i]);
    }
    for (unsigned i = 0; i < config->nat64_count; i++) {
        rules->nat64[i] = config->nat64[i].rule;
        fill_source(config->nat64[i].in, config->nat64[i].out, &rules->nat64[i].as);
        rules->nat64[i].vrf = vrf_of(config->nat64[i].out);
    }
    for (unsigned i = 0; i < config->nptv6_count; i++)
        fill_nptv6(&config->nptv6[i], &rules->nptv6[i]);
    take_addresses(rules);
    fill_statics6(config, rules);
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

/* --- in force --- */

void nat_publish(void) {
    struct nat_rules *new = nat_wanted() ? make_rules(nat_config_in_force) : NULL;
    struct nat_rules *old = (struct nat_rules *)(uintptr_t)atomic_load(&nat_rules_published);

    if (!new)
        session_translate(false);
    if (new || !old)
        atomic_store_explicit(&nat_rules_published, new, memory_order_release);
    if (new)
        session_translate(true);
    /* Without NAT the last rules stay until no worker looks at them: see nat_unpublish(). */
    if (old && new)
        rcu_retire(NULL, free_retired, NULL, old, 0);
    nat_review();
}

static struct event_timer publish_timer;

static void publish_later(struct event_timer *timer) {
    (void)timer;
    nat_publish();
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
           nat_is_pool_address(rules, interface->vrf, network) &&
           link_connected(interface, address);
}

void nat_publish_init(void) {
    static struct interface_listener listener = {
        .added = interface_changed,
        .removed = interface_changed,
        .address_added = address_changed,
        .address_removed = address_changed,
        .address_changed = address_changed,
    };

    publish_timer.expired = publish_later;
    arp_answers_for = answers_for;
    interface_listen(&listener);
}

void nat_unpublish(void) {
    struct nat_rules *rules = (struct nat_rules *)(uintptr_t)atomic_load(&nat_rules_published);

    atomic_store(&nat_rules_published, NULL);
    nat_rules_free(rules);
}
