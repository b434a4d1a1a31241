"""`--find-lr`: a few short runs from the same start weights, and the learning rate whose validation loss is lowest.

Not the training loss, which a rate that only memorises lowers too; and at a constant rate, because a decay within the
short run would favour rates that are too high for the long one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tunesmith.core.errors import Interrupted, ModelError, UsageError
from tunesmith.core.runlog import say
from tunesmith.model.compute import Computing
from tunesmith.train import chance, loop
from tunesmith.train.config import TrainConfig
from tunesmith.train.data import Data
from tunesmith.train.objective import computed
from tunesmith.train.plan_batches import ExampleSource, MicroBatch, cut
from tunesmith.train.session import make_optimizers
from tunesmith.train.signals import Stop, Stopped

Losses = npt.NDArray[np.float64]  # (G, 2): summed nats and trained tokens of each group of validation rows

_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the usual rate
_FURTHER = 3  # rates beyond these, where the best is the outermost
_SHARE, _LEAST, _MOST = 0.08, 20, 200  # steps of a trial: a share of the run's, and its bounds
_WARMUP = 0.25  # of a trial
_GROUPS = 32  # of validation rows: enough to tell from their differences what is noise


@dataclass(frozen=True)
class Trial:
    """A rate, and the validation losses that it came to."""

    rate: float
    losses: Losses

    @property
    def val_loss(self) -> float:
        """Nats a trained token; infinite where it is not finite."""
        nats, tokens = self.losses.sum(0)
        return float(nats / tokens) if math.isfinite(nats) else math.inf


@dataclass(frozen=True)
class Sweep:
    """What was tried, lowest rate first, and what is taken."""

    trials: list[Trial]
    taken: Trial
    before: float  # the validation loss at the start
    steps: int  # of each trial

    @property
    def facts(self) -> dict[str, Any]:
        """For the receipt. A loss that is not finite is null."""
        losses = {f"{t.rate:g}": t.val_loss if math.isfinite(t.val_loss) else None for t in self.trials}
        return {"taken": self.taken.rate, "steps": self.steps, "val_loss_before": self.before, "val_loss": losses}

    def table(self) -> str:
        return "\n".join(f"  {t.rate:<9g} {self._result(t)}" for t in self.trials)

    def _result(self, trial: Trial) -> str:
        if trial.val_loss >= self.before:
            return "diverged"
        lowest = min(t.val_loss for t in self.trials)
        if trial is not self.taken:
            return f"{trial.val_loss:.4f}"
        return f"{trial.val_loss:.4f}  taken" + (
            ", and not the lowest: see docs/train.md" if trial.val_loss > lowest else ""
        )


def find_lr(config: TrainConfig, model: nn.Module, data: Data, computing: Computing, pad_id: int | None) -> Sweep:
    """Try rates around the config's, each from the weights of `model`, which it has again afterwards; say the result.

    Raises UsageError without validation rows, ModelError where every rate diverges, Interrupted when asked to stop.
    """
    if not data.valid.kept:
        fix = "give a learning_rate, or more rows, so that some can be held out"
        raise UsageError("--find-lr judges by the validation loss, and the set has no validation rows", fix=fix)
    assert config.learning_rate is not None  # `decide` filled it in
    room = min(config.micro_batch_tokens, -(-data.valid.tokens // _GROUPS))
    valid = cut(data.valid.kept, room, pad_id)
    with loop.stop_signals() as stop:
        trials = _Trials(config, model, data, replace(computing, compiled=False), valid, pad_id, stop)
        try:
            before = Trial(0.0, trials.measure()).val_loss
            say(f"  trying learning rates, {trials.steps} steps each; validation loss {before:.4f} before")
            found = search(trials.run, config.learning_rate, before)
        except Stopped:
            what = "stopped while learning rates were tried; nothing is trained yet"
            raise Interrupted(what, fix="the same command with --resume") from None
    sweep = Sweep(found, choose(found), before, trials.steps)
    say(sweep.table())
    return sweep


def search(run: Callable[[float], Trial], around: float, before: float) -> list[Trial]:
    """The usual five, and further out while the best is at an end. Raises ModelError where none is below `before`."""
    trials = [run(_rounded(around * factor)) for factor in _FACTORS]
    for _ in range(_FURTHER):
        best = min(trials, key=lambda t: t.val_loss)
        if best is trials[-1]:
            trials.append(run(_rounded(2 * best.rate)))
        elif best is trials[0] or best.val_loss >= before:
            trials.insert(0, run(_rounded(trials[0].rate / 2)))
    if min(t.val_loss for t in trials) >= before:
        what = f"at every learning rate from {trials[0].rate:g} to {trials[-1].rate:g} the validation loss rose"
        raise ModelError(what, expected=f"less than {before:.4f}", fix="a lower --learning-rate, or other data")
    return trials


def choose(trials: list[Trial]) -> Trial:
    """The lowest rate that is as good as the best: above it by no more than the standard error of their difference.

    The groups of rows are the same in each trial, so the difference is taken group by group. Where the rate above the
    best does worse than the one below it, training is about to break: a long run does not bear what a short one does,
    so the rate below is taken (bench/learning.py, LoRA on the demo: half the best rate ended a quarter lower).
    """
    best = min(trials, key=lambda t: t.val_loss)
    at = trials.index(best)
    if 0 < at < len(trials) - 1 and trials[at - 1].val_loss < trials[at + 1].val_loss:
        best = trials[at - 1]
    return next(t for t in trials if t is best or _as_good(t, best))


def _as_good(trial: Trial, best: Trial) -> bool:
    if not math.isfinite(trial.val_loss):
        return False
    tokens = best.losses[:, 1]
    more = trial.losses[:, 0] - best.losses[:, 0]
    mean = more.sum() / tokens.sum()
    groups = len(tokens)  # of a ratio of sums: the spread of what each group adds beyond the mean
    error = math.sqrt(groups / max(1, groups - 1) * float(((more - mean * tokens) ** 2).sum())) / tokens.sum()
    return bool(mean <= error)


@dataclass(frozen=True)
class _Trials:
    """What every trial starts from."""

    config: TrainConfig
    model: nn.Module
    data: Data
    computing: Computing
    valid: list[MicroBatch]
    pad_id: int | None
    stop: Stop

    @property
    def steps(self) -> int:
        whole = self.config.max_steps or 0
        return min(whole, max(_LEAST, min(_MOST, round(_SHARE * whole))))

    def measure(self) -> Losses:
        objective, context = computed(self.computing), self.computing.measuring
        sizes = [one.trained_tokens for one in self.valid]
        means = [loop.mean_loss(self.model, [one], context, self.stop, objective) for one in self.valid]
        return np.array([means, np.ones(len(sizes))]).T * np.array(sizes)[:, None]

    def run(self, rate: float) -> Trial:
        """Train for a few steps, measure, and put weights and chance back."""
        config, micro = self.config, self.config.micro_batch_tokens
        trained = [p for p in self.model.parameters() if p.requires_grad]
        start, before = [p.detach().clone() for p in trained], chance.take()
        changes = {"learning_rate": rate, "max_steps": self.steps, "lr_schedule": "constant", "warmup_ratio": _WARMUP}
        optimizers = make_optimizers(config.model_copy(update=changes), self.model)
        self.computing.begin(self.model, optimizers)
        source = ExampleSource(self.data.train.kept, config.rows_a_step, micro, self.pad_id, config.seed)
        settings = loop.Settings(self.steps, config.grad_clip, computing=self.computing.training)
        try:
            loop.fit(self.model, source, optimizers, settings, objective=computed(self.computing), stop=self.stop)
            self.stop.check()
            return Trial(rate, self.measure())
        except ModelError:  # weights or gradients that are not finite
            return Trial(rate, np.array([(math.inf, 1.0)]))
        finally:
            for p, weights in zip(trained, start, strict=True):
                p.data = weights
            chance.put_back(before)


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")
