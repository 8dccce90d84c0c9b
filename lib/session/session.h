/*
 * Sessions: what the router remembers of a conversation, so that one lookup per packet gives the
 * firewall's verdict and the address translation at once.
 *
 * A session is a pair of flows, one per direction. A flow is a cache line: the key that its packets
 * carry when they come in, what is to be rewritten in them, and counters; it is written by the
 * worker that receives that direction, and by no other. Flows of both families stand in one hash
 * table (session/table.h) that all workers share, so a session is right whichever worker sees which
 * direction. What is needed only now and then stands in `struct session`.
 *
 * On a packet's way (core/stages.def):
 *
 *   session    finds the flow, follows TCP's state, rewrites the destination. A packet without a
 * flow is a "miss"; its destination may be translated by the translator's first function. route
 *   firewall   decides about misses and calls session_begin() for those that it accepts, then
 *              session_accept()
 *   nat        rewrites the source
 *
 * Behaviour follows RFC 4787 (UDP), 5382 (TCP), 5508 (ICMP), 6146 and 7857; the clock ticks ten
 * times a second and is turned by the control thread.
 */
#pragma once

#include <emmintrin.h>
#include <rte_mbuf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/drops.h"
#include "core/ip.h"
#include "core/problem.h"
#include "core/stage.h"

struct worker;

enum {
    SESSION_TICKS = 10, /* per second */
    SESSIONS_MIN = 1024,
    SESSIONS_MAX = 1 << 26,
    SESSIONS_DEFAULT = 1 << 18,
    SESSION_NONE = 0, /* no session or flow has this number */
};

/* In packet_meta.session: not a flow, but the place of a miss in its worker's burst, while that
 * lasts. */
#define SESSION_MISS_MARK (UINT32_C(1) << 31)

/* --- keys --- */

/* What identifies a flow: addresses and ports as they stand in the packet, in network order, and
 * protocol and VRF. `ports` is source then destination. ICMP queries have the identifier as the
 * asking side's port and the query's type as the other's; protocols without ports have zeroes. */
struct flow_key4 {
    uint32_t source, destination;
    uint16_t source_port, destination_port;
    uint32_t protocol_vrf; /* FLOW_KEY_PROTOCOL */
};

struct flow_key6 {
    uint8_t source[16], destination[16];
    uint16_t source_port, destination_port;
    uint32_t protocol_vrf;
};

union flow_key {
    struct flow_key4 v4;
    struct flow_key6 v6;
    __m128i first; /* all of an IPv4 key */
};

static inline uint32_t flow_protocol_vrf(uint8_t protocol, uint16_t vrf) {
    return protocol | (uint32_t)vrf << 16;
}

/* --- flows and sessions, as workers use them --- */

enum flow_flags {
    FLOW_QUICK = 1 << 0, /* an ordinary packet needs no look at the session's state */
    FLOW_IPV6 = 1 << 1,
    FLOW_DESTINATION = 1 << 2,  /* the destination is rewritten (before the route) */
    FLOW_SOURCE = 1 << 3,       /* the source is rewritten (behind the firewall) */
    FLOW_OTHER_VRF = 1 << 4,    /* routed in `vrf` instead of the VRF it came in by */
    FLOW_DEAD = 1 << 5,         /* ended by the control thread: to be taken out */
    FLOW_OTHER_FAMILY = 1 << 6, /* goes on as the other version of IP (RFC 7915), both ends new */
    FLOW_PORTS = 1 << 7, /* of IPv6: ports change along with addresses, and so do checksums */
};

/* Addresses and ports that take the place of the key's, and the difference that makes to checksums
 * (RFC 1624: the folded sum of the complement of the old and the new words): of addresses alone,
 * for the IPv4 header, and of addresses and ports, for the transport header. Network order.
 *
 * A flow with an IPv6 key has no room for it, and needs none: what its packets become is the other
 * flow's key turned round. Without FLOW_PORTS its addresses take each other's place without a
 * change to any checksum (RFC 6296). With FLOW_OTHER_FAMILY it is the same for both; of the rewrite
 * of such an IPv4 flow only `vrf` counts. */
struct rewrite {
    uint32_t source, destination;
    uint16_t source_port, destination_port;
    uint16_t source_header, source_transport;
    uint16_t destination_header, destination_transport;
    uint16_t vrf;
    uint16_t reserved;
};

struct flow {
    union {
        struct {
            struct flow_key4 key4;
            struct rewrite rewrite;
        };
        struct flow_key6 key6;
    };
    uint64_t packets, bytes; /* bytes from the IP header on */
    uint32_t last;           /* session_clock of the last packet */
    uint8_t flags;           /* enum flow_flags; changed with atomic operations once in the table */
    uint8_t reserved[3];
} __rte_cache_aligned;
_Static_assert(sizeof(struct flow) == 64, "one cache line");

/* States. TCP's follow RFC 5382 section 3 and RFC 7857 section 2; a state's timeout is configured
 * under the same name. */
enum session_state {
    SESSION_FREE,
    SESSION_ENDING,       /* somebody is taking it out of the table */
    SESSION_TCP_OPENING,  /* SYN seen; half open */
    SESSION_TCP_ANSWERED, /* SYN and ACK seen from the other side; half open */
    SESSION_TCP_ESTABLISHED,
    SESSION_TCP_CLOSING, /* FIN from both sides */
    SESSION_TCP_CLOSED,  /* RST */
    SESSION_UDP_NEW,     /* nothing came back yet */
    SESSION_UDP,
    SESSION_ICMP,
    SESSION_OTHER,
    SESSION_STATES
};
extern const char *const session_state_names[SESSION_STATES];

enum session_flags {
    SESSION_LOCAL = 1 << 0, /* ends at the router itself */
    SESSION_FROM_ROUTER = 1 << 1,
    SESSION_FIN_FORWARD = 1 << 2,
    SESSION_FIN_BACKWARD = 1 << 3,
    SESSION_PICKED_UP = 1 << 4,   /* began in mid-stream */
    SESSION_RST_FORWARD = 1 << 5, /* closed by an RST from this side, after an answer */
    SESSION_RST_BACKWARD = 1 << 6,
    SESSION_BOUND = 1 << 7, /* began by a static binding of the NAT, and ends with that */
};

/* Behind the two flows: 32 bytes that the usual packet does not touch. */
struct session {
    uint32_t created; /* session_clock */
    uint8_t state;    /* enum session_state, atomic */
    uint8_t protocol;
    uint8_t flags;                        /* enum session_flags, atomic */
    uint8_t traffic_class;                /* of the first packet, for a second look at it */
    uint16_t in_interface, out_interface; /* of the first packet; 0 = the router itself */
    uint32_t rule;                        /* the firewall's */
    uint32_t mapping;                     /* the NAT's; 0 = none */
    uint32_t source;                      /* the record of its source, for limits; 0 = none */
    uint32_t next;                        /* while free: the free list */
    uint32_t
        serial; /* counts up each time the place is used: with its number, the session's name */
};
_Static_assert(sizeof(struct session) == 32, "two to a cache line");

/* Numbers: session n has the flows 2n (of who opened it) and 2n + 1 (the way back). */
static inline uint32_t flow_session(uint32_t flow) {
    return flow >> 1;
}
static inline uint32_t flow_other(uint32_t flow) {
    return flow ^ 1;
}
static inline bool flow_is_backward(uint32_t flow) {
    return flow & 1;
}

extern struct flow *session_flows; /* by flow number; NULL while nobody wants sessions */
extern struct session *sessions;   /* by session number */
extern uint32_t session_count_max; /* numbers are below this */
extern _Atomic uint32_t session_clock;

/* --- the burst that a worker is at --- */

/* A packet without a flow, on its way from `session` to `firewall`. */
struct session_miss {
    union flow_key key; /* as the packet came in */
    uint8_t flags;      /* of the new forward flow: FLOW_IPV6, FLOW_DESTINATION, FLOW_OTHER_FAMILY,
                           FLOW_PORTS */
    bool stateless;     /* no session can be made of it: a kind of ICMP, a group's packet */
    bool is_answer;     /* to an ICMP query */
    uint8_t tcp_flags;
    uint8_t icmp_type, icmp_code;
    /* Rewritten: network order. Which of the two counts follows from the family that it goes on as.
     */
    uint32_t destination;
    uint8_t destination6[16];
    uint16_t destination_port;
    uint8_t source6[16]; /* of one that goes on as IPv6 instead of IPv4: as who, for the firewall */
    uint32_t mapping;    /* the NAT's, taken for it; 0 = none */
    const void *translation; /* the NAT's: which rule; valid for this burst */
};

struct session_burst {
    uint32_t number; /* worker->burst_number for which the rest is true */
    uint64_t misses;
    uint64_t sources; /* packets whose source the flow says to rewrite */
    uint64_t
        families; /* of a burst of plain packets: those that go on as the other version of IP */
    struct session_miss miss[BURST_MAX];
};

/* The burst's misses and so on; NULL when the packets have not passed `session` (they came from the
 * router itself). */
const struct session_burst *session_burst_of(const struct worker *worker);

/* --- who builds on sessions --- */

/* A new session, before it is in the table. */
struct session_new {
    union flow_key key; /* of its first packet as it came in */
    uint8_t flags; /* FLOW_IPV6, FLOW_DESTINATION, FLOW_SOURCE, FLOW_OTHER_FAMILY, FLOW_PORTS */
    uint8_t tcp_flags, traffic_class;
    bool local; /* for the router itself */
    bool from_router;
    bool bound; /* SESSION_BOUND; the translator's */
    uint16_t in_interface, out_interface, vrf, out_vrf;
    /* Rewritten, in the family that its packets go on as; equal to the key's when not. */
    uint32_t source, destination;
    uint8_t source6[16], destination6[16];
    uint16_t source_port, destination_port;
    uint32_t rule;
    uint32_t mapping;
    const void *translation; /* as in struct session_miss */
    unsigned attempt;        /* how many times a source was chosen for it in vain */
};

/* What the NAT adds to sessions. One, set before the workers start. All run on workers and may not
 * block, but for `ended`, which the control thread calls as well. */
struct session_translator {
    /* Before the route: another destination for a packet without a flow? Sets destination or
     * destination6, destination_port, FLOW_DESTINATION, mapping, translation; FLOW_PORTS where
     * IPv6 gets more than another prefix. With FLOW_OTHER_FAMILY the packet itself stays as it is
     * until it has passed the firewall, so the next hop is chosen here (PACKET_NEXT_HOP), and
     * source6 too where it becomes IPv6. False: the packet is dropped, the translator has counted
     * why. */
    bool (*destination)(struct worker *worker, struct rte_mbuf *mbuf, struct session_miss *miss);
    /* Behind the firewall: another source? Sets source or source6, source_port, FLOW_SOURCE (but
     * with FLOW_OTHER_FAMILY), mapping. Called again, with `attempt` one higher, while the answers'
     * key is taken. False: dropped, counted. */
    bool (*source)(struct worker *worker, struct session_new *draft);
    /* The router's own host begins a session, whose port nobody else is to be given meanwhile: sets
     * mapping, or leaves it 0. */
    void (*keep_port)(struct session_new *draft);
    /* A packet of IPv6 that no session can be made of, for which `destination` and `source` are not
     * asked: puts other addresses into it where that needs no memory (RFC 6296), into the packet
     * that an ICMP error quotes as well. `out` 0: before the route, the destination; else behind
     * the firewall, the source. False: dropped, counted. */
    bool (*stateless6)(struct worker *worker, struct rte_mbuf *mbuf, uint16_t out);
    /* Would `source` translate packets with this key? */
    bool (*wants_source)(const union flow_key *key, bool ipv6, uint16_t in_interface,
                         uint16_t out_interface);
    /* Counts one that should be but cannot; the caller drops it. */
    void (*untranslatable)(struct worker *worker);
    /* A session from before a restart, source and destination as they were: may it be so still?
     * Takes the same mapping if it had one. Control thread, while no worker runs. */
    bool (*restore)(struct session_new *draft, bool mapped);
    /* The session with this mapping is gone, or never came to be. */
    void (*ended)(uint32_t mapping);
};
void session_set_translator(const struct session_translator *registered);
/* Whether new sessions are to be translated; those that there are stay as they are. Control thread.
 */
void session_translate(bool on);

/* Set before the workers start by who protects packets behind the translation (IPsec): would it
 * protect those of a session that begins so, untranslated? Then their source stays as it is. Any
 * worker. */
extern bool (*session_is_protected)(const struct session_new *draft);
/* The same of a live session, by the number of its forward flow: would it be protected if it began
 * now? */
bool session_would_be_protected(uint32_t number);

/* Somebody else wants to be asked whether there have to be sessions (the firewall). */
void session_want(bool (*wanted)(void));
/* Are the stages of sessions part of the pipelines? */
bool session_wanted(void);

enum session_open_result {
    SESSION_OPENED,  /* meta->session is set; the source is rewritten in `nat` */
    SESSION_PASSED,  /* without a session */
    SESSION_REFUSED, /* counted under a name; to be dropped */
};

/* The same arguments will be given to session_accept(), which must be called before the burst goes
 * on. Chooses the translation and asks for the memory, so that a burst of new sessions waits for it
 * once and not once per session. */
void session_begin(struct worker *worker, struct burst *burst, unsigned i, uint32_t rule,
                   bool stateless);
/* `rule` of the firewall has accepted miss i of the burst: makes a session of it, unless it is of a
 * kind that has none or the rule is stateless. What has to be translated has a session whatever the
 * rule says, and does not pass when it cannot have one, so that no inside address leaks out. */
enum session_open_result session_accept(struct worker *worker, struct burst *burst, unsigned i,
                                        uint32_t rule, bool stateless);
/* The firewall drops miss i of the burst, and the fragments that belong to it. */
void session_refuse(struct worker *worker, struct burst *burst, unsigned i);

/* A packet that the router's own host sends: finds or makes its session. True: it may be sent. */
bool session_from_host(struct worker *worker, struct rte_mbuf *mbuf);

/* A packet of a session with FLOW_OTHER_FAMILY, by the number of its flow, becomes one of the other
 * version of IP (RFC 7915). */
enum session_family_result {
    SESSION_FAMILY_CHANGED,
    SESSION_FAMILY_IN_PIECES, /* it has gone on, through the router ring; to be let go of */
    SESSION_FAMILY_DROPPED,   /* counted under a name; to be dropped */
};
enum session_family_result session_change_family(struct worker *worker, struct rte_mbuf *mbuf,
                                                 uint32_t number);

/* Puts a packet back to how it came in, so that an ICMP error about it goes to who sent it and
 * quotes what that one knows: a packet of a session, or a miss of the running burst. */
void session_restore(struct worker *worker, struct rte_mbuf *mbuf);

/* --- the control side --- */

/* For prepare() of a section that builds on sessions: makes the table if there is none, in the size
 * of the configuration that is being prepared. 0 or -ENOMEM with a problem. It goes away by itself
 * with the configuration that nobody wants sessions in. */
int session_need(struct problems *problems);
/* How many sessions there are, can be and were. All zeroes while there is no table. */
struct session_totals {
    uint32_t alive, most;
    uint64_t opened, ended, evicted; /* since the table was made; evicted ones have ended as well */
};
void session_totals(struct session_totals *out);

/* Runs over the live sessions with numbers from *cursor on, at most `max` of them; sets *cursor to
 * go on from, 0 at the end. What is seen may change meanwhile. Return false to stop. */
void session_walk(uint32_t *cursor, uint32_t max,
                  bool (*visit)(uint32_t number, const struct session *session, void *context),
                  void *context);
/* Who judges live sessions (firewall, NAT) leaves here what starts to do so. */
void session_on_look_again(void (*look)(void));
/* Has them all judged, in the background: something has changed that they look at. */
void session_look_again(void);
/* Writes all sessions to the file, and takes those of a file back: before the workers start, with
 * the configuration in force. A file that is damaged or of another version is refused with a
 * message, one that is not there is none. 0 or negative errno; the log has been told. */
int session_save(const char *path);
int session_load(const char *path);
/* Where they are to be kept: the configured file, or `beside` if none is; NULL: nowhere. */
const char *session_file(const char *beside);
/* Ends a session: no packet of it passes any more as part of it. */
void session_end(uint32_t number);
