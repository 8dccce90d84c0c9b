/* The reverse path check (RFC 3704): packets whose source lies elsewhere, or nowhere. */
#include "harness.h"
#include "interface/interface.h"

#define SERVER4 "203.0.113.1:80"
#define SERVER6 "[2001:db8:99::1]:80"
#define STRICT ", 'reverse_path': 'strict'"
#define LOOSE ", 'reverse_path': 'loose'"
#define OFF ", 'reverse_path': 'off'"
#define DROP "route.reverse_path"

/* The usual network with what the interfaces are to do, and the routes "{...}, {...}". */
static const char *network(const char *lan, const char *wan, const char *routes) {
    return text("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "%s},"
                "'wan': {" WAN_PORT "," WAN_ADDRESSES "%s},"
                "'dmz': {" DMZ_PORT "," DMZ_ADDRESSES "}},"
                "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
                "'routes': [%s]," UNLIMITED "}",
                lan, wan, routes);
}

static const char *with_default_routes(const char *lan, const char *wan) {
    return network(lan, wan, DEFAULT_ROUTES);
}

static struct frame *four(const char *source, const char *destination) {
    return udp4(.source = source, .destination = destination);
}

static struct frame *six(const char *source, const char *destination) {
    return udp6(.source = source, .destination = destination);
}

/* From this source to the DMZ: passes, or is dropped. */
static void passes4(enum place from, const char *source) {
    inject(from, four(source, "10.3.0.10:2"));
    expect(DMZ, hop(four(source, "10.3.0.10:2")));
    expect_no_drops();
}

static void passes6(enum place from, const char *source) {
    inject(from, six(source, "[2001:db8:3::10]:2"));
    expect(DMZ, hop(six(source, "[2001:db8:3::10]:2")));
    expect_no_drops();
}

static void refused4(enum place from, const char *source) {
    inject(from, four(source, "10.3.0.10:2"));
    expect_nothing(ANYWHERE);
    expect_drop(DROP, 1);
}

static void refused6(enum place from, const char *source) {
    inject(from, six(source, "[2001:db8:3::10]:2"));
    expect_nothing(ANYWHERE);
    expect_drop(DROP, 1);
}

/* --- strict --- */

CASE(strict_wants_the_same_interface) {
    start(with_default_routes(STRICT, ""));
    passes4(LAN, "192.168.1.10:1");
    passes6(LAN, "[2001:db8:1::10]:1");
    refused4(LAN, "10.3.0.10:1"); /* connected elsewhere */
    refused6(LAN, "[2001:db8:3::10]:1");
    refused4(LAN, "203.0.113.1:1"); /* the default route goes elsewhere */
    refused6(LAN, "[2001:db8:99::1]:1");
    passes4(WAN, "192.168.1.10:1"); /* nobody asks there */
    passes6(WAN, "[2001:db8:1::10]:1");
}

CASE(strict_accepts_the_default_route) {
    start(with_default_routes("", STRICT));
    passes4(WAN, "203.0.113.1:1");
    passes6(WAN, "[2001:db8:99::1]:1");
    refused4(WAN, "192.168.1.10:1");
    refused6(WAN, "[2001:db8:1::10]:1");
}

CASE(strict_follows_routes) {
    start(network(STRICT, STRICT,
                  DEFAULT_ROUTES ",{'prefix': '10.20.0.0/16', 'via': '192.168.1.10'},"
                                 "{'prefix': '10.20.30.0/24', 'via': '10.3.0.10'},"
                                 "{'prefix': '2001:db8:20::/48', 'via': '2001:db8:1::10'},"
                                 "{'prefix': '2001:db8:20:30::/64', 'via': '2001:db8:3::10'}"));
    passes4(LAN, "10.20.0.1:1");
    passes6(LAN, "[2001:db8:20::1]:1");
    refused4(LAN, "10.20.30.1:1");
    refused6(LAN, "[2001:db8:20:30::1]:1");
    refused4(WAN, "10.20.0.1:1");
    refused6(WAN, "[2001:db8:20::1]:1");
    rpc("route.add", "{'prefix': '10.20.30.128/25', 'via': '192.168.1.10'}");
    passes4(LAN, "10.20.30.129:1");
    refused4(LAN, "10.20.30.1:1");
}

/* A neighbour does not have to be known to be there. */
CASE(connected_sources_without_a_neighbour) {
    start(with_default_routes(STRICT, ""));
    passes4(LAN, "192.168.1.77:1");
    passes6(LAN, "[2001:db8:1::77]:1");
}

CASE(a_neighbour_that_did_not_answer) {
    start(with_default_routes(STRICT, ""));
    inject(DMZ, four("10.3.0.10:1", "192.168.1.77:2"));
    inject(DMZ, six("[2001:db8:3::10]:1", "[2001:db8:1::77]:2"));
    advance(4000);
    discard(ANYWHERE); /* requests, and ICMP errors in the end */
    forget_drops();
    inject(DMZ, four("10.3.0.10:1", "192.168.1.77:2"));
    inject(DMZ, six("[2001:db8:3::10]:1", "[2001:db8:1::77]:2"));
    turn();
    discard(ANYWHERE);
    forget_drops();
    passes4(LAN, "192.168.1.77:1");
    passes6(LAN, "[2001:db8:1::77]:1");
}

/* --- loose --- */

CASE(loose_wants_any_route) {
    start(network(LOOSE, "",
                  "{'prefix': '203.0.113.0/24', 'via': '198.51.100.2'},"
                  "{'prefix': '2001:db8:99::/64', 'via': '2001:db8:2::2'}"));
    passes4(LAN, "192.168.1.10:1");
    passes6(LAN, "[2001:db8:1::10]:1");
    passes4(LAN, "198.51.100.2:1");
    passes6(LAN, "[2001:db8:2::2]:1");
    passes4(LAN, "203.0.113.1:1");
    passes6(LAN, "[2001:db8:99::1]:1");
    refused4(LAN, "203.0.114.1:1");
    refused6(LAN, "[2001:db8:98::1]:1");
    passes4(WAN, "203.0.114.1:1");
    passes6(WAN, "[2001:db8:98::1]:1");
}

CASE(loose_accepts_the_default_route) {
    start(with_default_routes(LOOSE, ""));
    passes4(LAN, "203.0.113.1:1");
    passes6(LAN, "[2001:db8:99::1]:1");
}

/* --- neither way --- */

CASE(routes_that_lead_nowhere) {
    static const char routes[] =
        DEFAULT_ROUTES ",{'prefix': '10.20.0.0/16', 'blackhole': true},"
                       "{'prefix': '10.21.0.0/16', 'unreachable': true},"
                       "{'prefix': '10.22.0.0/16', 'prohibit': true},"
                       "{'prefix': '2001:db8:20::/48', 'blackhole': true},"
                       "{'prefix': '2001:db8:21::/48', 'unreachable': true},"
                       "{'prefix': '2001:db8:22::/48', 'prohibit': true}";

    for (unsigned strict = 0; strict < 2; strict++) {
        if (strict)
            apply(network("", STRICT, routes));
        else
            start(network("", LOOSE, routes));
        for (unsigned i = 20; i < 23; i++) {
            refused4(WAN, text("10.%u.0.1:1", i));
            refused6(WAN, text("[2001:db8:%u::1]:1", i));
        }
        passes4(WAN, "10.23.0.1:1");
        passes6(WAN, "[2001:db8:23::1]:1");
    }
}

CASE(addresses_of_the_router_and_of_nobody) {
    for (unsigned strict = 0; strict < 2; strict++) {
        if (strict)
            apply(with_default_routes(STRICT, STRICT));
        else
            start(with_default_routes(LOOSE, LOOSE));
        refused4(LAN, "192.168.1.1:1");
        refused4(LAN, "198.51.100.1:1");
        refused4(WAN, "198.51.100.1:1");
        refused6(LAN, "[2001:db8:1::1]:1");
        refused6(WAN, "[2001:db8:2::1]:1");
        refused4(LAN, "192.168.1.255:1"); /* broadcast */
        refused4(LAN, "192.168.1.0:1");
        refused6(LAN, "[::ffff:192.168.1.10]:1");
    }
}

CASE(off_is_the_default) {
    start(with_default_routes("", OFF));
    passes4(LAN, "10.3.0.10:1");
    passes4(WAN, "10.3.0.10:1");
    passes4(LAN, "192.168.1.1:1");
    passes6(LAN, "[2001:db8:3::10]:1");
    require(!strstr(rpc("interface.list", "{}"), "strict"), "somebody checks");
}

CASE(switched_on_and_off) {
    start(with_default_routes("", ""));
    for (unsigned round = 0; round < 3; round++) {
        passes4(LAN, "10.3.0.10:1");
        apply(with_default_routes(STRICT, ""));
        require(strstr(rpc("interface.list", "{}"), "'reverse_path':'strict'"), "it is not shown");
        refused4(LAN, "10.3.0.10:1");
        apply(with_default_routes(LOOSE, ""));
        require(strstr(rpc("interface.list", "{}"), "'reverse_path':'loose'"), "it is not shown");
        passes4(LAN, "10.3.0.10:1");
        refused4(LAN, "192.168.1.1:1");
        apply(with_default_routes("", ""));
    }
}

/* --- what needs no way back --- */

CASE(a_host_without_an_address) {
    start(with_default_routes(STRICT, STRICT));
    inject(LAN, ether(four("0.0.0.0:68", "255.255.255.255:67"), BROADCAST, HOST_LAN));
    expect_nothing(ANYWHERE);
    require(drops_so_far(DROP) == 0, "a DHCP request was refused");
    forget_drops();
    /* Duplicate address detection of another host for our address. */
    inject(LAN, neighbour_solicitation(.source = "::", .target = "2001:db8:1::1"));
    expect(LAN, neighbour_advertisement(.source = "2001:db8:1::1", .destination = "ff02::1",
                                        .target = "2001:db8:1::1", .flags = 0xa0,
                                        .target_link = ROUTER_LAN));
    expect_no_drops();
}

/* Linux behind an interface without an address asks for one (RFC 2131). */
CASE(a_dhcp_answer) {
    struct frame *offer = four("203.0.113.67:67", "203.0.113.99:68");

    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "},"
          "'wan': {" WAN_PORT STRICT "}}," UNLIMITED "}");
    inject(WAN, offer);
    expect_nothing(ANYWHERE);
    expect_drop(DROP, 1); /* nobody there asks */
    interface_set_twin_working(interface_by_name("wan"), true);
    inject(WAN, offer);
    inject(WAN, four("203.0.113.67:67", "203.0.113.99:69"));
    expect_nothing(ANYWHERE);
    require(drops_so_far(DROP) == 1, "the answer was refused, or something else was not");
    forget_drops();
    interface_set_twin_working(interface_by_name("wan"), false);
}

CASE(link_local_sources) {
    const char *host = link_local_of(HOST_LAN), *router = link_local_of(ROUTER_LAN);
    struct frame *far = six(text("[%s]:1", host), "[2001:db8:3::10]:2");

    start(with_default_routes(STRICT, STRICT));
    inject(LAN, ether(icmp6_echo(.source = host, .destination = router), ROUTER_LAN, HOST_LAN));
    turn();
    discard(LAN); /* the neighbour is looked for, and the answer waits */
    expect_no_drops();
    inject(LAN, far);
    expect_nothing(ANYWHERE);
    expect_drop("route.link_local_source", 1);
}

/* --- for the router itself --- */

CASE(packets_for_the_router) {
    start(with_default_routes(STRICT, STRICT));
    inject(LAN, icmp4_echo(.source = "192.168.1.10", .destination = "198.51.100.1"));
    expect(LAN, icmp4_echo_reply(.source = "198.51.100.1", .destination = "192.168.1.10"));
    inject(LAN, icmp4_echo(.source = "10.3.0.10", .destination = "192.168.1.1"));
    inject(LAN, icmp6_echo(.source = "2001:db8:3::10", .destination = "2001:db8:1::1"));
    expect_nothing(ANYWHERE);
    expect_drop(DROP, 2);
    inject(LAN, ether(four("10.3.0.10:1", "224.0.0.5:2"), "01:00:5e:00:00:05", HOST_LAN));
    inject(LAN, ether(four("10.3.0.10:1", "192.168.1.255:2"), BROADCAST, HOST_LAN));
    expect_nothing(ANYWHERE);
    expect_drop(DROP, 2);
}

/* No errors about packets of forged sources either. */
CASE(before_errors) {
    start(network(STRICT, "", "{'prefix': '203.0.113.0/24', 'unreachable': true}"));
    inject(LAN, four("10.3.0.10:1", SERVER4));
    inject(LAN, udp4(.source = "10.3.0.10:1", .destination = "198.51.100.2:2", .ttl = 1));
    inject(LAN, four("10.3.0.10:1", "172.16.0.1:1"));
    expect_nothing(ANYWHERE);
    expect_drop(DROP, 3);
}

/* --- several paths --- */

CASE(each_member_of_a_group) {
    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES STRICT "},"
          "'wan': {" WAN_PORT "," WAN_ADDRESSES STRICT "},"
          "'isp': {" ISP_PORT "," ISP_ADDRESSES STRICT "}, 'dmz': {" DMZ_PORT "," DMZ_ADDRESSES
          "}}, 'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS
          "," ISP_NEIGHBOURS "],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': [{'address': '198.51.100.2', 'weight': 255},"
          "{'address': '100.64.4.2', 'weight': 1}]},"
          "{'prefix': '::/0', 'via': ['2001:db8:2::2', '2001:db8:4::2']}]," UNLIMITED "}");
    for (unsigned i = 0; i < 32; i++) {
        passes4(WAN, text("203.0.113.%u:1", i));
        passes4(ISP, text("203.0.113.%u:1", i));
        passes6(WAN, text("[2001:db8:99::%x]:1", i + 1));
        passes6(ISP, text("[2001:db8:99::%x]:1", i + 1));
    }
    refused4(LAN, "203.0.113.1:1");
    refused6(LAN, "[2001:db8:99::1]:1");
}

CASE(a_group_is_a_route) {
    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES LOOSE "},"
          "'wan': {" WAN_PORT "," WAN_ADDRESSES "}, 'isp': {" ISP_PORT "," ISP_ADDRESSES
          "}, 'dmz': {" DMZ_PORT "," DMZ_ADDRESSES "}},"
          "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "," ISP_NEIGHBOURS
          "], 'routes': [{'prefix': '203.0.113.0/24', 'via': ['198.51.100.2', '100.64.4.2']},"
          "{'prefix': '2001:db8:99::/64', 'via': ['2001:db8:2::2', '2001:db8:4::2']}]," UNLIMITED
          "}");
    passes4(LAN, "203.0.113.1:1");
    passes6(LAN, "[2001:db8:99::1]:1");
    refused4(LAN, "203.0.114.1:1");
}

/* --- VRFs and VLANs --- */

CASE(the_vrf_of_the_interface) {
    static const char *const modes[] = {STRICT, LOOSE};

    for (unsigned i = 0; i < 2; i++) {
        const char *json =
            text("{'vrfs': {'blue': {'table': 100}}, 'interfaces': {"
                 "'lan': {" LAN_PORT ", 'addresses': ['10.0.1.1/24', '2001:db8:1::1/64']%s},"
                 "'wan': {" WAN_PORT ", 'addresses': ['10.0.2.1/24', '2001:db8:2::1/64']},"
                 "'dmz': {" DMZ_PORT ", 'vrf': 'blue', 'addresses': ['10.0.3.1/24',"
                 "'2001:db8:3::1/64']%s},"
                 "'isp': {" ISP_PORT ", 'vrf': 'blue', 'addresses': ['10.0.2.1/24',"
                 "'2001:db8:2::1/64']}}, 'neighbours': ["
                 "{'interface': 'wan', 'address': '10.0.2.10', 'mac': '" HOST_WAN "'},"
                 "{'interface': 'wan', 'address': '2001:db8:2::10', 'mac': '" HOST_WAN "'},"
                 "{'interface': 'isp', 'address': '10.0.2.10', 'mac': '" HOST_ISP "'},"
                 "{'interface': 'isp', 'address': '2001:db8:2::10', 'mac': '" HOST_ISP
                 "'}]," UNLIMITED "}",
                 modes[i], modes[i]);

        if (i)
            apply(json);
        else
            start(json);
        for (unsigned blue = 0; blue < 2; blue++) {
            enum place in = blue ? DMZ : LAN, out = blue ? ISP : WAN;

            for (unsigned source = 1; source <= 3; source += 2) {
                bool right = source == (blue ? 3 : 1);
                struct frame *frame = four(text("10.0.%u.10:1", source), "10.0.2.10:2");
                struct frame *frame6 =
                    six(text("[2001:db8:%u::10]:1", source), "[2001:db8:2::10]:2");

                inject(in, frame);
                inject(in, frame6);
                if (right) {
                    expect(out, hop(frame));
                    expect(out, hop(frame6));
                }
                expect_nothing(ANYWHERE);
                if (!right)
                    expect_drop(DROP, 2);
            }
        }
    }
}

CASE(vlans_of_one_port_in_one_burst) {
    unsigned refused = 0;

    start("{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES "},"
          "'strict': {'parent': 'lan', 'vlan': 10, 'addresses': ['192.168.10.1/24',"
          "'2001:db8:10::1/64']" STRICT "},"
          "'loose': {'parent': 'lan', 'vlan': 20, 'addresses': ['192.168.20.1/24',"
          "'2001:db8:20::1/64']" LOOSE "},"
          "'dmz': {" DMZ_PORT "," DMZ_ADDRESSES "}}, 'neighbours': [" DMZ_NEIGHBOURS "]," UNLIMITED
          "}");
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 60; i++) {
            static const unsigned tags[] = {0, 10, 20};
            static const char *const sources[] = {"10", "20", "99"};
            unsigned tag = tags[i % 3], source = i / 3 % 3;
            struct frame *frame =
                i / 9 % 2 ? six(text("[2001:db8:%s::10]:1", sources[source]), "[2001:db8:3::10]:2")
                          : four(text("192.168.%s.10:1", sources[source]), "10.3.0.10:2");
            bool right = tag == 0 || (tag == 10 ? source == 0 : source != 2);

            if (round == 0)
                inject(LAN, tag ? vlan(tag, frame) : frame);
            else if (right)
                expect(DMZ, hop(frame));
            refused += round && !right;
        }
    }
    expect_nothing(ANYWHERE);
    expect_drop(DROP, refused);
}

/* --- bursts --- */

CASE(some_of_a_burst) {
    start(with_default_routes(STRICT, ""));
    for (unsigned family = 0; family < 2; family++) {
        for (unsigned round = 0; round < 2; round++) {
            for (unsigned i = 0; i < 64; i++) {
                bool forged = i % 5 == 0;
                struct frame *frame =
                    family ? six(text("[2001:db8:%u::10]:%u", forged ? 3 : 1, i + 1), SERVER6)
                           : four(text("%s:%u", forged ? "10.3.0.10" : "192.168.1.10", i + 1),
                                  SERVER4);

                if (round == 0)
                    inject(LAN, frame);
                else if (!forged)
                    expect(WAN, hop(frame));
            }
        }
        expect_nothing(ANYWHERE);
        expect_drop(DROP, 13);
    }
}

CASE(a_whole_burst) {
    start(with_default_routes(STRICT, ""));
    for (unsigned i = 0; i < 64; i++)
        inject(LAN, four("10.3.0.10:1", SERVER4));
    expect_nothing(ANYWHERE);
    expect_drop(DROP, 64);
    for (unsigned i = 0; i < 64; i++)
        inject(LAN, four("192.168.1.10:1", SERVER4));
    for (unsigned i = 0; i < 64; i++)
        expect(WAN, hop(four("192.168.1.10:1", SERVER4)));
    expect_no_drops();
}

CASE(fragments) {
    struct frame *right = udp4(.source = "192.168.1.10:1", .destination = SERVER4, .size = 1000);
    struct frame *forged = udp4(.source = "10.3.0.10:1", .destination = SERVER4, .size = 1000);

    start(with_default_routes(STRICT, ""));
    for (unsigned offset = 0; offset < 1008; offset += 504) {
        inject(LAN, fragment4(right, offset, 504));
        expect(WAN, hop(fragment4(right, offset, 504)));
        inject(LAN, fragment4(forged, offset, 504));
    }
    expect_nothing(ANYWHERE);
    expect_drop(DROP, 2);
}

/* --- with translation --- */

static const char *const translated =
    "{'interfaces': {'lan': {" LAN_PORT "," LAN_ADDRESSES STRICT "},"
    "'wan': {" WAN_PORT "," WAN_ADDRESSES STRICT "}},"
    "'neighbours': [" LAN_NEIGHBOURS "], 'routes': [" DEFAULT_ROUTES "],"
    "'nat': {'source': [{'out': 'wan', 'to': 'interface'}],"
    "'destination': [{'in': 'wan', 'protocol': 'udp', 'destination_port': 80,"
    "'to': '192.168.1.10'}]}," UNLIMITED "}";

/* A packet whose source has become the router's own and that then waited for its gateway. */
CASE(a_translated_packet_that_waited) {
    struct frame *sent = four("192.168.1.10:1000", SERVER4), *found;

    start_at_once(translated);
    inject(LAN, sent);
    turn();
    discard(ANYWHERE); /* the gateway is looked for */
    inject(WAN, arp_reply(.sender = "198.51.100.2", .sender_mac = HOST_WAN,
                          .target = "198.51.100.1", .target_mac = ROUTER_WAN));
    found = take_one(WAN);

    unsigned port = (unsigned)found->bytes[IP4_PAYLOAD] << 8 | found->bytes[IP4_PAYLOAD + 1];

    inject(WAN, four(SERVER4, text("198.51.100.1:%u", port)));
    expect(LAN, hop(four(SERVER4, "192.168.1.10:1000")));
    expect_no_drops();
}

CASE(a_translated_destination) {
    start(translated);
    inject(WAN, four("203.0.113.9:5", "198.51.100.1:80"));
    expect(LAN, hop(four("203.0.113.9:5", "192.168.1.10:80")));
    inject(WAN, four("192.168.1.77:5", "198.51.100.1:80"));
    inject(LAN, four("203.0.113.9:5", "198.51.100.1:80"));
    expect_nothing(ANYWHERE);
    expect_drop(DROP, 2);
}

HARNESS_MAIN()
