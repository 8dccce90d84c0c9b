"""Sockets of the test's own in a host's namespace, for what no other project's program tells: which
port, which address, which bytes, and after how long."""
import contextlib
import ctypes
import socket
import threading

from lab import check

SHORT = 1.0  # seconds after which what has not come does not come
CLONE_NEWNET = 0x40000000


def socket_in(host, kind, address="0.0.0.0", port=0, timeout=5):
    """A socket that lives in the host's namespace, where it was made."""
    made = []

    def make():
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{host.pid}/ns/net", encoding="ascii") as space:
            if libc.setns(space.fileno(), CLONE_NEWNET) != 0:
                return
        made.append(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    check(made, f"no socket in the namespace of {host.name}")
    made[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made[0].settimeout(timeout)
    made[0].bind((address, port))
    return made[0]


@contextlib.contextmanager
def server(host, port, address="0.0.0.0"):
    """An echo server for TCP; yields the list of clients' addresses."""
    clients = []
    listener = socket_in(host, socket.SOCK_STREAM, address, port, timeout=None)
    listener.listen(128)

    def serve(connection):
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept():
        while True:
            try:
                connection, client = listener.accept()
            except OSError:
                return
            clients.append(client[:2])
            connection.settimeout(60)
            threading.Thread(target=lambda: quietly(serve, connection), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield clients
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def quietly(function, *values):
    try:
        function(*values)
    except OSError:
        pass


def connect(host, address, port, own_port=0, timeout=5, own_address=None):
    own_address = own_address or ("::" if ":" in address else "0.0.0.0")
    own = socket_in(host, socket.SOCK_STREAM, own_address, own_port, timeout)
    own.connect((address, port))
    return own


def echo(connection, data):
    """Sends the data and reads it back; both at once, so that no buffer has to hold all of it."""
    sender = threading.Thread(target=lambda: quietly(connection.sendall, data), daemon=True)
    sender.start()
    back = bytearray()
    while len(back) < len(data):
        part = connection.recv(65536)
        check(part, f"the connection ended after {len(back)} of {len(data)} bytes")
        back += part
    sender.join()
    check(bytes(back) == data, "what came back is not what was sent")


def refused(host, address, port):
    """What becomes of an attempt to connect: "open", "reset" or "silence"."""
    try:
        connect(host, address, port, timeout=SHORT).close()
        return "open"
    except ConnectionRefusedError:
        return "reset"
    except (TimeoutError, OSError):
        return "silence"
