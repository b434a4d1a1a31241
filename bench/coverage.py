"""How often do the 95 % intervals hold the true value? Simulated, with a percentile bootstrap of the groups beside.

    python bench/coverage.py [REPEATS] [OUT.json]

A setting is a kind of score, a shape of the groups, and how many there are. Rows of a group are alike by a correlation
of normal variables that are then made into scores, so the true mean is known exactly. REPEATS (2,000, where not given)
data sets are drawn of each; 95 % then has a standard error of 0.5 points. Exits with 1 where an interval that had ten
groups that differ holds less than 92.5 %: two standard errors below 93.5 %.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from machine import card
from numpy.typing import NDArray
from scipy.special import ndtr

from tunesmith.core.jsonl import write_json
from tunesmith.metrics.intervals import interval

Array = NDArray[np.float64]
GROUPS = (10, 20, 50, 100, 200)
DRAWS = 999  # of the percentile bootstrap


class Kind(NamedTuple):
    """`scores` makes items of uniform numbers in 0..1; `lowest` is that of the scale (-1: a paired difference)."""

    name: str
    lowest: float
    mean: float
    scores: Callable[[Array], Array]


def steps(up: float, down: float) -> Callable[[Array], Array]:
    return lambda u: np.where(u < down, -1.0, np.where(u > 1 - up, 1.0, 0.0))


def ties(share: float) -> Callable[[Array], Array]:
    """Most rows do not differ; the others gain from -0.3 to 1."""
    return lambda u: np.where(u < 1 - share, 0.0, 1.3 * (u - 1 + share) / share - 0.3)


KINDS = (
    Kind("share 0.5", 0, 0.5, lambda u: (u < 0.5).astype(float)),
    Kind("share 0.9", 0, 0.9, lambda u: (u < 0.9).astype(float)),
    Kind("share 0.98", 0, 0.98, lambda u: (u < 0.98).astype(float)),
    Kind("binary pairs, 30 % / 20 %", -1, 0.1, steps(0.3, 0.2)),
    Kind("binary pairs, 10 % / 10 %", -1, 0.0, steps(0.1, 0.1)),
    Kind("binary pairs, 20 % / 5 %", -1, 0.15, steps(0.2, 0.05)),
    Kind("binary pairs, 5 % / 2 %", -1, 0.03, steps(0.05, 0.02)),
    Kind("scores, uniform", -1, 0.5, lambda u: u),
    Kind("scores, normal", -1, 0.0, lambda u: 0.2 * np.sqrt(2) * erfinv(2 * u - 1)),
    Kind("scores, skewed (u^4)", -1, 0.2, lambda u: u**4),
    Kind("scores, exponential", -1, 1.0, lambda u: -np.log1p(-u)),
    Kind("scores, 60 % ties", -1, 0.14, ties(0.4)),
    Kind("scores, 90 % ties", -1, 0.035, ties(0.1)),
)


def erfinv(x: Array) -> Array:
    from scipy.special import erfinv as inverse

    return np.asarray(inverse(np.clip(x, -1 + 1e-15, 1 - 1e-15)))


class Shape(NamedTuple):
    name: str
    correlation: float
    sizes: Callable[[np.random.Generator, int], NDArray[np.int64]]


def one_large(rng: np.random.Generator, groups: int) -> NDArray[np.int64]:
    sizes = rng.geometric(0.5, groups)
    sizes[0] = max(2, groups // 5)
    return sizes


SHAPES = (
    Shape("rows alone", 0.0, lambda rng, groups: np.ones(groups, np.int64)),
    Shape("threes, 0.3", 0.3, lambda rng, groups: np.full(groups, 3)),
    Shape("1 to ~15, 0.3", 0.3, lambda rng, groups: rng.geometric(1 / 3, groups)),
    Shape("1 to ~15, alike", 1.0, lambda rng, groups: rng.geometric(1 / 3, groups)),
    Shape("one with a tenth, 0.5", 0.5, one_large),
)


def draw(rng: np.random.Generator, kind: Kind, shape: Shape, groups: int) -> tuple[Array, NDArray[np.int64]]:
    index = np.repeat(np.arange(groups), shape.sizes(rng, groups))
    shared, own = rng.normal(size=groups)[index], rng.normal(size=len(index))
    latent = shape.correlation**0.5 * shared + (1 - shape.correlation) ** 0.5 * own
    return kind.scores(np.asarray(ndtr(latent))), index


def percentile(weights: Array, items: Array, index: NDArray[np.int64]) -> tuple[float, float]:
    """`weights`: how often each draw takes each group."""
    sums, sizes = np.bincount(index, weights=items), np.bincount(index)
    low, high = np.quantile((weights @ sums) / (weights @ sizes), [0.025, 0.975])
    return float(low), float(high)


def measure(kind: Kind, shape: Shape, groups: int, repeats: int, seed: int) -> dict[str, float | str]:
    """Shares (in %) of data sets whose interval holds the mean, misses to either side, and the groups that differ."""
    rng = np.random.default_rng([seed, groups])
    weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=DRAWS).astype(float)
    above = below = plain = differ = 0.0
    for _ in range(repeats):
        items, index = draw(rng, kind, shape, groups)
        low, high = interval(items, index, kind.lowest)
        assert low is not None
        assert high is not None
        above, below = above + (low > kind.mean + 1e-12), below + (high < kind.mean - 1e-12)
        start, end = percentile(weights, items, index)
        plain += start <= kind.mean + 1e-12 and kind.mean - 1e-12 <= end
        values, counts = np.unique(items, return_counts=True)
        differ += np.bincount(index, weights=items != values[counts.argmax()]).astype(bool).sum()
    shares = {"ours": repeats - above - below, "too_high": above, "too_low": below, "percentile_bootstrap": plain}
    told = {"scores": kind.name, "groups_are": shape.name, "groups": groups, "differ": differ / repeats}
    return {**told, **{name: 100 * count / repeats for name, count in shares.items()}}


def main(repeats: int, out: Path) -> int:
    print("| scores | groups are | groups | that differ | ours % | too high | too low | percentile bootstrap % |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    found = []
    for k, kind in enumerate(KINDS):
        for s, shape in enumerate(SHAPES):
            for groups in GROUPS:
                row = measure(kind, shape, groups, repeats, 100 * k + s)
                found.append(row)
                cells = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()]
                print("| " + " | ".join(cells) + " |", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"machine": card(), "repeats": repeats, "settings": found})
    return summarise(found)


def summarise(found: list[dict[str, float | str]]) -> int:
    """How many settings lie within 1.5 points, and which ones are too sure of themselves."""
    enough = [row for row in found if float(row["differ"]) >= 10]
    for name in ("ours", "percentile_bootstrap"):
        shares = [float(row[name]) for row in enough]
        within = sum(93.5 <= share <= 96.5 for share in shares)
        told = f"{within} of {len(shares)} settings with ten groups that differ within 1.5 points"
        print(f"{name}: {told}; lowest {min(shares):.1f}, highest {max(shares):.1f}, below 93.5: "
              f"{sum(share < 93.5 for share in shares)}")  # fmt: skip
    few = [float(row["ours"]) for row in found if float(row["differ"]) < 10]
    print(f"with fewer groups that differ, ours: lowest {min(few):.1f}, highest {max(few):.1f}")
    return int(any(float(row["ours"]) < 92.5 for row in enough))


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(int(given[0]) if given else 2000, Path(given[1] if given[1:] else "bench/out/coverage.json")))
