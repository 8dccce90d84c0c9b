/*
 * What the router's socket for an IKE daemon carries besides the messages of <linux/xfrm.h>, for
 * the router and for the library that an IKE daemon preloads. A UNIX socket of type SOCK_SEQPACKET:
 * a packet is what a datagram is to a netlink socket, one or more messages.
 */
#pragma once

#include <linux/netlink.h>
#include <stdint.h>

/* The environment variable with the socket's path. */
#define XFRM_SOCKET_VARIABLE "DPDK_ROUTER_XFRM_SOCKET"

/* Instead of bind() and NETLINK_ADD_MEMBERSHIP: who is it, and what events does it want? The type
 * is one of those that netlink reserves for itself and does not use. It is not answered. */
enum { XFRM_SOCKET_BIND = NLMSG_MIN_TYPE - 1 };

struct xfrm_socket_bind {
    uint32_t port;   /* nlmsg_pid of what is sent to this socket */
    uint32_t groups; /* bit n - 1 for group n of enum xfrm_nlgroups, as in struct sockaddr_nl */
};
