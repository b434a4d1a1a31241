import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tunesmith.core.records import Message, Row, pair
from tunesmith.engine.base import Generation, Sampling, Score
from tunesmith.evaluate import measure
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import train_bpe


class Halves:
    """Gives every token a probability of a half, and remembers what it was asked."""

    context = 60  # tokens

    def __init__(self) -> None:
        self.requests: list[tuple[list[int], list[int]]] = []

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Any) -> list[Generation]:
        return [Generation(f"answer {len(prompt)}", tuple(prompt), "stop") for prompt in prompts]

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        self.requests = [(list(a), list(b)) for a, b in requests]
        return [Score((-math.log(2),) * len(end)) for _, end in requests]

    def embed(self, texts: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def renderer() -> Renderer:
    return Renderer(train_bpe(["How do I reset it? Press the button."] * 3, 300))


def test_the_reference_and_its_stop_token_are_scored_after_the_prompt(renderer: Renderer) -> None:
    engine, row = Halves(), pair("How?", "Press thé button.")
    (found,) = measure.likelihoods(engine, renderer, [row])
    ((before, after),) = engine.requests
    assert before == renderer.prompt(row.prompt)
    assert after == [*renderer.tokenizer.encode("Press thé button.", start=False), *renderer.stop_ids]
    assert found is not None
    assert (found.tokens, found.bytes) == (len(after), 18)  # é has two bytes
    assert found.perplexity == pytest.approx(2.0)
    assert found.bpb == pytest.approx(len(after) / 18)


def test_of_several_turns_the_last_answer_is_scored_and_of_a_preference_the_chosen_one(renderer: Renderer) -> None:
    engine = Halves()
    engine.context = 1000
    turns = (Message("user", "How?"), Message("assistant", "So."), Message("user", "Why?"))
    rows = [Row((*turns, Message("assistant", "Because."))), Row(turns, chosen="Because.", rejected="No.")]
    measure.likelihoods(engine, renderer, rows)
    first, second = engine.requests
    assert first == second
    assert first[0] == renderer.prompt(turns)


def test_a_reference_that_does_not_fit_is_left_out(renderer: Renderer) -> None:
    engine = Halves()
    found = measure.likelihoods(engine, renderer, [pair("How?", "x " * 90), pair("How?", "so")])
    assert found[0] is None
    assert found[1] is not None
    assert len(engine.requests) == 1


def test_perplexity_and_bits_of_a_whole_are_of_the_sums() -> None:
    assert measure.perplexity([3 * math.log(2), 2, 1]) == pytest.approx(2**1.5)
    assert measure.bits_per_byte([3 * math.log(2), 2, 6]) == pytest.approx(0.5)
    assert measure.perplexity([1e6, 1, 1]) == math.exp(measure.MOST_NATS)


def test_one_by_one_gives_the_same_answers_with_their_time() -> None:
    engine, prompts = Halves(), [[1], [1, 2], [1, 2, 3]]
    got = measure.one_by_one(engine, prompts, Sampling())
    assert list(got.given) == engine.generate(prompts, Sampling())
    assert all(took is not None and took >= 0 for took in got.milliseconds)


class Letters:
    """A text as how often it has an a and a b."""

    name = "letters"

    def embed(self, texts: Sequence[str]) -> Any:
        return np.array([[text.count("a"), text.count("b")] for text in texts], np.float32)


def test_similarity_is_of_each_answer_with_its_own_reference() -> None:
    found = measure.similarities(Letters(), {"base": ["a", "ab"], "tuned": ["b", "b"]}, ["a", "b"])
    assert found["base"] == pytest.approx([1.0, math.sqrt(0.5)])
    assert found["tuned"] == pytest.approx([0.0, 1.0])
    lexical = measure.lexical_similarities({"base": ["word", "other"]}, ["word", "none"])
    assert lexical["base"] == pytest.approx([1.0, 0.0])
