"""A web page to questions and answers: schema.org FAQPage, <details>, <dl>, and headings that ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

from tunesmith.collect.record import Record, shown
from tunesmith.core.errors import DataError
from tunesmith.core.records import Reject

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
MARKS = (*HEADINGS, "dt", "dd", "summary")  # elements whose text is a block of its own
SKIPPED = ("script", "style", "nav", "footer", "aside", "form", "noscript", "template", "svg", "head")
LINES = ("p", "div", "br", "tr", "ul", "ol", "table", "section", "article", "main", "blockquote", "pre", "details")
FAQS = ("FAQPage", "QAPage")  # types of schema.org that hold questions with an accepted answer
ASKS = re.compile(r"\?[\s\"'”’)]*$")
INLINE = 7  # the level of a question that is no heading
LARGEST = 8 << 20  # characters; no FAQ is longer, and the parser's time grows faster than the page


@dataclass(frozen=True)
class Block:
    """A stretch of text: `kind` is the element that it stands in, "text", "data" (JSON-LD) or "end" (</details>)."""

    kind: str
    line: int
    text: str = ""


@dataclass
class Pair:
    line: int
    question: str
    answer: str
    level: int = INLINE


class _Blocks(HTMLParser):
    """Cuts a page into blocks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._held: list[str] = []
        self._kind, self._line, self._hidden, self._pre, self._data = "text", 1, 0, 0, False

    def flush(self, kind: str = "text") -> None:
        text = "".join(self._held)
        if text.strip() or self._kind == "end":
            self.blocks.append(Block(self._kind, self._line, text if self._kind == "data" else _tidy(text)))
        self._held, self._kind, self._line = [], kind, self.getpos()[0]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" and ("type", "application/ld+json") in attrs:
            self.flush("data")
            self._data = True
        elif tag in SKIPPED:
            self._hidden += 1
        elif tag in MARKS:
            self.flush(tag)
        elif tag == "li":
            self._held.append("\n- ")
        elif tag in LINES:
            self._held.append("\n")
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._data:
            self.flush()
            self._data = False
        elif tag in SKIPPED:
            self._hidden = max(0, self._hidden - 1)
        elif tag in MARKS:
            self.flush()
        elif tag == "details":
            self.flush("end")
            self.flush()
        elif tag in LINES:
            self._held.append("\n")
        self._pre = max(0, self._pre - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if self._data or (not self._hidden and self._pre):
            self._held.append(data)
        elif not self._hidden:
            self._held.append(re.sub(r"\s+", " ", data))


def _tidy(text: str) -> str:
    lines = (line.rstrip() if line.startswith("    ") else line.strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def blocks(text: str) -> list[Block]:
    """The page in pieces. Raises ValueError on markup that the standard parser gives up on."""
    parser = _Blocks()
    try:
        parser.feed(text[:LARGEST])
        parser.close()
    except AssertionError as error:
        raise ValueError(str(error)) from error
    parser.flush()
    return parser.blocks


def pairs(text: str) -> list[Pair]:
    """Every question of a page, with its answer or ''; what the page says of itself (schema.org) comes first."""
    try:
        found = blocks(text)
    except ValueError:
        return []
    stated = [pair for block in found if block.kind == "data" for pair in _stated(block)]
    known = {_key(pair.question) for pair in stated}
    return [*stated, *(pair for pair in _seen(found) if _key(pair.question) not in known)]


def read(text: str, name: str) -> Iterator[Record | Reject]:
    """A record for each question with an answer, a reject for each without."""
    if len(text) > LARGEST:
        raise DataError("a web page of this size is not read", where=name, expected=f"at most {LARGEST:,} characters")
    for pair in pairs(text):
        raw = f"{pair.question}\n{pair.answer}"
        if pair.answer:
            yield Record(pair.line, {"question": pair.question, "answer": pair.answer}, raw)
        else:
            yield Reject(name, pair.line, "no_answer", f"{name}:{pair.line}: nothing below it", shown(raw))


def _key(question: str) -> str:
    return " ".join(re.findall(r"\w+", question.casefold()))


def _seen(found: list[Block]) -> Iterator[Pair]:
    """Questions as they stand on the page: an element that asks, and the text up to the next one."""
    now: Pair | None = None
    for block in found:
        level = int(block.kind[1]) if block.kind in HEADINGS else INLINE
        title = block.kind in MARKS and block.kind != "dd"
        if title and ASKS.search(block.text):
            if now:
                yield now
            now = Pair(block.line, " ".join(block.text.split()), "", level)
        elif now and (block.kind == "end" or (title and level <= now.level)):
            yield now
            now = None
        elif now and block.kind != "data":
            now.answer = f"{now.answer}\n\n{block.text}".strip()
    if now:
        yield now


def _stated(block: Block) -> Iterator[Pair]:
    try:
        value = json.loads(block.text)
    except (ValueError, RecursionError):
        return
    for item in _questions(value, False):
        answer = item.get("acceptedAnswer")
        answer = answer[0] if isinstance(answer, list) and answer else answer
        said = answer.get("text") if isinstance(answer, dict) else answer
        if isinstance(item.get("name"), str) and isinstance(said, str | None):
            yield Pair(block.line, plain(item["name"]), plain(said or ""))


def _questions(value: Any, inside: bool) -> Iterator[dict[str, Any]]:
    """The Question objects below a FAQPage, wherever in the data that lies (mainEntity, @graph, a list)."""
    if isinstance(value, list):
        for item in value:
            yield from _questions(item, inside)
    elif isinstance(value, dict):
        kinds = value.get("@type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if inside and "Question" in kinds:
            yield value
            return
        inside = inside or any(kind in FAQS for kind in kinds)
        for item in value.values():
            yield from _questions(item, inside)


def plain(markup: str) -> str:
    """The text of a piece of HTML; a text without tags and entities as it is."""
    if "<" not in markup and "&" not in markup:
        return markup.strip()
    try:
        return "\n\n".join(block.text for block in blocks(markup) if block.kind not in ("data", "end"))
    except ValueError:
        return markup.strip()
