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

/* Sets the least size of each node's first pool ("mbufs" in router.json); 0 = only what is needed.
 */
void mbuf_pool_set_minimum(uint32_t count);

/* Promises `count` buffers of one pool on the node (SOCKET_ID_ANY: node 0), and makes a pool if
 * none has so many left. 0 and *pool, or -ENOMEM with a logged reason. */
int mbuf_pool_reserve(int numa_node, uint32_t count, struct rte_mempool **pool);
/* Gives a promise back. */
void mbuf_pool_release(struct rte_mempool *pool, uint32_t count);

/* For packets that workers and the control thread make: the node's largest pool; for SOCKET_ID_ANY,
 * or a node without one, the largest of all; NULL if there is none. */
struct rte_mempool *mbuf_pool(int numa_node);

/* Buffers in all pools, and how many of them are out. */
void mbuf_pool_usage(uint32_t *total, uint32_t *in_use);

void mbuf_pools_free(void);
