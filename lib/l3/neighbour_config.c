/*
 * The section "neighbours" of router.json: static neighbours.
 *
 * What can go wrong at run time: the neighbour table is full; the entry is then missing, with a
 * message in the log. Interfaces that change their identity lose their entries, so each commit sets
 * all of the new configuration's, not only those that differ.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/section.h"
#include "interface/interface.h"
#include "l3/neighbour.h"
#include "json/decode.h"

enum { STATIC_MAX = NEIGHBOURS_MAX / 2 };

struct static_neighbour {
    char interface[INTERFACE_NAME_TEXT];
    struct ip_address address;
    uint8_t mac[6];
    unsigned index; /* in the array of router.json */
};

struct neighbours_config {
    unsigned count;
    struct static_neighbour list[]; /* sorted by interface and address */
};

static struct config_section neighbours_section;

static int compare(const void *a, const void *b) {
    const struct static_neighbour *left = a, *right = b;
    int order = strcmp(left->interface, right->interface);

    if (order == 0)
        order = ip_address_compare(&left->address, &right->address);
    return order;
}

static int compare_with_index(const void *a, const void *b) {
    const struct static_neighbour *left = a, *right = b;
    int order = compare(a, b);

    return order != 0 ? order : (left->index > right->index) - (left->index < right->index);
}

static bool decode_one(const struct decode *d, struct static_neighbour *out) {
    static const char *const keys[] = {"interface", "address", "mac", NULL};
    struct decode member;
    const char *name = NULL;
    bool right = true;

    if (!decode_is_object(d))
        return false;
    decode_only_keys(d, keys);
    if (decode_required(d, "interface", &member) && decode_string(&member, &name) &&
        decode_name(&member, name))
        snprintf(out->interface, sizeof(out->interface), "%s", name);
    else
        right = false;
    if (!decode_required(d, "address", &member) || !decode_address(&member, &out->address)) {
        right = false;
    } else if (!ip_address_is_host(&out->address)) {
        decode_problem(&member, "expected the address of a host, found one that no host can have");
        right = false;
    }
    right &= decode_required(d, "mac", &member) && decode_mac(&member, out->mac);
    return right;
}

static void find_duplicates(const struct decode *d, const struct neighbours_config *config) {
    char text[IP_ADDRESS_TEXT];

    for (unsigned i = 1; i < config->count; i++) {
        const struct static_neighbour *entry = &config->list[i], *first = &config->list[i - 1];

        if (compare(first, entry) != 0)
            continue;
        struct decode at = decode_element(d, entry->index);
        decode_problem(&at, "%s on interface %s is listed already at index %u",
                       ip_address_text(&entry->address, text), entry->interface, first->index);
    }
}

static void *decode(struct decode *d) {
    size_t size = d && decode_is_array(d) ? json_array_size(d->value) : 0;
    struct neighbours_config *config;

    if (size > STATIC_MAX) {
        decode_problem(d, "expected at most %u neighbours, found %zu", (unsigned)STATIC_MAX, size);
        return NULL;
    }
    config = calloc(1, sizeof(*config) + size * sizeof(config->list[0]));
    if (!config) {
        if (d)
            decode_problem(d, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < size; i++) {
        struct static_neighbour *entry = &config->list[config->count];
        struct decode element = decode_element(d, i);

        entry->index = (unsigned)i;
        if (decode_one(&element, entry))
            config->count++;
    }
    qsort(config->list, config->count, sizeof(config->list[0]), compare_with_index);
    if (d)
        find_duplicates(d, config);
    return config;
}

static int by_index(const void *a, const void *b) {
    const struct static_neighbour *left = *(const struct static_neighbour *const *)a,
                                  *right = *(const struct static_neighbour *const *)b;

    return (left->index > right->index) - (left->index < right->index);
}

static void check_one(const struct config *config, const struct static_neighbour *entry,
                      struct problems *problems) {
    const char *vrf = interface_configured_vrf(config, entry->interface);
    char path[64], text[IP_ADDRESS_TEXT];

    if (!vrf) {
        snprintf(path, sizeof(path), "$.neighbours[%u].interface", entry->index);
        problems_add(problems, path, "interface `%s` is not configured", entry->interface);
    } else if (interface_configured_if_id(config, entry->interface) != 0) {
        snprintf(path, sizeof(path), "$.neighbours[%u].interface", entry->index);
        problems_add(problems, path, "`%s` is a tunnel, which has no link-layer addresses",
                     entry->interface);
    } else if (!interface_configured_on_link(config, vrf, entry->interface, &entry->address)) {
        snprintf(path, sizeof(path), "$.neighbours[%u].address", entry->index);
        problems_add(problems, path, "%s is in no prefix of interface `%s`",
                     ip_address_text(&entry->address, text), entry->interface);
    }
}

/* In the order of the document, which is how a reader looks for mistakes. */
static void check(const struct config *config, struct problems *problems) {
    const struct neighbours_config *value = config_value(config, &neighbours_section);
    const struct static_neighbour **order;

    if (!value || value->count == 0)
        return;
    order = calloc(value->count, sizeof(*order));
    if (!order) {
        problems_add(problems, "$.neighbours", "out of memory");
        return;
    }
    for (unsigned i = 0; i < value->count; i++)
        order[i] = &value->list[i];
    qsort(order, value->count, sizeof(*order), by_index);
    for (unsigned i = 0; i < value->count; i++)
        check_one(config, order[i], problems);
    free(order);
}

static void commit(const struct config *old, const struct config *new) {
    const struct neighbours_config *before = config_value(old, &neighbours_section);
    const struct neighbours_config *after = config_value(new, &neighbours_section);
    char text[IP_ADDRESS_TEXT];

    for (unsigned i = 0; before && i < before->count; i++) {
        const struct static_neighbour *entry = &before->list[i];
        const struct interface *interface = interface_by_name(entry->interface);

        if (interface &&
            (!after || !bsearch(entry, after->list, after->count, sizeof(after->list[0]), compare)))
            neighbour_delete(interface->id, &entry->address);
    }
    for (unsigned i = 0; after && i < after->count; i++) {
        const struct static_neighbour *entry = &after->list[i];
        const struct interface *interface = interface_by_name(entry->interface);
        int error =
            interface ? neighbour_add_static(interface->id, &entry->address, entry->mac) : -ENODEV;

        if (error == -EINVAL)
            log_warning("neighbour",
                        "the static neighbour %s on %s is left out: it is an address of the router "
                        "or of the whole prefix",
                        ip_address_text(&entry->address, text), entry->interface);
        else if (error != 0)
            log_error("neighbour", "the static neighbour %s on %s is missing: %s",
                      ip_address_text(&entry->address, text), entry->interface, strerror(-error));
    }
}

static struct config_section neighbours_section = {
    .name = "neighbours",
    .after = (const char *const[]){"interfaces", NULL},
    .decode = decode,
    .check = check,
    .commit = commit,
    .free = free,
};
CONFIG_SECTION(neighbours_section)
