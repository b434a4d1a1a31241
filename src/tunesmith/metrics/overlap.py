"""How much of a reference answer a prediction gives. Pure functions, one value an item, in Unicode words throughout.

A word is a run of letters, marks, digits and "_" after NFKC and case folding; in scripts that put no space between
words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) every character is a word of its own.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ROUGE = {"rouge1": 1, "rouge2": 2, "rougeL": 1, "rougeLsum": 1}  # name -> the fewest words that it can tell apart
TERMINAL = " .!?\u3002\u0964\u06d4"  # what NFKC leaves of sentence ends: Latin, CJK, Devanagari, Urdu
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


@dataclass(frozen=True)
class Overlap:
    """Shares in 0..1: of the prediction that is in the reference, of the reference that was given, and their F1."""

    precision: float
    recall: float
    f1: float


def fold(text: str) -> str:
    """NFKC, case folded. Folding can undo NFKC, hence twice."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def normalise(text: str) -> str:
    """What exact match compares: folded, runs of whitespace as one space, no sentence end at the end.

    A text that is nothing but such punctuation stays as it is.
    """
    plain = " ".join(fold(text).split())
    return plain.rstrip(TERMINAL) or plain


def words(text: str) -> list[str]:
    """The words of a text. `\\w` would not do: it drops the vowel signs of Hindi and its neighbours."""
    kept = (c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else " " for c in fold(text))
    return _WORD.findall("".join(kept))


def exact_match(prediction: str, reference: str) -> float:
    """1.0 when both are the same after `normalise`."""
    return float(normalise(prediction) == normalise(reference))


def token_f1(prediction: str, reference: str) -> float:
    """F1 over the multisets of words (SQuAD's, without its English articles). Texts without a word: exact match."""
    predicted, wanted = words(prediction), words(reference)
    if not predicted and not wanted:
        return exact_match(prediction, reference)
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * shared / (len(predicted) + len(wanted))


def rouge(prediction: str, reference: str, names: Sequence[str] = tuple(ROUGE)) -> dict[str, Overlap]:
    """ROUGE-1, -2, -L and -Lsum (Lin 2004; -Lsum takes each line by itself) without stemming.

    Where both texts are too short for one n-gram, rouge-score gives 0 even to equal texts; here they get exact match.
    """
    scores = _scorer(tuple(names)).score(reference, prediction)
    predicted, wanted = len(words(prediction)), len(words(reference))
    same = exact_match(prediction, reference)
    out = {}
    for name in names:
        too_short = max(predicted, wanted) < ROUGE[name]
        s = scores[name]
        out[name] = Overlap(same, same, same) if too_short else Overlap(s.precision, s.recall, s.fmeasure)
    return out


def length_ratio(prediction: str, reference: str) -> float | None:
    """Words predicted for each word of the reference; None when the reference has no words."""
    wanted = len(words(reference))
    return len(words(prediction)) / wanted if wanted else None


class _UnicodeTokenizer:
    """The tokenizer that rouge-score asks for; its own keeps only a-z and 0-9."""

    def tokenize(self, text: str) -> Sequence[str]:
        return words(text)


@functools.cache
def _scorer(names: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # 0.9 s: it imports nltk

    return RougeScorer(list(names), use_stemmer=False, tokenizer=_UnicodeTokenizer())
