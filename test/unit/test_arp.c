/*
 * ARP: the exact bytes of what is sent, what is learnt from whom, and each kind of frame that is
 * refused under its name. The neighbour table is a fake that records what it is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "l3/neighbour.h"
#include "l3/protocol.h"

#include "l3_fakes.h"

/* ---- the neighbour table ---- */

static struct {
    unsigned count;
    uint16_t interface;
    struct ip_address address;
    uint8_t mac[6];
    bool solicited, override, is_router, create;
} learnt;

static struct neighbour_view known; /* family 0: nobody is known */

void neighbour_learn(uint16_t interface, const struct ip_address *of, const uint8_t mac[6],
                     bool solicited, bool override, bool is_router, bool create) {
    learnt.count++;
    learnt.interface = interface;
    learnt.address = *of;
    memcpy(learnt.mac, mac, 6);
    learnt.solicited = solicited;
    learnt.override = override;
    learnt.is_router = is_router;
    learnt.create = create;
}

bool neighbour_find(uint16_t interface, const struct ip_address *of, struct neighbour_view *out) {
    (void)interface;
    if (ip_address_compare(&known.address, of) != 0)
        return false;
    *out = known;
    return true;
}

/* ---- setting up ---- */

static struct interface *lan;

static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t mac_a[6] = {0x02, 0xaa, 0, 0, 0, 1};

static int setup(void **state) {
    (void)state;
    lan = make_interface(1, 0);
    add_address(lan, "192.0.2.1/24", ADDRESS_VALID);
    add_address(lan, "198.51.100.1/25", ADDRESS_VALID);
    set_up(lan, true);
    pass(20000); /* announcements and defences are over */
    forget_sent();
    memset(&learnt, 0, sizeof(learnt));
    memset(&known, 0, sizeof(known));
    memset(&fake_counters, 0, sizeof(fake_counters));
    no_buffers = false;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_interface(lan);
    assert_int_equal(mbufs_out(), 0);
    return 0;
}

/* An ARP frame, as it comes from a worker. */
struct frame {
    uint16_t hardware, protocol;
    uint8_t hardware_length, protocol_length;
    uint16_t operation;
    uint8_t sender_mac[6];
    const char *sender;
    uint8_t target_mac[6];
    const char *target;
    bool to_group;      /* came as broadcast */
    unsigned l3_offset; /* 14, or 18 with a VLAN tag */
    unsigned length;    /* bytes of ARP; 28 is whole */
    unsigned cut;       /* the first of two segments holds so many bytes of ARP; 0 = one segment */
};

static struct frame request_from(const char *sender, const char *target) {
    struct frame frame = {.hardware = 1,
                          .protocol = 0x0800,
                          .hardware_length = 6,
                          .protocol_length = 4,
                          .operation = 1,
                          .sender = sender,
                          .target = target,
                          .to_group = true,
                          .l3_offset = 14,
                          .length = 28};

    memcpy(frame.sender_mac, mac_a, 6);
    return frame;
}

static struct frame reply_from(const char *sender, const char *target) {
    struct frame frame = request_from(sender, target);

    frame.operation = 2;
    frame.to_group = false;
    memcpy(frame.target_mac, lan->mac, 6);
    return frame;
}

static void receive(const struct frame *frame) {
    struct ip_address sender = address(frame->sender), target = address(frame->target);
    uint8_t bytes[18 + 28] = {0}, *arp = bytes + frame->l3_offset;
    unsigned total = frame->l3_offset + frame->length, first = total;
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(fake_pool);

    memcpy(bytes, frame->to_group ? everybody : lan->mac, 6);
    memcpy(bytes + 6, frame->sender_mac, 6);
    arp[0] = (uint8_t)(frame->hardware >> 8);
    arp[1] = (uint8_t)frame->hardware;
    arp[2] = (uint8_t)(frame->protocol >> 8);
    arp[3] = (uint8_t)frame->protocol;
    arp[4] = frame->hardware_length;
    arp[5] = frame->protocol_length;
    arp[6] = (uint8_t)(frame->operation >> 8);
    arp[7] = (uint8_t)frame->operation;
    memcpy(arp + 8, frame->sender_mac, 6);
    memcpy(arp + 14, sender.bytes, 4);
    memcpy(arp + 18, frame->target_mac, 6);
    memcpy(arp + 24, target.bytes, 4);

    assert_non_null(mbuf);
    if (frame->cut > 0) {
        struct rte_mbuf *second = rte_pktmbuf_alloc(fake_pool);

        first = frame->l3_offset + frame->cut;
        memcpy(rte_pktmbuf_append(second, (uint16_t)(total - first)), bytes + first, total - first);
        memcpy(rte_pktmbuf_append(mbuf, (uint16_t)first), bytes, first);
        assert_int_equal(rte_pktmbuf_chain(mbuf, second), 0);
    } else {
        memcpy(rte_pktmbuf_append(mbuf, (uint16_t)total), bytes, total);
    }
    *packet_meta(mbuf) = (struct packet_meta){
        .in_interface = lan->id,
        .l3_offset = (uint8_t)frame->l3_offset,
        .flags = frame->to_group ? PACKET_LINK_MULTICAST : 0,
        .cause = CAUSE_ARP,
    };
    arp_input(mbuf);
}

/* Exactly this frame was sent as number `index`. Text: hex with spaces. */
static void expect_sent(unsigned index, const char *text) {
    uint8_t expected[60] = {0};
    unsigned length = 0, byte;
    int used;

    for (; sscanf(text, "%2x%n", &byte, &used) == 1; text += used)
        expected[length++] = (uint8_t)byte;
    assert_true(index < sent_count);
    assert_int_equal(sent[index].interface, lan->id);
    assert_int_equal(sent[index].port, lan->port->id);
    assert_int_equal(sent[index].length, sizeof(expected));
    assert_memory_equal(sent[index].bytes, expected, sizeof(expected));
}

/* ---- sending ---- */

static void test_request(void **state) {
    struct ip_address target = address("198.51.100.7");

    (void)state;
    arp_send_request(lan, &target, NULL);
    assert_int_equal(sent_count, 1);
    expect_sent(0, "ffffffffffff 020000000001 0806 0001 0800 06 04 0001"
                   "020000000001 c6336401 000000000000 c6336407");
    arp_send_request(lan, &target, mac_a);
    expect_sent(1, "02aa00000001 020000000001 0806 0001 0800 06 04 0001"
                   "020000000001 c6336401 000000000000 c6336407");
}

static void test_request_from_outside_the_prefix(void **state) {
    struct ip_address target = address("203.0.113.7");

    (void)state;
    arp_send_request(lan, &target, NULL);
    expect_sent(0, "ffffffffffff 020000000001 0806 0001 0800 06 04 0001"
                   "020000000001 c0000201 000000000000 cb007107");
}

static void test_request_without_an_own_address(void **state) {
    struct ip_address target = address("192.0.2.7");

    (void)state;
    remove_address(lan, 1);
    remove_address(lan, 0);
    arp_send_request(lan, &target, NULL);
    assert_int_equal(sent_count, 0);
}

static void test_no_buffer(void **state) {
    struct ip_address target = address("192.0.2.7");

    (void)state;
    no_buffers = true;
    arp_send_request(lan, &target, NULL);
    assert_int_equal(drops("arp", "no_buffer"), 1);
}

static void test_announcements(void **state) {
    (void)state;
    add_address(lan, "203.0.113.1/24", ADDRESS_VALID);
    assert_int_equal(sent_count, 1);
    expect_sent(0, "ffffffffffff 020000000001 0806 0001 0800 06 04 0001"
                   "020000000001 cb007101 000000000000 cb007101");
    pass(3000);
    assert_int_equal(sent_count, 4); /* all of the interface's once more */
    pass(10000);
    assert_int_equal(sent_count, 4);
    set_up(lan, false);
    forget_sent();
    add_address(lan, "203.0.113.129/32", ADDRESS_VALID);
    add_address(lan, "2001:db8::1/64", ADDRESS_VALID);
    assert_int_equal(sent_count, 0);
    set_up(lan, true);
    assert_int_equal(sent_count, 4);
    pass(1900);
    assert_int_equal(sent_count, 4);
    pass(300);
    assert_int_equal(sent_count, 8);
    set_up(lan, true);
    set_up(lan, false);
    pass(5000);
    assert_int_equal(sent_count, 12); /* not again when it is down */
}

/* ---- requests ---- */

static void test_request_is_answered_and_learnt(void **state) {
    struct frame frame = request_from("192.0.2.7", "192.0.2.1");

    (void)state;
    receive(&frame);
    assert_int_equal(sent_count, 1);
    expect_sent(0, "02aa00000001 020000000001 0806 0001 0800 06 04 0002"
                   "020000000001 c0000201 02aa00000001 c0000207");
    assert_int_equal(learnt.count, 1);
    assert_int_equal(learnt.interface, lan->id);
    assert_memory_equal(learnt.mac, mac_a, 6);
    assert_false(learnt.solicited);
    assert_true(learnt.override);
    assert_true(learnt.create);
    assert_int_equal(drops_all("arp"), 0);
}

static void test_tagged_and_in_two_segments(void **state) {
    struct frame frame = request_from("192.0.2.7", "192.0.2.1");

    (void)state;
    frame.l3_offset = 18;
    receive(&frame);
    assert_int_equal(sent_count, 1);
    for (frame.cut = 1; frame.cut < 28; frame.cut++)
        receive(&frame);
    assert_int_equal(sent_count, 28);
    assert_memory_equal(sent[0].bytes, sent[27].bytes, 60);
}

static void test_request_for_somebody_else(void **state) {
    struct frame frame = request_from("192.0.2.7", "192.0.2.8");

    (void)state;
    receive(&frame);
    assert_int_equal(sent_count, 0);
    assert_int_equal(learnt.count, 1);
    assert_false(learnt.create); /* RFC 826: only an entry that exists */
    assert_int_equal(drops_all("arp"), 0);
}

static void test_request_on_another_interface(void **state) {
    struct interface *other = make_interface(2, 0);
    struct frame frame = request_from("192.0.2.7", "203.0.113.1");

    (void)state;
    add_address(other, "203.0.113.1/24", ADDRESS_VALID);
    set_up(other, true);
    forget_sent();
    receive(&frame);
    assert_int_equal(sent_count, 0);
    remove_interface(other);
}

static void test_probe_is_answered_not_learnt(void **state) {
    struct frame frame = request_from("0.0.0.0", "192.0.2.1");

    (void)state;
    receive(&frame);
    assert_int_equal(sent_count, 1);
    expect_sent(0, "02aa00000001 020000000001 0806 0001 0800 06 04 0002"
                   "020000000001 c0000201 02aa00000001 00000000");
    assert_int_equal(learnt.count, 0);
    frame.target = "192.0.2.9";
    receive(&frame);
    assert_int_equal(sent_count, 1);
}

static void test_sender_from_elsewhere_is_answered_not_learnt(void **state) {
    static const char *const senders[] = {"203.0.113.7", "192.0.2.0", "192.0.2.255"};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct frame frame = request_from(senders[i], "192.0.2.1");

        receive(&frame);
        assert_int_equal(sent_count, i + 1);
        assert_int_equal(learnt.count, 0);
        assert_int_equal(drops("arp", "sender_not_on_link"), i + 1);
    }
    /* But an entry that a route made is kept right. */
    struct frame frame = request_from("203.0.113.7", "192.0.2.1");

    known.address = address("203.0.113.7");
    receive(&frame);
    assert_int_equal(learnt.count, 1);
    assert_false(learnt.create);
}

/* ---- replies ---- */

static void test_reply(void **state) {
    struct frame frame = reply_from("192.0.2.7", "192.0.2.1");

    (void)state;
    receive(&frame);
    assert_int_equal(sent_count, 0);
    assert_int_equal(learnt.count, 1);
    assert_true(learnt.solicited);
    assert_true(learnt.override);
    assert_false(learnt.create);
    frame.to_group = true; /* nobody answers like that */
    receive(&frame);
    assert_false(learnt.solicited);
    frame = reply_from("192.0.2.7", "192.0.2.8");
    receive(&frame);
    assert_false(learnt.solicited);
}

static void test_gratuitous(void **state) {
    struct frame frame = request_from("192.0.2.7", "192.0.2.7");

    (void)state;
    receive(&frame);
    assert_int_equal(learnt.count, 1);
    assert_true(learnt.override);
    assert_false(learnt.create);
    known.address = address("192.0.2.7");
    known.state = NEIGHBOUR_REACHABLE;
    receive(&frame);
    assert_false(learnt.override);
    frame.operation = 2;
    receive(&frame);
    assert_false(learnt.override);
    assert_false(learnt.solicited);
    known.state = NEIGHBOUR_STALE;
    receive(&frame);
    assert_true(learnt.override);
    assert_int_equal(sent_count, 0);
}

/* ---- conflicts ---- */

static void test_conflict_is_defended_once_in_ten_seconds(void **state) {
    struct frame frame = request_from("192.0.2.1", "192.0.2.1");

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        receive(&frame);
    assert_int_equal(drops("arp", "conflict"), 20);
    assert_int_equal(learnt.count, 0);
    assert_int_equal(sent_count, 1);
    expect_sent(0, "ffffffffffff 020000000001 0806 0001 0800 06 04 0001"
                   "020000000001 c0000201 000000000000 c0000201");
    frame.sender = "198.51.100.1"; /* another address has its own time */
    receive(&frame);
    assert_int_equal(sent_count, 2);
    frame.sender = "192.0.2.1";
    pass(9000);
    receive(&frame);
    assert_int_equal(sent_count, 2);
    pass(1500);
    frame.operation = 2;
    receive(&frame);
    assert_int_equal(sent_count, 3);
}

static void test_own_frames(void **state) {
    struct frame frame = request_from("192.0.2.1", "192.0.2.7");

    (void)state;
    memcpy(frame.sender_mac, lan->mac, 6);
    receive(&frame);
    frame.sender = "192.0.2.9";
    receive(&frame);
    frame.sender = "0.0.0.0";
    receive(&frame);
    assert_int_equal(drops("arp", "own_frame"), 3);
    assert_int_equal(learnt.count, 0);
    assert_int_equal(sent_count, 0);
}

/* ---- what is no ARP ---- */

static void expect_refused(const struct frame *frame, const char *reason) {
    uint64_t before = drops("arp", reason), all = drops_all("arp");

    receive(frame);
    assert_int_equal(drops("arp", reason), before + 1);
    assert_int_equal(drops_all("arp"), all + 1);
    assert_int_equal(sent_count, 0);
    assert_int_equal(learnt.count, 0);
}

static void test_malformed(void **state) {
    static const char *const impossible[] = {"224.0.0.1", "255.255.255.255", "127.0.0.1", "0.1.2.3",
                                             "240.0.0.1"};
    const struct frame good = request_from("192.0.2.7", "192.0.2.1");
    struct frame frame = good;

    (void)state;
    for (frame.length = 0; frame.length < 28; frame.length++)
        expect_refused(&frame, "short");
    frame = good;
    frame.length = 27;
    frame.cut = 10;
    expect_refused(&frame, "short");

    frame = good;
    frame.hardware = 6;
    expect_refused(&frame, "hardware_type");
    frame.hardware = 0x0100;
    expect_refused(&frame, "hardware_type");
    frame = good;
    frame.protocol = 0x86dd;
    expect_refused(&frame, "protocol_type");
    frame = good;
    frame.hardware_length = 8;
    expect_refused(&frame, "address_length");
    frame = good;
    frame.protocol_length = 16;
    expect_refused(&frame, "address_length");
    frame = good;
    frame.operation = 0;
    expect_refused(&frame, "operation");
    frame.operation = 3;
    expect_refused(&frame, "operation");
    frame = good;
    memset(frame.sender_mac, 0xff, 6);
    expect_refused(&frame, "sender_mac");
    memset(frame.sender_mac, 0, 6);
    expect_refused(&frame, "sender_mac");
    frame.sender_mac[0] = 1;
    expect_refused(&frame, "sender_mac");
    frame = good;
    for (unsigned i = 0; i < 5; i++) {
        frame.sender = impossible[i];
        expect_refused(&frame, "sender_address");
    }
}

static void test_interface_that_is_gone(void **state) {
    const struct frame frame = request_from("192.0.2.7", "192.0.2.1");

    (void)state;
    set_up(lan, false);
    expect_refused(&frame, "no_interface");
    lan->id = 0;
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(fake_pool);

    rte_pktmbuf_append(mbuf, 60);
    *packet_meta(mbuf) = (struct packet_meta){.in_interface = 1, .l3_offset = 14};
    arp_input(mbuf);
    assert_int_equal(drops("arp", "no_interface"), 2);
    lan->id = 1;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_request),
        TEST(test_request_from_outside_the_prefix),
        TEST(test_request_without_an_own_address),
        TEST(test_no_buffer),
        TEST(test_announcements),
        TEST(test_request_is_answered_and_learnt),
        TEST(test_tagged_and_in_two_segments),
        TEST(test_request_for_somebody_else),
        TEST(test_request_on_another_interface),
        TEST(test_probe_is_answered_not_learnt),
        TEST(test_sender_from_elsewhere_is_answered_not_learnt),
        TEST(test_reply),
        TEST(test_gratuitous),
        TEST(test_conflict_is_defended_once_in_ten_seconds),
        TEST(test_own_frames),
        TEST(test_malformed),
        TEST(test_interface_that_is_gone),
    };

    fakes_start();
    if (arp_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
