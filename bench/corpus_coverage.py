"""How often do the 95 % intervals of scores that are no means over rows hold the true value? Simulated.

    python bench/corpus_coverage.py [REPEATS] [OUT.json]

A ratio of sums (length, recall), perplexity (e to such a ratio) and macro F1 of three labels, one of which is rare. The
truth is the score of 400,000 rows drawn in the same way. REPEATS (1,000, where not given) data sets are drawn of each
setting; 95 % then has a standard error of 0.7 points. Exits with 1 where 100 groups or more hold less than 93 %.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import card

from tunesmith.core.jsonl import write_json
from tunesmith.metrics.corpus import compare
from tunesmith.metrics.labels import confusion_counts, macro_f1

SHAPES = ((30, 1), (100, 1), (50, 4), (100, 4), (400, 1))  # groups, rows of each
LABELS = ("a", "b", "c")
Counts = list[tuple[float, ...]]


def sums(rng: np.random.Generator, groups: int, size: int) -> Counts:
    """(quantity, tokens): a quality that rows of a group share, times noise of their own, on lengths of 5 to 59."""
    quality, noise = np.repeat(rng.gamma(2, 0.5, groups), size), rng.gamma(4, 0.25, groups * size)
    lengths = rng.integers(5, 60, groups * size)
    return [(float(n * q * e), float(n)) for n, q, e in zip(lengths, quality, noise, strict=True)]


def labels(rng: np.random.Generator, groups: int, size: int) -> Counts:
    """Rows of a group have one label, of which 70 % are right, and the others anything."""
    wanted = np.repeat(rng.choice(3, groups, p=[0.6, 0.3, 0.1]), size)
    given = np.where(rng.random(len(wanted)) < 0.7, wanted, rng.integers(0, 3, len(wanted)))
    return [confusion_counts(LABELS[g], LABELS[w], LABELS) for g, w in zip(given, wanted, strict=True)]


def ratio(counts: Sequence[float]) -> float:
    return counts[0] / counts[1]


KINDS: dict[str, tuple[Callable[..., Counts], Callable[[Sequence[float]], float]]] = {
    "ratio of sums": (sums, ratio),
    "perplexity": (sums, lambda counts: math.exp(ratio(counts))),
    "macro F1": (labels, macro_f1),
}


def held(name: str, groups: int, size: int, repeats: int) -> float:
    """The share of the data sets whose interval holds the truth; one without an interval holds nothing."""
    draw, score = KINDS[name]
    rng = np.random.default_rng([groups, size])
    truth = score(np.sum(draw(rng, 400_000, 1), axis=0).tolist())
    names, hits = [f"g{n // size}" for n in range(groups * size)], 0
    for _ in range(repeats):
        rows = draw(rng, groups, size)
        mean = compare(rows, rows, names, score).base
        hits += mean.low is not None and mean.high is not None and mean.low <= truth <= mean.high
    return hits / repeats


def main(repeats: int = 1_000, out: Path = Path(__file__).parent / "out" / "corpus_coverage.json") -> None:
    rows: list[dict[str, Any]] = []
    for name in KINDS:
        for groups, size in SHAPES:
            share = held(name, groups, size, repeats)
            rows.append({"score": name, "groups": groups, "rows_of_each": size, "held": share})
            print(f"{name:<14} {groups:>4} groups of {size}: {share:.3f}", flush=True)
    out.parent.mkdir(exist_ok=True)
    write_json(out, {"repeats": repeats, "coverage": rows, "machine": card()})
    sys.exit(any(row["held"] < 0.93 for row in rows if row["groups"] >= 100))


if __name__ == "__main__":
    words = sys.argv[1:]
    main(*([int(words[0])] if words else []), *map(Path, words[1:]))
