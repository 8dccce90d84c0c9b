#!/usr/bin/python3
"""Forwarding benchmarks: forwarding.py BUILD_DIRECTORY CASE

  ipv4          16 IPv4 routes, 1024 flows of 64-byte frames, against testpmd io
  ipv6          16 IPv6 routes, 1024 flows of 64-byte frames, against testpmd io
  tables        a million IPv4 and 200,000 IPv6 routes: time to load over JSON-RPC, memory, time of a
                single change while forwarding, and the forwarding rate against the 16-route rate
  workers       two workers on two cores against one
  reload        100 changes of configuration, then 100,000 routes added and withdrawn, under full load:
                no packet may be lost
  clients       forwarding while clients send garbage, a line of 100 MB and half requests, or do not read, by the
                thousand, against forwarding without any
  start         from the start of the program to the first forwarded packet
"""
import ipaddress
import itertools
import multiprocessing
import os
import random
import re
import socket
import statistics
import sys
import time

from bench import FLOWS, ROUTER_MAC, SECONDS, Bench, paired, udp4, udp6, write_pcap

ROUTES = 16


def packed(text):
    return ipaddress.ip_address(text).packed


def flows4(count=FLOWS):
    for i in range(count):
        yield udp4(packed(f"10.0.{i >> 8}.{i & 255}"), packed(f"198.18.{i % ROUTES}.{i // ROUTES % 250 + 1}"),
                   1024 + i, 53)


def flows6(count=FLOWS):
    for i in range(count):
        yield udp6(packed(f"2001:db8:a::{i + 1:x}"), packed(f"2001:db8:{0x100 + i % ROUTES:x}::{i + 1:x}"),
                   1024 + i, 53)


def interfaces(capture, other):
    return {
        "in": {"device": f"net_pcap0,rx_pcap={capture},infinite_rx=1", "mac": ROUTER_MAC,
               "addresses": ["10.255.0.1/24", "2001:db8:ffff:1::1/64"]},
        "out": {"device": f"net_pcap1,rx_pcap={other}", "mac": "02:00:00:00:00:02",
                "addresses": ["192.0.2.1/24", "2001:db8:ffff:2::1/64"]},
    }


def base_config(capture, other):
    neighbours, routes = [], []
    for i in range(ROUTES):
        mac = f"02:00:00:00:01:{i:02x}"
        neighbours += [{"interface": "out", "address": f"192.0.2.{i + 10}", "mac": mac},
                       {"interface": "out", "address": f"2001:db8:ffff:2::{i + 10:x}", "mac": mac}]
        routes += [{"prefix": f"198.18.{i}.0/24", "via": f"192.0.2.{i + 10}"},
                   {"prefix": f"2001:db8:{0x100 + i:x}::/48", "via": f"2001:db8:ffff:2::{i + 10:x}"}]
    return {"interfaces": interfaces(capture, other), "neighbours": neighbours, "routes": routes}


def run(bench, name, frames):
    frames = list(frames)
    capture = write_pcap(bench.path / "flows.pcap", frames)
    other = write_pcap(bench.path / "one.pcap", frames[:1])
    config = base_config(capture, other)
    cycles = []

    def router():
        with bench.start_router(config) as process:
            rate = process.rate(SECONDS)
            cycles.append(process.cycles())
            drops = {k: v for k, v in process.stats()["drops"].items() if v}
            if sum(drops.values()) > 100:
                raise RuntimeError(f"packets were dropped: {drops}")
            return rate

    ratio = paired(name, router, lambda: bench.testpmd(capture, other))
    print("cycles per packet:", ", ".join(f"{stage} {value:.1f}" for stage, value in cycles[-1].items()))
    return ratio


def lost(stats_before, stats_after):
    """Packets that came in and neither left nor still are in the router, and the reasons counted."""
    def sums(stats, key):
        return sum(i[key] for i in stats["interfaces"].values())

    received = sums(stats_after, "rx_packets") - sums(stats_before, "rx_packets")
    sent = sums(stats_after, "tx_packets") - sums(stats_before, "tx_packets")
    dropped = {name: count - stats_before["drops"].get(name, 0) for name, count in stats_after["drops"].items()
               if count != stats_before["drops"].get(name, 0)}
    return received, sent, dropped


# --- large tables ---

ROUTES4, ROUTES6, BATCH = 1_000_000, 200_000, 10_000


def random_routes4(count):
    """Distinct random prefixes of /16 to /24 in 1.0.0.0 to 223.255.255.255, away from what the router
    uses itself."""
    seen = set()
    while len(seen) < count:
        length = random.randint(16, 24)
        address = random.randint(1 << 24, (224 << 24) - 1) & (0xFFFFFFFF << (32 - length))
        if address >> 24 not in (10, 127) and address >> 16 != 192 << 8:
            seen.add((address, length))
    return list(seen)


def random_routes6(count):
    """Clustered as on the Internet: 40,000 allocations of /29 to /32 in 2000::/3, the rest more specific
    prefixes of /33 to /48 inside them."""
    seen = set()
    allocations = []
    while len(allocations) < 40_000:
        length = random.randint(29, 32)
        address = (1 << 125) | random.getrandbits(28) << 97
        address &= ((1 << length) - 1) << (128 - length)
        if address >> 96 != 0x20010DB8 and (address, length) not in seen:
            seen.add((address, length))
            allocations.append((address, length))
    while len(seen) < count:
        address, length = random.choice(allocations)
        specific = random.choice((36, 40, 44, 48, 48, 48, 48))
        inside = random.getrandbits(specific - length) << (128 - specific)
        seen.add((address | inside, specific))
    return list(seen)


def load(router, routes):
    """Adds the routes in batches, the next one sent while the last is worked on; returns seconds."""
    batches = [routes[i:i + BATCH] for i in range(0, len(routes), BATCH)]
    start = time.monotonic()
    for number, batch in enumerate(batches):
        router.rpc.send("route.add", {"routes": batch})
        if number > 0:
            router.rpc.receive()
    router.rpc.receive()
    return time.monotonic() - start


def resident_mib(pid):
    """Resident memory, hugepages included."""
    status = open(f"/proc/{pid}/status").read()
    return sum(int(re.search(rf"{key}:\s+(\d+) kB", status).group(1)) for key in ("VmRSS", "HugetlbPages")) / 1024


def single_changes(router, count=200):
    """Milliseconds of a single route.add and route.delete, the connection included: median, worst."""
    times = []
    for i in range(count):
        prefix = f"100.{64 + i % 64}.{i}.0/24"
        for method, params in (("route.add", {"prefix": prefix, "via": "192.0.2.10"}),
                               ("route.delete", {"prefix": prefix})):
            start = time.monotonic()
            router.rpc.call(method, params)
            times.append((time.monotonic() - start) * 1000)
    return statistics.median(times), max(times)


def tables(bench):
    """With as many flows as the other benchmarks have, and with so many that neither the routes' nor the
    frames' memory fits into any cache."""
    routes4, routes6 = random_routes4(ROUTES4), random_routes6(ROUTES6)
    text4 = [{"prefix": f"{ipaddress.IPv4Address(a)}/{n}", "via": f"192.0.2.{10 + i % ROUTES}"}
             for i, (a, n) in enumerate(routes4)]
    text6 = [{"prefix": f"{ipaddress.IPv6Address(a)}/{n}", "via": f"2001:db8:ffff:2::{10 + i % ROUTES:x}"}
             for i, (a, n) in enumerate(routes6)]
    other = write_pcap(bench.path / "one.pcap", list(flows4(1)))

    def rate(capture, with_tables):
        with bench.start_router(base_config(capture, other), memory=2048) as router:
            if with_tables:
                seconds = load(router, text4) + load(router, text6)
                print(f"  loaded {ROUTES4 + ROUTES6} routes in {seconds:.2f} s; "
                      f"resident {resident_mib(router.process.pid):.0f} MiB", flush=True)
            result = router.rate(SECONDS)
            if with_tables:
                print("  single change while forwarding: median %.3f ms, worst %.3f ms" % single_changes(router))
            return result

    for flows in (FLOWS, 65_536):
        spread = {
            "IPv4": [udp4(packed("10.0.0.1"), (address | random.getrandbits(32 - length)).to_bytes(4, "big"), 1024, 53)
                     for address, length in random.sample(routes4, flows)],
            "IPv6": [udp6(packed("2001:db8:a::1"), (address | random.getrandbits(128 - length)).to_bytes(16, "big"),
                          1024, 53) for address, length in random.sample(routes6, flows)]}
        for family, frames in spread.items():
            wide = write_pcap(bench.path / "wide.pcap", frames)
            narrow = write_pcap(bench.path / "narrow.pcap", narrow_flows(family, flows))
            paired(f"{family}, {flows} flows, {ROUTES4} + {ROUTES6} routes / 16 routes", lambda: rate(wide, True),
                   lambda: rate(narrow, False))


def narrow_flows(family, count):
    """As many packets as the wide captures have, to the 16 routes: the number of buffers that the port
    works through, and so the load on the caches, is the same."""
    for i in range(count):
        if family == "IPv4":
            yield udp4(packed("10.0.0.1"), packed(f"198.18.{i % ROUTES}.{i // ROUTES % 250 + 1}"), 1024, 53)
        else:
            yield udp6(packed("2001:db8:a::1"), packed(f"2001:db8:{0x100 + i % ROUTES:x}::{i % 60000 + 1:x}"), 1024, 53)


# --- workers, reloads, start ---

def workers(bench):
    half = list(flows4())
    captures = [write_pcap(bench.path / f"flows{i}.pcap", half[i::2]) for i in range(2)]
    other = write_pcap(bench.path / "one.pcap", half[:1])
    config = base_config(captures[0], other)
    config["interfaces"]["in"]["device"] = f"net_pcap0,rx_pcap={captures[0]},rx_pcap={captures[1]},infinite_rx=1"
    config["interfaces"]["out"]["device"] = f"net_pcap1,rx_pcap={other},rx_pcap={other}"

    def rate(lcores):
        with bench.start_router(config, lcores=lcores) as router:
            return router.rate(SECONDS)

    paired("two workers / one worker", lambda: rate("0@0,1@0,2@1"), lambda: rate("0@0,1@1"))


def reload(bench):
    frames = list(flows4())
    capture = write_pcap(bench.path / "flows.pcap", frames)
    other = write_pcap(bench.path / "one.pcap", frames[:1])
    config = base_config(capture, other)
    with bench.start_router(config) as router:
        time.sleep(1)
        before = router.stats()
        start = time.monotonic()
        for i in range(100):
            changed = dict(config, routes=config["routes"] + [{"prefix": f"100.64.{i}.0/24", "blackhole": True}],
                           vrfs={"other": {"table": i + 1}} if i % 2 else {})
            router.rpc.call("config.apply", {"config": changed})
        print(f"100 configurations applied in {time.monotonic() - start:.2f} s")
        report("100 reloads", router, before)
        before = router.stats()
        routes = [{"prefix": f"{100 + (i >> 16)}.{i >> 8 & 255}.{i & 255}.0/24", "via": "192.0.2.10"}
                  for i in range(100_000)]
        # Also more specific routes that lead elsewhere, inside prefixes that carry traffic.
        routes[::100] = [{"prefix": f"198.18.{i % 16}.{i // 16 * 4}/30", "via": "192.0.2.11"} for i in range(1000)]
        seconds = load(router, routes)
        for i in range(0, len(routes), BATCH):
            router.rpc.call("route.delete", {"routes": [{"prefix": r["prefix"]} for r in routes[i:i + BATCH]]})
        print(f"{len(routes)} routes added in {seconds:.2f} s, then withdrawn")
        report("100,000 routes added and withdrawn", router, before)


def report(name, router, before):
    received, sent, dropped = lost(before, router.stats())
    # The two counters are read while packets are under way: up to a burst or two may be between them.
    between = received - sent
    print(f"{name}: {received} packets in, {sent} out ({between} between the two readings), dropped {dropped or 'none'}")
    if dropped:
        raise RuntimeError("packets were lost")


class Pests:
    """Clients as no one wants them, one after the other without end; in a process of their own, on the control
    thread's CPU."""

    def __init__(self, path):
        self.process = multiprocessing.Process(target=self.run, args=(path,))
        self.process.start()

    @staticmethod
    def run(path):
        os.sched_setaffinity(0, {0})
        listing = b'{"jsonrpc":"2.0","id":1,"method":"system.methods"}\n'
        kinds = (b"\0\xff garbage }{][" * 4000 + b"\n", b'{"jsonrpc":"2.0","method":', listing * 2000,
                 b"[" * 10_000_000 + b"\n", b" " * 100_000_000 + b"\n")
        held = []
        for number in itertools.count():
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(0.5)
            try:
                client.connect(path)
                client.sendall(kinds[-1] if number % 200 == 0 else kinds[-2] if number % 50 == 0 else kinds[number % 3])
            except OSError:
                pass
            held.append(client)  # never read
            if len(held) == 1000:
                for old in held[:500]:
                    old.close()
                del held[:500]

    def stop(self):
        self.process.terminate()
        self.process.join()


def clients(bench):
    frames = list(flows4())
    capture = write_pcap(bench.path / "flows.pcap", frames)
    other = write_pcap(bench.path / "one.pcap", frames[:1])
    before, after = [], []

    def rate(pestered):
        with bench.start_router(base_config(capture, other)) as router:
            pests = Pests(router.socket_path) if pestered else None
            before.append(router.stats())
            result = router.rate(SECONDS)
            after.append(router.stats())
            if pests:
                pests.stop()
            dropped = lost(before[-1], after[-1])[2]
            if dropped:
                raise RuntimeError(f"packets were lost: {dropped}")
            return result

    paired("forwarding beside clients that mean no good / without any", lambda: rate(True), lambda: rate(False))


def start(bench):
    frames = list(flows4())
    capture = write_pcap(bench.path / "flows.pcap", frames)
    other = write_pcap(bench.path / "one.pcap", frames[:1])
    times = []
    for _ in range(5):
        with bench.start_router(base_config(capture, other)) as router:
            while router.sent() == 0:
                time.sleep(0.005)
            times.append(time.monotonic() - router.started)
    print(f"start to first packet: median {statistics.median(times):.2f} s, worst {max(times):.2f} s of {len(times)}")


CASES = {
    "ipv4": lambda bench: run(bench, "IPv4, 16 routes / testpmd io", flows4()),
    "ipv6": lambda bench: run(bench, "IPv6, 16 routes / testpmd io", flows6()),
    "tables": tables,
    "workers": workers,
    "reload": reload,
    "clients": clients,
    "start": start,
}


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in CASES:
        sys.exit(__doc__)
    CASES[sys.argv[2]](Bench(sys.argv[1]))


if __name__ == "__main__":
    random.seed(1)
    main()
