"""lm-eval's side of a comparison: its own task files and its own evaluator, over local files. A job in, items out.

    python bench/lm_eval_side.py JOB.json OUT.json

It needs an environment with lm-eval and its `hf` extra, and nothing of ours. A job holds `model` (a directory, or
"hash": a made-up log-likelihood of each text, so that prompts and rules can be compared without a model), `dtype`,
`batch_size`, `threads` and `tasks`: rows {task, shots, limit, files: {split: path}, fixed}. With `fixed` the shots are
the split "shots" in its order, for every question alike; otherwise lm-eval draws them from "train" for each anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

TASKS = Path(lm_eval.__file__).parent / "tasks"
FOLDERS = {"arc": "arc", "hellaswag": "hellaswag", "mmlu": "mmlu/default", "truthfulqa": "truthfulqa"}


def made_up(context: str, continuation: str) -> float:
    """A log-likelihood in (-20, 0] that only the two texts decide."""
    digest = hashlib.sha256(f"{context}\0{continuation}".encode()).hexdigest()
    return -20 * int(digest[:8], 16) / 2**32


class HashLM(LM):
    """No model: what it says of a text is made of the text's hash."""

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(made_up(*request.args), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError


class TimedLM(HFLM):
    """How long it takes over log-likelihoods, tokenising included: not over loading files or a model."""

    seconds = 0.0

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        started = time.perf_counter()
        found = super().loglikelihood(requests, disable_tqdm)
        self.seconds += time.perf_counter() - started
        return found


def task_config(row: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's own YAML, with local files in the place of its data set."""
    name = row["task"]
    config = load_yaml(TASKS / FOLDERS[name.split("_")[0]] / f"{name}.yaml")
    files = {split: str(Path(path).resolve()) for split, path in row["files"].items()}
    config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    config |= {key: None for key in ("training_split", "validation_split") if config.get(key) not in files}
    if row.get("fixed"):
        config |= {"fewshot_split": "shots", "fewshot_config": {"sampler": "first_n"}}
    return {**config, "num_fewshot": row["shots"]}


def run(lm: LM, row: dict[str, Any]) -> dict[str, Any]:
    before = getattr(lm, "seconds", 0.0)
    done = lm_eval.simple_evaluate(
        model=lm, tasks=[task_config(row)], limit=row.get("limit"), log_samples=True, bootstrap_iters=0
    )
    seconds = getattr(lm, "seconds", 0.0) - before
    (samples,) = done["samples"].values()
    samples.sort(key=lambda sample: sample["doc_id"])
    return {"task": row["task"], "seconds": seconds, "items": [item(sample) for sample in samples]}


def item(sample: dict[str, Any]) -> dict[str, Any]:
    """Its metrics, the log-likelihood of each choice, and the texts that were scored."""
    values = {name: float(sample[name]) for name in sample["metrics"]}
    texts = [list(pair) for pair in sample["arguments"]]
    return {"metrics": values, "lls": [float(answer[0][0]) for answer in sample["resps"]], "texts": texts}


def main(job_file: str, out: str) -> None:
    job = json.loads(Path(job_file).read_text("utf-8"))
    if job["model"] == "hash":
        lm: LM = HashLM()
    else:
        torch.set_num_threads(job.get("threads", torch.get_num_threads()))
        size = job.get("batch_size", 4)
        lm = TimedLM(pretrained=job["model"], dtype=job.get("dtype", "float32"), batch_size=size, device="cpu")
    results = {"version": lm_eval.__version__, "tasks": [run(lm, row) for row in job["tasks"]]}
    Path(out).write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
