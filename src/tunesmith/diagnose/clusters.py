"""Failures that no detector explains, put together by what is asked, and named by the words that set them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.diagnose.causes import Embedder
from tunesmith.metrics.overlap import words
from tunesmith.text.kmeans import kmeans

LEAST = 4  # members of a cluster on the average
MOST = 12  # clusters
WIDTH = 4000  # words that questions are compared by, the most frequent ones
NAMED = 3  # words of a name
LETTERS = 4  # of a word that may name


class Cluster(NamedTuple):
    name: str
    members: tuple[int, ...]


def clusters(texts: Sequence[str], embedder: Embedder | None = None) -> list[Cluster]:
    """The texts in clusters, largest first; every text in one. The same texts give the same clusters."""
    if not texts:
        return []
    said = [[word for word in words(text) if len(word) > 2 and not word.isdigit()] for text in texts]
    vectors = embedder.embed(texts) if embedder else _tf_idf(said)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
    count = max(1, min(MOST, len(texts) // LEAST, round((len(texts) / 2) ** 0.5)))
    owner = kmeans(unit, count)
    groups = [tuple(np.flatnonzero(owner == k).tolist()) for k in range(count)]
    found = [Cluster(_name(said, group), group) for group in groups if group]
    return sorted(found, key=lambda cluster: (-len(cluster.members), cluster.name))


def _tf_idf(said: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    """[texts, words]: 1 for a word that is there, times ln(texts / texts with it); words of one text join nothing."""
    seen = Counter(word for one in said for word in set(one))
    kept = [word for word, count in sorted(seen.items(), key=lambda item: (-item[1], item[0])) if count > 1][:WIDTH]
    index = {word: number for number, word in enumerate(kept)}
    out = np.zeros((len(said), max(1, len(kept))), dtype=np.float32)
    for row, one in enumerate(said):
        for word in set(one) & index.keys():
            out[row, index[word]] = np.log(len(said) / seen[word])
    return out


def _name(said: Sequence[Sequence[str]], members: Sequence[int]) -> str:
    """The words that set it apart: by texts inside x ln(share of texts inside / share of all texts)."""
    overall = Counter(word for one in said for word in set(one))
    inside = Counter(word for member in members for word in set(said[member]) if len(word) >= LETTERS)

    def told(word: str) -> float:
        return float(inside[word] * np.log((inside[word] / len(members)) / (overall[word] / len(said)) + 1e-9))

    order = sorted(inside, key=lambda word: (-told(word), -inside[word], word))
    return ", ".join(order[:NAMED]) or "no words"
