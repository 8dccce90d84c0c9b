/*
 * Finds an element of a list by what it says, so that looking for each of n elements among n others
 * does not take n * n steps. A hash table of places in a list that does not change meanwhile; what
 * is looked for is compared by the caller. Control thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct place_slot;

struct place_index {
    struct place_slot *slots;
    size_t mask;
};

enum { PLACE_NONE = UINT32_MAX };

/* For up to `most` places. Ends the program when memory is out, as all of the configuration does.
 */
void place_index_make(struct place_index *index, size_t most);
void place_index_free(struct place_index *index);

/* Goes on from `hash`, 0 at first. */
uint64_t place_hash(uint64_t hash, const void *bytes, size_t size);

/* Is the element at `place` of the list the wanted one? */
typedef bool (*place_is_fn)(const void *list, uint32_t place, const void *wanted);

/* The place of the wanted element among those that were added, or PLACE_NONE. */
uint32_t place_index_find(const struct place_index *index, uint64_t hash, place_is_fn is,
                          const void *list, const void *wanted);
void place_index_add(struct place_index *index, uint64_t hash, uint32_t place);
