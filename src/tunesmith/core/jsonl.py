"""JSON lines: one JSON object a line, read as a stream, with file:line:column in every error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.records import Row


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the objects of a file that Tunesmith wrote. Raises DataError at the first line that is not one."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                obj = json.loads(line)
            except json.JSONDecodeError as error:
                where = f"{path}:{number}:{error.colno}"
                raise DataError(f"not valid JSON: {error.msg}", where=where, expected="one object a line") from error
            if not isinstance(obj, dict):
                raise DataError(f"a {type(obj).__name__}, not an object", where=f"{path}:{number}")
            yield obj


def read_rows(path: Path) -> Iterator[Row]:
    """Stream canonical rows. Raises DataError with file:line where a line is not one."""
    for number, obj in enumerate(read_jsonl(path), 1):
        try:
            yield Row.from_json(obj)
        except (KeyError, TypeError) as error:
            fix = "tunesmith collect FILE reads other shapes"
            raise DataError("not a canonical row", where=f"{path}:{number}", expected=str(error), fix=fix) from error


def dump(obj: Any) -> str:
    """One line of strict JSON: NaN and infinity are errors, because no other reader takes them."""
    return json.dumps(obj, ensure_ascii=False, allow_nan=False)


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
    text = json.dumps(obj, ensure_ascii=False, allow_nan=False, indent=2)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}:{error.colno}") from error
