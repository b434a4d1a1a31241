"""Seconds for ARC-Challenge at 25 shots: Tunesmith against lm-eval, on the same model, files and shots.

    python bench/benchmarks.py --lm-eval-python PATH [--questions 1172] [--peer-questions 40] [--rounds 1] [--prefix ""]

The shape is SmolLM2-135M's with seeded random weights in bfloat16; the questions are ../shared/data's. Both sides show
the same 25 shots before every question (lm-eval is given them as a file, with its own `first_n` sampler). What is timed
is scoring, tokenising included: not loading. lm-eval takes as long over the last question as over the first, so it is
asked few, and its time for the set is that of a question times their number; ours is timed over all that are asked for,
because what is shared is computed once. lm-eval scores 4 requests at a time. Both sides have all cores.

First the gate: in float32, over --gate-questions, every choice's log-likelihood is lm-eval's within 0.01 nats, and acc
and acc_norm are equal on every question; without that there is no time. In bfloat16 rounding decides between near
equals: there the questions that differ are counted, and how far the log-likelihoods are apart is printed.
lm-eval lives in an environment of its own: pip install 'lm-eval[hf]==0.4.13'. Writes bench/out/benchmarks.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lm_eval_files
import torch
from machine import card
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.bases import load_engine
from tunesmith.evaluate.benchmarks import Arm, BenchmarkConfig, Sheet, ask, sheet
from tunesmith.evaluate.tasks import METRICS, TASKS, Task
from tunesmith.model.load import quiet
from tunesmith.text.tokenizer import train_bpe

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
OUT = HERE / "out" / "benchmarks.json"
GOAL = 20.0  # times lm-eval
TOLERANCE = 0.01  # nats a choice, in float32
SHAPE = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "max_position_embeddings": 2048}
SHAPE |= {"num_attention_heads": 9, "num_key_value_heads": 3, "rope_theta": 100000}
TASK = TASKS["arc_challenge"]


def make_model(folder: Path, dtype: torch.dtype) -> Path:
    """135M parameters, and a tokenizer that has read the rows of the other peer benches."""
    rows = json.loads((DATA / "llamafactory" / "alpaca_en_demo.json").read_text("utf-8"))
    tokenizer = train_bpe((f"{r['instruction']}\n{r['input']}\n{r['output']}" for r in rows), 49152)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_id)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=49152, tie_word_embeddings=True, **SHAPE, **ids)
    with quiet():
        LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def the_sheet(files: Path, count: int) -> Sheet:
    def find(task: Task, part: str) -> list[Path]:
        return [files / f"arc_challenge_{part}.jsonl"]

    return sheet(TASK, BenchmarkConfig(limit=count), find)


def write_shots(files: Path) -> Path:
    """The drawn shots as rows of lm-eval's columns, found again by their text."""
    block = the_sheet(files, 1).before[0]
    rows = [json.loads(line) for line in (files / "arc_challenge_train.jsonl").read_text("utf-8").splitlines()]
    places = {block.find(f"Question: {row['question']}\nAnswer:"): row for row in rows}
    shots = [places[place] for place in sorted(places) if place >= 0]
    if len(shots) != TASK.shots:
        raise SystemExit(f"{len(shots)} of {TASK.shots} shots were found again")
    path = files / "shots.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in shots), "utf-8")
    return path


def peer(python: str, prefix: list[str], model: Path, files: Path, count: int, dtype: str) -> dict[str, Any]:
    splits = {"test": files / "arc_challenge_test.jsonl", "shots": files / "shots.jsonl"}
    row = {"task": TASK.name, "shots": TASK.shots, "limit": count, "fixed": True}
    row["files"] = {split: str(path) for split, path in splits.items()}
    job = {"model": str(model), "dtype": dtype, "batch_size": 4, "threads": torch.get_num_threads(), "tasks": [row]}
    (files / "job.json").write_text(json.dumps(job))
    words = [*prefix, python, str(HERE / "lm_eval_side.py"), str(files / "job.json"), str(files / "out.json")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(files / "cache")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"lm-eval failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads((files / "out.json").read_text("utf-8"))
    return {"version": found["version"], **found["tasks"][0]}


def ours(prefix: list[str], model: Path, files: Path, count: int) -> tuple[float, list[list[float]]]:
    """(seconds, log-likelihoods), from a process of its own, as the peer's are."""
    words = [*prefix, sys.executable, __file__, "--ours", str(model), str(files), str(count)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return found["seconds"], found["lls"]


def alone(model: Path, files: Path, count: int) -> None:
    one = the_sheet(files, count)
    engine, renderer = load_engine(model)
    started = time.perf_counter()
    lls = ask(one, Arm(engine, renderer.tokenizer)).lls
    print(json.dumps({"seconds": time.perf_counter() - started, "lls": lls}))


def gate(one: Sheet, lls: list[list[float]], items: list[dict[str, Any]]) -> dict[str, Any]:
    """How far the two sides are apart, over the questions of lm-eval."""
    pairs = list(zip(one.questions, lls, items, strict=False))
    apart = [abs(a - b) for _, mine, item in pairs for a, b in zip(mine, item["lls"], strict=True)]
    metrics = {}
    for name in TASK.metrics:
        mine = [METRICS[name](each, question) for question, each, _ in pairs]
        theirs = [item["metrics"][name] for *_, item in pairs]
        equal = sum(a == b for a, b in zip(mine, theirs, strict=True))
        metrics[name] = {"ours": statistics.fmean(mine), "lm_eval": statistics.fmean(theirs), "equal": equal}
    return {"n": len(pairs), "worst_nats": max(apart), "metrics": metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description="ARC-Challenge at 25 shots against lm-eval")
    parser.add_argument("--questions", type=int, default=1172)
    parser.add_argument("--peer-questions", type=int, default=40)
    parser.add_argument("--gate-questions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--lm-eval-python", default=os.environ.get("LM_EVAL_PYTHON", ""))
    parser.add_argument("--prefix", default="", help="put before both sides' commands, such as 'nice -n -5'")
    parser.add_argument("--ours", nargs=3, metavar=("MODEL", "FILES", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours:
        alone(Path(given.ours[0]), Path(given.ours[1]), int(given.ours[2]))
        return
    if not given.lm_eval_python:
        raise SystemExit("NOT RUN: --lm-eval-python PATH, of an environment with lm-eval[hf]==0.4.13")
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(given, Path(scratch))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    report(results)
    sys.exit(0 if results["gate_passed"] else 1)


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    files, prefix, python = folder / "files", shlex.split(given.prefix), given.lm_eval_python
    lm_eval_files.write(DATA, files)
    write_shots(files)
    results: dict[str, Any] = {"machine": card(), "threads": torch.get_num_threads(), "goal": GOAL}
    exact = make_model(folder / "float32", torch.float32)
    few = the_sheet(files, given.gate_questions)
    reference = peer(python, prefix, exact, files, given.gate_questions, "float32")
    results["float32"] = gate(few, ours(prefix, exact, files, given.gate_questions)[1], reference["items"])
    cells = results["float32"]["metrics"].values()
    same = all(cell["equal"] == results["float32"]["n"] for cell in cells)
    results["gate_passed"] = same and results["float32"]["worst_nats"] < TOLERANCE
    if not results["gate_passed"]:
        return results
    model = make_model(folder / "bfloat16", torch.bfloat16)
    one = the_sheet(files, given.questions)
    theirs, mine = [], []
    for _ in range(given.rounds):
        theirs.append(peer(python, prefix, model, files, given.peer_questions, "bfloat16"))
        mine.append(ours(prefix, model, files, given.questions))
    results["lm_eval_version"] = theirs[0]["version"]
    results["bfloat16"] = gate(one, mine[0][1], theirs[0]["items"])
    results["lm_eval_seconds_a_question"] = statistics.median(r["seconds"] for r in theirs) / given.peer_questions
    results["seconds"] = statistics.median(seconds for seconds, _ in mine)
    results["questions"], results["peer_questions"] = len(one.questions), given.peer_questions
    results["lm_eval_seconds"] = results["lm_eval_seconds_a_question"] * results["questions"]
    results["ratio"] = results["lm_eval_seconds"] / results["seconds"]
    return results


def report(results: dict[str, Any]) -> None:
    for name in ("float32", "bfloat16"):
        if name in results:
            cell = results[name]
            equal = ", ".join(f"{metric} {found['equal']}" for metric, found in cell["metrics"].items())
            print(f"{name}: log-likelihoods at most {cell['worst_nats']:.2g} nats apart; equal of {cell['n']}: {equal}")
    if not results["gate_passed"]:
        print("the gate failed: no times")
        return
    each = results["lm_eval_seconds_a_question"]
    print(
        f"lm-eval {results['lm_eval_version']}: {each:.2f} s a question ({results['peer_questions']} asked), so ",
        end="",
    )
    print(f"{results['lm_eval_seconds']:.0f} s for {results['questions']}")
    print(f"Tunesmith: {results['seconds']:.1f} s for {results['questions']}: {results['ratio']:.1f} x", end="")
    print(f" (goal {GOAL:.0f} x: {'met' if results['ratio'] >= GOAL else 'NOT met'})")


if __name__ == "__main__":
    main()
