/*
 * The live interfaces and VRFs, and the table that workers read.
 *
 * The control thread changes `struct interface` in place, builds a new table from all of them,
 * publishes it by one pointer swap and retires the old one. Listeners are told of each change; the
 * table is ahead of them, so that what a listener sends is not refused by a worker.
 *
 * Ids are given out round robin and rest for a grace period after use, because a worker may count a
 * packet that was on its way; counters are never reset, so a new owner starts from a baseline.
 *
 * What can go wrong: memory for a table runs out. A configuration that is half in force cannot be
 * kept, so that ends the program.
 */
#include "interface/interface.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/log.h"
#include "core/rcu.h"
#include "interface/interface_internal.h"

enum { LINK_POLL_MSEC = 200 };

/* An interface, and what only this file knows of it. */
struct live {
    struct interface interface; /* first: pointers are converted */
    bool told_up;               /* what the listeners know */
    bool twin_working;          /* the host twin exists in Linux */
    bool kept;                  /* by the configuration being applied */
};

enum id_state { ID_FREE, ID_USED, ID_GONE, ID_RESTING };

struct vrf {
    bool used, told;
    uint32_t table;
    char name[INTERFACE_NAME_TEXT];
};

const struct interface_table *_Atomic interface_table_published;

static struct live *interfaces[INTERFACES_MAX];
static uint8_t id_states[INTERFACES_MAX];
static uint16_t last_id;
static struct vrf vrfs[VRFS_MAX];
static struct interface_listener *listeners;
static struct event_timer link_timer;

/* Tells all listeners that have the member. */
#define TELL(member, ...)                                                 \
    do {                                                                  \
        for (struct interface_listener *listener_ = listeners; listener_; \
             listener_ = listener_->next) {                               \
            if (listener_->member)                                        \
                listener_->member(__VA_ARGS__);                           \
        }                                                                 \
    } while (0)

void *interface_allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);

    if (!memory) {
        log_error("interface", "out of memory");
        abort();
    }
    return memory;
}

void interface_listen(struct interface_listener *listener) {
    struct interface_listener **end = &listeners;

    while (*end && *end != listener)
        end = &(*end)->next;
    *end = listener;
}

/* --- finding --- */

static struct live *live(struct interface *interface) {
    return (struct live *)interface;
}

struct interface *interface_by_id(uint16_t id) {
    return id < INTERFACES_MAX && interfaces[id] ? &interfaces[id]->interface : NULL;
}

struct interface *interface_next(const struct interface *previous) {
    for (unsigned id = previous ? previous->id + 1u : 1; id < INTERFACES_MAX; id++) {
        if (interfaces[id])
            return &interfaces[id]->interface;
    }
    return NULL;
}

struct interface *interface_by_name(const char *name) {
    struct interface *interface = NULL;

    while ((interface = interface_next(interface)) && strcmp(interface->name, name) != 0)
        ;
    return interface;
}

struct interface *interface_by_if_id(uint32_t if_id) {
    struct interface *interface = NULL;

    while ((interface = interface_next(interface)) && interface->if_id != if_id)
        ;
    return interface;
}

struct interface *interface_on_port(uint16_t port) {
    struct interface *interface = NULL;

    while ((interface = interface_next(interface)) &&
           (interface->parent || interface->port->id != port))
        ;
    return interface;
}

/* Its place in the list, or `count`. */
static unsigned find_address(const struct interface_address *list, unsigned count,
                             const struct ip_address *address) {
    unsigned i = 0;

    while (i < count && ip_address_compare(&list[i].prefix.address, address) != 0)
        i++;
    return i;
}

/* The first valid address of the family that is, or is not, IPv6 link-local. */
static const struct interface_address *find_valid(const struct interface *interface, uint8_t family,
                                                  bool link_local) {
    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *address = &interface->addresses[i];
        const struct ip_address *ip = &address->prefix.address;

        if (address->state == ADDRESS_VALID && ip->family == family &&
            (family == AF_INET6 && ip_address_is_link_local(ip)) == link_local)
            return address;
    }
    return NULL;
}

const struct interface_address *interface_link_local(const struct interface *interface) {
    return find_valid(interface, AF_INET6, true);
}

const struct interface_address *interface_source(const struct interface *interface,
                                                 uint8_t family) {
    const struct interface_address *address = find_valid(interface, family, false);

    return address || family != AF_INET6 ? address : interface_link_local(interface);
}

/* --- publishing --- */

static void fill_entry(struct interface_entry *entry, const struct interface *interface) {
    const struct interface_address *ipv4 = interface_source(interface, AF_INET);
    const struct interface_address *ipv6 = interface_source(interface, AF_INET6);
    const struct interface_address *link_local = interface_link_local(interface);

    *entry = (struct interface_entry){
        .id = interface->id,
        .port = interface->port->id,
        .vlan = interface->vlan,
        .vrf = interface->vrf,
        .mtu = interface->mtu,
        .flags = (uint16_t)((interface->up ? INTERFACE_UP : 0) |
                            (interface->if_id != 0 ? INTERFACE_TUNNEL : 0) |
                            (((const struct live *)interface)->twin_working ? INTERFACE_TWIN : 0)),
        .tcp_mss = interface->tcp_mss,
        .reverse_path = (uint8_t)interface->reverse_path,
    };
    memcpy(&entry->mac_bits, interface->mac, sizeof(interface->mac));
    if (ipv4)
        memcpy(&entry->ipv4_source, ipv4->prefix.address.bytes, sizeof(entry->ipv4_source));
    if (ipv6)
        memcpy(entry->ipv6_source, ipv6->prefix.address.bytes, sizeof(entry->ipv6_source));
    if (link_local)
        memcpy(entry->ipv6_link_local, link_local->prefix.address.bytes,
               sizeof(entry->ipv6_link_local));
}

static void free_table(void *owner, void *memory, size_t size) {
    (void)owner;
    (void)size;
    free(memory);
}

/* The table and the VLAN maps of the ports that need one are a single piece of memory. */
static void publish(void) {
    bool has_vlans[PORTS_MAX] = {0};
    size_t maps = 0, size;

    for (struct interface *i = NULL; (i = interface_next(i));) {
        if (i->vlan && i->port->id < PORTS_MAX && !has_vlans[i->port->id]) {
            has_vlans[i->port->id] = true;
            maps++;
        }
    }
    size = sizeof(struct interface_table) + maps * VLAN_IDS * sizeof(uint16_t);
    size = RTE_ALIGN_CEIL(size, RTE_CACHE_LINE_SIZE);

    struct interface_table *table = aligned_alloc(RTE_CACHE_LINE_SIZE, size);

    if (!table) {
        log_error("interface", "out of memory for the table of interfaces");
        abort();
    }
    memset(table, 0, size);

    uint16_t *map = (uint16_t *)(table + 1);

    for (struct interface *i = NULL; (i = interface_next(i));) {
        struct port_interfaces *port;

        fill_entry(&table->entry[i->id], i);
        table->reverse_path |= i->reverse_path != REVERSE_PATH_OFF;
        if (i->port->id >= PORTS_MAX) /* its port was lost */
            continue;
        port = &table->port[i->port->id];
        port->rx_checksum_checked = i->port->rx_ipv4_checksum;
        if (!i->vlan) {
            port->untagged = i->id;
            continue;
        }
        if (!port->by_vlan) {
            port->by_vlan = map;
            map += VLAN_IDS;
        }
        ((uint16_t *)(uintptr_t)port->by_vlan)[i->vlan] = i->id;
    }

    const struct interface_table *old =
        atomic_exchange_explicit(&interface_table_published, table, memory_order_acq_rel);

    if (old)
        rcu_retire(NULL, free_table, NULL, (void *)(uintptr_t)old, 0);
}

void interface_set_twin_working(struct interface *interface, bool working) {
    if (live(interface)->twin_working == working)
        return;
    live(interface)->twin_working = working;
    if (atomic_load_explicit(&interface_table_published, memory_order_relaxed))
        publish();
}

/* --- up and down --- */

static bool should_be_up(const struct interface *interface) {
    if (interface->if_id != 0)
        return interface->enabled;
    return interface->enabled && (!interface->parent || interface->parent->enabled) &&
           interface->port->link_up && interface_ports_served(interface->port);
}

/* Tells those whose state is not what the listeners know. A listener may change states itself,
 * which comes back here: so each is looked at just before it is told. */
static void tell_up_down(bool up, bool vlans) {
    for (unsigned id = 1; id < INTERFACES_MAX; id++) {
        struct live *it = interfaces[id];

        if (!it || it->interface.up != up || it->told_up == up ||
            (it->interface.vlan != 0) != vlans)
            continue;
        it->told_up = up;
        if (up)
            TELL(up, &it->interface);
        else
            TELL(down, &it->interface);
    }
}

void interface_update(void) {
    bool changed = false;

    for (struct interface *i = NULL; (i = interface_next(i));) {
        bool up = should_be_up(i);

        changed |= up != i->up;
        i->up = up;
    }
    if (!changed)
        return;
    publish();
    tell_up_down(false, true); /* VLANs go before their parents and come after them */
    tell_up_down(false, false);
    tell_up_down(true, false);
    tell_up_down(true, true);
}

void interface_set_enabled(struct interface *interface, bool enabled) {
    if (interface->enabled == enabled)
        return;
    interface->enabled = enabled;
    log_notice("interface", "%s: %s", interface->name, enabled ? "enabled" : "disabled");
    interface_update();
}

static void link_expired(struct event_timer *timer) {
    if (interface_ports_poll())
        interface_update();
    event_timer_start(timer, LINK_POLL_MSEC);
}

/* --- addresses --- */

void interface_set_address_state(struct interface *interface, const struct ip_address *address,
                                 enum address_state state) {
    unsigned place = find_address(interface->addresses, interface->address_count, address);
    struct interface_address *found = &interface->addresses[place];

    if (place == interface->address_count || found->state == state)
        return;
    found->state = state;
    publish();
    TELL(address_changed, interface, found);
}

/* Modified EUI-64 (RFC 4291 appendix A) behind fe80::/64. */
static struct ip_prefix link_local_of(const uint8_t mac[6]) {
    const uint8_t bytes[16] = {0xfe,       0x80,   0,      0,    0,    0,      0,      0,
                               mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};

    return (struct ip_prefix){.address = ip6_address(bytes), .length = 64};
}

/* The addresses an interface is to have: `out` holds INTERFACE_ADDRESSES_MAX. In a tunnel there are
 * no multicast neighbours to ask whether an address is free, and no use for a link-local one. */
static unsigned desired_addresses(const struct interface_config *config, const uint8_t mac[6],
                                  struct interface_address *out) {
    bool link_local = false;
    unsigned count = 0;

    for (unsigned i = 0; i < config->address_count; i++) {
        const struct ip_prefix *prefix = &config->addresses[i];
        bool ipv6 = prefix->address.family == AF_INET6;

        link_local |= ipv6 && ip_address_is_link_local(&prefix->address);
        out[count++] = (struct interface_address){
            .prefix = *prefix,
            .state = ipv6 && config->if_id == 0 ? ADDRESS_TENTATIVE : ADDRESS_VALID};
    }
    if (interface_config_uses_ipv6(config) && !link_local && config->if_id == 0)
        out[count++] = (struct interface_address){
            .prefix = link_local_of(mac), .automatic = true, .state = ADDRESS_TENTATIVE};
    return count;
}

static const struct interface_address *find_prefix(const struct interface_address *list,
                                                   unsigned count, const struct ip_prefix *prefix) {
    for (unsigned i = 0; i < count; i++) {
        if (ip_prefix_compare(&list[i].prefix, prefix) == 0)
            return &list[i];
    }
    return NULL;
}

static bool network_stays(const struct interface_address *list, unsigned count,
                          const struct ip_prefix *prefix) {
    struct ip_prefix network = ip_prefix_network(prefix);

    for (unsigned i = 0; i < count; i++) {
        struct ip_prefix other = ip_prefix_network(&list[i].prefix);

        if (ip_prefix_compare(&other, &network) == 0)
            return true;
    }
    return false;
}

static void remove_address(struct interface *interface, unsigned index) {
    struct interface_address gone = interface->addresses[index];

    interface->address_count--;
    memmove(&interface->addresses[index], &interface->addresses[index + 1],
            (interface->address_count - index) * sizeof(gone));
    TELL(address_removed, interface, &gone);
}

/* Removes what is not desired, but spares for now what has a successor in the same prefix. Not an
 * address that gets another length: who listens would hear of its end when it is there again. */
static void remove_addresses(struct interface *interface, const struct interface_address *desired,
                             unsigned count, bool spare) {
    for (unsigned i = interface->address_count; i > 0; i--) {
        const struct ip_prefix *prefix = &interface->addresses[i - 1].prefix;

        if (find_prefix(desired, count, prefix) ||
            (spare && network_stays(desired, count, prefix) &&
             find_address(desired, count, &prefix->address) == count))
            continue;
        remove_address(interface, i - 1);
    }
}

static void add_addresses(struct interface *interface, const struct interface_address *desired,
                          unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        if (find_prefix(interface->addresses, interface->address_count, &desired[i].prefix))
            continue;
        if (interface->address_count == INTERFACE_ADDRESSES_MAX)
            remove_addresses(interface, desired, count, false);

        struct interface_address *added = &interface->addresses[interface->address_count++];

        *added = desired[i];
        TELL(address_added, interface, added);
    }
}

/* The order of the configuration decides which address is a packet's source. */
static void sort_addresses(struct interface *interface, const struct interface_address *desired,
                           unsigned count) {
    struct interface_address old[INTERFACE_ADDRESSES_MAX];
    unsigned old_count = interface->address_count;

    memcpy(old, interface->addresses, sizeof(old));
    for (unsigned i = 0; i < count; i++) {
        const struct interface_address *own = find_prefix(old, old_count, &desired[i].prefix);

        interface->addresses[i] = desired[i];
        if (own)
            interface->addresses[i].state = own->state;
    }
    interface->address_count = count;
}

/* --- coming and going --- */

static void id_rested(void *owner, void *memory, size_t size) {
    (void)memory;
    (void)size;
    id_states[(uintptr_t)owner] = ID_FREE;
}

/* Ids whose interfaces are gone rest, from when workers may still see a table with them. */
static void rest_ids(void) {
    for (uintptr_t id = 1; id < INTERFACES_MAX; id++) {
        if (id_states[id] != ID_GONE)
            continue;
        id_states[id] = ID_RESTING;
        rcu_retire(NULL, id_rested, (void *)id, NULL, 0);
    }
}

static uint16_t next_free_id(void) {
    for (unsigned i = 1; i < INTERFACES_MAX; i++) {
        unsigned id = (last_id + i - 1) % (INTERFACES_MAX - 1) + 1;

        if (id_states[id] == ID_FREE)
            return (uint16_t)id;
    }
    return 0;
}

static uint16_t take_id(void) {
    uint16_t id = next_free_id();

    if (id == 0) {
        /* A configuration has no more interfaces than there are ids, so some of them rest. */
        rcu_synchronize();
        rcu_reclaim();
        id = next_free_id();
    }
    id_states[id] = ID_USED;
    last_id = id;
    return id;
}

static void take_down(struct live *it) {
    it->interface.up = false;
    if (it->told_up) {
        it->told_up = false;
        TELL(down, &it->interface);
    }
}

static void tell_gone(struct interface *interface) {
    while (interface->address_count > 0)
        remove_address(interface, interface->address_count - 1);
    TELL(removed, interface);
}

static void remove_interface(struct live *it) {
    uint16_t id = it->interface.id;

    tell_gone(&it->interface);
    log_info("interface", "%s: removed", it->interface.name);
    interfaces[id] = NULL;
    id_states[id] = ID_GONE;
    free(it);
}

static struct port *port_of(const struct interface_config *config, const struct interface *parent) {
    if (config->if_id != 0)
        return interface_ports_tunnel();
    return parent ? parent->port : interface_ports_find(config->device);
}

static void add_interface(const struct interface_config *config) {
    struct interface *parent = config->parent[0] ? interface_by_name(config->parent) : NULL;
    struct port *port = port_of(config, parent);
    struct interface_address desired[INTERFACE_ADDRESSES_MAX];
    struct live *it = interface_allocate(1, sizeof(*it));
    struct interface *interface = &it->interface;
    const uint8_t *mac = parent ? parent->mac : port->mac;

    interface->id = take_id();
    snprintf(interface->name, sizeof(interface->name), "%s", config->name);
    interface->port = port;
    interface->parent = parent;
    interface->vlan = config->vlan;
    interface->if_id = config->if_id;
    interface->vrf = (uint16_t)vrf_by_name(config->vrf);
    interface->mtu = config->mtu;
    interface->tcp_mss = config->tcp_mss;
    interface->reverse_path = config->reverse_path;
    memcpy(interface->mac, parent && config->has_mac ? config->mac : mac, sizeof(interface->mac));
    interface->enabled = config->enabled;
    snprintf(interface->host_twin, sizeof(interface->host_twin), "%s", config->host_twin);
    interface->router_advertisement = config->router_advertisement;
    it->kept = true;
    interface_counters_begin(interface->id, port);
    interfaces[interface->id] = it;
    if (parent)
        log_info("interface", "%s: added as VLAN %u of %s", config->name, config->vlan,
                 parent->name);
    else if (config->if_id != 0)
        log_info("interface", "%s: added as IPsec tunnel interface %u", config->name,
                 config->if_id);
    else
        log_info("interface", "%s: added on %s", config->name, config->device);
    TELL(added, interface);
    add_addresses(interface, desired, desired_addresses(config, interface->mac, desired));
}

/* A port that was closed and opened again may have another ethdev id, which features keep in their
 * next hops. To them the interface is the same as before: it goes down, changes, and comes up
 * again. */
void interface_move_port(const struct port *from, struct port *to) {
    bool same = from->id == to->id;

    for (int vlans = 1; !same && vlans >= 0; vlans--) {
        for (struct interface *i = NULL; (i = interface_next(i));) {
            if (i->port == from && (i->vlan != 0) == vlans)
                take_down(live(i));
        }
    }
    for (int vlans = 0; vlans <= 1; vlans++) {
        for (struct interface *i = NULL; (i = interface_next(i));) {
            if (i->port != from || (i->vlan != 0) != vlans)
                continue;
            i->port = to;
            interface_counters_move(i->id, from, to);
            if (!same)
                TELL(changed, i);
        }
    }
    publish();
}

/* --- applying a configuration --- */

/* Can the live interface become the configured one without being made anew? Its parent was looked
 * at before it. */
static bool can_stay(const struct interface *interface, const struct interface_config *config) {
    const struct interface *parent = interface->parent;
    const uint8_t *mac;

    if (interface->vrf != vrf_by_name(config->vrf) || interface->vlan != config->vlan ||
        interface->if_id != config->if_id)
        return false;
    if (interface->if_id != 0)
        return true;
    if (!parent)
        return config->device[0] && interface->port == interface_ports_find(config->device) &&
               memcmp(interface->mac, interface->port->mac, sizeof(interface->mac)) == 0;
    mac = config->has_mac ? config->mac : parent->mac;
    return !config->device[0] && ((const struct live *)parent)->kept &&
           strcmp(parent->name, config->parent) == 0 &&
           memcmp(interface->mac, mac, sizeof(interface->mac)) == 0;
}

static void mark_kept(const struct interfaces_config *new, bool vlans) {
    for (struct interface *i = NULL; (i = interface_next(i));) {
        int index;

        if ((i->vlan != 0) != vlans)
            continue;
        index = interfaces_config_find(new, i->name);
        live(i)->kept = index >= 0 && can_stay(i, &new->list[index]);
    }
}

static void remove_unkept(bool vlans) {
    for (unsigned id = 1; id < INTERFACES_MAX; id++) {
        if (interfaces[id] && !interfaces[id]->kept &&
            (interfaces[id]->interface.vlan != 0) == vlans)
            remove_interface(interfaces[id]);
    }
}

static bool same_advertised(const struct advertised_prefix *a, const struct advertised_prefix *b) {
    return ip_prefix_compare(&a->prefix, &b->prefix) == 0 &&
           a->valid_lifetime == b->valid_lifetime &&
           a->preferred_lifetime == b->preferred_lifetime && a->on_link == b->on_link &&
           a->autonomous == b->autonomous;
}

static bool same_advertisement(const struct router_advertisement *a,
                               const struct router_advertisement *b) {
    if (a->enabled != b->enabled || a->interval != b->interval || a->lifetime != b->lifetime ||
        a->managed != b->managed || a->other != b->other || a->send_mtu != b->send_mtu ||
        a->default_prefixes != b->default_prefixes || a->prefix_count != b->prefix_count)
        return false;
    for (unsigned i = 0; i < a->prefix_count; i++) {
        if (!same_advertised(&a->prefixes[i], &b->prefixes[i]))
            return false;
    }
    return true;
}

static bool same_settings(const struct interface *interface,
                          const struct interface_config *config) {
    return interface->mtu == config->mtu && strcmp(interface->host_twin, config->host_twin) == 0 &&
           same_advertisement(&interface->router_advertisement, &config->router_advertisement);
}

static void change_interface(struct interface *interface, const struct interface_config *old,
                             const struct interface_config *new) {
    if (!old || old->enabled != new->enabled)
        interface->enabled = new->enabled;
    /* Only workers care, who get a new table after all changes. */
    interface->tcp_mss = new->tcp_mss;
    interface->reverse_path = new->reverse_path;
    if (same_settings(interface, new))
        return;
    interface->mtu = new->mtu;
    snprintf(interface->host_twin, sizeof(interface->host_twin), "%s", new->host_twin);
    interface->router_advertisement = new->router_advertisement;
    TELL(changed, interface);
}

static const struct interface_config *find_config(const struct interfaces_config *config,
                                                  const char *name) {
    int index = config ? interfaces_config_find(config, name) : -1;

    return index < 0 ? NULL : &config->list[index];
}

/* First what goes from all interfaces, then what comes: an address may move from one to another. */
static void change_kept(const struct interfaces_config *old, const struct interfaces_config *new) {
    struct interface_address desired[INTERFACE_ADDRESSES_MAX];

    for (struct interface *i = NULL; (i = interface_next(i));) {
        unsigned count = desired_addresses(find_config(new, i->name), i->mac, desired);

        remove_addresses(i, desired, count, true);
    }
    for (struct interface *i = NULL; (i = interface_next(i));) {
        const struct interface_config *config = find_config(new, i->name);
        unsigned count = desired_addresses(config, i->mac, desired);

        change_interface(i, find_config(old, i->name), config);
        add_addresses(i, desired, count);
        remove_addresses(i, desired, count, false);
        sort_addresses(i, desired, count);
    }
}

void interface_apply(const struct interfaces_config *old, const struct interfaces_config *new) {
    mark_kept(new, false);
    mark_kept(new, true);

    for (struct interface *i = NULL; (i = interface_next(i));)
        i->up &= live(i)->kept;
    publish();
    tell_up_down(false, true);
    tell_up_down(false, false);
    remove_unkept(true);
    remove_unkept(false);
    publish();
    rest_ids();

    change_kept(old, new);
    for (unsigned i = 0; i < new->count; i++) {
        if (new->list[i].device[0] && !interface_by_name(new->list[i].name))
            add_interface(&new->list[i]);
    }
    for (unsigned i = 0; i < new->count; i++) {
        if (!new->list[i].device[0] && !interface_by_name(new->list[i].name))
            add_interface(&new->list[i]);
    }
    publish();
    interface_update();
}

/* --- VRFs --- */

const char *vrf_name(uint16_t vrf) {
    return vrf < VRFS_MAX && vrfs[vrf].used ? vrfs[vrf].name : NULL;
}

uint32_t vrf_table(uint16_t vrf) {
    return vrf < VRFS_MAX ? vrfs[vrf].table : 0;
}

int vrf_by_name(const char *name) {
    for (int vrf = 0; vrf < VRFS_MAX; vrf++) {
        if (vrfs[vrf].used && strcmp(vrfs[vrf].name, name) == 0)
            return vrf;
    }
    return -ENOENT;
}

bool vrf_room(const struct vrfs_config *config, struct problems *problems) {
    unsigned room = 0, wanted = 0;

    for (unsigned vrf = 0; vrf < VRFS_MAX; vrf++)
        room += !vrfs[vrf].used;
    for (unsigned i = 0; i < config->count; i++)
        wanted += vrf_by_name(config->list[i].name) < 0;
    if (wanted <= room)
        return true;
    problems_add(problems, "$.vrfs",
                 "%u VRFs are to be added while those to be removed still exist, and only %u more "
                 "are possible; remove the old ones first",
                 wanted, room);
    return false;
}

static void add_vrf(uint16_t vrf, const char *name, uint32_t table) {
    vrfs[vrf] = (struct vrf){.used = true, .table = table};
    snprintf(vrfs[vrf].name, sizeof(vrfs[vrf].name), "%s", name);
}

static uint16_t free_vrf(void) {
    uint16_t vrf = VRF_DEFAULT + 1;

    while (vrfs[vrf].used)
        vrf++;
    return vrf;
}

void vrf_apply(const struct vrfs_config *config) {
    bool changed[VRFS_MAX] = {0};

    for (unsigned i = 0; i < config->count; i++) {
        const struct vrf_config *wanted = &config->list[i];
        int vrf = vrf_by_name(wanted->name);

        if (vrf < 0) {
            add_vrf(free_vrf(), wanted->name, wanted->table);
        } else if (vrfs[vrf].table != wanted->table) {
            vrfs[vrf].table = wanted->table;
            changed[vrf] = true;
        }
    }
    for (uint16_t vrf = 0; vrf < VRFS_MAX; vrf++) {
        if (vrfs[vrf].used && !vrfs[vrf].told) {
            vrfs[vrf].told = true;
            TELL(vrf_added, vrf);
        } else if (changed[vrf]) {
            TELL(vrf_changed, vrf);
        }
    }
}

void vrf_drop_unused(const struct vrfs_config *config) {
    for (uint16_t vrf = VRF_DEFAULT + 1; vrf < VRFS_MAX; vrf++) {
        bool wanted = false;

        for (unsigned i = 0; i < config->count && !wanted; i++)
            wanted = strcmp(vrfs[vrf].name, config->list[i].name) == 0;
        if (!vrfs[vrf].used || wanted)
            continue;
        TELL(vrf_removed, vrf);
        vrfs[vrf] = (struct vrf){0};
    }
}

/* --- start and end --- */

int interface_init(void) {
    if (atomic_load(&interface_table_published))
        return 0;
    add_vrf(VRF_DEFAULT, VRF_DEFAULT_NAME, VRF_DEFAULT_TABLE);
    publish();
    interface_counters_init();
    link_timer.expired = link_expired;
    event_timer_start(&link_timer, LINK_POLL_MSEC);
    return 0;
}

void interface_free(void) {
    event_timer_stop(&link_timer);
    interface_counters_stop();
    free((void *)(uintptr_t)atomic_exchange(&interface_table_published, NULL));
    for (unsigned id = 1; id < INTERFACES_MAX; id++) {
        free(interfaces[id]);
        interfaces[id] = NULL;
        id_states[id] = ID_FREE;
    }
    memset(vrfs, 0, sizeof(vrfs));
}
