"""Benchmarks by log-likelihood: questions with their shots to one model, or to two of which the second was tuned.

The text before a task's questions is the same for all of them unless each is to draw its own shots, so an engine that
keeps prefixes computes it once; the choices of a question share the question.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from tunesmith.core.artifact import Artifact, file_hash, seal, writing
from tunesmith.core.config import Config
from tunesmith.core.errors import ModelError, UsageError, did_you_mean
from tunesmith.core.jsonl import write_json, write_jsonl
from tunesmith.core.runlog import Progress
from tunesmith.engine.base import Engine
from tunesmith.evaluate import questions as reading
from tunesmith.evaluate.tasks import GROUPS, LEADERBOARD, METRICS, TASKS, Question, Task
from tunesmith.metrics.stats import Paired, holm, mean_interval, paired, verdict
from tunesmith.text.tokenizer import Tokenizer

TOGETHER = 256  # questions that are encoded and scored at a time: a shared prefix is computed once for so many
Z = 1.96  # standard errors on either side of a mean of means
Ids = list[int]


class BenchmarkConfig(Config):
    """Which benchmarks, and how their questions are put."""

    tasks: tuple[str, ...] = ()
    """names such as "arc_challenge", or groups: "leaderboard", "arc", "truthfulqa"; [] for what of the leaderboard's
    four there are files for"""
    data: str | None = None
    """the folder that the files lie in, at any depth; "hub" to fetch them; unset for data/benchmarks of the project"""
    shots: Annotated[int, Field(ge=0)] | None = None
    """solved questions that are shown before each; unset for the leaderboard's numbers"""
    fewshot: Literal["fixed", "per-item"] = "fixed"
    """fixed: the same shots before every question, computed once; per-item: drawn anew for each, as lm-eval does"""
    limit: Annotated[int, Field(ge=1)] | None = None
    """only so many questions of each task, or of each subject of it: the first ones; unset for all"""
    seed: int = 1234
    """the seed that shots are drawn with; 1234 is lm-eval's"""


class Arm(NamedTuple):
    """A model that is asked: its engine, and the tokenizer that its prompts are made with."""

    engine: Engine
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Sheet:
    """A task that is ready to be put: each question with the text before it, which all share where it is fixed."""

    task: Task
    questions: list[Question]
    before: list[str]
    shots: int
    recipe: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Answers:
    """What a model made of a sheet: the log-likelihood (nats) of each choice; how many prompts were cut to fit."""

    lls: list[list[float]]
    cut: int


def chosen(config: BenchmarkConfig, has_files: Callable[[Task], bool]) -> list[Task]:
    """The tasks that are named, or those of the leaderboard that have files.

    Raises UsageError on a name that is none, on a named task without files, and where there is no task at all.
    """
    names = [one for name in config.tasks for one in GROUPS.get(name, (name,))]
    if unknown := [name for name in names if name not in TASKS]:
        raise UsageError(f"unknown task '{unknown[0]}'", fix=did_you_mean(unknown[0], [*TASKS, *GROUPS]))
    tasks = [TASKS[name] for name in dict.fromkeys(names or LEADERBOARD)]
    missing = [task for task in tasks if not has_files(task)]
    if missing and (names or len(missing) == len(tasks)):
        wanted = "; ".join(f"{task.name}: {task.files}" for task in missing)
        raise UsageError(
            f"no files of {missing[0].name}", expected=wanted, fix="--data DIR, or --data hub to fetch them"
        )
    return [task for task in tasks if task not in missing]


def sheet(task: Task, config: BenchmarkConfig, find: Callable[[Task, str], list[Path]]) -> Sheet:
    """Read a task's files and put the shots before each question. `find(task, "test" or "train")` gives the files.

    Where there is no file to take shots from, they are taken from the questions, which are then not asked.
    """
    files = find(task, "test")
    asked = reading.read(task, files)
    shots = task.shots if config.shots is None or not task.train else config.shots
    source = find(task, "train") if shots else []
    if source:
        pool = reading.read(task, source)
    elif shots and config.fewshot == "per-item" and not task.first:
        raise UsageError(f"{task.name}: no file to draw shots from", expected=task.files, fix="--fewshot fixed")
    else:
        asked, pool = _apart(task, asked, shots, config.seed)
    asked = [q for part in _by_subject(asked).values() for q in part[: config.limit]]
    how = "" if not shots else " first" if task.first else f" {config.fewshot} seed {config.seed}"
    recipe = f"lm-eval-0.4.13 {shots}-shot{how}{'' if source or not shots else ' from the test file'}"
    recipe += f" limit {config.limit}" if config.limit else ""
    before = list(_before(task, asked, _by_subject(pool), shots, config))
    return Sheet(task, asked, before, shots, recipe, (*files, *source))


def _by_subject(questions: Sequence[Question]) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for question in questions:
        found.setdefault(question.subject, []).append(question)
    return found


def _apart(task: Task, asked: Sequence[Question], shots: int, seed: int) -> tuple[list[Question], list[Question]]:
    """(the questions that remain, those taken out as shots), of each subject the same number."""
    rest: list[Question] = []
    taken: list[Question] = []
    for part in _by_subject(asked).values():
        if len(part) <= shots:
            raise UsageError(
                f"{task.name}: {len(part)} questions, and {shots} of them are to be shots", fix="--shots 0"
            )
        places = range(shots) if task.first else Random(seed).sample(range(len(part)), shots)
        taken += [part[place] for place in places]
        rest += [question for place, question in enumerate(part) if place not in places]
    return rest, taken


def _before(
    task: Task, asked: Sequence[Question], pools: Mapping[str, list[Question]], shots: int, config: BenchmarkConfig
) -> Iterator[str]:
    """The opening and the shots of each question, drawn as lm-eval draws them; where they are fixed, its first draw."""
    random, fixed = Random(config.seed), task.first or config.fewshot == "fixed"
    blocks: dict[str, str] = {}
    for question in asked:
        if not fixed or question.subject not in blocks:
            shown = _shots(task, question, pools.get(question.subject, []), shots, random)
            opening = task.opening.format(subject=question.subject.replace("_", " "))
            blocks[question.subject] = opening + "".join(f"{one.prompt} {one.answer}\n\n" for one in shown)
        yield blocks[question.subject]


def _shots(task: Task, question: Question, pool: Sequence[Question], shots: int, random: Random) -> list[Question]:
    if len(pool) < shots + (task.spare if shots else 0) and len(pool) != shots:
        of = f" of {question.subject}" if question.subject else ""
        what = f"{task.name}: {len(pool)} questions{of} to take {shots} shots from"
        raise UsageError(what, fix=f"--shots {max(0, len(pool) - task.spare)}, or a longer file")
    if task.first or len(pool) == shots:
        return list(pool[:shots])
    drawn = random.sample(pool, shots + task.spare) if shots else []
    return [one for one in drawn if not task.spare or one != question][:shots]


def ask(sheet_: Sheet, arm: Arm, progress: Progress | None = None) -> Answers:
    """The log-likelihood of every choice of every question. What exceeds the model's context is cut off on the left,
    as lm-eval does, and counted."""
    lls: list[list[float]] = []
    cut = 0
    for start in range(0, len(sheet_.questions), TOGETHER):
        part = slice(start, start + TOGETHER)
        asked = sheet_.questions[part]
        requests = []
        for prompt, end in _encoded(asked, sheet_.before[part], arm.tokenizer):
            room = arm.engine.context + 1 - len(end)
            if not 0 < len(end) <= arm.engine.context:
                what = f"{sheet_.task.name}: a choice of {len(end)} tokens in a context of {arm.engine.context}"
                raise ModelError(what, expected="room for a choice and a token before it")
            cut += len(prompt) > room
            requests.append((prompt[-room:], end))
        scores = iter(arm.engine.score(requests))
        lls += [[next(scores).total for _ in question.choices] for question in asked]
        if progress:
            progress.advance(sheet_.task.name, len(asked))
    return Answers(lls, cut)


def _encoded(asked: Sequence[Question], before: Sequence[str], tokenizer: Tokenizer) -> Iterator[tuple[Ids, Ids]]:
    """(prompt, choice) ids. As lm-eval does it: the whole text is encoded, and its tail is the choice; spaces that
    end a prompt belong to the choice."""
    bos = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    texts = [head + question.prompt for head, question in zip(before, asked, strict=True)]
    prompts = [text.rstrip() for text in texts]
    wholes = [f"{text} {choice}" for text, question in zip(texts, asked, strict=True) for choice in question.choices]
    heads, rest = tokenizer.encode_many(prompts), iter(tokenizer.encode_many(wholes))
    for question, head in zip(asked, heads, strict=True):
        for _ in question.choices:
            yield bos + head, next(rest)[len(head) :]


def measure(
    sheets: Sequence[Sheet], arms: Mapping[str, Arm], seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what `--json` prints, a row an item) of all tasks. The last arm is the model that is measured; where there are
    two, the first is what it was tuned from, and the same questions are compared one by one."""
    total = sum(len(one.questions) for one in sheets) * len(arms)
    tasks, items, results = [], [], {}
    with Progress("questions", total) as progress:
        for one in sheets:
            answers = {name: ask(one, arm, progress) for name, arm in arms.items()}
            rows = list(_items(one, answers))
            tasks.append(_task(one, rows, answers))
            values = [[row["metrics"][one.task.metric][name] for row in rows] for name in arms]
            if len(arms) == 2:
                results[one.task.name] = paired(values[0], values[1], [""] * len(rows), seed)
            items += rows
    if results:
        _compare(tasks, results)
    return _report(tasks), items


def _items(one: Sheet, answers: Mapping[str, Answers]) -> Iterator[dict[str, Any]]:
    for place, question in enumerate(one.questions):
        lls = {name: answer.lls[place] for name, answer in answers.items()}
        metrics = {m: {name: METRICS[m](ll, question) for name, ll in lls.items()} for m in one.task.metrics}
        yield {"task": one.task.name, "item": place, "subject": question.subject, "metrics": metrics, "lls": lls}


def _task(one: Sheet, items: Sequence[dict[str, Any]], answers: Mapping[str, Answers]) -> dict[str, Any]:
    """The row of a task: the headline metric of the last arm, then all else."""
    names = list(answers)
    main = one.task.metric
    values = {m: {name: [item["metrics"][m][name] for item in items] for name in names} for m in one.task.metrics}
    facts: dict[str, Any] = {"task": one.task.name, "recipe": one.recipe, "shots": one.shots, "n": len(items)}
    facts |= {"metric": main, **_interval(values[main][names[-1]])}
    facts["metrics"] = {m: _interval(by_arm[names[-1]]) for m, by_arm in values.items()}
    facts["chance"] = fmean(sum(q.right) / len(q.right) for q in one.questions)
    facts["published"] = dict(one.task.published)
    facts["cut"] = {name: answer.cut for name, answer in answers.items()}
    facts["files"] = {path.name: file_hash(path) for path in one.files}
    if any(item["subject"] for item in items):
        facts |= _macro(items, values[main][names[-1]])
    return facts


def _compare(tasks: Sequence[dict[str, Any]], results: Mapping[str, Paired]) -> None:
    """Enter base, difference and verdict of each task; p values are adjusted for the number of tasks (Holm)."""
    adjusted = holm({name: result.p for name, result in results.items()})
    for task in tasks:
        result, p = results[task["task"]], adjusted[task["task"]]
        task |= {"base": result.base, "difference": result.difference, "difference_low": result.low}
        task |= {"difference_high": result.high, "p": p, "test": result.test, "verdict": verdict(result, p=p)}


def _interval(values: Sequence[float]) -> dict[str, Any]:
    mean = mean_interval(values, [""] * len(values))
    return {"value": mean.mean, "low": mean.low, "high": mean.high, "stderr": _stderr(values)}


def _stderr(values: Sequence[float]) -> float | None:
    """Of the mean, from the sample's standard deviation: what lm-eval prints."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _macro(items: Sequence[dict[str, Any]], values: Sequence[float]) -> dict[str, Any]:
    """The mean of the subjects' means beside the mean of all questions: reports differ in which of them they give."""
    parts: dict[str, list[float]] = {}
    for item, value in zip(items, values, strict=True):
        parts.setdefault(item["subject"], []).append(value)
    subjects = {name: {"n": len(part), "value": fmean(part)} for name, part in parts.items()}
    mean = fmean(fact["value"] for fact in subjects.values())
    return {"macro": _mean_of_means(mean, [_stderr(part) for part in parts.values()]), "subjects": subjects}


def _mean_of_means(mean: float, errors: Sequence[float | None]) -> dict[str, Any]:
    """A mean of independent means, with the interval that their standard errors give; none where one has none."""
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return {"value": mean, "low": None, "high": None}
    half = Z * math.sqrt(sum(error**2 for error in known)) / len(known)
    return {"value": mean, "low": mean - half, "high": mean + half}


def _report(tasks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`average`: the plain mean of the tasks' headline values, named in `average_of`."""
    names = tuple(task["task"] for task in tasks)
    whole = _mean_of_means(fmean(task["value"] for task in tasks), [task["stderr"] for task in tasks])
    standard = all(task["shots"] == TASKS[task["task"]].shots and "limit" not in task["recipe"] for task in tasks)
    return {
        "tasks": list(tasks),
        "average": whole["value"],
        "average_low": whole["low"],
        "average_high": whole["high"],
        "average_of": list(names),
        "leaderboard": set(names) == set(LEADERBOARD) and standard,
        "forgotten": [task["task"] for task in tasks if task.get("verdict") == "worse"],
    }


def run(
    config: BenchmarkConfig, sheets: Sequence[Sheet], arms: Mapping[str, Arm], out: Path, facts: dict[str, Any]
) -> Artifact:
    """Ask, and write benchmark.json (what was found) and items.jsonl (each question) as an artifact."""
    figures, items = measure(sheets, arms)
    with writing(out) as work:
        write_json(work / "benchmark.json", {**facts, **figures})
        write_jsonl(work / "items.jsonl", items)
        kept = {"n": len(items), "average": figures["average"], "forgotten": figures["forgotten"]}
        return seal(work, out, "benchmark", {"config": config.model_dump(mode="json"), **facts, **kept})
