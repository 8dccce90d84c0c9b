/*
 * NUMA placement through libnuma. A machine without NUMA is one node, and everything here then is
 * plain memory.
 */
#pragma once

#include <stddef.h>

/* The node of a CPU; -1 when unknown. */
int numa_node_of_cpu_id(int cpu);

/* Number of nodes, at least 1. */
int numa_node_count(void);

/* Zeroed, page-aligned memory on the node (-1: anywhere), resident from the start. NULL when memory
 * is out. numa_node_free() takes the same size. */
void *numa_node_alloc(size_t size, int node);
void numa_node_free(void *memory, size_t size);
