/*
 * Lists that the router returns in pages: each page is printed and forgotten before the next one is
 * asked for, so that a million elements need little memory.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "session.h"

struct pages {
    const char *list;  /* member of the result that holds the elements */
    const char *next;  /* member of the result that tells where to go on; null at the end */
    const char *after; /* the parameter that takes it */
    /* Shows a page to people; `more` will come. */
    void (*show)(struct session *session, const json_t *list, bool more, void *context);
};

/* How many elements to ask for at once. */
enum { PAGE = 1000 };

/* Calls the match's method until the last page. With -j the pages are printed as if they were one
 * reply. Returns the exit status, and how many elements there were in *count. */
int pages_run(struct session *session, const struct match *match, const struct pages *pages,
              void *context, size_t *count);
