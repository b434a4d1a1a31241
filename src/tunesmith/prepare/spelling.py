"""Slips of spelling against the corpus' own words: a rare word one letter away from one that is 50 times as frequent.

A rare word that no dictionary knows is reported as it stands ("pasword"). One that is a word ("lever" for "liver") is
reported only where the corpus shows the slip: the frequent word stands, three times or more, both after the same word
and before the same word, one of which is no filler. A wrong real word that was never said rightly is not found.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from tunesmith.metrics.spelling import dictionary, one_edit, stumps
from tunesmith.prepare.corpus import Corpus, Side
from tunesmith.prepare.finding import Hit
from tunesmith.prepare.language import main_language

TIMES = 50
RARE = 3  # times at most: what is written so more often is meant so
LEAST_LETTERS, MOST_LETTERS = 5, 30
FILLERS = 60  # commonest words, at most a tenth of all: they say nothing about their neighbours
SEEN = 3  # times that the frequent word must stand beside the same neighbour
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


def misspelt(corpus: Corpus) -> Iterator[Hit]:
    """Each row once, with its rare words and what they may stand for."""
    pairs = candidates(corpus)
    known = _dictionary(list(pairs)) if pairs and main_language(corpus) == "en" else None
    fillers = min(FILLERS, len(corpus.index) // 10)
    common = set(np.argsort(-corpus.counts, kind="stable")[:fillers].tolist())
    found: dict[int, list[str]] = {}
    for side in corpus.sides:
        rare = np.zeros(len(corpus.index), dtype=bool)
        rare[[corpus.index[word] for word in pairs]] = True
        neighbours = _neighbours(side, {corpus.index[right] for right in pairs.values()})
        for place in np.flatnonzero(rare[side.ids]).tolist():
            word = corpus.vocabulary[side.ids[place]]
            row = int(side.owner[place])
            unknown = known is not None and word not in known
            if not re.search(rf"(?<![\w./-]){re.escape(word)}(?![\w/(-])", _CODE.sub(" ", side.raw[row])):
                continue  # a name, an abbreviation, or code
            right = corpus.index[pairs[word]]
            if unknown or _said_so(side, place, neighbours[right], common):
                found.setdefault(row, []).append(f"'{word}' for '{pairs[word]}'?")
    yield from sorted((row, ", ".join(dict.fromkeys(said))) for row, said in found.items())


def candidates(corpus: Corpus) -> dict[str, str]:
    """Rare words and the most frequent word, 50 times as frequent at least, that is one edit away.

    An ending that inflects (cats, walked) is no slip: the last letter may be neither added nor taken off.
    """
    counts = corpus.counts
    words = corpus.vocabulary
    often = [i for i in np.flatnonzero(counts >= TIMES).tolist() if _checkable(words[i])]
    by_stump: defaultdict[str, list[int]] = defaultdict(list)
    for i in often:
        for stump in stumps(words[i]):
            by_stump[stump].append(i)
    out = {}
    for i in np.flatnonzero((counts > 0) & (counts <= RARE)).tolist():
        if _checkable(word := words[i]):
            near = {j for stump in stumps(word) for j in by_stump.get(stump, ())}
            fits = [j for j in near if counts[j] >= TIMES * counts[i] and one_edit(word, words[j])]
            if fits:
                out[word] = words[max(fits, key=lambda j: (counts[j], words[j]))]
    return out


def _checkable(word: str) -> bool:
    return LEAST_LETTERS <= len(word) <= MOST_LETTERS and word.isalpha()


Beside = dict[tuple[int, int], int]  # (-1 before or 1 after, the neighbour) -> times


def _neighbours(side: Side, wanted: set[int]) -> dict[int, Beside]:
    """How often each wanted word has which word before and after it."""
    out: dict[int, Beside] = {word: defaultdict(int) for word in wanted}
    mask = np.isin(side.ids, np.fromiter(wanted, dtype=np.int32, count=len(wanted)))
    for place in np.flatnonzero(mask).tolist():
        for beside in _beside(side, place):
            out[int(side.ids[place])][beside] += 1
    return out


def _beside(side: Side, place: int) -> list[tuple[int, int]]:
    """The neighbours of a place in the same text."""
    near = [(step, place + step) for step in (-1, 1) if 0 <= place + step < len(side.ids)]
    return [(step, int(side.ids[k])) for step, k in near if side.owner[k] == side.owner[place]]


def _said_so(side: Side, place: int, right: Beside, common: set[int]) -> bool:
    """Does the frequent word stand elsewhere beside both neighbours of this place, one of them being no filler?"""
    near = _beside(side, place)
    return (
        len(near) == 2
        and all(right.get(beside, 0) >= SEEN for beside in near)
        and any(word not in common for _, word in near)
    )


def _dictionary(words: list[str]) -> set[str]:
    """Those of the words that the English dictionary knows."""
    return set(dictionary().known(words))
