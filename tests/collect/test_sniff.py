import pytest

from tunesmith.collect.sniff import Dialect, Sniffed
from tunesmith.collect.sniff import sniff as sniff_blob
from tunesmith.collect.unpack import memory
from tunesmith.core.errors import DataError, UsageError

ROW = '{"question": "Où est-il?", "answer": "Ici."}'


def sniff(data: bytes, name: str, encoding: str | None = None) -> Sniffed:
    return sniff_blob(memory(data, name), encoding)


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("cp1252", "cp1252"),
    ],
)
def test_the_encoding_is_found_from_the_bytes(encoding: str, found: str) -> None:
    file = sniff(f"{ROW}\r\n{ROW}\r\n".encode(encoding), "faq")
    assert (file.encoding, file.container, file.text) == (found, "jsonl", f"{ROW}\n{ROW}\n")
    assert bool(file.notice) == (found == "cp1252")


def test_damaged_utf8_stays_utf8_with_a_notice() -> None:
    file = sniff(f"{ROW}\n{ROW}\n".encode() + b'{"question": "\xff", "answer": "x"}', "faq")
    assert file.encoding == "utf-8"
    assert "1 bytes" in file.notice
    assert "Où" in file.text


def test_a_file_cut_inside_a_character_stays_utf8() -> None:
    assert sniff(f"{ROW}\n{ROW}".encode()[:-31], "faq").text.startswith(ROW)


def test_a_given_encoding_is_used_and_checked() -> None:
    assert sniff("question,answer\nß,ä".encode("latin-1"), "faq", "latin-1").encoding == "latin-1"
    with pytest.raises(UsageError, match="unknown encoding 'nope'"):
        sniff(b"a,b\n1,2", "faq", "nope")
    with pytest.raises(DataError, match=r"faq:2: not valid utf-8"):
        sniff(b"a,b\n\xff,2", "faq", "utf-8")


@pytest.mark.parametrize("data", [b"", b" \n\t\r\n", b"\xef\xbb\xbf\n", b"\xff\xfe"])
def test_an_empty_file_says_so(data: bytes) -> None:
    with pytest.raises(DataError, match="faq: the file is empty"):
        sniff(data, "faq")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"7z\xbc\xaf\x27\x1crest", "7z"),
        (b"\0" * 257 + b"ustar", "tar"),
        (b"%PDF-1.7", "PDF"),
        (b"SQLite format 3\0rest", "SQLite"),
        (b"\n<!DOCTYPE HTML>\n<html>", "web page"),
        (b"<!-- saved -->\n<html lang='en'>", "web page"),
        (b"<?xml version='1.0'?>", "XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what) as error:
        sniff(data, "faq.jsonl")
    assert "expected: JSON, JSON lines, CSV, TSV" in str(error.value)


@pytest.mark.parametrize(
    ("text", "container"),
    [
        ("[{}]", "json"),
        ('{"a": 1}\n{"a": 2}\n', "jsonl"),
        ('{"a": 1}', "jsonl"),
        ('{\n "a": 1\n}\n{\n "a": 2\n}', "json"),
        ('{"a": 1\n{"a": 2}\n{"a": 3}', "jsonl"),
        ("a,b\n1,2", "csv"),
    ],
)
def test_the_container_is_found_from_the_content(text: str, container: str) -> None:
    assert sniff(text.encode(), "x").container == container


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("q,a\n1,2\n3,4", Dialect(",")),
        ("q;a\n1,5;2\n3;4", Dialect(";")),
        ("q\ta\nx, y, z\t2\n3\t4", Dialect("\t")),
        ("q|a\n1|2", Dialect("|")),
        ('q,a\n"x;y;z","line\nbreak, comma"\n1,2', Dialect(",")),
        ('q\ta\n"so" he said\tx\n"no" she said\ty', Dialect("\t", quotes=False)),
        ("text\none, two\nthree", Dialect("\x1f")),
    ],
)
def test_the_delimiter_is_the_one_that_gives_equal_records(text: str, dialect: Dialect) -> None:
    assert sniff(text.encode(), "x").dialect == dialect
