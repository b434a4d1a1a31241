"""What `judge` takes from a project or from files: pairs of answers, people's votes, and a model that judges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.bases import local_chat
from tunesmith.core.config import make
from tunesmith.core.errors import UsageError
from tunesmith.core.project import Project
from tunesmith.loop import new_place, stage_config

if TYPE_CHECKING:
    from tunesmith.engine.base import ChatEngine
    from tunesmith.evaluate.judge import JudgeConfig, JudgeInputs
    from tunesmith.evaluate.opinions import Case


@dataclass(frozen=True)
class Sources:
    """Where the answers come from: two files of rows {id, prompt, output}, or an evaluation of the project."""

    a: Path | None = None
    b: Path | None = None
    eval_name: str | None = None
    votes: Path | None = None


def judge(project: Project | None, sources: Sources, name: str | None = None, **overrides: Any) -> dict[str, Any]:
    """The object that `--json` prints; in a project also evals/<name>, whose path stands in it."""
    from tunesmith.core.jsonl import read_json
    from tunesmith.evaluate import judge as stage

    given = {key: value for key, value in overrides.items() if value is not None}
    kind = stage.JudgeConfig
    config = stage_config(project, "judge", kind, **given) if project else make(kind, given)
    cases, unpaired, names, parents = _cases(project, sources)
    votes = stage.votes_of(sources.votes, names, [case.id for case in cases]) if sources.votes else stage.Votes()
    out = new_place(project, "judge", name) if project else None
    with _judge(project, config, cases) as engine:
        inputs: JudgeInputs = stage.JudgeInputs(cases, names, engine, votes, unpaired)
        if out is None:
            return stage.measure(config, inputs)[0]
        done = stage.run(config, inputs, out, parents)
    return {**read_json(done.path / "judge.json"), "path": str(done.path)}


def _cases(project: Project | None, sources: Sources) -> tuple[list[Case], int, tuple[str, str], dict[str, Any]]:
    """(pairs, items without a pair, the arms' names, parents)."""
    from tunesmith.core.artifact import file_hash
    from tunesmith.evaluate.judge import cases_of, cases_of_eval

    if (sources.a is None) != (sources.b is None):
        raise UsageError("one file of answers", expected="two: --a FILE --b FILE, rows {id, prompt, output}")
    if sources.a is not None and sources.b is not None:
        if sources.eval_name is not None:
            raise UsageError("--eval with --a and --b", expected="one or the other")
        cases, unpaired = cases_of(sources.a, sources.b)
        files = {"a": sources.a, "b": sources.b}
        parents = {side: {"name": path.name, "hash": file_hash(path)} for side, path in files.items()}
        return cases, unpaired, (sources.a.stem, sources.b.stem), parents
    if project is None:
        raise UsageError("nothing to judge", expected="a project with an evaluation, or --a FILE --b FILE")
    found = project.open("eval", sources.eval_name)
    return cases_of_eval(found), 0, ("base", "tuned"), {"eval": {"name": found.name, "hash": found.hash}}


@contextmanager
def _judge(project: Project | None, config: JudgeConfig, cases: list[Case]) -> Iterator[ChatEngine]:
    """The local model or the endpoint; what it says is kept in the project's store, and there is none outside of one.

    The ledger's job is the texts that are judged: caps count all reruns over them.
    """
    from tunesmith.collect.generate import STORE
    from tunesmith.engine.answers import Answers
    from tunesmith.engine.endpoint import EndpointConfig
    from tunesmith.engine.remote import RemoteChat

    store = Answers(project.place("raw").parent / STORE if project else None)
    try:
        if config.local is not None:
            yield local_chat(project, config.local, store)
        else:
            told = hashlib.sha256("\0".join(text for case in cases for text in (case.id, case.a, case.b)).encode())
            given = EndpointConfig(**{name: getattr(config, name) for name in EndpointConfig.model_fields})
            yield RemoteChat(given, store, f"judge {told.hexdigest()[:12]}")
    finally:
        store.close()
