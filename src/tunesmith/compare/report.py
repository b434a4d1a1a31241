"""What a comparison found, for people: a table, a Markdown page, and one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.compare.trial import Trial
from tunesmith.core import page as html
from tunesmith.core.records import Row
from tunesmith.metrics.differences import pieces

EXAMPLES = 8  # rows shown side by side: those whose arms differ most
TEMPLATE = Path(__file__).parent / "templates/compare.html.j2"
HEAD = ("arm", "n", "{metric} [95 %]", "p50 ms", "p95 ms", "tokens in", "tokens out", "cost of 1,000", "data leaves")


def predictions(trial: Trial, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for row, prompt, answer in zip(rows, trial.asked.prompts, trial.answers, strict=True):
        yield {
            "id": row.id,
            "prompt": row.question,
            "output": answer.text,
            "reference": row.reference,
            "finish": answer.finish,
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
            "dropped": prompt.dropped,
        }


def scores(trial: Trial, rows: Sequence[Row], metric: str) -> Iterator[dict[str, Any]]:
    for row, values in zip(rows, trial.scores, strict=True):
        yield {"id": row.id, "score": values[metric], "group": row.meta.group}


def table(report: Mapping[str, Any]) -> str:
    """An arm a line; tokens are means of a request. Reads as text and as Markdown."""
    metric = report["metric"]
    lines = [[cell.format(metric=metric) for cell in HEAD], *(_cells(arm, metric) for arm in report["arms"])]
    width = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    lines.insert(1, ["-" * size for size in width])
    return "\n".join("| " + " | ".join(map(str.ljust, line, width)) + " |" for line in lines)


def markdown(report: Mapping[str, Any]) -> str:
    reasons = "\n".join(f"- {reason}" for reason in report["reasons"])
    made = "\n".join(f"- {line}" for line in how(report))
    return f"# {report['name']}: {report['verdict']}\n\n{reasons}\n\n{table(report)}\n\n## How it was made\n\n{made}\n"


def how(report: Mapping[str, Any]) -> Iterator[str]:
    """What an engineer needs to check it."""
    yield f"{report['n']} rows of {report['clusters']} groups; left out: {_counts(report['skipped'])}"
    yield from (f"{kind} {one['name']}, {one['hash'][:12]}" for kind, one in report["parents"].items())
    for arm in report["arms"]:
        tried = ", ".join(f"{one['recipe']} {one['mean']:.3f}" for one in arm["tried"])
        chosen = f", chosen on {arm['tried'][0]['n']} valid rows ({tried})" if tried else ""
        batches = arm["requests_per_second"]
        speed = f"; {batches:.1f} requests/s in batches" if batches else ""
        yield f"{arm['name']}: {arm['prompt']}{chosen}; {arm['latency_ms']['n']} requests timed alone{speed}"
    tests = sorted({pair["test"] for pair in report["pairs"] if pair["test"]})
    if left_out := ", ".join(report["not_run"]):
        yield f"{left_out}: NOT RUN, for more than an answer and its row is needed; tunesmith evaluate scores it"
    yield f"intervals of 95 % by groups; pairs of arms by {' and '.join(tests) or 'no test'}, Holm over all pairs"


def page(report: Mapping[str, Any], trials: Sequence[Trial], rows: Sequence[Row]) -> str:
    """report.html."""
    metric = report["metric"]
    head = [cell.format(metric=metric) for cell in HEAD]
    cells = [_cells(arm, metric) for arm in report["arms"]]
    shown = [(rows[place], [(t.name, t.answers[place].text) for t in trials]) for place in _apart(trials, metric)]
    parts = {"report": report, "head": head, "cells": cells, "how": list(how(report)), "examples": shown}
    return html.render(TEMPLATE, parts | {"pieces": pieces})


def _apart(trials: Sequence[Trial], metric: str) -> list[int]:
    """The places of the rows whose arms differ most in their score."""
    by_row = zip(*(trial.values(metric) for trial in trials), strict=True)
    spread = sorted((min(values) - max(values), place) for place, values in enumerate(by_row))
    return [place for _, place in spread[:EXAMPLES]]


def _cells(arm: Mapping[str, Any], metric: str) -> list[str]:
    score, times, n = arm["metrics"][metric], arm["latency_ms"], arm["n"]
    between = "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
    tokens = [None if arm[key] is None else arm[key] / n for key in ("prompt_tokens", "output_tokens")]
    return [
        arm["name"],
        str(score["n"]),
        f"{score['value']:.3f}{between}",
        *(_number(times[key], ".0f") for key in ("p50", "p95")),
        *(_number(count, ".1f") for count in tokens),
        _number(arm["cost_per_1000"], ".4g"),
        "yes" if arm["leaves_machine"] else "no",
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _counts(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in skipped.items()) or "none"
