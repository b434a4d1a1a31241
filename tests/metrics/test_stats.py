import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.metrics.stats import Mean, Paired, mean_interval, nearest_rank, paired, verdict

ALONE = [""] * 100


def test_means_and_difference_are_over_items_and_groups_are_counted() -> None:
    result = paired([0, 0, 1, 1], [1, 1, 1, 0], ["a", "a", "b", "c"])
    assert (result.n, result.clusters) == (4, 3)
    assert (result.base, result.tuned, result.difference) == (0.5, 0.75, 0.25)


def test_a_clear_gain_is_better_and_its_mirror_is_worse() -> None:
    base, tuned = [0.0] * 40 + [1.0] * 60, [1.0] * 30 + [0.0] * 10 + [1.0] * 60
    gain = paired(base, tuned, ALONE)
    loss = paired(tuned, base, ALONE)
    # 30 of 100: a binomial share of 0.3 has a standard error of 0.0458, so 0.3 -+ 0.09
    assert (gain.low, gain.high) == (pytest.approx(0.21, abs=0.02), pytest.approx(0.39, abs=0.02))
    assert gain.p == pytest.approx(1 / 10_001)
    assert verdict(gain) == "better"
    assert verdict(loss) == "worse"
    assert verdict(gain, higher_is_better=False) == "worse"
    assert verdict(loss, higher_is_better=False) == "better"


def test_copies_of_an_item_do_not_make_the_interval_narrower() -> None:
    base, tuned = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0] * 2, [1.0, 1.0, 1.0, 0.0, 1.0, 0.0] * 2
    once = paired(base[:6], tuned[:6], list("abcdef"))
    twice = paired(base, tuned, list("abcdef") * 2)
    assert (twice.low, twice.high, twice.p) == (once.low, once.high, once.p)
    assert twice.n == 12


def test_p_of_a_few_clusters_is_the_share_of_sign_patterns() -> None:
    # all three clusters up by the same: 2 of the 8 sign patterns are as extreme
    assert paired([0, 0, 0], [1, 1, 1], list("abc")).p == pytest.approx(0.25, abs=0.02)
    assert paired([0, 1, 0], [0, 1, 0], list("abc")).p == 1.0


def test_too_little_data_gives_no_interval_and_no_verdict() -> None:
    assert paired([], [], []) == Paired(0, 0, None, None, None, None, None, None)
    one = paired([0.0], [1.0], ["a"])
    assert one == Paired(1, 1, 0.0, 1.0, 1.0, None, None, None)
    assert paired([0.0] * 9, [1.0] * 9, ["a"] * 9).low is None  # one cluster
    assert verdict(one) == verdict(paired([], [], [])) == "cannot tell"
    assert mean_interval([], []) == Mean(0, 0, None, None, None)
    assert mean_interval([1.0], ["a"]) == Mean(1, 1, 1.0, None, None)


def test_three_of_three_is_no_proof() -> None:
    assert verdict(paired([0, 0, 0], [1, 1, 1], list("abc"))) == "cannot tell"


def test_without_variation_the_interval_is_the_exact_binomial_one() -> None:
    # Clopper-Pearson for 10 of 10: 0.025 ** (1 / 10) = 0.6915
    mean = mean_interval([1.0] * 10, ALONE[:10])
    assert (mean.low, mean.high) == (pytest.approx(0.6915, abs=1e-4), 1.0)
    equal = paired([0.5] * 10, [0.5] * 10, ALONE[:10])
    assert (equal.low, equal.high) == (pytest.approx(-0.3085, abs=1e-4), pytest.approx(0.3085, abs=1e-4))
    assert mean_interval([3.0] * 10, ALONE[:10]).low is None  # not a score: no bound is known


def test_a_mean_has_a_bootstrap_interval() -> None:
    mean = mean_interval([1.0] * 50 + [0.0] * 50, ALONE)
    assert (mean.low, mean.high) == (pytest.approx(0.40, abs=0.02), pytest.approx(0.60, abs=0.02))


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    base, tuned = list(np.linspace(0, 1, 30)), list(np.linspace(0.2, 0.9, 30) ** 2)
    assert paired(base, tuned, ALONE[:30], seed=1) == paired(base, tuned, ALONE[:30], seed=1)
    assert paired(base, tuned, ALONE[:30], seed=1) != paired(base, tuned, ALONE[:30], seed=2)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="1 base, 2 tuned, 1 groups"):
        paired([1.0], [1.0, 0.0], ["a"])


def test_equal_arms_are_called_different_about_one_time_in_twenty() -> None:
    rng = np.random.default_rng(0)
    trials, wrong = 300, 0
    for trial in range(trials):
        sizes = rng.integers(1, 4, size=30)
        groups = [f"g{n}" for n, size in enumerate(sizes) for _ in range(size)]
        base, tuned = rng.random(len(groups)), rng.random(len(groups))
        wrong += verdict(paired(list(base), list(tuned), groups, trial)) != "cannot tell"
    assert 0.02 <= wrong / trials <= 0.08


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from("abcd")), min_size=1, max_size=12))
def test_the_interval_holds_the_difference_and_a_verdict_never_leaves_it(items: list[tuple[float, float, str]]) -> None:
    base, tuned, groups = (list(part) for part in zip(*items, strict=True))
    result = paired(base, tuned, groups)
    assert result.low is None or result.low - 1e-9 <= result.difference <= result.high + 1e-9
    if verdict(result) == "better":
        assert result.low > 0


def test_nearest_rank() -> None:
    assert nearest_rank([3, 1, 2, 4], 0.5) == 2
    assert nearest_rank([3, 1, 2, 4], 0.51) == 3
    assert nearest_rank(range(1, 101), 0.99) == 99
    assert nearest_rank([], 0.5) == 0
