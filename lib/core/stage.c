/* The registry of stages; the order comes from stages.def. */
#include "core/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const order[] = {
#define STAGE_IN_ORDER(name) #name,
#define STAGE_ROLE(role, name)
#include "core/stages.def"
#undef STAGE_IN_ORDER
#undef STAGE_ROLE
};

_Static_assert(RTE_DIM(order) + 2 <= STAGES_MAX, "counters have a place for each stage, rx and tx");

static struct stage *stages;

static unsigned position_of(const char *name) {
    for (unsigned position = 0; position < RTE_DIM(order); position++) {
        if (strcmp(order[position], name) == 0)
            return position;
    }
    fprintf(stderr, "dpdk-router: stage `%s` is not listed in stages.def\n", name);
    abort();
}

void stage_register(struct stage *stage) {
    struct stage **place = &stages;

    stage->position = position_of(stage->name);
    stage->drops.name = stage->name;
    if (stage->drops.reasons)
        drop_group_register(&stage->drops);
    while (*place && (*place)->position < stage->position)
        place = &(*place)->next;
    stage->next = *place;
    *place = stage;
}

struct stage *stage_first(void) { return stages; }

struct stage *stage_find(const char *name) {
    for (struct stage *stage = stages; stage; stage = stage->next) {
        if (strcmp(stage->name, name) == 0)
            return stage;
    }
    return NULL;
}
