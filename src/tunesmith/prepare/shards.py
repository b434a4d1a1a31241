"""A step over many shards: pure functions, a marker for each finished shard, and a local pool.

A step is `step(settings, shard_in, shard_out, rank, world)`: it reads the folder `shard_in` and nothing that changes,
and writes the folder `shard_out`. So any rank may run anywhere, in any order, again after it was killed, with the same
bytes. A job is a folder: `job.json` names the step, `00000/`, `00001/`, ... hold what the ranks made, and
`completions/00000` says what it was made of. Slurm and the like start `python -m tunesmith.prepare.shards JOB RANK` for
every rank (see `adapters/`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tunesmith.core.artifact import file_hash, fsync_path, make_folder
from tunesmith.core.errors import DataError, TunesmithError, UsageError, did_you_mean
from tunesmith.core.jsonl import dump, read_json, write_json
from tunesmith.core.runlog import say
from tunesmith.prepare.steps import STEPS

VERSION = 1  # of what the steps make of the same shard
Runner = Callable[["Job"], None]  # runs every rank of a job that is not finished


@dataclass(frozen=True)
class Job:
    """One step over `world` shards: of `source`/00000 it makes `folder`/00000, and so on."""

    folder: Path
    step: str
    source: Path
    world: int
    settings: dict[str, Any] = field(default_factory=dict)

    def shard(self, rank: int) -> Path:
        return self.folder / shard_name(rank)

    def save(self) -> None:
        """Write job.json, from which any machine that sees the folders can run a rank."""
        make_folder(self.folder)
        facts = {"step": self.step, "source": str(self.source.absolute()), "world": self.world}
        new = self.folder / f".job.{os.getpid()}.json"
        write_json(new, facts | {"settings": self.settings})
        os.replace(new, self.folder / "job.json")


def shard_name(rank: int) -> str:
    return f"{rank:05d}"


def load_job(folder: Path) -> Job:
    """Raises UsageError where the folder is no job."""
    if not (folder / "job.json").is_file():
        raise UsageError(f"{folder} has no job.json", expected="a job folder that `prepare` wrote")
    facts = read_json(folder / "job.json")
    return Job(folder, facts["step"], Path(facts["source"]), facts["world"], facts["settings"])


def run_rank(job: Job, rank: int) -> bool:
    """Make one shard, unless it is made already; True where there was something to do.

    The marker names the step, its settings and the bytes of the input, so that a change of any makes it again.
    """
    if job.step not in STEPS:
        raise UsageError(f"unknown step '{job.step}'", where=str(job.folder), fix=did_you_mean(job.step, STEPS))
    if not 0 <= rank < job.world:
        raise UsageError(f"no shard {rank} in {job.folder}", expected=f"0 to {job.world - 1}")
    source, final = job.source / shard_name(rank), job.shard(rank)
    marker, made_of = job.folder / "completions" / shard_name(rank), _made_of(job, source)
    if marker.is_file() and marker.read_text() == made_of and final.is_dir():
        return False
    marker.unlink(missing_ok=True)
    work = job.folder / f".{shard_name(rank)}.{os.getpid()}.tmp"
    for left in job.folder.glob(f".{shard_name(rank)}.*.tmp"):
        shutil.rmtree(left)
    work.mkdir(parents=True)
    STEPS[job.step](job.settings, source, work, rank, job.world)
    for path in work.iterdir():
        fsync_path(path)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(work, final)
    make_folder(marker.parent)
    new = marker.with_name(f".{marker.name}.{os.getpid()}")
    new.write_text(made_of)
    os.replace(new, marker)
    return True


def _made_of(job: Job, source: Path) -> str:
    """A hash over what decides a shard."""
    if not source.is_dir():
        raise DataError(f"{source} is missing", expected=f"an input shard of {job.folder.name}")
    files = [(path.name, file_hash(path)) for path in sorted(source.iterdir())]
    blob = dump([VERSION, job.step, job.settings, files])
    return hashlib.sha256(blob.encode()).hexdigest()


def run_local(job: Job, workers: int | None = None) -> None:
    """Run every rank in a pool of processes, as many as there are cores; with one worker, in this process."""
    job.save()
    workers = min(workers or os.cpu_count() or 1, job.world)
    if workers <= 1:
        for rank in range(job.world):
            run_rank(job, rank)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(run_rank, [job] * job.world, range(job.world)):
            pass


def missing(job: Job) -> list[str]:
    """The shards that no rank has finished."""
    names = map(shard_name, range(job.world))
    return [name for name in names if not (job.folder / "completions" / name).is_file()]


def check_complete(job: Job) -> None:
    """Raise DataError, naming the shards, where a rank has not finished: a runner must not lose one."""
    if lost := missing(job):
        what = f"{len(lost)} of {job.world} shards of {job.folder.name} are not finished: {', '.join(lost[:10])}"
        raise DataError(what, fix="run the same command again: finished shards are kept")


def write_shards(folder: Path, lines: Iterable[str], size: int) -> int:
    """Cut lines into shards of `size`, as `folder`/00000/rows.jsonl and so on; at least one. Streams.

    Returns how many. A folder that was written to its end before is left as it is.
    """
    done = folder / "completions" / "all"
    if done.is_file():
        return int(done.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    count = 0
    for count, part in enumerate(_cut(lines, size), 1):
        _write_lines(folder / shard_name(count - 1), part)
    if not count:
        count = 1
        _write_lines(folder / shard_name(0), [])
    make_folder(done.parent)
    done.write_text(str(count))
    return count


def _cut(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    part: list[str] = []
    for line in lines:
        part.append(line)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _write_lines(folder: Path, lines: Iterable[str]) -> None:
    make_folder(folder)
    (folder / "rows.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")


def main(arguments: list[str]) -> None:
    """`python -m tunesmith.prepare.shards JOB RANK`"""
    if len(arguments) != 2 or not arguments[1].isdecimal():
        raise UsageError("expected a job folder and a rank", fix="python -m tunesmith.prepare.shards JOB RANK")
    run_rank(load_job(Path(arguments[0])), int(arguments[1]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except TunesmithError as error:
        say(str(error))
        sys.exit(error.exit_code)
