"""What a judge's preferences amount to: a win rate at equal lengths, and people's votes with the judge as a help.

A preference is a number in 0..1: 1 where the second arm's answer is preferred, 0 where the first's is, 0.5 for a tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.metrics.stats import cluster_index

Array = NDArray[np.float64]
Z = 1.959963984540054  # standard errors on either side of a 95 % interval
PRIOR = 3.0  # standard deviation of both coefficients, in logits: weak, and finite where every preference is the same
STEPS, SMALLEST = 50, 1e-10  # of the fit: it converges in a handful


@dataclass(frozen=True)
class Estimate:
    """A value in 0..1 with its 95 % interval; None where there is too little to say."""

    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Helped:
    """People's mean preference alone, and with the judge as a control variate.

    `weight`: how far the judge is trusted (0: not at all). `worth`: how many times as many votes would have been
    needed for the same interval without the judge; 1 where it is no help.
    """

    people: Estimate
    helped: Estimate
    weight: float
    worth: float


def length_controlled(preference: Sequence[float], longer_by: Sequence[float], groups: Sequence[str]) -> Estimate:
    """The preference to expect at equal lengths, after AlpacaEval 2 (Dubois et al. 2024).

    A logistic regression of the preference on an intercept and tanh(d / sd(d)), where d is how much longer the second
    arm's answer is (any unit); the value is the intercept alone. Theirs also has a term for each prompt's difficulty,
    which needs many models. The variance is the larger of the model's own and the clustered sandwich's.
    """
    if len(preference) < 2:
        return Estimate(len(preference), None, None, None)
    y, d = np.asarray(preference, float), np.asarray(longer_by, float)
    spread = float(d.std())
    design = np.column_stack([np.ones_like(d), np.tanh(d / spread) if spread else np.zeros_like(d)])
    beta, p = _fit(design, y)
    bread = np.linalg.inv(_curvature(design, p))
    index = cluster_index(groups)
    pulls = np.column_stack([np.bincount(index, weights=column * (y - p)) for column in design.T])
    variance = max(bread[0, 0], (bread @ pulls.T @ pulls @ bread)[0, 0])
    half = Z * math.sqrt(variance)
    return Estimate(len(y), *(_sigmoid(float(beta[0]) + step) for step in (0.0, -half, half)))


def _fit(design: Array, y: Array) -> tuple[Array, Array]:
    """(coefficients, fitted values) of a penalised logistic regression, by Newton's method."""
    beta = np.zeros(design.shape[1])
    p = np.full(len(y), 0.5)
    for _ in range(STEPS):
        step = np.linalg.solve(_curvature(design, p), design.T @ (y - p) - beta / PRIOR**2)
        beta = beta + step
        p = 1 / (1 + np.exp(-design @ beta))
        if np.abs(step).max() < SMALLEST:
            break
    return beta, p


def _curvature(design: Array, p: Array) -> Array:
    return (design.T * (p * (1 - p))) @ design + np.eye(design.shape[1]) / PRIOR**2


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def with_votes(votes: Mapping[str, float], judged: Mapping[str, float]) -> Helped:
    """People's mean preference over all items, of which they voted on some and the judge on all.

    Prediction-powered inference with the best weight (Angelopoulos et al. 2023): the judge's mean over the other items,
    corrected by how far people and judge are apart where both spoke. The interval is valid however bad the judge is;
    a good one makes it shorter. `votes` and `judged`: item -> preference; every item with votes is judged too.
    """
    people = _mean(list(votes.values()))
    rest = [value for item, value in judged.items() if item not in votes]
    n, m = len(votes), len(rest)
    if n < 3 or m < 2 or not votes.keys() <= judged.keys():
        return Helped(people, people, 0.0, 1.0)
    h, f, g = (np.asarray(part, float) for part in (list(votes.values()), [judged[item] for item in votes], rest))
    spread = float(np.concatenate([f, g]).var(ddof=1))
    weight = float(np.cov(h, f)[0, 1] / (spread * (1 + n / m))) if spread else 0.0
    value = float((h - weight * f).mean() + weight * g.mean())
    variance = float((h - weight * f).var(ddof=1) / n + weight**2 * g.var(ddof=1) / m)
    alone = float(h.var(ddof=1) / n)
    if not 0 < variance < alone:
        return Helped(people, people, 0.0, 1.0)
    half = Z * math.sqrt(variance)
    return Helped(people, Estimate(n, value, value - half, value + half), weight, alone / variance)


def _mean(values: Sequence[float]) -> Estimate:
    if len(values) < 2:
        return Estimate(len(values), values[0] if values else None, None, None)
    mean, half = float(np.mean(values)), Z * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Estimate(len(values), mean, mean - half, mean + half)
