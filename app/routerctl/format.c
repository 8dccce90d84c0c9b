/*
 * Numbers as people read them. The only pitfall is rounding across a border: 999,999 must become
 * "1.00 M", never "1000 k".
 */
#include "format.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const si_prefixes[] = {"", "k", "M", "G", "T", "P", "E"};

enum { SI_PREFIXES = sizeof(si_prefixes) / sizeof(si_prefixes[0]) };

/* For values below 2^64; spares the program libm. */
static bool is_whole(double value) {
    return value == (double)(uint64_t)value;
}

static struct format unknown(void) {
    return (struct format){"-"};
}

struct format format_count(uint64_t value) {
    char digits[24];
    struct format out;
    int length = snprintf(digits, sizeof(digits), "%" PRIu64, value);
    size_t at = 0;

    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            out.text[at++] = ',';
        out.text[at++] = digits[i];
    }
    out.text[at] = '\0';
    return out;
}

/* Scales to below 1000 and tells the prefix; 999.5 already rounds to 1000 and moves up. */
static double scale(double value, size_t *prefix) {
    *prefix = 0;
    while (value >= 999.5 && *prefix + 1 < SI_PREFIXES) {
        value /= 1000;
        (*prefix)++;
    }
    return value;
}

/* Digits behind the point so that three digits show in all. Whole small numbers need none. */
static int decimals(double scaled, size_t prefix) {
    if (prefix == 0 && is_whole(scaled))
        return 0;
    return scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0;
}

struct format format_unit(double value, const char *unit) {
    struct format out;
    size_t prefix;

    if (isnan(value) || value < 0)
        return unknown();
    value = scale(value, &prefix);
    const char *space = *unit || prefix ? " " : "";
    snprintf(out.text, sizeof(out.text), "%.*f%s%s%s", decimals(value, prefix), value, space,
             si_prefixes[prefix], unit);
    return out;
}

struct format format_scaled(double value) {
    return format_unit(value, "");
}

struct format format_speed(uint64_t mbps) {
    struct format out;

    if (mbps == 0 || mbps >= UINT32_MAX)
        return unknown();
    if (mbps < 1000)
        snprintf(out.text, sizeof(out.text), "%" PRIu64 " Mbit/s", mbps);
    else
        snprintf(out.text, sizeof(out.text), "%g Gbit/s", (double)mbps / 1000);
    return out;
}

struct format format_duration(double seconds) {
    struct format out;

    if (isnan(seconds) || seconds < 0)
        return unknown();
    if (seconds < 59.95) {
        snprintf(out.text, sizeof(out.text), "%.*f s", is_whole(seconds) ? 0 : 1, seconds);
        return out;
    }
    /* What would show as "60.0 s" is a minute. */
    uint64_t whole = seconds < 1e15 ? (uint64_t)(seconds + 0.05) : (uint64_t)1e15;
    uint64_t minutes = whole / 60, hours = minutes / 60, days = hours / 24;
    if (days)
        snprintf(out.text, sizeof(out.text), "%" PRIu64 " d %" PRIu64 " h", days, hours % 24);
    else if (hours)
        snprintf(out.text, sizeof(out.text), "%" PRIu64 " h %" PRIu64 " min", hours, minutes % 60);
    else
        snprintf(out.text, sizeof(out.text), "%" PRIu64 " min %" PRIu64 " s", minutes, whole % 60);
    return out;
}

struct format format_percent(double value) {
    struct format out;

    if (isnan(value) || value < 0)
        return unknown();
    snprintf(out.text, sizeof(out.text), "%.1f %%", value);
    return out;
}
