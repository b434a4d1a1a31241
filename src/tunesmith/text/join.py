"""Sets of hashes, one a text: how alike two are (Jaccard), and every pair above a threshold, without missing one.

Sets hold 48-bit hashes: two different parts of a pair of 200 look equal once in 10^10 pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.text.minhash import CHUNK, Indices, bitmaps, blocks, may_reach, mix, places

PARTS = 1 << 22  # values of sets compared together: it bounds the memory, not the result
BUCKETS = 20  # bits of a value by which it is told how rare it is: a count that is too high costs time, never a pair
HELD = np.uint64(48)  # bits of a hash; the 16 above number its owner while a block is sorted
VALUE = np.uint64((1 << 48) - 1)

Hashes = NDArray[np.uint64]


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
        return Sets(self.values[places(self.starts[members], sizes)], starts_of(sizes))


def starts_of(sizes: Indices) -> Indices:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def apart(sets: Sets, family: Indices) -> Sets:
    """The sets with every value changed by the family of its set, so that only sets of one family can meet."""
    salt = np.repeat(mix(family.astype(np.uint64)), sets.sizes)
    return Sets((sets.values ^ salt) & VALUE, sets.starts)


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
    often = np.bincount(np.concatenate([_low(left, BUCKETS), _low(right, BUCKETS)]), minlength=1 << BUCKETS)
    value, asker = _prefixes(right, often, threshold)
    index, owner = (value, asker) if left is right else _prefixes(left, often, threshold)
    by_value = np.argsort(index, kind="stable")
    index, owner = index[by_value], owner[by_value]
    low, high = np.searchsorted(index, value, "left"), np.searchsorted(index, value, "right")
    right_bits = bitmaps(right.values, right.starts[:-1])
    left_bits = right_bits if left is right else bitmaps(left.values, left.starts[:-1])
    for a, b in _runs(asker, high - low):
        i, j = owner[places(low[a:b], high[a:b] - low[a:b])], np.repeat(asker[a:b], high[a:b] - low[a:b])
        differ = left_bits.take(i, axis=0) ^ right_bits.take(j, axis=0)
        able = may_reach(left.sizes[i] + right.sizes[j], differ, threshold)
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
