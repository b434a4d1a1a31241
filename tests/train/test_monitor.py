"""What the monitor makes of the loop's facts: useful work by hand and by torch's counter, lines that are JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.jsonl import write_jsonl
from tunesmith.core.runlog import RunLog
from tunesmith.model.adapter import add_lora
from tunesmith.model.load import load_model
from tunesmith.model.peak import Peak
from tunesmith.model.shape import Shape, flops_per_token
from tunesmith.train.alerts import History
from tunesmith.train.monitor import Monitor, Work, note, numbers, watching, work_of
from tunesmith.train.state import State

PEAK = Peak(1e6, 512, "float32", "a machine")
FULL = Work(Shape(1000, 1000, blocks=700, head=200, lora=0), 0, PEAK)


def facts(**changes: Any) -> dict[str, Any]:
    step = {"train_loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.0, "tokens": 100, "trained_tokens": 50}
    return step | {"seconds": 0.5, "wait_seconds": 0.1} | changes


def monitor(**fields: Any) -> Monitor:
    return Monitor(History(400), memory=lambda: 1.5, **fields)


def test_a_step_says_its_speed_its_share_of_the_peak_and_its_memory() -> None:
    found = facts()
    monitor(work=FULL).observe(State(step=1), found)
    assert found == facts() | {
        "tokens_per_second": 200.0,
        "trained_tokens_per_second": 100.0,
        "mfu": 100 * (6 * 700 + 6 * 0.5 * 200) / 0.5 / 1e6,
        "peak_memory_gb": 1.5,
        "eta_seconds": None,
    }


def test_padding_counts_as_a_share_and_never_as_work() -> None:
    plain, padded = facts(), facts(positions=160)
    for found in (plain, padded):
        monitor(work=FULL).observe(State(step=1), found)
    assert padded["padding_share"] == pytest.approx(0.375)
    assert padded["mfu"] == plain["mfu"]


@given(st.integers(1, 10**6), st.floats(0, 1), st.integers(0, 10**9))
def test_a_head_over_unscored_tokens_and_a_frozen_matrix_are_credited_less(
    tokens: int, share: float, pairs: int
) -> None:
    shape = Shape(1000, 100, blocks=700, head=200, lora=50)
    full, lora = Work(Shape(1000, 1000, 700, 200, 0), 8, PEAK), Work(shape, 8, PEAK)
    attention = 3 * 8 * pairs
    assert full.flops(tokens, share * tokens, pairs) == pytest.approx(tokens * (6 * 700 + 6 * share * 200) + attention)
    assert lora.flops(tokens, share * tokens, pairs) == pytest.approx(
        tokens * (4 * 700 + 4 * share * 200 + 6 * 50) + attention
    )


def test_attention_is_what_torch_counts(llama_dir: Path) -> None:
    """Eager attention computes the whole square: every token of a row with every other."""
    from torch.utils.flop_counter import FlopCounterMode

    model = load_model(llama_dir, torch.float32)
    model.set_attn_implementation("eager")
    work = work_of(model, PEAK)
    assert work is not None
    rows, length = 4, 16
    ids = torch.randint(400, (rows, length), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    counts = {str(operation): n for operation, n in counter.get_flop_counts()["Global"].items()}
    pairs = rows * length**2
    assert counts["aten.bmm"] == 3 * work.attention * pairs
    assert work.flops(ids.numel(), ids.numel(), pairs) == counts["aten.mm"] + counts["aten.bmm"]


def test_every_family_is_counted_with_and_without_an_adapter(any_model_dir: Path) -> None:
    model = load_model(any_model_dir, torch.float32)
    full, lora = work_of(model, PEAK), work_of(add_lora(model, 4, 8, 0.0), PEAK)
    assert full is not None
    assert lora is not None
    assert full.attention == lora.attention == 4 * 2 * 4 * 8  # two layers of four heads of eight
    assert "MFU: 6N + 6fH + 3A FLOP a token (N = " in full.formula()
    assert "MFU: 4N + 4fH + 6n + 3A FLOP a token (N = " in lora.formula()
    assert f"n = {lora.shape.lora:,} of LoRA, A = 256 x the mean context" in lora.formula()
    assert lora.formula().endswith("of 0 GFLOP/s, the float32 matrix products measured on this machine")
    assert lora.flops(10, 10) < full.flops(10, 10) == 10 * flops_per_token(full.shape)


@pytest.mark.parametrize(
    "changes",
    [{"sliding_window": 64}, {"layer_types": ["full_attention", "linear_attention"]}],
    ids=["window", "linear"],
)
def test_attention_of_another_kind_is_left_out_rather_than_guessed(llama_dir: Path, changes: dict[str, Any]) -> None:
    model = load_model(llama_dir, torch.float32)
    for name, value in changes.items():
        setattr(model.config, name, value)
    work = work_of(model, PEAK)
    assert work is not None
    assert work.attention == 0
    assert "A" not in work.formula().split("(")[0].replace("MFU", "")


def test_a_mixture_of_experts_has_no_mfu(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)
    model.config.num_local_experts = 8
    assert work_of(model, PEAK) is None
    found = facts()
    monitor().observe(State(step=1), found)
    assert "mfu" not in found


def test_what_is_no_number_is_null_with_a_flag_and_an_alert(tmp_path: Path) -> None:
    said: list[str] = []
    log = RunLog(tmp_path / "metrics.jsonl")
    found = facts(train_loss=math.nan, grad_norm=math.inf, learning_rate=0.0)
    monitor(tell=said.append).observe(State(step=7), found)
    log.write({"step": 7, **found})
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["train_loss"], line["grad_norm"], line["not_finite"]) == (None, None, ["train_loss", "grad_norm"])
    assert said == [f"  alert: {line['alerts']['not_finite']}"]
    assert "of step 7 is not a number" in said[0]


def test_alerts_stand_in_the_line_of_their_step_and_are_told_once() -> None:
    said: list[str] = []
    watched, lines = monitor(tell=said.append), []
    for step in range(1, 120):
        found = facts(train_loss=2.0 + 0.01 * (step % 5) + 5 * (step > 99))
        watched.observe(State(step=step), found)
        lines.append(found)
    assert [step for step, line in enumerate(lines, 1) if "alerts" in line] == [101]
    assert [list(line["alerts"]) for line in lines if "alerts" in line] == [["spike"]]
    assert len(said) == 1


def test_a_validation_is_drawn_and_overfitting_told() -> None:
    drawn: list[Any] = []
    watched = monitor(draw=drawn.append, tell=lambda text: None)
    for number, (loss, train) in enumerate([(1.0, 1.0), (0.8, 0.6), (0.9, 0.3), (0.95, 0.1)], 1):
        watched.observe(State(step=100 * number), facts(train_loss=train))
        found = {"train_loss_mean": train, "val_loss": loss}
        watched.observe(State(step=100 * number), found)
    assert [line["step"] for line in drawn] == [100, 200, 300, 400]
    assert drawn[-1] == {"step": 400, **found}
    assert "was 0.8 at step 200" in found["alerts"]["overfit"]  # type: ignore[index]
    assert "eta_seconds" not in found


def test_a_picture_that_cannot_be_written_is_told_once_and_costs_nothing() -> None:
    said: list[str] = []

    def full(line: Any) -> None:
        raise OSError(28, "No space left on device")

    watched = monitor(draw=full, tell=said.append)
    for step in (1, 2):
        watched.observe(State(step=step), {"train_loss_mean": 1.0, "val_loss": 1.0})
    assert said == ["warning: the loss curve was not drawn: [Errno 28] No space left on device"]


def test_trackers_are_sent_the_finite_numbers() -> None:
    sent: list[tuple[int, Any]] = []
    watched = monitor(work=FULL, send=lambda step, found: sent.append((step, dict(found))), tell=lambda text: None)
    watched.observe(State(step=3), facts(grad_norm=math.nan))
    watched.observe(State(step=3), {"train_loss_mean": None, "val_loss": 1.5})
    (_, step), (_, validation) = sent
    assert [number for number, _ in sent] == [3, 3]
    assert step.keys() == {
        *("train_loss", "learning_rate", "tokens", "trained_tokens"),
        *("tokens_per_second", "trained_tokens_per_second", "mfu", "peak_memory_gb"),
    }
    assert validation == {"val_loss": 1.5}
    assert numbers({"b": "x", "c": None, "d": 1, "e": [1]}) == {"d": 1}


def test_the_note_has_a_dash_until_five_steps_were_timed() -> None:
    watched, notes = monitor(work=FULL), []
    for step in range(1, 7):
        found = facts(seconds=2.0)
        watched.observe(State(step=step), found)
        notes.append(note(found))
    assert notes[3] == "loss 2.000  lr 1.0e-01  50 tok/s  MFU 24.0%  - left"
    assert notes[4].endswith("MFU 24.0%  13:10 left")


def test_the_memory_is_the_machines_where_none_is_given() -> None:
    found = facts()
    Monitor(History(400)).observe(State(step=1), found)
    assert found["peak_memory_gb"] > 0.01


@pytest.mark.parametrize("seconds", [0.0, 1e-12])
def test_a_clock_that_stands_still_divides_by_nothing(seconds: float) -> None:
    found = facts(seconds=seconds)
    monitor(work=FULL).observe(State(step=1), found)
    assert math.isfinite(found["mfu"])


def test_a_run_that_is_gone_on_with_is_watched_from_where_it_was(llama_dir: Path, tmp_path: Path) -> None:
    model = load_model(llama_dir, torch.float32)
    said: list[str] = []
    lines = [{"step": step, **facts()} for step in range(1, 31)]
    lines += [{"step": 31, **facts(train_loss=None), "alerts": {"not_finite": "told"}}]
    write_jsonl(tmp_path / "metrics.jsonl", lines)
    watched = watching(model, tmp_path, 400, PEAK, tell=said.append)
    assert watched.work is not None
    assert said == [f"  {watched.work.formula()}"]
    found = facts(grad_norm=math.nan)
    watched.observe(State(step=32), found)
    assert "alerts" not in found
    assert found["eta_seconds"] == pytest.approx(0.5 * 368)
    watched.observe(State(step=32), {"train_loss_mean": 2.0, "val_loss": 1.5})
    assert "validation loss from 1.5 at step 32" in (tmp_path / "curve.svg").read_text()
    model.config.num_local_experts = 8
    assert watching(model, tmp_path, 400, PEAK, tell=said.append).work is None
    assert said[-1].startswith("  MFU is not measured")


def test_the_loop_takes_it_as_its_hook() -> None:
    hook: Callable[[State, dict[str, float]], None] = monitor().observe
    hook(State(step=1), facts())
