#!/usr/bin/python3
"""Writes the corpora of fuzz_esp and fuzz_xfrm: seeds.py [DIRECTORY], by default beside this file.

What the bytes mean stands at the head of fuzz_esp.c and fuzz_xfrm.c.
"""
import ipaddress
import pathlib
import struct
import sys

# --- fuzz_esp ---

SEALED, PATCHED, FRAGMENTED, RAW_WAN, RAW_LAN, CLEAR, ERROR_ABOUT, ECHO = range(8)
SPLIT, WHOLE_PACKET, MORE = 8, 64, 128
INSIDE, FAR, OUTSIDE, ROUTER, PEER = "192.168.1.10", "10.9.0.1", "203.0.113.1", "198.51.100.1", "203.0.113.9"
INSIDE6, FAR6, ROUTER6, PEER6 = "2001:db8:1::10", "2001:db8:9::1", "2001:db8:2::1", "2001:db8:99::9"
PAIRS, FIRST_TRANSPORT = 16, 11


def address(text):
    return ipaddress.ip_address(text).packed


def record(kind, which, body=b"", control=0):
    return struct.pack("<BBH", kind | control, which, len(body)) + body


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(source, destination, protocol, payload, ttl=64, fragment=0, tos=0):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, tos, 20 + len(payload), 7, fragment, ttl, protocol, 0, address(source),
                       address(destination))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(source, destination, protocol, payload, hops=64):
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), protocol, hops, address(source),
                       address(destination)) + payload


def udp(size, source=1000, destination=2000):
    return struct.pack("!HHHH", source, destination, 8 + size, 0) + b"x" * size


def tcp(size, flags=2):
    return struct.pack("!HHIIBBHHH", 1000, 80, 1, 0, 5 << 4, flags, 1024, 0, 0) + b"y" * size


def ether(packet):
    return bytes(12) + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00") + packet


def esp_seeds():
    from_far, from_far6 = ip4(FAR, INSIDE, 17, udp(40)), ip6(FAR6, INSIDE6, 17, udp(40))
    whole = WHOLE_PACKET
    # One of each association, both ways.
    yield "in", b"".join(record(SEALED, i, from_far if i < FIRST_TRANSPORT else tcp(30), whole) for i in range(PAIRS))
    yield "in6", b"".join(record(SEALED, i, from_far6, whole) for i in range(FIRST_TRANSPORT))
    yield "out", b"".join(record(CLEAR, i, b"\x11" + udp(40 + i)) for i in range(PAIRS))
    yield "out6", b"".join(record(CLEAR, 128 | i, b"\x11" + udp(40 + i)) for i in range(FIRST_TRANSPORT))
    for i, which in (("", 0), ("_df", 64), ("6", 128 | 5), ("_transport", 11), ("_udp", 4)):
        yield f"out_long{i}", record(CLEAR, which, b"\x11" * 1440) + record(CLEAR, which, b"\x11" * 1480)
    yield "split", b"".join(record(SEALED, i, from_far + bytes([9]), whole | SPLIT) for i in range(FIRST_TRANSPORT)) + \
        b"".join(record(CLEAR, i, b"\x11" + udp(200) + bytes([9]), SPLIT) for i in range(FIRST_TRANSPORT))
    yield "echo", b"".join(record(CLEAR, i, b"\x06" + tcp(50)) + record(ECHO, i) for i in range(PAIRS))
    yield "errors", b"".join(
        record(CLEAR, i, b"\x11" + udp(300)) + record(ERROR_ABOUT, 0, struct.pack("!BBHH", kind, code, 0, 1000))
        for i, kind, code in [(0, 3, 4), (1, 3, 1), (4, 3, 3), (5, 2, 0), (6, 1, 4), (11, 11, 0), (0, 12, 0), (3, 5, 1)])
    yield "replays", b"".join(record(SEALED, how << 4 | i, from_far, whole) for i in (0, 1, 3, 4)
                              for how in (0, 1, 3, 2, 2, 0, 3, 1, 0))
    yield "ecn", b"".join(record(SEALED, ecn << 6, ip4(FAR, INSIDE, 17, udp(9), tos=inner), whole)
                          for ecn in range(4) for inner in range(4))
    yield "hidden", b"".join(record(SEALED, i, from_far, whole | MORE) for i in range(PAIRS))
    yield "fragments", b"".join(record(FRAGMENTED, i, from_far, whole) for i in range(PAIRS))
    yield "patched", b"".join(record(PATCHED, i, from_far + struct.pack("BB", at, value), whole)
                              for i, at, value in [(0, 8, 63), (1, 1, 3), (2, 20, 1), (4, 24, 1), (5, 7, 63), (8, 9, 1)])
    # All that is encrypted, as it is: padding, its length, next header.
    inner = from_far + bytes(-(len(from_far) + 2) % 16)
    yield "trailers", b"".join(record(SEALED, 2, body) for body in (
        inner + b"\0\x04", inner + b"\0\x29", inner + b"\0\x3b", inner + b"\0\x06", inner + b"\xff\x04", inner + b"\x01\x04",
        inner[:-2] + b"\x01\x02\x02\x04", b"\0\0", b"\0\x04", b"", bytes(range(1, 15)) + b"\x0e\x3b"))
    yield "inner", b"".join(record(SEALED, i, body, whole) for i in (0, 2, 5) for body in (
        ip4(OUTSIDE, INSIDE, 17, udp(9)), ip4(FAR, "10.9.1.1", 17, udp(9)), ip4(FAR, INSIDE, 17, udp(9), ttl=1),
        ip4(FAR, INSIDE, 17, udp(24), fragment=0x2000), ip4(FAR, INSIDE, 17, udp(24), fragment=5),
        ip4(FAR, "192.168.1.1", 1, b"\x08\0\0\0\0\1\0\1ping"), ip4(FAR, "224.0.0.1", 17, udp(9)),
        ip6(FAR6, INSIDE6, 0, bytes([17, 0, 5, 2, 0, 0, 1, 0]) + udp(9)), ip6(FAR6, INSIDE6, 44, bytes([17, 0, 0, 1] * 2)),
        ip6(FAR6, "2001:db8:1::1", 58, b"\x80\0\0\0\0\1\0\1ping"), b"\x45", b"\x60" * 40))
    transport = range(FIRST_TRANSPORT, PAIRS)
    yield "transport", b"".join(record(SEALED, i, body, whole) for i in transport for body in (tcp(9), udp(9), b"", b"\x04" * 60))
    yield "transport_raw", b"".join(record(SEALED, i, body + bytes([0, protocol])) for i in transport
                                    for body, protocol in ((tcp(10), 6), (udp(6), 17), (tcp(10), 4), (udp(6), 41)))
    yield "frames", b"".join(record(kind, 0, ether(packet)) for kind, packet in (
        (RAW_WAN, ip4(PEER, ROUTER, 50, struct.pack("!II", 0x2000, 5) + bytes(40))),
        (RAW_WAN, ip4(PEER, ROUTER, 50, struct.pack("!II", 0x2002, 5) + bytes(7))),
        (RAW_WAN, ip4(PEER, ROUTER, 50, struct.pack("!II", 0x9999, 5) + bytes(40))),
        (RAW_WAN, ip4(OUTSIDE, ROUTER, 50, struct.pack("!II", 0x2000, 6) + bytes(40))),
        (RAW_WAN, ip4(PEER, ROUTER, 17, udp(4, 4500, 4500))), (RAW_WAN, ip4(PEER, ROUTER, 17, udp(40, 4500, 4500))),
        (RAW_WAN, ip4(PEER, ROUTER, 17, struct.pack("!HHHH", 4500, 4500, 9, 0) + b"\xff")),
        (RAW_WAN, ip4(PEER, ROUTER, 17, struct.pack("!HHHHII", 4500, 4500, 48, 0, 0x2004, 1) + bytes(32))),
        (RAW_WAN, ip6(PEER6, ROUTER6, 50, struct.pack("!II", 0x2005, 5) + bytes(40))),
        (RAW_WAN, ip6(PEER6, ROUTER6, 60, bytes([50, 0, 1, 4, 0, 0, 0, 0]) + struct.pack("!II", 0x2005, 5) + bytes(40))),
        (RAW_WAN, ip4(FAR, INSIDE, 17, udp(9))), (RAW_WAN, ip4(PEER, ROUTER, 17, udp(9, 500, 500))),
        (RAW_LAN, ip4(INSIDE, FAR, 6, tcp(600))), (RAW_LAN, ip4(INSIDE, OUTSIDE, 17, udp(9))),
        (RAW_LAN, ip4(INSIDE, "10.10.0.1", 17, udp(9))), (RAW_LAN, ip6(INSIDE6, FAR6, 6, tcp(600))),
        (RAW_LAN, ip4(INSIDE, PEER, 50, struct.pack("!II", 0x7777, 5) + bytes(40)))))


# --- fuzz_xfrm ---

REPAIR, AS_IT_SAYS = 1, 2
LATER, MUCH_LATER, DAYS_LATER = 4, 8, 12
NEWSA, DELSA, GETSA, NEWPOLICY, DELPOLICY, GETPOLICY, ALLOCSPI = range(16, 23)
UPDPOLICY, UPDSA, FLUSHSA, FLUSHPOLICY, NEWAE, GETAE = 25, 26, 28, 29, 30, 31
GETSADINFO, NEWSPDINFO, GETSPDINFO = 35, 36, 37
REQUEST, ACK, DUMP = 1, 4, 0x300
INFINITE = (1 << 64) - 1
ALG_AUTH, ALG_CRYPT, ENCAP, TMPL, LTIME, REPLAY, MARK, ALG_AEAD, AUTH_TRUNC, REPLAY_ESN, DIRECTION, IF_ID = \
    1, 2, 4, 5, 9, 10, 21, 18, 20, 23, 33, 31
IN, OUT, FWD = 0, 1, 2


def message(kind, body, flags=REQUEST | ACK):
    return struct.pack("<IHHII", 16 + len(body), kind, flags, 1, 1) + body


def packet(*messages, control=0):
    data = b"".join(made + bytes(-len(made) % 4) for made in messages)
    return struct.pack("<BH", control, len(data)) + data


def attribute(kind, payload):
    return struct.pack("<HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def host(text):
    return (address(text) + bytes(16))[:16]


def family(text):
    return 10 if ":" in text else 2


def selector(source, destination, protocol=0, ports=(0, 0, 0, 0)):
    source, destination = ipaddress.ip_network(source), ipaddress.ip_network(destination)
    return struct.pack("!16s16sHHHH", (destination.network_address.packed + bytes(16))[:16],
                       (source.network_address.packed + bytes(16))[:16], *ports) + struct.pack(
        "<HBBBxxxiI", 10 if source.version == 6 else 2, destination.prefixlen, source.prefixlen, protocol, 0, 0)


def limits(soft_bytes=INFINITE, hard_bytes=INFINITE, soft_add=0, hard_add=0, soft_use=0, hard_use=0):
    return struct.pack("<8Q", soft_bytes, hard_bytes, INFINITE, INFINITE, soft_add, hard_add, soft_use, hard_use)


def info(source=PEER, destination=ROUTER, spi=0xC0000001, mode=1, window=32, flags=0, life=limits(), protocol=50, reqid=7):
    return selector("0.0.0.0/0", "0.0.0.0/0") + host(destination) + struct.pack("!I", spi) + struct.pack(
        "<Bxxx", protocol) + host(source) + life + bytes(32) + bytes(12) + struct.pack(
        "<IIHBBBxxxxxxx", 0, reqid, family(source), mode, window, flags)


def algorithm(kind, name, key, icv=None):
    head = name.encode().ljust(64, b"\0") + struct.pack("<I", key * 8)
    return attribute(kind, head + (b"" if icv is None else struct.pack("<I", icv)) + bytes(range(key)))


GCM = algorithm(ALG_AEAD, "rfc4106(gcm(aes))", 20, 128)
CBC = algorithm(ALG_CRYPT, "cbc(aes)", 16) + algorithm(AUTH_TRUNC, "hmac(sha256)", 32, 128)
SHA1 = algorithm(ALG_CRYPT, "ecb(cipher_null)", 0) + algorithm(ALG_AUTH, "hmac(sha1)", 20)


def template(source=ROUTER, destination=PEER, spi=0, reqid=7, mode=1):
    return attribute(TMPL, host(destination) + struct.pack("!I", spi) + struct.pack("<Bxxx", 50) + struct.pack(
        "<Hxx", family(source)) + host(source) + struct.pack("<IBBBxIII", reqid, mode, 0, 0, *[0xFFFFFFFF] * 3))


def policy(direction=OUT, chosen=None, priority=100, action=0, index=0, life=limits()):
    chosen = chosen or selector("192.168.1.0/24", "10.9.0.0/16")
    return chosen + life + bytes(32) + struct.pack("<IIBBBBxxxx", priority, index, direction, action, 0, 0)


def policy_id(direction=OUT, index=0, chosen=None):
    return (chosen or selector("192.168.1.0/24", "10.9.0.0/16")) + struct.pack("<IBxxx", index, direction)


def sa_id(destination=ROUTER, spi=0xC0000001):
    return host(destination) + struct.pack("!I", spi) + struct.pack("<HBx", family(destination), 50)


def replay_id(destination=ROUTER, spi=0xC0000001):
    return sa_id(destination, spi) + host(PEER) + struct.pack("<II", 0, 7)


def esn(window, numbers=(0, 0, 0, 0)):
    words = (window + 31) // 32
    return attribute(REPLAY_ESN, struct.pack("<6I", words, *numbers, window) + bytes(4 * words))


def xfrm_seeds():
    out = info(ROUTER, PEER, 0xC0000002)
    yield "algorithms", b"".join(packet(message(NEWSA, info(spi=0xC0000010 + i) + chosen)) for i, chosen in enumerate((
        GCM, CBC, SHA1, algorithm(ALG_AEAD, "rfc4106(gcm(aes))", 36, 64),
        algorithm(ALG_AEAD, "rfc7539esp(chacha20,poly1305)", 36, 128), algorithm(ALG_AEAD, "rfc4543(gcm(aes))", 28, 128),
        algorithm(ALG_CRYPT, "rfc3686(ctr(aes))", 36) + algorithm(AUTH_TRUNC, "hmac(sha512)", 64, 256),
        algorithm(ALG_CRYPT, "aes", 24) + algorithm(AUTH_TRUNC, "sha384", 48, 192),
        algorithm(ALG_AEAD, "unknown", 20, 128), CBC + GCM, b"")))
    yield "negotiation", packet(message(ALLOCSPI, info(spi=0) + struct.pack("<II", 0xC0000000, 0xC00000FF))) + packet(
        message(UPDSA, info() + GCM)) + packet(message(NEWSA, out + GCM)) + packet(
        message(NEWPOLICY, policy() + template())) + packet(
        message(NEWPOLICY, policy(IN, selector("10.9.0.0/16", "192.168.1.0/24")) + template(PEER, ROUTER))) + packet(
        message(NEWPOLICY, policy(FWD, selector("10.9.0.0/16", "192.168.1.0/24")) + template(PEER, ROUTER))) + packet(
        message(UPDPOLICY, policy() + template(spi=0xC0000002))) + packet(message(DELSA, sa_id())) + packet(
        message(DELPOLICY, policy_id()))
    yield "dumps", packet(message(NEWSA, out + CBC), message(NEWPOLICY, policy() + template())) + packet(
        message(GETSA, bytes(24), REQUEST | DUMP)) + packet(message(GETPOLICY, bytes(64), REQUEST | DUMP)) + packet(
        message(GETSA, bytes(24), REQUEST | DUMP), message(GETPOLICY, bytes(64), REQUEST | DUMP | ACK))
    yield "questions", packet(message(NEWSA, info() + GCM), message(NEWPOLICY, policy() + template())) + packet(
        message(GETSA, sa_id()), message(GETPOLICY, policy_id()), message(GETPOLICY, policy_id(OUT, 9)),
        message(GETAE, replay_id()), message(GETSADINFO, bytes(4)), message(GETSPDINFO, bytes(4)),
        message(NEWSPDINFO, bytes(4)), message(GETSA, sa_id(spi=5)), message(99, b""), message(0, b""))
    yield "limits", packet(message(NEWSA, info(life=limits(soft_add=1, hard_add=100)) + GCM), control=LATER) + packet(
        message(NEWSA, out + GCM), control=MUCH_LATER) + packet(
        message(NEWSA, info(life=limits(hard_add=30 * 86400, soft_bytes=1000, hard_use=60)) + GCM), control=DAYS_LATER)
    yield "esn", packet(message(NEWSA, info(flags=128, window=0) + GCM + esn(4096))) + packet(
        message(NEWAE, replay_id() + esn(4096, (5, 77, 1, 2)), REQUEST | ACK | 0x100)) + packet(
        message(NEWSA, out + GCM + attribute(REPLAY, struct.pack("<III", 9, 0, 0)) + esn(64)))
    yield "udp", packet(message(NEWSA, info() + GCM + attribute(ENCAP, struct.pack("<H", 2) + struct.pack("!HH", 4500, 4500) +
                                                                   bytes(18)))) + packet(
        message(NEWSA, info("2001:db8:99::9", ROUTER6, 0xC0000003, mode=0) + CBC + attribute(DIRECTION, b"\x01")))
    yield "moved", packet(message(NEWSA, out + GCM)) + packet(message(NEWSA, out + GCM)) + packet(
        message(UPDSA, info(ROUTER, PEER, 0xC0000002, window=0) + CBC + attribute(LTIME, struct.pack("<4Q", 5, 6, 7, 8))))
    yield "policies", b"".join(packet(message(NEWPOLICY, policy(direction, chosen, 1 + i, action) + more)) for
                               i, (direction, chosen, action, more) in enumerate((
                                   (OUT, selector("0.0.0.0/0", "0.0.0.0/0", 17, (0x1194, 0xFFFF, 0, 0)), 0, template()),
                                   (OUT, selector("0.0.0.0/0", "10.0.0.0/8", 1, (8, 0xFFFF, 0, 0)), 0, b""),
                                   (IN, selector("2001:db8:9::/48", "::/0"), 1, b""),
                                   (FWD, selector("10.9.0.0/16", "192.168.1.0/24"), 0, template(PEER, ROUTER)),
                                   (IN, selector("10.9.0.0/16", "192.168.1.0/24"), 0, template(PEER, ROUTER)),
                                   (OUT, None, 0, template(reqid=0, spi=0xC0000002, mode=0)),
                                   (OUT, None, 0, template() + template())))) + packet(
        message(DELPOLICY, policy_id(IN, 0, selector("10.9.0.0/16", "192.168.1.0/24"))), message(FLUSHPOLICY, b""))
    yield "refused", b"".join(packet(message(NEWSA, body)) for body in (
        info(protocol=51) + GCM, info(spi=5) + GCM, info(mode=4) + GCM, info() + GCM + attribute(MARK, b"\1\0\0\0\1\0\0\0"),
        info(flags=128) + GCM, b"", info()[:100])) + packet(message(FLUSHSA, b"\x32"), message(FLUSHSA, b""))
    yield "repaired", packet(message(NEWSA, info() + GCM, 0), control=REPAIR) + packet(
        message(GETSA, bytes(24), DUMP), control=REPAIR | AS_IT_SAYS)
    for length in (0, 15, 0x80000000, 0xFFFFFFFF):
        first = message(GETSADINFO, bytes(4))
        yield f"length_{length:x}", packet(first, struct.pack("<I", length) + first[4:])
    tunnel = attribute(IF_ID, struct.pack("<I", 5))
    yield "interface", packet(message(NEWSA, out + GCM + tunnel), message(NEWSA, info() + GCM + tunnel)) + packet(
        message(NEWPOLICY, policy() + template() + tunnel), message(NEWPOLICY, policy() + template())) + packet(
        message(GETPOLICY, policy_id() + tunnel), message(DELPOLICY, policy_id() + tunnel))
    yield "long", packet(message(NEWSA, info() + GCM + bytes(8500)))


def main():
    top = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus")
    for target, seeds in (("fuzz_esp", esp_seeds()), ("fuzz_xfrm", xfrm_seeds())):
        directory = top / target
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in seeds:
            (directory / name).write_bytes(data)


if __name__ == "__main__":
    main()
