"""What can only be seen beside the other rows: outliers, loops, other languages, contradictions, slips of spelling."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.metrics.overlap import token_f1
from tunesmith.prepare.corpus import Corpus, Side
from tunesmith.prepare.finding import Check, Hit
from tunesmith.prepare.language import strangers
from tunesmith.prepare.spelling import misspelt

ROBUST_Z = 3.5  # Iglewicz and Hoaglin 1993
LEAST_SPREAD = 0.25  # of log words; where nearly all texts are equally long every other one would stand out
LEAST_WORDS = 30  # below it one repeated pair of words is already a large share
TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # share of the characters in the commonest n-gram (Gopher, Rae et al. 2021, table A1)
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # share in n-grams that came before (the same)
LINES = 0.30  # share of the lines that came before (the same)
NEAR = 0.9  # Jaccard from which two questions ask the same
AGREE = 0.5  # token F1 below which two answers differ
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd and without a pattern: neighbours in number end far apart
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NOT = re.compile(r"\b(?:not|no|never|without|isnt|dont|cant|doesnt)\b")


def lengths(corpus: Corpus) -> Iterator[Hit]:
    """A robust z (median and MAD) of the log of the words beyond 3.5, on either side; each row once."""
    found: dict[int, str] = {}
    for side in corpus.sides:
        logs = np.log1p(side.lengths)
        middle = float(np.median(logs))
        spread = max(LEAST_SPREAD, 1.4826 * float(np.median(np.abs(logs - middle))))
        z = (logs - middle) / spread
        for i in np.flatnonzero(np.abs(z) > ROBUST_Z).tolist():
            words = f"{side.name} of {side.lengths[i]} words where the middle one has {np.expm1(middle):.0f}"
            found.setdefault(i, f"{words} (z {z[i]:+.1f})")
    yield from sorted(found.items())


def loops(corpus: Corpus) -> Iterator[Hit]:
    """Answers, or raw texts, above a limit of Gopher's on repetition."""
    side = corpus.answered if len(corpus.answered.ids) else corpus.asked
    chars = np.array([len(word) for word in corpus.vocabulary], dtype=np.int64)
    for i in _suspects(side):
        text = side.words(i)
        if evidence := _repeats(text, chars[text]) or _same_lines(side.raw[i]):
            yield i, evidence


def _suspects(side: Side) -> list[int]:
    """Texts of 30 words or more in which some 2-gram is common enough for any of the limits. One sort for all."""
    if len(side.ids) < 2:
        return []
    inside = side.owner[1:] == side.owner[:-1]
    pairs = side.ids[:-1].astype(np.uint64) * _FACTOR + side.ids[1:].astype(np.uint64)
    pairs = (pairs * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(32)
    keys = np.sort(side.owner[:-1][inside].astype(np.uint64) << np.uint64(32) | pairs[inside])
    again = np.bincount((keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)).astype(np.int64), minlength=len(side))
    # 15 % of the characters in repeated 5-grams are about 4 of 5 as many repeated 2-grams; a margin for long words
    return np.flatnonzero((again >= 0.08 * side.lengths) & (side.lengths >= LEAST_WORDS)).tolist()


def _repeats(words: NDArray[np.int32], chars: NDArray[np.int64]) -> str:
    """The first limit on n-grams that a text is above, or ''. `chars`: the length of each of its words."""
    total = int(chars.sum())
    sums = np.concatenate([[0], np.cumsum(chars)])
    keys = words.astype(np.uint64)
    for n in (*TOP, *REPEATED):
        if len(words) <= n:
            break
        keys = keys[:-1] * _FACTOR + words[n - 1 :].astype(np.uint64)
        _, first, where, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        if counts.max() == 1:
            break  # no n-gram twice: no longer one either
        if n in TOP:
            top = int(np.argmax(counts * (sums[first + n] - sums[first])))
            share = counts[top] * (sums[first[top] + n] - sums[first[top]]) / total
            if counts[top] > 2 and share > TOP[n]:
                return f"one {n}-gram is {share:.0%} of the text, the limit is {TOP[n]:.0%}"
            continue
        later = np.flatnonzero(first[where] != np.arange(len(keys)))
        covered = np.zeros(len(words) + 1, dtype=np.int64)
        np.add.at(covered, later, 1)
        np.add.at(covered, later + n, -1)
        share = chars[np.cumsum(covered[:-1]) > 0].sum() / total
        if share > REPEATED[n]:
            return f"repeated {n}-grams are {share:.0%} of the text, the limit is {REPEATED[n]:.0%}"
    return ""


def _same_lines(text: str) -> str:
    lines = [line.strip() for line in text.split("\n") if len(line.strip()) > 3]
    share = 1 - len(set(lines)) / len(lines) if len(lines) >= 4 else 0.0
    return f"{share:.0%} of its lines came before, the limit is {LINES:.0%}" if share > LINES else ""


def language(corpus: Corpus) -> Iterator[Hit]:
    found: dict[int, str] = {}
    for side in corpus.sides:
        for i, mine, main in strangers(corpus, side):
            found.setdefault(i, f"the {side.name} looks like {mine}, most are {main}")
    yield from sorted(found.items())


def contradictions(corpus: Corpus) -> Iterator[Hit]:
    """The same question, normalised, under the same system message, with answers that differ."""
    asked: dict[tuple[int, str], list[int]] = {}
    for i, row in enumerate(corpus.rows):
        if corpus.answered.plain[i]:
            system = row.messages[0].content if row.messages[0].role == "system" else ""
            asked.setdefault((corpus.numbers[i], system), []).append(i)
    for members in asked.values():
        first = members[0]
        for other in members[1:]:
            if why := differ(corpus.answered.plain[first], corpus.answered.plain[other]):
                yield other, f"{why} at {_where(corpus, first)} for the same question: {_question(corpus, other)}"


def near_contradictions(corpus: Corpus) -> Iterator[Hit]:
    """Questions alike at 0.9 or more, with the same numbers and negations, and answers that differ."""
    members: dict[int, list[int]] = {}
    for i, number in enumerate(corpus.numbers):
        members.setdefault(number, []).append(i)
    found: dict[int, str] = {}
    for left, right, score in corpus.near:
        if score < NEAR or left == right or left not in members or right not in members:
            continue
        first, other = members[left][0], members[right][0]
        asked, said = corpus.asked.plain, corpus.answered.plain
        if _marks(asked[first]) == _marks(asked[other]) and said[first] and (why := differ(said[first], said[other])):
            found.setdefault(other, f"{why} at {_where(corpus, first)} for a question {score:.0%} alike")
    yield from sorted(found.items())


def differ(one: str, other: str) -> str:
    """How two normalised answers disagree, or ''."""
    if one == other:
        return ""
    polarity = {one.split(" ")[0], other.split(" ")[0]}
    if polarity == {"yes", "no"}:
        return "yes here, no there,"
    if token_f1(one, other) < AGREE:
        return "another answer"
    return "other numbers" if set(_NUMBER.findall(one)) != set(_NUMBER.findall(other)) else ""


def _marks(question: str) -> tuple[list[str], list[str]]:
    return sorted(_NUMBER.findall(question)), sorted(_NOT.findall(question))


def _where(corpus: Corpus, i: int) -> str:
    meta = corpus.rows[i].meta
    return f"{meta.source}:{meta.line}"


def _question(corpus: Corpus, i: int) -> str:
    return corpus.asked.raw[i][:60]


CORPUS_CHECKS: Sequence[Check] = (
    Check(
        "contradiction",
        "warning",
        contradictions,
        "the same question with another answer (token F1 < 0.5, yes against no, or other numbers)",
        "keep the right answer and delete the other lines, then `tunesmith collect FILE` and `tunesmith prepare`",
    ),
    Check(
        "near_contradiction",
        "note",
        near_contradictions,
        "nearly the same question (4-gram Jaccard >= 0.9) with another answer; some of these are right",
    ),
    Check("repetition", "warning", loops, "an answer that repeats itself (Gopher's limits)"),
    Check("length", "note", lengths, "far shorter or longer than the rest (robust z of log words beyond 3.5)"),
    Check("language", "note", language, "another language than most rows, by script and commonest words"),
    Check("spelling", "note", misspelt, "a rare word, one letter away from one at least 50 times as frequent"),
)
