"""The rows of a set as every measure of it needs them: texts, normalised texts, and words as numbers, made once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.records import Row
from tunesmith.text.similar import normalise

Near = Sequence[tuple[int, int, float]]  # two questions by number, and their Jaccard
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """One side of all rows: what is asked, or what is answered.

    The words of text i are ids[starts[i]:starts[i+1]], numbers into the corpus' vocabulary.
    """

    name: str
    raw: list[str]
    plain: list[str]
    ids: NDArray[np.int32]
    starts: Indices

    def __len__(self) -> int:
        return len(self.raw)

    @cached_property
    def lengths(self) -> Indices:
        """Words a text."""
        return np.diff(self.starts)

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """The text that each word stands in."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths)

    def words(self, i: int, most: int | None = None) -> NDArray[np.int32]:
        found = self.ids[self.starts[i] : self.starts[i + 1]]
        return found if most is None else found[:most]


@dataclass(frozen=True)
class Corpus:
    """`numbers` names the question of each row; `near` are pairs of those numbers with a Jaccard >= `near_from`."""

    rows: Sequence[Row]
    asked: Side
    answered: Side
    index: dict[str, int]
    numbers: Sequence[int]
    near: Near
    near_from: float

    @classmethod
    def of(
        cls, rows: Sequence[Row], numbers: Sequence[int] | None = None, near: Near = (), near_from: float = 0.7
    ) -> Corpus:
        """Without `numbers`, rows whose questions are equal once normalised have the same one."""
        index: defaultdict[str, int] = defaultdict(count().__next__)
        name = "text" if rows and rows[0].text else "question"
        asked = _side(name, [asks(row) for row in rows], index)
        answered = _side("answer", ["\n".join(answers(row)) for row in rows], index)
        if numbers is None:
            seen: dict[str, int] = {}
            numbers = [seen.setdefault(plain, len(seen)) for plain in asked.plain]
        return cls(rows, asked, answered, dict(index), numbers, near, near_from)

    @property
    def sides(self) -> list[Side]:
        """Those that have a word; raw text has no answers."""
        return [side for side in (self.asked, self.answered) if len(side.ids)]

    @cached_property
    def vocabulary(self) -> list[str]:
        return list(self.index)

    @cached_property
    def counts(self) -> Indices:
        """How often each word of the vocabulary occurs, on both sides."""
        size = len(self.index)
        return np.bincount(self.asked.ids, minlength=size) + np.bincount(self.answered.ids, minlength=size)


def asks(row: Row) -> str:
    """All that the user says; of a raw text, the text."""
    return row.text or "\n".join(m.content for m in row.messages if m.role == "user")


def answers(row: Row) -> list[str]:
    """All that is meant to be learnt as an answer. A rejected answer is not."""
    said = [m.content for m in row.messages if m.role == "assistant"]
    return said if row.chosen is None else [*said, row.chosen]


def turns(row: Row) -> Iterable[tuple[str, str]]:
    """Every answer with the user's message right before it."""
    said = [m for m in row.messages if m.role in ("user", "assistant")]
    for before, after in pairwise(said):
        if (before.role, after.role) == ("user", "assistant"):
            yield before.content, after.content
    if row.chosen is not None:
        yield row.question, row.chosen


def _side(name: str, raw: list[str], index: defaultdict[str, int]) -> Side:
    plain = [normalise(text) for text in raw]
    ids: list[int] = []
    starts = [0]
    for text in plain:
        ids.extend(map(index.__getitem__, text.split()))
        starts.append(len(ids))
    return Side(name, raw, plain, np.array(ids, dtype=np.int32), np.array(starts, dtype=np.int64))
