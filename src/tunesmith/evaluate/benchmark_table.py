"""The figures of a benchmark as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluate.tasks import PUBLISHED


def table(report: Mapping[str, Any]) -> str:
    """A line a task with its 95 % interval, n and recipe; then the average, and what others published."""
    two = any("base" in task for task in report["tasks"])
    head = ["task", "metric", "value [95 %]", "n", *(["base", "difference [95 %]", "verdict"] if two else []), "chance"]
    lines = [head, *(_line(task, two) for task in report["tasks"])]
    names, whole = report["average_of"], " (Open LLM Leaderboard v1)" if report["leaderboard"] else ""
    average = f"average of {len(names)}{whole}: {_value(report, 'average', 'average_')}"
    recipes = [f"  {task['task']}: {task['recipe']}{_more(task)}" for task in report["tasks"]]
    return "\n".join([_aligned(lines), average, "recipes:", *recipes, *_published(report)])


def warnings(report: Mapping[str, Any]) -> list[str]:
    """What must not be read over: what was forgotten, and prompts that were cut."""
    out = []
    for task in report["tasks"]:
        if task["task"] in report["forgotten"]:
            low, high = (f"{100 * task[f'difference_{end}']:+.1f}" for end in ("low", "high"))
            change = f"{100 * task['difference']:+.1f} points [{low}, {high}]"
            out.append(f"forgotten: the tuned model is worse than its base on {task['task']}: {change}, n {task['n']}")
        cut = {arm: count for arm, count in task["cut"].items() if count}
        out += [
            f"{task['task']}: {count} prompts do not fit the context of {arm} and were cut on the left: fewer --shots"
            for arm, count in cut.items()
        ]
    return out


def _line(task: Mapping[str, Any], two: bool) -> list[str]:
    line = [task["task"], task["metric"], _value(task, "value", ""), str(task["n"])]
    if two:
        line += [_percent(task["base"]), _value(task, "difference", "difference_", sign="+"), task["verdict"]]
    return [*line, _percent(task["chance"])]


def _value(facts: Mapping[str, Any], name: str, prefix: str, sign: str = "") -> str:
    low, high = facts[f"{prefix}low"], facts[f"{prefix}high"]
    between = "[no interval]" if low is None else f"[{_percent(low, sign)}, {_percent(high, sign)}]"
    return f"{_percent(facts[name], sign)} {between}"


def _percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{100 * value:{sign}.1f}"


def _more(task: Mapping[str, Any]) -> str:
    """The other metrics, and the mean of the subjects' means."""
    others = [f"{name} {_value(cell, 'value', '')}" for name, cell in task["metrics"].items() if name != task["metric"]]
    macro = (
        [f"mean of {len(task['subjects'])} subjects {_value(task['macro'], 'value', '')}"] if "macro" in task else []
    )
    return "".join(f"; {one}" for one in (*others, *macro))


def _published(report: Mapping[str, Any]) -> list[str]:
    told = [
        f"  {task['task']}: " + ", ".join(f"{name} {_percent(value)}" for name, value in task["published"].items())
        for task in report["tasks"]
        if task["published"]
    ]
    return [f"published ({PUBLISHED}; shots drawn per item):", *told] if told else []


def _aligned(lines: list[list[str]]) -> str:
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [[cell.ljust(width[i]) if i < 2 else cell.rjust(width[i]) for i, cell in enumerate(line)] for line in lines]
    return "\n".join("  ".join(row).rstrip() for row in rows)
