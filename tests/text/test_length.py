import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.text.length import (
    MARK,
    STEP,
    Fitted,
    OverLength,
    context_span,
    decide_length,
    fit,
    fitting_length,
    lengths,
    longest,
    split_text,
    view,
)
from tunesmith.text.render import Renderer, check_example
from tunesmith.text.tokenizer import train_bpe

WORDS = ["the", "colour", "of", "a", "button", "changes.", "Why?", "\n\n", "settings", "é", "密码。", "  ", "x" * 30]
TOKENIZER = train_bpe(["the colour of a button changes with the settings of the app"] * 3, 300)
RENDERER = Renderer(TOKENIZER, "plain")
CONTEXT = " ".join(f"word{i}" for i in range(200))


def length(row: Row, renderer: Renderer) -> int:
    return longest(renderer.render(row))


@pytest.mark.parametrize(
    ("found", "max_length", "told"),
    [
        ([10, 70], None, "max_length 128: every row fits (the longest of 2 rows has 70 tokens, the base takes 512)"),
        ([10] * 999 + [400], None, "max_length 64: 99.5 % of the rows fit (the longest of 1,000 rows has 400 tokens"),
        ([10, 600], None, "max_length 512: all that the base takes (the longest of 2 rows has 600 tokens, "),
        ([10, 0, 70], 40, "max_length 40: as set (the longest of 2 rows has 70 tokens, "),
    ],
)
def test_the_limit_says_what_it_was_decided_by(found: list[int], max_length: int | None, told: str) -> None:
    assert str(decide_length(found, 512, max_length)).startswith(told)


def test_a_limit_beyond_the_base_s_context_is_refused_with_what_to_set() -> None:
    assert decide_length([10], 512, 512).max_length == 512
    with pytest.raises(UsageError, match="max_length = 513 exceeds the base's context of 512 tokens") as error:
        decide_length([10], 512, 513)
    assert error.value.fix.startswith("max_length = 512 in [train]")


def test_the_automatic_length_is_the_smallest_multiple_of_64_that_enough_rows_fit() -> None:
    assert fitting_length([10] * 995 + [1000] * 5, 4096) == 64
    assert fitting_length([10] * 994 + [130] * 6, 4096) == 192
    assert fitting_length([64] * 10, 4096) == 64
    assert fitting_length([65], 4096) == 128
    assert fitting_length([65], 100) == 100
    assert fitting_length([0, 0], 512) == 512 == fitting_length([], 512)
    assert fitting_length([0] * 900 + [65] * 100, 512) == 128


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=300), st.integers(64, 3000))
def test_at_the_automatic_length_at_most_one_row_in_200_is_too_long(found: list[int], context: int) -> None:
    limit = fitting_length(found, context)
    assert limit <= context
    if limit < context:
        assert sum(number > limit for number in found) <= 0.005 * len(found)
        assert limit % STEP == 0
        smaller = sum(number > limit - STEP for number in found)
        assert smaller > 0.005 * len(found) or limit == STEP


def test_lengths_are_those_of_what_is_trained() -> None:
    rows = [pair("Why?", "So."), Row(text="the colour")]
    assert lengths(rows, RENDERER) == [len(RENDERER.render(row)[0].ids) for row in rows]
    strict = train_bpe(["a b"], 300)
    strict.use_template("{{ raise_exception('no') if messages[0].role == 'tool' }}" + RENDERER.template.source)
    assert lengths([Row((Message("tool", "x"), Message("assistant", "y")))], Renderer(strict)) == [0]


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("Summarise this.\n\nA long passage of text.", "A long passage of text."),
        ("Summarise this.\n\nFirst part of it.\n\nSecond.", "First part of it.\n\nSecond."),
        ("A long passage of text.\n\nWhat is it about?", "A long passage of text."),
        ("Only one paragraph", "Only one paragraph"),
        ("\n\nOnly one paragraph\n\n", "\n\nOnly one paragraph\n\n"),
        ("Short.\n \t\nlonger text", "longer text"),
        ("", ""),
    ],
)
def test_the_context_is_all_but_the_instruction(text: str, context: str) -> None:
    start, end = context_span(text)
    assert text[start:end] == context


def test_a_row_that_fits_is_left_alone_whatever_the_policy() -> None:
    row = pair("Why?", "So.")
    for policy in ("skip", "trim-context"):
        assert fit(row, RENDERER, 500, policy).rows == (row,)
    text = Row(text="the colour")
    assert fit(text, RENDERER, 500, "split").rows == (text,)


@pytest.mark.parametrize(
    ("row", "policy", "limit"),
    [
        (pair("Why?", "So."), "skip", 500),
        (pair(f"Summarise this.\n\n{CONTEXT}", "It counts."), "trim-context", 150),
        (Row(text=CONTEXT), "split", 150),
    ],
)
def test_what_is_trained_is_the_rendering_of_the_rows_that_are_left(row: Row, policy: OverLength, limit: int) -> None:
    fitted = fit(row, RENDERER, limit, policy)
    assert list(fitted.examples) == [example for made in fitted.rows for example in RENDERER.render(made)]
    assert fitted == fit(row, RENDERER, limit, policy, RENDERER.render(row))


def test_a_row_that_was_rendered_already_is_not_rendered_again() -> None:
    row = pair("Why?", "So.")
    whole = RENDERER.render(pair("Another?", "Row."))
    assert fit(row, RENDERER, 500, "skip", whole) == Fitted((row,), tuple(whole), "whole", len(whole[0].ids))


def test_skip_takes_nothing_and_says_why() -> None:
    row = pair("Why?", "So.")
    fitted = fit(row, RENDERER, 8, "skip")
    assert (fitted.rows, fitted.action) == ((), "too_long")
    assert fitted.detail == f"{length(row, RENDERER)} tokens, the limit is 8"


def test_only_the_middle_of_the_context_is_cut_and_the_cut_is_marked() -> None:
    row = Row((Message("system", "Be kind."), *pair(f"Summarise this.\n\n{CONTEXT}", "It counts.").messages))
    full = length(row, RENDERER)
    fitted = fit(row, RENDERER, full // 2, "trim-context")
    assert fitted.action == "trimmed"
    (made,) = fitted.rows
    assert length(made, RENDERER) <= full // 2 < length(made, RENDERER) + 20
    assert [m for m in made.messages if m.role != "user"] == [m for m in row.messages if m.role != "user"]
    head, tail = made.question.split(MARK)
    assert row.question.startswith(head)
    assert head.startswith("Summarise this.\n\nword0 word1")
    assert row.question.endswith(tail)
    assert len(head.split()) - 2 - len(tail.split()) in (0, 1)
    assert fitted.cut is not None
    place, start, end = fitted.cut
    assert (place, row.question[:start].rstrip(), row.question[end:].lstrip()) == (1, head, tail)
    assert check_example(RENDERER.render(made)[0], RENDERER) is None


def test_an_instruction_after_its_context_stays_too() -> None:
    row = pair(f"{CONTEXT}\n\nWhat is it about?", "Words.")
    (made,) = fit(row, RENDERER, length(row, RENDERER) // 2, "trim-context").rows
    assert made.question.endswith("word199\n\nWhat is it about?")


@pytest.mark.parametrize(
    "row",
    [
        pair("Summarise this.\n\nshort", CONTEXT),
        pair(f"{CONTEXT}\n\n{CONTEXT} and so on", "A"),
        Row((Message("system", CONTEXT), Message("assistant", "A"))),
    ],
)
def test_what_is_too_long_without_its_context_is_skipped_and_not_cut_further(row: Row) -> None:
    fitted = fit(row, RENDERER, 100, "trim-context")
    assert (fitted.rows, fitted.action) == ((), "too_long")


messages = st.lists(st.sampled_from(WORDS), max_size=80).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(messages, messages, st.integers(30, 200))
def test_the_answer_and_its_stop_token_are_never_cut(question: str, answer: str, limit: int) -> None:
    row = pair(question or "x", answer or "y")
    fitted = fit(row, RENDERER, limit, "trim-context")
    for made in fitted.rows:
        assert made.answer == row.answer
        (before,), (after,) = RENDERER.render(row), RENDERER.render(made)
        trained = [[i for i, trained in zip(e.ids, e.mask, strict=True) if trained] for e in (before, after)]
        assert trained[0] == trained[1]
        assert len(after.ids) <= limit
    assert bool(fitted.rows) == (fitted.action != "too_long")


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=120).map(" ".join), st.integers(8, 60))
def test_the_pieces_of_a_text_are_the_text_and_each_fits(text: str, limit: int) -> None:
    row = Row(text=text, meta=Meta("f", 3, group="g"))
    fitted = fit(row, RENDERER, limit, "split")
    assert "".join(piece.text for piece in fitted.rows) == text
    assert all(length(piece, RENDERER) <= limit for piece in fitted.rows)
    assert {piece.meta for piece in fitted.rows} == {row.meta}
    assert len(fitted.rows) >= math.ceil(length(row, RENDERER) / limit)


def test_pieces_end_where_a_paragraph_or_a_sentence_does() -> None:
    sentence = "the colour of a button changes. "
    text = (sentence * 4).strip() + "\n\n" + (sentence * 8).strip()
    pieces = split_text(text, TOKENIZER, 6 * len(TOKENIZER.encode(sentence)))
    assert pieces[0] == (sentence * 4).strip()
    assert all(piece.rstrip().endswith(".") for piece in pieces)


def test_a_character_larger_than_the_limit_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(DataError, match="takes more than 2 tokens"):
        split_text("密", TOKENIZER, 2)
    assert fit(Row(text="a b c"), RENDERER, 1, "split").action == "too_long"


@pytest.mark.parametrize(("row", "policy"), [(pair("a", "b"), "split"), (Row(text="a"), "trim-context")])
def test_a_policy_for_another_kind_of_row_is_refused(row: Row, policy: str) -> None:
    with pytest.raises(UsageError, match="over_length"):
        fit(row, RENDERER, 500, policy)  # type: ignore[arg-type]


def test_the_view_shows_what_would_go_and_where() -> None:
    row = pair(f"Summarise this.\n\n{CONTEXT}", "It counts.")
    full = length(row, RENDERER)
    whole = {"tokens": full, "max_length": full, "action": "whole", "truncated_tokens": 0}
    assert view(row, fit(row, RENDERER, full), full) == (whole, "")
    trimmed = fit(row, RENDERER, full // 2, "trim-context")
    facts, text = view(row, trimmed, full // 2)
    assert facts["removed"] == row.question[int(str(facts["start"])) : int(str(facts["end"]))]
    assert facts["truncated_tokens"] == full - len(trimmed.examples[0].ids)
    assert "cut from message 1, characters" in text
    facts, text = view(row, fit(row, RENDERER, full - 5), full - 5)
    assert facts["action"] == "too_long"
    assert "5 tokens too many: the row is not trained" in text
    raw = Row(text=CONTEXT)
    facts, text = view(raw, fit(raw, RENDERER, full // 2, "split"), full // 2)
    assert text.endswith("2 pieces")
    assert facts["truncated_tokens"] == 0
    assert sum(facts["pieces"]) == len(CONTEXT)  # type: ignore[call-overload]
