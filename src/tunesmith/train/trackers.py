"""Experiment trackers that the user has installed: a table of small adapters, and the one place that feeds them.

Nothing leaves the machine unless the user's own environment says where to: each adapter writes below one local folder,
and what a package would report about its use is switched off. A tracker runs in a thread of its own: slow, it holds up
no step; broken, it is told once and left behind.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunesmith.core.errors import UsageError, did_you_mean
from tunesmith.core.runlog import say

Send = Callable[[int, dict[str, float]], object]  # step, numbers
CLOSE_SECONDS = 60.0  # how long the end of a run waits for a tracker; what it has not taken then is in metrics.jsonl
_QUIET = {  # what these packages would tell their makers; a value that the user has set is left alone
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


@dataclass(frozen=True)
class Target:
    """What a tracker is told of a run. `folder` is outside the run: a sealed directory must not change later.

    `step` is where a run that is gone on with goes on.
    """

    project: str
    name: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0


@contextmanager
def tensorboard(target: Target) -> Iterator[Send]:
    from torch.utils.tensorboard import SummaryWriter

    folder = target.folder / "tensorboard" / target.name
    writer = SummaryWriter(str(folder), purge_step=target.step + 1 if target.step else None)
    writer.add_text("config", "\n".join(f"    {key} = {value}" for key, value in target.config.items()))

    def send(step: int, numbers: dict[str, float]) -> None:
        for key, value in numbers.items():
            writer.add_scalar(key, value, step)

    yield send
    writer.close()


@contextmanager
def wandb(target: Target) -> Iterator[Send]:
    import wandb as package

    run = package.init(
        project=target.project,
        name=target.name,
        dir=_made(target.folder),
        config=dict(target.config),
        mode=os.environ.get("WANDB_MODE", "offline"),
        settings=package.Settings(silent=True, console="off"),
    )
    yield lambda step, numbers: run.log(numbers, step=step)
    run.finish()


@contextmanager
def mlflow(target: Target) -> Iterator[Send]:
    import mlflow as package

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        package.set_tracking_uri(f"sqlite:///{_made(target.folder / 'mlflow')}/mlflow.db")
    client = package.MlflowClient()
    found = client.get_experiment_by_name(target.project)
    experiment = found.experiment_id if found else client.create_experiment(target.project)
    run = client.create_run(experiment, run_name=target.name).info.run_id
    for key, value in target.config.items():
        client.log_param(run, key, value)
    metric = package.entities.Metric

    def send(step: int, numbers: dict[str, float]) -> None:
        now = int(1000 * time.time())
        client.log_batch(run, [metric(key, value, now, step) for key, value in numbers.items()])

    yield send
    client.set_terminated(run)


@contextmanager
def trackio(target: Target) -> Iterator[Send]:
    import trackio as package

    run = package.init(project=target.project, name=target.name, config=dict(target.config), embed=False)
    yield lambda step, numbers: run.log(numbers, step=step)
    run.finish()


TRACKERS: dict[str, Callable[[Target], Any]] = {  # by the name of the package, which is what pip calls it too
    "tensorboard": tensorboard,
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
}


def check(names: Sequence[str]) -> None:
    """Raise UsageError on an unknown name or a package that is not installed: before a model is loaded for nothing."""
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"unknown tracker '{name}'", fix=did_you_mean(name, TRACKERS))
        if find_spec(name) is None:
            raise UsageError(f"the tracker {name} is not installed", fix=f"pip install {name}")


class Trackers:
    """Open trackers. `send` returns at once; `close` waits for what is under way."""

    def __init__(self, names: Sequence[str], target: Target) -> None:
        """Raises UsageError, before anything is trained, on an unknown name, a missing package, or a failed start."""
        check(names)
        self._lines: list[_Line] = []
        try:
            for name in names:
                self._lines.append(_Line(name, target))
        except UsageError:
            self.close()
            raise

    def send(self, step: int, numbers: Mapping[str, float]) -> None:
        for line in self._lines:
            line.send(step, dict(numbers))

    def close(self) -> None:
        for line in self._lines:
            line.close()

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Line:
    """One tracker and its thread. What it raises ends in a future, and not in the training."""

    def __init__(self, name: str, target: Target) -> None:
        self.name, self.broken = name, False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._open = ExitStack()
        for key, value in _QUIET.items():
            os.environ.setdefault(key, value)
        with redirect_stdout(sys.stderr):  # stdout belongs to programs
            opened = self._pool.submit(self._open.enter_context, TRACKERS[name](target))
            error = opened.exception()
        if error is not None:
            self._pool.shutdown(wait=False)
            what = f"the tracker {name} does not start: {error}"
            raise UsageError(what, fix=f"mend it, or take {name} out of trackers") from error
        self._send: Send = opened.result()

    def send(self, step: int, numbers: dict[str, float]) -> None:
        if not self.broken:
            self._pool.submit(self._send, step, numbers).add_done_callback(self._check)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            ended = self._pool.submit(self._open.close)
            ended.add_done_callback(self._check)
            if wait([ended], CLOSE_SECONDS).not_done:
                say(f"warning: the tracker {self.name} is still busy and is left; metrics.jsonl has every step")
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, done: Future[Any]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None and not self.broken:
            self.broken = True
            say(f"warning: the tracker {self.name} failed and is left: {error}. Training goes on.")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
