"""What the system tests are made of: Linux hosts in network namespaces, the real router between
them, its control socket, and TAP output.

    tap = Tap("traffic")
    with tap.lab() as lab:
        router = lab.router({"interfaces": {...}})
        lan = lab.host("lan")
        lan.plug(router, "lan", "198.51.100.10/24", gateway="198.51.100.1")
        with tap.case("the router answers ping"):
            lan.ping("198.51.100.1")
    tap.end()

Each host, and the router, has a network namespace of its own that lives as long as a process does
which dies with the test: nothing is left behind, however the test ends. The router's net_tap devices
appear in the router's namespace and are moved from there to the hosts, so all names are free to use,
also while other tests or routers run on this machine.
"""
import contextlib
import ctypes
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 10  # seconds in which what should happen must have happened, on a busy machine
MEMORY_MIB = 320

_libc = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    """This machine cannot do what a case needs; the text says why."""


def check(condition, text):
    """Ends the case with `text` unless the condition holds."""
    if not condition:
        raise AssertionError(text)


def equal(found, expected, what=""):
    check(found == expected, f"{what}: found {found!r}, expected {expected!r}")


def until(condition, what, patience=PATIENCE):
    """Waits until condition() is true, and returns its value."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < deadline, f"after {patience} seconds still not: {what}")
        time.sleep(0.05)


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"the program {program} is not installed")


class Tap:
    """Test Anything Protocol on standard output. Cases run in the order in which they stand."""

    def __init__(self, theme):
        self.count = 0
        self.failed = 0
        self.labs = []
        sys.stdout.reconfigure(line_buffering=True)
        # A test that meson gives up is to clean up as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        if os.geteuid() != 0:
            self.skip_all(f"{theme}: network namespaces need root")
        if not os.path.exists("/dev/net/tun"):
            self.skip_all(f"{theme}: this kernel has no /dev/net/tun")
        if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True,
                          check=False).returncode != 0:
            self.skip_all(f"{theme}: this kernel gives no network namespaces")

    @staticmethod
    def skip_all(reason):
        print(f"1..0 # SKIP {reason}")
        sys.exit(0)

    @contextlib.contextmanager
    def case(self, name):
        self.count += 1
        started = time.monotonic()
        try:
            yield
        except Skip as skip:
            print(f"ok {self.count} - {name} # SKIP {skip}")
        except Exception as error:  # whatever it is, the other cases still run
            self.failed += 1
            print(f"not ok {self.count} - {name}")
            text = str(error) or type(error).__name__
            if not isinstance(error, AssertionError):
                text = f"{type(error).__name__}: {text}"
            text += "".join(f"\n  {os.path.basename(frame.filename)}:{frame.lineno} {frame.line}"
                            for frame in traceback.extract_tb(error.__traceback__)
                            if os.path.abspath(frame.filename).startswith(os.path.dirname(HERE)))
            for lab in self.labs:
                text += lab.last_words()
            for line in text.splitlines():
                print("# " + line)
        else:
            print(f"ok {self.count} - {name}")
        print(f"# {time.monotonic() - started:.1f} s")

    @contextlib.contextmanager
    def lab(self):
        """A Lab; when it cannot even be set up, that is one failed case."""
        lab = Lab()
        self.labs.append(lab)
        try:
            yield lab
        except Exception:  # between the cases
            with self.case("the lab can be set up"):
                raise
        finally:
            lab.close()
            self.labs.remove(lab)

    def end(self):
        print(f"1..{self.count}")
        sys.exit(1 if self.failed else 0)


def _die_with_test():
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Namespace:
    """A network namespace, and a mount namespace in which /sys shows its devices."""

    def __init__(self, lab, name):
        self.lab = lab
        self.name = name
        self.holder = lab.start(
            ["unshare", "--net", "--mount", "sh", "-c",
             "mount -t sysfs sysfs /sys && ip link set lo up && echo ready && exec sleep infinity"],
            stdout=subprocess.PIPE)
        check(self.holder.stdout.readline() == "ready\n", f"no network namespace for {name}")
        self.pid = str(self.holder.pid)

    def inside(self, command):
        return ["nsenter", "-t", self.pid, "-n", "-m", *map(str, command)]

    def run(self, *command, status=0, timeout=60, **options):
        """Runs a command to its end; `status` None: any exit status will do."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True,
                   "preexec_fn": _die_with_test, "check": False, "timeout": timeout, **options}
        done = subprocess.run(self.inside(command), **options)
        check(status is None or done.returncode == status,
              f"{self.name}: {' '.join(map(str, command))}: exit status {done.returncode}, expected "
              f"{status}\n{done.stdout}{done.stderr}")
        return done

    def start(self, *command, **options):
        """Starts a command that ends with the lab, at the latest."""
        return self.lab.start(self.inside(command), **options)

    def ip(self, words, **options):
        return self.run("ip", *words.split(), **options).stdout

    def sysctl(self, name, value):
        """`name` with slashes, because devices may have dots."""
        self.run("sysctl", "-qw", f"{name}={value}")

    def ping(self, address, *options, count=3, status=0):
        """Returns (received, average milliseconds or None, all of the output)."""
        received, output = self._ping(address, options, "0.05", count, status)
        if status == 0 and received < count:
            # ping does not wait longer for the last answer than for the others. A busy machine needs
            # that at times, so once more with patience: late is not lost.
            received, output = self._ping(address, options, "0.5", count, status)
            check(received == count,
                  f"{self.name}: only {received} of {count} answers from {address}\n{output}")
        times = re.search(r"= [\d.]+/([\d.]+)/", output)
        return received, float(times.group(1)) if times else None, output

    def _ping(self, address, options, pace, count, status):
        pace = () if {"-f", "-i"} & set(options) else ("-i", pace)
        done = self.run("ping", "-n", "-c", count, *pace, "-W", 3, *options, address, status=status)
        return int(re.search(r"(\d+) received", done.stdout).group(1)), done.stdout + done.stderr

    def reaches(self, address):
        return self.run("ping", "-n", "-c", 1, "-W", 1, address, status=None).returncode == 0

    def no_answer(self, address, *options):
        """Nothing at all comes back from the address. Returns ping's output."""
        done = self.run("ping", "-n", "-c", 2, "-i", "0.2", "-W", 1, *options, address, status=1)
        check(" 0 received" in done.stdout, f"{address} answered\n{done.stdout}")
        return done.stdout

    def serve(self, *command, ready, **options):
        """Starts a server and waits until it prints `ready`."""
        process = self.start("stdbuf", "-oL", *command, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, **options)
        said, deadline = "", time.monotonic() + 3 * PATIENCE
        while ready not in said:
            wait = max(0, deadline - time.monotonic())
            # Below Python's buffers, which could hold what select() then does not see.
            if not select.select([process.stdout], [], [], wait)[0] or \
                    not (chunk := os.read(process.stdout.fileno(), 4096)):
                self.lab.stop(process)
                raise AssertionError(f"{' '.join(map(str, command))} did not start: {said}")
            said += chunk.decode(errors="replace")
        return process

    def iperf(self, server, address, *options, seconds=1, bind=None):
        """iperf3 from here to `address`, which is the server's own unless NAT makes it `bind`. Where
        iperf3 waits there already, `server` is None. Returns its JSON report's "end"."""
        need("iperf3")
        process = server and server.serve("iperf3", "-s", "-1", "--forceflush", "-B",
                                          bind or address, ready="Server listening")
        try:
            done = self.run("iperf3", "-J", "-t", seconds, *options, "-c", address, status=None,
                            timeout=seconds + 60)
            check(done.stdout, f"iperf3: {done.stderr}")
            report = json.loads(done.stdout)
            check("error" not in report, f"iperf3: {report.get('error')}")
            return report["end"]
        finally:
            if process:
                self.lab.stop(process)

    def tcp(self, server, address, *options, seconds=1, least=1):
        """A TCP transfer, or with --bidir two; returns Mbit/s as received, `least` of them."""
        end = self.iperf(server, address, *options, seconds=seconds)
        rates = [end[key]["bits_per_second"] / 1e6
                 for key in ("sum_received", "sum_received_bidir_reverse") if key in end]
        check(min(rates) > least, f"TCP to {address}: only {min(rates):.3f} Mbit/s")
        return min(rates)

    def udp(self, server, address, *options, seconds=1, rate="20M"):
        """UDP datagrams; returns (sent, lost)."""
        total = self.iperf(server, address, "-u", "-b", rate, *options, seconds=seconds)["sum"]
        check(total["packets"] > 0, f"UDP to {address}: nothing was sent")
        return total["packets"], total["lost_packets"]

    def mac(self, device):
        return json.loads(self.ip(f"-j link show dev {device}"))[0]["address"]

    def kernel_drops(self, device):
        """Frames that Linux itself could not pass to, or take from, the device."""
        stats = json.loads(self.ip(f"-j -s link show dev {device}"))[0]["stats64"]
        return stats["tx"]["dropped"] + stats["rx"]["dropped"]

    def socket_drops(self):
        """Datagrams that came, but found no room in a socket's buffer: a receiver on a busy machine."""
        text = self.run("cat", "/proc/net/snmp", "/proc/net/snmp6").stdout
        names, values = [line.split()[1:] for line in text.splitlines() if line.startswith("Udp: ")]
        ipv4 = dict(zip(names, map(int, values)))["RcvbufErrors"]
        ipv6 = re.search(r"^Udp6RcvbufErrors\s+(\d+)", text, re.M)
        return ipv4 + (int(ipv6.group(1)) if ipv6 else 0)


class Host(Namespace):
    """A Linux host at the far end of one of the router's net_tap devices."""

    def plug(self, router, device, *addresses, gateway=None, gateway6=None, mac=None, mtu=None,
             name="eth0", dad=False, ra=0):
        """Takes the Linux end of the router's tap device and sets it up as `name`."""
        router.space.ip(f"link set {device} netns {self.pid} name {name}")
        self.sysctl(f"net/ipv6/conf/{name}/accept_dad", int(dad))
        self.sysctl(f"net/ipv6/conf/{name}/accept_ra", ra)
        # Linux would learn paths around the router from it; and its solicitations are noise here.
        self.sysctl(f"net/ipv6/conf/{name}/router_solicitations", 3 if ra else 0)
        if mac:
            self.ip(f"link set {name} address {mac}")
        if mtu:
            self.ip(f"link set {name} mtu {mtu}")
        self.ip(f"link set {name} up")
        self.address(name, *addresses)
        if gateway:
            self.ip(f"route add default via {gateway} dev {name}")
        if gateway6:
            self.ip(f"-6 route add default via {gateway6} dev {name}")
        return self

    def address(self, name, *addresses):
        for address in addresses:
            self.ip(f"addr add {address} dev {name}")

    def vlan(self, parent, number, *addresses):
        """A VLAN device: Linux's, or where the kernel has none, a stand-in (vlan_device.py)."""
        name = f"{parent}.{number}"
        if self.run("ip", "link", "add", "link", parent, "name", name, "type", "vlan", "id", number,
                    status=None).returncode != 0:
            self.serve("/usr/bin/python3", os.path.join(HERE, "vlan_device.py"), parent, number,
                       name, ready="ready")
        self.sysctl(f"net/ipv6/conf/{name}/accept_dad", 0)
        self.ip(f"link set {name} up")
        self.address(name, *addresses)
        return name


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]
        self.message = error["message"]
        self.data = error.get("data") or {}

    def problems(self):
        """The problems as lines like "$.mbufs: expected a whole number"."""
        return [f"{each['path']}: {each['message']}" for each in self.data.get("problems", [])]


class Connection:
    """A JSON-RPC client."""

    def __init__(self, path, timeout=PATIENCE):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)  # without a timeout it waits for its turn to be accepted
        self.socket.settimeout(timeout)
        self.file = self.socket.makefile("rb")
        self.sequence = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def receive(self):
        """The next reply, or None when the router has closed the connection."""
        line = self.file.readline()
        return json.loads(line) if line else None

    def call(self, method, params=None):
        self.sequence += 1
        self.send(json.dumps({"jsonrpc": "2.0", "id": self.sequence, "method": method,
                              "params": params or {}}) + "\n")
        reply = self.receive()
        check(reply is not None, f"{method}: the router closed the connection")
        equal(reply.get("id"), self.sequence, f"{method}: id of the reply {reply}")
        if "error" in reply:
            raise RpcError(reply["error"])
        return reply["result"]


def memory_arguments():
    """Hugepages if enough are free, which is never changed here; otherwise none."""
    with open("/proc/meminfo", encoding="ascii") as file:
        info = {line.split(":")[0]: int(line.split()[1]) for line in file}
    with open("/proc/mounts", encoding="ascii") as file:
        mounted = " hugetlbfs " in file.read()
    free = info.get("HugePages_Free", 0) * info.get("Hugepagesize", 0) // 1024
    if mounted and free >= 2 * MEMORY_MIB:  # some tests run two routers
        return []
    return ["--no-huge", "-m", "512"]


def two_lcores():
    """The control thread on the first CPU, one worker on the last."""
    last = (os.cpu_count() or 1) - 1
    return ["--lcores", f"0@0,1@{last}"]


class Router:
    """The real program with a configuration, in a namespace of its own."""

    def __init__(self, lab, config, lcores=None, memory=None, options=(), environment=None,
                 space=None):
        lab.routers += 1
        self.lab = lab
        self.space = space or lab.space(f"router{lab.routers}")
        base = os.path.join(lab.directory, f"router{lab.routers}")
        self.config_file = base + ".json"
        self.socket = base + ".sock"
        self.log_file = base + ".log"
        self.write(config)
        self.started = time.monotonic()
        with open(self.log_file, "w", encoding="utf-8") as log:
            self.process = self.space.start(
                lab.program, *(lcores or two_lcores()),
                *(memory_arguments() if memory is None else memory), "--",
                "-c", self.config_file, "-s", self.socket, *options, stdout=log,
                stderr=subprocess.STDOUT, env=dict(os.environ, **(environment or {})))
        self._connection = None

    def wait_ready(self):
        def ready():
            check(self.process.poll() is None,
                  f"the router ended with status {self.process.returncode}:\n{self.log()}")
            return "forwarding with" in self.log()
        until(ready, "the router forwards", 60)

    def write(self, config):
        """Writes the configuration file: a document, or any text."""
        with open(self.config_file, "w", encoding="utf-8") as file:
            file.write(config if isinstance(config, str) else json.dumps(config, indent=1))

    def log(self):
        with open(self.log_file, encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait_log(self, text, after=0):
        until(lambda: text in self.log()[after:], f"the router's log has {text!r}")

    def call(self, method, params=None):
        """A JSON-RPC call; the connection is kept. RpcError tells of an error."""
        if not self._connection:
            self._connection = Connection(self.socket, 60)
        return self._connection.call(method, params)

    def refusal(self, method, params=None):
        """The RpcError of a call that must fail."""
        try:
            result = self.call(method, params)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} {params} was carried out: {result}")

    def ctl(self, *words, status=0):
        """Runs routerctl with words, as a user would."""
        done = subprocess.run([self.lab.ctl, "-s", self.socket, *words], capture_output=True,
                              text=True, timeout=60, check=False)
        check(status is None or done.returncode == status,
              f"routerctl {' '.join(words)}: exit status {done.returncode}, expected {status}\n"
              f"{done.stdout}{done.stderr}")
        return done

    def counters(self):
        return self.call("stats.get")["interfaces"]

    def drops(self):
        return self.call("stats.get")["drops"]

    def mbufs_in_use(self):
        return self.call("stats.get")["mbufs"]["in_use"]

    def no_drops(self, *expected):
        """Nothing was dropped since stats.clear but for the reasons named; the groups that Linux
        reports or asks for by multicast are never the router's."""
        found = {reason: count for reason, count in self.drops().items()
                 if reason not in (*expected, "local.group_not_wanted")}
        equal(found, {}, "drops")

    def neighbour(self, interface, address):
        for each in self.call("neighbour.list", {"interface": interface}):
            if each["address"] == address:
                return each
        return None

    def settled(self):
        """All links are up and all addresses usable (duplicate address detection has ended). A
        device that was moved into a namespace was down for a moment, which the router may notice
        with its next look at the link, 200 ms later."""
        def settled():
            return all(interface["link"] == "up" and
                       all(address["state"] == "valid" for address in interface["addresses"])
                       for interface in self.call("interface.list"))
        time.sleep(0.25)
        until(settled, "all links of the router are up and all its addresses valid")
        return self

    def stop(self, patience=PATIENCE):
        """SIGTERM; returns the exit status and the seconds it took."""
        if self._connection:
            self._connection.close()
            self._connection = None
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(patience)
        return status, time.monotonic() - started

    def alive(self):
        check(self.process.poll() is None,
              f"the router ended with status {self.process.returncode}")


class Lab:
    """Everything that one scene needs, and that goes away with it."""

    program = ctl = None  # set from the command line by arguments()

    def __init__(self):
        self.processes = []
        self.all_routers = []
        self.routers = 0
        self.directory = tempfile.mkdtemp(prefix="dpdk-router-test-")

    def start(self, command, **options):
        options = {"text": True, "stdin": subprocess.DEVNULL, "preexec_fn": _die_with_test,
                   "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        process = subprocess.Popen(list(map(str, command)), **options)
        self.processes.append(process)
        return process

    @staticmethod
    def stop(process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()

    def space(self, name):
        return Namespace(self, name)

    def host(self, name):
        return Host(self, name)

    def router(self, config, wait=True, **options):
        router = Router(self, config, **options)
        self.all_routers.append(router)
        if wait:
            router.wait_ready()
        return router

    def path(self, name):
        return os.path.join(self.directory, name)

    def close(self):
        try:
            for process in reversed(self.processes):
                self.stop(process)
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def last_words(self):
        """For a failed case: the end of each router's log."""
        text = ""
        for number, router in enumerate(self.all_routers, 1):
            state = "runs" if router.process.poll() is None else \
                f"ended with status {router.process.returncode}"
            text += f"\nrouter {number} {state}; the end of its log:\n"
            text += "\n".join("  " + line for line in router.log().splitlines()[-12:])
        return text


def arguments():
    """test_THEME.py DPDK-ROUTER ROUTERCTL"""
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} DPDK-ROUTER ROUTERCTL")
    Lab.program, Lab.ctl = map(os.path.abspath, sys.argv[1:])


# The scene of most tests: hosts lan and wan, one router between them.
LAN, WAN = "198.51.100.10", "203.0.113.10"
LAN6, WAN6 = "2001:db8:1::10", "2001:db8:2::10"
LAN_ROUTER, WAN_ROUTER = "198.51.100.1", "203.0.113.1"
LAN6_ROUTER, WAN6_ROUTER = "2001:db8:1::1", "2001:db8:2::1"


def plain_config(**more):
    """lan and wan; keyword arguments add to the document, lan={...} and wan={...} to an interface."""
    lan, wan = more.pop("lan", {}), more.pop("wan", {})
    return {
        "interfaces": {
            "lan": {"device": "net_tap0,iface=lan", "mac": "02:00:00:00:01:01",
                    "addresses": [f"{LAN_ROUTER}/24", f"{LAN6_ROUTER}/64"], **lan},
            "wan": {"device": "net_tap1,iface=wan", "mac": "02:00:00:00:02:01",
                    "addresses": [f"{WAN_ROUTER}/24", f"{WAN6_ROUTER}/64"], **wan},
        },
        **more,
    }


def plain_hosts(lab, router, lan_mtu=None, wan_mtu=None):
    """The hosts lan and wan, once both reach the router."""
    lan = lab.host("lan").plug(router, "lan", f"{LAN}/24", f"{LAN6}/64", gateway=LAN_ROUTER,
                               gateway6=LAN6_ROUTER, mac="02:00:00:00:01:10", mtu=lan_mtu)
    wan = lab.host("wan").plug(router, "wan", f"{WAN}/24", f"{WAN6}/64", gateway=WAN_ROUTER,
                               gateway6=WAN6_ROUTER, mac="02:00:00:00:02:10", mtu=wan_mtu)
    router.settled()
    for host, address, address6 in ((lan, LAN_ROUTER, LAN6_ROUTER), (wan, WAN_ROUTER, WAN6_ROUTER)):
        until(lambda h=host, a=address: h.reaches(a), f"{host.name} reaches {address}")
        until(lambda h=host, a=address6: h.reaches(a), f"{host.name} reaches {address6}")
    # What was sent while Linux had not set up its ends yet is nobody's fault.
    router.call("stats.clear")
    return lan, wan


def plain_scene(lab, config=None, **options):
    """Router, lan and wan."""
    router = lab.router(config or plain_config(), **options)
    lan, wan = plain_hosts(lab, router)
    return router, lan, wan


# What several themes look at.

def hops(host, address, *options):
    """The addresses that traceroute shows, hop by hop."""
    need("traceroute")
    output = host.run("traceroute", "-n", "-q", 1, "-w", 3, "-m", 5, *options, address).stdout
    return re.findall(r"^ *\d+  (\S+)", output, re.M)


def learnt_mtu(host, address):
    found = re.search(r"\bmtu (\d+)", host.ip(f"route get {address}"))
    return int(found.group(1)) if found else None


def far_network(host, name, inside, outside, mtu):
    """A network behind the host, with a smaller MTU: `inside` is the host's address there."""
    far = host.lab.host(name)
    ipv6 = ":" in inside
    if host.run("ip", "link", "add", "far0", "type", "veth", "peer", "name", "eth0", "netns",
                far.pid, status=None).returncode != 0:
        raise Skip("this kernel has no veth devices")
    for space, device, address in ((host, "far0", inside), (far, "eth0", outside)):
        if ipv6:
            space.sysctl(f"net/ipv6/conf/{device}/accept_dad", 0)
        space.address(device, address)
        space.ip(f"link set {device} mtu {mtu} up")
    host.sysctl("net/ipv6/conf/all/forwarding" if ipv6 else "net/ipv4/ip_forward", 1)
    far.ip(f"route add default via {inside.split('/')[0]}")
    return far


def sessions(router, **filters):
    listed, cursor = [], 0
    while cursor is not None:
        page = router.call("session.list", {**filters, "cursor": cursor, "limit": 1000})
        listed += page["sessions"]
        cursor = page["cursor"]
    return listed
