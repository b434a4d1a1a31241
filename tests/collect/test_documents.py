import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.collect.documents import Cut, cut_of, read
from tunesmith.core.errors import DataError

LONG = "Word " * 120


def found(text: str, cut: Cut) -> list[tuple[int, str]]:
    return [(record.line, record.value["text"]) for record in read([line + "\n" for line in text.split("\n")], cut)]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (f"{LONG}\n{LONG}\n", "line"),
        (f"{LONG}\n" * 9 + "short\n", "line"),
        ("One is here.\nTwo.\n\nThree is there.\n", "file"),
        ("# Title\nSome `code` here\n", "file"),
        ("One.\n\fTwo.\n", "mark"),
        ("One.\n<|endoftext|>\nTwo.\n", "mark"),
    ],
)
def test_where_documents_end_is_told_from_the_text(text: str, cut: str) -> None:
    assert cut_of(text.split("\n"), "f") == cut


@pytest.mark.parametrize("text", ["a b 1\nc d 2\n", "One line of prose.\n", "x = 1\n\ny = 2\n\nz = 3\n"])
def test_where_it_is_unclear_the_choices_are_told(text: str) -> None:
    with pytest.raises(DataError, match='documents = "line", "paragraph" or "file"'):
        cut_of(text.split("\n"), "f")


def test_each_document_has_the_line_of_its_first_word() -> None:
    text = "\none\ntwo\n\n\nthree\n"
    assert found(text, "file") == [(2, "one\ntwo\n\n\nthree")]
    assert found(text, "line") == [(2, "one"), (3, "two"), (6, "three")]
    assert found(text, "paragraph") == [(2, "one\ntwo"), (6, "three")]
    assert found("a\nb\n\fc\n<|endoftext|>\n\nd\n\f", "mark") == [(1, "a\nb"), (3, "c"), (6, "d")]


@given(st.text("ab \n"), st.sampled_from(["line", "paragraph", "file"]))
def test_no_word_is_lost_between_documents(text: str, cut: Cut) -> None:
    lines = [line + "\n" for line in text.split("\n")]
    assert " ".join(record.value["text"] for record in read(lines, cut)).split() == text.split()
