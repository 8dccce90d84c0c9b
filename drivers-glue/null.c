/*
 * net_null: swallows what it is given and receives frames made of nothing, for measurements. The
 * frames it gives out are all zeroes ("no-rx=1": gives out none).
 */
#include "core/port.h"

static const struct port_argument arguments[] = {
    {.key = "size", .kind = PORT_ARGUMENT_NUMBER, .min = 1, .max = 2048},
    {.key = "copy", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {.key = "no-rx", .kind = PORT_ARGUMENT_NUMBER, .max = 1},
    {0},
};

static struct port_driver driver = {
    .name = "net_null",
    .alias = "eth_null",
    .devices = "net_null0[,size=64][,copy=0|1][,no-rx=0|1]",
    .arguments = arguments,
    .package = "librte-net-null23",
    .rx_descriptors = 32, /* it has no descriptors; this only counts buffers */
    .mtu_max = PORT_MTU_MAX,
    .mtu_fixed = true,
    .mtu_live = true,
    .mac_free = true,
    .promiscuous_none = true,
    .link_always_up = true,
    .spreads_flows = true, /* every queue gives out frames */
    .rx_chains = true,     /* its frames always fit, whatever the MTU */
    .tx_chains = true,     /* rte_pktmbuf_free() on what it is given */
};
PORT_DRIVER(driver)
