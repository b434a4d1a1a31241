"""What a recipe is made of: requests for rows, the shape of their answers, and the rows that might be kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tunesmith.collect.grounding import Chunk
from tunesmith.core.records import Message, Meta, Row


@dataclass(frozen=True)
class Candidate:
    """A row that might be kept. `wrong`: why it may not be, found by its recipe; `fresh`: its question must be new."""

    row: Row | None
    trail: Mapping[str, Any]
    wrong: str = ""
    detail: str = ""
    fresh: bool = True


@dataclass(frozen=True)
class Ask:
    """A prompt, the shape of its answer, and how to read that: candidates, and what is to be asked next because of it.

    `expected`: rows that it may bring, its followers' included.
    """

    prompt: str
    schema: Mapping[str, Any]
    read: Callable[[Any], Iterator[Candidate | Ask]]
    expected: int
    sample: int


@dataclass(frozen=True)
class Material:
    """What a recipe works with. `rows`: single answers to learn from; `kept` grows while it runs.

    `collected`: the id that a row was collected with, where a template was taken off since.
    """

    rows: Sequence[Row]
    chunks: Sequence[Chunk]
    topic: str
    reply: str
    seed: int
    ids: Sequence[str] = ()
    collected: Mapping[str, str] = field(default_factory=dict)
    kept: list[Row] = field(default_factory=list)

    def random(self, *place: object) -> Random:
        return Random(" ".join(map(str, (self.seed, *place))))

    def id_of(self, row: Row) -> str:
        """What provenance calls a row: the id in examples.jsonl."""
        return self.collected.get(row.id, row.id)

    def is_named(self, row: Row, name: str) -> bool:
        """Whether its id, with the template or without, is or begins with `name`."""
        return row.id.startswith(name) or self.id_of(row).startswith(name)

    def parents(self) -> list[Row]:
        """The rows to work on, in a seeded order: those that are named, else all that people wrote."""
        named = [row for row in self.rows if any(self.is_named(row, name) for name in self.ids)]
        found = named if self.ids else [row for row in self.rows if row.meta.origin in ("human", "edited")]
        self.random("order").shuffle(found)
        return found


def rows_of(**fields: str) -> dict[str, Any]:
    """The schema of {"rows": [{...}, ...]} with these fields and types."""
    item = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }
    rows = {"type": "array", "items": item}
    return {"type": "object", "properties": {"rows": rows}, "required": ["rows"], "additionalProperties": False}


def form(schema: Mapping[str, Any]) -> str:
    """The last lines of every prompt: the JSON that is wanted, for endpoints that take no schema."""
    fields = schema["properties"]["rows"]["items"]["properties"]
    samples = {"integer": "1", "string": '"..."'}
    item = ", ".join(f'"{name}": {samples[part["type"]]}' for name, part in fields.items())
    return f'\n\nAnswer with JSON alone, in this form:\n{{"rows": [{{{item}}}]}}'


def items(value: Any, schema: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Each element with its fields stripped; None for one that has others than were asked for."""
    fields = schema["properties"]["rows"]["items"]["properties"]
    kinds = {name: part["type"] for name, part in fields.items()}
    for item in value["rows"]:
        found = {name: _field(item.get(name), kind) for name, kind in kinds.items()} if isinstance(item, dict) else {}
        yield found if found and None not in found.values() else None


def _field(value: Any, kind: str) -> str | int | None:
    if kind == "string":
        return value.strip() if isinstance(value, str) else None
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if type(value) is int else None


def misshapen(trail: Mapping[str, Any]) -> Candidate:
    return Candidate(None, trail, "shape", "an element without the fields that were asked for")


def group_of(parent: Row) -> str:
    """What keeps a row and its children in one split: the parent's group, or its id where it has none."""
    return parent.meta.group or parent.id


def with_message(parent: Row, role: str, content: str, origin: str) -> Row:
    """The parent with its last message of a role replaced, as its child."""
    last = max(place for place, message in enumerate(parent.messages) if message.role == role)
    turns = [Message(role, content) if place == last else m for place, m in enumerate(parent.messages)]
    return Row(messages=tuple(turns), meta=Meta(origin=origin, group=group_of(parent)))
