from __future__ import annotations

import io
import json
import math
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunesmith.core.jsonl import read_jsonl
from tunesmith.core.runlog import Progress, RunLog, finite, say


def steps(path: Path) -> list[Any]:
    return [record.get("step") for record in read_jsonl(path)]


def test_every_line_is_on_disk_as_soon_as_it_is_said(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "train_loss": 2.5})
    assert list(read_jsonl(tmp_path / "metrics.jsonl")) == [{"step": 1, "train_loss": 2.5}]
    log.write({"step": 1, "val_loss": 3.0})
    assert steps(tmp_path / "metrics.jsonl") == [1, 1]
    log.close()


def test_a_diverged_run_says_null_at_every_depth(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "train_loss": math.nan, "parts": [1.0, math.inf, {"a": -math.inf}], "note": "NaN"})
    log.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    told = '"note": "NaN", "not_finite": ["train_loss"]'
    assert line == '{"step": 1, "train_loss": null, "parts": [1.0, null, {"a": null}], ' + told + "}\n"


def test_a_full_disk_costs_no_line_and_no_run_and_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, soft = RunLog(tmp_path / "metrics.jsonl"), resource.getrlimit(resource.RLIMIT_FSIZE)
    log.write({"step": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, soft[1]))  # the second line has room for its first half
    try:
        for step in (2, 3, 4):
            log.write({"step": step, "note": "long enough"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert (tmp_path / "metrics.jsonl").stat().st_size == 30
    log.write({"step": 5})
    log.close()
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3, 4, 5]
    assert capsys.readouterr().err.count("metrics.jsonl cannot be written (File too large)") == 1


def test_lines_that_could_never_be_written_are_counted_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, soft = RunLog(tmp_path / "metrics.jsonl"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, soft[1]))
    try:
        log.write({"step": 1})
        log.write({"step": 2})
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert "warning: the last 2 lines of" in capsys.readouterr().err


NUMBERS = st.floats() | st.integers() | st.none() | st.text()


@given(st.recursive(NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_finite_can_always_be_written_and_is_unchanged_where_it_was(value: Any) -> None:
    text = json.dumps(finite(value), allow_nan=False)
    assert finite(json.loads(text)) == finite(value)


def test_a_resumed_run_drops_the_lines_it_will_say_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    records = [{"step": 1}, {"step": 2}, {"step": 2, "val_loss": 1.0}, {"step": 3}, {"step": 4}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    log = RunLog(path, keep_until_step=2)
    log.write({"step": 3, "again": True})
    log.close()
    assert list(read_jsonl(path)) == [*records[:3], {"step": 3, "again": True}]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_line_without_a_step_belongs_to_the_step_before_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "start"}\n{"step": 1}\n{"event": "a"}\n{"step": 2}\n{"event": "b"}\n')
    RunLog(path, keep_until_step=1).close()
    assert list(read_jsonl(path)) == [{"event": "start"}, {"step": 1}, {"event": "a"}]


@pytest.mark.parametrize(
    "half", [b'{"step": 2, "tr', "{'step': 2, 'note': 'ü".encode()[:-1], b"\x00\x00\x00", b'{"step"']
)
def test_the_half_line_of_a_killed_process_goes(tmp_path: Path, half: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + half)
    log = RunLog(path, keep_until_step=9)
    log.write({"step": 2})
    log.close()
    assert steps(path) == [1, 2]


def test_a_text_with_odd_line_breaks_in_it_survives_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    log = RunLog(path)
    log.write({"step": 1, "text": "a\u2028b\x85c\x1cd\re\nf"})
    log.close()
    before = path.read_bytes()
    RunLog(path, keep_until_step=1).close()
    assert path.read_bytes() == before


@settings(deadline=None)  # files, on a machine that others use
@given(cut=st.integers(0, 200), kept=st.integers(0, 6))
@example(cut=0, kept=0)
def test_after_a_cut_at_any_byte_a_resumed_log_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int, kept: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    whole = "".join(json.dumps({"step": step, "note": "naïve 🙂"}, ensure_ascii=False) + "\n" for step in range(1, 6))
    path.write_bytes(whole.encode()[:cut])
    complete = whole.encode()[:cut].count(b"\n") + (cut and whole.encode()[cut - 1 : cut + 1] == b"}\n")
    log = RunLog(path, keep_until_step=kept)
    log.write({"step": kept + 1})
    log.close()
    assert steps(path) == [*range(1, min(complete, kept) + 1), kept + 1]


def test_killed_while_it_drops_lines_a_log_still_has_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        RunLog(path, keep_until_step=1)
    assert steps(path) == [1, 2]


def test_words_for_people_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    assert capsys.readouterr() == ("", "hello\n")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):  # what rich takes for a terminal
        monkeypatch.delenv(key, raising=False)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("total", [*range(1, 45), 99, 100, 101, 999, 4096])
def test_without_a_terminal_progress_is_at_most_eleven_lines_and_the_last_step_is_one(
    total: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("train", total) as progress:
        for step in range(total):
            progress.advance(f"loss {step}")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert 1 <= len(lines) <= 11
    assert lines[-1] == f"  train {total}/{total}  loss {total - 1}"


@pytest.mark.usefixtures("plain")
def test_progress_by_many_steps_at_a_time_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("score", 100, done=40) as progress:
        for _ in range(7):
            progress.advance("", steps=7)
        progress.say("half way [/bold]")
    said = [line.split()[1] if "/100" in line else line for line in capsys.readouterr().err.splitlines()]
    assert said == ["54/100", "61/100", "75/100", "82/100", "half way [/bold]"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("plain")
def test_on_a_terminal_there_is_a_bar_and_any_text_can_stand_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("train {a} [/b]", 3) as progress:
        for step in range(3):
            progress.advance(f"loss {step} [/red] [bold]")
        progress.say("saved [/run] {x}")
    text = terminal.getvalue()
    assert "train {a} [/b]" in text
    assert "loss 2 [/red] [bold]" in text
    assert "saved [/run] {x}" in text
