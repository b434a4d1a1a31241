"""How much rows look alike in form, as generated and template-made ones do: a sign for the whole set, never for a row.

Measured on samples of 250 rows and their first 40 words, which is what the limits were set on (bench/realness.py prints
the table for real sets). A set of real questions can be pattern-like, too: it is a reason to look, never to delete.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.prepare.corpus import Corpus, Side
from tunesmith.prepare.finding import Axis, Part, ramp

SAMPLE, SAMPLES, LEAST = 250, 8, 40  # rows; samples at most; rows below which nothing is said
FIRST, BUDGET = 40, 4000  # words of a row; words of a sample that are compressed or counted
OPENER, SKELETON, COMMON, SHOWN = 2, 6, 60, 2  # words; words; commonest words that a skeleton shows; at least
HEAVY = 0.01  # share of the rows from which a skeleton counts
LABEL_WORDS, LABEL_SHARE = 5, 0.1  # answers this short (median) and with so few distinct ones are labels
CROSSED = 2  # limits that a side must cross to be called pattern-like


@dataclass(frozen=True)
class Limit:
    """From `limit` on to `worst` a measure looks like a pattern; `worst` scores 0."""

    measure: str
    limit: float
    worst: float
    explanation: str

    def crossed(self, value: float) -> bool:
        return value < self.limit if self.worst < self.limit else value > self.limit


LIMITS = (
    Limit(
        "opener_entropy", 0.70, 0.35, "entropy of the first two words / ln(rows): 1 where every row begins otherwise"
    ),
    Limit("top_opener", 0.11, 0.3, "share of the rows that begin with the commonest two words"),
    Limit(
        "skeletons",
        0.18,
        0.45,
        "share of the rows in skeletons (first 6 words, all but the 60 commonest masked) of 1 % of the rows or more",
    ),
    Limit("zlib", 0.36, 0.25, "compressed size / size"),
)


@dataclass(frozen=True)
class Pattern:
    """One side of a set: its measures by name, its commonest openers and skeletons with their rows."""

    side: str
    rows: int
    values: dict[str, float]
    openers: list[tuple[str, int]]
    skeletons: list[tuple[str, int]]

    @property
    def crossed(self) -> list[str]:
        return [limit.measure for limit in LIMITS if limit.crossed(self.values[limit.measure])]

    @property
    def pattern_like(self) -> bool:
        return len(self.crossed) >= CROSSED


def realness(corpus: Corpus) -> Axis:
    """Measures of both sides and of where the rows came from."""
    measured = patterns(corpus)
    real = sum(row.meta.origin in ("human", "edited") for row in corpus.rows) / max(1, len(corpus.rows))
    told = f"{real:.1%} of the rows have the origin human or edited"
    parts = [Part("rows not marked as generated", 1, real, told)]
    for found in measured:
        for limit in LIMITS:
            value = found.values[limit.measure]
            told = f"{value:.3f}; from {limit.worst:g} (0) to the limit {limit.limit:g} (1)"
            name = f"{limit.measure} of the {found.side}s"
            parts.append(Part(name, 1, ramp(value, limit.worst, limit.limit), told))
    facts: dict[str, object] = {found.side: _facts(found) for found in measured}
    facts["not_measured"] = {side.name: why for side in corpus.sides if (why := _unfit(side))}
    facts["limits"] = {limit.measure: limit.limit for limit in LIMITS}
    facts["origins"] = dict(Counter(row.meta.origin for row in corpus.rows))
    return Axis("realness", tuple(parts) if measured else (), facts, tuple(_lines(corpus, measured)))


def patterns(corpus: Corpus) -> list[Pattern]:
    """The sides that can be measured."""
    return [measure(side, corpus.vocabulary) for side in corpus.sides if not _unfit(side)]


def _unfit(side: Side) -> str:
    """Why a side is not measured, or ''."""
    if len(side) < LEAST:
        return f"fewer than {LEAST} rows"
    if np.median(side.lengths) <= LABEL_WORDS and len(set(side.plain)) <= LABEL_SHARE * len(side):
        return f"{len(set(side.plain))} distinct {side.name}s, most of at most {LABEL_WORDS} words: labels"
    return ""


def measure(side: Side, vocabulary: list[str]) -> Pattern:
    """Means over the samples; openers and skeletons over all rows."""
    whole = [side.words(i, FIRST) for i in range(len(side))]
    taken = [_values([whole[i] for i in members], vocabulary) for members in samples(len(side))]
    values = {limit.measure: float(np.mean([v[limit.measure] for v in taken])) for limit in LIMITS}

    def text(key: tuple[int, ...]) -> str:
        return " ".join("_" if word < 0 else vocabulary[word] for word in key)

    openers = [(text(key), n) for key, n in _openers(whole).most_common(5)]
    skeletons = [(text(key), n) for key, n in _skeletons(whole).most_common(5) if n >= max(2, HEAVY * len(whole))]
    return Pattern(side.name, len(side), values, openers, skeletons)


def samples(rows: int) -> list[list[int]]:
    """Seeded samples without repetition; one of all where there are no more rows than a sample has."""
    if rows <= SAMPLE:
        return [list(range(rows))]
    order = np.random.default_rng(0).permutation(rows)
    return [sorted(order[k : k + SAMPLE].tolist()) for k in range(0, rows - SAMPLE + 1, SAMPLE)][:SAMPLES]


Texts = list[NDArray[np.int32]]


def _values(texts: Texts, vocabulary: list[str]) -> dict[str, float]:
    openers = np.array(list(_openers(texts).values())) / len(texts)
    heavy = sum(n for n in _skeletons(texts).values() if n >= max(2, HEAVY * len(texts)))
    return {
        "opener_entropy": float(-(openers * np.log(openers)).sum() / np.log(len(texts))),
        "top_opener": float(openers.max()),
        "skeletons": heavy / len(texts),
        "zlib": compressed(np.concatenate(texts)[:BUDGET].tolist(), vocabulary),
    }


def compressed(words: Sequence[int], vocabulary: list[str]) -> float:
    """Size of the words, compressed, over their plain size."""
    blob = " ".join(vocabulary[word] for word in words).encode("utf-8", "replace")
    return len(zlib.compress(blob, 9)) / max(1, len(blob))


def _openers(texts: Texts) -> Counter[tuple[int, ...]]:
    return Counter(tuple(text[:OPENER].tolist()) for text in texts)


def _skeletons(texts: Texts) -> Counter[tuple[int, ...]]:
    """First six words, with -1 for all but the commonest 60 of these texts; only those that show two words or more."""
    counts = Counter(np.concatenate(texts).tolist())
    common = {word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:COMMON]}
    made = (tuple(word if word in common else -1 for word in text[:SKELETON].tolist()) for text in texts)
    return Counter(skeleton for skeleton in made if sum(word >= 0 for word in skeleton) >= SHOWN)


def _facts(found: Pattern) -> dict[str, object]:
    values = {name: round(value, 3) for name, value in found.values.items()}
    return values | {
        "crossed": found.crossed,
        "pattern_like": found.pattern_like,
        "openers": [list(opener) for opener in found.openers],
        "skeletons": [list(skeleton) for skeleton in found.skeletons],
    }


def _lines(corpus: Corpus, measured: list[Pattern]) -> list[str]:
    lines = [f"{side.name}s: NOT RUN, {why}" for side in corpus.sides if (why := _unfit(side))]
    for found in measured:
        verdict = "pattern-like" if found.pattern_like else "not pattern-like"
        lines.append(f"{found.side}s are {verdict}: {len(found.crossed)} of {len(LIMITS)} limits crossed, 2 make it so")
        for limit in LIMITS:
            sign = "at least" if limit.worst < limit.limit else "at most"
            mark = " (crossed)" if limit.measure in found.crossed else ""
            value = found.values[limit.measure]
            lines.append(f"  {limit.measure} {value:.3f}, limit {sign} {limit.limit:g}{mark}: {limit.explanation}")
        shown = "; ".join(f"'{text}...' {n} ({n / found.rows:.1%})" for text, n in found.openers[:3])
        lines.append(f"  commonest openers: {shown}")
        if found.pattern_like and found.skeletons:
            shown = "; ".join(f"'{text}' {n}" for text, n in found.skeletons[:3])
            lines.append(f"  commonest skeletons: {shown}. Fix: collect real rows that are asked otherwise")
    return lines
