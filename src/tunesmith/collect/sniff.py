"""What bytes are these? Decided by content: a name says what somebody hoped that a file is."""

from __future__ import annotations

import codecs
import csv
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tunesmith.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

Container = Literal["json", "jsonl", "csv"]

MAGIC = (  # first bytes -> what it is
    (b"PK\x03\x04", "a zip archive (a workbook, a document or a chat export)"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"GGUF", "a GGUF model"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)
PAGES = (  # start of the text -> what it is
    (r"(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b", "a web page (HTML)", "download the raw file again"),
    (r"<\?xml\b", "XML", ""),
    (r"version https://git-lfs", "a Git LFS pointer, not the data", "git lfs pull"),
)
BOMS = (  # UTF-32 before UTF-16: its little-endian mark starts with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
READS = "JSON, JSON lines, CSV or TSV"
BARE = 0.1  # quotes are read as quotes unless this share of the records speaks against it
SAMPLE = 200  # CSV records looked at to find the delimiter
LONE_COLUMNS = ("text", "content", "document")  # the only headers under which one column is a table and not prose


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written. `quotes`: a field may stand in double quotes."""

    delimiter: str = ","
    quotes: bool = True


@dataclass(frozen=True)
class Sniffed:
    """A file as text with \\n line ends, and what was found out about it."""

    text: str
    encoding: str
    container: Container
    dialect: Dialect = Dialect()
    notice: str = ""


def sniff(data: bytes, name: str, encoding: str | None = None) -> Sniffed:
    """Decode a file and tell what it holds. Raises DataError on what cannot be read, saying what it is instead."""
    if not data.strip(b" \t\r\n\0"):
        raise DataError("the file is empty", where=name, expected=READS)
    if encoding is None:
        _refuse_binary(data, name)
    text, found, notice = _decode(data, name, encoding)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise DataError("the file is empty", where=name, expected=READS)
    for pattern, kind, fix in PAGES:
        if re.match(r"\s*" + pattern, text, re.IGNORECASE | re.DOTALL):
            raise DataError(f"this is {kind}", where=name, expected=READS, fix=fix)
    start = text.lstrip()[0]
    if start in "[{":
        return Sniffed(text, found, "jsonl" if start == "{" and _one_a_line(text) else "json", notice=notice)
    return Sniffed(text, found, "csv", _dialect(text, name), notice)


def _refuse_binary(data: bytes, name: str) -> None:
    for magic, kind in MAGIC:
        if data.startswith(magic):
            raise DataError(f"this is {kind}, which is not read yet", where=name, expected=READS)


def _decode(data: bytes, name: str, encoding: str | None) -> tuple[str, str, str]:
    """The text, the name of its encoding, and a notice for the user ('' for none)."""
    if encoding is not None:
        return _decode_as(data, name, encoding), encoding, ""
    for bom, found in BOMS:
        if data.startswith(bom):
            return _decode_as(data, name, found), found, ""
    wide = _wide(data)
    if wide:
        return _decode_as(data, name, wide), wide, ""
    try:
        return data.decode(), "utf-8", ""
    except UnicodeDecodeError:
        return _decode_damaged(data, name)


def _decode_as(data: bytes, name: str, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise UsageError(f"unknown encoding '{encoding}'", fix="utf-8, utf-16, cp1252, shift_jis ...") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"not valid {encoding}: {error.reason}", where=f"{name}:{line}") from error


def _wide(data: bytes) -> str:
    """UTF-16 without a mark: keys, quotes and spaces leave zeros at the even bytes or at the odd ones."""
    head = data[: 1 << 16]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if even + odd < len(head) / 20:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _decode_damaged(data: bytes, name: str) -> tuple[str, str, str]:
    """Not strict UTF-8: UTF-8 with damaged places when most of its non-ASCII text is whole, else Windows-1252.

    Damaged bytes become lone surrogates, by which their rows are told and rejected later.
    """
    text = data.decode("utf-8", "surrogateescape")
    bad = sum("\udc80" <= char <= "\udcff" for char in text)
    good = sum(char > "\x7f" for char in text) - bad
    if good > bad:
        return text, "utf-8", f"{name}: {bad} bytes are not UTF-8; the rows that hold them are rejected"
    notice = f'{name} is not UTF-8: read as cp1252 (encoding = "..." under [collect] says otherwise)'
    return _decode_as(data, name, "cp1252"), "cp1252", notice


def _one_a_line(text: str) -> bool:
    """At least half of the lines are JSON objects on their own: not one object printed over several lines."""
    lines = [line for line in text.split("\n") if line.strip()]
    return 2 * sum(_is_object(line) for line in lines) >= len(lines)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def csv_reader(lines: Iterable[str], dialect: Dialect) -> CsvReader:
    """The standard library's reader, strict, with no limit on the size of a field (its own is 131,072 characters)."""
    csv.field_size_limit(sys.maxsize)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if dialect.quotes else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=dialect.delimiter, quoting=quoting, strict=True)


def _dialect(text: str, name: str) -> Dialect:
    """The delimiter under which most records have as many fields as the header; of equals, more fields win."""
    choices = [Dialect(mark, quotes) for mark in ",;\t|" for quotes in (True, False)]
    scored = [(_consistency(text, dialect), -place, dialect) for place, dialect in enumerate(choices)]
    (share, _), _, best = max(scored, key=lambda item: item[:2])
    if share >= 0.6:
        return best
    if text.lstrip().split("\n", 1)[0].strip(' "').casefold() in LONE_COLUMNS:
        return Dialect("\x1f")  # a mark that no text holds: commas are the text's own
    fix = 'one JSON object a line: {"text": "..."} for raw text, {"prompt": "...", "completion": "..."} for examples'
    raise DataError("this is plain text, neither JSON nor a table", where=name, expected=READS, fix=fix)


def _consistency(text: str, dialect: Dialect) -> tuple[float, int]:
    """How many records are as wide as the header, from 0 to 1, and that width."""
    records = csv_reader((line + "\n" for line in text.lstrip("\n").split("\n")), dialect)
    widths: list[int] = []
    while len(widths) < SAMPLE:
        try:
            widths.append(len(next(records)))
        except csv.Error:
            widths.append(-1)
        except StopIteration:
            break
    widths = [width for width in widths if width]  # blank lines are no records
    header = widths[0]
    share = sum(width == header for width in widths) / len(widths) if header > 1 else 0.0
    return (share if dialect.quotes else share - BARE), header
