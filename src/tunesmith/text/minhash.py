"""MinHash signatures (Broder 1997) and the pairs that share one of their 32 bands of 4: candidates, not yet checked.

Texts that only look a little alike share a band by accident, and their pairs grow with the square of the texts. So a
pair is looked at on 32 bytes of each text first, which rules out nearly all that are below the threshold and none that
is not; and where many texts share a band (LARGE) their pairs are not all visited: an exact join finds them. Neither
changes the result.

A signature is 128 numbers of 16 bits: 256 bytes a text, and a band is one word of 64 bits. Of the smallest of a set's
hashes the lower half is kept: which value is smallest decides it as it would decide the whole, and the lower bits of
the smallest of many are still evenly spread. Two different values look equal once in 65,536.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np
from numpy.typing import NDArray

BANDS, ROWS = 32, 4
SLACK = 0.2  # the estimate from 128 hashes has a deviation of at most 0.044: 4.5 deviations below the threshold
CHUNK = 1 << 13  # candidate pairs looked at together, so that they stay in the processor's cache; never the result
LARGE = 1 << 12  # texts in a bucket (those that share a band) from which a join costs less than all its pairs

Indices = NDArray[np.int64]
Join = Callable[[Indices, Indices], tuple[Indices, Indices]]
"""(texts, the bucket of each) -> pairs i < j of texts in one bucket, all that reach the threshold among them"""


@dataclass(frozen=True)
class Marks:
    """What is held of the texts: signatures, shape (texts, 128); 256 bits of each, shape (texts, 4); and set sizes."""

    signed: NDArray[np.uint16]
    bits: NDArray[np.uint64]
    sizes: NDArray[np.int32]

    @classmethod
    def empty(cls, texts: int) -> Marks:
        """Room for so many texts."""
        signed, bits = np.empty((texts, BANDS * ROWS), np.uint16), np.empty((texts, 4), np.uint64)
        return cls(signed, bits, np.empty(texts, np.int32))


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of the input moves every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def blocks(sizes: Indices, limit: int, most: int | None = None) -> Iterator[tuple[int, int]]:
    """Cut 0..n into runs (start, stop) of a total size of at most `limit`, or of one member; at most `most` members."""
    total = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(total, total[start] + limit, side="right")) - 1)
        stop = stop if most is None else min(stop, start + most)
        yield start, stop
        start = stop


def places(starts: Indices, counts: Indices) -> Indices:
    """starts[0], starts[0] + 1, ... for counts[0] places, then those from starts[1], and so on."""
    before = np.cumsum(counts) - counts
    found: Indices = np.arange(counts.sum()) + np.repeat(starts - before, counts)
    return found


def signatures(values: NDArray[np.uint64], starts: Indices) -> NDArray[np.uint16]:
    """Signatures, shape (texts, 128): two agree in a place with the probability of their Jaccard."""
    keys = mix(np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    factors, offsets = (keys >> np.uint64(32)).astype(np.uint32).reshape(2, -1)
    short = mix(values).astype(np.uint32)
    hashed = np.empty_like(short)
    out = np.empty((len(starts), BANDS * ROWS), dtype=np.uint16)
    for place, (factor, offset) in enumerate(zip(factors | np.uint32(1), offsets, strict=True)):
        np.multiply(short, factor, out=hashed)
        np.add(hashed, offset, out=hashed)
        out[:, place] = np.minimum.reduceat(hashed, starts)
    return out


def bitmaps(values: NDArray[np.uint64], starts: Indices) -> NDArray[np.uint64]:
    """256 bits a set, shape (sets, 4): a bit is set where an odd number of the set's values fall on it."""
    bit = np.uint64(1) << (values & np.uint64(63))
    word = values >> np.uint64(6) & np.uint64(3)
    parts = [np.where(word == np.uint64(k), bit, np.uint64(0)) for k in range(4)]
    return np.stack([np.bitwise_xor.reduceat(part, starts) for part in parts], axis=1)


def may_reach(sizes: NDArray[np.int32], bits: NDArray[np.uint64], threshold: float) -> NDArray[np.bool_]:
    """Whether pairs of sets with these sizes together, and these bits in which their bitmaps differ, can reach it.

    Bits that differ are at most the values that only one set has (bitmap filter, Sandes et al. 2020), and at Jaccard t
    those are at most (1 - t) / (1 + t) of both sizes.
    """
    differ = reduce(np.add, np.bitwise_count(bits).T.astype(np.uint16))
    return np.asarray(differ <= sizes * ((1 - threshold) / (1 + threshold)) + 1e-9)


def candidates(marks: Marks, threshold: float, join: Join) -> tuple[Indices, Indices]:
    """Pairs i < j that share a band and whose marks do not rule the threshold out, sorted, each once."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of Python's lock while it works
        codes = list(pool.map(partial(_in_band, marks, threshold, join), range(BANDS)))
    found = np.sort(np.concatenate(codes))
    found = found[np.append(True, found[1:] != found[:-1])[: len(found)]]
    i, j = found >> 32, found & 0xFFFFFFFF
    alike = _agreement(marks.signed, i, j) >= (threshold - SLACK) * BANDS * ROWS
    return i[alike], j[alike]


def _in_band(marks: Marks, threshold: float, join: Join, band: int) -> Indices:
    """The pairs that share this band and may reach the threshold, as i << 32 | j."""
    members, lengths = _shared(np.ascontiguousarray(marks.signed.view(np.uint64)[:, band]))
    few = np.repeat(lengths < LARGE, lengths)
    crowd = join(members[~few], np.repeat(np.arange(len(lengths)), lengths)[~few])
    found = [crowd, *_visited(marks, threshold, members[few], lengths[lengths < LARGE])]
    return np.concatenate([i << 32 | j for i, j in found])


def _visited(marks: Marks, threshold: float, members: Indices, lengths: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Of all pairs inside buckets of these lengths those whose bitmaps may reach the threshold."""
    after = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(members)) - 1
    for start, stop in blocks(after, CHUNK):
        left = np.repeat(np.arange(stop - start), after[start:stop])
        right = places(np.arange(1, stop - start + 1), after[start:stop])
        those = members[start : start + 1 + right.max(initial=0)]
        bits, sizes = marks.bits.take(those, axis=0), marks.sizes.take(those)  # read from far away only once
        folded: NDArray[np.uint64] = np.bitwise_xor.reduce(bits, axis=1, keepdims=True)  # a bit for four rules most out
        for some in (folded, bits):
            differ = some.take(left, axis=0) ^ some.take(right, axis=0)
            able = may_reach(sizes.take(left) + sizes.take(right), differ, threshold)
            left, right = left[able], right[able]
        yield those[left], those[right]


def _agreement(signed: NDArray[np.uint16], i: Indices, j: Indices) -> NDArray[np.uint64]:
    """In how many of 128 places the signatures of pairs agree: eight places added at once, then the eight sums."""
    found = [np.zeros(0, dtype=np.uint64)]
    for a in range(0, len(i), CHUNK):
        same = signed.take(i[a : a + CHUNK], axis=0) == signed.take(j[a : a + CHUNK], axis=0)
        found.append(np.einsum("ij->i", same.view(np.uint64)) * np.uint64(0x0101010101010101) >> np.uint64(56))
    return np.concatenate(found)


def _shared(keys: NDArray[np.uint64]) -> tuple[Indices, Indices]:
    """Those whose key another has, bucket after bucket and in order, and how many each bucket has.

    A key's highest bits and its place are sorted as one word. Where two keys have those bits in common their buckets
    become one, which costs a few visits.
    """
    width = np.uint64(max(1, len(keys).bit_length()))
    ordered = np.sort(mix(keys) >> width << width | np.arange(len(keys), dtype=np.uint64))
    same = np.concatenate([[False], (ordered[1:] ^ ordered[:-1]) >> width == 0, [False]])[: len(keys) + 1]
    several = same[1:] | same[:-1]
    starts = np.flatnonzero(~same[:-1][several])
    members = (ordered[several] & ((np.uint64(1) << width) - np.uint64(1))).astype(np.int64)
    return members, np.diff(starts, append=len(members))
