/*
 * Large tables that the data path reads at random: on hugepages, since a miss in the TLB costs as
 * much as one in the cache.
 */
#pragma once

#include <stddef.h>

/* Zeroed memory, resident from the start: hugetlb pages of 2 MiB if the system has enough of them
 * free, else ordinary memory, aligned for transparent hugepages. NULL when memory is out. */
void *huge_memory_map(size_t size);
/* Takes the same size; NULL is allowed. */
void huge_memory_unmap(void *memory, size_t size);
