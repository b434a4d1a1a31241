"""What `compare` takes from a project: models, an endpoint, documents, and how answers are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from tunesmith.bases import found_base, load_engine, template
from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_json, read_rows
from tunesmith.core.project import Project
from tunesmith.core.records import Row
from tunesmith.engine.endpoint import LOOPBACK, EndpointConfig
from tunesmith.loop import engines, new_place, stage_config

if TYPE_CHECKING:
    from tunesmith.compare.answering import Speaker
    from tunesmith.compare.config import CompareConfig
    from tunesmith.compare.stage import CompareInputs
    from tunesmith.compare.trial import Score
    from tunesmith.engine.base import Engine, Sampling
    from tunesmith.text.render import Renderer

PRICE = 0.10  # an hour of a machine of which nobody says: about what two to four cores are rented for


def compare(
    project: Project,
    name: str | None = None,
    *,
    run_name: str | None = None,
    set_name: str | None = None,
    **overrides: Any,
) -> Artifact:
    """Every arm that there is a model for, on the test rows of the set that the run was trained on (or of another).

    Before the first run: the arms of the project's base, and the endpoint's.
    """
    from tunesmith.compare import config as settings
    from tunesmith.compare import stage

    config = stage_config(project, "compare", settings.CompareConfig, **overrides)
    run = project.open("run", run_name) if run_name or project.names("run") else None
    set_ = project.open("set", set_name or (run.facts.get("set") if run else None))
    out = new_place(project, "compare", name)
    with _inputs(project, config, run, set_) as inputs:
        return stage.run(config, inputs, out)


def summary(made: Artifact) -> dict[str, Any]:
    """What `compare --json` prints."""
    report = read_json(made.path / "report.json")
    names = ("n", "metric", "arms", "leading", "verdict", "reasons")
    return {"path": str(made.path), "report": str(made.path / "report.html"), **{key: report[key] for key in names}}


@contextmanager
def _inputs(project: Project, config: CompareConfig, run: Artifact | None, set_: Artifact) -> Iterator[CompareInputs]:
    from tunesmith.compare.answering import Local
    from tunesmith.compare.stage import CompareInputs
    from tunesmith.engine.base import Sampling
    from tunesmith.evaluate.stage import answer_tokens

    documents = _passages(project, config.documents)
    base, tuned, renderer = _models(project, run)
    training = list(read_rows(set_.path / "train.jsonl"))
    sampling = Sampling(config.max_new_tokens or answer_tokens(training, renderer), seed=config.seed)
    price = PRICE if config.price_per_hour is None else config.price_per_hour
    scoring = _scoring(project, set_, training)
    with _endpoint(project, config, set_, sampling) as endpoint:
        yield CompareInputs(
            set_=set_,
            base=Local(base, renderer, sampling, price),
            tuned=Local(tuned, renderer, sampling, price) if tuned else None,
            score=scoring.score,
            higher=scoring.higher,
            run=run,
            documents=documents,
            endpoint=endpoint,
            facts=_facts(config, price, sampling),
            not_run=scoring.not_run,
        )


def _models(project: Project, run: Artifact | None) -> tuple[Engine, Engine | None, Renderer]:
    """(base, tuned, renderer) of the run; without one the project's base under the task's template."""
    if run:
        return engines(run)
    from tunesmith.text.render import Renderer
    from tunesmith.text.tokenizer import Tokenizer

    folder = found_base(project, project.task.base)
    renderer = Renderer(Tokenizer.load(folder), template(project))
    return load_engine(folder, renderer)[0], None, renderer


class Scoring(NamedTuple):
    """The metrics of [evaluate] that need no more than an answer and its row, which way each is better; the rest."""

    score: Score
    higher: Callable[[str], bool | None]
    not_run: list[str]


def _scoring(project: Project, set_: Artifact, training: Sequence[Row]) -> Scoring:
    from tunesmith.evaluate import scoring
    from tunesmith.evaluate.catalogue import meaning
    from tunesmith.evaluate.stage import EvaluateConfig

    metrics = project.config("evaluate", EvaluateConfig).metrics
    rows = list(read_rows(set_.path / "test.jsonl"))
    scorer = scoring.scorer(metrics, scoring.named(metrics, project.path), rows, training)

    known = dict(scorer.values("", rows[0])) if rows else {}
    return Scoring(
        score=lambda row, text: dict(scorer.values(text, row)),
        higher=lambda name: meaning(name).higher_is_better,
        not_run=[name for name in scorer.names if name not in known],
    )


@contextmanager
def _endpoint(
    project: Project, config: EndpointConfig, set_: Artifact, sampling: Sampling
) -> Iterator[tuple[str, Speaker] | None]:
    """The endpoint of the config, with a ledger of its own for this set: caps count all reruns."""
    from tunesmith.collect.generate import STORE
    from tunesmith.compare.answering import Remote
    from tunesmith.engine.answers import Answers
    from tunesmith.engine.remote import RemoteChat

    if not config.base_url:
        yield None
        return
    chat = RemoteChat(config, Answers(project.place("raw").parent / STORE), f"compare {set_.hash[:12]}")
    try:
        yield chat.name, Remote(chat, sampling, chat.price, leaves_machine(config.base_url))
    finally:
        chat.close()


def leaves_machine(base_url: str) -> bool:
    """Whether what is sent to an address goes out of this machine; where a local server sends it on, nobody knows."""
    return urlsplit(base_url).hostname not in LOOPBACK


def _passages(project: Project, documents: Sequence[str]) -> list[str]:
    """The pieces of text files that are named from the project's folder. Raises DataError where there is no text."""
    from tunesmith.compare.retrieve import passages

    found = []
    for path in (project.path / name for name in documents):
        if not path.is_file():
            raise DataError(f"{path} is not a file", where="[compare] documents", expected="Markdown or plain text")
        try:
            found += passages(path.read_text("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text", fix="save it as UTF-8 text") from error
    if documents and not found:
        raise DataError(f"{', '.join(documents)}: there is no text to retrieve", where="[compare] documents")
    return found


def _facts(config: CompareConfig, price: float, sampling: Sampling) -> dict[str, Any]:
    from tunesmith.model.device import machine_facts

    assumed = ", which is assumed: set price_per_hour" if config.price_per_hour is None else ""
    return {
        "price": f"an hour of this machine at {price:g}{assumed}",
        "max_new_tokens": sampling.max_new_tokens,
        "seed": config.seed,
        "machine": machine_facts(),
    }
