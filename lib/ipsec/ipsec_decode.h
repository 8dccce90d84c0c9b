/* What the section "ipsec" and the methods ipsec.*.add read alike. */
#pragma once

#include "ipsec/ipsec.h"
#include "json/decode.h"

extern const char *const ipsec_direction_names[],
    *const ipsec_mode_names[], *const ipsec_action_names[],
                                   *const ipsec_df_names[]; /* NULL-terminated, by their enums */

/* What is known by name only until the configuration is in force. */
struct ipsec_names {
    char vrf[IPSEC_NAME_TEXT];       /* "default" where none is named */
    char interface[IPSEC_NAME_TEXT]; /* of a tunnel; "" = none */
};

/* An association, and a policy, as the object says. False, with problems, when something is wrong.
 * Whoever gets keys has to zero them. */
bool ipsec_decode_sa(const struct decode *d, struct ipsec_sa_settings *out,
                     struct ipsec_names *names);
bool ipsec_decode_policy(const struct decode *d, struct ipsec_policy_settings *out,
                         struct ipsec_names *names);
