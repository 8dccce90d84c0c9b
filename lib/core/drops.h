/*
 * Named drop reasons. Whatever may drop a packet registers a group of reasons once, and every thread
 * counts them in memory of its own (core/counters.h), so that each lost packet has one name,
 * "GROUP.REASON", in `stats.get` and `routerctl show drops`.
 */
#pragma once

#include <stdint.h>

enum { DROPS_MAX = 512 };

struct drop_group {
    const char *name;           /* "parse" */
    const char *const *reasons; /* NULL-terminated; index 0 is the group's reason 0 */
    uint16_t base;              /* first counter of the group; managed by the registry */
    uint16_t count;             /* managed by the registry */
    struct drop_group *next;    /* managed by the registry */
};

/* Adds the group; each group starts in a cache line of its own. Aborts when DROPS_MAX is passed. */
void drop_group_register(struct drop_group *group);

/* Iterates over the groups by ->next. */
const struct drop_group *drop_group_first(void);

#define DROP_GROUP(group)                                                                          \
    __attribute__((constructor(201))) static void drop_group_register_##group(void) {              \
        drop_group_register(&(group));                                                             \
    }
