"""The configuration at run time: apply, roll back, confirm, save, reload by SIGHUP; interfaces down
and up; routes that are withdrawn and fall back. Through the control socket and through routerctl."""
import json
import os
import signal
import time

from lab import (LAN, LAN_ROUTER, WAN, WAN6, Tap, arguments, check, equal, plain_config,
                 plain_scene, until)


def with_blackhole():
    return plain_config(routes=[{"prefix": f"{WAN}/32", "blackhole": True}])


def confirmation(tap):
    with tap.lab() as lab:
        router, lan, _ = plain_scene(lab)
        path = lab.path("next.json")

        def write(config):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(config, file)

        write(with_blackhole())
        with tap.case("a configuration that is not confirmed is rolled back by itself"):
            router.ctl("config", "apply", path, "confirm", "2")
            applied = time.monotonic()
            lan.no_answer(WAN)
            check(router.call("system.info")["confirm_remaining_seconds"] is not None,
                  "no remaining time is shown")
            until(lambda: router.call("config.get") == plain_config(), "the old configuration")
            check(1.5 < time.monotonic() - applied < 4, "rolled back at the wrong time")
            lan.ping(WAN)
            equal(router.call("system.info")["confirm_remaining_seconds"], None, "time left")
        with tap.case("a confirmed configuration stays"):
            router.ctl("config", "apply", path, "confirm", "1")
            router.ctl("config", "confirm")
            time.sleep(1.5)
            equal(router.call("config.get"), with_blackhole(), "configuration")
            lan.no_answer(WAN)
        with tap.case("rollback by hand, once"):
            router.ctl("config", "rollback")
            lan.ping(WAN)
            done = router.ctl("config", "rollback", status=1)
            check("there is no earlier configuration" in done.stderr, done.stderr)
            check("no configuration waits" in router.ctl("config", "confirm", status=1).stderr,
                  "the answer to a confirmation that nobody waits for")
        with tap.case("diff and check change nothing"):
            changes = router.call("config.diff", {"config": with_blackhole()})["changes"]
            equal([(each["path"], each["action"]) for each in changes], [("$.routes", "add")],
                  "changes")
            router.ctl("config", "check", path)
            router.ctl("config", "diff", path, status=None)
            equal(router.call("config.get"), plain_config(), "configuration")
        with tap.case("save writes the running configuration, whole, and a restart reads it"):
            router.call("config.apply", {"config": with_blackhole()})
            os.chmod(router.config_file, 0o640)
            router.ctl("config", "save")
            with open(router.config_file, encoding="utf-8") as file:
                equal(json.load(file), with_blackhole(), "file")
            equal(os.stat(router.config_file).st_mode & 0o777, 0o640, "mode of the file")
            names = os.listdir(lab.directory)
            check(not [name for name in names if "tmp" in name or name.startswith(".")],
                  f"left behind: {names}")
            router.call("config.save", {"file": lab.path("other.json")})
            check(os.path.exists(lab.path("other.json")), "the other file is missing")
            done = router.refusal("config.save", {"file": "/nonexistent/router.json"})
            check("/nonexistent" in str(done), str(done))


def reload(tap):
    with tap.lab() as lab:
        router, lan, _ = plain_scene(lab)

        def hup(config):
            before = len(router.log())
            router.write(config)
            router.process.send_signal(signal.SIGHUP)
            return before

        with tap.case("SIGHUP reads the configuration file again"):
            router.wait_log("applied", hup(with_blackhole()))
            equal(router.call("config.get"), with_blackhole(), "configuration")
            lan.no_answer(WAN)
            router.wait_log("applied", hup(plain_config()))
            lan.ping(WAN)
        for name, text in (("that is not JSON", "{\"interfaces\":"),
                           ("with an unknown key", json.dumps(plain_config(surprise=1))),
                           ("that is empty", "")):
            with tap.case(f"SIGHUP with a file {name}: an error in the log, nothing else"):
                before = hup(text)
                until(lambda b=before: "error" in router.log()[b:], "the log tells of an error")
                equal(router.call("config.get"), plain_config(), "configuration")
                lan.ping(WAN)
        with tap.case("SIGHUP without the file: an error in the log, nothing else"):
            before = len(router.log())
            os.unlink(router.config_file)
            router.process.send_signal(signal.SIGHUP)
            until(lambda: "error" in router.log()[before:], "the log tells of an error")
            lan.ping(WAN)
        with tap.case("twenty SIGHUPs in a row"):
            for _ in range(20):
                hup(with_blackhole())
                hup(plain_config())
            until(lambda: router.call("config.get") == plain_config(), "the last file is in force")
            lan.ping(WAN)
        with tap.case("a port is added and removed at run time, the others go on"):
            more = plain_config()
            more["interfaces"]["dmz"] = {"device": "net_tap2,iface=dmz",
                                         "addresses": ["10.1.0.1/24"]}
            flow = lan.start("ping", "-q", "-i", "0.01", WAN)
            router.call("config.apply", {"config": more})
            dmz = lab.host("dmz").plug(router, "dmz", "10.1.0.10/24", gateway="10.1.0.1")
            until(lambda: dmz.reaches(LAN), "the new host reaches lan")
            router.call("config.apply", {"config": plain_config()})
            until(lambda: "eth0" not in dmz.ip("link show"), "the device is gone")
            equal(flow.poll(), None, "ping ended")
            lab.stop(flow)
            lan.ping(WAN)


def interfaces(tap):
    """lan reaches 10.99.0.1 at host backup or at host main; the route over main is the better one."""
    config = plain_config()
    config["interfaces"]["backup"] = {"device": "net_tap2,iface=backup",
                                      "addresses": ["10.2.0.1/24"]}
    config["routes"] = [{"prefix": "10.99.0.0/24", "via": WAN},
                        {"prefix": "10.99.0.0/16", "via": "10.2.0.10"}]
    with tap.lab() as lab:
        router, lan, wan = plain_scene(lab, plain_config())
        router.call("config.apply", {"config": config})
        backup = lab.host("backup").plug(router, "backup", "10.2.0.10/24", gateway="10.2.0.1")
        for host in (wan, backup):
            host.address("lo", "10.99.0.1/32")

        def way():
            """Through which interface do pings to 10.99.0.1 leave?"""
            before = router.counters()
            lan.ping("10.99.0.1", count=10)
            after = router.counters()
            return max(("wan", "backup"),
                       key=lambda name: after[name]["tx_packets"] - before[name]["tx_packets"])

        with tap.case("the more specific route is used while its interface is up"):
            until(lambda: lan.reaches("10.99.0.1"), "lan reaches 10.99.0.1")
            equal(way(), "wan", "way")
        with tap.case("an interface that goes down takes its routes with it; others take over"):
            router.ctl("interface", "down", "wan")
            until(lambda: lan.reaches("10.99.0.1"), "lan reaches 10.99.0.1 by the other way")
            equal(way(), "backup", "way")
            routes = router.call("route.list", {"covering": "203.0.113.10"})["routes"]
            check(not [each for each in routes if each["active"]], f"still there: {routes}")
            output = lan.ping(WAN, count=1, status=1)[2]
            check("Destination Net Unreachable" in output, output)
            lan.ping(LAN_ROUTER)
        with tap.case("... and brings them back"):
            router.ctl("interface", "up", "wan")
            until(lambda: lan.reaches(WAN), "lan reaches wan")
            equal(way(), "wan", "way")
            router.settled()
            until(lambda: lan.reaches(WAN6), "lan reaches wan by IPv6")
        with tap.case("two next hops of one route: when one goes, the other carries all"):
            router.call("route.add", {"prefix": "10.99.0.1/32", "via": [WAN, "10.2.0.10"]})
            until(lambda: lan.reaches("10.99.0.1"), "lan reaches 10.99.0.1")
            router.ctl("interface", "down", "wan")
            until(lambda: lan.reaches("10.99.0.1"), "lan reaches 10.99.0.1")
            lan.tcp(backup, "10.99.0.1")
            router.ctl("interface", "up", "wan")
            router.call("route.delete", {"prefix": "10.99.0.1/32"})
        with tap.case("a cable that is pulled: the router notices nothing of a tap in a namespace, "
                      "and goes on"):
            wan.ip("link set eth0 down")
            lan.no_answer(WAN)
            wan.ip("link set eth0 up")
            wan.ip("route replace default via 203.0.113.1 dev eth0")
            until(lambda: lan.reaches(WAN), "lan reaches wan")
        with tap.case("\"enabled\": false in the configuration"):
            config["interfaces"]["wan"]["enabled"] = False
            router.call("config.apply", {"config": config})
            until(lambda: lan.reaches("10.99.0.1"), "lan reaches 10.99.0.1 by the other way")
            equal(way(), "backup", "way")
            config["interfaces"]["wan"]["enabled"] = True
            router.call("config.apply", {"config": config})
            until(lambda: lan.reaches(WAN), "lan reaches wan")
            equal(LAN, "198.51.100.10")


def main():
    arguments()
    tap = Tap("config")
    confirmation(tap)
    reload(tap)
    interfaces(tap)
    tap.end()


if __name__ == "__main__":
    main()
