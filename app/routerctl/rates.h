/*
 * The table of interface rates that live views share.
 */
#pragma once

#include <jansson.h>

#include "table.h"

struct table *rates_table(void);

/* One row; `now` and `before` are counters objects, `before` may be NULL. `up` colours the name:
 * 1 green, 0 red, -1 not. */
void rates_row(struct table *table, const char *name, int up, const json_t *now,
               const json_t *before, double seconds);
