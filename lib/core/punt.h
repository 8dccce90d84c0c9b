/*
 * Punting: handing packets from workers to the control thread, each class through a policer, so that
 * no traffic can take the control thread's time or another class's share.
 *
 * One ring carries all classes. A worker that finds the control thread asleep wakes it through an
 * eventfd; otherwise a punt costs one enqueue.
 */
#pragma once

#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

struct worker;

/* Who takes care of it on the control side. */
enum punt_class {
    PUNT_ARP,     /* ARP and neighbour discovery */
    PUNT_RESOLVE, /* packets whose next hop's link-layer address is wanted */
    PUNT_IKE,     /* UDP 500 and 4500 to the host twin */
    PUNT_ROUTING, /* BGP, OSPF, RIP, BFD, VRRP, IGMP/MLD, ... to the host twin */
    PUNT_OTHER,   /* anything else for the host twin */
    PUNT_CLASSES
};

/* The class's name as in router.json's "punt" section and in drop counters. */
extern const char *const punt_class_names[PUNT_CLASSES];

/* Called on the control thread for each packet of the class; takes ownership. */
typedef void (*punt_handler)(struct rte_mbuf *mbuf);
void punt_set_handler(enum punt_class punt_class, punt_handler handler);

/* Packets per second that a class may pass, over all workers together. */
void punt_set_rate(enum punt_class punt_class, uint32_t packets_per_second);
uint32_t punt_get_rate(enum punt_class punt_class);

/* Once, after workers_create() and event_init(). 0 or negative errno. */
int punt_init(void);
void punt_free(void);

/* Worker side: passes the packet on if the policer and the ring allow, else counts and frees it. */
void punt(struct worker *worker, struct rte_mbuf *mbuf, enum punt_class punt_class);

/* Control side: handles what has arrived (at most a bounded number); true if more is waiting. The
 * event loop calls it through the eventfd; tests and shared-lcore loops call it directly. */
bool punt_drain(void);
