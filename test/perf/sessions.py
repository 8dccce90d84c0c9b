#!/usr/bin/python3
"""Benchmarks of firewall and NAT: sessions.py BUILD_DIRECTORY CASE

  firewall      stateful firewall with 1,000 rules, 1,024 established flows, against testpmd io
  firewall6     the same with IPv6
  nat-1k        source NAT and that firewall, 1,024 sessions, against testpmd io; then the translated answers
  nat-64k       64,512 sessions (1,024 hosts with 63 ports each, in random order); the same
  nat-1m        1,032,192 sessions (16,384 hosts with 63 ports each); the same
  nat64         NAT64 and that firewall, 1,024 sessions; then the translated answers
  open          new sessions per second with NAT and 1,000 rules, while 100,000 flows keep flowing
  memory        bytes per session
  rules         new sessions per second with 10,000 rules against 100, and the time to change the rules

The yardstick is testpmd io on 1,024 frames, whatever the number of sessions: with many buffers testpmd
itself waits for memory.
"""
import random
import statistics
import sys
import time

from bench import PAIRS, ROUTER_MAC, SECONDS, Bench, paired, udp4, udp6, write_pcap
from forwarding import lost, packed, resident_mib

PORTS = 63          # per host
HOSTS_EACH = 1024   # hosts that share one outside address
FIRST_PORT = 1024
ROUTES = 16


def rules(count):
    """Rules of the usual kinds, none of which matches the benchmarks' traffic; the last one does."""
    generator = random.Random(1)
    made = []
    for i in range(count - 1):
        rule = {"name": f"r{i}", "action": generator.choice(["accept", "drop"]),
                "protocol": generator.choice(["tcp", "udp"]),
                "source": f"172.{generator.randrange(16, 32)}.{generator.randrange(256)}.0/24",
                "destination": f"100.{generator.randrange(64, 128)}.{generator.randrange(256)}."
                               f"{generator.randrange(256)}/32"}
        if i % 2:
            rule["destination_port"] = generator.randrange(1, 65000)
        elif i % 3 == 0:
            first = generator.randrange(1, 60000)
            rule["destination_port"] = f"{first}-{first + generator.randrange(1, 5000)}"
        if i % 5 == 0:
            rule["in"] = "in"
        made.append(rule)
    return made + [{"name": "out", "in": "in", "out": "out", "action": "accept"},
                   {"name": "out2", "in": "in2", "out": "out", "action": "accept"}]


def flow(i):
    """Host and source port of flow i: the hosts of one outside address have ports of their own, so that
    the NAT keeps them and the answers are known beforehand."""
    host, port = i // PORTS, FIRST_PORT + i // PORTS % HOSTS_EACH * PORTS + i % PORTS
    return f"10.{host >> 16}.{host >> 8 & 255}.{host & 255}", port


def remote(i):
    return f"198.18.{i % ROUTES}.{i // ROUTES % 250 + 1}"


def outside(i):
    return f"203.0.113.{i // PORTS // HOSTS_EACH + 1}"


def forward_frames(count, seed=2):
    order = list(range(count))
    random.Random(seed).shuffle(order)
    for i in order:
        source, port = flow(i)
        yield udp4(packed(source), packed(remote(i)), port, 53)


def answer_frames(count):
    order = list(range(count))
    random.Random(3).shuffle(order)
    for i in order:
        yield udp4(packed(remote(i)), packed(outside(i)), 53, flow(i)[1])


def firewall6(bench):
    frames = [udp6(packed(f"2001:db8:a::{i + 1:x}"), packed(f"2001:db8:{0x100 + i % ROUTES:x}::{i + 1:x}"), 1024 + i, 53)
              for i in range(1024)]
    forward = write_pcap(bench.path / "forward.pcap", frames)
    other = write_pcap(bench.path / "one.pcap", frames[:1])
    cycles = []
    made = config(f"{forward},infinite_rx=1", other, 1024, False)
    made["interfaces"]["in"]["addresses"].append("2001:db8:ffff:1::1/64")
    made["interfaces"]["out"]["addresses"].append("2001:db8:ffff:2::1/64")
    for i in range(ROUTES):
        made["neighbours"].append({"interface": "out", "address": f"2001:db8:ffff:2::{i + 10:x}",
                                   "mac": f"02:00:00:00:01:{i:02x}"})
        made["routes"].append({"prefix": f"2001:db8:{0x100 + i:x}::/48", "via": f"2001:db8:ffff:2::{i + 10:x}"})

    def out():
        with bench.start_router(made) as router:
            return measure(router, 1024, cycles)

    paired("stateful firewall, 1,000 rules, 1,024 IPv6 flows / testpmd io", out, lambda: bench.testpmd(forward, other))
    print("cycles per packet:", ", ".join(f"{stage} {value:.1f}" for stage, value in cycles[-1].items()))


def nat64(bench):
    """IPv6 hosts to IPv4 servers behind 2001:db8:64::/96, and the answers."""
    def server(i):
        return bytes.fromhex("20010db8006400000000000000000000")[:12] + packed(remote(i))

    count = 1024
    frames = [udp6(packed(f"2001:db8:a::{i + 1:x}"), server(i), 1024 + i, 53) for i in range(count)]
    back = [udp4(packed(remote(i)), packed("203.0.113.1"), 53, 1024 + i) for i in range(count)]
    random.Random(2).shuffle(frames)
    random.Random(3).shuffle(back)
    forward, answers = write_pcap(bench.path / "forward.pcap", frames), write_pcap(bench.path / "answers.pcap", back)
    other = write_pcap(bench.path / "one.pcap", frames[:1])
    cycles = []

    def made(one, two):
        out = config(one, two, count, False)
        out["interfaces"]["in"]["addresses"].append("2001:db8:ffff:1::1/64")
        out["neighbours"].append({"interface": "in", "address": "2001:db8:ffff:1::10", "mac": "02:00:00:00:02:01"})
        out["routes"].append({"prefix": "2001:db8:a::/48", "via": "2001:db8:ffff:1::10"})
        out["nat"] = {"nat64": [{"prefix": "2001:db8:64::/96", "out": "out", "to": "203.0.113.1", "ports": "1024-65535"}]}
        return out

    def there():
        with bench.start_router(made(f"{forward},infinite_rx=1", other)) as router:
            return measure(router, count, cycles)

    def returned():
        with bench.start_router(made(forward, f"{answers},infinite_rx=1")) as router:
            return measure(router, count, cycles)

    for name, run in ("NAT64 and firewall, 1,024 sessions", there), ("NAT64 and firewall, 1,024 sessions, answers", returned):
        paired(f"{name} / testpmd io", run, lambda: bench.testpmd(forward, other))
        print("cycles per packet:", ", ".join(f"{stage} {value:.1f}" for stage, value in cycles[-1].items()))


def config(capture, other, count, nat=True, rule_count=1000, extra=None):
    neighbours = [{"interface": "out", "address": f"192.0.2.{i + 10}", "mac": f"02:00:00:00:01:{i:02x}"}
                  for i in range(ROUTES)]
    neighbours.append({"interface": "in", "address": "10.255.0.10", "mac": "02:00:00:00:02:01"})
    made = {
        "interfaces": {
            "in": {"device": f"net_pcap0,rx_pcap={capture}", "mac": ROUTER_MAC, "addresses": ["10.255.0.1/24"]},
            "out": {"device": f"net_pcap1,rx_pcap={other}", "mac": ROUTER_MAC, "addresses": ["192.0.2.1/24"]},
        },
        "neighbours": neighbours,
        "routes": [{"prefix": f"198.18.{i}.0/24", "via": f"192.0.2.{i + 10}"} for i in range(ROUTES)] +
                  [{"prefix": "10.0.0.0/8", "via": "10.255.0.10"}],
        "sessions": {"size": max(65536, count + count // 8), "keep": False},
        "firewall": {"default": "drop", "rules": rules(rule_count)},
        "mbufs": max(32768, count + 16384),
    }
    if nat:
        made["nat"] = {"source": [{"out": "out", "source": "10.0.0.0/14", "ports": "1024-65535",
                                   "port_block": PORTS,
                                   "to": f"203.0.113.1-203.0.113.{max(1, count // PORTS // HOSTS_EACH)}"}]}
    if extra:
        made["interfaces"].update(extra)
    else:
        made["firewall"]["rules"].pop()
    return made


def opened(router):
    return router.rpc.call("session.count")["sessions"]


def wait_for_sessions(router, count, seconds=60):
    until = time.monotonic() + seconds
    while opened(router) < count:
        if time.monotonic() > until:
            raise RuntimeError(f"{opened(router)} of {count} sessions: {dropped(router.stats())}")
        time.sleep(0.05)


def dropped(stats):
    return {name: number for name, number in stats["drops"].items() if number}


def measure(router, count, cycles):
    wait_for_sessions(router, count)
    before = router.stats()
    rate = router.rate(SECONDS)
    cycles.append(router.cycles())
    drops = lost(before, router.stats())[2]
    if drops:
        raise RuntimeError(f"packets were dropped: {drops}")
    return rate


def established(bench, name, count, nat):
    forward = write_pcap(bench.path / "forward.pcap", forward_frames(count))
    answers = write_pcap(bench.path / "answers.pcap", answer_frames(count))
    other = write_pcap(bench.path / "one.pcap", [next(forward_frames(PORTS))])
    yardstick = write_pcap(bench.path / "yardstick.pcap", forward_frames(1024))
    there, back = [], []

    opening = write_pcap(bench.path / "opening.pcap", forward_frames(count, 4))
    second = {"in2": {"device": f"net_pcap2,rx_pcap={opening}", "mac": ROUTER_MAC, "addresses": ["10.254.0.1/24"]}}
    made = config(f"{forward},infinite_rx=1", other, count, nat, extra=second)
    made["interfaces"]["in"]["enabled"] = False

    def in_order():
        with bench.start_router(config(f"{forward},infinite_rx=1", other, count, nat)) as router:
            return measure(router, count, [])

    def out():
        # Another order than that in which the sessions were opened: their memory is not walked in a row.
        with bench.start_router(made) as router:
            wait_for_sessions(router, count)
            router.rpc.call("interface.set", {"name": "in", "admin": "up"})
            time.sleep(0.3)
            return measure(router, count, there)

    def returned():
        # The way out once, to open the sessions; then answers without end.
        with bench.start_router(config(forward, f"{answers},infinite_rx=1", count, nat)) as router:
            return measure(router, count, back)

    def testpmd():
        return bench.testpmd(yardstick, other)

    paired(name + ", in the order in which they were opened / testpmd io", in_order, testpmd)
    ratios = [paired(name + ", in another order / testpmd io", out, testpmd)]
    print("cycles per packet:", ", ".join(f"{stage} {value:.1f}" for stage, value in there[-1].items()))
    if nat:
        ratios.append(paired(name + ", answers / testpmd io", returned, testpmd))
        print("cycles per packet:", ", ".join(f"{stage} {value:.1f}" for stage, value in back[-1].items()))
        print(f"answers / way out: {ratios[1] / ratios[0]:.3f}")


def memory_per_session(bench):
    """Bytes: tables of two sizes compared. They are resident from the start."""
    other = write_pcap(bench.path / "one.pcap", [next(forward_frames(PORTS))])
    sizes, resident = (65_536, 1_048_576), []
    for size in sizes:
        made = config(other, other, 1024)
        made["sessions"]["size"] = size
        with bench.start_router(made) as router:
            resident.append(resident_mib(router.process.pid))
    print(f"memory per session, mappings of the NAT included: "
          f"{(resident[1] - resident[0]) * (1 << 20) / (sizes[1] - sizes[0]):.0f} bytes")


# --- new sessions ---

def opening_rate(bench, rule_count, established_count, new_count):
    """New sessions per second, the changes of rules under way included."""
    old = write_pcap(bench.path / "old.pcap", forward_frames(established_count))
    fresh = write_pcap(bench.path / "fresh.pcap", new_frames(new_count))
    other = write_pcap(bench.path / "one.pcap", [next(forward_frames(PORTS))])
    total = established_count + new_count
    made = config(f"{old},infinite_rx=1", other, total, True, rule_count, {
        "in2": {"device": f"net_pcap2,rx_pcap={fresh},infinite_rx=1", "mac": ROUTER_MAC, "enabled": False,
                "addresses": ["10.254.0.1/24"]}})
    made["nat"]["source"].append({"out": "out", "source": "10.128.0.0/9", "mapping": "endpoint_dependent",
                                  "to": "203.0.114.1"})
    made["mbufs"] = total + 32768
    with bench.start_router(made) as router:
        wait_for_sessions(router, established_count)
        before = router.stats()
        router.rpc.call("interface.set", {"name": "in2", "admin": "up"})
        while opened(router) < established_count + new_count // 10:
            time.sleep(0.01)
        first, first_time = opened(router), time.monotonic()
        while opened(router) < established_count + new_count * 9 // 10:
            time.sleep(0.1)
        last, last_time = opened(router), time.monotonic()
        _, _, drops = lost(before, router.stats())
        drops.pop("parse.interface_down", None)
        return (last - first) / (last_time - first_time), drops


def new_frames(count):
    for i in range(count):
        yield udp4(packed(f"10.{128 + (i >> 20)}.{i >> 12 & 255}.{i >> 4 & 255}"),
                   packed(f"198.18.{i % ROUTES}.{i // ROUTES % 250 + 1}"), 20000 + i % 40000, 1000 + i % 16)


def opening(bench):
    rates = []
    for pair in range(PAIRS):
        rate, drops = opening_rate(bench, 1000, 100_000, 1_000_000)
        print(f"  run {pair + 1}: {rate / 1e6:.2f} million new sessions per second, dropped {drops or 'nothing'}",
              flush=True)
        rates.append(rate)
    print(f"new sessions, NAT and 1,000 rules, beside 100,000 flows: {statistics.median(rates) / 1e6:.2f} million "
          f"per second (median of {PAIRS})")


def many_rules(bench):
    paired("new sessions with 10,000 rules / 100 rules", lambda: opening_rate(bench, 10_000, 1024, 500_000)[0],
           lambda: opening_rate(bench, 100, 1024, 500_000)[0], unit="million/s")
    capture = write_pcap(bench.path / "forward.pcap", forward_frames(1024))
    other = write_pcap(bench.path / "one.pcap", [next(forward_frames(PORTS))])
    made = config(f"{capture},infinite_rx=1", other, 1024, True, 10_000)
    with bench.start_router(made) as router:
        wait_for_sessions(router, 1024)
        before, times = router.stats(), []
        for i in range(5):
            changed = dict(made, firewall=dict(made["firewall"], rules=made["firewall"]["rules"][i + 1:]))
            start = time.monotonic()
            router.rpc.call("config.apply", {"config": changed})
            times.append(time.monotonic() - start)
        print(f"10,000 rules changed in {statistics.median(times):.2f} s (median of 5, worst {max(times):.2f} s), "
              f"dropped {lost(before, router.stats())[2] or 'nothing'}")


CASES = {
    "firewall": lambda bench: established(bench, "stateful firewall, 1,000 rules, 1,024 flows", 1024, False),
    "firewall6": firewall6,
    "nat-1k": lambda bench: established(bench, "NAT and firewall, 1,024 sessions", 1024, True),
    "nat-64k": lambda bench: established(bench, "NAT and firewall, 64,512 sessions", 1024 * PORTS, True),
    "nat-1m": lambda bench: established(bench, "NAT and firewall, 1,032,192 sessions", 16384 * PORTS, True),
    "memory": memory_per_session,
    "nat64": nat64,
    "open": opening,
    "rules": many_rules,
}


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in CASES:
        sys.exit(__doc__)
    CASES[sys.argv[2]](Bench(sys.argv[1]))


if __name__ == "__main__":
    main()
