/*
 * The neighbour table: states and timers of RFC 4861 section 7.3 for IPv6 and IPv4 neighbours
 * alike.
 *
 * Where this goes beyond the RFC:
 *
 *   - a neighbour that does not answer its three unicast probes is asked three times by multicast
 *     before it counts as failed, because it may only have got another link-layer address;
 *   - a gateway (referenced by routes) is never left STALE: it is probed when its confirmation
 *     ends, so that it is ready when traffic comes, and known to be dead before;
 *   - a failed gateway is asked once a second, while its packets get ICMP errors at once; any other
 *     failed neighbour is asked again when a packet needs it, not before a second is over.
 *
 * Time: one timer turns a wheel of WHEEL_SLOTS slots; only entries that are due are touched, and at
 * most WORK_PER_TURN of them at a time. A STALE entry is due once a second, to see whether workers
 * used it.
 *
 * What can go wrong: hosts that scan the prefix, or invent neighbours. Requests per second and
 * interface, unresolved entries and held packets are all limited, and where a limit is reached the
 * oldest gives way to the newest, so that a real neighbour gets its chance in the middle of a scan.
 * Gateways and static entries never give way. Who cannot be entered at all loses its packets,
 * counted as table_full.
 */
#include "l3/neighbour.h"

#include <errno.h>
#include <rte_random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

#include "core/event.h"
#include "core/log.h"
#include "core/packet.h"
#include "core/punt.h"
#include "core/worker.h"
#include "l3/link.h"
#include "l3/next_hop.h"
#include "l3/protocol.h"
#include "l3/rib.h"

/* RFC 4861 section 10, in milliseconds. */
enum {
    REACHABLE_TIME = 30000,
    RETRANS_TIMER = 1000,
    DELAY_FIRST_PROBE_TIME = 5000,
    MAX_MULTICAST_SOLICIT = 3,
    MAX_UNICAST_SOLICIT = 3,
};

enum {
    BUCKETS = 65536,

    TICK_MSEC = 100,
    WHEEL_SLOTS = 1024,   /* later deadlines go round more than once */
    WORK_PER_TURN = 4096, /* entries */

    USED_POLL_MSEC = 1000,        /* how often a STALE entry is looked at */
    STALE_KEEP_MSEC = 20 * 60000, /* an unused STALE entry is dropped then */
    FAILED_RETRY_MSEC = 1000,     /* at most one attempt in this time */
    FAILED_KEEP_MSEC = 30000,     /* a FAILED entry that nobody asks for is dropped then */
    ANSWER_MSEC = 3000,           /* an answer that comes later than this was not asked for */
    FAILED_MAX = NEIGHBOURS_INCOMPLETE_MAX,

    /* Requests per second and interface, and how many may come at once. Those for unknown hosts
     * have a budget of their own, so that a scan does not keep known ones from being confirmed. */
    NEW_PER_SECOND = 200,
    NEW_BURST = 50,
    KNOWN_PER_SECOND = 500,
    KNOWN_BURST = 100,
};

enum neighbour_drop {
    DROP_QUEUE_FULL,
    DROP_HOLD_FULL,
    DROP_TABLE_FULL,
    DROP_EVICTED,
    DROP_REMOVED,
    DROP_INTERFACE_DOWN,
    DROP_NO_NEIGHBOUR,
    DROP_NOT_ON_LINK,
    DROP_MALFORMED,
};

static struct drop_group neighbour_drops = {
    .name = "neighbour",
    .reasons =
        (const char *const[]){
            [DROP_QUEUE_FULL] = "queue_full", /* NEIGHBOUR_HOLD_MAX wait for this neighbour */
            [DROP_HOLD_FULL] = "hold_full",   /* NEIGHBOUR_HOLD_TOTAL_MAX wait altogether */
            [DROP_TABLE_FULL] = "table_full", /* no entry, or no next hop, could be made */
            [DROP_EVICTED] = "evicted",       /* waited for one that gave way to a newer one */
            [DROP_REMOVED] = "removed",       /* waited for one that was deleted */
            [DROP_INTERFACE_DOWN] = "interface_down",
            [DROP_NO_NEIGHBOUR] = "no_neighbour", /* its next hop is gone since the lookup */
            [DROP_NOT_ON_LINK] = "not_on_link", /* no host of that interface can have the address */
            [DROP_MALFORMED] = "malformed",     /* shorter than its own IP header */
            NULL,
        },
};
DROP_GROUP(neighbour_drops)

/* In the order in which entries give way. An entry is in the list of its class, oldest first. */
enum age_class { AGE_FAILED, AGE_STALE, AGE_INCOMPLETE, AGE_ACTIVE, AGE_CLASSES, AGE_KEPT };

struct neighbour;

/* A packet that waits. */
struct held {
    struct rte_mbuf *mbuf;
    struct neighbour *owner;
    bool gleaned; /* its destination is the neighbour itself, which is not just the gateway */
    TAILQ_ENTRY(held) in_all;
    TAILQ_ENTRY(held) in_queue;
};
TAILQ_HEAD(held_list, held);

struct neighbour {
    struct ip_address address;
    uint16_t interface;
    uint16_t vrf;
    uint8_t mac[6]; /* all zero unless has_mac */
    uint8_t state;  /* enum neighbour_state */
    uint8_t probes; /* requests sent in this state */
    bool has_mac;
    bool is_router;
    bool gleaned;    /* workers found it through a glean next hop: wants a host route */
    bool host_route; /* is in the RIB */
    bool l2_set;     /* the next hop's header holds `mac` */
    uint8_t shown;   /* enum next_hop_type: the type that the next hop has */
    uint8_t age;     /* enum age_class */
    bool armed;      /* is in the wheel */
    uint16_t slot;
    uint32_t next_hop; /* 0: this place in the table is free */
    uint32_t references;
    unsigned held_count;
    struct held_list held;
    uint64_t since;     /* when it came into its state */
    uint64_t confirmed; /* 0 = never */
    uint64_t asked;     /* when the last request was sent; 0 = no answer is expected */
    uint64_t deadline;
    LIST_ENTRY(neighbour) in_bucket; /* of free places: in the free list */
    TAILQ_ENTRY(neighbour) in_slot;
    TAILQ_ENTRY(neighbour) in_age;
};
LIST_HEAD(neighbour_bucket, neighbour);
TAILQ_HEAD(neighbour_list, neighbour);

/* What may still be sent: credit in thousandths of a request. */
struct budget {
    uint64_t stamp;
    uint32_t credit;
};

static struct {
    struct neighbour *entries; /* NEIGHBOURS_MAX */
    unsigned used_places;      /* places that were ever used */
    unsigned count;
    struct neighbour_bucket free;
    struct neighbour_bucket *buckets; /* BUCKETS */
    struct neighbour **by_next_hop;   /* NEXT_HOPS_MAX */
    uint64_t hash_key[2];

    struct neighbour_list slots[WHEEL_SLOTS];
    uint64_t tick; /* the slots up to this tick's are done */
    bool turning;
    unsigned armed_count;
    struct event_timer timer;

    struct neighbour_list age[AGE_CLASSES];
    unsigned age_count[AGE_CLASSES];

    struct held held[NEIGHBOUR_HOLD_TOTAL_MAX];
    struct held_list held_free;
    struct held_list held_all; /* oldest first */

    struct budget new_budget[INTERFACES_MAX], known_budget[INTERFACES_MAX];
} table;

static void drop(struct rte_mbuf *mbuf, enum neighbour_drop reason) {
    counters_drop(control_counters(), &neighbour_drops, reason);
    rte_pktmbuf_free(mbuf);
}

/* ---- finding ---- */

static inline uint64_t rotate(uint64_t value, unsigned bits) {
    return value << bits | value >> (64 - bits);
}

static inline void sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (J.-P. Aumasson, D. J. Bernstein, 2012) over three words: without the key nobody can
 * choose addresses that share a bucket. */
static unsigned hash(uint16_t interface, const struct ip_address *address) {
    uint64_t words[3], v[4] = {
                           table.hash_key[0] ^ UINT64_C(0x736f6d6570736575),
                           table.hash_key[1] ^ UINT64_C(0x646f72616e646f6d),
                           table.hash_key[0] ^ UINT64_C(0x6c7967656e657261),
                           table.hash_key[1] ^ UINT64_C(0x7465646279746573),
                       };

    memcpy(words, address->bytes, 16);
    words[2] = (uint64_t)address->family << 16 | interface;
    for (unsigned i = 0; i < 3; i++) {
        v[3] ^= words[i];
        sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 3; i++)
        sip_round(v);
    return (unsigned)((v[0] ^ v[1] ^ v[2] ^ v[3]) % BUCKETS);
}

static struct neighbour *find(uint16_t interface, const struct ip_address *address) {
    struct neighbour *n;

    LIST_FOREACH(n, &table.buckets[hash(interface, address)], in_bucket) {
        if (n->interface == interface && ip_address_compare(&n->address, address) == 0)
            return n;
    }
    return NULL;
}

/* ---- the wheel ---- */

static void disarm(struct neighbour *n) {
    if (!n->armed)
        return;
    TAILQ_REMOVE(&table.slots[n->slot], n, in_slot);
    n->armed = false;
    table.armed_count--;
}

static void arm_at(struct neighbour *n, uint64_t deadline) {
    uint64_t now = event_now(), tick, first, last;

    disarm(n);
    if (table.armed_count == 0 && !table.turning)
        table.tick = now / TICK_MSEC; /* the wheel stood still */
    /* While it turns the slot after `tick` is being emptied: nothing may be put there. */
    first = table.tick + (table.turning ? 2 : 1);
    last = table.tick + WHEEL_SLOTS;
    tick = (deadline + TICK_MSEC - 1) / TICK_MSEC;
    tick = tick < first ? first : tick > last ? last : tick;

    n->deadline = deadline;
    n->slot = (uint16_t)(tick % WHEEL_SLOTS);
    n->armed = true;
    TAILQ_INSERT_TAIL(&table.slots[n->slot], n, in_slot);
    table.armed_count++;
    if (!table.turning && !event_timer_armed(&table.timer))
        event_timer_start(&table.timer, TICK_MSEC - now % TICK_MSEC);
}

static void arm(struct neighbour *n, uint64_t msec) {
    arm_at(n, event_now() + msec);
}

static void due(struct neighbour *n);

static void turn_wheel(struct event_timer *timer) {
    uint64_t now = event_now(), target = now / TICK_MSEC;
    unsigned work = WORK_PER_TURN;

    /* After a long sleep one round visits every slot. */
    if (target > table.tick + WHEEL_SLOTS)
        table.tick = target - WHEEL_SLOTS;
    table.turning = true;
    while (table.tick < target && work > 0) {
        struct neighbour_list *slot = &table.slots[(table.tick + 1) % WHEEL_SLOTS];
        struct neighbour *n;

        while ((n = TAILQ_FIRST(slot)) != NULL && work > 0) {
            work--;
            if (n->deadline > now) {
                arm_at(n, n->deadline); /* it is for a later round */
            } else {
                disarm(n);
                due(n);
            }
        }
        if (TAILQ_EMPTY(slot))
            table.tick++;
    }
    table.turning = false;
    if (table.tick < target)
        event_timer_start(timer, 0); /* others get their turn in between */
    else if (table.armed_count > 0)
        event_timer_start(timer, TICK_MSEC - now % TICK_MSEC);
}

/* ---- who gives way ---- */

static enum age_class age_class(const struct neighbour *n) {
    if (n->references > 0)
        return AGE_KEPT;
    switch ((enum neighbour_state)n->state) {
    case NEIGHBOUR_STATIC:
        return AGE_KEPT;
    case NEIGHBOUR_INCOMPLETE:
        return AGE_INCOMPLETE;
    case NEIGHBOUR_FAILED:
        return AGE_FAILED;
    case NEIGHBOUR_STALE:
        return AGE_STALE;
    case NEIGHBOUR_REACHABLE:
    case NEIGHBOUR_DELAY:
    case NEIGHBOUR_PROBE:
        break;
    }
    return AGE_ACTIVE;
}

static void age_leave(struct neighbour *n) {
    if (n->age >= AGE_CLASSES)
        return;
    TAILQ_REMOVE(&table.age[n->age], n, in_age);
    table.age_count[n->age]--;
    n->age = AGE_KEPT;
}

static void age_update(struct neighbour *n) {
    enum age_class class = age_class(n);

    if (class == n->age)
        return;
    age_leave(n);
    n->age = (uint8_t) class;
    if (class >= AGE_CLASSES)
        return;
    TAILQ_INSERT_TAIL(&table.age[class], n, in_age);
    table.age_count[class]++;
}

/* ---- packets that wait ---- */

static struct rte_mbuf *take_held(struct held *held) {
    struct rte_mbuf *mbuf = held->mbuf;

    TAILQ_REMOVE(&held->owner->held, held, in_queue);
    TAILQ_REMOVE(&table.held_all, held, in_all);
    held->owner->held_count--;
    TAILQ_INSERT_HEAD(&table.held_free, held, in_all);
    return mbuf;
}

static void hold(struct neighbour *n, struct rte_mbuf *mbuf, bool gleaned) {
    struct held *held;

    if (n->held_count == NEIGHBOUR_HOLD_MAX)
        drop(take_held(TAILQ_FIRST(&n->held)), DROP_QUEUE_FULL);
    if (TAILQ_EMPTY(&table.held_free))
        drop(take_held(TAILQ_FIRST(&table.held_all)), DROP_HOLD_FULL);
    held = TAILQ_FIRST(&table.held_free);
    TAILQ_REMOVE(&table.held_free, held, in_all);
    held->mbuf = mbuf;
    held->owner = n;
    held->gleaned = gleaned;
    TAILQ_INSERT_TAIL(&n->held, held, in_queue);
    TAILQ_INSERT_TAIL(&table.held_all, held, in_all);
    n->held_count++;
}

/* Back to a worker, which sends it on, or answers with an ICMP error if the neighbour has failed. A
 * packet for the neighbour itself is told its next hop, as there may be no host route to find: it
 * could come back for ever. One that goes through a gateway is routed again, as its route may have
 * changed while it waited. */
static void give_back(struct neighbour *n, struct rte_mbuf *mbuf, bool gleaned) {
    struct packet_meta *meta = packet_meta(mbuf);

    meta->cause = CAUSE_NONE;
    if (gleaned) {
        meta->next_hop = n->next_hop;
        meta->flags |= PACKET_NEXT_HOP;
    }
    control_route(mbuf);
}

static void give_back_held(struct neighbour *n) {
    struct held *held;

    while ((held = TAILQ_FIRST(&n->held)) != NULL) {
        bool gleaned = held->gleaned;

        give_back(n, take_held(held), gleaned);
    }
}

static void drop_held(struct neighbour *n, enum neighbour_drop reason) {
    struct held *held;

    while ((held = TAILQ_FIRST(&n->held)) != NULL)
        drop(take_held(held), reason);
}

/* ---- what workers see ---- */

static struct interface *interface_if_up(const struct neighbour *n) {
    struct interface *interface = interface_by_id(n->interface);

    return interface && interface->up ? interface : NULL;
}

static struct ip_prefix host_prefix(const struct neighbour *n) {
    return (struct ip_prefix){.address = n->address, .length = ip_family_bits(n->address.family)};
}

static void host_route_remove(struct neighbour *n) {
    struct ip_prefix prefix = host_prefix(n);

    if (!n->host_route)
        return;
    n->host_route = false;
    rib_delete(n->vrf, &prefix, ROUTE_NEIGHBOUR);
}

/* Link-local addresses mean nothing without their interface, so they never are routes. A host that
 * is not in a connected prefix was found through an on-link route; as nobody tells when that goes
 * away, its host route ends with each confirmation, and the next packet asks the routes again. */
static bool host_route_wanted(const struct neighbour *n) {
    const struct interface *interface = interface_if_up(n);

    if (!interface || (n->address.family == AF_INET6 && ip_address_is_link_local(&n->address)))
        return false;
    switch ((enum neighbour_state)n->state) {
    case NEIGHBOUR_INCOMPLETE:
    case NEIGHBOUR_FAILED:
        if (!n->host_route)
            return false; /* a scan is not worth routes that lead nowhere */
        break;
    case NEIGHBOUR_STATIC:
    case NEIGHBOUR_STALE:
        return link_connected(interface, &n->address);
    case NEIGHBOUR_REACHABLE:
    case NEIGHBOUR_DELAY:
    case NEIGHBOUR_PROBE:
        break;
    }
    return n->gleaned || link_connected(interface, &n->address);
}

static void host_route_update(struct neighbour *n) {
    static struct log_limit limit;
    struct ip_prefix prefix = host_prefix(n);
    char text[IP_ADDRESS_TEXT];
    int error;

    if (host_route_wanted(n) == n->host_route)
        return;
    if (n->host_route) {
        host_route_remove(n);
        return;
    }
    error = rib_add_direct(n->vrf, &prefix, ROUTE_NEIGHBOUR, n->next_hop);
    if (error == 0) {
        n->host_route = true;
        return;
    }
    /* Its packets keep coming here through the connected prefix: slow, but they arrive. */
    log_limited(&limit, LOG_LEVEL_WARNING, "neighbour",
                "cannot add a route to the neighbour %s: %s", ip_address_text(&n->address, text),
                strerror(-error));
}

static void show(struct neighbour *n, enum next_hop_type type) {
    const struct interface *interface = interface_by_id(n->interface);
    bool needs_l2 = type == NEXT_HOP_FORWARD || type == NEXT_HOP_STALE;

    if (type == NEXT_HOP_STALE && n->shown != NEXT_HOP_STALE)
        __atomic_store_n(&next_hops[n->next_hop].used, 0, __ATOMIC_RELAXED);
    if (needs_l2 && !n->l2_set && interface) {
        next_hop_set_forward(n->next_hop, type, n->mac, interface->mac, interface->vlan);
        n->l2_set = true;
    } else if (type != n->shown) {
        next_hop_set_type(n->next_hop, type);
    }
    n->shown = (uint8_t)type;
}

static void enter(struct neighbour *n, enum neighbour_state state, enum next_hop_type type) {
    n->state = (uint8_t)state;
    n->since = event_now();
    n->probes = 0;
    show(n, type); /* before a route leads there */
    host_route_update(n);
    age_update(n);
}

static void set_mac(struct neighbour *n, const uint8_t mac[6]) {
    if (n->has_mac && memcmp(n->mac, mac, 6) == 0)
        return;
    memcpy(n->mac, mac, 6);
    n->has_mac = true;
    n->l2_set = false;
}

static void forget_mac(struct neighbour *n) {
    memset(n->mac, 0, sizeof(n->mac));
    n->has_mac = false;
    n->l2_set = false;
}

/* ---- making and removing entries ---- */

static void remove_entry(struct neighbour *n, enum neighbour_drop reason) {
    drop_held(n, reason);
    disarm(n);
    age_leave(n);
    host_route_remove(n); /* before the next hop goes */
    LIST_REMOVE(n, in_bucket);
    table.by_next_hop[n->next_hop] = NULL;
    next_hop_release(n->next_hop);
    n->next_hop = 0;
    LIST_INSERT_HEAD(&table.free, n, in_bucket);
    table.count--;
}

/* Makes the oldest entry of the class give way, but for `spare`. */
static bool evict(enum age_class class, const struct neighbour *spare) {
    struct neighbour *n = TAILQ_FIRST(&table.age[class]);

    if (n == spare && n)
        n = TAILQ_NEXT(n, in_age);
    if (!n)
        return false;
    remove_entry(n, DROP_EVICTED);
    return true;
}

/* Only who is asked for by the configuration may take the place of a neighbour in use. */
static bool make_room(bool configured) {
    unsigned classes = configured ? AGE_CLASSES : AGE_ACTIVE;

    for (unsigned class = 0; class < classes; class ++) {
        if (evict((enum age_class) class, NULL))
            return true;
    }
    return false;
}

/* The caller gives it a state at once. NULL when there is no room or no next hop. */
static struct neighbour *make_entry(const struct interface *interface,
                                    const struct ip_address *address, bool configured) {
    struct neighbour *n;
    uint32_t id;

    if (table.count == NEIGHBOURS_MAX && !make_room(configured))
        return NULL;
    id = next_hop_alloc();
    if (id == 0 || id >= NEXT_HOPS_MAX)
        return NULL;

    n = LIST_FIRST(&table.free);
    if (n)
        LIST_REMOVE(n, in_bucket);
    else
        n = &table.entries[table.used_places++];
    *n = (struct neighbour){
        .address = *address,
        .interface = interface->id,
        .vrf = interface->vrf,
        .next_hop = id,
        .shown = NEXT_HOP_NONE,
        .age = AGE_KEPT,
    };
    TAILQ_INIT(&n->held);
    LIST_INSERT_HEAD(&table.buckets[hash(n->interface, address)], n, in_bucket);
    table.by_next_hop[id] = n;
    table.count++;
    next_hop_set_interface(id, interface->id, interface->port->id, interface->mtu);
    return n;
}

/* ---- asking ---- */

/* Takes one request from the budget if more than `reserve` are left. */
static bool spend(struct budget *budget, unsigned per_second, unsigned burst, unsigned reserve) {
    uint64_t now = event_now();
    uint64_t earned = budget->stamp == 0 ? UINT64_MAX / per_second : now - budget->stamp;
    uint64_t most = (uint64_t)burst * 1000;

    budget->stamp = now;
    if (earned > most || budget->credit + earned * per_second > most)
        budget->credit = (uint32_t)most;
    else
        budget->credit += (uint32_t)(earned * per_second);
    if (budget->credit < (reserve + 1) * 1000)
        return false;
    budget->credit -= 1000;
    return true;
}

/* False if this has to wait, when it does not count as an attempt. `first`: a packet has just made
 * the neighbour wanted. Such requests find something left when others, behind a scan, queue up. */
static bool ask(struct neighbour *n, const struct interface *interface, bool unicast, bool first) {
    bool known = n->references > 0 || n->has_mac;

    if (known ? !spend(&table.known_budget[n->interface], KNOWN_PER_SECOND, KNOWN_BURST, 0)
              : !spend(&table.new_budget[n->interface], NEW_PER_SECOND, NEW_BURST,
                       first ? 0 : NEW_BURST / 2))
        return false;
    n->asked = event_now();
    if (n->address.family == AF_INET)
        arp_send_request(interface, &n->address, unicast ? n->mac : NULL);
    else
        nd_send_solicitation(interface, &n->address, unicast ? n->mac : NULL);
    return true;
}

/* ---- the states ---- */

static void fail(struct neighbour *n) {
    if (n->references == 0 && table.age_count[AGE_FAILED] >= FAILED_MAX)
        evict(AGE_FAILED, n);
    forget_mac(n);
    enter(n, NEIGHBOUR_FAILED, NEXT_HOP_UNREACHABLE);
    give_back_held(n);
    arm(n, FAILED_RETRY_MSEC);
}

/* Asks (again), or goes on to what follows the last request without an answer. */
static void ask_incomplete(struct neighbour *n, bool first) {
    const struct interface *interface = interface_if_up(n);

    if (!interface || n->probes == MAX_MULTICAST_SOLICIT) {
        fail(n);
    } else if (ask(n, interface, false, first)) {
        n->probes++;
        arm(n, RETRANS_TIMER);
    } else {
        arm(n, TICK_MSEC);
    }
}

static void become_incomplete(struct neighbour *n) {
    if (n->references == 0 && table.age_count[AGE_INCOMPLETE] >= NEIGHBOURS_INCOMPLETE_MAX)
        evict(AGE_INCOMPLETE, n);
    forget_mac(n);
    enter(n, NEIGHBOUR_INCOMPLETE, NEXT_HOP_RESOLVE);
    ask_incomplete(n, true);
}

static void ask_probe(struct neighbour *n) {
    const struct interface *interface = interface_if_up(n);

    if (!interface || n->probes == MAX_UNICAST_SOLICIT) {
        become_incomplete(n);
    } else if (ask(n, interface, true, false)) {
        n->probes++;
        arm(n, RETRANS_TIMER);
    } else {
        arm(n, TICK_MSEC);
    }
}

static void become_probe(struct neighbour *n) {
    enter(n, NEIGHBOUR_PROBE, NEXT_HOP_FORWARD);
    ask_probe(n);
}

static void become_delay(struct neighbour *n) {
    enter(n, NEIGHBOUR_DELAY, NEXT_HOP_FORWARD);
    arm(n, DELAY_FIRST_PROBE_TIME);
}

/* Its link-layer address is known, but not known to be right. */
static void become_stale(struct neighbour *n) {
    if (n->references > 0) {
        become_delay(n);
    } else {
        enter(n, NEIGHBOUR_STALE, NEXT_HOP_STALE);
        arm(n, 1 + rte_rand_max(USED_POLL_MSEC)); /* spread those that came together */
    }
    give_back_held(n);
}

static void become_reachable(struct neighbour *n) {
    n->confirmed = event_now();
    n->asked = 0;
    enter(n, NEIGHBOUR_REACHABLE, NEXT_HOP_FORWARD);
    give_back_held(n);
    arm(n, REACHABLE_TIME / 2 + rte_rand_max(REACHABLE_TIME + 1));
}

static void become_static(struct neighbour *n, const uint8_t mac[6]) {
    disarm(n);
    set_mac(n, mac);
    n->asked = 0;
    enter(n, NEIGHBOUR_STATIC, NEXT_HOP_FORWARD);
    give_back_held(n);
}

static void look_at_stale(struct neighbour *n) {
    if (__atomic_load_n(&next_hops[n->next_hop].used, __ATOMIC_RELAXED))
        become_delay(n);
    else if (event_now() - n->since >= STALE_KEEP_MSEC)
        remove_entry(n, DROP_REMOVED);
    else
        arm(n, USED_POLL_MSEC);
}

static void look_at_failed(struct neighbour *n) {
    const struct interface *interface = interface_if_up(n);

    if (n->references > 0) {
        if (interface) {
            ask(n, interface, false, false);
            arm(n, FAILED_RETRY_MSEC);
        }
    } else if (event_now() - n->since >= FAILED_KEEP_MSEC) {
        remove_entry(n, DROP_REMOVED);
    } else {
        show(n, NEXT_HOP_RESOLVE); /* the next packet starts an attempt */
        arm_at(n, n->since + FAILED_KEEP_MSEC);
    }
}

static void due(struct neighbour *n) {
    switch ((enum neighbour_state)n->state) {
    case NEIGHBOUR_INCOMPLETE:
        ask_incomplete(n, false);
        break;
    case NEIGHBOUR_REACHABLE:
        n->gleaned = false; /* until a packet says so again */
        if (n->references > 0)
            become_probe(n);
        else
            become_stale(n);
        break;
    case NEIGHBOUR_STALE:
        look_at_stale(n);
        break;
    case NEIGHBOUR_DELAY:
        become_probe(n);
        break;
    case NEIGHBOUR_PROBE:
        ask_probe(n);
        break;
    case NEIGHBOUR_FAILED:
        look_at_failed(n);
        break;
    case NEIGHBOUR_STATIC:
        break;
    }
}

/* ---- gateways ---- */

uint32_t neighbour_reference(uint16_t interface_id, const struct ip_address *address) {
    struct neighbour *n = find(interface_id, address);
    struct interface *interface = interface_by_id(interface_id);

    if (!n) {
        if (!interface)
            return 0;
        n = make_entry(interface, address, true);
        if (!n)
            return 0;
        n->references = 1;
        if (interface->up) {
            become_incomplete(n);
        } else {
            enter(n, NEIGHBOUR_FAILED, NEXT_HOP_UNREACHABLE);
        }
        return n->next_hop;
    }
    n->references++;
    age_update(n);
    if (n->references == 1) {
        if (n->state == NEIGHBOUR_STALE)
            become_delay(n);
        else if (n->state == NEIGHBOUR_FAILED && interface && interface->up)
            become_incomplete(n);
    }
    return n->next_hop;
}

void neighbour_unreference(uint16_t interface, const struct ip_address *address) {
    struct neighbour *n = find(interface, address);

    if (!n || n->references == 0 || --n->references > 0)
        return;
    if (n->state != NEIGHBOUR_STATIC && !interface_if_up(n)) {
        remove_entry(n, DROP_INTERFACE_DOWN);
        return;
    }
    age_update(n);
    if (n->state == NEIGHBOUR_FAILED)
        arm(n, FAILED_RETRY_MSEC);
}

/* ---- packets ---- */

static bool read_destination(const struct rte_mbuf *mbuf, const struct packet_meta *meta,
                             struct ip_address *out) {
    bool ipv6 = (meta->flags & PACKET_IPV6) != 0;
    uint8_t buffer[16];
    const void *bytes =
        rte_pktmbuf_read(mbuf, meta->l3_offset + (ipv6 ? 24u : 16u), ipv6 ? 16 : 4, buffer);

    if (!bytes)
        return false;
    *out = ipv6 ? ip6_address(bytes) : ip4_address(bytes);
    return true;
}

/* The neighbour on the interface that the packet's destination is; NULL when the packet was
 * dropped. */
static struct neighbour *glean(struct rte_mbuf *mbuf, uint16_t interface_id) {
    struct interface *interface = interface_by_id(interface_id);
    struct ip_address address;
    struct neighbour *n;

    if (!interface || !interface->up) {
        drop(mbuf, DROP_INTERFACE_DOWN);
        return NULL;
    }
    if (!read_destination(mbuf, packet_meta(mbuf), &address)) {
        drop(mbuf, DROP_MALFORMED);
        return NULL;
    }
    n = find(interface->id, &address);
    if (n) {
        n->gleaned = true;
        host_route_update(n);
        return n;
    }
    /* That the prefix is on-link the route has said already. An answer to a link-local address may
     * lead to a tunnel, though, which has no neighbours. */
    if (interface->if_id != 0 || !ip_address_is_host(&address) || link_own(interface, &address)) {
        drop(mbuf, DROP_NOT_ON_LINK);
        return NULL;
    }
    n = make_entry(interface, &address, false);
    if (!n) {
        drop(mbuf, DROP_TABLE_FULL);
        return NULL;
    }
    n->gleaned = true;
    become_incomplete(n);
    return n;
}

void neighbour_resolve(struct rte_mbuf *mbuf) {
    struct packet_meta *meta = packet_meta(mbuf);
    uint32_t id = meta->next_hop & NEXT_HOP_ID_MASK;
    struct neighbour *n = id < NEXT_HOPS_MAX ? table.by_next_hop[id] : NULL;
    bool gleaned = false;

    if (!n) {
        if (id == NEXT_HOP_ID_NONE && meta->out_interface != 0) {
            n = glean(mbuf, meta->out_interface);
        } else if (id < NEXT_HOPS_MAX && next_hop_get(id)->type == NEXT_HOP_GLEAN) {
            n = glean(mbuf, next_hop_get(id)->out_interface);
        } else {
            drop(mbuf, DROP_NO_NEIGHBOUR);
            return;
        }
        if (!n)
            return;
        gleaned = true;
    }

    switch ((enum neighbour_state)n->state) {
    case NEIGHBOUR_FAILED:
        if (n->references == 0 && event_now() - n->since >= FAILED_RETRY_MSEC) {
            hold(n, mbuf, gleaned);
            become_incomplete(n);
            return;
        }
        break;
    case NEIGHBOUR_INCOMPLETE:
        hold(n, mbuf, gleaned);
        return;
    case NEIGHBOUR_STALE:
        /* It came here, so no worker could note the use. */
        become_delay(n);
        break;
    case NEIGHBOUR_REACHABLE:
    case NEIGHBOUR_DELAY:
    case NEIGHBOUR_PROBE:
    case NEIGHBOUR_STATIC:
        break; /* resolved while the packet was on its way here */
    }
    give_back(n, mbuf, gleaned);
}

/* ---- what the protocols tell ---- */

void neighbour_learn(uint16_t interface_id, const struct ip_address *address, const uint8_t mac[6],
                     bool solicited, bool override, bool is_router, bool create) {
    struct interface *interface = interface_by_id(interface_id);
    struct neighbour *n = find(interface_id, address);
    bool same;

    if (!interface || !interface->up || !link_mac_is_host(mac))
        return;
    if (!n) {
        if (!create || !link_neighbour_possible(interface, address))
            return;
        n = make_entry(interface, address, false);
        if (!n)
            return;
        n->is_router = is_router;
        set_mac(n, mac);
        become_stale(n);
        return;
    }
    if (n->state == NEIGHBOUR_STATIC || link_own(interface, address))
        return;

    /* Nobody can confirm what was not asked. */
    if (n->asked == 0 || event_now() - n->asked > ANSWER_MSEC)
        solicited = false;
    same = n->has_mac && memcmp(n->mac, mac, 6) == 0;
    if (n->has_mac && !same && !override) { /* RFC 4861 section 7.2.5, case I */
        if (n->state == NEIGHBOUR_REACHABLE && n->references > 0)
            become_probe(n);
        else if (n->state == NEIGHBOUR_REACHABLE)
            become_stale(n);
        return;
    }
    n->is_router = is_router;
    set_mac(n, mac);
    if (solicited)
        become_reachable(n);
    else if (!same)
        become_stale(n);
}

/* ---- by hand ---- */

int neighbour_add_static(uint16_t interface_id, const struct ip_address *address,
                         const uint8_t mac[6]) {
    struct interface *interface = interface_by_id(interface_id);
    struct neighbour *n = find(interface_id, address);

    if (!interface || !link_mac_is_host(mac) || !link_neighbour_possible(interface, address))
        return -EINVAL;
    if (!n) {
        n = make_entry(interface, address, true);
        if (!n)
            return -ENOSPC;
    }
    become_static(n, mac);
    return 0;
}

/* For a gateway on an interface that is down. */
static void suspend(struct neighbour *n) {
    drop_held(n, DROP_INTERFACE_DOWN);
    disarm(n);
    host_route_remove(n);
    forget_mac(n);
    n->confirmed = n->asked = 0;
    enter(n, NEIGHBOUR_FAILED, NEXT_HOP_UNREACHABLE);
}

/* Gateways keep their entry, and are asked anew. */
static void forget(struct neighbour *n) {
    if (n->references == 0) {
        remove_entry(n, DROP_REMOVED);
        return;
    }
    n->confirmed = n->asked = 0;
    n->is_router = false;
    if (interface_if_up(n)) {
        become_incomplete(n);
    } else {
        suspend(n);
    }
}

int neighbour_delete(uint16_t interface, const struct ip_address *address) {
    struct neighbour *n = find(interface, address);

    if (!n)
        return -ENOENT;
    forget(n);
    return 0;
}

unsigned neighbour_flush(uint16_t interface) {
    unsigned flushed = 0;

    for (unsigned i = 0; i < table.used_places; i++) {
        struct neighbour *n = &table.entries[i];

        if (n->next_hop == 0 || n->state == NEIGHBOUR_STATIC ||
            (interface != 0 && n->interface != interface))
            continue;
        forget(n);
        flushed++;
    }
    return flushed;
}

/* ---- listing ---- */

static struct neighbour_view view_of(const struct neighbour *n) {
    struct neighbour_view view = {
        .interface = n->interface,
        .address = n->address,
        .has_mac = n->has_mac,
        .state = (enum neighbour_state)n->state,
        .confirmed_msec = n->confirmed,
        .is_router = n->is_router,
        .next_hop = n->next_hop,
        .references = n->references,
        .held = n->held_count,
    };

    memcpy(view.mac, n->mac, sizeof(view.mac));
    return view;
}

void neighbour_each(uint16_t interface,
                    bool (*visit)(const struct neighbour_view *view, void *context),
                    void *context) {
    for (unsigned i = 0; i < table.used_places; i++) {
        const struct neighbour *n = &table.entries[i];

        if (n->next_hop != 0 && (interface == 0 || n->interface == interface)) {
            struct neighbour_view view = view_of(n);

            if (!visit(&view, context))
                return;
        }
    }
}

bool neighbour_find(uint16_t interface, const struct ip_address *address,
                    struct neighbour_view *out) {
    const struct neighbour *n = find(interface, address);

    if (!n)
        return false;
    *out = view_of(n);
    return true;
}

/* ---- interfaces come and go ---- */

/* Visits the entries of an interface. The entry visited may be removed, or another. */
static void each(const struct interface *interface,
                 void (*visit)(struct neighbour *n, const void *context), const void *context) {
    for (unsigned i = 0; i < table.used_places; i++) {
        struct neighbour *n = &table.entries[i];

        if (n->next_hop != 0 && n->interface == interface->id)
            visit(n, context);
    }
}

static void one_up(struct neighbour *n, const void *context) {
    const struct interface *interface = context;

    next_hop_set_interface(n->next_hop, interface->id, interface->port->id, interface->mtu);
    /* An entry that routes held on to may find itself on a new interface. */
    n->vrf = interface->vrf;
    n->l2_set = false;
    if (n->state == NEIGHBOUR_STATIC)
        enter(n, NEIGHBOUR_STATIC, NEXT_HOP_FORWARD);
    else
        become_incomplete(n);
}

static void one_down(struct neighbour *n, const void *context) {
    (void)context;
    if (n->state == NEIGHBOUR_STATIC)
        host_route_remove(n);
    else if (n->references == 0)
        remove_entry(n, DROP_INTERFACE_DOWN);
    else
        suspend(n);
}

/* An entry that routes still refer to goes with the last reference. */
static void one_removed(struct neighbour *n, const void *context) {
    (void)context;
    if (n->references == 0)
        remove_entry(n, DROP_INTERFACE_DOWN);
    else
        suspend(n);
}

static void one_changed(struct neighbour *n, const void *context) {
    const struct interface *interface = context;

    next_hop_set_interface(n->next_hop, interface->id, interface->port->id, interface->mtu);
}

static void one_address_added(struct neighbour *n, const void *context) {
    const struct interface_address *address = context;

    if (ip_address_compare(&n->address, &address->prefix.address) == 0)
        forget(n); /* the router itself now */
    else
        host_route_update(n);
}

static void one_address_removed(struct neighbour *n, const void *context) {
    const struct interface_address *address = context;
    const struct interface *interface = interface_by_id(n->interface);

    if (!interface || !ip_prefix_contains(&address->prefix, &n->address) ||
        link_connected(interface, &n->address))
        return;
    n->gleaned = false;
    if (n->references == 0 && n->state != NEIGHBOUR_STATIC)
        remove_entry(n, DROP_REMOVED);
    else
        host_route_update(n);
}

static void on_up(struct interface *interface) {
    each(interface, one_up, interface);
}

static void on_down(struct interface *interface) {
    each(interface, one_down, NULL);
}

static void on_removed(struct interface *interface) {
    each(interface, one_removed, NULL);
}

static void on_changed(struct interface *interface) {
    each(interface, one_changed, interface);
}

static void on_address_added(struct interface *interface, const struct interface_address *address) {
    each(interface, one_address_added, address);
}

static void on_address_removed(struct interface *interface,
                               const struct interface_address *address) {
    each(interface, one_address_removed, address);
}

/* The prefix of a duplicate address does not count, that of one which is used again does. */
static void on_address_changed(struct interface *interface,
                               const struct interface_address *address) {
    if (address->state == ADDRESS_DUPLICATE)
        on_address_removed(interface, address);
    else
        on_address_added(interface, address);
}

static struct interface_listener listener = {
    .removed = on_removed,
    .up = on_up,
    .down = on_down,
    .address_added = on_address_added,
    .address_removed = on_address_removed,
    .address_changed = on_address_changed,
    .changed = on_changed,
};

int neighbour_init(void) {
    if (table.entries)
        return -EALREADY;
    table.entries = calloc(NEIGHBOURS_MAX, sizeof(*table.entries));
    table.buckets = calloc(BUCKETS, sizeof(*table.buckets));
    table.by_next_hop = calloc(NEXT_HOPS_MAX, sizeof(*table.by_next_hop));
    if (!table.entries || !table.buckets || !table.by_next_hop) {
        free(table.entries);
        free(table.buckets);
        free(table.by_next_hop);
        table.entries = NULL;
        return -ENOMEM;
    }
    if (getrandom(table.hash_key, sizeof(table.hash_key), GRND_NONBLOCK) !=
        (ssize_t)sizeof(table.hash_key)) {
        table.hash_key[0] = rte_rand();
        table.hash_key[1] = rte_rand();
    }
    LIST_INIT(&table.free);
    for (unsigned i = 0; i < WHEEL_SLOTS; i++)
        TAILQ_INIT(&table.slots[i]);
    for (unsigned i = 0; i < AGE_CLASSES; i++)
        TAILQ_INIT(&table.age[i]);
    TAILQ_INIT(&table.held_free);
    TAILQ_INIT(&table.held_all);
    for (unsigned i = 0; i < NEIGHBOUR_HOLD_TOTAL_MAX; i++)
        TAILQ_INSERT_TAIL(&table.held_free, &table.held[i], in_all);
    table.timer.expired = turn_wheel;
    interface_listen(&listener);
    punt_set_handler(PUNT_RESOLVE, neighbour_resolve);
    return 0;
}
