"""Accepted proposals as raw rows: what was edited and added, and by provenance what gives way or goes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import dump, read_rows, write_json, write_jsonl, write_rows
from tunesmith.core.records import Message, Row
from tunesmith.diagnose.fixes import Proposal

FIX = "fix-"  # what the names of these raw artifacts begin with


def mend(proposals: Sequence[Proposal], raw: Sequence[Artifact], errors: Artifact, out: Path) -> Artifact:
    """Write `out`/<id>, which `prepare` reads beside the others. The same proposals give the same artifact.

    `raw`: all that the set was prepared from, where each edited or dropped row is found by its file, line and answer.
    Raises DataError where one is no longer there, or where nothing was accepted.
    """
    if not proposals:
        raise DataError("no proposal was accepted", fix=f"tunesmith fix {errors.name} --accept all")
    identity = hashlib.sha256(dump([errors.hash, [p.to_json() for p in proposals]]).encode()).hexdigest()[:12]
    final = out / f"{FIX}{identity}"
    if final.exists():
        return open_artifact(final, "raw")
    every = [row for artifact in raw for row in read_rows(artifact.path / "examples.jsonl")]
    places = _places(every)
    kept: list[Row] = []
    provenance: list[dict[str, Any]] = []
    for proposal in proposals:
        old = _found(proposal.row, places) if proposal.row else None
        told = {"category": proposal.category, "why": proposal.why, "proposal": proposal.id, "errors": errors.name}
        if proposal.new is None:
            provenance.append({"drops": old.id if old else "", **told})
            continue
        row = _edited(old, proposal) if old else _added(proposal.new, every)
        kept.append(row)
        link = {"replaces": old.id} if old else {"parents": [row.meta.group] if row.meta.group else []}
        provenance.append({"id": row.id, "line": len(kept), **link, **told})
    actions = dict(Counter(proposal.action for proposal in proposals))
    facts = {"raw_id": final.name, "rows_in": len(kept), "kept": len(kept), "rejected": {}, "actions": actions}
    facts |= {"errors": errors.name, "parent": errors.hash}
    with writing(final) as work:
        write_rows(work / "examples.jsonl", kept)
        write_jsonl(work / "rejects.jsonl", [])
        write_jsonl(work / "provenance.jsonl", provenance)
        write_json(work / "receipt.json", facts)
        return seal(work, final, "raw", facts)


def _places(every: Sequence[Row]) -> Mapping[tuple[str, int], list[Row]]:
    """The raw rows by file and line; what was mended before stands at the place of what it replaced."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in every:
        found.setdefault((row.meta.source, row.meta.line), []).append(row)
    return found


def _found(row: Row, places: Mapping[tuple[str, int], list[Row]]) -> Row:
    """The raw row of a prepared one: `prepare` takes templates off and puts a system message before it."""
    here = places.get((row.meta.source, row.meta.line), [])
    fits = [one for one in here if row.answer in one.answer and row.question in one.question]
    if not fits:
        where = f"{row.meta.source}:{row.meta.line}"
        raise DataError(
            "the row is no longer there as it was", where=where, fix="tunesmith prepare, then diagnose again"
        )
    return fits[-1]


def _edited(old: Row, proposal: Proposal) -> Row:
    """The raw row with what the proposal changed; a template around it stays, so that `prepare` still finds it."""
    before, after = proposal.row, proposal.new
    assert before is not None, "an edit has a row"
    assert after is not None, "an edit has a new row"
    asked = max(place for place, message in enumerate(old.messages) if message.role == "user")
    turns = list(old.messages)
    turns[asked] = Message("user", old.question.replace(before.question, after.question))
    turns[-1] = Message("assistant", old.answer.replace(before.answer, after.answer))
    return replace(old, messages=tuple(turns), meta=replace(old.meta, origin="edited"))


def _added(new: Row, every: Sequence[Row]) -> Row:
    """A new row beside the raw row with its answer, in whose split it belongs; without a system message of the set."""
    parent = next((row for row in every if new.answer in row.answer), None)
    group = (parent.meta.group or parent.id) if parent else ""
    has_system = parent is not None and parent.messages[0].role == "system"
    turns = new.messages if has_system else tuple(message for message in new.messages if message.role != "system")
    return replace(new, messages=turns, meta=replace(new.meta, group=group))
