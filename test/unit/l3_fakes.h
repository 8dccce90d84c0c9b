/*
 * What the tests of the neighbour protocols put in place of the rest of the router: interfaces, the
 * way to the workers, and (with FAKE_ROUTES defined) next hops and the RIB. Everything that goes
 * out is recorded. Included by one file of each program.
 */
#pragma once

#include <errno.h>
#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_random.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/counters.h"
#include "core/event.h"
#include "core/packet.h"
#include "core/punt.h"
#include "core/worker.h"
#include "interface/interface.h"
#include "l3/next_hop.h"
#include "l3/rib.h"

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                        \
        }                                                                   \
    } while (0)

/* ---- start ---- */

static struct rte_mempool *fake_pool;

/* Time passes only when a test says so, however slow the machine is: the clock under the event loop
 * stands still once the EAL has started. */
static bool clock_stands;

int clock_gettime(clockid_t clock, struct timespec *out) {
    if (!clock_stands)
        return (int)syscall(SYS_clock_gettime, clock, out);
    *out = (struct timespec){.tv_sec = 1000};
    return 0;
}

static inline void fakes_start(void) {
    static char *arguments[] = {(char *)(uintptr_t) "test",
                                (char *)(uintptr_t) "--no-huge",
                                (char *)(uintptr_t) "--no-shconf",
                                (char *)(uintptr_t) "-m",
                                (char *)(uintptr_t) "64",
                                (char *)(uintptr_t) "-l",
                                (char *)(uintptr_t) "0",
                                (char *)(uintptr_t) "--no-telemetry",
                                (char *)(uintptr_t) "--no-pci",
                                (char *)(uintptr_t) "--log-level=error",
                                NULL};

    CHECK(rte_eal_init(sizeof(arguments) / sizeof(arguments[0]) - 1, arguments) >= 0);
    CHECK(packet_meta_init() == 0);
    fake_pool =
        rte_pktmbuf_pool_create("test", 4095, 0, 0, 2048 + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    CHECK(fake_pool != NULL);
    rte_srand(1);
    clock_stands = true;
    CHECK(event_init() == 0);
}

/* Lets time pass in small steps. */
static inline void pass(uint64_t msec) {
    const uint64_t step = 50;

    while (msec > 0) {
        uint64_t now = msec < step ? msec : step;

        event_advance(now);
        msec -= now;
        while (event_turn(0) > 0)
            continue;
    }
}

/* ---- counters ---- */

static struct counters fake_counters;

struct counters *control_counters(void) {
    return &fake_counters;
}

static inline uint64_t drops(const char *group_name, const char *reason) {
    for (const struct drop_group *group = drop_group_first(); group; group = group->next) {
        for (unsigned i = 0; i < group->count; i++) {
            if (strcmp(group->name, group_name) == 0 && strcmp(group->reasons[i], reason) == 0)
                return fake_counters.drops[group->base + i];
        }
    }
    fprintf(stderr, "there is no drop reason %s.%s\n", group_name, reason);
    abort();
}

/* The sum of a group's reasons. */
static inline uint64_t drops_all(const char *group_name) {
    uint64_t sum = 0;

    for (const struct drop_group *group = drop_group_first(); group; group = group->next) {
        for (unsigned i = 0; i < group->count && strcmp(group->name, group_name) == 0; i++)
            sum += fake_counters.drops[group->base + i];
    }
    return sum;
}

/* ---- towards the workers ---- */

enum { SENT_MAX = 256, SENT_BYTES = 1600 };

struct sent {
    uint16_t interface, port;
    uint64_t when;
    unsigned length;
    uint8_t bytes[SENT_BYTES];
};

static struct sent sent[SENT_MAX]; /* the first frames since forget_sent() */
static unsigned sent_count;
static bool no_buffers;

static inline void forget_sent(void) {
    sent_count = 0;
}

struct rte_mbuf *control_mbuf(void) {
    struct rte_mbuf *mbuf = no_buffers ? NULL : rte_pktmbuf_alloc(fake_pool);

    if (mbuf)
        memset(packet_meta(mbuf), 0, sizeof(struct packet_meta));
    return mbuf;
}

void control_transmit(struct rte_mbuf *mbuf, uint16_t out_interface, uint16_t port) {
    if (sent_count < SENT_MAX) {
        struct sent *s = &sent[sent_count];

        CHECK(mbuf->nb_segs == 1 && mbuf->data_len <= SENT_BYTES);
        s->interface = out_interface;
        s->port = port;
        s->when = event_now();
        s->length = mbuf->data_len;
        memcpy(s->bytes, rte_pktmbuf_mtod(mbuf, uint8_t *), mbuf->data_len);
    }
    sent_count++;
    rte_pktmbuf_free(mbuf);
}

struct released {
    uint32_t mark; /* as given to packet_to() */
    struct packet_meta meta;
};

static struct released released[SENT_MAX];
static unsigned released_count;

void control_route(struct rte_mbuf *mbuf) {
    if (released_count < SENT_MAX) {
        released[released_count].mark = (uint32_t)mbuf->hash.usr;
        released[released_count].meta = *packet_meta(mbuf);
    }
    released_count++;
    rte_pktmbuf_free(mbuf);
}

static punt_handler fake_handlers[PUNT_CLASSES];

void punt_set_handler(enum punt_class punt_class, punt_handler handler) {
    fake_handlers[punt_class] = handler;
}

static inline unsigned mbufs_out(void) {
    return rte_mempool_in_use_count(fake_pool);
}

/* ---- interfaces ---- */

enum { FAKE_INTERFACES = 3 };

static struct port fake_ports[FAKE_INTERFACES + 1];
static struct interface fake_interfaces[FAKE_INTERFACES + 1]; /* by id; id 0: does not exist */
static struct interface_listener *fake_listeners;

void interface_listen(struct interface_listener *listener) {
    struct interface_listener **last = &fake_listeners;

    while (*last)
        last = &(*last)->next;
    *last = listener;
}

#define FAKE_TELL(member, ...)                                            \
    for (struct interface_listener *l = fake_listeners; l; l = l->next) { \
        if (l->member)                                                    \
            l->member(__VA_ARGS__);                                       \
    }

struct interface *interface_by_id(uint16_t id) {
    return id <= FAKE_INTERFACES && fake_interfaces[id].id != 0 ? &fake_interfaces[id] : NULL;
}

struct interface *interface_next(const struct interface *previous) {
    for (uint16_t id = previous ? (uint16_t)(previous->id + 1) : 1; id <= FAKE_INTERFACES; id++) {
        if (fake_interfaces[id].id != 0)
            return &fake_interfaces[id];
    }
    return NULL;
}

const struct interface_address *interface_source(const struct interface *interface,
                                                 uint8_t family) {
    const struct interface_address *local = NULL;

    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *own = &interface->addresses[i];

        if (own->prefix.address.family != family || own->state != ADDRESS_VALID)
            continue;
        if (family == AF_INET || !ip_address_is_link_local(&own->prefix.address))
            return own;
        local = local ? local : own;
    }
    return local;
}

const struct interface_address *interface_link_local(const struct interface *interface) {
    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *own = &interface->addresses[i];

        if (own->prefix.address.family == AF_INET6 && own->state == ADDRESS_VALID &&
            ip_address_is_link_local(&own->prefix.address))
            return own;
    }
    return NULL;
}

void interface_set_address_state(struct interface *interface, const struct ip_address *address,
                                 enum address_state state) {
    for (unsigned i = 0; i < interface->address_count; i++) {
        struct interface_address *own = &interface->addresses[i];

        if (ip_address_compare(&own->prefix.address, address) == 0 && own->state != state) {
            own->state = state;
            FAKE_TELL(address_changed, interface, own)
            return;
        }
    }
}

static inline struct interface *make_interface(uint16_t id, uint16_t vlan) {
    struct interface *interface = &fake_interfaces[id];

    memset(interface, 0, sizeof(*interface));
    fake_ports[id] = (struct port){.id = (uint16_t)(10 + id), .link_up = true};
    interface->id = id;
    snprintf(interface->name, sizeof(interface->name), "if%u", id);
    interface->port = &fake_ports[id];
    interface->vlan = vlan;
    interface->mtu = 1500;
    memcpy(interface->mac, (const uint8_t[]){2, 0, 0, 0, 0, (uint8_t)id}, 6);
    interface->enabled = true;
    FAKE_TELL(added, interface)
    return interface;
}

static inline struct interface_address *add_address(struct interface *interface, const char *text,
                                                    enum address_state state) {
    struct interface_address *own = &interface->addresses[interface->address_count++];

    *own = (struct interface_address){.state = state};
    CHECK(ip_interface_parse(text, &own->prefix) == 0);
    FAKE_TELL(address_added, interface, own)
    return own;
}

static inline void remove_address(struct interface *interface, unsigned index) {
    struct interface_address gone = interface->addresses[index];

    interface->address_count--;
    memmove(&interface->addresses[index], &interface->addresses[index + 1],
            (interface->address_count - index) * sizeof(gone));
    FAKE_TELL(address_removed, interface, &gone)
}

static inline void set_up(struct interface *interface, bool up) {
    interface->up = up;
    if (up) {
        FAKE_TELL(up, interface)
    } else {
        FAKE_TELL(down, interface)
    }
}

static inline void remove_interface(struct interface *interface) {
    if (interface->up)
        set_up(interface, false);
    while (interface->address_count > 0)
        remove_address(interface, interface->address_count - 1);
    FAKE_TELL(removed, interface)
    interface->id = 0;
}

static inline struct ip_address address(const char *text) {
    struct ip_address out;

    CHECK(ip_address_parse(text, &out) == 0);
    return out;
}

/* ---- next hops and routes ---- */

#ifdef FAKE_ROUTES

static struct next_hop fake_next_hops[NEXT_HOPS_MAX];
struct next_hop *next_hops = fake_next_hops;
static bool next_hop_taken[NEXT_HOPS_MAX];
static uint32_t next_hop_last = NEXT_HOP_ID_FIRST_FREE;
static unsigned next_hops_out;

/* Host routes by the last 20 bits of the address. */
enum { ROUTE_PLACES = 1 << 20 };

static struct {
    struct ip_address address;
    uint32_t next_hop; /* 0 = no route */
} fake_routes[ROUTE_PLACES];
static unsigned route_count, route_changes;
static uint32_t routes_to[NEXT_HOPS_MAX];
static int rib_answer;

static inline unsigned route_place(const struct ip_address *of) {
    const uint8_t *last = of->bytes + (of->family == AF_INET ? 1 : 13);

    return (((unsigned)last[0] << 16 | (unsigned)last[1] << 8 | last[2]) +
            (of->family == AF_INET6 ? ROUTE_PLACES / 2 : 0)) %
           ROUTE_PLACES;
}

uint32_t next_hop_alloc(void) {
    for (uint32_t tried = 0; tried < NEXT_HOPS_MAX; tried++) {
        if (++next_hop_last == NEXT_HOPS_MAX)
            next_hop_last = NEXT_HOP_ID_FIRST_FREE;
        if (!next_hop_taken[next_hop_last]) {
            next_hop_taken[next_hop_last] = true;
            next_hops_out++;
            memset(&next_hops[next_hop_last], 0, sizeof(next_hops[0]));
            return next_hop_last;
        }
    }
    return 0;
}

void next_hop_release(uint32_t id) {
    CHECK(next_hop_taken[id]);
    CHECK(routes_to[id] == 0); /* the route goes first */
    next_hop_taken[id] = false;
    next_hops_out--;
}

void next_hop_set_forward(uint32_t id, enum next_hop_type type, const uint8_t destination[6],
                          const uint8_t source[6], uint16_t vlan) {
    uint8_t *l2 = (uint8_t *)&next_hops[id].l2;

    CHECK(next_hop_taken[id]);
    memcpy(l2, destination, 6);
    memcpy(l2 + 6, source, 6);
    l2[14] = (uint8_t)(vlan >> 8);
    l2[15] = (uint8_t)vlan;
    next_hops[id].tagged = vlan != 0;
    next_hops[id].type = (uint8_t)type;
}

void next_hop_set_type(uint32_t id, enum next_hop_type type) {
    CHECK(next_hop_taken[id]);
    next_hops[id].type = (uint8_t)type;
}

void next_hop_set_interface(uint32_t id, uint16_t out_interface, uint16_t port, uint16_t mtu) {
    CHECK(next_hop_taken[id]);
    next_hops[id].out_interface = out_interface;
    next_hops[id].port = port;
    next_hops[id].mtu = mtu;
}

static inline uint32_t route_to(const struct ip_address *of) {
    unsigned place = route_place(of);

    return fake_routes[place].next_hop != 0 &&
                   ip_address_compare(&fake_routes[place].address, of) == 0
               ? fake_routes[place].next_hop
               : 0;
}

int rib_add_direct(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin,
                   uint32_t next_hop) {
    unsigned place = route_place(&prefix->address);

    CHECK(vrf == VRF_DEFAULT && origin == ROUTE_NEIGHBOUR && next_hop_taken[next_hop]);
    CHECK(prefix->length == ip_family_bits(prefix->address.family));
    CHECK(route_to(&prefix->address) == 0); /* nothing is added twice */
    if (rib_answer != 0)
        return rib_answer;
    if (fake_routes[place].next_hop != 0)
        return -ENOSPC; /* two addresses of one place: only fuzzing meets them */
    fake_routes[place].address = prefix->address;
    fake_routes[place].next_hop = next_hop;
    routes_to[next_hop]++;
    route_count++;
    route_changes++;
    return 0;
}

int rib_delete(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin) {
    unsigned place = route_place(&prefix->address);

    CHECK(vrf == VRF_DEFAULT && origin == ROUTE_NEIGHBOUR);
    CHECK(route_to(&prefix->address) != 0);
    routes_to[fake_routes[place].next_hop]--;
    fake_routes[place].next_hop = 0;
    route_count--;
    route_changes++;
    return 0;
}

#endif
