import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tunesmith.metrics.stats import (
    Mean,
    Paired,
    as_family,
    holm,
    mean_interval,
    nearest_rank,
    paired,
    sign_flip,
    verdict,
)

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
    assert (gain.p, gain.test) == (pytest.approx(2 * 0.5**30), "exact McNemar")
    assert verdict(gain) == "better"
    assert verdict(loss) == "worse"
    assert verdict(gain, higher_is_better=False) == "worse"
    assert verdict(loss, higher_is_better=False) == "better"


def test_copies_of_an_item_do_not_make_the_interval_narrower() -> None:
    base, tuned = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0] * 2, [1.0, 1.0, 1.0, 0.0, 1.0, 0.0] * 2
    once = paired(base[:6], tuned[:6], list("abcdef"))
    twice = paired(base, tuned, list("abcdef") * 2)
    assert twice.low <= once.low < once.high <= twice.high  # type: ignore[operator]
    assert (twice.p, twice.n, twice.clusters) == (once.p, 12, 6)


def test_p_of_a_few_clusters_is_the_share_of_sign_patterns() -> None:
    # all three clusters up by the same: 2 of the 8 sign patterns are as extreme
    assert paired([0, 0, 0], [1, 1, 1], list("abc")).p == pytest.approx(0.25)
    assert paired([0, 0, 0], [0.3, 0.3, 0.3], list("abc")).p == pytest.approx(0.25)
    assert paired([0, 1, 0], [0, 1, 0], list("abc")).p == 1.0


@pytest.mark.parametrize(("up", "down"), [(0, 0), (1, 0), (9, 1), (150, 86), (7, 7), (3000, 2900)])
def test_mcnemars_p_is_that_of_statsmodels(up: int, down: int) -> None:
    base, tuned = [0.0] * up + [1.0] * (down + 5), [1.0] * up + [0.0] * down + [1.0] * 5
    found = paired(base, tuned, [""] * len(base))
    assert found.test == "exact McNemar"
    assert found.p == pytest.approx(mcnemar([[5, down], [up, 0]], exact=True).pvalue)


def test_mcnemars_p_of_a_published_table() -> None:
    """Prime minister's approval, 86 and 150 of 1,600 change (Agresti, Categorical Data Analysis, 10.1): z^2 = 17.36."""
    base, tuned = [0.0] * 86 + [1.0] * 150, [1.0] * 86 + [0.0] * 150
    p = paired(base + [0.0] * 1364, tuned + [0.0] * 1364, [""] * 1600).p
    assert p == pytest.approx(3.7e-5, abs=5e-6)  # chi2 of 17.36 with one degree of freedom has 3.1e-5


def test_the_sign_flip_test_is_scipys_permutation_test() -> None:
    sums = np.array([0.3, -0.1, 0.25, 0.4, 0.05, 0.6, -0.2, 0.15])
    wanted = permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(sums) == (pytest.approx(wanted.pvalue), "exact sign-flip")


def test_whole_sums_are_counted_out_as_all_patterns_are() -> None:
    sums = np.array([3.0, -1.0, 2.0, 0.0, 1.0, 2.0, -2.0, 5.0])
    exact, enumerated = sign_flip(sums), sign_flip(sums / 2 + 0.0)
    assert exact == (pytest.approx(enumerated[0]), "exact sign-flip")


def test_many_fractions_are_drawn_and_agree_with_the_exact_share() -> None:
    sums = np.array([1.0, -2.0, 3.0, 1.0, 1.0, -1.0, 2.0, 4.0, -3.0, 1.0, 2.0, 1.0, 3.0, -1.0, 2.0])
    drawn, name = sign_flip(sums * 0.1)
    assert name == "sign-flip permutation"
    assert drawn == pytest.approx(sign_flip(sums)[0], abs=0.01)


def test_a_family_loses_the_verdicts_that_it_does_not_bear() -> None:
    ps = {"f1": 0.01, "rouge1": 0.03, "empty": None, "other": 0.04}
    cells = {name: {"p": p, "verdict": "better"} for name, p in ps.items()}
    as_family(cells, ["f1", "rouge1", "empty"])
    assert [cell["verdict"] for cell in cells.values()] == ["better", "better", "cannot tell", "better"]
    assert [cell.get("p_holm") for cell in cells.values()] == [0.02, 0.03, None, None]
    as_family(cells, ps)
    assert [cell["verdict"] for cell in cells.values()] == ["better", "cannot tell", "cannot tell", "cannot tell"]


def test_holms_adjustment_is_that_of_statsmodels() -> None:
    given = {"f1": 0.01, "em": 0.04, "rouge": 0.03, "none": None, "acc": 0.005}
    run = [p for p in given.values() if p is not None]
    wanted = iter(multipletests(run, method="holm")[1])
    assert holm(given) == {name: None if p is None else pytest.approx(next(wanted)) for name, p in given.items()}
    assert holm({}) == {}


def test_a_verdict_goes_by_the_adjusted_p_where_it_is_given() -> None:
    result = Paired(100, 100, 0.5, 0.6, 0.1, 0.02, 0.18, 0.03)
    assert verdict(result) == "better"
    assert verdict(result, p=holm({"this": 0.03, "other": 0.2})["this"]) == "cannot tell"


def test_too_little_data_gives_no_interval_and_no_verdict() -> None:
    assert paired([], [], []) == Paired(0, 0, None, None, None, None, None, None)
    one = paired([0.0], [1.0], ["a"])
    assert one == Paired(1, 1, 0.0, 1.0, 1.0, None, None, None, None)
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
    base, tuned = list(np.linspace(0, 1, 30)), list(np.linspace(0.2, 1.0, 30) ** 2 + 0.1)
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
