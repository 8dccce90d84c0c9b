/*
 * Frames of any kind into the running router: the pipeline with firewall and NAT, the slow path and
 * the control side, with a configuration that uses most of what there is.
 *
 * An input is a sequence of records: a control byte, two bytes of length (less significant first)
 * and the frame, the last one as long as what is left. The control byte:
 *
 *   bits 0-1  the port it arrives on
 *   bit 2     repair: destination MAC, lengths and IPv4 header checksum are put right, so that the
 *             input gets past the first checks
 *   bit 3     it arrives in several buffers, cut at 1 + 7 * the frame's last byte
 *   bit 4     it has a VLAN tag: that of a VLAN of the LAN
 *   bits 5-6  time that passes afterwards: none, 0.1 s, 1.2 s, 31 s
 *   bit 7     what the router sends on the port meanwhile comes back to it
 *
 * Whatever leaves has to be a frame that a router may send. What the router has learnt stays for
 * the next inputs; after every FUZZ_CHECK_EACH of them (an environment variable; 64 without it) it
 * is made to forget, and every packet buffer has to be back in its pool. An input alone is best
 * repeated with FUZZ_CHECK_EACH=1.
 */
#include <stdio.h>

#include "core/event.h"
#include "core/rcu.h"
#include "harness.h"
#include "l3/neighbour.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

enum { FRAMES_PER_INPUT = 64, LENGTH_MAX = 3000, MTU_MAX = 1500 };

static const char *const configuration =
    "{'vrfs': {'blue': {'table': 100}}, 'interfaces': {"
    "'lan': {" LAN_PORT ","
    "        'addresses': ['192.168.1.1/24', '2001:db8:1::1/64', 'fd00:aaaa:bbbb:1::1/64'],"
    "        'router_advertisement': {'interval': 30}},"
    "'lan.10': {'parent': 'lan', 'vlan': 10, 'addresses': ['192.168.10.1/24', '2001:db8:10::1/64']},"
    "'lan.20': {'parent': 'lan', 'vlan': 20, 'vrf': 'blue', 'addresses': ['10.0.0.1/8']},"
    "'wan': {" WAN_PORT ", 'mtu': 1400, 'addresses': ['198.51.100.1/31', '2001:db8:2::1/64']},"
    "'dmz': {" DMZ_PORT ", 'mtu': 68, 'addresses': ['10.3.0.1/16']},"
    "'isp': {" ISP_PORT ", 'vrf': 'blue', 'addresses': ['100.64.4.1/24', '2001:db8:4::1/64']}},"
    "'neighbours': [{'interface': 'lan', 'address': '192.168.1.10', 'mac': '" HOST_LAN "'},"
    "{'interface': 'wan', 'address': '198.51.100.0', 'mac': '" HOST_WAN "'},"
    "{'interface': 'wan', 'address': '2001:db8:2::2', 'mac': '" HOST_WAN "'},"
    "{'interface': 'dmz', 'address': '10.3.0.10', 'mac': '" HOST_DMZ "'}," ISP_NEIGHBOURS "],"
    "'routes': [{'prefix': '0.0.0.0/0', 'via': ['198.51.100.0', '10.3.0.10']},"
    "{'prefix': '::/0', 'via': '2001:db8:2::2'},"
    "{'prefix': '203.0.113.0/26', 'blackhole': true},"
    "{'prefix': '203.0.113.64/26', 'unreachable': true},"
    "{'prefix': '203.0.113.128/26', 'prohibit': true},"
    "{'prefix': '203.0.112.0/24', 'via': '2001:db8:2::2'},"
    "{'prefix': '0.0.0.0/0', 'vrf': 'blue', 'via': '100.64.4.2'}],"
    "'sessions': {'size': 4096, 'tcp_pickup': true, 'limits': {'per_source': 1000}},"
    "'firewall': {'default': 'reject', 'rules': ["
    "{'name': 'no-telnet', 'protocol': 'tcp', 'destination_port': 23, 'action': 'reject'},"
    "{'name': 'plain', 'protocol': 'udp', 'destination_port': 7, 'action': 'accept', 'stateless': true},"
    "{'name': 'six', 'family': 'ipv6', 'action': 'accept'},"
    "{'name': 'from-lan', 'in': ['lan', 'lan.10', 'lan.20'], 'action': 'accept', 'log': false},"
    "{'name': 'forwarded', 'in': 'wan', 'destination': '192.168.1.0/24', 'action': 'accept'},"
    "{'name': 'me', 'to_router': true, 'action': 'accept'}]},"
    "'nat': {'source': [{'out': 'wan', 'source': '192.168.0.0/16', 'to': 'interface',"
    "'filtering': 'endpoint_independent'},"
    "{'out': 'isp', 'to': '100.64.4.16/30', 'mapping': 'endpoint_dependent', 'ports': '2000-2100'}],"
    "'destination': [{'in': 'wan', 'protocol': 'tcp', 'destination_port': '80-90',"
    "'to': '192.168.1.10:8080'}],"
    "'static': [{'outside': '10.3.0.99', 'inside': '192.168.1.99'}],"
    "'nptv6': [{'out': 'wan', 'inside': 'fd00:aaaa:bbbb::/48', 'outside': '2001:db8:9::/48'}],"
    "'nat64': [{'prefix': '64:ff9b:1::/96', 'out': 'wan', 'to': 'interface',"
    "'filtering': 'endpoint_independent'},"
    "{'prefix': '64:ff9b:1::/96', 'out': 'dmz', 'to': '10.3.0.50',"
    "'mapping': 'endpoint_dependent'}]}," UNLIMITED "}";

static unsigned buffers;    /* out of the pools at the start */
static unsigned inputs;     /* since the last check */
static unsigned check_each; /* inputs */

static void check(bool condition, const char *what, const struct frame *frame) {
    if (condition)
        return;
    frame_print(what, frame);
    abort();
}

static unsigned load16(const uint8_t *at) {
    return (unsigned)at[0] << 8 | at[1];
}

/* Is it something that a router may send by this port? */
static void check_sent(enum place place, const struct frame *frame) {
    const uint8_t mac[6] = {2, 0, 0, 0, (uint8_t)place, 1};
    unsigned at = frame_ip_offset(frame), type, header;
    const uint8_t *ip = frame->bytes + at;

    check(frame->length >= 14 && at <= 18, "no Ethernet frame", frame);
    check(frame->length <= at + MTU_MAX, "longer than the MTU", frame);
    check(memcmp(frame->bytes + 6, mac, 6) == 0, "not from the router's MAC address", frame);
    type = load16(ip - 2);
    check(type == 0x0800 || type == 0x86dd || type == 0x0806, "unknown type", frame);
    if (type == 0x0800) {
        header = (ip[0] & 15u) * 4;
        check(ip[0] >> 4 == 4 && header >= 20 && at + header <= frame->length, "header", frame);
        check(load16(ip + 2) == frame->length - at, "total length", frame);
        check(fold16(sum16(0, ip, header)) == 0xffff, "header checksum", frame);
        check(ip[8] != 0, "no hops left", frame);
        check(ip[16] < 224 && ip[16] != 127 && ip[16] != 0, "destination", frame);
        check(place != DMZ || frame->length - at <= 68, "longer than the MTU", frame);
        check(place != WAN || frame->length - at <= 1400, "longer than the MTU", frame);
    } else if (type == 0x86dd) {
        check(ip[0] >> 4 == 6 && at + 40 <= frame->length, "header", frame);
        check(load16(ip + 4) == frame->length - at - 40, "payload length", frame);
        check(ip[7] != 0, "no hops left", frame);
        check(place != WAN || frame->length - at <= 1400, "longer than the MTU", frame);
    }
}

/* Turns the router, and looks at what it sends. */
static void take_all(bool back) {
    struct frame *found;

    turn();
    for (enum place place = LAN; place < PLACES; place++) {
        for (unsigned count = 0; (found = take_waiting(place)) != NULL; count++) {
            check_sent(place, found);
            if (back && count < 4)
                inject(place, found);
        }
    }
}

/* Lengths and checksum as they should be; whatever else it is stays. */
static void repair(enum place place, struct frame *frame) {
    uint8_t *ip = frame->bytes + 14;
    unsigned length = frame->length - 14;

    if (frame->length < 34)
        return;
    if ((frame->bytes[0] & 1) == 0)
        memcpy(frame->bytes, (const uint8_t[]){2, 0, 0, 0, (uint8_t)place, 1}, 6);
    if (load16(frame->bytes + 12) == 0x86dd && length >= 40) {
        ip[0] = (uint8_t)(6 << 4 | (ip[0] & 15));
        ip[4] = (uint8_t)((length - 40) >> 8);
        ip[5] = (uint8_t)(length - 40);
    } else if (load16(frame->bytes + 12) == 0x0800) {
        unsigned header = ip[0] >> 4 == 4 && (ip[0] & 15u) >= 5 ? (ip[0] & 15u) * 4 : 20, sum;

        header = header <= length ? header : 20;
        ip[0] = (uint8_t)(4 << 4 | header / 4);
        ip[2] = (uint8_t)(length >> 8);
        ip[3] = (uint8_t)length;
        ip[10] = ip[11] = 0;
        sum = fold16(sum16(0, ip, header));
        ip[10] = (uint8_t)(~sum >> 8);
        ip[11] = (uint8_t)~sum;
    }
}

/* In a few long steps: for a timer they are not different from many short ones. */
static void pass(unsigned pause) {
    static const unsigned msec[] = {0, 100, 600, 7750}, steps[] = {0, 1, 2, 4};

    for (unsigned i = 0; i < steps[pause]; i++) {
        event_advance(msec[pause]);
        turn();
    }
}

static void one(uint8_t control, const uint8_t *data, unsigned length) {
    enum place place = LAN + (control & 3);
    struct frame *frame = raw_bytes(data, length);

    if (control & 4)
        repair(place, frame);
    if (control & 16 && length >= 14)
        frame = vlan(length & 1 ? 10 : 20, frame);
    if (control & 8)
        inject_split(place, frame, 1 + data[length - 1] * 7u);
    else
        inject(place, frame);
    pass(control >> 5 & 3);
    take_all(control & 128);
}

/* What inputs have left behind: learnt neighbours, and packets that wait for others. */
static void forget(void) {
    take_all(false);
    neighbour_flush(0);
    take_all(false);
    advance(300);
    take_all(false);
    /* Fragments wait for two seconds, and are found a few at each turn. */
    event_advance(2500);
    for (unsigned i = 0; i < 2000 && buffers_in_use() != buffers; i++)
        turn();
    take_all(false);
    discard(ANYWHERE); /* what a timer has sent since the port was looked at */
    frames_free();
    inputs = 0;
}

/* Workers live in memory that LeakSanitizer does not look into, so that what was made for them at
 * the start seems to be lost. */
const char *__lsan_default_suppressions(void) {
    return "leak:LLVMFuzzerInitialize\n";
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    harness_init((*argv)[0], &(struct harness_options){0});
    check_each = getenv("FUZZ_CHECK_EACH") ? (unsigned)atoi(getenv("FUZZ_CHECK_EACH")) : 64;
    start(configuration);
    forget();
    buffers = buffers_in_use();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (unsigned count = 0; size > 3 && count < FRAMES_PER_INPUT; count++) {
        uint8_t control = data[0];
        unsigned length = data[1] | (unsigned)data[2] << 8;

        data += 3;
        size -= 3;
        length = length == 0 ? 1 : length > LENGTH_MAX ? LENGTH_MAX : length;
        length = length > size ? (unsigned)size : length;
        one(control, data, length);
        data += length;
        size -= length;
    }
    take_all(false);
    if (++inputs < check_each) {
        frames_free();
        return 0;
    }
    forget();
    if (buffers_in_use() != buffers) {
        fprintf(stderr, "%u packet buffers are out, %u were at the start\n", buffers_in_use(),
                buffers);
        abort();
    }
    return 0;
}
