/*
 * Addresses and prefixes as the control side holds them, and their text forms.
 *
 * Nothing here is on the data path: workers read addresses straight from frames. Text forms follow
 * RFC 4632 (IPv4 prefixes), RFC 4291 and RFC 5952 (IPv6); host bits behind a prefix are refused by
 * ip_prefix_parse() and kept by ip_interface_parse(), because "192.168.1.1/24" is an interface
 * address but a mistake as a route.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* One IPv4 or IPv6 address. The family is AF_INET, AF_INET6 or 0 (none). Bytes in network order;
 * IPv4 uses the first four and the rest are zero, so that memcmp() compares whole structures. */
struct ip_address {
    uint8_t family;
    uint8_t bytes[16];
};

/* A prefix (host bits zero) or an interface address (host bits kept). Length in bits. */
struct ip_prefix {
    struct ip_address address;
    uint8_t length;
};

enum {
    IP_ADDRESS_TEXT = 46,  /* buffer that holds any address as text */
    IP_PREFIX_TEXT = 50,   /* buffer that holds any prefix as text */
    MAC_ADDRESS_TEXT = 18, /* buffer that holds any MAC address as text */
    IP4_MAX_LENGTH = 32,
    IP6_MAX_LENGTH = 128,
};

/* Parses "192.0.2.1" or "2001:db8::1". Returns 0, or -EINVAL and leaves *out alone. */
int ip_address_parse(const char *text, struct ip_address *out);

/* Parses "192.0.2.0/24"; host bits must be zero. Returns 0, -EINVAL for what is no prefix at all,
 * -EDOM when only host bits are set (the caller can then say so). */
int ip_prefix_parse(const char *text, struct ip_prefix *out);

/* Parses "192.0.2.1/24" and keeps the host bits. The length is required. 0 or -EINVAL. */
int ip_interface_parse(const char *text, struct ip_prefix *out);

/* Parses "02:00:00:00:00:01". 0 or -EINVAL. */
int mac_address_parse(const char *text, uint8_t mac[6]);

/* Transport protocols by the names that IANA's registry and nftables have for them, in small
 * letters. A number without such a name is written as digits. Parse: 0 or -EINVAL; digits are not
 * names. */
enum { IP_PROTOCOL_TEXT = 8 };
int ip_protocol_parse(const char *name, uint8_t *out);
char *ip_protocol_text(uint8_t protocol, char text[IP_PROTOCOL_TEXT]);

/* Text forms; the buffer is of the size named above and is returned. IPv6 as RFC 5952 has it, with
 * mixed notation for IPv4-mapped addresses only; an address of family 0 reads "none". */
char *ip_address_text(const struct ip_address *address, char text[IP_ADDRESS_TEXT]);
char *ip_prefix_text(const struct ip_prefix *prefix, char text[IP_PREFIX_TEXT]);
char *mac_address_text(const uint8_t mac[6], char text[MAC_ADDRESS_TEXT]);

/* Length in bits of an address of this family: 32 or 128. */
static inline uint8_t ip_family_bits(uint8_t family) {
    return family == AF_INET ? IP4_MAX_LENGTH : IP6_MAX_LENGTH;
}

/* Makes an address from network-order bytes. */
struct ip_address ip4_address(const void *bytes4);
struct ip_address ip6_address(const void *bytes16);

/* The IPv4 address as a number in host byte order; undefined for IPv6. */
uint32_t ip4_host_order(const struct ip_address *address);

/* Total order: by family, then bytes (and length). <0, 0, >0 like memcmp(). */
int ip_address_compare(const struct ip_address *a, const struct ip_address *b);
int ip_prefix_compare(const struct ip_prefix *a, const struct ip_prefix *b);

/* The network of an interface address: the same length, host bits cleared. */
struct ip_prefix ip_prefix_network(const struct ip_prefix *interface_address);

/* Does the prefix cover the address (same family and the first `length` bits alike)? */
bool ip_prefix_contains(const struct ip_prefix *prefix, const struct ip_address *address);

/* Do two prefixes share any address? */
bool ip_prefix_overlaps(const struct ip_prefix *a, const struct ip_prefix *b);

/* Classes by RFC 1122, RFC 6890 and RFC 4291. */
bool ip_address_is_unspecified(const struct ip_address *address);
bool ip_address_is_loopback(const struct ip_address *address);
bool ip_address_is_multicast(const struct ip_address *address);
bool ip_address_is_link_local(const struct ip_address *address);
/* A unicast address that an interface may carry or a next hop may have: none of 0.0.0.0/8,
 * 127.0.0.0/8, 224.0.0.0/3, ::, ::1, ff00::/8 and the IPv4-mapped ::ffff:0:0/96. */
bool ip_address_is_host(const struct ip_address *address);
