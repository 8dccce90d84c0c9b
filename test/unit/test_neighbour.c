/*
 * The neighbour table: each state and what leads out of it, packets that wait, scans, gateways, and
 * interfaces that come and go. ARP and ND are fakes that record who was asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "l3/neighbour.h"
#include "l3/protocol.h"

#define FAKE_ROUTES
#include "l3_fakes.h"

/* ---- ARP and ND ---- */

static struct {
    unsigned count, unicast;
    struct ip_address target;
    uint8_t mac[6];
    uint64_t when;
} asked;

static void note_question(const struct ip_address *target, const uint8_t *mac) {
    asked.count++;
    asked.unicast += mac != NULL;
    asked.target = *target;
    asked.when = event_now();
    if (mac)
        memcpy(asked.mac, mac, 6);
}

void arp_send_request(const struct interface *interface, const struct ip_address *target,
                      const uint8_t *unicast_mac) {
    assert_non_null(interface);
    assert_int_equal(target->family, AF_INET);
    note_question(target, unicast_mac);
}

void nd_send_solicitation(const struct interface *interface, const struct ip_address *target,
                          const uint8_t *unicast_mac) {
    assert_non_null(interface);
    assert_int_equal(target->family, AF_INET6);
    note_question(target, unicast_mac);
}

/* ---- setting up ---- */

static struct interface *lan;
static struct ip_address host, host6, gateway;
static uint32_t lan_glean;

static const uint8_t mac_a[6] = {0x02, 0xaa, 0, 0, 0, 1}, mac_b[6] = {0x02, 0xbb, 0, 0, 0, 2};

static int setup(void **state) {
    (void)state;
    lan = make_interface(1, 0);
    add_address(lan, "10.0.0.1/8", ADDRESS_VALID);
    add_address(lan, "2001:db8::1/64", ADDRESS_VALID);
    add_address(lan, "fe80::1/64", ADDRESS_VALID);
    set_up(lan, true);
    host = address("10.0.0.2");
    host6 = address("2001:db8::2");
    gateway = address("10.0.0.254");
    lan_glean = next_hop_alloc();
    next_hop_set_interface(lan_glean, lan->id, lan->port->id, lan->mtu);
    next_hop_set_type(lan_glean, NEXT_HOP_GLEAN);
    memset(&asked, 0, sizeof(asked));
    memset(&fake_counters, 0, sizeof(fake_counters));
    released_count = 0;
    route_changes = 0;
    rib_answer = 0;
    pass(1000); /* the budgets are full */
    return 0;
}

/* Whatever a test did, nothing is left when the interface has gone. */
static int teardown(void **state) {
    (void)state;
    if (lan->id != 0)
        remove_interface(lan);
    next_hop_release(lan_glean);
    assert_int_equal(next_hops_out, 0);
    assert_int_equal(route_count, 0);
    assert_int_equal(mbufs_out(), 0);
    return 0;
}

/* A packet to the address, with a number to know it by. */
static struct rte_mbuf *packet_to(const struct ip_address *destination, uint32_t next_hop,
                                  uint32_t mark) {
    struct rte_mbuf *mbuf = control_mbuf();
    bool ipv6 = destination->family == AF_INET6;
    uint8_t *frame;

    assert_non_null(mbuf);
    frame = (uint8_t *)rte_pktmbuf_append(mbuf, 60);
    memset(frame, 0, 60);
    if (ipv6)
        memcpy(frame + 14 + 24, destination->bytes, 16);
    else
        memcpy(frame + 14 + 16, destination->bytes, 4);
    mbuf->hash.usr = mark;
    packet_meta(mbuf)->l3_offset = 14;
    packet_meta(mbuf)->next_hop = next_hop;
    packet_meta(mbuf)->cause = CAUSE_RESOLVE;
    packet_meta(mbuf)->flags = ipv6 ? PACKET_IPV6 : 0;
    return mbuf;
}

static void need(const struct ip_address *destination, uint32_t mark) {
    neighbour_resolve(packet_to(destination, lan_glean, mark));
}

static struct neighbour_view view_of(const struct ip_address *of) {
    struct neighbour_view view;

    if (!neighbour_find(lan->id, of, &view))
        fail_msg("the neighbour is not in the table");
    return view;
}

static bool exists(const struct ip_address *of) {
    struct neighbour_view view;

    return neighbour_find(lan->id, of, &view);
}

static enum next_hop_type type_of(const struct ip_address *of) {
    return next_hop_get(view_of(of).next_hop)->type;
}

static void learn(const struct ip_address *of, const uint8_t mac[6], bool solicited) {
    neighbour_learn(lan->id, of, mac, solicited, true, false, false);
}

#define EXPECT_STATE(of, expected) assert_int_equal(view_of(of).state, (expected))

/* Makes the host REACHABLE through a packet and an answer. */
static void make_reachable(const struct ip_address *of, const uint8_t mac[6]) {
    need(of, 0);
    learn(of, mac, true);
    EXPECT_STATE(of, NEIGHBOUR_REACHABLE);
    released_count = 0;
    memset(&asked, 0, sizeof(asked));
}

static void make_stale(const struct ip_address *of, const uint8_t mac[6]) {
    neighbour_learn(lan->id, of, mac, false, true, false, true);
    EXPECT_STATE(of, NEIGHBOUR_STALE);
}

/* ---- INCOMPLETE ---- */

static void test_packet_asks_and_waits(void **state) {
    (void)state;
    need(&host, 1);
    EXPECT_STATE(&host, NEIGHBOUR_INCOMPLETE);
    assert_int_equal(type_of(&host), NEXT_HOP_RESOLVE);
    assert_int_equal(asked.count, 1);
    assert_int_equal(asked.unicast, 0);
    assert_int_equal(ip_address_compare(&asked.target, &host), 0);
    assert_int_equal(view_of(&host).held, 1);
    assert_int_equal(released_count, 0);
    assert_int_equal(route_count, 0);
    assert_false(view_of(&host).has_mac);
}

static void test_answer_resolves(void **state) {
    struct neighbour_view view;
    const uint8_t *l2;

    (void)state;
    need(&host, 1);
    learn(&host, mac_a, true);
    view = view_of(&host);
    assert_int_equal(view.state, NEIGHBOUR_REACHABLE);
    assert_true(view.has_mac);
    assert_memory_equal(view.mac, mac_a, 6);
    assert_true(event_now() - view.confirmed_msec < 100);
    assert_int_equal(type_of(&host), NEXT_HOP_FORWARD);
    l2 = (const uint8_t *)&next_hop_get(view.next_hop)->l2;
    assert_memory_equal(l2, mac_a, 6);
    assert_memory_equal(l2 + 6, lan->mac, 6);
    assert_int_equal(next_hop_get(view.next_hop)->out_interface, 1);
    assert_int_equal(next_hop_get(view.next_hop)->port, 11);
    assert_int_equal(next_hop_get(view.next_hop)->mtu, 1500);
    assert_int_equal(route_to(&host), view.next_hop);
    /* The packet knows its way. */
    assert_int_equal(released_count, 1);
    assert_int_equal(released[0].mark, 1);
    assert_int_equal(released[0].meta.next_hop, view.next_hop);
    assert_true(released[0].meta.flags & PACKET_NEXT_HOP);
}

static void test_unasked_answer_is_stale(void **state) {
    (void)state;
    need(&host, 1);
    learn(&host, mac_a, false);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
    assert_int_equal(type_of(&host), NEXT_HOP_STALE);
    assert_int_equal(released_count, 1);
    assert_int_equal(route_to(&host), view_of(&host).next_hop);
    assert_int_equal(view_of(&host).confirmed_msec, 0);
}

static void test_three_questions_then_failed(void **state) {
    (void)state;
    need(&host, 1);
    need(&host, 2);
    assert_int_equal(asked.count, 1);
    pass(1200);
    assert_int_equal(asked.count, 2);
    pass(1000);
    assert_int_equal(asked.count, 3);
    EXPECT_STATE(&host, NEIGHBOUR_INCOMPLETE);
    pass(1200);
    EXPECT_STATE(&host, NEIGHBOUR_FAILED);
    assert_int_equal(asked.count, 3);
    assert_int_equal(asked.unicast, 0);
    /* Workers make ICMP errors of them. */
    assert_int_equal(type_of(&host), NEXT_HOP_UNREACHABLE);
    assert_int_equal(released_count, 2);
    assert_int_equal(released[0].mark, 1);
    assert_int_equal(released[1].mark, 2);
    assert_int_equal(released[1].meta.next_hop, view_of(&host).next_hop);
    assert_true(released[1].meta.flags & PACKET_NEXT_HOP);
    assert_int_equal(drops_all("neighbour"), 0);
}

static void test_queue_drops_the_oldest(void **state) {
    (void)state;
    for (uint32_t mark = 1; mark <= NEIGHBOUR_HOLD_MAX + 4; mark++)
        need(&host, mark);
    assert_int_equal(view_of(&host).held, NEIGHBOUR_HOLD_MAX);
    assert_int_equal(drops("neighbour", "queue_full"), 4);
    learn(&host, mac_a, true);
    assert_int_equal(released_count, NEIGHBOUR_HOLD_MAX);
    for (unsigned i = 0; i < NEIGHBOUR_HOLD_MAX; i++)
        assert_int_equal(released[i].mark, i + 5);
}

static void test_all_queues_together_are_bounded(void **state) {
    struct ip_address many = host;
    unsigned hosts = NEIGHBOUR_HOLD_TOTAL_MAX / NEIGHBOUR_HOLD_MAX + 3;

    (void)state;
    for (unsigned i = 0; i < hosts; i++) {
        many.bytes[2] = 1;
        many.bytes[3] = (uint8_t)(i + 1);
        for (unsigned n = 0; n < NEIGHBOUR_HOLD_MAX; n++)
            need(&many, i);
    }
    assert_int_equal(mbufs_out(), NEIGHBOUR_HOLD_TOTAL_MAX);
    assert_int_equal(drops("neighbour", "hold_full"), 3 * NEIGHBOUR_HOLD_MAX);
    /* The oldest made room. */
    many.bytes[3] = 1;
    assert_int_equal(view_of(&many).held, 0);
    many.bytes[3] = 4;
    assert_int_equal(view_of(&many).held, NEIGHBOUR_HOLD_MAX);
}

/* ---- REACHABLE, STALE, DELAY, PROBE ---- */

static void test_reachable_ends_as_stale(void **state) {
    (void)state;
    make_reachable(&host, mac_a);
    pass(14500);
    EXPECT_STATE(&host, NEIGHBOUR_REACHABLE);
    pass(31000);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
    assert_int_equal(type_of(&host), NEXT_HOP_STALE);
    assert_int_equal(route_to(&host), view_of(&host).next_hop);
    assert_int_equal(asked.count, 0);
}

static void test_reachable_time_is_random(void **state) {
    struct ip_address many = host;
    unsigned stale = 0;

    (void)state;
    for (unsigned i = 2; i < 202; i++) {
        many.bytes[3] = (uint8_t)i;
        make_stale(&many, mac_a);
        need(&many, 0);
        pass(50);
    }
    /* All went to DELAY and are probed; all answer. */
    for (unsigned round = 0; round < 300; round++) {
        pass(50);
        for (unsigned i = 2; i < 202; i++) {
            many.bytes[3] = (uint8_t)i;
            if (view_of(&many).state == NEIGHBOUR_PROBE)
                learn(&many, mac_a, true);
        }
    }
    pass(15000);
    for (unsigned i = 2; i < 202; i++) {
        many.bytes[3] = (uint8_t)i;
        stale += view_of(&many).state == NEIGHBOUR_STALE;
    }
    assert_in_range(stale, 40, 180);
}

static void test_used_stale_is_probed(void **state) {
    (void)state;
    make_stale(&host, mac_a);
    pass(5000);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
    assert_int_equal(asked.count, 0);
    next_hops[view_of(&host).next_hop].used = 1;
    pass(1200);
    EXPECT_STATE(&host, NEIGHBOUR_DELAY);
    assert_int_equal(type_of(&host), NEXT_HOP_FORWARD);
    assert_int_equal(asked.count, 0);
    pass(3500);
    EXPECT_STATE(&host, NEIGHBOUR_DELAY);
    pass(1800);
    EXPECT_STATE(&host, NEIGHBOUR_PROBE);
    assert_int_equal(type_of(&host), NEXT_HOP_FORWARD);
    assert_true(asked.count >= 1);
    assert_int_equal(asked.unicast, asked.count);
    assert_memory_equal(asked.mac, mac_a, 6);
    learn(&host, mac_a, true);
    EXPECT_STATE(&host, NEIGHBOUR_REACHABLE);
}

static void test_used_flag_of_another_life_does_not_count(void **state) {
    (void)state;
    make_reachable(&host, mac_a);
    next_hops[view_of(&host).next_hop].used = 1;
    pass(45500);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
    pass(2000);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
}

static void test_delay_is_confirmed_only_by_an_answer(void **state) {
    (void)state;
    make_stale(&host, mac_a);
    need(&host, 1); /* the next hop was not STALE when the worker looked */
    EXPECT_STATE(&host, NEIGHBOUR_DELAY);
    assert_int_equal(released_count, 1);
    learn(&host, mac_a, true); /* nobody had asked */
    EXPECT_STATE(&host, NEIGHBOUR_DELAY);
}

static void test_silent_probe_asks_everybody(void **state) {
    (void)state;
    make_stale(&host, mac_a);
    need(&host, 1);
    pass(5100);
    EXPECT_STATE(&host, NEIGHBOUR_PROBE);
    pass(2300);
    EXPECT_STATE(&host, NEIGHBOUR_PROBE);
    assert_int_equal(asked.unicast, 3);
    pass(1100);
    EXPECT_STATE(&host, NEIGHBOUR_INCOMPLETE);
    assert_int_equal(type_of(&host), NEXT_HOP_RESOLVE);
    assert_false(view_of(&host).has_mac);
    assert_int_equal(asked.unicast, 3);
    assert_int_equal(asked.count, 4);
    assert_int_not_equal(route_to(&host), 0); /* its packets come by the route */
    neighbour_resolve(packet_to(&host, view_of(&host).next_hop, 7));
    pass(3500);
    EXPECT_STATE(&host, NEIGHBOUR_FAILED);
    assert_int_equal(asked.count, 6);
    assert_int_equal(released_count, 2);
    assert_int_equal(released[1].mark, 7);
    assert_false(released[1].meta.flags & PACKET_NEXT_HOP); /* is routed again */
}

static void test_host_that_moved_is_found(void **state) {
    (void)state;
    make_stale(&host, mac_a);
    need(&host, 1);
    pass(8500);
    EXPECT_STATE(&host, NEIGHBOUR_INCOMPLETE);
    learn(&host, mac_b, true);
    EXPECT_STATE(&host, NEIGHBOUR_REACHABLE);
    assert_memory_equal(&next_hop_get(view_of(&host).next_hop)->l2, mac_b, 6);
}

static void test_unused_stale_is_dropped(void **state) {
    (void)state;
    make_stale(&host, mac_a);
    pass(19 * 60000);
    assert_true(exists(&host));
    pass(62000);
    assert_false(exists(&host));
    assert_int_equal(route_count, 0);
}

/* ---- FAILED ---- */

static void test_failed_is_asked_again_once_a_second(void **state) {
    uint32_t id;

    (void)state;
    need(&host, 1);
    pass(3300);
    EXPECT_STATE(&host, NEIGHBOUR_FAILED);
    asked.count = released_count = 0;
    need(&host, 2); /* too early: an error at once */
    assert_int_equal(asked.count, 0);
    assert_int_equal(released_count, 1);
    assert_int_equal(released[0].meta.next_hop, view_of(&host).next_hop);
    pass(1200);
    EXPECT_STATE(&host, NEIGHBOUR_FAILED);
    assert_int_equal(asked.count, 0); /* nobody wants it */
    assert_int_equal(type_of(&host), NEXT_HOP_RESOLVE);
    id = view_of(&host).next_hop;
    need(&host, 3);
    EXPECT_STATE(&host, NEIGHBOUR_INCOMPLETE);
    assert_int_equal(asked.count, 1);
    assert_int_equal(view_of(&host).held, 1);
    learn(&host, mac_a, true);
    assert_int_equal(released_count, 2);
    assert_int_equal(released[1].mark, 3);
    assert_int_equal(view_of(&host).next_hop, id);
}

static void test_failed_is_forgotten(void **state) {
    (void)state;
    need(&host, 1);
    pass(3300);
    pass(29000);
    assert_true(exists(&host));
    pass(2000);
    assert_false(exists(&host));
}

static void test_failed_learns(void **state) {
    (void)state;
    need(&host, 1);
    pass(3500);
    learn(&host, mac_a, false);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
    assert_int_not_equal(route_to(&host), 0);
}

/* ---- what is learnt ---- */

static void test_learning_makes_entries_only_on_demand(void **state) {
    struct ip_address off = address("192.0.2.1"), own = address("10.0.0.1"),
                      network = address("10.0.0.0"), broadcast = address("10.255.255.255"),
                      loopback = address("127.0.0.1");
    const uint8_t group[6] = {1, 0, 0x5e, 0, 0, 1}, zero[6] = {0};

    (void)state;
    learn(&host, mac_a, true);
    assert_false(exists(&host));
    neighbour_learn(lan->id, &off, mac_a, false, true, false, true);
    neighbour_learn(lan->id, &own, mac_a, false, true, false, true);
    neighbour_learn(lan->id, &network, mac_a, false, true, false, true);
    neighbour_learn(lan->id, &broadcast, mac_a, false, true, false, true);
    neighbour_learn(lan->id, &loopback, mac_a, false, true, false, true);
    neighbour_learn(lan->id, &host, group, false, true, false, true);
    neighbour_learn(lan->id, &host, zero, false, true, false, true);
    neighbour_learn(99, &host, mac_a, false, true, false, true);
    assert_int_equal(next_hops_out, 1);
    make_stale(&host, mac_a);
    assert_int_equal(route_to(&host), view_of(&host).next_hop);
}

static void test_override(void **state) {
    (void)state;
    make_reachable(&host, mac_a);
    /* RFC 4861 section 7.2.5: doubt, but the old address stays. */
    neighbour_learn(lan->id, &host, mac_b, false, false, false, false);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
    assert_memory_equal(view_of(&host).mac, mac_a, 6);
    neighbour_learn(lan->id, &host, mac_b, false, false, false, false);
    assert_memory_equal(view_of(&host).mac, mac_a, 6);
    neighbour_learn(lan->id, &host, mac_b, false, true, false, false);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
    assert_memory_equal(view_of(&host).mac, mac_b, 6);
    assert_memory_equal(&next_hop_get(view_of(&host).next_hop)->l2, mac_b, 6);
}

static void test_same_address_again_changes_nothing(void **state) {
    (void)state;
    make_reachable(&host, mac_a);
    learn(&host, mac_a, false);
    EXPECT_STATE(&host, NEIGHBOUR_REACHABLE);
    learn(&host, mac_b, false);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
}

static void test_late_answer_is_no_confirmation(void **state) {
    (void)state;
    make_reachable(&host, mac_a);
    pass(4000);
    learn(&host, mac_b, true);
    EXPECT_STATE(&host, NEIGHBOUR_STALE);
}

static void test_router_flag(void **state) {
    (void)state;
    neighbour_learn(lan->id, &host6, mac_a, false, true, true, true);
    assert_true(view_of(&host6).is_router);
    neighbour_learn(lan->id, &host6, mac_a, false, true, false, false);
    assert_false(view_of(&host6).is_router);
}

/* ---- IPv6 ---- */

static void test_ipv6_host_has_a_route(void **state) {
    (void)state;
    need(&host6, 1);
    assert_int_equal(asked.count, 1);
    learn(&host6, mac_a, true);
    assert_int_equal(route_to(&host6), view_of(&host6).next_hop);
}

static void test_link_local_has_no_route(void **state) {
    struct ip_address local = address("fe80::2");
    struct rte_mbuf *mbuf = packet_to(&local, NEXT_HOP_ID_NONE, 4);

    (void)state;
    packet_meta(mbuf)->out_interface = lan->id;
    neighbour_resolve(mbuf);
    EXPECT_STATE(&local, NEIGHBOUR_INCOMPLETE);
    learn(&local, mac_a, true);
    assert_int_equal(route_count, 0);
    assert_int_equal(released_count, 1);
    assert_int_equal(released[0].meta.next_hop, view_of(&local).next_hop);
    assert_true(released[0].meta.flags & PACKET_NEXT_HOP);
}

/* ---- packets that lead nowhere ---- */

static void test_drop_reasons(void **state) {
    struct ip_address own = address("10.0.0.1"), group = address("224.0.0.5");
    struct rte_mbuf *mbuf;

    (void)state;
    need(&own, 0);
    need(&group, 0);
    assert_int_equal(drops("neighbour", "not_on_link"), 2);
    neighbour_resolve(packet_to(&host, NEXT_HOP_ID_UNREACHABLE, 0));
    neighbour_resolve(packet_to(&host, NEXT_HOP_ID_NONE, 0));
    neighbour_resolve(packet_to(&host, NEXT_HOP_ID_MASK, 0));
    assert_int_equal(drops("neighbour", "no_neighbour"), 3);
    mbuf = packet_to(&host, lan_glean, 0);
    rte_pktmbuf_trim(mbuf, 60 - 33);
    neighbour_resolve(mbuf);
    assert_int_equal(drops("neighbour", "malformed"), 1);
    set_up(lan, false);
    need(&host, 0);
    assert_int_equal(drops("neighbour", "interface_down"), 1);
    assert_int_equal(next_hops_out, 1);
}

static void test_no_next_hop_left(void **state) {
    (void)state;
    memset(next_hop_taken, true, sizeof(next_hop_taken));
    need(&host, 0);
    assert_int_equal(drops("neighbour", "table_full"), 1);
    assert_int_equal(neighbour_reference(lan->id, &gateway), 0);
    memset(next_hop_taken, false, sizeof(next_hop_taken));
    next_hop_taken[lan_glean] = true;
}

static void test_without_room_in_the_rib_packets_still_arrive(void **state) {
    (void)state;
    rib_answer = -ENOSPC;
    need(&host, 1);
    learn(&host, mac_a, true);
    assert_int_equal(route_count, 0);
    need(&host, 2);
    assert_int_equal(released_count, 2);
    assert_int_equal(released[1].meta.next_hop, view_of(&host).next_hop);
    assert_true(released[1].meta.flags & PACKET_NEXT_HOP);
}

/* A prefix that is on-link by a route only: nobody tells when that ends. */
static void test_on_link_route(void **state) {
    struct ip_address beyond = address("198.51.100.9");

    (void)state;
    need(&beyond, 1);
    learn(&beyond, mac_a, true);
    assert_int_equal(route_to(&beyond), view_of(&beyond).next_hop);
    pass(46000);
    EXPECT_STATE(&beyond, NEIGHBOUR_STALE);
    assert_int_equal(route_count, 0);
    need(&beyond, 2);
    EXPECT_STATE(&beyond, NEIGHBOUR_DELAY);
    assert_int_equal(route_to(&beyond), view_of(&beyond).next_hop);
    assert_int_equal(released_count, 2);
}

/* ---- scans and pressure ---- */

static bool count_one(const struct neighbour_view *view, void *context) {
    unsigned *counts = context;

    counts[view->state]++;
    return true;
}

static unsigned count_of(enum neighbour_state wanted) {
    unsigned counts[NEIGHBOUR_STATIC + 1] = {0};

    neighbour_each(0, count_one, counts);
    return counts[wanted];
}

static void test_scan_is_harmless(void **state) {
    struct ip_address target = address("10.16.0.0");
    uint64_t start;
    uint32_t id;

    (void)state;
    id = neighbour_reference(lan->id, &gateway);
    learn(&gateway, mac_b, true);
    make_reachable(&host, mac_a);
    start = event_now();
    for (unsigned i = 0; i < 1000000; i++) {
        target.bytes[1] = (uint8_t)(16 + (i >> 16));
        target.bytes[2] = (uint8_t)(i >> 8);
        target.bytes[3] = (uint8_t)i;
        need(&target, i);
        if (i % 5000 == 0) {
            event_advance(100);
            event_turn(0);
        }
        if (i % 50000 == 0) {
            /* One more: the gateway may have become silent. */
            assert_true(count_of(NEIGHBOUR_INCOMPLETE) <= NEIGHBOURS_INCOMPLETE_MAX + 1);
            assert_true(next_hops_out <= 2 * NEIGHBOURS_INCOMPLETE_MAX + 3);
            assert_true(mbufs_out() <= NEIGHBOUR_HOLD_TOTAL_MAX);
        }
    }
    /* 200 a second, and what the gateway and the known host needed. */
    assert_true(asked.count <= 60 + (event_now() - start) / 5 + 20);
    assert_true(asked.count >= (event_now() - start) / 5 / 2);
    assert_true(exists(&host));
    assert_int_equal(view_of(&gateway).next_hop, id);
    assert_true(route_count <= 2);
    assert_true(drops("neighbour", "evicted") > 0);

    /* A real host is found in the middle of it. */
    pass(1000);
    target = address("10.200.0.1");
    need(&target, 5);
    pass(500);
    released_count = 0;
    learn(&target, mac_a, true);
    EXPECT_STATE(&target, NEIGHBOUR_REACHABLE);
    assert_int_equal(released_count, 1);

    pass(60000);
    assert_int_equal(count_of(NEIGHBOUR_INCOMPLETE) + count_of(NEIGHBOUR_FAILED), 1); /* gateway */
    neighbour_unreference(lan->id, &gateway);
}

static void test_full_table(void **state) {
    struct ip_address many = address("10.1.0.0"), first = address("10.0.7.7"),
                      by_hand = address("10.0.8.8"), late = address("10.0.9.9");

    (void)state;
    neighbour_reference(lan->id, &gateway);
    assert_int_equal(neighbour_add_static(lan->id, &by_hand, mac_a), 0);
    make_stale(&first, mac_a);
    make_reachable(&host, mac_a);
    for (unsigned i = 0; i < NEIGHBOURS_MAX + 1000; i++) {
        many.bytes[1] = (uint8_t)(1 + (i >> 16));
        many.bytes[2] = (uint8_t)(i >> 8);
        many.bytes[3] = (uint8_t)i;
        neighbour_learn(lan->id, &many, mac_b, false, true, false, true);
    }
    assert_int_equal(next_hops_out, NEIGHBOURS_MAX + 1);
    assert_false(exists(&first)); /* the oldest STALE one */
    assert_true(exists(&gateway));
    assert_true(exists(&by_hand));
    EXPECT_STATE(&host, NEIGHBOUR_REACHABLE);
    need(&late, 1);
    EXPECT_STATE(&late, NEIGHBOUR_INCOMPLETE);
    pass(5000); /* each is looked at once a second, in bounded steps */
    assert_int_equal(count_of(NEIGHBOUR_STALE), NEIGHBOURS_MAX - 4);
    assert_int_equal(neighbour_flush(0), NEIGHBOURS_MAX - 1);
    assert_int_equal(next_hops_out, 3);
    assert_int_equal(neighbour_delete(lan->id, &by_hand), 0);
    neighbour_unreference(lan->id, &gateway);
}

/* ---- gateways ---- */

static void test_gateway_is_asked_at_once(void **state) {
    uint32_t id;

    (void)state;
    id = neighbour_reference(lan->id, &gateway);
    assert_int_not_equal(id, 0);
    EXPECT_STATE(&gateway, NEIGHBOUR_INCOMPLETE);
    assert_int_equal(asked.count, 1);
    assert_int_equal(neighbour_reference(lan->id, &gateway), id);
    assert_int_equal(view_of(&gateway).references, 2);
    neighbour_resolve(packet_to(&host, id, 9)); /* for somebody behind it */
    assert_int_equal(view_of(&gateway).held, 1);
    learn(&gateway, mac_a, true);
    assert_int_equal(released_count, 1);
    assert_false(released[0].meta.flags & PACKET_NEXT_HOP);
    neighbour_unreference(lan->id, &gateway);
    neighbour_unreference(lan->id, &gateway);
    assert_true(exists(&gateway)); /* a host like others now */
    assert_int_equal(view_of(&gateway).references, 0);
    neighbour_unreference(lan->id, &gateway);
}

static void test_gateway_is_kept_confirmed(void **state) {
    (void)state;
    neighbour_reference(lan->id, &gateway);
    learn(&gateway, mac_a, true);
    asked.count = asked.unicast = 0;
    for (unsigned i = 0; i < 1000; i++) {
        pass(100);
        assert_int_not_equal(view_of(&gateway).state, NEIGHBOUR_STALE);
        assert_int_equal(type_of(&gateway), NEXT_HOP_FORWARD);
        if (view_of(&gateway).state == NEIGHBOUR_PROBE)
            learn(&gateway, mac_a, true);
    }
    assert_in_range(asked.unicast, 2, 8); /* every 15 to 45 s */
    assert_int_equal(asked.count, asked.unicast);
    neighbour_unreference(lan->id, &gateway);
}

static void test_dead_gateway(void **state) {
    (void)state;
    uint32_t id = neighbour_reference(lan->id, &gateway);

    neighbour_resolve(packet_to(&host, id, 1));
    pass(3300);
    EXPECT_STATE(&gateway, NEIGHBOUR_FAILED);
    assert_int_equal(type_of(&gateway), NEXT_HOP_UNREACHABLE);
    assert_int_equal(released_count, 1);
    asked.count = 0;
    pass(10000);
    assert_in_range(asked.count, 8, 11);
    assert_int_equal(type_of(&gateway), NEXT_HOP_UNREACHABLE);
    assert_int_equal(released_count, 1);
    pass(100000);
    EXPECT_STATE(&gateway, NEIGHBOUR_FAILED);
    learn(&gateway, mac_a, true);
    EXPECT_STATE(&gateway, NEIGHBOUR_REACHABLE);
    assert_int_equal(type_of(&gateway), NEXT_HOP_FORWARD);
    neighbour_unreference(lan->id, &gateway);
}

static void test_unreferenced_dead_gateway_goes(void **state) {
    (void)state;
    neighbour_reference(lan->id, &gateway);
    pass(40000);
    neighbour_unreference(lan->id, &gateway);
    pass(2000);
    assert_false(exists(&gateway));
}

static void test_gateway_learnt_from_a_request_is_probed(void **state) {
    (void)state;
    neighbour_reference(lan->id, &gateway);
    learn(&gateway, mac_a, false);
    EXPECT_STATE(&gateway, NEIGHBOUR_DELAY);
    pass(5200);
    EXPECT_STATE(&gateway, NEIGHBOUR_PROBE);
    learn(&gateway, mac_a, true);
    /* Somebody claims its address: the old one is asked at once. */
    asked.count = asked.unicast = 0;
    neighbour_learn(lan->id, &gateway, mac_b, false, false, false, false);
    EXPECT_STATE(&gateway, NEIGHBOUR_PROBE);
    assert_int_equal(asked.unicast, 1);
    assert_memory_equal(asked.mac, mac_a, 6);
    neighbour_unreference(lan->id, &gateway);
}

static void test_gateway_with_a_vlan(void **state) {
    struct interface *vlan = make_interface(2, 20);
    struct ip_address far = address("172.16.0.2");
    const uint8_t *l2;
    uint32_t id;

    (void)state;
    add_address(vlan, "172.16.0.1/24", ADDRESS_VALID);
    set_up(vlan, true);
    id = neighbour_reference(vlan->id, &far);
    neighbour_learn(vlan->id, &far, mac_a, true, true, false, false);
    l2 = (const uint8_t *)&next_hop_get(id)->l2;
    assert_int_equal(next_hop_get(id)->tagged, 1);
    assert_int_equal(l2[15], 20);
    vlan->mtu = 1400;
    FAKE_TELL(changed, vlan)
    assert_int_equal(next_hop_get(id)->mtu, 1400);
    remove_interface(vlan);
    neighbour_unreference(2, &far);
}

/* ---- by hand ---- */

static void test_static(void **state) {
    struct ip_address off = address("192.0.2.1"), own = address("10.0.0.1");

    (void)state;
    assert_int_equal(neighbour_add_static(lan->id, &off, mac_a), -EINVAL);
    assert_int_equal(neighbour_add_static(lan->id, &own, mac_a), -EINVAL);
    assert_int_equal(neighbour_add_static(77, &host, mac_a), -EINVAL);
    need(&host, 1);
    assert_int_equal(neighbour_add_static(lan->id, &host, mac_a), 0);
    EXPECT_STATE(&host, NEIGHBOUR_STATIC);
    assert_int_equal(released_count, 1);
    assert_int_equal(type_of(&host), NEXT_HOP_FORWARD);
    assert_int_equal(route_to(&host), view_of(&host).next_hop);
    learn(&host, mac_b, true);
    assert_memory_equal(view_of(&host).mac, mac_a, 6);
    pass(25 * 60000);
    EXPECT_STATE(&host, NEIGHBOUR_STATIC);
    assert_int_equal(neighbour_flush(lan->id), 0);
    assert_int_equal(neighbour_add_static(lan->id, &host, mac_b), 0);
    assert_memory_equal(&next_hop_get(view_of(&host).next_hop)->l2, mac_b, 6);
    assert_int_equal(neighbour_delete(lan->id, &host), 0);
    assert_int_equal(neighbour_delete(lan->id, &host), -ENOENT);
    assert_int_equal(route_count, 0);
}

static void test_flush(void **state) {
    uint32_t id;

    (void)state;
    make_reachable(&host, mac_a);
    make_stale(&host6, mac_a);
    id = neighbour_reference(lan->id, &gateway);
    learn(&gateway, mac_a, true);
    assert_int_equal(neighbour_flush(99), 0);
    assert_int_equal(neighbour_flush(lan->id), 3);
    assert_false(exists(&host));
    assert_false(exists(&host6));
    EXPECT_STATE(&gateway, NEIGHBOUR_INCOMPLETE); /* asked anew */
    assert_int_equal(view_of(&gateway).next_hop, id);
    assert_false(view_of(&gateway).has_mac);
    neighbour_unreference(lan->id, &gateway);
}

/* ---- interfaces ---- */

static void test_interface_down_and_up(void **state) {
    struct ip_address by_hand = address("10.0.8.8");
    uint32_t id;

    (void)state;
    make_reachable(&host, mac_a);
    need(&host6, 1);
    id = neighbour_reference(lan->id, &gateway);
    learn(&gateway, mac_a, true);
    assert_int_equal(neighbour_add_static(lan->id, &by_hand, mac_a), 0);
    asked.count = 0;
    set_up(lan, false);
    assert_false(exists(&host));
    assert_false(exists(&host6));
    assert_int_equal(drops("neighbour", "interface_down"), 1);
    assert_int_equal(type_of(&gateway), NEXT_HOP_UNREACHABLE);
    assert_int_equal(route_count, 0);
    pass(10000);
    assert_int_equal(asked.count, 0);
    set_up(lan, true);
    EXPECT_STATE(&gateway, NEIGHBOUR_INCOMPLETE);
    assert_int_equal(view_of(&gateway).next_hop, id);
    assert_int_equal(asked.count, 1);
    assert_int_equal(route_to(&by_hand), view_of(&by_hand).next_hop);
    neighbour_unreference(lan->id, &gateway);
}

static void test_interface_goes_before_its_routes(void **state) {
    (void)state;
    uint32_t id = neighbour_reference(lan->id, &gateway);

    learn(&gateway, mac_a, true);
    remove_interface(lan);
    assert_int_equal(next_hop_get(id)->type, NEXT_HOP_UNREACHABLE);
    assert_true(next_hop_taken[id]);
    neighbour_unreference(1, &gateway);
    assert_false(next_hop_taken[id]);
}

static void test_prefix_goes(void **state) {
    struct ip_address by_hand = address("10.0.8.8");

    (void)state;
    make_reachable(&host, mac_a);
    make_reachable(&host6, mac_a);
    neighbour_reference(lan->id, &gateway);
    learn(&gateway, mac_a, true);
    assert_int_equal(neighbour_add_static(lan->id, &by_hand, mac_a), 0);
    assert_int_equal(route_count, 4);
    remove_address(lan, 0);
    assert_false(exists(&host));
    assert_true(exists(&host6));
    assert_true(exists(&gateway));
    assert_true(exists(&by_hand));
    assert_int_equal(route_count, 1);
    add_address(lan, "10.0.0.3/16", ADDRESS_VALID);
    assert_int_equal(route_to(&by_hand), view_of(&by_hand).next_hop);
    neighbour_unreference(lan->id, &gateway);
}

static void test_own_address_is_no_neighbour(void **state) {
    (void)state;
    make_reachable(&host, mac_a);
    add_address(lan, "10.0.0.2/8", ADDRESS_VALID);
    assert_false(exists(&host));
    learn(&host, mac_b, true);
    assert_false(exists(&host));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_packet_asks_and_waits),
        TEST(test_answer_resolves),
        TEST(test_unasked_answer_is_stale),
        TEST(test_three_questions_then_failed),
        TEST(test_queue_drops_the_oldest),
        TEST(test_all_queues_together_are_bounded),
        TEST(test_reachable_ends_as_stale),
        TEST(test_reachable_time_is_random),
        TEST(test_used_stale_is_probed),
        TEST(test_used_flag_of_another_life_does_not_count),
        TEST(test_delay_is_confirmed_only_by_an_answer),
        TEST(test_silent_probe_asks_everybody),
        TEST(test_host_that_moved_is_found),
        TEST(test_unused_stale_is_dropped),
        TEST(test_failed_is_asked_again_once_a_second),
        TEST(test_failed_is_forgotten),
        TEST(test_failed_learns),
        TEST(test_learning_makes_entries_only_on_demand),
        TEST(test_override),
        TEST(test_same_address_again_changes_nothing),
        TEST(test_late_answer_is_no_confirmation),
        TEST(test_router_flag),
        TEST(test_ipv6_host_has_a_route),
        TEST(test_link_local_has_no_route),
        TEST(test_drop_reasons),
        TEST(test_no_next_hop_left),
        TEST(test_without_room_in_the_rib_packets_still_arrive),
        TEST(test_on_link_route),
        TEST(test_scan_is_harmless),
        TEST(test_full_table),
        TEST(test_gateway_is_asked_at_once),
        TEST(test_gateway_is_kept_confirmed),
        TEST(test_dead_gateway),
        TEST(test_unreferenced_dead_gateway_goes),
        TEST(test_gateway_learnt_from_a_request_is_probed),
        TEST(test_gateway_with_a_vlan),
        TEST(test_static),
        TEST(test_flush),
        TEST(test_interface_down_and_up),
        TEST(test_interface_goes_before_its_routes),
        TEST(test_prefix_goes),
        TEST(test_own_address_is_no_neighbour),
    };

    fakes_start();
    if (neighbour_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
