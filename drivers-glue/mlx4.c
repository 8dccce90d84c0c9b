/*
 * net_mlx4: ConnectX-3. The kernel's mlx4_en keeps the device and DPDK steers frames away from it,
 * so nothing is bound, but the kernel modules mlx4_en, mlx4_ib and ib_uverbs and the package
 * ibverbs-providers must be there. Both ports of a card are one PCI device: "0000:04:00.0,port=1"
 * is the second.
 *
 * The driver steers by MAC address and hashes with a key of its own, over a power of two of queues;
 * there are no other flow rules worth having.
 */
#include <rte_common.h>

#include "core/port.h"

static void configure(const struct port_request *request, const struct rte_eth_dev_info *info,
                      struct rte_eth_conf *conf, uint16_t *rx_queues, uint16_t *tx_queues) {
    (void)request;
    (void)info;
    (void)tx_queues;
    /* Queues beyond the last power of two would never receive anything. */
    *rx_queues = (uint16_t)rte_align32prevpow2(*rx_queues);
    if (*rx_queues < 2) {
        conf->rxmode.mq_mode = RTE_ETH_MQ_RX_NONE;
    }
    /* Both directions of a flow may reach different workers: the key is fixed in the driver. */
    conf->rx_adv_conf.rss_conf.rss_key = NULL;
    conf->rx_adv_conf.rss_conf.rss_key_len = 0;
}

static struct port_driver driver = {
    .name = "net_mlx4",
    .devices = "0000:04:00.0[,port=1]",
    .package = "librte-net-mlx4-23",
    .configure = configure,
    .vlans_promiscuous = true, /* a rule for the MAC address matches untagged frames only */
};
PORT_DRIVER(driver)
