"""Answers with a form: fields ("key: value", or a JSON object), labels, and the constant answers that decline."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.metrics.overlap import fold, normalise, words
from tunesmith.metrics.schema import is_json, read_json

SEPARATORS = (" | ", "; ")
GUARD_ROWS = 5  # a sentence that answers this many training questions word for word does not answer any of them
GUARD_WORDS = 4  # shorter constant answers are labels ("positive", "yes")
LABELS = range(2, 51)  # distinct answers of a task of classification
LABEL_ROWS = 5  # answers for each of them on the average: a few short answers are not a set of labels yet


def fields(text: str) -> dict[str, str]:
    """The fields of a text that is nothing else; else {}.

    Either a JSON object (of an object inside, a.b; any other value as JSON), or "key: value" lines, or such pairs
    joined by " | " or "; ".
    """
    if text.lstrip().startswith("{") and is_json(text):
        return _json_fields(text.lstrip())
    parsed = _pairs(text)
    return {} if any(p is None for p in parsed) else _first(parsed)


def given_fields(text: str) -> dict[str, str]:
    """The fields among whatever else a model wrote; of a key written twice the first counts."""
    start = text.find("{")
    return (_json_fields(text[start:]) if start >= 0 else {}) or _first(_pairs(text))


def field_accuracy(prediction: str, reference: str) -> float | None:
    """The share of the reference's fields given with the same value (keys and values compared by `normalise`).

    None when the reference has no fields.
    """
    wanted = _normalised(fields(reference))
    given = _normalised(given_fields(prediction))
    return sum(given.get(key) == value for key, value in wanted.items()) / len(wanted) if wanted else None


def label_set(references: Sequence[str]) -> tuple[str, ...]:
    """The labels of a task of classification, normalised and sorted; () where the answers are none.

    They are where every answer has under four words, and there are few distinct ones for so many rows.
    """
    found = sorted({normalise(reference) for reference in references})
    few = len(found) in LABELS and len(references) >= LABEL_ROWS * len(found)
    return tuple(found) if few and all(0 < len(words(label)) < GUARD_WORDS for label in found) else ()


def label_of(text: str, labels: Collection[str]) -> str | None:
    """The label that a text is, with or without quotes; None where it says anything else too."""
    said = (normalise(text), normalise(text.strip().strip("\"'`*“”‘’")))
    return next((label for label in said if label in labels), None)


def confusion_counts(prediction: str, reference: str, labels: Sequence[str]) -> tuple[int, ...]:
    """One text's part of the confusion matrix, row by row: [label of the reference, label given or, last, none]."""
    wide = len(labels) + 1
    counts = [0] * (len(labels) * wide)
    wanted, given = label_of(reference, labels), label_of(prediction, labels)
    if wanted is not None:
        counts[labels.index(wanted) * wide + (labels.index(given) if given is not None else wide - 1)] = 1
    return tuple(counts)


def macro_f1(counts: Sequence[float]) -> float:
    """The mean of the labels' F1 over a summed confusion matrix; labels neither asked for nor given are left out."""
    matrix = confusion_matrix(counts)
    right = matrix[:, :-1].diagonal()
    asked_and_given = matrix.sum(1) + matrix[:, :-1].sum(0)
    there = asked_and_given > 0
    return float((2 * right[there] / asked_and_given[there]).mean()) if there.any() else 0.0


def confusion_matrix(counts: Sequence[float]) -> NDArray[np.int64]:
    """[labels, labels + 1] of the flat sum: n (n + 1) numbers for n labels."""
    flat = np.asarray(counts, dtype=np.int64)
    return flat.reshape(int(np.sqrt(len(flat))), -1)


def guard_answers(answers: Iterable[str], least: int = GUARD_ROWS) -> frozenset[str]:
    """The normalised answers that at least `least` training rows share word for word.

    Labels (answers under four words) and fields may well be shared by rows that they do answer: they are no guards.
    """
    counts = Counter(normalise(answer) for answer in answers)
    often = [answer for answer, n in counts.items() if n >= least]
    return frozenset(a for a in often if len(words(a)) >= GUARD_WORDS and not fields(a))


def guard_recall(prediction: str, reference: str, guards: Collection[str]) -> float | None:
    """1.0 when a question that should be declined was declined with a guard answer; None for any other question."""
    return float(normalise(prediction) in guards) if normalise(reference) in guards else None


def false_refusal(prediction: str, reference: str, guards: Collection[str]) -> float | None:
    """1.0 when a question that has an answer was declined; None for a question that should be."""
    return None if normalise(reference) in guards else float(normalise(prediction) in guards)


def _json_fields(text: str) -> dict[str, str]:
    """The fields of the JSON object that a text begins with; {} where it is none."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
        found = read_json(text[:end])
    except (ValueError, RecursionError):
        return {}
    return dict(_flat(found, "")) if isinstance(found, dict) else {}


def _flat(value: dict[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for key, part in value.items():
        if isinstance(part, dict) and part:
            yield from _flat(part, f"{above}{key}.")
        else:
            text = part if isinstance(part, str) else json.dumps(part, ensure_ascii=False, sort_keys=True)
            yield above + key, text


def _pairs(text: str) -> list[tuple[str, str] | None]:
    """One (key, value) a piece, None for a piece that is not one."""
    return [pair for line in text.splitlines() if line.strip() for pair in _line(line)]


def _line(line: str) -> list[tuple[str, str] | None]:
    line = line.strip(" \t|;")
    for separator in SEPARATORS:
        pieces = [_pair(piece) for piece in line.split(separator) if piece.strip()]
        if len(pieces) > 1 and all(pieces):  # otherwise the separator belongs to a value
            return pieces
    return [_pair(line)]


def _pair(piece: str) -> tuple[str, str] | None:
    """A key is one to four words, and a space or nothing follows its colon: not 10:30, not https://."""
    key, colon, value = piece.strip().partition(":")
    apart = bool(colon) and (not value or value[0].isspace())
    return (key.strip(), value.strip()) if apart and key[:1].isalpha() and len(key.split()) <= 4 else None


def _first(pairs: list[tuple[str, str] | None]) -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in filter(None, pairs):
        out.setdefault(key, value)
    return out


def _normalised(found: dict[str, str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in found.items():
        out.setdefault(" ".join(fold(key).split()), normalise(value))
    return out
