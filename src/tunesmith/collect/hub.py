"""A data set on the Hugging Face hub, or in its local cache, as the files that it consists of."""

from __future__ import annotations

import re
from pathlib import Path

from tunesmith.core.errors import RemoteError, UsageError

ID = re.compile(r"hf:/{0,2}(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?(:(?P<inside>.+))?$")
HELD_OUT = re.compile(r"(^|[/_.-])(test|valid|validation|val|dev|eval)([/_.-]|$)", re.I)
DATA = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md", ".gz", ".zst", ".bz2", ".zip")
NOT_ROWS = ("dataset_infos.json", "dataset_info.json", "state.json", "readme.md", "license.md", "license.txt")


def is_hub(path: Path) -> bool:
    return str(path).startswith("hf:")


def files(path: Path) -> list[Path]:
    """The files of "hf:owner/name", "hf:owner/name@revision" or "hf:owner/name:file-or-pattern", fetched once.

    Without a pattern: every data file that is not held out for tests by its name, when there is no other choice to
    make. Raises UsageError with the choices where there are several configurations, RemoteError where it cannot be
    fetched.
    """
    match = ID.match(str(path))
    if match is None:
        raise UsageError(f"{path} is no hub id", expected="hf:owner/name, hf:owner/name@revision or hf:owner/name:FILE")
    folder = _fetched(match["id"], match["revision"], match["inside"])
    found = sorted(file for file in folder.rglob("*") if _wanted(file.relative_to(folder), match["inside"]))
    if not found:
        raise UsageError(f"{path}: no file of rows", expected=", ".join(DATA), fix=f"hf:{match['id']}:FILE")
    parts = sorted({file.relative_to(folder).parts[0] for file in found if file.parent != folder} - {"data"})
    if match["inside"] is None and len(parts) > 1:
        tries = "; or ".join(f"tunesmith collect 'hf:{match['id']}:{part}/*'" for part in parts[:3])
        raise UsageError(f"{path} has several configurations: {', '.join(parts[:20])}", fix=tries)
    return found


def _wanted(file: Path, inside: str | None) -> bool:
    if any(part.startswith(".") for part in file.parts) or file.name.lower() in NOT_ROWS:
        return False
    if inside is not None:
        return file.match(inside)
    return file.name.lower().endswith(DATA) and not HELD_OUT.search(file.as_posix())


def _fetched(name: str, revision: str | None, inside: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    patterns = inside or [f"*{ending}" for ending in DATA]
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise UsageError(f"hf:{name} is no hub id: {error}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        what = f"hf:{name} could not be fetched, and is not in the local cache: {str(error).splitlines()[0]}"
        fix = "check the name and the connection, or download its files and name them"
        raise RemoteError(what, fix=fix) from error
