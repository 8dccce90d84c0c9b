#!/usr/bin/python3
"""Benchmarks of IPsec: ipsec.py BUILD_DIRECTORY CASE

Clear packets in, ESP tunnel out, and the reverse, on one worker, against testpmd io fed with the same
capture. CASE: out-64, out-1400, in-64, in-1400 (AES-GCM-128), gcm256, ciphers, sas,
firewall, rekey.

What comes in has the same sequence numbers again and again, since the port replays one capture; so
those associations have no window against replays.
"""
import struct
import sys
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench import FLOWS, ROUTER_MAC, SECONDS, Bench, checksum, mac_bytes, paired, udp4, write_pcap

OUTER_SOURCE, OUTER_DESTINATION = "192.0.2.1", "203.0.113.1"
KEYS = {"aes-gcm-128": 20, "aes-gcm-256": 36, "chacha20-poly1305": 36, "aes-cbc-256": 32}
SPI = 4096


def packed(address):
    return bytes(int(part) for part in address.split("."))


def tunnel_of(i):
    """The address that tunnel i leads to."""
    return f"172.{16 + (i >> 16)}.{i >> 8 & 255}.{i & 255}"


def clear(size, flows=FLOWS, tunnels=1):
    """Flow i is for tunnel i % tunnels."""
    for i in range(flows):
        tunnel = i % tunnels
        yield udp4(packed(f"10.0.{i >> 8 & 255}.{i & 255}"), packed(tunnel_of(tunnel)), 1024 + i % 60000,
                   4096 + i % 16, size)


def esp(frames, algorithm="aes-gcm-128", tunnels=1):
    """The frames in ESP, by another implementation of AES-GCM. Frame i is in tunnel i % tunnels."""
    for i, frame in enumerate(frames):
        spi = SPI + i % tunnels
        key = key_of(algorithm, spi)
        gcm, salt = AESGCM(key[:-4]), key[-4:]
        inner = frame[14:14 + struct.unpack("!H", frame[16:18])[0]]
        pad = -(len(inner) + 2) % 4
        header, iv = struct.pack("!II", spi, i + 1), struct.pack("!Q", i + 1)
        payload = inner + bytes(range(1, pad + 1)) + bytes([pad, 4])
        body = header + iv + gcm.encrypt(salt + iv, payload, header)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), i & 0xFFFF, 0, 64, 50, 0,
                         packed(OUTER_DESTINATION), packed(OUTER_SOURCE))
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        yield mac_bytes(ROUTER_MAC) + mac_bytes("02:00:00:00:00:10") + b"\x08\x00" + ip + body


def one_packet(bench):
    """For the second port, which only has to be there; no policy is about it."""
    return write_pcap(bench.path / "one.pcap", [udp4(packed("192.0.3.10"), packed("192.0.3.99"), 1, 1)])


def association(direction, algorithm, spi=SPI, destination=OUTER_DESTINATION):
    made = {"spi": spi, "direction": direction, "algorithm": algorithm, "key": key_of(algorithm, spi).hex(),
            "source": OUTER_SOURCE, "destination": destination}
    if direction == "in":
        made["source"], made["destination"] = made["destination"], made["source"]
    if algorithm == "aes-cbc-256":
        made.update(authentication="hmac-sha256-128", authentication_key=bytes(range(32)).hex())
    return made


def key_of(algorithm, spi=SPI):
    return bytes((i * 7 + spi) & 255 for i in range(KEYS[algorithm]))


def config(capture, other, ipsec, extra=None):
    made = {
        "interfaces": {
            "in": {"device": f"net_pcap0,rx_pcap={capture},infinite_rx=1", "mac": ROUTER_MAC,
                   "addresses": ["10.255.0.1/24", f"{OUTER_SOURCE}/32"]},
            "out": {"device": f"net_pcap1,rx_pcap={other}", "mac": ROUTER_MAC, "addresses": ["192.0.3.1/24"]},
        },
        "neighbours": [{"interface": "out", "address": "192.0.3.10", "mac": "02:00:00:00:01:10"}],
        "routes": [{"prefix": "0.0.0.0/0", "via": "192.0.3.10"}],
        "ipsec": ipsec,
        "mbufs": 32768,
    }
    made.update(extra or {})
    return made


def outbound(algorithm="aes-gcm-128", tunnels=1):
    policies = [{"direction": "out", "action": "protect", "spi": SPI + i, "source": "10.0.0.0/16",
                 "destination": tunnel_of(i)} for i in range(tunnels)]
    return {"sas": [association("out", algorithm, SPI + i, f"203.0.{113 + (i >> 8)}.{i & 255}" if tunnels > 1
                                else OUTER_DESTINATION) for i in range(tunnels)],
            "policies": policies}


def inbound(algorithm="aes-gcm-128", tunnels=1):
    return {"sas": [association("in", algorithm, SPI + i) for i in range(tunnels)],
            "policies": [{"direction": "in", "action": "protect", "spi": SPI + i, "source": "10.0.0.0/16",
                          "destination": tunnel_of(i)} for i in range(tunnels)]}


def forwarding(bench, made):
    cycles = {}

    def run():
        with bench.start_router(made) as router:
            rate = router.rate()
            cycles.update(router.cycles())
            drops = router.stats()["drops"]
            if any(count for name, count in drops.items() if name.startswith("ipsec")):
                raise RuntimeError(f"packets were dropped: {drops}")
            return rate

    return run, cycles


def against_testpmd(bench, name, frames, ipsec, extra=None):
    capture = write_pcap(bench.path / "capture.pcap", frames)
    other = one_packet(bench)
    run, cycles = forwarding(bench, config(capture, other, ipsec, extra))
    paired(f"{name} / testpmd io", run, lambda: bench.testpmd(capture, other))
    print("cycles per packet: " + ", ".join(f"{stage} {value:.1f}" for stage, value in cycles.items() if value))


def against_each_other(bench, name, frames, first, second):
    """Two configurations of the router, as (sections, more)."""
    capture = write_pcap(bench.path / "capture.pcap", frames)
    other = one_packet(bench)
    one, cycles = forwarding(bench, config(capture, other, *first))
    two, _ = forwarding(bench, config(capture, other, *second))
    paired(name, one, two)
    print("cycles per packet: " + ", ".join(f"{stage} {value:.1f}" for stage, value in cycles.items() if value))


def out(size):
    return lambda bench: against_testpmd(bench, f"AES-GCM-128 out, {size} bytes", clear(size), outbound())


def into(size):
    return lambda bench: against_testpmd(bench, f"AES-GCM-128 in, {size} bytes",
                                         esp(clear(size)), inbound())


def gcm256(bench):
    for size in (64, 1400):
        against_each_other(bench, f"AES-GCM-256 / AES-GCM-128, {size} bytes", clear(size),
                           (outbound("aes-gcm-256"),), (outbound(),))


def ciphers(bench):
    for algorithm in ("chacha20-poly1305", "aes-cbc-256"):
        against_testpmd(bench, f"{algorithm} out, 1400 bytes", clear(1400), outbound(algorithm))


def many(bench):
    other = one_packet(bench)

    def of(name, frames, ipsec):
        return forwarding(bench, config(write_pcap(bench.path / name, frames), other, ipsec))

    for direction, made, wrapped in (("out", outbound, lambda frames, _: frames),
                                     ("in", inbound, lambda frames, tunnels: esp(frames, tunnels=tunnels))):
        for tunnels in 64, 10_000:
            one, cycles = of("many.pcap", wrapped(clear(64, 10_000, tunnels), tunnels), made(tunnels=tunnels))
            two, _ = of("single.pcap", wrapped(clear(64, 10_000, 1), 1), made())
            paired(f"{tunnels:,} associations {direction} / one, 64 bytes, 10,000 flows", one, two)
            print("cycles per packet: " + ", ".join(f"{stage} {value:.1f}" for stage, value in cycles.items() if value))


def firewall(bench):
    more = {"sessions": {"size": 65536, "keep": False},
            "firewall": {"default": "drop", "rules": [{"name": "out", "in": "in", "out": "out", "action": "accept"}]},
            "nat": {"source": [{"out": "out", "to": "interface"}]}}
    for size in (64, 1400):
        against_each_other(bench, f"with firewall and NAT / without, {size} bytes", clear(size),
                           (outbound(), more), (outbound(),))


def rekeying(bench):
    """Associations replaced over the control socket, one after the other, while packets go on."""
    capture = write_pcap(bench.path / "capture.pcap", clear(64))
    ipsec = {"sas": [], "policies": [{"direction": "out", "action": "protect", "request": 1, "source": "10.0.0.0/16",
                                      "destination": "172.16.0.0/12"}]}

    def add(router, spi):
        router.rpc.call("ipsec.sa.add", dict(association("out", "aes-gcm-128", spi), request=1))

    with bench.start_router(config(capture, one_packet(bench), ipsec)) as router:
        add(router, SPI)
        before, sent, start, count = router.stats()["drops"], router.sent(), time.monotonic(), 0
        while time.monotonic() < start + SECONDS:
            add(router, SPI + count + 1)
            router.rpc.call("ipsec.sa.delete", {"spi": SPI + count, "direction": "out"})
            count += 1
        seconds = time.monotonic() - start
        lost = {name: number - before[name] for name, number in router.stats()["drops"].items()
                if number > before[name] and name.startswith("ipsec")}
        print(f"{count / seconds:.0f} associations replaced per second at {(router.sent() - sent) / seconds / 1e6:.2f} "
              f"Mpps, dropped {lost or 'nothing'}")


CASES = {"out-64": out(64), "out-1400": out(1400), "in-64": into(64), "in-1400": into(1400), "gcm256": gcm256,
         "ciphers": ciphers, "sas": many, "firewall": firewall,
         "rekey": rekeying}


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in CASES:
        sys.exit(__doc__)
    CASES[sys.argv[2]](Bench(sys.argv[1]))


if __name__ == "__main__":
    main()
