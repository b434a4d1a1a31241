"""Which columns look like a prompt and its answer, where their names do not say so: only ever a suggestion."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import permutations
from statistics import mean
from typing import Any

ASKS = re.compile(r"\?\s*$|^(what|how|why|when|where|who|which|can|could|does|do|is|are|should)\b", re.IGNORECASE)
DATA = re.compile(r"^[\d\W_]*$|^https?://\S+$|^[0-9a-f-]{32,36}$", re.IGNORECASE)  # numbers, dates, links, ids
EXTRA = {"prompt": ("text", "title", "subject"), "completion": ("label", "category")}  # names that only suggest
NEVER = re.compile(r"(^|_)(id|meta|source|url|date|time)$")
MOST, LEAST = 3, 0.5


def guesses(rows: Sequence[dict[str, Any]], aliases: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Up to three (prompt, completion) pairs of columns, likeliest first, quoted for a shell; none where none is."""
    columns: dict[str, list[str]] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, str) and not NEVER.search(key):
                columns.setdefault(key, []).append(value.strip())
    asks, answers = {}, {}
    for key, values in columns.items():
        asking, saying = mean(bool(ASKS.search(v)) for v in values), mean(not DATA.search(v) for v in values)
        wordy = min(1.0, mean(len(v.split()) for v in values) / 5)
        asks[key] = (_named(key, aliases, "prompt") + asking) * saying
        answers[key] = (_named(key, aliases, "completion") + wordy) * saying - asking
    likely = {(a, b): asks[a] + answers[b] for a, b in permutations(columns, 2) if min(asks[a], answers[b]) >= LEAST}
    best = sorted(likely, key=lambda pair: -likely[pair])[:MOST]
    return [(shlex.quote(a), shlex.quote(b)) for a, b in best]


def _named(column: str, aliases: Mapping[str, Sequence[str]], slot: str) -> float:
    """How far a name speaks for a slot: a usual name, a word in it (never a part of a word), or nothing."""
    if column in aliases[slot]:
        return 1.5
    words = {form for word in column.split("_") for form in (word, word.removesuffix("s"))}
    return 1.0 if words & set(aliases[slot]) else 0.5 * bool(words & set(EXTRA[slot]))
