"""A virtual machine with Debian's Linux, for what the machine's own kernel does not have: its ESP.

It boots into memory from an initramfs that is made here of programs which are installed on this
machine, and has one NIC: the guest's side of a net_vhost port of the router. QEMU translates its
code (TCG), so it needs no KVM, and is slow.
"""
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time

from sites import check, until

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 384
# What QEMU has to do in many small steps, Linux is not to use: it then does the same in other ways.
CPU = "max,-avx,-avx2,-aes,-pclmulqdq"
BOOT_SECONDS = 150  # 5 on an idle machine
PROGRAMS = ["/usr/sbin/charon-systemd", "/usr/sbin/swanctl", "/usr/bin/iperf3", "/usr/bin/ip",
            "/usr/bin/ping"]
LIBGCC = "/lib/x86_64-linux-gnu/libgcc_s.so.1"  # which libc loads when a thread is to end
STRONGSWAN = "/usr/lib/ipsec/plugins/libstrongswan-{}.so"
BUSYBOX = "/usr/bin/busybox"
END = "end-of-command"

# A shell on the second serial port. A line comes in, what the command says goes out, then its status.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in {modules}; do
  insmod /modules/$module.ko || echo "$module is not there"
done
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec < /dev/ttyS1 > /dev/ttyS1
echo ready
while read -r command; do
  sh -c "$command" 2>&1 < /dev/null
  status=$?
  echo; echo "{end} $status"
done
"""


def _run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    check(done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def _with_libraries(files):
    """The files and all the libraries that they load."""
    found = set(files)
    for file in files:
        found.update(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", _run("ldd", file), re.M))
    return found


def _in_order(kernel, names):
    """Paths of the modules, each behind those that it needs."""
    paths = {}
    for directory, _, files in os.walk(os.path.join(kernel, "modules")):
        for file in files:
            if file.endswith(".ko"):
                paths[file[:-3].replace("-", "_")] = os.path.join(directory, file)
    ordered = []

    def add(name):
        check(name in paths, f"this kernel has no module {name}")
        if name in ordered:
            return
        with open(paths[name], "rb") as file:
            needs = re.search(rb"\0depends=([^\0]*)\0", file.read())
        for each in needs.group(1).decode().split(",") if needs else []:
            if each and each.replace("-", "_") in paths:
                add(each.replace("-", "_"))
        ordered.append(name)
    for name in names:
        add(name)
    return [(name, paths[name]) for name in ordered]


def initramfs(kernel, directory, modules, plugins, files):
    """Writes it to directory/initramfs, and returns that path. `files`: path in the guest to text."""
    root = os.path.join(directory, "root")
    for each in ("proc", "sys", "dev", "tmp", "run", "bin", "etc", "modules"):
        os.makedirs(os.path.join(root, each))

    def copy(source, path):
        target = root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(source, target)
    ordered = _in_order(kernel, modules)
    for name, path in ordered:
        copy(path, f"/modules/{name}.ko")
    binaries = PROGRAMS + [LIBGCC] + [STRONGSWAN.format(each) for each in plugins]
    for each in _with_libraries(binaries):
        copy(each, each)
    copy(BUSYBOX, "/bin/busybox")
    files = {"/init": INIT.format(modules=" ".join(name for name, _ in ordered), end=END),
             "/etc/passwd": "root:x:0:0::/:/bin/sh\n", **files}
    for path, text in files.items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        with open(root + path, "w", encoding="utf-8") as file:
            file.write(text)
    os.chmod(root + "/init", 0o755)
    image = os.path.join(directory, "initramfs")
    with open(image, "wb") as file:
        names = subprocess.run(["find", "."], cwd=root, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run([BUSYBOX, "cpio", "-o", "-H", "newc"], cwd=root, input=names, stdout=file,
                       stderr=subprocess.DEVNULL, check=True)
    shutil.rmtree(root)
    return image


class Guest:
    """The running machine. It has what the tests use of a lab.Host, as far as that makes sense."""

    def __init__(self, lab, name, kernel, image, vhost):
        self.name = name
        self.lab = lab
        self.turn = threading.Lock()
        self.console_file = lab.path(f"{name}.console")
        shell = lab.path(f"{name}.shell")
        self.process = lab.start([
            QEMU, "-accel", "tcg", "-cpu", CPU, "-nodefaults", "-no-user-config", "-nographic",
            "-no-reboot", "-m", f"{MEMORY_MIB}M",
            # vhost-user: the router reads and writes the guest's memory.
            "-object", f"memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on",
            "-machine", "pc,memory-backend=memory",
            "-chardev", f"socket,id=vhost,path={vhost}",
            "-netdev", "vhost-user,id=net,chardev=vhost",
            "-device", "virtio-net-pci,netdev=net,vectors=0,rx_queue_size=1024,romfile=",
            "-serial", f"file:{self.console_file}",
            "-chardev", f"socket,id=shell,path={shell},server=on,wait=off", "-serial", "chardev:shell",
            "-kernel", os.path.join(kernel, "vmlinuz"), "-initrd", image,
            "-append", "console=ttyS0 quiet no_timer_check cryptomgr.notests apparmor=0 panic=-1 "
                       "mitigations=off tsc=reliable random.trust_cpu=on",
        ], stderr=subprocess.PIPE)
        self.socket = socket.socket(socket.AF_UNIX)
        until(lambda: self._connect(shell), "QEMU is there")
        try:
            self._read("ready\n", BOOT_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\nits console:\n{self.console()[-3000:]}") from None

    def _connect(self, path):
        if self.process.poll() is not None:
            raise AssertionError(f"QEMU ended: {self.process.stderr.read()}")
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            self.socket.connect(path)
            return True
        return False

    def console(self):
        with contextlib.suppress(FileNotFoundError), \
                open(self.console_file, encoding="utf-8", errors="replace") as file:
            return file.read()
        return ""

    def _read(self, mark, timeout):
        text, deadline = "", time.monotonic() + timeout
        while mark not in text or not text.endswith("\n"):
            left = deadline - time.monotonic()
            check(left > 0, f"{self.name}: still no {mark!r} after {timeout} s: {text}")
            self.socket.settimeout(left)
            try:
                chunk = self.socket.recv(65536)
            except socket.timeout:
                continue
            check(chunk, f"{self.name} has ended")
            text += chunk.decode(errors="replace").replace("\r", "")
        return text

    @staticmethod
    def _line(command):
        """For its shell, which takes its own programs for others of the same name."""
        paths = {os.path.basename(path): path for path in PROGRAMS}
        return " ".join(shlex.quote(paths.get(word, word)) for word in map(str, command))

    def run(self, *command, status=0, timeout=60):
        """Runs a command to its end, as a lab.Namespace does; standard error is in its output."""
        line = self._line(command)
        with self.turn:
            self.socket.sendall(line.encode() + b"\n")
            text = self._read(END, timeout)
        output, found = text.rsplit(END, 1)
        done = subprocess.CompletedProcess(command, int(found), output.rstrip("\n") + "\n", "")
        check(status is None or done.returncode == status,
              f"{self.name}: {line}: exit status {done.returncode}, expected {status}\n{done.stdout}")
        return done

    def ip(self, words):
        return self.run("ip", *words.split()).stdout

    def write(self, path, text):
        """A file of this text. The shell reads lines, so each goes by itself."""
        self.run("rm", "-f", path)
        for line in text.splitlines():
            self.run("sh", "-c", f"echo {shlex.quote(line)} >> {path}")

    def background(self, *command):
        self.run("sh", "-c", f"{self._line(command)} > /dev/null 2>&1 &")

    def ping(self, address, *options, count=3):
        output = self.run("ping", "-n", "-c", count, "-i", "0.2", "-W", 3, *options, address).stdout
        received = int(re.search(r"(\d+) received", output).group(1))
        check(received == count, f"{self.name}: only {received} of {count} answers\n{output}")

    def socket_drops(self):
        text = self.run("cat", "/proc/net/snmp").stdout
        names, values = [line.split()[1:] for line in text.splitlines() if line.startswith("Udp: ")]
        return dict(zip(names, map(int, values)))["RcvbufErrors"]

    def freeze(self):
        """As if the machine were not there any more."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)
