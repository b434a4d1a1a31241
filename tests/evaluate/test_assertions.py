"""Each assertion on an answer that passes and on one that does not, with what is said of it."""

from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import UsageError
from tunesmith.core.records import pair
from tunesmith.evaluate.assertions import ASSERTIONS, Answered, Known, Unknown, checks
from tunesmith.evaluate.suite import SETTINGS, Case, Placed

GUARD = "i only answer questions about the library"
LOOP = "go on go on go on go on"


def answered(text: str, **more: Any) -> Answered:
    return Answered(pair("a question", "x"), text, **more)


def check(folder: Path, name: str, value: Any, answer: Answered, **settings: Any) -> str:
    case = Case(**{name: value}, **settings)
    known = Known(folder, frozenset({GUARD}))
    return checks(Placed(case, "a test", "tests.toml:1"), known)[name](answer)


TABLE = [
    # assertion, what it asks for, an answer that passes, one that does not, what is said of it
    ("equals", ["Paris", "Lutetia"], "paris.", "Paris, France", "is not 'Paris' or 'Lutetia'"),
    ("contains", ["Paris", "france"], "PARIS is in France", "Paris", "lacks 'france'"),
    ("contains_any", ["red", "blue"], "a blue one", "a green one", "lacks 'red' or 'blue'"),
    ("not_contains", ["sorry", "AI"], "here it is", "Sorry, as an ai", "has 'sorry'; has 'AI'"),
    ("regex", [r"^\d+$"], "42", "42 euros", r"no match of ^\d+$"),
    ("not_regex", r"[A-Z]{3}", "Abc", "see ABC there", "[A-Z]{3} matches 'ABC'"),
    ("valid_json", True, '{"a": 1}', "{a: 1}", "not JSON: Expecting property name enclosed in double quotes: "
     "line 1 column 2 (char 1)"),
    ("valid_json", False, "text", "[]", "is JSON"),
    ("json_schema", {"type": "array"}, "[1]", "{}", "$: {} is not of type 'array'"),
    ("label", ["positive", "negative"], "Positive.", "positive!?x", "is none of the labels positive, negative"),
    ("min_words", 2, "two words", "one", "1 words, fewer than 2"),
    ("max_words", 2, "two words", "now three words", "3 words, more than 2"),
    ("max_characters", 3, "abc", "abcd", "4 characters, more than 3"),
    ("repetitive", False, "once", LOOP, "'go on' 3 times or more in a row"),
    ("repetitive", True, LOOP, "once", "does not repeat itself"),
    ("guard", True, "I only answer questions about the library.", "42", "does not decline"),
    ("guard", False, "42", "I only answer questions about the library.", "declines"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "good", "bad", "said"), TABLE, ids=[row[0] for row in TABLE])
def test_an_answer_passes_or_it_is_said_why_not(
    tmp_path: Path, name: str, value: Any, good: str, bad: str, said: str
) -> None:
    assert check(tmp_path, name, value, answered(good)) == ""
    assert check(tmp_path, name, value, answered(bad)) == said


def test_assertions_on_more_than_the_text(tmp_path: Path) -> None:
    assert check(tmp_path, "exact", True, answered("Paris.", reference="paris")) == ""
    assert check(tmp_path, "exact", True, answered("London", reference="paris")) == "is not the reference"
    assert check(tmp_path, "exact", False, answered("paris", reference="Paris")) == "is the reference"
    assert check(tmp_path, "f1_at_least", 0.5, answered("a b", reference="a c")) == ""
    assert check(tmp_path, "f1_at_least", 0.6, answered("a b", reference="a c")) == "F1 0.500, less than 0.6"
    assert check(tmp_path, "stops", True, answered("", finish="stop")) == ""
    assert check(tmp_path, "stops", True, answered("", finish="length")) == "did not stop before the limit"
    assert check(tmp_path, "stops", False, answered("", finish="stop")) == "ended by itself"
    assert check(tmp_path, "latency_ms", 5, answered("", latency_ms=4.9)) == ""
    assert check(tmp_path, "latency_ms", 5, answered("", latency_ms=7.2)) == "7 ms, more than 5"
    assert check(tmp_path, "same", True, answered("Yes.", first="yes")) == ""
    assert check(tmp_path, "same", True, answered("No", first="Yes")) == "differs from the first: 'Yes'"
    assert check(tmp_path, "same", False, answered("Yes", first="Yes")) == "the same as the first: 'Yes'"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("exact", True, "no reference"),
        ("f1_at_least", 0.5, "no reference"),
        ("stops", True, "how the answer ended"),
        ("latency_ms", 5, "how long the answer took"),
    ],
)
def test_what_nobody_told_is_unknown_and_neither_right_nor_wrong(
    tmp_path: Path, name: str, value: Any, said: str
) -> None:
    with pytest.raises(Unknown, match=said):
        check(tmp_path, name, value, answered("text"))


def test_guards_that_nobody_knows_are_unknown(tmp_path: Path) -> None:
    test = Placed(Case(guard=True), "t", "")
    for guards in (None, frozenset[str]()):
        with pytest.raises(Unknown, match="no guard answer is known"):
            checks(test, Known(tmp_path, guards))["guard"](answered("text"))


def test_a_schema_and_a_function_from_files(tmp_path: Path) -> None:
    (tmp_path / "number.json").write_text('{"type": "number"}')
    (tmp_path / "own.py").write_text("def half(prediction, reference):\n    return None if not prediction else 0.5\n")
    assert check(tmp_path, "json_schema", "number.json", answered("1.5")) == ""
    assert check(tmp_path, "json_schema", "number.json", answered('"a"')) == "$: 'a' is not of type 'number'"
    assert check(tmp_path, "function", "own.py:half", answered("a")) == "own.py:half gave 0.5, less than 1"
    assert check(tmp_path, "function", "own.py:half", answered("a"), function_at_least=0.5) == ""
    with pytest.raises(Unknown, match="gave None"):
        check(tmp_path, "function", "own.py:half", answered(""))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("json_schema", "gone.json", r"tests\.toml:1: there is no file .*gone\.json"),
        ("json_schema", {"type": "numbr"}, r"tests\.toml:1: not a JSON schema"),
        ("function", "gone.py:polite", r"tests\.toml:1: there is no file .*gone\.py"),
    ],
)
def test_what_is_not_there_is_told_before_anything_runs(tmp_path: Path, name: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check(tmp_path, name, value, answered("text"))


def test_every_assertion_of_a_suite_has_a_check() -> None:
    assert ASSERTIONS.keys() == Case.model_fields.keys() - SETTINGS
