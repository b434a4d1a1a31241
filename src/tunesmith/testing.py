"""What `tunesmith test` needs: a suite, and answers to its questions, from a run's models or from a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_json, read_numbered, read_rows
from tunesmith.core.project import Project
from tunesmith.core.records import Message, Meta, Row
from tunesmith.core.runlog import say
from tunesmith.engine.base import Sampling
from tunesmith.evaluate import suite, suite_run
from tunesmith.evaluate.assertions import Answered, Known
from tunesmith.evaluate.scoring import guards_of
from tunesmith.evaluate.suite import Placed
from tunesmith.evaluate.suite_run import Asked, Question
from tunesmith.loop import engines, load_engine, new_place, stage_config
from tunesmith.metrics.overlap import normalise

SUITE = "tests.toml"
SPLITS = ("test", "valid")


def on_run(
    project: Project, file: Path | None = None, name: str | None = None, run_name: str | None = None, base: bool = True
) -> Artifact:
    """Ask the models of a run what the suite asks: evals/<name>. Without a suite, one to start from is made."""
    from tunesmith.evaluate.stage import EvaluateConfig, answer_tokens

    file = file or _starter(project.path / SUITE)
    tests = suite.read(file)
    run = project.open("run", run_name)
    set_ = project.open("set", run.facts.get("set"))
    config = stage_config(project, "evaluate", EvaluateConfig)
    out = new_place(project, "test", name)
    training = list(read_rows(set_.path / "train.jsonl"))
    asked = [Asked(test, _questions(test, project, set_.path, file.parent)) for test in tests]
    before, tuned, renderer = engines(run) if base else (None, *load_engine(run.path / "model"))
    sampling = Sampling(config.max_new_tokens or answer_tokens(training, renderer), seed=config.seed)
    models = {"tuned": tuned, **({"base": before} if before else {})}
    answers = {arm: suite_run.answer(engine, renderer, asked, sampling) for arm, engine in models.items()}
    known = Known(file.parent, guards_of(training))
    report, lines = suite_run.judge(asked, answers, known, config.seed)
    parents = {kind: {"name": a.name, "hash": a.hash} for kind, a in (("set", set_), ("run", run))}
    facts = {"name": out.name, "suite": file.name, "parents": parents, "max_new_tokens": sampling.max_new_tokens}
    return suite_run.save({**facts, **report}, lines, file, out, facts)


def on_predictions(file: Path, predictions: Path, against: Path | None = None) -> dict[str, Any]:
    """The report of a suite on answers from a file ({id, prompt, output}), anywhere; `against`: another model's."""
    tests = suite.read(file)
    rows, tuned = _predictions(predictions)
    answers = {"tuned": tuned, **({"base": _predictions(against)[1]} if against else {})}
    if against and (lost := [q.id for q in rows if q.id not in answers["base"]]):
        raise DataError(f"no answer to '{lost[0]}'", where=str(against), expected=f"the ids of {predictions}")
    asked = [Asked(test, _predicted(test, rows, file.parent)) for test in tests]
    report, _ = suite_run.judge(asked, answers, Known(file.parent, None))
    return {"suite": str(file), "predictions": str(predictions), **report}


def report(made: Artifact) -> dict[str, Any]:
    """What `test --json` prints of a run."""
    found = read_json(made.path / "report.json")
    return {"path": str(made.path), **found}


def _starter(path: Path) -> Path:
    if not path.is_file():
        path.write_text(suite.STARTER, encoding="utf-8", newline="\n")
        say(f"made {path}, to start from: add what your answers must say")
    return path


def _questions(test: Placed, project: Project, set_: Path, folder: Path) -> list[Question]:
    """What a test asks of a model."""
    if test.case.prompt:
        system = project.task.system
        head = [Message("system", system)] if system else []
        return [_question(prompt, test.case.reference, head) for prompt in test.case.prompt]
    if test.case.rows in (None, *SPLITS):
        rows = [row for row in read_rows(set_ / f"{test.case.rows or 'test'}.jsonl") if row.messages]
        return [Question(row.id, row) for row in rows]
    return list(_file_rows(folder / str(test.case.rows), test.where))


def _predicted(test: Placed, rows: Sequence[Question], folder: Path) -> list[Question]:
    """What a test asks of a file of predictions: those to its questions. One that is missing stands without answer."""
    if not test.case.prompt and test.case.rows in (None, *SPLITS):
        return list(rows)
    if test.case.prompt:
        wanted = [_question(prompt, test.case.reference) for prompt in test.case.prompt]
    else:
        wanted = list(_file_rows(folder / str(test.case.rows), test.where))
    ids = {normalise(one.row.question): one.id for one in rows}
    return [Question(ids.get(normalise(one.row.question), one.id), one.row) for one in wanted]


def _question(prompt: str, reference: str | None, head: Sequence[Message] = (), meta: Meta | None = None) -> Question:
    answer = [Message("assistant", reference)] if reference else []
    row = Row((*head, Message("user", prompt), *answer), meta=meta or Meta())
    return Question(row.id, row)


def _file_rows(path: Path, where: str) -> Iterator[Question]:
    """Rows of a file: {prompt, reference?}, or canonical ones."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", where=where, expected="test, valid, or a JSONL file of rows")
    for line, found in read_numbered(path):
        if "messages" in found:
            try:
                row = Row.from_json({"meta": {}, **found})
            except (KeyError, TypeError) as error:
                raise DataError(f"not a row: {error}", where=f"{path}:{line}") from error
            yield Question(row.id, row)
        else:
            prompt, reference = (_text(found, key, f"{path}:{line}") for key in ("prompt", "reference"))
            yield _question(prompt, reference or None, meta=Meta(path.name, line))


def _predictions(path: Path) -> tuple[list[Question], dict[str, Answered]]:
    """The questions of a file of predictions, and id -> answer. Raises DataError with file:line."""
    rows, answers = [], {}
    for line, found in read_numbered(path):
        where = f"{path}:{line}"
        if "id" not in found:
            raise DataError("a prediction without an id", where=where, expected='{"id", "prompt", "output"}')
        key, prompt, output = str(found["id"]), _text(found, "prompt", where), _text(found, "output", where, True)
        if key in answers:
            raise DataError(f"the id '{key}' stands twice", where=where)
        meta = Meta(path.name, line, group=_text(found, "group", where))
        question = _question(prompt, _text(found, "reference", where) or None, meta=meta)
        rows.append(Question(key, question.row))
        finish, took = found.get("finish"), found.get("latency_ms")
        answers[key] = Answered(question.row, output, finish, question.row.reference or None, took)
    if not rows:
        raise DataError("no predictions", where=str(path), expected='{"id", "prompt", "output"}, one a line')
    return rows, answers


def _text(found: dict[str, Any], key: str, where: str, needed: bool = False) -> str:
    value = found.get(key)
    if value is None and not needed:
        return ""
    if not isinstance(value, str):
        raise DataError(f"'{key}' is {'missing' if value is None else 'no text'}", where=where, expected=f"a {key}")
    return value
