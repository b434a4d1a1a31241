import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.groups import Groups, asked, questions
from tunesmith.prepare.split import SPLITS, Splits, leaked, random_split, split

SHARES = {"valid": 0.1, "test": 0.1}


def rows_of(count: int) -> list[Row]:
    return [pair(f"{i * 7919 + 10_000}", "A", meta=Meta("f", i)) for i in range(count)]


def splits(rows: list[Row], keys: list[str] | None = None, old: dict[str, str] | None = None, seed: int = 0) -> Splits:
    asking = questions(rows, {})
    key = {asking.of(row): name for row, name in zip(rows, keys or [asked(row) for row in rows], strict=True)}
    return split(rows, asking, Groups(key, old or {}), SHARES, seed)


def sizes(made: Splits) -> list[int]:
    return [len(made[side]) for side in SPLITS]


def test_the_shares_are_met_in_number_and_the_order_of_rows_is_kept() -> None:
    made = splits(rows_of(2000))
    assert sum(sizes(made)) == 2000
    assert sizes(made)[1] == pytest.approx(200, abs=45)  # 3 deviations of a binomial
    assert sizes(made)[2] == pytest.approx(200, abs=45)
    assert all([r.meta.line for r in made[s]] == sorted(r.meta.line for r in made[s]) for s in SPLITS)


def test_the_split_depends_on_the_name_and_the_seed_alone() -> None:
    rows = rows_of(300)
    forward, backward = splits(rows), splits(rows[::-1])
    assert all({r.id for r in forward[s]} == {r.id for r in backward[s]} for s in SPLITS)
    assert {r.id for r in splits(rows, seed=1)["test"]} != {r.id for r in forward["test"]}


@pytest.mark.parametrize("count", range(3, 12))
def test_from_three_groups_on_no_split_is_empty(count: int) -> None:
    assert min(sizes(splits(rows_of(count)))) >= 1


def test_a_group_larger_than_a_split_is_trained_on() -> None:
    keys = ["big"] * 50 + [f"k{i}" for i in range(50)]
    for seed in range(20):
        made = splits(rows_of(100), keys, seed=seed)
        assert {r.meta.group for r in made["valid"] + made["test"]}.isdisjoint({"big"})


def test_old_groups_stay_where_they_were() -> None:
    rows = rows_of(40)
    keys = [f"k{i}" for i in range(40)]
    old = dict(zip(keys, itertools.cycle(SPLITS), strict=False))
    made = splits(rows, keys, old)
    assert all(old[row.meta.group] == side for side in SPLITS for row in made[side])


def test_a_share_of_zero_leaves_a_split_empty() -> None:
    rows = rows_of(50)
    asking = questions(rows, {})
    groups = Groups({asking.of(row): asked(row) for row in rows}, {})
    assert sizes(split(rows, asking, groups, {"valid": 0.0, "test": 0.0}, 0)) == [50, 0, 0]


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.integers(0, 5))
def test_groups_never_straddle_splits(numbers: list[int], seed: int) -> None:
    made = splits(rows_of(len(numbers)), [f"k{number}" for number in numbers], seed=seed)
    seen = [{row.meta.group for row in made[side]} for side in SPLITS]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(seen, 2))
    assert sum(sizes(made)) == len(numbers)
    assert len(set(numbers)) < 3 or min(sizes(made)) >= 1


def test_leaks_are_counted_between_every_two_splits() -> None:
    question = "how do i change the colour of the button on the start page"
    twin, reordered = question + "s", "on the start page of the button the colour change i do how"
    rows = [pair(text, "A") for text in (question, twin, reordered, "something else")]
    asking = questions(rows, {})
    a, b, c, d = rows
    assert leaked({"train": [a, b, c], "valid": [d], "test": []}, asking) == 0
    assert leaked({"train": [a, d], "valid": [], "test": [b]}, asking) == 1
    assert leaked({"train": [a], "valid": [b], "test": [d]}, asking) == 1
    assert leaked({"train": [a], "valid": [], "test": [c]}, asking) == 1
    assert leaked({"train": [a], "valid": [b], "test": [c]}, asking) == 3
    assert leaked({"train": [a], "valid": [], "test": [a]}, asking) == 1


def test_the_measurement_finds_what_a_random_split_leaks() -> None:
    rows = [pair(f"How do I reset the password of account type {i // 4}?", f"A{i}") for i in range(80)]
    wanted = {"train": 60, "valid": 10, "test": 10}
    made = random_split(rows, wanted, 0)
    assert {side: len(made[side]) for side in SPLITS} == wanted
    assert leaked(made, questions(rows, {})) > 0
    assert random_split(rows, wanted, 0) == made
