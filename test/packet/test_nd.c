/*
 * Neighbour Discovery (RFC 4861), duplicate address detection (RFC 4862, RFC 7527), router
 * advertisements and MLD: what the router says by itself and what it answers.
 */
#include "harness.h"

#define LL_LAN link_local_of(ROUTER_LAN)
#define LL_DMZ link_local_of(ROUTER_DMZ)
#define ALL_NODES "ff02::1"

enum { ICMP_CHECKSUM = IP6_PAYLOAD + 2, ROUTER = 0x80, SOLICITED = 0x40, OVERRIDE = 0x20 };

static const char *const one_interface =
    "{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['2001:db8:1::1/64']}}," UNLIMITED "}";

static const char *const nobody_known =
    "{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['2001:db8:1::1/64']}, 'dmz': {" DMZ_PORT
    ", 'addresses': ['2001:db8:3::1/64']}}, 'neighbours': [{'interface': 'lan',"
    "'address': '2001:db8:1::10', 'mac': '" HOST_LAN "'}]," UNLIMITED "}";

static struct frame *packet_to(const char *destination, unsigned number) {
    return udp6(.source = "[2001:db8:1::10]:1", .destination = destination, .flow_label = number);
}

static struct frame *question(const char *target) {
    return neighbour_solicitation(.source = "2001:db8:3::1", .target = target,
                                  .source_link = ROUTER_DMZ);
}

static struct frame *answer(const char *target, const char *mac) {
    return neighbour_advertisement(.source = target, .destination = "2001:db8:3::1",
                                   .target = target, .flags = SOLICITED | OVERRIDE,
                                   .target_link = mac);
}

#define unanswered(place, f, ...)  \
    do {                           \
        inject((place), (f));      \
        expect_nothing(ANYWHERE);  \
        expect_drops(__VA_ARGS__); \
    } while (0)

static unsigned icmp_type(const struct frame *frame) {
    unsigned at = IP6_PAYLOAD;

    if (frame->length <= IP6_PAYLOAD + 8 || frame->bytes[12] != 0x86)
        return 0;
    if (frame->bytes[IP + 6] == 0)
        at += 8; /* hop-by-hop options */
    return frame->bytes[at];
}

/* The next frame of this type on the LAN; others are skipped. NULL if there is none. */
static struct frame *next_of_type(unsigned type) {
    struct frame *frame;

    while ((frame = take(LAN)) != NULL && icmp_type(frame) != type)
        ;
    return frame;
}

/* --- resolving --- */

CASE(a_host_is_asked_for_and_its_packet_waits) {
    start(nobody_known);
    inject(LAN, packet_to("2001:db8:3::10", 1));
    expect(DMZ, question("2001:db8:3::10"));
    expect_nothing(DMZ);
    inject(DMZ, answer("2001:db8:3::10", HOST_DMZ));
    expect(DMZ, hop(packet_to("2001:db8:3::10", 1)));
    inject(LAN, packet_to("2001:db8:3::10", 2));
    expect(DMZ, hop(packet_to("2001:db8:3::10", 2)));
}

CASE(waiting_packets_leave_in_their_order) {
    start(nobody_known);
    for (unsigned number = 0; number < 20; number++)
        inject(LAN, packet_to("2001:db8:3::10", number));
    expect(DMZ, question("2001:db8:3::10"));
    expect_drop("neighbour.queue_full", 4);
    inject(DMZ, answer("2001:db8:3::10", HOST_DMZ));
    for (unsigned number = 4; number < 20; number++)
        expect(DMZ, hop(packet_to("2001:db8:3::10", number)));
}

CASE(a_question_is_repeated_and_given_up) {
    struct frame *packet = packet_to("2001:db8:3::77", 1);

    start(nobody_known);
    inject(LAN, packet);
    for (unsigned i = 0; i < 3; i++) {
        expect(DMZ, question("2001:db8:3::77"));
        advance(1100);
    }
    advance(1000);
    expect(LAN, icmp6_error(.source = "2001:db8:1::1", .destination = "2001:db8:1::10", .type = 1,
                            .code = 3, .about = packet));
    expect_nothing(DMZ);
    expect_drop("local.host_unreachable", 1);
}

CASE(an_answer_without_the_link_layer_option_does_not_help) {
    start(nobody_known);
    inject(LAN, packet_to("2001:db8:3::10", 1));
    expect(DMZ, question("2001:db8:3::10"));
    inject(DMZ, neighbour_advertisement(.source = "2001:db8:3::10", .destination = "2001:db8:3::1",
                                        .target = "2001:db8:3::10", .flags = SOLICITED));
    expect_nothing(ANYWHERE);
    inject(DMZ, answer("2001:db8:3::10", HOST_DMZ));
    expect(DMZ, hop(packet_to("2001:db8:3::10", 1)));
}

CASE(a_gateway_by_its_link_local_address) {
    struct frame *packet;

    start(
        "{'interfaces': {'lan': {" LAN_PORT
        ", 'addresses': ['2001:db8:1::1/64']}, 'dmz': {" DMZ_PORT
        ", 'addresses': ['fe80::1/64']}}, 'neighbours': [{'interface': 'lan',"
        "'address': '2001:db8:1::10', 'mac': '" HOST_LAN "'}],"
        "'routes': [{'prefix': '::/0', 'via': {'address': 'fe80::10', 'interface': 'dmz'}}]," UNLIMITED
        "}");
    packet = packet_to("2001:db8:99::1", 1);
    advance(1000); /* a gateway is asked again each second */
    expect(DMZ, neighbour_solicitation(.source = "fe80::1", .target = "fe80::10",
                                       .source_link = ROUTER_DMZ));
    inject(DMZ,
           neighbour_advertisement(.source = "fe80::10", .destination = "fe80::1",
                                   .target = "fe80::10", .flags = ROUTER | SOLICITED | OVERRIDE,
                                   .target_link = HOST_DMZ));
    turn();
    discard(DMZ);
    inject(LAN, packet);
    expect(DMZ, hop(packet));
}

/* RFC 4861 section 7.2.5: an answer that must not override leaves the known address alone. */
CASE(the_override_flag) {
    start(nobody_known);
    inject(LAN, packet_to("2001:db8:3::10", 1));
    expect(DMZ, question("2001:db8:3::10"));
    inject(DMZ, answer("2001:db8:3::10", HOST_DMZ));
    expect(DMZ, hop(packet_to("2001:db8:3::10", 1)));
    inject(DMZ,
           neighbour_advertisement(.source = "2001:db8:3::10", .destination = ALL_NODES,
                                   .target = "2001:db8:3::10", .target_link = "02:00:00:00:03:99"));
    turn();
    inject(LAN, packet_to("2001:db8:3::10", 2));
    expect(DMZ, hop(packet_to("2001:db8:3::10", 2)));
    inject(DMZ, neighbour_advertisement(.source = "2001:db8:3::10", .destination = ALL_NODES,
                                        .target = "2001:db8:3::10", .flags = OVERRIDE,
                                        .target_link = "02:00:00:00:03:99"));
    turn();
    inject(LAN, packet_to("2001:db8:3::10", 3));
    expect(DMZ, ether(hop(packet_to("2001:db8:3::10", 3)), "02:00:00:00:03:99", ROUTER_DMZ));
}

CASE(unasked_advertisements_make_no_entries) {
    start(nobody_known);
    inject(DMZ, answer("2001:db8:3::10", HOST_DMZ));
    turn();
    inject(LAN, packet_to("2001:db8:3::10", 1));
    expect(DMZ, question("2001:db8:3::10"));
}

/* --- unreachability --- */

CASE(a_used_neighbour_is_probed_and_confirmed) {
    start(nobody_known);
    inject(LAN, packet_to("2001:db8:3::10", 1));
    expect(DMZ, question("2001:db8:3::10"));
    inject(DMZ, answer("2001:db8:3::10", HOST_DMZ));
    expect(DMZ, hop(packet_to("2001:db8:3::10", 1)));
    advance(46000);
    inject(LAN, packet_to("2001:db8:3::10", 2));
    expect(DMZ, hop(packet_to("2001:db8:3::10", 2)));
    advance(6500);
    expect(DMZ,
           ether(neighbour_solicitation(.source = "2001:db8:3::1", .destination = "2001:db8:3::10",
                                        .target = "2001:db8:3::10", .source_link = ROUTER_DMZ),
                 HOST_DMZ, ROUTER_DMZ));
    discard(DMZ);
    /* An answer need not repeat the address. */
    inject(DMZ, neighbour_advertisement(.source = "2001:db8:3::10", .destination = "2001:db8:3::1",
                                        .target = "2001:db8:3::10", .flags = SOLICITED));
    turn();
    require(strstr(rpc("neighbour.list", "{'interface': 'dmz'}"), "reachable"), "not confirmed");
    advance(10000);
    expect_nothing(DMZ);
}

CASE(a_neighbour_that_is_gone_is_noticed) {
    struct frame *packet = packet_to("2001:db8:3::10", 1);

    start(nobody_known);
    inject(LAN, packet);
    expect(DMZ, question("2001:db8:3::10"));
    inject(DMZ, answer("2001:db8:3::10", HOST_DMZ));
    expect(DMZ, hop(packet));
    advance(46000);
    inject(LAN, packet);
    expect(DMZ, hop(packet));
    advance(15000);
    require(discard(DMZ) == 6, "not three probes and three questions");
    inject(LAN, packet); /* given up; this one starts again */
    expect(DMZ, question("2001:db8:3::10"));
    advance(3500);
    discard(DMZ);
    expect(LAN, icmp6_error(.source = "2001:db8:1::1", .destination = "2001:db8:1::10", .type = 1,
                            .code = 3, .about = packet));
    expect_drop("local.host_unreachable", 1);
    expect_nothing(DMZ);
}

/* --- answering --- */

CASE(own_addresses_are_told) {
    start(nobody_known);
    inject(DMZ, neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:3::1",
                                       .source_link = HOST_DMZ));
    expect(DMZ, neighbour_advertisement(.source = "2001:db8:3::1", .destination = "2001:db8:3::20",
                                        .target = "2001:db8:3::1",
                                        .flags = ROUTER | SOLICITED | OVERRIDE,
                                        .target_link = ROUTER_DMZ));
    /* Who asks is known from then on. */
    inject(LAN, packet_to("2001:db8:3::20", 1));
    expect(DMZ, hop(packet_to("2001:db8:3::20", 1)));
    /* Its link-local address too; and when the question comes to the router alone. */
    inject(DMZ, neighbour_solicitation(.source = "fe80::20", .destination = LL_DMZ,
                                       .target = LL_DMZ, .source_link = HOST_DMZ));
    expect(DMZ, neighbour_advertisement(.source = LL_DMZ, .destination = "fe80::20",
                                        .target = LL_DMZ, .flags = ROUTER | SOLICITED | OVERRIDE,
                                        .target_link = ROUTER_DMZ));
}

CASE(a_probe_without_the_link_layer_option_is_answered_where_it_came_from) {
    start(nobody_known);
    inject(DMZ, neighbour_solicitation(.source = "2001:db8:3::20", .destination = "2001:db8:3::1",
                                       .target = "2001:db8:3::1"));
    expect(DMZ, neighbour_advertisement(.source = "2001:db8:3::1", .destination = "2001:db8:3::20",
                                        .target = "2001:db8:3::1",
                                        .flags = ROUTER | SOLICITED | OVERRIDE,
                                        .target_link = ROUTER_DMZ));
}

CASE(other_addresses_are_not) {
    start(nobody_known);
    inject(DMZ, neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:3::21",
                                       .source_link = HOST_DMZ));
    inject(DMZ, neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:1::1",
                                       .source_link = HOST_DMZ));
    inject(DMZ,
           neighbour_solicitation(.source = "fe80::20", .target = LL_LAN, .source_link = HOST_DMZ));
    expect_nothing(ANYWHERE);
    expect_no_drops();
}

/* RFC 4862 section 5.4: another host asks whether our address is free. */
CASE(a_host_that_wants_our_address_hears_of_it) {
    start(nobody_known);
    inject(DMZ, neighbour_solicitation(.source = "::", .target = "2001:db8:3::1",
                                       .nonce = "010203040506"));
    expect(DMZ, neighbour_advertisement(.source = "2001:db8:3::1", .destination = ALL_NODES,
                                        .target = "2001:db8:3::1", .flags = ROUTER | OVERRIDE,
                                        .target_link = ROUTER_DMZ));
    inject(DMZ, neighbour_solicitation(.source = "::", .target = "2001:db8:3::9"));
    expect_nothing(ANYWHERE);
}

CASE(another_host_uses_our_address) {
    start(nobody_known);
    advance(11000);
    inject(DMZ, neighbour_advertisement(.source = "2001:db8:3::1", .destination = ALL_NODES,
                                        .target = "2001:db8:3::1", .flags = OVERRIDE,
                                        .target_link = HOST_DMZ));
    expect(DMZ, neighbour_advertisement(.source = "2001:db8:3::1", .destination = ALL_NODES,
                                        .target = "2001:db8:3::1", .flags = ROUTER | OVERRIDE,
                                        .target_link = ROUTER_DMZ));
    expect_drop("nd.conflict", 1);
    inject(DMZ, neighbour_advertisement(.source = "2001:db8:3::1", .destination = ALL_NODES,
                                        .target = "2001:db8:3::1", .flags = OVERRIDE,
                                        .target_link = HOST_DMZ));
    expect_nothing(ANYWHERE); /* at most once in ten seconds */
    expect_drop("nd.conflict", 1);
}

/* --- duplicate address detection --- */

CASE(addresses_are_checked_before_use) {
    struct frame *frame, *probes[2];
    const char *targets[] = {"2001:db8:1::1", NULL};
    unsigned reports = 0, count = 0;

    start_at_once(one_interface);
    targets[1] = LL_LAN;
    advance(200);
    while ((frame = take(LAN)) != NULL) {
        if (icmp_type(frame) == 143)
            reports++;
        else if (icmp_type(frame) == 135 && count < 2)
            probes[count++] = frame;
        else
            require(false, "type %u", icmp_type(frame));
    }
    require(count == 2 && reports >= 2, "%u probes, %u reports", count, reports);
    for (unsigned i = 0; i < 2; i++) {
        bool right = false;

        for (unsigned t = 0; t < 2; t++) {
            struct frame *expected = neighbour_solicitation(.source = "::", .target = targets[t],
                                                            .nonce = "000000000000");

            expected->bytes[0] = expected->bytes[1] = 0x33;
            memcpy(expected->bytes + 2, expected->bytes + IP + 36, 4);
            parse_mac(ROUTER_LAN, expected->bytes + 6);
            /* The nonce is random, and so is the checksum. */
            memcpy(expected->bytes + expected->length - 6, probes[i]->bytes + expected->length - 6,
                   6);
            memcpy(expected->bytes + ICMP_CHECKSUM, probes[i]->bytes + ICMP_CHECKSUM, 2);
            right |= frame_equal(expected, probes[i]);
        }
        require(right, "a probe is wrong");
    }
    /* Not yet an address of ours: no answers. */
    inject(LAN, neighbour_solicitation(.source = "2001:db8:1::10", .target = "2001:db8:1::1",
                                       .source_link = HOST_LAN));
    expect_nothing(LAN);
    advance(2000);
    require(strstr(rpc("interface.list", "{}"), "'state':'valid'"), "no address is valid");
    discard(LAN);
    inject(LAN, neighbour_solicitation(.source = "2001:db8:1::10", .target = "2001:db8:1::1",
                                       .source_link = HOST_LAN));
    expect(LAN, neighbour_advertisement(.source = "2001:db8:1::1", .destination = "2001:db8:1::10",
                                        .target = "2001:db8:1::1",
                                        .flags = ROUTER | SOLICITED | OVERRIDE,
                                        .target_link = ROUTER_LAN));
    forget_drops();
}

static bool state_is(const char *address, const char *state) {
    return strstr(rpc("interface.list", "{}"),
                  text("'address':'%s','state':'%s'", address, state)) != NULL ||
           strstr(rpc("interface.list", "{}"),
                  text("'state':'%s','address':'%s'", state, address)) != NULL;
}

CASE(a_duplicate_is_not_used) {
    start_at_once(one_interface);
    advance(500);
    discard(LAN);
    inject(LAN, neighbour_advertisement(.source = "2001:db8:1::1", .destination = ALL_NODES,
                                        .target = "2001:db8:1::1", .flags = OVERRIDE,
                                        .target_link = HOST_LAN));
    advance(3000);
    discard(LAN);
    require(drops_so_far("nd.conflict") == 1, "the conflict was not noticed");
    forget_drops();
    require(state_is("2001:db8:1::1/64", "duplicate"), "%s", rpc("interface.list", "{}"));
    inject(LAN, neighbour_solicitation(.source = "2001:db8:1::10", .target = "2001:db8:1::1",
                                       .source_link = HOST_LAN));
    expect_nothing(LAN);
    forget_drops();
    /* Down and up: another chance. */
    rpc("interface.set", "{'name': 'lan', 'admin': 'down'}");
    rpc("interface.set", "{'name': 'lan', 'admin': 'up'}");
    advance(3000);
    discard(LAN);
    require(state_is("2001:db8:1::1/64", "valid"), "%s", rpc("interface.list", "{}"));
}

CASE(two_that_check_the_same_address_both_leave_it) {
    start_at_once(one_interface);
    advance(500);
    discard(LAN);
    inject(LAN, neighbour_solicitation(.source = "::", .target = "2001:db8:1::1",
                                       .nonce = "010203040506"));
    advance(3000);
    discard(LAN);
    require(state_is("2001:db8:1::1/64", "duplicate"), "%s", rpc("interface.list", "{}"));
    require(state_is(text("%s/64", LL_LAN), "valid"), "%s", rpc("interface.list", "{}"));
    forget_drops();
}

/* RFC 7527: on a link that returns what is sent, the router's own probe is no duplicate. */
CASE(a_probe_that_comes_back_is_no_duplicate) {
    struct frame *frame;

    start_at_once(one_interface);
    advance(300);
    while ((frame = next_of_type(135)) != NULL)
        inject(LAN, frame);
    advance(3000);
    discard(LAN);
    require(drops_so_far("nd.own_packet") == 2, "not two own packets");
    forget_drops();
    require(state_is("2001:db8:1::1/64", "valid"), "%s", rpc("interface.list", "{}"));
}

/* --- what is no neighbour discovery --- */

CASE(wrong_fields) {
    struct frame *request =
        neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:3::1",
                               .source_link = HOST_DMZ);

    start(nobody_known);
    unanswered(DMZ,
               neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:3::1",
                                      .source_link = HOST_DMZ, .hop_limit = 254),
               {"nd.hop_limit", 1});
    unanswered(DMZ, poke(request, ICMP_CHECKSUM, "dead"), {"nd.checksum", 1});
    unanswered(DMZ, poke(request, IP6_PAYLOAD + 30, "ff"), {"nd.checksum", 1});
    unanswered(DMZ,
               neighbour_solicitation(.source = "2001:db8:3::20", .target = "ff02::1",
                                      .destination = "ff02::1", .source_link = HOST_DMZ),
               {"nd.target_address", 1});
    unanswered(
        DMZ,
        neighbour_solicitation(.source = "::", .target = "2001:db8:3::1", .source_link = HOST_DMZ),
        {"nd.link_layer_option", 1});
    unanswered(
        DMZ,
        neighbour_solicitation(.source = "::", .destination = "ff02::1", .target = "2001:db8:3::1"),
        {"nd.destination_address", 1});
    unanswered(DMZ,
               neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:3::1",
                                      .source_link = "01:00:5e:00:00:01"),
               {"nd.link_layer_option", 1});
    unanswered(DMZ,
               neighbour_advertisement(.source = "2001:db8:3::20", .destination = ALL_NODES,
                                       .target = "2001:db8:3::20", .flags = SOLICITED,
                                       .target_link = HOST_DMZ),
               {"nd.solicited_flag", 1});
    unanswered(DMZ,
               icmp6(.source = "fe80::20", .destination = LL_DMZ, .hop_limit = 255, .type = 135,
                     .code = 1, .size = 16),
               {"nd.code", 1});
    unanswered(DMZ,
               icmp6(.source = "fe80::20", .destination = LL_DMZ, .hop_limit = 255, .type = 135,
                     .size = 15),
               {"nd.short", 1});
    unanswered(DMZ,
               icmp6(.source = "fe80::20", .destination = LL_DMZ, .hop_limit = 255, .type = 134,
                     .size = 16),
               {"nd.router_advertisement", 1});
    unanswered(DMZ,
               icmp6(.source = "fe80::20", .destination = LL_DMZ, .hop_limit = 255, .type = 137,
                     .size = 40),
               {"nd.redirect", 1});
}

CASE(options_that_are_none) {
    start(nobody_known);
    /* Length zero, and longer than the message; the options are the payload's last eight bytes. */
    for (unsigned length = 0; length < 256; length++) {
        struct frame *request =
            neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:3::1",
                                   .source_link = HOST_DMZ);
        uint8_t *icmp = request->bytes + IP6_PAYLOAD;
        uint32_t sum;

        if (length == 1)
            continue;
        icmp[25] = (uint8_t)length;
        icmp[2] = icmp[3] = 0;
        sum = fold16(sum16(sum16(32 + 58, request->bytes + IP + 8, 32), icmp, 32));
        icmp[2] = (uint8_t)(~sum >> 8);
        icmp[3] = (uint8_t)~sum;
        unanswered(DMZ, request, {"nd.option_length", 1});
    }
}

CASE(in_several_buffers) {
    struct frame *request =
        neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:3::1",
                               .source_link = HOST_DMZ);

    start(nobody_known);
    for (unsigned first = IP6_PAYLOAD + 1; first < request->length; first++) {
        inject_split(DMZ, request, first);
        expect(DMZ,
               neighbour_advertisement(.source = "2001:db8:3::1", .destination = "2001:db8:3::20",
                                       .target = "2001:db8:3::1",
                                       .flags = ROUTER | SOLICITED | OVERRIDE,
                                       .target_link = ROUTER_DMZ));
    }
}

/* RFC 6980. */
CASE(fragmented_messages_are_refused) {
    struct frame *request =
        neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:3::1",
                               .source_link = HOST_DMZ);
    struct frame *fragment =
        ip6(.source = "2001:db8:3::20", .destination = "ff02::1:ff00:1", .hop_limit = 255,
            .protocol = 58, .first = 44, .extensions = "3a00 0001 00000001", .size = 32);

    start(nobody_known);
    memcpy(fragment->bytes + fragment->length - 32, request->bytes + IP6_PAYLOAD, 32);
    inject(DMZ, fragment);
    expect_nothing(ANYWHERE);
    forget_drops();
    require(!strstr(rpc("neighbour.list", "{'interface': 'dmz'}"), "::20"), "it was learnt");
}

CASE(every_byte_of_a_solicitation) {
    start(nobody_known);
    for (unsigned offset = IP; offset < IP6_PAYLOAD + 32; offset++) {
        struct frame *request =
            neighbour_solicitation(.source = "2001:db8:3::20", .target = "2001:db8:3::1",
                                   .source_link = HOST_DMZ);

        for (unsigned value = 0; value < 256; value++)
            inject(DMZ, poke(request, offset, text("%02x", value)));
        turn();
        discard(ANYWHERE);
        frames_free();
    }
    advance(10000);
    discard(ANYWHERE);
    forget_drops();
}

/* --- router advertisements --- */

static const char *const advertising =
    "{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['2001:db8:1::1/64'],"
    "'router_advertisement': {'interval': 60, 'lifetime': 600, 'managed': true, 'other': true,"
    "'prefixes': [{'prefix': '2001:db8:1::/64', 'valid_lifetime': 3600,"
    "'preferred_lifetime': 1800}]}}}," UNLIMITED "}";

/* Hop limit 64, the flags; source link-layer address, MTU, prefix. */
static struct frame *advertisement(unsigned flags, unsigned lifetime) {
    char hex[400];
    struct frame *frame, *body;
    uint8_t *icmp;
    uint32_t sum;

    strcpy(hex, text("40%02x%04x 00000000 00000000 0101 020000000101 0501 0000 000005dc"
                     "0304 40c0 00000e10 00000708 00000000 20010db8000100000000000000000000",
                     flags, lifetime));
    body = raw(hex);
    frame = icmp6(.source = LL_LAN, .destination = ALL_NODES, .hop_limit = 255, .type = 134,
                  .size = body->length - 4);
    icmp = frame->bytes + IP6_PAYLOAD;
    memcpy(icmp + 4, body->bytes, body->length);
    icmp[2] = icmp[3] = 0;
    sum = fold16(
        sum16(sum16(body->length + 4 + 58, frame->bytes + IP + 8, 32), icmp, body->length + 4));
    icmp[2] = (uint8_t)(~sum >> 8);
    icmp[3] = (uint8_t)~sum;
    return frame;
}

CASE(a_solicitation_is_answered_with_an_advertisement) {
    start(advertising);
    advance(4000);
    discard(LAN);
    inject(LAN, router_solicitation(.source = "fe80::10", .destination = "ff02::2",
                                    .source_link = HOST_LAN));
    advance(4000); /* a random delay, and no more than one in three seconds */
    expect(LAN, advertisement(0xc0, 600));
    discard(LAN);
    inject(LAN, router_solicitation(.source = "::", .destination = "ff02::2"));
    advance(4000);
    expect(LAN, advertisement(0xc0, 600));
    discard(LAN);
}

CASE(advertisements_are_sent_without_being_asked) {
    unsigned count = 0;
    struct frame *frame;

    start(advertising);
    discard(LAN);
    for (unsigned minute = 0; minute < 10; minute++) {
        advance(60000);
        while ((frame = take(LAN)) != NULL) {
            require(frame_equal(frame,
                                ether(advertisement(0xc0, 600), "33:33:00:00:00:01", ROUTER_LAN)),
                    "another frame");
            count++;
        }
    }
    require(count >= 9 && count <= 33, "%u in ten minutes, with an interval of 20 to 60 s", count);
}

CASE(many_solicitations_get_few_advertisements) {
    unsigned count;

    start(advertising);
    discard(LAN);
    for (unsigned i = 0; i < 100; i++) {
        inject(LAN, router_solicitation(.source = "fe80::10", .destination = "ff02::2",
                                        .source_link = HOST_LAN));
        advance(100);
    }
    count = discard(LAN);
    require(count >= 2 && count <= 5, "%u advertisements in ten seconds", count);
}

CASE(hosts_are_told_when_advertising_ends) {
    struct frame *farewell;

    start(advertising);
    discard(LAN);
    apply(one_interface);
    farewell = take_one(LAN);
    require(icmp_type(farewell) == 134 && farewell->bytes[IP6_PAYLOAD + 6] == 0 &&
                farewell->bytes[IP6_PAYLOAD + 7] == 0,
            "no advertisement with a lifetime of zero");
    inject(LAN, router_solicitation(.source = "fe80::10", .destination = "ff02::2",
                                    .source_link = HOST_LAN));
    advance(5000);
    expect_nothing(LAN);
}

CASE(no_advertisements_where_none_are_wanted) {
    start(one_interface);
    inject(LAN, router_solicitation(.source = "fe80::10", .destination = "ff02::2",
                                    .source_link = HOST_LAN));
    advance(10000);
    expect_nothing(LAN);
}

/* --- MLD --- */

CASE(a_multicast_query_is_answered_with_the_groups) {
    struct frame *report, *query;
    uint8_t *icmp;
    uint32_t sum;

    start(one_interface);
    query = icmp6(.source = "fe80::10", .destination = "ff02::1", .hop_limit = 1, .type = 130,
                  .rest = 1000u << 16, .size = 20, .first = 0, .extensions = "0000 05020000 0100");
    icmp = query->bytes + IP6_PAYLOAD + 8;
    memset(icmp + 8, 0, 20); /* all groups, no sources */
    icmp[2] = icmp[3] = 0;
    sum = fold16(sum16(sum16(28 + 58, query->bytes + IP + 8, 32), icmp, 28));
    icmp[2] = (uint8_t)(~sum >> 8);
    icmp[3] = (uint8_t)~sum;
    inject(LAN, query);
    advance(1500);
    report = next_of_type(143);
    require(report != NULL, "no report");
    /* All routers, and the solicited-node groups of both addresses. */
    icmp = report->bytes + IP6_PAYLOAD + 8;
    require(icmp[7] == 3, "%u groups", icmp[7]);
    discard(LAN);
}

/* An address gets another prefix length while another address takes over its old prefix. */
CASE(an_address_changes_its_prefix_length) {
    const char *rest =
        "'neighbours': [{'interface': 'lan', 'address': '2001:db8:1::10', 'mac': '" HOST_LAN
        "'}]," UNLIMITED "}";

    start(
        text("{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['2001:db8:1::1/64']}},%s", rest));
    apply(text("{'interfaces': {'lan': {" LAN_PORT
               ", 'addresses': ['2001:db8:1::1/80', '2001:db8:1::2/64']}},%s",
               rest));
    advance(10000);
    discard(LAN);
    forget_drops();
    for (unsigned i = 0; i < 2; i++) {
        const char *own = i ? "2001:db8:1::1" : "2001:db8:1::2";

        inject(LAN, icmp6_echo(.source = "2001:db8:1::10", .destination = own));
        expect(LAN, icmp6_echo_reply(.source = own, .destination = "2001:db8:1::10"));
    }
}

HARNESS_MAIN()
