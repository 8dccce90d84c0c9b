/*
 * The sections "mbufs", "vrfs" and "interfaces" of router.json.
 *
 * decode() takes each value on its own and goes on after a mistake, so that all of them are told at
 * once; a value that was wrong is marked so that no second problem follows from the first.
 * interface_check.c then looks at the interfaces together.
 *
 * What can go wrong at run time: VRF ids or ports (interface_ports.c) in prepare().
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mbuf_pool.h"
#include "core/section.h"
#include "interface/interface_internal.h"
#include "json/decode.h"

enum {
    MBUFS_MIN = 512,
    MBUFS_MAX = 8388608,
    DESCRIPTORS_MIN = 16,
    DESCRIPTORS_MAX = 32768,
    /* RFC 4861 section 6.2.1 */
    RA_INTERVAL_MIN = 4,
    RA_INTERVAL_MAX = 1800,
    RA_INTERVAL_DEFAULT = 200,
    RA_LIFETIME_MAX = 9000,
    RA_LIFETIME_DEFAULT = 1800,
    RA_VALID_DEFAULT = 2592000,
    RA_PREFERRED_DEFAULT = 604800,
    AUTONOMOUS_LENGTH = 64, /* RFC 4862 section 5.5.3 d) with the identifiers of RFC 2464 */
};

static struct config_section mbufs_section, vrfs_section, interfaces_section;

/* --- mbufs --- */

static void *mbufs_decode(struct decode *d) {
    uint32_t *count = interface_allocate(1, sizeof(*count));

    if (d)
        decode_u32(d, MBUFS_MIN, MBUFS_MAX, count);
    return count;
}

static uint32_t mbufs_of(const struct config *config) {
    const uint32_t *count = config_value(config, &mbufs_section);

    return count ? *count : 0;
}

static int mbufs_prepare(const struct config *old, const struct config *new,
                         struct problems *problems) {
    (void)old;
    (void)problems;
    mbuf_pool_set_minimum(mbufs_of(new)); /* before the interfaces open ports */
    return 0;
}

static void mbufs_abort(const struct config *old, const struct config *new) {
    (void)new;
    mbuf_pool_set_minimum(mbufs_of(old));
}

static void mbufs_commit(const struct config *old, const struct config *new) {
    if (mbufs_of(old) != mbufs_of(new) && old && new)
        log_notice("interface", "the new value of \"mbufs\" is used when the router starts again; "
                                "pools of packet buffers that exist keep their size");
}

static struct config_section mbufs_section = {
    .name = "mbufs",
    .decode = mbufs_decode,
    .prepare = mbufs_prepare,
    .abort = mbufs_abort,
    .commit = mbufs_commit,
    .free = free,
};
CONFIG_SECTION(mbufs_section)

/* --- vrfs --- */

static void decode_vrf(const struct decode *d, struct vrfs_config *config) {
    static const char *const keys[] = {"table", NULL};
    struct vrf_config vrf = {0};
    struct decode table;
    bool named = decode_name(d, NULL);

    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    if (named && strcmp(d->key, VRF_DEFAULT_NAME) == 0) {
        decode_problem(d, "the VRF `%s` always exists, with table %d, and cannot be configured",
                       VRF_DEFAULT_NAME, VRF_DEFAULT_TABLE);
        return;
    }
    if (!decode_required(d, "table", &table) || !decode_u32(&table, 1, UINT32_MAX, &vrf.table))
        return;
    if (vrf.table >= 253 && vrf.table <= 255) { /* RT_TABLE_DEFAULT, _MAIN, _LOCAL */
        decode_problem(&table, "table %u is reserved: Linux uses 253 to 255 itself", vrf.table);
        return;
    }
    for (unsigned i = 0; i < config->count; i++) {
        if (config->list[i].table == vrf.table) {
            decode_problem(&table, "table %u already belongs to VRF `%s`", vrf.table,
                           config->list[i].name);
            return;
        }
    }
    if (!named)
        return;
    snprintf(vrf.name, sizeof(vrf.name), "%s", d->key);
    config->list[config->count++] = vrf;
}

static void *vrfs_decode(struct decode *d) {
    struct vrfs_config *config = interface_allocate(1, sizeof(*config));
    struct decode child;

    if (!d || !decode_is_object(d))
        return config;
    if (json_object_size(d->value) >= VRFS_MAX) {
        decode_problem(d, "expected at most %d VRFs, found %zu", VRFS_MAX - 1,
                       json_object_size(d->value));
        return config;
    }
    decode_foreach_member (d, child)
        decode_vrf(&child, config);
    return config;
}

static const struct vrfs_config *vrfs_of(const struct config *config) {
    static const struct vrfs_config none;
    const struct vrfs_config *value = config_value(config, &vrfs_section);

    return value ? value : &none;
}

static int vrfs_prepare(const struct config *old, const struct config *new,
                        struct problems *problems) {
    (void)old;
    return vrf_room(vrfs_of(new), problems) ? 0 : -ENOSPC;
}

static void vrfs_commit(const struct config *old, const struct config *new) {
    (void)old;
    vrf_apply(vrfs_of(new));
}

static void vrfs_release(const struct config *old, const struct config *new) {
    (void)old;
    vrf_drop_unused(vrfs_of(new));
}

static struct config_section vrfs_section = {
    .name = "vrfs",
    .init = interface_init,
    .decode = vrfs_decode,
    .prepare = vrfs_prepare,
    .commit = vrfs_commit,
    .release = vrfs_release,
    .free = free,
};
CONFIG_SECTION(vrfs_section)

bool vrf_configured(const struct config *config, const char *name) {
    const struct vrfs_config *vrfs = vrfs_of(config);

    if (strcmp(name, VRF_DEFAULT_NAME) == 0)
        return true;
    for (unsigned i = 0; i < vrfs->count; i++) {
        if (strcmp(vrfs->list[i].name, name) == 0)
            return true;
    }
    return false;
}

/* --- router advertisements --- */

static void decode_advertised(const struct decode *d, struct router_advertisement *ra) {
    static const char *const keys[] = {"prefix",  "valid_lifetime", "preferred_lifetime",
                                       "on_link", "autonomous",     NULL};
    struct advertised_prefix prefix = {
        .valid_lifetime = RA_VALID_DEFAULT, .on_link = true, .autonomous = true};
    struct decode member;

    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);

    bool right = decode_member_u32(d, "valid_lifetime", 0, UINT32_MAX, &prefix.valid_lifetime);

    prefix.preferred_lifetime = RTE_MIN(prefix.valid_lifetime, (uint32_t)RA_PREFERRED_DEFAULT);
    right &= decode_member_u32(d, "preferred_lifetime", 0, UINT32_MAX, &prefix.preferred_lifetime);
    right &= decode_member_bool(d, "on_link", &prefix.on_link);
    right &= decode_member_bool(d, "autonomous", &prefix.autonomous);
    if (right && prefix.preferred_lifetime > prefix.valid_lifetime) {
        decode_member(d, "preferred_lifetime", &member);
        decode_problem(&member, "expected at most the valid lifetime %u, found %u",
                       prefix.valid_lifetime, prefix.preferred_lifetime);
    }
    if (!decode_required(d, "prefix", &member) || !decode_prefix(&member, &prefix.prefix))
        return;

    const struct ip_address *address = &prefix.prefix.address;
    char text[IP_PREFIX_TEXT];

    ip_prefix_text(&prefix.prefix, text);
    if (address->family != AF_INET6) {
        decode_problem(&member, "expected an IPv6 prefix, found %s", text);
        return;
    }
    if (ip_address_is_link_local(address) || ip_address_is_multicast(address)) {
        decode_problem(&member, "%s is a %s prefix, which no router advertises", text,
                       ip_address_is_multicast(address) ? "multicast" : "link-local");
        return;
    }
    if (prefix.autonomous && prefix.prefix.length != AUTONOMOUS_LENGTH)
        decode_problem(&member,
                       "hosts can make addresses only from a prefix of length %d; set `autonomous` "
                       "to false for %s",
                       AUTONOMOUS_LENGTH, text);
    for (unsigned i = 0; i < ra->prefix_count; i++) {
        if (ip_prefix_compare(&ra->prefixes[i].prefix, &prefix.prefix) == 0) {
            decode_problem(&member, "%s stands there twice", text);
            return;
        }
    }
    ra->prefixes[ra->prefix_count++] = prefix;
}

static void decode_advertisement(const struct decode *d, struct router_advertisement *ra) {
    static const char *const keys[] = {"interval", "lifetime", "managed", "other",
                                       "mtu",      "prefixes", NULL};
    struct decode member;
    uint16_t interval = RA_INTERVAL_DEFAULT;

    *ra = (struct router_advertisement){
        .lifetime = RA_LIFETIME_DEFAULT, .send_mtu = true, .default_prefixes = true};
    if (json_is_boolean(d->value)) {
        decode_bool(d, &ra->enabled);
    } else if (json_is_object(d->value)) {
        ra->enabled = true;
        decode_only_keys(d, keys);

        bool right = decode_member_u16(d, "interval", RA_INTERVAL_MIN, RA_INTERVAL_MAX, &interval);

        if (decode_member(d, "lifetime", &member) &&
            decode_u16(&member, 0, RA_LIFETIME_MAX, &ra->lifetime) && right && ra->lifetime != 0 &&
            ra->lifetime < interval)
            decode_problem(&member, "expected 0, or at least the interval %u, found %u", interval,
                           ra->lifetime);
        decode_member_bool(d, "managed", &ra->managed);
        decode_member_bool(d, "other", &ra->other);
        decode_member_bool(d, "mtu", &ra->send_mtu);
        if (decode_member(d, "prefixes", &member) && decode_is_array(&member)) {
            size_t count = json_array_size(member.value);

            ra->default_prefixes = false;
            if (count > RTE_DIM(ra->prefixes)) {
                decode_problem(&member, "expected at most %zu prefixes, found %zu",
                               RTE_DIM(ra->prefixes), count);
                count = 0;
            }
            for (size_t i = 0; i < count; i++) {
                struct decode element = decode_element(&member, i);

                decode_advertised(&element, ra);
            }
        }
    } else {
        decode_problem(d, "expected true, false or an object");
    }
    ra->interval = interval;
}

/* --- one interface --- */

/* Only what sits on a device has these. */
static const char *const port_keys[] = {"promiscuous",    "rx_queues",      "tx_queues",
                                        "rx_descriptors", "tx_descriptors", NULL};
/* And these need a link layer. */
static const char *const link_keys[] = {"mac", "host_twin", "router_advertisement", NULL};

static void decode_device(const struct decode *d, struct interface_config *out) {
    const char *text;

    if (!decode_string(d, &text))
        return;

    size_t before = d->problems ? d->problems->count + d->problems->omitted : 0;
    char *path = decode_path(d);

    port_check_device(text, path, d->problems);
    free(path);
    if (d->problems && d->problems->count + d->problems->omitted == before)
        snprintf(out->device, sizeof(out->device), "%s", text);
}

static void refuse_keys(const struct decode *d, const char *const *keys, const char *who) {
    struct decode member;

    for (; *keys; keys++) {
        if (decode_member(d, *keys, &member))
            decode_problem(&member, "only %s has `%s`", who, *keys);
    }
}

static void decode_tunnel(const struct decode *d, const struct decode *if_id,
                          struct interface_config *out) {
    static const char *const places[] = {"device", "parent", "vlan", NULL};
    struct decode member;

    for (const char *const *key = places; *key; key++) {
        if (decode_member(d, *key, &member))
            decode_problem(&member,
                           "`%s` cannot stand next to `if_id`: a tunnel interface sits on nothing "
                           "but IPsec",
                           *key);
    }
    refuse_keys(d, port_keys, "an interface with a `device`");
    refuse_keys(d, link_keys, "an interface with a link layer");
    decode_u32(if_id, 1, UINT32_MAX, &out->if_id);
}

/* `device`, or `parent` with `vlan`. */
static void decode_link(const struct decode *d, struct interface_config *out) {
    struct decode device, parent, vlan;
    const char *text;
    bool has_device = decode_member(d, "device", &device);
    bool has_parent = decode_member(d, "parent", &parent);
    bool has_vlan = decode_member(d, "vlan", &vlan);

    if (has_device && (has_parent || has_vlan))
        decode_problem(has_parent ? &parent : &vlan,
                       "`%s` cannot stand next to `device`: an interface sits on a device, or is a "
                       "VLAN of a parent",
                       has_parent ? "parent" : "vlan");
    else if (has_parent && !has_vlan)
        decode_problem(d, "`vlan` is required next to `parent`");
    else if (has_vlan && !has_parent)
        decode_problem(d, "`parent` is required next to `vlan`");
    else if (!has_device && !has_parent)
        decode_problem(d, "`device`, or `parent` and `vlan`, or `if_id` is required");
    if (has_device)
        decode_device(&device, out);
    if (has_vlan)
        decode_u16(&vlan, 1, VLAN_MAX, &out->vlan);
    if (has_parent && decode_string(&parent, &text) && decode_name(&parent, text) && !has_device)
        snprintf(out->parent, sizeof(out->parent), "%s", text);
    if (has_parent && !has_device)
        refuse_keys(d, port_keys, "an interface with a `device`");
}

static void decode_place(const struct decode *d, struct interface_config *out) {
    struct decode if_id;

    if (decode_member(d, "if_id", &if_id))
        decode_tunnel(d, &if_id, out);
    else
        decode_link(d, out);
}

/* What Linux accepts as the name of a device (dev_valid_name()), but for names that would fool the
 * user: templates, and those of /proc/sys/net/ipv4/conf. */
static void decode_twin(const struct decode *d, char twin[TWIN_NAME_TEXT]) {
    static const char *const reserved[] = {"lo", "all", "default", ".", ".."};
    const char *text;

    if (!decode_string(d, &text))
        return;

    bool right = strlen(text) < TWIN_NAME_TEXT;

    for (const unsigned char *c = (const unsigned char *)text; right && *c; c++)
        right = *c > ' ' && *c < 0x7f && !strchr("/:%\"'\\", *c);
    if (!right) {
        decode_problem(d,
                       "expected the name of a Linux interface: 1 to %d characters, without "
                       "spaces, '/', ':', '%%' and quotes",
                       TWIN_NAME_TEXT - 1);
        return;
    }
    for (unsigned i = 0; i < RTE_DIM(reserved); i++) {
        if (strcmp(text, reserved[i]) == 0) {
            decode_problem(d, "`%s` is reserved by Linux", text);
            return;
        }
    }
    snprintf(twin, TWIN_NAME_TEXT, "%s", text);
}

/* Is it an address that an interface may have? RFC 1122 section 3.2.1.3, RFC 4291 section 2.5. */
static bool check_address(const struct decode *d, const struct ip_prefix *prefix) {
    const struct ip_address *address = &prefix->address;
    struct ip_prefix network = ip_prefix_network(prefix);
    unsigned bits = ip_family_bits(address->family);
    char text[IP_ADDRESS_TEXT], network_text[IP_PREFIX_TEXT];

    ip_address_text(address, text);
    ip_prefix_text(&network, network_text);
    if (ip_address_is_multicast(address)) {
        decode_problem(d, "%s is a multicast address, which no interface can have", text);
    } else if (ip_address_is_loopback(address)) {
        decode_problem(d, "%s is a loopback address, which no interface can have", text);
    } else if (!ip_address_is_host(address)) {
        decode_problem(d, "%s is not a unicast address that an interface can have", text);
    } else if (prefix->length == 0) {
        decode_problem(d, "expected a prefix length from 1 to %u, found 0", bits);
    } else if (prefix->length + 2u > bits) {
        return true; /* RFC 3021, RFC 6164, and single addresses */
    } else if (ip_address_compare(address, &network.address) == 0) {
        decode_problem(d,
                       address->family == AF_INET
                           ? "%s is the network address of %s, which no interface can have"
                           : "%s is the subnet-router anycast address of %s (RFC 4291), which no "
                             "interface can have",
                       text, network_text);
    } else if (address->family == AF_INET &&
               (ip4_host_order(address) |
                (uint32_t)(UINT64_C(0xffffffff) << (32 - prefix->length))) == UINT32_MAX) {
        decode_problem(d, "%s is the broadcast address of %s, which no interface can have", text,
                       network_text);
    } else {
        return true;
    }
    return false;
}

static void decode_addresses(const struct decode *d, struct interface_config *out) {
    size_t count;

    if (!decode_is_array(d))
        return;
    count = json_array_size(d->value);
    if (count > CONFIG_ADDRESSES_MAX) {
        decode_problem(d, "expected at most %d addresses, found %zu", CONFIG_ADDRESSES_MAX, count);
        count = CONFIG_ADDRESSES_MAX;
    }
    for (size_t i = 0; i < count; i++) {
        struct decode element = decode_element(d, i);
        struct ip_prefix prefix;

        if (decode_interface_address(&element, &prefix) && check_address(&element, &prefix))
            out->addresses[i] = prefix;
    }
    out->address_count = (unsigned)count;
}

static void decode_vrf_name(const struct decode *d, char name[INTERFACE_NAME_TEXT]) {
    const char *text;

    if (decode_string(d, &text) && decode_name(d, text))
        snprintf(name, INTERFACE_NAME_TEXT, "%s", text);
}

const char *const reverse_path_names[] = {[REVERSE_PATH_OFF] = "off",
                                          [REVERSE_PATH_LOOSE] = "loose",
                                          [REVERSE_PATH_STRICT] = "strict",
                                          NULL};

static void decode_tcp_mss(const struct decode *d, uint16_t *mss) {
    if (json_is_integer(d->value))
        decode_u16(d, TCP_MSS_MIN, UINT16_MAX, mss);
    else if (json_is_string(d->value) && strcmp(json_string_value(d->value), "auto") == 0)
        *mss = TCP_MSS_AUTO;
    else
        decode_problem(d, "expected an integer from %d to %d, or \"auto\"", TCP_MSS_MIN,
                       UINT16_MAX);
}

static void decode_reverse_path(const struct decode *d, enum reverse_path *mode) {
    unsigned word;

    if (decode_word(d, reverse_path_names, &word))
        *mode = (enum reverse_path)word;
}

static void decode_interface(const struct decode *d, struct interface_config *out) {
    static const char *const keys[] = {"device",
                                       "parent",
                                       "vlan",
                                       "if_id",
                                       "mtu",
                                       "mac",
                                       "addresses",
                                       "vrf",
                                       "host_twin",
                                       "enabled",
                                       "promiscuous",
                                       "rx_queues",
                                       "tx_queues",
                                       "rx_descriptors",
                                       "tx_descriptors",
                                       "router_advertisement",
                                       "tcp_mss",
                                       "reverse_path",
                                       NULL};
    struct decode member;

    *out = (struct interface_config){.vrf = VRF_DEFAULT_NAME, .enabled = true};
    if (decode_name(d, NULL))
        snprintf(out->name, sizeof(out->name), "%s", d->key);
    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    decode_place(d, out);
    if (!decode_member_u16(d, "mtu", PORT_MTU_MIN, PORT_MTU_MAX, &out->mtu))
        out->mtu = MTU_WRONG;
    if (decode_member(d, "mac", &member))
        out->has_mac = decode_mac(&member, out->mac);
    if (decode_member(d, "addresses", &member))
        decode_addresses(&member, out);
    if (decode_member(d, "vrf", &member))
        decode_vrf_name(&member, out->vrf);
    if (decode_member(d, "host_twin", &member))
        decode_twin(&member, out->host_twin);
    decode_member_bool(d, "enabled", &out->enabled);
    decode_member_bool(d, "promiscuous", &out->promiscuous);
    decode_member_u16(d, "rx_queues", 1, PORT_QUEUES_MAX, &out->rx_queues);
    decode_member_u16(d, "tx_queues", 1, PORT_QUEUES_MAX, &out->tx_queues);
    decode_member_u16(d, "rx_descriptors", DESCRIPTORS_MIN, DESCRIPTORS_MAX, &out->rx_descriptors);
    decode_member_u16(d, "tx_descriptors", DESCRIPTORS_MIN, DESCRIPTORS_MAX, &out->tx_descriptors);
    if (decode_member(d, "router_advertisement", &member))
        decode_advertisement(&member, &out->router_advertisement);
    if (decode_member(d, "tcp_mss", &member))
        decode_tcp_mss(&member, &out->tcp_mss);
    if (decode_member(d, "reverse_path", &member))
        decode_reverse_path(&member, &out->reverse_path);
}

/* --- all interfaces --- */

static void *interfaces_decode(struct decode *d) {
    struct interfaces_config *config = interface_allocate(1, sizeof(*config));
    struct decode child, *nodes;
    size_t count;

    if (!d || !decode_is_object(d))
        return config;
    count = json_object_size(d->value);
    if (count >= INTERFACES_MAX) {
        decode_problem(d, "expected at most %d interfaces, found %zu", INTERFACES_MAX - 1, count);
        return config;
    }
    config->list = interface_allocate(count, sizeof(config->list[0]));
    nodes = interface_allocate(count, sizeof(nodes[0]));
    decode_foreach_member (d, child) {
        nodes[config->count] = child;
        decode_interface(&nodes[config->count], &config->list[config->count]);
        config->count++;
    }
    interfaces_config_check(config, nodes);
    free(nodes);
    return config;
}

static void interfaces_free(void *value) {
    struct interfaces_config *config = value;

    free(config->list);
    free(config->by_name);
    free(config->connected);
    free(config);
}

/* A place in the document that a section's check() knows only by name. */
struct place {
    struct decode root, section, interface, member;
};

static struct decode *place_of(struct place *place, const char *name, const char *key,
                               struct problems *problems) {
    place->root = (struct decode){.problems = problems};
    place->section =
        (struct decode){.parent = &place->root, .key = "interfaces", .problems = problems};
    place->interface =
        (struct decode){.parent = &place->section, .key = name, .problems = problems};
    place->member = (struct decode){.parent = &place->interface, .key = key, .problems = problems};
    return key ? &place->member : &place->interface;
}

char *interface_config_path(const char *name) {
    struct place place;

    return decode_path(place_of(&place, name, NULL, NULL));
}

static const struct interfaces_config *interfaces_of(const struct config *config) {
    static const struct interfaces_config none;
    const struct interfaces_config *value = config_value(config, &interfaces_section);

    return value ? value : &none;
}

static void interfaces_check(const struct config *config, struct problems *problems) {
    const struct interfaces_config *interfaces = interfaces_of(config);

    for (unsigned i = 0; i < interfaces->count; i++) {
        const struct interface_config *interface = &interfaces->list[i];
        struct place place;

        if (!vrf_configured(config, interface->vrf))
            decode_problem(place_of(&place, interface->name, "vrf", problems),
                           "VRF `%s` does not exist", interface->vrf);
    }
}

static int interfaces_prepare(const struct config *old, const struct config *new,
                              struct problems *problems) {
    (void)old;
    return interface_ports_prepare(interfaces_of(new), problems);
}

static void interfaces_abort(const struct config *old, const struct config *new) {
    (void)old;
    (void)new;
    interface_ports_abort();
}

static void interfaces_commit(const struct config *old, const struct config *new) {
    interface_ports_commit();
    interface_apply(old ? interfaces_of(old) : NULL, interfaces_of(new));
}

static void interfaces_release(const struct config *old, const struct config *new) {
    (void)old;
    (void)new;
    interface_ports_release();
    interface_update();
}

static struct config_section interfaces_section = {
    .name = "interfaces",
    .after = (const char *const[]){"mbufs", "vrfs", NULL},
    .decode = interfaces_decode,
    .check = interfaces_check,
    .prepare = interfaces_prepare,
    .abort = interfaces_abort,
    .commit = interfaces_commit,
    .release = interfaces_release,
    .free = interfaces_free,
};
CONFIG_SECTION(interfaces_section)

/* --- for other sections' check() --- */

bool interface_configured(const struct config *config, const char *name) {
    return interfaces_config_find(interfaces_of(config), name) >= 0;
}

const char *interface_configured_vrf(const struct config *config, const char *name) {
    const struct interfaces_config *interfaces = interfaces_of(config);
    int index = interfaces_config_find(interfaces, name);

    return index < 0 ? NULL : interfaces->list[index].vrf;
}

uint32_t interface_configured_if_id(const struct config *config, const char *name) {
    const struct interfaces_config *interfaces = interfaces_of(config);
    int index = interfaces_config_find(interfaces, name);

    return index < 0 ? 0 : interfaces->list[index].if_id;
}

const char *interface_configured_tunnel(const struct config *config) {
    const struct interfaces_config *interfaces = interfaces_of(config);

    for (unsigned i = 0; i < interfaces->count; i++) {
        if (interfaces->list[i].if_id != 0)
            return interfaces->list[i].name;
    }
    return NULL;
}

/* The last connected prefix that sorts before the address as a whole prefix: the longest around it
 * is that one, or one around that one. */
static int32_t last_before(const struct interfaces_config *config, const char *vrf,
                           const struct ip_prefix *prefix) {
    size_t low = 0, high = config->connected_count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(config->connected[middle].vrf, vrf);

        if (order == 0)
            order = ip_prefix_compare(&config->connected[middle].network, prefix);
        if (order <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return (int32_t)low - 1;
}

bool interface_configured_on_link(const struct config *config, const char *vrf,
                                  const char *interface_name, const struct ip_address *address) {
    const struct interfaces_config *interfaces = interfaces_of(config);
    int index = interface_name ? interfaces_config_find(interfaces, interface_name) : -1;

    if (interface_name && (index < 0 || strcmp(interfaces->list[index].vrf, vrf) != 0))
        return false;
    if (address->family == AF_INET6 && ip_address_is_link_local(address))
        return index >= 0 && interface_config_uses_ipv6(&interfaces->list[index]);

    struct ip_prefix whole = {*address, ip_family_bits(address->family)};

    for (int32_t at = last_before(interfaces, vrf, &whole); at >= 0;
         at = interfaces->connected[at].covering) {
        const struct connected_prefix *connected = &interfaces->connected[at];

        /* Prefixes of one VRF that overlap are on the same interface. */
        if (strcmp(connected->vrf, vrf) == 0 && ip_prefix_contains(&connected->network, address))
            return index < 0 || connected->interface == index;
    }
    return false;
}

bool interface_configured_own(const struct config *config, const char *vrf,
                              const struct ip_address *address) {
    const struct interfaces_config *interfaces = interfaces_of(config);

    for (unsigned i = 0; i < interfaces->count; i++) {
        const struct interface_config *interface = &interfaces->list[i];

        for (unsigned n = 0; n < interface->address_count; n++) {
            if (ip_address_compare(&interface->addresses[n].address, address) == 0 &&
                strcmp(interface->vrf, vrf) == 0)
                return true;
        }
    }
    return false;
}
