import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from tunesmith.metrics.ngrams import bleu, bleu_counts, chrf, chrf_counts, sentence_bleu, sentence_chrf

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "log", ",", ".", "and", "quickly"]
CAT = "the cat is on the mat"


def texts(seed: int, count: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    lengths = [(draw.randint(0, 12), draw.randint(1, 12)) for _ in range(count)]
    return [(" ".join(draw.choices(WORDS, k=a)), " ".join(draw.choices(WORDS, k=b))) for a, b in lengths]


def test_the_counts_of_bleu_are_those_of_the_paper() -> None:
    # of "the" x 7 two are in the reference (Papineni et al. 2002, section 2.1); no pair is
    assert bleu_counts("the the the the the the the", CAT) == (7, 6, 2, 0, 0, 0, 7, 6, 5, 4)


def test_bleu_by_hand() -> None:
    # 5 of 6 words, 3 of 5 pairs, 2 of 4, 1 of 3; no penalty: both have six words
    assert sentence_bleu("the cat sat on the mat", CAT) == pytest.approx((5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)
    # all of four words right, but two are missing: the penalty alone
    assert sentence_bleu("the cat is on", CAT) == pytest.approx(math.exp(1 - 6 / 4))


def test_chrf_by_hand() -> None:
    # "ab" against "abc": 2 of 2 and 2 of 3 letters, 1 of 1 and 1 of 2 pairs; the prediction has no three in a row
    recall = (2 / 3 + 1 / 2) / 2
    assert chrf_counts("a b", "abc") == (2, 3, 2, 1, 2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert sentence_chrf("a b", "abc") == pytest.approx(5 * 1.0 * recall / (4 * 1.0 + recall))


def test_sentences_and_the_whole_equal_sacrebleu() -> None:
    pairs = texts(seed=1, count=60)
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    one, whole, characters = BLEU(effective_order=True), BLEU(), CHRF()
    for prediction, reference in pairs:
        if prediction:
            assert 100 * sentence_bleu(prediction, reference) == pytest.approx(
                one.sentence_score(prediction, [reference]).score
            )
        expected = characters.sentence_score(prediction, [reference]).score
        assert 100 * sentence_chrf(prediction, reference) == pytest.approx(expected)
    for counts, score, peer in ((bleu_counts, bleu, whole), (chrf_counts, chrf, characters)):
        sums = [sum(column) for column in zip(*(counts(p, r) for p, r in pairs), strict=True)]
        assert 100 * score(sums) == pytest.approx(peer.corpus_score(predictions, [references]).score, abs=1e-9)


def test_scripts_without_spaces_are_counted_by_characters() -> None:
    assert bleu_counts("日本語", "日本人")[:3] == (3, 3, 2)
    assert sentence_bleu("ไทยดี", "ไทยดี") == 1.0


def test_a_sum_of_nothing_scores_nothing() -> None:
    assert bleu([0] * 10) == chrf([0] * 18) == 0.0
    assert sentence_bleu("", "a") == sentence_chrf("", "a") == sentence_bleu("a", "") == 0.0


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_scores_lie_between_0_and_1_and_equal_texts_score_1(a: str, b: str) -> None:
    for score in (sentence_bleu, sentence_chrf):
        assert 0.0 <= score(a, b) <= 1.0
        assert score(a, a) == pytest.approx(1.0)
