"""The whole loop in one command, on data that every Python install carries: from zero to a tuned, measured model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith import loop
from tunesmith.collect.lessons import collect_lessons
from tunesmith.compare.arms import choose
from tunesmith.core.artifact import Artifact
from tunesmith.core.jsonl import read_json, read_jsonl, read_rows
from tunesmith.core.project import TOML
from tunesmith.core.records import Row
from tunesmith.core.runlog import say
from tunesmith.embedded import embedded_run
from tunesmith.engine.base import Engine
from tunesmith.evaluate.report import interval, number
from tunesmith.evaluate.stage import summary
from tunesmith.metrics.labels import fields
from tunesmith.prepare.stage import receipt
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train.config import TrainConfig, decide

_TUNING_SECONDS = 50.0  # what tuning may take where the machine is slow; the demo is to end within minutes
# On two million parameters Muon learns more a step than AdamW: bench/demo_choices.py.
SETTINGS = {"train": {"optimizer": "muon", "batch_size": 16, "num_epochs": 5, "weight_decay": 0.1}}
_ARMS = {
    "majority": "majority answer",
    "bm25": "nearest training row (BM25)",
    "base": "base, as it writes",
    "base_options": "base, likeliest option",
}


def demo(folder: Path) -> dict[str, Any]:
    """Run every stage in the project `folder`, made where it is missing. Returns what `demo --json` prints."""
    began = time.monotonic()
    project = loop.open_project(folder) if (folder / TOML).is_file() else loop.new(folder, settings=SETTINGS)
    say("1/5 data: questions and answers made from the standard library's own documentation")
    collect_lessons(project.place("raw"))
    set_ = loop.prepare(project)
    _say_receipt(receipt(set_))
    say("2/5 base: a language model from zero")
    base = embedded_run()
    _say_base(base)
    say("3/5 train: the base on the questions and answers")
    run = loop.train(project, max_steps=_affordable_steps(project.config("train", TrainConfig), set_, base))
    say("4/5 evaluate: base and tuned on rows that neither has seen")
    done = loop.evaluate(project, run_name=run.name, more_arms={"base_options": _options_arm(run, set_)})
    report = read_json(done.path / "report.json")
    kinds = _kinds(done)
    _say_scores(report, kinds)
    say("5/5 diagnose: answers side by side, errors before and after")
    _say_answers(done)
    _say_errors(report)
    seconds = round(time.monotonic() - began, 1)
    say(f"report: {done.path / 'report.html'}")
    say(f"{seconds:.0f} s in all. On your own data: tunesmith new my-faq --data FILE")
    facts = {"project": str(folder), "set": set_.name, "run": run.name, "seconds": seconds, "kinds": kinds}
    return {**facts, "reading": report["metrics"]["fields"], **summary(done)}


def _say_receipt(facts: dict[str, Any]) -> None:
    rejected = ", ".join(f"{n} {reason}" for reason, n in facts["rejected"].items()) or "none"
    say(
        f"  {facts['rows_in']} rows in = {facts['kept']} kept + {sum(facts['rejected'].values())} rejected ({rejected})"
    )
    splits = ", ".join(f"{facts[part]} {part}" for part in ("train", "valid", "test"))
    say(f"  {splits}; whole classes and functions are held out")


def _say_base(base: Artifact) -> None:
    facts = base.facts
    say(
        f"  {facts['total_parameters']:,} parameters, {facts['steps']} of {facts['steps_asked']} steps, "
        f"{facts['tokens']:,} tokens of text: val loss {facts['val_loss']:.2f}, {facts['val_bpb']:.2f} bits a byte"
    )
    samples = list(read_jsonl(base.path / "samples.jsonl"))
    for word, step in (("before", 0), ("after", facts["steps"])):
        for sample in [s for s in samples if s["step"] == step][:2]:
            say(f"  {word:<6} {_short(repr(sample['prompt'] + sample['sample']))}")


def _affordable_steps(config: TrainConfig, set_: Artifact, base: Artifact) -> int:
    """The usual number of steps, or what the base's measured speed allows; says so when it is fewer."""
    renderer = Renderer(Tokenizer.load(base.path / "model"))
    lengths = [len(e.ids) for row in read_rows(set_.path / "train.jsonl") for e in renderer.render(row)]
    config = decide(config, len(lengths), base.facts["total_parameters"], sum(lengths))
    wanted = config.max_steps or 1
    tokens_a_step = config.rows_a_step * sum(lengths) / len(lengths)
    affordable = max(1, int(_TUNING_SECONDS * base.facts["measured_tokens_per_second"] / tokens_a_step))
    if affordable < wanted:
        say(f"  capped at {affordable} of {wanted} steps by this machine's measured speed")
    return min(wanted, affordable)


def _options_arm(run: Artifact, set_: Artifact) -> list[str]:
    """The base given every chance: of all values seen in training it takes the likeliest, field by field.

    It cannot follow the format, so its own text scores near nothing; this asks what it knows.
    """
    engine, renderer = loop.load_engine(Path(run.facts["base_path"]))
    training = list(read_rows(set_.path / "train.jsonl"))
    rows = list(read_rows(set_.path / "test.jsonl"))
    values = _values(training)
    free = [answer for answer, _ in Counter(r.answer for r in training if not fields(r.answer)).most_common(8)]
    read = [row for row in rows if fields(row.answer)]
    other = [row for row in rows if not fields(row.answer)]
    answers = dict(zip((r.id for r in read), _by_field(engine, renderer, read, values), strict=True))
    picked = _choose(engine, renderer, other, [""] * len(other), free) if free else [""] * len(other)
    answers |= dict(zip((r.id for r in other), picked, strict=True))
    return [answers[row.id] for row in rows]


def _values(training: Sequence[Row]) -> dict[str, list[str]]:
    """Every value that each field has in the training answers."""
    found: dict[str, set[str]] = {}
    for row in training:
        for key, value in fields(row.answer).items():
            found.setdefault(key, set()).add(value)
    return {key: sorted(options) for key, options in found.items()}


def _by_field(engine: Engine, renderer: Renderer, rows: Sequence[Row], values: dict[str, list[str]]) -> list[str]:
    written = [""] * len(rows)
    for key, options in values.items():
        lines = [f"{key}: {option}\n" for option in options]
        written = [a + b for a, b in zip(written, _choose(engine, renderer, rows, written, lines), strict=True)]
    return [text.strip() for text in written]


def _choose(
    engine: Engine, renderer: Renderer, rows: Sequence[Row], written: Sequence[str], options: Sequence[str]
) -> list[str]:
    """The likeliest option after each row's prompt and what is written so far."""
    encode = renderer.tokenizer.encode
    prompts = [renderer.prompt(r.prompt) + encode(w, start=False) for r, w in zip(rows, written, strict=True)]
    coded = [encode(option, start=False) for option in options]
    return [options[i] for i in choose(engine, prompts, [coded] * len(rows))]


def _kinds(done: Artifact) -> dict[str, dict[str, Any]]:
    """Exact answers by kind of row: base and tuned, with n."""
    kinds = {"stdlib/cards": "writing", "stdlib/off-topic": "guard"}
    scores = {s["id"]: s["metrics"]["exact_match"] for s in read_jsonl(done.path / "scores.jsonl")}
    found: dict[str, list[dict[str, float]]] = {}
    for row in read_jsonl(done.path / "predictions.jsonl"):
        found.setdefault(kinds.get(row["source"], "reading"), []).append(scores[row["id"]])
    return {
        kind: {"n": len(v), **{arm: sum(s[arm] for s in v) / len(v) for arm in ("base", "tuned")}}
        for kind, v in sorted(found.items())
    }


def _say_scores(report: dict[str, Any], kinds: dict[str, dict[str, Any]]) -> None:
    cell = report["metrics"]["fields"]
    say(f"  reading, n = {cell['n']} held-out rows of {cell['clusters']} groups: share of the fields that is right")
    say(f"    {'tuned':<28} {number(cell['tuned'])}  {interval(cell, 'tuned')}")
    for arm, label in _ARMS.items():
        against = cell if arm == "base" else cell["arms"][arm]
        gap = f"tuned is {against['verdict']}: {number(against['difference'], True)} {interval(against)}"
        say(f"    {label:<28} {number(against['base'])}  {gap}")
    for kind in ("writing", "guard"):
        if kind in kinds:
            k = kinds[kind]
            say(f"  {kind}, n = {k['n']}: exact answers {number(k['base'])} before, {number(k['tuned'])} after")


def _say_answers(done: Artifact) -> None:
    """One answer of each kind, the first of the file."""
    shown: set[str] = set()
    for row in read_jsonl(done.path / "predictions.jsonl"):
        kind = row["source"] if row["source"] in ("stdlib/cards", "stdlib/off-topic") else "reading"
        if kind in shown:
            continue
        shown.add(kind)
        say(f"  Q      {_short(row['prompt'])}")
        for label, key in (("base", "base"), ("tuned", "tuned"), ("truth", "reference")):
            say(f"  {label:<6} {_short(row[key])}")


def _say_errors(report: dict[str, Any]) -> None:
    for name, cell in report["errors"].items():
        say(f"  {name:<12} {cell['base']:.0%} of answers before, {cell['tuned']:.0%} after (n = {cell['n']})")


def _short(text: str, limit: int = 100) -> str:
    line = " / ".join(" ".join(part.split()) for part in text.split("\n") if part.strip())
    return line if len(line) <= limit else line[: limit - 3] + "..."
