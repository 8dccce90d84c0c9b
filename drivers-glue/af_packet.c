/*
 * net_af_packet: a Linux interface through packet sockets with a mapped ring. Works with every
 * Ethernet interface and needs nothing installed, at about 1 Mpps.
 *
 * A mapped ring is made of frames of one size, without gaps only if that size is a power of two
 * (the driver assumes no gaps), and the driver wants a frame's space to fit one buffer. So it is
 * 2048 bytes, of which the kernel takes 66 in front: what is longer than 1982 bytes is cut off.
 *
 * The Linux stack sees the same frames. It is kept from answering ARP and from forwarding, but
 * should have no addresses that the router has.
 *
 * The driver (22.11) lets the kernel reassemble IPv4 fragments before it sees them
 * (PACKET_FANOUT_FLAG_DEFRAG); what then is longer than 1982 bytes is cut off too.
 */
#include "core/port.h"
#include "linux_interface.h"

enum {
    FRAME_SIZE = 2048,
    FRAME_HEADER = 66, /* struct tpacket2_hdr, struct sockaddr_ll, alignment (packet_mmap) */
    MTU_MAX = FRAME_SIZE - FRAME_HEADER - RTE_ETHER_HDR_LEN - 4,
    FRAMES_DEFAULT = 1024,
    FRAMES_PER_BLOCK = 2,
};

static const struct port_argument arguments[] = {
    {.key = "iface", .kind = PORT_ARGUMENT_INTERFACE, .required = true},
    {.key = "qpairs", .kind = PORT_ARGUMENT_NUMBER, .min = 1, .max = PORT_QUEUES_MAX},
    {.key = "blocksz", .kind = PORT_ARGUMENT_NUMBER, .min = 4096, .max = 1 << 26},
    {.key = "framesz", .kind = PORT_ARGUMENT_NUMBER, .min = 1024, .max = FRAME_SIZE},
    {.key = "framecnt", .kind = PORT_ARGUMENT_NUMBER, .min = 2, .max = 1 << 20},
    {.key = "qdisc_bypass", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {0},
};

static int before_probe(const struct port_request *request, unsigned workers, char *device,
                        const char *path, struct problems *problems) {
    unsigned long frames = RTE_MAX(request->rx_descriptors, request->tx_descriptors);

    frames = RTE_ALIGN_CEIL(frames ? frames : FRAMES_DEFAULT, FRAMES_PER_BLOCK);
    int error = port_device_complete_queues(request, workers, device, "qpairs", path, problems);
    if (error == 0) {
        error = port_device_complete(device, "framecnt", frames, path, problems);
    }
    if (error == 0) {
        error = port_device_complete(device, "framesz", FRAME_SIZE, path, problems);
    }
    return error ? error : linux_interface_borrow(device, false, path, problems);
}

static uint32_t buffers(const struct port_request *request) {
    /* Frames wait in the kernel's ring; buffers are taken when they are read. */
    return 64u * (request->rx_queues + request->tx_queues);
}

static struct port_driver driver = {
    .name = "net_af_packet",
    .alias = "eth_af_packet",
    .devices = "net_af_packet0,iface=eth1[,qpairs=N][,framecnt=1024]",
    .arguments = arguments,
    .package = "librte-net-af-packet23",
    .before_probe = before_probe,
    .after_close = linux_interface_return,
    .set_mtu = linux_interface_set_mtu,
    .set_mac = linux_interface_set_mac,
    .set_promiscuous = linux_interface_set_promiscuous,
    .link = linux_interface_link,
    .mbufs = buffers,
    .mtu_max = MTU_MAX,
    .mtu_live = true,
    .vlans_promiscuous = true, /* a NIC's VLAN filter knows only Linux' own VLAN interfaces */
    .queues_exact = true,
    .queues_paired = true,
    .spreads_flows = true, /* PACKET_FANOUT_HASH */
    .rx_chains = true,     /* a frame always fits: see above */
};
PORT_DRIVER(driver)
