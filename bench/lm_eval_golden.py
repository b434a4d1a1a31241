"""Make tests/evaluate/lm_eval_golden.json: what lm-eval makes of questions, for tests where it is not installed.

    PYTHON_WITH_LM_EVAL bench/lm_eval_golden.py

Of a few questions of our own, all prompts and choices as texts; of the public files, their hash and the metrics of each
question, as no line of those files may lie in this repository. Log-likelihoods are made up (lm_eval_side.py).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval_files
from lm_eval_side import HashLM, run

ROOT = Path(__file__).resolve().parents[1]
OWN = ROOT / "tests" / "evaluate" / "questions"
LIMITS = (200, 200, 100, 100)


def rows(folder: Path, limits: tuple[int, int, int, int], shots: int | None = None) -> dict[str, Any]:
    found = {}
    for job in lm_eval_files.jobs(folder, limits):
        job["shots"] = min(job["shots"], job["shots"] if shots is None else shots)
        found[job["task"]] = {"shots": job["shots"], "items": run(HashLM(), job)["items"]}
    return found


def hashed(task: dict[str, Any]) -> dict[str, Any]:
    texts = json.dumps([item["texts"] for item in task["items"]])
    metrics = {name: [item["metrics"][name] for item in task["items"]] for name in task["items"][0]["metrics"]}
    return {"shots": task["shots"], "sha256": hashlib.sha256(texts.encode()).hexdigest(), "metrics": metrics}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        lm_eval_files.write(ROOT.parent / "shared" / "data", Path(scratch))
        public = {name: hashed(task) for name, task in rows(Path(scratch), LIMITS).items()}
    golden = {"lm_eval": lm_eval.__version__, "own": rows(OWN, (9, 9, 9, 9), shots=3), "public": public}
    text = json.dumps(golden, indent=1, ensure_ascii=False)
    (ROOT / "tests" / "evaluate" / "lm_eval_golden.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
