"""What `scout` needs: candidate tasks from files, and a model that tries them; in a project or outside of any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.bases import local_chat
from tunesmith.core.config import make
from tunesmith.core.errors import UsageError
from tunesmith.core.project import Project, cache_dir
from tunesmith.loop import stage_config

if TYPE_CHECKING:
    from tunesmith.compare.scout import ScoutConfig
    from tunesmith.engine.base import ChatEngine


def scout(files: Sequence[Path], project: Project | None, local: str | None = None, **overrides: Any) -> dict[str, Any]:
    """What `scout --json` prints. The endpoint is that of [scout], of the flags, or a `local` model directory."""
    from tunesmith.compare import scout as stage
    from tunesmith.compare.candidates import read_candidates

    tasks = read_candidates(files)
    if project:
        config = stage_config(project, "scout", stage.ScoutConfig, **overrides)
    else:
        given = {key: value for key, value in overrides.items() if value is not None}
        config = make(stage.ScoutConfig, given)
    with _model(config, project, local) as chat:
        return stage.scout(config, tasks, chat)


def table(facts: Mapping[str, Any]) -> str:
    """A task a line."""
    head = ("task", "n", "score [95 %]", "band", "clarity [95 %]", "kind")
    lines = [head, *(_cells(task) for task in facts["tasks"])]
    width = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join("  ".join(map(str.ljust, line, width)).rstrip() for line in lines)


def _cells(task: Mapping[str, Any]) -> tuple[str, ...]:
    score = {"value": task["score"], "low": task["low"], "high": task["high"]}
    band = task["band"] if task["certain"] or task["score"] is None else f"perhaps {task['band']}"
    return (task["task"], str(task["n"]), _interval(score), band, _interval(task["clarity"]), task["kind"])


def _interval(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return "NOT RUN"
    return f"{cell['value']:.2f}" + ("" if cell["low"] is None else f" [{cell['low']:.2f}, {cell['high']:.2f}]")


@contextmanager
def _model(config: ScoutConfig, project: Project | None, local: str | None) -> Iterator[ChatEngine]:
    """Answers are kept in the project, or in the user's cache: what was answered is not paid for twice."""
    from tunesmith.collect.generate import STORE
    from tunesmith.engine.answers import Answers
    from tunesmith.engine.remote import RemoteChat

    if local is not None and config.base_url:
        raise UsageError("a local model and an endpoint", expected="one of --local and --base-url")
    answers = Answers(project.place("raw").parent / STORE if project else cache_dir() / "scout.db")
    try:
        yield local_chat(project, local, answers) if local is not None else RemoteChat(config, answers, "scout")
    finally:
        answers.close()
