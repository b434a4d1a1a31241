"""What is measured of a model or of all rows at once: how likely the references are, how long answers take, vectors."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.core.errors import DataError
from tunesmith.core.records import Message, Row
from tunesmith.engine.base import Engine, Generation, Sampling
from tunesmith.engine.embedding import Embedder
from tunesmith.metrics.similarity import Frequencies, cosines
from tunesmith.text.render import Renderer

MOST_NATS = 700.0  # a token; e^710 is more than a float can hold

Column = Mapping[str, Sequence[float | None]]  # arm -> one value a row


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds a reference: the sum of -ln p over its tokens and the stop token; its UTF-8 bytes."""

    nats: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        return perplexity((self.nats, self.tokens, self.bytes))

    @property
    def bpb(self) -> float:
        return bits_per_byte((self.nats, self.tokens, self.bytes))

    @property
    def counts(self) -> tuple[float, int, int]:
        return self.nats, self.tokens, self.bytes


@dataclass(frozen=True)
class Answers:
    """What a model gave, one a row, and how long each took alone (None: was not asked alone)."""

    given: Sequence[Generation]
    milliseconds: Sequence[float | None]


def perplexity(counts: Sequence[float]) -> float:
    """e to the mean of -ln p a token, of summed (nats, tokens, bytes)."""
    nats, tokens, _ = counts
    return math.exp(min(MOST_NATS, nats / tokens))


def bits_per_byte(counts: Sequence[float]) -> float:
    """Of summed (nats, tokens, bytes). Unlike perplexity it can be compared between tokenizers."""
    nats, _, size = counts
    return nats / math.log(2) / size


def likelihoods(engine: Engine, renderer: Renderer, rows: Sequence[Row]) -> list[Likelihood | None]:
    """One a row; None where the template cannot take the reference, or the context cannot hold it."""
    requests = [_request(renderer, row) for row in rows]
    fits = [n for n, request in enumerate(requests) if request and sum(map(len, request)) <= engine.context]
    scores = engine.score([request for n in fits if (request := requests[n])])
    out: list[Likelihood | None] = [None] * len(rows)
    for n, score in zip(fits, scores, strict=True):
        size = len(rows[n].reference.encode("utf-8", "surrogatepass"))
        out[n] = Likelihood(-score.total, len(score.logprobs), size)
    return out


def _request(renderer: Renderer, row: Row) -> tuple[list[int], list[int]] | None:
    """What comes before the last answer, and the answer with its stop token: the tokens that training trains."""
    answered = Row((*row.prompt, Message("assistant", row.reference)), meta=row.meta)
    try:
        last = renderer.render(answered)[-1]
    except DataError:
        return None
    end = max(n for n, trained in enumerate(last.mask) if trained) + 1
    start = max((n for n in range(end) if not last.mask[n]), default=0) + 1
    return last.ids[:start], last.ids[start:end]


def one_by_one(engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Answers:
    """Each prompt answered alone, and the milliseconds that it took."""
    answers: list[Generation] = []
    took: list[float | None] = []
    for prompt in prompts:
        began = time.perf_counter()
        answers += engine.generate([prompt], sampling)
        took.append(1000 * (time.perf_counter() - began))
    return Answers(answers, took)


def columns(
    names: Collection[str],
    answers: Mapping[str, Answers],
    likely: Mapping[str, Sequence[Likelihood | None]],
) -> dict[str, Column]:
    """Metric -> arm -> one value a row, of what the models themselves tell."""
    made: dict[str, Column] = {
        "output_tokens": {arm: [len(one.ids) for one in got.given] for arm, got in answers.items()},
        "latency_ms": {arm: got.milliseconds for arm, got in answers.items()},
        "perplexity": {arm: [one.perplexity if one else None for one in found] for arm, found in likely.items()},
        "bpb": {arm: [one.bpb if one else None for one in found] for arm, found in likely.items()},
    }
    return {name: column for name, column in made.items() if name in names}


def similarities(
    embedder: Embedder, answers: Mapping[str, Sequence[str]], references: Sequence[str]
) -> dict[str, list[float]]:
    """Arm -> the cosine of each answer with its reference."""
    texts = [*references, *(text for given in answers.values() for text in given)]
    vectors, n = embedder.embed(texts), len(references)
    starts = range(n, len(texts), n)
    return {arm: cosines(vectors[start : start + n], vectors[:n]) for arm, start in zip(answers, starts, strict=True)}


def lexical_similarities(answers: Mapping[str, Sequence[str]], references: Sequence[str]) -> dict[str, list[float]]:
    """The same by spelling alone; how common a run of characters is, the references tell."""
    frequencies = Frequencies.of(references)
    return {arm: list(map(frequencies.similarity, given, references)) for arm, given in answers.items()}
