"""Before the first step: whether the training fits in memory, what is changed so that it does, or what would.

Nothing here changes the result: activations may be made again in the backward pass, and micro-batches may be smaller.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tunesmith.core.errors import ResourceError
from tunesmith.core.runlog import say
from tunesmith.model import device as machine
from tunesmith.model import load, memory
from tunesmith.model.adapter import add_lora
from tunesmith.model.attention import STRANGE
from tunesmith.model.compute import Computing
from tunesmith.text.render import Example
from tunesmith.train.config import TrainConfig
from tunesmith.train.plan_batches import ExampleSource, Trainable
from tunesmith.train.session import make_optimizers

DECIDED = ("gradient_checkpointing", "micro_batch_tokens")  # fields of the config that are decided here
_SLACK = 1.05  # of the predicted peak, where there is room: what is given back is soon taken anew (docs/log.md)
_STEPS = 200  # whose micro-batches are looked at for the largest one
_GRID = 64  # tokens: a max_length that is offered is a multiple, as one that is decided


@dataclass(frozen=True)
class Room:
    """Before the model is loaded: what this process holds of the device's memory, and what is free (GB of 1e9 bytes).

    `stored` is the format of the base's weights.
    """

    held: float
    free: float
    stored: torch.dtype


@dataclass(frozen=True)
class Plan:
    """A way to train, and what it takes: `parts` at the peak (bytes), and the whole with what the process held (GB)."""

    config: TrainConfig
    computing: Computing
    parts: memory.Parts
    gb: float

    def facts(self, asked: TrainConfig) -> dict[str, Any]:
        """For the receipt. `asked` and `decided` are there for a resumed run, which must not decide anew."""
        parts = {name: round(size / machine.GB, 4) for name, size in vars(self.parts).items()}
        values = {
            key: {name: getattr(one, name) for name in DECIDED}
            for key, one in (("asked", asked), ("decided", self.config))
        }
        return {"predicted_gb": round(self.gb, 3), "parts": parts, **values}


def room(base: Path) -> Room:
    device = machine.pick_device()
    return Room(machine.held_memory_gb(device), machine.available_memory_gb(device), load.stored_dtype(base))


def plan_memory(
    config: TrainConfig,
    computing: Computing,
    rows: Sequence[Trainable],
    pad_id: int | None,
    before: Room,
    *,
    settled: bool = False,
) -> Plan | None:
    """The first way to train that fits, from what was asked to what takes least; None where it cannot be told.

    A resumed run is `settled`: it goes on as it began. Raises ResourceError, with the smallest change that fits.
    """
    planner = _Planner(computing, rows, None if computing.packed else pad_id, before)
    try:
        asked = planner.plan(config)
    except STRANGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        say(f"  memory: cannot be predicted for this model ({reason})")
        return None
    ways = [config] if settled else _ways(config, planner.longest)
    chosen = next(filter(planner.fits, map(planner.plan, ways)), asked if settled else None)
    if chosen is None:
        raise _refusal(planner, config)
    say(_line(chosen, before))
    if not planner.fits(chosen):
        say("warning: that is more than there is, and more than when this run was begun")
    for name in DECIDED:
        if getattr(chosen.config, name) not in (getattr(config, name), "off"):
            say(f"  {name} = {getattr(chosen.config, name)}: without it, {asked.gb:.2f} GB")
    return chosen


def as_decided(config: TrainConfig, before: dict[str, Any]) -> TrainConfig:
    """What was decided when the run whose receipt is `before` was begun, where the same was asked for then."""
    found = before.get("memory", {})
    same = "decided" in found and all(getattr(config, name) == found["asked"][name] for name in DECIDED)
    return config.model_copy(update=found["decided"]) if same else config


def compared(facts: dict[str, Any], measured_gb: float) -> dict[str, Any]:
    """The prediction with what was measured and the error (%) beside it; and it is said."""
    predicted, measured_gb = facts["predicted_gb"], round(measured_gb, 3)
    error = 100 * (predicted / measured_gb - 1)
    say(f"  memory: {predicted:.2f} GB predicted, {measured_gb:.2f} GB measured at the peak ({error:+.1f} %)")
    return facts | {"measured_gb": measured_gb, "error_percent": round(error, 1)}


class _Planner:
    """Predictions for a run's base and rows. A dry run each, so none is made twice."""

    def __init__(self, computing: Computing, rows: Sequence[Trainable], pad_id: int | None, before: Room) -> None:
        self.computing, self.rows, self.pad_id, self.before = computing, rows, pad_id, before
        self.longest = max(len(row.ids) for row in rows)
        self._made: dict[str, Plan] = {}

    def plan(self, config: TrainConfig) -> Plan:
        key = config.model_dump_json()
        if key not in self._made:
            self._made[key] = self._plan(config)
        return self._made[key]

    def fits(self, plan: Plan) -> bool:
        return plan.gb <= self.before.held + self.before.free

    def least(self, config: TrainConfig) -> Plan:
        """The last of the ways to train."""
        return self.plan(list(_ways(config, self.longest))[-1])

    def dtype(self, config: TrainConfig) -> torch.dtype:
        return machine.pick_dtype(config.dtype, self.computing.device)[0]

    def _plan(self, config: TrainConfig) -> Plan:
        dtype = self.dtype(config)
        copies = dtype if dtype != torch.float32 and config.optimizer == "adamw" else None
        checkpointed = config.gradient_checkpointing == "on"
        computing = replace(self.computing, dtype=dtype, copies=copies, checkpointed=checkpointed)
        micro = largest(config, self.rows, self.pad_id)
        parts = memory.dry_run(
            memory.Job(
                self.computing.model.config,
                self.before.stored if config.method == "lora" else torch.float32,
                lambda model: _adapted(config, model),
                lambda model: make_optimizers(config, model),
                computing,
                micro,
            )
        )
        peak = self.before.held + memory.taken_gb(parts.total, computing, micro.varied)
        limit = min(_SLACK * peak, max(peak, self.before.held + self.before.free))
        return Plan(config, replace(computing, limit_gb=limit), parts, peak)


def _adapted(config: TrainConfig, model: PreTrainedModel) -> nn.Module:
    if config.method == "full":
        return model
    return add_lora(model, config.lora_rank, config.lora_alpha, config.lora_dropout, config.target_modules)


def _ways(config: TrainConfig, longest: int) -> Iterator[TrainConfig]:
    """What was asked for first; then activations made again, where that is open; then smaller micro-batches."""
    if config.gradient_checkpointing == "auto":
        config = config.model_copy(update={"gradient_checkpointing": "off"})
        yield config
        config = config.model_copy(update={"gradient_checkpointing": "on"})
    yield config
    while config.micro_batch_tokens > longest:
        config = config.model_copy(update={"micro_batch_tokens": max(longest, config.micro_batch_tokens // 2)})
        yield config


def _refusal(planner: _Planner, config: TrainConfig) -> ResourceError:
    """With the first of a few changes, from the smallest on, that does fit."""
    there = planner.before.held + planner.before.free
    least = planner.least(config).gb
    what = f"training holds at least {least:.1f} GB at its peak, and {there:.1f} GB of memory are there"
    changes = _changes(config, planner.dtype(config))
    for flags, change in changes.items():
        if planner.fits(planner.least(change)):
            return ResourceError(what, fix=flags)
    for flags, change in ({"": config} | changes).items():
        if length := _longest_that_fits(planner, change):
            longer = sum(len(row.ids) > length for row in planner.rows)
            expected = f"rows of at most {length} tokens; {longer} of {len(planner.rows)} are longer"
            return ResourceError(what, expected=expected, fix=f"{flags} --max-length {length}".strip())
    return ResourceError(what, fix=f"a smaller base, or {least - there:.1f} GB more memory")


def _changes(config: TrainConfig, dtype: torch.dtype) -> dict[str, TrainConfig]:
    """The flags to type, and the config that they make."""
    updates: dict[str, dict[str, Any]] = {}
    if config.gradient_checkpointing == "off":
        updates["--gradient-checkpointing auto"] = {"gradient_checkpointing": "auto"}
    if dtype == torch.float32:
        updates["--dtype bfloat16"] = {"dtype": "bfloat16"}
    if config.method == "full":
        updates["--method lora"] = {"method": "lora"}
    if dtype == torch.float32 and config.method == "full":
        updates["--method lora --dtype bfloat16"] = {"method": "lora", "dtype": "bfloat16"}
    return {flags: config.model_copy(update=one) for flags, one in updates.items()}


def _longest_that_fits(planner: _Planner, config: TrainConfig) -> int:
    """The largest max_length below that of the rows, in whole steps of it, with which they fit; or 0."""

    def too_long(steps: int) -> bool:
        rows = [Example([*row.ids[: steps * _GRID]], [*row.mask[: steps * _GRID]], row.row_id) for row in planner.rows]
        shorter = _Planner(planner.computing, rows, planner.pad_id, planner.before)
        return not shorter.fits(shorter.least(config))

    return _GRID * bisect_left(range(1, -(-planner.longest // _GRID)), True, key=too_long)


def largest(config: TrainConfig, rows: Sequence[Trainable], pad_id: int | None) -> memory.Micro:
    """The largest micro-batch of the run's first steps, with the most trained tokens of any."""
    source = ExampleSource(rows, config.rows_a_step, config.micro_batch_tokens, pad_id, config.seed)
    steps = [source.step(n) for n in range(min(config.max_steps or 1, source.steps_per_epoch, _STEPS))]
    micros = [micro for step in steps for micro in step]
    most = max(micros, key=lambda micro: micro.input_ids.size)
    trained = max(1, *(micro.trained_tokens for micro in micros))
    varied = len({tuple(micro.lengths) for micro in micros}) > 1
    return memory.Micro(most.lengths.tolist(), trained, any(len(step) > 1 for step in steps), varied)


def _line(plan: Plan, before: Room) -> str:
    sizes = sorted(vars(plan.parts).items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {size / machine.GB:.2f}" for name, size in sizes[:4] if size)
    return (
        f"  memory: about {plan.gb:.2f} GB at the peak ({shown}), {before.held:.2f} held and {before.free:.1f} free now"
    )
