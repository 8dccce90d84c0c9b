/* What the files that read the section "nat" share. Problems are noted where they are found. */
#pragma once

#include "nat/nat_internal.h"
#include "json/decode.h"

/* The list under `key`, and its size; 0 with a problem when it cannot be a list of rules. */
unsigned nat_decode_list(const struct decode *d, const char *key, struct decode *out);
/* The rule's name, or "KIND-NUMBER", into NAT_NAME_TEXT bytes. */
void nat_decode_name(const struct decode *d, const char *kind, unsigned index, char *out);
/* The name of an interface, into INTERFACE_NAME_TEXT bytes. */
void nat_decode_interface(const struct decode *d, const char *key, bool required, char *out);
/* An IPv4 address that a host can have. */
bool nat_decode_ipv4(const struct decode *d, struct ip_address *out);
/* All of a source rule but its name, its sources and port blocks. */
void nat_decode_source_rule(const struct decode *d, char *in, char *out,
                            struct nat_source_rule *rule);
void nat_check_interface(const struct config *config, struct problems *problems, const char *kind,
                         unsigned index, const char *key, const char *name);

/* --- nat_ipv6_config.c --- */

void nat_decode_ipv6(const struct decode *d, struct nat_config *config);
void nat_check_ipv6(const struct config *config, const struct nat_config *nat,
                    struct problems *problems);
