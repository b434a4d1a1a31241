"""The review queue without a terminal: what is decided stands, also after a kill, and only what is accepted is data."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.collect import review
from tunesmith.collect.review import Queue, as_text, close, from_text, in_editor, in_place, session
from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl, read_rows, write_json, write_jsonl, write_rows
from tunesmith.core.records import Meta, Reject, Row, pair


def rows(count: int = 4) -> list[Row]:
    meta = [Meta("generated/x", n + 1, "generated", "g") for n in range(count)]
    return [pair(f"Question {n}?", f"Answer {n}.", meta=meta[n]) for n in range(count)]


def draft(folder: Path, found: Sequence[Row]) -> Artifact:
    final = folder / "drafts" / "d1"
    with writing(final) as work:
        write_rows(work / "examples.jsonl", found)
        write_jsonl(work / "rejects.jsonl", [Reject("generated/x", 1, "not_new").to_json()])
        write_jsonl(work / "provenance.jsonl", ({"id": row.id, "model": "small"} for row in found))
        write_json(work / "receipt.json", {})
        facts = {"raw_id": "d1", "rows_in": len(found) + 1, "kept": len(found), "rejected": {"not_new": 1}}
        return seal(work, final, "draft", facts)


def typed(*words: str) -> Callable[[str], str]:
    given_words = iter(words)
    return lambda prompt: next(given_words)


def answered(row: Row) -> Row:
    return from_text(row, as_text(row).replace("Answer", "Reply"))


def test_a_session_accepts_edits_rejects_skips_and_takes_back(tmp_path: Path) -> None:
    found = rows(4)
    queue = Queue(draft(tmp_path, found))
    shown: list[str] = []
    counts = session(
        queue,
        typed("a", "u", "s", "e", "r", "wrong", "x", "a", "a"),
        lambda row, counts: shown.append(row.question),
        answered,
    )
    order = [0, 1, 0, 1, 2, 3, 3, 0]
    assert shown == [f"Question {n}?" for n in order]
    assert counts == {"accept": 2, "edit": 1, "reject": 1, "pending": 0}
    made = close(queue, tmp_path / "data" / "raw")
    kept = list(read_rows(made.path / "examples.jsonl"))
    assert [row.answer for row in kept] == ["Answer 0.", "Reply 1.", "Answer 3."]
    assert [row.meta.origin for row in kept] == ["generated", "edited", "generated"]
    assert {row.meta.group for row in kept} == {"g"}
    rejects = list(read_jsonl(made.path / "rejects.jsonl"))
    assert [(one["reason"], one["detail"]) for one in rejects] == [("not_new", ""), ("review", "wrong")]
    receipt = read_json(made.path / "receipt.json")
    assert receipt["rows_in"] == receipt["kept"] + sum(receipt["rejected"].values())
    provenance = list(read_jsonl(made.path / "provenance.jsonl"))
    assert [one["id"] for one in provenance] == [row.id for row in kept]
    assert provenance[1]["draft_id"] == found[1].id
    assert close(queue, tmp_path / "data" / "raw").path == made.path


def test_a_review_goes_on_where_it_was_also_after_half_a_line(tmp_path: Path) -> None:
    found = rows(3)
    artifact = draft(tmp_path, found)
    first = Queue(artifact)
    first.decide(found[0], "reject", note="no")
    first.decide(found[1], "skip")
    with first.file.open("ab") as out:
        out.write(b'{"id": "cut')
    again = Queue(artifact)
    assert again.counts() == {"accept": 0, "edit": 0, "reject": 1, "pending": 2}
    assert again.next() == found[1]  # a skipped row comes again
    again.decide(found[1], "accept")
    assert Queue(artifact).counts() == {"accept": 1, "edit": 0, "reject": 1, "pending": 1}
    assert Queue(artifact).undo() == found[1]
    assert Queue(artifact).counts() == {"accept": 0, "edit": 0, "reject": 1, "pending": 2}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["accept", "reject", "skip", "undo", "edit"]), max_size=14))
def test_what_is_replayed_is_what_was_decided(tmp_path_factory: pytest.TempPathFactory, moves: list[str]) -> None:
    folder = tmp_path_factory.mktemp("review")
    artifact = draft(folder, rows(4))
    queue = Queue(artifact)
    for move in moves:
        row = queue.next()
        if move == "undo":
            queue.undo()
        elif row is not None:
            queue.decide(row, move, answered(row) if move == "edit" else None)  # type: ignore[arg-type]
    assert Queue(artifact).counts() == queue.counts()
    assert Queue(artifact).decided == queue.decided
    assert sum(queue.counts().values()) == 4


def test_rows_that_wait_keep_the_draft_open_unless_it_is_said(tmp_path: Path) -> None:
    found = rows(2)
    queue = Queue(draft(tmp_path, found))
    queue.decide(found[0], "accept")
    with pytest.raises(UsageError, match="1 rows of d1 are not reviewed"):
        close(queue, tmp_path / "data" / "raw")
    made = close(queue, tmp_path / "data" / "raw", partial=True)
    assert made.facts["rejected"] == {"not_new": 1, "not_reviewed": 1}


def test_a_draft_of_which_nothing_is_accepted_is_no_data(tmp_path: Path) -> None:
    found = rows(1)
    queue = Queue(draft(tmp_path, found))
    queue.decide(found[0], "reject")
    with pytest.raises(DataError, match="no row was accepted"):
        close(queue, tmp_path / "data" / "raw")


def test_an_editor_changes_the_row_and_a_spoilt_file_leaves_it(tmp_path: Path) -> None:
    (row,) = rows(1)
    good, bad = tmp_path / "good.sh", tmp_path / "bad.sh"
    good.write_text('#!/bin/sh\nsed -i s/Answer/Reply/ "$1"\n')
    bad.write_text('#!/bin/sh\n: > "$1"\n')
    for path in (good, bad):
        path.chmod(0o755)
    assert in_editor(row, str(good)).answer == "Reply 0."
    assert in_editor(row, str(bad)) == row


def test_editing_by_typing_leaves_what_is_not_typed() -> None:
    (row,) = rows(1)
    assert in_place(row, typed("", "Better.")).answer == "Better."
    assert in_place(row, typed("", "")).messages == row.messages


def test_an_edit_that_changes_nothing_is_an_acceptance(tmp_path: Path) -> None:
    queue = Queue(draft(tmp_path, rows(1)))
    assert session(queue, typed("e"), lambda row, counts: None, lambda row: row)["accept"] == 1


def test_the_terminal_shows_rows_and_stops_at_the_end_of_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["a", "e", "", "Typed."])

    def line() -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", lambda prompt="": line())
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    queue = review.terminal(draft(tmp_path, rows(3)))
    assert queue.counts() == {"accept": 1, "edit": 1, "reject": 0, "pending": 1}
    assert "Question 0?" in capsys.readouterr().err
    assert os.path.exists(queue.file)
