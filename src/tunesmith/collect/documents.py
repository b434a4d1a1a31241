"""Plain text to raw-text rows: where one document ends and the next begins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from tunesmith.collect.record import Record
from tunesmith.core.errors import DataError

Cut = Literal["line", "paragraph", "mark", "file"]

LONG = 500  # characters from which a line is a whole document: the usual wrap is 80, a paragraph's line 200 to 400
MARKS = ("\f", "<|endoftext|>")  # what corpora write between documents
SENTENCE = re.compile(r"[.!?:;…][\"'”’)\]*_`]*$")
HEADING = re.compile(r"#{1,6} \S")
FIX = (
    'documents = "line", "paragraph" or "file" under [collect] in tunesmith.toml, for raw text; '
    'for examples, one JSON object a line: {"prompt": "...", "completion": "..."}'
)


def cut_of(lines: Iterable[str], name: str) -> Cut:
    """Where the documents of a text end. Raises DataError, with the choices, where the text does not show it.

    A form feed or <|endoftext|> parts documents; lines of which nine in ten are long are a document each; prose in
    paragraphs, or Markdown with headings, is one document.
    """
    filled = long = paragraphs = ended = headings = 0
    last = ""
    for line in lines:
        bare = line.strip(" \t\n")
        if bare.startswith(MARKS):
            return "mark"
        filled += bool(bare)
        long += len(bare) >= LONG
        headings += bool(HEADING.match(bare))
        if bare and not last:
            paragraphs += 1
        if last and not bare:
            ended += bool(SENTENCE.search(last))
        last = bare
    ended += bool(SENTENCE.search(last))
    if filled > 1 and long >= 0.9 * filled:
        return "line"
    if headings or (paragraphs > 1 and 2 * ended >= paragraphs):
        return "file"
    what = "this is plain text, neither JSON nor a table, and where one document ends in it is unclear"
    raise DataError(what, where=name, expected="paragraphs of prose, one long document a line, or a mark", fix=FIX)


def read(lines: Iterable[str], cut: Cut) -> Iterator[Record]:
    """One record a document, with the line on which its first word stands."""
    held: list[str] = []
    number = 0
    for number, line in enumerate(lines, 1):
        bare = line.strip()
        ends = cut == "line" or (cut == "paragraph" and not bare)
        if cut == "mark" and line.lstrip(" \t").startswith(MARKS):
            yield from _document(held, number)
            line, held = line.lstrip(" \t").removeprefix(MARKS[0]).removeprefix(MARKS[1]), []
        held.append(line)
        if ends:
            yield from _document(held, number + 1)
            held = []
    yield from _document(held, number + 1)


def _document(lines: list[str], end: int) -> Iterator[Record]:
    """The document that these lines are, the last of them on line `end` - 1; nothing of blank ones."""
    filled = [place for place, line in enumerate(lines) if line.strip()]
    if filled:
        text = "".join(lines[filled[0] : filled[-1] + 1]).rstrip()
        yield Record(end - len(lines) + filled[0], {"text": text}, text[:1000])
