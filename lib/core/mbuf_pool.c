/* Packet buffer pools. */
#include "core/mbuf_pool.h"

#include <errno.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <stdio.h>

#include "core/log.h"

enum {
    POOLS_MAX = 64,
    CACHE_SIZE = 512, /* per lcore: eight bursts, so that rx and tx of a worker stay in its cache */
};

static struct {
    struct rte_mempool *pool;
    int numa_node;
} pools[POOLS_MAX];
static unsigned pool_count;
static uint32_t minimum;
static uint32_t promised[RTE_MAX_NUMA_NODES], existing[RTE_MAX_NUMA_NODES];

void mbuf_pool_set_minimum(uint32_t count) { minimum = count; }

static unsigned node_index(int numa_node) {
    return numa_node < 0 || numa_node >= RTE_MAX_NUMA_NODES ? 0 : (unsigned)numa_node;
}

int mbuf_pool_reserve(int numa_node, uint32_t count) {
    unsigned node = node_index(numa_node);

    if (promised[node] + count <= existing[node]) {
        promised[node] += count;
        return 0;
    }
    if (pool_count == POOLS_MAX)
        return -ENOMEM;

    /* What sits in the caches of lcores cannot be had by anybody else. */
    uint32_t size = count + rte_lcore_count() * (CACHE_SIZE * 3 / 2);
    char name[RTE_MEMPOOL_NAMESIZE];

    if (existing[node] == 0 && size < minimum)
        size = minimum;
    snprintf(name, sizeof(name), "mbufs-%u-%u", node, pool_count);

    struct rte_mempool *pool = rte_pktmbuf_pool_create(
        name, size, CACHE_SIZE, 0, MBUF_DATA_ROOM, numa_node < 0 ? SOCKET_ID_ANY : numa_node);

    if (!pool) {
        log_error("core",
                  "no memory for %u packet buffers (%u MiB) on NUMA node %u: %s; more hugepages or a "
                  "smaller \"mbufs\" or fewer descriptors would help",
                  size, (unsigned)((uint64_t)size * (MBUF_DATA_ROOM + 128) >> 20), node,
                  rte_strerror(rte_errno));
        return -ENOMEM;
    }
    log_info("core", "%u packet buffers (%u MiB) on NUMA node %u", size,
             (unsigned)((uint64_t)size * (MBUF_DATA_ROOM + 128) >> 20), node);
    pools[pool_count].pool = pool;
    pools[pool_count++].numa_node = (int)node;
    existing[node] += size;
    promised[node] += count;
    return 0;
}

void mbuf_pool_release(int numa_node, uint32_t count) { promised[node_index(numa_node)] -= count; }

struct rte_mempool *mbuf_pool(int numa_node) {
    for (unsigned i = pool_count; i > 0; i--) {
        if (numa_node < 0 || pools[i - 1].numa_node == numa_node)
            return pools[i - 1].pool;
    }
    return pool_count > 0 ? pools[pool_count - 1].pool : NULL;
}

void mbuf_pool_usage(uint32_t *total, uint32_t *in_use) {
    *total = *in_use = 0;
    for (unsigned i = 0; i < pool_count; i++) {
        *total += pools[i].pool->size;
        *in_use += rte_mempool_in_use_count(pools[i].pool);
    }
}

void mbuf_pools_free(void) {
    while (pool_count > 0)
        rte_mempool_free(pools[--pool_count].pool);
    for (unsigned node = 0; node < RTE_MAX_NUMA_NODES; node++)
        promised[node] = existing[node] = 0;
}
