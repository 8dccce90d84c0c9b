/* Inside lib/nat: what its files share. */
#pragma once

#include <stdatomic.h>

#include "core/counters.h"
#include "core/drops.h"
#include "core/worker.h"
#include "interface/interface.h"
#include "l3/next_hop.h"
#include "nat/nat.h"
#include "nat/nat_mapping.h"
#include "nat/nat_rules.h"
#include "session/session.h"

enum nat_drop {
    NAT_PORTS_EXHAUSTED,
    NAT_NO_ADDRESS,
    NAT_NO_BLOCK,
    NAT_NO_MAPPING,
    NAT_CONFLICT,
    NAT_TABLE_FULL,
    NAT_BUSY,
    NAT_NPTV6_ADDRESS,
    NAT_NAT64_SOURCE,
    NAT_NAT64_DESTINATION,
    NAT_NAT64_PROTOCOL,
    NAT_NAT64_NO_RULE,
};
extern struct drop_group nat_drops;

/* The rules in force; never NULL while sessions are translated. Good until the worker's turn ends.
 */
extern const struct nat_rules *_Atomic nat_rules_published;

/* What lib/session calls; see session.h. */
extern const struct session_translator nat_translator;

/* Counts the reason; false, for the caller to return. */
static inline bool nat_refuse(struct worker *worker, enum nat_drop reason) {
    counters_drop(worker->counters, &nat_drops, reason);
    return false;
}

/* --- nat_translate.c --- */

/* The rules in force, as a worker reads them. */
static inline const struct nat_rules *nat_rules_now(void) {
    return atomic_load_explicit(&nat_rules_published, memory_order_acquire);
}

/* The interface that what goes to an inside host leaves by; of equal-cost next hops the first. */
static inline uint16_t nat_interface_of(uint32_t next_hop) {
    const struct next_hop *hop = next_hop_get(next_hop);

    return hop->type == NEXT_HOP_GROUP ? next_hop_get(hop->buckets[0])->out_interface
                                       : hop->out_interface;
}

/* An address and a port of the rule for the draft, whose inside is `inside6` or, if that is NULL,
 * the IPv4 source of its key. Sets source, source_port and mapping. */
bool nat_apply_rule(struct worker *worker, struct session_new *draft,
                    const struct nat_source_rule *rule, const struct nat_inside6 *inside6);

/* --- nat_translate6.c: the same choices for packets that come in as IPv6, and those that go on as
 * such --- */

bool nat_choose_destination6(struct worker *worker, struct rte_mbuf *mbuf,
                             struct session_miss *miss);
bool nat_choose_source6(struct worker *worker, struct session_new *draft);
bool nat_wants_source6(const struct flow_key6 *key, uint16_t in, uint16_t out);
bool nat_stateless6(struct worker *worker, struct rte_mbuf *mbuf, uint16_t out);
/* The rule by which this packet from the IPv4 side may begin a session with a mapping that has an
 * IPv6 inside; NULL: it may not. */
const struct nat64_rule *nat_open_to_ipv6(struct rte_mbuf *mbuf, const struct flow_key4 *key,
                                          uint32_t mapping);
/* Such a packet by that rule, or one to a static binding. */
bool nat_enter_ipv6(struct worker *worker, struct rte_mbuf *mbuf, struct session_miss *miss,
                    uint32_t mapping, const struct nat64_rule *rule);
bool nat_enter_static6(struct worker *worker, struct rte_mbuf *mbuf, struct session_miss *miss,
                       const struct nat64_static *fixed);
bool nat_restore6(struct session_new *draft, bool mapped);
/* Does a rule give the live session, of which one flow is IPv6, its translation still? */
bool nat_stands6(const struct nat_rules *rules, const struct session *session,
                 const struct flow *forward);

/* --- as configured: rules with the names of interfaces --- */

struct nptv6_config {
    char out[INTERFACE_NAME_TEXT];
    struct nptv6_rule rule;
};

struct nat64_static_config {
    bool of_interface; /* the outside is the first address of `out` */
    struct nat64_static fixed;
};

struct nat64_config {
    char in[INTERFACE_NAME_TEXT], out[INTERFACE_NAME_TEXT];
    struct nat64_rule rule;
    unsigned static_count;
    struct nat64_static_config *statics;
};

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
    unsigned nptv6_count, nat64_count;
    struct nptv6_config *nptv6;
    struct nat64_config *nat64;
    unsigned source_count, destination_count, static_count;
    struct source_config *sources;
    struct destination_config *destinations;
    struct static_config *statics;
};

/* What is in force; NULL before the first configuration. */
extern const struct nat_config *nat_config_in_force;

/* Ends the program when there is no memory, like the other keepers of the configuration. */
void *nat_allocate(size_t count, size_t size);

/* --- nat_publish.c: the snapshot that workers read --- */

/* Once: watches the interfaces and answers ARP for pools. */
void nat_publish_init(void);
/* Makes the snapshot anew, of the configuration in force and the interfaces as they are, and has
 * the live sessions reviewed. */
void nat_publish(void);
/* Without NAT the last rules stay until no worker looks at them: this is when. */
void nat_unpublish(void);
/* Has any interface the address, in host order? */
bool nat_is_interface_address(uint32_t host);

/* --- nat_review.c --- */

/* The first rule that gives the source of a packet with two new ends this outside address (host
 * order). The packet has the destination that it came with, and `became` is the other one; it is
 * not known any more whether it turned round, and at which outside interface. */
const struct nat_source_rule *nat_hairpin_rule(const struct nat_rules *rules,
                                               const struct nat_packet *packet, uint32_t became,
                                               uint32_t outside);

/* Looks at all live sessions, some at a time, and ends those whose translation no rule gives any
 * more. */
void nat_review(void);
