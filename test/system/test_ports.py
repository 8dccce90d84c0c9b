#!/usr/bin/python3
"""Ports on the real kernel: hosts in network namespaces, joined through port_probe.

    test_ports.py PORT_PROBE [CASE...]

Needs root. Each case makes two namespaces with one address each, puts a port in front of each, lets
port_probe pass frames between them, and exchanges UDP datagrams of several sizes. What this machine
cannot do is a printed skip with its reason. Everything made here is deleted again. Exit status 0:
all that could run passed; 77: nothing could run.
"""
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

EAL = ["--no-huge", "--no-shconf", "-m", "256", "--no-telemetry", "-a", "0000:00:00.0",
       "--log-level", "error"]
PREFIX = "pt%d" % (os.getpid() % 10000)
SO_NO_CHECK = 11


class Skip(Exception):
    pass


def run(*command, check=True):
    result = subprocess.run(command, capture_output=True, text=True)
    if check and result.returncode != 0:
        raise RuntimeError("%s: %s" % (" ".join(command), result.stderr.strip()))
    return result


def in_namespace(namespace, *arguments, **options):
    return subprocess.Popen(["ip", "netns", "exec", namespace, sys.executable, __file__,
                             *arguments], stdout=subprocess.PIPE, text=True, **options)


# Runs inside a namespace: "echo ADDRESS" answers, "send ADDRESS SIZE..." asks.
def echo(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        # A veth leaves checksums to hardware that is not there; without one nothing can be wrong.
        server.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        server.bind((address, 7))
        print("listening", flush=True)
        while True:
            data, peer = server.recvfrom(65536)
            server.sendto(data, peer)


def send(address, sizes):
    for size in sizes:
        payload = os.urandom(size)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
            # IP_PMTUDISC_DO: a datagram that does not fit is an error, not two fragments.
            client.setsockopt(socket.IPPROTO_IP, 10, 2)
            client.settimeout(0.5)
            for _ in range(12):
                client.sendto(payload, (address, 7))
                try:
                    if client.recv(65536) == payload:
                        break
                except OSError:
                    continue
            else:
                print("no answer to %d bytes" % size)
                return 1
    return 0


class Lab:
    """Two namespaces and the processes that run for them."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="ports-")
        self.namespaces = [PREFIX + "a", PREFIX + "b"]
        self.links = []
        self.processes = []

    def __enter__(self):
        for namespace in self.namespaces:
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            # No router solicitations and the like: counters then count only what is sent here.
            run("ip", "netns", "exec", namespace, "sysctl", "-qw",
                "net.ipv6.conf.default.disable_ipv6=1", check=False)
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()
        for link in self.links:
            run("ip", "link", "del", link, check=False)
        for namespace in self.namespaces:
            run("ip", "netns", "del", namespace, check=False)
        self.directory.cleanup()

    def veth(self, side):
        """A pair; one end in the namespace, the other one here. Returns the name of that."""
        here, there = "%sv%d" % (PREFIX, side), "%sw%d" % (PREFIX, side)
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        self.links.append(here)
        run("ip", "link", "set", there, "netns", self.namespaces[side])
        return here, there

    def address(self, side, link, mtu=1500):
        namespace = self.namespaces[side]
        run("ip", "-n", namespace, "link", "set", link, "mtu", str(mtu), "up")
        run("ip", "-n", namespace, "addr", "add", "198.18.255.%d/24" % (side + 1), "dev", link)

    def probe(self, *arguments, lcore=0):
        """Starts port_probe and waits until its ports are open. Returns the process, its lines."""
        process = subprocess.Popen([PROBE, *EAL, "-l", str(lcore), "--", "-t", "60", *arguments],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if lines[-1] == "ready":
                return process, lines
        process.wait()
        raise Refused(process.stderr.read().strip())

    def finish(self, process, leaks=False):
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
        expect(process.returncode == 0, "port_probe ended with %d: %s"
               % (process.returncode, errors))
        expect(leaks or "buffers out=0" in output, "buffers leaked: " + output)
        return output

    def exchange(self, *sizes):
        server = in_namespace(self.namespaces[1], "echo", "198.18.255.2")
        self.processes.append(server)
        expect(server.stdout.readline().strip() == "listening", "the echo server does not start")
        client = in_namespace(self.namespaces[0], "send", "198.18.255.2", *map(str, sizes))
        output, _ = client.communicate(timeout=60)
        server.terminate()
        server.wait()
        return output.strip()


class Refused(Exception):
    """port_probe could not open a port; the text is its sentence."""


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def flags_of(link):
    return int(open("/sys/class/net/%s/flags" % link, encoding="ascii").read(), 16)


def mtu_of(link):
    return int(open("/sys/class/net/%s/mtu" % link, encoding="ascii").read())


def case_tap(lab):
    """net_tap: frames pass, and the link stays up when the Linux end moves into a namespace"""
    if not os.path.exists("/dev/net/tun"):
        raise Skip("this kernel has no /dev/net/tun")
    names = [PREFIX + "t0", PREFIX + "t1"]
    process, lines = lab.probe("-w", "2", *("net_tap%d,iface=%s" % pair
                                            for pair in enumerate(names)))
    for side, name in enumerate(names):
        expect("link=up" in lines[side], lines[side])
        run("ip", "link", "set", name, "netns", lab.namespaces[side])
        lab.address(side, name)
    expect(lab.exchange(1, 1472) == "", "frames are lost")
    output = lab.finish(process)
    expect(output.count("link=up") == 2, "the link went down: " + output)


def case_tap_mtu(lab):
    """net_tap carries 1504 bytes at most"""
    if not os.path.exists("/dev/net/tun"):
        raise Skip("this kernel has no /dev/net/tun")
    process, _ = lab.probe("-m", "1504", "net_tap0,iface=%st0" % PREFIX)
    expect(mtu_of(PREFIX + "t0") == 1504, "the Linux end has another MTU")
    lab.finish(process)
    try:
        lab.probe("-m", "1505", "net_tap0,iface=%st0" % PREFIX)
    except Refused as refused:
        expect(str(refused) ==
               "$.interfaces.p0: the MTU is 1505, but net_tap carries at most 1504", str(refused))
    else:
        raise AssertionError("an MTU of 1505 was taken")


def wire(lab, kind, mtu=1500, extra=()):
    ends = [lab.veth(side) for side in (0, 1)]
    before = [(flags_of(here), mtu_of(here)) for here, _ in ends]
    for side, (_, there) in enumerate(ends):
        lab.address(side, there, mtu)
    process, lines = lab.probe("-m", str(mtu), *extra,
                               *("%s%d,iface=%s" % (kind, side, here)
                                 for side, (here, _) in enumerate(ends)))
    for here, _ in ends:
        expect(mtu_of(here) == mtu, "%s has the MTU %d" % (here, mtu_of(here)))
    failure = lab.exchange(1, mtu - 28)
    expect(failure == "", failure + "\n" + "\n".join(lines))
    # net_af_xdp never gives back the buffers in its fill ring (DPDK 22.11).
    output = lab.finish(process, leaks=kind == "net_af_xdp")
    after = [(flags_of(here), mtu_of(here)) for here, _ in ends]
    expect(before == after, "the Linux interfaces were changed: %s, now %s" % (before, after))
    return lines, output


def case_af_packet(lab):
    """net_af_packet: frames pass, the Linux interface is as before afterwards"""
    lines, output = wire(lab, "net_af_packet", extra=("-w", "2"))
    expect("qpairs=2" in lines[0] and "rx_queues=2" in lines[0], lines[0])
    expect(output.count("link=up") == 2, output)


def case_af_packet_mtu(lab):
    """net_af_packet carries 1964 bytes, more than DPDK says"""
    wire(lab, "net_af_packet", mtu=1964)


def tagged(lab, kind):
    """A frame with a VLAN tag comes back from port_probe with its tag. It is made by hand, as many
    kernels are without VLAN interfaces."""
    here, there = lab.veth(0)
    # Only the far end's raw sockets matter, so it may as well be here.
    run("ip", "-n", lab.namespaces[0], "link", "set", there, "netns", str(os.getpid()))
    run("ip", "link", "set", there, "up")
    try:
        process, lines = lab.probe("-v", "%s0,iface=%s" % (kind, here))
    except Refused as refused:
        raise Skip(str(refused)) from refused
    expect("promiscuous=1" in lines[0], lines[0])
    frame = (b"\x33\x33\0\0\0\1" + b"\2\0\0\0\0\1" + b"\x81\0\0\x14" + b"\x88\xb5" + bytes(60))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:  # ETH_P_ALL
        raw.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: where the kernel may put the tag
        raw.bind((there, 3))
        raw.settimeout(2)
        raw.send(frame)
        while True:
            data, auxiliary, _, sender = raw.recvmsg(2048, 128)
            if data[6:12] == frame[6:12] and sender[2] != 4:  # not PACKET_OUTGOING
                break
    tag = struct.unpack("=IIIHHHH", auxiliary[0][2][:20])[5] & 0xfff
    expect(tag == 20 or data == frame, "the tag is lost: %s" % data[:20])
    lab.finish(process, leaks=kind == "net_af_xdp")


def case_af_packet_tag(lab):
    """net_af_packet carries VLAN tags"""
    tagged(lab, "net_af_packet")


def case_af_xdp_tag(lab):
    """net_af_xdp carries VLAN tags"""
    tagged(lab, "net_af_xdp")


def case_af_packet_link(lab):
    """net_af_packet sees that the other end of the cable is down"""
    here, there = lab.veth(0)
    process, lines = lab.probe("net_af_packet0,iface=" + here)
    expect("link=down" in lines[0], lines[0])
    run("ip", "-n", lab.namespaces[0], "link", "set", there, "up")
    expect("link=up" in lab.finish(process), "the link stayed down")


def af_xdp(lab, **options):
    try:
        return wire(lab, "net_af_xdp", **options)
    except Refused as refused:
        if "no driver" in str(refused) or "xdp" in str(refused).lower() or "xsk" in str(refused):
            raise Skip(str(refused)) from refused
        raise


def case_af_xdp(lab):
    """net_af_xdp: frames pass"""
    af_xdp(lab)


def case_af_xdp_mtu(lab):
    """net_af_xdp carries 1774 bytes"""
    af_xdp(lab, mtu=1774)


def tap_and(lab, side, device):
    """A process that joins a tap in the side's namespace to the device. net_af_packet would do, but
    its driver refuses to start now and then when two processes have it: the kernel's fanout groups
    are numbered by process id XOR interface index."""
    if not os.path.exists("/dev/net/tun"):
        raise Skip("this kernel has no /dev/net/tun")
    name = "%st%d" % (PREFIX, side)
    process, lines = lab.probe("net_tap%d,iface=%s" % (side, name), device,
                               lcore=min(side, os.cpu_count() - 1))
    run("ip", "link", "set", name, "netns", lab.namespaces[side])
    lab.address(side, name)
    return process, lines


def case_vhost(lab):
    """net_vhost in one process and net_virtio_user in another one"""
    path = os.path.join(lab.directory.name, "vm.sock")
    # A socket that a killed process left behind.
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    host, _ = tap_and(lab, 0, "net_vhost0,iface=" + path)
    guest, lines = tap_and(lab, 1, "net_virtio_user0,path=" + path)
    failure = lab.exchange(1, 1472)
    expect(failure == "", failure + "\n" + "\n".join(lines))
    try:
        lab.probe("net_vhost0,iface=" + path)
    except Refused as refused:
        expect(str(refused) == "$.interfaces.p0: another program listens on the vhost socket `%s`"
               % path, str(refused))
    else:
        raise AssertionError("the socket of a running program was taken")
    lab.finish(guest)
    lab.finish(host)
    expect(not os.path.exists(path), "the socket is still there")


def case_memif(lab):
    """net_memif: server and client in two processes"""
    path = os.path.join(lab.directory.name, "memif.sock")
    memif = "net_memif0,id=1,socket-abstract=no,socket=%s,role=" % path
    server, _ = tap_and(lab, 0, memif + "server")
    client, _ = tap_and(lab, 1, memif + "client")
    expect(lab.exchange(1, 1472) == "", "frames are lost")
    lab.finish(client)
    # DPDK takes the shared memory away while the server polls it, which may cost the server its life
    # (docs/ports.md); nothing can be expected of its end.
    server.terminate()
    server.communicate(timeout=20)


def main():
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    if os.geteuid() != 0:
        print("skip: needs root")
        return 77
    cases = [name[5:] for name in globals() if name.startswith("case_")]
    wanted = sys.argv[2:] or cases
    passed = failed = 0
    for name in wanted:
        case = globals()["case_" + name]
        started = time.monotonic()
        try:
            with Lab() as lab:
                case(lab)
        except Skip as skip:
            print("skip %s: %s" % (name, skip))
            continue
        except (AssertionError, RuntimeError, Refused, subprocess.TimeoutExpired) as error:
            print("FAIL %s: %s" % (name, error))
            failed += 1
            continue
        print("ok   %s: %s (%.1f s)" % (name, case.__doc__, time.monotonic() - started))
        passed += 1
    return 1 if failed else 0 if passed else 77


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "echo":
        echo(sys.argv[2])
    if len(sys.argv) > 3 and sys.argv[1] == "send":
        sys.exit(send(sys.argv[2], map(int, sys.argv[3:])))
    PROBE = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else ""
    sys.exit(main())
