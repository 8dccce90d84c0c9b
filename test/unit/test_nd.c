/*
 * Neighbour Discovery: the exact bytes of what is sent, what is learnt from whom, each kind of
 * packet that is refused under its name, duplicate address detection, group reports and router
 * advertisements. The neighbour table is a fake that records what it is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "l3/nd.h"
#include "l3/neighbour.h"
#include "l3/protocol.h"

#include "l3_fakes.h"

/* ---- the neighbour table, and ARP ---- */

static struct {
    unsigned count;
    struct ip_address address;
    uint8_t mac[6];
    bool solicited, override, is_router, create;
} learnt;

static struct neighbour_view known; /* family 0: nobody is known */

void neighbour_learn(uint16_t interface, const struct ip_address *of, const uint8_t mac[6],
                     bool solicited, bool override, bool is_router, bool create) {
    assert_int_equal(interface, 1);
    learnt.count++;
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

static unsigned arp_frames;

void arp_input(struct rte_mbuf *mbuf) {
    arp_frames++;
    rte_pktmbuf_free(mbuf);
}

/* ---- setting up ---- */

static struct interface *lan;

static const uint8_t mac_a[6] = {0x02, 0xaa, 0, 0, 0, 1};

static int setup(void **state) {
    (void)state;
    lan = make_interface(1, 0);
    add_address(lan, "fe80::1/64", ADDRESS_VALID);
    add_address(lan, "2001:db8::1/64", ADDRESS_VALID);
    set_up(lan, true);
    pass(20000); /* defences are over */
    forget_sent();
    memset(&learnt, 0, sizeof(learnt));
    memset(&known, 0, sizeof(known));
    memset(&fake_counters, 0, sizeof(fake_counters));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    if (lan->id != 0)
        remove_interface(lan);
    assert_int_equal(mbufs_out(), 0);
    return 0;
}

/* Bytes from hex with spaces. */
static unsigned from_hex(const char *text, uint8_t *out) {
    unsigned length = 0, byte;
    int used;

    for (; sscanf(text, "%2x%n", &byte, &used) == 1; text += used)
        out[length++] = (uint8_t)byte;
    return length;
}

/* An independent sum over pseudo header and message: 0 where the checksum is right. */
static uint16_t sum_of(const uint8_t *addresses, const uint8_t *message, unsigned length) {
    uint64_t sum = 58 + length;

    for (unsigned i = 0; i < 32; i++)
        sum += i % 2 ? addresses[i] : (uint64_t)addresses[i] << 8;
    for (unsigned i = 0; i < length; i++)
        sum += i % 2 ? message[i] : (uint64_t)message[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* A packet as it comes from a worker. */
struct packet {
    const char *source, *destination;
    const char *message; /* ICMPv6 in hex; the checksum is filled in unless wrong_checksum */
    uint8_t hop_limit;
    uint8_t next_header;
    uint8_t version;
    bool hop_by_hop, wrong_checksum, fragment;
    int length_error; /* added to the payload length */
    unsigned cut_off; /* bytes that the frame lacks at its end */
    unsigned segment; /* > 0: the first of two segments has so many bytes */
    unsigned l3_offset;
};

static struct packet packet(const char *source, const char *destination, const char *message) {
    return (struct packet){.source = source,
                           .destination = destination,
                           .message = message,
                           .hop_limit = 255,
                           .next_header = 58,
                           .version = 6,
                           .l3_offset = 14};
}

static void receive(const struct packet *p) {
    struct ip_address source = address(p->source), destination = address(p->destination);
    uint8_t bytes[4096] = {0}, *ip = bytes + p->l3_offset;
    unsigned extension = p->hop_by_hop ? 8 : 0, length, total, first;
    uint8_t *message = ip + 40 + extension;
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(fake_pool);
    uint16_t sum;

    memcpy(bytes + 6, mac_a, 6);
    length = from_hex(p->message, message);
    ip[0] = (uint8_t)(p->version << 4);
    ip[4] = (uint8_t)((extension + length + (unsigned)p->length_error) >> 8);
    ip[5] = (uint8_t)(extension + length + (unsigned)p->length_error);
    ip[6] = p->hop_by_hop ? 0 : p->next_header;
    ip[7] = p->hop_limit;
    memcpy(ip + 8, source.bytes, 16);
    memcpy(ip + 24, destination.bytes, 16);
    if (p->hop_by_hop)
        memcpy(ip + 40, (const uint8_t[]){p->next_header, 0, 5, 2, 0, 0, 1, 0}, 8);
    message[2] = message[3] = 0;
    sum = sum_of(ip + 8, message, length);
    if (p->wrong_checksum)
        sum ^= 0x0100;
    message[2] = (uint8_t)(sum >> 8);
    message[3] = (uint8_t)sum;

    assert_non_null(mbuf);
    total = p->l3_offset + 40 + extension + length - p->cut_off;
    first = p->segment ? p->segment : total;
    if (first < total) {
        struct rte_mbuf *second = rte_pktmbuf_alloc(fake_pool);

        memcpy(rte_pktmbuf_append(second, (uint16_t)(total - first)), bytes + first, total - first);
        memcpy(rte_pktmbuf_append(mbuf, (uint16_t)first), bytes, first);
        assert_int_equal(rte_pktmbuf_chain(mbuf, second), 0);
    } else {
        memcpy(rte_pktmbuf_append(mbuf, (uint16_t)total), bytes, total);
    }
    *packet_meta(mbuf) = (struct packet_meta){
        .in_interface = 1,
        .l3_offset = (uint8_t)p->l3_offset,
        .flags = (uint16_t)(PACKET_IPV6 | (p->fragment ? PACKET_FRAGMENT : 0)),
        .cause = CAUSE_LOCAL,
    };
    fake_handlers[PUNT_ARP](mbuf);
}

/* Frame number `index` is exactly this one; the checksum bytes in the text do not matter, but it
 * has to be right. */
static void expect_sent(unsigned index, const char *text) {
    uint8_t expected[SENT_BYTES];
    unsigned length = from_hex(text, expected), offset;
    const struct sent *frame = &sent[index];

    assert_true(index < sent_count);
    assert_int_equal(frame->interface, 1);
    assert_int_equal(frame->port, lan->port->id);
    assert_int_equal(frame->length, length);
    offset = frame->bytes[20] == 0 ? 62 : 54;
    assert_int_equal(sum_of(frame->bytes + 22, frame->bytes + offset, length - offset), 0);
    memcpy(expected + offset + 2, frame->bytes + offset + 2, 2);
    assert_memory_equal(frame->bytes, expected, length);
}

/* Finds the first frame of the ICMPv6 type; its ICMPv6 message. */
static const uint8_t *find_sent(uint8_t type, unsigned *length) {
    for (unsigned i = 0; i < sent_count; i++) {
        unsigned offset = sent[i].bytes[20] == 0 ? 62 : 54;

        assert_int_equal(
            sum_of(sent[i].bytes + 22, sent[i].bytes + offset, sent[i].length - offset), 0);
        if (sent[i].bytes[offset] == type) {
            *length = sent[i].length - offset;
            return sent[i].bytes + offset;
        }
    }
    return NULL;
}

static unsigned sent_of(uint8_t type) {
    unsigned count = 0;

    assert_true(sent_count <= SENT_MAX);
    for (unsigned i = 0; i < sent_count; i++)
        count += sent[i].bytes[sent[i].bytes[20] == 0 ? 62 : 54] == type;
    return count;
}

#define OWN "20010db8000000000000000000000001"
#define OWN_LOCAL "fe800000000000000000000000000001"
#define HOST "20010db8000000000000000000000007"
#define ALL_NODES "ff020000000000000000000000000001"
#define MAC_A "02aa00000001"
#define MAC_B "02bb00000002"
#define MAC_OWN "020000000001"

#define ETHER(destination) destination MAC_OWN "86dd"
#define IP6(length, source, destination) "60000000" length "3aff" source destination

#define NS(target) "87000000 00000000" target
#define NA(flags, target) "88000000" flags "000000" target

/* ---- sending ---- */

static void test_solicitation(void **state) {
    struct ip_address target = address("2001:db8::12:3456"), local = address("fe80::7");

    (void)state;
    nd_send_solicitation(lan, &target, NULL);
    expect_sent(0, ETHER("3333ff123456") IP6("0020", OWN, "ff0200000000000000000001ff123456")
                       NS("20010db8000000000000000000123456") "0101" MAC_OWN);
    nd_send_solicitation(lan, &target, mac_a);
    expect_sent(1, ETHER(MAC_A) IP6("0020", OWN, "20010db8000000000000000000123456")
                       NS("20010db8000000000000000000123456") "0101" MAC_OWN);
    nd_send_solicitation(lan, &local, NULL);
    expect_sent(2, ETHER("3333ff000007") IP6("0020", OWN_LOCAL, "ff0200000000000000000001ff000007")
                       NS("fe800000000000000000000000000007") "0101" MAC_OWN);
    lan->addresses[0].state = lan->addresses[1].state = ADDRESS_TENTATIVE;
    nd_send_solicitation(lan, &target, NULL);
    assert_int_equal(sent_count, 3);
}

static void test_announcement(void **state) {
    struct ip_address own = address("2001:db8::1");

    (void)state;
    nd_send_announcement(lan, &own);
    expect_sent(0, ETHER("333300000001") IP6("0020", OWN, ALL_NODES) NA("a0", OWN) "0201" MAC_OWN);
    no_buffers = true;
    nd_send_announcement(lan, &own);
    no_buffers = false;
    assert_int_equal(drops("nd", "no_buffer"), 1);
}

/* ---- solicitations ---- */

static void test_solicitation_is_answered_and_learnt(void **state) {
    struct packet p = packet("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0101" MAC_B);

    (void)state;
    receive(&p);
    assert_int_equal(sent_count, 1);
    expect_sent(0, ETHER(MAC_B) IP6("0020", OWN, HOST) NA("e0", OWN) "0201" MAC_OWN);
    assert_int_equal(learnt.count, 1);
    assert_memory_equal(learnt.mac, ((const uint8_t[]){2, 0xbb, 0, 0, 0, 2}), 6);
    assert_false(learnt.solicited);
    assert_true(learnt.override);
    assert_true(learnt.create);
    assert_int_equal(drops_all("nd"), 0);

    /* Without its address: back to where the frame came from. */
    p = packet("2001:db8::7", "2001:db8::1", NS(OWN));
    receive(&p);
    expect_sent(1, ETHER(MAC_A) IP6("0020", OWN, HOST) NA("e0", OWN) "0201" MAC_OWN);
    assert_int_equal(learnt.count, 1);

    /* What is known about the host's being a router stays. */
    p = packet("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0101" MAC_B);
    known.address = address("2001:db8::7");
    known.is_router = true;
    receive(&p);
    assert_true(learnt.is_router);
}

static void test_tagged_and_in_two_segments(void **state) {
    struct packet p = packet("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0101" MAC_B);
    unsigned count = 0;

    (void)state;
    p.l3_offset = 18;
    for (p.segment = 1; p.segment < 18 + 40 + 32; p.segment++) {
        receive(&p);
        assert_int_equal(sent_count, ++count);
    }
}

static void test_solicitation_for_somebody_else(void **state) {
    struct packet p = packet("2001:db8::7", "ff02::1:ff00:1",
                             NS("20010db8000000000000000001000001") "0101" MAC_B);

    (void)state;
    receive(&p);
    assert_int_equal(sent_count, 0);
    assert_int_equal(learnt.count, 1);
    assert_false(learnt.create);
    assert_int_equal(drops_all("nd"), 0);
}

static void test_probe_for_a_valid_address_is_answered(void **state) {
    struct packet p = packet("::", "ff02::1:ff00:1", NS(OWN));

    (void)state;
    receive(&p);
    expect_sent(0, ETHER("333300000001") IP6("0020", OWN, ALL_NODES) NA("a0", OWN) "0201" MAC_OWN);
    assert_int_equal(learnt.count, 0);
    assert_int_equal(lan->addresses[1].state, ADDRESS_VALID);
}

static void test_source_from_elsewhere_is_answered_not_learnt(void **state) {
    struct packet p = packet("2001:db8:9::7", "ff02::1:ff00:1", NS(OWN) "0101" MAC_B);

    (void)state;
    receive(&p);
    assert_int_equal(sent_count, 1);
    assert_int_equal(learnt.count, 0);
    assert_int_equal(drops("nd", "source_not_on_link"), 1);
}

/* ---- advertisements ---- */

static void test_advertisement(void **state) {
    struct packet p = packet("2001:db8::7", "2001:db8::1", NA("e0", HOST) "0201" MAC_B);

    (void)state;
    receive(&p);
    assert_int_equal(learnt.count, 0); /* nobody asked */
    known.address = address("2001:db8::7");
    receive(&p);
    assert_int_equal(learnt.count, 1);
    assert_memory_equal(learnt.mac, ((const uint8_t[]){2, 0xbb, 0, 0, 0, 2}), 6);
    assert_true(learnt.solicited);
    assert_true(learnt.override);
    assert_true(learnt.is_router);
    assert_false(learnt.create);
    p = packet("2001:db8::7", "ff02::1", NA("00", HOST) "0201" MAC_B);
    receive(&p);
    assert_int_equal(learnt.count, 2);
    assert_false(learnt.solicited);
    assert_false(learnt.override);
    assert_false(learnt.is_router);
    assert_int_equal(drops_all("nd"), 0);
}

static void test_advertisement_without_its_address(void **state) {
    struct packet p = packet("2001:db8::7", "2001:db8::1", NA("60", HOST));

    (void)state;
    known.address = address("2001:db8::7");
    receive(&p);
    assert_int_equal(learnt.count, 0); /* says nothing about an unknown one */
    known.has_mac = true;
    memcpy(known.mac, mac_a, 6);
    receive(&p);
    assert_int_equal(learnt.count, 1);
    assert_memory_equal(learnt.mac, mac_a, 6);
    assert_true(learnt.solicited);
}

static void test_conflict_is_defended(void **state) {
    struct packet p = packet("2001:db8::1", "ff02::1", NA("20", OWN) "0201" MAC_B);

    (void)state;
    receive(&p);
    receive(&p);
    assert_int_equal(drops("nd", "conflict"), 2);
    assert_int_equal(sent_count, 1);
    expect_sent(0, ETHER("333300000001") IP6("0020", OWN, ALL_NODES) NA("a0", OWN) "0201" MAC_OWN);
    assert_int_equal(lan->addresses[1].state, ADDRESS_VALID);
    p.message = NA("20", OWN) "0201" MAC_OWN;
    receive(&p);
    assert_int_equal(drops("nd", "own_packet"), 1);
    pass(11000);
    p.message = NA("20", OWN) "0201" MAC_B;
    receive(&p);
    assert_int_equal(sent_count, 2);
    assert_int_equal(learnt.count, 0);
}

/* ---- what is refused ---- */

static void expect_refused(const struct packet *p, const char *reason) {
    uint64_t before = drops("nd", reason), all = drops_all("nd");

    receive(p);
    if (drops("nd", reason) != before + 1)
        fail_msg("not refused as %s: %s", reason, p->message);
    assert_int_equal(drops_all("nd"), all + 1);
    assert_int_equal(sent_count, 0);
    assert_int_equal(learnt.count, 0);
}

static void refuse(const char *source, const char *destination, const char *message,
                   const char *reason) {
    struct packet p = packet(source, destination, message);

    expect_refused(&p, reason);
}

static void test_malformed_packets(void **state) {
    const struct packet good = packet("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0101" MAC_B);
    struct packet p = good;
    char *long_message = malloc(2 * 2100 + 1);

    (void)state;
    for (p.cut_off = 1; p.cut_off <= 72; p.cut_off++)
        expect_refused(&p, "short");
    p = good;
    p.length_error = 1;
    expect_refused(&p, "short");
    p.length_error = -32 + 7;
    expect_refused(&p, "short");
    p = good;
    p.hop_by_hop = true;
    p.length_error = -8 - 32 + 7;
    expect_refused(&p, "short");
    p = good;
    p.version = 4;
    expect_refused(&p, "not_icmpv6");
    p = good;
    p.next_header = 17;
    expect_refused(&p, "not_icmpv6");
    p.next_header = 44;
    expect_refused(&p, "fragmented");
    p = good;
    p.fragment = true;
    expect_refused(&p, "fragmented");
    for (unsigned hops = 0; hops < 255; hops += 127) {
        p = good;
        p.hop_limit = (uint8_t)hops;
        expect_refused(&p, "hop_limit");
    }
    p = good;
    p.wrong_checksum = true;
    expect_refused(&p, "checksum");
    refuse("2001:db8::7", "ff02::1:ff00:1", "87010000 00000000" OWN, "code");
    refuse("2001:db8::7", "ff02::1:ff00:1", "8a000000 00000000" OWN, "type");
    refuse("ff02::7", "ff02::1:ff00:1", NS(OWN), "source_address");

    memset(long_message, '0', 2 * 2100);
    long_message[2 * 2100] = '\0';
    long_message[0] = '8';
    long_message[1] = '7';
    p = good;
    p.message = long_message;
    p.segment = 1000;
    expect_refused(&p, "too_long");
    free(long_message);
    lan->up = false;
    expect_refused(&good, "no_interface");
    lan->up = true;
}

static void test_malformed_solicitations(void **state) {
    (void)state;
    refuse("2001:db8::7", "ff02::1:ff00:1", "87000000 00000000 20010db80000000000000000000000",
           "short");
    refuse("2001:db8::7", "ff02::1:ff00:1", NS(ALL_NODES), "target_address");
    refuse("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0100" MAC_B, "option_length");
    refuse("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0102" MAC_B, "option_length");
    refuse("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "01", "option_length");
    refuse("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0101" MAC_B "6300" MAC_B, "option_length");
    refuse("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0102" MAC_B "0000000000000000",
           "link_layer_option");
    refuse("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0101 3333ff000001", "link_layer_option");
    refuse("2001:db8::7", "ff02::1:ff00:1", NS(OWN) "0101 000000000000", "link_layer_option");
    refuse("::", "2001:db8::1", NS(OWN), "destination_address");
    refuse("::", "ff02::1", NS(OWN), "destination_address");
    refuse("::", "ff02::1:ff00:1", NS(OWN) "0101" MAC_B, "link_layer_option");
    refuse("2001:db8::1", "ff02::1:ff00:7", NS(HOST) "0101" MAC_OWN, "own_packet");

    /* Options that nobody knows are passed over. */
    struct packet p = packet("2001:db8::7", "ff02::1:ff00:1",
                             NS(OWN) "6302" MAC_B "0000000000000000"
                                     "0101" MAC_B);

    receive(&p);
    assert_int_equal(learnt.count, 1);
}

static void test_malformed_advertisements(void **state) {
    (void)state;
    known.address = address("2001:db8::7");
    refuse("2001:db8::7", "2001:db8::1", "88000000 60000000 20010db80000000000000000000000",
           "short");
    refuse("2001:db8::7", "2001:db8::1", NA("60", ALL_NODES) "0201" MAC_B, "target_address");
    refuse("2001:db8::7", "ff02::1", NA("60", HOST) "0201" MAC_B, "solicited_flag");
    refuse("2001:db8::7", "2001:db8::1", NA("60", HOST) "0200" MAC_B, "option_length");
    refuse("2001:db8::7", "2001:db8::1", NA("60", HOST) "0201 ffffffffffff", "link_layer_option");
    refuse("2001:db8::7", "2001:db8::1", "88050000 60000000" HOST "0201" MAC_B, "code");
}

static void test_other_routers_and_redirects(void **state) {
    (void)state;
    refuse("fe80::9", "ff02::1", "86000000 40000708 00000000 00000000", "router_advertisement");
    refuse("fe80::9", "ff02::1", "86000000 40000708 00000000", "short");
    refuse("2001:db8::9", "ff02::1", "86000000 40000708 00000000 00000000", "source_address");
    refuse("fe80::1", "ff02::1", "86000000 40000708 00000000 00000000", "own_packet");
    refuse("fe80::9", "2001:db8::1", "89000000 00000000" HOST HOST, "redirect");
    refuse("fe80::9", "2001:db8::1", "89000000 00000000" HOST, "short");
}

static void test_arp_comes_the_same_way(void **state) {
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(fake_pool);

    (void)state;
    *packet_meta(mbuf) = (struct packet_meta){.cause = CAUSE_ARP};
    fake_handlers[PUNT_ARP](mbuf);
    assert_int_equal(arp_frames, 1);
}

/* ---- duplicate address detection ---- */

#define NEW "20010db80000000000000000000abcde"
#define NEW_TEXT "2001:db8::a:bcde"

static struct interface_address *add_tentative(void) {
    return add_address(lan, NEW_TEXT "/64", ADDRESS_TENTATIVE);
}

static void test_address_nobody_has(void **state) {
    struct interface_address *own = add_tentative();
    const char *report =
        ETHER("333300000016") "60000000 0024 0001" OWN_LOCAL "ff020000000000000000000000000016"
                              "3a00050200000100"
                              "8f000000 0000 0001"
                              "04000000 ff0200000000000000000001ff0abcde";
    uint8_t nonce[6];
    char probe[400], text[13];

    (void)state;
    pass(150);
    assert_int_equal(sent_count, 2);
    expect_sent(0, report);
    memcpy(nonce, sent[1].bytes + 80, 6);
    for (unsigned i = 0; i < 6; i++)
        snprintf(text + 2 * i, 3, "%02x", nonce[i]);
    snprintf(probe, sizeof(probe), "%s%s",
             ETHER("3333ff0abcde") "60000000 0020 3aff"
                                   "00000000000000000000000000000000"
                                   "ff0200000000000000000001ff0abcde" NS(NEW) "0e01",
             text);
    expect_sent(1, probe);
    assert_int_equal(own->state, ADDRESS_TENTATIVE);
    pass(750);
    assert_int_equal(own->state, ADDRESS_TENTATIVE);
    pass(300);
    assert_int_equal(own->state, ADDRESS_VALID);
    assert_int_equal(sent_count, 4);
    expect_sent(2, report); /* RFC 3810 section 6.1: reports are repeated */
    expect_sent(3, ETHER("333300000001") IP6("0020", NEW, ALL_NODES) NA("a0", NEW) "0201" MAC_OWN);
    pass(5000);
    assert_int_equal(sent_count, 4);
}

static void expect_duplicate(const struct packet *p) {
    struct interface_address *own = add_tentative();

    pass(300);
    assert_int_equal(own->state, ADDRESS_TENTATIVE);
    receive(p);
    assert_int_equal(own->state, ADDRESS_DUPLICATE);
    assert_int_equal(drops("nd", "conflict"), 1);
    forget_sent();
    pass(5000);
    assert_int_equal(own->state, ADDRESS_DUPLICATE);
    assert_int_equal(sent_count, 0);
    /* Who asks for it gets no answer. */
    struct packet question = packet("2001:db8::7", "ff02::1:ff0a:bcde", NS(NEW) "0101" MAC_B);

    receive(&question);
    assert_int_equal(sent_count, 0);
}

static void test_address_that_somebody_has(void **state) {
    struct packet p = packet(NEW_TEXT, "ff02::1", NA("20", NEW) "0201" MAC_B);

    (void)state;
    expect_duplicate(&p);
}

static void test_address_that_somebody_else_wants(void **state) {
    struct packet p = packet("::", "ff02::1:ff0a:bcde", NS(NEW) "0e01 112233445566");

    (void)state;
    expect_duplicate(&p);
}

static void test_somebody_else_without_a_nonce(void **state) {
    struct packet p = packet("::", "ff02::1:ff0a:bcde", NS(NEW));

    (void)state;
    expect_duplicate(&p);
}

static void test_own_probe_comes_back(void **state) {
    struct interface_address *own = add_tentative();
    struct packet p = packet("::", "ff02::1:ff0a:bcde", NULL);
    char message[200], text[13];

    (void)state;
    pass(150);
    assert_int_equal(sent_count, 2);
    for (unsigned i = 0; i < 6; i++)
        snprintf(text + 2 * i, 3, "%02x", sent[1].bytes[80 + i]);
    snprintf(message, sizeof(message), "%s%s", NS(NEW) "0e01", text);
    p.message = message;
    receive(&p);
    assert_int_equal(drops("nd", "own_packet"), 1);
    pass(1200);
    assert_int_equal(own->state, ADDRESS_VALID);
}

static void test_question_for_a_tentative_address(void **state) {
    struct interface_address *own = add_tentative();
    struct packet p = packet("2001:db8::7", "ff02::1:ff0a:bcde", NS(NEW) "0101" MAC_B);

    (void)state;
    pass(150);
    forget_sent();
    receive(&p);
    assert_int_equal(sent_count, 0);
    assert_int_equal(learnt.count, 0);
    pass(1200);
    assert_int_equal(own->state, ADDRESS_VALID);
}

static void test_detection_waits_for_the_link(void **state) {
    (void)state;
    set_up(lan, false);
    struct interface_address *own = add_tentative();

    pass(5000);
    assert_int_equal(sent_count, 0);
    assert_int_equal(own->state, ADDRESS_TENTATIVE);
    set_up(lan, true);
    pass(500);
    set_up(lan, false); /* in the middle of it */
    pass(5000);
    assert_int_equal(own->state, ADDRESS_TENTATIVE);
    set_up(lan, true);
    pass(1200);
    assert_int_equal(own->state, ADDRESS_VALID);
}

static void test_duplicate_gets_another_chance(void **state) {
    struct interface_address *own = add_tentative();
    struct packet p = packet(NEW_TEXT, "ff02::1", NA("20", NEW) "0201" MAC_B);

    (void)state;
    pass(300);
    receive(&p);
    assert_int_equal(own->state, ADDRESS_DUPLICATE);
    set_up(lan, false);
    set_up(lan, true);
    assert_int_equal(own->state, ADDRESS_TENTATIVE);
    pass(1200);
    assert_int_equal(own->state, ADDRESS_VALID);
}

static void test_address_goes_during_detection(void **state) {
    (void)state;
    add_tentative();
    pass(300);
    forget_sent();
    remove_address(lan, 2);
    assert_int_equal(sent_count, 1); /* leaves the group */
    expect_sent(0, ETHER("333300000016") "60000000 0024 0001" OWN_LOCAL
                                         "ff020000000000000000000000000016"
                                         "3a00050200000100"
                                         "8f000000 0000 0001"
                                         "03000000 ff0200000000000000000001ff0abcde");
    pass(5000);
    assert_int_equal(sent_count, 1);
}

/* ---- groups ---- */

static const char all_groups[] =
    ETHER("333300000016") "60000000 004c 0001" OWN_LOCAL "ff020000000000000000000000000016"
                          "3a00050200000100"
                          "8f000000 0000 0003"
                          "02000000 ff020000000000000000000000000002"
                          "02000000 ff0200000000000000000001ff000001"
                          "02000000 ff0200000000000000000001ff000005";

static void test_query_is_answered(void **state) {
    struct packet p = packet("fe80::9", "ff02::1",
                             "82000000 03e80000"
                             "00000000000000000000000000000000"
                             "027d0000");

    (void)state;
    add_address(lan, "2001:db8::5/64", ADDRESS_VALID); /* ::1 twice is one group */
    forget_sent();
    p.hop_limit = 1;
    p.hop_by_hop = true;
    receive(&p);
    receive(&p);
    pass(1200);
    assert_int_equal(sent_count, 1);
    expect_sent(0, all_groups);
    p.message = "82000000 00000000 00000000000000000000000000000000"; /* MLDv1, at once */
    receive(&p);
    pass(50);
    assert_int_equal(sent_count, 2);
    assert_int_equal(drops_all("nd"), 0);

    forget_sent();
    p.hop_limit = 255;
    expect_refused(&p, "hop_limit");
    p.hop_limit = 1;
    p.source = "2001:db8::9";
    expect_refused(&p, "source_address");
    p.source = "fe80::1";
    expect_refused(&p, "own_packet");
    p.source = "fe80::9";
    p.message = "82000000 00000000 0000000000000000";
    expect_refused(&p, "short");
}

static void test_many_groups(void **state) {
    unsigned records = 0;

    (void)state;
    for (unsigned i = 0; lan->address_count < INTERFACE_ADDRESSES_MAX; i++) {
        char text[IP_PREFIX_TEXT];

        snprintf(text, sizeof(text), "2001:db8::%x/64", i + 16);
        add_address(lan, text, ADDRESS_VALID);
    }
    set_up(lan, false);
    forget_sent();
    set_up(lan, true);
    for (unsigned i = 0; i < sent_count; i++) {
        if (sent[i].bytes[62] == MLD_REPORT && sent[i].bytes[20] == 0) {
            assert_true(sent[i].length <= 14 + 1280);
            assert_int_equal(sent[i].length, 70 + 20 * sent[i].bytes[69]);
            records += sent[i].bytes[69];
        }
    }
    assert_int_equal(records, 1 + 1 + 62);
}

/* ---- router advertisements ---- */

static void advertise(bool enabled) {
    lan->router_advertisement = (struct router_advertisement){.enabled = enabled,
                                                              .interval = 200,
                                                              .lifetime = 1800,
                                                              .default_prefixes = true,
                                                              .send_mtu = true};
    FAKE_TELL(changed, lan)
}

#define RA_START        \
    "86000000 40"       \
    "00"                \
    "0708"              \
    "00000000 00000000" \
    "0101" MAC_OWN "05010000000005dc"
#define PREFIX_OPTION_TEXT "030440c0 00278d00 00093a80 00000000 20010db8000000000000000000000000"

static void test_router_advertisement(void **state) {
    (void)state;
    add_address(lan, "2001:db8::99/64", ADDRESS_VALID); /* the same prefix again */
    add_address(lan, "192.0.2.1/24", ADDRESS_VALID);
    forget_sent();
    advertise(true);
    pass(600);
    assert_int_equal(sent_count, 1);
    expect_sent(0, ETHER("333300000001") IP6("0040", OWN_LOCAL, ALL_NODES)
                       RA_START PREFIX_OPTION_TEXT);
}

static void test_all_that_can_be_advertised(void **state) {
    struct router_advertisement *config = &lan->router_advertisement;

    (void)state;
    add_address(lan, "2001:db8:1::1/56", ADDRESS_VALID);
    *config = (struct router_advertisement){.enabled = true,
                                            .interval = 10,
                                            .lifetime = 0,
                                            .managed = true,
                                            .other = true,
                                            .default_prefixes = true,
                                            .prefix_count = 1};
    config->prefixes[0] = (struct advertised_prefix){
        .valid_lifetime = 7200, .preferred_lifetime = 3600, .autonomous = true};
    assert_int_equal(ip_prefix_parse("2001:db8::/64", &config->prefixes[0].prefix), 0);
    forget_sent();
    FAKE_TELL(changed, lan)
    pass(600);
    assert_int_equal(sent_count, 1);
    expect_sent(
        0,
        ETHER("333300000001")
            IP6("0058", OWN_LOCAL,
                ALL_NODES) "86000000 40c00000 00000000 00000000"
                           "0101" MAC_OWN
                           "03044040 00001c20 00000e10 00000000 20010db8000000000000000000000000"
                           "03043880 00278d00 00093a80 00000000 20010db8000100000000000000000000");
}

static void test_many_prefixes_take_several(void **state) {
    unsigned prefixes = 0;

    (void)state;
    for (unsigned i = 1; lan->address_count < INTERFACE_ADDRESSES_MAX; i++) {
        char text[IP_PREFIX_TEXT];

        snprintf(text, sizeof(text), "2001:db8:%x::1/64", i);
        add_address(lan, text, ADDRESS_VALID);
    }
    forget_sent();
    advertise(true);
    pass(600);
    assert_int_equal(sent_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(sent[i].length <= 14 + 1280);
        prefixes += (sent[i].length - 54 - 32) / 32;
    }
    assert_int_equal(prefixes, INTERFACE_ADDRESSES_MAX - 1);
}

static void test_times_of_advertisements(void **state) {
    (void)state;
    advertise(true);
    pass(33000);
    assert_in_range(sent_count, 3, 3); /* the initial ones */
    for (unsigned i = 1; i < 3; i++)
        assert_true(sent[i].when - sent[i - 1].when <= 16100);
    pass(1000000);
    assert_in_range(sent_count, 3 + 4, 3 + 15);
    for (unsigned i = 3; i < sent_count; i++)
        assert_in_range(sent[i].when - sent[i - 1].when, 66600, 200100);
}

static void test_router_solicitation(void **state) {
    struct packet p = packet("fe80::7", "ff02::2",
                             "85000000 00000000"
                             "0101" MAC_B);

    (void)state;
    receive(&p);
    pass(4000);
    assert_int_equal(sent_count, 0); /* not advertised here */
    assert_int_equal(learnt.count, 0);
    advertise(true);
    pass(60000);
    forget_sent();
    receive(&p);
    assert_int_equal(learnt.count, 1);
    assert_true(learnt.create);
    assert_false(learnt.is_router);
    pass(600);
    assert_int_equal(sent_of(ND_ROUTER_ADVERTISEMENT), 1);
    for (unsigned i = 0; i < 100; i++) { /* ten seconds of asking */
        receive(&p);
        pass(100);
    }
    assert_in_range(sent_of(ND_ROUTER_ADVERTISEMENT), 3, 4);
    for (unsigned i = 1; i < sent_count; i++)
        assert_true(sent[i].when - sent[i - 1].when >= 3000);
}

static void test_malformed_router_solicitations(void **state) {
    (void)state;
    advertise(true);
    pass(60000);
    forget_sent();
    refuse("::", "ff02::2",
           "85000000 00000000"
           "0101" MAC_B,
           "link_layer_option");
    refuse("fe80::7", "ff02::2",
           "85000000 00000000"
           "0100" MAC_B,
           "option_length");
    refuse("fe80::1", "ff02::2", "85000000 00000000", "own_packet");
    refuse("fe80::7", "ff02::2", "85010000 00000000", "code");
    pass(1000);
    assert_int_equal(sent_count, 0);
}

static void expect_final(void) {
    unsigned length;
    const uint8_t *message = find_sent(ND_ROUTER_ADVERTISEMENT, &length);

    assert_int_equal(sent_of(ND_ROUTER_ADVERTISEMENT), 1);
    assert_int_equal(length, 64);
    assert_int_equal(message[6] << 8 | message[7], 0);
    forget_sent();
    pass(400000);
    assert_int_equal(sent_of(ND_ROUTER_ADVERTISEMENT), 0);
}

static void test_last_advertisement(void **state) {
    (void)state;
    advertise(true);
    pass(60000);
    forget_sent();
    advertise(false);
    expect_final();
    advertise(true);
    pass(60000);
    forget_sent();
    ra_shutdown();
    expect_final();
}

static void test_nothing_while_down(void **state) {
    (void)state;
    advertise(true);
    pass(60000);
    forget_sent();
    set_up(lan, false);
    pass(400000);
    assert_int_equal(sent_count, 0);
    set_up(lan, true);
    pass(600);
    assert_int_equal(sent_of(ND_ROUTER_ADVERTISEMENT), 1);
}

static void test_no_advertisement_before_the_address_is_valid(void **state) {
    (void)state;
    remove_address(lan, 0);
    advertise(true);
    pass(60000);
    assert_int_equal(sent_of(ND_ROUTER_ADVERTISEMENT), 0);
    add_address(lan, "fe80::1/64", ADDRESS_TENTATIVE);
    pass(800);
    assert_int_equal(sent_of(ND_ROUTER_ADVERTISEMENT), 0);
    pass(1000);
    assert_int_equal(sent_of(ND_ROUTER_ADVERTISEMENT), 1);
}

static void test_new_prefix_is_told_soon(void **state) {
    (void)state;
    advertise(true);
    pass(100000);
    forget_sent();
    add_address(lan, "2001:db8:7::1/64", ADDRESS_TENTATIVE);
    pass(5500);
    assert_in_range(sent_of(ND_ROUTER_ADVERTISEMENT), 1, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_solicitation),
        TEST(test_announcement),
        TEST(test_solicitation_is_answered_and_learnt),
        TEST(test_tagged_and_in_two_segments),
        TEST(test_solicitation_for_somebody_else),
        TEST(test_probe_for_a_valid_address_is_answered),
        TEST(test_source_from_elsewhere_is_answered_not_learnt),
        TEST(test_advertisement),
        TEST(test_advertisement_without_its_address),
        TEST(test_conflict_is_defended),
        TEST(test_malformed_packets),
        TEST(test_malformed_solicitations),
        TEST(test_malformed_advertisements),
        TEST(test_other_routers_and_redirects),
        TEST(test_arp_comes_the_same_way),
        TEST(test_address_nobody_has),
        TEST(test_address_that_somebody_has),
        TEST(test_address_that_somebody_else_wants),
        TEST(test_somebody_else_without_a_nonce),
        TEST(test_own_probe_comes_back),
        TEST(test_question_for_a_tentative_address),
        TEST(test_detection_waits_for_the_link),
        TEST(test_duplicate_gets_another_chance),
        TEST(test_address_goes_during_detection),
        TEST(test_query_is_answered),
        TEST(test_many_groups),
        TEST(test_router_advertisement),
        TEST(test_all_that_can_be_advertised),
        TEST(test_many_prefixes_take_several),
        TEST(test_times_of_advertisements),
        TEST(test_router_solicitation),
        TEST(test_malformed_router_solicitations),
        TEST(test_last_advertisement),
        TEST(test_nothing_while_down),
        TEST(test_no_advertisement_before_the_address_is_valid),
        TEST(test_new_prefix_is_told_soon),
    };

    fakes_start();
    if (nd_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
