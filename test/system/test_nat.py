"""Sessions, firewall and NAT as real hosts see them: many streams through NAT both ways, port
forwards, pools, static addresses, hairpins, ping and traceroute, path-MTU discovery from behind the
other side, the type of NAT that a STUN client finds, port scans, and reloads under way."""
import contextlib
import copy
import json
import re
import secrets
import socket
import struct
import threading
import time

from lab import (LAN, LAN6, LAN_ROUTER, WAN, WAN6, WAN_ROUTER, Skip, Tap, arguments, check, equal,
                 far_network, hops, learnt_mtu, plain_config, plain_hosts, sessions, until)
from sockets import SHORT, connect, echo, refused, server, socket_in

POOL, STATIC, WAN_SECOND = "203.0.113.50", "203.0.113.60", "203.0.113.11"
FORWARDED = 8080

RULES = [
    {"name": "lan-out", "in": "lan", "out": "wan", "action": "accept"},
    {"name": "hairpin", "in": "lan", "out": "lan", "action": "accept"},
    {"name": "lan-router", "in": "lan", "to_router": True, "action": "accept"},
    {"name": "web", "in": "wan", "protocol": "tcp", "destination": LAN, "destination_port": 80,
     "action": "accept"},
    {"name": "iperf", "in": "wan", "protocol": ["tcp", "udp"], "destination": LAN,
     "destination_port": 5201, "action": "accept"},
    {"name": "wan-ping", "in": "wan", "to_router": True, "protocol": ["icmp", "icmpv6"],
     "icmp_type": "echo_request", "action": "accept"},
]
FORWARDS = [
    {"name": "web", "in": "wan", "protocol": "tcp", "destination_port": FORWARDED,
     "to": f"{LAN}:80"},
    {"name": "iperf-tcp", "in": "wan", "protocol": "tcp", "destination_port": 5201, "to": LAN},
    {"name": "iperf-udp", "in": "wan", "protocol": "udp", "destination_port": 5201, "to": LAN},
]
SOURCE = {"out": "wan", "source": "198.51.100.0/24", "to": "interface"}


def config(rules=(), source=None, forwards=(), static=(), **more):
    """lan hidden behind the router's address on wan; `rules` and `forwards` come behind the usual."""
    return plain_config(
        sessions={"size": 16384}, firewall={"default": "drop", "rules": [*RULES, *rules]},
        nat={"source": [{**SOURCE, **(source or {})}], "destination": [*FORWARDS, *forwards],
             "static": list(static)}, **more)


def scene(lab, document):
    router = lab.router(document)
    lan, wan = plain_hosts(lab, router)
    # The inside is not to be reached by its own addresses from outside: as behind a provider.
    wan.ip("route del default")
    wan.ip("route add default via 203.0.113.254 dev eth0 onlink")
    return router, lan, wan


# --- traffic ---

def streams(tap, router, lan, wan):
    for what, client, host, bind, address in (
            ("from lan through source NAT", lan, wan, WAN, WAN),
            ("from wan through a port forward", wan, lan, LAN, WAN_ROUTER)):
        for way, option in (("up", ()), ("down", ("-R",))):
            with tap.case(f"100 TCP streams {what}, {way}"):
                end = client.iperf(host, address, "-P", 100, *option, seconds=2, bind=bind)
                equal(len(end["streams"]), 100, "streams")
                rate = end["sum_received"]["bits_per_second"] / 1e6
                check(rate > 1, f"only {rate:.3f} Mbit/s")
                idle = [s for s in end["streams"] if s["receiver"]["bytes"] == 0]
                check(len(idle) < 10, f"{len(idle)} streams got nothing at all")
            with tap.case(f"10 UDP streams {what}, {way}"):
                total = client.iperf(host, address, "-u", "-b", "1M", "-l", 1200, "-P", 10,
                                     *option, bind=bind)["sum"]
                check(total["packets"] > 500, f"only {total['packets']} datagrams")
                check(total["lost_packets"] < total["packets"] / 10,
                      f"{total['lost_packets']} of {total['packets']} datagrams are lost")
    with tap.case("both directions of each session have counted"):
        tcp = [s for s in sessions(router, protocol="tcp", address=WAN) if s["forward"]["packets"] > 3]
        check(len(tcp) >= 150, f"only {len(tcp)} sessions of TCP")
        for each in tcp:
            check(each["backward"]["packets"] > 0, f"nothing came back: {each}")
            side = "translated_source" if each["in"] == "lan" else "destination"
            equal(each[side]["address"], WAN_ROUTER, side)


def integrity(tap, router, lan, wan):
    with tap.case("50 connections at once bring back what was sent, from the router's address"):
        with server(wan, 7000) as clients:
            problems = []

            def one():
                try:
                    with connect(lan, WAN, 7000, timeout=30) as own:
                        echo(own, secrets.token_bytes(200000))
                except Exception as error:  # told by the thread that waits
                    problems.append(str(error) or type(error).__name__)

            threads = [threading.Thread(target=one) for _ in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            equal(problems, [], "problems")
            equal({address for address, _ in clients}, {WAN_ROUTER}, "clients as wan sees them")
            equal(len({port for _, port in clients}), 50, "ports")
    with tap.case("a port is kept where it is free"):
        with server(wan, 7000) as clients, connect(lan, WAN, 7000, own_port=40404):
            until(lambda: clients, "the connection")
            equal(clients, [(WAN_ROUTER, 40404)], "client")
        listed = sessions(router, port=40404)
        equal(len(listed), 1, "sessions")
        equal(listed[0]["source"], {"address": LAN, "port": 40404}, "source")
    with tap.case("UDP: answers come back, others do not (endpoint-dependent filtering)"):
        own = socket_in(lan, socket.SOCK_DGRAM, timeout=SHORT)
        far = socket_in(wan, socket.SOCK_DGRAM, WAN, 7001, timeout=5)
        other = socket_in(wan, socket.SOCK_DGRAM, WAN, 7002)
        own.sendto(b"question", (WAN, 7001))
        data, client = far.recvfrom(100)
        equal((data, client[0]), (b"question", WAN_ROUTER), "as wan sees it")
        other.sendto(b"intruder", client)
        far.sendto(b"answer", client)
        equal(own.recvfrom(100), (b"answer", (WAN, 7001)), "answer")
        try:
            check(False, f"{own.recvfrom(100)} came through")
        except TimeoutError:
            pass
    with tap.case("a burst of datagrams from a new socket arrives whole"):
        far = socket_in(wan, socket.SOCK_DGRAM, WAN, 7006, timeout=SHORT)
        for attempt in range(5):
            own = socket_in(lan, socket.SOCK_DGRAM)
            for number in range(20):
                own.sendto(bytes([number]), (WAN, 7006))
            try:
                equal([far.recvfrom(100)[0][0] for _ in range(20)], list(range(20)), "datagrams")
            except TimeoutError:
                check(False, f"attempt {attempt}: some did not come; {router.drops()}")
    with tap.case("UDP without a checksum stays without, and passes"):
        own = socket_in(lan, socket.SOCK_DGRAM)
        own.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
        far = socket_in(wan, socket.SOCK_DGRAM, WAN, 7003)
        own.sendto(b"bare", (WAN, 7003))
        equal(far.recvfrom(100)[0], b"bare", "datagram")
    with tap.case("UDP datagrams of 8000 bytes pass in fragments, both ways"):
        own, far = socket_in(lan, socket.SOCK_DGRAM), socket_in(wan, socket.SOCK_DGRAM, WAN, 7004)
        data = secrets.token_bytes(8000)
        own.sendto(data, (WAN, 7004))
        back, client = far.recvfrom(9000)
        check(back == data, "the datagram has changed on its way out")
        far.sendto(data, client)
        check(own.recvfrom(9000)[0] == data, "the datagram has changed on its way back")


def forwards(tap, router, lan, wan):
    with tap.case("a port forward to another port; the server sees the client's address"):
        with server(lan, 80) as clients, connect(wan, WAN_ROUTER, FORWARDED) as own:
            echo(own, b"x" * 100000)
            equal(clients[0][0], WAN, "client")
    with tap.case("hairpin: lan reaches its own server at the outside address"):
        with server(lan, 80) as clients, connect(lan, WAN_ROUTER, FORWARDED) as own:
            echo(own, b"x" * 100000)
            equal(clients[0][0], WAN_ROUTER, "client")
    with tap.case("what is not forwarded is not answered"):
        with server(lan, 81):
            equal(refused(wan, WAN_ROUTER, 81), "silence", "port 81")
            equal(refused(wan, WAN_ROUTER, 80), "silence", "port 80")
    with tap.case("firewall.list has counted the sessions of the rules"):
        wan.ping(WAN_ROUTER)
        rules = {rule["name"]: rule for rule in router.call("firewall.list")["rules"]}
        for name in ("lan-out", "web", "hairpin", "wan-ping"):
            check(rules[name]["sessions"] > 0, f"{rules[name]}")
    with tap.case("IPv6 is not translated, and filtered: out yes, in no"):
        lan.ping(WAN6)
        wan.no_answer(LAN6)
        with server(wan, 7005, "::") as clients, connect(lan, WAN6, 7005) as own:
            echo(own, b"x" * 10000)
            equal(clients[0][0], LAN6, "client")
        with server(lan, 80, "::"):
            equal(refused(wan, LAN6, 80), "silence", "lan's port 80")


def icmp(tap, router, lan, wan):
    with tap.case("ping through NAT; several at once are told apart"):
        pings = [lan.start("ping", "-n", "-c", 5, "-i", "0.2", "-W", 5, WAN) for _ in range(5)]
        for each in pings:
            equal(each.wait(30), 0, "ping ended with status")
        lan.ping(WAN, "-s", 4000)
        check(len(sessions(router, protocol="icmp")) >= 5, "sessions of ICMP")
    with tap.case("wan pings the router, but nobody behind it"):
        wan.ping(WAN_ROUTER)
        wan.ip(f"route add 198.51.100.0/24 via {WAN_ROUTER}")
        wan.no_answer(LAN)
        wan.ip("route del 198.51.100.0/24")
    for method, options in (("UDP", ()), ("ICMP", ("-I",)), ("TCP", ("-T", "-p", 7000))):
        with tap.case(f"traceroute by {method} through NAT shows the router, then the host"):
            with server(wan, 7000):
                equal(hops(lan, WAN, *options), [LAN_ROUTER, WAN], "hops")
    with tap.case("an ICMP error from the other side finds the socket that it is about"):
        own = socket_in(lan, socket.SOCK_DGRAM)
        own.connect((WAN, 7099))
        own.send(b"to a closed port")
        try:
            check(False, f"{own.recv(100)} came back")
        except ConnectionRefusedError:
            pass


def path_mtu(tap):
    """Routers beyond the NAT, on either side, say that packets are too big."""
    document = config(
        rules=[{"name": "far", "in": "wan", "destination": "10.1.0.10", "action": "accept"}],
        forwards=[{"name": "far", "in": "wan", "protocol": "tcp", "destination_port": 9000,
                   "to": "10.1.0.10"}],
        routes=[{"prefix": "192.0.2.0/24", "via": WAN}, {"prefix": "10.1.0.0/24", "via": LAN}])
    with tap.lab() as lab:
        router, lan, wan = scene(lab, document)
        with tap.case("a router behind wan reports its MTU to a host behind NAT"):
            far = far_network(wan, "far-wan", "192.0.2.1/24", "192.0.2.10/24", 1300)
            lan.ping("192.0.2.10")
            output = lan.ping("192.0.2.10", "-M", "do", "-s", 1400, count=2, status=1)[2]
            check(f"From {WAN} icmp_seq=1 Frag needed and DF set (mtu = 1300)" in output, output)
            equal(learnt_mtu(lan, "192.0.2.10"), 1300, "MTU that the sender has learnt")
            lan.ping("192.0.2.10", "-M", "do", "-s", 1272)
        with tap.case("TCP through NAT finds the MTU and completes"):
            lan.ip("route flush cache")
            with server(far, 7000) as clients, connect(lan, "192.0.2.10", 7000) as own:
                # Only once the connection is there: its MSS is that of the larger MTU otherwise.
                echo(own, secrets.token_bytes(300000))
                equal(clients[0][0], WAN_ROUTER, "client")
        with tap.case("a router behind lan reports its MTU to a client of a port forward"):
            far = far_network(lan, "far-lan", "10.1.0.1/24", "10.1.0.10/24", 1280)
            far.ip("route change default via 10.1.0.1 advmss 1460")  # not to give it away
            with server(far, 9000), connect(wan, WAN_ROUTER, 9000) as own:
                own.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: always DF
                echo(own, secrets.token_bytes(300000))
            # The error came from where nobody outside can see: from the router's own address.
            equal(learnt_mtu(wan, WAN_ROUTER), 1280, "MTU that the client has learnt")
        router.alive()


# --- the type of NAT, after RFC 5780 ---

BINDING, CHANGE_REQUEST, XOR_MAPPED_ADDRESS, COOKIE = 1, 3, 0x20, 0x2112A442
CHANGE_ADDRESS, CHANGE_PORT = 4, 2


class StunServer:
    """Answers binding requests on two addresses and two ports; from another one if asked to."""

    def __init__(self, host):
        self.sockets = {(address, port): socket_in(host, socket.SOCK_DGRAM, address, port, None)
                        for address in (WAN, WAN_SECOND) for port in (3478, 3479)}
        for place in self.sockets:
            threading.Thread(target=self.serve, args=place, daemon=True).start()

    def serve(self, address, port):
        while True:
            data, client = self.sockets[address, port].recvfrom(1500)
            kind, length, cookie = struct.unpack("!HHI", data[:8])
            if kind != BINDING or cookie != COOKIE or len(data) != 20 + length:
                continue
            change = 0
            if length == 8 and struct.unpack("!HH", data[20:24]) == (CHANGE_REQUEST, 4):
                change = struct.unpack("!I", data[24:28])[0]
            place = ({WAN: WAN_SECOND, WAN_SECOND: WAN}[address] if change & CHANGE_ADDRESS
                     else address, 6957 - port if change & CHANGE_PORT else port)
            mapped = struct.pack("!BBHI", 0, 1, client[1] ^ COOKIE >> 16, struct.unpack(
                "!I", socket.inet_aton(client[0]))[0] ^ COOKIE)
            self.sockets[place].sendto(
                struct.pack("!HHI", 0x101, 12, COOKIE) + data[8:20] +
                struct.pack("!HH", XOR_MAPPED_ADDRESS, 8) + mapped, client)


def stun(own, place, change=0):
    """The address that the server sees, or None when no answer comes."""
    identity = secrets.token_bytes(12)
    attributes = struct.pack("!HHI", CHANGE_REQUEST, 4, change) if change else b""
    for _ in range(2):
        own.sendto(struct.pack("!HHI", BINDING, len(attributes), COOKIE) + identity + attributes,
                   place)
        deadline = time.monotonic() + SHORT
        while (left := deadline - time.monotonic()) > 0:
            own.settimeout(left)
            try:
                data = own.recvfrom(1500)[0]
            except TimeoutError:
                break
            if data[8:20] == identity:
                port, address = struct.unpack("!HI", data[26:32])
                return (socket.inet_ntoa(struct.pack("!I", address ^ COOKIE)),
                        port ^ COOKIE >> 16)
    return None


def nat_type(lan):
    """(mapping, filtering) as RFC 5780 section 4 finds them."""
    own = socket_in(lan, socket.SOCK_DGRAM)
    mapped = [stun(own, place) for place in ((WAN, 3478), (WAN_SECOND, 3478), (WAN_SECOND, 3479))]
    check(None not in mapped, f"no answer: {mapped}")
    mapping = "endpoint_independent" if len(set(mapped)) == 1 else "endpoint_dependent"
    own = socket_in(lan, socket.SOCK_DGRAM)
    if stun(own, (WAN, 3478), CHANGE_ADDRESS | CHANGE_PORT):
        return mapping, "endpoint_independent"
    return mapping, "address_dependent" if stun(own, (WAN, 3478), CHANGE_PORT) \
        else "endpoint_dependent"


def stun_types(tap, router, lan, wan):
    wan.address("eth0", f"{WAN_SECOND}/24")
    StunServer(wan)
    until(lambda: wan.reaches(WAN_ROUTER), "wan")
    with tap.case("STUN: endpoint-independent mapping, endpoint-dependent filtering by default"):
        equal(nat_type(lan), ("endpoint_independent", "endpoint_dependent"), "type")
    open_rule = {"name": "games", "in": "wan", "protocol": "udp", "destination": LAN,
                 "action": "accept"}
    with tap.case("STUN: endpoint-independent filtering, where configured and the firewall agrees"):
        router.call("config.apply", {"config": config(
            rules=[open_rule], source={"filtering": "endpoint_independent"})})
        equal(nat_type(lan), ("endpoint_independent", "endpoint_independent"), "type")
    with tap.case("STUN: the firewall has the last word"):
        router.call("config.apply", {"config": config(
            source={"filtering": "endpoint_independent"})})
        equal(nat_type(lan), ("endpoint_independent", "endpoint_dependent"), "type")
    with tap.case("two hosts behind the NAT meet by hole punching"):
        router.call("config.apply", {"config": config()})
        one, two = (socket_in(lan, socket.SOCK_DGRAM, timeout=SHORT) for _ in range(2))
        first, second = stun(one, (WAN, 3478)), stun(two, (WAN, 3478))
        for _ in range(2):
            one.sendto(b"from one", second)
            two.sendto(b"from two", first)
        for own, expected in ((one, (b"from two", second)), (two, (b"from one", first))):
            try:
                equal(own.recvfrom(100), expected, "came")
            except TimeoutError:
                check(False, f"{expected} did not come; {router.drops()}, "
                             f"{sessions(router, port=first[1]) + sessions(router, port=second[1])}")


# --- scans ---

SCAN = """
import json, sys
from scapy.all import IP, TCP, UDP, conf, sr
conf.verb = 0
kind, target, ports = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
flags = {"SYN": "S", "FIN": "F", "NULL": "", "XMAS": "FPU", "ACK": "A", "SYN-ACK": "SA"}.get(kind)
if flags is None:
    packets = [IP(dst=target) / UDP(sport=45000, dport=port) for port in ports]
else:
    packets = [IP(dst=target) / TCP(sport=45000, dport=port, flags=flags) for port in ports]
answered, _ = sr(packets, timeout=2, inter=0.002)
found = {}
for sent, answer in answered:
    if answer.haslayer(TCP) and answer[IP].src == target:
        found[sent.dport] = str(answer[TCP].flags)
    else:
        found[sent.dport] = "icmp %s" % answer[IP].payload.code
print(json.dumps(found))
"""


def scan(wan, kind, ports, target=WAN_ROUTER):
    done = wan.run("/usr/bin/python3", "-c", SCAN, kind, target, json.dumps(ports), status=None,
                   timeout=120)
    if "ModuleNotFoundError" in done.stderr:
        raise Skip("python3-scapy is not installed")
    equal(done.returncode, 0, f"scapy: {done.stderr}")
    return {int(port): answer for port, answer in json.loads(done.stdout).items()}


def scans(tap, router, lan, wan):
    ports = [*range(1, 200), FORWARDED]
    # The kernel of wan knows nothing of these connections and would answer with RST.
    with server(lan, 80), server(wan, 45000):
        with tap.case("a SYN scan finds the forwarded port, and silence elsewhere"):
            router.call("stats.clear")
            equal(scan(wan, "SYN", ports), {FORWARDED: "SA"}, "answers")
            check(router.drops().get("firewall.default", 0) >= 199, f"{router.drops()}")
        for kind in ("FIN", "NULL", "XMAS", "ACK", "SYN-ACK"):
            with tap.case(f"{kind} scan: nothing answers"):
                router.call("session.flush")
                time.sleep(0.3)
                router.call("stats.clear")
                equal(scan(wan, kind, ports), {}, "answers")
                reasons = router.drops()
                # The forwarded port is open, but not for segments out of the blue.
                if kind in ("FIN", "NULL", "XMAS"):
                    check(reasons.get("session.tcp_flags", 0) >= 200, f"{reasons}")
                else:
                    check(reasons.get("session.tcp_no_session", 0) >= 1, f"{reasons}")
                    check(reasons.get("firewall.default", 0) >= 199, f"{reasons}")
        with tap.case("UDP scan: nothing answers"):
            equal(scan(wan, "UDP", ports[:100]), {}, "answers")
        with tap.case("\"reject\" answers a SYN with RST and UDP with an ICMP error"):
            document = config(icmp={"rate_limit": 100000, "burst": 10000})
            document["firewall"]["default"] = "reject"
            router.call("config.apply", {"config": document})
            equal(refused(wan, WAN_ROUTER, FORWARDED), "open", "the forwarded port")
            found = scan(wan, "SYN", ports[:-1])
            equal(set(found.values()), {"RA"}, "the others")
            check(len(found) >= 100, f"only {len(found)} answers")
            equal(set(scan(wan, "UDP", ports[:20]).values()), {"icmp 13"}, "UDP")
            router.call("config.apply", {"config": config()})


# --- pools, static addresses ---

def pools(tap, router, lan, wan):
    def client_of(own_host, address, port=7000):
        with server(wan, port) as clients, connect(own_host, address, port) as own:
            echo(own, b"x" * 1000)
            return clients[0][0]

    with tap.case("a pool: lan appears as an address that only the NAT has"):
        router.call("config.apply", {"config": config(source={"to": POOL})})
        equal(client_of(lan, WAN), POOL, "client")
        equal(wan.run("ping", "-c", 1, "-W", 1, POOL, status=None).returncode, 1, "ping of the pool")
        check(f"{POOL} dev eth0 lladdr 02:00:00:00:02:01" in wan.ip("neigh show"),
              "the router does not answer ARP for the pool")
    with tap.case("a static address: both ways, and ping"):
        router.call("config.apply", {"config": config(
            static=[{"outside": STATIC, "inside": LAN}],
            rules=[{"name": "static", "in": "wan", "destination": LAN, "action": "accept"}])})
        equal(client_of(lan, WAN), STATIC, "client")
        wan.ping(STATIC)
        with server(lan, 81) as clients, connect(wan, STATIC, 81) as own:
            echo(own, b"x" * 1000)
            equal(clients[0][0], WAN, "client")
    with tap.case("endpoint-dependent mapping with ten ports: 30 connections to three places"):
        router.call("config.apply", {"config": config(
            source={"mapping": "endpoint_dependent", "ports": "50000-50009"})})
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server(wan, port)) for port in (7010, 7011, 7012)]
            for _ in range(10):
                for port in (7010, 7011, 7012):
                    stack.enter_context(connect(lan, WAN, port))
            for each in clients:
                until(lambda e=each: len(e) == 10, "all connections")
                equal(sorted(port for _, port in each), list(range(50000, 50010)), "ports")
            router.call("stats.clear")
            equal(refused(lan, WAN, 7010), "silence", "one more connection")
            check(router.drops().get("nat.ports_exhausted", 0) > 0, f"{router.drops()}")
    router.call("config.apply", {"config": config()})


# --- reloads ---

def reloads(tap, router, lan, wan):
    with server(wan, 7000), connect(lan, WAN, 7000) as own:
        with tap.case("reload: a connection goes on through configurations that still allow it"):
            for number in range(10):
                echo(own, secrets.token_bytes(20000))
                more = [{"name": f"rule-{number}", "source": f"10.{number}.0.0/16",
                         "action": "drop"}]
                router.call("config.apply", {"config": config(rules=more)})
            echo(own, secrets.token_bytes(20000))
            router.call("config.apply", {"config": config()})
        with tap.case("a connection that the rules no longer allow ends"):
            document = copy.deepcopy(config())
            document["firewall"]["rules"][0]["protocol"] = "udp"
            router.call("config.apply", {"config": document})
            own.settimeout(SHORT)

            def ended():
                own.send(b"still there?")
                try:
                    return not own.recv(100)
                except TimeoutError:
                    return True

            until(ended, "nothing comes back")
            until(lambda: not sessions(router, port=7000, state="tcp_established"), "no session")
            router.call("config.apply", {"config": config()})
    with tap.case("routerctl shows sessions, and ends them"):
        with server(wan, 7000), connect(lan, WAN, 7000, own_port=41414):
            shown = router.ctl("show", "sessions", "port", "41414").stdout
            check(re.search(rf"^tcp +{LAN}:41414 +{WAN}:7000 +from {WAN_ROUTER}:41414 +tcp_", shown,
                            re.M), shown)
            check("Sessions" in router.ctl("show", "sessions", "summary").stdout, "summary")
            check("lan-out" in router.ctl("show", "firewall").stdout, "firewall")
            check("iperf-tcp" in router.ctl("show", "nat").stdout, "NAT")
            equal(router.ctl("clear", "sessions", "port", "41414").stdout, "1 session ended\n",
                  "clear sessions")
            until(lambda: not sessions(router, port=41414), "the session is gone")
    with tap.case("without firewall and NAT the router routes, and has no sessions"):
        router.call("config.apply", {"config": plain_config()})
        equal(router.call("session.count")["size"], 0, "size of the table")
        wan.ip(f"route add 198.51.100.0/24 via {WAN_ROUTER}")
        wan.ping(LAN)
        wan.ip("route del 198.51.100.0/24")
        router.call("config.apply", {"config": config()})
        lan.ping(WAN)


def main():
    arguments()
    tap = Tap("nat")
    with tap.lab() as lab:
        router, lan, wan = scene(lab, config())
        integrity(tap, router, lan, wan)
        forwards(tap, router, lan, wan)
        icmp(tap, router, lan, wan)
        streams(tap, router, lan, wan)
        stun_types(tap, router, lan, wan)
        scans(tap, router, lan, wan)
        pools(tap, router, lan, wan)
        reloads(tap, router, lan, wan)
        with tap.case("the router is well after all that, and has all its packet buffers"):
            router.alive()
            check(router.mbufs_in_use() < 3000, f"{router.mbufs_in_use()} buffers in use")
            check("error" not in router.log(), "errors in the log")
    path_mtu(tap)
    tap.end()


if __name__ == "__main__":
    main()
