/* Packet buffer pools. */
#include "core/mbuf_pool.h"

#include <errno.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <stdbool.h>
#include <stdio.h>

#include "core/log.h"

enum {
    POOLS_MAX = 64,
    CACHE_SIZE = 512, /* per lcore: eight bursts, so that rx and tx of a worker stay in its cache */
};

struct pool {
    struct rte_mempool *pool;
    unsigned node;
    uint32_t capacity; /* without what sits in the caches of lcores, which nobody else can have */
    uint32_t promised;
};

static struct pool pools[POOLS_MAX];
static unsigned pool_count;
static uint32_t minimum;

void mbuf_pool_set_minimum(uint32_t count) {
    minimum = count;
}

static unsigned node_index(int numa_node) {
    return numa_node < 0 || numa_node >= RTE_MAX_NUMA_NODES ? 0 : (unsigned)numa_node;
}

/* Makes the node a pool that `count` buffers can be taken from; the first one has at least the
 * configured size. NULL with a logged reason. */
static struct pool *pool_create(unsigned node, int numa_node, uint32_t count) {
    uint32_t cached = rte_lcore_count() * (CACHE_SIZE * 3 / 2), size = count + cached;
    char name[RTE_MEMPOOL_NAMESIZE];
    bool first = true;

    for (unsigned i = 0; i < pool_count; i++)
        first = first && pools[i].node != node;
    if (first && size < minimum)
        size = minimum;
    if (pool_count == POOLS_MAX) {
        log_error("core", "packet buffer pools have been added %u times; restart to have one",
                  POOLS_MAX);
        return NULL;
    }
    snprintf(name, sizeof(name), "mbufs-%u-%u", node, pool_count);

    unsigned mib = (unsigned)((uint64_t)size * (MBUF_DATA_ROOM + sizeof(struct rte_mbuf)) >> 20);
    struct rte_mempool *pool = rte_pktmbuf_pool_create(name, size, CACHE_SIZE, 0, MBUF_DATA_ROOM,
                                                       numa_node < 0 ? SOCKET_ID_ANY : numa_node);

    if (!pool) {
        log_error(
            "core",
            "no memory for %u packet buffers (%u MiB) on NUMA node %u: %s; more hugepages or a "
            "smaller \"mbufs\" or fewer descriptors would help",
            size, mib, node, rte_strerror(rte_errno));
        return NULL;
    }
    log_info("core", "%u packet buffers (%u MiB) on NUMA node %u", size, mib, node);
    pools[pool_count] = (struct pool){.pool = pool, .node = node, .capacity = size - cached};
    return &pools[pool_count++];
}

int mbuf_pool_reserve(int numa_node, uint32_t count, struct rte_mempool **pool) {
    unsigned node = node_index(numa_node);
    struct pool *found = NULL;

    for (unsigned i = 0; i < pool_count && !found; i++) {
        if (pools[i].node == node && pools[i].capacity - pools[i].promised >= count)
            found = &pools[i];
    }
    if (!found)
        found = pool_create(node, numa_node, count);
    if (!found)
        return -ENOMEM;
    found->promised += count;
    *pool = found->pool;
    return 0;
}

void mbuf_pool_release(struct rte_mempool *pool, uint32_t count) {
    for (unsigned i = 0; i < pool_count; i++) {
        if (pools[i].pool == pool)
            pools[i].promised -= count;
    }
}

struct rte_mempool *mbuf_pool(int numa_node) {
    const struct pool *best = NULL;
    bool of_node = false;

    for (unsigned i = 0; i < pool_count; i++) {
        bool here = numa_node >= 0 && pools[i].node == (unsigned)numa_node;

        if (!best || (here && !of_node) ||
            (here == of_node && pools[i].capacity > best->capacity)) {
            best = &pools[i];
            of_node = here;
        }
    }
    return best ? best->pool : NULL;
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
}
