/*
 * Between the files of this folder: the typed configuration, the open ports, and what the
 * configuration may do to the live interfaces.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/problem.h"
#include "interface/interface.h"

enum {
    VRF_DEFAULT_TABLE = 254, /* RT_TABLE_MAIN */
    VLAN_MAX = 4094,
    MTU_DEFAULT = 1500,
    MTU_TUNNEL = 1400, /* with any of our ciphers it fits a link of 1,500 bytes */
    MTU_IPV6_MIN = 1280, /* RFC 8200 section 5 */
    TCP_MSS_MIN = 88,    /* as in Linux: less is nothing but headers */
    TCP_MSS_AUTO = 1,    /* what the MTU has room for; only until that is known */
    TCP_IPV4_HEADERS = 40,
    TWIN_NAME_TEXT = 16, /* IFNAMSIZ */
    /* One place is kept for the automatic link-local address. */
    CONFIG_ADDRESSES_MAX = INTERFACE_ADDRESSES_MAX - 1,
};

#define VRF_DEFAULT_NAME "default"

/* --- interface_config.c: values of the sections --- */

struct vrf_config {
    char name[INTERFACE_NAME_TEXT];
    uint32_t table;
};

struct vrfs_config {
    unsigned count;
    struct vrf_config list[VRFS_MAX];
};

struct interface_config {
    char name[INTERFACE_NAME_TEXT];
    char device[PORT_DEVICE_TEXT];    /* "" for a VLAN or a tunnel */
    char parent[INTERFACE_NAME_TEXT]; /* of a VLAN */
    uint16_t vlan;
    uint32_t if_id;   /* of a tunnel; 0 = none */
    uint16_t mtu;     /* never 0: the parent's, or the default, was filled in */
    uint16_t tcp_mss; /* 0 = none; "auto" was filled in */
    enum reverse_path reverse_path;
    bool has_mac;
    uint8_t mac[6];
    char vrf[INTERFACE_NAME_TEXT];
    char host_twin[TWIN_NAME_TEXT];
    bool enabled, promiscuous;
    uint16_t rx_queues, tx_queues, rx_descriptors, tx_descriptors;
    struct router_advertisement router_advertisement;
    unsigned address_count;
    struct ip_prefix addresses[CONFIG_ADDRESSES_MAX]; /* family 0: was wrong */
};

/* A connected prefix of the configuration, sorted by VRF and prefix. */
struct connected_prefix {
    const char *vrf;
    struct ip_prefix network;
    uint16_t interface, address; /* indices */
    int32_t covering;            /* index of the longest one around it, -1 = none */
};

struct named_index {
    const char *name;
    uint16_t index;
};

struct interfaces_config {
    unsigned count;
    struct interface_config *list; /* in the order of the document */
    struct named_index *by_name;   /* sorted; those with a wrong name are left out */
    size_t named_count;
    struct connected_prefix *connected;
    size_t connected_count;
};

/* "$.interfaces.NAME"; the caller frees it. */
char *interface_config_path(const char *name);
/* By enum reverse_path; ends with NULL. */
extern const char *const reverse_path_names[];

/* --- interface_check.c: what correct values may still have wrong together --- */

bool interface_config_uses_ipv6(const struct interface_config *config);
/* The index of the named one, or -1. */
int interfaces_config_find(const struct interfaces_config *config, const char *name);

struct decode;
/* Checks the interfaces against each other, fills in MTUs, what follows from them, and the
 * connected prefixes. `nodes` are the JSON values they come from. An MTU of MTU_WRONG had a problem
 * already. */
void interfaces_config_check(struct interfaces_config *config, const struct decode *nodes);
enum { MTU_WRONG = 1 };

/* Ends the program when there is no memory, like the other keepers of the configuration. */
void *interface_allocate(size_t count, size_t size);

/* --- interface_ports.c --- */

/* Opens, updates or reopens ports for the configuration. 0, or negative errno with a problem and
 * everything as it was. */
int interface_ports_prepare(const struct interfaces_config *config, struct problems *problems);
void interface_ports_abort(void);
/* From now on interface_ports() are those of the prepared configuration. */
void interface_ports_commit(void);
/* Closes what is not used any more; the others are polled by workers now. */
void interface_ports_release(void);
/* The port for a device string in the prepared configuration. */
struct port *interface_ports_find(const char *device);
/* What stands for the port of all tunnel interfaces. */
struct port *interface_ports_tunnel(void);
/* May interfaces on the port be up, that is, do workers poll it? */
bool interface_ports_served(const struct port *port);
/* Polls the links; true if any changed. Changes are logged. */
bool interface_ports_poll(void);
/* Do two device strings name the same port? */
bool interface_device_same(const char *a, const char *b);

/* --- interface.c --- */

/* Is there room for the configuration's VRFs next to those that exist? Adds a problem otherwise. */
bool vrf_room(const struct vrfs_config *config, struct problems *problems);
/* Makes interfaces and VRFs what the configuration says. `old` may be NULL. */
void interface_apply(const struct interfaces_config *old, const struct interfaces_config *new);
void vrf_apply(const struct vrfs_config *config);
void vrf_drop_unused(const struct vrfs_config *config);
/* The interfaces on `from` are on `to` now. */
void interface_move_port(const struct port *from, struct port *to);
/* Looks who is up, publishes and tells. */
void interface_update(void);

/* --- interface_counters.c --- */

void interface_counters_init(void);
void interface_counters_stop(void);
/* What the id counted so far is no longer its own; `port` is the one the interface sits on. */
void interface_counters_begin(uint16_t id, const struct port *port);
/* The interface moves to another port, which counts anew. */
void interface_counters_move(uint16_t id, const struct port *from, const struct port *to);
void interface_counters_clear(void);

struct worker;
/* What a worker did since stats.clear, and the share of the last second or two it was busy. */
struct worker_totals {
    uint64_t loops, empty_loops, busy_cycles, all_cycles, rx_packets;
    struct stage_counters stage[STAGES_MAX];
    double busy_percent;
};
void interface_counters_worker(const struct worker *worker, struct worker_totals *out);
/* drops[i] since stats.clear, for all threads. */
void interface_counters_drops(uint64_t drops[DROPS_MAX]);
