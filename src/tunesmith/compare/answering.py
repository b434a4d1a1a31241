"""Who answers: a model in this process, or an endpoint. Both are asked alone for their time, and all at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tunesmith.compare.prompts import Messages
from tunesmith.core.records import Message
from tunesmith.engine.base import ChatEngine, ChatRequest, Engine, Sampling
from tunesmith.engine.budget import Price


@dataclass(frozen=True)
class Answer:
    """`finish`: "stop", "length", or why there is no whole answer. Tokens are None where nobody counted them."""

    text: str
    finish: str
    prompt_tokens: int | None
    output_tokens: int | None


class Speaker(Protocol):
    """`in_process`: how long a batch takes says something; an endpoint may have kept some of it."""

    @property
    def in_process(self) -> bool: ...

    @property
    def leaves_machine(self) -> bool: ...

    @property
    def sampling(self) -> Sampling: ...

    def room(self, prompt: Messages) -> float:
        """The tokens that an answer to a prompt may have."""
        ...

    def answer(self, prompts: Sequence[Messages]) -> list[Answer]:
        """One answer a prompt, in order."""
        ...

    def seconds(self, prompt: Messages) -> float | None:
        """How long a prompt takes when it is asked alone; None where it was not measured."""
        ...

    def cost(self, answers: Sequence[Answer], seconds: float | None) -> float | None:
        """Of 1,000 requests like these, `seconds` each; None where it is not known."""
        ...


class Renderer(Protocol):
    """What is needed of a `text.render.Renderer`."""

    def prompt(self, messages: Sequence[Message]) -> list[int]: ...


@dataclass(frozen=True)
class Local:
    """An engine in this process. `price_per_hour` is what the machine costs; a request costs its seconds of that."""

    engine: Engine
    renderer: Renderer
    sampling: Sampling
    price_per_hour: float
    clock: Callable[[], float] = time.perf_counter
    in_process = True
    leaves_machine = False

    def room(self, prompt: Messages) -> float:
        return self.engine.context - len(self.renderer.prompt(prompt))

    def answer(self, prompts: Sequence[Messages]) -> list[Answer]:
        ids = [self.renderer.prompt(prompt) for prompt in prompts]
        made = self.engine.generate(ids, self.sampling)
        return [Answer(one.text, one.finish, len(asked), len(one.ids)) for asked, one in zip(ids, made, strict=True)]

    def seconds(self, prompt: Messages) -> float | None:
        began = self.clock()
        self.answer([prompt])
        return self.clock() - began

    def cost(self, answers: Sequence[Answer], seconds: float | None) -> float | None:
        return None if seconds is None else 1000 * seconds * self.price_per_hour / 3600


class TimedChat(ChatEngine, Protocol):
    """What is needed of an `engine.remote.RemoteChat`."""

    def seconds(self, request: ChatRequest) -> float | None: ...


@dataclass(frozen=True)
class Remote:
    """An endpoint. It keeps its context to itself, so nothing is dropped from a prompt for it."""

    chat: TimedChat
    sampling: Sampling
    price: Price | None
    leaves_machine: bool
    in_process = False

    def room(self, prompt: Messages) -> float:
        return math.inf

    def answer(self, prompts: Sequence[Messages]) -> list[Answer]:
        replies = self.chat.chat([self._request(prompt) for prompt in prompts])
        return [Answer(one.text, one.finish, one.prompt_tokens, one.completion_tokens) for one in replies]

    def seconds(self, prompt: Messages) -> float | None:
        """Of the answer as it was given first: one that is stored is not asked for again."""
        self.answer([prompt])
        return self.chat.seconds(self._request(prompt))

    def cost(self, answers: Sequence[Answer], seconds: float | None) -> float | None:
        asked, given = total([a.prompt_tokens for a in answers]), total([a.output_tokens for a in answers])
        if self.price is None or asked is None or given is None:
            return None
        return 1000 * self.price.cost(asked, given) / len(answers)

    def _request(self, prompt: Messages) -> ChatRequest:
        return ChatRequest(prompt, self.sampling)


def fits(speaker: Speaker, prompt: Messages) -> bool:
    """Whether a prompt leaves room for the longest answer."""
    return speaker.room(prompt) >= speaker.sampling.max_new_tokens


def total(counts: Sequence[int | None]) -> int | None:
    """Their sum; None where one of them is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
