import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.collect.columns import read
from tunesmith.collect.record import Record
from tunesmith.collect.stage import CollectConfig, run
from tunesmith.collect.unpack import Blob, blob_of, memory
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import read_rows
from tunesmith.core.records import Reject


def parquet(path: Path, select: str) -> Blob:
    duckdb = pytest.importorskip("duckdb", reason="needs the extra parquet")
    with duckdb.connect(":memory:") as database:
        database.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet)")
    return blob_of(path, "t.parquet")


def values(blob: Blob) -> list[Any]:
    return [item.value if isinstance(item, Record) else item.reason for item in read(blob)]


def test_every_row_is_a_record_with_its_number(tmp_path: Path) -> None:
    blob = parquet(tmp_path / "t", "SELECT 'q' || i AS question, 'a' AS answer FROM range(5000) t(i)")
    found = list(read(blob))
    assert [item.line for item in found] == list(range(1, 5001))
    assert values(blob)[4999] == {"question": "q4999", "answer": "a"}
    assert values(memory((tmp_path / "t").read_bytes(), "m")) == values(blob)


def test_values_become_what_json_has(tmp_path: Path) -> None:
    select = """SELECT [{'role': 'user', 'content': 'Q'}] AS messages, DATE '2024-01-02' AS day, 1.5::DECIMAL(4,2) AS d,
        NULL AS n, 'x'::BLOB AS b, MAP {'k': 1} AS m, true AS t"""
    (value,) = values(parquet(tmp_path / "t", select))
    assert value["messages"] == [{"role": "user", "content": "Q"}]
    assert (value["day"], value["d"], value["n"], value["b"], value["t"]) == ("2024-01-02", "1.50", None, "x", True)


def test_bytes_that_are_no_text_make_a_reject(tmp_path: Path) -> None:
    blob = parquet(tmp_path / "t", "SELECT 'q' AS question, unhex('FFD8FF') AS image")
    assert [(item.line, item.reason) for item in read(blob) if isinstance(item, Reject)] == [(1, "media")]


def test_a_parquet_file_is_collected_like_any_other(tmp_path: Path) -> None:
    parquet(tmp_path / "t.csv", "SELECT 'Q' AS Question, 'A' AS Answer, 7 AS extra")
    made = run(CollectConfig(), [tmp_path / "t.csv"], tmp_path / "raw")
    assert [(row.question, row.answer) for row in read_rows(made.path / "examples.jsonl")] == [("Q", "A")]
    assert made.facts["files"][0]["container"] == "parquet"


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="needs the extra parquet")
    (tmp_path / "t").write_bytes(b"PAR1rubbishPAR1")
    with pytest.raises(DataError, match="the Parquet file cannot be read"):
        list(read(blob_of(tmp_path / "t", "t")))


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(UsageError, match=r"pip install \"tunesmith\[parquet\]\""):
        list(read(memory(b"PAR1", "t")))
