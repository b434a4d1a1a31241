"""The one row type that passes through the whole loop.

On disk a row is one JSON object:
`{"id", "messages": [{"role", "content"}], "meta": {"source", "line", "origin", "group"}}`, plus `"chosen"` and
`"rejected"` for preferences, or `"text"` for raw text.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
ORIGINS = ("human", "generated", "guard", "edited")


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str

    def to_json(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Meta:
    """Where a row came from. `group` keeps rows together that must not be split apart; '' means none given."""

    source: str = ""
    line: int = 0
    origin: str = "human"
    group: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source, "line": self.line, "origin": self.origin, "group": self.group}

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> Meta:
        meta = cls(**obj)
        if type(meta.line) is not int:
            raise TypeError(f"a line number where {json.dumps(meta.line)[:40]} stands")
        _text(meta.source), _text(meta.group), _one_of(ORIGINS, meta.origin)
        return meta


@dataclass(frozen=True, slots=True)
class Row:
    """One example. Exactly one of `messages` and `text` is non-empty."""

    messages: tuple[Message, ...] = ()
    text: str = ""
    chosen: str | None = None
    rejected: str | None = None
    meta: Meta = field(default_factory=Meta)

    @property
    def id(self) -> str:
        """The hash of the content, not of the place: the same row has the same id in every file."""
        payload = [[m.role, m.content] for m in self.messages] or self.text
        blob = json.dumps([payload, self.chosen, self.rejected], ensure_ascii=False)
        return hashlib.sha256(blob.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last answer: what a model is given."""
        return self.messages[:-1] if self.messages and self.messages[-1].role == "assistant" else self.messages

    @property
    def question(self) -> str:
        """The last user message, or the text of a raw row."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), self.text)

    @property
    def answer(self) -> str:
        """The last assistant message, or ''."""
        last = self.messages[-1] if self.messages else None
        return last.content if last is not None and last.role == "assistant" else ""

    @property
    def reference(self) -> str:
        """The answer that a row holds to be right: its last assistant message, or the chosen one of a preference."""
        return self.answer or self.chosen or ""

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"id": self.id}
        if self.messages:
            out["messages"] = [m.to_json() for m in self.messages]
        else:
            out["text"] = self.text
        if self.chosen is not None:
            out["chosen"] = self.chosen
        if self.rejected is not None:
            out["rejected"] = self.rejected
        return out | {"meta": self.meta.to_json()}

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> Row:
        """Read a row that `to_json` wrote. Raises KeyError or TypeError, saying what is wrong, on anything else."""
        row = cls(
            messages=tuple(Message(_one_of(ROLES, m["role"]), _text(m["content"])) for m in obj.get("messages", ())),
            text=_text(obj.get("text", "")),
            chosen=None if obj.get("chosen") is None else _text(obj["chosen"]),
            rejected=None if obj.get("rejected") is None else _text(obj["rejected"]),
            meta=Meta.from_json(obj["meta"]),
        )
        if bool(row.messages) == bool(row.text):
            raise TypeError("either messages or text, and not both")
        return row


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text where {json.dumps(value)[:40]} stands")
    return value


def _one_of(known: tuple[str, ...], value: object) -> str:
    if value not in known:
        raise TypeError(f"one of {', '.join(known)} where {json.dumps(value)[:40]} stands")
    return str(value)


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was left out, with its place and the reason; never dropped silently."""

    source: str
    line: int
    reason: str
    detail: str = ""
    raw: str = ""  # the start of the row as it stood in the file, or all of it where it is short

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "line": self.line,
            "reason": self.reason,
            "detail": self.detail,
            "raw": self.raw,
        }


def pair(prompt: str, completion: str, *, system: str = "", meta: Meta | None = None) -> Row:
    """A single-turn row."""
    head = (Message("system", system),) if system else ()
    turns = (*head, Message("user", prompt), Message("assistant", completion))
    return Row(messages=turns, meta=meta or Meta())
