"""Generated rows stay with the rows that they come from, and rewritten rows give way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import write_jsonl, write_rows
from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.clean import read
from tunesmith.prepare.parents import kinship


def raw(folder: Path, name: str, rows: Sequence[Row], provenance: Sequence[dict[str, Any]] = ()) -> Artifact:
    with writing(folder / name) as work:
        write_rows(work / "examples.jsonl", rows)
        write_jsonl(work / "rejects.jsonl", [])
        if provenance:
            write_jsonl(work / "provenance.jsonl", provenance)
        return seal(work, folder / name, "raw", {})


def test_a_parent_without_a_group_heads_its_family_and_a_rewritten_row_gives_way(tmp_path: Path) -> None:
    parent, weak, other = pair("What is it?", "A crane."), pair("Where?", "There."), pair("Who?", "Nobody.")
    grouped = pair("When?", "Now.", meta=Meta(group="times"))
    child = pair("Tell me what it is", "A crane.", meta=Meta("generated/paraphrase", 1, "generated", parent.id))
    better = pair("Where?", "At the harbour.", meta=Meta("generated/rewrite", 1, "edited", weak.id))
    human = raw(tmp_path, "human", [parent, weak, other, grouped])
    made = [
        raw(tmp_path, "p", [child], [{"id": child.id, "line": 1, "parents": [parent.id, grouped.id]}]),
        raw(tmp_path, "r", [better], [{"id": better.id, "line": 1, "parents": [weak.id], "replaces": weak.id}]),
    ]
    rows, rejects = read([human, *made])
    assert [row.question for row in rows] == ["What is it?", "Who?", "When?", "Tell me what it is", "Where?"]
    assert [row.meta.group for row in rows] == [parent.id, "", "times", parent.id, weak.id]
    assert [(one.reason, one.detail) for one in rejects] == [("rewritten", "r:1")]
    assert rows[-1].answer == "At the harbour."


def test_artifacts_without_provenance_join_nothing(tmp_path: Path) -> None:
    kin = kinship([raw(tmp_path, "human", [pair("a", "b")])])
    assert (kin.parents, kin.gone) == (frozenset(), {})


def test_a_row_that_a_person_dropped_is_rejected_with_the_reason(tmp_path: Path) -> None:
    human = raw(tmp_path, "human", [pair("a", "b"), pair("c", "d")])
    fix = raw(tmp_path, "fix-1", [], [{"drops": pair("a", "b").id, "why": "it loops"}])
    rows, rejects = read([human, fix])
    assert [row.question for row in rows] == ["c"]
    assert [(one.reason, one.detail) for one in rejects] == [("dropped", "fix-1: it loops")]
