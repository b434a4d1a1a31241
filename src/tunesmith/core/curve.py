"""The loss curve of a run as a picture: one SVG that needs nothing else, drawn by these lines. No torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

Points = list[tuple[float, float]]  # (step, loss), by step

MOST = 2000  # points of a line: more cannot be seen at this width
WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 704, 28, 276  # the plot's edges
# key -> what it is called, colour (both readable on white and on black), dashes
SERIES = {"train_loss": ("training", "#2f7ed8", ""), "val_loss": ("validation", "#d9730d", "6 3")}
_FEW = 40  # points that are shown as dots too


def write(folder: Path, more: Iterable[Mapping[str, Any]] = (), *, log: bool = False) -> Path | None:
    """Draw `folder`/metrics.jsonl (and `more` lines, not in it yet) to `folder`/curve.svg. None where no loss is known.

    A reader sees the old picture or the new one. Raises OSError where it cannot be written.
    """
    file = folder / "metrics.jsonl"
    lines = file.open("rb") if file.is_file() else nullcontext(())
    with lines as found:
        picture = svg(chain(parse(found), more), log=log)
    if picture is None:
        return None
    new = folder / "curve.svg.new"
    new.write_text(picture, encoding="utf-8", newline="\n")
    os.replace(new, folder / "curve.svg")
    return folder / "curve.svg"


def parse(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The objects of a log that may be written to this moment, or was cut short: half a line is passed over."""
    for line in lines:
        with suppress(ValueError):
            if isinstance(found := json.loads(line), dict):
                yield found


def svg(lines: Iterable[Mapping[str, Any]], *, log: bool = False) -> str | None:
    """Lines of metrics.jsonl as an SVG, with a title and a description for those who hear it; None without a loss."""
    read = series(lines)
    found = {key: [p for p in points if not log or p[1] > 0] for key, points in read.items()}
    found = {key: points for key, points in found.items() if points}
    if not found:
        return None
    steps = [step for points in found.values() for step, _ in points]
    losses = [loss for points in found.values() for _, loss in points]
    x = _scale(min(steps), max(steps), LEFT, RIGHT)
    low, high = (min(losses), max(losses)) if log else (min(0.0, *losses), max(losses))
    y = _log_scale(low, high) if log else _scale(low, high, BOTTOM, TOP)
    parts = [*_axes(x, y, (min(steps), max(steps)), (low, high), log)]
    for number, (key, points) in enumerate(found.items()):
        parts += _line(key, [(x(a), y(b)) for a, b in decimate(points)], number)
    return _page(parts, _words(found))


def series(lines: Iterable[Mapping[str, Any]]) -> dict[str, Points]:
    """The finite losses by step."""
    found: dict[str, Points] = {key: [] for key in SERIES}
    for line in lines:
        add(found, line)
    return found


def add(found: dict[str, Points], line: Mapping[str, Any]) -> None:
    """One more line. Where a run went back and trained a step again, the newer loss counts."""
    for key, points in found.items():
        if key in line and "step" in line:
            while points and points[-1][0] >= line["step"]:
                points.pop()
            if line[key] is not None and math.isfinite(line[key]):
                points.append((line["step"], line[key]))


def decimate(points: Sequence[tuple[float, float]], most: int = MOST) -> Points:
    """At most `most` of the points, in order, with the ends and every bucket's lowest and highest: no spike is lost."""
    if len(points) <= most:
        return list(points)
    buckets, inner = (most - 2) // 2, len(points) - 2
    kept = {0, len(points) - 1}
    for number in range(buckets):
        bucket = range(1 + number * inner // buckets, 1 + (number + 1) * inner // buckets)
        kept |= {min(bucket, key=lambda i: points[i][1]), max(bucket, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * n for n in (1, 2, 5, 10, 20) if span / (power * n) <= most)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = (1, 2, 5) if len(powers) < 4 else (1,)
    return [n * 10.0**p for p in powers for n in every if low <= n * 10.0**p <= high] or [low]


def _scale(low: float, high: float, start: float, end: float) -> Any:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _log_scale(low: float, high: float) -> Any:
    scale = _scale(math.log10(low), math.log10(high), BOTTOM, TOP)
    return lambda value: scale(math.log10(value))


def _axes(x: Any, y: Any, steps: tuple[float, float], losses: tuple[float, float], log: bool) -> Iterator[str]:
    for value in _log_ticks(*losses) if log else ticks(*losses):
        at = f"{y(value):.1f}"
        yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{at}" y2="{at}" stroke="currentColor" stroke-opacity="0.15"/>'
        yield f'<text x="{LEFT - 8}" y="{at}" dy="4" text-anchor="end">{value:.4g}</text>'
    for value in (v for v in ticks(*steps) if v == int(v)):
        yield f'<text x="{x(value):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{value:,.0f}</text>'
    yield f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="currentColor" stroke-opacity="0.5"/>'
    yield f'<text x="{(LEFT + RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">step</text>'
    yield f'<text x="8" y="{TOP - 12}">loss (nats a token{", logarithmic" if log else ""})</text>'


def _line(key: str, points: Points, number: int) -> Iterator[str]:
    """The line, its dots where they are few, and its name above the plot."""
    name, colour, dashes = SERIES[key]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    width = 1.5 if len(points) <= _FEW else 1
    style = f'stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"{dashed}'
    yield f'<polyline points="{path}" fill="none" {style}/>'
    if len(points) <= _FEW:
        yield from (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>' for a, b in points)
    at = RIGHT - 220 + 120 * number
    yield f'<path d="M{at} {TOP - 16}h24" stroke="{colour}" stroke-width="2"{dashed}/>'
    yield f'<text x="{at + 30}" y="{TOP - 12}">{name}</text>'


def _words(found: Mapping[str, Points]) -> str:
    """The curve in a sentence."""
    said = []
    for key, points in found.items():
        step, lowest = min(points, key=lambda p: p[1])
        ends = f"{SERIES[key][0]} loss from {points[0][1]:.3g} at step {points[0][0]:,} to {points[-1][1]:.3g}"
        said.append(f"{ends} at step {points[-1][0]:,}, lowest {lowest:.3g} at step {step:,}")
    return f"{'; '.join(said)}."


def _page(parts: Iterable[str], words: str) -> str:
    names = f'role="img" aria-label="Loss curve: {escape(words)}"'
    style = 'font-family="sans-serif" font-size="12" fill="currentColor"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {names} {style}>'
    return "\n".join([head, "<title>Loss curve</title>", f"<desc>{escape(words)}</desc>", *parts, "</svg>"]) + "\n"
