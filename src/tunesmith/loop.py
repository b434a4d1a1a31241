"""The loop over a project: each verb finds its inputs, calls one stage, and returns the artifact.

The faces (command line, Python, studio) call these functions and nothing below them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.bases import base_path as base_path
from tunesmith.bases import load_embedder
from tunesmith.bases import load_engine as load_engine
from tunesmith.bases import template as template
from tunesmith.core.artifact import MANIFEST, Artifact, fsync_path, open_artifact
from tunesmith.core.config import C, Config, make, to_toml
from tunesmith.core.errors import DataError, ModelError, ResourceError, UsageError, did_you_mean
from tunesmith.core.jsonl import read_json, read_rows, write_json
from tunesmith.core.project import TOML, Project, TaskConfig
from tunesmith.core.runlog import say

if TYPE_CHECKING:
    from tunesmith.engine.base import Engine
    from tunesmith.engine.local import LocalEngine
    from tunesmith.text.render import Renderer

_HEAD = """\
# The task and every setting of its stages. A key that is commented out is decided for you, and what was decided is
# recorded in the run's receipt. Flags on the command line win over this file.

"""


def stage_configs() -> dict[str, type[Config]]:
    """The sections of tunesmith.toml, in the order of the loop."""
    from tunesmith.collect.generate import GenerateConfig
    from tunesmith.collect.stage import CollectConfig
    from tunesmith.compare.config import CompareConfig
    from tunesmith.compare.scout import ScoutConfig
    from tunesmith.diagnose.stage import DiagnoseConfig
    from tunesmith.evaluate.benchmarks import BenchmarkConfig
    from tunesmith.evaluate.gate import GateConfig
    from tunesmith.evaluate.judge import JudgeConfig
    from tunesmith.evaluate.stage import EvaluateConfig
    from tunesmith.prepare.stage import PrepareConfig
    from tunesmith.train.config import PretrainConfig, TrainConfig

    data: dict[str, type[Config]] = {"collect": CollectConfig, "generate": GenerateConfig, "prepare": PrepareConfig}
    model: dict[str, type[Config]] = {"train": TrainConfig, "evaluate": EvaluateConfig, "compare": CompareConfig}
    model |= {"benchmark": BenchmarkConfig, "judge": JudgeConfig, "diagnose": DiagnoseConfig}
    return {**data, **model, "gate": GateConfig, "scout": ScoutConfig, "pretrain": PretrainConfig}


def new(folder: Path, base: str = "default", settings: dict[str, dict[str, Any]] | None = None) -> Project:
    """Make a project: a folder with tunesmith.toml, every setting written out. `settings`: section -> what differs.

    Raises UsageError when the folder is a project already.
    """
    if (folder / TOML).exists():
        raise UsageError(f"{folder} is a project already", fix=f"cd {folder} && tunesmith collect FILE")
    folder_of_base = Path(base).expanduser()
    base = str(folder_of_base.resolve()) if base != "default" and folder_of_base.is_dir() else base
    parts = [to_toml("task", TaskConfig(name=folder.resolve().name, base=base))]
    parts += [to_toml(name, kind(**(settings or {}).get(name, {}))) for name, kind in stage_configs().items()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOML).write_text(_HEAD + "\n".join(parts), encoding="utf-8")
    return open_project(folder)


def open_project(folder: Path) -> Project:
    """A project whose sections are all known."""
    project = Project(folder)
    project.check_sections(["task", *stage_configs()])
    return project


def check_files(files: Sequence[Path]) -> None:
    """Raise UsageError, with the nearest name there is, where one of the files is missing or is a folder."""
    from tunesmith.collect.hub import is_hub

    for file in (file for file in files if not is_hub(file)):
        if file.is_dir():
            raise UsageError(f"{file} is a folder", expected="a file of examples", fix=f"name its files: {file}/*")
        if not file.exists():
            near = [path.name for path in file.parent.iterdir()] if file.parent.is_dir() else []
            hint = did_you_mean(file.name, near)
            raise UsageError(f"{file} does not exist", fix=hint if hint.startswith("did") else "check the path")


def collect(
    project: Project, files: Sequence[Path], mapping: dict[str, str] | None = None, **overrides: Any
) -> Artifact:
    """Files as raw rows. A file of a name that was collected before takes the place of the old one."""
    from tunesmith.collect import stage

    check_files(files)
    config = stage_config(project, "collect", stage.CollectConfig, map=mapping or None, **overrides)
    made = stage.run(config, files, project.place("raw"))
    raw = [open_artifact(project.place("raw") / name, "raw") for name in project.names("raw")]
    return made if made.name in [one.name for one in _current(raw)] else _renew(made)


def prepare(
    project: Project, *, runner: str | None = None, shard_rows: int | None = None, **overrides: Any
) -> Artifact:
    """All that was collected, as one set. Rows of the newest set keep their splits.

    With a `runner` (local, slurm, ray), over shards of `shard_rows` rows.
    """
    from tunesmith.measuring import instruments
    from tunesmith.prepare import sharded, stage
    from tunesmith.prepare.adapters import RUNNERS

    current = current_raw(project)
    if not current:
        raise UsageError("nothing was collected yet", fix="tunesmith collect FILE")
    previous = project.open("set") if project.names("set") else None
    config = stage_config(project, "prepare", stage.PrepareConfig, **overrides)
    config = config.model_copy(update={"benchmarks": [str(project.path / file) for file in config.benchmarks]})
    where = current, project.place("set"), previous, project.task.system
    if runner is not None:
        set_ = sharded.run(config, *where, runner=RUNNERS[runner], shard_rows=shard_rows or sharded.SHARD_ROWS)
    else:
        with instruments(project, config, current) as tools:
            set_ = stage.run(config, *where, tools)
    if project.names("set")[-1] != set_.name:
        set_ = _renew(set_)
    for note in set_.facts["notes"]:
        say(f"  {note}")
    return set_


def current_raw(project: Project) -> list[Artifact]:
    """The raw artifacts that count: of files that were collected again, the newest."""
    raw = [open_artifact(project.place("raw") / name, "raw") for name in project.names("raw")]
    current = _current(raw)
    _say_replaced(raw, current)
    return current


def pretrain(project: Project, name: str | None = None, set_name: str | None = None, **overrides: Any) -> Artifact:
    """A base from zero on the raw text of a set's train split."""
    from tunesmith.train import pretrain as stage
    from tunesmith.train.config import PretrainConfig

    set_ = project.open("set", set_name)
    texts = [row.text for row in read_rows(set_.path / "train.jsonl") if row.text]
    if not texts:
        fix = "collect files whose rows have a text, in a project of their own"
        raise DataError(f"the set {set_.name} holds conversations, and pretraining needs raw text", fix=fix)
    config = stage_config(project, "pretrain", PretrainConfig, **overrides)
    facts = {"base": "", "set": set_.name, "data_hash": set_.hash}
    return stage.run(config, texts, new_place(project, "run", name), facts)


def train(
    project: Project,
    name: str | None = None,
    *,
    base: str | None = None,
    set_name: str | None = None,
    resume: bool = False,
    **overrides: Any,
) -> Artifact:
    """The project's base (or another) tuned on its newest set (or another).

    With `resume`, base, set and config are those that the unfinished run was started with.
    """
    from tunesmith.train.config import TrainConfig

    out = _unfinished(project, name) if resume else new_place(project, "run", name)
    started = _started(out) if resume else {}
    file = started.get("config") or project.config("train", TrainConfig).model_dump(exclude_unset=True)
    for either in (("max_steps", "num_epochs"), ("batch_size", "batch_tokens")):
        for flag, other in (either, either[::-1]):
            if overrides.get(flag) is not None:  # what is given on the command line replaces its alternative
                file.pop(other, None)
    config = _under(file, TrainConfig, overrides, f"{project.path / TOML} [train]")
    set_ = project.open("set", set_name or started.get("set"))
    path = Path(started["base_path"]) if started and base is None else None
    base = base or started.get("base") or project.task.base
    if path is None or not path.is_dir():
        path = base_path(project, base)
    from tunesmith.train import stage  # seconds to import: not before what can be wrong without it

    inputs = stage.TrainInputs(set_, base, path, template(project), project.path / "data/tokens")
    try:
        return stage.run(config, inputs, out, resume=resume)
    except ResourceError as error:
        if not error.fix.startswith("free some space"):
            raise
        fix = f"free some space, then: tunesmith train --resume --name {out.name}"
        raise ResourceError(error.what, where=error.where, fix=fix) from error


def evaluate(
    project: Project,
    name: str | None = None,
    *,
    run_name: str | None = None,
    set_name: str | None = None,
    more_arms: dict[str, list[str]] | None = None,
    **overrides: Any,
) -> Artifact:
    """Base and tuned on the held-out rows of the set that the run was trained on (or of another)."""
    from tunesmith.compare.arms import majority
    from tunesmith.compare.retrieve import bm25_copy
    from tunesmith.evaluate import stage

    run = project.open("run", run_name)
    set_ = project.open("set", set_name or run.facts.get("set"))
    config = stage_config(project, "evaluate", stage.EvaluateConfig, **overrides)
    out = new_place(project, "eval", name)
    base, tuned, renderer = engines(run, int8=config.int8)
    rows, held_out = (list(read_rows(set_.path / f"{part}.jsonl")) for part in ("train", config.split))
    arms = {"majority": majority(rows, held_out), "bm25": bm25_copy(rows, held_out)} if rows and held_out else {}
    arms |= more_arms or {}
    embedder = load_embedder(project, config.embedder) if "similarity" in config.metrics else None
    inputs = stage.EvaluateInputs(set_, base, tuned, renderer, run, arms, project.path, embedder)
    return stage.run(config, inputs, out)


def export(project: Project, name: str | None = None, *, run_name: str | None = None) -> Artifact:
    """A LoRA run as a run of its own whose model is one piece, compared with the adapter on held-out rows."""
    from tunesmith.train.merge import merge

    run = project.open("run", run_name)
    set_ = project.open("set", run.facts.get("set"))
    rows = [row for part in ("valid", "test", "train") for row in read_rows(set_.path / f"{part}.jsonl")]
    return merge(run, rows, new_place(project, "run", name or f"{run.name}-merged"))


def engines(run: Artifact, *, int8: bool = False) -> tuple[Engine, LocalEngine, Renderer]:
    """(base, tuned, renderer) of a run: the same prompts for both, and the same weights below an adapter."""
    if "base_path" not in run.facts:
        raise UsageError(f"the run {run.name} has no base to compare with: it was pretrained", fix="tunesmith train")
    base = Path(run.facts["base_path"])
    if not base.is_dir():
        fix = "tunesmith pretrain --embedded" if run.facts["base"] == "default" else "put it back, or train again"
        raise ModelError(f"the base of {run.name} is gone: {base}", fix=fix)
    tuned, renderer = load_engine(run.path / "model", int8=int8)
    return tuned.base if tuned.has_base else load_engine(base, renderer, int8=int8)[0], tuned, renderer


def stage_config(project: Project, section: str, kind: type[C], **overrides: Any) -> C:
    """The file's section, then the flags that were given."""
    file = project.config(section, kind).model_dump(exclude_unset=True)
    return _under(file, kind, overrides, f"{project.path / TOML} [{section}]")


def _under(file: dict[str, Any], kind: type[C], overrides: dict[str, Any], where: str) -> C:
    """The file's values under the flags; a flag that is wrong by itself is not blamed on the file."""
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return make(kind, file | given, where)
    except UsageError:
        make(kind, given)
        raise


def new_place(project: Project, kind: str, name: str | None) -> Path:
    """Where a new artifact goes. Raises UsageError on a name that is taken, or is no plain folder name.

    The stages refuse a taken name too, but a base may have to be made before one is asked.
    """
    name = name or project.next_name(kind)
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".partial"):
        raise UsageError(f"'{name}' cannot be a name", expected="letters, digits, '-', '_' and '.', such as run-2")
    final = project.place(kind) / name
    if os.path.lexists(final):
        raise UsageError(f"the {kind} {final.name} exists", fix="choose another --name, or leave it out")
    if os.path.lexists(_partial(final)):
        fix = f"tunesmith train --resume --name {final.name}, or choose another --name"
        raise UsageError(f"an unfinished {kind} {final.name} exists", fix=fix)
    return final


def _partial(out: Path) -> Path:
    """Where a run lies until it is finished."""
    return out.with_name(f"{out.name}.partial")


def _files(raw: Artifact) -> set[str]:
    """The names of the files that were collected together; of lessons, none."""
    return {file["file"] for file in raw.facts.get("files", ())}


def _current(raw: Sequence[Artifact]) -> list[Artifact]:
    """Of raw artifacts (oldest first) those whose files were not all collected again since."""
    kept = []
    for number, one in enumerate(raw, 1):
        later = {file for other in raw[number:] for file in _files(other)}
        if not _files(one) or not _files(one) <= later:
            kept.append(one)
    return kept


def _say_replaced(raw: Sequence[Artifact], current: Sequence[Artifact]) -> None:
    """Which files count in their newest form only, and which count twice because of what they came with."""
    names = [one.name for one in current]
    for one in raw:
        if one.name not in names:
            names_of_files = ", ".join(sorted(_files(one)))
            say(f"  {names_of_files}: collected again since, so data/raw/{one.name} is left out")
            say("    (a file of the same name takes the place of the old one; rename it to keep both)")
    for number, one in enumerate(current, 1):
        again = _files(one) & {file for other in current[number:] for file in _files(other)}
        if again:
            rest = ", ".join(sorted(_files(one) - again))
            say(f"  {', '.join(sorted(again))}: the old rows in data/raw/{one.name} count too; collect {rest} again")


def _renew(made: Artifact) -> Artifact:
    """What was there already and is asked for again becomes the newest, which is what later verbs take."""
    manifest = made.manifest | {"created": datetime.now(UTC).isoformat()}
    new = made.path / f"{MANIFEST}.new"
    write_json(new, manifest)
    fsync_path(new)
    os.replace(new, made.path / MANIFEST)
    return Artifact(made.path, made.kind, manifest)


def _started(out: Path) -> dict[str, Any]:
    """The receipt of an unfinished run; empty where it was stopped before it had written one."""
    with suppress(DataError, OSError):
        return dict(read_json(_partial(out) / "receipt.json"))
    return {}


def unfinished_runs(project: Project) -> list[str]:
    """The names of the runs that were stopped or are going on."""
    return sorted(path.name.removesuffix(".partial") for path in project.place("run").glob("[!.]*.partial"))


def _unfinished(project: Project, name: str | None) -> Path:
    """Where the only unfinished run is to be, or the one of that name. Raises UsageError on none, and on a choice."""
    found = unfinished_runs(project)
    if name is not None and name not in found:
        fix = did_you_mean(name, found) or "leave --resume out"
        raise UsageError(f"there is no unfinished run {name} to resume", fix=fix)
    if name is None and len(found) != 1:
        what = "there is no unfinished run" if not found else f"unfinished runs: {', '.join(found)}"
        raise UsageError(what, fix="leave --resume out" if not found else f"add --name {found[-1]}")
    return project.place("run") / (name or found[0])
