/*
 * The ports that the configuration uses, and how they change with it.
 *
 * A port stays open from one configuration to the next when its device stays; what may change while
 * it runs is changed in place. What may not (numbers of queues, descriptors, with many devices the
 * MTU) costs a moment: the workers let go of the port, it is closed and opened again.
 *
 * What can go wrong: nearly everything here asks hardware or memory for something. prepare() does
 * all of it, the undisturbing steps first, and undoes what it did when a later step fails. Only
 * when a port that was closed for the sake of a change cannot be opened again as it was is
 * something lost: its interfaces then stay down, on a stand-in port, until the next configuration.
 */
#include <errno.h>
#include <rte_pci.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mbuf_pool.h"
#include "core/section.h"
#include "core/worker.h"
#include "interface/interface_internal.h"

enum {
    /* Buffers beyond those in descriptor rings, once per NUMA node with ports: rings between
     * threads, hold queues of neighbours, packets that the router makes. */
    BUFFERS_PER_WORKER = 2048,
    BUFFERS_CONTROL = 1024,
    LIST_MAX = 2 * PORTS_MAX, /* for a moment both old and new ports are in the list */
};

struct open_port {
    struct port *port; /* NULL: closed, and interfaces that are left sit on the stand-in */
    struct port stand_in;
    char device[PORT_DEVICE_TEXT];
    char path[2 * PORT_DEVICE_TEXT]; /* of the interface, for problems; cut short when longer */
    uint32_t buffers;                /* reserved for it */
    unsigned node;                   /* where they were taken from */
    struct rte_mempool *pool;
    bool used;                  /* by the configuration in force */
    bool wanted;                /* by the one being prepared */
    bool served;                /* workers poll it */
    bool link_told;             /* the link was logged once */
    bool fresh;                 /* opened by the prepare that runs */
    bool reopen;                /* the prepare that runs closes it, to open it again */
    bool paused;                /* workers must let go of it */
    bool updated;               /* by the prepare that runs */
    struct port_request before; /* the update */
};

static struct open_port *list[LIST_MAX];
static unsigned list_count;

/* What a node's ports share; reserved while there are any. */
static struct {
    unsigned ports;
    uint32_t buffers;
    struct rte_mempool *pool; /* that they were taken from */
} nodes[RTE_MAX_NUMA_NODES];

/* --- device strings --- */

/* "net_tap0,iface=x" is the device net_tap0 whatever its arguments are; of a PCI device each
 * `port=N` is a port of its own. */
static void device_key(const char *device, char *key, size_t size) {
    char name[PORT_DEVICE_TEXT], index[16] = "0";
    struct rte_pci_addr address;

    snprintf(name, sizeof(name), "%.*s", (int)strcspn(device, ","), device);
    if (rte_pci_addr_parse(name, &address) != 0) {
        snprintf(key, size, "%s", name);
        return;
    }
    port_device_argument(device, "port", 0, index, sizeof(index));
    snprintf(key, size, "%x:%x:%x.%x/%lu", address.domain, address.bus, address.devid,
             address.function, strtoul(index, NULL, 10));
}

bool interface_device_same(const char *a, const char *b) {
    char keys[2][PORT_DEVICE_TEXT + 32];

    device_key(a, keys[0], sizeof(keys[0]));
    device_key(b, keys[1], sizeof(keys[1]));
    return strcmp(keys[0], keys[1]) == 0;
}

/* --- packet buffers --- */

static struct open_port *opening;
static uint32_t opening_buffers;

static unsigned node_index(int numa_node) {
    return numa_node < 0 || numa_node >= RTE_MAX_NUMA_NODES ? 0 : (unsigned)numa_node;
}

static void release_buffers(struct open_port *it) {
    if (it->buffers == 0)
        return;
    mbuf_pool_release(it->pool, it->buffers);
    it->buffers = 0;
    if (--nodes[it->node].ports == 0) {
        mbuf_pool_release(nodes[it->node].pool, nodes[it->node].buffers);
        nodes[it->node].buffers = 0;
    }
}

/* The device's node is known only after it was probed, so port_open() asks back from here. What the
 * workers need for themselves comes out of the pool of a node's first port. */
static struct rte_mempool *pool_for_opening(int numa_node) {
    unsigned node = node_index(numa_node);
    uint32_t shared = 0;

    if (opening->buffers == 0) {
        if (nodes[node].ports == 0)
            shared = workers_count() * BUFFERS_PER_WORKER + BUFFERS_CONTROL;
        if (mbuf_pool_reserve(numa_node, opening_buffers + shared, &opening->pool) != 0)
            return NULL;
        if (shared > 0)
            nodes[node].pool = opening->pool;
        nodes[node].ports++;
        nodes[node].buffers += shared;
        opening->buffers = opening_buffers;
        opening->node = node;
    }
    return opening->pool;
}

/* --- opening and closing --- */

static int open_device(struct open_port *it, const struct port_request *request,
                       struct problems *problems) {
    unsigned workers = RTE_MAX(workers_count(), 1u);

    opening = it;
    /* Each worker may hold a burst in its transmit buffer. */
    opening_buffers = port_request_mbufs(request, workers) + workers * BURST_MAX;

    int error = port_open(request, workers, pool_for_opening, it->path, &it->port, problems);

    opening = NULL;
    if (error) {
        it->port = NULL;
        release_buffers(it);
        return error;
    }
    snprintf(it->device, sizeof(it->device), "%s", request->device);
    return 0;
}

static void close_device(struct open_port *it) {
    port_close(it->port);
    it->port = NULL;
    release_buffers(it);
}

static void forget(struct open_port *it) {
    unsigned i = 0;

    while (list[i] != it)
        i++;
    memmove(&list[i], &list[i + 1], (--list_count - i) * sizeof(list[0]));
    free(it);
}

static void drop(struct open_port *it) {
    if (it->port)
        close_device(it);
    forget(it);
}

static struct open_port *find_open(const char *device) {
    for (unsigned i = 0; i < list_count; i++) {
        if (list[i]->port && interface_device_same(list[i]->device, device))
            return list[i];
    }
    return NULL;
}

/* --- what the configuration asks for --- */

static struct port_request make_request(const struct interfaces_config *config,
                                        const struct interface_config *interface) {
    struct port_request request = {
        .mtu = interface->mtu,
        .rx_queues = interface->rx_queues,
        .tx_queues = interface->tx_queues,
        .rx_descriptors = interface->rx_descriptors,
        .tx_descriptors = interface->tx_descriptors,
        .has_mac = interface->has_mac,
        .promiscuous = interface->promiscuous,
    };

    memcpy(request.device, interface->device, sizeof(request.device));
    memcpy(request.mac, interface->mac, sizeof(request.mac));
    for (unsigned i = 0; i < config->count; i++) {
        const struct interface_config *vlan = &config->list[i];

        if (vlan->device[0] || strcmp(vlan->parent, interface->name) != 0)
            continue;
        request.vlans = true;
        /* The port filters by one address; a VLAN with another one must get past that. */
        request.promiscuous |= vlan->has_mac;
    }
    return request;
}

static bool same_request(const struct port_request *a, const struct port_request *b) {
    return strcmp(a->device, b->device) == 0 && a->mtu == b->mtu && a->rx_queues == b->rx_queues &&
           a->tx_queues == b->tx_queues && a->rx_descriptors == b->rx_descriptors &&
           a->tx_descriptors == b->tx_descriptors && a->has_mac == b->has_mac &&
           (!a->has_mac || memcmp(a->mac, b->mac, sizeof(a->mac)) == 0) &&
           a->promiscuous == b->promiscuous && a->vlans == b->vlans;
}

/* A new entry of the list for the interface's device, not yet open. */
static struct open_port *new_entry(const struct interface_config *interface,
                                   struct problems *problems) {
    char *path = interface_config_path(interface->name);
    struct open_port *it = NULL;

    if (list_count < LIST_MAX) {
        it = interface_allocate(1, sizeof(*it));
        snprintf(it->path, sizeof(it->path), "%s", path);
        it->wanted = it->fresh = true;
        list[list_count++] = it;
    } else {
        problems_add(problems, path, "no more than %d ports are possible", PORTS_MAX);
    }
    free(path);
    return it;
}

static int open_new(const struct interface_config *interface, const struct port_request *request,
                    struct problems *problems) {
    struct open_port *it = new_entry(interface, problems);
    int error = it ? open_device(it, request, problems) : -ENOSPC;

    if (it && error)
        forget(it);
    return error;
}

/* First all new devices; those that are open already are only marked as wanted. */
static int open_missing(const struct interfaces_config *config, struct problems *problems) {
    for (unsigned i = 0; i < config->count; i++) {
        const struct interface_config *interface = &config->list[i];
        struct open_port *it = interface->device[0] ? find_open(interface->device) : NULL;

        if (!interface->device[0])
            continue;
        if (it) {
            char *path = interface_config_path(interface->name);

            it->wanted = true;
            snprintf(it->path, sizeof(it->path), "%s", path);
            free(path);
            continue;
        }

        struct port_request request = make_request(config, interface);
        int error = open_new(interface, &request, problems);

        if (error)
            return error;
    }
    return 0;
}

static int update_running(const struct interfaces_config *config, struct problems *problems) {
    for (unsigned i = 0; i < config->count; i++) {
        const struct interface_config *interface = &config->list[i];
        struct open_port *it = interface->device[0] ? find_open(interface->device) : NULL;
        struct port_request request;
        int error;

        if (!it || it->fresh)
            continue;
        request = make_request(config, interface);
        if (same_request(&it->port->request, &request) ||
            !port_request_compatible(it->port, &request))
            continue;
        it->before = it->port->request;
        error = port_update(it->port, &request, it->path, problems);
        if (error)
            return error;
        it->updated = true;
    }
    return 0;
}

/* --- opening again --- */

/* The workers take up, or let go of, what interface_ports() says now. */
static void tell_workers(void) {
    if (config_after_commit)
        config_after_commit();
}

/* The interfaces on the marked ports go down, workers let go of the ports, and they are closed. */
static void close_marked(void) {
    for (unsigned i = 0; i < list_count; i++) {
        list[i]->paused = list[i]->reopen;
        list[i]->served &= !list[i]->reopen;
    }
    interface_update();
    tell_workers();
    for (unsigned i = 0; i < list_count; i++) {
        struct open_port *it = list[i];

        if (!it->reopen)
            continue;
        it->stand_in = *it->port;
        it->stand_in.link_up = it->stand_in.started = false;
        interface_move_port(it->port, &it->stand_in);
        close_device(it);
    }
}

static int reopen_changed(const struct interfaces_config *config, struct problems *problems) {
    bool any = false;

    for (unsigned i = 0; i < config->count; i++) {
        const struct interface_config *interface = &config->list[i];
        struct open_port *it = interface->device[0] ? find_open(interface->device) : NULL;
        struct port_request request;
        int error;

        if (!it || it->fresh)
            continue;
        request = make_request(config, interface);
        if (port_request_compatible(it->port, &request))
            continue;
        error =
            port_request_check(it->port, &request, workers_count(), it->pool, it->path, problems);
        if (error)
            return error;
        if (it->port->driver->no_hotplug) {
            problems_add(
                problems, it->path,
                "%s cannot be opened again while the router runs, which this change of its "
                "MTU, queues, descriptors or arguments would need; restart the router",
                it->device);
            return -EBUSY;
        }
        it->reopen = any = true;
    }
    if (!any)
        return 0;
    close_marked();
    for (unsigned i = 0; i < config->count; i++) {
        const struct interface_config *interface = &config->list[i];
        struct port_request request;
        int error;

        if (!interface->device[0] || find_open(interface->device))
            continue;
        log_notice("interface", "%s: the port is opened again with other settings",
                   interface->name);
        request = make_request(config, interface);
        error = open_new(interface, &request, problems);
        if (error)
            return error;
    }
    return 0;
}

/* Opens what was closed as it was before. */
static void restore_closed(void) {
    bool any = false;

    for (unsigned i = 0; i < list_count; i++) {
        struct open_port *it = list[i];
        struct problems problems = {0};

        it->reopen &= !it->port; /* otherwise it did not come to that */
        if (!it->reopen)
            continue;
        if (open_device(it, &it->stand_in.request, &problems) != 0) {
            log_error("interface",
                      "%s could not be opened again as it was before the change that failed; its "
                      "interfaces stay down until the next change of the configuration: %s",
                      it->device, problems_any(&problems) ? problems.list[0].message : "no reason");
            it->stand_in.id = UINT16_MAX;
        } else {
            interface_move_port(&it->stand_in, it->port);
            it->paused = false;
            any = true;
        }
        problems_free(&problems);
    }
    if (any)
        tell_workers();
    for (unsigned i = 0; i < list_count; i++) {
        list[i]->served |= list[i]->reopen && list[i]->port;
        list[i]->reopen = false;
    }
    interface_update();
}

/* --- the steps --- */

void interface_ports_abort(void) {
    for (unsigned i = list_count; i > 0; i--) {
        if (list[i - 1]->fresh)
            drop(list[i - 1]);
    }
    for (unsigned i = 0; i < list_count; i++) {
        struct open_port *it = list[i];
        struct problems problems = {0};

        if (it->updated && port_update(it->port, &it->before, it->path, &problems) != 0)
            log_error("interface", "%s could not be set back: %s", it->device,
                      problems_any(&problems) ? problems.list[0].message : "no reason");
        problems_free(&problems);
        it->updated = it->wanted = false;
    }
    restore_closed();
}

int interface_ports_prepare(const struct interfaces_config *config, struct problems *problems) {
    int error;

    for (unsigned i = 0; i < list_count; i++)
        list[i]->wanted = list[i]->fresh = list[i]->updated = list[i]->reopen = false;
    error = open_missing(config, problems);
    if (error == 0)
        error = update_running(config, problems);
    if (error == 0)
        error = reopen_changed(config, problems);
    if (error)
        interface_ports_abort();
    return error;
}

void interface_ports_commit(void) {
    for (unsigned i = 0; i < list_count; i++) {
        struct open_port *it = list[i];

        if (it->reopen) {
            struct open_port *successor = find_open(it->device);

            if (successor)
                interface_move_port(&it->stand_in, successor->port);
            it->wanted = false;
        }
        it->used = it->wanted;
        it->fresh = it->updated = it->reopen = false;
    }
}

void interface_ports_release(void) {
    for (unsigned i = list_count; i > 0; i--) {
        if (!list[i - 1]->used)
            drop(list[i - 1]);
    }
    for (unsigned i = 0; i < list_count; i++)
        list[i]->served = true;
    interface_ports_poll();
}

/* Carries nothing: who asks for an interface's port finds one that is not there. */
struct port *interface_ports_tunnel(void) {
    static const struct port_driver driver = {.name = "ipsec"};
    static struct port port = {
        .id = PORT_NONE, .driver = &driver, .kind = &driver, .numa_node = -1, .link_up = true};

    return &port;
}

struct port *interface_ports_find(const char *device) {
    struct open_port *it = find_open(device);

    return it ? it->port : NULL;
}

bool interface_ports_served(const struct port *port) {
    for (unsigned i = 0; i < list_count; i++) {
        if (list[i]->port == port)
            return list[i]->served && list[i]->used;
    }
    return false;
}

unsigned interface_ports(struct port *ports[PORTS_MAX]) {
    unsigned count = 0;

    for (unsigned i = 0; i < list_count && count < PORTS_MAX; i++) {
        if (list[i]->used && list[i]->port && !list[i]->paused)
            ports[count++] = list[i]->port;
    }
    return count;
}

bool interface_ports_poll(void) {
    bool changed = false;

    for (unsigned i = 0; i < list_count; i++) {
        struct port *port = list[i]->port;
        const struct interface *interface;

        if (!port || !list[i]->used)
            continue;
        if (!port_link_poll(port) && list[i]->link_told)
            continue;
        list[i]->link_told = changed = true;
        interface = interface_on_port(port->id);
        if (!interface)
            continue;
        if (port->link_up && port->speed_mbps)
            log_notice("interface", "%s: link up, %u Mbit/s", interface->name, port->speed_mbps);
        else
            log_notice("interface", "%s: link %s", interface->name, port->link_up ? "up" : "down");
    }
    return changed;
}
