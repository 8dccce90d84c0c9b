/*
 * Messages of Linux's XFRM netlink protocol (<linux/xfrm.h>), which IKE daemons speak to a kernel,
 * and what they are in terms of this router. Only reading and writing: no sockets, no state.
 *
 * Whoever sends these messages is trusted with keys, but not with memory: lengths are checked, and
 * what is malformed is an error. Errors are those of Linux, since daemons know them: -EINVAL for
 * what makes no sense, -ENOSYS for an algorithm that there is not, -EPROTONOSUPPORT for AH and
 * IPComp, -EOPNOTSUPP for what only the kernel can do.
 */
#pragma once

#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipsec/ipsec.h"

enum { XFRM_MESSAGE_MAX = 8192 }; /* bytes; none that is written here needs so many */

/* --- reading --- */

/* The messages of a packet of `length` bytes, one after the other: the first for NULL. NULL: there
 * is no further one, or it is longer than what is left. */
const struct nlmsghdr *xfrm_next_message(const void *packet, size_t length,
                                         const struct nlmsghdr *previous);

/* A security association as a message describes it. */
struct xfrm_sa {
    /* With keys. `vrf` and `sequence` are not set; nor is `direction`, unless the message says. */
    struct ipsec_sa_settings settings;
    bool has_direction;
    struct xfrm_usersa_info info; /* as it came: selector, limits, flags */
    bool has_replay;              /* numbers that it goes on from */
    uint64_t sent, received;      /* the highest sequence numbers so far */
    bool has_use;                 /* what it has been used for so far */
    struct xfrm_lifetime_cur use;
};

/* Of XFRM_MSG_NEWSA or XFRM_MSG_UPDSA. 0 or negative errno; after an error too `out` may hold keys.
 */
int xfrm_read_sa(const struct nlmsghdr *message, struct xfrm_sa *out);

/* What names an association. */
struct xfrm_sa_key {
    uint32_t spi; /* host order */
    struct ip_address destination;
};

/* Of XFRM_MSG_DELSA and XFRM_MSG_GETSA. */
int xfrm_read_sa_key(const struct nlmsghdr *message, struct xfrm_sa_key *out);

/* Of XFRM_MSG_NEWAE and XFRM_MSG_GETAE; of the first also the numbers and what it has been used
 * for, as in struct xfrm_sa. */
int xfrm_read_replay(const struct nlmsghdr *message, struct xfrm_sa_key *key, struct xfrm_sa *out);

/* XFRM_MSG_ALLOCSPI: an SPI between two, both included. */
struct xfrm_spi_request {
    struct xfrm_usersa_info info; /* as it came */
    struct ip_address destination;
    uint32_t least, most;
};
int xfrm_read_spi_request(const struct nlmsghdr *message, struct xfrm_spi_request *out);

/* XFRM_MSG_FLUSHSA: of which protocol. */
int xfrm_read_flush(const struct nlmsghdr *message, uint8_t *protocol);

/* A policy as a message describes it. */
struct xfrm_policy {
    struct ipsec_policy_settings settings; /* `vrf` is not set */
    struct ip_address local;               /* this end of the tunnel; family 0 = unknown */
    struct xfrm_userpolicy_info info;      /* as it came */
    bool has_template;
    struct xfrm_user_tmpl template;
};

/* Of XFRM_MSG_NEWPOLICY or XFRM_MSG_UPDPOLICY. */
int xfrm_read_policy(const struct nlmsghdr *message, struct xfrm_policy *out);

/* What names a policy: its index if that is not 0, else direction, selector, and number of a tunnel
 * interface (0 = none). */
struct xfrm_policy_key {
    struct xfrm_userpolicy_id id;
    uint32_t if_id;
};

/* Of XFRM_MSG_GETPOLICY or XFRM_MSG_DELPOLICY. The selector is cleaned as in xfrm_read_policy(), so
 * that bytes can be compared. */
int xfrm_read_policy_key(const struct nlmsghdr *message, struct xfrm_policy_key *out);

/* --- writing --- */

/* What a message answers; all 0 for an event. */
struct xfrm_reply {
    uint32_t sequence, port;
    uint16_t flags; /* NLM_F_MULTI in a dump */
};

/* What an association has done, in the terms of <linux/xfrm.h>: seconds since 1970, 0 = never. */
struct xfrm_sa_state {
    struct xfrm_lifetime_cur use;
    uint64_t last_used;
    uint64_t sequence; /* the highest, sent or received */
    uint32_t replayed, too_old, failed;
};

/* Each writes one message into a buffer of XFRM_MESSAGE_MAX bytes and returns it. */

/* The answer to the request: `error` 0 or negative errno. Of the request it carries the header
 * alone, since there may be keys behind it. */
struct nlmsghdr *xfrm_write_answer(void *buffer, const struct nlmsghdr *request, uint32_t port,
                                   int error);
struct nlmsghdr *xfrm_write_done(void *buffer, const struct xfrm_reply *reply);
/* XFRM_MSG_NEWSA with all that xfrm_read_sa() takes, keys included. */
struct nlmsghdr *xfrm_write_sa(void *buffer, const struct xfrm_reply *reply,
                               const struct xfrm_sa *sa, const struct xfrm_sa_state *state);
/* XFRM_MSG_NEWSA for an SPI that was asked for: no algorithms yet. */
struct nlmsghdr *xfrm_write_spi(void *buffer, const struct xfrm_reply *reply,
                                const struct xfrm_usersa_info *info);
/* XFRM_MSG_NEWAE. */
struct nlmsghdr *xfrm_write_replay(void *buffer, const struct xfrm_reply *reply,
                                   const struct xfrm_sa *sa, const struct xfrm_sa_state *state);
/* XFRM_MSG_NEWPOLICY. */
struct nlmsghdr *xfrm_write_policy(void *buffer, const struct xfrm_reply *reply,
                                   const struct xfrm_policy *policy, uint64_t use_time);
/* XFRM_MSG_EXPIRE: the soft limit was passed, which asks for a successor, or the hard one. */
struct nlmsghdr *xfrm_write_expire(void *buffer, const struct xfrm_sa *sa,
                                   const struct xfrm_sa_state *state, bool hard);
/* XFRM_MSG_MAPPING: packets in UDP come from another address or port (host order) than the
 * association says. */
struct nlmsghdr *xfrm_write_mapping(void *buffer, const struct xfrm_sa *sa,
                                    const struct ip_address *source, uint16_t port);
/* XFRM_MSG_ACQUIRE: packets match the policy, and there is no association. `flow`: one of them,
 * which IKE names to the peer beside what the policy is about (RFC 7296 section 2.9); or NULL. */
struct nlmsghdr *xfrm_write_acquire(void *buffer, const struct xfrm_policy *policy,
                                    const struct ipsec_flow *flow, uint32_t sequence);
/* XFRM_MSG_NEWSADINFO and XFRM_MSG_NEWSPDINFO; policies by their XFRM_POLICY_IN, _OUT, _FWD. */
struct nlmsghdr *xfrm_write_sad_info(void *buffer, const struct xfrm_reply *reply, uint32_t sas);
struct nlmsghdr *xfrm_write_spd_info(void *buffer, const struct xfrm_reply *reply,
                                     const uint32_t policies[XFRM_POLICY_MAX]);
