"""The door over the stages: which artifacts a verb takes, what wins, and that every part of the task counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith import loop, views
from tunesmith.core.artifact import Artifact, open_artifact
from tunesmith.core.errors import DataError, ModelError, ResourceError, UsageError
from tunesmith.core.jsonl import read_json, read_rows
from tunesmith.core.project import Project, TaskConfig
from tunesmith.core.records import Message

THINGS = ["lantern", "compass", "blanket", "violin", "ladder", "kettle", "hammer", "mirror", "basket", "candle"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in a folder of its own, with a cache of its own."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def write(name: str, things: list[str], answer: str = "It is here.") -> Path:
    """One row a thing; no two questions are alike."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"question": f"{thing}?", "answer": answer}) + "\n" for thing in things))
    return path


def configured(folder: Path, section: str, **values: Any) -> Project:
    """The project with values changed in its file."""
    from tunesmith.core.config import toml_value

    text = (folder / "tunesmith.toml").read_text("utf-8")
    head, mark, tail = text.partition(f"[{section}]\n")
    for key, value in values.items():
        lines = tail.splitlines()
        at = next(i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{key} ="))
        tail = "\n".join([*lines[:at], f"{key} = {toml_value(value)}", *lines[at + 1 :]]) + "\n"
    (folder / "tunesmith.toml").write_text(head + mark + tail, "utf-8")
    return loop.open_project(folder)


@pytest.fixture
def project() -> Project:
    """A project of ten rows, prepared."""
    found = loop.new(Path("faq"))
    loop.collect(found, [write("faq.jsonl", THINGS)])
    loop.prepare(found)
    return found


def answers(set_: Artifact) -> list[str]:
    parts = ("train", "valid", "test")
    return sorted(f"{r.question} {r.answer}" for part in parts for r in read_rows(set_.path / f"{part}.jsonl"))


# new


def test_a_base_that_is_a_directory_is_written_with_its_whole_path_and_default_is_never_one(tmp_path: Path) -> None:
    Path("llama").mkdir()
    Path("default").mkdir()
    assert loop.new(Path("a"), "llama").task.base == str(tmp_path / "llama")
    assert loop.new(Path("b")).task.base == "default"
    assert loop.new(Path("c"), "EleutherAI/pythia-70m").task.base == "EleutherAI/pythia-70m"


def test_settings_of_new_are_written_into_the_file() -> None:
    found = loop.new(Path("a"), settings={"train": {"optimizer": "muon"}})
    assert found.sections["train"]["optimizer"] == "muon"


def test_a_project_is_not_made_twice() -> None:
    loop.new(Path("a"))
    with pytest.raises(UsageError, match="is a project already"):
        loop.new(Path("a"))


# the task


def _system(folder: Path) -> object:
    set_ = loop.prepare(loop.open_project(folder))
    return [[m.content for m in row.prompt] for row in read_rows(set_.path / "train.jsonl")]


@dataclass
class Asked:
    """What the door gave to the training stage, in place of training."""

    config: Any = None
    inputs: Any = None
    out: Path = Path()
    resume: bool = False


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    from tunesmith.train import stage

    record = Asked()

    def run(config: Any, inputs: Any, out: Path, *, resume: bool = False) -> Any:
        record.config, record.inputs, record.out, record.resume = config, inputs, out, resume
        return SimpleNamespace(name=out.name)

    monkeypatch.setattr(stage, "run", run)
    monkeypatch.setattr("tunesmith.embedded.embedded_base", lambda: Path("/embedded"))
    return record


def _inputs(folder: Path, asked: Asked) -> Any:
    loop.train(loop.open_project(folder))
    return asked.inputs


TASK: dict[str, tuple[Any, Callable[[Path, Asked], object]]] = {
    "name": ("shop", lambda folder, asked: views.overview(loop.open_project(folder))[1].splitlines()[0]),
    "system": ("Be brief.", lambda folder, asked: _system(folder)),
    "base": ("./other", lambda folder, asked: (_inputs(folder, asked).base, _inputs(folder, asked).base_path)),
    "template": ("alpaca", lambda folder, asked: _inputs(folder, asked).template),
}


@pytest.mark.parametrize("field", TaskConfig.model_fields)
def test_every_field_of_the_task_changes_the_run(project: Project, asked: Asked, field: str) -> None:
    (project.path / "other").mkdir()
    value, seen = TASK[field]
    before = seen(project.path, asked)
    configured(project.path, "task", **{field: value})
    assert seen(project.path, asked) != before


def test_system_message_and_template_are_the_same_in_training_and_evaluation(
    project: Project, make_model_dir: Callable[..., Path]
) -> None:
    """The renderer that evaluation loads from the run makes the very prompts that the run was trained on."""
    from tunesmith.text.render import Renderer
    from tunesmith.text.tokenizer import Tokenizer

    base = make_model_dir("llama", max_position_embeddings=512)
    found = configured(project.path, "task", system="Answer like a pirate.", template="alpaca", base=str(base))
    set_ = loop.prepare(found)
    run = loop.train(found, max_steps=1)
    done = loop.evaluate(found, limit=1)
    assert run.facts["set"] == set_.name == done.facts["parents"]["set"]["name"]
    assert run.facts["template_hash"] == done.facts["template"]
    _, _, evaluated = loop.engines(run)
    trained = Renderer(Tokenizer.load(base), "alpaca")
    row = next(read_rows(set_.path / "test.jsonl"))
    assert row.prompt[0] == Message("system", "Answer like a pirate.")
    assert evaluated.prompt(row.prompt) == trained.prompt(row.prompt)
    text = evaluated.prompt_text(row.prompt)
    assert text.startswith("<s>Below is an instruction")
    assert f"Answer like a pirate.\n\n### Instruction:\n{row.question}" in text
    report = read_json(done.path / "report.json")
    assert report["arms"] == ["majority", "bm25"]


def test_a_template_file_lies_in_the_project(project: Project, asked: Asked) -> None:
    found = configured(project.path, "task", template="mine.jinja")
    loop.train(found)
    assert asked.inputs.template == str(project.path / "mine.jinja")


# what wins: flags, then the file


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "lora"),
        ("max_steps", 7),
        ("num_epochs", 2),
        ("learning_rate", 0.5),
        ("batch_size", 3),
        ("save_every", 4),
        ("eval_every", 5),
        ("seed", 6),
        ("dtype", "float32"),
    ],
)
def test_a_flag_wins_over_the_file(project: Project, asked: Asked, field: str, value: Any) -> None:
    in_file = {"method": "full", "dtype": "bfloat16", "learning_rate": 0.25}.get(field, 1)
    found = configured(project.path, "train", **{field: in_file})
    loop.train(found)
    assert getattr(asked.config, field) == in_file
    loop.train(found, **{field: value})
    assert getattr(asked.config, field) == value
    loop.train(found)
    assert getattr(asked.config, field) == in_file, "a flag is for one run"


@pytest.mark.parametrize("either", [("max_steps", "num_epochs"), ("batch_size", "batch_tokens")])
@pytest.mark.parametrize("turn", [1, -1])
def test_what_is_given_on_the_command_line_replaces_its_alternative_in_the_file(
    project: Project, asked: Asked, either: tuple[str, str], turn: int
) -> None:
    flag, in_file = either[::turn]
    found = configured(project.path, "train", **{in_file: 9})
    loop.train(found, **{flag: 2})
    assert (getattr(asked.config, flag), getattr(asked.config, in_file)) == (2, None)


def test_a_wrong_flag_is_not_blamed_on_the_file_and_a_wrong_file_is(project: Project, asked: Asked) -> None:
    with pytest.raises(UsageError) as error:
        loop.train(project, learning_rate=-1.0)
    assert error.value.where == ""
    with pytest.raises(UsageError) as error:
        loop.prepare(project, test_fracton=0.5)
    assert error.value.fix == "did you mean 'test_fraction'?"
    with pytest.raises(UsageError) as error:
        loop.train(configured(project.path, "train", learning_rate=-1.0), seed=3)
    assert error.value.where.endswith("tunesmith.toml [train]")


def test_the_sets_of_train_and_evaluate_are_the_newest_or_the_named(project: Project, asked: Asked) -> None:
    first = project.names("set")[0]
    second = loop.prepare(project, test_fraction=0.4)
    loop.train(project)
    assert asked.inputs.set_.name == second.name
    loop.train(project, set_name=first)
    assert asked.inputs.set_.name == first


# bases


def test_a_base_is_found_here_or_in_the_project_and_kept_with_its_whole_path(
    project: Project, asked: Asked, tmp_path: Path
) -> None:
    Path("here").mkdir()
    (project.path / "inside").mkdir()
    assert loop.base_path(project, "here") == tmp_path / "here"
    assert loop.base_path(project, "inside") == project.path / "inside"
    assert loop.base_path(project, "default") == Path("/embedded")
    assert loop.base_path(project, "org/model") is None


def test_a_run_of_the_project_can_be_the_base(project: Project, make_model_dir: Callable[..., Path]) -> None:
    first = loop.train(project, "first", base=str(make_model_dir("gpt2")), max_steps=1)
    assert loop.base_path(project, "first") == first.path / "model"


def test_a_base_that_is_gone_since_is_told(project: Project) -> None:
    facts = {"base_path": "/gone", "base": "default"}
    run = Artifact(Path("run-1"), "run", {"facts": facts, "files": {}})
    with pytest.raises(ModelError, match="the base of run-1 is gone: /gone") as error:
        loop.engines(run)
    assert error.value.fix == "tunesmith pretrain --embedded"


# unfinished runs


def unfinished(project: Project, name: str, **receipt: Any) -> Path:
    folder = project.place("run") / f"{name}.partial"
    folder.mkdir(parents=True)
    if receipt:
        (folder / "receipt.json").write_text(json.dumps(receipt))
    return folder


def test_resume_goes_on_with_the_base_set_and_settings_that_the_run_was_started_with(
    project: Project, asked: Asked, tmp_path: Path
) -> None:
    first = project.names("set")[0]
    Path("llama").mkdir()
    config = {"max_steps": 12, "learning_rate": 0.5, "num_epochs": None}
    started = {"base": "llama", "base_path": str(tmp_path / "llama"), "set": first, "config": config}
    unfinished(project, "long", **started)
    loop.prepare(project, test_fraction=0.4)
    found = configured(project.path, "train", num_epochs=1, seed=3)
    loop.train(found, resume=True)
    assert (asked.out.name, asked.resume) == ("long", True)
    assert (asked.config.max_steps, asked.config.num_epochs, asked.config.learning_rate) == (12, None, 0.5)
    assert (asked.inputs.base, asked.inputs.base_path) == ("llama", tmp_path / "llama")
    assert asked.inputs.set_.name == first


def test_a_run_that_was_stopped_before_it_wrote_a_receipt_is_started_anew(project: Project, asked: Asked) -> None:
    unfinished(project, "long")
    loop.train(project, resume=True, max_steps=2)
    assert (asked.out.name, asked.config.max_steps, asked.inputs.base) == ("long", 2, "default")


def test_resume_needs_a_name_where_there_is_a_choice(project: Project, asked: Asked) -> None:
    unfinished(project, "one")
    unfinished(project, "two")
    with pytest.raises(UsageError, match="unfinished runs: one, two") as error:
        loop.train(project, resume=True)
    assert error.value.fix == "add --name two"
    with pytest.raises(UsageError) as error:
        loop.train(project, "tow", resume=True)
    assert error.value.fix == "did you mean 'two'?"
    loop.train(project, "one", resume=True)
    assert asked.out.name == "one"


def test_the_name_of_an_unfinished_run_is_taken(project: Project, asked: Asked) -> None:
    unfinished(project, "run-1")
    with pytest.raises(UsageError, match="an unfinished run run-1 exists") as error:
        loop.train(project, "run-1")
    assert error.value.fix.startswith("tunesmith train --resume --name run-1")
    loop.train(project)
    assert asked.out.name == "run-2"


def test_no_room_on_the_disk_names_the_command_that_goes_on_and_no_memory_does_not(
    project: Project, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fix: str) -> Callable[..., None]:
        def run(*_: object, resume: bool) -> None:
            raise ResourceError("full", fix=fix)

        return run

    for fix, told in (
        ("free some space and run the same command again", "free some space, then: tunesmith train --resume --name x"),
        ("take --method lora", "take --method lora"),
    ):
        monkeypatch.setattr("tunesmith.train.stage.run", fail(fix))
        with pytest.raises(ResourceError) as error:
            loop.train(project, "x")
        assert error.value.fix == told


@pytest.mark.parametrize("name", ["a/b", "../a", ".hidden", "", "a b", "x.partial", "-x"])
def test_a_name_is_a_plain_word(project: Project, asked: Asked, name: str) -> None:
    if name:
        with pytest.raises(UsageError, match="cannot be a name"):
            loop.train(project, name)
    else:  # not given
        loop.train(project, name)
        assert asked.out.name == "run-1"


# what was collected twice


def test_a_corrected_file_takes_the_place_of_the_old_one_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    project = loop.new(Path("faq"))
    old = loop.collect(project, [write("faq.jsonl", THINGS, "It is heer.")])
    loop.collect(project, [write("more.jsonl", ["anchor"])])
    assert len(answers(loop.prepare(project))) == 11
    assert "collected again" not in capsys.readouterr().err
    loop.collect(project, [write("faq.jsonl", THINGS[:8], "It is here.")])
    set_ = loop.prepare(project)
    assert answers(set_) == sorted(f"{thing}? It is here." for thing in [*THINGS[:8], "anchor"])
    assert set_.facts["rows_in"] == 9
    assert f"faq.jsonl: collected again since, so data/raw/{old.name} is left out" in capsys.readouterr().err


def test_a_file_put_back_as_it_was_counts_again(capsys: pytest.CaptureFixture[str]) -> None:
    project = loop.new(Path("faq"))
    first = loop.collect(project, [write("faq.jsonl", THINGS, "One.")])
    loop.collect(project, [write("faq.jsonl", THINGS, "Two.")])
    again = loop.collect(project, [write("faq.jsonl", THINGS, "One.")])
    assert (again.name, again.hash) == (first.name, first.hash)
    assert open_artifact(again.path, "raw").hash == first.hash
    assert {text.split("? ")[1] for text in answers(loop.prepare(project))} == {"One."}


def test_collecting_the_same_file_twice_changes_nothing() -> None:
    project = loop.new(Path("faq"))
    first = loop.collect(project, [write("faq.jsonl", THINGS)])
    loop.collect(project, [write("more.jsonl", ["anchor"])])
    again = loop.collect(project, [Path("faq.jsonl")])
    assert again.manifest == first.manifest
    assert project.names("raw")[0] == first.name


def test_files_collected_together_give_way_together_and_one_alone_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    project = loop.new(Path("faq"))
    both = loop.collect(project, [write("a.jsonl", THINGS[:5], "Old."), write("b.jsonl", THINGS[5:], "Old.")])
    loop.collect(project, [write("a.jsonl", THINGS[:5], "New.")])
    loop.prepare(project)
    assert f"a.jsonl: the old rows in data/raw/{both.name} count too; collect b.jsonl again" in capsys.readouterr().err
    loop.collect(project, [write("b.jsonl", THINGS[5:], "New.")])
    assert {text.split("? ")[1] for text in answers(loop.prepare(project))} == {"New."}
    assert "count too" not in capsys.readouterr().err


def test_a_set_that_was_made_before_and_is_made_again_is_the_newest() -> None:
    project = loop.new(Path("faq"))
    loop.collect(project, [write("faq.jsonl", THINGS)])
    first = loop.prepare(project)
    second = loop.prepare(project, test_fraction=0.4)
    assert project.names("set") == [first.name, second.name]
    again = loop.prepare(project)
    assert again.name == first.name
    assert project.names("set") == [second.name, first.name]
    assert project.open("set").hash == first.hash


def test_raw_text_is_needed_to_pretrain(project: Project) -> None:
    with pytest.raises(DataError, match="holds conversations, and pretraining needs raw text"):
        loop.pretrain(project)
