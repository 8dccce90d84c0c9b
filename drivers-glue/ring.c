/*
 * net_ring: what is sent on queue N comes back on queue N, through an rte_ring. For tests: a router
 * that talks to itself, or rings that a test made (rte_eth_from_rings()).
 */
#include "core/port.h"

static const struct port_argument arguments[] = {
    {.key = "nodeaction", .kind = PORT_ARGUMENT_TEXT, .repeated = true},
    {0},
};

static struct port_driver driver = {
    .name = "net_ring",
    .alias = "eth_ring",
    .devices = "net_ring0[,nodeaction=NAME:NODE:CREATE|ATTACH]",
    .arguments = arguments,
    .package = "librte-net-ring23",
    .mtu_max = PORT_MTU_MAX,
    .mtu_fixed = true,
    .mtu_live = true,
    .mac_free = true,
    .promiscuous_none = true,
    .link_always_up = true,
    .queues_paired = true, /* a transmit queue without its receive queue would fill up */
    .spreads_flows = true,
    .rx_chains = true, /* it passes mbufs on as they are */
    .tx_chains = true,
};
PORT_DRIVER(driver)
