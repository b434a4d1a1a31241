"""95 % intervals of a mean over clusters that hold what they promise: `bench/coverage.py` measures it.

Which one is used depends on the items alone. Rows of a cluster rise and fall together, so everything rests on the
cluster-robust variance with the leverage correction CR2 and Satterthwaite degrees of freedom (Bell and McCaffrey 2002),
where the working model takes the correlation within clusters from the data (Imbens and Kolesar 2016).

- zeros and ones: Wilson's score interval (1927), widened by the design effect;
- paired differences of zeros and ones: Tango's score interval (1998), widened in the same way;
- nearly all items alike: Tango's too, each other item counted in parts of the largest step;
- everything else: a t interval after Hall's transformation (1992), which takes the skewness out;
- all items alike: the exact binomial bound over the clusters (Clopper and Pearson 1934).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.95
FEW = 10  # clusters that differ from all the others: with fewer, their own spread says too little of what is missing
Bounds = tuple[float, float]
NONE: tuple[None, None] = (None, None)


@dataclass(frozen=True)
class Clustered:
    """Sum, sum of squares and number of the items of each cluster, (clusters,) each."""

    sums: Array
    squares: Array
    sizes: Array

    @classmethod
    def of(cls, items: Array, index: NDArray[np.intp]) -> Clustered:
        """`index`: the cluster of each item, from 0 on."""
        sums, squares = (np.bincount(index, weights=v).astype(np.float64) for v in (items, items**2))
        return cls(sums, squares, np.bincount(index).astype(np.float64))

    @property
    def items(self) -> float:
        return float(self.sizes.sum())

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.items)

    @cached_property
    def spread(self) -> float:
        """The variance of an item around the mean."""
        return max(float(self.squares.sum() / self.items - self.mean**2), 0.0)

    @property
    def alone(self) -> bool:
        """Whether every cluster is one item."""
        return len(self.sizes) == self.items

    @cached_property
    def residuals(self) -> Array:
        return self.sums - self.sizes * self.mean

    @cached_property
    def correlation(self) -> float:
        """Of two items of one cluster, 0..1, estimated from the products of their residuals."""
        pairs = float((self.sizes * (self.sizes - 1)).sum())
        within = self.squares - 2 * self.mean * self.sums + self.sizes * self.mean**2
        products = float((self.residuals**2 - within).sum())
        return min(max(products / pairs / self.spread, 0.0), 1.0) if pairs and self.spread else 0.0

    @cached_property
    def variance(self) -> float:
        """Of the mean: CR2; never below that of independent items, since few clusters can cancel out by chance."""
        share = self.sizes / self.items
        robust = float((self.residuals**2 / (1 - share)).sum()) / self.items**2
        return max(robust, self.spread / self.items)

    @property
    def design_effect(self) -> float:
        """How many times the variance that independent items would have."""
        return self.variance * self.items / self.spread if self.spread else 1.0

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom: 2 E[v]^2 / Var[v] of the variance v, were the items normal with that correlation.

        v = sum of w_g e_g^2 with e = (I - h 1') s, cov(s) = diag(V): the covariance of e is diag(V) - h V' - V h' +
        T h h', T = sum of V. It is a diagonal and two vectors, so all traces are sums over the clusters.
        """
        h = self.sizes / self.items
        v = (1 - self.correlation) * self.sizes + self.correlation * self.sizes**2
        w, total = 1 / (1 - h), v.sum()
        trace = (w * (v - 2 * h * v + total * h * h)).sum()
        hh, hv, vv = (w * h * h).sum(), (w * h * v).sum(), (w * v * v).sum()
        corner = total * hh - hv
        crossed = corner**2 - 2 * (total * hv - vv) * hh + hv**2
        mixed = (w * w * v * h * (total * h - 2 * v)).sum()
        return float(trace**2 / (((w * v) ** 2).sum() + 2 * mixed + crossed))

    @property
    def skewness(self) -> float:
        """Of the sum of residuals, in units of its own spread: Hall's A / sqrt(n)."""
        squares = float((self.residuals**2).sum())
        return float((self.residuals**3).sum()) / squares**1.5 if squares else 0.0


def interval(items: Array, index: NDArray[np.intp], lowest: float) -> Bounds | tuple[None, None]:
    """Bounds of the mean of items in clusters `index`. Scores are taken to lie in [`lowest`, 1] where all of them do.

    None where there is one cluster, or nothing varies and the scale is not known.
    """
    found = Clustered.of(items, index)
    if len(found.sizes) < 2:
        return NONE
    if np.ptp(items) == 0:
        return _unvaried(float(items[0]), len(found.sizes), lowest)
    steps, counts = np.unique(items, return_counts=True)
    common = float(steps[counts.argmax()])
    differ = np.bincount(index, weights=items != common).astype(bool).sum()
    few = bool(differ < FEW and 2 * differ < len(found.sizes))
    if lowest == 0 and set(steps) <= {0.0, 1.0}:
        return wilson(found, few)
    if set(steps) <= {-1.0, 0.0, 1.0}:
        return _tango(items, found, few)
    if few:
        largest = max(1.0, float(np.abs(items - common).max()))
        moved = (items - common) / largest
        low, high = _tango(moved, Clustered.of(moved, index), few)
        low, high = common + largest * low, common + largest * high
    else:
        low, high = hall(found)
    bounded = items.min() >= lowest and items.max() <= 1
    return (max(low, lowest), min(high, 1.0)) if bounded else (low, high)


def hall(found: Clustered) -> Bounds:
    """mean - error * g^-1(+-t), g(T) = T + A T^2 / 3 + A^2 T^3 / 27 + A / 6 (Hall 1992, J. R. Stat. Soc. B 54)."""
    error, t, a = found.variance**0.5, quantile(found.freedom), found.skewness
    if abs(a) < 1e-6:
        return found.mean - t * error, found.mean + t * error
    low, high = (3 / a * (np.cbrt(1 + a * (y - a / 6)) - 1) for y in (-t, t))
    return float(found.mean - error * high), float(found.mean - error * low)


def wilson(found: Clustered, few: bool = False) -> Bounds:
    """The score interval of a share, with items / design effect in place of items."""
    z, n, p = _width(found, few), found.items, found.mean
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return max(centre - half, 0.0), min(centre + half, 1.0)


def tango(up: float, down: float, n: float, z: float) -> Bounds:
    """The score interval of (up - down) / n, where of n pairs `up` differ one way and `down` the other.

    Both ends solve |up - down - n d| = z sqrt(n (2 q + d (1 - d))), q the likeliest share of `down` at difference d.
    """
    return _end(up, down, n, z), -_end(down, up, n, z)


def _end(up: float, down: float, n: float, z: float) -> float:
    """The lower end, by bisection: 60 halvings of [-1, mean] are exact in double precision."""
    low, high = -1.0, (up - down) / n
    for _ in range(60):
        d = (low + high) / 2
        b = (2 * n - up + down) * d - up - down
        q = (max(b * b + 8 * n * down * d * (1 - d), 0.0) ** 0.5 - b) / (4 * n)
        inside = up - down - n * d <= z * max(n * (2 * q + d * (1 - d)), 0.0) ** 0.5
        low, high = (low, d) if inside else (d, high)
    return high


def _tango(items: Array, found: Clustered, few: bool) -> Bounds:
    """`items` in [-1, 1]; one of size s counts as s of a pair that differs."""
    up, down = float(items.clip(min=0).sum()), float(-items.clip(max=0).sum())
    return tango(up, down, found.items, _width(found, few))


def _width(found: Clustered, few: bool) -> float:
    """The normal quantile of items that stand alone, as published; else t, times the root of the design effect.

    From `few` clusters that differ no correlation can be estimated: their items are taken to be all alike then.
    """
    if found.alone:
        return quantile(np.inf)
    effect = max(found.design_effect, float((found.sizes**2).sum()) / found.items if few else 1.0)
    return quantile(found.freedom) * math.sqrt(effect)


def quantile(freedom: float, level: float = LEVEL) -> float:
    """Student's t that `level` of the distribution lies within."""
    from scipy.special import ndtri, stdtrit  # 0.3 s to load: not before there is something to count

    share = (1 + level) / 2
    return float(ndtri(share) if np.isinf(freedom) else stdtrit(freedom, share))


def _unvaried(value: float, clusters: int, lowest: float) -> Bounds | tuple[None, None]:
    """The interval when every item gave the same value, where a variance would claim certainty.

    After n equal clusters up to u = 1 - 0.025^(1/n) of all clusters may differ (Clopper-Pearson for 0 of n), at worst
    by as much as a score in [lowest, 1] can. None for a value outside it, such as a length ratio.
    """
    if not lowest <= value <= 1:
        return NONE
    u = 1 - ((1 - LEVEL) / 2) ** (1 / clusters)
    return value - u * (value - lowest), value + u * (1 - value)
