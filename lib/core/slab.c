/* Free objects are linked through their first bytes. */
#include "core/slab.h"

#include <string.h>

#include "core/huge_memory.h"

enum { PIECE = 2 << 20 }; /* a huge page */

void slab_give(struct slab *slab, void *object) {
    if (!object)
        return;
    memcpy(object, &slab->free, sizeof(slab->free));
    slab->free = object;
}

void *slab_take(struct slab *slab) {
    void *object = slab->free;

    if (!object) {
        char *piece = slab->size <= PIECE ? huge_memory_map(PIECE) : NULL;

        if (!piece)
            return NULL;
        for (size_t at = 0; at + slab->size <= PIECE; at += slab->size)
            slab_give(slab, piece + at);
        object = slab->free;
    }
    memcpy(&slab->free, object, sizeof(slab->free));
    memset(object, 0, slab->size);
    return object;
}
