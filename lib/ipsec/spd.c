/*
 * The security policy database (RFC 4301 section 4.4.1): policies by VRF or tunnel interface and
 * direction, the firewall's classifier over their selectors, and in front of that, for IPv4, a
 * cache by flow, since every packet asks.
 */
#include <errno.h>
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_cycles.h>
#include <rte_prefetch.h>
#include <stdlib.h>
#include <string.h>

#include "core/huge_memory.h"
#include "core/rcu.h"
#include "core/slab.h"
#include "ipsec/esp_packet.h"
#include "l3/header.h"
#include "session/session.h"

enum { NAME_BUCKETS = 1 << 14 };

LIST_HEAD(policy_chain, ipsec_policy);

struct spd *_Atomic spd_of_set[IPSEC_DIRECTIONS][SPD_SETS];

static struct ipsec_policy **policies; /* in the order they decide in */
static struct ipsec_policy *deleted;   /* workers may have them until the next ipsec_publish() */
static unsigned count, capacity;
static struct policy_chain names[NAME_BUCKETS]; /* by request, or by SPI where there is none */
static uint64_t serial;
static struct slab slab; /* a policy, and its workers' tallies behind it */
static uint64_t generation;

/* --- the list --- */

static int by_order(const struct ipsec_policy *a, const struct ipsec_policy *b) {
    if (a->settings.priority != b->settings.priority)
        return a->settings.priority < b->settings.priority ? -1 : 1;
    /* Those of the configuration are made anew with each one, and keep their place all the same. */
    if (a->owner != b->owner)
        return a->owner < b->owner ? -1 : 1;
    return a->serial < b->serial ? -1 : 1;
}

static bool same_selector(const struct ipsec_selector *a, const struct ipsec_selector *b) {
    return ip_prefix_compare(&a->source, &b->source) == 0 &&
           ip_prefix_compare(&a->destination, &b->destination) == 0 && a->protocol == b->protocol &&
           memcmp(a->source_port, b->source_port, sizeof(a->source_port)) == 0 &&
           memcmp(a->destination_port, b->destination_port, sizeof(a->destination_port)) == 0;
}

bool policies_collide(const struct ipsec_policy_settings *a,
                      const struct ipsec_policy_settings *b) {
    return a->direction == b->direction && a->vrf == b->vrf && a->if_id == b->if_id &&
           a->priority == b->priority && same_selector(&a->selector, &b->selector);
}

static bool is_taken(const struct ipsec_policy_settings *settings) {
    for (unsigned i = 0; i < count; i++) {
        if (policies_collide(&policies[i]->settings, settings))
            return true;
    }
    return false;
}

static unsigned count_of_config(void) {
    unsigned of_config = 0;

    for (unsigned i = 0; i < count; i++)
        of_config += policies[i]->owner == IPSEC_OF_CONFIG;
    return of_config;
}

int policy_reserve(unsigned more, bool replaces_config) {
    struct ipsec_policy **longer;
    unsigned wanted = capacity ? capacity : 16;
    unsigned stay = replaces_config ? count - count_of_config() : count;

    if (stay + more > IPSEC_POLICIES_MAX)
        return -ENOSPC;
    while (wanted < stay + more)
        wanted *= 2;
    if (wanted == capacity)
        return 0;
    longer = realloc(policies, wanted * sizeof(*policies));
    if (!longer)
        return -ENOMEM;
    policies = longer;
    capacity = wanted;
    return 0;
}

void policy_destroy(struct ipsec_policy *policy) {
    slab_give(&slab, policy);
}

static void destroy_later(void *owner, void *memory, size_t size) {
    (void)owner;
    (void)size;
    policy_destroy(memory);
}

static void place(struct ipsec_policy *policy, unsigned at) {
    policies[at] = policy;
    policy->position = at;
}

static bool needs_sa(const struct ipsec_policy *policy) {
    return policy->settings.direction == IPSEC_OUT && policy->action == IPSEC_PROTECT;
}

static struct policy_chain *chain_of(uint32_t number) {
    return &names[(uint32_t)((number * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % NAME_BUCKETS];
}

static void enter_name(struct ipsec_policy *policy) {
    uint32_t request = policy->settings.request;

    if (needs_sa(policy))
        LIST_INSERT_HEAD(chain_of(request != 0 ? request : policy->settings.spi), policy, named);
}

static void remove_name(struct ipsec_policy *policy) {
    if (needs_sa(policy))
        LIST_REMOVE(policy, named);
}

/* The association added last comes first in their lists. */
static void choose(struct ipsec_policy *policy) {
    const uint32_t request = policy->settings.request, preferred = policy->settings.spi;
    const struct ipsec_sa *sa, *chosen = NULL;

    if (!needs_sa(policy))
        return;
    sa = request != 0 ? sa_first_of_request(request) : sa_first_of_spi(preferred);
    for (; sa; sa = request != 0 ? sa_next_of_request(sa) : sa_next_of_spi(sa)) {
        if (!policy_names(policy, sa))
            continue;
        if (!chosen || sa->settings.spi == preferred)
            chosen = sa;
        if (preferred == 0 || sa->settings.spi == preferred)
            break;
    }
    atomic_store_explicit(&policy->sa, (struct ipsec_sa *)(uintptr_t)chosen, memory_order_release);
}

void ipsec_policy_prefer(struct ipsec_policy *policy, uint32_t spi) {
    remove_name(policy);
    policy->settings.spi = policy->ties.spi = spi;
    enter_name(policy);
    choose(policy);
}

struct ipsec_policy *policy_create(const struct ipsec_policy_settings *settings) {
    struct ipsec_policy *policy;

    slab.size = sizeof(*policy) + (ipsec_shared ? workers_count() : 0) * sizeof(policy->lines[0]);
    policy = slab_take(&slab);
    if (!policy)
        return NULL;
    policy->settings = *settings;
    policy->action = settings->action;
    policy->ties = (struct ipsec_ties){settings->if_id, settings->request, settings->spi};
    return policy;
}

static int by_order_of_place(const void *a, const void *b) {
    return by_order(*(struct ipsec_policy *const *)a, *(struct ipsec_policy *const *)b);
}

static void insert(struct ipsec_policy *policy, enum ipsec_owner owner) {
    unsigned at;

    policy->owner = owner;
    policy->serial = ++serial;
    for (at = count; at > 0 && by_order(policy, policies[at - 1]) < 0; at--)
        place(policies[at - 1], at);
    place(policy, at);
    count++;
    enter_name(policy);
    choose(policy);
}

void policy_insert_all(struct ipsec_policy *const *list, unsigned added, enum ipsec_owner owner) {
    for (unsigned i = 0; i < added; i++) {
        list[i]->owner = owner;
        list[i]->serial = ++serial;
        policies[count++] = list[i];
        enter_name(list[i]);
        choose(list[i]);
    }
    if (count > 0)
        qsort(policies, count, sizeof(policies[0]), by_order_of_place);
    for (unsigned i = 0; i < count; i++)
        place(policies[i], i);
}

int ipsec_policy_add(const struct ipsec_policy_settings *settings, enum ipsec_owner owner,
                     struct ipsec_policy **out) {
    struct ipsec_policy *policy;
    int error;

    if (is_taken(settings))
        return -EEXIST;
    error = policy_reserve(1, false);
    if (error)
        return error;
    policy = policy_create(settings);
    if (!policy)
        return -ENOMEM;
    insert(policy, owner);
    if (out)
        *out = policy;
    return 0;
}

void ipsec_policy_delete(struct ipsec_policy *policy) {
    remove_name(policy);
    count--;
    for (unsigned at = policy->position; at < count; at++)
        place(policies[at + 1], at);
    policy->deleted_next = deleted;
    deleted = policy;
}

void policy_delete_of(enum ipsec_owner owner) {
    unsigned kept = 0;

    for (unsigned i = 0; i < count; i++) {
        struct ipsec_policy *policy = policies[i];

        if (policy->owner != owner) {
            place(policy, kept++);
            continue;
        }
        remove_name(policy);
        policy->deleted_next = deleted;
        deleted = policy;
    }
    count = kept;
}

struct ipsec_policy *ipsec_policy_next(const struct ipsec_policy *previous) {
    unsigned at = previous ? previous->position + 1 : 0;

    return at < count ? policies[at] : NULL;
}

struct ipsec_policy *ipsec_policy_at(uint32_t before) {
    return before < count ? policies[before] : NULL;
}

const struct ipsec_policy_settings *ipsec_policy_settings(const struct ipsec_policy *policy) {
    return &policy->settings;
}

enum ipsec_owner ipsec_policy_owner(const struct ipsec_policy *policy) {
    return policy->owner;
}

void ipsec_policy_counters(const struct ipsec_policy *policy, struct ipsec_policy_counters *out) {
    *out = (struct ipsec_policy_counters){0};
    for (unsigned i = 0; i < workers_count(); i++) {
        const struct policy_tally *tally =
            policy_tally((struct ipsec_policy *)(uintptr_t)policy, i);

        out->packets += __atomic_load_n(&tally->packets, __ATOMIC_RELAXED);
        out->without_sa += __atomic_load_n(&tally->without_sa, __ATOMIC_RELAXED);
    }
}

/* --- which association --- */

static void choose_named(uint32_t number, const struct ipsec_sa *about) {
    struct ipsec_policy *policy;

    LIST_FOREACH(policy, chain_of(number), named) {
        if (policy_names(policy, about))
            choose(policy);
    }
}

void spd_choose(const struct ipsec_sa *about) {
    if (about->settings.direction != IPSEC_OUT)
        return;
    choose_named(about->settings.spi, about);
    if (about->settings.request != 0)
        choose_named(about->settings.request, about);
    /* Workers have these until the next publication, which may come later than the end of what they
     * protect with. */
    for (struct ipsec_policy *policy = deleted; policy; policy = policy->deleted_next) {
        if (policy_names(policy, about))
            choose(policy);
    }
}

/* --- publication --- */

static void free_spd(struct spd *spd) {
    if (!spd)
        return;
    firewall_ruleset_free(spd->rules);
    firewall_ruleset_free(spd->fragments);
    free(spd);
}

static void free_spd_later(void *owner, void *memory, size_t size) {
    (void)owner;
    (void)size;
    free_spd(memory);
}

static bool one_range(struct firewall_ranges *out, const uint16_t range[2], bool any) {
    if (any)
        return true;
    out->list = malloc(sizeof(*out->list));
    if (!out->list)
        return false;
    out->list[0] = (struct firewall_range){range[0], range[1]};
    out->count = 1;
    return true;
}

static bool one_prefix(struct firewall_prefixes *out, const struct ip_prefix *prefix) {
    if (prefix->length == 0)
        return true;
    out->list = malloc(sizeof(*out->list));
    if (!out->list)
        return false;
    out->list[0] = *prefix;
    out->count = 1;
    return true;
}

static bool is_any_port(const uint16_t range[2]) {
    return range[0] == 0 && range[1] == UINT16_MAX;
}

static bool looks_at_ports(const struct ipsec_selector *selector) {
    return !is_any_port(selector->source_port) || !is_any_port(selector->destination_port);
}

static bool make_rule(const struct ipsec_policy *policy, bool fragments,
                      struct firewall_rule *rule) {
    const struct ipsec_selector *selector = &policy->settings.selector;
    const uint16_t protocol[2] = {selector->protocol, selector->protocol};
    const bool ports = looks_at_ports(selector);

    /* A later fragment has no ports, but may belong to a packet that had the right ones. In doubt
     * it is protected or discarded, and does not pass in the clear (RFC 4301 section 7). */
    rule->enabled = !(fragments && ports && policy->action == IPSEC_BYPASS);
    rule->family = selector->source.address.family;
    return one_prefix(&rule->source, &selector->source) &&
           one_prefix(&rule->destination, &selector->destination) &&
           one_range(&rule->protocols, protocol, selector->protocol == 0) &&
           one_range(&rule->source_ports, selector->source_port,
                     fragments || is_any_port(selector->source_port)) &&
           one_range(&rule->destination_ports, selector->destination_port,
                     fragments || is_any_port(selector->destination_port));
}

static int compile_rules(const struct spd *spd, bool fragments, struct firewall_ruleset **out) {
    struct firewall_rules rules = {.count = spd->count};
    struct firewall_slots slots = {0};
    int error = -ENOMEM;
    bool good;

    rules.list = calloc(spd->count, sizeof(*rules.list));
    good = rules.list != NULL;
    for (unsigned i = 0; good && i < spd->count; i++)
        good = make_rule(spd->policies[i], fragments, &rules.list[i]);
    if (good)
        error = firewall_ruleset_make(&rules, &slots, 1, out);
    if (rules.list)
        firewall_rules_free(&rules);
    return error;
}

static int compile(struct spd *spd) {
    bool ports = false;
    int error;

    for (unsigned i = 0; i < spd->count; i++) {
        const struct ipsec_selector *selector = &spd->policies[i]->settings.selector;

        ports |= looks_at_ports(selector);
        spd->ports |= selector->source.address.family == AF_INET && looks_at_ports(selector);
    }
    error = compile_rules(spd, false, &spd->rules);
    return error || !ports ? error : compile_rules(spd, true, &spd->fragments);
}

/* A policy of a tunnel interface that is not there waits for it. */
static uint16_t set_of(const struct ipsec_policy_settings *settings) {
    const struct interface *interface;

    if (settings->if_id == 0)
        return settings->vrf;
    interface = interface_by_if_id(settings->if_id);
    return interface ? spd_set_of_tunnel(interface->id) : SPD_NO_SET;
}

static bool belongs(const struct ipsec_policy *policy, enum ipsec_direction direction,
                    uint16_t set) {
    return policy->set == set && policy->settings.direction == direction;
}

/* NULL with errno 0: there are no such policies. */
static struct spd *make_spd(enum ipsec_direction direction, uint16_t set) {
    struct spd *spd;
    unsigned found = 0;
    int error;

    for (unsigned i = 0; i < count; i++)
        found += belongs(policies[i], direction, set);
    errno = 0;
    if (found == 0)
        return NULL;
    spd = calloc(1, sizeof(*spd) + found * sizeof(spd->policies[0]));
    if (!spd) {
        errno = ENOMEM;
        return NULL;
    }
    for (unsigned i = 0; i < count; i++) {
        if (belongs(policies[i], direction, set))
            spd->policies[spd->count++] = policies[i];
    }
    spd->generation = ++generation;
    error = compile(spd);
    if (error) {
        free_spd(spd);
        errno = -error;
        return NULL;
    }
    return spd;
}

static void retire_deleted(void) {
    while (deleted) {
        struct ipsec_policy *policy = deleted;

        deleted = policy->deleted_next;
        rcu_retire(NULL, destroy_later, NULL, policy, sizeof(*policy));
    }
}

/* Most sets have no policies. */
static void assign_sets(bool used[SPD_SETS]) {
    memset(used, 0, SPD_SETS * sizeof(used[0]));
    for (unsigned i = 0; i < count; i++) {
        policies[i]->set = set_of(&policies[i]->settings);
        if (policies[i]->set != SPD_NO_SET)
            used[policies[i]->set] = true;
    }
}

int ipsec_publish(void) {
    static struct spd *made[SPD_SETS][IPSEC_DIRECTIONS];
    static bool used[SPD_SETS];
    bool inbound = false;
    int error = 0;

    memset(made, 0, sizeof(made));
    assign_sets(used);
    for (unsigned set = 0; set < SPD_SETS && error == 0; set++) {
        for (unsigned d = 0; d < IPSEC_DIRECTIONS && used[set]; d++) {
            made[set][d] = make_spd((enum ipsec_direction)d, (uint16_t)set);
            inbound |= made[set][IPSEC_IN] != NULL;
            if (!made[set][d] && errno != 0)
                error = -errno;
        }
    }
    for (unsigned set = 0; set < SPD_SETS; set++) {
        for (unsigned d = 0; d < IPSEC_DIRECTIONS; d++) {
            struct spd *unused = made[set][d];

            if (error == 0)
                unused = atomic_exchange(&spd_of_set[d][set], made[set][d]);
            if (unused)
                rcu_retire(NULL, free_spd_later, NULL, unused, sizeof(*unused));
        }
    }
    if (error)
        return error;
    atomic_store(&ipsec_has_in_policies, inbound);
    retire_deleted();
    session_look_again(); /* sessions are translated or not by what is protected */
    return 0;
}

/* --- lookup --- */

/* IPv4 flows that were looked up before, in sets of two. A generation stands for one spd, and the
 * policies of an spd live as long as it does. */
enum { CACHE_SETS = 1 << 15, CACHE_WAYS = 2 };
struct spd_cached {
    uint64_t addresses, rest;
    struct ipsec_policy *policy; /* NULL: none */
    uint64_t generation;
};
struct spd_cache {
    struct spd_cached entry[CACHE_SETS][CACHE_WAYS]; /* a cache line each */
};

struct spd_cache *spd_cache_create(void) {
    return huge_memory_map(sizeof(struct spd_cache));
}

void spd_cache_free(struct spd_cache *cache) {
    huge_memory_unmap(cache, sizeof(*cache));
}

static bool has_ports(uint8_t protocol) {
    return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
           protocol == IPPROTO_UDPLITE || protocol == IPPROTO_DCCP;
}

/* Both ports as they stand there; of ICMP its type and code, as destination. Zero where there are
 * none. */
static inline uint32_t ports_of(const struct rte_mbuf *mbuf, const struct packet_meta *meta) {
    const uint8_t *transport = rte_pktmbuf_mtod_offset((struct rte_mbuf *)(uintptr_t)mbuf,
                                                       const uint8_t *, meta->l4_offset);

    if (meta->flags & PACKET_LATER_FRAGMENT || meta->l4_offset + 4u > mbuf->data_len)
        return 0;
    if (likely(has_ports(meta->l4_protocol)))
        return load32(transport);
    if (meta->l4_protocol == IPPROTO_ICMP || meta->l4_protocol == IPPROTO_ICMPV6)
        return (uint32_t)load16(transport) << 16;
    return 0;
}

struct flow_of_packet {
    uint64_t addresses, rest;
    struct spd_cached *set;
};

static inline void find_entry(struct spd_cache *cache, const struct spd *spd, struct rte_mbuf *mbuf,
                              struct flow_of_packet *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    uint64_t hash;

    out->addresses = load64(packet_l3(mbuf, const uint8_t *) + 12);
    out->rest = meta->l4_protocol;
    if (spd->ports)
        out->rest |= (uint64_t)ports_of(mbuf, meta) << 32;
    hash = _mm_crc32_u64(spd->generation, out->addresses);
    hash = _mm_crc32_u64(hash, out->rest);
    out->set = cache->entry[hash % CACHE_SETS];
    rte_prefetch0(out->set);
}

static inline bool is_of(const struct spd_cached *entry, const struct spd *spd,
                         const struct flow_of_packet *flow) {
    return entry->addresses == flow->addresses && entry->rest == flow->rest &&
           entry->generation == spd->generation;
}

static inline const struct spd_cached *cached(const struct spd *spd,
                                              const struct flow_of_packet *flow) {
    const struct spd_cached *set = flow->set;

    if (!set)
        return NULL;
    if (likely(is_of(&set[0], spd, flow)))
        return &set[0];
    return is_of(&set[1], spd, flow) ? &set[1] : NULL;
}

/* An entry of other policies, or one by chance, so that three flows do not drive out each other in
 * turn. */
static struct spd_cached *place_for(const struct spd *spd, const struct flow_of_packet *flow) {
    struct spd_cached *set = flow->set;

    if (set[0].generation != spd->generation)
        return &set[0];
    if (set[1].generation != spd->generation)
        return &set[1];
    return &set[rte_rdtsc() >> 5 & 1];
}

static void describe(struct rte_mbuf *mbuf, struct firewall_packet *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    uint32_t ports = ports_of(mbuf, meta);

    memset(out, 0, sizeof(*out));
    out->protocol = meta->l4_protocol;
    out->ipv6 = meta->flags & PACKET_IPV6;
    out->source_port = (uint16_t)ports; /* both in network order */
    out->destination_port = (uint16_t)(ports >> 16);
    if (out->ipv6) {
        memcpy(out->source, packet + 8, 16);
        memcpy(out->destination, packet + 24, 16);
    } else {
        memcpy(out->source, packet + 12, 4);
        memcpy(out->destination, packet + 16, 4);
    }
}

void spd_note_unmet(struct ipsec_policy *policy, struct rte_mbuf *mbuf) {
    struct policy_unmet *unmet = &policy->unmet;
    const uint64_t clock = atomic_load_explicit(&ipsec_clock, memory_order_relaxed);

    /* A flood of them shall not keep all workers busy with one line of memory. */
    if (atomic_load_explicit(&unmet->state, memory_order_relaxed) == UNMET_FULL &&
        atomic_load_explicit(&unmet->since, memory_order_relaxed) == clock)
        return;
    /* While another worker writes, or the control thread reads, that one is as good. */
    if (atomic_exchange_explicit(&unmet->state, UNMET_TAKEN, memory_order_acquire) == UNMET_TAKEN)
        return;
    describe(mbuf, &unmet->packet);
    atomic_store_explicit(&unmet->since, clock, memory_order_relaxed);
    atomic_store_explicit(&unmet->state, UNMET_FULL, memory_order_release);
}

bool ipsec_policy_unmet(struct ipsec_policy *policy, struct ipsec_flow *out) {
    struct policy_unmet *unmet = &policy->unmet;
    const struct firewall_packet *packet = &unmet->packet;
    uint8_t expected = UNMET_FULL;

    if (!atomic_compare_exchange_strong_explicit(&unmet->state, &expected, UNMET_TAKEN,
                                                 memory_order_acquire, memory_order_relaxed))
        return false;
    *out = (struct ipsec_flow){
        .source = packet->ipv6 ? ip6_address(packet->source) : ip4_address(packet->source),
        .destination =
            packet->ipv6 ? ip6_address(packet->destination) : ip4_address(packet->destination),
        .protocol = packet->protocol,
        .source_port = rte_be_to_cpu_16(packet->source_port),
        .destination_port = rte_be_to_cpu_16(packet->destination_port),
    };
    if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6) {
        out->source_port = out->destination_port >> 8;
        out->destination_port &= 0xff;
    }
    atomic_store_explicit(&unmet->state, UNMET_EMPTY, memory_order_release);
    return true;
}

static void classify_by(const struct spd *spd, const struct firewall_ruleset *rules,
                        struct rte_mbuf *const *packets, uint64_t mask,
                        struct flow_of_packet *flows, struct ipsec_policy **out) {
    struct firewall_packet described[BURST_MAX];
    uint32_t numbers[BURST_MAX];
    uint8_t index[BURST_MAX];
    unsigned n = 0, i;

    BURST_FOREACH (i, mask) {
        describe(packets[i], &described[n]);
        index[n++] = (uint8_t)i;
    }
    if (n == 0)
        return;
    firewall_classify(rules, described, n, numbers);
    for (unsigned k = 0; k < n; k++) {
        struct flow_of_packet *flow = &flows[index[k]];
        bool found = numbers[k] < spd->count;

        out[index[k]] = found ? spd->policies[numbers[k]] : NULL;
        if (flow->set)
            *place_for(spd, flow) = (struct spd_cached){.addresses = flow->addresses,
                                                        .rest = flow->rest,
                                                        .policy = out[index[k]],
                                                        .generation = spd->generation};
    }
}

static void classify(const struct spd *spd, struct rte_mbuf *const *packets, uint64_t mask,
                     struct flow_of_packet *flows, struct ipsec_policy **out) {
    uint64_t later = 0;
    unsigned i;

    if (spd->fragments) {
        BURST_FOREACH (i, mask)
            later |= (uint64_t)((packet_meta(packets[i])->flags & PACKET_LATER_FRAGMENT) != 0) << i;
    }
    if (unlikely(later))
        classify_by(spd, spd->fragments, packets, later, flows, out);
    classify_by(spd, spd->rules, packets, mask & ~later, flows, out);
}

/* All are of the set of `spd`. */
static void look_up(struct worker *worker, const struct spd *spd, struct rte_mbuf *const *packets,
                    uint64_t mask, struct ipsec_policy **out) {
    enum { NO_CACHE = PACKET_IPV6 | PACKET_FRAGMENT };
    struct spd_cache *cache = ipsec_workers[worker->index].cache;
    struct flow_of_packet flows[BURST_MAX];
    uint64_t missing = 0;
    unsigned i;

    BURST_FOREACH (i, mask) {
        if (packet_meta(packets[i])->flags & NO_CACHE)
            flows[i].set = NULL;
        else
            find_entry(cache, spd, packets[i], &flows[i]);
    }
    BURST_FOREACH (i, mask) {
        const struct spd_cached *entry = cached(spd, &flows[i]);

        if (likely(entry != NULL))
            rte_prefetch0(out[i] = entry->policy);
        else
            missing |= UINT64_C(1) << i;
    }
    if (unlikely(missing))
        classify(spd, packets, missing, flows, out);
}

static inline uint16_t set_of_packet(const struct burst *burst, unsigned i, const uint16_t *sets) {
    return sets ? sets[i] : packet_meta(burst->packets[i])->vrf;
}

bool spd_look_up(struct worker *worker, enum ipsec_direction direction, const struct burst *burst,
                 uint64_t mask, const uint16_t *sets, struct ipsec_policy **out) {
    bool found = false;
    unsigned i;

    while (mask) {
        const uint16_t set = set_of_packet(burst, (unsigned)__builtin_ctzll(mask), sets);
        const struct spd *spd = spd_get(direction, set);
        uint64_t here = mask;

        /* Bursts of plain packets are of one interface, and so of one VRF. */
        if (unlikely(worker->burst_kind == BURST_MIXED || sets)) {
            here = 0;
            BURST_FOREACH (i, mask)
                here |= (uint64_t)(set_of_packet(burst, i, sets) == set) << i;
        }
        if (spd) {
            look_up(worker, spd, burst->packets, here, out);
            found = true;
        } else {
            BURST_FOREACH (i, here)
                out[i] = NULL;
        }
        mask &= ~here;
    }
    return found;
}

/* Sessions begin with a packet that is classified here, not looked up in the cache. */
static bool protects(const struct session_new *draft) {
    const struct spd *spd = spd_get(IPSEC_OUT, draft->vrf);
    struct firewall_packet packet = {.ipv6 = draft->flags & FLOW_IPV6};
    uint32_t number;

    if (!spd || interface_table()->entry[draft->out_interface].flags & INTERFACE_TUNNEL)
        return false;
    if (packet.ipv6) {
        packet.protocol = (uint8_t)draft->key.v6.protocol_vrf;
        memcpy(packet.source, draft->key.v6.source, 16);
        memcpy(packet.destination, draft->destination6, 16);
        packet.source_port = draft->key.v6.source_port;
    } else {
        packet.protocol = (uint8_t)draft->key.v4.protocol_vrf;
        memcpy(packet.source, &draft->key.v4.source, 4);
        memcpy(packet.destination, &draft->destination, 4);
        packet.source_port = draft->key.v4.source_port;
    }
    packet.destination_port = draft->destination_port;
    if (!has_ports(packet.protocol))
        packet.source_port = packet.destination_port = 0;
    firewall_classify(spd->rules, &packet, 1, &number);
    return number < spd->count && spd->policies[number]->action == IPSEC_PROTECT;
}

void spd_init(void) {
    session_is_protected = protects;
}

bool spd_is_of_ipsec(struct rte_mbuf *mbuf) {
    enum { IKE_PORT = 500, ESP_UDP_PORT = 4500 };
    const struct packet_meta *meta = packet_meta(mbuf);
    uint16_t port;

    if (meta->l4_protocol == IPPROTO_ESP)
        return true;
    if (meta->l4_protocol != IPPROTO_UDP || meta->flags & PACKET_LATER_FRAGMENT ||
        meta->l4_offset + 4u > mbuf->data_len)
        return false;
    port = load16(rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, meta->l4_offset + 2));
    return port == RTE_BE16(IKE_PORT) || port == RTE_BE16(ESP_UDP_PORT);
}

void spd_free(void) {
    policy_delete_of(IPSEC_OF_CONFIG);
    policy_delete_of(IPSEC_OF_CLIENT);
    policy_delete_of(IPSEC_OF_IKE);
    if (ipsec_publish() == 0) {
        free(policies);
        policies = NULL;
        capacity = 0;
    }
}
