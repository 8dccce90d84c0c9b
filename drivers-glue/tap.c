/*
 * net_tap: a TAP interface of Linux whose other end is the router. For namespaces, containers and
 * tests.
 *
 * The driver's MAC address is that of the Linux end, and setting it would change Linux'. The
 * router's end has an address of its own, which nothing needs to know.
 *
 * The driver is told of frames by a real-time signal to the process (SIGRTMIN+1 and up), so system
 * calls of the control thread may return EINTR.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/port.h"

static const struct port_argument arguments[] = {
    {.key = "iface", .kind = PORT_ARGUMENT_INTERFACE},
    {.key = "mac", .kind = PORT_ARGUMENT_MAC, .max = 1},
    {.key = "remote", .kind = PORT_ARGUMENT_INTERFACE},
    {.key = "persist", .kind = PORT_ARGUMENT_TEXT},
    {0},
};

static int before_probe(const struct port_request *request, unsigned workers, char *device,
                        const char *path, struct problems *problems) {
    char name[IFNAMSIZ];

    (void)request;
    (void)workers;
    if (access("/dev/net/tun", R_OK | W_OK) != 0) {
        int error = errno;
        problems_add(problems, path, "/dev/net/tun, which net_tap needs, cannot be opened: %s",
                     strerror(error));
        return -error;
    }
    if (port_device_argument(device, "iface", 0, name, sizeof(name)) && if_nametoindex(name) != 0 &&
        !port_device_argument(device, "persist", 0, NULL, 0)) {
        char uevent[64];
        /* An interface that was made persistent may be taken over; others belong to somebody. */
        snprintf(uevent, sizeof(uevent), "/sys/class/net/%s/tun_flags", name);
        if (access(uevent, F_OK) != 0) {
            problems_add(
                problems, path,
                "the Linux interface `%s` exists and is no TAP interface; net_tap makes its "
                "own",
                name);
            return -EEXIST;
        }
    }
    return 0;
}

static void configure(const struct port_request *request, const struct rte_eth_dev_info *info,
                      struct rte_eth_conf *conf, uint16_t *rx_queues, uint16_t *tx_queues) {
    (void)request;
    (void)info;
    (void)rx_queues;
    (void)tx_queues;
    /* Done in software, over the whole of TCP and UDP packets too: dearer than the router's own. */
    conf->rxmode.offloads &= ~(uint64_t)RTE_ETH_RX_OFFLOAD_CHECKSUM;
    /* The kernel spreads flows over the queues; the driver's RSS would need traffic control. */
    conf->rxmode.mq_mode = RTE_ETH_MQ_RX_NONE;
    memset(&conf->rx_adv_conf.rss_conf, 0, sizeof(conf->rx_adv_conf.rss_conf));
}

/* The Linux end is often moved into another network namespace, where nobody here can ask for its
 * state; the driver then says "down" for ever. */
static void link_state(const struct port *port, bool *up, uint32_t *speed_mbps) {
    struct rte_eth_dev_info info;
    struct ifreq ifr = {0};

    *up = port->started;
    *speed_mbps = 0;
    if (!port_device_argument(port->device, "iface", 0, ifr.ifr_name, sizeof(ifr.ifr_name)) &&
        (rte_eth_dev_info_get(port->id, &info) != 0 ||
         !if_indextoname(info.if_index, ifr.ifr_name))) {
        return;
    }
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &ifr) == 0) {
        *up = (ifr.ifr_flags & IFF_UP) && (ifr.ifr_flags & IFF_RUNNING);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static uint32_t buffers(const struct port_request *request) {
    return (uint32_t)request->rx_queues * (request->rx_descriptors + 64u) +
           64u * request->tx_queues;
}

static struct port_driver driver = {
    .name = "net_tap",
    .alias = "eth_tap",
    .devices = "net_tap0,iface=lan[,mac=MAC-OF-THE-LINUX-END]",
    .arguments = arguments,
    .package = "librte-net-tap23",
    .before_probe = before_probe,
    .configure = configure,
    .link = link_state,
    .mbufs = buffers,
    .rx_descriptors =
        16, /* a descriptor is but one part of a scattered frame, and there are none */
    .mtu_live = true,
    .mac_free = true,
    .mac_of_peer = true,
    .promiscuous_none = true,
    .queues_paired = true,
    .spreads_flows = true,
};
PORT_DRIVER(driver)
