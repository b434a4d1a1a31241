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
from tunesmith.core.jsonl import read_rows, write_json
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
    assert run == "  run  first          method lora, base tiny, set s, steps 9, train_loss 1.235"
    assert partial == "  run  second         unfinished: tunesmith train --resume --name second"


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


def row_text(project: Project, number: int = 1, colour: bool = False) -> str:
    return views.row_view(project, None, number, colour=colour)[1]


def test_a_row_is_shown_with_the_template_and_the_mask_that_training_uses(project: Project) -> None:
    (set_,) = project.place("set").glob("[!.]*")
    asked = next(read_rows(set_ / "train.jsonl")).messages[0].content
    head, tail = f"<s>### Question:\n{asked}\n\n### Answer:\n", "\n### Question:\nNow?\n\n### Answer:\n"
    assert row_text(project).startswith(f"{head}[Here.</s>]{tail}[No.</s>]")
    assert row_text(project, colour=True).startswith(f"{head}\x1b[32mHere.</s>\x1b[0m{tail}\x1b[32mNo.</s>\x1b[0m")
    file = project.path / "tunesmith.toml"
    file.write_text(file.read_text().replace('train_on = "completion"', 'train_on = "last"'))
    assert row_text(loop.open_project(project.path)).startswith(f"{head}Here.</s>{tail}[No.</s>]")


def test_a_row_is_shown_with_a_template_file_of_the_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{% for m in messages %}{{ m['role'][0] }}={{ m['content'] }}"
    source += "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    source += "{% if add_generation_prompt %}a={% endif %}"
    (project.path / "mine.jinja").write_text(source)
    file = project.path / "tunesmith.toml"
    file.write_text(file.read_text().replace('template = "auto"', 'template = "mine.jinja"'))
    monkeypatch.chdir("/")
    assert "?a=[Here.</s>]u=Now?a=[No.</s>]" in row_text(loop.open_project(project.path))


@pytest.mark.parametrize("number", [0, 4, -1])
def test_a_row_that_is_not_there_is_told_with_those_that_are(project: Project, number: int) -> None:
    with pytest.raises(UsageError) as error:
        row_text(project, number)
    assert error.value.expected == "1 to 3"


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
