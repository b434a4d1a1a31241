"""How hard an answer is for a model, and how much the question helps: perplexity and instruction-following difficulty.

IFD = loss(answer | question) / loss(answer), Li et al. 2024 (arXiv 2308.12032), on the answer's tokens alone. From 1 on
the question does not help: the two may not belong together. Near 0 the model knows the answer once it is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.records import Row
from tunesmith.core.runlog import Progress
from tunesmith.engine.base import Engine
from tunesmith.metrics.stats import nearest_rank
from tunesmith.prepare.finding import Finding
from tunesmith.text.render import Example, Renderer

MISMATCH = 1.0  # IFD from which a question does not help
SURPRISING = 3.5  # robust z of the loss
LEAST_TOKENS = 4  # shorter answers have no stable loss alone
BLOCK = 256  # answers between two steps of the progress bar
SHARES = {"5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95}


@dataclass(frozen=True)
class Scorer:
    """A model in memory, by the name that the user gave it, and how it is shown a row."""

    name: str
    engine: Engine
    renderer: Renderer

    @property
    def start(self) -> list[int]:
        """What stands before an answer that follows nothing: the tokenizer's BOS, or its end-of-text token."""
        tokenizer = self.renderer.tokenizer
        return [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]


@dataclass(frozen=True)
class Difficulty:
    """Mean losses in nats a token over the `tokens` of one answer (its stop token included), and their row's id."""

    row_id: str
    tokens: int
    loss: float
    loss_alone: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)

    @property
    def ifd(self) -> float:
        return self.loss / self.loss_alone if self.loss_alone > 0 else math.inf


@dataclass(frozen=True)
class Request:
    """The last answer of a row: token ids before it, and its own."""

    row_id: str
    prompt: list[int]
    answer: list[int]


def requests(renderer: Renderer, rows: Iterable[Row]) -> list[Request]:
    """The last answer of each conversation, as it is rendered for training; none where the template refuses it."""
    return list(_requests(renderer, rows))


def _requests(renderer: Renderer, rows: Iterable[Row]) -> Iterator[Request]:
    for row in rows:
        if row.answer:
            try:
                yield _last(renderer.render(row)[-1])
            except DataError:
                continue


def _last(example: Example) -> Request:
    """The last run of trained tokens, and all before it."""
    end = len(example.mask) - example.mask[::-1].index(True)
    start = end
    while start and example.mask[start - 1]:
        start -= 1
    return Request(example.row_id, example.ids[:start], example.ids[start:end])


def difficulties(engine: Engine, asked: Sequence[Request], start: Sequence[int]) -> tuple[list[Difficulty], int]:
    """One an answer, and how many were left out because they do not fit the model's context.

    `start`: what stands before an answer that follows nothing: the tokenizer's BOS, or its end-of-text token.
    """
    fit = [r for r in asked if len(r.prompt) + len(r.answer) <= engine.context]
    with_question = engine.score([(r.prompt, r.answer) for r in fit])
    alone = engine.score([(start, r.answer) for r in fit])
    made = [
        Difficulty(r.row_id, len(r.answer), -given.mean, -bare.mean)
        for r, given, bare in zip(fit, with_question, alone, strict=True)
    ]
    return made, len(asked) - len(fit)


def difficulty(scorer: Scorer, rows: Sequence[Row]) -> tuple[dict[str, Any], list[Finding]]:
    """(for the receipt, rows worth a look) of all rows that end with an answer."""
    asked = requests(scorer.renderer, rows)
    found: list[Difficulty] = []
    with Progress("difficulty", len(asked)) as bar:
        for start in range(0, len(asked), BLOCK):
            block = asked[start : start + BLOCK]
            found += difficulties(scorer.engine, block, scorer.start)[0]
            bar.advance("answers", len(block))
    answers = sum(bool(row.answer) for row in rows)
    ifd = [one.ifd for one in found if math.isfinite(one.ifd)]
    facts = {
        "model": scorer.name,
        "answers": len(found),
        "left_out": answers - len(found),
        "perplexity": _shares([one.perplexity for one in found]),
        "ifd": _shares(ifd),
        "ifd_of_1_or_more": sum(value >= MISMATCH for value in ifd),
    }
    return facts, hard(rows, found)


def _shares(values: Sequence[float]) -> dict[str, float]:
    """The value that so many do not exceed, to four digits: a model on another machine gives the same."""
    return {name: float(f"{nearest_rank(values, share):.4g}") for name, share in SHARES.items()} if values else {}


def hard(rows: Sequence[Row], found: Sequence[Difficulty]) -> list[Finding]:
    """Answers that their question does not help, and answers far less likely than the rest (robust z of the loss)."""
    by_id = {row.id: row for row in rows}
    long = [d for d in found if d.tokens >= LEAST_TOKENS]
    mismatched = [d for d in long if d.ifd >= MISMATCH]
    odd = [(d, z) for d, z in zip(long, _z([d.loss for d in long]), strict=True) if z > SURPRISING]
    fix = "read these rows: mend or delete the lines, then `tunesmith collect FILE` and `tunesmith prepare`"
    about = (
        (
            "mismatch",
            "the question does not make the answer likelier (IFD >= 1)",
            [(d, f"IFD {d.ifd:.2f}") for d in mismatched],
        ),
        (
            "surprising",
            "far less likely than the other answers",
            [(d, f"perplexity {d.perplexity:.0f}, z {z:+.1f}") for d, z in odd],
        ),
    )
    return [
        Finding(name, "note", told, fix, tuple((by_id[d.row_id], why) for d, why in hits), len(hits))
        for name, told, hits in about
    ]


def _z(values: Sequence[float]) -> list[float]:
    """Robust z: distance from the median in median absolute deviations, scaled to a normal's deviation."""
    if not values:
        return []
    middle = _median(values)
    spread = 1.4826 * _median([abs(value - middle) for value in values])
    return [(value - middle) / spread if spread else 0.0 for value in values]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
