import pytest

from tunesmith.compare.retrieve import bm25_copy
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
