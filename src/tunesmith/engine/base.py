"""What every stage asks of a model: text, log-probabilities, vectors. Torch-free: stages are tested with a fake.

Prompts of an `Engine` are token ids that the one renderer made: it never sees a template. A `ChatEngine` is given
messages, because an endpoint keeps its template to itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tunesmith.core.records import Message

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Sampling:
    """How to decode. temperature 0 is greedy; `seed` makes a request's sample independent of its batch-mates.

    `logprobs`: say how likely each token was, too.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: bool = False


@dataclass(frozen=True)
class Generation:
    """What came back. `finish`: "stop" (stop token or stop string) or "length" (the limit was reached).

    `logprobs`: of each of `ids` (nats, at temperature 1 and before top_k and top_p), where they were asked for.
    """

    text: str
    ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    logprobs: tuple[float, ...] | None = None


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

    def embed(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """[texts, width]: a vector of length 1 a text, in order."""
        ...


def generate_both(
    base: Engine, tuned: Engine, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]
) -> tuple[list[Generation], list[Generation]]:
    """(base's, tuned's) generations; in one pass where `base` is what lies below the adapter of `tuned`."""
    together = getattr(tuned, "generate_both", None)
    if together is not None and getattr(base, "engine", None) is tuned:
        found: tuple[list[Generation], list[Generation]] = together(prompts, sampling)
        return found
    return base.generate(prompts, sampling), tuned.generate(prompts, sampling)


@dataclass(frozen=True)
class ChatRequest:
    """Messages to answer. `schema`: the JSON schema of the answer; `sample`: 1, 2, ... for more of the same.

    `choices`: words of which one is to begin the answer; how likely each is comes with the reply, where it is told.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    schema: Mapping[str, Any] | None = None
    sample: int = 0
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """An answer. Only one with finish "stop" is whole: others are "length", "content_filter" or what else was told.

    `reasoning` is what the model thought aloud before it. Tokens are None where they were not counted. `choices`: the
    log-probability (nats) of those of the request's choices for which it was told.
    """

    text: str
    finish: str
    reasoning: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    choices: Mapping[str, float] = field(default_factory=dict)


class ChatEngine(Protocol):
    @property
    def name(self) -> str:
        """The model's name, as it stands in provenance."""
        ...

    def chat(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        """One reply a request, in order. What was answered before is not asked again."""
        ...

    def stored(self, request: ChatRequest) -> Reply | None:
        """The reply that is there already; None where `chat` would have to ask."""
        ...

    def spent(self) -> dict[str, Any]:
        """Requests, tokens and cost so far, for a receipt."""
        ...
