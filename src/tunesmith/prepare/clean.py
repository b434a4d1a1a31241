"""What is wrong with one row, and which rows are there twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import dump, read_jsonl, read_rows
from tunesmith.core.records import Message, Reject, Row
from tunesmith.prepare.parents import kinship
from tunesmith.text.similar import normalise

RAW = 400  # characters of a rejected row that are kept


def read(raw: Sequence[Artifact]) -> tuple[list[Row], list[Reject]]:
    """The rows of the artifacts in order, and what collect rejected: both are rows that came in. Families are joined.

    Raises DataError when rows of several kinds are mixed: a set trains one objective.
    """
    rows = [row for artifact in raw for row in read_rows(artifact.path / "examples.jsonl")]
    rejects = [Reject(**obj) for artifact in raw for obj in read_jsonl(artifact.path / "rejects.jsonl")]
    for row in rows:
        same_kind((kind(row), place(row)), (kind(rows[0]), place(rows[0])))
    kin = kinship(raw)
    if kin.gone:  # an id is a hash of all that a row says
        rejects += [reject(row, *kin.gone[row.id]) for row in rows if row.id in kin.gone]
        rows = [row for row in rows if row.id not in kin.gone]
    return [kin.adopt(row) for row in rows], rejects


def kind(row: Row) -> str:
    """text, preferences or messages."""
    if row.text:
        return "text"
    return "messages" if row.chosen is None else "preferences"


def same_kind(this: Sequence[str], first: Sequence[str]) -> None:
    """Raise DataError where two rows, each as (kind, place), do not belong into one set."""
    if this[0] != first[0]:
        what = f"{this[0]} among {first[0]} (from {first[1]})"
        fix = "collect the files of each kind into a project of their own"
        raise DataError(what, where=this[1], expected="rows of one kind in a set", fix=fix)


def place(row: Row) -> str:
    return f"{row.meta.source}:{row.meta.line}"


def reject(row: Row, reason: str, detail: str = "") -> Reject:
    return Reject(row.meta.source, row.meta.line, reason, detail, dump(row.to_json())[:RAW])


def with_system(rows: Iterable[Row], system: str) -> list[Row]:
    """The task's system message before every conversation that has none of its own."""
    head = Message("system", system)
    return [
        Row((head, *row.messages), row.text, row.chosen, row.rejected, row.meta)
        if system and row.messages and row.messages[0].role != "system"
        else row
        for row in rows
    ]


def check(rows: Iterable[Row]) -> tuple[list[Row], list[Reject]]:
    """Rows that can be learnt from, and the others with the reason."""
    kept, rejects = [], []
    for row in rows:
        if reason := _wrong(row):
            rejects.append(reject(row, reason))
        else:
            kept.append(row)
    return kept, rejects


def _wrong(row: Row) -> str:
    """Why a row cannot be learnt from, or ''."""
    if any(not message.content.strip() for message in row.messages if message.role == "user"):
        return "empty_prompt"
    answers = [message.content for message in row.messages if message.role == "assistant"]
    answers += [answer for answer in (row.chosen, row.rejected) if answer is not None]
    if any(not answer.strip() for answer in answers):
        return "empty_answer"
    if row.chosen is not None and row.chosen == row.rejected:
        return "no_preference"
    return ""


def drop_duplicates(rows: Iterable[Row]) -> tuple[list[Row], list[Reject]]:
    """Of rows that say the same (case, punctuation and spacing aside) the first stays."""
    first: dict[tuple[str, ...], Row] = {}
    rejects = []
    for row in rows:
        same = first.setdefault(same_key(row), row)
        if same is not row:
            rejects.append(reject(row, "duplicate", f"the same as {place(same)}"))
    return list(first.values()), rejects


def same_key(row: Row) -> tuple[str, ...]:
    """All that a row says."""
    parts = normalise(row.text), normalise(row.chosen or ""), normalise(row.rejected or "")
    return (*parts, *(f"{m.role} {normalise(m.content)}" for m in row.messages))


def answer_key(row: Row) -> tuple[str, ...]:
    """All that a row teaches to answer, and the system message it answers under."""
    said = [m.content for m in row.messages if m.role in ("assistant", "system")]
    return tuple(normalise(part) for part in (*said, row.chosen or "", row.rejected or ""))
