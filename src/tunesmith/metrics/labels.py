"""Answers with a form: "key: value" fields, and the constant answers that decline (guards)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from tunesmith.metrics.overlap import fold, normalise, words

SEPARATORS = (" | ", "; ")
GUARD_ROWS = 5  # a sentence that answers this many training questions word for word does not answer any of them
GUARD_WORDS = 4  # shorter constant answers are labels ("positive", "yes")


def fields(text: str) -> dict[str, str]:
    """The fields of a text of nothing but "key: value" lines, or of such pairs joined by " | " or "; "; else {}."""
    parsed = _pairs(text)
    return {} if any(p is None for p in parsed) else _first(parsed)


def given_fields(text: str) -> dict[str, str]:
    """The fields among whatever else a model wrote; of a key written twice the first counts."""
    return _first(_pairs(text))


def field_accuracy(prediction: str, reference: str) -> float | None:
    """The share of the reference's fields given with the same value (keys and values compared by `normalise`).

    None when the reference has no fields.
    """
    wanted = _normalised(fields(reference))
    given = _normalised(given_fields(prediction))
    return sum(given.get(key) == value for key, value in wanted.items()) / len(wanted) if wanted else None


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
