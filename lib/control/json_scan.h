/*
 * Finds where one JSON value ends in a stream of bytes, however the bytes are cut into pieces.
 *
 * The scanner follows the grammar of RFC 8259 as far as brackets, strings, commas and colons go, so
 * it notices a broken request at the first byte that cannot be right instead of waiting for a
 * bracket that never comes. What stands inside numbers, literals, escapes and UTF-8 sequences is
 * left to the parser that gets the whole value. Each byte is looked at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_SCAN_MAX_DEPTH = 512 }; /* objects and arrays inside each other */

enum json_scan_status {
    JSON_SCAN_MORE,     /* all bytes used, the value is not finished (or has not begun) */
    JSON_SCAN_VALUE,    /* the value ends with the last byte used */
    JSON_SCAN_ERROR,    /* the byte after those used cannot stand there; `expected` says what can */
    JSON_SCAN_TOO_DEEP, /* the byte after those used would open level JSON_SCAN_MAX_DEPTH + 1 */
};

struct json_scan {
    uint8_t state;
    bool key;             /* the string being read is a key */
    bool begun;           /* a byte of the value has been seen */
    unsigned depth;       /* open objects and arrays */
    const char *expected; /* after JSON_SCAN_ERROR: "a value", "',' or '}'", ... */
    uint64_t is_object[JSON_SCAN_MAX_DEPTH / 64]; /* per level: object or array */
};

/* Ready for a new value. */
void json_scan_init(struct json_scan *scan);

/* Looks at `length` more bytes; *used is how many of them belong to the value (all of them for
 * JSON_SCAN_MORE). White space before the value counts as used. After any other status than
 * JSON_SCAN_MORE the scanner must be initialised again. */
enum json_scan_status json_scan_feed(struct json_scan *scan, const char *bytes, size_t length,
                                     size_t *used);

/* No more bytes will come: JSON_SCAN_VALUE when a bare number or literal was being read, which only
 * the end could finish; JSON_SCAN_MORE when nothing had begun; otherwise JSON_SCAN_ERROR. */
enum json_scan_status json_scan_end(struct json_scan *scan);

/* White space between values: RFC 8259's, and the record separator of RFC 7464. */
bool json_scan_is_space(char byte);
