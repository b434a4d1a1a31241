import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.metrics.corpus import compare
from tunesmith.metrics.stats import mean_interval, paired, verdict


def ratio(counts: list[float]) -> float:
    return counts[0] / counts[1] if counts[1] else 0.0


def test_the_score_is_of_the_sums_and_not_the_mean_of_scores() -> None:
    found = compare([(1, 1), (0, 9)], [(1, 1), (9, 9)], ["a", "b"], ratio)
    assert (found.base.mean, found.tuned.mean) == (pytest.approx(0.1), pytest.approx(1.0))
    assert found.difference.difference == pytest.approx(0.9)
    assert (found.difference.n, found.difference.clusters, found.base.n) == (2, 2, 2)


def test_of_a_mean_it_gives_what_the_statistics_of_means_give() -> None:
    rng = np.random.default_rng(1)
    base, tuned = rng.random(60), rng.random(60) + 0.1
    alone = [""] * 60
    found = compare([(v, 1.0) for v in base], [(v, 1.0) for v in tuned], alone, ratio)
    plain = paired(base.tolist(), tuned.tolist(), alone)
    assert (found.difference.low, found.difference.high) == (pytest.approx(plain.low), pytest.approx(plain.high))
    assert found.difference.p == pytest.approx(plain.p, abs=0.01)
    assert found.base.low == pytest.approx(mean_interval(base.tolist(), alone).low)


def test_a_real_difference_is_told_from_none() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, size=80)
    counts = {p: [(float(rng.binomial(n, p)), float(n)) for n in lengths] for p in (0.4, 0.6)}
    again = [(float(rng.binomial(n, 0.4)), float(n)) for n in lengths]
    assert verdict(compare(counts[0.4], counts[0.6], [""] * 80, ratio).difference) == "better"
    assert verdict(compare(counts[0.6], counts[0.4], [""] * 80, ratio).difference) == "worse"
    assert verdict(compare(counts[0.4], again, [""] * 80, ratio).difference) == "cannot tell"


def test_items_of_a_group_count_together() -> None:
    base = [(0, 1)] * 40
    tuned = [(n // 10 % 2, 1) for n in range(40)]  # four groups of ten, each of one mind
    alone = compare(base, tuned, [""] * 40, ratio).difference
    grouped = compare(base, tuned, [f"g{n // 10}" for n in range(40)], ratio).difference
    assert (alone.n, alone.clusters, grouped.n, grouped.clusters) == (40, 40, 40, 4)
    assert (verdict(alone), verdict(grouped)) == ("better", "cannot tell")


def test_one_cluster_has_no_interval() -> None:
    one = compare([(0, 1)] * 5, [(1, 1)] * 5, ["g"] * 5, ratio)
    assert (one.difference.low, one.difference.p, one.difference.difference) == (None, None, 1.0)
    assert one.tuned.low is None


def test_intervals_of_a_ratio_hold_what_they_promise() -> None:
    """Clusters of four, of lengths that differ: 95 % within 1.5 points asks for more draws than a test has time for."""
    rng = np.random.default_rng(0)

    def draw(clusters: int) -> list[tuple[float, float]]:
        quality, lengths = np.repeat(rng.gamma(4, 0.25, clusters), 4), rng.integers(5, 60, 4 * clusters)
        return [
            (float(n * q * noise), float(n))
            for n, q, noise in zip(lengths, quality, rng.gamma(4, 0.25, 4 * clusters), strict=True)
        ]

    groups = [f"g{n // 4}" for n in range(200)]
    found = [compare(counts, counts, groups, ratio).base for counts in (draw(50) for _ in range(400))]
    held = sum(one.low is not None and one.high is not None and one.low <= 1.0 <= one.high for one in found)
    assert 0.92 <= held / 400 <= 0.98


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=2, max_size=12))
def test_an_arm_against_itself_differs_by_nothing(counts: list[tuple[int, int]]) -> None:
    found = compare(counts, counts, [""] * len(counts), ratio)
    assert found.difference.difference == pytest.approx(0.0)
    assert verdict(found.difference) == "cannot tell"
    assert found.base.mean == pytest.approx(ratio([sum(column) for column in zip(*counts, strict=True)]))
