"""The configs of `train` and `pretrain`, and what is decided where they say nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tunesmith.core.config import Config
from tunesmith.text.batch import EPOCHS, STEPS, decide_batch, decide_epochs
from tunesmith.text.length import OverLength
from tunesmith.text.render import TrainOn

Choice = Literal["auto", "on", "off"]
Schedule = Literal["cosine", "linear", "constant", "wsd"]
_MUON_RATE = 2e-2  # measured on the demo: bench/demo_choices.py
_SMALL = 10**7  # parameters of a base that still has much to learn, which LoRA does slowly: bench/learning.py


class TrainConfig(Config):
    """How to train. A key that is commented out is decided for you, and what was decided is recorded."""

    method: Literal["full", "lora"] = "full"
    """full: every weight; lora: small added matrices, the base frozen"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw; muon: Muon on the matrices and AdamW on the rest, better on models of a few million parameters"""
    num_epochs: int | None = Field(default=None, ge=1)
    """passes over the data, at most; decided by the number of rows"""
    max_steps: int | None = Field(default=None, ge=1)
    """optimizer steps, in place of num_epochs"""
    learning_rate: float | None = Field(default=None, gt=0)
    """the highest learning rate; decided by method and size of the base"""
    find_lr: bool = False
    """try a few rates around that one in short runs, and take the one with the lowest validation loss"""
    lr_schedule: Schedule = "cosine"
    """cosine, linear, constant, or wsd (flat, then down in the last fifth)"""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """the share of the steps in which the learning rate rises"""
    weight_decay: float = Field(default=0.01, ge=0)
    """pull of the matrices towards zero"""
    grad_clip: float = Field(default=1.0, ge=0)
    """the longest gradient; 0 for no limit"""
    batch_size: int | None = Field(default=None, ge=1)
    """examples an optimizer step; decided by the number of rows"""
    batch_tokens: int | None = Field(default=None, ge=1)
    """tokens an optimizer step, about, in place of batch_size: as many rows as have so many on average"""
    micro_batch_tokens: int = Field(default=4096, ge=1)
    """padded tokens a forward pass: memory and speed, never the result"""
    max_length: int | None = Field(default=None, ge=8)
    """the longest example in tokens, at most the base's context; decided from the exact lengths of the rows"""
    over_length: OverLength = "skip"
    """longer rows: skip (reported), trim-context (the middle of the prompt's context), split (raw text, into pieces)"""
    train_on: TrainOn = "completion"
    """which tokens are trained: completion (every answer), last (the last answer), all (the prompt too)"""
    lora_rank: int = Field(default=16, ge=1)
    """the rank of LoRA's matrices"""
    lora_alpha: float = Field(default=32.0, gt=0)
    """LoRA's scale is lora_alpha / lora_rank"""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """dropout before LoRA's first matrix"""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """the layers that LoRA adapts: all-linear, or names such as ["q_proj", "v_proj"]"""
    eval_every: int | None = Field(default=None, ge=1)
    """steps between validations; an epoch, where not given"""
    save_every: int | None = Field(default=None, ge=1)
    """steps between checkpoints, besides those of the best validations; an epoch where nothing is validated"""
    sample_every: int | None = Field(default=None, ge=0)
    """steps between samples of fixed prompts; an epoch, where not given; 0 for none"""
    early_stopping_patience: int = Field(default=3, ge=0)
    """validations without a gain before training stops; 0 to go on"""
    seed: int = 0
    """order of the data, LoRA's start, dropout"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """what matrix products are computed in; auto takes bfloat16 where the machine is fast at it"""
    packing: Choice = "auto"
    """documents side by side in one row, none seeing another: auto, on, off (padded). Speed, not the result"""
    compile: Choice = "auto"
    """torch.compile of the repeated layers: auto (where it pays within the run), on, off"""
    gradient_checkpointing: Choice = "auto"
    """activations made again in the backward pass, for memory: auto (where they would not fit), on, off"""
    trackers: list[str] = Field(default=[])
    """experiment trackers that are told of each step: tensorboard, wandb, mlflow, trackio (pip install NAME)"""

    @model_validator(mode="after")
    def _one_of_two(self) -> TrainConfig:
        if self.num_epochs is not None and self.max_steps is not None:
            raise ValueError("give num_epochs or max_steps, not both")
        if self.batch_size is not None and self.batch_tokens is not None:
            raise ValueError("give batch_size or batch_tokens, not both")
        return self

    @property
    def rows_a_step(self) -> int:
        """`batch_size`, once `decide` has filled it in."""
        assert self.batch_size is not None
        return self.batch_size


class PretrainConfig(Config):
    """How to make a base from raw text."""

    vocab_size: int = Field(default=2048, ge=257)
    """tokens of the byte-level BPE; at least the 256 bytes and the end of text"""
    dim: int = Field(default=192, ge=16)
    """width of the model"""
    num_layers: int = Field(default=4, ge=1)
    """blocks"""
    num_heads: int = Field(default=6, ge=1)
    """attention heads; dim / num_heads is the width of one"""
    ffn_dim: int = Field(default=512, ge=16)
    """inner width of the feed-forward part"""
    context: int = Field(default=512, ge=32)
    """the longest text in tokens that the model may be given later"""
    block: int = Field(default=256, ge=16)
    """tokens predicted a training row"""
    batch_size: int = Field(default=8, ge=1)
    """rows an optimizer step"""
    max_steps: int = Field(default=480, ge=1)
    """optimizer steps, at most"""
    max_seconds: float = Field(default=100.0, gt=0)
    """the longest training in seconds: on a machine measured to be slower, there are fewer steps, and it says so"""
    muon_lr: float = Field(default=0.03, gt=0)
    """learning rate of the matrices (Muon)"""
    adam_lr: float = Field(default=0.01, gt=0)
    """learning rate of embeddings and norms (AdamW)"""
    lr_schedule: Schedule = "wsd"
    """cosine, linear, constant, or wsd (flat, then down in the last fifth)"""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """the share of the steps in which the learning rate rises"""
    valid_fraction: float = Field(default=0.02, gt=0, lt=0.5)
    """the share of the tokens kept for the validation loss"""
    eval_every: int = Field(default=120, ge=1)
    """steps between validations"""
    seed: int = 0
    """start weights, order of the documents and blocks"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """what matrix products are computed in; auto takes bfloat16 where the machine is fast at it"""

    @model_validator(mode="after")
    def _fits(self) -> PretrainConfig:
        if self.dim % (2 * self.num_heads):
            raise ValueError("dim / num_heads must be a whole, even number: rotary positions turn pairs")
        if self.block > self.context:
            raise ValueError("block must not exceed context: longer texts would never have been trained")
        return self


def decide(config: TrainConfig, rows: int, parameters: int, tokens: int = 0) -> TrainConfig:
    """Fill in what was left open, by rows of training data, parameters of the base, and `tokens` of all rows."""
    batch = config.batch_size or _rows_a_step(config.batch_tokens, rows, tokens)
    epoch = -(-rows // batch)
    steps = config.max_steps or epoch * (config.num_epochs or decide_epochs(epoch, _slowness(config, parameters)))
    return config.model_copy(
        update={
            "batch_size": batch,
            "batch_tokens": None,
            "num_epochs": None,
            "max_steps": steps,
            "learning_rate": config.learning_rate or float(f"{usual_rate(config, parameters):.2g}"),
            "eval_every": config.eval_every or min(epoch, steps),
            "sample_every": min(epoch, steps) if config.sample_every is None else config.sample_every,
        }
    )


def _rows_a_step(batch_tokens: int | None, rows: int, tokens: int) -> int:
    return max(1, round(batch_tokens * rows / tokens)) if batch_tokens and tokens else decide_batch(rows)


def _slowness(config: TrainConfig, parameters: int) -> int:
    return 2 if config.method == "lora" and parameters < _SMALL else 1


def usual_rate(config: TrainConfig, parameters: int) -> float:
    """3.1e-3 at 2M parameters, falling fast with size to 1.2e-4 at 135M, and from there slowly to 2.1e-5 at 8B.

    A base of a few million parameters has still to learn to write. The first two are measured (bench/learning.py), the
    last is what people use. Ten times that for LoRA, whatever its rank (Biderman et al. 2024; Schulman 2025), at most
    5e-3; it is that of a lora_alpha of 32, and falls with its root: LoRA's product moves by lora_alpha times a step of
    each of its matrices.
    """
    size, muon = max(parameters, 2e6), config.optimizer == "muon"
    full = max(3.1e-3 * (2e6 / size) ** 0.78, 5e-5 * (1e9 / size) ** 0.42)
    if config.method == "lora":
        return (5e-3 if muon else min(5e-3, 10 * full)) * (32 / config.lora_alpha) ** 0.5
    return _MUON_RATE if muon else full


def explain(asked: TrainConfig, made: TrainConfig, rows: int, parameters: int) -> list[str]:
    """What `decide` made of what was left open, each with its reason."""
    epochs = (made.max_steps or 0) / -(-rows // made.rows_a_step)
    size, length = f"{made.rows_a_step} rows a step", f"{made.max_steps} steps, {epochs:.3g} epochs"
    rate = f"learning rate {made.learning_rate:g}"
    if asked.batch_tokens:
        size += f" (about {asked.batch_tokens} tokens)"
    elif asked.batch_size is None:
        size += " (few rows need steps more than large ones)" if made.rows_a_step < decide_batch(10**6) else " (usual)"
    if asked.max_steps is None and asked.num_epochs is None:
        slow = _slowness(asked, parameters)
        length += f" (for {slow * STEPS} steps, in 2 to {slow * EPOCHS} epochs)"
    if asked.learning_rate is None:
        rate += f" (usual for {_kind(asked)} and {parameters / 1e6:,.3g} million parameters)"
    return [f"{rows:,} rows: {size}; {length}", rate]


def _kind(config: TrainConfig) -> str:
    method = "LoRA" if config.method == "lora" else "every weight"
    return f"{method} with Muon" if config.optimizer == "muon" else method
