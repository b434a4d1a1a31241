import uuid
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import write_jsonl, write_rows
from tunesmith.core.records import Meta, Reject, Row, pair
from tunesmith.prepare.diff import diff
from tunesmith.prepare.split import SPLITS

CONFIG = {"seed": 0, "valid_fraction": 0.1}


def row(question: str, answer: str, line: int, origin: str = "human", group: str = "g") -> Row:
    return pair(question, answer, meta=Meta("f.jsonl", line, origin, group))


def made(
    folder: Path,
    name: str,
    splits: dict[str, list[Row]],
    rejects: list[Reject] | None = None,
    config: dict[str, object] | None = None,
    parents: dict[str, str] | None = None,
) -> Artifact:
    with writing(folder / name) as work:
        for side in SPLITS:
            write_rows(work / f"{side}.jsonl", splits.get(side, []))
        write_jsonl(work / "rejects.jsonl", (reject.to_json() for reject in rejects or []))
        return seal(work, folder / name, "set", {"config": config or CONFIG, "parents": parents or {}})


def test_rows_that_came_went_changed_and_moved_are_told_with_the_reason(tmp_path: Path) -> None:
    stays, mended, gone, moved = row("a", "1", 1), row("b", "bad", 2), row("c", "3", 3), row("d", "4", 4)
    old = {"train": [stays, mended], "valid": [gone], "test": [moved]}
    better, new, wanted = row("B!", "good", 7, "edited"), row("e", "5", 5), row("f", "6", 6)
    now = {"train": [stays, moved, new], "test": [better, wanted]}
    a = made(tmp_path, "aaa", old, [Reject("f.jsonl", 6, "too_odd", "oddly")], parents={"r1": "x"})
    b = made(
        tmp_path,
        "bbb",
        now,
        [Reject("f.jsonl", 3, "near_duplicate", "the answer of f.jsonl:1")],
        {"seed": 1, "valid_fraction": 0.1},
        {"r1": "x", "r2": "y"},
    )
    facts, text = diff(a, b)
    assert facts["rows"] == {"aaa": 4, "bbb": 5}
    assert facts["same"] == 1
    assert [(r["place"], r["why"]) for r in facts["came"]] == [
        ("f.jsonl:5", "not in what was collected for the other set"),
        ("f.jsonl:6", "rejected: too_odd (oddly) in aaa"),
    ]
    assert [(r["place"], r["split"], r["why"]) for r in facts["went"]] == [
        ("f.jsonl:3", "valid", "rejected: near_duplicate (the answer of f.jsonl:1) in bbb"),
    ]
    (change,) = facts["changed"]
    assert (change["before"], change["split_before"]) == ("bad", "train")
    assert (change["after"], change["split"]) == ("good", "test")
    assert change["why"] == "edited row, from f.jsonl:2 to f.jsonl:7"
    (move,) = facts["moved"]
    assert (move["split_before"], move["split"]) == ("test", "train")
    assert move["why"] == "seed changed, which asks for a new split"
    assert facts["config"] == {"seed": [0, 1]}
    assert facts["parents"] == {"only_a": [], "only_b": ["r2"]}
    lines = text.splitlines()
    assert lines[:3] == [
        "aaa -> bbb: 1 rows are the same, 2 came, 1 went, 1 changed, 1 moved",
        "  config seed: 0 -> 1",
        "  now made from raw r2, too",
    ]
    assert "  f.jsonl:7 [train -> test] B! | bad -> good: edited row, from f.jsonl:2 to f.jsonl:7" in lines


def test_a_set_differs_from_itself_in_nothing(tmp_path: Path) -> None:
    a = made(tmp_path, "aaa", {"train": [row("a", "1", 1), row("a", "1", 2)], "test": [row("b", "1", 3)]})
    facts, text = diff(a, a)
    assert [facts[kind] for kind in ("came", "went", "changed", "moved", "config")] == [[], [], [], [], {}]
    assert text == "aaa -> aaa: 3 rows are the same, 0 came, 0 went, 0 changed, 0 moved"


def test_a_row_that_is_grouped_anew_says_so(tmp_path: Path) -> None:
    a = made(tmp_path, "aaa", {"train": [row("a", "1", 1, group="one")]})
    b = made(tmp_path, "bbb", {"test": [row("a", "1", 1, group="two")]})
    assert diff(a, b)[0]["moved"][0]["why"] == "it is grouped with other rows now"
    c = made(tmp_path, "ccc", {"valid": [row("a", "1", 1, group="one")]})
    assert "split without one another" in diff(a, c)[0]["moved"][0]["why"]


def test_many_rows_are_counted_by_reason_and_shown_in_part(tmp_path: Path) -> None:
    a = made(tmp_path, "aaa", {})
    b = made(tmp_path, "bbb", {"train": [row(f"q{i}", "1", i) for i in range(25)]})
    facts, text = diff(a, b)
    assert len(facts["came"]) == 25
    assert "  25 x not in what was collected for the other set" in text
    assert text.endswith("  and 15 more")


placed = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12"), st.sampled_from(SPLITS)), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(placed, placed)
def test_every_row_of_both_sets_is_accounted_for(
    tmp_path: Path, old: list[tuple[str, str, str]], new: list[tuple[str, str, str]]
) -> None:
    sets = []
    for rows in (old, new):
        splits = {side: [row(q, a, i) for i, (q, a, where) in enumerate(rows) if where == side] for side in SPLITS}
        sets.append(made(tmp_path, uuid.uuid4().hex, splits))
    facts, _ = diff(*sets)
    both = facts["same"] + len(facts["changed"]) + len(facts["moved"])
    assert len(old) == both + len(facts["went"])
    assert len(new) == both + len(facts["came"])
