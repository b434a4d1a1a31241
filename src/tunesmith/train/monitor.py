"""What a step cost and whether the run is well: the facts that the loop measured, with what follows from them.

MFU is the share of the machine's measured peak that went into useful work. Useful are the matrix products that the
gradient of the scored tokens takes: not padding, not a head over tokens without a label, not what is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from tunesmith.core import curve
from tunesmith.core.runlog import say
from tunesmith.model.device import peak_memory_gb, pick_device
from tunesmith.model.peak import Peak
from tunesmith.model.shape import Shape, flops_per_token, shape_of
from tunesmith.train.alerts import History, clock, due, eta
from tunesmith.train.state import State

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # where a config says that not all weights are used
_NOT_SENT = {"positions", "pairs", "seconds", "wait_seconds", "eta_seconds"}


@dataclass(frozen=True)
class Work:
    """What useful work is computed from, and what it is held against.

    `attention`: FLOPs of a pair of tokens in the forward pass, 4 x layers x heads x width of a head (scores and
    weighted sum, 2 each); 0 where it is left out.
    """

    shape: Shape
    attention: int
    peak: Peak

    def flops(self, tokens: float, trained: float, pairs: float = 0.0) -> float:
        """Useful FLOPs of a step. `pairs`: of a token and one that it attends to in its document, itself included."""
        return tokens * flops_per_token(self.shape, trained / tokens) + 3 * self.attention * pairs

    def formula(self) -> str:
        """What is counted, in one line for the log."""
        terms, where = "6N + 6fH", f"N = {self.shape.blocks:,} in the blocks, H = {self.shape.head:,} in the head"
        if self.shape.lora:  # a frozen matrix has no gradient of its own
            terms, where = "4N + 4fH + 6n", f"{where}, n = {self.shape.lora:,} of LoRA"
        if self.attention:
            terms, where = f"{terms} + 3A", f"{where}, A = {self.attention:,} x the mean context"
        return f"MFU: {terms} FLOP a token ({where}, f = the share of scored tokens), of {self.peak}"


def work_of(model: PreTrainedModel, peak: Peak) -> Work | None:
    """Count a model. None for a mixture of experts: how many of its weights a token meets is not counted here.

    Attention over a window or of another kind is left out rather than guessed, so that MFU is never too high.
    """
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in _EXPERTS):
        return None
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    plain = kinds == {"full_attention"} and not windowed
    return Work(shape_of(model), 4 * config.num_hidden_layers * heads * width if plain else 0, peak)


@dataclass
class Monitor:
    """Its `observe` is the loop's hook. `send` passes a step's numbers on, `draw` renews the curve at a validation.

    `history`: of a run that is gone on with, so that nothing is told twice.
    """

    history: History
    work: Work | None = None
    send: Callable[[int, Mapping[str, float]], None] | None = None
    draw: Callable[[Mapping[str, Any]], object] | None = None
    tell: Callable[[str], None] = say
    memory: Callable[[], float] = field(default=lambda: peak_memory_gb(pick_device()))

    def observe(self, state: State, facts: dict[str, Any]) -> None:
        """Add to the facts of a step, or of a validation (`val_loss`), what follows from them.

        `alerts` are name to message. What is no number stays one here: the log writes null and a flag.
        """
        if "val_loss" not in facts:
            facts |= self._step(facts)
        self.history.add({"step": state.step, **facts})
        if "val_loss" not in facts:
            facts["eta_seconds"] = eta(self.history)
        if alerts := due(self.history):
            facts["alerts"] = alerts
        for message in alerts.values():
            self.tell(f"  alert: {message}")
        if self.draw and "val_loss" in facts:
            self._draw(self.draw, {"step": state.step, **facts})
        if self.send:
            self.send(state.step, numbers(facts))

    def _step(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """`positions` (computed, with padding) and `pairs` (of causal attention) are used where the loop says them."""
        seconds, tokens, trained = max(1e-9, facts["seconds"]), facts["tokens"], facts["trained_tokens"]
        found = {
            "tokens_per_second": tokens / seconds,
            "trained_tokens_per_second": trained / seconds,
            "peak_memory_gb": self.memory(),
        }
        if self.work:
            found["mfu"] = self.work.flops(tokens, trained, facts.get("pairs", 0)) / seconds / self.work.peak.flops
        if "positions" in facts:
            found["padding_share"] = 1 - tokens / facts["positions"]
        return found

    def _draw(self, draw: Callable[[Mapping[str, Any]], object], line: Mapping[str, Any]) -> None:
        try:
            draw(line)
        except OSError as error:  # a full disk costs the picture, not the run
            self.tell(f"warning: the loss curve was not drawn: {error}")
            self.draw = None


def watching(
    model: PreTrainedModel,
    folder: Path,
    max_steps: int,
    peak: Peak,
    *,
    tell: Callable[[str], None] = say,
    send: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Monitor:
    """The monitor of the run in `folder`, which may be gone on with: what is counted is told, the curve drawn there."""
    history, file = History(max_steps), folder / "metrics.jsonl"
    if file.is_file():
        with file.open("rb") as lines:
            for line in curve.parse(lines):
                history.add(line)
    work = work_of(model, peak)
    tell(f"  {work.formula()}" if work else "  MFU is not measured: how many experts a token meets is not counted")
    return Monitor(history, work, send, lambda line: curve.write(folder, [line]), tell)


def numbers(facts: Mapping[str, Any]) -> dict[str, float]:
    """What a tracker is sent: the finite numbers, without those that are only for the bar."""
    kinds = {key: value for key, value in facts.items() if isinstance(value, int | float) and key not in _NOT_SENT}
    return {key: value for key, value in kinds.items() if math.isfinite(value)}


def note(facts: Mapping[str, Any]) -> str:
    """A step in a line, for the progress bar."""
    parts = [f"loss {facts['train_loss']:.3f}", f"lr {facts['learning_rate']:.1e}"]
    parts.append(f"{facts['tokens_per_second']:,.0f} tok/s")
    parts += [f"MFU {facts['mfu']:.1%}"] if "mfu" in facts else []
    return "  ".join([*parts, f"{clock(facts.get('eta_seconds'))} left"])
