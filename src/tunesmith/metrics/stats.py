"""Did it get better? Paired differences with intervals, clustered by group.

Items of a group (near-duplicates, pages of one document) rise and fall together, so groups are drawn, not items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLES = 10_000
LEVEL = 0.95
_CELLS = 2_000_000  # random numbers drawn at a time: 16 MB

Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval; None where there is too little to say."""

    n: int
    clusters: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Paired:
    """Two arms on the same items: their means, the difference tuned - base, its 95 % interval, and p."""

    n: int
    clusters: int
    base: float | None
    tuned: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None


def paired(base: Sequence[float], tuned: Sequence[float], groups: Sequence[str], seed: int = 0) -> Paired:
    """Compare two arms item by item.

    The interval is the percentile interval of a cluster bootstrap (10,000 resamples); p is a two-sided sign-flip
    permutation test over clusters. One cluster has neither. Raises ValueError on unequal lengths.
    """
    if not len(base) == len(tuned) == len(groups):
        raise ValueError(f"{len(base)} base, {len(tuned)} tuned, {len(groups)} groups: one of each an item")
    if not len(base):
        return Paired(0, 0, None, None, None, None, None, None)
    difference = np.asarray(tuned, float) - np.asarray(base, float)
    sums, sizes = _clusters(difference, groups)
    low, high = _interval(difference, sums, sizes, seed, lowest=-1.0)
    p = _sign_flip(sums, seed) if len(sums) > 1 else None
    means = float(np.mean(base)), float(np.mean(tuned)), float(difference.mean())
    return Paired(len(difference), len(sums), *means, low, high, p)


def mean_interval(values: Sequence[float], groups: Sequence[str], seed: int = 0) -> Mean:
    """The mean of one arm and the percentile interval of its cluster bootstrap."""
    if not len(values):
        return Mean(0, 0, None, None, None)
    items = np.asarray(values, float)
    sums, sizes = _clusters(items, groups)
    low, high = _interval(items, sums, sizes, seed, lowest=0.0)
    return Mean(len(items), len(sums), float(items.mean()), low, high)


def verdict(result: Paired, higher_is_better: bool = True) -> Verdict:
    """Never more than the interval allows: it must leave out 0. p must agree: on few groups it is the safer."""
    low, high, p = result.low, result.high, result.p
    if low is None or high is None or p is None or p >= 1 - LEVEL or low <= 0 <= high:
        return "cannot tell"
    return "better" if (low > 0) == higher_is_better else "worse"


def _clusters(items: Array, groups: Sequence[str]) -> tuple[Array, Array]:
    """Sum and size of each cluster, in order of first appearance. An item whose group is '' stands alone."""
    order: dict[object, int] = {}
    index = np.array([order.setdefault(group or number, len(order)) for number, group in enumerate(groups)])
    return np.bincount(index, weights=items).astype(np.float64), np.bincount(index).astype(np.float64)


def _interval(
    items: Array, sums: Array, sizes: Array, seed: int, lowest: float
) -> tuple[float, float] | tuple[None, None]:
    if len(sums) < 2:
        return None, None
    if np.ptp(items) == 0:
        return _unvaried(float(items[0]), len(sums), lowest)
    draws = _draws(len(sums), len(sums), seed, np.int32)
    means = np.concatenate([sums[draw].sum(1) / sizes[draw].sum(1) for draw in draws])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _unvaried(value: float, clusters: int, lowest: float) -> tuple[float, float] | tuple[None, None]:
    """The interval when every item gave the same value, where a bootstrap would claim certainty.

    After n equal clusters up to u = 1 - 0.025^(1/n) of all clusters may differ (Clopper-Pearson for 0 of n), at worst
    by as much as a score in [lowest, 1] can. None for a value outside it, such as a length ratio.
    """
    if not lowest <= value <= 1:
        return None, None
    u = 1 - ((1 - LEVEL) / 2) ** (1 / clusters)
    return value - u * (value - lowest), value + u * (1 - value)


def _sign_flip(sums: Array, seed: int) -> float:
    """The share of random sign patterns over the clusters that give as large a sum, the observed one counted in."""
    observed = abs(sums.sum()) - 1e-9 * (1 + np.abs(sums).sum())  # sums in another order round differently
    flipped = (2 * (draw @ sums) - sums.sum() for draw in _draws(2, len(sums), seed, np.int8))  # signs are 2 x 0/1 - 1
    larger = sum(int((np.abs(one) >= observed).sum()) for one in flipped)
    return (1 + larger) / (1 + RESAMPLES)


def _draws(high: int, width: int, seed: int, kind: type[np.integer[Any]]) -> Iterator[NDArray[Any]]:
    """RESAMPLES rows of `width` integers below `high`, a block at a time."""
    rng = np.random.default_rng(seed)
    block = max(1, min(RESAMPLES, _CELLS // width))
    for start in range(0, RESAMPLES, block):
        yield rng.integers(0, high, size=(min(block, RESAMPLES - start), width), dtype=kind)


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed; 0 of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else 0
