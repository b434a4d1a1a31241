import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.collect import stage as collect
from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.config import make
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl, read_rows, write_jsonl, write_rows
from tunesmith.core.records import Message, Meta, Reject, Row, pair
from tunesmith.prepare.split import SPLITS
from tunesmith.prepare.stage import PrepareConfig, receipt, run
from tunesmith.text.similar import jaccard, normalise

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
WORDS = ["reset", "password", "how", "the", "account", "delete", "app", "new"]


def raw(folder: Path, rows: list[Row], rejects: list[Reject] | None = None) -> Artifact:
    final = folder / f"raw-{sum(1 for _ in folder.glob('raw-*'))}"
    with writing(final) as work:
        write_rows(work / "examples.jsonl", rows)
        write_jsonl(work / "rejects.jsonl", (reject.to_json() for reject in rejects or []))
        return seal(work, final, "raw", {})


def numbered(texts: list[str], answer: str = "answer") -> list[Row]:
    return [pair(text, f"{answer} {i}", meta=Meta("f", i)) for i, text in enumerate(texts, 1)]


def sides(made: Artifact) -> dict[str, list[Row]]:
    return {side: list(read_rows(made.path / f"{side}.jsonl")) for side in SPLITS}


def contents(made: Artifact) -> list[str]:
    names = [*(f"{side}.jsonl" for side in SPLITS), "rejects.jsonl"]
    return [(made.path / name).read_text() for name in names]


def topics(count: int) -> list[str]:
    return [f"{chr(97 + i % 26) * 5} {chr(97 + i * 7 % 26) * 6} {i * 7919}" for i in range(count)]


def test_a_set_holds_splits_rejects_receipt_and_report(tmp_path: Path) -> None:
    rows = [
        *numbered(topics(30)),
        pair(topics(1)[0], "answer 1", meta=Meta("f", 31)),
        pair("", "x", meta=Meta("f", 32)),
    ]
    made = run(PrepareConfig(), [raw(tmp_path, rows, [Reject("f", 33, "malformed")])], tmp_path / "sets")
    facts = read_json(made.path / "receipt.json")
    assert facts["rows_in"] == 33
    assert facts["kept"] == 30 == sum(len(rows) for rows in sides(made).values())
    assert facts["rejected"] == {"malformed": 1, "empty_prompt": 1, "duplicate": 1}
    assert (facts["duplicates"], facts["near_duplicates"], facts["leaked"]) == (1, 0, 0)
    assert [r["line"] for r in read_jsonl(made.path / "rejects.jsonl")] == [33, 32, 31]
    assert all(row.meta.group for rows in sides(made).values() for row in rows)
    assert made.name == facts["set_id"]
    assert (made.path / "report.md").read_text().startswith(f"# Set {made.name}")
    printed = receipt(open_artifact(made.path, "set"))
    counts = ["rows_in", "kept", "rejected", "unwrapped", "duplicates", "near_duplicates", "leaked"]
    assert list(printed) == ["set_id", "path", *counts, *SPLITS, "scores", "findings", "difficulty", "judge"]
    assert list(printed["scores"]) == ["quality", "diversity", "realness", "amount"]
    assert printed["difficulty"] is None


def test_the_same_input_gives_the_same_set(tmp_path: Path) -> None:
    source = raw(tmp_path, numbered(topics(30)))
    first = run(PrepareConfig(), [source], tmp_path / "sets")
    assert run(PrepareConfig(), [source], tmp_path / "sets").manifest == first.manifest
    assert run(PrepareConfig(), [source], tmp_path / "sets", previous=first).name == first.name
    assert run(PrepareConfig(), [source], tmp_path / "sets", system="Be brief.").name != first.name


TWINS = [f"{text} and then some more words to be alike{'s' * twin}" for text in topics(20) for twin in (0, 1)]


@pytest.mark.parametrize(
    "change",
    [
        {"valid_fraction": 0.3},
        {"test_fraction": 0.3},
        {"near_duplicate_threshold": 1.0},
        {"leak_threshold": 1.0},
        {"unwrap": "never"},
        {"seed": 1},
    ],
)
def test_every_config_field_changes_the_set(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = [pair(f"[INST] {text} [/INST]", "A", meta=Meta("f", i)) for i, text in enumerate(TWINS)]
    rows += [pair(f"[INST] {text} [/INST]", f"B{i}", meta=Meta("f", 99 + i)) for i, text in enumerate(TWINS)]
    source = raw(tmp_path, rows)
    plain = run(PrepareConfig(), [source], tmp_path / "sets")
    changed = run(PrepareConfig(**change), [source], tmp_path / "sets")
    assert contents(plain) != contents(changed)


def test_the_system_message_of_the_task_is_put_in_front(tmp_path: Path) -> None:
    made = run(PrepareConfig(), [raw(tmp_path, numbered(topics(9)))], tmp_path / "sets", system="Be brief.")
    assert {r.messages[0] for rows in sides(made).values() for r in rows} == {Message("system", "Be brief.")}


def test_neither_the_system_message_nor_a_mended_answer_moves_a_row(tmp_path: Path) -> None:
    texts = topics(60)
    first = run(PrepareConfig(), [raw(tmp_path, numbered(texts))], tmp_path / "sets")
    mended = raw(tmp_path, numbered(texts, "mended"))
    for previous in (None, first):
        again = run(PrepareConfig(), [mended], tmp_path / "sets", previous, system="New.")
        assert {s: [r.question for r in rows] for s, rows in sides(again).items()} == {
            s: [r.question for r in rows] for s, rows in sides(first).items()
        }


def test_other_settings_for_the_split_ask_for_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = raw(tmp_path, numbered(topics(60)))
    first = run(PrepareConfig(), [source], tmp_path / "sets")
    again = run(PrepareConfig(seed=1), [source], tmp_path / "sets", previous=first)
    assert "seed changed since set" in capsys.readouterr().err
    assert {r.id for r in sides(again)["test"]} != {r.id for r in sides(first)["test"]}


def test_mixed_kinds_are_refused_with_the_place(tmp_path: Path) -> None:
    rows = [*numbered(topics(3)), Row(text="raw", meta=Meta("g", 7))]
    with pytest.raises(DataError, match="g:7: text among messages"):
        run(PrepareConfig(), [raw(tmp_path, rows)], tmp_path / "sets")


@pytest.mark.parametrize("rows", [[], [pair("", "A")]])
def test_a_set_without_rows_is_refused(tmp_path: Path, rows: list[Row]) -> None:
    with pytest.raises(DataError, match="no row is left"):
        run(PrepareConfig(), [raw(tmp_path, rows)], tmp_path / "sets")


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(UsageError, match="must be below 1"):
        make(PrepareConfig, {"valid_fraction": 0.5, "test_fraction": 0.5})


def test_one_group_of_questions_is_noted(tmp_path: Path) -> None:
    made = run(PrepareConfig(), [raw(tmp_path, numbered(["same", "Same!"]))], tmp_path / "sets")
    assert [made.facts[side] for side in SPLITS] == [2, 0, 0]
    assert any("only 1 group" in note for note in made.facts["notes"])


def _text(text: str, i: int) -> Row:
    return Row(text=text or "empty", meta=Meta("f", i))


def _chosen(text: str, i: int) -> Row:
    return Row((Message("user", text),), chosen="A", rejected=f"B{i % 2}", meta=Meta("f", i))


def _pair(text: str, i: int) -> Row:
    return pair(text, f"A{i % 3}", meta=Meta("f", i, group="g" * (i % 5 == 0)))


questions = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=25)
files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)


@files
@given(questions, st.sampled_from([_pair, _text, _chosen]), st.integers(0, 3), st.integers(0, 3))
def test_rows_are_conserved_and_groups_stay_whole(
    tmp_path: Path, texts: list[str], make: Callable[[str, int], Row], bad: int, seed: int
) -> None:
    rows = [make(text, i) for i, text in enumerate([*texts, "a question of its own"])]
    source = raw(tmp_path, rows, [Reject("f", i, "malformed") for i in range(bad)])
    made = run(PrepareConfig(seed=seed), [source], tmp_path / "sets")
    facts, by_side = made.facts, sides(made)
    assert facts["rows_in"] == len(rows) + bad == facts["kept"] + sum(facts["rejected"].values())
    assert facts["kept"] == sum(map(len, by_side.values()))
    assert sum(1 for _ in read_jsonl(made.path / "rejects.jsonl")) == sum(facts["rejected"].values())
    assert facts["leaked"] == 0
    groups = [{row.meta.group for row in by_side[side]} for side in SPLITS]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(groups, 2))
    assert len(set.union(*groups)) == facts["groups"]
    assert facts["groups"] < 3 or all(by_side.values())


@files
@given(questions, questions, st.booleans())
def test_appended_data_moves_no_old_row(tmp_path: Path, old: list[str], new: list[str], first: bool) -> None:
    before = raw(tmp_path, [_pair(text, i) for i, text in enumerate([*old, "a question of its own"])])
    after = raw(tmp_path, [replace(_pair(text, i), meta=Meta("g", i)) for i, text in enumerate([*new, "another one"])])
    old_set = run(PrepareConfig(), [before], tmp_path / "sets")
    sources = [after, before] if first else [before, after]
    new_set = run(PrepareConfig(), sources, tmp_path / "sets", previous=old_set)
    was = {normalise(row.question): side for side, rows in sides(old_set).items() for row in rows}
    for side, rows in sides(new_set).items():
        assert all(was.get(normalise(row.question), side) == side for row in rows)
    facts = new_set.facts
    assert facts["rows_in"] == facts["kept"] + sum(facts["rejected"].values())
    assert facts["leaked"] == 0


def canonical(path: Path, keys: tuple[str, str], source: str) -> list[Row]:
    return [pair(obj[keys[0]], obj[keys[1]], meta=Meta(source, line)) for line, obj in enumerate(read_jsonl(path), 1)]


@real
def test_the_course_data_is_unwrapped_and_split_without_a_leak(tmp_path: Path) -> None:
    rows = canonical(DATA / "lamini/lamini_docs.jsonl", ("question", "answer"), "lamini_docs.jsonl")
    made = run(PrepareConfig(), [raw(tmp_path, rows)], tmp_path / "sets")
    facts = made.facts
    assert facts["rows_in"] == 1400 == facts["kept"] + sum(facts["rejected"].values())
    assert facts["unwrapped"] == 1400  # the 6 rows without a question wear the template too, and are rejected after it
    assert facts["rejected"]["empty_prompt"] == 6
    assert "residue" not in facts["findings"]
    assert facts["leaked"] == 0 < facts["leaked_random_split"]
    by_side = sides(made)
    train = [row.question for row in by_side["train"]]
    words = [set(normalise(text).split()) for text in train]
    for row in by_side["test"]:
        mine = set(normalise(row.question).split())
        assert max(len(mine & w) / len(mine | w) for w in words) < 0.8
    assert max(jaccard(a.question, b) for a in by_side["test"][:20] for b in train) < 0.8


@real
def test_real_rows_that_were_split_stay_when_more_come(tmp_path: Path) -> None:
    rows = canonical(DATA / "lamini/lamini_docs.jsonl", ("question", "answer"), "lamini_docs.jsonl")
    first = run(PrepareConfig(), [raw(tmp_path, rows[:700])], tmp_path / "sets")
    second = run(PrepareConfig(), [raw(tmp_path, rows)], tmp_path / "sets", previous=first)
    was = {row.id: side for side, rows in sides(first).items() for row in rows}
    now = {row.id: side for side, rows in sides(second).items() for row in rows}
    assert all(now.get(key, side) == side for key, side in was.items())
    assert second.facts["leaked"] == 0
    assert second.facts["rows_in"] == 1400


@real
@pytest.mark.parametrize(
    ("name", "kind", "rejected"),
    [
        ("llamafactory/alpaca_en_demo.json", "messages", {"duplicate": 14}),
        ("llamafactory/identity.json", "messages", {}),
        ("llamafactory/dpo_en_demo.json", "preferences", {"duplicate": 5}),
        ("llamafactory/c4_demo.jsonl", "text", {}),
        ("fastchat/dummy_conversation.json", "messages", {"near_duplicate": 16}),
    ],
)
def test_real_files_of_every_kind_become_sets(tmp_path: Path, name: str, kind: str, rejected: dict[str, int]) -> None:
    source = collect.run(collect.CollectConfig(), [DATA / name], tmp_path / "raw")
    made = run(PrepareConfig(), [source], tmp_path / "sets")
    assert (made.facts["kind"], made.facts["rejected"], made.facts["leaked"]) == (kind, rejected, 0)
    assert made.facts["rows_in"] == source.facts["rows_in"] == made.facts["kept"] + sum(rejected.values())
    assert all(sides(made).values())


def test_what_collect_rejected_counts_from_the_file_to_the_set(tmp_path: Path) -> None:
    file = tmp_path / "faq.jsonl"
    lines = [f'{{"question": "{text}", "answer": "A"}}' for text in topics(8)]
    file.write_text("\n".join([*lines, '{"question": "cu', '{"question": "", "answer": "A"}']))
    source = collect.run(collect.CollectConfig(), [file], tmp_path / "raw")
    facts = run(PrepareConfig(), [source], tmp_path / "sets").facts
    assert (facts["rows_in"], facts["kept"]) == (10, 8)
    assert facts["rejected"] == {"malformed": 1, "empty_prompt": 1}


def test_rows_with_groups_are_kept_where_they_are_when_they_are_prepared_again(tmp_path: Path) -> None:
    rows = [
        pair(f"{word} of number {n}?", f"{word} {n}", meta=Meta("f", n, "human", f"g{n % 9}"))
        for n, word in enumerate(["harbour", "violin", "lantern", "market", "gardener"] * 9)
    ]
    first = run(PrepareConfig(), [raw(tmp_path, rows)], tmp_path / "sets")
    again = run(PrepareConfig(), [raw(tmp_path / "b", rows)], tmp_path / "more", first)
    for side in SPLITS:
        assert list(read_rows(again.path / f"{side}.jsonl")) == list(read_rows(first.path / f"{side}.jsonl"))
    assert again.facts["rejected"] == first.facts["rejected"]
