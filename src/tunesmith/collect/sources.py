"""What rows are generated from: the pairs of raw artifacts, and documents in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunesmith.collect.grounding import Chunk, chunks
from tunesmith.core.artifact import MANIFEST, Artifact
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_rows
from tunesmith.core.records import Row
from tunesmith.core.runlog import say
from tunesmith.text.residue import has_residue, unwrap

NO_TEXT = ("<!doctype", "<html", "%pdf-")


@dataclass
class Sources:
    """Rows with a question and an answer, without templates; pieces of documents.

    `collected`: the id that a row was collected with, by its id without the template.
    """

    rows: list[Row] = field(default_factory=list)
    pieces: list[Chunk] = field(default_factory=list)
    collected: dict[str, str] = field(default_factory=dict)


def read_sources(inputs: Sequence[Artifact | Path]) -> Sources:
    """The rows of raw artifacts, and pieces of their raw text and of files.

    Templates that are baked into a file's rows are taken off, as `prepare` does: they are nobody's words. Preferences
    are left out: of two answers neither is the one.
    """
    out = Sources()
    came = [row for given in inputs if isinstance(given, Artifact) for row in _collected(given)]
    bare = unwrap(came)
    for name in bare.names:
        say(f"template taken off: {name}")
    for old, row in zip(came, bare.rows, strict=True):
        if row.text:
            out.pieces += chunks(f"{row.meta.source}:{row.meta.line}", row.text)
        elif row.question.strip() and row.answer.strip() and row.chosen is None:
            out.rows.append(_kin(row, old))
            out.collected[row.id] = old.id
    left = sum(map(has_residue, out.rows))
    if 2 * left > len(out.rows):
        say(f"{left} of {len(out.rows)} rows hold the marks of a prompt template: the model is shown them as they are")
    out.pieces += [piece for given in inputs if isinstance(given, Path) for piece in chunks(given.name, _text(given))]
    return out


def _collected(given: Artifact) -> list[Row]:
    if given.kind != "raw":
        raise _no_source(given.path, given.kind)
    return list(read_rows(given.path / "examples.jsonl"))


def _no_source(path: Path, kind: str) -> UsageError:
    what = f"{path} is a {kind}: rows are made from what was collected, so that `prepare` knows whose children they are"
    fix = "leave it out: all of data/raw is taken, and what is made of a test row stays in the test split"
    return UsageError(what, expected="documents", fix=fix)


def _kin(row: Row, old: Row) -> Row:
    """The row, in the family of the row that was collected."""
    group = row.meta.group or ("" if row.id == old.id else old.id)
    return replace(row, meta=replace(row.meta, group=group))


def _text(path: Path) -> str:
    expected = "a document: Markdown or plain text, in UTF-8"
    if (path / MANIFEST).is_file():
        raise _no_source(path, "finished artifact")
    if not path.is_file():
        raise DataError(f"{path} is not a file", expected=expected)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", expected=expected, fix="save it as UTF-8 text") from error
    if not text.strip() or text.lstrip()[:9].lower().startswith(NO_TEXT):
        raise DataError(f"{path} holds no text to ask about", expected=expected, fix="save its text as Markdown")
    return text
