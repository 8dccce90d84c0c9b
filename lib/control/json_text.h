/*
 * JSON text to values and back, with faults that name line and column.
 *
 * The parser's own messages quote what stands near a mistake. That may be a key or a password, so
 * the quotes are cut off here: a fault can be logged as it is.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>

/* What is wrong with a text, and where. */
struct json_fault {
    size_t position; /* bytes before the faulty one, from the start of the value */
    size_t line;     /* from 1 */
    size_t column;   /* characters, from 1 */
    char text[200];  /* one sentence without a full stop */
};

/* Parses exactly one value that json_scan has found complete (so its depth is bounded). Any kind of
 * value is accepted, duplicate keys are refused. NULL with the fault filled in on failure. */
json_t *json_text_parse(const char *text, size_t length, struct json_fault *fault);

/* Parses a whole document: white space, one value, white space. Refuses more than
 * JSON_SCAN_MAX_DEPTH levels before the (recursive) parser sees them. */
json_t *json_text_load(const char *text, size_t length, struct json_fault *fault);

/* Fills in position, line and column of byte `position` of the text. */
void json_fault_locate(struct json_fault *fault, const char *text, size_t position);

/* Fills in the text: "expected WHAT, found" the byte at the fault's position, or the end. */
void json_fault_unexpected(struct json_fault *fault, const char *text, size_t length,
                           const char *expected);

/* A JSON string made of `text`, in which bytes that are not UTF-8 are replaced by '?': messages can
 * be cut in the middle of a character. NULL only when memory is short. */
json_t *json_text_string(const char *text);
