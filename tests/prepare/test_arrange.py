from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.arrange import Arranged, arrange
from tunesmith.prepare.config import PrepareConfig
from tunesmith.prepare.split import SPLITS

WORDS = ["reset", "password", "how", "the", "account", "delete", "app", "new", "harbour", "crane", "lock", "tide"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map(" ".join)


def human(asked: list[str]) -> list[Row]:
    return [pair(text, f"answer {i}", meta=Meta("f", i, group=f"p{i}")) for i, text in enumerate(asked, 1)]


def generated(asked: list[tuple[str, int]], parents: list[Row]) -> list[Row]:
    """Children, each with the group of its parent."""
    chosen = [parents[number % len(parents)].meta.group for _, number in asked]
    lines = enumerate(zip(asked, chosen, strict=True), 1)
    return [pair(text, f"made {i}", meta=Meta("g", i, "generated", group)) for i, ((text, _), group) in lines]


def where(made: Arranged) -> dict[tuple[str, int], str]:
    return {(row.meta.source, row.meta.line): side for side in SPLITS for row in made.splits[side]}


@settings(deadline=None)
@given(st.lists(texts, min_size=3, max_size=20), st.lists(st.tuples(texts, st.integers(0, 50)), max_size=20))
def test_a_generated_row_is_in_the_split_of_its_parent(asked: list[str], children: list[tuple[str, int]]) -> None:
    parents = human(asked)
    made = generated(children, parents)
    found = arrange(PrepareConfig(valid_fraction=0.3, test_fraction=0.3), [*parents, *made], {})
    place = where(found)
    at = {row.meta.group: place.get(("f", row.meta.line)) for row in parents}
    for row in made:
        mine = place.get(("g", row.meta.line))
        assert mine is None or at[row.meta.group] is None or mine == at[row.meta.group]
    assert len(place) + len(found.rejects) == len(parents) + len(made)
    assert found.counts(PrepareConfig())["leaked"] == 0


@settings(deadline=None)
@given(st.lists(texts, min_size=3, max_size=20), st.lists(st.tuples(texts, st.integers(0, 50)), max_size=20))
def test_generated_rows_that_come_later_move_no_old_row(asked: list[str], children: list[tuple[str, int]]) -> None:
    config = PrepareConfig(valid_fraction=0.3, test_fraction=0.3)
    parents = human(asked)
    old = arrange(config, parents, {})
    before = {side: list(rows) for side, rows in old.splits.items()}
    # a set keeps the name of the group in meta.group; the raw row that comes again still has its own
    found = arrange(config, [*parents, *generated(children, parents)], before)
    was, now = where(old), where(found)
    assert all(now.get(key, side) == side for key, side in was.items())
    group_of = {row.meta.group: was.get(("f", row.meta.line)) for row in parents}
    for row in generated(children, parents):
        side = now.get(("g", row.meta.line))
        assert side is None or group_of[row.meta.group] in (None, side)


def test_every_row_left_out_stands_beside_its_reject() -> None:
    question = "how do i change the colour of the button on the start page of the app"
    rows = [pair(question, "Like so.", meta=Meta("f", 1)), pair(question + "s", "like so", meta=Meta("f", 2))]
    rows += [pair(f"{i * 7919} other", "B", meta=Meta("f", i)) for i in range(3, 9)]
    made = arrange(PrepareConfig(), rows, {}, lambda corpus: ([r for r in corpus.rows if r.meta.line != 5], []))
    assert [row.meta.line for row in made.left_out] == [2, 5]
    assert [reject.line for reject in made.nearly] == [2]
    assert replace(made.rows[0], meta=rows[0].meta) == rows[0]
