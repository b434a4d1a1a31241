"""What is said of one file: its part of the receipt, a line on the screen, and why nothing of it was left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.collect.mapping import Mapped
from tunesmith.collect.sniff import Sniffed
from tunesmith.core.errors import DataError
from tunesmith.core.records import Reject
from tunesmith.core.runlog import say

MEND = {  # reason -> what a user can do when no row is left
    "label": "put the rows with good answers in a file without that column; judged answers are not learnt from yet",
    "tools": "leave out tool calls, or the rows that hold them",
    "media": "keep the rows that are text alone",
    "no_answer": "end every conversation with the answer to learn",
    "choices": "name the two columns to use: --map prompt=COLUMN --map completion=COLUMN",
}


@dataclass(frozen=True)
class Source:
    """One file, read and mapped."""

    name: str
    sha256: str
    file: Sniffed
    mapped: Mapped
    rejects: list[Reject]

    def facts(self) -> dict[str, Any]:
        shape, kept = self.mapped.shape, len(self.mapped.rows)
        return {
            "file": self.name,
            "sha256": self.sha256,
            "encoding": self.file.encoding,
            "container": self.file.container,
            "shape": shape.kind,
            "mapping": dict(shape.core),
            "why": self.mapped.why,
            "unused_columns": self.mapped.unused,
            "values_kept_as_json": self.mapped.dumped,
            "rows_in": kept + len(self.rejects),
            "kept": kept,
            "rejected": dict(Counter(reject.reason for reject in self.rejects)),
        }


def nothing_left(name: str, rejects: Sequence[Reject]) -> DataError:
    """The error for a file of which no row can be kept, with the commonest reason and its first place."""
    if not rejects:
        return DataError("there are no rows", where=name)
    reason, count = Counter(reject.reason for reject in rejects).most_common(1)[0]
    first = next(reject for reject in rejects if reject.reason == reason)
    where = f"{name}:{first.line}"
    why = f" ({first.detail.removeprefix(where).lstrip(': ')})" if first.detail else ""
    what = f"no row is left: {count} of {len(rejects)} are rejected for '{reason}'{why}"
    return DataError(what, where=where, fix=MEND.get(reason, ""))


def tell(source: Source) -> None:
    """One line about a file, and one for each thing that its owner may not expect."""
    facts = source.facts()
    rejected = "".join(f", {n} {reason}" for reason, n in facts["rejected"].items())
    how = f"{facts['container']}, {facts['encoding']}; {source.mapped.shape}, {facts['why']}"
    say(f"{source.name}: {how}; {facts['rows_in']} rows, {facts['kept']} kept{rejected}")
    if source.mapped.unused:
        say(f"  columns not used: {', '.join(source.mapped.unused)}")
    if source.mapped.dumped:
        say(f"  values that are no text, kept as JSON: {source.mapped.dumped} rows")
