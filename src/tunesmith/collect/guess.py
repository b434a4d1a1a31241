"""Which columns look like a prompt and its answer, where their names do not say so: only ever a suggestion."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

ASKS = re.compile(r"\?\s*$|^(what|how|why|when|where|who|which|can|could|does|do|is|are|should)\b", re.IGNORECASE)
DATA = re.compile(r"^[\d\W_]*$|^https?://\S+$|^[0-9a-f-]{32,36}$", re.IGNORECASE)  # numbers, dates, links, ids
EXTRA = {"prompt": ("text", "title", "subject"), "completion": ("label", "category")}  # names that only suggest
NEVER = re.compile(r"(^|_)(id|meta|source|url|date|time)$")
WRONG = re.compile(r"(^|_)(incorrect|wrong|rejected|bad|negative|worse|false)(_|$)")  # never suggested as the answer
MOST, LEAST = 3, 0.5


@dataclass
class Column:
    """Counts over the texts of a column: sums of integers, so that no order of rows changes what they say."""

    texts: int = 0
    asking: int = 0
    saying: int = 0
    words: int = 0

    def add(self, text: str) -> None:
        self.texts += 1
        self.asking += bool(ASKS.search(text))
        self.saying += not DATA.search(text)
        self.words += len(text.split())


def guesses(rows: Iterable[dict[str, Any]], aliases: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Up to three (prompt, completion) pairs of columns, likeliest first, quoted for a shell; none where none is."""
    columns: dict[str, Column] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, str) and not NEVER.search(key):
                columns.setdefault(key, Column()).add(value.strip())
    asks, answers = {}, {}
    for key, column in columns.items():
        asking, saying = column.asking / column.texts, column.saying / column.texts
        wordy = min(1.0, column.words / column.texts / 5)
        asks[key] = (_named(key, aliases, "prompt") + asking) * saying
        answers[key] = (_named(key, aliases, "completion") + wordy) * saying - asking - bool(WRONG.search(key)) * 9
    likely = {(a, b): asks[a] + answers[b] for a, b in permutations(columns, 2) if min(asks[a], answers[b]) >= LEAST}
    best = sorted(likely, key=lambda pair: (-likely[pair], pair))[:MOST]
    return [(shlex.quote(a), shlex.quote(b)) for a, b in best]


def _named(column: str, aliases: Mapping[str, Sequence[str]], slot: str) -> float:
    """How far a name speaks for a slot: a usual name, a word in it (never a part of a word), or nothing."""
    if column in aliases[slot]:
        return 1.5
    words = {form for word in column.split("_") for form in (word, word.removesuffix("s"))}
    return 1.0 if words & set(aliases[slot]) else 0.5 * bool(words & set(EXTRA[slot]))
