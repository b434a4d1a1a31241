"""Evaluate: base and tuned answer the same held-out rows -> evals/<name>."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.config import Config
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl, read_rows, write_json, write_jsonl
from tunesmith.core.records import Row
from tunesmith.engine.base import Engine, Sampling, generate_both
from tunesmith.engine.embedding import Embedder
from tunesmith.evaluate import measure, page, report, scoring, whole
from tunesmith.evaluate.catalogue import check
from tunesmith.metrics.stats import nearest_rank
from tunesmith.metrics.style import detectors
from tunesmith.text.render import Renderer

MOST_TOKENS = 512
DEFAULT = ("exact_match", "f1", "rouge1", "rouge2", "rougeL", "length_ratio")


class EvaluateConfig(Config):
    """How base and tuned are compared."""

    split: Literal["test", "valid"] = "test"
    """the held-out rows to answer: test, or valid"""
    limit: Annotated[int, Field(ge=1)] | None = None
    """answer only so many rows, the same ones each time; unset for all"""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """where an answer is cut; unset for 1.5 x the longest training answers (tokens), at most 512"""
    metrics: tuple[Annotated[str, AfterValidator(check)], ...] = DEFAULT
    """what to score; fields and labels are added where the references have them. Your own: "my_metrics.py:politeness"
    """
    embedder: str | None = None
    """a sentence-transformers directory for the metric similarity; unset for the one of the extra"""
    int8: bool = False
    """round the weights of base and tuned to 8 bits, on a CPU: half the memory; what it changes is printed"""
    seed: int = 0
    """the seed of the tests that draw (sign flips)"""


@dataclass(frozen=True)
class EvaluateInputs:
    """`run` gives the loss curve. `reference_arms` are further answers by name, one a row of the split.

    `folder`: where the files lie that metrics name. `embedder`: for similarity; without one, spelling stands in.
    """

    set_: Artifact
    base: Engine
    tuned: Engine
    renderer: Renderer
    run: Artifact | None = None
    reference_arms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folder: Path = Path()
    embedder: Embedder | None = None

    @property
    def models(self) -> dict[str, Engine]:
        return {"base": self.base, "tuned": self.tuned}


def run(config: EvaluateConfig, inputs: EvaluateInputs, out: Path) -> Artifact:
    """Answer, score, compare, write. Raises DataError when there is nothing to answer, UsageError when `out` exists."""
    if out.exists():
        raise UsageError(f"{out} exists", fix="choose another --name, or remove it first")
    own = scoring.named(config.metrics, inputs.folder)
    rows, arms, counts = _held_out(config, inputs)
    training = list(read_rows(inputs.set_.path / "train.jsonl"))
    tokens = config.max_new_tokens or answer_tokens(training, inputs.renderer)
    metrics, not_run = _at_hand(config.metrics, inputs.embedder)
    scorer = scoring.scorer(metrics, own, rows, training)

    answers = _answers(inputs, rows, Sampling(max_new_tokens=tokens, seed=config.seed), scorer.names)
    likely = _likelihoods(inputs, rows, scorer.names)
    columns = measure.columns(scorer.names, answers, likely) | _similarities(inputs, scorer.names, rows, arms, answers)
    items = []
    for n, row in enumerate(rows):
        measured = {name: {arm: values[n] for arm, values in column.items()} for name, column in columns.items()}
        items.append(scorer.item(row, answers["base"].given[n], answers["tuned"].given[n], arms[n], measured))
    facts = {"name": out.name, **_sources(inputs), **counts, "max_new_tokens": tokens, "seed": config.seed}
    facts["not_run"] = not_run
    figures = report.build(items, detectors(scorer.vocabulary), facts, config.seed)
    figures |= whole.values(items, likely, scorer.labels, config.seed)
    losses = list(read_jsonl(inputs.run.path / "metrics.jsonl")) if inputs.run else []

    with writing(out) as work:
        write_jsonl(work / "predictions.jsonl", (item.prediction_json() for item in items))
        write_jsonl(work / "scores.jsonl", (item.scores_json() for item in items))
        write_json(work / "report.json", figures)
        pages = {"report.html": page.render(figures, items, losses), "report.md": page.markdown(figures, items)}
        for name, text in pages.items():
            (work / name).write_text(text, encoding="utf-8", newline="\n")
        return seal(work, out, "eval", {"config": config.model_dump(mode="json"), **facts, "n": len(items)})


def summary(artifact: Artifact) -> dict[str, Any]:
    """What `evaluate --json` prints: metrics and error rates (0..1); null where there was nothing to measure."""
    figures = read_json(artifact.path / "report.json")
    keys = ("base", "tuned", "difference", "low", "high", "p")
    return {
        "path": str(artifact.path),
        "report": str(artifact.path / "report.html"),
        "n": figures["n"],
        "metrics": {name: {key: cell[key] for key in keys} for name, cell in figures["metrics"].items()},
        "corpus": {name: {key: cell[key] for key in keys} for name, cell in figures["corpus"].items()},
        "errors": {name: {key: cell[key] for key in keys[:2]} for name, cell in figures["errors"].items()},
        "not_run": figures["not_run"],
    }


def _held_out(config: EvaluateConfig, inputs: EvaluateInputs) -> tuple[list[Row], list[dict[str, str]], dict[str, Any]]:
    """The rows to answer, the reference arms' answers to each, and the counts that the report states.

    A row without an answer, or whose prompt leaves no room for one in the models' context, is skipped and counted.
    """
    file = inputs.set_.path / f"{config.split}.jsonl"
    every = list(read_rows(file))
    for name, answers in inputs.reference_arms.items():
        if name in ("base", "tuned") or len(answers) != len(every):
            raise ValueError(f"arm '{name}' (not base, not tuned) has {len(answers)} answers for {len(every)} rows")
    answered = [n for n, row in enumerate(every) if row.reference]
    context = min(inputs.base.context, inputs.tuned.context)
    usable = [n for n in answered if len(inputs.renderer.prompt(every[n].prompt)) < context]
    if not usable:
        fix = "prepare with more rows held out" if not every else "evaluate needs rows with an answer"
        raise DataError("nothing to evaluate on: no held-out row has an answer", where=str(file), fix=fix)
    by_hash = sorted(usable, key=lambda n: every[n].id)  # an id is a hash: its order is a fixed shuffle
    chosen = sorted(by_hash[: config.limit])
    arms = [{name: answers[n] for name, answers in inputs.reference_arms.items()} for n in chosen]
    skipped = {"no answer": len(every) - len(answered), "prompt too long": len(answered) - len(usable)}
    counts = {"split": config.split, "rows": len(every), "skipped": {why: n for why, n in skipped.items() if n}}
    return [every[n] for n in chosen], arms, counts


def answer_tokens(training: Sequence[Row], renderer: Renderer) -> int:
    """1.5 x the length that 99.5 % of the training answers stay within, with all that the template puts around them."""
    more = renderer.answer_overhead
    lengths = [len(ids) + more for ids in renderer.tokenizer.encode_many([row.reference for row in training])]
    return min(MOST_TOKENS, math.ceil(1.5 * nearest_rank(lengths, 0.995))) if lengths else MOST_TOKENS


def _at_hand(metrics: Sequence[str], embedder: Embedder | None) -> tuple[list[str], dict[str, str]]:
    """The metrics that can be run, and why others cannot: spelling stands in for meaning under a name that says so."""
    if embedder is not None or "similarity" not in metrics:
        return list(metrics), {}
    stand_in = ["similarity_lexical" if name == "similarity" else name for name in metrics]
    return stand_in, {"similarity": scoring.NO_MODEL}


def _answers(
    inputs: EvaluateInputs, rows: Sequence[Row], sampling: Sampling, names: Sequence[str]
) -> dict[str, measure.Answers]:
    """Both models' greedy answers to the very same prompt ids; one by one where latency is asked for."""
    prompts = [inputs.renderer.prompt(row.prompt) for row in rows]
    if "latency_ms" in names:
        return {arm: measure.one_by_one(engine, prompts, sampling) for arm, engine in inputs.models.items()}
    unknown = [None] * len(rows)
    given = generate_both(inputs.base, inputs.tuned, prompts, sampling)
    return {arm: measure.Answers(some, unknown) for arm, some in zip(inputs.models, given, strict=True)}


def _likelihoods(inputs: EvaluateInputs, rows: Sequence[Row], names: Sequence[str]) -> whole.Likelihoods:
    if not {"perplexity", "bpb"} & set(names):
        return {}
    return {arm: measure.likelihoods(engine, inputs.renderer, rows) for arm, engine in inputs.models.items()}


def _similarities(
    inputs: EvaluateInputs,
    names: Sequence[str],
    rows: Sequence[Row],
    arms: Sequence[Mapping[str, str]],
    answers: Mapping[str, measure.Answers],
) -> dict[str, measure.Column]:
    texts = {arm: [one.text for one in got.given] for arm, got in answers.items()}
    texts |= {name: [given[name] for given in arms] for name in arms[0]}
    references = [row.reference for row in rows]
    found: dict[str, measure.Column] = {}
    if "similarity" in names and inputs.embedder:
        found["similarity"] = measure.similarities(inputs.embedder, texts, references)
    if "similarity_lexical" in names:
        found["similarity_lexical"] = measure.lexical_similarities(texts, references)
    return found


def _sources(inputs: EvaluateInputs) -> dict[str, Any]:
    parents = {"set": inputs.set_, **({"run": inputs.run} if inputs.run else {})}
    return {
        "parents": {kind: {"name": a.name, "hash": a.hash} for kind, a in parents.items()},
        "template": inputs.renderer.hash,
    }
