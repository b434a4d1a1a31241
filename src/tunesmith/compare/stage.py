"""Compare: prompting, retrieval and tuning on the same held-out rows -> evals/compare-N."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith.compare import report, verdict
from tunesmith.compare.answering import Speaker, fits
from tunesmith.compare.config import CompareConfig
from tunesmith.compare.prompts import Prompts, Recipe
from tunesmith.compare.trial import Arm, Asked, Score, Trial, answer_all, figures, search, time_alone
from tunesmith.core.artifact import Artifact, check_free, seal, writing
from tunesmith.core.errors import DataError, UsageError, did_you_mean
from tunesmith.core.jsonl import read_rows, write_json, write_jsonl
from tunesmith.core.records import Row
from tunesmith.core.runlog import say

METRICS = ("fields", "label", "f1")  # what a verdict goes by: the first that has something to say of every row


@dataclass(frozen=True)
class CompareInputs:
    """`score` gives the metrics of an answer to a row, `higher` whether more of one is better (None: neither is).

    `documents` are passages to retrieve, in place of training rows. `endpoint`: a model's name, and who asks it.
    `not_run`: metrics that need more than that, for the report to name.
    """

    set_: Artifact
    base: Speaker
    tuned: Speaker | None
    score: Score
    higher: Callable[[str], bool | None]
    run: Artifact | None = None
    documents: Sequence[str] = ()
    endpoint: tuple[str, Speaker] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    not_run: Sequence[str] = ()


def run(config: CompareConfig, inputs: CompareInputs, out: Path) -> Artifact:
    """Choose prompts on valid rows, time and answer the test rows, test every pair of arms, write.

    Raises DataError when there is nothing to answer, UsageError when `out` exists or the metric ranks nothing.
    """
    check_free(out)
    rows, skipped = _held_out(inputs, "test")
    if not rows:
        raise DataError("the set has no test row with a question and an answer", fix="prepare with more rows held out")
    rows = [rows[place] for place in sorted(_shuffled(rows)[: config.limit])]
    metric = _metric(config.metric, inputs, rows)
    asked = _asked(config, inputs, rows, metric)
    times = time_alone(asked, _shuffled(rows)[: config.latency_rows + 1])
    trials = []
    for one, seconds in zip(asked, times, strict=True):
        trials.append(answer_all(one, rows, seconds, inputs.score))
        say(f"  {one.arm.name}: {len(rows)} rows answered, {one.recipe.text}")
    made = _report(config, inputs, trials, rows, {"name": out.name, "metric": metric, "skipped": skipped})
    with writing(out) as work:
        _write(work, trials, rows, made)
        said = {name: made[name] for name in ("n", "metric", "verdict", "leading", "parents")}
        return seal(work, out, "compare", {"config": config.model_dump(mode="json"), **said})


def _held_out(inputs: CompareInputs, split: str) -> tuple[list[Row], dict[str, int]]:
    """The rows that every local model can be asked, and how many cannot, by the reason."""
    local = [speaker for speaker in (inputs.base, inputs.tuned) if speaker]
    rows, skipped = [], {"no question and answer": 0, "prompt too long": 0}
    for row in read_rows(inputs.set_.path / f"{split}.jsonl"):
        if not (row.messages and row.question and row.reference):
            skipped["no question and answer"] += 1
        elif any(speaker.room(row.prompt) < 1 for speaker in local):
            skipped["prompt too long"] += 1
        else:
            rows.append(row)
    return rows, {why: count for why, count in skipped.items() if count}


def _shuffled(rows: Sequence[Row]) -> list[int]:
    """Their places in the order of their ids, which are hashes: a shuffle that is the same each time."""
    return sorted(range(len(rows)), key=lambda place: rows[place].id)


def _metric(name: str | None, inputs: CompareInputs, rows: Sequence[Row]) -> str:
    """The metric of the verdict. Raises UsageError where it ranks nothing or has no value for a row."""
    values = [inputs.score(row, row.reference) for row in rows]
    usable = [key for key in values[0] if all(one[key] is not None for one in values)]
    ranking = [key for key in usable if inputs.higher(key) is not None]
    chosen = name or next((key for key in METRICS if key in ranking), None)
    if chosen not in ranking:
        raise UsageError(f"metric = {chosen!r} does not rank every answer", fix=did_you_mean(str(chosen), ranking))
    return chosen


def _asked(config: CompareConfig, inputs: CompareInputs, rows: Sequence[Row], metric: str) -> list[Asked]:
    """Every arm with its prompts for the test rows."""
    prompts = Prompts(list(read_rows(inputs.set_.path / "train.jsonl")), inputs.documents, config.seed)
    valid, _ = _held_out(inputs, "valid")
    tried_on = [valid[place] for place in _shuffled(valid)[: config.search_rows]]
    found = []
    for arm in arms(config, inputs):
        recipe, tried = search(arm, prompts, tried_on, inputs.score, metric)
        made = [prompts.build(recipe, row, partial(fits, arm.speaker)) for row in rows]
        found.append(Asked(arm, recipe, tried, made))
    return found


def arms(config: CompareConfig, inputs: CompareInputs) -> list[Arm]:
    """Those that there is a model for."""
    shots = tuple(Recipe("shots", count, pick) for pick in ("nearest", "random") for count in config.shots)
    passages = tuple(Recipe("passages", count) for count in config.passages)
    found = [
        Arm("zero-shot", inputs.base),
        Arm("few-shot", inputs.base, shots),
        Arm("retrieval", inputs.base, passages),
    ]
    if inputs.tuned:
        found += [Arm("tuned", inputs.tuned), Arm("tuned + retrieval", inputs.tuned, passages)]
    if inputs.endpoint:
        name, speaker = inputs.endpoint
        found += [Arm(f"{name} zero-shot", speaker), Arm(f"{name} few-shot", speaker, shots)]
    return found


def _report(
    config: CompareConfig, inputs: CompareInputs, trials: Sequence[Trial], rows: Sequence[Row], facts: dict[str, Any]
) -> dict[str, Any]:
    """The content of report.json."""
    groups = [row.meta.group or row.id for row in rows]
    metric = facts["metric"]
    values = {trial.name: trial.values(metric) for trial in trials}
    tested = verdict.pairs(values, groups, inputs.higher(metric) is True, config.seed)
    cells = [figures(trial, groups) for trial in trials]
    said, reasons = verdict.conclude(cells, tested, metric, str(inputs.facts.get("price", "")))
    parents = {"set": inputs.set_, **({"run": inputs.run} if inputs.run else {})}
    return {
        **facts,
        **inputs.facts,
        "not_run": list(inputs.not_run),
        "n": len(rows),
        "clusters": len(set(groups)),
        "parents": {kind: {"name": one.name, "hash": one.hash} for kind, one in parents.items()},
        "arms": cells,
        "pairs": tested,
        "leading": verdict.leading(list(values), tested),
        "verdict": said,
        "reasons": reasons,
    }


def _write(work: Path, trials: Sequence[Trial], rows: Sequence[Row], made: dict[str, Any]) -> None:
    """The report, and for every arm its answers and the scores of the verdict's metric.

    predictions/ARM.jsonl is what `diagnose --predictions` reads, two of scores/ARM.jsonl what `compare --scores` does.
    """
    for trial in trials:
        name = re.sub(r"[^\w.-]+", "-", trial.name)
        for folder in ("predictions", "scores"):
            (work / folder).mkdir(exist_ok=True)
        write_jsonl(work / "predictions" / f"{name}.jsonl", report.predictions(trial, rows))
        write_jsonl(work / "scores" / f"{name}.jsonl", report.scores(trial, rows, made["metric"]))
    write_json(work / "report.json", made)
    (work / "report.md").write_text(report.markdown(made), encoding="utf-8", newline="\n")
    (work / "report.html").write_text(report.page(made, trials, rows), encoding="utf-8", newline="\n")
