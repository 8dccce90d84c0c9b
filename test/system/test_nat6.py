"""NPTv6 and NAT64 as real hosts see them. NAT64: a host without IPv4 reaches hosts without IPv6 by
ping, TCP, UDP, HTTP and traceroute, with all that ICMP has to tell; it is reached from there by
static bindings, and by others of its kind in hairpins. NPTv6: hosts keep their addresses inside,
and are reached under others outside. Reload and restart keep connections."""
import contextlib
import errno
import os
import re
import secrets
import socket
import threading

from lab import (LAN6, LAN6_ROUTER, PATIENCE, WAN, WAN6, WAN6_ROUTER, WAN_ROUTER, Tap, arguments,
                 check, equal, far_network, hops, learnt_mtu, need, plain_config, sessions, until)
from sockets import SHORT, connect, echo, refused, server, socket_in

PORT, CLOSED, WEB = 7000, 7099, 80
IP_MTU_DISCOVER, DONT, DO = 10, 0, 2
SO_NO_CHECK = 11
BLOCK = 200000  # bytes

LAN_OUT = {"name": "lan-out", "in": "lan", "out": "wan", "action": "accept"}
RULES = [
    LAN_OUT,
    {"name": "lan-router", "in": "lan", "to_router": True, "action": "accept"},
    {"name": "wan-ping", "in": "wan", "to_router": True, "protocol": ["icmp", "icmpv6"],
     "icmp_type": "echo_request", "action": "accept"},
]


def hosts(lab):
    """lan and wan, both ready to tell of each error: Linux is sparing with them."""
    made = [lab.host(name) for name in ("lan", "wan")]
    for host in made:
        host.sysctl("net/ipv4/icmp_ratemask", 0)
        host.sysctl("net/ipv6/icmp/ratelimit", 0)
    return made


def plug(host, router, device, number, *addresses, **gateways):
    host.plug(router, device, *addresses, mac=f"02:00:00:00:0{number}:10", **gateways)


def linux_lost(*hosts):
    return sum(host.kernel_drops("eth0") + host.socket_drops() for host in hosts)


def reassembled(host):
    """Datagrams that came to the host in fragments."""
    return int(re.search(r"^Ip6ReasmOKs\s+(\d+)", host.run("cat", "/proc/net/snmp6").stdout,
                         re.M).group(1))


def udp_echo(client, address, host, bind, data, own_address="::", own_port=0):
    """One datagram there and back; returns the client's address as the other side sees it."""
    with socket_in(client, socket.SOCK_DGRAM, own_address, own_port) as own, \
            socket_in(host, socket.SOCK_DGRAM, bind, PORT) as far:
        own.sendto(data, (address, PORT))
        back, place = far.recvfrom(65536)
        check(back == data, "the datagram has changed on its way out")
        far.sendto(data, place)
        back, server_place = own.recvfrom(65536)
        check(back == data, "the datagram has changed on its way back")
        equal(server_place[:2], (address, PORT), "server as the client sees it")
        return place[:2]


def icmp_refuses(host, address, size):
    """A datagram to a closed port: the answer is an error of the socket."""
    own = socket_in(host, socket.SOCK_DGRAM, "::")
    own.connect((address, CLOSED))
    own.send(bytes(size))
    try:
        check(False, f"{own.recv(100)} came back")
    except ConnectionRefusedError:
        pass


def streams(router, client, host, address, *options, bind):
    """20 paced TCP streams of iperf3; each has to move its share."""
    router.call("stats.clear")
    end = client.iperf(host, address, "-6", "-P", 20, "-b", "1M", *options, bind=bind)
    moved = sorted(each["receiver"]["bytes"] for each in end["streams"])
    equal(len(moved), 20, "streams")
    check(moved[0] > 50000, f"the slowest streams moved {moved[:5]} bytes")
    router.no_drops()


def datagrams(router, client, host, address, *options, bind):
    """UDP datagrams of iperf3 with 1400 bytes each; returns how many there were."""
    router.call("stats.clear")
    lost = linux_lost(client, host)
    total = client.iperf(host, address, "-6", "-u", "-b", "2M", "-l", 1400, "-P", 5, *options,
                         bind=bind)["sum"]
    lost = linux_lost(client, host) - lost
    check(total["packets"] > 500, f"only {total['packets']} datagrams")
    # What the last datagrams do while iperf3 says good-bye is not looked at.
    check(total["lost_packets"] <= lost + 5,
          f"{total['lost_packets']} of {total['packets']} are lost, {lost} in Linux")
    router.no_drops()
    return total["packets"]


# --- NAT64 ---

def behind(ipv4, prefix="64:ff9b:1::"):
    """The IPv6 address, as programs print it."""
    return prefix + "%x:%x" % tuple(int.from_bytes(socket.inet_aton(ipv4)[at:at + 2], "big")
                                    for at in (0, 2))


LAN6_SECOND, FAR, FAR6 = "2001:db8:1::20", "192.0.2.10", "2001:db8:3::10"
SERVER, SERVER_FAR = behind(WAN), behind(FAR)


def nat64_config(rules=(), static=(), **rule):
    usual = {"in": "lan", "out": "wan", "to": "interface", **rule}
    return plain_config(
        lan={"addresses": [f"{LAN6_ROUTER}/64"]}, wan={"addresses": [f"{WAN_ROUTER}/24"]},
        routes=[{"prefix": "192.0.2.0/24", "via": WAN}, {"prefix": "2001:db8:3::/64", "via": LAN6}],
        sessions={"size": 16384}, firewall={"default": "drop", "rules": [*RULES, *rules]},
        nat={"nat64": [{"name": "ours", "prefix": "64:ff9b:1::/96", **usual,
                        "static": list(static)},
                       {"name": "well-known", "prefix": "64:ff9b::/96", **usual}]})


WHOLE = "203.0.113.50"


def bound_config(rules=()):
    """A port of the router and an address of their own lead to lan, which the firewall lets."""
    return nat64_config(
        rules=[{"name": "web", "in": "wan", "protocol": "tcp", "destination": LAN6_SECOND,
                "destination_port": WEB, "action": "accept"},
               {"name": "ping", "in": "wan", "protocol": "icmpv6", "icmp_type": "echo_request",
                "destination": LAN6, "action": "accept"},
               {"name": "echo", "in": "wan", "protocol": "udp", "destination": LAN6,
                "action": "accept"},
               {"name": "turn", "in": "lan", "out": "lan", "action": "accept"}, *rules],
        static=[{"protocol": "tcp", "outside": "interface", "outside_port": 8080,
                 "inside": LAN6_SECOND, "inside_port": WEB},
                {"outside": WHOLE, "inside": LAN6}])


def nat64_plug(router, lan, wan):
    plug(lan, router, "lan", 1, f"{LAN6}/64", f"{LAN6_SECOND}/64", gateway6=LAN6_ROUTER)
    plug(wan, router, "wan", 2, f"{WAN}/24", gateway=WAN_ROUTER)
    router.settled()
    until(lambda: lan.reaches(LAN6_ROUTER), "lan reaches the router")
    until(lambda: wan.reaches(WAN_ROUTER), "wan reaches the router")
    router.call("stats.clear")


def nat64_ping(tap, router, lan, wan):
    with tap.case("NAT64: ping"):
        lan.ping(SERVER, "-I", LAN6)
        router.no_drops()
    with tap.case("NAT64: ping -s 1400 passes; the answers, without DF, come in two pieces"):
        before = reassembled(lan)
        lan.ping(SERVER, "-s", 1400, count=3)
        check(reassembled(lan) - before >= 3, "no fragments have come")
        router.no_drops()
    with tap.case("NAT64: ping -s 3000, which lan sends in pieces, is dropped: family_icmp"):
        lan.no_answer(SERVER, "-s", 3000)
        check(router.drops().get("session.family_icmp", 0) >= 2, f"{router.drops()}")
        router.no_drops("session.family_icmp", "session.fragment_refused")
    for what, address in (
            ("documentation addresses behind 64:ff9b::/96", behind(WAN, "64:ff9b::")),
            ("the router's own address", behind(WAN_ROUTER)),
            ("the broadcast address", behind("203.0.113.255"))):
        with tap.case(f"NAT64: {what} cannot be reached"):
            router.call("stats.clear")
            lan.no_answer(address)
            equal(refused(lan, address, PORT), "silence", "TCP")
            check(router.drops().get("nat.nat64_destination", 0) >= 3, f"{router.drops()}")
            router.no_drops("nat.nat64_destination")


def nat64_tcp(tap, router, lan, wan):
    for way, options in (("up", ()), ("down", ("-R",))):
        with tap.case(f"NAT64: 20 TCP streams, {way}; wan sees the router's address"):
            streams(router, lan, wan, SERVER, *options, bind=WAN)
            listed = [each for each in sessions(router, protocol="tcp", port=5201)
                      if each["forward"]["packets"] > 3]
            check(len(listed) >= 20, f"{len(listed)} sessions")
            for each in listed:
                equal((each["family"], each["source"]["address"], each["destination"]["address"],
                       each["translated_source"]["address"],
                       each["translated_destination"]["address"]),
                      ("ipv6", each["source"]["address"], SERVER, WAN_ROUTER, WAN), "addresses")
                check(each["backward"]["packets"] > 0, f"nothing came back: {each}")
    with tap.case("NAT64: curl gets a page from an HTTP server"):
        need("curl")
        page, copied = os.path.join(wan.lab.directory, "page"), wan.lab.path("page.copy")
        with open(page, "wb") as file:
            file.write(secrets.token_bytes(BLOCK))
        process = wan.serve("/usr/bin/python3", "-u", "-m", "http.server", 8080, "--bind", WAN,
                            "--directory", wan.lab.directory, ready="Serving HTTP")
        try:
            lan.run("curl", "-sS", "-g", "--noproxy", "*", "-m", 20, "-o", copied,
                    f"http://[{SERVER}]:8080/page")
        finally:
            wan.lab.stop(process)
        with open(page, "rb") as one, open(copied, "rb") as other:
            check(one.read() == other.read(), "the page has changed on its way")
    with tap.case("NAT64: two addresses of lan use the same port at once"):
        with server(wan, PORT) as clients, contextlib.ExitStack() as stack:
            owns = [stack.enter_context(connect(lan, SERVER, PORT, 40404, own_address=address))
                    for address in (LAN6, LAN6_SECOND)]
            problems = []

            def talk(own):
                try:
                    echo(own, secrets.token_bytes(BLOCK))
                except Exception as error:  # told by the thread that waits
                    problems.append(str(error) or type(error).__name__)

            threads = [threading.Thread(target=talk, args=(own,)) for own in owns]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            equal(problems, [], "problems")
            equal({address for address, _ in clients}, {WAN_ROUTER}, "clients as wan sees them")
            ports = [port for _, port in clients]
            equal((len(set(ports)), 40404 in ports), (2, True), f"different ports of {ports}")
            equal({each["source"]["address"]: each["translated_source"]["port"] in ports
                   for each in sessions(router, protocol="tcp", port=40404)
                   if each["source"]["port"] == 40404},
                  {LAN6: True, LAN6_SECOND: True}, "sources of the sessions")
    with tap.case("NAT64: routerctl shows sessions with both families, and the rules"):
        with server(wan, PORT), connect(lan, SERVER, PORT, 41414, own_address=LAN6) as own:
            echo(own, b"established")
            shown = router.ctl("show", "sessions", "port", "41414").stdout
            check(re.search(rf"^tcp +\[{LAN6}\]:41414 +\[{SERVER}\]:{PORT} "
                            rf"+from {WAN_ROUTER}:41414 to {WAN}:{PORT} +tcp_established", shown,
                            re.M), shown)
        shown = router.ctl("show", "nat").stdout
        check(re.search(rf"^ours +64:ff9b:1::/96 +wan +{WAN_ROUTER} ", shown, re.M), shown)


def nat64_udp(tap, router, lan, wan):
    with tap.case("NAT64: UDP datagrams of 1400 bytes, up"):
        datagrams(router, lan, wan, SERVER, bind=WAN)
    with tap.case("NAT64: UDP datagrams of 1400 bytes with DF, down: they come whole"):
        before = reassembled(lan)
        datagrams(router, lan, wan, SERVER, "-R", bind=WAN)
        equal(reassembled(lan) - before, 0, "datagrams that came in pieces")
    with tap.case("NAT64: UDP datagrams of 1400 bytes without DF, down: they come in pieces"):
        wan.sysctl("net/ipv4/ip_no_pmtu_disc", 1)
        try:
            before = reassembled(lan)
            count = datagrams(router, lan, wan, SERVER, "-R", bind=WAN)
            came = reassembled(lan) - before
            check(came > count * 0.9, f"{came} of {count} came in pieces")
        finally:
            wan.sysctl("net/ipv4/ip_no_pmtu_disc", 0)
    with tap.case("NAT64: UDP datagrams of 8000 bytes pass in fragments, both ways"):
        router.call("stats.clear")
        client = udp_echo(lan, SERVER, wan, WAN, secrets.token_bytes(8000))
        equal(client[0], WAN_ROUTER, "client")
        router.no_drops()
    with tap.case("NAT64: UDP without a checksum gets one, which Linux asks of IPv6"):
        own = socket_in(lan, socket.SOCK_DGRAM, "::")
        far = socket_in(wan, socket.SOCK_DGRAM, WAN, PORT)
        far.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        far.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DONT)
        own.sendto(b"question", (SERVER, PORT))
        client = far.recvfrom(100)[1]
        for size in (0, 1, 33, 1300):  # the last one in pieces
            data = secrets.token_bytes(size)
            far.sendto(data, client)
            check(own.recvfrom(2000)[0] == data, f"{size} bytes have changed")
    with tap.case("NAT64: nobody else answers; with endpoint-independent filtering anybody may"):
        games = {"name": "games", "in": "wan", "out": "lan", "protocol": "udp",
                 "destination": [LAN6, LAN6_SECOND], "action": "accept"}
        for document, expected in (
                (nat64_config(), None), (nat64_config(rules=[games]), None),
                (nat64_config(filtering="endpoint_independent"), None),
                (nat64_config(rules=[games], filtering="endpoint_independent"), b"intruder")):
            router.call("config.apply", {"config": document})
            own = socket_in(lan, socket.SOCK_DGRAM, "::", timeout=5 if expected else 0.3)
            with socket_in(wan, socket.SOCK_DGRAM, WAN, PORT) as far, \
                    socket_in(wan, socket.SOCK_DGRAM, WAN, PORT + 1) as other:
                own.sendto(b"question", (SERVER, PORT))
                other.sendto(b"intruder", far.recvfrom(100)[1])
                try:
                    came = own.recvfrom(100)[0]
                except TimeoutError:
                    came = None
                equal(came, expected, "came")
        router.call("config.apply", {"config": nat64_config()})


def nat64_errors(tap, router, lan, wan):
    with tap.case("NAT64: what a router or the last one cannot reach is told to the program"):
        wan.sysctl("net/ipv4/ip_forward", 1)
        wan.ip("route add prohibit 192.0.2.98")
        wan.ip("route add unreachable 192.0.2.99")
        for address, expected in (("192.0.2.98", errno.EACCES), ("192.0.2.99", errno.ENETUNREACH),
                                  ("203.0.113.77", errno.EHOSTUNREACH)):
            try:
                connect(lan, behind(address), PORT, timeout=PATIENCE)
                check(False, f"{address} answered")
            except OSError as error:
                equal(error.errno, expected, f"error of {address}: {error}")
    with tap.case("NAT64: port unreachable becomes an error of lan's socket"):
        icmp_refuses(lan, SERVER, 100)
        icmp_refuses(lan, SERVER, 3000)  # in fragments
    with tap.case("NAT64: port unreachable of lan becomes an error of wan's socket"):
        far = socket_in(wan, socket.SOCK_DGRAM, WAN, PORT)
        with socket_in(lan, socket.SOCK_DGRAM, "::") as own:
            own.sendto(b"question", (SERVER, PORT))
            far.connect(far.recvfrom(100)[1])
        far.send(b"too late")
        try:
            check(False, f"{far.recv(100)} came back")
        except ConnectionRefusedError:
            pass
        far.close()
    with tap.case("NAT64: a closed TCP port refuses at once"):
        equal(refused(lan, SERVER, CLOSED), "reset", "a closed port")


def nat64_path(tap, router, lan, wan):
    far = far6 = None
    with tap.case("NAT64: traceroute shows the router, then IPv4 routers behind the prefix"):
        far = far_network(wan, "far-wan", "192.0.2.1/24", f"{FAR}/24", 1300)
        far.ip("route change default via 192.0.2.1 advmss 1460")  # not to give the MTU away
        until(lambda: lan.reaches(SERVER_FAR), "lan reaches the far network")
        router.call("stats.clear")
        for options in ((), ("-I",), ("-T", "-p", PORT)):
            equal(hops(lan, SERVER_FAR, "-6", *options), [LAN6_ROUTER, SERVER, SERVER_FAR],
                  f"hops {options}")
        router.no_drops("local.time_exceeded")
    with tap.case("NAT64: tracepath and ping find the MTU of an IPv4 link, 20 bytes more"):
        check(far, "there is no far network")
        need("tracepath")
        output = lan.run("tracepath", "-6", "-n", SERVER_FAR).stdout
        check("Resume: pmtu 1320 hops 3 back 3" in output, output)
        equal(learnt_mtu(lan, SERVER_FAR), 1320, "MTU that lan has learnt")
        lan.ip("-6 route flush cache")
        output = lan.ping(SERVER_FAR, "-M", "do", "-s", 1400, count=2, status=1)[2]
        check(re.search(rf"From {SERVER} icmp_seq=1 Packet too big: mtu=1320", output), output)
    for mtu, learnt in ((1300, 1320), (1000, 1280)):
        with tap.case(f"NAT64: TCP and UDP pass an IPv4 link with an MTU of {mtu}"):
            check(far, "there is no far network")
            for space, device in ((wan, "far0"), (far, "eth0")):
                space.ip(f"link set {device} mtu {mtu}")
            lan.ip("-6 route flush cache")
            equal(learnt_mtu(lan, SERVER_FAR), None, "MTU before")
            with server(far, PORT) as clients, connect(lan, SERVER_FAR, PORT) as own:
                echo(own, secrets.token_bytes(BLOCK))
                equal(clients[0][0], WAN_ROUTER, "client")
            equal(learnt_mtu(lan, SERVER_FAR), learnt, "MTU that lan has learnt")
            udp_echo(lan, SERVER_FAR, far, FAR, secrets.token_bytes(1200))
            udp_echo(lan, SERVER_FAR, far, FAR, secrets.token_bytes(3000))
    for mtu in (1350, 1280):
        with tap.case(f"NAT64: an IPv4 server learns of an IPv6 link with an MTU of {mtu}"):
            if not far6:
                far6 = far_network(lan, "far-lan", "2001:db8:3::1/64", f"{FAR6}/64", mtu)
                far6.ip("-6 route change default via 2001:db8:3::1 advmss 1440")
            for space, device in ((lan, "far0"), (far6, "eth0")):
                space.ip(f"link set {device} mtu {mtu}")
            wan.ip("route flush cache")
            equal(learnt_mtu(wan, WAN_ROUTER), None, "MTU before")
            with server(wan, PORT), connect(far6, SERVER, PORT) as own:
                echo(own, secrets.token_bytes(BLOCK))
            equal(learnt_mtu(wan, WAN_ROUTER), mtu - 20, "MTU that wan has learnt")
            udp_echo(far6, SERVER, wan, WAN, secrets.token_bytes(3000))
    with tap.case("NAT64: a full IPv4 packet with DF is too big for IPv6; the router says so"):
        wan.ip("route flush cache")
        own = socket_in(lan, socket.SOCK_DGRAM, "::")
        far = socket_in(wan, socket.SOCK_DGRAM, WAN, PORT)
        far.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DO)
        own.sendto(b"question", (SERVER, PORT))
        client = far.recvfrom(100)[1]
        far.sendto(bytes(1472), client)
        until(lambda: learnt_mtu(wan, WAN_ROUTER) == 1480, "wan has learnt 1480 bytes")
        far.sendto(bytes(1452), client)
        equal(len(own.recvfrom(2000)[0]), 1452, "bytes that came")
        wan.ip("route flush cache")


def restart(lab, router, document):
    """Another router in its place, with new devices."""
    equal(router.stop()[0], 0, "exit status")
    check(os.path.exists(router.socket + ".sessions"), "there is no file of sessions")
    made = lab.router(document, space=router.space, options=("-s", router.socket))
    made.socket = router.socket
    check(re.search(r"[1-9]\d* sessions? (is|are) taken back from .* 0 are not possible",
                    made.log()), made.log()[-500:])
    return made


def kept(router, own_port):
    """What does not change of the connections from that port."""
    return [[each.get(key) for key in ("state", "source", "destination", "translated_source",
                                       "translated_destination")]
            for each in sessions(router, protocol="tcp", port=own_port)]


def nat64_bound(tap, router, lan, wan):
    router.call("config.apply", {"config": bound_config()})
    router.call("stats.clear")
    with tap.case("NAT64: wan reaches lan by a static binding; lan sees it behind the prefix"):
        with server(lan, WEB, LAN6_SECOND) as clients, connect(wan, WAN_ROUTER, 8080) as own:
            echo(own, secrets.token_bytes(BLOCK))
            equal([client[0] for client in clients], [SERVER], "clients")
            equal([[each["destination"], each["translated_source"]["address"],
                    each["translated_destination"]]
                   for each in sessions(router, protocol="tcp", port=8080)
                   if each["in"] == "wan"],
                  [[{"address": WAN_ROUTER, "port": 8080}, SERVER,
                    {"address": LAN6_SECOND, "port": WEB}]], "sessions")
        router.no_drops()
    with tap.case("NAT64: curl gets a page from an HTTP server on lan"):
        need("curl")
        page, copied = os.path.join(lan.lab.directory, "page6"), lan.lab.path("page6.copy")
        with open(page, "wb") as file:
            file.write(secrets.token_bytes(BLOCK))
        process = lan.serve("/usr/bin/python3", "-u", "-m", "http.server", WEB, "--bind",
                            LAN6_SECOND, "--directory", lan.lab.directory, ready="Serving HTTP")
        try:
            for host, place in ((wan, WAN_ROUTER), (lan, f"[{behind(WAN_ROUTER)}]")):
                host.run("curl", "-sS", "-g", "--noproxy", "*", "-m", 20, "-o", copied,
                         f"http://{place}:8080/page6")
                with open(page, "rb") as one, open(copied, "rb") as other:
                    check(one.read() == other.read(), "the page has changed on its way")
                os.remove(copied)
        finally:
            lan.lab.stop(process)
        router.no_drops()
    with tap.case("NAT64: a static address answers ping and UDP, in pieces too"):
        wan.ping(WHOLE)
        wan.ping(WHOLE, "-s", 1400)
        for size in (100, 1300, 8000):
            data = secrets.token_bytes(size)
            with socket_in(wan, socket.SOCK_DGRAM, WAN) as own, \
                    socket_in(lan, socket.SOCK_DGRAM, LAN6, PORT) as far:
                own.sendto(data, (WHOLE, PORT))
                back, place = far.recvfrom(65536)
                check(back == data, "the datagram has changed on its way in")
                equal(place[0], SERVER, "client as lan sees it")
                far.sendto(data, place)
                check(own.recvfrom(65536) == (data, (WHOLE, PORT)), "another answer")
        router.no_drops()
    with tap.case("NAT64: that host leaves with its static address, others with the router's"):
        with server(wan, PORT) as clients:
            for address in (LAN6, LAN6_SECOND):
                with connect(lan, SERVER, PORT, 40408, own_address=address) as own:
                    echo(own, secrets.token_bytes(20000))
            equal(clients, [(WHOLE, 40408), (WAN_ROUTER, 40408)], "clients")
    with tap.case("NAT64: hairpins by a static port, an address and a mapping"):
        turn, whole = behind(WAN_ROUTER), behind(WHOLE)
        with server(lan, WEB, LAN6_SECOND) as clients, \
                connect(lan, turn, 8080, 40409, own_address=LAN6) as own:
            echo(own, secrets.token_bytes(BLOCK))
            equal(clients, [(whole, 40409)], "client")
        lan.ping(whole, "-I", LAN6_SECOND)
        icmp_refuses(lan, whole, 100)
        # A mapping, as a STUN server would tell it.
        with socket_in(lan, socket.SOCK_DGRAM, LAN6_SECOND, 40410) as own, \
                socket_in(lan, socket.SOCK_DGRAM, LAN6, 40411) as other, \
                socket_in(wan, socket.SOCK_DGRAM, WAN, PORT) as stun:
            own.sendto(b"who am I?", (SERVER, PORT))
            port = stun.recvfrom(100)[1][1]
            for size in (1, 100, 8000):
                data = secrets.token_bytes(size)
                other.sendto(data, (turn, port))
                back, place = own.recvfrom(65536)
                check(back == data, "the datagram has changed on its way")
                equal(place[:2], (whole, 40411), "sender")
                own.sendto(data, place)
                back, place = other.recvfrom(65536)
                check(back == data, "the answer has changed on its way")
                equal(place[:2], (turn, port), "who answers")
        router.no_drops()
    with tap.case("NAT64: what the firewall does not let in stays out"):
        equal(refused(wan, WHOLE, WEB), "silence", "another port")
        router.call("config.apply", {"config": nat64_config(static=bound_config()["nat"]["nat64"][0]
                                                            ["static"])})
        with server(lan, WEB, LAN6_SECOND):
            equal(refused(wan, WAN_ROUTER, 8080), "silence", "without a rule")
            equal(refused(lan, behind(WAN_ROUTER), 8080), "silence", "a hairpin without a rule")
    router.call("config.apply", {"config": nat64_config()})


def nat64_bound_restart(tap, lab, router, lan, wan):
    router.call("config.apply", {"config": bound_config()})
    with server(lan, WEB, LAN6_SECOND), \
            connect(wan, WAN_ROUTER, 8080, 42001, timeout=30) as inward, \
            connect(lan, behind(WAN_ROUTER), 8080, 42002, timeout=30, own_address=LAN6) as turned:
        for own in (inward, turned):
            echo(own, secrets.token_bytes(BLOCK))
        before = kept(router, 42001) + kept(router, 42002)
        with tap.case("NAT64: a restart keeps connections by static bindings and hairpins"):
            equal(len(before), 2, "sessions")
            router = restart(lab, router, bound_config())
            equal(kept(router, 42001) + kept(router, 42002), before, "sessions after the start")
            nat64_plug(router, lan, wan)
            for own in (inward, turned):
                echo(own, secrets.token_bytes(BLOCK))
        with tap.case("NAT64: without the bindings they end"):
            router.call("config.apply", {"config": nat64_config(rules=[
                {"name": "any", "action": "accept"}])})
            until(lambda: not kept(router, 42001) + kept(router, 42002), "the sessions have ended")
            router.call("config.apply", {"config": nat64_config()})
    return router


def nat64_restart(tap, lab, router, lan, wan):
    with server(wan, PORT) as clients, \
            connect(lan, SERVER, PORT, 42424, timeout=30, own_address=LAN6) as own:
        echo(own, secrets.token_bytes(BLOCK))
        before = kept(router, 42424)
        with tap.case("NAT64: a reload keeps a connection"):
            equal(len(before), 1, "sessions")
            for number in range(3):
                router.call("config.apply", {"config": nat64_config(rules=[
                    {"name": f"rule-{number}", "source": "2001:db8:77::/48", "action": "drop"}])})
                echo(own, secrets.token_bytes(20000))
            equal(kept(router, 42424), before, "sessions after it")
            router.call("config.apply", {"config": nat64_config()})
        with tap.case("NAT64: a restart keeps a connection"):
            router = restart(lab, router, nat64_config())
            equal(kept(router, 42424), before, "sessions after the start")
            nat64_plug(router, lan, wan)
            echo(own, secrets.token_bytes(BLOCK))
            equal(clients, [(WAN_ROUTER, 42424)], "clients that wan has seen")
            # The port is still taken: another one gets another.
            with connect(lan, SERVER, PORT, 42424, own_address=LAN6_SECOND) as second:
                echo(second, secrets.token_bytes(20000))
                echo(own, secrets.token_bytes(20000))
            equal((clients[1][0], clients[1][1] != 42424), (WAN_ROUTER, True), "the second client")
    return router


def nat64(tap):
    with tap.lab() as lab:
        router = lab.router(nat64_config())
        lan, wan = hosts(lab)
        nat64_plug(router, lan, wan)
        nat64_ping(tap, router, lan, wan)
        nat64_tcp(tap, router, lan, wan)
        nat64_udp(tap, router, lan, wan)
        nat64_errors(tap, router, lan, wan)
        nat64_path(tap, router, lan, wan)
        nat64_bound(tap, router, lan, wan)
        router = nat64_bound_restart(tap, lab, router, lan, wan)
        router = nat64_restart(tap, lab, router, lan, wan)
        well(tap, "NAT64", router)


# --- NPTv6 ---

INSIDE, INSIDE_SECOND, INSIDE_ROUTER, INSIDE_FAR = (
    "fd00:aaaa:bbbb:1::10", "fd00:aaaa:bbbb:1::20", "fd00:aaaa:bbbb:1::1", "fd00:aaaa:bbbb:2::10")
# RFC 6296 section 3.1: fd00:aaaa:bbbb adds up to 6367, 2001:db8:9 to 2dc2; the subnet takes the
# difference: 1 + 6367 - 2dc2 = 35a6.
OUTSIDE, OUTSIDE_SECOND, OUTSIDE_FAR = (
    "2001:db8:9:35a6::10", "2001:db8:9:35a6::20", "2001:db8:9:35a7::10")
OTHER_OUTSIDE = "2001:db8:a:35a5::10"
WAN6_FAR = "2001:db8:f::10"


def nptv6_config(outside="2001:db8:9::/48", rules=()):
    return plain_config(
        lan={"addresses": [f"{INSIDE_ROUTER}/64"]}, wan={"addresses": [f"{WAN6_ROUTER}/64"]},
        routes=[{"prefix": "fd00:aaaa:bbbb::/48", "unreachable": True},
                {"prefix": "fd00:aaaa:bbbb:2::/64", "via": INSIDE},
                {"prefix": "2001:db8:f::/64", "via": WAN6}],
        sessions={"size": 16384},
        firewall={"default": "drop", "rules": [
            *RULES, {"name": "lan-lan", "in": "lan", "out": "lan", "action": "accept"},
            {"name": "web", "in": "wan", "protocol": "tcp", "destination": [INSIDE, INSIDE_FAR],
             "destination_port": WEB, "action": "accept"},
            {"name": "iperf", "in": "wan", "protocol": ["tcp", "udp"], "destination": INSIDE,
             "destination_port": 5201, "action": "accept"}, *rules]},
        nat={"nptv6": [{"out": "wan", "inside": "fd00:aaaa:bbbb::/48", "outside": outside}]})


PING_IN = {"name": "ping-in", "in": "wan", "protocol": "icmpv6", "icmp_type": "echo_request",
           "destination": "fd00:aaaa:bbbb::/48", "action": "accept"}


def nptv6_out(tap, router, lan, wan):
    with tap.case("NPTv6: ping, also in pieces"):
        lan.ping(WAN6, "-I", INSIDE)
        lan.ping(WAN6, "-I", INSIDE, "-s", 3000)
        router.no_drops()
    with tap.case("NPTv6: TCP and UDP; wan sees the outside address and the same port"):
        with server(wan, PORT, "::") as clients, \
                connect(lan, WAN6, PORT, 40404, own_address=INSIDE) as own:
            echo(own, secrets.token_bytes(BLOCK))
            equal(clients, [(OUTSIDE, 40404)], "client")
        client = udp_echo(lan, WAN6, wan, WAN6, secrets.token_bytes(8000), INSIDE_SECOND, 40405)
        equal(client, (OUTSIDE_SECOND, 40405), "client")
        router.no_drops()
    with tap.case("NPTv6: 20 TCP streams from inside, down"):
        streams(router, lan, wan, WAN6, "-R", bind=WAN6)
    with tap.case("NPTv6: routerctl shows both addresses"):
        with server(wan, PORT, "::"), \
                connect(lan, WAN6, PORT, 41414, own_address=INSIDE) as own:
            echo(own, b"established")
            shown = router.ctl("show", "sessions", "port", "41414").stdout
            check(re.search(rf"^tcp +\[{INSIDE}\]:41414 +\[{WAN6}\]:{PORT} +from \[{OUTSIDE}\]"
                            r":41414 +tcp_established", shown, re.M), shown)
    with tap.case("NPTv6: a closed port refuses, TCP and UDP"):
        icmp_refuses(lan, WAN6, 100)
        icmp_refuses(lan, WAN6, 3000)
        equal(refused(lan, WAN6, CLOSED), "reset", "a closed port")
    with tap.case("NPTv6: an inside subnet that is not there does not leave by the default route"):
        output = lan.ping("fd00:aaaa:bbbb:77::1", count=1, status=1)[2]
        check(f"From {INSIDE_ROUTER} icmp_seq=1 Destination unreachable" in output, output)


def nptv6_in(tap, router, lan, wan):
    with tap.case("NPTv6: wan reaches lan by its outside address, where the firewall lets it"):
        with server(lan, WEB, "::") as clients, connect(wan, OUTSIDE, WEB) as own:
            echo(own, secrets.token_bytes(BLOCK))
            equal(clients[0][0], WAN6, "client")
        with server(lan, WEB + 1, "::"):
            equal(refused(wan, OUTSIDE, WEB + 1), "silence", "another port")
        with server(lan, WEB, "::"):
            equal(refused(wan, OUTSIDE_SECOND, WEB), "silence", "another host")
        wan.no_answer(OUTSIDE)
    with tap.case("NPTv6: 20 TCP streams from outside"):
        streams(router, wan, lan, OUTSIDE, bind=INSIDE)
    with tap.case("NPTv6: UDP datagrams of 1400 bytes from outside, both ways"):
        for options in ((), ("-R",)):
            datagrams(router, wan, lan, OUTSIDE, *options, bind=INSIDE)
    with tap.case("NPTv6: hairpin between two inside addresses; both see outside addresses"):
        with server(lan, PORT, INSIDE_SECOND) as clients, \
                connect(lan, OUTSIDE_SECOND, PORT, 40406, own_address=INSIDE) as own:
            echo(own, secrets.token_bytes(BLOCK))
            equal(clients, [(OUTSIDE, 40406)], "client")
        lan.ping(OUTSIDE_SECOND, "-I", INSIDE)


def nptv6_path(tap, router, lan, wan):
    far = far_lan = None
    with tap.case("NPTv6: traceroute from inside"):
        far = far_network(wan, "far-wan", "2001:db8:f::1/64", f"{WAN6_FAR}/64", 1300)
        far.ip("-6 route change default via 2001:db8:f::1 advmss 1440")
        until(lambda: lan.reaches(WAN6_FAR), "lan reaches the far network")
        for options in ((), ("-I",), ("-T", "-p", PORT)):
            equal(hops(lan, WAN6_FAR, "-6", *options), [INSIDE_ROUTER, WAN6, WAN6_FAR],
                  f"hops {options}")
    with tap.case("NPTv6: path MTU discovery from inside"):
        check(far, "there is no far network")
        output = lan.ping(WAN6_FAR, "-M", "do", "-s", 1400, count=2, status=1)[2]
        check(f"From {WAN6} icmp_seq=1 Packet too big: mtu=1300" in output, output)
        lan.ip("-6 route flush cache")
        equal(learnt_mtu(lan, WAN6_FAR), None, "MTU before")
        with server(far, PORT, "::") as clients, \
                connect(lan, WAN6_FAR, PORT, own_address=INSIDE) as own:
            echo(own, secrets.token_bytes(BLOCK))
            equal(clients[0][0], OUTSIDE, "client")
        equal(learnt_mtu(lan, WAN6_FAR), 1300, "MTU that lan has learnt")
    with tap.case("NPTv6: traceroute from outside does not show the routers inside"):
        far_lan = far_network(lan, "far-lan", "fd00:aaaa:bbbb:2::1/64", f"{INSIDE_FAR}/64", 1300)
        far_lan.ip("-6 route change default via fd00:aaaa:bbbb:2::1 advmss 1440")
        router.call("config.apply", {"config": nptv6_config(rules=[PING_IN])})
        until(lambda: wan.reaches(OUTSIDE_FAR), "wan reaches the far network inside")
        wan.ping(OUTSIDE)
        equal(hops(wan, OUTSIDE_FAR, "-6", "-I"), [WAN6_ROUTER, OUTSIDE_FAR, OUTSIDE_FAR], "hops")
    with tap.case("NPTv6: path MTU discovery from outside"):
        check(far_lan, "there is no far network")
        equal(learnt_mtu(wan, OUTSIDE_FAR), None, "MTU before")
        with server(far_lan, WEB, "::") as clients, connect(wan, OUTSIDE_FAR, WEB) as own:
            echo(own, secrets.token_bytes(BLOCK))
            equal(clients[0][0], WAN6, "client")
        equal(learnt_mtu(wan, OUTSIDE_FAR), 1300, "MTU that wan has learnt")


def nptv6_plug(router, lan, wan):
    plug(lan, router, "lan", 1, f"{INSIDE}/64", f"{INSIDE_SECOND}/64", gateway6=INSIDE_ROUTER)
    plug(wan, router, "wan", 2, f"{WAN6}/64")
    # As at a provider: the outside prefixes lead to the router, the inside one nowhere.
    for prefix in ("2001:db8:9::/48", "2001:db8:a::/48"):
        wan.ip(f"-6 route add {prefix} via {WAN6_ROUTER}")
    router.settled()
    until(lambda: lan.reaches(INSIDE_ROUTER), "lan reaches the router")
    until(lambda: wan.reaches(WAN6_ROUTER), "wan reaches the router")
    router.call("stats.clear")


def nptv6_restart(tap, lab, router, lan, wan):
    with server(wan, PORT, "::") as clients, \
            connect(lan, WAN6, PORT, 42424, timeout=30, own_address=INSIDE) as own:
        echo(own, secrets.token_bytes(BLOCK))
        before = kept(router, 42424)
        with tap.case("NPTv6: a reload keeps a connection"):
            equal(len(before), 1, "sessions")
            router.call("config.apply", {"config": nptv6_config(rules=[PING_IN])})
            router.call("config.apply", {"config": nptv6_config()})
            echo(own, secrets.token_bytes(BLOCK))
            equal(kept(router, 42424), before, "sessions after it")
        with tap.case("NPTv6: a restart keeps a connection"):
            router = restart(lab, router, nptv6_config())
            equal(kept(router, 42424), before, "sessions after the start")
            nptv6_plug(router, lan, wan)
            echo(own, secrets.token_bytes(BLOCK))
            equal(clients, [(OUTSIDE, 42424)], "clients that wan has seen")
        with tap.case("NPTv6: with another outside prefix new connections use it, old ones end"):
            router.call("config.apply", {"config": nptv6_config("2001:db8:a::/48")})
            own.settimeout(SHORT)
            own.send(b"still there?")
            try:
                check(False, f"{own.recv(100)} came back")
            except TimeoutError:
                pass
            with connect(lan, WAN6, PORT, own_address=INSIDE) as new:
                echo(new, secrets.token_bytes(20000))
            equal([client[0] for client in clients], [OUTSIDE, OTHER_OUTSIDE], "clients")
    return router


def nptv6(tap):
    with tap.lab() as lab:
        router = lab.router(nptv6_config())
        lan, wan = hosts(lab)
        nptv6_plug(router, lan, wan)
        nptv6_out(tap, router, lan, wan)
        nptv6_in(tap, router, lan, wan)
        nptv6_path(tap, router, lan, wan)
        router = nptv6_restart(tap, lab, router, lan, wan)
        well(tap, "NPTv6", router)


def well(tap, what, router):
    with tap.case(f"{what}: the router is well after all that, and has all its packet buffers"):
        router.alive()
        check(router.mbufs_in_use() < 3000, f"{router.mbufs_in_use()} buffers in use")
        check("error" not in router.log(), "errors in the log")


def main():
    arguments()
    tap = Tap("nat6")
    nat64(tap)
    nptv6(tap)
    tap.end()


if __name__ == "__main__":
    main()
