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


_LLAMA = r"<\|start_header_id\|>{}<\|end_header_id\|>"
# Name, and the whole of a stripped user's message with the parts inside. No part stands beside a `\s*`: on a long run
# of blanks the two would try every way to share it. The parts are stripped once they are found.
WRAPPINGS = (
    ("### Question / ### Answer", _pattern(r"###\s*Question:(?P<prompt>.*?)###\s*Answer:")),
    (
        "### Instruction / ### Response",
        _pattern(
            r"(?:Below is an instruction that describes a task[^\n]*\n\s*)?###\s*Instruction:(?P<prompt>.*?)"
            r"(?:###\s*Input:(?P<input>.*?))?###\s*Response:"
        ),
    ),
    (
        "[INST]",
        _pattern(r"(?:<s>\s*)?\[INST\](?:\s*<<SYS>>(?P<system>.*?)<</SYS>>)?(?P<prompt>.*?)\[/INST\]"),
    ),
    (
        "ChatML",
        _pattern(
            r"(?:<\|im_start\|>system(?P<system>.*?)<\|im_end\|>\s*)?"
            r"<\|im_start\|>user(?P<prompt>.*?)<\|im_end\|>\s*<\|im_start\|>assistant"
        ),
    ),
    (
        "Llama 3",
        _pattern(
            rf"(?:<\|begin_of_text\|>\s*)?(?:{_LLAMA.format('system')}(?P<system>.*?)<\|eot_id\|>\s*)?"
            rf"{_LLAMA.format('user')}(?P<prompt>.*?)<\|eot_id\|>\s*{_LLAMA.format('assistant')}"
        ),
    ),
    (
        "Gemma",
        _pattern(r"(?:<bos>\s*)?<start_of_turn>user(?P<prompt>.*?)<end_of_turn>\s*<start_of_turn>model"),
    ),
    (
        "Phi / Zephyr",
        _pattern(
            r"(?:<\|system\|>(?P<system>.*?)(?:<\|end\|>|</s>)\s*)?"
            r"<\|user\|>(?P<prompt>.*?)(?:<\|end\|>|</s>)\s*<\|assistant\|>"
        ),
    ),
    (  # a second "Assistant:" would be a second turn: a conversation is not flattened
        "Human / Assistant",
        _pattern(r"(?:###\s*)?Human:(?P<prompt>(?:(?!\bAssistant:).)*?)(?:###|\n)[ \t]*Assistant:"),
    ),
    ("USER / ASSISTANT", _pattern(r"USER:(?P<prompt>(?:(?!\bASSISTANT:).)*)ASSISTANT:")),
    ("Q / A", _pattern(r"Q:(?P<prompt>(?:(?!\n[ \t]*A:).)*)\n[ \t]*A:")),
)
LEADING = _pattern(r"\s*(?:###\s*(?:Answer|Response|Assistant):|<\|im_start\|>assistant\n|Assistant:|ASSISTANT:)\s*")
ENDING = re.compile(r"(?:(?:</s>|<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|<\|end\|>|<end_of_turn>|<eos>)\s*)+\Z")
# What tokenizers of the common families read as one control token. In a content it stays text: the renderer sees to it.
CONTROL = re.compile(
    r"<\|[A-Za-z0-9_▁]{2,40}\|>|<｜[^｜<>]{2,40}｜>|</?s>|\[/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk|mask|unused\d+)>|\[(?:PAD|CLS|SEP|MASK|UNK)\]"
    r"|</?(?:think|tool_call|tool_response)>"
)
MARK = re.compile(
    r"###\s*(?:Instruction|Question|Input|Response|Answer):|\[/?INST\]|<</?SYS>>"
    r"|<\|(?:im_start|im_end|start_header_id|end_header_id|eot_id|begin_of_text|endoftext|user|assistant|end)\|>"
    r"|<(?:start|end)_of_turn>|</s>\s*\Z|^(?:###\s*)?(?:Human|Assistant): |^(?:USER|ASSISTANT): "
    r"|Below is an instruction that describes a task",
    re.MULTILINE,
)
# One of these is in every text that MARK finds something in; looking for them is several times as fast.
HINTS = (
    "###",
    "INST]",
    "SYS>>",
    "<|",
    "_of_turn>",
    "</s>",
    "Human: ",
    "Assistant: ",
    "USER: ",
    "ASSISTANT: ",
    "Below is",
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
        for name, bare in takings():
            new = {i: made for i in members if (made := bare(out[i])) is not None}
            if not new:
                continue
            filled = [i for i in members if out[i].question.strip()]
            if filled and sum(i in new for i in filled) >= SHARE * len(filled):
                for i, row in new.items():
                    out[i] = row
                changed |= new.keys()
                names.append(f"{source}: {name}")
    return Unwrapped(out, len(changed), tuple(names))


def takings() -> list[tuple[str, Callable[[Row], Row | None]]]:
    """Every way to take a template off a row: the new row, or None where the row does not wear it."""
    prompts = [(name, partial(_without_wrapping, pattern)) for name, pattern in WRAPPINGS]
    ends = [("the template's mark before the answer", LEADING.match), ("an end-of-turn token", ENDING.search)]
    return [*prompts, *((name, partial(_without_end, find)) for name, find in ends)]


def _without_wrapping(pattern: re.Pattern[str], row: Row) -> Row | None:
    """The row with every user message unwrapped; None unless all of them wear the template, once."""
    made: list[Message] = []
    for message in row.messages:
        if message.role != "user":
            made.append(message)
            continue
        match = pattern.fullmatch(message.content.strip())
        parts = {} if match is None else {name: part.strip() for name, part in match.groupdict("").items()}
        if match is None or any(MARK.search(part) for part in parts.values()):
            return None  # a mark inside is a second turn: a conversation is not flattened
        if parts.get("system"):
            if made:
                return None  # there is a system message already, or this is not the first turn
            made.append(Message("system", parts["system"]))
        made.append(Message("user", "\n\n".join(part for part in (parts["prompt"], parts.get("input", "")) if part)))
    return replace(row, messages=tuple(made)) if made else None


def _without_end(find: Callable[[str], re.Match[str] | None], row: Row) -> Row | None:
    """The row without what `find` finds at one end of its answers; None unless all of them have it."""
    answers = [m.content for m in row.messages if m.role == "assistant"]
    answers += [answer for answer in (row.chosen, row.rejected) if answer is not None]
    if not answers or not all(map(find, answers)):
        return None

    def cut(answer: str) -> str:
        match = find(answer)
        return answer if match is None else (answer[: match.start()].rstrip() + answer[match.end() :])

    messages = tuple(Message(m.role, cut(m.content)) if m.role == "assistant" else m for m in row.messages)
    chosen, rejected = (answer if answer is None else cut(answer) for answer in (row.chosen, row.rejected))
    return replace(row, messages=messages, chosen=chosen, rejected=rejected)


def has_residue(row: Row) -> bool:
    """Does any part of a row still hold the mark of a template?"""
    return any(MARK.search(part) for part in _contents(row) if any(map(part.__contains__, HINTS)))


def control_tokens(row: Row) -> list[str]:
    """The control-token strings that any part of a row holds, each once."""
    found = (match for part in _contents(row) if "<" in part or "[" in part for match in CONTROL.findall(part))
    return list(dict.fromkeys(found))


def _contents(row: Row) -> list[str]:
    return [*(m.content for m in row.messages), row.text, row.chosen or "", row.rejected or ""]
