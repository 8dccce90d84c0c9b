#!/usr/bin/python3
"""Benchmark of ESP's cryptography: esp.py BUILD_DIRECTORY

Packets per second that one core encrypts, against DPDK's dpdk-test-crypto-perf with the driver that
does the same by the same library, both on data in the cache.
"""
import os
import re
import subprocess
import sys

from bench import SECONDS, Bench, paired

AEAD = ["--optype", "aead", "--aead-iv-sz", "12", "--aead-aad-sz", "8", "--digest-sz", "16"]
CASES = [
    # name, ours, bytes, DPDK's driver, its options
    ("AES-GCM-128", ("aes-gcm-128", "-"), 64, "crypto_aesni_gcm",
     [*AEAD, "--aead-algo", "aes-gcm", "--aead-key-sz", "16"]),
    ("AES-GCM-128", ("aes-gcm-128", "-"), 1400, "crypto_aesni_gcm",
     [*AEAD, "--aead-algo", "aes-gcm", "--aead-key-sz", "16"]),
    ("AES-GCM-256", ("aes-gcm-256", "-"), 1400, "crypto_aesni_gcm",
     [*AEAD, "--aead-algo", "aes-gcm", "--aead-key-sz", "32"]),
    ("ChaCha20-Poly1305", ("chacha20-poly1305", "-"), 1400, "crypto_chacha20_poly1305",
     [*AEAD, "--aead-algo", "chacha20-poly1305", "--aead-key-sz", "32"]),
    ("AES-CBC-256 and HMAC-SHA256", ("aes-cbc-256", "hmac-sha256-128"), 1400, "crypto_aesni_mb",
     ["--optype", "cipher-then-auth", "--cipher-algo", "aes-cbc", "--cipher-key-sz", "32", "--cipher-iv-sz", "16",
      "--cipher-op", "encrypt", "--auth-algo", "sha2-256-hmac", "--auth-op", "generate", "--auth-key-sz", "64",
      "--digest-sz", "16"]),
]


def ours(bench, algorithms, size):
    run = subprocess.run(["taskset", "-c", "1", bench.build / "test/perf/esp", *algorithms, str(size), str(SECONDS)],
                         check=True, capture_output=True, text=True)
    return float(run.stdout.split()[0])


def theirs(bench, driver, options, size):
    size = (size + 15) // 16 * 16 if "cipher-then-auth" in options else size
    run = subprocess.run(
        ["dpdk-test-crypto-perf", "--no-pci", "--no-telemetry", "--lcores", "0@0,1@1", *bench.memory(512),
         f"--file-prefix=crypto{os.getpid()}", "--huge-unlink=always", "--vdev", driver, "--",
         "--devtype", driver, "--ptest", "throughput", "--buffer-sz", str(size), "--burst-sz", "32",
         "--total-ops", str(int(SECONDS * 5_000_000)), "--pool-sz", "1024", "--silent",
         *(["--aead-op", "encrypt"] if "aead" in options else []), *options],
        check=False, capture_output=True, text=True)
    rates = re.findall(r"^\s*\d+\s+\d+\s+\d+\s+\d+\s+\d+\s+\d+\s+\d+\s+([\d.]+)", run.stdout, re.MULTILINE)
    if not rates:
        raise RuntimeError(run.stdout + run.stderr)
    return float(rates[-1]) * 1e6


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bench = Bench(sys.argv[1])
    for name, algorithms, size, driver, options in CASES:
        paired(f"{name}, {size} bytes / {driver}", lambda: ours(bench, algorithms, size),
               lambda: theirs(bench, driver, options, size), unit="million/s")


if __name__ == "__main__":
    main()
