/* Configurations and routes change under traffic: packets whose route stays are never lost. */
#include "harness.h"

/* --- traffic that goes on --- */

enum { BURST = 16 };

static unsigned sent, arrived, elsewhere;
static struct frame *flow4, *flow6;

/* A burst of both families goes from the LAN to the WAN, in the middle of whatever happens. */
static void traffic(void) {
    struct frame *found;

    for (unsigned i = 0; i < BURST; i++) {
        inject(LAN, i % 2 ? flow4 : flow6);
        sent++;
    }
    turn();
    while ((found = take(WAN)) != NULL) {
        bool ip = found->bytes[12] == 0x08 || found->bytes[12] == 0x86;
        bool ours = ip && frame_ip_offset(found) + 40 < found->length &&
                    (memcmp(found->bytes + IP, flow4->bytes + IP, 8) == 0 ||
                     memcmp(found->bytes + IP, flow6->bytes + IP, 7) == 0);

        arrived += ours;
        elsewhere += !ours;
    }
}

/* The workers get new pipelines, which must not happen while they are turned here. */
static void traffic_around_plans(void) {
    for (unsigned i = 0; i < BURST; i++) {
        inject(LAN, i % 2 ? flow4 : flow6);
        sent++;
    }
}

static void begin_traffic(void) {
    flow4 = udp4(.source = "192.168.1.10:1000", .destination = "203.0.113.1:53", .id = 0xbeef,
                 .size = 50);
    flow6 = udp6(.source = "[2001:db8:1::10]:1000", .destination = "[2001:db8:99::1]:53",
                 .flow_label = 0xbeef, .size = 50);
    sent = arrived = elsewhere = 0;
    harness_around_plan = traffic_around_plans;
}

#define nothing_was_lost()                                                            \
    do {                                                                              \
        harness_around_plan = NULL;                                                   \
        traffic();                                                                    \
        require(sent == arrived, "%u of %u packets were lost", sent - arrived, sent); \
        discard(ANYWHERE);                                                            \
    } while (0)

/* Much is different, but not the way from the LAN to the WAN. */
static const char *const other =
    "{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
    "  'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24', '192.168.5.1/24',"
    "          '2001:db8:1::1/64', '2001:db8:5::1/64']},"
    "  'lan.9': {'parent': 'lan', 'vlan': 9, 'addresses': ['192.168.9.1/24']},"
    "  'wan': {" WAN_PORT "," WAN_ADDRESSES ", 'mtu': 1400},"
    "  'isp': {" ISP_PORT "," ISP_ADDRESSES ", 'vrf': 'blue'}},"
    "'neighbours': [" ISP_NEIGHBOURS "," WAN_NEIGHBOURS "," LAN_NEIGHBOURS "],"
    "'routes': [{'prefix': '203.0.112.0/24', 'via': '198.51.100.2'},"
    "  {'prefix': '0.0.0.0/0', 'via': '100.64.4.2', 'vrf': 'blue'},"
    "  {'prefix': '203.0.114.0/24', 'blackhole': true}," DEFAULT_ROUTES "]," UNLIMITED "}";

CASE(a_hundred_applies_lose_nothing) {
    start(standard);
    begin_traffic();
    for (unsigned round = 0; round < 50; round++) {
        apply(other);
        traffic();
        apply(standard);
        traffic();
    }
    nothing_was_lost();
    forget_drops(); /* announcements of interfaces that went at once */
}

CASE(the_same_configuration_again_changes_nothing) {
    start(standard);
    begin_traffic();
    for (unsigned round = 0; round < 20; round++) {
        apply(standard);
        traffic();
    }
    nothing_was_lost();
    require(elsewhere == 0, "%u frames more were sent", elsewhere);
    expect_no_drops();
}

CASE(a_refused_configuration_changes_nothing) {
    start(standard);
    begin_traffic();
    for (unsigned round = 0; round < 5; round++) {
        apply_fails("{'interfaces': {'lan': {'device': 'net_ring_lan', 'mtu': 12}}}");
        traffic();
        apply_fails("{'interfaces': {}, 'routes': 7}");
        traffic();
        /* Only the driver notices this one, when the others are opened already. */
        apply_fails("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'dmz': {" DMZ_PORT
                    "}, 'tap': {'device': 'net_af_packet9,iface=nosuch0'}}," UNLIMITED "}");
        traffic();
    }
    nothing_was_lost();
}

CASE(a_configuration_that_is_not_confirmed_is_taken_back) {
    struct frame *frame = udp4(.source = "10.3.0.10:1", .destination = "192.168.1.10:2");

    start(standard);
    begin_traffic();
    rpc("config.apply", text("{'confirm_timeout': 30, 'config': %s}", other));
    traffic();
    inject(DMZ, frame); /* not an interface of this one */
    traffic();
    for (unsigned second = 0; second < 40; second++) {
        advance(1000);
        traffic();
    }
    nothing_was_lost();
    inject(DMZ, frame);
    expect(LAN, hop(frame)); /* the old frame was waiting at the port that nobody polled */
    inject(DMZ, frame);
    expect(LAN, hop(frame));
    forget_drops();
}

CASE(a_route_moves_to_another_next_hop) {
    const char *const gateways[] = {"198.51.100.2", "198.51.100.3"};

    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          "," WAN_ADDRESSES "}}, 'routes': [" DEFAULT_ROUTES "]," UNLIMITED "}");
    begin_traffic();
    for (unsigned round = 0; round < 40; round++) {
        apply(text("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
                   "," WAN_ADDRESSES "}}, 'neighbours': [" WAN_NEIGHBOURS ", {'interface': 'wan',"
                   "'address': '198.51.100.3', 'mac': '02:00:00:00:02:11'}], 'routes': ["
                   "{'prefix': '0.0.0.0/0', 'via': '%s'}, {'prefix': '::/0', 'via':"
                   "'2001:db8:2::2'}]," UNLIMITED "}",
                   gateways[round % 2]));
        traffic();
    }
    nothing_was_lost();
    forget_drops();
}

CASE(a_more_specific_route_comes_and_goes) {
    start(standard);
    begin_traffic();
    for (unsigned round = 0; round < 200; round++) {
        rpc("route.add", "{'routes': [{'prefix': '203.0.113.0/24', 'via': '198.51.100.2'},"
                         "{'prefix': '203.0.113.1/32', 'via': '198.51.100.2'},"
                         "{'prefix': '2001:db8:99::/48', 'via': '2001:db8:2::2'}]}");
        traffic();
        rpc("route.delete", "{'routes': [{'prefix': '203.0.113.0/24'},"
                            "{'prefix': '203.0.113.1/32'}, {'prefix': '2001:db8:99::/48'}]}");
        traffic();
    }
    nothing_was_lost();
    expect_no_drops();
}

/* Routes N.. as a request; all around, and over, the destination of the traffic. */
static const char *route_request(unsigned first, unsigned count, const char *via) {
    char *json = room_for(count * 90 + 100), *at = json;

    append(&at, "{'routes': [");
    for (unsigned i = first; i < first + count; i++)
        append(&at, "%s{'prefix': '%u.%u.%u.0/24'%s%s%s}", i > first ? "," : "", 201 + i / 65536,
               i / 256 % 256, i % 256, via ? ", 'via': '" : "", via ? via : "", via ? "'" : "");
    append(&at, "]}");
    return json;
}

CASE(a_hundred_thousand_routes_come_and_go) {
    enum { ROUTES = 100000, CHUNK = 2000 };

    start(standard);
    begin_traffic();
    for (unsigned first = 0; first < ROUTES; first += CHUNK) {
        /* 2 * 65536 + ... holds 203.0.113.0/24: most lead to the same next hop. */
        const char *request = route_request(100000 + first, CHUNK, "198.51.100.2");

        rpc("route.add", request);
        traffic();
    }
    for (unsigned first = 0; first < ROUTES; first += CHUNK) {
        const char *request = route_request(100000 + first, CHUNK, NULL);

        rpc("route.delete", request);
        traffic();
    }
    nothing_was_lost();
    expect_no_drops();
}

CASE(a_configuration_with_many_routes_is_replaced_by_another) {
    enum { ROUTES = 5000 };
    char *documents[2];

    for (unsigned d = 0; d < 2; d++) {
        char *at = documents[d] = room_for(ROUTES * 70 + 2000);

        append(&at, "{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
                    "," WAN_ADDRESSES "}, 'dmz': {" DMZ_PORT "," DMZ_ADDRESSES "}},"
                    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
                    "'routes': [" DEFAULT_ROUTES);
        for (unsigned i = 0; i < ROUTES; i++)
            append(&at, ",{'prefix': '202.%u.%u.0/24', 'via': '%s'}", i / 256 + d * 10, i % 256,
                   d ? "10.3.0.10" : "198.51.100.2");
        append(&at, "]," UNLIMITED "}");
    }
    start(documents[0]);
    begin_traffic();
    for (unsigned round = 1; round < 10; round++) {
        apply(documents[round % 2]);
        traffic();
    }
    nothing_was_lost();
    expect_no_drops();
}

CASE(paths_of_a_group_come_and_go) {
    unsigned left[2] = {0};

    start(standard);
    begin_traffic();
    harness_around_plan = NULL;
    for (unsigned round = 0; round < 100; round++) {
        rpc("route.add", "{'prefix': '203.0.0.0/16', 'via': ['198.51.100.2', '10.3.0.10']}");
        for (unsigned i = 0; i < BURST; i++)
            inject(LAN, udp4(.source = text("192.168.1.10:%u", 1 + i),
                             .destination = text("203.0.%u.1:53", round), .size = 40));
        turn();
        left[0] += discard(WAN);
        left[1] += discard(DMZ);
        rpc("route.add", round % 2 ? "{'prefix': '203.0.0.0/16', 'via': '198.51.100.2'}"
                                   : "{'prefix': '203.0.0.0/16', 'via': '10.3.0.10'}");
        for (unsigned i = 0; i < BURST; i++)
            inject(LAN, flow4);
        turn();
        left[0] += discard(WAN);
        left[1] += discard(DMZ);
        frames_free();
        begin_traffic();
        harness_around_plan = NULL;
    }
    require(left[0] + left[1] == 100 * 2 * BURST, "%u packets left", left[0] + left[1]);
    require(left[0] > 1000 && left[1] > 1000, "%u and %u", left[0], left[1]);
    rpc("route.delete", "{'prefix': '203.0.0.0/16'}");
}

CASE(counters_survive_a_reload) {
    struct counts before, after;

    start(standard);
    begin_traffic();
    harness_around_plan = NULL;
    traffic();
    before = counts_of("lan");
    apply(other);
    apply(standard);
    turn();
    after = counts_of("lan");
    require(before.rx_packets == BURST && after.rx_packets == BURST, "%lu, then %lu",
            before.rx_packets, after.rx_packets);
    discard(ANYWHERE);
    forget_drops();
}

HARNESS_MAIN()
