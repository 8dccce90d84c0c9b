"""Bad manners on the control socket, while packets pass: garbage, half requests, endless lines, too
many clients, clients that never read. The router answers or closes, goes on serving everybody else,
and forwards as if nothing had been."""
import json
import os
import re
import resource
import socket
import stat
import threading
import time

from lab import (PATIENCE, WAN, Connection, Tap, arguments, check, equal, plain_config, plain_scene, until)

REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"system.info"}\n'


class Pings:
    """Echo requests every 2 ms in the background. At the end: nothing lost but by Linux. How late the
    answers were is printed; it says as much of the machine as of the router."""

    def __init__(self, router, lan, wan, quiet):
        self.router, self.hosts, self.quiet = router, (lan, wan), quiet

    def __enter__(self):
        self.kernel = self.linux_lost()
        self.router.call("stats.clear")
        self.process = self.hosts[0].start("ping", "-n", "-q", "-i", "0.002", WAN, stdout=-1,
                                           stderr=-2)
        return self

    def linux_lost(self):
        return sum(host.kernel_drops("eth0") for host in self.hosts)

    def __exit__(self, kind, *_):
        time.sleep(0.3)
        self.process.send_signal(2)
        output = self.process.communicate(timeout=20)[0]
        if kind:
            return
        sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received",
                                            output).groups())
        average, slowest = map(float, re.search(r"= [\d.]+/([\d.]+)/([\d.]+)/", output).groups())
        check(sent > 5, f"only {sent} pings were sent")
        lost = self.linux_lost() - self.kernel
        # The last ones, 2 ms apart, may be under way.
        check(sent - received <= lost + 5 + slowest / 2, f"{sent - received} of {sent} pings are lost, {lost} of "
              f"them by Linux: {self.router.drops()}")
        self.router.no_drops()
        print(f"# {average} ms per ping, {self.quiet} ms when quiet", flush=True)


def speak(path, data, patience=10):
    """Sends the bytes and the end of input; returns all that comes back."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(patience)
        client.connect(path)

        def send():
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # refused before all was sent

        sender = threading.Thread(target=send)
        sender.start()
        answer = b""
        while chunk := client.recv(1 << 20):
            answer += chunk
        sender.join()
        return [json.loads(line) for line in answer.splitlines()]


def manners(tap, router, scene):
    path = router.socket

    with tap.case("the socket is for root and its group only, and in a directory of its own"):
        equal(stat.S_IMODE(os.stat(path).st_mode), 0o660, "mode of the socket")
    with tap.case("garbage gets a parse error and does not end the conversation"):
        with Pings(*scene):
            for garbage in (b"hello\n", b"\0\0\0\n", b"}{\n", b"\xff\xfe\xfd\n", b"GET / HTTP/1.1\n",
                            os.urandom(100_000).replace(b"\n", b"x") + b"\n"):
                answers = speak(path, garbage + REQUEST)
                equal(answers[0]["error"]["code"], -32700, f"code for {garbage[:20]!r}")
                equal(answers[-1].get("id"), 1, f"answer to the request after {garbage[:20]!r}")
    with tap.case("requests that are JSON but no requests are refused one by one"):
        for wrong, code in (("[]", -32600), ("1", -32600), ('"x"', -32600), ("{}", -32600),
                            ('{"jsonrpc":"1.0","id":1,"method":"system.info"}', -32600),
                            ('{"jsonrpc":"2.0","id":1,"method":"no.such"}', -32601),
                            ('{"jsonrpc":"2.0","id":1,"method":"stats.get","params":1}', -32600)):
            answer = speak(path, wrong.encode() + b"\n")
            equal(answer[0]["error"]["code"], code, wrong)
    with tap.case("any framing: pieces, many on a line, spread over lines, batches"):
        with Connection(path) as client:
            for byte in REQUEST:
                client.send(bytes([byte]))
            equal(client.receive()["id"], 1, "id")
            client.send(REQUEST.strip() * 20 + b"\n" + json.dumps(json.loads(REQUEST),
                                                                  indent=8).encode() + b"\n")
            equal([client.receive()["id"] for _ in range(21)], [1] * 21, "ids")
            client.send(json.dumps([json.loads(REQUEST)] * 50) + "\n")
            equal(len(client.receive()), 50, "replies in the batch")
    with tap.case("half requests: a hundred clients stop in the middle, others are served"):
        with Pings(*scene):
            half = []
            for _ in range(100):
                client = Connection(path)
                client.send(REQUEST[:20])
                half.append(client)
            started = time.monotonic()
            equal(router.call("system.info")["name"], "dpdk-router", "name")
            check(time.monotonic() - started < PATIENCE, "the answer came late")
            for client in half:
                client.close()
    with tap.case("a line of 100 MB is refused, memory does not grow with it"):
        with Pings(*scene):
            answers = speak(path, b'"' + b"x" * 100_000_000, 30)
            equal(len(answers), 1, "answers")
            check("error" in answers[0], f"{answers[0]}")
            with open(f"/proc/{router.process.pid}/status", encoding="ascii") as file:
                resident = int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1))
            check(resident < 1_000_000, f"{resident} KiB are in use")
    with tap.case("100,000 requests in one go, and as many closing brackets"):
        with Pings(*scene):
            request = b'{"jsonrpc":"2.0","id":1,"method":"no.such"}\n'
            equal(len(speak(path, request * 20_000, 60)), 20_000, "answers")
            speak(path, b"]\n" * 20_000, 60)
            speak(path, b"[" * 1_000_000 + b"\n", 60)
    with tap.case("clients that never read are not waited for"):
        with Pings(*scene):
            deaf = []
            for _ in range(20):
                client = socket.socket(socket.AF_UNIX)
                client.connect(path)
                client.setblocking(False)
                request = b'{"jsonrpc":"2.0","id":1,"method":"system.methods"}\n' * 2000
                try:
                    client.send(request)
                except BlockingIOError:
                    pass
                deaf.append(client)
            for _ in range(20):
                started = time.monotonic()
                router.call("interface.list")
                check(time.monotonic() - started < PATIENCE, "the answer came late")
            for client in deaf:
                client.close()
    with tap.case("1,000 clients at once, each is answered; the one too many is told"):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        clients = []
        try:
            with Pings(*scene):
                for _ in range(1000):
                    clients.append(Connection(path))
                for client in clients:
                    client.send(REQUEST)
                for client in clients:
                    equal(client.receive()["id"], 1, "id")
            while len(clients) < 1100:
                client = Connection(path, 0.05)
                clients.append(client)
                try:
                    answer = client.receive()
                except TimeoutError:
                    continue  # it is connected, and idle
                check(answer and "connected already" in answer["error"]["message"], f"{answer}")
                break
            else:
                raise AssertionError("1,100 clients were taken")
            equal(router.call("system.info")["name"], "dpdk-router", "name")
        finally:
            for client in clients:
                client.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        until(lambda: len(os.listdir(f"/proc/{router.process.pid}/fd")) < 100,
              "the router has closed their descriptors")
    with tap.case("clients that hang up in the middle of long answers"):
        with Pings(*scene):
            for _ in range(200):
                client = socket.socket(socket.AF_UNIX)
                client.connect(path)
                client.send(b'{"jsonrpc":"2.0","id":1,"method":"system.methods"}\n' * 20)
                client.close()
            router.call("system.info")


def busy(tap, router, scene):
    with tap.case("20,000 routes are added, listed and deleted under traffic"):
        with Pings(*scene):
            routes = [{"prefix": f"10.{i >> 8}.{i & 255}.0/24", "via": WAN} for i in range(20_000)]
            equal(router.call("route.add", {"routes": routes}), {"added": 20_000}, "route.add")
            found, after = 0, None
            while True:
                page = router.call("route.list", {"origin": "rpc", "limit": 1000,
                                                  **({"after": after} if after else {})})
                found += len(page["routes"])
                after = page["next"]
                if after is None:
                    break
            equal(found, 20_000, "routes in the list")
            equal(router.call("route.delete", {"routes": [{"prefix": each["prefix"]}
                                                          for each in routes]}),
                  {"deleted": 20_000}, "route.delete")
    with tap.case("every method without parameters answers quickly, under traffic"):
        with Pings(*scene):
            for method in router.call("system.methods"):
                if method["name"].startswith(("config.r", "neighbour.flush")):
                    continue
                started = time.monotonic()
                answer = speak(router.socket, json.dumps(
                    {"jsonrpc": "2.0", "id": 1, "method": method["name"]}).encode())
                equal(answer[0]["id"], 1, method["name"])
                check(time.monotonic() - started < PATIENCE, f"{method['name']} took its time")
                check(method["summary"], f"{method['name']} has no summary")


def one_at_a_time(tap, lab, router, lan):
    with tap.case("a second router on the same socket is refused, the first one goes on"):
        second = lab.router({}, wait=False, options=("-s", router.socket), lcores=["-l", "0"],
                            memory=["--no-huge", "-m", "128"])
        check(second.process.wait(20) in (1, 2), "it ended well")
        check(router.socket in second.log(), second.log())
        equal(router.call("system.info")["pid"], router.process.pid, "pid")
        lan.ping(WAN)
    with tap.case("a socket that a killed router left behind is taken over"):
        router.process.kill()
        router.process.wait()
        check(os.path.exists(router.socket), "the socket is gone")
        third = lab.router(plain_config(), options=("-s", router.socket))
        with Connection(router.socket) as client:
            equal(client.call("system.info")["pid"], third.process.pid, "pid")


def main():
    arguments()
    tap = Tap("control")
    with tap.lab() as lab:
        router, lan, wan = plain_scene(lab)
        lan.ping(WAN, "-q", count=10)
        quiet = lan.ping(WAN, "-q", "-i", "0.002", count=300)[1]
        scene = (router, lan, wan, quiet)
        manners(tap, router, scene)
        busy(tap, router, scene)
        one_at_a_time(tap, lab, router, lan)
    tap.end()


if __name__ == "__main__":
    main()
