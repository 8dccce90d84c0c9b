/*
 * The host side: TAP twins, through which Linux on the same machine uses the router's addresses.
 *
 * An interface with "host_twin": "lan0" in router.json has a TAP device lan0 in the network
 * namespace of the router's process. It carries the interface's MAC address, MTU and addresses, and
 * its carrier is the interface's state. What is for the router itself and is not answered by the
 * router (ARP, neighbour discovery and echo are) appears there, through the policers of
 * core/punt.h; so sshd, dhclient, bgpd and an IKE daemon run unchanged. A twin lives as long as the
 * router holds its file descriptor: a router that ends, however it ends, leaves no device behind.
 *
 * What Linux sends leaves like this:
 *
 *   to a broadcast or multicast MAC   as it is, by the twin's interface
 *   to a foreign unicast MAC          the same (a DHCP server answers clients without an address so)
 *   to the twin's own MAC             is routed by the router. The device has IFF_NOARP, so Linux
 *                                     looks up no neighbours and sends all unicast so, and IPv4
 *                                     broadcasts of ordinary sockets, which get their MAC back here
 *
 * A route in Linux therefore needs no gateway: "ip route add default dev lan0" lends Linux the
 * router's table. ICMP errors about such packets (unreachable, too big) come back to Linux.
 *
 * No loops: what Linux sends to another address of the router comes back from the workers as a
 * packet of the router's own. Echo requests were answered there; other than ICMP it is dropped here
 * as "host.came_back" and never written to a twin, so Linux cannot be made to pass it round again.
 *
 * What can go wrong: /dev/net/tun is missing or not allowed, or the name is that of another Linux
 * device. Then an error is logged, and the interface works as one without a twin; each
 * configuration that is applied tries again.
 */
#pragma once

/* Registers with interfaces and the punt classes ike, routing, other. Run by the section "punt", so
 * by config_init(); needs event_init() and interface_init() before it, and packets need
 * punt_init(), workers_create() and packet_meta_init(). 0 or negative errno. */
int host_init(void);

/* Removes all twins. At the end of the program, before event_free(); usually the interfaces went
 * before and took their twins along. */
void host_free(void);
