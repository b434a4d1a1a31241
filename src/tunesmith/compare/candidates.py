"""Candidate tasks as people write them down: a JSON line an example, with its task's name or a file a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_jsonl

PROMPTS = ("prompt", "question", "instruction")
ANSWERS = ("completion", "answer", "output", "response", "reference")
GRADES = ("bad", "good", "better")
EXPECTED = '{"task": "...", "prompt": "...", "completion": "..."}, or "references": [...] and "grades": [...]'


@dataclass(frozen=True)
class Example:
    """What goes in, what might come out (several references: all of them right), and what graders said of that."""

    prompt: str
    references: tuple[str, ...] = ()
    grades: tuple[str, ...] = ()


def read_candidates(paths: Iterable[Path]) -> dict[str, list[Example]]:
    """Task -> its examples, in order. A folder gives all of its .jsonl files; a row without "task" its file's name.

    Raises DataError with file:line where a row is no example.
    """
    found: dict[str, list[Example]] = {}
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise DataError(f"{path} holds no candidate tasks", expected=f"JSON lines such as {EXPECTED}")
        for file in files:
            for number, row in enumerate(read_jsonl(file), 1):
                found.setdefault(str(row.get("task") or file.stem), []).append(_example(row, f"{file}:{number}"))
    return found


def _example(row: Mapping[str, Any], where: str) -> Example:
    prompt = "\n\n".join(filter(None, (_first(row, PROMPTS), _first(row, ("input",)))))
    one = _first(row, ANSWERS)
    references = _texts(row.get("references", [one] if one else []), where)
    grades = _texts(row.get("grades", []), where)
    if not prompt:
        raise DataError("a row without a prompt", where=where, expected=EXPECTED)
    if wrong := [grade for grade in grades if grade not in GRADES]:
        raise DataError(f"the grade {wrong[0]!r}", where=where, expected=f"one of {', '.join(GRADES)}")
    return Example(prompt, references, grades)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((value for name in names if isinstance(value := row.get(name), str) and value.strip()), "")


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError("references and grades are lists of texts", where=where, expected=EXPECTED)
    return tuple(item for item in value if item.strip())
