"""A step as a Slurm array job: one task a shard. The script needs no cluster library, only a shared file system."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.errors import RemoteError, UsageError
from tunesmith.core.runlog import say
from tunesmith.prepare.shards import Job, missing


@dataclass(frozen=True)
class Slurm:
    """A runner for `sharded.run`. `options` are lines for sbatch, such as "--partition=cpu" or "--time=1:00:00"; sbatch
    takes the same from its own variables, such as SBATCH_PARTITION and SBATCH_TIMELIMIT."""

    options: tuple[str, ...] = ()
    at_once: int = 100  # tasks that run at the same time
    python: str = sys.executable  # as the nodes see it

    def __call__(self, job: Job) -> None:
        """Write the script; submit it and wait, unless all shards are there. Tasks whose shard is finished end at once.

        Raises UsageError, with what to type where there is one, without sbatch; RemoteError when it fails.
        """
        path = (job.folder / "slurm.sh").absolute()
        path.write_text(self.script(job), encoding="utf-8")
        command = ["sbatch", "--wait", str(path)]
        if not missing(job):
            return
        if shutil.which("sbatch") is None:
            fix = f"on a login node: {shlex.join(command)}; then the same command again, which goes on from there"
            raise UsageError(f"sbatch is not on the PATH; the script of the step '{job.step}' is written", fix=fix)
        say(f"  {job.step}: {shlex.join(command)}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
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
