import pytest

from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.prepare.corpus import Corpus, Near
from tunesmith.prepare.corpus_checks import contradictions, differ, language, lengths, loops, near_contradictions


def rows(*pairs: tuple[str, str]) -> list[Row]:
    return [pair(question, answer, meta=Meta("f", line)) for line, (question, answer) in enumerate(pairs, 1)]


def corpus(*pairs: tuple[str, str], near: Near = ()) -> Corpus:
    return Corpus.of(rows(*pairs), near=near)


def test_a_text_far_longer_or_shorter_than_the_rest_is_found_on_both_sides() -> None:
    usual = [(f"what is number {i}", f"it is the {i} th word of ten in this answer") for i in range(20)]
    found = dict(lengths(corpus(*usual, ("what is number x", "one two " * 100), ("what is this " * 50, usual[0][1]))))
    assert list(found) == [20, 21]
    assert found[20] == "answer of 200 words where the middle one has 11 (z +11.3)"
    assert found[21].startswith("question of 150 words where the middle one has 4")


def test_rows_of_one_length_but_for_a_word_are_no_outliers() -> None:
    assert list(lengths(corpus(*[("q", "yes")] * 30, ("q", "yes it is")))) == []


@pytest.mark.parametrize(
    ("answer", "evidence"),
    [
        ("open it now " * 12, "one 2-gram is 71% of the text, the limit is 20%"),  # "now open": 11 x 7 of 12 x 9
        (" ".join(f"word{i}" for i in range(40)), ""),
        (" ".join([*(f"word{i}" for i in range(30)), *(f"word{i}" for i in range(10))]), "repeated 5-grams"),
        (" ".join([*(f"word{i}" for i in range(30)), "one two one two"]), ""),
        ("again and again", ""),  # too short to tell
    ],
)
def test_answers_that_repeat_themselves_are_found_by_gophers_limits(answer: str, evidence: str) -> None:
    found = dict(loops(corpus(("q", "short"), ("q", answer))))
    assert found.get(1, "").startswith(evidence)
    assert (1 in found) == bool(evidence)


def test_the_shares_of_repetition_are_those_of_the_characters() -> None:
    five = [f"word{i}" for i in range(5)]  # 25 characters
    rest = [f"other{i:02d}" for i in range(22)]  # 154 characters
    once = " ".join([*five, *rest, *five])  # 25 of 204: 12 %
    assert dict(loops(corpus(("q", once)))) == {}
    eight = [f"word{i}" for i in range(8)]  # 40 characters
    more = " ".join([*eight, *rest, *eight])  # 40 of 234
    assert dict(loops(corpus(("q", more)))) == {0: "repeated 5-grams are 17% of the text, the limit is 15%"}


def test_lines_that_come_again_are_found_where_words_do_not_tell() -> None:
    lines = [f"line{i} is about thing{i} and place{i} at hour{i}" for i in range(5)]
    text = "\n".join([*lines, *lines[:3]])
    assert [i for i, _ in loops(corpus(("q", text)))] == [0]


def test_raw_texts_are_looked_at_where_there_are_no_answers() -> None:
    assert [i for i, _ in loops(Corpus.of([Row(text="again and again " * 20), Row(text="once")]))] == [0]


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("it is blue", "it is blue", ""),
        ("yes it is", "no it is", "yes here, no there,"),
        ("it costs 5 a month", "it costs 7 a month", "other numbers"),
        ("the sky is blue today", "pay at the desk", "another answer"),
        ("the sky is blue today", "the sky is quite blue today", ""),
        ("a b c d", "a b x y", ""),  # F1 = 0.5 is not below 0.5
        ("a b c d e", "a b x y z", "another answer"),
    ],
)
def test_two_answers_differ_by_polarity_words_or_numbers(one: str, other: str, why: str) -> None:
    assert differ(one, other) == why


def test_the_same_question_with_another_answer_is_a_contradiction() -> None:
    found = list(contradictions(corpus(("Is it free?", "Yes."), ("is it FREE", "No."), ("Is it free?", "Yes!"))))
    assert found == [(1, "yes here, no there, at f:1 for the same question: is it FREE")]


def test_another_system_message_is_no_contradiction_and_texts_have_none() -> None:
    other = pair("Is it free?", "No.", system="Be vague.")
    assert list(contradictions(Corpus.of([*rows(("Is it free?", "Yes.")), other]))) == []
    assert list(contradictions(Corpus.of([Row(text="a"), Row(text="a")]))) == []
    ask = (Message("user", "Q"),)
    preferences = [Row(ask, chosen="yes", rejected="no"), Row(ask, chosen="no", rejected="yes")]
    assert [i for i, _ in contradictions(Corpus.of(preferences))] == [1]


def test_nearly_the_same_question_counts_only_with_the_same_numbers_and_negations() -> None:
    pairs = (
        ("how long may I borrow a book from here", "three weeks"),
        ("how long may I borrow a book from there", "not at all"),
        ("what is the sum of 12 and 5 in this exercise", "seventeen"),
        ("what is the sum of 12 and 6 in this exercise", "eighteen"),
        ("may I bring food into the reading room", "yes you may"),
        ("may I not bring food into the reading room", "no you may"),
    )
    near = [(0, 1, 0.93), (2, 3, 0.95), (4, 5, 0.91), (0, 4, 0.8)]
    found = list(near_contradictions(corpus(*pairs, near=near)))
    assert found == [(1, "another answer at f:1 for a question 93% alike")]


ENGLISH = "this is what you can do with the key that was left on the table for you"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("das ist nicht der Schlüssel, den sie auf dem Tisch und im Haus mit sich hat", "de"),
        ("la clé est dans la maison et les enfants sont avec vous pour le repas", "fr"),
        ("это ключ, который лежит на столе", "Cyrillic"),
        ("これはテーブルの上にある鍵です", "Hiragana"),
        ("the key fits", ""),
        (ENGLISH, ""),
        ("He said 'das ist nicht' and left it at that, which is what you have to do", ""),
    ],
)
def test_a_row_in_another_language_is_found_and_a_quotation_is_not(text: str, told: str) -> None:
    found = dict(language(corpus(*[(ENGLISH, ENGLISH)] * 6, ("what", text))))
    assert found == ({6: f"the answer looks like {told}, most are en"} if told else {})


def test_without_a_main_language_nothing_is_said() -> None:
    german = "das ist nicht der Tisch und auch nicht die Tür, sie ist im Haus"
    mixed = [(ENGLISH, "x"), (german, "x"), ("la clé est dans la maison et les enfants sont avec vous", "x")]
    assert dict(language(corpus(*mixed))) == {}
