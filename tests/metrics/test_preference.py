"""Win rates at equal lengths and people's votes helped by a judge: against known truths, by simulation and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.metrics.preference import Z, length_controlled, with_votes


def drawn(
    rng: np.random.Generator, n: int, intercept: float, slope: float, shift: float
) -> tuple[list[float], list[float]]:
    """Wins by the very model that is fitted, with answers of the second arm longer by `shift` standard deviations."""
    d = rng.normal(shift, 1.0, n)
    p = 1 / (1 + np.exp(-(intercept + slope * np.tanh(d / d.std()))))
    return (rng.random(n) < p).astype(float).tolist(), d.tolist()


def test_a_win_rate_that_is_all_length_comes_to_one_half_at_equal_lengths() -> None:
    wins, d = drawn(np.random.default_rng(0), 4000, 0.0, 2.0, 0.8)
    assert np.mean(wins) > 0.65
    fair = length_controlled(wins, d, [""] * len(wins))
    assert fair.value == pytest.approx(0.5, abs=0.04)
    assert fair.low is not None
    assert fair.high is not None
    assert fair.low < 0.5 < fair.high


def test_a_win_rate_that_has_nothing_to_do_with_length_stays() -> None:
    wins, d = drawn(np.random.default_rng(1), 4000, math.log(0.7 / 0.3), 0.0, 0.5)
    assert length_controlled(wins, d, [""] * len(wins)).value == pytest.approx(0.7, abs=0.04)


def test_its_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(2), 0
    for _ in range(400):
        wins, d = drawn(rng, 150, 0.4, 1.0, 0.5)
        fair = length_controlled(wins, d, [""] * 150)
        assert fair.low is not None
        assert fair.high is not None
        held += fair.low <= 1 / (1 + math.exp(-0.4)) <= fair.high
    assert 0.93 <= held / 400 <= 0.985


def test_its_interval_holds_with_clusters_of_equal_verdicts_too() -> None:
    rng, held = np.random.default_rng(3), 0
    groups = [f"g{n // 4}" for n in range(240)]
    for _ in range(300):
        wins, d = drawn(rng, 60, 0.4, 1.0, 0.5)
        fair = length_controlled(np.repeat(wins, 4).tolist(), np.repeat(d, 4).tolist(), groups)
        assert fair.low is not None
        assert fair.high is not None
        held += fair.low <= 1 / (1 + math.exp(-0.4)) <= fair.high
    assert held / 300 >= 0.92


def test_equal_lengths_give_the_win_rate_itself_and_few_items_give_nothing() -> None:
    fair = length_controlled([1.0] * 30 + [0.0] * 10, [0] * 40, [""] * 40)
    assert fair.value == pytest.approx(0.75, abs=0.01)  # a weak prior pulls it a little
    assert length_controlled([1.0], [3], [""]).value is None
    certain = length_controlled([1.0] * 5, [1, 2, 3, 4, 5], [""] * 5)
    assert certain.low is not None
    assert certain.low < 0.5  # five wins of longer answers prove nothing


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-50, 50)), min_size=2, max_size=40),
)
def test_turning_the_arms_round_turns_the_value_round(rows: list[tuple[float, int]]) -> None:
    wins, d = [win for win, _ in rows], [by for _, by in rows]
    one = length_controlled(wins, d, [""] * len(rows))
    other = length_controlled([1 - win for win in wins], [-by for by in d], [""] * len(rows))
    assert one.value == pytest.approx(1 - (other.value or 0), abs=1e-6)
    assert one.low == pytest.approx(1 - (other.high or 0), abs=1e-6)


def world(rng: np.random.Generator, voted: int, judged: int, right: float) -> tuple[dict[str, float], dict[str, float]]:
    """People prefer the second arm at 0.6; the judge says what they would at `right`, else the opposite."""
    people = (rng.random(judged) < 0.6).astype(float)
    says = np.where(rng.random(judged) < right, people, 1 - people)
    names = [f"i{n}" for n in range(judged)]
    return dict(zip(names[:voted], people[:voted].tolist(), strict=True)), dict(zip(names, says.tolist(), strict=True))


def test_a_good_judge_makes_the_interval_shorter_and_a_bad_one_makes_it_no_worse() -> None:
    rng = np.random.default_rng(4)
    good = with_votes(*world(rng, 100, 1000, 0.95))
    assert good.worth > 2
    assert good.weight > 0.5
    low, high = good.helped.low, good.helped.high
    assert low is not None
    assert high is not None
    assert high - low < 0.14 < 0.19 < (good.people.high or 0) - (good.people.low or 0)
    bad = with_votes(*world(rng, 100, 1000, 0.5))
    assert bad.worth == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("right", [0.95, 0.7, 0.5, 0.1])
def test_the_estimate_is_right_however_good_or_bad_the_judge_is(right: float) -> None:
    rng, held, values = np.random.default_rng(5), 0, []
    for _ in range(400):
        helped = with_votes(*world(rng, 120, 600, right)).helped
        assert helped.value is not None
        assert helped.low is not None
        assert helped.high is not None
        held += helped.low <= 0.6 <= helped.high
        values.append(helped.value)
    assert 0.92 <= held / 400 <= 0.98
    assert np.mean(values) == pytest.approx(0.6, abs=0.01)


def test_by_hand_without_a_judge_and_where_the_judge_has_seen_nothing_more() -> None:
    votes = {"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0}
    alone = with_votes(votes, {})
    assert alone.people == alone.helped
    assert alone.people.value == 0.75
    assert alone.people.low == pytest.approx(0.75 - Z * 0.5 / 2)
    assert with_votes(votes, dict(votes)).helped == alone.people
    assert with_votes({}, {"a": 1.0}).people.value is None
    assert with_votes({"a": 1.0}, {"a": 1.0}).people.low is None
