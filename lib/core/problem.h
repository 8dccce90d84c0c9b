/*
 * Problems: what is wrong with some input, each with the place it stands at and one sentence.
 *
 * A wrong configuration names all its mistakes at once, so nothing that checks input stops at the
 * first one: it adds a problem and goes on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct problem {
    char *path;    /* JSON path such as $.interfaces.wan.mtu, or an object's name; never NULL */
    char *message; /* one sentence without a full stop */
};

/* A growing list. Initialise with {0}; free with problems_free(). */
struct problems {
    struct problem *list;
    size_t count;
    size_t capacity;
    size_t omitted; /* problems past PROBLEMS_MAX are only counted */
};

enum { PROBLEMS_MAX = 1000 };

/* Adds a problem; path and message are copied. NULL problems are allowed and ignored. */
void problems_add(struct problems *problems, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static inline bool problems_any(const struct problems *problems) {
    return problems->count > 0;
}

/* Frees the list's contents and makes it empty again. */
void problems_free(struct problems *problems);
