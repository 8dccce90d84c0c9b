/*
 * Reading JSON with paths.
 *
 * Values come from files and sockets, so whatever is repeated in a message or path is bounded and
 * escaped, and once the list of problems is full nothing more is put together for it. No function
 * here walks down into values, so the depth of a document costs no stack; decode_path() walks up.
 *
 * What can go wrong: the input, in every way that has a sentence below. Out of memory for a path
 * ends the program, like in problem.c.
 */
#include "json/decode.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_SHOWN = 128,  /* bytes of a key repeated in a path */
    VALUE_SHOWN = 80, /* bytes of a value repeated in a message */
    ESCAPED_MAX = 6,  /* bytes that one byte may become: \u001b */
    SHOWN_TEXT = VALUE_SHOWN * ESCAPED_MAX + 8,
    SUGGESTION_KEY_MAX = 40, /* longer keys are compared with nothing */
    NAME_MAX_LENGTH = 31,
};

/* ---- text from the document, made fit to show ---- */

/* How much of the text is shown: all, or up to `limit` bytes without cutting a character. */
static size_t shown_length(const char *text, size_t limit) {
    size_t length = strnlen(text, limit + 1);
    if (length <= limit)
        return length;
    length = limit;
    while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
        length--;
    return length;
}

/* Writes at most `limit` bytes of the text, escaped as in a JSON string, to `out` (which may be
 * NULL to only measure), without a NUL. Returns the length. */
static size_t put_escaped(char *out, const char *text, size_t limit) {
    size_t shown = shown_length(text, limit), length = 0;
    for (size_t i = 0; i < shown; i++) {
        unsigned char c = (unsigned char)text[i];
        unsigned char next = (unsigned char)text[i + 1];
        char piece[ESCAPED_MAX + 1];
        size_t bytes;
        if (c == '"' || c == '\\') {
            bytes = (size_t)snprintf(piece, sizeof(piece), "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            bytes = (size_t)snprintf(piece, sizeof(piece), "\\u%04x", c);
        } else if (c == 0xc2 && next >= 0x80 &&
                   next < 0xa0) { /* U+0080 to U+009F are controls too */
            bytes = (size_t)snprintf(piece, sizeof(piece), "\\u%04x", next);
            i++;
        } else {
            piece[0] = (char)c;
            bytes = 1;
        }
        if (out != NULL)
            memcpy(out + length, piece, bytes);
        length += bytes;
    }
    if (text[shown] != '\0') {
        if (out != NULL)
            memcpy(out + length, "...", 3);
        length += 3;
    }
    return length;
}

/* The text escaped, as a C string. */
static const char *escaped(const char *text, char out[SHOWN_TEXT]) {
    out[put_escaped(out, text, VALUE_SHOWN)] = '\0';
    return out;
}

/* What stands there, where something of another type was expected. Strings are not repeated: they
 * may be secrets that ended up under the wrong key. */
static const char *kind(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

/* ---- paths ---- */

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* May the key follow a dot as it is? Letters, digits and underscores, as in RFC 9535
 * section 2.5.1.1. */
static bool is_plain_word(const char *key) {
    if (!is_letter(key[0]) && key[0] != '_')
        return false;
    size_t length = 1;
    while (is_letter(key[length]) || is_digit(key[length]) || key[length] == '_')
        length++;
    return length <= KEY_SHOWN && key[length] == '\0';
}

/* This value's own part of the path, written to `out` unless that is NULL. Returns its length. */
static size_t put_step(char *out, const struct decode *d) {
    char text[32];
    const char *from = text;
    size_t length;
    if (d->parent == NULL) {
        from = d->root != NULL ? d->root : "$";
        length = strlen(from);
    } else if (d->key == NULL) {
        length = (size_t)snprintf(text, sizeof(text), "[%zu]", d->index);
    } else if (is_plain_word(d->key)) {
        from = d->key;
        length = strlen(from);
        if (out != NULL)
            *out++ = '.';
        if (out != NULL)
            memcpy(out, from, length);
        return length + 1;
    } else {
        length = put_escaped(out == NULL ? NULL : out + 2, d->key, KEY_SHOWN);
        if (out != NULL) {
            memcpy(out, "[\"", 2);
            memcpy(out + 2 + length, "\"]", 2);
        }
        return length + 4;
    }
    if (out != NULL)
        memcpy(out, from, length);
    return length;
}

char *decode_path(const struct decode *d) {
    size_t length = 0;
    for (const struct decode *at = d; at != NULL; at = at->parent)
        length += put_step(NULL, at);
    char *path = malloc(length + 1);
    if (path == NULL) {
        fputs("dpdk-router: error: out of memory for a JSON path\n", stderr);
        abort();
    }
    path[length] = '\0';
    for (const struct decode *at = d; at != NULL; at = at->parent) { /* from the end */
        length -= put_step(NULL, at);
        put_step(path + length, at);
    }
    return path;
}

struct decode decode_root(const json_t *value, struct problems *problems) {
    return (struct decode){.value = value, .problems = problems};
}

static bool list_is_full(const struct decode *d) {
    return d->problems == NULL || d->problems->count >= PROBLEMS_MAX;
}

void decode_problem(const struct decode *d, const char *format, ...) {
    if (list_is_full(d)) {
        problems_add(d->problems, "", "%s", ""); /* only counted */
        return;
    }
    char message[2048];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    if (length >= (int)sizeof(message)) {
        /* The message goes out as JSON: it must not end within a character. */
        size_t cut = shown_length(message, sizeof(message) - 4);
        memcpy(message + cut, "...", 4);
    }
    char *path = decode_path(d);
    problems_add(d->problems, path, "%s", message);
    free(path);
}

/* ---- structure ---- */

bool decode_is_object(const struct decode *d) {
    if (json_is_object(d->value))
        return true;
    decode_problem(d, "expected an object, found %s", kind(d->value));
    return false;
}

bool decode_is_array(const struct decode *d) {
    if (json_is_array(d->value))
        return true;
    decode_problem(d, "expected an array, found %s", kind(d->value));
    return false;
}

bool decode_member(const struct decode *d, const char *key, struct decode *out) {
    const json_t *value = json_object_get(d->value, key);
    if (value == NULL)
        return false;
    *out = (struct decode){.value = value, .parent = d, .key = key, .problems = d->problems};
    return true;
}

bool decode_required(const struct decode *d, const char *key, struct decode *out) {
    if (decode_member(d, key, out))
        return true;
    decode_problem(d, "`%s` is required", key);
    return false;
}

struct decode decode_element(const struct decode *d, size_t i) {
    return (struct decode){
        .value = json_array_get(d->value, i), .parent = d, .index = i, .problems = d->problems};
}

struct decode decode_at_iter(const struct decode *d, void *iter) {
    return (struct decode){.value = json_object_iter_value(iter),
                           .parent = d,
                           .key = json_object_iter_key(iter),
                           .problems = d->problems};
}

/* ---- keys ---- */

/* Case and the choice of separator do not count as mistakes: hostTwin and host-twin are both near
 * host_twin. */
static char folded(char c) {
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    if (c == '-' || c == ' ')
        return '_';
    return c;
}

static unsigned min_unsigned(unsigned a, unsigned b) {
    return a < b ? a : b;
}

/* Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (the optimal
 * string alignment distance), both of at most SUGGESTION_KEY_MAX bytes. */
static unsigned edit_distance(const char *a, size_t a_length, const char *b, size_t b_length) {
    unsigned rows[3][SUGGESTION_KEY_MAX + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_length; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            char x = folded(a[i - 1]), y = folded(b[j - 1]);
            unsigned best = above[j - 1] + (x != y);
            best = min_unsigned(best, min_unsigned(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && x == folded(b[j - 2]) && y == folded(a[i - 2]))
                best = min_unsigned(best, before[j - 2] + 1);
            row[j] = best;
        }
        unsigned *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[b_length];
}

/* The known key that was probably meant, or NULL. Short keys must be nearer: `in` is not `out`. */
static const char *nearest_key(const char *key, const char *const *known) {
    size_t length = strnlen(key, SUGGESTION_KEY_MAX + 1);
    if (length > SUGGESTION_KEY_MAX)
        return NULL;
    const char *nearest = NULL;
    unsigned smallest = length <= 4 ? 1 : length <= 8 ? 2 : 3;
    for (; *known != NULL; known++) {
        size_t known_length = strlen(*known);
        if (known_length > SUGGESTION_KEY_MAX)
            continue;
        unsigned distance = edit_distance(key, length, *known, known_length);
        if (distance < smallest || (distance == smallest && nearest == NULL)) {
            nearest = *known;
            smallest = distance;
        }
    }
    return nearest;
}

static bool is_known(const char *key, const char *const *known) {
    for (; *known != NULL; known++) {
        if (strcmp(key, *known) == 0)
            return true;
    }
    return false;
}

void decode_only_keys(const struct decode *d, const char *const *known) {
    struct decode child;
    decode_foreach_member (d, child) {
        if (is_known(child.key, known))
            continue;
        char shown[SHOWN_TEXT];
        const char *meant = list_is_full(d) ? NULL : nearest_key(child.key, known);
        if (meant != NULL)
            decode_problem(&child, "unknown key `%s`; did you mean `%s`?",
                           escaped(child.key, shown), meant);
        else
            decode_problem(&child, "unknown key `%s`", escaped(child.key, shown));
    }
}

/* ---- numbers and truth ---- */

bool decode_uint(const struct decode *d, uint64_t min, uint64_t max, uint64_t *out) {
    if (json_is_integer(d->value)) {
        json_int_t value = json_integer_value(d->value);
        if (value >= 0 && (uint64_t)value >= min && (uint64_t)value <= max) {
            *out = (uint64_t)value;
            return true;
        }
    }
    /* A number is shown as it is: 70000 is out of range, 1500.0 has a fraction. */
    char number[48] = "";
    if (json_is_number(d->value)) {
        size_t length = json_dumpb(d->value, number, sizeof(number) - 1, JSON_ENCODE_ANY);
        number[length < sizeof(number) ? length : 0] = '\0';
    }
    decode_problem(d, "expected an integer from %" PRIu64 " to %" PRIu64 ", found %s", min, max,
                   number[0] != '\0' ? number : kind(d->value));
    return false;
}

bool decode_u32(const struct decode *d, uint32_t min, uint32_t max, uint32_t *out) {
    uint64_t value;
    if (!decode_uint(d, min, max, &value))
        return false;
    *out = (uint32_t)value;
    return true;
}

bool decode_u16(const struct decode *d, uint16_t min, uint16_t max, uint16_t *out) {
    uint64_t value;
    if (!decode_uint(d, min, max, &value))
        return false;
    *out = (uint16_t)value;
    return true;
}

bool decode_bool(const struct decode *d, bool *out) {
    if (json_is_boolean(d->value)) {
        *out = json_is_true(d->value);
        return true;
    }
    decode_problem(d, "expected true or false, found %s", kind(d->value));
    return false;
}

/* ---- strings ---- */

/* A string that C code may handle; `expected` names what it should hold. */
static bool string_of(const struct decode *d, const char *expected, const char **out) {
    if (!json_is_string(d->value)) {
        decode_problem(d, "expected %s, found %s", expected, kind(d->value));
        return false;
    }
    const char *text = json_string_value(d->value);
    size_t length = json_string_length(d->value);
    if (length == 0) {
        decode_problem(d, "expected %s, found an empty string", expected);
        return false;
    }
    if (strlen(text) != length) {
        decode_problem(d, "expected %s, found a string with a NUL character", expected);
        return false;
    }
    *out = text;
    return true;
}

bool decode_string(const struct decode *d, const char **out) {
    return string_of(d, "a string", out);
}

bool decode_word(const struct decode *d, const char *const *words, unsigned *out) {
    char expected[512] = "";
    size_t length = 0;
    for (unsigned i = 0; words[i] != NULL && length < sizeof(expected); i++) {
        const char *before = i == 0 ? "" : words[i + 1] == NULL ? " or " : ", ";
        length += (size_t)snprintf(expected + length, sizeof(expected) - length, "%s\"%s\"", before,
                                   words[i]);
    }
    const char *text;
    if (!string_of(d, expected, &text))
        return false;
    for (unsigned i = 0; words[i] != NULL; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i;
            return true;
        }
    }
    char shown[SHOWN_TEXT];
    decode_problem(d, "expected %s, found \"%s\"", expected, escaped(text, shown));
    return false;
}

/* ---- addresses ---- */

bool decode_address(const struct decode *d, struct ip_address *out) {
    static const char expected[] = "an address such as 192.0.2.1 or 2001:db8::1";
    const char *text;
    if (!string_of(d, expected, &text))
        return false;
    if (ip_address_parse(text, out) == 0)
        return true;
    struct ip_prefix prefix;
    char shown[SHOWN_TEXT], meant[IP_ADDRESS_TEXT];
    if (ip_interface_parse(text, &prefix) == 0)
        decode_problem(d, "expected an address without a length, found \"%s\"; did you mean %s?",
                       escaped(text, shown), ip_address_text(&prefix.address, meant));
    else
        decode_problem(d, "expected %s, found \"%s\"", expected, escaped(text, shown));
    return false;
}

bool decode_prefix(const struct decode *d, struct ip_prefix *out) {
    static const char expected[] = "a prefix such as 192.0.2.0/24 or 2001:db8::/32";
    const char *text;
    if (!string_of(d, expected, &text))
        return false;
    int result = ip_prefix_parse(text, out);
    if (result == 0)
        return true;
    struct ip_prefix prefix;
    char shown[SHOWN_TEXT], meant[IP_PREFIX_TEXT];
    if (result == -EDOM && ip_interface_parse(text, &prefix) == 0) {
        prefix = ip_prefix_network(&prefix);
        decode_problem(d, "host bits are set; did you mean %s?", ip_prefix_text(&prefix, meant));
    } else if (ip_address_parse(text, &prefix.address) == 0) {
        prefix.length = ip_family_bits(prefix.address.family);
        decode_problem(d, "the prefix length is missing; did you mean %s?",
                       ip_prefix_text(&prefix, meant));
    } else {
        decode_problem(d, "expected %s, found \"%s\"", expected, escaped(text, shown));
    }
    return false;
}

bool decode_interface_address(const struct decode *d, struct ip_prefix *out) {
    static const char expected[] =
        "an address with a prefix length such as 192.0.2.1/24 or 2001:db8::1/64";
    const char *text;
    if (!string_of(d, expected, &text))
        return false;
    if (ip_interface_parse(text, out) == 0)
        return true;
    char shown[SHOWN_TEXT];
    decode_problem(d, "expected %s, found \"%s\"", expected, escaped(text, shown));
    return false;
}

bool decode_mac(const struct decode *d, uint8_t out[6]) {
    static const char expected[] = "a MAC address such as 02:00:00:00:00:01";
    static const uint8_t zero[6];
    const char *text;
    if (!string_of(d, expected, &text))
        return false;
    uint8_t mac[6];
    char shown[SHOWN_TEXT];
    if (mac_address_parse(text, mac) != 0)
        decode_problem(d, "expected %s, found \"%s\"", expected, escaped(text, shown));
    else if ((mac[0] & 1) != 0) /* the group bit of IEEE 802 */
        decode_problem(d, "expected a unicast MAC address, found the group address %s", text);
    else if (memcmp(mac, zero, sizeof(mac)) == 0)
        decode_problem(d, "expected a unicast MAC address, found %s", text);
    else {
        memcpy(out, mac, sizeof(mac));
        return true;
    }
    return false;
}

/* ---- names ---- */

bool decode_name(const struct decode *d, const char *name) {
    if (name == NULL)
        name = d->key != NULL ? d->key : "";
    size_t length = 0;
    while (length <= NAME_MAX_LENGTH &&
           (is_letter(name[length]) || is_digit(name[length]) ||
            (length > 0 && (name[length] == '.' || name[length] == '-' || name[length] == '_'))))
        length++;
    if (length > 0 && length <= NAME_MAX_LENGTH && name[length] == '\0')
        return true;
    char shown[SHOWN_TEXT];
    decode_problem(d,
                   "expected a name of 1 to %d letters, digits, '.', '-' or '_' that starts with a "
                   "letter or digit, found \"%s\"",
                   NAME_MAX_LENGTH, escaped(name, shown));
    return false;
}

/* ---- protocols and ports ---- */

bool decode_protocol(const struct decode *d, uint8_t *out) {
    uint16_t number;

    if (json_is_string(d->value)) {
        if (ip_protocol_parse(json_string_value(d->value), out) == 0)
            return true;
    } else if (json_is_integer(d->value)) {
        if (!decode_u16(d, 0, UINT8_MAX, &number))
            return false;
        *out = (uint8_t)number;
        return true;
    }
    decode_problem(d, "expected one of \"tcp\", \"udp\", \"icmp\", \"icmpv6\", \"gre\", \"esp\", "
                      "\"ah\", \"sctp\", \"dccp\", \"udplite\", or a number from 0 to 255");
    return false;
}

/* Digits alone, unlike what strtoul() takes. Returns what is behind them, NULL if there are none or
 * the number is no port. */
static const char *read_port(const char *text, uint16_t *out) {
    unsigned value = 0, digits = 0;

    for (; *text >= '0' && *text <= '9' && digits < 6; text++, digits++)
        value = value * 10 + (unsigned)(*text - '0');
    *out = (uint16_t)value;
    return digits > 0 && value >= 1 && value <= UINT16_MAX ? text : NULL;
}

bool decode_ports(const struct decode *d, uint16_t *first, uint16_t *last) {
    const char *text = json_string_value(d->value);
    uint16_t from, to;

    if (json_is_integer(d->value)) {
        if (!decode_u16(d, 1, UINT16_MAX, first))
            return false;
        *last = *first;
        return true;
    }
    text = text ? read_port(text, &from) : NULL;
    text = text && *text == '-' ? read_port(text + 1, &to) : NULL;
    if (!text || *text != '\0' || from > to) {
        decode_problem(d, "expected a port, or a range of ports such as \"1024-65535\"");
        return false;
    }
    *first = from;
    *last = to;
    return true;
}

/* ---- members with a default ---- */

bool decode_member_u32(const struct decode *d, const char *key, uint32_t min, uint32_t max,
                       uint32_t *out) {
    struct decode member;
    return !decode_member(d, key, &member) || decode_u32(&member, min, max, out);
}

bool decode_member_u16(const struct decode *d, const char *key, uint16_t min, uint16_t max,
                       uint16_t *out) {
    struct decode member;
    return !decode_member(d, key, &member) || decode_u16(&member, min, max, out);
}

bool decode_member_bool(const struct decode *d, const char *key, bool *out) {
    struct decode member;
    return !decode_member(d, key, &member) || decode_bool(&member, out);
}

bool decode_member_string(const struct decode *d, const char *key, const char **out) {
    struct decode member;
    return !decode_member(d, key, &member) || decode_string(&member, out);
}
