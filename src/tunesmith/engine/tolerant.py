"""JSON as models write it: in a fence, after a greeting, with a comma too many. What is not there is never invented.

One repair is asked for where nothing usable is found: the model is shown what was wrong, once.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.core.records import Message
from tunesmith.engine.base import ChatEngine, ChatRequest, Reply

LONGEST = 200_000  # characters of an answer that are read
STARTS = 20  # brackets that are tried as the beginning
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}
# A comma before a closing bracket, outside strings (the first alternative takes strings whole).
_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
_decoder = json.JSONDecoder(strict=False)  # line breaks inside strings are what models write


def read(text: str, schema: Mapping[str, Any]) -> tuple[Any, str]:
    """(the first value in a text that fits the schema, ""), or (None, what is wrong with the first one there is).

    A bare list is taken for an object of one list where the schema asks for that.
    """
    wrong = "no JSON"
    for value in _values(text[:LONGEST]):
        lists = [name for name, part in schema.get("properties", {}).items() if part.get("type") == "array"]
        wrapped = {lists[0]: value} if isinstance(value, list) and len(lists) == 1 else value
        problem = misfit(wrapped, schema)
        if not problem:
            return wrapped, ""
        wrong = problem if wrong == "no JSON" else wrong
    return None, wrong


def misfit(value: Any, schema: Mapping[str, Any], where: str = "the answer") -> str:
    """Where a value does not fit a schema (type, properties, required), or "". Elements of lists are not looked at:
    one bad row is that row's loss."""
    kind = schema.get("type")
    if kind is not None:
        fits = isinstance(value, TYPES[kind]) and not (isinstance(value, bool) and kind in ("integer", "number"))
        if not fits:
            return f"{where} is a {type(value).__name__}, not a {kind}"
    if not isinstance(value, dict):
        return ""
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where} has no {name!r}"
    known = ((name, part) for name, part in schema.get("properties", {}).items() if name in value)
    return next((problem for name, part in known if (problem := misfit(value[name], part, name))), "")


def _values(text: str) -> Iterator[Any]:
    """Every object or list that begins somewhere in a text, outermost first."""
    at = tried = 0
    while tried < STARTS and (match := re.compile(r"[{\[]").search(text, at)):
        tried += 1
        value, end = _value(text, match.start())
        if value is not None:
            yield value
        at = end


def _value(text: str, start: int) -> tuple[Any, int]:
    """(the value that begins at `start`, where it ends); (None, start + 1) where none does."""
    try:
        return _decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        pass
    rest = _COMMA.sub(lambda m: m[1] or "", text[start:])
    try:
        return _decoder.raw_decode(rest)[0], len(text)
    except (ValueError, RecursionError):
        pass
    end = max(text.rfind("}"), text.rfind("]")) + 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a string, which the user did not write
            value = ast.literal_eval(text[start:end])  # single quotes, True and None: how Python prints it
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None, start + 1
    return (value, end) if isinstance(value, dict | list) else (None, start + 1)


def repair(request: ChatRequest, reply: Reply, problem: str) -> ChatRequest:
    """The request again, with what came and what is wrong with it."""
    again = f"That cannot be read: {problem}. Answer again, with nothing but the JSON that was asked for."
    said = (Message("assistant", reply.text or "(nothing)"), Message("user", again))
    return replace(request, messages=(*request.messages, *said))


def ask(engine: ChatEngine, requests: list[ChatRequest]) -> None:
    """Have all of them answered and stored, and those that cannot be read once more."""
    engine.chat(requests)
    pairs = ((request, engine.stored(request)) for request in requests)
    broken = ((request, reply, _problem(request, reply)) for request, reply in pairs if reply)
    repairs = [repair(request, reply, problem) for request, reply, problem in broken if problem]
    if repairs:
        engine.chat(repairs)


def _problem(request: ChatRequest, reply: Reply) -> str:
    """Why a whole answer cannot be read; "" where it can, and where it is not whole: that is no matter of form."""
    return read(reply.text, request.schema or {})[1] if reply.finish == "stop" else ""


def stored(engine: ChatEngine, request: ChatRequest) -> tuple[Any, str, Reply] | None:
    """(value, why there is none, the reply it came from) of a request and its repair; None where one must be asked."""
    reply = engine.stored(request)
    if reply is None:
        return None
    problem = _problem(request, reply)
    if problem:
        reply = engine.stored(repair(request, reply, problem))
        if reply is None:
            return None
    if reply.finish != "stop":
        return None, reply.finish, reply
    value, problem = read(reply.text, request.schema or {})
    return value, f"bad_json: {problem}" if problem else "", reply
