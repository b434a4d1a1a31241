import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.metrics.similarity import Frequencies, cosines


def test_cosines_row_by_row() -> None:
    first = np.array([[1, 0], [1, 1], [3, 4], [0, 0]], np.float32)
    second = np.array([[0, 2], [1, 0], [-3, -4], [1, 1]], np.float32)
    assert cosines(first, second) == pytest.approx([0.0, math.sqrt(0.5), -1.0, 0.0])


def test_spelling_by_hand() -> None:
    known = Frequencies.of(["ab", "ac"])
    # " ab " has the runs " ab", "ab ", " ab ", each in one of two texts; "xab" shares "ab " alone
    rare, unseen = 1 + math.log(3 / 2), 1 + math.log(3 / 1)
    # " xab ": " xa" "xab" "ab " " xab" "xab " " xab "
    expected = rare * rare / math.sqrt(3 * rare**2 * (rare**2 + 5 * unseen**2))
    assert known.similarity("xab", "ab") == pytest.approx(expected)


def test_words_that_every_text_has_count_less() -> None:
    known = Frequencies.of(["please reset it", "please open it", "please close it"])
    assert known.similarity("reset", "please reset it") > known.similarity("please", "please reset it")


def test_spelling_is_not_meaning() -> None:
    known = Frequencies.of(["car", "automobile"])
    assert known.similarity("car", "automobile") == 0.0
    assert known.similarity("the automobiles", "automobile") > 0.5


@given(st.text(max_size=30), st.text(max_size=30))
def test_it_is_symmetric_and_one_for_equal_texts(a: str, b: str) -> None:
    known = Frequencies.of([a, b])
    assert known.similarity(a, a) == pytest.approx(1.0)
    assert known.similarity(a, b) == pytest.approx(known.similarity(b, a))
    assert 0.0 <= known.similarity(a, b) <= 1.0
