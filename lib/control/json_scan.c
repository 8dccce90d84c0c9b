/*
 * An incremental scanner for JSON values: a pushdown automaton with one bit per open bracket.
 * It cannot fail but for what it reports about the text.
 */
#include "control/json_scan.h"

#include <string.h>

enum state {
    WANT_VALUE,          /* at the top, after a colon, after a comma in an array */
    WANT_VALUE_OR_CLOSE, /* after '[' */
    WANT_KEY,            /* after a comma in an object */
    WANT_KEY_OR_CLOSE,   /* after '{' */
    WANT_COLON,          /* after a key */
    WANT_COMMA_OR_CLOSE, /* after a value inside an object or array */
    IN_STRING,
    IN_ESCAPE, /* after a backslash in a string */
    IN_TOKEN,  /* in a number or literal */
};

void json_scan_init(struct json_scan *scan) {
    memset(scan, 0, sizeof(*scan));
    scan->state = WANT_VALUE;
}

bool json_scan_is_space(char byte) {
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r' || byte == '\x1e';
}

static bool is_token(char byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
           (byte >= 'A' && byte <= 'Z') || byte == '-' || byte == '+' || byte == '.' || byte == '_';
}

static bool in_object(const struct json_scan *scan) {
    unsigned level = scan->depth - 1;
    return scan->depth > 0 && (scan->is_object[level / 64] >> (level % 64) & 1);
}

static void open_level(struct json_scan *scan, bool object) {
    unsigned level = scan->depth++;
    uint64_t bit = UINT64_C(1) << (level % 64);
    if (object) {
        scan->is_object[level / 64] |= bit;
        scan->state = WANT_KEY_OR_CLOSE;
    } else {
        scan->is_object[level / 64] &= ~bit;
        scan->state = WANT_VALUE_OR_CLOSE;
    }
}

/* A value has ended. True when it was the outermost one. */
static bool value_ended(struct json_scan *scan) {
    scan->state = WANT_COMMA_OR_CLOSE;
    return scan->depth == 0;
}

static enum json_scan_status unexpected(struct json_scan *scan) {
    static const char *const expected[] = {
        [WANT_VALUE] = "a value",
        [WANT_VALUE_OR_CLOSE] = "a value or ']'",
        [WANT_KEY] = "a key in double quotes",
        [WANT_KEY_OR_CLOSE] = "a key in double quotes or '}'",
        [WANT_COLON] = "':' after the key",
        [WANT_COMMA_OR_CLOSE] = "',' or ']'",
        [IN_STRING] = "the closing '\"' of a string",
        [IN_ESCAPE] = "a character after the backslash",
        [IN_TOKEN] = "',' or ']'",
    };
    scan->expected = expected[scan->state];
    if ((scan->state == WANT_COMMA_OR_CLOSE || scan->state == IN_TOKEN) && in_object(scan)) {
        scan->expected = "',' or '}'";
    }
    return JSON_SCAN_ERROR;
}

enum json_scan_status json_scan_feed(struct json_scan *scan, const char *bytes, size_t length,
                                     size_t *used) {
    size_t i = 0;
    for (; i < length; i++) {
        char byte = bytes[i];

        if (scan->state == IN_STRING) {
            /* The common run of plain characters. */
            while ((unsigned char)byte >= 0x20 && byte != '"' && byte != '\\') {
                if (++i == length) {
                    *used = i;
                    return JSON_SCAN_MORE;
                }
                byte = bytes[i];
            }
            if (byte == '\\') {
                scan->state = IN_ESCAPE;
            } else if (byte != '"') {
                /* RFC 8259 section 7: control characters are escaped. So a missing quote is
                 * noticed at the end of its line. */
                *used = i;
                return unexpected(scan);
            } else if (scan->key) {
                scan->key = false;
                scan->state = WANT_COLON;
            } else if (value_ended(scan)) {
                *used = i + 1;
                return JSON_SCAN_VALUE;
            }
            continue;
        }
        if (scan->state == IN_ESCAPE) {
            if ((unsigned char)byte < 0x20) {
                *used = i;
                return unexpected(scan);
            }
            scan->state = IN_STRING;
            continue;
        }
        if (scan->state == IN_TOKEN) {
            if (is_token(byte)) {
                continue;
            }
            if (value_ended(scan)) {
                *used = i; /* the byte after a bare value belongs to what follows */
                return JSON_SCAN_VALUE;
            }
        }
        if (json_scan_is_space(byte)) {
            continue;
        }

        switch (scan->state) {
        case WANT_VALUE:
        case WANT_VALUE_OR_CLOSE:
            if (byte == '{' || byte == '[') {
                if (scan->depth == JSON_SCAN_MAX_DEPTH) {
                    *used = i;
                    return JSON_SCAN_TOO_DEEP;
                }
                open_level(scan, byte == '{');
            } else if (byte == '"') {
                scan->state = IN_STRING;
            } else if (is_token(byte)) {
                scan->state = IN_TOKEN;
            } else if (byte == ']' && scan->state == WANT_VALUE_OR_CLOSE) {
                scan->depth--;
                if (value_ended(scan)) {
                    *used = i + 1;
                    return JSON_SCAN_VALUE;
                }
            } else {
                *used = i;
                return unexpected(scan);
            }
            scan->begun = true;
            break;
        case WANT_KEY:
        case WANT_KEY_OR_CLOSE:
            if (byte == '"') {
                scan->key = true;
                scan->state = IN_STRING;
            } else if (byte == '}' && scan->state == WANT_KEY_OR_CLOSE) {
                scan->depth--;
                if (value_ended(scan)) {
                    *used = i + 1;
                    return JSON_SCAN_VALUE;
                }
            } else {
                *used = i;
                return unexpected(scan);
            }
            break;
        case WANT_COLON:
            if (byte != ':') {
                *used = i;
                return unexpected(scan);
            }
            scan->state = WANT_VALUE;
            break;
        case WANT_COMMA_OR_CLOSE:
        default: {
            bool object = in_object(scan);
            if (byte == ',') {
                scan->state = object ? WANT_KEY : WANT_VALUE;
            } else if (byte == (object ? '}' : ']')) {
                scan->depth--;
                if (value_ended(scan)) {
                    *used = i + 1;
                    return JSON_SCAN_VALUE;
                }
            } else {
                *used = i;
                return unexpected(scan);
            }
            break;
        }
        }
    }
    *used = i;
    return JSON_SCAN_MORE;
}

enum json_scan_status json_scan_end(struct json_scan *scan) {
    if (!scan->begun) {
        return JSON_SCAN_MORE;
    }
    if (scan->state == IN_TOKEN && scan->depth == 0) {
        return JSON_SCAN_VALUE;
    }
    return unexpected(scan);
}
