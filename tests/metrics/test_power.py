"""Rows and detectable differences: against statsmodels, a published table, and the power that a simulation finds."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from tunesmith.metrics.power import Pilot, design_effect, rows_for_scores, rows_for_shares
from tunesmith.metrics.stats import paired


@pytest.mark.parametrize("effect", [0.1, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("power", [0.8, 0.9])
def test_rows_for_scores_are_those_of_the_exact_t_test(effect: float, power: float) -> None:
    wanted = TTestPower().solve_power(effect_size=effect, power=power, alpha=0.05)
    assert rows_for_scores(effect, 1.0, power=power) == pytest.approx(wanted, abs=1.01)


def test_rows_for_shares_by_hand() -> None:
    # (1.95996 sqrt 0.3 + 0.84162 sqrt 0.29)^2 / 0.01 = (1.07352 + 0.45322)^2 / 0.01 = 233.1
    assert rows_for_shares(0.1, 0.3) == 234
    assert rows_for_shares(-0.1, 0.3) == 234
    assert rows_for_shares(0.1, 0.3, design_effect=2.0) == 467


@pytest.mark.parametrize(("effect", "discordance"), [(0.0, 0.3), (0.4, 0.3), (0.1, 1.2)])
def test_an_effect_that_the_shares_cannot_have_is_refused(effect: float, discordance: float) -> None:
    with pytest.raises(ValueError, match="of the rows differ"):
        rows_for_shares(effect, discordance)
    with pytest.raises(ValueError, match="differences vary"):
        rows_for_scores(0.0, 1.0)


def test_the_design_effect_of_equal_clusters_is_the_textbooks() -> None:
    assert design_effect([5] * 10, 0.1) == pytest.approx(1.4)  # 1 + (m - 1) rho
    assert design_effect([1, 9], 0.1) == pytest.approx(1 + (82 / 10 - 1) * 0.1)


def test_a_pilot_says_what_its_rows_can_show_and_the_rows_needed_for_it_are_its_own() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 300).astype(float)
    flipped = np.where(rng.random(300) < 0.2, 1 - base, base)
    shares = Pilot.of(list(base), list(flipped), [""] * 300)
    scores = Pilot.of(list(base * 0.5), list(flipped * 0.7), [f"g{i // 5}" for i in range(300)])
    assert shares.discordance == pytest.approx(np.abs(base - flipped).mean())
    assert (shares.design_effect, scores.discordance) == (1.0, None)
    assert scores.design_effect >= 1
    for pilot in (shares, scores):
        detectable = pilot.detectable()
        assert detectable is not None
        assert pilot.rows_needed(detectable) == 300
        assert pilot.rows_needed(detectable / 2) > 4 * 290  # type: ignore[operator]


def test_copies_of_rows_raise_the_rows_needed_and_not_what_they_can_show() -> None:
    rng = np.random.default_rng(1)
    base, tuned = rng.random(80), rng.random(80)
    once = Pilot.of(list(base), list(tuned), [""] * 80)
    copies = Pilot.of(list(np.repeat(base, 3)), list(np.repeat(tuned, 3)), [f"g{i // 3}" for i in range(240)])
    assert copies.design_effect == pytest.approx(3, rel=0.02)
    assert copies.detectable() == pytest.approx(once.detectable(), rel=0.03)


def test_rows_without_spread_say_nothing() -> None:
    pilot = Pilot.of([0.5] * 10, [0.5] * 10, [""] * 10)
    assert pilot.detectable() is None
    assert pilot.rows_needed(0.1) is None
    with pytest.raises(ValueError, match="no pilot"):
        Pilot.of([], [], [])


@pytest.mark.parametrize("clusters", [1, 4])
def test_the_rows_asked_for_find_the_difference_four_times_in_five(clusters: int) -> None:
    """400 simulated comparisons of shares with 25 % discordance and a true gain of 0.1: the standard error is 2 %."""
    rng = np.random.default_rng(2)
    rows = rows_for_shares(0.1, 0.25, design_effect([clusters], 0.0))
    groups = [f"g{i // clusters}" for i in range(rows)]
    found = 0
    for _ in range(400):
        u = rng.random(rows)
        moved = np.where(u < 0.175, 1, np.where(u < 0.25, -1, 0))
        base = np.where(moved == 0, rng.integers(0, 2, rows), moved < 0)
        found += paired(list(base), list(base + moved), groups).p < 0.05  # type: ignore[operator]
    assert found / 400 == pytest.approx(0.8, abs=0.06)
