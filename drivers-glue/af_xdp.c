/*
 * net_af_xdp: a Linux interface through AF_XDP sockets, which take frames away before the Linux
 * stack sees them. Zero-copy where the NIC's driver can, else in copy mode.
 *
 * The socket's memory is the buffer pool itself. Of a buffer's 2048 bytes the kernel keeps 256, and
 * a chain of buffers cannot be sent (22.11 sends the first one and reads past its end). One socket
 * serves one queue of the interface, so there cannot be more of them than the interface has.
 */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>

#include "core/port.h"
#include "linux_interface.h"

enum {
    XDP_HEADROOM = 256,
    BUFFER = 2048,
    MTU_MAX = BUFFER - XDP_HEADROOM - RTE_ETHER_HDR_LEN - 4,
    FILL_RING = 2048, /* XSK_RING_CONS__DEFAULT_NUM_DESCS, fixed in the driver */
    FILL_RINGS = 2,   /* the fill ring may be twice as long */
};

static const struct port_argument arguments[] = {
    {.key = "iface", .kind = PORT_ARGUMENT_INTERFACE, .required = true},
    {.key = "start_queue", .kind = PORT_ARGUMENT_NUMBER, .max = 4095},
    {.key = "queue_count", .kind = PORT_ARGUMENT_NUMBER, .min = 1, .max = PORT_QUEUES_MAX},
    {.key = "shared_umem", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "xdp_prog", .kind = PORT_ARGUMENT_FILE},
    {.key = "busy_budget", .kind = PORT_ARGUMENT_NUMBER, .max = UINT16_MAX},
    {.key = "force_copy", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {0},
};

static int before_probe(const struct port_request *request, unsigned workers, char *device,
                        const char *path, struct problems *problems) {
    char name[IFNAMSIZ] = "", value[16] = "0";
    unsigned asked = RTE_MAX(request->rx_queues, request->tx_queues);

    port_device_argument(device, "iface", 0, name, sizeof(name));
    if (!linux_interface_check(name, path, problems)) {
        return -ENODEV;
    }
    port_device_argument(device, "start_queue", 0, value, sizeof(value));
    unsigned channels = linux_interface_channels(name);
    unsigned start = (unsigned)strtoul(value, NULL, 10);
    if (start >= channels || asked > channels - start) {
        problems_add(
            problems, path,
            "the Linux interface `%s` has %u queue%s (see ethtool -l), not enough for %u from "
            "number %u on",
            name, channels, channels == 1 ? "" : "s", asked ? asked : 1, start);
        return -EINVAL;
    }
    int error = port_device_complete_queues(request, RTE_MIN(workers, channels - start), device,
                                            "queue_count", path, problems);
    return error ? error : linux_interface_borrow(device, true, path, problems);
}

static uint32_t buffers(const struct port_request *request) {
    /* The transmit and completion rings hold frames until the kernel has sent them. */
    return (uint32_t)request->rx_queues * FILL_RING * FILL_RINGS +
           (uint32_t)request->tx_queues * FILL_RING;
}

static struct port_driver driver = {
    .name = "net_af_xdp",
    .devices = "net_af_xdp0,iface=eth1[,queue_count=N][,force_copy=1]",
    .arguments = arguments,
    .package = "librte-net-af-xdp23",
    .before_probe = before_probe,
    .after_close = linux_interface_return,
    .set_mtu = linux_interface_set_mtu,
    .set_mac = linux_interface_set_mac,
    .set_promiscuous = linux_interface_set_promiscuous,
    .link = linux_interface_link,
    .mbufs = buffers,
    .rx_descriptors = FILL_RING,
    .mtu_max = MTU_MAX,
    .mtu_live = true,
    .vlans_promiscuous = true,
    .queues_exact = true,
    .queues_paired = true,
    .spreads_flows = true, /* the NIC's own RSS, set with ethtool */
    .rx_chains = true,     /* a frame always fits: the MTU's limit is lower */
};
PORT_DRIVER(driver)
