"""collect: a person's files to canonical rows. Nothing is judged here but whether a row can be understood."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import Field

from tunesmith.collect import hub
from tunesmith.collect.record import shown
from tunesmith.collect.sniff import sniff
from tunesmith.collect.source import Source, look
from tunesmith.collect.unpack import Blob, blob_of, unpack
from tunesmith.core.artifact import Artifact, file_hash, open_artifact, seal, writing
from tunesmith.core.config import Config
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.jsonl import dump, write_json
from tunesmith.core.records import Row

VERSION = 2  # of what the same bytes become; part of an artifact's name


class CollectConfig(Config):
    """How files are read."""

    map: dict[str, str] = Field(default_factory=dict)
    """which column fills which part, as in {prompt = "question", completion = "answer"}; empty to find out by vote"""
    encoding: str | None = None
    """the files' encoding, as in "cp1252"; None to find out"""
    documents: Literal["line", "paragraph", "file"] | None = None
    """where one document of a plain text ends: "line", "paragraph" (a blank line) or "file"; None to find out"""


def run(config: CollectConfig, files: Sequence[Path], out: Path) -> Artifact:
    """Read files into `out`/<id>: examples.jsonl, rejects.jsonl, receipt.json. The same input gives the same artifact.

    A file is a path, or a hub id as in hf:owner/name. Raises DataError, with the place and what to type, for a file
    that cannot be read or understood.
    """
    names = _names(files)
    hashes = {name: file_hash(path) for name, path in names.items()}
    final = out / _identity(config, hashes)
    if final.exists():
        return open_artifact(final, "raw")
    found = {name: sources(config, blob_of(path, name)) for name, path in names.items()}
    with writing(final) as work:
        with _lines(work / "examples.jsonl") as kept, _lines(work / "rejects.jsonl") as left_out:
            for source in chain.from_iterable(found.values()):
                _write(source, kept, left_out)
        _check_unchanged(names, hashes)
        receipt = _receipt(final.name, found, hashes)
        write_json(work / "receipt.json", receipt)
        return seal(work, final, "raw", receipt | {"config": config.model_dump(mode="json")})


def _names(files: Sequence[Path]) -> dict[str, Path]:
    """The name under which each file's rows are told apart: its own, with its folder's where two are alike."""
    if not files:
        raise UsageError("no file to collect", fix="tunesmith collect FILE")
    found = [path for given in files for path in (hub.files(given) if hub.is_hub(given) else [given])]
    alike = Counter(path.name for path in found)
    names = [path.name if alike[path.name] == 1 else path.resolve().as_posix() for path in found]
    if len(set(names)) < len(names):
        raise UsageError(f"{Counter(names).most_common(1)[0][0]} is given twice")
    for path in found:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no ordinary file" if path.exists() else "does not exist"
            fix = f"tunesmith collect hf:{path} where it is a hub id" if hub.ID.match(f"hf:{path}") else ""
            raise DataError(f"{path} {what}", expected="a file of examples", fix=fix)
    return {shown(name): path for name, path in zip(names, found, strict=True)}


def _identity(config: CollectConfig, hashes: dict[str, str]) -> str:
    blob = json.dumps([VERSION, list(hashes.items()), config.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(blob.encode()).hexdigest()[:12]


def sources(config: CollectConfig, blob: Blob) -> list[Source]:
    """Each file in a file, with its shape decided; its rows come from `items`. Raises DataError as `run` does.

    Plain texts that lie in an archive beside examples are passed over.
    """
    members = list(unpack(blob))
    if not members:
        raise DataError("there are no files in the archive", where=blob.name)
    found = [look(sniff(inner, config.encoding, config.documents), config.map) for inner in members]
    examples = [source for source in found if source.file.container != "text"] or found
    examples[0].passed += [source.name for source in found if source not in examples]  # a README beside the data
    return examples


def _lines(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="\n")


def _write(source: Source, kept: TextIO, left_out: TextIO) -> None:
    """Map a file's rows, one at a time, to where they go. Raises DataError when none is kept."""
    for item in source.items():
        (kept if isinstance(item, Row) else left_out).write(dump(item.to_json()) + "\n")
    source.check()
    source.tell()


def _check_unchanged(names: dict[str, Path], hashes: dict[str, str]) -> None:
    for name, path in names.items():
        if file_hash(path) != hashes[name]:
            raise DataError("the file changed while it was read", where=name, fix="run the same command again")


def _receipt(identity: str, found: dict[str, list[Source]], hashes: dict[str, str]) -> dict[str, Any]:
    facts = [source.facts() | {"sha256": hashes[name]} for name, members in found.items() for source in members]
    rejected: Counter[str] = Counter()
    for file in facts:
        rejected.update(file["rejected"])
    kept = sum(file["kept"] for file in facts)
    counts = {"rows_in": kept + rejected.total(), "kept": kept, "rejected": dict(rejected)}
    return {"raw_id": identity, "files": facts, **counts}
