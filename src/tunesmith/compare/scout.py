"""Scout: at which of the candidate tasks does a large model do about OK? Those are the ones worth tuning for.

A task that a large model cannot do at all is unclear or too hard for a small one; one that it has solved needs a prompt
and no tuning (the course's first step: prompt a large model, and pick a task at which it does about OK).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import Field

from tunesmith.compare.candidates import GRADES, Example
from tunesmith.core.records import Message
from tunesmith.engine.base import ChatEngine, ChatRequest, Reply, Sampling
from tunesmith.engine.endpoint import EndpointConfig
from tunesmith.metrics.overlap import exact_match, token_f1, words
from tunesmith.metrics.rating import cohen_kappa
from tunesmith.metrics.stats import mean_interval

LABEL_WORDS = 3  # references as short as this are right or wrong: no judgement is asked for
CONTAINED = 0.5  # of an output's words, from which on it is taken out of the input
GRADE = """Here is a task and an answer to it.

Task:
{prompt}

{reference}Answer:
{answer}

Grade the answer with one word: {grades}.
bad: wrong, off the point or of no use. good: does what is asked. better: hard to improve.
Reply with that word alone."""
ADVICE = {
    "reading": "400M parameters: text in, less text out, is the easier kind",
    "writing": "1B parameters: text in, more text out, is the harder kind",
}
SOURCE = (
    "rules of thumb of the DeepLearning.AI course Finetuning Large Language Models: start with 400M to 1B parameters, "
    "about 1,000 examples; expansion is harder than extraction, several tasks at once harder than one"
)
ROWS = 1000  # examples to have: the same source


class ScoutConfig(EndpointConfig):
    """Who tries the candidate tasks, and between which scores a task is about OK."""

    band: tuple[float, float] = (0.3, 0.9)
    """below the first a task is too hard even for a large model, above the second a prompt is enough"""
    max_new_tokens: int = Field(default=256, ge=1)
    """where an answer is cut"""
    seed: int = 0
    """of the endpoint's sampling, where it has one"""


class Judged(NamedTuple):
    """The two grades of an answer; "" where a judgement could not be read."""

    first: str
    second: str

    @property
    def read(self) -> bool:
        return bool(self.first and self.second)


def scout(config: ScoutConfig, tasks: Mapping[str, Sequence[Example]], chat: ChatEngine) -> dict[str, Any]:
    """What `scout --json` prints: every task with its score, band, clarity, kind and advice, and the one to try."""
    sampling = Sampling(max_new_tokens=config.max_new_tokens, seed=config.seed)
    found = [_task(name, list(rows), chat, sampling, config.band) for name, rows in tasks.items()]
    return {"model": chat.name, "tasks": found, "pick": _pick(found), "advice_from": SOURCE}


def _task(
    name: str, rows: list[Example], chat: ChatEngine, sampling: Sampling, band: tuple[float, float]
) -> dict[str, Any]:
    replies = chat.chat([ChatRequest((Message("user", row.prompt),), sampling) for row in rows])
    answers = [reply.text for reply in replies]
    judged = _judge(rows, answers, chat)
    by, values = _scores(rows, answers, judged)
    score = _mean(values)
    kind = _kind(rows, answers)
    return {
        "task": name,
        "n": len(rows),
        "score": score["value"],
        "low": score["low"],
        "high": score["high"],
        "scored_by": by,
        "scored": len(values),
        "f1": _f1(rows, answers),
        **_placed(score, band),
        "clarity": _clarity(rows, judged),
        "unparseable": sum(not pair.read for pair in judged),
        **kind,
        "advice": f"{ADVICE[kind['kind']]}; about {ROWS:,} examples, of which there are {len(rows)}",
    }


def _judge(rows: Sequence[Example], answers: Sequence[str], chat: ChatEngine) -> list[Judged]:
    """Each answer graded twice, with the grades named in one order and in the other."""
    orders = (GRADES, GRADES[::-1])
    requests = [_request(row, answer, order) for row, answer in zip(rows, answers, strict=True) for order in orders]
    grades = [read_grade(reply) for reply in chat.chat(requests)]
    return [Judged(first, second) for first, second in zip(grades[::2], grades[1::2], strict=True)]


def _request(row: Example, answer: str, order: Sequence[str]) -> ChatRequest:
    reference = f"An answer that is right:\n{row.references[0]}\n\n" if row.references else ""
    text = GRADE.format(prompt=row.prompt, reference=reference, answer=answer, grades=", ".join(order))
    return ChatRequest((Message("user", text),), Sampling(max_new_tokens=8))


def read_grade(reply: Reply) -> str:
    """The one grade that a reply names; "" where it names none or several."""
    found = set(re.findall(rf"\b({'|'.join(GRADES)})\b", reply.text.lower()))
    return found.pop() if len(found) == 1 else ""


def _scores(rows: Sequence[Example], answers: Sequence[str], judged: Sequence[Judged]) -> tuple[str, list[float]]:
    """(what scored, 1 for each answer that is OK and 0 for one that is not). What could not be read is left out."""
    if all(row.references and max(len(words(text)) for text in row.references) <= LABEL_WORDS for row in rows):
        pairs = zip(rows, answers, strict=True)
        return "exact_match", [_best(exact_match, answer, row.references) for row, answer in pairs]
    return "two judgements", [float("bad" not in pair) for pair in judged if pair.read]


def _f1(rows: Sequence[Example], answers: Sequence[str]) -> float | None:
    """Words shared with the nearest reference; None without references."""
    pairs = [(row, answer) for row, answer in zip(rows, answers, strict=True) if row.references]
    return fmean(_best(token_f1, answer, row.references) for row, answer in pairs) if pairs else None


def _best(metric: Callable[[str, str], float], answer: str, references: Sequence[str]) -> float:
    return max(metric(answer, reference) for reference in references)


def _mean(values: Sequence[float]) -> dict[str, Any]:
    found = mean_interval(values, [str(place) for place in range(len(values))])
    return {"value": found.mean, "low": found.low, "high": found.high, "n": found.n}


def _placed(score: Mapping[str, Any], band: tuple[float, float]) -> dict[str, Any]:
    """The band that the score lies in; `certain` only where its whole interval does."""
    names = ("too hard", "about OK", "solved by a prompt")
    if score["value"] is None:
        return {"band": "NOT RUN", "certain": False}
    low, value, high = (
        None if score[key] is None else sum(score[key] >= edge for edge in band) for key in ("low", "value", "high")
    )
    return {"band": names[value or 0], "certain": low == value == high}


def _clarity(rows: Sequence[Example], judged: Sequence[Judged]) -> dict[str, Any]:
    """How far those agree who should know: graders of the rows, else references of a row, else the two judgements."""
    graded = [row.grades[:2] for row in rows if len(row.grades) > 1]
    several = [row.references for row in rows if len(row.references) > 1]
    if graded or not several:
        by = "two graders" if graded else "two judgements"
        pairs = graded or [(pair.first, pair.second) for pair in judged if pair.read]
        kappa = cohen_kappa([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None
        return {"by": by, **_mean([float(a == b) for a, b in pairs]), "kappa": kappa}
    shared = [fmean(token_f1(a, b) for a, b in combinations(texts, 2)) for texts in several]
    return {"by": "words shared by references", **_mean(shared), "kappa": None}


def _kind(rows: Sequence[Example], answers: Sequence[str]) -> dict[str, Any]:
    """Reading (less text out than in) or writing (more), and how much of the output stands in the input.

    Of references, where there are any: what a model wrote says less of the task.
    """
    pairs = [(row.prompt, row.references[0] if row.references else got) for row, got in zip(rows, answers, strict=True)]
    counted = [(words(prompt), words(output)) for prompt, output in pairs]
    shorter = fmean(len(output) < len(prompt) for prompt, output in counted)
    inside = [fmean(word in set(prompt) for word in output) for prompt, output in counted if output]
    contained = fmean(inside) if inside else 0.0
    kind = "reading" if shorter >= 0.5 else "writing"
    return {"kind": kind, "shorter": shorter, "contained": contained, "extraction": contained >= CONTAINED}


def _pick(tasks: Sequence[Mapping[str, Any]]) -> str | None:
    """Of the tasks that look about OK the clearest: the first to try, and no claim that it is the best."""
    fair = [task for task in tasks if task["band"] == "about OK"]
    return max(fair, key=lambda task: (task["certain"], task["clarity"]["value"] or 0.0))["task"] if fair else None
