"""Rankings and agreement against published tables and statsmodels; what votes may and may not change."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.api import GLM, families
from statsmodels.stats.inter_rater import cohens_kappa

from tunesmith.metrics.rating import (
    POINTS,
    Vote,
    Winner,
    agreement,
    bradley_terry,
    cohen_kappa,
    elo,
    krippendorff,
)

# American League 1987, wins of the row over the column (Agresti, Categorical Data Analysis, table 10.10)
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
WINS = (
    (0, 7, 9, 7, 7, 9, 11),
    (6, 0, 7, 5, 11, 9, 9),
    (4, 6, 0, 7, 7, 8, 12),
    (6, 8, 6, 0, 6, 7, 10),
    (6, 2, 6, 7, 0, 7, 12),
    (4, 4, 5, 6, 6, 0, 6),
    (2, 4, 1, 3, 1, 7, 0),
)
STRENGTH = {"best": 1.2, "middle": 0.5, "worst": 0.0}


def games() -> list[Vote]:
    return [
        Vote(f"{a} {b} {n}", a, b, "a")
        for i, a in enumerate(TEAMS)
        for j, b in enumerate(TEAMS)
        for n in range(WINS[i][j])
    ]


def simulated(items: int, raters: int, seed: int, shared: float = 1.0) -> list[Vote]:
    """Each item has a taste of its own, which `shared` of its raters' votes follow and the others do not know."""
    rng = random.Random(seed)
    votes = []
    for item in range(items):
        a, b = rng.sample(sorted(STRENGTH), 2)
        taste = rng.random()
        for rater in range(raters):
            u = taste if rng.random() < shared else rng.random()
            winner: Winner = "a" if u < 1 / (1 + math.exp(STRENGTH[b] - STRENGTH[a])) else "b"
            votes.append(Vote(f"item {item}", a, b, winner, f"rater {rater}"))
    return votes


def clicks(votes: list[Vote], rater: str, seed: int = 0) -> list[Vote]:
    """A rater who looks at nothing."""
    rng = random.Random(seed)
    units = sorted({(v.item, v.a, v.b) for v in votes})
    return [Vote(*unit, rng.choice(("a", "b", "tie", "both_bad")), rater) for unit in units]


def test_ratings_are_those_of_the_published_table() -> None:
    found = {one.name: one.rating for one in bradley_terry(games()).models}
    published = dict(zip(TEAMS, (1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0.0), strict=True))
    for team, strength in published.items():
        assert (found[team] - found["Baltimore"]) / POINTS == pytest.approx(strength, abs=5e-4)
    assert list(found) == list(TEAMS)
    assert np.mean(list(found.values())) == pytest.approx(1000)


def test_ratings_with_ties_are_those_of_a_regression_on_half_wins() -> None:
    rng = random.Random(3)
    votes = [replace(v, winner="tie") if rng.random() < 0.3 else v for v in simulated(80, 1, 1)]
    names = sorted(STRENGTH)
    design = np.array([[(v.a == n) - (v.b == n) for n in names[1:]] for v in votes], float)
    won = np.array([{"a": 1.0, "b": 0.0}.get(v.winner, 0.5) for v in votes])
    wanted = GLM(won, design, family=families.Binomial()).fit().params
    found = {one.name: one.rating for one in bradley_terry(votes).models}
    assert [(found[n] - found[names[0]]) / POINTS for n in names[1:]] == pytest.approx(list(wanted), abs=1e-6)


def test_400_points_are_odds_of_ten_to_one() -> None:
    votes = [Vote(str(n), "x", "y", "a" if n < 10 else "b") for n in range(11)]
    first, second = bradley_terry(votes).models
    assert (first.name, first.rating - second.rating) == ("x", pytest.approx(400))


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_votes_changes_nothing(rng: random.Random) -> None:
    votes = simulated(15, 2, 4)
    shuffled = rng.sample(votes, len(votes))
    assert bradley_terry(shuffled) == bradley_terry(votes)
    assert agreement(shuffled) == agreement(votes)


def test_which_of_two_models_was_called_a_changes_nothing() -> None:
    votes = simulated(15, 2, 4)
    other: dict[str, Winner] = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad"}
    turned = [Vote(v.item, v.b, v.a, other[v.winner], v.rater) for v in votes]
    assert bradley_terry(turned) == bradley_terry(votes)
    assert agreement(turned) == agreement(votes)


def test_online_elo_depends_on_the_order_and_keeps_its_sum() -> None:
    votes = simulated(40, 1, 5)
    forth, back = elo(votes), elo(reversed(votes))
    assert forth != back
    assert sum(forth.values()) == pytest.approx(3000)
    assert elo([Vote("1", "x", "y", "a")]) == {"x": 1008.0, "y": 992.0}


def test_a_model_that_won_every_vote_has_a_finite_rating_and_it_is_said() -> None:
    few, many = (bradley_terry([Vote(str(n), "x", "y", "a") for n in range(count)]) for count in (3, 40))
    # with a tie added: 40.5 wins of 41
    assert many.models[0].rating - many.models[1].rating == pytest.approx(POINTS * math.log(40.5 / 0.5))
    assert not many.finite
    assert many.notes == ["a model won or lost every vote: a tie was added to each pair, or its rating had no end"]
    assert few.models[0].low < 1000 < many.models[0].low  # type: ignore[operator]


def test_models_that_were_never_compared_are_rated_apart_and_it_is_said() -> None:
    apart = [Vote(str(n), a, b, "ab"[n % 3 > 0]) for n in range(12) for a, b in (("x", "y"), ("u", "v"))]  # type: ignore[arg-type]
    found = bradley_terry(apart)
    assert found.groups == (("u", "v"), ("x", "y"))
    assert "never compared with one another" in found.notes[0]
    rated = {one.name: one.rating for one in found.models}
    assert (rated["x"] + rated["y"], rated["x"]) == (pytest.approx(2000), pytest.approx(rated["u"]))
    assert bradley_terry([*apart, Vote("bridge", "x", "u", "tie")]).groups == (("u", "v", "x", "y"),)


def test_both_bad_prefers_neither_and_is_counted_apart() -> None:
    votes = simulated(30, 1, 6)
    bad = [*votes, *(Vote(f"bad {n}", "best", "worst", "both_bad") for n in range(5))]
    tied = [*votes, *(Vote(f"bad {n}", "best", "worst", "tie") for n in range(5))]
    assert [one.rating for one in bradley_terry(bad).models] == [one.rating for one in bradley_terry(tied).models]
    assert {one.name: one.both_bad for one in bradley_terry(bad).models} == {"best": 5, "middle": 0, "worst": 5}


def test_one_item_has_no_interval_and_no_votes_no_ranking() -> None:
    (first, _) = bradley_terry([Vote("1", "x", "y", "a"), Vote("1", "x", "y", "tie")]).models
    assert (first.low, first.high) == (None, None)
    with pytest.raises(ValueError, match="no votes"):
        bradley_terry([])


def test_more_raters_of_the_same_items_do_not_make_the_interval_narrower() -> None:
    once = simulated(40, 1, 7)
    again = [*once, *(replace(vote, rater=f"copy {n}") for n in range(4) for vote in once)]
    for one, other in zip(bradley_terry(once).models, bradley_terry(again).models, strict=True):
        assert other.high - other.low >= one.high - one.low - 1e-6  # type: ignore[operator]


def test_the_intervals_hold_the_true_ratings() -> None:
    """150 simulated rounds of 40 items with 3 raters who mostly agree: 450 intervals, of which 95 % must hold."""
    mean = np.mean(list(STRENGTH.values()))
    held = 0
    for seed in range(150):
        for one in bradley_terry(simulated(40, 3, seed, shared=0.7)).models:
            true = 1000 + POINTS * (STRENGTH[one.name] - mean)
            held += one.low <= true <= one.high  # type: ignore[operator]
    assert 0.93 <= held / 450 <= 0.98


# Agreement


def test_krippendorffs_alpha_is_that_of_his_own_example() -> None:
    """Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, C: four observers, some values missing."""
    rows = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[value for value in unit if value != "."] for unit in zip(*rows, strict=True)]
    assert krippendorff(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_all_alike_is_one_and_of_one_value_is_unknown() -> None:
    assert krippendorff([["x", "x"], ["y", "y"]]) == 1.0
    assert krippendorff([["x", "x"], ["x", "x"]]) is None
    assert krippendorff([["x"], ["y"]]) is None


def test_cohens_kappa_by_hand_and_by_statsmodels() -> None:
    first, second = "y" * 25 + "n" * 25, "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)  # (0.7 - 0.5) / (1 - 0.5)
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    table = np.array([[((ours == i) & (theirs == j)).sum() for j in range(3)] for i in range(3)])
    assert cohen_kappa(ours.tolist(), theirs.tolist()) == pytest.approx(cohens_kappa(table).kappa)
    assert cohen_kappa("yy", "yy") is None
    with pytest.raises(ValueError, match="2 values of one rater, 1 of the other"):
        cohen_kappa("yy", "y")


def test_a_rater_who_clicks_at_random_lowers_agreement_and_stands_out() -> None:
    votes = simulated(60, 3, 8, shared=0.9)
    before, after = agreement(votes), agreement([*votes, *clicks(votes, "clicker")])
    assert before.alpha - after.alpha > 0.2  # type: ignore[operator]
    assert after.high < before.low  # type: ignore[operator]
    lowest, second = sorted(after.with_others.values())[:2]  # type: ignore[type-var]
    assert after.with_others["clicker"] == lowest < second - 0.2  # type: ignore[operator]


def test_a_random_rater_moves_ratings_towards_one_another_and_not_past() -> None:
    votes = simulated(60, 3, 8, shared=0.9)
    assert [one.name for one in bradley_terry([*votes, *clicks(votes, "clicker")]).models] == [
        one.name for one in bradley_terry(votes).models
    ]


def test_raters_who_all_prefer_one_model_agree_and_not_by_chance() -> None:
    votes = [Vote(str(n), "base", "tuned", "b", rater) for n in range(20) for rater in ("ann", "bob")]
    assert agreement(votes).alpha == 1.0
    mixed = [Vote(str(n), "base", "tuned", "a" if n < 4 else "b", "bob") for n in range(20)]
    found = agreement([vote for vote in votes if vote.rater == "ann"] + mixed)
    # 4 of 20 pairs unlike; by chance half of 40 values: 1 - (40 - 1) / 40 * 0.2 / 0.5
    assert found.alpha == pytest.approx(1 - 39 / 40 * 0.4)


def test_other_names_of_the_models_leave_the_agreement_as_it_is() -> None:
    votes = simulated(15, 3, 4, shared=0.9)
    names = dict(zip(STRENGTH, reversed(list(STRENGTH)), strict=True))
    renamed = [Vote(v.item, names[v.a], names[v.b], v.winner, v.rater) for v in votes]
    assert agreement(renamed).alpha == pytest.approx(agreement(votes).alpha)


def test_one_rater_alone_agrees_with_nobody() -> None:
    found = agreement(simulated(10, 1, 9))
    assert (found.alpha, found.low, found.n) == (None, None, 0)
    assert found.with_others == {"rater 0": None}


def test_a_rater_who_votes_again_counts_once() -> None:
    votes = simulated(20, 2, 10)
    again = [*votes, *votes[:7]]
    assert agreement(again) == agreement(votes)
