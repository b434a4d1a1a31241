"""The result of a suite as JUnit XML, which CI servers read: a testcase an assertion, its failures in one element."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

# what XML 1.0 cannot hold, not even escaped
_UNSPEAKABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(report: dict[str, Any], name: str, path: Path) -> None:
    """An assertion that could not be checked is an error: CI servers would pass one that is skipped."""
    counts = {"tests": len(report["tests"]), "failures": 0, "errors": 0}
    suite = ElementTree.Element("testsuite", name=_said(name))
    for result in report["tests"]:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_said(result["test"]), name=result["assertion"], file=_said(result["where"])
        )
        if result["why_unchecked"]:
            counts["errors"] += 1
            ElementTree.SubElement(case, "error", message=_said(f"NOT RUN: {result['why_unchecked']}"))
        elif not result["ok"]:
            counts["failures"] += 1
            said = f"{result['passed']} of {result['n']} rows passed; the required pass rate is {result['required']:g}"
            failure = ElementTree.SubElement(case, "failure", message=said)
            failure.text = _said("\n".join(_line(one) for one in result["failures"]))
    suite.attrib |= {key: str(value) for key, value in counts.items()}
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _line(one: dict[str, str]) -> str:
    return f"{one['id']}: {one['why']}: {one['prompt']!r} -> {one['output']!r}"


def _said(text: str) -> str:
    return _UNSPEAKABLE.sub("\ufffd", text)
