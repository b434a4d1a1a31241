"""A sealed directory: what one stage hands to the next.

Written under a temporary name, every file fsynced, `manifest.json` with the hash of every file written last, then
renamed, then the parent fsynced (the order that survives a power cut: Pillai et al., OSDI 2014). A directory without
a valid manifest is not an artifact.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, ResourceError, UsageError
from tunesmith.core.jsonl import read_json, write_json

MANIFEST = "manifest.json"
FORMAT = 1
FULL = {  # what the system says when there is no room, and what that means
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file is larger than the system allows",
}


@dataclass(frozen=True)
class Artifact:
    """An artifact that was opened and found whole."""

    path: Path
    kind: str
    manifest: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def hash(self) -> str:
        """One hash over the hashes of all its files: what a child names as its parent."""
        files = self.manifest["files"]
        lines = "\n".join(f"{name} {files[name]['sha256']}" for name in sorted(files))
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """What the stage that wrote it says of it (counts, parents, config)."""
        return dict(self.manifest["facts"])


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def seal(work: Path, final: Path, kind: str, facts: dict[str, Any]) -> Artifact:
    """Hash and fsync every file below `work`, write the manifest last, and rename it to `final`.

    Raises UsageError when `final` is taken and ResourceError when the disk is full; `work` is then left as it is.
    """
    check_free(final)
    with disk_errors(final):
        files = {}
        for path in sorted(p for p in work.rglob("*") if p.is_file() and p != work / MANIFEST):
            fsync_path(path)
            files[path.relative_to(work).as_posix()] = {"sha256": file_hash(path), "bytes": path.stat().st_size}
        created = datetime.now(UTC).isoformat()
        manifest = {"format": FORMAT, "kind": kind, "created": created, "facts": facts, "files": files}
        write_json(work / MANIFEST, manifest)
        fsync_path(work / MANIFEST)
        for folder in [p for p in work.rglob("*") if p.is_dir()]:
            fsync_path(folder)
        fsync_path(work)
        try:
            os.rename(work, final)
        except OSError:
            check_free(final)  # another process took the name since: rename's own error depends on with what
            raise
        fsync_path(final.parent)
    return Artifact(final, kind, manifest)


def check_free(final: Path) -> None:
    """Raise UsageError when the name is taken, be it by a file or by a link to nowhere."""
    if os.path.lexists(final):
        raise UsageError(f"{final} exists", fix="choose another name, or remove it first")


@contextmanager
def writing(final: Path) -> Iterator[Path]:
    """A temporary directory beside `final`; call `seal` on it inside. Whatever fails leaves nothing behind.

    Raises UsageError when `final` is taken: before the work, not after it.
    """
    check_free(final)
    work = final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}.tmp"
    with disk_errors(final):
        make_folder(final.parent)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they outlive a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        fsync_path(path.parent)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into an error that names the place and what is free; pass every other error on."""
    try:
        yield
    except Exception as error:  # safetensors and tokenizers raise no OSError: their words end in "(os error 28)"
        told = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
        if number not in FULL:
            raise
        near = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free = shutil.disk_usage(near).free
        what = f"{FULL[number]}: {free / 1e6:,.0f} MB free where {path} is written"
        raise ResourceError(what, fix="free some space and run the same command again") from error


def open_artifact(path: Path, kind: str | None = None) -> Artifact:
    """Open a directory as an artifact, checking every file against the manifest.

    Raises DataError when it is missing, of another kind, or changed after it was sealed.
    """
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise DataError(f"{path} is not an artifact: it has no {MANIFEST}", expected=f"a finished {kind or 'artifact'}")
    manifest = _manifest(manifest_path)
    if kind is not None and manifest.get("kind") != kind:
        raise DataError(f"{path} is a {manifest.get('kind')}", expected=f"a {kind}")
    for name, facts in manifest["files"].items():
        file = path / name
        if not file.is_file() or file_hash(file) != facts["sha256"]:
            state = "has changed since it was written" if file.is_file() else "is missing"
            raise DataError(f"{file} {state}", fix=f"make {path.name} again")
    return Artifact(path, manifest["kind"], manifest)


def _manifest(path: Path) -> dict[str, Any]:
    """Read a manifest. Raises DataError when it is damaged or of a format that this version does not know."""
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not {"format", "kind", "created", "facts", "files"} <= manifest.keys():
        raise DataError("not a manifest of Tunesmith", where=str(path), fix=f"make {path.parent.name} again")
    if manifest["format"] != FORMAT:
        what, expected = f"an artifact of format {manifest['format']}", f"format {FORMAT}"
        raise DataError(what, where=str(path), expected=expected, fix="use the version of Tunesmith that made it")
    return manifest


def artifacts(folder: Path, kind: str | None = None) -> list[Path]:
    """The artifacts in a folder (those of one kind), oldest first (by the time in their manifests)."""
    found = []
    for path in folder.glob(f"[!.]*/{MANIFEST}"):
        if path.parent.suffix == ".partial":  # like a leading dot: still being written, even when all but renamed
            continue
        with suppress(DataError):  # without a valid manifest it is none; `open_artifact` says why when it is named
            manifest = _manifest(path)
            if kind in (None, manifest["kind"]):
                found.append((str(manifest["created"]), path.parent.name, path.parent))
    return [path for *_, path in sorted(found)]
