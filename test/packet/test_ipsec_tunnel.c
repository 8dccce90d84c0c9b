/* Tunnel interfaces of IPsec: routes lead into them, and what comes out has come in by them. */
#include "core/log.h"
#include "ipsec_network.h"

enum { TUNNEL_MTU = 1400, UDP4 = 28 };

#define VPN "'vpn': {'if_id': 7, 'addresses': ['10.255.0.1/30', '2001:db8:ff::1/126']}"
#define BY_ROUTE                                     \
    "{'prefix': '10.9.0.0/16', 'interface': 'vpn'}," \
    "{'prefix': '2001:db8:9::/48', 'interface': 'vpn'}"
#define FOR_VPN ", 'interface': 'vpn'"
#define ANY_OUT "{'direction': 'out', 'interface': 'vpn', 'action': 'protect', 'spi': 4096"
#define ANY_IN "{'direction': 'in', 'interface': 'vpn', 'action': 'protect', 'spi': 8192"
/* Selectors are of one family: everything takes two. */
#define ALL_POLICIES                                                               \
    ANY_OUT ", 'source': '0.0.0.0/0'}," ANY_IN ", 'source': '0.0.0.0/0'}," ANY_OUT \
            ", 'source': '::/0'}," ANY_IN ", 'source': '::/0'}"

/* Interfaces besides the usual ones, routes besides the default routes, and the rest. */
static const char *network(const char *interfaces, const char *routes, const char *sas,
                           const char *policies, const char *sections) {
    return text("{'interfaces': {'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
                "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
                "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}%s%s},"
                "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
                "'routes': [" DEFAULT_ROUTES
                "%s%s], 'ipsec': {'sas': [%s], 'policies': [%s]}%s%s, " UNLIMITED "}",
                interfaces[0] ? "," : "", interfaces, routes[0] ? "," : "", routes, sas, policies,
                sections[0] ? ", " : "", sections);
}

static const char *sas_for_vpn(void) {
    return both(sa_json(&out4, "out", FOR_VPN), sa_json(&in4, "in", FOR_VPN));
}

static const char *with_vpn_and(const char *sections) {
    return network(VPN, BY_ROUTE, sas_for_vpn(), ALL_POLICIES, sections);
}

static const char *with_vpn(void) {
    return with_vpn_and("");
}

static struct frame *between(const char *source, const char *destination) {
    return udp4(.source = source, .destination = destination);
}

/* --- the way there and back --- */

CASE(routes_lead_into_it) {
    start(with_vpn());
    goes_out(&out4, to_far(), .sequence = 1);
    goes_out(&out4, to_far6(), .sequence = 2, .df = true);
    comes_in(&in4, from_far(), .sequence = 1);
    comes_in(&in4, from_far6(), .sequence = 2);
    expect_no_drops();
}

CASE(other_packets_do_not_care) {
    start(with_vpn());
    passes(LAN, WAN, between(INSIDE ":1", OUTSIDE ":2"));
    /* The policies are about the tunnel, not about what comes in by other interfaces. */
    passes(WAN, LAN, from_far());
    passes(LAN, DMZ, between(INSIDE ":1", "10.3.0.10:2"));
    expect_no_drops();
}

CASE(a_gateway_in_it) {
    start(network(VPN,
                  "{'prefix': '10.9.0.0/16', 'via': '10.255.0.2'},"
                  "{'prefix': '2001:db8:9::/48', 'via': '2001:db8:ff::2'}",
                  sas_for_vpn(), ALL_POLICIES, ""));
    goes_out(&out4, to_far(), .sequence = 1);
    goes_out(&out4, to_far6(), .sequence = 2, .df = true);
    goes_out(&out4, between(INSIDE ":1", "10.255.0.2:2"), .sequence = 3);
}

CASE(counts_what_was_inside) {
    unsigned inner = to_far()->length - IP;
    struct counts before;

    start(with_vpn());
    before = counts_of("wan");
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
    expect_counts("vpn", .rx_packets = 1, .rx_bytes = inner, .tx_packets = 1, .tx_bytes = inner);
    require(counts_of("wan").tx_packets - before.tx_packets == 1,
            "the outer packets count as well");
}

/* Several at once: into the tunnel, and past it. */
CASE(mixed_bursts) {
    const struct frame *past = between(INSIDE ":1", OUTSIDE ":2");

    start(with_vpn());
    inject(LAN, to_far());
    inject(LAN, past);
    inject(LAN, to_far(.size = 100));
    expect_esp(WAN, &out4, hop(to_far()), .sequence = 1);
    expect(WAN, hop(past));
    expect_esp(WAN, &out4, hop(to_far(.size = 100)), .sequence = 2);
    inject(WAN, esp(&in4, from_far(), .sequence = 1));
    inject(WAN, between(OUTSIDE ":1", INSIDE ":2"));
    inject(WAN, esp(&in4, from_far(.size = 100), .sequence = 2));
    expect(LAN, hop(from_far()));
    expect(LAN, hop(between(OUTSIDE ":1", INSIDE ":2")));
    expect(LAN, hop(from_far(.size = 100)));
    expect_no_drops();
}

CASE(whole_bursts) {
    start(with_vpn());
    for (unsigned i = 0; i < 40; i++)
        inject(LAN, to_far(.size = 20 + i));
    for (unsigned i = 0; i < 40; i++)
        expect_esp(WAN, &out4, hop(to_far(.size = 20 + i)), .sequence = 1 + i);
    for (unsigned i = 0; i < 40; i++)
        inject(WAN, esp(&in4, from_far(.size = 20 + i), .sequence = 1 + i));
    for (unsigned i = 0; i < 40; i++)
        expect(LAN, hop(from_far(.size = 20 + i)));
    expect_no_drops();
}

/* The same network behind two tunnels: the route decides, whatever the selectors say. */
CASE(two_tunnels) {
    struct esp_sa second_out = out4, second_in = in4;

    second_out.spi = 0x1001;
    second_in.spi = 0x2001;
    start(network(
        VPN ", 'other': {'if_id': 8}",
        BY_ROUTE ", {'prefix': '10.9.128.0/17', 'interface': 'other'}",
        both(sas_for_vpn(), both(sa_json(&second_out, "out", ", 'interface': 'other'"),
                                 sa_json(&second_in, "in", ", 'interface': 'other'"))),
        ALL_POLICIES
        ", {'direction': 'out', 'interface': 'other', 'source': '0.0.0.0/0', 'action': 'protect',"
        " 'spi': 4097},"
        "{'direction': 'in', 'interface': 'other', 'source': '10.9.128.0/17',"
        " 'action': 'protect', 'spi': 8193}",
        ""));
    goes_out(&out4, to_far(), .sequence = 1);
    goes_out(&second_out, between(INSIDE ":1", "10.9.200.1:2"), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
    comes_in(&second_in, between("10.9.200.1:1", INSIDE ":2"), .sequence = 1);
    is_dropped(WAN, esp(&second_in, from_far(), .sequence = 2), "ipsec_in.no_policy");
}

/* Side by side in bursts, each by its own uplink, whose VRFs are not the same. */
CASE(bursts_of_two_tunnels) {
    struct esp_sa second = out4;
    unsigned length = between(INSIDE ":1", FAR ":2")->length - IP;

    second.spi = 0x1001;
    second.source = "10.3.0.1";
    start(text(
        "{'vrfs': {'blue': {'table': 10}}, 'interfaces': {"
        "'lan': {" LAN_PORT ", " LAN_ADDRESSES "}, 'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
        "'dmz': {" DMZ_PORT ", 'vrf': 'blue', " DMZ_ADDRESSES "}," VPN ", 'other': {'if_id': 8}},"
        "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
        "'routes': [" DEFAULT_ROUTES ", " BY_ROUTE
        ", {'prefix': '10.9.128.0/17', 'interface': 'other'},"
        "{'vrf': 'blue', 'prefix': '0.0.0.0/0', 'via': '10.3.0.10'}],"
        "'ipsec': {'sas': [%s], 'policies': [" ALL_POLICIES
        ", {'direction': 'out', 'interface': 'other', 'source': '0.0.0.0/0', 'action':"
        " 'protect', 'spi': 4097}]}, " UNLIMITED "}",
        both(sas_for_vpn(), sa_json(&second, "out", ", 'interface': 'other', 'vrf': 'blue'"))));
    /* In turn, and eight by eight with another one between them. */
    for (unsigned i = 0; i < 48; i++)
        inject(LAN, between(INSIDE ":1", i % 2 ? FAR ":2" : "10.9.200.1:2"));
    turn();
    for (unsigned i = 0; i < 48; i++)
        inject(LAN, between(INSIDE ":1", (i / 8 + (i % 8 == 5)) % 2 ? FAR ":2" : "10.9.200.1:2"));
    for (unsigned i = 1; i <= 48; i++) {
        expect_esp(WAN, &out4, hop(between(INSIDE ":1", FAR ":2")), .sequence = i);
        expect_esp(DMZ, &second, hop(between(INSIDE ":1", "10.9.200.1:2")), .sequence = i);
    }
    expect_counts("vpn", .tx_packets = 48, .tx_bytes = 48 * length);
    expect_counts("other", .tx_packets = 48, .tx_bytes = 48 * length);
    expect_no_drops();
}

/* Two paths of one route, which both go into tunnels. */
CASE(equal_cost) {
    struct esp_sa second_out = out4;
    unsigned first = 0, second = 0;

    second_out.spi = 0x1001;
    start(network(
        VPN ", 'other': {'if_id': 8}",
        "{'prefix': '10.9.0.0/16', 'via': [{'interface': 'vpn'}, {'interface': 'other'}]}",
        both(sas_for_vpn(), sa_json(&second_out, "out", ", 'interface': 'other'")),
        ALL_POLICIES
        ", {'direction': 'out', 'interface': 'other', 'source': '0.0.0.0/0', 'action': 'protect',"
        " 'spi': 4097}",
        ""));
    for (unsigned i = 0; i < 32; i++) {
        const struct frame *found;
        struct esp_found opened;

        inject(LAN, between(text(INSIDE ":%u", 1000 + i), FAR ":2"));
        found = take_one(WAN);
        if (!esp_unwrap(&out4, found, 0, &opened))
            first++;
        else if (!esp_unwrap(&second_out, found, 0, &opened))
            second++;
    }
    require(first + second == 32 && first > 4 && second > 4, "%u and %u", first, second);
}

CASE(vrfs) {
    start(text("{'vrfs': {'red': {'table': 10}}, 'interfaces': {"
               "'lan': {" LAN_PORT ", 'vrf': 'red', " LAN_ADDRESSES "},"
               "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
               "'vpn': {'if_id': 7, 'vrf': 'red'}},"
               "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "],"
               "'routes': [" DEFAULT_ROUTES ", {'vrf': 'red', 'prefix': '0.0.0.0/0',"
               " 'interface': 'vpn'}],"
               "'ipsec': {'sas': [%s], 'policies': [" ALL_POLICIES "]}, " UNLIMITED "}",
               sas_for_vpn()));
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
    passes(WAN, WAN, from_far()); /* in the clear there is no way into the other VRF */
    inject(WAN, esp(&in4, from_far(), .sequence = 2));
    inject(WAN, from_far());
    expect(LAN, hop(from_far()));
    expect(WAN, hop(from_far()));
    expect_nothing(ANYWHERE);
}

/* --- the router itself --- */

CASE(the_router_answers) {
    const struct frame *echo = icmp4_echo(.source = "10.255.0.2", .destination = "10.255.0.1");

    start(with_vpn());
    inject(WAN, esp(&in4, echo, .sequence = 1));
    expect_esp(WAN, &out4, icmp4_echo_reply(.source = "10.255.0.1", .destination = "10.255.0.2"),
               .sequence = 1);
    expect_no_drops();
}

CASE(hops_run_out) {
    struct frame *last = to_far(.ttl = 1);

    start(with_vpn());
    inject(LAN, last);
    expect(LAN,
           icmp4_error(.source = "192.168.1.1", .destination = INSIDE, .type = 11, .about = last));
    expect_drop("local.time_exceeded", 1);
}

/* --- without protection nothing leaves --- */

CASE(no_policy) {
    log_set_level(LOG_LEVEL_NOTICE);
    start(network(VPN, BY_ROUTE, sas_for_vpn(), "", ""));
    is_dropped(LAN, to_far(), "ipsec_out.no_policy");
    contains(rpc("log.list", "{}"), "event=no_policy src=192.168.1.10 dst=10.9.0.1 proto=udp'");
    apply(network(VPN, BY_ROUTE, sas_for_vpn(),
                  "{'direction': 'out', 'interface': 'vpn', 'destination': '10.9.0.1',"
                  " 'action': 'bypass'},"
                  "{'direction': 'out', 'interface': 'vpn', 'destination': '10.9.0.2',"
                  " 'action': 'discard'},"
                  "{'direction': 'out', 'interface': 'vpn', 'destination': '10.9.0.3',"
                  " 'action': 'protect', 'request': 99}",
                  ""));
    is_dropped(LAN, to_far(), "ipsec_out.no_policy"); /* bypass means nothing in there */
    is_dropped(LAN, between(INSIDE ":1", "10.9.0.2:2"), "ipsec_out.discarded");
    is_dropped(LAN, between(INSIDE ":1", "10.9.0.3:2"), "ipsec_out.no_sa");
    is_dropped(LAN, between(INSIDE ":1", "10.9.0.4:2"), "ipsec_out.no_policy");
    is_dropped(LAN, to_far6(), "ipsec_out.no_policy");
}

/* Of others; elsewhere it passes by the policies. */
CASE(esp_is_protected_as_well) {
    start(with_vpn());
    goes_out(&out4, ip4(.source = INSIDE, .destination = FAR, .protocol = 50), .sequence = 1);
}

/* An association without the interface's number is not one of its. */
CASE(associations_belong_to_it) {
    start(network(VPN, BY_ROUTE, both(sa_json(&out4, "out", ""), sa_json(&in4, "in", "")),
                  ALL_POLICIES, ""));
    is_dropped(LAN, to_far(), "ipsec_out.no_sa");
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 1), "ipsec_in.no_policy");
    apply(network(VPN, BY_ROUTE, sas_for_vpn(), ALL_POLICIES, ""));
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
}

/* Its own packets go out in the clear, or by a policy, but not into a tunnel again. */
CASE(no_tunnel_in_a_tunnel) {
    start(network(VPN, BY_ROUTE ", {'prefix': '" PEER "/32', 'interface': 'vpn'}", sas_for_vpn(),
                  ALL_POLICIES, ""));
    is_dropped(LAN, to_far(), "ipsec_out.no_route");
}

/* --- lengths --- */

CASE(too_big) {
    struct frame *fits = to_far(.size = TUNNEL_MTU - UDP4, .fragment = DONT_FRAGMENT);
    struct frame *big = to_far(.size = TUNNEL_MTU - UDP4 + 1, .fragment = DONT_FRAGMENT);

    start(with_vpn());
    goes_out(&out4, fits, .sequence = 1, .df = true);
    inject(LAN, big);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = INSIDE, .type = 3, .code = 4,
                            .rest = TUNNEL_MTU, .about = big));
    expect_drop("local.too_big", 1);
    big = to_far(.size = 1472);
    inject(LAN, big);
    expect_esp(WAN, &out4, fragment4(hop(big), 0, 1376), .sequence = 2);
    expect_esp(WAN, &out4, fragment4(hop(big), 1376, 104), .sequence = 3);
    expect_counts("vpn", .tx_packets = 3, .tx_bytes = 1400 + 1396 + 124);
}

/* The way of the outer packet leaves less than the interface says. */
CASE(less_room_than_it_says) {
    struct frame *big = to_far(.size = 1472, .fragment = DONT_FRAGMENT);

    start(network("'vpn': {'if_id': 7, 'mtu': 9000}", BY_ROUTE, sas_for_vpn(), ALL_POLICIES, ""));
    inject(LAN, big);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = INSIDE, .type = 3, .code = 4,
                            .rest = 1446, .about = big));
    expect_drop("local.too_big", 1);
}

/* --- up and down --- */

CASE(down) {
    start(with_vpn());
    rpc("interface.set", "{'name': 'vpn', 'admin': 'down'}");
    passes(LAN, WAN, to_far()); /* by the default route: the other one went with the interface */
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 1), "ipsec_in.interface_down");
    rpc("interface.set", "{'name': 'vpn', 'admin': 'up'}");
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 2);
}

CASE(comes_and_goes) {
    unsigned sequence = 0;

    start(with_vpn());
    for (unsigned round = 0; round < 5; round++) {
        goes_out(&out4, to_far(), .sequence = ++sequence);
        comes_in(&in4, from_far(), .sequence = sequence);
        apply(network("", "", "", "", ""));
        passes(LAN, WAN, to_far());
        is_dropped(WAN, esp(&in4, from_far(), .sequence = sequence + 1), "ipsec_in.unknown_spi");
        apply(with_vpn());
        sequence = 0; /* a new association */
    }
}

/* Clients', which stay while the interface goes: they wait for it. */
CASE(waits_for_its_interface) {
    const char *without = network("", "", "", "", "");
    const char *with = network(VPN, BY_ROUTE, "", "", "");

    start(with);
    rpc("ipsec.sa.add", sa_json(&out4, "out", FOR_VPN));
    rpc("ipsec.sa.add", sa_json(&in4, "in", FOR_VPN));
    rpc("ipsec.policy.add",
        "{'name': 'o', 'direction': 'out', 'interface': 'vpn', 'source': '0.0.0.0/0', 'action':"
        " 'protect', 'spi': 4096}");
    rpc("ipsec.policy.add",
        "{'name': 'i', 'direction': 'in', 'interface': 'vpn', 'source': '0.0.0.0/0', 'action':"
        " 'protect', 'spi': 8192}");
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
    contains(rpc("ipsec.sa.list", "{}"), "'if_id':7,'interface':'vpn'");
    apply(without);
    contains_not(rpc("ipsec.sa.list", "{}"), "'interface'");
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 2), "ipsec_in.interface_down");
    passes(LAN, WAN, to_far());
    apply(with);
    goes_out(&out4, to_far(), .sequence = 2);
    comes_in(&in4, from_far(), .sequence = 3);
    contains(rpc("ipsec.policy.list", "{}"), "'if_id':7,'interface':'vpn'");
}

/* --- firewall, NAT, and the reverse path --- */

CASE(the_firewall_knows_it) {
    start(with_vpn_and("'firewall': {'default': 'drop', 'router_default': 'accept', 'rules': ["
                       "{'name': 'in', 'in': 'vpn', 'out': 'lan', 'protocol': 'udp',"
                       " 'destination_port': 7, 'action': 'accept'},"
                       "{'name': 'out', 'in': 'lan', 'out': 'vpn', 'action': 'accept'}]}"));
    comes_in(&in4, between(FAR ":1", INSIDE ":7"), .sequence = 1);
    is_dropped(WAN, esp(&in4, between(FAR ":1", INSIDE ":8"), .sequence = 2), "firewall.default");
    is_dropped(WAN, between(FAR ":3", INSIDE ":7"), "firewall.default");
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 3); /* the answer */
    is_dropped(LAN, between(INSIDE ":1", OUTSIDE ":2"), "firewall.default");
}

/* Behind the interface's own address, which is what route-based tunnels are often for. */
CASE(nat_into_it) {
    start(with_vpn_and("'nat': {'source': [{'out': 'vpn', 'source': '192.168.1.0/24', 'to':"
                       " 'interface'}, {'out': 'wan', 'to': 'interface'}]}"));
    inject(LAN, between(INSIDE ":1024", FAR ":53"));
    expect_esp(WAN, &out4, udp4(.source = "10.255.0.1:1024", .destination = FAR ":53", .ttl = 63),
               .sequence = 1);
    inject(WAN, esp(&in4, between(FAR ":53", "10.255.0.1:1024"), .sequence = 1));
    expect(LAN, hop(between(FAR ":53", INSIDE ":1024")));
}

/* A policy that is not about the interface does not keep what goes into it from translation. */
CASE(nat_despite_other_policies) {
    start(network(VPN, BY_ROUTE, sas_for_vpn(),
                  ALL_POLICIES ", {'direction': 'out', 'destination': '10.9.0.0/16', 'action':"
                               " 'protect', 'request': 5}",
                  "'nat': {'source': [{'out': 'vpn', 'to': 'interface'}]}"));
    inject(LAN, between(INSIDE ":1024", FAR ":53"));
    expect_esp(WAN, &out4, udp4(.source = "10.255.0.1:1024", .destination = FAR ":53", .ttl = 63),
               .sequence = 1);
}

/* A rule for the outer interface is not for what goes through the tunnel. */
CASE(nat_beside_it) {
    start(with_vpn_and("'nat': {'source': [{'out': 'wan', 'to': 'interface'}]}"));
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
}

CASE(reverse_path) {
    start(network("'vpn': {'if_id': 7, 'reverse_path': 'strict'}", BY_ROUTE, sas_for_vpn(),
                  ALL_POLICIES, ""));
    comes_in(&in4, from_far(), .sequence = 1);
    is_dropped(WAN, esp(&in4, between("10.10.0.1:1", INSIDE ":2"), .sequence = 2),
               "route.reverse_path");
}

/* --- configuration --- */

CASE(mistakes) {
    const char *without = "{'interfaces': {'vpn': {'if_id': 7}}}";

    start(with_vpn());
    apply_fails_because(without, "$.interfaces.vpn.if_id");
    apply_fails_because(
        network(VPN, BY_ROUTE, sa_json(&out4, "out", ", 'interface': 'lan'"), "", ""),
        "$.ipsec.sas[0].interface");
    apply_fails_because(
        network(VPN, BY_ROUTE, "",
                "{'direction': 'in', 'interface': 'nobody', 'source': '::/0', 'action': 'discard'}",
                ""),
        "$.ipsec.policies[0].interface");
    apply_fails_because(
        network(VPN, BY_ROUTE, "",
                "{'direction': 'in', 'interface': 'vpn', 'vrf': 'default', 'source': '::/0',"
                " 'action': 'discard'}",
                ""),
        "$.ipsec.policies[0].vrf");
    rpc_fails("ipsec.sa.add", sa_json(&out6, "out", ", 'interface': 'lan'"), "$.interface");
    rpc_fails(
        "ipsec.policy.add",
        "{'name': 'p', 'direction': 'in', 'interface': 'no', 'source': '::/0', 'action': 'discard'}",
        "$.interface");
    goes_out(&out4, to_far(), .sequence = 1);
}

/* With another number it is another interface, for which the associations are made anew. */
CASE(another_number) {
    start(with_vpn());
    goes_out(&out4, to_far(), .sequence = 1);
    apply(network("'vpn': {'if_id': 9}", BY_ROUTE, sas_for_vpn(), ALL_POLICIES, ""));
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
    contains(rpc("interface.list", "{}"), "'if_id':9");
}

/* --- no link layer --- */

/* What the peer says about its own is not believed, and traffic goes on into the tunnel. */
CASE(neighbour_discovery_in_a_tunnel) {
    static const char *const sources[] = {"2001:db8:ff::2", "fe80::9"};

    start(with_vpn());
    for (unsigned i = 0; i < 2; i++)
        is_dropped(WAN,
                   esp(&in4,
                       neighbour_solicitation(.source = sources[i], .destination = "2001:db8:ff::1",
                                              .target = "2001:db8:ff::1",
                                              .source_link = "02:00:00:00:09:09"),
                       .sequence = i + 1),
                   "nd.source_not_on_link");
    contains_not(rpc("neighbour.list", "{}"), "vpn");
    goes_out(&out4, udp6(.source = "[" INSIDE6 "]:1", .destination = "[2001:db8:ff::2]:2"),
             .sequence = 1, .df = true);
}

/* An answer to a link-local address makes no neighbour either. */
CASE(an_echo_from_a_link_local_address_in_a_tunnel) {
    start(with_vpn());
    inject(WAN, esp(&in4, icmp6_echo(.source = "fe80::9", .destination = "2001:db8:ff::1"),
                    .sequence = 1));
    turn();
    forget_drops();
    contains_not(rpc("neighbour.list", "{}"), "fe80::9");
    inject(WAN, esp(&in4,
                    neighbour_advertisement(.source = "fe80::9", .destination = "2001:db8:ff::1",
                                            .target = "fe80::9", .flags = 0x60,
                                            .target_link = "02:00:00:00:09:09"),
                    .sequence = 2));
    inject(WAN, esp(&in4, icmp6_echo(.source = "fe80::9", .destination = "2001:db8:ff::1"),
                    .sequence = 3));
    turn();
    forget_drops();
    contains_not(rpc("neighbour.list", "{}"), "fe80::9");
}

CASE(a_static_neighbour_in_a_tunnel) {
    start(with_vpn());
    rpc_fails("neighbour.add",
              "{'interface': 'vpn', 'address': '10.255.0.2', 'mac': '02:00:00:00:09:09'}",
              "$.interface");
    goes_out(&out4, between(INSIDE ":1", "10.255.0.2:2"), .sequence = 1);
}

HARNESS_MAIN()
