"""From votes on pairs to a ranking with intervals, and how far the voters agree.

The ranking is Bradley and Terry's (1952) on the scale of Elo: 400 points are odds of 10 to 1, and the mean is 1,000.
It does not depend on the order of the votes; online Elo does, and is for display alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.metrics.intervals import quantile

Array = NDArray[np.float64]
Winner = Literal["a", "b", "tie", "both_bad"]
POINTS = 400 / math.log(10)  # of a difference of 1 in log odds
MEAN = 1000.0
RESAMPLES = 1_000
STEP = 2.0  # the longest of Newton's, in log odds: from 0 the first ones overshoot
SIDES: Mapping[Hashable, Hashable] = {"first": "second", "second": "first"}  # of a pair, by name
_CELLS = 2_000_000  # numbers held at a time


@dataclass(frozen=True)
class Vote:
    """One person's (or judge's) choice between the answers of models `a` and `b` to an item."""

    item: str
    a: str
    b: str
    winner: Winner
    rater: str = ""


@dataclass(frozen=True)
class Rating:
    """`n`: votes on the model's answers, of which `both_bad` said that neither answer will do."""

    name: str
    rating: float
    low: float | None
    high: float | None
    n: int
    both_bad: int


@dataclass(frozen=True)
class Ranking:
    """Best first. `groups`: the sets of models that were compared with one another, one where all is well."""

    models: tuple[Rating, ...]
    groups: tuple[tuple[str, ...], ...]
    finite: bool

    @property
    def notes(self) -> list[str]:
        """What a reader must know before believing the ratings."""
        said = []
        if len(self.groups) > 1:
            sets = "; ".join(", ".join(group) for group in self.groups)
            said.append(f"never compared with one another, so their ratings are on scales of their own: {sets}")
        if not self.finite:
            said.append("a model won or lost every vote: a tie was added to each pair, or its rating had no end")
        return said


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha over items that several raters voted on: 1 all alike, 0 as by chance; with its interval.

    `with_others`: for each rater, the share of the others' votes on the same pairs that are the same.
    """

    alpha: float | None
    low: float | None
    high: float | None
    n: int
    with_others: Mapping[str, float | None]


def bradley_terry(votes: Sequence[Vote], seed: int = 0) -> Ranking:
    """Ratings by maximum likelihood, a tie as half a win for each; intervals from a bootstrap over items.

    "Both bad" prefers neither, so it counts as a tie here, and is told apart in each model's `both_bad`. Where no
    finite rating fits best (a model that won every vote), a tie is added to each pair that was compared: Jeffreys'
    prior for two models. Models that no chain of votes connects are rated apart. Raises ValueError on no votes.
    """
    if not votes:
        raise ValueError("no votes, no ranking")
    names = sorted({name for vote in votes for name in (vote.a, vote.b)})
    pairs, counts = _counts(votes, names)
    groups = _groups(len(names), pairs)
    whole = counts.sum(0)[None]
    finite = bool(_finite(whole, pairs, groups)[0])
    ratings = _fit(whole, pairs, groups)[0]
    low, high = _bounds(counts, pairs, groups, ratings, finite, seed)
    n = Counter(name for vote in votes for name in (vote.a, vote.b))
    bad = Counter(name for vote in votes for name in (vote.a, vote.b) if vote.winner == "both_bad")
    found = [Rating(name, _points(ratings[k]), low[k], high[k], n[name], bad[name]) for k, name in enumerate(names)]
    together = [tuple(name for k, name in enumerate(names) if groups[k] == g) for g in range(groups.max() + 1)]
    return Ranking(tuple(sorted(found, key=lambda one: (-one.rating, one.name))), tuple(together), finite)


def elo(votes: Iterable[Vote], k: float = 16.0) -> dict[str, float]:
    """Online Elo in the order of the votes: what a page shows while people vote. `k`: points that a vote can move."""
    ratings: dict[str, float] = {}
    for vote in votes:
        a, b = (ratings.setdefault(name, MEAN) for name in (vote.a, vote.b))
        expected = 1 / (1 + 10 ** ((b - a) / 400))
        moved = k * ({"a": 1.0, "b": 0.0}.get(vote.winner, 0.5) - expected)
        ratings[vote.a], ratings[vote.b] = a + moved, b - moved
    return ratings


def agreement(votes: Sequence[Vote], seed: int = 0) -> Agreement:
    """How far different raters say the same of the same pair; the interval is from a bootstrap over items.

    Which of two models comes first is no property of them, so each is as likely to be the winner by chance: otherwise
    raters who agree that one model is the better one would be said to agree by chance alone, and other names would give
    another alpha. Of a rater who voted on a pair more than once, the commonest vote counts.
    """
    units = _units(votes)
    shared = {unit: by for unit, by in units.items() if len(by) > 1}
    raters = sorted({vote.rater for vote in votes})
    others = {rater: _with_others(rater, shared.values()) for rater in raters}
    values = sorted({*SIDES, *(value for by in shared.values() for value in by.values())}, key=str)
    counts, index = _tallies(shared, values)
    if not len(counts):
        return Agreement(None, None, None, 0, others)
    turned = [values.index(SIDES.get(value, value)) for value in values]
    alpha = float(_alphas(counts, np.ones((1, len(counts))), turned)[0])
    if math.isnan(alpha):
        return Agreement(None, None, None, len(shared), others)
    items = int(index.max()) + 1
    if items < 2:
        return Agreement(alpha, None, None, len(shared), others)
    weights = np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=RESAMPLES)
    drawn = _alphas(counts, weights[:, index].astype(np.float64), turned)
    low, high = _quantiles(drawn[~np.isnan(drawn)], items)
    return Agreement(alpha, float(low), float(high), len(shared), others)


def krippendorff(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Alpha for nominal values, a sequence of values a unit (Krippendorff 2011).

    None where no unit has two values, or all values are the same: chance agreement is then certain.
    """
    shared: dict[Hashable, dict[str, Hashable]] = {
        n: {str(rater): value for rater, value in enumerate(values)} for n, values in enumerate(units)
    }
    several = {(str(unit), "", ""): by for unit, by in shared.items() if len(by) > 1}
    counts, _ = _tallies(several, sorted({value for by in several.values() for value in by.values()}, key=str))
    alpha = float(_alphas(counts, np.ones((1, len(counts))))[0]) if len(counts) else math.nan
    return None if math.isnan(alpha) else alpha


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two raters on the same items beyond chance (Cohen 1960). None where chance agreement is certain."""
    n = len(first)
    if n != len(second):
        raise ValueError(f"{n} values of one rater, {len(second)} of the other")
    ours, theirs = Counter(first), Counter(second)
    expected = sum(ours[value] * theirs[value] for value in ours)
    if not n or expected == n * n:
        return None
    same = sum(a == b for a, b in zip(first, second, strict=True))
    return (same * n - expected) / (n * n - expected)


# Bradley-Terry: counts are [draws, pairs, 2] wins of the first and of the second model of a pair


def _counts(votes: Sequence[Vote], names: Sequence[str]) -> tuple[NDArray[np.intp], Array]:
    """The pairs that were compared, (pairs, 2), and the wins by item, (items, pairs, 2)."""
    place = {name: k for k, name in enumerate(names)}
    pairs = sorted({tuple(sorted((place[v.a], place[v.b]))) for v in votes})
    items = {item: k for k, item in enumerate(sorted({vote.item for vote in votes}))}
    of_pair = {pair: k for k, pair in enumerate(pairs)}
    wins = np.zeros((len(items), len(pairs), 2))
    for vote in votes:
        i, j = place[vote.a], place[vote.b]
        cell = wins[items[vote.item], of_pair[tuple(sorted((i, j)))]]
        share = {"a": 1.0, "b": 0.0}.get(vote.winner, 0.5)
        cell += (share, 1 - share) if i < j else (1 - share, share)
    return np.array(pairs, np.intp), wins


def _groups(models: int, pairs: NDArray[np.intp]) -> NDArray[np.intp]:
    """The number of the connected group of each model."""
    group = np.arange(models)
    for i, j in pairs:
        group[group == group[j]] = group[i]
    return np.unique(group, return_inverse=True)[1].astype(np.intp)


def _finite(counts: Array, pairs: NDArray[np.intp], groups: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Of each draw, whether everybody in a group reaches everybody by a chain of wins (Ford 1957)."""
    reach = np.zeros((len(counts), len(groups), len(groups)), bool)
    reach[:, pairs[:, 0], pairs[:, 1]] = counts[:, :, 0] > 0
    reach[:, pairs[:, 1], pairs[:, 0]] = counts[:, :, 1] > 0
    reach |= np.eye(len(groups), dtype=bool)
    for _ in range(len(groups).bit_length()):
        reach = np.matmul(reach, reach)
    return np.asarray((reach | (groups[:, None] != groups)).all((1, 2)))


def _fit(counts: Array, pairs: NDArray[np.intp], groups: NDArray[np.intp]) -> Array:
    """Log odds of each draw, (draws, models), with mean 0 in each group; by Newton's method."""
    counts = counts + np.where(_finite(counts, pairs, groups), 0.0, 0.5)[:, None, None]
    scores = np.zeros((len(counts), len(groups)))
    for _ in range(200):
        slope, curve = _derivatives(scores, counts, pairs, groups)
        step = np.linalg.solve(curve, slope[..., None])[..., 0].astype(np.float64)
        longest = np.abs(step).max(1, keepdims=True)
        scores = scores + step * np.minimum(1.0, STEP / np.maximum(longest, 1e-300))
        if longest.max() < 1e-10:
            break
    same = (groups[:, None] == groups).astype(np.float64)
    return np.asarray(scores - scores @ (same / same.sum(0)), np.float64)


def _derivatives(
    scores: Array, counts: Array, pairs: NDArray[np.intp], groups: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Of the log likelihood: its slope and minus its curvature, which a constant for each group makes invertible."""
    models = np.eye(len(groups))
    ends = models[pairs[:, 0]] - models[pairs[:, 1]]
    n = counts.sum(2)
    share = 1 / (1 + np.exp(-scores @ ends.T))
    slope = (counts[:, :, 0] - n * share) @ ends
    curve = np.einsum("pk,dp,pl->dkl", ends, n * share * (1 - share), ends)
    return slope, curve + (groups[:, None] == groups)


def _bounds(
    counts: Array, pairs: NDArray[np.intp], groups: NDArray[np.intp], ratings: Array, finite: bool, seed: int
) -> tuple[list[float | None], list[float | None]]:
    """Of each model, in points; None from a single item."""
    items = len(counts)
    if items < 2:
        return [None] * len(ratings), [None] * len(ratings)
    if finite:
        flat = counts.reshape(items, -1)
        drawn = [_fit((w @ flat).reshape(-1, *counts.shape[1:]), pairs, groups) for w in _weights(items, seed)]
        low, high = _quantiles(np.concatenate(drawn), items)
    else:  # every draw of nothing but wins is nothing but wins: the curvature tells more than a bootstrap
        whole = counts.sum(0)[None]
        _, curve = _derivatives(ratings[None], whole + 0.5, pairs, groups)
        variance = np.diagonal(np.linalg.inv(curve[0])) - 1 / (groups[:, None] == groups).sum(0) ** 2
        half = quantile(math.inf) * np.sqrt(np.maximum(variance, 0) * max(1.0, whole.sum() / items))
        low, high = ratings - half, ratings + half
    return [_points(end) for end in low], [_points(end) for end in high]


def _weights(items: int, seed: int) -> Iterator[Array]:
    """RESAMPLES rows of how often each item is drawn, a block at a time."""
    rng = np.random.default_rng(seed)
    block = max(1, min(RESAMPLES, _CELLS // items))
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        yield rng.multinomial(items, np.full(items, 1 / items), size=rows).astype(np.float64)


def _quantiles(drawn: Array, items: int) -> tuple[Array, Array]:
    """The percentile interval, its tails moved out as far as t with items - 1 degrees of freedom lies beyond z.

    A bootstrap of few items is too narrow by just that (Hesterberg 2015, The American Statistician 69:371).
    """
    from scipy.special import ndtr

    tail = float(ndtr(-quantile(items - 1) * math.sqrt(items / (items - 1))))
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return low, high


def _points(score: float) -> float:
    return MEAN + POINTS * float(score)


# Agreement: a unit is (item, both models); a value is the model chosen, a tie or both bad


def _units(votes: Sequence[Vote]) -> dict[tuple[str, str, str], dict[str, Hashable]]:
    """Unit -> rater -> the value that the rater gave most often, the first by name of those."""
    given: dict[tuple[str, str, str], dict[str, Counter[str]]] = {}
    for vote in votes:
        first, second = sorted((vote.a, vote.b))
        chosen = {"a": vote.a, "b": vote.b}.get(vote.winner)
        value = "first" if chosen == first else "second" if chosen == second else vote.winner
        given.setdefault((vote.item, first, second), {}).setdefault(vote.rater, Counter())[value] += 1
    return {unit: {rater: _commonest(c) for rater, c in by.items()} for unit, by in sorted(given.items())}


def _commonest(values: Counter[str]) -> str:
    return min(values, key=lambda value: (-values[value], value))


def _with_others(rater: str, units: Iterable[Mapping[str, Hashable]]) -> float | None:
    """The share of the other raters' votes that are this one's."""
    same = [by[rater] == value for by in units if rater in by for other, value in by.items() if other != rater]
    return sum(same) / len(same) if same else None


def _tallies(
    units: Mapping[tuple[str, str, str], Mapping[str, Hashable]], values: Sequence[Hashable]
) -> tuple[Array, NDArray[np.intp]]:
    """How often each value was given to each unit, (units, values), and the number of each unit's item."""
    counts = np.array([[list(by.values()).count(value) for value in values] for by in units.values()], float)
    items = {item: k for k, item in enumerate(sorted({unit[0] for unit in units}))}
    return counts, np.array([items[unit[0]] for unit in units], np.intp)


def _alphas(counts: Array, weights: Array, turned: Sequence[int] | None = None) -> Array:
    """Alpha of each row of weights over the units; NaN where all values are the same.

    `turned`: the place that each value has where sides are changed; chance is then that of both ways round.
    """
    m = counts.sum(1)
    unlike = (m**2 - (counts**2).sum(1)) / (m - 1)
    totals = weights @ counts
    totals = totals if turned is None else (totals + totals[:, turned]) / 2
    n = totals.sum(1)
    chance = n**2 - (totals**2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - (n - 1) * (weights @ unlike) / np.where(chance > 0, chance, np.nan))
