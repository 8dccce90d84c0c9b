/*
 * The section "firewall", a second look at live sessions, and firewall.list: on fakes of interfaces
 * and sessions. All mistakes at once with their paths; what a reload keeps; which sessions end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_eal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/rcu.h"
#include "core/section.h"
#include "core/worker.h"
#include "firewall/firewall_internal.h"
#include "interface/interface.h"
#include "session/session.h"
#include "json/decode.h"
#include "json/rpc.h"

/* --- fakes --- */

static struct interface interfaces[] = {
    {.id = 1, .name = "wan"}, {.id = 2, .name = "lan"}, {.id = 3, .name = "guest", .vrf = 1}};
static struct interface_listener *heard;
static bool (*wants_sessions)(void);
static int answer_of_need;

struct interface *interface_next(const struct interface *previous) {
    const size_t next = previous ? (size_t)(previous - interfaces) + 1 : 0;

    return next < RTE_DIM(interfaces) ? &interfaces[next] : NULL;
}

void interface_listen(struct interface_listener *listener) {
    heard = listener;
}

const char *vrf_name(uint16_t vrf) {
    return vrf == 0 ? "default" : "blue";
}

bool vrf_configured(const struct config *config, const char *name) {
    (void)config;
    return strcmp(name, "blue") == 0 || strcmp(name, "default") == 0;
}

const char *interface_configured_vrf(const struct config *config, const char *name) {
    (void)config;
    for (size_t i = 0; i < RTE_DIM(interfaces); i++) {
        if (strcmp(interfaces[i].name, name) == 0)
            return vrf_name(interfaces[i].vrf);
    }
    return NULL;
}

unsigned workers_count(void) {
    return 2;
}

void rcu_retire(void *context, void (*free_fn)(void *owner, void *memory, size_t size), void *owner,
                void *memory, size_t size) {
    (void)context;
    free_fn(owner, memory, size);
}

void session_on_look_again(void (*look)(void)) {
    (void)look;
}

void session_want(bool (*wanted)(void)) {
    wants_sessions = wanted;
}

int session_need(struct problems *problems) {
    if (answer_of_need != 0)
        problems_add(problems, "$.sessions.size", "no memory");
    return answer_of_need;
}

enum { SESSIONS = 100 };
static struct flow flows[SESSIONS * 2];
static struct session fake_sessions[SESSIONS];
static bool ended[SESSIONS];
struct flow *session_flows = flows;
struct session *sessions = fake_sessions;

void session_walk(uint32_t *cursor, uint32_t max,
                  bool (*visit)(uint32_t number, const struct session *session, void *context),
                  void *context) {
    const uint32_t end = *cursor + RTE_MIN(max, 70u); /* more than one slice */

    for (; *cursor < end && *cursor < SESSIONS; (*cursor)++) {
        if (sessions[*cursor].state != SESSION_FREE)
            visit(*cursor, &sessions[*cursor], context);
    }
    if (*cursor == SESSIONS)
        *cursor = 0;
}

void session_end(uint32_t number) {
    ended[number] = true;
}

static struct config_section empty_interfaces = {.name = "interfaces"};
CONFIG_SECTION(empty_interfaces)
static struct config_section empty_vrfs = {.name = "vrfs"};
CONFIG_SECTION(empty_vrfs)
static struct config_section empty_sessions = {.name = "sessions"};
CONFIG_SECTION(empty_sessions)

/* --- the section --- */

static struct config_section *section(void) {
    struct config_section *found = config_section_first();

    while (strcmp(found->name, "firewall") != 0)
        found = found->next;
    return found;
}

/* NULL text: the section is absent. */
static struct config *config_of(const char *text, struct problems *problems) {
    struct config *config = config_new();

    if (text) {
        json_t *json = json_loads(text, 0, NULL);
        struct decode root;

        assert_non_null(json);
        root = decode_root(json, problems);
        root.root = "$.firewall";
        config_set_value(config, section(), section()->decode(&root));
        json_decref(json);
    } else {
        config_set_value(config, section(), section()->decode(NULL));
    }
    if (!problems_any(problems))
        section()->check(config, problems);
    return config;
}

static void print_problems(const struct problems *problems) {
    for (size_t i = 0; i < problems->count; i++)
        print_message("%s: %s\n", problems->list[i].path, problems->list[i].message);
}

/* The paths of the problems are these, each with a semicolon. */
static void expect_problems(const char *text, const char *paths) {
    struct problems problems = {0};
    char found[2048] = "";

    config_free(config_of(text, &problems));
    for (size_t i = 0; i < problems.count; i++) {
        strcat(found, problems.list[i].path);
        strcat(found, ";");
    }
    if (strcmp(found, paths) != 0)
        print_problems(&problems);
    assert_string_equal(found, paths);
    problems_free(&problems);
}

/* The configuration in force. */
static struct config *running;

static void apply(const char *text) {
    struct problems problems = {0};
    struct config *config = config_of(text, &problems);

    print_problems(&problems);
    assert_false(problems_any(&problems));
    assert_int_equal(section()->prepare(running, config, &problems), 0);
    section()->commit(running, config);
    section()->release(running, config);
    config_free(running);
    running = config;
}

static int tear_down(void **state) {
    (void)state;
    apply(NULL);
    config_free(running);
    running = NULL;
    memset(flows, 0, sizeof(flows));
    memset(fake_sessions, 0, sizeof(fake_sessions));
    memset(ended, 0, sizeof(ended));
    return 0;
}

static uint32_t rule_for(const char *source, const char *destination, uint8_t protocol,
                         uint16_t port, uint16_t in, uint16_t out) {
    const struct firewall_ruleset *set = firewall_ruleset();
    struct firewall_packet packet = {
        .protocol = protocol,
        .in = firewall_interfaces_of(set)->slot[in],
        .out = out ? firewall_interfaces_of(set)->slot[out] : 0,
        .destination_port = rte_cpu_to_be_16(port),
    };
    struct ip_address address;
    uint32_t number;

    assert_int_equal(ip_address_parse(source, &address), 0);
    packet.ipv6 = address.family == AF_INET6;
    memcpy(packet.source, address.bytes, 16);
    assert_int_equal(ip_address_parse(destination, &address), 0);
    memcpy(packet.destination, address.bytes, 16);
    firewall_classify(set, &packet, 1, &number);
    return number;
}

/* --- cases: decoding --- */

static void absent_section_is_no_firewall(void **state) {
    (void)state;
    apply(NULL);
    assert_false(firewall_wanted());
    assert_null(firewall_ruleset());
}

static void empty_section_drops_everything(void **state) {
    (void)state;
    apply("{}");
    assert_true(firewall_wanted());
    assert_true(wants_sessions());
    assert_int_equal(firewall_ruleset()->verdicts[0].action, FIREWALL_DROP);
    assert_int_equal(firewall_ruleset()->verdicts[1].action, FIREWALL_DROP);
    apply("{\"default\":\"reject\"}");
    assert_int_equal(firewall_ruleset()->verdicts[1].action, FIREWALL_REJECT);
    apply("{\"default\":\"accept\",\"router_default\":\"drop\"}");
    assert_int_equal(firewall_ruleset()->verdicts[0].action, FIREWALL_ACCEPT);
    assert_int_equal(firewall_ruleset()->verdicts[1].action, FIREWALL_DROP);
}

static void every_condition_is_understood(void **state) {
    (void)state;
    apply("{\"address_sets\":{\"servers\":[\"192.168.1.10\",\"2001:db8::/32\"]},\"rules\":["
          "{\"name\":\"out\",\"in\":\"lan\",\"out\":[\"wan\"],\"action\":\"accept\"},"
          "{\"name\":\"web\",\"in\":[\"wan\"],\"protocol\":\"tcp\",\"destination\":\"@servers\","
          "\"destination_port\":[80,\"8000-8010\"],\"source_port\":\"0-65535\","
          "\"tcp_flags\":\"syn,!ack\",\"dscp\":[0,46],\"action\":\"accept\",\"log\":true},"
          "{\"name\":\"ping\",\"family\":\"ipv4\",\"to_router\":true,\"protocol\":[\"icmp\"],"
          "\"icmp_type\":[\"echo_request\",\"3/4\",13],\"action\":\"accept\",\"stateless\":true},"
          "{\"name\":\"blue\",\"vrf\":\"blue\",\"source\":[\"10.0.0.0/8\",\"::/0\"],"
          "\"action\":\"reject\"},"
          "{\"name\":\"off\",\"enabled\":false,\"protocol\":[\"gre\",89],\"action\":\"accept\"}]}");
    assert_int_equal(firewall_ruleset()->rule_count, 5);
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 17, 53, 2, 1), 0);
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 17, 53, 2, 3), 5);
    assert_int_equal(rule_for("1.1.1.1", "192.168.1.10", 6, 80, 1, 2), 5); /* no SYN */
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 1, 8 << 8, 1, 0), 2);
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 1, 3 << 8 | 4, 1, 0), 2);
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 1, 3 << 8 | 3, 1, 0), 6);
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 1, 8 << 8, 1, 2), 5);
    assert_int_equal(rule_for("10.1.1.1", "2.2.2.2", 6, 80, 3, 1), 3);
    assert_int_equal(rule_for("2001:db8::1", "2001:db9::", 6, 80, 3, 1), 3);
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 47, 0, 1, 2), 5);
    assert_true(firewall_ruleset()->verdicts[1].log);
    assert_true(firewall_ruleset()->verdicts[2].stateless);
    assert_false(firewall_ruleset()->verdicts[4].enabled);
}

#define RULE(rest) "{\"rules\":[{\"name\":\"a\",\"action\":\"accept\"," rest "}]}"

static void each_mistake_has_its_path(void **state) {
    (void)state;
    expect_problems("[]", "$.firewall;");
    expect_problems("{\"default\":\"deny\",\"router_default\":1,\"rule\":[]}",
                    "$.firewall.rule;$.firewall.default;$.firewall.router_default;");
    expect_problems("{\"rules\":[{},1,{\"name\":\"!\",\"action\":\"pass\"}]}",
                    "$.firewall.rules[0];$.firewall.rules[0];$.firewall.rules[1];"
                    "$.firewall.rules[2].name;$.firewall.rules[2].action;");
    expect_problems("{\"rules\":[{\"name\":\"a\",\"action\":\"drop\"},{\"name\":\"b\",\"action\":"
                    "\"drop\"},{\"name\":\"a\",\"action\":\"drop\"}]}",
                    "$.firewall.rules[2].name;");
    expect_problems("{\"rules\":[{\"name\":\"default\",\"action\":\"drop\"}]}",
                    "$.firewall.rules[0].name;");
    expect_problems(RULE("\"in\":[],\"out\":[\"wan\",7]"),
                    "$.firewall.rules[0].in;$.firewall.rules[0].out[1];");
    expect_problems(RULE("\"in\":\"dmz\",\"out\":[\"wan\",\"dmz\"],\"vrf\":\"red\""),
                    "$.firewall.rules[0].vrf;$.firewall.rules[0].in;$.firewall.rules[0].out[1];");
    expect_problems(RULE("\"in\":\"lan\",\"out\":\"lan\",\"vrf\":\"blue\""),
                    "$.firewall.rules[0].in;");
    expect_problems(RULE("\"out\":\"wan\",\"to_router\":true"), "$.firewall.rules[0].out;");
    expect_problems(RULE("\"source\":\"10.0.0.1/8\",\"destination\":[\"@x\",\"y\"]"),
                    "$.firewall.rules[0].source;$.firewall.rules[0].destination[0];"
                    "$.firewall.rules[0].destination[1];");
    expect_problems("{\"address_sets\":{\"a\":[],\"b\":[\"1.2.3.4\",5],\"c\":{},\"d d\":[\"::\"]}}",
                    "$.firewall.address_sets.a;$.firewall.address_sets.b[1];"
                    "$.firewall.address_sets.c;$.firewall.address_sets[\"d d\"];");
}

static void contradictions_are_mistakes(void **state) {
    (void)state;
    expect_problems(RULE("\"destination_port\":80"), "$.firewall.rules[0].destination_port;");
    expect_problems(RULE("\"protocol\":[\"tcp\",\"gre\"],\"source_port\":80"),
                    "$.firewall.rules[0].source_port;");
    expect_problems(RULE("\"protocol\":\"udp\",\"source_port\":\"90-80\",\"destination_port\":"
                         "[\"1-65536\",\"-\",70000,[]]"),
                    "$.firewall.rules[0].source_port;$.firewall.rules[0].destination_port[0];"
                    "$.firewall.rules[0].destination_port[1];"
                    "$.firewall.rules[0].destination_port[2];"
                    "$.firewall.rules[0].destination_port[3];");
    expect_problems(RULE("\"protocol\":\"tcp\",\"icmp_type\":8"), "$.firewall.rules[0].icmp_type;");
    expect_problems(RULE("\"protocol\":\"icmp\",\"icmp_type\":[\"ping\",256,\"3/\"]"),
                    "$.firewall.rules[0].icmp_type[0];$.firewall.rules[0].icmp_type[1];"
                    "$.firewall.rules[0].icmp_type[2];");
    expect_problems(RULE("\"protocol\":\"udp\",\"tcp_flags\":\"syn\""),
                    "$.firewall.rules[0].tcp_flags;");
    expect_problems(RULE("\"protocol\":\"tcp\",\"tcp_flags\":\"syn,\""),
                    "$.firewall.rules[0].tcp_flags;");
    expect_problems(RULE("\"protocol\":\"tcp\",\"tcp_flags\":\"syn,!syn\""),
                    "$.firewall.rules[0].tcp_flags;");
    expect_problems(RULE("\"dscp\":64,\"protocol\":\"tpc\""),
                    "$.firewall.rules[0].protocol;$.firewall.rules[0].dscp;");
    expect_problems(RULE("\"source\":\"10.0.0.0/8\",\"destination\":\"::/0\""),
                    "$.firewall.rules[0];");
    expect_problems(RULE("\"source\":\"10.0.0.0/8\",\"family\":\"ipv6\""),
                    "$.firewall.rules[0].source;");
    expect_problems(RULE("\"protocol\":\"icmp\",\"family\":\"ipv6\""),
                    "$.firewall.rules[0].protocol;");
    expect_problems(RULE("\"source\":\"10.0.0.0/8\",\"protocol\":\"icmpv6\""),
                    "$.firewall.rules[0].protocol;");
}

/* A small document that asks for a very large classifier. */
static void the_product_of_lists_is_bounded(void **state) {
    char *text = malloc(1 << 20);
    size_t length = (size_t)sprintf(text, "{\"address_sets\":{\"s\":[");

    (void)state;
    for (unsigned i = 0; i < 1000; i++)
        length +=
            (size_t)sprintf(text + length, "%s\"10.0.%u.%u\"", i ? "," : "", i / 250, i % 250);
    sprintf(text + length, "]},\"rules\":[{\"name\":\"a\",\"source\":\"@s\",\"action\":\"drop\"},"
                           "{\"name\":\"b\",\"source\":\"@s\",\"destination\":\"@s\","
                           "\"action\":\"drop\"}]}");
    expect_problems(text, "$.firewall.rules[1];");
    free(text);
}

/* --- cases: reloading --- */

static void the_same_rules_are_not_compiled_again(void **state) {
    const struct firewall_ruleset *before;

    (void)state;
    apply(RULE("\"in\":\"lan\""));
    before = firewall_ruleset();
    /* Another order of keys, and the interfaces have other ids. */
    interfaces[0].id = 2;
    interfaces[1].id = 1;
    apply("{\"rules\":[{\"in\":\"lan\",\"action\":\"accept\",\"name\":\"a\"}]}");
    assert_ptr_equal(firewall_ruleset(), before);
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 6, 80, 1, 2), 0);
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 6, 80, 2, 1), 1);
    interfaces[0].id = 1;
    interfaces[1].id = 2;
    heard->added(&interfaces[0]);
    assert_int_equal(rule_for("1.1.1.1", "2.2.2.2", 6, 80, 2, 1), 0);
    /* The interface is in another VRF: so is its slot. */
    interfaces[1].vrf = 1;
    apply(RULE("\"in\":\"lan\""));
    assert_ptr_not_equal(firewall_ruleset(), before);
    interfaces[1].vrf = 0;
}

static void an_apply_that_fails_changes_nothing(void **state) {
    const struct firewall_ruleset *before;
    struct problems problems = {0};
    struct config *config;

    (void)state;
    apply(RULE("\"in\":\"lan\""));
    before = firewall_ruleset();
    config = config_of("{}", &problems);
    answer_of_need = -ENOMEM;
    assert_int_equal(section()->prepare(running, config, &problems), -ENOMEM);
    assert_int_equal(problems.count, 1);
    answer_of_need = 0;
    assert_int_equal(section()->prepare(running, config, &problems), 0);
    section()->abort(running, config);
    config_free(config);
    problems_free(&problems);
    assert_ptr_equal(firewall_ruleset(), before);
    assert_null(before->after);
}

/* --- cases: live sessions --- */

static uint32_t address4(const char *text) {
    struct ip_address address;
    uint32_t bytes;

    assert_int_equal(ip_address_parse(text, &address), 0);
    memcpy(&bytes, address.bytes, sizeof(bytes));
    return bytes;
}

static struct session *session_at(uint32_t number, uint8_t protocol, const char *source,
                                  const char *destination, uint16_t port) {
    struct session *session = &fake_sessions[number];

    flows[number * 2].key4 = (struct flow_key4){
        .source = address4(source),
        .destination = address4("203.0.113.1"), /* translated */
        .destination_port = rte_cpu_to_be_16(8080),
    };
    flows[number * 2 + 1].key4 = (struct flow_key4){
        .source = address4(destination),
        .destination = address4(source),
        .source_port = rte_cpu_to_be_16(port),
    };
    *session = (struct session){.state = SESSION_UDP,
                                .protocol = protocol,
                                .in_interface = 1,
                                .out_interface = 2,
                                .rule = 99,
                                .serial = number};
    return session;
}

static void look_again(void) {
    for (unsigned i = 0; i < 5; i++)
        event_turn(0);
}

static void sessions_that_are_not_accepted_any_more_end(void **state) {
    (void)state;
    for (uint32_t i = 10; i < 90; i++)
        session_at(i, IPPROTO_TCP, "1.1.1.1", "192.168.1.10", i < 50 ? 80 : 81);
    session_at(1, IPPROTO_ICMP, "1.1.1.1", "192.168.1.10", 8);
    session_at(2, IPPROTO_TCP, "1.1.1.1", "192.168.1.10", 80)->flags = SESSION_LOCAL;
    session_at(3, IPPROTO_TCP, "1.1.1.1", "192.168.1.10", 99)->flags = SESSION_FROM_ROUTER;
    session_at(4, IPPROTO_TCP, "1.1.1.1", "192.168.1.10", 80)->in_interface = 2;
    session_at(5, IPPROTO_TCP, "1.1.1.1", "192.168.1.10", 80)->flags = SESSION_PICKED_UP;
    session_at(6, IPPROTO_TCP, "1.1.1.1", "192.168.1.10", 80)->traffic_class = 46 << 2;
    apply("{\"rules\":["
          "{\"name\":\"x\",\"dscp\":46,\"action\":\"reject\"},"
          "{\"name\":\"web\",\"in\":\"wan\",\"out\":\"lan\",\"destination\":\"192.168.1.10\","
          "\"protocol\":\"tcp\",\"tcp_flags\":\"syn\",\"destination_port\":80,\"action\":"
          "\"accept\"},"
          "{\"name\":\"ping\",\"protocol\":\"icmp\",\"icmp_type\":8,\"action\":\"accept\"}]}");
    look_again();
    for (uint32_t i = 10; i < 90; i++)
        assert_int_equal(ended[i], i >= 50);
    assert_int_equal(fake_sessions[10].rule, 1);
    assert_false(ended[1]);
    assert_int_equal(fake_sessions[1].rule, 2);
    assert_true(ended[2]);
    assert_false(ended[3]);
    assert_int_equal(fake_sessions[3].rule, 99);
    assert_true(ended[4]);
    assert_true(ended[5]);
    assert_true(ended[6]);
}

static void without_a_firewall_no_session_is_touched(void **state) {
    (void)state;
    apply("{}");
    session_at(1, IPPROTO_TCP, "1.1.1.1", "2.2.2.2", 80);
    apply(NULL);
    look_again();
    assert_false(ended[1]);
}

/* --- cases: firewall.list --- */

static json_t *list(void) {
    struct rpc_request request = {0};
    json_t *result = rpc_find("firewall.list")->call(&request);

    assert_non_null(result);
    assert_false(problems_any(&request.problems));
    return result;
}

static void list_tells_rules_and_counters(void **state) {
    const char *name, *action, *fallback;
    json_int_t packets, bytes, opened, dropped;
    int configured, log;
    json_t *result;

    (void)state;
    result = list();
    assert_false(json_is_true(json_object_get(result, "configured")));
    assert_int_equal(json_array_size(json_object_get(result, "rules")), 0);
    json_decref(result);
    apply(RULE("\"log\":true"));
    firewall_ruleset()->counters[0][0] =
        (struct firewall_counter){.packets = 3, .bytes = 300, .sessions = 1};
    firewall_ruleset()->counters[1][0].packets = 4;
    firewall_ruleset()->counters[1][1].packets = 8;
    result = list();
    assert_int_equal(json_unpack(result, "{s:b, s:s, s:[{s:s, s:s, s:b, s:I, s:I, s:I}], s:{s:I}}",
                                 "configured", &configured, "default", &fallback, "rules", "name",
                                 &name, "action", &action, "log", &log, "packets", &packets,
                                 "bytes", &bytes, "sessions", &opened, "default_counters",
                                 "packets", &dropped),
                     0);
    assert_true(configured);
    assert_string_equal(fallback, "drop");
    assert_string_equal(name, "a");
    assert_string_equal(action, "accept");
    assert_true(log);
    assert_int_equal(packets, 7);
    assert_int_equal(bytes, 300);
    assert_int_equal(opened, 1);
    assert_int_equal(dropped, 8);
    json_decref(result);
}

#define CASE(name) cmocka_unit_test_teardown(name, tear_down)

int main(void) {
    char *arguments[] = {(char *)(uintptr_t) "test_firewall_config",
                         (char *)(uintptr_t) "--no-huge",
                         (char *)(uintptr_t) "--no-shconf",
                         (char *)(uintptr_t) "--no-telemetry",
                         (char *)(uintptr_t) "--log-level=error",
                         (char *)(uintptr_t) "-m",
                         (char *)(uintptr_t) "256",
                         (char *)(uintptr_t) "--no-pci",
                         (char *)(uintptr_t) "-l",
                         (char *)(uintptr_t) "0",
                         NULL};
    const struct CMUnitTest tests[] = {
        CASE(absent_section_is_no_firewall),
        CASE(empty_section_drops_everything),
        CASE(every_condition_is_understood),
        CASE(each_mistake_has_its_path),
        CASE(contradictions_are_mistakes),
        CASE(the_product_of_lists_is_bounded),
        CASE(the_same_rules_are_not_compiled_again),
        CASE(an_apply_that_fails_changes_nothing),
        CASE(sessions_that_are_not_accepted_any_more_end),
        CASE(without_a_firewall_no_session_is_touched),
        CASE(list_tells_rules_and_counters),
    };
    struct problems problems = {0};

    if (rte_eal_init((int)(sizeof(arguments) / sizeof(arguments[0])) - 1, arguments) < 0 ||
        event_init() != 0 || config_init(&problems) != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
