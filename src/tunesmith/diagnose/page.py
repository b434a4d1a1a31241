"""report.md of a diagnosis: figures first, then each category with examples, where it may come from, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.diagnose.categories import CATEGORIES
from tunesmith.diagnose.figures import percent, span
from tunesmith.diagnose.fixes import Proposal

EXAMPLES = 3  # of each category
CHARACTERS = 240  # of an answer that is shown


def page(facts: Mapping[str, Any], errors: Sequence[Mapping[str, Any]], proposals: Sequence[Proposal]) -> str:
    """`facts`: what report.json says; `errors`: the lines of errors.jsonl."""
    arm = facts["arms"][-1]
    lines = [f"# Errors of {facts['name']}", "", *_sources(facts), "", *_table(facts), ""]
    lines += [f"{name}: NOT RUN, {why}." for name, why in facts["not_run"].items()]
    for category in CATEGORIES:
        cell = facts["categories"].get(category.name)
        mine = [error for error in errors if category.name in error["errors"][arm]]
        if cell and mine:
            offered = [proposal for proposal in proposals if proposal.category == category.name]
            lines += [f"\n## {category.name}: {cell['count']} of {cell['n']}", f"\n{category.explanation}.\n"]
            lines += [line for error in mine[:EXAMPLES] for line in _example(error, category.name, arm)]
            lines += _offers(offered)
    lines += _clusters(facts["clusters"])
    return "\n".join(lines) + "\n"


def _sources(facts: Mapping[str, Any]) -> list[str]:
    said = [f"{kind} {name}" for kind, name in facts["sources"].items()]
    return [f"{facts['n']} rows; {', '.join(said)}. Rates of answers, each with its 95 % interval over groups."]


def _table(facts: Mapping[str, Any]) -> list[str]:
    before, after = facts["arms"] if len(facts["arms"]) > 1 else ("", facts["arms"][0])
    head = ["category", *([before] if before else []), after, "95 %"]
    head += ["change", "verdict", "fixed", "introduced", "persisting"] if before else []
    out = [_row([*head, "n"]), _row(["---", *["---:"] * len(head)])]
    for name, cell in facts["categories"].items():
        line = [name, *([percent(cell["before"])] if before else []), percent(cell["rate"]), span(cell)]
        if before:
            line += [f"{percent(cell['difference'], True)} {span(cell, 'difference_', True)}", cell["verdict"]]
            line += [str(cell[key]) for key in ("fixed", "introduced", "persisting")]
        out.append(_row([*line, str(cell["n"])]))
    return out


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _example(error: Mapping[str, Any], category: str, arm: str) -> list[str]:
    out = [f"- {error['place']}: {_short(error['prompt'])}", f"  - found: {_short(error['errors'][arm][category])}"]
    out += [f"  - said: {_short(error['said'][arm])}"]
    out += [f"  - right: {_short(error['reference'])}"] if error["reference"] else []
    near = ", ".join(f"{one['place']} ({one['score']})" for one in error["nearest"])
    return [*out, f"  - nearest training rows: {near}"] if near else out


def _offers(offered: Sequence[Proposal]) -> list[str]:
    if not offered:
        return ["\nNo change of the training rows is proposed."]
    counts = Counter(proposal.action for proposal in offered)
    told = ", ".join(f"{count} to {action}" for action, count in counts.items())
    return [f"\nProposed, {told}: `tunesmith fix --accept {offered[0].category}`. The first: {offered[0].why}."]


def _clusters(found: Sequence[Mapping[str, Any]]) -> list[str]:
    if not found:
        return []
    out = ["\n## Wrong, and of no category\n", "By what is asked; the names are the words that set them apart.\n"]
    return out + [f"- **{one['name']}** ({len(one['rows'])} rows): {', '.join(one['rows'][:6])}" for one in found]


def _short(text: str) -> str:
    line = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return line if len(line) <= CHARACTERS else line[: CHARACTERS - 3] + "..."
