from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_jsonl, read_rows
from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.diagnose.fixes import Proposal
from tunesmith.diagnose.mend import mend
from tunesmith.prepare.stage import PrepareConfig
from tunesmith.prepare.stage import run as prepare

GUARD = "Let's keep the discussion relevant to gardens."
_WORDS = "oak fern rose moss lily iris palm reed sage mint dill leek kale bean corn rice"
WORDS = _WORDS.split(" ")


def raw_row(number: int) -> Row:
    """A row that wears a template, as many files do."""
    asked = f"### Question:\nHow does the {WORDS[number]} grow in garden {number * 7}?\n\n### Answer:"
    return pair(asked, f"The {WORDS[number]} grows well. It is {number}.", meta=Meta("faq.jsonl", number + 1))


RAW = [raw_row(n) for n in range(16)]
Make = Callable[..., Artifact]


@pytest.fixture
def raw(make: Make) -> Artifact:
    return make("raw", "one", rows={"examples": RAW}, lines={"rejects": []})


@pytest.fixture
def errors(make: Make) -> Artifact:
    return make("errors", "errors-1")


@pytest.fixture
def set_(raw: Artifact, tmp_path: Path) -> Artifact:
    return prepare(PrepareConfig(valid_fraction=0.2, test_fraction=0.2), [raw], tmp_path / "sets")


def training(set_: Artifact) -> list[Row]:
    return list(read_rows(set_.path / "train.jsonl"))


def with_answer(row: Row, answer: str) -> Row:
    return Row((*row.messages[:-1], Message("assistant", answer)), meta=row.meta)


def test_edits_and_drops_go_through_prepare_and_held_out_rows_stay(
    raw: Artifact, errors: Artifact, set_: Artifact, tmp_path: Path
) -> None:
    edited, dropped, *others = training(set_)
    chosen = [
        Proposal("a-1", "a", "edit", "shorter", edited, with_answer(edited, "It grows.")),
        Proposal("b-1", "b", "drop", "it loops", dropped),
    ]
    made = mend(chosen, [raw], errors, tmp_path / "raw")
    config = PrepareConfig(valid_fraction=0.2, test_fraction=0.2)
    new = prepare(config, [raw, made], tmp_path / "sets", previous=set_)
    by_line = {row.meta.line: row for row in training(new)}
    assert (by_line[edited.meta.line].answer, by_line[edited.meta.line].meta.origin) == ("It grows.", "edited")
    assert by_line[edited.meta.line].question == edited.question  # the template was taken off all the same
    assert dropped.meta.line not in by_line
    assert len(by_line) == len(others) + 1
    for part in ("valid", "test"):
        assert (new.path / f"{part}.jsonl").read_bytes() == (set_.path / f"{part}.jsonl").read_bytes()
    assert new.facts["rejected"] == {"rewritten": 1, "dropped": 1}
    reasons = {obj["reason"]: obj["detail"] for obj in read_jsonl(new.path / "rejects.jsonl")}
    assert reasons == {"rewritten": f"{made.name}:1", "dropped": f"{made.name}: it loops"}
    assert new.facts["unwrapped"] == 15  # what was edited wears it too, or the file would be below 95 %


def test_provenance_names_the_proposal_and_what_gave_way(
    raw: Artifact, errors: Artifact, set_: Artifact, tmp_path: Path
) -> None:
    edited, dropped, *_ = training(set_)
    chosen = [
        Proposal("a-1", "a", "edit", "shorter", edited, with_answer(edited, "It grows.")),
        Proposal("b-1", "b", "drop", "it loops", dropped),
    ]
    made = mend(chosen, [raw], errors, tmp_path / "raw")
    first, second = read_jsonl(made.path / "provenance.jsonl")
    old = {row.meta.line: row.id for row in RAW}
    assert (first["replaces"], first["line"]) == (old[edited.meta.line], 1)
    assert (second["drops"], second["why"], second["errors"]) == (old[dropped.meta.line], "it loops", "errors-1")
    assert made.facts["actions"] == {"edit": 1, "drop": 1}
    assert mend(chosen, [raw], errors, tmp_path / "raw").hash == made.hash


def test_a_mended_row_can_be_mended_again(raw: Artifact, errors: Artifact, set_: Artifact, tmp_path: Path) -> None:
    config = PrepareConfig(valid_fraction=0.2, test_fraction=0.2)
    (edited, *_) = training(set_)
    one = mend(
        [Proposal("a-1", "a", "edit", "", edited, with_answer(edited, "It grows."))], [raw], errors, tmp_path / "raw"
    )
    second = prepare(config, [raw, one], tmp_path / "sets", previous=set_)
    (again,) = [row for row in training(second) if row.meta.origin == "edited"]
    two = mend(
        [Proposal("a-1", "a", "edit", "", again, with_answer(again, "Grows."))], [raw, one], errors, tmp_path / "raw"
    )
    third = prepare(config, [raw, one, two], tmp_path / "sets", previous=second)
    assert [row.answer for row in training(third) if row.meta.line == edited.meta.line] == ["Grows."]


def test_a_new_guard_row_is_trained_on(make: Make, errors: Artifact, tmp_path: Path) -> None:
    guards = [
        pair(f"Who wrote the book number {n * 31} of them?", GUARD, meta=Meta("g.jsonl", n + 1)) for n in range(5)
    ]
    raw = make("raw", "two", rows={"examples": [*RAW, *guards]}, lines={"rejects": []})
    config = PrepareConfig(valid_fraction=0.2, test_fraction=0.2, unwrap="never")
    set_ = prepare(config, [raw], tmp_path / "sets")
    new = pair("How do I bake salmon?", GUARD, meta=Meta("fix", origin="guard"))
    made = mend([Proposal("o-1", "off_topic", "add", "", None, new)], [raw], errors, tmp_path / "raw")
    (row,) = read_rows(made.path / "examples.jsonl")
    assert row.meta.group == guards[0].id
    after = prepare(config, [raw, made], tmp_path / "sets", previous=set_)
    where = [part for part in ("train", "valid", "test") if "salmon" in (after.path / f"{part}.jsonl").read_text()]
    old = [
        part for part in ("train", "valid", "test") if guards[0].question in (set_.path / f"{part}.jsonl").read_text()
    ]
    assert where == old  # beside the row that it is like


def test_what_is_no_longer_there_is_an_error(raw: Artifact, errors: Artifact, set_: Artifact, tmp_path: Path) -> None:
    gone = with_answer(training(set_)[0], "never said")
    with pytest.raises(DataError, match="no longer there"):
        mend([Proposal("a-1", "a", "drop", "", gone)], [raw], errors, tmp_path / "raw")
    with pytest.raises(DataError, match="no proposal was accepted"):
        mend([], [raw], errors, tmp_path / "raw")
