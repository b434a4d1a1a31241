"""A suite of tests: what answers must say and must not, in a TOML or JSONL file beside tunesmith.toml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from tunesmith.core.config import Config, make, read_toml
from tunesmith.core.errors import UsageError, did_you_mean
from tunesmith.core.jsonl import read_numbered
from tunesmith.evaluate.catalogue import OWN, compiled

HEADER = re.compile(r"\s*\[\[\s*test\s*\]\]\s*(#.*)?")
STARTER = """\
# What answers must say and must not. `tunesmith test` asks base and tuned, and fails where too few rows pass.
# Every key: docs/test.md. Questions of your own are the best tests: add one for each answer that must never go wrong.

[[test]]
name = "every answer says something and ends"
rows = "test"
min_words = 1
stops = true
pass_rate = 0.95

[[test]]
name = "no answer repeats itself"
rows = "test"
repetitive = false
pass_rate = 0.95

# [[test]]
# name = "passwords"
# prompt = ["How do I reset my password?", "I forgot my password"]
# contains = "Settings"
# not_contains = ["I don't know", "as an AI"]
# max_words = 60
"""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _patterns(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        compiled(value)
    return values


def _function(value: str) -> str:
    if not OWN.fullmatch(value):
        raise ValueError("names no function: write FILE.py:FUNCTION")
    return value


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Patterns = Annotated[Texts, AfterValidator(_patterns)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Case(Config):
    """One [[test]]: the rows it is about, and at least one assertion. A text stands for a list of one."""

    name: str | None = None
    """what it is called in reports; the question, or its number, where not given"""
    prompt: Texts | None = None
    """a question, or several, of its own"""
    reference: str | None = None
    """the right answer to `prompt`, for `exact` and `f1_at_least`"""
    rows: str | None = None
    """the held-out rows (test, valid), or a file of rows ({prompt, reference?}, or as in a set)"""
    pass_rate: Share = 1.0
    """the share of the rows that must pass"""

    equals: Texts | None = None
    """the answer is one of these, but for case, spaces and the full stop at the end"""
    contains: Texts | None = None
    """all of these stand in the answer, in upper or lower case"""
    contains_any: Texts | None = None
    """one of these stands in the answer"""
    not_contains: Texts | None = None
    """none of these stands in the answer"""
    regex: Patterns | None = None
    """all of these patterns are found in the answer (Python's, case counts)"""
    not_regex: Patterns | None = None
    """none of these patterns is found"""
    valid_json: bool | None = None
    """the answer is JSON and nothing else"""
    json_schema: str | dict[str, Any] | None = None
    """the answer is JSON and fits the schema: a file, or the schema itself"""
    label: Texts | None = None
    """the answer is one of these labels and nothing else"""
    exact: bool | None = None
    """the answer is the row's reference, compared as `equals` does"""
    f1_at_least: Share | None = None
    """the words that answer and reference share, as in the metric f1"""
    min_words: Count | None = None
    """the least words"""
    max_words: Count | None = None
    """the most words"""
    max_characters: Count | None = None
    """the most characters"""
    stops: bool | None = None
    """the model ended the answer itself, before the limit of new tokens"""
    repetitive: bool | None = None
    """false: no phrase again and again, as in the error category"""
    guard: bool | None = None
    """true: the answer declines with a guard answer of the training rows; false: it does not"""
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    """the most milliseconds; each question is then asked alone"""
    same: bool | None = None
    """the answer is the same as to the first question of this test: for paraphrases"""
    function: Annotated[str, AfterValidator(_function)] | None = None
    """a function of your own, FILE.py:FUNCTION, as for metrics; true or 1 passes"""
    function_at_least: Share = 1.0
    """the least value of `function` that passes"""


SETTINGS = {"name", "prompt", "reference", "rows", "pass_rate", "function_at_least"}  # all others are assertions


class Placed(NamedTuple):
    """A test of a suite, and its place in the file."""

    case: Case
    title: str
    where: str

    @property
    def assertions(self) -> dict[str, Any]:
        """Assertion -> what it asks for, of those that are given."""
        return {key: value for key, value in self.case if key not in SETTINGS and value is not None}


def read(path: Path) -> list[Placed]:
    """The tests of a suite. Raises UsageError or DataError with file:line on whatever is wrong in it."""
    if not path.is_file():
        raise UsageError(f"there is no suite {path}", fix="tunesmith test, which makes tests.toml to start from")
    tables = _of_lines(path) if path.suffix == ".jsonl" else _of_toml(path)
    tests = [_placed(values, line, path, number) for number, (line, values) in enumerate(tables, 1)]
    if not tests:
        raise UsageError("no test in it", where=str(path), expected="a [[test]] with at least one assertion")
    return tests


def _of_lines(path: Path) -> list[tuple[int | None, dict[str, Any]]]:
    return list(read_numbered(path))


def _of_toml(path: Path) -> list[tuple[int | None, dict[str, Any]]]:
    tables = read_toml(path)
    if wrong := [key for key in tables if key != "test"]:
        fix = did_you_mean(wrong[0], ["test"])
        raise UsageError(f"unknown key '{wrong[0]}'", where=str(path), expected="[[test]] tables", fix=fix)
    found = tables.get("test", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UsageError("'test' is no list of tables", where=str(path), expected="[[test]], two brackets on each side")
    lines = [n for n, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1) if HEADER.fullmatch(line)]
    known: Iterable[int | None] = lines if len(lines) == len(found) else [None] * len(found)  # else one is in a text
    return list(zip(known, found, strict=True))


def _placed(values: dict[str, Any], line: int | None, path: Path, number: int) -> Placed:
    where = f"{path}:{line}" if line else f"{path}, test {number}"
    case = make(Case, values, where)
    title = case.name or (case.prompt[0] if case.prompt else f"test {number}")
    test = Placed(case, " ".join(title.split()), where)
    _check_together(test)
    return test


def _check_together(test: Placed) -> None:
    """What each key takes, the config has checked; here what goes with what."""
    case, where = test.case, test.where
    if not test.assertions:
        keys = ", ".join(key for key in Case.model_fields if key not in SETTINGS)
        raise UsageError(f"the test '{test.title}' asserts nothing", where=where, expected=f"one of {keys}")
    if case.prompt and case.rows:
        raise UsageError("both prompt and rows", where=where, expected="one of them")
    if "function_at_least" in case.model_fields_set and not case.function:
        raise UsageError("function_at_least without function", where=where, fix='add function = "FILE.py:FUNCTION"')
    if case.reference is not None and not case.prompt:
        raise UsageError("reference without prompt", where=where, expected="rows have references of their own")
    if (case.exact or case.f1_at_least is not None) and case.prompt and case.reference is None:
        raise UsageError("exact and f1_at_least compare with a reference", where=where, fix="add reference = ...")
