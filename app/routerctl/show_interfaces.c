/*
 * show interfaces: the list, one interface in full, and the live view.
 *
 * interface.list returns all interfaces; one name is picked out here.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "live.h"
#include "rates.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <string.h>

static bool is(const json_t *object, const char *key, const char *text) {
    return strcmp(field_text(object, key), text) == 0;
}

static bool is_up(const json_t *interface) {
    return is(interface, "admin", "up") && is(interface, "link", "up");
}

/* "up", "no link" or "off": what a person calls the combination of admin and link state. */
static void state_cell(struct table *table, const json_t *interface) {
    if (is_up(interface))
        table_coloured(table, TABLE_GREEN, "up");
    else
        table_coloured(table, TABLE_RED, is(interface, "admin", "up") ? "no link" : "off");
}

/* The device without its arguments ("net_vhost0,iface=..."), the parent and VLAN, or the tunnel. */
static void device_cell(struct table *table, const json_t *interface) {
    const char *device = field_text(interface, "device");

    if (json_is_string(json_object_get(interface, "parent")))
        table_cell(table, "%s vlan %.0f", field_text(interface, "parent"),
                   field_real(interface, "vlan"));
    else if (json_is_integer(json_object_get(interface, "if_id")))
        table_cell(table, "ipsec %.0f", field_real(interface, "if_id"));
    else
        table_cell(table, "%.*s", (int)strcspn(device, ","), device);
}

static void address_cell(struct table *table, const json_t *address) {
    if (is(address, "state", "valid"))
        table_cell(table, "%s", field_text(address, "address"));
    else
        table_coloured(table, TABLE_RED, "%s (%s)", field_text(address, "address"),
                       field_text(address, "state"));
}

static void show_list(struct session *session, const json_t *list) {
    static const struct table_column columns[] = {{"INTERFACE", TABLE_LEFT}, {"STATE", TABLE_LEFT},
                                                  {"SPEED", TABLE_RIGHT},    {"MTU", TABLE_RIGHT},
                                                  {"VRF", TABLE_LEFT},       {"DEVICE", TABLE_LEFT},
                                                  {"ADDRESSES", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *interface, *address;
    size_t i, k;

    if (json_array_size(list) == 0)
        puts("no interfaces");
    json_array_foreach (list, i, interface) {
        const json_t *addresses = json_object_get(interface, "addresses");
        table_cell(table, "%s", field_text(interface, "name"));
        state_cell(table, interface);
        table_cell(table, "%s", format_speed(field_count(interface, "speed_mbps")).text);
        table_cell(table, "%.0f", field_real(interface, "mtu"));
        table_cell(table, "%s", field_text(interface, "vrf"));
        device_cell(table, interface);
        json_array_foreach (addresses, k, address) {
            if (k > 0) /* further addresses stand below the first */
                for (size_t empty = 0; empty < 6; empty++)
                    table_cell(table, "%s", "");
            address_cell(table, address);
        }
        table_row_end(table);
    }
    table_end(table, stdout, session->colour);
}

static void show_one(struct session *session, const json_t *interface) {
    static const struct table_column columns[] = {{"", TABLE_LEFT}, {"", TABLE_LEFT}};
    static const struct {
        const char *title, *key;
    } counters[] = {{"Received packets", "rx_packets"}, {"Received bytes", "rx_bytes"},
                    {"Missed packets", "rx_missed"},    {"Sent packets", "tx_packets"},
                    {"Sent bytes", "tx_bytes"},         {"Dropped at sending", "tx_dropped"}};
    struct table *table = TABLE_NEW(columns);
    const json_t *numbers = json_object_get(interface, "counters");
    json_t *address;
    size_t i;

    table_cell(table, "Name");
    table_cell(table, "%s", field_text(interface, "name"));
    table_cell(table, "State");
    table_coloured(table, is_up(interface) ? TABLE_GREEN : TABLE_RED, "admin %s, link %s",
                   field_text(interface, "admin"), field_text(interface, "link"));
    table_cell(table, "Speed");
    table_cell(table, "%s", format_speed(field_count(interface, "speed_mbps")).text);
    if (json_is_string(json_object_get(interface, "parent"))) {
        table_cell(table, "Parent");
        table_cell(table, "%s, VLAN %.0f", field_text(interface, "parent"),
                   field_real(interface, "vlan"));
    } else if (json_is_integer(json_object_get(interface, "if_id"))) {
        table_cell(table, "Tunnel");
        table_cell(table, "IPsec, if_id %.0f", field_real(interface, "if_id"));
    } else {
        table_cell(table, "Device");
        table_cell(table, "%s", field_text(interface, "device"));
    }
    table_cell(table, "Driver");
    table_cell(table, "%s", field_text(interface, "driver"));
    table_cell(table, "VRF");
    table_cell(table, "%s", field_text(interface, "vrf"));
    table_cell(table, "MAC");
    table_cell(table, "%s", field_text(interface, "mac"));
    table_cell(table, "MTU");
    table_cell(table, "%.0f", field_real(interface, "mtu"));
    table_cell(table, "Host twin");
    table_cell(table, "%s", field_text(interface, "host_twin"));
    table_cell(table, "Queues");
    table_cell(table, "%.0f receive, %.0f transmit", field_real(interface, "rx_queues"),
               field_real(interface, "tx_queues"));
    if (field_real(interface, "numa_node") >= 0) {
        table_cell(table, "NUMA node");
        table_cell(table, "%.0f", field_real(interface, "numa_node"));
    }
    json_array_foreach (json_object_get(interface, "addresses"), i, address) {
        table_cell(table, "%s", i == 0 ? "Addresses" : "");
        address_cell(table, address);
    }
    for (i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
        table_cell(table, "%s", counters[i].title);
        table_cell(table, "%s", format_count(field_count(numbers, counters[i].key)).text);
    }
    table_end(table, stdout, session->colour);
}

static const json_t *find(const json_t *list, const char *name) {
    json_t *interface;
    size_t i;

    json_array_foreach (list, i, interface) {
        if (is(interface, "name", name))
            return interface;
    }
    return NULL;
}

static void draw(struct session *session, const struct match *match, FILE *out, const json_t *now,
                 const json_t *before, double seconds) {
    const char *name = match_value(match, "name");
    struct table *table = rates_table();
    json_t *interface;
    size_t i;

    json_array_foreach (now, i, interface) {
        const char *this = field_text(interface, "name");
        if (name == NULL || strcmp(name, this) == 0)
            rates_row(table, this, is_up(interface), json_object_get(interface, "counters"),
                      json_object_get(find(before, this), "counters"), seconds);
    }
    if (table_rows(table) == 0)
        fputs(name ? "no such interface now\n" : "no interfaces\n", out);
    table_end(table, out, session->colour);
}

int run_show_interfaces(struct session *session, const struct match *match) {
    const char *name = match_value(match, "name");
    int status;

    if (match_has(match, "live") && name == NULL)
        return live_run(session, match, 1, 0, NULL, draw);
    json_t *list = session_call(session, match->command->method, NULL, CLIENT_TIMEOUT, &status);
    if (list == NULL)
        return status;
    const json_t *one = name ? find(list, name) : NULL;
    if (name != NULL && one == NULL) {
        session_error(session, "there is no interface \"%s\"", name);
        status = STATUS_ROUTER;
    } else if (match_has(match, "live")) {
        status = live_run(session, match, 1, 0, NULL, draw);
    } else if (session->json) {
        session_print_json(session, name ? one : list);
    } else if (name != NULL) {
        show_one(session, one);
    } else {
        show_list(session, list);
    }
    json_decref(list);
    return status;
}
