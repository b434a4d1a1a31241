"""The loop over a project: each verb finds its inputs, calls one stage, and returns the artifact.

The faces (command line, Python, studio) call these functions and nothing below them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.artifact import Artifact, open_artifact
from tunesmith.core.config import Config, to_toml
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_rows
from tunesmith.core.project import TOML, Project, TaskConfig
from tunesmith.core.runlog import say

if TYPE_CHECKING:
    from tunesmith.engine.local import LocalEngine
    from tunesmith.text.render import Renderer

_HEAD = """\
# The task and every setting of its stages. A key that is commented out is decided for you, and what was decided is
# recorded in the run's receipt. Flags on the command line win over this file.

"""


def stage_configs() -> dict[str, type[Config]]:
    """The sections of tunesmith.toml, in the order of the loop."""
    from tunesmith.collect.stage import CollectConfig
    from tunesmith.evaluate.stage import EvaluateConfig
    from tunesmith.prepare.stage import PrepareConfig
    from tunesmith.train.config import PretrainConfig, TrainConfig

    stages: dict[str, type[Config]] = {"collect": CollectConfig, "prepare": PrepareConfig, "train": TrainConfig}
    return {**stages, "evaluate": EvaluateConfig, "pretrain": PretrainConfig}


def new(folder: Path, base: str = "default", settings: dict[str, dict[str, Any]] | None = None) -> Project:
    """Make a project: a folder with tunesmith.toml, every setting written out. `settings`: section -> what differs.

    Raises UsageError when the folder is a project already.
    """
    if (folder / TOML).exists():
        raise UsageError(f"{folder} is a project already", fix=f"cd {folder} && tunesmith collect FILE")
    base = str(Path(base).resolve()) if Path(base).is_dir() else base
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


def collect(project: Project, files: Sequence[Path], mapping: dict[str, str] | None = None) -> Artifact:
    from tunesmith.collect import stage

    config = project.config("collect", stage.CollectConfig, map=mapping or None)
    return stage.run(config, files, project.place("raw"))


def prepare(project: Project, **overrides: Any) -> Artifact:
    """All that was collected, as one set. Rows of the newest set keep their splits."""
    from tunesmith.prepare import stage

    raw = [open_artifact(project.place("raw") / name, "raw") for name in project.names("raw")]
    if not raw:
        raise UsageError("nothing was collected yet", fix="tunesmith collect FILE")
    previous = project.open("set") if project.names("set") else None
    config = project.config("prepare", stage.PrepareConfig, **overrides)
    set_ = stage.run(config, raw, project.place("set"), previous, project.task.system)
    for note in set_.facts["notes"]:
        say(f"  {note}")
    return set_


def pretrain(project: Project, name: str | None = None, set_name: str | None = None, **overrides: Any) -> Artifact:
    """A base from zero on the raw text of a set's train split."""
    from tunesmith.train import pretrain as stage
    from tunesmith.train.config import PretrainConfig

    set_ = project.open("set", set_name)
    texts = [row.text for row in read_rows(set_.path / "train.jsonl") if row.text]
    if not texts:
        fix = "collect files whose rows have a text, in a project of their own"
        raise DataError(f"the set {set_.name} holds conversations, and pretraining needs raw text", fix=fix)
    config = project.config("pretrain", PretrainConfig, **overrides)
    facts = {"base": "", "set": set_.name, "data_hash": set_.hash}
    return stage.run(config, texts, project.place("run") / (name or project.next_name("run")), facts)


def train(
    project: Project,
    name: str | None = None,
    *,
    base: str | None = None,
    set_name: str | None = None,
    resume: bool = False,
    **overrides: Any,
) -> Artifact:
    """The project's base (or another) tuned on its newest set (or another)."""
    from tunesmith.train import stage
    from tunesmith.train.config import TrainConfig

    base = base or project.task.base
    if overrides.get("max_steps") is not None:  # a horizon on the command line replaces the file's
        project.sections.get("train", {}).pop("num_epochs", None)
    elif overrides.get("num_epochs") is not None:
        project.sections.get("train", {}).pop("max_steps", None)
    config = project.config("train", TrainConfig, **overrides)
    set_ = project.open("set", set_name)
    template = project.task.template
    if template.endswith(".jinja"):
        template = str(project.path / template)
    inputs = stage.TrainInputs(set_, base, base_path(project, base), template)
    name = name or (_unfinished(project) if resume else project.next_name("run"))
    return stage.run(config, inputs, project.place("run") / name, resume=resume)


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
    config = project.config("evaluate", stage.EvaluateConfig, **overrides)
    base, tuned, renderer = engines(run)
    rows, held_out = (list(read_rows(set_.path / f"{part}.jsonl")) for part in ("train", config.split))
    arms = {"majority": majority(rows, held_out), "bm25": bm25_copy(rows, held_out)} if rows and held_out else {}
    inputs = stage.EvaluateInputs(set_, base, tuned, renderer, run, {**arms, **(more_arms or {})})
    return stage.run(config, inputs, project.place("eval") / (name or project.next_name("eval")))


def engines(run: Artifact) -> tuple[LocalEngine, LocalEngine, Renderer]:
    """(base, tuned, renderer) of a run: the same prompts for both."""
    if "base_path" not in run.facts:
        raise UsageError(f"the run {run.name} has no base to compare with: it was pretrained", fix="tunesmith train")
    tuned, renderer = load_engine(run.path / "model")
    return load_engine(Path(run.facts["base_path"]), renderer)[0], tuned, renderer


def load_engine(folder: Path, renderer: Renderer | None = None) -> tuple[LocalEngine, Renderer]:
    """A model directory as an engine, in the format that its weights are stored in."""
    from tunesmith.engine.local import LocalEngine
    from tunesmith.model import device, load
    from tunesmith.text.render import Renderer
    from tunesmith.text.tokenizer import Tokenizer

    device.set_threads()
    renderer = renderer or Renderer(Tokenizer.load(folder))
    model = load.load_trained(folder, load.stored_dtype(folder))
    return LocalEngine(model, renderer.tokenizer, stop_ids=renderer.stop_ids), renderer


def base_path(project: Project, base: str) -> Path | None:
    """Where a base lies that is no directory and no hub id: the embedded one, or a pretrained run of this project."""
    if base == "default":
        from tunesmith.embedded import embedded_base

        return embedded_base()
    return project.open("run", base).path / "model" if base in project.names("run") else None


def _unfinished(project: Project) -> str:
    """The only unfinished run. Raises UsageError when there is none, or a choice."""
    found = sorted(path.name.removesuffix(".partial") for path in project.place("run").glob("*.partial"))
    if len(found) != 1:
        what = "there is no unfinished run" if not found else f"unfinished runs: {', '.join(found)}"
        raise UsageError(what, fix="leave --resume out" if not found else f"add --name {found[-1]}")
    return found[0]
