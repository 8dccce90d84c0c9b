/*
 * Finding and masking secrets. Nothing can go wrong here but memory: masking then yields nothing at
 * all rather than a secret.
 */
#include "control/secrets.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "json/decode.h"

/* How much of a secret a message may repeat by chance. */
enum { SECRET_SHORTEST = 4, SECRET_ENOUGH = 8 };

bool secret_is(const char *name, const json_t *value) {
    static const char *const names[] = {"key", "authentication_key", "psk", "secret",
                                        "password"};
    if (!name || !json_is_string(value)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Fills an empty copy; false when memory is short. */
static bool mask_members(const json_t *value, json_t *copy) {
    if (json_is_object(value)) {
        const char *name;
        json_t *member;
        json_object_foreach ((json_t *)(uintptr_t)value, name, member) {
            if (json_object_set_new_nocheck(copy, name, secrets_masked(name, member)) != 0) {
                return false;
            }
        }
        return true;
    }
    size_t i;
    json_t *element;
    json_array_foreach (value, i, element) {
        if (json_array_append_new(copy, secrets_masked(NULL, element)) != 0) {
            return false;
        }
    }
    return true;
}

json_t *secrets_masked(const char *name, const json_t *value) {
    if (secret_is(name, value)) {
        return json_string(SECRET_MASK);
    }
    if (!json_is_object(value) && !json_is_array(value)) {
        return json_incref((json_t *)(uintptr_t)value);
    }
    json_t *copy = json_is_object(value) ? json_object() : json_array();
    if (copy && !mask_members(value, copy)) {
        json_decref(copy);
        copy = NULL;
    }
    return copy;
}

/* ---- walking over all secrets of a document ---- */

typedef void (*secret_visitor)(const struct decode *secret, void *context);

static void visit(const struct decode *d, secret_visitor visitor, void *context) {
    if (secret_is(d->key, d->value)) {
        visitor(d, context);
    } else if (json_is_object(d->value)) {
        struct decode child;
        decode_foreach_member (d, child) {
            visit(&child, visitor, context);
        }
    } else if (json_is_array(d->value)) {
        for (size_t i = 0; i < json_array_size(d->value); i++) {
            struct decode child = decode_element(d, i);
            visit(&child, visitor, context);
        }
    }
}

static void refuse_mask(const struct decode *secret, void *context) {
    (void)context;
    if (strcmp(json_string_value(secret->value), SECRET_MASK) == 0) {
        decode_problem(secret,
                       "expected the secret itself, found \"%s\", which stands for one "
                       "where it is shown",
                       SECRET_MASK);
    }
}

void secrets_refuse_masks(const json_t *document, struct problems *problems) {
    struct decode root = decode_root(document, problems);
    visit(&root, refuse_mask, NULL);
}

/* ---- scrubbing ---- */

struct secret_list {
    const char **texts;
    size_t count;
    size_t capacity;
    bool incomplete; /* memory was short */
};

static void collect(const struct decode *secret, void *context) {
    struct secret_list *list = context;
    if (json_string_length(secret->value) < SECRET_SHORTEST || list->incomplete) {
        return;
    }
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        const char **texts = reallocarray(list->texts, capacity, sizeof(const char *));
        if (!texts) {
            list->incomplete = true;
            return;
        }
        list->texts = texts;
        list->capacity = capacity;
    }
    list->texts[list->count++] = json_string_value(secret->value);
}

static int compare_texts(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* How many bytes at the start of `text` repeat a secret, or enough of one. */
static size_t repeated(const struct secret_list *list, const char *text) {
    /* Of a sorted list, the texts that share most with `text` are its neighbours. */
    size_t low = 0;
    size_t high = list->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(list->texts[middle], text) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    size_t longest = 0;
    for (size_t i = low > 0 ? low - 1 : 0; i < list->count && i <= low; i++) {
        const char *secret = list->texts[i];
        size_t common = 0;
        while (secret[common] && secret[common] == text[common]) {
            common++;
        }
        if ((common >= SECRET_ENOUGH || !secret[common]) && common > longest) {
            longest = common;
        }
    }
    return longest;
}

static void scrub_message(const struct secret_list *list, char *message) {
    char *to = message;
    for (const char *from = message; *from;) {
        size_t length = repeated(list, from);
        if (length > 0) { /* at least SECRET_SHORTEST, so the mask fits */
            memcpy(to, SECRET_MASK, sizeof(SECRET_MASK) - 1);
            to += sizeof(SECRET_MASK) - 1;
            from += length;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

void secrets_scrub(const json_t *document, struct problems *problems) {
    if (!problems || problems->count == 0) {
        return;
    }
    struct secret_list list = {0};
    struct decode root = decode_root(document, NULL);
    visit(&root, collect, &list);
    if (list.count > 0) {
        qsort(list.texts, list.count, sizeof(list.texts[0]), compare_texts);
    }
    for (size_t i = 0; i < problems->count; i++) {
        char *message = problems->list[i].message;
        if (list.incomplete) {
            message[0] = '\0';
        } else if (list.count > 0) {
            scrub_message(&list, message);
        }
    }
    free(list.texts);
}
