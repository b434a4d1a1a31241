"""What generated rows say of the rows that they come from: `provenance.jsonl` beside a raw artifact's examples.

A child carries its parent's group, or its parent's id where that has no group: then the parent is given its id as its
group, and both stay in one split. A row that was rewritten gives way to what it was rewritten to; a person who mends
errors may also drop one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tunesmith.core.artifact import Artifact
from tunesmith.core.jsonl import read_jsonl
from tunesmith.core.records import Row


@dataclass(frozen=True)
class Kinship:
    """`parents`: ids of rows with children; `gone`: id of a row -> the reason and the detail of its reject."""

    parents: frozenset[str]
    gone: dict[str, list[str]]

    def adopt(self, row: Row) -> Row:
        """The row, as the head of its family where it has children and no group."""
        if row.meta.group or not self.parents or row.id not in self.parents:
            return row
        return replace(row, meta=replace(row.meta, group=row.id))


def kinship(raw: Sequence[Artifact]) -> Kinship:
    """Of all raw artifacts together: a child may stand in another than its parent."""
    made = [(artifact, one) for artifact in raw for one in _provenance(artifact)]
    parents = frozenset(str(parent) for _, one in made for parent in _list(one.get("parents")))
    gone = {
        str(one["drops"]): ["dropped", f"{artifact.name}: {one['why']}"] for artifact, one in made if "drops" in one
    }
    for artifact, one in made:
        if "replaces" in one:
            gone[str(one["replaces"])] = ["rewritten", f"{artifact.name}:{one['line']}"]
    return Kinship(parents, gone)


def _provenance(artifact: Artifact) -> Iterable[dict[str, object]]:
    path = artifact.path / "provenance.jsonl"
    return read_jsonl(path) if path.is_file() else ()


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
