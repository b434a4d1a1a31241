"""How big a model is, what training it must cost in memory, and the work it must do a token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from tunesmith.core.errors import ResourceError

GB = 1e9
TRAINED_BYTES = 4 + 4 + 8  # a trained number: itself, its gradient and AdamW's two moments, all in float32
LORA_SHARE = 0.005  # of the base, at least: rank 16 on every linear layer of Llama-3.1-8B; 0.036 of SmolLM2-135M


@dataclass(frozen=True)
class Shape:
    """Numbers by what they do: `blocks` are the matrices between embedding and head, every expert counted.

    `head` is a matrix product even where it is tied to the embedding.
    """

    total: int
    trainable: int
    blocks: int
    head: int
    lora: int


def shape_of(model: PreTrainedModel) -> Shape:
    """Count a model, with or without an adapter on it. Tied weights count once in `total`."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    output = model.get_output_embeddings()
    named = list(model.named_parameters())
    lora = sum(p.numel() for name, p in named if "lora_" in name)
    apart = embeddings | {id(output.weight)}
    blocks = sum(p.numel() for name, p in named if p.ndim > 1 and id(p) not in apart and "lora_" not in name)
    trainable = sum(p.numel() for _, p in named if p.requires_grad)
    return Shape(sum(p.numel() for _, p in named), trainable, blocks, output.weight.numel(), lora)


def flops_per_token(shape: Shape, scored: float = 1.0) -> float:
    """Useful floating-point operations a trained token: matrix products only, attention scores left out.

    `scored` is the share of tokens that reach the head. Full: 6N + 6fH. LoRA: 4N + 4fH + 6n, because a frozen matrix
    has no weight gradient. An embedding lookup, padding and recomputation count nothing.
    """
    if shape.lora:
        return 4 * shape.blocks + 4 * scored * shape.head + 6 * shape.lora
    return 6 * shape.blocks + 6 * scored * shape.head


def training_memory_gb(total: int, trainable: int, frozen_bytes: int = 4) -> float:
    """The least that training holds, in GB: frozen weights, and 16 bytes for each trained number (float32 masters).

    Activations, logits and the copies of autocast come on top and depend on the batch.
    """
    return ((total - trainable) * frozen_bytes + trainable * TRAINED_BYTES) / GB


def stored_parameters(path: Path) -> int:
    """The numbers in a model directory's safetensors files, from their headers alone."""
    count = 0
    for file in path.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return count


def check_memory(
    parameters: int, method: Literal["full", "lora"], available_gb: float, frozen_bytes: int = 4, device: str = "memory"
) -> float:
    """The least memory (GB) that training a base of so many parameters takes.

    Raises ResourceError, with the smallest change that fits, where that is plainly more than there is. `frozen_bytes`
    is 4 for a float32 base under LoRA and 2 for a bfloat16 one.
    """
    adapter = int(LORA_SHARE * parameters)
    lora = {size: training_memory_gb(parameters + adapter, adapter, size) for size in (4, 2)}
    need = training_memory_gb(parameters, parameters) if method == "full" else lora[frozen_bytes]
    if need <= available_gb:
        return need
    changes = [("--method lora", lora[frozen_bytes]), ("--method lora --dtype bfloat16", lora[2])]
    largest = int(available_gb / lora[2] * parameters)
    fix = next(
        (flags for flags, cost in changes if cost <= available_gb), f"a base of at most {largest:,.0f} parameters"
    )
    what = f"training {parameters:,} parameters ({method}) holds at least {need:.1f} GB"
    raise ResourceError(f"{what}; {available_gb:.1f} GB of {device} are free", fix=fix)
