/* IPsec's policies: which packets are protected, by what, and what happens to the others; and what
 * that means together with firewall, NAT and VRFs. */
#include "ipsec_network.h"

#define SERVER OUTSIDE
enum { SYN = 0x02, ACK = 0x10 };

static const char *sas_both(void) {
    return both(sa_json(&out4, "out", ""), sa_json(&in4, "in", ""));
}

static const char *with_policies(const char *policies) {
    return with_sas(sas_both(), policies);
}

static struct frame *between(const char *source, const char *destination) {
    return udp4(.source = source, .destination = destination);
}

/* --- what a policy is about --- */

CASE(prefixes) {
    unsigned sequence = 0;

    start(with_policies("{'direction': 'out', 'source': '192.168.1.8/29', 'destination':"
                        " '10.9.0.0/20', 'action': 'protect', 'spi': 4096}"));
    goes_out(&out4, between("192.168.1.8:1", "10.9.0.0:2"), .sequence = ++sequence);
    goes_out(&out4, between("192.168.1.15:1", "10.9.15.255:2"), .sequence = ++sequence);
    passes(LAN, WAN, between("192.168.1.7:1", "10.9.0.0:2"));
    passes(LAN, WAN, between("192.168.1.16:1", "10.9.0.0:2"));
    passes(LAN, WAN, between("192.168.1.8:1", "10.8.255.255:2"));
    passes(LAN, WAN, between("192.168.1.8:1", "10.9.16.0:2"));
    passes(LAN, WAN, to_far6());
}

CASE(one_address_and_any) {
    unsigned sequence = 0;

    start(with_policies("{'direction': 'out', 'destination': '" FAR "', 'action': 'protect',"
                        " 'spi': 4096},"
                        "{'direction': 'out', 'source': '" INSIDE6 "', 'action': 'protect',"
                        " 'spi': 4096}"));
    goes_out(&out4, to_far(), .sequence = ++sequence);
    goes_out(&out4, between("192.168.1.77:1", FAR ":2"), .sequence = ++sequence);
    passes(LAN, WAN, between(INSIDE ":1", "10.9.0.2:2"));
    goes_out(&out4, to_far6(), .sequence = ++sequence, .df = true);
    goes_out(&out4, udp6(.source = "[" INSIDE6 "]:1", .destination = "[" OUTSIDE6 "]:2"),
             .sequence = ++sequence, .df = true);
    passes(LAN, WAN, udp6(.source = "[2001:db8:1::11]:1", .destination = "[" FAR6 "]:2"));
}

CASE(protocols) {
    unsigned sequence = 0;

    start(with_policies("{'direction': 'out', 'destination': '10.9.0.0/16', 'protocol': 'tcp',"
                        " 'action': 'protect', 'spi': 4096},"
                        "{'direction': 'out', 'destination': '10.9.0.0/16', 'protocol': 47,"
                        " 'action': 'protect', 'spi': 4096},"
                        "{'direction': 'out', 'destination': '2001:db8:9::/48', 'protocol':"
                        " 'icmpv6', 'action': 'protect', 'spi': 4096}"));
    goes_out(&out4, tcp4(.source = INSIDE ":1", .destination = FAR ":2"), .sequence = ++sequence);
    goes_out(&out4, ip4(.source = INSIDE, .destination = FAR, .protocol = 47),
             .sequence = ++sequence);
    goes_out(&out4, icmp6_echo(.source = INSIDE6, .destination = FAR6), .sequence = ++sequence,
             .df = true);
    passes(LAN, WAN, to_far());
    passes(LAN, WAN, ip4(.source = INSIDE, .destination = FAR, .protocol = 48));
    passes(LAN, WAN, icmp4_echo(.source = INSIDE, .destination = FAR));
    passes(LAN, WAN, to_far6());
}

CASE(ports) {
    unsigned sequence = 0;

    start(with_policies("{'direction': 'out', 'destination': '10.9.0.0/16', 'protocol': 'udp',"
                        " 'source_port': 1000, 'destination_port': '2000-2010',"
                        " 'action': 'protect', 'spi': 4096},"
                        "{'direction': 'out', 'destination': '2001:db8:9::/48', 'protocol': 'tcp',"
                        " 'destination_port': 80, 'action': 'protect', 'spi': 4096}"));
    for (unsigned round = 0; round < 2; round++) { /* the second from the cache */
        goes_out(&out4, between(INSIDE ":1000", FAR ":2000"), .sequence = ++sequence);
        goes_out(&out4, between(INSIDE ":1000", FAR ":2010"), .sequence = ++sequence);
        passes(LAN, WAN, between(INSIDE ":1000", FAR ":1999"));
        passes(LAN, WAN, between(INSIDE ":1000", FAR ":2011"));
        passes(LAN, WAN, between(INSIDE ":1001", FAR ":2000"));
        passes(LAN, WAN, tcp4(.source = INSIDE ":1000", .destination = FAR ":2000"));
        goes_out(&out4, tcp6(.source = "[" INSIDE6 "]:1", .destination = "[" FAR6 "]:80"),
                 .sequence = ++sequence, .df = true);
        passes(LAN, WAN, tcp6(.source = "[" INSIDE6 "]:80", .destination = "[" FAR6 "]:81"));
    }
}

/* Ports of the other direction: those of a packet that comes in. */
CASE(ports_inbound) {
    start(with_policies("{'direction': 'in', 'source': '10.9.0.0/16', 'protocol': 'udp',"
                        " 'source_port': 2000, 'action': 'protect', 'spi': 8192}"));
    comes_in(&in4, from_far());
    is_dropped(WAN, esp(&in4, between(FAR ":2001", INSIDE ":1000"), .sequence = 2),
               "ipsec_in.no_policy");
    is_dropped(WAN, from_far(), "ipsec_in.unprotected");
    passes(WAN, LAN, between(FAR ":2001", INSIDE ":1000"));
}

/* Only the first fragment has ports. What the others may belong to is not let out in the clear,
 * nor in. */
CASE(later_fragments) {
    struct frame *whole = to_far(.size = 1000);
    struct frame *back = from_far(.size = 1000);

    start(tunnel(&out4, &in4, ""));
    goes_out(&out4, fragment4(whole, 0, 512), .sequence = 1);
    goes_out(&out4, fragment4(whole, 512, 496), .sequence = 2);
    comes_in(&in4, fragment4(back, 0, 512), .sequence = 1);
    comes_in(&in4, fragment4(back, 512, 496), .sequence = 2);
    is_dropped(WAN, fragment4(back, 512, 496), "ipsec_in.unprotected");
    start(with_policies("{'direction': 'out', 'destination': '10.9.0.0/16', 'protocol': 'udp',"
                        " 'destination_port': 2000, 'action': 'protect', 'spi': 4096},"
                        "{'direction': 'out', 'destination': '10.9.0.0/16', 'action': 'discard',"
                        " 'priority': 1},"
                        "{'direction': 'in', 'source': '10.9.0.0/16', 'protocol': 'udp',"
                        " 'source_port': 2000, 'action': 'protect', 'spi': 8192}"));
    goes_out(&out4, fragment4(whole, 0, 512), .sequence = 3);
    goes_out(&out4, fragment4(whole, 512, 496), .sequence = 4);
    comes_in(&in4, fragment4(back, 0, 512), .sequence = 3);
    comes_in(&in4, fragment4(back, 512, 496), .sequence = 4);
    is_dropped(WAN, fragment4(back, 512, 496), "ipsec_in.unprotected");
    /* Of another protocol. */
    is_dropped(LAN,
               fragment4(icmp4_echo(.source = INSIDE, .destination = FAR, .size = 1000), 512, 496),
               "ipsec_out.discarded");
    /* A port that may pass does not say that for fragments. */
    start(with_policies("{'direction': 'out', 'destination': '10.9.0.0/16', 'protocol': 'udp',"
                        " 'destination_port': 2000, 'action': 'bypass'},"
                        "{'direction': 'out', 'destination': '10.9.0.0/16', 'action': 'protect',"
                        " 'spi': 4096, 'priority': 1}"));
    passes(LAN, WAN, fragment4(whole, 0, 512));
    goes_out(&out4, fragment4(whole, 512, 496), .sequence = 5);
}

CASE(extension_headers) {
    struct frame *frame = udp6(.source = "[" INSIDE6 "]:1", .destination = "[" FAR6 "]:2",
                               .first = 60, .extensions = "0000010400000000");

    start(with_policies("{'direction': 'out', 'destination': '2001:db8:9::/48', 'protocol': 'udp',"
                        " 'destination_port': 2, 'action': 'protect', 'spi': 4096}"));
    goes_out(&out4, frame, .df = true);
}

/* --- what it says --- */

CASE(bypass_and_discard) {
    start(with_policies("{'direction': 'out', 'destination': '10.9.1.0/24', 'action': 'bypass'},"
                        "{'direction': 'out', 'destination': '10.9.2.0/24', 'action': 'discard'},"
                        "{'direction': 'in', 'source': '10.9.1.0/24', 'action': 'bypass'},"
                        "{'direction': 'in', 'source': '10.9.2.0/24', 'action': 'discard'},"
                        "{'direction': 'in', 'source': '10.9.3.0/24', 'action': 'protect',"
                        " 'spi': 8192}"));
    passes(LAN, WAN, between(INSIDE ":1", "10.9.1.1:2"));
    is_dropped(LAN, between(INSIDE ":1", "10.9.2.1:2"), "ipsec_out.discarded");
    passes(WAN, LAN, between("10.9.1.1:1", INSIDE ":2"));
    is_dropped(WAN, between("10.9.2.1:1", INSIDE ":2"), "ipsec_in.discarded");
    is_dropped(WAN, between("10.9.3.1:1", INSIDE ":2"), "ipsec_in.unprotected");
    /* What came protected is not what bypass and discard are about. */
    is_dropped(WAN, esp(&in4, between("10.9.1.1:1", INSIDE ":2")), "ipsec_in.no_policy");
    is_dropped(WAN, esp(&in4, between("10.9.2.1:1", INSIDE ":2"), .sequence = 2),
               "ipsec_in.no_policy");
    comes_in(&in4, between("10.9.3.1:1", INSIDE ":2"), .sequence = 3);
}

/* Clear packets that a policy protects end, whichever interface they come by. */
CASE(clear_packets_that_should_be_protected) {
    start(tunnel(&out4, &in4, ""));
    is_dropped(WAN, from_far(), "ipsec_in.unprotected");
    is_dropped(WAN, from_far6(), "ipsec_in.unprotected");
    is_dropped(DMZ, from_far(), "ipsec_in.unprotected");
    is_dropped(WAN, icmp4_echo(.source = FAR, .destination = INSIDE), "ipsec_in.unprotected");
    passes(WAN, LAN, between(SERVER ":1", INSIDE ":2"));
    is_dropped(WAN, between(FAR ":1", "192.168.1.1:2"), "ipsec_in.unprotected");
}

CASE(priorities) {
    unsigned sequence = 0;

    start(with_policies("{'name': 'late', 'direction': 'out', 'destination': '10.9.0.0/16',"
                        " 'action': 'protect', 'spi': 4096, 'priority': 20},"
                        "{'name': 'early', 'direction': 'out', 'destination': '10.9.0.0/24',"
                        " 'action': 'discard', 'priority': 10},"
                        "{'name': 'first', 'direction': 'out', 'destination': '" FAR "',"
                        " 'action': 'protect', 'spi': 4096},"
                        "{'name': 'same', 'direction': 'out', 'destination': '10.9.0.0/17',"
                        " 'action': 'discard', 'priority': 20}"));
    goes_out(&out4, to_far(), .sequence = ++sequence);
    is_dropped(LAN, between(INSIDE ":1", "10.9.0.2:2"), "ipsec_out.discarded");
    goes_out(&out4, between(INSIDE ":1", "10.9.1.1:2"), .sequence = ++sequence);
    contains(rpc("ipsec.policy.list", "{}"), "'name':'first'");

    const char *list = rpc("ipsec.policy.list", "{}");

    require(strstr(list, "'first'") < strstr(list, "'early'") &&
                strstr(list, "'early'") < strstr(list, "'late'") &&
                strstr(list, "'late'") < strstr(list, "'same'"),
            "they are listed in another order: %s", list);
}

CASE(counters_of_policies) {
    start(with_policies("{'name': 'a', 'direction': 'out', 'destination': '10.9.1.0/24',"
                        " 'action': 'bypass'},"
                        "{'name': 'b', 'direction': 'out', 'destination': '10.9.2.0/24',"
                        " 'action': 'protect', 'request': 7},"
                        "{'name': 'c', 'direction': 'in', 'source': '10.9.0.0/16',"
                        " 'action': 'protect', 'spi': 8192}"));
    for (unsigned i = 1; i <= 3; i++) {
        passes(LAN, WAN, between(INSIDE ":1", "10.9.1.1:2"));
        is_dropped(LAN, between(INSIDE ":1", "10.9.2.1:2"), "ipsec_out.no_sa");
        comes_in(&in4, from_far(), .sequence = i);
    }
    is_dropped(WAN, from_far(), "ipsec_in.unprotected");

    const char *list = rpc("ipsec.policy.list", "{}");

    contains(list, "'packets':3,'without_sa':0,'source':'0.0.0.0/0','destination':'10.9.1.0/24'");
    contains(list, "'packets':3,'without_sa':3,'source':'0.0.0.0/0','destination':'10.9.2.0/24'");
    contains(list, "'packets':4,'without_sa':0,'source':'10.9.0.0/16','destination':'0.0.0.0/0'");
}

/* --- which association --- */

/* By request: the newest sends, all receive, as it is while keys are changed (RFC 4301 4.4.2.1). */
CASE(associations_of_a_request) {
    struct esp_sa second = out4, second_in = in4;

    second.spi = SPI_OUT + 1;
    second_in.spi = SPI_IN + 1;
    start(with_sas(
        both(sa_json(&out4, "out", ", 'request': 5"), sa_json(&in4, "in", ", 'request': 5")),
        "{'direction': 'out', 'destination': '10.9.0.0/16', 'action': 'protect',"
        " 'request': 5},"
        "{'direction': 'in', 'source': '10.9.0.0/16', 'action': 'protect',"
        " 'request': 5}"));
    goes_out(&out4, to_far(), .sequence = 1);
    rpc("ipsec.sa.add", sa_json(&second_in, "in", ", 'request': 5"));
    rpc("ipsec.sa.add", sa_json(&second, "out", ", 'request': 5"));
    goes_out(&second, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
    comes_in(&second_in, from_far(), .sequence = 1);
    rpc("ipsec.sa.delete", "{'spi': 4097, 'direction': 'out'}");
    goes_out(&out4, to_far(), .sequence = 2);
    rpc("ipsec.sa.delete", "{'spi': 8193, 'direction': 'in'}");
    is_dropped(WAN, esp(&second_in, from_far(), .sequence = 2), "ipsec_in.unknown_spi");
}

CASE(without_an_association) {
    start(with_policies("{'direction': 'out', 'destination': '10.9.0.0/16', 'action': 'protect',"
                        " 'request': 77}"));
    is_dropped(LAN, to_far(), "ipsec_out.no_sa");
}

/* --- what passes whatever the policies say --- */

/* Whatever goes to the WAN, and whatever comes from there. Policies do not look at interfaces, so
 * the LAN's own traffic needs an exception. */
static const char *everything_is_protected(void) {
    return with_policies(
        "{'direction': 'out', 'destination': '192.168.1.0/24', 'action': 'bypass'},"
        "{'direction': 'in', 'source': '192.168.1.0/24', 'action': 'bypass'},"
        "{'direction': 'out', 'destination': '0.0.0.0/0', 'action': 'protect',"
        " 'spi': 4096, 'priority': 10},"
        "{'direction': 'in', 'source': '0.0.0.0/0', 'action': 'protect',"
        " 'spi': 8192, 'priority': 10},"
        "{'direction': 'out', 'destination': '::/0', 'action': 'protect',"
        " 'spi': 4096},"
        "{'direction': 'in', 'source': '::/0', 'action': 'protect',"
        " 'spi': 8192}");
}

CASE(all_traffic_through_a_tunnel) {
    start(everything_is_protected());
    goes_out(&out4, to_far(), .sequence = 1);
    goes_out(&out4, between(INSIDE ":1", SERVER ":2"), .sequence = 2);
    comes_in(&in4, between(SERVER ":1", INSIDE ":2"), .sequence = 1);
    is_dropped(WAN, between(SERVER ":1", INSIDE ":2"), "ipsec_in.unprotected");
}

CASE(neighbour_discovery_passes) {
    start(everything_is_protected());
    inject(LAN, neighbour_solicitation(.source = INSIDE6, .target = "2001:db8:1::1",
                                       .source_link = HOST_LAN));
    expect(LAN, neighbour_advertisement(.source = "2001:db8:1::1", .destination = INSIDE6,
                                        .target = "2001:db8:1::1", .flags = 0xe0,
                                        .target_link = ROUTER_LAN));
    inject(WAN, neighbour_solicitation(.source = "2001:db8:2::2", .destination = ROUTER6,
                                       .target = ROUTER6));
    expect(WAN,
           neighbour_advertisement(.source = ROUTER6, .destination = "2001:db8:2::2",
                                   .target = ROUTER6, .flags = 0xe0, .target_link = ROUTER_WAN));
}

/* IKE makes the associations, so it cannot wait for them. Without a daemon it is refused, and what
 * says so is no IKE any more. */
CASE(ike_of_the_router_passes) {
    start(everything_is_protected());
    inject_from_host(between(ROUTER ":500", PEER ":500"));
    expect(WAN, between(ROUTER ":500", PEER ":500"));
    inject_from_host(between(ROUTER ":4500", PEER ":4500"));
    expect(WAN, between(ROUTER ":4500", PEER ":4500"));
    inject(WAN, between(PEER ":500", ROUTER ":500"));
    expect_esp(WAN, &out4,
               icmp4_error(.source = ROUTER, .destination = PEER, .type = 3, .code = 3,
                           .about = between(PEER ":500", ROUTER ":500")),
               .tos = 0xc0);
    expect_drop("local.no_listener", 1);
    is_dropped(WAN, between(PEER ":500", ROUTER ":501"), "ipsec_in.unprotected");
}

/* Others' port 500 is no way past the policies. */
CASE(ike_of_others_is_protected) {
    start(everything_is_protected());
    goes_out(&out4, between(INSIDE ":500", FAR ":500"), .sequence = 1);
    goes_out(&out4, between(INSIDE ":4500", FAR ":4500"), .sequence = 2);
    is_dropped(WAN, between(FAR ":500", INSIDE ":500"), "ipsec_in.unprotected");
    is_dropped(WAN, between(FAR ":4500", INSIDE ":4500"), "ipsec_in.unprotected");
    comes_in(&in4, between(FAR ":500", INSIDE ":500"), .sequence = 1);
}

/* What the router says of itself is protected as well, and keeps its TTL. */
CASE(what_the_router_sends) {
    start(everything_is_protected());
    inject_from_host(udp4(.source = ROUTER ":7", .destination = SERVER ":8", .ttl = 1));
    expect_esp(WAN, &out4, udp4(.source = ROUTER ":7", .destination = SERVER ":8", .ttl = 1),
               .sequence = 1);
    inject(WAN, esp(&in4, icmp4_echo(.source = FAR, .destination = "192.168.1.1")));
    expect_esp(WAN, &out4, icmp4_echo_reply(.source = "192.168.1.1", .destination = FAR),
               .sequence = 2);
    inject(WAN, esp(&in4, from_far(.ttl = 1), .sequence = 2));
    expect_esp(
        WAN, &out4,
        icmp4_error(.source = ROUTER, .destination = FAR, .type = 11, .about = from_far(.ttl = 1)),
        .sequence = 3, .tos = 0xc0);
    expect_drop("local.time_exceeded", 1);
}

/* For the router itself nothing leaves. */
CASE(to_the_router_is_not_outbound) {
    start(with_policies("{'direction': 'out', 'destination': '0.0.0.0/0', 'action': 'discard',"
                        " 'priority': 9},"
                        "{'direction': 'out', 'destination': '" INSIDE "', 'action': 'bypass'}"));
    inject(LAN, icmp4_echo(.source = INSIDE, .destination = "192.168.1.1"));
    expect(LAN, icmp4_echo_reply(.source = "192.168.1.1", .destination = INSIDE));
    inject(LAN, icmp4_echo(.source = INSIDE, .destination = ROUTER));
    expect(LAN, icmp4_echo_reply(.source = ROUTER, .destination = INSIDE));
}

/* --- VRFs --- */

CASE(vrfs) {
    struct esp_sa blue_out = {
        .spi = SPI_OUT + 1, .source = "100.64.4.1", .destination = "203.0.113.20", GCM};
    struct esp_sa blue_in = turned(&blue_out, SPI_IN + 1);

    start(text("{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
               "'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
               "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
               "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES ", 'vrf': 'blue'},"
               "'isp': {" ISP_PORT ", " ISP_ADDRESSES ", 'vrf': 'blue'}},"
               "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS
               "," ISP_NEIGHBOURS "], 'routes': [" DEFAULT_ROUTES
               ", {'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via': '100.64.4.2'}],"
               "'ipsec': {'sas': [%s, %s, %s], 'policies': [%s,"
               "{'direction': 'out', 'destination': '10.9.0.0/16', 'action': 'protect',"
               " 'spi': %u, 'vrf': 'blue'},"
               "{'direction': 'in', 'source': '10.9.0.0/16', 'action': 'protect',"
               " 'spi': %u, 'vrf': 'blue'}]}," UNLIMITED "}",
               sas_both(), sa_json(&blue_out, "out", ", 'vrf': 'blue'"),
               sa_json(&blue_in, "in", ", 'vrf': 'blue'"), policies_of(SPI_OUT, SPI_IN),
               blue_out.spi, blue_in.spi));
    for (unsigned i = 1; i <= 3; i++) {
        struct frame *out = between("10.3.0.10:1", FAR ":2"),
                     *in = between(FAR ":2", "10.3.0.10:1");

        /* Both in one turn. */
        inject(LAN, to_far());
        inject(DMZ, out);
        turn();
        expect_esp(WAN, &out4, hop(to_far()), .sequence = i);
        expect_esp(ISP, &blue_out, hop(out), .sequence = i);
        inject(WAN, esp(&in4, from_far(), .sequence = i));
        inject(ISP, esp(&blue_in, in, .sequence = i));
        turn();
        expect(LAN, hop(from_far()));
        expect(DMZ, hop(in));
    }
    /* An association is known in its VRF alone. */
    passes(WAN, WAN, esp(&blue_in, from_far(), .sequence = 10));
    passes(ISP, ISP, esp(&in4, from_far(), .sequence = 10));
    is_dropped(ISP, between(FAR ":2", "10.3.0.10:1"), "ipsec_in.unprotected");
}

/* The outer packet may be routed in another VRF than the inner one. */
CASE(outer_vrf) {
    struct esp_sa blue = {
        .spi = SPI_OUT, .source = "100.64.4.1", .destination = "203.0.113.20", GCM};

    start(text("{'vrfs': {'blue': {'table': 7}}, 'interfaces': {"
               "'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
               "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
               "'isp': {" ISP_PORT ", " ISP_ADDRESSES ", 'vrf': 'blue'}},"
               "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," ISP_NEIGHBOURS "],"
               "'routes': [" DEFAULT_ROUTES
               ", {'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via': '100.64.4.2'}],"
               "'ipsec': {'sas': [%s], 'policies': [%s]}," UNLIMITED "}",
               sa_json(&blue, "out", ", 'vrf': 'blue'"), policies_of(SPI_OUT, 0)));
    inject(LAN, to_far());
    expect_esp(ISP, &blue, hop(to_far()));
    passes(LAN, WAN, between(INSIDE ":1", SERVER ":2"));
}

/* --- firewall --- */

static const char *with_firewall(const char *rules) {
    return with_ipsec_and(
        text("'sas': [%s], 'policies': [%s]", sas_both(), policies_of(SPI_OUT, SPI_IN)),
        text("'firewall': {'default': 'drop', 'router_default': 'accept',"
             " 'rules': [%s]}",
             rules));
}

CASE(firewall_sees_what_was_inside) {
    start(with_firewall("{'name': 'vpn', 'in': 'wan', 'out': 'lan', 'source': '10.9.0.0/16',"
                        " 'protocol': 'udp', 'destination_port': 1000, 'action': 'accept'}"));
    comes_in(&in4, from_far(), .sequence = 1);
    inject(WAN, esp(&in4, between(FAR ":2000", INSIDE ":1001"), .sequence = 2));
    expect_nothing(ANYWHERE);
    expect_drop("firewall.default", 1);
    inject(WAN, esp(&in4, tcp4(.source = FAR ":1", .destination = INSIDE ":1000", .tcp_flags = SYN),
                    .sequence = 3));
    expect_nothing(ANYWHERE);
    expect_drop("firewall.default", 1);
    /* The answer belongs to the session, and is protected. */
    goes_out(&out4, to_far(), .sequence = 1);
    is_dropped(LAN, between(INSIDE ":1", FAR ":2"), "firewall.default");
    contains(rpc("session.list", "{}"), "10.9.0.1");
}

CASE(firewall_lets_out_and_answers_in) {
    start(with_firewall("{'name': 'out', 'in': 'lan', 'out': 'wan', 'action': 'accept'}"));
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
    goes_out(&out4, to_far6(), .sequence = 2, .df = true);
    comes_in(&in4, from_far6(), .sequence = 2);
    is_dropped(WAN, esp(&in4, between(FAR ":2", INSIDE ":9"), .sequence = 3), "firewall.default");
    /* An answer in the clear is none, session or not. */
    is_dropped(WAN, from_far(), "ipsec_in.unprotected");
    passes(LAN, WAN, between(INSIDE ":1", SERVER ":2"));
    passes(WAN, LAN, between(SERVER ":2", INSIDE ":1"));
}

/* --- NAT --- */

static const char *with_nat(void) {
    return with_ipsec_and(
        text("'sas': [%s], 'policies': [%s]", sas_both(), policies_of(SPI_OUT, SPI_IN)),
        "'nat': {'source': [{'out': 'wan', 'source': '192.168.1.0/24',"
        " 'to': 'interface'}]}");
}

CASE(source_nat_is_for_what_is_not_protected) {
    start(with_nat());
    for (unsigned i = 1; i <= 3; i++) {
        goes_out(&out4, to_far(), .sequence = 2 * i - 1);
        comes_in(&in4, from_far(), .sequence = 2 * i - 1);
        goes_out(&out4, icmp4_echo(.source = INSIDE, .destination = FAR, .identifier = 7),
                 .sequence = 2 * i);
        comes_in(&in4, icmp4_echo_reply(.source = FAR, .destination = INSIDE, .identifier = 7),
                 .sequence = 2 * i);
        inject(LAN, between(INSIDE ":1024", SERVER ":53"));
        expect(WAN, udp4(.source = ROUTER ":1024", .destination = SERVER ":53", .ttl = 63));
        inject(WAN, between(SERVER ":53", ROUTER ":1024"));
        expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":1024", .ttl = 63));
        inject(LAN, icmp4_echo(.source = INSIDE, .destination = SERVER, .identifier = 0x4321));
        expect(WAN, icmp4_echo(.source = ROUTER, .destination = SERVER, .identifier = 0x4321,
                               .ttl = 63));
    }
}

CASE(sessions_with_nat_begin_at_either_end) {
    start(with_nat());
    comes_in(&in4, tcp4(.source = FAR ":1", .destination = INSIDE ":80", .tcp_flags = SYN),
             .sequence = 1);
    goes_out(&out4, tcp4(.source = INSIDE ":80", .destination = FAR ":1", .tcp_flags = SYN | ACK),
             .sequence = 1);
    goes_out(&out4, tcp4(.source = INSIDE ":81", .destination = FAR ":1", .tcp_flags = SYN),
             .sequence = 2);
    comes_in(&in4, tcp4(.source = FAR ":1", .destination = INSIDE ":81", .tcp_flags = SYN | ACK),
             .sequence = 2);
}

/* Errors about what was inside come back by the tunnel. */
CASE(icmp_errors_with_nat) {
    struct frame *sent = to_far(.size = 100);
    struct frame *error =
        icmp4_error(.source = FAR, .destination = INSIDE, .type = 3, .code = 3, .about = hop(sent));

    start(with_nat());
    goes_out(&out4, sent, .sequence = 1);
    comes_in(&in4, error, .sequence = 1);
}

CASE(nat_and_too_long) {
    unsigned room = esp_room(&out4, 1500);
    struct frame *sent = to_far(.size = room + 1 - 28, .fragment = DONT_FRAGMENT);

    start(with_nat());
    inject(LAN, sent);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = INSIDE, .type = 3, .code = 4,
                            .rest = room, .about = sent));
    expect_drop("local.too_big", 1);
    sent = to_far(.size = 3000);
    inject(LAN, sent);
    for (unsigned at = 0, piece = (room - 20) / 8 * 8, i = 1; at < 3008; at += piece, i++)
        expect_esp(WAN, &out4, hop(fragment4(sent, at, 3008 - at < piece ? 3008 - at : piece)),
                   .sequence = i);
}

/* A policy that makes an exception leaves the packet to NAT. */
CASE(bypass_and_nat) {
    start(with_ipsec_and(
        text("'sas': [%s], 'policies': [%s, {'direction': 'out', 'destination': '" FAR "',"
             " 'action': 'bypass', 'priority': 0, 'protocol': 'udp'},"
             "{'direction': 'out', 'destination': '10.9.0.0/16', 'action': 'protect',"
             " 'spi': 4096, 'priority': 5}]",
             sas_both(), policies_of(0, SPI_IN)),
        "'nat': {'source': [{'out': 'wan', 'source': '192.168.1.0/24', 'to': 'interface'}]}"));
    inject(LAN, between(INSIDE ":1024", FAR ":53"));
    expect(WAN, udp4(.source = ROUTER ":1024", .destination = FAR ":53", .ttl = 63));
    goes_out(&out4, between(INSIDE ":1024", "10.9.0.2:53"), .sequence = 1);
}

/* ESP of other hosts is traffic like any other: protected once more, translated where no policy is
 * about it, and not let in where it should have been protected. */
CASE(esp_of_others) {
    start(with_nat());
    goes_out(&out4, ip4(.source = INSIDE, .destination = FAR, .protocol = 50, .size = 40),
             .sequence = 1);
    comes_in(&in4, ip4(.source = FAR, .destination = INSIDE, .protocol = 50, .size = 40),
             .sequence = 1);
    is_dropped(WAN, ip4(.source = FAR, .destination = INSIDE, .protocol = 50, .size = 40),
               "ipsec_in.unprotected");
    inject(LAN, ip4(.source = INSIDE, .destination = SERVER, .protocol = 50, .size = 40));
    expect(WAN,
           ip4(.source = ROUTER, .destination = SERVER, .protocol = 50, .size = 40, .ttl = 63));
}

CASE(policies_about_esp) {
    start(with_ipsec("'policies': [{'direction': 'out', 'source': '0.0.0.0/0', 'protocol': 'esp',"
                     " 'action': 'discard'},"
                     "{'direction': 'in', 'source': '10.9.0.0/16', 'protocol': 'esp',"
                     " 'action': 'discard'}]"));
    is_dropped(LAN, ip4(.source = INSIDE, .destination = FAR, .protocol = 50, .size = 40),
               "ipsec_out.discarded");
    is_dropped(WAN, ip4(.source = FAR, .destination = INSIDE, .protocol = 50, .size = 40),
               "ipsec_in.discarded");
    is_dropped(WAN, ip4(.source = FAR, .destination = ROUTER, .protocol = 50, .size = 40),
               "ipsec_in.unknown_spi");
}

/* What NAT has sent out in the clear must not go on so once a policy protects it; and an inside
 * address does not leave when there is none any more. */
CASE(live_sessions_follow_the_policies) {
    const char *sections =
        "'nat': {'source': [{'out': 'wan', 'source': '192.168.1.0/24', 'to': 'interface'}]}";
    struct frame *packet = between(INSIDE ":1024", FAR ":53");
    struct frame *translated = udp4(.source = ROUTER ":1024", .destination = FAR ":53", .ttl = 63);

    start(with_ipsec_and("", sections));
    inject(LAN, packet);
    expect(WAN, translated);
    apply(with_nat());
    advance(100);
    goes_out(&out4, packet, .sequence = 1);
    apply(with_nat());
    advance(100);
    goes_out(&out4, packet, .sequence = 2);
    comes_in(&in4, between(FAR ":53", INSIDE ":1024"), .sequence = 1);
    apply(with_ipsec_and("", sections));
    advance(100);
    inject(LAN, packet);
    expect(WAN, translated);
}

/* A policy is in force until the next publication, which may come later than the end of its
 * association: an IKE daemon deletes the one, and then the other. */
CASE(associations_go_before_policies_that_name_them) {
    struct ipsec_policy_settings settings = {.direction = IPSEC_OUT, .spi = SPI_OUT};
    struct ipsec_policy *policy;

    start(with_ipsec(""));
    settings.selector.source = settings.selector.destination =
        (struct ip_prefix){.address.family = AF_INET};
    settings.selector.source_port[1] = settings.selector.destination_port[1] = UINT16_MAX;
    require(ipsec_policy_add(&settings, IPSEC_OF_CLIENT, &policy) == 0, "no policy");
    add_out_sa_at(&out4, 0);
    require(ipsec_publish() == 0, "not published");
    goes_out(&out4, to_far(), .sequence = 1);
    ipsec_policy_delete(policy);
    goes_out(&out4, to_far(), .sequence = 2);
    remove_sa(&out4, IPSEC_OUT);
    advance(100); /* nobody can have it any more */
    is_dropped(LAN, to_far(), "ipsec_out.no_sa");
    add_out_sa_at(&out4, 10);
    goes_out(&out4, to_far(), .sequence = 11);
    require(ipsec_publish() == 0, "not published");
    passes(LAN, WAN, to_far());
}

/* The tunnel's own packets are the router's: no rule translates them. */
CASE(outer_packets_are_not_translated) {
    start(with_ipsec_and(
        text("'sas': [%s], 'policies': [%s]", sas_both(), policies_of(SPI_OUT, SPI_IN)),
        "'nat': {'source': [{'out': 'wan', 'to': '198.51.100.50'}]}"));
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
}

CASE(firewall_and_nat) {
    start(with_ipsec_and(
        text("'sas': [%s], 'policies': [%s]", sas_both(), policies_of(SPI_OUT, SPI_IN)),
        "'nat': {'source': [{'out': 'wan', 'source': '192.168.1.0/24', 'to': 'interface'}]},"
        "'firewall': {'default': 'drop', 'router_default': 'accept', 'rules': ["
        "{'name': 'out', 'in': 'lan', 'out': 'wan', 'action': 'accept'},"
        "{'name': 'vpn', 'in': 'wan', 'source': '10.9.0.0/16', 'protocol': 'udp',"
        " 'destination_port': 7, 'action': 'accept'}]}"));
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
    comes_in(&in4, between(FAR ":1", INSIDE ":7"), .sequence = 2);
    is_dropped(WAN, esp(&in4, between(FAR ":1", INSIDE ":8"), .sequence = 3), "firewall.default");
    inject(LAN, between(INSIDE ":1024", SERVER ":53"));
    expect(WAN, udp4(.source = ROUTER ":1024", .destination = SERVER ":53", .ttl = 63));
}

HARNESS_MAIN()
