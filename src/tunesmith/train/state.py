"""What the loop remembers, how long and how carefully it runs, and what happens around it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.core.runlog import Progress, RunLog


@dataclass
class State:
    """All that the loop must remember besides weights and optimizer; saved in every checkpoint."""

    step: int = 0
    trained_tokens: int = 0
    tokens: int = 0
    skipped: int = 0  # steps in a row whose gradient was not finite, up to now
    steps_skipped: int = 0  # and in all
    rollbacks: int = 0
    micro_limit: int | None = None  # positions of a micro-batch, since memory ran out
    seconds: float = 0.0
    train_loss: float | None = None  # the mean of the steps since the last evaluation
    val_loss: float | None = None
    evaluated: int = 0  # the step of val_loss
    best_val_loss: float | None = None
    best_step: int = 0
    evals_without_gain: int = 0
    window_nll: float = 0.0  # nats, summed since the last evaluation
    window_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def close_window(self) -> None:
        """Turn what was summed since the last evaluation into its mean; a skipped step counts no tokens."""
        if self.window_tokens:
            self.train_loss = self.window_nll / self.window_tokens
            self.window_nll, self.window_tokens = 0.0, 0


@dataclass(frozen=True)
class Settings:
    """How long, how often and how carefully. A cadence of 0 is off."""

    max_steps: int
    grad_clip: float = 1.0
    eval_every: int = 0
    save_every: int = 0
    sample_every: int = 0
    patience: int = 0
    computing: Callable[[], AbstractContextManager[Any]] = nullcontext  # around forward and backward passes


@dataclass(frozen=True)
class Hooks:
    """What happens outside the mathematics. Each is optional.

    `save` returns whether the checkpoint is on disk. `roll_back` puts the weights, optimizer and random state of the
    last good one back and returns its state, or None where there is none. `observe` is called with the facts of each
    step and validation before they are logged: what it adds to them is logged too.
    """

    validate: Callable[[], float] | None = None
    save: Callable[[State], bool] | None = None
    roll_back: Callable[[], State | None] | None = None
    sample: Callable[[int], None] | None = None
    observe: Callable[[State, dict[str, Any]], None] | None = None
    log: RunLog | None = None
    progress: Progress | None = None
