"""What the tests of training share: sets, a model of one matrix, and one small run a family and method."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import write_jsonl, write_rows
from tunesmith.core.records import Row, pair
from tunesmith.text.render import Example
from tunesmith.train import stage
from tunesmith.train.config import TrainConfig

ROWS = [pair(f"What is {a} and {b}?", f"It is {a + b}." + " Sure." * (a % 3)) for a in range(4) for b in range(5)]


class Bigram(nn.Module):
    """The next token from the last one alone: small enough to compute by hand, called as transformers' models are."""

    def __init__(self, vocab: int = 11, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.table = nn.Parameter(torch.randn(vocab, vocab, dtype=dtype))
            self.bias = nn.Parameter(torch.zeros(vocab, dtype=dtype))

    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.table[input_ids] + self.bias)


@pytest.fixture
def bigram() -> type[Bigram]:
    return Bigram


@pytest.fixture
def examples() -> list[Example]:
    """Eight sequences of 2 to 9 tokens; the longer, the smaller the trained part."""
    out = []
    for n in range(8):
        ids = [(3 * n + i) % 10 for i in range(n + 2)]
        out.append(Example(ids, [i > n // 2 for i in range(n + 2)], f"row{n}"))
    return out


@pytest.fixture(scope="session")
def make_set(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """`make_set(train, valid)`: a sealed set."""

    def make(train: list[Row], valid: list[Row]) -> Artifact:
        final = tmp_path_factory.mktemp("sets") / "set-1"
        with writing(final) as work:
            write_rows(work / "train.jsonl", train)
            write_rows(work / "valid.jsonl", valid)
            write_rows(work / "test.jsonl", [])
            write_jsonl(work / "rejects.jsonl", [])
            return seal(work, final, "set", {})

    return make


@pytest.fixture(scope="session")
def small_set(make_set: Callable[..., Artifact]) -> Artifact:
    return make_set(ROWS[:14], ROWS[14:])


@dataclass(frozen=True)
class Tuned:
    """A finished run, and what it was made of: enough to make it again."""

    run: Artifact
    config: TrainConfig
    inputs: stage.TrainInputs
    base: Path


@pytest.fixture(scope="session")
def tuned(
    request: pytest.FixtureRequest, small_set: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Tuned]:
    """`tuned(arch, method)`: six steps on the small set, once a session."""
    made: dict[tuple[str, str], Tuned] = {}

    def get(arch: str, method: str) -> Tuned:
        if (arch, method) not in made:
            base: Path = request.getfixturevalue(f"{arch}_dir")
            values: dict[str, Any] = {"method": method, "max_steps": 6, "eval_every": 3, "save_every": 2}
            more: dict[str, Any] = {"learning_rate": 0.02, "batch_size": 4, "dtype": "float32"}
            config = TrainConfig(**values, **more)
            inputs = stage.TrainInputs(small_set, str(base))
            run = stage.run(config, inputs, tmp_path_factory.mktemp("runs") / f"{arch}-{method}")
            made[arch, method] = Tuned(run, config, inputs, base)
        return made[arch, method]

    return get
