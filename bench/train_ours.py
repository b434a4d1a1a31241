"""Tunesmith's own contestants of train.py, one a process.

    python bench/train_ours.py NAME FOLDER [--model model|small] [--steps N] [--profile]

The session of `tunesmith train` without its checkpoints, validations and samples: the same rows in the same order as
the peers' take the place of the shuffled ones. Prints one JSON line: see train_peers.py; and the fastest bfloat16
matrix product of this process, and with --profile where the time of one more step went.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from machine import alive_seconds, peak_mib
from torch.profiler import ProfilerActivity, profile

from tunesmith.model import device, optim, peak
from tunesmith.text.render import Example
from tunesmith.train import loop, session
from tunesmith.train.config import TrainConfig
from tunesmith.train.objective import computed
from tunesmith.train.plan_batches import MicroBatch, cut

# Compiled unless it says otherwise, whatever the break-even says of a run this short: its cost is reported apart.
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours-lora": {"method": "lora"},
    "ours-float32": {"dtype": "float32"},
    "ours-eager": {"compile": "off"},
    "ours-padded": {"compile": "off", "packing": "off"},
    "ours-autocast": {"compile": "off", "copies": False},  # float32 weights, cast as they are used
    "ours-lora-eager": {"method": "lora", "compile": "off"},
}
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise", "aten::mkldnn_linear"}
COPIES = {"aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat", "aten::contiguous", "aten::fill_", "aten::zero_"}


@dataclass(frozen=True)
class Batches:
    """Given batches in a given order."""

    batches: Sequence[Sequence[Example]]
    micro_tokens: int
    pad_id: int | None

    @property
    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def step(self, n: int) -> list[MicroBatch]:
        return cut(self.batches[n % len(self.batches)], self.micro_tokens, self.pad_id)


class Run:
    """A contestant, ready for its first step."""

    def __init__(self, how: dict[str, Any], model: Path, given: dict[str, Any]) -> None:
        settings = given["settings"][how.get("method", "full")]
        chosen = {"compile": "on", **{key: value for key, value in how.items() if key != "copies"}}
        config = TrainConfig(learning_rate=settings["learning_rate"], max_steps=1, seed=0, **chosen)
        self.clip = settings["grad_clip"]
        self.receipt: dict[str, Any] = {"rows": {"train": len(given["rows"])}}
        self.model, computing = session.prepare_model(config, model, self.receipt)
        self.computing = computing if how.get("copies", True) else replace(computing, copies=None)
        adamw = optim.adamw(self.model.parameters(), settings["learning_rate"], settings["weight_decay"])
        self.optimizers = optim.Optimizers([adamw], lambda step: 1.0)
        self.computing.begin(self.model, self.optimizers)
        rows = [Example(row["ids"], [bool(x) for x in row["mask"]], str(i)) for i, row in enumerate(given["rows"])]
        batches = [[rows[i] for i in batch] for batch in given["plain"]]
        self.source = Batches(batches, config.micro_batch_tokens, None if self.computing.packed else 0)
        self.state = loop.State()
        self.ends, self.losses = [time.perf_counter()], list[float]()
        self.ended: Callable[[], None] | None = None

    def to(self, step: int) -> None:
        settings = loop.Settings(step, self.clip, computing=self.computing.training)
        hooks = loop.Hooks(observe=self._observe)
        objective = computed(self.computing)
        loop.fit(self.model, self.source, self.optimizers, settings, hooks=hooks, objective=objective, state=self.state)

    def _observe(self, state: loop.State, facts: dict[str, float]) -> None:
        self.ends.append(time.perf_counter())
        self.losses.append(facts["train_loss"])
        if self.ended:
            self.ended()


def profiled(run: Run, step: int, vocabulary: int) -> dict[str, float]:
    """Seconds of one step by what they went to: the operators' own time, on the one thread that starts them."""
    found = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
    run.ended = found.stop  # before the loop looks for weights that are not finite, as it does after a last step
    began = time.perf_counter()
    found.start()
    run.to(step)
    wall = run.ends[-1] - began
    seconds: dict[str, float] = defaultdict(float)
    for event in found.events():
        seconds[_group(event, vocabulary)] += event.self_cpu_time_total / 1e6
    seconds["between operators"] = max(0.0, wall - sum(seconds.values()))
    return {name: round(value, 4) for name, value in sorted(seconds.items(), key=lambda item: -item[1])}


def _group(event: Any, vocabulary: int) -> str:
    above, names = event, list[str]()
    while above is not None:
        names.append(above.name)
        above = above.cpu_parent
    inside = " ".join(names)
    if "tunesmith::attention" in inside or "scaled_dot_product" in inside:
        return "attention"
    if "Optimizer.step" in inside or ("norm" in event.name and "foreach" in event.name):
        return "optimizer"
    wide = any(vocabulary in shape for shape in event.input_shapes if isinstance(shape, list))
    if "HeadLoss" in inside or wide:
        return "head and loss"
    if event.name in PRODUCTS:
        return "block products"
    return "casts and copies" if event.name in COPIES else "other: norms, rotary, activations"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=OURS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="model")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    device.set_up()
    given = json.loads((options.folder / "rows.json").read_text(encoding="utf-8"))
    run = Run(OURS[options.name], options.folder / options.model, given)
    run.to(1)
    first = alive_seconds()
    run.to(options.steps)
    facts = {
        "order": "plain",
        "first_step_seconds": round(first, 2),
        "seconds": [round(b - a, 4) for a, b in zip(run.ends, run.ends[1:], strict=False)],
        "losses": run.losses,
        "peak_mib": round(peak_mib()),
        "peak_flops": peak.measure(torch.bfloat16, torch.device("cpu"))[0],
        "computing": run.computing.facts,
        "versions": {name: device.machine_facts()[name] for name in ("torch", "transformers", "peft")},
    }
    if options.profile:
        vocabulary = run.computing.model.get_input_embeddings().num_embeddings
        facts["profile"] = profiled(run, options.steps + 1, vocabulary)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
