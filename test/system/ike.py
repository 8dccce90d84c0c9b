"""strongSwan's charon for the tests, unmodified: on a router's host, where a preloaded library leads
its XFRM sockets to the router, or on any other host."""
import contextlib
import os
import re

from lab import check, until

CHARON = "/usr/sbin/charon-systemd"

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

STRONGSWAN = """
{base}
charon-systemd {{
  {load}
  retransmit_tries = {tries}
  retransmit_timeout = 1
  plugins {{
    {plugins}
    vici {{ socket = unix://{vici} }}
  }}
  filelog {{ file {{ path = {log}
      time_format = %H:%M:%S
      flush_line = yes
      default = 1
      knl = 2
    }} }}
}}
"""

SWANCTL = """
connections {{
  peer {{
    version = 2
    local_addrs = {local}
    remote_addrs = {remote}
    proposals = aes256-sha256-modp2048
    mobike = {mobike}
    dpd_delay = {dpd}
    encap = {encap}
    local {{ auth = psk
      id = {side}.example.org }}
    remote {{ auth = psk
      id = {other}.example.org }}
    children {{
      net {{
        local_ts = {local_ts}
        remote_ts = {remote_ts}
        esp_proposals = {esp}
        mode = {mode}
        {more}
      }}
    }}
  }}
}}
secrets {{
  ike-one {{ secret = "nobody else knows this" }}
}}
"""
OTHER = {"left": "right", "right": "left"}


def settings_text(vici, log, load="load_modular = yes", routes=None, tries=2,
                  plugins="include /etc/strongswan.d/charon/*.conf"):
    """strongswan.conf. `routes`: "yes" or "no", whether charon puts routes into Linux; None takes the
    project's file for routers. charon gives up, and ends an IKE_SA, when nothing answers for 6 seconds with
    2 tries, for 12 with 3."""
    base = f"charon-systemd {{ install_routes = {routes} }}" if routes else \
        f"include {ROOT}/conf/strongswan/strongswan.conf"
    return STRONGSWAN.format(base=base, vici=vici, log=log, load=load, tries=tries, plugins=plugins)


def connection(side, outside, nets, esp="aes256gcm16-modp2048", mode="tunnel", encap="no",
               mobike="no", dpd="2s", more=""):
    """swanctl.conf of a side: a connection `peer` with a child `net`. `outside`: the address of each
    side; `nets`: pairs of networks by side, or of nothing, for the addresses themselves."""
    other = OTHER[side]
    return SWANCTL.format(
        side=side, other=other, local=outside[side], remote=outside[other],
        local_ts=",".join(net[side] for net in nets) or "dynamic",
        remote_ts=",".join(net[other] for net in nets) or "dynamic",
        esp=esp, mode=mode, encap=encap, mobike=mobike, dpd=dpd, more=more)


def keys_router(library, path):
    """What charon has in its environment that keys the router with this XFRM socket."""
    return {"LD_PRELOAD": library, "DPDK_ROUTER_XFRM_SOCKET": path}


class Charon:
    """A charon in a namespace, which it shares with what it keys."""

    def __init__(self, space, side, environment=None, settings=None):
        """`environment` adds to the test's own, `settings` are settings_text()'s."""
        self.space = space
        self.side = side
        self.lab = space.lab
        self.vici = self.lab.path(f"{side}.vici")
        self.log_file = self.lab.path(f"{side}.charon")
        self.conf = self.lab.path(f"{side}.strongswan.conf")
        self.swanctl_conf = self.lab.path(f"{side}.swanctl.conf")
        with open(self.conf, "w", encoding="utf-8") as file:
            file.write(settings_text(self.vici, self.log_file, **(settings or {})))
        self.environment = dict(os.environ, STRONGSWAN_CONF=self.conf, **(environment or {}))
        self.process = None
        self.start()

    def start(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.vici)
        self.process = self.space.start(CHARON, env=self.environment)
        until(lambda: os.path.exists(self.vici) or self.process.poll() is not None,
              f"charon of {self.side} is there")
        check(self.process.poll() is None, f"charon of {self.side} ended:\n{self.log()}")

    def log(self):
        with contextlib.suppress(FileNotFoundError), \
                open(self.log_file, encoding="utf-8", errors="replace") as file:
            return file.read()
        return ""

    def swanctl(self, *words, status=0):
        done = self.space.run("swanctl", *words, "--uri", f"unix://{self.vici}", status=None,
                              env=dict(os.environ, STRONGSWAN_CONF=self.conf))
        check(status is None or done.returncode == status,
              f"{self.side}: swanctl {' '.join(words)}: exit status {done.returncode}\n"
              f"{done.stdout}{done.stderr}\nthe end of charon's log:\n{self.log()[-3000:]}")
        return done.stdout

    def load(self, outside, nets, **options):
        """Reads connection() of these."""
        with open(self.swanctl_conf, "w", encoding="utf-8") as file:
            file.write(connection(self.side, outside, nets, **options))
        self.swanctl("--load-creds", "--clear", "--file", self.swanctl_conf)
        self.swanctl("--load-conns", "--file", self.swanctl_conf)

    def child(self):
        """What charon says about its one CHILD_SA: {"in": (spi, bytes, packets), "out": ...}"""
        return child_in(text := self.swanctl("--list-sas")), text


def child_in(text):
    found = re.findall(r"^ +(in|out) +(\w+).*?, +(\d+) bytes, +(\d+) packets", text, re.M)
    return {way: (int(spi, 16), int(octets), int(packets)) for way, spi, octets, packets in found}


def sas(router, direction=None):
    return [each for each in router.call("ipsec.sa.list")["sas"]
            if direction in (None, each["direction"])]


def policies(router):
    return router.call("ipsec.policy.list")["policies"]


def spis(router):
    return {each["direction"]: each["spi"] for each in sas(router)}
