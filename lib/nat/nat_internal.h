/* Inside lib/nat: what its files share. */
#pragma once

#include "core/drops.h"
#include "interface/interface.h"
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
};
extern struct drop_group nat_drops;

/* The rules in force; never NULL while sessions are translated. Good until the worker's turn ends.
 */
extern const struct nat_rules *_Atomic nat_rules_published;

/* What lib/session calls; see session.h. */
extern const struct session_translator nat_translator;

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

/* Looks at all live sessions, some at a time, and ends those whose translation no rule gives any
 * more. */
void nat_review(void);
