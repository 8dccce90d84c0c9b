/*
 * What can be wrong with interfaces whose values are right by themselves: devices, VLANs, twins,
 * addresses and prefixes that collide, parents and MTUs that do not fit.
 *
 * Of two that collide the later one in the document gets the problem. Addresses are compared after
 * sorting, so that thousands of them are no burden. Nothing here touches hardware.
 */
#include <stdlib.h>
#include <string.h>

#include "interface/interface_internal.h"
#include "json/decode.h"

bool interface_config_uses_ipv6(const struct interface_config *config) {
    if (config->router_advertisement.enabled)
        return true;
    for (unsigned i = 0; i < config->address_count; i++) {
        if (config->addresses[i].address.family == AF_INET6)
            return true;
    }
    return false;
}

/* The place of a member of the interface, or of the interface when it has no such member. */
static struct decode place(const struct decode *node, const char *key) {
    struct decode member;

    return decode_member(node, key, &member) ? member : *node;
}

/* --- names --- */

static int compare_names(const void *a, const void *b) {
    return strcmp(((const struct named_index *)a)->name, ((const struct named_index *)b)->name);
}

static void sort_names(struct interfaces_config *config) {
    config->by_name = interface_allocate(config->count, sizeof(config->by_name[0]));
    for (unsigned i = 0; i < config->count; i++) {
        if (config->list[i].name[0])
            config->by_name[config->named_count++] =
                (struct named_index){.name = config->list[i].name, .index = (uint16_t)i};
    }
    qsort(config->by_name, config->named_count, sizeof(config->by_name[0]), compare_names);
}

int interfaces_config_find(const struct interfaces_config *config, const char *name) {
    struct named_index key = {.name = name};
    const struct named_index *found = config->named_count == 0
                                          ? NULL
                                          : bsearch(&key, config->by_name, config->named_count,
                                                    sizeof(config->by_name[0]), compare_names);

    return found ? found->index : -1;
}

/* --- devices, VLANs, twins --- */

/* The Linux interface or the socket that both devices would be at. AF_XDP may share an interface by
 * its queues. */
static bool share_an_end(const char *a, const char *b, char *end, size_t size) {
    char other[PORT_DEVICE_TEXT];

    return port_device_argument(a, "iface", 0, end, size) &&
           port_device_argument(b, "iface", 0, other, sizeof(other)) && strcmp(end, other) == 0 &&
           !(port_device_argument(a, "start_queue", 0, NULL, 0) &&
             port_device_argument(b, "start_queue", 0, NULL, 0));
}

static void check_place(const struct interfaces_config *config, const struct decode *nodes,
                        unsigned index) {
    const struct interface_config *interface = &config->list[index];
    struct decode device = place(&nodes[index], "device"), vlan = place(&nodes[index], "vlan"),
                  twin = place(&nodes[index], "host_twin"), if_id = place(&nodes[index], "if_id");

    for (unsigned i = 0; i < index; i++) {
        const struct interface_config *other = &config->list[i];
        char end[PORT_DEVICE_TEXT];

        if (interface->device[0] && other->device[0]) {
            if (interface_device_same(interface->device, other->device))
                decode_problem(&device, "the device already belongs to interface `%s`",
                               other->name);
            else if (share_an_end(interface->device, other->device, end, sizeof(end)))
                decode_problem(&device, "`%s` already belongs to interface `%s`", end,
                               other->name);
        }
        if (interface->parent[0] && interface->vlan && interface->vlan == other->vlan &&
            strcmp(interface->parent, other->parent) == 0)
            decode_problem(&vlan, "VLAN %u of `%s` already belongs to interface `%s`",
                           interface->vlan, interface->parent, other->name);
        if (interface->if_id != 0 && interface->if_id == other->if_id)
            decode_problem(&if_id, "%u already belongs to interface `%s`", interface->if_id,
                           other->name);
        if (interface->host_twin[0] && strcmp(interface->host_twin, other->host_twin) == 0)
            decode_problem(&twin, "`%s` is already the host twin of interface `%s`",
                           interface->host_twin, other->name);
    }
}

static const struct interface_config *check_parent(const struct interfaces_config *config,
                                                   const struct decode *node,
                                                   const struct interface_config *interface) {
    struct decode parent = place(node, "parent");
    int index;

    if (interface->parent[0] == '\0')
        return NULL;
    if (strcmp(interface->parent, interface->name) == 0) {
        decode_problem(&parent, "an interface cannot be its own parent");
        return NULL;
    }
    index = interfaces_config_find(config, interface->parent);
    if (index < 0) {
        decode_problem(&parent, "interface `%s` does not exist", interface->parent);
        return NULL;
    }
    if (config->list[index].parent[0] || config->list[index].if_id != 0) {
        decode_problem(&parent, "`%s` is a %s itself; a VLAN needs a parent with a `device`",
                       interface->parent, config->list[index].if_id != 0 ? "tunnel" : "VLAN");
        return NULL;
    }
    return &config->list[index];
}

/* --- MTUs --- */

static void check_mtu(const struct interface_config *interface, const struct decode *node) {
    struct decode mtu = place(node, "mtu");

    if (interface->mtu == MTU_WRONG || interface->mtu >= MTU_IPV6_MIN ||
        !interface_config_uses_ipv6(interface))
        return;
    decode_problem(&mtu, "IPv6 needs an MTU of at least %d, found %u", MTU_IPV6_MIN,
                   interface->mtu);
}

static void complete_mtu(struct interface_config *interface, const struct decode *node,
                         const struct interface_config *parent) {
    struct decode mtu = place(node, "mtu");

    if (parent && interface->mtu == 0) {
        interface->mtu = parent->mtu;
        return;
    }
    if (interface->mtu == 0)
        interface->mtu = interface->if_id != 0 ? MTU_TUNNEL : MTU_DEFAULT;
    if (parent && parent->mtu != MTU_WRONG && interface->mtu > parent->mtu)
        decode_problem(&mtu, "expected at most the MTU %u of the parent `%s`, found %u",
                       parent->mtu, parent->name, interface->mtu);
}

static void complete_tcp_mss(struct interface_config *interface) {
    if (interface->tcp_mss == TCP_MSS_AUTO && interface->mtu != MTU_WRONG)
        interface->tcp_mss = (uint16_t)(interface->mtu - TCP_IPV4_HEADERS);
}

/* --- addresses --- */

/* Where an address stands, and what it must be alone in. */
struct owned_address {
    const char *vrf;
    uint32_t link; /* IPv6 link-local: the interface, as each link is a space of its own; else 0 */
    struct ip_address address;
    uint16_t interface, index;
};

/* By place in the document. */
static int compare_places(uint16_t a_interface, uint16_t a_index, uint16_t b_interface,
                          uint16_t b_index) {
    return a_interface != b_interface ? (int)a_interface - b_interface : (int)a_index - b_index;
}

static int compare_owned(const void *left, const void *right) {
    const struct owned_address *a = left, *b = right;
    int order = strcmp(a->vrf, b->vrf);

    if (order == 0)
        order = a->link != b->link ? (a->link < b->link ? -1 : 1) : 0;
    if (order == 0)
        order = ip_address_compare(&a->address, &b->address);
    return order ? order : compare_places(a->interface, a->index, b->interface, b->index);
}

static bool is_link_local(const struct ip_address *address) {
    return address->family == AF_INET6 && ip_address_is_link_local(address);
}

static struct decode place_of_address(const struct decode *nodes, struct decode *addresses,
                                      uint16_t interface, uint16_t index) {
    decode_member(&nodes[interface], "addresses", addresses);
    return decode_element(addresses, index);
}

static void check_duplicates(const struct interfaces_config *config, const struct decode *nodes,
                             size_t count) {
    struct owned_address *list = interface_allocate(count, sizeof(list[0]));
    size_t used = 0;

    for (unsigned i = 0; i < config->count; i++) {
        for (unsigned a = 0; a < config->list[i].address_count; a++) {
            const struct ip_address *address = &config->list[i].addresses[a].address;

            if (address->family != 0)
                list[used++] = (struct owned_address){
                    .vrf = config->list[i].vrf,
                    .link = is_link_local(address) ? i + 1 : 0,
                    .address = *address,
                    .interface = (uint16_t)i,
                    .index = (uint16_t)a,
                };
        }
    }
    qsort(list, used, sizeof(list[0]), compare_owned);
    for (size_t i = 1, first = 0; i < used; i++) {
        char text[IP_ADDRESS_TEXT];
        struct decode addresses, element;

        if (strcmp(list[i].vrf, list[first].vrf) != 0 || list[i].link != list[first].link ||
            ip_address_compare(&list[i].address, &list[first].address) != 0) {
            first = i;
            continue;
        }
        ip_address_text(&list[i].address, text);
        element = place_of_address(nodes, &addresses, list[i].interface, list[i].index);
        if (list[i].interface == list[first].interface)
            decode_problem(&element, "%s stands there twice", text);
        else
            decode_problem(&element, "%s is already an address of interface `%s` in VRF `%s`", text,
                           config->list[list[first].interface].name, list[i].vrf);
    }
    free(list);
}

static int compare_connected(const void *left, const void *right) {
    const struct connected_prefix *a = left, *b = right;
    int order = strcmp(a->vrf, b->vrf);

    if (order == 0)
        order = ip_prefix_compare(&a->network, &b->network);
    return order ? order : compare_places(a->interface, a->address, b->interface, b->address);
}

static const struct ip_prefix *own_prefix(const struct interfaces_config *config,
                                          const struct connected_prefix *connected) {
    return &config->list[connected->interface].addresses[connected->address];
}

static void check_overlap(const struct interfaces_config *config, const struct decode *nodes,
                          const struct connected_prefix *a, const struct connected_prefix *b) {
    bool a_later = compare_places(a->interface, a->address, b->interface, b->address) > 0;
    const struct connected_prefix *later = a_later ? a : b, *earlier = a_later ? b : a;
    char text[IP_PREFIX_TEXT], other[IP_PREFIX_TEXT];
    struct decode addresses, element;

    /* The same address twice was told already. */
    if (ip_address_compare(&own_prefix(config, a)->address, &own_prefix(config, b)->address) == 0)
        return;
    element = place_of_address(nodes, &addresses, later->interface, later->address);
    decode_problem(&element, "%s overlaps %s of interface `%s` in VRF `%s`",
                   ip_prefix_text(&later->network, text), ip_prefix_text(&earlier->network, other),
                   config->list[earlier->interface].name, later->vrf);
}

/* Sorted, a prefix comes after those around it, and what lies between the two lies inside the outer
 * one: so the chain of `covering` is all that a prefix can overlap. */
static void connect_prefixes(struct interfaces_config *config, const struct decode *nodes,
                             size_t count) {
    struct connected_prefix *list = interface_allocate(count, sizeof(list[0]));
    size_t used = 0;

    for (unsigned i = 0; i < config->count; i++) {
        for (unsigned a = 0; a < config->list[i].address_count; a++) {
            const struct ip_prefix *prefix = &config->list[i].addresses[a];

            if (prefix->address.family != 0 && !is_link_local(&prefix->address))
                list[used++] = (struct connected_prefix){
                    .vrf = config->list[i].vrf,
                    .network = ip_prefix_network(prefix),
                    .interface = (uint16_t)i,
                    .address = (uint16_t)a,
                };
        }
    }
    qsort(list, used, sizeof(list[0]), compare_connected);
    for (size_t i = 0; i < used; i++) {
        int32_t at = (int32_t)i - 1;

        while (at >= 0 && (strcmp(list[at].vrf, list[i].vrf) != 0 ||
                           !ip_prefix_overlaps(&list[at].network, &list[i].network)))
            at = list[at].covering;
        list[i].covering = at;
        while (at >= 0 && list[at].interface == list[i].interface)
            at = list[at].covering;
        if (at >= 0)
            check_overlap(config, nodes, &list[at], &list[i]);
    }
    config->connected = list;
    config->connected_count = used;
}

/* --- all of it --- */

void interfaces_config_check(struct interfaces_config *config, const struct decode *nodes) {
    size_t addresses = 0;

    sort_names(config);
    for (unsigned i = 0; i < config->count; i++) {
        check_place(config, nodes, i);
        if (config->list[i].parent[0] == '\0')
            complete_mtu(&config->list[i], &nodes[i], NULL);
    }
    for (unsigned i = 0; i < config->count; i++) {
        struct interface_config *interface = &config->list[i];
        const struct interface_config *parent = check_parent(config, &nodes[i], interface);

        if (interface->parent[0])
            complete_mtu(interface, &nodes[i], parent);
        check_mtu(interface, &nodes[i]);
        complete_tcp_mss(interface);
        addresses += interface->address_count;
    }
    check_duplicates(config, nodes, addresses);
    connect_prefixes(config, nodes, addresses);
}
