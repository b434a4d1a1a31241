"""Trackers by stand-ins of their packages: what they are sent, what stays on the machine, and what a failure costs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tunesmith.core.errors import UsageError
from tunesmith.train import trackers
from tunesmith.train.trackers import TRACKERS, Target, Trackers

WANDB = """
calls = []
def init(**kwargs):
    calls.append(("init", kwargs))
    return Run()
def Settings(**kwargs):
    return kwargs
class Run:
    def log(self, numbers, step):
        calls.append((step, numbers))
    def finish(self):
        calls.append("finish")
"""
TRACKIO = WANDB + "        print('* Trackio')\n"
MLFLOW = """
from types import SimpleNamespace as N
calls = []
def set_tracking_uri(uri):
    calls.append(("uri", uri))
class entities:
    Metric = staticmethod(lambda key, value, timestamp, step: (key, value, step))
class MlflowClient:
    def get_experiment_by_name(self, name):
        return None
    def create_experiment(self, name):
        return name
    def create_run(self, experiment, run_name):
        calls.append((experiment, run_name))
        return N(info=N(run_id=7))
    def log_param(self, run, key, value):
        calls.append((run, key, value))
    def log_batch(self, run, metrics):
        calls.append((run, metrics))
    def set_terminated(self, run):
        calls.append("finish")
"""
BROKEN = WANDB.replace("calls.append((step, numbers))", 'raise SystemExit(f"gone at {step}")')
SLOW = "import threading\ngate = threading.Event()\n" + WANDB.replace(
    "calls.append((step", "gate.wait(); calls.append((step"
)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker's environment as on a machine where nothing was set."""
    for name in (*trackers._QUIET, "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")  # so that it is put back after
        monkeypatch.delenv(name)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], list[object]]:
    """`stand_in(name, source)`: a package of that name for this test. Returns what it was called with."""

    def make(name: str, source: str) -> list[object]:
        (tmp_path / "stand-ins").mkdir()
        (tmp_path / "stand-ins" / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "stand-ins")
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)
        calls: list[object] = module.calls
        return calls

    return make


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target("faq", "run-1", tmp_path / "trackers", {"method": "lora"})


def test_wandb_is_sent_every_step_and_stays_offline(stand_in: Callable[..., list[object]], target: Target) -> None:
    calls = stand_in("wandb", WANDB)
    with Trackers(["wandb"], target) as open_trackers:
        open_trackers.send(1, {"train_loss": 2.0})
        open_trackers.send(2, {"train_loss": 1.0})
    ((_, given), *rest) = calls
    assert rest == [(1, {"train_loss": 2.0}), (2, {"train_loss": 1.0}), "finish"]
    assert given["mode"] == "offline"
    assert (given["project"], given["name"], given["dir"]) == ("faq", "run-1", target.folder)
    assert given["config"] == {"method": "lora"}
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_what_the_user_has_set_decides_where_a_tracker_sends(
    stand_in: Callable[..., list[object]], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("DO_NOT_TRACK", "false")
    calls = stand_in("wandb", WANDB)
    Trackers(["wandb"], target).close()
    assert calls[0][1]["mode"] == "online"  # type: ignore[index]
    assert os.environ["DO_NOT_TRACK"] == "false"


def test_mlflow_writes_a_local_database_unless_the_user_names_a_server(
    stand_in: Callable[..., list[object]], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = stand_in("mlflow", MLFLOW)
    with Trackers(["mlflow"], target) as open_trackers:
        open_trackers.send(3, {"train_loss": 2.0, "mfu": 0.4})
    assert calls == [
        ("uri", f"sqlite:///{target.folder / 'mlflow' / 'mlflow.db'}"),
        ("faq", "run-1"),
        (7, "method", "lora"),
        (7, [("train_loss", 2.0, 3), ("mfu", 0.4, 3)]),
        "finish",
    ]
    assert (target.folder / "mlflow").is_dir()
    calls.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    Trackers(["mlflow"], target).close()
    assert calls[0] == ("faq", "run-1")


def test_trackio_is_sent_every_step_and_says_nothing_on_stdout(
    stand_in: Callable[..., list[object]], target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = stand_in("trackio", TRACKIO)
    with Trackers(["trackio"], target) as open_trackers:
        open_trackers.send(1, {"train_loss": 2.0})
    assert calls[1:] == [(1, {"train_loss": 2.0}), "finish"]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "* Trackio\n"


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_can_be_read_back(target: Target) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Trackers(["tensorboard"], target) as open_trackers:
        open_trackers.send(1, {"train_loss": 2.0})
        open_trackers.send(2, {"train_loss": 1.0})
    found = EventAccumulator(str(target.folder / "tensorboard" / "run-1"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("train_loss")] == [(1, 2.0), (2, 1.0)]


def test_an_unknown_tracker_is_told_with_the_nearest_one(target: Target) -> None:
    with pytest.raises(UsageError) as error:
        Trackers(["tensorbord"], target)
    assert error.value.fix == "did you mean 'tensorboard'?"


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_told_with_the_command_that_installs_it(
    name: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as error:
        Trackers([name], target)
    assert (error.value.what, error.value.fix) == (f"the tracker {name} is not installed", f"pip install {name}")


def test_a_tracker_that_does_not_start_stops_the_run_before_it_begins(
    stand_in: Callable[..., list[object]], target: Target
) -> None:
    stand_in("wandb", "calls = []\nSettings = dict\ndef init(**_):\n    raise ValueError('no key')")
    with pytest.raises(UsageError, match="the tracker wandb does not start: no key"):
        Trackers(["wandb"], target)


def test_a_tracker_that_fails_is_told_once_and_training_goes_on(
    stand_in: Callable[..., list[object]], target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = stand_in("wandb", BROKEN)
    with Trackers(["wandb"], target) as open_trackers:
        for step in range(1, 20):
            open_trackers.send(step, {"train_loss": 1.0})
    assert capsys.readouterr().err == "warning: the tracker wandb failed and is left: gone at 1. Training goes on.\n"
    assert len(calls) <= 2  # init, and an end that may be tried


def test_a_slow_tracker_holds_up_no_step_and_is_waited_for_at_the_end(
    stand_in: Callable[..., list[object]], target: Target
) -> None:
    calls = stand_in("wandb", SLOW)
    with Trackers(["wandb"], target) as open_trackers:
        for step in range(5):
            open_trackers.send(step, {})
        assert len(calls) == 1  # the start alone
        sys.modules["wandb"].gate.set()
    assert calls[1:] == [*((step, {}) for step in range(5)), "finish"]


def test_a_tracker_that_does_not_end_is_left(
    stand_in: Callable[..., list[object]],
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in("wandb", SLOW)
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.01)
    with Trackers(["wandb"], target) as open_trackers:
        open_trackers.send(1, {})
    sys.modules["wandb"].gate.set()
    assert "the tracker wandb is still busy and is left" in capsys.readouterr().err


def test_no_tracker_is_no_work(target: Target) -> None:
    with Trackers([], target) as open_trackers:
        open_trackers.send(1, {"train_loss": 2.0})
    assert not target.folder.exists()
    assert "DO_NOT_TRACK" not in os.environ
