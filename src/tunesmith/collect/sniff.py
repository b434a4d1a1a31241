"""What bytes are these? Decided by content: a name says what somebody hoped that a file is. Read as a stream."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from tunesmith.collect import documents, faq, page
from tunesmith.collect.unpack import Blob
from tunesmith.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

Container = Literal["json", "jsonl", "csv", "markdown", "html", "text", "mbox", "slack", "parquet"]

MAGIC = (  # first bytes -> what it is
    (b"ARROW1", "an Arrow file"),
    (b"%PDF", "a PDF"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"GGUF", "a GGUF model"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)
TAR = (257, b"ustar")  # a tar archive's mark does not stand at its start
PAGES = (  # start of the text -> what it is
    (r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", "html", "download the raw file again"),
    (r"<(details|dl|div|section|article|main|h[1-6]|p|ul|ol|script|meta|title|table|br)\b[^>]*>", "html", ""),
    (r"<\?xml\b", "XML", ""),
    (r"version https://git-lfs", "a Git LFS pointer, not the data", "git lfs pull"),
)
MBOX = re.compile(r"From \S.*\n([\w-]+:.*\n([ \t].*\n)*)+")  # the line that parts messages, then headers
BOMS = (  # UTF-32 before UTF-16: its little-endian mark starts with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
READS = "JSON, JSON lines, CSV, TSV, a Markdown or HTML FAQ, mbox, a Slack export, Parquet or text"
BARE = 0.1  # quotes are read as quotes unless this share of the records speaks against it
SAMPLE = 200  # CSV records looked at to find the delimiter
MOST_LINES = 20_000  # and lines: an open quote would swallow the file
EVEN = 0.6  # the share of records that must be as wide as the header
LONE_COLUMNS = ("text", "content", "document")  # the only headers under which one column is a table and not prose
HEAD = 1 << 16  # bytes or characters looked at for what must stand at the start


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written. `quotes`: a field may stand in double quotes."""

    delimiter: str = ","
    quotes: bool = True


@dataclass(frozen=True)
class Sniffed:
    """A file and what was found out about it; `lines` and `text` read it, with \\n line ends."""

    blob: Blob
    encoding: str
    container: Container
    dialect: Dialect = Dialect()
    notice: str = ""
    errors: str = "strict"
    cut: documents.Cut = "file"

    def lines(self) -> Iterator[str]:
        """Every line with its \\n. Of all the line breaks in Unicode only \\n, \\r\\n and \\r end one."""
        with io.TextIOWrapper(self.blob.open(), self.encoding, self.errors) as stream:
            first = next(stream, "").removeprefix("\ufeff")
            if first:
                yield first
            yield from stream

    @property
    def text(self) -> str:
        return "".join(self.lines())


def sniff(blob: Blob, encoding: str | None = None, cut: documents.Cut | None = None) -> Sniffed:
    """Tell what a file holds. Raises DataError on what cannot be read, saying what it is instead.

    `encoding` and `cut` (where one raw text ends) are the user's word; None to find out.
    """
    if blob.chat:
        return Sniffed(blob, "utf-8", "slack")
    head = blob.head(HEAD)
    if not head.strip(b" \t\r\n\0") and not any(chunk.strip(b" \t\r\n\0") for chunk in blob.chunks()):
        raise _empty(blob.name)
    if encoding is None:
        _refuse_binary(head, blob.name)
        if head.startswith(b"PAR1"):
            return Sniffed(blob, "binary", "parquet")
    found, errors, notice = _encoding(blob, encoding)
    file = Sniffed(blob, found, "text", Dialect(), notice, errors)
    container, dialect, cut = _container(file, cut)
    return Sniffed(blob, found, container, dialect, notice, errors, cut)


def _empty(name: str) -> DataError:
    return DataError("the file is empty", where=name, expected=READS)


def _refuse_binary(head: bytes, name: str) -> None:
    kind = next((kind for magic, kind in MAGIC if head.startswith(magic)), None)
    kind = "a tar archive" if head[TAR[0] :].startswith(TAR[1]) else kind
    if kind:
        fix = "unpack it and name its files" if kind.endswith("archive") else ""
        raise DataError(f"this is {kind}, which is not read", where=name, expected=READS, fix=fix)


def _encoding(blob: Blob, given: str | None) -> tuple[str, str, str]:
    """The encoding, how its errors are treated, and a notice for the user ('' for none)."""
    head = blob.head(HEAD)
    marked = next((found for bom, found in BOMS if head.startswith(bom)), None)
    sure = given or marked or _wide(head)
    if sure:
        _check(blob, sure)
        return sure, "strict", ""
    try:
        _check(blob, "utf-8")
    except DataError:
        return _damaged(blob)
    return "utf-8", "strict", ""


def _check(blob: Blob, encoding: str) -> None:
    """Raise UsageError on an encoding that is none, DataError with the line on bytes that are not in it."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
        "".encode(encoding)  # some codecs are not for text
    except (LookupError, ValueError) as error:
        raise UsageError(f"unknown encoding '{encoding}'", fix="utf-8, utf-16, cp1252, shift_jis ...") from error
    line = 1
    for chunk in _ended(blob.chunks()):
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            line += chunk[: getattr(error, "start", 0)].count(b"\n")
            what = f"not valid {encoding}: {getattr(error, 'reason', error)}"
            raise DataError(what, where=f"{blob.name}:{line}") from error
        line += chunk.count(b"\n")


def _ended(chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield from chunks
    yield b""


def _wide(head: bytes) -> str:
    """UTF-16 without a mark: keys, quotes and spaces leave zeros at the even bytes or at the odd ones."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if even + odd < len(head) / 20:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _damaged(blob: Blob) -> tuple[str, str, str]:
    """Not strict UTF-8: UTF-8 with damaged places when most of its non-ASCII text is whole, else Windows-1252.

    Damaged bytes become lone surrogates, by which their rows are told and rejected later.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    bad = good = 0
    for chunk in _ended(blob.chunks()):
        text = decoder.decode(chunk, final=not chunk)
        broken = len(re.findall("[\udc80-\udcff]", text))
        bad, good = bad + broken, good + len(re.findall(r"[^\x00-\x7f]", text)) - broken
    if good > bad:
        notice = f"{blob.name}: {bad} bytes are not UTF-8; the rows that hold them are rejected"
        return "utf-8", "surrogateescape", notice
    _check(blob, "cp1252")
    notice = f'{blob.name} is not UTF-8: read as cp1252 (encoding = "..." under [collect] says otherwise)'
    return "cp1252", "strict", notice


def _container(file: Sniffed, cut: documents.Cut | None) -> tuple[Container, Dialect, documents.Cut]:
    start = _start(file)
    name = file.blob.name
    for pattern, kind, fix in PAGES:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            if kind == "html" and page.pairs(file.text):
                return "html", Dialect(), "file"
            kind = "a web page (HTML) without questions and answers" if kind == "html" else kind
            raise DataError(f"this is {kind}", where=name, expected=READS, fix=fix)
    if _one_a_line(file):
        return "jsonl", Dialect(), "file"
    if start[0] in "[{":
        return "json", Dialect(), "file"
    if MBOX.match(start):
        return "mbox", Dialect(), "file"
    if cut is None and (dialect := _table(file, start)) is not None:
        return "csv", dialect, "file"
    if cut is None and faq.is_faq(file.text):
        return "markdown", Dialect(), "file"
    return "text", Dialect(), cut or documents.cut_of(file.lines(), name)


def _start(file: Sniffed) -> str:
    """The head of the text, from its first character that is no space on."""
    lines = (line for line in file.lines())
    head = next((line.lstrip() for line in lines if line.strip(" \t\n\0\ufeff")), "")
    for line in lines:
        if not head or len(head) > HEAD:
            break
        head += line
    if not head.strip():
        raise _empty(file.blob.name)
    return head


def _one_a_line(file: Sniffed) -> bool:
    """All lines look like JSON objects, or half of them do and one is: not one object printed over several lines."""
    filled = objects = 0
    proven = several = False
    for line in file.lines():
        if not (bare := line.strip()):
            continue
        filled += 1
        if bare[0] == "{" and bare[-1] == "}":
            objects += 1
            if not proven:
                whole, part = _object(bare)
                proven, several = whole, several or part
    return 2 * objects >= filled if proven else objects == filled and not several


def _object(line: str) -> tuple[bool, bool]:
    """Is a line one object? And does it begin with one, with something behind it?"""
    try:
        value, end = json.JSONDecoder().raw_decode(line)
    except (ValueError, RecursionError):
        return False, False
    return end == len(line) and isinstance(value, dict), end < len(line)


def csv_reader(lines: Iterable[str], dialect: Dialect) -> CsvReader:
    """The standard library's reader, strict, with no limit on the size of a field (its own is 131,072 characters)."""
    csv.field_size_limit(sys.maxsize)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if dialect.quotes else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=dialect.delimiter, quoting=quoting, strict=True)


def _table(file: Sniffed, start: str) -> Dialect | None:
    """The delimiter under which most records have as many fields as the header; of equals, more fields win."""
    if faq.opens(start):
        return None
    choices = [Dialect(mark, quotes) for mark in ",;\t|" for quotes in (True, False)]
    scored = [(_consistency(file, dialect), -place, dialect) for place, dialect in enumerate(choices)]
    (share, _), _, best = max(scored, key=lambda item: item[:2])
    if share >= EVEN:
        return best
    if start.split("\n", 1)[0].strip(' "').casefold() in LONE_COLUMNS:
        return Dialect("\x1f")  # a mark that no text holds: commas are the text's own
    return None


def _consistency(file: Sniffed, dialect: Dialect) -> tuple[float, int]:
    """How many records are as wide as the header, from 0 to 1, and that width."""
    records = csv_reader(islice(file.lines(), MOST_LINES), dialect)
    widths: list[int] = []
    while len(widths) < SAMPLE:
        try:
            widths.append(len(next(records)))
        except csv.Error:
            widths.append(-1)
        except StopIteration:
            break
    widths = [width for width in widths if width]  # blank lines are no records
    header = widths[0] if widths else 0
    share = sum(width == header for width in widths) / len(widths) if header > 1 else 0.0
    return (share if dialect.quotes else share - BARE), header
