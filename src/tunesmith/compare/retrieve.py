"""Retrieval without a model: BM25 over training questions, or over passages of documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.records import Row
from tunesmith.metrics.overlap import words

PASSAGE = 600  # characters: about 150 tokens of English, so that three fit into a prompt of 512 tokens


class Index:
    """BM25 over texts. A text without a word is never nearer than another."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Raises DataError where no text has a word."""
        import bm25s

        tokens = [words(text) for text in texts]
        if not any(tokens):
            raise DataError("there is no text with a word in it, so there is nothing to retrieve")
        self._bm25: Any = bm25s.BM25()
        self._bm25.index(tokens, show_progress=False)
        self.size = len(texts)

    def nearest(self, query: str, count: int) -> list[int]:
        """The places of the `count` nearest texts, best first; the earlier one on a tie, as without a shared word."""
        asked = words(query)
        scores = self._bm25.get_scores(asked) if asked else np.zeros(self.size)
        return [int(place) for place in np.argsort(-scores, kind="stable")[:count]]


def bm25_copy(train_rows: Sequence[Row], test_rows: Sequence[Row]) -> list[str]:
    """For each test row the answer of the training row with the nearest question.

    The earliest on a tie, and so the first row for a question that shares no word with any. Raises DataError when no
    training row has both a question and an answer.
    """
    known = [row for row in train_rows if row.answer and words(row.question)]
    if not known:
        raise DataError("no training row has a question and an answer, so there is nothing to retrieve")
    index = Index([row.question for row in known])
    return [known[index.nearest(row.question, 1)[0]].answer for row in test_rows]


def passages(text: str, most: int = PASSAGE) -> list[str]:
    """A document in pieces of at most `most` characters: paragraphs together while they fit, longer ones cut.

    A long paragraph is cut between words, a run of characters without a space wherever the piece is full.
    """
    held, out = "", []
    for part in (piece for block in re.split(r"\n\s*\n", text) for piece in _cut(block.strip(), most)):
        if held and len(held) + 2 + len(part) > most:
            out.append(held)
            held = ""
        held = f"{held}\n\n{part}" if held else part
    return [*out, held] if held else out


def _cut(text: str, most: int) -> Iterator[str]:
    while len(text) > most:
        space = text.rfind(" ", 1, most + 1)
        end = space if space > 0 else most
        yield text[:end].strip()
        text = text[end:].strip()
    if text:
        yield text
