"""Which training rows an error may come from: the nearest ones, by words and, where there is a model, by meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.records import Row
from tunesmith.metrics.overlap import words

FUSED = 60  # reciprocal rank fusion (Cormack et al. 2009): 1 / (60 + rank), summed over the rankings


class Embedder(Protocol):
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class Near(NamedTuple):
    """A training row, and its score: of BM25, or of the fused ranks."""

    row: Row
    score: float


class Index:
    """Training rows, looked up by a question and the wrong answer to it.

    What a row says counts on both sides: a model that answers wrongly learnt the words of its answer somewhere.
    """

    def __init__(self, rows: Sequence[Row], embedder: Embedder | None = None) -> None:
        import bm25s

        self._rows = [row for row in rows if words(_text(row))]
        self._embedder = embedder
        self._index: Any = bm25s.BM25()
        if self._rows:
            self._index.index([words(_text(row)) for row in self._rows], show_progress=False)
        self._vectors = _unit(embedder.embed([_text(row) for row in self._rows])) if embedder and self._rows else None

    def nearest(self, asked: Sequence[tuple[str, str]], count: int) -> list[list[Near]]:
        """For each (question, wrong answer) the nearest rows, nearest first; none where no word is shared."""
        texts = [f"{question}\n{answer}" for question, answer in asked]
        if not self._rows or not texts:
            return [[] for _ in texts]
        scores = [self._index.get_scores(words(text)) if words(text) else np.zeros(len(self._rows)) for text in texts]
        if self._embedder is None or self._vectors is None:
            return [self._best(one, count, one > 0) for one in scores]
        meant = _unit(self._embedder.embed(texts)) @ self._vectors.T
        fused = [_ranked(one) + _ranked(other) for one, other in zip(scores, meant, strict=True)]
        return [self._best(one, count, one > 0) for one in fused]

    def _best(self, scores: NDArray[Any], count: int, counted: NDArray[np.bool_]) -> list[Near]:
        order = np.argsort(-scores, kind="stable")[:count]
        return [Near(self._rows[i], round(float(scores[i]), 4)) for i in order.tolist() if counted[i]]


def _text(row: Row) -> str:
    return f"{row.question}\n{row.reference}"


def _ranked(scores: NDArray[Any]) -> NDArray[np.float64]:
    """1 / (FUSED + rank) of each, from rank 1; 0 for what has nothing in common, and so no rank."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return np.where(scores > 0, 1 / (FUSED + 1 + ranks), 0.0)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
