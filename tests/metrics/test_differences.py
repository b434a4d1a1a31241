from hypothesis import given
from hypothesis import strategies as st

from tunesmith.metrics.differences import pieces


def test_words_that_the_reference_has_not_are_told_with_what_stands_between_them() -> None:
    said = pieces("Yes, the very old cat sat.", "The cat sat")
    assert [text for text, differs in said if differs] == ["Yes", "very old"]
    assert "".join(text for text, differs in said if not differs) == ", the  cat sat."


def test_order_counts_and_case_does_not() -> None:
    assert [text for text, differs in pieces("b A", "a b") if differs] in (["b"], ["A"])
    assert pieces("ÉTÉ", "été") == [("ÉTÉ", False)]


def test_without_a_reference_or_without_words_nothing_differs() -> None:
    assert pieces("anything", "") == [("anything", False)]
    assert pieces("...", "word") == [("...", False)]
    assert pieces("", "word") == []


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_character_is_lost(text: str, reference: str) -> None:
    found = pieces(text, reference)
    assert "".join(piece for piece, _ in found) == text
    assert all(piece for piece, _ in found)
    assert not any(differs for _, differs in pieces(text, text))
