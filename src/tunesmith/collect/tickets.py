"""A table with a message a row (tickets, chats) to conversations: the rows of a ticket, by time where it is given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tunesmith.collect.record import Record, shown
from tunesmith.collect.shape import Shape, refusal, shape_of
from tunesmith.collect.turns import ROLES, present
from tunesmith.core.records import Reject

TIMES = ("timestamp", "created_at", "sent_at", "created", "datetime", "date", "time")
YES, NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
HIDDEN = dict.fromkeys(("internal", "is_internal", "private", "is_private"), YES) | {"public": NO, "is_public": NO}
WHO = {"inbound": "user", "incoming": "user", "outbound": "assistant", "outgoing": "assistant", "end_user": "user"}
WHO |= {"requester": "user", "visitor": "user", "staff": "assistant", "operator": "assistant", "admin": "assistant"}


@dataclass(frozen=True)
class Note:
    record: Record
    sender: str
    text: str
    when: str


def gather(rows: Iterable[tuple[Record, dict[str, Any]]], shape: Shape, name: str) -> Iterator[Record | Reject]:
    """A record with `messages` for each ticket, a reject for each row that is part of none. Holds the whole file."""
    slots = dict(shape.core)
    tickets: dict[str, list[Note]] = {}
    for record, row in rows:
        text, sender, key = (str(row.get(slots[slot]) or "").strip() for slot in ("message", "sender", "ticket"))
        refused = refusal(row)
        reason = refused[0] if refused else "internal" if _hidden(row) else "shape" if shape_of(row) != shape else ""
        if reason := reason or ("" if text and sender and key else "null"):
            yield _reject(record, name, reason)
            continue
        when = next((str(row[column]) for column in TIMES if present(row.get(column))), "")
        tickets.setdefault(key, []).append(Note(record, sender.casefold().replace("-", "_"), text, when))
    for key, notes in tickets.items():
        yield from _ticket(key, notes, name)


def _hidden(row: dict[str, Any]) -> bool:
    """A note between colleagues: no customer was to read it."""
    return any(str(row[key]).strip().casefold() in marks for key, marks in HIDDEN.items() if key in row)


def _ticket(key: str, notes: list[Note], name: str) -> Iterator[Record | Reject]:
    """The messages of a ticket up to the last answer, one after another; what comes later is rejected."""
    times = [_time(note.when) for note in notes]
    if None not in times:
        order = sorted(range(len(notes)), key=lambda at: (times[at], notes[at].record.line))
        notes = [notes[at] for at in order]
    roles = _roles(notes)
    last = max((at for at, role in enumerate(roles) if role == "assistant"), default=-1)
    messages: list[dict[str, str]] = []
    for role, note in zip(roles[: last + 1], notes, strict=False):
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{note.text}"
        else:
            messages.append({"role": role, "content": note.text})
    if messages:
        first = notes[0].record
        yield Record(first.line, {"messages": messages, "meta": {"group": f"{name}:{key}"}}, first.raw, first.source)
    for note in notes[last + 1 :]:
        yield _reject(note.record, name, "not_needed" if messages else "no_reply")


def _roles(notes: list[Note]) -> list[str]:
    """By what the sender is called; where that says nothing, who writes first asks, and all others answer."""
    known = [WHO.get(note.sender) or ROLES.get(note.sender) for note in notes]
    if all(role in ("user", "assistant") for role in known):
        return [str(role) for role in known]
    return ["user" if note.sender == notes[0].sender else "assistant" for note in notes]


def _time(text: str) -> float | None:
    if re.fullmatch(r"\d{1,15}(\.\d+)?", text):
        return float(text)
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _reject(record: Record, name: str, reason: str) -> Reject:
    source = record.source or name
    what = {
        "internal": "a note between colleagues",
        "no_reply": "nobody answered this ticket",
        "not_needed": "said after the last answer",
        "null": "a message without text, sender or ticket",
        "shape": "other columns than most of the file",
    }.get(reason, "it carries what is not learnt from yet")
    return Reject(source, record.line, reason, f"{source}:{record.line}: {what}", shown(record.raw))
