from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import dump, read_json, read_jsonl, read_rows, write_json, write_jsonl, write_rows
from tunesmith.core.records import Row, pair

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)
BREAKS = "a\nb\rc\x0bd\x0ce\x1cf\x85g\u2028h\u2029i"  # everything that some reader takes for the end of a line


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jsonl") / "rows.jsonl"


@settings(deadline=None)  # files, on a machine that others use
@given(objects=st.lists(OBJECTS, max_size=5))
def test_objects_come_back_as_they_went_one_a_line(file: Path, objects: list[dict[str, Any]]) -> None:
    assert write_jsonl(file, objects) == len(objects)
    assert file.read_bytes().count(b"\n") == len(objects)
    assert list(read_jsonl(file)) == objects


@settings(deadline=None)  # files, on a machine that others use
@given(obj=OBJECTS)
def test_a_document_comes_back_as_it_went(file: Path, obj: dict[str, Any]) -> None:
    write_json(file, obj)
    assert read_json(file) == obj


def test_rows_come_back_with_every_line_break_there_is(tmp_path: Path) -> None:
    rows = [pair(BREAKS, "b"), Row(text=BREAKS), pair("ünïcode 🙂", "")]
    assert write_rows(tmp_path / "a.jsonl", rows) == 3
    assert list(read_rows(tmp_path / "a.jsonl")) == rows


def test_half_a_surrogate_pair_is_written_as_an_escape_and_comes_back(tmp_path: Path) -> None:
    row = pair("cut \ud83d here \\", "🙂")
    write_rows(tmp_path / "a.jsonl", [row])
    assert b"cut \\ud83d here" in (tmp_path / "a.jsonl").read_bytes()
    assert "🙂".encode() in (tmp_path / "a.jsonl").read_bytes()
    assert list(read_rows(tmp_path / "a.jsonl")) == [row]
    write_json(tmp_path / "a.json", row.to_json())
    assert read_json(tmp_path / "a.json") == row.to_json()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_never_written(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump({"loss": [bad]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": bad})


@pytest.mark.parametrize(
    ("line", "place", "what"),
    [
        (b'{"a": 1, "b": }', "3:15", "not valid JSON: Expecting value"),
        (b'{"a": 1', "3:8", "not valid JSON: Expecting ',' delimiter"),
        (b"  {a: 1}", "3:4", "not valid JSON: Expecting property name enclosed in double quotes"),
        (b'{"\xc3\xa4": tru}', "3:7", "not valid JSON: Expecting value"),
        (b'{"a": "\xff"}', "3:8", "not valid JSON: not UTF-8"),
        (b'{"a": NaN}', "3:1", "not valid JSON: NaN is not a JSON number"),
        (b'{"a": -Infinity}', "3:1", "not valid JSON: -Infinity is not a JSON number"),
        (b"<html>", "3:1", "not valid JSON: Expecting value"),
        (b"[1, 2]", "3", "a list, not an object"),
        (b"null", "3", "a NoneType, not an object"),
    ],
)
def test_a_bad_line_is_named_by_file_line_and_column(tmp_path: Path, line: bytes, place: str, what: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b'\n{"a": 2}\n')
    lines = read_jsonl(path)
    assert next(lines) == {"a": 1}
    with pytest.raises(DataError) as error:
        next(lines)
    assert str(error.value).splitlines()[0] == f"{path}:{place}: {what}"
    assert error.value.exit_code == 3


def test_a_bom_crlf_and_blank_lines_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \r\n{"a": 2}')
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"a": 1}, {"a": 2}]
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_an_empty_file_has_no_objects(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert list(read_jsonl(tmp_path / "a.jsonl")) == []


def test_a_line_that_is_no_row_is_named_by_its_line_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + dump(pair("a", "b").to_json()) + "\n\n" + '{"question": "a"}\n')
    with pytest.raises(DataError) as error:
        list(read_rows(path))
    assert str(error.value) == (
        f"{path}:4: not a canonical row\n  expected: the key 'meta'\n  next: tunesmith collect FILE reads other shapes"
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [(b'{\n  "a": 1,\n  b\n}', "3:3"), (b'{"a": \xff}', "1:7"), (b'{"a": NaN}', "1:1"), (b"", "1:1")],
)
def test_a_bad_document_is_named_by_file_line_and_column(tmp_path: Path, text: bytes, place: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DataError) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}:{place}: not valid JSON: ")


def test_rows_are_read_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(pair("a", "b").to_json()) + "\nbroken")
    assert next(read_rows(path)).question == "a"
