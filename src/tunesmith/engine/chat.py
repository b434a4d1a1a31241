"""A model in memory as a `ChatEngine`: messages are rendered by the one renderer, answers kept like an endpoint's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from tunesmith.core.records import Message
from tunesmith.engine import wire
from tunesmith.engine.answers import Answers
from tunesmith.engine.base import ChatRequest, Engine, Reply


class Encoder(Protocol):
    """What is needed of a `text.tokenizer.Tokenizer`, where a reply is chosen and not written."""

    def encode(self, text: str, *, start: bool = True) -> list[int]: ...


class Prompter(Protocol):
    """What is needed of a `text.render.Renderer`."""

    @property
    def tokenizer(self) -> Encoder: ...

    def prompt(self, messages: Sequence[Message]) -> list[int]: ...


class LocalChat:
    """`engine.base.ChatEngine` over an `Engine`. `name` must tell this model from all others that share `answers`."""

    def __init__(self, engine: Engine, renderer: Prompter, name: str, answers: Answers | None = None) -> None:
        self.engine, self.renderer, self.name = engine, renderer, name
        self.answers = answers or Answers()
        self._spent = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0}

    def stored(self, request: ChatRequest) -> Reply | None:
        return self.answers.get(wire.key(self.name, request))

    def spent(self) -> dict[str, Any]:
        """Of this process; a local model has no price."""
        return {**self._spent, "cost": None}

    def chat(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        """One reply a request; finish is "context" where the messages leave no room for an answer.

        The same seed gives the same reply. `schema` is not enforced: a reader checks what came. Where a request has
        choices, nothing is written: each is scored, and the reply is the likeliest.
        """
        todo = {wire.key(self.name, request): request for request in requests if self.stored(request) is None}
        free = {key: request for key, request in todo.items() if not request.choices}
        bound = {key: request for key, request in todo.items() if request.choices}
        replies = [*(self._replies(list(free.values())) if free else ()), *self._chosen(list(bound.values()))]
        for (key, request), reply in zip((free | bound).items(), replies, strict=True):
            self.answers.put(key, wire.canonical(self.name, request), reply)
        found = [self.stored(request) for request in requests]
        return [reply for reply in found if reply is not None]

    def _chosen(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        prompts = [self.renderer.prompt(request.messages) for request in requests]
        words = [{word: self.renderer.tokenizer.encode(word, start=False) for word in r.choices} for r in requests]
        fit = [
            place
            for place, prompt in enumerate(prompts)
            if len(prompt) + max(map(len, words[place].values())) <= self.engine.context
        ]
        asked = [(prompts[place], ids) for place in fit for ids in words[place].values()]
        scores = iter(self.engine.score(asked) if asked else ())
        replies = [Reply("", "context", prompt_tokens=len(prompt), completion_tokens=0) for prompt in prompts]
        for place in fit:
            found = {word: next(scores).total for word in words[place]}
            best = max(found, key=found.__getitem__)
            replies[place] = Reply(best, "stop", "", len(prompts[place]), 0, found)
        self._spent["requests"] += len(fit)
        self._spent["prompt_tokens"] += sum(len(prompts[place]) for place in fit)
        return replies

    def _replies(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        prompts = [self.renderer.prompt(request.messages) for request in requests]
        replies = [Reply("", "context", prompt_tokens=len(prompt), completion_tokens=0) for prompt in prompts]
        fit = [place for place, prompt in enumerate(prompts) if len(prompt) < self.engine.context]
        samplings = [replace(requests[place].sampling, seed=wire.seed(requests[place])) for place in fit]
        made = self.engine.generate([prompts[place] for place in fit], samplings)
        for place, one in zip(fit, made, strict=True):
            thought, text = wire.split_thinking(one.text)
            replies[place] = Reply(text, one.finish, thought, len(prompts[place]), len(one.ids))
        self._spent["requests"] += len(fit)
        self._spent["prompt_tokens"] += sum(len(prompts[place]) for place in fit)
        self._spent["completion_tokens"] += sum(len(one.ids) for one in made)
        return replies
