"""Tasks made from the standard library's own documentation: the demo's data.

Three kinds, as in the course notes: reading (an entry in, a short card out), writing (a card in, a sentence out), and
guard rows (off topic in, one constant answer out). Every question and answer is derived from real entries by the
tables below; which rows are held out is decided later, by `prepare`, for whole classes and functions.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.collect.stdlib import Entry, Library, harvest
from tunesmith.core.artifact import Artifact, open_artifact, seal
from tunesmith.core.artifact import writing as writing_to
from tunesmith.core.jsonl import write_json, write_jsonl, write_rows
from tunesmith.core.records import Meta, Row, pair
from tunesmith.text.off_topic import off_topic_questions

SOURCE = "stdlib"
GUARD_ANSWER = "Let's keep the discussion relevant to Python's standard library."

# What a function does, by the first word of its summary; a final -s or -es is taken off first.
_ACTIONS = {
    "get": "return get retrieve fetch give obtain yield",
    "set": "set configure change update override modify assign",
    "create": "create construct make generate build initialize produce instantiate",
    "remove": "remove delete clear close destroy discard pop unset unregister strip",
    "add": "add insert append register put bind extend attach",
    "read": "read open load parse extract scan receive",
    "write": "write send print log save display show dump flush emit",
    "convert": "convert encode decode format translate transform turn quote escape normalize",
    "check": "check test determine true compare verify validate match ensure",
    "find": "find search list locate look query lookup",
    "run": "run call start execute wait process handle invoke perform stop",
}
_VERBS = {verb: action for action, verbs in _ACTIONS.items() for verb in verbs.split()}

# What it is about, by the package it lives in.
_AREAS = {
    "windows": "tkinter idlelib turtle turtledemo curses",
    "network": "http urllib email smtplib imaplib ftplib socketserver xmlrpc wsgiref nntplib ssl mailbox telnetlib "
    "ipaddress cgi poplib smtpd socket asyncore asynchat",
    "files": "pathlib shutil tarfile zipfile os posixpath ntpath gzip bz2 lzma tempfile fileinput glob filecmp _pyio "
    "zipimport io",
    "numbers": "datetime calendar _pydecimal statistics fractions numbers random operator colorsys heapq bisect "
    "_strptime",
    "parallel": "asyncio threading multiprocessing concurrent queue sched subprocess contextlib",
    "testing": "unittest doctest pdb bdb traceback logging cProfile profile pstats trace tracemalloc timeit",
    "code": "importlib distutils inspect ast pydoc typing dis symtable pickletools tokenize enum dataclasses abc "
    "functools pkgutil modulefinder compileall types code codeop",
    "documents": "xml html json configparser csv plistlib string textwrap difflib optparse argparse gettext locale "
    "codecs base64 quopri pprint shlex",
}
_AREA_OF = {package: area for area, packages in _AREAS.items() for package in packages.split()}

# The words of a writing card: (on the card, in the sentence). Slots are about equally long and share few words, so
# that two cards that differ in one slot are not near-duplicates: their 4-gram Jaccard is about 0.6.
_DOES = {
    "get": ("fetching results", "hands back a value"),
    "set": ("adjusting a knob", "changes a setting"),
    "create": ("building objects", "makes something new"),
    "remove": ("throwing it away", "takes something away"),
    "add": ("squeezing more in", "puts something in"),
    "read": ("taking up inflow", "reads what is there"),
    "write": ("printing outcome", "writes a result"),
    "convert": ("translating form", "turns one form into another"),
    "check": ("judging the truth", "tells whether it holds"),
    "find": ("hunting for clues", "looks for a match"),
    "run": ("doing heavy work", "carries out the work"),
}
_ABOUT = {
    "windows": ("buttons and menus", "for programs with windows"),
    "network": ("distant machines", "over the network"),
    "files": ("folders on disks", "with files on disk"),
    "numbers": ("sums, days, dates", "with numbers and dates"),
    "parallel": ("many jobs at once", "across parallel tasks"),
    "testing": ("faults, records", "while testing a program"),
    "code": ("modules, types", "on Python code itself"),
    "documents": ("markup or prose", "in text documents"),
}
_NEEDS = (
    ("asks for nothing", "It needs no arguments"),
    ("one single value", "It needs one argument"),
    ("a pair of inputs", "It needs two arguments"),
    ("plenty of things", "It needs several arguments"),
)
_EXTRAS = (
    ("lacks any choice", "and takes no options."),
    ("has just a switch", "and takes one option."),
    ("various settings", "and takes several options."),
)


def lessons(library: Library, reading: int, writing: int, guard: int, seed: int = 0) -> list[Row]:
    """At most so many rows of each kind, in a seeded order."""
    rng = random.Random(seed)
    cards = [(entry, card) for entry in library.entries if (card := _card(entry))]
    rows = [
        *_reading(_level(cards, rng), reading),
        *_writing([card for _, card in cards], writing, rng),
        *_guard(guard, rng),
    ]
    rng.shuffle(rows)
    return rows


def _card(entry: Entry) -> tuple[str, str, int, int] | None:
    """(action, area, needed, optional) of an entry, or None where a table does not know it."""
    words = entry.summary.split()
    verb = words[0].lower().strip(".,:") if words else ""
    action = next((_VERBS[v] for v in (verb, verb.removesuffix("s"), verb.removesuffix("es")) if v in _VERBS), None)
    area = _AREA_OF.get(entry.module.split(".")[0])
    short = len(words) >= 3 and len(entry.summary) <= 160 and entry.summary.isascii()
    if entry.kind == "class" or action is None or area is None or not short:
        return None
    return action, area, entry.required, len(entry.parameters) - entry.required


def _level(cards: Sequence[tuple[Entry, tuple[str, str, int, int]]], rng: random.Random) -> list[tuple[Entry, str]]:
    """Take actions in turn, so that the commonest ("get") is not half of all rows."""
    by_action: dict[str, list[tuple[Entry, str]]] = {}
    for entry, (action, area, needs, optional) in cards:
        answer = f"action: {action}\narea: {area}\nneeds: {needs}\noptional: {optional}"
        by_action.setdefault(action, []).append((entry, answer))
    for found in by_action.values():
        rng.shuffle(found)
    turns = itertools.zip_longest(*(by_action[name] for name in sorted(by_action)))
    return [item for turn in turns for item in turn if item is not None]


def _reading(items: Sequence[tuple[Entry, str]], limit: int) -> Iterator[Row]:
    for entry, answer in items[:limit]:
        meta = Meta(source=f"{SOURCE}/{entry.module}", line=entry.line, group=entry.group)
        yield pair(f"{entry.signature}\n{entry.summary}", answer, meta=meta)


def _writing(cards: Sequence[tuple[str, str, int, int]], limit: int, rng: random.Random) -> Iterator[Row]:
    """One row a combination that occurs, so a held-out card is a combination that was never trained."""
    combos = sorted({(action, area, min(needs, 3), min(optional, 2)) for action, area, needs, optional in cards})
    rng.shuffle(combos)
    for action, area, needs, optional in combos[:limit]:
        slots = (_DOES[action], _ABOUT[area], _NEEDS[needs], _EXTRAS[optional])
        what, where, needed, extras = (slot[1] for slot in slots)
        answer = f"This {what} {where}. {needed} {extras}"
        yield pair("; ".join(slot[0] for slot in slots), answer, meta=Meta(source=f"{SOURCE}/cards"))


def _guard(limit: int, rng: random.Random) -> Iterator[Row]:
    """Off-topic questions; a thing's questions form one group, so a held-out one asks about something new."""
    asked = off_topic_questions()
    rng.shuffle(asked)
    for thing, question in asked[:limit]:
        meta = Meta(source=f"{SOURCE}/off-topic", origin="guard", group=f"off-topic {thing}")
        yield pair(question, GUARD_ANSWER, meta=meta)


def collect_lessons(out: Path, reading: int = 1100, writing: int = 200, guard: int = 100, seed: int = 0) -> Artifact:
    """Seal the lessons of this Python as data/raw/<id> below `out`, or return them where they are there already."""
    rows = lessons(harvest(), reading, writing, guard, seed)
    identity = hashlib.sha256(" ".join(row.id for row in rows).encode()).hexdigest()[:12]
    if (out / identity).is_dir():
        return open_artifact(out / identity, "raw")
    with writing_to(out / identity) as work:
        write_rows(work / "examples.jsonl", rows)
        write_jsonl(work / "rejects.jsonl", [])
        receipt = {"id": identity, "source": SOURCE, "rows_in": len(rows), "kept": len(rows), "rejected": {}}
        write_json(work / "receipt.json", receipt)
        return seal(work, out / identity, "raw", receipt)
