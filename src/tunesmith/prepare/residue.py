"""Prompt templates that are baked into the rows themselves: found, and taken off where a whole file wears one.

A template left inside the rows would be put on twice, in training and in every request after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tunesmith.core.records import Message, Row

SHARE = 0.95  # of a file's non-empty rows must wear a template before it is taken off


def _pattern(source: str) -> re.Pattern[str]:
    return re.compile(source, re.DOTALL)


_LLAMA = r"<\|start_header_id\|>{}<\|end_header_id\|>\s*"
WRAPPINGS = (  # name, the whole of a user's message with the parts inside
    ("### Question / ### Answer", _pattern(r"\s*###\s*Question:\s*(?P<prompt>.*?)\s*###\s*Answer:\s*")),
    (
        "### Instruction / ### Response",
        _pattern(
            r"\s*(?:Below is an instruction that describes a task[^\n]*\n\s*)?###\s*Instruction:\s*(?P<prompt>.*?)"
            r"(?:\s*###\s*Input:\s*(?P<input>.*?))?\s*###\s*Response:\s*"
        ),
    ),
    (
        "[INST]",
        _pattern(
            r"\s*(?:<s>)?\s*\[INST\]\s*(?:<<SYS>>\s*(?P<system>.*?)\s*<</SYS>>\s*)?(?P<prompt>.*?)\s*\[/INST\]\s*"
        ),
    ),
    (
        "ChatML",
        _pattern(
            r"\s*(?:<\|im_start\|>system\s*(?P<system>.*?)\s*<\|im_end\|>\s*)?"
            r"<\|im_start\|>user\s*(?P<prompt>.*?)\s*<\|im_end\|>\s*<\|im_start\|>assistant\s*"
        ),
    ),
    (
        "Llama 3",
        _pattern(
            rf"\s*(?:<\|begin_of_text\|>)?\s*(?:{_LLAMA.format('system')}(?P<system>.*?)\s*<\|eot_id\|>\s*)?"
            rf"{_LLAMA.format('user')}(?P<prompt>.*?)\s*<\|eot_id\|>\s*{_LLAMA.format('assistant')}"
        ),
    ),
    ("Human / Assistant", _pattern(r"\s*Human:\s*(?P<prompt>.*?)\s*\n\s*Assistant:\s*")),
)
ENDING = re.compile(r"\s*(?:(?:</s>|<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|<end_of_turn>)\s*)+\Z")
MARK = re.compile(
    r"###\s*(?:Instruction|Question|Input|Response|Answer):|\[/?INST\]|<</?SYS>>"
    r"|<\|(?:im_start|im_end|start_header_id|end_header_id|eot_id|begin_of_text|endoftext)\|>|<end_of_turn>|</s>\s*\Z"
    r"|^(?:Human|Assistant): |Below is an instruction that describes a task",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Unwrapped:
    """Rows without their templates. `count` rows were changed; `names` says by which file and template."""

    rows: list[Row]
    count: int
    names: tuple[str, ...]


def unwrap(rows: Sequence[Row]) -> Unwrapped:
    """Take off every template that at least 95 % of a file's non-empty rows wear; order is kept."""
    out = list(rows)
    changed: set[int] = set()
    names = []
    sources: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        sources.setdefault(row.meta.source, []).append(i)
    for source, members in sources.items():
        for name, bare in _takings():
            new = {i: made for i in members if (made := bare(out[i])) is not None}
            filled = [i for i in members if out[i].question.strip()]
            if filled and sum(i in new for i in filled) >= SHARE * len(filled):
                for i, row in new.items():
                    out[i] = row
                changed |= new.keys()
                names.append(f"{source}: {name}")
    return Unwrapped(out, len(changed), tuple(names))


def _takings() -> list[tuple[str, Callable[[Row], Row | None]]]:
    """Every way to take a template off a row: the new row, or None where the row does not wear it."""
    prompts = [(name, partial(_without_wrapping, pattern)) for name, pattern in WRAPPINGS]
    return [*prompts, ("an end-of-turn token", _without_ending)]


def _without_wrapping(pattern: re.Pattern[str], row: Row) -> Row | None:
    """The row with every user message unwrapped; None unless all of them wear the template, once."""
    made: list[Message] = []
    for message in row.messages:
        if message.role != "user":
            made.append(message)
            continue
        match = pattern.fullmatch(message.content)
        if match is None or any(MARK.search(part) for part in match.groupdict("").values()):
            return None  # a mark inside is a second turn: a conversation is not flattened
        parts = match.groupdict("")
        if parts.get("system"):
            if made:
                return None  # there is a system message already, or this is not the first turn
            made.append(Message("system", parts["system"]))
        made.append(Message("user", "\n\n".join(part for part in (parts["prompt"], parts.get("input", "")) if part)))
    return replace(row, messages=tuple(made)) if made else None


def _without_ending(row: Row) -> Row | None:
    """The row without a trailing end-of-turn token in its answers; None unless all of them have one."""
    answers = [m.content for m in row.messages if m.role == "assistant"]
    answers += [answer for answer in (row.chosen, row.rejected) if answer is not None]
    if not answers or not all(ENDING.search(answer) for answer in answers):
        return None
    messages = tuple(Message(m.role, _cut(m.content)) if m.role == "assistant" else m for m in row.messages)
    chosen, rejected = (answer if answer is None else _cut(answer) for answer in (row.chosen, row.rejected))
    return replace(row, messages=messages, chosen=chosen, rejected=rejected)


def _cut(answer: str) -> str:
    return ENDING.sub("", answer)


def has_residue(row: Row) -> bool:
    """Does any part of a row still hold the mark of a template?"""
    parts = [*(m.content for m in row.messages), row.text, row.chosen or "", row.rejected or ""]
    return any(MARK.search(part) for part in parts)
