/* firewall.list. */
#include "firewall/firewall_internal.h"
#include "json/rpc.h"

static int add_counters(json_t *object, struct firewall_counter counter) {
    json_t *counters =
        json_pack("{s:I, s:I, s:I}", "packets", (json_int_t)counter.packets, "bytes",
                  (json_int_t)counter.bytes, "sessions", (json_int_t)counter.sessions);
    int result = counters ? json_object_update(object, counters) : -1;

    json_decref(counters);
    return result;
}

static json_t *json_of(const struct firewall_ruleset *set, uint32_t number, bool is_rule) {
    const struct firewall_verdict *verdict = &set->verdicts[number];
    json_t *object = json_pack("{s:s}", "action", firewall_action_names[verdict->action]);
    int result = object ? 0 : -1;

    if (result == 0 && is_rule) {
        json_t *more =
            json_pack("{s:s, s:b, s:b, s:b}", "name", verdict->name, "enabled", verdict->enabled,
                      "stateless", verdict->stateless, "log", verdict->log);

        result = more ? json_object_update(object, more) : -1;
        json_decref(more);
    }
    if (result == 0)
        result = add_counters(object, firewall_counted(set, number));
    if (result != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *rules_of(const struct firewall_ruleset *set) {
    json_t *rules = json_array();

    for (uint32_t i = 0; rules && i < set->rule_count; i++) {
        if (json_array_append_new(rules, json_of(set, i, true)) != 0) {
            json_decref(rules);
            return NULL;
        }
    }
    return rules;
}

static json_t *firewall_list(struct rpc_request *request) {
    static const char *const keys[] = {NULL};
    const struct firewall_ruleset *set = firewall_ruleset();
    struct decode params;

    if (!rpc_params(request, keys, &params))
        return NULL;
    if (!set)
        return rpc_result(request, json_pack("{s:b, s:s, s:s, s:[]}", "configured", 0, "default",
                                             "accept", "router_default", "accept", "rules"));

    const uint32_t last = firewall_default(set), router = firewall_router_default(set);

    return rpc_result(request,
                      json_pack("{s:b, s:s, s:s, s:o, s:o, s:o}", "configured", 1, "default",
                                firewall_action_names[set->verdicts[last].action], "router_default",
                                firewall_action_names[set->verdicts[router].action], "rules",
                                rules_of(set), "default_counters", json_of(set, last, false),
                                "router_default_counters", json_of(set, router, false)));
}
RPC_METHOD(firewall_list, "firewall.list",
           "Lists the firewall's rules in their order, with what each has counted.")
