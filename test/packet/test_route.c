/*
 * What a route can say: forward, drop, tell, spread over several paths; and what follows from the
 * state of interfaces and neighbours.
 */
#include "harness.h"

#define ROUTER_LAN4 "192.168.1.1"
#define ROUTER_LAN6 "2001:db8:1::1"

static struct frame *from_lan4(const char *destination) {
    return udp4(.source = "192.168.1.10:1000", .destination = destination);
}

static struct frame *from_lan6(const char *destination) {
    return udp6(.source = "[2001:db8:1::10]:1000", .destination = destination);
}

/* Both families arrive on the LAN and leave by `place`. */
static void goes_to(enum place place, const char *four, const char *six) {
    inject(LAN, from_lan4(four));
    expect(place, hop(from_lan4(four)));
    inject(LAN, from_lan6(six));
    expect(place, hop(from_lan6(six)));
    expect_no_drops();
}

/* Both families are answered with this ICMP error. */
static void is_refused(const char *four, const char *six, unsigned code4, unsigned code6,
                       const char *reason) {
    inject(LAN, from_lan4(four));
    expect(LAN, icmp4_error(.source = ROUTER_LAN4, .destination = "192.168.1.10", .type = 3,
                            .code = code4, .about = from_lan4(four)));
    inject(LAN, from_lan6(six));
    expect(LAN, icmp6_error(.source = ROUTER_LAN6, .destination = "2001:db8:1::10", .type = 1,
                            .code = code6, .about = from_lan6(six)));
    expect_drop(reason, 2);
}

CASE(the_longest_prefix_wins) {
    start(standard_with_routes("{'prefix': '203.0.113.0/24', 'via': '10.3.0.10'},"
                               "{'prefix': '203.0.113.128/25', 'via': '198.51.100.2'},"
                               "{'prefix': '203.0.113.200/32', 'via': '10.3.0.10'},"
                               "{'prefix': '2001:db8:99::/48', 'via': '2001:db8:3::10'},"
                               "{'prefix': '2001:db8:99:8000::/49', 'via': '2001:db8:2::2'},"
                               "{'prefix': '2001:db8:99:8000::1/128', 'via': '2001:db8:3::10'}"));
    goes_to(WAN, "203.0.112.255", "2001:db8:98::1");
    goes_to(DMZ, "203.0.113.0", "2001:db8:99::");
    goes_to(DMZ, "203.0.113.127", "2001:db8:99:7fff::1");
    goes_to(WAN, "203.0.113.128", "2001:db8:99:8000::2");
    goes_to(DMZ, "203.0.113.200", "2001:db8:99:8000::1");
    goes_to(WAN, "203.0.113.201", "2001:db8:99:8000::");
}

CASE(every_prefix_length) {
    char routes[8000] = "", *at = routes;

    /* Length N leads to the DMZ when N is odd, to the WAN when it is even. */
    for (unsigned length = 8; length <= 32; length++) {
        uint32_t prefix = 0xaaaaaaaa & (uint32_t)(0xffffffff00000000 >> length);

        append(&at, "%s{'prefix': '%u.%u.%u.%u/%u', 'via': '%s'}", length > 8 ? "," : "",
               prefix >> 24, prefix >> 16 & 255, prefix >> 8 & 255, prefix & 255, length,
               length % 2 ? "10.3.0.10" : "198.51.100.2");
    }
    start(standard_with_routes(routes));
    for (unsigned length = 8; length <= 32; length++) {
        /* Alike in `length` bits, and no more. */
        uint32_t address = length < 32 ? 0xaaaaaaaa ^ (uint32_t)(0x80000000 >> length) : 0xaaaaaaaa;
        struct frame *frame = from_lan4(text("%u.%u.%u.%u", address >> 24, address >> 16 & 255,
                                             address >> 8 & 255, address & 255));

        inject(LAN, frame);
        expect(length % 2 ? DMZ : WAN, hop(frame));
    }
}

CASE(no_route) {
    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          "," WAN_ADDRESSES "}}, 'neighbours': [" LAN_NEIGHBOURS "]," UNLIMITED "}");
    is_refused("203.0.113.1", "2001:db8:99::1", 0, 0, "local.no_route");
}

CASE(unreachable_prohibit_blackhole) {
    start(standard_with_routes("{'prefix': '203.0.113.0/26', 'unreachable': true},"
                               "{'prefix': '203.0.113.64/26', 'prohibit': true},"
                               "{'prefix': '203.0.113.128/26', 'blackhole': true},"
                               "{'prefix': '2001:db8:99:1::/64', 'unreachable': true},"
                               "{'prefix': '2001:db8:99:2::/64', 'prohibit': true},"
                               "{'prefix': '2001:db8:99:3::/64', 'blackhole': true}"));
    is_refused("203.0.113.1", "2001:db8:99:1::1", 1, 3, "local.host_unreachable");
    is_refused("203.0.113.65", "2001:db8:99:2::1", 13, 1, "local.prohibited");
    inject(LAN, from_lan4("203.0.113.129"));
    inject(LAN, from_lan6("2001:db8:99:3::1"));
    expect_nothing(ANYWHERE);
    expect_drop("route.blackhole", 2);
    goes_to(WAN, "203.0.113.193", "2001:db8:99:4::1");
}

/* RFC 2644: never forwarded. RFC 1812 section 5.3.5.2: nor is the old form with zeroes. */
CASE(directed_broadcasts) {
    start(standard);
    inject(LAN, from_lan4("10.3.0.255"));
    inject(LAN, from_lan4("10.3.0.0"));
    inject(LAN, from_lan4("192.168.1.255"));
    expect_nothing(ANYWHERE);
    expect_drop("route.directed_broadcast", 3);
    inject(LAN, from_lan4("10.3.1.255"));
    expect(WAN, hop(from_lan4("10.3.1.255")));
}

CASE(point_to_point_prefixes_have_no_broadcast) {
    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          ", 'addresses': ['198.51.100.1/31', '2001:db8:2::1/127']}},"
          "'neighbours': [{'interface': 'wan', 'address': '198.51.100.0', 'mac': '" HOST_WAN "'},"
          "{'interface': 'wan', 'address': '2001:db8:2::', 'mac': '" HOST_WAN "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.0'},"
          "{'prefix': '::/0', 'via': '2001:db8:2::'}]," UNLIMITED "}");
    goes_to(WAN, "198.51.100.0", "2001:db8:2::");
    goes_to(WAN, "203.0.113.1", "2001:db8:99::1");
}

CASE(routes_through_an_interface_alone) {
    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          "," WAN_ADDRESSES "}}, 'routes': ["
          "{'prefix': '203.0.113.0/24', 'interface': 'wan'}," /* its hosts are on the link */
          "{'prefix': '2001:db8:99::/64', 'interface': 'wan'}]," UNLIMITED "}");
    inject(LAN, from_lan4("203.0.113.9"));
    expect(WAN, arp_request(.sender = "198.51.100.1", .sender_mac = ROUTER_WAN,
                            .target = "203.0.113.9"));
    inject(WAN, arp_reply(.sender = "203.0.113.9", .sender_mac = HOST_WAN, .target = "198.51.100.1",
                          .target_mac = ROUTER_WAN));
    expect(WAN, hop(from_lan4("203.0.113.9")));
    inject(LAN, from_lan6("2001:db8:99::9"));
    expect(WAN, neighbour_solicitation(.source = "2001:db8:2::1", .target = "2001:db8:99::9",
                                       .source_link = ROUTER_WAN));
    inject(WAN, neighbour_advertisement(.source = "2001:db8:99::9", .destination = "2001:db8:2::1",
                                        .target = "2001:db8:99::9", .flags = 0x60,
                                        .target_link = HOST_WAN));
    expect(WAN, hop(from_lan6("2001:db8:99::9")));
}

/* RFC 8950: an IPv4 prefix through an IPv6 neighbour, also by its link-local address. */
CASE(ipv4_through_an_ipv6_next_hop) {
    start(
        "{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
        ", 'addresses': ['2001:db8:2::1/64']}, 'dmz': {" DMZ_PORT
        ", 'addresses': ['2001:db8:3::1/64']}},"
        "'neighbours': [{'interface': 'wan', 'address': '2001:db8:2::2', 'mac': '" HOST_WAN "'},"
        "{'interface': 'dmz', 'address': 'fe80::10', 'mac': '" HOST_DMZ "'}," LAN_NEIGHBOURS "],"
        "'routes': [{'prefix': '0.0.0.0/0', 'via': '2001:db8:2::2'},"
        "{'prefix': '203.0.113.0/24', 'via': {'address': 'fe80::10', 'interface': 'dmz'}},"
        "{'prefix': '2001:db8:99::/48', 'via': {'address': 'fe80::10', 'interface': 'dmz'}}]," UNLIMITED
        "}");
    inject(LAN, from_lan4("198.18.0.1"));
    expect(WAN, hop(from_lan4("198.18.0.1")));
    goes_to(DMZ, "203.0.113.1", "2001:db8:99::1");
}

/* A router whose links have no IPv4 addresses says 192.0.0.8 of itself (RFC 7600). */
CASE(errors_without_an_ipv4_address) {
    struct frame *frame = udp4(.source = "10.9.9.9:1", .destination = "203.0.113.1:2", .ttl = 1);

    start("{'interfaces': {'wan': {" WAN_PORT ", 'addresses': ['2001:db8:2::1/64']}},"
          "'neighbours': [{'interface': 'wan', 'address': '2001:db8:2::2', 'mac': '" HOST_WAN "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '2001:db8:2::2'}]," UNLIMITED "}");
    inject(WAN, frame);
    expect(WAN, icmp4_error(.source = "192.0.0.8", .destination = "10.9.9.9", .type = 11,
                            .about = frame));
    expect_drop("local.time_exceeded", 1);
}

/* --- several paths --- */

#define ECMP_INTERFACES                                                                           \
    "'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT "," WAN_ADDRESSES \
    "}, 'dmz': {" DMZ_PORT "," DMZ_ADDRESSES "}, 'isp': {" ISP_PORT "," ISP_ADDRESSES "}},"       \
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "," ISP_NEIGHBOURS "],"

static const char *const three_paths =
    "{" ECMP_INTERFACES "'routes': ["
    "{'prefix': '0.0.0.0/0', 'via': ['198.51.100.2', '10.3.0.10', '100.64.4.2']},"
    "{'prefix': '::/0', 'via': ['2001:db8:2::2', '2001:db8:3::10', '2001:db8:4::2']}]," UNLIMITED
    "}";

/* Where the frame leaves; 0 when it does not. */
static enum place way_of(const struct frame *frame) {
    enum place way = ANYWHERE;

    inject(LAN, frame);
    turn();
    for (enum place place = LAN; place < PLACES; place++) {
        struct frame *found = take(place);

        if (!found)
            continue;
        require(way == ANYWHERE, "the frame left twice");
        way = place;
    }
    return way;
}

static struct frame *flow4(unsigned number) {
    return udp4(.source = text("192.168.1.10:%u", 1024 + number % 1000),
                .destination = text("203.%u.113.1:53", number / 1000 % 256), .size = 1);
}

static struct frame *flow6(unsigned number) {
    return udp6(.source = text("[2001:db8:1::10]:%u", 1024 + number % 1000),
                .destination = text("[2001:db8:99::%x]:53", number / 1000), .size = 1);
}

/* How many of `flows` flows go where. */
static void spread(struct frame *(*flow)(unsigned), unsigned flows, unsigned count[PLACES]) {
    memset(count, 0, PLACES * sizeof(count[0]));
    for (unsigned number = 0; number < flows; number++) {
        count[way_of(flow(number))]++;
        if (number % 256 == 255)
            frames_free();
    }
}

CASE(flows_are_spread_evenly) {
    enum { FLOWS = 6000 };
    struct frame *(*const kinds[])(unsigned) = {flow4, flow6};
    unsigned count[PLACES];

    start(three_paths);
    for (unsigned kind = 0; kind < 2; kind++) {
        spread(kinds[kind], FLOWS, count);
        require(count[ANYWHERE] == 0, "%u frames were lost", count[ANYWHERE]);
        for (enum place place = WAN; place <= ISP; place++)
            require(count[place] > FLOWS / 3 * 85 / 100 && count[place] < FLOWS / 3 * 115 / 100,
                    "%u of %u flows left by port %u", count[place], FLOWS, place);
    }
}

CASE(a_flow_stays_on_its_path) {
    start(three_paths);
    for (unsigned number = 0; number < 50; number++) {
        enum place way = way_of(flow4(number));

        for (unsigned again = 0; again < 5; again++)
            require(way_of(flow4(number)) == way, "a flow went by two ways");
        /* What else the packets of a flow differ in does not matter. */
        require(way_of(udp4(.source = text("192.168.1.10:%u", 1024 + number),
                            .destination = "203.0.113.1:53", .ttl = 3 + number, .id = number,
                            .tos = number, .size = 500)) == way,
                "a flow went by two ways");
    }
}

CASE(fragments_of_a_packet_stay_together) {
    struct frame *whole;

    start(three_paths);
    for (unsigned number = 0; number < 50; number++) {
        enum place way;

        whole = udp4(.source = "192.168.1.10:1", .destination = text("203.0.%u.1:2", number),
                     .size = 3000);
        way = way_of(fragment4(whole, 0, 1480));
        require(way_of(fragment4(whole, 1480, 1480)) == way, "a fragment went another way");
        require(way_of(fragment4(whole, 2960, 1480)) == way, "a fragment went another way");
    }
}

CASE(fragments_that_the_router_makes_stay_together) {
    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          ", 'mtu': 576, 'addresses': ['198.51.100.1/24']}, 'dmz': {" DMZ_PORT
          ", 'mtu': 576, 'addresses': ['10.3.0.1/24']}}, 'neighbours': ["
          "{'interface': 'wan', 'address': '198.51.100.2', 'mac': '" HOST_WAN "'},"
          "{'interface': 'dmz', 'address': '10.3.0.10', 'mac': '" HOST_DMZ "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': ['198.51.100.2', '10.3.0.10']}]," UNLIMITED
          "}");
    for (unsigned number = 0; number < 60; number++) {
        unsigned left[2];

        inject(LAN, udp4(.source = text("192.168.1.10:%u", 1 + number),
                         .destination = "203.0.113.1:53", .size = 1200));
        turn();
        left[0] = discard(WAN);
        left[1] = discard(DMZ);
        require(left[0] + left[1] == 3 && (left[0] == 0 || left[1] == 0),
                "%u fragments left by one port and %u by the other", left[0], left[1]);
    }
}

CASE(weights_are_respected) {
    enum { FLOWS = 8000 };
    unsigned count[PLACES];

    start("{" ECMP_INTERFACES "'routes': [{'prefix': '0.0.0.0/0', 'via': ["
          "{'address': '198.51.100.2', 'weight': 5}, {'address': '10.3.0.10', 'weight': 2},"
          "{'address': '100.64.4.2', 'weight': 1}]}]," UNLIMITED "}");
    spread(flow4, FLOWS, count);
    require(count[ANYWHERE] == 0, "%u frames were lost", count[ANYWHERE]);
    require(count[WAN] > 4500 && count[WAN] < 5500 && count[DMZ] > 1700 && count[DMZ] < 2300 &&
                count[ISP] > 800 && count[ISP] < 1200,
            "%u %u %u of 8000 flows for weights 5 2 1", count[WAN], count[DMZ], count[ISP]);
}

/* RFC 2992: when a member goes only its own flows move, and when it returns some move to it, but
 * none between the others. */
CASE(a_member_that_goes_takes_only_its_own_flows_along) {
    enum { FLOWS = 600 };
    enum place before[FLOWS], between[FLOWS];
    unsigned returned = 0;

    start(three_paths);
    for (unsigned number = 0; number < FLOWS; number++)
        before[number] = way_of(flow4(number));
    rpc("interface.set", "{'name': 'dmz', 'admin': 'down'}");
    for (unsigned number = 0; number < FLOWS; number++) {
        enum place way = way_of(flow4(number));

        require(way == WAN || way == ISP, "a flow goes to port %u", way);
        require(way == before[number] || before[number] == DMZ, "flow %u moved", number);
        between[number] = way;
    }
    rpc("interface.set", "{'name': 'dmz', 'admin': 'up'}");
    advance(3000);
    discard(ANYWHERE);
    for (unsigned number = 0; number < FLOWS; number++) {
        enum place way = way_of(flow4(number));

        require(way == between[number] || way == DMZ, "flow %u moved", number);
        returned += way == DMZ;
    }
    require(returned > FLOWS / 5 && returned < FLOWS / 2, "%u flows returned", returned);
}

CASE(a_member_whose_neighbour_is_silent_tells_so) {
    unsigned lost = 0;

    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          "," WAN_ADDRESSES "}, 'dmz': {" DMZ_PORT "," DMZ_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': ['198.51.100.2', '10.3.0.10']}]," UNLIMITED
          "}");
    for (unsigned number = 0; number < 100; number++) {
        enum place way = way_of(flow4(number));

        require(way == WAN || way == LAN, "a frame left by port %u", way);
        lost += way == LAN; /* host unreachable */
    }
    expect_drop("local.host_unreachable", lost);
    require(lost < 80, "%u of 100 flows have no path", lost);
    discard(DMZ); /* the questions for the silent one */
}

/* --- interfaces up and down --- */

CASE(a_route_through_an_interface_that_is_down_gives_way) {
    start(standard_with_routes("{'prefix': '203.0.112.0/23', 'via': '198.51.100.2'},"
                               "{'prefix': '203.0.113.0/24', 'via': '10.3.0.10'},"
                               "{'prefix': '2001:db8:98::/47', 'via': '2001:db8:2::2'},"
                               "{'prefix': '2001:db8:99::/48', 'via': '2001:db8:3::10'}"));
    goes_to(DMZ, "203.0.113.1", "2001:db8:99::1");
    rpc("interface.set", "{'name': 'dmz', 'admin': 'down'}");
    goes_to(WAN, "203.0.113.1", "2001:db8:99::1");
    rpc("interface.set", "{'name': 'dmz', 'admin': 'up'}");
    advance(12000);
    discard(ANYWHERE);
    goes_to(DMZ, "203.0.113.1", "2001:db8:99::1");
}

CASE(the_connected_network_of_an_interface_that_is_down_is_gone) {
    start(standard);
    rpc("interface.set", "{'name': 'dmz', 'admin': 'down'}");
    goes_to(WAN, "10.3.0.10", "2001:db8:3::10"); /* by the default routes */
    rpc("interface.set", "{'name': 'wan', 'admin': 'down'}");
    is_refused("10.3.0.10", "2001:db8:3::10", 0, 0, "local.no_route");
    rpc("interface.set", "{'name': 'wan', 'admin': 'up'}");
    rpc("interface.set", "{'name': 'dmz', 'admin': 'up'}");
    advance(12000);
    discard(ANYWHERE);
    goes_to(DMZ, "10.3.0.10", "2001:db8:3::10");
}

CASE(a_disabled_interface_in_the_configuration) {
    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "}, 'wan': {" WAN_PORT
          "," WAN_ADDRESSES ", 'enabled': false}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "], 'routes': [" DEFAULT_ROUTES
          "]," UNLIMITED "}");
    is_refused("203.0.113.1", "2001:db8:99::1", 0, 0, "local.no_route");
    inject(WAN, udp4(.source = "203.0.113.1:1", .destination = "192.168.1.10:2"));
    expect_drop("parse.interface_down", 1);
}

/* --- routes by RPC --- */

CASE(routes_that_come_and_go_by_rpc) {
    start(standard);
    goes_to(WAN, "203.0.113.1", "2001:db8:99::1");
    rpc("route.add", "{'routes': [{'prefix': '203.0.113.0/24', 'via': '10.3.0.10'},"
                     "{'prefix': '2001:db8:99::/48', 'via': '2001:db8:3::10'}]}");
    goes_to(DMZ, "203.0.113.1", "2001:db8:99::1");
    rpc("route.delete",
        "{'routes': [{'prefix': '203.0.113.0/24'}, {'prefix': '2001:db8:99::/48'}]}");
    goes_to(WAN, "203.0.113.1", "2001:db8:99::1");
}

CASE(the_configuration_is_preferred_to_rpc) {
    start(standard_with_routes("{'prefix': '203.0.113.0/24', 'via': '198.51.100.2'}"));
    rpc("route.add", "{'prefix': '203.0.113.0/24', 'via': '10.3.0.10'}");
    inject(LAN, from_lan4("203.0.113.1"));
    expect(WAN, hop(from_lan4("203.0.113.1")));
    apply(standard);
    inject(LAN, from_lan4("203.0.113.1"));
    expect(DMZ, hop(from_lan4("203.0.113.1")));
    rpc("route.delete", "{'prefix': '203.0.113.0/24'}");
    inject(LAN, from_lan4("203.0.113.1"));
    expect(WAN, hop(from_lan4("203.0.113.1")));
}

CASE(a_gateway_that_is_not_on_link_is_waited_for) {
    start(standard_with_routes(
        "{'prefix': '203.0.113.0/24', 'via': '100.64.4.2', 'interface': 'wan'}"));
    rpc("route.add", "{'prefix': '203.0.114.0/24', 'via': '100.64.4.2'}");
    inject(LAN, from_lan4("203.0.114.1")); /* the default route goes on */
    expect(WAN, hop(from_lan4("203.0.114.1")));
    apply("{" ECMP_INTERFACES "'routes': [" DEFAULT_ROUTES "]," UNLIMITED "}");
    advance(5000);
    discard(ANYWHERE);
    forget_drops();
    inject(LAN, from_lan4("203.0.114.1"));
    expect(ISP, hop(from_lan4("203.0.114.1")));
    rpc("route.delete", "{'prefix': '203.0.114.0/24'}");
}

HARNESS_MAIN()
