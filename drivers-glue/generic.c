/*
 * Any device that DPDK drives and no other file here knows: what ethdev says about it is believed.
 */
#include "core/port.h"

static struct port_driver driver = {
    .name = "generic",
};
PORT_DRIVER(driver)
