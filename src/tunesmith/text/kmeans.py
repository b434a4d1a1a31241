"""k-means of unit vectors from a seeded start (k-means++, Arthur and Vassilvitskii 2007): same input, same clusters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
FIT = 6000  # vectors that the centres are fitted on
ROUNDS = 12


def kmeans(vectors: Vectors, count: int) -> NDArray[np.int64]:
    """The cluster, 0 to count - 1, of each of [n, width] vectors of length 1 (or 0)."""
    return _assign(vectors, _centres(vectors, count))


def _centres(vectors: Vectors, count: int) -> Vectors:
    rng = np.random.default_rng(0)
    fit = vectors[np.sort(rng.permutation(len(vectors))[:FIT])]
    centres = fit[[int(rng.integers(len(fit)))]]
    distance = 2 - 2 * fit @ centres[0]
    while len(centres) < count:
        chance = np.cumsum(np.maximum(distance, 0) + 1e-9)
        pick = int(np.searchsorted(chance, rng.random() * chance[-1]))
        centres = np.vstack([centres, fit[pick]])
        distance = np.minimum(distance, 2 - 2 * fit @ centres[-1])
    for _ in range(ROUNDS):
        owner = _assign(fit, centres)
        sums = np.stack([fit[owner == k].sum(axis=0) for k in range(count)])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 1e-6, sums / np.where(norms > 1e-6, norms, 1), centres)
    return centres


def _assign(vectors: Vectors, centres: Vectors) -> NDArray[np.int64]:
    nearest: NDArray[np.int64] = np.argmax(vectors @ centres.T, axis=1)
    return nearest
