/* The blocks of counters, one per thread. */
#include "core/counters.h"

#include <rte_lcore.h>
#include <stdlib.h>
#include <string.h>

#include "core/numa_node.h"

static struct counters *blocks[RTE_MAX_LCORE + 1];
static unsigned block_count;

struct counters *counters_create(int numa_node) {
    if (block_count == RTE_DIM(blocks))
        return NULL;

    struct counters *block = numa_node_alloc(sizeof(*block), numa_node);

    if (block)
        blocks[block_count++] = block;
    return block;
}

void counters_each(void (*visit)(const struct counters *counters, void *context), void *context) {
    for (unsigned i = 0; i < block_count; i++)
        visit(blocks[i], context);
}

void counters_sum(struct counters *sum) {
    for (unsigned i = 0; i < block_count; i++) {
        const uint64_t *from = (const uint64_t *)blocks[i];
        uint64_t *to = (uint64_t *)sum;

        for (size_t word = 0; word < sizeof(*sum) / sizeof(*to); word++)
            to[word] += __atomic_load_n(&from[word], __ATOMIC_RELAXED);
    }
}
