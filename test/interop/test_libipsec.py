"""The router against strongSwan's own ESP: a peer whose charon encrypts itself (kernel-libipsec), in
UDP, and gives and takes the inner packets through a TUN device.

    host left -- net_tap [router, charon] net_tap -- peer with charon
"""
import signal

from sites import (NETS, OUTSIDE, OUTSIDE6, PLUGINS, RIGHT, RIGHT6, TRIES, Charon, Scene, begin,
                   counting, ending, equal, establishing, rekeying, traffic, vanishing)


class Peer:
    """The peer's host, and its charon."""

    def __init__(self, scene):
        self.scene = scene
        self.host = scene.lab.host("peer").plug(
            scene.router, "wan", f"{OUTSIDE['right']}/24", f"{OUTSIDE6['right']}/64")
        self.host.address("lo", f"{RIGHT}/24", f"{RIGHT6}/64")
        self.host.serve("iperf3", "-s", "--forceflush", ready="Server listening")
        self.charon = None

    def start_charon(self):
        plugins = ["kernel-libipsec", *PLUGINS]  # before kernel-netlink
        self.charon = Charon(self.host, "right", settings={
            "load": f"load = {' '.join(plugins)}", "plugins": "", "routes": "yes", "tries": TRIES})
        return self.charon


def main():
    tap, library, _ = begin("kernel-libipsec")
    with tap.lab() as lab:
        scene = Scene(lab, "net_tap1,iface=wan", library)
        peer = Peer(scene)
        scene.begin(peer.host, peer.start_charon)
        establishing(tap, scene, "udp", (1, 56, 1400, 1472, 4000))
        with tap.case("the peer's inner packets come by its TUN device"):
            route = peer.host.ip(f"route get {NETS['left'].replace('0/24', '10')} from {RIGHT}")
            equal("dev ipsec0" in route, True, route)
        traffic(tap, scene)
        rekeying(tap, scene)
        counting(tap, scene)
        ending(tap, scene)
        vanishing(tap, scene, lambda: peer.charon.process.send_signal(signal.SIGSTOP),
                  lambda: peer.charon.process.send_signal(signal.SIGCONT))
    tap.end()


if __name__ == "__main__":
    main()
