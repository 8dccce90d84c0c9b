"""The path through the router as Linux sees it: traceroute, and path-MTU discovery (RFC 1191, RFC
8201) towards a link with a smaller MTU."""
from lab import (LAN6_ROUTER, LAN_ROUTER, WAN, WAN6, WAN6_ROUTER, WAN_ROUTER, Tap, arguments, check,
                 equal, hops, learnt_mtu, plain_config, plain_hosts)

SMALL = 1400


def traceroutes(tap, lan, wan):
    for method, options in (("UDP", ()), ("ICMP", ("-I",)), ("TCP", ("-T",))):
        with tap.case(f"traceroute by {method} shows the router, then the host"):
            equal(hops(lan, WAN, *options), [LAN_ROUTER, WAN], "IPv4")
            equal(hops(lan, WAN6, *options), [LAN6_ROUTER, WAN6], "IPv6")
    with tap.case("traceroute in the other direction shows the router's other address"):
        equal(hops(wan, "198.51.100.10"), [WAN_ROUTER, "198.51.100.10"], "IPv4")
        equal(hops(wan, "2001:db8:1::10"), [WAN6_ROUTER, "2001:db8:1::10"], "IPv6")
    with tap.case("traceroute to the router itself ends there"):
        equal(hops(lan, WAN_ROUTER, "-I"), [WAN_ROUTER], "IPv4")
        equal(hops(lan, WAN6_ROUTER, "-I"), [WAN6_ROUTER], "IPv6")


def path_mtu(tap, lan, wan):
    lan.ip("route flush cache")
    with tap.case("IPv4: a large ping that must not be fragmented is told the link's MTU"):
        equal(learnt_mtu(lan, WAN), None, "MTU before")
        output = lan.ping(WAN, "-M", "do", "-s", 1472, count=2, status=1)[2]
        check(f"From {LAN_ROUTER} icmp_seq=1 Frag needed and DF set (mtu = {SMALL})" in output,
              output)
        equal(learnt_mtu(lan, WAN), SMALL, "MTU that the sender has learnt")
        lan.ping(WAN, "-M", "do", "-s", SMALL - 28)
    with tap.case("IPv6: a large ping is told the link's MTU"):
        equal(learnt_mtu(lan, WAN6), None, "MTU before")
        output = lan.ping(WAN6, "-M", "do", "-s", 1452, count=2, status=1)[2]
        check(f"From {LAN6_ROUTER} icmp_seq=1 Packet too big: mtu={SMALL}" in output, output)
        equal(learnt_mtu(lan, WAN6), SMALL, "MTU that the sender has learnt")
        lan.ping(WAN6, "-M", "do", "-s", SMALL - 48)
    with tap.case("IPv4: what may be fragmented is fragmented by the router"):
        lan.ip("route flush cache")
        lan.ping(WAN, "-M", "dont", "-s", 1472)
        lan.ping(WAN, "-M", "dont", "-s", 4000)
    with tap.case("IPv6: the sender fragments to the MTU it has learnt"):
        lan.ping(WAN6, "-s", 4000)
    for family, address in (("IPv4", WAN), ("IPv6", WAN6)):
        with tap.case(f"{family}: TCP finds the MTU and completes"):
            # The receiver must not give the MTU away by its MSS.
            version = "-6 " if family == "IPv6" else ""
            gateway = WAN6_ROUTER if family == "IPv6" else WAN_ROUTER
            wan.ip(f"{version}route change default via {gateway} dev eth0 advmss "
                   f"{1440 if version else 1460}")
            lan.ip(f"{version}route flush cache")
            equal(learnt_mtu(lan, address), None, "MTU before")
            lan.tcp(wan, address)
            equal(learnt_mtu(lan, address), SMALL, "MTU that the sender has learnt")
    with tap.case("the small link's own host sends and receives at full size"):
        wan.ping("198.51.100.10", "-M", "do", "-s", SMALL - 28)
        wan.tcp(lan, "198.51.100.10")
        wan.tcp(lan, "2001:db8:1::10")


def main():
    arguments()
    tap = Tap("path")
    with tap.lab() as lab:
        router = lab.router(plain_config(wan={"mtu": SMALL}))
        lan, wan = plain_hosts(lab, router)
        traceroutes(tap, lan, wan)
        path_mtu(tap, lan, wan)
        with tap.case("no packet was dropped but those that expired or were too big"):
            router.no_drops("local.time_exceeded", "local.too_big")
    tap.end()


if __name__ == "__main__":
    main()
