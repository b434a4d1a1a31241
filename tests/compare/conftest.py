"""A set of hand-made rows, and models that answer by rule, each in a tokenizer's world where a word is a token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import write_rows
from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.engine.base import Generation, Sampling, Score

THINGS = ("lantern", "compass", "blanket", "violin", "ladder", "kettle", "hammer", "mirror", "basket", "candle")


class Words:
    """A renderer: every word of every message is a token, and the number of its place in `known` its id."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        words = [word for message in messages for word in message.content.split()]
        self.known += [word for word in dict.fromkeys(words) if word not in self.known]
        return [self.known.index(word) for word in words]

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(self.known[number] for number in ids)


@dataclass
class Rule:
    """An engine that answers a prompt's text by a rule, and remembers what it was asked."""

    renderer: Words
    rule: Callable[[str], str]
    context: int = 1 << 20
    calls: list[list[str]] = field(default_factory=list)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Any) -> list[Generation]:
        texts = [self.renderer.text(prompt) for prompt in prompts]
        self.calls.append(texts)
        answers = [self.rule(text) for text in texts]
        return [Generation(answer, tuple(range(len(answer.split()))), "stop") for answer in answers]

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        raise NotImplementedError


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def rule(words: Words) -> Callable[..., Rule]:
    """`rule(function, context)`: an engine."""

    def make(function: Callable[[str], str], context: int = 1 << 20) -> Rule:
        return Rule(words, function, context)

    return make


def rows(start: int, count: int) -> list[Row]:
    """Questions after things, of which the answer names the same thing."""
    names = [f"{THINGS[n % 10]}{n}" for n in range(start, start + count)]
    return [pair(f"Where is the {name}?", f"The {name} is here.", meta=Meta(group=name)) for name in names]


@pytest.fixture
def make_rows() -> Callable[[int, int], list[Row]]:
    return rows


@pytest.fixture
def make_set(tmp_path: Path) -> Callable[..., Artifact]:
    def make(train: list[Row], test: list[Row], valid: Sequence[Row] = ()) -> Artifact:
        final = tmp_path / "sets" / f"set-{len(list(tmp_path.glob('sets/*')))}"
        with writing(final) as work:
            for name, part in (("train", train), ("test", test), ("valid", valid)):
                write_rows(work / f"{name}.jsonl", part)
            return seal(work, final, "set", {})

    return make


@pytest.fixture
def sampling() -> Sampling:
    return Sampling(max_new_tokens=8)
