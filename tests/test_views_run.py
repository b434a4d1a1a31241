"""What is shown of a run, finished, going on or stopped, and that the view follows it and lets go of it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith import views_run
from tunesmith.core.artifact import seal
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import write_json, write_jsonl
from tunesmith.core.project import Project
from tunesmith.core.runlog import RunLog
from tunesmith.views_run import BLOCKS, LETTERS, Tail, Watch, follow, run_view, sparkline

RECEIPT = {"base": "/models/tiny", "set": "set-1", "config": {"method": "lora", "max_steps": 40}}


def step(number: int, **changes: Any) -> dict[str, Any]:
    line = {"step": number, "train_loss": 4.0 - number / 20, "seconds": 0.5, "wait_seconds": 0.05, "mfu": 0.25}
    more = {"tokens_per_second": 1234.0, "padding_share": 0.125, "peak_memory_gb": 1.5, "eta_seconds": 75.0}
    return line | more | changes


LINES = [
    *(step(number) for number in range(1, 11)),
    {"step": 10, "train_loss_mean": 3.7, "val_loss": 3.5},
    *(step(number) for number in range(11, 21)),
    {"step": 20, "train_loss_mean": 3.2, "val_loss": 3.25, "alerts": {"overfit": "the validation loss is 3.25"}},
]
SAMPLES = [
    {"step": 10, "prompt": "Old?", "reference": "Yes.", "sample": "No."},
    {"step": 20, "prompt": "What\x1b[31m\nnow?", "reference": "This.", "sample": "That."},
    {"step": 20, "prompt": "Second?", "reference": "b", "sample": "c"},
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "tunesmith.toml").write_text('[task]\nname = "faq"\n')
    return Project(tmp_path)


@pytest.fixture
def partial(project: Project) -> Callable[..., Path]:
    """`partial(name, lines, pid)`: an unfinished run, held by a process where one is named."""

    def make(name: str = "run-1", lines: list[dict[str, Any]] = LINES, pid: int | None = None) -> Path:
        work = project.place("run") / f"{name}.partial"
        work.mkdir(parents=True)
        write_json(work / "receipt.json", RECEIPT)
        write_jsonl(work / "metrics.jsonl", lines)
        write_jsonl(work / "samples.jsonl", SAMPLES)
        if pid is not None:
            work.with_name(f".{name}.lock").write_text(f"{pid} since 2026-01-01\n")
        return work

    return make


def finish(work: Path) -> Path:
    final = work.with_name(work.name.removesuffix(".partial"))
    write_json(work / "receipt.json", RECEIPT)
    seal(work, final, "run", {**RECEIPT, "train_loss": 3.1, "val_loss": 3.25, "steps": 20})
    return final


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_run_that_goes_on_is_shown_with_its_losses_speed_alerts_and_answer(
    project: Project, partial: Callable[..., Path]
) -> None:
    work = partial(pid=os.getpid())
    (work / "curve.svg").touch()
    facts, text = run_view(project, "run-1")
    assert text.splitlines() == [
        "run run-1: running, step 20 of 40, 1:15 left",
        "  lora of tiny on set-1",
        "  train  ██▇▇▇▆▆▅▅▅▄▄▄▃▃▂▂▂▁▁  3.950 to 3.000, lowest 3.000 at step 20",
        "  val    █▁  3.500 to 3.250, lowest 3.250 at step 20",
        "  1,234 tokens/s, MFU 25.0%, padding 12%, 1.5 GB, waiting for data 10%",
        "  alert at step 20: the validation loss is 3.25",
        "  asked  What [31m / now?",
        "  answer That.",
        "  truth  This.",
        f"  see {work / 'curve.svg'}",
    ]
    assert (facts["state"], facts["step"], facts["max_steps"], facts["eta_seconds"]) == ("running", 20, 40, 75.0)
    assert (facts["best_val_loss"], facts["best_step"], facts["mfu"]) == (3.25, 20, 0.25)
    assert facts["alerts"] == [{"step": 20, "name": "overfit", "message": "the validation loss is 3.25"}]
    assert facts["sample"]["sample"] == "That."


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_whose_process_has_gone_is_stopped_and_says_how_to_go_on(
    project: Project, partial: Callable[..., Path], killed: bool
) -> None:
    partial(pid=dead_process() if killed else None)
    facts, text = run_view(project, None)
    assert facts["state"] == "stopped"
    assert text.startswith("run run-1: stopped, step 20 of 40\n")
    assert text.endswith("\n  go on: tunesmith train --resume --name run-1")


def test_a_finished_run_is_shown_with_what_its_manifest_says(project: Project, partial: Callable[..., Path]) -> None:
    final = finish(partial())
    facts, text = run_view(project, "run-1")
    assert text.startswith("run run-1: finished, step 20 of 40\n  lora of tiny on set-1\n  train  █")
    assert (facts["state"], facts["steps"], facts["train_loss"]) == ("finished", 20, 3.1)
    assert facts["path"] == str(final)
    (final / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="has changed since it was written"):
        run_view(project, "run-1")


def test_without_a_name_it_is_the_run_that_spoke_last(project: Project, partial: Callable[..., Path]) -> None:
    finish(partial("run-1"))
    os.utime(project.place("run") / "run-1" / "manifest.json", (100, 100))
    for name, when in (("run-2", 300), ("run-3", 200)):
        os.utime(partial(name) / "metrics.jsonl", (when, when))
    assert run_view(project, None)[0]["name"] == "run-2"
    os.utime(project.place("run") / "run-1" / "manifest.json", (400, 400))
    assert run_view(project, None)[0]["name"] == "run-1"
    assert run_view(project, "run-3")[0]["name"] == run_view(project, "run-3.partial")[0]["name"] == "run-3"


def test_no_run_and_an_unknown_one_are_told_with_what_to_type(project: Project, partial: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="tunesmith train"):
        run_view(project, None)
    finish(partial("run-1"))
    with pytest.raises(UsageError, match="did you mean 'run-1'"):
        run_view(project, "run-l")


def test_a_run_that_has_said_nothing_yet_is_shown_too(project: Project) -> None:
    (project.place("run") / "run-1.partial").mkdir(parents=True)
    facts, text = run_view(project, None)
    assert text.splitlines()[0] == "run run-1: stopped, step 0"
    assert (facts["train_loss"], facts["val_loss"], facts["best_val_loss"], facts["sample"]) == (None, None, None, {})


def test_a_loss_that_is_no_number_and_a_time_that_is_not_known_are_shown(
    project: Project, partial: Callable[..., Path]
) -> None:
    lines = [step(1, eta_seconds=None), step(2, train_loss=None, eta_seconds=None, not_finite=["train_loss"])]
    partial(lines=lines, pid=os.getpid())
    facts, text = run_view(project, None)
    assert text.startswith("run run-1: running, step 2 of 40, - left\n")
    assert facts["train_loss"] is None


def test_the_log_of_an_older_version_is_shown_without_what_it_does_not_say(
    project: Project, partial: Callable[..., Path]
) -> None:
    partial(lines=[{"step": 1, "train_loss": 2.0, "tokens_per_second": 10.0}])
    assert "  10 tokens/s\n" in run_view(project, None)[1]


@given(st.lists(st.floats(-1e6, 1e6), max_size=200), st.integers(-5, 80))
def test_a_line_of_blocks_fits_and_spans_from_the_lowest_to_the_highest(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(len(values), max(1, width))
    assert set(line) <= set(BLOCKS)
    if len(set(line)) > 1:
        assert {BLOCKS[0], BLOCKS[-1]} <= set(line)


def test_blocks_are_means_and_a_flat_curve_is_low() -> None:
    assert sparkline([0, 0, 7, 7], 2) == "▁█"
    assert sparkline([3, 3, 3], 9) == "▁▁▁"
    assert sparkline(range(8), 8) == BLOCKS
    assert sparkline(range(8), 8, LETTERS) == LETTERS


def test_a_terminal_without_blocks_gets_letters(
    project: Project, partial: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    partial(pid=os.getpid())
    text = run_view(project, None)[1]
    assert "  val    #_  3.500" in text
    assert text.isascii()


def test_the_text_fits_the_terminal(project: Project, partial: Callable[..., Path]) -> None:
    work = partial(lines=[step(number) for number in range(1, 500)])
    write_jsonl(work / "samples.jsonl", [{"step": 1, "prompt": "p" * 500, "sample": "s" * 500, "reference": ""}])
    watch = Watch(work.with_name("run-1"))
    watch.update()
    assert all(len(line) <= 80 for line in watch.text(80).splitlines() if "alert" not in line)


def test_a_log_is_read_on_from_where_it_was_and_from_the_start_when_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == ([], False)
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert tail.read() == ([{"step": 1}, {"step": 2}], True)
    assert tail.read() == ([], False)
    with path.open("a") as file:
        file.write('ep": 3}\n')
    assert tail.read() == ([{"step": 3}], False)
    RunLog(path, keep_until_step=1).close()  # gone on with from a checkpoint
    assert tail.read() == ([{"step": 1}], True)


def test_following_ends_with_the_run_and_tells_tenths_validations_and_alerts(
    project: Project, partial: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = partial(lines=LINES[:12], pid=os.getpid())
    looks = iter([lambda: [write_jsonl(work / "metrics.jsonl", LINES)], lambda: [finish(work)]])
    monkeypatch.setattr(views_run.time, "sleep", lambda seconds: next(looks)())
    facts, text = follow(project, None)
    assert capsys.readouterr().err.splitlines() == [
        "  step 4 of 40: loss 3.800, 1:15 left",
        "  step 8 of 40: loss 3.600, 1:15 left",
        "  step 10: val loss 3.500",
        "  step 12 of 40: loss 3.400, 1:15 left",
        "  step 16 of 40: loss 3.200, 1:15 left",
        "  step 20 of 40: loss 3.000, 1:15 left",
        "  step 20: val loss 3.250",
        "  alert at step 20: the validation loss is 3.25",
    ]
    assert facts["state"] == "finished"
    assert text.startswith("run run-1: finished")


def test_a_run_that_has_ended_is_shown_at_once(
    project: Project, partial: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    partial("run-1", pid=dead_process())
    assert follow(project, None) == run_view(project, None)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_picture_is_renewed(
    project: Project, partial: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    work = partial(lines=LINES[:5], pid=os.getpid())
    looks = iter([lambda: write_jsonl(work / "metrics.jsonl", LINES), lambda: finish(work)])
    monkeypatch.setattr(views_run.time, "sleep", lambda seconds: next(looks)())
    facts, _ = follow(project, "run-1")
    assert facts["state"] == "finished"
    shown = screen.getvalue()
    assert [f"step {n} of 40" in shown for n in (5, 20)] == [True, True]
    assert "\x1b[31m" not in shown  # what the model wrote is not obeyed
    assert "\x1b[2K" in shown  # drawn over


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_the_view_and_not_the_run(project: Project, partial: Callable[..., Path]) -> None:
    partial(pid=os.getpid())
    code = (
        "import pathlib; from tunesmith.core.project import Project; from tunesmith.views_run import follow\n"
        f"print(follow(Project(pathlib.Path({str(project.path)!r})), None, 0.05)[0]['state'])"
    )
    # the background job of a shell ignores Ctrl-C, and so would its child
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    assert "step 4 of 40" in child.stderr.readline()
    killer = threading.Timer(0.2, child.send_signal, [signal.SIGINT])
    killer.start()
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "running\n")
    assert "Traceback" not in err


def test_the_view_loads_no_torch() -> None:
    code = "import sys, tunesmith.views_run; print({'torch', 'transformers', 'rich', 'numpy'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"
