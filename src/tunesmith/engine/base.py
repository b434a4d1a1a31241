"""What every stage asks of a model: text, and log-probabilities. Torch-free, so that stages can be tested with a fake.

Prompts are token ids that the one renderer made: an engine never sees a template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Sampling:
    """How to decode. temperature 0 is greedy; `seed` makes a request's sample independent of its batch-mates."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Generation:
    """What came back. `finish`: "stop" (stop token or stop string) or "length" (the limit was reached)."""

    text: str
    ids: tuple[int, ...]
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class Score:
    """The log-probability (nats) of each token of a continuation, given all before it."""

    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        return self.total / len(self.logprobs) if self.logprobs else 0.0


class Engine(Protocol):
    @property
    def context(self) -> int:
        """The most tokens that a prompt and its answer may have together."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]) -> list[Generation]:
        """One generation a prompt, in order. One Sampling for all, or one a prompt (its own limit, stops, seed)."""
        ...

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """One score a (prompt ids, continuation ids) pair, in order."""
        ...
