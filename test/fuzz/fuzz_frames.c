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
 * What is checked: router.h.
 */
#include "router.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FRAMES_PER_INPUT = 64, LENGTH_MAX = 3000 };

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
    "'filtering': 'endpoint_independent', 'static': [{'outside': '198.51.100.77',"
    "'inside': '2001:db8:1::10'}, {'protocol': 'udp', 'outside': 'interface',"
    "'outside_port': '1000-3000', 'inside': '2001:db8:1::20', 'inside_port': 1}]},"
    "{'prefix': '64:ff9b:1::/96', 'out': 'dmz', 'to': '10.3.0.50',"
    "'mapping': 'endpoint_dependent'}]}," UNLIMITED "}";

static void one(uint8_t control, const uint8_t *data, unsigned length) {
    enum place place = LAN + (control & 3);
    struct frame *frame = raw_bytes(data, length);

    if (control & 4)
        fuzz_repair(place, frame);
    if (control & 16 && length >= 14)
        frame = vlan(length & 1 ? 10 : 20, frame);
    if (control & 8)
        inject_split(place, frame, 1 + data[length - 1] * 7u);
    else
        inject(place, frame);
    fuzz_pass(control >> 5 & 3);
    fuzz_take_all(control & 128);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    fuzz_mtu[WAN] = 1400;
    fuzz_mtu[DMZ] = 68;
    fuzz_start((*argv)[0], configuration);
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
    fuzz_end_input();
    return 0;
}
