/*
 * Between the files of this folder: what a twin is, its settings in Linux, and the frames' drop
 * reasons. Control thread only.
 */
#pragma once

#include <net/if.h>
#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/event.h"
#include "core/ip.h"
#include "interface/interface.h"

/* One TAP device. */
struct twin {
    struct interface *interface; /* lives longer than the twin */
    char name[IFNAMSIZ];
    int index;           /* of the Linux device */
    uint16_t mtu;        /* as set in Linux */
    struct event_fd tap; /* context: the twin */
};

/* --- twin.c --- */

/* Starts to listen to interfaces. */
void twins_init(void);
/* Removes all twins. */
void twins_free(void);
/* The interface's twin; NULL if it has none, or none that works. */
struct twin *twin_of(uint16_t interface);
/* The Linux device is gone or cannot be read any more: gives the twin up, which frees it. */
void twin_lost(struct twin *twin, int error);
/* Tries again for interfaces that should have a twin and have none. */
void twins_create_missing(void);

/* --- twin_netlink.c: settings of a Linux device over rtnetlink. All return 0 or negative errno ---
 */

/* MAC address, MTU, IFF_NOARP and accept_local of a device that is still down. */
int twin_netlink_setup(int index, const uint8_t mac[6], uint16_t mtu);
/* Has the kernel make no IPv6 link-local address of its own. -EAFNOSUPPORT when the device has no
 * IPv6, because Linux has none or the MTU is too small for it. */
int twin_netlink_no_own_link_local(int index);
int twin_netlink_up(int index);
int twin_netlink_set_mtu(int index, uint16_t mtu);
/* Adding an address that is there, and removing one that is not, succeed. */
int twin_netlink_add_address(int index, const struct ip_prefix *address);
int twin_netlink_remove_address(int index, const struct ip_prefix *address);
void twin_netlink_close(void);

/* --- twin_io.c --- */

/* Takes over the punt classes ike, routing and other. */
void twin_io_init(void);
/* The twin's file descriptor is ready: reads a bounded number of frames. */
void twin_io_ready(struct event_fd *tap, uint32_t events);
