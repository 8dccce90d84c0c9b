"""Runs the real routerctl against a stand-in router: test_routerctl.py PATH-TO-ROUTERCTL

No root, no DPDK, no network: the router is fake_router.py on a socket in a temporary directory. What
a user sees is compared as a whole, tables included.
"""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fake_router import (ASSOCIATIONS, INTERFACES, POLICIES, ROUTES, FakeRouter,  # noqa: E402
                         Problem)

PROGRAM = None


def dedent(text):
    """Removes the margin that starts at each line's first bar."""
    return "".join(line.split("|", 1)[1] + "\n" for line in text.splitlines() if "|" in line)


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="routerctl")
        self.socket = os.path.join(self.folder, "control.sock")
        self.router = FakeRouter(self.socket)
        self.addCleanup(shutil.rmtree, self.folder)
        self.addCleanup(self.router.stop)

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(content)
        return path

    def run_words(self, *words, stdin="", environment=None):
        command = [PROGRAM, "-s", self.socket, *words]
        return subprocess.run(command, input=stdin, capture_output=True, encoding="utf-8",
                              timeout=60, cwd=self.folder, check=False,
                              env=dict(os.environ, LC_ALL="C", TZ="UTC", **(environment or {})))

    def ok(self, line, stdin=""):
        """Runs a command that succeeds; returns what it prints."""
        done = self.run_words(*line.split(), stdin=stdin)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def shows(self, line, text):
        self.assertEqual(self.ok(line), dedent(text))

    def fails(self, line, status, error, stdin=""):
        """Runs a command that fails; the error may be a text or a compiled pattern."""
        done = self.run_words(*line.split(), stdin=stdin)
        if isinstance(error, str):
            self.assertEqual(done.stderr, error)
        else:
            self.assertRegex(done.stderr, error)
        self.assertEqual(done.returncode, status)
        return done.stdout

    def last(self):
        return self.router.requests[-1]


class Show(Case):
    def test_system(self):
        self.shows("show system", """
            |Version        dpdk-router 0.1.0, DPDK 22.11.11
            |Process        4321, up 1 d 2 h
            |Configuration  /etc/dpdk-router/router.json
            |Control lcore  0
            |Worker lcores  1 2
            |Not confirmed  rolls back in 42 s without "config confirm"
        """)

    def test_interfaces(self):
        self.shows("sh int", """
            |INTERFACE  STATE        SPEED   MTU  VRF      DEVICE        ADDRESSES
            |wan        up       10 Gbit/s  1500  default  0000:03:00.0  203.0.113.2/24
            |lan        no link          -  1500  default  net_vhost0    192.168.1.1/24
            |                                                            2001:db8:1::1/64 (tentative)
            |guest      off              -  1500  guest    lan vlan 20   192.168.20.1/24
        """)

    def test_one_interface(self):
        self.shows("show interfaces guest", """
            |Name                guest
            |State               admin down, link down
            |Speed               -
            |Parent              lan, VLAN 20
            |Driver              -
            |VRF                 guest
            |MAC                 02:00:00:00:00:01
            |MTU                 1500
            |Host twin           -
            |Queues              2 receive, 2 transmit
            |NUMA node           0
            |Addresses           192.168.20.1/24
            |Received packets    2,234,567
            |Received bytes      1,051,654,321
            |Missed packets      0
            |Sent packets        7,654,321
            |Sent bytes          123,456,789,012
            |Dropped at sending  12
        """)
        self.fails("show interfaces wam", 1, "routerctl: there is no interface \"wam\"\n")

    def test_routes(self):
        self.shows("show routes", """
            |PREFIX              VIA           INTERFACE  VRF      ORIGIN     STATE
            |0.0.0.0/0           203.0.113.1   wan        default  config     active
            |10.0.0.0/8          blackhole     -          default  config     active
            |198.18.0.0/15       203.0.113.1   wan        default  config     active, weight 3
            |                    203.0.113.9   wan                            unresolved
            |203.0.113.0/24      connected     wan        default  connected  active
            |203.0.113.2/32      local         wan        default  local      active
            |192.0.2.0/24        192.168.20.9  guest      guest    rpc        inactive, down
            |2001:db8:ffff::/48  fe80::1       lan        default  config     active
        """)
        self.assertEqual(self.last(), ("route.list", {"limit": 1000}))

    def test_route_filters(self):
        self.ok("show routes vrf guest ipv4 192.0.2.0/24")
        self.assertEqual(self.last()[1], {"vrf": "guest", "family": "ipv4",
                                          "prefix": "192.0.2.0/24", "limit": 1000})
        self.ok("show routes to 2001:db8::1")
        self.assertEqual(self.last()[1], {"covering": "2001:db8::1", "limit": 1000})
        self.ok("show routes 192.0.2.1")
        self.assertEqual(self.last()[1], {"covering": "192.0.2.1", "limit": 1000})
        self.assertEqual(self.ok("show routes vrf none"), "no routes\n")

    def test_neighbours(self):
        self.shows("show neighbours", """
            |ADDRESS       MAC                INTERFACE  STATE        AGE
            |203.0.113.1   02:00:00:00:00:99  wan        reachable   12 s  router
            |192.168.1.77  -                  lan        incomplete   0 s
        """)
        self.ok("show neighbours lan")
        self.assertEqual(self.last(), ("neighbour.list", {"interface": "lan"}))

    def test_sessions(self):
        self.shows("show sessions", """
            |PROTOCOL  SOURCE                 DESTINATION         AS                      STATE                  IDLE  PACKETS    BYTES    BACK    BYTES
            |tcp       192.168.1.10:41968     192.0.2.1:443       from 203.0.113.2:41968  tcp_established       0.5 s   1.50 k  90.0 kB  2.00 M  3.00 GB
            |icmp      192.168.1.11:4711      192.0.2.1           from 203.0.113.2:4711   icmp                  0.5 s        3    252 B       3    252 B
            |tcp       198.51.100.9:5555      203.0.113.2:8080    to 192.168.1.10:80      tcp_opening      1 min 15 s        1     60 B       0      0 B
            |udp       [2001:db8:1::10]:5353  [2001:db8:2::1]:53  -                       udp                   0.5 s        1     80 B       1    120 B
            |gre       192.0.2.7              192.0.2.8           -                       other                 0.5 s        9    900 B       0      0 B
        """)
        self.assertEqual(self.last(), ("session.list", {"limit": 1000}))
        self.ok("show sessions state udp vrf guest address 192.168.1.0/24 port 53 protocol 17 "
                "interface lan")
        self.assertEqual(self.last()[1], {
            "state": "udp", "vrf": "guest", "address": "192.168.1.0/24", "port": 53,
            "protocol": 17, "interface": "lan", "limit": 1000})
        self.ok("show sessions protocol tcp address 2001:db8::1")
        self.assertEqual(self.last()[1], {"protocol": "tcp", "address": "2001:db8::1",
                                          "limit": 1000})
        self.fails("show sessions port 65536", 2, re.compile("is not a port, 0 to 65535"))
        self.router.many_sessions = 0
        self.assertEqual(self.ok("show sessions"), "no sessions\n")

    def test_many_sessions_come_in_pages(self):
        self.router.many_sessions = 2500
        lines = self.ok("show sessions").splitlines()
        self.assertEqual(len(lines), 2501)
        self.assertEqual(len({line.index("192.0.2.1:443") for line in lines[1:]}), 1)
        self.assertEqual([p.get("cursor") for _, p in self.router.requests], [None, 1000, 2000])
        self.assertEqual(len(json.loads(self.ok("-j show sessions"))["sessions"]), 2500)

    def test_busy_sessions(self):
        command = [PROGRAM, "-s", self.socket, "show", "sessions", "protocol", "tcp", "live"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as child:
            lines = [child.stdout.readline().rstrip() for _ in range(5)]
            child.send_signal(2)
            self.assertEqual(child.wait(timeout=10), 0)
        self.assertEqual(lines[1], "5 sessions, room for 262,144; 5 watched, the busiest first")
        self.assertRegex(lines[3], r"^PROTOCOL +SOURCE .* PPS +BIT/S +BACK PPS +BIT/S$")
        self.assertRegex(lines[4], r"^tcp +192.168.1.10:41968 .* 0 +0 +[\d.]+( k)? +[\d.]+ M$")
        self.assertIn(("session.list", {"protocol": "tcp", "limit": 1000}), self.router.requests)

    def test_only_some_of_many_sessions_are_watched(self):
        self.router.many_sessions = 10 ** 7
        command = [PROGRAM, "-s", self.socket, "show", "sessions", "live"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as child:
            child.stdout.readline()
            self.assertRegex(child.stdout.readline(), r"; only 20,000 watched,")
            child.send_signal(2)
            child.stdout.read()
            self.assertEqual(child.wait(timeout=10), 0)

    def test_session_counts(self):
        self.shows("show sessions summary", """
            |Sessions                   5
            |Places               262,144
            |Opened             1,234,567
            |Ended              1,234,562
            |Evicted                    3
            |Events written        12,345
            |Events lost                0
            |  tcp_opening              1
            |  tcp_established          1
            |  udp                      1
            |  icmp                     1
            |  other                    1
        """)

    def test_firewall(self):
        self.shows("show firewall", """
            |RULE            ACTION  PACKETS    BYTES  SESSIONS
            |lan-out         accept    1,234  98.8 kB     1,200
            |web             accept        0      0 B         0  stateless, log
            |old             reject        5    300 B         0  disabled
            |default         drop         77  4.62 kB         0  no rule matched
            |router_default  reject        1     60 B         0  the same, to the router
        """)
        self.router.configured = False
        self.assertEqual(self.ok("show firewall"), "no firewall: everything passes\n")

    def test_nat(self):
        self.shows("show nat", """
            |SOURCE RULE  OUT      TO                         PORTS                 MAPPING               FILTERING
            |office       wan      203.0.113.16-203.0.113.31  1024-65535, 256 each  endpoint_independent  endpoint_dependent
            |                      203.0.113.9
            |tunnel       wan      not translated
            |source-3     missing  no address                 2000                  endpoint_dependent    endpoint_dependent
            |
            |DESTINATION RULE  IN   PROTOCOL  PORTS  TO
            |web               wan  tcp       8080   192.168.1.10-192.168.1.12:80
            |destination-2     wan  any       any    192.168.1.20
            |
            |OUTSIDE       INSIDE        INTERFACE
            |203.0.113.10  192.168.1.30  wan
            |
            |NPTV6 RULE  OUT      INSIDE               OUTSIDE
            |site        wan      fd00:aaaa:bbbb::/48  2001:db8:9::/48
            |nptv6-2     missing  fd00:aaaa:cccc::/56  2001:db8:a::/56
            |
            |NAT64 RULE  PREFIX              OUT  TO                         PORTS       MAPPING               FILTERING
            |nat64-1     64:ff9b::/96        wan  203.0.113.2                1024-65535  endpoint_independent  endpoint_dependent
            |labs        2001:db8:1:64::/64  wan  203.0.113.40-203.0.113.47  2000-2999   endpoint_dependent    endpoint_dependent
            |                                     203.0.113.50
            |
            |NAT64 RULE  OUTSIDE                    INSIDE
            |nat64-1     203.0.113.2:8080 tcp       [2001:db8:1::10]:80
            |nat64-1     203.0.113.2:6000-6099 udp  [2001:db8:1::11]:6000
            |nat64-1     no address                 [2001:db8:1::12]:7
            |nat64-1     203.0.113.10               2001:db8:1::20
            |
            |mappings: 1,234
        """)
        self.router.configured = False
        self.assertEqual(self.ok("show nat"), "no NAT rules\n")

    def test_ipsec(self):
        self.shows("show ipsec", """
            |SA   SPI         MODE           SOURCE        DESTINATION   ALGORITHM                    PACKETS    BYTES  REPLAYS  FAILED         IDLE        LEFT  OWNER
            |out  0x00001000  tunnel         203.0.113.2   198.51.100.2  aes-gcm-256                   1.23 M   988 MB        0       0        0.5 s  1 min 15 s  config
            |in   0x00001001  tunnel         198.51.100.2  203.0.113.2   aes-gcm-256                       42  4.20 kB        5   1,234   1 min 15 s       800 B  config
            |in   0xc0ffee00  transport udp  2001:db8::9   2001:db8::2   aes-cbc-128 hmac-sha256-128        0      0 B        0       0  unused 12 s           -  client
            |
            |path MTU of SPI 0x00001000 to 198.51.100.2: 1400 bytes
            |
            |ORDER  POLICY       DIRECTION  SELECTOR                                                         ACTION   WITH                PACKETS  OWNER
            |    1  to-branch    out        10.1.0.0/24 to 10.2.0.0/24                                       protect  SPI 0x00001000       1.23 M  config
            |    2  from-branch  in         10.2.0.0/24 to 10.1.0.0/24                                       protect  SPI 0x00001001           42  config
            |    3  web          out        tcp 2001:db8::2 port 1024-65535 to any IPv6 port 443, vrf guest  protect  request 7, missing        9  client
            |    4  -            in         any IPv4 to 10.1.0.0/24                                          discard  -                         7  config
        """)
        whole = self.ok("show ipsec")
        both = json.loads(self.ok("-j show ipsec"))
        self.assertEqual(both, {"sas": ASSOCIATIONS, "policies": POLICIES})
        self.router.page_size = 1
        self.assertEqual(self.ok("show ipsec"), whole)
        self.router.configured = False
        self.shows("show ipsec", """
            |no security associations
            |
            |no policies: nothing is protected
        """)
        self.router.behaviour["ipsec.policy.list"] = "close"
        self.assertEqual(self.run_words("show", "ipsec").returncode, 3)

    def test_stats(self):
        self.shows("show stats", """
            |INTERFACE  RX PACKETS  RX BYTES  MISSED  TX PACKETS  TX BYTES  DROPPED
            |wan        16,114,567   1.88 GB       0   7,654,321    123 GB       12
            |lan         1,234,567    988 MB       0   7,654,321    123 GB       12
            |guest       1,234,567    988 MB       0   7,654,321    123 GB       12
            |
            |WORKER  RX PACKETS    BUSY
            |     1   5,000,000  45.2 %
            |     2           0   0.0 %
            |
            |packet buffers: 1,024 of 32,768 in use (3.1 %)
            |dropped packets: 1,235,110 (see "show drops")
        """)

    def test_rates(self):
        text = self.ok("show stats interval 1 count 2")
        self.assertEqual(self.router.calls["stats.get"], 3)
        tables = text.split("\n\n" + text[:2])
        self.assertRegex(text, r"^\d\d:\d\d:\d\d\nINTERFACE  RX PPS  RX BIT/S  MISSED/S  TX PPS")
        # How much more than a second passes between two samples, the machine decides.
        self.assertRegex(text, r"\nwan +[\d.]+ M +[\d.]+ [GM] +0 +0 +0 +0\n")
        self.assertRegex(text, r"\n +1 +[\d.]+ [Mk] +45\.2 %\n")
        self.assertRegex(text, r"\nroute  no_route +[\d.]+\n")
        self.assertEqual(text.count("INTERFACE"), 2, tables)

    def test_rates_as_json_lines(self):
        lines = self.ok("-j show stats interval 1 count 2").splitlines()
        self.assertEqual(len(lines), 2)
        self.assertIn("wan", json.loads(lines[0])["interfaces"])

    def test_drops(self):
        self.shows("show drops", """
            |STAGE   REASON          PACKETS
            |route   no_route      1,235,067
            |output  queue_full           40
            |parse   bad_checksum          3
        """)
        self.shows("show drops all", """
            |STAGE   REASON          PACKETS
            |parse   bad_checksum          3
            |route   no_route      1,235,567
            |output  queue_full           40
            |nat     no_port               0
        """)
        self.assertEqual(self.last(), ("stats.get", {"all": True}))

    def test_runtime(self):
        self.shows("show runtime", """
            |worker 1: 45.2 % busy, 1,234,567 packets, 121 cycles per packet
            |queues wan/0 lan/0; 25.0 % of the polls found nothing
            |STAGE     PACKETS  BURSTS  PACKETS/BURST  CYCLES/PACKET
            |rx      1,234,567  65,432           18.9           31.2
            |parse   1,234,567  65,432           18.9           12.0
            |route   1,234,567  65,432           18.9           40.5
            |output  1,234,567  65,432           18.9            9.8
            |tx      1,234,567  65,432           18.9           28.0
            |
            |worker 2: 0.0 % busy, 0 packets
        """)

    def test_log_cannot_steer_the_terminal(self):
        self.shows("show log", """
            |2024-05-06 07:08:01.123  info     interface  line 1 ?[31m
            |2024-05-06 07:08:02.123  error    interface  line 2 ?[31m
            |2024-05-06 07:08:03.123  info     interface  line 3 ?[31m
        """)

    def test_long_log_comes_in_pages(self):
        self.router.log = [{"sequence": n, "time": "T", "level": "info", "area": "a",
                            "text": str(n)} for n in range(1, 2501)]
        self.assertEqual(len(self.ok("show log").splitlines()), 2500)
        self.assertEqual([p["after"] for _, p in self.router.requests], [0, 1000, 2000])
        self.assertEqual(len(json.loads(self.ok("-j show log"))), 2500)

    def test_log_follow(self):
        command = [PROGRAM, "-s", self.socket, "show", "log", "follow"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as child:
            for _ in range(3):
                child.stdout.readline()
            self.router.log.append({"sequence": 4, "time": "T", "level": "info", "area": "a",
                                    "text": "a new line"})
            self.assertEqual(child.stdout.readline(), "T  info     a          a new line\n")
            child.send_signal(2)
            self.assertEqual(child.wait(timeout=10), 0)

    def test_config_and_methods(self):
        self.assertEqual(json.loads(self.ok("show config")), {"interfaces": {"wan": {"mtu": 1500}}})
        self.shows("show methods", """
            |METHOD      SUMMARY
            |config.get  The running configuration.
            |route.list  Lists routes.
        """)

    def test_json_is_one_line_without_a_terminal(self):
        for line, expected in (("-j show routes", {"routes": ROUTES, "next": None}),
                               ("show routes -j", {"routes": ROUTES, "next": None}),
                               ("-j show drops", None), ("-j show system", None)):
            text = self.ok(line)
            self.assertEqual(text.count("\n"), 1)
            if expected:
                self.assertEqual(json.loads(text), expected)
        wan = json.loads(self.ok("-j show interfaces wan"))
        self.assertEqual(wan["name"], INTERFACES[0]["name"])
        self.assertEqual(json.loads(self.ok("-j show routes vrf none")),
                         {"routes": [], "next": None})

    def test_missing_members_are_no_crash(self):
        for method in ("system_info", "interface_list", "route_list", "neighbour_list",
                       "stats_get", "runtime_get", "log_list", "system_methods", "session_list",
                       "session_count", "firewall_list", "nat_list", "ipsec_sa_list",
                       "ipsec_policy_list"):
            for value in ({}, [{}], [], None, 1, "x",
                          {"routes": [{}], "workers": [{}], "next": None, "interfaces": {"a": 1},
                           "drops": [], "sessions": [{}], "rules": [{}, 1], "source": [{}],
                           "destination": [{}], "static": [{}], "nptv6": [{}], "nat64": [{}],
                           "states": {"a": "b"}, "sas": [{}, 1], "policies": [{}, 1]},
                          {"sas": [{"source": 1, "spi": "x", "idle": "x"}],
                           "policies": [{"spi": "x", "source": "/", "source_port": 1.5}]}):
                setattr(self.router, method, lambda params, value=value: value)
                verb = {"system_info": "system", "interface_list": "interfaces",
                        "route_list": "routes", "neighbour_list": "neighbours",
                        "stats_get": "stats", "runtime_get": "runtime", "log_list": "log",
                        "system_methods": "methods", "session_list": "sessions",
                        "session_count": "sessions summary", "firewall_list": "firewall",
                        "nat_list": "nat", "ipsec_sa_list": "ipsec",
                        "ipsec_policy_list": "ipsec"}[method]
                done = self.run_words("show", *verb.split())
                self.assertEqual((done.returncode, done.stderr), (0, ""), (method, value))


class HugeRouteList(Case):
    def test_pages_are_fetched_and_streamed(self):
        self.router.route_count = 25500
        lines = self.ok("show routes").splitlines()
        self.assertEqual(len(lines), 25501)
        self.assertEqual(lines[1].split()[:2], ["1.0.0.0/24", "203.0.113.1"])
        self.assertEqual(lines[-1].split()[:2], ["1.99.155.0/24", "203.0.113.1"])
        self.assertEqual(len({line.index("203.0.113.1") for line in lines[1:]}), 1)
        self.assertEqual(self.router.calls["route.list"], 26)
        self.assertEqual(self.router.largest_page, 1000)
        self.assertEqual(len(json.loads(self.ok("-j show routes"))["routes"]), 25500)

    def test_reader_that_leaves_ends_it(self):
        self.router.route_count = 10 ** 7
        command = "%s -s %s show routes | head -3" % (PROGRAM, self.socket)
        done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, encoding="utf-8",
                              timeout=60, check=False)
        self.assertEqual(len(done.stdout.splitlines()), 3)

    def test_router_that_fails_half_way(self):
        self.router.route_count = 5000
        genuine = self.router.route_list

        def page(params):
            if params.get("after") == 2000:
                self.router.behaviour["route.list"] = "cut"
            return genuine(params)

        self.router.route_list = page
        text = self.fails("show routes", 3, "routerctl: the router closed the connection in the "
                                            "middle of its reply\n")
        self.assertEqual(len(text.splitlines()), 2001)


class BadRouter(Case):
    def test_closes_without_reply(self):
        self.router.behaviour["system.info"] = "close"
        self.fails("show system", 3, "routerctl: the router closed the connection without a reply; "
                                     "has it been stopped?\n")

    def test_closes_in_the_middle(self):
        self.router.behaviour["system.info"] = "cut"
        self.fails("show system", 3,
                   "routerctl: the router closed the connection in the middle of its reply\n")

    def test_garbage(self):
        self.router.behaviour["system.info"] = "garbage"
        self.fails("show system", 3, re.compile(r"^routerctl: the reply from \S+ is not JSON \(.*\); "
                                                r"is it the router's socket\?\n$"))

    def test_another_request_s_reply(self):
        self.router.behaviour["system.info"] = "wrong-id"
        self.fails("show system", 3, "routerctl: the reply from %s is no JSON-RPC reply to the "
                                     "request\n" % self.socket)

    def test_no_router(self):
        done = subprocess.run([PROGRAM, "-s", "/nonexistent/sock", "show", "system"],
                              capture_output=True, encoding="utf-8", check=False)
        self.assertEqual(done.stderr, "routerctl: cannot connect to /nonexistent/sock: no such "
                                      "file; is dpdk-router running?\n")
        self.assertEqual(done.returncode, 3)

    def test_nobody_listens(self):
        self.router.stop_listening()
        self.fails("show system", 3, "routerctl: cannot connect to %s: nobody listens there; is "
                                     "dpdk-router running?\n" % self.socket)

    def test_path_too_long(self):
        done = subprocess.run([PROGRAM, "-s", "/" + "x" * 200, "show", "system"],
                              capture_output=True, encoding="utf-8", check=False)
        self.assertRegex(done.stderr, "a socket's path has at most 107 bytes\n$")
        self.assertEqual(done.returncode, 3)

    def test_large_reply(self):
        self.router.config_get = lambda params: {"text": ["x" * 1000] * 5000}
        self.assertEqual(len(json.loads(self.ok("-j show config"))["text"]), 5000)


class Config(Case):
    def test_check(self):
        self.file("good.json", "{}")
        self.assertEqual(self.ok("config check good.json"), "good.json: valid\n")
        self.assertEqual(self.ok("config check -", stdin="{}"), "-: valid\n")

    def test_many_problems(self):
        self.file("bad.json", '{"bad": 0}')
        self.fails("config check bad.json", 1,
                   "routerctl: there are 3 problems:\n"
                   "  $.interfaces.wan.mtu: must be at least 68, not 60\n"
                   "  $.routes[1].via: \"x\" is not an address\n"
                   "  $.bad: unknown key; did you mean \"nat\"?\n")
        self.file("worse.json", '{"bad": 1200}')
        self.fails("config check worse.json", 1, re.compile(
            r"^routerctl: there are 1203 problems:\n(  \$.*\n){3}  and 1200 more\n$"))
        self.file("one.json", '{"one": 1}')
        self.fails("config check one.json", 1, "routerctl: $.one: unknown key\n")

    def test_file_that_is_not_json(self):
        self.file("broken.json", '{"a": 1,\n "a": 2}')
        self.fails("config check broken.json", 1, re.compile(
            r'^routerctl: broken\.json:2:\d+: duplicate object key near \'"a"\'\n$'))
        self.fails("config check missing.json", 1,
                   "routerctl: cannot read missing.json: No such file or directory\n")
        self.assertEqual(self.router.requests, [])

    def test_check_without_router_names_the_other_way(self):
        path = self.file("good.json", "{}")
        done = subprocess.run([PROGRAM, "-s", "/nonexistent/sock", "config", "check", path],
                              capture_output=True, encoding="utf-8", check=False)
        self.assertEqual(done.returncode, 3)
        self.assertEqual(done.stderr.splitlines()[1], "a file can be checked without a running "
                                                      "router: dpdk-router -- --check -c FILE")

    def test_diff(self):
        self.file("new.json", '{"a": 1}')
        self.shows("config diff new.json", """
            |~ $.interfaces.wan.mtu: 1500 -> 9000
            |- $.routes[1]: {"prefix": "10.0.0.0/8"}
            |+ $.vrfs.guest: {"table": 20}
        """)
        self.file("same.json", "{}")
        self.assertEqual(self.ok("config diff same.json"), "no differences\n")

    def test_apply(self):
        self.file("new.json", '{"mbufs": 4096}')
        self.assertEqual(self.ok("config apply new.json"), "applied, 3 changes\n")
        self.assertEqual(self.last(), ("config.apply", {"config": {"mbufs": 4096}}))
        self.file("same.json", "{}")
        self.assertEqual(self.ok("config apply same.json"),
                         "nothing to change, this configuration is in force already, and stays\n")
        self.assertEqual(self.ok("config apply new.json confirm 60"),
                         "applied, 3 changes\n"
                         "without \"config confirm\" it is undone in 1 min 0 s\n")
        self.assertEqual(self.last()[1]["confirm_timeout"], 60)

    def test_large_configuration(self):
        routes = [{"prefix": "10.0.0.0/8", "via": "203.0.113.1"}] * 50000
        self.file("large.json", json.dumps({"routes": routes}))
        self.ok("config apply large.json")
        self.assertEqual(len(self.last()[1]["config"]["routes"]), 50000)

    def test_confirm_rollback_save(self):
        self.assertEqual(self.ok("config confirm"), "confirmed, the configuration stays\n")
        self.fails("config rollback", 1,
                   "routerctl: there is no configuration to go back to\n")
        self.assertEqual(self.ok("config save"), "saved to /etc/dpdk-router/router.json\n")
        self.ok("config save x.json")
        self.assertEqual(self.last()[1], {"file": os.path.join(self.folder, "x.json")})
        self.ok("config save /tmp/x.json")
        self.assertEqual(self.last()[1], {"file": "/tmp/x.json"})


class Change(Case):
    def sends(self, line, method, params):
        self.ok(line)
        self.assertEqual(self.last(), (method, params))

    def test_route_add(self):
        prefix = {"prefix": "198.51.100.0/24"}
        add = "route add 198.51.100.0/24 "
        self.sends(add + "via 203.0.113.1", "route.add", dict(prefix, via="203.0.113.1"))
        self.sends(add + "via fe80::1 interface lan vrf guest", "route.add", dict(
            prefix, vrf="guest", via=[{"address": "fe80::1", "interface": "lan"}]))
        self.sends(add + "via 203.0.113.1 weight 3 via 203.0.113.9", "route.add", dict(
            prefix, via=[{"address": "203.0.113.1", "weight": 3}, {"address": "203.0.113.9"}]))
        self.sends(add + "interface wan", "route.add", dict(prefix, interface="wan"))
        for kind in ("blackhole", "unreachable", "prohibit"):
            self.sends(add + kind + " vrf guest", "route.add",
                       {**prefix, kind: True, "vrf": "guest"})
        self.assertEqual(self.ok(add + "blackhole"), "1 route added\n")
        self.fails(add + "via 203.0.113.1 weight 3 weight 4", 2,
                   "routerctl: \"weight\" is given twice\n")

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def test_ipsec(self):
        self.write("sa.json", '{"spi": 4096}')
        self.sends("ipsec sa add sa.json", "ipsec.sa.add", {"spi": 4096})
        self.write("sas.json", '[{"spi": 4096}, {"spi": 4097}]')
        self.assertEqual(self.ok("ipsec sa add sas.json"), "2 added\n")
        self.assertEqual(self.last(), ("ipsec.sa.add", {"spi": 4097}))
        self.assertEqual(self.ok("-j ipsec sa add -", stdin="[]"), "{}\n")
        self.assertEqual(self.ok("ipsec policy add -", stdin='{"name": "x"}'), "1 added\n")
        self.assertEqual(self.last(), ("ipsec.policy.add", {"name": "x"}))
        self.sends("ipsec policy delete x", "ipsec.policy.delete", {"name": "x"})
        self.sends("ipsec sa delete out 0x1000", "ipsec.sa.delete",
                   {"spi": 4096, "direction": "out"})
        self.sends("ipsec sa delete in 4294967295 to 2001:db8::1", "ipsec.sa.delete",
                   {"spi": 4294967295, "direction": "in", "destination": "2001:db8::1"})
        for spi in ("255", "0xff", "4294967296", "0x100000000", "010000", "0x", "12x"):
            self.fails(f"ipsec sa delete in {spi}", 2, re.compile("."))
        self.fails("ipsec sa add nothing.json", 1, re.compile("cannot read nothing.json"))
        self.write("broken.json", "{")
        self.fails("ipsec sa add broken.json", 1, re.compile(r"broken\.json:1:1: "))

    def test_ipsec_stops_at_what_is_refused(self):
        def refuse(params):
            if params["spi"] == 2:
                raise Problem(-32602, "no", {"path": "$.spi"})
            return {}
        self.router.ipsec_sa_add = refuse
        self.fails("ipsec sa add -", 1, "routerctl: $.spi: no\n"
                   "routerctl: -: stopped at element 2 of 3\n",
                   stdin='[{"spi": 1}, {"spi": 2}, {"spi": 3}]')
        self.assertEqual(self.router.calls["ipsec.sa.add"], 2)

    def test_others(self):
        self.sends("route delete 10.0.0.0/8 vrf a", "route.delete",
                   {"prefix": "10.0.0.0/8", "vrf": "a"})
        self.sends("neighbour add wan 203.0.113.1 02:00:00:00:00:99", "neighbour.add", {
            "interface": "wan", "address": "203.0.113.1", "mac": "02:00:00:00:00:99"})
        self.sends("neighbour delete wan 203.0.113.1", "neighbour.delete",
                   {"interface": "wan", "address": "203.0.113.1"})
        self.sends("neighbour flush", "neighbour.flush", None)
        self.sends("neigh fl wan", "neighbour.flush", {"interface": "wan"})
        self.sends("interface up wan", "interface.set", {"name": "wan", "admin": "up"})
        self.sends("interface down wan", "interface.set", {"name": "wan", "admin": "down"})
        self.sends("clear stats", "stats.clear", None)
        self.sends("clear sessions", "session.flush", None)
        self.sends("clear sessions protocol udp interface wan", "session.flush",
                   {"protocol": "udp", "interface": "wan"})
        self.fails("interface up wam", 1,
                   "routerctl: $.name: there is no interface \"wam\"\n")

    def test_call(self):
        done = self.run_words("call", "route.list", '{"vrf": "guest"}')
        self.assertEqual(len(json.loads(done.stdout)["routes"]), 1)
        self.fails("call no.method", 1, "routerctl: there is no method \"no.method\"\n")
        self.assertEqual(self.run_words("call", "route.list", "{").returncode, 2)


class Load(Case):
    def prefix(self, n):
        return "%d.%d.%d.0/24" % (1 + n // 65536, n // 256 % 256, n % 256)

    def check_loaded(self, text):
        self.assertRegex(text, r"^25,000 routes added in \d+\.\d s, [\d,]+ routes/s\n$")
        self.assertEqual(self.router.batches, [10000, 10000, 5000])
        self.assertEqual(self.router.loaded[2][1], {"prefix": self.prefix(24999),
                                                    "via": "203.0.113.1"})

    def test_lines(self):
        self.file("routes", "# a comment\n\n" + "".join(
            "%s via 203.0.113.1\n" % self.prefix(n) for n in range(25000)))
        self.check_loaded(self.ok("route load routes"))

    def test_json(self):
        self.file("routes", json.dumps([{"prefix": self.prefix(n), "via": "203.0.113.1"}
                                        for n in range(25000)], indent=1))
        self.check_loaded(self.ok("route load routes"))
        self.assertEqual(json.loads(self.ok("-j route load routes"))["added"], 25000)

    def test_stdin_and_all_forms(self):
        self.ok("route load -", stdin="10.0.0.0/8 blackhole\n"
                                      "::/0 via fe80::1 interface lan # default\n")
        self.assertEqual(self.router.loaded, [(
            {"prefix": "10.0.0.0/8", "blackhole": True},
            {"prefix": "::/0", "via": [{"address": "fe80::1", "interface": "lan"}]})])
        self.assertEqual(self.ok("route load -", stdin="[]")[:15], "0 routes added ")

    def test_mistakes_in_the_file(self):
        cases = (("10.0.0.0/8 via 1.1.1.1\n10.0.0.0/8 vai 1.1.1.1\n",
                  "stdin:2: \"vai\" does not fit behind \"10.0.0.0/8\"; did you mean \"via\"?"),
                 ("x\n", "stdin:1: \"x\" is not a prefix such as 192.0.2.0/24 or 2001:db8::/32"),
                 ('[{"prefix": "10.0.0.0/8"}, 5]', "stdin: route 2: expected a JSON object"),
                 ('[{"a": 1} {', "stdin: route 2: expected \",\" or \"]\" before it"),
                 ('[{"a": 1}] x', "stdin: route 2: more text stands behind the array's end"),
                 ('[{"a" 1}]', "stdin: route 1: ':' expected near '1'"))
        for text, sentence in cases:
            self.fails("route load -", 1, "routerctl: %s\nrouterctl: stdin: 0 routes were added "
                                          "before that\n" % sentence, stdin=text)

    def test_route_that_the_router_refuses(self):
        lines = ["10.0.0.0/8 blackhole\n"] * 10005 + ["192.0.2.1/24 blackhole\n"]
        self.fails("route load -", 1, (
            "routerctl: $.routes[5].prefix: \"192.0.2.1/24\" has host bits set; 192.0.2.0/24 has "
            "none\n"
            "routerctl: stdin: stopped at routes 10,001 to 10,006 (the $.routes above)\n"
            "routerctl: stdin: 10,000 routes were added before that\n"), stdin="".join(lines))


class Usage(Case):
    def test_mistakes(self):
        self.fails("shwo routes", 2,
                   "routerctl: there is no command \"shwo\"; did you mean \"show\"?\n")
        self.fails("con c x", 2, "routerctl: \"c\" is ambiguous: check or confirm\n"
                                 "usage: routerctl config check FILE\n"
                                 "       routerctl config confirm\n")
        self.fails("route delete", 2, "routerctl: \"route delete\" is not complete; expected "
                                      "PREFIX\nusage: routerctl route delete PREFIX [vrf VRF]\n")
        self.fails("-x", 2, re.compile("usage: routerctl"))
        self.assertEqual(self.router.requests, [])

    def test_help_fits_the_window(self):
        text = self.ok("help")
        self.assertIn("\nconfig check FILE             Check a configuration file, change nothing\n",
                      text)
        for line in text.splitlines():
            self.assertLessEqual(len(line), 80, line)
        self.assertEqual(self.ok("help clear stats"),
                         "clear stats                   Set all counters to zero\n")
        self.shows("help clear sessions", """
            |clear sessions [address (ADDRESS|PREFIX)] [port PORT] [protocol PROTOCOL]
            |    [interface INTERFACE] [state STATE] [vrf VRF]
            |                              End these sessions; without a filter, all
        """)
        self.assertIn("usage:", self.ok("--help"))
        self.assertRegex(self.ok("--version"), r"^routerctl \d+\.\d+")


class Script(Case):
    SCRIPT = "# comment\n\nshow drops -j\nshow nothing\nclear stats  # done anyway?\n"

    def test_stops_at_the_first_error(self):
        done = self.run_words(stdin=self.SCRIPT)
        self.assertEqual(done.returncode, 2)
        self.assertIn("drops", json.loads(done.stdout))
        self.assertRegex(done.stderr, r"^routerctl: stdin:4: \"nothing\" does not fit behind "
                                      r"\"show\"; expected system, interfaces, ")
        self.assertEqual(len(self.router.requests), 1)

    def test_keeps_going(self):
        done = self.run_words("-k", stdin=self.SCRIPT)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(self.last(), ("stats.clear", None))

    def test_json_and_quotes(self):
        done = self.run_words(stdin="call route.list {\"vrf\": \"gu est\"}\ncall route.list "
                                    "'{\"vrf\": \"a\"}'\nexit\nshow nothing\n")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual([p for _, p in self.router.requests], [{"vrf": "gu est"}, {"vrf": "a"}])
        self.assertEqual(self.run_words(stdin="show 'routes\n").returncode, 2)

    def test_connection_is_kept_and_made_again(self):
        self.router.behaviour["system.info"] = "close"
        done = self.run_words("-k", stdin="show drops\nshow system\nshow drops\n")
        self.assertEqual(done.returncode, 3)
        self.assertEqual(done.stdout.count("STAGE"), 2)


class Completion(Case):
    def test_complete_words(self):
        line = "routerctl -s %s " % self.socket

        def complete(rest):
            text = self.run_words("complete-words", line + rest).stdout
            return [tuple(item.split("\t")) for item in text.splitlines()]

        self.assertEqual(complete("sh"), [("word", "show")])
        self.assertEqual(complete("show interfaces "), [
            ("word", "wan"), ("word", "lan"), ("word", "guest"), ("word", "live")])
        self.assertEqual(complete("show routes vrf g"), [("word", "guest")])
        self.assertEqual(complete("show sessions state tcp_c"), [("word", "tcp_closing"),
                                                                 ("word", "tcp_closed")])
        self.assertEqual(complete("clear sessions protocol udp"), [("word", "udp"),
                                                                   ("word", "udplite")])
        self.assertEqual(complete("show sessions interface w"), [("word", "wan")])
        self.file("my.json", "")
        os.mkdir(os.path.join(self.folder, "my.d"))
        self.assertEqual(complete("config check my"), [("file", "my.d/"), ("file", "my.json")])
        self.assertEqual(complete("call route"), [("word", "route.list")])
        self.assertNotIn(("word", "complete-words"), complete(""))

    def test_bash(self):
        script = self.ok("completion bash") + """
            compopt() { :; }
            COMP_LINE="%s -s %s show interfaces w" COMP_POINT=${#COMP_LINE}
            COMP_WORDS=($COMP_LINE) COMP_CWORD=5
            _routerctl
            printf '<%%s>' "${COMPREPLY[@]}"
        """ % (PROGRAM, self.socket)
        done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, encoding="utf-8",
                              check=False)
        self.assertEqual((done.stdout, done.stderr), ("<wan>", ""))


class Terminal(Case):
    """What a person at a terminal sees, escape codes included."""

    def start(self, *words):
        pid, self.terminal = pty.fork()
        if pid == 0:
            # libedit keeps the names of bound functions until the end.
            os.environ.update(TERM="xterm", HOME=self.folder, ASAN_OPTIONS="detect_leaks=0")
            os.environ.pop("NO_COLOR", None)
            os.chdir(self.folder)
            os.execv(PROGRAM, [PROGRAM, "-s", self.socket, *words])
        self.addCleanup(os.close, self.terminal)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.pid = pid
        self.seen = ""

    def expect(self, pattern):
        """Reads until the pattern shows up behind what was expected before."""
        end = time.monotonic() + 20
        while True:
            found = re.search(pattern, self.seen, re.S)
            if found:
                self.seen = self.seen[found.end():]
                return found
            if not select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0]:
                self.fail("%r did not come; seen: %r" % (pattern, self.seen))
            try:
                self.seen += os.read(self.terminal, 65536).decode()
            except OSError:
                self.fail("%r did not come before the end; seen: %r" % (pattern, self.seen))

    def type(self, text):
        os.write(self.terminal, text.encode())

    def ends(self):
        """Reads the rest; returns the exit status, -9 for a program that does not end."""
        end = time.monotonic() + 20
        try:
            while time.monotonic() < end:
                if select.select([self.terminal], [], [], 0.1)[0]:
                    os.read(self.terminal, 65536)
            os.kill(self.pid, 9)
        except OSError:  # the terminal is closed
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def test_colours(self):
        self.start("show", "interfaces")
        self.expect("\033\\[32mup\033\\[0m")
        self.expect("\033\\[31mno link\033\\[0m")
        self.assertEqual(self.ends(), 0)

    def test_json_is_indented(self):
        self.start("-j", "show", "system")
        self.expect('\\{\r\n  "name": "dpdk-router",')
        self.assertEqual(self.ends(), 0)

    def test_live_view_leaves_the_screen_as_it_was(self):
        for key in ("q", "\003"):
            self.start("show", "interfaces", "live")
            self.expect("\033\\[\\?1049h\033\\[\\?25l\033\\[H")
            self.expect("RX PPS.*wan.* -.*M")
            self.type(key)
            self.expect("\033\\[\\?25h\033\\[\\?1049l.*RX PPS.*wan")
            self.assertEqual(self.ends(), 0)

    def test_shell(self):
        self.start()
        self.expect("/dpdk-router> ")
        self.type("sh\tint\tw\t\r")
        self.expect("Name +wan\r\n")
        self.expect("/dpdk-router> ")
        self.type("show r?")
        self.expect("routes +List routes, .*runtime +Show where")
        self.type("\003")  # Ctrl-C drops the line
        self.expect("/dpdk-router> ")
        self.type("show stats interval 1\r")
        self.expect("BIT/S")
        self.type("\003")  # and the command that runs, never the shell
        self.expect("1049l.*/dpdk-router> ")
        self.type("call route.list {\"vrf\": \"a?\"}\r")
        self.expect('"routes": \\[\\].*/dpdk-router> ')
        self.router.behaviour["system.info"] = "silent"
        self.type("show system\r")
        self.expect("show system")
        time.sleep(0.3)
        self.type("\003")
        self.router.behaviour.clear()
        self.expect("> ")
        self.type("show nothing\r")
        self.expect("does not fit.*/dpdk-router> ")
        self.type("\004")
        self.assertEqual(self.ends(), 0)
        path = os.path.join(self.folder, ".routerctl_history")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with open(path, encoding="utf-8") as history:
            self.assertIn("show\\040interfaces\\040wan", history.read())

    def test_shell_without_router(self):
        self.router.behaviour["system.info"] = "close"
        self.start()
        self.expect("\\(no router\\)> ")
        self.router.behaviour.clear()
        self.type("show drops\r")
        self.expect("no_route.*/dpdk-router> ")
        self.type("exit\r")
        self.assertEqual(self.ends(), 0)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: test_routerctl.py PATH-TO-ROUTERCTL [TEST ...]")
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main()
