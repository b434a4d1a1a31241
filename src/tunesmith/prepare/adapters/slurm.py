"""A step as a Slurm array job: one task a shard. The script needs no cluster library, only a shared file system."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.errors import RemoteError, UsageError
from tunesmith.prepare.shards import Job


@dataclass(frozen=True)
class Slurm:
    """A runner for `sharded.run`. `options` are lines for sbatch, such as "--partition=cpu" or "--time=1:00:00"."""

    options: tuple[str, ...] = ()
    at_once: int = 100  # tasks that run at the same time
    python: str = sys.executable  # as the nodes see it

    def __call__(self, job: Job) -> None:
        """Write the script, submit it, and wait. Tasks whose shard is finished end at once.

        Raises UsageError without sbatch, RemoteError when it fails; `check_complete` then names the missing shards.
        """
        if shutil.which("sbatch") is None:
            raise UsageError("sbatch is not on the PATH", fix="run this on a login node, or without --runner slurm")
        path = job.folder / "slurm.sh"
        path.write_text(self.script(job), encoding="utf-8")
        done = subprocess.run(["sbatch", "--wait", str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RemoteError(
                f"sbatch ended with {done.returncode}: {done.stderr.strip()}", fix=f"see {job.folder}/*.out"
            )

    def script(self, job: Job) -> str:
        """The batch script of a job."""
        folder = job.folder.absolute()
        lines = [
            "#!/bin/bash",
            f"#SBATCH --job-name=tunesmith-{job.step}",
            f"#SBATCH --array=0-{job.world - 1}%{self.at_once}",
            f"#SBATCH --output={folder}/%a.out",
            *(f"#SBATCH {option}" for option in self.options),
            "set -eu",
            f'{_run(self.python, folder)} "$SLURM_ARRAY_TASK_ID"',
        ]
        return "\n".join(lines) + "\n"


def _run(python: str, folder: Path) -> str:
    return shlex.join([python, "-m", "tunesmith.prepare.shards", str(folder)])
