"""`compare --scores`: two files of scores of the same items, from wherever they come; no project is needed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_numbered
from tunesmith.metrics.power import POWER, Pilot
from tunesmith.metrics.stats import Paired, paired, verdict

SHAPE = '{"id": "...", "score": 0.5, "group": "..."}, the group where rows belong together'


@dataclass(frozen=True)
class Score:
    """One row, with its place for errors."""

    value: float
    group: str
    where: str


def scores_door(a: Path, b: Path, seed: int = 0) -> tuple[dict[str, Any], str]:
    """(what `--json` prints, what people read): is B better than A on the items that both have? Higher is better.

    An item of one file alone is counted and told. Raises DataError, with file:line, on a row that is not one, an id
    that stands twice, a group that differs, and when the files share no id.
    """
    first, second = read_scores(a), read_scores(b)
    ids = [key for key in first if key in second]
    if not ids:
        raise DataError(f"{a} and {b} have no id in common", expected="scores of the same items, one a line: " + SHAPE)
    groups = [_group(first[key], second[key], key) for key in ids]
    before, after = ([file[key].value for key in ids] for file in (first, second))
    result, pilot = paired(before, after, groups, seed), Pilot.of(before, after, groups)
    facts = asdict(result)
    facts["a"], facts["b"] = facts.pop("base"), facts.pop("tuned")
    facts |= {
        "verdict": verdict(result),
        "fixed": sum(x < y for x, y in zip(before, after, strict=True)),
        "introduced": sum(x > y for x, y in zip(before, after, strict=True)),
        "only_in_a": len(first) - len(ids),
        "only_in_b": len(second) - len(ids),
        "detectable": pilot.detectable(),
        "rows_needed": pilot.rows_needed(result.difference or 0.0),
        "power": POWER,
    }
    return facts, told(facts, result)


def read_scores(path: Path) -> dict[str, Score]:
    """id -> score, in the order of the file. An id is text or a whole number; true and false count as 1 and 0."""
    found: dict[str, Score] = {}
    for number, row in read_numbered(path):
        where = f"{path}:{number}"
        key, value, group = row.get("id"), row.get("score"), row.get("group", "")
        if not isinstance(key, str | int) or isinstance(key, bool) or key == "":
            raise DataError("a row without an id", where=where, expected=SHAPE)
        if not isinstance(value, int | float) or not math.isfinite(value):
            what = f"the score of '{key}' is no number" if "score" in row else f"'{key}' has no score"
            raise DataError(what, where=where, expected=SHAPE)
        if str(key) in found:
            raise DataError(f"the id '{key}' stands in {found[str(key)].where} too", where=where, expected="an id once")
        found[str(key)] = Score(float(value), "" if group is None else str(group), where)
    if not found:
        raise DataError("no scores", where=str(path), expected=SHAPE)
    return found


def told(facts: dict[str, Any], result: Paired) -> str:
    """The same for people: verdict first, then what it rests on."""
    alone = facts["clusters"] == facts["n"]
    rows = f"{facts['n']:,} rows" + ("" if alone else f" in {facts['clusters']:,} groups")
    left = [f"{facts[f'only_in_{x}']:,} only in {x.upper()}" for x in "ab" if facts[f"only_in_{x}"]]
    bounds = "no interval" if result.low is None else f"95 % from {result.low:+.4g} to {result.high:+.4g}"
    test = f", p = {result.p:.3g} ({result.test})" if result.p is not None else ""
    lines = [
        f"B is {facts['verdict']} than A" if facts["verdict"] != "cannot tell" else "cannot tell A and B apart",
        f"  {rows} in both files" + (f"; left out: {', '.join(left)}" if left else ""),
        f"  A {facts['a']:.4g}, B {facts['b']:.4g}: B - A is {facts['difference']:+.4g}, {bounds}{test}",
        f"  {facts['fixed']:,} rows score higher in B, {facts['introduced']:,} lower",
    ]
    if facts["detectable"] is not None:
        lines.append(f"  as many rows find a true difference of {facts['detectable']:.3g} four times in five")
    if facts["verdict"] == "cannot tell" and facts["rows_needed"]:
        needed, seen = facts["rows_needed"], abs(facts["difference"])
        lines.append(f"  were {seen:.3g} the truth, {needed:,} rows like these would show it four times in five")
    return "\n".join(lines)


def _group(first: Score, second: Score, key: str) -> str:
    """That of either file; they may not contradict one another."""
    if first.group and second.group and first.group != second.group:
        what = f"'{key}' is of group '{second.group}', and of '{first.group}' in {first.where}"
        raise DataError(what, where=second.where, expected="the same group in both files")
    return first.group or second.group
