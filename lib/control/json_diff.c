/*
 * Comparing JSON documents.
 *
 * Arrays: elements are given structural hashes; equal ones at both ends are set aside; among the
 * rest, elements that occur exactly once on each side and in the same order (the longest increasing
 * subsequence, as in patience sorting) are the anchors, and the stretches between anchors are
 * compared in the same way. So the cost is O(n log n), for a million routes too.
 *
 * What can go wrong: memory; the whole comparison is then given up. Recursion is bounded by the
 * depth of the documents (JSON_SCAN_MAX_DEPTH) and by STRETCH_LEVELS.
 */
#include "control/json_diff.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/secrets.h"
#include "json/decode.h"

/* How often a stretch is divided further: each level can find anchors that only become unique
 * within their stretch, but few documents have any after the second. */
enum { STRETCH_LEVELS = 8 };

struct diff {
    json_t *changes;
    bool failed;
};

static void compare(struct diff *diff, const struct decode *old, const struct decode *new);

static void report(struct diff *diff, const char *action, const struct decode *old,
                   const struct decode *new) {
    char *path = decode_path(new ? new : old);
    json_t *change = json_object();
    int rc = json_object_set_new(change, "path", json_string(path));
    rc |= json_object_set_new(change, "action", json_string(action));
    if (old) {
        rc |= json_object_set_new(change, "old", secrets_masked(old->key, old->value));
    }
    if (new) {
        rc |= json_object_set_new(change, "new", secrets_masked(new->key, new->value));
    }
    rc |= json_array_append_new(diff->changes, change);
    diff->failed |= rc != 0;
    free(path);
}

/* ---- hashes ---- */

static uint64_t mix(uint64_t hash) {
    hash ^= hash >> 32;
    hash *= UINT64_C(0xd6e8feb86659fd93);
    hash ^= hash >> 32;
    hash *= UINT64_C(0xd6e8feb86659fd93);
    return hash ^ hash >> 32;
}

static uint64_t hash_text(const char *text, size_t length) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    }
    return mix(hash);
}

/* Equal values have equal hashes; the order of an object's members does not count. */
static uint64_t hash_value(const json_t *value) {
    uint64_t hash = mix((uint64_t)json_typeof(value) + 1);
    switch (json_typeof(value)) {
    case JSON_OBJECT: {
        const char *key;
        json_t *member;
        json_object_foreach ((json_t *)(uintptr_t)value, key, member) {
            hash += mix(hash_text(key, strlen(key)) ^ (hash_value(member) << 1 | 1));
        }
        return mix(hash);
    }
    case JSON_ARRAY: {
        size_t i;
        json_t *element;
        json_array_foreach (value, i, element) {
            hash = mix(hash ^ hash_value(element)) + i;
        }
        return mix(hash);
    }
    case JSON_STRING:
        return hash ^ hash_text(json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
        return mix(hash ^ (uint64_t)json_integer_value(value));
    case JSON_REAL: {
        double number = json_real_value(value);
        uint64_t bits = 0;
        if (number != 0) { /* 0.0 and -0.0 are equal */
            memcpy(&bits, &number, sizeof(bits));
        }
        return mix(hash ^ bits);
    }
    default:
        return hash;
    }
}

/* ---- arrays ---- */

/* One side of a comparison of arrays. */
struct side {
    const struct decode *array;
    const uint64_t *hashes; /* of all its elements */
};

static const json_t *element(const struct side *side, size_t i) {
    return json_array_get(side->array->value, i);
}

static bool same(const struct side *a, size_t i, const struct side *b, size_t j) {
    return a->hashes[i] == b->hashes[j] && json_equal(element(a, i), element(b, j));
}

/* An element's hash and place, to be sorted by hash. */
struct tagged {
    uint64_t hash;
    size_t index;
    bool in_new;
};

struct match {
    size_t old;
    size_t new;
};

static int compare_tagged(const void *a, const void *b) {
    const struct tagged *left = a;
    const struct tagged *right = b;
    if (left->hash != right->hash) {
        return left->hash < right->hash ? -1 : 1;
    }
    return (int)left->in_new - (int)right->in_new;
}

static int compare_matches(const void *a, const void *b) {
    const struct match *left = a;
    const struct match *right = b;
    return left->old < right->old ? -1 : left->old > right->old;
}

/* Keeps of `matches` (sorted by old) the longest subsequence that is also increasing in new;
 * returns its length. `piles` and `previous` are of the same size, for its use. */
static size_t increasing(struct match *matches, size_t count, size_t *piles, size_t *previous) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        size_t low = 0;
        size_t high = length;
        while (low < high) { /* the first pile whose top is not below this one */
            size_t middle = (low + high) / 2;
            if (matches[piles[middle]].new < matches[i].new) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        previous[i] = low > 0 ? piles[low - 1] : SIZE_MAX;
        piles[low] = i;
        if (low == length) {
            length++;
        }
    }
    size_t at = length > 0 ? piles[length - 1] : SIZE_MAX;
    for (size_t i = length; i > 0; i--) {
        piles[i - 1] = at;
        at = previous[at];
    }
    for (size_t i = 0; i < length; i++) {
        matches[i] = matches[piles[i]]; /* piles[i] >= i: nothing is overwritten too early */
    }
    return length;
}

/* The anchors of a stretch, in order: a new array of *count matches; NULL when there are none, or
 * when memory is short (diff->failed). */
static struct match *find_anchors(struct diff *diff, const struct side *old, size_t old_from,
                                  size_t old_to, const struct side *new, size_t new_from,
                                  size_t new_to, size_t *count) {
    size_t total = old_to - old_from + new_to - new_from;
    struct tagged *all = calloc(total, sizeof(*all));
    struct match *matches = calloc(total, sizeof(*matches));
    size_t *piles = calloc(total, sizeof(*piles));
    size_t *previous = calloc(total, sizeof(*previous));
    size_t found = 0;
    if (!all || !matches || !piles || !previous) {
        diff->failed = true;
    } else {
        size_t n = 0;
        for (size_t i = old_from; i < old_to; i++) {
            all[n++] = (struct tagged){.hash = old->hashes[i], .index = i};
        }
        for (size_t i = new_from; i < new_to; i++) {
            all[n++] = (struct tagged){.hash = new->hashes[i], .index = i, .in_new = true};
        }
        qsort(all, total, sizeof(*all), compare_tagged);
        for (size_t i = 0; i < total;) {
            size_t run = 1;
            while (i + run < total && all[i + run].hash == all[i].hash) {
                run++;
            }
            if (run == 2 && !all[i].in_new && all[i + 1].in_new &&
                same(old, all[i].index, new, all[i + 1].index)) {
                matches[found++] = (struct match){.old = all[i].index, .new = all[i + 1].index};
            }
            i += run;
        }
        qsort(matches, found, sizeof(*matches), compare_matches);
        found = increasing(matches, found, piles, previous);
    }
    free(all);
    free(piles);
    free(previous);
    if (found == 0) {
        free(matches);
        matches = NULL;
    }
    *count = found;
    return matches;
}

/* Do two objects have a member in common, so that they may be one element before and after? */
static bool related(const json_t *old, const json_t *new) {
    if (!json_is_object(old) || !json_is_object(new)) {
        return false;
    }
    const char *key;
    json_t *member;
    json_object_foreach ((json_t *)(uintptr_t)old, key, member) {
        const json_t *other = json_object_get(new, key);
        if (other && json_equal(member, other)) {
            return true;
        }
    }
    return false;
}

/* A stretch without equal elements. */
static void compare_in_order(struct diff *diff, const struct side *old, size_t old_from,
                             size_t old_to, const struct side *new, size_t new_from,
                             size_t new_to) {
    while (old_from < old_to || new_from < new_to) {
        struct decode before;
        struct decode after;
        if (old_from < old_to) {
            before = decode_element(old->array, old_from);
        }
        if (new_from < new_to) {
            after = decode_element(new->array, new_from);
        }
        if (old_from < old_to && new_from < new_to) {
            if (related(before.value, after.value)) {
                compare(diff, &before, &after);
            } else {
                report(diff, "change", &before, &after);
            }
            old_from++;
            new_from++;
        } else if (old_from < old_to) {
            report(diff, "remove", &before, NULL);
            old_from++;
        } else {
            report(diff, "add", NULL, &after);
            new_from++;
        }
    }
}

static void compare_stretch(struct diff *diff, const struct side *old, size_t old_from,
                            size_t old_to, const struct side *new, size_t new_from, size_t new_to,
                            unsigned levels) {
    while (old_from < old_to && new_from < new_to && same(old, old_from, new, new_from)) {
        old_from++;
        new_from++;
    }
    while (old_from < old_to && new_from < new_to && same(old, old_to - 1, new, new_to - 1)) {
        old_to--;
        new_to--;
    }
    size_t count = 0;
    struct match *anchors = NULL;
    if (levels > 0 && old_from < old_to && new_from < new_to) {
        anchors = find_anchors(diff, old, old_from, old_to, new, new_from, new_to, &count);
    }
    if (diff->failed) {
        return;
    }
    if (!anchors) {
        compare_in_order(diff, old, old_from, old_to, new, new_from, new_to);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        compare_stretch(diff, old, old_from, anchors[i].old, new, new_from, anchors[i].new,
                        levels - 1);
        old_from = anchors[i].old + 1;
        new_from = anchors[i].new + 1;
    }
    compare_stretch(diff, old, old_from, old_to, new, new_from, new_to, levels - 1);
    free(anchors);
}

/* The hashes of all elements, in memory that is never NULL unless it is short. */
static uint64_t *hash_elements(const struct decode *array) {
    size_t count = json_array_size(array->value);
    uint64_t *hashes = calloc(count + 1, sizeof(*hashes));
    for (size_t i = 0; hashes && i < count; i++) {
        hashes[i] = hash_value(json_array_get(array->value, i));
    }
    return hashes;
}

static void compare_arrays(struct diff *diff, const struct decode *old, const struct decode *new) {
    uint64_t *old_hashes = hash_elements(old);
    uint64_t *new_hashes = hash_elements(new);
    if (old_hashes && new_hashes) {
        struct side before = {.array = old, .hashes = old_hashes};
        struct side after = {.array = new, .hashes = new_hashes};
        compare_stretch(diff, &before, 0, json_array_size(old->value), &after, 0,
                        json_array_size(new->value), STRETCH_LEVELS);
    } else {
        diff->failed = true;
    }
    free(old_hashes);
    free(new_hashes);
}

/* ---- values ---- */

static void compare_objects(struct diff *diff, const struct decode *old, const struct decode *new) {
    struct decode before;
    struct decode after;
    decode_foreach_member (old, before) {
        if (decode_member(new, before.key, &after)) {
            compare(diff, &before, &after);
        } else {
            report(diff, "remove", &before, NULL);
        }
    }
    decode_foreach_member (new, after) {
        if (!decode_member(old, after.key, &before)) {
            report(diff, "add", NULL, &after);
        }
    }
}

static void compare(struct diff *diff, const struct decode *old, const struct decode *new) {
    if (diff->failed) {
        return;
    }
    if (json_is_object(old->value) && json_is_object(new->value)) {
        compare_objects(diff, old, new);
    } else if (json_is_array(old->value) && json_is_array(new->value)) {
        compare_arrays(diff, old, new);
    } else if (!json_equal(old->value, new->value)) {
        report(diff, "change", old, new);
    }
}

json_t *json_diff(const json_t *old, const json_t *new) {
    struct diff diff = {.changes = json_array()};
    if (!diff.changes) {
        return NULL;
    }
    struct decode before = decode_root(old, NULL);
    struct decode after = decode_root(new, NULL);
    compare(&diff, &before, &after);
    if (diff.failed) {
        json_decref(diff.changes);
        return NULL;
    }
    return diff.changes;
}
