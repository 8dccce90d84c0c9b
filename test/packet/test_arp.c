/* ARP (RFC 826, RFC 5227) and the neighbours of IPv4: questions, answers, waiting packets, ageing.
 */
#include "harness.h"

/* Only the WAN gateway is static: hosts of the LAN and the DMZ have to be asked for. */
static const char *const nobody_known =
    "{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24']}, 'dmz': {" DMZ_PORT
    ", 'addresses': ['10.3.0.1/24']}}, 'neighbours': [{'interface': 'lan',"
    "'address': '192.168.1.10', 'mac': '" HOST_LAN "'}]," UNLIMITED "}";

static struct frame *packet_to(const char *destination, unsigned id) {
    return udp4(.source = "192.168.1.10:1", .destination = destination, .id = id);
}

static struct frame *question(const char *target) {
    return arp_request(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ, .target = target);
}

static struct frame *answer(const char *sender, const char *mac) {
    return arp_reply(.sender = sender, .sender_mac = mac, .target = "10.3.0.1",
                     .target_mac = ROUTER_DMZ);
}

/* A frame's second half: what a host without the router's help cannot know. */
#define unanswered(f, ...)         \
    do {                           \
        inject(DMZ, (f));          \
        expect_nothing(ANYWHERE);  \
        expect_drops(__VA_ARGS__); \
    } while (0)

/* --- asking --- */

CASE(a_host_is_asked_for_and_its_packet_waits) {
    start(nobody_known);
    inject(LAN, packet_to("10.3.0.10", 1));
    expect(DMZ, question("10.3.0.10"));
    expect_nothing(DMZ);
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    expect(DMZ, hop(packet_to("10.3.0.10", 1)));
    inject(LAN, packet_to("10.3.0.10", 2));
    expect(DMZ, hop(packet_to("10.3.0.10", 2)));
}

CASE(waiting_packets_leave_in_their_order) {
    start(nobody_known);
    for (unsigned id = 0; id < 16; id++)
        inject(LAN, packet_to("10.3.0.10", id));
    expect(DMZ, question("10.3.0.10"));
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    for (unsigned id = 0; id < 16; id++)
        expect(DMZ, hop(packet_to("10.3.0.10", id)));
}

CASE(of_too_many_waiting_packets_the_oldest_go) {
    start(nobody_known);
    for (unsigned id = 0; id < 50; id++)
        inject(LAN, packet_to("10.3.0.10", id));
    expect(DMZ, question("10.3.0.10"));
    expect_drop("neighbour.queue_full", 34);
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    for (unsigned id = 34; id < 50; id++)
        expect(DMZ, hop(packet_to("10.3.0.10", id)));
}

CASE(a_question_is_repeated_and_given_up) {
    struct frame *packet = packet_to("10.3.0.77", 1);

    start(nobody_known);
    inject(LAN, packet);
    expect(DMZ, question("10.3.0.77"));
    advance(1200);
    expect(DMZ, question("10.3.0.77"));
    advance(1000);
    expect(DMZ, question("10.3.0.77"));
    expect_nothing(ANYWHERE);
    advance(1400);
    expect_nothing(DMZ);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = "192.168.1.10", .type = 3,
                            .code = 1, .about = packet));
    expect_drop("local.host_unreachable", 1);
    /* For a second no packet starts another attempt. */
    inject(LAN, packet);
    turn();
    discard(LAN);
    expect_nothing(DMZ);
    forget_drops();
    advance(2000);
    inject(LAN, packet);
    expect(DMZ, question("10.3.0.77"));
    inject(DMZ, answer("10.3.0.77", HOST_DMZ));
    expect(DMZ, hop(packet));
}

CASE(a_gateway_is_asked_for_before_the_first_packet) {
    struct frame *packet = packet_to("203.0.113.1", 1), *found;
    bool asked = false;

    start_at_once("{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24']},"
                  "'dmz': {" DMZ_PORT ", 'addresses': ['10.3.0.1/24']}},"
                  "'routes': [{'prefix': '0.0.0.0/0', 'via': '10.3.0.10'}]," UNLIMITED "}");
    turn();
    discard(LAN);
    while ((found = take(DMZ)) != NULL) /* and the announcement of its own address */
        asked |= frame_equal(found, question("10.3.0.10"));
    require(asked, "nobody asked for the gateway");
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    turn();
    inject(LAN, packet);
    expect(DMZ, hop(packet));
}

CASE(a_silent_gateway_is_asked_every_second) {
    start("{'interfaces': {'lan': {" LAN_PORT
          ", 'addresses': ['192.168.1.1/24']}, 'dmz': {" DMZ_PORT
          ", 'addresses': ['10.3.0.1/24']}},"
          "'neighbours': [{'interface': 'lan', 'address': '192.168.1.10', 'mac': '" HOST_LAN "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '10.3.0.10'}]," UNLIMITED "}");
    for (unsigned second = 0; second < 10; second++) {
        struct frame *packet = packet_to("203.0.113.1", second);
        unsigned asked;

        advance(1000);
        asked = discard(DMZ);
        require(asked <= 2, "%u questions in a second", asked);
        inject(LAN, packet); /* told at once */
        expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = "192.168.1.10", .type = 3,
                                .code = 1, .about = packet));
        expect_drop("local.host_unreachable", 1);
    }
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    turn();
    inject(LAN, packet_to("203.0.113.1", 99));
    expect(DMZ, hop(packet_to("203.0.113.1", 99)));
}

/* --- answering --- */

CASE(own_addresses_are_told) {
    start(nobody_known);
    inject(DMZ, arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.1"));
    expect(DMZ, arp_reply(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ, .target = "10.3.0.20",
                          .target_mac = HOST_DMZ));
    /* Who asks is going to send: its address is known now. */
    inject(LAN, packet_to("10.3.0.20", 1));
    expect(DMZ, hop(packet_to("10.3.0.20", 1)));
    /* To the router alone, as hosts do that check whether it is still there. */
    inject(DMZ, arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.1",
                            .to = ROUTER_DMZ));
    expect(DMZ, arp_reply(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ, .target = "10.3.0.20",
                          .target_mac = HOST_DMZ));
}

CASE(other_addresses_are_not) {
    start(nobody_known);
    inject(DMZ, arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.21"));
    inject(DMZ,
           arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "192.168.1.1"));
    inject(DMZ, arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.255"));
    expect_nothing(ANYWHERE);
    expect_no_drops();
    inject(LAN, packet_to("10.3.0.20", 1)); /* it did not ask for us: not learnt */
    expect(DMZ, question("10.3.0.20"));
}

CASE(probes_are_answered) {
    start(nobody_known);
    inject(DMZ, arp_request(.sender = "0.0.0.0", .sender_mac = HOST_DMZ, .target = "10.3.0.1"));
    expect(DMZ, arp_reply(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ, .target = "0.0.0.0",
                          .target_mac = HOST_DMZ));
    inject(DMZ, arp_request(.sender = "0.0.0.0", .sender_mac = HOST_DMZ, .target = "10.3.0.9"));
    expect_nothing(ANYWHERE);
}

CASE(requests_shorter_than_an_ethernet_frame_are_answered) {
    start(nobody_known);
    inject(DMZ, truncated(arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ,
                                      .target = "10.3.0.1"),
                          42));
    expect(DMZ, arp_reply(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ, .target = "10.3.0.20",
                          .target_mac = HOST_DMZ));
}

CASE(senders_of_other_networks_are_answered_but_not_learnt) {
    start(nobody_known);
    inject(DMZ, arp_request(.sender = "172.16.0.1", .sender_mac = HOST_DMZ, .target = "10.3.0.1"));
    expect(DMZ, arp_reply(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ, .target = "172.16.0.1",
                          .target_mac = HOST_DMZ));
    expect_drop("arp.sender_not_on_link", 1);
}

/* --- announcements --- */

CASE(addresses_are_announced_twice) {
    start_at_once(nobody_known);
    expect(DMZ, question("10.3.0.1"));
    expect_nothing(DMZ);
    advance(2200);
    expect(DMZ, question("10.3.0.1"));
    advance(10000);
    expect_nothing(DMZ);
    discard(LAN);
}

CASE(a_host_that_moves_announces_itself) {
    start(nobody_known);
    inject(DMZ, arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.1"));
    discard(DMZ);
    /* Not confirmed: believed at once. */
    inject(DMZ, arp_request(.sender = "10.3.0.20", .sender_mac = "02:00:00:00:03:99",
                            .target = "10.3.0.20"));
    turn();
    inject(LAN, packet_to("10.3.0.20", 1));
    expect(DMZ, ether(hop(packet_to("10.3.0.20", 1)), "02:00:00:00:03:99", ROUTER_DMZ));
}

CASE(a_confirmed_neighbour_is_not_taken_over_by_an_announcement) {
    start(nobody_known);
    inject(LAN, packet_to("10.3.0.10", 1));
    expect(DMZ, question("10.3.0.10"));
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    expect(DMZ, hop(packet_to("10.3.0.10", 1)));
    inject(DMZ, arp_request(.sender = "10.3.0.10", .sender_mac = "02:00:00:00:03:99",
                            .target = "10.3.0.10"));
    turn();
    inject(LAN, packet_to("10.3.0.10", 2));
    expect(DMZ, hop(packet_to("10.3.0.10", 2)));
}

CASE(announcements_of_strangers_make_no_entries) {
    start(nobody_known);
    for (unsigned host = 20; host < 220; host++) {
        const char *address = text("10.3.0.%u", host);

        inject(DMZ, arp_request(.sender = address, .sender_mac = HOST_DMZ, .target = address));
        inject(DMZ, arp_reply(.sender = address, .sender_mac = HOST_DMZ, .target = address,
                              .target_mac = HOST_DMZ, .to = BROADCAST));
    }
    expect_nothing(ANYWHERE);
    require(!strstr(rpc("neighbour.list", "{'interface': 'dmz'}"), "10.3.0."), "entries were made");
}

CASE(unasked_answers_make_no_entries) {
    start(nobody_known);
    inject(DMZ, answer("10.3.0.20", HOST_DMZ));
    turn();
    inject(LAN, packet_to("10.3.0.20", 1));
    expect(DMZ, question("10.3.0.20"));
}

/* RFC 5227 section 2.4: the router keeps its address, and says so at most once in ten seconds. */
CASE(an_address_conflict) {
    start(nobody_known);
    advance(11000);
    inject(DMZ, arp_request(.sender = "10.3.0.1", .sender_mac = "02:00:00:00:03:99",
                            .target = "10.3.0.1"));
    expect(DMZ, question("10.3.0.1"));
    inject(DMZ, arp_reply(.sender = "10.3.0.1", .sender_mac = "02:00:00:00:03:99",
                          .target = "10.3.0.20", .target_mac = HOST_DMZ, .to = BROADCAST));
    expect_nothing(DMZ);
    expect_drop("arp.conflict", 2);
    advance(11000);
    inject(DMZ, arp_request(.sender = "10.3.0.1", .sender_mac = "02:00:00:00:03:99",
                            .target = "10.3.0.20"));
    expect(DMZ, question("10.3.0.1"));
    expect_drop("arp.conflict", 1);
}

/* --- what is no ARP --- */

CASE(arp_truncated_at_every_length) {
    struct frame *request =
        arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.1");

    start(nobody_known);
    for (unsigned length = 14; length < 42; length++)
        unanswered(truncated(request, length), {"arp.short", 1});
}

CASE(arp_in_several_buffers) {
    struct frame *request =
        arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.1");

    start(nobody_known);
    for (unsigned first = 14; first < 60; first++) {
        inject_split(DMZ, request, first);
        expect(DMZ, arp_reply(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ, .target = "10.3.0.20",
                              .target_mac = HOST_DMZ));
    }
}

CASE(wrong_fields) {
    struct frame *request =
        arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.1");

    start(nobody_known);
    unanswered(poke(request, 14, "0006"), {"arp.hardware_type", 1});
    unanswered(poke(request, 16, "86dd"), {"arp.protocol_type", 1});
    unanswered(poke(request, 18, "08"), {"arp.address_length", 1});
    unanswered(poke(request, 19, "10"), {"arp.address_length", 1});
    unanswered(poke(request, 20, "0000"), {"arp.operation", 1});
    unanswered(poke(request, 20, "0003"), {"arp.operation", 1});
    unanswered(poke(request, 22, "000000000000"), {"arp.sender_mac", 1});
    unanswered(poke(request, 22, "ffffffffffff"), {"arp.sender_mac", 1});
    unanswered(poke(request, 22, "01005e000001"), {"arp.sender_mac", 1});
    unanswered(poke(request, 28, "7f000001"), {"arp.sender_address", 1});
    unanswered(poke(request, 28, "e0000001"), {"arp.sender_address", 1});
    unanswered(poke(request, 28, "ffffffff"), {"arp.sender_address", 1});
    unanswered(poke(request, 22, "020000000301"), {"arp.own_frame", 1});
    unanswered(poke(request, 22, "020000000301 0a030001"), {"arp.own_frame", 1});
}

CASE(the_network_and_broadcast_addresses_are_no_hosts) {
    start(nobody_known);
    inject(DMZ, arp_request(.sender = "10.3.0.255", .sender_mac = HOST_DMZ, .target = "10.3.0.1"));
    turn();
    discard(DMZ);
    forget_drops();
    require(!strstr(rpc("neighbour.list", "{'interface': 'dmz'}"), "10.3.0.255"), "it was learnt");
    inject(LAN, packet_to("10.3.0.255", 1));
    expect_nothing(ANYWHERE);
    expect_drop("route.directed_broadcast", 1);
}

CASE(every_byte_of_a_request) {
    struct frame *request =
        arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.1");

    start(nobody_known);
    for (unsigned offset = 12; offset < 42; offset++) {
        for (unsigned value = 0; value < 256; value++)
            inject(DMZ, poke(request, offset, text("%02x", value)));
        turn();
        discard(DMZ);
        frames_free();
        request = arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.1");
    }
    forget_drops();
}

/* --- ageing --- */

CASE(a_neighbour_without_traffic_grows_stale_and_is_forgotten) {
    start(nobody_known);
    inject(LAN, packet_to("10.3.0.10", 1));
    expect(DMZ, question("10.3.0.10"));
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    expect(DMZ, hop(packet_to("10.3.0.10", 1)));
    require(strstr(rpc("neighbour.list", "{'interface': 'dmz'}"), "reachable"), "not reachable");
    advance(46000);
    require(strstr(rpc("neighbour.list", "{'interface': 'dmz'}"), "stale"), "not stale");
    expect_nothing(DMZ);
    advance(21 * 60000);
    require(!strstr(rpc("neighbour.list", "{'interface': 'dmz'}"), "10.3.0.10"), "not forgotten");
    expect_nothing(DMZ);
}

CASE(a_stale_neighbour_that_is_used_is_confirmed) {
    start(nobody_known);
    inject(LAN, packet_to("10.3.0.10", 1));
    expect(DMZ, question("10.3.0.10"));
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    expect(DMZ, hop(packet_to("10.3.0.10", 1)));
    advance(46000);
    inject(LAN, packet_to("10.3.0.10", 2));
    expect(DMZ, hop(packet_to("10.3.0.10", 2)));
    advance(2000);
    require(strstr(rpc("neighbour.list", "{'interface': 'dmz'}"), "delay"), "not being delayed");
    expect_nothing(DMZ);
    advance(5000);
    expect(DMZ, arp_request(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ, .target = "10.3.0.10",
                            .to = HOST_DMZ));
    discard(DMZ);                           /* perhaps another one */
    inject(LAN, packet_to("10.3.0.10", 3)); /* traffic goes on meanwhile */
    expect(DMZ, hop(packet_to("10.3.0.10", 3)));
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    turn();
    require(strstr(rpc("neighbour.list", "{'interface': 'dmz'}"), "reachable"), "not confirmed");
    advance(10000);
    expect_nothing(DMZ);
}

CASE(a_neighbour_that_is_gone_is_noticed) {
    struct frame *packet = packet_to("10.3.0.10", 7);

    start(nobody_known);
    inject(LAN, packet);
    expect(DMZ, question("10.3.0.10"));
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    expect(DMZ, hop(packet));
    advance(46000);
    inject(LAN, packet);
    expect(DMZ, hop(packet));
    advance(7000); /* used, delayed: then three questions to it, and three to all */
    for (unsigned i = 0; i < 3; i++) {
        expect(DMZ, arp_request(.sender = "10.3.0.1", .sender_mac = ROUTER_DMZ,
                                .target = "10.3.0.10", .to = HOST_DMZ));
        advance(1000);
    }
    for (unsigned i = 0; i < 3; i++) {
        expect(DMZ, question("10.3.0.10"));
        advance(1000);
    }
    advance(2000); /* given up; the next packet starts again */
    expect_nothing(DMZ);
    inject(LAN, packet);
    expect(DMZ, question("10.3.0.10"));
    advance(3500);
    expect(LAN, icmp4_error(.source = "192.168.1.1", .destination = "192.168.1.10", .type = 3,
                            .code = 1, .about = packet));
    expect_drop("local.host_unreachable", 1);
    discard(DMZ);
}

CASE(a_gateway_in_use_never_grows_stale) {
    unsigned lost = 0;

    start("{'interfaces': {'lan': {" LAN_PORT
          ", 'addresses': ['192.168.1.1/24']}, 'dmz': {" DMZ_PORT
          ", 'addresses': ['10.3.0.1/24']}},"
          "'neighbours': [{'interface': 'lan', 'address': '192.168.1.10', 'mac': '" HOST_LAN "'}],"
          "'routes': [{'prefix': '0.0.0.0/0', 'via': '10.3.0.10'}]," UNLIMITED "}");
    advance(1000);
    inject(DMZ, answer("10.3.0.10", HOST_DMZ));
    turn();
    discard(DMZ);
    for (unsigned second = 0; second < 300; second++) {
        struct frame *found, *packet = packet_to("203.0.113.1", second);
        bool came = false;

        advance(1000);
        inject(LAN, packet);
        while ((found = take(DMZ)) != NULL) {
            if (frame_equal(found, ether(hop(packet), HOST_DMZ, ROUTER_DMZ)))
                came = true;
            else if (found->bytes[12] == 0x08 && found->bytes[13] == 0x06)
                inject(DMZ, answer("10.3.0.10", HOST_DMZ));
        }
        lost += !came;
        frames_free();
    }
    require(lost == 0, "%u packets were lost", lost);
}

/* --- limits --- */

static const char *const large_network =
    "{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24']}, 'dmz': {" DMZ_PORT
    ", 'addresses': ['10.3.0.1/16']}}, 'neighbours': [{'interface': 'lan',"
    "'address': '192.168.1.10', 'mac': '" HOST_LAN "'}]," UNLIMITED "}";

CASE(questions_for_new_hosts_are_limited) {
    unsigned asked;

    start(large_network);
    for (unsigned host = 0; host < 500; host++)
        inject(LAN, packet_to(text("10.3.%u.%u", 1 + host / 250, 1 + host % 250), host));
    turn();
    asked = discard(DMZ);
    require(asked >= 40 && asked <= 60, "%u questions at once", asked);
    advance(1000);
    asked = discard(DMZ);
    require(asked >= 80 && asked <= 220, "%u questions in a second", asked);
    advance(20000);
    discard(ANYWHERE);
    require(drops_so_far("local.host_unreachable") == 500, "not all were told");
    forget_drops();
}

CASE(a_scan_fills_no_table_and_loses_no_buffer) {
    enum { HOSTS = 3000 };
    unsigned told;

    start(large_network);
    for (unsigned host = 0; host < HOSTS; host++) {
        inject(LAN, packet_to(text("10.3.%u.%u", 1 + host / 250, 1 + host % 250), host));
        if (host % 64 == 63)
            turn();
    }
    turn();
    discard(DMZ);
    /* In the middle of it a real host gets through. */
    inject(LAN, packet_to("10.3.200.1", 1));
    turn();
    advance(600);
    discard(DMZ);
    inject(DMZ, arp_reply(.sender = "10.3.200.1", .sender_mac = HOST_DMZ, .target = "10.3.0.1",
                          .target_mac = ROUTER_DMZ));
    expect(DMZ, hop(packet_to("10.3.200.1", 1)));
    advance(60000);
    discard(DMZ);
    told = discard(LAN);
    require(told + drops_so_far("neighbour.evicted") + drops_so_far("neighbour.hold_full") == HOSTS,
            "%u were told, %lu gave way, of %u", told, drops_so_far("neighbour.evicted"), HOSTS);
    forget_drops();
}

CASE(arp_frames_are_policed) {
    enum { SENT = 3000 };
    unsigned answered;

    start("{'interfaces': {'dmz': {" DMZ_PORT ", 'addresses': ['10.3.0.1/24']}},"
          "'mbufs': 32768, 'punt': {'arp': 1000}}");
    for (unsigned i = 0; i < SENT; i++)
        inject(DMZ,
               arp_request(.sender = "10.3.0.20", .sender_mac = HOST_DMZ, .target = "10.3.0.1"));
    turn();
    answered = discard(DMZ);
    require(answered >= 100 && answered < SENT / 2, "%u of %u were answered", answered, SENT);
    expect_drop("punt.arp_policed", SENT - answered);
}

/* --- what else happens to neighbours --- */

CASE(waiting_packets_are_given_up_when_the_interface_goes_down) {
    start(nobody_known);
    for (unsigned id = 0; id < 5; id++)
        inject(LAN, packet_to("10.3.0.77", id));
    expect(DMZ, question("10.3.0.77"));
    rpc("interface.set", "{'name': 'dmz', 'admin': 'down'}");
    expect_drop("neighbour.interface_down", 5);
}

CASE(neighbours_by_rpc) {
    start(nobody_known);
    rpc("neighbour.add", "{'interface': 'dmz', 'address': '10.3.0.30', 'mac': '" HOST_DMZ "'}");
    inject(LAN, packet_to("10.3.0.30", 1));
    expect(DMZ, hop(packet_to("10.3.0.30", 1)));
    /* Nothing that is said on the link changes it. */
    inject(DMZ, arp_request(.sender = "10.3.0.30", .sender_mac = "02:00:00:00:03:99",
                            .target = "10.3.0.1"));
    discard(DMZ);
    inject(LAN, packet_to("10.3.0.30", 2));
    expect(DMZ, hop(packet_to("10.3.0.30", 2)));
    rpc("neighbour.delete", "{'interface': 'dmz', 'address': '10.3.0.30'}");
    inject(LAN, packet_to("10.3.0.30", 3));
    expect(DMZ, question("10.3.0.30"));
    inject(DMZ, answer("10.3.0.30", HOST_DMZ));
    expect(DMZ, hop(packet_to("10.3.0.30", 3)));
    rpc("neighbour.flush", "{}");
    inject(LAN, packet_to("10.3.0.30", 4));
    expect(DMZ, question("10.3.0.30"));
}

/* The router answers to whoever sent, not to whoever is the neighbour. */
CASE(a_held_packet_may_be_the_router_s_own) {
    start(nobody_known);
    inject(DMZ, icmp4_echo(.source = "10.3.0.44", .destination = "10.3.0.1", .sequence = 1));
    expect(DMZ, question("10.3.0.44"));
    inject(DMZ, answer("10.3.0.44", HOST_DMZ));
    expect(DMZ, icmp4_echo_reply(.source = "10.3.0.1", .destination = "10.3.0.44", .sequence = 1));
}

HARNESS_MAIN()
