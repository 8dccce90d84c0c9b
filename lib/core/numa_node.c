/* NUMA placement through libnuma. */
#include "core/numa_node.h"

#include <numa.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int numa_node_of_cpu_id(int cpu) { return numa_available() < 0 ? -1 : numa_node_of_cpu(cpu); }

int numa_node_count(void) { return numa_available() < 0 ? 1 : numa_max_node() + 1; }

void *numa_node_alloc(size_t size, int node) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return NULL;
    if (node >= 0 && numa_available() >= 0 && numa_max_node() > 0)
        numa_tonode_memory(memory, size, node);
    madvise(memory, size, MADV_HUGEPAGE);
    memset(memory, 0, size); /* a worker must not take page faults */
    return memory;
}

void numa_node_free(void *memory, size_t size) {
    if (memory)
        munmap(memory, size);
}
