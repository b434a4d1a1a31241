from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core.artifact import seal, writing
from tunesmith.core.config import Config
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.project import Project, TaskConfig, cache_dir, find_project

TEXT = """
[task]
name = "faq"

[train]
max_steps = 5
"""


class TrainConfig(Config):
    """Two fields of a stage."""

    max_steps: int | None = None
    """steps"""
    seed: int = 0
    """the seed"""


def folder(path: Path, text: str = TEXT) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "tunesmith.toml").write_text(text)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(folder(tmp_path / "faq"))


def add(project: Project, kind: str, name: str) -> Path:
    final = project.place(kind) / name
    with writing(final) as work:
        (work / "a.txt").write_text(name)
        seal(work, final, kind, {})
    return final


def message(error: pytest.ExceptionInfo[UsageError]) -> str:
    assert error.value.exit_code == 2
    return str(error.value)


def test_the_task_has_its_defaults(project: Project) -> None:
    assert project.task == TaskConfig(name="faq", system="", base="default", template="auto")


def test_a_folder_without_toml_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        Project(tmp_path)
    assert message(error) == (f"{tmp_path} is not a project: no tunesmith.toml\n  next: tunesmith new DIR --data FILE")


def test_a_project_is_found_from_any_folder_inside_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = project.path / "data" / "raw"
    inside.mkdir(parents=True)
    assert find_project(inside).path == project.path
    monkeypatch.chdir(inside)
    assert find_project().path == project.path


def test_the_nearest_project_is_the_one(project: Project) -> None:
    inner = folder(project.path / "inner")
    assert find_project(inner / "nowhere").path == inner


def test_where_there_is_no_project_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        find_project(tmp_path)
    assert message(error) == (
        f"no tunesmith.toml in {tmp_path} or above it\n  next: tunesmith new DIR --data FILE, or --project DIR"
    )


def test_an_override_wins_over_the_file_and_none_overrides_nothing(project: Project) -> None:
    assert project.config("train", TrainConfig) == TrainConfig(max_steps=5)
    assert project.config("train", TrainConfig, max_steps=None, seed=3) == TrainConfig(max_steps=5, seed=3)
    assert project.config("train", TrainConfig, max_steps=7).max_steps == 7
    assert project.sections["train"] == {"max_steps": 5}


def test_a_section_that_is_not_there_has_its_defaults(project: Project) -> None:
    assert project.config("evaluate", TrainConfig) == TrainConfig()


def test_a_wrong_key_is_named_with_file_and_section(project: Project) -> None:
    with pytest.raises(UsageError) as error:
        project.config("train", TrainConfig, max_stepz=1)
    assert message(error).startswith(f"{project.path}/tunesmith.toml [train]: unknown key 'max_stepz'")


@pytest.mark.parametrize("text", ["train = 5", "[[train]]\nmax_steps = 5", "train = [1]"])
def test_a_section_that_is_no_table_is_an_error(tmp_path: Path, text: str) -> None:
    project = Project(folder(tmp_path, f"{text}\n[task]\nname = 'faq'"))
    with pytest.raises(UsageError) as error:
        project.config("train", TrainConfig)
    assert message(error) == (
        f"{tmp_path}/tunesmith.toml: 'train' is not a section\n  expected: [train], its keys below it"
    )


def test_a_section_that_nothing_reads_is_an_error(project: Project) -> None:
    project.check_sections(["task", "train"])
    with pytest.raises(UsageError) as error:
        project.check_sections(["task", "training"])
    assert message(error) == "tunesmith.toml: unknown section [train]\n  next: did you mean 'training'?"


def test_names_are_those_of_finished_artifacts_oldest_first(project: Project) -> None:
    assert project.names("run") == []
    for name in ("zebra", "run-10", "run-9"):
        add(project, "run", name)
    (project.place("run") / "half").mkdir()
    (project.place("run") / "note.txt").touch()
    assert project.names("run") == ["zebra", "run-10", "run-9"]


def test_without_a_name_the_newest_is_opened_and_with_one_that_one(project: Project) -> None:
    for name in ("b", "a"):
        add(project, "run", name)
    assert project.open("run").name == "a"
    assert project.open("run", "b").name == "b"


def test_an_artifact_is_opened_by_path_from_here_and_from_the_project(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = add(project, "run", "a")
    monkeypatch.chdir(tmp_path)
    assert project.open("run", str(final)).path == final
    assert project.open("run", "faq/runs/a").path.resolve() == final
    assert project.open("run", "runs/a").path == final


def test_an_artifact_of_another_kind_is_refused(project: Project) -> None:
    final = add(project, "set", "a")
    with pytest.raises(DataError, match="is a set\n  expected: a run"):
        project.open("run", str(final))


def test_kinds_that_share_a_folder_are_told_apart_by_their_manifests(project: Project) -> None:
    add(project, "eval", "eval-1")
    add(project, "compare", "compare-1")
    assert (project.names("eval"), project.names("compare")) == (["eval-1"], ["compare-1"])
    assert project.open("eval").name == "eval-1"
    assert project.next_name("compare") == "compare-2"


@pytest.mark.parametrize(
    ("kind", "verb"), [("raw", "collect FILE"), ("set", "prepare"), ("run", "train"), ("eval", "evaluate")]
)
def test_where_there_is_none_yet_the_error_says_which_verb_makes_it(project: Project, kind: str, verb: str) -> None:
    for name in (None, "a"):
        with pytest.raises(UsageError) as error:
            project.open(kind, name)
        assert message(error) == f"the project has no {kind} yet\n  next: tunesmith {verb}"


def test_a_wrong_name_is_an_error_with_the_nearest_one(project: Project) -> None:
    add(project, "run", "run-1")
    with pytest.raises(UsageError) as error:
        project.open("run", "run-l")
    assert message(error) == "no run 'run-l'\n  next: did you mean 'run-1'?"


def test_a_damaged_manifest_hides_one_artifact_and_not_the_others(project: Project) -> None:
    for name in ("good", "bad"):
        add(project, "run", name)
    (project.place("run") / "bad" / "manifest.json").write_text('{"kind": "run"')
    assert project.names("run") == ["good"]
    assert project.open("run").name == "good"
    with pytest.raises(DataError, match=r"manifest\.json:1:15: not valid JSON"):
        project.open("run", "bad")


def test_the_next_name_is_one_more_than_the_highest_even_of_the_unfinished(project: Project) -> None:
    assert project.next_name("run") == "run-1"
    for taken, following in [
        ("run-2", "run-3"),
        (".run-4.partial", "run-5"),
        (".run-6.0a1b2c3d.tmp", "run-7"),
        ("run-12", "run-13"),
        ("run-99x", "run-13"),
        ("eval-50", "run-13"),
        ("best", "run-13"),
    ]:
        (project.place("run") / taken).mkdir(parents=True)
        assert project.next_name("run") == following


def test_a_name_that_is_being_written_is_not_given_twice(project: Project) -> None:
    with writing(project.place("run") / project.next_name("run")):
        assert project.next_name("run") == "run-2"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TUNESMITH_CACHE": "/big/disk", "XDG_CACHE_HOME": "/x"}, "/big/disk"),
        ({"TUNESMITH_CACHE": "~/here"}, "/home/me/here"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/tunesmith"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/tunesmith"),
        ({}, "/home/me/.cache/tunesmith"),
    ],
)
def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for key in ("TUNESMITH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(key, raising=False)
    for key, value in ({"HOME": "/home/me"} | environment).items():
        monkeypatch.setenv(key, value)
    assert cache_dir() == Path(expected)
