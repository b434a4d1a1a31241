"""Retrieval without a model: the answer of the nearest training question by BM25."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.records import Row
from tunesmith.metrics.overlap import words


def bm25_copy(train_rows: Sequence[Row], test_rows: Sequence[Row]) -> list[str]:
    """For each test row the answer of the training row with the nearest question.

    The earliest on a tie, and so the first row for a question that shares no word with any. Raises DataError when no
    training row has both a question and an answer.
    """
    import bm25s

    known = [row for row in train_rows if row.answer and words(row.question)]
    if not known:
        raise DataError("no training row has a question and an answer, so there is nothing to retrieve")
    index = bm25s.BM25()
    index.index([words(row.question) for row in known], show_progress=False)
    found = (words(row.question) for row in test_rows)
    return [known[int(np.argmax(index.get_scores(query))) if query else 0].answer for query in found]
