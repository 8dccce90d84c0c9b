/* nat.list: the rules as they are in force, with the addresses that they have now. */
#include <rte_byteorder.h>
#include <stdatomic.h>

#include "interface/interface.h"
#include "nat/nat_internal.h"
#include "json/rpc.h"

static json_t *address_json(uint32_t host) {
    uint32_t network = rte_cpu_to_be_32(host);
    struct ip_address address = ip4_address(&network);
    char text[IP_ADDRESS_TEXT];

    return json_string(ip_address_text(&address, text));
}

static const char *interface_text(uint16_t id) {
    const struct interface *interface = id ? interface_by_id(id) : NULL;

    return interface ? interface->name : "";
}

static json_t *pool_json(const struct nat_source_rule *rule) {
    json_t *list = json_array();

    for (unsigned i = 0; i < rule->pool_count; i++)
        json_array_append_new(list,
                              json_pack("{s:o, s:o}", "first", address_json(rule->pool[i].first),
                                        "last", address_json(rule->pool[i].last)));
    return list;
}

static json_t *source_json(const struct nat_source_rule *rule) {
    static const char *const targets[] = {
        [NAT_TO_INTERFACE] = "interface", [NAT_TO_POOL] = "pool", [NAT_TO_NONE] = "none"};

    return json_pack(
        "{s:s, s:s, s:s, s:o, s:s, s:s, s:i, s:i, s:i}", "name", rule->name, "out",
        interface_text(rule->out), "to", targets[rule->target], "addresses", pool_json(rule),
        "mapping", rule->endpoint_dependent ? "endpoint_dependent" : "endpoint_independent",
        "filtering",
        rule->endpoint_independent_filter ? "endpoint_independent" : "endpoint_dependent",
        "port_first", rule->port_first, "port_last", rule->port_last, "port_block",
        rule->block_size);
}

static json_t *destination_json(const struct nat_destination_rule *rule) {
    json_t *to = json_pack("{s:o, s:o}", "first", address_json(rule->to_first), "last",
                           address_json(rule->to_last));
    char protocol[IP_PROTOCOL_TEXT] = "any";
    json_t *object;

    if (rule->protocol != 0)
        ip_protocol_text(rule->protocol, protocol);
    object = json_pack("{s:s, s:s, s:s, s:o}", "name", rule->name, "in", interface_text(rule->in),
                       "protocol", protocol, "to", to);

    if (object && !rule->any_port) {
        json_object_set_new(object, "port_first", json_integer(rule->port_first));
        json_object_set_new(object, "port_last", json_integer(rule->port_last));
    }
    if (object && !rule->keeps_port)
        json_object_set_new(object, "to_port", json_integer(rule->to_port));
    return object;
}

static json_t *static_json(const struct nat_static_rule *rule) {
    return json_pack("{s:o, s:o, s:s}", "outside", address_json(rte_be_to_cpu_32(rule->outside)),
                     "inside", address_json(rte_be_to_cpu_32(rule->inside)), "interface",
                     interface_text(rule->interface));
}

static json_t *prefix6_json(const struct nat_prefix6 *prefix) {
    struct ip_prefix whole = {.address = ip6_address(prefix->address), .length = prefix->length};
    char text[IP_PREFIX_TEXT];

    return json_string(ip_prefix_text(&whole, text));
}

static json_t *nptv6_json(const struct nptv6_rule *rule) {
    return json_pack("{s:s, s:s, s:o, s:o}", "name", rule->name, "out", interface_text(rule->out),
                     "inside", prefix6_json(&rule->inside), "outside",
                     prefix6_json(&rule->outside));
}

static json_t *binding_json(const struct nat64_static *fixed) {
    struct ip_address inside = ip6_address(fixed->inside);
    char text[IP_ADDRESS_TEXT], protocol[IP_PROTOCOL_TEXT];
    json_t *object =
        json_pack("{s:o?, s:s}", "outside",
                  fixed->outside ? address_json(rte_be_to_cpu_32(fixed->outside)) : NULL, "inside",
                  ip_address_text(&inside, text));

    if (object && fixed->protocol != 0) {
        json_object_set_new(object, "protocol",
                            json_string(ip_protocol_text(fixed->protocol, protocol)));
        json_object_set_new(object, "port_first", json_integer(fixed->first));
        json_object_set_new(object, "port_last", json_integer(fixed->last));
        json_object_set_new(object, "inside_port", json_integer(fixed->inside_first));
    }
    return object;
}

static json_t *nat64_json(const struct nat_rules *rules, unsigned index) {
    json_t *object = source_json(&rules->nat64[index].as), *bindings = json_array();

    for (unsigned i = 0; i < rules->nat64_static_count; i++) {
        if (rules->nat64_by_outside[i].rule == index)
            json_array_append_new(bindings, binding_json(&rules->nat64_by_outside[i]));
    }
    if (!object) {
        json_decref(bindings);
        return NULL;
    }
    json_object_del(object, "port_block");
    json_object_set_new(object, "prefix", prefix6_json(&rules->nat64[index].prefix));
    json_object_set_new(object, "static", bindings);
    return object;
}

static json_t *nat_list(struct rpc_request *request) {
    const struct nat_rules *rules = atomic_load(&nat_rules_published);
    json_t *sources, *destinations, *statics, *nptv6, *nat64;
    struct decode params;

    if (!rpc_params(request, (const char *const[]){NULL}, &params))
        return NULL;
    sources = json_array();
    destinations = json_array();
    statics = json_array();
    nptv6 = json_array();
    nat64 = json_array();
    for (unsigned i = 0; rules && i < rules->source_count; i++)
        json_array_append_new(sources, source_json(&rules->sources[i]));
    for (unsigned i = 0; rules && i < rules->destination_count; i++)
        json_array_append_new(destinations, destination_json(&rules->destinations[i]));
    for (unsigned i = 0; rules && i < rules->static_count; i++)
        json_array_append_new(statics, static_json(&rules->by_outside[i]));
    for (unsigned i = 0; rules && i < rules->nptv6_count; i++)
        json_array_append_new(nptv6, nptv6_json(&rules->nptv6[i]));
    for (unsigned i = 0; rules && i < rules->nat64_count; i++)
        json_array_append_new(nat64, nat64_json(rules, i));
    return rpc_result(request,
                      json_pack("{s:o, s:o, s:o, s:o, s:o, s:I}", "source", sources, "destination",
                                destinations, "static", statics, "nptv6", nptv6, "nat64", nat64,
                                "mappings",
                                (json_int_t)(nat_mapping_exists() ? nat_mapping_count() : 0)));
}
RPC_METHOD(nat_list, "nat.list", "Lists the rules of the NAT with the addresses they have now.")
