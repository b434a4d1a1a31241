"""Rows that hold the questions of a benchmark: a score on it would be remembered, not earned.

A row overlaps an item where it holds one of its 12-word runs (Brown et al. 2020 used 13; datatrove uses 12), all of its
question when that is 8 to 11 words long, or when its own question is the item's and 5 words long or more. Both are
normalised first.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import DataError
from tunesmith.core.records import Row
from tunesmith.prepare.corpus import Corpus, Side
from tunesmith.text.similar import normalise

RUN = 12  # words
WHOLE = 8  # words of a question from which it is looked for inside a row
LEAST = 5  # words of a question from which it is compared at all: "Who are you?" is everybody's
EXPECTED = "ARC (.jsonl), HellaSwag (.jsonl or text of 6 lines an item), MMLU (.csv) or TruthfulQA (.csv)"


class Item(NamedTuple):
    """`number`: its place in the file, from 1 on."""

    number: int
    question: str


@dataclass(frozen=True)
class Leak:
    """What a file shares with the set: (row, item number) pairs, a row at most once. `short` items say too little."""

    file: str
    items: int
    short: int
    hits: tuple[tuple[Row, int], ...]


def read_benchmark(path: Path) -> list[Item]:
    """The questions of a benchmark's file, .gz and .bz2 included. Raises DataError where the format is not known."""
    if not path.is_file():
        raise DataError(f"{path} does not exist", expected="a benchmark's file", fix="benchmarks under [prepare]")
    data = path.read_bytes()
    try:
        data = (
            bz2.decompress(data) if data[:3] == b"BZh" else gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        )
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError("cannot be read as text", where=str(path), expected=EXPECTED) from error
    asked = _questions(text)
    if not asked:
        raise DataError("not a benchmark that is known", where=str(path), expected=EXPECTED)
    return [Item(number, question) for number, question in enumerate(asked, 1)]


def _questions(text: str) -> list[str]:
    if text.lstrip().startswith("{"):
        return _of_objects(text.splitlines())
    lines = text.splitlines()
    if len(lines) >= 6 and len(lines) % 6 == 0 and all(line.strip() in {"0", "1", "2", "3"} for line in lines[1::6]):
        return lines[::6]  # HellaSwag: context, label, four endings
    return _of_table(list(csv.reader(io.StringIO(text))))


def _of_objects(lines: Iterable[str]) -> list[str]:
    try:
        found = [_asked(json.loads(line)) for line in lines if line.strip()]
    except ValueError:
        return []
    return [question for question in found if question] if all(found) else []


def _asked(obj: dict[str, Any]) -> str:
    """ARC's question (a text, or an object with a stem), HellaSwag's context."""
    question = obj.get("question", obj.get("ctx", ""))
    question = question.get("stem", "") if isinstance(question, dict) else question
    return question if isinstance(question, str) else ""


def _of_table(rows: list[list[str]]) -> list[str]:
    head = [name.strip().lower() for name in rows[0]] if rows else []
    if "question" in head and len(rows) > 1:
        return [row[head.index("question")] for row in rows[1:] if len(row) == len(head)]
    plain = [row for row in rows if row]
    lettered = plain and all(len(row) == 6 and row[5].strip() in {"A", "B", "C", "D"} for row in plain)
    return [row[0] for row in plain] if lettered else []  # MMLU as it was published has no header


def leaks(corpus: Corpus, files: Sequence[tuple[str, list[Item]]]) -> list[Leak]:
    """What each file, by name, shares with the rows."""
    items = [(file, item, normalise(item.question)) for file, (_, found) in enumerate(files) for item in found]
    hits: list[dict[int, int]] = [{} for _ in files]  # row -> item number
    same: dict[str, list[int]] = {}
    for k, (_, _, plain) in enumerate(items):
        if len(plain.split()) >= LEAST:
            same.setdefault(plain, []).append(k)
    for row, plain in enumerate(corpus.asked.plain):
        for k in same.get(plain, ()):
            hits[items[k][0]].setdefault(row, items[k][1].number)
    runs = _runs(corpus, [plain for *_, plain in items])
    for n, wanted in runs.items():
        for side in corpus.sides:
            for row, k in _held(side, n, wanted):
                hits[items[k][0]].setdefault(row, items[k][1].number)
    short = Counter(file for file, _, plain in items if len(plain.split()) < LEAST)
    return [
        Leak(
            name,
            len(found),
            short[file],
            tuple((corpus.rows[row], number) for row, number in sorted(hits[file].items())),
        )
        for file, (name, found) in enumerate(files)
    ]


Runs = dict[tuple[int, ...], list[int]]  # words as numbers -> the items that hold them


def _runs(corpus: Corpus, questions: Sequence[str]) -> dict[int, Runs]:
    """By length: the word runs of the questions that could be in the corpus."""
    out: dict[int, Runs] = {}
    for k, question in enumerate(questions):
        words = [corpus.index.get(word, -1) for word in question.split()]
        n = min(RUN, len(words))
        if n < WHOLE:
            continue
        for start in range(len(words) - n + 1):
            run = tuple(words[start : start + n])
            if -1 not in run:
                out.setdefault(n, {}).setdefault(run, []).append(k)
    return out


def _held(side: Side, n: int, wanted: Runs) -> Iterator[tuple[int, int]]:
    """(row, item) for every wanted run in a text of the side. Hashes find them, the words confirm them."""
    if len(side.ids) < n:
        return
    keys = _hashes(np.array(list(wanted), dtype=np.int32))
    found = np.isin(_hashes(np.lib.stride_tricks.sliding_window_view(side.ids, n)), keys)
    found &= side.owner[: len(found)] == side.owner[n - 1 :]
    for place in np.flatnonzero(found).tolist():
        for item in wanted.get(tuple(side.ids[place : place + n].tolist()), ()):
            yield int(side.owner[place]), item


def _hashes(windows: NDArray[np.int32]) -> NDArray[np.uint64]:
    """One number a window."""
    out = np.zeros(len(windows), dtype=np.uint64)
    for column in range(windows.shape[1]):
        out = out * np.uint64(0x9E3779B97F4A7C15) + windows[:, column].astype(np.uint64)
    return out ^ (out >> np.uint64(31))
