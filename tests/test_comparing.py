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


def test_a_metric_that_needs_more_than_an_answer_is_named_as_not_run(tunesmith: Tunesmith, project: Path) -> None:
    text = (project / "tunesmith.toml").read_text()
    before, _, after = text.partition("[evaluate]\n")
    rest = "\n".join(line for line in after.splitlines() if not line.startswith("metrics"))
    (project / "tunesmith.toml").write_text(f'{before}[evaluate]\nmetrics = ["f1", "perplexity"]\n{rest}\n')
    try:
        said = tunesmith("compare", "--limit", "2", "--json", cwd=project)
        assert read_json(Path(said.json["path"]) / "report.json")["not_run"] == ["perplexity"]
    finally:
        (project / "tunesmith.toml").write_text(text)


def test_documents_take_the_place_of_training_rows(alone: Any, tunesmith: Tunesmith, project: Path) -> None:
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


# scout


def candidates(folder: Path) -> Path:
    folder.mkdir()
    rows = {
        "parity": [{"prompt": f"Is {n} even or odd? Look at the last digit.", "completion": "even"} for n in range(8)],
        "stories": [{"prompt": f"Story {n}"} for n in range(4)],
    }
    for task, examples in rows.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
    return folder


def test_scout_needs_no_project_and_names_the_task_to_try(
    tunesmith: Tunesmith, tmp_path: Path, serving: Callable[..., Any]
) -> None:
    def brain(payload: dict[str, Any]) -> str:
        asked = payload["messages"][-1]["content"]
        return "good" if "Grade the answer" in asked else "even" if "Is 1 " < asked < "Is 6 " else "It is a long story."

    folder = candidates(tmp_path / "tasks")
    with serving(brain) as endpoint:
        said = tunesmith("scout", folder, "--base-url", endpoint.url, "--model", "big", "--json", cwd=tmp_path)
        assert said.code == 0
        assert endpoint.requests == 3 * 12
        again = tunesmith("scout", folder, "--base-url", endpoint.url, "--model", "big", "--json", cwd=tmp_path)
        assert (again.json, endpoint.requests) == (said.json, 3 * 12)
    parity, stories = said.json["tasks"]
    assert (parity["task"], parity["n"], parity["score"], parity["band"]) == ("parity", 8, 0.625, "about OK")
    assert (parity["scored_by"], stories["scored_by"]) == ("exact_match", "two judgements")
    assert (stories["score"], stories["band"], stories["certain"]) == (1.0, "solved by a prompt", False)
    assert (said.json["pick"], said.json["model"]) == ("parity", "big")
    assert "perhaps solved by a prompt" in said.err
    assert "first to try: parity" in said.err
    assert said.err.splitlines()[-1] == "next: tunesmith new DIR --data FILE"


def test_a_local_model_can_scout_too(tunesmith: Tunesmith, tmp_path: Path, llama_dir: Path) -> None:
    file = candidates(tmp_path / "tasks") / "parity.jsonl"
    said = tunesmith("scout", file, "--local", llama_dir, "--json", cwd=tmp_path)
    (task,) = said.json["tasks"]
    assert (said.code, task["n"], task["scored"], said.json["pick"]) == (0, 8, 8, None)
    both = ("--local", llama_dir, "--base-url", "http://127.0.0.1:1/v1")
    assert tunesmith("scout", file, *both, cwd=tmp_path).code == 2


def test_a_project_says_where_its_scout_asks_and_its_band(
    tunesmith: Tunesmith, tmp_path: Path, serving: Callable[..., Any]
) -> None:
    folder = candidates(tmp_path / "tasks")
    assert tunesmith("new", "p", cwd=tmp_path).code == 0
    with serving(lambda payload: "even") as endpoint:
        text = (tmp_path / "p/tunesmith.toml").read_text()
        start, _, rest = text.partition("[scout]\n")
        end = rest.partition("\n[")[2]
        settings = f'[scout]\nbase_url = "{endpoint.url}"\nmodel = "big"\nband = [0.2, 1.1]\n'
        (tmp_path / "p/tunesmith.toml").write_text(f"{start}{settings}\n[{end}")
        said = tunesmith("scout", folder / "parity.jsonl", "--json", cwd=tmp_path / "p")
    assert said.json["tasks"][0]["band"] == "about OK"
    assert (tmp_path / "p/data/answers.db").is_file()
