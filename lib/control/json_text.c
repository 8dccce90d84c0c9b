/*
 * JSON text to values and back. Fails on text that is not JSON, has duplicate keys or is nested too
 * deeply, with a fault that says where.
 */
#include "control/json_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/json_scan.h"

void json_fault_locate(struct json_fault *fault, const char *text, size_t position) {
    fault->position = position;
    fault->line = 1;
    fault->column = 1;
    for (size_t i = 0; i < position; i++) {
        if (text[i] == '\n') {
            fault->line++;
            fault->column = 1;
        } else if (((unsigned char)text[i] & 0xc0) != 0x80) {
            fault->column++; /* continuation bytes of UTF-8 are no characters of their own */
        }
    }
}

void json_fault_unexpected(struct json_fault *fault, const char *text, size_t length,
                           const char *expected) {
    char found[32] = "the end";
    if (fault->position < length) {
        unsigned char byte = (unsigned char)text[fault->position];
        if (byte == '\n' || byte == '\r') {
            strcpy(found, "the end of the line");
        } else if (byte >= 0x20 && byte < 0x7f) {
            snprintf(found, sizeof(found), "'%c'", byte);
        } else {
            snprintf(found, sizeof(found), "byte 0x%02x", byte);
        }
    }
    snprintf(fault->text, sizeof(fault->text), "expected %s, found %s", expected, found);
}

json_t *json_text_parse(const char *text, size_t length, struct json_fault *fault) {
    json_error_t error;
    json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (value) {
        return value;
    }
    /* "duplicate object key near '"psk"'": only what precedes the quote is safe to show. */
    const char *near = strstr(error.text, " near '");
    int shown = near ? (int)(near - error.text) : (int)strlen(error.text);
    snprintf(fault->text, sizeof(fault->text), "%.*s", shown, error.text);
    fault->position = error.position > 0 ? (size_t)error.position - 1 : 0;
    if (fault->position > length) {
        fault->position = length;
    }
    json_fault_locate(fault, text, fault->position);
    return NULL;
}

json_t *json_text_load(const char *text, size_t length, struct json_fault *fault) {
    struct json_scan scan;
    json_scan_init(&scan);
    size_t used;
    enum json_scan_status status = json_scan_feed(&scan, text, length, &used);
    if (status == JSON_SCAN_MORE) {
        status = json_scan_end(&scan);
        if (status == JSON_SCAN_MORE) { /* nothing but white space */
            scan.expected = "a value";
            status = JSON_SCAN_ERROR;
        }
    }
    if (status == JSON_SCAN_VALUE) {
        size_t rest = used;
        while (rest < length && json_scan_is_space(text[rest])) {
            rest++;
        }
        if (rest == length) {
            /* With the leading space, so that positions count from the start of the text. The
             * record separator is no space to the parser; it refuses one in front. */
            return json_text_parse(text, used, fault);
        }
        used = rest;
        scan.expected = "nothing after the value";
    }
    json_fault_locate(fault, text, used);
    if (status == JSON_SCAN_TOO_DEEP) {
        snprintf(fault->text, sizeof(fault->text), "nested deeper than %d levels",
                 JSON_SCAN_MAX_DEPTH);
    } else {
        json_fault_unexpected(fault, text, length, scan.expected);
    }
    return NULL;
}

/* The length of the UTF-8 sequence at `text`, or 0 when there is none (RFC 3629). */
static size_t utf8_sequence(const unsigned char *text) {
    unsigned char lead = text[0];
    if (lead < 0x80) {
        return 1;
    }
    size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    /* Overlong forms, surrogates, and what lies above U+10FFFF. */
    if ((lead == 0xe0 && text[1] < 0xa0) || (lead == 0xed && text[1] > 0x9f) ||
        (lead == 0xf0 && text[1] < 0x90) || (lead == 0xf4 && text[1] > 0x8f)) {
        return 0;
    }
    return length;
}

json_t *json_text_string(const char *text) {
    json_t *value = json_string(text);
    if (value) {
        return value;
    }
    char *copy = strdup(text);
    if (!copy) {
        return NULL;
    }
    unsigned char *at = (unsigned char *)copy;
    while (*at) {
        size_t length = utf8_sequence(at);
        if (length == 0) {
            *at = '?';
            length = 1;
        }
        at += length;
    }
    value = json_string(copy);
    free(copy);
    return value;
}
