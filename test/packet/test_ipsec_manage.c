/* IPsec as those who run it see it: how long associations live, what the log says of packets that
 * are refused, lists in pages, and peers whose NAT changes its mind. */
#include <unistd.h>

#include "core/log.h"
#include "ipsec_network.h"

/* --- lifetimes --- */

static const char *named_policies(void) {
    return "{'name': 'there', 'direction': 'out', 'destination': '10.9.0.0/16', 'action':"
           " 'protect', 'spi': 4096},"
           "{'name': 'back', 'direction': 'in', 'source': '10.9.0.0/16', 'action': 'protect',"
           " 'spi': 8192}";
}

static const char *with_lifetime(const char *lifetime) {
    const char *more = text(", 'lifetime': {%s}", lifetime);

    return with_sas(both(sa_json(&out4, "out", more), sa_json(&in4, "in", more)), named_policies());
}

static void both_are_gone(void) {
    is_dropped(LAN, to_far(), "ipsec_out.no_sa");
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 1000), "ipsec_in.unknown_spi");
    contains(rpc("ipsec.sa.list", "{}"), "{'sas':[]");
}

CASE(seconds) {
    log_set_level(LOG_LEVEL_NOTICE);
    start_at_once(with_lifetime("'seconds': 100"));
    advance(90000);
    forget_drops();
    discard(ANYWHERE);
    contains(rpc("ipsec.sa.list", "{}"), "'lifetime':{'seconds':100,'seconds_left':9.");
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
    advance(11000);
    both_are_gone();
    contains(rpc("log.list", "{}"), "association 0x00001000 from 198.51.100.1 to 203.0.113.9 has "
                                    "reached its hard limit, and is gone");
    /* An unchanged configuration does not bring a key back that has had its time. */
    apply(with_lifetime("'seconds': 100"));
    both_are_gone();
    apply(with_lifetime("'seconds': 101"));
    goes_out(&out4, to_far(), .sequence = 1);
}

CASE(packets) {
    start(with_lifetime("'packets': 3"));
    goes_out(&out4, to_far(), .sequence = 1);
    goes_out(&out4, to_far(), .sequence = 2);
    comes_in(&in4, from_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 2);
    advance(2000);
    contains(rpc("ipsec.sa.list", "{}"), "'lifetime':{'packets':3,'packets_left':1}");
    goes_out(&out4, to_far(), .sequence = 3);
    comes_in(&in4, from_far(), .sequence = 3);
    advance(600);
    both_are_gone();
}

CASE(bytes) {
    start(with_lifetime("'bytes': 1000"));
    goes_out(&out4, to_far(.size = 972), .sequence = 1); /* 1000 with its headers */
    comes_in(&in4, from_far(.size = 971), .sequence = 1);
    contains(rpc("ipsec.sa.list", "{}"), "'lifetime':{'bytes':1000,'bytes_left':0}");
    contains(rpc("ipsec.sa.list", "{}"), "'lifetime':{'bytes':1000,'bytes_left':1}");
    advance(600);
    is_dropped(LAN, to_far(), "ipsec_out.no_sa");
    comes_in(&in4, from_far(), .sequence = 2);
    advance(600);
    both_are_gone();
}

/* A soft limit is only told. */
CASE(soft_limits) {
    log_set_level(LOG_LEVEL_NOTICE);
    start(with_lifetime("'soft_seconds': 20, 'seconds': 10000, 'soft_packets': 5"));
    contains(rpc("ipsec.sa.list", "{}"), "'soft_seconds':20,'soft_packets':5}");
    contains_not(rpc("log.list", "{}"), "its soft limit");
    advance(20000);
    contains(rpc("log.list", "{}"), "association 0x00002000 from 203.0.113.9 to 198.51.100.1 has "
                                    "reached its soft limit");
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
}

CASE(lifetimes_of_clients) {
    start(with_ipsec(""));
    rpc("ipsec.sa.add", sa_json(&out4, "out", ", 'lifetime': {'seconds': 5}"));
    advance(4000);
    contains(rpc("ipsec.sa.list", "{}"), "'spi':4096");
    advance(2000);
    contains(rpc("ipsec.sa.list", "{}"), "{'sas':[]");
    /* Deleted before its time, it is not missed when that has come. */
    rpc("ipsec.sa.add", sa_json(&out4, "out", ", 'lifetime': {'seconds': 5, 'bytes': 100}"));
    rpc("ipsec.sa.delete", "{'spi': 4096, 'direction': 'out'}");
    advance(10000);
    rpc("ipsec.sa.add", sa_json(&out4, "out", ""));
    contains_not(rpc("ipsec.sa.list", "{}"), "lifetime");
}

CASE(lifetimes_that_are_refused) {
    static const struct {
        const char *lifetime, *path;
    } refusals[] = {
        {"{}", ""},
        {"7", ""},
        {"{'seconds': 0}", ".seconds"},
        {"{'bytes': -1}", ".bytes"},
        {"{'packets': '9'}", ".packets"},
        {"{'hours': 1}", ".hours"},
        {"{'seconds': 10, 'soft_seconds': 10}", ".soft_seconds"},
        {"{'bytes': 10, 'soft_bytes': 11}", ".soft_bytes"},
        {"{'packets': 10, 'soft_packets': 99}", ".soft_packets"},
    };

    start(standard);
    for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        apply_fails_because(
            with_sas(sa_json(&out4, "out", text(", 'lifetime': %s", refusals[i].lifetime)), ""),
            text("$.ipsec.sas[0].lifetime%s", refusals[i].path));
    apply(with_sas(sa_json(&out4, "out", ", 'lifetime': {'soft_seconds': 1}"), ""));
}

/* --- the audit log --- */

/* Lines of the cases before count in their second. */
static void begin_audit(void) {
    log_set_level(LOG_LEVEL_NOTICE);
    usleep(1100 * 1000);
}

static const char *with_window(void) {
    return tunnel(&out4, &in4, ", 'replay_window': 64");
}

CASE(refused_packets_are_logged) {
    struct frame *forged = esp(&in4, from_far(), .sequence = 101);
    struct esp_sa stranger = in4;

    begin_audit();
    start(with_window());
    forged->bytes[forged->length - 1] ^= 1;
    is_dropped(WAN, forged, "ipsec_in.integrity");
    contains(rpc("log.list", "{}"),
             "event=integrity spi=0x00002000 seq=101 src=203.0.113.9 dst=198.51.100.1'");
    comes_in(&in4, from_far(), .sequence = 202);
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 202), "ipsec_in.replayed");
    contains(rpc("log.list", "{}"), "event=replayed spi=0x00002000 seq=202 src=203.0.113.9");
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 103), "ipsec_in.too_old");
    contains(rpc("log.list", "{}"), "event=too_old spi=0x00002000 seq=103 src=203.0.113.9");
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 204, .trailer = "0102040304"),
               "ipsec_in.bad_padding");
    contains(rpc("log.list", "{}"), "event=bad_padding spi=0x00002000 seq=204 src=203.0.113.9");
    stranger.spi = 0x3000;
    is_dropped(WAN, esp(&stranger, from_far(), .sequence = 305), "ipsec_in.unknown_spi");
    contains(rpc("log.list", "{}"),
             "event=unknown_spi spi=0x00003000 seq=305 src=203.0.113.9 dst=198.51.100.1'");
    stranger = in4;
    stranger.source = "203.0.113.66";
    is_dropped(WAN, esp(&stranger, from_far(), .sequence = 306), "ipsec_in.wrong_source");
    contains(rpc("log.list", "{}"),
             "event=wrong_source spi=0x00002000 seq=306 src=203.0.113.66 dst=198.51.100.1'");
}

CASE(refused_packets_of_ipv6_are_logged) {
    struct frame *forged = esp(&in6, from_far6(), .sequence = 411);

    begin_audit();
    start(tunnel(&out6, &in6, ", 'replay_window': 64"));
    forged->bytes[forged->length - 1] ^= 1;
    is_dropped(WAN, forged, "ipsec_in.integrity");
    contains(rpc("log.list", "{}"), "event=integrity spi=0x00002000 seq=411 "
                                    "src=2001:db8:99::9 dst=2001:db8:2::1'");
}

/* What was inside, and by what association it came. */
CASE(what_no_policy_lets_in_is_logged) {
    begin_audit();
    start(with_window());
    is_dropped(
        WAN, esp(&in4, udp4(.source = "10.77.0.1:1", .destination = INSIDE ":2"), .sequence = 521),
        "ipsec_in.no_policy");
    contains(rpc("log.list", "{}"),
             "event=no_policy spi=0x00002000 seq=521 sa_src=203.0.113.9 sa_dst=198.51.100.1 "
             "src=10.77.0.1 dst=192.168.1.10 proto=udp'");
    is_dropped(WAN, from_far(), "ipsec_in.unprotected");
    contains(rpc("log.list", "{}"), "event=unprotected src=10.9.0.1 dst=192.168.1.10 proto=udp'");
}

CASE(used_up_numbers_are_logged) {
    begin_audit();
    start(with_ipsec(""));
    rpc("ipsec.policy.add", "{'name': 'there', 'direction': 'out', 'destination': '10.9.0.0/16',"
                            " 'action': 'protect', 'spi': 4096}");
    add_out_sa_at(&out4, UINT32_MAX - 1);
    goes_out(&out4, to_far(), .sequence = UINT32_MAX);
    is_dropped(LAN, to_far(), "ipsec_out.sequence_exhausted");
    contains(rpc("log.list", "{}"),
             "event=sequence_exhausted spi=0x00001000 sa_src=198.51.100.1 sa_dst=203.0.113.9 "
             "src=192.168.1.10 dst=10.9.0.1 proto=udp'");
}

static unsigned lines_with(const char *part) {
    unsigned count = 0;

    for (const char *at = rpc("log.list", "{}"); (at = strstr(at, part)) != NULL; at++)
        count++;
    return count;
}

/* In each second that begins meanwhile there may be five. */
CASE(a_flood_is_a_few_lines) {
    struct esp_sa stranger = in4;
    unsigned lines;

    begin_audit();
    start(with_window());
    stranger.spi = 0x4000;
    for (unsigned i = 1; i <= 500; i++) {
        inject(WAN, esp(&stranger, from_far(), .sequence = i));
        turn();
    }
    expect_nothing(ANYWHERE);
    expect_drop("ipsec_in.unknown_spi", 500);
    lines = lines_with("event=unknown_spi spi=0x00004000");
    require(lines >= 1 && lines <= 20, "%u lines", lines);
    /* Another kind is heard all the same. */
    is_dropped(WAN, esp(&in4, from_far(), .zero_sequence = true), "ipsec_in.sequence_zero");
    contains(rpc("log.list", "{}"), "event=sequence_zero spi=0x00002000 seq=0 src=203.0.113.9");
}

CASE(the_audit_log_can_be_switched_off) {
    struct esp_sa stranger = in4;

    begin_audit();
    start(with_ipsec("'audit': false"));
    stranger.spi = 0x5000;
    is_dropped(WAN, esp(&stranger, from_far(), .sequence = 1), "ipsec_in.unknown_spi");
    contains_not(rpc("log.list", "{}"), "spi=0x00005000");
    apply(with_ipsec("'audit': true"));
    advance(1100);
    is_dropped(WAN, esp(&stranger, from_far(), .sequence = 2), "ipsec_in.unknown_spi");
    apply_fails_because(with_ipsec("'audit': 'yes'"), "$.ipsec.audit");
}

/* --- lists --- */

static void has_spis(const char *page, unsigned first, unsigned last) {
    for (unsigned spi = 0x6000; spi < 0x6000 + 10; spi++) {
        bool expected = spi >= first && spi <= last;

        require((strstr(page, text("'spi':%u,", spi)) != NULL) == expected, "SPI %u is %s in %s",
                spi, expected ? "not" : "", page);
    }
}

CASE(associations_in_pages) {
    struct esp_sa sa = out4;
    const char *page;

    start(with_ipsec(""));
    for (unsigned i = 0; i < 10; i++) {
        sa.spi = 0x6000 + i;
        rpc("ipsec.sa.add", sa_json(&sa, "out", ""));
    }
    has_spis(rpc("ipsec.sa.list", "{}"), 0x6000, 0x6009);
    contains(rpc("ipsec.sa.list", "{}"), "'cursor':null}");
    contains(rpc("ipsec.sa.list", "{'limit': 10}"), "'cursor':null}");
    page = rpc("ipsec.sa.list", "{'limit': 4}");
    has_spis(page, 0x6006, 0x6009);
    contains_not(page, "'cursor':null}");
    /* What comes and goes between two pages does not make others appear twice, or not at all. */
    page = strstr(page, "'cursor':") + strlen("'cursor':");
    sa.spi = 0x7000;
    rpc("ipsec.sa.add", sa_json(&sa, "out", ""));
    rpc("ipsec.sa.delete", text("{'spi': %u, 'direction': 'out'}", 0x6006));
    page = rpc("ipsec.sa.list", text("{'limit': 4, 'cursor': %d}", atoi(page)));
    has_spis(page, 0x6002, 0x6005);
    page = strstr(page, "'cursor':") + strlen("'cursor':");
    page = rpc("ipsec.sa.list", text("{'limit': 4, 'cursor': %d}", atoi(page)));
    has_spis(page, 0x6000, 0x6001);
    contains(page, "'cursor':null}");
    rpc_fails("ipsec.sa.list", "{'limit': 0}", "$.limit");
    rpc_fails("ipsec.sa.list", "{'limit': 10001}", "$.limit");
    rpc_fails("ipsec.sa.list", "{'cursor': 'x'}", "$.cursor");
}

CASE(policies_in_pages) {
    const char *page;

    start(with_ipsec(""));
    for (unsigned i = 0; i < 5; i++)
        rpc("ipsec.policy.add", text("{'name': 'p%u', 'direction': 'out', 'priority': %u,"
                                     " 'destination': '10.%u.0.0/16', 'action': 'discard'}",
                                     i, 5 - i, i));
    page = rpc("ipsec.policy.list", "{'limit': 3}");
    contains(page, "'name':'p4'");
    contains(page, "'name':'p2'");
    contains_not(page, "'name':'p1'");
    contains(page, "'cursor':3}");
    page = rpc("ipsec.policy.list", "{'limit': 3, 'cursor': 3}");
    contains_not(page, "'name':'p2'");
    contains(page, "'name':'p1'");
    contains(page, "'name':'p0'");
    contains(page, "'cursor':null}");
    contains(rpc("ipsec.policy.list", "{'cursor': 5}"), "{'policies':[],'cursor':null}");
    contains(rpc("ipsec.policy.list", "{'cursor': 5000000000}"), "{'policies':[],'cursor':null}");
}

/* The second would never decide, whatever it says. */
CASE(policies_that_are_there_twice) {
    static const char *const one =
        "{'direction': 'out', 'destination': '10.9.0.0/16', 'action': 'discard'}";

    start(standard);
    apply_fails_because(with_sas("", both(one, one)), "$.ipsec.policies[1]");
    apply_fails_because(with_sas("", both(one, "{'direction': 'out', 'destination': '10.9.0.0/16',"
                                               " 'action': 'bypass', 'name': 'x'}")),
                        "$.ipsec.policies[1]");
    apply(with_sas("", both(one, "{'direction': 'out', 'destination': '10.9.0.0/16',"
                                 " 'action': 'bypass', 'priority': 1}")));
    apply(with_sas("", both(one, "{'direction': 'in', 'destination': '10.9.0.0/16',"
                                 " 'action': 'bypass'}")));
    apply(with_sas("", both(one, "{'direction': 'out', 'destination': '10.9.0.0/16',"
                                 " 'protocol': 'tcp', 'action': 'bypass'}")));
    apply(with_sas("", both(one, "{'direction': 'out', 'destination': '10.9.0.0/17',"
                                 " 'action': 'bypass'}")));
}

/* As many as there may be can take each other's place, and all of them stay what they were. */
CASE(full_lists_are_replaced) {
    enum { MANY = 32768 };
    char *list = room_for((size_t)MANY * 120), *at = list;
    const char *whole;

    for (unsigned i = 0; i < MANY; i++)
        append(&at, "%s{'direction': 'out', 'destination': '10.%u.%u.0/29', 'action': 'discard'}",
               i ? "," : "", i >> 8, i & 255);
    whole = with_sas("", list);
    start(whole);
    is_dropped(LAN, udp4(.source = INSIDE ":1", .destination = "10.127.255.1:2"),
               "ipsec_out.discarded");
    apply(whole);
    contains(rpc("ipsec.policy.list", "{'limit': 1, 'cursor': 32767}"), "'packets':1,");
}

/* --- peers behind a NAT --- */

static const char *const back = "{'name': 'back', 'direction': 'in', 'source': '10.9.0.0/16',"
                                " 'action': 'protect', 'spi': 8192}";

/* What is authentic may come from anywhere, in UDP, and IKE is to hear of it. */
CASE(a_nat_that_changes_its_port) {
    static const struct esp_sa *const ends[] = {&in4, &in6};

    for (unsigned i = 0; i < 2; i++) {
        struct esp_sa sa = *ends[i], moved;
        const char *peer = sa.source, *other = i == 0 ? "203.0.113.77" : "2001:db8:99::77";

        start(with_ipsec(""));
        rpc("ipsec.policy.add", back);
        sa.source_port = sa.destination_port = 4500;
        moved = sa;
        add_in_sa_of_ike(&sa);
        comes_in(&sa, from_far(), .sequence = 1);
        require(!new_source_of(&sa, peer, 4500), "nothing has changed");
        moved.source_port = 1024;
        comes_in(&moved, from_far(), .sequence = 2);
        require(new_source_of(&sa, peer, 1024), "IKE does not hear of the new port");
        require(!new_source_of(&sa, peer, 1024), "IKE hears of it twice");
        moved.source = other;
        comes_in(&moved, from_far(), .sequence = 3);
        require(new_source_of(&sa, other, 1024), "IKE does not hear of the new address");
        comes_in(&sa, from_far(), .sequence = 4);
        require(!new_source_of(&sa, peer, 4500), "it is back");
        /* Nobody else can pretend that. */
        is_dropped(WAN, esp(&moved, from_far(), .sequence = 3), "ipsec_in.replayed");

        struct frame *forged = esp(&moved, from_far(), .sequence = 5);

        forged->bytes[forged->length - 1] ^= 1;
        is_dropped(WAN, forged, "ipsec_in.integrity");
        require(!new_source_of(&sa, other, 1024), "a forged packet is believed");
        apply(standard);
    }
}

CASE(without_udp_or_ike_the_source_is_what_was_agreed) {
    struct esp_sa moved = in4, udp = in4;

    start(with_ipsec(""));
    rpc("ipsec.policy.add", back);
    add_in_sa_of_ike(&in4);
    moved.source = "203.0.113.77";
    is_dropped(WAN, esp(&moved, from_far(), .sequence = 1), "ipsec_in.wrong_source");
    udp.source_port = udp.destination_port = 4500;
    apply(standard);
    apply(tunnel(NULL, &udp, ""));
    udp.source = moved.source;
    is_dropped(WAN, esp(&udp, from_far(), .sequence = 1), "ipsec_in.wrong_source");
}

/* --- what can be right, but hardly is --- */

CASE(odd_associations_are_logged) {
    struct esp_sa odd = out4, other = in4;

    log_set_level(LOG_LEVEL_NOTICE);
    odd.spi = 0x1777;
    odd.source = "198.51.100.7";
    start(with_sas(sa_json(&odd, "out", ""), ""));
    contains(rpc("log.list", "{}"),
             "$.ipsec.sas[0].source: no interface of VRF `default` has the address 198.51.100.7'");
    odd.spi = 0x1778;
    odd.source = PEER;
    odd.destination = ROUTER;
    odd.key = KEY_128 "abababab";
    apply(with_sas(sa_json(&odd, "out", ""), ""));
    contains(rpc("log.list", "{}"), "has the address 203.0.113.9; are source and destination"
                                    " exchanged?'");
    odd.key = KEY_128 "cdcdcdcd";
    odd.spi = 0x1779;
    other.spi = 0x1780;
    other.key = KEY_128 "efefefef";
    apply(with_sas(
        both(sa_json(&out4, "out", ""), both(sa_json(&odd, "out", ""), sa_json(&other, "in", ""))),
        ""));
    contains_not(rpc("log.list", "{}"), "$.ipsec.sas[2] has the key of");
    other.key = out4.key;
    apply(with_sas(
        both(sa_json(&out4, "out", ""), both(sa_json(&odd, "out", ""), sa_json(&other, "in", ""))),
        ""));
    contains(rpc("log.list", "{}"), "$.ipsec.sas[2] has the key of $.ipsec.sas[0]: give each");
}

/* --- what IKE is asked for --- */

static bool unmet(const char *source, const char *destination, unsigned protocol,
                  unsigned source_port, unsigned destination_port) {
    struct ip_address from, to;
    struct ipsec_flow flow;

    require(ip_address_parse(source, &from) == 0 && ip_address_parse(destination, &to) == 0,
            "no addresses");
    for (struct ipsec_policy *policy = ipsec_policy_next(NULL); policy;
         policy = ipsec_policy_next(policy)) {
        if (ipsec_policy_unmet(policy, &flow))
            return ip_address_compare(&flow.source, &from) == 0 &&
                   ip_address_compare(&flow.destination, &to) == 0 && flow.protocol == protocol &&
                   flow.source_port == source_port && flow.destination_port == destination_port;
    }
    return false;
}

static bool nobody_unmet(void) {
    struct ipsec_flow flow;

    for (struct ipsec_policy *policy = ipsec_policy_next(NULL); policy;
         policy = ipsec_policy_next(policy)) {
        if (ipsec_policy_unmet(policy, &flow))
            return false;
    }
    return true;
}

/* The last packet that found no association, once; more than one a second are not looked at. */
CASE(the_packet_without_an_association) {
    start(with_sas("", "{'direction': 'out', 'destination': '10.9.0.0/16', 'action': 'protect',"
                       " 'request': 5},"
                       "{'direction': 'out', 'destination': '2001:db8:9::/48', 'action': 'protect',"
                       " 'request': 5}"));
    require(nobody_unmet(), "nothing has been sent");
    is_dropped(LAN, to_far(), "ipsec_out.no_sa");
    require(unmet(INSIDE, FAR, 17, 1000, 2000), "UDP");
    require(nobody_unmet(), "it is told twice");
    is_dropped(LAN, to_far(), "ipsec_out.no_sa");
    is_dropped(LAN, icmp4_echo(.source = INSIDE, .destination = FAR), "ipsec_out.no_sa");
    require(unmet(INSIDE, FAR, 17, 1000, 2000), "the first one of this second");
    is_dropped(LAN, to_far(), "ipsec_out.no_sa");
    advance(2000);
    is_dropped(LAN, icmp4_echo(.source = INSIDE, .destination = FAR), "ipsec_out.no_sa");
    require(unmet(INSIDE, FAR, 1, 8, 0), "the last one, an echo request");
    is_dropped(LAN, to_far6(), "ipsec_out.no_sa");
    require(unmet(INSIDE6, FAR6, 17, 1000, 2000), "IPv6");
    is_dropped(LAN, icmp6_echo(.source = INSIDE6, .destination = FAR6), "ipsec_out.no_sa");
    require(unmet(INSIDE6, FAR6, 58, 128, 0), "an echo request of IPv6");
    passes(LAN, WAN, udp4(.source = INSIDE ":1", .destination = OUTSIDE ":2"));
    require(nobody_unmet(), "it wanted no protection");
}

HARNESS_MAIN()
