#!/usr/bin/python3
"""Checks who includes whom, against the layers in docs/architecture.md.

Prints TAP-like lines and exits non-zero when a file includes a header from a layer it must not know.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A folder may include the folders named behind it (and itself).
MAY_INCLUDE = {
    "lib/core": [],
    "lib/json": ["core"],
    "lib/interface": ["core", "json"],
    "lib/l3": ["core", "json", "interface"],
    "lib/host": ["core", "json", "interface", "l3"],
    "lib/session": ["core", "json", "interface", "l3"],
    "lib/firewall": ["core", "json", "interface", "l3", "session"],
    "lib/nat": ["core", "json", "interface", "l3", "session"],
    "lib/ipsec": ["core", "json", "interface", "l3", "session", "firewall"],
    "lib/control": ["core", "json"],
    "drivers-glue": ["core"],
    "app/xfrm-preload": ["ipsec"],
    "app/dpdk-router": ["core", "control", "interface", "l3", "host", "session"],
}
JSON_FILES = re.compile(r"(_config|_rpc|_json)\.c$|^lib/(json|control)/|^app/routerctl/")
PACKET_FRAMEWORK = re.compile(r"\brte_(pipeline|table|port_in|port_out)_?\w*\b|<rte_(pipeline|table\w*|port)\.h>")


def problems_of(path):
    relative = path.relative_to(ROOT).as_posix()
    text = path.read_text()
    folder = next((f for f in MAY_INCLUDE if relative.startswith(f + "/")), None)
    if folder:
        own = folder.split("/")[-1]
        for layer in re.findall(r'#include "([a-z0-9_]+)/', text):
            if layer != own and layer not in MAY_INCLUDE[folder]:
                yield f"{relative} includes {layer}/, which is above it"
    if "<jansson.h>" in text and not JSON_FILES.search(relative):
        yield f"{relative} knows JSON; only *_config.c, *_rpc.c, *_json.c, lib/json and lib/control may"
    if PACKET_FRAMEWORK.search(text) and relative != "lib/core/pipeline.c" and path.suffix == ".c":
        yield f"{relative} uses DPDK's packet framework; only lib/core/pipeline.c may"


def main():
    files = [p for top in ("lib", "drivers-glue", "app") for p in sorted((ROOT / top).rglob("*.[ch]"))]
    found = [problem for path in files for problem in problems_of(path)]
    for problem in found:
        print(problem)
    print(f"{len(files)} files checked, {len(found)} problems")
    sys.exit(1 if found or not files else 0)


if __name__ == "__main__":
    main()
