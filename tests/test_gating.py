"""`tunesmith gate` as it is typed, over artifacts as the other verbs write them, and without a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith import loop
from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import read_json, write_json, write_rows
from tunesmith.core.project import Project
from tunesmith.core.records import pair
from tunesmith.evaluate.gate_odds import RUNS
from tunesmith.model.load import base_hash

Tunesmith = Callable[..., Any]
PARITY = {"prompts": 4, "prompt_ids_equal": True, "greedy_ids_equal": True}


def artifact(project: Project, kind: str, name: str, facts: dict[str, Any], **files: Any) -> Artifact:
    final = project.place(kind) / name
    with writing(final) as work:
        for file, content in files.items():
            write_json(work / f"{file}.json", content)
        return seal(work, final, kind, facts)


@pytest.fixture
def project(tmp_path: Path, llama_dir: Path) -> Project:
    """A set, and a run that says it was trained on it."""
    found = loop.new(tmp_path / "faq")
    final = found.place("set") / "s1"
    with writing(final) as work:
        for part in ("train", "valid", "test"):
            write_rows(work / f"{part}.jsonl", [pair(f"q {part}", "a")])
        set_ = seal(work, final, "set", {})
    base = tmp_path / "base"
    shutil.copytree(llama_dir, base)
    facts = {
        "base_path": str(base),
        "base_hash": base_hash(base),
        "set": "s1",
        "data_hash": set_.hash,
        "parity": PARITY,
    }
    artifact(found, "run", "run-1", facts, receipt=facts)
    return found


def evaluated(project: Project, low: float, high: float, name: str = "eval-1", **changes: Any) -> Artifact:
    run, set_ = project.open("run", "run-1"), project.open("set", "s1")
    cell = {
        "n": 50,
        "clusters": 40,
        "base": 0.5,
        "tuned": 0.6,
        "difference": (low + high) / 2,
        "low": low,
        "high": high,
    }
    report = {"metrics": {"f1": {**cell, "p": 0.001, "verdict": "better"}}}
    parents = {"set": {"name": "s1", "hash": set_.hash}, "run": {"name": run.name, "hash": run.hash}}
    return artifact(project, "eval", name, {"parents": parents, "split": "test", **changes}, report=report)


def checked(project: Project, passed: int, suite: str = "tests.toml", name: str = "test-1") -> None:
    run = project.open("run", "run-1")
    one = {"test": "greets", "assertion": "contains", "required": 1.0, "passed": passed, "n": 5, "unchecked": 0}
    facts = {"suite": suite, "parents": {"run": {"name": run.name, "hash": run.hash}}}
    artifact(project, "test", name, facts, report={"tests": [one]})


def benchmarked(project: Project, low: float, high: float) -> None:
    run = project.open("run", "run-1")
    task = {"task": "arc", "n": 90, "base": 0.5, "value": 0.4, "difference": (low + high) / 2, "p": 0.001}
    task |= {"difference_low": low, "difference_high": high, "verdict": "worse", "low": 0.3, "high": 0.5}
    parents = {"parents": {"run": {"name": run.name, "hash": run.hash}}}
    artifact(project, "benchmark", "benchmark-1", parents, benchmark={"tasks": [task]})


def gate(tunesmith: Tunesmith, project: Project, *words: object) -> Any:
    return tunesmith("gate", *words, "--json", cwd=project.path)


def test_a_run_that_is_better_is_shipped_with_exit_code_0(tunesmith: Tunesmith, project: Project) -> None:
    evaluated(project, 0.1, 0.2)
    checked(project, 5)
    said = gate(tunesmith, project)
    assert (said.code, said.json["decision"], said.json["better"]) == (0, "ship", True)
    assert said.err.splitlines()[-2:] == ["decision: ship", "next: tunesmith show gate"]
    assert "  greets: contains: pass, 5 of 5 rows pass, 1 is asked" in said.err
    assert project.names("gate") == ["gate-1"]
    shown = tunesmith("show", "--json", cwd=project.path)
    assert (shown.json["gate"], "decision ship" in shown.err) == (["gate-1"], True)


def test_without_an_evaluation_it_cannot_be_told_and_that_is_exit_code_10(
    tunesmith: Tunesmith, project: Project
) -> None:
    said = gate(tunesmith, project)
    assert (said.code, said.json["decision"], said.json["exit_code"]) == (10, "cannot tell", 10)
    assert "quality: NOT RUN" in said.err
    assert said.err.splitlines()[-1] == "next: tunesmith evaluate"


@pytest.mark.parametrize("bad", ["evaluation", "suite", "benchmark", "parity"])
def test_each_part_can_stop_a_run_with_exit_code_1(tunesmith: Tunesmith, project: Project, bad: str) -> None:
    if bad == "parity":
        run = project.open("run")
        facts = run.facts | {"parity": PARITY | {"greedy_ids_equal": False}}
        shutil.rmtree(run.path)
        artifact(project, "run", "run-1", facts, receipt=facts)
    evaluated(project, *((-0.3, -0.2) if bad == "evaluation" else (0.1, 0.2)))
    checked(project, 4 if bad == "suite" else 5)
    benchmarked(project, *((-0.3, -0.2) if bad == "benchmark" else (0.1, 0.2)))
    said = gate(tunesmith, project)
    assert (said.code, said.json["decision"]) == (1, "do not ship")
    assert sum(leg["state"] == "fail" for leg in said.json["legs"]) == 1


def test_the_newest_evidence_of_the_run_itself_counts_and_no_other(tunesmith: Tunesmith, project: Project) -> None:
    evaluated(project, -0.3, -0.2, "eval-1")
    evaluated(project, 0.1, 0.2, "eval-2")
    evaluated(project, -0.3, -0.2, "eval-3", split="valid")
    evaluated(project, -0.3, -0.2, "eval-4", parents={"run": {"name": "run-1", "hash": "another"}})
    checked(project, 0, "tests.toml", "test-1")
    checked(project, 5, "tests.toml", "test-2")
    checked(project, 5, "more.toml", "test-3")
    said = gate(tunesmith, project)
    assert said.json["decision"] == "ship"
    assert [leg["part"] for leg in said.json["legs"]] == ["parity", "quality", "suites", "suites", "forgetting"]
    sources = read_json(Path(said.json["path"]))["evidence"]["sources"]
    assert sources.keys() == {"run", "set", "eval-2", "test-2", "test-3"}


def test_the_evidence_replays_to_the_same_decision_wherever_it_lies(
    tunesmith: Tunesmith, project: Project, tmp_path: Path
) -> None:
    evaluated(project, -0.3, -0.2)
    first = gate(tunesmith, project)
    again = gate(tunesmith, project, "--replay", first.json["path"])
    assert (again.code, again.json["decision"], again.json["checked"]) == (1, "do not ship", True)
    assert again.json["reasons"] == first.json["reasons"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(first.json["path"], elsewhere / "gate.json")
    alone = tunesmith("gate", "--replay", "gate.json", "--json", cwd=elsewhere)
    assert (alone.code, alone.json["checked"]) == (1, False)
    assert "hashes NOT RUN: there is no project here" in alone.err


def test_a_base_a_set_or_a_run_that_changed_is_refused(tunesmith: Tunesmith, project: Project) -> None:
    evaluated(project, 0.1, 0.2)
    file = gate(tunesmith, project).json["path"]
    base = Path(project.open("run").facts["base_path"]) / "model.safetensors"
    whole = base.read_bytes()
    base.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = gate(tunesmith, project, "--replay", file)
    assert (said.code, "the base is another one" in said.err) == (3, True)
    base.write_bytes(whole)
    assert gate(tunesmith, project, "--replay", file).code == 0
    (project.place("set") / "s1" / "test.jsonl").write_text("")
    assert gate(tunesmith, project, "--replay", file).code == 3
    run = project.open("run")
    facts = run.facts | {"seconds": 9}
    shutil.rmtree(run.path)
    artifact(project, "run", "run-1", facts, receipt=facts)
    assert gate(tunesmith, project, "--replay", file).code == 3


def test_a_tampered_file_and_one_that_is_none_are_refused(tunesmith: Tunesmith, project: Project) -> None:
    evaluated(project, -0.3, -0.2)
    file = Path(gate(tunesmith, project).json["path"])
    made = read_json(file)
    for content in ({**made, "decision": "ship"}, {"a": 1}, []):
        (project.path / "other.json").write_text(json.dumps(content))
        assert gate(tunesmith, project, "--replay", "other.json").code == 3
    assert gate(tunesmith, project, "--replay", "gone.json").code == 2
    assert gate(tunesmith, project, "--replay", file, "--simulate").code == 2


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("margin = 0.3", 0),
        ('goal = "better"', 10),
        ('require = ["parity", "quality", "suites"]', 10),
        ('metric = "f2"', 2),
    ],
)
def test_the_settings_of_the_gate_are_those_of_the_project(
    tunesmith: Tunesmith, project: Project, setting: str, code: int
) -> None:
    evaluated(project, -0.01, 0.1)
    if setting.startswith("margin"):
        evaluated(project, -0.2, 0.1, "eval-2")
        assert gate(tunesmith, project).code == 10
    else:
        assert gate(tunesmith, project).code == 0
    text = (project.path / "tunesmith.toml").read_text()
    start, _, rest = text.partition("[gate]\n")
    (project.path / "tunesmith.toml").write_text(f"{start}[gate]\n{setting}\n\n[{rest.partition(chr(10) + '[')[2]}")
    assert gate(tunesmith, project).code == code


def test_its_error_rates_are_simulated_and_printed(tunesmith: Tunesmith, project: Project, tmp_path: Path) -> None:
    evaluated(project, -0.06, 0.06)
    checked(project, 5)
    said = gate(tunesmith, project, "--simulate")
    assert (said.code, said.json["runs"]) == (0, RUNS)
    assert said.json["shape"]["rows"] == 40
    assert said.json["false_alarms"] == said.json["odds"][0]["wrong"] <= 0.05
    assert f"false alarms on two copies of one model: {said.json['false_alarms']:.1%} of 1,000 simulated" in said.err
    assert project.names("gate") == []
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert tunesmith("gate", "--simulate", "--json", cwd=elsewhere).json["shape"]["rows"] == 100


def test_a_base_from_zero_has_nothing_to_be_held_against(tunesmith: Tunesmith, project: Project) -> None:
    artifact(project, "run", "run-2", {"base": ""}, receipt={})
    said = gate(tunesmith, project)
    assert (said.code, "was pretrained" in said.err) == (2, True)
