/*
 * Live interfaces: configurations replace each other on net_null and net_ring ports, and what the
 * listeners are told, which ids there are and what workers see is compared exactly.
 *
 * The process is control thread and only worker at once. Stages that drop everything stand in for
 * the real ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <rte_eal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/log.h"
#include "core/mbuf_pool.h"
#include "core/rcu.h"
#include "core/section.h"
#include "core/worker.h"
#include "interface/interface.h"
#include "json/decode.h"
#include "json/rpc.h"

/* --- stages --- */

static void drop_all(struct worker *worker, struct burst *burst) {
    (void)worker;
    burst->dropped = burst->mask;
}

static void no_slow_path(struct worker *worker, struct rte_mbuf **packets, unsigned count) {
    (void)worker;
    rte_pktmbuf_free_bulk(packets, count);
}

static struct stage route = {.name = "route", .run = drop_all},
                    output = {.name = "output", .run = drop_all},
                    local = {.name = "local", .slow_path = no_slow_path};
STAGE(route)
STAGE(output)
STAGE(local)

static struct drop_group drops = {.name = "test",
                                  .reasons = (const char *const[]){"rain", "snow", NULL}};
DROP_GROUP(drops)

/* --- a section whose prepare() fails when told to --- */

static bool refuse;

static void *later_decode(struct decode *d) {
    (void)d;
    return NULL;
}

static int later_prepare(const struct config *old, const struct config *new,
                         struct problems *problems) {
    (void)old;
    (void)new;
    if (refuse)
        problems_add(problems, "$.later", "refused");
    return refuse ? -EBUSY : 0;
}

static struct config_section later = {.name = "later",
                                      .after = (const char *const[]){"interfaces", NULL},
                                      .decode = later_decode,
                                      .prepare = later_prepare};
CONFIG_SECTION(later)

/* --- the listener --- */

static char events[1 << 17];
static bool validate_at_once;

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
    size_t used = strlen(events);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(events + used, sizeof(events) - used, format, arguments);
    va_end(arguments);
    strcat(events, "\n");
}

static const char *state_name(enum address_state state) {
    static const char *const names[] = {"tentative", "valid", "duplicate"};

    return names[state];
}

static void note_address(const char *what, const struct interface *interface,
                         const struct interface_address *address) {
    char text[IP_PREFIX_TEXT];

    note("%s%s %s %s", what, interface->name, ip_prefix_text(&address->prefix, text),
         state_name(address->state));
}

static void on_added(struct interface *interface) {
    assert_ptr_equal(interface_by_id(interface->id), interface);
    assert_false(interface->up);
    assert_int_equal(interface->address_count, 0);
    note("+%s", interface->name);
}

static void on_removed(struct interface *interface) {
    assert_ptr_equal(interface_by_id(interface->id), interface);
    assert_false(interface->up);
    assert_int_equal(interface->address_count, 0);
    note("-%s", interface->name);
}

static void on_up(struct interface *interface) {
    assert_true(interface->up);
    assert_true(interface_table()->entry[interface->id].flags & INTERFACE_UP);
    note("up %s", interface->name);
}

static void on_down(struct interface *interface) {
    assert_false(interface->up);
    assert_false(interface_table()->entry[interface->id].flags & INTERFACE_UP);
    note("down %s", interface->name);
}

static void on_address_added(struct interface *interface, const struct interface_address *address) {
    struct ip_address copy = address->prefix.address;

    note_address("+", interface, address);
    if (validate_at_once)
        interface_set_address_state(interface, &copy, ADDRESS_VALID);
}

static void on_address_removed(struct interface *interface,
                               const struct interface_address *address) {
    note_address("-", interface, address);
}

static void on_address_changed(struct interface *interface,
                               const struct interface_address *address) {
    note_address("~", interface, address);
}

static void on_changed(struct interface *interface) {
    note("changed %s mtu %u twin \"%s\"", interface->name, interface->mtu, interface->host_twin);
}

static void on_vrf_added(uint16_t vrf) {
    note("+vrf %s %u", vrf_name(vrf), vrf_table(vrf));
}

static void on_vrf_removed(uint16_t vrf) {
    note("-vrf %s", vrf_name(vrf));
}

static void on_vrf_changed(uint16_t vrf) {
    note("vrf %s %u", vrf_name(vrf), vrf_table(vrf));
}

static struct interface_listener listener = {
    .added = on_added,
    .removed = on_removed,
    .up = on_up,
    .down = on_down,
    .address_added = on_address_added,
    .address_removed = on_address_removed,
    .address_changed = on_address_changed,
    .changed = on_changed,
    .vrf_added = on_vrf_added,
    .vrf_removed = on_vrf_removed,
    .vrf_changed = on_vrf_changed,
};

/* --- applying --- */

static struct config *current;
static char failure[1024]; /* the first problem of an apply that failed */
static unsigned plans;

static void plan_workers(void) {
    struct port *ports[PORTS_MAX];
    unsigned count = interface_ports(ports);

    plans++;
    note("plan %u", count);
    assert_int_equal(workers_plan(ports, count), 0);
}

static struct config *decode_text(const char *text) {
    struct problems problems = {0};
    json_t *document = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    struct config *config = config_new();
    struct decode root;

    assert_non_null(document);
    root = decode_root(document, &problems);
    for (struct config_section *s = config_section_first(); s; s = s->next) {
        struct decode member;

        config_set_value(config, s,
                         s->decode(decode_member(&root, s->name, &member) ? &member : NULL));
    }
    config_check(config, &problems);
    if (problems.count > 0)
        fail_msg("%s: %s", problems.list[0].path, problems.list[0].message);
    json_decref(document);
    return config;
}

/* `text` NULL: nothing configured. */
static int apply(const char *text) {
    struct problems problems = {0};
    struct config *new = text ? decode_text(text) : NULL;
    int error;

    events[0] = failure[0] = '\0';
    error = config_replace(current, new, &problems);
    if (error == 0) {
        assert_int_equal(problems.count, 0);
        config_free(current);
        current = new;
    } else {
        assert_true(problems.count > 0);
        snprintf(failure, sizeof(failure), "%s: %s", problems.list[0].path,
                 problems.list[0].message);
        config_free(new);
    }
    problems_free(&problems);
    return error;
}

static void expect_events(const char *expected) {
    if (strcmp(events, expected) != 0)
        fail_msg("found\n%sexpected\n%s", events, expected);
    events[0] = '\0';
}

#define APPLY(text, expected)        \
    do {                             \
        if (apply(text) != 0)        \
            fail_msg("%s", failure); \
        expect_events(expected);     \
    } while (0)

static uint16_t id_of(const char *name) {
    struct interface *interface = interface_by_name(name);

    if (!interface)
        fail_msg("there is no %s", name);
    return interface ? interface->id : 0;
}

static const struct interface_entry *entry_of(const char *name) {
    return &interface_table()->entry[id_of(name)];
}

static struct ip_address address_of(const char *text) {
    struct ip_address address;

    assert_int_equal(ip_address_parse(text, &address), 0);
    return address;
}

static void set_state(const char *name, const char *text, enum address_state state) {
    struct ip_address address = address_of(text);

    interface_set_address_state(interface_by_name(name), &address, state);
}

/* Everything away, the way the program ends; and no trace of it. */
static int reset(void **state) {
    (void)state;
    refuse = validate_at_once = false;
    assert_int_equal(apply(NULL), 0);
    assert_null(interface_next(NULL));
    assert_int_equal(rte_eth_dev_count_avail(), 0);
    assert_int_equal(vrf_by_name("guest"), -ENOENT);
    while (rcu_reclaim() > 0)
        ;
    return 0;
}

#define INTERFACES(text) "{\"interfaces\":{" text "}}"
#define WAN \
    "\"wan\":{\"device\":\"net_null0\",\"mac\":\"02:00:00:00:00:01\",\"addresses\":[\"203.0.113.2/24\"]}"

/* --- tests --- */

static void test_first(void **state) {
    (void)state;
    APPLY(INTERFACES(WAN), "+wan\n+wan 203.0.113.2/24 valid\nplan 1\nup wan\n");

    struct interface *wan = interface_by_name("wan");
    const struct interface_entry *entry = entry_of("wan");
    const uint8_t address[] = {203, 0, 113, 2};

    assert_ptr_equal(interface_on_port(wan->port->id), wan);
    assert_ptr_equal(interface_next(NULL), wan);
    assert_null(interface_next(wan));
    assert_null(interface_by_id(0));
    assert_null(interface_by_id(INTERFACES_MAX));
    assert_int_equal(entry->id, wan->id);
    assert_int_equal(entry->port, wan->port->id);
    assert_int_equal(entry->vlan, 0);
    assert_int_equal(entry->vrf, VRF_DEFAULT);
    assert_int_equal(entry->mtu, 1500);
    assert_int_equal(entry->flags, INTERFACE_UP);
    assert_true(entry->mac_bits == UINT64_C(0x010000000002));
    assert_memory_equal(&entry->ipv4_source, address, 4);
    assert_int_equal(interface_table()->port[wan->port->id].untagged, wan->id);
    assert_null(interface_table()->port[wan->port->id].by_vlan);
    assert_null(interface_link_local(wan));

    /* The same again tells nothing. */
    uint16_t id = wan->id;

    APPLY(INTERFACES(WAN), "plan 1\n");
    assert_ptr_equal(interface_by_name("wan"), wan);
    assert_int_equal(wan->id, id);

    APPLY(NULL, "down wan\n-wan 203.0.113.2/24 valid\n-wan\nplan 0\n");
    assert_int_equal(interface_table()->entry[id].id, 0);
    assert_int_equal(interface_table()->port[0].untagged, 0);

    /* Ids go on, so that an old one rests. */
    APPLY(INTERFACES(WAN), "+wan\n+wan 203.0.113.2/24 valid\nplan 1\nup wan\n");
    assert_int_equal(id_of("wan"), id + 1);
}

static void test_addresses(void **state) {
    (void)state;
#define A(list) \
    INTERFACES( \
        "\"a\":{\"device\":\"net_null0\",\"mac\":\"02:00:00:00:00:01\",\"addresses\":[" list "]}")
    APPLY(A("\"10.0.0.1/24\""), "+a\n+a 10.0.0.1/24 valid\nplan 1\nup a\n");

    uint16_t id = id_of("a");

    /* Another host in the same prefix: the prefix never disappears. */
    APPLY(A("\"10.0.0.2/24\""), "+a 10.0.0.2/24 valid\n-a 10.0.0.1/24 valid\nplan 1\n");
    /* Another prefix; one stays. */
    APPLY(A("\"10.1.0.1/24\",\"10.0.0.2/24\""), "+a 10.1.0.1/24 valid\nplan 1\n");
    assert_memory_equal(&entry_of("a")->ipv4_source, ((uint8_t[]){10, 1, 0, 1}), 4);
    APPLY(A("\"10.0.0.2/24\",\"10.1.0.1/24\""), "plan 1\n");
    assert_memory_equal(&entry_of("a")->ipv4_source, ((uint8_t[]){10, 0, 0, 2}), 4);
    /* Another length. */
    APPLY(A("\"10.0.0.2/25\""),
          "-a 10.1.0.1/24 valid\n-a 10.0.0.2/24 valid\n+a 10.0.0.2/25 valid\nplan 1\n");
    /* IPv6 comes with a link-local address, made from the MAC. */
    APPLY(A("\"2001:db8::1/64\""), "-a 10.0.0.2/25 valid\n+a 2001:db8::1/64 tentative\n"
                                   "+a fe80::ff:fe00:1/64 tentative\nplan 1\n");

    struct interface *a = interface_by_name("a");
    static const uint8_t none[16];

    assert_int_equal(a->id, id);
    assert_null(interface_source(a, AF_INET6));
    assert_null(interface_link_local(a));
    assert_null(interface_source(a, AF_INET));
    assert_int_equal(entry_of("a")->ipv4_source, 0);
    assert_memory_equal(entry_of("a")->ipv6_source, none, 16);
    set_state("a", "fe80::ff:fe00:1", ADDRESS_VALID);
    expect_events("~a fe80::ff:fe00:1/64 valid\n");
    set_state("a", "fe80::ff:fe00:1", ADDRESS_VALID);
    set_state("a", "2001:db8::77", ADDRESS_VALID);
    expect_events("");
    assert_ptr_equal(interface_source(a, AF_INET6), &a->addresses[1]);
    assert_memory_equal(entry_of("a")->ipv6_source, a->addresses[1].prefix.address.bytes, 16);
    set_state("a", "2001:db8::1", ADDRESS_VALID);
    expect_events("~a 2001:db8::1/64 valid\n");
    assert_ptr_equal(interface_source(a, AF_INET6), &a->addresses[0]);
    assert_ptr_equal(interface_link_local(a), &a->addresses[1]);
    assert_true(a->addresses[1].automatic);
    assert_memory_equal(entry_of("a")->ipv6_source, a->addresses[0].prefix.address.bytes, 16);
    assert_memory_equal(entry_of("a")->ipv6_link_local, a->addresses[1].prefix.address.bytes, 16);
    set_state("a", "2001:db8::1", ADDRESS_DUPLICATE);
    expect_events("~a 2001:db8::1/64 duplicate\n");
    assert_ptr_equal(interface_source(a, AF_INET6), &a->addresses[1]);
    set_state("a", "2001:db8::1", ADDRESS_VALID);

    /* States stay when others come; a configured link-local address replaces the automatic one. */
    APPLY(A("\"10.0.0.1/24\",\"fe80::1/64\",\"2001:db8::1/64\""),
          "+a 10.0.0.1/24 valid\n+a fe80::1/64 tentative\n-a fe80::ff:fe00:1/64 valid\nplan 1\n");
    assert_int_equal(a->addresses[2].state, ADDRESS_VALID);
    APPLY(A("\"10.0.0.1/24\",\"fe80::ff:fe00:1/64\""),
          "-a 2001:db8::1/64 valid\n+a fe80::ff:fe00:1/64 tentative\n-a fe80::1/64 tentative\n"
          "plan 1\n");
    assert_false(a->addresses[1].automatic);
    /* A listener may decide at once. */
    validate_at_once = true;
    APPLY(A("\"2001:db8::1/64\",\"2001:db8::2/64\",\"fe80::ff:fe00:1/64\""),
          "-a 10.0.0.1/24 valid\n+a 2001:db8::1/64 tentative\n~a 2001:db8::1/64 valid\n"
          "+a 2001:db8::2/64 tentative\n~a 2001:db8::2/64 valid\nplan 1\n");
    assert_int_equal(a->id, id);
#undef A
}

/* All places for addresses taken, and all of them replaced within the same prefix. */
static void test_addresses_full(void **state) {
    char text[8192], expected[64];
    uint16_t id = 0;

    (void)state;
    validate_at_once = true;
    for (unsigned round = 0; round < 2; round++) {
        strcpy(text, "{\"interfaces\":{\"a\":{\"device\":\"net_null0\",\"addresses\":[");
        for (unsigned i = 1; i <= 63; i++)
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\"2001:db8::%x/64\"",
                     i > 1 ? "," : "", i + round * 100);
        strcat(text, "]}}}");
        assert_int_equal(apply(text), 0);
        assert_int_equal(interface_by_name("a")->address_count, 64);
        if (round == 0)
            id = id_of("a");
        for (unsigned i = 0; i < 63; i++) {
            snprintf(expected, sizeof(expected), "2001:db8::%x", i + 1 + round * 100);

            struct ip_address address = address_of(expected);

            assert_int_equal(
                ip_address_compare(&interface_by_name("a")->addresses[i].prefix.address, &address),
                0);
            assert_int_equal(interface_by_name("a")->addresses[i].state, ADDRESS_VALID);
        }
    }
    assert_int_equal(id_of("a"), id);
}

/* An address and its prefix move from one interface to another. */
static void test_address_moves(void **state) {
    (void)state;
#define TWO(a, b)                                                  \
    INTERFACES("\"a\":{\"device\":\"net_null0\",\"addresses\":[" a \
               "]},\"b\":{\"device\":\"net_null1\",\"addresses\":[" b "]}")
    APPLY(TWO("\"10.0.0.1/24\"", ""), "+a\n+a 10.0.0.1/24 valid\n+b\nplan 2\nup a\nup b\n");
    APPLY(TWO("", "\"10.0.0.1/24\""), "-a 10.0.0.1/24 valid\n+b 10.0.0.1/24 valid\nplan 2\n");
    APPLY(TWO("\"10.0.0.1/24\"", ""), "-b 10.0.0.1/24 valid\n+a 10.0.0.1/24 valid\nplan 2\n");
    /* Half of a prefix stays. */
    APPLY(TWO("\"10.0.0.1/25\"", "\"10.0.0.129/25\""),
          "-a 10.0.0.1/24 valid\n+a 10.0.0.1/25 valid\n+b 10.0.0.129/25 valid\nplan 2\n");
    /* To an interface that is new. */
    APPLY(INTERFACES("\"a\":{\"device\":\"net_null0\"},\"c\":{\"device\":\"net_null2\","
                     "\"addresses\":[\"10.0.0.1/25\"]}"),
          "down b\n-b 10.0.0.129/25 valid\n-b\n-a 10.0.0.1/25 valid\n+c\n+c 10.0.0.1/25 valid\n"
          "plan 2\nup c\n");
#undef TWO
}

static void test_vlans(void **state) {
    (void)state;
#define LAN "\"lan\":{\"device\":\"net_null0\",\"mac\":\"02:00:00:00:00:01\"}"
#define GUEST(more) "\"guest\":{\"parent\":\"lan\",\"vlan\":20" more "}"
    /* In any order in the document. */
    APPLY(INTERFACES(GUEST("") "," LAN), "+lan\n+guest\nplan 1\nup lan\nup guest\n");

    struct interface *lan = interface_by_name("lan"), *guest = interface_by_name("guest");
    uint16_t id = guest->id;
    const struct port_interfaces *port = &interface_table()->port[lan->port->id];

    assert_ptr_equal(guest->parent, lan);
    assert_ptr_equal(guest->port, lan->port);
    assert_memory_equal(guest->mac, lan->mac, 6);
    assert_int_equal(port->untagged, lan->id);
    assert_non_null(port->by_vlan);
    for (unsigned vlan = 0; vlan < VLAN_IDS; vlan++)
        assert_int_equal(port->by_vlan[vlan], vlan == 20 ? id : 0);
    assert_int_equal(entry_of("guest")->vlan, 20);
    assert_ptr_equal(interface_on_port(lan->port->id), lan);
    assert_true(lan->port->request.vlans);
    assert_false(lan->port->request.promiscuous);

    /* It follows its parent. */
    interface_set_enabled(lan, false);
    expect_events("down guest\ndown lan\n");
    assert_true(guest->enabled);
    interface_set_enabled(guest, false);
    interface_set_enabled(lan, true);
    expect_events("up lan\n");
    interface_set_enabled(guest, true);
    interface_set_enabled(guest, true);
    expect_events("up guest\n");

    /* A MAC of its own, another VLAN id, another MAC of the parent: made anew. */
    APPLY(INTERFACES(GUEST(",\"mac\":\"02:00:00:00:00:09\"") "," LAN),
          "down guest\n-guest\n+guest\nup guest\nplan 1\n");
    assert_int_not_equal(id_of("guest"), id);
    assert_true(lan->port->request.promiscuous);
    assert_int_equal(entry_of("guest")->mac_bits >> 40, 9);
    id = id_of("guest");
    APPLY(INTERFACES("\"guest\":{\"parent\":\"lan\",\"vlan\":21}," LAN),
          "down guest\n-guest\n+guest\nup guest\nplan 1\n");
    assert_int_not_equal(id_of("guest"), id);
    assert_int_equal(interface_table()->port[lan->port->id].by_vlan[20], 0);
    assert_int_equal(interface_table()->port[lan->port->id].by_vlan[21], id_of("guest"));
    APPLY(INTERFACES("\"guest\":{\"parent\":\"lan\",\"vlan\":21},"
                     "\"lan\":{\"device\":\"net_null0\",\"mac\":\"02:00:00:00:00:02\"}"),
          "down guest\ndown lan\n-guest\n-lan\n+lan\n+guest\nup lan\nup guest\nplan 1\n");

    /* The last VLAN goes, the port stays. */
    lan = interface_by_name("lan");
    APPLY(INTERFACES("\"lan\":{\"device\":\"net_null0\",\"mac\":\"02:00:00:00:00:02\"}"),
          "down guest\n-guest\nplan 1\n");
    assert_null(interface_table()->port[lan->port->id].by_vlan);
    assert_false(lan->port->request.vlans);
#undef LAN
#undef GUEST
}

static void test_vrfs(void **state) {
    (void)state;
#define IN(vrfs, vrf)                                                                     \
    "{\"vrfs\":{" vrfs "},\"interfaces\":{\"a\":{\"device\":\"net_null0\",\"addresses\":" \
    "[\"10.0.0.1/24\"]" vrf "}}}"
    APPLY(IN("\"guest\":{\"table\":20}", ""),
          "+vrf guest 20\n+a\n+a 10.0.0.1/24 valid\nplan 1\nup a\n");

    int guest = vrf_by_name("guest");

    assert_true(guest > 0);
    assert_string_equal(vrf_name((uint16_t)guest), "guest");
    assert_string_equal(vrf_name(VRF_DEFAULT), "default");
    assert_int_equal(vrf_by_name("default"), VRF_DEFAULT);
    assert_int_equal(vrf_table(VRF_DEFAULT), 254);
    assert_null(vrf_name((uint16_t)(guest + 1)));
    assert_null(vrf_name(VRFS_MAX));
    APPLY(IN("\"guest\":{\"table\":20}", ",\"vrf\":\"guest\""),
          "down a\n-a 10.0.0.1/24 valid\n-a\n+a\n+a 10.0.0.1/24 valid\nup a\nplan 1\n");
    assert_int_equal(entry_of("a")->vrf, guest);
    APPLY(IN("\"guest\":{\"table\":21},\"b\":{\"table\":20}", ",\"vrf\":\"guest\""),
          "vrf guest 21\n+vrf b 20\nplan 1\n");
    APPLY(IN("\"b\":{\"table\":20}", ",\"vrf\":\"b\""),
          "down a\n-a 10.0.0.1/24 valid\n-a\n+a\n+a 10.0.0.1/24 valid\nup a\nplan 1\n-vrf guest\n");
    assert_int_equal(vrf_by_name("guest"), -ENOENT);
    APPLY("{}", "down a\n-a 10.0.0.1/24 valid\n-a\nplan 0\n-vrf b\n");
#undef IN
}

static void test_vrfs_full(void **state) {
    char text[16384];

    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        strcpy(text, "{\"vrfs\":{");
        for (unsigned i = 1; i < VRFS_MAX; i++)
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\"%c%u\":{\"table\":%u}",
                     i > 1 ? "," : "", 'a' + round, i, i + 1000);
        strcat(text, "}}");
        assert_int_equal(apply(text), round == 0 ? 0 : -ENOSPC);
    }
    assert_string_equal(failure,
                        "$.vrfs: 255 VRFs are to be added while those to be removed still exist, "
                        "and only 0 more are possible; remove the old ones first");
    assert_true(vrf_by_name("a255") > 0);
}

static void test_changes(void **state) {
    (void)state;
#define A(more) INTERFACES("\"a\":{\"device\":\"net_null0\",\"mac\":\"02:00:00:00:00:01\"" more "}")
    APPLY(A(""), "+a\nplan 1\nup a\n");

    uint16_t id = id_of("a");

    APPLY(A(",\"mtu\":9000,\"host_twin\":\"a0\""), "changed a mtu 9000 twin \"a0\"\nplan 1\n");
    assert_int_equal(entry_of("a")->mtu, 9000);
    /* Only a twin that exists is one. */
    assert_int_equal(entry_of("a")->flags, INTERFACE_UP);
    interface_set_twin_working(interface_by_name("a"), true);
    assert_int_equal(entry_of("a")->flags, INTERFACE_UP | INTERFACE_TWIN);
    interface_set_twin_working(interface_by_name("a"), false);
    assert_int_equal(entry_of("a")->flags, INTERFACE_UP);
    assert_int_equal(interface_by_name("a")->port->mtu, 9000);
    APPLY(A(",\"router_advertisement\":true"),
          "changed a mtu 1500 twin \"\"\n+a fe80::ff:fe00:1/64 tentative\nplan 1\n");
    APPLY(A(",\"router_advertisement\":{\"prefixes\":[{\"prefix\":\"2001:db8::/64\"}]}"),
          "changed a mtu 1500 twin \"\"\nplan 1\n");
    APPLY(A(",\"router_advertisement\":{\"prefixes\":[{\"prefix\":\"2001:db8::/64\"}]}"),
          "plan 1\n");
    APPLY(A(",\"router_advertisement\":{\"prefixes\":[{\"prefix\":\"2001:db8:1::/64\"}]}"),
          "changed a mtu 1500 twin \"\"\nplan 1\n");
    /* IPv6 goes before the MTU becomes too small for it. */
    APPLY(A(",\"mtu\":500"),
          "-a fe80::ff:fe00:1/64 tentative\nchanged a mtu 500 twin \"\"\nplan 1\n");
    assert_int_equal(id_of("a"), id);

    /* What only workers use is in their table, and tells nobody. */
    assert_false(interface_table()->reverse_path);
    APPLY(A(",\"mtu\":500,\"tcp_mss\":\"auto\",\"reverse_path\":\"strict\""), "plan 1\n");
    assert_int_equal(entry_of("a")->tcp_mss, 460);
    assert_int_equal(entry_of("a")->reverse_path, REVERSE_PATH_STRICT);
    assert_true(interface_table()->reverse_path);
    APPLY(A(",\"mtu\":500"), "plan 1\n");
    assert_int_equal(entry_of("a")->tcp_mss, 0);
    assert_int_equal(entry_of("a")->reverse_path, REVERSE_PATH_OFF);
    assert_false(interface_table()->reverse_path);
#undef A
}

static void test_enabled(void **state) {
    (void)state;
#define A(more) INTERFACES("\"a\":{\"device\":\"net_null0\"" more "}")
    APPLY(A(",\"enabled\":false"), "+a\nplan 1\n");
    assert_int_equal(entry_of("a")->flags, 0);
    assert_int_equal(interface_table()->port[0].untagged, id_of("a"));
    APPLY(A(""), "up a\nplan 1\n");
    interface_set_enabled(interface_by_name("a"), false);
    expect_events("down a\n");
    /* Not touched by a configuration that says the same as before, */
    APPLY(A(",\"host_twin\":\"x\""), "changed a mtu 1500 twin \"x\"\nplan 1\n");
    assert_false(interface_by_name("a")->enabled);
    /* only by one that says something else. */
    APPLY(A(",\"enabled\":false"), "changed a mtu 1500 twin \"\"\nplan 1\n");
    APPLY(A(""), "up a\nplan 1\n");
#undef A
}

/* --- ports --- */

static void test_device_stays(void **state) {
    struct port *port;

    (void)state;
    APPLY(INTERFACES("\"a\":{\"device\":\"net_null0\"},\"b\":{\"device\":\"net_ring0\"}"),
          "+a\n+b\nplan 2\nup a\nup b\n");
    port = interface_by_name("a")->port;
    /* Another name, the same device: the port stays open. */
    APPLY(INTERFACES("\"c\":{\"device\":\"net_null0\"},\"b\":{\"device\":\"net_ring0\"}"),
          "down a\n-a\n+c\nup c\nplan 2\n");
    assert_ptr_equal(interface_by_name("c")->port, port);
    /* Names change places. */
    APPLY(INTERFACES("\"b\":{\"device\":\"net_null0\"},\"c\":{\"device\":\"net_ring0\"}"),
          "down b\ndown c\n-b\n-c\n+b\n+c\nup b\nup c\nplan 2\n");
    assert_ptr_equal(interface_by_name("b")->port, port);
    /* Another device under the same name. */
    APPLY(INTERFACES("\"b\":{\"device\":\"net_null1\"},\"c\":{\"device\":\"net_ring0\"}"),
          "down b\n-b\n+b\nplan 2\nup b\n");
    assert_int_equal(rte_eth_dev_count_avail(), 2);
}

static void test_prepare_fails(void **state) {
    (void)state;
    APPLY(INTERFACES("\"a\":{\"device\":\"net_null0\",\"addresses\":[\"10.0.0.1/24\"]}"),
          "+a\n+a 10.0.0.1/24 valid\nplan 1\nup a\n");

    const struct interface_table *table = interface_table();
    uint32_t before, after, in_use;

    mbuf_pool_usage(&before, &in_use);
    /* One new device works, the next does not exist; the MTU would have changed. */
    assert_true(apply(INTERFACES("\"a\":{\"device\":\"net_null0\",\"mtu\":9000},"
                                 "\"b\":{\"device\":\"net_null1\"},"
                                 "\"c.1\":{\"device\":\"0000:ff:1f.7\"}")) < 0);
    assert_int_equal(strncmp(failure, "$.interfaces[\"c.1\"]: ", 21), 0);
    expect_events("");
    assert_ptr_equal(interface_table(), table);
    assert_int_equal(rte_eth_dev_count_avail(), 1);
    assert_int_equal(interface_by_name("a")->port->mtu, 1500);

    /* A later section refuses. */
    refuse = true;
    assert_int_equal(apply("{\"mbufs\":4096,\"vrfs\":{\"guest\":{\"table\":3}},\"interfaces\":{"
                           "\"a\":{\"device\":\"net_null0\",\"mtu\":9000,\"vrf\":\"guest\"},"
                           "\"b\":{\"device\":\"net_null1\"}}}"),
                     -EBUSY);
    assert_string_equal(failure, "$.later: refused");
    expect_events("");
    assert_ptr_equal(interface_table(), table);
    assert_int_equal(rte_eth_dev_count_avail(), 1);
    assert_int_equal(interface_by_name("a")->port->mtu, 1500);
    assert_int_equal(vrf_by_name("guest"), -ENOENT);
    refuse = false;

    /* Too much memory. */
    assert_int_equal(apply(INTERFACES("\"a\":{\"device\":\"net_null0\"},\"b\":{\"device\":"
                                      "\"net_null1\",\"rx_queues\":64,\"rx_descriptors\":32768}")),
                     -ENOMEM);
    expect_events("");
    mbuf_pool_usage(&after, &in_use);
    assert_int_equal(after, before);
    APPLY(INTERFACES("\"a\":{\"device\":\"net_null0\",\"addresses\":[\"10.0.0.1/24\"]}"),
          "plan 1\n");
}

/* Queues cannot change while a port runs. */
static void test_reopen(void **state) {
    (void)state;
#define Q(queues, more)                                                                  \
    INTERFACES("\"a\":{\"device\":\"net_null0\",\"addresses\":[\"10.0.0.1/24\"]," queues \
               "},\"v\":{\"parent\":\"a\",\"vlan\":5},\"b\":{\"device\":\"net_null1\"}" more)
    APPLY(Q("\"rx_queues\":1", ""), "+a\n+a 10.0.0.1/24 valid\n+b\n+v\nplan 2\nup a\nup b\nup v\n");

    uint16_t a = id_of("a"), v = id_of("v"), port = interface_by_name("a")->port->id;

    assert_int_equal(interface_by_name("a")->port->rx_queues, 1);
    APPLY(Q("\"rx_queues\":2", ""), "down v\ndown a\nplan 1\nplan 2\nup a\nup v\n");
    assert_int_equal(interface_by_name("a")->port->rx_queues, 2);
    assert_int_equal(id_of("a"), a);
    assert_int_equal(id_of("v"), v);
    assert_ptr_equal(interface_by_name("v")->port, interface_by_name("a")->port);
    assert_int_equal(interface_table()->port[port].by_vlan[5], v);

    /* It cannot be opened with the new settings: as it was. */
    assert_int_equal(apply(Q("\"rx_queues\":64,\"rx_descriptors\":32768", "")), -ENOMEM);
    expect_events("down v\ndown a\nplan 1\nplan 2\nup a\nup v\n");
    assert_int_equal(interface_by_name("a")->port->rx_queues, 2);
    assert_int_equal(id_of("a"), a);
    assert_int_equal(rte_eth_dev_count_avail(), 2);

    /* Somebody else refuses later: as it was. */
    refuse = true;
    assert_int_equal(apply(Q("\"rx_queues\":3", ",\"c\":{\"device\":\"net_null2\"}")), -EBUSY);
    expect_events("down v\ndown a\nplan 1\nplan 2\nup a\nup v\n");
    assert_int_equal(interface_by_name("a")->port->rx_queues, 2);
    assert_int_equal(rte_eth_dev_count_avail(), 2);
    refuse = false;

    /* What fails before that disturbs nothing. */
    assert_true(apply(Q("\"rx_queues\":3", ",\"c\":{\"device\":\"0000:ff:1f.7\"}")) < 0);
    expect_events("");
    APPLY(Q("\"rx_queues\":2", ""), "plan 2\n");
#undef Q
}

static void test_reopen_ring(void **state) {
    (void)state;
    APPLY(INTERFACES("\"a\":{\"device\":\"net_ring0\",\"rx_queues\":1}"), "+a\nplan 1\nup a\n");
    APPLY(INTERFACES("\"a\":{\"device\":\"net_ring0\",\"rx_queues\":2}"),
          "down a\nplan 0\nplan 1\nup a\n");
    assert_int_equal(interface_by_name("a")->port->rx_queues, 2);
    assert_true(apply(INTERFACES("\"a\":{\"device\":\"net_ring0\",\"rx_queues\":64}")) < 0);
    expect_events(""); /* noticed before the port is closed */
    assert_int_equal(interface_by_name("a")->port->rx_queues, 2);
}

/* The ethdev id changes when a lower one has become free meanwhile. */
static void test_reopen_under_another_id(void **state) {
    (void)state;
    APPLY(INTERFACES("\"a\":{\"device\":\"net_null0\"},\"b\":{\"device\":\"net_null1\","
                     "\"addresses\":[\"10.0.0.1/24\"]},\"v\":{\"parent\":\"b\",\"vlan\":5}"),
          "+a\n+b\n+b 10.0.0.1/24 valid\n+v\nplan 2\nup a\nup b\nup v\n");

    uint16_t id = id_of("b"), port = interface_by_name("b")->port->id;

    APPLY(INTERFACES("\"b\":{\"device\":\"net_null1\",\"addresses\":[\"10.0.0.1/24\"]},"
                     "\"v\":{\"parent\":\"b\",\"vlan\":5}"),
          "down a\n-a\nplan 1\n");
    APPLY(INTERFACES("\"b\":{\"device\":\"net_null1\",\"addresses\":[\"10.0.0.1/24\"],"
                     "\"rx_queues\":2},\"v\":{\"parent\":\"b\",\"vlan\":5}"),
          "down v\ndown b\nplan 0\nchanged b mtu 1500 twin \"\"\nchanged v mtu 1500 twin \"\"\n"
          "plan 1\nup b\nup v\n");
    assert_int_equal(id_of("b"), id);
    assert_int_not_equal(interface_by_name("b")->port->id, port);
    assert_int_equal(interface_table()->port[port].untagged, 0);
    assert_int_equal(interface_table()->port[interface_by_name("b")->port->id].untagged, id);
}

static int no_probe(const struct port_request *request, unsigned workers, char *device,
                    const char *path, struct problems *problems) {
    (void)request;
    (void)workers;
    (void)device;
    problems_add(problems, path, "the device is gone");
    return -ENODEV;
}

/* A device that cannot be opened again, neither with new nor with the old settings. */
static void test_port_lost(void **state) {
    struct port_driver *driver;
    struct port *ports[PORTS_MAX];

    (void)state;
#define Q(queues)                                                                        \
    INTERFACES("\"a\":{\"device\":\"net_null0\",\"addresses\":[\"10.0.0.1/24\"]," queues \
               "},\"v\":{\"parent\":\"a\",\"vlan\":5}")
    APPLY(Q("\"rx_queues\":1"), "+a\n+a 10.0.0.1/24 valid\n+v\nplan 1\nup a\nup v\n");
    driver = (struct port_driver *)(uintptr_t)interface_by_name("a")->port->driver;
    driver->before_probe = no_probe;

    uint16_t id = id_of("a");

    assert_int_equal(apply(Q("\"rx_queues\":2")), -ENODEV);
    assert_string_equal(failure, "$.interfaces.a: the device is gone");
    expect_events("down v\ndown a\nplan 0\n");
    assert_int_equal(interface_ports(ports), 0);
    assert_int_equal(id_of("a"), id);
    assert_int_equal(entry_of("a")->flags, 0);
    assert_false(interface_by_name("a")->port->link_up);
    interface_set_enabled(interface_by_name("v"), false);
    interface_set_enabled(interface_by_name("v"), true);
    event_advance(200);
    event_turn(0);
    expect_events("");
    /* Still gone. */
    assert_int_equal(apply(Q("\"rx_queues\":1")), -ENODEV);
    expect_events("");
    assert_int_equal(interface_ports(ports), 0);
    /* Back. */
    driver->before_probe = NULL;
    APPLY(Q("\"rx_queues\":1"), "-v\n-a 10.0.0.1/24 valid\n-a\n+a\n+a 10.0.0.1/24 valid\n+v\n"
                                "plan 1\nup a\nup v\n");
    assert_int_equal(interface_ports(ports), 1);
#undef Q
}

static bool link_is_up;

static void fake_link(const struct port *port, bool *up, uint32_t *speed) {
    (void)port;
    *up = link_is_up;
    *speed = link_is_up ? 10000 : 0;
}

static bool logged(const char *text) {
    static struct log_line lines[LOG_RING_LINES];
    size_t count = log_read(0, lines, LOG_RING_LINES);

    return count > 0 && strcmp(lines[count - 1].text, text) == 0;
}

static void test_link(void **state) {
    struct port_driver driver;

    (void)state;
    APPLY(INTERFACES("\"a\":{\"device\":\"net_null0\"},\"v\":{\"parent\":\"a\",\"vlan\":5}"),
          "+a\n+v\nplan 1\nup a\nup v\n");
    assert_true(logged("a: link up"));

    struct port *port = interface_by_name("a")->port;

    driver = *port->driver;
    driver.link = fake_link;
    port->driver = &driver;
    link_is_up = false;
    expect_events("");
    event_advance(200);
    event_turn(0);
    expect_events("down v\ndown a\n");
    assert_true(logged("a: link down"));
    event_advance(200);
    event_turn(0);
    expect_events("");
    link_is_up = true;
    event_advance(200);
    event_turn(0);
    expect_events("up a\nup v\n");
    assert_true(logged("a: link up, 10000 Mbit/s"));
    assert_int_equal(port->speed_mbps, 10000);
    port->driver = NULL;
    for (const struct port_driver *d = port_driver_first(); d; d = d->next) {
        if (strcmp(d->name, driver.name) == 0)
            port->driver = d;
    }
    assert_non_null(port->driver);
}

/* More interfaces than there are ids left when all are made anew. */
static void test_ids_run_out(void **state) {
    size_t size = 1 << 17, used;
    char *text = malloc(size);

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        used = (size_t)snprintf(text, size, "{\"interfaces\":{\"p\":{\"device\":\"net_null0\"}");
        for (unsigned i = 1; i < INTERFACES_MAX - 1; i++)
            used +=
                (size_t)snprintf(text + used, size - used,
                                 ",\"v%u\":{\"parent\":\"p\",\"vlan\":%u}", i, i + round * 1024);
        snprintf(text + used, size - used, "}}");
        assert_int_equal(apply(text), 0);
        for (unsigned id = 1; id < INTERFACES_MAX; id++) {
            assert_int_equal(interface_table()->entry[id].id, id);
            assert_true(interface_by_id((uint16_t)id)->up);
        }
    }
    free(text);
}

/* --- methods --- */

static json_t *call_with(const char *method, const char *params, int *code, char *problem,
                         size_t size) {
    json_t *document = params ? json_loads(params, 0, NULL) : NULL;
    struct rpc_request request = {.params = document};
    json_t *result = rpc_find(method)->call(&request);

    assert_true((result == NULL) == problems_any(&request.problems));
    *code = request.code;
    if (problems_any(&request.problems))
        snprintf(problem, size, "%s: %s", request.problems.list[0].path,
                 request.problems.list[0].message);
    problems_free(&request.problems);
    json_decref(document);
    return result;
}

static json_t *call(const char *method, const char *params) {
    char problem[512] = "";
    int code;
    json_t *result = call_with(method, params, &code, problem, sizeof(problem));

    if (!result)
        fail_msg("%s", problem);
    return result;
}

static void expect_failure(const char *method, const char *params, int code, const char *problem) {
    char found[512] = "";
    int found_code;

    assert_null(call_with(method, params, &found_code, found, sizeof(found)));
    assert_string_equal(found, problem);
    assert_int_equal(found_code, code);
}

/* Is the result this JSON? */
static void expect_json(json_t *found, const char *text) {
    json_t *expected = json_loads(text, 0, NULL);

    assert_non_null(expected);
    if (!json_equal(found, expected)) {
        char *shown = json_dumps(found, JSON_INDENT(1));

        print_error("%s\n", shown);
        free(shown);
        fail();
    }
    json_decref(expected);
    json_decref(found);
}

static void test_interface_methods(void **state) {
    (void)state;
    APPLY(
        "{\"vrfs\":{\"guest\":{\"table\":20}},\"interfaces\":{" WAN ","
        "\"g\":{\"parent\":\"wan\",\"vlan\":20,\"vrf\":\"guest\",\"mtu\":1400,\"host_twin\":\"g0\","
        "\"tcp_mss\":\"auto\",\"reverse_path\":\"loose\","
        "\"addresses\":[\"2001:db8::1/64\"]}}}",
        "+vrf guest 20\n+wan\n+wan 203.0.113.2/24 valid\n+g\n+g 2001:db8::1/64 tentative\n"
        "+g fe80::ff:fe00:1/64 tentative\nplan 1\nup wan\nup g\n");

    struct interface_counters *counters = control_counters()->interface;
    uint16_t wan = id_of("wan"), g = id_of("g");

    counters[wan].rx_packets += 10;
    counters[wan].rx_bytes += 1000;
    counters[wan].tx_dropped += 3;
    counters[g].tx_packets += 5;
    counters[g].tx_bytes += 500;
    set_state("g", "2001:db8::1", ADDRESS_DUPLICATE);
#define ZERO                                                                            \
    "{\"rx_packets\":0,\"rx_bytes\":0,\"rx_missed\":0,\"tx_packets\":0,\"tx_bytes\":0," \
    "\"tx_dropped\":0}"
#define WAN_COUNTERS                                                                        \
    "{\"rx_packets\":10,\"rx_bytes\":1000,\"rx_missed\":0,\"tx_packets\":0,\"tx_bytes\":0," \
    "\"tx_dropped\":3}"
#define G_COUNTERS                                                                        \
    "{\"rx_packets\":0,\"rx_bytes\":0,\"rx_missed\":0,\"tx_packets\":5,\"tx_bytes\":500," \
    "\"tx_dropped\":0}"

    json_t *list = call("interface.list", NULL);
    char *numa_node =
        json_dumps(json_object_get(json_array_get(list, 0), "numa_node"), JSON_ENCODE_ANY);
    char text[4096];

    snprintf(
        text, sizeof(text),
        "[{\"name\":\"wan\",\"device\":\"net_null0\",\"driver\":\"net_null\",\"parent\":null,"
        "\"vlan\":null,\"if_id\":null,\"vrf\":\"default\",\"mac\":\"02:00:00:00:00:01\",\"mtu\":1500,"
        "\"admin\":\"up\",\"link\":\"up\",\"speed_mbps\":0,\"addresses\":[{\"address\":"
        "\"203.0.113.2/24\",\"state\":\"valid\"}],\"host_twin\":null,"
        "\"tcp_mss\":null,\"reverse_path\":\"off\",\"rx_queues\":1,"
        "\"tx_queues\":1,\"numa_node\":%s,\"counters\":" WAN_COUNTERS "},"
        "{\"name\":\"g\",\"device\":null,\"driver\":\"net_null\",\"parent\":\"wan\","
        "\"vlan\":20,\"if_id\":null,\"vrf\":\"guest\",\"mac\":\"02:00:00:00:00:01\",\"mtu\":1400,"
        "\"admin\":\"up\",\"link\":\"up\",\"speed_mbps\":0,\"addresses\":[{\"address\":"
        "\"2001:db8::1/64\",\"state\":\"duplicate\"},{\"address\":\"fe80::ff:fe00:1/64\","
        "\"state\":\"tentative\"}],\"host_twin\":\"g0\","
        "\"tcp_mss\":1360,\"reverse_path\":\"loose\",\"rx_queues\":1,\"tx_queues\":1,"
        "\"numa_node\":%s,\"counters\":" G_COUNTERS "}]",
        numa_node, numa_node);
    free(numa_node);
    expect_json(list, text);

    events[0] = '\0';
    expect_json(call("interface.set", "{\"name\":\"wan\",\"admin\":\"down\"}"), "{}");
    expect_events("down g\ndown wan\n");
    list = call("interface.list", "{}");
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "admin")),
                        "down");
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "admin")), "up");
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "link")),
                        "down");
    json_decref(list);
    expect_failure("interface.set", "{\"name\":\"nobody\",\"admin\":\"down\"}", RPC_NOT_FOUND,
                   "$.name: interface `nobody` does not exist");
    expect_failure(
        "interface.set", "{\"name\":\"no body\",\"admin\":\"down\"}", 0,
        "$.name: expected a name of 1 to 31 letters, digits, '.', '-' or '_' that starts "
        "with a letter or digit, found \"no body\"");
    expect_failure("interface.set", NULL, 0, "$: `name` is required");
    expect_failure("interface.set", "{\"name\":\"wan\",\"admin\":\"sideways\"}", 0,
                   "$.admin: expected \"up\" or \"down\", found \"sideways\"");
    expect_failure("interface.list", "{\"x\":1}", 0, "$.x: unknown key `x`");
    expect_failure("interface.list", "[]", 0, "$: expected an object, found an array");

    /* A new owner of an id starts from zero; so does stats.clear. */
    expect_json(call("stats.clear", NULL), "{}");

    json_t *stats = call("stats.get", "{}");

    expect_json(json_incref(json_object_get(stats, "interfaces")),
                "{\"wan\":" ZERO ",\"g\":" ZERO "}");
    json_decref(stats);
    counters[wan].rx_packets += 10;
    counters[wan].rx_bytes += 1000;
    counters[wan].tx_dropped += 3;
    counters[wan].tx_packets--; /* taken back by a worker */
    stats = call("stats.get", NULL);
    expect_json(json_incref(json_object_get(stats, "interfaces")),
                "{\"wan\":" WAN_COUNTERS ",\"g\":" ZERO "}");
    json_decref(stats);
}

/* Every id counted something before it is used again. */
static void test_counters_of_reused_ids(void **state) {
    (void)state;
    for (unsigned id = 1; id < INTERFACES_MAX; id++)
        control_counters()->interface[id].rx_packets += id;
    assert_int_equal(apply(INTERFACES(WAN)), 0);

    struct interface_totals totals;

    interface_totals(interface_by_name("wan"), &totals);
    assert_int_equal(totals.rx_packets, 0);
    control_counters()->interface[id_of("wan")].rx_packets += 7;
    interface_totals(interface_by_name("wan"), &totals);
    assert_int_equal(totals.rx_packets, 7);
    /* It keeps its count when it changes in place and when its port is opened again. */
    assert_int_equal(apply(INTERFACES("\"wan\":{\"device\":\"net_null0\",\"mac\":"
                                      "\"02:00:00:00:00:01\",\"mtu\":2000,\"rx_queues\":2}")),
                     0);
    interface_totals(interface_by_name("wan"), &totals);
    assert_int_equal(totals.rx_packets, 7);
}

static uint64_t number(const json_t *object, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void test_runtime(void **state) {
    (void)state;
    assert_int_equal(apply(INTERFACES("\"a\":{\"device\":\"net_null0\",\"rx_queues\":2},"
                                      "\"b\":{\"device\":\"net_null1,no-rx=1\"}")),
                     0);
    json_decref(call("stats.clear", NULL));
    for (unsigned i = 0; i < 100; i++)
        worker_turn(worker_get(0));
    control_counters()->drops[drops.base] += 5;

    json_t *runtime = call("runtime.get", NULL);
    json_t *worker = json_array_get(json_object_get(runtime, "workers"), 0);

    assert_int_equal(json_array_size(json_object_get(runtime, "workers")), 1);
    assert_int_equal(number(worker, "lcore"), 0);
    assert_int_equal(number(worker, "loops"), 100);
    assert_int_equal(number(worker, "empty_polls"), 0);
    assert_int_equal(number(worker, "packets"), 2 * 64 * 100);
    assert_true(json_real_value(json_object_get(worker, "cycles_per_packet")) > 0);
    assert_true(json_real_value(json_object_get(worker, "busy_percent")) > 0);
    assert_true(json_real_value(json_object_get(worker, "busy_percent")) <= 100);
    expect_json(json_incref(json_object_get(worker, "queues")),
                "[{\"interface\":\"a\",\"queue\":0},{\"interface\":\"a\",\"queue\":1},"
                "{\"interface\":\"b\",\"queue\":0}]");

    json_t *stages = json_object_get(worker, "stages");
    static const char *const names[] = {"rx", "route", "output", "tx"};

    assert_int_equal(json_array_size(stages), 4);
    for (unsigned i = 0; i < 4; i++) {
        json_t *stage = json_array_get(stages, i);
        bool reached = i < 2;

        assert_string_equal(json_string_value(json_object_get(stage, "name")), names[i]);
        assert_int_equal(number(stage, "packets"), reached ? 12800 : 0);
        assert_int_equal(number(stage, "bursts"), reached ? 200 : 0);
        assert_true(json_real_value(json_object_get(stage, "packets_per_burst")) ==
                    (reached ? 64 : 0));
        assert_true(json_is_real(json_object_get(stage, "cycles_per_packet")));
    }
    json_decref(runtime);

    json_t *stats = call("stats.get", NULL);

    worker = json_array_get(json_object_get(stats, "workers"), 0);
    assert_int_equal(number(worker, "rx_packets"), 12800);
    expect_json(json_incref(json_object_get(stats, "drops")), "{\"test.rain\":5}");
    assert_true(number(json_object_get(stats, "mbufs"), "total") > 0);
    assert_int_equal(number(json_object_get(stats, "mbufs"), "in_use"), 0);
    json_decref(stats);
    stats = call("stats.get", "{\"all\":true}");
    assert_int_equal(number(json_object_get(stats, "drops"), "test.rain"), 5);
    assert_true(json_is_integer(json_object_get(json_object_get(stats, "drops"), "test.snow")));
    json_decref(stats);
    expect_failure("stats.get", "{\"all\":1}", 0,
                   "$.all: expected true or false, found an integer");
    json_decref(call("stats.clear", NULL));
    stats = call("stats.get", NULL);
    expect_json(json_incref(json_object_get(stats, "drops")), "{}");
    json_decref(stats);

    /* Two idle windows later the worker is idle. */
    for (unsigned i = 0; i < 2; i++) {
        event_advance(1000);
        event_turn(0);
    }
    runtime = call("runtime.get", NULL);
    worker = json_array_get(json_object_get(runtime, "workers"), 0);
    assert_true(json_real_value(json_object_get(worker, "busy_percent")) == 0);
    assert_int_equal(number(worker, "packets"), 0);
    json_decref(runtime);
}

/* --- the process --- */

static int start(void **state) {
    char *arguments[] = {"test_interface",
                         "--no-huge",
                         "--no-shconf",
                         "-m",
                         "512",
                         "-l",
                         "0",
                         "--no-telemetry",
                         "-a",
                         "0000:00:00.0",
                         "--log-level=error",
                         NULL};
    struct problems problems = {0};
    unsigned lcore = 0;

    (void)state;
    log_set_level(LOG_LEVEL_NOTICE);
    if (rte_eal_init(11, arguments) < 0 || packet_meta_init() < 0 || event_init() < 0 ||
        rcu_init(1) < 0 || workers_create(&lcore, 1) < 0)
        return -1;
    rcu_set_shared_thread(0);
    interface_listen(&listener);
    config_after_commit = plan_workers;
    if (config_init(&problems) != 0)
        return -1;
    assert_non_null(interface_table());
    assert_int_equal(vrf_by_name("default"), VRF_DEFAULT);
    APPLY("{}", "+vrf default 254\nplan 0\n");
    return 0;
}

static int stop(void **state) {
    reset(state);
    workers_free();
    interface_free();
    rcu_free();
    mbuf_pools_free();
    event_free();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_first, reset),
        cmocka_unit_test_teardown(test_addresses, reset),
        cmocka_unit_test_teardown(test_addresses_full, reset),
        cmocka_unit_test_teardown(test_address_moves, reset),
        cmocka_unit_test_teardown(test_vlans, reset),
        cmocka_unit_test_teardown(test_vrfs, reset),
        cmocka_unit_test_teardown(test_vrfs_full, reset),
        cmocka_unit_test_teardown(test_changes, reset),
        cmocka_unit_test_teardown(test_enabled, reset),
        cmocka_unit_test_teardown(test_device_stays, reset),
        cmocka_unit_test_teardown(test_prepare_fails, reset),
        cmocka_unit_test_teardown(test_reopen, reset),
        cmocka_unit_test_teardown(test_reopen_ring, reset),
        cmocka_unit_test_teardown(test_reopen_under_another_id, reset),
        cmocka_unit_test_teardown(test_port_lost, reset),
        cmocka_unit_test_teardown(test_link, reset),
        cmocka_unit_test_teardown(test_ids_run_out, reset),
        cmocka_unit_test_teardown(test_interface_methods, reset),
        cmocka_unit_test_teardown(test_counters_of_reused_ids, reset),
        cmocka_unit_test_teardown(test_runtime, reset),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
