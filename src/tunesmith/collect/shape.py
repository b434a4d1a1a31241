"""Whose column is what: the shape of a row by the names of its columns, and of a file by the vote of all its rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tunesmith.collect.guess import guesses
from tunesmith.collect.turns import present
from tunesmith.core.errors import DataError, UsageError, did_you_mean

ALIASES: dict[str, tuple[str, ...]] = {  # slot of a canonical row -> the columns that people keep it in
    "prompt": ("prompt", "question", "instruction", "query", "problem", "user", "human", "input"),
    "completion": ("completion", "answer", "response", "output", "reply", "assistant", "target"),
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog"),
    "chosen": ("chosen", "preferred_output"),
    "rejected": ("rejected", "rejected_response", "non_preferred_output"),
    "text": ("text", "document"),
    "input": ("input", "context", "passage", "article"),  # what a prompt is about, put after it
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "subject": ("subject", "ticket_subject", "title"),  # put before the description of a ticket
}
SECOND: dict[str, tuple[str, ...]] = {  # names that mean so only where the first ones fill no slot
    "prompt": ("description", "ticket_description", "body", "article", "message_1"),
    "completion": ("resolution", "solution", "generation", "summary", "message_2", "targets", "answer_key", "answers"),
}
TICKETS = ("description", "ticket_description", "body")  # prompts that have a subject
OPTIONAL = ("input", "system", "history", "subject")
KINDS = {  # what a shape cannot do without -> its kind, richest first
    ("messages", "chosen", "rejected"): "preference",
    ("prompt", "chosen", "rejected"): "preference",
    ("chosen", "rejected"): "preference",
    ("messages", "rejected"): "preference",
    ("prompt", "completion", "rejected"): "preference",
    ("messages",): "messages",
    ("prompt", "completion"): "pair",
    ("ticket", "sender", "message"): "tickets",
    ("text",): "text",
}
THREAD: dict[str, tuple[str, ...]] = {  # a table with a message a row
    "ticket": ("ticket_id", "ticket", "conversation_id", "thread_id", "case_id", "issue_id", "chat_id", "session_id"),
    "sender": ("role", "sender_type", "author_type", "sender", "from", "author", "speaker", "user"),
    "message": ("message", "body", "comment", "content", "text", "utterance"),
}
CLASSES = ("label", "labels", "category", "class", "sentiment", "intent")  # beside a lone text: the answer
SIGNALS = {  # columns that carry more than this version trains on -> the reason for the reject
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call"), "tools"),
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), "media"),
    **dict.fromkeys(("input_ids", "token_ids"), "tokenized"),
    **dict.fromkeys(("choices", "options"), "choices"),
    **dict.fromkeys(("corrected", "reflection"), "corrected"),
    "segments": "segments",
    "completions": "stepwise",
    "chat_template_kwargs": "template_kwargs",
    **dict.fromkeys(("label", "kto_tag"), "label"),
}
MARKS = {"true", "false", "yes", "no", "1", "0", "-1", "1.0", "0.0", "-1.0", "good", "bad"}  # a label that judges
DEPTH = 4  # how deep rows may be nested
Columns = tuple[tuple[str, str], ...]
Rows = Callable[[], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Shape:
    """What a file's rows are, and which column fills which slot. Two rows agree when kind and core are equal."""

    kind: str
    core: Columns = ()

    def __str__(self) -> str:
        core = ", ".join(f"{slot}={column}" for slot, column in self.core)
        return f"{self.kind} ({core})" if core else self.kind


REFUSED = Shape("none")  # of a file whose every row carries a signal that is refused


@lru_cache(maxsize=4096)
def fold(key: str) -> str:
    """The name of a column without the accidents of writing: `System Prompt` is `system_prompt`."""
    return "_".join(key.strip().casefold().replace("-", " ").split())


def given_shape(given: dict[str, str], rows: Rows, name: str) -> Shape:
    """The shape that the user states. Raises UsageError or DataError where it is none, or names no column."""
    for slot in given:
        if slot not in ALIASES:
            raise UsageError(f"--map {slot}=...: no such part of an example", fix=did_you_mean(slot, ALIASES))
    core = {slot for slot in given if slot not in OPTIONAL}
    kind = next((kind for needed, kind in KINDS.items() if core == set(needed)), None)
    if kind is None:
        known = "; ".join(" and ".join(needed) for needed, kind in KINDS.items() if kind != "tickets")
        raise UsageError(f"--map names {', '.join(given)}: that is no whole example", expected=known)
    columns = sorted({key for row in rows() for key in row})
    for column in given.values():
        if fold(column) not in columns:
            raise DataError(f"there is no column '{column}'", where=name, fix=did_you_mean(fold(column), columns))
    return Shape(kind, tuple((slot, fold(column)) for slot, column in sorted(given.items())))


def vote(rows: Rows, name: str, typed: str) -> tuple[Shape, str]:
    """The shape of more than half of all rows, and the count as words: no order of rows and no head can change it.

    Rows that carry a signal which is refused anyway have no vote. Raises DataError with the likeliest choices, for the
    file as it is `typed`.
    """
    votes: Counter[Shape | None] = Counter()
    refused = 0
    for row in rows():
        if refusal(row):
            refused += 1
        else:
            votes[shape_of(row)] += 1
    if not votes:
        return REFUSED, f"{refused} rows carry what is not learnt from yet"
    shape, number = max(votes.items(), key=lambda item: (item[1], str(item[0])))
    if shape is None or 2 * number <= votes.total():
        raise _unsure(rows, votes, name, typed)
    return shape, f"{number} of {votes.total() + refused} rows"


def _unsure(rows: Rows, votes: Counter[Shape | None], name: str, typed: str) -> DataError:
    nested: dict[str, str] = {}
    for row in rows():
        for key, value in row.items():
            nested[key] = nested.get(key, "") or " (nested)" * isinstance(value, list | dict)
    columns = [key + nested[key] for key in sorted(nested)]
    flags = [f"--map prompt={a} --map completion={b}" for a, b in guesses(rows(), ALIASES)]
    tries = [f"tunesmith collect {typed} {flag}" for flag in flags]
    choice = f"none looks like an answer; add one, or: tunesmith collect {typed} --map prompt=A --map completion=B"
    found = sorted((f"{count} rows look like {shape}" for shape, count in votes.items() if shape), reverse=True)
    what = f"which columns hold prompt and answer? There are: {', '.join(columns[:20])}"
    expected = "; ".join([*found[:3], "usual names, or --map; likeliest first"])
    return DataError(what, where=name, expected=expected, fix="; or ".join(tries) or choice)


def refusal(row: dict[str, Any]) -> tuple[str, str] | None:
    """The reason and the column for which a row is refused whatever else it holds."""
    for key in _suspects(frozenset(row)):
        reason = SIGNALS.get(key, "choices")
        if present(row[key]) and _signals(key, reason, row):
            return reason, key
    return None


@lru_cache(maxsize=4096)
def _suspects(names: frozenset[str]) -> tuple[str, ...]:
    """The columns that may carry a signal, in the order of the table; choice0, choice_1 and the like are the last."""
    numbered = sorted(name for name in names if re.fullmatch(r"choice_?\d+", name))
    return (*(key for key in SIGNALS if key in names), *numbered)


def _signals(key: str, reason: str, row: dict[str, Any]) -> bool:
    value = row[key]
    if reason == "label":  # a category is no judgement, and beside a lone text a class is what is to be learnt
        judged = ("completion", "messages", "chosen")
        return str(value).strip().casefold() in MARKS and any(name in row for slot in judged for name in ALIASES[slot])
    if reason == "choices":
        return not (isinstance(value, list) and any(isinstance(item, dict) for item in value))
    return not (isinstance(value, str) and value.strip() in ("[]", "{}", "null", "None"))


def shape_of(row: dict[str, Any]) -> Shape | None:
    return _known(row)[0]


def slots_of(row: dict[str, Any]) -> dict[str, str] | None:
    """Slot -> column by the usual names; None where two columns would fill one slot."""
    return _known(row)[1]


def _known(row: dict[str, Any]) -> tuple[Shape | None, dict[str, str] | None]:
    """Only the names of the columns, and what two of them hold, decide; most rows of a file are alike in that."""
    chats = frozenset(name for name in ALIASES["messages"] if name in row and _is_chat(row[name]))
    worse = frozenset(name for name in ALIASES["rejected"] if name in row and present(row[name]))
    return _decided(frozenset(row), chats, worse)


@lru_cache(maxsize=4096)
def _decided(
    names: frozenset[str], chats: frozenset[str], worse: frozenset[str]
) -> tuple[Shape | None, dict[str, str] | None]:
    slots = _slots(names, chats, worse)
    for needed, kind in KINDS.items():
        if slots is not None and all(slot in slots for slot in needed):
            return Shape(kind, tuple((slot, slots[slot]) for slot in needed)), slots
    return None, slots


def _slots(names: frozenset[str], chats: frozenset[str], worse: frozenset[str]) -> dict[str, str] | None:
    found = {slot: [name for name in usual if name in names] for slot, usual in ALIASES.items()}
    if found["prompt"] != ["input"]:
        found["prompt"] = [name for name in found["prompt"] if name != "input"]
    found["messages"] = [name for name in found["messages"] if name in chats]
    if not found["messages"]:
        _fill(found, names)
    found["input"] = [name for name in found["input"] if name not in found["prompt"]]
    found["subject"] = found["subject"] if set(found["prompt"]) & set(TICKETS) else []
    if found["messages"] or found["prompt"] or found["completion"] or names & set(CLASSES):
        found["text"] = []  # beside an example, `text` is its rendering; beside a class, it is the prompt
    if found["messages"]:
        found["prompt"], found["completion"], found["input"] = [], [], []
    if not found["chosen"]:
        found["rejected"] = [name for name in found["rejected"] if name in worse]
    if any(len(columns) > 1 for columns in found.values()):
        return None
    return {slot: columns[0] for slot, columns in found.items() if columns} | _thread(found, names)


def _fill(found: dict[str, list[str]], names: frozenset[str]) -> None:
    """Second names, for one side of a pair or for both; never for a side alone."""
    spare = {slot: found[slot] or [name for name in SECOND[slot] if name in names] for slot in SECOND}
    if all(spare.values()):
        found.update(spare)


def _thread(found: dict[str, list[str]], names: frozenset[str]) -> dict[str, str]:
    """The columns of a table that holds a message a row, where it is one."""
    if found["messages"] or (found["prompt"] and found["completion"]):
        return {}
    slots = {slot: next((name for name in usual if name in names), "") for slot, usual in THREAD.items()}
    return slots if all(slots.values()) else {}


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def unnest(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows in one object, by folded column names: itself, or what is nested in it where only that is a shape
    (SQuAD's paragraphs and questions, Self-Instruct's instances). What stands above is put beside."""
    row = {fold(key): item for key, item in value.items()}
    request = row.get("input")
    if isinstance(request, dict) and isinstance(request.get("messages"), list):  # OpenAI's preferences
        del row["input"]
        row |= {fold(key): item for key, item in request.items()}
    if not any(isinstance(item, list) for item in row.values()):
        return [row]
    inner = _inner(row, DEPTH)
    return inner if any(shape_of(item) for item in inner) else [row]


def _inner(row: dict[str, Any], depth: int) -> list[dict[str, Any]]:
    lists = [key for key, value in row.items() if _holds_rows(value)]
    if depth == 0 or len(lists) != 1 or lists[0] in SIGNALS or shape_of(row) is not None:
        return [row]
    above = {key: value for key, value in row.items() if key != lists[0]}
    below = ({fold(key): value for key, value in item.items()} for item in row[lists[0]])
    return [deepest for item in below for deepest in _inner(above | item, depth - 1)]


def _holds_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
