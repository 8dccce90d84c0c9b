/*
 * Members of JSON objects for renderers, which must cope with a router that is older or newer than
 * they are: what is missing reads as "-", zero or not-a-number, never as a crash.
 */
#pragma once

#include <jansson.h>
#include <math.h>
#include <stdint.h>

static inline const char *field_text(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

/* A counter; negative and missing values are 0. */
static inline uint64_t field_count(const json_t *object, const char *key) {
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

/* A number, or NaN. */
static inline double field_real(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}
