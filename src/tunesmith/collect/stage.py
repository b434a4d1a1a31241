"""collect: a person's files to canonical rows. Nothing is judged here but whether a row can be understood."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from tunesmith.collect.mapping import map_records
from tunesmith.collect.readers import Record, read, shown
from tunesmith.collect.sniff import sniff
from tunesmith.collect.source import Source, nothing_left, tell
from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.config import Config
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import write_json, write_jsonl, write_rows
from tunesmith.core.records import Reject
from tunesmith.core.runlog import say

VERSION = 1  # of what the same bytes become; part of an artifact's name


class CollectConfig(Config):
    """How files are read."""

    map: dict[str, str] = Field(default_factory=dict)
    """which column fills which part, as in {prompt = "question", completion = "answer"}; empty to find out by vote"""
    encoding: str | None = None
    """the files' encoding, as in "cp1252"; None to find out"""


def run(config: CollectConfig, files: Sequence[Path], out: Path) -> Artifact:
    """Read files into `out`/<id>: examples.jsonl, rejects.jsonl, receipt.json. The same input gives the same artifact.

    Raises DataError, with the place and what to type, for a file that cannot be read or understood.
    """
    if not files:
        raise UsageError("no file to collect", fix="tunesmith collect FILE")
    contents = {name: _bytes(path) for name, path in _names(files).items()}
    final = out / _identity(config, contents)
    if final.exists():
        return open_artifact(final, "raw")
    sources = [_read(config, name, data) for name, data in contents.items()]
    receipt = _receipt(final.name, sources)
    with writing(final) as work:
        write_rows(work / "examples.jsonl", (row for source in sources for row in source.mapped.rows))
        write_jsonl(work / "rejects.jsonl", (reject.to_json() for source in sources for reject in source.rejects))
        write_json(work / "receipt.json", receipt)
        return seal(work, final, "raw", receipt | {"config": config.model_dump(mode="json")})


def _names(files: Sequence[Path]) -> dict[str, Path]:
    """The name under which each file's rows are told apart: its own, with its folder's where two are alike."""
    alike = Counter(path.name for path in files)
    names = [path.name if alike[path.name] == 1 else path.resolve().as_posix() for path in files]
    if len(set(names)) < len(names):
        raise UsageError(f"{Counter(names).most_common(1)[0][0]} is given twice")
    return {shown(name): path for name, path in zip(names, files, strict=True)}


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}", expected="a file of examples")
    return path.read_bytes()


def _identity(config: CollectConfig, contents: dict[str, bytes]) -> str:
    hashes = [(name, hashlib.sha256(data).hexdigest()) for name, data in contents.items()]
    blob = json.dumps([VERSION, hashes, config.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(blob.encode()).hexdigest()[:12]


def _read(config: CollectConfig, name: str, data: bytes) -> Source:
    file = sniff(data, name, config.encoding)
    if file.notice:
        say(file.notice)
    found = list(read(file, name))
    broken = [item for item in found if isinstance(item, Reject)]
    records = [item for item in found if isinstance(item, Record)]
    if not records:
        raise nothing_left(name, broken)
    mapped = map_records(records, name, config.map)
    rejects = sorted([*broken, *mapped.rejects], key=lambda reject: reject.line)
    if not mapped.rows:
        raise nothing_left(name, rejects)
    source = Source(name, hashlib.sha256(data).hexdigest(), file, mapped, rejects)
    tell(source)
    return source


def _receipt(identity: str, sources: Sequence[Source]) -> dict[str, Any]:
    rejected = Counter(reject.reason for source in sources for reject in source.rejects)
    kept = sum(len(source.mapped.rows) for source in sources)
    return {
        "raw_id": identity,
        "files": [source.facts() for source in sources],
        "rows_in": kept + rejected.total(),
        "kept": kept,
        "rejected": dict(rejected),
    }
