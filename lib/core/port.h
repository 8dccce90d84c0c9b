/*
 * Ports: ethdev devices that the configuration names, brought up and taken down while the program
 * runs (hotplug). Only devices named in router.json are ever probed.
 *
 * What a kind of device needs lies in drivers-glue/, one file per kind: a `struct port_driver`,
 * found by the driver's name. All functions are for the control thread; workers only call
 * rte_eth_rx_burst() and rte_eth_tx_burst() on queues that the worker plan gives them.
 */
#pragma once

#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/problem.h"

enum {
    PORTS_MAX = RTE_MAX_ETHPORTS,
    PORT_QUEUES_MAX = 64,
    PORT_MTU_MIN = 68, /* RFC 791 */
    PORT_MTU_MAX = 9216,
    PORT_DEVICE_TEXT = 256,
};

/* What the configuration asks of a port. Zero means "choose". */
struct port_request {
    char device[PORT_DEVICE_TEXT]; /* PCI address, or virtual device, with its arguments */
    uint16_t mtu; /* 0 = 1500; of IP packets, without Ethernet header and VLAN tag */
    uint16_t rx_queues, tx_queues;           /* 0 = one per worker, as far as the port has them */
    uint16_t rx_descriptors, tx_descriptors; /* 0 = the driver's preferred number */
    bool has_mac;
    uint8_t mac[6];
    bool promiscuous; /* asked by the user; VLANs or a second MAC may need it anyway */
    bool vlans;       /* VLAN interfaces sit on this port */
};

struct port_driver;

/* A port that runs. Fields are set by port_open() and constant then, but for the link. */
struct port {
    uint16_t id; /* ethdev port id */
    struct port_request request;
    const struct port_driver *driver;
    uint16_t rx_queues, tx_queues; /* what it got */
    uint16_t mtu;
    uint8_t mac[6];
    int numa_node;         /* SOCKET_ID_ANY when the device belongs to none */
    bool rx_ipv4_checksum; /* the port marks frames with a bad IPv4 header checksum */
    bool tx_multi_segment; /* rte_eth_tx_burst() takes chained mbufs */
    bool rx_scatter;       /* frames longer than one mbuf arrive as chains */
    bool rss;              /* flows are spread over the receive queues */
    bool promiscuous;      /* switched on by the router */
    bool link_up;          /* as of the last port_link_poll() */
    uint32_t speed_mbps;   /* 0 = unknown */
    bool started;

    /* For port.c and drivers-glue/ only. */
    const struct port_driver *kind; /* whose before_probe() ran: "pci" for all PCI devices */
    char device[PORT_DEVICE_TEXT];  /* as probed, completed by before_probe() */
    uint8_t device_mac[6];          /* what the router uses when the configuration names none */
    uint32_t mtu_max;
    bool needs_promiscuous; /* has no other way to receive multicast */
};

/* One argument of a virtual device, as in "net_tap0,iface=lan". */
enum port_argument_kind {
    PORT_ARGUMENT_TEXT,      /* anything */
    PORT_ARGUMENT_NUMBER,    /* min..max */
    PORT_ARGUMENT_YES_NO,    /* "yes" or "no" */
    PORT_ARGUMENT_INTERFACE, /* name of a Linux interface, 1 to 15 characters */
    PORT_ARGUMENT_MAC,       /* 02:00:00:00:00:01; with `fixed` also that word */
    PORT_ARGUMENT_PATH,      /* absolute path of a UNIX socket: at most 107 bytes */
    PORT_ARGUMENT_FILE,      /* path of a file */
};

struct port_argument {
    const char *key;
    enum port_argument_kind kind;
    long min, max;
    bool required;
    bool repeated; /* may stand more than once */
};

/* What one kind of device needs. Every member but `name` may be NULL/zero. */
struct port_driver {
    const char *name;    /* rte_eth_dev_info.driver_name, e.g. "net_tap" */
    const char *alias;   /* a second name for router.json, e.g. "virtio_user" */
    const char *devices; /* how router.json names such a device, for messages and the manual */
    const struct port_argument *arguments; /* ends with a NULL key; NULL = not checked */
    const char
        *package; /* Debian package that holds the driver, for the message when it is missing */

    /* Before the device is probed: checks the device's arguments and completes them (queues=N,
     * ...); `device` holds PORT_DEVICE_TEXT bytes. Adds problems at `path`. 0 or negative errno. */
    int (*before_probe)(const struct port_request *request, unsigned workers, char *device,
                        const char *path, struct problems *problems);
    /* Adjusts the ethdev configuration: offloads, RSS, number of queues. */
    void (*configure)(const struct port_request *request, const struct rte_eth_dev_info *info,
                      struct rte_eth_conf *conf, uint16_t *rx_queues, uint16_t *tx_queues);
    /* After rte_eth_dev_start(). 0 or negative errno with a problem. */
    int (*after_start)(struct port *port, const char *path, struct problems *problems);
    /* After the device is closed and detached, also when that failed on the way: undoes what
     * before_probe() did. `device` is the completed string. */
    void (*after_close)(const char *device);
    /* Where ethdev knows no way, or not the right one. 0 or negative errno. */
    int (*set_mtu)(struct port *port, uint16_t mtu);
    int (*set_mac)(struct port *port, const uint8_t mac[6]);
    int (*set_promiscuous)(struct port *port, bool on);
    void (*link)(const struct port *port, bool *up, uint32_t *speed_mbps);
    /* Receive buffers the device holds at most, from the request (with its queue numbers set). */
    uint32_t (*mbufs)(const struct port_request *request);

    uint16_t default_queues; /* when the configuration names no number; 0 = one per worker */
    uint16_t rx_descriptors; /* when the configuration names no number; 0 = ask ethdev */
    uint16_t mtu_max;        /* when ethdev does not tell the truth; 0 = ask ethdev */
    bool mtu_fixed;          /* rte_eth_dev_set_mtu() is not supported or has no effect */
    bool mtu_live;           /* the MTU may change while the port runs */
    bool mac_fixed;          /* the MAC address cannot be set; the router must use the device's */
    bool mac_free;           /* the device filters no addresses: the router may use any */
    bool mac_of_peer;        /* what ethdev and a "mac" argument name is the other end's address */
    bool promiscuous_none; /* the device knows no promiscuous mode: it delivers everything anyway */
    bool vlans_promiscuous; /* without promiscuous mode the device withholds tagged frames */
    bool link_always_up;    /* the driver's link state says nothing (virtual port without a wire) */
    bool queues_exact;  /* made with a number of queues, all of which get frames: serve them all */
    bool queues_paired; /* as many receive as transmit queues */
    bool spreads_flows; /* fills all its receive queues although it offers no RSS */
    bool rx_chains;     /* gives chained mbufs without offering SCATTER */
    bool tx_chains;     /* takes chained mbufs without offering MULTI_SEGS */
    bool no_hotplug;    /* can only be opened before the workers run */

    struct port_driver *next; /* managed by the registry */
};

/* Adds a driver; the structure must live for the whole process. */
void port_driver_register(struct port_driver *driver);
const struct port_driver *port_driver_first(void);

/* The driver's name, never NULL: "net_tap"; for devices without glue what DPDK calls it. */
const char *port_driver_name(const struct port *port);

/* Probes, configures and starts the device. `pool` gives receive buffers for a NUMA node. Returns 0
 * and *out, or a negative errno with a problem at `path` ("$.interfaces.wan"); a device that was
 * probed is detached again then. */
int port_open(const struct port_request *request, unsigned workers,
              struct rte_mempool *(*pool)(int numa_node), const char *path, struct port **out,
              struct problems *problems);

/* Can the running port take this request without being closed and opened again? No for another
 * device, other numbers of queues or descriptors, and for an MTU the running setup cannot carry. */
bool port_request_compatible(const struct port *port, const struct port_request *request);
/* Is such a request within what the device of the running port says of itself? Asked before the port
 * is closed for an incompatible request. `pool`: where its receive buffers come from. 0, or -EINVAL
 * with problems. What only an attempt can tell, as with other arguments of the device, passes. */
int port_request_check(const struct port *port, const struct port_request *request,
                       unsigned workers, struct rte_mempool *pool, const char *path,
                       struct problems *problems);
/* Applies the parts of a compatible request that may change while running (MTU, MAC, promiscuous).
 * Returns 0 or negative errno with a problem; on failure nothing has changed. */
int port_update(struct port *port, const struct port_request *request, const char *path,
                struct problems *problems);

/* Stops, closes and detaches. The workers must not poll it any more. NULL is allowed. */
void port_close(struct port *port);

/* Checks a device string without touching hardware: is it a PCI address or a known kind of virtual
 * device with well-formed arguments? Adds problems at `path`. Needs no EAL. A kind that DPDK may
 * have but drivers-glue/ does not know ("net_bonding0,...") passes, its arguments unchecked. */
void port_check_device(const char *device, const char *path, struct problems *problems);

/* Reads link state and speed (without waiting). True if anything changed. */
bool port_link_poll(struct port *port);

/* rte_eth_stats_get() sums; zeroes when the driver has none. */
void port_stats(const struct port *port, struct rte_eth_stats *out);

/* Receive buffers this port needs at least: descriptors of all queues, and for net_pcap with
 * infinite_rx one per packet of its file. Called before the pool exists, so from the request. */
uint32_t port_request_mbufs(const struct port_request *request, unsigned workers);

/* For drivers-glue/: reads one argument of a device string. True if it is there; `value` may be
 * NULL, and is cut off at `size`. `index` counts arguments of the same key from 0. */
bool port_device_argument(const char *device, const char *key, unsigned index, char *value,
                          size_t size);
/* Adds "key=value" unless the key is there. 0, or -ENAMETOOLONG with a problem. */
int port_device_complete(char *device, const char *key, unsigned long value, const char *path,
                         struct problems *problems);
/* The number of queue pairs for devices that must know it when they are made: the larger one of the
 * request's numbers, or `workers`, and what the device string says already. A contradiction is a
 * problem. 0 or negative errno. */
int port_device_complete_queues(const struct port_request *request, unsigned workers, char *device,
                                const char *key, const char *path, struct problems *problems);

#define PORT_DRIVER(driver)                                                        \
    __attribute__((constructor)) static void port_driver_register_##driver(void) { \
        port_driver_register(&(driver));                                           \
    }
