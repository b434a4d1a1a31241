"""How alike two texts are: Jaccard of character 4-grams, and the pairs above a threshold without comparing all of them.

Candidates come from MinHash (Broder 1997) in 32 bands of 4 rows; every candidate is then checked on its whole sets. A
pair at Jaccard 0.7 is missed with probability (1 - 0.7^4)^32 = 1.5e-4, at 0.8 with 5e-8. `cross_pairs` misses none.
Nothing here depends on Python's `hash()`: the same texts give the same pairs in every process.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHINGLE = 4  # characters
BANDS, ROWS = 32, 4
SLACK = 0.2  # the estimate from 128 hashes has a deviation of at most 0.044: 4.5 deviations below the threshold
CHUNK = 1 << 20  # candidate pairs looked at together; bounds the memory, not the result
KEPT = frozenset("#%&*/@\\-_")  # punctuation that carries meaning: C# and C, a*b and a/b, -5 and 5

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


class _Folds(dict[int, str]):
    """What a character becomes; worked out when a character is first met."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind = unicodedata.category(char)
        if char in "'’‘ʼ`′" or kind == "Cf":
            folded = ""  # let's, let’s and lets are one word; soft hyphens and the like are not seen
        elif char == "‐":
            folded = "-"
        else:
            folded = " " if (kind[0] in "PZ" or kind == "Cc") and char not in KEPT else char
        self[code] = folded
        return folded


_FOLDS = _Folds()


def normalise(text: str) -> str:
    """Fold case, compatibility forms, quotes, punctuation and whitespace: equal questions become equal strings.

    Symbols and the punctuation that carries meaning (`C++`, `C#`, `-5`, `a/b`) stay. A text of nothing else keeps it.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(plain.translate(_FOLDS).split()) or " ".join(plain.split())


def shingles(text: str) -> frozenset[str]:
    """The character 4-grams of the normalised text; a shorter text is its own only shingle."""
    plain = normalise(text)
    return frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)))


def jaccard(a: str, b: str) -> float:
    """Shared 4-grams over all 4-grams of two texts: 1.0 for equal ones."""
    left, right = shingles(a), shingles(b)
    return len(left & right) / len(left | right)


@dataclass(frozen=True)
class Sets:
    """Sets of 64-bit hashes, one a text and never empty: that of text i is values[starts[i]:starts[i+1]], sorted."""

    values: Hashes
    starts: Indices

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> Hashes:
        return self.values[self.starts[i] : self.starts[i + 1]]

    @property
    def sizes(self) -> Indices:
        return np.diff(self.starts)


def shingle_sets(texts: Sequence[str]) -> Sets:
    """The hashed 4-grams of every text."""
    plain = [normalise(text).ljust(SHINGLE, "\0") for text in texts]
    codes = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    lengths = np.array([len(text) for text in plain], dtype=np.int64)
    owner = np.repeat(np.arange(len(plain)), lengths)
    windows = max(0, len(codes) - SHINGLE + 1)
    inside = owner[:windows] == owner[SHINGLE - 1 :]
    a, b, c, d = (codes[i : i + windows][inside] for i in range(SHINGLE))
    three = a | b << np.uint64(21) | c << np.uint64(42)  # a code point has 21 bits: this much is exact
    return _sets(_mix(_mix(three) ^ d), owner[:windows][inside], len(plain))


def word_sets(texts: Sequence[str]) -> Sets:
    """The hashed words of every text, order and repetition left out."""
    known: dict[str, int] = {}
    values: list[int] = []
    owner: list[int] = []
    for i, text in enumerate(texts):
        for word in normalise(text).split() or [""]:
            if word not in known:
                digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                known[word] = int.from_bytes(digest, "big")
            values.append(known[word])
            owner.append(i)
    return _sets(np.array(values, dtype=np.uint64), np.array(owner, dtype=np.int64), len(texts))


def _sets(values: Hashes, owner: Indices, count: int) -> Sets:
    order = np.lexsort((values, owner))
    values, owner = values[order], owner[order]
    first = np.ones(len(values), dtype=bool)
    first[1:] = (values[1:] != values[:-1]) | (owner[1:] != owner[:-1])
    return Sets(values[first], np.searchsorted(owner[first], np.arange(count + 1)))


def _mix(x: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of the input moves every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def minhash(sets: Sets) -> NDArray[np.uint32]:
    """Signatures of 128 hashes, shape (128, texts): two agree in a row with the probability of their Jaccard."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    keys = _mix(np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64) * golden).reshape(2, -1)
    out = np.empty((BANDS * ROWS, len(sets)), dtype=np.uint32)
    for row, (factor, offset) in enumerate(zip(keys[0] | np.uint64(1), keys[1], strict=True)):
        lowest = np.minimum.reduceat(sets.values * factor + offset, sets.starts[:-1])
        out[row] = (lowest >> np.uint64(32)).astype(np.uint32)
    return out


def near_pairs(texts: Sequence[str], threshold: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, Jaccard) with i < j and Jaccard >= threshold, sorted.

    Of texts that are equal once normalised only the first takes part; each of the others comes as (first, other, 1.0).
    So a thousand equal rows give 999 pairs and not half a million, and the pairs connect what is alike all the same.
    """
    first: dict[str, int] = {}
    pairs: list[tuple[int, int, float]] = []
    for i, text in enumerate(texts):
        original = first.setdefault(normalise(text), i)
        if original != i:
            pairs.append((original, i, 1.0))
    where = list(first.values())
    if len(where) > 1:
        sets = shingle_sets([texts[i] for i in where])
        pairs += [(where[i], where[j], score) for i, j, score in _verified(sets, threshold)]
    return sorted(pairs)


def _verified(sets: Sets, threshold: float) -> Iterator[tuple[int, int, float]]:
    near: dict[int, list[int]] = {}
    for left, right in _candidates(minhash(sets), threshold):
        for i, j in zip(left.tolist(), right.tolist(), strict=True):
            near.setdefault(i, []).append(j)
    for i, js in near.items():
        yield from ((i, j, score) for j, score in _scores(sets[i], sets, np.array(js)) if score >= threshold)


def _candidates(signatures: NDArray[np.uint32], threshold: float) -> Iterator[tuple[Indices, Indices]]:
    """Pairs that share a band and whose signatures do not rule the threshold out, each pair once."""
    wide = signatures.astype(np.uint64).reshape(BANDS, ROWS, -1)
    bands = np.stack([_mix(_mix(a | b << np.uint64(32)) ^ (c | d << np.uint64(32))) for a, b, c, d in wide])
    least = (threshold - SLACK) * BANDS * ROWS
    for band, keys in enumerate(bands):
        for left, right in _bucket_pairs(keys):
            new = ~(bands[:band, left] == bands[:band, right]).any(axis=0)  # else an earlier band gave this pair
            left, right = left[new], right[new]
            alike = (signatures[:, left] == signatures[:, right]).sum(axis=0) >= least
            yield left[alike], right[alike]


def _bucket_pairs(keys: Hashes) -> Iterator[tuple[Indices, Indices]]:
    """All pairs i < j with equal keys, in chunks: each place in the sorted order is paired with those after it."""
    order = np.argsort(keys, kind="stable")
    ends = np.searchsorted(keys[order], keys[order], side="right")
    after = ends - np.arange(len(keys)) - 1  # how many of its bucket come later
    total = np.cumsum(after)
    start = 0
    while start < len(keys):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + CHUNK, side="right")))
        counts = after[start:stop]
        place = np.repeat(np.arange(start, stop), counts)
        step = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        yield order[place], order[place + step]
        start = stop


def _scores(values: Hashes, sets: Sets, members: Indices) -> list[tuple[int, float]]:
    """The Jaccard of one set with each of the named ones."""
    sizes = sets.sizes[members]
    offsets = np.cumsum(sizes) - sizes
    flat = np.arange(sizes.sum()) + np.repeat(sets.starts[members] - offsets, sizes)
    shared = np.add.reduceat(np.isin(sets.values[flat], values), offsets, dtype=np.int64)
    return list(zip(members.tolist(), (shared / (sizes + len(values) - shared)).tolist(), strict=True))


def cross_pairs(left: Sets, right: Sets, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Every pair (i in left, j in right, Jaccard) with Jaccard >= threshold > 0. No MinHash: none is missed.

    At Jaccard t at most n - tn of a set's n values are missing from the other, which so holds one of any
    n - ceil(tn) + 1 of them: the rarest are looked up in an index of `left` (prefix filter, Chaudhuri et al. 2006).
    """
    order = np.argsort(left.values, kind="stable")
    index, owner = left.values[order], np.repeat(np.arange(len(left)), left.sizes)[order]
    for j in range(len(right)):
        values = right[j]
        low, high = np.searchsorted(index, values, "left"), np.searchsorted(index, values, "right")
        few = np.argsort(high - low, kind="stable")[: len(values) - math.ceil(threshold * len(values) - 1e-9) + 1]
        members = np.unique(np.concatenate([owner[low[k] : high[k]] for k in few]))
        if len(members):
            yield from ((i, j, score) for i, score in _scores(values, left, members) if score >= threshold)


class UnionFind:
    """Disjoint sets of 0..n-1; the smallest member stands for its set, whatever the order of the unions."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def union(self, i: int, j: int) -> None:
        low, high = sorted((self.find(i), self.find(j)))
        self._parent[high] = low

    def groups(self) -> list[list[int]]:
        """The sets, each in order, by their smallest members."""
        out: dict[int, list[int]] = {}
        for i in range(len(self._parent)):
            out.setdefault(self.find(i), []).append(i)
        return list(out.values())
