"""Evaluate: base and tuned answer the same held-out rows -> evals/<name>."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.config import Config
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_jsonl, read_rows, write_json, write_jsonl
from tunesmith.core.records import Row
from tunesmith.engine.base import Engine, Generation, Sampling
from tunesmith.evaluate import page, report
from tunesmith.evaluate.score import MetricName, Scorer, metric_names, reference_of
from tunesmith.metrics.labels import guard_answers
from tunesmith.metrics.overlap import normalise
from tunesmith.metrics.stats import nearest_rank
from tunesmith.metrics.style import Vocabulary, detectors
from tunesmith.text.render import Renderer

MOST_TOKENS = 512
DEFAULT: tuple[MetricName, ...] = ("exact_match", "f1", "rouge1", "rouge2", "rougeL", "length_ratio")


class EvaluateConfig(Config):
    """How base and tuned are compared."""

    split: Literal["test", "valid"] = "test"
    """the held-out rows to answer: test, or valid"""
    limit: Annotated[int, Field(ge=1)] | None = None
    """answer only so many rows, the same ones each time; unset for all"""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """where an answer is cut; unset for 1.5 x the longest training answers (tokens), at most 512"""
    metrics: tuple[MetricName, ...] = DEFAULT
    """what to score; fields are added where the references have "key: value" fields"""
    seed: int = 0
    """the seed of the intervals"""


@dataclass(frozen=True)
class EvaluateInputs:
    """`run` gives the loss curve. `reference_arms` are further answers by name, one a row of the split."""

    set_: Artifact
    base: Engine
    tuned: Engine
    renderer: Renderer
    run: Artifact | None = None
    reference_arms: Mapping[str, Sequence[str]] = field(default_factory=dict)


def run(config: EvaluateConfig, inputs: EvaluateInputs, out: Path) -> Artifact:
    """Answer, score, compare, write. Raises DataError when there is nothing to answer, UsageError when `out` exists."""
    if out.exists():
        raise UsageError(f"{out} exists", fix="choose another --name, or remove it first")
    rows, arms, counts = _held_out(config, inputs)
    training = list(read_rows(inputs.set_.path / "train.jsonl"))
    tokens = config.max_new_tokens or _answer_tokens(training, inputs.renderer)
    base, tuned = _answers(inputs, rows, Sampling(max_new_tokens=tokens, seed=config.seed))

    scorer = _scorer(config, rows, training)
    items = [scorer.item(*parts) for parts in zip(rows, base, tuned, arms, strict=True)]
    facts = {"name": out.name, **_sources(inputs), **counts, "max_new_tokens": tokens, "seed": config.seed}
    figures = report.build(items, detectors(scorer.vocabulary), facts, config.seed)
    losses = list(read_jsonl(inputs.run.path / "metrics.jsonl")) if inputs.run else []

    with writing(out) as work:
        write_jsonl(work / "predictions.jsonl", (item.prediction_json() for item in items))
        write_jsonl(work / "scores.jsonl", (item.scores_json() for item in items))
        write_json(work / "report.json", figures)
        html = page.render(figures, items, losses)
        (work / "report.html").write_text(html, encoding="utf-8", newline="\n")
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
        "errors": {name: {key: cell[key] for key in keys[:2]} for name, cell in figures["errors"].items()},
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
    answered = [n for n, row in enumerate(every) if reference_of(row)]
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


def _answer_tokens(training: Sequence[Row], renderer: Renderer) -> int:
    """1.5 x the length that 99.5 % of the training answers stay within, with all that the template puts around them."""
    more = renderer.answer_overhead
    lengths = [len(ids) + more for ids in renderer.tokenizer.encode_many([reference_of(row) for row in training])]
    return min(MOST_TOKENS, math.ceil(1.5 * nearest_rank(lengths, 0.995))) if lengths else MOST_TOKENS


def _answers(inputs: EvaluateInputs, rows: Sequence[Row], sampling: Sampling) -> tuple[list[Generation], ...]:
    """Both models' greedy answers to the very same prompt ids."""
    prompts = [inputs.renderer.prompt(row.prompt) for row in rows]
    return tuple(engine.generate(prompts, sampling) for engine in (inputs.base, inputs.tuned))


def _scorer(config: EvaluateConfig, rows: Sequence[Row], training: Sequence[Row]) -> Scorer:
    answers = [reference_of(row) for row in training]
    meant = {normalise(reference_of(row)) for row in training if row.meta.origin == "guard"}
    names = metric_names(config.metrics, [reference_of(row) for row in rows])
    return Scorer(names, guard_answers(answers) | meant, Vocabulary.of(answers))


def _sources(inputs: EvaluateInputs) -> dict[str, Any]:
    parents = {"set": inputs.set_, **({"run": inputs.run} if inputs.run else {})}
    return {
        "parents": {kind: {"name": a.name, "hash": a.hash} for kind, a in parents.items()},
        "template": inputs.renderer.hash,
    }
