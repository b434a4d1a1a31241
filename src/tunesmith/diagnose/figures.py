"""How often each error occurs, in one arm or in two on the same rows: rates with intervals, and what changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.diagnose.cases import Case
from tunesmith.diagnose.categories import CATEGORIES, Category, Known, find, judged
from tunesmith.metrics.stats import as_family, mean_interval, paired, verdict
from tunesmith.metrics.style import Answer

WHY = {
    "reference": "no row has a reference",
    "training": "no training rows are known",
    "english": "most words are not in the English dictionary",
}


@dataclass(frozen=True)
class Found:
    """One case with its errors: arm -> category -> evidence; `judged` are the categories that could be told."""

    case: Case
    errors: Mapping[str, Mapping[str, str]]
    judged: frozenset[str]


def diagnosed(cases: Sequence[Case], known: Known) -> list[Found]:
    """Every arm of every case through every detector."""
    return [_diagnosed(case, known) for case in cases]


def _diagnosed(case: Case, known: Known) -> Found:
    answers = {
        arm: Answer(text, finish, case.reference, case.prompt, known.vocabulary)
        for arm, (text, finish) in case.said.items()
    }
    some = next(iter(answers.values()))
    able = frozenset(category.name for category in CATEGORIES if judged(category, some, known))
    return Found(case, {arm: find(answer, known) for arm, answer in answers.items()}, able)


def categories(
    found: Sequence[Found], arm: str, before: str = "", mended: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Of each category that could be told: n, and count and rate (with low and high) in `arm`.

    With an arm `before`: its rate, the paired difference with its interval and p, the verdict, and how many rows were
    fixed, introduced, and persist. p is adjusted (Holm) over the categories that were `mended`, which were named before
    anything was measured, and over all others by themselves; a category without an error takes no part.
    """
    out: dict[str, dict[str, Any]] = {}
    for category in CATEGORIES:
        rows = [one for one in found if category.name in one.judged]
        if rows:
            changed = _change(rows, category, before, arm) if before else {}
            out[category.name] = _rate(rows, category, arm) | changed
    for family in (mended, out.keys() - set(mended)) if before else ():
        as_family(out, [name for name in family if name in out and (out[name]["rate"] or out[name]["before"])])
    return out


def not_run(found: Sequence[Found]) -> dict[str, str]:
    """The categories that could be told of no row, and why."""
    told = frozenset().union(*(one.judged for one in found))
    missing = [category for category in CATEGORIES if category.name not in told]
    return {category.name: " or ".join(WHY[need] for need in category.needs) for category in missing}


def _rate(rows: Sequence[Found], category: Category, arm: str) -> dict[str, Any]:
    values = _values(rows, category, arm)
    mean = mean_interval(values, [one.case.cluster for one in rows])
    rate = {"rate": mean.mean, "low": mean.low, "high": mean.high}
    return {"n": len(rows), "count": int(sum(values)), **rate}


def _change(rows: Sequence[Found], category: Category, before: str, arm: str) -> dict[str, Any]:
    old, new = _values(rows, category, before), _values(rows, category, arm)
    result = paired(old, new, [one.case.cluster for one in rows])
    ways = list(zip(old, new, strict=True))
    counts = {"fixed": (1.0, 0.0), "introduced": (0.0, 1.0), "persisting": (1.0, 1.0)}
    return {
        "before": result.base,
        "difference": result.difference,
        "difference_low": result.low,
        "difference_high": result.high,
        "p": result.p,
        "p_holm": result.p,
        "verdict": verdict(result, higher_is_better=False),
        **{word: ways.count(way) for word, way in counts.items()},
    }


def _values(rows: Sequence[Found], category: Category, arm: str) -> list[float]:
    return [float(category.name in one.errors[arm]) for one in rows]


def table(figures: Mapping[str, Mapping[str, Any]], skipped: Mapping[str, str], names: tuple[str, str]) -> str:
    """The figures as lines for a terminal, the most frequent first. `names`: of the arms, the first '' where alone."""
    before, after = names
    head = ["category", *([before] if before else []), after, "95 %"]
    head += ["change", "verdict", "fixed", "introduced", "persisting"] if before else []
    lines = [[*head, "n"]]
    order = sorted(figures, key=lambda name: -max(figures[name]["rate"] or 0, figures[name].get("before") or 0))
    for name in order:
        cell = figures[name]
        line = [name, *([percent(cell["before"])] if before else []), percent(cell["rate"]), span(cell)]
        if before:
            change = f"{percent(cell['difference'], True)} {span(cell, 'difference_', True)}"
            line += [change, cell["verdict"], *(str(cell[key]) for key in ("fixed", "introduced", "persisting"))]
        lines.append([*line, str(cell["n"])])
    told = [f"{name}: NOT RUN, {why}" for name, why in skipped.items()]
    return "\n".join([*_aligned(lines), *told])


def percent(value: float | None, sign: bool = False) -> str:
    return "-" if value is None else f"{100 * value:{'+' if sign else ''}.1f} %"


def span(cell: Mapping[str, Any], key: str = "", sign: bool = False) -> str:
    low, high = cell[f"{key}low"], cell[f"{key}high"]
    return "[no interval]" if low is None else f"[{percent(low, sign)[:-2]}, {percent(high, sign)[:-2]}]"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    width = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(cell.rjust(width[i]) if i else cell.ljust(width[0]) for i, cell in enumerate(line)) for line in lines
    ]
