/* Inside lib/session: what its files share. */
#pragma once

#include <netinet/in.h>
#include <stdatomic.h>

#include "core/worker.h"
#include "l3/header.h"
#include "session/rewrite.h"
#include "session/session.h"
#include "session/table.h"

enum session_drop {
    SESSION_DROP_TRUNCATED,
    SESSION_DROP_SPLIT_HEADER,
    SESSION_DROP_TCP_FLAGS,
    SESSION_DROP_TCP_NO_SESSION,
    SESSION_DROP_TCP_OUT_OF_STATE,
    SESSION_DROP_ICMP_CHECKSUM,
    SESSION_DROP_ICMP_QUOTE,
    SESSION_DROP_FRAGMENT_TINY,
    SESSION_DROP_FRAGMENT_OVERLAP,
    SESSION_DROP_FRAGMENT_TIMEOUT,
    SESSION_DROP_FRAGMENT_TABLE_FULL,
    SESSION_DROP_FRAGMENT_REFUSED,
    SESSION_DROP_TABLE_FULL,
    SESSION_DROP_BUCKET_FULL,
    SESSION_DROP_BUSY,
    SESSION_DROP_CONFLICT,
    SESSION_DROP_SOURCE_LIMIT,
    SESSION_DROP_SOURCE_RATE,
    SESSION_DROP_NO_HEADROOM,
    SESSION_DROP_FAMILY_HEADER,
    SESSION_DROP_FAMILY_ICMP,
    SESSION_DROP_FAMILY_NO_CHECKSUM,
    SESSION_DROP_FAMILY_LENGTH,
    /* Not drops: */
    SESSION_PASS,
    SESSION_MISS,
    SESSION_TAKEN, /* kept for later; the burst may forget it */
};
extern struct drop_group session_drops;

static inline void session_drop_count(struct worker *worker, enum session_drop reason) {
    counters_drop(worker->counters, &session_drops, reason);
}

enum { SESSION_PATH_TEXT = 1024 };

/* As configured. */
struct session_settings {
    uint32_t size;                     /* sessions at most */
    uint32_t timeouts[SESSION_STATES]; /* seconds */
    bool tcp_pickup;                   /* sessions may begin in mid-stream */
    uint32_t per_source;               /* sessions per source address; 0 = no limit */
    uint32_t rate_per_source;          /* new ones per second; 0 = no limit */
    bool keep;                         /* in a file, over a restart */
    char file[SESSION_PATH_TEXT];      /* "" = the default */
    char events[SESSION_PATH_TEXT];    /* where they go; "" = off */
};

/* The settings in force, with timeouts in ticks; written by the control thread. */
struct session_limits {
    _Atomic uint32_t timeout[SESSION_STATES];
    atomic_bool tcp_pickup;
    _Atomic uint32_t per_source, rate_per_source;
};
extern struct session_limits session_limits;

/* NULL when nobody translates now. */
extern const struct session_translator *session_translator_in_use;
/* Whoever has registered, in use or not: sessions that it has translated may outlive its
 * configuration. */
const struct session_translator *session_translator_of_all(void);

struct fragment_table;

/* Half-open sessions in the order they came. Entries of sessions that are no longer half open are
 * passed over; when the ring is full the oldest entries are forgotten, not the sessions. */
enum { HALF_OPEN_MAX = 1 << 16 };
struct half_open {
    uint32_t number, serial;
};

enum { OPENING_KEYS = 1024 }; /* values of a hash */

/* A session whose flows are filled in but not in the table yet. */
struct session_opening {
    struct session_new draft;
    uint32_t number, source;
    uint64_t hash; /* of the backward flow */
    enum session_drop result;
};

/* What a worker holds for itself. */
struct session_worker {
    struct session_burst burst;

    uint64_t begun; /* misses with an opening */
    uint64_t begun_keys[OPENING_KEYS / 64];
    struct session_opening opening[BURST_MAX];

    uint32_t sweep_next; /* the next number to look at */
    uint32_t sweep_left; /* numbers to look at in this tick */
    uint32_t sweep_tick;

    uint32_t half_open_first, half_open_count;
    struct half_open *half_open; /* HALF_OPEN_MAX */

    struct fragment_table *fragments;

    uint64_t opened, ended, evicted; /* sessions */
} __rte_cache_aligned;
extern struct session_worker *session_workers;

/* --- the control side --- */

/* The next session_need() makes a table of the size that these settings name. */
void session_prepare_settings(const struct session_settings *settings);
/* Says so when that has to wait. */
void session_tell_size(void);
void session_set(const struct session_settings *settings);
/* What a session was before a restart. */
struct session_restored {
    uint8_t state, flags;
    bool mapped;
    uint32_t idle, age; /* ticks */
    uint64_t packets[2], bytes[2];
};
/* Makes it again. Control thread, while no worker runs. False: it is not possible any more. */
bool session_reopen(struct session_new *draft, const struct session_restored *restored);
/* Frees all that there is. No worker has the session stages any more. */
void session_free(void);

/* --- packets --- */

/* Where ports and checksum stand in the transport header, and whether addresses are in the
 * checksum. */
struct transport {
    uint8_t ports;    /* 1: the two ports lead the header */
    uint8_t checksum; /* its offset; 0 = none that address or port go into */
    /* A checksum of 0 means that there is none (UDP over IPv4), and so one that comes to 0 is sent
     * as ones; for UDP-Lite there has to be one (RFC 3828 section 3.1). */
    uint8_t zero_is_none : 1, zero_is_ones : 1;
    uint8_t length; /* the least that has to be there */
};
extern const struct transport session_transports[256];

enum {
    ICMP4_ECHO_REPLY = 0,
    ICMP4_ECHO = 8,
    ICMP4_TIMESTAMP = 13,
    ICMP4_TIMESTAMP_REPLY = 14,
    ICMP6_ECHO = 128,
    ICMP6_ECHO_REPLY = 129,
    TCP_FIN = 0x01,
    TCP_SYN = 0x02,
    TCP_RST = 0x04,
    TCP_ACK = 0x10,
    TCP_FLAGS = 13, /* offset in the TCP header */
    ICMP_IDENTIFIER = 4,
    ICMP_CHECKSUM = 2,
};

/* The packet's key. SESSION_PASS: *miss holds key, family, TCP flags or ICMP type; its `stateless`
 * is set when no session can be made of such a packet. SESSION_MISS: an ICMP error, to be looked at
 * as such. Else the reason to drop it. */
enum session_drop session_key_of(struct rte_mbuf *mbuf, struct session_miss *miss);

/* The key of the answers to a packet with this key; the caller then sets the VRF. */
union flow_key session_key_reversed(const union flow_key *key, bool ipv6);

/* Puts in another address and port (network order); nothing is done where they are the same. */
void session_replace(struct rte_mbuf *mbuf, bool source, uint32_t address, uint16_t port);
/* The same for IPv6. */
void session_replace6(struct rte_mbuf *mbuf, bool source, const uint8_t address[16], uint16_t port);
/* The difference into the checksum of a transport header that has one. */
void session_add_to_checksum(const struct transport *transport, uint8_t *header,
                             uint16_t difference);
/* The VRF that packets of the flow are routed in. */
uint16_t session_vrf_of(uint32_t number);
/* Fills in the flow's rewrite, with the differences for the checksums. */
void session_set_rewrite(struct flow *flow, uint32_t source, uint16_t source_port,
                         uint32_t destination, uint16_t destination_port);

/* The family that packets of a flow with these flags go on as. */
static inline bool flow_becomes_ipv6(uint8_t flags) {
    return (flags & FLOW_IPV6 ? 1 : 0) != (flags & FLOW_OTHER_FAMILY ? 1 : 0);
}

/* ICMP of the other family has another protocol number. */
static inline uint8_t protocol_of_family(uint8_t protocol, bool ipv6) {
    if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
        return ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
    return protocol;
}

/* The key that packets of the flow have when they are sent on: the other flow's, turned round. */
static inline union flow_key session_key_sent_on(uint32_t number) {
    const struct flow *other = &session_flows[flow_other(number)];
    union flow_key key = flow_key_of(other);

    return session_key_reversed(&key, other->flags & FLOW_IPV6);
}

/* --- the other family: session_family.c, session_family_icmp.c --- */

/* Makes of the packet one with this key, which is of the other family: RFC 7915 sections 4 and 5.
 * Its VRF stays. SESSION_PASS, SESSION_TAKEN when it goes on in pieces, or the reason to drop it.
 */
enum session_drop session_family_change(struct worker *worker, struct rte_mbuf *mbuf,
                                        const union flow_key *to);
/* Puts a packet back to what it was before, with this key, and never cuts it. False: it cannot be.
 */
bool session_family_restore(struct worker *worker, struct rte_mbuf *mbuf,
                            const union flow_key *came);
/* An ICMP error about a packet of the flow `number`'s session that went the other way, which it
 * quotes with `quoted_header` bytes of IP header: RFC 7915 sections 4.2, 4.3, 5.2 and 5.3. */
enum session_drop session_family_icmp_error(struct rte_mbuf *mbuf, uint32_t number,
                                            unsigned quoted_header);
/* Changes ports, checksum and, of an ICMP query, type and identifier of a transport header of which
 * `left` bytes are there, to what the key says. `length` is that of the whole transport packet, old
 * and new the folded sums of its addresses. Returns false when it has no counterpart. */
bool session_family_transport(uint8_t *header, unsigned left, uint8_t protocol, uint32_t length,
                              uint16_t old_addresses, uint16_t new_addresses,
                              const union flow_key *to, bool ipv6);
/* Folded sum of the addresses of an IP header, and of those in a key. */
uint16_t session_address_sum(const uint8_t *packet, bool ipv6);
uint16_t session_key_address_sum(const union flow_key *key, bool ipv6);

/* The difference that replacing these 32 bits makes. */
static inline uint32_t checksum_difference32(uint32_t old, uint32_t new) {
    return (uint32_t)(uint16_t)~old + (uint16_t) ~(old >> 16) + (new & 0xffff) + (new >> 16);
}

static inline uint32_t checksum_difference16(uint16_t old, uint16_t new) {
    return (uint32_t)(uint16_t)~old + new;
}

/* A packet of the flow, with its bytes from the IP header on. */
static inline void flow_count(struct flow *flow, const struct rte_mbuf *mbuf, unsigned l3_offset) {
    flow->packets++;
    flow->bytes += mbuf->pkt_len - l3_offset;
}

/* --- time --- */

/* Another worker may have stored a time that is a tick ahead of `now`: that is no time at all. */
static inline uint32_t session_ticks_since(uint32_t now, uint32_t then) {
    return (int32_t)(now - then) > 0 ? now - then : 0;
}

/* Ticks since the session's last packet, either way. */
static inline uint32_t session_idle(uint32_t number, uint32_t now) {
    const struct flow *flow = &session_flows[number * 2];
    uint32_t forward = session_ticks_since(now, __atomic_load_n(&flow[0].last, __ATOMIC_RELAXED));
    uint32_t backward = session_ticks_since(now, __atomic_load_n(&flow[1].last, __ATOMIC_RELAXED));

    return RTE_MIN(forward, backward);
}

/* --- states --- */

/* The state a session begins in. */
enum session_state session_first_state(uint8_t protocol, bool answered);
/* A packet of the session that was not FLOW_QUICK, or with TCP flags that matter. SESSION_PASS, or
 * the reason to drop it. */
enum session_drop session_follow(uint32_t flow, uint8_t tcp_flags);
/* May a session begin with such a segment? SESSION_PASS or the reason to drop it. */
enum session_drop session_may_begin(uint8_t tcp_flags);

/* --- the end of sessions --- */

/* Takes the session out, if nobody else is doing so. The caller is the worker; `reason` is a word
 * for the event and lives for ever. */
bool session_close(struct worker *worker, uint32_t number, const char *reason);
/* Remembers a half-open session. */
void session_remember_half_open(struct session_worker *own, uint32_t number);
/* Takes out the oldest half-open session; false when there is none. */
bool session_evict(struct worker *worker);
/* A bounded piece of the sweep. */
void session_sweep(struct worker *worker);

/* --- limits per source --- */

/* One more of this source, by its key: SESSION_PASS with its record in *record (0: nobody counts),
 * or the reason to refuse it. */
enum session_drop session_source_take(const union flow_key *key, bool ipv6, uint32_t *record);
/* The same for a session from before a restart, which counts whatever the limits say. */
uint32_t session_source_take_again(const union flow_key *key, bool ipv6);
void session_source_give(uint32_t record);
int session_source_create(void);
void session_source_free(void);

/* --- ICMP errors, fragments --- */

/* An ICMP error: SESSION_PASS when it belongs to a session (and is translated now), SESSION_MISS
 * when it belongs to none, or the reason to drop it. */
enum session_drop session_icmp_error(struct rte_mbuf *mbuf);

/* The first fragment of a packet of this flow has come by, with this key: those that follow take
 * the same way, and those that came before it are sent on. `flow` SESSION_NONE: refused, and so are
 * the others. FRAGMENT_PASSES: it has no flow, and they pass as they are, in the VRF that it has
 * now. */
#define FRAGMENT_PASSES UINT32_MAX
void session_fragment_first(struct worker *worker, struct rte_mbuf *mbuf, const union flow_key *key,
                            uint32_t flow);
/* Another fragment: SESSION_PASS with the flow, or SESSION_NONE, in *flow, SESSION_TAKEN when it
 * waits for the first one, else the reason to drop it. */
enum session_drop session_fragment_later(struct worker *worker, struct rte_mbuf *mbuf,
                                         uint32_t *flow);
/* The fragment header of an IPv6 packet of which `end` bytes are in one piece; NULL if it has none.
 * `parse` has found the chain of headers to be right. */
const uint8_t *session_fragment_header6(const uint8_t *packet, unsigned end);
/* Drops those that have waited for too long. Once per turn. */
void session_fragment_turn(struct worker *worker);
struct fragment_table *session_fragments_create(void);
void session_fragments_free(struct fragment_table *table);
