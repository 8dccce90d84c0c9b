/* Inside lib/nat: what its files share. */
#pragma once

#include "core/drops.h"
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
