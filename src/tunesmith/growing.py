"""Verbs that make the data more: rows by an endpoint or a local model, and the review of what they made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.bases import local_chat
from tunesmith.core.artifact import Artifact, artifacts, open_artifact
from tunesmith.core.errors import UsageError, did_you_mean
from tunesmith.core.project import Project
from tunesmith.loop import current_raw, stage_config


def generate(project: Project, files: Sequence[Path], local: bool = False, **overrides: Any) -> Artifact:
    """New rows from the rows that were collected and from document files: data/raw/<id>, or a draft for review.

    `local`: the project's base writes them in place of the endpoint under [generate].
    """
    from tunesmith.collect import generate as stage
    from tunesmith.engine.answers import Answers

    config = stage_config(project, "generate", stage.GenerateConfig, **overrides)
    store = Answers(project.place("raw").parent / stage.STORE) if local else None
    engine = local_chat(project, project.task.base, store) if store else None
    return stage.run(config, [*current_raw(project), *files], project.place("raw"), engine)


def forecast(project: Project, files: Sequence[Path], **overrides: Any) -> dict[str, Any]:
    """What `generate` would ask and cost; nothing is sent."""
    from tunesmith.collect import forecast as stage
    from tunesmith.collect.generate import STORE, GenerateConfig

    config = stage_config(project, "generate", GenerateConfig, **overrides)
    return stage.plan(config, [*current_raw(project), *files], project.place("raw").parent / STORE)


def review(project: Project, name: str | None = None, *, partial: bool = False, ask: bool = True) -> Artifact | None:
    """Go through a draft at the terminal. Returns what was accepted once every row is decided (or with `partial`)."""
    from tunesmith.collect.review import Queue, close, terminal

    drafts = {path.name: path for path in artifacts(project.place("raw").parent / "drafts")}
    if not drafts:
        raise UsageError("there is nothing to review", fix="tunesmith generate --review")
    if name is not None and name not in drafts:
        raise UsageError(f"no draft '{name}'", fix=did_you_mean(name, drafts))
    draft = open_artifact(drafts[name or list(drafts)[-1]], "draft")
    queue = terminal(draft) if ask else Queue(draft)
    if queue.counts()["pending"] and not partial:
        return None
    return close(queue, project.place("raw"), partial)
