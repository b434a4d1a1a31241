"""What `benchmark` takes from a project, a folder or the hub: models, and the files of questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.bases import load_engine
from tunesmith.core.artifact import Artifact
from tunesmith.core.config import make
from tunesmith.core.errors import UsageError
from tunesmith.core.project import Project
from tunesmith.loop import engines, new_place, stage_config

if TYPE_CHECKING:
    from tunesmith.evaluate.benchmarks import Arm, BenchmarkConfig, Sheet
    from tunesmith.evaluate.tasks import Task

HUB = "hub"
PLACE = "data/benchmarks"  # in a project, where no other folder is named


def benchmark(project: Project, name: str | None = None, *, run_name: str | None = None, **overrides: Any) -> Artifact:
    """A run and its base on the same questions: evals/<name>. A run that was pretrained stands alone."""
    from tunesmith.evaluate import benchmarks as stage

    config = stage_config(project, "benchmark", stage.BenchmarkConfig, **overrides)
    run = project.open("run", run_name)
    out = new_place(project, "benchmark", name)
    sheets = _sheets(config, project.path / (config.data or PLACE) if config.data != HUB else None)
    arms: dict[str, Arm] = {}
    if "base_path" in run.facts:
        base, tuned, renderer = engines(run)
        arms = {name: stage.Arm(engine, renderer.tokenizer) for name, engine in (("base", base), ("tuned", tuned))}
    else:
        arms = {"model": _arm(run.path / "model")}
    facts = {"name": out.name, "parents": {"run": {"name": run.name, "hash": run.hash}}}
    return stage.run(config, sheets, arms, out, facts)


def benchmark_models(model: str, base: str | None = None, **overrides: Any) -> dict[str, Any]:
    """A model directory or hub id, alone or against the one it was tuned from: the object that `--json` prints."""
    from tunesmith.evaluate import benchmarks as stage

    given = {key: value for key, value in overrides.items() if value is not None}
    config = make(stage.BenchmarkConfig, given)
    if config.data is None:
        raise UsageError(
            "--model without --data", expected="the folder of the questions", fix="--data DIR, or --data hub"
        )
    sheets = _sheets(config, Path(config.data) if config.data != HUB else None)
    names = {"base": base, "tuned": model} if base else {"model": model}
    return stage.measure(sheets, {arm: _arm(_folder(name)) for arm, name in names.items()})[0]


def _sheets(config: BenchmarkConfig, folder: Path | None) -> list[Sheet]:
    """Every task's questions, read before a model is loaded. Without a folder, from the hub."""
    from tunesmith.evaluate import benchmarks as stage
    from tunesmith.evaluate import questions

    find: Callable[[Task, str], list[Path]]
    if folder is None:
        hub: dict[str, Mapping[str, Path]] = {}

        def find(task: Task, part: str) -> list[Path]:
            hub[task.hub] = hub.get(task.hub) or _fetched(task.hub)
            return questions.find(task, hub[task.hub], part)
    else:
        files = questions.below(folder)

        def find(task: Task, part: str) -> list[Path]:
            return questions.find(task, files, part)

    tasks = stage.chosen(config, lambda task: bool(find(task, "test")))
    return [stage.sheet(task, config, find) for task in tasks]


def _fetched(name: str) -> dict[str, Path]:
    """The files of "owner/name:pattern" by name, the set's own before it: a file's alone may not say whose it is."""
    from tunesmith.collect import hub

    return {f"{name.split(':')[0]}/{'/'.join(path.parts[-2:])}": path for path in hub.files(Path(f"hf:{name}"))}


def _folder(model: str) -> Path:
    from tunesmith.model.load import resolve

    return Path(model) if Path(model).is_dir() else resolve(model)


def _arm(folder: Path) -> Arm:
    from tunesmith.evaluate.benchmarks import Arm

    engine, renderer = load_engine(folder)
    return Arm(engine, renderer.tokenizer)
