"""ARP and neighbour discovery against real Linux: hosts that move, vanish, and want an address of the
router; router advertisements; IPv4 over IPv6 next hops (RFC 8950)."""
import json
import re

from lab import (LAN, LAN6, LAN6_ROUTER, LAN_ROUTER, WAN, WAN6, Tap, arguments, check, equal, need,
                 plain_config, plain_scene, until)

MOVED = "02:00:00:00:01:77"


def state(router, interface, address):
    entry = router.neighbour(interface, address)
    return entry and entry["state"]


def link_local(host, device="eth0"):
    found = json.loads(host.ip(f"-j -6 addr show dev {device} scope link"))
    addresses = [each["local"] for device in found for each in device.get("addr_info", [])]
    return addresses[0] if addresses else None


def moves(tap):
    with tap.lab() as lab:
        router, lan, wan = plain_scene(lab)
        with tap.case("neighbours of both families are learnt, with the host's MAC address"):
            wan.ping(LAN)
            wan.ping(LAN6)
            for address in (LAN, LAN6):
                entry = router.neighbour("lan", address)
                equal((entry["mac"], entry["router"]), (lan.mac("eth0"), False), address)
        with tap.case("a gratuitous ARP and an unsolicited NA move a host's MAC address"):
            lan.sysctl("net/ipv4/conf/eth0/arp_notify", 1)
            lan.sysctl("net/ipv6/conf/eth0/ndisc_notify", 1)
            lan.ip(f"link set eth0 address {MOVED}")
            for address in (LAN, LAN6):
                until(lambda a=address: router.neighbour("lan", a)["mac"] == MOVED,
                      f"the router knows that {address} has moved")
            wan.ping(LAN)
            wan.ping(LAN6)
        with tap.case("a host that vanishes: FAILED, and host unreachable comes back"):
            wan.ip("addr flush dev eth0")
            router.call("neighbour.flush", {"interface": "wan"})
            output = lan.ping(WAN, "-W", 8, count=8, status=1)[2]
            check(f"From {LAN_ROUTER} icmp_seq=" in output and
                  "Destination Host Unreachable" in output, output)
            equal(state(router, "wan", WAN), "failed", "state of the neighbour")
            output = lan.ping(WAN6, "-W", 8, count=8, status=1)[2]
            check(f"From {LAN6_ROUTER} icmp_seq=" in output and
                  "Destination unreachable: Address unreachable" in output, output)
            equal(state(router, "wan", WAN6), "failed", "state of the neighbour")
        with tap.case("... and is found again when it comes back"):
            wan.address("eth0", f"{WAN}/24", f"{WAN6}/64")
            wan.ip("route add default via 203.0.113.1")
            wan.ip("-6 route replace default via 2001:db8:2::1 dev eth0")
            until(lambda: lan.reaches(WAN), "IPv4 works again")
            until(lambda: lan.reaches(WAN6), "IPv6 works again")
        with tap.case("a host that comes up in another place: the first packet is not lost"):
            router.call("neighbour.flush")
            lan.ping(WAN, count=1)
            router.call("neighbour.flush")
            lan.ping(WAN6, count=1)
        with tap.case("a static neighbour is used as it is, and is not overwritten"):
            wrong = "02:00:00:00:99:99"
            router.call("neighbour.add", {"interface": "wan", "address": WAN, "mac": wrong})
            wan.ip("neigh flush dev eth0")
            lan.no_answer(WAN)
            equal(router.neighbour("wan", WAN)["mac"], wrong, "MAC address")
            router.call("neighbour.delete", {"interface": "wan", "address": WAN})
            until(lambda: lan.reaches(WAN), "the host is found by ARP again")
        with tap.case("the whole subnet is probed: the router goes on, the table stays bounded"):
            lan.run("sh", "-c", "for i in $(seq 100 180); do ping -c 1 -W 1 203.0.113.$i & done; "
                    "wait", status=None, timeout=60)
            lan.ping(WAN)


def duplicates(tap):
    with tap.lab() as lab:
        router, lan, wan = plain_scene(lab)
        taken, taken6 = "198.51.100.77", "2001:db8:1::77"
        with tap.case("duplicate address detection: a Linux host has the router's new address"):
            lan.address("eth0", f"{taken6}/64")
            config = plain_config(lan={"addresses": [f"{LAN_ROUTER}/24", f"{LAN6_ROUTER}/64",
                                                     f"{taken6}/64"]})
            router.call("config.apply", {"config": config})

            def states():
                return {each["address"]: each["state"] for interface in router.call("interface.list")
                        if interface["name"] == "lan" for each in interface["addresses"]}
            until(lambda: states()[f"{taken6}/64"] == "duplicate", "the address is a duplicate")
            equal(states()[f"{LAN6_ROUTER}/64"], "valid", "state of the other address")
            check(f"the address {taken6} of interface lan is a duplicate" in router.log(),
                  "the log does not tell")
            # The host keeps its address: it is reached there, also through the router.
            wan.ping(taken6)
        with tap.case("... and is looked for again when it is configured anew"):
            lan.ip(f"addr del {taken6}/64 dev eth0")
            router.call("config.apply", {"config": plain_config()})
            router.call("config.apply", {"config": config})
            until(lambda: states()[f"{taken6}/64"] == "valid", "the address is valid")
            lan.ping(taken6)
        with tap.case("duplicate address detection by Linux finds the router's address taken"):
            lan.sysctl("net/ipv6/conf/eth0/accept_dad", 1)
            lan.sysctl("net/ipv6/conf/eth0/dad_transmits", 1)
            lan.ip(f"addr add {taken6}/64 dev eth0")
            until(lambda: "dadfailed" in lan.ip("-6 addr show dev eth0"), "Linux finds a duplicate")
            lan.ip(f"addr del {taken6}/64 dev eth0")
        with tap.case("a Linux host that takes the router's IPv4 address is told of, and defended "
                      "against"):
            lan.sysctl("net/ipv4/conf/eth0/arp_notify", 1)
            before = len(router.log())
            lan.ip(f"addr add {LAN_ROUTER}/32 dev eth0")
            lan.ip("link set eth0 down")
            lan.ip("link set eth0 up")  # sends gratuitous ARP for all addresses
            router.wait_log(LAN_ROUTER, before)
            lan.ip(f"addr del {LAN_ROUTER}/32 dev eth0")
            check(taken not in router.log(), "an address that nobody has configured")


def advertisements(tap):
    def config(advertise):
        return plain_config(lan={"router_advertisement": advertise})

    with tap.lab() as lab:
        router = lab.router(config({"interval": 4, "lifetime": 600, "mtu": True}))
        lan = lab.host("lan").plug(router, "lan", ra=2)
        wan = lab.host("wan").plug(router, "wan", f"{WAN6}/64", gateway6="2001:db8:2::1")
        router.settled()
        with tap.case("a router advertisement gives a Linux host an address and a default route"):
            until(lambda: "2001:db8:1:" in lan.ip("-6 addr show dev eth0 scope global -tentative"),
                  "Linux has an address")
            route = until(lambda: lan.ip("-6 route show default"), "Linux has a default route")
            check(re.search(r"default via fe80::\S+ dev eth0 proto ra .*expires [56]\d\dsec", route),
                  f"the route is {route}")
            check("proto kernel_ra" in lan.ip("-6 addr show dev eth0") or
                  "dynamic" in lan.ip("-6 addr show dev eth0"), "the address is not dynamic")
        with tap.case("... with which it reaches other networks, and is reached"):
            until(lambda: lan.reaches(WAN6), "lan reaches wan")
            address = re.search(r"inet6 (2001:db8:1:[0-9a-f:]+)/64",
                                lan.ip("-6 addr show dev eth0 scope global")).group(1)
            wan.ping(address)
            lan.tcp(wan, WAN6)
        with tap.case("advertisements that end take the default route away"):
            router.call("config.apply", {"config": config(False)})
            until(lambda: not lan.ip("-6 route show default"), "the default route is gone")
        with tap.case("... and so does a router that stops"):
            router.call("config.apply", {"config": config(True)})
            until(lambda: lan.ip("-6 route show default"), "the default route is back")
            need("tcpdump")
            # The device vanishes with the router, and tcpdump then forgets what it has seen; but it
            # tells how many it saw.
            farewell = lan.serve("tcpdump", "-n", "-i", "eth0",
                                 "ip6[6] = 58 and ip6[40] = 134 and ip6[46:2] = 0",
                                 ready="listening on")
            router.stop()
            seen = farewell.stdout.read()
            check(re.search(r"[1-9]\d* packets? received by filter", seen), seen)


def over_ipv6(tap):
    config = {
        "interfaces": {
            "lan": {"device": "net_tap0,iface=lan", "mac": "02:00:00:00:01:01",
                    "addresses": [f"{LAN6_ROUTER}/64"]},
            "wan": {"device": "net_tap1,iface=wan", "mac": "02:00:00:00:02:01",
                    "addresses": ["203.0.113.1/24", "2001:db8:2::1/64"]},
        },
        "routes": [{"prefix": "198.51.100.0/24", "via": {"address": "fe80::10",
                                                         "interface": "lan"}}],
    }
    with tap.lab() as lab:
        router = lab.router(config)
        lan = lab.host("lan").plug(router, "lan", "fe80::10/64")
        lan.address("lo", f"{LAN}/32")
        wan = lab.host("wan").plug(router, "wan", f"{WAN}/24", gateway="203.0.113.1")
        router.settled()
        # The modified EUI-64 address that belongs to the router's MAC address.
        lan.ip(f"route add 203.0.113.0/24 via inet6 fe80::ff:fe00:101 dev eth0 src {LAN}")
        with tap.case("IPv4 over an IPv6 next hop on both sides, on a link without IPv4 (RFC 8950)"):
            until(lambda: lan.reaches(WAN), "lan reaches wan")
            wan.ping(LAN)
            lan.tcp(wan, WAN, "--bidir")
            equal(router.neighbour("lan", "fe80::10")["mac"], lan.mac("eth0"), "MAC address")
        with tap.case("... an ICMP error there comes from another address of the router"):
            need("traceroute")
            output = lan.run("traceroute", "-n", "-q", 1, "-m", 3, WAN).stdout
            check(re.search(r"^ 1  203\.0\.113\.1 ", output, re.M), output)


def main():
    arguments()
    tap = Tap("neighbour")
    moves(tap)
    duplicates(tap)
    advertisements(tap)
    over_ipv6(tap)
    tap.end()


if __name__ == "__main__":
    main()
