"""Who runs the ranks of a step, by the name that a user types."""

from tunesmith.prepare.adapters.ray import Ray
from tunesmith.prepare.adapters.slurm import Slurm
from tunesmith.prepare.shards import Runner, run_local

RUNNERS: dict[str, Runner] = {"local": run_local, "slurm": Slurm(), "ray": Ray()}
