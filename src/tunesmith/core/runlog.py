"""What a run says while it runs: metrics.jsonl for programs, a rich progress bar on stderr for people."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.core.jsonl import dump


def finite(value: Any) -> Any:
    """NaN and infinity are null in JSON: a reader must be able to parse the file of a run that diverged."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunLog:
    """Append-only JSON lines; every line is flushed, so a killed run keeps all that it said."""

    def __init__(self, path: Path, keep_until_step: int | None = None) -> None:
        """With `keep_until_step`, drop the lines after that step: a resumed run says them again."""
        if keep_until_step is not None and path.is_file():
            kept = [line for line in path.read_text("utf-8").splitlines() if _step(line) <= keep_until_step]
            path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8", newline="\n")

    def write(self, record: Mapping[str, Any]) -> None:
        self._file.write(dump({key: finite(value) for key, value in record.items()}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _step(line: str) -> float:
    import json

    try:
        return float(json.loads(line).get("step", math.inf))
    except json.JSONDecodeError:  # the half line of a killed process
        return math.inf


def say(text: str) -> None:
    """A line for people. stdout belongs to programs."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """A progress bar with loss, tokens/s and ETA on a terminal; a line now and then where there is none."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.title, self.total, self.done = title, total, done
        self._console = Console(stderr=True)
        self._plain_every = max(1, total // 10)
        columns = (
            TextColumn(title),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, note: str, steps: int = 1) -> None:
        self.done += steps
        self._bar.update(self._task, advance=steps, note=note)
        if not self._console.is_terminal and (self.done % self._plain_every == 0 or self.done == self.total):
            say(f"  {self.title} {self.done}/{self.total}  {note}")

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._console.is_terminal:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            say(text)
