/*
 * Numbers as people read them. Each function returns its text by value, so a call can stand
 * straight in an argument list: printf("%s", format_count(n).text).
 */
#pragma once

#include <stdint.h>

struct format {
    char text[48];
};

/* 1234567 -> "1,234,567". */
struct format format_count(uint64_t value);

/* Three significant digits and an SI prefix: 950 -> "950", 1234567 -> "1.23 M". Negative values and
 * NaN, which stand for "not known yet", give "-". */
struct format format_scaled(double value);

/* The same with a unit: 1234567, "B" -> "1.23 MB"; 12, "B" -> "12 B". */
struct format format_unit(double value, const char *unit);

/* A link's speed from Mbit/s: 10000 -> "10 Gbit/s". Zero and DPDK's "unknown" (all ones) give "-".
 */
struct format format_speed(uint64_t mbps);

/* A time span in seconds, in its two largest units: 93784 -> "1 d 2 h"; below a minute with one
 * decimal. */
struct format format_duration(double seconds);

/* 12.34 -> "12.3 %". Negative and NaN: "-". */
struct format format_percent(double value);
