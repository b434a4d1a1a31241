"""One file on its way to rows: what it is, which shape its rows have, and what became of each of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tunesmith.collect import tickets
from tunesmith.collect.mapping import Mapper
from tunesmith.collect.readers import read
from tunesmith.collect.record import Record
from tunesmith.collect.shape import Shape, given_shape, unnest, vote
from tunesmith.collect.sniff import Sniffed
from tunesmith.core.errors import DataError
from tunesmith.core.records import Reject, Row
from tunesmith.core.runlog import say

MEND = {  # reason -> what a user can do when no row is left
    "label": "put the rows with good answers in a file without that column; judged answers are not learnt from yet",
    "tools": "leave out tool calls, or the rows that hold them",
    "media": "keep the rows that are text alone",
    "no_answer": "end every conversation with the answer to learn",
    "choices": "multiple choice is for benchmarks; to learn from it, name two columns: --map prompt=COLUMN "
    "--map completion=COLUMN",
    "text": "name the two columns to use: --map prompt=COLUMN --map completion=COLUMN",
    "tokenized": "collect the texts and not their tokens",
    "weights": "leave out the weights where every answer is to be learnt; split the conversation where some are not",
    "answers": "name one answer a question: --map prompt=COLUMN --map completion=COLUMN",
    "no_reply": "an answer is a reply by another person than the one who asked",
}
TEXT_NOTE = "raw text, for pretraining: there are no questions and answers in it"


@dataclass
class Source:
    """A file that was looked at once: its shape is decided, its rows are mapped as they are read the second time."""

    file: Sniffed
    shape: Shape
    why: str
    given: bool = False
    passed: list[str] = field(default_factory=list)  # members of its archive that were passed over
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    first: dict[str, Reject] = field(default_factory=dict)  # reason -> its first reject

    def __post_init__(self) -> None:
        self.passed += self.file.blob.skipped
        self.mapper = Mapper(self._shape_of_rows(), self.name, self.given)

    @property
    def name(self) -> str:
        return self.file.blob.name

    def _shape_of_rows(self) -> Shape:
        return Shape("messages", (("messages", "messages"),)) if self.shape.kind == "tickets" else self.shape

    def items(self) -> Iterator[Row | Reject]:
        """Every row of the file, kept or not, in the order of the file; counts them. Call it once."""
        for item in self._items():
            if isinstance(item, Reject):
                self.rejected[item.reason] += 1
                self.first.setdefault(item.reason, item)
            else:
                self.kept += 1
            yield item

    def _items(self) -> Iterator[Row | Reject]:
        if self.shape.kind == "tickets":
            yield from self._tickets()
            return
        for item in read(self.file):
            if isinstance(item, Reject):
                yield item
                continue
            inner = unnest(item.value)
            group = _hash(item.value) if len(inner) > 1 else ""
            for row in inner:
                yield self.mapper.map(item, row, group)

    def _tickets(self) -> Iterator[Row | Reject]:
        rows: list[tuple[Record, dict[str, Any]]] = []
        for item in read(self.file):
            if isinstance(item, Reject):
                yield item
            else:
                rows += [(item, row) for row in unnest(item.value)]
        for ticket in tickets.gather(rows, self.shape, self.name):
            yield ticket if isinstance(ticket, Reject) else self.mapper.map(ticket, ticket.value)

    def facts(self) -> dict[str, Any]:
        """The part of the receipt that is about this file."""
        return {
            "file": self.name,
            "encoding": self.file.encoding,
            "container": self.file.container,
            "shape": self.shape.kind,
            "mapping": dict(self.shape.core),
            "why": self.why,
            "unused_columns": self.mapper.unused,
            "values_kept_as_json": self.mapper.dumped,
            "members_passed_over": self.passed,
            "rows_in": self.kept + self.rejected.total(),
            "kept": self.kept,
            "rejected": dict(self.rejected),
        }

    def check(self) -> None:
        """Raise DataError when no row could be kept, with the commonest reason and its first place."""
        if self.kept:
            return
        if not self.rejected:
            raise DataError("there are no rows", where=self.name)
        reason, count = max(self.rejected.items(), key=lambda item: (item[1], item[0]))
        first = self.first[reason]
        where = f"{first.source}:{first.line}"
        why = f" ({first.detail.removeprefix(where).lstrip(': ')})" if first.detail else ""
        what = f"no row is left: {count} of {self.rejected.total()} are rejected for '{reason}'{why}"
        raise DataError(what, where=where, fix=MEND.get(reason, ""))

    def tell(self) -> None:
        """One line about the file, and one for each thing that its owner may not expect."""
        if self.file.notice:
            say(self.file.notice)
        rejected = "".join(f", {n} {reason}" for reason, n in self.rejected.items())
        how = f"{self.file.container}, {self.file.encoding}; {self.shape}, {self.why}"
        say(f"{self.name}: {how}; {self.kept + self.rejected.total()} rows, {self.kept} kept{rejected}")
        notes = {
            "columns not used": ", ".join(self.mapper.unused),
            "values that are no text, kept as JSON": f"{self.mapper.dumped} rows" if self.mapper.dumped else "",
            "members of the archive passed over": ", ".join(self.passed),
            TEXT_NOTE: f"{self.kept} documents" if self.file.container == "text" else "",
        }
        for note, value in notes.items():
            if value:
                say(f"  {note}: {value}")


def _hash(value: dict[str, Any]) -> str:
    """What keeps the rows of one object together: its content, wherever it stands."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def look(file: Sniffed, given: dict[str, str]) -> Source:
    """Decide the shape of a file, from `given` columns or by the vote of its rows. DataError when no shape is sure."""

    def rows() -> Iterator[dict[str, Any]]:
        for item in read(file):
            if isinstance(item, Record):
                yield from unnest(item.value)

    name = file.blob.name
    if next(rows(), None) is None:
        return Source(file, Shape("none"), "no row can be read")
    if given:
        return Source(file, given_shape(given, rows, name), "as given", True)
    return Source(file, *vote(rows, name, file.blob.typed))
