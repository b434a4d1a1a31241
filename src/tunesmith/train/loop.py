"""The one training loop: pretraining, continued pretraining, instruction tuning, LoRA.

They differ in three arguments: where batches come from, what is minimised, and which parameters the optimizer holds.
It works on any `nn.Module`. A step's gradient is that of the mean over all its trained tokens, however it was cut.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.runlog import Progress, RunLog
from tunesmith.model.optim import Optimizers
from tunesmith.train.objective import Objective, next_token
from tunesmith.train.plan_batches import MicroBatch, Source

_MAX_SKIPPED = 10  # consecutive steps with a gradient that is not finite, before the run is given up


@dataclass
class State:
    """All that the loop must remember besides weights and optimizer; saved in every checkpoint."""

    step: int = 0
    trained_tokens: int = 0
    tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0
    train_loss: float | None = None  # the mean of the steps since the last evaluation
    val_loss: float | None = None
    best_val_loss: float | None = None
    best_step: int = 0
    evals_without_gain: int = 0
    window_nll: float = 0.0  # nats, summed since the last evaluation
    window_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Settings:
    """How long, how often and how carefully. A cadence of 0 is off."""

    max_steps: int
    grad_clip: float = 1.0
    eval_every: int = 0
    save_every: int = 0
    sample_every: int = 0
    patience: int = 0
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Hooks:
    """What happens outside the mathematics. Each is optional."""

    validate: Callable[[], float] | None = None
    save: Callable[[State], None] | None = None
    sample: Callable[[int], None] | None = None
    log: RunLog | None = None
    progress: Progress | None = None


class Stop:
    """Set by Ctrl-C or SIGTERM: the loop ends the step it is in, saves, and returns."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt  # a second Ctrl-C means now
        self.requested = True


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a request to stop; the earlier handlers come back after."""
    stop = Stop()
    try:
        old = {s: signal.signal(s, stop.request) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def fit(
    model: nn.Module,
    source: Source,
    optimizers: Optimizers,
    settings: Settings,
    *,
    hooks: Hooks | None = None,
    objective: Objective = next_token,
    state: State | None = None,
    stop: Stop | None = None,
) -> State:
    """Train until `max_steps`, until early stopping, or until `stop`. Returns the state; the weights are in `model`."""
    hooks, state, stop = hooks or Hooks(), state or State(), stop or Stop()
    model.train()
    started = time.monotonic() - state.seconds
    while state.step < settings.max_steps and not stop.requested:
        began = time.monotonic()
        micros = source.step(state.step)
        loss, norm = backward(model, micros, objective, settings)
        rate = _update(optimizers, state, norm)
        state.step += 1
        trained, tokens = sum(m.trained_tokens for m in micros), sum(m.tokens for m in micros)
        state.trained_tokens += trained
        state.tokens += tokens
        if state.skipped == 0:
            state.window_nll, state.window_tokens = state.window_nll + loss * trained, state.window_tokens + trained
        state.seconds = time.monotonic() - started
        speed = tokens / max(1e-9, time.monotonic() - began)
        _report(
            hooks, state, {"train_loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens_per_second": speed}
        )
        if _due(settings.sample_every, state, settings) and hooks.sample:
            hooks.sample(state.step)
        improved = _evaluate(model, settings, hooks, state)
        if hooks.save and (improved or stop.requested or _due(settings.save_every, state, settings)):
            hooks.save(state)
        if settings.patience and state.evals_without_gain >= settings.patience:
            break
    _close_window(state)
    return state


def backward(
    model: nn.Module, micros: list[MicroBatch], objective: Objective, settings: Settings
) -> tuple[float, float]:
    """Accumulate the gradient of the mean loss over all trained tokens; clip it. Returns (loss, gradient norm)."""
    total = sum(m.trained_tokens for m in micros)
    loss = 0.0
    for micro in micros:
        with settings.autocast():
            nll = objective(model, micro)
        (nll / total).backward()
        loss += float(nll.detach()) / total
    trained = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(trained, settings.grad_clip or math.inf)
    return loss, float(norm)


@torch.no_grad()
def mean_loss(
    model: nn.Module, micros: list[MicroBatch], autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> float:
    """The mean negative log-likelihood (nats a trained token) over micro-batches, without dropout."""
    training = model.training
    model.eval()
    total = 0.0
    with autocast():
        for micro in micros:
            total += float(next_token(model, micro))
    model.train(training)
    return total / max(1, sum(m.trained_tokens for m in micros))


def _update(optimizers: Optimizers, state: State, norm: float) -> float:
    """Step, or skip the step when its gradient is not finite: one bad batch must not end a run, ten in a row do."""
    if math.isfinite(norm):
        state.skipped = 0
        return optimizers.step(state.step)
    optimizers.clear()
    state.skipped += 1
    if state.skipped >= _MAX_SKIPPED:
        what = f"the gradient was not finite for {_MAX_SKIPPED} steps in a row (step {state.step})"
        raise ModelError(what, fix="lower --learning-rate, or --dtype float32")
    return 0.0


def _close_window(state: State) -> None:
    """Turn what was summed since the last evaluation into its mean; a skipped step counts no tokens."""
    if state.window_tokens:
        state.train_loss = state.window_nll / state.window_tokens
        state.window_nll, state.window_tokens = 0.0, 0


def _due(every: int, state: State, settings: Settings) -> bool:
    return bool(every) and (state.step % every == 0 or state.step == settings.max_steps)


def _report(hooks: Hooks, state: State, facts: dict[str, float]) -> None:
    if hooks.log:
        hooks.log.write({"step": state.step, **facts})
    if hooks.progress:
        note = (
            f"loss {facts['train_loss']:.3f}  lr {facts['learning_rate']:.1e}  {facts['tokens_per_second']:,.0f} tok/s"
        )
        hooks.progress.advance(note)


def _evaluate(model: nn.Module, settings: Settings, hooks: Hooks, state: State) -> bool:
    """Measure the validation loss when it is due. Returns whether it is the best so far."""
    if not hooks.validate or not _due(settings.eval_every, state, settings):
        return False
    state.val_loss = hooks.validate()
    _close_window(state)
    best = math.inf if state.best_val_loss is None else state.best_val_loss
    improved = state.val_loss < best  # never one that is not a number
    state.evals_without_gain = 0 if improved else state.evals_without_gain + 1
    if improved:
        state.best_val_loss, state.best_step = state.val_loss, state.step
    if hooks.log:
        hooks.log.write({"step": state.step, "train_loss_mean": state.train_loss, "val_loss": state.val_loss})
    if hooks.progress:
        train = math.nan if state.train_loss is None else state.train_loss
        hooks.progress.say(f"  step {state.step}: train loss {train:.3f}, val loss {state.val_loss:.3f}")
    return improved
