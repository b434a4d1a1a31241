import pytest

from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.prepare.clean import check, drop_duplicates, kind, with_system

ASK = (Message("user", "Q"),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair(" \n", "A"), "empty_prompt"),
        (pair("Q", ""), "empty_answer"),
        (Row((*pair("Q", " ").messages, *pair("R", "B").messages)), "empty_answer"),
        (Row(ASK, chosen="A", rejected=" "), "empty_answer"),
        (Row(ASK, chosen="A", rejected="A"), "no_preference"),
    ],
)
def test_what_cannot_be_learnt_from_is_rejected_with_a_reason(row: Row, reason: str) -> None:
    kept, rejects = check([row, pair("Q", "A")])
    assert len(kept) == 1
    assert [reject.reason for reject in rejects] == [reason]
    assert rejects[0].raw.startswith('{"id"')


def test_rows_have_one_of_three_kinds() -> None:
    assert [kind(row) for row in (pair("Q", "A"), Row(ASK, chosen="A", rejected="B"), Row(text="T"))] == [
        "messages",
        "preferences",
        "text",
    ]


def test_the_system_message_goes_before_rows_that_have_none() -> None:
    own, text = pair("Q", "A", system="mine"), Row(text="T")
    made = with_system([pair("Q", "A"), own, text], "ours")
    assert made == [pair("Q", "A", system="ours"), own, text]
    assert with_system([own, text], "") == [own, text]


def test_of_rows_that_say_the_same_the_first_stays() -> None:
    first = pair("Let's go?", "Yes.", meta=Meta("f", 1))
    again = pair("let’s GO", "yes", meta=Meta("f", 7))
    others = [pair("Let's go?", "No."), pair("Let's go?", "Yes.", system="S"), Row(ASK, chosen="A", rejected="B")]
    kept, rejects = drop_duplicates([first, again, *others, Row(ASK, chosen="B", rejected="A")])
    assert kept[:4] == [first, *others]
    assert len(kept) == 5
    assert [(r.line, r.reason, r.detail) for r in rejects] == [(7, "duplicate", "the same as f:1")]
