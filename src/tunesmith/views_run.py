"""What a run says of itself, finished or not: losses as a line of blocks, speed, alerts, its last answer. No torch."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tunesmith.core.artifact import MANIFEST
from tunesmith.core.curve import SERIES, Points, add, parse
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_json
from tunesmith.core.project import Project
from tunesmith.core.runlog import say
from tunesmith.loop import unfinished_runs
from tunesmith.train.alerts import clock

BLOCKS, LETTERS = "▁▂▃▄▅▆▇█", "_.-=+*%#"  # low to high, and for a terminal that cannot show them
_RECENT = 50  # steps whose median is the speed
_TOLD = 3  # alerts in the text, the newest; all of them are facts
_WIDTH = 100  # columns, where there is no terminal to ask


def run_view(project: Project, name: str | None) -> tuple[dict[str, Any], str]:
    """The facts and the text of a run: the one of that name, or the one that last had something to say.

    Raises UsageError where there is none, and DataError where a finished one was changed.
    """
    out = _find(project, name)
    facts: dict[str, Any] = {}
    if (out / MANIFEST).is_file():
        found = project.open("run", str(out))
        facts = {"created": found.manifest["created"], **found.facts}
    watch = Watch(out)
    watch.update()
    return watch.facts() | facts, watch.text()


def follow(project: Project, name: str | None, pause: float | None = None) -> tuple[dict[str, Any], str]:
    """Show a run as it goes on, until it ends or Ctrl-C, which leaves the run alone; then as `run_view`.

    On a terminal a picture that is renewed, elsewhere a line a tenth of the run, a validation and an alert. `pause`:
    seconds between two looks.
    """
    watch = Watch(_find(project, name))
    with suppress(KeyboardInterrupt):
        if watch.state == "running":
            if sys.stderr.isatty():
                _renew(watch, 0.5 if pause is None else pause)
            else:
                _tell(watch, 2.0 if pause is None else pause)
    return run_view(project, watch.out.name)


def _renew(watch: Watch, pause: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            going = watch.state == "running"  # asked first: what it said before it ended is read after
            watch.update()
            live.update(Text(watch.text(console.width)), refresh=True)
            if not going:
                return
            time.sleep(pause)


def _tell(watch: Watch, pause: float) -> None:
    told = 0
    while True:
        going, most = watch.state == "running", watch.max_steps
        for line in watch.update():
            step, tenth = line.get("step", 0), max(1, most // 10)
            if line.get("val_loss") is not None:
                say(f"  step {step}: val loss {line['val_loss']:.3f}")
            for message in line.get("alerts", {}).values():
                say(f"  alert at step {step}: {message}")
            if line.get("train_loss") is not None and step // tenth > told:
                told = step // tenth
                left = clock(line.get("eta_seconds"))
                say(f"  step {step} of {most or '?'}: loss {line['train_loss']:.3f}, {left} left")
        if not going:
            return
        time.sleep(pause)


class Tail:
    """A growing file of JSON lines, read from where the last reading ended."""

    def __init__(self, path: Path) -> None:
        self.path, self._at, self._inode = path, 0, 0

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """(the whole lines that are new, whether the file is another one and these are all of it)."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                again = status.st_ino != self._inode or status.st_size < self._at  # a run that is gone on with
                file.seek(0 if again else self._at)
                lines = file.read().split(b"\n")
                self._inode, self._at = status.st_ino, file.tell() - len(lines[-1])  # half a line is read next time
        except FileNotFoundError:
            return [], False
        return list(parse(lines[:-1])), again


@dataclass
class Seen:
    """What of a log is shown."""

    points: dict[str, Points] = field(default_factory=lambda: {key: [] for key in SERIES})
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    alerts: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0

    def add(self, line: dict[str, Any]) -> None:
        add(self.points, line)
        self.step = line.get("step", self.step)
        if "train_loss" in line:
            self.recent.append(line)
        found = line.get("alerts", {})
        self.alerts += [{"step": self.step, "name": name, "message": found[name]} for name in found]

    def typical(self, key: str) -> float | None:
        """The median over the recent steps; None where they do not say it."""
        values = [line[key] for line in self.recent if line.get(key) is not None]
        return median(values) if values else None


class Watch:
    """One run, looked at again and again. `out`: where it lies, or will lie once it is finished."""

    def __init__(self, out: Path) -> None:
        self.out, self.seen = out, Seen()
        self._tail = Tail(self.folder / "metrics.jsonl")

    @property
    def folder(self) -> Path:
        return self.out if self.out.is_dir() else self.out.with_name(f"{self.out.name}.partial")

    @property
    def state(self) -> str:
        """finished, running, or stopped."""
        if (self.out / MANIFEST).is_file():
            return "finished"
        if _alive(self.out.with_name(f".{self.out.name}.lock")):
            return "running"
        return "finished" if (self.out / MANIFEST).is_file() else "stopped"  # it may have ended in between

    @property
    def max_steps(self) -> int:
        return int(self._receipt().get("config", {}).get("max_steps") or 0)

    def update(self) -> list[dict[str, Any]]:
        """Read on. Returns the new lines."""
        self._tail.path = self.folder / "metrics.jsonl"
        lines, again = self._tail.read()
        self.seen = Seen() if again else self.seen
        for line in lines:
            self.seen.add(line)
        return lines

    def facts(self) -> dict[str, Any]:
        receipt, recent = self._receipt(), self.seen.recent[-1] if self.seen.recent else {}
        config = receipt.get("config", {})
        validated = self.seen.points["val_loss"]
        best = min(validated, key=lambda point: point[1], default=(None, None))
        return {
            "name": self.out.name,
            "path": str(self.folder),
            "state": self.state,
            **{key: receipt.get(key, config.get(key)) for key in ("method", "base", "set")},
            "step": self.seen.step,
            "max_steps": config.get("max_steps"),
            "train_loss": recent.get("train_loss"),
            "val_loss": validated[-1][1] if validated else None,
            "best_val_loss": best[1],
            "best_step": best[0],
            "mfu": self.seen.typical("mfu"),
            "eta_seconds": recent.get("eta_seconds"),
            "alerts": self.seen.alerts,
            "sample": self._sample(),
        }

    def text(self, width: int = _WIDTH) -> str:
        facts = self.facts()
        lines = [self._head(facts)]
        lines += [f"  {facts['method']} of {Path(facts['base'] or '').name} on {facts['set']}"] if facts["set"] else []
        lines += [_curve(key, points, min(60, width - 60)) for key, points in self.seen.points.items() if points]
        lines += [f"  {', '.join(parts)}"] if (parts := _speed(self.seen)) else []
        lines += ["  alert at step {step}: {message}".format(**one) for one in self.seen.alerts[-_TOLD:]]
        for key, label in (("prompt", "asked"), ("sample", "answer"), ("reference", "truth")):
            if key in facts["sample"]:
                lines.append(f"  {label:<7}{_printable(facts['sample'][key], width - 9)}")
        if (picture := self.folder / "curve.svg").is_file():
            lines.append(f"  see {picture}")
        if facts["state"] == "stopped":
            lines.append(f"  go on: tunesmith train --resume --name {self.out.name}")
        return "\n".join(lines)

    def _head(self, facts: dict[str, Any]) -> str:
        of = f" of {facts['max_steps']:,}" if facts["max_steps"] else ""
        left = f", {clock(facts['eta_seconds'])} left" if facts["state"] == "running" else ""
        return f"run {self.out.name}: {facts['state']}, step {facts['step']:,}{of}{left}"

    def _receipt(self) -> dict[str, Any]:
        """What it was started as; empty where it has not come that far."""
        with suppress(DataError, OSError):
            return dict(read_json(self.folder / "receipt.json"))
        return {}

    def _sample(self) -> dict[str, Any]:
        """The first of the newest answers to the fixed prompts."""
        lines, _ = Tail(self.folder / "samples.jsonl").read()
        newest = max((line.get("step", 0) for line in lines), default=0)
        return next((line for line in lines if line.get("step", 0) == newest), {})


def sparkline(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """At most `width` blocks, each the mean of its share of the values, between the lowest and the highest of them."""
    count = min(max(1, width), len(values))
    edges = [number * len(values) // count for number in range(count + 1)] if count else []
    means = [fmean(values[start:end]) for start, end in itertools.pairwise(edges)]
    low, span = min(means, default=0.0), max(means, default=0.0) - min(means, default=0.0)
    top = len(blocks) - 1
    return "".join(blocks[round((value - low) / span * top) if span else 0] for value in means)


def _curve(key: str, points: Points, width: int) -> str:
    losses = [loss for _, loss in points]
    step, lowest = min(points, key=lambda point: point[1])
    line = sparkline(losses, width, _blocks())
    label = {"train_loss": "train", "val_loss": "val"}[key]
    return f"  {label:<6} {line}  {losses[0]:.3f} to {losses[-1]:.3f}, lowest {lowest:.3f} at step {step:,}"


def _blocks() -> str:
    try:
        BLOCKS.encode(sys.stderr.encoding or "ascii")
    except UnicodeEncodeError:
        return LETTERS
    return BLOCKS


def _speed(seen: Seen) -> list[str]:
    """What the recent steps say of their cost, in words."""
    shown = {
        "tokens_per_second": "{:,.0f} tokens/s",
        "mfu": "MFU {:.1%}",
        "padding_share": "padding {:.0%}",
        "peak_memory_gb": "{:.1f} GB",
    }
    parts = [words.format(value) for key, words in shown.items() if (value := seen.typical(key)) is not None]
    waits = [
        line["wait_seconds"] / line["seconds"] for line in seen.recent if line.get("seconds") and "wait_seconds" in line
    ]
    return [*parts, f"waiting for data {fmean(waits):.0%}"] if waits else parts


def _printable(text: str, width: int) -> str:
    """One line of it: a model may write what a terminal would obey."""
    flat = "".join(c if c.isprintable() else " " for c in " / ".join(text.split("\n")))
    return flat if len(flat) <= width else flat[: max(0, width - 3)] + "..."


def _alive(lock: Path) -> bool:
    """Whether the process that the run's lock file names still goes on, on this machine."""
    try:
        os.kill(int(lock.read_text().split()[0]), 0)  # signal 0 only asks
    except PermissionError:  # it does, as somebody else
        return True
    except (OSError, ValueError, IndexError):
        return False
    return True


def _find(project: Project, name: str | None) -> Path:
    """Where the run lies, or will lie once it is finished."""
    place = project.place("run")
    waiting = {one: place / f"{one}.partial" for one in unfinished_runs(project)}
    plain, names = (name or "").removesuffix(".partial"), project.names("run")
    if plain in waiting or plain in names:
        return place / plain
    if name is not None or not (waiting or names):
        return project.open("run", name).path
    times = {place / one: _changed(folder / "metrics.jsonl") for one, folder in waiting.items()}
    times |= {place / one: _changed(place / one / MANIFEST) for one in names[-1:]}
    return max(times, key=lambda path: times[path])


def _changed(path: Path) -> float:
    """When; of what is not there yet, its folder."""
    return path.stat().st_mtime if path.is_file() else path.parent.stat().st_mtime
