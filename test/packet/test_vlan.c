/* VLAN interfaces (802.1Q) and VRFs: who is on which link, and which table routes what. */
#include "harness.h"

/* LAN untagged, and two VLANs beside it; the WAN is one VLAN alone. */
static const char *const vlans =
    "{'interfaces': {"
    "  'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24', '2001:db8:1::1/64']},"
    "  'office': {'parent': 'lan', 'vlan': 10,"
    "             'addresses': ['192.168.10.1/24', '2001:db8:10::1/64']},"
    "  'guests': {'parent': 'lan', 'vlan': 4094,"
    "             'addresses': ['192.168.94.1/24', '2001:db8:94::1/64']},"
    "  'wan': {" WAN_PORT "},"
    "  'uplink': {'parent': 'wan', 'vlan': 7,"
    "             'addresses': ['198.51.100.1/24', '2001:db8:2::1/64']}},"
    "'neighbours': [" LAN_NEIGHBOURS ","
    "  {'interface': 'office', 'address': '192.168.10.10', 'mac': '" HOST_LAN "'},"
    "  {'interface': 'office', 'address': '2001:db8:10::10', 'mac': '" HOST_LAN "'},"
    "  {'interface': 'guests', 'address': '192.168.94.10', 'mac': '" HOST_LAN "'},"
    "  {'interface': 'guests', 'address': '2001:db8:94::10', 'mac': '" HOST_LAN "'},"
    "  {'interface': 'uplink', 'address': '198.51.100.2', 'mac': '" HOST_WAN "'},"
    "  {'interface': 'uplink', 'address': '2001:db8:2::2', 'mac': '" HOST_WAN "'}],"
    "'routes': [" DEFAULT_ROUTES "]," UNLIMITED "}";

static struct frame *four(const char *source, const char *destination) {
    return udp4(.source = source, .destination = destination);
}

static struct frame *six(const char *source, const char *destination) {
    return udp6(.source = source, .destination = destination);
}

CASE(untagged_to_tagged_and_back) {
    start(vlans);
    inject(LAN, four("192.168.1.10:1", "203.0.113.1:2"));
    expect(WAN, vlan(7, hop(four("192.168.1.10:1", "203.0.113.1:2"))));
    inject(WAN, vlan(7, four("203.0.113.1:2", "192.168.1.10:1")));
    expect(LAN, hop(four("203.0.113.1:2", "192.168.1.10:1")));
    inject(LAN, six("[2001:db8:1::10]:1", "[2001:db8:99::1]:2"));
    expect(WAN, vlan(7, hop(six("[2001:db8:1::10]:1", "[2001:db8:99::1]:2"))));
    inject(WAN, vlan(7, six("[2001:db8:99::1]:2", "[2001:db8:1::10]:1")));
    expect(LAN, hop(six("[2001:db8:99::1]:2", "[2001:db8:1::10]:1")));
}

CASE(from_vlan_to_vlan) {
    start(vlans);
    inject(LAN, vlan(10, four("192.168.10.10:1", "192.168.94.10:2")));
    expect(LAN, vlan(4094, hop(four("192.168.10.10:1", "192.168.94.10:2"))));
    inject(LAN, vlan(4094, six("[2001:db8:94::10]:1", "[2001:db8:10::10]:2")));
    expect(LAN, vlan(10, hop(six("[2001:db8:94::10]:1", "[2001:db8:10::10]:2"))));
    inject(LAN, vlan(10, four("192.168.10.10:1", "192.168.1.10:2")));
    expect(LAN, hop(four("192.168.10.10:1", "192.168.1.10:2")));
    inject(LAN, four("192.168.1.10:1", "192.168.10.10:2"));
    expect(LAN, vlan(10, hop(four("192.168.1.10:1", "192.168.10.10:2"))));
    inject(LAN, vlan(10, four("192.168.10.10:1", "203.0.113.1:2")));
    expect(WAN, vlan(7, hop(four("192.168.10.10:1", "203.0.113.1:2"))));
}

CASE(priorities_are_not_carried_on) {
    start(vlans);
    inject(LAN, vlan(0xe00a, four("192.168.10.10:1", "192.168.94.10:2")));
    expect(LAN, vlan(4094, hop(four("192.168.10.10:1", "192.168.94.10:2"))));
    inject(LAN, vlan(0xf00a, four("192.168.10.10:1", "192.168.1.10:2")));
    expect(LAN, hop(four("192.168.10.10:1", "192.168.1.10:2")));
}

CASE(every_vlan_but_the_known_ones) {
    unsigned unknown = 0;

    start(vlans);
    for (unsigned id = 1; id < 4096; id++) {
        if (id == 10 || id == 4094)
            continue;
        inject(LAN, vlan(id, four("192.168.10.10:1", "203.0.113.1:2")));
        if (++unknown % 64 == 0)
            turn();
    }
    inject(WAN, vlan(10, four("203.0.113.1:2", "192.168.1.10:1"))); /* that of another port */
    expect_nothing(ANYWHERE);
    expect_drop("parse.unknown_vlan", unknown + 1);
}

CASE(each_vlan_counts_for_itself) {
    struct frame *frame = four("192.168.10.10:1", "203.0.113.1:2");

    start(vlans);
    for (unsigned i = 0; i < 5; i++)
        inject(LAN, vlan(10, frame));
    for (unsigned i = 0; i < 3; i++)
        inject(LAN, four("192.168.1.10:1", "203.0.113.1:2"));
    turn();
    require(discard(WAN) == 8, "some were lost");
    expect_counts("office", .rx_packets = 5, .rx_bytes = 5 * (frame->length + 4));
    expect_counts("lan", .rx_packets = 3, .rx_bytes = 3 * frame->length);
    expect_counts("uplink", .tx_packets = 8, .tx_bytes = 8 * (frame->length + 4));
    expect_counts("wan", .tx_packets = 0);
}

CASE(padding_and_tags) {
    struct frame *frame =
        udp4(.source = "192.168.10.10:1", .destination = "192.168.1.10:2", .payload = "x");

    start(vlans);
    inject(LAN, padded(vlan(10, frame), 64));
    expect(LAN, hop(frame));
    frame = udp4(.source = "192.168.1.10:1", .destination = "192.168.10.10:2", .payload = "x");
    inject(LAN, padded(frame, 60));
    expect(LAN, vlan(10, hop(frame)));
}

CASE(a_tag_does_not_count_for_the_mtu) {
    struct frame *frame = udp4(.source = "192.168.1.10:1", .destination = "192.168.10.10:2",
                               .fragment = DONT_FRAGMENT, .size = 1472);

    start(vlans);
    inject(LAN, frame);
    expect(LAN, vlan(10, hop(frame)));
    frame = udp4(.source = "192.168.10.10:1", .destination = "203.0.113.1:2",
                 .fragment = DONT_FRAGMENT, .size = 1472);
    inject(LAN, vlan(10, frame));
    expect(WAN, vlan(7, hop(frame)));
}

CASE(echo_and_errors_on_a_vlan) {
    struct frame *frame =
        udp4(.source = "192.168.10.10:1", .destination = "203.0.113.1:2", .ttl = 1);

    start(vlans);
    inject(LAN, vlan(10, icmp4_echo(.source = "192.168.10.10", .destination = "192.168.10.1")));
    expect(LAN,
           vlan(10, icmp4_echo_reply(.source = "192.168.10.1", .destination = "192.168.10.10")));
    inject(LAN, vlan(10, icmp6_echo(.source = "2001:db8:10::10", .destination = "2001:db8:10::1")));
    expect(LAN, vlan(10, icmp6_echo_reply(.source = "2001:db8:10::1",
                                          .destination = "2001:db8:10::10")));
    inject(LAN, vlan(10, frame));
    expect(LAN, vlan(10, icmp4_error(.source = "192.168.10.1", .destination = "192.168.10.10",
                                     .type = 11, .about = frame)));
    expect_drop("local.time_exceeded", 1);
}

CASE(arp_and_neighbour_discovery_on_a_vlan) {
    start(vlans);
    inject(LAN, vlan(10, arp_request(.sender = "192.168.10.20", .sender_mac = HOST_LAN,
                                     .target = "192.168.10.1")));
    expect(LAN, vlan(10, arp_reply(.sender = "192.168.10.1", .sender_mac = ROUTER_LAN,
                                   .target = "192.168.10.20", .target_mac = HOST_LAN)));
    /* The address of another VLAN of the same port. */
    inject(LAN, vlan(10, arp_request(.sender = "192.168.10.20", .sender_mac = HOST_LAN,
                                     .target = "192.168.94.1")));
    expect_nothing(LAN);
    inject(LAN, four("192.168.1.10:1", "192.168.10.77:2"));
    expect(LAN, vlan(10, arp_request(.sender = "192.168.10.1", .sender_mac = ROUTER_LAN,
                                     .target = "192.168.10.77")));
    inject(LAN, vlan(10, arp_reply(.sender = "192.168.10.77", .sender_mac = HOST_LAN,
                                   .target = "192.168.10.1", .target_mac = ROUTER_LAN)));
    expect(LAN, vlan(10, hop(four("192.168.1.10:1", "192.168.10.77:2"))));
    inject(LAN, six("[2001:db8:1::10]:1", "[2001:db8:10::77]:2"));
    expect(LAN,
           vlan(10, neighbour_solicitation(.source = "2001:db8:10::1", .target = "2001:db8:10::77",
                                           .source_link = ROUTER_LAN)));
    inject(LAN, vlan(10, neighbour_advertisement(.source = "2001:db8:10::77",
                                                 .destination = "2001:db8:10::1",
                                                 .target = "2001:db8:10::77", .flags = 0x60,
                                                 .target_link = HOST_LAN)));
    expect(LAN, vlan(10, hop(six("[2001:db8:1::10]:1", "[2001:db8:10::77]:2"))));
}

/* An answer on the wrong VLAN is none. */
CASE(neighbours_belong_to_their_vlan) {
    start(vlans);
    inject(LAN, four("192.168.1.10:1", "192.168.10.77:2"));
    discard(LAN);
    inject(LAN, vlan(4094, arp_reply(.sender = "192.168.10.77", .sender_mac = HOST_LAN,
                                     .target = "192.168.94.1", .target_mac = ROUTER_LAN)));
    expect_nothing(LAN);
    inject(LAN, vlan(10, arp_reply(.sender = "192.168.10.77", .sender_mac = HOST_LAN,
                                   .target = "192.168.10.1", .target_mac = ROUTER_LAN)));
    expect(LAN, vlan(10, hop(four("192.168.1.10:1", "192.168.10.77:2"))));
    forget_drops();
}

CASE(a_vlan_with_a_mac_address_of_its_own) {
    start("{'interfaces': {"
          "'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24']},"
          "'office': {'parent': 'lan', 'vlan': 10, 'mac': '02:00:00:00:01:aa',"
          "'addresses': ['192.168.10.1/24']}}, 'neighbours': [{'interface': 'lan',"
          "'address': '192.168.1.10', 'mac': '" HOST_LAN "'}, {'interface': 'office',"
          "'address': '192.168.10.10', 'mac': '" HOST_LAN "'}]," UNLIMITED "}");
    inject(LAN, vlan(10, four("192.168.10.10:1", "192.168.1.10:2")));
    expect_drop("parse.not_for_us", 1);
    inject(LAN, vlan(10, ether(four("192.168.10.10:1", "192.168.1.10:2"), "02:00:00:00:01:aa",
                               HOST_LAN)));
    expect(LAN, hop(four("192.168.10.10:1", "192.168.1.10:2")));
    inject(LAN, four("192.168.1.10:2", "192.168.10.10:1"));
    expect(LAN, vlan(10, ether(hop(four("192.168.1.10:2", "192.168.10.10:1")), HOST_LAN,
                               "02:00:00:00:01:aa")));
    inject(LAN, ether(four("192.168.1.10:2", "192.168.10.10:1"), "02:00:00:00:01:aa", HOST_LAN));
    expect_drop("parse.not_for_us", 1);
}

CASE(vlans_come_and_go) {
    start(vlans);
    apply("{'interfaces': {"
          "'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24', '2001:db8:1::1/64']},"
          "'office': {'parent': 'lan', 'vlan': 11, 'addresses': ['192.168.10.1/24']},"
          "'wan': {" WAN_PORT ", 'addresses': ['198.51.100.1/24']}}, 'neighbours': ["
          "{'interface': 'office', 'address': '192.168.10.10', 'mac': '" HOST_LAN "'},"
          "{'interface': 'wan', 'address': '198.51.100.2', 'mac': '" HOST_WAN "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}]," UNLIMITED "}");
    advance(5000);
    discard(ANYWHERE);
    forget_drops();
    inject(LAN, vlan(11, four("192.168.10.10:1", "203.0.113.1:2")));
    expect(WAN, hop(four("192.168.10.10:1", "203.0.113.1:2")));
    inject(LAN, vlan(10, four("192.168.10.10:1", "203.0.113.1:2")));
    expect_drop("parse.unknown_vlan", 1);
    inject(LAN, four("192.168.1.10:1", "203.0.113.1:2"));
    expect(WAN, hop(four("192.168.1.10:1", "203.0.113.1:2")));
}

CASE(a_vlan_goes_down_with_its_parent) {
    start(vlans);
    rpc("interface.set", "{'name': 'lan', 'admin': 'down'}");
    inject(LAN, vlan(10, four("192.168.10.10:1", "203.0.113.1:2")));
    expect_drop("parse.interface_down", 1);
    rpc("interface.set", "{'name': 'lan', 'admin': 'up'}");
    rpc("interface.set", "{'name': 'office', 'admin': 'down'}");
    advance(5000);
    discard(ANYWHERE);
    forget_drops(); /* what the office was about to announce */
    inject(LAN, vlan(10, four("192.168.10.10:1", "203.0.113.1:2")));
    expect_drop("parse.interface_down", 1);
    inject(LAN, four("192.168.1.10:1", "203.0.113.1:2"));
    expect(WAN, vlan(7, hop(four("192.168.1.10:1", "203.0.113.1:2"))));
}

/* --- VRFs --- */

/* Two customers with the same addresses, on DMZ and ISP in a VRF, on LAN and WAN in the default
 * one. */
static const char *const twins =
    "{'vrfs': {'blue': {'table': 100}}, 'interfaces': {"
    "'lan': {" LAN_PORT ", 'addresses': ['10.0.1.1/24', '2001:db8:1::1/64']},"
    "'wan': {" WAN_PORT ", 'addresses': ['10.0.2.1/24', '2001:db8:2::1/64']},"
    "'dmz': {" DMZ_PORT ", 'vrf': 'blue', 'addresses': ['10.0.1.1/24', '2001:db8:1::1/64']},"
    "'isp': {" ISP_PORT ", 'vrf': 'blue', 'addresses': ['10.0.2.1/24', '2001:db8:2::1/64']}},"
    "'neighbours': ["
    "{'interface': 'lan', 'address': '10.0.1.10', 'mac': '" HOST_LAN "'},"
    "{'interface': 'lan', 'address': '2001:db8:1::10', 'mac': '" HOST_LAN "'},"
    "{'interface': 'wan', 'address': '10.0.2.10', 'mac': '" HOST_WAN "'},"
    "{'interface': 'wan', 'address': '2001:db8:2::10', 'mac': '" HOST_WAN "'},"
    "{'interface': 'dmz', 'address': '10.0.1.10', 'mac': '" HOST_DMZ "'},"
    "{'interface': 'dmz', 'address': '2001:db8:1::10', 'mac': '" HOST_DMZ "'},"
    "{'interface': 'isp', 'address': '10.0.2.10', 'mac': '" HOST_ISP "'},"
    "{'interface': 'isp', 'address': '2001:db8:2::10', 'mac': '" HOST_ISP "'}],"
    "'routes': [{'prefix': '0.0.0.0/0', 'via': '10.0.2.10'},"
    "{'prefix': '203.0.113.0/24', 'vrf': 'blue', 'via': '10.0.2.10'}]," UNLIMITED "}";

CASE(the_same_addresses_in_two_vrfs) {
    struct frame *there = four("10.0.1.10:1", "10.0.2.10:2");
    struct frame *there6 = six("[2001:db8:1::10]:1", "[2001:db8:2::10]:2");

    start(twins);
    inject(LAN, there);
    inject(DMZ, there);
    expect(WAN, hop(there));
    expect(ISP, hop(there));
    inject(LAN, there6);
    inject(DMZ, there6);
    expect(WAN, hop(there6));
    expect(ISP, hop(there6));
    inject(ISP, four("10.0.2.10:2", "10.0.1.10:1"));
    expect(DMZ, hop(four("10.0.2.10:2", "10.0.1.10:1")));
    expect_nothing(ANYWHERE);
}

CASE(routes_do_not_leak_between_vrfs) {
    struct frame *frame = four("10.0.1.10:1", "198.18.0.1:2");

    start(twins);
    inject(LAN, frame);
    expect(WAN, hop(frame));
    inject(DMZ, frame); /* the default route is in the other VRF */
    expect(DMZ, icmp4_error(.source = "10.0.1.1", .destination = "10.0.1.10", .type = 3,
                            .about = frame));
    expect_drop("local.no_route", 1);
    frame = four("10.0.1.10:1", "203.0.113.1:2");
    inject(DMZ, frame);
    expect(ISP, hop(frame));
    inject(LAN, frame);
    expect(WAN, hop(frame));
}

CASE(echo_in_two_vrfs) {
    struct frame *echo = icmp4_echo(.source = "10.0.2.10", .destination = "10.0.1.1");
    struct frame *reply = icmp4_echo_reply(.source = "10.0.1.1", .destination = "10.0.2.10");

    start(twins);
    inject(WAN, echo);
    expect(WAN, reply);
    inject(ISP, echo);
    expect(ISP, reply);
    inject(ISP, icmp6_echo(.source = "2001:db8:2::10", .destination = "2001:db8:1::1"));
    expect(ISP, icmp6_echo_reply(.source = "2001:db8:1::1", .destination = "2001:db8:2::10"));
}

CASE(packets_of_several_vrfs_in_one_burst) {
    struct frame *frames[4];

    start("{'vrfs': {'blue': {'table': 100}}, 'interfaces': {"
          "'lan': {" LAN_PORT ", 'addresses': ['10.0.1.1/24', '2001:db8:1::1/64']},"
          "'lan.5': {'parent': 'lan', 'vlan': 5, 'vrf': 'blue', 'addresses': ['10.0.1.1/24',"
          "'2001:db8:1::1/64']},"
          "'wan': {" WAN_PORT ", 'addresses': ['10.0.2.1/24', '2001:db8:2::1/64']},"
          "'isp': {" ISP_PORT ", 'vrf': 'blue', 'addresses': ['10.0.2.1/24', '2001:db8:2::1/64']}},"
          "'neighbours': ["
          "{'interface': 'wan', 'address': '10.0.2.10', 'mac': '" HOST_WAN "'},"
          "{'interface': 'wan', 'address': '2001:db8:2::10', 'mac': '" HOST_WAN "'},"
          "{'interface': 'isp', 'address': '10.0.2.10', 'mac': '" HOST_ISP "'},"
          "{'interface': 'isp', 'address': '2001:db8:2::10', 'mac': '" HOST_ISP "'}]," UNLIMITED
          "}");
    frames[0] = four("10.0.1.10:1", "10.0.2.10:2");
    frames[1] = six("[2001:db8:1::10]:1", "[2001:db8:2::10]:2");
    for (unsigned i = 0; i < 64; i++)
        inject(LAN, i & 1 ? vlan(5, frames[i / 2 % 2]) : frames[i / 2 % 2]);
    for (unsigned i = 0; i < 32; i++) {
        expect(WAN, hop(frames[i % 2]));
        expect(ISP, hop(frames[i % 2]));
    }
}

CASE(a_vrf_comes_and_goes) {
    struct frame *there = four("10.0.1.10:1", "10.0.2.10:2");

    start(twins);
    for (unsigned round = 0; round < 5; round++) {
        apply("{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['10.0.1.1/24']},"
              "'wan': {" WAN_PORT ", 'addresses': ['10.0.2.1/24']}}, 'neighbours': ["
              "{'interface': 'wan', 'address': '10.0.2.10', 'mac': '" HOST_WAN "'}]," UNLIMITED
              "}");
        advance(3000);
        discard(ANYWHERE);
        inject(LAN, there);
        expect(WAN, hop(there));
        inject(DMZ, there); /* nobody listens on that port any more */
        expect_nothing(ISP);
        apply(twins);
        advance(3000);
        discard(ANYWHERE);
        inject(LAN, there);
        expect(WAN, hop(there));
    }
    forget_drops();
}

CASE(an_interface_moves_to_another_vrf) {
    struct frame *frame = four("10.0.1.10:1", "203.0.113.1:2");

    start("{'vrfs': {'blue': {'table': 100}}, 'interfaces': {"
          "'lan': {" LAN_PORT ", 'addresses': ['10.0.1.1/24']},"
          "'wan': {" WAN_PORT ", 'addresses': ['10.0.2.1/24']},"
          "'isp': {" ISP_PORT ", 'vrf': 'blue', 'addresses': ['10.0.2.1/24']}}, 'neighbours': ["
          "{'interface': 'wan', 'address': '10.0.2.10', 'mac': '" HOST_WAN "'},"
          "{'interface': 'isp', 'address': '10.0.2.10', 'mac': '" HOST_ISP "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '10.0.2.10'},"
          "{'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via': '10.0.2.10'}]," UNLIMITED "}");
    inject(LAN, frame);
    expect(WAN, hop(frame));
    apply("{'vrfs': {'blue': {'table': 100}}, 'interfaces': {"
          "'lan': {" LAN_PORT ", 'vrf': 'blue', 'addresses': ['10.0.1.1/24']},"
          "'wan': {" WAN_PORT ", 'addresses': ['10.0.2.1/24']},"
          "'isp': {" ISP_PORT ", 'vrf': 'blue', 'addresses': ['10.0.2.1/24']}}, 'neighbours': ["
          "{'interface': 'wan', 'address': '10.0.2.10', 'mac': '" HOST_WAN "'},"
          "{'interface': 'isp', 'address': '10.0.2.10', 'mac': '" HOST_ISP "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '10.0.2.10'},"
          "{'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via': '10.0.2.10'}]," UNLIMITED "}");
    advance(3000);
    discard(ANYWHERE);
    inject(LAN, frame);
    expect(ISP, hop(frame));
}

HARNESS_MAIN()
