import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.compare.retrieve import Index, bm25_copy, passages
from tunesmith.core.errors import DataError
from tunesmith.core.records import Message, Row, pair

TRAIN = [
    pair("How do I reset my password?", "reset"),
    pair("How do I delete my account?", "delete"),
    pair("Wie ändere ich mein Passwort?", "ändern"),
    pair("How do I delete my account?", "delete again"),
    Row(text="password password password"),
]


def copy(*questions: str) -> list[str]:
    return bm25_copy(TRAIN, [pair(question, "?") for question in questions])


def test_the_answer_of_the_nearest_question_is_copied() -> None:
    assert copy("reset password", "delete account now", "Passwort ändere") == ["reset", "delete", "ändern"]


def test_on_a_tie_or_without_a_shared_word_the_earlier_row_is_taken() -> None:
    assert copy("delete my account", "unrelated nonsense", "", "?!") == ["delete", "reset", "reset", "reset"]


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    train = [*(pair(f"common word {n}", "common") for n in range(9)), pair("rare thing", "rare")]
    assert bm25_copy(train, [pair("a common word that is rare", "?")])[0] in ("common", "rare")
    assert bm25_copy(train, [pair("common rare", "?")]) == ["rare"]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    copy("reset")
    assert capfd.readouterr() == ("", "")


def test_without_a_usable_training_row_there_is_nothing_to_retrieve() -> None:
    with pytest.raises(DataError, match="nothing to retrieve"):
        bm25_copy([Row(text="raw"), Row((Message("user", "open question"),))], TRAIN)


def test_the_nearest_texts_come_best_first_and_never_more_than_there_are() -> None:
    index = Index(["a cat", "a dog", "cat cat"])
    assert index.nearest("cat", 2) == [2, 0]
    assert index.nearest("cat", 9) == [2, 0, 1]
    assert index.nearest("", 2) == index.nearest("?!", 2) == [0, 1]


def test_a_document_is_cut_between_paragraphs_then_between_words() -> None:
    assert passages("one two\n\nthree\n \nfour", 12) == ["one two", "three\n\nfour"]
    assert passages("aaa bbb ccc", 7) == ["aaa bbb", "ccc"]
    assert passages("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert passages(" \n\n ") == []


@given(st.text(st.sampled_from("ab \n"), max_size=80), st.integers(1, 12))
def test_passages_keep_every_word_character_and_the_limit(text: str, most: int) -> None:
    found = passages(text, most)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(piece) <= most for piece in found)
