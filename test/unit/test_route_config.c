/*
 * Routes as users write them: the section "routes" of router.json, and route.add, route.delete and
 * route.list. The RIB is a plain list here that notes every call, so that a test can say what was
 * changed and, as important, what was left alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rcu.h"
#include "core/section.h"
#include "interface/interface.h"
#include "l3/next_hop.h"
#include "l3/rib_internal.h"
#include "l3/route_config.h"
#include "json/rpc.h"

/* ---- fake interfaces and VRFs ---- */

static struct interface wan = {.id = 1, .name = "wan"}, lan = {.id = 2, .name = "lan"};
static uint64_t guest_generation;
static bool guest_exists;

struct interface *interface_by_id(uint16_t id) {
    return id == wan.id ? &wan : id == lan.id ? &lan : NULL;
}

struct interface *interface_by_name(const char *name) {
    return strcmp(name, "wan") == 0 ? &wan : strcmp(name, "lan") == 0 ? &lan : NULL;
}

const char *vrf_name(uint16_t vrf) {
    return vrf == 0 ? "default" : vrf == 1 && guest_exists ? "guest" : NULL;
}

int vrf_by_name(const char *name) {
    return strcmp(name, "default") == 0                 ? 0
           : guest_exists && strcmp(name, "guest") == 0 ? 1
                                                        : -ENOENT;
}

bool interface_configured(const struct config *config, const char *name) {
    (void)config;
    return interface_by_name(name) != NULL;
}

bool vrf_configured(const struct config *config, const char *name) {
    (void)config;
    return vrf_by_name(name) >= 0;
}

bool interface_configured_on_link(const struct config *config, const char *vrf,
                                  const char *interface_name, const struct ip_address *address) {
    struct ip_prefix prefix;

    (void)config;
    assert_null(interface_name);
    for (unsigned i = 0; i < 2; i++) {
        const char *const guest[] = {"10.9.0.0/24", "2001:db8:9::/64"};
        const char *const others[] = {"192.0.2.0/24", "2001:db8::/64"};

        ip_prefix_parse(strcmp(vrf, "guest") == 0 ? guest[i] : others[i], &prefix);
        if (ip_prefix_contains(&prefix, address))
            return true;
    }
    return false;
}

static struct config_section sections[] = {
    {.name = "interfaces"}, {.name = "vrfs"}, {.name = "neighbours"}};

__attribute__((constructor)) static void register_sections(void) {
    for (unsigned i = 0; i < 3; i++)
        config_section_register(&sections[i]);
}

void rcu_synchronize(void) {}

/* ---- fake RIB ---- */

enum { RIB_MAX = 64 };

static struct stored {
    struct route route;
    struct route_path paths[ROUTE_PATHS_MAX];
} rib[RIB_MAX];
static unsigned rib_size, added, deleted;
static int fail_at = -1; /* the call of rib_add() that fails, counted from 0 */

static unsigned rib_index(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin) {
    unsigned i = 0;

    while (i < rib_size && (rib[i].route.vrf != vrf || rib[i].route.origin != origin ||
                            ip_prefix_compare(&rib[i].route.prefix, prefix) != 0))
        i++;
    return i;
}

static int compare_stored(const void *a_stored, const void *b_stored) {
    const struct route *a = &((const struct stored *)a_stored)->route;
    const struct route *b = &((const struct stored *)b_stored)->route;
    const int order =
        a->vrf != b->vrf ? (int)a->vrf - (int)b->vrf : ip_prefix_compare(&a->prefix, &b->prefix);

    return order != 0 ? order : (int)a->origin - (int)b->origin;
}

int rib_add(const struct route *route) {
    const unsigned i = rib_index(route->vrf, &route->prefix, route->origin);

    if (fail_at >= 0 && fail_at-- == 0)
        return -ENOSPC;
    assert_true(i < RIB_MAX);
    rib[i].route = *route;
    for (unsigned j = 0; j < route->path_count; j++)
        rib[i].paths[j] = route->paths[j];
    rib_size += i == rib_size;
    qsort(rib, rib_size, sizeof(rib[0]), compare_stored);
    for (unsigned j = 0; j < rib_size; j++)
        rib[j].route.paths = rib[j].paths;
    added++;
    return 0;
}

int rib_delete(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin) {
    const unsigned i = rib_index(vrf, prefix, origin);

    if (i == rib_size)
        return -ENOENT;
    memmove(&rib[i], &rib[i + 1], (rib_size - i - 1) * sizeof(rib[0]));
    rib_size--;
    for (unsigned j = 0; j < rib_size; j++)
        rib[j].route.paths = rib[j].paths;
    deleted++;
    return 0;
}

static void view_of(unsigned i, struct route_view *view) {
    *view = (struct route_view){.vrf = rib[i].route.vrf,
                                .prefix = rib[i].route.prefix,
                                .origin = rib[i].route.origin,
                                .type = rib[i].route.type,
                                .path_count = rib[i].route.path_count,
                                .active = true};
    for (unsigned j = 0; j < view->path_count; j++) {
        view->paths[j].path = rib[i].paths[j];
        view->paths[j].state = PATH_RESOLVED;
        view->paths[j].out_interface =
            rib[i].paths[j].interface != 0 ? rib[i].paths[j].interface : wan.id;
    }
}

bool rib_find(uint16_t vrf, const struct ip_prefix *prefix, enum route_origin origin,
              struct route_view *out) {
    const unsigned i = rib_index(vrf, prefix, origin);

    if (i < rib_size)
        view_of(i, out);
    return i < rib_size;
}

void rib_each_behind(uint16_t vrf, uint8_t family, const struct ip_prefix *prefix,
                     enum route_origin origin,
                     bool (*visit)(const struct route_view *view, void *context), void *context) {
    for (unsigned i = 0; i < rib_size; i++) {
        const struct route *route = &rib[i].route;
        const int order = prefix != NULL ? ip_prefix_compare(&route->prefix, prefix) : 1;
        struct route_view view;

        if (route->vrf != vrf || route->prefix.address.family != family || order < 0 ||
            (order == 0 && route->origin <= origin))
            continue;
        view_of(i, &view);
        if (!visit(&view, context))
            return;
    }
}

bool rib_lookup(uint16_t vrf, const struct ip_address *address, struct route_view *out) {
    int best = -1;

    for (unsigned i = 0; i < rib_size; i++) {
        const struct route *route = &rib[i].route;

        if (route->vrf == vrf && ip_prefix_contains(&route->prefix, address) &&
            (best < 0 || route->prefix.length > rib[best].route.prefix.length))
            best = (int)i;
    }
    if (best >= 0)
        view_of((unsigned)best, out);
    return best >= 0;
}

uint64_t rib_vrf_generation(uint16_t vrf) {
    return vrf == 0 ? 1 : guest_exists ? guest_generation : 0;
}

static int set_up(void **state) {
    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    rib_size = added = deleted = 0;
    fail_at = -1;
    wan.id = 1;
    lan.id = 2;
    guest_exists = true;
    guest_generation = 2;
    return 0;
}

/* ---- helpers ---- */

/* Like JSON, but with ' for ". */
static json_t *json(const char *text) {
    char *copy = strdup(text);
    json_error_t error;

    for (char *c = copy; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    json_t *value = json_loads(copy, 0, &error);
    if (value == NULL)
        print_error("%s: %s\n", error.text, copy);
    assert_non_null(value);
    free(copy);
    return value;
}

/* The configuration made of these routes; the first problem's "path: message" in `problem`. */
static struct config *configure(const char *routes, char *problem, size_t size, size_t *count) {
    struct problems problems = {0};
    json_t *document = json_pack("{s:o}", "routes", json(routes));
    const struct decode root = decode_root(document, &problems);
    struct config *config = config_new();
    struct decode member;

    assert_true(decode_member(&root, "routes", &member));
    config_set_value(config, &route_section, route_section.decode(&member));
    if (problems_any(&problems))
        config_set_faulty(config, &route_section);
    config_check(config, &problems);
    problem[0] = '\0';
    if (problems_any(&problems))
        snprintf(problem, size, "%s: %s", problems.list[0].path, problems.list[0].message);
    if (count != NULL)
        *count = problems.count;
    problems_free(&problems);
    json_decref(document);
    return config;
}

static void expect_problem(const char *routes, const char *expected, size_t expected_count) {
    char problem[512];
    size_t count;

    config_free(configure(routes, problem, sizeof(problem), &count));
    assert_string_equal(problem, expected);
    assert_int_equal(count, expected_count);
}

static struct config *good(const char *routes) {
    char problem[512];
    struct config *config = configure(routes, problem, sizeof(problem), NULL);

    assert_string_equal(problem, "");
    return config;
}

static struct config *apply(struct config *old, const char *routes) {
    struct config *new = good(routes);
    struct problems problems = {0};

    added = deleted = 0;
    assert_int_equal(config_replace(old, new, &problems), 0);
    config_free(old);
    return new;
}

static const struct route *stored(const char *text, enum route_origin origin) {
    struct ip_prefix prefix;

    assert_int_equal(ip_prefix_parse(text, &prefix), 0);
    for (uint16_t vrf = 0; vrf < 2; vrf++) {
        const unsigned i = rib_index(vrf, &prefix, origin);

        if (i < rib_size)
            return &rib[i].route;
    }
    return NULL;
}

/* ---- the section ---- */

static void every_form_is_understood(void **state) {
    const struct route *route;
    char text[IP_ADDRESS_TEXT];

    (void)state;
    struct config *config = apply(
        NULL,
        "[{'prefix':'0.0.0.0/0','via':'192.0.2.1'},"
        "{'prefix':'198.18.0.0/15','via':['192.0.2.1',{'address':'192.0.2.9','weight':3}]},"
        "{'prefix':'10.0.0.0/8','blackhole':true},"
        "{'prefix':'10.1.0.0/16','unreachable':true,'blackhole':false},"
        "{'prefix':'10.2.0.0/16','prohibit':true},"
        "{'prefix':'10.3.0.0/16','interface':'lan'},"
        "{'prefix':'10.4.0.0/16','via':'203.0.113.1','interface':'lan'},"
        "{'prefix':'10.5.0.0/16','via':{'address':'fe80::1','interface':'wan'}},"
        "{'prefix':'10.6.0.0/16','via':'2001:db8::7'},"
        "{'prefix':'10.7.0.0/16','via':[{'interface':'wan'},{'interface':'lan','weight':255}]},"
        "{'prefix':'10.0.0.0/8','via':'10.9.0.7','vrf':'guest'},"
        "{'prefix':'::/0','via':'2001:db8::1','vrf':'default'}]");

    assert_int_equal(added, 12);
    assert_int_equal(rib_size, 12);
    route = stored("198.18.0.0/15", ROUTE_CONFIG);
    assert_int_equal(route->path_count, 2);
    assert_int_equal(route->paths[0].weight, 1);
    assert_int_equal(route->paths[1].weight, 3);
    assert_int_equal(route->paths[1].interface, 0);
    assert_string_equal(ip_address_text(&route->paths[1].gateway, text), "192.0.2.9");
    assert_int_equal(stored("10.1.0.0/16", ROUTE_CONFIG)->type, ROUTE_UNREACHABLE);
    assert_int_equal(stored("10.2.0.0/16", ROUTE_CONFIG)->type, ROUTE_PROHIBIT);
    assert_int_equal(stored("10.2.0.0/16", ROUTE_CONFIG)->path_count, 0);
    route = stored("10.3.0.0/16", ROUTE_CONFIG);
    assert_int_equal(route->paths[0].interface, 2);
    assert_int_equal(route->paths[0].gateway.family, 0);
    assert_int_equal(stored("10.4.0.0/16", ROUTE_CONFIG)->paths[0].interface, 2);
    assert_int_equal(stored("10.5.0.0/16", ROUTE_CONFIG)->paths[0].interface, 1);
    assert_int_equal(stored("10.7.0.0/16", ROUTE_CONFIG)->paths[1].weight, 255);
    config_free(config);
}

static void mistakes_are_named_with_their_place(void **state) {
    (void)state;
    expect_problem("{}", "$.routes: expected an array, found an object", 1);
    expect_problem("[7]", "$.routes[0]: expected an object, found an integer", 1);
    expect_problem("[{'via':'192.0.2.1'}]", "$.routes[0]: `prefix` is required", 1);
    expect_problem("[{'prefix':'10.0.0.0/8'}]",
                   "$.routes[0]: one of `via`, `interface`, `blackhole`, `unreachable` and "
                   "`prohibit` is required",
                   1);
    expect_problem("[{'prefix':'10.0.0.1/8','via':'192.0.2.1'}]",
                   "$.routes[0].prefix: host bits are set; did you mean 10.0.0.0/8?", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':'192.0.2.1','gateway':1}]",
                   "$.routes[0].gateway: unknown key `gateway`", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':'192.0.2.1','blackhole':true}]",
                   "$.routes[0].blackhole: `via` and `blackhole` exclude each other", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','blackhole':true,'prohibit':true}]",
                   "$.routes[0].prohibit: `blackhole` and `prohibit` exclude each other", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','interface':'wan','unreachable':true}]",
                   "$.routes[0].unreachable: `interface` and `unreachable` exclude each other", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','blackhole':false}]",
                   "$.routes[0]: one of `via`, `interface`, `blackhole`, `unreachable` and "
                   "`prohibit` is required",
                   1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':[]}]",
                   "$.routes[0].via: expected 1 to 32 next hops, found 0", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':7}]",
                   "$.routes[0].via: expected an address, or an object with `address`, "
                   "`interface` and `weight`",
                   1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':{}}]",
                   "$.routes[0].via: `address` or `interface` is required", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':['192.0.2.1',{'address':'192.0.2.1'}]}]",
                   "$.routes[0].via[1]: the same next hop as number 1; use `weight` to prefer one",
                   1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':{'address':'192.0.2.1','weight':256}}]",
                   "$.routes[0].via.weight: expected an integer from 1 to 255, found 256", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':{'address':'192.0.2.1','weight':0}}]",
                   "$.routes[0].via.weight: expected an integer from 1 to 255, found 0", 1);
    expect_problem("[{'prefix':'2001:db8:1::/48','via':'192.0.2.1'}]",
                   "$.routes[0].via: an IPv6 prefix cannot be reached through the IPv4 gateway "
                   "192.0.2.1",
                   1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':['192.0.2.1','fe80::1']}]",
                   "$.routes[0].via[1]: the link-local gateway fe80::1 needs an `interface`", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':'224.0.0.1'}]",
                   "$.routes[0].via: expected the unicast address of a router, found 224.0.0.1", 1);
    expect_problem(
        "[{'prefix':'10.0.0.0/8','interface':'wan','via':{'address':'192.0.2.1',"
        "'interface':'lan'}}]",
        "$.routes[0].via.interface: the interface is given twice: name it here or beside `via`, "
        "not both",
        1);
    expect_problem("[{'prefix':'10.0.0.0/8','interface':'a b'}]",
                   "$.routes[0].interface: expected a name of 1 to 31 letters, digits, '.', '-' "
                   "or '_' that starts with a letter or digit, found \"a b\"",
                   1);
}

static void destinations_that_are_never_forwarded_are_refused(void **state) {
    static const char *const refused[] = {
        "0.0.0.0/8",   "0.1.0.0/16",         "127.0.0.1/32",      "224.0.0.0/4", "224.0.0.0/3",
        "240.0.0.0/5", "239.1.0.0/16",       "ff02::/16",         "fe80::/64",   "::/128",
        "::1/128",     "255.255.255.255/32", "::ffff:1.2.3.0/120"};
    static const char *const accepted[] = {"0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "192.0.0.0/2",
                                           "::/0",      "::/1",      "fe00::/8",    "64:ff9b::/96"};
    char text[128], problem[256];

    (void)state;
    for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        snprintf(text, sizeof(text), "[{'prefix':'%s','blackhole':true}]", refused[i]);
        config_free(configure(text, problem, sizeof(problem), NULL));
        if (strstr(problem, "$.routes[0].prefix: a route cannot lead to ") == NULL)
            print_error("%s: %s\n", refused[i], problem);
        assert_non_null(strstr(problem, "$.routes[0].prefix: a route cannot lead to "));
    }
    for (unsigned i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        snprintf(text, sizeof(text), "[{'prefix':'%s','blackhole':true}]", accepted[i]);
        config_free(good(text));
    }
}

static void all_mistakes_are_told_at_once(void **state) {
    (void)state;
    expect_problem("[{'prefix':'10.0.0.0/8'},{'prefix':'11.0.0.0/8','via':'192.0.2.1'},"
                   "{'prefix':'x','via':['1.2.3','192.0.2.1','192.0.2.1'],'a':1,'b':2}]",
                   "$.routes[0]: one of `via`, `interface`, `blackhole`, `unreachable` and "
                   "`prohibit` is required",
                   6);
}

static void duplicates_are_found_wherever_they_stand(void **state) {
    (void)state;
    expect_problem("[{'prefix':'10.0.0.0/8','via':'192.0.2.1'},"
                   "{'prefix':'11.0.0.0/8','via':'192.0.2.1'},"
                   "{'prefix':'10.0.0.0/8','via':'10.9.0.1','vrf':'guest'},"
                   "{'prefix':'10.0.0.0/16','via':'192.0.2.1'},"
                   "{'prefix':'10.0.0.0/8','blackhole':true,'vrf':'default'}]",
                   "$.routes[4].prefix: VRF default has a route to 10.0.0.0/8 already, at index "
                   "0; a route with several next hops lists them in `via`",
                   1);
}

static void names_and_gateways_are_checked_across_sections(void **state) {
    (void)state;
    expect_problem("[{'prefix':'11.0.0.0/8','via':'192.0.2.1'},"
                   "{'prefix':'10.0.0.0/8','via':['192.0.2.1','203.0.113.9']}]",
                   "$.routes[1].via[1]: gateway 203.0.113.9 is in no connected prefix of VRF "
                   "default; name an interface",
                   1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':'192.0.2.1','vrf':'guest'}]",
                   "$.routes[0].via: gateway 192.0.2.1 is in no connected prefix of VRF guest; "
                   "name an interface",
                   1);
    expect_problem("[{'prefix':'10.0.0.0/8','via':'192.0.2.1','vrf':'nowhere'}]",
                   "$.routes[0].vrf: there is no VRF nowhere", 1);
    expect_problem("[{'prefix':'10.0.0.0/8','interface':'dmz','via':['192.0.2.1','192.0.2.2']}]",
                   "$.routes[0].interface: there is no interface dmz", 1);
    /* In the order of the document, not of the prefixes. */
    expect_problem("[{'prefix':'20.0.0.0/8','via':[{'interface':'wan'},{'interface':'dmz'}]},"
                   "{'prefix':'10.0.0.0/8','via':{'interface':'dmz'}}]",
                   "$.routes[0].via[1].interface: there is no interface dmz", 2);
    /* A named interface is enough, whatever its prefixes are. */
    config_free(good("[{'prefix':'10.0.0.0/8','via':'203.0.113.9','interface':'wan'}]"));
}

static void only_the_difference_is_applied(void **state) {
    (void)state;
    struct config *config = apply(NULL, "[{'prefix':'10.0.0.0/8','via':'192.0.2.1'},"
                                        "{'prefix':'11.0.0.0/8','via':'192.0.2.1'},"
                                        "{'prefix':'12.0.0.0/8','via':'10.9.0.1','vrf':'guest'},"
                                        "{'prefix':'13.0.0.0/8','interface':'wan'},"
                                        "{'prefix':'2001:db8:1::/48','via':'2001:db8::1'}]");
    assert_int_equal(added, 5);

    /* The same in another order and other words. */
    config = apply(config, "[{'prefix':'13.0.0.0/8','via':[{'interface':'wan'}]},"
                           "{'prefix':'12.0.0.0/8','via':['10.9.0.1'],'vrf':'guest'},"
                           "{'prefix':'2001:db8:1::/48','via':'2001:db8::1'},"
                           "{'prefix':'11.0.0.0/8','via':{'address':'192.0.2.1','weight':1}},"
                           "{'prefix':'10.0.0.0/8','via':'192.0.2.1','vrf':'default'}]");
    assert_int_equal(added, 0);
    assert_int_equal(deleted, 0);

    /* One changed, one removed, one new, one moved to the other VRF. */
    config = apply(config, "[{'prefix':'13.0.0.0/8','interface':'lan'},"
                           "{'prefix':'12.0.0.0/8','via':'192.0.2.7'},"
                           "{'prefix':'2001:db8:1::/48','via':'2001:db8::1'},"
                           "{'prefix':'14.0.0.0/8','blackhole':true},"
                           "{'prefix':'10.0.0.0/8','via':'192.0.2.1'}]");
    assert_int_equal(added, 3);
    assert_int_equal(deleted, 2);
    assert_int_equal(rib_size, 5);
    assert_int_equal(stored("13.0.0.0/8", ROUTE_CONFIG)->paths[0].interface, 2);
    assert_int_equal(stored("12.0.0.0/8", ROUTE_CONFIG)->vrf, 0);

    config = apply(config, "[]");
    assert_int_equal(added, 0);
    assert_int_equal(deleted, 5);
    assert_int_equal(rib_size, 0);
    config_free(config);
}

static void what_was_made_anew_under_its_name_is_told_anew(void **state) {
    static const char routes[] = "[{'prefix':'10.0.0.0/8','via':'192.0.2.1','interface':'wan'},"
                                 "{'prefix':'11.0.0.0/8','via':'192.0.2.1'},"
                                 "{'prefix':'12.0.0.0/8','via':'10.9.0.1','vrf':'guest'}]";

    (void)state;
    struct config *config = apply(NULL, routes);
    wan.id = 7;
    config = apply(config, routes);
    assert_int_equal(added, 1);
    assert_int_equal(stored("10.0.0.0/8", ROUTE_CONFIG)->paths[0].interface, 7);
    guest_generation = 3;
    config = apply(config, routes);
    assert_int_equal(added, 1);
    assert_int_equal(deleted, 0);
    /* The VRF goes together with its routes; nobody else's are touched. */
    guest_exists = false;
    config = apply(config, "[]");
    assert_int_equal(deleted, 2);
    config_free(config);
}

static void a_route_that_was_refused_is_tried_again(void **state) {
    static const char routes[] = "[{'prefix':'10.0.0.0/8','via':'192.0.2.1'},"
                                 "{'prefix':'11.0.0.0/8','via':'192.0.2.1'}]";

    (void)state;
    fail_at = 1;
    struct config *config = apply(NULL, routes);
    assert_int_equal(added, 1);
    config = apply(config, routes);
    assert_int_equal(added, 1);
    assert_int_equal(rib_size, 2);
    config_free(config);
}

static void an_absent_section_means_no_routes(void **state) {
    (void)state;
    struct config *config = config_new();
    config_set_value(config, &route_section, route_section.decode(NULL));
    assert_int_equal(config_replace(NULL, config, NULL), 0);
    assert_int_equal(added, 0);
    config_free(config);
}

/* ---- the methods ---- */

static int last_code;

/* Calls; returns the result, or NULL with the first problem's "path: message" in `problem`. */
static json_t *call(const char *method, const char *params, char problem[512]) {
    struct rpc_request request = {.params = params != NULL ? json(params) : NULL};
    json_t *result = rpc_find(method)->call(&request);

    problem[0] = '\0';
    assert_true((result == NULL) == problems_any(&request.problems));
    if (result == NULL)
        snprintf(problem, 512, "%s: %s", request.problems.list[0].path,
                 request.problems.list[0].message);
    last_code = request.code;
    problems_free(&request.problems);
    json_decref((json_t *)(uintptr_t)request.params);
    return result;
}

static void refused(const char *method, const char *params, int code, const char *expected) {
    char problem[512];

    json_decref(call(method, params, problem));
    assert_string_equal(problem, expected);
    assert_int_equal(last_code, code);
}

static void done(const char *method, const char *params, const char *key, int expected) {
    char problem[512];
    json_t *result = call(method, params, problem);

    assert_string_equal(problem, "");
    assert_int_equal(json_integer_value(json_object_get(result, key)), expected);
    json_decref(result);
}

static void routes_are_added_and_deleted(void **state) {
    (void)state;
    done("route.add", "{'prefix':'10.0.0.0/8','via':'192.0.2.1'}", "added", 1);
    done("route.add",
         "{'routes':[{'prefix':'11.0.0.0/8','via':'192.0.2.1','interface':'lan'},"
         "{'prefix':'11.0.0.0/8','blackhole':true,'vrf':'guest'}]}",
         "added", 2);
    assert_int_equal(rib_size, 3);
    assert_int_equal(rib[0].route.origin, ROUTE_RPC);
    assert_int_equal(stored("11.0.0.0/8", ROUTE_RPC)->paths[0].interface, 2);
    done("route.add", "{'prefix':'10.0.0.0/8','via':'192.0.2.2'}", "added", 1);
    assert_int_equal(rib_size, 3);
    assert_int_equal(stored("10.0.0.0/8", ROUTE_RPC)->paths[0].gateway.bytes[3], 2);
    done("route.delete", "{'prefix':'10.0.0.0/8'}", "deleted", 1);
    done("route.delete",
         "{'routes':[{'prefix':'11.0.0.0/8'},{'prefix':'11.0.0.0/8','vrf':'guest'}]}", "deleted",
         2);
    assert_int_equal(rib_size, 0);
    done("route.add", "{'routes':[]}", "added", 0);
    done("route.delete", "{'routes':[]}", "deleted", 0);
}

static void a_request_is_all_or_nothing(void **state) {
    (void)state;
    done("route.add", "{'prefix':'10.0.0.0/8','via':['192.0.2.1','192.0.2.2']}", "added", 1);

    refused("route.add",
            "{'routes':[{'prefix':'11.0.0.0/8','via':'192.0.2.1'},"
            "{'prefix':'12.0.0.0/8','via':'192.0.2.1','interface':'dmz'}]}",
            0, "$.routes[1].interface: there is no interface dmz");
    refused("route.add",
            "{'routes':[{'prefix':'11.0.0.0/8','via':'192.0.2.1'},"
            "{'prefix':'12.0.0.0/8','via':{'address':'x'}}]}",
            0,
            "$.routes[1].via.address: expected an address such as 192.0.2.1 or 2001:db8::1, found "
            "\"x\"");
    refused("route.add",
            "{'routes':[{'prefix':'11.0.0.0/8','via':'192.0.2.1'},"
            "{'prefix':'12.0.0.0/8','via':'192.0.2.1'},"
            "{'prefix':'11.0.0.0/8','blackhole':true}]}",
            0, "$.routes[2].prefix: the same VRF and prefix as at index 0");
    refused("route.add", "{'prefix':'11.0.0.0/8','via':'192.0.2.1','vrf':'x'}", 0,
            "$.vrf: there is no VRF x");
    assert_int_equal(rib_size, 1);

    /* The RIB refuses the last: what was there before is there again. */
    fail_at = 2;
    refused("route.add",
            "{'routes':[{'prefix':'12.0.0.0/8','via':'192.0.2.9'},"
            "{'prefix':'10.0.0.0/8','blackhole':true},{'prefix':'11.0.0.0/8','blackhole':true}]}",
            RPC_INTERNAL_ERROR,
            "$.routes[0]: the route cannot be installed: no room in the forwarding tables; nothing "
            "has been changed");
    assert_int_equal(rib_size, 1);
    assert_int_equal(rib[0].route.type, ROUTE_UNICAST);
    assert_int_equal(rib[0].route.path_count, 2);
    assert_int_equal(rib[0].paths[1].gateway.bytes[3], 2);

    refused("route.delete", "{'routes':[{'prefix':'10.0.0.0/8'},{'prefix':'11.0.0.0/8'}]}",
            RPC_NOT_FOUND, "$.routes[1].prefix: there is no route to 11.0.0.0/8 in VRF default");
    refused("route.delete", "{'routes':[{'prefix':'10.0.0.0/8'},{'prefix':'10.0.0.0/8'}]}", 0,
            "$.routes[1].prefix: the same VRF and prefix as at index 0");
    assert_int_equal(rib_size, 1);
}

static void requests_are_checked(void **state) {
    struct config *config = apply(NULL, "[{'prefix':'10.0.0.0/8','via':'192.0.2.1'}]");

    (void)state;
    refused("route.add", NULL, 0, "$: `prefix` is required");
    refused("route.add", "[]", 0, "$: expected an object, found an array");
    refused("route.add", "{'routes':7}", 0, "$.routes: expected an array, found an integer");
    refused("route.add", "{'routes':[],'vrf':'x'}", 0, "$.vrf: unknown key `vrf`");
    refused("route.delete", "{'prefix':'10.0.0.0/8'}", RPC_NOT_FOUND,
            "$.prefix: the route to 10.0.0.0/8 in VRF default is of origin config; only routes "
            "that route.add made can be deleted");
    refused("route.delete", "{'prefix':'10.0.0.0/8','via':'192.0.2.1'}", 0,
            "$.via: unknown key `via`");
    refused("route.list", "{'limit':10001}", 0,
            "$.limit: expected an integer from 1 to 10000, found 10001");
    refused("route.list", "{'vrf':'x'}", 0, "$.vrf: there is no VRF x");
    refused("route.list", "{'after':'x'}", 0,
            "$.after: expected the value of `next` from an earlier reply");
    refused("route.list", "{'prefix':'10.0.0.0/8','covering':'10.0.0.1'}", 0,
            "$.covering: `prefix` and `covering` exclude each other");
    refused("route.list", "{'origin':'bgp'}", 0,
            "$.origin: expected \"local\", \"connected\", \"neighbour\", \"config\" or \"rpc\", "
            "found \"bgp\"");
    config_free(config);

    json_t *many = json_array(), *params = json_pack("{s:o}", "routes", many);
    for (unsigned i = 0; i < 100001; i++)
        json_array_append_new(many, json_object());
    struct rpc_request request = {.params = params};
    assert_null(rpc_find("route.add")->call(&request));
    assert_int_equal(request.code, RPC_TOO_LARGE);
    problems_free(&request.problems);
    json_decref(params);
}

/* Adds up what all pages list: "10.0.0.0/8 11.0.0.0/8 ..."; returns their number. */
static unsigned list(const char *filter, unsigned limit, char text[1024]) {
    char params[256], after[128] = "", problem[512];
    unsigned pages = 0;

    text[0] = '\0';
    for (;;) {
        snprintf(params, sizeof(params), "{'limit':%u%s%s}", limit, filter, after);
        json_t *result = call("route.list", params, problem), *route;
        size_t i;

        assert_string_equal(problem, "");
        pages++;
        assert_true(json_array_size(json_object_get(result, "routes")) <= limit);
        json_array_foreach (json_object_get(result, "routes"), i, route) {
            strcat(text, json_string_value(json_object_get(route, "prefix")));
            strcat(text, " ");
        }
        const char *next = json_string_value(json_object_get(result, "next"));
        if (next != NULL)
            snprintf(after, sizeof(after), ",'after':'%s'", next);
        json_decref(result);
        if (next == NULL)
            return pages;
    }
}

static void lists_are_filtered_and_paged(void **state) {
    struct config *config = apply(NULL, "[{'prefix':'10.0.0.0/8','via':'192.0.2.1'},"
                                        "{'prefix':'10.1.0.0/16','via':'192.0.2.1'},"
                                        "{'prefix':'2001:db8:1::/48','via':'2001:db8::1'}]");
    char text[1024], problem[512];

    (void)state;
    done("route.add",
         "{'routes':[{'prefix':'10.0.0.0/8','via':['192.0.2.1',{'interface':'lan','weight':2}]},"
         "{'prefix':'9.0.0.0/8','prohibit':true,'vrf':'guest'}]}",
         "added", 2);
    for (unsigned limit = 1; limit <= 6; limit++) {
        assert_int_equal(list("", limit, text), (5 + limit - 1) / limit);
        assert_string_equal(text, "10.0.0.0/8 10.0.0.0/8 10.1.0.0/16 2001:db8:1::/48 9.0.0.0/8 ");
    }
    list(",'family':'ipv6'", 5, text);
    assert_string_equal(text, "2001:db8:1::/48 ");
    list(",'vrf':'guest'", 5, text);
    assert_string_equal(text, "9.0.0.0/8 ");
    list(",'origin':'rpc'", 1, text);
    assert_string_equal(text, "10.0.0.0/8 9.0.0.0/8 ");
    list(",'prefix':'10.0.0.0/8'", 5, text);
    assert_string_equal(text, "10.0.0.0/8 10.0.0.0/8 ");
    list(",'covering':'10.1.2.3'", 5, text);
    assert_string_equal(text, "10.1.0.0/16 ");
    list(",'covering':'11.1.2.3'", 5, text);
    assert_string_equal(text, "");

    json_t *result = call("route.list", "{'prefix':'10.0.0.0/8','origin':'rpc'}", problem);
    json_t *expected = json("{'routes':[{'prefix':'10.0.0.0/8','vrf':'default','origin':'rpc',"
                            "'type':'unicast','active':true,'next_hops':["
                            "{'address':'192.0.2.1','interface':'wan','weight':1,"
                            "'state':'resolved'},"
                            "{'address':null,'interface':'lan','weight':2,'state':'resolved'}]}],"
                            "'next':null}");
    assert_true(json_equal(result, expected));
    json_decref(result);
    json_decref(expected);
    result = call("route.list", NULL, problem); /* no parameters at all */
    assert_int_equal(json_array_size(json_object_get(result, "routes")), 5);
    json_decref(result);
    config_free(config);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        TEST(every_form_is_understood),
        TEST(mistakes_are_named_with_their_place),
        TEST(destinations_that_are_never_forwarded_are_refused),
        TEST(all_mistakes_are_told_at_once),
        TEST(duplicates_are_found_wherever_they_stand),
        TEST(names_and_gateways_are_checked_across_sections),
        TEST(only_the_difference_is_applied),
        TEST(what_was_made_anew_under_its_name_is_told_anew),
        TEST(a_route_that_was_refused_is_tried_again),
        TEST(an_absent_section_means_no_routes),
        TEST(routes_are_added_and_deleted),
        TEST(a_request_is_all_or_nothing),
        TEST(requests_are_checked),
        TEST(lists_are_filtered_and_paged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
