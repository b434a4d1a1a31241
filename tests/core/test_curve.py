"""The picture of a run's losses: nothing that matters is left out, and nothing else is needed to see it."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.curve import BOTTOM, LEFT, MOST, RIGHT, TOP, decimate, parse, series, svg, ticks, write
from tunesmith.core.jsonl import write_jsonl

SVG = "{http://www.w3.org/2000/svg}"
LOG: list[dict[str, Any]] = [
    {"step": 1, "train_loss": 4.0, "learning_rate": 0.1},
    {"step": 2, "train_loss": 2.0},
    {"step": 2, "train_loss_mean": 3.0, "val_loss": 2.5},
    {"step": 3, "train_loss": None, "not_finite": ["train_loss"]},
    {"step": 4, "train_loss": 1.0},
    {"step": 4, "train_loss_mean": 1.5, "val_loss": 2.25},
]


def drawn(lines: list[dict[str, Any]], *, log: bool = False) -> ET.Element:
    text = svg(lines, log=log)
    assert text is not None
    return ET.fromstring(text)


def lines_of(root: ET.Element) -> list[list[tuple[float, float]]]:
    found = [line.get("points", "").split() for line in root.iter(f"{SVG}polyline")]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in points)] for points in found]


def test_losses_stand_where_their_numbers_say() -> None:
    train, val = lines_of(drawn(LOG))
    height = BOTTOM - TOP
    assert train == [(LEFT, TOP), (LEFT + (RIGHT - LEFT) / 3, TOP + height / 2), (RIGHT, TOP + 0.75 * height)]
    assert [y for _, y in val] == pytest.approx([BOTTOM - 2.5 / 4 * height, BOTTOM - 2.25 / 4 * height], abs=0.05)


def test_a_logarithmic_axis_puts_equal_ratios_apart_by_equal_lengths() -> None:
    (train, _) = lines_of(drawn(LOG, log=True))
    assert [y for _, y in train] == pytest.approx([TOP, (TOP + BOTTOM) / 2, BOTTOM])
    zero = [*LOG, {"step": 5, "train_loss": 0.0}]
    assert len(lines_of(drawn(zero, log=True))[0]) == 3  # has no logarithm
    assert "logarithmic" in "".join(drawn(LOG, log=True).itertext())


def test_the_picture_is_told_in_words_too() -> None:
    root = drawn(LOG)
    words = "training loss from 4 at step 1 to 1 at step 4, lowest 1 at step 4; "
    words += "validation loss from 2.5 at step 2 to 2.25 at step 4, lowest 2.25 at step 4."
    assert root.get("role") == "img"
    assert root.get("aria-label") == f"Loss curve: {words}"
    assert [root.findtext(f"{SVG}{name}") for name in ("title", "desc")] == ["Loss curve", words]
    assert {t.text for t in root.iter(f"{SVG}text")} >= {"training", "validation", "step", "loss (nats a token)"}


def test_lines_differ_by_more_than_their_colour_and_the_text_is_the_readers() -> None:
    root = drawn(LOG)
    train, val = root.iter(f"{SVG}polyline")
    assert (train.get("stroke-dasharray"), bool(val.get("stroke-dasharray"))) == (None, True)
    assert root.get("fill") == "currentColor"


def test_it_needs_nothing_from_outside() -> None:
    text = svg(LOG) or ""
    assert not re.search(r"<script|<style|<image|href|url\(|@import", text)
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert svg(LOG) == text


@pytest.mark.parametrize("lines", [[], [{"step": 1, "learning_rate": 0.1}], [{"step": 1, "train_loss": None}]])
def test_without_a_loss_there_is_no_picture(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    assert svg(lines) is None
    write_jsonl(tmp_path / "metrics.jsonl", lines)
    assert write(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("losses", [[1.0], [2.0, 2.0], [0.0], [-1.0, 1.0], [1e-9], [1e9, 1e-9], [5e-324, 1e300]])
@pytest.mark.parametrize("log", [False, True])
def test_few_flat_negative_and_extreme_losses_are_drawn_or_left_out(losses: list[float], log: bool) -> None:
    text = svg([{"step": n, "train_loss": loss} for n, loss in enumerate(losses, 1)], log=log)
    assert (text is None) == (log and max(losses) <= 0)
    for line in lines_of(ET.fromstring(text)) if text else []:
        assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in line)


def test_a_step_that_was_trained_again_counts_once() -> None:
    lines = [{"step": n, "train_loss": float(n)} for n in (1, 2, 3, 4)] + [{"step": 3, "train_loss": 9.0}]
    assert series(lines)["train_loss"] == [(1, 1.0), (2, 2.0), (3, 9.0)]


points = st.lists(st.floats(-1e6, 1e6), max_size=400).map(lambda ys: [(float(x), y) for x, y in enumerate(ys)])


@given(points, st.integers(4, 60))
def test_thinning_keeps_the_ends_the_extremes_and_the_order(found: list[tuple[float, float]], most: int) -> None:
    kept = decimate(found, most)
    assert len(kept) <= most
    assert kept == sorted(set(kept) & set(found))
    if len(found) <= most:
        assert kept == found
    else:
        assert (kept[0], kept[-1]) == (found[0], found[-1])
        losses = [y for _, y in found]
        assert {min(losses), max(losses)} <= {y for _, y in kept}


def test_a_single_spike_in_a_long_run_is_seen() -> None:
    lines = [{"step": n, "train_loss": 50.0 if n == 61_803 else 1.0} for n in range(100_000)]
    (train,) = lines_of(drawn(lines))
    assert len(train) <= MOST
    assert min(y for _, y in train) == TOP


@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e9))
def test_ticks_are_few_even_and_inside(start: float, span: float) -> None:
    low = start * span
    found = ticks(low, low + span)
    assert len(found) <= 7
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)


def test_ticks_are_round() -> None:
    assert ticks(0, 4) == [0, 1, 2, 3, 4]
    assert ticks(0, 0.9) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert ticks(1, 1500) == [500, 1000, 1500]


def test_it_is_drawn_from_the_log_and_from_what_is_not_in_it_yet(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "metrics.jsonl", LOG[:2])
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "train_lo')  # a process that was killed
    path = write(tmp_path, LOG[2:3])
    assert path == tmp_path / "curve.svg"
    assert path.read_text() == svg(LOG[:3])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curve.svg", "metrics.jsonl"]


def test_half_lines_and_lines_of_another_kind_are_passed_over() -> None:
    assert list(parse([b'{"step": 1}\n', b"{", b"\xff\n", b"[1]\n", b"\n", b'{"step": 2}'])) == [
        {"step": 1},
        {"step": 2},
    ]


def test_it_is_drawn_without_torch_or_matplotlib() -> None:
    code = "import sys, tunesmith.core.curve, tunesmith.train.alerts; print({'torch', 'matplotlib'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"
