"""report.html: one file that needs nothing else, no script and no network."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.evaluate.catalogue import headline, meaning
from tunesmith.evaluate.report import gain, interval, number
from tunesmith.evaluate.score import Item

EXAMPLES = 8  # of each kind
TEMPLATES = Path(__file__).parent / "templates"
_INK = "#808080"  # stands for the page's text colour, which a dark page changes
_SERIES = (("train_loss", "training", "#2f7ed8"), ("val_loss", "validation", "#d9730d"))


def render(report: dict[str, Any], items: Sequence[Item], log: Sequence[Mapping[str, Any]]) -> str:
    """The page. `log` is the run's metrics.jsonl, empty when no run was given. Everything is escaped by Jinja."""
    import jinja2
    from markupsafe import Markup

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "interval": interval}
    best, worst = examples(items)
    svg = curve(log)
    parts = {"report": report, "best": best, "worst": worst, "curve": Markup(svg) if svg else None}
    words = {"meaning": meaning, "headline": headline, "gain": gain, "place": place, "sentence": sentence(report)}
    return environment.get_template("report.html.j2").render(**parts, **words).lstrip() + "\n"


def place(item: Item) -> str:
    """Where a row came from: file:line, or its id."""
    meta = item.row.meta
    return f"{meta.source}:{meta.line}" if meta.source else item.row.id


def examples(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """The greatest improvements, then the least, worst first; no item twice."""
    ranked = sorted(items, key=gain, reverse=True)
    best = ranked[: min(EXAMPLES, (len(ranked) + 1) // 2)]
    return best, ranked[len(best) :][::-1][:EXAMPLES]


def sentence(report: dict[str, Any]) -> str:
    """What the intervals allow one to say, in one sentence."""
    by_verdict: dict[str, list[str]] = {"better": [], "worse": [], "cannot tell": []}
    for name, cell in report["metrics"].items():
        if headline(name) and cell["n"] and cell["verdict"]:
            by_verdict[cell["verdict"]].append(name)
    said = [f"{verdict} on {', '.join(names)}" for verdict, names in by_verdict.items() if names]
    return f"Tuned against base: {'; '.join(said) or 'nothing was measured'}."


def curve(log: Sequence[Mapping[str, Any]]) -> str | None:
    """The losses over the steps as an inline SVG, the same bytes for the same log; None when none was logged."""
    series = []
    for key, label, colour in _SERIES:
        points = [(r["step"], r[key]) for r in log if r.get(key) is not None and "step" in r]
        if points:
            series.append((label, colour, points))
    return _accessible(_plot(series), series) if series else None


def _plot(series: Sequence[tuple[str, str, list[tuple[float, float]]]]) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    with rc_context({"svg.hashsalt": "tunesmith", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(7.2, 3.2), layout="tight")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for label, colour, points in series:
            few = len(points) <= 40
            axes.plot(*zip(*points, strict=True), label=label, color=colour, marker="o" if few else None, markersize=3)
        axes.set_xlabel("step", color=_INK)
        axes.set_ylabel("loss (nats a token)", color=_INK)
        axes.tick_params(colors=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_INK)
        axes.legend(frameon=False, labelcolor=_INK)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # a date would change the bytes
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return out.getvalue()


def _accessible(svg: str, series: Sequence[tuple[str, str, list[tuple[float, float]]]]) -> str:
    """The bare <svg>, with a title and a description, in the page's own text colour."""
    ends = [f"{label} loss from {points[0][1]:.3f} to {points[-1][1]:.3f}" for label, _, points in series]
    names = f"<title>Loss curve</title><desc>{'; '.join(ends)}.</desc>"
    body = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg[svg.index("<svg") :]).replace(_INK, "currentColor")
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # it would style the whole page
    body = re.sub(r"font-family: [^;]*; ", "", body)  # the page's own font
    return re.sub(r"<svg([^>]*)>", rf'<svg\1 role="img" aria-label="Loss curve">{names}', body, count=1)
