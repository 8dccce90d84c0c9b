"""What the benchmarks share: frames, capture files, the yardstick, the router, and paired runs.

The yardstick is dpdk-testpmd --forward-mode=io on the same virtual port: net_pcap replays a capture
from memory without end (infinite_rx), a second net_pcap without a transmit file discards. Both
programs use one worker core. Absolute figures drift with the machine, so each benchmark runs router and
yardstick in turn and reports the median of the ratios.
"""
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROUTER_MAC = "02:00:00:00:00:01"
FRAME_BYTES = 64
FLOWS = 1024
PAIRS = int(os.environ.get("BENCH_PAIRS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))


def mac_bytes(text):
    return bytes(int(part, 16) for part in text.split(":"))


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp4(source, destination, source_port, destination_port, size=FRAME_BYTES):
    """An Ethernet frame of `size` bytes (without FCS) to the router; addresses are 4 bytes."""
    length = size - 14
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 17, 0, source, destination)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    udp = struct.pack("!HHHH", source_port, destination_port, length - 20, 0)
    return (mac_bytes(ROUTER_MAC) + mac_bytes("02:00:00:00:00:10") + b"\x08\x00" + header + udp).ljust(size, b"\0")


def udp6(source, destination, source_port, destination_port, size=FRAME_BYTES):
    payload = size - 54
    header = struct.pack("!IHBB16s16s", 6 << 28, payload, 17, 64, source, destination)
    udp = struct.pack("!HHHH", source_port, destination_port, payload, 0xFFFF)
    frame = mac_bytes(ROUTER_MAC) + mac_bytes("02:00:00:00:00:10") + b"\x86\xdd" + header + udp
    return frame.ljust(size, b"\0")


def write_pcap(path, frames):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for frame in frames:
            file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
    return path


class Rpc:
    """A JSON-RPC connection to the router."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.settimeout(120)
        self.reader = self.socket.makefile("rb")
        self.id = 0

    def send(self, method, params=None):
        self.id += 1
        request = {"jsonrpc": "2.0", "id": self.id, "method": method, "params": params or {}}
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def receive(self):
        reply = json.loads(self.reader.readline())
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["result"]

    def call(self, method, params=None):
        self.send(method, params)
        return self.receive()


class Bench:
    """A directory for one benchmark's files, and the programs."""

    def __init__(self, build):
        self.build = pathlib.Path(build).resolve()
        self.directory = tempfile.TemporaryDirectory(prefix="dpdk-router-bench-")
        self.path = pathlib.Path(self.directory.name)
        self.hugepages = prepare_hugepages()

    def memory(self, mib):
        return [] if self.hugepages else ["--no-huge", "-m", str(mib)]

    def config(self, config):
        file = self.path / "router.json"
        file.write_text(json.dumps(config))
        return file

    def start_router(self, config, lcores="0@0,1@1", memory=1024, wait=60):
        return Router(self, self.config(config), lcores, memory, wait)

    def testpmd(self, capture, other, seconds=SECONDS, cores=1):
        """Packets per second that testpmd's io mode forwards from the capture."""
        lcores = ",".join(f"{core}@{core}" for core in range(cores + 1)) if cores == 1 else "0@0,1@0,2@1"
        command = ["dpdk-testpmd", "--no-pci", "--no-telemetry", "--lcores", lcores, "-n", "1",
                   "--log-level=error", f"--file-prefix=yardstick{os.getpid()}", "--huge-unlink=always",
                   *self.memory(1024),
                   "--vdev", f"net_pcap0,rx_pcap={capture},infinite_rx=1",
                   "--vdev", f"net_pcap1,rx_pcap={other}",
                   "--", "--forward-mode=io", "--no-flush-rx", "--total-num-mbufs=32768",
                   f"--nb-cores={cores}", "--stats-period", "1"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        rates = []
        try:
            for line in process.stdout:
                found = re.search(r"Tx-pps:\s+(\d+)", line)
                if found and int(found.group(1)) > 0:
                    rates.append(int(found.group(1)))
                    if len(rates) >= seconds + 2:
                        break
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            process.wait()
        if len(rates) < 3:
            raise RuntimeError("testpmd forwarded nothing")
        return statistics.median(rates[1:])  # the first period covers the start


class Router:
    def __init__(self, bench, config, lcores, memory, wait):
        self.socket_path = str(bench.path / "control.sock")
        self.log = open(bench.path / "router.log", "w+")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [str(bench.build / "app/dpdk-router"), "--lcores", lcores, *bench.memory(memory), "--",
             "-c", str(config), "-s", self.socket_path, "--log-level", "warning"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        while True:
            try:
                self.rpc = Rpc(self.socket_path)
                self.rpc.call("system.info")
                break
            except (OSError, ValueError):
                if self.process.poll() is not None or time.monotonic() > self.started + wait:
                    self.log.seek(0)
                    raise RuntimeError("the router did not start:\n" + self.log.read()) from None
                time.sleep(0.02)
        self.start_seconds = time.monotonic() - self.started

    def stats(self):
        return self.rpc.call("stats.get", {"all": True})

    def sent(self):
        return sum(i["tx_packets"] for i in self.stats()["interfaces"].values())

    def rate(self, seconds=SECONDS):
        """Packets per second sent."""
        time.sleep(0.5)
        start, before = time.monotonic(), self.sent()
        time.sleep(seconds)
        after = self.sent()
        return (after - before) / (time.monotonic() - start)

    def cycles(self):
        """Cycles per packet by stage, of the first worker."""
        return {s["name"]: s["cycles_per_packet"] for s in self.rpc.call("runtime.get")["workers"][0]["stages"]}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError("the router did not stop") from None
        if self.process.returncode != 0:
            self.log.seek(0)
            raise RuntimeError(f"the router ended with status {self.process.returncode}:\n" + self.log.read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


def prepare_hugepages(mib=6144):
    """Reserves hugepages if the machine gives them; they stay, a benchmark machine has little else to
    do with its memory."""
    try:
        knob = pathlib.Path("/proc/sys/vm/nr_hugepages")
        if int(knob.read_text()) < mib // 2:
            knob.write_text(str(mib // 2))
        if not any(" hugetlbfs " in line for line in open("/proc/mounts")):
            os.makedirs("/dev/hugepages", exist_ok=True)
            subprocess.run(["mount", "-t", "hugetlbfs", "hugetlbfs", "/dev/hugepages"], check=True)
        return int(knob.read_text()) >= mib // 2
    except (OSError, subprocess.CalledProcessError):
        return False


def paired(name, first, second, unit="Mpps", pairs=PAIRS):
    """Runs both in turn and prints the median ratio first/second. Each returns packets per second."""
    rows = []
    for pair in range(pairs):
        a, b = first(), second()
        rows.append((a, b, a / b))
        print(f"  pair {pair + 1}: {a / 1e6:8.2f} / {b / 1e6:8.2f} {unit} = {a / b:.3f}", flush=True)
    ratio = statistics.median(row[2] for row in rows)
    print(f"{name}: ratio {ratio:.3f} (median of {pairs}; {statistics.median(r[0] for r in rows) / 1e6:.2f} / "
          f"{statistics.median(r[1] for r in rows) / 1e6:.2f} {unit})", flush=True)
    return ratio
