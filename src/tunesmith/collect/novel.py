"""Whether a text says something new: ROUGE-L and 4-grams against all texts so far, exactly, and without comparing all.

What two texts share word for word bounds their longest common subsequence, so texts whose shared words could not reach
the limit are left out before it is computed: the result is that of comparing with every one of them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.metrics.overlap import words
from tunesmith.text.similar import normalise, shingles

NEAR = 0.8  # Jaccard of character 4-grams: what `prepare` calls a near-duplicate


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two word lists; 0.0 where one is empty.

    The length comes from one bit a word of `a`, all of them updated at once (Hyyrö 2004).
    """
    places: dict[str, int] = {}
    for place, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(a)) - 1
    open_bits = full
    for word in b:
        matched = open_bits & places.get(word, 0)
        open_bits = ((open_bits + matched) | (open_bits - matched)) & full
    length = len(a) - open_bits.bit_count()
    return 2 * length / (len(a) + len(b)) if length else 0.0


class _Index:
    """Which texts hold a feature, and how many features each has."""

    def __init__(self) -> None:
        self.sizes = array("q")
        self._holders: dict[object, array[int]] = {}

    def add(self, features: Iterable[object]) -> None:
        count, number = 0, len(self.sizes)
        for count, feature in enumerate(features, 1):  # noqa: B007
            self._holders.setdefault(feature, array("q")).append(number)
        self.sizes.append(count)

    def shared(self, features: Iterable[object]) -> NDArray[np.int64]:
        """With each text, the number of features in common."""
        found = [np.frombuffer(self._holders[f], dtype=np.int64).copy() for f in features if f in self._holders]
        every = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
        return np.bincount(every, minlength=len(self.sizes)).astype(np.int64)


def _numbered(found: Sequence[str]) -> list[tuple[str, int]]:
    """The first "the", the second "the": as sets, what lists of words share with repetitions."""
    seen: Counter[str] = Counter()
    out = []
    for word in found:
        out.append((word, seen[word]))
        seen[word] += 1
    return out


class Novel:
    """Texts so far. `most`: the ROUGE-L F1 with any of them above which a text is no longer new."""

    def __init__(self, most: float, texts: Iterable[str] = ()) -> None:
        self.most = most
        self.texts: list[str] = []
        self._words: list[list[str]] = []
        self._by_word, self._by_gram = _Index(), _Index()
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        found = words(text)
        self.texts.append(text)
        self._words.append(found)
        self._by_word.add(_numbered(found))
        self._by_gram.add(shingles(text))

    def alike(self, text: str) -> str:
        """The text so far that this one is too much like, with how much; "" where it is new."""
        if not self.texts:
            return ""
        grams = shingles(text)
        shared = self._by_gram.shared(grams)
        jaccard = shared / (len(grams) + np.asarray(self._by_gram.sizes) - shared)
        if jaccard[best := int(jaccard.argmax())] >= NEAR:
            return f"{jaccard[best]:.2f} of the 4-grams of: {self.texts[best]}"
        found = words(text)
        bound = 2 * self._by_word.shared(_numbered(found))
        for place in np.flatnonzero(bound > self.most * (len(found) + np.asarray(self._by_word.sizes))).tolist():
            if (score := rouge_l(self._words[place], found)) > self.most:
                return f"ROUGE-L {score:.2f} with: {self.texts[place]}"
        return "nothing but punctuation" if not normalise(text) else ""
