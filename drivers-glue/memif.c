/*
 * net_memif: shared memory with another process that speaks memif (VPP, another router). One side
 * is the server and makes the socket, the other one the client.
 *
 * Both sides must have the same number of queues. A queue that the other side does not have is not
 * refused by the driver (22.11): it is laid over queue 0, and two workers then write into the same
 * ring. So the number is one unless the configuration names it.
 *
 * When the other process ends under traffic, the driver unmaps the shared memory while workers
 * still read it, and this process may die of SIGSEGV. Take the interface down here first.
 */
#include <errno.h>
#include <string.h>

#include "core/port.h"
#include "linux_interface.h"

enum { RING_LOG2 = 10 }; /* ETH_MEMIF_DEFAULT_RING_SIZE */

static const struct port_argument arguments[] = {
    {.key = "id", .kind = PORT_ARGUMENT_NUMBER, .max = UINT32_MAX},
    {.key = "role", .kind = PORT_ARGUMENT_TEXT},
    {.key = "bsize", .kind = PORT_ARGUMENT_NUMBER, .min = 64, .max = UINT16_MAX},
    {.key = "rsize", .kind = PORT_ARGUMENT_NUMBER, .min = 1, .max = 14},
    {.key = "socket", .kind = PORT_ARGUMENT_PATH},
    {.key = "socket-abstract", .kind = PORT_ARGUMENT_YES_NO},
    {.key = "mac", .kind = PORT_ARGUMENT_MAC},
    {.key = "zero-copy", .kind = PORT_ARGUMENT_YES_NO},
    {.key = "secret", .kind = PORT_ARGUMENT_TEXT},
    {0},
};

static int before_probe(const struct port_request *request, unsigned workers, char *device,
                        const char *path, struct problems *problems) {
    char role[32] = "client", socket[PORT_DEVICE_TEXT] = "/run/memif.sock", abstract[8] = "yes";

    (void)request;
    (void)workers;
    port_device_argument(device, "role", 0, role, sizeof(role));
    port_device_argument(device, "socket", 0, socket, sizeof(socket));
    port_device_argument(device, "socket-abstract", 0, abstract, sizeof(abstract));
    if (strcmp(role, "server") != 0 && strcmp(role, "client") != 0) {
        problems_add(problems, path, "net_memif: `role` must be `server` or `client`, but is `%s`",
                     role);
        return -EINVAL;
    }
    if (strcmp(role, "server") == 0 && strcmp(abstract, "no") == 0) {
        return socket_path_prepare(socket, "memif", path, problems);
    }
    return 0;
}

static uint32_t buffers(const struct port_request *request) {
    /* Frames are copied out of the shared ring, so only bursts under way hold buffers; zero-copy
     * hands the whole ring over. */
    char value[16];
    if (port_device_argument(request->device, "zero-copy", 0, value, sizeof(value)) &&
        strcmp(value, "yes") == 0) {
        return (uint32_t)(request->rx_queues + request->tx_queues) << RING_LOG2;
    }
    return 64u * (request->rx_queues + request->tx_queues);
}

static struct port_driver driver = {
    .name = "net_memif",
    .devices = "net_memif0,role=server|client,id=0,socket=PATH,socket-abstract=no[,rsize=10]",
    .arguments = arguments,
    .package = "librte-net-memif23",
    .before_probe = before_probe,
    .mbufs = buffers,
    .default_queues = 1,
    .mtu_max = PORT_MTU_MAX, /* the driver says 1500, but knows no limit: it chains buffers */
    .mtu_fixed = true,
    .mtu_live = true,
    .mac_free = true,
    .promiscuous_none = true,
    .spreads_flows = true, /* the other side does */
    .rx_chains = true,
};
PORT_DRIVER(driver)
