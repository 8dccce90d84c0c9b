/*
 * Objects of one size that the data path reads at random: side by side on huge pages, since with
 * thousands of them a miss in the TLB costs as much as one in the cache. What is given back is used
 * again, never returned to Linux. Control thread only.
 */
#pragma once

#include <stddef.h>

struct slab {
    size_t size; /* of an object: a multiple of the cache line */
    void *free;  /* managed by the functions */
};

/* A zeroed object, aligned to the cache line. NULL when memory is out. */
void *slab_take(struct slab *slab);
/* NULL is allowed. */
void slab_give(struct slab *slab, void *object);
