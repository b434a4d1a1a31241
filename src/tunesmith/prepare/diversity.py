"""How much the rows differ: words and word runs, compression, neighbours, topics, and histograms of their shape."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tunesmith.prepare.corpus import Corpus, Side
from tunesmith.prepare.finding import Axis, Part, ramp
from tunesmith.prepare.realness import BUDGET, FIRST, compressed, samples
from tunesmith.prepare.topics import Topic, evenness, topics

NEIGHBOUR = 0.7  # Jaccard of 4-grams
BINS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # words from which a bar of the histogram starts
SHOWN = 3  # places named for a thin topic


def diversity(corpus: Corpus) -> Axis:
    if not corpus.rows or not corpus.sides:
        return Axis("diversity", ())
    spread = {side.name: _spread(side, corpus.vocabulary) for side in corpus.sides}
    near = max(NEIGHBOUR, corpus.near_from)
    alone = 1 - len(neighbours(corpus, near)) / len(corpus.rows)
    found = topics(corpus)
    parts = [Part("rows without a near neighbour", 2, alone, f"no other question at a Jaccard of {near:g} or more")]
    for name, values in spread.items():
        told = f"{values['distinct_2']:.3f} of the first {values['words']:.0f} words' pairs; from 0.1 (0) to 0.6 (1)"
        parts.append(Part(f"distinct-2 of the {name}s", 1, ramp(values["distinct_2"], 0.1, 0.6), told))
        told = f"{values['zlib']:.3f} compressed / plain; from 0.1 (0) to 0.38 (1)"
        parts.append(Part(f"compression of the {name}s", 1, ramp(values["zlib"], 0.1, 0.38), told))
    if found:
        parts.append(Part("topic evenness", 1, evenness(found), f"entropy of {len(found)} topics' sizes / ln of them"))
    facts: dict[str, object] = {name: {k: round(v, 3) for k, v in values.items()} for name, values in spread.items()}
    facts["near_neighbour_share"] = round(1 - alone, 4)
    facts["topics"] = [{"name": t.name, "rows": len(t.rows), "thin": t.thin} for t in found]
    facts["words"] = {side.name: _histogram(side) for side in corpus.sides}
    turns = dict(sorted(Counter(_turns(len(row.messages)) for row in corpus.rows).items()))
    facts["messages"] = turns
    return Axis("diversity", tuple(parts), facts, tuple(_lines(corpus, found, turns)))


def neighbours(corpus: Corpus, least: float) -> set[int]:
    """Rows whose question another row asks too, or nearly: Jaccard of 4-grams >= `least`."""
    members = Counter(corpus.numbers)
    near = {number for number, n in members.items() if n > 1}
    for left, right, score in corpus.near:
        if score >= least and left in members and right in members:
            near |= {left, right}
    return {i for i, number in enumerate(corpus.numbers) if number in near}


def _spread(side: Side, vocabulary: list[str]) -> dict[str, float]:
    """Means over samples of 250 rows, their first 40 words, 4,000 words a sample."""
    taken = []
    for members in samples(len(side)):
        words = np.concatenate([side.words(i, FIRST) for i in members])[:BUDGET].tolist()
        values = {f"distinct_{n}": _distinct(words, n) for n in (1, 2, 3)}
        values["zlib"] = compressed(words, vocabulary)
        taken.append(values | {"words": float(len(words))})
    return {name: float(np.mean([values[name] for values in taken])) for name in taken[0]}


def _distinct(words: list[int], n: int) -> float:
    """Distinct n-grams over all n-grams (Li et al. 2016)."""
    grams = list(zip(*(words[k:] for k in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 0.0


def _histogram(side: Side) -> dict[str, int]:
    """Rows by their words: '16-31': 120. Powers of two."""
    counts = np.bincount(np.searchsorted(BINS, side.lengths, side="right"), minlength=len(BINS) + 1).tolist()
    names = ["0", "1", *(f"{a}-{2 * a - 1}" for a in BINS[1:-1]), f"{BINS[-1]}+"]
    return {name: n for name, n in zip(names, counts, strict=True) if n}


def _turns(messages: int) -> str:
    return str(messages) if messages < 10 else "10+"


def _lines(corpus: Corpus, found: list[Topic], turns: dict[str, int]) -> list[str]:
    lines = []
    for side in corpus.sides:
        bars = _histogram(side)
        lines.append(
            f"rows by the words of their {side.name}: " + ", ".join(f"{name}: {n}" for name, n in bars.items())
        )
    lines.append("rows by their messages: " + ", ".join(f"{n}: {rows}" for n, rows in turns.items()))
    if not found:
        return [*lines, "topics: NOT RUN, fewer than 60 rows"]
    lines.append("topics by shared words: " + "; ".join(f"{t.name} ({len(t.rows)})" for t in found if not t.thin))
    for topic in (t for t in found if t.thin):
        places = ", ".join(f"{corpus.rows[i].meta.source}:{corpus.rows[i].meta.line}" for i in topic.rows[:SHOWN])
        lines.append(f"thin topic: {topic.name} ({len(topic.rows)} rows, such as {places}). Fix: collect more of these")
    return lines
