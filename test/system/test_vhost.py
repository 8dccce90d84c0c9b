"""vhost-user between two routers: net_vhost here is what a virtual machine would connect to, and
net_virtio_user there is what it would have inside.

    host lan -- net_tap [router 1] net_vhost == net_virtio_user [router 2] net_tap -- host wan
"""
from lab import (LAN, LAN6, WAN, WAN6, Tap, arguments, equal, until)

FIRST = {
    "interfaces": {
        "lan": {"device": "net_tap0,iface=lan", "addresses": ["198.51.100.1/24",
                                                              "2001:db8:1::1/64"]},
        "vm": {"device": "net_vhost0,iface=SOCKET", "addresses": ["10.3.0.1/30",
                                                                  "2001:db8:3::1/64"]},
    },
    "routes": [{"prefix": "203.0.113.0/24", "via": "10.3.0.2"},
               {"prefix": "2001:db8:2::/64", "via": "2001:db8:3::2"}],
}
SECOND = {
    "interfaces": {
        "wan": {"device": "net_tap0,iface=wan", "addresses": ["203.0.113.1/24",
                                                              "2001:db8:2::1/64"]},
        "vm": {"device": "net_virtio_user0,path=SOCKET", "addresses": ["10.3.0.2/30",
                                                                       "2001:db8:3::2/64"]},
    },
    "routes": [{"prefix": "198.51.100.0/24", "via": "10.3.0.1"},
               {"prefix": "2001:db8:1::/64", "via": "2001:db8:3::1"}],
}
MEMORY = ["--no-huge", "-m", "512"]  # all of it is one file, which the other side maps


def link(router):
    return [each["link"] for each in router.call("interface.list") if each["name"] == "vm"][0]


def main():
    arguments()
    tap = Tap("vhost")
    with tap.lab() as lab:
        def start(config, **options):
            config = {**config, "interfaces": {
                name: {**each, "device": each["device"].replace("SOCKET", lab.path("vm.sock"))}
                for name, each in config["interfaces"].items()}}
            return lab.router(config, memory=MEMORY, **options)

        first = start(FIRST)
        lan = lab.host("lan").plug(first, "lan", f"{LAN}/24", f"{LAN6}/64",
                                   gateway="198.51.100.1", gateway6="2001:db8:1::1")
        with tap.case("without a guest the link is down, and its routes are not used"):
            equal(link(first), "down", "link")
            until(lambda: lan.reaches("198.51.100.1"), "lan reaches the router")
            lan.no_answer(WAN)

        def plug_wan(router, name):
            return lab.host(name).plug(router, "wan", f"{WAN}/24", f"{WAN6}/64",
                                       gateway="203.0.113.1", gateway6="2001:db8:2::1")

        with tap.case("a guest connects: traffic passes in both directions and families"):
            second = start(SECOND, lcores=["-l", "0"])
            wan = plug_wan(second, "wan")
            until(lambda: link(first) == "up", "the link is up")
            until(lambda: lan.reaches(WAN) and lan.reaches(WAN6), "lan reaches wan", 20)
            lan.ping(WAN, "-M", "do", "-s", 1472)
            wan.ping(LAN6, "-M", "do", "-s", 1452)
            lan.ping(WAN, "-s", 4000)
            lan.tcp(wan, WAN, "--bidir")
            lan.tcp(wan, WAN6, "--bidir")
        with tap.case("the guest dies: the link goes down, the router goes on"):
            second.process.kill()
            second.process.wait()
            until(lambda: link(first) == "down", "the link is down")
            lan.ping("198.51.100.1")
            lan.no_answer(WAN)
        with tap.case("another guest connects to the same socket"):
            third = start(SECOND, lcores=["-l", "0"])
            wan = plug_wan(third, "wan2")
            until(lambda: link(first) == "up", "the link is up")
            until(lambda: lan.reaches(WAN) and lan.reaches(WAN6), "lan reaches wan", 20)
            lan.tcp(wan, WAN)
        with tap.case("the host's router stops first: the guest goes on without the link"):
            equal(first.stop()[0], 0, "exit status of the first router")
            wan.ping("203.0.113.1")
            equal(third.stop()[0], 0, "exit status of the second router")
    tap.end()


if __name__ == "__main__":
    main()
