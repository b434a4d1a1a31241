"""Peak memory of training: predicted before the first step, against what was measured. Nine configurations.

    python bench/memory.py [--only NAME ...] [--keep]

Each is trained for three steps in a process of its own, by the session of `tunesmith train`: weights of SmolLM2-135M's
widths, four layers and seeded random numbers, stored in bfloat16; rows of 256 tokens, half of them trained, in
micro-batches of 2,048 tokens, two a step. Measured is the largest resident size of the process from just before the
first step; the prediction is made by that process before it. Writes bench/out/memory.json, and fails where an error is
above 10 %. Mixed rows have 50 to 500 tokens, so that every product has another shape in each step; the small base has
the shape of the embedded one.

With --keep, in place of the comparison, the first with mixed rows is also trained with all that tensors free kept by
the C library (glibc's mallopt: no block mapped by itself, nothing returned): processor time and peak beside those of
the usual way. With --kernels, the small base is trained with as many kernels kept as torch keeps by itself, the same
way.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent / "out/memory.json"
LIMIT = 10.0  # % of what is measured
ROW, MICRO, LAYERS, VOCABULARY = 256, 2048, 4, 49152
SHAPE = {"hidden_size": 576, "num_hidden_layers": LAYERS, "num_attention_heads": 9, "intermediate_size": 1536}
# configuration: family of the base, settings of `train`
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "full, bfloat16": ("llama", {"dtype": "bfloat16"}),
    "LoRA, bfloat16": ("llama", {"dtype": "bfloat16", "method": "lora"}),
    "full, float32": ("llama", {"dtype": "float32"}),
    "full, bfloat16, checkpointed": ("llama", {"dtype": "bfloat16", "gradient_checkpointing": "on"}),
    "full, bfloat16, GPT-NeoX": ("gpt_neox", {"dtype": "bfloat16"}),
    "full, bfloat16, compiled": ("llama", {"dtype": "bfloat16", "compile": "on"}),
    "full, bfloat16, mixed rows": ("llama", {"dtype": "bfloat16", "max_steps": 6}),
    "LoRA, compiled, mixed rows": ("llama", {"dtype": "bfloat16", "method": "lora", "compile": "on", "max_steps": 6}),
    "full, small base, mixed rows": ("small", {"dtype": "bfloat16", "max_steps": 60}),
}
MIXED, SMALL = "full, bfloat16, mixed rows", "full, small base, mixed rows"
SMALL_SHAPE = {"hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 512, "vocab_size": 2048}
THOUSAND = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "1024"}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)


def make(folder: Path) -> None:
    """The bases, whose vocabulary is wider than their tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tunesmith.text.tokenizer import train_bpe

    tokenizer = train_bpe(["the quick brown fox jumps over the lazy dog"] * 50, 300)
    kinds = {"llama": {"num_key_value_heads": 3, "tie_word_embeddings": True}, "gpt_neox": {}, "small": SMALL_SHAPE}
    for family, more in kinds.items():
        torch.manual_seed(0)
        ends = {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 8192, "vocab_size": VOCABULARY}
        config = AutoConfig.for_model("llama" if family == "small" else family, **{**SHAPE, **ends, **more})
        AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder / family)
        tokenizer.save(folder / family)


def one(base: Path, values: dict[str, Any], lengths: list[int], keep: bool) -> dict[str, Any]:
    """Train and compare, in this process."""
    import numpy as np
    import torch

    from tunesmith.model import device
    from tunesmith.model.optim import Optimizers
    from tunesmith.text.render import Example
    from tunesmith.train import loop, plan_memory, session
    from tunesmith.train.config import TrainConfig
    from tunesmith.train.objective import computed
    from tunesmith.train.plan_batches import ExampleSource

    device.set_up()
    numbers = np.random.default_rng(0)
    rows = [
        Example(numbers.integers(3, 300, length).tolist(), [i >= length // 2 for i in range(length)], str(n))
        for n, length in enumerate(lengths)
    ]
    given = {"compile": "off", "learning_rate": 1e-4, "max_steps": 3, "batch_size": 2 * MICRO // ROW}
    config = TrainConfig(**given | {"micro_batch_tokens": MICRO} | values)
    where = plan_memory.room(base)
    model, computing = session.prepare_model(config, base, {})
    plan = plan_memory.plan_memory(config, computing, rows, 0, where)
    if plan is None:
        raise SystemExit("the memory of this model cannot be predicted")
    computing = replace(plan.computing, limit_gb=None) if keep else plan.computing
    device.forget_peak(computing.device)
    optimizers: Optimizers = session.make_optimizers(plan.config, model)
    computing.begin(model, optimizers)
    source = ExampleSource(rows, config.batch_size, MICRO, None if computing.packed else 0, config.seed)
    settings = loop.Settings(config.max_steps or 3, computing=computing.training)
    begun = os.times()
    loop.fit(model, source, optimizers, settings, objective=computed(computing))
    spent = os.times()
    measured = device.peak_memory_gb(torch.device(computing.device))
    seconds = {"user_s": spent.user - begun.user, "system_s": spent.system - begun.system}
    return plan_memory.compared(plan.facts(config), measured) | seconds | {"held_gb": where.held}


def run(name: str, folder: Path, *more: str, **environment: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, "--folder", str(folder), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | environment)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def lengths_of(name: str) -> list[int]:
    numbers = random.Random(0)
    return [numbers.randint(50, 500) for _ in range(960)] if name.endswith("mixed rows") else [ROW] * 48


def keep_freed_memory() -> None:
    library = ctypes.CDLL("libc.so.6")
    if not (library.mallopt(M_MMAP_MAX, 0) and library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)):
        raise SystemExit("this C library has no such setting")


def both_ways(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    for way, facts in found.items():
        seconds = f"{facts['user_s']:6.1f} s of user and {facts['system_s']:6.1f} s of system time"
        print(f"{way:10}{seconds}, {facts['measured_gb']:.2f} GB at the peak")
    return found


def compared(names: list[str], folder: Path) -> dict[str, Any]:
    found = {name: run(name, folder) for name in names}
    print(f"{'':32}{'predicted':>10}{'measured':>10}{'error':>9}   GB; before the model was loaded: held")
    for name, facts in found.items():
        numbers = f"{facts['predicted_gb']:10.2f}{facts['measured_gb']:10.2f}{facts['error_percent']:+8.1f} %"
        print(f"{name:32}{numbers}   {facts['held_gb']:.2f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--keep", action="store_true", help="what keeping freed memory does to time and peak")
    parser.add_argument("--kernels", action="store_true", help="what keeping few kernels does to time and peak")
    parser.add_argument("--one", choices=CONFIGURATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        if options.keep:
            keep_freed_memory()
        family, values = CONFIGURATIONS[options.one]
        print(json.dumps(one(options.folder / family, values, lengths_of(options.one), options.keep)))
        return
    from machine import card

    with tempfile.TemporaryDirectory() as name:
        scratch, file = Path(name), OUT
        make(scratch)
        if options.keep:
            file = OUT.with_name("memory_kept.json")
            found = both_ways({"returned": run(MIXED, scratch), "kept": run(MIXED, scratch, "--keep")})
        elif options.kernels:
            file = OUT.with_name("memory_kernels.json")
            found = both_ways({"128": run(SMALL, scratch), "1,024": run(SMALL, scratch, **THOUSAND)})
        else:
            found = compared(options.only, scratch)
    OUT.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": card(), "configurations": found}, indent=1), encoding="utf-8")
    if file == OUT and any(abs(facts["error_percent"]) > LIMIT for facts in found.values()):
        raise SystemExit(f"an error is above {LIMIT} %")


if __name__ == "__main__":
    main()
