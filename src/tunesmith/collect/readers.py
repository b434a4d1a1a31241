"""Text to records, one after the other, each with the true line on which it starts."""

from __future__ import annotations

import csv
import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunesmith.collect.sniff import Dialect, Sniffed, csv_reader
from tunesmith.core.errors import DataError
from tunesmith.core.records import Reject

RAW = 400  # characters of a rejected row that are kept
ROW_LISTS = ("messages", "conversations", "conversation")  # a list of objects that is a row and not the rows
_SPACE = re.compile(r"\s*")
_COMMAS = re.compile(r"[\s,]*")  # what stands between rows
_BRACKETS = re.compile(r"[\s,\[\]]*")  # and where one array may follow another
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it stood in the file, not yet understood."""

    line: int
    value: dict[str, Any]
    raw: str


def shown(text: str) -> str:
    """The start of a row for rejects.jsonl, with bytes that were no text written as escapes."""
    return text.strip()[:RAW].encode("utf-8", "backslashreplace").decode()


def read(file: Sniffed, name: str) -> Iterator[Record | Reject]:
    """Every row of a file, in order: a record, or a reject that says why it cannot be one."""
    if file.container == "csv":
        return _csv(file.text, file.dialect, name)
    return _jsonl(file.text, name) if file.container == "jsonl" else _json(file.text, name)


def _lone_list(value: dict[str, Any]) -> str:
    """The key under which a single object holds the rows, or ''."""
    lists = [k for k, v in value.items() if isinstance(v, list) and v and all(isinstance(item, dict) for item in v)]
    return lists[0] if len(lists) == 1 and lists[0].casefold() not in ROW_LISTS else ""


def _jsonl(text: str, name: str) -> Iterator[Record | Reject]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) == 1 and _lone_list(json.loads(lines[0][1])):
        yield from _json(text, name)
        return
    for number, line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield _malformed(name, (number, getattr(error, "colno", 1)), error, line, number)
            continue
        yield _record(name, number, value, line)


def _record(name: str, line: int, value: Any, raw: str) -> Record | Reject:
    if isinstance(value, dict):
        return Record(line, value, raw)
    return Reject(name, line, "not_an_object", f"{name}:{line}: a {type(value).__name__}", shown(raw))


def _malformed(name: str, at: tuple[int, int], error: Exception, raw: str, line: int) -> Reject:
    """A reject for the row that starts on `line` and breaks at (line, column) `at`."""
    what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return Reject(name, line, "malformed", f"{name}:{at[0]}:{at[1]}: {what}", shown(raw))


class _Places:
    """Offsets to lines and columns, both from 1."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def at(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


def _json(text: str, name: str) -> Iterator[Record | Reject]:
    """An array of rows, an object that holds one, an object of rows by name, or objects one after the other."""
    start = _end(_SPACE, text, 0)
    if text[start] == "[":
        return _elements(text, start, name, _BRACKETS)
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        cut = next((begin for key, begin, end in _members(text, start) if end < 0 and key not in ROW_LISTS), None)
        inside = cut is not None and re.compile(r"\[\s*\{").match(text, cut)
        return _elements(text, cut + 1, name, _COMMAS) if inside and cut else _elements(text, start, name, _COMMAS)
    if _end(_SPACE, text, end) < len(text):
        return _elements(text, start, name, _COMMAS)
    if rows := _lone_list(value):
        begin = next(begin for key, begin, _ in _members(text, start) if key == rows)
        return _elements(text, begin + 1, name, _COMMAS)
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


def _elements(text: str, at: int, name: str, between: re.Pattern[str]) -> Iterator[Record | Reject]:
    """Values one after the other until the list or the file ends.

    After a value that cannot be parsed, reading goes on at the next line that starts as the broken row did. Where there
    is none the broken row is the last, if it breaks at the end of the file: the file was cut. Else DataError, because
    how many rows lie in the damage cannot be told.
    """
    places = _Places(text)
    while (at := _end(between, text, at)) < len(text) and text[at] != "]":
        line, column = places.at(at)
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            broken = places.at(getattr(error, "pos", at))
            end = _next_row(text, at, text[at - column + 1 : at])
            if end == len(text) and not _cut(error, text):
                where, fix = f"{name}:{broken[0]}:{broken[1]}", "mend that place, or write one object a line"
                raise DataError("damaged JSON; where the next row starts is unclear", where=where, fix=fix) from error
            yield _malformed(name, broken, error, text[at : min(end, at + RAW)], line)
        else:
            yield _record(name, line, value, text[at : min(end, at + RAW)])
        at = end


def _cut(error: Exception, text: str) -> bool:
    """Did the parser run into the end of the text? It names the start of an open string, or of a half word."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()) - len("-Infinity")


def _next_row(text: str, at: int, indent: str) -> int:
    """The offset of the next line that opens an object at the same indent, or the end of the text."""
    later = None if indent.strip() else re.compile(rf"^{indent}(?=\{{)", re.MULTILINE).search(text, at + 1)
    return later.end() if later else len(text)


def _csv(text: str, dialect: Dialect, name: str) -> Iterator[Record | Reject]:
    """Records under their header. Raises DataError when there is no record below it."""
    lines = [line + "\n" for line in text.split("\n")]
    records = ((line, end, fields) for line, end, fields in _csv_records(lines, dialect) if fields)
    first, _, header = next(records)
    names = _header(header, f"{name}:{first}")
    below = 0
    for line, end, fields in records:
        below += 1
        raw = "".join(lines[line - 1 : end])
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
    twice = next((field for field in names if names.count(field) > 1), None)
    if twice is not None:
        raise DataError(f"two columns are called '{twice}'", where=where, fix="rename one of them")
    return names


def _csv_records(lines: list[str], dialect: Dialect) -> Iterator[tuple[int, int, list[str] | csv.Error]]:
    """(first line, last line, fields or what is wrong). After a broken record reading goes on at the line below its
    start, because a quote that is never closed would swallow the rest of the file."""
    done = 0
    reader = csv_reader(lines, dialect)
    while True:
        start = done + reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start + 1, start + 1, error
            done = start + 1
            reader = csv_reader((lines[i] for i in range(done, len(lines))), dialect)
            continue
        yield start + 1, done + reader.line_num, fields
