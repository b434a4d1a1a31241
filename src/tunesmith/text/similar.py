"""How alike two texts are: Jaccard of character 4-grams, and the pairs above a threshold without comparing all of them.

Candidates come from MinHash (`text/minhash.py`); every candidate is then checked on its whole sets. A pair at Jaccard
0.7 is missed with probability (1 - 0.7^4)^32 = 1.5e-4, at 0.8 with 5e-8. `cross_pairs` misses none. Sets hold 48-bit
hashes: two different parts of a pair of 200 look equal once in 10^10 pairs. Nothing here depends on Python's `hash()`:
the same texts give the same pairs in every process.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.text.minhash import CHUNK, Indices, blocks, candidates, mix, places, signatures

SHINGLE = 4  # characters
CHARS = 1 << 18  # of text hashed together: the arrays stay in the processor's cache, and an owner fits into 16 bits
PARTS = 1 << 22  # values of sets compared together; with CHARS it bounds the memory, not the result
BUCKETS = 20  # bits of a value by which it is told how rare it is: a count that is too high costs time, never a pair
HELD = np.uint64(48)  # bits of a hash; the 16 above number its owner while a block is sorted
VALUE = np.uint64((1 << 48) - 1)
KEPT = frozenset("#%&*/@\\-_")  # punctuation that carries meaning: C# and C, a*b and a/b, -5 and 5

_ONES = np.array([bin(word).count("1") for word in range(1 << 16)], dtype=np.uint8)  # bits set in a word

Hashes = NDArray[np.uint64]


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
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
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
    """Sets of 48-bit hashes, one a text and never empty: that of text i is values[starts[i]:starts[i+1]], sorted."""

    values: Hashes
    starts: Indices

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> Hashes:
        return self.values[self.starts[i] : self.starts[i + 1]]

    @property
    def sizes(self) -> Indices:
        return np.diff(self.starts)

    def take(self, members: Indices) -> Sets:
        """The sets of some texts, in the order that they are named in."""
        sizes = self.sizes[members]
        return Sets(self.values[places(self.starts[members], sizes)], _starts(sizes))


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
    return Sets(keys & VALUE, _starts(np.bincount((keys >> HELD).astype(np.int64), minlength=len(counts))))


def _starts(sizes: Indices) -> Indices:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _joined(parts: Sequence[Sets]) -> Sets:
    values = [part.values for part in parts] or [np.zeros(0, dtype=np.uint64)]
    sizes = [part.sizes for part in parts] or [np.zeros(0, dtype=np.int64)]
    return Sets(np.concatenate(values), _starts(np.concatenate(sizes)))


def minhash(sets: Sets) -> NDArray[np.uint16]:
    """Signatures of 128 hashes, shape (128, texts): two agree in a row with the probability of their Jaccard."""
    return signatures(sets.values, sets.starts[:-1]).T


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
    """`near_pairs` of different, normalised texts, as arrays. 256 bytes a text are held: its signature."""
    lengths = np.array([max(SHINGLE, len(text)) for text in plain], dtype=np.int64)

    def signed(block: tuple[int, int]) -> NDArray[np.uint16]:
        sets = sets_of(plain[slice(*block)])
        return signatures(sets.values, sets.starts[:-1])

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of Python's lock while it works
        parts = list(pool.map(signed, blocks(lengths, CHARS)))
    left, right = candidates(np.concatenate([np.zeros((0, 128), dtype=np.uint16), *parts]), threshold)
    del parts
    scores = np.concatenate([np.zeros(0), *_checked(plain, left, right, lengths, sets_of)])
    kept = scores >= threshold
    return left[kept], right[kept], scores[kept]


def _checked(
    plain: Sequence[str], left: Indices, right: Indices, lengths: Indices, sets_of: Callable[[Sequence[str]], Sets]
) -> Iterator[NDArray[np.float64]]:
    """The exact Jaccard of pairs of texts, whose sets are made anew a block of pairs at a time."""
    for a, b in blocks(lengths[left] + lengths[right], PARTS):
        members, inverse = np.unique(np.concatenate([left[a:b], right[a:b]]), return_inverse=True)
        sets = sets_of([plain[i] for i in members.tolist()])
        yield jaccards(sets, inverse[: b - a], sets, inverse[b - a :])


def jaccards(a: Sets, i: Indices, b: Sets, j: Indices) -> NDArray[np.float64]:
    """The Jaccard of set i[k] of `a` with set j[k] of `b`, for every k."""
    sizes = a.sizes[i] + b.sizes[j]
    shared = [_shared(a, i[s:e], b, j[s:e]) for s, e in blocks(sizes, PARTS, most=1 << 16)]
    both = np.concatenate([np.zeros(0, dtype=np.int64), *shared])
    return np.asarray(both / (sizes - both), dtype=np.float64)


def _shared(a: Sets, i: Indices, b: Sets, j: Indices) -> Indices:
    """How many values each of at most 2^16 pairs has in common: those that stand twice when both sets are sorted."""
    keys = [_numbered(a, i), _numbered(b, j)]
    ordered = np.sort(np.concatenate(keys))
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.bincount((twice >> HELD).astype(np.int64), minlength=len(i))


def _numbered(sets: Sets, members: Indices) -> Hashes:
    chosen = sets.take(members)
    return np.repeat(np.arange(len(members), dtype=np.uint64), chosen.sizes) << HELD | chosen.values


def cross_pairs(left: Sets, right: Sets, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Every pair (i in left, j in right, Jaccard) with Jaccard >= threshold > 0, by j. No MinHash: none is missed.

    At Jaccard t at most n - tn of a set's n values are missing from the other. So when both sets are put in one order,
    rarest first, the first n - ceil(tn) + 1 of each have a value in common (prefix filter, Chaudhuri et al. 2006).
    """
    if not len(left) or not len(right):
        return
    often = np.bincount(_low(left, BUCKETS), minlength=1 << BUCKETS) + np.bincount(
        _low(right, BUCKETS), minlength=1 << BUCKETS
    )
    index, owner = _prefixes(left, often, threshold)
    by_value = np.argsort(index, kind="stable")
    index, owner = index[by_value], owner[by_value]
    value, asker = _prefixes(right, often, threshold)
    low, high = np.searchsorted(index, value, "left"), np.searchsorted(index, value, "right")
    maps = _bitmaps(left), _bitmaps(right)
    for a, b in _runs(asker, high - low):
        i, j = owner[places(low[a:b], high[a:b] - low[a:b])], np.repeat(asker[a:b], high[a:b] - low[a:b])
        able = _may_reach(left.sizes[i] + right.sizes[j], maps[0], i, maps[1], j, threshold)
        codes = np.sort(j[able] << 32 | i[able])
        codes = codes[np.append(True, codes[1:] != codes[:-1])[: len(codes)]]
        i, j = codes & 0xFFFFFFFF, codes >> 32
        scores = jaccards(left, i, right, j)
        kept = scores >= threshold
        yield from zip(i[kept].tolist(), j[kept].tolist(), scores[kept].tolist(), strict=True)


def _prefixes(sets: Sets, often: Indices, threshold: float) -> tuple[Indices, Indices]:
    """The rarest values of every set, set after set, and whose each is.

    A value is here how often its lower bits occur, and 24 of its bits: two values that look equal make the prefixes
    meet where the sets do not, never the other way round.
    """
    sizes = sets.sizes
    owner = np.repeat(np.arange(len(sets)), sizes)
    rarity = np.minimum(often[_low(sets, BUCKETS)], 255)
    ordered = np.sort(owner << 32 | rarity << 24 | _low(sets, 24)) & 0xFFFFFFFF
    least = np.ceil(threshold * sizes - 1e-9).astype(np.int64)
    kept = places(np.zeros(len(sets), dtype=np.int64), sizes) < np.repeat(sizes - least + 1, sizes)
    return ordered[kept], owner[kept]


def _low(sets: Sets, bits: int) -> Indices:
    return (sets.values & np.uint64((1 << bits) - 1)).astype(np.int64)


def _runs(asker: Indices, counts: Indices) -> Iterator[tuple[int, int]]:
    """Cut the askers' values into runs of about CHUNK candidates that part no asker's values."""
    ends = np.append(np.flatnonzero(asker[1:] != asker[:-1]) + 1, len(asker))
    total = np.append(0, np.cumsum(counts))[ends]
    for a, b in blocks(np.diff(total, prepend=0), CHUNK):
        yield int(ends[a - 1]) if a else 0, int(ends[b - 1])


def _bitmaps(sets: Sets) -> NDArray[np.uint16]:
    """256 bits a set, shape (sets, 16): a bit is set where an odd number of the set's values fall on it."""
    bit = np.uint64(1) << (sets.values & np.uint64(63))
    word = sets.values >> np.uint64(6) & np.uint64(3)
    parts = [np.where(word == np.uint64(k), bit, np.uint64(0)) for k in range(4)]
    return np.stack([np.bitwise_xor.reduceat(part, sets.starts[:-1]) for part in parts], axis=1).view(np.uint16)


def _may_reach(
    sizes: Indices, a: NDArray[np.uint16], i: Indices, b: NDArray[np.uint16], j: Indices, threshold: float
) -> NDArray[np.bool_]:
    """Whether sets with these sizes together can reach the threshold.

    Bits that differ are at most the values that only one set has (bitmap filter, Sandes et al. 2020), and at Jaccard t
    those are at most (1 - t) / (1 + t) of both sizes.
    """
    differ = _ONES.take(a.take(i, axis=0) ^ b.take(j, axis=0)).sum(axis=1, dtype=np.int64)
    return np.asarray(differ * (1 + threshold) <= (1 - threshold) * sizes + 1e-9)


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
