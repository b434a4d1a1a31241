"""The one training loop: pretraining, continued pretraining, instruction tuning, LoRA.

They differ in three arguments: where batches come from, what is minimised, and which parameters the optimizer holds.
It works on any `nn.Module`. A step's gradient is that of the mean over all its trained tokens, however it was cut.

What goes wrong costs as little as it can: a gradient that is not finite one step, ten in a row the way back to the last
checkpoint with half the learning rate, memory that runs out one attempt, a signal the micro-batch it interrupts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ResourceError
from tunesmith.core.runlog import say
from tunesmith.model.optim import Optimizers
from tunesmith.train import chance, out_of_memory
from tunesmith.train.monitor import note
from tunesmith.train.objective import Objective, next_token
from tunesmith.train.out_of_memory import OutOfMemory
from tunesmith.train.plan_batches import MicroBatch, Source, halve
from tunesmith.train.rescue import MAX_SKIPPED, Saver, finite_weights, rolled_back
from tunesmith.train.signals import Stop, Stopped, stop_signals
from tunesmith.train.state import Hooks, Settings, State

__all__ = ["Hooks", "Settings", "State", "Stop", "Stopped", "backward", "fit", "mean_loss", "stop_signals"]


@dataclass(frozen=True)
class _Fit:
    """What every step of one `fit` needs."""

    model: nn.Module
    optimizers: Optimizers
    objective: Objective
    settings: Settings
    hooks: Hooks
    stop: Stop

    def due(self, every: int, state: State) -> bool:
        """At each multiple, and at the last step."""
        return bool(every) and (state.step % every == 0 or state.step == self.settings.max_steps)


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
    """Train until `max_steps`, until early stopping, or until `stop`. Returns the state; the weights are in `model`.

    Raises ModelError when the run keeps diverging and ResourceError when not even one row fits in memory.
    """
    hooks, state, stop = hooks or Hooks(), state or State(), stop or Stop()
    ours = _Fit(model, optimizers, objective, settings, hooks, stop)
    model.train()
    saver, started = Saver(hooks.save, state.step), time.monotonic() - state.seconds
    try:
        while not _settled(ours, saver, state) and not stop.requested:
            facts = _step(ours, source, state)
            state.seconds = time.monotonic() - started
            _report(hooks, state, facts)
            if state.skipped >= MAX_SKIPPED or _unsound(ours, saver, state):
                state = rolled_back(hooks, state)
                saver.step = state.step
            elif ours.due(settings.sample_every, state) and hooks.sample:
                hooks.sample(state.step)
    except Stopped:
        optimizers.clear()
    if stop.requested:
        saver.save(state)
    state.close_window()
    return state


def _settled(ours: _Fit, saver: Saver, state: State) -> bool:
    """Validate and save what is due at this step, once. Returns whether the training is at its end."""
    settings = ours.settings
    best = state.best_step, state.best_val_loss
    improved = _evaluate(ours, state)
    last = state.step == settings.max_steps
    due = state.skipped == 0 and (ours.due(settings.save_every, state) or saver.overdue())  # what may be gone back to
    if improved or due:
        saved = saver.save(state)
        if improved and not saved and not last:
            state.best_step, state.best_val_loss = best  # the best is what can be brought back
    return state.step >= settings.max_steps or 0 < settings.patience <= state.evals_without_gain


def _step(ours: _Fit, source: Source, state: State) -> dict[str, Any]:
    """One optimizer step. Returns its facts; nothing in them makes a device wait but the loss and the norm."""
    began = time.monotonic()
    micros = source.step(state.step)
    waited = time.monotonic() - began
    loss, norm = _gradient(ours, micros, state)
    rate = _update(ours, state, loss, norm)
    trained, tokens = sum(m.trained_tokens for m in micros), sum(m.tokens for m in micros)
    state.step += 1
    state.trained_tokens += trained
    state.tokens += tokens
    if state.skipped == 0:
        state.window_nll, state.window_tokens = state.window_nll + loss * trained, state.window_tokens + trained
    seconds = time.monotonic() - began
    return {
        "train_loss": loss,
        "learning_rate": rate,
        "grad_norm": norm,
        "tokens": tokens,
        "trained_tokens": trained,
        "positions": sum(m.input_ids.size for m in micros),
        "pairs": sum(m.pairs for m in micros),
        "tokens_per_second": tokens / max(1e-9, seconds),
        "seconds": seconds,
        "wait_seconds": waited,
    }


def _gradient(ours: _Fit, micros: list[MicroBatch], state: State) -> tuple[float, float]:
    """`backward`, in smaller micro-batches where memory runs out. One that is stopped leaves no trace."""
    while True:
        parts, before = out_of_memory.within(micros, state.micro_limit), chance.take()
        try:
            with out_of_memory.caught():
                return backward(ours.model, parts, ours.objective, ours.settings, ours.stop)
        except Stopped:
            chance.put_back(before)
            raise
        except OutOfMemory:
            pass  # not freed in here: the error still holds the tensors
        ours.optimizers.clear()
        out_of_memory.free()
        chance.put_back(before)
        state.micro_limit = _smaller(ours, parts, state)


def _smaller(ours: _Fit, parts: list[MicroBatch], state: State) -> int:
    """What micro-batches may have from now on. Raises ResourceError where each is one row already."""
    limit = out_of_memory.next_limit(parts)
    if limit is None:
        raise out_of_memory.refuse(lambda one: backward(ours.model, [one], ours.objective, ours.settings), parts)
    say(
        f"warning: memory ran out in step {state.step + 1}. From here on, micro-batches of several rows have at most "
        f"{limit:,} tokens: a little slower, and the same gradient"
    )
    return limit


def backward(
    model: nn.Module, micros: list[MicroBatch], objective: Objective, settings: Settings, stop: Stop | None = None
) -> tuple[float, float]:
    """Accumulate the gradient of the mean loss over all trained tokens; clip it. Returns (loss, gradient norm).

    Raises Stopped before the next micro-batch when `stop` is requested.
    """
    total = max(1, sum(m.trained_tokens for m in micros))
    sums = []
    for micro in micros:
        if stop:
            stop.check()
        with settings.computing():  # the backward pass too: recomputed activations are to be the same
            nll = objective(model, micro)
            (nll / total).backward()
        sums.append(nll.detach().double())
    trained = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(trained, settings.grad_clip or math.inf)
    return float(torch.stack(sums).sum()) / total, float(norm)  # a device is waited for here, and only here


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    micros: list[MicroBatch],
    computing: Callable[[], AbstractContextManager[Any]] = nullcontext,
    stop: Stop | None = None,
    objective: Objective = next_token,
) -> float:
    """The mean negative log-likelihood (nats a trained token) over micro-batches, without dropout.

    Raises Stopped before the next micro-batch when `stop` is requested.
    """
    training = model.training
    model.eval()
    total = 0.0
    try:
        with computing():
            for micro in micros:
                if stop:
                    stop.check()
                total += _nll(model, micro, objective)
    finally:
        model.train(training)
    return total / max(1, sum(m.trained_tokens for m in micros))


def _nll(model: nn.Module, micro: MicroBatch, objective: Objective) -> float:
    """Of one micro-batch, in halves where memory runs out."""
    try:
        with out_of_memory.caught():
            return float(objective(model, micro))
    except OutOfMemory:
        parts = halve(micro)
    out_of_memory.free()
    if len(parts) == 1:
        raise out_of_memory.refuse(lambda one: objective(model, one), [micro])
    return sum(_nll(model, part, objective) for part in parts)


def _update(ours: _Fit, state: State, loss: float, norm: float) -> float:
    """Step, or leave the step out when its loss or gradient is not finite. Returns the learning rate, or 0."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        ours.optimizers.clear()
        state.skipped, state.steps_skipped = state.skipped + 1, state.steps_skipped + 1
        return 0.0
    state.skipped = 0
    try:
        with out_of_memory.caught():
            return ours.optimizers.step(state.step, 0.5**state.rollbacks)
    except OutOfMemory as error:
        what = "the state of the optimizer does not fit in memory"
        raise ResourceError(what, fix="--method lora, or a smaller base") from error


def _unsound(ours: _Fit, saver: Saver, state: State) -> bool:
    """Whether the weights overflowed: looked at where they may be saved or used, for it costs a pass over them."""
    settings = ours.settings
    last = state.step == settings.max_steps or ours.stop.requested or saver.overdue()
    if not (last or ours.due(settings.save_every, state) or ours.due(settings.eval_every, state)):
        return False
    return not finite_weights(ours.model)


def _report(hooks: Hooks, state: State, facts: dict[str, Any]) -> None:
    if hooks.observe:
        hooks.observe(state, facts)
    if hooks.log:
        hooks.log.write({"step": state.step, **facts})
    if hooks.progress:
        hooks.progress.advance(note(facts))


def _evaluate(ours: _Fit, state: State) -> bool:
    """Measure the validation loss when it is due and not known. Returns whether it is the best so far."""
    hooks = ours.hooks
    if not hooks.validate or state.evaluated == state.step or not ours.due(ours.settings.eval_every, state):
        return False
    state.val_loss = hooks.validate()
    state.evaluated = state.step
    state.close_window()
    best = math.inf if state.best_val_loss is None else state.best_val_loss
    improved = state.val_loss < best  # never one that is not a number
    state.evals_without_gain = 0 if improved else state.evals_without_gain + 1
    if improved:
        state.best_val_loss, state.best_step = state.val_loss, state.step
    facts: dict[str, Any] = {"train_loss_mean": state.train_loss, "val_loss": state.val_loss}
    if hooks.observe:
        hooks.observe(state, facts)
    if hooks.log:
        hooks.log.write({"step": state.step, **facts})
    if hooks.progress:
        train = math.nan if state.train_loss is None else state.train_loss
        hooks.progress.say(f"  step {state.step}: train loss {train:.3f}, val loss {state.val_loss:.3f}")
    return improved
