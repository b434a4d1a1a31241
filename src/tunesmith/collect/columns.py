"""Parquet to records, through DuckDB: a batch of rows at a time, every value as JSON has it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

from tunesmith.collect.record import Record, shown
from tunesmith.collect.unpack import Blob
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.records import Reject

BATCH = 2048


def read(blob: Blob) -> Iterator[Record | Reject]:
    """A record for each row; its line is its number, from 1. Bytes that are no UTF-8 text make a reject."""
    if find_spec("duckdb") is None:
        raise UsageError(f"{blob.name} is a Parquet file", fix='pip install "tunesmith[parquet]"')
    import duckdb

    try:
        with _on_disk(blob) as path, duckdb.connect(":memory:", config={"threads": 2}) as database:
            found = database.execute("SELECT * FROM read_parquet($1)", [str(path)])
            names = [column[0] for column in found.description or ()]
            line = 0
            while rows := found.fetchmany(BATCH):
                for values in rows:
                    line += 1
                    yield _record(dict(zip(names, values, strict=True)), line, blob.name)
    except duckdb.Error as error:
        what = f"the Parquet file cannot be read: {str(error).splitlines()[0]}"
        raise DataError(what, where=blob.name, fix="fetch or write the file again") from error


@contextmanager
def _on_disk(blob: Blob) -> Iterator[Path]:
    """The file itself, or a copy for as long as it is read: Parquet is read from its end."""
    if blob.path is not None:
        yield blob.path
        return
    with tempfile.NamedTemporaryFile(suffix=".parquet") as copy, blob.open() as stream:
        shutil.copyfileobj(stream, copy)
        copy.flush()
        yield Path(copy.name)


def _record(values: dict[str, Any], line: int, name: str) -> Record | Reject:
    raw = str(values)[:1000]
    try:
        return Record(line, {key: _plain(value) for key, value in values.items()}, raw)
    except UnicodeDecodeError:
        what = f"{name}:{line}: bytes that are no text, such as an image"
        return Reject(name, line, "media", what, shown(raw))


def _plain(value: Any) -> Any:
    """A value as JSON has it. Raises UnicodeDecodeError on bytes that are no text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID | timedelta):
        return str(value)
    return value
