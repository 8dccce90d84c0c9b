"""The router against Linux's ESP: the kernel of a virtual machine, keyed by a charon in it.

    host left -- net_tap [router, charon] net_vhost -- virtual machine with charon
"""
import os
import re

import guest
from sites import (LEFT, LEFT6, OUTSIDE, OUTSIDE6, PLUGINS, RIGHT, RIGHT6, TRIES, Scene, begin, check,
                   child_in, counting, ending, equal, establishing, rekeying, sas, traffic, unpacked,
                   until, vanishing)
from ike import connection, settings_text

MODULES = ["virtio_pci", "virtio_net", "dummy", "xfrm_user", "esp4", "esp6", "authenc", "authencesn",
           "echainiv", "seqiv", "sha512_generic", "jitterentropy_rng", "drbg", "ctr", "gcm", "ghash_generic",
           "sha256_ssse3", "chacha20poly1305", "chacha_x86_64", "poly1305_x86_64"]
VICI, LOG, CONF = "/run/vici", "/tmp/charon.log", "/etc/strongswan.conf"


class GuestCharon:
    """ike.Charon in the guest."""

    def __init__(self, machine):
        self.machine = machine
        machine.background("charon-systemd")
        until(lambda: machine.run("test", "-S", VICI, status=None).returncode == 0, "charon is there",
              30)

    def log(self):
        return self.machine.run("cat", LOG).stdout

    def swanctl(self, *words, status=0):
        done = self.machine.run("swanctl", *words, "--uri", f"unix://{VICI}", status=None)
        check(status is None or done.returncode == status,
              f"guest: swanctl {' '.join(words)}: exit status {done.returncode}\n{done.stdout}\n"
              f"the end of charon's log:\n{self.log()[-3000:]}")
        return done.stdout

    def load(self, outside, nets, **options):
        self.machine.write("/tmp/swanctl.conf", connection("right", outside, nets, **options))
        self.swanctl("--load-creds", "--clear", "--file", "/tmp/swanctl.conf")
        self.swanctl("--load-conns", "--file", "/tmp/swanctl.conf")

    def child(self):
        return child_in(text := self.swanctl("--list-sas")), text


def machine_of(lab, kernel, vhost):
    """A guest with its addresses and servers."""
    unpacked("kernel", kernel)
    directory = lab.path("guest")
    os.mkdir(directory)
    settings = settings_text(VICI, LOG, f"load = {' '.join(PLUGINS)}", routes="no", tries=TRIES,
                             plugins="") + "swanctl { load = random openssl }\n"
    image = guest.initramfs(kernel, directory, MODULES, PLUGINS, {CONF: settings})
    machine = guest.Guest(lab, "guest", kernel, image, vhost)
    machine.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; "
                            "echo 0 > /proc/sys/net/ipv6/conf/dummy0/accept_dad")
    for device, *addresses in (("eth0", f"{OUTSIDE['right']}/24", f"{OUTSIDE6['right']}/64"),
                               ("dummy0", f"{RIGHT}/24", f"{RIGHT6}/64")):
        machine.ip(f"link set {device} up")
        for address in addresses:
            machine.ip(f"addr add {address} dev {device}")
    machine.ip(f"route add default via {OUTSIDE['left']} src {RIGHT}")
    machine.ip(f"-6 route add default via {OUTSIDE6['left']} src {RIGHT6}")
    machine.run("iperf3", "-s", "-D")
    return machine


def fragments(tap, scene):
    """The router fragments what is too long before it encrypts it; Linux encrypts it whole, and
    fragments the ESP packet."""
    router = scene.router
    with tap.case("datagrams of 4000 bytes to Linux: it takes the pieces"):
        router.call("stats.clear")
        sent, lost = scene.udp("-l", 4000, seconds=2)
        router.no_drops()
        # Of a datagram in pieces, a guest that is kept waiting may miss one.
        check(sent > 50 and lost <= sent // 20, f"{lost} of {sent} are lost")
        refused = scene.peer.run("cat", "/proc/net/xfrm_stat").stdout
        refused = re.findall(r"^(XfrmIn(?:Error|HdrError|State\w+))\s+([1-9]\d*)", refused, re.M)
        equal(refused, [], "what Linux has refused")
    with tap.case("fragments of ESP from Linux: the router puts them together"):
        router.call("stats.clear")
        scene.peer.ping(LEFT, "-M", "dont", "-s", 1472, "-I", RIGHT)
        scene.peer.ping(LEFT, "-M", "dont", "-s", 4000, "-I", RIGHT)
        router.no_drops()


def algorithms(tap, scene):
    for esp, cipher, auth, esn in (
            ("aes256-sha256-modp2048", "aes-cbc-256", "hmac-sha256-128", False),
            ("chacha20poly1305-modp2048", "chacha20-poly1305", None, False),
            ("aes256gcm16-modp2048-esn", "aes-gcm-256", None, True),
            ("aes128-sha256-modp2048-esn", "aes-cbc-128", "hmac-sha256-128", True)):
        with tap.case(esp):
            scene.quiet()
            scene.load(esp=esp)
            scene.up()
            for each in sas(scene.router):
                equal((each["algorithm"], each.get("authentication"), each["esn"]),
                      (cipher, auth, esn), "association")
            equal("esn" in scene.peer.ip("xfrm state"), esn, "ESN in Linux")
            scene.left.ping(RIGHT)
            for size in range(1390, 1406):  # all remainders of a block
                scene.left.ping(RIGHT, "-s", size, count=1)
            scene.peer.ping(LEFT6, "-I", RIGHT6, "-s", 1300)
            scene.tcp(RIGHT)
            scene.tcp(RIGHT, "-R")


def transport(tap, scene):
    with tap.case("transport mode between the router's host and Linux"):
        scene.quiet()
        scene.load(nets=(), mode="transport")
        scene.up()
        equal({each["mode"] for each in sas(scene.router)}, {"transport"}, "mode")
        scene.router.space.ping(OUTSIDE["right"], "-s", 1000, count=5)
        scene.peer.ping(OUTSIDE["left"], "-s", 1)
        for each in sas(scene.router):
            equal(each["packets"], 8, f"packets {each['direction']}")
    scene.quiet()
    scene.load()


def main():
    tap, library, more = begin("Linux", guest.QEMU, "busybox")
    if len(more) != 1:
        raise SystemExit("one more argument: a directory for the guest's kernel")
    with tap.lab() as lab:
        vhost = lab.path("vhost")
        scene = Scene(lab, f"net_vhost0,iface={vhost}", library, memory=["--no-huge", "-m", "512"])
        scene.udp_rate = "2M"  # QEMU is slow, on a busy machine very much so
        scene.least_tcp = 0.01
        machine = machine_of(lab, more[0], vhost)
        scene.begin(machine, lambda: GuestCharon(machine))
        establishing(tap, scene, "esp", (1, 56, 1400, 1418))
        with tap.case("Linux has the same associations"):
            state = machine.ip("xfrm state")
            for each in sas(scene.router):
                check(f"spi 0x{each['spi']:08x}" in state, f"{each['spi']:08x} in\n{state}")
        for theme in (fragments, traffic, rekeying, counting, ending, algorithms, transport):
            theme(tap, scene)
        scene.up()
        vanishing(tap, scene, machine.freeze, machine.thaw)
    tap.end()


if __name__ == "__main__":
    main()
