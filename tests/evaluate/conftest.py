"""A set of hand-made rows, an engine that answers from a list, and a renderer without a tokenizer's files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import write_jsonl, write_rows
from tunesmith.core.records import Meta, Row, pair
from tunesmith.engine.base import Generation, Sampling, Score


@dataclass
class FakeEngine:
    """Answers from a list, in order, and remembers what it was asked. An answer that ends in "…" did not stop."""

    answers: Callable[[int], str]
    context: int = 1 << 20
    calls: list[tuple[list[list[int]], Sampling]] = field(default_factory=list)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Any) -> list[Generation]:
        self.calls.append(([list(p) for p in prompts], sampling))
        texts = [self.answers(prompt[0]) for prompt in prompts]
        return [Generation(t, (), "length" if t.endswith("…") else "stop") for t in texts]

    def score(self, requests: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        raise NotImplementedError


class FakeRenderer:
    """A prompt is one id: the number that its question ends with. A token is a character."""

    hash = "f" * 64
    answer_overhead = 1
    tokenizer = SimpleNamespace(encode_many=lambda texts: [list(range(len(text))) for text in texts])

    def prompt(self, messages: Any) -> list[int]:
        return [int(messages[-1].content.split()[-1])]


def rows(count: int, answer: Callable[[int], str], start: int = 0, **meta: Any) -> list[Row]:
    return [
        pair(f"question {n}", answer(n), meta=Meta(**({"source": "faq.jsonl", "line": n, "group": f"g{n}"} | meta)))
        for n in range(start, start + count)
    ]


@pytest.fixture
def make_rows() -> Callable[..., list[Row]]:
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
def make_run(tmp_path: Path) -> Callable[..., Artifact]:
    def make(log: list[dict[str, Any]]) -> Artifact:
        final = tmp_path / "runs" / "run-1"
        with writing(final) as work:
            write_jsonl(work / "metrics.jsonl", log)
            return seal(work, final, "run", {})

    return make


@pytest.fixture
def make_engine() -> type[FakeEngine]:
    return FakeEngine


@pytest.fixture
def renderer() -> FakeRenderer:
    return FakeRenderer()
