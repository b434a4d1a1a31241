"""Records to canonical rows, once the shape of their file is known: what a row carries is used, or the row refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tunesmith.collect.record import Record, shown
from tunesmith.collect.shape import REFUSED, Shape, refusal, shape_of, slots_of
from tunesmith.collect.turns import Refused, content, parts, present, turns
from tunesmith.core.records import ORIGINS, Message, Meta, Reject, Row

PLURAL = ("answers", "targets", "answer_key")  # columns that may hold several answers, all of them right


@dataclass
class Mapper:
    """Maps the rows of one file, and remembers which of their columns were of no use."""

    shape: Shape
    name: str
    given: bool = False
    dumped: int = 0  # rows with a value that was no text, kept as its JSON
    columns: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=lambda: {"id", "meta"})

    @property
    def unused(self) -> list[str]:
        return sorted(self.columns - self.used)

    def map(self, record: Record, row: dict[str, Any], group: str = "") -> Row | Reject:
        """A canonical row, or a reject with the reason. `row`: the record's values by folded column names."""
        self.columns |= row.keys()
        source = record.source or self.name
        try:
            slots = dict(self.shape.core) if self.given else _slots_like(self.shape, row)
            made = _row(self.shape.kind, row, slots, _meta(row, Meta(source, record.line, group=group)))
            if not self.given:
                _check_rendering(row, slots, made)
        except Refused as refused:
            detail = f"{source}:{record.line}: {refused.detail}" if refused.detail else ""
            return Reject(source, record.line, refused.reason, detail, shown(record.raw))
        self.used |= set(slots.values())
        texts = ("prompt", "input", "completion", "text")
        self.dumped += any(_dumped(row.get(slots[slot]), slots[slot]) for slot in texts if slot in slots)
        return made


def _dumped(value: Any, column: str) -> bool:
    return value is not None and not isinstance(value, str) and column not in PLURAL and not _is_turns(value)


def _slots_like(shape: Shape, row: dict[str, Any]) -> dict[str, str]:
    """The row's own slots. Raises Refused when it has another shape or carries a signal that would be lost."""
    refused = refusal(row)
    if refused:
        raise Refused(refused[0], f"the column '{refused[1]}'")
    if shape == REFUSED or shape_of(row) != shape:
        raise Refused("shape", f"the file's rows are {shape}; this one has {', '.join(row) or 'nothing'}")
    return dict(slots_of(row) or {})


def _check_rendering(row: dict[str, Any], slots: dict[str, str], made: Row) -> None:
    """Beside an example `text` may be its rendering: leaving it out loses nothing. Raises Refused where it is not."""
    text = row.get("text")
    if "text" in slots.values() or not isinstance(text, str) or not text.strip():
        return
    if any(message.content.strip() not in text for message in made.messages):
        raise Refused("text", "the column 'text' says something else than the example beside it")


def _row(kind: str, row: dict[str, Any], slots: dict[str, str], meta: Meta) -> Row:
    """A canonical row. Raises Refused with the reason when it cannot be one."""
    values = {slot: row.get(column) for slot, column in slots.items()}
    if slots.get("completion") in PLURAL:
        values["completion"] = _only(values["completion"])
    if kind == "text":
        made = Row(text=content(values["text"], "text"), meta=meta)
        if not made.text.strip():
            raise Refused("empty_text")
    elif kind == "preference":
        made = _preference(values, meta)
    else:
        made = Row(messages=_conversation(values, kind), meta=meta)
    _check_characters(made)
    return made


def _only(value: Any) -> Any:
    """The one answer in a list of answers. Raises Refused where there is none, or several that differ."""
    if isinstance(value, dict):
        value = value.get("text", value)
    if not isinstance(value, list):
        return value
    said = {item.get("text") if isinstance(item, dict) else item for item in value if not isinstance(item, list)}
    if len(said) != 1:
        raise Refused("answers" if said else "no_answer", f"{len(said)} different answers" if said else "no answer")
    return next(iter(said))


def _meta(row: dict[str, Any], meta: Meta) -> Meta:
    """Origin and group of a row that is canonical already; where it came from is this file."""
    old = row.get("meta")
    if not isinstance(old, dict):
        return meta
    origin = old.get("origin") if old.get("origin") in ORIGINS else meta.origin
    return Meta(meta.source, meta.line, str(origin), str(old.get("group") or meta.group))


def _conversation(values: dict[str, Any], kind: str) -> tuple[Message, ...]:
    if kind == "messages":
        made = _head(values)
    elif _is_turns(values.get("prompt")) or _is_turns(values.get("completion")):
        made = _head({**values, "prompt": [*_turns_of(values, "prompt"), *_turns_of(values, "completion")]})
    else:
        made = (*_head(values), _answer(values.get("completion"), "completion"))
    if made[-1].role != "assistant":
        raise Refused("no_answer", f"the last message is the {made[-1].role}'s")
    return made


def _is_turns(value: Any) -> bool:
    """Messages where a text may stand (TRL's conversational form)."""
    items = value if isinstance(value, list) else []
    return bool(items) and all(isinstance(item, dict) and {"role", "from"} & set(item) for item in items)


def _turns_of(values: dict[str, Any], slot: str) -> list[Any]:
    value = values.get(slot)
    if _is_turns(value):
        return list(value or [])
    return [{"role": "user" if slot == "prompt" else "assistant", "content": content(value, slot)}]


def _answer(value: Any, name: str) -> Message:
    return Message("assistant", content(value, name))


def _head(values: dict[str, Any]) -> tuple[Message, ...]:
    """What stands before the answer of a pair or preference; the whole of a chat."""
    system = (Message("system", parts(values["system"])),) if present(values.get("system")) else ()
    if "messages" in values:
        return turns(values["messages"], system)
    before = (*system, *_history(values.get("history") or []))
    prompt = values.get("prompt")
    if _is_turns(prompt):
        if present(values.get("input")):
            raise Refused("message_shape", "messages with a text beside them")
        return turns(prompt, before)
    texts = [content(values["subject"], "subject")] if present(values.get("subject")) else []
    texts.append(content(prompt, "prompt"))
    if present(values.get("input")):
        texts.append(content(values["input"], "input"))
    return (*before, Message("user", "\n\n".join(text for text in texts if text)))


def _history(past: Any) -> Iterator[Message]:
    """Earlier turns, as LLaMA-Factory and ms-swift have them: [[prompt, answer], ...], as a list or its JSON."""
    if isinstance(past, str):
        try:
            past = json.loads(past)
        except (ValueError, RecursionError):
            past = None
    if not isinstance(past, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in past):
        raise Refused("history", "expected a list of [prompt, answer]")
    for turn in past:
        for role, value in zip(("user", "assistant"), turn, strict=True):
            yield Message(role, content(value, "history"))


def _preference(values: dict[str, Any], meta: Meta) -> Row:
    """Prompt, chosen and rejected, however the three are spelt: texts, messages, or whole chats with a common start."""
    if "chosen" not in values:
        values = _chosen_of_chat(values)
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


def _chosen_of_chat(values: dict[str, Any]) -> dict[str, Any]:
    """ms-swift's preferences: the answer of the example is the better one, and only the worse stands in a column."""
    if "messages" not in values:
        return {**values, "chosen": values.get("completion")}
    said = turns(values["messages"])
    if said[-1].role != "assistant":
        raise Refused("no_answer", f"the last message is the {said[-1].role}'s")
    return {**values, "messages": [message.to_json() for message in said[:-1]], "chosen": said[-1].content}


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
