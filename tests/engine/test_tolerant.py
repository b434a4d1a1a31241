"""JSON as models write it: what is there is found, what is not there is never made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.engine import tolerant

SCHEMA = {"type": "object", "properties": {"rows": {"type": "array"}}, "required": ["rows"]}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"rows": [1]}', [1]),
        ('Sure!\n```json\n{"rows": [1, 2,],}\n```\nMore?', [1, 2]),
        ('[{"question": "a"}]', [{"question": "a"}]),
        ("{'rows': [True, None, 'it\\'s']}", [True, None, "it's"]),
        ('{"rows": ["two\nlines"]}', ["two\nlines"]),
        ('{"note": 1} {"rows": []}', []),
        ('see {this} and [that]: {"rows": ["{}"]}', ["{}"]),
        ('{"rows": ["a, ]", 1,]}', ["a, ]", 1]),
        ('{"rows": "none"} then {"rows": [3]}', [3]),
    ],
)
def test_json_is_found_as_models_write_it(text: str, rows: list[object]) -> None:
    assert tolerant.read(text, SCHEMA) == ({"rows": rows}, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON"),
        ('{"rows": [{"question": "cut o', "no JSON"),
        ('{"row": []}', "the answer has no 'rows'"),
        ('{"rows": 3}', "rows is a int, not a array"),
        ("[" * 5000, "no JSON"),
        ("{'rows': __import__('os')}", "no JSON"),
    ],
)
def test_what_is_not_there_is_never_made_up(text: str, problem: str) -> None:
    assert tolerant.read(text, SCHEMA) == (None, problem)


@given(st.text(st.sampled_from("{}[]\",:'rows 1\\n")))
def test_no_answer_breaks_the_reader(text: str) -> None:
    value, problem = tolerant.read(text, SCHEMA)
    assert (value is None) == bool(problem)
