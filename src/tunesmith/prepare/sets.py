"""A set on disk, however it was made: in one process or over shards."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import dump, write_json
from tunesmith.prepare.config import PrepareConfig
from tunesmith.prepare.split import SPLITS

VERSION = 1  # of what the same rows become; part of a set's name
COUNTS = ("rows_in", "kept", "rejected", "unwrapped", "duplicates", "near_duplicates", "leaked", *SPLITS)
MEASURES = ("scores", "findings", "difficulty", "judge")  # None: NOT RUN
MEASURED = ("quality", "difficulty", "judge")  # depends on what was at hand (a tokenizer, a model): no part of the name


def receipt(artifact: Artifact) -> dict[str, Any]:
    """What `prepare --json` prints."""
    facts = artifact.facts | {"path": str(artifact.path)}
    return {key: facts.get(key) for key in ("set_id", "path", *COUNTS, *MEASURES)}


def counted(kept: int, rejected: Mapping[str, int]) -> dict[str, Any]:
    """Rows in = kept + rejected. Raises DataError when no row is left."""
    if not kept:
        raise DataError("no row is left", expected=f"rejected: {dict(rejected)}")
    return {"rows_in": kept + Counter(rejected).total(), "kept": kept, "rejected": dict(rejected)}


def settings(config: PrepareConfig, raw: Sequence[Artifact]) -> dict[str, Any]:
    """What the manifest says beside the facts."""
    return {
        "config": config.model_dump(mode="json"),
        "parents": {artifact.name: artifact.hash for artifact in raw},
    }


def name_of(config: PrepareConfig, facts: Mapping[str, Any], lines: Iterable[bytes]) -> str:
    """A hash of the settings, of what was decided and found, and of every line of rows and rejects."""
    decided = {key: value for key, value in facts.items() if key not in MEASURED}
    digest = hashlib.sha256(dump([VERSION, config.model_dump(mode="json"), decided]).encode())
    for line in lines:
        digest.update(line)
    return digest.hexdigest()[:12]


def seal_set(
    final: Path, facts: Mapping[str, Any], manifest: Mapping[str, Any], fill: Callable[[Path, dict[str, Any]], None]
) -> Artifact:
    """The set at `final`: as it is there, or as `fill` writes its rows and report into the folder it is given."""
    if final.exists():
        return open_artifact(final, "set")
    told = {"set_id": final.name, "path": str(final), **facts}
    with writing(final) as work:
        fill(work, told)
        write_json(work / "receipt.json", told)
        return seal(work, final, "set", {**told, **manifest})
