/*
 * Settings of Linux network devices over rtnetlink, one request and its answer at a time. The
 * kernel works on a request while it is being sent, so the answer is there at once and nothing
 * waits.
 *
 * What can go wrong: no permission (CAP_NET_ADMIN), or somebody else removed the device; the caller
 * gets the kernel's errno.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/time.h>

#include "host/host_internal.h"

enum {
    REQUEST_BYTES = 512, /* the longest request has a few attributes of 20 bytes */
    ANSWER_BYTES = 8192,
    BROADCAST_LENGTH_MAX = 30, /* a /31 (RFC 3021) and a /32 have no broadcast address */
    DEVCONF_ACCEPT_LOCAL = 23, /* <linux/ip.h> does not go with <netinet/ip.h> */
};

static struct mnl_socket *netlink;
static uint32_t sequence;

/* Opens the socket when it is first needed: without twins the router needs no rtnetlink. */
static int open_socket(void) {
    /* Only so that a kernel which does not answer cannot stop the router's control thread. */
    static const struct timeval patience = {.tv_sec = 2};

    if (netlink)
        return 0;
    netlink = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (!netlink)
        return -errno;
    if (mnl_socket_bind(netlink, 0, MNL_SOCKET_AUTOPID) < 0 ||
        setsockopt(mnl_socket_get_fd(netlink), SOL_SOCKET, SO_RCVTIMEO, &patience,
                   sizeof(patience)) < 0) {
        int error = -errno;

        twin_netlink_close();
        return error;
    }
    return 0;
}

void twin_netlink_close(void) {
    if (netlink)
        mnl_socket_close(netlink);
    netlink = NULL;
}

static struct nlmsghdr *begin(char buffer[REQUEST_BYTES], uint16_t type, uint16_t flags) {
    struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);

    header->nlmsg_type = type;
    header->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
    header->nlmsg_seq = ++sequence;
    return header;
}

/* What the kernel says about request `number`: true with its errno (0 = done) when it is in there.
 */
static bool find_answer(const char *answer, size_t bytes, uint32_t number, int *error) {
    int left = (int)bytes;

    for (const struct nlmsghdr *header = (const struct nlmsghdr *)answer;
         mnl_nlmsg_ok(header, left); header = mnl_nlmsg_next(header, &left)) {
        if (header->nlmsg_seq != number || header->nlmsg_type != NLMSG_ERROR ||
            mnl_nlmsg_get_payload_len(header) < sizeof(struct nlmsgerr))
            continue; /* the answer to a request that was given up waiting for */
        *error = ((const struct nlmsgerr *)mnl_nlmsg_get_payload(header))->error;
        return true;
    }
    return false;
}

/* Sends the request and reads up to its acknowledgement. */
static int finish(const struct nlmsghdr *request) {
    char answer[ANSWER_BYTES] __attribute__((aligned(8)));
    int error = open_socket();

    if (error)
        return error;
    if (mnl_socket_sendto(netlink, request, request->nlmsg_len) < 0)
        return -errno;
    for (;;) {
        ssize_t bytes = mnl_socket_recvfrom(netlink, answer, sizeof(answer));

        if (bytes < 0 && errno != EINTR)
            return -errno;
        if (bytes >= 0 && find_answer(answer, (size_t)bytes, request->nlmsg_seq, &error))
            return error;
    }
}

/* --- the device --- */

static struct nlmsghdr *begin_link(char buffer[REQUEST_BYTES], int index, unsigned flags) {
    struct nlmsghdr *header = begin(buffer, RTM_NEWLINK, 0);
    struct ifinfomsg *link = mnl_nlmsg_put_extra_header(header, sizeof(*link));

    link->ifi_family = AF_UNSPEC;
    link->ifi_index = index;
    link->ifi_flags = flags;
    link->ifi_change = flags;
    return header;
}

int twin_netlink_setup(int index, const uint8_t mac[6], uint16_t mtu) {
    char buffer[REQUEST_BYTES];
    struct nlmsghdr *header = begin_link(buffer, index, IFF_NOARP);

    mnl_attr_put(header, IFLA_ADDRESS, 6, mac);
    mnl_attr_put_u32(header, IFLA_MTU, mtu);

    /* accept_local: the router's ICMP errors to Linux come from an address that Linux has too. */
    struct nlattr *families = mnl_attr_nest_start(header, IFLA_AF_SPEC);
    struct nlattr *ipv4 = mnl_attr_nest_start(header, AF_INET);
    struct nlattr *settings = mnl_attr_nest_start(header, IFLA_INET_CONF);
    mnl_attr_put_u32(header, DEVCONF_ACCEPT_LOCAL, 1);
    mnl_attr_nest_end(header, settings);
    mnl_attr_nest_end(header, ipv4);
    mnl_attr_nest_end(header, families);
    return finish(header);
}

int twin_netlink_no_own_link_local(int index) {
    char buffer[REQUEST_BYTES];
    struct nlmsghdr *header = begin_link(buffer, index, 0);
    struct nlattr *families = mnl_attr_nest_start(header, IFLA_AF_SPEC);
    struct nlattr *ipv6 = mnl_attr_nest_start(header, AF_INET6);

    mnl_attr_put_u8(header, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(header, ipv6);
    mnl_attr_nest_end(header, families);
    return finish(header);
}

int twin_netlink_up(int index) {
    char buffer[REQUEST_BYTES];

    return finish(begin_link(buffer, index, IFF_UP));
}

int twin_netlink_set_mtu(int index, uint16_t mtu) {
    char buffer[REQUEST_BYTES];
    struct nlmsghdr *header = begin_link(buffer, index, 0);

    mnl_attr_put_u32(header, IFLA_MTU, mtu);
    return finish(header);
}

/* --- addresses --- */

static struct nlmsghdr *begin_address(char buffer[REQUEST_BYTES], uint16_t type, uint16_t flags,
                                      int index, const struct ip_prefix *address) {
    struct nlmsghdr *header = begin(buffer, type, flags);
    struct ifaddrmsg *message = mnl_nlmsg_put_extra_header(header, sizeof(*message));
    uint8_t family = address->address.family;
    size_t bytes = ip_family_bits(family) / 8u;

    message->ifa_family = family;
    message->ifa_prefixlen = address->length;
    message->ifa_scope = RT_SCOPE_UNIVERSE; /* of IPv6 the kernel knows better than we */
    message->ifa_index = (unsigned)index;
    /* The router's duplicate address detection has found it unique; Linux would ask the same link
     * with the same MAC address. */
    if (family == AF_INET6)
        message->ifa_flags = IFA_F_NODAD;
    mnl_attr_put(header, IFA_LOCAL, bytes, address->address.bytes);
    mnl_attr_put(header, IFA_ADDRESS, bytes, address->address.bytes);
    return header;
}

int twin_netlink_add_address(int index, const struct ip_prefix *address) {
    char buffer[REQUEST_BYTES];
    struct nlmsghdr *header =
        begin_address(buffer, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, address);

    if (address->address.family == AF_INET && address->length <= BROADCAST_LENGTH_MAX) {
        uint8_t broadcast[4];

        memcpy(broadcast, address->address.bytes, sizeof(broadcast));
        for (unsigned bit = address->length; bit < IP4_MAX_LENGTH; bit++)
            broadcast[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
        mnl_attr_put(header, IFA_BROADCAST, sizeof(broadcast), broadcast);
    }
    return finish(header);
}

int twin_netlink_remove_address(int index, const struct ip_prefix *address) {
    char buffer[REQUEST_BYTES];
    int error = finish(begin_address(buffer, RTM_DELADDR, 0, index, address));

    return error == -EADDRNOTAVAIL ? 0 : error;
}
