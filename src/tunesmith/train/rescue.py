"""When to save, and the way back from weights that cannot be trained any further."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.runlog import say
from tunesmith.train.state import Hooks, State

MAX_SKIPPED = 10  # consecutive steps with a gradient that is not finite, before the run goes back
_MAX_ROLLBACKS = 2  # each halves the learning rate; a run that still diverges is better given up
_SAVE_SHARE = 50  # a checkpoint is due when saving took less than a 50th of the time since: at most 2 % of a run
_SAVE_SECONDS = 60.0  # and no more often than this, however fast the disk


class Saver:
    """When a checkpoint is due by time, and which step is on disk."""

    def __init__(self, save: Callable[[State], bool] | None, step: int) -> None:
        self._save, self.step, self._at, self._cost = save, step, time.monotonic(), 0.0

    def overdue(self) -> bool:
        return time.monotonic() - self._at >= max(_SAVE_SECONDS, _SAVE_SHARE * self._cost)

    def save(self, state: State) -> bool:
        """Save, unless this step is on disk. Returns whether it is; one that failed is tried again when it is due."""
        if self._save is None or state.step == self.step:
            return True
        began = time.monotonic()
        saved = self._save(state)
        self._at = time.monotonic()
        self._cost = self._at - began
        self.step = state.step if saved else self.step
        return saved


def rolled_back(hooks: Hooks, state: State) -> State:
    """The state of the last good checkpoint, to go on from with half the learning rate.

    Raises ModelError where there is none, and after too many.
    """
    cause = f"the gradient was not finite for {state.skipped} steps in a row" if state.skipped else "weights overflowed"
    what = f"{cause} (step {state.step})"
    back = hooks.roll_back() if hooks.roll_back and state.rollbacks < _MAX_ROLLBACKS else None
    if back is None:
        tried = f", even with {0.5**state.rollbacks:g} of the learning rate" if state.rollbacks else ""
        raise ModelError(what + tried, fix="a lower --learning-rate, or --dtype float32")
    new = replace(back, rollbacks=state.rollbacks + 1, steps_skipped=state.steps_skipped)
    scale = 0.5**new.rollbacks
    say(f"warning: {what}: back to the checkpoint of step {new.step}, with {scale:g} of the learning rate")
    if hooks.log:
        hooks.log.write({"step": new.step, "rolled_back_from": state.step, "learning_rate_scale": scale})
    if hooks.progress:
        hooks.progress.advance("rolled back", new.step - state.step)
    return new


def finite_weights(model: nn.Module) -> bool:
    """A pass over all that is trained: for where the weights could be saved, not for every step."""
    return all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad)
