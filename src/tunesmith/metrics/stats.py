"""Did it get better? Paired differences with intervals, clustered by group.

Items of a group (near-duplicates, pages of one document) rise and fall together, so groups are counted, not items.
`docs/statistics.md` says which interval and which test is used when, and how well they keep their promise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.metrics.intervals import LEVEL as LEVEL
from tunesmith.metrics.intervals import Array, interval

RESAMPLES = 10_000
ENUMERATED = 12  # clusters that differ, up to which all 2^n sign patterns are gone through
LONGEST = 100_000  # of the distribution of an integer sum, up to which it is computed exactly
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
    """Two arms on the same items: their means, the difference tuned - base, its 95 % interval, p and its test."""

    n: int
    clusters: int
    base: float | None
    tuned: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    test: str | None = None


def paired(base: Sequence[float], tuned: Sequence[float], groups: Sequence[str], seed: int = 0) -> Paired:
    """Compare two arms item by item.

    The interval is that of `intervals.interval`; p is two-sided, from McNemar's exact test for zeros and ones without
    groups, else from the sign-flip test over groups (exact but for many groups of fractions, where `seed` draws 10,000
    patterns). One cluster has neither. Raises ValueError on unequal lengths.
    """
    if not len(base) == len(tuned) == len(groups):
        raise ValueError(f"{len(base)} base, {len(tuned)} tuned, {len(groups)} groups: one of each an item")
    if not len(base):
        return Paired(0, 0, None, None, None, None, None, None)
    before, after = np.asarray(base, float), np.asarray(tuned, float)
    difference, index = after - before, cluster_index(groups)
    sums = np.bincount(index, weights=difference).astype(np.float64)
    low, high = interval(difference, index, lowest=-1.0)
    p, test = sign_flip(sums, seed) if len(sums) > 1 else (None, None)
    if test and len(sums) == len(difference) and set(before) | set(after) <= {0.0, 1.0}:
        test = "exact McNemar"  # of which the sign-flip test of single items is another name
    means = float(before.mean()), float(after.mean()), float(difference.mean())
    return Paired(len(difference), len(sums), *means, low, high, p, test)


def mean_interval(values: Sequence[float], groups: Sequence[str]) -> Mean:
    """The mean of one arm with its interval."""
    if not len(values):
        return Mean(0, 0, None, None, None)
    items, index = np.asarray(values, float), cluster_index(groups)
    low, high = interval(items, index, lowest=0.0)
    return Mean(len(items), int(index.max()) + 1, float(items.mean()), low, high)


def verdict(result: Paired, higher_is_better: bool = True, p: float | None = None) -> Verdict:
    """Never more than the interval allows: it must leave out 0, and p (the result's own, or one adjusted by `holm`)
    must be below 0.05."""
    low, high, p = result.low, result.high, result.p if p is None else p
    if low is None or high is None or p is None or p >= 1 - LEVEL or low <= 0 <= high:
        return "cannot tell"
    return "better" if (low > 0) == higher_is_better else "worse"


def holm(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """The p values of a family of tests, adjusted (Holm 1979): below 0.05, the chance that any of them is a false alarm
    is below 0.05. One that was not run counts for nothing and stays None."""
    run = sorted((p, name) for name, p in values.items() if p is not None)
    out: dict[str, float | None] = dict.fromkeys(values)
    least = 0.0
    for rank, (p, name) in enumerate(run):
        out[name] = least = max(least, min(1.0, (len(run) - rank) * p))
    return out


def as_family(cells: Mapping[str, dict[str, Any]], names: Iterable[str]) -> None:
    """Adjust the named cells of a report (`p`, `verdict`) in place, as one family: `p_holm`, and no verdict that it
    does not bear. Of twenty figures one is below 0.05 by chance alone."""
    for name, p in holm({name: cells[name]["p"] for name in names}).items():
        sure = p is not None and p < 1 - LEVEL
        cells[name] |= {"p_holm": p, "verdict": cells[name]["verdict"] if sure else "cannot tell"}


def cluster_index(groups: Sequence[str]) -> NDArray[np.intp]:
    """The cluster of each item, numbered in order of first appearance. An item whose group is '' stands alone."""
    order: dict[object, int] = {}
    return np.array([order.setdefault(group or number, len(order)) for number, group in enumerate(groups)], np.intp)


def sign_flip(sums: Array, seed: int = 0) -> tuple[float, str]:
    """Two-sided p and the name of the test: were the arms alike, each cluster's sum could as well have the other sign.

    p is the share of sign patterns that give as large a total. Whole numbers (of single items: McNemar's test) and
    few clusters are counted out exactly; otherwise 10,000 patterns are drawn, the observed one counted in.
    """
    sums = np.abs(total := sums[sums != 0])
    observed = abs(float(total.sum())) - 1e-9 * (1 + float(sums.sum()))  # sums in another order round differently
    if (sums == np.rint(sums)).all() and sums.sum() <= LONGEST:
        return _exact(sums.astype(np.int64), observed), "exact sign-flip"
    if len(sums) <= ENUMERATED:
        patterns = 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1) - 1
        return float((np.abs(patterns @ sums) >= observed).mean()), "exact sign-flip"
    flipped = (2 * (draw @ sums) - sums.sum() for draw in _draws(2, len(sums), seed, np.int8))  # signs are 2 x 0/1 - 1
    larger = sum(int((np.abs(one) >= observed).sum()) for one in flipped)
    return (1 + larger) / (1 + RESAMPLES), "sign-flip permutation"


def _exact(sums: NDArray[np.int64], observed: float) -> float:
    """The share of patterns, from the distribution of the sum of those that stay positive: one binomial a size."""
    from scipy.special import gammaln

    shares = np.ones(1)
    for size, count in sorted(Counter(sums.tolist()).items()):
        positive = np.arange(count + 1)
        ways = gammaln(count + 1) - gammaln(positive + 1) - gammaln(count - positive + 1)
        steps = np.zeros(size * count + 1)
        steps[::size] = np.exp(ways - count * math.log(2))
        shares = np.convolve(shares, steps)
    totals = 2 * np.arange(len(shares)) - int(sums.sum())
    return min(1.0, float(shares[np.abs(totals) >= observed].sum()))


def _draws(high: int, width: int, seed: int, kind: type[np.integer[Any]]) -> Iterator[NDArray[Any]]:
    """RESAMPLES rows of `width` integers below `high`, a block at a time."""
    rng = np.random.default_rng(seed)
    block = max(1, min(RESAMPLES, _CELLS // width))
    for start in range(0, RESAMPLES, block):
        yield rng.integers(0, high, size=(min(block, RESAMPLES - start), width), dtype=kind)


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed; 0 of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else 0
