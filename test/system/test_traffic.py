"""Traffic between Linux hosts: ping, TCP and UDP, IPv4 and IPv6; over plain interfaces, over VLAN
interfaces, and in two VRFs whose addresses are the same."""
from lab import LAN, LAN6, WAN, WAN6, Tap, arguments, check, equal, plain_scene, until


def lost_by(router, hosts, action):
    """Runs action(), which returns (sent, lost). No datagram may get lost in the router: what it
    counts as dropped (nothing) and what the kernel dropped in tap queues and sockets must make up for
    all that is missing."""
    def dropped_by_linux():
        return (sum(host.kernel_drops(device) for host, device in hosts) +
                sum(host.socket_drops() for host in {host for host, _ in hosts}))

    before = dropped_by_linux()
    router.call("stats.clear")
    sent, lost = action()
    kernel = dropped_by_linux() - before
    router.no_drops()
    check(lost <= kernel, f"{lost} of {sent} datagrams are lost, only {kernel} of them by Linux")


def exchange(tap, what, client, server, address, address6, router, more_devices=()):
    """The cases that every kind of interface must pass."""
    hosts = ((client, "eth0"), (server, "eth0"), *more_devices)
    for family, target in (("IPv4", address), ("IPv6", address6)):
        with tap.case(f"{what}: {family} ping with 56 and 1452 or 1472 bytes"):
            client.ping(target)
            client.ping(target, "-M", "do", "-s", 1472 if family == "IPv4" else 1452)
        with tap.case(f"{what}: {family} ping in fragments, 4000 bytes"):
            client.ping(target, "-s", 4000)
        with tap.case(f"{what}: {family} TCP in both directions"):
            client.tcp(server, target, "--bidir")
        with tap.case(f"{what}: {family} UDP"):
            lost_by(router, hosts, lambda t=target: client.udp(server, t, "-l", 1400))


def plain(tap):
    with tap.lab() as lab:
        router, lan, wan = plain_scene(lab)
        exchange(tap, "two interfaces", lan, wan, WAN, WAN6, router)

        with tap.case("two interfaces: eight TCP connections at once"):
            lan.tcp(wan, WAN, "-P", 8)

        with tap.case("two interfaces: UDP datagrams of 8000 bytes, in fragments"):
            lost_by(router, ((lan, "eth0"), (wan, "eth0")),
                    lambda: wan.udp(lan, LAN, "-l", 8000, rate="40M"))
            wan.ping(LAN6, "-s", 8000)

        with tap.case("the router itself answers ping, on all of its addresses"):
            for size in (0, 1472):
                lan.ping("198.51.100.1", "-s", size)
                lan.ping("203.0.113.1", "-s", size)
            for size in (0, 1452):
                lan.ping("2001:db8:1::1", "-s", size)
                lan.ping("2001:db8:2::1", "-s", size)

        with tap.case("counters: what comes in on lan goes out on wan, frame by frame"):
            lan.ping(WAN)
            router.call("stats.clear")
            lan.ping(WAN, "-f", count=500)
            counters = router.counters()
            for name, other in (("lan", "wan"), ("wan", "lan")):
                received, sent = counters[name]["rx_packets"], counters[other]["tx_packets"]
                # A neighbour probe or two may come along.
                check(received >= 500 and abs(received - sent) <= 20,
                      f"{received} packets came in on {name}, {sent} went out on {other}")
                for counter in ("rx_missed", "tx_dropped"):
                    equal(counters[name][counter], 0, f"{name} {counter}")
            router.no_drops()


def vlans(tap):
    config = {"interfaces": {
        "trunk": {"device": "net_tap0,iface=trunk", "mac": "02:00:00:00:03:01", "mtu": 1504},
        "red": {"parent": "trunk", "vlan": 10, "mtu": 1500,
                "addresses": ["10.10.0.1/24", "2001:db8:10::1/64"]},
        "blue": {"parent": "trunk", "vlan": 20, "mtu": 1500,
                 "addresses": ["10.20.0.1/24", "2001:db8:20::1/64"]},
        "wan": {"device": "net_tap1,iface=wan", "addresses": ["203.0.113.1/24",
                                                              "2001:db8:2::1/64"]},
    }}
    with tap.lab() as lab:
        router = lab.router(config)
        trunk = lab.host("trunk").plug(router, "trunk", mac="02:00:00:00:03:10", mtu=1504)
        trunk.vlan("eth0", 10, "10.10.0.10/24", "2001:db8:10::10/64")
        trunk.vlan("eth0", 20, "10.20.0.10/24", "2001:db8:20::10/64")
        trunk.ip("route add default via 10.10.0.1")
        trunk.ip("-6 route add default via 2001:db8:10::1")
        wan = lab.host("wan").plug(router, "wan", f"{WAN}/24", f"{WAN6}/64",
                                   gateway="203.0.113.1", gateway6="2001:db8:2::1")
        router.settled()
        until(lambda: trunk.reaches("10.10.0.1") and trunk.reaches("2001:db8:10::1"),
              "the host behind the trunk reaches the router")
        exchange(tap, "VLAN", trunk, wan, WAN, WAN6, router,
                 [(trunk, "eth0.10")])
        with tap.case("VLAN: the other VLAN on the same trunk is another interface"):
            wan.ping("10.20.0.10")
            wan.ping("2001:db8:20::10")
            counters = router.counters()
            check(counters["blue"]["tx_packets"] >= 6 and counters["red"]["rx_packets"] > 100,
                  f"counters of the VLANs: {counters}")
        with tap.case("VLAN: interfaces are added and removed under traffic"):
            flow = trunk.start("ping", "-q", "-i", "0.01", WAN)
            one = {name: each for name, each in config["interfaces"].items() if name != "blue"}
            for _ in range(3):
                router.call("config.apply", {"config": {"interfaces": one}})
                router.call("config.apply", {"config": config})
            equal(flow.poll(), None, "ping ended with status")
            lab.stop(flow)
            trunk.ping(WAN)
            router.settled()
            until(lambda: wan.reaches("10.20.0.10"), "the VLAN that was added again works")


def vrfs(tap):
    def interface(number, vrf, end):
        return {"device": f"net_tap{number},iface=tap{number}", "vrf": vrf,
                "addresses": [f"10.0.{end}.1/24", f"2001:db8:{end}::1/64"]}

    # The same addresses twice; red has one host more, behind a route, that blue has not.
    config = {
        "vrfs": {"red": {"table": 10}, "blue": {"table": 20}},
        "interfaces": {
            "red1": interface(0, "red", 1), "red2": interface(1, "red", 2),
            "blue1": interface(2, "blue", 1), "blue2": interface(3, "blue", 2),
        },
        "routes": [
            {"prefix": "10.99.0.0/24", "via": "10.0.2.10", "vrf": "red"},
            {"prefix": "2001:db8:99::/64", "via": "2001:db8:2::10", "vrf": "red"},
        ],
    }
    with tap.lab() as lab:
        router = lab.router(config)
        hosts = {}
        for number, (name, end) in enumerate((("red1", 1), ("red2", 2), ("blue1", 1),
                                              ("blue2", 2))):
            hosts[name] = lab.host(name).plug(
                router, f"tap{number}", f"10.0.{end}.10/24", f"2001:db8:{end}::10/64",
                gateway=f"10.0.{end}.1", gateway6=f"2001:db8:{end}::1")
        hosts["red2"].address("lo", "10.99.0.1/32", "2001:db8:99::1/128")
        # Only in blue: a second address at the end that red must not find.
        hosts["blue2"].address("eth0", "10.0.2.77/24", "2001:db8:2::77/64")
        router.settled()
        for colour in ("red", "blue"):
            until(lambda c=colour: hosts[c + "1"].reaches("10.0.2.10"), f"{colour} works")
        for colour in ("red", "blue"):
            exchange(tap, f"VRF {colour}", hosts[colour + "1"], hosts[colour + "2"], "10.0.2.10",
                     "2001:db8:2::10", router)
        with tap.case("VRF: the same address in two VRFs is two hosts"):
            before = [hosts[name].ip("-s -s -j link show eth0") for name in ("blue1", "blue2")]
            router.call("stats.clear")
            hosts["red1"].ping("10.0.2.10", "-f", count=200)
            counters = router.counters()
            check(counters["red2"]["tx_packets"] >= 200, f"red: {counters['red2']}")
            check(counters["blue2"]["tx_packets"] < 20 and counters["blue1"]["tx_packets"] < 20,
                  f"traffic of red went to blue: {counters}, before {before}")
        with tap.case("VRF: a host that only blue has is not reachable from red"):
            hosts["blue1"].ping("10.0.2.77")
            hosts["blue1"].ping("2001:db8:2::77")
            hosts["red1"].no_answer("10.0.2.77")
            hosts["red1"].no_answer("2001:db8:2::77")
        with tap.case("VRF: a route that only red has does not work in blue"):
            hosts["red1"].ping("10.99.0.1")
            hosts["red1"].ping("2001:db8:99::1")
            check("Destination Net Unreachable" in hosts["blue1"].no_answer("10.99.0.1"),
                  "no ICMP error")
            check("No route" in hosts["blue1"].no_answer("2001:db8:99::1"), "no ICMPv6 error")
        with tap.case("VRF: neighbours of the same address are told apart"):
            for colour in ("red", "blue"):
                host = hosts[colour + "2"]
                equal(router.neighbour(colour + "2", "10.0.2.10")["mac"], host.mac("eth0"), colour)


def main():
    arguments()
    tap = Tap("traffic")
    plain(tap)
    vlans(tap)
    vrfs(tap)
    tap.end()


if __name__ == "__main__":
    main()
