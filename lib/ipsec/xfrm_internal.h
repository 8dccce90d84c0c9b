/*
 * Inside the XFRM server: what IKE has made, in the terms in which it asks for it. xfrm_sad.c and
 * xfrm_spd.c keep records beside the databases that packets meet, and xfrm_server.c speaks.
 */
#pragma once

#include <sys/queue.h>

#include "core/event.h"
#include "ipsec/xfrm_message.h"

/* Sends an event to the daemons that listen to the group (enum xfrm_nlgroups). False: nobody does.
 */
bool xfrm_notify(unsigned group, const struct nlmsghdr *message);

/* Looks at counters every half a second from now on, as long as there is something to look at. */
void xfrm_poll_start(void);

/* The VRF in which this is an address of the router, or -1. */
int xfrm_local_vrf(const struct ip_address *address);

/* Seconds since 1970 at a time of event_now(). */
uint64_t xfrm_real_time(uint64_t msec);

/* --- associations --- */

struct xfrm_sa_record {
    TAILQ_ENTRY(xfrm_sa_record) listed, polled;
    LIST_ENTRY(xfrm_sa_record) hashed;
    uint64_t serial; /* in the order in which they were made */
    struct xfrm_sa_key key;
    bool larval; /* an SPI that was asked for: there is no association yet, and of `sa` only `info`
                    is set */
    bool is_polled;
    uint64_t moved; /* event_now() when the daemon was told last that its packets come from
                       elsewhere, 0 = never */
    struct event_timer timer; /* of a larval one: the end of waiting */
    struct xfrm_sa sa;        /* keys included */
};

/* Reserves an SPI. -ENOENT: all are taken; -ENOMEM, -ENOSPC. */
int xfrm_sad_allocate(const struct xfrm_spi_request *request, const struct xfrm_sa_record **out);
/* Adds the association, or puts it in the place of the one with its SPI and destination. `update`:
 * the daemon says that the SPI was allocated here. The keys in `sa` are zeroed. */
int xfrm_sad_put(struct xfrm_sa *sa, bool update);
/* -ESRCH: there is none. */
int xfrm_sad_delete(const struct xfrm_sa_key *key);
/* Sets numbers and what it was used for, as far as `from` has them. */
int xfrm_sad_set_replay(const struct xfrm_sa_key *key, const struct xfrm_sa *from);
const struct xfrm_sa_record *xfrm_sad_find(const struct xfrm_sa_key *key);
/* The first one that was made after the one with this serial; 0: the first. */
const struct xfrm_sa_record *xfrm_sad_after(uint64_t serial);
void xfrm_sad_state(struct xfrm_sa_record *record, struct xfrm_sa_state *out);
void xfrm_sad_flush(void);
unsigned xfrm_sad_count(void);
/* Looks whether packets come from elsewhere. False: no association wants to know. */
bool xfrm_sad_poll(void);

/* --- policies --- */

struct xfrm_policy_record {
    TAILQ_ENTRY(xfrm_policy_record) listed;
    LIST_ENTRY(xfrm_policy_record) hashed;
    uint64_t serial;
    struct xfrm_policy policy;
    /* NULL: a forward policy beside an inbound one for the same packets, which is here the same. */
    struct ipsec_policy *in_force;
    uint64_t packets, without_sa; /* as counted when they were looked at last */
    uint64_t used;                /* event_now(), 0 = never */
    uint64_t acquired;            /* event_now() of the last ACQUIRE, 0 = none */
};

int xfrm_spd_put(const struct xfrm_policy *policy);
/* NULL: there is none. Its `used` is of now. */
const struct xfrm_policy_record *xfrm_spd_find(const struct xfrm_policy_key *key);
int xfrm_spd_delete(const struct xfrm_policy_key *key); /* -ENOENT */
const struct xfrm_policy_record *xfrm_spd_after(uint64_t serial);
void xfrm_spd_flush(void);
void xfrm_spd_count(uint32_t out[XFRM_POLICY_MAX]);
/* Notes which policies are in use, and asks for associations that are missing. False: there are no
 * policies. */
bool xfrm_spd_poll(void);
