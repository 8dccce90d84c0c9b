/*
 * Host twins with a real Linux: TAP devices in a network namespace of the test's own, sockets on
 * the Linux side, and in place of the workers, the neighbour table and the interfaces fakes that
 * record.
 *
 * Needs root and /dev/net/tun; without them the test is skipped, with the reason.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <libmnl/libmnl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <rte_eal.h>
#include <rte_mbuf.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/event.h"
#include "core/log.h"
#include "core/packet.h"
#include "core/punt.h"
#include "core/section.h"
#include "core/worker.h"
#include "host/host.h"
#include "interface/interface.h"
#include "l3/header.h"
#include "l3/neighbour.h"
#include "json/decode.h"
#include "skip.h"

enum { SKIPPED = 77, RECORDS = 64, PORT = 3, FRAME_MAX = 9400 };

/* --- fakes --- */

static struct rte_mempool *pool;
static struct counters counters;
static struct interface_listener *listener;
static punt_handler handlers[PUNT_CLASSES];
static uint32_t rates[PUNT_CLASSES];
static struct interface lan, wan;
static struct interface *interfaces[] = {&lan, &wan};
static bool working[INTERFACES_MAX];
static bool no_buffers;

const char *const punt_class_names[PUNT_CLASSES] = {"arp", "resolve", "ike", "routing", "other"};

enum way { ROUTED, TRANSMITTED, RESOLVED };

/* What left towards the workers. */
static struct record {
    enum way way;
    struct packet_meta meta;
    uint16_t out_interface, port, segments;
    unsigned length;
    uint8_t frame[FRAME_MAX];
} records[RECORDS];
static unsigned record_count;

static void record(struct rte_mbuf *mbuf, enum way way, uint16_t out_interface, uint16_t port) {
    struct record *to = &records[record_count % RECORDS];
    const uint8_t *bytes;

    record_count++;
    *to = (struct record){.way = way,
                          .meta = *packet_meta(mbuf),
                          .out_interface = out_interface,
                          .port = port,
                          .segments = mbuf->nb_segs,
                          .length = mbuf->pkt_len};
    assert_true(mbuf->pkt_len <= sizeof(to->frame));
    rte_mbuf_sanity_check(mbuf, 1);
    assert_true(rte_pktmbuf_headroom(mbuf) >= 4);
    bytes = rte_pktmbuf_read(mbuf, 0, mbuf->pkt_len, to->frame);
    if (bytes != to->frame)
        memcpy(to->frame, bytes, mbuf->pkt_len);
    rte_pktmbuf_free(mbuf);
}

void control_route(struct rte_mbuf *mbuf) {
    record(mbuf, ROUTED, 0, 0);
}

void control_transmit(struct rte_mbuf *mbuf, uint16_t out_interface, uint16_t port) {
    record(mbuf, TRANSMITTED, out_interface, port);
}

void neighbour_resolve(struct rte_mbuf *mbuf) {
    record(mbuf, RESOLVED, 0, 0);
}

struct rte_mbuf *control_mbuf(void) {
    struct rte_mbuf *mbuf = no_buffers ? NULL : rte_pktmbuf_alloc(pool);

    if (mbuf)
        memset(packet_meta(mbuf), 0, sizeof(struct packet_meta));
    return mbuf;
}

struct counters *control_counters(void) {
    return &counters;
}

void punt_set_handler(enum punt_class punt_class, punt_handler handler) {
    handlers[punt_class] = handler;
}

void punt_set_rate(enum punt_class punt_class, uint32_t rate) {
    rates[punt_class] = rate;
}
uint32_t punt_get_rate(enum punt_class punt_class) {
    return rates[punt_class];
}

void interface_listen(struct interface_listener *it) {
    listener = it;
}

struct interface *interface_next(const struct interface *previous) {
    for (size_t i = 0; i < RTE_DIM(interfaces); i++) {
        if (interfaces[i]->id > (previous ? previous->id : 0))
            return interfaces[i];
    }
    return NULL;
}

void interface_set_twin_working(struct interface *interface, bool is_working) {
    working[interface->id] = is_working;
}

static struct config_section fake_interfaces = {.name = "interfaces"};
CONFIG_SECTION(fake_interfaces)

/* --- helpers --- */

static const uint8_t lan_mac[6] = {2, 0, 0, 0, 0, 0x11}, wan_mac[6] = {2, 0, 0, 0, 0, 0x22},
                     host_mac[6] = {2, 0, 0, 0, 0, 0x99};
static struct port port = {.id = PORT};

static uint64_t drops(const char *reason) {
    for (const struct drop_group *group = drop_group_first(); group; group = group->next) {
        for (unsigned i = 0; strcmp(group->name, "host") == 0 && i < group->count; i++) {
            if (strcmp(group->reasons[i], reason) == 0)
                return counters.drops[group->base + i];
        }
    }
    fail_msg("there is no drop reason host.%s", reason);
    return 0;
}

static uint64_t all_drops(void) {
    uint64_t sum = 0;

    for (unsigned i = 0; i < DROPS_MAX; i++)
        sum += counters.drops[i];
    return sum;
}

static void make_interface(struct interface *interface, uint16_t id, const char *name,
                           const uint8_t mac[6], const char *twin) {
    memset(interface, 0, sizeof(*interface));
    interface->id = id;
    snprintf(interface->name, sizeof(interface->name), "%s", name);
    snprintf(interface->host_twin, sizeof(interface->host_twin), "%s", twin);
    memcpy(interface->mac, mac, 6);
    interface->mtu = 1500;
    interface->port = &port;
    interface->enabled = true;
}

static struct interface_address *add(struct interface *interface, const char *text) {
    struct interface_address *address = &interface->addresses[interface->address_count++];

    *address = (struct interface_address){.state = ADDRESS_VALID};
    assert_int_equal(ip_interface_parse(text, &address->prefix), 0);
    listener->address_added(interface, address);
    return address;
}

static void take(struct interface *interface, unsigned index) {
    struct interface_address gone = interface->addresses[index];

    interface->address_count--;
    memmove(&interface->addresses[index], &interface->addresses[index + 1],
            (interface->address_count - index) * sizeof(gone));
    listener->address_removed(interface, &gone);
}

static void bring_up(struct interface *interface) {
    interface->up = true;
    listener->up(interface);
}

static struct ifreq query(const char *device, unsigned long request) {
    struct ifreq out = {0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    snprintf(out.ifr_name, sizeof(out.ifr_name), "%s", device);
    if (ioctl(fd, request, &out) < 0)
        fail_msg("%s: ioctl %#lx: %s", device, request, strerror(errno));
    close(fd);
    return out;
}

static bool has_carrier(const char *device) {
    /* linux/ethtool.h has a PORT_NONE of its own, which is not the workers'. */
    enum { GET_LINK = 0x0a };
    struct {
        uint32_t command, data;
    } value = {.command = GET_LINK};
    struct ifreq request = {.ifr_data = (void *)&value};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
    assert_int_equal(ioctl(fd, SIOCETHTOOL, &request), 0);
    close(fd);
    return value.data;
}

/* "192.0.2.1/24 2001:db8::1/64": the device's addresses as Linux sees them, sorted. */
static const char *linux_addresses(const char *device) {
    static char text[1024];
    char words[16][IP_PREFIX_TEXT];
    struct ifaddrs *list;
    size_t count = 0;

    assert_int_equal(getifaddrs(&list), 0);
    for (const struct ifaddrs *it = list; it; it = it->ifa_next) {
        struct ip_prefix prefix = {0};
        const uint8_t *mask;

        if (strcmp(it->ifa_name, device) != 0 || !it->ifa_addr || count == RTE_DIM(words))
            continue;
        if (it->ifa_addr->sa_family == AF_INET) {
            prefix.address = ip4_address(&((struct sockaddr_in *)it->ifa_addr)->sin_addr);
            mask = (const uint8_t *)&((struct sockaddr_in *)it->ifa_netmask)->sin_addr;
        } else if (it->ifa_addr->sa_family == AF_INET6) {
            prefix.address = ip6_address(&((struct sockaddr_in6 *)it->ifa_addr)->sin6_addr);
            mask = (const uint8_t *)&((struct sockaddr_in6 *)it->ifa_netmask)->sin6_addr;
        } else {
            continue;
        }
        for (unsigned i = 0; i < ip_family_bits(prefix.address.family) / 8u; i++)
            prefix.length = (uint8_t)(prefix.length + __builtin_popcount(mask[i]));
        ip_prefix_text(&prefix, words[count++]);
    }
    freeifaddrs(list);
    qsort(words, count, sizeof(words[0]), (int (*)(const void *, const void *))strcmp);
    text[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(text);

        snprintf(text + used, sizeof(text) - used, "%s%s", i ? " " : "", words[i]);
    }
    return text;
}

static void read_file(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "r");

    text[0] = '\0';
    if (!file)
        return;
    text[fread(text, 1, size - 1, file)] = '\0';
    text[strcspn(text, "\n")] = '\0';
    fclose(file);
}

/* What an administrator can do to a device behind the router's back. */
static void set_down(const char *device) {
    struct ifreq request = query(device, SIOCGIFFLAGS);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    request.ifr_flags &= (short)~IFF_UP;
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
}

static void delete_device(const char *device) {
    char buffer[256];
    struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
    struct ifinfomsg *link = mnl_nlmsg_put_extra_header(header, sizeof(*link));
    struct mnl_socket *netlink = mnl_socket_open(NETLINK_ROUTE);

    header->nlmsg_type = RTM_DELLINK;
    header->nlmsg_flags = NLM_F_REQUEST;
    link->ifi_index = (int)if_nametoindex(device);
    assert_true(mnl_socket_sendto(netlink, header, header->nlmsg_len) > 0);
    mnl_socket_close(netlink);
    assert_int_equal(if_nametoindex(device), 0);
}

/* A frame socket on the Linux side of the device: sees all, and sends anything. */
static int open_frames(const char *device) {
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(ETH_P_ALL),
                                  .sll_ifindex = (int)if_nametoindex(device)};

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* The next frame that came in to Linux (not one that Linux sent); 0 if there is none. */
static size_t next_frame(int fd, uint8_t *frame) {
    struct sockaddr_ll from;
    ssize_t length;

    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        socklen_t size = sizeof(from);

        if (poll(&wait, 1, 200) <= 0)
            return 0;
        length = recvfrom(fd, frame, FRAME_MAX, 0, (struct sockaddr *)&from, &size);
        if (length > 0 && from.sll_pkttype != PACKET_OUTGOING)
            return (size_t)length;
    }
}

/* Runs the event loop until nothing more comes. */
static void settle(void) {
    while (event_turn(20) > 0)
        ;
}

/* Forgets what Linux sent by itself (MLD reports, for example). */
static void forget(void) {
    settle();
    record_count = 0;
}

/* The only packet from Linux whose transport protocol is this. */
static const struct record *the_only(uint8_t protocol) {
    const struct record *found = NULL;

    settle();
    assert_true(record_count <= RECORDS);
    for (unsigned i = 0; i < record_count; i++) {
        if (records[i].meta.l4_protocol != protocol)
            continue;
        assert_null(found);
        found = &records[i];
    }
    if (!found)
        fail_msg("no packet of protocol %u came from Linux", protocol);
    return found;
}

static struct sockaddr_in6 socket_address6(const char *text, uint16_t udp_port, unsigned scope) {
    struct sockaddr_in6 address = {
        .sin6_family = AF_INET6, .sin6_port = htons(udp_port), .sin6_scope_id = scope};

    assert_int_equal(inet_pton(AF_INET6, text, &address.sin6_addr), 1);
    return address;
}

static struct sockaddr_in socket_address4(const char *text, uint16_t udp_port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(udp_port)};

    assert_int_equal(inet_pton(AF_INET, text, &address.sin_addr), 1);
    return address;
}

static int open_udp(int family) {
    int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0), on = 1;

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
    return fd;
}

static void send_udp(int fd, const void *to, socklen_t size, const void *data, size_t length) {
    ssize_t sent = sendto(fd, data, length, 0, to, size);

    if (sent != (ssize_t)length)
        fail_msg("sendto: %s", strerror(errno));
}

/* Sends an IPv4 UDP datagram from Linux to the address, by lan0. */
static void send4(const char *to, const void *data, size_t length) {
    struct sockaddr_in address = socket_address4(to, 7);
    int fd = open_udp(AF_INET);

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lan0", 5), 0);
    send_udp(fd, &address, sizeof(address), data, length);
    close(fd);
}

static void send6(const char *to, const void *data, size_t length) {
    struct sockaddr_in6 address = socket_address6(to, 7, if_nametoindex("lan0"));
    int fd = open_udp(AF_INET6);

    send_udp(fd, &address, sizeof(address), data, length);
    close(fd);
}

/* A UDP datagram as an Ethernet frame; returns its length. */
static size_t make_udp4(uint8_t *frame, const uint8_t to_mac[6], const uint8_t from_mac[6],
                        const char *from, const char *to, uint16_t udp_port, const char *data) {
    size_t length = strlen(data);
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(frame + 14);
    uint8_t *udp = frame + 34;
    uint16_t words[3] = {htons(9999), htons(udp_port), htons((uint16_t)(8 + length))}, sum;

    memset(frame, 0, 42);
    memcpy(frame, to_mac, 6);
    memcpy(frame + 6, from_mac, 6);
    frame[12] = 8;
    ip->version_ihl = 0x45;
    ip->total_length = htons((uint16_t)(28 + length));
    ip->time_to_live = 64;
    ip->next_proto_id = IPPROTO_UDP;
    inet_pton(AF_INET, from, &ip->src_addr);
    inet_pton(AF_INET, to, &ip->dst_addr);
    ip->hdr_checksum = rte_ipv4_cksum(ip);
    memcpy(udp, words, sizeof(words));
    memcpy(udp + 8, data, length);
    sum = rte_ipv4_udptcp_cksum(ip, udp);
    memcpy(udp + 6, &sum, sizeof(sum));
    return 42 + length;
}

static void fix_ipv4_checksum(uint8_t *frame) {
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(frame + 14);

    ip->hdr_checksum = 0;
    ip->hdr_checksum = rte_ipv4_cksum(ip);
}

static struct rte_mbuf *mbuf_of(const uint8_t *frame, size_t length, struct packet_meta meta) {
    struct rte_mbuf *mbuf = control_mbuf();

    memcpy(rte_pktmbuf_append(mbuf, (uint16_t)length), frame, length);
    *packet_meta(mbuf) = meta;
    return mbuf;
}

/* Both interfaces exist; lan has the twin lan0 and is up. */
static int set_up(void **state) {
    (void)state;
    memset(&counters, 0, sizeof(counters));
    make_interface(&lan, 1, "lan", lan_mac, "lan0");
    make_interface(&wan, 2, "wan", wan_mac, "");
    listener->added(&lan);
    listener->added(&wan);
    add(&lan, "192.0.2.1/24");
    add(&lan, "2001:db8::1/64");
    add(&lan, "fe80::1/64");
    add(&wan, "198.51.100.1/24");
    bring_up(&lan);
    bring_up(&wan);
    forget();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (size_t i = 0; i < RTE_DIM(interfaces); i++) {
        interfaces[i]->up = false;
        listener->down(interfaces[i]);
        while (interfaces[i]->address_count > 0)
            take(interfaces[i], interfaces[i]->address_count - 1);
        listener->removed(interfaces[i]);
    }
    assert_int_equal(if_nametoindex("lan0"), 0);
    assert_int_equal(rte_mempool_in_use_count(pool), 0);
    return 0;
}

/* --- the device --- */

static void the_twin_is_what_the_interface_is(void **state) {
    struct ifreq request;
    char text[32];

    (void)state;
    assert_true(working[lan.id]);
    assert_false(working[wan.id]);
    request = query("lan0", SIOCGIFHWADDR);
    assert_memory_equal(request.ifr_hwaddr.sa_data, lan_mac, 6);
    assert_int_equal(query("lan0", SIOCGIFMTU).ifr_mtu, 1500);
    request = query("lan0", SIOCGIFFLAGS);
    assert_true(request.ifr_flags & IFF_UP);
    assert_true(request.ifr_flags & IFF_NOARP);
    assert_true(request.ifr_flags & IFF_BROADCAST);
    assert_true(request.ifr_flags & IFF_MULTICAST);
    /* The link-local address is the router's; Linux has made none. */
    assert_string_equal(linux_addresses("lan0"), "192.0.2.1/24 2001:db8::1/64 fe80::1/64");
    request = query("lan0", SIOCGIFBRDADDR);
    assert_int_equal(((struct sockaddr_in *)&request.ifr_broadaddr)->sin_addr.s_addr,
                     inet_addr("192.0.2.255"));
    read_file("/proc/sys/net/ipv6/conf/lan0/accept_ra", text, sizeof(text));
    assert_string_equal(text, "0");
    read_file("/proc/sys/net/ipv4/conf/lan0/rp_filter", text, sizeof(text));
    assert_string_equal(text, "2");
    read_file("/proc/sys/net/ipv4/conf/lan0/forwarding", text, sizeof(text));
    assert_string_equal(text, "0");
}

static void ipv6_addresses_can_be_used_at_once(void **state) {
    FILE *file = fopen("/proc/net/if_inet6", "r");
    char address[33], device[16];
    unsigned index, length, scope, flags, seen = 0;

    (void)state;
    assert_non_null(file);
    while (fscanf(file, "%32s %x %x %x %x %15s", address, &index, &length, &scope, &flags,
                  device) == 6) {
        if (strcmp(device, "lan0") != 0)
            continue;
        seen++;
        assert_false(flags & 0x40); /* tentative */
        assert_int_equal(length, 64);
    }
    fclose(file);
    assert_int_equal(seen, 2);
}

static void carrier_follows_the_interface(void **state) {
    (void)state;
    assert_true(has_carrier("lan0"));
    lan.up = false;
    listener->down(&lan);
    assert_false(has_carrier("lan0"));
    assert_string_equal(linux_addresses("lan0"), "192.0.2.1/24 2001:db8::1/64 fe80::1/64");
    bring_up(&lan);
    assert_true(has_carrier("lan0"));
    forget();
    assert_string_equal(linux_addresses("lan0"), "192.0.2.1/24 2001:db8::1/64 fe80::1/64");
}

static void addresses_come_and_go(void **state) {
    struct interface_address *tentative;

    (void)state;
    add(&lan, "192.0.2.2/24");
    add(&lan, "203.0.113.9/32");
    assert_string_equal(linux_addresses("lan0"),
                        "192.0.2.1/24 192.0.2.2/24 2001:db8::1/64 203.0.113.9/32 fe80::1/64");
    /* The first address of a prefix goes, its successor stays. */
    take(&lan, 0);
    assert_string_equal(linux_addresses("lan0"),
                        "192.0.2.2/24 2001:db8::1/64 203.0.113.9/32 fe80::1/64");
    /* An address that may be a duplicate is not given to Linux. */
    tentative = &lan.addresses[lan.address_count++];
    *tentative = (struct interface_address){.state = ADDRESS_TENTATIVE};
    assert_int_equal(ip_interface_parse("2001:db8:1::1/56", &tentative->prefix), 0);
    listener->address_added(&lan, tentative);
    assert_null(strstr(linux_addresses("lan0"), "2001:db8:1::1"));
    tentative->state = ADDRESS_VALID;
    listener->address_changed(&lan, tentative);
    assert_non_null(strstr(linux_addresses("lan0"), "2001:db8:1::1/56"));
    listener->address_changed(&lan, tentative); /* harmless */
    tentative->state = ADDRESS_DUPLICATE;
    listener->address_changed(&lan, tentative);
    assert_string_equal(linux_addresses("lan0"),
                        "192.0.2.2/24 2001:db8::1/64 203.0.113.9/32 fe80::1/64");
}

/* Where /proc/sys cannot be written Linux takes the other addresses of a prefix along. */
static void successor_stays_without_promotion(void **state) {
    FILE *file = fopen("/proc/sys/net/ipv4/conf/lan0/promote_secondaries", "w");

    (void)state;
    if (!file)
        SKIP_CASE("/proc/sys cannot be written here");
    fputs("0", file);
    fclose(file);
    add(&lan, "192.0.2.2/24");
    take(&lan, 0);
    assert_non_null(strstr(linux_addresses("lan0"), "192.0.2.2/24"));
}

static void mtu_and_name_change(void **state) {
    (void)state;
    lan.mtu = 9000;
    listener->changed(&lan);
    assert_int_equal(query("lan0", SIOCGIFMTU).ifr_mtu, 9000);
    assert_string_equal(linux_addresses("lan0"), "192.0.2.1/24 2001:db8::1/64 fe80::1/64");

    snprintf(lan.host_twin, sizeof(lan.host_twin), "inside");
    listener->changed(&lan);
    assert_int_equal(if_nametoindex("lan0"), 0);
    assert_int_equal(query("inside", SIOCGIFMTU).ifr_mtu, 9000);
    assert_true(has_carrier("inside"));
    assert_true(working[lan.id]);
    assert_string_equal(linux_addresses("inside"), "192.0.2.1/24 2001:db8::1/64 fe80::1/64");

    lan.host_twin[0] = '\0';
    listener->changed(&lan);
    assert_int_equal(if_nametoindex("inside"), 0);
    assert_false(working[lan.id]);
}

/* Linux has no IPv6 on a device with a small MTU, and forgets its settings. */
static void ipv6_returns_with_a_larger_mtu(void **state) {
    (void)state;
    while (lan.address_count > 1)
        take(&lan, 1);
    lan.mtu = 576;
    listener->changed(&lan);
    assert_int_equal(query("lan0", SIOCGIFMTU).ifr_mtu, 576);
    lan.mtu = 1500;
    listener->changed(&lan);
    add(&lan, "fe80::1/64");
    settle();
    assert_string_equal(linux_addresses("lan0"), "192.0.2.1/24 fe80::1/64");
    assert_true(has_carrier("lan0"));
}

static void two_interfaces_exchange_their_twins(void **state) {
    struct ifreq request;

    (void)state;
    snprintf(wan.host_twin, sizeof(wan.host_twin), "wan0");
    listener->changed(&wan);
    assert_true(working[wan.id]);
    snprintf(lan.host_twin, sizeof(lan.host_twin), "wan0");
    snprintf(wan.host_twin, sizeof(wan.host_twin), "lan0");
    listener->changed(&lan);
    assert_false(working[lan.id]);
    listener->changed(&wan);
    assert_true(working[lan.id]);
    assert_true(working[wan.id]);
    request = query("wan0", SIOCGIFHWADDR);
    assert_memory_equal(request.ifr_hwaddr.sa_data, lan_mac, 6);
    request = query("lan0", SIOCGIFHWADDR);
    assert_memory_equal(request.ifr_hwaddr.sa_data, wan_mac, 6);
    assert_string_equal(linux_addresses("lan0"), "198.51.100.1/24");
}

/* --- what can go wrong with the device --- */

static bool was_logged(uint64_t after, const char *part) {
    static struct log_line lines[LOG_RING_LINES];
    size_t count = log_read(after, lines, RTE_DIM(lines));

    for (size_t i = 0; i < count; i++) {
        if (strstr(lines[i].text, part))
            return true;
    }
    return false;
}

static uint64_t last_logged(void) {
    static struct log_line lines[LOG_RING_LINES];
    size_t count = log_read(0, lines, RTE_DIM(lines));

    return count ? lines[count - 1].sequence : 0;
}

static int persistent_tap(const char *name, bool exists) {
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR);

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
    assert_int_equal(ioctl(fd, TUNSETPERSIST, (unsigned long)exists), 0);
    close(fd);
    return 0;
}

static void apply_configuration(const char *json);

static void a_name_of_another_device_is_refused(void **state) {
    uint64_t before = last_logged();

    (void)state;
    snprintf(wan.host_twin, sizeof(wan.host_twin), "lo");
    listener->changed(&wan);
    assert_false(working[wan.id]);
    assert_true(was_logged(before, "wan: no host twin lo: Linux has another device of that name"));

    /* Nor is a TAP device of somebody else taken over, although Linux would let us. */
    before = last_logged();
    persistent_tap("taken", true);
    snprintf(wan.host_twin, sizeof(wan.host_twin), "taken");
    listener->changed(&wan);
    assert_false(working[wan.id]);
    assert_true(was_logged(before, "wan: no host twin taken: Linux has another device"));
    assert_string_equal(linux_addresses("taken"), "");

    /* When it is gone the next configuration makes the twin. */
    persistent_tap("taken", false);
    assert_int_equal(if_nametoindex("taken"), 0);
    apply_configuration("{}");
    assert_true(working[wan.id]);
    assert_string_equal(linux_addresses("taken"), "198.51.100.1/24");
}

static void a_pattern_is_no_name(void **state) {
    (void)state;
    snprintf(wan.host_twin, sizeof(wan.host_twin), "wan%%d");
    listener->changed(&wan);
    assert_false(working[wan.id]);
    assert_int_equal(if_nametoindex("wan0"), 0);
}

static void without_the_tun_device_the_router_runs(void **state) {
    uint64_t before = last_logged();

    (void)state;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/dev/net", "tmpfs", 0, NULL) < 0)
        SKIP_CASE("nothing can be mounted here");
    snprintf(wan.host_twin, sizeof(wan.host_twin), "wan0");
    listener->changed(&wan);
    assert_false(working[wan.id]);
    assert_true(was_logged(before, "wan: no host twin wan0: cannot open /dev/net/tun"));
    assert_int_equal(umount("/dev/net"), 0);
}

/* Somebody deletes the device. */
static void a_lost_twin_is_made_again(void **state) {
    uint64_t before = last_logged();

    (void)state;
    delete_device("lan0");
    settle();
    assert_false(working[lan.id]);
    assert_true(was_logged(before, "lan: host twin lan0 is lost"));
    add(&lan, "192.0.2.9/24"); /* harmless */
    apply_configuration("{}");
    assert_true(working[lan.id]);
    assert_true(has_carrier("lan0"));
    forget();
}

/* --- from the router to Linux --- */

static void punted_frames_arrive_as_they_came(void **state) {
    uint8_t frame[128], got[FRAME_MAX];
    size_t length = make_udp4(frame, lan_mac, host_mac, "192.0.2.9", "192.0.2.1", 4500, "hello");
    int frames = open_frames("lan0"), udp = open_udp(AF_INET);
    struct sockaddr_in address = socket_address4("192.0.2.1", 4500);
    static const enum punt_class classes[] = {PUNT_IKE, PUNT_ROUTING, PUNT_OTHER};

    (void)state;
    assert_int_equal(bind(udp, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_null(handlers[PUNT_ARP]);
    assert_null(handlers[PUNT_RESOLVE]);
    for (size_t i = 0; i < RTE_DIM(classes); i++) {
        handlers[classes[i]](mbuf_of(frame, length,
                                     (struct packet_meta){.in_interface = lan.id,
                                                          .l3_offset = 14,
                                                          .l4_offset = 34,
                                                          .l4_protocol = IPPROTO_UDP}));
        assert_int_equal(next_frame(frames, got), length);
        assert_memory_equal(got, frame, length);
        assert_int_equal(recv(udp, got, sizeof(got), 0),
                         5); /* the checksum was right to Linux, too */
        assert_memory_equal(got, "hello", 5);
    }
    assert_int_equal(all_drops(), 0);
    close(udp);
    close(frames);
}

static void tagged_chains_arrive_untagged_and_whole(void **state) {
    uint8_t plain[2048], tagged[2048], got[FRAME_MAX];
    char data[1200];
    struct rte_mbuf *mbuf, *second = control_mbuf();
    size_t length;
    int frames = open_frames("lan0");

    (void)state;
    memset(data, 'x', sizeof(data) - 1);
    data[sizeof(data) - 1] = '\0';
    length = make_udp4(plain, lan_mac, host_mac, "192.0.2.9", "192.0.2.1", 179, data);
    memcpy(tagged, plain, 12);
    memcpy(tagged + 12, (uint8_t[]){0x81, 0, 0, 20}, 4);
    memcpy(tagged + 16, plain + 12, length - 12);
    mbuf = mbuf_of(
        tagged, 500,
        (struct packet_meta){
            .in_interface = lan.id, .l3_offset = 18, .l4_offset = 38, .l4_protocol = IPPROTO_UDP});
    memcpy(rte_pktmbuf_append(second, (uint16_t)(length + 4 - 500)), tagged + 500,
           length + 4 - 500);
    assert_int_equal(rte_pktmbuf_chain(mbuf, second), 0);
    handlers[PUNT_OTHER](mbuf);
    assert_int_equal(next_frame(frames, got), length);
    assert_memory_equal(got, plain, length);
    close(frames);
}

static void link_layer_destination_fits_the_twin(void **state) {
    static const uint8_t ospf[6] = {1, 0, 0x5e, 0, 0, 5}, zero[6] = {0};
    uint8_t frame[128], got[FRAME_MAX];
    size_t length = make_udp4(frame, ospf, host_mac, "192.0.2.9", "224.0.0.5", 89, "hello");
    int frames = open_frames("lan0");

    (void)state;
    /* Multicast stays multicast. */
    handlers[PUNT_ROUTING](mbuf_of(frame, length,
                                   (struct packet_meta){.in_interface = lan.id,
                                                        .l3_offset = 14,
                                                        .flags = PACKET_LINK_MULTICAST}));
    assert_int_equal(next_frame(frames, got), length);
    assert_memory_equal(got, frame, length);

    /* Came in by wan, for lan's address: Linux would take another MAC for a stranger's packet. */
    length = make_udp4(frame, wan_mac, host_mac, "198.51.100.9", "192.0.2.1", 7, "hello");
    handlers[PUNT_OTHER](
        mbuf_of(frame, length, (struct packet_meta){.in_interface = lan.id, .l3_offset = 14}));
    assert_int_equal(next_frame(frames, got), length);
    memcpy(frame, lan_mac, 6);
    assert_memory_equal(got, frame, length);

    /* An ICMP message that the router made has no link-layer addresses. */
    memcpy(frame, zero, 6);
    memcpy(frame + 6, zero, 6);
    handlers[PUNT_OTHER](mbuf_of(frame, length,
                                 (struct packet_meta){.in_interface = lan.id,
                                                      .l3_offset = 14,
                                                      .l4_protocol = IPPROTO_ICMP,
                                                      .flags = PACKET_FROM_HOST}));
    assert_int_equal(next_frame(frames, got), length);
    assert_memory_equal(got, lan_mac, 6);
    assert_memory_equal(got + 6, lan_mac, 6);
    close(frames);
}

static void punts_that_reach_nobody_are_counted(void **state) {
    uint8_t frame[128], got[FRAME_MAX];
    size_t length = make_udp4(frame, lan_mac, host_mac, "192.0.2.9", "192.0.2.1", 7, "hello");
    struct packet_meta meta = {.in_interface = wan.id, .l3_offset = 14, .l4_protocol = IPPROTO_UDP};
    int frames = open_frames("lan0");

    (void)state;
    handlers[PUNT_OTHER](mbuf_of(frame, length, meta));
    assert_int_equal(drops("no_twin"), 1);
    meta.in_interface = lan.id;
    meta.l3_offset = 200;
    handlers[PUNT_OTHER](mbuf_of(frame, length, meta));
    assert_int_equal(drops("malformed_punt"), 1);
    /* From Linux to another address of the router: it ends here. */
    meta.l3_offset = 14;
    meta.flags = PACKET_FROM_HOST;
    handlers[PUNT_OTHER](mbuf_of(frame, length, meta));
    assert_int_equal(drops("came_back"), 1);
    assert_int_equal(next_frame(frames, got), 0);
    close(frames);
    set_down("lan0");
    meta.flags = 0;
    handlers[PUNT_OTHER](mbuf_of(frame, length, meta));
    assert_int_equal(drops("twin_down"), 1);
    assert_int_equal(all_drops(), 4);
}

/* --- from Linux to the router --- */

static void assert_udp4_is_right(const struct record *record, const char *from, const char *to,
                                 const void *data, size_t length) {
    const struct rte_ipv4_hdr *ip = (const struct rte_ipv4_hdr *)(record->frame + 14);
    const uint8_t *udp = record->frame + 34;

    assert_int_equal(record->length, 42 + length);
    assert_int_equal(load16(record->frame + 12), RTE_BE16(RTE_ETHER_TYPE_IPV4));
    assert_int_equal(record->meta.l3_offset, 14);
    assert_int_equal(record->meta.l4_offset, 34);
    assert_int_equal(ip->src_addr, inet_addr(from));
    assert_int_equal(ip->dst_addr, inet_addr(to));
    assert_memory_equal(udp + 8, data, length);
    /* Complete, not left to a network card. */
    assert_int_equal(rte_raw_cksum(ip, 20), 0xffff);
    assert_int_not_equal(load16(udp + 6), 0);
    assert_int_equal(rte_ipv4_udptcp_cksum_verify(ip, udp), 0);
}

static void unicast_is_routed(void **state) {
    uint8_t expected[64];
    const struct record *record;
    struct sockaddr_in from = socket_address4("192.0.2.1", 9999),
                       to = socket_address4("192.0.2.77", 7);
    int fd = open_udp(AF_INET);

    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
    send_udp(fd, &to, sizeof(to), "hello", 5);
    close(fd);
    record = the_only(IPPROTO_UDP);
    assert_int_equal(record->way, ROUTED);
    assert_udp4_is_right(record, "192.0.2.1", "192.0.2.77", "hello", 5);
    assert_int_equal(record->meta.flags, PACKET_FROM_HOST);
    assert_int_equal(record->meta.in_interface, 0);
    assert_int_equal(record->meta.out_interface, 0);
    assert_int_equal(record->meta.vrf, lan.vrf);
    /* The exact bytes: only the identification and DF are Linux's choice. */
    make_udp4(expected, lan_mac, lan_mac, "192.0.2.1", "192.0.2.77", 7, "hello");
    memcpy(expected + 18, record->frame + 18, 4);
    fix_ipv4_checksum(expected);
    assert_memory_equal(record->frame, expected, record->length);
    assert_int_equal(all_drops(), 0);
}

static void the_vrf_is_the_interfaces(void **state) {
    (void)state;
    lan.vrf = 5;
    send4("192.0.2.77", "hello", 5);
    assert_int_equal(the_only(IPPROTO_UDP)->meta.vrf, 5);
}

static void ipv6_is_routed_or_resolved(void **state) {
    const struct record *record;

    (void)state;
    send6("2001:db8::77", "hello", 5);
    record = the_only(IPPROTO_UDP);
    assert_int_equal(record->way, ROUTED);
    assert_int_equal(record->meta.flags, PACKET_FROM_HOST | PACKET_IPV6);
    assert_int_equal(record->meta.l3_offset, 14);
    assert_int_equal(record->meta.l4_offset, 54);
    assert_int_equal(record->length, 54 + 8 + 5);
    assert_int_equal(
        rte_ipv6_udptcp_cksum_verify((const void *)(record->frame + 14), record->frame + 54), 0);

    forget();
    send6("fe80::77", "hello", 5);
    record = the_only(IPPROTO_UDP);
    assert_int_equal(record->way, RESOLVED);
    assert_int_equal(record->meta.out_interface, lan.id);
    assert_int_equal(record->meta.next_hop, 0);
    assert_int_equal(record->meta.in_interface, 0);
    assert_int_equal(record->meta.flags, PACKET_FROM_HOST | PACKET_IPV6);

    forget();
    send6("ff02::1:2", "hello", 5);
    record = the_only(IPPROTO_UDP);
    assert_int_equal(record->way, TRANSMITTED);
    assert_int_equal(record->out_interface, lan.id);
    assert_int_equal(record->port, PORT);
    assert_memory_equal(record->frame, ((uint8_t[]){0x33, 0x33, 0, 1, 0, 2}), 6);
    assert_memory_equal(record->frame + 6, lan_mac, 6);
    assert_int_equal(all_drops(), 0);
}

static void groups_and_broadcasts_leave_on_the_link(void **state) {
    static const char *const broadcasts[] = {"192.0.2.255", "255.255.255.255"};
    const struct record *record;

    (void)state;
    send4("224.0.0.5", "hello", 5);
    record = the_only(IPPROTO_UDP);
    assert_int_equal(record->way, TRANSMITTED);
    assert_int_equal(record->out_interface, lan.id);
    assert_memory_equal(record->frame, ((uint8_t[]){1, 0, 0x5e, 0, 0, 5}), 6);
    assert_udp4_is_right(record, "192.0.2.1", "224.0.0.5", "hello", 5);

    for (size_t i = 0; i < RTE_DIM(broadcasts); i++) {
        forget();
        send4(broadcasts[i], "hello", 5);
        record = the_only(IPPROTO_UDP);
        assert_int_equal(record->way, TRANSMITTED);
        assert_memory_equal(record->frame, "\xff\xff\xff\xff\xff\xff", 6);
        assert_udp4_is_right(record, "192.0.2.1", broadcasts[i], "hello", 5);
    }

    /* A DHCP client has no address yet. */
    forget();
    while (lan.address_count > 0)
        take(&lan, 0);
    send4("255.255.255.255", "discover", 8);
    record = the_only(IPPROTO_UDP);
    assert_int_equal(record->way, TRANSMITTED);
    assert_memory_equal(record->frame, "\xff\xff\xff\xff\xff\xff", 6);
    assert_udp4_is_right(record, "0.0.0.0", "255.255.255.255", "discover", 8);
    assert_int_equal(all_drops(), 0);
}

static void large_frames_become_chains(void **state) {
    static uint8_t data[8900];
    const struct record *record;

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    lan.mtu = 9000;
    listener->changed(&lan);
    send4("192.0.2.77", data, sizeof(data));
    record = the_only(IPPROTO_UDP);
    assert_int_equal(record->segments, 5);
    assert_udp4_is_right(record, "192.0.2.1", "192.0.2.77", data, sizeof(data));

    /* Without buffers the frame is lost, not the ones before it. */
    forget();
    no_buffers = true;
    send4("192.0.2.77", data, sizeof(data));
    settle();
    no_buffers = false;
    assert_int_equal(record_count, 0);
    assert_int_equal(drops("no_buffer"), 1);
    assert_int_equal(rte_mempool_in_use_count(pool), 0);
}

static void fragments_are_told(void **state) {
    static uint8_t data[2000];

    (void)state;
    send4("192.0.2.77", data, sizeof(data));
    settle();
    assert_int_equal(record_count, 2);
    assert_int_equal(records[0].meta.flags, PACKET_FROM_HOST | PACKET_FRAGMENT);
    assert_int_equal(records[1].meta.flags,
                     PACKET_FROM_HOST | PACKET_FRAGMENT | PACKET_LATER_FRAGMENT);
    forget();
    send6("2001:db8::77", data, sizeof(data));
    settle();
    assert_int_equal(record_count, 2);
    assert_int_equal(records[0].meta.flags, PACKET_FROM_HOST | PACKET_IPV6 | PACKET_FRAGMENT);
    assert_int_equal(records[0].meta.l4_offset, 62);
    assert_int_equal(records[0].meta.l4_protocol, IPPROTO_UDP);
    assert_int_equal(records[1].meta.flags,
                     PACKET_FROM_HOST | PACKET_IPV6 | PACKET_FRAGMENT | PACKET_LATER_FRAGMENT);
}

/* Linux may send from any of the router's addresses in the VRF. */
static void other_addresses_of_the_router_are_sources(void **state) {
    uint8_t frame[128];
    size_t length = make_udp4(frame, lan_mac, lan_mac, "198.51.100.1", "192.0.2.77", 7, "hello");
    int frames = open_frames("lan0");

    (void)state;
    assert_int_equal(send(frames, frame, length, 0), length);
    assert_int_equal(the_only(IPPROTO_UDP)->way, ROUTED);
    wan.vrf = 1;
    forget();
    assert_int_equal(send(frames, frame, length, 0), length);
    settle();
    assert_int_equal(record_count, 0);
    assert_int_equal(drops("foreign_source"), 1);
    close(frames);
}

/* A DHCP server answers a client that has no address by a frame to its MAC address. */
static void a_foreign_unicast_address_is_kept(void **state) {
    uint8_t frame[128];
    size_t length = make_udp4(frame, host_mac, lan_mac, "192.0.2.1", "192.0.2.77", 68, "offer");
    int frames = open_frames("lan0");
    const struct record *record;

    (void)state;
    assert_int_equal(send(frames, frame, length, 0), length);
    record = the_only(IPPROTO_UDP);
    assert_int_equal(record->way, TRANSMITTED);
    assert_int_equal(record->length, length);
    assert_memory_equal(record->frame, frame, length);
    close(frames);
}

static void padding_is_cut_off(void **state) {
    uint8_t frame[128];
    size_t length = make_udp4(frame, lan_mac, lan_mac, "192.0.2.1", "192.0.2.77", 7, "hello");
    int frames = open_frames("lan0");

    (void)state;
    memset(frame + length, 0xee, 13);
    assert_int_equal(send(frames, frame, length + 13, 0), length + 13);
    assert_int_equal(the_only(IPPROTO_UDP)->length, length);
    close(frames);
}

/* --- bad frames from Linux --- */

static size_t make_ipv6(uint8_t *frame, const char *from, const char *to, uint8_t next,
                        const uint8_t *payload, size_t length) {
    memset(frame, 0, 54);
    memcpy(frame, lan_mac, 6);
    memcpy(frame + 6, lan_mac, 6);
    memcpy(frame + 12, (uint8_t[]){0x86, 0xdd, 0x60}, 3);
    frame[18] = (uint8_t)(length >> 8);
    frame[19] = (uint8_t)length;
    frame[20] = next;
    frame[21] = 64;
    inet_pton(AF_INET6, from, frame + 22);
    inet_pton(AF_INET6, to, frame + 38);
    memcpy(frame + 54, payload, length);
    return 54 + length;
}

static void expect_drop(int frames, const uint8_t *frame, size_t length, const char *reason) {
    uint64_t before = drops(reason), all = all_drops();

    forget();
    assert_int_equal(send(frames, frame, length, 0), length);
    settle();
    if (drops(reason) != before + 1 || all_drops() != all + 1)
        fail_msg("the frame was not counted as host.%s", reason);
    assert_int_equal(record_count, 0);
}

static void bad_ipv4_is_dropped_by_name(void **state) {
    uint8_t good[1600] = {0}, frame[1600];
    size_t length = make_udp4(good, lan_mac, lan_mac, "192.0.2.1", "192.0.2.77", 7, "hello");
    int frames = open_frames("lan0");
    static const struct {
        const char *reason;
        unsigned at;
        uint8_t value;
        bool keep_checksum;
    } cases[] = {
        {"unknown_ethertype", 13, 6, true},     {"source_mac", 11, 0x12, true},
        {"ipv4_header", 14, 0x65, false},       {"ipv4_header", 14, 0x44, false},
        {"ipv4_total_length", 14, 0x4f, false}, {"ipv4_total_length", 17, 19, false},
        {"ipv4_total_length", 17, 100, false},  {"ipv4_checksum", 22, 63, true},
        {"martian_source", 26, 224, false},     {"martian_source", 26, 127, false},
        {"foreign_source", 29, 2, false},       {"foreign_source", 26, 10, false},
        {"bad_destination", 30, 224, false},
    };

    (void)state;
    for (size_t i = 0; i < RTE_DIM(cases); i++) {
        memcpy(frame, good, length);
        frame[cases[i].at] = cases[i].value;
        if (!cases[i].keep_checksum)
            fix_ipv4_checksum(frame);
        expect_drop(frames, frame, length, cases[i].reason);
    }
    expect_drop(frames, good, 14 + 19, "truncated");
    /* One byte more than the interface's MTU, which Linux does not know of yet. */
    lan.mtu = 100;
    memcpy(frame, good, sizeof(frame));
    frame[17] = 101;
    fix_ipv4_checksum(frame);
    expect_drop(frames, frame, 14 + 101, "too_long");
    lan.mtu = 1500;
    lan.up = false;
    expect_drop(frames, good, length, "interface_down");
    lan.up = true;
    close(frames);
}

static void bad_ipv6_is_dropped_by_name(void **state) {
    static const uint8_t udp[16] = {0, 9, 0, 9, 0, 16}, long_option[8] = {17, 9},
                         stray_hop_by_hop[16] = {0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4};
    uint8_t frame[256];
    int frames = open_frames("lan0");
    size_t length;

    (void)state;
    length = make_ipv6(frame, "2001:db8::1", "2001:db8::77", 17, udp, sizeof(udp));
    frame[14] = 0x50;
    expect_drop(frames, frame, length, "ipv6_version");
    frame[14] = 0x60;
    expect_drop(frames, frame, length - 1, "ipv6_payload_length");
    expect_drop(frames, frame, 14 + 39, "truncated");
    length = make_ipv6(frame, "2001:db8::1", "2001:db8::77", 60, long_option, 8);
    expect_drop(frames, frame, length, "ipv6_extension_header");
    expect_drop(frames, frame, make_ipv6(frame, "2001:db8::1", "2001:db8::77", 0, udp, 4),
                "ipv6_extension_header");
    length = make_ipv6(frame, "2001:db8::1", "2001:db8::77", 60, stray_hop_by_hop, 16);
    expect_drop(frames, frame, length, "ipv6_extension_header");
    length = make_ipv6(frame, "::1", "2001:db8::77", 17, udp, sizeof(udp));
    expect_drop(frames, frame, length, "martian_source");
    length = make_ipv6(frame, "ff02::1", "2001:db8::77", 17, udp, sizeof(udp));
    expect_drop(frames, frame, length, "martian_source");
    length = make_ipv6(frame, "2001:db8::2", "2001:db8::77", 17, udp, sizeof(udp));
    expect_drop(frames, frame, length, "foreign_source");
    length = make_ipv6(frame, "fe80::2", "fe80::77", 17, udp, sizeof(udp));
    expect_drop(frames, frame, length, "foreign_source");
    length = make_ipv6(frame, "fe80::1", "2001:db8:9::77", 17, udp, sizeof(udp));
    expect_drop(frames, frame, length, "link_local_source");
    length = make_ipv6(frame, "fe80::1", "fe80::1", 17, udp, sizeof(udp));
    expect_drop(frames, frame, length, "bad_destination");
    length = make_ipv6(frame, "fe80::1", "ff02::1", 17, udp, sizeof(udp));
    expect_drop(frames, frame, length, "bad_destination");

    /* A link-local source may reach its own link. */
    forget();
    length = make_ipv6(frame, "fe80::1", "2001:db8::77", 17, udp, sizeof(udp));
    assert_int_equal(send(frames, frame, length, 0), length);
    assert_int_equal(the_only(IPPROTO_UDP)->way, ROUTED);
    close(frames);
}

/* One twin must not keep the event loop to itself. */
static void a_turn_takes_64_frames(void **state) {
    uint8_t frame[128];
    size_t length = make_udp4(frame, lan_mac, lan_mac, "192.0.2.1", "192.0.2.77", 7, "hello");
    int frames = open_frames("lan0");

    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(send(frames, frame, length, 0), length);
    event_turn(100);
    assert_int_equal(record_count, 64);
    event_turn(100);
    assert_int_equal(record_count, 100);
    close(frames);
}

/* --- the section --- */

static struct config_section *punt_section(void) {
    struct config_section *section = config_section_first();

    while (section && strcmp(section->name, "punt") != 0)
        section = section->next;
    assert_non_null(section);
    return section;
}

/* Decodes the section and commits it; problems are returned as "path: message" lines. */
static const char *try_configuration(const char *json) {
    static char text[1024];
    struct problems problems = {0};
    json_t *value = json_loads(json, 0, NULL);
    struct decode root = decode_root(value, &problems), punt_value;
    struct config_section *section = punt_section();
    struct config *config = config_new();

    assert_non_null(value);
    config_set_value(
        config, section,
        section->decode(decode_member(&root, "punt", &punt_value) ? &punt_value : NULL));
    text[0] = '\0';
    for (size_t i = 0; i < problems.count; i++) {
        size_t used = strlen(text);

        snprintf(text + used, sizeof(text) - used, "%s: %s\n", problems.list[i].path,
                 problems.list[i].message);
    }
    if (!problems_any(&problems))
        section->commit(NULL, config);
    problems_free(&problems);
    config_free(config);
    json_decref(value);
    return text;
}

static void apply_configuration(const char *json) {
    assert_string_equal(try_configuration(json), "");
}

static void rates_come_from_the_configuration(void **state) {
    static const uint32_t usual[PUNT_CLASSES] = {1000, 5000, 1000, 2000, 1000};

    (void)state;
    apply_configuration("{}");
    assert_memory_equal(rates, usual, sizeof(usual));
    apply_configuration("{\"punt\":{\"arp\":0,\"resolve\":1,\"ike\":10000000,\"other\":7}}");
    assert_memory_equal(rates, ((uint32_t[]){0, 1, 10000000, 2000, 7}), sizeof(rates));
    apply_configuration("{}");
    assert_memory_equal(rates, usual, sizeof(usual));
    assert_non_null(strstr(try_configuration("{\"punt\":{\"arp\":10000001}}"), "$.punt.arp: "));
    assert_non_null(strstr(try_configuration("{\"punt\":{\"icmp\":1}}"), "$.punt.icmp: "));
    assert_non_null(strstr(try_configuration("{\"punt\":[]}"), "$.punt: "));
    assert_memory_equal(rates, usual, sizeof(usual));
    punt_section()->commit(NULL, NULL); /* the end of the program */
}

/* --- */

/* Whoever reads TAP finds the reason in it and wants success; others go by the exit status. */
static int skip_all(const char *why) {
    const char *output = getenv("CMOCKA_MESSAGE_OUTPUT");

    printf("1..0 # SKIP %s\n", why);
    return output && strcasecmp(output, "tap") == 0 ? 0 : SKIPPED;
}

static int prepare(void) {
    char *arguments[] = {
        "test_twin", "--no-huge",         "--no-shconf",   "-m", "64", "--no-pci", "-l",
        "0",         "--log-level=error", "--no-telemetry"};
    struct problems problems = {0};
    struct ifreq request = {.ifr_flags = IFF_UP, .ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    ioctl(fd, SIOCSIFFLAGS, &request);
    close(fd);
    if (rte_eal_init(RTE_DIM(arguments), arguments) < 0 || packet_meta_init() != 0)
        return -1;
    pool = rte_pktmbuf_pool_create("twin", 1023, 0, 0, 2048 + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    if (!pool || event_init() != 0 || config_init(&problems) != 0)
        return -1;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        CASE(the_twin_is_what_the_interface_is),
        CASE(ipv6_addresses_can_be_used_at_once),
        CASE(carrier_follows_the_interface),
        CASE(addresses_come_and_go),
        CASE(successor_stays_without_promotion),
        CASE(mtu_and_name_change),
        CASE(ipv6_returns_with_a_larger_mtu),
        CASE(two_interfaces_exchange_their_twins),
        CASE(a_name_of_another_device_is_refused),
        CASE(a_pattern_is_no_name),
        CASE(without_the_tun_device_the_router_runs),
        CASE(a_lost_twin_is_made_again),
        CASE(punted_frames_arrive_as_they_came),
        CASE(tagged_chains_arrive_untagged_and_whole),
        CASE(link_layer_destination_fits_the_twin),
        CASE(punts_that_reach_nobody_are_counted),
        CASE(unicast_is_routed),
        CASE(the_vrf_is_the_interfaces),
        CASE(ipv6_is_routed_or_resolved),
        CASE(groups_and_broadcasts_leave_on_the_link),
        CASE(large_frames_become_chains),
        CASE(fragments_are_told),
        CASE(other_addresses_of_the_router_are_sources),
        CASE(a_foreign_unicast_address_is_kept),
        CASE(padding_is_cut_off),
        CASE(bad_ipv4_is_dropped_by_name),
        CASE(bad_ipv6_is_dropped_by_name),
        CASE(a_turn_takes_64_frames),
        CASE(rates_come_from_the_configuration),
    };
    int failed;

    if (geteuid() != 0)
        return skip_all("needs root for a network namespace and TAP devices");
    if (access("/dev/net/tun", R_OK | W_OK) < 0)
        return skip_all("needs /dev/net/tun, which is missing");
    if (unshare(CLONE_NEWNET) < 0)
        return skip_all("may not make a network namespace");
    if (prepare() < 0) {
        fprintf(stderr, "cannot start DPDK, the event loop or the sections\n");
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    host_free();
    event_free();
    rte_mempool_free(pool);
    rte_eal_cleanup();
    return failed;
}
