"""The remote engine against a real server that misbehaves. Waits run a hundred times faster; nothing else is faked."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import RemoteError, UsageError
from tunesmith.core.records import Message
from tunesmith.engine import wire
from tunesmith.engine.answers import Answers
from tunesmith.engine.base import ChatRequest, Reply, Sampling
from tunesmith.engine.endpoint import EndpointConfig
from tunesmith.engine.remote import CapReached, RemoteChat

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


class FastClock:
    """A hundred seconds in one."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return time.monotonic() * 100

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds / 100)


def echo(payload: dict[str, Any]) -> str:
    return f"answer to {payload['messages'][-1]['content']}"


def first(*misdeeds: str) -> Callable[[int, dict[str, Any]], str | None]:
    """The first requests meet these, and the rest nothing."""
    return lambda number, payload: misdeeds[number] if number < len(misdeeds) else None


def always(misdeed: str) -> Callable[[int, dict[str, Any]], str | None]:
    return lambda number, payload: misdeed


def asked(count: int, **more: Any) -> list[ChatRequest]:
    sampling = Sampling(max_new_tokens=50, temperature=1.0)
    return [ChatRequest((Message("user", f"question {n}"),), sampling, **more) for n in range(count)]


def client(url: str, answers: Answers | None = None, **settings: Any) -> RemoteChat:
    config = EndpointConfig(base_url=url, model="small", **settings)
    return RemoteChat(config, answers or Answers(), "job", FastClock(), random.Random(0))


def test_every_request_gets_its_own_answer_in_order(serving: Any) -> None:
    with serving(echo) as endpoint:
        replies = client(endpoint.url).chat(asked(30))
    assert [reply.text for reply in replies] == [f"answer to question {n}" for n in range(30)]
    assert {reply.finish for reply in replies} == {"stop"}
    assert endpoint.requests == 30


def test_what_is_stored_is_not_asked_again_by_any_endpoint(serving: Any, tmp_path: Path) -> None:
    requests = asked(5)
    with serving(echo) as endpoint:
        before = client(endpoint.url, Answers(tmp_path / "answers.db")).chat(requests)
    with serving(echo) as other:
        again = client(other.url, Answers(tmp_path / "answers.db"))
        assert again.chat(requests) == before
        assert other.requests == 0
        assert again.stored(requests[0]) == before[0]
        again.chat([*requests, *asked(1, sample=1)])  # another sample is another question
        assert other.requests == 1


def test_equal_requests_in_one_call_are_asked_once(serving: Any) -> None:
    with serving(echo) as endpoint:
        assert len(client(endpoint.url).chat(asked(1) * 4)) == 4
        assert endpoint.requests == 1


MISDEEDS = ["429", "429 without", "500", "503", "408", "409", "cut", "malformed", "page"]


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_passing_failure_is_tried_again(serving: Any, misdeed: str) -> None:
    with serving(echo, first(misdeed)) as endpoint:
        replies = client(endpoint.url).chat(asked(3))
    assert [reply.text for reply in replies] == [f"answer to question {n}" for n in range(3)]
    assert endpoint.requests == 4


def test_an_answer_that_takes_too_long_is_asked_for_again(serving: Any) -> None:
    with serving(echo, first("slow")) as endpoint:
        chat = client(endpoint.url, timeout=0.3)
        assert [reply.finish for reply in chat.chat(asked(3))] == ["stop"] * 3
    assert endpoint.requests == 4
    assert chat.answers.ledger("job").unmeasured == 1


def test_retry_after_is_honoured(serving: Any) -> None:
    with serving(echo, first("429")) as endpoint:
        client(endpoint.url).chat(asked(1))
    assert endpoint.times[1] - endpoint.times[0] >= 0.02  # two seconds, at a hundredth


def test_a_limit_that_is_used_up_holds_back_what_follows(serving: Any) -> None:
    with serving(echo, first("spent")) as endpoint:
        chat = client(endpoint.url, concurrency=1)
        chat.chat(asked(2))
    assert endpoint.times[1] - endpoint.times[0] >= 0.9  # 1m30s, at a hundredth


FATAL = {
    "400": "temperature",
    "401": "export OPENAI_API_KEY=",
    "403": "take another key or model",
    "404": "check base_url",
    "quota": "add credit",
    "307": "sends us on to",
}


@pytest.mark.parametrize(("misdeed", "words"), FATAL.items())
def test_what_no_other_try_will_mend_stops_at_once_and_says_what_to_type(
    serving: Any, misdeed: str, words: str
) -> None:
    with serving(echo, always(misdeed)) as endpoint, pytest.raises(RemoteError, match=words) as caught:
        client(endpoint.url, concurrency=1).chat(asked(5))
    assert endpoint.requests == 1
    assert caught.value.exit_code == 6
    assert caught.value.fix
    assert "SECRET" not in str(caught.value)


def test_the_key_goes_into_the_header_and_nowhere_else(
    serving: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", "very-private-words")

    def parrot(payload: dict[str, Any]) -> str:
        return "fine"

    with serving(parrot, first("401")) as endpoint:
        chat = client(endpoint.url, Answers(tmp_path / "answers.db"), key_env="MY_KEY")
        with pytest.raises(RemoteError) as caught:
            chat.chat(asked(1))
        chat.chat(asked(1))
        chat.answers.close()
    assert endpoint.headers[0]["authorization"] == "Bearer very-private-words"
    assert "private" not in str(caught.value)
    assert b"private" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_without_a_key_no_header_is_sent(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(echo) as endpoint:
        client(endpoint.url).chat(asked(1))
    assert "authorization" not in endpoint.headers[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"key_env": "sk-abcdefghijkl"},
        {"base_url": None},
        {"model": ""},
        {"base_url": "127.0.0.1:8000"},
        {"base_url": "http://me:hush-hush@127.0.0.1/v1"},
        {"max_cost": 1.0},
    ],
)
def test_settings_that_cannot_work_are_refused_without_quoting_a_secret(wrong: dict[str, Any]) -> None:
    config = EndpointConfig(**{"base_url": "http://127.0.0.1:1/v1", "model": "small", **wrong})
    with pytest.raises(UsageError) as caught:
        RemoteChat(config, Answers())
    assert "sk-abc" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_nobody_at_the_address_is_said_at_once(serving: Any) -> None:
    with serving(echo) as endpoint:
        url = endpoint.url
    chat = client(url)
    with pytest.raises(RemoteError, match="is it running"):
        chat.chat(asked(1))
    assert chat.answers.ledger("job").requests == 0  # nothing was sent


def test_an_endpoint_that_always_fails_is_given_up_and_what_was_answered_is_kept(serving: Any) -> None:
    answers = Answers()
    with serving(echo, lambda number, payload: "500" if number >= 3 else None) as endpoint:
        chat = client(endpoint.url, answers, concurrency=1)
        with pytest.raises(RemoteError, match="8 times in a row: 500"):
            chat.chat(asked(4))
        assert [chat.stored(request) is None for request in asked(4)] == [False, False, False, True]
        assert endpoint.requests == 3 + 8


def test_one_request_that_always_fails_does_not_stop_the_others(serving: Any) -> None:
    def script(number: int, payload: dict[str, Any]) -> str | None:
        return "500" if payload["messages"][-1]["content"] == "question 0" else None

    answers = Answers()
    with serving(echo, script) as endpoint:
        finishes = [reply.finish for reply in client(endpoint.url, answers).chat(asked(5))]
        assert finishes == ["failed", "stop", "stop", "stop", "stop"]
        assert client(endpoint.url, answers).stored(asked(1)[0]) is None  # not stored: a rerun asks again


def test_a_rate_limit_alone_never_gives_a_request_up(serving: Any) -> None:
    """Two of three requests are refused; each waits longer than eight times."""
    with serving(echo, lambda number, payload: None if number % 3 == 0 else "429 without") as endpoint:
        replies = client(endpoint.url).chat(asked(30))
    assert {reply.finish for reply in replies} == {"stop"}


def test_an_endpoint_that_asks_to_wait_for_a_day_is_left(serving: Any) -> None:
    with serving(echo, always("429 day")) as endpoint, pytest.raises(RemoteError, match="86,400 s"):
        client(endpoint.url).chat(asked(1))


def test_messages_that_the_endpoint_will_never_answer_are_an_answer_of_their_own(serving: Any) -> None:
    answers = Answers()
    with serving(echo, first("400 long")) as endpoint:
        chat = client(endpoint.url, answers, concurrency=1)
        assert [reply.finish for reply in chat.chat(asked(2))] == ["refused", "stop"]
        client(endpoint.url, answers).chat(asked(2))
        assert endpoint.requests == 2  # stored: it is not asked again


@pytest.mark.parametrize("misdeed", ["length", "content_filter"])
def test_an_answer_that_is_not_whole_says_why(serving: Any, misdeed: str) -> None:
    with serving(echo, always(misdeed)) as endpoint:
        assert client(endpoint.url).chat(asked(1))[0].finish == misdeed


def test_thoughts_are_kept_apart_from_the_answer(serving: Any) -> None:
    with serving(echo, always("think")) as endpoint:
        (reply,) = client(endpoint.url).chat(asked(1))
    assert (reply.text, reply.reasoning) == ("answer to question 0", "let me see {}")


def test_a_wrong_content_type_does_not_spoil_a_good_answer(serving: Any) -> None:
    with serving(echo, always("text/plain")) as endpoint:
        assert client(endpoint.url).chat(asked(1))[0].text == "answer to question 0"


def test_a_page_instead_of_an_endpoint_is_told_after_three(serving: Any) -> None:
    with serving(echo, always("page")) as endpoint, pytest.raises(RemoteError, match="doctype"):
        client(endpoint.url).chat(asked(1))
    assert endpoint.requests == 3


def test_an_endpoint_without_a_schema_is_asked_in_simpler_ways(serving: Any) -> None:
    def script(number: int, payload: dict[str, Any]) -> str | None:
        return "400 schema" if payload.get("response_format", {}).get("type") == "json_schema" else None

    answers = Answers()
    with serving(lambda payload: '{"a": "b"}', script) as endpoint:
        client(endpoint.url, answers, concurrency=1).chat(asked(3, schema=SCHEMA))
        kinds = [payload["response_format"]["type"] for payload in endpoint.payloads]
        assert kinds == ["json_schema", "json_object", "json_object", "json_object"]  # it is learnt once
        client(endpoint.url, answers).chat(asked(3, schema=SCHEMA))
        assert endpoint.requests == 4  # the way of asking is no part of the key


def test_fields_that_an_endpoint_does_not_know_are_left_out(serving: Any) -> None:
    def script(number: int, payload: dict[str, Any]) -> str | None:
        if "seed" in payload:
            return "400 seed"
        return "400 limit" if "max_tokens" in payload else "400 schema" if "response_format" in payload else None

    with serving(echo, script) as endpoint:
        assert client(endpoint.url).chat(asked(1, schema=SCHEMA))[0].finish == "stop"
    assert endpoint.payloads[-1].keys() == {"model", "messages", "temperature", "max_completion_tokens"}


# The ledger and the caps

PRICES = {"small": (10.0, 100.0)}
BAD = ["429 without", "500", "cut", "slow", "malformed", "400 long", "no usage"]


def test_the_ledger_is_what_the_server_counted(serving: Any) -> None:
    def script(number: int, payload: dict[str, Any]) -> str | None:
        return BAD[number // 5] if number % 5 == 0 and number // 5 < len(BAD) else None

    with serving(echo, script) as endpoint:
        chat = client(endpoint.url, prices=PRICES, timeout=0.4)
        chat.chat(asked(40))
        ledger = chat.answers.ledger("job")
    assert ledger.requests == endpoint.requests
    assert ledger.prompt_tokens == endpoint.prompt_tokens
    assert ledger.completion_tokens == endpoint.completion_tokens
    assert ledger.unmeasured == endpoint.unanswered == 4  # cut, slow, malformed, no usage
    assert ledger.answered == endpoint.answered + 1  # the one without a count of its tokens was answered too
    expected = (10.0 * endpoint.prompt_tokens + 100.0 * endpoint.completion_tokens) / 1e6
    assert ledger.cost == pytest.approx(expected, rel=1e-12)


def test_a_cap_on_requests_is_reached_and_never_passed(serving: Any) -> None:
    with serving(echo, lambda number, payload: "500" if number % 4 == 1 else None) as endpoint:
        chat = client(endpoint.url, max_requests=7)
        with pytest.raises(CapReached, match="max_requests = 7"):
            chat.chat(asked(20))
        assert endpoint.requests == 7
        with pytest.raises(CapReached):  # over all reruns
            client(endpoint.url, chat.answers, max_requests=7).chat(asked(20))
        assert endpoint.requests == 7
        client(endpoint.url, chat.answers, max_requests=50).chat(asked(20))
        assert len({json.dumps(p) for p in endpoint.payloads}) == 20


@pytest.mark.parametrize("max_cost", [0.0, 0.006, 0.02, 0.05])
def test_a_cap_on_the_cost_is_never_passed_and_is_used(serving: Any, max_cost: float) -> None:
    """Answers use all the tokens that they may, so that what is reserved is what is spent but for the prompt."""
    with serving(lambda payload: "word " * 50, lambda n, p: "cut" if n == 1 else None) as endpoint:
        chat = client(endpoint.url, max_cost=max_cost, prices=PRICES)
        with pytest.raises(CapReached, match=f"max_cost = {max_cost:g}"):
            chat.chat(asked(30))
        ledger = chat.answers.ledger("job")
    one = (2 * 10.0 + 50 * 100.0) / 1e6  # what an answer costs, here
    assert one * endpoint.requests <= max_cost
    assert ledger.most <= max_cost
    assert ledger.most + 0.01 > max_cost  # another one could have passed it: 0.005 for its answer, and its prompt


def test_requests_at_once_grow_from_four_and_stay_below_the_limit(serving: Any) -> None:
    with serving(echo, seconds=0.03) as endpoint:
        client(endpoint.url, concurrency=9).chat(asked(60))
    assert 5 <= endpoint.most_inside <= 9
    with serving(echo, seconds=0.01) as endpoint:
        client(endpoint.url, concurrency=1).chat(asked(4))
    assert endpoint.most_inside == 1


def test_requests_a_minute_are_spread(serving: Any) -> None:
    with serving(echo) as endpoint:
        client(endpoint.url, requests_per_minute=60).chat(asked(6))
    assert endpoint.times[-1] - endpoint.times[0] >= 0.045  # five gaps of a second, at a hundredth


def test_tokens_a_minute_are_spread(serving: Any) -> None:
    with serving(echo) as endpoint:
        client(endpoint.url, tokens_per_minute=6000, concurrency=1).chat(asked(6))
    assert endpoint.times[-1] - endpoint.times[0] >= 0.02


def test_it_works_inside_a_running_loop_as_in_a_notebook(serving: Any) -> None:
    async def cell(url: str) -> list[Reply]:
        return client(url).chat(asked(2))

    with serving(echo) as endpoint:
        assert len(asyncio.run(cell(endpoint.url))) == 2


def test_half_a_character_is_sent_and_stored(serving: Any) -> None:
    request = ChatRequest((Message("user", "cut \ud83d"),), Sampling())
    with serving(lambda payload: "ok \ud83d") as endpoint:
        assert client(endpoint.url).chat([request])[0].text == "ok \ud83d"


def test_the_key_of_an_answer_depends_on_what_is_asked_and_on_nothing_else() -> None:
    (request,) = asked(1)
    other = [asked(2)[1], *asked(1, sample=1), *asked(1, schema=SCHEMA)]
    keys = {wire.key("small", request), wire.key("large", request), *(wire.key("small", one) for one in other)}
    assert len(keys) == 5
    assert wire.key("small", asked(1)[0]) == wire.key("small", request)
