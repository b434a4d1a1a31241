"""The files of a benchmark, in the formats that they are published in, as its questions."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, UsageError
from tunesmith.evaluate.tasks import Question, Record, Task

EXPECTED = "ARC, HellaSwag, MMLU or TruthfulQA in a form that they are published in (docs/benchmarks.md)"
_OPENERS = {".bz2": bz2.decompress, ".gz": gzip.decompress}


def below(folder: Path) -> dict[str, Path]:
    """Every file at any depth, by its path in the folder. Raises UsageError where there is no such folder."""
    if not folder.is_dir():
        expected = "a folder that the files of benchmarks lie in"
        raise UsageError(f"{folder} is not a folder", expected=expected, fix="--data DIR, or --data hub to fetch them")
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def find(task: Task, files: Mapping[str, Path], part: str = "test") -> list[Path]:
    """Those of the files that are the task's by their names; none where there are none.

    Raises UsageError where there are several and it cannot be told which one is meant.
    """
    pattern = task.test if part == "test" else task.train
    found = {name: path for name, path in files.items() if pattern and re.search(pattern, name, re.IGNORECASE)}
    meant = {re.sub(r"-\d{5}-of-\d{5}|\w+(?=_(test|dev)\.csv)", "", name) for name in found}
    if len(meant) > 1:
        what = f"{task.name}: several files could be meant: {', '.join(list(found)[:4])}"
        raise UsageError(what, fix="--data with a folder that holds one of them")
    return list(found.values())


def read(task: Task, files: Sequence[Path]) -> list[Question]:
    """The questions of the files, in their order. Raises DataError with the place of one that cannot be read."""
    questions = []
    for path in files:
        for number, record in enumerate(records(path), 1):
            try:
                questions.append(task.question(record))
            except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
                what = f"not a question of {task.name}: {type(error).__name__}: {error}"
                raise DataError(what, where=f"{path}: question {number}", expected=EXPECTED) from error
    return questions


def records(path: Path) -> list[Record]:
    """What stands in a file, one mapping a question. Raises DataError where it is none of the known formats."""
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        raw = path.read_bytes()
        text = _OPENERS.get(path.suffix, bytes)(raw).decode("utf-8-sig")
        kind = path.with_suffix("").suffix if path.suffix in _OPENERS else path.suffix
        found = _csv(path, text) if kind == ".csv" else _six_lines(text) if kind == ".txt" else _json(text)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), expected=EXPECTED) from error
    if not found:
        raise DataError("no questions", where=str(path), expected=EXPECTED)
    return found


def _json(text: str) -> list[Record]:
    if text.lstrip().startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _csv(path: Path, text: str) -> list[Record]:
    """Rows by the names in the head; MMLU as it was published has none: question, A, B, C, D, letter."""
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    head = [name.strip() for name in rows[0]] if rows else []
    if "question" not in [name.lower() for name in head]:
        return [_mmlu(path, row[0], row[1:-1], row[-1]) for row in rows]
    named: list[dict[str, Any]] = [dict(zip(head, row, strict=True)) for row in rows[1:]]
    choices = [name for name in head if re.fullmatch(r"choice\w*|[A-D]", name)]
    return [_mmlu(path, r["question"], [r[c] for c in choices], r["answer"]) if choices else r for r in named]


def _mmlu(path: Path, question: str, choices: list[str], answer: str) -> Record:
    subject = re.sub(r"_(test|dev|val)$", "", path.stem)
    return {"question": question, "choices": choices, "answer": answer, "subject": subject}


def _six_lines(text: str) -> list[Record]:
    """HellaSwag as plain text: context, label, four endings, and the same again."""
    lines = text.rstrip("\n").split("\n")
    if len(lines) % 6:
        raise ValueError(f"{len(lines)} lines, which six do not divide")
    return [
        {"context": lines[at], "label": lines[at + 1], "endings": lines[at + 2 : at + 6]}
        for at in range(0, len(lines), 6)
    ]


def _parquet(path: Path) -> list[Record]:
    try:
        import duckdb
    except ImportError as error:
        fix = "pip install 'tunesmith[parquet]'"
        raise UsageError(f"{path} is Parquet, which needs duckdb", fix=fix) from error
    try:
        with duckdb.connect(":memory:") as database:
            found = database.execute("SELECT * FROM read_parquet($path)", {"path": str(path)})
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    except duckdb.Error as error:
        raise DataError(f"cannot be read: {error}", where=str(path), expected=EXPECTED) from error
