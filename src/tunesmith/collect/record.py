"""A row as it stood in a file, before anybody asks what its columns mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RAW = 400  # characters of a rejected row that are kept


@dataclass(frozen=True, slots=True)
class Record:
    """`line`: where it starts. `source`: the file inside an export that it lies in, '' for the file itself."""

    line: int
    value: dict[str, Any]
    raw: str
    source: str = ""


def shown(text: str) -> str:
    """The start of a row for rejects.jsonl, with bytes that were no text written as escapes."""
    return text.strip()[:RAW].encode("utf-8", "backslashreplace").decode()
