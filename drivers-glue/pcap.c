/*
 * net_pcap: receives the frames of capture files and writes what is sent into others, or does the
 * same on a Linux interface through libpcap. One rx_pcap (tx_pcap) makes one receive (transmit)
 * queue, so the device string decides about their number.
 *
 * With infinite_rx=1 the driver keeps every frame of a file in a buffer of its own and sends copies
 * round and round; a frame longer than one buffer makes it refuse the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/port.h"
#include "linux_interface.h"

enum {
    PCAP_MICROSECONDS = 0xa1b2c3d4,
    PCAP_NANOSECONDS = 0xa1b23c4d,
    PCAPNG_SECTION = 0x0a0d0d0a,
    PCAPNG_ORDER = 0x1a2b3c4d,
    PCAPNG_PACKET = 2,
    PCAPNG_SIMPLE_PACKET = 3,
    PCAPNG_ENHANCED_PACKET = 6,
    FILES_MAX = 16, /* RTE_PMD_PCAP_MAX_QUEUES */
};

static const struct port_argument arguments[] = {
    {.key = "rx_pcap", .kind = PORT_ARGUMENT_FILE, .repeated = true},
    {.key = "tx_pcap", .kind = PORT_ARGUMENT_FILE, .repeated = true},
    {.key = "rx_iface", .kind = PORT_ARGUMENT_INTERFACE, .repeated = true},
    {.key = "rx_iface_in", .kind = PORT_ARGUMENT_INTERFACE, .repeated = true},
    {.key = "tx_iface", .kind = PORT_ARGUMENT_INTERFACE, .repeated = true},
    {.key = "iface", .kind = PORT_ARGUMENT_INTERFACE},
    {.key = "phy_mac", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "infinite_rx", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {0},
};

static uint32_t order(uint32_t value, bool swapped) {
    return swapped ? __builtin_bswap32(value) : value;
}

/* Frames in a capture file of either format; 0 if it cannot be read. A cut-off last record does not
 * count, as libpcap does not return it either. */
static uint32_t count_frames(const char *name) {
    uint32_t count = 0, header[6];
    FILE *file = fopen(name, "re");

    if (!file || fread(header, 4, 6, file) != 6 || fseek(file, 0, SEEK_END) != 0) {
        if (file) {
            fclose(file);
        }
        return 0;
    }
    long size = ftell(file);
    bool swapped = header[0] == __builtin_bswap32(PCAP_MICROSECONDS) ||
                   header[0] == __builtin_bswap32(PCAP_NANOSECONDS);
    uint32_t magic = order(header[0], swapped);
    bool classic = magic == PCAP_MICROSECONDS || magic == PCAP_NANOSECONDS;
    long at = classic ? 24 : 0;

    while (classic && fseek(file, at, SEEK_SET) == 0 && fread(header, 4, 4, file) == 4) {
        at += 16 + (long)order(header[2], swapped);
        if (at <= size) {
            count++;
        }
    }
    while (!classic && header[0] == PCAPNG_SECTION && at < size && fseek(file, at, SEEK_SET) == 0) {
        uint32_t block[3];
        if (fread(block, 4, 3, file) != 3) {
            break;
        }
        if (block[0] == PCAPNG_SECTION) {
            swapped = block[2] != PCAPNG_ORDER;
        }
        uint32_t type = order(block[0], swapped), length = order(block[1], swapped);
        if (length < 12 || at + (long)length > size) {
            break;
        }
        at += length;
        count +=
            type == PCAPNG_PACKET || type == PCAPNG_SIMPLE_PACKET || type == PCAPNG_ENHANCED_PACKET;
    }
    fclose(file);
    return count;
}

static uint32_t buffers(const struct port_request *request) {
    /* One burst of each worker is under way; a file is read on demand. */
    uint32_t count = 64u * (request->rx_queues + request->tx_queues);
    char value[PORT_DEVICE_TEXT];

    if (port_device_argument(request->device, "infinite_rx", 0, value, sizeof(value)) &&
        strcmp(value, "1") == 0) {
        for (unsigned i = 0;
             port_device_argument(request->device, "rx_pcap", i, value, sizeof(value)); i++) {
            count += count_frames(value);
        }
    }
    return count;
}

static int before_probe(const struct port_request *request, unsigned workers, char *device,
                        const char *path, struct problems *problems) {
    static const char *const interfaces[] = {"iface", "rx_iface", "rx_iface_in", "tx_iface"};
    size_t before = problems->count;
    char value[PORT_DEVICE_TEXT];
    unsigned sources = 0;

    (void)request;
    (void)workers;
    for (unsigned kind = 0; kind < 4; kind++) {
        for (unsigned i = 0;
             port_device_argument(device, interfaces[kind], i, value, sizeof(value)); i++) {
            linux_interface_check(value, path, problems);
            sources++;
        }
    }
    for (unsigned i = 0; port_device_argument(device, "rx_pcap", i, value, sizeof(value)); i++) {
        if (access(value, R_OK) != 0) {
            problems_add(problems, path, "the capture file `%s` cannot be read: %s", value,
                         strerror(errno));
        } else if (port_device_argument(device, "infinite_rx", 0, NULL, 0) &&
                   count_frames(value) == 0) {
            problems_add(problems, path, "the capture file `%s` holds no frames", value);
        }
        if (i == FILES_MAX) {
            problems_add(problems, path, "net_pcap takes at most %d files", FILES_MAX);
        }
        sources++;
    }
    if (sources == 0 && !port_device_argument(device, "tx_pcap", 0, NULL, 0)) {
        problems_add(problems, path, "net_pcap needs a file or interface to read or write: %s",
                     "rx_pcap=FILE, tx_pcap=FILE or iface=NAME");
    }
    return problems->count > before ? -EINVAL : 0;
}

static struct port_driver driver = {
    .name = "net_pcap",
    .alias = "eth_pcap",
    .devices = "net_pcap0,rx_pcap=FILE[,infinite_rx=1][,tx_pcap=FILE]",
    .arguments = arguments,
    .package = "librte-net-pcap23",
    .before_probe = before_probe,
    .mbufs = buffers,
    .mtu_max = PORT_MTU_MAX,
    .mtu_fixed = true,
    .mtu_live = true,
    .mac_free = true, /* libpcap opens interfaces in promiscuous mode */
    .promiscuous_none = true,
    .link_always_up = true,
    .queues_exact = true,
    .spreads_flows = true,
    .rx_chains = true,
    .tx_chains = true,
};
PORT_DRIVER(driver)
