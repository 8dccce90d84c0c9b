"""Firewall and NAT as people meet them: iperf3 through NAT and port forwards, a STUN client that
asks what kind of NAT this is, traceroute and tracepath, nmap and hping3 against the outside and
from the inside, MSS clamping as tcpdump and ss see it, session events at a collector, and a restart
in the middle of connections. Everything here is some other project's program, which has to be
installed."""
import collections
import contextlib
import itertools
import json
import os
import re
import secrets
import select
import subprocess
import time
import xml.etree.ElementTree

from lab import (LAN, LAN6, LAN6_ROUTER, LAN_ROUTER, PATIENCE, WAN, WAN6, WAN6_ROUTER, WAN_ROUTER,
                 Tap, arguments, check, equal, far_network, hops, learnt_mtu, need, plain_config,
                 plain_hosts, sessions, until)

ECHO, WEB, OUTSIDE_WEB, STUN, NOWHERE = 7000, 80, 8080, 3478, 666
WAN_SECOND, FAR = "203.0.113.11", "192.0.2.10"
FAR_MTU, LINK_MTU = 1300, 1400
INSIDE = "198.51.100.0/24"
SIZE = 4096  # sessions
SPOOFED = [f"198.51.100.{number}" for number in range(20, 28)]

RULES = [
    {"name": "lan-out", "in": "lan", "out": "wan", "action": "accept"},
    {"name": "hairpin", "in": "lan", "out": "lan", "action": "accept"},
    {"name": "lan-router", "in": "lan", "to_router": True, "action": "accept"},
    {"name": "web", "in": "wan", "protocol": "tcp", "destination": [LAN, LAN6],
     "destination_port": WEB, "action": "accept"},
    {"name": "iperf", "in": "wan", "protocol": ["tcp", "udp"], "destination": LAN,
     "destination_port": 5201, "action": "accept"},
    {"name": "stun", "in": "wan", "protocol": "udp", "destination": LAN, "destination_port": STUN,
     "action": "accept"},
    {"name": "wan-ping", "in": "wan", "to_router": True, "protocol": ["icmp", "icmpv6"],
     "icmp_type": "echo_request", "action": "accept"},
]
FORWARDS = [
    {"name": "web", "in": "wan", "protocol": "tcp", "destination_port": OUTSIDE_WEB,
     "to": f"{LAN}:{WEB}"},
    {"name": "iperf-tcp", "in": "wan", "protocol": "tcp", "destination_port": 5201, "to": LAN},
    {"name": "iperf-udp", "in": "wan", "protocol": "udp", "destination_port": 5201, "to": LAN},
    {"name": "stun", "in": "wan", "protocol": "udp", "destination_port": STUN, "to": LAN},
]
SOURCE = {"out": "wan", "source": INSIDE, "to": "interface"}


def config(rules=(), source=None, default="drop", session=None, **more):
    """lan hidden behind the router's address on wan; `rules` come behind the usual ones."""
    return plain_config(
        sessions={"size": SIZE, **(session or {})},
        firewall={"default": default, "rules": [*RULES, *rules]},
        nat={"source": [{**SOURCE, **(source or {})}], "destination": FORWARDS},
        routes=[{"prefix": "192.0.2.0/24", "via": WAN}], **more)


@contextlib.contextmanager
def configured(router, document):
    """The document for a while, and the usual one again."""
    router.call("config.apply", {"config": document})
    try:
        yield
    finally:
        router.call("config.apply", {"config": config()})


# --- programs on the hosts ---

def daemon(host, *command, port, kind="-t"):
    """Starts a server that does not say when it is ready: `ss` knows."""
    need(command[0])
    process = host.start(*command)
    until(lambda: host.run("ss", "-Hln", kind, f"sport = :{port}").stdout.strip(),
          f"{command[0]} listens on port {port} of {host.name}")
    return process


def echo_server(host, port, family=4):
    return daemon(host, "socat", f"TCP{family}-LISTEN:{port},fork,reuseaddr,backlog=128"
                  + (",ipv6only=1" if family == 6 else ""), "PIPE", port=port)


class Talk:
    """A TCP connection that socat holds open, to an echo server. Its own port is below those that
    Linux gives to iperf3 and the others."""

    def __init__(self, host, address, port, own_port):
        need("socat")
        self.host = host
        self.awaited = ""
        family = 6 if ":" in address else 4
        target = f"[{address}]" if family == 6 else address
        self.process = host.start(
            "socat", "-", f"TCP{family}:{target}:{port},sourceport={own_port},connect-timeout=5",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def say(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()
        self.awaited += text

    def hear(self, patience=PATIENCE):
        """All that was said comes back."""
        back, deadline = "", time.monotonic() + patience
        while len(back) < len(self.awaited):
            left = max(0, deadline - time.monotonic())
            came = select.select([self.process.stdout], [], [], left)[0]
            part = os.read(self.process.stdout.fileno(), 65536).decode() if came else ""
            check(part, f"{len(back)} of {len(self.awaited)} bytes came back: {back[:200]}")
            back += part
        equal(back, self.awaited, "what came back")
        self.awaited = ""

    def echo(self):
        self.say(secrets.token_hex(500) + "\n")
        self.hear()

    def close(self):
        self.process.stdin.close()
        self.host.lab.stop(self.process)


class Capture:
    """What tcpdump prints about the packets on a host's link."""

    def __init__(self, host, expression, *options):
        need("tcpdump")
        self.host = host
        self.path = host.lab.path(f"capture-{secrets.token_hex(4)}")
        with open(self.path, "w", encoding="utf-8") as file:
            self.process = host.start("tcpdump", "-n", "-l", "--immediate-mode", "-i", "eth0",
                                      *options, expression, stdout=file, stderr=subprocess.STDOUT)
        until(lambda: "listening on" in self.text(), "tcpdump listens")

    def text(self):
        with open(self.path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def packets(self):
        return [line for line in self.text().splitlines() if " IP " in line or " IP6 " in line]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.host.lab.stop(self.process)


# --- iperf3 ---

def opened(router):
    return router.call("session.count")["opened"]


def tcp_streams(tap, router, lan, wan):
    # Two addresses, lest the second run meets sessions of the first one's ports.
    for way, address, options in (("up", WAN, ()), ("down", WAN_SECOND, ("-R",))):
        with tap.case(f"iperf3, TCP: 100 streams through source NAT, {way}, each moves its share"):
            router.call("stats.clear")
            before = opened(router)
            # Paced, so that a stream's share does not depend on how it fares against 99 others.
            end = lan.iperf(wan, address, "-P", 100, "-b", "1M", *options, seconds=2)
            moved = sorted(each["receiver"]["bytes"] for each in end["streams"])
            equal(len(moved), 100, "streams")
            check(moved[0] > 100000, f"the slowest streams moved {moved[:5]} bytes")
            router.no_drops()
            # A session each, and one for iperf3's own conversation.
            equal(opened(router) - before, 101, "sessions that began")
            sources = [each["translated_source"]
                       for each in sessions(router, protocol="tcp", address=address, port=5201)]
            equal(len(sources), 101, "sessions that are listed")
            equal({each["address"] for each in sources}, {WAN_ROUTER}, "outside address")
            equal(len({each["port"] for each in sources}), 101, "outside ports")


def udp_streams(tap, router, lan, wan):
    def linux_lost():
        return sum(host.kernel_drops("eth0") + host.socket_drops() for host in (lan, wan))

    for what, client, server, bind, address in (
            ("through source NAT", lan, wan, WAN, WAN),
            ("through a port forward", wan, lan, LAN, WAN_ROUTER)):
        for way, options in (("active", ()), ("passive", ("-R",))):
            with tap.case(f"iperf3, UDP {what}, {way}: the router loses nothing"):
                router.call("session.flush", {"protocol": "udp"})
                until(lambda: not sessions(router, protocol="udp"), "no sessions of UDP")
                router.call("stats.clear")
                lost = linux_lost()
                end = client.iperf(server, address, "-u", "-b", "2M", "-l", 1000, "-P", 5,
                                   *options, bind=bind)
                lost = linux_lost() - lost
                for each in end["streams"]:
                    check(each["udp"]["packets"] > 100, f"a stream sent only {each['udp']}")
                total = end["sum"]
                # What the last datagrams do while iperf3 says good-bye is not looked at.
                check(total["lost_packets"] <= lost + 5,
                      f"{total['lost_packets']} of {total['packets']} are lost, {lost} in Linux")
                router.no_drops()
                udp = sessions(router, protocol="udp")
                equal(len(udp), 5, "sessions")
                busy = "backward" if options else "forward"
                for each in udp:
                    check(each[busy]["packets"] > 100, f"{each}")
                    side = "translated_source" if client is lan else "translated_destination"
                    equal(each[side]["address"], WAN_ROUTER if client is lan else LAN, side)
    with tap.case("iperf3, TCP both ways at once through a port forward"):
        router.call("stats.clear")
        end = wan.iperf(lan, WAN_ROUTER, "-P", 4, "-b", "5M", "--bidir", bind=LAN)
        for key in ("sum_received", "sum_received_bidir_reverse"):
            check(end[key]["bytes"] > 500000, f"{key}: {end[key]}")
        router.no_drops()


# --- STUN ---

def stun_types(tap, router, lan, wan):
    """stun(1) asks after RFC 3489; it prints mapping, filtering, ports and hairpins."""
    def kind():
        need("stun")
        if not servers:
            servers.append(daemon(wan, "stund", "-h", WAN, "-a", WAN_SECOND, port=STUN + 1,
                                  kind="-u"))
        output = lan.run("stun", WAN, status=None).stdout
        line = next((line for line in output.splitlines() if line.startswith("Primary: ")), None)
        check(line, f"no answer: {output}")
        return line.removeprefix("Primary: ").strip()

    servers = []
    lets_in = {"name": "games", "in": "wan", "protocol": "udp", "destination": LAN,
               "action": "accept"}
    for what, rules, source, expected in (
            ("by default the mapping is independent and the filter by port", [], {},
             "Independent Mapping, Port Dependent Filter, preserves ports, will hairpin"),
            ("endpoint-independent filtering is a full cone", [lets_in],
             {"filtering": "endpoint_independent"},
             "Independent Mapping, Independent Filter, preserves ports, will hairpin"),
            ("a range of ports: other ports, still one for all", [], {"ports": "50000-59999"},
             "Independent Mapping, Port Dependent Filter, random port, will hairpin"),
            # Where the inside port is free it is kept, for each destination: only a range tells.
            ("endpoint-dependent mapping is symmetric", [],
             {"mapping": "endpoint_dependent", "ports": "50000-59999"},
             "Dependent Mapping, random port, no hairpin")):
        with tap.case(f"stun: {what}"), configured(router, config(rules=rules, source=source)):
            equal(kind(), expected, "kind of NAT")
    for server in servers:
        wan.lab.stop(server)


# --- the path ---

def paths(tap, router, lan, wan):
    for method, options in (("UDP", ()), ("ICMP", ("-I",)), ("TCP", ("-T", "-p", ECHO))):
        with tap.case(f"traceroute by {method} through NAT shows the router, then the host"):
            equal(hops(lan, WAN, *options), [LAN_ROUTER, WAN], "IPv4")
            equal(hops(lan, WAN6, *options), [LAN6_ROUTER, WAN6], "IPv6")
    far = None
    with tap.case("tracepath through NAT finds the MTU of a link three hops away"):
        far = far_network(wan, "far", "192.0.2.1/24", f"{FAR}/24", FAR_MTU)
        # Its MSS must not give the MTU away.
        far.ip("route change default via 192.0.2.1 advmss 1460")
        lan.ping(FAR)
        need("tracepath")
        router.call("stats.clear")
        output = lan.run("tracepath", "-n", FAR).stdout
        for text in (f"1:  {LAN_ROUTER} ", f"2:  {WAN} ", f"3:  {FAR} ",
                     f"Resume: pmtu {FAR_MTU} hops 3 back 3"):
            check(text in output, f"no {text!r} in {output}")
        equal(learnt_mtu(lan, FAR), FAR_MTU, "MTU that lan has learnt")
        router.no_drops("local.time_exceeded")
    with tap.case("ping -M do is told that MTU, and passes when it is smaller"):
        check(far, "there is no far network")
        lan.ip("route flush cache")
        output = lan.ping(FAR, "-M", "do", "-s", 1472, count=2, status=1)[2]
        check(f"From {WAN} icmp_seq=1 Frag needed and DF set (mtu = {FAR_MTU})" in output, output)
        lan.ping(FAR, "-M", "do", "-s", FAR_MTU - 28)
        lan.no_answer(FAR, "-M", "do", "-s", FAR_MTU - 27)
    with tap.case("iperf3 through NAT and the small link: TCP finds the MTU, data flows both ways"):
        check(far, "there is no far network")
        for options in ((), ("-R",)):
            lan.ip("route flush cache")
            equal(learnt_mtu(lan, FAR), None, "MTU before")
            end = lan.iperf(far, FAR, *options)
            check(end["sum_received"]["bytes"] > 1000000, f"{end['sum_received']}")
            equal(learnt_mtu(lan, FAR), None if options else FAR_MTU, "MTU that lan has learnt")


# --- nmap and hping3 ---

def nmap(host, address, ports, *options):
    """({port: state} of those that are open, {state: how many ports})."""
    need("nmap")
    found = host.run("nmap", "-n", "-Pn", "-oX", "-", "-p", ports, "--max-retries", 1,
                     "--min-rate", 2000, "--max-rtt-timeout", "300ms", *options, address)
    tree = xml.etree.ElementTree.fromstring(found.stdout)
    states = collections.Counter()
    open_ports = {}
    for port in tree.iter("port"):
        state = port.find("state").get("state")
        states[state] += 1
        if state == "open":
            open_ports[int(port.get("portid"))] = state
    for rest in tree.iter("extraports"):
        states[rest.get("state")] += int(rest.get("count"))
    return open_ports, dict(states)


TCP_PORTS, TCP_COUNT = f"1-300,{OUTSIDE_WEB}", 301
UDP_PORTS, UDP_COUNT = f"1-100,{STUN}", 101


def scans(tap, router, lan, wan):
    servers = []

    def scan(*options, ports=TCP_PORTS, address=WAN_ROUTER):
        if not servers:
            servers.append(echo_server(lan, WEB))
            servers.append(echo_server(lan, WEB, 6))
            servers.append(daemon(lan, "stund", "-h", LAN, port=STUN, kind="-u"))
        router.call("stats.clear")
        return nmap(wan, address, ports, *options)

    web, stun = {OUTSIDE_WEB: "open"}, {STUN: "open"}
    for name, option in (("SYN", "-sS"), ("connect", "-sT")):
        with tap.case(f"nmap, {name} scan: the forwarded port is open, all others are filtered"):
            equal(scan(option), (web, {"open": 1, "filtered": TCP_COUNT - 1}), "found")
            check(router.drops()["firewall.default"] >= TCP_COUNT - 1, f"{router.drops()}")
    for name, option in (("NULL", "-sN"), ("FIN", "-sF"), ("Xmas", "-sX")):
        with tap.case(f"nmap, {name} scan: no port says anything"):
            equal(scan(option), ({}, {"open|filtered": TCP_COUNT}), "found")
            check(router.drops()["session.tcp_flags"] >= TCP_COUNT, f"{router.drops()}")
    with tap.case("nmap, ACK scan: all ports are filtered"):
        equal(scan("-sA"), ({}, {"filtered": TCP_COUNT}), "found")
        check(router.drops()["firewall.default"] >= TCP_COUNT - 1, f"{router.drops()}")
        check(router.drops()["session.tcp_no_session"] >= 1, f"{router.drops()}")
    with tap.case("nmap, UDP scan: the forwarded port is open, the others are silent"):
        equal(scan("-sU", ports=UDP_PORTS),
              (stun, {"open": 1, "open|filtered": UDP_COUNT - 1}), "found")
    with tap.case("nmap, IPv6: of the inside host only the port with a rule is open"):
        equal(scan("-6", "-sS", ports="1-200", address=LAN6),
              ({WEB: "open"}, {"open": 1, "filtered": 199}), "found")
    # ICMP errors are limited; nmap would have to ask more slowly than this test has time for.
    document = config(default="reject", icmp={"rate_limit": 100000, "burst": 10000})
    for name, options, ports, expected in (
            ("SYN scan: the others are closed", ("-sS",), TCP_PORTS,
             (web, {"open": 1, "closed": TCP_COUNT - 1})),
            ("connect scan: the others are closed", ("-sT",), TCP_PORTS,
             (web, {"open": 1, "closed": TCP_COUNT - 1})),
            ("UDP scan: the others are prohibited", ("-sU",), UDP_PORTS,
             (stun, {"open": 1, "filtered": UDP_COUNT - 1}))):
        with tap.case(f"nmap with \"reject\", {name}"), configured(router, document):
            equal(scan(*options, ports=ports), expected, "found")
            count = sum(expected[1].values()) - 1
            check(router.drops()["firewall.rejected"] >= count, f"{router.drops()}")
    for server in servers:
        lan.lab.stop(server)


def hping(host, *options, count):
    """Sends so many SYNs to a port where nobody listens."""
    need("hping3")
    return host.start("hping3", "-q", "-n", "-I", "eth0", "-S", "-p", NOWHERE, "-c", count,
                      *options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def sent_by(*floods):
    """Waits for the end of them; returns how many packets they have sent."""
    total = 0
    for each in floods:
        output = each.communicate(timeout=30)[0]
        check(" packets transmitted" in output, output)
        total += int(output.split(" packets transmitted")[0].split()[-1])
    return total


def flush(router):
    """Ends what the floods began, and waits until the workers have taken the ports back: before that
    NAT cannot give a connection the port that it has on lan."""
    router.call("session.flush", {"port": NOWHERE})

    def swept():
        counted = router.call("session.count")
        return counted["sessions"] == sum(counted["states"].values())

    until(swept, "the flushed sessions are gone")


@contextlib.contextmanager
def going_on(lan, wan):
    """A TCP connection through NAT that must not stand still meanwhile."""
    need("iperf3")
    server = wan.serve("iperf3", "-s", "-1", "--forceflush", "-B", WAN, ready="Server listening")
    client = lan.start("iperf3", "-J", "-c", WAN, "-b", "5M", "-t", 3, "-i", 1,
                       stdout=subprocess.PIPE)
    try:
        until(lambda: lan.run("ss", "-Htn", "state", "established", "dport = :5201").stdout.count(
            "\n") == 2, "iperf3 is connected")
        yield
        output = client.communicate(timeout=30)[0]
        report = json.loads(output)
        check("error" not in report, f"iperf3: {report.get('error')}")
        moved = [each["sum"]["bytes"] for each in report["intervals"]
                 if each["sum"]["seconds"] > 0.9]
        check(len(moved) >= 2 and min(moved) > 0, f"each second {moved} bytes")
        check(report["end"]["sum_received"]["bytes"] > 1000000, f"{report['end']['sum_received']}")
    finally:
        lan.lab.stop(client)
        lan.lab.stop(server)


def floods(tap, router, lan, wan):
    strict = config(lan={"reverse_path": "strict"}, wan={"reverse_path": "strict"})
    with tap.case("hping3 with forged sources from lan and from wan: reverse_path stops all of it"):
        need("hping3")
        with configured(router, strict), going_on(lan, wan), \
                Capture(wan, f"tcp dst port {NOWHERE} and not host {WAN_ROUTER}") as capture:
            router.call("stats.clear")
            before = opened(router)
            inside = [hping(wan, "-a", source, "-i", "u500", WAN_ROUTER, count=300)
                      for source in SPOOFED]
            sent = sent_by(*inside)
            equal(sent, 300 * len(SPOOFED), "packets with inside sources from wan")
            drops = router.drops()
            check(sent - 5 <= drops["route.reverse_path"] <= sent, f"{drops}")
            sent = sent_by(hping(lan, "--rand-source", "-i", "u200", WAN, count=3000))
            equal(sent, 3000, "packets with random sources from lan")
            after = router.drops()
            forged = after["route.reverse_path"] - drops["route.reverse_path"]
            # The rest are sources that no host has: loopback, multicast, reserved, 0/8.
            martian = sum(count for name, count in after.items() if name.startswith("parse."))
            check(forged > 2000 and sent - 20 <= forged + martian <= sent, f"{drops}, {after}")
            equal(opened(router) - before, 0, "sessions that began")
            equal(capture.packets(), [], "packets that reached wan")
    with tap.case("hping3 from lan with sources of lan: each gets what the limits allow"):
        need("hping3")
        limits = {"per_source": 60, "new_per_second_per_source": 40}
        with configured(router, config(session={"limits": limits})), going_on(lan, wan):
            router.call("stats.clear")
            # 200 SYNs a second from each of them: the limit per second, then the one altogether.
            sent = sent_by(*(hping(lan, "-a", source, "-i", "u5000", WAN, count=400)
                             for source in SPOOFED))
            equal(sent, 400 * len(SPOOFED), "packets that hping3 has sent")
            drops = router.drops()
            count = collections.Counter(each["source"]["address"]
                                        for each in sessions(router, port=NOWHERE))
            equal(count, dict.fromkeys(SPOOFED, limits["per_source"]), "sessions per source")
            for reason in ("session.source_rate", "session.source_limit"):
                check(drops.get(reason, 0) > 100, f"{reason} in {drops}")
            refused = drops["session.source_rate"] + drops["session.source_limit"]
            accepted = limits["per_source"] * len(SPOOFED)
            check(sent - accepted - 20 <= refused <= sent - accepted, f"{drops} of {sent}")
        flush(router)
    with tap.case("a flood without limits fills the table; a new connection still fits in"):
        need("hping3")
        # Nobody answers for this address, so all of them stay half open.
        with going_on(lan, wan):
            router.call("stats.clear")
            sent = sent_by(*(hping(lan, "-a", source, "-i", "u500", "192.0.2.77", count=900)
                             for source in SPOOFED))
            equal(sent, 900 * len(SPOOFED), "packets that hping3 has sent")
            counted = router.call("session.count")
            check(counted["evicted"] > sent - SIZE, f"{counted}")
            check(SIZE * 0.9 < counted["sessions"] <= SIZE, f"{counted}")
            with contextlib.closing(Talk(lan, WAN, ECHO, 20300)) as talk:
                talk.echo()
        flush(router)


# --- MSS clamping ---

SYN = "(tcp[tcpflags] & tcp-syn != 0) or (ip6 and ip6[6] == 6 and ip6[53] & 2 != 0)"


def agreed_mss(lan, wan, address, own_port):
    """MSS in SYN and SYN-ACK as the receiver of each sees it, and what ss says both use."""
    with Capture(wan, SYN) as at_wan, Capture(lan, SYN) as at_lan, \
            contextlib.closing(Talk(lan, address, ECHO, own_port)) as talk:
        talk.echo()
        seen = []
        for capture, host, flags in ((at_wan, wan, "S"), (at_lan, lan, r"S\.")):
            seen.append(until(lambda c=capture, f=flags: re.search(
                rf"Flags \[{f}\].*\bmss (\d+)", c.text()), f"tcpdump on {host.name} shows the SYN"))
        for host, side in ((lan, "sport"), (wan, "dport")):  # NAT keeps the port
            seen.append(until(lambda h=host, s=side: re.search(r" mss:(\d+)\s", h.run(
                "ss", "-Htin", "state", "established", f"{s} = :{own_port}").stdout),
                f"ss on {host.name} shows the connection"))
        return [int(found.group(1)) for found in seen]


def check_mss(lan, wan, ipv4, ports):
    # ss tells what is left besides the 12 bytes of timestamps.
    for address, size in ((WAN, ipv4), (WAN6, ipv4 - 20)):
        equal(agreed_mss(lan, wan, address, next(ports)), [size, size, size - 12, size - 12],
              f"MSS of SYN, SYN-ACK, lan, wan with {address}")


def mss(tap, router, lan, wan):
    ports = itertools.count(20400)
    for what, wan_side, lan_side, size in (
            ("without tcp_mss the hosts' own", {}, {}, 1460),
            ("a number on the outgoing interface", {"tcp_mss": 1200}, {}, 1200),
            ("a number on the incoming interface", {}, {"tcp_mss": 1300}, 1300),
            ("the smaller of two", {"tcp_mss": 1250}, {"tcp_mss": 1300}, 1250),
            ("never raised", {"tcp_mss": 9000}, {}, 1460)):
        with tap.case(f"MSS as tcpdump and ss see it: {what}"), \
                configured(router, config(wan=wan_side, lan=lan_side)):
            check_mss(lan, wan, size, ports)


def small_link(tap):
    """A TAP device's MTU cannot change once it is in another namespace: a router of its own."""
    with tap.lab() as lab:
        router = lab.router(config(wan={"mtu": LINK_MTU, "tcp_mss": "auto"}))
        lan, wan = plain_hosts(lab, router)
        with tap.case("MSS as tcpdump and ss see it: auto, which is what the MTU has room for"):
            for family in (4, 6):
                echo_server(wan, ECHO, family)
            check_mss(lan, wan, LINK_MTU - 40, itertools.count(20450))
            lan.tcp(wan, WAN)
            equal(learnt_mtu(lan, WAN), None, "MTU that lan had to learn")


# --- events ---

def events_of(path):
    try:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file.read().splitlines(keepends=True)
                    if line.endswith("\n")]
    except FileNotFoundError:
        return []


def collector(lab, name):
    """socat listens on a UNIX socket and writes what comes to a file."""
    need("socat")
    address, path = lab.path(f"{name}.sock"), lab.path(f"{name}.json")
    process = lab.start(["socat", "-u", f"UNIX-LISTEN:{address},unlink-early",
                         f"OPEN:{path},creat,append"])
    until(lambda: os.path.exists(address), "socat listens")
    return process, address, path


def pair(path, **wanted):
    """The start and the end of the one session that the words tell, once both have come."""
    def matches(event):
        return all(event[key] == value for key, value in wanted.items())

    def complete():
        starts = [each for each in events_of(path) if each["event"] == "start" and matches(each)]
        ends = [each for each in events_of(path) if each["event"] == "end" and matches(each)]
        return (starts, ends) if starts and ends else None

    starts, ends = until(complete, f"events of {wanted}: {events_of(path)[-4:]}")
    equal((len(starts), len(ends)), (1, 1), f"starts and ends of {wanted}")
    for key in ("id", "protocol", "in", "out", "source", "destination", "translated_source",
                "translated_destination"):
        equal(ends[0].get(key), starts[0].get(key), f"{key} of the end")
    check(starts[0]["time"] < ends[0]["time"], f"{starts[0]['time']}, {ends[0]['time']}")
    return starts[0], ends[0]


def events(tap, lab, router, lan, wan):
    short = {"tcp_closing": 1, "icmp": 1}
    data = lab.path("data")
    with open(data, "wb") as file:
        file.write(secrets.token_bytes(200000))

    def send_file(own_port):
        """socat sends a file through NAT."""
        need("socat")
        copied = lab.path("copy")
        server = daemon(wan, "socat", "-u", f"TCP-LISTEN:{ECHO + 1},reuseaddr",
                        f"OPEN:{copied},creat,trunc", port=ECHO + 1)
        lan.run("socat", "-u", f"OPEN:{data}", f"TCP:{WAN}:{ECHO + 1},sourceport={own_port}")
        equal(server.wait(PATIENCE), 0, "socat ended with status")
        with open(data, "rb") as one, open(copied, "rb") as other:
            check(one.read() == other.read(), "the file has changed on its way")

    def of_file(path, own_port):
        start, end = pair(path, source={"address": LAN, "port": own_port})
        equal({key: start[key] for key in ("protocol", "in", "out", "destination",
                                           "translated_source")},
              {"protocol": "tcp", "in": "lan", "out": "wan",
               "destination": {"address": WAN, "port": ECHO + 1},
               "translated_source": {"address": WAN_ROUTER, "port": own_port}}, "start")
        check("translated_destination" not in start, f"{start}")
        equal(end["reason"], "timeout", "reason of the end")
        check(200000 < end["forward"]["bytes"] < 260000, f"{end}")
        check(0 < end["backward"]["packets"] <= end["forward"]["packets"] + 3, f"{end}")
        check(0.9 < end["duration_seconds"] < PATIENCE, f"{end}")

    path = lab.path("events.json")
    with tap.case("events in a file: a connection through NAT, start and end"), \
            configured(router, config(session={"events": path, "timeouts": short})):
        send_file(20501)
        of_file(path, 20501)
    with tap.case("events in a file: ping, a port forward, IPv6, and one that a user ended"), \
            configured(router, config(session={"events": path, "timeouts": short})):
        server = echo_server(lan, WEB)
        lan.ping(WAN, "-e", 4711)
        with contextlib.closing(Talk(wan, WAN_ROUTER, OUTSIDE_WEB, 20502)) as talk, \
                contextlib.closing(Talk(lan, WAN6, ECHO, 20503)) as talk6:
            talk.echo()
            talk6.echo()
            equal(router.call("session.flush", {"port": 20502})["ended"], 1, "ended")
            start, end = pair(path, source={"address": WAN, "port": 20502})
            equal((start["in"], start["out"], start["destination"], start["translated_destination"],
                   end["reason"]),
                  ("wan", "lan", {"address": WAN_ROUTER, "port": OUTSIDE_WEB},
                   {"address": LAN, "port": WEB}, "ended"), "port forward")
        start, end = pair(path, source={"address": LAN6, "port": 20503})
        equal((start["destination"], "translated_source" in start, end["reason"]),
              ({"address": WAN6, "port": ECHO}, False, "timeout"), "IPv6")
        start, end = pair(path, protocol="icmp", source={"address": LAN, "port": 4711})
        equal((start["translated_source"]["address"], end["forward"]["packets"],
               end["backward"]["packets"], end["reason"]), (WAN_ROUTER, 3, 3, "timeout"), "ping")
        lab.stop(server)
    with tap.case("events at a UNIX socket; they come again after the collector was away"):
        process, address, path = collector(lab, "collector")
        with configured(router, config(session={"events": f"unix:{address}", "timeouts": short})):
            send_file(20504)
            of_file(path, 20504)
            lab.stop(process)
            lan.ping(WAN, "-e", 4712)  # the router finds out that nobody listens
            until(lambda: router.call("session.count")["states"]["icmp"] == 0, "ping is over")
            process, _, path = collector(lab, "collector")
            of_file(path, 20504)
            pair(path, protocol="icmp", source={"address": LAN, "port": 4712})
            equal(router.call("session.count")["events_lost"], 0, "events that were lost")
        lab.stop(process)


# --- restart ---

def restart(tap, lab, router, lan, wan):
    """One router ends and another starts in its place: with new devices, while the hosts stay."""
    document = config(source={"ports": "50000-59999"})  # other ports outside than inside

    def successor():
        made = lab.router(document, space=router.space, options=("-s", router.socket))
        made.socket = router.socket
        return made

    def plug():
        lan.plug(router, "lan", f"{LAN}/24", f"{LAN6}/64", gateway=LAN_ROUTER,
                 gateway6=LAN6_ROUTER, mac="02:00:00:00:01:10")
        wan.plug(router, "wan", f"{WAN}/24", f"{WAN6}/64", gateway=WAN_ROUTER,
                 gateway6=WAN6_ROUTER, mac="02:00:00:00:02:10")
        router.settled()

    def connections():
        """What does not change while data flows."""
        return sorted(json.dumps([each.get(key) for key in (
            "protocol", "state", "in", "out", "source", "destination", "translated_source",
            "translated_destination")]) for each in sessions(router, protocol="tcp"))

    file = router.socket + ".sessions"
    router.call("config.apply", {"config": document})
    router.call("session.flush")
    with contextlib.ExitStack() as stack:
        talks = []
        with tap.case("restart: connections through NAT, a port forward and IPv6 survive SIGTERM"):
            echo_server(lan, WEB)
            for host, address, port, own_port in ((lan, WAN, ECHO, 20601),
                                                  (wan, WAN_ROUTER, OUTSIDE_WEB, 20602),
                                                  (lan, WAN6, ECHO, 20603)):
                talks.append(stack.enter_context(
                    contextlib.closing(Talk(host, address, port, own_port))))
                talks[-1].echo()
            before = connections()
            equal(len(before), 3, "sessions")
            equal(router.stop()[0], 0, "exit status")
            log = router.log()[router.log().index("stopping on"):]
            check(f"3 sessions are kept in {file}" in log and "new size" not in log, log)
            equal(os.stat(file).st_mode & 0o077, 0, "what others may do with the file")
            for talk in talks:
                talk.say("while there is no router\n")
            router = successor()
            check(f"3 sessions are taken back from {file}; 0 had timed out, 0 are not possible"
                  in router.log(), router.log()[-500:])
            check(not os.path.exists(file), "the file is still there")
            equal(connections(), before, "sessions after the start")
            plug()
            for talk in talks:
                talk.hear()
                talk.echo()
            equal(connections(), before, "sessions after more data")
        with tap.case("restart: nmap finds the forwarded port, and nothing else"):
            equal(nmap(wan, WAN_ROUTER, f"1-200,{OUTSIDE_WEB}", "-sS"),
                  ({OUTSIDE_WEB: "open"}, {"open": 1, "filtered": 200}), "found")
        with tap.case("restart: a damaged file of sessions is refused with a message"):
            check(len(talks) == 3, "there are no connections")
            equal(router.stop()[0], 0, "exit status")
            with open(file, "rb") as kept:
                data = kept.read()
            for how, damage in (("it is not complete", lambda data: data[:-1]),
                                ("it is no file of sessions", lambda data: b"#" + data[1:]),
                                ("its checksum is wrong", lambda data: data[:-60] + bytes(
                                    [data[-60] ^ 1]) + data[-59:])):
                router.stop()
                with open(file, "wb") as damaged:
                    damaged.write(damage(data))
                router = successor()
                check(f"{file} is not used: {how}; starting without it" in router.log(),
                      router.log()[-500:])
                equal(router.call("session.count")["sessions"], 0, "sessions")
        with tap.case("restart: without the file the router works; what was established is not"):
            check(len(talks) == 3, "there are no connections")
            plug()
            for talk in talks:
                talk.say("is anybody there?\n")
            came = select.select([talk.process.stdout for talk in talks], [], [], 1.5)[0]
            equal(came, [], "what came back")
            check(router.drops().get("session.tcp_no_session", 0) > 0, f"{router.drops()}")
            with contextlib.closing(Talk(lan, WAN, ECHO, 20604)) as talk:
                talk.echo()
            equal([json.loads(each)[4] for each in connections()],
                  [{"address": LAN, "port": 20604}], "sources of the sessions")
    return router


def main():
    arguments()
    tap = Tap("programs")
    with tap.lab() as lab:
        router = lab.router(config())
        lan, wan = plain_hosts(lab, router)
        wan.address("eth0", f"{WAN_SECOND}/24")
        with tap.case("socat through NAT"):
            for family in (4, 6):
                echo_server(wan, ECHO, family)
            with contextlib.closing(Talk(lan, WAN, ECHO, 20200)) as talk:
                talk.echo()
        tcp_streams(tap, router, lan, wan)
        udp_streams(tap, router, lan, wan)
        stun_types(tap, router, lan, wan)
        paths(tap, router, lan, wan)
        scans(tap, router, lan, wan)
        floods(tap, router, lan, wan)
        mss(tap, router, lan, wan)
        events(tap, lab, router, lan, wan)
        with tap.case("the router is well after all that, and has all its packet buffers"):
            router.alive()
            check(router.mbufs_in_use() < 3000, f"{router.mbufs_in_use()} buffers in use")
            check("error" not in router.log(), "errors in the log")
        restart(tap, lab, router, lan, wan)
    small_link(tap)
    tap.end()


if __name__ == "__main__":
    main()
