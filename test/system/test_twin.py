"""Linux as the router's host: the TAP twin of an interface, with the router's addresses, served and
used by ordinary Linux programs in the router's namespace."""
import json

from lab import (LAN, LAN6, LAN6_ROUTER, LAN_ROUTER, WAN, WAN6, WAN6_ROUTER, WAN_ROUTER, Tap,
                 arguments, check, equal, plain_config, plain_scene, until)

# Datagrams to the discard port, about ten times as many as the policer lets through.
FLOOD = """import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    while True:
        for _ in range(50):
            try:
                sender.sendto(bytes(20), (sys.argv[1], 9))
            except OSError:
                pass  # port unreachable
        time.sleep(0.01)
"""
SPOOF = """import socket, sys
source, destination = sys.argv[1:]
family = socket.AF_INET6 if ":" in source else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sender:
    sender.bind((source, 0))
    sender.sendto(bytes(20), (destination, 9))
"""
FREE = {"punt": {"other": 1000000}}  # no policer, for transfers


def twin_state(router, name="twin0"):
    return json.loads(router.space.ip(f"-j addr show dev {name}"))[0]


def services(tap):
    with tap.lab() as lab:
        router, lan, wan = plain_scene(lab, plain_config(lan={"host_twin": "twin0"}, **FREE))
        linux = router.space
        with tap.case("the twin has the interface's MAC address, MTU and addresses"):
            twin = twin_state(router)
            equal((twin["address"], twin["mtu"]), ("02:00:00:00:01:01", 1500), "MAC and MTU")
            addresses = {f"{each['local']}/{each['prefixlen']}" for each in twin["addr_info"]}
            equal(addresses, {f"{LAN_ROUTER}/24", f"{LAN6_ROUTER}/64", "fe80::ff:fe00:101/64"},
                  "addresses")
            check("LOWER_UP" in twin["flags"], f"no carrier: {twin['flags']}")
        with tap.case("the router still answers ping itself, small and in fragments"):
            lan.ping(LAN_ROUTER)
            lan.ping(LAN6_ROUTER)
            lan.ping(LAN_ROUTER, "-s", 4000)
            lan.ping(LAN6_ROUTER, "-s", 4000)
        with tap.case("a TCP service on the router's host is reached from the attached network"):
            lan.tcp(linux, LAN_ROUTER, "--bidir")
            lan.tcp(linux, LAN6_ROUTER, "--bidir")
        with tap.case("... over a link-local address"):
            # fe80::... is on both sides; the address alone says nothing to Linux.
            lan.run("ping", "-n", "-c", 2, "-i", "0.1", "fe80::ff:fe00:101%eth0")
        with tap.case("... and from a network behind another interface"):
            linux.ip("route add default dev twin0")
            linux.ip("-6 route add default dev twin0")
            wan.tcp(linux, LAN_ROUTER)
            wan.tcp(linux, LAN6_ROUTER)
        with tap.case("UDP to a port where nobody listens: Linux answers port unreachable"):
            done = lan.run("traceroute", "-n", "-q", 1, "-m", 2, LAN_ROUTER).stdout
            check(f" 1  {LAN_ROUTER} " in done, done)
        with tap.case("a Linux client on the router's host reaches an attached host"):
            linux.ping(LAN)
            linux.ping(LAN6)
            linux.ping(LAN, "-s", 4000)
            linux.ping(LAN6, "-s", 4000)
            linux.tcp(lan, LAN)
            linux.tcp(lan, LAN6)
        with tap.case("Linux borrows the router's routes: \"ip route add default dev TWIN\""):
            linux.ping(WAN)
            linux.ping(WAN6)
            linux.tcp(wan, WAN)
            linux.tcp(wan, WAN6)
        with tap.case("ICMP errors about what Linux sent come back to Linux"):
            output = linux.ping("203.0.113.99", "-W", 6, count=1, status=1)[2]
            check("Destination Host Unreachable" in output, output)
            output = linux.ping("10.255.0.1", count=1, status=1)[2]
            check("Destination Net Unreachable" in output, output)
            output = linux.ping("2001:db8:ffff::1", count=1, status=1)[2]
            check("No route" in output or "unreachable" in output, output)
        with tap.case("what Linux sends to the router's other addresses does not go round"):
            linux.ping("203.0.113.1")
            done = linux.run("sh", "-c", "echo hello > /dev/udp/203.0.113.1/9 2>/dev/null; "
                             "ping -c 1 -t 3 203.0.113.1", status=None)
            equal(done.returncode, 0, "ping with a small TTL")
        with tap.case("the twin's carrier follows the interface"):
            router.call("interface.set", {"name": "lan", "admin": "down"})
            until(lambda: "LOWER_UP" not in twin_state(router)["flags"], "carrier is off")
            router.call("interface.set", {"name": "lan", "admin": "up"})
            until(lambda: "LOWER_UP" in twin_state(router)["flags"], "carrier is on")
            until(lambda: linux.reaches(LAN), "the host is reached again")


def changes(tap):
    with tap.lab() as lab:
        router, lan, wan = plain_scene(lab)
        linux = router.space
        with tap.case("a twin is added, changed and removed by the configuration"):
            twins = {"host_twin": "twin0"}
            router.call("config.apply", {"config": plain_config(lan=twins)})
            until(lambda: linux.reaches(LAN), "Linux reaches lan")
            more = {"host_twin": "twin0", "addresses": [f"{LAN_ROUTER}/24", "198.51.100.2/24"]}
            router.call("config.apply", {"config": plain_config(lan=more)})
            state = twin_state(router)
            equal({each["local"] for each in state["addr_info"] if each["family"] == "inet"},
                  {LAN_ROUTER, "198.51.100.2"}, "addresses")
            lan.tcp(linux, "198.51.100.2")
            router.call("config.apply", {"config": plain_config()})
            equal(linux.run("ip", "link", "show", "twin0", status=None).returncode, 1,
                  "exit status of ip link show twin0")
            lan.ping(WAN)
        with tap.case("a twin's name that belongs to another device is left alone"):
            linux.ip("link add twin0 type veth peer name twin1")
            before = len(router.log())
            router.call("config.apply", {"config": plain_config(lan={"host_twin": "twin0"})})
            router.wait_log("twin0", before)
            lan.ping(WAN)
            check("veth" in linux.ip("-d link show twin0"), "the other device was changed")
            linux.ip("link del twin0")
            router.call("config.apply", {"config": plain_config(lan={"host_twin": "twin0"},
                                                                punt={"other": 500})})
            until(lambda: linux.reaches(LAN), "the twin works once the name is free")
        with tap.case("a flood to the host is policed, and transit traffic does not suffer"):
            router.call("stats.clear")
            flood = lan.start("/usr/bin/python3", "-c", FLOOD, LAN_ROUTER)
            wan.ping(LAN, count=20)
            until(lambda: router.drops().get("punt.other_policed", 0) > 1000, "packets are policed")
            lab.stop(flood)
            # Remains of the connections to the address that was removed wait for it in vain.
            router.no_drops("punt.other_policed", "neighbour.queue_full")
        with tap.case("a packet from outside with the router's own address does not reach Linux"):
            router.call("stats.clear")
            lan.address("lo", f"{LAN_ROUTER}/32", f"{LAN6_ROUTER}/128")
            for source, destination in ((LAN_ROUTER, WAN_ROUTER), (LAN6_ROUTER, WAN6_ROUTER)):
                lan.run("/usr/bin/python3", "-c", SPOOF, source, destination)
            until(lambda: router.drops().get("host.spoofed_source", 0) == 2, "both were dropped")
            lan.ip(f"addr del {LAN_ROUTER}/32 dev lo")
            lan.ip(f"addr del {LAN6_ROUTER}/128 dev lo")
        with tap.case("the twin dies with the router, also when it is killed"):
            router.process.kill()
            router.process.wait()
            until(lambda: linux.run("ip", "link", "show", "twin0", status=None).returncode == 1,
                  "the twin is gone")


def main():
    arguments()
    tap = Tap("twin")
    services(tap)
    changes(tap)
    tap.end()


if __name__ == "__main__":
    main()
