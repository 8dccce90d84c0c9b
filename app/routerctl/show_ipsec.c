/*
 * show ipsec: security associations and policies, a table each.
 */
#include "commands.h"
#include "field.h"
#include "format.h"
#include "session.h"
#include "table.h"

#include <stdio.h>
#include <string.h>

struct text {
    char text[256];
};

/* --- associations --- */

/* "aes-gcm-256", "aes-cbc-128 hmac-sha256-128" */
static void algorithm_cell(struct table *table, const json_t *sa) {
    const char *authentication = json_string_value(json_object_get(sa, "authentication"));

    table_cell(table, "%s%s%s", field_text(sa, "algorithm"), authentication ? " " : "",
               authentication ? authentication : "");
}

/* What should not happen, so that it is seen. */
static void refused_cell(struct table *table, uint64_t count) {
    if (count > 0)
        table_coloured(table, TABLE_RED, "%s", format_count(count).text);
    else
        table_cell(table, "0");
}

/* What is left until the association ends: of several limits the one that comes first, if it goes
 * on as before. */
static void left_cell(struct table *table, const json_t *sa) {
    static const char *const limits[] = {"seconds", "use_seconds", "bytes", "packets"};
    const json_t *lifetime = json_object_get(sa, "lifetime");
    const char *nearest = NULL;
    double least = 2, left = 0;

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        char key[32];
        double limit = field_real(lifetime, limits[i]), part;

        snprintf(key, sizeof(key), "%s_left", limits[i]);
        part = field_real(lifetime, key) / limit;
        if (part < least) { /* not if one of them is missing */
            least = part;
            left = field_real(lifetime, key);
            nearest = limits[i];
        }
    }
    if (nearest == NULL)
        table_cell(table, "-");
    else if (strcmp(nearest, "bytes") == 0)
        table_cell(table, "%s", format_unit(left, "B").text);
    else if (strcmp(nearest, "packets") == 0)
        table_cell(table, "%s packets", format_scaled(left).text);
    else
        table_cell(table, "%s", format_duration(left).text);
}

static void sa_row(struct table *table, const json_t *sa) {
    bool udp = json_is_integer(json_object_get(sa, "udp_destination_port"));
    bool used = json_is_number(json_object_get(sa, "idle"));

    table_cell(table, "%s", field_text(sa, "direction"));
    table_cell(table, "0x%08llx", (unsigned long long)field_count(sa, "spi"));
    table_cell(table, "%s%s", field_text(sa, "mode"), udp ? " udp" : "");
    table_cell(table, "%s", field_text(sa, "source"));
    table_cell(table, "%s", field_text(sa, "destination"));
    algorithm_cell(table, sa);
    table_cell(table, "%s", format_scaled(field_real(sa, "packets")).text);
    table_cell(table, "%s", format_unit(field_real(sa, "bytes"), "B").text);
    refused_cell(table, field_count(sa, "replayed") + field_count(sa, "too_old"));
    refused_cell(table, field_count(sa, "integrity_failures"));
    if (used)
        table_cell(table, "%s", format_duration(field_real(sa, "idle")).text);
    else /* since when it waits for its first packet */
        table_cell(table, "unused %s", format_duration(field_real(sa, "age")).text);
    left_cell(table, sa);
    table_cell(table, "%s", field_text(sa, "owner"));
}

/* The router lists the youngest first. */
static void show_sas(struct session *session, const json_t *sas) {
    static const struct table_column columns[] = {
        {"SA", TABLE_LEFT},       {"SPI", TABLE_LEFT},         {"MODE", TABLE_LEFT},
        {"SOURCE", TABLE_LEFT},   {"DESTINATION", TABLE_LEFT}, {"ALGORITHM", TABLE_LEFT},
        {"PACKETS", TABLE_RIGHT}, {"BYTES", TABLE_RIGHT},      {"REPLAYS", TABLE_RIGHT},
        {"FAILED", TABLE_RIGHT},  {"IDLE", TABLE_RIGHT},       {"LEFT", TABLE_RIGHT},
        {"OWNER", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);

    for (size_t i = json_array_size(sas); i-- > 0;)
        sa_row(table, json_array_get(sas, i));
    table_end(table, stdout, session->colour);
}

/* What routers on the way have said about packets that were too big. */
static void show_paths(const json_t *sas) {
    bool any = false;

    for (size_t i = json_array_size(sas); i-- > 0;) {
        const json_t *sa = json_array_get(sas, i);

        if (!json_is_integer(json_object_get(sa, "path_mtu")))
            continue;
        printf("%spath MTU of SPI 0x%08llx to %s: %llu bytes\n", any ? "" : "\n",
               (unsigned long long)field_count(sa, "spi"), field_text(sa, "destination"),
               (unsigned long long)field_count(sa, "path_mtu"));
        any = true;
    }
}

/* --- policies --- */

/* What policies name associations by, such as "out spi 4096". */
static struct text name_of(const char *direction, const char *key, const json_t *value) {
    struct text out;

    snprintf(out.text, sizeof(out.text), "%s %s %" JSON_INTEGER_FORMAT, direction, key,
             json_integer_value(value));
    return out;
}

/* The names of all associations, as keys of an object. */
static json_t *names_of(const json_t *sas) {
    static const char *const keys[] = {"spi", "request"};
    json_t *names = json_object(), *sa;
    size_t i;

    json_array_foreach (sas, i, sa) {
        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
            const json_t *value = json_object_get(sa, keys[k]);
            if (value != NULL)
                json_object_set_new(
                    names, name_of(field_text(sa, "direction"), keys[k], value).text, json_true());
        }
    }
    return names;
}

/* "10.1.0.0/24", "2001:db8::7", "any IPv4" */
static struct text prefix_text(const char *prefix) {
    const char *slash = strchr(prefix, '/');
    bool ipv6 = strchr(prefix, ':') != NULL;
    struct text out;

    if (slash && strcmp(slash, "/0") == 0)
        snprintf(out.text, sizeof(out.text), "any %s", ipv6 ? "IPv6" : "IPv4");
    else if (slash && strcmp(slash, ipv6 ? "/128" : "/32") == 0)
        snprintf(out.text, sizeof(out.text), "%.*s", (int)(slash - prefix), prefix);
    else
        snprintf(out.text, sizeof(out.text), "%s", prefix);
    return out;
}

/* " port 80", " port 6000-6099", or nothing */
static struct text ports_text(const json_t *policy, const char *key) {
    const json_t *ports = json_object_get(policy, key);
    struct text out = {""};

    if (json_is_integer(ports))
        snprintf(out.text, sizeof(out.text), " port %" JSON_INTEGER_FORMAT,
                 json_integer_value(ports));
    else if (json_is_string(ports))
        snprintf(out.text, sizeof(out.text), " port %s", json_string_value(ports));
    return out;
}

/* ", in vpn", ", vrf guest", or nothing */
static struct text place_text(const json_t *policy) {
    const json_t *if_id = json_object_get(policy, "if_id");
    const char *interface = json_string_value(json_object_get(policy, "interface"));
    const char *vrf = field_text(policy, "vrf");
    struct text out = {""};

    if (interface)
        snprintf(out.text, sizeof(out.text), ", in %s", interface);
    else if (if_id)
        snprintf(out.text, sizeof(out.text), ", if_id %" JSON_INTEGER_FORMAT " (no interface)",
                 json_integer_value(if_id));
    else if (strcmp(vrf, "default") != 0 && strcmp(vrf, "-") != 0)
        snprintf(out.text, sizeof(out.text), ", vrf %s", vrf);
    return out;
}

/* "tcp 10.1.0.0/24 to 10.2.0.0/24 port 443, vrf guest" */
static void selector_cell(struct table *table, const json_t *policy) {
    const char *protocol = json_string_value(json_object_get(policy, "protocol"));

    table_cell(table, "%s%s%s%s to %s%s%s", protocol ? protocol : "", protocol ? " " : "",
               prefix_text(field_text(policy, "source")).text,
               ports_text(policy, "source_port").text,
               prefix_text(field_text(policy, "destination")).text,
               ports_text(policy, "destination_port").text, place_text(policy).text);
}

/* Of a policy that protects: with what, and whether that is there. */
static void with_cell(struct table *table, const json_t *policy, const json_t *names) {
    const json_t *spi = json_object_get(policy, "spi");
    const json_t *request = json_object_get(policy, "request");
    const char *key = spi ? "spi" : "request";
    struct text with;

    if (spi == NULL && request == NULL) {
        table_cell(table, "-");
        return;
    }
    if (spi)
        snprintf(with.text, sizeof(with.text), "SPI 0x%08llx",
                 (unsigned long long)field_count(policy, "spi"));
    else
        snprintf(with.text, sizeof(with.text), "request %llu",
                 (unsigned long long)field_count(policy, "request"));
    if (json_object_get(names,
                        name_of(field_text(policy, "direction"), key, spi ? spi : request).text))
        table_cell(table, "%s", with.text);
    else
        table_coloured(table, TABLE_RED, "%s, missing", with.text);
}

static void show_policies(struct session *session, const json_t *policies, const json_t *sas) {
    static const struct table_column columns[] = {
        {"ORDER", TABLE_RIGHT},   {"POLICY", TABLE_LEFT}, {"DIRECTION", TABLE_LEFT},
        {"SELECTOR", TABLE_LEFT}, {"ACTION", TABLE_LEFT}, {"WITH", TABLE_LEFT},
        {"PACKETS", TABLE_RIGHT}, {"OWNER", TABLE_LEFT}};
    struct table *table = TABLE_NEW(columns);
    json_t *names = names_of(sas), *policy;
    size_t i;

    json_array_foreach (policies, i, policy) {
        table_cell(table, "%zu", i + 1);
        table_cell(table, "%s", field_text(policy, "name"));
        table_cell(table, "%s", field_text(policy, "direction"));
        selector_cell(table, policy);
        table_cell(table, "%s", field_text(policy, "action"));
        with_cell(table, policy, names);
        table_cell(table, "%s", format_scaled(field_real(policy, "packets")).text);
        table_cell(table, "%s", field_text(policy, "owner"));
    }
    json_decref(names);
    table_end(table, stdout, session->colour);
}

/* --- both --- */

static void show(struct session *session, const json_t *sas, const json_t *policies) {
    if (json_array_size(sas) == 0)
        puts("no security associations");
    else
        show_sas(session, sas);
    show_paths(sas);
    putchar('\n');
    if (json_array_size(policies) == 0)
        puts("no policies: nothing is protected");
    else
        show_policies(session, policies, sas);
}

/* All pages of a list; NULL with *status after telling. */
static json_t *fetch(struct session *session, const char *method, const char *name, int *status) {
    enum { PAGE_SIZE = 1000 };
    json_t *all = json_array(), *cursor = NULL;
    size_t before;

    do {
        json_t *params = json_pack("{s:i}", "limit", PAGE_SIZE);

        if (cursor)
            json_object_set_new(params, "cursor", cursor);
        json_t *page = session_call(session, method, params, CLIENT_TIMEOUT, status);
        if (page == NULL) {
            json_decref(all);
            return NULL;
        }
        before = json_array_size(all);
        json_array_extend(all, json_object_get(page, name));
        cursor = json_incref(json_object_get(page, "cursor"));
        json_decref(page);
    } while (json_is_integer(cursor) && json_array_size(all) > before);
    json_decref(cursor);
    return all;
}

int run_show_ipsec(struct session *session, const struct match *match) {
    json_t *sas, *policies;
    int status;

    sas = fetch(session, match->command->method, "sas", &status);
    if (sas == NULL)
        return status;
    policies = fetch(session, "ipsec.policy.list", "policies", &status);
    if (policies == NULL) {
        json_decref(sas);
        return status;
    }
    if (session->json) {
        json_t *both = json_pack("{s:O, s:O}", "sas", sas, "policies", policies);
        session_print_json(session, both);
        json_decref(both);
    } else {
        show(session, sas, policies);
    }
    json_decref(policies);
    json_decref(sas);
    return status;
}
