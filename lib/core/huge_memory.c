/* Memory on hugepages. */
#include "core/huge_memory.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26)
#endif

#define HUGEPAGE ((size_t)2 << 20)

static size_t round_up(size_t size) {
    return (size + HUGEPAGE - 1) / HUGEPAGE * HUGEPAGE;
}

/* Aligned by hand: kernels before 6.7 do not do so for transparent hugepages. */
static void *map_aligned(size_t size) {
    uint8_t *raw =
        mmap(NULL, size + HUGEPAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *base;

    if (raw == MAP_FAILED)
        return NULL;
    base = (uint8_t *)round_up((size_t)raw);
    if (base != raw)
        munmap(raw, (size_t)(base - raw));
    munmap(base + size, (size_t)(raw + HUGEPAGE - base));
    madvise(base, size, MADV_HUGEPAGE); /* only a wish */
    memset(base, 0, size);              /* a worker must not take page faults */
    return base;
}

void *huge_memory_map(size_t size) {
    void *memory;

    size = round_up(size);
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB | MAP_POPULATE, -1, 0);
    return memory != MAP_FAILED ? memory : map_aligned(size);
}

void huge_memory_unmap(void *memory, size_t size) {
    if (memory)
        munmap(memory, round_up(size));
}
