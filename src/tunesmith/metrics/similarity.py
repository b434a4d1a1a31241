"""How near two texts are in meaning, from vectors that somebody else makes; and in letters, where nobody can.

Pure numpy: the vectors come from an `engine.embedding.Embedder`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.metrics.overlap import exact_match, words

GRAMS = range(3, 6)  # characters in a row


def cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> list[float]:
    """The cosine of each row of [n, width] with the same row of the other, in -1..1; 0 for a vector of zeros."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = np.einsum("nw,nw->n", first, second, dtype=np.float64)
    ratios = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return [float(value) for value in ratios.clip(-1, 1)]


@dataclass(frozen=True)
class Frequencies:
    """In how many of `size` texts each run of characters stands: rare runs say more about a text than common ones."""

    size: int
    found_in: Mapping[str, int]

    @classmethod
    def of(cls, texts: Collection[str]) -> Frequencies:
        return cls(len(texts), Counter(gram for text in texts for gram in _grams(text)))

    def similarity(self, prediction: str, reference: str) -> float:
        """The cosine of two texts' TF-IDF vectors over runs of 3 to 5 characters within words, in 0..1.

        It sees spelling, not meaning: "car" and "automobile" have nothing in common. Texts without a word: exact match.
        """
        first, second = self._vector(prediction), self._vector(reference)
        if not first or not second:
            return exact_match(prediction, reference)
        product = sum(weight * second[gram] for gram, weight in first.items() if gram in second)
        return min(1.0, product / math.sqrt(_square(first) * _square(second)))

    def _vector(self, text: str) -> dict[str, float]:
        """Count x (1 + ln of (1 + texts) / (1 + texts with it)): the smoothed form, finite for what was never seen."""
        weights = {g: 1 + math.log((1 + self.size) / (1 + self.found_in.get(g, 0))) for g in _grams(text)}
        return {gram: count * weights[gram] for gram, count in _grams(text).items()}


def _square(vector: Mapping[str, float]) -> float:
    return sum(weight * weight for weight in vector.values())


def _grams(text: str) -> Counter[str]:
    """Runs of characters of each word with a space on both sides."""
    return Counter(gram for word in words(text) for gram in _of_word(f" {word} "))


def _of_word(padded: str) -> Sequence[str]:
    return [padded[start : start + n] for n in GRAMS for start in range(len(padded) - n + 1)]
