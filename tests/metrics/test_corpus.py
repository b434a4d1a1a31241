import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.metrics import corpus
from tunesmith.metrics.stats import verdict


def ratio(counts: list[float]) -> float:
    return counts[0] / counts[1] if counts[1] else 0.0


def test_the_score_is_of_the_sums_and_not_the_mean_of_scores() -> None:
    found = corpus.compare([(1, 1), (0, 9)], [(1, 1), (9, 9)], ["a", "b"], ratio).difference
    assert (found.base, found.tuned, found.difference) == (0.1, 1.0, pytest.approx(0.9))
    assert (found.n, found.clusters) == (2, 2)


def test_intervals_hold_the_score_and_p_tells_a_real_difference_from_none() -> None:
    rng = np.random.default_rng(0)
    base = [(int(rng.random() < 0.4), 1) for _ in range(80)]
    tuned = [(int(rng.random() < 0.8), 1) for _ in range(80)]
    names = [str(n) for n in range(80)]
    better = corpus.compare(base, tuned, names, ratio)
    assert verdict(better.difference) == "better"
    low, high = better.base
    assert low is not None
    assert high is not None
    assert low < ratio([sum(c) for c in zip(*base, strict=True)]) < high
    other = [(int(rng.random() < 0.4), 1) for _ in range(80)]
    assert verdict(corpus.compare(base, other, names, ratio).difference) == "cannot tell"


def test_the_interval_agrees_with_the_normal_one_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    values = rng.random(200)
    base, tuned = [(0.0, 1.0)] * 200, [(float(v), 1.0) for v in values]
    found = corpus.compare(base, tuned, [str(n) for n in range(200)], ratio).difference
    half = 1.96 * values.std() / np.sqrt(200)
    assert found.low == pytest.approx(values.mean() - half, abs=0.006)
    assert found.high == pytest.approx(values.mean() + half, abs=0.006)


def test_items_of_a_group_are_drawn_together() -> None:
    base = [(0, 1)] * 40
    tuned = [(n // 10 % 2, 1) for n in range(40)]  # four groups of ten, each of one mind
    alone = corpus.compare(base, tuned, [""] * 40, ratio).difference
    grouped = corpus.compare(base, tuned, [f"g{n // 10}" for n in range(40)], ratio).difference
    assert (alone.clusters, grouped.clusters) == (40, 4)
    assert verdict(alone) == "better"
    assert verdict(grouped) == "cannot tell"


def test_no_certainty_where_nothing_varies_or_there_is_one_cluster() -> None:
    same = corpus.compare([(0, 1)] * 5, [(1, 1)] * 5, [""] * 5, ratio)
    assert (same.difference.low, same.base, same.tuned) == (None, (None, None), (None, None))
    one = corpus.compare([(0, 1)] * 5, [(1, 1)] * 5, ["g"] * 5, ratio).difference
    assert (one.low, one.p, one.difference) == (None, None, 1.0)


def test_many_clusters_are_drawn_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = [(n % 3, 3) for n in range(30)], [(n % 2, 2) for n in range(30)]
    whole = corpus.compare(base, tuned, [""] * 30, ratio)
    monkeypatch.setattr(corpus, "CELLS", 700)
    assert corpus.compare(base, tuned, [""] * 30, ratio) == whole


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=2, max_size=12))
def test_an_arm_against_itself_differs_by_nothing(counts: list[tuple[int, int]]) -> None:
    found = corpus.compare(counts, counts, [""] * len(counts), ratio).difference
    assert found.difference == 0.0
    assert found.p == 1.0
    assert verdict(found) == "cannot tell"
