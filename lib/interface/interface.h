/*
 * Interfaces: what the router calls by a name and gives addresses to. An interface sits directly on
 * a port (untagged frames), on a parent interface as a VLAN (802.1Q), or on nothing but IPsec: what
 * is routed into such a tunnel interface leaves protected by the policies that carry its number
 * (Linux: an xfrm interface and its if_id).
 *
 * Workers read a snapshot (`struct interface_table`) that the control thread publishes whole.
 * Features learn of changes through `struct interface_listener` on the control thread.
 */
#pragma once

#include <rte_common.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/counters.h"
#include "core/ip.h"
#include "core/port.h"

enum {
    INTERFACE_NAME_TEXT = 32,
    INTERFACE_ADDRESSES_MAX = 64,
    VLAN_IDS = 4096,
    VRFS_MAX = 256,
    VRF_DEFAULT = 0,
};

/* --- data path --- */

enum {
    INTERFACE_UP = 1 << 0,     /* enabled, and the link is up */
    INTERFACE_TWIN = 1 << 1,   /* has a host twin: local packets go there */
    INTERFACE_TUNNEL = 1 << 2, /* has no port: packets leave inside others */
};

/* Reverse path check of what comes in (RFC 3704): its source needs a route; when strict, one by the
 * same interface. */
enum reverse_path { REVERSE_PATH_OFF, REVERSE_PATH_LOOSE, REVERSE_PATH_STRICT };

/* What workers need of one interface: one cache line. A packet may still be on its way to an
 * interface that is gone: the entry is all zeroes then, so it is not INTERFACE_UP. */
struct interface_entry {
    uint64_t mac_bits; /* the MAC address as the low 48 bits of a little-endian 8-byte load */
    uint16_t id;       /* 1.. ; 0 marks an entry that is not used */
    uint16_t port;     /* ethdev port id */
    uint16_t vlan;     /* 0 = untagged */
    uint16_t vrf;      /* VRF id */
    uint16_t mtu;      /* of IP packets, bytes */
    uint16_t flags;
    uint32_t ipv4_source;    /* address for ICMP errors sent from here; network order; 0 = none */
    uint8_t ipv6_source[16]; /* the same; unspecified = none */
    uint8_t ipv6_link_local[16]; /* valid link-local address; unspecified = none */
    uint16_t tcp_mss;     /* at most this MSS of IPv4 in TCP SYNs, bytes; 0 = whatever they say */
    uint8_t reverse_path; /* enum reverse_path */
    uint8_t reserved[5];
};
_Static_assert(sizeof(struct interface_entry) == 64, "one cache line");

/* Which interface the frames of one port belong to. */
struct port_interfaces {
    uint16_t untagged;        /* interface id; 0 = untagged frames are not accepted */
    bool rx_checksum_checked; /* the port marks frames with a bad IPv4 header checksum */
    const uint16_t *by_vlan;  /* VLAN_IDS interface ids, or NULL when the port has no VLANs */
};

struct interface_table {
    struct interface_entry entry[INTERFACES_MAX] __rte_cache_aligned;
    struct port_interfaces port[PORTS_MAX];
    bool reverse_path; /* some interface wants the check */
};

/* The published snapshot; never NULL once interface_init() ran. Valid until the reading worker's
 * next quiescent state. */
extern const struct interface_table *_Atomic interface_table_published;

static inline const struct interface_table *interface_table(void) {
    return __atomic_load_n((const struct interface_table **)(uintptr_t)&interface_table_published,
                           __ATOMIC_ACQUIRE);
}

/* --- control side --- */

enum address_state { ADDRESS_TENTATIVE, ADDRESS_VALID, ADDRESS_DUPLICATE };

struct interface_address {
    struct ip_prefix prefix;  /* host bits kept */
    bool automatic;           /* the link-local address that the router made itself (RFC 4291) */
    enum address_state state; /* IPv6: tentative until duplicate address detection (RFC 4862 section
                                 5.4) says otherwise; IPv4: always valid */
};

/* An RFC 4861 section 6.2.1 prefix to advertise. */
struct advertised_prefix {
    struct ip_prefix prefix;
    uint32_t valid_lifetime, preferred_lifetime; /* seconds */
    bool on_link, autonomous;
};

struct router_advertisement {
    bool enabled;
    uint32_t interval; /* the longest time between two, seconds */
    uint16_t lifetime; /* as default router, seconds; 0 = not a default router */
    bool managed, other, send_mtu;
    bool default_prefixes; /* the interface's own IPv6 prefixes */
    unsigned prefix_count;
    struct advertised_prefix prefixes[16];
};

struct interface {
    uint16_t id;
    char name[INTERFACE_NAME_TEXT];
    struct port *port;        /* a VLAN's is its parent's. Never NULL, but may change (other MTU or
                                 queues): do not keep it. A tunnel's is a stand-in, PORT_NONE */
    struct interface *parent; /* NULL when directly on a port */
    uint16_t vlan;
    uint32_t if_id; /* of a tunnel interface, which has no link layer; 0 for all others */
    uint16_t vrf;
    uint16_t mtu;
    uint8_t mac[6];   /* zero without a link layer */
    uint16_t tcp_mss; /* as in interface_entry */
    enum reverse_path reverse_path;
    bool enabled;       /* configured or set by interface.set */
    bool up;            /* enabled, its parent as well, the link is up, and workers poll the port */
    char host_twin[16]; /* Linux name of the TAP twin, "" = none */
    struct router_advertisement router_advertisement;
    unsigned address_count;
    struct interface_address addresses[INTERFACE_ADDRESSES_MAX];
};

/* Makes the empty table and the default VRF, and starts to watch the links. Run by the section's
 * init(), so usually by config_init(), which needs rte_eal_init() and event_init() before it;
 * before the first configuration rcu_init() and workers_create() must have run as well. 0 or
 * negative errno. */
int interface_init(void);

/* Undoes interface_init(), at the end of the program: no interface is left (the last configuration
 * was replaced by NULL) and no worker runs. */
void interface_free(void);

/* The ports that workers have to poll from now on; returns their number. config_after_commit() is
 * nothing but workers_plan(ports, interface_ports(ports)). It runs after each commit, and also
 * during prepare() when a port must be closed and opened again (other numbers of queues or
 * descriptors, or an MTU that the device cannot change while it runs), to have the workers let go
 * of it; and after an apply that failed, to have them take it up again. The pointers are good until
 * the next configuration. */
unsigned interface_ports(struct port *ports[PORTS_MAX]);

/* By id (NULL if there is none), by name, and all in id order (start with NULL). */
struct interface *interface_by_id(uint16_t id);
struct interface *interface_by_name(const char *name);
struct interface *interface_next(const struct interface *previous);

/* The tunnel interface of that number, NULL if there is none. */
struct interface *interface_by_if_id(uint32_t if_id);

/* The interface that takes the port's untagged frames, NULL if there is none. */
struct interface *interface_on_port(uint16_t port);

/* The interface's first valid address of the family; NULL if there is none. For AF_INET6 a global
 * one is preferred to a link-local one. Good until addresses change. */
const struct interface_address *interface_source(const struct interface *interface, uint8_t family);

/* The interface's first valid IPv6 link-local address, or NULL. */
const struct interface_address *interface_link_local(const struct interface *interface);

/* Sets an address's state (duplicate address detection), republishes and tells the listeners.
 * Nothing happens when it has that state already, or the interface has no such address. */
void interface_set_address_state(struct interface *interface, const struct ip_address *address,
                                 enum address_state state);

/* Enables or disables at run time. Holds until the next interface.set, or until a new configuration
 * says something else about `enabled` than the one before. */
void interface_set_enabled(struct interface *interface, bool enabled);

/* Said by the host side when the twin named by host_twin exists in Linux, and when it does not any
 * more; only then is the interface INTERFACE_TWIN to the workers. Not so at first. */
void interface_set_twin_working(struct interface *interface, bool working);

/* What passed the interface since it exists, or since stats.clear. */
struct interface_totals {
    uint64_t rx_packets, rx_bytes;
    uint64_t rx_missed; /* lost in the device for want of buffers; 0 for VLANs */
    uint64_t tx_packets, tx_bytes, tx_dropped;
};
void interface_totals(const struct interface *interface, struct interface_totals *out);

/* What features want to know. All on the control thread; any member may be NULL. When an interface
 * changes its VRF, MAC, VLAN or parent, or another device takes its name, it is removed and added
 * again (with another id). An interface whose port had to be opened again goes down and up; if the
 * port came back under another ethdev id, `changed` is told in between.
 *
 * A new configuration tells, in this order: VRFs added; interfaces gone (down, their addresses,
 * then themselves; VLANs before parents); of those that stay the addresses that go, then `changed`,
 * then the addresses that come (an address within the same prefix is only removed after its
 * successor came, so that the prefix stays connected); new interfaces and their addresses; who is
 * up or down now. New ports go up a little later, when workers poll them; VRFs are removed last. */
struct interface_listener {
    void (*added)(struct interface *interface); /* exists now, may be down; before its addresses */
    void (*removed)(
        struct interface *interface); /* addresses were removed, and it went down, before */
    void (*up)(struct interface *interface);
    void (*down)(struct interface *interface);
    void (*address_added)(struct interface *interface, const struct interface_address *address);
    void (*address_removed)(struct interface *interface, const struct interface_address *address);
    void (*address_changed)(struct interface *interface, const struct interface_address *address);
    void (*changed)(struct interface *interface); /* MTU, twin, advertisement */
    void (*vrf_added)(uint16_t vrf);   /* before any interface in it; also for VRF_DEFAULT */
    void (*vrf_removed)(uint16_t vrf); /* after all its interfaces are gone */
    void (*vrf_changed)(uint16_t vrf); /* another table number */
    struct interface_listener *next;   /* managed by the registry */
};

/* Registers the listener (it must live on); lower features first: listeners are told in the order
 * of registration. Call from a constructor or a section's init(), before the first configuration.
 */
void interface_listen(struct interface_listener *listener);

/* VRFs: id <-> name. The default VRF is called "default" and always exists. */
const char *vrf_name(uint16_t vrf); /* NULL if there is none */
int vrf_by_name(const char *name);  /* id, or -ENOENT */
uint32_t
vrf_table(uint16_t vrf); /* the number in router.json; 254 for the default VRF, like Linux */

/* --- names in a configuration that is not in force yet, for other sections' check() --- */

struct config;
bool interface_configured(const struct config *config, const char *name);
bool vrf_configured(const struct config *config, const char *name);
/* The VRF name of a configured interface ("default" if it names none), NULL if there is no such. */
const char *interface_configured_vrf(const struct config *config, const char *name);
/* The number of a configured tunnel interface, 0 if it is none, or there is no such. */
uint32_t interface_configured_if_id(const struct config *config, const char *name);
/* Some tunnel interface's name, NULL if none is configured. */
const char *interface_configured_tunnel(const struct config *config);
/* Is the address in a prefix of an interface of the VRF ("default"...)? interface_name limits it to
 * one interface when not NULL. An IPv6 link-local address is on the link of every interface that
 * uses IPv6, so it needs interface_name. Takes logarithmic time. */
bool interface_configured_on_link(const struct config *config, const char *vrf,
                                  const char *interface_name, const struct ip_address *address);
/* Has an interface of the VRF the address? */
bool interface_configured_own(const struct config *config, const char *vrf,
                              const struct ip_address *address);

/* The sections, so that others can name them in `after`: "interfaces", "vrfs". */
