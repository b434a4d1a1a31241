"""generate against a real server that misbehaves: the accepted target, nothing paid twice, no cap passed."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.collect import forecast, generate
from tunesmith.collect.generate import GenerateConfig
from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import DataError, RemoteError, TunesmithError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl, read_rows, write_json, write_jsonl, write_rows
from tunesmith.core.records import Meta, Row, pair
from tunesmith.engine.base import ChatRequest, Generation, Sampling
from tunesmith.engine.chat import LocalChat
from tunesmith.engine.remote import CapReached

PRICES = {"small": (10.0, 100.0)}
SYLLABLES = re.findall("..", "bacedifoguhajekilomunapeqirosutavewixozu")


class FastClock:
    """A hundred seconds in one."""

    def now(self) -> float:
        return time.monotonic() * 100

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 100)


def seeds(count: int = 12) -> list[Row]:
    rng = random.Random(1)
    return [
        pair(f"How do I {word(rng)} the {word(rng)} of a {word(rng)}?", f"Press {word(rng)}, then {word(rng)}.")
        for _ in range(count)
    ]


def word(rng: random.Random) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(3))


def raw(folder: Path, rows: Sequence[Row], name: str = "seeds") -> Artifact:
    with writing(folder / "data" / "raw" / name) as work:
        write_rows(work / "examples.jsonl", rows)
        write_jsonl(work / "rejects.jsonl", [])
        write_json(work / "receipt.json", {})
        return seal(work, folder / "data" / "raw" / name, "raw", {})


def rows_json(*rows: dict[str, Any]) -> str:
    return json.dumps({"rows": list(rows)})


def inventive(payload: dict[str, Any]) -> str:
    """Five new questions and answers, a function of what was asked: whatever the order of the requests."""
    rng = random.Random(json.dumps([payload["messages"], payload.get("seed")]))
    made = []
    for _ in range(5):
        question = f"Why does {word(rng)} {word(rng)} when {word(rng)} {word(rng)} {word(rng)}?"
        made.append({"question": question, "answer": f"Because {word(rng)} is {word(rng)}."})
    return rows_json(*made)


def nothing(number: int, payload: dict[str, Any]) -> str | None:
    return None


def settings(endpoint: Any, **more: Any) -> GenerateConfig:
    values = {"base_url": endpoint.url, "model": "small", "target": 30, "timeout": 5.0, "max_tokens": 200}
    return GenerateConfig(**{**values, **more})


def make(folder: Path, config: GenerateConfig, inputs: Sequence[Artifact | Path]) -> Artifact:
    out = folder / "data" / "raw"
    engine = generate.connect(config, inputs, folder / "answers.db", FastClock())
    try:
        return generate.run(config, inputs, out, engine)
    finally:
        engine.close()


def rejected(artifact: Artifact) -> dict[str, int]:
    return dict(read_json(artifact.path / "receipt.json")["rejected"])


def remove(artifact: Artifact) -> None:
    for path in artifact.path.iterdir():
        path.unlink()
    artifact.path.rmdir()


# Acceptance 4

CALM = ["429", "500", "500", "503", "slow", "cut", "malformed", "page", "truncated", "length", "text/plain", "think"]


def wild(number: int, payload: dict[str, Any]) -> str | None:
    return CALM[number // 2] if number % 2 == 0 and number // 2 < len(CALM) else None


def test_exactly_the_accepted_target_is_delivered_by_a_server_that_misbehaves(serving: Any, tmp_path: Path) -> None:
    inputs = [raw(tmp_path, seeds())]
    with serving(inventive, wild) as endpoint:
        config = settings(endpoint, target=73, timeout=1.5, prices=PRICES)
        made = make(tmp_path, config, inputs)
        receipt = read_json(made.path / "receipt.json")
        rows = list(read_rows(made.path / "examples.jsonl"))
        rejects = list(read_jsonl(made.path / "rejects.jsonl"))
        assert len(rows) == receipt["kept"] == 73
        assert len(rejects) == sum(receipt["rejected"].values()) == receipt["rows_in"] - 73
        assert receipt["rejected"]["length"] == 1  # an answer that was cut off is no data
        spent = receipt["spent"]  # the ledger is the server's own count
        assert spent["requests"] == endpoint.requests
        assert (spent["prompt_tokens"], spent["completion_tokens"]) == (
            endpoint.prompt_tokens,
            endpoint.completion_tokens,
        )
        assert spent["unmeasured"] == endpoint.unanswered == 4  # slow, cut, malformed, page
        assert spent["cost"] == pytest.approx((10 * endpoint.prompt_tokens + 100 * endpoint.completion_tokens) / 1e6)
        before = endpoint.requests
        assert make(tmp_path, config, inputs).hash == made.hash  # a second run makes 0 requests
        files = {path.name: path.read_bytes() for path in made.path.iterdir() if path.suffix == ".jsonl"}
        remove(made)
        again = make(tmp_path, config, inputs)  # and none where the rows must be made anew, and all is the same
        assert endpoint.requests == before
        assert {path.name: path.read_bytes() for path in again.path.iterdir() if path.suffix == ".jsonl"} == files


CHILD = """
import sys
from pathlib import Path
from tunesmith.collect import generate
from tunesmith.core.artifact import open_artifact
folder, url = Path(sys.argv[1]), sys.argv[2]
config = generate.GenerateConfig(base_url=url, model="small", target=150, max_tokens=200, concurrency=8)
generate.run(config, [open_artifact(folder / "data/raw/seeds")], folder / "data/raw", store=folder / "answers.db")
"""


@pytest.mark.parametrize("after", [3, 17])
def test_kill_9_in_the_middle_loses_and_repeats_nothing_that_was_answered(
    serving: Any, tmp_path: Path, after: int
) -> None:
    calm = tmp_path / "calm"
    inputs = [raw(tmp_path, seeds())]
    with serving(inventive, seconds=0.02) as endpoint:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), endpoint.url], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while endpoint.answered < after and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=30) == -signal.SIGKILL
        time.sleep(0.1)  # what was on its way arrives
        known = stored_requests(tmp_path / "answers.db")
        assert len(known) >= after - 8
        assert endpoint.answered - len(known) <= 8  # what was in flight, and no more, may have been lost
        first = endpoint.requests
        config = settings(endpoint, target=150, concurrency=8)
        made = make(tmp_path, config, inputs)
        asked_later = [identity(payload) for payload in endpoint.payloads[first:]]
        assert not known.intersection(asked_later)
        assert len(set(asked_later)) == len(asked_later)
        spent = read_json(made.path / "receipt.json")["spent"]
        # of both lives; those that were on their way at the kill are in the ledger, whether they arrived or not
        assert endpoint.requests <= spent["requests"] <= endpoint.requests + 8
        assert spent["answered"] == len(stored_requests(tmp_path / "answers.db"))
        assert spent["unmeasured"] == spent["requests"] - spent["answered"] <= 8
        undisturbed = make(calm, config, [raw(calm, seeds())])
    for name in ("examples.jsonl", "rejects.jsonl", "provenance.jsonl"):
        assert (made.path / name).read_bytes() == (undisturbed.path / name).read_bytes()


def identity(payload: dict[str, Any]) -> str:
    return json.dumps([payload["messages"], payload["seed"]])


def stored_requests(path: Path) -> set[str]:
    """What was answered and stored, as `identity` has it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        found = [json.loads(request) for (request,) in db.execute("SELECT request FROM answers")]
    return {json.dumps([one["messages"], one["seed"] * 1_000_003 + one["sample"]]) for one in found}


@pytest.mark.parametrize("cap", [{"max_requests": 9}, {"max_cost": 0.15, "prices": PRICES}])
def test_a_cap_stops_before_it_is_passed_and_what_there_is_costs_nothing_more(
    serving: Any, tmp_path: Path, cap: dict[str, Any]
) -> None:
    inputs = [raw(tmp_path, seeds())]
    with serving(inventive) as endpoint:
        config = settings(endpoint, target=200, concurrency=4, **cap)
        with pytest.raises(CapReached, match=r"of 200 rows are accepted") as caught:
            make(tmp_path, config, inputs)
        before = endpoint.requests
        assert before <= 9 if "max_requests" in cap else 0.05 < cost(endpoint) <= 0.15
        told = re.search(r"target = (\d+), which asks for nothing more", str(caught.value))
        assert told
        made = make(tmp_path, config.model_copy(update={"target": int(told[1])}), inputs)
        assert made.facts["kept"] == int(told[1])
        assert endpoint.requests == before
        free = config.model_copy(update={"max_requests": None, "max_cost": None, "target": 60})
        assert make(tmp_path, free, inputs).facts["kept"] == 60
        assert len(set(map(identity, endpoint.payloads))) == endpoint.requests  # nothing was paid for twice


def cost(endpoint: Any) -> float:
    return float(10 * endpoint.prompt_tokens + 100 * endpoint.completion_tokens) / 1e6


@pytest.mark.parametrize("recipe", ["self-instruct", "questions", "paraphrase", "guard", "rewrite"])
def test_a_dry_run_sends_nothing_and_says_what_it_would_take(serving: Any, tmp_path: Path, recipe: Any) -> None:
    document = tmp_path / "manual.md"
    document.write_text("# Manual\n\n" + "The red lever moves the crane. " * 500)
    inputs = [raw(tmp_path, [*seeds(), pair("What is it?", "No.")]), document]
    with serving(inventive) as endpoint:
        config = settings(endpoint, recipe=recipe, topic="cranes", target=20, prices=PRICES, concurrency=2)
        told = forecast.plan(config, inputs, tmp_path / "answers.db")
        assert endpoint.requests == 0
    assert not (tmp_path / "answers.db").exists()
    least, most = told["requests"]
    assert 1 <= least <= most
    assert told["prompt_tokens"][0] > 0
    assert 0 < told["cost"][0] <= told["cost"][1]
    assert told["seconds"][0] == pytest.approx(least * 5.0 / min(least, 2))
    assert told["basis"].startswith("assumed")


def test_a_forecast_counts_what_is_stored_and_uses_what_was_measured(serving: Any, tmp_path: Path) -> None:
    inputs = [raw(tmp_path, seeds())]
    with serving(inventive) as endpoint:
        config = settings(endpoint, target=20)
        make(tmp_path, config, inputs)
        before = endpoint.requests
        told = forecast.plan(config, inputs, tmp_path / "answers.db")
        assert endpoint.requests == before
    assert told["requests"][0] == told["stored"] == 4
    assert told["basis"] == f"{before} answers of small"
    assert told["cost"] is None


def test_too_few_good_rows_stop_it_after_twenty_requests_with_three_answers_shown(
    serving: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = rows_json({"question": "Who is who here and there?", "answer": "Nobody."})
    inputs = [raw(tmp_path, seeds())]
    with serving(lambda payload: same) as endpoint, pytest.raises(RemoteError, match="not_new") as caught:
        make(tmp_path, settings(endpoint), inputs)
    assert endpoint.requests == 20
    assert "only 1 of the last 20 rows" in str(caught.value)
    assert capsys.readouterr().err.count("Who is who here and there?") == 3


# The recipes


def test_self_instruct_shows_six_human_rows_and_two_machine_rows(serving: Any, tmp_path: Path) -> None:
    human = seeds(9)
    inputs = [raw(tmp_path, [*human, pair("Do you like jazz?", "Not here.", meta=Meta(origin="guard"))])]
    with serving(inventive) as endpoint:
        made = make(tmp_path, settings(endpoint, target=150), inputs)
    prompts = [payload["messages"][0]["content"] for payload in endpoint.payloads]
    shown = [sum(f"Question: {row.question}\n" in prompt for row in human) for prompt in prompts]
    assert set(shown) == {6}
    assert {prompt.count("Question: ") for prompt in prompts} == {6, 8}  # from the second block on, with two of its own
    assert not any("jazz" in prompt for prompt in prompts)
    rows = list(read_rows(made.path / "examples.jsonl"))
    assert [row.meta.line for row in rows] == list(range(1, 151))
    assert {(row.meta.origin, row.meta.group) for row in rows} == {("generated", "")}
    provenance = list(read_jsonl(made.path / "provenance.jsonl"))
    assert [one["id"] for one in provenance] == [row.id for row in rows]
    assert {one["model"] for one in provenance} == {"small"}
    assert all(len(one["demos"]) in (6, 8) and len(one["prompt_sha256"]) == 64 for one in provenance)


def test_rows_that_are_not_new_empty_or_echoes_are_rejected_with_the_reason(serving: Any, tmp_path: Path) -> None:
    first = seeds()[0]
    bad = [
        {"question": first.question.upper(), "answer": "a b c"},
        {"question": first.question.replace("How do I", "How should I"), "answer": "a b c"},
        {"question": "?!", "answer": "a b c"},
        {"question": "Say this again", "answer": "say this again!"},
        {"question": "so " * 200, "answer": "a b c"},
        {"question": 7, "answer": "a b c"},
        "a string",
    ]
    inputs = [raw(tmp_path, seeds())]

    def brain(payload: dict[str, Any]) -> str:
        made = json.loads(inventive(payload))["rows"]
        return json.dumps({"rows": [*(bad if payload["seed"] == 0 else []), *made]})

    with serving(brain) as endpoint:
        made = make(tmp_path, settings(endpoint, target=12), inputs)
    assert rejected(made) == {"not_new": 2, "empty": 1, "echo": 1, "too_long": 1, "shape": 2, "beyond_target": 3}


def test_what_cannot_be_read_is_repaired_once_and_else_rejected(serving: Any, tmp_path: Path) -> None:
    def brain(payload: dict[str, Any]) -> str:
        if payload["seed"] == 0 and len(payload["messages"]) == 1:
            return "Sure! Here they are."
        return "no" if payload["seed"] == 1 else f"```json\n{inventive(payload)[:-1]},}}\n```"

    inputs = [raw(tmp_path, seeds())]
    with serving(brain) as endpoint:
        made = make(tmp_path, settings(endpoint, target=10), inputs)
    repairs = [payload for payload in endpoint.payloads if len(payload["messages"]) == 3]
    assert len(repairs) == 2
    assert "That cannot be read: no JSON" in repairs[0]["messages"][-1]["content"]
    assert rejected(made) == {"bad_json": 1}


DOCUMENT = """# Crane manual

The red lever lifts the hook of the Crane X200. It takes 12 seconds. The Crane X200 carries 900 kg at most.

## Service

Oil the winch every 30 days with Grip oil.
"""


def crane(payload: dict[str, Any]) -> str:
    """Facts, then pairs; some of them made up."""
    prompt = payload["messages"][0]["content"]
    if "List the separate facts" in prompt:
        facts = ["The Crane X200 carries 900 kg.", "Its winch needs Grip oil every 30 days.", "It was built in 1987."]
        return rows_json(*({"fact": fact} for fact in facts))
    rng = random.Random(payload["seed"])
    return rows_json(
        {"number": 1, "question": f"how much can it {word(rng)} carry", "answer": "It carries 900 kg."},
        {"number": 1, "question": f"And what {word(rng)} does the manual give?", "answer": "At most 950 kg."},
        {"number": 2, "question": f"Which {word(rng)} oil do I take?", "answer": "According to the text, Grip oil."},
        {"number": 2, "question": f"When do I {word(rng)} oil the winch?", "answer": "Oil the winch every 30 days."},
        {"number": 9, "question": f"What {word(rng)}?", "answer": "A fact that was not asked."},
    )


def test_questions_come_from_facts_and_say_nothing_that_is_not_in_the_document(serving: Any, tmp_path: Path) -> None:
    document = tmp_path / "crane.md"
    document.write_text(DOCUMENT)
    with serving(crane) as endpoint:
        made = make(tmp_path, settings(endpoint, recipe="questions", target=2), [document])
        prompts = [payload["messages"][0]["content"] for payload in endpoint.payloads]
    assert "List the separate facts" in prompts[0]
    (pairs,) = (prompt for prompt in prompts if "List the separate facts" not in prompt)
    assert "1987" not in pairs  # a fact that the document does not hold is asked about by nobody
    assert pairs.count("asked by") == 2
    rows = list(read_rows(made.path / "examples.jsonl"))
    assert [row.answer for row in rows] == ["It carries 900 kg.", "Oil the winch every 30 days."]
    assert len({row.meta.group for row in rows}) == 2
    assert all(row.meta.group.startswith("crane.md#1/") for row in rows)
    assert rejected(made) == {"ungrounded_fact": 1, "ungrounded": 1, "about_the_text": 1, "beyond_target": 1}
    (one, two) = read_jsonl(made.path / "provenance.jsonl")
    assert (one["document"], one["chunk"], one["fact"]) == ("crane.md", 1, "The Crane X200 carries 900 kg.")
    assert one["register"] != two["register"]


def test_documents_that_are_used_up_say_how_many_rows_there_are(serving: Any, tmp_path: Path) -> None:
    document = tmp_path / "crane.md"
    document.write_text(DOCUMENT)
    with serving(crane) as endpoint:
        config = settings(endpoint, recipe="questions", target=90)
        with pytest.raises(DataError, match=r"(\d+) of 90 rows are accepted") as caught:
            make(tmp_path, config, [document])
        before = endpoint.requests
        count = int(re.findall(r"target = (\d+)", str(caught.value))[0])
        made = make(tmp_path, config.model_copy(update={"target": None}), [document])  # all that there are
        assert made.facts["kept"] == count
        assert endpoint.requests == before


def test_paraphrases_keep_the_answer_the_meaning_and_the_split_of_their_parent(serving: Any, tmp_path: Path) -> None:
    one = pair("How do I reset the X200 without losing data?", "Hold the red button.", system="You help with cranes.")
    two = pair("Where is the hook?", "At the end.", meta=Meta(group="hooks"))

    def brain(payload: dict[str, Any]) -> str:
        if "X200" not in payload["messages"][0]["content"]:
            return rows_json({"question": "In which place can somebody find that hooking part?"})
        return rows_json(
            {"question": "My X200 must start anew, but no file may go: what now?"},
            {"question": "Which way can I make the X300 start from scratch, not touching files?"},
            {"question": "What makes the X200 start from scratch and drop everything?"},
            {"question": "how do I reset the X200 without losing data"},
        )

    inputs = [raw(tmp_path, [one, two])]
    with serving(brain) as endpoint:
        made = make(tmp_path, settings(endpoint, recipe="paraphrase", target=2), inputs)
    rows = {row.question: row for row in read_rows(made.path / "examples.jsonl")}
    assert rows.keys() == {
        "My X200 must start anew, but no file may go: what now?",
        "In which place can somebody find that hooking part?",
    }
    first = rows["My X200 must start anew, but no file may go: what now?"]
    assert (first.answer, first.meta.group, first.meta.origin) == ("Hold the red button.", one.id, "generated")
    assert first.messages[0].content == "You help with cranes."
    assert rows["In which place can somebody find that hooking part?"].meta.group == "hooks"
    provenance = {row["id"]: row["parents"] for row in read_jsonl(made.path / "provenance.jsonl")}
    assert provenance[first.id] == [one.id]
    reasons = rejected(made)
    assert reasons.pop("beyond_target", 0) <= 3
    assert reasons in ({"meaning_changed": 2, "not_new": 1}, {})  # the last parent's surplus is beyond the target


def test_guard_rows_have_one_constant_answer_and_near_misses_keep_theirs(serving: Any, tmp_path: Path) -> None:
    human = seeds(6)

    def brain(payload: dict[str, Any]) -> str:
        prompt = payload["messages"][0]["content"]
        rng = random.Random(payload["seed"])
        if "Write each anew" in prompt:
            listed = re.findall(r"^(\d+)\. (.+)$", prompt, re.MULTILINE)
            return rows_json(
                *(
                    {
                        "number": n,
                        "question": f"At my {word(rng)} club, with {word(rng)}, {word(rng)} asks: {question.lower()}",
                    }
                    for n, question in listed
                )
            )
        made = [{"question": f"Can you {word(rng)} my {word(rng)} with {word(rng)}?"} for _ in range(4)]
        return rows_json(*made, {"question": f"Is Cranes a {word(rng)} {word(rng)} film?"})

    inputs = [raw(tmp_path, human)]
    with serving(brain) as endpoint:
        config = settings(endpoint, recipe="guard", topic="Cranes and {hooks}", target=40)
        made = make(tmp_path, config, inputs)
    rows = list(read_rows(made.path / "examples.jsonl"))
    guards = [row for row in rows if row.meta.origin == "guard"]
    assert {row.answer for row in guards} == {"Let's keep the discussion relevant to Cranes and {hooks}."}
    misses = [row for row in rows if row.meta.origin == "generated"]
    assert misses
    answers = {row.id: row.answer for row in human}
    assert all(row.answer == answers[row.meta.group] for row in misses)
    assert rejected(made)["on_topic"] >= 1
    kinds = {one["guard"] for one in read_jsonl(made.path / "provenance.jsonl")}
    assert kinds == {"far", "near", "order", "chat", "near miss"}


def test_weak_answers_are_rewritten_without_new_claims(serving: Any, tmp_path: Path) -> None:
    weak = [
        pair("What lifts the hook?", "Lever."),
        pair("How long does it take?", "It takes the hook twelve seconds to reach the top of the"),
        pair("Is it safe to use?", "Yes safe yes safe yes safe yes safe."),
    ]
    good = pair("What colour is it?", "The lever is red, and the hook is black.")

    def brain(payload: dict[str, Any]) -> str:
        prompt = payload["messages"][0]["content"]
        answers = {
            "lifts": "The lever lifts the hook.",
            "long": "The hook takes 12 seconds to reach the top.",
            "safe": "It is safe since 1987.",
        }
        return rows_json({"answer": next(text for key, text in answers.items() if key in prompt)})

    inputs = [raw(tmp_path, [*weak, good])]
    with serving(brain) as endpoint:
        made = make(tmp_path, settings(endpoint, recipe="rewrite", target=None), inputs)
        assert endpoint.requests == 3
    rows = {row.question: row for row in read_rows(made.path / "examples.jsonl")}
    assert {row.answer for row in rows.values()} == {
        "The lever lifts the hook.",
        "The hook takes 12 seconds to reach the top.",
    }
    assert {row.meta.origin for row in rows.values()} == {"edited"}
    assert rejected(made) == {"ungrounded": 1}
    replaced = {one["replaces"] for one in read_jsonl(made.path / "provenance.jsonl")}
    assert replaced == {weak[0].id, weak[1].id}


# A local model, the settings, and what is wrong with the sources


class FakeEngine:
    """Answers with rows made of the prompt's length and the seed."""

    context = 100_000

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Any) -> list[Generation]:
        texts = [inventive({"messages": len(p), "seed": s.seed}) for p, s in zip(prompts, sampling, strict=True)]
        return [Generation(f"<think>hm</think>{text}", (1, 2, 3), "stop") for text in texts]

    def score(self, requests: Any) -> Any:
        raise AssertionError


class Bytes:
    def prompt(self, messages: Sequence[Any]) -> list[int]:
        return list("\n".join(m.content for m in messages).encode())


def test_a_local_model_makes_rows_in_the_same_way(tmp_path: Path) -> None:
    inputs = [raw(tmp_path, seeds())]
    engine = LocalChat(FakeEngine(), Bytes(), "my-run")
    made = generate.run(GenerateConfig(target=25), inputs, tmp_path / "data" / "raw", engine)
    assert made.facts["kept"] == 25
    assert made.facts["model"] == "my-run"
    assert made.facts["spent"]["requests"] == made.facts["requests_used"] == 5


def test_a_prompt_that_leaves_a_local_model_no_room_is_told_apart() -> None:
    engine = FakeEngine()
    engine.context = 3
    chat = LocalChat(engine, Bytes(), "my-run")
    requests = [ChatRequest((pair("abc", "x").messages[0],), Sampling()), ChatRequest((), Sampling())]
    assert [reply.finish for reply in chat.chat(requests)] == ["context", "stop"]


CHANGES = {
    "recipe": "paraphrase",
    "target": 7,
    "topic": "cranes",
    "seed": 5,
    "temperature": 0.1,
    "max_tokens": 150,
    "max_overlap": 0.05,
    "model": "large",
    "review": True,
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_setting_of_the_rows_changes_the_rows_or_the_requests(serving: Any, tmp_path: Path, field: str) -> None:
    inputs = [raw(tmp_path, seeds())]
    found = []
    with serving(inventive) as endpoint:
        for change in ({}, {field: CHANGES[field]}):
            start = endpoint.requests
            try:
                made = make(tmp_path, settings(endpoint, **{"target": 10, **change}), inputs)
                seen = [made.kind, made.facts["kept"], rejected(made)]
            except TunesmithError as error:
                seen = [str(error)]
            found.append((seen, endpoint.payloads[start:] if field not in ("review",) else []))
    assert found[0] != found[1]


def test_the_settings_of_guards_and_of_named_rows_change_the_rows(serving: Any, tmp_path: Path) -> None:
    rows = seeds(3)
    inputs = [raw(tmp_path, rows)]
    with serving(
        lambda payload: rows_json({"question": f"Why {word(random.Random(payload['seed']))} oh so?"})
    ) as endpoint:
        config = settings(endpoint, recipe="guard", topic="cranes", guard_reply="Only {topic}, please.", target=1)
        assert next(read_rows(make(tmp_path, config, inputs).path / "examples.jsonl")).answer == "Only cranes, please."
        before = endpoint.requests
        config = settings(endpoint, recipe="paraphrase", ids=(rows[1].id[:6],), target=1)
        made = make(tmp_path, config, inputs)
        assert {row.meta.group for row in read_rows(made.path / "examples.jsonl")} == {rows[1].id}
        prompts = [payload["messages"][0]["content"] for payload in endpoint.payloads[before:]]
        assert all(rows[1].question in prompt for prompt in prompts)


# Where it is asked and how fast changes no row: tests/engine/test_remote.py shows what these change.
ENDPOINT = {
    "key_env": "OTHER",
    "concurrency": 1,
    "timeout": 9.0,
    "requests_per_minute": 60_000,
    "tokens_per_minute": 10**9,
    "max_requests": 999,
    "prices": PRICES,
    "max_cost": 99.0,
}


@pytest.mark.parametrize("field", ENDPOINT)
def test_how_it_is_asked_changes_no_row_and_no_name(serving: Any, tmp_path: Path, field: str) -> None:
    change = {"prices": PRICES, field: ENDPOINT[field]}
    with serving(inventive) as endpoint:
        one = make(tmp_path, settings(endpoint, target=10), [raw(tmp_path, seeds())])
        other = tmp_path / "other"
        two = make(other, settings(endpoint, target=10, **change), [raw(other, seeds())])
    assert one.name == two.name
    assert (one.path / "examples.jsonl").read_bytes() == (two.path / "examples.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": "questions"}, "needs documents"),
        ({"recipe": "guard"}, "needs topic"),
        ({"recipe": "paraphrase", "ids": ("zzzz",)}, "no row has the id zzzz"),
        ({"base_url": None}, "no endpoint is set"),
    ],
)
def test_what_a_recipe_needs_is_asked_for_before_anything_is_sent(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    config = GenerateConfig(**{"base_url": "http://127.0.0.1:1/v1", "model": "small", **change})
    with pytest.raises(UsageError, match=words) as caught:
        generate.run(config, [raw(tmp_path, seeds())], tmp_path / "data" / "raw")
    assert caught.value.fix or caught.value.expected


@pytest.mark.parametrize("content", [b"", b"  \n", b"<!DOCTYPE html><p>x", b"%PDF-1.7 x", b"\xff\xfe\x00x"])
def test_a_document_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manual.md"
    path.write_bytes(content)
    config = GenerateConfig(base_url="http://127.0.0.1:1/v1", model="small", recipe="questions")
    with pytest.raises(DataError):
        generate.run(config, [path], tmp_path / "data" / "raw")


def test_a_second_run_needs_no_endpoint(serving: Any, tmp_path: Path) -> None:
    inputs = [raw(tmp_path, seeds())]
    with serving(inventive) as endpoint:
        config = settings(endpoint, target=10)
        made = generate.run(config, inputs, tmp_path / "data" / "raw")
    assert (tmp_path / "data" / "answers.db").is_file()
    assert generate.run(config, inputs, tmp_path / "data" / "raw").path == made.path
    assert open_artifact(made.path, "raw").name == made.name
    assert not [name for name in os.listdir(tmp_path / "data" / "raw") if name.startswith(".")]
