"""One arm on the held-out rows: the best recipe for its prompt, found on other rows, its answers, and its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from tunesmith.compare.answering import Answer, Speaker, fits, total
from tunesmith.compare.prompts import Prompt, Prompts, Recipe
from tunesmith.core.errors import UsageError
from tunesmith.core.records import Row
from tunesmith.metrics.stats import mean_interval, nearest_rank

Score = Callable[[Row, str], Mapping[str, float | None]]
WHOLE = ("stop", "length")  # how an answer ends that was given; any other end is a refusal or a failure


@dataclass(frozen=True)
class Arm:
    """A way to get answers. Of several `recipes` the one that does best on rows outside the test is taken."""

    name: str
    speaker: Speaker
    recipes: tuple[Recipe, ...] = (Recipe(),)


@dataclass(frozen=True)
class Asked:
    """The prompts of an arm, one a row. `tried`: what the search for the recipe measured."""

    arm: Arm
    recipe: Recipe
    tried: list[dict[str, Any]]
    prompts: list[Prompt]


@dataclass(frozen=True)
class Trial:
    """What an arm answered. `seconds`: of requests asked alone; `batch_seconds`: of all at once."""

    asked: Asked
    answers: list[Answer]
    scores: list[Mapping[str, float | None]]
    seconds: list[float]
    batch_seconds: float

    @property
    def name(self) -> str:
        return self.asked.arm.name

    def values(self, metric: str) -> list[float]:
        """One a row. Raises UsageError where the metric has nothing to say of an answer."""
        found = [scores[metric] for scores in self.scores]
        known = [value for value in found if value is not None]
        if len(known) < len(found):
            raise UsageError(f"{metric} has no value for {len(found) - len(known)} answers of {self.name}")
        return known


def search(
    arm: Arm, prompts: Prompts, rows: Sequence[Row], score: Score, metric: str
) -> tuple[Recipe, list[dict[str, Any]]]:
    """The recipe with the highest mean over `rows`, which must not be the test's; the first one on a tie.

    Without rows, or without a choice, the first recipe, and nothing was tried.
    """
    if len(arm.recipes) == 1 or not rows:
        return arm.recipes[0], []
    tried: list[dict[str, Any]] = []
    means: list[float] = []
    for recipe in arm.recipes:
        made = [prompts.build(recipe, row, partial(fits, arm.speaker)) for row in rows]
        answers = arm.speaker.answer([one.messages for one in made])
        found = [score(row, answer.text)[metric] for row, answer in zip(rows, answers, strict=True)]
        measured = [value for value in found if value is not None]
        means.append(fmean(measured) if measured else 0.0)
        facts = {"recipe": recipe.text, "n": len(measured), "mean": means[-1]}
        tried.append(facts | {"dropped": sum(prompt.dropped for prompt in made)})
    return arm.recipes[means.index(max(means))], tried


def time_alone(asked: Sequence[Asked], places: Sequence[int]) -> list[list[float]]:
    """Seconds of each place's prompt, asked alone; the first place warms up and does not count, where there are more.

    Arm after arm at each place, so that a slow minute of the machine is everybody's.
    """
    found: list[list[float]] = [[] for _ in asked]
    for place in places:
        for one, times in zip(asked, found, strict=True):
            seconds = one.arm.speaker.seconds(one.prompts[place].messages)
            times += [] if seconds is None else [seconds]
    return [times[1:] or times for times in found]


def answer_all(asked: Asked, rows: Sequence[Row], seconds: list[float], score: Score) -> Trial:
    """Every row at once, and what each answer scores."""
    began = time.perf_counter()
    answers = asked.arm.speaker.answer([prompt.messages for prompt in asked.prompts])
    took = time.perf_counter() - began
    scores = [score(row, answer.text) for row, answer in zip(rows, answers, strict=True)]
    return Trial(asked, answers, scores, seconds, took)


def figures(trial: Trial, groups: Sequence[str]) -> dict[str, Any]:
    """An arm's row of the report. Tokens are sums over its n requests; None stands for what was not measured."""
    speaker, answers, prompts = trial.asked.arm.speaker, trial.answers, trial.asked.prompts
    together = trial.batch_seconds / len(answers) if speaker.in_process else None
    return {
        "name": trial.name,
        "n": len(answers),
        "metrics": {name: _mean(trial, name, groups) for name in trial.scores[0]},
        "latency_ms": {"p50": _rank(trial, 0.5), "p95": _rank(trial, 0.95), "n": len(trial.seconds)},
        "prompt_tokens": total([answer.prompt_tokens for answer in answers]),
        "output_tokens": total([answer.output_tokens for answer in answers]),
        "cost_per_1000": speaker.cost(answers, fmean(trial.seconds) if trial.seconds else None),
        "leaves_machine": speaker.leaves_machine,
        "requests_per_second": 1 / together if together else None,
        "cost_per_1000_in_batches": speaker.cost(answers, together) if together else None,
        "prompt": trial.asked.recipe.text,
        "tried": trial.asked.tried,
        "dropped": sum(prompt.dropped for prompt in prompts),
        "prompts_cut": sum(prompt.dropped > 0 for prompt in prompts),
        "unanswered": sum(answer.finish not in WHOLE for answer in answers),
    }


def _rank(trial: Trial, share: float) -> float | None:
    return 1000 * nearest_rank(trial.seconds, share) if trial.seconds else None


def _mean(trial: Trial, metric: str, groups: Sequence[str]) -> dict[str, Any]:
    """Of the rows that the metric has a value for."""
    pairs = [(s[metric], group) for s, group in zip(trial.scores, groups, strict=True)]
    measured = [(value, group) for value, group in pairs if value is not None]
    mean = mean_interval([value for value, _ in measured], [group for _, group in measured])
    return {"value": mean.mean, "low": mean.low, "high": mean.high, "n": mean.n}
