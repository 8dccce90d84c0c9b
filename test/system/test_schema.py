#!/usr/bin/python3
"""conf/router.schema.json and `dpdk-router --check` say the same: test_schema.py PATH-TO-DPDK-ROUTER

Every example in conf/ must be right for both. Then a list of right and wrong configurations is given
to both. Each case says what it is:

    RIGHT   both accept it
    WRONG   both refuse it
    BEYOND  the program refuses it, and a schema cannot know why: references, collisions, host bits,
            arguments of devices, the spelling of numbers. If the schema learns to say it, the case
            becomes WRONG.

Needs no root, no hugepages and no EAL. Prints TAP.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

CONF = pathlib.Path(__file__).resolve().parent.parent.parent / "conf"
SCHEMA = CONF / "router.schema.json"
RIGHT, WRONG, BEYOND = "right", "wrong", "beyond"

TAP = {"device": "net_tap0,iface=lan"}
LAN = {"device": "net_tap0,iface=lan", "addresses": ["192.0.2.1/24", "2001:db8::1/64"]}


def interface(**members):
    return {"interfaces": {"lan": {**TAP, **members}}}


def named(name):
    return {"interfaces": {name: TAP}}


def vlan(**members):
    return {"interfaces": {"lan": LAN, "guest": {"parent": "lan", "vlan": 20, **members}}}


def address(text):
    return interface(addresses=[text])


def advertise(**members):
    return interface(router_advertisement=members)


def advertised(**members):
    return advertise(prefixes=[members])


def route(**members):
    return {"interfaces": {"lan": LAN}, "routes": [members]}


def via(value, prefix="198.51.100.0/24", **members):
    return route(prefix=prefix, via=value, **members)


def neighbour(**members):
    entry = {"interface": "lan", "address": "192.0.2.9", "mac": "02:00:00:00:00:09", **members}
    return {"interfaces": {"lan": LAN}, "neighbours": [entry]}


TWO = {"lan": LAN, "wan": {"device": "net_tap1,iface=wan", "addresses": ["203.0.113.2/24"]}}


def firewall(**members):
    return {"interfaces": TWO, "firewall": members}


def rule(**members):
    return firewall(address_sets={"office": ["192.0.2.0/24", "2001:db8::7"]},
                    rules=[{"name": "one", "action": "accept", **members}])


def nat(**members):
    return {"interfaces": TWO, "nat": members}


def source(**members):
    return nat(source=[{"out": "wan", "to": "interface", **members}])


def forward(**members):
    return nat(destination=[{"in": "wan", "to": "192.0.2.10", **members}])


def static(**members):
    return nat(static=[{"outside": "203.0.113.10", "inside": "192.0.2.20", **members}])


def nptv6(**members):
    return nat(nptv6=[{"out": "wan", "inside": "fd00:aaaa:bbbb::/48", "outside": "2001:db8:9::/48",
                       **members}])


def nat64(**members):
    return nat(nat64=[{"prefix": "64:ff9b::/96", "out": "wan", "to": "interface", **members}])


def bound(*bindings, **members):
    usual = {"outside": "203.0.113.60", "inside": "2001:db8::10"}
    return nat64(static=[{**usual, **each} for each in bindings], **members)


GCM = {"algorithm": "aes-gcm-128", "key": "00" * 20}
CBC = {"algorithm": "aes-cbc-128", "key": "00" * 16, "authentication": "hmac-sha256-128",
       "authentication_key": "00" * 32}
OUT = {"spi": 4096, "direction": "out", "source": "203.0.113.2", "destination": "198.51.100.2"}
IN = {"spi": 4097, "direction": "in", "source": "198.51.100.2", "destination": "203.0.113.2"}
TO = {"direction": "out", "source": "192.0.2.0/24", "destination": "10.2.0.0/24"}


def ipsec(**members):
    return {"interfaces": TWO, "ipsec": members}


def association(algorithms, ends, **members):
    return ipsec(sas=[{**ends, **algorithms, **members}])


def protect(**members):
    """A policy that protects, with its association."""
    return ipsec(sas=[{**OUT, **GCM}], policies=[{**TO, "action": "protect", "spi": 4096, **members}])


def without(config, *keys):
    """The same, less these keys of each association and policy."""
    members = {name: [{k: v for k, v in item.items() if k not in keys} for item in items]
               for name, items in config["ipsec"].items()}
    return {**config, "ipsec": members}


def sessions(**members):
    return {"sessions": members}


CASES = [
    # The document.
    (RIGHT, "nothing at all", {}),
    (WRONG, "an array", []),
    (WRONG, "an unknown section", {"firewal": {}}),
    (WRONG, "a key in the wrong case", {"Interfaces": {}}),
    (BEYOND, "a key twice", '{"mbufs": 1024, "mbufs": 2048}'),
    (BEYOND, "a comment", '{"mbufs": 1024} // buffers'),
    # mbufs
    (RIGHT, "the fewest buffers", {"mbufs": 512}),
    (RIGHT, "the most buffers", {"mbufs": 8388608}),
    (WRONG, "too few buffers", {"mbufs": 511}),
    (WRONG, "too many buffers", {"mbufs": 8388609}),
    (WRONG, "buffers as text", {"mbufs": "4096"}),
    (WRONG, "half a buffer", {"mbufs": 4096.5}),
    (BEYOND, "an integer written as a fraction", '{"mbufs": 4096.0}'),
    (WRONG, "null for a number", {"mbufs": None}),
    # Interfaces: names and places.
    (RIGHT, "a name with dots and dashes", named("lan.20-a_b")),
    (RIGHT, "the longest name", named("a" * 31)),
    (WRONG, "a name that is too long", named("a" * 32)),
    (WRONG, "a name that starts with a dash", named("-lan")),
    (WRONG, "a name with a space", named("l an")),
    (WRONG, "an empty name", named("")),
    (WRONG, "an interface without a place", {"interfaces": {"lan": {}}}),
    (WRONG, "an interface that is text", {"interfaces": {"lan": "net_tap0"}}),
    (WRONG, "an unknown key of an interface", interface(adresses=["192.0.2.1/24"])),
    (RIGHT, "a VLAN", vlan()),
    (RIGHT, "a VLAN with an address of its own", vlan(mac="02:00:00:00:00:02", mtu=1400)),
    (RIGHT, "the highest VLAN", vlan(vlan=4094)),
    (WRONG, "VLAN 0", vlan(vlan=0)),
    (WRONG, "VLAN 4095", vlan(vlan=4095)),
    (WRONG, "a parent without a VLAN id", {"interfaces": {"lan": LAN, "g": {"parent": "lan"}}}),
    (WRONG, "a VLAN id without a parent", {"interfaces": {"lan": LAN, "g": {"vlan": 20}}}),
    (WRONG, "a device and a parent", vlan(device="net_tap1")),
    (WRONG, "queues of a VLAN", vlan(rx_queues=1)),
    (WRONG, "promiscuous on a VLAN", vlan(promiscuous=False)),
    (BEYOND, "a parent that does not exist", {"interfaces": {"g": {"parent": "lan", "vlan": 2}}}),
    (BEYOND, "a VLAN of a VLAN", {"interfaces": {**vlan()["interfaces"],
                                                 "inner": {"parent": "guest", "vlan": 3}}}),
    (BEYOND, "a VLAN with a larger MTU than its parent", vlan(mtu=1501)),
    (BEYOND, "one device twice", {"interfaces": {"a": TAP, "b": TAP}}),
    # Devices.
    (RIGHT, "a PCI address", interface(device="0000:03:00.0")),
    (RIGHT, "a PCI address without a domain", interface(device="03:00.0")),
    (RIGHT, "the second port of a card", interface(device="0000:03:00.0,port=1")),
    (RIGHT, "a kind of device without glue", interface(device="net_bonding0,mode=1")),
    (WRONG, "an empty device", interface(device="")),
    (WRONG, "a Linux name as device", interface(device="eth1")),
    (WRONG, "a device that is too long", interface(device="net_tap0,iface=" + "a" * 256)),
    (WRONG, "vhost without its socket", interface(device="net_vhost0")),
    (WRONG, "virtio_user without its path", interface(device="net_virtio_user0,queues=1")),
    (BEYOND, "an unknown argument of a device", interface(device="net_tap0,ifname=lan")),
    (BEYOND, "a port= that no card has", interface(device="0000:03:00.0,port=99")),
    # MTU, MAC, queues, switches.
    (RIGHT, "the smallest MTU", interface(mtu=68)),
    (RIGHT, "the largest MTU", interface(mtu=9216)),
    (WRONG, "an MTU below RFC 791", interface(mtu=67)),
    (WRONG, "an MTU above the largest", interface(mtu=9217)),
    (RIGHT, "the smallest MTU for IPv6", interface(mtu=1280, addresses=["2001:db8::1/64"])),
    (WRONG, "IPv6 with a small MTU", interface(mtu=1279, addresses=["2001:db8::1/64"])),
    (WRONG, "advertisements with a small MTU", interface(mtu=1279, router_advertisement=True)),
    (RIGHT, "no advertisements with a small MTU", interface(mtu=1279, router_advertisement=False)),
    (RIGHT, "a MAC address", interface(mac="02:00:5E:00:00:01")),
    (WRONG, "a MAC address with dashes", interface(mac="02-00-5e-00-00-01")),
    (WRONG, "a group MAC address", interface(mac="01:00:5e:00:00:01")),
    (WRONG, "the MAC address zero", interface(mac="00:00:00:00:00:00")),
    (RIGHT, "queues and descriptors", interface(rx_queues=64, tx_queues=1, rx_descriptors=16,
                                                tx_descriptors=32768)),
    (WRONG, "no queue", interface(rx_queues=0)),
    (WRONG, "too many queues", interface(tx_queues=65)),
    (WRONG, "too few descriptors", interface(rx_descriptors=15)),
    (WRONG, "too many descriptors", interface(tx_descriptors=32769)),
    (RIGHT, "an interface that is off", interface(enabled=False, promiscuous=True)),
    (WRONG, "enabled as a number", interface(enabled=1)),
    (RIGHT, "a largest segment", interface(tcp_mss=88)),
    (RIGHT, "a largest segment that fits", interface(tcp_mss="auto")),
    (WRONG, "a largest segment that is too small", interface(tcp_mss=87)),
    (WRONG, "a largest segment as text", interface(tcp_mss="1452")),
    (RIGHT, "the largest segment of all", vlan(tcp_mss=65535)),
    (WRONG, "a largest segment that is too large", interface(tcp_mss=65536)),
    (WRONG, "no largest segment as false", interface(tcp_mss=False)),
    (RIGHT, "a loose reverse path check", vlan(reverse_path="loose")),
    (RIGHT, "no reverse path check", interface(reverse_path="off")),
    (WRONG, "another word as reverse path check", interface(reverse_path="feasible")),
    (RIGHT, "a reverse path check", interface(reverse_path="strict")),
    (WRONG, "an unknown reverse path check", interface(reverse_path=True)),
    # Host twins.
    (RIGHT, "the longest name of a twin", interface(host_twin="a" * 15)),
    (RIGHT, "an odd but right name of a twin", interface(host_twin="[lan]~0")),
    (WRONG, "a twin's name that is too long", interface(host_twin="a" * 16)),
    (WRONG, "a twin's name with a slash", interface(host_twin="la/n")),
    (WRONG, "a pattern as a twin's name", interface(host_twin="lan%d")),
    (WRONG, "the loopback device as a twin", interface(host_twin="lo")),
    (BEYOND, "one twin for two", {"interfaces": {"a": {**TAP, "host_twin": "x"},
                                                 "b": {"device": "net_tap1", "host_twin": "x"}}}),
    # Addresses of interfaces.
    (RIGHT, "a point-to-point address", address("192.0.2.0/31")),
    (RIGHT, "a single address", address("192.0.2.1/32")),
    (RIGHT, "a link-local address", address("fe80::1/64")),
    (RIGHT, "an IPv6 address with an IPv4 tail", address("2001:db8::192.0.2.1/64")),
    (RIGHT, "an IPv6 address in full", address("2001:0DB8:0:0:0:0:0:1/64")),
    (WRONG, "an address without a length", address("192.0.2.1")),
    (WRONG, "a length that is too long", address("192.0.2.1/33")),
    (WRONG, "an IPv6 length that is too long", address("2001:db8::1/129")),
    (WRONG, "a length with a leading zero", address("192.0.2.1/024")),
    (WRONG, "an octet with a leading zero", address("192.0.2.01/24")),
    (WRONG, "an octet that is too large", address("192.0.2.256/24")),
    (WRONG, "two gaps in an IPv6 address", address("2001::db8::1/64")),
    (WRONG, "a zone in an IPv6 address", address("fe80::1%eth0/64")),
    (WRONG, "length zero", address("192.0.2.1/0")),
    (WRONG, "a multicast address", address("224.0.0.1/24")),
    (WRONG, "an IPv6 multicast address", address("ff02::1/64")),
    (WRONG, "a loopback address", address("127.0.0.1/8")),
    (WRONG, "the unspecified address", address("::/64")),
    (WRONG, "an address that is not in a list", interface(addresses="192.0.2.1/24")),
    (RIGHT, "63 addresses", interface(addresses=["10.0.0.%d/32" % i for i in range(63)])),
    (WRONG, "64 addresses", interface(addresses=["10.0.0.%d/32" % i for i in range(64)])),
    (BEYOND, "a network address", address("192.0.2.0/24")),
    (BEYOND, "a broadcast address", address("192.0.2.255/24")),
    (BEYOND, "an anycast address", address("2001:db8::/64")),
    (BEYOND, "one address twice", interface(addresses=["192.0.2.1/24", "192.0.2.1/25"])),
    (BEYOND, "prefixes that overlap", {"interfaces": {
        "a": LAN, "b": {"device": "net_tap1", "addresses": ["192.0.2.129/25"]}}}),
    # Router advertisements.
    (RIGHT, "advertisements with defaults", interface(router_advertisement=True)),
    (RIGHT, "advertisements in detail", advertise(interval=4, lifetime=9000, managed=True,
                                                  other=True, mtu=False, prefixes=[])),
    (RIGHT, "not a default router", advertise(lifetime=0)),
    (WRONG, "advertisements too often", advertise(interval=3)),
    (WRONG, "a lifetime that is too long", advertise(lifetime=9001)),
    (WRONG, "advertisements as text", interface(router_advertisement="yes")),
    (BEYOND, "a lifetime below the interval", advertise(interval=200, lifetime=199)),
    (RIGHT, "a prefix to advertise", advertised(prefix="2001:db8:5::/64", valid_lifetime=0xffffffff,
                                                preferred_lifetime=0, on_link=False)),
    (RIGHT, "a long prefix that is not autonomous",
     advertised(prefix="2001:db8:5::/80", autonomous=False)),
    (WRONG, "a long prefix that is autonomous", advertised(prefix="2001:db8:5::/80")),
    (WRONG, "an IPv4 prefix to advertise", advertised(prefix="192.0.2.0/24", autonomous=False)),
    (WRONG, "a link-local prefix to advertise", advertised(prefix="fe80::/64")),
    (WRONG, "no prefix to advertise", advertised(on_link=True)),
    (WRONG, "17 prefixes", advertise(prefixes=[{"prefix": "2001:db8:%x::/64" % i}
                                               for i in range(1, 18)])),
    (BEYOND, "preferred longer than valid",
     advertised(prefix="2001:db8:5::/64", valid_lifetime=10, preferred_lifetime=11)),
    # VRFs.
    (RIGHT, "a VRF", {**interface(vrf="red"), "vrfs": {"red": {"table": 4294967295}}}),
    (RIGHT, "the default VRF by name", interface(vrf="default")),
    (WRONG, "a VRF without a table", {"vrfs": {"red": {}}}),
    (WRONG, "table 0", {"vrfs": {"red": {"table": 0}}}),
    (WRONG, "a table of Linux", {"vrfs": {"red": {"table": 254}}}),
    (WRONG, "the default VRF configured", {"vrfs": {"default": {"table": 20}}}),
    (BEYOND, "a VRF that does not exist", interface(vrf="red")),
    (BEYOND, "one table twice", {"vrfs": {"a": {"table": 2}, "b": {"table": 2}}}),
    # Neighbours.
    (RIGHT, "a neighbour", neighbour()),
    (RIGHT, "an IPv6 neighbour", neighbour(address="fe80::9")),
    (WRONG, "a neighbour with a length", neighbour(address="192.0.2.9/24")),
    (WRONG, "a multicast neighbour", neighbour(address="224.0.0.9")),
    (WRONG, "a group address as a neighbour's", neighbour(mac="ff:ff:ff:ff:ff:ff")),
    (WRONG, "a neighbour without a MAC address", {"neighbours": [
        {"interface": "lan", "address": "192.0.2.9"}]}),
    (BEYOND, "a neighbour on no interface", neighbour(interface="wan")),
    (BEYOND, "a neighbour in no prefix", neighbour(address="198.51.100.9")),
    # Routes.
    (RIGHT, "a route", via("192.0.2.254")),
    (RIGHT, "default routes", {"interfaces": {"lan": LAN}, "routes": [
        {"prefix": "0.0.0.0/0", "via": "192.0.2.254"}, {"prefix": "::/0", "via": "2001:db8::2"}]}),
    (RIGHT, "several next hops", via(["192.0.2.253", {"address": "192.0.2.254", "weight": 255}])),
    (RIGHT, "IPv4 over IPv6 (RFC 8950)", via({"address": "fe80::1", "interface": "lan"})),
    (RIGHT, "a link-local gateway beside an interface", via("fe80::1", interface="lan")),
    (RIGHT, "an attached prefix", route(prefix="198.51.100.0/24", interface="lan")),
    (RIGHT, "a next hop that is an interface", via({"interface": "lan"})),
    (RIGHT, "a black hole", route(prefix="198.51.100.0/24", blackhole=True)),
    (RIGHT, "a switch that is off", via("192.0.2.254", blackhole=False)),
    (WRONG, "a route to nowhere", route(prefix="198.51.100.0/24")),
    (WRONG, "only switches that are off", route(prefix="198.51.100.0/24", prohibit=False)),
    (WRONG, "a route without a prefix", route(via="192.0.2.254")),
    (WRONG, "a black hole with a gateway", via("192.0.2.254", blackhole=True)),
    (WRONG, "two verdicts", route(prefix="198.51.100.0/24", unreachable=True, prohibit=True)),
    (WRONG, "no next hops", via([])),
    (WRONG, "33 next hops", via(["192.0.2.%d" % i for i in range(2, 35)])),
    (WRONG, "weight 0", via({"address": "192.0.2.254", "weight": 0})),
    (WRONG, "weight 256", via({"address": "192.0.2.254", "weight": 256})),
    (WRONG, "a weight beside the address", via("192.0.2.254", weight=2)),
    (WRONG, "a next hop with nothing but a weight", via({"weight": 2})),
    (WRONG, "one next hop twice", via(["192.0.2.254", "192.0.2.254"])),
    (WRONG, "the interface in two places",
     via({"address": "192.0.2.254", "interface": "lan"}, interface="lan")),
    (WRONG, "a link-local gateway without an interface", via("fe80::1")),
    (WRONG, "an IPv6 prefix over IPv4", via("192.0.2.254", prefix="2001:db8:9::/48")),
    (WRONG, "a multicast gateway", via("224.0.0.1")),
    (WRONG, "a route to multicast groups", via("192.0.2.254", prefix="224.0.0.0/4")),
    (WRONG, "a route to loopback addresses", via("192.0.2.254", prefix="127.0.0.0/8")),
    (RIGHT, "a route that covers special addresses", via("192.0.2.254", prefix="0.0.0.0/1")),
    (WRONG, "a route to link-local addresses", via("2001:db8::2", prefix="fe80::/10")),
    (WRONG, "a prefix without a length", via("192.0.2.254", prefix="198.51.100.0")),
    (BEYOND, "host bits in a prefix", via("192.0.2.254", prefix="198.51.100.1/24")),
    (BEYOND, "a gateway on no link", via("198.51.100.1")),
    (BEYOND, "a route by no interface", route(prefix="198.51.100.0/24", interface="wan")),
    (BEYOND, "a route in no VRF", via("192.0.2.254", vrf="red")),
    (BEYOND, "one route twice", {"interfaces": {"lan": LAN}, "routes": [
        {"prefix": "10.0.0.0/8", "via": "192.0.2.254"}, {"prefix": "10.0.0.0/8",
                                                         "blackhole": True}]}),
    # icmp and punt.
    (RIGHT, "no ICMP errors", {"icmp": {"rate_limit": 0, "burst": 1}}),
    (WRONG, "redirects, which are never sent", {"icmp": {"redirects": True}}),
    (WRONG, "a burst of none", {"icmp": {"burst": 0}}),
    (WRONG, "too many ICMP errors", {"icmp": {"rate_limit": 1000001}}),
    (RIGHT, "punt rates", {"punt": {"arp": 0, "resolve": 1, "ike": 1, "routing": 1,
                                    "other": 10000000}}),
    (WRONG, "an unknown punt class", {"punt": {"bgp": 1000}}),
    (WRONG, "too high a punt rate", {"punt": {"other": 10000001}}),
    # Sessions.
    (RIGHT, "sessions with defaults", sessions()),
    (RIGHT, "sessions in detail", sessions(
        size=1024, tcp_pickup=True, timeouts={"tcp_established": 604800, "udp": 1},
        limits={"per_source": 67108864, "new_per_second_per_source": 0})),
    (WRONG, "too few sessions", sessions(size=1023)),
    (WRONG, "too many sessions", sessions(size=67108865)),
    (WRONG, "a timeout of none", sessions(timeouts={"udp": 0})),
    (WRONG, "a timeout of more than a week", sessions(timeouts={"udp": 604801})),
    (WRONG, "a timeout of no state", sessions(timeouts={"tcp_ending": 10})),
    (RIGHT, "sessions in a file", sessions(keep=True, file="/var/lib/dpdk-router/sessions")),
    (WRONG, "sessions in no absolute path", sessions(file="sessions")),
    (WRONG, "sessions in too long a path", sessions(file="/" + "a" * 1023)),
    (RIGHT, "events to a socket", sessions(events="unix:/run/collector.sock")),
    (RIGHT, "events to a file", sessions(events="/var/log/sessions.json")),
    (WRONG, "events to nowhere", sessions(events="udp:192.0.2.1")),
    (WRONG, "an unknown limit", sessions(limits={"per_port": 10})),
    # Firewall.
    (RIGHT, "a firewall with defaults", firewall()),
    (RIGHT, "a firewall with policies", firewall(default="reject", router_default="accept")),
    (WRONG, "an unknown policy", firewall(default="deny")),
    (RIGHT, "the shortest rule", rule()),
    (RIGHT, "a rule with everything", rule(
        enabled=False, to_router=False, vrf="default", family="ipv4", log=True, stateless=True,
        source=["@office", "198.51.100.0/24"], destination="192.0.2.9", protocol="tcp",
        source_port="1024-65535", destination_port=[80, "8000-8099"], tcp_flags="syn,!ack",
        dscp=[0, 63], **{"in": ["lan", "wan"], "out": "wan"})),
    (RIGHT, "types of ICMP", rule(protocol=["icmp", 58], icmp_type=["echo_request", 11, "3/4"])),
    (WRONG, "a rule without a name", firewall(rules=[{"action": "accept"}])),
    (WRONG, "a rule without an action", firewall(rules=[{"name": "one"}])),
    (WRONG, "an unknown key of a rule", rule(port=80)),
    (WRONG, "a rule that is called default", rule(name="default")),
    (WRONG, "an empty list of interfaces", rule(**{"in": []})),
    (WRONG, "an empty list of ports", rule(protocol="tcp", destination_port=[])),
    (WRONG, "an unknown family", rule(family="ip")),
    (WRONG, "an unknown protocol", rule(protocol="tpc")),
    (WRONG, "a protocol above 255", rule(protocol=256)),
    (WRONG, "ports without a protocol", rule(destination_port=80)),
    (WRONG, "ports of a protocol without ports", rule(protocol=["tcp", "icmp"], source_port=80)),
    (RIGHT, "ports of protocols by number", rule(protocol=[6, 17, 132], source_port=0)),
    (WRONG, "a port above 65535", rule(protocol="udp", destination_port=65536)),
    (WRONG, "a range above 65535", rule(protocol="udp", destination_port="1-65536")),
    (WRONG, "a range without an end", rule(protocol="udp", destination_port="1000-")),
    (BEYOND, "a range that is reversed", rule(protocol="udp", destination_port="2000-1000")),
    (WRONG, "types without ICMP", rule(protocol="udp", icmp_type=8)),
    (WRONG, "an unknown type of ICMP", rule(protocol="icmp", icmp_type="ping")),
    (WRONG, "a code above 255", rule(protocol="icmp", icmp_type="3/256")),
    (WRONG, "flags without TCP", rule(tcp_flags="syn")),
    (WRONG, "an unknown flag", rule(protocol="tcp", tcp_flags="syn,ak")),
    (WRONG, "flags with blanks", rule(protocol="tcp", tcp_flags="syn, ack")),
    (BEYOND, "one flag twice", rule(protocol="tcp", tcp_flags="syn,!syn")),
    (WRONG, "a code point above 63", rule(dscp=64)),
    (WRONG, "out of the router to the router", rule(to_router=True, out="wan")),
    (WRONG, "an address set without elements", firewall(address_sets={"none": []})),
    (WRONG, "a name as an address", rule(source="lan")),
    (BEYOND, "an address set that does not exist", rule(source="@home")),
    (BEYOND, "host bits in a rule", rule(source="192.0.2.1/24")),
    (BEYOND, "an interface that does not exist in a rule", rule(out="dmz")),
    (BEYOND, "a VRF that does not exist in a rule", rule(vrf="red")),
    (BEYOND, "a rule for no family", rule(family="ipv6", source="192.0.2.0/24")),
    (BEYOND, "one rule twice", firewall(rules=[{"name": "one", "action": "drop"}] * 2)),
    # NAT.
    (RIGHT, "an empty NAT", nat()),
    (RIGHT, "NAT to the interface", source()),
    (RIGHT, "NAT with everything", source(
        name="lan", source=["192.0.2.0/24", "192.0.3.7"], destination="0.0.0.0/0", protocol="udp",
        to=["203.0.113.16-203.0.113.31", "198.51.100.0/28", "203.0.113.9"],
        mapping="endpoint_independent", filtering="endpoint_independent", ports="2000-60000",
        port_block=64, **{"in": "lan"})),
    (RIGHT, "no NAT", source(to="none", mapping="endpoint_dependent", ports=5000)),
    (WRONG, "NAT to nowhere", nat(source=[{"out": "wan"}])),
    (WRONG, "NAT without an interface", nat(source=[{"to": "interface"}])),
    (WRONG, "the interface in a list", source(to=["interface"])),
    (WRONG, "an empty pool", source(to=[])),
    (WRONG, "17 ranges", source(to=["203.0.113.%d" % i for i in range(20, 37)])),
    (WRONG, "an IPv6 pool", source(to="2001:db8::/120")),
    (WRONG, "NAT of IPv6", source(source="2001:db8::/64")),
    (WRONG, "a multicast pool", source(to="224.0.0.0/28")),
    (WRONG, "a pool that ends in loopback", source(to="126.255.255.0-127.0.0.1")),
    (BEYOND, "a pool that is reversed", source(to="203.0.113.31-203.0.113.16")),
    (BEYOND, "a pool that is too large", source(to="100.64.0.0/10")),
    (RIGHT, "a large pool, endpoint-dependent", source(to="100.64.0.0/10",
                                                       mapping="endpoint_dependent")),
    (WRONG, "65 prefixes", source(source=["10.0.%d.0/24" % i for i in range(65)])),
    (WRONG, "an unknown mapping", source(mapping="address_dependent")),
    (WRONG, "anybody to a mapping that is not for everybody",
     source(mapping="endpoint_dependent", filtering="endpoint_independent")),
    (WRONG, "port 0 for NAT", source(ports="0-1000")),
    (WRONG, "port 65536 for NAT", source(ports="1024-65536")),
    (WRONG, "port blocks for anybody", source(port_block=64)),
    (BEYOND, "a port block larger than the range", source(source="192.0.2.0/24", port_block=101,
                                                          ports="1000-1099")),
    (BEYOND, "a source rule behind one that takes all",
     nat(source=[{"out": "wan", "to": "interface"}] * 2)),
    (BEYOND, "NAT by no interface", source(out="dmz")),
    (RIGHT, "all to one host", forward()),
    (RIGHT, "a port forward", forward(protocol="tcp", destination_port=8080, to="192.0.2.10:80",
                                      source="198.51.100.0/24", destination="203.0.113.2",
                                      hairpin=False, name="web")),
    (RIGHT, "ports to a range of hosts", forward(protocol=17, destination_port="6000-6099",
                                                 to="192.0.2.10-192.0.2.12:7000")),
    (WRONG, "a forward to nowhere", nat(destination=[{"in": "wan"}])),
    (WRONG, "a forward to a prefix", forward(to="192.0.2.0/24")),
    (WRONG, "a forward to loopback", forward(to="127.0.0.1")),
    (WRONG, "a forward to port 0", forward(protocol="tcp", destination_port=80,
                                           to="192.0.2.10:0")),
    (WRONG, "a port without one that it replaces", forward(protocol="tcp", to="192.0.2.10:80")),
    (WRONG, "ports to forward without a protocol", forward(destination_port=80)),
    (WRONG, "ports to forward of GRE", forward(protocol="gre", destination_port=80)),
    (BEYOND, "a range of ports past the end", forward(protocol="tcp", destination_port="1-100",
                                                      to="192.0.2.10:65500")),
    (RIGHT, "a static translation", static()),
    (RIGHT, "a static translation elsewhere", static(outside="198.51.100.9", interface="wan")),
    (WRONG, "half a static translation", nat(static=[{"outside": "203.0.113.10"}])),
    (WRONG, "a static translation of a prefix", static(inside="192.0.2.0/28")),
    (BEYOND, "a static translation on no link", static(outside="198.51.100.9")),
    (BEYOND, "one inside address twice", nat(static=[
        {"outside": "203.0.113.10", "inside": "192.0.2.20"},
        {"outside": "203.0.113.11", "inside": "192.0.2.20"}])),
    (BEYOND, "a static address in a pool", nat(
        source=[{"out": "wan", "to": "203.0.113.8/29"}],
        static=[{"outside": "203.0.113.10", "inside": "192.0.2.20"}])),
    # NPTv6.
    (RIGHT, "another prefix", nptv6(name="site")),
    (RIGHT, "NPTv6 of the shortest prefixes", nptv6(inside="8000::/1", outside="::/1")),
    (RIGHT, "NPTv6 of the longest prefixes", nptv6(inside="fd00::/64", outside="2001:db8:9::/64")),
    (WRONG, "half of NPTv6", nat(nptv6=[{"out": "wan", "inside": "fd00::/48"}])),
    (WRONG, "NPTv6 without an interface", nat(nptv6=[
        {"inside": "fd00::/48", "outside": "2001:db8:9::/48"}])),
    (WRONG, "NPTv6 of IPv4", nptv6(inside="10.0.0.0/24", outside="10.1.0.0/24")),
    (WRONG, "NPTv6 of an address without a length", nptv6(inside="fd00::", outside="2001:db8::")),
    (WRONG, "NPTv6 of a longer prefix", nptv6(inside="fd00::/65", outside="2001:db8:9::/65")),
    (WRONG, "NPTv6 of everything", nptv6(inside="::/0", outside="::/0")),
    (WRONG, "a pool for NPTv6", nptv6(to="interface")),
    (BEYOND, "NPTv6 of different lengths", nptv6(outside="2001:db8:9::/56")),
    (BEYOND, "host bits in NPTv6", nptv6(inside="fd00:aaaa:bbbb:1::/48")),
    (BEYOND, "inside and outside overlap", nptv6(outside="fd00:aaaa:bbbb::/48")),
    (BEYOND, "one outside prefix for two", nat(nptv6=[
        {"out": "wan", "inside": f"fd00:{n}::/48", "outside": "2001:db8:9::/48"} for n in (1, 2)])),
    (BEYOND, "NPTv6 by no interface", nptv6(out="dmz")),
    # NAT64.
    (RIGHT, "NAT64", nat64()),
    (RIGHT, "NAT64 with everything", nat64(
        name="labs", prefix="2001:db8:1:64::/64", source=["2001:db8::/64", "fd00::/8"],
        destination=["198.51.100.0/24", "10.0.0.7"], protocol="icmp",
        to=["203.0.113.16-203.0.113.31", "203.0.113.9"], mapping="endpoint_independent",
        filtering="endpoint_independent", ports="2000-60000", **{"in": "lan"})),
    (RIGHT, "one source of NAT64", nat64(source="2001:db8::/64", protocol=17, ports=5000,
                                         mapping="endpoint_dependent")),
    (RIGHT, "all lengths of RFC 6052", nat(nat64=[
        {"prefix": f"2001:db{n}::/{length}", "out": "wan", "to": "interface"}
        for n, length in enumerate((32, 40, 48, 56, 64, 96))])),
    (WRONG, "NAT64 to nowhere", nat(nat64=[{"prefix": "64:ff9b::/96", "out": "wan"}])),
    (WRONG, "NAT64 without a prefix", nat(nat64=[{"out": "wan", "to": "interface"}])),
    (WRONG, "NAT64 without an interface", nat(nat64=[
        {"prefix": "64:ff9b::/96", "to": "interface"}])),
    (WRONG, "NAT64 that translates nothing", nat64(to="none")),
    (WRONG, "an IPv6 pool for NAT64", nat64(to="2001:db8::/120")),
    (WRONG, "a length that no IPv4 address fits behind", nat64(prefix="64:ff9b::/95")),
    (WRONG, "NAT64 behind an IPv4 prefix", nat64(prefix="10.0.0.0/8")),
    (WRONG, "an IPv4 source of NAT64", nat64(source="192.0.2.0/24")),
    (WRONG, "a source of NAT64 without a length", nat64(source="2001:db8::7")),
    (WRONG, "an empty list of sources of NAT64", nat64(source=[])),
    (WRONG, "an IPv6 destination of NAT64", nat64(destination="2001:db8::/64")),
    (WRONG, "NAT64 of GRE", nat64(protocol="gre")),
    (WRONG, "NAT64 of ICMPv6 by its number", nat64(protocol=58)),
    (WRONG, "port blocks for NAT64", nat64(source="2001:db8::/64", port_block=64)),
    (WRONG, "anybody to a NAT64 mapping that is not for everybody",
     nat64(mapping="endpoint_dependent", filtering="endpoint_independent")),
    (WRONG, "port 0 for NAT64", nat64(ports="0-1000")),
    (BEYOND, "bits 64 to 71 of a NAT64 prefix", nat64(prefix="2001:db8:0:0:100::/96")),
    (BEYOND, "host bits in a NAT64 prefix", nat64(prefix="2001:db8:0:0:1::/64")),
    (BEYOND, "a NAT64 rule behind one that takes all",
     nat(nat64=[{"prefix": "64:ff9b::/96", "out": "wan", "to": "interface"}] * 2)),
    (BEYOND, "NAT64 prefixes of different lengths that overlap", nat(nat64=[
        {"prefix": f"2001:db8:64::/{length}", "out": "wan", "to": "interface"}
        for length in (96, 64)])),
    (BEYOND, "a NAT64 prefix in an outside prefix", nat(
        nptv6=[{"out": "wan", "inside": "fd00::/48", "outside": "2001:db8:9::/48"}],
        nat64=[{"prefix": "2001:db8:9:64::/64", "out": "wan", "to": "interface"}])),
    (BEYOND, "NAT64 by no interface", nat64(out="dmz")),
    (RIGHT, "static bindings of NAT64", bound(
        {"protocol": "tcp", "outside": "interface", "outside_port": 8080, "inside_port": 80},
        {"protocol": "udp", "outside_port": "6000-6099"}, {"protocol": 6, "outside_port": 1},
        {"outside": "203.0.113.61", "inside": "2001:db8::11"})),
    (RIGHT, "no static bindings of NAT64", bound()),
    (WRONG, "a binding with a protocol and no port", bound({"protocol": "tcp"})),
    (WRONG, "a binding with a port and no protocol", bound({"outside_port": 80})),
    (WRONG, "a binding with an inside port alone", bound({"inside_port": 80})),
    (WRONG, "a binding of GRE", bound({"protocol": "gre", "outside_port": 80})),
    (WRONG, "a binding of ICMP", bound({"protocol": "icmp"})),
    (WRONG, "all of the router's address bound", bound({"outside": "interface"})),
    (WRONG, "an IPv4 inside of a binding", bound({"inside": "192.0.2.1"})),
    (WRONG, "an IPv6 outside of a binding", bound({"outside": "2001:db8::1"})),
    (WRONG, "port 0 bound", bound({"protocol": "tcp", "outside_port": 0})),
    (WRONG, "a binding with an unknown key", bound({"hairpin": True})),
    (WRONG, "a range of inside ports", bound(
        {"protocol": "tcp", "outside_port": "1-9", "inside_port": "1-9"})),
    (BEYOND, "a group inside of a binding", bound({"inside": "ff02::1"})),
    (BEYOND, "a binding behind its own prefix", bound({"inside": "64:ff9b::1"})),
    (BEYOND, "inside ports past the end", bound(
        {"protocol": "tcp", "outside_port": "1-9", "inside_port": 65530})),
    (BEYOND, "a port bound twice", bound({"protocol": "tcp", "outside_port": 8},
                                         {"protocol": "tcp", "outside_port": "1-9",
                                          "inside": "2001:db8::11"})),
    (BEYOND, "an address of a pool bound", bound({}, to="203.0.113.60/30")),
    # IPsec: associations.
    (RIGHT, "an empty IPsec", ipsec()),
    (RIGHT, "IPsec with empty lists", ipsec(sas=[], policies=[])),
    (RIGHT, "an IKE daemon", ipsec(ike={"socket": "/run/dpdk-router/xfrm.sock"})),
    (WRONG, "an IKE daemon without a socket", ipsec(ike={})),
    (WRONG, "an IKE daemon at a relative path", ipsec(ike={"socket": "xfrm.sock"})),
    (WRONG, "an IKE daemon at a path that is too long", ipsec(ike={"socket": "/" + 107 * "x"})),
    (WRONG, "an IKE daemon with an unknown key", ipsec(ike={"socket": "/x", "psk": "y"})),
    (WRONG, "an unknown key of IPsec", ipsec(peers=[])),
    (RIGHT, "no audit log", ipsec(audit=False)),
    (WRONG, "an audit log of a level", ipsec(audit="notice")),
    (WRONG, "associations by name", ipsec(sas={})),
    (RIGHT, "an association", association(GCM, OUT)),
    (RIGHT, "an association with everything", association(
        GCM, IN, mode="transport", icv_length=12, esn=True, replay_window=4096, df="clear",
        request=4294967295, vrf="default", udp_source_port=4501, udp_destination_port=4500)),
    (RIGHT, "an association of IPv6", association(GCM, OUT, source="2001:db8::2",
                                                  destination="2001:db8::9")),
    (RIGHT, "all algorithms that do both", ipsec(sas=[
        {**OUT, "spi": 1000 + n, "algorithm": name, "key": "aF" * length}
        for n, (name, length) in enumerate((
            ("aes-gcm-128", 20), ("aes-gcm-192", 28), ("aes-gcm-256", 36),
            ("aes-gmac-128", 20), ("aes-gmac-192", 28), ("aes-gmac-256", 36),
            ("chacha20-poly1305", 36)))])),
    (RIGHT, "all algorithms that encrypt", ipsec(sas=[
        {**OUT, **CBC, "spi": 1000 + n, "algorithm": name, "key": "00" * length}
        for n, (name, length) in enumerate((
            ("aes-cbc-128", 16), ("aes-cbc-192", 24), ("aes-cbc-256", 32),
            ("aes-ctr-128", 20), ("aes-ctr-192", 28), ("aes-ctr-256", 36)))])),
    (RIGHT, "all algorithms that authenticate", ipsec(sas=[
        {**OUT, **CBC, "spi": 1000 + n, "authentication": name, "authentication_key": "00" * length,
         "icv_length": icv}
        for n, (name, length, icv) in enumerate((
            ("hmac-sha1-96", 20, 12), ("hmac-sha256-128", 32, 16), ("hmac-sha384-192", 48, 24),
            ("hmac-sha512-256", 64, 32)))])),
    (RIGHT, "authentication alone", without(association(CBC, OUT, algorithm="null"), "key")),
    (WRONG, "a key for nothing", association(CBC, OUT, algorithm="null")),
    *((WRONG, f"an association without {key}", without(association(CBC, OUT), key))
      for key in (*OUT, *CBC)),
    (WRONG, "an unknown key of an association", association(GCM, OUT, lifetime=3600)),
    (WRONG, "a reserved SPI", association(GCM, OUT, spi=255)),
    (RIGHT, "the highest SPI", association(GCM, OUT, spi=4294967295)),
    (WRONG, "an SPI above the highest", association(GCM, OUT, spi=4294967296)),
    (WRONG, "an SPI as text", association(GCM, OUT, spi="0x1000")),
    (WRONG, "both directions", association(GCM, OUT, direction="both")),
    (WRONG, "an unknown mode", association(GCM, OUT, mode="beet")),
    (WRONG, "a prefix as an end", association(GCM, OUT, destination="198.51.100.0/24")),
    (WRONG, "a group as an end", association(GCM, OUT, destination="224.0.0.1")),
    (WRONG, "ends of two families", association(GCM, OUT, destination="2001:db8::9")),
    (WRONG, "ends of two families, the other way", association(GCM, OUT, source="2001:db8::9")),
    (WRONG, "an unknown algorithm", association(GCM, OUT, algorithm="aes-gcm")),
    (WRONG, "a key without its salt", association(GCM, OUT, key="00" * 16)),
    (WRONG, "a key that is not hexadecimal", association(GCM, OUT, key="0g" * 20)),
    (WRONG, "a key of the wrong algorithm", association(GCM, OUT, algorithm="aes-gcm-256")),
    (WRONG, "authentication that is there already", association(
        GCM, OUT, authentication="hmac-sha256-128")),
    (WRONG, "a key for authentication that is there already", association(
        GCM, OUT, authentication_key="00" * 32)),
    (WRONG, "unknown authentication", association(CBC, OUT, authentication="hmac-md5-96")),
    (WRONG, "a short key for authentication", association(CBC, OUT, authentication_key="00" * 31)),
    (RIGHT, "a short check value", association(GCM, OUT, icv_length=8)),
    (WRONG, "no length for a check value", association(GCM, OUT, icv_length=10)),
    (WRONG, "a short check value of ChaCha20", association(
        GCM, OUT, algorithm="chacha20-poly1305", key="00" * 36, icv_length=12)),
    (WRONG, "a short check value of an HMAC", association(CBC, OUT, icv_length=12)),
    (WRONG, "too large a window", association(GCM, IN, replay_window=4097)),
    (WRONG, "half a UDP encapsulation", association(GCM, OUT, udp_source_port=4500)),
    (WRONG, "the other half", association(GCM, OUT, udp_destination_port=4500)),
    (RIGHT, "ESP to any port", association(GCM, OUT, udp_source_port=4500,
                                           udp_destination_port=40000)),
    (WRONG, "ESP from another port than 4500", association(GCM, IN, udp_source_port=4500,
                                                           udp_destination_port=40000)),
    (WRONG, "an unknown DF", association(GCM, OUT, df="ignore")),
    (WRONG, "request 0", association(GCM, OUT, request=0)),
    (BEYOND, "a VRF of an association that does not exist", association(GCM, OUT, vrf="red")),
    (RIGHT, "all limits of a lifetime", association(GCM, IN, lifetime={
        "seconds": 3600, "bytes": 1 << 40, "packets": 1 << 32, "soft_seconds": 3000,
        "soft_bytes": 1, "soft_packets": (1 << 32) - 1})),
    (RIGHT, "a soft limit alone", association(GCM, OUT, lifetime={"soft_packets": 1})),
    (WRONG, "a lifetime without limits", association(GCM, OUT, lifetime={})),
    (WRONG, "a lifetime as a number", association(GCM, OUT, lifetime=3600)),
    (WRONG, "a lifetime of no time", association(GCM, OUT, lifetime={"seconds": 0})),
    (WRONG, "a lifetime of half a second", association(GCM, OUT, lifetime={"seconds": 0.5})),
    (WRONG, "an unknown limit of a lifetime", association(GCM, OUT, lifetime={"hours": 1})),
    (BEYOND, "a soft limit behind the hard one", association(GCM, OUT, lifetime={
        "seconds": 3600, "soft_seconds": 3600})),
    (BEYOND, "one association twice", ipsec(sas=[{**OUT, **GCM}] * 2)),
    # IPsec: policies.
    (RIGHT, "a policy", protect()),
    (RIGHT, "a policy with everything", protect(
        name="web", source="192.0.2.9", protocol="tcp", source_port="1024-65535",
        destination_port=443, priority=4294967295, vrf="default")),
    (RIGHT, "a policy by request", ipsec(policies=[{**TO, "action": "protect", "request": 7}])),
    (BEYOND, "one policy twice", ipsec(policies=[{**TO, "action": "bypass"}] * 2)),
    (BEYOND, "policies of which one never decides", ipsec(policies=[
        {**TO, "action": "bypass"}, {**TO, "action": "discard"}])),
    (RIGHT, "one policy with two priorities", ipsec(policies=[
        {**TO, "action": "bypass"}, {**TO, "action": "bypass", "priority": 1}])),
    (RIGHT, "a policy that lets pass", ipsec(policies=[{"direction": "in", "action": "bypass",
                                                        "source": "0.0.0.0/0"}])),
    (RIGHT, "a policy that drops", ipsec(policies=[{"direction": "in", "action": "discard",
                                                    "destination": "2001:db8::/32"}])),
    (WRONG, "a policy without a direction", without(protect(), "direction")),
    (WRONG, "a policy without an action", ipsec(policies=[TO])),
    (WRONG, "an unknown action", protect(action="require")),
    (WRONG, "a policy for anything", ipsec(policies=[{"direction": "in", "action": "discard"}])),
    (WRONG, "a policy for two families", protect(destination="2001:db8::/32")),
    (WRONG, "a policy for two families, the other way", protect(source="2001:db8::/32")),
    (WRONG, "a policy that protects with nothing", ipsec(policies=[{**TO, "action": "protect"}])),
    (WRONG, "a policy that protects twice", protect(request=7)),
    (WRONG, "a policy that lets pass and protects", protect(action="bypass")),
    (WRONG, "ports of a policy without a protocol", protect(destination_port=443)),
    (WRONG, "ports of a policy for ICMP", protect(protocol="icmp", source_port=8)),
    (RIGHT, "ports of protocols of a policy by number", protect(protocol=132, source_port=1)),
    (WRONG, "port 0 of a policy", protect(protocol="udp", source_port=0)),
    (WRONG, "a port of a policy as text", protect(protocol="udp", source_port="53")),
    (WRONG, "a list of ports of a policy", protect(protocol="udp", source_port=[53, 54])),
    (WRONG, "an unknown protocol of a policy", protect(protocol="ospf")),
    (RIGHT, "any protocol by its number", protect(protocol=0)),
    (WRONG, "a negative priority", protect(priority=-1)),
    (WRONG, "an unknown key of a policy", protect(mode="tunnel")),
    (BEYOND, "a policy without its association", protect(spi=4097)),
    (BEYOND, "a policy with an association of the other direction", protect(direction="in")),
    (BEYOND, "a VRF of a policy that does not exist", protect(vrf="red")),
    (BEYOND, "host bits of a policy", protect(source="192.0.2.1/24")),
    (BEYOND, "reversed ports of a policy", protect(protocol="udp", source_port="2000-1000")),
]


class Checker:
    def __init__(self, program, folder, validator):
        self.program = program
        self.file = pathlib.Path(folder) / "router.json"
        self.validator = validator
        self.count = 0
        self.failed = 0

    def check(self, text):
        """Returns what the program and the schema think of the text: a list of problems each."""
        self.file.write_text(text, encoding="utf-8")
        done = subprocess.run([self.program, "--", "-c", str(self.file), "--check"],
                              capture_output=True, text=True, timeout=60, check=False)
        if done.returncode not in (0, 2):
            return [f"exit status {done.returncode}: {done.stderr}"], []
        by_program = done.stderr.splitlines() if done.returncode else []
        try:
            # A schema sees values, not their spelling: comments cannot be read at all.
            errors = self.validator.iter_errors(json.loads(text.split(" //")[0]))
            by_schema = [f"$.{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in errors]
        except ValueError as error:
            by_schema = [str(error)]
        return by_program, by_schema

    def case(self, expected, name, text):
        by_program, by_schema = self.check(text)
        good = {RIGHT: not by_program and not by_schema,
                WRONG: bool(by_program) and bool(by_schema),
                BEYOND: bool(by_program) and not by_schema}[expected]
        self.count += 1
        print(f"{'ok' if good else 'not ok'} {self.count} - {expected}: {name}")
        if not good:
            self.failed += 1
            print(f"#   {text[:300]}")
            for who, problems in (("program", by_program), ("schema", by_schema)):
                print(f"#   the {who} {'refuses it' if problems else 'accepts it'}")
                for problem in problems[:5]:
                    print(f"#     {problem[:300]}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        import jsonschema
    except ImportError:
        print("1..0 # SKIP python3-jsonschema is not installed")
        return
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    examples = sorted(path for path in CONF.glob("*.json") if path != SCHEMA)
    print(f"1..{len(examples) + len(CASES)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="schema-") as folder:
        checker = Checker(sys.argv[1], folder, validator)
        for path in examples:
            checker.case(RIGHT, f"conf/{path.name}", path.read_text(encoding="utf-8"))
        for expected, name, config in CASES:
            checker.case(expected, name, config if isinstance(config, str) else json.dumps(config))
    sys.exit(1 if checker.failed or not examples else 0)


if __name__ == "__main__":
    main()
