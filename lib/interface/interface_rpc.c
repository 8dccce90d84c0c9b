/*
 * The JSON-RPC methods of interfaces and counters: interface.list, interface.set, stats.get,
 * stats.clear, runtime.get.
 *
 * Counts are since the start or the last stats.clear. `busy_percent` is the share of cycles spent
 * in turns of the worker's loop that found packets, over the last one to two seconds, so that a
 * live view follows the load. `cycles_per_packet` is since stats.clear: clearing starts a
 * measurement.
 */
#include <string.h>

#include "core/mbuf_pool.h"
#include "core/worker.h"
#include "interface/interface_internal.h"
#include "json/decode.h"
#include "json/rpc.h"

static const char *const no_keys[] = {NULL};

static json_t *count(uint64_t value) {
    return json_integer((json_int_t)value);
}

/* A ratio with one decimal: more would only pretend to be precise. */
static json_t *ratio(double dividend, double divisor) {
    double value = divisor > 0 ? dividend / divisor : 0;

    return json_real((double)(int64_t)(value * 10 + 0.5) / 10);
}

/* --- interfaces --- */

static json_t *counters_json(const struct interface *interface) {
    struct interface_totals totals;

    interface_totals(interface, &totals);
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "rx_packets", count(totals.rx_packets),
                     "rx_bytes", count(totals.rx_bytes), "rx_missed", count(totals.rx_missed),
                     "tx_packets", count(totals.tx_packets), "tx_bytes", count(totals.tx_bytes),
                     "tx_dropped", count(totals.tx_dropped));
}

static json_t *addresses_json(const struct interface *interface) {
    static const char *const states[] = {[ADDRESS_TENTATIVE] = "tentative",
                                         [ADDRESS_VALID] = "valid",
                                         [ADDRESS_DUPLICATE] = "duplicate"};
    json_t *list = json_array();

    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *address = &interface->addresses[i];
        char text[IP_PREFIX_TEXT];

        json_array_append_new(list, json_pack("{s:s, s:s}", "address",
                                              ip_prefix_text(&address->prefix, text), "state",
                                              states[address->state]));
    }
    return list;
}

/* Speed, driver and queues of a VLAN are those of the port it shares. */
static json_t *interface_json(const struct interface *interface) {
    const struct interface *parent = interface->parent;
    const struct port *port = interface->port;
    bool link = port->link_up && (!parent || parent->enabled);
    char mac[MAC_ADDRESS_TEXT];

    return json_pack(
        "{s:s, s:s?, s:s, s:s?, s:o, s:o, s:s, s:s, s:i, s:s, s:s, s:o, s:o, s:s?, s:o, s:s, s:i, "
        "s:i, s:i, s:o}",
        "name", interface->name, "device", parent || interface->if_id ? NULL : port->request.device,
        "driver", port->started ? port_driver_name(port) : port->driver->name, "parent",
        parent ? parent->name : NULL, "vlan", parent ? json_integer(interface->vlan) : json_null(),
        "if_id", interface->if_id ? json_integer(interface->if_id) : json_null(), "vrf",
        vrf_name(interface->vrf), "mac", mac_address_text(interface->mac, mac), "mtu",
        (int)interface->mtu, "admin", interface->enabled ? "up" : "down", "link",
        link ? "up" : "down", "speed_mbps", count(link ? port->speed_mbps : 0), "addresses",
        addresses_json(interface), "host_twin",
        interface->host_twin[0] ? interface->host_twin : NULL, "tcp_mss",
        interface->tcp_mss ? json_integer(interface->tcp_mss) : json_null(), "reverse_path",
        reverse_path_names[interface->reverse_path], "rx_queues", (int)port->rx_queues, "tx_queues",
        (int)port->tx_queues, "numa_node", port->numa_node, "counters", counters_json(interface));
}

static json_t *interface_list(struct rpc_request *request) {
    struct decode params;
    json_t *list;

    if (!rpc_params(request, no_keys, &params))
        return NULL;
    list = json_array();
    for (struct interface *i = NULL; (i = interface_next(i));)
        json_array_append_new(list, interface_json(i));
    return rpc_result(request, list);
}
RPC_METHOD(interface_list, "interface.list", "Lists the interfaces with their state and counters.")

static json_t *interface_set(struct rpc_request *request) {
    static const char *const keys[] = {"name", "admin", NULL};
    static const char *const states[] = {"up", "down", NULL};
    struct decode params, name_at, admin_at;
    struct interface *interface;
    const char *name;
    unsigned state;

    if (!rpc_params(request, keys, &params))
        return NULL;

    bool right = decode_required(&params, "name", &name_at) && decode_string(&name_at, &name) &&
                 decode_name(&name_at, name);

    right &= decode_required(&params, "admin", &admin_at) && decode_word(&admin_at, states, &state);
    if (!right)
        return NULL;
    interface = interface_by_name(name);
    if (!interface) {
        request->code = RPC_NOT_FOUND;
        decode_problem(&name_at, "interface `%s` does not exist", name);
        return NULL;
    }
    interface_set_enabled(interface, state == 0);
    return rpc_result(request, json_object());
}
RPC_METHOD(interface_set, "interface.set",
           "Enables or disables an interface until the configuration says otherwise; not saved.")

/* --- counters --- */

static json_t *drops_json(bool all) {
    static uint64_t drops[DROPS_MAX];
    json_t *object = json_object();

    interface_counters_drops(drops);
    for (const struct drop_group *group = drop_group_first(); group; group = group->next) {
        for (unsigned i = 0; i < group->count; i++) {
            char name[128];

            if (drops[group->base + i] == 0 && !all)
                continue;
            snprintf(name, sizeof(name), "%s.%s", group->name, group->reasons[i]);
            json_object_set_new(object, name, count(drops[group->base + i]));
        }
    }
    return object;
}

static json_t *stats_get(struct rpc_request *request) {
    static const char *const keys[] = {"all", NULL};
    struct decode params;
    json_t *interfaces, *workers;
    uint32_t total, in_use;
    bool all = false;

    if (!rpc_params(request, keys, &params) || !decode_member_bool(&params, "all", &all))
        return NULL;
    interfaces = json_object();
    for (struct interface *i = NULL; (i = interface_next(i));)
        json_object_set_new(interfaces, i->name, counters_json(i));
    workers = json_array();
    for (unsigned i = 0; i < workers_count(); i++) {
        struct worker_totals totals;

        interface_counters_worker(worker_get(i), &totals);
        json_array_append_new(workers,
                              json_pack("{s:i, s:o, s:o}", "lcore", (int)worker_get(i)->lcore,
                                        "rx_packets", count(totals.rx_packets), "busy_percent",
                                        ratio(totals.busy_percent, 1)));
    }
    mbuf_pool_usage(&total, &in_use);
    return rpc_result(request, json_pack("{s:o, s:o, s:o, s:{s:o, s:o}}", "interfaces", interfaces,
                                         "drops", drops_json(all), "workers", workers, "mbufs",
                                         "total", count(total), "in_use", count(in_use)));
}
RPC_METHOD(stats_get, "stats.get",
           "Returns the counters of interfaces, drops, workers and packet buffers.")

static json_t *stats_clear(struct rpc_request *request) {
    struct decode params;

    if (!rpc_params(request, no_keys, &params))
        return NULL;
    interface_counters_clear();
    return rpc_result(request, json_object());
}
RPC_METHOD(stats_clear, "stats.clear", "Makes all counters start again from zero.")

/* --- workers --- */

static json_t *queues_json(const struct worker *worker) {
    json_t *list = json_array();
    uint16_t port, queue;

    for (unsigned i = 0; worker_queue(worker, i, &port, &queue); i++) {
        const struct interface *interface = interface_on_port(port);

        json_array_append_new(list,
                              json_pack("{s:s?, s:i}", "interface",
                                        interface ? interface->name : NULL, "queue", (int)queue));
    }
    return list;
}

static json_t *stages_json(const struct worker_totals *totals) {
    const char *names[STAGES_MAX];
    unsigned index[STAGES_MAX], stages = pipeline_stages(names, index);
    json_t *list = json_array();

    for (unsigned i = 0; i < stages; i++) {
        const struct stage_counters *stage = &totals->stage[index[i]];

        json_array_append_new(
            list,
            json_pack("{s:s, s:o, s:o, s:o, s:o}", "name", names[i], "packets",
                      count(stage->packets), "bursts", count(stage->bursts), "packets_per_burst",
                      ratio((double)stage->packets, (double)stage->bursts), "cycles_per_packet",
                      ratio((double)stage->cycles, (double)stage->sampled_packets)));
    }
    return list;
}

static json_t *runtime_get(struct rpc_request *request) {
    struct decode params;
    json_t *list;

    if (!rpc_params(request, no_keys, &params))
        return NULL;
    list = json_array();
    for (unsigned i = 0; i < workers_count(); i++) {
        const struct worker *worker = worker_get(i);
        struct worker_totals totals;

        interface_counters_worker(worker, &totals);
        json_array_append_new(
            list, json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "lcore", (int)worker->lcore,
                            "loops", count(totals.loops), "empty_polls", count(totals.empty_loops),
                            "busy_percent", ratio(totals.busy_percent, 1), "packets",
                            count(totals.rx_packets), "cycles_per_packet",
                            ratio((double)totals.busy_cycles, (double)totals.rx_packets), "queues",
                            queues_json(worker), "stages", stages_json(&totals)));
    }
    return rpc_result(request, json_pack("{s:o}", "workers", list));
}
RPC_METHOD(runtime_get, "runtime.get", "Returns what each worker does: queues, stages, cycles.")
