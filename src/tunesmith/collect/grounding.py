"""Documents in pieces, and whether what is said of a piece stands in it: numbers and names, which are what is made up.

It finds no false statement made of true words; it does find the invented figure, product or function.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tunesmith.metrics.overlap import words

TOKEN = 4  # characters of English a token, roughly
LEAST, MOST = 600 * TOKEN, 1000 * TOKEN  # characters of a chunk
_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_LIST = re.compile(r"^\s*\d{1,2}[.)]\s+", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])(?<![^\W\d]-)[-+]?\d+(?:[.,:/]\d+)*")
_WORD = re.compile(r"[^\W_]+(?:[-_./'’]*[^\W_]+)*", re.UNICODE)
_SPOKEN = {
    word: str(number)
    for number, word in enumerate(words("zero one two three four five six seven eight nine ten eleven twelve"))
}
# Talk about the text instead of from it: a reader of the answer will not have the text.
_ABOUT_TEXT = re.compile(
    r"\b(?:according to|based on|as (?:\w+ )?(?:in|by)|mentioned in|provided in|given in)\s+(?:the|this)\s+"
    r"(?:(?:given|provided|above|following)\s+)?(?:text|passage|excerpt|article|context|documents?|documentation|"
    r"section|snippet|facts?)\b"
    r"|\b(?:the|this) (?:text|passage|excerpt|snippet|given (?:text|facts?)) "
    r"(?:says?|states?|mentions?|describes?|explains?|provides?|does|is|above)\b"
    r"|\b(?:in|from) (?:the|this) (?:text|passage|excerpt|snippet)\b|\bfact \d",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Chunk:
    """A piece of a document: its headings from the outermost in, and its text. `number` counts from 1."""

    document: str
    number: int
    headings: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}#{self.number}"

    @property
    def whole(self) -> str:
        return "\n".join([" > ".join(self.headings), self.text]).strip()


def chunks(document: str, text: str) -> list[Chunk]:
    """A document in pieces of 600 to 1,000 tokens (at 4 characters each), cut at headings where that will do.

    A long section is cut between paragraphs, a paragraph that is too long between lines or words; a short section goes
    with the next, the last with the one before. Nothing is left out and nothing comes twice.
    """
    found = list(_pieces(text))
    if len(found) > 1 and len(found[-1][1]) < LEAST and len(found[-2][1]) + 2 + len(found[-1][1]) <= MOST:
        found[-2:] = [(found[-2][0], f"{found[-2][1]}\n\n{found[-1][1]}")]
    return [Chunk(document, number, headings, piece) for number, (headings, piece) in enumerate(found, 1)]


def _pieces(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    held: list[str] = []
    headings: tuple[str, ...] = ()
    size = 0
    for path, block in _blocks(text):
        for part in _parts(block):
            starts = path != headings and size >= LEAST
            if held and (starts or size + len(part) > MOST):
                yield headings, "\n\n".join(held)
                held, size = [], 0
            if not held:
                headings = path
            held.append(part)
            size += len(part) + 2
    if held:
        yield headings, "\n\n".join(held)


def _blocks(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """(headings above it, paragraph); a heading is a paragraph of its own section, code keeps its blank lines."""
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    fenced = False
    for line in [*text.splitlines(), ""]:
        fenced ^= bool(_FENCE.match(line))
        heading = None if fenced else _HEADING.match(line)
        if lines and (heading or (not line.strip() and not fenced)):
            yield tuple(title for _, title in path), "\n".join(lines)
            lines = []
        if heading:
            path = [(level, title) for level, title in path if level < len(heading[1])]
            path.append((len(heading[1]), heading[2]))
        if line.strip() or lines:
            lines.append(line)
    if lines:
        yield tuple(title for _, title in path), "\n".join(lines)


def _parts(block: str) -> Iterator[str]:
    """A paragraph in parts that fit, cut after a line or else after a word."""
    while len(block) > MOST:
        cut = max(block.rfind("\n", 0, MOST), block.rfind(". ", 0, MOST) + 1)
        cut = cut if cut > MOST // 2 else block.rfind(" ", 0, MOST)
        cut = cut if cut > 0 else MOST
        yield block[:cut].rstrip()
        block = block[cut:].lstrip()
    if block:
        yield block


def about_text(text: str) -> str:
    """Where a text speaks of "the text" or "the passage", or ""."""
    match = _ABOUT_TEXT.search(text)
    return match[0] if match else ""


def unsupported(said: str, source: str) -> list[str]:
    """The numbers and names of a text that its source does not hold.

    A number counts in digits or as a word up to twelve. A name is a word with a capital that begins no sentence, or
    with a digit, an inner capital or an underscore; numbers of list items are none.
    """
    said = _LIST.sub("", said)
    numbers = {_plain(n) for n in _NUMBER.findall(source)} | {
        _SPOKEN[w] for w in map(str.casefold, _WORD.findall(source)) if w in _SPOKEN
    }
    known = {form for word in _WORD.findall(source) for form in (*_forms(word), *_parted(word))}
    missing = [n for n in _NUMBER.findall(said) if _plain(n) not in numbers and n.casefold() not in known]
    return missing + [name for name in dict.fromkeys(_names(said)) if not _known(name, known)]


def _plain(number: str) -> str:
    return re.sub(r",(?=\d{3}\b)", "", number).lstrip("+")


def _forms(word: str) -> set[str]:
    """A word as names are compared: without case, a possessive or a plural's s."""
    whole = word.casefold().replace("’", "'")
    bare = whole.removesuffix("'s")
    return {whole, bare, bare.removesuffix("s")}


def _parted(word: str) -> list[str]:
    return re.split(r"[-_./'’]+", word.casefold())


def _known(name: str, known: set[str]) -> bool:
    """As a whole, or in all of its parts; of "Python-based" only the part with a capital counts."""
    parts = re.split(r"[-_./'’]+", name)
    if not re.search(r"[_.]", name):
        parts = [part for part in parts if part[0].isupper() or part[0].isdigit()] or parts
    return bool(known & _forms(name)) or all(known & _forms(part) for part in parts)


def _names(text: str) -> Iterator[str]:
    begins = True  # a sentence, where a capital says nothing
    end = 0
    for match in _WORD.finditer(text):
        between, word = text[end : match.start()], match[0]
        end = match.end()
        begins = begins or bool(re.search(r"[.!?:;\n\"“(•*\-–—>|]", between))
        inner = any(c.isupper() for c in word[1:]) or "_" in word
        marked = any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
        capital = word[0].isupper() and not begins and word.split("'")[0].split("’")[0] != "I"
        if (inner and len(word) > 1) or marked or capital:
            yield word
        begins = False
