"""The directory of an unfinished run: who holds it, what it may be gone on with, and how it becomes an artifact."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from tunesmith.core.artifact import MANIFEST, Artifact, disk_errors, make_folder, seal
from tunesmith.core.errors import DataError, TunesmithError, UsageError
from tunesmith.core.jsonl import read_json, write_json
from tunesmith.core.runlog import say

SAME = ("config", "data_hash", "base_hash", "template_hash")  # of the receipt: equal, or the run is another one
FREE = ("trackers",)  # of the config: who is told changes no weight
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # what NFS without lockd and Lustre without flock say


@contextmanager
def unfinished(out: Path, resume: bool) -> Iterator[Path]:
    """`out`.partial, held by this process alone. A full disk inside is a ResourceError, and all that was saved stays.

    Raises UsageError when `out` is taken, when another process holds it, or where `resume` does not fit.
    """
    work = out.with_name(out.name + ".partial")
    with disk_errors(out), _held(out):
        _check(out, work, resume)
        work.mkdir(exist_ok=True)
        _sweep(out.parent)
        if resume:  # it may have been killed while it was sealed
            _put_back(work, _aside(out))
        try:
            yield work
        except TunesmithError:
            if not (work / "receipt.json").is_file():  # a mistake before anything was trained: nothing to resume
                shutil.rmtree(work)
            raise


def _check(out: Path, work: Path, resume: bool) -> None:
    if os.path.lexists(out):
        raise UsageError(f"the run {out.name} exists", fix="choose another --name, or leave it out")
    if resume and not work.is_dir():
        raise UsageError(f"there is no unfinished run {out.name} to resume", fix="leave --resume out")
    if work.is_dir() and not resume:
        what = f"an unfinished run {out.name} exists"
        raise UsageError(what, fix=f"tunesmith train --resume --name {out.name}, or choose another --name")


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """The lease on a run. It ends with its process, however that dies: none is ever stale.

    It is a locked file beside the run, which is sealed while it is held. Its holder removes it, and whoever has waited
    for a removed one sees that it is gone. Raises UsageError where another process holds it.
    """
    path = out.with_name(f".{out.name}.lock")
    make_folder(out.parent)
    with path.open("a+") as file:
        _lock(file, out.name)
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise UsageError(f"another process has just left {out.name}", fix="run the same command again")
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()}, since {datetime.now().astimezone().isoformat(timespec='seconds')}")
            file.flush()
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(file: IO[str], name: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        what = f"another process is training {name}: {holder or 'its number is not known'}"
        raise UsageError(what, fix="wait for it, or stop it with Ctrl-C or kill: its state is saved") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        say(f"warning: this file system has no locks: nothing but you keeps a second process from training {name}")


def run_hash(receipt: dict[str, Any]) -> str:
    """What must be equal for a checkpoint to be gone on with."""
    same = {key: receipt[key] for key in SAME} | {"config": _bound(receipt["config"])}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def check_same(work: Path, receipt: dict[str, Any]) -> None:
    """Raise DataError, naming what differs, where the run in `work` was started as another one than `receipt` says."""
    before: dict[str, Any] = {}
    with suppress(DataError, OSError):  # killed before it was whole: nothing was trained yet
        before = read_json(work / "receipt.json")
    if any(key not in before for key in SAME):
        return
    old, new = _bound(before["config"]), _bound(receipt["config"])
    changes = [f"{k} was {old.get(k)} and is {new.get(k)}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    changes += [f"the {key.removesuffix('_hash')} is another one" for key in SAME[1:] if before[key] != receipt[key]]
    if changes:
        what = f"this run was started with other settings: {', '.join(changes)}"
        raise DataError(what, fix="resume with the settings that it was started with, or choose another --name")


def _bound(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in FREE}


def finish(work: Path, out: Path, receipt: dict[str, Any]) -> Artifact:
    """Seal the run without its checkpoints, which are gone only when that has worked."""
    write_json(work / "receipt.json", receipt)
    aside = _aside(out)
    shutil.rmtree(aside, ignore_errors=True)
    if (work / "checkpoints").is_dir():
        os.rename(work / "checkpoints", aside)
    try:
        run = seal(work, out, "run", receipt)
    except BaseException:
        _put_back(work, aside)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    return run


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.checkpoints")


def _put_back(work: Path, aside: Path) -> None:
    if aside.is_dir() and not (work / "checkpoints").exists():
        os.rename(aside, work / "checkpoints")


def _sweep(runs: Path) -> None:
    """Remove what is left of runs that were killed when they were sealed and all but done."""
    for left in (*runs.glob(".*.checkpoints"), *runs.glob(".*.lock")):
        if (runs / left.stem[1:] / MANIFEST).is_file():
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
