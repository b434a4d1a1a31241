"""diagnose and fix as a person types them: on files from elsewhere, and in a project, with a fake of its evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith import loop
from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import read_jsonl, read_rows, write_jsonl
from tunesmith.core.project import Project

LOOP = "go on go on go on"
WORDS = ("oak", "fern", "rose", "moss", "lily", "iris", "palm", "reed", "sage", "mint", "dill", "leek", "kale", "bean")
Run = Callable[..., Any]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    rows = [{"id": n, "prompt": "How?", "output": "By hand.", "reference": "By hand."} for n in range(9)]
    return write(tmp_path / "answers.jsonl", [*rows, {"id": 9, "prompt": "How?", "output": LOOP, "reference": "So."}])


def test_a_file_from_elsewhere_needs_no_project(tunesmith: Run, answers: Path, tmp_path: Path) -> None:
    said = tunesmith("diagnose", "--predictions", answers, "--json", cwd=tmp_path)
    assert said.code == 0
    facts = said.json
    assert facts["n"] == 10
    cell = facts["categories"]["repetitive"]
    assert (cell["count"], cell["rate"]) == (1, 0.1)
    assert cell["low"] < 0.1 < cell["high"]
    assert "copied" in facts["not_run"]
    assert "repetitive    10.0 %" in said.err


def test_two_files_are_compared_row_by_row(tunesmith: Run, answers: Path, tmp_path: Path) -> None:
    rows = [{"id": n, "prompt": "How?", "output": LOOP} for n in range(10)]
    base = write(tmp_path / "base.jsonl", rows)
    facts = tunesmith("diagnose", "--predictions", answers, "--against", base, "--json", cwd=tmp_path).json
    cell = facts["categories"]["repetitive"]
    assert (cell["before"], cell["fixed"], cell["persisting"], cell["verdict"]) == (1.0, 9, 1, "better")


def test_training_rows_tell_which_words_are_known(tunesmith: Run, tmp_path: Path) -> None:
    asked = write(tmp_path / "a.jsonl", [{"id": 1, "prompt": "What?", "output": "It is a frobnicator of lever."}])
    taught = [{"prompt": f"{n}?", "output": "A frobnicator of lever."} for n in range(3)]
    training = write(tmp_path / "t.jsonl", taught)
    alone = tunesmith("diagnose", "--predictions", asked, "--json", cwd=tmp_path).json
    known = tunesmith("diagnose", "--predictions", asked, "--training", training, "--json", cwd=tmp_path).json
    assert alone["categories"]["misspelling"]["count"] == 1
    assert known["categories"]["misspelling"]["count"] == 0


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--predictions", "none.jsonl"], 3, "does not exist"),
        (["eval-1", "--predictions", "answers.jsonl"], 2, "with --predictions"),
        (["--training", "answers.jsonl"], 2, "without --predictions"),
        ([], 2, "no tunesmith.toml"),
    ],
)
def test_what_does_not_go_together_is_said(
    tunesmith: Run, answers: Path, tmp_path: Path, words: list[str], code: int, what: str
) -> None:
    said = tunesmith("diagnose", *words, cwd=tmp_path)
    assert (said.code, what in said.err) == (code, True)


def evaluated(project: Project, set_: Artifact, name: str, tuned: Callable[[int], str]) -> Artifact:
    """An evaluation whose tuned model says what it is told to."""
    lines = []
    for n, row in enumerate(read_rows(set_.path / "test.jsonl")):
        meta = row.meta
        place = {"id": row.id, "source": meta.source, "line": meta.line, "group": meta.group, "origin": meta.origin}
        said = {"base": LOOP, "tuned": tuned(n), "base_finish": "stop", "tuned_finish": "stop", "arms": {}}
        lines.append({**place, "prompt": row.question, "reference": row.answer, **said})
    out = project.place("eval") / name
    with writing(out) as work:
        write_jsonl(work / "predictions.jsonl", lines)
        parents = {"set": {"name": set_.name, "hash": set_.hash}, "run": {"name": "run-1", "hash": ""}}
        return seal(work, out, "eval", {"parents": parents, "config": {"split": "test"}, "max_new_tokens": 9})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Rows of which one loops, a set, and an evaluation of a model that loops too."""
    rows = [
        {"question": f"How does the {WORDS[n % 14]} grow in garden {n * 37}?", "answer": f"It grows {n} leaves."}
        for n in range(60)
    ]
    rows.append({"question": "And what of the tall old birch by the sea?", "answer": LOOP})
    found = loop.new(tmp_path / "faq")
    loop.collect(found, [write(tmp_path / "faq.jsonl", rows)])
    evaluated(found, loop.prepare(found), "eval-1", lambda n: LOOP)
    return found


def test_a_diagnosis_is_written_and_its_proposals_mend_the_set(tunesmith: Run, project: Project) -> None:
    said = tunesmith("diagnose", "--json", cwd=project.path)
    assert said.code == 0, said.err
    assert (said.json["name"], said.json["categories"]["repetitive"]["rate"]) == ("errors-1", 1.0)
    assert "next: tunesmith fix errors-1" in said.err
    held_out = (project.open("set").path / "test.jsonl").read_bytes()

    fixed = tunesmith("fix", "--accept", "repetitive", "--json", cwd=project.path)
    assert fixed.code == 0, fixed.err
    assert fixed.json["actions"] == {"drop": 1}
    assert fixed.json["held_out"]["came"] == fixed.json["held_out"]["went"] == 0
    new = project.open("set")
    assert (new.name, (new.path / "test.jsonl").read_bytes()) == (fixed.json["set"], held_out)
    assert not any(row.answer == LOOP for row in read_rows(new.path / "train.jsonl"))
    assert f"next: tunesmith train --set {new.name}" in fixed.err


def test_a_person_decides_at_the_terminal(tunesmith: Run, project: Project) -> None:
    assert tunesmith("diagnose", cwd=project.path).code == 0
    none = tunesmith("fix", "--json", cwd=project.path, typed="s\n")
    assert (none.code, none.json["accepted"]) == (0, 0)
    one = tunesmith("fix", "--json", cwd=project.path, typed="y\nq\n")
    assert (one.code, one.json["accepted"]) == (0, 1)
    assert "repetitive-1  drop" in one.err


def test_training_is_asked_for_and_a_no_leaves_the_set(tunesmith: Run, project: Project) -> None:
    assert tunesmith("diagnose", cwd=project.path).code == 0
    said = tunesmith("fix", "--accept", "all", "--train", "--json", cwd=project.path, typed="n\n")
    assert said.code == 0
    assert "[y/N]" in said.err
    assert "run" not in said.json


def test_the_round_trip_trains_evaluates_and_compares(
    tunesmith: Run, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same base, settings and cut as the first time, on the new set; both stages are stood in for."""
    run = project.place("run") / "run-1"
    with writing(run) as work:
        facts = {"base": "default", "base_path": str(run), "config": {"max_steps": 7, "num_epochs": None}}
        seal(work, run, "run", facts)
    asked: dict[str, Any] = {}

    def train(found: Project, **settings: Any) -> Artifact:
        asked["train"] = settings
        return found.open("run", "run-1")

    def evaluate(found: Project, **settings: Any) -> Artifact:
        asked["evaluate"] = settings
        return evaluated(found, found.open("set"), "eval-2", lambda n: "It grows leaves." if n else LOOP)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(loop, "evaluate", evaluate)
    assert tunesmith("diagnose", cwd=project.path).code == 0
    said = tunesmith("fix", "--accept", "all", "--train", "--yes", "--json", cwd=project.path)
    assert said.code == 0, said.err
    assert asked["train"] == {"base": str(run), "set_name": said.json["set"], "max_steps": 7}
    assert asked["evaluate"] == {"run_name": "run-1", "split": "test", "max_new_tokens": 9}
    cell = said.json["categories"]["repetitive"]
    assert (cell["before"], cell["persisting"]) == (1.0, 1)
    assert cell["fixed"] == cell["n"] - 1
    errors = list(read_jsonl(project.open("errors", said.json["after"]).path / "errors.jsonl"))
    assert errors[0]["change"]["repetitive"] == "persisting"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["fix", "--accept", "repetitve"], "did you mean 'repetitive'?"),
        (["fix", "--yes"], "--yes without --train"),
        (["fix", "errors-9"], "no errors 'errors-9'"),
        (["diagnose", "--against", "eval-1"], "against itself"),
        (["diagnose", "--name", "errors-1"], "exists"),
    ],
)
def test_what_is_not_there_is_named(tunesmith: Run, project: Project, words: list[str], what: str) -> None:
    assert tunesmith("diagnose", cwd=project.path).code == 0
    said = tunesmith(*words, cwd=project.path)
    assert said.code == 2
    assert what in said.err


def test_without_a_diagnosis_fix_says_what_to_type(tunesmith: Run, project: Project) -> None:
    said = tunesmith("fix", cwd=project.path)
    assert said.code == 2
    assert "next: tunesmith diagnose" in said.err
