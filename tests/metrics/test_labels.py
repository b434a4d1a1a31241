import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.metrics.labels import (
    confusion_counts,
    confusion_matrix,
    false_refusal,
    field_accuracy,
    fields,
    given_fields,
    guard_answers,
    guard_recall,
    label_of,
    label_set,
    macro_f1,
)

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
        (
            '{"name": "Ada", "born": {"year": 1815, "in": "London"}, "tags": ["a", 1]}',
            {"name": "Ada", "born.year": "1815", "born.in": "London", "tags": '["a", 1]'},
        ),
        ('{"name": "Ada"} and more', {}),
        ('["name"]', {}),
    ],
)
def test_fields_are_read_from_texts_of_nothing_else(text: str, found: dict[str, str]) -> None:
    assert fields(text) == found


def test_a_model_may_write_other_things_and_the_first_value_counts() -> None:
    assert given_fields("Sure!\naction: get\n### Question\naction: set") == {"action": "get"}
    assert given_fields('Sure: {"action": "get", "n": 1} Done: yes') == {"action": "get", "n": "1"}
    assert given_fields("{action: get") == {}


def test_the_fields_of_json_are_compared_as_others_are() -> None:
    reference = '{"name": "Ada Lovelace", "year": 1815}'
    assert field_accuracy('```json\n{"year": 1815, "name": "ada lovelace"}\n```', reference) == 1.0
    assert field_accuracy('{"year": 1816, "name": "Ada Lovelace"}', reference) == 0.5
    assert field_accuracy("name: Ada Lovelace", reference) == 0.5


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


def test_labels_are_few_short_answers_of_many_rows() -> None:
    assert label_set(["Yes.", "no", "yes"] * 4) == ("no", "yes")
    assert label_set(["yes", "no"] * 4) == ()  # eight rows: under five for each
    assert label_set(["yes"] * 20) == ()
    assert label_set(["I cannot say that", "no"] * 9) == ()
    assert label_set(["", "no"] * 9) == ()
    assert label_set([]) == ()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Positive.", "positive"),
        (" '**positive**' ", "positive"),
        ('"negative"', "negative"),
        ("positive!", "positive"),
    ],
)
def test_a_label_is_read_with_its_wrapping(text: str, label: str) -> None:
    assert label_of(text, ("negative", "positive")) == label


@pytest.mark.parametrize("text", ["", "it is positive", "positive\nnegative", "posit"])
def test_a_label_with_other_words_is_none(text: str) -> None:
    assert label_of(text, ("negative", "positive")) is None


def test_the_confusion_matrix_and_macro_f1_by_hand() -> None:
    labels = ("a", "b", "c")
    pairs = [("a", "a"), ("a", "a"), ("b", "a"), ("b", "b"), ("no idea", "b"), ("b", "c")]
    counts = [sum(column) for column in zip(*(confusion_counts(p, r, labels) for p, r in pairs), strict=True)]
    assert confusion_matrix(counts).tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 1, 0, 0]]
    # a: 2 of 2 given, 2 of 3 asked for; b: 1 of 3 given, 1 of 2 asked for; c: never given
    assert macro_f1(counts) == pytest.approx((2 * 2 / 5 + 2 * 1 / 5 + 0) / 3)


def test_a_label_that_no_row_has_and_no_answer_gives_does_not_count() -> None:
    counts = confusion_counts("a", "a", ("a", "b"))
    assert macro_f1(counts) == 1.0
    assert macro_f1([0] * 6) == 0.0
