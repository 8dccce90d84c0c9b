#!/usr/bin/python3
"""The files that lead strongSwan to the router name what there is:

    strongswan_conf.py SYSTEMD-DROP-IN APPARMOR-RULES INSTALLED-LIBRARY BUILT-LIBRARY

the library where it is installed, the variable that the library asks for, one socket in all of them,
and only settings that systemd knows, as far as it is there to be asked.
"""
import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


class DropIn(dict):
    """Settings may come several times in a section: each is a list here."""

    def __setitem__(self, key, value):
        if key in self and isinstance(value, list):
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def check(condition, text):
    if not condition:
        sys.exit(f"not ok - {text}")
    print(f"ok - {text}")


def environment_of(path):
    parser = configparser.RawConfigParser(dict_type=DropIn, strict=False)
    parser.optionxform = str
    parser.read(path)
    values = parser["Service"]["Environment"].split("\n")
    return dict(value.split("=", 1) for value in values)


def verify(path):
    """systemd-analyze reads the drop-in with a unit like strongSwan's. It wants no running systemd,
    but says much about machines without one: only what it says of this file counts."""
    if not shutil.which("systemd-analyze"):
        return "systemd-analyze is not here"
    with tempfile.TemporaryDirectory() as folder:
        unit = os.path.join(folder, "strongswan-like.service")
        with open(unit, "w", encoding="utf-8") as file:
            file.write("[Service]\nExecStart=/bin/true\n")
        with open(os.path.join(folder, "dpdk-router.service"), "w", encoding="utf-8") as file:
            file.write("[Service]\nExecStart=/bin/true\n")
        os.mkdir(unit + ".d")
        copy = os.path.join(unit + ".d", "dpdk-router.conf")
        shutil.copy(path, copy)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], check=False,
                              capture_output=True, encoding="utf-8", timeout=60,
                              env=dict(os.environ, SYSTEMD_UNIT_PATH=f"{folder}:"))
        return "\n".join(line for line in done.stderr.splitlines() if copy in line)


def main():
    drop_in, apparmor, library, built = sys.argv[1:]
    environment = environment_of(drop_in)
    check(environment.get("LD_PRELOAD") == library, f"LD_PRELOAD is {library}")
    check(os.path.basename(built) == os.path.basename(library), "the library has this name")
    variables = sorted(set(environment) - {"LD_PRELOAD"})
    check(len(variables) == 1, f"one more variable: {variables}")
    content = pathlib.Path(built).read_bytes()
    check(variables[0].encode() + b"\0" in content, f"the library asks for {variables[0]}")
    path = environment[variables[0]]
    rules = pathlib.Path(apparmor).read_text(encoding="utf-8")
    check(f"  {library} mr,\n" in rules and f"  {path} rw,\n" in rules, "AppArmor lets charon use both")
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    check(f'"ike": {{ "socket": "{path}" }}' in guide, "the guide has the socket there")
    complaint = verify(drop_in)
    check(complaint in ("", "systemd-analyze is not here"), f"systemd-analyze: {complaint or 'good'}")
    unit = (ROOT / "conf/dpdk-router.service").read_text(encoding="utf-8")
    check(re.search(r"^RuntimeDirectory=dpdk-router$", unit, re.M), "the socket's directory is there")


if __name__ == "__main__":
    main()
