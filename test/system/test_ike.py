"""strongSwan's charon, unmodified, keys routers: two of them, a network behind each and one between
them. charon runs on the routers' hosts, its XFRM sockets led to the router by a preloaded library;
IKE itself reaches it through the host twin."""
import concurrent.futures
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time

from ike import CHARON, OTHER, ROOT, Charon, keys_router, policies, sas, spis
from lab import Lab, Skip, Tap, check, equal, learnt_mtu, need, until

LEFT, RIGHT = "198.51.100.10", "10.20.0.10"  # hosts behind the routers
LEFT6, RIGHT6 = "2001:db8:1::10", "2001:db8:20::10"
NETS = {"left": "198.51.100.0/24", "right": "10.20.0.0/24"}
NETS6 = {"left": "2001:db8:1::/64", "right": "2001:db8:20::/64"}
OUTSIDE = {"left": "203.0.113.1", "right": "192.0.2.1"}  # of the routers
OUTSIDE6 = {"left": "2001:db8:a::1", "right": "2001:db8:b::1"}
PROVIDER = {"left": "203.0.113.10", "right": "192.0.2.10"}
PROVIDER6 = {"left": "2001:db8:a::10", "right": "2001:db8:b::10"}
LEFT_MOVED = "203.0.113.2"
LIBRARY = None  # set from the command line


class RouterCharon(Charon):
    """A charon on a router's host."""

    def __init__(self, router, side):
        super().__init__(router.space, side, keys_router(LIBRARY, xfrm_path(router.lab, side)))

    def load(self, outside=None, nets=(NETS, NETS6), **options):
        super().load(outside or OUTSIDE, nets, **options)


def xfrm_path(lab, side):
    return lab.path(f"{side}.xfrm")


def config(lab, side, outside=None):
    """`outside`: addresses in place of the router's usual one of IPv4."""
    lan = {"left": ["198.51.100.1/24", "2001:db8:1::1/64"],
           "right": ["10.20.0.1/24", "2001:db8:20::1/64"]}
    return {
        "interfaces": {
            "lan": {"device": "net_tap0,iface=lan", "addresses": lan[side]},
            "wan": {"device": "net_tap1,iface=wan", "host_twin": "twin",
                    "addresses": [*(f"{each}/24" for each in outside or [OUTSIDE[side]]),
                                  f"{OUTSIDE6[side]}/64"]},
        },
        "routes": [{"prefix": "0.0.0.0/0", "via": PROVIDER[side]},
                   {"prefix": "::/0", "via": PROVIDER6[side]}],
        "ipsec": {"ike": {"socket": xfrm_path(lab, side)}},
    }


def lcores(number):
    """One for each router, which is control thread and worker in turn."""
    return ["--lcores", f"0@{number % (os.cpu_count() or 1)}"]


class Scene:
    def __init__(self, lab):
        self.lab = lab
        self.routers = {side: lab.router(config(lab, side), lcores=lcores(number))
                        for number, side in enumerate(("left", "right"))}
        self.left = lab.host("left").plug(
            self.routers["left"], "lan", f"{LEFT}/24", f"{LEFT6}/64", gateway="198.51.100.1",
            gateway6="2001:db8:1::1")
        self.right = lab.host("right").plug(
            self.routers["right"], "lan", f"{RIGHT}/24", f"{RIGHT6}/64", gateway="10.20.0.1",
            gateway6="2001:db8:20::1")
        self.provider = lab.host("provider")
        for side, name in (("left", "eth0"), ("right", "eth1")):
            self.provider.plug(self.routers[side], "wan", f"{PROVIDER[side]}/24",
                               f"{PROVIDER6[side]}/64", name=name)
        self.provider.sysctl("net/ipv4/ip_forward", 1)
        self.provider.sysctl("net/ipv6/conf/all/forwarding", 1)
        for side, router in self.routers.items():
            router.settled()
            router.space.ip("route add default dev twin")
            router.space.ip("-6 route add default dev twin")
        for side, router in self.routers.items():
            for outside in (OUTSIDE, OUTSIDE6):
                until(lambda r=router, o=outside[OTHER[side]]: r.space.reaches(o),
                      f"{side} reaches {outside[OTHER[side]]}")
        self.charons = {side: RouterCharon(router, side) for side, router in self.routers.items()}

    def load(self, **options):
        for charon in self.charons.values():
            charon.load(**options)

    def up(self, side="left"):
        self.charons[side].swanctl("--initiate", "--child", "net")

    def quiet(self):
        """No tunnel, whatever there was."""
        def nothing():
            for charon in self.charons.values():
                charon.swanctl("--terminate", "--ike", "peer", "--force", "--timeout", "2",
                               status=None)
            return not any(sas(each) or policies(each) for each in self.routers.values())
        until(nothing, "nothing is left in the routers", 20)

    def down(self, side="left"):
        self.charons[side].swanctl("--terminate", "--ike", "peer")
        for each in self.routers.values():
            until(lambda r=each: not sas(r) and not policies(r), "nothing is left in the routers")


def in_the_clear(scene):
    """Packets between the networks that the provider can read."""
    return scene.provider.start(
        "tcpdump", "-n", "-l", "--immediate-mode", "-i", "eth0", "-c", 1,
        " or ".join(f"net {net[side]}" for net in (NETS, NETS6) for side in net),
        stdout=subprocess.PIPE)


def establishing(tap, scene):
    left, right = scene.routers["left"], scene.routers["right"]
    with tap.case("charon starts, and has flushed what was there"):
        scene.load()
        for side, router in scene.routers.items():
            equal((sas(router), policies(router)), ([], []), f"{side}")
            check("kernel-netlink" in scene.charons[side].swanctl("--stats"), "kernel-netlink")
    with tap.case("an IKE_SA and a CHILD_SA come up, and are in both routers"):
        scene.up()
        for router in (left, right):
            equal(sorted(each["direction"] for each in sas(router)), ["in", "out"], "directions")
            for each in sas(router):
                equal((each["algorithm"], each["owner"], each["mode"], each["esn"]),
                      ("aes-gcm-256", "ike", "tunnel", False), "association")
            equal(sorted(each["direction"] for each in policies(router)),
                  ["in", "in", "out", "out"], "policies")
        equal(spis(left)["in"], spis(right)["out"], "SPI to the left")
        equal(spis(left)["out"], spis(right)["in"], "SPI to the right")
    with tap.case("ping both ways, nothing in the clear"):
        need("tcpdump")
        watch = in_the_clear(scene)
        scene.left.ping(RIGHT)
        scene.right.ping(LEFT)
        scene.left.ping(RIGHT, "-s", 4000)
        scene.left.ping(RIGHT6)
        scene.right.ping(LEFT6)
        check(watch.poll() is None, f"the provider saw {watch.stdout}")
        scene.lab.stop(watch)
    with tap.case("iperf3 both ways"):
        scene.left.tcp(scene.right, RIGHT)
        scene.left.tcp(scene.right, RIGHT, "-R")
        scene.left.tcp(scene.right, RIGHT6)
    with tap.case("charon sees packets and bytes"):
        child, text = scene.charons["left"].child()
        check(child["in"][2] > 20 and child["out"][2] > 20, text)
        counted = {each["direction"]: each for each in sas(left)}
        for way in ("in", "out"):
            equal(child[way][0], counted[way]["spi"], f"SPI {way}")
            check(child[way][1] <= counted[way]["bytes"], f"{way}: {text}")


def guide(tap, scene):
    with tap.case("the connection of the guide, and its like for the peer, come up"):
        with open(os.path.join(ROOT, "docs/guide.md"), encoding="utf-8") as file:
            text = file.read().split("/etc/swanctl/conf.d/branch.conf`:", 1)[1].split("```")[1]
        for side, charon in scene.charons.items():
            ends = (side, OTHER[side])
            mine = text
            for here, there in (("203.0.113.2", "198.51.100.2"), ("192.168.1.0", "192.168.2.0")):
                check(here in mine and there in mine, f"{here} and {there} are in the guide")
                mine = mine.replace(here, f"<{here}>").replace(there, f"<{there}>")
            for before, after in zip(("203.0.113.2", "198.51.100.2", "192.168.1.0/24",
                                      "192.168.2.0/24"),
                                     (OUTSIDE[ends[0]], OUTSIDE[ends[1]], NETS[ends[0]],
                                      NETS[ends[1]])):
                mine = mine.replace(f"<{before.split('/')[0]}>{before[len(before.split('/')[0]):]}",
                                    after)
            with open(charon.swanctl_conf, "w", encoding="utf-8") as file:
                file.write(mine)
            charon.swanctl("--load-all", "--noprompt", "--clear", "--file", charon.swanctl_conf)
        scene.charons["left"].swanctl("--initiate", "--child", "net")
        for router in scene.routers.values():
            equal(sorted(each["direction"] for each in sas(router)), ["in", "out"], "directions")
        scene.left.ping(RIGHT)
        scene.right.ping(LEFT)
    scene.charons["left"].swanctl("--terminate", "--ike", "branch")
    scene.load()
    scene.quiet()


def rekeying(tap, scene):
    left = scene.routers["left"]
    for side in ("left", "right"):
        with tap.case(f"{side} rekeys under traffic: no packet is lost"):
            for router in scene.routers.values():
                router.call("stats.clear")
            before = spis(left)
            pings = scene.left.start("ping", "-n", "-i", "0.01", "-c", 400, "-W", 3, "-q", RIGHT,
                                     stdout=subprocess.PIPE)
            for _ in range(4):
                time.sleep(0.5)
                scene.charons[side].swanctl("--rekey", "--child", "net")
            output = pings.communicate(timeout=60)[0]
            for router in scene.routers.values():
                router.no_drops()
            # ping does not wait for the last answers as long as for others.
            received = int(re.search(r"(\d+) received", output).group(1))
            check(received >= 398, output)
            # Five seconds later charon takes away the old ones for packets that come in.
            until(lambda: len(sas(left)) == 2, "the old associations are gone")
            check(not set(before.values()) & set(spis(left).values()), "the SPIs are other ones")
    with tap.case("UDP under rekeying: the routers lose nothing"):
        for router in scene.routers.values():
            router.call("stats.clear")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            traffic = pool.submit(scene.left.udp, scene.right, RIGHT, "-l", 1200, rate="4M",
                                  seconds=4)
            for _ in range(4):
                time.sleep(0.8)
                scene.charons["left"].swanctl("--rekey", "--child", "net")
            sent, lost = traffic.result()
        check(sent > 1000 and lost <= scene.right.socket_drops(), f"{lost} of {sent} are lost")
        for router in scene.routers.values():
            router.no_drops()


def limits(tap, scene):
    for what, more in (
            ("time", "rekey_time = 3s\n life_time = 20s\n rand_time = 0s"),
            ("packets", "rekey_packets = 60\n life_packets = 500000\n rand_packets = 0"),
            ("bytes", "rekey_bytes = 6000\n life_bytes = 50000000\n rand_bytes = 0")):
        with tap.case(f"a soft limit of {what} makes charon rekey"):
            # Only one end: when both rekey at once, one of the two successors is one too many.
            scene.load()
            scene.charons["left"].load(more=more)
            scene.up()
            router = scene.routers["left"]
            before = spis(router)
            deadline = time.monotonic() + 20
            while before["out"] == spis(router)["out"]:
                check(time.monotonic() < deadline, f"still {spis(router)}")
                scene.left.ping(RIGHT, count=10)
            scene.down()
    with tap.case("both ends rekey at the same time: still no packet is lost"):
        scene.load(more="rekey_time = 2s\n life_time = 20s\n rand_time = 0s")
        scene.up()
        for router in scene.routers.values():
            router.call("stats.clear")
        scene.left.ping(RIGHT, "-i", "0.01", count=800)
        for router in scene.routers.values():
            router.no_drops()
        scene.down()
    with tap.case("charon knows from the policies that packets come in: no dead peer detection"):
        scene.load()
        scene.up()
        logs = {charon: len(charon.log()) for charon in scene.charons.values()}

        def asked():
            return any("sending DPD" in charon.log()[length:] for charon, length in logs.items())
        scene.left.ping(RIGHT, "-i", "0.1", count=60)
        check(not asked(), "one has asked the other")
        until(asked, "without traffic one asks the other")
        scene.down()
    with tap.case("a hard limit of time ends the association"):
        scene.load(more="rekey_time = 0s\n life_time = 2s")
        scene.up()
        router = scene.routers["left"]
        before = set(spis(router).values())
        equal(len(before), 2, "associations")
        # charon makes others in their place.
        until(lambda: not before & {each["spi"] for each in sas(router)}, "they have ended")
        # Whose limit comes first tells the other end by IKE.
        until(lambda: any("hard limit" in each.log() for each in scene.routers.values()), "a router says so")
        scene.load()
        scene.quiet()


def acquiring(tap, scene):
    with tap.case("a packet that wants protection brings the tunnel up"):
        router, charon = scene.routers["left"], scene.charons["left"]
        router.call("stats.clear")
        scene.load()
        charon.load(more="start_action = trap")
        until(lambda: policies(router), "the trap's policies are there")
        scene.left.run("ping", "-n", "-c", 20, "-i", "0.5", RIGHT)
        equal(len(sas(router)), 2, "associations")
        check(router.drops().get("ipsec_out.no_sa", 0) > 0, "the first packets had none")
        asked = [line for line in charon.log().splitlines() if "creating acquire job for policy" in line]
        check(asked and f"{LEFT}/32" in asked[-1] and f"{RIGHT}/32" in asked[-1],
              f"charon was asked for what the packet wants: {asked}")
        scene.left.ping(RIGHT)
    scene.load()
    scene.quiet()


def algorithms(tap, scene):
    for esp, cipher, auth, esn in (
            ("aes128gcm16-esn", "aes-gcm-128", None, True),
            ("chacha20poly1305", "chacha20-poly1305", None, False),
            ("aes256-sha256", "aes-cbc-256", "hmac-sha256-128", False),
            ("aes128ctr-sha1-esn", "aes-ctr-128", "hmac-sha1-96", True),
            ("aes256gmac", "aes-gmac-256", None, False),
            ("3des-sha1,aes256-sha512", "aes-cbc-256", "hmac-sha512-256", False)):
        with tap.case(f"{esp}"):
            if esp.startswith("3des"):
                scene.load(esp=esp.split(",")[0])
                scene.charons["left"].swanctl("--initiate", "--child", "net", "--timeout", "8",
                                              status=None)
                equal(sas(scene.routers["left"]), [], "an algorithm that the router does not have")
                scene.charons["left"].swanctl("--terminate", "--ike", "peer", status=None)
                esp = esp.split(",")[1]
            scene.load(esp=esp)
            scene.up()
            for router in scene.routers.values():
                for each in sas(router):
                    equal((each["algorithm"], each.get("authentication"), each["esn"]),
                          (cipher, auth, esn), "association")
            scene.left.ping(RIGHT)
            scene.right.ping(LEFT, "-s", 4000)
            scene.down()
    with tap.case("IPv6 between the routers"):
        scene.load(outside=OUTSIDE6)
        scene.up()
        equal({each["source"] for each in sas(scene.routers["left"])}, set(OUTSIDE6.values()),
              "ends")
        scene.left.ping(RIGHT)
        scene.right.ping(LEFT6, "-s", 4000)
        scene.left.tcp(scene.right, RIGHT6)
        scene.down()
    with tap.case("ESP in UDP"):
        scene.load(encap="yes")
        scene.up()
        for each in sas(scene.routers["left"]):
            equal((each["udp_source_port"], each["udp_destination_port"]), (4500, 4500), "ports")
        scene.left.ping(RIGHT)
        scene.left.tcp(scene.right, RIGHT)
        scene.down()


def by_routes(tap, scene):
    """Tunnel interfaces: the associations are for everything, and routes say what goes through."""
    everything = [dict.fromkeys(("left", "right"), any_of) for any_of in ("0.0.0.0/0", "::/0")]
    nets = {"left": ("198.51.100.0/24", "2001:db8:1::/64"),
            "right": ("10.20.0.0/24", "2001:db8:20::/64")}

    def configure(side):
        document = config(scene.lab, side)
        document["interfaces"]["vpn"] = {
            "if_id": 7, "addresses": [f"10.255.0.{1 + (side == 'right')}/30"]}
        document["routes"] += [{"prefix": prefix, "interface": "vpn"}
                               for prefix in nets[OTHER[side]]]
        scene.routers[side].call("config.apply", {"config": document})

    def counted(side, key):
        return next(each for each in scene.routers[side].call("interface.list")
                    if each["name"] == "vpn")["counters"][key]

    with tap.case("if_id: routes into a tunnel interface, both families, nothing in the clear"):
        for side in scene.routers:
            configure(side)
        watch = in_the_clear(scene)
        scene.left.ping(RIGHT, status=1)  # no policy yet: it stays inside
        scene.load(nets=everything, more="if_id_in = 7\n if_id_out = 7")
        scene.up()
        for router in scene.routers.values():
            equal({(each["if_id"], each["interface"]) for each in [*sas(router), *policies(router)]},
                  {(7, "vpn")}, "interfaces of associations and policies")
        scene.left.ping(RIGHT)
        scene.right.ping(LEFT, "-s", 4000)
        scene.left.ping(RIGHT6)
        scene.left.ping("10.255.0.2")
        equal(watch.poll(), None, "tcpdump that waits for a packet in the clear")
        check(counted("left", "tx_packets") == counted("right", "rx_packets") >= 12, "counters")
    with tap.case("if_id: IKE and what is not routed into the tunnel go beside it"):
        scene.routers["left"].space.run("ping", "-n", "-c", 3, "-i", "0.05", PROVIDER["left"])
        scene.left.tcp(scene.right, RIGHT)
    with tap.case("if_id: rekeying loses no packet"):
        pings = scene.left.start("ping", "-n", "-q", "-i", "0.01", "-c", 250, "-W", 3, RIGHT,
                                 stdout=subprocess.PIPE)
        for _ in range(3):
            scene.charons["left"].swanctl("--rekey", "--child", "net")
            time.sleep(1)
        output = pings.communicate(timeout=20)[0]
        check(" 0% packet loss" in output, output)
        scene.down()
    for side, router in scene.routers.items():
        router.call("config.apply", {"config": config(scene.lab, side)})


def fragments_made(space):
    """By Linux, of IPv4."""
    lines = [line.split() for line in space.run("cat", "/proc/net/snmp").stdout.splitlines()
             if line.startswith("Ip:")]
    return int(dict(zip(*lines))["FragCreates"])


def narrow(tap, scene):
    """A link of 1400 bytes between the routers, which only the provider knows of: 1346 remain."""
    left, right = scene.routers["left"], scene.routers["right"]
    scene.provider.ip("link set eth1 mtu 1400")
    with tap.case("a narrow link on the way: the router learns from ICMP, and tells its hosts"):
        scene.load()
        scene.up()

        def told():
            scene.left.run("ping", "-n", "-c", 1, "-W", 1, "-M", "do", "-s", 1400, RIGHT,
                           status=None)
            return learnt_mtu(scene.left, RIGHT) == 1346
        until(told, "the host knows")
        equal([each.get("path_mtu") for each in sas(left, "out")], [1400], "path MTU")
        check("path MTU of SPI" in left.ctl("show", "ipsec").stdout, "routerctl shows it")
        scene.left.ping(RIGHT, "-M", "do", "-s", 1346 - 28)
        scene.left.ping(RIGHT, "-s", 4000)
        # The first one is answered with the right size.
        until(lambda: scene.left.run("ping", "-n", "-c", 1, "-W", 1, "-s", 4000, RIGHT6,
                                     status=None).returncode == 0, "IPv6 as well")
        scene.left.tcp(scene.right, RIGHT)
        scene.left.tcp(scene.right, RIGHT6)
        equal(right.drops().get("ipsec_in.fragment_timeout", 0), 0, "fragments without others")
    with tap.case("rekeyed, it still knows"):
        before = spis(left)
        scene.charons["left"].swanctl("--rekey", "--child", "net")
        until(lambda: before["out"] not in [each["spi"] for each in sas(left, "out")],
              "the old association is gone")
        equal([each.get("path_mtu") for each in sas(left, "out")], [1400], "path MTU")
        scene.down()
    for encap in ("no", "yes"):
        with tap.case("ESP without DF comes in fragments: the other router puts it together"
                      + (", in UDP" if encap == "yes" else "")):
            scene.load(encap=encap, more="copy_df = no")
            scene.up()
            scene.left.run("ip", "route", "flush", "cache")
            before = fragments_made(scene.provider)
            for router in scene.routers.values():
                router.call("stats.clear")
            scene.left.ping(RIGHT, "-M", "do", "-s", 1400, count=20)
            scene.left.tcp(scene.right, RIGHT)
            check(fragments_made(scene.provider) > before + 40, "there were fragments")
            # A fragment may get lost in a queue of a busy machine, but not most of them.
            drops = {reason: count for reason, count in right.drops().items() if reason.startswith("ipsec_in.")}
            check(drops.pop("ipsec_in.fragment_timeout", 0) < 10, "fragments without others")
            equal(drops, {}, "drops")
            scene.down()
    scene.provider.ip("link set eth1 mtu 1500")


def moving(tap, scene):
    router = scene.routers["left"]
    with tap.case("the left router's address changes: the associations move, and go on"):
        addresses = [OUTSIDE["left"], LEFT_MOVED]
        for each in scene.routers.values():  # or charon may move to IPv6
            each.space.ip("-6 route del default")
        router.call("config.apply", {"config": config(scene.lab, "left", addresses)})
        scene.load(mobike="yes", nets=[NETS])
        scene.up()
        scene.left.ping(RIGHT, count=10)
        before = {each["spi"]: each for each in sas(router)}
        router.call("config.apply", {"config": config(scene.lab, "left", addresses[1:])})
        router.space.ip("route replace default dev twin")
        until(lambda: all(LEFT_MOVED in (each["source"], each["destination"])
                          for side in scene.routers.values() for each in sas(side)),
              "all have the new address", 20)
        for each in sas(router):
            equal(each["sequence"], before[each["spi"]]["sequence"], "numbers go on")
        scene.left.ping(RIGHT)
        scene.right.ping(LEFT)
        child, text = scene.charons["left"].child()
        check(child["in"][2] >= 16 and child["out"][2] >= 16, f"counters go on: {text}")
        scene.down()
    for charon in scene.charons.values():
        charon.swanctl("--terminate", "--ike", "peer", status=None)
    router.call("config.apply", {"config": config(scene.lab, "left")})
    router.space.ip("route replace default dev twin")
    for each in scene.routers.values():
        each.space.ip("-6 route replace default dev twin")
    until(lambda: router.space.reaches(OUTSIDE["right"]), "the old address is back")


class Nat:
    """The provider changes the left router's ports for IKE, in both directions."""

    def __init__(self, scene):
        self.provider = scene.provider
        self.process = self.provider.start(
            sys.executable, os.path.join(os.path.dirname(__file__), "udp_nat.py"),
            OUTSIDE["left"], "nat", stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())
        self.provider.ip("link set nat up")
        for name in ("all", "nat"):
            self.provider.sysctl(f"net/ipv4/conf/{name}/rp_filter", 0)
        self.provider.ip("route add default dev nat table 100")
        self.provider.ip(f"rule add iif eth0 to {OUTSIDE['right']} table 100")
        self.provider.ip(f"rule add iif eth1 to {OUTSIDE['left']} table 100")

    def change(self):
        self.process.send_signal(signal.SIGUSR1)
        self.port = int(self.process.stdout.readline())

    def end(self):
        self.provider.ip(f"rule del iif eth0 to {OUTSIDE['right']} table 100")
        self.provider.ip(f"rule del iif eth1 to {OUTSIDE['left']} table 100")
        self.provider.lab.stop(self.process)


def behind_nat(tap, scene):
    right = scene.routers["right"]
    nat = Nat(scene)

    def peer_port():
        return {each["udp_source_port" if each["direction"] == "in" else "udp_destination_port"]
                for each in sas(right)}
    with tap.case("a router behind a NAT: ESP goes in UDP, to the NAT's port"):
        scene.load(nets=[NETS])
        for charon in scene.charons.values():  # or IKE would notice first
            charon.load(nets=[NETS], dpd="60s")
        scene.up()
        equal(peer_port(), {nat.port}, "ports")
        scene.left.ping(RIGHT)
        scene.right.ping(LEFT)
    with tap.case("the NAT takes another port: what comes in tells charon, and the other way follows"):
        for _ in range(2):
            nat.change()
            right.call("stats.clear")
            scene.left.run("ping", "-n", "-c", 20, "-i", "0.2", "-W", "1", RIGHT)
            until(lambda: peer_port() == {nat.port}, "the associations have the new port")
            scene.left.ping(RIGHT)
            scene.right.ping(LEFT)
            equal(right.drops().get("ipsec_in.wrong_source", 0), 0, "packets from the new port")
            time.sleep(5)  # charon is not told of more than one change in so long
    scene.down()
    nat.end()


def nonsense(tap, scene):
    router, path = scene.routers["left"], xfrm_path(scene.lab, "left")

    def talk(*packets):
        """Sends each; returns the errors that come back."""
        errors = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(5)
            client.connect(path)
            for packet in packets:
                client.send(packet)
            client.send(message(2, 0x23))  # XFRM_MSG_GETSADINFO ends it
            while True:
                answer = client.recv(65536)
                kind, = struct.unpack_from("<4xH", answer)
                if kind != 2:
                    return errors
                errors.append(os.strerror(-struct.unpack_from("<16xi", answer)[0]))

    def message(sequence, kind, body=b"", length=None, flags=1):
        return struct.pack("<IHHII", 16 + len(body) if length is None else length, kind, flags,
                           sequence, 0) + body

    with tap.case("the socket is root's alone"):
        equal(oct(os.stat(path).st_mode & 0o777), "0o600", "mode")
    with tap.case("what is no message is not answered, what is no request either"):
        equal(talk(b"x", bytes(3), bytes(100), message(1, 0x10, bytes(300), length=5000),
                   message(1, 0x10, bytes(300), flags=0), message(1, 1)), [], "answers")
    with tap.case("short, unknown and too long requests are refused"):
        equal(talk(*(message(1, kind) for kind in (0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16))),
              ["Invalid argument"] * 7, "answers")
        equal(talk(message(1, 0x21), message(1, 999), message(1, 0x10, bytes(60000))),
              ["Operation not supported"] * 2 + ["Message too long"], "answers")
    with tap.case("noise is refused, and the router goes on"):
        noise = random.Random(1)
        for _ in range(100):
            talk(*(message(n, noise.randrange(0x10, 0x28), noise.randbytes(noise.randrange(600)))
                   for n in range(20)))
        router.alive()
        talk(message(1, 0x1c, bytes(1)), message(1, 0x1d))  # both databases are flushed
    with tap.case("a client that asks and does not read loses its connection, nobody else"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(path)
            client.settimeout(5)
            try:
                for _ in range(100000):
                    client.send(message(1, 0x23) * 50)
            except (BrokenPipeError, ConnectionResetError):
                pass
            else:
                raise AssertionError("it may go on for ever")
        check("kernel-netlink" in scene.charons["left"].swanctl("--stats"), "charon is there")


def ends(tap, scene):
    charon, router = scene.charons["left"], scene.routers["left"]
    with tap.case("charon dies: the tunnel goes on"):
        scene.load()
        scene.up()
        charon.process.send_signal(signal.SIGKILL)
        charon.process.wait()
        time.sleep(0.2)
        equal(len(sas(router)), 2, "associations")
        scene.left.ping(RIGHT)
    with tap.case("the next charon takes over the policies, and keys anew"):
        stale = {each["spi"] for each in sas(router)}
        charon.start()
        charon.load()
        scene.up()
        equal(len(policies(router)), 4, "policies")
        equal(len({each["spi"] for each in sas(router)} - stale), 2, "new associations")
        scene.left.ping(RIGHT)
        scene.right.ping(LEFT)
    with tap.case("Linux's ip, with the library, shows and flushes what the dead one has left"):
        charon.swanctl("--terminate", "--ike", "peer")
        until(lambda: {each["spi"] for each in sas(router)} == stale and not policies(router),
              "only its associations are left")
        shown = router.space.run("ip", "xfrm", "state", env=charon.environment).stdout
        equal({int(spi, 16) for spi in re.findall(r"spi (0x\w+)", shown)}, stale, "SPIs")
        router.space.run("ip", "xfrm", "state", "flush", env=charon.environment)
        equal(sas(router), [], "associations")
    with tap.case("without the section's `ike` the socket is gone"):
        document = config(scene.lab, "left")
        del document["ipsec"]["ike"]
        router.call("config.apply", {"config": document})
        check(not os.path.exists(xfrm_path(scene.lab, "left")), "the socket is still there")
        router.alive()
    with tap.case("with it again charon goes on"):
        router.call("config.apply", {"config": config(scene.lab, "left")})
        charon.swanctl("--terminate", "--ike", "peer", status=None)
        scene.up()
        scene.left.ping(RIGHT)


def main():
    global LIBRARY
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} DPDK-ROUTER ROUTERCTL LIBDPDK-ROUTER-XFRM")
    Lab.program, Lab.ctl, LIBRARY = map(os.path.abspath, sys.argv[1:])
    tap = Tap("IKE")
    if not os.path.exists(CHARON):
        tap.skip_all("IKE: charon-systemd is not installed")
    try:
        need("swanctl", "ip")
    except Skip as skip:
        tap.skip_all(str(skip))
    with tap.lab() as lab:
        scene = Scene(lab)
        for theme in (establishing, rekeying, lambda t, s: s.down(), guide, limits, acquiring,
                      algorithms, narrow, by_routes, moving, behind_nat, nonsense, ends):
            theme(tap, scene)
    tap.end()


if __name__ == "__main__":
    main()
