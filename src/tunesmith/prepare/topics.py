"""What a set is about: clusters of its questions, named by the words that set them apart, thin ones among them.

tf-idf with every word as a fixed vector of signs (random indexing, Kanerva et al. 2000), then k-means. It sees shared
words, not meaning.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.prepare.corpus import Corpus, Side
from tunesmith.prepare.language import STOPWORDS
from tunesmith.text.kmeans import Vectors, kmeans

WIDTH = 96  # numbers a question
LEAST_ROWS, MOST_TOPICS = 60, 24
THIN = 0.25  # of an even share
NAMED = 3  # words a name has
FILLERS = 40  # commonest words that name nothing
CHUNK = 4096  # questions at once


@dataclass(frozen=True)
class Topic:
    name: str
    rows: tuple[int, ...]
    thin: bool


def topics(corpus: Corpus) -> list[Topic]:
    """The clusters, largest first; none of fewer than 60 rows."""
    side = corpus.asked
    if len(side) < LEAST_ROWS:
        return []
    vectors = _vectors(side, corpus.vocabulary)
    count = int(np.clip(round((len(side) / 4) ** 0.5), 4, MOST_TOPICS))
    owner = kmeans(vectors, count)
    names = _names(side, owner, count, corpus.vocabulary)
    made = [(names[k], np.flatnonzero(owner == k)) for k in range(count)]
    even = len(side) / count
    found = [Topic(name, tuple(rows.tolist()), len(rows) < THIN * even) for name, rows in made if len(rows)]
    return sorted(found, key=lambda topic: (-len(topic.rows), topic.name))


def evenness(found: list[Topic]) -> float:
    """Entropy of the sizes over that of equal sizes: 1 where all topics have as many rows."""
    sizes = np.array([len(topic.rows) for topic in found], dtype=float)
    shares = sizes / sizes.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(len(found))) if len(found) > 1 else 0.0


def _vectors(side: Side, vocabulary: list[str]) -> Vectors:
    """Unit vectors, shape (questions, WIDTH); zeros for one without a word that tells."""
    weights = _idf(side, len(vocabulary))
    used = np.unique(side.ids)
    signs = np.zeros((len(vocabulary), WIDTH), dtype=np.float32)
    blob = b"".join(hashlib.blake2b(_bytes(vocabulary[i]), digest_size=WIDTH // 8).digest() for i in used.tolist())
    bits = np.unpackbits(np.frombuffer(blob, dtype=np.uint8)).reshape(len(used), WIDTH)
    signs[used] = (bits.astype(np.float32) * 2 - 1) * weights[used, None]
    out = np.zeros((len(side), WIDTH), dtype=np.float32)
    for start in range(0, len(side), CHUNK):
        ends = side.starts[start : start + CHUNK + 1]
        sums = np.zeros((int(ends[-1] - ends[0]) + 1, WIDTH), dtype=np.float64)
        np.cumsum(signs[side.ids[ends[0] : ends[-1]]], axis=0, out=sums[1:])
        out[start : start + len(ends) - 1] = np.diff(sums[ends - ends[0]], axis=0)
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(out / np.where(norms > 1e-6, norms, 1), dtype=np.float32)


def _bytes(word: str) -> bytes:
    return word.encode("utf-8", "surrogatepass")


def _idf(side: Side, size: int) -> NDArray[np.float32]:
    """ln(questions / questions with the word); 0 for words that stand in one question only: they join nothing."""
    seen = np.unique(side.owner.astype(np.int64) * size + side.ids) % size
    found = np.bincount(seen, minlength=size)
    weights = np.where(found > 1, np.log(len(side) / np.maximum(found, 1)), 0)
    return np.asarray(weights, dtype=np.float32)


def _names(side: Side, owner: NDArray[np.int64], count: int, vocabulary: list[str]) -> list[str]:
    """For each cluster the words with the largest count x ln(how much more frequent than elsewhere)."""
    size = len(vocabulary)
    inside = np.bincount(owner[side.owner] * size + side.ids, minlength=count * size).reshape(count, size)
    overall = inside.sum(axis=0)
    total = max(1, int(overall.sum()))
    fillers = {word for words in STOPWORDS.values() for word in words.split()} | {
        vocabulary[i] for i in np.argsort(-overall, kind="stable")[:FILLERS].tolist()
    }
    names = []
    for row in inside:
        lift = np.log(np.maximum(row, 1) / max(1, row.sum())) - np.log(np.maximum(overall, 1) / total)
        order = np.argsort(-(row * lift), kind="stable")[: 8 * NAMED].tolist()
        found = [vocabulary[i] for i in order if row[i]]
        names.append(", ".join([word for word in found if word not in fillers][:NAMED] or found[:NAMED]) or "no words")
    return names
