import pytest

from tunesmith.core.records import Message, Row, pair
from tunesmith.prepare.amount import amount, answer_tokens, effective_rows
from tunesmith.prepare.corpus import Corpus, Near
from tunesmith.text.tokenizer import train_bpe


def corpus(rows: int, near: Near = ()) -> Corpus:
    return Corpus.of([pair(f"question{i}", "three words here") for i in range(rows)], near=near)


def test_near_duplicates_are_one_row_to_learn_from() -> None:
    assert effective_rows(corpus(5, [(0, 1, 0.9), (1, 2, 0.7), (3, 4, 0.69), (0, 17, 1.0)])) == 3
    again = Corpus.of([pair("same", "a"), pair("SAME", "b"), pair("other", "c")])
    assert effective_rows(again) == 2


def test_the_score_is_worked_out_by_hand() -> None:
    axis = amount(corpus(40), train_rows=32, batch_size=16)
    # 40 of 1000 rows; 2 steps an epoch x 6 of 400; 3 of 4 minimums? OpenAI 10, OCI 32: 2 of 4
    assert axis.score == pytest.approx(100 * (3 * 0.04 + 12 / 400 + 2 / 4) / 5, abs=0.06)
    assert axis.facts["steps_an_epoch"] == 2
    assert axis.facts["answer_words"] == 120
    assert axis.facts["minimums_met"] == {"OpenAI": True, "OCI": True, "watsonx": False, "Bedrock": False}


def test_it_says_what_it_would_take() -> None:
    lines = amount(corpus(40), train_rows=32, batch_size=16).lines
    assert "it would take 960 more rows with new questions to reach 1000" in lines
    assert "400 steps are 200 epochs here, or a batch_size below 16 under [train]" in lines
    assert "below the minimum of watsonx: 50 rows" in lines
    assert "below the minimum of OpenAI: 10 rows" not in lines


def test_enough_is_a_hundred_and_asks_for_nothing() -> None:
    axis = amount(corpus(1200), train_rows=1100, batch_size=16)
    assert axis.score == 100
    assert len(axis.lines) == 2
    assert axis.lines[1].startswith("in tokens: NOT RUN")


def test_tokens_count_where_there_is_a_tokenizer_and_text_where_there_are_no_answers() -> None:
    assert amount(corpus(3), 3, 1, tokens=18).facts["answer_tokens"] == 18
    assert amount(Corpus.of([Row(text="four words of text")]), 1, 1).facts["answer_words"] == 4


def test_tokens_are_those_of_all_answers_or_of_raw_texts_each_with_its_stop_token() -> None:
    tokenizer = train_bpe(["one two three"], 300)
    length = lambda text: len(tokenizer.encode(text)) + 1  # noqa: E731
    chat = Row((Message("user", "a"), Message("assistant", "one"), Message("user", "b"), Message("assistant", "two")))
    chosen = Row((Message("user", "a"),), chosen="one two", rejected="three")
    text = Row(text="one two three")
    assert answer_tokens(tokenizer, [chat]) == length("one") + length("two")
    assert answer_tokens(tokenizer, [chosen, text] * 3) == 3 * (length("one two") + length("one two three"))
    assert answer_tokens(tokenizer, []) == 0
