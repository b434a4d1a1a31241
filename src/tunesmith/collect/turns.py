"""Chats as people store them to messages: OpenAI's role/content, ShareGPT's from/value, and their dialects."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tunesmith.core.records import Message

ROLES = {
    **dict.fromkeys(("user", "human", "customer", "client", "prompter", "question", "q"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "agent", "support", "ai"), "assistant"),
    **dict.fromkeys(("chatgpt", "chatbot", "bing", "answer", "a"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "function_call", "function_response", "observation", "observations"), "tools"),
}
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value")
WEIGHTS = ("weight", "train", "loss", "train_detail")  # whether, or how much, a message is trained
SIGNALS = {  # keys of a message that carry more than its text -> the reason for the reject
    **dict.fromkeys(("tool_calls", "function_call", "tool_call_id"), "tools"),
    **dict.fromkeys(("reasoning_content", "thinking"), "reasoning"),
}
FOLLOWS = {("system", "user"), ("user", "assistant"), ("assistant", "user")}


class Refused(Exception):
    """A row that cannot be taken, with the reason that is counted and the detail that is shown."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(reason)


def present(value: Any) -> bool:
    return value not in (None, "", [], {}) and not (isinstance(value, float) and math.isnan(value))


def content(value: Any, name: str) -> str:
    """A text as it is, another value as its JSON. Raises Refused on nothing."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise Refused("null", f"'{name}' has no value")
    return json.dumps(value, ensure_ascii=False)


def turns(value: Any, system: tuple[Message, ...] = (), alone: bool = False) -> tuple[Message, ...]:
    """Messages in a valid order (system?, then user and assistant by turns), or one message where it stands alone.

    `system` is one kept in a column of its own. Raises Refused with the reason on anything else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Refused("message_shape", "the list of messages is not valid JSON") from error
    if not isinstance(value, list) or not value:
        raise Refused("no_messages" if not value else "message_shape", "expected a list of messages")
    made = (*system, *(_message(item) for item in value))
    if not alone:
        _check_order([message.role for message in made])
    _check_names(value, made[len(system) :])
    return made


def _check_order(roles: Sequence[str]) -> None:
    wrong = next((pair for pair in pairwise(roles) if pair not in FOLLOWS), None)
    if wrong:
        raise Refused("role_order", f"{wrong[1]} after {wrong[0]}")
    if roles[0] == "assistant":
        raise Refused("role_order", "the assistant speaks first")
    if "user" not in roles:
        raise Refused("no_prompt", "nobody asks anything")


def _check_names(items: list[Any], made: Sequence[Message]) -> None:
    """Two people behind one role would become one."""
    names: dict[str, set[str]] = {}
    for item, message in zip(items, made, strict=True):
        names.setdefault(message.role, set()).update([str(item["name"])] if present(item.get("name")) else [])
    crowd = next((role for role, known in names.items() if len(known) > 1), None)
    if crowd is not None:
        raise Refused("names", f"several people are the {crowd}: {', '.join(sorted(names[crowd]))}")


def _check_weights(item: dict[str, Any], role: str) -> None:
    """Every answer of a row is trained alike, and nothing else: a row that asks for more would lose it."""
    for key in WEIGHTS:
        value = item.get(key)
        wanted = (1, True) if role == "assistant" else (0, 1) if key == "weight" else (0, False)
        if value is not None and (not isinstance(value, int | float) or value not in wanted):
            raise Refused("weights", f"a message of the {role} with '{key}': {json.dumps(value)[:40]}")


def _message(item: Any) -> Message:
    if not isinstance(item, dict):
        raise Refused("message_shape", f"a message that is a {type(item).__name__}")
    for key, reason in SIGNALS.items():
        if present(item.get(key)):
            raise Refused(reason, f"a message with '{key}'")
    said, text = (next((key for key in keys if key in item), None) for keys in (ROLE_KEYS, CONTENT_KEYS))
    if said is None or text is None:
        raise Refused("message_shape", f"a message with {', '.join(item) or 'nothing'}")
    role = ROLES.get(str(item[said]).strip().casefold())
    if role is None:
        raise Refused("unknown_role", f"the role {item[said]!r}")
    if role == "tools":
        raise Refused("tools", f"a message of role {item[said]!r}")
    _check_weights(item, role)
    return Message(role, parts(item[text]))


def parts(value: Any) -> str:
    """The text of a message, given whole or as content parts: OpenAI's with a type, Bedrock's without."""
    items = value if isinstance(value, list) else []
    if not items or not all(isinstance(item, dict) and {"type", "text"} & set(item) for item in items):
        return content(value, "content")
    other = next((part["type"] for part in value if part.get("type", "text") != "text"), None)
    if other is not None:
        raise Refused("media", f"a content part of type {other!r}")
    return "".join(content(part.get("text"), "text") for part in value)
