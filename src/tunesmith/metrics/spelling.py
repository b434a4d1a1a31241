"""Spelling in English: words that no dictionary has, and real words that stand for another ("lever" for "liver").

A real word is wrong only beside a right one, and that is looked for in three places: the reference, the prompt, and
what the training answers say between the same neighbours.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from sys import intern
from typing import Any, NamedTuple

from tunesmith.metrics.overlap import words

LEAST = 4  # letters of a word whose spelling is judged; of three where it is one letter from a very usual word
# Occurrences in the dictionary's corpus (870 million words). At most RARE: a word that a slip may leave behind; more
# often stand the words that people mix in any case (form, quiet, there). At least USUAL: a word that was meant.
RARE, USUAL, VERY_USUAL = 40_000, 1_000, 200_000
FOREIGN_LEAST, FOREIGN = 8, 0.5  # words, and the share of them in no dictionary, from which a text is not English
BRITISH = (("our", "or"), ("is", "iz"), ("ys", "yz"), ("tre", "ter"), ("ence", "ense"))  # the dictionary is American
PREFIXES = ("pre", "sub", "non", "anti", "multi", "micro", "hyper", "inter", "over", "pseudo", "cyber", "tele", "bio")
_MODERN = """
analytics api apis app apps async backend bool chatbot chatbots config const cpu crypto css csv dataset datasets devops
dict ebook ebooks elif email emails emoji emojis enum explainability fintech frontend functionalities gpu gpus html http
https immersive init json jupyter llm llms lookup nlp param params pdf plugin plugins repo repos runtime scalability sdk
sql startup startups svg tech tokenization tokenizer tuple tuples unicode url urls usb webinar webinars wifi xml yaml
"""
MODERN = frozenset(_MODERN.split())  # younger than the dictionary's corpus
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S*", re.DOTALL)
_PLAIN = re.compile(r"[a-z]+(?:['-][a-z]+)*")  # lower case, no digit, dot or underscore: neither a name nor code
_NAME = re.compile(r"[A-Z][a-z]{3,}")
_EDGES = ".,;:!?\"'“”‘’()[]{}*…–—"
_END = re.compile(r"[.!?:][\"'”’)]*\Z")


class Slip(NamedTuple):
    """A wrong word and, where that is known, the word it stands for."""

    word: str
    right: str = ""

    def __str__(self) -> str:
        return f"{self.word} (for {self.right}?)" if self.right else self.word


@dataclass(frozen=True)
class Lexicon:
    """The words of some texts, and which stand side by side."""

    words: frozenset[str]
    pairs: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Lexicon:
        known: set[str] = set()
        pairs: set[tuple[str, str]] = set()
        for text in texts:
            said = list(map(intern, words(text)))  # one string a word: a corpus has millions of pairs
            known.update(said)
            pairs.update(pairwise(said))
        return cls(frozenset(known), frozenset(pairs))


def slips(text: str, prompt: Lexicon, reference: Lexicon, known: Lexicon) -> list[Slip]:
    """The wrong words of a text, in no dictionary first. `known`: what the training answers say."""
    return [*unknown(text, prompt.words | reference.words, known), *confused(text, prompt, reference, known)]


def unknown(text: str, near: frozenset[str], known: Lexicon) -> list[Slip]:
    """Words of a text that no dictionary has, nor `near`, nor the training answers; as often as they stand.

    Outside code, and in no text of another language. A word with a capital may be a name: it counts where it is one
    letter from a word of `near` or from a name in the training answers, or begins a sentence and is one letter from a
    usual word.
    """

    def excused(word: str) -> bool:
        return in_dictionary(word) or stem(word) in known.words or stem(word) in near

    judged = list(checkable(text))
    found = [Slip(word) for word in judged if not excused(word)]
    if len(judged) >= FOREIGN_LEAST and len(found) >= FOREIGN * len(judged):
        return []
    for word, begins in _names(text):
        if excused(word):
            continue
        meant = [w for w in sorted(_edits(word)) if w + "s" != word]
        right = _first(w for w in meant if w in near or (w in known.words and not in_dictionary(w)))
        if right or (begins and _near(word, USUAL if len(word) > LEAST else VERY_USUAL)):
            found.append(Slip(word, right))
    return found


def confused(text: str, prompt: Lexicon, reference: Lexicon, known: Lexicon) -> list[Slip]:
    """Real words that stand for another one; the wrong one is in neither the prompt nor the reference.

    The right word is one letter away. Either the reference has it between the same two words; or the wrong one is rare
    and in no training answer, the right one is not in the text, and the prompt, the reference or, between the same two
    words, the training answers have it.
    """
    said = words(_CODE.sub(" ", text))
    there = set(said)
    found = []
    for place, word in enumerate(said):
        if not _may_be_wrong(word) or word in prompt.words or word in reference.words:
            continue
        right = _first(r for r in real_edits(word) if r in reference.words and _fits(said, place, r, reference))
        if not right and _often(word) <= RARE and len(word) >= LEAST and word not in known.words:
            absent = [r for r in real_edits(word) if r not in there and len(r) >= LEAST]
            right = _first(r for r in absent if r in reference.words)
            right = right or _first(r for r in absent if r in prompt.words and _often(r) > _often(word))
            right = right or _first(r for r in absent if r in known.words and _fits(said, place, r, known))
        if right:
            found.append(Slip(word, right))
    return found


def checkable(text: str) -> Iterator[str]:
    """The words whose spelling can be judged: ASCII lower case, four letters or more, outside code.

    A word of three letters that is in no dictionary is judged where it is one letter from a very usual word.
    """
    for token in _tokens(text):
        if _PLAIN.fullmatch(bare := token.strip(_EDGES)):
            yield from (part for part in bare.split("-") if len(stem(part)) >= LEAST or _short_slip(part))


def one_edit(word: str, other: str) -> bool:
    """One letter replaced, added, left out, or two neighbours swapped; not at the very end, where words inflect."""
    if word == other:
        return False
    if len(word) == len(other):
        where = [k for k in range(len(word)) if word[k] != other[k]]
        if len(where) == 1:
            return 0 < where[0] < len(word) - 1
        a = where[0]
        return where == [a, a + 1] and word[a] == other[a + 1] and word[a + 1] == other[a]
    short, long = sorted((word, other), key=len)
    left_out = any(long[:k] + long[k + 1 :] == short for k in range(len(long) - 1))
    return len(long) - len(short) == 1 and left_out and not long.startswith(short)


def stumps(word: str) -> set[str]:
    """The word, and the word without each of its letters: words one edit apart share one (Garbe's SymSpell)."""
    return {word, *(word[:k] + word[k + 1 :] for k in range(len(word)))}


def stem(word: str) -> str:
    """Without "'s", "n't" and the like."""
    return word.split("'")[0]


@functools.lru_cache(maxsize=100_000)
def in_dictionary(word: str) -> bool:
    """A word, its stem, its American spelling, or one that is made of two usual words or a prefix and a word."""
    known = dictionary()
    bare = stem(word)
    american = (bare.replace(british, here) for british, here in BRITISH if british in bare)
    if bare in MODERN or bare in PREFIXES or any(w in known for w in (word, bare, *american)):
        return True
    return _compound(bare) and not _near(bare, USUAL)


@functools.cache
def dictionary() -> Any:
    """pyspellchecker's English one: 160,000 words with how often each occurs."""
    from spellchecker import SpellChecker  # 0.1 s to load

    return SpellChecker(language="en")


@functools.lru_cache(maxsize=10_000)
def real_edits(word: str) -> tuple[str, ...]:
    """Real words one edit away, the most frequent first."""
    near = [other for other in _edits(word) if _often(other) and one_edit(word, other)]
    return tuple(sorted(near, key=lambda other: (-_often(other), other)))


def _compound(word: str) -> bool:
    """leaderboard, workflow, preprocess."""
    cuts = range(LEAST, len(word) - LEAST + 1)
    if any(_often(word[:k]) >= USUAL and _often(word[k:]) >= USUAL for k in cuts):
        return True
    rest = [word.removeprefix(prefix) for prefix in PREFIXES if word.startswith(prefix)]
    return any(len(part) >= LEAST and _often(part) >= USUAL for part in rest)


def _short_slip(word: str) -> bool:
    return len(word) == LEAST - 1 and word.isalpha() and not in_dictionary(word) and _near(word, VERY_USUAL)


def _tokens(text: str) -> list[str]:
    return _CODE.sub(" ", text).replace("’", "'").split()


def _names(text: str) -> Iterator[tuple[str, bool]]:
    """Words with a capital, in lower case, and whether they begin a sentence."""
    tokens = _tokens(text)
    for before, token in zip([".", *tokens], tokens, strict=False):
        if _NAME.fullmatch(bare := token.strip(_EDGES)):
            yield bare.lower(), bool(_END.search(before))


@functools.lru_cache(maxsize=10_000)
def _near(word: str, least: int) -> bool:
    return any(_often(other) >= least for other in _edits(word))


@functools.lru_cache(maxsize=10_000)
def _edits(word: str) -> frozenset[str]:
    """Everything one edit away, words or not."""
    return frozenset(dictionary().edit_distance_1(word)) - {word}


def _often(word: str) -> int:
    return int(dictionary().word_frequency[word])


def _may_be_wrong(word: str) -> bool:
    return len(word) >= LEAST - 1 and word.isascii() and word.isalpha() and _often(word) > 0


def _fits(said: list[str], place: int, right: str, texts: Lexicon) -> bool:
    """Does the right word stand after the word before this place, and before the word after it?"""
    before = place == 0 or (said[place - 1], right) in texts.pairs
    after = place == len(said) - 1 or (right, said[place + 1]) in texts.pairs
    return before and after and len(said) > 1


def _first(found: Iterable[str]) -> str:
    return next(iter(found), "")
