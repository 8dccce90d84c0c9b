/*
 * Addresses and prefixes: text forms, order, classes.
 *
 * Parsing leans on inet_pton(), which in glibc is as strict as a configuration should be: four
 * decimal numbers without leading zeros, no white space, no zone. Writing is done here, because
 * inet_ntop() prints small IPv6 addresses such as ::1:2 in the mixed notation that RFC 5952 keeps
 * for prefixes known to hold an IPv4 address.
 *
 * What can go wrong: text that is no address. Nothing here allocates.
 */
#include "core/ip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- parsing ---- */

int ip_address_parse(const char *text, struct ip_address *out) {
    struct ip_address address = {.family = AF_INET};
    if (inet_pton(AF_INET, text, address.bytes) != 1) {
        address = (struct ip_address){.family = AF_INET6};
        if (inet_pton(AF_INET6, text, address.bytes) != 1)
            return -EINVAL;
    }
    *out = address;
    return 0;
}

/* A prefix length: one to three digits, no sign and no leading zero, so that each length has one
 * spelling. Returns it, or -1. */
static int parse_length(const char *text, unsigned max) {
    unsigned length = 0;
    size_t digits = 0;
    for (; text[digits] != '\0'; digits++) {
        if (text[digits] < '0' || text[digits] > '9' || digits == 3)
            return -1;
        length = length * 10 + (unsigned)(text[digits] - '0');
    }
    if (digits == 0 || (digits > 1 && text[0] == '0') || length > max)
        return -1;
    return (int)length;
}

int ip_interface_parse(const char *text, struct ip_prefix *out) {
    const char *slash = strchr(text, '/');
    char head[IP_ADDRESS_TEXT];
    if (slash == NULL || (size_t)(slash - text) >= sizeof(head))
        return -EINVAL;
    memcpy(head, text, (size_t)(slash - text));
    head[slash - text] = '\0';

    struct ip_prefix prefix;
    if (ip_address_parse(head, &prefix.address) != 0)
        return -EINVAL;
    int length = parse_length(slash + 1, ip_family_bits(prefix.address.family));
    if (length < 0)
        return -EINVAL;
    prefix.length = (uint8_t)length;
    *out = prefix;
    return 0;
}

int ip_prefix_parse(const char *text, struct ip_prefix *out) {
    struct ip_prefix prefix;
    if (ip_interface_parse(text, &prefix) != 0)
        return -EINVAL;
    struct ip_prefix network = ip_prefix_network(&prefix);
    if (ip_prefix_compare(&prefix, &network) != 0)
        return -EDOM;
    *out = prefix;
    return 0;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int mac_address_parse(const char *text, uint8_t mac[6]) {
    if (strlen(text) != MAC_ADDRESS_TEXT - 1)
        return -EINVAL;
    uint8_t bytes[6];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        const char *group = text + 3 * i;
        int high = hex_digit(group[0]), low = hex_digit(group[1]);
        if (high < 0 || low < 0 || group[2] != (i < 5 ? ':' : '\0'))
            return -EINVAL;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(mac, bytes, sizeof(bytes));
    return 0;
}

/* ---- writing ---- */

static bool is_ipv4_mapped(const struct ip_address *address) {
    static const uint8_t start[12] = {[10] = 0xff, [11] = 0xff};
    return address->family == AF_INET6 && memcmp(address->bytes, start, sizeof(start)) == 0;
}

/* RFC 5952 section 4: lower case, no leading zeros, the longest run of two or more zero groups as
 * "::", the first one among equals. */
static void write_ipv6(const struct ip_address *address, char *text) {
    unsigned group[8];
    for (size_t i = 0; i < 8; i++)
        group[i] = (unsigned)address->bytes[2 * i] << 8 | address->bytes[2 * i + 1];

    unsigned gap = 8, gap_length = 1; /* a run must be longer than one group (section 4.2.2) */
    for (unsigned i = 0; i < 8; i++) {
        unsigned end = i;
        while (end < 8 && group[end] == 0)
            end++;
        if (end - i > gap_length) {
            gap = i;
            gap_length = end - i;
        }
        if (end > i)
            i = end; /* group[end] is not zero, or we are done */
    }

    bool separate = false;
    for (unsigned i = 0; i < 8; i++) {
        if (i == gap) {
            text += sprintf(text, "::");
            i += gap_length - 1;
            separate = false;
        } else {
            text += sprintf(text, separate ? ":%x" : "%x", group[i]);
            separate = true;
        }
    }
}

char *ip_address_text(const struct ip_address *address, char text[IP_ADDRESS_TEXT]) {
    const uint8_t *b = address->bytes;
    if (address->family == AF_INET)
        snprintf(text, IP_ADDRESS_TEXT, "%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
    else if (is_ipv4_mapped(address))
        snprintf(text, IP_ADDRESS_TEXT, "::ffff:%u.%u.%u.%u", b[12], b[13], b[14], b[15]);
    else if (address->family == AF_INET6)
        write_ipv6(address, text);
    else
        snprintf(text, IP_ADDRESS_TEXT, "none");
    return text;
}

char *ip_prefix_text(const struct ip_prefix *prefix, char text[IP_PREFIX_TEXT]) {
    char address[IP_ADDRESS_TEXT];
    ip_address_text(&prefix->address, address);
    snprintf(text, IP_PREFIX_TEXT, "%s/%u", address, prefix->length);
    return text;
}

char *mac_address_text(const uint8_t mac[6], char text[MAC_ADDRESS_TEXT]) {
    snprintf(text, MAC_ADDRESS_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
             mac[3], mac[4], mac[5]);
    return text;
}

/* ---- making and comparing ---- */

struct ip_address ip4_address(const void *bytes4) {
    struct ip_address address = {.family = AF_INET};
    memcpy(address.bytes, bytes4, 4);
    return address;
}

struct ip_address ip6_address(const void *bytes16) {
    struct ip_address address = {.family = AF_INET6};
    memcpy(address.bytes, bytes16, 16);
    return address;
}

uint32_t ip4_host_order(const struct ip_address *address) {
    const uint8_t *b = address->bytes;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

int ip_address_compare(const struct ip_address *a, const struct ip_address *b) {
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

int ip_prefix_compare(const struct ip_prefix *a, const struct ip_prefix *b) {
    int order = ip_address_compare(&a->address, &b->address);
    return order != 0 ? order : (int)a->length - (int)b->length;
}

/* ---- prefixes ---- */

struct ip_prefix ip_prefix_network(const struct ip_prefix *interface_address) {
    struct ip_prefix network = *interface_address;
    unsigned whole = network.length / 8, rest = network.length % 8;
    for (unsigned i = whole; i < sizeof(network.address.bytes); i++) {
        uint8_t mask = i == whole ? (uint8_t)(0xff00u >> rest) : 0;
        network.address.bytes[i] &= mask;
    }
    return network;
}

/* Are the first `length` bits alike? */
static bool bits_equal(const uint8_t *a, const uint8_t *b, unsigned length) {
    unsigned whole = length / 8, rest = length % 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0;
}

bool ip_prefix_contains(const struct ip_prefix *prefix, const struct ip_address *address) {
    return prefix->address.family == address->family &&
           bits_equal(prefix->address.bytes, address->bytes, prefix->length);
}

bool ip_prefix_overlaps(const struct ip_prefix *a, const struct ip_prefix *b) {
    /* Two prefixes are either apart or one lies inside the other: the shorter one decides. */
    return a->length <= b->length ? ip_prefix_contains(a, &b->address)
                                  : ip_prefix_contains(b, &a->address);
}

/* ---- classes ---- */

bool ip_address_is_unspecified(const struct ip_address *address) {
    static const uint8_t zero[16];
    return address->family != 0 && memcmp(address->bytes, zero, sizeof(zero)) == 0;
}

bool ip_address_is_loopback(const struct ip_address *address) {
    static const uint8_t one[16] = {[15] = 1};
    if (address->family == AF_INET)
        return address->bytes[0] == 127; /* 127.0.0.0/8, RFC 1122 section 3.2.1.3 */
    return address->family == AF_INET6 && memcmp(address->bytes, one, sizeof(one)) == 0;
}

bool ip_address_is_multicast(const struct ip_address *address) {
    if (address->family == AF_INET)
        return (address->bytes[0] & 0xf0) == 0xe0; /* 224.0.0.0/4 */
    return address->family == AF_INET6 && address->bytes[0] == 0xff;
}

bool ip_address_is_link_local(const struct ip_address *address) {
    if (address->family == AF_INET)
        return address->bytes[0] == 169 && address->bytes[1] == 254; /* RFC 3927 */
    return address->family == AF_INET6 && address->bytes[0] == 0xfe &&
           (address->bytes[1] & 0xc0) == 0x80; /* fe80::/10 */
}

bool ip_address_is_host(const struct ip_address *address) {
    if (ip_address_is_multicast(address) || ip_address_is_loopback(address))
        return false;
    if (address->family == AF_INET) {
        /* Not "this network" (0.0.0.0/8), not reserved or broadcast (240.0.0.0/4): RFC 6890
         * section 2.2.2 lists neither as a valid destination. */
        return address->bytes[0] != 0 && address->bytes[0] < 240;
    }
    /* IPv4-mapped addresses are a notation for programs and never stand on a wire (RFC 6890). */
    return address->family == AF_INET6 && !ip_address_is_unspecified(address) &&
           !is_ipv4_mapped(address);
}

static const struct {
    const char *name;
    uint8_t number;
} protocols[] = {
    {"icmp", IPPROTO_ICMP},       {"tcp", IPPROTO_TCP},       {"udp", IPPROTO_UDP},
    {"dccp", IPPROTO_DCCP},       {"gre", IPPROTO_GRE},       {"esp", IPPROTO_ESP},
    {"ah", IPPROTO_AH},           {"icmpv6", IPPROTO_ICMPV6}, {"sctp", IPPROTO_SCTP},
    {"udplite", IPPROTO_UDPLITE},
};

int ip_protocol_parse(const char *name, uint8_t *out) {
    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++) {
        if (strcmp(name, protocols[i].name) == 0) {
            *out = protocols[i].number;
            return 0;
        }
    }
    return -EINVAL;
}

char *ip_protocol_text(uint8_t protocol, char text[IP_PROTOCOL_TEXT]) {
    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++) {
        if (protocols[i].number == protocol) {
            snprintf(text, IP_PROTOCOL_TEXT, "%s", protocols[i].name);
            return text;
        }
    }
    snprintf(text, IP_PROTOCOL_TEXT, "%u", protocol);
    return text;
}
