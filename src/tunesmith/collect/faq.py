"""A FAQ written as text or Markdown to questions and answers: headings that ask, Q:/A:, **bold?**, <summary>."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tunesmith.collect.record import Record, shown
from tunesmith.core.records import Reject

LIST = r"\s{0,3}(?:[-*+]\s+|\d+[.)]\s+)?"  # what may stand before a mark
HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
BOLD = re.compile(LIST + r"(?:\*\*|__)(.+?)(?:\*\*|__):?\s*$")
ASKED = re.compile(r"(?:#+\s+)?" + LIST + r"(?:\*\*|__)?(?:Q|Question)\s*\d*\s*[:.)]\s*(?:\*\*|__)?\s*(.*)$", re.I)
ANSWERED = re.compile(r"(?:#+\s+)?" + LIST + r"(?:\*\*|__)?(?:A|Answer)\s*\d*\s*[:.)]\s*(?:\*\*|__)?\s*(.*)$", re.I)
SUMMARY = re.compile(r"\s*(?:<details[^>]*>\s*)?<summary[^>]*>(.*?)</summary>\s*(.*)$", re.I)
FENCE = re.compile(r"\s{0,3}(```|~~~)")
OPENING = re.compile(r"\s*(#{1,6}\s|<details|<summary|\*\*|(Q|Question)\s*\d*\s*[:.]\s)", re.I)
EMPTY = re.compile(
    r"\s*(-{3,}|\*{3,}|_{3,}|</?details[^>]*>|</?summary>|\[.*\]\(#[^)]*\)|<br\s*/?>|<!--.*-->)?\s*$", re.I
)
TITLE = (  # what is writing in a question and not its words -> what stays
    (re.compile(r"\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"\s*\{#[^}]*\}\s*$|<[^>]*>|\*\*|__|`"), ""),
    (re.compile(r"^\d+[.)]\s+"), ""),
)
ASKS = re.compile(r"\?[\s\"'”’)*_]*$")
INLINE = 7  # the level of a question that is no heading: any heading ends it


@dataclass
class Section:
    """A title and what stands below it. `asks`: it is a question; `sure`: it is marked as one."""

    line: int
    title: str = ""
    level: int = 0
    asks: bool = False
    sure: bool = False
    body: list[str] = field(default_factory=list)

    @property
    def answer(self) -> str:
        kept = list(self.body)
        while kept and EMPTY.match(kept[-1]):
            kept.pop()
        while kept and EMPTY.match(kept[0]):
            kept.pop(0)
        return "\n".join(kept).strip()


def opens(start: str) -> bool:
    """Does a text begin as a FAQ does, whatever commas it may hold?"""
    return OPENING.match(start) is not None


def is_faq(text: str) -> bool:
    """Two questions with answers, or one that is marked as such, and at least as many as other parts with a text."""
    filled = [part for part in sections(text) if part.answer]
    asking = [part for part in filled if part.asks]
    enough = len(asking) > 1 or any(part.sure for part in asking)
    return enough and 2 * len(asking) >= len(filled)


def read(text: str, name: str) -> Iterator[Record | Reject]:
    """A record for each question with its answer; a reject for what is only one of them."""
    for part in sections(text):
        raw = "\n".join([part.title, *part.body])
        if part.asks and part.answer:
            yield Record(part.line, {"question": part.title, "answer": part.answer}, raw)
        elif part.asks or part.answer:
            reason, what = ("no_answer", "nothing below it") if part.asks else ("no_question", "it asks nothing")
            yield Reject(name, part.line, reason, f"{name}:{part.line}: {what}", shown(raw))


def sections(text: str) -> list[Section]:
    lines = text.split("\n")
    start = _front_matter(lines)
    made = [Section(start + 1)]
    fence = ""
    for at in range(start, len(lines)):
        line = lines[at]
        if mark := FENCE.match(line):
            fence = "" if fence == mark[1] else fence or mark[1]
        opened = None if fence or mark else _opened(lines, at)
        if opened is not None and _begins(opened, made[-1]):
            made.append(opened)
        elif not _underlines(lines, at):
            _add(made[-1], line)
    return made


def _front_matter(lines: list[str]) -> int:
    """How many lines the settings at the top of a page take."""
    if lines[0].rstrip() == "---" and "---" in (rest := [line.rstrip() for line in lines[1:60]]):
        return rest.index("---") + 2
    return 0


def _opened(lines: list[str], at: int) -> Section | None:
    """The section that a line opens, if it opens one."""
    line, number = lines[at], at + 1
    if asked := ASKED.match(line):
        return Section(number, _clean(asked[1]), INLINE, True, True)
    if summary := SUMMARY.match(line):
        title = _clean(summary[1])
        return Section(number, title, INLINE, asks := bool(ASKS.search(title)), asks, [summary[2]])
    if ANSWERED.match(line):
        return None
    if heading := HEADING.match(line):
        title = _clean(heading[2])
        return Section(number, title, len(heading[1]), bool(ASKS.search(title)))
    if line.strip() and at + 1 < len(lines) and _underlines(lines, at + 1):
        title = _clean(line)
        return Section(number, title, 1 if "=" in lines[at + 1] else 2, bool(ASKS.search(title)))
    if (bold := BOLD.match(line)) and ASKS.search(title := _clean(bold[1])):
        return Section(number, title, INLINE, True)
    return None


def _underlines(lines: list[str], at: int) -> bool:
    """Is this line the rule that makes a heading of the one above it?"""
    above = lines[at - 1] if at else ""
    alone = at < 2 or not lines[at - 2].strip()
    return bool(re.fullmatch(r"(={3,}|-{3,})\s*", lines[at])) and bool(re.match(r"\s{0,3}\w", above)) and alone


def _begins(new: Section, now: Section) -> bool:
    """A deeper heading that asks nothing is a part of the answer."""
    return new.asks or not now.asks or new.level <= now.level


def _add(part: Section, line: str) -> None:
    """One more line: of the answer, or, after Q: and before A:, of the question."""
    answered = ANSWERED.match(line) if part.asks else None
    if answered and (part.sure or not part.answer):
        earlier = part.answer
        if earlier:
            part.title = f"{part.title}\n{earlier}".strip()
        part.body = [answered[1]]
        part.sure = True
    else:
        part.body.append(line)


def _clean(title: str) -> str:
    for pattern, kept in TITLE:
        title = pattern.sub(kept, title)
    return title.strip()
