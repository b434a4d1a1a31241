"""A set's rows to training examples. A row that cannot be trained whole is skipped, said, and counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.records import Row
from tunesmith.text.length import Fitted, OverLength, check_policy, fit
from tunesmith.text.render import Example, Renderer, check_example
from tunesmith.train.plan_batches import Trainable


@dataclass(frozen=True)
class Rendered:
    """A row and its training sequences, whatever their length; none, and why, where it cannot be trained."""

    row: Row
    examples: tuple[Trainable, ...] = ()
    reason: str = ""
    detail: str = ""

    @property
    def tokens(self) -> int:
        """Tokens of the longest sequence; 0 where there is none."""
        return max((len(example.ids) for example in self.examples), default=0)


@dataclass(frozen=True)
class Examples:
    """What is trained, of how many rows, and what was skipped: rows in = rows + len(skipped).

    `fitted` lists the trained rows that were too long and were trimmed or split.
    """

    kept: list[Trainable]
    skipped: list[dict[str, Any]] = field(default_factory=list)
    fitted: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0

    @property
    def trained_tokens(self) -> int:
        return sum(int(np.count_nonzero(e.mask[1:])) for e in self.kept)

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
    """Rows to examples under a limit that is known."""
    return select(render(rows, renderer), renderer, max_length, policy)


def render(rows: Iterable[Row], renderer: Renderer) -> list[Rendered]:
    """Every row once, at full length: what the limit is decided from, and what is trained where it fits.

    Raises DataError for preference rows, which this objective would misuse.
    """
    return [_rendered(row, renderer) for row in rows]


def _rendered(row: Row, renderer: Renderer) -> Rendered:
    if row.chosen is not None or row.rejected is not None:
        what = "the set holds preference rows (chosen, rejected), and this training uses answers only"
        fix = "prepare question/answer rows; preference training is not built yet"
        raise DataError(what, where=_place(row), fix=fix)
    if not row.text and not any(m.role == "assistant" for m in row.messages):
        return Rendered(row, (), "no_answer", "no message of the assistant")
    try:
        return Rendered(row, tuple(renderer.render(row)))
    except DataError as error:
        return Rendered(row, (), "template", error.what)


def select(rendered: Sequence[Rendered], renderer: Renderer, max_length: int, policy: OverLength) -> Examples:
    """What of the rows is trained: those longer than `max_length` tokens are skipped, or fitted by `policy`.

    An answer's end and its stop token are never cut. A failed check stops the run (ModelError): it would fail for the
    whole set alike.
    """
    out = Examples([])
    for one in rendered:
        examples: Sequence[Trainable] = one.examples
        if one.reason:
            out.skipped.append(_note(one.row, one.reason, one.detail))
            continue
        check_policy(one.row, policy)
        if one.tokens > max_length and (fitted := fitted_row(one, renderer, max_length, policy)):
            examples = fitted.examples
            (out.fitted if examples else out.skipped).append(_note(one.row, fitted.action, fitted.detail))
        for example in examples:
            _check(one.row, example, renderer)
        out.kept.extend(examples)
    return replace(out, rows=len(rendered) - len(out.skipped))


def fitted_row(one: Rendered, renderer: Renderer, max_length: int, policy: OverLength) -> Fitted | None:
    """What becomes of a row under the limit; None where it cannot be trained at any length."""
    if one.reason:
        return None
    try:
        return fit(one.row, renderer, max_length, policy, [*map(_listed, one.examples)])
    except DataError as error:  # the template takes the row, but not the shorter one
        return Fitted((), (), "too_long", one.tokens, error.what)


def _check(row: Row, one: Trainable, renderer: Renderer) -> None:
    if (problem := check_example(_listed(one), renderer)) is not None:
        raise ModelError(f"row {row.id} cannot be trained: {problem}", where=_place(row))


def _listed(one: Trainable) -> Example:
    return Example(np.asarray(one.ids).tolist(), np.asarray(one.mask).tolist(), one.row_id)


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


def _place(row: Row) -> str:
    return f"{row.meta.source}:{row.meta.line}"


def _note(row: Row, reason: str, detail: str) -> dict[str, Any]:
    return {"id": row.id, "source": row.meta.source, "line": row.meta.line, "reason": reason, "detail": detail}
