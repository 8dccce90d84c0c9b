/* ipsec.sa.* and ipsec.policy.*. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/event.h"
#include "interface/interface.h"
#include "ipsec/ipsec_decode.h"
#include "json/rpc.h"

enum { LIST_DEFAULT = 1000, LIST_MAX = 10000 }; /* elements of an answer */

static const char *const owner_names[] = {
    [IPSEC_OF_CONFIG] = "config",
    [IPSEC_OF_CLIENT] = "client",
    [IPSEC_OF_IKE] = "ike",
};

/* Without the section there are no stages that would look at what is added. */
static bool is_configured(struct rpc_request *request) {
    if (ipsec_wanted())
        return true;
    request->code = RPC_CONFLICT;
    problems_add(&request->problems, "$",
                 "the configuration has no section `ipsec`; it may be "
                 "empty, but must be there");
    return false;
}

static bool object_of(struct rpc_request *request, struct decode *out) {
    if (!json_is_object(request->params)) {
        problems_add(&request->problems, "$", "expected an object, as in router.json");
        return false;
    }
    *out = decode_root(request->params, &request->problems);
    return true;
}

static bool vrf_of(struct rpc_request *request, const char *name, uint16_t *out) {
    int vrf = vrf_by_name(name);

    if (vrf < 0) {
        request->code = RPC_NOT_FOUND;
        problems_add(&request->problems, "$.vrf", "VRF `%s` does not exist", name);
        return false;
    }
    *out = (uint16_t)vrf;
    return true;
}

static bool tunnel_of(struct rpc_request *request, const char *name, uint32_t *out) {
    const struct interface *interface = interface_by_name(name);

    if (name[0] == '\0')
        return true;
    if (!interface || interface->if_id == 0) {
        request->code = RPC_NOT_FOUND;
        problems_add(&request->problems, "$.interface",
                     interface ? "`%s` is no tunnel interface: it has no `if_id`"
                               : "interface `%s` does not exist",
                     name);
        return false;
    }
    *out = interface->if_id;
    return true;
}

static bool resolve(struct rpc_request *request, const struct ipsec_names *names, uint16_t *vrf,
                    uint32_t *if_id) {
    return vrf_of(request, names->vrf, vrf) && tunnel_of(request, names->interface, if_id);
}

/* The number, and the interface's name while there is one. */
static int add_tunnel(json_t *object, uint32_t if_id) {
    const struct interface *interface = if_id != 0 ? interface_by_if_id(if_id) : NULL;
    int result = 0;

    if (if_id != 0)
        result = json_object_set_new(object, "if_id", json_integer(if_id));
    if (result == 0 && interface)
        result = json_object_set_new(object, "interface", json_string(interface->name));
    return result;
}

static const char *name_of_vrf(uint16_t vrf) {
    const char *name = vrf_name(vrf);

    return name ? name : "-";
}

static json_t *seconds_since(uint64_t msec) {
    return json_real((double)(event_now() - msec) / 1000.0);
}

/* The list with one more; NULL, and no list any more, when memory is out. */
static json_t *with(json_t *list, json_t *added) {
    if (json_array_append_new(list, added) == 0)
        return list;
    json_decref(list);
    return NULL;
}

/* A page of a list: how many, and behind what the page before ended. */
static bool page_of(struct rpc_request *request, uint64_t *cursor, uint32_t *limit) {
    static const char *const keys[] = {"cursor", "limit", NULL};
    struct decode params, at;
    bool good;

    *cursor = 0;
    *limit = LIST_DEFAULT;
    if (!rpc_params(request, keys, &params))
        return false;
    good = decode_member_u32(&params, "limit", 1, LIST_MAX, limit);
    if (decode_member(&params, "cursor", &at))
        good &= decode_uint(&at, 0, INT64_MAX, cursor);
    return good;
}

static json_t *page(struct rpc_request *request, const char *name, json_t *list, bool more,
                    uint64_t cursor) {
    json_t *next = more ? json_integer((json_int_t)cursor) : json_null();

    return rpc_result(request, list ? json_pack("{s:o, s:o}", name, list, "cursor", next) : NULL);
}

/* --- associations --- */

/* A limit, and how much of it is left; nothing where there is none. */
static int add_limit(json_t *object, const char *name, uint64_t soft, uint64_t hard,
                     json_t *(*number)(double), double used) {
    char key[32];
    int result = 0;

    if (hard != 0)
        result = json_object_set_new(object, name, json_integer((json_int_t)hard));
    if (hard != 0 && result == 0) {
        snprintf(key, sizeof(key), "%s_left", name);
        result =
            json_object_set_new(object, key, number(used < (double)hard ? (double)hard - used : 0));
    }
    if (soft != 0 && result == 0) {
        snprintf(key, sizeof(key), "soft_%s", name);
        result = json_object_set_new(object, key, json_integer((json_int_t)soft));
    }
    return result;
}

static json_t *whole(double value) {
    return json_integer((json_int_t)value);
}

static bool has_limits(const struct ipsec_sa_limits *limits) {
    return limits->bytes != 0 || limits->packets != 0 || limits->seconds != 0 ||
           limits->use_seconds != 0;
}

static int add_lifetime(json_t *object, const struct ipsec_sa *sa) {
    const struct ipsec_sa_settings *settings = ipsec_sa_settings(sa);
    const struct ipsec_sa_limits *soft = &settings->soft, *hard = &settings->hard;
    json_t *lifetime;
    struct ipsec_sa_use use;
    int result;

    if (!has_limits(soft) && !has_limits(hard))
        return 0;
    ipsec_sa_use(sa, &use);
    lifetime = json_object();
    result = lifetime ? json_object_set_new(object, "lifetime", lifetime) : -1;
    if (result == 0)
        result = add_limit(lifetime, "seconds", soft->seconds, hard->seconds, json_real,
                           (double)(event_now() - use.added) / 1000.0);
    if (result == 0)
        result = add_limit(lifetime, "use_seconds", soft->use_seconds, hard->use_seconds, json_real,
                           use.first_used ? (double)(event_now() - use.first_used) / 1000.0 : 0);
    if (result == 0)
        result = add_limit(lifetime, "bytes", soft->bytes, hard->bytes, whole, (double)use.bytes);
    if (result == 0)
        result = add_limit(lifetime, "packets", soft->packets, hard->packets, whole,
                           (double)use.packets);
    return result;
}

static int add_counters(json_t *object, const struct ipsec_sa *sa) {
    struct ipsec_sa_counters counters;
    json_t *counted;
    int result;

    ipsec_sa_counters(sa, &counters);
    counted = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "packets", (json_int_t)counters.packets,
        "bytes", (json_int_t)counters.bytes, "replayed", (json_int_t)counters.replayed, "too_old",
        (json_int_t)counters.too_old, "integrity_failures", (json_int_t)counters.failed,
        "malformed", (json_int_t)counters.malformed, "refused", (json_int_t)counters.refused,
        "sequence", (json_int_t)ipsec_sa_sequence(sa));
    result = counted ? json_object_update(object, counted) : -1;
    json_decref(counted);
    if (result == 0 && counters.last_used != 0)
        result = json_object_set_new(object, "idle", seconds_since(counters.last_used));
    return result;
}

static json_t *json_of_sa(const struct ipsec_sa *sa) {
    const struct ipsec_sa_settings *settings = ipsec_sa_settings(sa);
    char source[IP_ADDRESS_TEXT], destination[IP_ADDRESS_TEXT];
    json_t *object = json_pack(
        "{s:I, s:s, s:s, s:s, s:s, s:s, s:i, s:b, s:i, s:s, s:s, s:s, s:o}", "spi",
        (json_int_t)settings->spi, "direction", ipsec_direction_names[settings->direction],
        "source", ip_address_text(&settings->source, source), "destination",
        ip_address_text(&settings->destination, destination), "mode",
        ipsec_mode_names[settings->mode], "algorithm", esp_cipher_name(settings->cipher),
        "icv_length", (int)settings->icv, "esn", (int)settings->esn, "replay_window",
        (int)settings->replay_window, "df", ipsec_df_names[settings->df], "vrf",
        name_of_vrf(settings->vrf), "owner", owner_names[ipsec_sa_owner(sa)], "age",
        seconds_since(ipsec_sa_created(sa)));
    int result = object ? 0 : -1;

    if (result == 0 && settings->auth)
        result = json_object_set_new(object, "authentication",
                                     json_string(esp_auth_name(settings->auth)));
    if (result == 0 && settings->request != 0)
        result = json_object_set_new(object, "request", json_integer(settings->request));
    if (result == 0)
        result = add_tunnel(object, settings->if_id);
    if (result == 0 && settings->destination_port != 0)
        result =
            json_object_set_new(object, "udp_source_port", json_integer(settings->source_port));
    if (result == 0 && settings->destination_port != 0)
        result = json_object_set_new(object, "udp_destination_port",
                                     json_integer(settings->destination_port));
    if (result == 0 && ipsec_sa_path_mtu(sa) != 0)
        result = json_object_set_new(object, "path_mtu", json_integer(ipsec_sa_path_mtu(sa)));
    if (result == 0)
        result = add_lifetime(object, sa);
    if (result == 0)
        result = add_counters(object, sa);
    if (result != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

/* The cursor is the serial number of the last one: an older one follows whatever comes or goes. */
static json_t *sa_list(struct rpc_request *request) {
    const struct ipsec_sa *sa = NULL;
    uint64_t cursor;
    uint32_t limit;
    json_t *list;

    if (!page_of(request, &cursor, &limit))
        return NULL;
    list = json_array();
    while ((sa = ipsec_sa_next(sa)) != NULL && list && limit > 0) {
        if (cursor != 0 && ipsec_sa_serial(sa) >= cursor)
            continue;
        list = with(list, json_of_sa(sa));
        cursor = ipsec_sa_serial(sa);
        limit--;
    }
    return page(request, "sas", list, sa != NULL, cursor);
}
RPC_METHOD(sa_list, "ipsec.sa.list",
           "Lists IPsec's security associations, without their keys, and what each has counted, a "
           "page at a time: pass the answer's `cursor` to go on until it is null.")

static json_t *sa_add(struct rpc_request *request) {
    struct ipsec_sa_settings settings;
    struct ipsec_names names;
    struct decode params;
    int error;

    if (!is_configured(request) || !object_of(request, &params))
        return NULL;
    if (!ipsec_decode_sa(&params, &settings, &names) ||
        !resolve(request, &names, &settings.vrf, &settings.if_id)) {
        explicit_bzero(&settings, sizeof(settings));
        return NULL;
    }
    error = ipsec_sa_add(&settings, IPSEC_OF_CLIENT);
    if (error == 0)
        return rpc_result(request, json_object());
    request->code = error == -EEXIST ? RPC_CONFLICT : RPC_INTERNAL_ERROR;
    if (error == -EEXIST)
        problems_add(&request->problems, "$.spi",
                     "there is an association with this SPI, direction and destination");
    else
        problems_add(&request->problems, "$", "the association cannot be made: %s",
                     strerror(-error));
    return NULL;
}
RPC_METHOD(sa_add, "ipsec.sa.add",
           "Adds a security association; takes what stands in ipsec.sas of router.json.")

/* The one with this SPI; with the destination if one is named. */
static const struct ipsec_sa *find_sa(struct rpc_request *request, const struct decode *params) {
    const struct ipsec_sa *found = NULL;
    unsigned direction = IPSEC_IN;
    struct ip_address destination = {0};
    struct decode at;
    uint32_t spi;

    if (!decode_required(params, "spi", &at) || !decode_u32(&at, 0, UINT32_MAX, &spi) ||
        !decode_required(params, "direction", &at) ||
        !decode_word(&at, ipsec_direction_names, &direction))
        return NULL;
    if (decode_member(params, "destination", &at) && !decode_address(&at, &destination))
        return NULL;
    if (destination.family != 0)
        found = ipsec_sa_find(spi, (enum ipsec_direction)direction, &destination);
    for (const struct ipsec_sa *sa = NULL;
         destination.family == 0 && (sa = ipsec_sa_next(sa)) != NULL;) {
        const struct ipsec_sa_settings *settings = ipsec_sa_settings(sa);

        if (settings->spi != spi || settings->direction != (enum ipsec_direction)direction)
            continue;
        if (found) {
            request->code = RPC_CONFLICT;
            problems_add(&request->problems, "$.destination",
                         "several associations have this SPI: name the `destination`");
            return NULL;
        }
        found = sa;
    }
    if (!found) {
        request->code = RPC_NOT_FOUND;
        problems_add(&request->problems, "$.spi", "there is no such association");
    }
    return found;
}

static json_t *sa_delete(struct rpc_request *request) {
    static const char *const keys[] = {"spi", "direction", "destination", NULL};
    const struct ipsec_sa_settings *settings;
    const struct ipsec_sa *sa;
    struct decode params;

    if (!rpc_params(request, keys, &params))
        return NULL;
    sa = find_sa(request, &params);
    if (!sa)
        return NULL;
    settings = ipsec_sa_settings(sa);
    if (ipsec_sa_delete(settings->spi, settings->direction, &settings->destination,
                        IPSEC_OF_CLIENT) == 0)
        return rpc_result(request, json_object());
    request->code = RPC_CONFLICT;
    problems_add(&request->problems, "$.spi", "the association belongs to %s",
                 ipsec_sa_owner(sa) == IPSEC_OF_CONFIG ? "the configuration" : "the IKE daemon");
    return NULL;
}
RPC_METHOD(sa_delete, "ipsec.sa.delete",
           "Deletes a security association that a client has added, by spi and direction.")

/* --- policies --- */

static int add_text(json_t *object, const char *key, const char *text) {
    return json_object_set_new(object, key, json_string(text));
}

static int add_prefix(json_t *object, const char *key, const struct ip_prefix *prefix) {
    char text[IP_PREFIX_TEXT];

    return add_text(object, key, ip_prefix_text(prefix, text));
}

static int add_ports(json_t *object, const char *key, const uint16_t ports[2]) {
    char text[16];

    if (ports[0] == 0 && ports[1] == UINT16_MAX)
        return 0;
    if (ports[0] == ports[1])
        return json_object_set_new(object, key, json_integer(ports[0]));
    snprintf(text, sizeof(text), "%u-%u", ports[0], ports[1]);
    return add_text(object, key, text);
}

static int add_selector(json_t *object, const struct ipsec_selector *selector) {
    char protocol[IP_PROTOCOL_TEXT];
    int result = add_prefix(object, "source", &selector->source);

    if (result == 0)
        result = add_prefix(object, "destination", &selector->destination);
    if (result == 0 && selector->protocol != 0)
        result = add_text(object, "protocol", ip_protocol_text(selector->protocol, protocol));
    if (result == 0)
        result = add_ports(object, "source_port", selector->source_port);
    if (result == 0)
        result = add_ports(object, "destination_port", selector->destination_port);
    return result;
}

static json_t *json_of_policy(const struct ipsec_policy *policy) {
    const struct ipsec_policy_settings *settings = ipsec_policy_settings(policy);
    struct ipsec_policy_counters counters;
    json_t *object;
    int result;

    ipsec_policy_counters(policy, &counters);
    object = json_pack("{s:s, s:s, s:I, s:s, s:s, s:I, s:I}", "direction",
                       ipsec_direction_names[settings->direction], "action",
                       ipsec_action_names[settings->action], "priority",
                       (json_int_t)settings->priority, "vrf", name_of_vrf(settings->vrf), "owner",
                       owner_names[ipsec_policy_owner(policy)], "packets",
                       (json_int_t)counters.packets, "without_sa", (json_int_t)counters.without_sa);
    result = object ? add_selector(object, &settings->selector) : -1;
    if (result == 0 && settings->name[0] != '\0')
        result = add_text(object, "name", settings->name);
    if (result == 0 && settings->spi != 0)
        result = json_object_set_new(object, "spi", json_integer(settings->spi));
    if (result == 0 && settings->request != 0)
        result = json_object_set_new(object, "request", json_integer(settings->request));
    if (result == 0)
        result = add_tunnel(object, settings->if_id);
    if (result != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

/* The cursor is how many were listed: policies have places. */
static json_t *policy_list(struct rpc_request *request) {
    const struct ipsec_policy *policy;
    uint64_t cursor;
    uint32_t limit;
    json_t *list;

    if (!page_of(request, &cursor, &limit))
        return NULL;
    list = json_array();
    policy = ipsec_policy_at(cursor < UINT32_MAX ? (uint32_t)cursor : UINT32_MAX);
    while (policy && list && limit > 0) {
        list = with(list, json_of_policy(policy));
        policy = ipsec_policy_next(policy);
        cursor++;
        limit--;
    }
    return page(request, "policies", list, policy != NULL, cursor);
}
RPC_METHOD(policy_list, "ipsec.policy.list",
           "Lists IPsec's policies in the order they decide in, and how many packets each has met, "
           "a page at a time.")

static struct ipsec_policy *policy_named(const char *name) {
    struct ipsec_policy *policy = NULL;

    while ((policy = ipsec_policy_next(policy)) != NULL) {
        if (strcmp(ipsec_policy_settings(policy)->name, name) == 0)
            return policy;
    }
    return NULL;
}

static json_t *policy_add(struct rpc_request *request) {
    struct decode params, at;
    struct ipsec_policy_settings settings;
    struct ipsec_policy *policy = NULL;
    struct ipsec_names names;
    int error;

    if (!is_configured(request) || !object_of(request, &params) ||
        !ipsec_decode_policy(&params, &settings, &names) ||
        !decode_required(&params, "name", &at) ||
        !resolve(request, &names, &settings.vrf, &settings.if_id))
        return NULL;
    if (policy_named(settings.name)) {
        request->code = RPC_CONFLICT;
        problems_add(&request->problems, "$.name", "there is a policy `%s`", settings.name);
        return NULL;
    }
    error = ipsec_policy_add(&settings, IPSEC_OF_CLIENT, &policy);
    if (error == 0) {
        error = ipsec_publish();
        if (error)
            ipsec_policy_delete(policy);
    }
    if (error == 0)
        return rpc_result(request, json_object());
    request->code = error == -EEXIST ? RPC_CONFLICT : RPC_INTERNAL_ERROR;
    if (error == -EEXIST)
        problems_add(&request->problems, "$",
                     "there is a policy for these packets with the same priority");
    else
        problems_add(&request->problems, "$", "the policy cannot be made: %s", strerror(-error));
    return NULL;
}
RPC_METHOD(policy_add, "ipsec.policy.add",
           "Adds a policy; takes what stands in ipsec.policies of router.json, with a name.")

static json_t *policy_delete(struct rpc_request *request) {
    static const char *const keys[] = {"name", NULL};
    struct ipsec_policy *policy;
    struct decode params, at;
    const char *name;
    int error;

    if (!rpc_params(request, keys, &params) || !decode_required(&params, "name", &at) ||
        !decode_string(&at, &name))
        return NULL;
    policy = policy_named(name);
    if (!policy || ipsec_policy_owner(policy) != IPSEC_OF_CLIENT) {
        request->code = policy ? RPC_CONFLICT : RPC_NOT_FOUND;
        problems_add(&request->problems, "$.name",
                     policy ? "policy `%s` was not added by a client" : "there is no policy `%s`",
                     name);
        return NULL;
    }
    ipsec_policy_delete(policy);
    error = ipsec_publish();
    if (error == 0)
        return rpc_result(request, json_object());
    request->code = RPC_INTERNAL_ERROR;
    problems_add(&request->problems, "$", "the policy goes with the next change: %s",
                 strerror(-error));
    return NULL;
}
RPC_METHOD(policy_delete, "ipsec.policy.delete", "Deletes a policy that a client has added.")
