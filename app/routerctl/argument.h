/*
 * The types an argument of a command can have. In a command's syntax a type is written as its name
 * in capitals, which is also what users read: "route delete PREFIX [vrf VRF]".
 *
 * Only the shape is checked here, enough to tell an address from a word; the router judges the
 * rest.
 */
#pragma once

#include <stdbool.h>

enum argument_type {
    ARGUMENT_ADDRESS,
    ARGUMENT_COUNT,
    ARGUMENT_FILE,
    ARGUMENT_INTERFACE,
    ARGUMENT_JSON,
    ARGUMENT_MAC,
    ARGUMENT_METHOD,
    ARGUMENT_PORT,
    ARGUMENT_PREFIX,
    ARGUMENT_PROTOCOL,
    ARGUMENT_SECONDS,
    ARGUMENT_SPI,
    ARGUMENT_STATE,
    ARGUMENT_VRF,
    ARGUMENT_WEIGHT,
    ARGUMENT_WORD,
    ARGUMENT_TYPES
};

struct argument {
    const char *name;        /* "ADDRESS" */
    const char *description; /* "an IPv4 or IPv6 address" */
    bool number;             /* goes into JSON as an integer where it has only digits */
    bool (*accepts)(const char *text);
    const char *const *names; /* what to offer for completion, NULL-terminated; NULL: the running
                                 router or nobody knows */
};

/* The description of a type; the type must be below ARGUMENT_TYPES. */
const struct argument *argument_of(enum argument_type type);

/* The type with this name, or ARGUMENT_TYPES. The name need not be terminated. */
enum argument_type argument_find(const char *name, unsigned long length);
