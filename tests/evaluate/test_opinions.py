"""What is read from a judge's reply, and what is not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.engine.base import Reply
from tunesmith.evaluate.opinions import LETTERS, MARKS, PAIR, SINGLE, Case, Opinion, first_side, read, showing, stated

CASE = Case("i", "Why {is} it?", "first of a", "the answer of b", "the right one")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("A", "A"),
        (" **B**.", "B"),
        ("[[C]]", "C"),
        ("A, because it is right.", "A"),
        ("B\n\nIt is complete.", "B"),
        ("A better answer is B", "B"),
        ("Verdict: B", "B"),
        ("Answer: A\nNo, wait. Answer: B", "B"),
        ("The winner is: **A**", "A"),
        ("I find that B is better.", "B"),
        ("Both are good. C", "C"),
        ("C - they are equal", "C"),
        ("", ""),
        ("I cannot say.", ""),
        ("Both A and B are fine", ""),
        ("The better one is a bit long", ""),
        ("A good answer would be longer", ""),
        ("ABBA", ""),
        ("a", ""),
        ("Neither", ""),
    ],
)
def test_a_verdict_is_read_where_it_is_stated_and_nowhere_else(text: str, word: str) -> None:
    assert stated(text, tuple(LETTERS)) == word


@pytest.mark.parametrize(
    ("text", "word"),
    [("4", "4"), ("Score: 4/5", "4"), ("Rating: 5", "5"), ("4.5", ""), ("10", ""), ("2 out of 5", ""), ("0", "")],
)
def test_a_mark_is_a_digit_of_the_scale(text: str, word: str) -> None:
    assert stated(text, tuple(MARKS)) == word


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    assert stated(text, tuple(LETTERS)) in ("", *LETTERS)


def test_log_probabilities_make_a_verdict_soft_where_the_reply_begins_with_it() -> None:
    lls = {"A": math.log(0.6), "B": math.log(0.2), "C": math.log(0.2)}
    found = read(Reply("A", "stop", choices=lls), "b", LETTERS)
    assert (found.first, found.said, found.soft) == ("b", "A", True)
    assert found.value == pytest.approx(0.6 + 0.2 / 2)
    assert read(Reply("A", "stop", choices={"A": -900.0, "B": -901.0}), "a", LETTERS).value == pytest.approx(
        0.731, abs=1e-3
    )
    assert read(Reply("A good one is B.\nVerdict: B", "stop", choices=lls), "a", LETTERS) == Opinion("a", 0.0, "B")
    assert read(Reply("B", "stop", choices={"A": -1.0}), "a", LETTERS) == Opinion("a", 0.0, "B")
    marks = read(Reply("4", "stop", choices={"4": math.log(0.5), "5": math.log(0.5)}), "a", MARKS)
    assert marks.value == pytest.approx(4.5)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply("no idea", "stop"), "unparseable"),
        (Reply("Let me think about", "length"), "cut off"),
        (Reply("", "failed"), "failed"),
        (Reply("A", "content_filter"), "content_filter"),
    ],
)
def test_what_is_no_verdict_says_why(reply: Reply, why: str) -> None:
    assert read(reply, "a", LETTERS) == Opinion("a", None, why=why)


def test_a_verdict_in_a_reply_that_was_cut_off_counts() -> None:
    assert read(Reply("B, because it is the one that", "length"), "a", LETTERS).said == "B"


def test_each_order_shows_the_same_pair_turned_round() -> None:
    one, other = (showing(CASE, side, PAIR, "short", 9).messages[0].content for side in ("a", "b"))
    assert one.index(CASE.a) < one.index(CASE.b)
    assert other.index(CASE.b) < other.index(CASE.a)
    assert "Why {is} it?" in one
    assert "the right one" in one
    assert "It should be short." in one
    alone = showing(CASE, "b", SINGLE, "short", 9)
    assert CASE.b in alone.messages[0].content
    assert CASE.a not in alone.messages[0].content
    assert (alone.choices, alone.sampling.max_new_tokens) == (("1", "2", "3", "4", "5"), 9)


def test_the_side_that_comes_first_is_drawn_for_each_item_and_the_same_each_time() -> None:
    cases = [Case(str(n), "", "", "") for n in range(400)]
    sides = [first_side(case, 0) for case in cases]
    assert sides == [first_side(case, 0) for case in cases] != [first_side(case, 1) for case in cases]
    assert 160 < sides.count("a") < 240
