"""report.html and report.md: the verdict first, then the figures, then examples, then how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core import curve
from tunesmith.core import page as html
from tunesmith.evaluate.catalogue import headline, meaning
from tunesmith.evaluate.report import gain, interval, number
from tunesmith.evaluate.score import Item
from tunesmith.metrics.differences import pieces

EXAMPLES = 8  # of each kind
TEMPLATE = Path(__file__).parent / "templates/report.html.j2"
SVG = ' xmlns="http://www.w3.org/2000/svg"'  # needed in a file of its own, and not within HTML
_VERDICTS = ("better", "worse", "cannot tell")

Cells = Mapping[str, Mapping[str, Any]]


def render(report: dict[str, Any], items: Sequence[Item], log: Sequence[Mapping[str, Any]]) -> str:
    """The page. `log` is the run's metrics.jsonl, empty when no run was given."""
    from markupsafe import Markup

    best, worst = examples(items)
    picture = (curve.svg(log) or "").replace(SVG, "")  # made of numbers alone
    parts = {"report": report, "best": best, "worst": worst, "curve": Markup(picture)}
    words = {"heading": heading(report), "sentences": sentences(report), "how": list(how(report))}
    functions = {"meaning": meaning, "headline": headline, "gain": gain, "place": place, "pieces": pieces}
    return html.render(TEMPLATE, parts | words | functions, {"number": number, "interval": interval})


def markdown(report: dict[str, Any], items: Sequence[Item]) -> str:
    """The same for a terminal, a pull request or a mail: fewer examples, and no curve."""
    shown = {name: cell for name, cell in report["metrics"].items() if headline(name)} | report["corpus"]
    lines = [f"# {report['name']}: {heading(report)}", "", *(f"- {line}" for line in sentences(report))]
    lines += ["", "## Scores", "", *_rows(shown, "metric", "base")]
    for arm in report["arms"]:
        against = _scored(report, arm)
        lines += ["", f"## Tuned against {arm}", "", *_rows(against, "metric", arm)]
    lines += ["", "## Errors", "", *_rows(report["errors"], "error", "base")]
    for title, some in zip(("Best improvements", "Worst, worst first"), examples(items), strict=True):
        lines += ["", f"## {title}", "", *(line for item in some[:3] for line in _example(item))]
    lines += ["", "## How it was made", "", *(f"- {line}" for line in how(report))]
    return "\n".join(lines) + "\n"


def place(item: Item) -> str:
    """Where a row came from: file:line, or its id."""
    meta = item.row.meta
    return f"{meta.source}:{meta.line}" if meta.source else item.row.id


def examples(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """The greatest improvements, then the least, worst first; no item twice."""
    ranked = sorted(items, key=gain, reverse=True)
    best = ranked[: min(EXAMPLES, (len(ranked) + 1) // 2)]
    return best, ranked[len(best) :][::-1][:EXAMPLES]


def heading(report: dict[str, Any]) -> str:
    """What the scores against the base allow one to say, in a line."""
    found = _by_verdict(_scored(report, "base"))
    better, worse, _ = map(len, found.values())
    count = sum(map(len, found.values()))
    if not better and not worse:
        return f"whether tuned is better than its base cannot be told from these {report['n']} rows"
    parts = [
        f"{name} than its base on {n} of {count} scores" for name, n in (("better", better), ("worse", worse)) if n
    ]
    return f"tuned is {' and '.join(parts)}"


def sentences(report: dict[str, Any]) -> list[str]:
    """Each comparison in a sentence: with the base, with each reference arm, and the errors before and after."""
    compared = {"Tuned against base": _scored(report, "base")}
    compared |= {f"Tuned against {arm}": _scored(report, arm) for arm in report["arms"]}
    compared["Errors of tuned against base"] = report["errors"]
    return [f"{name}: {_told(_by_verdict(cells)) or 'nothing was measured'}." for name, cells in compared.items()]


def how(report: dict[str, Any]) -> Iterator[str]:
    """What an engineer needs to check it."""
    left_out = ", ".join(f"{count} ({why})" for why, count in report["skipped"].items()) or "none"
    rows = f"{report['n']} of the {report['rows']} rows of the {report['split']} split"
    yield f"{rows}, in {report['clusters']} groups of similar rows; left out: {left_out}"
    tokens = report["max_new_tokens"]
    yield f"both models had the same prompts, token for token, and answered greedily with at most {tokens} new tokens"
    tests = sorted({cell["test"] for cell in [*report["metrics"].values(), *report["errors"].values()] if cell["test"]})
    yield "a difference is tuned minus the other on the same rows, with its 95 % interval over groups"
    yield f"p by {' and '.join(tests) or 'no test'} over groups, adjusted over all scores (Holm); seed {report['seed']}"
    yield '"cannot tell": the interval holds 0, or p is 0.05 or more'
    yield from (f"{kind}: {parent['name']}, {parent['hash'][:12]}" for kind, parent in report["parents"].items())
    yield f"template: {report['template'][:12]}"
    yield from (f"{name}: NOT RUN, {why}" for name, why in report["not_run"].items())


def _scored(report: dict[str, Any], arm: str) -> Cells:
    """The scores that have a verdict, against the base or a reference arm."""
    cells = {name: cell for name, cell in report["metrics"].items() if headline(name)}
    return cells if arm == "base" else {name: cell["arms"][arm] for name, cell in cells.items()}


def _by_verdict(cells: Cells) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {verdict: [] for verdict in _VERDICTS}
    for name, cell in cells.items():
        if cell["n"] and cell["verdict"]:
            found[cell["verdict"]].append(f"{name} ({number(cell['base'])} to {number(cell['tuned'])})")
    return found


def _told(found: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{verdict} on {', '.join(names)}" for verdict, names in found.items() if names)


def _rows(cells: Cells, kind: str, before: str) -> Iterator[str]:
    yield f"| {kind} | {before} | tuned | difference [95 %] | p | verdict | n |"
    yield "|---|---:|---:|---:|---:|---|---:|"
    for name, cell in cells.items():
        if cell["n"]:
            p = "-" if cell["p"] is None else f"{cell['p']:.4f}"
            between = f"{number(cell['difference'], True)} {interval(cell)}"
            told = [
                name,
                number(cell["base"]),
                number(cell["tuned"]),
                between,
                p,
                cell["verdict"] or "-",
                str(cell["n"]),
            ]
            yield f"| {' | '.join(told)} |"


def _example(item: Item) -> list[str]:
    said = {"question": item.row.question, "reference": item.reference} | item.texts
    return [
        f"- {place(item)} ({number(gain(item), True)})",
        *(f"  - {name}: {' '.join(text.split()) or '(empty)'}" for name, text in said.items()),
    ]
