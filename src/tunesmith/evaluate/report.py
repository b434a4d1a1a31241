"""The figures of an evaluation: means, paired differences with intervals, errors before and after; and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tunesmith.evaluate.catalogue import headline, meaning
from tunesmith.evaluate.score import Item
from tunesmith.metrics.stats import as_family, mean_interval, paired, verdict
from tunesmith.metrics.style import DETECTORS, Detector

RANKING = ("fields", "f1", "rougeL", "rouge1", "rouge2", "exact_match")  # what examples are ranked by, where measured


def build(items: Sequence[Item], detectors: Sequence[Detector], facts: dict[str, Any], seed: int) -> dict[str, Any]:
    """The content of report.json. `facts` (set, run, split, ...) come first and are kept as they are."""
    origins = list(dict.fromkeys(item.row.meta.origin for item in items))
    parts = {origin: [i for i in items if i.row.meta.origin == origin] for origin in origins if len(origins) > 1}
    splits = {name: {"n": len(part), "metrics": _headlines(part, seed)} for name, part in parts.items()}
    return {
        "not_run": {},
        "corpus": {},
        "confusion": None,
        "latency_ms": None,
        **facts,
        "n": len(items),
        "clusters": len({item.group for item in items}),
        "arms": list(items[0].arms),
        "metrics": _as_family(_scores(items, seed)),
        "errors": _as_family({d.name: _error(items, d, seed) for d in detectors}),
        "origins": splits,
    }


def gain(item: Item) -> float:
    """How much better the tuned answer is than the base's, by the first ranking metric that the item has."""
    for name in RANKING:
        values = item.scores.get(name, {})
        base, tuned = values.get("base"), values.get("tuned")
        if base is not None and tuned is not None:
            return tuned - base
    return 0.0


def table(report: dict[str, Any]) -> str:
    """The scores as lines for a terminal: one a metric, each difference with its 95 % interval, verdict and n."""
    arms = report["arms"]
    head = ["metric", "base", "tuned", "difference [95 %]", "verdict", "n", *arms]
    scores = {name: cell for name, cell in report["metrics"].items() if headline(name)}
    lines = [[name, *_cells(c), *(number(c["arms"][a]["base"]) for a in arms)] for name, c in scores.items()]
    for arm in arms:
        against = {name: c["arms"][arm] for name, c in scores.items() if c["arms"][arm]["n"] or not c["n"]}
        lines += [[], [f"against {arm}", arm, *head[2:6]], *([name, *_cells(c)] for name, c in against.items())]
    if report["corpus"]:
        lines += [[], ["over all rows", *head[1:]]]
        for name, c in report["corpus"].items():
            lines.append([name, *_cells(c), *(number(c["arms"].get(arm)) for arm in arms)])
    lines += [[], ["errors", *head[1:6], "fixed", "introduced", "persisting"]]
    for name, c in report["errors"].items():
        lines.append([name, *_cells(c), str(c["fixed"]), str(c["introduced"]), str(c["persisting"])])
    lines += [[d.name, "NOT RUN"] for d in DETECTORS if d.name not in report["errors"]]
    return "\n".join([_aligned([head, *lines]), *_notes(report)])


def _notes(report: dict[str, Any]) -> list[str]:
    """Latency, the tuned model's confusions, and what was not run."""
    out = []
    for arm, took in (report["latency_ms"] or {}).items():
        out.append(f"latency of {arm}: " + ", ".join(f"{share} {ms:.0f} ms" for share, ms in took.items()))
    if report["confusion"]:
        labels = report["confusion"]["labels"]
        counts = [[label, *map(str, row)] for label, row in zip(labels, report["confusion"]["tuned"], strict=True)]
        out += ["", _aligned([["labels of tuned", *labels, "(none)"], *counts])]
    return [*out, *(f"{name}: NOT RUN, {why}" for name, why in report["not_run"].items())]


def number(value: float | None, sign: bool = False) -> str:
    """Three decimals, or a dash for what was not measured."""
    return "-" if value is None else f"{value:+.3f}" if sign else f"{value:.3f}"


def interval(cell: Mapping[str, Any], arm: str = "") -> str:
    """The interval of the difference, or of one arm's own mean ("base", "tuned")."""
    low, high = (cell[f"{arm}_{end}" if arm else end] for end in ("low", "high"))
    return "[no interval]" if low is None else f"[{number(low, not arm)}, {number(high, not arm)}]"


def _cells(cell: dict[str, Any]) -> list[str]:
    difference = f"{number(cell['difference'], True)} {interval(cell)}" if cell["n"] else "-"
    return [number(cell["base"]), number(cell["tuned"]), difference, cell["verdict"] or "-", str(cell["n"])]


def _aligned(lines: list[list[str]]) -> str:
    """Columns as wide as their widest cell, the first to the left and the others to the right."""
    width = [max(len(line[i]) for line in lines if len(line) > i) for i in range(max(map(len, lines)))]
    rows = [[cell.rjust(width[i]) if i else cell.ljust(width[0]) for i, cell in enumerate(line)] for line in lines]
    return "\n".join("  ".join(row).rstrip() for row in rows)


def _scores(items: Sequence[Item], seed: int) -> dict[str, Any]:
    out = {}
    for name in items[0].scores:
        cell = _compare(items, name, "base", seed) | _means(items, name)
        arms = items[0].arms if headline(name) else ()
        out[name] = cell | {"arms": {arm: _compare(items, name, arm, seed) for arm in arms}}
    return out


def _as_family(cells: dict[str, Any]) -> dict[str, Any]:
    """All that have a verdict and stand for themselves: metrics, and errors, whose names are no metrics."""
    as_family(cells, [name for name, cell in cells.items() if cell["verdict"] and (headline(name) or "fixed" in cell)])
    return cells


def _means(items: Sequence[Item], name: str) -> dict[str, float | None]:
    """The interval of each arm's own mean."""
    out: dict[str, float | None] = {}
    for arm in ("base", "tuned"):
        measured = [(value, item.group) for item in items if (value := item.scores[name][arm]) is not None]
        mean = mean_interval([value for value, _ in measured], [group for _, group in measured])
        out |= {f"{arm}_low": mean.low, f"{arm}_high": mean.high}
    return out


def _headlines(items: Sequence[Item], seed: int) -> dict[str, Any]:
    return {name: _compare(items, name, "base", seed) for name in items[0].scores if headline(name)}


def _compare(items: Sequence[Item], name: str, arm: str, seed: int) -> dict[str, Any]:
    """Tuned against one arm (its mean stands under "base"), over the items that the metric has a value for."""
    pairs = [(item.scores[name][arm], item.scores[name]["tuned"], item.group) for item in items]
    measured = [(before, after, group) for before, after, group in pairs if before is not None and after is not None]
    return _cell(measured, meaning(name).higher_is_better, seed)


def _error(items: Sequence[Item], detector: Detector, seed: int) -> dict[str, Any]:
    """Rates in 0..1 before and after, and how many items went which way."""
    found = [(detector.name in i.errors["base"], detector.name in i.errors["tuned"], i.group) for i in items]
    cell = _cell([(float(before), float(after), group) for before, after, group in found], False, seed)
    ways = [(before, after) for before, after, _ in found]
    counts = {"fixed": (True, False), "introduced": (False, True), "persisting": (True, True)}
    return cell | {word: ways.count(way) for word, way in counts.items()} | {"explanation": detector.explanation}


def _cell(measured: Sequence[tuple[float, float, str]], higher: bool | None, seed: int) -> dict[str, Any]:
    groups = [group for _, _, group in measured]
    result = paired([before for before, _, _ in measured], [after for _, after, _ in measured], groups, seed)
    return asdict(result) | {"verdict": None if higher is None else verdict(result, higher)}
