"""The parts of the remote engine by hand-computed values: wire, pace and store; and a local model in its place."""

import math
import os
import signal
import subprocess
import sys
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import UsageError
from tunesmith.core.records import Message
from tunesmith.engine import wire
from tunesmith.engine.answers import Answers, Caps, Closed
from tunesmith.engine.base import ChatRequest, Reply, Sampling
from tunesmith.engine.budget import Price, most_tokens
from tunesmith.engine.chat import LocalChat
from tunesmith.engine.endpoint import EndpointConfig, check_endpoint, redact
from tunesmith.engine.local import LocalEngine
from tunesmith.engine.pace import Pace
from tunesmith.model.load import load_model
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer

REQUEST = ChatRequest((Message("user", "hello"),), Sampling(max_new_tokens=9))


@pytest.mark.parametrize(
    ("status", "code", "said", "verdict"),
    [
        (200, "", "", "ok"),
        *((status, "", "", "again") for status in (408, 409, 429, 500, 502, 503, 504, 529)),
        *((status, "", "", "fatal") for status in (301, 307, 400, 401, 402, 403, 404, 418, 422)),
        (429, "insufficient_quota", "", "fatal"),
        (400, "context_length_exceeded", "", "refused"),
        (400, "", "The prompt is too long", "refused"),
        (413, "", "payload too large", "refused"),
        (422, "content_policy_violation", "", "refused"),
        (404, "", "no model with so long a context length", "fatal"),
    ],
)
def test_which_failures_are_tried_again(status: int, code: str, said: str, verdict: str) -> None:
    assert wire.verdict(status, code, said) == verdict


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": formatdate(1_000_060, usegmt=True)}, 60.0),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.5"}, 1.5),
        ({"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "1m"}, None),
        ({"x-ratelimit-remaining-tokens": "0"}, None),
    ],
)
def test_how_long_an_endpoint_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert wire.asked_wait(headers, 1_000_000.0) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", ("", "plain")),
        ("<think>a\nb</think>\n\nplain", ("a\nb", "plain")),
        ("a</think>plain", ("a", "plain")),
        ("<think>never done", ("never done", "")),
        ("say <think> aloud", ("", "say <think> aloud")),
    ],
)
def test_thoughts_are_told_from_the_answer(text: str, parts: tuple[str, str]) -> None:
    assert wire.split_thinking(text) == parts


def answer(message: dict[str, Any], **choice: Any) -> bytes:
    import json

    body = {"choices": [{"message": message, **choice}], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}
    return json.dumps(body).encode()


def test_replies_are_read_whatever_the_dialect() -> None:
    assert wire.read_reply(answer({"content": "a"}, finish_reason="stop"), 9) == Reply("a", "stop", "", 3, 9)
    assert wire.read_reply(answer({"content": "a"}, finish_reason="eos"), 9).finish == "stop"
    assert wire.read_reply(answer({"content": "a"}, finish_reason="max_tokens"), 9).finish == "length"
    assert wire.read_reply(answer({"content": "a"}), 9).finish == "length"  # it does not say, and the limit was used
    assert wire.read_reply(answer({"content": "a"}), 10).finish == "stop"
    assert wire.read_reply(answer({"content": None, "tool_calls": []}, finish_reason="tool_calls"), 9).text == ""
    refused = wire.read_reply(answer({"content": None, "refusal": "no"}, finish_reason="stop"), 9)
    assert (refused.text, refused.finish) == ("no", "refusal")
    thought = wire.read_reply(answer({"content": "a", "reasoning_content": "b"}, finish_reason="stop"), 9)
    assert (thought.text, thought.reasoning) == ("a", "b")


def told(*entries: tuple[str, float], first: str = "A") -> dict[str, Any]:
    top = [{"token": token, "logprob": logprob} for token, logprob in entries]
    return {"content": [{"token": " ", "top_logprobs": []}, {"token": first, "top_logprobs": top}]}


def test_how_likely_each_choice_is_comes_from_all_tokens_that_are_it_but_for_spaces() -> None:
    logprobs = told(("A", math.log(0.5)), (" A", math.log(0.2)), ("B", math.log(0.1)), ("x", math.log(0.1)))
    found = wire.read_reply(answer({"content": "A"}, logprobs=logprobs), 9, ("A", "B", "C")).choices
    assert found == {"A": pytest.approx(math.log(0.7)), "B": pytest.approx(math.log(0.1))}
    assert wire.read_reply(answer({"content": "A"}, logprobs=logprobs), 9).choices == {}


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"content": None}, {"content": []}, {"content": [{"token": "A"}]}, {"content": "A"}, told(("A", -1e9))],
)
def test_log_probabilities_in_a_form_that_is_not_known_are_none(logprobs: Any) -> None:
    assert wire.read_reply(answer({"content": "A"}, logprobs=logprobs), 9, ("A", "B")).choices == {}


def test_a_request_with_choices_asks_for_them_and_one_without_is_what_it_was() -> None:
    plain = ChatRequest((Message("user", "q"),), Sampling(5))
    choosing = ChatRequest((Message("user", "q"),), Sampling(5), choices=("A", "B"))
    assert "choices" not in wire.canonical("m", plain)  # or every answer that was stored before would be paid for again
    assert wire.key("m", plain) != wire.key("m", choosing)
    assert b'"top_logprobs": 20' in wire.payload("m", choosing, wire.Manners())
    assert b"logprobs" not in wire.payload("m", plain, wire.Manners())
    simpler = wire.adapted(wire.Manners(), "logprobs is not supported")
    assert simpler is not None
    assert b"logprobs" not in wire.payload("m", choosing, simpler)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{}]}', b"[" * 100_000, b"null"])
def test_an_answer_without_a_message_is_none(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        wire.read_reply(body, 9)


@given(st.binary(max_size=200))
def test_no_error_body_breaks_the_reader(body: bytes) -> None:
    code, said = wire.complaint(body)
    assert isinstance(code, str)
    assert len(said) <= 300


def test_manners_are_given_up_one_by_one() -> None:
    manners: wire.Manners | None = wire.Manners()
    seen = []
    for complaint in ("response_format", "json_object", "use max_completion_tokens", "unknown seed", "temperature"):
        assert manners is not None
        manners = wire.adapted(manners, complaint)
        seen.append(manners)
    assert seen[3] == wire.Manners("none", "max_completion_tokens", False)
    assert seen[4] is None


# Pace


def test_the_limit_doubles_at_first_and_halves_once_for_all_that_were_on_their_way() -> None:
    pace = Pace(most=32)
    for _ in range(4):
        pace.went_well()
    assert pace.limit == 8
    for _ in range(5):
        pace.overloaded(now=10.0, started=9.0)
    assert pace.limit == 4
    pace.overloaded(now=12.0, started=11.0)
    assert pace.limit == 2
    pace.went_well()
    assert pace.limit == 2.5  # from now on by one for each round
    for started in range(100, 120):
        pace.overloaded(now=started + 0.5, started=started)
    assert pace.limit == 1


def test_the_minutes_shares_space_the_requests() -> None:
    pace = Pace(32, per_minute=30, tokens_per_minute=6000)
    pace.sent(now=0.0, tokens=100)
    assert pace.delay(0.0) == 2.0
    pace.sent(now=2.0, tokens=500)
    assert pace.delay(2.0) == 5.0
    tokens = Pace(32, tokens_per_minute=6000)
    tokens.sent(now=0.0, tokens=500)
    tokens.used(500, 100)
    assert tokens.delay(0.0) == 1.0
    tokens.hold(until=9.0)
    assert tokens.delay(1.0) == 8.0


# Store and budget


def test_the_reserve_is_never_less_than_the_tokens_of_a_byte_level_model() -> None:
    request = ChatRequest((Message("user", "naïve 数字 " * 20),), Sampling(max_new_tokens=7))
    prompt, completion = most_tokens("small", request)
    assert prompt > len(request.messages[0].content.encode())
    assert completion == 7
    assert Price(2.0, 8.0).cost(500_000, 250_000) == 3.0


def test_caps_count_what_may_have_been_spent_and_a_job_pays_for_itself() -> None:
    answers = Answers()
    caps = Caps(max_requests=3, max_cost=1.0)
    first = answers.open_request("a", "k1", "small", 0.6, caps)
    assert first is not None
    assert answers.open_request("a", "k2", "small", 0.6, caps) is None  # both could come to 1.2
    assert answers.open_request("b", "k2", "small", 0.6, caps) is not None  # another job
    answers.close_request(first, Closed(200, 0.1, 10, 10, 0.2), ("k1", "{}", Reply("x", "stop")))
    second = answers.open_request("a", "k2", "small", 0.7, caps)
    assert second is not None
    answers.close_request(second, Closed(0, 0.1))  # lost: it may have cost all of it
    ledger = answers.ledger("a")
    assert (ledger.requests, ledger.answered, ledger.unmeasured, ledger.cost) == (2, 1, 1, 0.2)
    assert ledger.most == pytest.approx(0.9)
    assert answers.open_request("a", "k3", "small", 0.11, caps) is None
    assert answers.open_request("a", "k3", "small", 0.0, caps) is not None
    assert answers.open_request("a", "k4", "small", 0.0, caps) is None  # the third was the last
    assert answers.get("k1") == Reply("x", "stop")
    assert answers.pace("small") == (1, 0.1, 10.0)


def test_two_processes_do_not_pass_a_cap_together(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tunesmith.engine.answers import *\n"
        "a = Answers(Path(sys.argv[1])); caps = Caps(max_requests=60)\n"
        "print(sum(a.open_request('j', 'k', 'm', None, caps) is not None for _ in range(60)))"
    )
    path = tmp_path / "answers.db"
    both = [subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sum(int(process.communicate(timeout=60)[0]) for process in both) == 60


WRITER = """
import sys
from pathlib import Path
from tunesmith.engine.answers import Answers, Caps, Closed
from tunesmith.engine.base import Reply
answers = Answers(Path(sys.argv[1]))
for n in range(100_000):
    number = answers.open_request("job", f"k{n}", "small", 1.0, Caps())
    answers.close_request(number, Closed(200, 0.1, 1, 1, 0.5), (f"k{n}", "{}", Reply(str(n), "stop")))
    print(n, flush=True)
"""


def test_after_kill_9_all_that_was_said_to_be_stored_is_stored_and_paid_once(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(40)]
    os.kill(process.pid, signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().split(b"\n") if line]
    process.stdout.close()
    process.wait(timeout=30)
    answers = Answers(path)
    assert all(answers.get(f"k{n}") == Reply(str(n), "stop") for n in told)
    ledger = answers.ledger("job")
    assert ledger.answered == len(answers.keys())
    assert ledger.requests - ledger.answered <= 1  # the one on its way, which counts as if it had cost all it could
    assert ledger.most <= 0.5 * ledger.answered + 1.0


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    path.write_text("not a database " * 100)
    with pytest.raises(UsageError, match="not a file of answers"):
        Answers(path)


def test_keys_are_taken_out_of_what_is_shown() -> None:
    assert redact("bad key my-own-key or sk-abc***xyz9", "my-own-key") == "bad key *** or ***"


def test_an_address_may_end_as_people_write_it() -> None:
    for ending in ("", "/", "/chat/completions"):
        config = EndpointConfig(base_url=f"http://127.0.0.1:1/v1{ending}", model="small")
        assert check_endpoint(config) == "http://127.0.0.1:1/v1"


# A local model


def test_a_local_model_answers_messages_and_remembers(qwen_dir: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(qwen_dir)
    renderer = Renderer(tokenizer)
    engine = LocalEngine(load_model(qwen_dir, torch.float32), tokenizer, stop_ids=renderer.stop_ids)
    requests = [
        ChatRequest((Message("user", "Which colour?"),), Sampling(12, temperature=1.0), sample=n) for n in range(3)
    ]
    chat = LocalChat(engine, renderer, "run-1", Answers(tmp_path / "answers.db"))
    replies = chat.chat(requests)
    assert len({reply.text for reply in replies}) > 1  # samples differ
    assert replies[0].prompt_tokens == len(renderer.prompt(requests[0].messages))
    again = LocalChat(engine, renderer, "run-1", Answers(tmp_path / "answers.db"))
    assert again.chat(requests) == replies
    assert again.spent()["requests"] == 0
    other = LocalChat(engine, renderer, "run-2", Answers(tmp_path / "answers.db"))
    assert other.stored(requests[0]) is None  # another model's answers are not its own


def test_a_local_model_chooses_by_likelihood_and_writes_nothing(qwen_dir: Path) -> None:
    tokenizer = Tokenizer.load(qwen_dir)
    renderer = Renderer(tokenizer)
    engine = LocalEngine(load_model(qwen_dir, torch.float32), tokenizer, stop_ids=renderer.stop_ids)
    chat = LocalChat(engine, renderer, "run-1")
    messages = (Message("user", "Which colour?"),)
    requests = [ChatRequest(messages, Sampling(5), choices=("A", "B", "the sky")), ChatRequest(messages, Sampling(5))]
    chosen, written = chat.chat(requests)
    prompt = renderer.prompt(messages)
    ends = {word: tokenizer.encode(word, start=False) for word in requests[0].choices}
    expected = {
        word: score.total for word, score in zip(ends, engine.score([(prompt, e) for e in ends.values()]), strict=True)
    }
    assert dict(chosen.choices) == pytest.approx(expected)
    assert chosen.text == max(expected, key=expected.__getitem__)
    assert (chosen.finish, chosen.completion_tokens, written.choices) == ("stop", 0, {})
    long = ChatRequest((Message("user", "Which colour? " * 60),), Sampling(5), choices=("A",))
    assert chat.chat([long])[0].finish == "context"
