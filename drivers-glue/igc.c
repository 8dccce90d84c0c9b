/*
 * net_igc: Intel I225 and I226. Four queues, RSS with a key of our choice, IPv4 checksums, frames
 * spread over buffers, no flow rules that a router could use.
 */
#include "core/port.h"

static struct port_driver driver = {
    .name = "net_igc",
    .devices = "0000:03:00.0",
    .package = "librte-net-igc23",
};
PORT_DRIVER(driver)
