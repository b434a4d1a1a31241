"""A set's rows to training examples. A row that cannot be trained whole is skipped, said, and counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.records import Row
from tunesmith.text.length import OverLength, fit
from tunesmith.text.render import Example, Renderer, check_example


@dataclass(frozen=True)
class Examples:
    """What is trained, of how many rows, and what was skipped: rows in = rows + len(skipped).

    `fitted` lists the trained rows that were too long and were trimmed or split.
    """

    kept: list[Example]
    skipped: list[dict[str, Any]] = field(default_factory=list)
    fitted: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0

    @property
    def trained_tokens(self) -> int:
        return sum(sum(e.mask[1:]) for e in self.kept)

    @property
    def tokens(self) -> int:
        return sum(len(e.ids) for e in self.kept)


@dataclass(frozen=True)
class Data:
    """The examples of a run, and rows for its fixed probes and samples (held-out ones first)."""

    train: Examples
    valid: Examples
    probes: list[Row]


def build(rows: Iterable[Row], renderer: Renderer, max_length: int, policy: OverLength = "skip") -> Examples:
    """Render and check every row. A failed check stops the run: it would fail for the whole set alike.

    Rows longer than `max_length` tokens are skipped, or fitted by `policy`; an answer's end and its stop token are
    never cut.
    Raises ModelError on a failed check, DataError for preference rows, which this objective would misuse.
    """
    out = Examples([])
    count = 0
    for row in rows:
        if row.chosen is not None or row.rejected is not None:
            what = "the set holds preference rows (chosen, rejected), and this training uses answers only"
            where = f"{row.meta.source}:{row.meta.line}"
            raise DataError(what, where=where, fix="prepare question/answer rows; preference training is not built yet")
        if not row.text and not any(m.role == "assistant" for m in row.messages):
            out.skipped.append(_note(row, "no_answer", "no message of the assistant"))
            continue
        try:
            fitted = fit(row, renderer, max_length, policy)
            found = [example for part in fitted.rows for example in renderer.render(part)]
        except DataError as error:
            out.skipped.append(_note(row, "template", error.what))
            continue
        if not found:
            out.skipped.append(_note(row, fitted.action, fitted.detail))
            continue
        if fitted.action != "whole":
            out.fitted.append(_note(row, fitted.action, fitted.detail))
        for example in found:
            problem = check_example(example, renderer)
            if problem is not None:
                where = f"{row.meta.source}:{row.meta.line}"
                raise ModelError(f"row {row.id} cannot be trained: {problem}", where=where)
        out.kept.extend(found)
        count += 1
    return replace(out, rows=count)


def answered(row: Row) -> Row:
    """A row up to its last answer."""
    last = max((i for i, m in enumerate(row.messages) if m.role == "assistant"), default=-1)
    return replace(row, messages=row.messages[: last + 1])


def question_and_answer(row: Row, renderer: Renderer) -> tuple[list[int], list[int]]:
    """Ids of a row's last prompt and of its answer. Raw text is cut in the middle."""
    if row.text:
        ids = renderer.render(row)[0].ids
        return ids[: len(ids) // 2], ids[len(ids) // 2 :]
    return renderer.prompt(row.prompt), renderer.tokenizer.encode(row.answer, start=False)


def _note(row: Row, reason: str, detail: str) -> dict[str, Any]:
    return {"id": row.id, "source": row.meta.source, "line": row.meta.line, "reason": reason, "detail": detail}
