/*
 * Frames of ARP and Neighbour Discovery, with the real neighbour table behind them.
 *
 * An input is a sequence of records: a control byte, a length byte and so many bytes of frame from
 * the link-layer header's end on. The control byte:
 *
 *   bit 0     ARP, otherwise IPv6
 *   bit 1     repair: lengths, hop limit and checksum (ND), the fixed fields (ARP), so that the
 * input gets past the first checks bit 2     the frame lies in two segments, cut in its middle bit
 * 3     it had a VLAN tag bit 4     it came as link-layer multicast bit 5     a packet for the
 * address in the last bytes wants to be sent first bits 6-7  time that passes afterwards: none, 0.2
 * s, 2 s, 40 s
 *
 * Every input starts with the same interfaces and an empty table.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FAKE_ROUTES
#include "../unit/l3_fakes.h"

#include "core/log.h"
#include "l3/nd.h"
#include "l3/neighbour.h"
#include "l3/protocol.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t glean;
static struct ip_address gateway;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    fakes_start();
    clock_stands = false; /* libFuzzer's time limit needs it */
    log_set_level(LOG_LEVEL_ERROR);
    CHECK(neighbour_init() == 0);
    CHECK(arp_init() == 0);
    CHECK(nd_init() == 0);
    glean = next_hop_alloc();
    gateway = address("192.0.2.254");
    return 0;
}

static void repair_arp(uint8_t *arp, size_t length) {
    static const uint8_t fixed[] = {0, 1, 8, 0, 6, 4, 0};

    if (length < 28)
        return;
    memcpy(arp, fixed, sizeof(fixed));
    arp[7] = (uint8_t)(1 + arp[7] % 2);
    arp[8] = (uint8_t)((arp[8] & 0xfe) | 2);
}

static void repair_ipv6(uint8_t *ip, size_t length) {
    uint32_t sum = 58;
    size_t payload = length - 40;

    if (length < 48)
        return;
    ip[0] = 0x60;
    ip[4] = (uint8_t)(payload >> 8);
    ip[5] = (uint8_t)payload;
    ip[6] = 58;
    ip[7] = 255;
    ip[40] = (uint8_t)(130 + ip[40] % 8);
    ip[41] = ip[42] = ip[43] = 0;
    sum += (uint32_t)payload;
    for (size_t i = 8; i < length; i++)
        sum += i % 2 ? ip[i] : (uint32_t)ip[i] << 8;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~sum;
    ip[42] = (uint8_t)(sum >> 8);
    ip[43] = (uint8_t)sum;
}

static void append(struct rte_mbuf *mbuf, const uint8_t *bytes, size_t length) {
    memcpy(rte_pktmbuf_append(mbuf, (uint16_t)length), bytes, length);
}

static struct rte_mbuf *frame_of(const uint8_t *bytes, size_t length, bool two_segments) {
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(fake_pool), *second;
    size_t first = two_segments ? length / 2 : length;

    CHECK(mbuf != NULL);
    append(mbuf, bytes, first);
    if (two_segments) {
        second = rte_pktmbuf_alloc(fake_pool);
        CHECK(second != NULL);
        append(second, bytes + first, length - first);
        CHECK(rte_pktmbuf_chain(mbuf, second) == 0);
    }
    return mbuf;
}

static void wish(const uint8_t *packet, size_t length, bool ipv6) {
    uint8_t bytes[60] = {0};
    size_t taken = ipv6 ? 16 : 4;
    struct rte_mbuf *mbuf;

    if (length < taken)
        return;
    memcpy(bytes + 14 + (ipv6 ? 24 : 16), packet + length - taken, taken);
    mbuf = frame_of(bytes, sizeof(bytes), false);
    *packet_meta(mbuf) =
        (struct packet_meta){.next_hop = glean, .l3_offset = 14, .flags = ipv6 ? PACKET_IPV6 : 0};
    neighbour_resolve(mbuf);
}

static void one_record(uint8_t control, const uint8_t *bytes, size_t length) {
    static const unsigned times[] = {0, 200, 2000, 40000};
    uint8_t frame[18 + 255] = {0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 7};
    size_t offset = control & 8 ? 18 : 14;
    bool arp = control & 1;
    struct rte_mbuf *mbuf;

    memcpy(frame + offset, bytes, length);
    if (control & 2 && arp)
        repair_arp(frame + offset, length);
    else if (control & 2)
        repair_ipv6(frame + offset, length);
    if (control & 32)
        wish(frame + offset, length, !arp);
    mbuf = frame_of(frame, offset + length, control & 4);
    *packet_meta(mbuf) = (struct packet_meta){
        .in_interface = 1,
        .l3_offset = (uint8_t)offset,
        .flags = (uint16_t)((arp ? 0 : PACKET_IPV6) | (control & 16 ? PACKET_LINK_MULTICAST : 0)),
        .cause = arp ? CAUSE_ARP : CAUSE_LOCAL,
    };
    if (arp)
        arp_input(mbuf);
    else
        nd_input(mbuf);
    if (times[control >> 6] > 0) {
        event_advance(times[control >> 6]);
        while (event_turn(0) > 0)
            continue;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct interface *lan = make_interface(1, 0);

    add_address(lan, "192.0.2.1/24", ADDRESS_VALID);
    add_address(lan, "fe80::1/64", ADDRESS_VALID);
    add_address(lan, "2001:db8::1/64", ADDRESS_VALID);
    add_address(lan, "2001:db8::2/64", ADDRESS_TENTATIVE);
    lan->router_advertisement = (struct router_advertisement){
        .enabled = true, .interval = 10, .lifetime = 60, .default_prefixes = true};
    next_hop_set_interface(glean, 1, lan->port->id, 1500);
    next_hop_set_type(glean, NEXT_HOP_GLEAN);
    set_up(lan, true);
    CHECK(neighbour_reference(1, &gateway) != 0);

    while (size >= 2) {
        size_t length = data[1] < size - 2 ? data[1] : size - 2;

        one_record(data[0], data + 2, length);
        data += 2 + length;
        size -= 2 + length;
    }

    neighbour_unreference(1, &gateway);
    remove_interface(lan);
    CHECK(mbufs_out() == 0);
    CHECK(next_hops_out == 1);
    CHECK(route_count == 0);
    return 0;
}
