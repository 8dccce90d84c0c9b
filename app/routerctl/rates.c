/*
 * The table of interface rates. Bits per second count whole frames as the counters do, without
 * preamble, gap and checksum.
 */
#include "rates.h"

#include "format.h"
#include "live.h"

struct table *rates_table(void) {
    static const struct table_column columns[] = {
        {"INTERFACE", TABLE_LEFT}, {"RX PPS", TABLE_RIGHT}, {"RX BIT/S", TABLE_RIGHT},
        {"MISSED/S", TABLE_RIGHT}, {"TX PPS", TABLE_RIGHT}, {"TX BIT/S", TABLE_RIGHT},
        {"DROPPED/S", TABLE_RIGHT}};
    return TABLE_NEW(columns);
}

void rates_row(struct table *table, const char *name, int up, const json_t *now,
               const json_t *before, double seconds) {
    static const struct {
        const char *key;
        double factor;
    } counters[] = {{"rx_packets", 1}, {"rx_bytes", 8}, {"rx_missed", 1},
                    {"tx_packets", 1}, {"tx_bytes", 8}, {"tx_dropped", 1}};

    table_coloured(table, up < 0 ? TABLE_PLAIN : up ? TABLE_GREEN : TABLE_RED, "%s", name);
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        table_cell(
            table, "%s",
            format_scaled(counters[i].factor * live_rate(now, before, counters[i].key, seconds))
                .text);
}
