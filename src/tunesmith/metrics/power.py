"""How small a difference could these rows show, and how many rows would show a given one?

For the two-sided test at 0.05 of paired differences, by its normal approximation. Clusters count through the design
effect: how many times the variance of the mean is that of independent rows (Kish 1965).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.metrics.intervals import LEVEL, Clustered, quantile
from tunesmith.metrics.stats import cluster_index

POWER = 0.8  # the usual chance to find a difference that is there (Cohen 1988)


@dataclass(frozen=True)
class Pilot:
    """What measured rows tell of rows to come.

    `spread`: the standard deviation of an item's difference. `discordance`: for zeros and ones, the share of items on
    which the arms disagree; else None.
    """

    n: int
    clusters: int
    difference: float
    spread: float
    discordance: float | None
    design_effect: float

    @classmethod
    def of(cls, base: Sequence[float], tuned: Sequence[float], groups: Sequence[str]) -> Pilot:
        """Raises ValueError on no items."""
        before, after = np.asarray(base, float), np.asarray(tuned, float)
        if not len(before):
            raise ValueError("no items, no pilot")
        items = after - before
        found = Clustered.of(items, cluster_index(groups))
        binary = set(before) | set(after) <= {0.0, 1.0}
        several = 1 < len(found.sizes) < found.items
        effect = found.design_effect if several else 1.0
        discordance = float(np.abs(items).mean()) if binary else None
        return cls(len(items), len(found.sizes), found.mean, found.spread**0.5, discordance, effect)

    def rows_needed(self, effect: float, power: float = POWER) -> int | None:
        """Rows like these, in groups like these, that show a difference of `effect` with this power.

        None where the rows say nothing of it: no effect, one as large as a score can differ, or no spread was seen.
        """
        if not effect or not self.spread:
            return None
        if self.discordance is None:
            return rows_for_scores(effect, self.spread, self.design_effect, power)
        return rows_for_shares(effect, max(self.discordance, abs(effect)), self.design_effect, power)

    def detectable(self, power: float = POWER) -> float | None:
        """The least true difference that as many rows as these show with this power; None without spread."""
        if not self.spread:
            return None
        found, low, high = None, 0.0, 1.0 if self.discordance is not None else 100 * self.spread
        for _ in range(60):
            middle = (low + high) / 2
            needed = self.rows_needed(middle, power)
            if needed is not None and needed <= self.n:
                found = high = middle
            else:
                low = middle
        return found


def rows_for_shares(effect: float, discordance: float, design_effect: float = 1.0, power: float = POWER) -> int:
    """Rows for McNemar's test of zeros and ones (Connor 1987, Biometrics 43:207).

    n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2 with psi the share that differs. Raises ValueError unless
    0 < |effect| <= discordance <= 1.
    """
    if not 0 < abs(effect) <= discordance <= 1:
        raise ValueError(f"a difference of {effect:g} where {discordance:g} of the rows differ")
    z_a, z_b = _quantiles(power)
    n = ((z_a * math.sqrt(discordance) + z_b * math.sqrt(discordance - effect**2)) / effect) ** 2
    return math.ceil(n * design_effect)


def rows_for_scores(effect: float, spread: float, design_effect: float = 1.0, power: float = POWER) -> int:
    """Rows for a paired t test of scores whose differences have this standard deviation.

    n = (z_a + z_b)^2 (spread / effect)^2 + z_a^2 / 2, the last term for the t that stands in z's place (Guenther 1981).
    Raises ValueError unless both are above 0.
    """
    if not effect or spread <= 0:
        raise ValueError(f"a difference of {effect:g} where differences vary by {spread:g}")
    z_a, z_b = _quantiles(power)
    return math.ceil((((z_a + z_b) * spread / effect) ** 2 + z_a**2 / 2) * design_effect)


def design_effect(sizes: Sequence[int], correlation: float) -> float:
    """1 + ((1 + cv^2) mean - 1) correlation, of clusters of these sizes, cv = their standard deviation / mean.

    Eldridge, Ashby and Kerry 2006, Int. J. Epidemiol. 35:1292.
    """
    given = np.asarray(sizes, float)
    return float(1 + ((given**2).sum() / given.sum() - 1) * correlation)


def _quantiles(power: float) -> tuple[float, float]:
    """z of the test's level (two-sided) and of its power."""
    return quantile(math.inf, LEVEL), quantile(math.inf, 2 * power - 1)
