#!/usr/bin/python3
"""Adds up the results that meson left in the given build directories, prints why tests were skipped,
and ends with a line like `123 passed, 0 failed, 2 skipped`. Exits 1 when anything failed or nothing
ran."""
import pathlib
import sys
import xml.etree.ElementTree as tree


def results(directory):
    for report in sorted(pathlib.Path(directory).glob("meson-logs/testlog*.junit.xml")):
        for suite in tree.parse(report).getroot().iter("testsuite"):
            for case in suite.iter("testcase"):
                name = f"{suite.get('name')}: {case.get('name')}"
                skipped = case.find("skipped")
                if case.find("failure") is not None or case.find("error") is not None:
                    yield name, "failed", ""
                elif skipped is not None:
                    yield name, "skipped", (skipped.get("message") or skipped.text or "").strip()
                else:
                    yield name, "passed", ""


def main():
    count = {"passed": 0, "failed": 0, "skipped": 0}
    for directory in sys.argv[1:]:
        for name, result, reason in results(directory):
            count[result] += 1
            if result != "passed":
                print(f"{result}: {pathlib.Path(directory).name}: {name} {reason}".rstrip())
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    sys.exit(1 if count["failed"] or not count["passed"] else 0)


if __name__ == "__main__":
    main()
