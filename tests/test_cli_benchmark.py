"""The verbs benchmark and judge at the door: with a project, with nothing but files, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.artifact import seal, writing
from tunesmith.core.jsonl import read_json, write_jsonl

QUESTIONS = Path(__file__).parent / "evaluate" / "questions"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """ARC-Challenge, HellaSwag and TruthfulQA under names that are found; MMLU's are not of this form."""
    shutil.copytree(QUESTIONS, tmp_path / "files")
    for part in ("test", "dev"):
        (tmp_path / "files" / f"mmlu_anatomy_{part}.jsonl").unlink()
    return tmp_path / "files"


@pytest.fixture
def project(tunesmith: Callable[..., Any], tmp_path: Path, llama_dir: Path, qwen_dir: Path) -> Path:
    """A project whose only run was "tuned" from one random model to another, with answers of both."""
    folder = tmp_path / "project"
    assert tunesmith("new", folder, "--base", llama_dir, cwd=tmp_path).code == 0
    (folder / "runs").mkdir()
    with writing(folder / "runs" / "run-1") as work:
        shutil.copytree(llama_dir, work / "model")
        seal(work, folder / "runs" / "run-1", "run", {"base": str(llama_dir), "base_path": str(llama_dir), "set": "s"})
    (folder / "evals").mkdir()
    answers = [
        {
            "id": f"i{n}",
            "prompt": f"question {n}?",
            "base": "WRONG",
            "tuned": "RIGHT",
            "reference": "RIGHT",
            "group": "",
        }
        for n in range(8)
    ]
    with writing(folder / "evals" / "eval-1") as work:
        write_jsonl(work / "predictions.jsonl", answers)
        seal(work, folder / "evals" / "eval-1", "eval", {})
    return folder


def test_any_model_directory_is_measured_without_a_project(
    tunesmith: Callable[..., Any], tmp_path: Path, files: Path, llama_dir: Path
) -> None:
    words = ("benchmark", "--model", llama_dir, "--data", files, "--shots", 1, "--json")
    said = tunesmith(*words, cwd=tmp_path)
    assert said.code == 0, said.err
    tasks = {task["task"]: task for task in said.json["tasks"]}
    assert list(tasks) == ["arc_challenge", "hellaswag", "truthfulqa_mc2"]
    for task in tasks.values():
        assert {"task", "recipe", "shots", "n", "metric", "value", "low", "high"} <= task.keys()
        assert 0 <= task["low"] <= task["value"] <= task["high"] <= 1
    assert (tasks["arc_challenge"]["metric"], tasks["truthfulqa_mc2"]["metric"]) == ("acc_norm", "mc2")
    assert said.json["average"] == pytest.approx(sum(task["value"] for task in tasks.values()) / 3)
    assert "average of 3" in said.err
    one = tunesmith(
        *words[:-1], "--tasks", "arc_challenge", "--limit", 2, "--fewshot", "per-item", "--json", cwd=tmp_path
    )
    assert [task["n"] for task in one.json["tasks"]] == [2]
    assert not (tmp_path / "evals").exists()


def test_a_run_and_its_base_are_compared_and_kept(tunesmith: Callable[..., Any], project: Path, files: Path) -> None:
    said = tunesmith("benchmark", "--data", files, "--tasks", "arc_challenge", "--shots", 0, "--json", cwd=project)
    assert said.code == 0, said.err
    (task,) = said.json["tasks"]
    assert (task["difference"], task["verdict"], said.json["forgotten"]) == (0.0, "cannot tell", [])
    assert said.json["path"] == str(project / "evals" / "benchmark-1")
    kept = read_json(project / "evals" / "benchmark-1" / "benchmark.json")
    assert kept["tasks"] == said.json["tasks"]
    items = (project / "evals" / "benchmark-1" / "items.jsonl").read_text().splitlines()
    assert set(json.loads(items[0])["lls"]) == {"base", "tuned"}
    overview = tunesmith("show", "--json", cwd=project)
    assert (overview.json["benchmark"], overview.json["eval"]) == (["benchmark-1"], ["eval-1"])
    shutil.copytree(files, project / "data" / "benchmarks")
    assert tunesmith("benchmark", "--tasks", "arc_challenge", "--shots", 0, cwd=project).code == 0


def test_two_models_are_compared_without_a_project(
    tunesmith: Callable[..., Any], tmp_path: Path, files: Path, llama_dir: Path, qwen_dir: Path
) -> None:
    words = ("benchmark", "--model", llama_dir, "--base", qwen_dir, "--data", files, "--tasks", "truthfulqa", "--json")
    said = tunesmith(*words, cwd=tmp_path)
    assert [task["task"] for task in said.json["tasks"]] == ["truthfulqa_mc1", "truthfulqa_mc2"]
    assert all("difference" in task for task in said.json["tasks"])
    assert "did not" not in said.err


def test_from_the_hub_each_set_is_fetched_once(
    tunesmith: Callable[..., Any], tmp_path: Path, files: Path, llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is faked: a snapshot of Parquet files in its layout."""
    duckdb = pytest.importorskip("duckdb", reason="the parquet extra is not installed")
    snapshot = tmp_path / "snapshots" / "abc"
    for source, name in (("test", "test-00000-of-00001"), ("train", "train-00000-of-00001")):
        (snapshot / "ARC-Challenge").mkdir(parents=True, exist_ok=True)
        made = snapshot / "ARC-Challenge" / f"{name}.parquet"
        source_file = files / f"arc_challenge_{source}.jsonl"
        duckdb.sql(f"COPY (SELECT * FROM read_json('{source_file}')) TO '{made}' (FORMAT parquet)")
    asked: list[tuple[str, str]] = []

    def fetch(name: str, **more: Any) -> str:
        asked.append((name, more["allow_patterns"]))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    words = ("benchmark", "--model", llama_dir, "--tasks", "arc_challenge", "--shots", 1, "--json")
    from_hub, from_files = (tunesmith(*words, "--data", data, cwd=tmp_path) for data in ("hub", files))
    assert from_hub.code == 0, from_hub.err
    assert asked == [("allenai/ai2_arc", "ARC-Challenge/*")]
    assert from_hub.json["tasks"][0]["value"] == from_files.json["tasks"][0]["value"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--tasks", "arc_chalenge"), "did you mean 'arc_challenge'"),
        (("--tasks", "mmlu"), "no files of mmlu"),
        (("--run", "run-1"), "--run with --model"),
        (("--data", "nowhere"), "is not a folder"),
        (("--limit", "0"), "limit = 0"),
        ((), "--model without --data"),
    ],
)
def test_what_cannot_be_benchmarked_is_refused_before_a_model_is_loaded(
    tunesmith: Callable[..., Any], tmp_path: Path, files: Path, words: tuple[str, ...], complaint: str
) -> None:
    given = ("--data", files) if words and "--data" not in words else ()
    said = tunesmith("benchmark", "--model", "no-such-model", *given, *words, cwd=tmp_path)
    assert said.code == 2
    assert complaint in said.err


def verdict(payload: dict[str, Any]) -> str:
    text = payload["messages"][0]["content"]
    return "A" if text.split("----- answer A\n")[1].startswith("RIGHT") else "B"


def test_an_evaluation_is_judged_and_the_answers_are_kept(
    tunesmith: Callable[..., Any], project: Path, serving: Callable[..., Any]
) -> None:
    with serving(verdict) as endpoint:
        words = ("judge", "--base-url", endpoint.url, "--model", "small", "--json")
        said = tunesmith(*words, cwd=project)
        assert said.code == 0, said.err
        assert (said.json["n"], said.json["win_rate"]["value"], said.json["spent"]["requests"]) == (8, 1.0, 16)
        assert (said.json["a"], said.json["b"]) == ("base", "tuned")
        assert said.json["path"] == str(project / "evals" / "judge-1")
        assert "same verdict both ways" in said.err
        assert "next: tunesmith vote" in said.err
        again = tunesmith(*words, "--name", "again", cwd=project)
        assert (again.json["win_rate"], endpoint.requests) == (said.json["win_rate"], 16)
        capped = tunesmith(*words, "--mode", "rubric", "--max-requests", 17, cwd=project)
        assert capped.code == 6
        assert "max_requests = 17 is reached" in capped.err


def test_two_files_are_judged_outside_any_project_with_votes_beside(
    tunesmith: Callable[..., Any], tmp_path: Path, serving: Callable[..., Any]
) -> None:
    for name, text in (("old", "WRONG"), ("new", "RIGHT")):
        write_jsonl(tmp_path / f"{name}.jsonl", ({"id": n, "prompt": f"q{n}", "output": text} for n in range(9)))
    votes = ({"item": str(n), "a": "new", "b": "old", "winner": "a", "rater": "me"} for n in range(5))
    write_jsonl(tmp_path / "votes.jsonl", votes)
    with serving(verdict) as endpoint:
        words = ("judge", "--a", "old.jsonl", "--b", "new.jsonl", "--votes", "votes.jsonl", "--orders", 1)
        said = tunesmith(*words, "--base-url", endpoint.url, "--model", "small", "--json", cwd=tmp_path)
    assert said.code == 0, said.err
    assert (said.json["replies"], said.json["win_rate"]["value"], said.json["b"]) == (9, 1.0, "new")
    assert (said.json["votes"]["agreement"], said.json["votes"]["people"]["value"]) == (1.0, 1.0)
    assert "path" not in said.json


def test_a_local_model_judges(
    tunesmith: Callable[..., Any], project: Path, make_model_dir: Callable[..., Path]
) -> None:
    wide = make_model_dir("qwen", max_position_embeddings=2048)
    said = tunesmith("judge", "--local", wide, "--limit", 3, "--json", cwd=project)
    assert said.code == 0, said.err
    assert (said.json["n"], said.json["replies"], said.json["unread"]) == (3, 6, {})


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--a", "x.jsonl"), "one file of answers"),
        ((), "no tunesmith.toml"),
        (("--a", "x.jsonl", "--b", "x.jsonl", "--eval", "e"), "--eval with --a and --b"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    tunesmith: Callable[..., Any], tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    write_jsonl(tmp_path / "x.jsonl", [{"id": 1, "prompt": "q", "output": "o"}])
    said = tunesmith("judge", *words, cwd=tmp_path)
    assert said.code == 2
    assert complaint in said.err
