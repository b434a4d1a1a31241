"""What to be told of while a run goes on: each alert is a pure function of what was measured so far.

No torch: a view of a run may ask the same questions. tests/train/test_alerts.py measures how often a noisy but healthy
curve raises one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median, variance
from typing import Any, NamedTuple

Facts = dict[str, float]

BASE, RECENT = 50, 3  # steps: what a spike is held against, and what must have risen
SIGMAS, EACH = 6.0, 3.0  # deviations of the base: what their mean must have risen by, and two of the three alone
LEAST_RISE = 0.1  # nats: less is no matter, however quiet the curve was
PLATEAU_STEPS = 100  # at least, in each of the two halves that are compared; a fifth of a longer run
PLATEAU_GAIN = 0.01  # of the loss: a plateau is less gain than this, with the error of the means on top
PLATEAU_RATE = 0.5  # of the highest learning rate in the window: at the end of a schedule nothing is to be gained
OVERFIT = 0.02  # of the best validation loss: how far the last two must be above it
QUIET = 100  # steps without another alert of the same name
ETA_STEPS, ETA_LEAST = 50, 5  # the steps whose median is a step's time, and the fewest that say anything


class Step(NamedTuple):
    """One optimizer step. `loss` is NaN where it, or the gradient, was not finite."""

    number: int
    loss: float
    rate: float
    seconds: float


class Validation(NamedTuple):
    number: int
    loss: float
    train_loss: float


@dataclass
class History:
    """The last steps, as many as the longest look back takes, and every validation."""

    max_steps: int
    steps: deque[Step] = field(init=False)
    validations: list[Validation] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)  # alert -> the last step of which it was true

    def __post_init__(self) -> None:
        self.steps = deque(maxlen=2 * self.half)

    @property
    def half(self) -> int:
        """Steps in a half of the window in which a plateau is looked for."""
        return max(PLATEAU_STEPS, self.max_steps // 5)

    def add(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, or the facts that become one. null is not a number."""
        number = int(line["step"])
        if "val_loss" in line:
            self.validations.append(Validation(number, _number(line, "val_loss"), _number(line, "train_loss_mean")))
        if "train_loss" in line:
            sound = all(math.isfinite(_number(line, key)) for key in ("train_loss", "grad_norm") if key in line)
            loss = _number(line, "train_loss") if sound else math.nan
            self.steps.append(Step(number, loss, _number(line, "learning_rate"), _number(line, "seconds")))
        for name in line.get("alerts", ()):
            self.told[name] = number

    def last(self, count: int) -> list[Step]:
        return [self.steps[i] for i in range(-min(count, len(self.steps)), 0)]


@dataclass(frozen=True)
class Alert:
    """`test` gives the facts that `message` is filled with, or None."""

    name: str
    test: Callable[[History], Facts | None]
    message: str


def not_finite(history: History) -> Facts | None:
    """The last step had a loss or a gradient that is no number."""
    if not history.steps or math.isfinite(history.steps[-1].loss):
        return None
    return {"step": history.steps[-1].number}


def spike(history: History) -> Facts | None:
    """The mean of the last 3 losses lies 6 deviations, and 0.1 nats, above the median of the 50 before them.

    Two of the three must lie 3 above it: one batch of hard rows, after which the loss is what it was, is no spike.
    """
    losses = [step.loss for step in history.last(BASE + RECENT)]
    if len(losses) < BASE + RECENT or not math.isfinite(sum(losses)):
        return None
    before, now = losses[:BASE], fmean(losses[BASE:])
    middle = median(before)
    deviation = 1.4826 * median(abs(loss - middle) for loss in before)  # a normal distribution's, from its median
    second = sorted(losses[BASE:])[-2]
    if now - middle <= max(SIGMAS * deviation, LEAST_RISE) or second - middle <= EACH * deviation:
        return None
    return {"loss": now, "before": middle, "first": history.steps[-RECENT].number, "last": history.steps[-1].number}


def plateau(history: History) -> Facts | None:
    """Two standard errors included, the second half of the window is under 1 % better than the first.

    Where the curve is so noisy that this cannot be told, there is no alert; nor where the learning rate has fallen.
    """
    half = history.half
    if len(history.steps) < 2 * half or history.steps[-1].number % (half // 10):  # now and then is often enough
        return None
    steps = [step for step in history.steps if math.isfinite(step.loss)]
    first, second = ([step.loss for step in part] for part in (steps[:half], steps[half:]))
    if len(second) < half // 2 or steps[-1].rate < PLATEAU_RATE * max(step.rate for step in steps):
        return None
    gain = fmean(first) - fmean(second)
    error = math.sqrt(variance(first) / len(first) + variance(second) / len(second))
    if gain + 2 * error >= PLATEAU_GAIN * fmean(first):
        return None
    return {"loss": fmean(second), "before": fmean(first), "steps": half}


def overfit(history: History) -> Facts | None:
    """The last two validations lie 2 % above the best one, while the training loss fell."""
    if len(history.validations) < 3:
        return None
    *earlier, one, two = history.validations
    best = min(earlier, key=lambda v: v.loss)
    if not min(one.loss, two.loss) > (1 + OVERFIT) * best.loss or not two.train_loss < best.train_loss:
        return None
    return {"loss": two.loss, "best": best.loss, "step": best.number, "train": two.train_loss}


ALERTS = (
    Alert(
        "not_finite",
        not_finite,
        "the loss or the gradient of step {step} is not a number; the step was left out. "
        "If it comes back, lower learning_rate or take dtype float32",
    ),
    Alert(
        "spike",
        spike,
        "the loss rose to {loss:.3g} from {before:.3g} (steps {first} to {last}). "
        "If it stays there, lower learning_rate; if it comes back, look at the rows of these steps",
    ),
    Alert(
        "plateau",
        plateau,
        "the loss has not fallen in {steps} steps ({before:.3g}, then {loss:.3g}). "
        "Try another learning_rate, or stop: more of the same will not help",
    ),
    Alert(
        "overfit",
        overfit,
        "the validation loss is {loss:.3g}, and was {best:.3g} at step {step}, while the training loss fell to "
        "{train:.3g}. The best weights are kept; more data or fewer epochs would help",
    ),
)


def due(history: History, alerts: Iterable[Alert] = ALERTS) -> dict[str, str]:
    """The alerts that are true now, name to message, without those that were true in the last 100 steps."""
    now = history.steps[-1].number if history.steps else 0
    found = {}
    for alert in alerts:
        facts = alert.test(history)
        if facts is None:
            continue
        if now - history.told.get(alert.name, -QUIET) >= QUIET:
            found[alert.name] = alert.message.format(**facts)
        history.told[alert.name] = now
    return found


def eta(history: History) -> float | None:
    """Seconds to the last step, by the median of the recent ones: validations and checkpoints are not in it."""
    times = [step.seconds for step in history.last(ETA_STEPS) if math.isfinite(step.seconds)]
    if len(times) < ETA_LEAST:
        return None
    return median(times) * max(0, history.max_steps - history.steps[-1].number)


def clock(seconds: float | None) -> str:
    """0:42, 1:02:03, or - where it is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(line: Mapping[str, Any], key: str) -> float:
    value = line.get(key)
    return math.nan if value is None else float(value)
