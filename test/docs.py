#!/usr/bin/python3
"""Checks the documentation against the sources: what exists must be described, and nothing else.

    drop reasons      docs/drops.md        table rows        | `group.reason` | ...
    audited events    docs/guide.md        the list under IPsec; those with a section of an RFC in
                                           docs/drops.md have to be among them
    RPC methods       docs/json-rpc.md     headings          ### object.verb
    configuration     docs/man/router.json.5 and conf/router.schema.json

The sources are read as text, so a new way of writing a table of names needs a change here: each kind
must yield at least as many names as MINIMUM says. Prints one line per problem, and exits non-zero
when there is any.
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MINIMUM = {"drop reasons": 140, "audited events": 14, "RPC methods": 25, "configuration keys": 200}
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

# Which keys of router.json stand where: the function (in lib/*/*_config.c, or FOLDER:function where
# several folders have one of that name) whose `keys` array lists them, the subsection of
# router.json(5), and the place in the schema's $defs.
KEYS = [
    ("decode_interface", "Interfaces", "interface"),
    ("decode_advertisement", "Router advertisements", "router_advertisement"),
    ("decode_advertised", "Advertised prefixes", "advertised_prefix"),
    ("interface:decode_vrf", "VRFs", "vrf"),
    ("decode_one", "Neighbours", "neighbour"),
    ("route_decode", "Routes", "route"),
    ("decode_next_hop", "Next hops", "next_hop"),
    ("icmp_decode", "ICMP", "icmp"),
    ("sessions_decode", "Sessions", "sessions"),
    ("decode_limits", "Session limits", "session_limits"),
    ("firewall:decode", "Firewall", "firewall"),
    ("decode_rule", "Firewall rules", "firewall_rule"),
    ("decode_nat", "NAT", "nat"),
    ("decode_source", "Source NAT rules", "nat_source"),
    ("decode_destination", "Destination NAT rules", "nat_destination"),
    ("decode_static", "Static NAT", "nat_static"),
    ("decode_nptv6", "NPTv6", "nat_nptv6"),
    ("decode_nat64", "NAT64 rules", "nat_nat64"),
    ("decode_nat64_static", "Static bindings of NAT64", "nat_nat64_static"),
    ("decode_ipsec", "IPsec", "ipsec"),
    ("decode_ike", "IKE", "ipsec_ike"),
    ("ipsec_decode_sa", "Security associations", "ipsec_sa"),
    ("decode_lifetime", "Lifetimes", "ipsec_lifetime"),
    ("ipsec_decode_policy", "IPsec policies", "ipsec_policy"),
]


def sources(pattern="*.c"):
    for path in sorted((ROOT / "lib").glob("*/" + pattern)):
        yield path, COMMENT.sub("", path.read_text(encoding="utf-8"))


def block(text, start):
    """The text of the braces that open at or after `start`."""
    begin = text.index("{", start)
    depth = 0
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at + 1]
    raise ValueError("unbalanced braces")


def strings(text):
    return re.findall(r'"((?:[^"\\]|\\.)*)"', text)


def drop_reasons():
    for path, text in sources():
        for match in re.finditer(r"\bstruct (?:drop_group|stage) \w+ = \{", text):
            definition = block(text, match.start())
            group = re.search(r'\.name = "(\w+)"', definition)
            reasons = re.search(r"\.reasons\s*=\s*(\w+)?", definition)
            if not group or not reasons:
                continue
            if reasons.group(1):  # an array of its own
                array = re.search(re.escape(reasons.group(1)) + r"\[\] = \{", text)
                if not array:
                    sys.exit(f"{path.name}: cannot find the reasons of {group.group(1)}")
                names = strings(block(text, array.start()))
            else:
                names = strings(block(definition, reasons.end()))
            for name in names:
                yield f"{group.group(1)}.{name}"


def rpc_methods():
    for _, text in sources():
        yield from re.findall(r'RPC_METHOD\(\s*\w+,\s*"([\w.]+)"', text)


def audited_events():
    text = COMMENT.sub("", (ROOT / "lib/ipsec/ipsec_audit.c").read_text(encoding="utf-8"))
    return strings(block(text, text.index("audited[] = ")))


def described_events():
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    line = next((each for each in guide.splitlines() if each.startswith("The event is called")), "")
    return re.findall(r"`(\w+)`", line.split("`spi` and `seq`")[0])


def function_keys(function):
    """The strings of the `keys` array in the function of that name; None if there is no such."""
    folder, _, function = function.rpartition(":")
    for path, text in sources("*_config.c"):
        match = re.search(r"\b" + function + r"\([^;{]*\)\s*\{", text)
        if match and folder in ("", path.parent.name):
            body = block(text, match.start())
            array = re.search(r"\bkeys\[\] = ", body)
            return strings(block(body, array.end())) if array else None
    return None


def session_states():
    """Each has a timeout of its name; the first two are of places without a session."""
    for path, text in sources("session_state.c"):
        match = re.search(r"session_state_names\[SESSION_STATES\] = ", text)
        return strings(block(text, match.end()))[2:]
    return []


def punt_classes():
    for path, text in sources("punt.c"):
        match = re.search(r"punt_class_names\[PUNT_CLASSES\] = ", text)
        return strings(block(text, match.end()))
    return []


def top_level_keys():
    for _, text in sources("*_config.c"):
        for match in re.finditer(r"struct config_section \w+ = \{", text):
            yield re.search(r'\.name = "(\w+)"', block(text, match.start())).group(1)


def manual_keys():
    """Subsection of router.json(5) -> its keys: lines `.It Cm KEY ...` below `.Ss TITLE`."""
    keys, title = {}, None
    for line in (ROOT / "docs/man/router.json.5").read_text(encoding="utf-8").splitlines():
        if line.startswith((".Sh ", ".Ss ")):
            title = line[4:].strip() if line.startswith(".Ss") else None
        elif line.startswith(".It Cm ") and title:
            keys.setdefault(title, []).append(line.split()[2])
    return keys


def schema_keys(schema, place):
    definition = schema["$defs"][place] if place else schema
    for part in [definition] + definition.get("anyOf", []):
        if "properties" in part and part.get("additionalProperties") is False:
            return list(part["properties"])
    return []


class Report:
    def __init__(self):
        self.problems = 0
        self.counted = {}

    def compare(self, kind, where, real, described):
        real, described = list(real), list(described)
        self.counted[kind] = self.counted.get(kind, 0) + len(real)
        for name in sorted(set(real) - set(described)):
            self.tell(f"{where} does not describe {name}")
        for name in sorted(set(described) - set(real)):
            self.tell(f"{where} describes {name}, which does not exist")
        for name in sorted({n for n in described if described.count(n) > 1}):
            self.tell(f"{where} describes {name} twice")

    def tell(self, problem):
        self.problems += 1
        print(problem)


def main():
    report = Report()
    drops = (ROOT / "docs/drops.md").read_text(encoding="utf-8")
    report.compare("drop reasons", "docs/drops.md", drop_reasons(),
                   re.findall(r"^\| `(\w+\.\w+)` \|", drops, re.MULTILINE))
    events = audited_events()
    report.compare("audited events", "docs/guide.md", events, described_events())
    for name in re.findall(r"^\| `\w+\.(\w+)` \|.*\| RFC [^|]*\|$", drops, re.MULTILINE):
        if name not in events:
            report.tell(f"docs/drops.md says that {name} is auditable, and ipsec_audit.c has no line for it")
    rpc = (ROOT / "docs/json-rpc.md").read_text(encoding="utf-8")
    report.compare("RPC methods", "docs/json-rpc.md", rpc_methods(),
                   re.findall(r"^### ([\w.]+)$", rpc, re.MULTILINE))

    schema = json.loads((ROOT / "conf/router.schema.json").read_text(encoding="utf-8"))
    manual = manual_keys()
    places = [("Top level", None, list(top_level_keys())), ("Punt", "punt", punt_classes()),
              ("Session timeouts", "session_timeouts", session_states())]
    for function, title, place in KEYS:
        keys = function_keys(function)
        if keys is None:
            report.tell(f"test/docs.py: no function {function} with a `keys` array in lib/*/*_config.c")
            continue
        places.append((title, place, keys))
    for title, place, keys in places:
        report.compare("configuration keys", f"router.json(5), \"{title}\",", keys,
                       manual.get(title, []))
        report.compare("configuration keys", f"router.schema.json, {place or 'top level'},", keys,
                       schema_keys(schema, place))

    for kind, least in MINIMUM.items():
        if report.counted.get(kind, 0) < least:
            report.tell(f"only {report.counted.get(kind, 0)} {kind} found in the sources; "
                        f"does test/docs.py still know how they are written?")
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counted.items())
    print(f"{counts} compared, {report.problems} problems")
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
