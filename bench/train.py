"""Training speed: Tunesmith against TRL and a plain Hugging Face and PEFT loop, on the CPU of this machine.

    python bench/train.py [--steps 8] [--rounds 2] [--only NAME ...] [--trl-python PATH] [--prefix "nice -n -5"]
                          [--parts FOLDER]

The shape is SmolLM2-135M's with seeded random weights (stored in bfloat16, as that model is); the rows are those of
llamafactory/alpaca_en_demo.json, tokenised once for everybody by a BPE trained on them, loss on the responses only, 8
rows a step, the same rows in the same order, AdamW with the same settings. `grouped` contestants alone see other rows:
batches of like length, spread evenly over 248 sorted rows (the span that TRL's sampler sorts), because that is TRL's
way to pad less. Tokens are counted here, from the rows.

First the gate: a contestant of ours whose loss leaves the float32 trace of `reference` (one unpadded row at a time) by
more than 5e-3 in 50 steps of a small model or 5 of the large one has no speed. Every weight of the large one is trained
in float32 there: Adam's first step moves each weight by the sign of its gradient, which the rounding of bfloat16 turns
round where it is near nothing, for everybody alike; how far bfloat16 is off stands beside TRL's.
Then every contestant runs in a process of its own, in turn, `--rounds` times; a step's time is the median over the
rounds, and speed is the trained tokens of all steps after the warm-up by the sum of their times. Useful work is matrix
products of real tokens (the formula is printed); its share is of the fastest product measured in any process of the
run.
All of it takes an hour and a half, most of that TRL's float32: with --parts each process's figures are kept in FOLDER,
and the same command goes on from there. Writes bench/out/train.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from machine import card
from train_ours import OURS
from train_peers import ALPHA, RANK, TRL
from train_table import CONTESTANTS, FORMULA, show
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.core.records import pair
from tunesmith.model.adapter import add_lora
from tunesmith.model.shape import Shape, flops_per_token, shape_of
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import train_bpe

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared/data/llamafactory/alpaca_en_demo.json"
OUT = HERE / "out/train.json"
BATCH, WARMUP, SORTED_ROWS = 8, 3, 248
TOLERANCE, SMALL_STEPS, LARGE_STEPS = 5e-3, 50, 5  # nats a trained token
LIMIT_SECONDS = 1800  # a process
VOCABULARY = 49152
HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3}
SHAPES = {
    "model": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "vocab_size": VOCABULARY,
        **HEADS,
    },
    "small": {"hidden_size": 144, "intermediate_size": 384, "num_hidden_layers": 4, "vocab_size": 22_016, **HEADS},
}
STORED = {"model": torch.bfloat16, "small": torch.float32}
COMMON = {"weight_decay": 0.01, "beta2": 0.95, "grad_clip": 1.0}
SETTINGS = {"full": {"learning_rate": 1e-4, **COMMON}, "lora": {"learning_rate": 1e-3, **COMMON}}
GATED = {
    "small": (("ours", "reference"), ("ours-lora", "reference-lora")),
    "model": (("ours-float32", "reference"), ("ours-lora", "reference-lora")),
}
UNGATED = {"small": ("trl-best",), "model": ("ours", "trl-autocast")}  # against the reference too, for comparison
Found = dict[str, Any]


class Failed(Exception):
    """A contestant that ended without a result, and why."""


def make(folder: Path, data: Path, steps: int) -> Found:
    """Models, tokenizer and rows, the same for everybody."""
    sources = json.loads(data.read_text(encoding="utf-8"))
    tokenizer = train_bpe((text for row in sources for text in row.values() if text), VOCABULARY)
    renderer = Renderer(tokenizer, "plain")
    asked = [
        ("\n\n".join(part for part in (row["instruction"], row["input"]) if part), row["output"]) for row in sources
    ]
    examples = [example for question, answer in asked for example in renderer.render(pair(question, answer))]
    rows = [{"ids": example.ids, "mask": [int(trained) for trained in example.mask]} for example in examples]
    given = {"rows": rows, "settings": SETTINGS, **orders([len(row["ids"]) for row in rows], steps)}
    (folder / "rows.json").write_text(json.dumps(given), encoding="utf-8")
    for name, shape in SHAPES.items():
        torch.manual_seed(0)
        LlamaForCausalLM(config(shape)).to(STORED[name]).save_pretrained(folder / name)
        tokenizer.save(folder / name)
    return given


def config(shape: dict[str, int]) -> LlamaConfig:
    return LlamaConfig(
        **shape,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        max_position_embeddings=8192,
        initializer_range=0.041666666666666664,
        bos_token_id=0,
        eos_token_id=0,
    )


def orders(lengths: list[int], steps: int) -> dict[str, list[list[int]]]:
    """The batches of each order: all rows as they come, and enough batches of like length.

    The batch of the longest row is first: what a contestant compiles for long rows is part of the warm-up.
    """
    plain = [list(range(at, at + BATCH)) for at in range(0, len(lengths) - BATCH + 1, BATCH)]
    plain.insert(0, plain.pop(max(range(len(lengths) // BATCH), key=lambda n: max(lengths[i] for i in plain[n]))))
    ranked = sorted(range(min(SORTED_ROWS, len(lengths))), key=lambda i: -lengths[i])
    batches = [ranked[at : at + BATCH] for at in range(0, len(ranked) - BATCH + 1, BATCH)]
    chosen = [batches[(2 * i + 1) * len(batches) // (2 * steps)] for i in range(steps)]
    random.Random(0).shuffle(chosen)
    middle = len(batches) // 2
    return {"plain": plain, "grouped": [*batches[middle : middle + WARMUP], *chosen]}


def shapes() -> dict[str, Shape]:
    """Of the large model, with and without an adapter; no numbers are made."""
    with torch.device("meta"):
        model = LlamaForCausalLM(config(SHAPES["model"]))
        full = shape_of(model)
        return {"full": full, "lora": shape_of(add_lora(model, RANK, ALPHA, 0.0))}


def run(name: str, folder: Path, options: argparse.Namespace, *more: str, prefix: str = "") -> Found:
    """One contestant in a process of its own."""
    python = str(options.trl_python) if name in TRL else sys.executable
    script = HERE / ("train_ours.py" if name in OURS else "train_peers.py")
    command = [*shlex.split(prefix), python, str(script), name, str(folder), *more]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {LIMIT_SECONDS} s") from None
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200])
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def no_trl(python: Path) -> str:
    """Why TRL cannot run, or ''."""
    if not python.is_file():
        return f"there is no {python}. Next: make bench-train"
    asked = subprocess.run([str(python), "-c", "import trl, datasets, psutil"], capture_output=True, text=True)
    return asked.stderr.strip().splitlines()[-1] if asked.returncode else ""


def gate(folder: Path, options: argparse.Namespace) -> tuple[Found, bool]:
    """The largest difference of a step's loss from the float32 trace, for each contestant and model."""
    found: Found = {}
    passed = True
    for model, steps in (("small", SMALL_STEPS), ("model", LARGE_STEPS)):
        more = ("--model", model, "--steps", str(steps))
        for name, reference in GATED[model]:
            if name.removesuffix("-float32") not in options.only:
                continue
            want = trace(run(reference, folder, options, *more), steps)
            others = [one for one in UNGATED[model] if one not in TRL or not options.without]
            for other in [name, *(others if reference == "reference" else [])]:
                losses = trace(run(other, folder, options, *more), steps)
                worst = max(abs(a - b) for a, b in zip(losses, want, strict=True))
                passed = passed and (other != name or worst <= TOLERANCE)  # not a number fails
                found[f"{other}, {steps} steps, {model}"] = {"worst": worst, "losses": losses, "reference": want}
                told = f"loss {want[0]:.3f} to {want[-1]:.3f} in {steps} steps, {worst:.1e} off"
                print(f"gate: {other} on {model}: {told}{'' if other == name else ', no condition'}", flush=True)
    return found, passed


def kept(options: argparse.Namespace, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives; with --parts from the file of an earlier run, where there is one."""
    file = options.parts / f"{name}.json" if options.parts else None
    if file and file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    made = make()
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(made), encoding="utf-8")
    return made


def trace(found: Found, steps: int) -> list[float]:
    losses = list(map(float, found["losses"]))
    if len(losses) != steps:
        raise Failed(f"{len(losses)} losses of {steps} steps")
    return losses


def turns(folder: Path, options: argparse.Namespace) -> tuple[dict[str, list[Found]], dict[str, str]]:
    """Every contestant, in turn, as often as there are rounds; and those that failed."""
    found: dict[str, list[Found]] = {name: [] for name in options.only}
    failed: dict[str, str] = {}
    for turn in range(options.rounds):
        for name in options.only:
            if name in failed or (options.without and name in TRL):
                continue
            last = turn == options.rounds - 1 and name in ("ours", "ours-lora")
            more = ("--steps", str(WARMUP + options.steps), *(["--profile"] if last else []))
            try:
                timed = partial(run, name, folder, options, *more, prefix=options.prefix)
                found[name].append(kept(options, f"{turn + 1}-{name}", timed))
                print(f"round {turn + 1}: {name} {sum(found[name][-1]['seconds'][WARMUP:]):.1f} s", file=sys.stderr)
            except Failed as error:
                failed[name] = str(error)
    return {name: rounds for name, rounds in found.items() if rounds and name not in failed}, failed


def summary(name: str, rounds: list[Found], given: Found, shape: Shape) -> Found:
    """Speed and cost of a contestant, from all of its rounds; the share of the peak follows when that is known."""
    each = list(zip(*(one["seconds"][WARMUP:] for one in rounds), strict=True))
    seconds = [statistics.median(times) for times in each]
    batches = given[rounds[0]["order"]][WARMUP : WARMUP + len(seconds)]
    rows = [given["rows"][i] for batch in batches for i in batch]
    trained, tokens = sum(sum(row["mask"][1:]) for row in rows), sum(len(row["ids"]) for row in rows)
    padded = sum(BATCH * max(len(given["rows"][i]["ids"]) for i in batch) for batch in batches)
    speeds = [trained / sum(one["seconds"][WARMUP:]) for one in rounds]
    usual = WARMUP * statistics.median(seconds)
    return {
        "name": name,
        "trained_tokens_per_second": round(trained / sum(seconds), 1),
        "by_round": [round(speed, 1) for speed in speeds],
        "useful_gflops": round(flops_per_token(shape, trained / tokens) * tokens / sum(seconds) / 1e9, 1),
        "trained_tokens": trained,
        "tokens": tokens,
        "positions_if_padded": padded,
        "peak_gib": round(max(one["peak_mib"] for one in rounds) / 1024, 2),
        "first_step_seconds": [one["first_step_seconds"] for one in rounds],  # of the process; the first is cold
        "warm_up_seconds": [round(sum(one["seconds"][:WARMUP]) - usual, 1) for one in rounds],  # more than usual
        "seconds": [list(times) for times in each],
        "computing": rounds[-1].get("computing"),
        "versions": rounds[-1]["versions"],
        "profile": rounds[-1].get("profile"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help=f"timed steps of a process, after {WARMUP} of warm-up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--trl-python", type=Path, default=HERE.parent / ".venv-trl/bin/python")
    parser.add_argument("--prefix", default="", help="put before the command of each timed process")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--parts", type=Path)
    options = parser.parse_args()
    if not options.data.is_file():
        raise SystemExit(f"NOT RUN: there is no {options.data}")
    options.without = no_trl(options.trl_python)
    if options.without:
        print(f"TRL: NOT RUN ({options.without})")
    with tempfile.TemporaryDirectory() as name:
        sys.exit(measure(Path(name), options))


def measure(folder: Path, options: argparse.Namespace) -> int:
    given = make(folder, options.data, options.steps)
    facts: Found = {"machine": card() | {name: version(name) for name in ("torch", "transformers", "peft")}}
    facts |= {"settings": SETTINGS, "steps": options.steps, "warm-up": WARMUP, "rounds": options.rounds}
    try:
        facts["gate"], passed = kept(options, "gate", partial(gate, folder, options))
    except Failed as error:
        print(f"the gate was NOT RUN ({error}), so no speed is measured")
        return 1
    if not passed:
        print(f"the gate failed: a loss is more than {TOLERANCE:g} off, so no speed is measured")
        return 1
    found, failed = turns(folder, options)
    missing = failed | dict.fromkeys((set(TRL) & set(options.only) if options.without else ()), options.without)
    kinds = shapes()
    results = {
        name: summary(name, rounds, given, kinds["lora" if "lora" in name else "full"])
        for name, rounds in found.items()
    }
    peak = max((one.get("peak_flops", 0.0) for rounds in found.values() for one in rounds), default=0.0)
    facts |= {"formula": FORMULA, "peak_gflops": round(peak / 1e9), "results": results, "not_run": missing}
    show(results, missing, peak)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 1 if missing else 0


if __name__ == "__main__":
    main()
