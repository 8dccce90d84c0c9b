/* Open addressing with linear probing; at most half of the slots are taken. */
#include "ipsec/place_index.h"

#include <stdlib.h>

struct place_slot {
    uint32_t hash;
    uint32_t next; /* the place plus one; 0 = free */
};

void place_index_make(struct place_index *index, size_t most) {
    size_t size = 16;

    while (size < 2 * most)
        size *= 2;
    index->mask = size - 1;
    index->slots = calloc(size, sizeof(*index->slots));
    if (!index->slots)
        abort();
}

void place_index_free(struct place_index *index) {
    free(index->slots);
    *index = (struct place_index){0};
}

/* FNV-1a, with its upper half folded in, since the lower bits choose the slot. */
uint64_t place_hash(uint64_t hash, const void *bytes, size_t size) {
    const uint8_t *at = bytes;

    hash ^= UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 32;
}

uint32_t place_index_find(const struct place_index *index, uint64_t hash, place_is_fn is,
                          const void *list, const void *wanted) {
    for (size_t at = hash & index->mask; index->slots[at].next != 0; at = (at + 1) & index->mask) {
        const struct place_slot *slot = &index->slots[at];

        if (slot->hash == (uint32_t)hash && is(list, slot->next - 1, wanted))
            return slot->next - 1;
    }
    return PLACE_NONE;
}

void place_index_add(struct place_index *index, uint64_t hash, uint32_t place) {
    size_t at = hash & index->mask;

    while (index->slots[at].next != 0)
        at = (at + 1) & index->mask;
    index->slots[at] = (struct place_slot){(uint32_t)hash, place + 1};
}
