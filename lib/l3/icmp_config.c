/*
 * The section "icmp" of router.json: how many ICMP errors a worker may send.
 */
#include <stdlib.h>

#include "core/section.h"
#include "json/decode.h"
#include "l3/icmp.h"
#include "l3/l3.h"

enum { RATE_MAX = 1000000, BURST_SIZE_MAX = 100000 };

struct icmp_config {
    uint32_t rate_limit, burst;
};

static void *icmp_decode(struct decode *d) {
    static const char *const keys[] = {"rate_limit", "burst", NULL};
    struct icmp_config *config = calloc(1, sizeof(*config));

    if (!config)
        return NULL;
    config->rate_limit = 1000;
    config->burst = 100;
    if (d && decode_is_object(d)) {
        decode_only_keys(d, keys);
        decode_member_u32(d, "rate_limit", 0, RATE_MAX, &config->rate_limit);
        decode_member_u32(d, "burst", 1, BURST_SIZE_MAX, &config->burst);
    }
    return config;
}

static void icmp_commit(const struct config *old, const struct config *new);

static struct config_section icmp_section = {
    .name = "icmp",
    .after = (const char *const[]){"vrfs", NULL},
    .init = l3_init,
    .decode = icmp_decode,
    .commit = icmp_commit,
    .free = free,
};
CONFIG_SECTION(icmp_section)

static void icmp_commit(const struct config *old, const struct config *new) {
    const struct icmp_config *config = config_value(new, &icmp_section);

    (void)old;
    if (!config)
        return; /* the end of the program */
    icmp_set_rate(config->rate_limit, config->burst);
}
