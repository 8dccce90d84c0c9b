/*
 * Network address translation (RFC 2663, 4787, 5382, 5508) on top of lib/session, which does the
 * work for packets of sessions; what is here decides about new ones.
 *
 *   nat_rules     which rule a new session falls under (domain)
 *   nat_mapping   endpoint-independent mappings: inside address and port <-> outside address and
 * port, and the ports that are taken (domain) nat_translate the choice of destination and source
 * for a new session nat_stage     the stage `nat`: rewrites sources behind the firewall nat_config,
 * nat_rpc   the section "nat", nat.list
 *
 * Addresses and ports are in network order unless a name says "host".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Is anything configured? From the section's commit on. */
bool nat_wanted(void);
