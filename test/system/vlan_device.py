"""A stand-in for Linux's VLAN devices, for kernels that have none: vlan_device.py PARENT NUMBER NAME

Makes the TAP device NAME with PARENT's MAC address, and passes frames between it and PARENT, with a
tag there and without one here. Prints "ready", and runs until it is killed.
"""
import fcntl
import os
import selectors
import socket
import struct
import sys

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454ca, 2, 0x1000
SIOCGIFHWADDR, SIOCSIFHWADDR = 0x8927, 0x8924
SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING, TP_STATUS_VLAN_VALID = 263, 8, 4, 0x10


def open_parent(name):
    parent = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    parent.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)  # where the kernel puts the tag
    parent.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    parent.bind((name, 3))
    parent.setblocking(False)
    return parent


def open_tap(name, parent, parent_name):
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    address = fcntl.ioctl(parent, SIOCGIFHWADDR, struct.pack("16s24x", parent_name.encode()))
    fcntl.ioctl(parent, SIOCSIFHWADDR, name.encode().ljust(16, b"\0") +
                address[16:])
    return tap


def up(parent, tap, tag):
    """One frame from the parent; False when there is none."""
    try:
        frame, auxiliary, _, sender = parent.recvmsg(65536, 128)
    except BlockingIOError:
        return False
    if sender[2] == PACKET_OUTGOING or not auxiliary:
        return True
    status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", auxiliary[0][2][:20])
    if status & TP_STATUS_VLAN_VALID and tci & 0xfff == tag:
        try:
            os.write(tap, frame)
        except OSError:
            pass  # not up yet
    return True


def down(parent, tap, tag):
    """One frame from the stand-in; False when there is none."""
    try:
        frame = os.read(tap, 65536)
    except BlockingIOError:
        return False
    try:
        parent.send(frame[:12] + struct.pack("!HH", 0x8100, tag) + frame[12:])
    except OSError:
        pass  # the parent is down, or its queue is full
    return True


def main():
    parent_name, number, name = sys.argv[1:]
    tag = int(number)
    parent = open_parent(parent_name)
    tap = open_tap(name, parent, parent_name)
    selector = selectors.DefaultSelector()
    selector.register(parent, selectors.EVENT_READ, up)
    selector.register(tap, selectors.EVENT_READ, down)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            for _ in range(64):
                if not key.data(parent, tap, tag):
                    break


main()
