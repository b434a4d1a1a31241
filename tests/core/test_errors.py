from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core import errors
from tunesmith.core.errors import TunesmithError, did_you_mean

CODES = {
    errors.UsageError: 2,
    errors.DataError: 3,
    errors.ModelError: 4,
    errors.ResourceError: 5,
    errors.RemoteError: 6,
    errors.Interrupted: 130,
}


def test_every_error_has_its_documented_exit_code() -> None:
    assert {kind: kind.exit_code for kind in TunesmithError.__subclasses__()} == CODES
    assert TunesmithError.exit_code == 1


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {tuple(line.split()[1:3]) for line in (errors.__doc__ or "").splitlines() if "──" in line}
    assert drawn == {(kind.__name__, str(code)) for kind, code in CODES.items()}


def test_a_message_says_what_was_expected_and_what_to_type_next() -> None:
    error = errors.DataError("a cut row", where="faq.jsonl:3:7", expected="one object a line", fix="mend line 3")
    assert str(error) == "faq.jsonl:3:7: a cut row\n  expected: one object a line\n  next: mend line 3"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "it broke"),
        ({"where": "a.csv:2"}, "a.csv:2: it broke"),
        ({"expected": "a table"}, "it broke\n  expected: a table"),
        ({"fix": "tunesmith new"}, "it broke\n  next: tunesmith new"),
    ],
)
def test_a_part_that_is_not_given_leaves_no_line(parts: dict[str, str], message: str) -> None:
    assert str(TunesmithError("it broke", **parts)) == message


def test_an_error_keeps_its_parts_and_message_through_a_copy_to_another_process() -> None:
    error = errors.ResourceError("full", where="/d", expected="room", fix="make room")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.__dict__, copy.exit_code) == (str(error), error.__dict__, 5)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("max_step", "did you mean 'max_steps'?"),
        ("learning-rate", "did you mean 'learning_rate'?"),
        ("zzz", "known: learning_rate, max_steps"),
    ],
)
def test_a_hint_names_the_nearest_word_or_all_there_are(word: str, hint: str) -> None:
    assert did_you_mean(word, ["max_steps", "learning_rate"]) == hint


def test_where_nothing_is_known_there_is_no_hint() -> None:
    assert did_you_mean("anything", []) == ""


@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_a_known_word_is_its_own_hint(names: list[str], data: st.DataObject) -> None:
    word = data.draw(st.sampled_from(names))
    assert did_you_mean(word, names) == f"did you mean '{word}'?"
