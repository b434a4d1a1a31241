"""BLEU and chrF as sacrebleu has them, of counts that add up: a text's score from its own, a set's from their sum."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from tunesmith.metrics.overlap import UNSPACED, exact_match

ORDERS = 4  # BLEU's words in a row, at most
BETA2 = 4  # chrF2: recall counts twice as much as precision
_CHARACTER = re.compile(f"[{UNSPACED}]")

Counts = tuple[int, ...]


def bleu_counts(prediction: str, reference: str) -> Counts:
    """(words predicted, words of the reference, 4 counts of shared n-grams, 4 counts of predicted n-grams).

    Words as in sacrebleu's 13a; in scripts that put no space between words, every character is one.
    """
    score = _bleu().sentence_score(_spaced(prediction), [_spaced(reference)])
    return score.sys_len, score.ref_len, *score.counts, *score.totals


def bleu(counts: Sequence[float], sentence: bool = False) -> float:
    """BLEU in 0..1 (Papineni et al. 2002), orders without a match smoothed exponentially, as sacrebleu does it.

    `sentence`: orders that one text is too short for do not count.
    """
    from sacrebleu.metrics import BLEU

    whole = [int(count) for count in counts]
    lengths, shared, given = whole[:2], whole[2 : 2 + ORDERS], whole[2 + ORDERS :]
    found = BLEU.compute_bleu(shared, given, *lengths, smooth_method="exp", effective_order=sentence)
    return min(1.0, float(found.score) / 100)


def sentence_bleu(prediction: str, reference: str) -> float:
    """The BLEU of one text; of two texts without a word, whether they are the same."""
    counts = bleu_counts(prediction, reference)
    return bleu(counts, sentence=True) if any(counts) else exact_match(prediction, reference)


def chrf_counts(prediction: str, reference: str) -> Counts:
    """For each of 1 to 6 characters in a row, spaces left out: n-grams predicted, of the reference, shared."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    pairs = zip(extract_all_char_ngrams(prediction, 6), extract_all_char_ngrams(reference, 6), strict=True)
    # as in sacrebleu, an order that the reference is too short for does not count
    counts = [(p.total() if r else 0, r.total(), (p & r).total()) for p, r in pairs]
    return tuple(count for order in counts for count in order)


def chrf(counts: Sequence[float]) -> float:
    """chrF2 in 0..1 (Popovic 2015): F of the precision and the recall averaged over the orders that both texts have."""
    orders = [counts[start : start + 3] for start in range(0, len(counts), 3)]
    both = [order for order in orders if order[0] and order[1]]
    if not both:
        return 0.0
    precision = sum(shared / predicted for predicted, _, shared in both) / len(both)
    recall = sum(shared / wanted for _, wanted, shared in both) / len(both)
    return min(1.0, (1 + BETA2) * precision * recall / (BETA2 * precision + recall)) if recall else 0.0


def sentence_chrf(prediction: str, reference: str) -> float:
    """The chrF of one text; of two texts without a character, 1."""
    counts = chrf_counts(prediction, reference)
    return chrf(counts) if any(counts) else exact_match(prediction, reference)


def _spaced(text: str) -> str:
    return _CHARACTER.sub(r" \g<0> ", text)


@functools.cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)
