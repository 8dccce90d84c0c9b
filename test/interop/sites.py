"""What the interop tests have in common: two networks, joined by an IPsec tunnel between the router,
which charon keys, and a peer with another ESP.

    host left -- [router] == [peer] with an address in a network of its own

A peer is a lab.Host or a guest.Guest, and its charon. The cases here are about any of them.
"""
import concurrent.futures
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from ike import CHARON, Charon, child_in, keys_router, policies, sas, spis
from lab import Lab, Tap, check, equal, need, until

LEFT, RIGHT = "198.51.100.10", "10.20.0.10"
LEFT6, RIGHT6 = "2001:db8:1::10", "2001:db8:20::10"
NETS = {"left": "198.51.100.0/24", "right": "10.20.0.0/24"}
NETS6 = {"left": "2001:db8:1::/64", "right": "2001:db8:20::/64"}
OUTSIDE = {"left": "203.0.113.1", "right": "203.0.113.10"}
OUTSIDE6 = {"left": "2001:db8:a::1", "right": "2001:db8:a::10"}
TRIES = 3  # until charon believes that the other is gone
# What charon needs here. Of two plugins for the same work it takes the first.
PLUGINS = ["random", "nonce", "openssl", "kdf", "kernel-netlink", "socket-default", "vici"]


class Scene:
    """The router, left and the router's charon. `peer` and `peer_charon` come to it."""

    def __init__(self, lab, wan, library, memory=None):
        self.lab = lab
        self.xfrm = lab.path("xfrm")
        self.router = lab.router({
            "interfaces": {
                "lan": {"device": "net_tap0,iface=lan",
                        "addresses": ["198.51.100.1/24", "2001:db8:1::1/64"]},
                "wan": {"device": wan, "host_twin": "twin",
                        "addresses": [f"{OUTSIDE['left']}/24", f"{OUTSIDE6['left']}/64"]},
            },
            "routes": [{"prefix": "0.0.0.0/0", "via": OUTSIDE["right"]},
                       {"prefix": "::/0", "via": OUTSIDE6["right"]}],
            "ipsec": {"ike": {"socket": self.xfrm}},
        }, lcores=["--lcores", "0@0"], memory=memory)
        self.left = lab.host("left").plug(self.router, "lan", f"{LEFT}/24", f"{LEFT6}/64",
                                          gateway="198.51.100.1", gateway6="2001:db8:1::1")
        self.library = library
        self.charon = self.peer = self.peer_charon = None
        self.udp_rate = "5M"
        self.least_tcp = 1  # Mbit/s

    def connect(self, peer):
        """The peer is there: waits until the router reaches it."""
        self.peer = peer
        self.router.settled()
        self.router.space.ip("route add default dev twin")
        self.router.space.ip("-6 route add default dev twin")
        for address in OUTSIDE["right"], OUTSIDE6["right"]:
            until(lambda a=address: self.router.space.reaches(a), f"the router reaches {address}",
                  30)

    def begin(self, peer, start_peer_charon):
        """connect(), and both charons."""
        self.connect(peer)
        self.charon = Charon(self.router.space, "left", keys_router(self.library, self.xfrm),
                             {"tries": TRIES})
        self.peer_charon = start_peer_charon()

    def load(self, nets=(NETS, NETS6), **options):
        for charon in (self.charon, self.peer_charon):
            charon.load(OUTSIDE, nets, **options)

    def up(self, side="left"):
        charon, other = self.charon, self.peer_charon
        if side == "right":
            charon, other = other, charon
        try:
            charon.swanctl("--initiate", "--child", "net", "--timeout", "30")
        except AssertionError as error:
            raise AssertionError(f"{error}\nand of the other's log:\n{other.log()[-3000:]}") from None
        until(lambda: len(sas(self.router)) == 2, "the router has both associations")

    def quiet(self):
        """No tunnel, whatever there was."""
        def nothing():
            for charon in (self.charon, self.peer_charon):
                charon.swanctl("--terminate", "--ike", "peer", "--force", "--timeout", "2", status=None)
            return self.nothing_is_left()
        until(nothing, "nothing is left on either side", 30)

    def nothing_is_left(self):
        return not sas(self.router) and not policies(self.router) and \
            not child_in(self.charon.swanctl("--list-sas")) and \
            not child_in(self.peer_charon.swanctl("--list-sas"))

    def down(self, side="left"):
        charon = self.charon if side == "left" else self.peer_charon
        charon.swanctl("--terminate", "--ike", "peer")
        until(self.nothing_is_left, "nothing is left on either side")

    def when_ready(self, transfer, *arguments, **options):
        """The peer's iperf3 may still be busy with the end of the last transfer."""
        for _ in range(10):
            try:
                return transfer(None, *arguments, **options)
            except AssertionError as error:
                if not re.search("server is busy|control message|refused", str(error)):
                    raise
                time.sleep(0.5)
        return transfer(None, *arguments, **options)

    def tcp(self, address, *options, **more):
        """To the peer, or with -R from it. Returns Mbit/s."""
        return self.when_ready(self.left.tcp, address, *options, least=self.least_tcp, **more)

    def udp(self, *options, **more):
        """Datagrams to the peer, or with -R from it. Returns (sent, lost), less what Linux lost
        because a program did not take it in time: that is the machine's doing."""
        before = self.late()
        sent, lost = self.when_ready(self.left.udp, RIGHT, "-l", 1200, *options, rate=self.udp_rate,
                                     **more)
        return sent, max(0, lost - (self.late() - before))

    def late(self):
        """Datagrams that found no room in a socket, or in a TAP or TUN device."""
        devices = self.left.kernel_drops("eth0")
        if hasattr(self.peer, "kernel_drops"):
            devices += self.peer.kernel_drops("eth0") + self.peer.kernel_drops("ipsec0")
        return devices + self.peer.socket_drops() + self.left.socket_drops()


def establishing(tap, scene, mode, sizes):
    """`mode`: "esp" or "udp", what goes over the wire; `sizes` of ping's data both ways."""
    with tap.case("the router's charon brings the tunnel up"):
        scene.load()
        scene.up()
        equal(sorted(each["direction"] for each in sas(scene.router)), ["in", "out"], "directions")
        for each in sas(scene.router):
            equal((each["algorithm"], each["owner"], each["mode"], "udp_source_port" in each),
                  ("aes-gcm-256", "ike", "tunnel", mode == "udp"), "association")
        child, text = scene.peer_charon.child()
        equal({way: each[0] for way, each in child.items()},
              {"in": spis(scene.router)["out"], "out": spis(scene.router)["in"]}, f"SPIs\n{text}")
    with tap.case("ping both ways, in both families, and of all sizes"):
        for size in sizes:
            scene.left.ping(RIGHT, "-M", "dont", "-s", size)
        scene.left.ping(RIGHT6)
        scene.peer.ping(LEFT, "-I", RIGHT)
        scene.peer.ping(LEFT6, "-I", RIGHT6, "-s", 1300)
        equal(len(sas(scene.router)), 2, "associations")
        for each in sas(scene.router):
            check(each["packets"] >= 3 * len(sizes) + 9, f"{each['direction']}: only {each['packets']} protected")


    if tap.failed:
        tap.end()  # nothing below would say more


def traffic(tap, scene):
    for options, what in (((), "left to right"), (("-R",), "right to left")):
        with tap.case(f"TCP from {what}"):
            scene.router.call("stats.clear")
            rate = scene.tcp(RIGHT, *options, seconds=2)
            print(f"# {rate:.0f} Mbit/s")
            scene.router.no_drops("local.too_big")  # how path MTU discovery begins
        with tap.case(f"UDP from {what}: nothing is lost"):
            scene.router.call("stats.clear")
            sent, lost = scene.udp(*options, seconds=2)
            print(f"# {lost} of {sent}")
            scene.router.no_drops()
            check(sent > 300 and lost == 0, f"{lost} of {sent} are lost")
    with tap.case("TCP over IPv6"):
        scene.tcp(RIGHT6)
        scene.tcp(RIGHT6, "-R")


def ike_number(charon):
    """Of the one IKE_SA: each has another one."""
    text = charon.swanctl("--list-sas")
    found = re.findall(r"^peer: #(\d+), ESTABLISHED", text, re.M)
    equal(len(found), 1, f"IKE_SAs\n{text}")
    return int(found[0])


def rekeying(tap, scene):
    router = scene.router
    for options, direction in (((), "left to right"), (("-R",), "right to left")):
        with tap.case(f"both ends rekey CHILD_SA and IKE_SA, UDP from {direction}: nothing is lost"):
            router.call("stats.clear")
            first, first_ike = spis(router), ike_number(scene.charon)
            started = time.monotonic()
            scene.peer_charon.swanctl("--stats")
            # A slow machine needs longer.
            seconds = min(40, 6 + int(12 * (time.monotonic() - started)))
            with concurrent.futures.ThreadPoolExecutor() as pool:
                running = pool.submit(scene.udp, *options, seconds=seconds)
                time.sleep(0.5)
                for what in ("--child", "net"), ("--ike", "peer"):
                    for charon in (scene.charon, scene.peer_charon):
                        before = spis(router)["out"]
                        charon.swanctl("--rekey", *what)
                        until(lambda b=before, w=what: w[0] == "--ike" or spis(router)["out"] != b,
                              "the router has another association")
                        time.sleep(0.5)
                check(not running.done(), "the traffic has ended before")
                sent, lost = running.result()
            print(f"# {lost} of {sent}")
            router.no_drops()
            check(sent > 1000 and lost == 0, f"{lost} of {sent} are lost")
            # Five seconds later charon takes away the old ones for packets that come in.
            until(lambda: len(sas(router)) == 2, "the old associations are gone")
            check(not set(first.values()) & set(spis(router).values()), "the SPIs are other ones")
            until(lambda: "REKEY" not in scene.charon.swanctl("--list-sas"), "all is settled")
            equal(ike_number(scene.charon), first_ike + 2, "number of the IKE_SA")
            scene.left.ping(RIGHT)


def counting(tap, scene):
    with tap.case("both ends count the same packets, and so do swanctl and routerctl"):
        scene.down()
        scene.up()
        scene.left.ping(RIGHT, count=20)
        scene.peer.ping(LEFT, "-I", RIGHT, count=5)
        time.sleep(0.5)  # what is still on its way, after a ping that took longer than usual
        ours, text = scene.charon.child()
        theirs, their_text = scene.peer_charon.child()
        shown = scene.router.ctl("show", "ipsec").stdout
        for way, other in (("in", "out"), ("out", "in")):
            packets, octets = ours[way][2], ours[way][1]
            check(packets >= 25, f"packets {way}\n{text}")
            equal((theirs[other][2], theirs[other][1]), (packets, octets),
                  f"packets and bytes {other} of the peer\n{text}{their_text}")
            row = re.search(rf"^{way} +0x{ours[way][0]:08x} .*", shown, re.M)
            check(row and f" {packets} " in row.group(), f"{packets} packets {way}\n{shown}")


def ending(tap, scene):
    for side in ("right", "left"):
        with tap.case(f"{side} takes the tunnel down: nothing is left on either side"):
            scene.down(side)
            scene.up(side)
            scene.left.ping(RIGHT)
    with tap.case("all is flushed in the router: after that a new tunnel"):
        ip = scene.charon.environment
        scene.router.space.run("ip", "xfrm", "state", "flush", env=ip)
        scene.router.space.run("ip", "xfrm", "policy", "flush", env=ip)
        equal((sas(scene.router), policies(scene.router)), ([], []), "what is left")
        scene.down()
        scene.up()
        scene.left.ping(RIGHT)
        scene.peer.ping(LEFT, "-I", RIGHT)


def vanishing(tap, scene, freeze, thaw):
    with tap.case("the peer vanishes: the router's charon notices, and the associations go"):
        equal(len(sas(scene.router)), 2, "associations")
        freeze()
        until(lambda: not sas(scene.router) and not policies(scene.router), "nothing is left", 40)
        check("giving up after" in scene.charon.log(), "by dead peer detection")
    with tap.case("the peer is back: a new tunnel"):
        thaw()
        scene.peer_charon.swanctl("--terminate", "--ike", "peer", "--force", "--timeout", "2",
                                  status=None)
        scene.up()
        scene.left.ping(RIGHT)
        scene.peer.ping(LEFT, "-I", RIGHT)


def unpacked(what, directory):
    """Debian's package in this directory."""
    here = os.path.dirname(os.path.abspath(__file__))
    script = os.path.join(here, "..", "..", "conf", "setup", "unpacked.sh")
    subprocess.run([script, what, directory], check=True, stdout=subprocess.DEVNULL)
    return directory


def begin(theme, *programs):
    """The command line: DPDK-ROUTER ROUTERCTL LIBDPDK-ROUTER-XFRM ... Returns the Tap, the library and
    what follows."""
    if len(sys.argv) < 4:
        sys.exit(f"usage: {sys.argv[0]} DPDK-ROUTER ROUTERCTL LIBDPDK-ROUTER-XFRM ...")
    Lab.program, Lab.ctl, library, *more = map(os.path.abspath, sys.argv[1:])
    tap = Tap(theme)
    need(CHARON, "swanctl", "ip", "iperf3", *programs)
    return tap, library, more
