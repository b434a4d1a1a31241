"""Random SIGKILLs over whole tiny runs: the final weights must be those of an undisturbed run, every time.

    nice -n 10 python bench/kills.py [--kills 200] [--seed 0] [--out FILE]

A run is all that `tunesmith train` does between its data and its sealed artifact: lease, loop with validation and
dropout, checkpoints that do not fall on epochs, the best weights put back, sealing. Full training and LoRA take turns.
Each life of a run is a forked child of this process, which has imported torch and touched no tensor; it is killed after
a random time, and the next life goes on from what lies on the disk. Writes bench/out/kills.json; exits with 1 when one
hash differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a fork may not find threads
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from machine import card
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.core.artifact import open_artifact
from tunesmith.core.jsonl import read_json, write_json
from tunesmith.core.runlog import RunLog
from tunesmith.model import optim
from tunesmith.model.adapter import add_lora
from tunesmith.text.render import Example
from tunesmith.train import checkpoint, loop
from tunesmith.train.plan_batches import ExampleSource
from tunesmith.train.unfinished import SAME, finish, unfinished

OUT = Path(__file__).resolve().parent / "out/kills.json"
RECEIPT: dict[str, Any] = dict.fromkeys(SAME, "")
STEPS, SAVE_EVERY, EVAL_EVERY = 23, 2, 7  # 18 rows in batches of 4: steps 10 and 20 end an epoch
METHODS = ("full", "lora")


def build(method: str) -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=64, attention_dropout=0.1, **sizes))
    return add_lora(model, 4, 8.0, 0.1) if method == "lora" else model


def examples(seed: int, rows: int) -> list[Example]:
    rng = random.Random(seed)
    sizes = [rng.randrange(3, 20) for _ in range(rows)]
    return [Example([rng.randrange(64) for _ in range(n)], [i > n // 2 for i in range(n)], str(n)) for n in sizes]


def live(out: Path, method: str) -> None:
    """One life of a run: from where the last one was killed, to the sealed run."""
    with unfinished(out, resume=out.with_name(out.name + ".partial").is_dir()) as work:
        model, folder = build(method), work / "checkpoints"
        parts = [optim.adamw(model.parameters(), 0.01, 0.1)]
        optimizers = optim.Optimizers(parts, lambda step: optim.lr_factor("cosine", step, STEPS, 3))
        found = checkpoint.latest(folder, "run")
        state = checkpoint.load(found, model, optimizers) if found else loop.State()
        held = ExampleSource(examples(1, 6), 4, 64, 0).all()
        with closing(RunLog(work / "metrics.jsonl", state.step)) as log:
            hooks = loop.Hooks(
                validate=lambda: loop.mean_loss(model, held),
                save=lambda now: checkpoint.save(folder, model, optimizers, now, "run"),
                roll_back=lambda: checkpoint.roll_back(folder, model, optimizers, "run"),
                log=log,
            )
            settings = loop.Settings(STEPS, save_every=SAVE_EVERY, eval_every=EVAL_EVERY)
            source = ExampleSource(examples(0, 18), 4, 64, 0)
            state = loop.fit(model, source, optimizers, settings, hooks=hooks, state=state)
        checkpoint.restore_best(folder, model, state)
        blob = hashlib.sha256()
        for name, weight in checkpoint.trained_weights(model).items():
            blob.update(name.encode() + weight.numpy().tobytes())
        result = {"weights": blob.hexdigest(), "best_step": state.best_step, "val_loss": state.best_val_loss}
        write_json(work / "final.json", result)
        finish(work, out, RECEIPT)


def fork(out: Path, method: str, log: Path) -> int:
    """A child that lives one life and exits with 0; what it says goes to `log`."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("a") as said:
            os.dup2(said.fileno(), 2)
        live(out, method)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def whole(out: Path, method: str, log: Path) -> tuple[dict[str, Any], float]:
    """An undisturbed run: what it ends with, and its seconds."""
    began = time.monotonic()
    _, status = os.waitpid(fork(out, method, log), 0)
    seconds = time.monotonic() - began
    if status:
        raise SystemExit(f"a run failed:\n{log.read_text()}")
    return final(out), seconds


def final(out: Path) -> dict[str, Any]:
    open_artifact(out, "run")
    return dict(read_json(out / "final.json"))


def place(out: Path) -> str:
    """Where a kill has hit."""
    work = out.with_name(out.name + ".partial")
    if out.exists():
        return "after the run was sealed"
    if out.with_name(f".{out.name}.checkpoints").exists():
        return "while the run was sealed"
    if any(work.glob("checkpoints/.step-*")):
        return "inside a save"
    return "between saves" if any(work.glob("checkpoints/step-*")) else "before the first checkpoint"


def disturb(out: Path, method: str, log: Path, rng: random.Random, longest: float) -> list[str]:
    """Kill and go on until the run is sealed. Returns where each kill has hit."""
    hits: list[str] = []
    while not out.exists():
        child = fork(out, method, log)
        time.sleep(rng.uniform(0, longest))
        os.kill(child, signal.SIGKILL)  # one that is done waits for its parent, and feels nothing
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            hits.append(place(out))
        elif status:
            raise SystemExit(f"a life ended by itself:\n{log.read_text()}")
    return hits


def measure(kills: int, seed: int, root: Path) -> dict[str, Any]:
    rng, log = random.Random(seed), root / "log"
    began = time.monotonic()
    undisturbed = {method: whole(root / f"whole-{method}", method, log) for method in METHODS}
    again = {method: whole(root / f"again-{method}", method, log)[0] for method in METHODS}
    if any(again[method] != undisturbed[method][0] for method in METHODS):
        raise SystemExit("two undisturbed runs differ: nothing can be compared")
    hits: dict[str, int] = {}
    runs = equal = 0
    while sum(hits.values()) < kills or runs < len(METHODS):
        method, out = METHODS[runs % len(METHODS)], root / f"run-{runs}"
        expected, seconds = undisturbed[method]
        for hit in disturb(out, method, log, rng, seconds):
            hits[hit] = hits.get(hit, 0) + 1
        runs, equal = runs + 1, equal + (final(out) == expected)
    whole(root / "last", "lora", log)  # it clears away what the killed ones have left
    left = sorted(path.name for path in root.glob(".*"))
    if left:
        raise SystemExit(f"left behind: {', '.join(left)}")
    warnings = log.read_text().count("warning") if log.exists() else 0
    return {
        "kills": sum(hits.values()),
        "killed": dict(sorted(hits.items())),
        "runs": runs,
        "equal": equal,
        "warnings": warnings,
        "seconds_of_an_undisturbed_run": {m: round(s, 3) for m, (_, s) in undisturbed.items()},
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(asked.kills, asked.seed, Path(folder))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(
        json.dumps({"machine": card(), "torch": torch.__version__, "seed": asked.seed, **found}, indent=2)
    )
    kills, runs = found["kills"], found["runs"]
    print(f"{kills} kills in {runs} runs, {found['seconds']} s: {found['equal']} of {runs} equal")
    for hit, count in found["killed"].items():
        print(f"  {count:4} {hit}")
    return 0 if found["equal"] == found["runs"] else 1


if __name__ == "__main__":
    sys.exit(main())
