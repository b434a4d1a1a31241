"""The peers of train.py, one a process: TRL's SFTTrainer, and a plain loop of Hugging Face and PEFT.

    python bench/train_peers.py NAME FOLDER [--model model|small] [--steps N]

Runs in any Python that has what it compares; Tunesmith is not imported. Prints one JSON line: seconds and loss of each
optimizer step, the seconds to the end of the first, and the peak memory. `reference` is the float32 loop of one
unpadded row at a time that losses are compared with.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import alive_seconds, peak_mib
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

IGNORE = -100
AUTOCAST = {"bf16": True}  # what SFTConfig sets where it is told use_cpu; float32 weights
NO_CHECKPOINTING = {"bf16": False, "gradient_checkpointing": False}
# parts: micro-batches of a step; eight are one row each, so that nothing is padded
TRL: dict[str, dict[str, Any]] = {
    "trl-defaults": {"sft": {"bf16": False}},
    "trl-autocast": {"sft": AUTOCAST},
    "trl-best": {"weights": "bfloat16", "parts": 8, "sft": NO_CHECKPOINTING},
    "trl-grouped": {"weights": "bfloat16", "order": "grouped", "sft": NO_CHECKPOINTING},
    "trl-flat": {"weights": "bfloat16", "sft": NO_CHECKPOINTING | {"padding_free": True, "max_length": None}},
    "trl-lora-autocast": {"lora": True, "sft": AUTOCAST},
    "trl-lora-best": {"lora": True, "weights": "bfloat16", "parts": 8, "sft": NO_CHECKPOINTING},
    "trl-lora-grouped": {"lora": True, "weights": "bfloat16", "order": "grouped", "sft": NO_CHECKPOINTING},
}
PLAIN: dict[str, dict[str, Any]] = {
    "hf": {"weights": "bfloat16"},
    "hf-lora": {"lora": True, "weights": "bfloat16"},
    "reference": {"alone": True},
    "reference-lora": {"lora": True, "alone": True},
}
RANK, ALPHA = 16, 32
Row = dict[str, list[int]]


class Clock:
    """The end of each step, and its loss (nats a trained token)."""

    def __init__(self) -> None:
        self.first, self.ends, self.losses = 0.0, list[float](), list[float]()

    def start(self) -> None:
        self.ends = [time.perf_counter()]

    def step(self, loss: float | None = None) -> None:
        self.ends.append(time.perf_counter())
        self.first = self.first or alive_seconds()
        if loss is not None:
            self.losses.append(loss)

    def facts(self) -> dict[str, Any]:
        pairs = zip(self.ends, self.ends[1:], strict=False)
        seconds = [round(b - a, 4) for a, b in pairs]
        return {"first_step_seconds": round(self.first, 2), "seconds": seconds, "losses": self.losses}


def labels(row: Row) -> list[int]:
    return [token if trained else IGNORE for token, trained in zip(row["ids"], row["mask"], strict=True)]


def load(model: Path, how: dict[str, Any]) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        model, dtype=getattr(torch, how.get("weights", "float32"))
    )
    return loaded


def lora() -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear")


def trl(how: dict[str, Any], model: Path, batches: list[list[Row]], settings: dict[str, float]) -> Clock:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    clock = Clock()

    class Watch(TrainerCallback):  # type: ignore[misc]  # untyped where TRL is not installed
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not clock.ends:
                clock.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                clock.losses.append(logs["loss"])

    flat = [row for batch in batches for row in batch]
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out,
            use_cpu=True,
            per_device_train_batch_size=len(batches[0]) // how.get("parts", 1),
            gradient_accumulation_steps=how.get("parts", 1),
            max_steps=len(batches),
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="constant",
            weight_decay=settings["weight_decay"],
            adam_beta2=settings["beta2"],
            max_grad_norm=settings["grad_clip"],
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **how["sft"],
        )
        trainer = SFTTrainer(
            model=load(model, how),
            args=config,
            train_dataset=Dataset.from_list([{"input_ids": row["ids"], "labels": labels(row)} for row in flat]),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=lora() if how.get("lora") else None,
            callbacks=[Watch()],
        )
        trainer.train()
    return clock


def plain(how: dict[str, Any], model: Path, batches: list[list[Row]], settings: dict[str, float]) -> Clock:
    """What a person writes first: load, pad, loss.backward(), clip, AdamW."""
    net: nn.Module = load(model, how)
    torch.manual_seed(0)
    if how.get("lora"):
        net = get_peft_model(net, lora())
    net.train()
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    rate, betas = settings["learning_rate"], (0.9, settings["beta2"])
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=betas, fused=True)
    clock = Clock()
    clock.start()
    for batch in batches:
        loss = alone(net, batch) if how.get("alone") else padded(net, batch)
        nn.utils.clip_grad_norm_(trained, settings["grad_clip"])
        optimizer.step()
        optimizer.zero_grad()
        clock.step(loss)
    return clock


def padded(net: nn.Module, batch: list[Row]) -> float:
    """One forward and backward pass over the whole batch, padded to its longest row."""
    width = max(len(row["ids"]) for row in batch)
    ids = torch.tensor([row["ids"] + [0] * (width - len(row["ids"])) for row in batch])
    wanted = torch.tensor([labels(row) + [IGNORE] * (width - len(row["ids"])) for row in batch])
    mask = torch.tensor([[1] * len(row["ids"]) + [0] * (width - len(row["ids"])) for row in batch])
    loss: Tensor = net(input_ids=ids, attention_mask=mask, labels=wanted, use_cache=False).loss
    loss.backward()
    return loss.item()


def alone(net: nn.Module, batch: list[Row]) -> float:
    """One row at a time, without padding: the sum over trained tokens by the step's trained tokens."""
    total = sum(sum(row["mask"][1:]) for row in batch)
    summed = 0.0
    for row in batch:
        wanted = torch.tensor(labels(row))[1:]
        logits = net(input_ids=torch.tensor([row["ids"]]), use_cache=False).logits[0, :-1]
        loss = F.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum") / total
        loss.backward()
        summed += loss.item()
    return summed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[*TRL, *PLAIN])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="model")
    parser.add_argument("--order", choices=["plain", "grouped"])
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    given = json.loads((options.folder / "rows.json").read_text(encoding="utf-8"))
    how = TRL.get(options.name) or PLAIN[options.name]
    order = options.order or how.get("order", "plain")
    batches = [[given["rows"][i] for i in batch] for batch in given[order][: options.steps]]
    run = trl if options.name in TRL else plain
    settings = given["settings"]["lora" if how.get("lora") else "full"]
    clock = run(how, options.folder / options.model, batches, settings)
    names = ("torch", "transformers", "peft", *(("trl",) if options.name in TRL else ()))
    facts = {"peak_mib": round(peak_mib()), "versions": {name: version(name) for name in names}}
    print(json.dumps({"order": order, **clock.facts(), **facts}))


if __name__ == "__main__":
    main()
