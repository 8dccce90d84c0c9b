"""Mistakes of the user: wrong configurations and wrong command lines. Each is told in clear words, all
at once, with the place; and a router that runs goes on as if nothing had been."""
import json
import os
import socket
import subprocess

from lab import (LAN_ROUTER, WAN, Lab, Tap, arguments, check, equal, plain_config,
                 plain_scene)

LAN_DEVICE = "net_tap0,iface=lan"


def changed(**changes):
    return plain_config(**changes)


def interface(**members):
    return {"interfaces": {"lan": {"device": LAN_DEVICE, "addresses": ["198.51.100.1/24"],
                                   **members}}}


def vlans(*pairs):
    config = interface()
    for number, (parent, vlan) in enumerate(pairs):
        config["interfaces"][f"v{number}"] = {"parent": parent, "vlan": vlan}
    return config


def route(**members):
    return {**interface(), "routes": [members]}


# Name, configuration, the paths of all the problems that must be told.
WRONG = (
    ("an unknown key at the top", changed(surprise=1), ["$.surprise"]),
    ("an unknown key deep down", interface(adresses=[]), ["$.interfaces.lan.adresses"]),
    ("a string where a number belongs", interface(mtu="1500"), ["$.interfaces.lan.mtu"]),
    ("an object where an array belongs", interface(addresses={}), ["$.interfaces.lan.addresses"]),
    ("a number where a string belongs", interface(mac=1), ["$.interfaces.lan.mac"]),
    ("an array instead of the document", [], ["$"]),
    ("a prefix that is none", route(prefix="198.51.300.0/24", blackhole=True),
     ["$.routes[0].prefix"]),
    ("a prefix that is too long", route(prefix="2001:db8::/129", blackhole=True),
     ["$.routes[0].prefix"]),
    ("a prefix with host bits", route(prefix="10.1.2.3/8", blackhole=True), ["$.routes[0].prefix"]),
    ("a gateway that is none", route(prefix="10.0.0.0/8", via="198.51.100"), ["$.routes[0].via"]),
    ("no length with an interface's address", interface(addresses=["198.51.100.1"]),
     ["$.interfaces.lan.addresses[0]"]),
    ("the same address twice on one interface",
     interface(addresses=["198.51.100.1/24", "198.51.100.1/24"]), ["$.interfaces.lan.addresses[1]"]),
    ("the same address on two interfaces", changed(wan={"addresses": [f"{LAN_ROUTER}/24"]}),
     ["$.interfaces.wan.addresses[0]"]),
    ("the same device twice", changed(wan={"device": LAN_DEVICE}), ["$.interfaces.wan.device"]),
    ("two devices on one Linux interface",
     changed(lan={"device": "net_af_packet0,iface=eth1"}, wan={"device": "net_af_packet1,iface=eth1"}),
     ["$.interfaces.wan.device"]),
    ("the same VLAN twice", vlans(("lan", 10), ("lan", 10)), ["$.interfaces.v1.vlan"]),
    ("a VLAN without a parent that exists", vlans(("dmz", 10)), ["$.interfaces.v0.parent"]),
    ("a VLAN on a VLAN", vlans(("lan", 10), ("v0", 20)), ["$.interfaces.v1.parent"]),
    ("VLAN 0 and VLAN 4095", vlans(("lan", 0), ("lan", 4095)),
     ["$.interfaces.v0.vlan", "$.interfaces.v1.vlan"]),
    ("an MTU out of range", interface(mtu=67), ["$.interfaces.lan.mtu"]),
    ("a number beyond all ranges", interface(mtu=10 ** 18), ["$.interfaces.lan.mtu"]),
    ("a number with a fraction", interface(mtu=1500.5), ["$.interfaces.lan.mtu"]),
    ("an interface in no VRF", interface(vrf="blue"), ["$.interfaces.lan.vrf"]),
    ("a route in no VRF", route(prefix="10.0.0.0/8", blackhole=True, vrf="blue"),
     ["$.routes[0].vrf"]),
    ("a route through no interface", route(prefix="10.0.0.0/8", interface="dmz"),
     ["$.routes[0].interface"]),
    ("a neighbour on no interface",
     {**interface(), "neighbours": [{"interface": "dmz", "address": "198.51.100.9",
                                     "mac": "02:00:00:00:00:09"}]}, ["$.neighbours[0].interface"]),
    ("two VRFs with one table", {"vrfs": {"a": {"table": 7}, "b": {"table": 7}}},
     ["$.vrfs.b.table"]),
    ("a device that nobody knows", interface(device="eth0"), ["$.interfaces.lan.device"]),
    ("five mistakes at once",
     {**interface(mtu=1, addresses=["x"]), "mbufs": "many", "routes": [{"prefix": "y"}], "z": 0},
     ["$.interfaces.lan.mtu", "$.interfaces.lan.addresses[0]", "$.mbufs", "$.routes[0].prefix",
      "$.routes[0]", "$.z"]),
)

# Texts that are no JSON, and what the message must say of the place.
NO_JSON = (
    ("an empty file", "", ":1:1: "),
    ("a sentence", "interfaces: none\n", ":1:11: "),
    ("a missing comma in line 3", '{\n "mbufs": 1024\n "routes": []\n}\n', ":3:"),
    ("a duplicate key", '{"mbufs": 1024, "mbufs": 2048}', "duplicate"),
    ("bytes that are no UTF-8", b'{"interfaces": {"\xff\xfe": {}}}', ":1:"),
    ("10 MB of opening brackets", "[" * 10_000_000, "nested"),
    ("10 MB of nested objects", '{"a":' * 2_000_000, "nested"),
    ("a NUL byte", b'{"mbufs": 1024}\0', ":1:"),
)


def checks(tap, lab):
    path = lab.path("wrong.json")

    def refused(text):
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        done = subprocess.run([Lab.program, "--", "-c", path, "--check"], capture_output=True,
                              text=True, timeout=20, check=False)
        equal((done.returncode, done.stdout), (2, ""), "exit status and output of --check")
        lines = done.stderr.splitlines()
        for line in lines:
            check(line.startswith(f"{path}:") and len(line) < 500, f"the message is {line[:600]!r}")
            check(line.count(path) == 1, f"the file is named twice: {line!r}")
        return [line[len(path):].removeprefix(": ") for line in lines]

    for name, config, paths in WRONG:
        with tap.case(f"--check: {name}"):
            lines = refused(json.dumps(config))
            equal(sorted(line.split(": ", 1)[0] for line in lines), sorted(paths), f"{lines}")
    for name, text, place in NO_JSON:
        with tap.case(f"--check: {name}"):
            lines = refused(text)
            equal(len(lines), 1, f"messages {lines}")
            check(place in lines[0], f"the message is {lines[0]!r}")
    with tap.case("--check: a thousand mistakes"):
        lines = refused(json.dumps({"routes": [{"prefix": str(i)} for i in range(1000)]}))
        check(20 <= len(lines) <= 1001, f"{len(lines)} messages")
        check(len(lines) > 1000 or "more problems" in lines[-1], lines[-1])
    with tap.case("--check: a file that is not there, and a directory"):
        for wrong in (lab.path("nothing.json"), lab.directory):
            done = subprocess.run([Lab.program, "--", "-c", wrong, "--check"], capture_output=True,
                                  text=True, timeout=20, check=False)
            equal((done.returncode, len(done.stderr.splitlines())), (2, 1), done.stderr)
            check(wrong in done.stderr, done.stderr)
    with tap.case("--check: a right configuration is not commented on"):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(plain_config(), file)
        done = subprocess.run([Lab.program, "--", "-c", path, "--check"], capture_output=True,
                              text=True, timeout=20, check=False)
        equal((done.returncode, done.stdout, done.stderr), (0, "", ""), "--check")


def running(tap, lab):
    router, lan, _ = plain_scene(lab)
    with tap.case("a running router refuses each of them with the same paths, and is not touched"):
        before = [router.call(method) for method in ("config.get", "route.list")]
        devices = router.space.ip("-br link show")
        for name, config, paths in WRONG:
            error = router.refusal("config.apply", {"config": config})
            equal(sorted(each["path"] for each in error.data["problems"]), sorted(paths), name)
            check(error.data["path"] in paths, f"{name}: path of the error {error.data['path']}")
            equal(router.refusal("config.check", {"config": config}).code, -32003, name)
        equal([router.call(method) for method in ("config.get", "route.list")], before, "state")
        equal(router.space.ip("-br link show"), devices, "Linux devices")
        lan.ping(WAN)
    with tap.case("what only the hardware can refuse is refused as a whole, and all is as before"):
        for device in ("net_af_packet0,iface=nosuch0", "0000:ff:1f.7", "net_pcap0,rx_pcap=/no/file"):
            config = plain_config(routes=[{"prefix": "10.0.0.0/8", "blackhole": True}])
            config["interfaces"]["new"] = {"device": device, "addresses": ["10.9.0.1/24"]}
            error = router.refusal("config.apply", {"config": config})
            check(error.data["path"].startswith("$.interfaces.new"), f"{device}: {error.data}")
            equal(router.call("config.get"), plain_config(), "configuration")
            lan.ping(WAN)
        check("new" not in [each["name"] for each in router.call("interface.list")], "interface new")
    with tap.case("wrong parameters of methods are told with their place"):
        for method, params, path in (
                ("route.add", {"prefix": "10.0.0.0/8"}, "$"),
                ("route.add", {"prefix": "x", "blackhole": True}, "$.prefix"),
                ("route.add", {"routes": [{"prefix": "10.0.0.0/8", "via": "x"}]},
                 "$.routes[0].via"),
                ("route.delete", {"prefix": "10.0.0.0/8"}, "$.prefix"),
                ("interface.set", {"name": "dmz", "admin": "up"}, "$.name"),
                ("interface.set", {"name": "lan", "admin": "sideways"}, "$.admin"),
                ("neighbour.add", {"interface": "lan", "address": "198.51.100.9", "mac": "x"},
                 "$.mac"),
                ("config.apply", {"config": {}, "confirm_timeout": 0}, "$.confirm_timeout"),
                ("config.apply", {}, "$"),
                ("log.list", {"limit": -1}, "$.limit"),
                ("stats.get", {"surprise": 1}, "$.surprise")):
            equal(router.refusal(method, params).data.get("path"), path, f"{method} {params}")
        lan.ping(WAN)


def command_lines(tap, lab):
    path = lab.path("right.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(plain_config(), file)

    with tap.case("dpdk-router: misuse is answered in one sentence, with status 2"):
        for words in ((), ("-c", path), ("--",), ("--", "-c"), ("--", "-c", path, "--surprise"),
                      ("--", "-c", path, "surprise"), ("--", "-c", path, "--log-level", "loud"),
                      ("--", "-c", path, "--log-level"), ("--", "-c", path, "-s", ""),
                      ("--", "-c", path, "-x"), ("--", "-c", path, "--check=yes"),
                      ("--", "-c", path, "-s"), ("--", "-c", "", "--check")):
            done = subprocess.run([Lab.program, *words], capture_output=True, text=True, timeout=20,
                                  check=False)
            lines = done.stderr.splitlines()
            equal((done.returncode, done.stdout, len(lines)), (2, "", 1), f"{words}: {lines}")
            check(len(lines[0]) > 20, f"{words}: {lines[0]}")
    with tap.case("dpdk-router: wrong EAL options end with status 2 and a sentence"):
        for words in (("--no-such-option",), ("-l", "4000"), ("-l", "x"), ("--lcores", "0@4000")):
            done = lab.space("eal").run(Lab.program, *words, "--no-huge", "--", "-c", path, "-s",
                                        lab.path("eal.sock"), status=2)
            check("EAL" in done.stderr.splitlines()[-1], f"{words}: {done.stderr}")
    with tap.case("dpdk-router: --help and --version, with and without \"--\""):
        for words in (("--help",), ("--", "--help"), ("-h",), ("--version",), ("--", "--version"),
                      ("--", "-V")):
            done = subprocess.run([Lab.program, *words], capture_output=True, text=True, timeout=20,
                                  check=False)
            equal((done.returncode, done.stderr), (0, ""), f"{words}")
            check("dpdk-router" in done.stdout, f"{words}: {done.stdout}")
    with tap.case("dpdk-router: a socket path that cannot be"):
        for wrong in ("/proc/nothing/control.sock", "/" + "x" * 200, path, lab.directory):
            done = lab.space("socket").run(Lab.program, "-l", "0", "--no-huge", "-m", "256", "--",
                                           "-c", path, "-s", wrong, status=None)
            check(done.returncode in (1, 2), f"{wrong}: exit status {done.returncode}")
            check(wrong[:50] in done.stderr, f"{wrong}: {done.stderr}")
        with open(path, encoding="utf-8") as file:
            equal(json.load(file), plain_config(), "a file that was named as the socket")
    with tap.case("routerctl: misuse is answered in one sentence, with status 2"):
        for words in (("no", "such", "command"), ("show",), ("-s", "", "show", "system", "now"),
                      ("show", "everything"), ("route", "add"), ("route", "add", "x", "blackhole"),
                      ("config", "apply"), ("config", "apply", path, "confirm", "soon"),
                      ("interface", "up"), ("show", "stats", "interval", "never"),
                      ("call", "system.info", "{")):
            done = subprocess.run([Lab.ctl, "-s", lab.path("none.sock"), *words],
                                  capture_output=True, text=True, timeout=20, check=False)
            lines = done.stderr.splitlines()
            equal((done.returncode, done.stdout), (2, ""), f"{words}: {lines}")
            check(lines[0].startswith("routerctl: ") and
                  all("routerctl" in line for line in lines[1:]), f"{words}: {lines}")
        for words in (("--surprise",), ("-s",), ("-x", "show", "system")):
            done = subprocess.run([Lab.ctl, *words], capture_output=True, text=True, timeout=20,
                                  check=False)
            equal((done.returncode, done.stdout), (2, ""), f"{words}: {done.stderr}")
            check("usage: routerctl" in done.stderr, f"{words}: {done.stderr}")
    with tap.case("routerctl: no router, or nobody on the socket: status 3"):
        done = subprocess.run([Lab.ctl, "-s", lab.path("none.sock"), "show", "system"],
                              capture_output=True, text=True, timeout=20, check=False)
        equal((done.returncode, len(done.stderr.splitlines())), (3, 1), done.stderr)
        check(lab.path("none.sock") in done.stderr, done.stderr)
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.bind(lab.path("stale.sock"))
        done = subprocess.run([Lab.ctl, "-s", lab.path("stale.sock"), "show", "system"],
                              capture_output=True, text=True, timeout=20, check=False)
        equal((done.returncode, len(done.stderr.splitlines())), (3, 1), done.stderr)
        os.unlink(lab.path("stale.sock"))


def main():
    arguments()
    tap = Tap("mistakes")
    with tap.lab() as lab:
        checks(tap, lab)
        running(tap, lab)
        command_lines(tap, lab)
    tap.end()


if __name__ == "__main__":
    main()
