"""What `show` and `doctor` say: facts for programs and lines for people."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tunesmith import cli, loop, views
from tunesmith.core.artifact import seal, writing
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import write_json
from tunesmith.core.project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama_dir: Path) -> Project:
    """Rows of one and of two turns, prepared, over a base with a template of its own making."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    found = loop.new(tmp_path / "faq", str(llama_dir))
    turns = [[("user", f"{thing}?"), ("assistant", "Here."), ("user", "Now?"), ("assistant", "No.")] for thing in "abc"]
    rows = [{"messages": [{"role": r, "content": c} for r, c in row]} for row in turns]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loop.collect(found, [tmp_path / "chat.jsonl"])
    loop.prepare(found, valid_fraction=0.0, test_fraction=0.0)
    return found


def add(project: Project, kind: str, name: str, facts: dict[str, Any], **files: Any) -> Path:
    final = project.place(kind) / name
    with writing(final) as work:
        for stem, value in files.items():
            write_json(work / f"{stem}.json", value)
        seal(work, final, kind, facts)
    return final


def test_the_overview_has_a_line_for_every_artifact_and_every_unfinished_run(project: Project, llama_dir: Path) -> None:
    facts = {"method": "lora", "base": "/models/tiny", "set": "s", "steps": 9, "train_loss": 1.23456, "val_loss": None}
    add(project, "run", "first", facts)
    (project.place("run") / "second.partial").mkdir()
    found, text = views.overview(project)
    assert (found["run"], found["unfinished"], found["eval"]) == (["first"], ["second"], [])
    head, raw, set_, run, partial = text.splitlines()
    assert head == f"faq: base {llama_dir}"
    assert raw.split()[0] == "raw"
    assert raw.endswith("rows_in 3, kept 3, rejected none")
    assert set_.endswith("rows_in 3, kept 3, train 3, valid 0, test 0, leaked 0")
    assert run == "  run     first          method lora, base tiny, set s, steps 9, train_loss 1.235"
    assert partial == "  run     second         unfinished: tunesmith train --resume --name second"


REPORT = {
    "metrics": {
        "exact_match": {"n": 9, "base": 0.1, "tuned": 0.2, "difference": 0.1, "verdict": "cannot tell"},
        "f1": {"n": 9, "base": 0.25, "tuned": 0.75, "difference": 0.5, "low": 0.41, "high": 0.62, "verdict": "better"},
        "fields": {"n": 0, "base": None, "tuned": None, "difference": None, "verdict": None},
    }
}


def test_an_evaluation_is_told_in_a_line_with_what_its_interval_allows_to_say(project: Project) -> None:
    facts = {"parents": {"set": {"name": "s"}}, "split": "test", "n": 9}
    add(project, "eval", "eval-1", facts, report=REPORT)
    add(project, "eval", "eval-2", facts, report={"metrics": {}})
    add(project, "eval", "eval-3", facts)
    one, two, three = views.overview(project)[1].splitlines()[-3:]
    said = "split test, n 9: f1 0.750 tuned, 0.250 base: better, +0.500 [+0.410, +0.620]"
    assert one == f"  eval    eval-1         {said}"
    assert two.endswith("split test, n 9, nothing was measured")
    assert three.endswith("split test, n 9, but its report.json cannot be read")


def test_an_empty_project_has_an_overview_too(tmp_path: Path) -> None:
    found, text = views.overview(loop.new(tmp_path / "new"))
    assert text == "new: base default"
    assert (found["raw"], found["unfinished"]) == ([], [])


def test_the_overview_lists_a_damaged_artifact_and_showing_it_says_what_is_wrong(project: Project) -> None:
    run = add(project, "run", "first", {"steps": 9}, receipt={})
    (run / "receipt.json").write_text("[]")
    assert "first" in views.overview(project)[1]
    with pytest.raises(DataError, match="has changed since it was written"):
        views.artifact_view(project, "run", "first")


def test_an_artifact_is_shown_with_its_facts_and_its_report(project: Project) -> None:
    found, text = views.artifact_view(project, "set", None)
    assert (found["kept"], found["name"]) == (3, project.names("set")[0])
    assert f"  see {project.place('set') / found['name'] / 'report.md'}" in text
    assert "\n  kept: 3\n" in text


def test_an_unknown_kind_is_told_with_the_nearest_one(project: Project) -> None:
    with pytest.raises(UsageError) as error:
        views.artifact_view(project, "rum", None)
    assert error.value.fix == "did you mean 'run'?"


def test_doctor_finds_no_problem_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))
    facts, problems = views.doctor(least_gb=0.0)
    assert problems == []
    assert facts["embedded_base"].startswith("not made yet")
    (tmp_path / "bases" / "base-1").mkdir(parents=True)
    assert views.doctor(least_gb=0.0)[0]["embedded_base"] == ["base-1"]


def test_doctor_reports_a_disk_and_a_memory_that_are_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "not" / "yet"))
    _, (disk, memory) = views.doctor(least_gb=1e9)
    assert disk.startswith("only ")
    assert disk.endswith(f"GB free for the cache ({tmp_path / 'not' / 'yet'})")
    assert memory.endswith("GB of memory free")


def test_the_verb_doctor_ends_with_1_when_something_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(sys, "argv", ["tunesmith", "doctor", "--json"])
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert json.loads(out.getvalue())["problems"] == [f"the cache cannot be written: {tmp_path / 'file'}"]
    assert "problem: the cache cannot be written" in err.getvalue()
    assert "next:" not in err.getvalue()


def test_doctor_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tunesmith.model.device", None)
    facts, (problem,) = views.doctor()
    assert facts.keys() == {"python", "tunesmith"}
    assert problem == "not installed: tunesmith.model.device"
