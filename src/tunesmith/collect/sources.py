"""What rows are generated from: the pairs of raw artifacts, and documents in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.collect.grounding import Chunk, chunks
from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_rows
from tunesmith.core.records import Row

NO_TEXT = ("<!doctype", "<html", "%pdf-")


def read_sources(inputs: Sequence[Artifact | Path]) -> tuple[list[Row], list[Chunk]]:
    """Rows with a question and an answer, and pieces of documents: of files, and of raw text in artifacts.

    Preferences are left out: of two answers neither is the one.
    """
    rows: list[Row] = []
    pieces: list[Chunk] = []
    for given in inputs:
        if isinstance(given, Path):
            pieces += chunks(given.name, _document(given))
            continue
        for row in read_rows(given.path / "examples.jsonl"):
            if row.text:
                pieces += chunks(f"{row.meta.source}:{row.meta.line}", row.text)
            elif row.question.strip() and row.answer.strip() and row.chosen is None:
                rows.append(row)
    return rows, pieces


def _document(path: Path) -> str:
    expected = "a document: Markdown or plain text, in UTF-8"
    if not path.is_file():
        raise DataError(f"{path} is not a file", expected=expected)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", expected=expected, fix="save it as UTF-8 text") from error
    if not text.strip() or text.lstrip()[:9].lower().startswith(NO_TEXT):
        raise DataError(f"{path} holds no text to ask about", expected=expected, fix="save its text as Markdown")
    return text
