"""What a run says while it runs: metrics.jsonl for programs, a rich progress bar on stderr for people."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.core.jsonl import dump


def finite(value: Any) -> Any:
    """NaN and infinity are null in JSON: a reader must be able to parse the file of a run that diverged."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunLog:
    """Append-only JSON lines; each is handed to the system at once, so a killed run keeps all that it said.

    A disk that is full or fails does not end the run: it is said once, and the lines wait in memory.
    """

    def __init__(self, path: Path, keep_until_step: int | None = None) -> None:
        """With `keep_until_step`, drop the lines after that step: a resumed run says them again."""
        if keep_until_step is not None and path.is_file():
            kept = _until(keep_until_step, path.read_bytes().split(b"\n"))
            new = path.with_name(path.name + ".new")
            new.write_bytes(b"".join(line + b"\n" for line in kept))
            os.replace(new, path)  # killed in between, the old lines are still there
        self.path, self._file = path, path.open("ab", buffering=0)
        self._waiting, self._warned = b"", False

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a line. What is not finite is null in it, and named under "not_finite"."""
        bad = [key for key, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
        line = {**record, "not_finite": bad} if bad else record
        self._waiting += (dump(finite(line)) + "\n").encode()
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            if not self._warned:
                say(f"warning: {self.path.name} cannot be written ({error.strerror}); its lines wait in memory")
            self._warned = True

    def close(self) -> None:
        if self._waiting:
            say(f"warning: the last {len(self._waiting.splitlines())} lines of {self.path} were not written")
        self._file.close()


def _until(last: int, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines up to step `last`; one without a step belongs to the step before it. The half line of a killed
    process goes."""
    step = 0
    for line in lines:
        try:
            step = json.loads(line).get("step", step)
        except ValueError:
            continue
        if step <= last:
            yield line


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
        self._plain_every = max(1, -(-total // 10))  # rounded up: at most ten lines and the last
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
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
        before, self.done = self.done, self.done + steps
        self._bar.update(self._task, advance=steps, note=note)
        passed = self.done // self._plain_every > before // self._plain_every
        if not self._console.is_terminal and (passed or self.done == self.total):
            say(f"  {self.title} {self.done}/{self.total}  {note}")

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._console.is_terminal:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            say(text)
