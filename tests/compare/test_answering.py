import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.compare.answering import Answer, Local, Remote, fits, total
from tunesmith.core.records import Message
from tunesmith.engine.base import Reply, Sampling
from tunesmith.engine.budget import Price

ASKED = (Message("user", "one two three"),)
ANSWERS = [Answer("a", "stop", 1000, 100), Answer("b", "stop", 3000, 300)]


def local(rule: Callable[..., Any], context: int = 100, **more: Any) -> Local:
    engine = rule(lambda text: "four five", context)
    return Local(engine, engine.renderer, Sampling(max_new_tokens=8), price_per_hour=3.6, **more)


def test_a_local_answer_counts_its_tokens_and_its_prompts(rule: Callable[..., Any]) -> None:
    assert local(rule).answer([ASKED]) == [Answer("four five", "stop", 3, 2)]


def test_an_answer_must_have_room_in_the_context(rule: Callable[..., Any]) -> None:
    assert local(rule, context=11).room(ASKED) == 8
    assert fits(local(rule, context=11), ASKED)
    assert not fits(local(rule, context=10), ASKED)


def test_a_local_request_costs_its_seconds_of_the_machine(rule: Callable[..., Any]) -> None:
    ticks = iter([10.0, 12.0])
    assert local(rule, clock=lambda: next(ticks)).seconds(ASKED) == 2.0
    assert local(rule).cost(ANSWERS, 2.0) == pytest.approx(2.0)  # 1,000 x 2 s at 3.6 an hour
    assert local(rule).cost(ANSWERS, None) is None


def remote(replies: list[Reply], price: Price | None = None) -> Remote:
    chat: Any = SimpleNamespace(chat=lambda requests: replies[: len(requests)], seconds=lambda request: 0.25)
    return Remote(chat, Sampling(max_new_tokens=8), price, leaves_machine=True)


def test_a_remote_answer_keeps_the_endpoints_own_counts_and_time() -> None:
    speaker = remote([Reply("x", "refused", prompt_tokens=7)])
    assert speaker.answer([ASKED]) == [Answer("x", "refused", 7, None)]
    assert speaker.seconds(ASKED) == 0.25
    assert speaker.room(ASKED) == math.inf


def test_an_endpoint_costs_its_tokens_at_their_prices() -> None:
    price = Price(1.0, 10.0)  # of a million tokens, in and out
    assert remote([], price).cost(ANSWERS, None) == pytest.approx(1000 / 2 * (4000 * 1.0 + 400 * 10.0) / 1e6)
    assert remote([]).cost(ANSWERS, 1.0) is None
    assert remote([], price).cost([*ANSWERS, Answer("", "failed", None, None)], None) is None


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert (total([1, 2]), total([1, None]), total([])) == (3, None, 0)
