"""Whose column is what: the shape of a file by the vote of its rows, and each row in that shape to a canonical one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.collect.guess import guesses
from tunesmith.collect.readers import Record, shown
from tunesmith.collect.turns import Refused, content, present, turns
from tunesmith.core.errors import DataError, UsageError, did_you_mean
from tunesmith.core.records import ORIGINS, Message, Meta, Reject, Row

VOTERS = 200
ALIASES: dict[str, tuple[str, ...]] = {  # slot of a canonical row -> the columns that people keep it in
    "prompt": ("prompt", "question", "instruction", "query", "problem", "user", "human", "input"),
    "completion": ("completion", "answer", "response", "output", "reply", "assistant", "target"),
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "text": ("text", "document"),
    "input": ("input", "context", "passage"),  # what a prompt is about, put after it
    "system": ("system", "system_prompt"),
    "history": ("history",),
}
OPTIONAL = ("input", "system", "history")
KINDS = {  # what a shape cannot do without -> its kind, richest first
    ("messages", "chosen", "rejected"): "preference",
    ("prompt", "chosen", "rejected"): "preference",
    ("chosen", "rejected"): "preference",
    ("messages",): "messages",
    ("prompt", "completion"): "pair",
    ("text",): "text",
}
CLASSES = ("label", "labels", "category", "class", "sentiment", "intent")  # beside a lone text: the answer
SIGNALS = {  # columns that carry more than this version trains on -> the reason for the reject
    **dict.fromkeys(("tools", "functions", "tool_calls"), "tools"),
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), "media"),
    **dict.fromkeys(("choices", "options"), "choices"),
    **dict.fromkeys(("label", "kto_tag"), "label"),
}
MARKS = {"true", "false", "yes", "no", "1", "0", "-1", "1.0", "0.0", "-1.0", "good", "bad"}  # a label that judges
Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Shape:
    """What a file's rows are, and which column fills which slot. Two rows agree when kind and core are equal."""

    kind: str
    core: Columns

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(f'{slot}={column}' for slot, column in self.core)})"


@dataclass
class Mapped:
    """What became of a file's records."""

    shape: Shape
    why: str
    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    dumped: int = 0  # rows with a value that was no text, kept as its JSON


def map_records(records: Sequence[Record], name: str, given: dict[str, str]) -> Mapped:
    """Decide the shape (from `given` columns, or by vote) and map every record. DataError when no shape is sure."""
    tables = [(record, {fold(key): value for key, value in record.value.items()}) for record in records]
    rows = [row for _, row in tables]
    shape, why = (_given_shape(given, rows, name), "as given") if given else _vote(rows, name)
    out = Mapped(shape, why)
    used = {"id", "meta"}
    for record, row in tables:
        try:
            slots = dict(shape.core) if given else _slots_like(shape, row)
            out.rows.append(_row(shape.kind, row, slots, Meta(name, record.line)))
        except Refused as refused:
            detail = f"{name}:{record.line}: {refused.detail}" if refused.detail else ""
            out.rejects.append(Reject(name, record.line, refused.reason, detail, shown(record.raw)))
            continue
        used |= set(slots.values())
        out.dumped += any(_dumped(row.get(slots.get(slot, ""))) for slot in ("prompt", "input", "completion", "text"))
    out.unused = sorted({key for row in rows for key in row} - used)
    return out


def fold(key: str) -> str:
    """The name of a column without the accidents of writing: `System Prompt` is `system_prompt`."""
    return "_".join(key.strip().casefold().replace("-", " ").split())


def _dumped(value: Any) -> bool:
    return value is not None and not isinstance(value, str)


def _given_shape(given: dict[str, str], rows: list[dict[str, Any]], name: str) -> Shape:
    for slot in given:
        if slot not in ALIASES:
            raise UsageError(f"--map {slot}=...: no such part of an example", fix=did_you_mean(slot, ALIASES))
    core = {slot for slot in given if slot not in OPTIONAL}
    kind = next((kind for needed, kind in KINDS.items() if core == set(needed)), None)
    if kind is None:
        known = "; ".join(" and ".join(needed) for needed in KINDS)
        raise UsageError(f"--map names {', '.join(given)}: that is no whole example", expected=known)
    columns = sorted({key for row in rows for key in row})
    for column in given.values():
        if fold(column) not in columns:
            raise DataError(f"there is no column '{column}'", where=name, fix=did_you_mean(fold(column), columns))
    return Shape(kind, tuple((slot, fold(column)) for slot, column in sorted(given.items())))


def _vote(rows: list[dict[str, Any]], name: str) -> tuple[Shape, str]:
    """The shape of most of up to 200 rows spread over the file: heads of files are not like the rest."""
    count = min(VOTERS, len(rows))
    voters = [rows[i * len(rows) // count] for i in range(count)]
    votes = Counter(shape for row in voters if (shape := _shape(row)) is not None)
    shape, number = votes.most_common(1)[0] if votes else (None, 0)
    if shape is None or 2 * number < count:
        raise _unsure(voters, name)
    return shape, f"{number} of {count} rows looked at"


def _unsure(voters: list[dict[str, Any]], name: str) -> DataError:
    nested = {key: " (nested)" * isinstance(value, list | dict) for row in voters for key, value in row.items()}
    columns = [key + mark for key, mark in nested.items()]
    flags = [f"--map prompt={a} --map completion={b}" for a, b in guesses(voters, ALIASES)]
    tries = [f"tunesmith collect {name} {flag}" for flag in flags or ["--map prompt=COLUMN --map completion=COLUMN"]]
    what = f"which columns hold prompt and answer? There are: {', '.join(columns[:20])}"
    return DataError(what, where=name, expected="usual names, or --map; likeliest first", fix="; or ".join(tries))


def _shape(row: dict[str, Any]) -> Shape | None:
    slots = _slots(row)
    for needed, kind in KINDS.items():
        if slots is not None and all(slot in slots for slot in needed):
            return Shape(kind, tuple((slot, slots[slot]) for slot in needed))
    return None


def _slots(row: dict[str, Any]) -> dict[str, str] | None:
    """Slot -> column by the usual names; None where two columns would fill one slot."""
    found = {slot: [name for name in names if name in row] for slot, names in ALIASES.items()}
    if found["prompt"] != ["input"]:
        found["prompt"] = [name for name in found["prompt"] if name != "input"]
    else:
        found["input"] = [name for name in found["input"] if name != "input"]
    found["messages"] = [name for name in found["messages"] if _is_chat(row[name])]
    if found["messages"] or found["prompt"] or found["completion"] or any(name in row for name in CLASSES):
        found["text"] = []  # beside an example, `text` is its rendering; beside a class, it is the prompt
    if found["messages"]:
        found["prompt"], found["completion"], found["input"] = [], [], []
    if any(len(names) > 1 for names in found.values()):
        return None
    return {slot: names[0] for slot, names in found.items() if names}


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _slots_like(shape: Shape, row: dict[str, Any]) -> dict[str, str]:
    """The row's own slots. Raises Refused when it has another shape or carries a signal that would be lost."""
    for key, value in row.items():
        reason = "choices" if key.startswith("choice") else SIGNALS.get(key)
        if reason == "label" and str(value).strip().casefold() not in MARKS:
            continue  # a category, not a judgement
        if reason and present(value):
            raise Refused(reason, f"the column '{key}'")
    if _shape(row) != shape:
        raise Refused("shape", f"the file's rows are {shape}; this one has {', '.join(row) or 'nothing'}")
    return _slots(row) or {}


def _row(kind: str, row: dict[str, Any], slots: dict[str, str], meta: Meta) -> Row:
    """A canonical row. Raises Refused with the reason when it cannot be one."""
    values = {slot: row.get(column) for slot, column in slots.items()}
    if kind == "text":
        made = Row(text=content(values["text"], "text"), meta=_meta(row, meta))
        if not made.text.strip():
            raise Refused("empty_text")
    elif kind == "preference":
        made = _preference(values, _meta(row, meta))
    else:
        made = Row(messages=_conversation(values, kind), meta=_meta(row, meta))
    _check_characters(made)
    return made


def _meta(row: dict[str, Any], meta: Meta) -> Meta:
    """Origin and group of a row that is canonical already; where it came from is this file."""
    old = row.get("meta")
    if not isinstance(old, dict):
        return meta
    origin = old.get("origin") if old.get("origin") in ORIGINS else meta.origin
    return Meta(meta.source, meta.line, str(origin), str(old.get("group") or ""))


def _conversation(values: dict[str, Any], kind: str) -> tuple[Message, ...]:
    made = _head(values) if kind == "messages" else (*_head(values), _answer(values.get("completion"), "completion"))
    if made[-1].role != "assistant":
        raise Refused("no_answer", f"the last message is the {made[-1].role}'s")
    return made


def _answer(value: Any, name: str) -> Message:
    return Message("assistant", content(value, name))


def _head(values: dict[str, Any]) -> tuple[Message, ...]:
    """What stands before the answer of a pair or preference; the whole of a chat."""
    system = (Message("system", content(values["system"], "system")),) if present(values.get("system")) else ()
    if "messages" in values:
        return turns(values["messages"], system)
    past = values.get("history") or []
    if not isinstance(past, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in past):
        raise Refused("history", "expected a list of [prompt, answer]")
    before = [
        Message(role, content(value, "history"))
        for turn in past
        for role, value in zip(("user", "assistant"), turn, strict=True)
    ]
    parts = [content(values.get("prompt"), "prompt")]
    if present(values.get("input")):
        parts.append(content(values["input"], "input"))
    return (*system, *before, Message("user", "\n\n".join(part for part in parts if part)))


def _preference(values: dict[str, Any], meta: Meta) -> Row:
    """Prompt, chosen and rejected, however the three are spelt: texts, messages, or whole chats with a common start."""
    chosen, rejected = _branch(values["chosen"], "chosen"), _branch(values["rejected"], "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise Refused("preference", "chosen and rejected answer different prompts")
    head = chosen[:-1]
    if "messages" in values or "prompt" in values:
        stated = _head(values)
        if head and head != stated:
            raise Refused("preference", "the prompt and the chats in chosen and rejected differ")
        head = stated
    if not head or head[-1].role != "user":
        raise Refused("preference", "no prompt: it must end with the user")
    return Row(messages=head, chosen=chosen[-1].content, rejected=rejected[-1].content, meta=meta)


def _branch(value: Any, name: str) -> tuple[Message, ...]:
    """An answer, with the turns before it where they are given."""
    if not isinstance(value, list | dict):
        return (_answer(value, name),)
    items = value if isinstance(value, list) else [value]
    made = turns(items, alone=len(items) == 1)
    if made[-1].role != "assistant":
        raise Refused("preference", f"{name} does not end with the assistant")
    return made


def _check_characters(row: Row) -> None:
    """Half a surrogate pair is no character: it stands for bytes that could not be read, or for a cut emoji."""
    whole = "".join([row.text, row.chosen or "", row.rejected or "", *(m.content for m in row.messages)])
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise Refused("bad_characters", f"{whole[error.start]!a} is not a character") from error
