/*
 * Section "punt" of router.json: how many packets per second of each class may reach the control
 * thread and, through it, Linux. It stands for the whole host side: its init() registers the twins,
 * and since it is committed with every configuration, twins that could not be made are tried again
 * here.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/punt.h"
#include "core/section.h"
#include "host/host.h"
#include "host/host_internal.h"
#include "json/decode.h"

enum { RATE_MAX = 10000000 };

struct punt_config {
    uint32_t rates[PUNT_CLASSES]; /* packets per second */
};

static const struct punt_config defaults = {
    .rates =
        {
            [PUNT_ARP] = 1000,
            [PUNT_RESOLVE] = 5000,
            [PUNT_IKE] = 1000,
            [PUNT_ROUTING] = 2000,
            [PUNT_OTHER] = 1000,
        },
};

static void *decode_punt(struct decode *d) {
    const char *known[PUNT_CLASSES + 1] = {NULL};
    struct punt_config *config = malloc(sizeof(*config));

    if (!config)
        abort(); /* a few bytes on the control side: there is no sensible way to go on */
    *config = defaults;
    if (!d || !decode_is_object(d))
        return config;
    for (unsigned i = 0; i < PUNT_CLASSES; i++) {
        known[i] = punt_class_names[i];
        decode_member_u32(d, punt_class_names[i], 0, RATE_MAX, &config->rates[i]);
    }
    decode_only_keys(d, known);
    return config;
}

static void commit_punt(const struct config *old, const struct config *new);

static struct config_section punt_section = {
    .name = "punt",
    .after = (const char *const[]){"interfaces", NULL},
    .init = host_init,
    .decode = decode_punt,
    .commit = commit_punt,
    .free = free,
};
CONFIG_SECTION(punt_section)

static void commit_punt(const struct config *old, const struct config *new) {
    const struct punt_config *config = config_value(new, &punt_section);

    (void)old;
    if (!config)
        return; /* the end of the program */
    for (unsigned i = 0; i < PUNT_CLASSES; i++) {
        if (punt_get_rate(i) != config->rates[i])
            punt_set_rate(i, config->rates[i]);
    }
    twins_create_missing();
}

int host_init(void) {
    twins_init();
    twin_io_init();
    return 0;
}

void host_free(void) {
    twins_free();
}
