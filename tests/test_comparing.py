"""`tunesmith compare` as it is typed: five arms on a small project, an endpoint whose books must agree with ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.jsonl import read_json, read_jsonl

Tunesmith = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("cache")

PLACES = ["river", "harbour", "kitchen", "library", "garden", "station", "market", "castle", "orchard", "museum"]
THINGS = ["lantern", "compass", "blanket", "violin", "ladder", "kettle", "hammer", "mirror", "basket", "candle"]
ARMS = ["zero-shot", "few-shot", "retrieval", "tuned", "tuned + retrieval"]
ARM = {"name", "n", "metrics", "latency_ms", "prompt_tokens", "output_tokens", "cost_per_1000", "leaves_machine"}
SETTINGS = """
[compare]
max_new_tokens = 4
shots = [1, 2]
passages = [1]
search_rows = 2
latency_rows = 2
prices = { "big" = [2.0, 10.0] }
"""


@pytest.fixture(scope="module")
def project(tunesmith: Tunesmith, tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> Path:
    """40 questions, prepared, with a run of two steps."""
    here = tmp_path_factory.mktemp("compare")
    pairs = [(place, THINGS[(i + 3 * k) % 10]) for i, place in enumerate(PLACES) for k in range(4)]
    lines = [json.dumps({"question": f"{thing} {place}?", "answer": f"The {thing} is here."}) for place, thing in pairs]
    (here / "faq.jsonl").write_text("\n".join(lines) + "\n")
    assert tunesmith("new", "faq", "--data", "faq.jsonl", "--base", llama_dir, cwd=here).code == 0
    folder = here / "faq"
    text = (folder / "tunesmith.toml").read_text()
    start, _, rest = text.partition("[compare]\n")
    _, _, end = rest.partition("\n[")
    (folder / "tunesmith.toml").write_text(f"{start}{SETTINGS}\n[{end}")
    for words in (["prepare"], ["train", "--max-steps", "2"]):
        assert tunesmith(*words, cwd=folder).code == 0
    return folder


@pytest.fixture(scope="module")
def alone(tunesmith: Tunesmith, project: Path) -> Any:
    """`compare` without an endpoint."""
    return tunesmith("compare", "--json", cwd=project)


def test_all_five_arms_are_compared_offline_in_one_table(alone: Any, project: Path) -> None:
    found = alone.json
    test_rows = len(list(read_jsonl(next((project / "data/sets").iterdir()) / "test.jsonl")))
    assert [arm["name"] for arm in found["arms"]] == ARMS
    for arm in found["arms"]:
        assert arm.keys() >= ARM
        assert arm["n"] == test_rows
        assert arm["leaves_machine"] is False
        assert {"exact_match", "f1", "rougeL"} <= arm["metrics"].keys()
        assert arm["metrics"]["f1"].keys() == {"value", "low", "high", "n"}
        assert arm["latency_ms"]["p95"] >= arm["latency_ms"]["p50"] > 0
        assert arm["prompt_tokens"] > test_rows
        assert 0 <= arm["output_tokens"] <= 4 * test_rows
        assert arm["cost_per_1000"] > 0
    assert isinstance(found["verdict"], str)
    assert len(found["reasons"]) >= 4
    assert all(f"| {name} " in alone.err for name in ARMS)


def test_what_is_said_ends_with_the_verdict_the_report_and_the_next_command(alone: Any) -> None:
    lines = alone.err.splitlines()
    assert f"verdict: {alone.json['verdict']}" in lines
    assert any("0.1, which is assumed: set price_per_hour" in line for line in lines)
    assert lines[-2] == f"report: {alone.json['report']}"
    assert lines[-1] == "next: tunesmith show"


def test_the_overview_has_the_comparison_beside_the_evaluations(
    alone: Any, tunesmith: Tunesmith, project: Path
) -> None:
    shown = tunesmith("show", "--json", cwd=project)
    assert (shown.json["compare"], shown.json["eval"]) == (["compare-1"], [])
    assert alone.json["verdict"] in shown.err
    assert "report.md" in tunesmith("show", "compare", cwd=project).err


def test_an_endpoints_tokens_and_cost_are_exactly_those_in_its_own_books(
    alone: Any, tunesmith: Tunesmith, project: Path, serving: Callable[..., Any]
) -> None:
    with serving(lambda payload: "The lantern is here.") as endpoint:
        words = ["compare", "--base-url", endpoint.url, "--model", "big", "--limit", "5", "--json"]
        found = tunesmith(*words, cwd=project).json
        zero, few = found["arms"][5:]
        assert [zero["name"], few["name"]] == ["big zero-shot", "big few-shot"]
        tried = sum(one["n"] for one in few["tried"])
        assert endpoint.requests == zero["n"] + few["n"] + tried
        payloads = [p for p in endpoint.payloads if len(p["messages"]) == 1]
        asked = sum(len(p["messages"][0]["content"].split()) for p in payloads)
        assert (zero["prompt_tokens"], zero["output_tokens"]) == (asked, zero["n"] * 4)
        assert zero["cost_per_1000"] == pytest.approx(1000 / zero["n"] * (asked * 2.0 + 4 * zero["n"] * 10.0) / 1e6)
        assert few["prompt_tokens"] > asked
        assert (zero["leaves_machine"], zero["requests_per_second"]) == (False, None)  # it is at 127.0.0.1
        assert zero["latency_ms"]["p50"] > 0
        again = tunesmith(*words, cwd=project).json
        assert endpoint.requests == zero["n"] + few["n"] + tried, "what is stored is not paid for twice"
    for before, after in zip((zero, few), again["arms"][5:], strict=True):
        assert before == after


def test_an_address_elsewhere_is_named_as_a_way_out_of_the_machine(project: Path) -> None:
    from tunesmith.comparing import leaves_machine

    assert leaves_machine("https://api.example.com/v1")
    assert leaves_machine("http://10.0.0.7:8000/v1")
    assert not leaves_machine("http://localhost:8000/v1")
    assert not leaves_machine("http://[::1]:8000/v1")


def test_documents_are_retrieved_from_in_place_of_training_rows(alone: Any, tunesmith: Tunesmith, project: Path) -> None:
    (project / "facts.md").write_text("The lantern is in the river.\n\nThe violin is in the kitchen.")
    text = (project / "tunesmith.toml").read_text()
    (project / "tunesmith.toml").write_text(text.replace("[compare]", '[compare]\ndocuments = ["facts.md"]'))
    try:
        said = tunesmith("compare", "--limit", "3", "--json", cwd=project)
        longer = [arm["prompt_tokens"] for arm in said.json["arms"]]
        assert longer[2] > longer[0]
        (project / "facts.md").unlink()
        gone = tunesmith("compare", "--json", cwd=project)
        assert (gone.code, "facts.md is not a file" in gone.err) == (3, True)
    finally:
        (project / "tunesmith.toml").write_text(text)


def test_before_the_first_run_the_bases_arms_are_compared(tunesmith: Tunesmith, project: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "untrained"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("runs", "evals"))
    found = tunesmith("compare", "--limit", "3", "--price-per-hour", "7.2", "--json", cwd=other)
    assert [arm["name"] for arm in found.json["arms"]] == ARMS[:3]
    assert "an hour of this machine at 7.2)" in found.err
    assert read_json(other / "evals/compare-1/report.json")["parents"].keys() == {"set"}
