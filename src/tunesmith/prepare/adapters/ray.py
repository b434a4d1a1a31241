"""A step on a Ray cluster: Ray Data spreads the ranks; each reads and writes its shard on a shared file system."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import UsageError
from tunesmith.prepare.shards import Job, load_job, run_rank


def run_ranks(batch: Mapping[str, Sequence[Any]], folder: str) -> dict[str, list[Any]]:
    """The function that is mapped: make the shards of the ranks in `batch["id"]`, and say which there was work for."""
    job = load_job(Path(folder))
    ranks = [int(rank) for rank in batch["id"]]
    return {"id": ranks, "made": [run_rank(job, rank) for rank in ranks]}


@dataclass(frozen=True)
class Ray:
    """A runner for `sharded.run`. `concurrency`: tasks at the same time; None leaves it to Ray."""

    concurrency: int | None = None

    def __call__(self, job: Job) -> None:
        """Run every rank as a task of its own. Raises UsageError where Ray is not installed."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports home unless it is told not to
        try:
            data = importlib.import_module("ray.data")
        except ImportError as error:
            raise UsageError("Ray is not installed", fix="pip install 'tunesmith[ray]'") from error
        ranks = data.range(job.world).repartition(job.world)
        options = {"fn_kwargs": {"folder": str(job.folder.absolute())}, "batch_size": 1, "batch_format": "numpy"}
        ranks.map_batches(run_ranks, concurrency=self.concurrency, **options).materialize()
