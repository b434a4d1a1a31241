"""Judges over a real server: a sound one, and those whose numbers must give them away."""

import asyncio
import hashlib
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import DataError, RemoteError
from tunesmith.core.jsonl import read_json, read_jsonl
from tunesmith.engine.answers import Answers
from tunesmith.engine.base import Score
from tunesmith.engine.chat import LocalChat
from tunesmith.engine.endpoint import EndpointConfig
from tunesmith.engine.remote import CapReached, RemoteChat
from tunesmith.evaluate import judge_report
from tunesmith.evaluate.judge import JudgeConfig, JudgeInputs, Votes, cases_of, measure, run, votes_of
from tunesmith.evaluate.opinions import Case

WORDS = ["red", "green", "blue", "grey", "black", "white", "pink", "brown"]


def case(number: int) -> Case:
    """b is right in two of three; which answer is the longer one has nothing to do with it."""
    right, wrong = f"RIGHT {WORDS[number % 8]}", f"WRONG {WORDS[number % 7]}"
    a, b = (wrong, right) if number % 3 else (right, wrong)
    long = " and so on" * (1 + number % 4)
    return Case(f"i{number}", f"question {number}?", a + (long if number % 2 else ""), b + ("" if number % 2 else long))


CASES = [case(number) for number in range(60)]


def parts(payload: dict[str, Any]) -> tuple[str, str]:
    """The two answers, in the order that they are shown in."""
    text = payload["messages"][0]["content"]
    first, second = text.split("----- answer A\n")[1].split("\n-----\n")[0].split("\n----- answer B\n")
    return first, second


def sound(payload: dict[str, Any]) -> str:
    first, second = parts(payload)
    return "C" if ("RIGHT" in first) == ("RIGHT" in second) else "A" if "RIGHT" in first else "B"


def always_first(payload: dict[str, Any]) -> str:
    return "A"


def always_longer(payload: dict[str, Any]) -> str:
    first, second = parts(payload)
    return "A" if len(first) > len(second) else "B"


def garbage(payload: dict[str, Any]) -> str:
    return "As a language model, I find both answers fascinating."


def a_coin(payload: dict[str, Any]) -> str:
    return "AB"[hashlib.sha256(payload["messages"][0]["content"].encode()).digest()[0] % 2]


class FastClock:
    """A hundred seconds in one."""

    def now(self) -> float:
        return time.monotonic() * 100

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 100)


def chat(endpoint: Any, answers: Answers | None = None, **more: Any) -> RemoteChat:
    config = EndpointConfig(base_url=endpoint.url, model="small", **more)
    return RemoteChat(config, answers or Answers(), "judge", FastClock(), random.Random(0))


def judged(serving: Any, brain: Callable[[dict[str, Any]], Any], votes: Votes = Votes(), **more: Any) -> dict[str, Any]:  # noqa: B008  # frozen
    with serving(brain) as endpoint:
        facts, _ = measure(JudgeConfig(**more), JudgeInputs(CASES, ("base", "tuned"), chat(endpoint), votes))
    return facts


def test_a_sound_judge_gets_a_clean_bill_and_its_verdict_counts(serving: Any) -> None:
    facts = judged(serving, sound)
    assert facts["n"] == 60
    assert facts["win_rate"]["value"] == pytest.approx(2 / 3)
    assert facts["length_controlled"]["value"] == pytest.approx(2 / 3, abs=0.08)
    assert facts["winners"] == {"a": 20, "b": 40, "tie": 0}
    assert facts["consistency"]["value"] == 1.0
    assert facts["first_slot"]["value"] == 0.5
    assert facts["first_slot"]["n"] == facts["replies"] == facts["spent"]["requests"] == 120
    assert (facts["unread"], facts["warnings"], facts["verdict"]) == ({}, [], "better")


def test_a_judge_that_prefers_the_first_slot_is_found_out(serving: Any) -> None:
    facts = judged(serving, always_first)
    assert facts["first_slot"]["value"] == 1.0
    assert facts["first_slot"]["low"] > 0.9
    assert facts["consistency"]["value"] == 0.0
    assert facts["win_rate"]["value"] == 0.5
    assert facts["verdict"] == "cannot tell"
    assert any("the answer shown first is preferred: first slot 100%" in said for said in facts["warnings"])
    assert any("only 0% of the pairs got one verdict both ways round" in said for said in facts["warnings"])


def test_with_one_order_the_drawn_sides_find_the_same_judge_out(serving: Any) -> None:
    facts = judged(serving, always_first, orders=1)
    assert facts["replies"] == 60
    assert facts["consistency"]["value"] is None
    assert facts["first_slot"]["value"] == 1.0
    assert facts["win_rate"]["low"] < 0.5 < facts["win_rate"]["high"]
    assert judged(serving, always_first, orders=1, seed=1)["winners"] != facts["winners"]


def test_a_judge_that_prefers_the_longer_text_is_found_out(serving: Any) -> None:
    longer_b = [Case(c.id, c.question, c.a.split(" and")[0], f"{c.b} and so on and on") for c in CASES[:45]] + CASES[
        45:
    ]
    with serving(always_longer) as endpoint:
        facts, _ = measure(JudgeConfig(), JudgeInputs(longer_b, ("base", "tuned"), chat(endpoint)))
    assert facts["longer"]["value"] == 1.0
    assert facts["win_rate"]["low"] > 0.7  # it looks like a clear win
    assert facts["length_controlled"]["value"] < facts["win_rate"]["value"]
    assert facts["length_controlled"]["low"] < 0.5
    assert facts["verdict"] == "cannot tell"
    assert any("the longer answer won 100%" in said for said in facts["warnings"])


def test_a_judge_that_answers_garbage_is_found_out_and_nothing_is_dropped(serving: Any) -> None:
    facts = judged(serving, garbage)
    assert facts["unread"] == {"unparseable": 120}
    assert (facts["n"], facts["win_rate"]["n"]) == (60, 60)
    assert facts["win_rate"]["value"] == 0.5
    assert facts["consistency"]["n"] == facts["first_slot"]["n"] == 0
    assert facts["verdict"] == "cannot tell"
    assert facts["warnings"][0] == "120 of 120 replies gave no verdict (120 unparseable)"
    half = judged(serving, lambda payload: sound(payload) if "question 1" in payload["messages"][0]["content"] else "")
    assert 0 < half["unread"]["unparseable"] < 120
    assert half["win_rate"]["n"] == 60


def test_a_judge_that_tosses_a_coin_is_found_out_by_consistency_and_people(serving: Any) -> None:
    votes = Votes(tuple({"item": one.id, "winner": "b" if n % 3 else "a", "rater": "r"} for n, one in enumerate(CASES)))
    facts = judged(serving, a_coin, votes)
    assert facts["consistency"]["value"] < 0.7
    assert abs(facts["votes"]["kappa"]) < 0.2
    assert len(facts["warnings"]) >= 2
    honest = judged(serving, sound, votes)
    assert honest["votes"]["kappa"] == honest["votes"]["agreement"] == 1.0
    assert honest["warnings"] == []


def test_a_judge_that_times_out_now_and_then_is_counted_and_one_that_always_does_is_an_error(serving: Any) -> None:
    def slow(number: int, payload: dict[str, Any]) -> str | None:
        return "500" if "question 7?" in payload["messages"][0]["content"] else None

    with serving(sound, slow) as endpoint:
        facts, rows = measure(JudgeConfig(), JudgeInputs(CASES[:20], ("base", "tuned"), chat(endpoint)))
    assert facts["unread"] == {"failed": 2}
    assert (facts["n"], facts["replies"]) == (20, 40)
    assert next(row for row in rows if row["id"] == "i7")["winner"] == "tie"
    with serving(sound, lambda number, payload: "slow") as endpoint, pytest.raises(RemoteError, match="no answer in"):
        measure(JudgeConfig(), JudgeInputs(CASES[:2], ("a", "b"), chat(endpoint, timeout=0.05)))


def test_verdicts_come_from_log_probabilities_where_the_endpoint_tells_them(serving: Any) -> None:
    def unsure(payload: dict[str, Any]) -> tuple[str, dict[str, float]]:
        letter = sound(payload)
        other = "B" if letter == "A" else "A"
        return letter, {letter: math.log(0.6), f" {other}": math.log(0.3), " C": math.log(0.05), "C": math.log(0.05)}

    with serving(unsure) as endpoint:
        facts, rows = measure(JudgeConfig(), JudgeInputs(CASES, ("base", "tuned"), chat(endpoint)))
        assert all(payload["logprobs"] and payload["top_logprobs"] == 20 for payload in endpoint.payloads)
    assert all(opinion["soft"] for row in rows for opinion in row["opinions"])
    assert facts["win_rate"]["value"] == pytest.approx((40 * 0.65 + 20 * 0.35) / 60)
    assert facts["winners"] == {"a": 20, "b": 40, "tie": 0}
    refusing = lambda number, payload: "400 logprobs" if payload.get("logprobs") else None  # noqa: E731
    with serving(unsure, refusing) as endpoint:
        facts, rows = measure(JudgeConfig(), JudgeInputs(CASES[:9], ("base", "tuned"), chat(endpoint)))
    assert not any(opinion["soft"] for row in rows for opinion in row["opinions"])
    assert facts["winners"]["b"] == 6


def test_a_rubric_marks_each_answer_alone(serving: Any) -> None:
    def marks(payload: dict[str, Any]) -> str:
        return "Score: 5" if "\nRIGHT" in payload["messages"][0]["content"] else "2"

    facts = judged(serving, marks, mode="rubric")
    assert facts["marks"]["a"] == pytest.approx(3.0)
    assert facts["marks"]["b"] == pytest.approx(4.0)
    assert facts["marks"]["difference"] == pytest.approx(1.0)
    assert 0 < facts["marks"]["low"] < 1.0 < facts["marks"]["high"]
    assert facts["win_rate"]["value"] == pytest.approx(2 / 3)
    assert (facts["replies"], facts["first_slot"]["n"], facts["orders"]) == (120, 0, None)
    broken = judged(serving, garbage, mode="rubric")
    assert broken["unread"] == {"unparseable": 120}
    assert broken["marks"]["n"] == 0


class Letters:
    """An engine whose log-probability of a letter is that of one scripted judge; prompts are bytes."""

    context = 10_000

    def score(self, requests: Any) -> list[Score]:
        texts = [(bytes(prompt).decode(), bytes(end).decode()) for prompt, end in requests]
        said = [(sound({"messages": [{"content": text}]}), letter) for text, letter in texts]
        return [Score((math.log(0.8) if right == letter else math.log(0.1),)) for right, letter in said]


class Bytes:
    """A renderer and tokenizer of bytes."""

    @property
    def tokenizer(self) -> Any:
        return self

    def encode(self, text: str, *, start: bool = True) -> list[int]:
        return list(text.encode())

    def prompt(self, messages: Any) -> list[int]:
        return list(messages[0].content.encode())


def test_a_local_model_judges_by_the_likelihood_of_the_letters() -> None:
    engine: Any = Letters()
    judge = LocalChat(engine, Bytes(), "a-model")
    facts, rows = measure(JudgeConfig(), JudgeInputs(CASES, ("base", "tuned"), judge))
    assert facts["win_rate"]["value"] == pytest.approx((40 * 0.85 + 20 * 0.15) / 60)
    assert facts["unread"] == {}
    assert rows[0]["opinions"][0]["soft"]
    assert facts["spent"]["completion_tokens"] == 0
    engine.context = 20
    facts, _ = measure(JudgeConfig(), JudgeInputs(CASES[:3], ("a", "b"), LocalChat(engine, Bytes(), "small")))
    assert facts["unread"] == {"context": 6}


def test_nothing_is_asked_twice_and_a_cap_stops_before_it_is_passed(serving: Any) -> None:
    answers = Answers()
    with serving(sound) as endpoint:
        inputs = JudgeInputs(CASES[:10], ("a", "b"), chat(endpoint, answers, max_requests=7, concurrency=1))
        with pytest.raises(CapReached, match="max_requests = 7"):
            measure(JudgeConfig(), inputs)
        assert endpoint.requests == 7
        free = JudgeInputs(CASES[:10], ("a", "b"), chat(endpoint, answers))
        first, _ = measure(JudgeConfig(), free)
        assert endpoint.requests == 20
        assert measure(JudgeConfig(), free)[0] == first
        assert endpoint.requests == 20


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ({"criteria": "short"}, True),
        ({"show_reference": False}, True),
        ({"max_new_tokens": 3}, True),
        ({"limit": 5}, True),
        ({"mode": "rubric"}, True),
        ({"orders": 1}, True),
        ({}, False),
    ],
)
def test_every_setting_changes_what_is_asked(serving: Any, setting: dict[str, Any], changes: bool) -> None:
    def asked(config: JudgeConfig) -> list[str]:
        cases = [Case(c.id, c.question, c.a, c.b, "a reference") for c in CASES[:8]]
        with serving(lambda payload: "A") as endpoint:
            measure(config, JudgeInputs(cases, ("a", "b"), chat(endpoint)))
            return sorted(json.dumps(payload) for payload in endpoint.payloads)

    assert (asked(JudgeConfig(**setting)) != asked(JudgeConfig())) == changes


# Votes and files


def test_peoples_votes_are_helped_by_a_judge_on_the_items_that_they_did_not_see(serving: Any) -> None:
    seen = [{"item": one.id, "winner": "b" if n % 3 else "a", "rater": "r"} for n, one in enumerate(CASES[:24])]
    votes = judged(serving, sound, Votes((*seen, {"item": "i0", "winner": "a", "rater": "s"}), unused=3))["votes"]
    assert (votes["n"], votes["items"], votes["unused"]) == (25, 24, 3)
    assert votes["people"]["value"] == pytest.approx(2 / 3)
    assert votes["with_judge"]["value"] == pytest.approx(2 / 3)
    assert votes["worth"] > 1.5
    width = [votes[name]["high"] - votes[name]["low"] for name in ("with_judge", "people")]
    assert width[0] < width[1]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_votes_on_the_same_arms_are_taken_whichever_way_round_and_others_counted(tmp_path: Path) -> None:
    vote = {"item": "i0", "a": "base", "b": "tuned", "winner": "b", "rater": "r"}
    rows = [vote, vote | {"a": "tuned", "b": "base", "winner": "b"}, vote | {"winner": "both_bad"}]
    rows += [vote | {"item": "unknown"}, vote | {"a": "third"}]
    found = votes_of(lines(tmp_path / "v.jsonl", rows), ("base", "tuned"), ["i0"])
    assert [row["winner"] for row in found.rows] == ["b", "a", "both_bad"]
    assert found.unused == 2
    with pytest.raises(DataError, match="winner 'left'"):
        votes_of(lines(tmp_path / "w.jsonl", [vote | {"winner": "left"}]), ("base", "tuned"), ["i0"])
    with pytest.raises(DataError, match="no 'winner'"):
        votes_of(lines(tmp_path / "x.jsonl", [{"item": "i0", "a": "a", "b": "b"}]), ("base", "tuned"), ["i0"])


def test_two_files_are_paired_by_id_and_what_has_no_pair_is_counted(tmp_path: Path) -> None:
    a = lines(tmp_path / "a.jsonl", [{"id": n, "prompt": "q", "output": f"a{n}", "reference": "r"} for n in (1, 2, 3)])
    b = lines(tmp_path / "b.jsonl", [{"id": n, "prompt": "q", "output": f"b{n}"} for n in (2, 3, 4, 5)])
    cases, unpaired = cases_of(a, b)
    assert [(one.id, one.a, one.b, one.reference) for one in cases] == [("2", "a2", "b2", "r"), ("3", "a3", "b3", "r")]
    assert unpaired == 3
    with pytest.raises(DataError, match="no id stands in both"):
        cases_of(a, lines(tmp_path / "c.jsonl", [{"id": "z", "prompt": "q", "output": "o"}]))
    with pytest.raises(DataError, match="no 'output'"):
        cases_of(a, lines(tmp_path / "d.jsonl", [{"id": "z", "prompt": "q"}]))
    with pytest.raises(DataError, match="stands there twice"):
        cases_of(a, lines(tmp_path / "e.jsonl", [{"id": "z", "prompt": "q", "output": "o"}] * 2))


def test_an_artifact_holds_every_reply_and_the_table_says_all_numbers(serving: Any, tmp_path: Path) -> None:
    with serving(sound) as endpoint:
        inputs = JudgeInputs(CASES[:12], ("base", "tuned"), chat(endpoint), unpaired=2)
        done = run(JudgeConfig(), inputs, tmp_path / "judge-1", {"eval": {"name": "eval-1", "hash": "x"}})
    facts = read_json(done.path / "judge.json")
    assert done.kind == "judge"
    assert (facts["unpaired"], facts["parents"]["eval"]["name"]) == (2, "eval-1")
    rows = list(read_jsonl(done.path / "opinions.jsonl"))
    assert len(rows) == 12
    assert {opinion["first"] for opinion in rows[0]["opinions"]} == {"a", "b"}
    text = judge_report.table(facts)
    for name in ("win rate of tuned", "at equal lengths", "same verdict both ways", "first slot", "longer answer won"):
        assert name in text
    assert "agreement with people   NOT RUN" in text


def test_answers_that_are_alike_are_a_tie_and_nobody_is_asked(serving: Any) -> None:
    alike = [Case(f"s{n}", "q?", "The same.", "the  same") for n in range(6)]
    votes = Votes(({"item": "s0", "winner": "tie", "rater": "r"}, {"item": "i0", "winner": "a", "rater": "r"}))
    with serving(sound) as endpoint:
        inputs = JudgeInputs([*CASES[:6], *alike], ("a", "b"), chat(endpoint), votes)
        facts, _ = measure(JudgeConfig(), inputs)
        assert (endpoint.requests, facts["replies"], facts["alike"], facts["n"]) == (12, 12, 6, 12)
    assert facts["winners"]["tie"] == 6
    assert facts["win_rate"]["value"] == pytest.approx((4 + 3) / 12)
    assert facts["first_slot"]["n"] == 12
    assert facts["votes"]["people"]["n"] == 1  # of items whose answers differ
