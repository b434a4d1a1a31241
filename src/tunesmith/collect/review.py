"""The review queue: people accept, edit or reject generated rows before they become data.

Each decision is one appended line, so a review that was cut off goes on where it was; nothing is ever overwritten, and
`undo` is a line as well.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import dump, read_jsonl, read_rows, write_json, write_jsonl, write_rows
from tunesmith.core.records import Message, Reject, Row

Verdict = Literal["accept", "edit", "reject", "skip"]
BETWEEN = "\n----- the answer, below this line -----\n"
KEYS = {"a": "accept", "e": "edit", "r": "reject", "s": "skip", "u": "undo", "q": "quit"}
HELP = "  ".join(f"[{key}] {word}" for key, word in KEYS.items())


@dataclass(frozen=True)
class Decision:
    """What was said of one row; `row` is its new text where it was edited."""

    id: str
    verdict: Verdict
    row: Row | None = None
    note: str = ""


class Queue:
    """The rows of a draft and what was decided. `file` holds the decisions, one JSON object a line."""

    def __init__(self, draft: Artifact, file: Path | None = None) -> None:
        self.draft = draft
        self.file = file or draft.path.parent / f"{draft.name}.review.jsonl"
        self.rows = {row.id: row for row in read_rows(draft.path / "examples.jsonl")}
        self._done: list[Decision] = list(self._replayed())
        self._skipped: list[str] = []  # of this session: they come again after all others, and in the next one

    def _replayed(self) -> Iterator[Decision]:
        """The decisions that stand. The half line of a killed process is none, and is ended so that more can follow."""
        raw = self.file.read_bytes() if self.file.is_file() else b""
        whole, _, half = raw.rpartition(b"\n")
        if half:
            with self.file.open("ab") as out:
                out.write(b"\n")
        standing: list[Decision] = []
        for line in whole.split(b"\n"):
            try:
                obj = json.loads(line)
            except ValueError:
                continue
            if obj["verdict"] == "undo":
                standing.pop()
            elif obj["id"] in self.rows:
                row = Row.from_json(obj["row"]) if obj.get("row") else None
                standing.append(Decision(obj["id"], obj["verdict"], row, obj.get("note", "")))
        yield from standing

    @property
    def decided(self) -> dict[str, Decision]:
        """The last decision on each row."""
        return {decision.id: decision for decision in self._done}

    def next(self) -> Row | None:
        """The next row without a decision; those that were skipped in this session come last. None: all are done."""
        decided = self.decided
        waiting = [key for key in self.rows if key not in decided]
        fresh = [key for key in waiting if key not in self._skipped]
        again = [key for key in self._skipped if key in waiting]
        return self.rows[(fresh or again)[0]] if waiting else None

    def decide(self, row: Row, verdict: Verdict, new: Row | None = None, note: str = "") -> None:
        """Write a decision down. An edited row keeps its source and group, and its origin becomes "edited"."""
        if verdict == "skip":
            self._skipped = [key for key in self._skipped if key != row.id] + [row.id]
            return
        if new is not None:
            new = replace(new, meta=replace(row.meta, origin="edited"))
        decision = Decision(row.id, verdict, new, note)
        self._append({"id": row.id, "verdict": verdict, "row": new.to_json() if new else None, "note": note})
        self._done.append(decision)

    def undo(self) -> Row | None:
        """Take the last decision back, and give its row; None where there is none."""
        if not self._done:
            return None
        last = self._done.pop()
        self._append({"id": last.id, "verdict": "undo"})
        return self.rows[last.id]

    def counts(self) -> dict[str, int]:
        """accept, edit, reject, and pending."""
        decided = Counter(decision.verdict for decision in self.decided.values())
        return {name: decided[name] for name in ("accept", "edit", "reject")} | {
            "pending": len(self.rows) - decided.total()
        }

    def _append(self, obj: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8", newline="\n") as out:
            out.write(dump(obj) + "\n")
            out.flush()
            os.fsync(out.fileno())


def close(queue: Queue, out: Path, partial: bool = False) -> Artifact:
    """Seal what was accepted as a raw artifact `out`/<id of the draft>; the others are its rejects.

    Raises UsageError while rows wait, unless `partial`: then they are rejected as not_reviewed.
    """
    counts = queue.counts()
    if counts["pending"] and not partial:
        what = f"{counts['pending']} rows of {queue.draft.name} are not reviewed"
        raise UsageError(what, expected="a decision on each", fix=f"tunesmith review {queue.draft.name}")
    final = out / queue.draft.name
    if final.exists():
        return open_artifact(final, "raw")
    kept, rejects = _parted(queue)
    if not kept:
        raise DataError("no row was accepted", expected=f"rejected: {counts['reject']}, waiting: {counts['pending']}")
    origins = {obj["id"]: obj for obj in read_jsonl(queue.draft.path / "provenance.jsonl")}
    earlier = [Reject(**obj) for obj in read_jsonl(queue.draft.path / "rejects.jsonl")]
    facts = queue.draft.facts
    reasons = dict(Counter(reject.reason for reject in (*earlier, *rejects)))
    facts |= {"kept": len(kept), "rejected": reasons, "review": counts, "draft": queue.draft.hash}
    with writing(final) as work:
        write_rows(work / "examples.jsonl", (row for _, row in kept))
        write_jsonl(work / "rejects.jsonl", (reject.to_json() for reject in (*earlier, *rejects)))
        made = (origins[old] | {"id": row.id} | ({"draft_id": old} if row.id != old else {}) for old, row in kept)
        write_jsonl(work / "provenance.jsonl", made)
        write_json(work / "receipt.json", facts)
        return seal(work, final, "raw", facts)


def _parted(queue: Queue) -> tuple[list[tuple[str, Row]], list[Reject]]:
    """(id in the draft, row) of what was accepted, and the rejects."""
    decided = queue.decided
    kept, rejects = [], []
    for key, row in queue.rows.items():
        decision = decided.get(key)
        if decision is None or decision.verdict == "reject":
            reason, note = ("review", decision.note) if decision else ("not_reviewed", "")
            rejects.append(Reject(row.meta.source, row.meta.line, reason, note, dump(row.to_json())[:400]))
        else:
            kept.append((key, decision.row or row))
    return kept, rejects


def session(
    queue: Queue, read: Callable[[str], str], show: Callable[[Row, dict[str, int]], None], edit: Callable[[Row], Row]
) -> dict[str, int]:
    """Go through the rows until all are decided or the person quits; the counts. `read` asks for a key or a line."""
    while (row := queue.next()) is not None:
        show(row, queue.counts())
        match KEYS.get(read(HELP).strip().lower()[:1]):
            case "accept":
                queue.decide(row, "accept")
            case "edit":
                new = edit(row)
                queue.decide(row, "accept" if new.messages == row.messages else "edit", _changed(row, new))
            case "reject":
                queue.decide(row, "reject", note=read("why (may be empty)").strip())
            case "skip":
                queue.decide(row, "skip")
            case "undo":
                queue.undo()
            case "quit":
                break
    return queue.counts()


def _changed(row: Row, new: Row) -> Row | None:
    return None if new.messages == row.messages else new


def as_text(row: Row) -> str:
    """Question and answer as a person edits them."""
    return f"{row.question}{BETWEEN}{row.answer}\n"


def from_text(row: Row, text: str) -> Row:
    """The row with its last question and answer replaced. Raises DataError where the line between them is gone."""
    question, between, answer = text.partition(BETWEEN.strip("\n"))
    if not between or not question.strip() or not answer.strip():
        raise DataError("the edited row has no question or no answer", expected=f"both, around: {BETWEEN.strip()}")
    turns = list(row.messages)
    asked = max(place for place, message in enumerate(turns) if message.role == "user")
    turns[asked], turns[-1] = Message("user", question.strip()), Message("assistant", answer.strip())
    return replace(row, messages=tuple(turns))


def in_editor(row: Row, editor: str) -> Row:
    """Edit in a program, such as $EDITOR. What cannot be read afterwards leaves the row as it was."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "row.md")
        path.write_text(as_text(row), encoding="utf-8")
        subprocess.run([*shlex.split(editor), str(path)], check=False)
        try:
            return from_text(row, path.read_text(encoding="utf-8"))
        except (DataError, UnicodeDecodeError):
            return row


def in_place(row: Row, read: Callable[[str], str]) -> Row:
    """Edit by typing; an empty line leaves what is there."""
    question = read("question (empty: as it is)").strip() or row.question
    answer = read("answer (empty: as it is)").strip() or row.answer
    return from_text(row, f"{question}{BETWEEN}{answer}")


def terminal(draft: Artifact) -> Queue:
    """Review a draft at the terminal, with $EDITOR where there is one; quit with q, and go on later."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console(stderr=True)
    queue = Queue(draft)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")

    def read(prompt: str) -> str:
        try:
            return console.input(Text(f"{prompt}: "))
        except EOFError:
            return "q"

    def show(row: Row, counts: dict[str, int]) -> None:
        title = f"{row.meta.source}:{row.meta.line}  {row.meta.origin}"
        told = ", ".join(f"{n} {name}" for name, n in counts.items())
        console.print(Panel(Text(row.question), title=Text(title), title_align="left"))
        console.print(Panel(Text(row.answer), subtitle=Text(told), subtitle_align="right"))

    session(queue, read, show, lambda row: in_editor(row, editor) if editor else in_place(row, read))
    return queue
