"""A model's opinion of rows, by an endpoint that misbehaves: read where it can be, counted where it cannot."""

import json
from typing import Any

import pytest

from tunesmith.core.records import Meta, Row, pair
from tunesmith.engine.answers import Answers
from tunesmith.engine.endpoint import EndpointConfig
from tunesmith.engine.remote import CapReached, RemoteChat
from tunesmith.prepare.judge import judge, sample

ROWS = [pair(f"What is {n} and {n}?", f"It is {2 * n}.", meta=Meta("f", n)) for n in range(1, 11)]
ANSWERS = {  # the number in the question -> what the judge says of that row
    1: '{"reason": "wrong  sum", "score": 1}',
    2: 'Well:\n```json\n{"reason": "vague", "score": 2,}\n```',
    3: '{"reason": "good", "score": 5}',
    4: "I cannot say.",
    5: '{"reason": "off the scale", "score": 7}',
    6: "Score: 4/5, a small flaw",
    7: "score 2, or score 3",
}


def opinion(payload: dict[str, Any]) -> str:
    shown = payload["messages"][0]["content"]
    number = next(n for n in range(1, 11) if f"What is {n} and" in shown)
    return ANSWERS.get(number, '{"reason": "fine", "score": 4}')


def chat(endpoint: Any, **more: Any) -> RemoteChat:
    return RemoteChat(EndpointConfig(base_url=endpoint.url, model="small", **more), Answers(), "judge")


def test_opinions_are_read_as_models_write_them_and_the_others_are_counted(serving: Any) -> None:
    with serving(opinion) as endpoint:
        facts, (finding,) = judge(chat(endpoint), ROWS, 10, seed=0)
        assert facts["scores"] == {"1": 1, "2": 1, "3": 0, "4": 4, "5": 1}
        assert (facts["rows"], facts["unreadable"], facts["mean"]["n"]) == (10, 3, 7)
        assert facts["mean"]["mean"] == pytest.approx((1 + 2 + 5 + 4 * 4) / 7)
        assert facts["mean"]["low"] < facts["mean"]["mean"] < facts["mean"]["high"]
        assert facts["spent"]["requests"] == endpoint.requests == 13  # three were asked to repair their form
    low = {(row.meta.line, why) for row, why in finding.hits}
    assert low == {(1, "1 of 5: wrong sum"), (2, "2 of 5: vague")}
    assert (finding.name, finding.count, finding.severity) == ("judged_low", 2, "note")


def test_an_answer_that_was_cut_off_is_no_score(serving: Any) -> None:
    with serving(opinion, lambda number, payload: "length") as endpoint:
        facts, (finding,) = judge(chat(endpoint), ROWS[:3], 3, seed=0)
    assert (facts["unreadable"], facts["mean"]["mean"], finding.count) == (3, None, 0)


def test_the_sample_is_the_same_each_time_and_most_of_it_stays_when_rows_are_added() -> None:
    more = [pair(f"Another question {n}", "An answer.") for n in range(2)]
    assert sample(ROWS[::-1], 4, seed=0) == sample(ROWS, 4, seed=0) != sample(ROWS, 4, seed=1)
    kept = {row.id for row in sample(ROWS, 6, seed=0)} & {row.id for row in sample([*ROWS, *more], 6, seed=0)}
    assert len(kept) >= 4
    assert sample([Row(text="raw text has no answer")], 4, seed=0) == []


def test_a_cap_stops_it_and_nothing_is_asked_twice(serving: Any) -> None:
    with serving(opinion) as endpoint:
        answers = Answers()
        config = EndpointConfig(base_url=endpoint.url, model="small", max_requests=4, concurrency=1)
        with pytest.raises(CapReached, match="max_requests = 4"):
            judge(RemoteChat(config, answers, "judge"), ROWS[7:] + ROWS[:3], 6, seed=0)
        assert endpoint.requests == 4
        raised = config.model_copy(update={"max_requests": 100})
        judge(RemoteChat(raised, answers, "judge"), ROWS[7:] + ROWS[:3], 6, seed=0)
        assert endpoint.requests == 6
        assert len({json.dumps(payload["messages"]) for payload in endpoint.payloads}) == 6
