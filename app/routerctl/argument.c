/*
 * Argument types: names, one-line descriptions and what they accept.
 */
#include "argument.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static bool accepts_any(const char *text) {
    return *text != '\0';
}

static bool accepts_number(const char *text, unsigned long min, unsigned long max) {
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 9 || text[digits] != '\0')
        return false;
    unsigned long value = strtoul(text, NULL, 10);
    return value >= min && value <= max;
}

static bool accepts_seconds(const char *text) {
    return accepts_number(text, 1, 86400);
}

static bool accepts_count(const char *text) {
    return accepts_number(text, 1, 1000000);
}

static bool accepts_port(const char *text) {
    return accepts_number(text, 0, 65535);
}

static bool accepts_weight(const char *text) {
    return accepts_number(text, 1, 255);
}

/* Decimal, or hexadecimal as "show ipsec" has it. */
static bool accepts_spi(const char *text) {
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = text + (hex ? 2 : 0);
    size_t length = strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");

    if (length == 0 || length > 10 || digits[length] != '\0' || (!hex && digits[0] == '0'))
        return false;
    unsigned long long value = strtoull(digits, NULL, hex ? 16 : 10);
    return value >= 256 && value <= UINT32_MAX;
}

static bool accepts_address(const char *text) {
    unsigned char bytes[16];
    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

static bool accepts_prefix(const char *text) {
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');

    if (slash == NULL || (size_t)(slash - text) >= sizeof(address))
        return false;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    return accepts_address(address) &&
           accepts_number(slash + 1, 0, strchr(address, ':') ? 128 : 32);
}

static bool accepts_mac(const char *text) {
    for (int i = 0; i < 17; i++)
        if (i % 3 == 2 ? text[i] != ':' : !isxdigit((unsigned char)text[i]))
            return false;
    return text[17] == '\0';
}

static bool accepts_json(const char *text) {
    json_error_t error;
    json_t *value = json_loads(text, 0, &error); /* params: an object or an array */
    json_decref(value);
    return value != NULL;
}

static const char *const protocol_names[] = {"tcp", "udp",  "icmp", "icmpv6",  "gre", "esp",
                                             "ah",  "sctp", "dccp", "udplite", NULL};
static const char *const state_names[] = {
    "tcp_opening", "tcp_answered", "tcp_established", "tcp_closing", "tcp_closed", "udp_new",
    "udp",         "icmp",         "other",           NULL};

/* clang-format off */
static const struct argument arguments[ARGUMENT_TYPES] = {
    [ARGUMENT_ADDRESS]   = {"ADDRESS", "an IPv4 or IPv6 address", false, accepts_address},
    [ARGUMENT_COUNT]     = {"COUNT", "a number from 1", true, accepts_count},
    [ARGUMENT_FILE]      = {"FILE", "a file's name", false, accepts_any},
    [ARGUMENT_INTERFACE] = {"INTERFACE", "an interface's name", false, accepts_any},
    [ARGUMENT_JSON]      = {"JSON", "a JSON object or array", false, accepts_json},
    [ARGUMENT_MAC]       = {"MAC", "a MAC address such as 02:00:00:00:00:01", false, accepts_mac},
    [ARGUMENT_METHOD]    = {"METHOD", "a JSON-RPC method's name", false, accepts_any},
    [ARGUMENT_PORT]      = {"PORT", "a port, 0 to 65535", true, accepts_port},
    [ARGUMENT_PREFIX]    = {"PREFIX", "a prefix such as 192.0.2.0/24 or 2001:db8::/32", false, accepts_prefix},
    [ARGUMENT_PROTOCOL]  = {"PROTOCOL", "a protocol's name or number", true, accepts_any, protocol_names},
    [ARGUMENT_SECONDS]   = {"SECONDS", "a number of seconds, 1 to 86400", true, accepts_seconds},
    [ARGUMENT_SPI]       = {"SPI", "an SPI, 4096 or 0x1000", false, accepts_spi},
    [ARGUMENT_STATE]     = {"STATE", "a session's state", false, accepts_any, state_names},
    [ARGUMENT_VRF]       = {"VRF", "a VRF's name", false, accepts_any},
    [ARGUMENT_WEIGHT]    = {"WEIGHT", "a number from 1 to 255", true, accepts_weight},
    [ARGUMENT_WORD]      = {"WORD", "a word", false, accepts_any},
};
/* clang-format on */

const struct argument *argument_of(enum argument_type type) {
    return &arguments[type];
}

enum argument_type argument_find(const char *name, unsigned long length) {
    for (int type = 0; type < ARGUMENT_TYPES; type++)
        if (strlen(arguments[type].name) == length &&
            memcmp(arguments[type].name, name, length) == 0)
            return (enum argument_type)type;
    return ARGUMENT_TYPES;
}
