"""Text to records, one after the other, each with the true line on which it starts."""

from __future__ import annotations

import csv
import json
import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from tunesmith.collect import columns, documents, faq, mail, page, slack
from tunesmith.collect.record import RAW, Record, shown
from tunesmith.collect.shape import ALIASES, SIGNALS, fold
from tunesmith.collect.sniff import Dialect, Sniffed, csv_reader, sniff
from tunesmith.core.errors import DataError
from tunesmith.core.records import Reject

ROW_KEYS = {name for slot in ALIASES if slot not in ("text", "subject") for name in ALIASES[slot]} | SIGNALS.keys()
_SPACE = re.compile(r"\s*")
_COMMAS = re.compile(r"[\s,]*")  # what stands between rows
_BRACKETS = re.compile(r"[\s,\[\]]*")  # and where one array may follow another
_DECODER = json.JSONDecoder()


class Repeated(ValueError):
    """An object names one key twice: one of the two values would be lost."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise Repeated(f"the key {key!a} stands twice in one object")
    return made


_ROWS = json.JSONDecoder(object_pairs_hook=_unique)


def read(file: Sniffed) -> Iterator[Record | Reject]:
    """Every row of a file, in order: a record, or a reject that says why it cannot be one.

    JSON lines, tables, Parquet and texts that end with their line are streamed; the others are read whole.
    """
    name = file.blob.name
    match file.container:
        case "jsonl":
            return _jsonl(file.lines(), name)
        case "csv":
            return _csv(file.lines(), file.dialect, name)
        case "json":
            return _json(file.text, name)
        case "markdown":
            return faq.read(file.text, name)
        case "html":
            return page.read(file.text, name)
        case "text":
            return documents.read(file.lines(), file.cut)
        case "mbox":
            return mail.read(file.blob, name)
        case "parquet":
            return columns.read(file.blob)
        case "slack":
            return slack.read(file.blob, lambda blob: read(sniff(blob)))


def _lone_list(value: dict[str, Any]) -> str:
    """The key under which a single object holds the rows, or '': an object with a part of an example is a row."""
    lists = [k for k, v in value.items() if isinstance(v, list) and v and all(isinstance(item, dict) for item in v)]
    if len(lists) != 1 or {fold(key) for key in value} & ROW_KEYS:
        return ""
    return lists[0]


def _jsonl(lines: Iterator[str], name: str) -> Iterator[Record | Reject]:
    filled = ((number, line.rstrip("\n")) for number, line in enumerate(lines, 1) if line.strip())
    head = list(islice(filled, 2))
    if len(head) == 1 and _is_wrapper(head[0][1]):
        yield from _json(head[0][1], name, head[0][0])
        return
    for number, line in chain(head, filled):
        try:
            value = _ROWS.decode(line)
        except Repeated as error:
            yield _repeated(name, number, error, line)
            continue
        except (ValueError, RecursionError) as error:
            yield _malformed(name, (number, getattr(error, "colno", 1)), error, line, number)
            continue
        yield _record(name, number, value, line)


def _is_wrapper(line: str) -> bool:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(_lone_list(value))


def _record(name: str, line: int, value: Any, raw: str) -> Record | Reject:
    if isinstance(value, dict):
        return Record(line, value, raw)
    return Reject(name, line, "not_an_object", f"{name}:{line}: a {type(value).__name__}", shown(raw))


def _malformed(name: str, at: tuple[int, int], error: Exception, raw: str, line: int) -> Reject:
    """A reject for the row that starts on `line` and breaks at (line, column) `at`."""
    what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return Reject(name, line, "malformed", f"{name}:{at[0]}:{at[1]}: {what}", shown(raw))


def _repeated(name: str, line: int, error: Repeated, raw: str) -> Reject:
    return Reject(name, line, "repeated_key", f"{name}:{line}: {error}", shown(raw))


class _Places:
    """Offsets to lines and columns, both from 1."""

    def __init__(self, text: str, first: int = 1) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._first = first

    def at(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line + self._first - 1, offset - self._starts[line - 1] + 1


def _json(text: str, name: str, first: int = 1) -> Iterator[Record | Reject]:
    """An array of rows, an object that holds one, an object of rows by name, or objects one after the other."""
    start = _end(_SPACE, text, 0)
    if text[start] == "[":
        return _elements(text, start, name, _BRACKETS)
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        cut = next((begin for key, begin, end in _members(text, start) if end < 0 and fold(key) not in ROW_KEYS), None)
        inside = cut is not None and re.compile(r"\[\s*\{").match(text, cut)
        return _elements(text, cut + 1, name, _COMMAS) if inside and cut else _elements(text, start, name, _COMMAS)
    if _end(_SPACE, text, end) < len(text):
        return _elements(text, start, name, _COMMAS)
    if rows := _lone_list(value):
        begin = next(begin for key, begin, _ in _members(text, start) if key == rows)
        return _elements(text, begin + 1, name, _COMMAS, first)
    if len(value) > 1 and all(isinstance(item, dict) for item in value.values()):
        return _named(text, start, name)
    return _elements(text, start, name, _COMMAS)


def _named(text: str, start: int, name: str) -> Iterator[Record | Reject]:
    """The rows of {"name": {row}, ...}."""
    places = _Places(text)
    for _, begin, end in _members(text, start):
        yield _record(name, places.at(begin)[0], json.loads(text[begin:end]), text[begin:end])


def _members(text: str, start: int) -> Iterator[tuple[str, int, int]]:
    """(key, begin, end) of every value of an object; end is -1 for a value that cannot be parsed, which is the last."""
    at = _end(_COMMAS, text, start + 1)
    while text[at : at + 1] == '"':
        try:
            key, at = _DECODER.raw_decode(text, at)
        except ValueError:  # cut inside a key
            return
        begin = _end(_SPACE, text, _end(_SPACE, text, at) + 1)  # after the colon
        try:
            _, end = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError):
            end = -1
        yield key, begin, end
        if end < 0:
            return
        at = _end(_COMMAS, text, end)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _elements(text: str, at: int, name: str, between: re.Pattern[str], first: int = 1) -> Iterator[Record | Reject]:
    """Values one after the other until the list or the file ends.

    After a value that cannot be parsed, reading goes on at the next line that starts as the broken row did. Where there
    is none the broken row is the last, if it breaks at the end of the file: the file was cut. Else DataError, because
    how many rows lie in the damage cannot be told.
    """
    places = _Places(text, first)
    while (at := _end(between, text, at)) < len(text) and text[at] != "]":
        line, column = places.at(at)
        try:
            value, end = _decoded(text, at)
        except (ValueError, RecursionError) as error:
            broken = places.at(getattr(error, "pos", at))
            end = _next_row(text, at, text[at - column + 1 : at])
            if end == len(text) and not _cut(error, text):
                where, fix = f"{name}:{broken[0]}:{broken[1]}", "mend that place, or write one object a line"
                raise DataError("damaged JSON; where the next row starts is unclear", where=where, fix=fix) from error
            yield _malformed(name, broken, error, text[at : min(end, at + RAW)], line)
        else:
            raw = text[at : min(end, at + RAW)]
            yield _repeated(name, line, value, raw) if isinstance(value, Repeated) else _record(name, line, value, raw)
        at = end


def _decoded(text: str, at: int) -> tuple[Any, int]:
    """The value at an offset, or the error for its repeated key, and where it ends."""
    try:
        return _ROWS.raw_decode(text, at)
    except Repeated as error:
        return error, _DECODER.raw_decode(text, at)[1]


def _cut(error: Exception, text: str) -> bool:
    """Did the parser run into the end of the text? It names the start of an open string, or of a half word."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()) - len("-Infinity")


def _next_row(text: str, at: int, indent: str) -> int:
    """The offset of the next line that opens an object at the same indent, or the end of the text."""
    later = None if indent.strip() else re.compile(rf"^{indent}(?=\{{)", re.MULTILINE).search(text, at + 1)
    return later.end() if later else len(text)


def _csv(text: Iterator[str], dialect: Dialect, name: str) -> Iterator[Record | Reject]:
    """Records under their header. Raises DataError when there is no record below it."""
    lines = _Lines(text)
    records = ((line, fields, raw) for line, fields, raw in _csv_records(lines, dialect) if fields)
    first, header, _ = next(records)
    names = _header(header, f"{name}:{first}")
    below = 0
    for line, fields, raw in records:
        below += 1
        if isinstance(fields, csv.Error):
            yield Reject(name, line, "malformed", f"{name}:{line}: {fields}", shown(raw))
        elif len(fields) < len(names) or any(fields[len(names) :]):  # empty fields too many are an editor's habit
            what = f"{name}:{line}: {len(fields)} fields, the header has {len(names)}"
            yield Reject(name, line, "column_count", what, shown(raw))
        else:
            yield Record(line, dict(zip(names, fields, strict=False)), raw)
    if not below:
        raise DataError("a table with a header and no rows", where=name, expected="at least one row below the header")


def _header(fields: list[str] | csv.Error, where: str) -> list[str]:
    if isinstance(fields, csv.Error):
        raise DataError(f"the header cannot be read: {fields}", where=where)
    names = [field.strip() or f"column_{i}" for i, field in enumerate(fields, 1)]
    twice = next((field for field, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"two columns are called '{twice}'", where=where, fix="rename one of them")
    return names


class _Lines:
    """Lines that remember those of the record being read, so that reading can go on below its first one."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self.held: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.held.append(line)
        return line

    def rewind(self) -> str:
        """Put back all lines of the record but the first, which is returned."""
        self._again.extendleft(reversed(self.held[1:]))
        return self.held[0]


def _csv_records(lines: _Lines, dialect: Dialect) -> Iterator[tuple[int, list[str] | csv.Error, str]]:
    """(first line, fields or what is wrong, the record as it stands). After a broken record reading goes on at the line
    below its start, because a quote that is never closed would swallow the rest of the file."""
    line = 1
    reader = csv_reader(lines, dialect)
    while True:
        lines.held = []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, error, lines.rewind()
            line += 1
            reader = csv_reader(lines, dialect)
            continue
        start, line = line, line + len(lines.held)
        yield start, fields, "".join(lines.held)
