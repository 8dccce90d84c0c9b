"""A NAT of one address that keeps it and changes IKE's ports: udp_nat.py INSIDE TUN

Packets come by the tun device TUN, which this makes, and go back into it: those from INSIDE with
other source ports, those to these ports with IKE's. On SIGUSR1 the ports are others from now on, and
what comes for those before is lost, as behind a NAT that has forgotten. A line on stdout tells each
port in the place of 4500.
"""
import fcntl
import os
import signal
import socket
import struct
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
UDP = 17
FIRST = 20000
IKE_PORTS = {500: FIRST, 4500: FIRST + 10000}  # the first ones in their place


def with_port(packet, at, port):
    """A UDP datagram over IPv4 with another port, and its checksum updated (RFC 1624)."""
    header = (packet[0] & 15) * 4
    changed = bytearray(packet)
    old, = struct.unpack_from("!H", changed, header + at)
    total, = struct.unpack_from("!H", changed, header + 6)
    struct.pack_into("!H", changed, header + at, port)
    if total:
        summed = (~total & 0xFFFF) + (~old & 0xFFFF) + port
        while summed >> 16:
            summed = (summed & 0xFFFF) + (summed >> 16)
        struct.pack_into("!H", changed, header + 6, (~summed & 0xFFFF) or 0xFFFF)
    return changed


def main():
    inside, name = socket.inet_aton(sys.argv[1]), sys.argv[2]
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    ports = dict(IKE_PORTS)

    def change(*_):
        for own in ports:
            ports[own] += 1
        print(ports[4500], flush=True)
    signal.signal(signal.SIGUSR1, change)
    change()
    while True:
        packet = os.read(tun, 65536)
        header = (packet[0] & 15) * 4
        if packet[0] >> 4 == 4 and packet[9] == UDP and len(packet) >= header + 8:
            source, destination = struct.unpack_from("!HH", packet, header)
            own = [each for each, port in ports.items() if port == destination]
            if packet[12:16] == inside and source in ports:
                packet = with_port(packet, 0, ports[source])
            elif packet[16:20] == inside and own:
                packet = with_port(packet, 2, own[0])
            elif packet[16:20] == inside and destination >= FIRST:
                continue
        os.write(tun, packet)


if __name__ == "__main__":
    main()
