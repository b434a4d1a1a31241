"""Run a suite: what passed, of how many rows, for base and tuned, with intervals; and what to say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import write_json, write_jsonl
from tunesmith.core.records import Row
from tunesmith.engine.base import Engine, Sampling
from tunesmith.evaluate.assertions import PASSED, Answered, Check, Known, Unknown, checks
from tunesmith.evaluate.measure import one_by_one
from tunesmith.evaluate.suite import Placed
from tunesmith.metrics.stats import mean_interval, paired, verdict
from tunesmith.text.render import Renderer

SHOWN = 3  # failures of an assertion on the terminal
KEPT = 20  # and in report.json; all are in results.jsonl


class Question(NamedTuple):
    id: str
    row: Row


@dataclass(frozen=True)
class Asked:
    """A test, and the questions it is about."""

    test: Placed
    questions: Sequence[Question]


Answers = Mapping[str, Mapping[str, Answered]]  # arm -> id of a question -> its answer, where there is one


@dataclass(frozen=True)
class _Judged:
    """One assertion on one row: arm -> PASSED or why not; an arm is missing where it could not be checked."""

    test: str
    assertion: str
    question: Question
    outputs: Mapping[str, str]
    said: Mapping[str, str]
    unknown: str

    def to_json(self) -> dict[str, Any]:
        names = {"test": self.test, "assertion": self.assertion, "id": self.question.id}
        of = {arm: {"passed": why == PASSED, "why": why} for arm, why in self.said.items()}
        prompt = self.question.row.question
        return {**names, "prompt": prompt, "outputs": dict(self.outputs), **of, "unchecked": self.unknown}

    def failure(self) -> dict[str, str]:
        texts = {"prompt": self.question.row.question, "output": self.outputs["tuned"]}
        return {"id": self.question.id, **texts, "why": self.said["tuned"]}


def answer(engine: Engine, renderer: Renderer, asked: Sequence[Asked], sampling: Sampling) -> dict[str, Answered]:
    """What a model answers to every question of a suite, each asked once; alone where a test asks how long it took.

    A question that leaves no room for an answer in the context has none.
    """
    alone = {q.id for one in asked for q in one.questions if one.test.case.latency_ms is not None}
    every = {q.id: q.row for one in asked for q in one.questions}
    prompts = {key: renderer.prompt(row.prompt) for key, row in every.items()}
    fit = [key for key, prompt in prompts.items() if len(prompt) < engine.context]
    together, timed = [key for key in fit if key not in alone], [key for key in fit if key in alone]
    slow = one_by_one(engine, [prompts[key] for key in timed], sampling)
    given = dict(zip(together, engine.generate([prompts[key] for key in together], sampling), strict=True))
    given |= dict(zip(timed, slow.given, strict=True))
    took = dict(zip(timed, slow.milliseconds, strict=True))
    return {
        key: Answered(every[key], one.text, one.finish, every[key].reference or None, took.get(key))
        for key, one in given.items()
    }


def judge(asked: Sequence[Asked], answers: Answers, known: Known, seed: int = 0) -> tuple[dict[str, Any], list[Any]]:
    """(the report, a line for each assertion on each row). Raises UsageError on what a test names and is not there."""
    ready = [(one, checks(one.test, known)) for one in asked]
    results, lines = [], []
    for one, of_test in ready:
        for name, check in of_test.items():
            judged = [_judged(one, name, check, question, answers) for question in one.questions]
            results.append(_result(one.test, name, judged, seed))
            lines += [line.to_json() for line in judged]
    failed = sum(not result["ok"] for result in results)
    return {"passed": not failed, "assertions": len(results), "failed": failed, "tests": results}, lines


def save(report: dict[str, Any], lines: Sequence[Any], suite: Path, out: Path, facts: dict[str, Any]) -> Artifact:
    """Write evals/<name>: the suite as it was, the report, and a line for each assertion on each row."""
    with writing(out) as work:
        (work / suite.name).write_bytes(suite.read_bytes())
        write_json(work / "report.json", report)
        write_jsonl(work / "results.jsonl", lines)
        counts = {key: report[key] for key in ("passed", "assertions", "failed")}
        return seal(work, out, "test", {**facts, **counts})


def table(report: dict[str, Any]) -> str:
    """A line an assertion, the failures of the tuned model below it."""
    lines = []
    for result in report["tests"]:
        lines.append(f"{'PASS' if result['ok'] else 'FAIL'}  {result['test']}: {result['assertion']}  {_share(result)}")
        for one in result["failures"][:SHOWN]:
            lines.append(f"        {one['why']}: {one['prompt'][:50]!r} -> {one['output'][:60]!r}")
        more = result["n"] - result["passed"] - SHOWN
        lines += [f"        and {more} more"] if more > 0 else []
        if result["why_unchecked"]:
            lines.append(f"        NOT RUN on {result['unchecked'] or 'any'} row(s): {result['why_unchecked']}")
    return "\n".join(lines)


def _share(result: dict[str, Any]) -> str:
    """12 of 14 rows, 0.857 [0.62, 0.98], at least 0.95; base 3 of 14: better"""
    said = f"{result['passed']} of {result['n']} rows"
    if result["low"] is not None:
        said += f", {result['rate']:.3f} [{result['low']:.3f}, {result['high']:.3f}]"
    said += f", at least {result['required']:g}" if result["required"] < 1 else ""
    base = result["base"]
    return f"{said}; base {base['passed']} of {base['n']}: {result['verdict']}" if base else said


def _judged(one: Asked, name: str, check: Check, question: Question, answers: Answers) -> _Judged:
    said, unknown = {}, ""
    for arm, got in answers.items():
        try:
            said[arm] = check(_answered(one, question, got))
        except Unknown as why:
            unknown = str(why)
    outputs = {arm: got[question.id].text for arm, got in answers.items() if question.id in got}
    return _Judged(one.test.title, name, question, outputs, said, unknown)


def _answered(one: Asked, question: Question, got: Mapping[str, Answered]) -> Answered:
    first = one.questions[0].id
    if question.id not in got or first not in got:
        raise Unknown("there is no answer: the question does not fit into the context, or has no prediction")
    given = got[question.id]
    return replace(given, first=got[first].text, reference=question.row.reference or given.reference)


def _result(test: Placed, name: str, judged: Sequence[_Judged], seed: int) -> dict[str, Any]:
    known = [line for line in judged if "tuned" in line.said]
    values = [float(line.said["tuned"] == PASSED) for line in known]
    rate = mean_interval(values, [_group(line) for line in known])
    unchecked = [line for line in judged if "tuned" not in line.said]
    enough = rate.mean is not None and rate.mean >= test.case.pass_rate - 1e-9
    failures = [line for line in known if line.said["tuned"] != PASSED]
    return {
        "test": test.title,
        "assertion": name,
        "where": test.where,
        "n": rate.n,
        "passed": int(sum(values)),
        "rate": rate.mean,
        "low": rate.low,
        "high": rate.high,
        "required": test.case.pass_rate,
        "ok": enough and not unchecked,
        "unchecked": len(unchecked),
        "why_unchecked": unchecked[0].unknown if unchecked else "" if judged else "no row to ask",
        **_against(judged, seed),
        "failures": [line.failure() for line in failures[:KEPT]],
    }


def _against(judged: Sequence[_Judged], seed: int) -> dict[str, Any]:
    """The paired comparison with the base, over the rows that were checked for both."""
    both = [line for line in judged if {"tuned", "base"} <= line.said.keys()]
    if not both:
        return {"base": None, "difference": None, "verdict": None}
    base, tuned = ([float(line.said[arm] == PASSED) for line in both] for arm in ("base", "tuned"))
    found = paired(base, tuned, [_group(line) for line in both], seed)
    passed = {"n": len(both), "passed": int(sum(base)), "rate": found.base}
    return {"base": passed, "difference": found.difference, "verdict": verdict(found)}


def _group(line: _Judged) -> str:
    return line.question.row.meta.group or line.question.id
