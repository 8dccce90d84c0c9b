"""The router's life: quick to start, tells systemd, reloads without a loss, shares one lcore, works
without hugepages, gives back its buffers, and ends without a trace."""
import glob
import os
import re
import signal
import socket
import subprocess
import time

from lab import (LAN, LAN6, LAN_ROUTER, WAN, WAN6, RpcError, Skip, Tap, arguments, check, equal,
                 memory_arguments, plain_config, plain_hosts, plain_scene, until)


def hugetlb_users():
    """Processes that hold hugepages."""
    users = set()
    for path in glob.glob("/proc/[0-9]*/status"):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                if re.search(r"HugetlbPages:\s+[1-9]", file.read()):
                    users.add(path.split("/")[2])
        except OSError:
            pass
    return users


def free_hugepages():
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(re.search(r"HugePages_Free:\s+(\d+)", file.read()).group(1))


def traces():
    """What a router could leave behind on this machine."""
    return {pattern: set(glob.glob(pattern)) for pattern in (
        "/dev/hugepages/*", "/run/dpdk/*", "/var/run/dpdk/*/*", "/tmp/*dpdk*sock*", "/dev/shm/*")}


def start_and_stop(tap):
    with tap.lab() as lab:
        with tap.case("READY=1 comes by NOTIFY_SOCKET, forwarding within 2 s, STOPPING=1 at the end"):
            path = lab.path("notify.sock")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
                systemd.bind(path)
                systemd.settimeout(20)
                router = lab.router(plain_config(), environment={"NOTIFY_SOCKET": path},
                                    wait=False)
                check(b"READY=1" in systemd.recv(4096), "the first message is not READY=1")
                seconds = time.monotonic() - router.started
                # Ready means: the control socket answers.
                equal(router.call("system.info")["pid"], router.process.pid, "pid")
                lan, _ = plain_hosts(lab, router)
                lan.ping(WAN)
                found = re.search(r"forwarding with 1 worker after ([\d.]+) s", router.log())
                check(float(found.group(1)) < 2, found.group(0))
                check(seconds < 5, f"READY=1 came after {seconds:.1f} s")
                router.process.send_signal(signal.SIGHUP)
                check(b"RELOADING=1" in systemd.recv(4096), "no RELOADING=1")
                check(b"READY=1" in systemd.recv(4096), "no READY=1 after reloading")
                router.process.send_signal(signal.SIGTERM)
                check(b"STOPPING=1" in systemd.recv(4096), "no STOPPING=1")
                equal(router.process.wait(5), 0, "exit status")

        with tap.case("SIGTERM stops within a second and leaves nothing"):
            others = hugetlb_users()
            before, free = traces(), free_hugepages()
            config = plain_config(lan={"host_twin": "twin0"})
            router = lab.router(config, space=lab.space("traces"))
            lan = lab.host("lan2").plug(router, "lan", f"{LAN}/24", gateway=LAN_ROUTER)
            until(lambda: lan.reaches(LAN_ROUTER), "lan reaches the router")
            flood = lan.start("ping", "-q", "-f", LAN_ROUTER)
            time.sleep(0.3)
            status, seconds = router.stop()
            lab.stop(flood)
            equal(status, 0, "exit status")
            check(seconds < 1, f"it took {seconds:.2f} s")
            check(not os.path.exists(router.socket), "the control socket is still there")
            links = router.space.ip("-br link show").split()
            check("wan" not in links and "twin0" not in links, f"devices are left: {links}")
            check("eth0" not in lan.ip("-br link show"), "the device in lan's namespace is left")
            if not hugetlb_users() | others:  # what other programs leave is theirs
                for pattern, files in traces().items():
                    equal(files - before[pattern], set(), pattern)
                until(lambda: free_hugepages() >= free, "the hugepages are free again")

        with tap.case("SIGINT ends it as well; so does SIGTERM in the middle of the start"):
            router = lab.router(plain_config())
            router.process.send_signal(signal.SIGINT)
            equal(router.process.wait(5), 0, "exit status")
            for delay in (0.02, 0.1, 0.2, 0.3):
                router = lab.router(plain_config(), wait=False)
                time.sleep(delay)
                router.process.send_signal(signal.SIGTERM)
                status = router.process.wait(10)
                # Before the program has seen its first line, SIGTERM kills it as any other.
                check(status in (0, -signal.SIGTERM), f"exit status {status} after {delay} s")
                check(not os.path.exists(router.socket), "the control socket is still there")

        with tap.case("a configuration that the hardware refuses at the start: status 1, nothing left"):
            router = lab.router({"interfaces": {
                "lan": {"device": "net_tap0,iface=lan"},
                "new": {"device": "net_af_packet0,iface=nosuch0"}}}, wait=False)
            equal(router.process.wait(20), 1, "exit status")
            check("$.interfaces.new" in router.log(), router.log())
            check(not os.path.exists(router.socket), "the control socket is still there")
            check("lan" not in router.space.ip("-br link show").split(), "a device is left")

        with tap.case("killed with SIGKILL: the next start works, in the same place"):
            first = lab.router(plain_config())
            first.process.kill()
            first.process.wait()
            second = lab.router(plain_config(), space=first.space, options=("-s", first.socket))
            equal(second.process.poll(), None, "exit status")
            equal(second.stop()[0], 0, "exit status")


def reloads(tap):
    with tap.lab() as lab:
        router, lan, wan = plain_scene(lab)
        hosts = (lan, wan)

        def linux_lost():
            return sum(host.kernel_drops("eth0") + host.socket_drops() for host in hosts)

        def hundred_reloads():
            """Ten different configurations in turn; each adds routes, a VLAN, a VRF..."""
            for number in range(100):
                config = plain_config()
                if number % 2:
                    config["routes"] = [{"prefix": f"10.{number}.0.0/16", "via": WAN}]
                if number % 3 == 0:
                    config["interfaces"]["guest"] = {"parent": "lan", "vlan": 20,
                                                     "addresses": ["10.200.0.1/24"]}
                if number % 5 == 0:
                    config["vrfs"] = {"red": {"table": 5}}
                router.write(config)
                router.process.send_signal(signal.SIGHUP)
                # The answer comes after the signal was served.
                router.call("system.info")
                time.sleep(0.01)

        with tap.case("100 reloads under UDP and ping: the router loses nothing"):
            lan.ping(WAN)
            router.call("stats.clear")
            kernel = linux_lost()
            server = wan.serve("iperf3", "-s", "-1", "--forceflush", "-B", WAN,
                               ready="Server listening")
            flow = lan.start("iperf3", "-u", "-c", WAN, "-b", "20M", "-l", 500, "-t", 4,
                             stdout=subprocess.PIPE)
            pings = lan.start("ping", "-n", "-q", "-i", "0.002", "-c", 1500, WAN,
                              stdout=subprocess.PIPE)
            time.sleep(0.5)
            log = len(router.log())
            hundred_reloads()
            lost = re.search(r"(\d+)/(\d+) \([\d.e+-]+%\) +receiver",
                             flow.communicate(timeout=30)[0])
            ping = re.search(r"(\d+) packets transmitted, (\d+) received",
                             pings.communicate(timeout=30)[0])
            lab.stop(server)
            kernel = linux_lost() - kernel
            reloaded = router.log()[log:].count("applied a configuration")
            check(50 <= reloaded <= 100, f"{reloaded} configurations were applied")
            router.no_drops("parse.unknown_vlan")
            counters = router.counters()
            for name in ("lan", "wan"):
                for counter in ("rx_missed", "tx_dropped"):
                    equal(counters[name][counter], 0, f"{name} {counter}")
            check(int(lost.group(2)) > 10000, f"only {lost.group(2)} datagrams were sent")
            missing = int(lost.group(1)) + int(ping.group(1)) - int(ping.group(2))
            # ping hardly waits for its last answers.
            check(missing <= kernel + 10, f"{missing} packets are missing, {kernel} of them in Linux")
            # Of what came in on one side all must have left on the other, but for ARP and ND.
            received = counters["lan"]["rx_packets"]
            sent = counters["wan"]["tx_packets"]
            check(abs(received - sent) < 300, f"{received} packets came in, {sent} went out")
        with tap.case("TCP survives 100 reloads"):
            server = wan.serve("iperf3", "-s", "-1", "--forceflush", "-B", WAN,
                               ready="Server listening")
            flow = lan.start("iperf3", "-c", WAN, "-b", "50M", "-t", 3, stdout=subprocess.PIPE)
            time.sleep(0.3)
            hundred_reloads()
            output = flow.communicate(timeout=30)[0]
            lab.stop(server)
            check("receiver" in output, output)
        with tap.case("buffers come back: as many in use when idle as before the traffic"):
            router.write(plain_config())
            router.process.send_signal(signal.SIGHUP)

            def idle():
                time.sleep(0.2)
                return router.mbufs_in_use()
            before = min(idle() for _ in range(5))
            lan.tcp(wan, WAN, "-P", 4)
            lan.udp(wan, WAN, "-l", 8000, rate="50M")
            lan.ping(WAN, "-s", 4000, count=20)
            lan.ping("203.0.113.99", "-f", count=50, status=1)  # wait for a neighbour in vain
            lan.run("traceroute", "-n", WAN)
            lan.ping(WAN6, "-s", 4000, count=20)
            until(lambda: idle() <= before, f"no more than {before} buffers are in use", 20)
        with tap.case("a change that a port cannot carry is refused, and its TAP stays"):
            def refused(part, **members):
                document = plain_config()
                document["interfaces"]["lan"].update(members)
                try:
                    router.call("config.apply", {"config": document})
                    check(False, f"{members} was taken")
                except RpcError as error:
                    check(any(part in each for each in error.problems()), f"{error.problems()}")
                lan.ping(WAN)

            index = lan.run("cat", "/sys/class/net/eth0/ifindex").stdout
            refused("carries at most", mtu=9000)
            refused("has only", rx_queues=32)
            equal(lan.run("cat", "/sys/class/net/eth0/ifindex").stdout, index, "index of the TAP")
        with tap.case("memory does not grow with reloads"):
            def resident():
                with open(f"/proc/{router.process.pid}/status", encoding="ascii") as file:
                    return int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1))
            hundred_reloads()
            before = resident()
            hundred_reloads()
            hundred_reloads()
            check(resident() - before < 2048, f"{resident() - before} KiB more")


def ways_to_run(tap):
    def passes(lab, router):
        lan, wan = plain_hosts(lab, router)
        lan.ping(WAN)
        lan.ping(WAN6)
        lan.tcp(wan, WAN, "--bidir")
        lan.udp(wan, WAN, rate="5M")
        return lan, wan

    with tap.lab() as lab:
        with tap.case("one lcore (-l 0): the control thread and the worker share it"):
            router = lab.router(plain_config(), lcores=["-l", "0"])
            lan, wan = passes(lab, router)
            router.ctl("show", "interfaces")
            info = router.call("system.info")
            equal((info["control_lcore"], info["workers"]), (0, [0]), "lcores")
            flood = lan.start("ping", "-q", "-f", WAN)
            slowest = 0
            for _ in range(50):
                started = time.monotonic()
                router.call("stats.get")
                slowest = max(slowest, time.monotonic() - started)
            lab.stop(flood)
            check(slowest < 1, f"an answer took {slowest:.2f} s")
            for number in range(20):
                router.call("config.apply", {"config": plain_config(
                    routes=[{"prefix": f"10.{number}.0.0/16", "via": WAN}])})
            wan.ping(LAN)
            wan.ping(LAN6)
            status, seconds = router.stop()
            equal(status, 0, "exit status")
            check(seconds < 1, f"stopping took {seconds:.2f} s")

    with tap.lab() as lab:
        with tap.case("--no-huge"):
            router = lab.router(plain_config(), memory=["--no-huge", "-m", "512"])
            passes(lab, router)
            equal(router.stop()[0], 0, "exit status")

    with tap.lab() as lab:
        with tap.case("hugepages"):
            if memory_arguments():
                raise Skip("not enough hugepages are free, or no hugetlbfs is mounted")
            passes(lab, lab.router(plain_config(), memory=[]))

    with tap.lab() as lab:
        with tap.case("two workers, two queues per interface"):
            router = lab.router(plain_config(), lcores=["--lcores", "0@0,1@0,2@1"]
                                if os.cpu_count() > 1 else ["--lcores", "0@0,1@0,2@0"])
            lan, wan = passes(lab, router)
            lan.tcp(wan, WAN, "-P", 8)
            workers = router.call("runtime.get")["workers"]
            equal([len(each["queues"]) for each in workers], [2, 2], "queues per worker")
            router.no_drops("tx.port_full")

    with tap.lab() as lab:
        with tap.case("two routers on one machine, one behind the other"):
            first = lab.router(plain_config())
            lan, _ = plain_hosts(lab, first)
            # The second router in a namespace of its own; nothing of it is shared.
            second = lab.router(plain_config(), lcores=["-l", "0"], space=lab.space("second"))
            lan2, _ = plain_hosts(lab, second)
            lan.ping(WAN)
            lan2.ping(WAN)
            equal(second.stop()[0], 0, "exit status")
            lan.ping(WAN)


def main():
    arguments()
    tap = Tap("life")
    start_and_stop(tap)
    reloads(tap)
    ways_to_run(tap)
    tap.end()


if __name__ == "__main__":
    main()
