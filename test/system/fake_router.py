"""A stand-in for dpdk-router's control socket, for tests of routerctl.

It answers the JSON-RPC methods with fixed data, records every request, and misbehaves on demand:
FakeRouter.behaviour maps a method to "close", "cut", "garbage", "silent" or "wrong-id".

Run by itself it serves until it is stopped, to try routerctl by hand: fake_router.py SOCKET
"""

import json
import os
import socket
import sys
import threading
import time


def interface(name, **changes):
    value = {
        "name": name, "device": "0000:03:00.0", "driver": "net_ixgbe", "parent": None, "vlan": None,
        "vrf": "default", "mac": "02:00:00:00:00:01", "mtu": 1500, "admin": "up", "link": "up",
        "speed_mbps": 10000, "addresses": [{"address": "203.0.113.2/24", "state": "valid"}],
        "host_twin": None, "rx_queues": 2, "tx_queues": 2, "numa_node": 0,
        "counters": {"rx_packets": 1234567, "rx_bytes": 987654321, "rx_missed": 0,
                     "tx_packets": 7654321, "tx_bytes": 123456789012, "tx_dropped": 12}}
    value.update(changes)
    return value


INTERFACES = [
    interface("wan"),
    interface("lan", device="net_vhost0,iface=/run/dpdk-router/vm1.sock,queues=1",
              driver="net_vhost", link="down", speed_mbps=0, host_twin="lan0", addresses=[
                  {"address": "192.168.1.1/24", "state": "valid"},
                  {"address": "2001:db8:1::1/64", "state": "tentative"}]),
    interface("guest", device=None, driver=None, parent="lan", vlan=20, vrf="guest", admin="down",
              link="down", speed_mbps=0,
              addresses=[{"address": "192.168.20.1/24", "state": "valid"}]),
]


def hop(address, interface_name="wan", weight=1, state="resolved"):
    return {"address": address, "interface": interface_name, "weight": weight, "state": state}


def route(prefix, hops, origin="config", kind="unicast", vrf="default", active=True):
    return {"prefix": prefix, "vrf": vrf, "origin": origin, "type": kind, "active": active,
            "next_hops": hops}


ROUTES = [
    route("0.0.0.0/0", [hop("203.0.113.1")]),
    route("10.0.0.0/8", [], kind="blackhole"),
    route("198.18.0.0/15", [hop("203.0.113.1", weight=3), hop("203.0.113.9", state="unresolved")]),
    route("203.0.113.0/24", [hop(None)], origin="connected", kind="connected"),
    route("203.0.113.2/32", [hop(None)], origin="local", kind="local"),
    route("192.0.2.0/24", [hop("192.168.20.9", "guest", state="down")], origin="rpc", vrf="guest",
          active=False),
    route("2001:db8:ffff::/48", [hop("fe80::1", "lan")]),
]

DROPS = {"parse.bad_checksum": 3, "route.no_route": 1234567, "output.queue_full": 40}


def end(address, port):
    return {"address": address, "port": port}


def conversation(number, protocol, state, source, destination, forward, backward,
                 **changes):
    value = {"id": number, "family": "ipv6" if ":" in source["address"] else "ipv4",
             "protocol": protocol, "state": state, "vrf": "default", "in": "lan", "out": "wan",
             "source": source, "destination": destination, "age_seconds": 60.5,
             "idle_seconds": 0.5, "timeout_seconds": 100, "forward": forward, "backward": backward}
    value.update(changes)
    return value


def passed(packets, size):
    return {"packets": packets, "bytes": size}


SESSIONS = [
    conversation(7, "tcp", "tcp_established", end("192.168.1.10", 41968), end("192.0.2.1", 443),
                 passed(1500, 90000), passed(2000000, 3000000000),
                 translated_source=end("203.0.113.2", 41968)),
    conversation(8, "icmp", "icmp", end("192.168.1.11", 4711), end("192.0.2.1", 8),
                 passed(3, 252), passed(3, 252), translated_source=end("203.0.113.2", 4711)),
    conversation(12, "tcp", "tcp_opening", end("198.51.100.9", 5555), end("203.0.113.2", 8080),
                 passed(1, 60), passed(0, 0), translated_destination=end("192.168.1.10", 80),
                 **{"in": "wan", "out": "lan", "idle_seconds": 75.0}),
    conversation(13, "udp", "udp", end("2001:db8:1::10", 5353), end("2001:db8:2::1", 53),
                 passed(1, 80), passed(1, 120)),
    conversation(14, "gre", "other", end("192.0.2.7", 0), end("192.0.2.8", 0),
                 passed(9, 900), passed(0, 0)),
]

FIREWALL = {
    "configured": True, "default": "drop", "router_default": "reject",
    "rules": [{"name": "lan-out", "action": "accept", "enabled": True, "stateless": False,
               "log": False, "packets": 1234, "bytes": 98765, "sessions": 1200},
              {"name": "web", "action": "accept", "enabled": True, "stateless": True, "log": True,
               "packets": 0, "bytes": 0, "sessions": 0},
              {"name": "old", "action": "reject", "enabled": False, "stateless": False,
               "log": False, "packets": 5, "bytes": 300, "sessions": 0}],
    "default_counters": {"action": "drop", "packets": 77, "bytes": 4620, "sessions": 0},
    "router_default_counters": {"action": "reject", "packets": 1, "bytes": 60, "sessions": 0},
}

NAT = {
    "source": [
        {"name": "office", "out": "wan", "to": "pool", "addresses": [
            {"first": "203.0.113.16", "last": "203.0.113.31"},
            {"first": "203.0.113.9", "last": "203.0.113.9"}],
         "mapping": "endpoint_independent", "filtering": "endpoint_dependent",
         "port_first": 1024, "port_last": 65535, "port_block": 256},
        {"name": "tunnel", "out": "wan", "to": "none", "addresses": [],
         "mapping": "endpoint_independent", "filtering": "endpoint_dependent",
         "port_first": 1024, "port_last": 65535, "port_block": 0},
        {"name": "source-3", "out": "", "to": "interface", "addresses": [],
         "mapping": "endpoint_dependent", "filtering": "endpoint_dependent",
         "port_first": 2000, "port_last": 2000, "port_block": 0}],
    "destination": [
        {"name": "web", "in": "wan", "protocol": "tcp", "port_first": 8080, "port_last": 8080,
         "to": {"first": "192.168.1.10", "last": "192.168.1.12"}, "to_port": 80},
        {"name": "destination-2", "in": "wan", "protocol": "any",
         "to": {"first": "192.168.1.20", "last": "192.168.1.20"}}],
    "static": [{"outside": "203.0.113.10", "inside": "192.168.1.30", "interface": "wan"}],
    "nptv6": [
        {"name": "site", "out": "wan", "inside": "fd00:aaaa:bbbb::/48", "outside": "2001:db8:9::/48"},
        {"name": "nptv6-2", "out": "", "inside": "fd00:aaaa:cccc::/56", "outside": "2001:db8:a::/56"}],
    "nat64": [
        {"name": "nat64-1", "out": "wan", "prefix": "64:ff9b::/96", "to": "interface",
         "addresses": [{"first": "203.0.113.2", "last": "203.0.113.2"}],
         "mapping": "endpoint_independent", "filtering": "endpoint_dependent",
         "port_first": 1024, "port_last": 65535, "static": [
             {"outside": "203.0.113.2", "protocol": "tcp", "port_first": 8080, "port_last": 8080,
              "inside": "2001:db8:1::10", "inside_port": 80},
             {"outside": "203.0.113.2", "protocol": "udp", "port_first": 6000, "port_last": 6099,
              "inside": "2001:db8:1::11", "inside_port": 6000},
             {"inside": "2001:db8:1::12", "protocol": "udp", "port_first": 7, "port_last": 7,
              "inside_port": 7},
             {"outside": "203.0.113.10", "inside": "2001:db8:1::20"}]},
        {"name": "labs", "out": "wan", "prefix": "2001:db8:1:64::/64", "to": "pool", "addresses": [
            {"first": "203.0.113.40", "last": "203.0.113.47"},
            {"first": "203.0.113.50", "last": "203.0.113.50"}],
         "mapping": "endpoint_dependent", "filtering": "endpoint_dependent",
         "port_first": 2000, "port_last": 2999}],
    "mappings": 1234,
}


def association(spi, direction, **changes):
    value = {"spi": spi, "direction": direction, "source": "203.0.113.2",
             "destination": "198.51.100.2", "mode": "tunnel", "algorithm": "aes-gcm-256",
             "icv_length": 16, "esn": False, "replay_window": 0, "df": "copy", "vrf": "default",
             "owner": "config", "age": 3725.2, "packets": 1234567, "bytes": 987654321,
             "replayed": 0, "too_old": 0, "integrity_failures": 0, "malformed": 0, "refused": 0,
             "sequence": 1234567, "idle": 0.5}
    value.update(changes)
    return value


# As the router lists them: the youngest first.
ASSOCIATIONS = [
    association(0xc0ffee00, "in", source="2001:db8::9", destination="2001:db8::2",
                mode="transport", algorithm="aes-cbc-128", authentication="hmac-sha256-128",
                request=7, owner="client", udp_source_port=4500, udp_destination_port=4500,
                age=12.0, packets=0, bytes=0),
    association(4097, "in", source="198.51.100.2", destination="203.0.113.2", replay_window=64,
                packets=42, bytes=4200, replayed=3, too_old=2, integrity_failures=1234, idle=75.0,
                lifetime={"seconds": 3600, "seconds_left": 3000.0, "bytes": 5000, "bytes_left": 800,
                          "soft_packets": 1}),
    association(4096, "out", path_mtu=1400, lifetime={"seconds": 3600, "seconds_left": 75.0, "packets": 2000000,
                                       "packets_left": 765433, "soft_seconds": 3000}),
]
del ASSOCIATIONS[0]["idle"]


def policy(direction, source, destination, **changes):
    value = {"direction": direction, "action": "protect", "priority": 0, "vrf": "default",
             "owner": "config", "packets": 0, "without_sa": 0, "source": source,
             "destination": destination}
    value.update(changes)
    return value


POLICIES = [
    policy("out", "10.1.0.0/24", "10.2.0.0/24", name="to-branch", spi=4096, packets=1234567),
    policy("in", "10.2.0.0/24", "10.1.0.0/24", name="from-branch", spi=4097, packets=42),
    policy("out", "2001:db8::2/128", "::/0", name="web", protocol="tcp", source_port="1024-65535",
           destination_port=443, request=7, owner="client", vrf="guest", packets=9, without_sa=9),
    policy("in", "0.0.0.0/0", "10.1.0.0/24", action="discard", priority=100, packets=7),
]


class Problem(Exception):
    def __init__(self, code, message, data=None):
        super().__init__(message)
        self.code, self.data = code, data


class FakeRouter:
    def __init__(self, path):
        self.path = path
        self.requests = []          # (method, params), oldest first
        self.behaviour = {}         # method -> misbehaviour
        self.route_count = None     # a number: serve that many generated routes
        self.page_size = None       # a number: longer pages of IPsec's lists are cut short
        self.many_sessions = None   # a number: serve that many sessions
        self.configured = True      # are there a firewall and NAT?
        self.largest_page = 0
        self.batches = []           # sizes of route.add {"routes"} requests
        self.loaded = []            # the first and last route of each batch
        self.calls = {}             # method -> number of calls
        self.log = [{"sequence": n, "time": "2024-05-06T07:08:%02d.123456Z" % n,
                     "level": "error" if n == 2 else "info", "area": "interface",
                     "text": "line %d \x1b[31m" % n} for n in range(1, 4)]
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(8)
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()

    def stop(self):
        os.unlink(self.path)
        self.stop_listening()

    def stop_listening(self):
        """Again is fine. Nobody may still be about to accept when the descriptor becomes another's."""
        if self.acceptor.is_alive():
            self.listener.shutdown(socket.SHUT_RDWR)
            self.acceptor.join()
            self.listener.close()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        stream = connection.makefile("rwb")
        try:
            for line in stream:
                if not self.answer(connection, stream, json.loads(line)):
                    break
        except (OSError, ValueError):
            pass
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        connection.close()

    def answer(self, connection, stream, request):
        method, params = request["method"], request.get("params")
        self.calls[method] = self.calls.get(method, 0) + 1
        self.requests.append((method, params))
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            function = getattr(self, method.replace(".", "_"), None)
            if function is None:
                raise Problem(-32601, "there is no method \"%s\"" % method)
            reply["result"] = function(params or {})
        except Problem as problem:
            reply["error"] = {"code": problem.code, "message": str(problem)}
            if problem.data is not None:
                reply["error"]["data"] = problem.data
        text = json.dumps(reply).encode() + b"\n"
        wish = self.behaviour.get(method)
        if wish == "close":
            return False
        if wish == "cut":
            stream.write(text[:len(text) // 2])
            stream.flush()
            return False
        if wish == "garbage":
            text = b"SSH-2.0-OpenSSH_9.2p1\r\n"
        if wish == "wrong-id":
            text = text.replace(b'"id": %d' % request["id"], b'"id": 4711')
        if wish == "silent":
            time.sleep(3600)
        stream.write(text)
        stream.flush()
        return True

    # -- methods --

    def system_info(self, params):
        return {"name": "dpdk-router", "version": "0.1.0", "dpdk": "DPDK 22.11.11", "pid": 4321,
                "uptime_seconds": 93784.5, "config_file": "/etc/dpdk-router/router.json",
                "control_lcore": 0, "workers": [1, 2], "confirm_remaining_seconds": 42}

    def system_methods(self, params):
        return [{"name": "config.get", "summary": "The running configuration."},
                {"name": "route.list", "summary": "Lists routes."}]

    def config_get(self, params):
        return {"interfaces": {"wan": {"mtu": 1500}}}

    def config_check(self, params):
        config = params["config"]
        if "bad" in config:
            problems = [{"path": "$.interfaces.wan.mtu", "message": "must be at least 68, not 60"},
                        {"path": "$.routes[1].via", "message": "\"x\" is not an address"},
                        {"path": "$.bad", "message": "unknown key; did you mean \"nat\"?"}]
            raise Problem(-32003, problems[0]["message"],
                          {"path": problems[0]["path"], "problems": problems,
                           "omitted": config["bad"]})
        if "one" in config:
            raise Problem(-32003, "unknown key", {
                "path": "$.one", "problems": [{"path": "$.one", "message": "unknown key"}]})
        return {"valid": True}

    def config_diff(self, params):
        if not params["config"]:
            return {"changes": []}
        return {"changes": [
            {"path": "$.interfaces.wan.mtu", "action": "change", "old": 1500, "new": 9000},
            {"path": "$.routes[1]", "action": "remove", "old": {"prefix": "10.0.0.0/8"}},
            {"path": "$.vrfs.guest", "action": "add", "new": {"table": 20}}]}

    def config_apply(self, params):
        self.config_check(params)
        changes = 3 if params["config"] else 0
        return {"changes": changes, "confirm_timeout": params.get("confirm_timeout")}

    def config_confirm(self, params):
        return {}

    def config_rollback(self, params):
        message = "there is no configuration to go back to"
        raise Problem(-32002, message, {"path": "$", "problems": [
            {"path": "$", "message": message}]})

    def config_save(self, params):
        return {"file": params.get("file", "/etc/dpdk-router/router.json")}

    def interface_list(self, params):
        calls = self.calls["interface.list"]
        result = []
        for item in INTERFACES:
            counters = dict(item["counters"])
            counters["rx_packets"] += 1000000 * calls
            counters["rx_bytes"] += 64000000 * calls
            result.append(dict(item, counters=counters))
        return result

    def interface_set(self, params):
        if params["name"] not in [i["name"] for i in INTERFACES]:
            raise Problem(-32001, "there is no interface \"%s\"" % params["name"],
                          {"path": "$.name"})
        return {}

    def route_list(self, params):
        if self.route_count is None:
            routes = [r for r in ROUTES if params.get("vrf", r["vrf"]) == r["vrf"]]
            if "prefix" in params:
                routes = [r for r in routes if r["prefix"] == params["prefix"]]
            return {"routes": routes, "next": None}
        start, limit = params.get("after", 0), params.get("limit", 1000)
        self.largest_page = max(self.largest_page, limit)
        end = min(start + limit, self.route_count)
        routes = [route("%d.%d.%d.0/24" % (1 + n // 65536, n // 256 % 256, n % 256),
                        [hop("203.0.113.1")]) for n in range(start, end)]
        return {"routes": routes, "next": end if end < self.route_count else None}

    def route_add(self, params):
        routes = params.get("routes", [params])
        if "routes" in params:
            self.batches.append(len(routes))
            self.loaded.append((routes[0], routes[-1]))
        for index, item in enumerate(routes):
            if item["prefix"] == "192.0.2.1/24":
                path = "$.routes[%d].prefix" % index
                message = "\"192.0.2.1/24\" has host bits set; 192.0.2.0/24 has none"
                raise Problem(-32602, message, {"path": path, "problems": [
                    {"path": path, "message": message}]})
        return {"added": len(routes)}

    def route_delete(self, params):
        return {"deleted": 1}

    def neighbour_list(self, params):
        return [{"interface": "wan", "address": "203.0.113.1", "mac": "02:00:00:00:00:99",
                 "state": "reachable", "age_seconds": 12.7, "router": True},
                {"interface": "lan", "address": "192.168.1.77", "mac": None, "state": "incomplete",
                 "age_seconds": 0, "router": False}]

    def neighbour_add(self, params):
        return {}

    def neighbour_delete(self, params):
        return {}

    def neighbour_flush(self, params):
        return {"flushed": 1}

    def session_list(self, params):
        if self.many_sessions is not None:
            start, limit = params.get("cursor", 0), params["limit"]
            stop = min(start + limit, self.many_sessions)
            return {"sessions": [dict(SESSIONS[0], id=n) for n in range(start, stop)],
                    "cursor": stop if stop < self.many_sessions else None}
        calls = self.calls["session.list"]
        sessions = [dict(SESSIONS[0], backward=passed(2000000 + 1000 * calls,
                                                      3000000000 + 1500000 * calls))]
        return {"sessions": sessions + SESSIONS[1:], "cursor": None}

    def session_count(self, params):
        return {"sessions": 5, "size": 262144, "opened": 1234567, "ended": 1234562, "evicted": 3,
                "events_written": 12345, "events_lost": 0,
                "states": {"tcp_opening": 1, "tcp_established": 1, "udp": 1, "icmp": 1,
                           "other": 1, "udp_new": 0}}

    def session_flush(self, params):
        return {"ended": 1 if params else 5}

    def firewall_list(self, params):
        return FIREWALL if self.configured else {
            "configured": False, "default": "accept", "router_default": "accept", "rules": []}

    def nat_list(self, params):
        return NAT if self.configured else {"source": [], "destination": [], "static": [],
                                            "nptv6": [], "nat64": [], "mappings": 0}

    def ipsec_sa_list(self, params):
        return self.page("sas", ASSOCIATIONS, params)

    def ipsec_policy_list(self, params):
        return self.page("policies", POLICIES, params)

    def page(self, name, whole, params):
        whole = whole if self.configured else []
        start = params.get("cursor", 0)
        stop = start + min(params["limit"], self.page_size or params["limit"])
        return {name: whole[start:stop], "cursor": stop if stop < len(whole) else None}

    def ipsec_sa_add(self, params):
        return {}

    def ipsec_sa_delete(self, params):
        return {}

    def ipsec_policy_add(self, params):
        return {}

    def ipsec_policy_delete(self, params):
        return {}

    def stats_get(self, params):
        calls = self.calls["stats.get"]
        drops = dict(DROPS, **{"route.no_route": DROPS["route.no_route"] + 500 * calls})
        if params.get("all"):
            drops["nat.no_port"] = 0
        interfaces = {item["name"]: dict(item["counters"]) for item in INTERFACES}
        interfaces["wan"]["rx_packets"] += 14880000 * calls
        interfaces["wan"]["rx_bytes"] += 14880000 * 60 * calls
        return {"interfaces": interfaces, "drops": drops,
                "workers": [{"lcore": 1, "rx_packets": 5000000 * calls, "busy_percent": 45.25},
                            {"lcore": 2, "rx_packets": 0, "busy_percent": 0}],
                "mbufs": {"total": 32768, "in_use": 1024}}

    def stats_clear(self, params):
        return {}

    def runtime_get(self, params):
        stages = [{"name": name, "packets": 1234567, "bursts": 65432, "packets_per_burst": 18.868,
                   "cycles_per_packet": cycles} for name, cycles in
                  (("rx", 31.2), ("parse", 12), ("route", 40.5), ("output", 9.75), ("tx", 28))]
        return {"workers": [
            {"lcore": 1, "loops": 1000, "empty_polls": 250, "busy_percent": 45.25,
             "packets": 1234567, "cycles_per_packet": 121.45,
             "queues": [{"interface": "wan", "queue": 0}, {"interface": "lan", "queue": 0}],
             "stages": stages},
            {"lcore": 2, "loops": 0, "empty_polls": 0, "busy_percent": 0, "packets": 0,
             "cycles_per_packet": None, "queues": [], "stages": []}]}

    def log_list(self, params):
        after, limit = params.get("after", 0), params.get("limit", 1000)
        return [line for line in self.log if line["sequence"] > after][:limit]


if __name__ == "__main__":
    if os.path.exists(sys.argv[1]):
        os.unlink(sys.argv[1])
    FakeRouter(sys.argv[1])
    while True:
        time.sleep(3600)
