/*
 * Packet buffers: one pool per NUMA node that has ports, sized from what the ports need. When ports
 * are added while the router runs and need more than is left, a further pool is made.
 *
 * Control thread only, except that workers allocate from a pool they were given.
 */
#pragma once

#include <rte_mempool.h>
#include <stdint.h>

enum { MBUF_DATA_ROOM = 2048 + RTE_PKTMBUF_HEADROOM };

/* Sets the least size of each node's first pool ("mbufs" in router.json); 0 = only what is needed. */
void mbuf_pool_set_minimum(uint32_t count);

/* Promises `count` more buffers on the node (SOCKET_ID_ANY: node 0): makes a pool if those that exist
 * were promised already. 0 or -ENOMEM, then with a logged reason. */
int mbuf_pool_reserve(int numa_node, uint32_t count);
/* Gives a promise back. */
void mbuf_pool_release(int numa_node, uint32_t count);

/* The node's newest pool; for SOCKET_ID_ANY, or a node without one, any pool; NULL if there is none. */
struct rte_mempool *mbuf_pool(int numa_node);

/* Buffers in all pools, and how many of them are out. */
void mbuf_pool_usage(uint32_t *total, uint32_t *in_use);

void mbuf_pools_free(void);
