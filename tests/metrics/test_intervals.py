"""Each interval against a published value or a second way to compute it, and that it holds what it promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import ndtr, ndtri
from statsmodels.api import OLS
from statsmodels.stats.proportion import proportion_confint

from tunesmith.metrics.intervals import Clustered, hall, interval, quantile, tango, wilson

Z = quantile(math.inf)


def clustered(items: list[float], index: list[int]) -> Clustered:
    return Clustered.of(np.array(items, float), np.array(index))


def alone(items: list[float]) -> Clustered:
    return clustered(items, list(range(len(items))))


def test_quantiles_are_those_of_the_tables() -> None:
    assert pytest.approx(1.959964, abs=1e-6) == Z
    assert quantile(10) == pytest.approx(stats.t.ppf(0.975, 10))
    assert quantile(3.5, 0.9) == pytest.approx(stats.t.ppf(0.95, 3.5))


def test_tangos_interval_is_the_published_one() -> None:
    """Airway reactivity of 21 children: 1 and 7 of them differ (Fagerland, Lydersen and Laake 2014)."""
    low, high = tango(1, 7, 21, Z)
    assert (low, high) == (pytest.approx(-0.517, abs=5e-4), pytest.approx(-0.026, abs=5e-4))


@pytest.mark.parametrize(("up", "down", "n"), [(1, 0, 44), (86, 150, 1600), (9, 2, 30), (3, 3, 12)])
def test_the_ends_of_tangos_interval_are_where_the_score_test_gives_5_percent(up: int, down: int, n: int) -> None:
    """The likeliest shares at a difference are found by a numerical search here, by a quadratic there."""
    for d in tango(up, down, n, Z):

        def loss(q: float, d: float = d) -> float:
            shares = np.array([q + d, q, 1 - 2 * q - d])
            return -float(np.dot([up, down, n - up - down], np.log(np.maximum(shares, 1e-300))))

        q = optimize.minimize_scalar(
            loss, bounds=(max(0.0, -d), (1 - d) / 2), method="bounded", options={"xatol": 1e-12}
        ).x
        score = (up - down - n * d) / (n * (2 * q + d - d * d)) ** 0.5
        assert abs(score) == pytest.approx(Z, abs=1e-4)


@pytest.mark.parametrize(("right", "n"), [(81, 263), (1, 20), (19, 20), (50, 100)])
def test_wilsons_interval_is_that_of_statsmodels(right: int, n: int) -> None:
    low, high = proportion_confint(right, n, method="wilson")
    assert wilson(alone([1.0] * right + [0.0] * (n - right))) == (pytest.approx(low), pytest.approx(high))


def test_wilsons_interval_of_81_of_263_is_the_published_one() -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I."""
    found = interval(np.array([1.0] * 81 + [0.0] * 182), np.arange(263), 0.0)
    assert found == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


def test_without_skewness_halls_interval_is_students() -> None:
    items = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0]
    low, high = stats.t.interval(0.95, 6, loc=1.0, scale=stats.sem(items))
    assert hall(alone(items)) == (pytest.approx(low), pytest.approx(high))


def test_halls_interval_undoes_the_transformation_that_it_is_named_for() -> None:
    items = alone([0.1, 0.2, 0.2, 0.4, 0.5, 0.9, 1.5, 3.0])
    a, error = items.skewness, items.variance**0.5
    t = quantile(items.freedom)
    for end, wanted in zip(hall(items), (t, -t), strict=True):
        moved = (items.mean - end) / error
        assert moved + a * moved**2 / 3 + a**2 * moved**3 / 27 + a / 6 == pytest.approx(wanted)
    # by hand: the third power of the residuals, over the second to 3/2
    e = np.array([0.1, 0.2, 0.2, 0.4, 0.5, 0.9, 1.5, 3.0]) - 0.85
    assert a == pytest.approx((e**3).sum() / (e**2).sum() ** 1.5)


def test_the_variance_is_statsmodels_cluster_robust_one_up_to_the_leverage() -> None:
    """CR0 of a regression on a constant; with equal clusters CR2 is CR0 x G / (G - 1), which is CR1 there."""
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(12), 4)
    items = rng.normal(size=48) + rng.normal(size=12)[index]
    options = {"groups": index, "use_correction": False}
    plain = OLS(items, np.ones(48)).fit(cov_type="cluster", cov_kwds=options).bse[0] ** 2
    found = Clustered.of(items, index)
    assert found.variance == pytest.approx(plain * 12 / 11)
    assert found.freedom == pytest.approx(11)  # equal clusters: G - 1, whatever the correlation


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_degrees_of_freedom_are_those_of_the_matrices_written_out(correlation: float) -> None:
    sizes = np.array([1, 2, 3, 9, 1, 4])
    n = sizes.sum()
    maker = np.zeros((6, n))
    maker[np.repeat(np.arange(6), sizes), np.arange(n)] = 1
    within = maker.T @ maker
    covariance = (1 - correlation) * np.eye(n) + correlation * within
    residual = np.eye(n) - np.ones((n, n)) / n
    weights = np.diag(1 / (1 - sizes / n))
    product = weights @ (maker @ residual @ covariance @ residual.T @ maker.T)
    wanted = np.trace(product) ** 2 / np.trace(product @ product)
    found = Clustered(np.zeros(6), np.zeros(6), sizes.astype(float))
    object.__setattr__(found, "correlation", correlation)  # cached_property keeps its value in the instance
    assert found.freedom == pytest.approx(wanted)


def test_the_correlation_within_clusters_is_found() -> None:
    rng = np.random.default_rng(1)
    index = np.repeat(np.arange(2000), 3)
    shared, own = rng.normal(size=2000)[index], rng.normal(size=6000)
    assert Clustered.of(0.6**0.5 * shared + 0.4**0.5 * own, index).correlation == pytest.approx(0.6, abs=0.04)
    assert Clustered.of(own, index).correlation < 0.04
    assert Clustered.of(shared, index).design_effect == pytest.approx(3, rel=0.01)


def test_clusters_that_cancel_out_by_chance_claim_no_certainty() -> None:
    found = interval(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0, 0, 1, 1]), -1.0)
    assert found[0] is not None
    assert found[0] < 0 < 1 - 1e-9 < found[1] + 0.5


def test_a_few_items_that_differ_count_as_if_they_differed_by_the_whole_scale() -> None:
    """Three of 60 scores rise by 0.2: what has not been seen may be larger."""
    few = interval(np.array([0.2] * 3 + [0.0] * 57), np.arange(60), -1.0)
    assert few == pytest.approx(tango(0.6, 0.0, 60, Z))
    many = interval(np.array([0.2] * 30 + [0.0] * 30), np.arange(60), -1.0)
    assert many == hall(alone([0.2] * 30 + [0.0] * 30))


def test_a_share_never_leaves_its_scale_and_another_figure_may() -> None:
    items = np.array([0.6, 0.7, 0.99, 1.0])
    _, high = interval(items, np.arange(4), 0.0)
    assert hall(alone(list(items)))[1] > 1 == high
    assert interval(10 * items, np.arange(4), 0.0) == pytest.approx([10 * end for end in hall(alone(list(items)))])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5)), min_size=1, max_size=20),
    st.sampled_from([0.0, 0.25, 1.0]),
)
def test_the_interval_holds_the_mean_and_turns_round_with_the_sign(
    given_items: list[tuple[float, int]], grid: float
) -> None:
    items = np.array([round(x / grid) * grid if grid else x for x, _ in given_items])
    _, index = np.unique([g for _, g in given_items], return_inverse=True)
    low, high = interval(items, index, -1.0)
    if low is None or high is None:
        assert index.max() == 0
        return
    assert -1 - 1e-9 <= low <= items.mean() + 1e-9
    assert items.mean() - 1e-9 <= high <= 1 + 1e-9
    _, counts = np.unique(items, return_counts=True)
    if (counts == counts.max()).sum() == 1:  # else which value is the common one is a matter of order
        back = interval(-items, index, -1.0)
        assert back == (pytest.approx(-high, abs=1e-6), pytest.approx(-low, abs=1e-6))


def coverage(scores: Callable[[Any], Any], mean: float, sizes: list[int], correlation: float) -> float:
    """The share of 1,500 simulated data sets whose interval holds the mean. `scores`: of uniform numbers in 0..1."""
    rng, index = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    held = 0
    for _ in range(1500):
        shared, own = rng.normal(size=len(sizes))[index], rng.normal(size=len(index))
        items = scores(ndtr(correlation**0.5 * shared + (1 - correlation) ** 0.5 * own))
        low, high = interval(items, index, -1.0)
        held += low <= mean <= high  # type: ignore[operator]
    return held / 1500


def pairs_of_shares(u: Any) -> Any:
    """The difference of two arms of zeros and ones: 5 % worse, 20 % better."""
    return np.where(u < 0.05, -1.0, np.where(u > 0.8, 1.0, 0.0))


UNEQUAL = [1, 1, 1, 2, 2, 3, 4, 5, 8, 13] * 5


@pytest.mark.parametrize(
    ("scores", "mean", "sizes", "correlation"),
    [
        pytest.param(pairs_of_shares, 0.15, [1] * 120, 0.0, id="binary pairs"),
        pytest.param(pairs_of_shares, 0.15, [3] * 60, 0.3, id="binary pairs in groups"),
        pytest.param(pairs_of_shares, 0.15, UNEQUAL, 0.3, id="binary pairs in unequal groups"),
        pytest.param(lambda u: u, 0.5, [1] * 40, 0.0, id="uniform scores"),
        pytest.param(lambda u: u**4, 0.2, [1] * 60, 0.0, id="skewed scores"),
        pytest.param(lambda u: u**4, 0.2, UNEQUAL, 0.3, id="skewed scores in unequal groups"),
        pytest.param(ndtri, 0.0, [4] * 10, 0.5, id="normal scores in ten groups"),
    ],
)
def test_the_interval_holds_the_mean_95_times_in_100_within_one_and_a_half(
    scores: Callable[[Any], Any], mean: float, sizes: list[int], correlation: float
) -> None:
    """1.5 points is 2.7 standard errors of 1,500 data sets; bench/coverage.py has the large table."""
    assert 0.935 <= coverage(scores, mean, sizes, correlation) <= 0.965
