"""The command line as people and programs use it: the whole walk, what is said where, and the --json contract."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tunesmith import speaking
from tunesmith.core.jsonl import read_json, read_jsonl

PREPARE = {"set_id", "path", "rows_in", "kept", "rejected", "unwrapped", "duplicates", "near_duplicates", "leaked"}
PREPARE |= {"train", "valid", "test", "scores", "findings", "difficulty", "judge"}
TRAIN = {"run", "path", "method", "base", "steps", "epochs", "train_loss", "val_loss", "trained_tokens"}
TRAIN |= {"tokens_per_second", "trainable_parameters", "total_parameters", "seconds", "peak_memory_gb"}
EVALUATE = {"path", "report", "n", "metrics", "corpus", "errors", "not_run"}

Tunesmith = Callable[..., Any]  # the command, as the fixture runs it
pytestmark = pytest.mark.usefixtures("cache")

PLACES = ["river", "harbour", "kitchen", "library", "garden", "station", "market", "castle", "orchard", "museum"]
THINGS = ["lantern", "compass", "blanket", "violin", "ladder", "kettle", "hammer", "mirror", "basket", "candle"]


def write_faq(path: Path) -> Path:
    """40 questions that are not alike, so that every row is a group of its own."""
    pairs = [(place, THINGS[(i + 3 * k) % 10]) for i, place in enumerate(PLACES) for k in range(4)]
    lines = [json.dumps({"question": f"{thing} {place}?", "answer": f"The {thing} is here."}) for place, thing in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def walk(tunesmith: Tunesmith, tmp_path_factory: pytest.TempPathFactory, llama_dir: Path) -> dict[str, Any]:
    """The loop once, with --json, from inside the project; what each verb said. `faq` is the project's folder."""
    here = tmp_path_factory.mktemp("walk")
    write_faq(here / "faq.jsonl")
    said = {"new": tunesmith("new", "faq", "--data", "faq.jsonl", "--base", llama_dir, "--json", cwd=here)}
    inside = here / "faq"
    for verb in ("prepare", "train --max-steps 3", "evaluate", "show"):
        said[verb.split()[0]] = tunesmith(*verb.split(), "--json", cwd=inside)
    return said


@pytest.fixture(scope="module")
def faq(walk: dict[str, Any]) -> Path:
    return Path(walk["new"].json["project"])


def test_every_verb_of_the_walk_ends_with_0_and_prints_one_object(walk: dict[str, Any]) -> None:
    assert {verb: said.code for verb, said in walk.items()} == dict.fromkeys(walk, 0)
    assert all(said.json for said in walk.values())


def test_prepare_prints_the_contract_and_its_sums_hold(walk: dict[str, Any]) -> None:
    facts = walk["prepare"].json
    assert facts.keys() == PREPARE
    assert facts["rows_in"] == 40 == facts["kept"] + sum(facts["rejected"].values())
    assert facts["kept"] == facts["train"] + facts["valid"] + facts["test"]
    assert Path(facts["path"]).name == facts["set_id"]


def test_train_prints_the_contract_with_what_was_done(walk: dict[str, Any], llama_dir: Path) -> None:
    facts = walk["train"].json
    assert facts.keys() == TRAIN
    assert (facts["run"], facts["method"], facts["steps"], facts["base"]) == ("run-1", "full", 3, str(llama_dir))
    assert facts["trainable_parameters"] == facts["total_parameters"] > 0
    assert (Path(facts["path"]) / "model" / "model.safetensors").is_file()


def test_evaluate_prints_the_contract_of_every_metric_and_error(walk: dict[str, Any]) -> None:
    facts = walk["evaluate"].json
    assert facts.keys() == EVALUATE
    assert {"exact_match", "f1", "rouge1", "rouge2", "rougeL", "length_ratio"} <= facts["metrics"].keys()
    keys = {"base", "tuned", "difference", "low", "high", "p"}
    assert all(cell.keys() == keys for cell in facts["metrics"].values())
    assert facts["errors"].keys() == {"misspelling", "too_long", "repetitive"}
    assert all(cell.keys() == {"base", "tuned"} for cell in facts["errors"].values())
    assert facts["n"] == walk["prepare"].json["test"]
    assert Path(facts["report"]).is_file()


def test_people_read_on_stderr_what_was_done_and_the_next_command(walk: dict[str, Any]) -> None:
    following = {verb: re.findall(r"^next: (.*)$", said.err, re.MULTILINE) for verb, said in walk.items()}
    assert following["new"] == ["cd faq && tunesmith prepare"]
    assert following["prepare"] == ["tunesmith train"]
    assert following["train"] == ["tunesmith evaluate"]
    assert following["evaluate"] == ["tunesmith show"]
    assert "40 rows, 40 kept" in walk["new"].err
    assert re.search(r"^  \d+ rows: 4 rows a step .*; 3 steps, ", walk["train"].err, re.MULTILINE)
    assert "rougeL" in walk["evaluate"].err
    assert not any("Traceback" in said.err for said in walk.values())


def test_the_overview_names_every_artifact(walk: dict[str, Any]) -> None:
    facts = walk["show"].json
    evals = {"eval", "compare", "test", "benchmark", "judge", "gate", "errors"}
    assert facts.keys() == {"project", "raw", "set", "run", *evals, "unfinished"}
    assert (facts["run"], facts["eval"], facts["unfinished"]) == (["run-1"], ["eval-1"], [])
    assert facts["set"] == [walk["prepare"].json["set_id"]]
    assert all(name in walk["show"].err for name in (*facts["raw"], *facts["set"], "run-1", "eval-1"))


@pytest.mark.parametrize("kind", ["raw", "set", "run", "eval"])
def test_show_says_of_an_artifact_what_its_manifest_says(tunesmith: Tunesmith, faq: Path, kind: str) -> None:
    said = tunesmith("show", kind, "--json", cwd=faq)
    assert said.code == 0
    manifest = read_json(Path(said.json["path"]) / "manifest.json")
    assert manifest["kind"] == kind
    assert all(said.json[key] == value for key, value in manifest["facts"].items())
    assert tunesmith("show", kind, said.json["name"], "--json", cwd=faq).json == said.json


def test_show_row_prints_the_row_as_the_model_is_trained_on_it(tunesmith: Tunesmith, faq: Path) -> None:
    said = tunesmith("show", "--row", 2, "--json", cwd=faq)
    row = list(read_jsonl(next((faq / "data/sets").glob("[!.]*")) / "train.jsonl"))[1]
    question, answer = (message["content"] for message in row["messages"])
    assert said.json["id"] == row["id"]
    assert said.err.startswith(f"<s>### Question:\n{question}\n\n### Answer:\n[{answer}</s>]")
    (example,) = said.json["examples"]
    assert f"({sum(example['mask'])} of {len(example['ids'])} tokens are trained)" in said.err


def test_doctor_finds_nothing_wrong_here_and_says_where_things_lie(
    tunesmith: Tunesmith, cache: Path, tmp_path: Path
) -> None:
    said = tunesmith("doctor", "--json", cwd=tmp_path)
    assert said.code == 0
    assert said.json["problems"] == []
    assert said.json["cache"] == str(cache)
    assert "next: tunesmith demo" in said.err


def test_with_project_all_verbs_work_from_elsewhere_and_say_so_in_the_next_command(
    tunesmith: Tunesmith, tmp_path: Path, llama_dir: Path, cache: Path
) -> None:
    """A fresh process a verb, without --json: stdout stays empty, and the base is named from where one stands."""
    write_faq(tmp_path / "more.jsonl")
    (tmp_path / "bases").symlink_to(llama_dir.parent, target_is_directory=True)
    assert tunesmith("new", "shop", cwd=tmp_path).code == 0
    for words in (
        "collect more.jsonl --project shop",
        "prepare --project=shop",
        f"train --method lora --max-steps 2 --base bases/{llama_dir.name} --name first --project shop",
    ):
        said = tunesmith(*words.split(), cwd=tmp_path)
        assert (said.code, said.out) == (0, ""), said.err
        assert re.search(r"^next: tunesmith \w+ --project shop$", said.err, re.MULTILINE)
    shop = tmp_path / "shop"
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", "evaluate", "--run", "first", "--limit", "2", "--json"],
        cwd=shop,  # elsewhere than where the base was named
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["n"] == 2
    assert "next: tunesmith show\n" in done.stderr
    merged = tunesmith("export", "--run", "first", "--json", cwd=shop)
    assert merged.json["path"].endswith("runs/first-merged/model")
    assert merged.json["kl_mean"] < 0.01
    assert "next: tunesmith evaluate --run first-merged" in merged.err
    again = tunesmith("export", "--run", "first-merged", cwd=shop)
    assert again.code == 2
    assert "first-merged has no adapter to merge" in again.err


def test_new_writes_every_setting_of_every_stage_with_a_comment(faq: Path) -> None:
    from tunesmith.core.project import TaskConfig
    from tunesmith.loop import stage_configs

    text = (faq / "tunesmith.toml").read_text("utf-8")
    written = tomllib.loads(text)
    parts = dict(zip(re.findall(r"^\[(\w+)\]", text, re.M), re.split(r"^\[\w+\]\n", text, flags=re.M)[1:], strict=True))
    kinds = {"task": TaskConfig, **stage_configs()}
    assert written.keys() == kinds.keys()
    for section, kind in kinds.items():
        lines = [line for line in parts[section].splitlines() if line]
        assert len(lines) == len(kind.model_fields)
        for line, (name, field) in zip(lines, kind.model_fields.items(), strict=True):
            value, _, comment = line.rpartition("  # ")
            assert comment == " ".join((field.description or "").split()) != ""
            assert value == f"# {name} =" or value.startswith(f"{name} = ")
            assert (name in written[section]) == (field.default is not None)


@pytest.fixture
def project(tunesmith: Tunesmith, tmp_path: Path) -> Path:
    """A project with 40 rows, not yet prepared."""
    write_faq(tmp_path / "faq.jsonl")
    assert tunesmith("new", "faq", "--data", "faq.jsonl", cwd=tmp_path).code == 0
    return tmp_path / "faq"


def change(project: Path, old: str, new: str) -> None:
    file = project / "tunesmith.toml"
    text = file.read_text("utf-8")
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new), "utf-8")


def test_a_value_changed_in_the_file_changes_the_run(tunesmith: Tunesmith, project: Path) -> None:
    before = tunesmith("prepare", "--json", cwd=project).json
    change(project, "test_fraction = 0.1", "test_fraction = 0.5")
    after = tunesmith("prepare", "--json", cwd=project).json
    assert after["test"] > 2 * before["test"]
    assert after["set_id"] != before["set_id"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("test_fraction = 0.1", "test_fracton = 0.1", ["[prepare]: unknown key 'test_fracton'", "'test_fraction'?"]),
        ("[prepare]", "[prepar]", ["unknown section [prepar]", "did you mean 'prepare'?"]),
        ("test_fraction = 0.1", 'test_fraction = "a"', ["test_fraction", "valid number", "share of the groups"]),
        ("[prepare]", "[prepare", ["not valid TOML", "(at line "]),
        ('name = "faq"', "", ["'name' is missing"]),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place_and_the_nearest_key(
    tunesmith: Tunesmith, project: Path, old: str, new: str, told: list[str]
) -> None:
    change(project, old, new)
    said = tunesmith("prepare", "--json", cwd=project)
    assert said.code == 2
    assert "tunesmith.toml" in said.err
    assert all(part in said.err for part in told), said.err
    assert said.json["exit_code"] == 2


def test_an_error_is_an_object_for_programs_too(tunesmith: Tunesmith, project: Path) -> None:
    said = tunesmith("train", "--json", cwd=project)
    assert said.json == {
        "error": {"what": "the project has no set yet", "where": "", "expected": "", "fix": "tunesmith prepare"},
        "exit_code": 2,
    }
    assert said.err == "error: the project has no set yet\n  next: tunesmith prepare\n"


def test_numbers_that_are_none_are_null_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    speaking.end(True, {"loss": float("nan"), "cells": [{"p": float("inf")}], "word": "\udce4"}, "")
    assert json.loads(capsys.readouterr().out) == {"loss": None, "cells": [{"p": None}], "word": "\udce4"}


def test_ctrl_c_while_training_saves_and_names_the_command_that_finishes_the_run(
    tunesmith: Tunesmith, project: Path, llama_dir: Path
) -> None:
    tunesmith("prepare", cwd=project)
    change(project, "early_stopping_patience = 3", "early_stopping_patience = 0")
    change(project, "# sample_every =", "sample_every = 0")
    words = ["train", "--base", llama_dir, "--name", "long"]
    words += ["--max-steps", 200, "--eval-every", 100, "--save-every", 50]
    metrics = project / "runs/long.partial/metrics.jsonl"
    words += ["--project", project, "--json"]
    done = _interrupt(words, project.parent, lambda: metrics.is_file() and metrics.read_text())
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 130
    stopped = int(re.findall(r"stopped at step (\d+); saved", done.stderr)[0])
    assert 1 <= stopped < 200
    (following,) = re.findall(r"^  next: tunesmith ([^,\n]*)", done.stderr, re.MULTILINE)
    assert following.split() == ["train", "--project", str(project), "--resume", "--name", "long"]
    assert "unfinished: tunesmith train --resume --name long" in tunesmith("show", cwd=project).err
    finished = tunesmith(*following.split(), "--find-lr", "--json", cwd=project.parent)  # it has its rate
    assert finished.code == 0, finished.err
    assert (finished.json["run"], finished.json["steps"], finished.json["base"]) == ("long", 200, str(llama_dir))
    steps = [line["step"] for line in read_jsonl(project / "runs/long/metrics.jsonl") if "train_loss" in line]
    assert steps == list(range(1, 201))


def test_ctrl_c_before_training_has_begun_ends_with_130_and_a_message(
    tunesmith: Tunesmith, project: Path, llama_dir: Path
) -> None:
    tunesmith("prepare", cwd=project)
    words = ["train", "--base", llama_dir, "--project", project, "--json"]
    done = _interrupt(words, project.parent, lambda: (project / "runs").is_dir())
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert f"error: stopped\n  next: tunesmith show --project {project}, which" in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 130


def _interrupt(words: list[Any], cwd: Path, ready: Callable[[], Any]) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own and send it Ctrl-C when it is ready."""
    command = [sys.executable, "-m", "tunesmith", *map(str, words)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores Ctrl-C
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=cwd, preexec_fn=heard, **pipes)
    until = time.monotonic() + 60
    while not ready() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
