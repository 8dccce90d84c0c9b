/*
 * The NAT's rules as workers read them: a snapshot that the control thread makes of the
 * configuration and of the interfaces as they are, and publishes whole.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/ip.h"

enum {
    NAT_NAME_TEXT = 32,
    NAT_LIST_MAX = 64,     /* prefixes in a rule's list */
    NAT_RANGES_MAX = 16,   /* address ranges of a pool */
    NAT_RULES_MAX = 4096,  /* of each kind */
    NAT_PORT_FIRST = 1024, /* default port range, host order */
    NAT_PORT_LAST = 65535,
};

/* A prefix, in host order: address & mask. */
struct nat_prefix {
    uint32_t address, mask;
};

struct nat_prefixes {
    unsigned count; /* 0 = any address */
    struct nat_prefix list[NAT_LIST_MAX];
};

/* Inclusive, host order. The VRF counts where ranges of several rules are put together. */
struct nat_range {
    uint32_t first, last;
    uint16_t vrf;
};

enum nat_target {
    NAT_TO_INTERFACE, /* the first address of the outgoing interface */
    NAT_TO_POOL,
    NAT_TO_NONE, /* exempt: not translated */
};

struct nat_source_rule {
    char name[NAT_NAME_TEXT];
    uint16_t out; /* interface id; 0: it does not exist now, no packet matches */
    uint16_t in;  /* interface id */
    bool any_in;
    uint8_t protocol; /* 0 = any */
    struct nat_prefixes source, destination;
    enum nat_target target;
    bool endpoint_dependent;          /* mapping, RFC 4787 section 4.1 */
    bool endpoint_independent_filter; /* RFC 4787 section 5 */
    uint16_t port_first, port_last;   /* host order */
    uint16_t
        block_size; /* ports per inside address, deterministic (RFC 7422); 0 = all of the range */
    unsigned pool_count;
    struct nat_range pool[NAT_RANGES_MAX]; /* NAT_TO_INTERFACE: the interface's address, or none */
    uint32_t pool_size;                    /* addresses in all ranges */
    bool shares_mapped; /* endpoint-dependent, but on addresses that mappings are made on as well */
    unsigned index;     /* in router.json */
};

struct nat_destination_rule {
    char name[NAT_NAME_TEXT];
    uint16_t in, vrf; /* the VRF of that interface */
    uint8_t protocol; /* 0 = any */
    bool any_port;
    uint16_t port_first, port_last; /* host order */
    struct nat_prefixes source;
    struct nat_prefixes destination; /* as configured, or the interface's addresses; never empty: a
                                        rule without any matches nothing */
    uint32_t to_first, to_last;      /* host order; several share the load by the source address */
    bool keeps_port;
    uint16_t to_port; /* host order: what port_first becomes; the others follow */
    bool hairpin;
    unsigned index;
};

struct nat_static_rule {
    uint32_t outside, inside; /* network order */
    uint16_t interface;       /* of the outside; 0: none that exists */
    uint16_t vrf;
};

/* An IPv6 prefix; bits behind the length are zero. */
struct nat_prefix6 {
    uint8_t address[16];
    uint8_t length;
};

/* Network prefix translation (RFC 6296): the inside prefix appears as the outside one. Both are of
 * the same length. */
struct nptv6_rule {
    char name[NAT_NAME_TEXT];
    uint16_t out, vrf; /* interface id; 0: it does not exist now; and its VRF */
    struct nat_prefix6 inside, outside;
    uint16_t adjustment; /* what outward translation adds to a word: one's complement, as loaded */
    unsigned index;
};

/* Stateful NAT64 (RFC 6146): IPv6 hosts reach IPv4 ones by addresses behind the prefix. */
struct nat64_rule {
    struct nat_source_rule as; /* interfaces, IPv4 destinations, protocol, pool, ports; no source */
    struct nat_prefix6 prefix; /* a length of RFC 6052 */
    uint16_t vrf;              /* of the outgoing interface */
    unsigned source_count;     /* 0 = any */
    struct nat_prefix6 source[NAT_LIST_MAX];
};

/* A static binding of NAT64 (RFC 6146 section 3.2): an outside port, or all of an outside address,
 * leads to an inside host, and that host appears as it. */
struct nat64_static {
    uint32_t outside;  /* network order; 0: the interface has no address now */
    uint16_t out, vrf; /* interface id of the rule, 0: it does not exist now; and its VRF */
    uint16_t rule;     /* index in nat_rules.nat64 */
    uint8_t protocol;  /* as in IPv4; 0: the whole address, and no ports count */
    uint16_t first, last, inside_first; /* host order; first becomes inside_first */
    uint8_t inside[16];
};

struct nat_rules {
    unsigned nptv6_count, nat64_count, nat64_static_count;
    struct nat64_static *nat64_by_outside, *nat64_by_inside; /* sorted for nat_ipv6.c */
    struct nptv6_rule *nptv6;
    struct nat64_rule *nat64;
    unsigned source_count, destination_count, static_count;
    struct nat_source_rule *sources;
    struct nat_destination_rule *destinations;
    struct nat_static_rule *by_outside,
        *by_inside; /* sorted by that address as it stands in memory */
    /* What arrives for one of these addresses and belongs to nobody is not the business of the
     * route table. Sorted, host order; addresses of interfaces are not among them. */
    unsigned pool_count;
    struct nat_range *pools;
    /* Addresses that mappings are made on, those of interfaces included; the same form. */
    unsigned mapped_count;
    struct nat_range *mapped;
};

/* What a rule is asked about. Addresses and ports in network order. */
struct nat_packet {
    uint32_t source, destination;
    uint16_t source_port, destination_port;
    uint8_t protocol;
    bool has_ports; /* TCP, UDP, UDP-Lite or DCCP: ports can be translated */
    uint16_t in, out;
    uint16_t vrf; /* that it came in by */
};

bool nat_source_rule_matches(const struct nat_source_rule *rule, const struct nat_packet *packet);
/* The first source rule that matches a packet that leaves by packet->out, or NULL. */
const struct nat_source_rule *nat_match_source(const struct nat_rules *rules,
                                               const struct nat_packet *packet);
/* The first destination rule that matches, by the interface that the packet came in by or, when the
 * rule allows hairpins, by its destination alone. NULL if there is none. */
const struct nat_destination_rule *nat_match_destination(const struct nat_rules *rules,
                                                         const struct nat_packet *packet);
/* Where the rule sends it. */
void nat_destination_of(const struct nat_destination_rule *rule, const struct nat_packet *packet,
                        uint32_t *address, uint16_t *port);
const struct nat_static_rule *nat_static_outside(const struct nat_rules *rules, uint32_t address);
const struct nat_static_rule *nat_static_inside(const struct nat_rules *rules, uint32_t address);
/* May there be mappings on this outside address? Spares a search of the table for most packets. */
bool nat_is_mapped_address(const struct nat_rules *rules, uint16_t vrf, uint32_t address);
/* Is it an address of a pool, of a static translation, or one on a link that ports are forwarded
 * from, and not an interface's? */
bool nat_is_pool_address(const struct nat_rules *rules, uint16_t vrf, uint32_t address);

/* The n-th address of the rule's pool, network order; n below pool_size. */
uint32_t nat_pool_address(const struct nat_source_rule *rule, uint32_t n);

/* Which address of the pool, and which ports (host order), an inside address has. With port blocks
 * both follow from the inside address alone (RFC 7422): blocks are given out in the order of the
 * addresses in the rule's source prefixes. False when the pool has fewer blocks than there are
 * inside addresses before this one, or no address at all. */
bool nat_share_of(const struct nat_source_rule *rule, uint32_t inside, uint32_t *outside,
                  uint16_t *first, uint16_t *last);

void nat_rules_free(struct nat_rules *rules);
