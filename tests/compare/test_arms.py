from collections.abc import Sequence

import pytest

from tunesmith.compare.arms import by_likelihood, choose, majority
from tunesmith.core.errors import DataError
from tunesmith.core.records import Row, pair
from tunesmith.engine.base import Generation, Sampling, Score


class Likelihoods:
    """Scores a continuation by a table of token -> log-probability, and counts its calls."""

    def __init__(self, logprobs: dict[int, float]) -> None:
        self.logprobs, self.calls = logprobs, 0

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]) -> list[Generation]:
        raise NotImplementedError

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        self.calls += 1
        return [Score(tuple(self.logprobs[t] + prompt[0] * (t == 1) for t in ids)) for prompt, ids in requests]


def rows(*answers: str) -> list[Row]:
    return [pair(f"q{n}", answer) for n, answer in enumerate(answers)]


def test_the_commonest_answer_is_given_to_every_row() -> None:
    assert majority(rows("no", "yes", "yes", "no", "yes"), rows("a", "b")) == ["yes", "yes"]
    assert majority(rows("no", "yes"), rows("a")) == ["no"]  # the first one on a tie


def test_fields_get_the_commonest_value_each_of_the_commonest_form() -> None:
    train = rows(
        "action: get; area: io",
        "action: set; area: io",
        "action: get; area: net",
        "colour: red",
        "I only answer questions.",
        "I only answer questions.",
        "A sentence.",
    )
    arms = majority(train, rows("action: make; area: os", "A sentence.", "colour: blue"))
    assert arms == ["action: get; area: io", "I only answer questions.", "action: get; area: io"]


def test_fields_are_written_as_the_training_answers_write_them() -> None:
    assert majority(rows("a: 1\nb: 2"), rows("a: 3")) == ["a: 1\nb: 2"]
    assert majority(rows("a: 1 | b: 2"), rows("plain")) == ["a: 1 | b: 2"]  # there is no plain answer


def test_without_a_training_answer_there_is_no_commonest() -> None:
    with pytest.raises(DataError, match="no training row has an answer"):
        majority([Row(text="raw")], rows("a"))


def test_the_likeliest_option_is_by_the_mean_a_token_and_all_are_scored_in_one_call() -> None:
    engine = Likelihoods({1: -3.0, 2: -1.0, 3: -2.0})
    # means: -3, -1 (sum -3: a sum would tie), -1.5; with prompt 5 token 1 has +2
    options = [[1], [2, 2, 2], [2, 3]]
    assert choose(engine, [[0], [5]], [options, options]) == [1, 0]
    assert engine.calls == 1
    assert choose(engine, [[0]], [[[2], [2, 2]]]) == [0]  # the first one on a tie
    assert choose(engine, [], []) == []


def test_an_option_can_be_text() -> None:
    engine = Likelihoods({1: -3.0, 2: -1.0})
    assert by_likelihood(engine, lambda text: [len(text)], [0], ["a", "bb"]) == "bb"
