"""Alerts on curves of our own making: those that are ill raise theirs, those that are well raise none."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.train.alerts import ALERTS, QUIET, History, clock, due, eta


def told(losses: Iterable[float], rates: Sequence[float] | None = None, max_steps: int = 400) -> list[tuple[int, str]]:
    """(step, alert) of a run with these training losses."""
    history, found = History(max_steps), []
    for step, loss in enumerate(losses, 1):
        rate = rates[step - 1] if rates else 1.0
        history.add({"step": step, "train_loss": loss, "grad_norm": 1.0, "learning_rate": rate, "seconds": 0.1})
        found += [(step, name) for name in due(history)]
    return found


def noisy(shape: Callable[[int], float], steps: int, seed: int, share: float) -> list[float]:
    generator = random.Random(seed)
    return [max(0.0, generator.gauss(1, share)) * shape(step) for step in range(1, steps + 1)]


def cosine(steps: int) -> list[float]:
    return [0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(1, steps + 1)]


SHAPES: dict[str, Callable[[int], float]] = {
    "to a floor": lambda step: 0.3 + 2 * math.exp(-step / 150),
    "a power": lambda step: 2.5 * step**-0.3,
    "pretraining": lambda step: 2 + 6 * step**-0.35,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.05, 0.15])
def test_at_most_one_noisy_but_healthy_curve_in_a_hundred_raises_an_alert(shape: str, share: float) -> None:
    """Steps of 5 and 15 % noise under a cosine schedule. n = 100 runs of 600 steps each; all seeds are fixed."""
    runs = [told(noisy(SHAPES[shape], 600, seed, share), cosine(600), 600) for seed in range(100)]
    assert sum(map(bool, runs)) <= 1, Counter(name for run in runs for _, name in run)


def test_single_hard_batches_are_no_alert() -> None:
    losses = noisy(SHAPES["a power"], 400, 0, 0.05)
    assert told([loss + 2 * (step in (120, 200, 300)) for step, loss in enumerate(losses, 1)], cosine(400)) == []


@pytest.mark.parametrize(("share", "last"), [(0.05, 203), (0.15, 204)])
def test_a_loss_that_triples_and_stays_is_one_spike_and_soon(share: float, last: int) -> None:
    curves = [noisy(SHAPES["a power"], 300, seed, share) for seed in range(50)]
    found = [told([loss * (1 if at < 200 else 3) for at, loss in enumerate(one)], cosine(300), 300) for one in curves]
    assert {name for run in found for _, name in run} == {"spike"}
    assert all(len(run) == 1 and 201 <= run[0][0] <= last for run in found)


def test_a_tiny_rise_of_a_quiet_curve_is_no_spike() -> None:
    assert told([0.01 + 1e-6 * (step % 3) + (0.05 if step > 90 else 0) for step in range(150)]) == []


def test_a_flat_loss_is_a_plateau_as_soon_as_the_window_is_full() -> None:
    found = [told(noisy(lambda _: 2.0, 400, seed, 0.02)) for seed in range(50)]
    first = sorted(run[0] for run in found if run)
    assert len(first) >= 49
    assert {name for _, name in first} == {"plateau"}
    assert first[0][0] == 200
    assert first[len(first) // 2][0] <= 220


def test_a_plateau_under_a_learning_rate_that_has_fallen_is_the_end_of_the_schedule() -> None:
    flat = [2.0 + 0.001 * (step % 2) for step in range(400)]
    assert told(flat[:340], [1.0] * 150 + [0.1] * 190) == []
    assert [name for _, name in told(flat, [0.1] * 400)] == ["plateau"]


def test_a_longer_run_looks_back_further() -> None:
    slow = [3 - 0.0001 * step for step in range(1200)]  # 0.3 % in 100 steps, 3 % in 1000
    assert told(slow, max_steps=400)
    assert told(slow, max_steps=5000) == []


def test_a_loss_or_a_gradient_that_is_no_number_is_told_at_once_and_not_at_every_step() -> None:
    for broken in (math.nan, math.inf, None):
        history, found = History(400), []
        for step in range(1, 21):
            bad = broken if step in (7, 8, 9) else 1.0
            history.add({"step": step, "train_loss": 1.0, "grad_norm": bad, "learning_rate": 0.1, "seconds": 0.1})
            found += [(step, *due(history))]
        assert [entry for entry in found if len(entry) > 1] == [(7, "not_finite")]


def test_an_alert_that_is_true_again_after_a_hundred_quiet_steps_is_told_again() -> None:
    losses = [math.nan if step in (10, 50, 49 + QUIET, 50 + 2 * QUIET) else 1.0 for step in range(1, 301)]
    assert [step for step, name in told(losses, cosine(300)) if name == "not_finite"] == [10, 50 + 2 * QUIET]


def validated(pairs: Sequence[tuple[float, float]]) -> list[int]:
    """The validations, from 1, at which overfitting is told of (validation loss, training loss)."""
    history, found = History(4000), []
    for number, (loss, train) in enumerate(pairs, 1):
        step = 200 * number
        history.add({"step": step, "train_loss": train, "grad_norm": 1.0, "learning_rate": 1.0, "seconds": 0.1})
        due(history)
        history.add({"step": step, "val_loss": loss, "train_loss_mean": train})
        found += [number for name in due(history) if name == "overfit"]
    return found


def test_two_validations_above_the_best_while_training_falls_are_overfit() -> None:
    assert validated([(1.0, 1.0), (0.8, 0.6), (0.83, 0.3), (0.85, 0.1)]) == [4]
    assert validated([(1.0, 1.0), (0.8, 0.6), (0.83, 0.3), (0.79, 0.1)]) == []  # one of them came back
    assert validated([(1.0, 1.0), (0.8, 0.6), (0.81, 0.3), (0.81, 0.1)]) == []  # within 2 %
    assert validated([(1.0, 1.0), (0.8, 0.6), (0.83, 0.7), (0.85, 0.7)]) == []  # both rise: not overfit
    assert validated([(1.0, 1.0), (0.8, 0.9), (0.7, 0.8)]) == []
    assert validated([(math.nan, 1.0), (math.nan, 0.5), (math.nan, 0.1)]) == []


def test_every_message_is_filled_with_numbers() -> None:
    history = History(400)
    for step in range(1, 201):
        history.add({"step": step, "train_loss": 2.0, "grad_norm": 1.0, "learning_rate": 1.0, "seconds": 0.1})
    for number, loss in enumerate((0.8, 0.9, 0.9)):
        history.add({"step": 198 + number, "val_loss": loss, "train_loss_mean": 1 - number / 4})
    found = due(history)
    for step in range(200, 204):
        history.add({"step": step, "train_loss": 9.0, "grad_norm": 1.0, "learning_rate": 1.0, "seconds": 0.1})
    found |= due(history)
    history.add({"step": 204, "train_loss": None, "grad_norm": 1.0, "learning_rate": 1.0, "seconds": 0.1})
    found |= due(history)
    assert found.keys() == {alert.name for alert in ALERTS}
    assert found["spike"].startswith("the loss rose to 9 from 2 (steps 201 to 203). ")
    assert "is 0.9, and was 0.8 at step 198, while the training loss fell to 0.5" in found["overfit"]
    assert "not fallen in 100 steps (2, then 2)" in found["plateau"]
    assert "of step 204 is not a number" in found["not_finite"]


def test_a_run_that_is_gone_on_with_remembers_what_was_told() -> None:
    lines: list[dict[str, Any]] = [
        {"step": step, "train_loss": 1.0, "grad_norm": 1.0, "learning_rate": 1.0, "seconds": 0.1} for step in range(30)
    ]
    lines.append({"step": 30, "train_loss": None, "learning_rate": 0.0, "alerts": {"not_finite": "..."}})
    history = History(400)
    for line in lines:
        history.add(line)
    history.add({"step": 31, "train_loss": None, "learning_rate": 0.0})
    assert due(history) == {}


def test_the_time_that_is_left_is_by_the_median_of_recent_steps() -> None:
    history = History(1000)
    for step in range(1, 100):
        seconds = 60.0 if step % 10 == 0 else 5.0 if step < 40 else 0.5
        history.add({"step": step, "train_loss": 1.0, "learning_rate": 1.0, "seconds": seconds})
        assert (eta(history) is None) == (step < 5)
    assert eta(history) == pytest.approx(0.5 * 901)


@given(st.lists(st.floats() | st.none(), max_size=120), st.integers(1, 500))
def test_no_losses_break_the_alerts(losses: list[float | None], max_steps: int) -> None:
    history = History(max_steps)
    for step, loss in enumerate(losses, 1):
        history.add({"step": step, "train_loss": loss, "learning_rate": 0.1, "val_loss": loss})
        assert due(history).keys() <= {alert.name for alert in ALERTS}
        assert eta(history) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "-"), (0.4, "0:00"), (42, "0:42"), (3600, "1:00:00"), (3725, "1:02:05")]
)
def test_times_read_as_clocks(seconds: float | None, words: str) -> None:
    assert clock(seconds) == words
