/*
 * Endpoint-independent mappings (RFC 4787 section 4.1): while an inside address and port have any
 * session, they appear as the same outside address and port to everybody. And the ports that
 * mappings have taken, a bit for each of every outside address, so that no port is given to two,
 * and a free one is found fast even when few are left.
 *
 * Lookups take no lock. Making and dropping a mapping takes one lock with a bounded wait. A mapping
 * lives as long as it has references, one per session; its memory is used again after a grace
 * period.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    MAPPING_NONE = 0,
    MAPPING_IPV6 = 1 << 0, /* the inside is IPv6 (RFC 6146), and `inside` 0 */
};

/* The inside of a mapping with MAPPING_IPV6. */
struct nat_inside6 {
    uint8_t address[16];
};

/* Addresses and ports in network order. With an inside address of 0 it is the router's own host
 * that uses the outside port: it is taken, and nothing is translated. */
struct nat_mapping {
    uint32_t inside, outside;
    uint16_t inside_port, outside_port;
    uint16_t inside_vrf, outside_vrf;
    uint16_t outside_interface; /* packets from elsewhere to the mapping are hairpins */
    uint8_t protocol, flags;
    uint32_t references;
    uint32_t next_inside, next_outside;
};

/* Outside addresses of the rules' mappings: each has 24 KiB of port bits. */
enum { NAT_ADDRESSES_MAX = 4096 };

/* Makes the table for up to `size` mappings. 0 or -ENOMEM. */
int nat_mapping_create(uint32_t size);
/* Room for IPv6 insides in the table that there is: 16 bytes for each mapping. 0 or -ENOMEM. */
int nat_mapping_need_ipv6(void);
/* No worker reads it any more. */
void nat_mapping_free(void);
bool nat_mapping_exists(void);

/* Control side: the outside addresses that mappings may be made on. After begin all of them are
 * named; then drop frees the port bits of those that are not and have no mapping, which makes room
 * for new ones, and then all are added. name: is it there? add: 0, -ENOMEM, or -ENOSPC when twice
 * NAT_ADDRESSES_MAX are held, which takes mappings on as many that are not named any more. */
void nat_mapping_begin_addresses(void);
bool nat_mapping_name_address(uint32_t address, uint16_t vrf);
void nat_mapping_drop_addresses(void);
int nat_mapping_add_address(uint32_t address, uint16_t vrf);
/* Behind the address: no mapping is made on these ports (host order) until the next begin; those
 * that there are stay. Protocol 0: of any. 0 or -ENOMEM; an address that was not added has no
 * mappings anyway. */
int nat_mapping_keep_ports(uint32_t address, uint16_t vrf, uint8_t protocol, uint16_t first,
                           uint16_t last);

const struct nat_mapping *nat_mapping_get(uint32_t number);
/* Of a mapping with MAPPING_IPV6. */
const struct nat_inside6 *nat_mapping_inside6(uint32_t number);

/* The mapping of this inside address and port on this outside address: rules may give it several,
 * towards different networks or by different interfaces. MAPPING_NONE if there is none. No
 * reference is taken; the mapping may go, but what it was can be read until the worker's turn ends.
 */
uint32_t nat_mapping_of_inside(uint32_t address, uint16_t port, uint8_t protocol, uint16_t vrf,
                               uint32_t outside, uint16_t outside_vrf);
/* The same for an IPv6 inside. */
uint32_t nat_mapping_of_inside6(const uint8_t address[16], uint16_t port, uint8_t protocol,
                                uint16_t vrf, uint32_t outside, uint16_t outside_vrf);
/* The same by outside address and port. */
uint32_t nat_mapping_of_outside(uint32_t address, uint16_t port, uint8_t protocol, uint16_t vrf);

/* Takes a reference. False: it has just gone. */
bool nat_mapping_hold(uint32_t number);
/* Gives one back; with the last one the mapping and its port go. Workers only. */
void nat_mapping_release(uint32_t number);

enum nat_port_result { NAT_PORT_OK, NAT_PORT_NONE, NAT_PORT_NO_MAPPING, NAT_PORT_BUSY };

/* Makes a mapping with one reference. `wanted` has all but the outside port, and `inside6` the
 * inside if that is IPv6 (else NULL); the port is the inside one
 * if it is in [first, last] (host order) and free, and not `avoid` (0: none), else a free one of
 * the same parity (RFC 4787 REQ-3, REQ-4), else any free one. `random` picks where the search
 * begins (RFC 6056). When the inside has a mapping already, made by another worker meanwhile, a
 * reference to that is taken. */
enum nat_port_result nat_mapping_make(const struct nat_mapping *wanted,
                                      const struct nat_inside6 *inside6, uint16_t first,
                                      uint16_t last, uint16_t avoid, uint32_t random,
                                      uint32_t *number);

/* Mappings alive, and ports taken. They are equal whenever nobody is at work. */
uint32_t nat_mapping_count(void);
uint32_t nat_mapping_ports_taken(void);
