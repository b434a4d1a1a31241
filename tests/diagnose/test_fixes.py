from typing import Any

import pytest

from tunesmith.core.records import Meta, Row, pair
from tunesmith.diagnose.categories import CATEGORIES, Known
from tunesmith.diagnose.fixes import MAKERS, Proposal, accepted, propose, recombined

GUARD = "Let's keep the discussion relevant to gardens."
LONG = "Water it in the morning. " * 8
COMMON = "Water the fern every day and give it some shade."


def row(number: int, answer: str, question: str = "") -> Row:
    return pair(question or f"question number {number}", answer, meta=Meta("faq.jsonl", number))


def proposed(rows: list[Row], category: str, near: list[Row] | None = None, count: int = 1) -> list[Proposal]:
    return propose(rows, Known.of(rows), {category: count}, {category: near or []})


def told(proposals: list[Proposal]) -> list[tuple[str, int | None, str | None]]:
    """(action, line of the row, new answer) of each."""
    return [(p.action, p.row.meta.line if p.row else None, p.new.answer if p.new else None) for p in proposals]


COMMONS = [row(n, COMMON) for n in range(30)]
VARIED = [row(n, f"Water fern number {n}.") for n in range(30, 40)]


def test_every_category_has_a_maker() -> None:
    assert list(MAKERS) == [category.name for category in CATEGORIES]


def test_a_misspelt_training_answer_is_mended_where_many_rows_have_the_right_word() -> None:
    wrong = row(99, "Water the fern and give it some shaade.")
    assert told(proposed([*COMMONS, wrong], "misspelling")) == [("edit", 99, "Water the fern and give it some shade.")]
    assert proposed([*COMMONS, row(99, "A tuple, a frobnic.")], "misspelling") == []


@pytest.mark.parametrize("category", ["too_long", "repetitive", "did_not_stop"])
def test_the_longest_answers_are_cut_to_whole_sentences(category: str) -> None:
    rows = [row(n, f"{COMMON} Then wait {n} days.") for n in range(9)]
    more = row(99, f"{COMMON} Then wait 9 days. And look at it again in the evening of the day after that.")
    assert told(proposed([*rows, more], category)) == [("edit", 99, f"{COMMON} Then wait 9 days.")]


def test_code_and_lists_are_never_cut() -> None:
    rows = [row(n, COMMON) for n in range(9)]
    listed = row(99, "Do this.\n- one two three four five six.\n- one two three four five six.\n- seven eight nine.")
    assert proposed([*rows, listed], "too_long") == []


def test_training_answers_that_loop_are_dropped() -> None:
    assert told(proposed([*COMMONS, row(99, LONG)], "repetitive")) == [("drop", 99, None)]


def test_short_rows_near_to_what_was_too_short_are_dropped() -> None:
    short = row(99, "Yes.")
    assert told(proposed([*COMMONS, short, row(98, "No.")], "too_short", [short, COMMONS[0]])) == [("drop", 99, None)]


def test_an_echo_of_the_question_is_cut_off() -> None:
    echo = row(99, f"How do I water it now? {COMMON}", "How do I water it now?")
    assert told(proposed([*COMMONS, echo], "prompt_echo"))[0] == ("edit", 99, COMMON)


def test_a_missed_guard_asks_for_more_questions_to_decline() -> None:
    guards = [row(n, GUARD) for n in range(5)]
    found = proposed([*VARIED, *guards], "off_topic", count=2)
    assert {(p.action, p.row, p.new and p.new.answer, p.new and p.new.meta.origin) for p in found} == {
        ("add", None, GUARD, "guard")
    }
    assert len({p.new.question for p in found if p.new}) == len(found) == 20
    assert proposed(COMMONS[:4], "off_topic") == []  # nothing declines


def test_half_of_the_new_questions_are_like_those_declined_near_to_what_was_missed() -> None:
    asked = [
        "Can this page be used as a hat?",
        "Could I have it used as a boat?",
        *(f"Why is it {n}?" for n in range(3)),
    ]
    guards = [row(n, GUARD, question) for n, question in enumerate(asked)]
    found = [p.new for p in proposed([*VARIED, *guards], "off_topic", guards[:1], count=2) if p.new]
    assert [new.question for new in found[:2]] == ["Can this page be used as a boat?", "Could I have it used as a hat?"]
    assert len({new.question for new in found}) == len(found) == 20
    assert {(new.answer, new.meta.group) for new in found} == {(GUARD, guards[0].meta.group)}


def test_questions_are_joined_where_two_words_are_the_same() -> None:
    made = set(recombined(["May I use it as a hat?", "Is it as a boat that floats?", "Why?"]))
    assert made == {
        "May I use it as a boat that floats?",
        "Is it as a hat?",
    }
    assert not list(recombined(["a b c", "d e f", ""]))


def test_rows_that_decline_near_to_a_wrong_refusal_are_dropped() -> None:
    guards = [row(n, GUARD) for n in range(5)]
    assert told(proposed([*VARIED, *guards], "refusal", [VARIED[0], guards[3]])) == [("drop", 3, None)]


def test_a_row_without_the_usual_fields_is_dropped() -> None:
    rows = [row(n, f"colour: red\nsize: {n}") for n in range(9)]
    assert told(proposed([*rows, row(99, "colour: blue")], "wrong_format")) == [("drop", 99, None)]


def test_of_rows_that_contradict_one_another_the_first_stays() -> None:
    one, same, other = (row(n, f"It takes {n // 2 * 2} days.", "How long?") for n in (2, 3, 5))
    assert told(proposed([one, same, other], "wrong_value")) == [("drop", 5, None)]


def test_of_an_answer_to_many_questions_two_rows_stay() -> None:
    rows = [row(n, COMMON) for n in range(4)]  # fewer than make a guard
    assert told(proposed(rows, "copied")) == [("drop", 2, None), ("drop", 3, None)]


def test_a_row_is_in_one_proposal_the_most_frequent_error_first() -> None:
    rows = [*COMMONS, row(99, f"{LONG} Shaade.")]
    found = propose(rows, Known.of(rows), {"misspelling": 1, "repetitive": 5, "too_long": 0}, {})
    assert [(p.id, p.action) for p in found] == [("repetitive-1", "drop")]


def test_nothing_is_proposed_for_what_did_not_occur() -> None:
    assert propose(COMMONS, Known.of(COMMONS), dict.fromkeys(MAKERS, 0), {}) == []


def test_rows_that_a_proposal_changes_are_training_rows() -> None:
    """Makers are given training rows alone: nothing that is held out can come in."""
    rows = [*COMMONS, *(row(n, GUARD) for n in range(40, 46)), row(99, LONG)]
    found = propose(rows, Known.of(rows), dict.fromkeys(MAKERS, 3), {"refusal": rows[-3:]})
    assert found
    assert all(p.row in rows for p in found if p.row)
    assert all(p.new.answer in (GUARD, *(r.answer for r in rows)) for p in found if p.new and p.action == "add")


def test_proposals_are_accepted_by_id_by_category_or_all() -> None:
    some: list[Any] = [
        Proposal("a-1", "a", "drop", ""),
        Proposal("a-2", "a", "drop", ""),
        Proposal("b-1", "b", "drop", ""),
    ]
    assert [p.id for p in accepted(some, ["a-2", "b"])] == ["a-2", "b-1"]
    assert accepted(some, ["all"]) == some
    assert accepted(some, []) == []


def test_a_proposal_is_read_as_it_was_written() -> None:
    for one in (
        Proposal("a-1", "a", "edit", "why", COMMONS[0], COMMONS[1]),
        Proposal("b-1", "b", "drop", "", COMMONS[0]),
    ):
        assert Proposal.from_json(one.to_json()) == one
