/*
 * Firewall rules: what they say, the classifier made of them, and what they counted.
 *
 * The first rule that matches a packet decides. Rules are compiled into one rte_acl context per
 * family. A rule with lists stands there once for each combination of their elements, so the number
 * of these "entries" is bounded (FIREWALL_ENTRIES_MAX).
 *
 * Interfaces and VRFs are known to the classifier as slots, numbers of its own: those of one VRF
 * stand side by side, so that a VRF is one range, and the router itself is a slot too. Interfaces
 * that no rule names share the slot of their VRF.
 *
 * A ruleset never changes once it is made, but for its counters and its map of interfaces. Making
 * and freeing are for the control thread, classifying for any.
 */
#pragma once

#include <rte_common.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ip.h"
#include "interface/interface.h"

enum {
    FIREWALL_ENTRIES_MAX = 1 << 16, /* of all rules together */
    FIREWALL_BURST_MAX = 64,        /* packets classified by one call */
};

enum firewall_action { FIREWALL_ACCEPT, FIREWALL_DROP, FIREWALL_REJECT };
extern const char *const firewall_action_names[]; /* NULL-terminated */

/* --- what rules say --- */

/* Both ends included, host order. */
struct firewall_range {
    uint16_t first, last;
};

/* Lists: an empty one matches everything. Owned by the rule. */
struct firewall_ranges {
    unsigned count;
    struct firewall_range *list;
};

struct firewall_prefixes {
    unsigned count;
    struct ip_prefix *list;
};

struct firewall_names {
    unsigned count;
    char (*list)[INTERFACE_NAME_TEXT];
    bool is_array; /* as it stood in the document, for paths */
};

enum firewall_direction {
    FIREWALL_ANYWHERE,  /* forwarded, and for the router */
    FIREWALL_FORWARDED, /* "to_router": false */
    FIREWALL_TO_ROUTER,
};

struct firewall_rule {
    char name[INTERFACE_NAME_TEXT];
    enum firewall_action action;
    bool enabled, log, stateless;
    enum firewall_direction direction;
    uint8_t family; /* AF_INET, AF_INET6 or 0 = both */
    struct firewall_names in, out;
    char vrf[INTERFACE_NAME_TEXT]; /* of the interface it came in by; "" = any */
    struct firewall_prefixes source, destination;
    struct firewall_ranges protocols; /* single values: no range is longer than one */
    struct firewall_ranges source_ports, destination_ports;
    struct firewall_ranges icmp, icmpv6; /* type << 8 | code */
    uint8_t tcp_flags, tcp_flags_mask;   /* of the flags in the mask, those to be set */
    struct firewall_ranges dscp;
};

struct firewall_rules {
    enum firewall_action default_action, router_default_action;
    unsigned count;
    struct firewall_rule *list;
};

/* Sorts the ranges and joins those that overlap or touch. Returns how many are left. */
unsigned firewall_ranges_join(struct firewall_range *list, unsigned count);

/* How many entries of the family (AF_INET, AF_INET6) the rule needs, at most: interfaces that stand
 * side by side share one. Saturates far above FIREWALL_ENTRIES_MAX. Whether it is enabled does not
 * matter. */
uint64_t firewall_rule_entries(const struct firewall_rule *rule, uint8_t family);

/* Frees the lists, and the rules themselves. */
void firewall_rule_clear(struct firewall_rule *rule);
void firewall_rules_free(struct firewall_rules *rules);

/* --- slots --- */

enum {
    FIREWALL_SLOT_ROUTER = 0, /* as outgoing "interface": the packet is for the router */
    FIREWALL_SLOT_OTHER = 1,  /* neither the interface nor its VRF is named by a rule */
    FIREWALL_SLOT_FIRST = 2,
};

struct firewall_named {
    char name[INTERFACE_NAME_TEXT];
    char vrf[INTERFACE_NAME_TEXT]; /* of an interface */
    uint16_t slot;                 /* of a VRF: that of its interfaces without a name here ... */
    uint16_t last;                 /* ... and the last of its interfaces */
};

struct firewall_slots {
    unsigned interface_count, vrf_count;
    struct firewall_named *interfaces, *vrfs; /* sorted by name */
};

/* Numbers all interfaces and VRFs that the rules name. vrf_of() tells an interface's VRF; NULL
 * where there is no such interface, which then never matches. 0 or -ENOMEM. */
int firewall_slots_make(struct firewall_slots *slots, const struct firewall_rules *rules,
                        const char *(*vrf_of)(const void *context, const char *interface),
                        const void *context);
void firewall_slots_clear(struct firewall_slots *slots);
bool firewall_slots_equal(const struct firewall_slots *a, const struct firewall_slots *b);
/* The slot of an interface in a VRF, by their names. */
uint16_t firewall_slot_of(const struct firewall_slots *slots, const char *interface,
                          const char *vrf);

/* --- rulesets --- */

/* What the rules look at in a packet: numbers in network order. An IPv4 address is the first four
 * bytes. Fields that do not apply are zero. */
struct firewall_packet {
    uint8_t protocol;
    bool ipv6;
    uint16_t in, out; /* slots, network order */
    uint16_t source_port;
    uint16_t destination_port; /* ICMP: type, then code */
    uint8_t dscp, tcp_flags;
    uint8_t source[16], destination[16];
};

/* What packets, and sessions, came to a rule: packets are those that the classifier saw, so the
 * first of each session and all of those without one; bytes count from the IP header on. */
struct firewall_counter {
    uint64_t packets, bytes;
    uint64_t sessions; /* opened */
    uint64_t reserved;
};

/* What is done with a packet that the rule matches. */
struct firewall_verdict {
    char name[INTERFACE_NAME_TEXT]; /* "default", "router_default" for those that are no rules */
    uint8_t action;                 /* enum firewall_action */
    bool enabled, log, stateless;
};

/* Which interface has which slot, by interface id. Replaced whole. */
struct firewall_interfaces {
    uint16_t slot[INTERFACES_MAX]; /* network order */
    char name[INTERFACES_MAX][INTERFACE_NAME_TEXT];
};

struct rte_acl_ctx;

/* The rules of one family; which fields any of them looks at, the others are left out. */
struct firewall_classifier {
    struct rte_acl_ctx *acl; /* NULL: no rule is about the family */
    bool interfaces, source_ports, destination_ports, marks;
    bool wide_slots; /* there are more than fit in a byte */
};

struct firewall_ruleset {
    unsigned rule_count; /* numbers of rules are below this */
    unsigned workers;
    struct firewall_classifier ipv4, ipv6;
    const struct firewall_interfaces *interfaces; /* atomic; the ruleset frees the last one */
    struct firewall_slots slots;
    struct firewall_counter **counters; /* by worker, then by number */
    struct firewall_counter *carried;   /* what rulesets before this one counted under the name */
    struct firewall_ruleset *before;    /* still counting: its counters are added */
    uint32_t *number_before;            /* by number: the number there, UINT32_MAX = none */
    struct firewall_ruleset *after;
    struct firewall_verdict verdicts[]; /* rule_count + 2 */
};

/* The numbers of the two defaults, behind those of the rules. */
static inline uint32_t firewall_default(const struct firewall_ruleset *set) {
    return set->rule_count;
}
static inline uint32_t firewall_router_default(const struct firewall_ruleset *set) {
    return set->rule_count + 1;
}

/* Compiles the rules, for `workers` counting threads; takes over the slots, also when it fails.
 * Takes about a tenth of a millisecond per entry. 0 and *out, or a negative errno: -ENOMEM. Needs
 * rte_eal_init(). */
int firewall_ruleset_make(const struct firewall_rules *rules, struct firewall_slots *slots,
                          unsigned workers, struct firewall_ruleset **out);
/* Counters go on in the ruleset that succeeded this one. No worker may see it any more. NULL is
 * allowed. */
void firewall_ruleset_free(struct firewall_ruleset *set);

/* `set` comes after `before` (may be NULL): it counts on where rules of the same name were. 0 or
 * -ENOMEM. */
int firewall_ruleset_succeed(struct firewall_ruleset *set, struct firewall_ruleset *before);

/* Finds the rule for each of up to FIREWALL_BURST_MAX packets. A later answer holds as long as the
 * ruleset does: numbers of rules or of the defaults. */
void firewall_classify(const struct firewall_ruleset *set, const struct firewall_packet *packets,
                       unsigned count, uint32_t *numbers);

/* What rule `number` counted so far, on all workers and under this name before. */
struct firewall_counter firewall_counted(const struct firewall_ruleset *set, uint32_t number);
