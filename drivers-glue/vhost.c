/*
 * net_vhost: the host's side of a vhost-user connection. A virtual machine (QEMU) or a virtio_user
 * port of another process is the other side, which must share its memory.
 *
 * The link is up while a guest is connected. Checksums that the guest left to its "NIC" are
 * completed by the driver. TSO is not offered to the guest unless asked for: the router takes whole
 * frames.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/port.h"
#include "linux_interface.h"

static const struct port_argument arguments[] = {
    {.key = "iface", .kind = PORT_ARGUMENT_PATH, .required = true},
    {.key = "queues", .kind = PORT_ARGUMENT_NUMBER, .min = 1, .max = PORT_QUEUES_MAX},
    {.key = "client", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "iommu-support", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "postcopy-support", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "linear-buffer", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "ext-buffer", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "legacy-ol-flags", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {0},
};

static int before_probe(const struct port_request *request, unsigned workers, char *device,
                        const char *path, struct problems *problems) {
    char socket[PORT_DEVICE_TEXT] = "", client[8] = "0";

    int error = port_device_complete_queues(request, workers, device, "queues", path, problems);
    if (error != 0) {
        return error;
    }
    port_device_argument(device, "iface", 0, socket, sizeof(socket));
    port_device_argument(device, "client", 0, client, sizeof(client));
    /* As a client it connects whenever the server's socket appears. */
    return strcmp(client, "1") == 0 ? 0 : socket_path_prepare(socket, "vhost", path, problems);
}

static uint32_t buffers(const struct port_request *request) {
    /* Frames are copied between the guest's memory and buffers; only bursts hold any. */
    return 64u * (request->rx_queues + request->tx_queues);
}

static struct port_driver driver = {
    .name = "net_vhost",
    .alias = "eth_vhost",
    .devices = "net_vhost0,iface=/run/dpdk-router/vm1.sock[,queues=N][,client=1]",
    .arguments = arguments,
    .package = "librte-net-vhost23",
    .before_probe = before_probe,
    .mbufs = buffers,
    .mtu_max = PORT_MTU_MAX,
    .mtu_fixed = true,
    .mtu_live = true,
    .mac_free = true,
    .promiscuous_none = true,
    .queues_exact = true,
    .queues_paired = true,
    .spreads_flows = true, /* the guest does */
    .rx_chains = true,
};
PORT_DRIVER(driver)
