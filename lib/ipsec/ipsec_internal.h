/* Inside lib/ipsec: associations and policies as workers see them. */
#pragma once

#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_common.h>
#include <rte_spinlock.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/queue.h>

#include "core/stage.h"
#include "core/worker.h"
#include "firewall/firewall_rules.h"
#include "interface/interface.h"
#include "ipsec/esp_replay.h"
#include "ipsec/ipsec.h"
#include "ipsec/sa_life.h"
#include "l3/header.h"

/* --- associations --- */

enum {
    SA_IPV6 = 1 << 0, /* the outer header is IPv6 */
    SA_UDP = 1 << 1,  /* ESP in UDP */
    SA_TRANSPORT = 1 << 2,
    SA_ANY_SOURCE = 1 << 3, /* a NAT may change where its packets come from, and IKE follows */
};

enum { SA_NO_INTERFACE = UINT16_MAX };

enum {
    UDP_HEADER = 8,
    SA_HEADER_MAX = 48, /* IPv6 and UDP */
    ESP_TRAILER = 2,    /* pad length and next header */
};

/* Where packets of an association with SA_ANY_SOURCE have come from, if not from where it says. A
 * worker writes while it is empty, the control thread reads when it is full and empties it. */
enum { SOURCE_EMPTY, SOURCE_TAKEN, SOURCE_FULL };
struct sa_new_source {
    _Atomic uint8_t state;
    uint8_t address[16];
    uint16_t port; /* network order */
};

/* What every packet counts. */
struct sa_use {
    uint64_t packets, bytes, last_used;
};

/* A worker's own. */
struct sa_tally {
    struct sa_use use; /* if there are several workers: sa_use() */
    uint64_t replayed, too_old, failed, malformed, refused;
} __rte_cache_aligned;
_Static_assert(sizeof(struct sa_tally) == 64, "one cache line");

struct esp_path;

/* What ties associations to policies: what one says, and what the other asks for. */
struct ipsec_ties {
    uint32_t if_id;
    uint32_t request, spi; /* a policy with a request names all of that, else those of the SPI */
};

/* The first line is all of it that usual packets of tunnels over IPv4 read. */
struct ipsec_sa {
    const struct esp_key *key;
    uint32_t spi; /* network order */
    uint16_t vrf;
    uint8_t flags;
    uint8_t outer; /* bytes before the ESP header: IP header and UDP; in transport mode UDP alone */
    struct esp_sizes sizes;
    uint8_t df; /* enum ipsec_df */
    /* Inbound, with an if_id: the id of that interface, SA_NO_INTERFACE while there is none. 0
     * without. */
    _Atomic uint16_t interface;
    _Atomic uint16_t path_mtu; /* outbound; UINT16_MAX = only the next hop's MTU counts */
    uint32_t destination;      /* IPv4: host order */
    struct ipsec_ties ties;
    /* The outer header, but for lengths, id, traffic class and checksum. Its first bytes in tunnel
     * mode are IPv4's or IPv6's. */
    uint8_t header[SA_HEADER_MAX];
    uint8_t destination6[16];
    uint8_t source[16];            /* of packets that come in; IPv4: the first four bytes */
    struct ipsec_sa *_Atomic next; /* in the same bucket */

    /* The next line is what usual packets write. Those of many associations wait for memory, so
     * each line counts. */
    struct sa_use alone __rte_cache_aligned; /* of the only worker */
    rte_spinlock_t lock;                     /* of the window, held for a few instructions */
    union {
        struct esp_replay replay; /* inbound */
        struct {
            _Atomic uint64_t sequence; /* outbound: the number sent last */
            uint64_t sequence_last;    /* the highest number there is */
        };
    };
    struct sa_new_source new_source;

    /* The control thread's. */
    struct ipsec_sa_settings settings;
    enum ipsec_owner owner;
    uint64_t created;
    uint64_t serial; /* in the order they were added */
    struct ipsec_sa *listed_next, *listed_before;
    LIST_ENTRY(ipsec_sa) of_request;
    struct sa_life life;
    struct esp_path *path, *spare_path; /* esp_path.h; spare: until the association is inserted */
    struct ipsec_sa *path_next, *path_before;

    struct sa_tally tallies[]; /* one per worker */
} __rte_cache_aligned;
_Static_assert(offsetof(struct ipsec_sa, header) + IPV4_HEADER + 4 <= RTE_CACHE_LINE_SIZE,
               "an IPv4 header and UDP's ports end within the first line");
_Static_assert(offsetof(struct ipsec_sa, replay.seen[2]) - offsetof(struct ipsec_sa, alone) <=
                   RTE_CACHE_LINE_SIZE,
               "so does a window of 64 within the second");

enum { SA_BUCKETS = 1 << 15 };
extern struct ipsec_sa *_Atomic *sa_buckets[IPSEC_DIRECTIONS];

static inline uint32_t sa_bucket(uint32_t spi) {
    return (uint32_t)((spi * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % SA_BUCKETS;
}

/* --- policies --- */

extern bool ipsec_shared; /* there are several workers */

static inline struct sa_use *sa_use(struct ipsec_sa *sa, unsigned worker) {
    return likely(!ipsec_shared) ? &sa->alone : &sa->tallies[worker].use;
}

struct policy_tally {
    uint64_t packets, without_sa;
};

/* A packet that found no association. Workers write the first one of each second, the control
 * thread takes it. */
enum { UNMET_EMPTY, UNMET_TAKEN, UNMET_FULL };
struct policy_unmet {
    _Atomic uint8_t state;
    _Atomic uint64_t since; /* ipsec_clock */
    struct firewall_packet packet;
};

struct policy_tally_line {
    struct policy_tally tally;
} __rte_cache_aligned;

struct ipsec_policy {
    enum ipsec_action action;
    struct ipsec_sa *_Atomic sa; /* outbound: what it protects with now; NULL = none */
    struct policy_tally alone;   /* of the only worker, in a line that it reads anyway */
    struct ipsec_ties ties;

    /* The control thread's. */
    struct ipsec_policy_settings settings;
    enum ipsec_owner owner;
    uint16_t set;      /* of the policies that are published together */
    uint64_t serial;   /* in the order they were added */
    unsigned position; /* in the order they decide in */
    struct ipsec_policy *deleted_next;
    LIST_ENTRY(ipsec_policy) named; /* outbound ones that protect, by what they name */
    struct policy_unmet unmet;

    struct policy_tally_line lines[]; /* one per worker, if there are several */
} __rte_cache_aligned;

static inline struct policy_tally *policy_tally(struct ipsec_policy *policy, unsigned worker) {
    return likely(!ipsec_shared) ? &policy->alone : &policy->lines[worker].tally;
}

/* Is this association one of those that the policy protects with? */
static inline bool policy_names(const struct ipsec_policy *policy, const struct ipsec_sa *sa) {
    const struct ipsec_ties *wanted = &policy->ties, *ties = &sa->ties;

    return wanted->if_id == ties->if_id &&
           (wanted->request != 0 ? wanted->request == ties->request : wanted->spi == ties->spi);
}

/* Policies are looked up in sets: one per VRF, for what is routed in it, and one per tunnel
 * interface, for what comes out of it or is routed into it. */
enum { SPD_SETS = VRFS_MAX + INTERFACES_MAX, SPD_NO_SET = UINT16_MAX };

static inline uint16_t spd_set_of_tunnel(uint16_t interface) {
    return (uint16_t)(VRFS_MAX + interface);
}

/* The policies of one set and direction, in the order they decide in. Replaced whole. */
struct spd {
    struct firewall_ruleset *rules;     /* rule n selects for policy n */
    struct firewall_ruleset *fragments; /* the same for later fragments; NULL: no difference */
    uint64_t generation;                /* of caches */
    uint32_t count;
    bool ports; /* some policy of IPv4 looks at ports: then the cache has to as well */
    struct ipsec_policy *policies[];
};
extern struct spd *_Atomic spd_of_set[IPSEC_DIRECTIONS][SPD_SETS];

/* NULL: there are no policies. */
static inline const struct spd *spd_get(enum ipsec_direction direction, uint16_t set) {
    return atomic_load_explicit(&spd_of_set[direction][set], memory_order_acquire);
}

/* The policies of the packets in the mask, NULL where none matches; the others are left alone.
 * `sets` names each packet's set; NULL: that of its VRF. False: there are no policies for any of
 * them. Worker side. */
bool spd_look_up(struct worker *worker, enum ipsec_direction direction, const struct burst *burst,
                 uint64_t mask, const uint16_t *sets, struct ipsec_policy **out);

/* The packet wants the policy's protection, and there is no association. Worker side. */
void spd_note_unmet(struct ipsec_policy *policy, struct rte_mbuf *mbuf);

/* Without these there would never be a neighbour: Neighbour Discovery and groups pass whatever the
 * policies say. */
static inline bool spd_is_exempt(struct rte_mbuf *mbuf) {
    enum { ROUTER_SOLICITATION = 133, REDIRECT = 137 };
    const struct packet_meta *meta = packet_meta(mbuf);
    const uint8_t *transport = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, meta->l4_offset);

    if (unlikely(meta->flags & PACKET_IP_MULTICAST))
        return true;
    return unlikely(meta->l4_protocol == IPPROTO_ICMPV6) &&
           !(meta->flags & PACKET_LATER_FRAGMENT) && meta->l4_offset < mbuf->data_len &&
           transport[0] >= ROUTER_SOLICITATION && transport[0] <= REDIRECT;
}
/* So do ESP and IKE, if the router or its host speaks them: those of others are traffic like any
 * other. */
bool spd_is_of_ipsec(struct rte_mbuf *mbuf);

/* The association added last that has this request and goes out, and the one before that one. NULL:
 * there is none. */
const struct ipsec_sa *sa_first_of_request(uint32_t request);
const struct ipsec_sa *sa_next_of_request(const struct ipsec_sa *sa);
/* The same for an SPI: with other destinations there may be several. */
const struct ipsec_sa *sa_first_of_spi(uint32_t spi);
const struct ipsec_sa *sa_next_of_spi(const struct ipsec_sa *sa);

/* Same direction, VRF, priority and selector: the one that comes later would never decide. */
bool policies_collide(const struct ipsec_policy_settings *a, const struct ipsec_policy_settings *b);

/* An association has come or gone: the policies that name it choose anew. */
void spd_choose(const struct ipsec_sa *about);

int sad_init(void);
void sad_free(void);
void spd_init(void); /* once, before the workers start */
void spd_free(void);
struct spd_cache *spd_cache_create(void);
void spd_cache_free(struct spd_cache *cache);

/* --- workers --- */

enum { IPSEC_SCRATCH = 1 << 17 };

struct ipsec_worker {
    struct esp_engine *engine;
    struct spd_cache *cache;
    uint8_t *scratch; /* IPSEC_SCRATCH bytes, for packets in several buffers */
    struct esp_reassembly *reassembly;
};
extern struct ipsec_worker ipsec_workers[WORKERS_MAX];
extern _Atomic uint64_t ipsec_clock; /* event_now(), turned by the control thread once a second */

/* There are tunnel interfaces. */
extern _Atomic bool ipsec_has_tunnels;

/* A tunnel interface is there, or not any more: associations with its number belong to it. */
void sad_tunnel_changed(uint32_t if_id, uint16_t interface);

/* Publishes the policies, and tries again later if there was no memory. */
void ipsec_publish_soon(void);

/* Some set has inbound policies. */
extern _Atomic bool ipsec_has_in_policies;

/* As the configuration says. */
extern bool ipsec_configured;

/* Learns of tunnel interfaces from now on. */
void ipsec_listen(void);

/* Undoes ipsec_need(), at the end of the program: no worker runs. */
void ipsec_free(void);

/* In two steps, for changes that must not fail half-way: what is made is not seen by anybody yet.
 */
struct ipsec_sa *sa_create(const struct ipsec_sa_settings *settings); /* NULL with errno */
void sa_insert(struct ipsec_sa *sa, enum ipsec_owner owner);
void sa_destroy(struct ipsec_sa *sa); /* one that was not inserted; NULL is allowed */
struct ipsec_policy *policy_create(const struct ipsec_policy_settings *settings); /* NULL: memory */
/* Room for more policies, beside all there are or in place of the configuration's. -ENOMEM,
 * -ENOSPC. */
int policy_reserve(unsigned more, bool replaces_config);
/* In the order of the list, as far as priorities leave it. */
void policy_insert_all(struct ipsec_policy *const *list, unsigned count, enum ipsec_owner owner);
void policy_destroy(struct ipsec_policy *policy);
void policy_delete_of(enum ipsec_owner owner); /* all of them, as ipsec_policy_delete() does */

/* What fits the association's path, whose first hop has room for `mtu` bytes. */
static inline unsigned sa_path_mtu(const struct ipsec_sa *sa, unsigned mtu) {
    return RTE_MIN(mtu, (unsigned)atomic_load_explicit(&sa->path_mtu, memory_order_relaxed));
}

/* The longest payload (inner packet, or in transport mode what ESP covers) that fits. */
static inline unsigned sa_room(const struct ipsec_sa *sa, unsigned mtu) {
    unsigned around = sa->outer + ESP_HEADER + sa->sizes.iv + sa->sizes.icv;

    if (mtu < around + sa->sizes.align)
        return 0;
    return ((mtu - around) & ~(sa->sizes.align - 1u)) - ESP_TRAILER; /* align: a power of 2 */
}
