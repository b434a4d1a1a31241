import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.metrics.labels import false_refusal, field_accuracy, fields, given_fields, guard_answers, guard_recall

GUARD = "I only answer questions about the library."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("action: get\nneeded: 1", {"action": "get", "needed": "1"}),
        ("action: get | needed: 1", {"action": "get", "needed": "1"}),
        ("action: get; needed: 1;", {"action": "get", "needed": "1"}),
        ("action: get; needed: 1\n\narea: io", {"action": "get", "needed": "1", "area": "io"}),
        ("note: see a; b", {"note": "see a; b"}),  # the separator belongs to the value
        ("answer:", {"answer": ""}),
        ("Sure!\naction: get", {}),
        ("We meet at 10:30", {}),
        ("https://a.b: c", {}),
        ("This is a long sentence before a colon: no field", {}),
        ("", {}),
    ],
)
def test_fields_are_read_from_texts_of_nothing_else(text: str, found: dict[str, str]) -> None:
    assert fields(text) == found


def test_a_model_may_write_other_things_and_the_first_value_counts() -> None:
    assert given_fields("Sure!\naction: get\n### Question\naction: set") == {"action": "get"}


def test_field_accuracy_is_the_share_of_the_references_fields() -> None:
    reference = "action: get; needed: 1; optional: 0; area: io"
    assert field_accuracy(reference, reference) == 1.0
    assert field_accuracy("Area: IO.\nACTION: get\nneeded: 2\nextra: 9", reference) == 0.5
    assert field_accuracy("I do not know", reference) == 0.0
    assert field_accuracy("action: get", "just a sentence") is None


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)))
def test_fields_come_back_from_each_separator(wanted: dict[str, str]) -> None:
    for separator in ("\n", " | ", "; "):
        assert fields(separator.join(f"{key}: {value}" for key, value in wanted.items())) == wanted


def test_guards_are_sentences_that_five_rows_share() -> None:
    often = [GUARD, GUARD.upper(), GUARD, GUARD, GUARD.rstrip(".")]
    guards = guard_answers([*often, *["positive"] * 9, *["a: 1; b: 2"] * 9, *["A sentence of four rows."] * 4])
    assert guards == {"i only answer questions about the library"}
    assert guard_answers(often[:4]) == frozenset()
    assert guard_answers([GUARD], least=1) == guards


def test_guard_recall_and_false_refusal_are_told_on_different_rows() -> None:
    guards = guard_answers([GUARD], least=1)
    assert guard_recall("I only answer questions about the library", GUARD, guards) == 1.0
    assert guard_recall("Paris", GUARD, guards) == 0.0
    assert guard_recall(GUARD, "Paris", guards) is None
    assert false_refusal(GUARD, "Paris", guards) == 1.0
    assert false_refusal("London", "Paris", guards) == 0.0
    assert false_refusal(GUARD, GUARD, guards) is None
