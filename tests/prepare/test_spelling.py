import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.corpus import Corpus
from tunesmith.prepare.spelling import candidates, misspelt, one_edit

FILLERS = "and what can be done for it and what can be done for it is the care of the house and the kind of help "
SAID = FILLERS + "that the damaged liver disease of this patient has"


def rows(*answers: str) -> list[Row]:
    usual = [pair(f"case {i}", SAID, meta=Meta("f", i)) for i in range(60)]
    return [*usual, *(pair("case", answer, meta=Meta("f", 60 + i)) for i, answer in enumerate(answers))]


def found(*answers: str) -> list[tuple[int, str]]:
    return [(i - 60, said) for i, said in misspelt(Corpus.of(rows(*answers)))]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("the damaged lever disease is rare", "'lever' for 'liver'?"),  # a word, where the corpus says the other
        ("the pateint sleeps", "'pateint' for 'patient'?"),  # no word at all
    ],
)
def test_a_slip_is_found_with_what_it_may_stand_for(answer: str, said: str) -> None:
    assert found(answer) == [(0, said)]


@pytest.mark.parametrize(
    "answer",
    [
        "pull the lever of the machine",  # a word in a place of its own
        "all patients sleep",  # an ending
        "Pateint is the name of a town",  # a name
        "call `pateint()` first",  # code
        "the liver disease",
    ],
)
def test_words_in_their_own_place_names_endings_and_code_are_left_alone(answer: str) -> None:
    assert found(answer) == []


def test_a_word_is_rare_up_to_a_fiftieth_of_the_other() -> None:
    assert candidates(Corpus.of(rows("lever"))) == {"lever": "liver"}  # 1 to 60
    assert candidates(Corpus.of(rows("lever", "lever"))) == {}  # 2 to 60
    assert candidates(Corpus.of(rows()[:49] + rows("lever")[60:])) == {}


@pytest.mark.parametrize(
    ("word", "other", "slip"),
    [
        ("lever", "liver", True),
        ("liverr", "liver", False),  # the last letter
        ("livers", "liver", False),
        ("live", "liver", False),
        ("lier", "liver", True),
        ("lvier", "liver", True),
        ("diver", "liver", False),  # the first letter: another word
        ("liver", "liver", False),
        ("lovet", "liver", False),
    ],
)
def test_one_edit_inside_a_word(word: str, other: str, slip: bool) -> None:
    assert one_edit(word, other) == slip


@given(st.text(alphabet="abc", min_size=1, max_size=6), st.text(alphabet="abc", min_size=1, max_size=6))
def test_an_edit_is_the_same_both_ways(word: str, other: str) -> None:
    assert one_edit(word, other) == one_edit(other, word)
