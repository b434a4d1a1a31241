"""What `prepare` measures rows with: the base's tokenizer, a local model, the endpoint as a judge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tunesmith.bases import found_base, load_engine, template, tokenizer_at_hand
from tunesmith.core.artifact import Artifact
from tunesmith.core.project import Project
from tunesmith.prepare.config import PrepareConfig
from tunesmith.prepare.measure import Instruments

if TYPE_CHECKING:
    from tunesmith.engine.remote import RemoteChat
    from tunesmith.prepare.difficulty import Scorer


@contextmanager
def instruments(project: Project, config: PrepareConfig, raw: Sequence[Artifact]) -> Iterator[Instruments]:
    """All that the config asks for and the project has. `raw`: what is prepared, for the judge's ledger."""
    from tunesmith.train.config import TrainConfig

    batch_size = project.config("train", TrainConfig).batch_size
    judge = _judge(project, raw) if config.judge else None
    try:
        scorer = _scorer(project, config.difficulty) if config.difficulty else None
        yield Instruments(batch_size, tokenizer_at_hand(project), scorer, judge)
    finally:
        if judge:
            judge.close()


def _scorer(project: Project, name: str) -> Scorer:
    """A run under the template that it was trained with, any other model under the task's."""
    from tunesmith.prepare.difficulty import Scorer
    from tunesmith.text.render import Renderer
    from tunesmith.text.tokenizer import Tokenizer

    trained = name in project.names("run")
    base = project.task.base if name == "base" and not trained else name
    folder = found_base(project, base)
    renderer = Renderer(Tokenizer.load(folder), "auto" if trained else template(project))
    return Scorer(base, load_engine(folder, renderer)[0], renderer)


def _judge(project: Project, raw: Sequence[Artifact]) -> RemoteChat:
    """The endpoint under [generate], with a ledger of its own for these rows: caps count all reruns."""
    from tunesmith.collect.generate import STORE, GenerateConfig
    from tunesmith.engine.answers import Answers
    from tunesmith.engine.endpoint import EndpointConfig
    from tunesmith.engine.remote import RemoteChat

    given = project.config("generate", GenerateConfig)
    config = EndpointConfig(**{name: getattr(given, name) for name in EndpointConfig.model_fields})
    job = hashlib.sha256(" ".join(artifact.hash for artifact in raw).encode()).hexdigest()[:12]
    return RemoteChat(config, Answers(project.place("raw").parent / STORE), f"judge {job}")
