/*
 * What several kinds of port need to know of Linux: its network interfaces, and UNIX sockets that
 * others may have left behind.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/port.h"
#include "core/problem.h"

/* Adds a problem when Linux has no such interface in this network namespace. */
bool linux_interface_check(const char *name, const char *path, struct problems *problems);

/* Borrows the interface that the device's "iface" argument names: remembers its flags, MTU, MAC
 * address, offloads and forwarding; sets it up and all-multicast, switches off receive offloads
 * that merge frames (GRO, LRO) or hide VLAN tags (`vlan_tags`), and keeps Linux from answering ARP
 * and from forwarding there. linux_interface_return() puts all of it back. 0 or negative errno with
 * a problem. */
int linux_interface_borrow(const char *device, bool vlan_tags, const char *path,
                           struct problems *problems);
void linux_interface_return(const char *device);

/* The port_driver hooks for ports that sit on a borrowed interface. */
int linux_interface_set_mtu(struct port *port, uint16_t mtu);
int linux_interface_set_mac(struct port *port, const uint8_t mac[6]);
int linux_interface_set_promiscuous(struct port *port, bool on);
void linux_interface_link(const struct port *port, bool *up, uint32_t *speed_mbps);

/* Queues ("combined channels") of the interface, at least 1. */
unsigned linux_interface_channels(const char *name);

/* A server's socket must not exist yet. Removes one that nobody listens on; anything else at that
 * place, and a missing directory, is a problem. `what` names the protocol. 0 or negative errno. */
int socket_path_prepare(const char *socket_path, const char *what, const char *path,
                        struct problems *problems);
