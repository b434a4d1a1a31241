"""Scores of a set of texts that are no mean over its items (corpus BLEU, perplexity, macro F1): base against tuned.

Each is a function of a sum of counts. What a cluster contributes is told by leaving it out (the pseudo-values of the
jackknife, Tukey 1958); their mean is the score, so the intervals and tests of means in `stats` hold for it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.metrics.stats import Mean, Paired, cluster_index, mean_interval, paired

Array = NDArray[np.float64]
Counts = Sequence[Sequence[float]]  # one sequence an item, all of one length
Score = Callable[[Sequence[float]], float]  # of a sum of counts


class Compared(NamedTuple):
    """The paired difference, and each arm's own score with its interval."""

    difference: Paired
    base: Mean
    tuned: Mean


def compare(base: Counts, tuned: Counts, groups: Sequence[str], score: Score, seed: int = 0) -> Compared:
    """Compare two arms by the counts of their items; an item whose group is '' stands alone.

    One cluster has neither interval nor p. Raises IndexError on no items.
    """
    before, after = (_contributions(arm, groups, score) for arm in (base, tuned))
    alone = [""] * len(before)
    means = [replace(mean_interval(values, alone), n=len(base)) for values in (before, after)]
    return Compared(replace(paired(before, after, alone, seed), n=len(base)), *means)


def _contributions(counts: Counts, groups: Sequence[str], score: Score) -> list[float]:
    """One value a cluster, their mean the score of the whole: k x the whole - (k - 1) x the whole without it."""
    index = cluster_index(groups)
    sums = np.zeros((int(index.max()) + 1, len(counts[0])))
    np.add.at(sums, index, np.asarray(counts, float))
    total, k = sums.sum(0), len(sums)
    whole = score(total.tolist())
    if k == 1:
        return [whole]
    values = np.array([k * whole - (k - 1) * score(rest) for rest in (total - sums).tolist()])
    return [float(value) for value in values - values.mean() + whole]  # without the jackknife's correction of bias
