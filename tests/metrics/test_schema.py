import pytest

from tunesmith.metrics.schema import Schema, is_json

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, true]}', ' "word" ', "3", "[]"])
def test_what_is_json(text: str) -> None:
    assert is_json(text) == 1.0


@pytest.mark.parametrize(
    "text",
    ["", "word", "{'a': 1}", '{"a": 1} and more', '```json\n{"a": 1}\n```', '{"a": 1,}', "NaN", '{"a": 1, "a": 2}'],
)
def test_what_is_not(text: str) -> None:
    assert is_json(text) == 0.0


def test_json_that_is_too_deep_is_none() -> None:
    assert is_json("[" * 100_000) == 0.0
    assert "not JSON" in str(Schema(True).problem("[" * 100_000))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"name": "Ada", "age": 36}', None),
        ('{"age": 36}', "$: 'name' is a required property"),
        ('{"name": "Ada", "age": -1}', "$.age: -1 is less than the minimum of 0"),
        ('{"name": "Ada", "x": 1}', "$: Additional properties are not allowed ('x' was unexpected)"),
        ("Ada", "not JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_the_problem_is_told_with_its_place(text: str, problem: str | None) -> None:
    assert Schema(PERSON).problem(text) == problem


def test_what_is_no_schema_is_refused_with_its_place() -> None:
    with pytest.raises(ValueError, match=r"\$\.type: 'strin' is not valid"):
        Schema({"type": "strin"})


def test_nothing_is_fetched() -> None:
    with pytest.raises(ValueError, match=r"refers to other\.json"):
        Schema({"$ref": "other.json"}).problem("1")
    within = Schema({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}})
    assert within.problem("[1, 2]") is None
    assert within.problem('["a"]') == "$[0]: 'a' is not of type 'integer'"
