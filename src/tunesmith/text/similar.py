"""How alike two texts are: Jaccard of character 4-grams, and the pairs above a threshold without comparing all of them.

Candidates come from MinHash (`text/minhash.py`); every candidate is then checked on its whole sets. A pair at Jaccard
0.7 is missed with probability (1 - 0.7^4)^32 = 1.5e-4, at 0.8 with 5e-8. `cross_pairs` (`text/join.py`) misses none.
Nothing here depends on Python's `hash()`: the same texts give the same pairs in every process.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tunesmith.text.join import HELD, PARTS, VALUE, Hashes, apart, jaccards, starts_of
from tunesmith.text.join import Sets as Sets
from tunesmith.text.join import cross_pairs as cross_pairs
from tunesmith.text.minhash import Indices, Marks, bitmaps, blocks, candidates, mix, signatures

SHINGLE = 4  # characters
CHARS = 1 << 18  # of text hashed together: the arrays stay in the processor's cache, and an owner fits into 16 bits
KEPT = frozenset("#%&*/@\\-_")  # punctuation that carries meaning: C# and C, a*b and a/b, -5 and 5


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
_GONE = bytes(code for code in range(128) if not _FOLDS[code])
_ASCII = "".join(_FOLDS[code] or " " for code in range(128)).encode().ljust(256)  # the same table, for bytes: faster


def normalise(text: str) -> str:
    """Fold case, compatibility forms, quotes, punctuation and whitespace: equal questions become equal strings.

    Symbols and the punctuation that carries meaning (`C++`, `C#`, `-5`, `a/b`) stay. A text of nothing else keeps it.
    """
    if text.isascii():
        plain = text.lower()
        folded = plain.encode().translate(_ASCII, _GONE).decode()
    else:
        plain = unicodedata.normalize("NFKC", text).casefold()
        folded = plain.translate(_FOLDS)
    return " ".join(folded.split()) or " ".join(plain.split())


def shingles(text: str) -> frozenset[str]:
    """The character 4-grams of the normalised text; a shorter text is its own only shingle."""
    plain = normalise(text)
    return frozenset(plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1)))


def jaccard(a: str, b: str) -> float:
    """Shared 4-grams over all 4-grams of two texts: 1.0 for equal ones."""
    left, right = shingles(a), shingles(b)
    return len(left & right) / len(left | right)


def shingle_sets(texts: Sequence[str]) -> Sets:
    """The hashed 4-grams of every text."""
    return shingled([normalise(text) for text in texts])


def word_sets(texts: Sequence[str]) -> Sets:
    """The hashed words of every text, order and repetition left out."""
    return worded([normalise(text) for text in texts])


def shingled(plain: Sequence[str]) -> Sets:
    """`shingle_sets` of texts that are normalised."""
    return _joined([_block_shingles(plain[a:b]) for a, b in _by_characters(plain)])


def worded(plain: Sequence[str]) -> Sets:
    """`word_sets` of texts that are normalised."""
    known = _Words()
    return _joined([_block_words(plain[a:b], known) for a, b in _by_characters(plain)])


def _by_characters(plain: Sequence[str]) -> Iterator[tuple[int, int]]:
    return blocks(np.array([max(SHINGLE, len(text)) for text in plain], dtype=np.int64), CHARS)


def _block_shingles(plain: Sequence[str]) -> Sets:
    plain = [text.ljust(SHINGLE, "\0") for text in plain]
    codes = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    windows = len(codes) - SHINGLE + 1
    a, b, c, d = (codes[i : i + windows] for i in range(SHINGLE))
    three = a | b << np.uint64(21) | c << np.uint64(42)  # a code point has 21 bits: this much is exact
    hashes = mix(mix(three) ^ d)
    lengths = np.array([len(text) for text in plain], dtype=np.int64)
    ends = np.cumsum(lengths)[:-1]
    inside = np.ones(windows, dtype=bool)
    for back in range(1, SHINGLE):  # windows over the seam between two texts
        inside[ends - back] = False
    return _sets(hashes[inside], lengths - SHINGLE + 1)


class _Words(dict[str, int]):
    """The hash of a word; worked out when a word is first met."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = int.from_bytes(digest, "big")
        return self[word]


def _block_words(plain: Sequence[str], known: _Words) -> Sets:
    words = [text.split() or [""] for text in plain]
    values = np.array([known[word] for some in words for word in some], dtype=np.uint64)
    return _sets(values, np.array([len(some) for some in words], dtype=np.int64))


def _sets(hashes: Hashes, counts: Indices) -> Sets:
    """Sets of at most 2^16 texts from their hashes, one text's after the other's: sorted, each value once."""
    owner = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    keys = np.sort(owner << HELD | hashes >> (np.uint64(64) - HELD))
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    keys = keys[first]
    return Sets(keys & VALUE, starts_of(np.bincount((keys >> HELD).astype(np.int64), minlength=len(counts))))


def _joined(parts: Sequence[Sets]) -> Sets:
    values = [part.values for part in parts] or [np.zeros(0, dtype=np.uint64)]
    sizes = [part.sizes for part in parts] or [np.zeros(0, dtype=np.int64)]
    return Sets(np.concatenate(values), starts_of(np.concatenate(sizes)))


def near_pairs(
    texts: Sequence[str], threshold: float, sets_of: Callable[[Sequence[str]], Sets] = shingled
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, Jaccard) with i < j and Jaccard >= threshold, sorted; of 4-grams, or of words with `worded`.

    Of texts that are equal once normalised only the first takes part; each of the others comes as (first, other, 1.0).
    So a thousand equal rows give 999 pairs and not half a million, and the pairs connect what is alike all the same.
    """
    first: dict[str, int] = {}
    where: list[int] = []
    pairs: list[tuple[int, int, float]] = []
    for i, text in enumerate(texts):
        plain = normalise(text)
        original = first.setdefault(plain, i)
        if original == i:
            where.append(i)
        else:
            pairs.append((original, i, 1.0))
    distinct = list(first)
    del first
    left, right, scores = near(distinct, threshold, sets_of)
    pairs += [(where[i], where[j], s) for i, j, s in zip(left.tolist(), right.tolist(), scores.tolist(), strict=True)]
    return sorted(pairs)


def near(
    plain: Sequence[str], threshold: float, sets_of: Callable[[Sequence[str]], Sets]
) -> tuple[Indices, Indices, NDArray[np.float64]]:
    """`near_pairs` of different, normalised texts, as arrays. 292 bytes a text are held: its marks."""
    lengths = np.array([max(SHINGLE, len(text)) for text in plain], dtype=np.int64)

    marks = Marks.empty(len(plain))

    def mark(block: tuple[int, int]) -> None:
        sets, part = sets_of(plain[slice(*block)]), slice(*block)
        marks.signed[part] = signatures(sets.values, sets.starts[:-1])
        marks.bits[part] = bitmaps(sets.values, sets.starts[:-1])
        marks.sizes[part] = sets.sizes

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of Python's lock while it works
        list(pool.map(mark, blocks(lengths, CHARS)))
    left, right = candidates(marks, threshold, partial(_crowded, plain, threshold, sets_of))
    scores = np.concatenate([np.zeros(0), *_checked(plain, left, right, lengths, sets_of)])
    kept = scores >= threshold
    return left[kept], right[kept], scores[kept]


def _crowded(
    plain: Sequence[str], threshold: float, sets_of: Callable[[Sequence[str]], Sets], members: Indices, buckets: Indices
) -> tuple[Indices, Indices]:
    """The pairs at the threshold in each bucket, some buckets at a time; `members` are those of one after the other."""
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    firsts = np.flatnonzero(np.diff(buckets, prepend=-1))
    lengths = np.array([len(plain[i]) for i in members.tolist()], dtype=np.int64)
    for a, b in blocks(np.add.reduceat(lengths, firsts) if len(firsts) else lengths, PARTS):
        part = slice(firsts[a], firsts[b] if b < len(firsts) else None)
        those = members[part]
        sets = apart(sets_of([plain[i] for i in those.tolist()]), buckets[part])
        found = [(i, j) for i, j, _ in cross_pairs(sets, sets, threshold) if i < j]
        pairs.append(those[np.array(found, dtype=np.int64).reshape(-1, 2)])
    both = np.concatenate(pairs)
    return both[:, 0], both[:, 1]


def _checked(
    plain: Sequence[str], left: Indices, right: Indices, lengths: Indices, sets_of: Callable[[Sequence[str]], Sets]
) -> Iterator[NDArray[np.float64]]:
    """The exact Jaccard of pairs of texts, whose sets are made anew a block of pairs at a time."""
    for a, b in blocks(lengths[left] + lengths[right], PARTS):
        members, inverse = np.unique(np.concatenate([left[a:b], right[a:b]]), return_inverse=True)
        sets = sets_of([plain[i] for i in members.tolist()])
        yield jaccards(sets, inverse[: b - a], sets, inverse[b - a :])


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
