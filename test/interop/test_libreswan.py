"""libreswan's pluto keys the router, as Linux, and charon's own ESP is the peer (test_libipsec.py).

Debian's libreswan cannot be installed beside strongSwan, so the package is only unpacked.
"""
import concurrent.futures
import os
import re
import signal
import subprocess
import time

from sites import (LEFT, NETS, OUTSIDE, RIGHT, Scene, begin, check, child_in, equal, keys_router,
                   policies, sas, spis, unpacked, until)
from test_libipsec import Peer

CONF = """config setup
conn peer
  left={left}
  leftid=@left.example.org
  leftsubnet={leftsubnet}
  leftupdown=%disabled
  right={right}
  rightid=@right.example.org
  rightsubnet={rightsubnet}
  authby=secret
  ikev2=insist
  ike=aes256-sha2_256;modp2048
  esp=aes_gcm256;modp2048
  dpddelay=2
  retransmit-timeout=4
"""
SECRETS = '@left.example.org @right.example.org : PSK "nobody else knows this"\n'


class Pluto:
    """libreswan's daemon on the router's host."""

    def __init__(self, scene, package):
        self.space = scene.router.space
        self.directory = scene.lab.path("pluto")
        nss = os.path.join(self.directory, "nss")
        os.makedirs(nss)
        self.write("secrets", SECRETS)
        self.conf = self.write("conf", CONF.format(
            left=OUTSIDE["left"], right=OUTSIDE["right"], leftsubnet=NETS["left"],
            rightsubnet=NETS["right"]))
        self.log_file = os.path.join(self.directory, "log")
        self.control = os.path.join(self.directory, "pluto.ctl")
        # It runs programs of its own, which it looks for where they would be installed.
        self.programs = "/usr/libexec/ipsec"
        self.space.run("sh", "-c", f"mount -t tmpfs tmpfs /usr/libexec && mkdir {self.programs} && "
                       f"mount --bind {package}{self.programs} {self.programs}")
        self.space.run("certutil", "-N", "-d", f"sql:{nss}", "--empty-password")
        with open(self.log_file, "w", encoding="utf-8") as log:
            self.process = self.space.start(
                f"{self.programs}/pluto", "--nofork", "--stderrlog", "--config", self.conf,
                "--secretsfile", os.path.join(self.directory, "secrets"), "--nssdir", nss, "--rundir",
                self.directory, stdout=log, stderr=subprocess.STDOUT,
                env=dict(os.environ, **keys_router(scene.library, scene.xfrm)))
        until(lambda: os.path.exists(self.control) or self.process.poll() is not None, "pluto is there")
        self.whack("--listen")
        self.space.run(f"{self.programs}/addconn", "--ctlsocket", self.control, "--config", self.conf,
                       "peer")

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def log(self):
        with open(self.log_file, encoding="utf-8", errors="replace") as file:
            return file.read()

    def whack(self, *words):
        """Its exit status is about the last message, so what has happened is asked elsewhere."""
        done = self.space.run(f"{self.programs}/whack", "--ctlsocket", self.control, *words, status=None)
        check(self.process.poll() is None, f"pluto has ended:\n{self.log()[-3000:]}")
        return done.stdout

    def rekey(self, how, says):
        length = len(self.log())
        self.whack("--name", "peer", how)
        until(lambda: says in self.log()[length:], f"pluto says {says}", 20)

    def octets(self):
        """That it says to have passed: {"in": ..., "out": ...}"""
        text = self.whack("--trafficstatus")
        return {way: int(octets) for way, octets in re.findall(r"(in|out)Bytes=(\d+)", text)}


def up(scene, pluto):
    said = pluto.whack("--name", "peer", "--initiate")
    check("established Child SA" in said, f"{said}\nthe end of pluto's log:\n{pluto.log()[-3000:]}")
    until(lambda: len(sas(scene.router)) == 2, "the router has both associations")


def protected(scene):
    """Policies that protect, by direction."""
    return sorted(each["direction"] for each in policies(scene.router) if each["action"] == "protect")


def rekeying(tap, scene, pluto):
    router = scene.router
    for options, direction in (((), "left to right"), (("-R",), "right to left")):
        with tap.case(f"both ends rekey CHILD_SA and IKE_SA, UDP from {direction}"):
            router.call("stats.clear")
            first = spis(router)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                running = pool.submit(scene.udp, *options, seconds=6)
                time.sleep(0.5)
                pluto.rekey("--rekey-ipsec", "rekeyed Child SA")
                time.sleep(0.5)
                scene.peer_charon.swanctl("--rekey", "--child", "net")
                time.sleep(0.5)
                pluto.rekey("--rekey-ike", "rekeyed IKE SA")
                time.sleep(0.5)
                scene.peer_charon.swanctl("--rekey", "--ike", "peer")
                sent, lost = running.result()
            print(f"# {lost} of {sent}, {router.drops()}")
            # pluto deletes the old association as soon as it has the new one.
            check(sent > 1000 and lost < 20, f"{lost} of {sent} are lost")
            until(lambda: len(sas(router)) == 2, "the old associations are gone")
            check(not set(first.values()) & set(spis(router).values()), "the SPIs are other ones")
            scene.left.ping(RIGHT)


def main():
    tap, library, more = begin("libreswan", "certutil")
    if len(more) != 1:
        raise SystemExit("one more argument: a directory for libreswan")
    with tap.lab() as lab:
        scene = Scene(lab, "net_tap1,iface=wan", library)
        peer = Peer(scene)
        scene.connect(peer.host)
        scene.peer_charon = peer.start_charon()
        scene.peer_charon.load(OUTSIDE, [NETS])
        pluto = Pluto(scene, unpacked("libreswan", more[0]))
        with tap.case("pluto brings the tunnel up"):
            up(scene, pluto)
            for each in sas(scene.router):
                equal((each["algorithm"], each["owner"], each["mode"]), ("aes-gcm-256", "ike", "tunnel"),
                      "association")
            equal(protected(scene), ["in", "out"], "policies")
            scene.left.ping(RIGHT, count=20)
            scene.peer.ping(LEFT, "-I", RIGHT, count=5)
        if tap.failed:
            tap.end()
        with tap.case("it counts the bytes that the router and the peer count"):
            theirs, text = scene.peer_charon.child()
            octets = {each["direction"]: each["bytes"] for each in sas(scene.router)}
            equal(pluto.octets(), octets, "bytes that pluto knows of")
            equal(octets, {"in": theirs["out"][1], "out": theirs["in"][1]}, f"bytes\n{text}")
        with tap.case("TCP both ways"):
            scene.tcp(RIGHT)
            scene.tcp(RIGHT, "-R")
        rekeying(tap, scene, pluto)
        with tap.case("pluto takes the tunnel down, and the next packet that wants it brings it up"):
            pluto.whack("--name", "peer", "--terminate")
            until(lambda: not sas(scene.router), "the associations are gone")
            until(lambda: not child_in(scene.peer_charon.swanctl("--list-sas")), "the peer's as well")
            equal(protected(scene), ["out"], "the trap")
            scene.router.call("stats.clear")
            scene.left.run("ping", "-n", "-c", 10, "-i", "0.5", RIGHT)
            check(scene.router.drops().get("ipsec_out.no_sa", 0) > 0, "the first packets had none")
            until(lambda: len(sas(scene.router)) == 2, "the router has both associations")
            equal(protected(scene), ["in", "out"], "policies")
            scene.left.ping(RIGHT, count=5)
            check("Operation not supported" not in pluto.log(), "pluto was refused something")
        with tap.case("the peer vanishes: pluto notices, and the associations go"):
            scene.left.ping(RIGHT)
            peer.charon.process.send_signal(signal.SIGSTOP)
            before = set(spis(scene.router).values())
            until(lambda: not before & set(spis(scene.router).values()), "the associations go", 40)
            peer.charon.process.send_signal(signal.SIGCONT)
    tap.end()


if __name__ == "__main__":
    main()
