/*
 * Reading JSON with paths: every *_config.c and *_rpc.c takes its values through this module, so
 * that every mistake is reported with the place it stands at, all of them at once.
 *
 * A `struct decode` is a JSON value, its place in the document and the list of problems. It lives
 * on the caller's stack; a path is only put together when a problem is added, so a million correct
 * routes cost no allocation. Paths look like $.interfaces.wan.addresses[1]; a key that is not a
 * plain word is written $.interfaces["lan.20"].
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/ip.h"
#include "core/problem.h"

struct decode {
    const json_t *value;         /* never NULL */
    const struct decode *parent; /* NULL at the top */
    const char *key;             /* the key in the parent object, or NULL */
    size_t index;                /* the index in the parent array when key is NULL */
    const char *root;            /* the top's own path text, "$" when NULL */
    struct problems *problems;
};

/* A parent must stay in place while its children are used, and no call may be given the same struct
 * as both parent and child. */

/* The top of a document. `problems` may be NULL: then only the results tell. */
struct decode decode_root(const json_t *value, struct problems *problems);

/* Adds a problem at this value. */
void decode_problem(const struct decode *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The value's path as text, valid UTF-8 without control characters; the caller frees it. Keys of
 * more than 128 bytes are cut short with "...", so that hostile input cannot make a problem
 * expensive. */
char *decode_path(const struct decode *d);

/* Is it an object / array? If not, adds a problem that says what was expected and what stands
 * there, and returns false. */
bool decode_is_object(const struct decode *d);
bool decode_is_array(const struct decode *d);

/* Adds one problem for each key of the object that is not in the NULL-terminated list; a likely
 * misspelling is answered with the nearest known key. Does nothing for what is no object. */
void decode_only_keys(const struct decode *d, const char *const *known);

/* The member `key` of the object. Returns false without a problem when it is absent, which is also
 * the answer for what is no object (check with decode_is_object() first). A null is present. */
bool decode_member(const struct decode *d, const char *key, struct decode *out);
/* The same, but adds the problem "`key` is required" when it is absent. */
bool decode_required(const struct decode *d, const char *key, struct decode *out);
/* Element i of the array; i must be below json_array_size(). */
struct decode decode_element(const struct decode *d, size_t i);

/* Iterates over an object's members in document order. */
#define decode_foreach_member(d, child) DECODE_FOREACH_(d, child, DECODE_JOIN_(it_, __LINE__))
struct decode decode_at_iter(const struct decode *d, void *iter);

/* The iterator's name holds the line, so that loops may stand inside each other under -Wshadow. */
#define DECODE_FOREACH_(d, child, it)                                  \
    for (void *it = json_object_iter((json_t *)(uintptr_t)(d)->value); \
         it && ((child) = decode_at_iter((d), it), true);              \
         it = json_object_iter_next((json_t *)(uintptr_t)(d)->value, it))
#define DECODE_JOIN_(a, b) DECODE_JOIN2_(a, b)
#define DECODE_JOIN2_(a, b) a##b

/* Typed values. Each returns true and sets *out, or adds a problem, leaves *out alone and returns
 * false. Integers: a JSON integer (no fraction) in [min, max]. */
bool decode_uint(const struct decode *d, uint64_t min, uint64_t max, uint64_t *out);
bool decode_u32(const struct decode *d, uint32_t min, uint32_t max, uint32_t *out);
bool decode_u16(const struct decode *d, uint16_t min, uint16_t max, uint16_t *out);
bool decode_bool(const struct decode *d, bool *out);
/* The string stays owned by the JSON document. Empty strings and embedded NULs are refused. */
bool decode_string(const struct decode *d, const char **out);
/* One of a NULL-terminated list of words; *out is its index. */
bool decode_word(const struct decode *d, const char *const *words, unsigned *out);
bool decode_address(const struct decode *d, struct ip_address *out);
bool decode_prefix(const struct decode *d, struct ip_prefix *out);            /* host bits zero */
bool decode_interface_address(const struct decode *d, struct ip_prefix *out); /* host bits kept */
bool decode_mac(const struct decode *d, uint8_t out[6]); /* unicast, not zero */
/* A transport protocol by name or number: "tcp", 6. */
bool decode_protocol(const struct decode *d, uint8_t *out);
/* A port, or a range of ports "1024-65535", from 1 to 65535 in host order. */
bool decode_ports(const struct decode *d, uint16_t *first, uint16_t *last);
/* A name for an object: 1..31 characters, letters, digits, '.', '-', '_', starting with a letter or
 * digit. `name` NULL: the value's own key in its parent. Adds the problem at d. */
bool decode_name(const struct decode *d, const char *name);

/* Short forms: the member `key` of object d. Absent: *out keeps its default, true. Present but
 * wrong: problem, false. */
bool decode_member_u32(const struct decode *d, const char *key, uint32_t min, uint32_t max,
                       uint32_t *out);
bool decode_member_u16(const struct decode *d, const char *key, uint16_t min, uint16_t max,
                       uint16_t *out);
bool decode_member_bool(const struct decode *d, const char *key, bool *out);
bool decode_member_string(const struct decode *d, const char *key, const char **out);
