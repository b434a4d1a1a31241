"""MinHash signatures (Broder 1997) and the pairs that share one of their 32 bands of 4: candidates, not yet checked.

A signature is 128 numbers of 16 bits: 256 bytes a text, and a band is one word of 64 bits. Of the smallest of a set's
hashes the lower half is kept: which value is smallest decides it as it would decide the whole, and the lower bits of
the smallest of many are still evenly spread. Two different values look equal once in 65,536.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

BANDS, ROWS = 32, 4
SLACK = 0.2  # the estimate from 128 hashes has a deviation of at most 0.044: 4.5 deviations below the threshold
CHUNK = 1 << 13  # candidate pairs looked at together, so that they stay in the processor's cache; never the result

Indices = NDArray[np.int64]


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


def candidates(signed: NDArray[np.uint16], threshold: float) -> tuple[Indices, Indices]:
    """Pairs i < j that share a band and whose signatures do not rule the threshold out, sorted, each once."""
    least = (threshold - SLACK) * BANDS * ROWS
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of Python's lock while it works
        codes = list(pool.map(partial(_in_band, signed, least), range(BANDS)))
    found = np.sort(np.concatenate(codes))
    return found >> 32, found & 0xFFFFFFFF


def _in_band(signed: NDArray[np.uint16], least: float, band: int) -> Indices:
    """The pairs that share this band and none before it, as i << 32 | j."""
    bands = signed.view(np.uint64)
    members, after = _shared(np.ascontiguousarray(bands[:, band]))
    codes = [np.zeros(0, dtype=np.int64)]
    for start, stop in blocks(after, CHUNK):
        left = np.repeat(np.arange(stop - start), after[start:stop])
        right = places(np.arange(1, stop - start + 1), after[start:stop])
        near = signed.take(members[start : start + 1 + right.max(initial=0)], axis=0)  # read from far away only once
        alike = _agreement(near.take(left, axis=0), near.take(right, axis=0)) >= least
        i, j = members[start + left[alike]], members[start + right[alike]]
        new = ~(bands[i, :band] == bands[j, :band]).any(axis=1)
        codes.append(i[new] << 32 | j[new])
    return np.concatenate(codes)


def _agreement(a: NDArray[np.uint16], b: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """In how many of 128 places two signatures agree: eight places added at once, then the eight sums."""
    eight: NDArray[np.uint64] = np.einsum("ij->i", (a == b).view(np.uint64))
    return eight * np.uint64(0x0101010101010101) >> np.uint64(56)


def _shared(keys: NDArray[np.uint64]) -> tuple[Indices, Indices]:
    """Those whose key another has, with equal keys side by side and in order; and how many of its own come after it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(keys))
    lengths = np.diff(ends, prepend=0)
    after = np.repeat(ends, lengths) - np.arange(len(keys)) - 1
    several = np.repeat(lengths > 1, lengths)
    return order[several], after[several]
