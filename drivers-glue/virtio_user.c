/*
 * net_virtio_user: the guest's side of vhost, without a guest. path=SOCKET connects to a vhost-user
 * backend (or waits for one: server=1), path=/dev/vhost-net makes a TAP interface served by the
 * kernel.
 *
 * The backend maps this process' memory, of which the protocol takes 8 pieces. Hugepages are one
 * file each, so --single-file-segments is needed with them; without hugepages all memory is one
 * piece.
 */
#include <errno.h>
#include <rte_eal.h>
#include <rte_eal_memconfig.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/port.h"
#include "linux_interface.h"

static const struct port_argument arguments[] = {
    {.key = "path", .kind = PORT_ARGUMENT_PATH, .required = true},
    {.key = "mac", .kind = PORT_ARGUMENT_MAC},
    {.key = "cq", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "queue_size", .kind = PORT_ARGUMENT_NUMBER, .min = 64, .max = 32768},
    {.key = "queues", .kind = PORT_ARGUMENT_NUMBER, .min = 1, .max = 8},
    {.key = "iface", .kind = PORT_ARGUMENT_INTERFACE},
    {.key = "server", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "mrg_rxbuf", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "in_order", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "packed_vq", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "speed", .kind = PORT_ARGUMENT_NUMBER, .max = 400000},
    {.key = "vectorized", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {0},
};

enum { QUEUES_MAX = 8 /* VIRTIO_MAX_VIRTQUEUE_PAIRS */, QUEUE_SIZE = 1024 };

static int before_probe(const struct port_request *request, unsigned workers, char *device,
                        const char *path, struct problems *problems) {
    char target[PORT_DEVICE_TEXT] = "", server[8] = "0";
    struct stat status;
    unsigned long size = RTE_MAX(request->rx_descriptors, request->tx_descriptors);

    port_device_argument(device, "path", 0, target, sizeof(target));
    port_device_argument(device, "server", 0, server, sizeof(server));
    bool user = strncmp(target, "/dev/", 5) != 0;
    if (user && rte_eal_has_hugepages() && !rte_mcfg_get_single_file_segments()) {
        problems_add(problems, path,
                     "virtio_user shares this program's memory with the vhost backend, which with "
                     "hugepages needs the EAL option --single-file-segments");
        return -ENOTSUP;
    }
    if (strcmp(server, "1") != 0 && stat(target, &status) != 0) {
        int error = errno;
        problems_add(problems, path, "there is no vhost backend at `%s`: %s", target,
                     strerror(error));
        return -error;
    }
    int error = port_device_complete_queues(request, RTE_MIN(workers, (unsigned)QUEUES_MAX), device,
                                            "queues", path, problems);
    if (error == 0) {
        error = port_device_complete(device, "queue_size",
                                     rte_align32pow2(size ? (uint32_t)size : QUEUE_SIZE), path,
                                     problems);
    }
    if (error == 0 && strcmp(server, "1") == 0) {
        error = socket_path_prepare(target, "vhost", path, problems);
    }
    return error;
}

static struct port_driver driver = {
    .name = "net_virtio_user",
    .alias = "virtio_user",
    .devices = "net_virtio_user0,path=/run/vm.sock[,queues=N][,mac=MAC][,server=1]",
    .arguments = arguments,
    .package = "librte-net-virtio23",
    .before_probe = before_probe,
    .rx_descriptors = QUEUE_SIZE,
    .mtu_live = true,
    .mac_free = true,
    .promiscuous_none = true,
    .queues_exact = true,
    .queues_paired = true,
    .spreads_flows = true, /* the backend does */
};
PORT_DRIVER(driver)
