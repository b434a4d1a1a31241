import math
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import ModelError
from tunesmith.engine.base import Sampling
from tunesmith.engine.sampling import answer_start, first_stop, next_ids, stop_window

LOGITS = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()  # probabilities, largest first: 1, 3, 2, 0


def draw_all(sampling: Sampling, logits: torch.Tensor = LOGITS) -> list[int]:
    """The token for each of the draws 0.05, 0.15, ..., 0.95."""
    return [next_ids(logits, [sampling], [n / 20])[0] for n in range(1, 20, 2)]


def test_greedy_takes_the_largest_and_the_first_of_equals() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0]])
    assert next_ids(logits, [Sampling(), Sampling()], [0.9, 0.9]) == [1, 0]


def test_a_draw_walks_the_cumulative_probabilities_from_the_likeliest_token() -> None:
    assert draw_all(Sampling(temperature=1.0)) == [1, 1, 1, 1, 3, 3, 3, 2, 2, 0]


def test_top_k_keeps_the_k_likeliest() -> None:
    assert draw_all(Sampling(temperature=1.0, top_k=2)) == [1] * 6 + [3] * 4  # 4/7 = 0.571
    assert draw_all(Sampling(temperature=1.0, top_k=9)) == draw_all(Sampling(temperature=1.0))


def test_top_p_keeps_the_fewest_tokens_that_hold_that_share() -> None:
    assert draw_all(Sampling(temperature=1.0, top_p=0.5)) == [1] * 6 + [3] * 4
    assert draw_all(Sampling(temperature=1.0, top_p=0.39)) == [1] * 10
    assert draw_all(Sampling(temperature=1.0, top_p=0.0)) == [1] * 10


def test_top_p_counts_the_shares_that_top_k_left() -> None:
    # of 4/7 and 3/7 the first alone holds 0.55; of 0.4 and 0.3 it would not
    assert draw_all(Sampling(temperature=1.0, top_k=2, top_p=0.55)) == [1] * 10


def test_temperature_sharpens_and_flattens() -> None:
    squared = torch.tensor([[0.01, 0.16, 0.04, 0.09]]).log()
    assert draw_all(Sampling(temperature=0.5)) == draw_all(Sampling(temperature=1.0), squared)


def test_samples_have_the_frequencies_of_the_probabilities() -> None:
    random, n = Random(0), 4000
    found = next_ids(LOGITS.expand(n, 4), [Sampling(temperature=1.0)] * n, [random.random() for _ in range(n)])
    for token, share in enumerate((0.1, 0.4, 0.2, 0.3)):
        assert abs(found.count(token) / n - share) < 4 * math.sqrt(share * (1 - share) / n)


def test_rows_of_one_batch_each_follow_their_own_sampling() -> None:
    samplings = [Sampling(), Sampling(temperature=1.0), Sampling(temperature=1.0, top_k=1)]
    assert next_ids(LOGITS.expand(3, 4), samplings, [0.99, 0.99, 0.99]) == [1, 0, 1]


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=8),
    top_k=st.integers(0, 9),
    top_p=st.floats(0, 1),
    temperature=st.floats(0.01, 10),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_a_sample_is_always_a_kept_token(
    logits: list[float], top_k: int, top_p: float, temperature: float, draw: float
) -> None:
    wish = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    token = next_ids(torch.tensor([logits]), [wish], [draw])[0]
    assert sum(value > logits[token] for value in logits) < (top_k or len(logits))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(ModelError, match="diverged"):
        next_ids(torch.tensor([[0.0, bad]]), [Sampling()], [0.0])


def test_the_earliest_stop_string_counts() -> None:
    assert first_stop("one two three", ("three", "two")) == 4
    assert first_stop("one", ("two", "")) is None
    assert first_stop("one", ()) is None
    assert first_stop("one two one", ("one",), 1) == 8


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\n\n</think>\n\nYes.", "Yes."),
        ("\n<think></think>Yes.", "Yes."),
        ("<think>\n\n</think>\n\n", ""),
        ("<think>\n\n", ""),
        ("<think>\n\n</thi", ""),
        ("<think>\n\n<b>", "<think>\n\n<b>"),
        ("<think>\nHm.\n</think>\n\nYes.", "<think>\nHm.\n</think>\n\nYes."),
        ("Yes. <think></think>", "Yes. <think></think>"),
        ("</think>Yes.", "</think>Yes."),
        (" Yes.", " Yes."),
        ("", ""),
    ],
)
def test_an_empty_thought_is_no_part_of_an_answer_and_any_other_is_kept(text: str, answer: str) -> None:
    assert text[answer_start(text) :] == answer


def test_the_window_is_counted_in_bytes() -> None:
    assert stop_window(("ab", "é€")) == 5 + 8
