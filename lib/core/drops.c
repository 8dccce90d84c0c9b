/* The registry of drop reasons. */
#include "core/drops.h"

#include <stdio.h>
#include <stdlib.h>

static struct drop_group *groups;
static uint16_t counters_used;

enum { COUNTERS_PER_LINE = 8 };

void drop_group_register(struct drop_group *group) {
    struct drop_group **end = &groups;

    while (group->reasons[group->count])
        group->count++;
    group->base = counters_used;
    counters_used += (group->count + COUNTERS_PER_LINE - 1) / COUNTERS_PER_LINE * COUNTERS_PER_LINE;
    if (counters_used > DROPS_MAX) {
        fprintf(stderr, "dpdk-router: too many drop reasons; raise DROPS_MAX\n");
        abort();
    }
    while (*end)
        end = &(*end)->next;
    *end = group;
}

const struct drop_group *drop_group_first(void) { return groups; }
