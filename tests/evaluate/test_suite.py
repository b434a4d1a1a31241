from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, UsageError
from tunesmith.evaluate.suite import SETTINGS, STARTER, Case, read


def write(folder: Path, text: str, name: str = "tests.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_suite_is_read_with_the_place_of_each_test(tmp_path: Path) -> None:
    text = (
        '[[test]]\nname = "greets"\nprompt = "Hi"\ncontains = "hello"\n\n[[test]] # all\nrows = "test"\nmax_words = 9'
    )
    first, second = read(write(tmp_path, text))
    assert (first.title, first.where, first.assertions) == (
        "greets",
        f"{tmp_path}/tests.toml:1",
        {"contains": ("hello",)},
    )
    assert (second.title, second.where, second.assertions) == ("test 2", f"{tmp_path}/tests.toml:6", {"max_words": 9})
    assert (first.case.pass_rate, second.case.rows) == (1.0, "test")


def test_a_line_of_jsonl_is_a_test_too(tmp_path: Path) -> None:
    lines = '{"prompt": "How much\\nis it?", "equals": ["9"]}\n\n{"regex": "^a", "pass_rate": 0.9}\n'
    first, second = read(write(tmp_path, lines, "suite.jsonl"))
    assert (first.title, first.where) == ("How much is it?", f"{tmp_path}/suite.jsonl:1")
    assert (second.where, second.case.pass_rate) == (f"{tmp_path}/suite.jsonl:3", 0.9)


def test_what_a_suite_starts_from_is_one(tmp_path: Path) -> None:
    first, second = read(write(tmp_path, STARTER))
    assert first.assertions == {"min_words": 1, "stops": True}
    assert second.assertions == {"repetitive": False}
    read(
        write(
            tmp_path, STARTER.replace("\n# ", "\n").replace("\nQuestions", "\n# Questions").replace("\nEvery", "\n# ")
        )
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[test]]\nstops = true\n[[test]]\ncontians = "a"', ":3: unknown key 'contians'.*did you mean 'contains'"),
        ('[[test]]\nprompt = "a"', ":1: the test 'a' asserts nothing"),
        ('[[test]]\nprompt = "a"\nrows = "test"\nstops = true', ":1: both prompt and rows"),
        ('[[test]]\nmax_words = "many"', ":1: max_words = \"many\": .*expected: the most words"),
        ('[[test]]\nregex = "("', ":1: regex = .*no regular expression"),
        ('[[test]]\nfunction = "polite"', ":1: function = .*FILE.py:FUNCTION"),
        ('[[test]]\npass_rate = 95\nstops = true', ":1: pass_rate = 95: .*less than or equal to 1"),
        ('[[test]]\ncontains = []', ":1: contains = "),
        ('[[test]]\nstops = true\nfunction_at_least = 0.5', ":1: function_at_least without function"),
        ('[[test]]\nstops = true\nreference = "a"', ":1: reference without prompt"),
        ('[[test]]\nprompt = "a"\nexact = true', ":1: exact and f1_at_least compare with a reference"),
        ('[[tests]]\nstops = true', ": unknown key 'tests'.*did you mean 'test'"),
        ('[test]\nstops = true', ": 'test' is no list of tables"),
        ("", ": no test in it"),
        ("[[test", ": not valid TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s)tests\.toml{said}"):
        read(write(tmp_path, text))


def test_a_header_in_a_text_does_not_shift_the_lines(tmp_path: Path) -> None:
    text = '[[test]]\nprompt = """\n[[test]]\n"""\nwrong = 1\n'
    with pytest.raises(UsageError, match=r"tests\.toml, test 1: unknown key"):
        read(write(tmp_path, text))


def test_a_missing_suite_and_a_broken_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no suite"):
        read(tmp_path / "none.toml")
    with pytest.raises(DataError, match=r"suite\.jsonl:2:"):
        read(write(tmp_path, '{"stops": true}\n{"stops": \n', "suite.jsonl"))


def test_every_key_says_what_it_is() -> None:
    assert all(field.description for field in Case.model_fields.values())
    assert set(Case.model_fields) >= SETTINGS
