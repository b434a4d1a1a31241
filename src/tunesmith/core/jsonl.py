"""JSON lines: one JSON object a line, read as a stream, with file:line:column in every error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.records import Row


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the objects of a file that Tunesmith wrote. Raises DataError at the first line that is not one."""
    return (obj for _, obj in read_numbered(path))


def read_numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """`read_jsonl` with line numbers. Bytes are split at \\n alone: a text may hold every other line break there is."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                obj = _strict.decode(line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8"))
            except ValueError as error:
                what, where = f"not valid JSON: {_reason(error)}", f"{path}:{number}:{_column(error)}"
                raise DataError(what, where=where, expected="one object a line") from error
            if not isinstance(obj, dict):
                what, where = f"a {type(obj).__name__}, not an object", f"{path}:{number}"
                raise DataError(what, where=where, expected="one object a line")
            yield number, obj


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


_strict = json.JSONDecoder(parse_constant=_refuse)


def _column(error: ValueError) -> int:
    """Where in the line it broke: in characters, or in bytes where the line is not UTF-8."""
    if isinstance(error, UnicodeDecodeError):
        return error.start + 1
    return error.colno if isinstance(error, json.JSONDecodeError) else 1


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def read_rows(path: Path) -> Iterator[Row]:
    """Stream canonical rows. Raises DataError with file:line where a line is not one."""
    for number, obj in read_numbered(path):
        try:
            yield Row.from_json(obj)
        except (KeyError, TypeError) as error:
            expected = f"the key {error}" if isinstance(error, KeyError) else str(error)
            fix = "tunesmith collect FILE reads other shapes"
            raise DataError("not a canonical row", where=f"{path}:{number}", expected=expected, fix=fix) from error


def dump(obj: Any, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinity are errors, because no other reader takes them. One line, unless indented.

    Half a surrogate pair (a cut emoji) is legal in a string and in JSON, and not in UTF-8: it is written as an escape.
    """
    text = json.dumps(obj, ensure_ascii=False, allow_nan=False, indent=indent)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def write_jsonl(path: Path, objects: Iterable[dict[str, Any]]) -> int:
    """Write one object a line and return how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for obj in objects:
            out.write(dump(obj) + "\n")
            count += 1
    return count


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    return write_jsonl(path, (row.to_json() for row in rows))


def write_json(path: Path, obj: Any) -> None:
    """Write a document meant to be read by people too."""
    path.write_text(dump(obj, indent=2) + "\n", encoding="utf-8", newline="\n")


def read_json(path: Path) -> Any:
    """Read a whole file. Raises DataError with file:line:column where it is not strict JSON."""
    try:
        return _strict.decode(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise DataError(f"not valid JSON: {_reason(error)}", where=f"{path}:{line}:{_column(error)}") from error
